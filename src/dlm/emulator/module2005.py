"""The DLM module of one node in 2005: create, remove, and what all lockspaces share.

Decides: the steps of create and remove with their errnos and waits, the settings that were compiled
in, where members get their weights from.
May not know: event numbers and control files (event.py, members.py, sysfs2005.py), bytes.
Mirrors: lockspace.c and device.c of the DLM as posted to linux-kernel on 25 April 2005 and, where
it says so, 15 July 2005.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from functools import partial

from dlm.abi.attributes2005 import kobject_name
from dlm.core.events import CloseFile, Reply, StartMember
from dlm.emulator import debugfs, device2005, sysfs2005
from dlm.emulator.event import EventSpace
from dlm.emulator.members import MembersSpace
from dlm.emulator.misc import DeviceOpener
from dlm.emulator.module import Module, refuse
from dlm.emulator.node_ioctl import NodeFile, NodeTable
from dlm.emulator.pending import Body
from dlm.emulator.space import Space
from dlm.emulator.tree import Directory
from dlm.terms import LOCKSPACE_NAME_MAX, NodeId, ReleaseFlag

SETTINGS = {
    "tcp_port": 21064,
    "buffer_size": 4096,
    "rsbtbl_size": 256,
    "recover_timer": 5,
    "toss_secs": 10,
    "scan_secs": 5,
    "protocol": 1,
}
"""What a user could not change; protocol 1 is SCTP."""

_WEIGHT_UNKNOWN = -1
_BUSY_ELSEWHERE, _BUSY_HERE = 1, 2


_DEVICES: dict[str, DeviceOpener] = {
    "dlm-node": NodeFile,  # type: ignore[dict-item]  # opened with this module only
    "dlm-control": device2005.ControlFile3,
}
"""The devices that come with the module. In which order is UNKNOWN: INFER."""


class Mutex:
    """A mutex of the module; who waits for it has done nothing yet."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._queue: deque[object] = deque()
        self._wake = wake

    @property
    def free(self) -> bool:
        """Whether nobody holds it or waits for it."""
        return not self._queue

    def hold(self, body: Callable[[], Body]) -> Body:
        """Carry out ``body`` while holding the mutex."""
        ticket = object()
        self._queue.append(ticket)
        yield lambda: self._queue[0] is ticket
        try:
            return (yield from body())
        finally:
            self._queue.popleft()
            self._wake()


class Module2005(Module):
    """Everything that goes when the module is unloaded; in place of configfs it has dlm-node."""

    devices = _DEVICES
    numbers_messages = False

    def _configure(self) -> None:
        self.nodes: NodeTable = NodeTable(
            self.endpoint.set_address,
            lambda text: self.boot.log(f"dlm: {text}"),
            drops_repeated=self.profile.control == "members",
        )
        self.create_mutex = Mutex(self.boot.sleepers.wake)
        """Held by a create from before it looks to the end of the wait for its join."""
        self.device_mutex = Mutex(self.boot.sleepers.wake)
        """Held by a remove over its leave, and by the close of a lockspace's device."""

    @property
    def config_root(self) -> Directory | None:
        """There is no configfs in 2005."""
        return None

    def _configured(self) -> bool:
        return False

    @property
    def nodeid(self) -> int:
        """This node's id as the last SET_LOCAL had it, 0 when there was none."""
        return self.nodes.local_nodeid

    def has_local(self) -> bool:
        """Say whether this node has an id."""
        return self.nodeid != 0

    def number(self, attribute: str) -> int:
        """Return a setting; all are compiled in."""
        return SETTINGS[attribute]

    def start_members(self, nodeids: tuple[int, ...]) -> tuple[StartMember, ...]:
        """Return the members of a start, each once."""
        return tuple(
            StartMember(NodeId(nodeid), self._weight(nodeid)) for nodeid in dict.fromkeys(nodeids)
        )

    def _weight(self, nodeid: int) -> int:
        # Weights count since July. INFER: this node counts 1 where SET_NODE has not named it, too:
        # the -1 of the document would give each node another directory than its peers have.
        if self.profile.control == "event":
            return 1
        return self.nodes.weights.get(nodeid, 1 if nodeid == self.nodeid else _WEIGHT_UNKNOWN)

    # ---- create ---------------------------------------------------------------------------------

    def create(self, name: bytes, flags: int, *, capable: bool) -> Body:
        """CREATE_LOCKSPACE; returns the minor, or what a positive event_done said."""
        del flags  # AUTOFREE: its effect was commented out
        if not capable:
            raise refuse(errno.EPERM)
        made = yield from self.create_mutex.hold(partial(self._create, name))
        if not isinstance(made, EventSpace | MembersSpace):
            return made
        yield from self.device_mutex.hold(partial(self._register, made))
        return made.minor

    def _register(self, space: EventSpace | MembersSpace) -> Body:
        yield lambda: True
        space.minor = self.boot.register_device(
            f"dlm_{space.name}", partial(device2005.open_lockspace, space)
        )

    def _create(self, name: bytes, *_: object) -> Body:
        # dlm_new_lockspace(): communication begins before anything is checked, and goes on when the
        # first create fails.
        if not self.spaces:
            self._start_comms()
        if len(name) > LOCKSPACE_NAME_MAX:
            raise refuse(errno.EINVAL, "lockspace name")
        text = name.decode("utf-8", "surrogateescape")
        taken = any(space.name == text for space in self.spaces)
        # The directory of a name of 64 bytes may be that of one of 63 (kobject_register: EEXIST).
        if taken or kobject_name(text) in self.sysfs.entries:
            raise refuse(errno.EEXIST)
        kind = EventSpace if self.profile.control == "event" else MembersSpace
        space = kind(self, text)
        self.spaces.insert(0, space)
        debugfs.add_queues(self.debugfs, space)
        self.sysfs.entries[kobject_name(text)] = sysfs2005.lockspace(space)
        self._kobject_uevent("add", space)
        self.bare_uevent("online", space)
        yield space.join_answered
        try:
            answer = space.join_result()
        except OSError:
            self._forget(space)
            raise
        if answer:
            # Quirk: a positive answer fails the create, yet write returns it like a minor.
            self._forget(space)
            return answer
        return space

    def _start_comms(self) -> None:
        addresses = self.nodes.local_addresses
        if not addresses:
            # INFER: April dereferenced a null pointer here; August refused like this.
            self.boot.log("dlm: no local IP address has been set")
            raise refuse(errno.EINVAL)
        self.endpoint.start(addresses, self.number("protocol"), self.number("tcp_port"))

    # ---- remove ---------------------------------------------------------------------------------

    def remove(self, minor: int, flags: int, *, capable: bool) -> Body:
        """REMOVE_LOCKSPACE; returns 0."""
        if not capable:
            raise refuse(errno.EPERM)
        force = _BUSY_HERE if flags & ReleaseFlag.FORCEFREE else _BUSY_ELSEWHERE
        return (yield from self.device_mutex.hold(partial(self._remove_minor, minor, force)))

    def _remove_minor(self, minor: int, force: int) -> Body:
        space = self.find_minor(minor)
        if space is None:
            raise refuse(errno.EINVAL)
        if _busy(space) > force:
            raise refuse(errno.EBUSY)
        assert isinstance(space, EventSpace | MembersSpace)
        self.bare_uevent("offline", space)
        yield space.leave_answered
        # INFER: the device stays in /proc/misc until the leave is answered.
        self.boot.unregister_device(f"dlm_{space.name}")
        self._forget(space)
        return 0

    def _forget(self, space: Space) -> None:
        space.halt()
        space.end()
        self.spaces.remove(space)
        debugfs.remove(self.debugfs, space)
        del self.sysfs.entries[kobject_name(space.name)]
        self._kobject_uevent("remove", space)
        for question in space.core.abandon_calls():
            # INFER: the kernel freed the lockspace under them. A close never shows an error.
            error = 0 if isinstance(question, CloseFile) else errno.ENOENT
            self.boot.answer(Reply(question.call, error=error))
        if not self.spaces and space.minor is not None:
            self.endpoint.stop()
        self.boot.sleepers.wake()

    # ---- events ---------------------------------------------------------------------------------

    def bare_uevent(self, action: str, space: Space) -> None:
        """Send an event that has no environment: online, offline, change."""
        self.boot.uevents.emit_bare(action, f"/kernel/dlm/{kobject_name(space.name)}")

    def _kobject_uevent(self, action: str, space: Space) -> None:
        self.boot.uevents.emit(action, f"/kernel/dlm/{kobject_name(space.name)}", "dlm", ())


def _busy(space: Space) -> int:
    """Return 0 for no locks, 1 for locks mastered elsewhere only, 2 for any mastered here.

    INFER: mastered here are all locks on resources that this node masters, other nodes' too.
    """
    busy = 0
    for resource in space.core.resources():
        if resource.granted or resource.converting or resource.waiting or resource.lookups:
            busy = max(busy, _BUSY_HERE if resource.is_master else _BUSY_ELSEWHERE)
    return busy
