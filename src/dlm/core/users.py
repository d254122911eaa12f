"""What the device's commands do: new locks, conversions, unlocks, orphans, purges, closes.

Decides: the order of checks of each command, what stays of a failed one, what becomes of a file's
locks when it closes, who adopts which orphan.
May not know: queues and masters; the device's bytes.
Mirrors: dlm_user_request() … dlm_user_purge() of fs/dlm/lock.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from contextlib import suppress

from dlm.core import operations
from dlm.core.blocks import (
    CANCEL,
    DEAD,
    DEADLOCK_CANCEL,
    FORCEUNLOCK,
    IVVALBLK,
    MASTER_COPY,
    ORPHAN,
    PERSISTENT,
    USER,
    VALBLK,
    LockBlock,
)
from dlm.core.directory import Why, find
from dlm.core.events import (
    NO_VALUE,
    Adopt,
    CloseFile,
    Convert,
    Deadlock,
    Purge,
    Request,
    Unlock,
    UserArgs,
)
from dlm.core.hazards import (
    DEAD_ORPHAN_PURGED,
    MASTER_COPY_NAMED,
    ORPHAN_UNLOCKED,
    OWN_COMM_REMOVED,
)
from dlm.core.messages import LockMessage, MessageType
from dlm.core.results import discard
from dlm.core.state import Refused, State
from dlm.record import new_tuple


def _find_lock(state: State, lock_id: int) -> LockBlock:
    lock = state.locks.locks.get(lock_id)
    if lock is None:
        raise Refused(errno.ENOENT)
    if lock.flags & MASTER_COPY:
        state.risk(MASTER_COPY_NAMED, f"lock {lock_id:x}")
        raise Refused(errno.EINVAL)
    return lock


def request(state: State, command: Request) -> int:
    """LOCK: a new lock; returns its id."""
    _, file, pid, name, mode, flags, args, xid, _ = command
    operations.check_lock_arguments(mode, flags, len(name))
    if state.strict and not state.knows_itself():
        state.risk(OWN_COMM_REMOVED, f"resource {name!r}")
    resource = find(state, name, Why.LOCAL)
    lock = state.locks.create(resource)
    lock_id = lock.lock_id
    lock.flags = USER
    lock.file = file
    lock.args = args
    lock.xid = xid
    if flags & VALBLK:
        lock.value = NO_VALUE
    operations.accept_lock(lock, mode, flags, pid)
    locks = state.files[file].locks
    locks[lock_id] = lock
    try:
        operations.request(state, resource, lock)
    except Refused:
        locks.pop(lock_id, None)
        state.end(lock)
        state.settle(lock)
        raise
    if not lock.alive:
        locks.pop(lock_id, None)
        state.settle(lock)
    return lock_id


def convert(state: State, command: Convert) -> int:
    """LOCK with CONVERT; the user's addresses are taken over even when it is then refused."""
    lock = _find_lock(state, command.lock_id)
    if command.flags & VALBLK and lock.value is None:
        lock.value = NO_VALUE
    if lock.value is not None:
        lock.value = command.value
    lock.args = command.args
    lock.xid = command.xid
    operations.check_lock_arguments(command.mode, command.flags, 0)
    operations.convert_lock(state, lock, command.mode, command.flags, command.pid)
    return 0


def adopt(state: State, command: Adopt) -> int:
    """LOCK with ORPHAN: take over the oldest orphan of this name and mode; returns its id."""
    other_mode = False
    for lock in state.orphans.values():
        if lock.resource.name != command.name:
            continue
        if lock.granted_mode == command.mode:
            break
        other_mode = True
    else:
        raise Refused(errno.EAGAIN if other_mode else errno.ENOENT)
    del state.orphans[lock.lock_id]
    lock.flags &= ~ORPHAN
    lock.exflags = command.flags
    lock.pid = command.pid
    lock.file = command.file
    lock.args = command.args
    lock.xid = command.xid
    state.files[command.file].locks[lock.lock_id] = lock
    return lock.lock_id


def unlock(state: State, command: Unlock) -> int:
    """UNLOCK and CANCEL."""
    _, _, lock_id, flags, new, value = command
    lock = _find_lock(state, lock_id)
    cancels = flags & CANCEL
    if not cancels and lock.value is not None:
        lock.value = value
    castparam, castaddr, bastparam, bastaddr, _ = lock.args
    castparam = new.castparam or castparam
    lock.args = new_tuple(UserArgs, (castparam, castaddr, bastparam, bastaddr, new.lksb))
    if flags:
        operations.check_unlock_arguments(flags)
    try:
        if cancels:
            operations.cancel_lock(state, lock, flags)
        else:
            operations.check_unlock(state, lock, flags)
            _unlock(state, lock)
    except Refused as refusal:
        state.settle(lock)
        if refusal.number != errno.EBUSY or not (cancels or flags & FORCEUNLOCK):
            raise
    if not cancels:
        _note_unlocking(state, lock)
    state.settle(lock)
    return 0


def _unlock(state: State, lock: LockBlock) -> None:
    """Unlock as a user's UNLOCK does, also an orphan that nobody adopted."""
    if lock.file not in state.files:
        state.orphans.pop(lock.lock_id, None)
        if not lock.alive:
            return
    operations.unlock(state, lock.resource, lock)


def _note_unlocking(state: State, lock: LockBlock) -> None:
    # Linux 6.1 fs/dlm/lock.c, dlm_user_unlock(): after an unlock that is only remembered, too.
    opened = state.files.get(lock.file) if lock.file is not None else None
    if opened is None:
        # Quirk: every kernel goes on with the file that has been freed.
        state.risk(ORPHAN_UNLOCKED, f"lock {lock.lock_id:x}")
    elif opened.locks.pop(lock.lock_id, None) is not None:
        opened.unlocking[lock.lock_id] = lock


def deadlock(state: State, command: Deadlock) -> int:
    """DEADLOCK: a cancel that completes with EDEADLK."""
    lock = state.locks.locks.get(command.lock_id)
    if lock is None:
        raise Refused(errno.ENOENT)
    operations.check_unlock_arguments(command.flags)
    try:
        operations.check_unlock(state, lock, command.flags)
        # Quirk: on a granted lock there is nothing to cancel, yet the mark stays for the next one.
        lock.flags |= DEADLOCK_CANCEL
        operations.cancel(state, lock.resource, lock)
    except Refused as refusal:
        if refusal.number != errno.EBUSY:
            raise
    finally:
        state.settle(lock)
    return 0


# ---- closing and purging ------------------------------------------------------------------------


def _force_unlock(state: State, lock: LockBlock) -> None:
    """Unlock whatever the lock's state, the value block of PW and EX no longer valid."""
    with suppress(Refused):  # An unlock is under way already, or remembered.
        operations.unlock_lock(state, lock, FORCEUNLOCK | IVVALBLK)


def close(state: State, command: CloseFile) -> int:
    """The last close of a file (dlm_clear_proc_locks)."""
    opened = state.files[command.file]
    while opened.locks:
        lock_id, lock = next(iter(opened.locks.items()))
        del opened.locks[lock_id]
        if lock.exflags & PERSISTENT:
            _orphan(state, lock)
        else:
            end_by_close(state, lock)
    for lock in opened.unlocking.values():
        lock.flags |= DEAD
    unlocking = list(opened.unlocking.values())
    opened.unlocking.clear()
    discard(state, opened)
    del state.files[command.file]
    for lock in unlocking:
        state.settle(lock)
    return 0


def end_by_close(state: State, lock: LockBlock) -> None:
    """Unlock a lock whose file is closed; nobody hears of it."""
    lock.flags |= DEAD
    _force_unlock(state, lock)
    state.settle(lock)


def _orphan(state: State, lock: LockBlock) -> None:
    """Make a lock an orphan; what it was still asking for is cancelled (orphan_proc_lock).

    Quirk: of a request that waited a dead entry stays among the orphans. It keeps its id, and the
    lockspace busy; nobody can adopt it, and a purge of it crashes the node.
    """
    lock.flags |= ORPHAN
    state.orphans[lock.lock_id] = lock
    with suppress(Refused):
        operations.cancel_lock(state, lock, 0)


def purge(state: State, command: Purge) -> int:
    """PURGE on this node: this file's own locks, or orphans by process id (0: all)."""
    if command.pid != command.caller:
        purge_orphans(state, command.pid)
        return 0
    opened = state.files[command.file]
    while opened.locks:
        lock_id, lock = next(iter(opened.locks.items()))
        del opened.locks[lock_id]
        lock.flags |= DEAD
        _force_unlock(state, lock)
        state.settle(lock)
    unlocking = list(opened.unlocking.values())
    opened.unlocking.clear()
    for lock in unlocking:
        lock.flags |= DEAD
    discard(state, opened)
    for lock in unlocking:
        state.settle(lock)
    return 0


def send_purge(state: State, command: Purge) -> int:
    """PURGE on another node."""
    state.send(
        command.nodeid, LockMessage(MessageType.PURGE, nodeid=command.nodeid, pid=command.pid)
    )
    return 0


def purge_orphans(state: State, pid: int) -> None:
    """Unlock the orphans of a process id, of all for 0 (do_purge)."""
    for lock in list(state.orphans.values()):
        if pid and lock.pid != pid:
            continue
        if lock.alive:
            _force_unlock(state, lock)
        elif lock.resource.is_master:
            state.risk(DEAD_ORPHAN_PURGED, f"lock {lock.lock_id:x}")
        state.orphans.pop(lock.lock_id, None)
        state.settle(lock)
