"""Completions and blocking ASTs on their way to the user: queued, merged, skipped, read.

Decides: which results a file gets, in which order, with which value block; when a lock is at the
end of its life; what kernels before and since 6.10 do differently.
May not know: why a result arises; the bytes that a read returns (dlm.abi).
Mirrors: fs/dlm/ast.c and the reading half of fs/dlm/user.c (Linux 6.1, and 6.12 where the profile
has ``merged_results`` off).
"""

from __future__ import annotations

import errno
from typing import Final

from dlm.core.blocks import (
    DEAD,
    DEADLOCK_CANCEL,
    ENDOFLIFE,
    MASTER_COPY,
    ORPHAN,
    Callback,
    LockBlock,
)
from dlm.core.events import FileId, Result
from dlm.core.modes import COMPATIBLE, IV, PR, RETURNED, VALUE_MOVES
from dlm.core.state import OpenFileState, State
from dlm.record import new_tuple
from dlm.terms import ECANCEL, EUNLOCK

CALLBACKS_MAX: Final = 6
"""Results of one lock that can wait to be read, up to 6.1; more are dropped with a log line."""

_SILENT: Final = ORPHAN | DEAD
_ENDS_UNGRANTED: Final = frozenset({-ECANCEL, -errno.ETIMEDOUT, -errno.EDEADLK, -errno.EAGAIN})


def queue_completion(state: State, lock: LockBlock, status: int) -> None:
    """Queue a completion AST; master copies have none (queue_cast)."""
    if lock.flags & MASTER_COPY:
        return
    if status == -ECANCEL and lock.flags & DEADLOCK_CANCEL:
        lock.flags &= ~DEADLOCK_CANCEL
        status = -errno.EDEADLK
    _queue(state, lock, Callback(False, lock.granted_mode, status, lock.status_flags & 0xFF))


def queue_blocking(state: State, lock: LockBlock, mode: int) -> None:
    """Queue a blocking AST on this node (queue_bast of a lock that is no master copy)."""
    _queue(state, lock, Callback(True, mode, 0, 0))


def _queue(state: State, lock: LockBlock, callback: Callback) -> None:
    """Linux 6.1 fs/dlm/user.c, dlm_user_add_ast()."""
    if lock.flags & _SILENT or lock.file is None:
        return
    if callback.blocking:
        if not lock.args.bastaddr:
            return
    elif callback.status and (
        callback.status == -EUNLOCK or (callback.mode == IV and callback.status in _ENDS_UNGRANTED)
    ):
        lock.flags |= ENDOFLIFE
    file = state.files.get(lock.file)
    if file is None:
        return
    if state.profile.merged_results:
        queued = _queue_merged(state, file, lock, callback)
    else:
        queued = True
        _queue_fifo(state, file, lock, callback)
    # Quirk: a lock whose last completion found no room stays with its file until that closes.
    if queued and lock.flags & ENDOFLIFE:
        file.locks.pop(lock.lock_id, None)
        file.unlocking.pop(lock.lock_id, None)


def _is_redundant(callback: Callback, before: Callback | None) -> bool:
    # Linux 6.1 fs/dlm/ast.c, dlm_add_lkb_callback(): the > PR is there for PR and CW, of which
    # neither covers the other.
    return (
        callback.blocking
        and before is not None
        and before.blocking
        and (before.mode == callback.mode or before.mode > max(callback.mode, PR))
    )


# ---- up to 6.9: results stay with their lock and are made when they are read --------------------


def _queue_merged(state: State, file: OpenFileState, lock: LockBlock, callback: Callback) -> bool:
    """Queue a result; False when there is no room for it."""
    callbacks = lock.callbacks
    if not (callback.blocking and callbacks and _is_redundant(callback, callbacks[-1])):
        if len(callbacks) >= CALLBACKS_MAX:
            state.log(f"dlm_add_callback {lock.lock_id:x} no room")
            return False
        callbacks.append(callback)
    if lock.lock_id not in file.ready:
        file.ready[lock.lock_id] = lock
        _tell(state, file)
    return True


def _take_merged(state: State, file: OpenFileState, room: bool) -> Result | None:
    """Linux 6.1 fs/dlm/user.c, device_read(), and ast.c, dlm_rem_lkb_callback()."""
    while file.ready:
        lock = next(iter(file.ready.values()))
        callback = lock.callbacks.pop(0)
        if not lock.callbacks:
            del file.ready[lock.lock_id]
        mode, before, value = callback.mode, lock.last_completion, lock.value
        if callback.blocking:
            if lock.last_callback is not None and COMPATIBLE[mode][before]:
                state.settle(lock)
                continue
            lock.blocked_mode = mode
            lock.blocked_ns = state.now
            status, flags, value = lock.result_status, lock.result_flags, None
        else:
            lock.last_completion = mode
            lock.last_callback = callback
            lock.result_status = status = callback.status
            lock.result_flags = flags = callback.flags
            if value is not None and not (room and _carries_value(callback, before)):
                value = None
            mode = 0
        if not lock.alive:
            state.settle(lock)
        return new_tuple(Result, (lock.args, lock.lock_id, status, flags, mode, value))
    return None


# ---- since 6.10: results are made when they arise ----------------------------------------------


def _queue_fifo(state: State, file: OpenFileState, lock: LockBlock, callback: Callback) -> None:
    """Linux 6.12 fs/dlm/ast.c, dlm_may_skip_callback()."""
    before = lock.last_completion
    if callback.blocking:
        if before != IV and COMPATIBLE[callback.mode][before]:
            return
        if _is_redundant(callback, lock.last_callback):
            return
        lock.blocked_mode = callback.mode
        lock.blocked_ns = state.now
    else:
        lock.last_completion = callback.mode
    lock.last_callback = callback
    value = lock.value
    if value is not None:
        carries = _carries_value(callback, before)
        if state.profile.locks_by_id and VALUE_MOVES[before][callback.mode] != RETURNED:
            carries = False  # the device of 2005 asks for 1, not for "not 0"
        if not carries:
            value = None
    mode = callback.mode if callback.blocking else 0
    file.results.append(
        Result(lock.args, lock.lock_id, callback.status, callback.flags, mode, value)
    )
    _tell(state, file)


def _take_fifo(file: OpenFileState, room: bool) -> Result | None:
    if not file.results:
        return None
    result = file.results.popleft()
    if result.value is not None and not room:
        return Result(
            result.args, result.lock_id, result.status, result.flags, result.bast_mode, None
        )
    return result


# ---- both ---------------------------------------------------------------------------------------


def _carries_value(callback: Callback, before: int) -> bool:
    # Quirk: "nothing moves" (-1) is as true as "returned" (1), so the caller gets its own bytes.
    return not callback.blocking and not callback.status and VALUE_MOVES[before][callback.mode] != 0


def _tell(state: State, file: OpenFileState) -> None:
    if not (state.stopped and are_held(state)):
        state.outputs.append(file.news)


def tell_held(state: State) -> None:
    """Tell of the results that could not be read while the lockspace was stopped."""
    for file in state.files.values():
        if file.ready or file.results:
            state.outputs.append(file.news)


def are_held(state: State) -> bool:
    """Say whether no result can be read at present."""
    return state.stopped and state.holds_results


def take(state: State, file: FileId, room: bool) -> Result | None:
    """Take the file's next result; without ``room`` its value block is lost."""
    opened = state.files.get(file)
    if opened is None or (state.stopped and are_held(state)):
        return None
    if state.profile.merged_results:
        return _take_merged(state, opened, room)
    return _take_fifo(opened, room)


def discard(state: State, file: OpenFileState) -> None:
    """Drop the file's unread results."""
    ready = list(file.ready.values())
    file.ready.clear()
    file.results.clear()
    for lock in ready:
        lock.callbacks.clear()
        state.settle(lock)
