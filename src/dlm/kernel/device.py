"""An open misc device.

Decides: which process makes a call on it, and which one closes it last.
May not know: what is written to or read from it.

The kernel releases a device at the LAST close of its open file, and that one sleeps while its
lockspace is stopped (Linux 6.1 fs/dlm/user.c, device_close(): it purges the file's locks). A helper
of ``submit`` has a copy of the open file while its call lasts, and closes it before it answers. So
the last close is
- ``close()``'s own, made here, when no submitted call is under way: it may sleep;
- the helper's, when one is: ``close()`` returns at once and the file goes when that call ends;
- for ``submit(DeviceClose())`` always its helper's: ours is closed before its begins.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dlm.kernel.helper import LEAST_BUFFER
from dlm.ports import DeviceCall, DeviceClose, DeviceRead, DeviceWrite, Pending, PollEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlm.kernel.pending import SystemCall
    from dlm.kernel.syscalls import Syscalls

# All that a lockspace's device can say; a file without a poll method would say WRNORM too.
_EVERYTHING = PollEvents.IN | PollEvents.OUT | PollEvents.RDNORM
_CLOSED = -1


class KernelDevice:
    """The seam's ``Device`` on an open file."""

    def __init__(
        self,
        syscalls: Syscalls,
        path: str,
        descriptor: int,
        forget: Callable[[KernelDevice], None],
    ) -> None:
        """Take over the open file; ``forget`` is told when it is closed."""
        self._syscalls = syscalls
        # On the path of every lock: found once, for a static method is slow to find.
        self._write, self._read = syscalls.write, syscalls.read
        self._path = path
        self._descriptor = descriptor
        self._forget = forget

    def write(self, request: bytes) -> int:
        """Write one request; the return value is data: a lock id, a minor number. May sleep.

        The kernel notes the pid of the process that writes: here this one, with ``submit`` the
        helper's. A PURGE of one's own locks goes by that pid, so it must be written here.
        """
        if (descriptor := self._descriptor) == _CLOSED:
            self._open()
        try:
            return self._write(descriptor, request)
        except OSError as error:
            error.filename = self._path
            raise

    def read(self, size: int) -> bytes:
        """Read one result of at most ``size`` bytes; EAGAIN when nothing is there and NONBLOCK."""
        if (descriptor := self._descriptor) == _CLOSED:
            self._open()
        try:
            if size < LEAST_BUFFER:
                return self._syscalls.read_with_room(descriptor, size)
            return self._read(descriptor, size)
        except OSError as error:
            error.filename = self._path
            raise

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Make one ioctl(2); return its result and the argument as the kernel left it."""
        try:
            return self._syscalls.ioctl(self._open(), request, argument)
        except OSError as error:
            error.filename = self._path
            raise

    def poll(self, timeout: float | None) -> int:
        """Wait up to ``timeout`` seconds (None: without end); return the event mask, 0 if none."""
        return self._syscalls.poll(self._open(), _EVERYTHING, timeout)

    def fileno(self) -> int:
        """Return a descriptor that polls readable when results are there."""
        return self._syscalls.pollable(self._open())

    def submit(self, call: DeviceCall, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep."""
        descriptor = self._open()
        pending = self._syscalls.submit(
            (_translate(call, descriptor),), detached=detached, path=self._path
        )
        if isinstance(call, DeviceClose):
            self.abandon()
        return pending

    def close(self) -> None:
        """Close the file (sleeps while its lockspace is stopped); closing twice is fine."""
        if self._descriptor != _CLOSED:
            self._syscalls.close(self.abandon())

    def change_mode(self, mode: int) -> None:
        """fchmod(2): who may open the device."""
        self._syscalls.fchmod(self._open(), mode)

    def disown(self) -> None:
        """In the child of a fork(2): let go of the copy that it inherited."""
        if self._descriptor != _CLOSED:
            self._syscalls.disown(self.abandon())

    def abandon(self) -> int:
        """Be closed for the holder; return the descriptor, which is now the caller's to close."""
        descriptor, self._descriptor = self._open(), _CLOSED
        self._forget(self)
        return descriptor

    def _open(self) -> int:
        if self._descriptor == _CLOSED:
            raise OSError(errno.EBADF, "the device is closed", self._path)
        return self._descriptor


def _translate(call: DeviceCall, descriptor: int) -> SystemCall:
    """Return the system call that a call of the seam is."""
    match call:
        case DeviceWrite():
            return "write", (descriptor, call.request)
        case DeviceRead():
            return "read", (descriptor, call.size)
        case DeviceClose():
            return "close", (descriptor,)
