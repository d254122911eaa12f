"""The DLM module of one node, from load to unload: create, remove, and what all lockspaces share.

Decides: the steps of create and remove with their errnos and waits, which of two lockspaces with
one id gets a message, what a daemon that goes away brings about.
May not know: any rule of locking or recovery, bytes of the device, paths.
Mirrors: fs/dlm/lockspace.c and the device part of user.c (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dlm.abi.address import decode_sockaddr
from dlm.abi.texts import directory_name
from dlm.core import not_ready
from dlm.core.events import Deliver
from dlm.core.hazards import OWN_COMM_REMOVED, REMOVED_TWICE
from dlm.emulator import debugfs, misc, sysfs
from dlm.emulator.configfs import Configfs
from dlm.emulator.network import Endpoint
from dlm.emulator.pending import Body
from dlm.emulator.scheduler import Scheduler
from dlm.emulator.space import Packet, Space, is_sequenced
from dlm.emulator.tree import Directory
from dlm.terms import LOCKSPACE_NAME_MAX, KernelProfile, LockspaceFlag, NodeId, ReleaseFlag

if TYPE_CHECKING:
    from dlm.emulator.node import Boot

_FS = 0x4
_TIMEWARN = 0x2
_SOFTIRQ = 0x10
_DYNAMIC_MINOR = 255
_NOT_KEPT = int(LockspaceFlag.NEWEXCL) | _FS  # an int: ~ of a flag knows only the flag's own bits
"""Flags of a create that are not kept with the lockspace (DLM_LSFL_*)."""


def refuse(number: int, what: str = "") -> OSError:
    """Return a refusal."""
    return OSError(number, f"{what}: {os.strerror(number)}" if what else os.strerror(number))


class Module:
    """Everything that goes when the module is unloaded."""

    devices: dict[str, misc.DeviceOpener] = misc.DEVICES
    """What opens each of the module's own devices, in the order in which they get their minors."""
    numbers_messages = True
    """Messages have the numbers of the reliable layer."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.profile: KernelProfile = boot.profile
        self.scheduler: Scheduler = boot.scheduler
        self.endpoint = Endpoint(
            boot.network,
            boot.name,
            boot.profile.max_addresses,
            self._receive,
            lambda text: boot.log(f"dlm: {text}"),
            self._appeared,
            self.keeps,
            boot.sleepers.wake,
            acks_late=boot.profile.debug_comms == "address",  # Linux 6.12
        )
        self.spaces: list[Space] = []
        """All lockspaces, newest first, as the kernel looks through them."""
        self.parting = False
        """The last lockspace leaves, and has no members any more."""
        self.monitors = 0
        self.monitor_used = False
        self._had_two = False
        self.open_files: int = 0
        """Open files on any of the module's devices: they hold it."""
        self._mutex: deque[object] = deque()
        self.sysfs = Directory()
        self.debugfs = debugfs.root(self)
        self._configure()
        for name, opener in self.devices.items():
            boot.register_device(name, partial(opener, self))

    def _configure(self) -> None:
        """Make what nodes are configured with."""
        self.configfs = Configfs(self.profile, self.endpoint, self._tune, self._disappeared)

    @property
    def config_root(self) -> Directory | None:
        """The directory ``config/dlm``; None where there is none."""
        return self.configfs.root

    def _configured(self) -> bool:
        return bool(self.configfs.root.entries)

    def unload(self) -> None:
        """Go, when nothing holds the module; EWOULDBLOCK."""
        if self.spaces or self.open_files or self._configured():
            raise refuse(errno.EWOULDBLOCK, "module dlm is in use")
        for name in reversed(self.devices):
            self.boot.unregister_device(name)

    # ---- what all lockspaces share --------------------------------------------------------------

    @property
    def nodeid(self) -> int:
        """This node's id, 0 when no comm is the local one."""
        return self.configfs.local_nodeid

    def has_local(self) -> bool:
        """Say whether a comm is the local one."""
        return self.configfs.local is not None

    def number(self, attribute: str) -> int:
        """Return a setting of the cluster that is a number."""
        value = self.configfs.values[attribute]
        assert isinstance(value, int)
        return value

    def daemon_available(self) -> bool:
        """Say whether somebody is there to answer joins and leaves."""
        # Linux 6.1 fs/dlm/user.c, dlm_user_daemon_available()
        return self.nodeid != 0 and (not self.monitor_used or self.monitors > 0)

    def open_monitor(self) -> None:
        """dlm-monitor is opened once more."""
        self.monitors += 1
        self.monitor_used = True

    def close_monitor(self) -> None:
        """dlm-monitor is closed; the last close stops every lockspace that runs."""
        # Linux 6.1 fs/dlm/lockspace.c, dlm_stop_lockspaces()
        self.monitors -= 1
        if self.monitors:
            return
        for space in tuple(self.spaces):
            if not space.core.stopped:
                space.log("no userland control daemon, stopping lockspace")
                space.stop()
        if self.spaces:
            self.boot.log(f"dlm: dlm user daemon left {len(self.spaces)} lockspaces")

    def find_minor(self, minor: int) -> Space | None:
        """Return the lockspace whose device has this minor, or had it while it leaves.

        Quirk: one that joins has no device yet, and is found by minor 0. Since 6.12 one that leaves
        is found by 255 (drivers/char/misc.c, misc_deregister()).
        """
        return next((space for space in self.spaces if (space.minor or 0) == minor), None)

    # ---- create ---------------------------------------------------------------------------------

    def create(self, name: bytes, flags: int, *, capable: bool) -> Body:
        """CREATE_LOCKSPACE; returns the minor."""
        # Linux 6.1 fs/dlm/user.c, device_create_lockspace()
        if not capable:
            raise refuse(errno.EPERM)
        if self.profile.reserved_flag and flags & _SOFTIRQ:
            raise refuse(errno.EINVAL)
        space: Space = yield from self._locked(partial(self._create, name, flags))
        if space.minor is None:
            device = f"dlm_{space.name}"
            if device in self.devices:  # a lockspace "plock": the lockspace goes again
                yield from self._locked(partial(self._remove, space, force=False))
                raise refuse(errno.EEXIST)
            space.minor = self.boot.register_device(device, partial(misc.open_lockspace, space))
        return space.minor

    def _create(self, name: bytes, flags: int) -> Body:
        if not self.spaces:
            self._start_comms()
        try:
            return (yield from self._find_or_make(name, flags))
        except OSError:
            if not self.spaces:
                self._stop_comms()
            raise

    def _find_or_make(self, name: bytes, flags: int) -> Body:
        # Linux 6.1 fs/dlm/lockspace.c, new_lockspace()
        if not 0 < len(name) <= LOCKSPACE_NAME_MAX:
            raise refuse(errno.EINVAL, "lockspace name")
        self._ask_own_id(name.decode("utf-8", "replace"))
        if not self.daemon_available():
            self.boot.log("dlm: dlm user daemon not available")
            raise refuse(errno.EUNATCH)
        text = name.decode("utf-8", "surrogateescape")
        for space in self.spaces:
            if space.name == text:
                if flags & LockspaceFlag.NEWEXCL:
                    raise refuse(errno.EEXIST)
                space.use_count += 1
                return space
        if directory_name(text) in self.sysfs.entries:
            raise refuse(errno.EEXIST)
        return (yield from self._join(text, flags))

    def _join(self, name: str, flags: int) -> Body:
        watches = self.profile.deprecated_timeouts and bool(flags & _TIMEWARN)
        space = Space(self, name, self._kept_flags(flags), watches_waits=watches)
        self.spaces.insert(0, space)
        self.sysfs.entries[directory_name(name)] = sysfs.lockspace(space)
        self._uevent("add", space)
        try:
            result = yield from self._ask_daemon(space, "online", "joining")
            if result < 0:
                raise refuse(-result)
            yield lambda: space.recovery_result is not None
            if space.recovery_result:
                error = refuse(space.recovery_result)
                yield from self._ask_daemon(space, "offline", "leaving")
                raise error
        except OSError as error:
            space.log(f"group join failed {-(error.errno or 0)} {space.event_result}")
            self._forget(space)
            raise
        debugfs.add(self.debugfs, space)
        space.log("join complete")
        return space

    def _kept_flags(self, flags: int) -> int:
        dropped = _NOT_KEPT
        if self.profile.deprecated_timeouts:
            dropped |= _TIMEWARN
        return flags & ~dropped

    # ---- remove ---------------------------------------------------------------------------------

    def remove(self, minor: int, flags: int, *, capable: bool) -> Body:
        """REMOVE_LOCKSPACE; returns 0."""
        # Linux 6.1 fs/dlm/user.c, device_remove_lockspace()
        if not capable:
            raise refuse(errno.EPERM)
        space = self.find_minor(minor)
        if space is None:
            raise refuse(errno.ENOENT)
        if not space.use_count:  # it leaves: by this call's turn it will be gone
            self.boot.risk(REMOVED_TWICE, space.name)
        force = bool(flags & ReleaseFlag.FORCEFREE)
        return (yield from self._locked(partial(self._remove, space, force)))

    def _remove(self, space: Space, force: bool) -> Body:
        # Linux 6.1 fs/dlm/lockspace.c, release_lockspace(). Where another remove was faster, the
        # kernel uses what has been freed; here it is the error of a lockspace that is not there.
        if space.gone:
            self.boot.risk(REMOVED_TWICE, space.name)
            raise refuse(errno.EINVAL)
        if space.use_count > 1:
            space.use_count -= 1
            return 0
        if not force and space.core.busy():
            raise refuse(errno.EBUSY)
        self._ask_own_id(space.name)
        space.use_count = 0
        if space.minor is not None:
            self.boot.unregister_device(f"dlm_{space.name}")
        if self.profile.forgets_minor:
            space.minor = _DYNAMIC_MINOR
        if self.daemon_available():
            yield from self._ask_daemon(space, "offline", "leaving")
        space.halt()
        last = len(self.spaces) == 1
        if last:
            self.parting = True
            yield from self._part()
            self._stop_comms()
            self.parting = False
        yield lambda: not space.on_result  # every file on the lockspace is closed
        self._forget(space)
        if last:
            self._stop_comms()
        return 0

    def _part(self) -> Body:
        # Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_shutdown(): one node after the other says that
        # it has let go of us; a node says so when no lockspace of its own has us as a member.
        scheduler = self.scheduler
        for nodeid in self.endpoint.part():
            deadline = scheduler.now + self.profile.parting_seconds
            end = scheduler.schedule(self.profile.parting_seconds, self.boot.sleepers.wake)
            yield partial(self._has_parted, nodeid, deadline)
            scheduler.cancel(end)
            self._comm_ended(nodeid)

    def _has_parted(self, nodeid: int, deadline: float) -> bool:
        return self.scheduler.now >= deadline or not self.endpoint.is_kept_by(nodeid)

    def keeps(self, nodeid: int) -> bool:
        """Say whether a lockspace that does not leave has a node as a member."""
        return not self.parting and any(nodeid in space.core.members for space in self.spaces)

    # ---- private --------------------------------------------------------------------------------

    def _ask_own_id(self, who: str) -> None:
        # Quirk: since 6.12 nobody looks whether there is a local comm; seen on 6.12 and 7.2.
        if self.spaces and not self.has_local():
            self.boot.risk(OWN_COMM_REMOVED, who)

    def _locked(self, body: Callable[[], Body]) -> Body:
        # The one mutex over every create and remove; whoever waits for it has done nothing yet.
        ticket = object()
        self._mutex.append(ticket)
        yield lambda: self._mutex[0] is ticket
        try:
            return (yield from body())
        finally:
            self._mutex.popleft()
            self.boot.sleepers.wake()

    def _ask_daemon(self, space: Space, action: str, doing: str) -> Body:
        # Linux 6.1 fs/dlm/lockspace.c, do_uevent(): an answer given before the question counts.
        self._uevent(action, space)
        space.log(f"{doing} the lockspace group...")
        yield lambda: space.event_done
        space.event_done = False
        space.log(f"group event done {space.event_result}")
        return space.event_result

    def _uevent(self, action: str, space: Space) -> None:
        extra = [("LOCKSPACE", space.name)]
        if action == "offline" and self.profile.release_recover:
            extra.insert(0, ("RELEASE_RECOVER", "0"))
        path = f"/kernel/dlm/{directory_name(space.name)}"
        self.boot.uevents.emit(action, path, "dlm", extra)

    def _forget(self, space: Space) -> None:
        space.end()
        self.spaces.remove(space)
        debugfs.remove(self.debugfs, space)
        del self.sysfs.entries[directory_name(space.name)]
        self._uevent("remove", space)

    def _start_comms(self) -> None:
        local = self.configfs.local
        if local is None or not local.addresses:
            self.boot.log("dlm: no local IP address has been set")
            raise refuse(errno.ENOTCONN)
        # Quirk: the kernel never forgets a second address; Linux 5.10 fs/dlm/lowcomms.c,
        # init_local(), tcp_listen_for_all().
        self._had_two = self._had_two or len(local.addresses) > 1
        if self._had_two and self.profile.one_tcp_address and not self.number("protocol"):
            self.boot.log("dlm: TCP protocol can't handle multi-homed hosts, try SCTP")
            raise refuse(errno.EINVAL)
        try:
            protocol = min(self.number("protocol"), 1)
            self.endpoint.start(local.address_texts(), protocol, self.number("tcp_port"))
        except OSError as error:
            raise refuse(self._listen_error(local.addresses[0])) from error
        name = "SCTP" if self.number("protocol") else "TCP"
        self.boot.log(f"dlm: Using {name} for communications")

    def _listen_error(self, address: bytes) -> int:
        # Linux 6.1 fs/dlm/lowcomms.c, dlm_listen_for_all(): there is no socket for TCP in another
        # family than IPv4 and IPv6. 5.10 has one errno for all.
        said: int = getattr(errno, self.profile.listen_error)
        if said != errno.EADDRNOTAVAIL or decode_sockaddr(address):
            return said
        unix = int.from_bytes(address[:2], "little") == socket.AF_UNIX
        return errno.EPROTONOSUPPORT if unix else errno.EAFNOSUPPORT

    def reaches(self, nodeid: int) -> bool:
        """Say whether a message about a lock can be made for a node."""
        # Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_get_mhandle(): not before its version is known.
        anything = self.profile.takes_any_target or not self.numbers_messages
        return anything or self.endpoint.knows(nodeid)

    def _appeared(self, nodeid: int, addressed: bool) -> None:
        if self.profile.debug_comms == ("address" if addressed else "member"):
            debugfs.add_comm(self, nodeid)

    def _stop_comms(self) -> None:
        for nodeid in self.endpoint.stop():
            self._comm_ended(nodeid)

    def _comm_ended(self, nodeid: int) -> None:
        # Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_shutdown(); in 6.12 it stays until its address
        # goes.
        if self.profile.debug_comms == "member":
            debugfs.remove_comm(self, nodeid)

    def _disappeared(self, nodeid: int) -> None:
        # Linux 6.12 fs/dlm/midcomms.c, dlm_midcomms_close(); in 6.1 it stays.
        if self.profile.debug_comms == "address":
            debugfs.remove_comm(self, nodeid)
            if nodeid in self.endpoint.links:
                self.endpoint.links[nodeid].users = 0

    def _tune(self) -> None:
        for space in self.spaces:
            space.tune()

    def _receive(self, nodeid: int, payload: object) -> None:
        assert isinstance(payload, Packet)
        message = payload.message
        for space in self.spaces:
            if space.global_id == payload.lockspace_id:
                space.step(Deliver(NodeId(nodeid), message))
                return
        answer = not_ready(message)
        if answer is not None:
            packet = Packet(payload.lockspace_id, answer)
            sequenced = self.numbers_messages and is_sequenced(answer, self.profile)
            self.endpoint.send(nodeid, packet, sequenced=sequenced)
