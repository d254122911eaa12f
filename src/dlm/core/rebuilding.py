"""What recovery does to locks and resources: purged, remastered, rebuilt, made whole.

Decides: which locks go with a node that has gone, who becomes a resource's new master, what
becomes of operations that were under way, what a value block is worth afterwards.
May not know: when each of these is done (recovery.py); how messages travel.
Mirrors: fs/dlm/recover.c and the recovery half of fs/dlm/lock.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace

from dlm.core import operations
from dlm.core.blocks import (
    CONVERTING,
    FORCEUNLOCK,
    MASTER_COPY,
    NEW_MASTER,
    NEW_MASTER2,
    OVERLAP,
    OVERLAP_CANCEL,
    OVERLAP_UNLOCK,
    RECOVER_CONVERT,
    RECOVER_GRANT,
    RECOVER_LVB_INVAL,
    RESEND,
    SHARED_FLAGS,
    VALBLK,
    VALNOTVALID,
    LockBlock,
    Resource,
)
from dlm.core.directory import Why, find
from dlm.core.events import NO_VALUE
from dlm.core.hazards import LOOKUP_GIVEN_UP, OVERLAP_FORGOTTEN, VALUE_WITHOUT_BUFFER
from dlm.core.locking import grant_pending
from dlm.core.messages import MessageType, RebuiltLock
from dlm.core.modes import CR, CW, IV, NL, PR, PW, is_middle_conversion
from dlm.core.receiving import finish_cancel, finish_unlock, queue_converting
from dlm.core.results import queue_completion
from dlm.core.state import Refused, State, queued_locks
from dlm.terms import ECANCEL, EUNLOCK, LockStatus

# ---- operations under way when their master went ------------------------------------------------


def settle_waiters(state: State) -> None:
    """Before locks are rebuilt: end what a gone node will never answer (recover_waiters_pre).

    Unlocks and cancels are taken as done; requests, up-conversions and every lookup are marked to
    be sent again.
    """
    for lock in state.walk_waiters():
        if lock.wait_type == MessageType.LOOKUP:
            lock.flags |= RESEND
            continue
        if not (state.no_directory or state.is_gone(lock.wait_nodeid)):
            continue
        _settle_waiter(state, lock)


def _settle_waiter(state: State, lock: LockBlock) -> None:
    kind = lock.wait_type
    unlocked, cancelled = -EUNLOCK, -ECANCEL
    if not kind:
        # The operation was answered, the cancel or unlock that overlapped it was not.
        if lock.flags & OVERLAP_CANCEL:
            kind = MessageType.CANCEL
            if lock.granted_mode == IV:
                cancelled = 0
        if lock.flags & OVERLAP_UNLOCK:
            kind = MessageType.UNLOCK
            if lock.granted_mode == IV:
                unlocked = -errno.ENOENT
    if kind == MessageType.REQUEST:
        lock.flags |= RESEND
    elif kind == MessageType.CONVERT:
        _settle_conversion(state, lock)
    elif kind == MessageType.UNLOCK:
        finish_unlock(state, lock, unlocked)
    elif kind == MessageType.CANCEL:
        finish_cancel(state, lock, cancelled)
        if lock.flags & OVERLAP_UNLOCK and lock.wait_count:
            # Quirk: every kernel forgets the unlock that overlapped the cancel.
            state.risk(OVERLAP_FORGOTTEN, f"lock {lock.lock_id:x}")
            _settle_waiter(state, lock)


def _settle_conversion(state: State, lock: LockBlock) -> None:
    middle = is_middle_conversion(lock.granted_mode, lock.requested_mode)
    if middle and state.profile.guesses_middle_conversions:
        queue_converting(state, lock)
        if lock.flags & OVERLAP:
            # Quirk: a 6.1 kernel forgets the cancel or unlock that overlapped such a conversion, so
            # that the lock of a file that was closed stays for ever.
            state.risk(OVERLAP_FORGOTTEN, f"lock {lock.lock_id:x}")
            _settle_waiter(state, lock)
            return
        # Whether PR or CW was granted cannot be known before all locks are rebuilt.
        lock.granted_mode = IV
        lock.resource.flags |= RECOVER_CONVERT
    elif middle or lock.requested_mode >= lock.granted_mode:
        lock.flags |= RESEND


def repeat_waiters(state: State) -> None:
    """After locking is on again: do what was marked to be sent again (recover_waiters_post)."""
    for lock in state.walk_waiters():
        if not lock.flags & RESEND or lock.freed:
            continue
        kind, overlap = lock.wait_type, lock.flags & OVERLAP
        lock.flags &= ~(RESEND | OVERLAP)
        lock.wait_type = 0
        lock.wait_count = 0
        state.forget_wait(lock)
        if overlap:
            _end_instead(state, lock, kind, overlap)
        else:
            with suppress(Refused):
                _repeat(state, lock, kind)
        state.settle(lock)


def _repeat(state: State, lock: LockBlock, kind: int) -> None:
    if kind == MessageType.CONVERT:
        operations.convert(state, lock.resource, lock)
        return
    operations.request(state, lock.resource, lock)
    if lock.resource.is_master:
        operations.confirm_master(state, lock.resource, 0)


def _end_instead(state: State, lock: LockBlock, kind: int, overlap: int) -> None:
    """A cancel or unlock was remembered: do that and do not send the operation again."""
    if kind != MessageType.CONVERT:
        state.end(lock)
        queue_completion(state, lock, -EUNLOCK if overlap & OVERLAP_UNLOCK else -ECANCEL)
        if lock.resource.first_lock_id == lock.lock_id:
            # Quirk: every kernel forgets those that wait for this lock's lookup: they and all that
            # come while the resource lives hang. Let the next one go on instead.
            if lock.resource.lookups:
                state.risk(LOOKUP_GIVEN_UP, f"lock {lock.lock_id:x}")
            operations.confirm_master(state, lock.resource, -errno.EAGAIN)
            if lock.resource.is_master:
                operations.confirm_master(state, lock.resource, 0)
    elif overlap & OVERLAP_CANCEL:
        # Quirk: an unlock that was remembered as well is lost (6.1).
        queue_completion(state, lock, -ECANCEL)
    else:
        lock.exflags |= FORCEUNLOCK
        operations.unlock(state, lock.resource, lock)


# ---- locks of nodes that are gone ---------------------------------------------------------------


def purge_gone(state: State, root: list[Resource]) -> None:
    """Drop the locks of gone nodes from the resources that we master (dlm_recover_purge)."""
    if not state.gone:
        return
    count = 0
    for resource in root:
        if not resource.is_master:
            continue
        for lock in list(queued_locks(resource)):
            if not lock.is_master_copy or not state.is_gone(lock.nodeid):
                continue
            if lock.exflags & VALBLK and lock.granted_mode >= PW:
                resource.flags |= RECOVER_LVB_INVAL
            resource.flags |= RECOVER_GRANT
            drop_master_copy(state, resource, lock)
            count += 1
    if count:
        state.log(f"dlm_recover_purge {count} locks for {len(state.gone)} nodes")


def drop_master_copy(state: State, resource: Resource, lock: LockBlock) -> None:
    """Forget a master copy without a word to anybody."""
    state.take_off(resource, lock)
    state.end(lock)
    state.settle(lock)


# ---- new masters --------------------------------------------------------------------------------


def set_new_master(resource: Resource) -> None:
    """The resource has a new master: so do our locks on it (set_new_master)."""
    for lock in queued_locks(resource):
        if not lock.is_master_copy:
            lock.nodeid = resource.nodeid
            lock.remote_id = 0
    resource.flags |= NEW_MASTER | NEW_MASTER2


def find_new_master(state: State, resource: Resource) -> int | None:
    """Give a resource whose master is gone a new one (recover_master).

    Returns the directory node that must be asked first, None when nobody need be.
    """
    if resource.is_master:
        return None
    gone = state.is_gone(resource.nodeid)
    if not gone and not resource.flags & NEW_MASTER:
        return None
    if resource.directory_node != state.node:
        return resource.directory_node
    if gone:
        resource.master = state.node
        resource.nodeid = 0
    set_new_master(resource)
    return None


def set_static_master(state: State, resource: Resource) -> None:
    """Without a directory the name's hash gives the master (recover_master_static)."""
    for lock in list(queued_locks(resource)):
        if lock.is_master_copy and _is_stale(state, lock):
            drop_master_copy(state, resource, lock)
    resource.master = resource.directory_node
    resource.nodeid = 0 if resource.master == state.node else resource.master
    set_new_master(resource)


def master_found(state: State, resource: Resource, master: int) -> None:
    """The directory node has answered who the new master is (dlm_recover_master_reply)."""
    resource.master = master
    resource.nodeid = 0 if master == state.node else master
    set_new_master(resource)


# ---- locks sent to their new master -------------------------------------------------------------


def pack(resource: Resource, lock: LockBlock) -> RebuiltLock:
    """Return a lock as its new master needs it (pack_rcom_lock)."""
    return RebuiltLock(
        pid=lock.pid,
        lock_id=lock.lock_id,
        remote_id=0,
        exflags=lock.exflags,
        lock_flags=lock.flags,
        value_sequence=lock.value_sequence,
        result=0,
        requested_mode=lock.requested_mode,
        granted_mode=lock.granted_mode,
        status=int(lock.status),
        wants_completion=True,
        wants_blocking=lock.has_blocking,
        wait_type=lock.wait_type,
        name=resource.name,
        value=lock.value if lock.value_attached else None,
    )


def with_answer(rebuilt: RebuiltLock, remote_id: int, result: int) -> RebuiltLock:
    """Return a lock as its new master answers it: with its own id of it, or an error."""
    return replace(rebuilt, remote_id=remote_id, result=result, value=None)


def rebuild(state: State, source: int, rebuilt: RebuiltLock) -> tuple[int, int]:
    """Take another node's lock on a resource that we master now (dlm_recover_master_copy).

    Returns our id of it and 0, -EEXIST or -EBADR.
    """
    try:
        resource = find(state, rebuilt.name, Why.RECOVERY, source)
    except Refused as refusal:
        return 0, -refusal.number
    if state.no_directory and resource.directory_node != state.node:
        state.put(resource)
        return 0, -errno.EBADR
    known = _find_copy(resource, source, rebuilt.lock_id)
    if known is not None and (not _is_stale(state, known) or _agrees(known, rebuilt)):
        known.recover_sequence = state.recover_sequence
        return known.lock_id, -errno.EEXIST
    lock = state.locks.create(resource)
    if known is not None:
        drop_master_copy(state, resource, known)
    lock.nodeid = source
    lock.pid = rebuilt.pid
    lock.remote_id = rebuilt.lock_id
    lock.exflags = rebuilt.exflags
    lock.flags = (rebuilt.lock_flags & SHARED_FLAGS) | MASTER_COPY
    lock.value_sequence = rebuilt.value_sequence
    lock.requested_mode = rebuilt.requested_mode
    lock.granted_mode = rebuilt.granted_mode
    lock.has_blocking = rebuilt.wants_blocking
    if lock.exflags & VALBLK:
        lock.value = rebuilt.value or NO_VALUE
        lock.value_attached = True
    status = LockStatus(rebuilt.status)
    if is_middle_conversion(lock.granted_mode, lock.requested_mode):
        # Linux 7.2 fs/dlm/lock.c, receive_rcom_lock_args(): only one that was queued is looked at
        # again; one under way is sent again. Up to 6.12 the mode of the latter is guessed.
        if not state.profile.guesses_middle_conversions:
            if status == CONVERTING:
                resource.flags |= RECOVER_CONVERT
        elif rebuilt.wait_type == MessageType.CONVERT:
            status = CONVERTING
            lock.granted_mode = IV
            resource.flags |= RECOVER_CONVERT
    state.add(resource, lock, status)
    if resource.waiting or resource.converting:
        resource.flags |= RECOVER_GRANT
    lock.recover_sequence = state.recover_sequence
    return lock.lock_id, 0


def _find_copy(resource: Resource, source: int, remote_id: int) -> LockBlock | None:
    for lock in queued_locks(resource):
        if lock.nodeid == source and lock.remote_id == remote_id:
            return lock
    return None


def _is_stale(state: State, copy: LockBlock) -> bool:
    return state.no_directory and copy.recover_sequence != state.recover_sequence


def _agrees(copy: LockBlock, rebuilt: RebuiltLock) -> bool:
    # Quirk: without a directory a kernel drops the copies of before only when it comes to the
    # resource itself, and keeps those whose lock was sent before that, as the lowest node's are:
    # their ids and their places on the queues stay. It keeps those too that do not agree any more:
    # then a grant that was dropped with all saved messages is lost.
    there = (rebuilt.status, rebuilt.granted_mode, rebuilt.requested_mode)
    return (int(copy.status), copy.granted_mode, copy.requested_mode) == there


# ---- resources made whole -----------------------------------------------------------------------


def finish_resources(state: State, root: list[Resource]) -> None:
    """Now that all locks are here: conversions, value blocks, grants to try (dlm_recover_rsbs)."""
    count = 0
    for resource in root:
        if resource.is_master:
            if resource.flags & RECOVER_CONVERT:
                _finish_conversions(state, resource)
            _finish_value(state, resource)
            if resource.flags & NEW_MASTER2 and (resource.waiting or resource.converting):
                resource.flags |= RECOVER_GRANT
            count += 1
        else:
            resource.flags &= ~VALNOTVALID
        resource.flags &= ~(RECOVER_CONVERT | RECOVER_LVB_INVAL | NEW_MASTER2)
    if count:
        state.log(f"dlm_recover_rsbs {count} done")


def _finish_conversions(state: State, resource: Resource) -> None:
    """Settle what PR-CW conversions had, whose master went while they were under way."""
    held = next((lock.granted_mode for lock in resource.granted if _is_middle(lock)), IV)
    for lock in resource.converting:
        if state.profile.guesses_middle_conversions:
            # Linux 6.1 fs/dlm/recover.c, recover_conversion()
            if lock.granted_mode == IV:
                lock.granted_mode = lock.requested_mode if held == IV else held
        elif _is_middle(lock) and any(
            _is_middle(other) and other.granted_mode != lock.granted_mode
            for other in resource.granted
        ):
            # Since 6.13 the mode is kept, unless the opposite one is held.
            lock.granted_mode = NL


def _is_middle(lock: LockBlock) -> bool:
    return lock.granted_mode in (PR, CW)


def _finish_value(state: State, resource: Resource) -> None:
    """Say what the value block is, and whether it is valid (recover_lvb)."""
    if not resource.flags & NEW_MASTER2:
        if resource.flags & RECOVER_LVB_INVAL:
            resource.flags |= VALNOTVALID
        return
    high: LockBlock | None = None
    high_sequence = 0
    found = False
    for lock in (*resource.granted, *resource.converting):
        if not lock.exflags & VALBLK:
            continue
        found = True
        if lock.granted_mode > CR:
            resource.value = _value_of(state, lock)
            resource.value_sequence = lock.value_sequence
            return
        if not (lock.value_sequence - high_sequence) & 0x80000000:  # not before: it goes round
            high, high_sequence = lock, lock.value_sequence
    if not found:
        return
    resource.flags |= VALNOTVALID
    resource.value = NO_VALUE if high is None else _value_of(state, high)
    resource.value_sequence = high_sequence


def _value_of(state: State, lock: LockBlock) -> bytes:
    if lock.value is None:  # an adoption takes VALBLK among its flags, and makes no buffer
        state.risk(VALUE_WITHOUT_BUFFER, f"lock {lock.lock_id:x}")
    return lock.value or NO_VALUE


def grant_recovered(state: State) -> None:
    """Grant what the losses have set free (dlm_recover_grant)."""
    resources = locks = 0
    for resource in state.resources.walk():
        if not resource.flags & RECOVER_GRANT:
            continue
        if resource.is_master:
            resources += 1
            locks += grant_pending(state, resource)
        resource.flags &= ~RECOVER_GRANT
        if resource.is_master:
            operations.confirm_master(state, resource, 0)
    if locks:
        state.log(f"dlm_recover_grant {locks} locks on {resources} resources")
