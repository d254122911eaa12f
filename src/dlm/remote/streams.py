"""Streams: Unix sockets and serial ports, and who is at the other end.

Decides: where a socket is made, with which modes, how a path longer than a socket's name is
reached, who counts as the owner, how a device is set up.
May not know: what travels.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LONGEST_NAME = 107
"""Bytes of the longest socket name: sun_path of unix(7) without its last zero byte."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a socket, as it was at connect(2)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


@contextmanager
def reachable_name(path: str) -> Iterator[str]:
    """Give a name for ``path`` that a socket address can hold."""
    if len(os.fsencode(path)) <= LONGEST_NAME:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen(path: str) -> socket.socket:
    """Return a socket that listens at ``path``, for its owner only (mode 0600).

    Its directory must be this user's own and of mode 0700, and is made when it is not there.
    Raises ``OSError``: EADDRINUSE when somebody answers there already, EPERM when the directory is
    open to others; a socket that nobody answers is replaced.
    """
    directory = os.path.dirname(path) or "."
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    status = os.stat(directory)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(
            errno.EPERM, "the directory must be yours and of mode 0700", directory
        )
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable_name(path) as name:
            listener.bind(name)
            os.chmod(name, 0o600)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_dead(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, reachable_name(path) as name:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "somebody serves there already", path)


def connect(path: str) -> socket.socket:
    """Return a socket connected to ``path``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable_name(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        error.filename = path
        raise
    return connection


def open_device(path: str) -> int:
    """Open a character device as a stream; a terminal (serial port) is made raw."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    if os.isatty(descriptor):
        import tty  # noqa: PLC0415 - loads termios, which only a terminal needs

        tty.setraw(descriptor)
    return descriptor


def is_device(path: str) -> bool:
    """Say whether a path is a character device, so a stream that is opened, not connected to."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


class Stream:
    """A stream that blocks, for one reader and any number of writers; ``end`` wakes the reader."""

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor: of a socket, a terminal, a port."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._ending, select.POLLIN)

    def receive(self) -> bytes:
        """Return what has come, b"" at the end."""
        while True:
            if all(descriptor == self._ending for descriptor, _ in self._poll.poll()):
                return b""
            try:
                return os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in {errno.ECONNRESET, errno.EIO}:  # EIO: a terminal hung up
                    return b""
                raise

    def send(self, data: bytes) -> None:
        """Send all of it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                room = select.poll()
                room.register(self._descriptor, select.POLLOUT)
                room.register(self._ending, select.POLLIN)
                if any(descriptor == self._ending for descriptor, _ in room.poll()):
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None

    def end(self) -> None:
        """Let the reader see the end, once it has read what has come."""
        os.eventfd_write(self._ending, 1)

    def close(self) -> None:
        """Give everything back, once nobody reads or writes any more."""
        os.close(self._descriptor)
        os.close(self._ending)
