"""The other process: system calls that this process must not make itself.

Decides: how a request travels to another process and its answer back, and when that process ends.
May not know: any path's or byte's meaning. As a script it may not import anything outside the
interpreter's own binary modules either: its start is paid for by every call that can sleep.

Run as ``helper.py COUNT``: descriptor 3 is the channel, 4 … 3+COUNT are files handed over. It makes
one request after the other until the channel ends. A request is a list of calls; the answer is the
result of the first, and the others are made whatever it gives. A request whose sender goes away
ends the process, unless it is detached.

The kernel's sleeps in the DLM are uninterruptible: a thread in one would keep its whole process
from ever exiting (Linux 6.1 fs/dlm/lock.c, dlm_lock_recovery(): down_read of ls_in_recovery).
"""

# ruff: noqa: PLC0415 (modules that few helpers need are imported where they are used)
from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself would import enum
import fcntl
import marshal
import os
import sys

TYPE_CHECKING = False  # typing itself would cost as much as everything else here
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Files(Protocol):
        """What reading and writing an attribute take."""

        def open(self, path: str, flags: int, mode: int = 0) -> int: ...  # noqa: D102
        def close(self, descriptor: int) -> None: ...  # noqa: D102
        def read(self, descriptor: int, size: int) -> bytes: ...  # noqa: D102
        def write(self, descriptor: int, data: bytes) -> int: ...  # noqa: D102


CHANNEL = 3
BEGUN = "begun"
FIRST_FILE = 4
_SPARE_DESCRIPTORS = 64  # copies above these cannot be hit while the new process's are laid out
_READ_SIZE = 1 << 16
LEAST_BUFFER = 104

_children: list[int] = []


# ---- calls --------------------------------------------------------------------------------------


class System:
    """The system calls of the process that it is used in, one method each."""

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """open(2), always close-on-exec."""
        return os.open(path, flags, mode)

    def close(self, descriptor: int) -> None:
        """close(2)."""
        os.close(descriptor)

    def read_with_room(self, descriptor: int, size: int) -> bytes:
        """read(2); a kernel that writes more than it was asked for hits nothing of ours."""
        # Quirk: with 52 to 71 bytes of room the lock device writes 72 all the same (Linux 6.1
        # fs/dlm/user.c, copy_result_to_user()). Not for no bytes: readv(2) returns before it asks.
        if size <= 0:
            return os.read(descriptor, size)
        buffer = bytearray(max(size, LEAST_BUFFER))
        got = os.readv(descriptor, [memoryview(buffer)[:size]])
        return bytes(buffer[:got])

    if TYPE_CHECKING:

        def read(self, descriptor: int, size: int) -> bytes:
            """read(2)."""

        def write(self, descriptor: int, data: bytes) -> int:
            """write(2), exactly one."""

    else:  # the two calls on every lock's path are the system's own, with nothing in between
        read = staticmethod(os.read)
        write = staticmethod(os.write)

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> tuple[int, bytes]:
        """ioctl(2) on a copy of the argument; return its result and that copy."""
        buffer = bytearray(argument)
        return fcntl.ioctl(descriptor, request, buffer, True), bytes(buffer)

    def poll(self, descriptor: int, events: int, timeout: float | None) -> int:
        """poll(2) of one descriptor; the timeout is in seconds, None without end."""
        import select

        poll = select.poll()
        poll.register(descriptor, events)
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        return ready[0][1] if ready else 0

    def mkdir(self, path: str, mode: int) -> None:
        """mkdir(2)."""
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """rmdir(2)."""
        os.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        """getdents(2) to the end, in the kernel's order."""
        return os.listdir(path)

    def stat(self, path: str) -> tuple[int, int]:
        """stat(2): mode and inode number."""
        status = os.stat(path)
        return status.st_mode, status.st_ino

    def replace(self, source: str, target: str) -> None:
        """rename(2)."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        os.unlink(path)

    def flock(self, descriptor: int, operation: int) -> None:
        """flock(2)."""
        fcntl.flock(descriptor, operation)

    def fchmod(self, descriptor: int, mode: int) -> None:
        """fchmod(2)."""
        os.fchmod(descriptor, mode)

    def getpid(self) -> int:
        """getpid(2)."""
        return os.getpid()

    def start(self, files: tuple[int, ...]) -> int:
        """Start a helper that shares these open files; return our end of its channel."""
        return start(files)[0]


def read_attribute(system: Files, path: str) -> bytes:
    """Open, read to the end, close; every error names the path, as open(2)'s does."""
    descriptor = system.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := system.read(descriptor, _READ_SIZE):
            parts.append(part)
        return b"".join(parts)
    except OSError as error:
        error.filename = path
        raise
    finally:
        system.close(descriptor)


def write_attribute(system: Files, path: str, value: bytes) -> int:
    """Open write-only, make exactly one write(2), close; return what write returned."""
    descriptor = system.open(path, os.O_WRONLY)
    try:
        return system.write(descriptor, value)
    except OSError as error:
        error.filename = path
        raise
    finally:
        system.close(descriptor)


COMPOUND = {"read_attribute": read_attribute, "write_attribute": write_attribute}


def perform(system: object, name: str, arguments: tuple[object, ...]) -> object:
    """Make one call by its name."""
    if name in COMPOUND:
        return COMPOUND[name](system, *arguments)  # type: ignore[operator]
    return getattr(system, name)(*arguments)


# ---- the channel --------------------------------------------------------------------------------


def send(channel: int, message: Any) -> None:
    """Send one message: four bytes of length, then marshal (one interpreter at both ends)."""
    body = marshal.dumps(message)
    data = len(body).to_bytes(4, "little") + body
    while data:
        data = data[os.write(channel, data) :]


def receive(channel: int) -> object | None:
    """Return the next message, None when the channel has ended."""
    head = _receive_exactly(channel, 4)
    if head is None:
        return None
    body = _receive_exactly(channel, int.from_bytes(head, "little"))
    return None if body is None else marshal.loads(body)


def _receive_exactly(channel: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            part = os.read(channel, size - len(data))
        except ConnectionResetError:
            return None
        if not part:
            return None
        data += part
    return data


def send_file(channel: int, descriptor: int) -> None:
    """Send a copy of an open file along with one byte (SCM_RIGHTS)."""
    import socket

    with socket.socket(fileno=os.dup(channel)) as carrier:
        socket.send_fds(carrier, [b"f"], [descriptor])


def receive_file(channel: int) -> int:
    """Receive an open file; close-on-exec."""
    import socket

    with socket.socket(fileno=os.dup(channel)) as carrier:
        _, files, _, _ = socket.recv_fds(carrier, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not files:
        raise ConnectionResetError
    return files[0]


# ---- starting a process -------------------------------------------------------------------------


def start(files: tuple[int, ...]) -> tuple[int, int]:
    """Start a helper that shares these open files; return our end of its channel, and its pid.

    It is in a session of its own, so that a terminal's Ctrl-C does not reach it, and holds no other
    file of this process. Spawned, not forked: this process may have threads.
    """
    import signal
    import socket

    reap()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        shared = [
            fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _SPARE_DESCRIPTORS)
            for each in (theirs.fileno(), *files)
        ]
        try:
            null = [(os.POSIX_SPAWN_OPEN, each, os.devnull, os.O_RDWR, 0) for each in range(3)]
            laid_out = [
                (os.POSIX_SPAWN_DUP2, each, CHANNEL + place) for place, each in enumerate(shared)
            ]
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", __file__, str(len(files))],
                os.environ,
                file_actions=[*null, *laid_out],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGIO, signal.SIGTERM],
            )
        finally:
            for each in shared:
                os.close(each)
        _children.append(pid)
        return ours.detach(), pid


def reap() -> None:
    """Collect the exit codes of the helpers that have ended; never wait for one."""
    for pid in tuple(_children):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # somebody else in this process has collected it
            ended = pid
        if ended:
            _children.remove(pid)


# ---- the script ---------------------------------------------------------------------------------


def serve(system: System) -> None:
    """Answer requests until the channel ends.

    A request is (calls, detached, last), an answer (True, result) or (False, errno, path). The last
    request is acknowledged before its first call is made: whoever sent it knows then that the call
    has begun, and does not get ahead of it. The one call that is not in ``System`` is "descriptor":
    it answers with the open file itself.
    """
    last = False
    while not last and isinstance(request := receive(CHANNEL), tuple):
        calls, detached, last = request
        if last:
            _acknowledge()
        if not detached:
            _end_with_sender(True)
        answer = _answer(system, *calls[0])
        for name, arguments in calls[1:]:
            _answer(system, name, arguments)
        if not detached:
            _end_with_sender(False)
        try:
            send(CHANNEL, answer)
            if answer[0] and calls[0][0] in ("start", "descriptor"):
                _hand_over(calls[0][0], answer[1])
        except (BrokenPipeError, ConnectionResetError):
            return


def _acknowledge() -> None:
    try:  # noqa: SIM105 (contextlib is slow to import)
        send(CHANNEL, BEGUN)
    except (BrokenPipeError, ConnectionResetError):
        pass  # a detached call is made all the same, another one's helper ends in a moment


def _answer(system: System, name: str, arguments: tuple[object, ...]) -> tuple[object, ...]:
    try:
        if name == "descriptor":
            return True, arguments[0]
        return True, perform(system, name, arguments)
    except OSError as error:
        return False, error.errno, error.filename


def _hand_over(name: str, descriptor: object) -> None:
    """Send the file that a call has answered with; our copy of a new channel is not needed."""
    assert isinstance(descriptor, int)
    send_file(CHANNEL, descriptor)
    if name == "start":
        os.close(descriptor)


def _end_with_sender(on: bool) -> None:
    """Let the end of the channel end this process too, in the middle of a call if need be.

    SIGIO comes when the other end closes, however it ends; where the kernel cannot be interrupted,
    that waits for the end of the call. It may also come late for the request itself: a kernel that
    preempts its system calls lets us read what a write(2) brings before that has told of it
    (Linux 7.2 net/unix/af_unix.c, unix_stream_sendmsg(): sk_data_ready). So we look what it is for.
    """
    flags = fcntl.fcntl(CHANNEL, fcntl.F_GETFL) & ~(os.O_ASYNC | os.O_NONBLOCK)
    if not on:
        _signal.signal(_signal.SIGIO, _signal.SIG_IGN)
        fcntl.fcntl(CHANNEL, fcntl.F_SETFL, flags)
        return
    _signal.signal(_signal.SIGIO, _end_if_alone)
    fcntl.fcntl(CHANNEL, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(CHANNEL, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    _end_if_alone()


def _end_if_alone(*_: object) -> None:
    """End this process if its sender has gone; the channel must be nonblocking."""
    try:
        os.read(CHANNEL, 1)  # nothing is sent before the answer: this can only be the end
    except BlockingIOError:
        return
    except ConnectionResetError:
        pass
    os._exit(0)


def main() -> None:
    """Be a helper until the channel ends."""
    os.closerange(FIRST_FILE + int(sys.argv[1]), os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    serve(System())
    os._exit(0)  # nothing is left to flush


if __name__ == "__main__":
    main()
