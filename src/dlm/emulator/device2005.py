"""The lock device of 2005, version 3.0.0: dlm-control and one device per lockspace.

Decides: what open, write, read, poll, ioctl and close of each answer, which request becomes which
input of ``dlm.core``.
May not know: byte offsets (dlm.abi.device2005), any rule of locking.
Mirrors: device.c of the DLM as posted to linux-kernel on 25 April 2005 (the document's D1).

Byte ranges of locks are refused with EINVAL: the lock manager has none. An open of a lockspace's
device does not wait for a remove that is under way, as the kernel's did.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlm.abi.device import Command, Layout, LockRequest, LockResult, LockspaceRequest
from dlm.abi.device2005 import (
    COMMANDS,
    RESULT_SIZE,
    VERSION,
    DecodedRequest,
    decode_envelope,
    decode_request,
    encode_result,
    is_version_taken,
)
from dlm.core.events import CallId, Convert, Request, Unlock, UserArgs
from dlm.emulator.misc import RESULT_READY, MiscFile, refuse
from dlm.emulator.pending import Body, Pending
from dlm.emulator.space import Question
from dlm.terms import VALUE_BLOCK_SIZE, LockFlag

if TYPE_CHECKING:
    from dlm.emulator.event import EventSpace
    from dlm.emulator.members import MembersSpace
    from dlm.emulator.module2005 import Module2005
    from dlm.emulator.process import Process
    from dlm.ports import OpenFlags

FIONREAD = 0x541B
"""The ioctl that tells how many events are queued (events, not bytes)."""

_CONVERT = int(LockFlag.CONVERT)
_ORPHAN = int(LockFlag.ORPHAN)
_HEADER = RESULT_SIZE[Layout.NATIVE]
_COUNT = struct.Struct("=i")


def _decode(file: MiscFile, data: bytes, process: Process, *, control: bool) -> DecodedRequest:
    # The kernel writes a line for two of the refusals.
    command, version = decode_envelope(data)
    log = file._boot.log
    if not is_version_taken(version):
        user, kernel = ("{}.{}.{}".format(*numbers) for numbers in (version, VERSION))
        log(f"dlm: process python ({process.pid}) version mismatch user ({user}) kernel ({kernel})")
    elif command not in COMMANDS:
        log(f"Unknown command passed to DLM device : {command}")
    return decode_request(data, control=control)


# ---- dlm-control --------------------------------------------------------------------------------


class ControlFile3(MiscFile):
    """An open file on dlm-control: creates and removes lockspaces."""

    def _write(self, request: bytes) -> Pending:
        decoded = _decode(self, request, self._process, control=True)
        body = decoded.body
        assert isinstance(body, LockspaceRequest)
        capable = self._process.capable
        if decoded.command == Command.CREATE_LOCKSPACE:
            call = self._module.create(body.name, body.flags, capable=capable)
            text = f"create {body.name.decode('utf-8', 'surrogateescape')}"
        else:
            call = _then(self._module.remove(body.minor, body.flags, capable=capable), len(request))
            text = f"remove of minor {body.minor}"
        return self._boot.begin(call, text)

    def _read(self, size: int) -> bytes:
        del size
        raise refuse(errno.EINVAL, self.name)


def _then(body: Body, value: object) -> Body:
    yield from body
    return value


# ---- dlm_<lockspace> ----------------------------------------------------------------------------


class LockFile3(MiscFile):
    """An open file on a lockspace: owns locks and the queue of their events."""

    def __init__(
        self, space: EventSpace | MembersSpace, process: Process, name: str, flags: OpenFlags
    ) -> None:
        super().__init__(space.module, process, name, flags)
        self._space = space
        self._module2005: Module2005 = space._module
        self._file = space.open_file(self._result_came)
        self._events: deque[LockResult] = deque()
        """Events that have been delivered to this file and not been read."""

    def poll(self, timeout: float | None) -> int:
        """Return IN and RDNORM when an event is there; let the world go on until one comes."""
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

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """FIONREAD: the number of events; all else is ENOTTY."""
        self._check(True)
        if request & 0xFFFFFFFF != FIONREAD:
            raise refuse(errno.ENOTTY, self.name)
        if len(argument) < _COUNT.size:
            raise refuse(errno.EFAULT, self.name)
        self._pull()
        return 0, _COUNT.pack(len(self._events)) + argument[_COUNT.size :]

    # ---- requests -------------------------------------------------------------------------------

    def _write(self, request: bytes) -> int | Pending:
        decode_envelope(request)
        if self._space.gone:
            raise refuse(errno.ENOENT, self.name)
        decoded = _decode(self, request, self._process, control=False)
        call = self._boot.next_call()
        question = _QUESTION[decoded.command](self, call, decoded)
        value = len(request) if decoded.command == Command.UNLOCK else None
        reply = self._space.step(question)
        if reply is None:
            sleeping = self._space.expect(call, type(question).__name__.lower(), numeric=True)
            if value is None:
                return sleeping
            return self._boot.begin(_unlocked(sleeping, value), "unlock")
        if reply.error:
            raise refuse(reply.error, self.name)
        return reply.value if value is None else value

    def _lock(self, call: CallId, decoded: DecodedRequest) -> Question:
        body = decoded.body
        assert isinstance(body, LockRequest)
        if not (body.castaddr and body.lksb):
            raise refuse(errno.EINVAL, self.name)
        # PERSISTENT with a parent is refused here, any other parent by the lock manager; ranges
        # are refused because ours has none.
        if body.parent or decoded.extent[1]:
            raise refuse(errno.EINVAL, self.name)
        pid, args = self._process.pid, _user_args(body)
        if body.flags & _CONVERT:
            return Convert(
                call, self._file, pid, body.lock_id, body.mode, body.flags, args, 0, body.value
            )
        # Quirk: ORPHAN finds no orphan, it makes one more lock.
        flags = body.flags & ~_ORPHAN
        return Request(call, self._file, pid, body.name, body.mode, flags, args, 0, body.value)

    def _unlock(self, call: CallId, decoded: DecodedRequest) -> Question:
        body = decoded.body
        assert isinstance(body, LockRequest)
        return Unlock(call, self._file, body.lock_id, body.flags, _user_args(body), body.value)

    # ---- events ---------------------------------------------------------------------------------

    def _read(self, size: int) -> bytes | Pending:
        if size < _HEADER:
            raise refuse(errno.EINVAL, self.name)
        data = self._take(size)
        if data is not None:
            return data
        if self._space.gone:
            return b""
        if self._nonblock:
            raise refuse(errno.EAGAIN, self.name)
        return self._boot.begin(self._sleep(size), f"read of {self.name}", killable=True)

    def _sleep(self, size: int) -> Body:
        while True:
            yield lambda: self._ready() or self._space.gone
            data = self._take(size)
            if data is not None:
                return data
            if self._space.gone:
                return b""

    def _take(self, size: int) -> bytes | None:
        self._pull()
        if not self._events:
            return None
        # Without room for the value block the event is told of and stays.
        event = self._events[0]
        room = event.value is None or size >= _HEADER + VALUE_BLOCK_SIZE
        if room:
            self._events.popleft()
        if self._signal is not None and not self._events:
            self._signal.clear()
        return encode_result(event, room=room)

    def _pull(self) -> None:
        space = self._space
        while not space.gone and (result := space.take(self._file)) is not None:
            args, blocking = result.args, result.bast_mode != 0
            self._events.append(
                LockResult(
                    args.bastaddr if blocking else args.castaddr,
                    args.bastparam if blocking else args.castparam,
                    args.lksb,
                    result.status,
                    result.lock_id,
                    result.flags,
                    0,
                    result.value,
                )
            )

    def _ready(self) -> bool:
        if self._events:
            return True
        return not self._space.gone and self._space.core.has_result(self._file)

    def _result_came(self) -> None:
        if self._signal is not None:
            self._signal.set()
        self._boot.sleepers.wake()

    # ---- close ----------------------------------------------------------------------------------

    def _release(self) -> Pending | None:
        mutex = self._module2005.device_mutex
        if mutex.free:
            return self._close_file()
        return self._boot.begin(mutex.hold(self._close_later), f"close of {self.name}")

    def _close_file(self) -> Pending | None:
        # What belongs to a file of a removed lockspace the kernel leaked; nobody sees that.
        return None if self._space.gone else self._space.close_file(self._file)

    def _close_later(self) -> Body:
        closing = self._close_file()
        if closing is not None:
            yield closing.done


def _unlocked(sleeping: Pending, value: int) -> Body:
    yield sleeping.done
    sleeping.result()
    return value


def _user_args(body: LockRequest) -> UserArgs:
    return UserArgs(body.castparam, body.castaddr, body.bastparam, body.bastaddr, body.lksb)


_QUESTION: dict[int, Callable[[LockFile3, CallId, DecodedRequest], Question]] = {
    Command.LOCK: LockFile3._lock,
    Command.UNLOCK: LockFile3._unlock,
}


def open_lockspace(
    space: EventSpace | MembersSpace, process: Process, name: str, flags: OpenFlags
) -> MiscFile:
    """Open the device of a lockspace."""
    return LockFile3(space, process, name, flags)
