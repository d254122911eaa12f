"""What the commands of lock device 3.0.0 (2005) do where they differ from mainline's.

Decides: which lock an id means to whom, what becomes of orphans that somebody names, the checks of
an unlock, what a close leaves behind.
May not know: queues and masters; the device's bytes.
Mirrors: dlm_lock() and dlm_unlock() of lock.c (shortly before the posting of 25 April 2005, whose
own lock.c was not found: INFER that the checks are the same) and device.c of that posting.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from dlm.core import operations, users
from dlm.core.blocks import (
    CANCEL,
    DEAD,
    GRANTED,
    ID_BUCKETS,
    ORPHAN,
    PERSISTENT,
    VALBLK,
    LockBlock,
)
from dlm.core.events import NO_VALUE, CloseFile, Convert, FileId, Request, Unlock
from dlm.core.results import discard
from dlm.core.state import Refused, State


def _find_lock(state: State, lock_id: int) -> LockBlock:
    if lock_id & 0xFFFF >= ID_BUCKETS:
        raise Refused(errno.EBADSLT)
    lock = state.locks.locks.get(lock_id)
    if lock is None or not lock.alive:
        raise Refused(errno.ENOENT)
    if lock.is_master_copy:
        raise Refused(errno.EINVAL)
    return lock


def convert(state: State, command: Convert) -> int:
    """LOCK with CONVERT, by id; returns the id. An orphan becomes the caller's."""
    lock = _find_lock(state, command.lock_id)
    operations.check_lock_arguments(command.mode, command.flags, 0)
    operations.check_conversion(lock, command.mode, command.flags)
    _take_over(state, lock, command.file)
    if command.flags & VALBLK:
        lock.value = command.value
    lock.args = command.args
    operations.convert_lock(state, lock, command.mode, command.flags, command.pid)
    return lock.lock_id


def unlock(state: State, command: Unlock) -> int:
    """UNLOCK, or a cancel, by id; of an orphan the caller gets the completion."""
    lock = _find_lock(state, command.lock_id)
    cancels = bool(command.flags & CANCEL)
    if cancels == (lock.status == GRANTED):
        raise Refused(errno.EINVAL)
    if lock.wait_type or lock.wait_count or lock.looking_up:
        raise Refused(errno.EBUSY)
    _take_over(state, lock, command.file)
    if lock.value is not None and command.flags & VALBLK:
        lock.value = command.value
    lock.args = lock.args._replace(
        castaddr=command.args.castaddr or lock.args.castaddr,
        castparam=command.args.castparam or lock.args.castparam,
        lksb=command.args.lksb,
    )
    lock.exflags |= command.flags
    lock.status_flags = 0
    if cancels:
        operations.cancel(state, lock.resource, lock)
    else:
        operations.unlock(state, lock.resource, lock)
    state.settle(lock)
    return 0


def _take_over(state: State, lock: LockBlock, file: FileId) -> None:
    # A lock that some open file has stays that file's: results go there.
    if state.orphans.pop(lock.lock_id, None) is None:
        return
    lock.flags &= ~ORPHAN
    lock.file = file
    lock.value = lock.value or NO_VALUE if lock.exflags & VALBLK else lock.value
    state.files[file].locks[lock.lock_id] = lock


def close(state: State, command: CloseFile) -> int:
    """The last close of a file: its locks end, newest first; PERSISTENT ones become orphans."""
    opened = state.files[command.file]
    while opened.locks:
        _, lock = opened.locks.popitem()
        if lock.exflags & PERSISTENT:
            _orphan(state, lock)
        else:
            users.end_by_close(state, lock)
    unlocking = list(opened.unlocking.values())
    opened.unlocking.clear()
    for lock in unlocking:
        lock.flags |= DEAD
    discard(state, opened)
    del state.files[command.file]
    for lock in unlocking:
        state.settle(lock)
    return 0


def _orphan(state: State, lock: LockBlock) -> None:
    """Leave a lock without an owner; what it asks for it goes on asking."""
    if lock.status != GRANTED or lock.wait_type:
        state.log(f"Error orphaning lock {lock.lock_id:x}: {-errno.EBUSY}")
    lock.flags |= ORPHAN
    state.orphans[lock.lock_id] = lock


COMMANDS_2005: Final[dict[type, Callable[[State, Any], int]]] = {
    Request: users.request,
    Convert: convert,
    Unlock: unlock,
    CloseFile: close,
}
"""The commands of device 3.0.0; Any: each takes its own command."""
