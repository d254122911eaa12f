"""A thread's lock, and what both faces do with one in hand.

Decides: what a program may do with a granted lock, and that it waits in its own thread.
May not know: how results are read, in which order an operation's parts are done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from dlm.abi.device import Command, pack_lock
from dlm.locks import arguments, flows, space
from dlm.locks.engine import Engine
from dlm.locks.errors import LockError, NoLockError
from dlm.locks.state import CONVERT, MODES, UNLOCK, Bit, LockState
from dlm.terms import EUNLOCK, LockFlag, LockMode

AnyLock = TypeVar("AnyLock", bound=LockState)

_NO_FLAGS = LockFlag(0)
_OVER, _VALUE_BLOCK, _PERSISTENT = int(Bit.OVER), int(Bit.VALUE_BLOCK), int(Bit.PERSISTENT)
_SPECIAL = _VALUE_BLOCK | _PERSISTENT
_CONVERT_FLAG = int(LockFlag.CONVERT)
_CLOSED = -errno.EBADF
_UNLOCKED = -EUNLOCK


class Lock(LockState):
    """A granted lock; leaving its ``with`` block unlocks it.

    It stays until it is unlocked or its lockspace closed, whether or not anybody has it in hand.
    """

    __slots__ = ()

    @property
    def blocking(self) -> LockMode | None:
        """The strongest mode that somebody was reported to wait for since the last grant."""
        return MODES[self._blocking] if self._blocking else None

    def convert(
        self, mode: LockMode, *, timeout: float | None = None, flags: LockFlag = _NO_FLAGS
    ) -> None:
        """Convert the lock to another mode, and wait until that is granted.

        ``timeout`` in seconds; past it the conversion is cancelled. ``flags`` such as NOQUEUE,
        QUECVT, NODLCKWT, CONVDEADLK (see ``demoted``). On every error but a lost or
        closed lockspace the lock is held in its old mode: ``DeadlockError``, ``WouldBlockError``,
        ``LockTimedOutError``, ``LockCancelledError``, ``LockBusyError`` (another thread is at it),
        ``NoLockError`` (it has ended).
        """
        engine = self._engine
        if mode.__class__ is LockMode and not flags:
            wanted, given = mode, 0
        else:
            wanted, given = (
                arguments.checked_mode(mode),
                arguments.checked_flags(flags, converts=True),
            )
        aside = timeout is not None
        try:
            if aside or self._bits & _SPECIAL or self._mode is None:
                turn = flows.start_convert(self, wanted, given, aside=aside)
            else:
                turn = engine.start(self, CONVERT, wanted, given | _CONVERT_FLAG, aside=False)
            if not (self._op or self._status):
                return
            deadline = None if timeout is None else engine.backend.now() + timeout
            run(self, flows.converting(self, turn, deadline, wanted, given, aside=aside))
        except LockError:
            raise
        except BaseException:
            self._engine.forsake(self, doomed=False)
            raise

    def unlock(self, *, invalidate: bool = False, timeout: float | None = None) -> None:
        """Unlock, after what is under way for the lock.

        ``invalidate`` makes the value block invalid for the others, if this lock is PW or EX. An
        unlock whose ``timeout`` passes (locking is suspended) goes on by itself; its
        ``LockTimedOutError`` says ``LEFT``. A lock that has ended is ``NoLockError``.
        """
        plain = not (timeout is not None or invalidate or self._op or self._bits & _VALUE_BLOCK)
        if not plain or self._mode is None:
            flows.check_held(self, "unlock")
        try:
            deadline, begun = None, False
            if timeout is not None:
                deadline = self._engine.backend.now() + timeout
            elif not self._op:
                if plain:
                    self._engine.start(self, UNLOCK, 0, 0, aside=False)
                else:
                    flows.start_unlock(self, invalidate=invalidate, aside=False)
                if self._status == _UNLOCKED and not self._op:
                    self._bits |= _OVER
                    return
                begun = True
            aside = timeout is not None
            flow = flows.unlocking(self, deadline, invalidate=invalidate, begun=begun, aside=aside)
            run(self, flow)
        except LockError:
            raise
        except BaseException:
            self._engine.forsake(self, doomed=True)
            raise

    def cancel(self) -> bool:
        """Cancel the conversion that another thread waits for; False when there is none.

        That thread's call ends with ``LockCancelledError``, or with its grant if that came first.
        """
        return self._engine.cancel(self)

    def on_blocking(self, callback: Callable[[LockMode], None] | None) -> None:
        """Have ``callback(mode)`` called whenever somebody waits for ``mode`` because of this lock.

        At once, if somebody is known to. Rising modes are told, equal and lower ones are not until
        the lock was converted. Called on the lockspace's callback thread, which it may keep busy;
        in a lockspace without threads, in ``dispatch()``. None: no more.
        """
        engine = self._engine
        had, self._callback = self._callback, callback
        if (had is None) != (callback is None):
            engine.watch_always(1 if had is None else -1)
        if callback is not None and (mode := self.blocking) is not None:
            engine.call(callback, mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nothing is left to unlock where the program did it itself, or closed the lockspace, or is
        # the child of the one that holds the lock; a lock that was lost is an error.
        if not self._bits & _OVER and self._engine.closed != _CLOSED:
            self.unlock()


def run(lock: LockState, flow: flows.Flow) -> None:
    """Run a flow in this thread."""
    engine = lock._engine
    for seconds in flow:
        if seconds is None or seconds >= 0:
            engine.wait(lock, seconds)
        else:
            engine.backend.pause(-seconds)


def adopt(
    engine: Engine,
    kind: Callable[[Engine, bytes, int], AnyLock],
    name: bytes,
    mode: LockMode,
    lock_id: int | None,
    value_block: bool,
) -> AnyLock:
    """Take over an orphan; see ``Lockspace.adopt``. Adopting is not held up by a stop."""
    flags = space.ADOPT_FLAGS
    while True:
        lock = kind(engine, name, _PERSISTENT | (_VALUE_BLOCK if value_block else 0))
        engine.add(lock._token, lock)
        data = pack_lock(Command.LOCK, mode, flags, 0, lock._token, lock._value, name)
        try:
            found = engine.write(data, f"adopt {mode.name} of {name!r}")
        except BaseException as error:
            engine.drop(lock._token)
            if isinstance(error, LockError) and error.errno in {errno.EAGAIN, errno.ENOENT}:
                text = f"adopt {mode.name} of {name!r} in {engine.name}: there is no such orphan"
                raise NoLockError(error.errno, text, engine.name, name, lock_id) from error
            raise
        lock._adopted(found, mode, flags)
        if lock_id in {None, found}:
            return lock
