"""A lock as this process knows it: what is granted, what is under way, the value block.

Decides: what each result does to a lock; which bytes and flags of a value block an operation sends.
May not know: who reads results and who waits for them (dlm.locks.engine).
Mirrors: the user's side of fs/dlm/user.c and ast.c (Linux 6.1).

A program holds very many locks: one object of slots each, the same for both faces of the room,
which only add their verbs. What begins with an underscore belongs to this room. Every change of it
is made under the engine's mutex, or by the one thread whose operation is under way.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING

from dlm.locks.errors import usage
from dlm.terms import EUNLOCK, VALUE_BLOCK_SIZE, LockFlag, LockId, LockMode, StatusFlag

if TYPE_CHECKING:
    from dlm.locks.engine import Engine
    from dlm.locks.jobs import Job

NO_VALUE = bytes(VALUE_BLOCK_SIZE)

# What is under way for a lock. Plain numbers: they are compared on the hottest path.
NOTHING, REQUEST, CONVERT, UNLOCK = range(4)
SETTLING = 4
"""The operation has ended, it or its CANCEL is still being written: nothing else may begin."""


class Bit(IntFlag):
    """What is so of a lock; kept as a plain number."""

    PERSISTENT = 0x01
    VALUE_BLOCK = 0x02
    DIRTY = 0x04
    VALID = 0x08
    DEMOTED = 0x10
    ALTERNATIVE = 0x20
    CANCELLING = 0x40
    """The operation under way is to be cancelled."""
    CANCEL_OUT = 0x80
    """A CANCEL is being written."""
    WATCHED = 0x100
    """Nobody who waits will read the operation's result: the engine has it read."""
    DOOMED = 0x200
    """To be unlocked as soon as the operation under way has ended."""
    REFUSED = 0x400
    """The last operation was refused when it was written."""
    OVER = 0x800
    """Unlocked by this program itself."""


_PERSISTENT, _VALUE_BLOCK, _DIRTY = int(Bit.PERSISTENT), int(Bit.VALUE_BLOCK), int(Bit.DIRTY)
_VALID, _CANCEL_OUT = int(Bit.VALID), int(Bit.CANCEL_OUT)
_SHOWN = int(Bit.DEMOTED | Bit.ALTERNATIVE)
_VALBLK, _IVVALBLK = int(LockFlag.VALBLK), int(LockFlag.IVVALBLK)
_NOT_VALID, _ALTERED = int(StatusFlag.VALNOTVALID), int(StatusFlag.ALTMODE)
_DEMOTED = int(StatusFlag.DEMOTED)
_CANCELLING, _ALTERNATIVE = int(Bit.CANCELLING), int(Bit.ALTERNATIVE)
_WAS_DEMOTED = int(Bit.DEMOTED)
_CONVDEADLK, _ALTPR = int(LockFlag.CONVDEADLK), int(LockFlag.ALTPR)
MODES = tuple(LockMode)
_NOT_PLAIN = int(
    Bit.VALUE_BLOCK | Bit.DEMOTED | Bit.ALTERNATIVE | Bit.CANCELLING | Bit.CANCEL_OUT | Bit.DOOMED
)
_WATCHED = int(Bit.WATCHED)
_UNLOCKED = -EUNLOCK
_NL, _CW, _PR, _PW, _EX = (MODES[number] for number in (0, 2, 3, 4, 5))


class LockState:
    """A lock; see ``dlm.locks.Lock`` for what programs may do with it."""

    __slots__ = (
        "_asked",
        "_before",
        "_bits",
        "_blocking",
        "_callback",
        "_engine",
        "_id",
        "_job",
        "_mode",
        "_name",
        "_op",
        "_sent",
        "_status",
        "_token",
        "_turn",
        "_value",
        "_wake",
    )

    def __init__(self, engine: Engine, name: bytes, bits: int) -> None:
        self._engine = engine
        self._token = next(engine.tokens)
        self._name = name
        self._id = 0
        self._mode: LockMode | None = None
        self._bits = bits
        self._op = NOTHING
        self._asked = 0
        self._sent = 0
        self._status = self._before = self._turn = 0
        self._value = NO_VALUE
        self._blocking = 0
        self._job: Job | None = None
        self._wake: Callable[[], None] | None = None
        self._callback: Callable[[LockMode], None] | None = None

    # ---- what programs see ----------------------------------------------------------------------

    @property
    def name(self) -> bytes:
        """The resource's name."""
        return self._name

    @property
    def lockspace(self) -> str:
        """The lockspace's name."""
        return self._engine.name

    @property
    def lock_id(self) -> LockId:
        """The lock's id on this node."""
        return LockId(self._id)

    @property
    def held(self) -> bool:
        """Whether the lock is granted in some mode."""
        return self._mode is not None

    @property
    def mode(self) -> LockMode:
        """The granted mode; of a lock that has ended, the last one asked for."""
        return MODES[self._asked] if self._mode is None else self._mode

    @property
    def persistent(self) -> bool:
        """Whether the lock outlives this process, as an orphan."""
        return bool(self._bits & _PERSISTENT)

    @property
    def value(self) -> bytes:
        """The value block: 32 bytes, as last read or set.

        It may be set under PW and EX by whoever asked for ``value_block``, to at most 32 bytes
        (zeros follow), and reaches the others with the next ``unlock``, or ``convert`` to the same
        or a lower mode.
        """
        return self._value

    @value.setter
    def value(self, value: bytes) -> None:
        if len(value) > VALUE_BLOCK_SIZE:
            raise self._misuse(f"a value block has {VALUE_BLOCK_SIZE} bytes, not {len(value)}")
        if not self._bits & _VALUE_BLOCK:
            raise self._misuse("the lock was asked for without value_block=True")
        if self._mode is None or self._mode < _PW:
            raise self._misuse("a value block is written under PW and EX only")
        self._value = bytes(value).ljust(VALUE_BLOCK_SIZE, b"\0")
        self._bits |= _DIRTY

    @property
    def value_valid(self) -> bool:
        """Whether ``value`` is what was written last.

        False after a holder of PW or EX died (VALNOTVALID), and while none was read. Such a value
        is never written back, unless it is set anew.
        """
        return bool(self._bits & (_VALID | _DIRTY))

    @property
    def demoted(self) -> bool:
        """Whether the last conversion was granted by way of NL (CONVDEADLK).

        Others may have had the resource in between.
        """
        return bool(self._bits & _WAS_DEMOTED)

    @property
    def alternative(self) -> bool:
        """Whether the lock was granted in another mode than asked for (ALTPR, ALTCW)."""
        return bool(self._bits & _ALTERNATIVE)

    def __repr__(self) -> str:
        mode = self._mode.name if self._mode is not None else "no longer held"
        return f"<Lock {self._name!r} of {self.lockspace}: {mode}, id {self._id}>"

    def _misuse(self, message: str) -> Exception:
        return usage(message, self.lockspace, self._name)

    # ---- value block ----------------------------------------------------------------------------

    def _writes(self, mode: int) -> bool:
        """Say whether a conversion to ``mode`` writes the value block rather than reads it."""
        # Linux 6.1 fs/dlm/lock.c, dlm_lvb_operations: PW->EX is the only way up that is no write.
        granted = self._mode
        return granted is _EX or (granted is _PW and mode != _EX)

    def _convert_flags(self, mode: int) -> int:
        """Return the value block's flags of a conversion, where there is one."""
        if self._writes(mode) and not self._bits & (_DIRTY | _VALID):
            return _VALBLK | _IVVALBLK  # what nobody vouches for does not become valid
        return _VALBLK

    def _unlock_flags(self) -> int:
        """Return the value block's flags of an unlock, where there is one."""
        if self._mode is None or self._mode < _PW:
            return 0
        if self._bits & _DIRTY:
            return _VALBLK
        # The bytes are written even without VALBLK here when the last operation had it (Linux 6.1
        # fs/dlm/lock.c, set_lvb_unlock(): lkb_exflags are the flags of both).
        if self._sent & _VALBLK and not self._bits & _VALID:
            return _IVVALBLK
        return 0

    def _status_of(self, turn: int) -> int:
        """Return how an operation ended, though another thread has begun the next one since."""
        if self._turn == turn:
            return self._status
        return self._before if self._turn == turn + 1 else -errno.EBUSY

    # ---- results, under the engine's mutex ------------------------------------------------------

    def _took(
        self, status: int, lock_id: int, flags: int, bast_mode: int, value: bytes | None
    ) -> None:
        """Take in a result."""
        op = self._op
        plain = not (status or flags or bast_mode or self._bits & _NOT_PLAIN) and op
        if plain and (op != REQUEST or self._job is None):
            # Nearly all of them: granted, as asked for, without a value block.
            if op == REQUEST:
                self._id = lock_id
            self._mode = MODES[self._asked]
            self._blocking = self._status = self._op = 0
            engine = self._engine
            if self._bits & _WATCHED:
                self._bits &= ~_WATCHED
                engine.watching -= 1
            if engine.led is not None or engine.followers:
                engine.tell(self)
            elif (wake := self._wake) is not None:
                self._wake = None
                wake()
            return
        if status == _UNLOCKED and op == UNLOCK and not self._bits & _NOT_PLAIN:
            engine = self._engine
            engine.drop(self._token)
            self._over()
            self._status = status
            self._op = NOTHING
            if self._bits & _WATCHED:
                self._bits &= ~_WATCHED
                engine.watching -= 1
            if engine.led is not None or engine.followers:
                engine.tell(self)
            elif (wake := self._wake) is not None:
                self._wake = None
                wake()
            return
        if bast_mode:
            self._blocking = max(self._blocking, bast_mode)
            if self._callback is not None:
                self._blocked(MODES[bast_mode])
            return
        if self._op == REQUEST:
            self._id = lock_id
        if not status:
            self._granted(flags, value)
        elif status == _UNLOCKED or self._op == REQUEST:
            self._engine.forget(self)
        elif self._sent & _CONVDEADLK and self._bits & _CANCELLING:
            # Demoted to NL while it waited, and cancelled: no flag of the result tells (Linux 6.1
            # fs/dlm/lock.c, can_be_granted(), revert_lock()). The weaker mode is the safe belief.
            self._mode = _NL
        if self._op:
            self._ended(status)
        else:
            self._engine.settled(self)

    def _asks(self) -> bool:
        """Say whether the answer to a request or conversion is out."""
        return self._op in {REQUEST, CONVERT}

    def _lose(self, status: int) -> None:
        """The file is closed or lost, and with it the lock."""
        self._over()
        self._bits &= ~_CANCEL_OUT
        self._job = None
        if self._op:
            self._ended(status)

    def _over(self) -> None:
        """The lock has ended."""
        self._mode = None
        if self._callback is not None:
            self._callback = None
            self._engine.watching -= 1

    def _blocked(self, mode: LockMode) -> None:
        """Tell whoever wants to know that somebody waits for ``mode``."""
        if self._callback is not None:
            self._engine.call(self._callback, mode)

    def _ended(self, status: int) -> None:
        """The operation under way has ended."""
        self._status = status
        job = self._job
        if self._bits & _CANCEL_OUT or (job is not None and self._op == REQUEST):
            # Quirk: since 6.10 the kernel goes on with a lock that was unlocked before the write(2)
            # that asked for it had ended (Linux 7.2 fs/dlm/lock.c, dlm_user_request()).
            self._op = SETTLING
        else:
            self._op = NOTHING
            self._engine.settled(self)

    def _granted(self, flags: int, value: bytes | None) -> None:
        if not self._op:
            return  # somebody else converted the lock by its id: no result tells the mode
        sent, bits, mode = self._sent, self._bits & ~_SHOWN, MODES[self._asked]
        if flags:
            if flags & _ALTERED:
                bits |= _ALTERNATIVE
                mode = _PR if sent & _ALTPR else _CW
            if flags & _DEMOTED:
                bits |= _WAS_DEMOTED
        if sent & _VALBLK:
            if self._writes(self._asked):
                bits &= ~_DIRTY
            elif value is not None and not bits & _DIRTY:
                self._value = value
            invalid = flags & _NOT_VALID or sent & _IVVALBLK
            bits = bits & ~_VALID if invalid else bits | _VALID
        self._mode = mode
        self._blocking = 0
        self._bits = bits

    def _adopted(self, lock_id: int, mode: LockMode, flags: int) -> None:
        """It was an orphan, and is ours now."""
        self._id = lock_id
        self._mode = mode
        self._asked, self._sent = mode, flags
