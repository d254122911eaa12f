"""A task's lock, and what a task awaits.

Decides: how an operation goes on in a loop, and that a cancelled one leaves nothing behind.
May not know: how results are read; how the loop is told of them (dlm.locks.aio).
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dlm.locks import arguments, flows
from dlm.locks.errors import LockError
from dlm.locks.state import MODES, REQUEST, UNLOCK, Bit, LockState
from dlm.terms import EUNLOCK, LockFlag, LockMode

if TYPE_CHECKING:
    from dlm.locks.aio import Lockspace

_NO_FLAGS = LockFlag(0)
_OVER, _VALUE_BLOCK = int(Bit.OVER), int(Bit.VALUE_BLOCK)
_NEW, _PLAIN, _NOT_PLAIN = range(3)

T = TypeVar("T")


# Calling super() costs as much as what it is called for.
_init_lock = LockState.__init__
_init_future = asyncio.Future.__init__


class Lock(LockState):
    """A granted lock; leaving its ``async with`` block unlocks it."""

    __slots__ = ("_face", "_listeners")

    def __init__(self, face: Lockspace, name: bytes, bits: int) -> None:
        _init_lock(self, face._engine, name, bits)
        self._face = face
        self._listeners: list[_Listener] | None = None

    def convert(
        self, mode: LockMode, *, timeout: float | None = None, flags: LockFlag = _NO_FLAGS
    ) -> Operation[None]:
        """Convert the lock to another mode; to be awaited; see ``dlm.locks.Lock.convert``."""
        given = arguments.checked_flags(flags, converts=True) if flags else 0
        return _Conversion(self, timeout, arguments.checked_mode(mode), given)

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

    __slots__ = ("_callback", "_context", "_lock", "_phase", "_timeout")

    # Nearly every one is plain: it begins, its result comes, and that is that. What the others need
    # is set when it is needed.
    _at_once = False
    _deadline: float | None = None
    _flow: flows.Flow | None = None
    _timer: asyncio.TimerHandle | None = None
    _steps: Generator[Any, None, T] | None = None  # Any: what the loop is told
    _drained: float = 0
    _message: Any | None = None  # Any: as asyncio has it

    def __init__(self, lock: Lock, timeout: float | None) -> None:
        _init_future(self, loop=lock._face.loop)
        self._lock = lock
        self._timeout = timeout
        self._phase = _NEW
        self._callback: Callable[[Any], object] | None = None  # Any: this very class

    # ---- what each kind of operation is ----

    _doomed = True
    """Whether a cancelled one ends with the lock unlocked."""
    _wanted = 0
    """The status of success."""

    def _begin(self) -> None:
        """Begin it, to be woken by ``wake``."""
        raise NotImplementedError

    def _make_flow(self) -> flows.Flow:
        """Return what is to be done from then on."""
        raise NotImplementedError

    def _answer(self) -> T:
        """Take note that it has succeeded; return what it was awaited for."""
        raise NotImplementedError

    # ---- how it goes on ----

    def add_done_callback(
        self, callback: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """Begin, for somebody waits now; else as any future's."""
        if self._phase != _NEW:
            super().add_done_callback(callback, context=context)
            return
        # The first callback of a plain one is kept here: go_on() calls it with no turn of the
        # loop in between, which would cost as much again as all that asyncio does for it.
        self._phase = _PLAIN
        self._callback = callback
        self._context = copy_context() if context is None else context
        face = self._lock._face
        if self._timeout is not None:
            self._deadline = face.deadline(self._timeout)
        try:
            self._begin()
        except LockError as error:
            self._leave_plain()
            self.set_exception(error)
            return
        if self._timeout is not None or self._at_once:
            self.step()
        if face._beat is None:
            face.begun()

    def remove_done_callback(self, callback: Callable[[Self], object], /) -> int:
        """Call it no more; return how many there were."""
        removed = super().remove_done_callback(callback)
        if self._callback is not None and self._callback == callback:
            self._callback = None
            removed += 1
        return removed

    def _leave_plain(self) -> None:
        """Leave the first callback to the base too."""
        self._phase = _NOT_PLAIN
        if self._callback is not None:
            super().add_done_callback(self._callback, context=self._context)
            self._callback = None

    def wake(self) -> None:
        """Go on, in the loop; from any thread."""
        face = self._lock._face
        face._todo.append(self)
        if not face._scheduled:
            face._tell_loop()

    def go_on(self) -> None:
        """The lock's operation has ended; called by the loop itself, inside no task."""
        lock = self._lock
        if self._phase == _PLAIN and lock._status == self._wanted and not lock._op:
            self.set_result(self._answer())
            callback, self._callback = self._callback, None
            if callback is not None:
                try:
                    self._context.run(callback, self)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as the loop does with callbacks
                    text = f"Exception in callback {callback!r}"
                    told = {"message": text, "exception": error, "future": self}
                    lock._face.loop.call_exception_handler(told)
        elif self.done():
            return
        elif self._drained:
            self._drain()
        else:
            self.step()

    def step(self) -> None:
        """Run the flow as far as it goes."""
        lock = self._lock
        engine, face = lock._engine, lock._face
        self._stop_timer()
        if self.done():
            return
        self._leave_plain()
        if self._flow is None:
            self._flow = self._make_flow()
        try:
            while True:
                seconds = next(self._flow)
                pauses = seconds is not None and seconds < 0
                if pauses or engine.watch(lock, self.wake):
                    break
        except StopIteration:
            self.set_result(self._answer())
            return
        except LockError as error:
            self.set_exception(error)
            return
        if seconds is not None:
            self._timer = face.loop.call_later(abs(seconds), self._look)
        if not engine.threads:
            face.watch()

    def _look(self) -> None:
        self._lock._engine.jobs.look()
        self.step()

    def cancel(self, msg: Any | None = None) -> bool:  # Any: as asyncio has it
        """Cancel it, in the kernel too; done once that is over."""
        if self.done():
            return False
        if self._phase == _NEW:
            self._phase = _NOT_PLAIN  # so that it never begins, whoever awaits it yet
            return super().cancel(msg=msg)
        if not self._drained:
            self._drained = flows.FIRST_LOOK
            self._message = msg
            self._stop_timer()
            self._leave_plain()
            self._lock._engine.forsake(self._lock, doomed=self._doomed)
            self._drain()
        return True

    def _drain(self) -> None:
        """Be cancelled once the engine has seen to it, or cannot while locking is suspended."""
        self._stop_timer()
        if self.done():
            return
        engine, lock = self._lock._engine, self._lock
        engine.jobs.look()
        hopeless = engine.suspended() or engine.unanswered(lock)
        if hopeless or not engine.watch(lock, self.wake):
            super().cancel(msg=self._message)
            return
        self._timer = lock._face.loop.call_later(self._drained, self._drain)
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


_init_operation = Operation.__init__


class _Conversion(Operation[None]):
    """A conversion of a lock."""

    __slots__ = ("_flags", "_mode", "_turn")

    _doomed = False

    def __init__(self, lock: Lock, timeout: float | None, mode: LockMode, flags: int) -> None:
        super().__init__(lock, timeout)
        self._mode = mode
        self._flags = flags

    def _begin(self) -> None:
        lock, mode, flags = self._lock, self._mode, self._flags
        self._turn = flows.start_convert(lock, mode, flags, aside=True, wake=self.wake)

    def go_on(self) -> None:
        """As every operation; but of what another one has followed the flow knows the end."""
        if self._lock._turn != self._turn:
            self._leave_plain()
        super().go_on()

    def _make_flow(self) -> flows.Flow:
        lock, mode, flags = self._lock, self._mode, self._flags
        return flows.converting(lock, self._turn, self._deadline, mode, flags, aside=True)

    def _answer(self) -> None:
        return None


class _Unlocking(Operation[None]):
    """The end of a lock."""

    __slots__ = ("_invalidate", "_started")

    _wanted = -EUNLOCK

    def __init__(self, lock: Lock, timeout: float | None, invalidate: bool) -> None:
        _init_operation(self, lock, timeout)
        self._invalidate = invalidate
        self._started = False

    def _begin(self) -> None:
        lock = self._lock
        if lock._op:  # something is under way: the flow waits for it
            flows.check_held(lock, "unlock")
            self.step()
            return
        self._started = True
        engine, plain = lock._engine, not (self._invalidate or lock._bits & _VALUE_BLOCK)
        if plain and lock._mode is not None and not engine.closed:  # nearly all of them
            engine.start(lock, UNLOCK, 0, 0, aside=True, wake=self.wake)
        else:
            flows.start_unlock(lock, invalidate=self._invalidate, aside=True, wake=self.wake)

    def _make_flow(self) -> flows.Flow:
        return flows.unlocking(
            self._lock,
            self._deadline,
            invalidate=self._invalidate,
            begun=self._started,
            aside=True,
        )

    def _answer(self) -> None:
        self._lock._bits |= _OVER


class Request(Operation[Lock]):
    """A lock that is asked for: ``await`` it, or enter it with ``async with``."""

    __slots__ = ("_at_once", "_flags", "_mode", "_persistent")

    def __init__(
        self,
        lock: Lock,
        timeout: float | None,
        mode: LockMode,
        flags: int,
        persistent: bool,
        at_once: bool,
    ) -> None:
        _init_operation(self, lock, timeout)
        self._mode = mode
        self._at_once = at_once
        self._flags = flags
        self._persistent = persistent

    def _begin(self) -> None:
        lock = self._lock
        if self._persistent:  # pinning is left to the flow
            self._leave_plain()
        wake = self.wake
        lock._engine.start(lock, REQUEST, self._mode, self._flags, aside=True, wake=wake)

    def _make_flow(self) -> flows.Flow:
        return flows.requesting(
            self._lock,
            self._deadline,
            persistent=self._persistent,
            aside=True,
            at_once=self._at_once,
        )

    def _answer(self) -> Lock:
        return self._lock

    async def __aenter__(self) -> Lock:
        return await self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._lock.__aexit__(kind, error, trace)
