"""Every system call of this room, behind one small object.

Decides: which system calls there are, and which process makes them.
May not know: any path's meaning, any DLM rule.

``Syscalls`` is what the rest of the room is written against: a test may put its own in its place.
``OwnSyscalls`` makes the calls here, ``OtherSyscalls`` has them made by another process.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from dlm.kernel import helper
from dlm.kernel.pending import (
    HelperPending,
    SystemCall,
    closed_files,
    open_files,
    plain,
    unpack_answer,
)
from dlm.ports import Pending, UeventSource


class Syscalls(Protocol):
    """The system calls of one process. Errors are the kernel's ``OSError``."""

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """open(2), always close-on-exec."""

    def close(self, descriptor: int) -> None:
        """close(2)."""

    def read(self, descriptor: int, size: int) -> bytes:
        """read(2)."""

    def read_with_room(self, descriptor: int, size: int) -> bytes:
        """read(2) into more room than ``size``, for a kernel that writes more than it was asked."""

    def write(self, descriptor: int, data: bytes) -> int:
        """write(2), exactly one."""

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> tuple[int, bytes]:
        """ioctl(2); return its result and the argument as the kernel left it."""

    def poll(self, descriptor: int, events: int, timeout: float | None) -> int:
        """poll(2) of one descriptor; the timeout is in seconds, None without end."""

    def mkdir(self, path: str, mode: int) -> None:
        """mkdir(2)."""

    def rmdir(self, path: str) -> None:
        """rmdir(2)."""

    def listdir(self, path: str) -> list[str]:
        """getdents(2) to the end, in the kernel's order."""

    def stat(self, path: str) -> tuple[int, int]:
        """stat(2): mode and inode number."""

    def replace(self, source: str, target: str) -> None:
        """rename(2)."""

    def unlink(self, path: str) -> None:
        """unlink(2)."""

    def flock(self, descriptor: int, operation: int) -> None:
        """flock(2)."""

    def fchmod(self, descriptor: int, mode: int) -> None:
        """fchmod(2)."""

    def getpid(self) -> int:
        """getpid(2)."""

    def monotonic(self) -> float:
        """clock_gettime(CLOCK_MONOTONIC) in seconds."""

    def sleep(self, seconds: float) -> None:
        """nanosleep(2)."""

    def uevents(self) -> UeventSource:
        """socket(2), bind(2): subscribe to the kernel's events."""

    def addresses(self) -> Sequence[str]:
        """Return the addresses of this machine's interfaces (RTM_GETADDR)."""

    def pollable(self, descriptor: int) -> int:
        """Return a descriptor of the calling program that polls like this one."""

    def disown(self, descriptor: int) -> None:
        """In the child of a fork(2): close what it inherited of this open file, and no more."""

    def submit(
        self,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any] = lambda result: result,
        path: str | None = None,
    ) -> Pending:
        """Have a process of its own make calls that can sleep.

        The result is the first call's, through ``convert``; the others are made whatever it gives.
        A file to be closed is closed here before the call begins, so that only the helper's close
        can be the last one, which is the one that sleeps. ``path`` names the file in errors.
        """

    def spawn(self) -> Syscalls:
        """Start another process and return its system calls."""

    def exit(self, files: Sequence[int], patience: float) -> None:
        """Close these open files as exit(2) does; wait for that ``patience`` seconds at most."""


class OwnSyscalls(helper.System):
    """The system calls of this process."""

    def monotonic(self) -> float:
        """clock_gettime(CLOCK_MONOTONIC) in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """nanosleep(2)."""
        time.sleep(max(0.0, seconds))

    def uevents(self) -> UeventSource:
        """socket(2), bind(2): subscribe to the kernel's events."""
        from dlm.kernel import netlink  # noqa: PLC0415 (pyroute2 is slow to import)

        return netlink.Uevents(self, netlink.open_uevents())

    def addresses(self) -> Sequence[str]:
        """Return the addresses of this machine's interfaces (RTM_GETADDR)."""
        from dlm.kernel import netlink  # noqa: PLC0415 (as above)

        return netlink.addresses()

    def pollable(self, descriptor: int) -> int:
        """Return the descriptor itself."""
        return descriptor

    def disown(self, descriptor: int) -> None:
        """Close the child's copy, which is not the last one."""
        os.close(descriptor)

    def submit(
        self,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any] = lambda result: result,
        path: str | None = None,
    ) -> Pending:
        """Start a helper, hand it the open files, send it the calls."""
        return _begin(self, calls, detached, convert, path)

    def spawn(self) -> Syscalls:
        """Start another process and return its system calls."""
        return OtherSyscalls(self)

    def exit(self, files: Sequence[int], patience: float) -> None:
        """Close the files in a detached helper: a close may sleep until its lockspace runs."""
        if files:
            closing = self.submit(tuple(("close", (each,)) for each in files), detached=True)
            closing.wait(patience)
            closing.close()
        helper.reap()


_Method = TypeVar("_Method", bound=Callable[..., Any])  # Any: whatever the call's types are


def _elsewhere(method: _Method) -> _Method:
    """Return the same call, made by the other process."""

    def call(self: OtherSyscalls, *arguments: object) -> Any:  # Any: as above
        return self.call(method.__name__, *arguments)

    return cast("_Method", call)


class OtherSyscalls(helper.System):
    """The system calls of another process of ours, made one at a time over a channel.

    It ends when the channel does: with ``exit``, or with this process, however that ends.
    """

    def __init__(self, parent: OwnSyscalls) -> None:
        """Start the process."""
        self._parent = parent
        self._channel, self._pid = helper.start(())
        self._copies: dict[int, int] = {}  # its descriptors -> ours of the same open files

    def call(self, name: str, *arguments: object) -> Any:  # Any: the result's type is the call's
        """Have one call made there, and wait for its return however long it sleeps."""
        if self._channel < 0:
            raise ProcessLookupError(errno.ESRCH, "the process has exited")
        try:
            helper.send(self._channel, (((name, tuple(map(plain, arguments))),), False, False))
            answer = helper.receive(self._channel)
        except BaseException:
            # An answer may still come, and would pass for the next call's: this process is lost.
            self._hang_up()
            raise
        return unpack_answer(answer)

    open = _elsewhere(helper.System.open)
    read = _elsewhere(helper.System.read)
    read_with_room = _elsewhere(helper.System.read_with_room)
    write = _elsewhere(helper.System.write)
    ioctl = _elsewhere(helper.System.ioctl)
    poll = _elsewhere(helper.System.poll)
    mkdir = _elsewhere(helper.System.mkdir)
    rmdir = _elsewhere(helper.System.rmdir)
    listdir = _elsewhere(helper.System.listdir)
    stat = _elsewhere(helper.System.stat)
    replace = _elsewhere(helper.System.replace)
    unlink = _elsewhere(helper.System.unlink)
    flock = _elsewhere(helper.System.flock)
    fchmod = _elsewhere(helper.System.fchmod)
    getpid = _elsewhere(helper.System.getpid)

    def close(self, descriptor: int) -> None:
        """close(2), of our copy first so that the other process's is the one that counts."""
        if descriptor in self._copies:
            os.close(self._copies.pop(descriptor))
        self.call("close", descriptor)

    def start(self, files: tuple[int, ...]) -> int:
        """Have that process start a helper, and take over its channel."""
        self.call("start", files)
        return helper.receive_file(self._channel)

    def monotonic(self) -> float:
        """clock_gettime(CLOCK_MONOTONIC) in seconds: one clock for the machine."""
        return self._parent.monotonic()

    def sleep(self, seconds: float) -> None:
        """nanosleep(2), of the program that waits."""
        self._parent.sleep(seconds)

    def uevents(self) -> UeventSource:
        """socket(2), bind(2): the machine's events, read by the program that wants them."""
        return self._parent.uevents()

    def addresses(self) -> Sequence[str]:
        """Return the addresses of this machine's interfaces (RTM_GETADDR)."""
        return self._parent.addresses()

    def pollable(self, descriptor: int) -> int:
        """Return our copy of its open file, fetched when first asked for (SCM_RIGHTS)."""
        if descriptor not in self._copies:
            self.call("descriptor", descriptor)
            self._copies[descriptor] = helper.receive_file(self._channel)
        return self._copies[descriptor]

    def disown(self, descriptor: int) -> None:  # noqa: ARG002 - the file is that process's
        """Hang up: that process ends with its channel, of which this child has a copy."""
        self._hang_up()

    def submit(
        self,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any] = lambda result: result,
        path: str | None = None,
    ) -> Pending:
        """Have that process start a helper, hand it the open files; send it the calls."""
        return _begin(self, calls, detached, convert, path)

    def spawn(self) -> Syscalls:
        """Start a third process and return its system calls."""
        return OtherSyscalls(self._parent)

    def exit(self, files: Sequence[int], patience: float) -> None:  # noqa: ARG002
        """End the process, which closes whatever it has open: ``files`` are only part of that."""
        if self._channel < 0:
            return
        try:
            gone = os.pidfd_open(self._pid)
        except ProcessLookupError:
            gone = -1
        self._hang_up()
        if gone >= 0:
            self._parent.poll(gone, 1, patience)  # POLLIN: it has ended
            os.close(gone)
        helper.reap()

    def _hang_up(self) -> None:
        for copy in self._copies.values():
            os.close(copy)
        self._copies.clear()
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1


def _begin(
    syscalls: OwnSyscalls | OtherSyscalls,
    calls: tuple[SystemCall, ...],
    detached: bool,
    convert: Callable[[Any], Any],
    path: str | None,
) -> Pending:
    """Start a helper with copies of the open files, close what it is to close, send the calls."""
    channel = syscalls.start(tuple(open_files(calls)))
    for each in closed_files(calls):
        syscalls.close(each)
    return HelperPending(channel, calls, detached=detached, convert=convert, path=path)
