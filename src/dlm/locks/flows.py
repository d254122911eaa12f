"""What an operation does after it was begun: waiting, cancelling, pinning, undoing.

Decides: in which order, and which exception each end is.
May not know: how its caller waits.

A flow is a generator: each number of seconds that it yields (None: without end) means "wait so
long, or until the lock's operation has ended"; a negative one, "pause". The blocking face waits in
its thread, the asyncio face in its task. A caller that cannot go on (Ctrl-C, a cancelled task)
drops the flow and calls ``Engine.forsake``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator

from dlm.locks.errors import Ending, LockTimedOutError
from dlm.locks.state import CONVERT, UNLOCK, Bit, LockState
from dlm.terms import ECANCEL, EUNLOCK, LockFlag, LockMode

Flow = Generator[float | None, None, None]
Wake = Callable[[], None] | None

FIRST_LOOK, LAST_LOOK = 0.02, 1.0
"""Seconds between two looks whether locking is suspended, while a cancel is not answered."""

FIRST_TRY, LAST_TRY = 0.001, 0.1
"""Seconds between two tries of what met EBUSY: the answer to a cancel is still under way."""

BUSY_TIME = 10.0
"""Seconds after which EBUSY is believed."""

# Plain numbers: an operation of IntFlag's costs as much as a third of a lock.
_PIN = int(LockFlag.CONVERT | LockFlag.PERSISTENT)
_CONVERT_FLAG, _PERSISTENT_FLAG = int(LockFlag.CONVERT), int(LockFlag.PERSISTENT)
_VALBLK, _IVVALBLK = int(LockFlag.VALBLK), int(LockFlag.IVVALBLK)
_VALUE_BLOCK, _PERSISTENT = int(Bit.VALUE_BLOCK), int(Bit.PERSISTENT)
_OVER, _REFUSED = int(Bit.OVER), int(Bit.REFUSED)

# EDEADLK: a mark that deadlock_cancel() left on the lock (Linux 6.1 fs/dlm/lock.c,
# dlm_user_deadlock(): DLM_IFL_DEADLOCK_CANCEL stays) makes this of every later cancel.
_CANCELLED = frozenset({-ECANCEL, -errno.EDEADLK})


# ---- operations ---------------------------------------------------------------------------------


def start_convert(
    lock: LockState, mode: LockMode, flags: int, *, aside: bool, wake: Wake = None
) -> int:
    """Begin to convert a lock; what was pinned stays so. Returns what ``Engine.start`` does."""
    check_held(lock, "convert")
    flags |= _CONVERT_FLAG
    if lock._bits & _VALUE_BLOCK:
        flags |= lock._convert_flags(mode)
    if lock._bits & _PERSISTENT:  # a conversion decides it anew
        flags |= _PERSISTENT_FLAG
    return lock._engine.start(lock, CONVERT, mode, flags, aside=aside, wake=wake)


def start_unlock(lock: LockState, *, invalidate: bool, aside: bool, wake: Wake = None) -> None:
    """Begin to unlock a lock."""
    check_held(lock, "unlock")
    flags = 0
    if invalidate:
        flags = _IVVALBLK
    elif lock._bits & _VALUE_BLOCK:
        flags = lock._unlock_flags()
    lock._engine.start(lock, UNLOCK, 0, flags, aside=aside, wake=wake)


def check_held(lock: LockState, doing: str) -> None:
    """Raise what a verb ends with on a lock that has ended, or that is lost."""
    engine = lock._engine
    if lock._mode is None or engine.closed:
        raise engine.failure(engine.closed or -errno.ENOENT, doing, lock)


# ---- flows --------------------------------------------------------------------------------------


def requesting(
    lock: LockState,
    deadline: float | None,
    *,
    persistent: bool,
    aside: bool,
    at_once: bool = False,
) -> Flow:
    """Wait for a request's grant, or ``at_once`` for an answer; then pin it if ``persistent``."""
    if at_once:
        status = yield from _trying(lock, deadline)
    else:
        status = yield from _settling(lock, lock._turn, deadline, "lock", doomed=True)
    if status:
        raise lock._engine.failure(status, "lock", lock)
    if persistent:
        try:
            yield from _pinning(lock, deadline, aside)
        except BaseException:
            lock._engine.forsake(lock, doomed=True)
            raise


def _trying(lock: LockState, deadline: float | None) -> Generator[float | None, None, int]:
    """Wait for the answer to a request, and give up what would have to wait: -EAGAIN then.

    What NOQUEUE is for, without it: a refusal by another node that is faster than the end of
    write(2) panics kernels since 6.10 (docs/hazards.md). So the request is queued, and cancelled
    once the node has answered.
    """
    engine, turn = lock._engine, lock._turn
    look = FIRST_LOOK
    while lock._op and lock._turn == turn:
        job = lock._job
        if job is None or job.begun:
            engine.cancel(lock)
        pause = look
        if deadline is not None:
            left = deadline - engine.backend.now()
            if left <= 0 and (engine.suspended() or engine.unanswered(lock)):
                engine.forsake(lock, doomed=True)
                raise _timed_out(lock, "lock", Ending.LEFT)
            pause = min(look, left) if left > 0 else look
        yield pause
        look = min(2 * look, LAST_LOOK)
    status = lock._status_of(turn)
    return -errno.EAGAIN if status in _CANCELLED else status


def _pinning(lock: LockState, deadline: float | None, aside: bool) -> Flow:
    # Requested so and killed while it waits, it would be a dead entry of the orphan list: a later
    # purge crashes the kernel (Linux 6.1 fs/dlm/user.c, dlm_user_cancel() from orphan_proc_lock()).
    engine, mode = lock._engine, lock._mode
    assert mode is not None
    before = lock._bits & int(Bit.ALTERNATIVE | Bit.DEMOTED)
    lock._bits |= _PERSISTENT
    turn = engine.start(lock, CONVERT, mode, _PIN, aside=aside)
    status = yield from _settling(lock, turn, deadline, "lock", doomed=True)
    if status:
        raise engine.failure(status, "lock", lock)
    lock._bits |= before


def converting(
    lock: LockState, turn: int, deadline: float | None, mode: LockMode, flags: int, *, aside: bool
) -> Flow:
    """Wait until a conversion has ended: the one that is the lock's operation number ``turn``."""
    tries = _tries(lock, deadline)
    while True:
        status = yield from _settling(lock, turn, deadline, "convert", doomed=False)
        if not status:
            return
        ours = lock._turn == turn and _was_busy(lock)
        if not ours or (delay := next(tries, None)) is None:
            raise lock._engine.failure(status, "convert", lock)
        yield -delay
        turn = start_convert(lock, mode, flags, aside=aside)


def unlocking(
    lock: LockState, deadline: float | None, *, invalidate: bool, begun: bool, aside: bool
) -> Flow:
    """Wait for what is under way, then unlock; again where something else was in the way."""
    engine = lock._engine
    tries = _tries(lock, deadline)
    while True:
        while lock._op:
            left = None if deadline is None else deadline - engine.backend.now()
            if left is not None and left <= 0:
                engine.forsake(lock, doomed=True)
                raise _timed_out(lock, "unlock", Ending.LEFT)
            yield left
        if begun:
            if lock._status == -EUNLOCK:
                lock._bits |= _OVER
                return
            if not _was_busy(lock) or (delay := next(tries, None)) is None:
                raise engine.failure(lock._status, "unlock", lock)
            yield -delay
        start_unlock(lock, invalidate=invalidate, aside=aside)
        begun = True


def _was_busy(lock: LockState) -> bool:
    return lock._status == -errno.EBUSY and bool(lock._bits & _REFUSED)


def _tries(lock: LockState, deadline: float | None) -> Generator[float, None, None]:
    """Yield pauses until EBUSY is to be believed."""
    now = lock._engine.backend.now
    end = now() + BUSY_TIME if deadline is None else min(deadline, now() + BUSY_TIME)
    pause = FIRST_TRY
    while now() < end:
        yield pause
        pause = min(2 * pause, LAST_TRY)


def _settling(
    lock: LockState, turn: int, deadline: float | None, doing: str, *, doomed: bool
) -> Generator[float | None, None, int]:
    """Wait for an operation's end; past the deadline cancel it and wait for the answer.

    Returns its status: its own, though another thread has gone on with the lock by then.

    A grant that comes before the cancel counts. While locking is suspended, or the node is dead
    that should answer, no answer can come: then the operation is left to the engine (and undone,
    if ``doomed``).
    """
    engine = lock._engine
    while lock._op and lock._turn == turn:
        left = None if deadline is None else deadline - engine.backend.now()
        if left is not None and left <= 0:
            break
        yield left
    else:
        return lock._status_of(turn)
    while (job := lock._job) is not None and not job.begun and not engine.suspended():
        yield FIRST_LOOK  # what is free is granted, however short the time: it is asked for first
    engine.cancel(lock)
    look = FIRST_LOOK
    while lock._op and lock._turn == turn:
        if engine.suspended() or engine.unanswered(lock):
            engine.forsake(lock, doomed=doomed)
            raise _timed_out(lock, doing, Ending.LEFT)
        yield look
        look = min(2 * look, LAST_LOOK)
    status = lock._status_of(turn)
    if status in _CANCELLED:
        raise _timed_out(lock, doing, Ending.CANCELLED)
    return status


def _timed_out(lock: LockState, doing: str, ending: Ending) -> LockTimedOutError:
    text = f"{doing} of {lock._name!r} in {lock.lockspace}: timed out; {ending.value}"
    return LockTimedOutError(text, ending, lock.lockspace, lock._name, lock._id or None)
