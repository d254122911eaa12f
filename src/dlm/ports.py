"""The seam: what a program on one node can ask of that node's kernel.

Decides: the calls, their arguments, and what a refusal looks like (an ``OSError`` with the kernel's
errno, from every backend).
May not know: any backend, any path's meaning, any byte's meaning.

Paths are relative to ``/sys/kernel``: ``dlm/<ls>/control``, ``config/dlm/cluster/…``,
``debug/dlm/…``. A ``Backend`` is one PROCESS on one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import IntFlag
from typing import Any, Protocol

from dlm.record import Record


class OpenFlags(IntFlag):
    """How a device is opened (open(2), Linux values)."""

    RDONLY = 0
    WRONLY = 1
    RDWR = 2
    NONBLOCK = 0o4000


class PollEvents(IntFlag):
    """Bits of a device's poll mask (poll(2), Linux values)."""

    IN = 0x001
    OUT = 0x004
    ERR = 0x008
    HUP = 0x010
    RDNORM = 0x040
    WRNORM = 0x100


class Stat(Record):
    """What stat(2) says of an attribute or directory: type and permission bits, inode number."""

    mode: int
    inode: int


# ---- calls, as values, so that they can be submitted, planned, traced and sent ------------------


class ReadAttribute(Record):
    """Open, read to the end, close; result: bytes."""

    path: str


class WriteAttribute(Record):
    """Open write-only, exactly one write(2), close; result: its return value."""

    path: str
    value: bytes


class ListDirectory(Record):
    """Names in a directory, sorted; result: list of str."""

    path: str


class MakeDirectory(Record):
    """mkdir(2); result: None."""

    path: str


class RemoveDirectory(Record):
    """rmdir(2); result: None."""

    path: str


class StatPath(Record):
    """stat(2); result: ``Stat``."""

    path: str


class DeviceWrite(Record):
    """write(2) on an open device; result: its return value, which is data."""

    request: bytes


class DeviceRead(Record):
    """read(2) on an open device; result: bytes."""

    size: int


class DeviceClose(Record):
    """close(2) of the device; the ``Device`` is closed for its holder at once; result: None."""


Call = ReadAttribute | WriteAttribute | ListDirectory | MakeDirectory | RemoveDirectory | StatPath
"""A call on the node's file trees."""

DeviceCall = DeviceWrite | DeviceRead | DeviceClose
"""A call on an open device."""


class Pending(Protocol):
    """A call that has begun and may sleep in the kernel."""

    def done(self) -> bool:
        """Say whether the call has returned."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (None: no limit) for the return; say whether it came."""

    def result(self) -> Any:  # Any: the result's type is the call's
        """Wait without end, then return the call's result or raise its ``OSError``."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the call has returned."""

    def close(self) -> None:
        """Let go: a detached call goes on, any other is killed as far as the kernel lets it."""


class Device(Protocol):
    """An open file on a misc device."""

    def write(self, request: bytes) -> int:
        """Write one request; the return value is data: a lock id, a minor number. May sleep."""

    def read(self, size: int) -> bytes:
        """Read one result of at most ``size`` bytes; EAGAIN when nothing is there and NONBLOCK."""

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Make one ioctl(2); return its result and the argument as the kernel left it."""

    def poll(self, timeout: float | None) -> int:
        """Wait up to ``timeout`` seconds (None: without end); return the event mask, 0 if none."""

    def fileno(self) -> int:
        """Return a descriptor that polls readable when results are there."""

    def submit(self, call: DeviceCall, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep."""

    def close(self) -> None:
        """Close the file (sleeps while its lockspace is stopped); closing twice is fine."""

    def change_mode(self, mode: int) -> None:
        """fchmod(2): who may open the device, 0o600 and the like."""

    def disown(self) -> None:
        """In the child of a fork(2): let go of the copy that it inherited, without a word.

        Else the file, and what hangs on it, would outlive the parent. Never sleeps: the parent's
        own copy is still open.
        """


class Uevent(Record):
    """One kernel event: the header line ``add@/kernel/dlm/test`` and the keys in order."""

    header: str
    env: tuple[tuple[str, str], ...]


class UeventSource(Protocol):
    """A subscription to kernel events; events from before it was opened are not seen."""

    def read_nowait(self) -> list[Uevent]:
        """Return what has come, oldest first; raises ENOBUFS once when events were lost."""

    def wait(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds until something has come; say whether it has."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something has come."""

    def close(self) -> None:
        """End the subscription."""


class StateDirectory(Protocol):
    """A small place of this node for the control module; a crash or reboot empties it."""

    def read(self, name: str) -> bytes | None:
        """Return the file's content, None when there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Replace the file atomically; mode 0600 in a directory of mode 0700."""

    def remove(self, name: str) -> None:
        """Remove the file; fine when there is none."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the node-wide lock of this directory."""

    def boot_id(self) -> str:
        """Return a text that differs between two boots of the node."""


class Backend(Protocol):
    """One process on one node: the view that it has of that node's kernel."""

    def read_attribute(self, path: str) -> bytes:
        """Open, read to the end and close."""

    def write_attribute(self, path: str, value: bytes) -> int:
        """Open, make exactly one write(2), close; return what write returned."""

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""

    def make_directory(self, path: str) -> None:
        """Make a directory (a configfs group)."""

    def remove_directory(self, path: str) -> None:
        """Remove a directory (a configfs group)."""

    def stat(self, path: str) -> Stat:
        """Return mode and inode of a path."""

    def misc_devices(self) -> dict[str, int]:
        """Return the misc devices and their minors (/proc/misc)."""

    def controller(self) -> str | None:
        """Name who controls this node's DLM (dlm_controld, by its abstract sockets), or None."""

    def local_addresses(self) -> Sequence[str]:
        """Return the IP addresses of this node's interfaces, as texts."""

    def open_device(
        self, name: str, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> Device:
        """Open a misc device by name: ``dlm-control``, ``dlm_test``, ``dlm-monitor``."""

    def uevents(self) -> UeventSource:
        """Subscribe to the kernel's events."""

    def submit(self, call: Call, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep; a detached one outlives this process."""

    def spawn_process(self) -> Backend:
        """Return another process on the same node; its ``close()`` is its exit(2)."""

    def state_directory(self) -> StateDirectory:
        """Return the control module's place on this node."""

    def now(self) -> float:
        """Return this world's monotonic clock in seconds."""

    def pause(self, seconds: float, *, bounded: bool = True) -> None:
        """Let the world go on for ``seconds``.

        ``bounded`` False says that the caller will wait for ever: the in-process emulator then
        raises ``StalledError`` when nothing can change any more.
        """

    def describe(self) -> str:
        """Return the spec that ``dlm.connect`` would take: ``kernel``, ``emulator:…``."""

    def process_id(self) -> int:
        """Return this process's id as the kernel records it with locks."""

    def concurrent(self) -> bool:
        """Say whether several threads may make calls of this process at once."""

    def close(self) -> None:
        """Exit: close every file of this process."""
