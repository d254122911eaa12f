"""A backend at the end of a stream: each call is a request to the server that has the real one.

Decides: which request each call of ``dlm.ports`` is.
May not know: which backend the server has; bytes on the stream.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from select import POLLIN, poll
from typing import Any

from dlm.ports import (
    Call,
    DeviceCall,
    DeviceClose,
    DeviceRead,
    DeviceWrite,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    ReadAttribute,
    RemoveDirectory,
    Stat,
    StatPath,
    Uevent,
    WriteAttribute,
)
from dlm.remote import streams
from dlm.remote.line import Level, Line, RemotePending
from dlm.remote.wire import How

_TREE = {
    ReadAttribute: "read_attribute",
    WriteAttribute: "write_attribute",
    ListDirectory: "list_directory",
    MakeDirectory: "make_directory",
    RemoveDirectory: "remove_directory",
    StatPath: "stat",
}


def connect(path: str, *, describe: str = "") -> Client:
    """Return the process that a server at ``path``, a Unix socket or a device, gives us.

    ``describe`` is what the backend calls itself (else what the server's calls itself). Raises
    ``OSError`` (from connect(2), or what the server refuses with) and ``NoDlmError``.
    """
    return Client(_open(path), describe=describe)


def _open(path: str) -> Line:
    if streams.is_device(path):
        return Line(streams.Stream(streams.open_device(path)), device=True)
    return Line(streams.Stream(streams.connect(path).detach()))


def ask(path: str, verb: str, *arguments: object) -> Any:  # Any: the verb's answer
    """Ask a server one thing, on a connection of its own; for ports that serve verbs."""
    line = _open(path)
    try:
        return line.call(0, verb, *arguments)
    finally:
        line.close()


class Client:
    """One process on the server's side (``dlm.ports.Backend``); may be used by several threads."""

    def __init__(
        self, line: Line, *, describe: str = "", target: int = 0, pid: int | None = None
    ) -> None:
        self._line = line
        self._describe = describe or line.describe
        self._target = target
        self._pid = line.pid if pid is None else pid
        self._open = True

    def _call(self, verb: str, *arguments: object) -> Any:  # Any: the verb's answer
        return self._line.call(self._target, verb, *arguments)

    # ---- files ----------------------------------------------------------------------------------

    def read_attribute(self, path: str) -> bytes:
        """Open, read to the end and close."""
        data: bytes = self._call("read_attribute", path)
        return data

    def write_attribute(self, path: str, value: bytes) -> int:
        """Open, make exactly one write(2), close; return what write returned."""
        written: int = self._call("write_attribute", path, value)
        return written

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        names: list[str] = self._call("list_directory", path)
        return names

    def make_directory(self, path: str) -> None:
        """mkdir(2)."""
        self._call("make_directory", path)

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""
        self._call("remove_directory", path)

    def stat(self, path: str) -> Stat:
        """Return mode and inode of a path."""
        return Stat(*self._call("stat", path))

    def submit(self, call: Call, *, detached: bool = False) -> RemotePending:
        """Begin a call that can sleep; a detached one outlives this process."""
        arguments = (call.path, call.value) if isinstance(call, WriteAttribute) else (call.path,)
        return self._line.request(
            self._target,
            _TREE[type(call)],
            *arguments,
            how=_how(detached),
            convert=(lambda answer: Stat(*answer)) if isinstance(call, StatPath) else None,
        )

    # ---- devices and events ---------------------------------------------------------------------

    def misc_devices(self) -> dict[str, int]:
        """Return the misc devices and their minors (/proc/misc)."""
        return dict(self._call("misc_devices"))

    def open_device(
        self, name: str, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> RemoteDevice:
        """Open a misc device by name."""
        return RemoteDevice(self._line, self._call("open_device", name, int(flags)))

    def uevents(self) -> RemoteUevents:
        """Subscribe to the kernel's events."""
        return RemoteUevents(self._line, self._call("uevents"))

    # ---- the node -------------------------------------------------------------------------------

    def controller(self) -> str | None:
        """Name who controls the node's DLM, or None."""
        name: str | None = self._call("controller")
        return name

    def local_addresses(self) -> Sequence[str]:
        """Return the IP addresses of the node's interfaces."""
        addresses: list[str] = self._call("local_addresses")
        return addresses

    def state_directory(self) -> RemoteState:
        """Return the control module's place on the node."""
        return RemoteState(self._call)

    def now(self) -> float:
        """Return this machine's monotonic clock, at the pace of the server's world."""
        return time.monotonic() * self._line.speed

    def pause(self, seconds: float, *, bounded: bool = True) -> None:
        """Let the world go on; here nobody knows that nothing can change any more."""
        del bounded
        time.sleep(seconds / self._line.speed)

    def describe(self) -> str:
        """Return the spec that ``dlm.connect`` would take."""
        return self._describe

    def concurrent(self) -> bool:
        """Say that several threads may make calls at once."""
        return True

    def process_id(self) -> int:
        """Return this process's id as the server's kernel records it with locks."""
        return self._pid

    # ---- life -----------------------------------------------------------------------------------

    def spawn_process(self) -> Client:
        """Return another process on the same node; it ends with this connection too."""
        target, pid = self._call("spawn_process")
        return Client(self._line, describe=self._describe, target=target, pid=pid)

    def close(self) -> None:
        """Exit; the connection ends with the process that it is."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError):  # nobody there any more: then the process has ended already
            self._call("exit")
        if self._target == 0:
            self._line.close()


class _Watched:
    """What has a descriptor that the server keeps in step: a device, a subscription."""

    def __init__(self, line: Line, target: int) -> None:
        self._line = line
        self._target = target
        self._level: Level | None = None

    def _call(self, verb: str, *arguments: object) -> Any:  # Any: the verb's answer
        return self._line.call(self._target, verb, *arguments)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is something to read."""
        if self._level is None:
            self._level = Level()
            self._line.levels[self._target] = self._level
            self._call("watch")
        return self._level.fileno()

    def _wait(self, timeout: float | None) -> Any:  # Any: what the verb "poll" says
        """Wait up to ``timeout`` of the world's seconds until there is something; return it."""
        found = self._call("poll")
        if found or timeout == 0:
            return found
        wanted = poll()
        wanted.register(self.fileno(), POLLIN)
        end = None if timeout is None else time.monotonic() + timeout / self._line.speed
        while not (found := self._call("poll")):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            wanted.poll(None if left is None else left * 1000)
        return found

    def _forget(self) -> None:
        level, self._level = self._level, None
        if level is not None:
            self._line.levels.pop(self._target, None)
            level.close()


class RemoteDevice(_Watched):
    """An open file on a device of the server's side (``dlm.ports.Device``)."""

    def __init__(self, line: Line, target: int) -> None:
        super().__init__(line, target)
        self._open = True

    def write(self, request: bytes) -> int:
        """Write one request; the return value is data."""
        answer: int = self._checked("write", request)
        return answer

    def read(self, size: int) -> bytes:
        """Read one result of at most ``size`` bytes."""
        data: bytes = self._checked("read", size)
        return data

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Make one ioctl(2)."""
        result, left = self._checked("ioctl", request, argument)
        return result, left

    def poll(self, timeout: float | None) -> int:
        """Wait up to ``timeout`` seconds; return the event mask, 0 if none."""
        self._check()
        return int(self._wait(timeout))

    def submit(self, call: DeviceCall, *, detached: bool = False) -> RemotePending:
        """Begin a call that can sleep."""
        self._check()
        match call:
            case DeviceWrite(request):
                return self._line.request(self._target, "write", request, how=_how(detached))
            case DeviceRead(size):
                return self._line.request(self._target, "read", size, how=_how(detached))
            case DeviceClose():
                self._end()
                return self._line.request(self._target, "close", how=_how(detached))

    def close(self) -> None:
        """Close the file (sleeps while its lockspace is stopped); closing twice is fine."""
        if self._open:
            self._end()
            self._call("close")

    def change_mode(self, mode: int) -> None:
        """fchmod(2): who may open the device."""
        self._checked("change_mode", mode)

    def disown(self) -> None:
        """In the child of a fork(2): let go of the connection, which is the parent's."""
        self._open = False
        self._line.disown()

    def _checked(self, verb: str, *arguments: object) -> Any:  # Any: the verb's answer
        self._check()
        return self._call(verb, *arguments)

    def _check(self) -> None:
        if not self._open:
            raise OSError(errno.EBADF, "the device is closed")

    def _end(self) -> None:
        self._open = False
        self._forget()


class RemoteUevents(_Watched):
    """A subscription on the server's side (``dlm.ports.UeventSource``)."""

    def read_nowait(self) -> list[Uevent]:
        """Return what has come, oldest first; raises ENOBUFS once when events were lost."""
        return [
            Uevent(header, tuple((key, value) for key, value in env))
            for header, env in self._call("read")
        ]

    def wait(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds until something has come; say whether it has."""
        return bool(self._wait(timeout))

    def close(self) -> None:
        """End the subscription."""
        self._forget()
        with suppress(OSError):
            self._call("close")


class RemoteState:
    """The state directory of the server's side (``dlm.ports.StateDirectory``)."""

    def __init__(self, call: Callable[..., Any]) -> None:  # Any: the verb's answer
        self._call = call

    def read(self, name: str) -> bytes | None:
        """Return the file's content, None when there is none."""
        content: bytes | None = self._call("state_read", name)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace the file."""
        self._call("state_write", name, content)

    def remove(self, name: str) -> None:
        """Remove the file; fine when there is none."""
        self._call("state_remove", name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the node-wide lock; a connection that drops lets go of it."""
        self._call("state_lock")
        try:
            yield
        finally:
            with suppress(OSError):  # nobody there any more: then nobody holds it
                self._call("state_unlock")

    def boot_id(self) -> str:
        """Return a text that differs between two boots of the node."""
        boot_id: str = self._call("boot_id")
        return boot_id


def _how(detached: bool) -> How:
    return How.SUBMIT | How.DETACHED if detached else How.SUBMIT
