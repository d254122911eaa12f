"""The misc devices: dlm-control, dlm-monitor, dlm_plock, and one per lockspace.

Decides: what open, write, read, poll, ioctl and close of each answer, which request becomes which
input of ``dlm.core``.
May not know: byte offsets and the checks of a request's envelope (dlm.abi.device), any rule of
locking.
Mirrors: fs/dlm/user.c and plock.c (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlm.abi.device import (
    RESULT_SIZE,
    VERSION_SIZE,
    Command,
    Layout,
    LockRequest,
    LockspaceRequest,
    PurgeRequest,
    decode_body,
    decode_envelope,
    decode_native,
    decode_request,
    encode_version,
    pack_result,
)
from dlm.core.events import (
    Adopt,
    CallId,
    Convert,
    Deadlock,
    Purge,
    Request,
    Unlock,
    UserArgs,
)
from dlm.core.hazards import READ_TOO_SHORT
from dlm.emulator.pending import Body, Pending, Signal
from dlm.emulator.space import Question
from dlm.ports import DeviceCall, DeviceClose, DeviceRead, DeviceWrite, OpenFlags, PollEvents
from dlm.record import new_tuple
from dlm.terms import VALUE_BLOCK_SIZE, LockFlag

if TYPE_CHECKING:
    from dlm.emulator.module import Module
    from dlm.emulator.process import Process
    from dlm.emulator.space import Space

_CONVERT = int(LockFlag.CONVERT)
_ORPHAN = int(LockFlag.ORPHAN)
_NATIVE = Layout.NATIVE
_HEADER = RESULT_SIZE[Layout.NATIVE]
_HEADER32 = RESULT_SIZE[Layout.COMPAT32]
assert LockRequest._fields[7:12] == UserArgs._fields

DEVICE_MODE = stat.S_IFCHR | 0o600
"""Type and mode of every device's node: devtmpfs makes it root's alone (no mode is asked for)."""

ALWAYS_READY = int(PollEvents.IN | PollEvents.OUT | PollEvents.RDNORM)
RESULT_READY = int(PollEvents.IN | PollEvents.RDNORM)


def refuse(number: int, what: str) -> OSError:
    """Return a refusal of a call on a device."""
    return OSError(number, os.strerror(number), what)


class MiscFile:
    """An open file on a device, as far as all devices are alike (``dlm.ports.Device``).

    A call that sleeps holds the file: it is released when the holder has closed it and no call is
    inside any more.
    """

    def __init__(self, module: Module, process: Process, name: str, flags: OpenFlags) -> None:
        self.name = name
        self._module = module
        self._boot = module.boot
        self._process = process
        self._writes = bool(flags & (OpenFlags.WRONLY | OpenFlags.RDWR))
        self._reads = not flags & OpenFlags.WRONLY
        self._nonblock = bool(flags & OpenFlags.NONBLOCK)
        self._open = True
        self._users = 1
        self._signal: Signal | None = None
        module.open_files += 1

    # ---- the seam -------------------------------------------------------------------------------

    def write(self, request: bytes) -> int:
        """Write one request; the return value is data."""
        if not (self._boot.alive and self._open and self._writes):
            self._check(self._writes)
        answer = self._write(request)
        return answer if isinstance(answer, int) else int(self._hold(answer).result())

    def read(self, size: int) -> bytes:
        """Read one result."""
        if not (self._boot.alive and self._open and self._reads):
            self._check(self._reads)
        answer = self._read(size)
        return answer if isinstance(answer, bytes) else bytes(self._hold(answer).result())

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """There are none: ENOTTY."""
        del request, argument
        self._check(True)
        raise refuse(errno.ENOTTY, self.name)

    def poll(self, timeout: float | None) -> int:
        """Return the event mask: without a poll method of its own a file is always ready."""
        del timeout
        self._check(True)
        return ALWAYS_READY

    def fileno(self) -> int:
        """Return a descriptor that is readable when a read has something to give."""
        if self._signal is None:
            self._signal = Signal(self._module.scheduler)
            if self._ready():
                self._signal.set()
        return self._signal.fileno()

    def submit(self, call: DeviceCall, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep."""
        answer: object = None
        text = f"{type(call).__name__} of {self.name}"
        try:
            match call:
                case DeviceWrite(request):
                    self._check(self._writes)
                    answer = self._write(request)
                case DeviceRead(size):
                    self._check(self._reads)
                    answer = self._read(size)
                case DeviceClose():
                    answer = self.begin_close()
        except OSError as error:
            pending = Pending(self._module.scheduler, text)
            pending.finish(error=error)
            return pending
        if not isinstance(answer, Pending):
            pending = Pending(self._module.scheduler, text)
            pending.finish(answer)
            return pending
        if not isinstance(call, DeviceClose):
            self._hold(answer)
        if not detached:
            self._process.pendings.append(answer)
        return answer

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        pending = self.begin_close()
        if pending is not None:
            pending.result()

    def change_mode(self, mode: int) -> None:
        """Let others open the device, or no more."""
        self._check(True)
        self._boot.device_modes[self.name] = mode

    def disown(self) -> None:
        """In the child of a fork(2), which has a copy of the whole world: nothing to let go of."""
        self._open = False

    def begin_close(self) -> Pending | None:
        """Close the file for its holder; None when nothing sleeps."""
        if not self._open:
            return None
        pending = self._drop() if self._boot.alive else None  # a hazard leaves the file open
        self._open = False
        self._process.files.pop(self, None)
        if self._signal is not None:
            self._signal.close()
            self._signal = None
        return pending

    # ---- what a device is -----------------------------------------------------------------------

    def _write(self, request: bytes) -> int | Pending:
        raise NotImplementedError

    def _read(self, size: int) -> bytes | Pending:
        raise NotImplementedError

    def _ready(self) -> bool:
        return True

    def _release(self) -> Pending | None:
        return None

    # ---- private --------------------------------------------------------------------------------

    def _check(self, allowed: bool) -> None:
        if not self._boot.alive:
            raise OSError(errno.EIO, "node crashed", self.name)
        if not (allowed and self._open):
            raise refuse(errno.EBADF, self.name)

    def _hold(self, answer: Pending) -> Pending:
        if not answer.finished:
            self._users += 1
            answer.then = self._drop
        return answer

    def _drop(self) -> Pending | None:
        if self._users > 1:
            self._users -= 1
            return None
        pending = self._release()
        self._users = 0
        self._module.open_files -= 1
        return pending


# ---- dlm-control --------------------------------------------------------------------------------


class ControlFile(MiscFile):
    """An open file on dlm-control: creates and removes lockspaces."""

    def _write(self, request: bytes) -> Pending:
        decoded = decode_request(request, control=True)
        body = decoded.body
        assert isinstance(body, LockspaceRequest)
        capable = self._process.capable
        if decoded.command == Command.CREATE_LOCKSPACE:
            call = self._module.create(body.name, body.flags, capable=capable)
            text = f"create {body.name.decode('utf-8', 'surrogateescape')}"
        else:
            call = self._module.remove(body.minor, body.flags, capable=capable)
            text = f"remove of minor {body.minor}"
        return self._boot.begin(call, text)

    def _read(self, size: int) -> bytes:
        if size != VERSION_SIZE:
            raise refuse(errno.EINVAL, self.name)
        return encode_version()


# ---- dlm-monitor --------------------------------------------------------------------------------


class MonitorFile(MiscFile):
    """An open file on dlm-monitor: while one is open, a daemon is there."""

    def __init__(self, module: Module, process: Process, name: str, flags: OpenFlags) -> None:
        super().__init__(module, process, name, flags)
        module.open_monitor()

    def _write(self, request: bytes) -> int:
        del request
        raise refuse(errno.EINVAL, self.name)

    def _read(self, size: int) -> bytes:
        del size
        raise refuse(errno.EINVAL, self.name)

    def _release(self) -> None:
        self._module.close_monitor()


# ---- dlm_plock ----------------------------------------------------------------------------------

_PLOCK_SIZE = 64
_PLOCK_VERSION = struct.Struct("=3I")


class PlockFile(MiscFile):
    """An open file on dlm_plock; no file system of the emulator ever asks for a POSIX lock."""

    def poll(self, timeout: float | None) -> int:
        """Wait for a request of a file system: none comes."""
        self._check(True)
        if timeout != 0:
            scheduler = self._module.scheduler
            deadline = None if timeout is None else scheduler.now + timeout
            scheduler.run_until(lambda: False, deadline, waiting=f"poll of {self.name}")
        return 0

    def _write(self, request: bytes) -> int:
        # Linux 6.1 fs/dlm/plock.c, dev_write(), check_version(): an answer that nobody waits for is
        # taken and ignored.
        if len(request) != _PLOCK_SIZE:
            raise refuse(errno.EINVAL, self.name)
        major, minor, patch = _PLOCK_VERSION.unpack_from(request)
        if major != 1 or minor > 2:
            self._boot.log(
                "dlm: plock device version mismatch: "
                f"kernel (1.2.0), user ({major}.{minor}.{patch})"
            )
            raise refuse(errno.EINVAL, self.name)
        return len(request)

    def _read(self, size: int) -> bytes:
        # Quirk: it never blocks, O_NONBLOCK or not.
        raise refuse(errno.EINVAL if size < _PLOCK_SIZE else errno.EAGAIN, self.name)

    def _ready(self) -> bool:
        return False


# ---- dlm_<lockspace> ----------------------------------------------------------------------------


class LockFile(MiscFile):
    """An open file on a lockspace: owns locks and the queue of their results."""

    def __init__(self, space: Space, process: Process, name: str, flags: OpenFlags) -> None:
        super().__init__(space.module, process, name, flags)
        self._space = space
        self._layout = _NATIVE
        self._file = space.open_file(self._result_came)

    def poll(self, timeout: float | None) -> int:
        """Return IN and RDNORM when a result is there; let the world go on until one comes."""
        self._check(True)
        if timeout != 0 and not self._ready():
            scheduler = self._module.scheduler
            scheduler.run_until(
                lambda: not self._boot.alive or self._ready(),
                None if timeout is None else scheduler.now + timeout,
                waiting=f"poll of {self.name}",
            )
            self._check(True)
        return RESULT_READY if self._ready() else 0

    def _write(self, request: bytes) -> int | Pending:
        call = self._boot.next_call()
        lock = decode_native(request)
        if lock is None:
            question = self._read_request(call, request)
        else:
            question = _QUESTION[lock.command](self, call, lock)
        reply = self._space.step(question)
        if reply is None:
            return self._space.expect(call, type(question).__name__.lower(), numeric=True)
        if reply.error:
            raise refuse(reply.error, self.name)
        return reply.value

    def _read(self, size: int) -> bytes | Pending:
        # Linux 6.1 fs/dlm/user.c, device_read()
        if size == VERSION_SIZE:
            return encode_version()
        if size < _HEADER32:
            raise refuse(errno.EINVAL, self.name)
        data = self._take(size)
        if data is not None:
            return data
        if self._nonblock:
            raise refuse(errno.EAGAIN, self.name)
        return self._boot.begin(self._sleep(size), f"read of {self.name}", killable=True)

    def _sleep(self, size: int) -> Body:
        while True:
            yield self._ready
            data = self._take(size)
            if data is not None:
                return data

    def _take(self, size: int) -> bytes | None:
        layout = self._layout
        header = _HEADER if layout is _NATIVE else _HEADER32
        # Quirk: with 52 to 71 bytes of room 72 are written all the same.
        if size < header and self._ready():
            self._boot.risk(READ_TOO_SHORT, f"of {size} bytes from {self.name}")
        result = self._space.take(self._file, size >= header + VALUE_BLOCK_SIZE)
        if self._signal is not None and not self._ready():
            self._signal.clear()
        if result is None:
            return None
        args, lock_id, status, flags, bast_mode, value = result
        castparam, castaddr, bastparam, bastaddr, lksb = args
        if bast_mode:
            castaddr, castparam = bastaddr, bastparam
        return pack_result(
            layout, castaddr, castparam, lksb, status, lock_id, flags, bast_mode, value
        )

    def _ready(self) -> bool:
        return self._space.core.has_result(self._file)

    def _result_came(self) -> None:
        if self._signal is not None:
            self._signal.set()
        self._boot.sleepers.wake()

    def _release(self) -> Pending | None:
        return self._space.close_file(self._file)

    # ---- requests -------------------------------------------------------------------------------

    def _read_request(self, call: CallId, request: bytes) -> Question:
        command, compat = decode_envelope(request)
        if compat:
            # Quirk: from the first 32-bit request on, even one that is then refused, all results
            # of the file are 32-bit ones (Linux 6.1 fs/dlm/user.c, device_write()).
            self._layout = Layout.COMPAT32
        body = decode_body(request, command, compat=compat, control=False)
        return _QUESTION[command](self, call, body)

    def _lock(self, call: CallId, body: LockRequest) -> Question:
        # Linux 6.1 fs/dlm/user.c, device_user_lock()
        _, mode, flags, lock_id, _, xid, _, _, castaddr, _, _, lksb, value, name = body
        if not (castaddr and lksb):
            raise refuse(errno.EINVAL, self.name)
        file, pid, args = self._file, self._process.pid, new_tuple(UserArgs, body[7:12])
        if flags & _CONVERT:
            return Convert(call, file, pid, lock_id, mode, flags, args, xid, value)
        if flags & _ORPHAN:
            return Adopt(call, file, pid, name, mode, flags, args, xid, value)
        return new_tuple(Request, (call, file, pid, name, mode, flags, args, xid, value))

    def _unlock(self, call: CallId, body: LockRequest) -> Question:
        args = new_tuple(UserArgs, body[7:12])
        return new_tuple(Unlock, (call, self._file, body.lock_id, body.flags, args, body.value))

    def _deadlock(self, call: CallId, body: LockRequest) -> Question:
        return Deadlock(call, body.lock_id, body.flags)

    def _purge(self, call: CallId, body: PurgeRequest) -> Question:
        if body.nodeid not in {0, self._space.nodeid} and not self._module.reaches(body.nodeid):
            raise refuse(errno.ENOBUFS, self.name)
        return Purge(call, self._file, self._process.pid, body.nodeid, body.pid)


_QUESTION: dict[int, Callable[..., Question]] = {
    Command.LOCK: LockFile._lock,
    Command.UNLOCK: LockFile._unlock,
    Command.DEADLOCK: LockFile._deadlock,
    Command.PURGE: LockFile._purge,
}


# ---- openers ------------------------------------------------------------------------------------

Opener = Callable[["Process", str, OpenFlags], MiscFile]
"""What open(2) of a device does."""


def open_lockspace(space: Space, process: Process, name: str, flags: OpenFlags) -> MiscFile:
    """Open the device of a lockspace."""
    return LockFile(space, process, name, flags)


DeviceOpener = Callable[["Module", "Process", str, OpenFlags], MiscFile]
"""What opens a device of a module."""

DEVICES: dict[str, DeviceOpener] = {
    "dlm-control": ControlFile,
    "dlm-monitor": MonitorFile,
    "dlm_plock": PlockFile,
}
"""The devices that come with the module, in the order in which they get their minors."""
