"""What a master decides: who is granted, who waits, who is told that it blocks.

Decides: grants, conversions, deadlock between conversions, value blocks, blocking ASTs.
May not know: who asked or from where; master copies and local locks are alike here.
Mirrors: set_lvb_lock() … do_cancel_effects() of fs/dlm/lock.c (Linux 6.1, equal up to 6.16).
"""

from __future__ import annotations

import errno

from dlm.core.blocks import (
    ALTCW,
    ALTPR,
    CONVDEADLK,
    CONVERTING,
    EXPEDITE,
    GRANTED,
    IVVALBLK,
    NODLCKWT,
    NOORDER,
    NOQUEUE,
    NOQUEUEBAST,
    QUECVT,
    RECOVER_GRANT,
    VALBLK,
    VALNOTVALID,
    WAITING,
    LockBlock,
    Resource,
)
from dlm.core.hazards import GRANTED_IN_PLACE
from dlm.core.messages import MessageType
from dlm.core.modes import COMPATIBLE, CW, EX, IV, NL, PR, PW, RETURNED, VALUE_MOVES, WRITTEN
from dlm.core.results import queue_blocking, queue_completion
from dlm.core.sending import make
from dlm.core.state import State, revert
from dlm.terms import ECANCEL, EUNLOCK, StatusFlag

DEMOTED = int(StatusFlag.DEMOTED)
NOT_VALID = int(StatusFlag.VALNOTVALID)
ALTMODE = int(StatusFlag.ALTMODE)

# ---- value blocks -------------------------------------------------------------------------------


def _write_value(resource: Resource, lock: LockBlock) -> None:
    resource.value = lock.value
    resource.value_sequence = (resource.value_sequence + 1) & 0xFFFFFFFF
    resource.flags &= ~VALNOTVALID


def _has_value(lock: LockBlock) -> bool:
    return lock.value_attached and lock.exflags & VALBLK != 0


def _move_value_on_grant(resource: Resource, lock: LockBlock) -> None:
    """set_lvb_lock(): where the way out is early, nothing says that the block is not valid."""
    move = VALUE_MOVES[lock.granted_mode][lock.requested_mode]
    if move == RETURNED:
        if resource.value is None or not _has_value(lock):
            return
        lock.value = resource.value
        lock.value_sequence = resource.value_sequence
    elif move == WRITTEN:
        if lock.exflags & IVVALBLK:
            resource.flags |= VALNOTVALID
            return
        if not _has_value(lock):
            return
        _write_value(resource, lock)
        lock.value_sequence = resource.value_sequence
    if resource.flags & VALNOTVALID:
        lock.status_flags |= NOT_VALID


def _move_value_on_unlock(resource: Resource, lock: LockBlock) -> None:
    """set_lvb_unlock()."""
    if lock.granted_mode < PW:
        return
    if lock.exflags & IVVALBLK:
        resource.flags |= VALNOTVALID
    elif _has_value(lock):
        _write_value(resource, lock)


# ---- grants -------------------------------------------------------------------------------------


def set_granted(state: State, resource: Resource, lock: LockBlock) -> None:
    """Give a lock the mode that it asked for (_grant_lock)."""
    if lock.status == CONVERTING and lock.granted_mode == lock.requested_mode:
        # Quirk: the lock stays on its queue, is looked at again asking for no mode, and "granted"
        # that, so that it completes twice.
        state.risk(GRANTED_IN_PLACE, f"lock {lock.lock_id:x}")
    elif lock.granted_mode != lock.requested_mode:
        lock.granted_mode = lock.requested_mode
        if lock.status:
            state.take_off(resource, lock)
        state.add(resource, lock, GRANTED)
    lock.requested_mode = IV
    lock.highest_blocked = 0


def _grant(state: State, resource: Resource, lock: LockBlock) -> None:
    _move_value_on_grant(resource, lock)
    set_granted(state, resource, lock)


def _grant_queued(state: State, resource: Resource, lock: LockBlock) -> None:
    """Grant a lock from a queue: its holder hears of it by itself (grant_lock_pending)."""
    _grant(state, resource, lock)
    if lock.is_master_copy:
        state.send(lock.nodeid, make(resource, lock, MessageType.GRANT))
    else:
        queue_completion(state, lock, 0)


def _conflicts(queue: list[LockBlock], lock: LockBlock) -> bool:
    compatible = COMPATIBLE[lock.requested_mode]
    for other in queue:  # noqa: SIM110 - any() of a generator costs twice as much
        if not compatible[other.granted_mode] and other is not lock:
            return True
    return False


def _passes(resource: Resource, lock: LockBlock, now: bool, recovering: bool) -> bool:
    """Say whether a lock can be granted in the mode that it asks for (_can_be_granted).

    ``now``: it asks for the first time; else it is looked at again in its queue.
    """
    converts = lock.granted_mode != IV
    flags = lock.exflags
    if flags & EXPEDITE:
        return True
    if resource.granted and _conflicts(resource.granted, lock):
        return False
    if resource.converting and _conflicts(resource.converting, lock):
        return False
    if converts and recovering:
        # The queues were rebuilt in any order: order means nothing for conversions now.
        return True
    if now and converts:
        return not flags & QUECVT or not resource.converting
    if flags & NOORDER:
        return True
    if converts:
        return resource.converting[0] is lock
    if now:
        return not resource.converting and not resource.waiting
    return not resource.converting and resource.waiting[0] is lock


def _is_deadlocked(resource: Resource, lock: LockBlock) -> bool:
    """Say whether a conversion would deadlock with another one (conversion_deadlock_detect)."""
    ahead = True
    for other in resource.converting:
        if other is lock:
            ahead = False
            continue
        blocks_it = not COMPATIBLE[lock.granted_mode][other.requested_mode]
        if blocks_it and (ahead or not COMPATIBLE[other.granted_mode][lock.requested_mode]):
            return True
    return False


def _can_be_granted(
    resource: Resource, lock: LockBlock, now: bool, recovering: bool = False
) -> tuple[bool, bool]:
    """Return whether a lock can be granted, and whether it is a deadlocked conversion.

    May lower the granted mode (CONVDEADLK) or change the requested one (ALTPR, ALTCW).
    """
    if _passes(resource, lock, now, recovering):
        return True, False
    flags = lock.exflags
    if lock.granted_mode != IV and not flags & NOQUEUE and _is_deadlocked(resource, lock):
        if flags & CONVDEADLK:
            lock.granted_mode = NL
            lock.status_flags |= DEMOTED
            return False, False
        return False, True
    wanted = lock.requested_mode
    alternative = IV
    if wanted != PR and flags & ALTPR:
        alternative = PR
    elif wanted != CW and flags & ALTCW:
        alternative = CW
    if alternative != IV:
        lock.requested_mode = alternative
        if _passes(resource, lock, now, False):
            lock.status_flags |= ALTMODE
            return True, False
        lock.requested_mode = wanted
    return False, False


# ---- the pass over the queues -------------------------------------------------------------------


def _pass_conversions(state: State, resource: Resource) -> tuple[int, bool, int]:
    """Grant what can be of the conversions; return (highest mode still asked for, CW?, grants)."""
    recovering = bool(resource.flags & RECOVER_GRANT)
    grants = 0
    demotions_left = 1
    cw = False
    while True:
        high, again, demoted_again = IV, False, False
        for lock in list(resource.converting):
            if lock.status != CONVERTING:
                continue
            demoted = lock.status_flags & DEMOTED
            granted, deadlocked = _can_be_granted(resource, lock, False, recovering)
            if granted:
                _grant_queued(state, resource, lock)
                again = True
                grants += 1
                continue
            if not demoted and lock.status_flags & DEMOTED:
                demoted_again = True
                continue
            if deadlocked:
                if lock.exflags & NODLCKWT and lock.highest_blocked < lock.requested_mode:
                    tell_blocking(state, resource, lock, lock.requested_mode)
                    lock.highest_blocked = lock.requested_mode
                continue
            high = max(high, lock.requested_mode)
            cw = cw or lock.requested_mode == CW
        if again:
            continue
        if demoted_again and demotions_left:
            demotions_left -= 1
            continue
        return high, cw, grants


def _pass_requests(state: State, resource: Resource, high: int, cw: bool) -> tuple[int, bool, int]:
    grants = 0
    for lock in list(resource.waiting):
        if _can_be_granted(resource, lock, False)[0]:
            _grant_queued(state, resource, lock)
            grants += 1
        else:
            high = max(high, lock.requested_mode)
            cw = cw or lock.requested_mode == CW
    return high, cw, grants


def grant_pending(state: State, resource: Resource) -> int:
    """Grant what can be granted from the queues, and tell who blocks the rest.

    Returns the number of grants (grant_pending_locks).
    """
    if not (resource.converting or resource.waiting):
        return 0
    high, cw, converted = _pass_conversions(state, resource)
    high, cw, requested = _pass_requests(state, resource, high, cw)
    if high != IV:
        for lock in list(resource.granted):
            if not lock.has_blocking or not _blocks(lock, high, cw):
                continue
            inverted = cw and high == PR and lock.granted_mode == PR
            tell_blocking(state, resource, lock, CW if inverted else high)
            lock.highest_blocked = high
    return converted + requested


# ---- blocking ASTs ------------------------------------------------------------------------------


def _blocks(lock: LockBlock, high: int, cw: bool) -> bool:
    """lock_requires_bast()."""
    if lock.granted_mode == PR and cw:
        return lock.highest_blocked < EX
    return lock.highest_blocked < high and not COMPATIBLE[lock.granted_mode][high]


def tell_blocking(state: State, resource: Resource, lock: LockBlock, mode: int) -> None:
    """Tell a lock's holder that it blocks a request for a mode (queue_bast)."""
    if lock.is_master_copy:
        state.send(lock.nodeid, make(resource, lock, MessageType.BAST, blocked_mode=mode))
    else:
        queue_blocking(state, lock, mode)


def _tell_blockers(
    state: State, resource: Resource, queue: list[LockBlock], lock: LockBlock
) -> None:
    wanted = lock.requested_mode
    for other in list(queue):
        if other is lock or not other.has_blocking:
            continue
        if {other.granted_mode, wanted} == {PR, CW}:
            told = other.highest_blocked < EX
        else:
            told = other.highest_blocked < wanted and not COMPATIBLE[other.granted_mode][wanted]
        if told:
            tell_blocking(state, resource, other, wanted)
            other.highest_blocked = wanted


def request_effects(state: State, resource: Resource, lock: LockBlock, error: int) -> None:
    """Tell those who block a request that was queued, or refused with NOQUEUEBAST."""
    if error == -errno.EINPROGRESS:
        _tell_blockers(state, resource, resource.granted, lock)
    elif error == -errno.EAGAIN and lock.exflags & NOQUEUEBAST:
        _tell_blockers(state, resource, resource.granted, lock)
        _tell_blockers(state, resource, resource.converting, lock)


# ---- the four operations, at the master ---------------------------------------------------------
# Each has its effects on others apart: a remote requester's reply is sent in between.


def do_request(state: State, resource: Resource, lock: LockBlock) -> int:
    """Grant, queue or refuse a new lock: 0, -EINPROGRESS or -EAGAIN."""
    if _can_be_granted(resource, lock, True)[0]:
        _grant(state, resource, lock)
        queue_completion(state, lock, 0)
        return 0
    if not lock.exflags & NOQUEUE:
        state.add(resource, lock, WAITING)
        return -errno.EINPROGRESS
    queue_completion(state, lock, -errno.EAGAIN)
    return -errno.EAGAIN


def do_convert(state: State, resource: Resource, lock: LockBlock) -> int:
    """Convert a lock: 0, -EINPROGRESS, -EAGAIN or -EDEADLK."""
    granted, deadlocked = _can_be_granted(resource, lock, True)
    if granted:
        _grant(state, resource, lock)
        queue_completion(state, lock, 0)
        return 0
    if deadlocked and not lock.exflags & NODLCKWT:
        revert(state, resource, lock)
        queue_completion(state, lock, -errno.EDEADLK)
        return -errno.EDEADLK
    if lock.status_flags & DEMOTED:
        # Its own mode is NL now, which may let other conversions through, and then this one.
        _pass_conversions(state, resource)
        if _passes(resource, lock, True, False):
            _grant(state, resource, lock)
            queue_completion(state, lock, 0)
            return 0
    if not lock.exflags & NOQUEUE:
        state.move(resource, lock, CONVERTING)
        return -errno.EINPROGRESS
    queue_completion(state, lock, -errno.EAGAIN)
    return -errno.EAGAIN


def convert_effects(state: State, resource: Resource, lock: LockBlock, error: int) -> None:
    """What a conversion does to others."""
    if not error:
        grant_pending(state, resource)
    else:
        request_effects(state, resource, lock, error)


def end_lock(state: State, resource: Resource, lock: LockBlock) -> None:
    """Take a lock off its queue for good (_remove_lock)."""
    state.take_off(resource, lock)
    lock.granted_mode = IV
    state.end(lock)


def do_unlock(state: State, resource: Resource, lock: LockBlock) -> int:
    """Unlock; always -DLM_EUNLOCK."""
    _move_value_on_unlock(resource, lock)
    end_lock(state, resource, lock)
    queue_completion(state, lock, -EUNLOCK)
    return -EUNLOCK


def do_cancel(state: State, resource: Resource, lock: LockBlock) -> int:
    """Cancel: -DLM_ECANCEL, or 0 when there was nothing to cancel."""
    if revert(state, resource, lock):
        queue_completion(state, lock, -ECANCEL)
        return -ECANCEL
    return 0
