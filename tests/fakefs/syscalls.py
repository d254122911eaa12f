"""System calls of which pyfakefs answers one part and an emulated node the other.

Decides: which is which. Paths, permissions, plain files (``/proc``, ``/run``): pyfakefs. What an
open attribute or device says and does, mkdir(2) and rmdir(2) below ``/sys``, kernel events, time,
and every sleep: the node.
May not know: any rule of the DLM; which names there are.

pyfakefs alone cannot be the kernel: its write(2) always returns the length, its ioctl(2) does
nothing, poll(2) meets the real descriptor of that number, mkdir(2) makes no attributes.

========== ==================================== ===================================================
call       path below /sys, device, event       any other path
========== ==================================== ===================================================
open       pyfakefs (is it there, may this      pyfakefs
           user), then the node's file
read write the node                             pyfakefs
ioctl poll the node                             EBADF
close      both                                 pyfakefs
mkdir      the node                             pyfakefs
rmdir      the node                             pyfakefs
listdir    pyfakefs, made like the node's       pyfakefs
stat       the same                             pyfakefs
========== ==================================== ===================================================
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

from dlm.abi.texts import format_uevent
from dlm.kernel import helper, netlink
from dlm.kernel.pending import ON_FILES, SystemCall
from dlm.ports import (
    Backend,
    Device,
    DeviceCall,
    DeviceClose,
    DeviceRead,
    DeviceWrite,
    OpenFlags,
    Pending,
    PollEvents,
    UeventSource,
    WriteAttribute,
)
from tests.fakefs.files import NOBODY, ROOT, SYSFS, Files, as_user, is_below
from tests.fakefs.pending import FakePending, Returned

_SOCKETS = count(10_000)  # numbers of descriptors that no path leads to
_ALWAYS = PollEvents.ERR | PollEvents.HUP


class Emulated(Protocol):
    """An open file that the node answers for."""

    def read(self, size: int) -> bytes:
        """read(2)."""

    def write(self, request: bytes) -> int:
        """write(2)."""

    def close(self) -> None:
        """close(2)."""


class Attribute:
    """An open attribute: the node is asked when the first read comes, and told of every write."""

    def __init__(self, process: Backend, path: str) -> None:
        self.path = path
        self._process = process
        self._unread: bytes | None = None

    def read(self, size: int) -> bytes:
        """read(2): the text as it was at the first read of this open file."""
        if self._unread is None:
            self._unread = self._process.read_attribute(self.path)
        part, self._unread = self._unread[:size], self._unread[size:]
        return part

    def write(self, request: bytes) -> int:
        """write(2), one for one."""
        return self._process.write_attribute(self.path, request)

    def close(self) -> None:
        """close(2)."""


class EventSocket:
    """A subscription of the node, as a socket whose read(2) gives one datagram."""

    def __init__(self, source: UeventSource) -> None:
        self._source = source
        self._unread: list[bytes] = []

    def read(self, size: int) -> bytes:
        """read(2), not blocking."""
        self._unread += map(format_uevent, self._source.read_nowait())
        if not self._unread:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self._unread.pop(0)[:size]

    def write(self, request: bytes) -> int:
        """write(2): nobody here sends."""
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), request)

    def poll(self, timeout: float | None) -> int:
        """poll(2)."""
        return int(PollEvents.IN) if self._unread or self._source.wait(timeout) else 0

    def fileno(self) -> int:
        """Return the node's descriptor."""
        return self._source.fileno()

    def close(self) -> None:
        """close(2)."""
        self._source.close()


class Lock:
    """A directory that is locked as long as it is open."""

    def __init__(self, files: Files, path: str) -> None:
        # Nobody in this one thread could let go while somebody waits.
        assert path not in files.locked, f"{path} is locked: this would wait for ever"
        files.locked.add(path)
        self._files = files
        self._path = path

    def read(self, size: int) -> bytes:
        """read(2) of a directory."""
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), size)

    def write(self, request: bytes) -> int:
        """write(2) to a file that is not open for it."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), request)

    def close(self) -> None:
        """close(2)."""
        self._files.locked.remove(self._path)


class FakeSyscalls:
    """The system calls of one process (``dlm.kernel.syscalls.Syscalls``).

    ``process`` is its twin on the emulated node; None: there is no node, only files. ``calls`` is
    what was called, in order: a name, then a path or what the descriptor was opened as.
    """

    def __init__(self, files: Files, process: Any = None) -> None:  # Any: dlm.emulator's Process
        self.calls: list[tuple[object, ...]] = []
        self._files = files
        self._os = files.os
        self._process = process
        self._opened: dict[int, Emulated] = {}
        self._paths: dict[int, str] = {}

    # ---- open files -----------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """open(2)."""
        self._note("open", path, flags)
        with self._as_caller(path):
            number: int = self._os.open(path, flags, mode)
            kind: int = self._os.stat(path).st_mode
        try:
            if file := self._open_on_node(path, flags, kind):
                self._opened[number] = file
        except OSError:
            self._os.close(number)
            raise
        self._paths[number] = path
        return number

    def _open_on_node(self, path: str, flags: int, kind: int) -> Emulated | None:
        if self._process is None:
            return None
        if stat.S_ISCHR(kind):
            ours = OpenFlags(flags & (os.O_ACCMODE | os.O_NONBLOCK))
            device: Device = self._process.open_device(self._files.device_name(path), flags=ours)
            return device
        if not is_below(path, SYSFS) or stat.S_ISDIR(kind):
            return None
        # Linux 6.1 fs/kernfs/file.c, kernfs_fop_open(); fs/configfs/file.c: not even root may.
        access = flags & os.O_ACCMODE
        if (access != os.O_WRONLY and not kind & 0o444) or (access and not kind & 0o222):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return Attribute(self._process, _relative(path))

    def close(self, descriptor: int) -> None:
        """close(2)."""
        self._note("close", self._paths[descriptor])
        file = self._forget(descriptor)
        if file is not None:
            file.close()

    def _forget(self, descriptor: int) -> Emulated | None:
        if descriptor in self._paths and self._paths.pop(descriptor) != "socket":
            self._os.close(descriptor)
        return self._opened.pop(descriptor, None)

    def read(self, descriptor: int, size: int) -> bytes:
        """read(2)."""
        self._note("read", self._paths[descriptor])
        file = self._opened.get(descriptor)
        if file is not None:
            return file.read(size)
        data: bytes = self._os.read(descriptor, size)
        return data

    read_with_room = read

    def write(self, descriptor: int, data: bytes) -> int:
        """write(2): what an emulated file returns is what the caller gets."""
        self._note("write", self._paths[descriptor], data)
        file = self._opened.get(descriptor)
        if file is not None:
            return file.write(data)
        written: int = self._os.write(descriptor, data)
        return written

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> tuple[int, bytes]:
        """ioctl(2), on the node's file."""
        self._note("ioctl", self._paths[descriptor], request)
        return self._on_node(descriptor).ioctl(request, argument)

    def poll(self, descriptor: int, events: int, timeout: float | None) -> int:
        """poll(2) of one descriptor, on the node's file."""
        self._note("poll", self._paths[descriptor])
        return self._on_node(descriptor).poll(timeout) & (events | _ALWAYS)

    def pollable(self, descriptor: int) -> int:
        """Return the node's descriptor, which is a real one."""
        return self._on_node(descriptor).fileno()

    def _on_node(self, descriptor: int) -> Device:
        file = self._opened.get(descriptor)
        if file is None or isinstance(file, Attribute | Lock):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file  # type: ignore[return-value]

    # ---- paths ----------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> None:
        """mkdir(2): the node makes a group, and its attributes appear."""
        self._note("mkdir", path)
        if self._process is None or not is_below(path, SYSFS):
            with self._as_caller(path):
                self._os.mkdir(path, mode)
            return
        with _named(path):
            self._process.make_directory(_relative(path))
        self._files.look(path)

    def rmdir(self, path: str) -> None:
        """rmdir(2): the node removes a group, and its attributes go."""
        self._note("rmdir", path)
        if self._process is None or not is_below(path, SYSFS):
            with self._as_caller(path):
                self._os.rmdir(path)
            return
        with _named(path):
            self._process.remove_directory(_relative(path))
        self._files.look(path)

    def listdir(self, path: str) -> list[str]:
        """getdents(2) to the end, newest first."""
        self._note("listdir", path)
        with self._as_caller(path):
            return [*reversed(self._os.listdir(path))]

    def stat(self, path: str) -> tuple[int, int]:
        """stat(2): mode and inode number."""
        self._note("stat", path)
        with self._as_caller(path):
            status = self._os.stat(path)
            return status.st_mode, status.st_ino or 0

    def replace(self, source: str, target: str) -> None:
        """rename(2)."""
        self._note("replace", source, target)
        with self._as_caller(target):
            self._os.replace(source, target)

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        self._note("unlink", path)
        with self._as_caller(path):
            self._os.unlink(path)

    def flock(self, descriptor: int, operation: int) -> None:
        """flock(2), until the descriptor is closed."""
        path = self._paths[descriptor]
        self._note("flock", path)
        assert operation == fcntl.LOCK_EX
        self._opened[descriptor] = Lock(self._files, path)

    # ---- the machine ----------------------------------------------------------------------------

    def getpid(self) -> int:
        """getpid(2)."""
        return 1 if self._process is None else self._process.process_id()

    def monotonic(self) -> float:
        """Return the node's clock; it stands still where there is no node."""
        return 0.0 if self._process is None else self._process.now()

    def sleep(self, seconds: float) -> None:
        """Let the node's world go on."""
        self._note("sleep")
        if self._process is not None:
            self._process.pause(seconds)

    def uevents(self) -> UeventSource:
        """Subscribe: the room's own reader, on a socket of the node's."""
        self._note("uevents")
        number = next(_SOCKETS)
        self._paths[number] = "socket"
        self._opened[number] = EventSocket(self._process.uevents())
        return netlink.Uevents(self, number)

    def addresses(self) -> Sequence[str]:
        """Return the addresses of the node's interfaces."""
        self._note("addresses")
        found: Sequence[str] = () if self._process is None else self._process.local_addresses()
        return found

    # ---- processes ------------------------------------------------------------------------------

    def submit(
        self,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any] = lambda result: result,
        path: str | None = None,
    ) -> Pending:
        """Begin a call that can sleep: in place of a helper process, the node's own sleep."""
        ((name, arguments),) = calls
        try:
            pending = self._begin(name, arguments, detached)
        except OSError as error:
            pending = Returned(error=error)
        return FakePending(pending, convert, path)

    def _begin(self, name: str, arguments: tuple[Any, ...], detached: bool) -> Pending:
        if name in ON_FILES:
            return self._begin_on_file(name, *arguments, detached=detached)
        if name == "write_attribute" and is_below(arguments[0], SYSFS) and self._process:
            path, value = arguments
            self.close(self.open(path, os.O_WRONLY))
            self._note("write", path, value)
            begun: Pending = self._process.submit(
                WriteAttribute(_relative(path), value), detached=detached
            )
            return begun
        return Returned(helper.perform(self, name, arguments))

    def _begin_on_file(
        self, name: str, descriptor: int, *arguments: Any, detached: bool
    ) -> Pending:
        self._note(name, self._paths[descriptor], *arguments)
        device = self._on_node(descriptor)
        call: DeviceCall = _DEVICE_CALLS[name](*arguments)
        pending = device.submit(call, detached=detached)
        if isinstance(call, DeviceClose):
            self._forget(descriptor)
        return pending

    def spawn(self) -> FakeSyscalls:
        """Start another process on the machine."""
        return FakeSyscalls(self._files, self._process and self._process.spawn_process())

    def exit(self, files: Sequence[int], patience: float) -> None:  # noqa: ARG002 - none needed
        """End: the node's process closes its files, and sleeps on its own where it must."""
        self._note("exit", *(self._paths[each] for each in files))
        for each in tuple(self._paths):
            if isinstance(file := self._forget(each), Lock):
                file.close()
        if self._process is not None:
            self._process.close()

    # ---- private --------------------------------------------------------------------------------

    def _note(self, call: str, *what: object) -> None:
        self.calls.append((call, *what))
        self._files.calls.append((call, *what))

    @contextmanager
    def _as_caller(self, path: str) -> Iterator[None]:
        """Be this process's user, with the way to a path as it is now, and as far as it leads."""
        with _named(path):
            self._files.look(path)
            with as_user(ROOT if self._process is None or self._process.privileged else NOBODY):
                self._os.search(os.path.dirname(path))
                yield


_DEVICE_CALLS = {"write": DeviceWrite, "read": DeviceRead, "close": DeviceClose}


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Let a refusal of the node name the path that the kernel room knows."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def _relative(path: str) -> str:
    """Return a path as the seam has it: relative to /sys/kernel."""
    return path.removeprefix(SYSFS).lstrip("/")
