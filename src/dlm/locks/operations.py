"""A task's lock, and what a task awaits.

Decides: how an operation goes on in a loop, and that a cancelled one leaves nothing behind.
May not know: how results are read; how the loop is told of them (dlm.locks.aio).
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dlm.locks import flows
from dlm.locks.errors import LockError
from dlm.locks.state import MODES, REQUEST, Bit, LockState
from dlm.terms import EUNLOCK, LockFlag, LockMode

if TYPE_CHECKING:
    from dlm.locks.aio import Lockspace

_NO_FLAGS = LockFlag(0)
_OVER = int(Bit.OVER)

T = TypeVar("T")


class Lock(LockState):
    """A granted lock; leaving its ``async with`` block unlocks it."""

    __slots__ = ("_face", "_listeners")

    def __init__(self, face: Lockspace, name: bytes, bits: int) -> None:
        super().__init__(face._engine, name, bits)
        self._face = face
        self._listeners: list[_Listener] | None = None

    def convert(
        self, mode: LockMode, *, timeout: float | None = None, flags: LockFlag = _NO_FLAGS
    ) -> Operation[None]:
        """Convert the lock to another mode; to be awaited; see ``dlm.locks.Lock.convert``."""
        given = flows.checked_flags(flags) if flags else 0
        return _Conversion(self, timeout, flows.checked_mode(mode), given)

    def unlock(self, *, invalidate: bool = False, timeout: float | None = None) -> Operation[None]:
        """Unlock, after what is under way for the lock; to be awaited.

        See ``dlm.locks.Lock.unlock``. A task that is cancelled meanwhile leaves the unlock to go on
        by itself.
        """
        return _Unlocking(self, timeout, invalidate)

    async def cancel(self) -> bool:
        """Cancel the conversion that another task waits for; False when there is none."""
        return self._engine.cancel(self)

    async def blocking(self) -> AsyncIterator[LockMode]:
        """Yield the modes that somebody waits for because of this lock, as they are told.

        First what is known already. Rising modes are told, equal and lower ones are not until the
        lock was converted. Ends when the lock does.
        """
        listener = _Listener(self)
        try:
            while (mode := await listener.next()) is not None:
                yield mode
        finally:
            listener.close()

    def _over(self) -> None:
        """The lock has ended."""
        super()._over()
        self._tell(None)

    def _blocked(self, mode: LockMode) -> None:
        """Tell whoever iterates that somebody waits for ``mode``."""
        self._tell(mode)

    def _tell(self, mode: LockMode | None) -> None:
        # In whatever thread, with the engine's mutex held.
        for listener in self._listeners or ():
            listener.modes.append(mode)
            if (waiter := listener.waiter) is not None:
                self._face.woken(waiter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # As in dlm.locks.Lock.__exit__().
        if not self._bits & _OVER and self._engine.closed != -errno.EBADF:
            await self.unlock()


class _Listener:
    """Who iterates over ``Lock.blocking``."""

    def __init__(self, lock: Lock) -> None:
        self.modes: deque[LockMode | None] = deque()
        self._lock = lock
        self.waiter: asyncio.Future[None] | None = None
        if lock._listeners is None:
            lock._listeners = []
        lock._listeners.append(self)
        if lock._callback is None and lock.held:
            lock._callback = lock._blocked
            lock._engine.watch_always(1)
            if not lock._engine.threads:
                lock._face.watch()
        if lock._blocking:
            self.modes.append(MODES[lock._blocking])

    async def next(self) -> LockMode | None:
        """Return the next mode, None when the lock has ended."""
        while not self.modes:
            if not self._lock.held:
                return None
            waiter = self._lock._face.loop.create_future()
            self.waiter = waiter
            if not self.modes and self._lock.held:  # else it was told before it listened
                await waiter
        return self.modes.popleft()

    def close(self) -> None:
        """Listen no more."""
        lock = self._lock
        if lock._listeners is not None and self in lock._listeners:
            lock._listeners.remove(self)
            if not lock._listeners and lock._callback is not None:
                lock._callback = None
                lock._engine.watch_always(-1)


class Operation(asyncio.Future[T]):
    """An operation on a lock, to be awaited: it begins when somebody first does.

    A task that is cancelled while it awaits one has it cancelled in the kernel, and is told so once
    that is over and a grant that came first undone; at once while locking is suspended.
    """

    def __init__(self, lock: Lock, answer: T, timeout: float | None) -> None:
        face = lock._face
        super().__init__(loop=face.loop)
        self._face = face
        self._lock = lock
        self._answer = answer
        self._timeout = timeout
        self._begun = False
        self._deadline: float | None = None
        self._flow: flows.Flow | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._steps: Generator[Any, None, T] | None = None  # Any: what the loop is told
        self._drained: float = 0
        self._message: Any | None = None  # Any: as asyncio has it

    # ---- what each kind of operation is ----

    _doomed = True
    """Whether a cancelled one ends with the lock unlocked."""
    _wanted: int | None = 0
    """The status of success; None: the flow is to see to it."""

    def _begin(self) -> None:
        """Begin it, to be woken by ``wake``."""
        raise NotImplementedError

    def _make_flow(self) -> flows.Flow:
        """Return what is to be done from then on."""
        raise NotImplementedError

    # ---- how it goes on ----

    def add_done_callback(
        self, callback: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """Begin, for somebody waits now; else as any future's."""
        if not (self._begun or self.done()):  # cancelled before anybody waited: it never begins
            self._go()
        super().add_done_callback(callback, context=context)

    def _go(self) -> None:
        self._begun = True
        self._deadline = self._face.deadline(self._timeout)
        try:
            self._begin()
        except LockError as error:
            self.set_exception(error)
            return
        if not self._face._engine.threads:
            self._face.watch()
        if self._deadline is not None:
            self.step()

    def wake(self) -> None:
        """Go on, in the loop; from any thread."""
        self._face.woken(self)

    def go_on(self) -> None:
        """The lock's operation has ended."""
        if self.done():
            return
        lock = self._lock
        if self._drained:
            self._drain()
        elif lock._status == self._wanted and not lock._op:  # as nearly all of them
            if self._wanted:
                lock._bits |= _OVER
            self._stop_timer()
            self.set_result(self._answer)
        else:
            self.step()

    def step(self) -> None:
        """Run the flow as far as it goes."""
        engine, lock = self._face._engine, self._lock
        self._stop_timer()
        if self.done():
            return
        if self._flow is None:
            self._flow = self._make_flow()
        try:
            while True:
                seconds = next(self._flow)
                pauses = seconds is not None and seconds < 0
                if pauses or engine.watch(lock, self.wake):
                    break
        except StopIteration:
            self.set_result(self._answer)
            return
        except LockError as error:
            self.set_exception(error)
            return
        if seconds is not None:
            self._timer = self._face.loop.call_later(abs(seconds), self._look)
        if not engine.threads:
            self._face.watch()

    def _look(self) -> None:
        self._face._engine.jobs.look()
        self.step()

    def cancel(self, msg: Any | None = None) -> bool:  # Any: as asyncio has it
        """Cancel it, in the kernel too; done once that is over."""
        if self.done():
            return False
        if not self._begun:
            return super().cancel(msg=msg)
        if not self._drained:
            self._drained = flows.FIRST_LOOK
            self._message = msg
            self._stop_timer()
            self._face._engine.forsake(self._lock, doomed=self._doomed)
            self._drain()
        return True

    def _drain(self) -> None:
        """Be cancelled once the engine has seen to it, or cannot while locking is suspended."""
        self._stop_timer()
        if self.done():
            return
        engine, lock = self._face._engine, self._lock
        engine.jobs.look()
        hopeless = engine.suspended() or engine.unanswered(lock)
        if hopeless or not engine.watch(lock, self.wake):
            super().cancel(msg=self._message)
            return
        self._timer = self._face.loop.call_later(self._drained, self._drain)
        self._drained = min(2 * self._drained, flows.LAST_LOOK)

    # A coroutine as well: ``create_task`` and ``TaskGroup`` take no future.

    def send(self, value: None) -> Any:  # Any: what the loop is told
        """Go on, as a coroutine does."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:  # Any: as generators have it
        """Have an exception raised in it, as a coroutine does."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.throw(*error)

    def close(self) -> None:
        """Be awaited no more."""
        if self._steps is not None:
            self._steps.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Conversion(Operation[None]):
    """A conversion of a lock."""

    _doomed = False

    def __init__(self, lock: Lock, timeout: float | None, mode: LockMode, flags: int) -> None:
        super().__init__(lock, None, timeout)
        self._mode = mode
        self._flags = flags

    def _begin(self) -> None:
        flows.start_convert(self._lock, self._mode, self._flags, aside=True, wake=self.wake)

    def _make_flow(self) -> flows.Flow:
        return flows.converting(self._lock, self._deadline, self._mode, self._flags, aside=True)


class _Unlocking(Operation[None]):
    """The end of a lock."""

    _wanted = -EUNLOCK

    def __init__(self, lock: Lock, timeout: float | None, invalidate: bool) -> None:
        super().__init__(lock, None, timeout)
        self._invalidate = invalidate
        self._started = False

    def _begin(self) -> None:
        lock = self._lock
        flows.check_held(lock, "unlock")
        if lock._op:  # something is under way: the flow waits for it
            self.step()
        else:
            self._started = True
            flows.start_unlock(lock, invalidate=self._invalidate, aside=True, wake=self.wake)

    def _make_flow(self) -> flows.Flow:
        return flows.unlocking(
            self._lock,
            self._deadline,
            invalidate=self._invalidate,
            begun=self._started,
            aside=True,
        )


class Request(Operation[Lock]):
    """A lock that is asked for: ``await`` it, or enter it with ``async with``."""

    def __init__(
        self, lock: Lock, timeout: float | None, mode: LockMode, flags: int, persistent: bool
    ) -> None:
        super().__init__(lock, lock, timeout)
        self._mode = mode
        self._flags = flags
        self._persistent = persistent
        if persistent:
            self._wanted = None  # pinning is left to the flow

    def _begin(self) -> None:
        engine, lock = self._face._engine, self._lock
        engine.start(lock, REQUEST, self._mode, self._flags, aside=True, wake=self.wake)

    def _make_flow(self) -> flows.Flow:
        persistent = self._persistent
        return flows.requesting(self._lock, self._deadline, persistent=persistent, aside=True)

    async def __aenter__(self) -> Lock:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._lock.__aexit__(kind, error, trace)
