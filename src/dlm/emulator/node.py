"""A node: the machine, and one life of its kernel from boot to crash.

Decides: what survives a crash (name, addresses) and what does not (all else), misc minors, pids,
the kernel's log, which trees are mounted.
May not know: what the module does.
Mirrors: drivers/char/misc.c (minors), what modprobe, mount and a power switch do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import count
from uuid import UUID

from dlm.core.events import CallId, Reply
from dlm.core.hazards import Hazard, meet
from dlm.core.lockspace import Lockspace
from dlm.emulator.misc import Opener
from dlm.emulator.module import Module
from dlm.emulator.module2005 import Module2005
from dlm.emulator.network import Network
from dlm.emulator.pending import Body, Pending, Sleepers
from dlm.emulator.process import Process
from dlm.emulator.scheduler import Scheduler
from dlm.emulator.state import StateFiles
from dlm.emulator.tree import Directory, Tree
from dlm.emulator.uevents import Uevents
from dlm.errors import KernelHazardError
from dlm.terms import KernelProfile

_MODULES: dict[str, type[Module]] = {
    "configfs": Module,
    "event": Module2005,
    "members": Module2005,
}
"""The module that speaks a dialect of control."""

_FIRST_PID = 1000
_MISC_MAJOR = "10"


def _file_of(device: str) -> str:
    """Return the name of a device's file in /dev."""
    # Linux 6.1 drivers/base/core.c, device_get_devnode(): an exclamation mark stands for a slash.
    return device.replace("!", "/")


class Boot:
    """One life of a node's kernel; everything in it vanishes when ``alive`` ends."""

    def __init__(self, node: Node, scheduler: Scheduler, network: Network) -> None:
        self.name = node.name
        self.addresses = node.addresses
        self.profile = node.profile
        self.scheduler = scheduler
        self.network = network
        self.alive = True
        self.tree = Tree()
        self.sleepers = Sleepers(scheduler)
        self.uevents = Uevents(scheduler, node.name, lambda: node.drop_uevents)
        self.state = StateFiles(scheduler, str(UUID(int=scheduler.random.getrandbits(128))))
        self.pids = count(_FIRST_PID)
        # A bound method of C: two for every lock's path cost a tenth of what a function costs.
        self.next_call: Callable[[], CallId] = count(1).__next__  # type: ignore[assignment]
        """Returns the number of a new call into a lockspace, or of a file on it."""
        self.module: Module | None = None
        self.lines: list[str] = []
        self.controller: Callable[[], str | None] = lambda: node.controller
        self.on_hazard = node.on_hazard
        self._born_ns = scheduler.now_ns
        self._calls: dict[CallId, tuple[Pending, bool]] = {}
        self.device_modes: dict[str, int] = {}
        """Permissions of devices where they are not 0600."""
        self._devices: dict[str, tuple[int, Opener]] = {}
        self.tree.root.entries["debug"] = Directory(mode=0o700, mounted=True)
        self.mount_configfs()
        self.load_module()

    # ---- time, chance, notes --------------------------------------------------------------------

    def clock(self) -> int:
        """Return this kernel's monotonic clock in nanoseconds."""
        return self.scheduler.now_ns - self._born_ns

    def log(self, text: str) -> None:
        """Write a line to the kernel's log."""
        self.lines.append(text)
        self.scheduler.record(self.name, "log", text)

    def acted(self, *what: object) -> None:
        """Note that a process did something that others may see."""
        self.scheduler.progress += 1
        self.scheduler.record(self.name, *what)

    # ---- calls that sleep -----------------------------------------------------------------------

    def begin(self, body: Body, text: str, *, killable: bool = False) -> Pending:
        """Run a call up to its first sleep."""
        return self.sleepers.begin(body, f"{text} on {self.name}", killable=killable)

    def expect(self, call: CallId, text: str, *, numeric: bool) -> Pending:
        """Return the pending call that ``answer`` will finish; ``numeric``: it returns a number."""
        pending = Pending(self.scheduler, f"{text} on {self.name}")
        self._calls[call] = (pending, numeric)
        return pending

    def answer(self, reply: Reply) -> None:
        """Finish a call that slept."""
        error = OSError(reply.error, os.strerror(reply.error)) if reply.error else None
        self.scheduler.progress += 1
        pending, numeric = self._calls.pop(reply.call)
        pending.finish(reply.value if numeric else None, error)
        self.sleepers.wake()

    # ---- what real kernels do not survive -------------------------------------------------------

    @property
    def strict(self) -> bool:
        """Whether that is told."""
        return self.on_hazard is not None

    def risk(self, hazard: Hazard, who: str) -> None:
        """Say that a real kernel would go wrong here."""
        try:
            meet(hazard, who, self.profile, strict=self.strict)
        except KernelHazardError as error:
            self.met(error)
            raise OSError(errno.EIO, error.message, self.name) from error

    def met(self, error: KernelHazardError) -> None:
        """Tell of a hazard: raises, or the cluster's owner has let the node go down."""
        self.log(f"strict: {error.message}")
        assert self.on_hazard is not None
        self.on_hazard(error)

    # ---- misc devices ---------------------------------------------------------------------------

    def register_device(self, name: str, opener: Opener) -> int:
        """Make a misc device; return its minor: the first free one in the kernel's direction."""
        step = self.profile.minors_step
        minor = self.profile.minors_from - 2 * step  # control, monitor, plock
        taken = {minor for minor, _ in self._devices.values()}
        while minor in taken:
            minor += step
        self._devices[name] = (minor, opener)
        self._misc_uevent("add", name, minor)
        return minor

    def unregister_device(self, name: str) -> None:
        """Remove a misc device; files that are open on it stay usable."""
        minor, _ = self._devices.pop(name)
        self.device_modes.pop(_file_of(name), None)
        self._misc_uevent("remove", name, minor)

    def find_device(self, name: str) -> Opener | None:
        """Return what open(2) of a device does, None when there is no such device."""
        return next(
            (opener for each, (_, opener) in self._devices.items() if _file_of(each) == name), None
        )

    def misc_devices(self) -> dict[str, int]:
        """Return name and minor of every device, newest first."""
        return {name: minor for name, (minor, _) in reversed(self._devices.items())}

    def _misc_uevent(self, action: str, name: str, minor: int) -> None:
        # INFER: the documents of 2005 name no events of misc devices, only those of kobjects.
        modern = self.profile.control == "configfs"
        where = "/devices/virtual/misc" if modern else "/class/misc"
        path = f"{where}/{name.replace('/', '!')}"
        keys = [("MAJOR", _MISC_MAJOR), ("MINOR", str(minor))]
        if modern:
            keys.append(("DEVNAME", _file_of(name)))
        self.uevents.emit(action, path, "misc", keys)

    # ---- modules and mounts ---------------------------------------------------------------------

    def load_module(self) -> None:
        """Do what modprobe does; fine when it is loaded."""
        if self.module is None:
            self.module = _MODULES[self.profile.control](self)
            self.network.attach(self.module.endpoint)
            self._show()
            self._module_uevent("add")

    def unload_module(self) -> None:
        """Do what rmmod does; EWOULDBLOCK while something holds the module, ENOENT without it."""
        if self.module is None:
            raise OSError(errno.ENOENT, "module dlm is not loaded")
        self.module.unload()
        self.network.detach(self.name)
        self.module = None
        self._show()
        self._module_uevent("remove")

    def _module_uevent(self, action: str) -> None:
        if self.profile.control == "configfs":  # the documents of 2005 name no such event
            self.uevents.emit(action, "/module/dlm", "module", ())

    def mount_configfs(self) -> None:
        """Mount configfs; fine when it is mounted."""
        self._mounted = True
        self._show()

    def unmount_configfs(self) -> None:
        """Unmount configfs: what is configured stays, and is there again after a mount."""
        self._mounted = False
        self._show()

    def _show(self) -> None:
        root = self.tree.root.entries
        config, debug = Directory(mounted=self._mounted), root["debug"]
        assert isinstance(debug, Directory)
        for where in (root, debug.entries):
            where.pop("dlm", None)
        root["config"] = config
        if self.module is not None:
            root["dlm"] = self.module.sysfs
            debug.entries["dlm"] = self.module.debugfs
            below = self.module.config_root
            if self._mounted and below is not None:
                config.entries["dlm"] = below

    # ---- the end --------------------------------------------------------------------------------

    def crash(self) -> None:
        """Let everything of this life vanish at once; calls that sleep end with EIO."""
        self.alive = False
        self.network.detach(self.name)
        if self.module is not None:
            for space in self.module.spaces:
                space.end()
        error = OSError(errno.EIO, "node crashed", self.name)
        self.sleepers.crash(error)
        calls, self._calls = self._calls, {}
        for pending, _ in calls.values():
            pending.then = None
            pending.finish(error=error)


class Node:
    """A machine of the cluster.

    ``controller`` (who controls this node's DLM; None: nobody) and ``drop_uevents`` (kernel events
    are lost on the way) may be set at any time.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[str],
        profile: KernelProfile,
        scheduler: Scheduler,
        network: Network,
        *,
        on_hazard: Callable[[KernelHazardError], None] | None = None,
    ) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.profile = profile
        self.on_hazard = on_hazard
        self.controller: str | None = None
        self.drop_uevents = False
        self._scheduler = scheduler
        self._network = network
        self.boot = Boot(self, scheduler, network)

    @property
    def up(self) -> bool:
        """Whether the node runs."""
        return self.boot.alive

    def process(self, *, privileged: bool = True, capable: bool | None = None) -> Process:
        """Return a new process.

        ``privileged`` False: an ordinary user's; ``capable`` False: root's without CAP_SYS_ADMIN.
        Raises ``OSError`` (EIO) while the node is down.
        """
        return Process(self._running(), privileged=privileged, capable=capable)

    def load_module(self) -> None:
        """Load the kernel's DLM module; fine when it is loaded."""
        self._running().load_module()

    def unload_module(self) -> None:
        """Unload it; EWOULDBLOCK while a lockspace, an open device or a cluster exists."""
        self._running().unload_module()

    def mount_configfs(self) -> None:
        """Mount configfs; fine when it is mounted."""
        self._running().mount_configfs()

    def unmount_configfs(self) -> None:
        """Unmount configfs; what is configured stays."""
        self._running().unmount_configfs()

    def log(self) -> tuple[str, ...]:
        """Return the kernel's log of this boot, or of the last one while the node is down."""
        return tuple(self.boot.lines)

    def lockspaces(self) -> dict[str, Lockspace]:
        """Return the machines of this node's lockspaces by name, oldest first, to be looked at."""
        module = self.boot.module
        if not self.up or module is None:
            return {}
        return {space.name: space.core for space in reversed(module.spaces)}

    def crash(self) -> None:
        """Lose power."""
        self.boot.crash()
        self.controller = None

    def restart(self) -> None:
        """Boot again: with the module loaded, configfs mounted and nothing configured."""
        self.boot = Boot(self, self._scheduler, self._network)

    def _running(self) -> Boot:
        if not self.boot.alive:
            raise OSError(errno.EIO, "the node is down", self.name)
        return self.boot
