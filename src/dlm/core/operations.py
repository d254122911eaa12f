"""The four operations where they are asked for: checks, then the master here or a message to it.

Decides: which operations are refused, where an operation goes, what a lock does that waits for its
resource's master to become known.
May not know: files and their results, what happens at the master.
Mirrors: set_master() … cancel_lock() of fs/dlm/lock.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Final

from dlm.core import locking
from dlm.core.blocks import (
    CANCEL,
    CONVDEADLK,
    CONVERT,
    ENDOFLIFE,
    EXPEDITE,
    FORCEUNLOCK,
    GRANTED,
    IVVALBLK,
    MASTER_COPY,
    MASTER_UNCERTAIN,
    NOQUEUE,
    OVERLAP,
    OVERLAP_CANCEL,
    OVERLAP_UNLOCK,
    QUECVT,
    RESEND,
    VALBLK,
    LockBlock,
    Resource,
)
from dlm.core.hazards import LOOKUP_NOT_SENT
from dlm.core.messages import MessageType
from dlm.core.modes import EX, NL, QUECVT_ALLOWED, is_down_conversion
from dlm.core.results import queue_completion
from dlm.core.sending import ask, stop_waiting
from dlm.core.state import Refused, State
from dlm.terms import ECANCEL, EUNLOCK, RESOURCE_NAME_MAX

_CONDITIONAL: Final = CANCEL | QUECVT | CONVDEADLK | EXPEDITE
_UNLOCK_FLAGS: Final = CANCEL | VALBLK | IVVALBLK | FORCEUNLOCK

# ---- argument checks ----------------------------------------------------------------------------


def check_lock_arguments(mode: int, flags: int, name_length: int) -> None:
    """Refuse a LOCK that makes no sense: EINVAL (set_lock_args)."""
    converts = flags & CONVERT
    if not NL <= mode <= EX or (not converts and name_length > RESOURCE_NAME_MAX):
        raise Refused(errno.EINVAL)
    if flags & _CONDITIONAL and (
        flags & CANCEL
        or (flags & QUECVT and not converts)
        or (flags & CONVDEADLK and (not converts or flags & NOQUEUE))
        or (flags & EXPEDITE and (converts or flags & (QUECVT | NOQUEUE) or mode != NL))
    ):
        raise Refused(errno.EINVAL)


def check_unlock_arguments(flags: int) -> None:
    """Refuse an UNLOCK or CANCEL that makes no sense: EINVAL (set_unlock_args)."""
    if flags & ~_UNLOCK_FLAGS or (flags & CANCEL and flags & FORCEUNLOCK):
        raise Refused(errno.EINVAL)


def check_conversion(lock: LockBlock, mode: int, flags: int) -> None:
    """Refuse a conversion that the lock's state forbids (validate_lock_args)."""
    if lock.status != GRANTED or lock.wait_type or lock.wait_count or lock.flags & OVERLAP:
        raise Refused(errno.EBUSY)
    if flags & QUECVT and not QUECVT_ALLOWED[lock.granted_mode][mode]:
        raise Refused(errno.EINVAL)


def accept_lock(lock: LockBlock, mode: int, flags: int, pid: int) -> None:
    """Take over what a LOCK that passed its checks says."""
    lock.exflags = flags
    lock.status_flags = 0
    lock.requested_mode = mode
    lock.value_attached = lock.value is not None
    lock.pid = pid


def check_unlock(state: State, lock: LockBlock, flags: int) -> None:
    """Refuse an unlock or cancel that the lock's state forbids (validate_unlock_args).

    EBUSY for CANCEL and FORCEUNLOCK means: done, or remembered; the caller says success.
    """
    if lock.flags & MASTER_COPY:
        raise Refused(errno.EINVAL)
    if lock.flags & ENDOFLIFE:
        raise Refused(errno.ENOENT)
    if lock.looking_up:
        if flags & (CANCEL | FORCEUNLOCK):
            lock.looking_up = False
            lock.resource.lookups.remove(lock)
            state.end(lock)
            queue_completion(state, lock, -ECANCEL if flags & CANCEL else -EUNLOCK)
        raise Refused(errno.EBUSY)
    if flags & CANCEL:
        _check_cancel(lock)
    elif flags & FORCEUNLOCK:
        _check_force_unlock(lock)
    elif lock.wait_type or lock.wait_count:
        raise Refused(errno.EBUSY)
    lock.exflags |= flags
    lock.status_flags = 0


_UNDER_WAY: Final = frozenset({MessageType.LOOKUP, MessageType.REQUEST})


def _check_cancel(lock: LockBlock) -> None:
    if lock.exflags & CANCEL or lock.flags & OVERLAP:
        raise Refused(errno.EINVAL)
    if lock.flags & RESEND:
        lock.flags |= OVERLAP_CANCEL
        raise Refused(errno.EBUSY)
    if lock.status == GRANTED and not lock.wait_type:
        raise Refused(errno.EBUSY)
    if lock.wait_type in _UNDER_WAY:
        lock.flags |= OVERLAP_CANCEL
        raise Refused(errno.EBUSY)
    if lock.wait_type in (MessageType.UNLOCK, MessageType.CANCEL):
        raise Refused(errno.EINVAL)


def _check_force_unlock(lock: LockBlock) -> None:
    if lock.exflags & FORCEUNLOCK or lock.flags & OVERLAP_UNLOCK:
        raise Refused(errno.EINVAL)
    if lock.flags & RESEND or lock.wait_type in _UNDER_WAY:
        lock.flags |= OVERLAP_UNLOCK
        raise Refused(errno.EBUSY)
    if lock.wait_type == MessageType.UNLOCK:
        raise Refused(errno.EINVAL)


# ---- where the master is ------------------------------------------------------------------------


def _set_master(state: State, resource: Resource, lock: LockBlock) -> bool:
    """Give a lock its master; False when that is being looked up first (set_master)."""
    if resource.flags & MASTER_UNCERTAIN:
        resource.flags &= ~MASTER_UNCERTAIN
        resource.first_lock_id = lock.lock_id
        lock.nodeid = resource.nodeid
        return True
    if resource.first_lock_id and resource.first_lock_id != lock.lock_id:
        resource.lookups.append(lock)
        lock.looking_up = True
        return False
    if resource.master == state.node:
        lock.nodeid = 0
        return True
    if resource.master:
        lock.nodeid = resource.master
        return True
    if resource.directory_node == state.node:
        resource.master = state.node
        resource.nodeid = 0
        lock.nodeid = 0
        return True
    resource.first_lock_id = lock.lock_id
    try:
        ask(state, resource, lock, MessageType.LOOKUP, resource.directory_node)
    except Refused:
        # Quirk: no kernel looks whether the lookup was sent, and the lock waits for ever.
        state.risk(LOOKUP_NOT_SENT, f"lock {lock.lock_id:x}")
        resource.first_lock_id = 0
        raise
    return False


def request_waiting_for_lookup(state: State, resource: Resource) -> None:
    """Request the locks that waited for this resource's lookup (process_lookup_list)."""
    waiting, resource.lookups = resource.lookups, []
    for lock in waiting:
        lock.looking_up = False
        with suppress(Refused):
            request(state, resource, lock)
        state.settle(lock)


def confirm_master(state: State, resource: Resource, error: int) -> None:
    """The first request was answered: the master is known, or not after all (confirm_master)."""
    if not resource.first_lock_id:
        return
    resource.first_lock_id = 0
    if error in (0, -errno.EINPROGRESS):
        request_waiting_for_lookup(state, resource)
    elif resource.lookups:
        lock = resource.lookups.pop(0)
        lock.looking_up = False
        resource.first_lock_id = lock.lock_id
        with suppress(Refused):
            request(state, resource, lock)
        state.settle(lock)


# ---- the operations -----------------------------------------------------------------------------


def request(state: State, resource: Resource, lock: LockBlock) -> int:
    """Request a new lock, here or of the master; 0 when the answer comes later (_request_lock)."""
    if not _set_master(state, resource, lock):
        return 0
    if resource.nodeid:
        ask(state, resource, lock, MessageType.REQUEST, resource.nodeid)
        return 0
    error = locking.do_request(state, resource, lock)
    if error:
        locking.request_effects(state, resource, lock, error)
        if error == -errno.EAGAIN:
            state.end(lock)
    return error


def convert(state: State, resource: Resource, lock: LockBlock) -> int:
    """Convert a lock, here or at the master (_convert_lock)."""
    if not resource.nodeid:
        error = locking.do_convert(state, resource, lock)
        locking.convert_effects(state, resource, lock, error)
        return error
    ask(state, resource, lock, MessageType.CONVERT, resource.nodeid)
    if is_down_conversion(lock.granted_mode, lock.requested_mode):
        # The master does not reply to these: they always succeed.
        stop_waiting(state, lock, MessageType.CONVERT_REPLY, result=0)
        locking.set_granted(state, resource, lock)
        queue_completion(state, lock, 0)
    return 0


def unlock(state: State, resource: Resource, lock: LockBlock) -> int:
    """Unlock, here or at the master (_unlock_lock)."""
    if resource.nodeid:
        ask(state, resource, lock, MessageType.UNLOCK, resource.nodeid)
        return 0
    error = locking.do_unlock(state, resource, lock)
    if resource.converting or resource.waiting:
        locking.grant_pending(state, resource)
    return error


def cancel(state: State, resource: Resource, lock: LockBlock) -> int:
    """Cancel, here or at the master (_cancel_lock)."""
    if resource.nodeid:
        ask(state, resource, lock, MessageType.CANCEL, resource.nodeid)
        return 0
    error = locking.do_cancel(state, resource, lock)
    if error:
        locking.grant_pending(state, resource)
    return error


def convert_lock(state: State, lock: LockBlock, mode: int, flags: int, pid: int) -> None:
    """Check and convert (convert_lock)."""
    check_conversion(lock, mode, flags)
    accept_lock(lock, mode, flags, pid)
    convert(state, lock.resource, lock)


def unlock_lock(state: State, lock: LockBlock, flags: int) -> None:
    """Check and unlock (unlock_lock)."""
    check_unlock(state, lock, flags)
    unlock(state, lock.resource, lock)


def cancel_lock(state: State, lock: LockBlock, flags: int) -> None:
    """Check and cancel (cancel_lock)."""
    check_unlock(state, lock, flags)
    cancel(state, lock.resource, lock)
