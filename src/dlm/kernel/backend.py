"""The seam on a real machine: where things are, and which system calls a call is made of.

Decides: the paths of trees, devices and state; what is closed by whom at the end.
May not know: any rule of the DLM. Whether a call is wise, and in which order, is control's.
Mirrors: nothing; it asks fs/dlm/config.c, lockspace.c, user.c and debug_fs.c by their files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dlm.abi.texts import parse_misc
from dlm.kernel import helper
from dlm.kernel.device import KernelDevice
from dlm.kernel.pending import SystemCall
from dlm.kernel.state import RunDirectory
from dlm.kernel.syscalls import OwnSyscalls, Syscalls
from dlm.ports import (
    Call,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    Pending,
    ReadAttribute,
    RemoveDirectory,
    Stat,
    StatPath,
    UeventSource,
    WriteAttribute,
)

PATIENCE = 2.0
"""Seconds that ``close`` waits for files whose closing sleeps; a helper goes on with them."""

_DIRECTORY_MODE = 0o755
_CONTROLLER_SOCKETS = frozenset({"@dlmc_sock", "@dlmc_query_sock"})
"""dlm_controld's abstract sockets: DLMC_SOCK_PATH, DLMC_QUERY_SOCK_PATH of its own header."""

_Convert = Callable[[Any], Any]  # Any: from what the system call gives to what the seam's gives


class KernelBackend:
    """The seam's ``Backend`` on this machine's kernel: one process, usually this one."""

    def __init__(
        self,
        root: str | None = None,
        *,
        syscalls: Syscalls | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Look under ``root`` in place of ``/`` (a recorded tree), through ``syscalls``."""
        self._root = (root or "").rstrip("/")
        self._syscalls: Syscalls = syscalls or OwnSyscalls()
        self._patience = patience
        self._devices: list[KernelDevice] = []
        self._subscriptions: list[UeventSource] = []

    # ---- the trees under /sys/kernel ----

    def read_attribute(self, path: str) -> bytes:
        """Open, read to the end and close."""
        data: bytes = self._make(ReadAttribute(path))
        return data

    def write_attribute(self, path: str, value: bytes) -> int:
        """Open, make exactly one write(2), close; return what write returned."""
        written: int = self._make(WriteAttribute(path, value))
        return written

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        names: list[str] = self._make(ListDirectory(path))
        return names

    def make_directory(self, path: str) -> None:
        """Make a directory (a configfs group)."""
        self._make(MakeDirectory(path))

    def remove_directory(self, path: str) -> None:
        """Remove a directory (a configfs group)."""
        self._make(RemoveDirectory(path))

    def stat(self, path: str) -> Stat:
        """Return mode and inode of a path."""
        status: Stat = self._make(StatPath(path))
        return status

    def submit(self, call: Call, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep; a detached one outlives this process.

        Takes as long as a Python process takes to start, some 10 ms: then the call is under way.
        """
        system_call, convert = self._translate(call)
        return self._syscalls.submit((system_call,), detached=detached, convert=convert)

    def _make(self, call: Call) -> Any:  # Any: the result's type is the call's
        (name, arguments), convert = self._translate(call)
        return convert(helper.perform(self._syscalls, name, arguments))

    def _translate(self, call: Call) -> tuple[SystemCall, _Convert]:
        """Return the system call that a call of the seam is, and what makes its result ours."""
        path = f"{self._root}/sys/kernel/{call.path}"
        match call:
            case ReadAttribute():
                return ("read_attribute", (path,)), bytes
            case WriteAttribute(value=value):
                return ("write_attribute", (path, value)), int
            case ListDirectory():
                return ("listdir", (path,)), sorted
            case MakeDirectory():
                return ("mkdir", (path, _DIRECTORY_MODE)), _nothing
            case RemoveDirectory():
                return ("rmdir", (path,)), _nothing
            case StatPath():
                return ("stat", (path,)), lambda status: Stat(*status)

    # ---- devices, events, the machine ----

    def misc_devices(self) -> dict[str, int]:
        """Return the misc devices and their minors (/proc/misc)."""
        return parse_misc(self._read("/proc/misc"))

    def open_device(
        self, name: str, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> KernelDevice:
        """Open a misc device by name: ``dlm-control``, ``dlm_test``, ``dlm-monitor``.

        ``/dev/misc/`` is where a udev rule of the DLM's tools puts it, ``/dev/`` where the kernel
        does.
        """
        path = f"{self._root}/dev/misc/{name}"
        try:
            descriptor = self._syscalls.open(path, flags)
        except (FileNotFoundError, NotADirectoryError):
            path = f"{self._root}/dev/{name}"
            descriptor = self._syscalls.open(path, flags)
        device = KernelDevice(self._syscalls, path, descriptor, self._devices.remove)
        self._devices.append(device)
        return device

    def controller(self) -> str | None:
        """Name who controls this node's DLM (dlm_controld, by its abstract sockets), or None."""
        try:
            sockets = self._read("/proc/net/unix").decode(errors="replace")
        except FileNotFoundError:
            return None
        names = {line.split()[-1] for line in sockets.splitlines() if line.strip()}
        return "dlm_controld" if names & _CONTROLLER_SOCKETS else None

    def local_addresses(self) -> Sequence[str]:
        """Return the IP addresses of this node's interfaces, as texts; none of a recorded tree."""
        return () if self._root else self._syscalls.addresses()

    def uevents(self) -> UeventSource:
        """Subscribe to the kernel's events: all of them, this machine's even for another root."""
        source = self._syscalls.uevents()
        self._subscriptions.append(source)
        return source

    def state_directory(self) -> RunDirectory:
        """Return the control module's place on this node: /run/dlm."""
        return RunDirectory(
            self._syscalls,
            f"{self._root}/run/dlm",
            f"{self._root}/proc/sys/kernel/random/boot_id",
        )

    def _read(self, path: str) -> bytes:
        return helper.read_attribute(self._syscalls, self._root + path)

    # ---- time and processes ----

    def now(self) -> float:
        """Return this world's monotonic clock in seconds."""
        return self._syscalls.monotonic()

    def pause(self, seconds: float, *, bounded: bool = True) -> None:  # noqa: ARG002
        """Sleep; a real kernel has no way to know that nothing can change any more."""
        self._syscalls.sleep(seconds)

    def describe(self) -> str:
        """Return the spec that ``dlm.connect`` would take: ``kernel``, ``kernel:root=DIR``."""
        return f"kernel:root={self._root}" if self._root else "kernel"

    def process_id(self) -> int:
        """Return this process's id as the kernel records it with locks."""
        return self._syscalls.getpid()

    def concurrent(self) -> bool:
        """Say whether several threads may make calls at once: not those of another process."""
        return isinstance(self._syscalls, OwnSyscalls)

    def spawn_process(self) -> KernelBackend:
        """Return another process on this machine; its ``close()`` ends it.

        It makes one call at a time. It ends with this process too, however that ends.
        """
        other = self._syscalls.spawn()
        return KernelBackend(self._root, syscalls=other, patience=self._patience)

    def close(self) -> None:
        """Exit: close every file of this process.

        Closing a lockspace's device sleeps while the lockspace is stopped, and this room cannot
        know which do. So all that are still open go to one helper, which this process waits for no
        longer than its patience: then the helper closes them when the kernel lets it. A process
        from ``spawn_process`` ends, and is waited for in the same way.
        """
        for source in self._subscriptions:
            source.close()
        self._subscriptions.clear()
        files = [device.abandon() for device in tuple(self._devices)]
        self._syscalls.exit(files, self._patience)


def _nothing(_: object) -> None:
    """Be the result of a call that has none."""
