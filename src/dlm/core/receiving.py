"""What a node does with the messages about locks that others send it.

Decides: how a master serves requests of other nodes, how a process copy follows its master, how a
directory node answers.
May not know: how messages come; recovery.
Mirrors: receive_flags() … _receive_message() of fs/dlm/lock.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from dlm.core import locking, operations
from dlm.core.blocks import (
    ALTPR,
    CONVERTING,
    GRANTED,
    MASTER_COPY,
    ORPHAN,
    OVERLAP,
    OVERLAP_CANCEL,
    OVERLAP_UNLOCK,
    SHARED_FLAGS,
    VALBLK,
    WAITING,
    LockBlock,
    Resource,
)
from dlm.core.directory import Why, check_master, find, forget_entry, look_up
from dlm.core.events import NO_VALUE
from dlm.core.hazards import (
    ALTERNATIVE_MODE,
    LOOKUP_GIVEN_UP,
    ORPHAN_FORGOTTEN,
    REFUSED_ELSEWHERE,
)
from dlm.core.locking import ALTMODE, DEMOTED
from dlm.core.messages import LockMessage, MessageType
from dlm.core.modes import CW, IV, NL, PR, RETURNED, VALUE_MOVES, hash_name, is_down_conversion
from dlm.core.results import queue_blocking, queue_completion
from dlm.core.sending import answer, answer_unknown, ask, stop_waiting
from dlm.core.state import Refused, State, revert
from dlm.core.users import purge_orphans
from dlm.terms import ECANCEL, EUNLOCK

T = MessageType

# ---- taking over what a message says ------------------------------------------------------------


def _take_flags(state: State, lock: LockBlock, message: LockMessage) -> None:
    lock.status_flags = message.status_flags
    # Quirk: when a grant crosses its owner's close, every kernel forgets that the lock is an orphan
    # (and reports the grant to a file that is no more). It is its own node that knows this.
    if lock.flags & ORPHAN and not (message.lock_flags & ORPHAN or lock.is_master_copy):
        state.risk(ORPHAN_FORGOTTEN, f"lock {lock.lock_id:x}")
    taken = SHARED_FLAGS if lock.is_master_copy else SHARED_FLAGS & ~ORPHAN
    lock.flags = (lock.flags & ~taken) | (message.lock_flags & taken)


def _take_value(lock: LockBlock, message: LockMessage) -> None:
    """The value block of a master copy; made here when the requester has none (receive_lvb)."""
    if lock.exflags & VALBLK:
        lock.value = message.value or lock.value or NO_VALUE
        lock.value_attached = True


def _find_lock(state: State, message: LockMessage) -> LockBlock:
    lock = state.locks.locks.get(message.remote_id)
    if lock is None:
        raise Refused(errno.ENOENT)
    return lock


def _find_master_copy(state: State, source: int, message: LockMessage) -> LockBlock:
    lock = _find_lock(state, message)
    if lock.remote_id != message.lock_id:
        raise Refused(errno.ENOENT)
    return _check(state, lock, lock.is_master_copy and lock.nodeid == source, message)


def _find_process_copy(state: State, source: int, message: LockMessage) -> LockBlock:
    lock = _find_lock(state, message)
    return _check(state, lock, lock.is_process_copy and lock.nodeid == source, message)


class _Ignored(Exception):
    """A message that does not fit its lock; the kernel logs it and goes on."""


def _check(state: State, lock: LockBlock, fits: bool, message: LockMessage) -> LockBlock:
    if not fits:
        state.log(f"ignore invalid message {int(message.type)} {lock.lock_id:x} {lock.flags:x}")
        raise _Ignored
    return lock


# ---- messages to a master -----------------------------------------------------------------------


def _request(state: State, source: int, message: LockMessage) -> None:
    try:
        resource = find(state, message.name, Why.REQUEST, source)
        try:
            check_master(state, resource, source)
        except Refused:
            state.put(resource)
            raise
    except Refused as refusal:
        if refusal.number == errno.EBADR:
            # Our directory node takes us for the master still: tell it again that we are not.
            _repeat_remove(state, message.name)
        answer_unknown(state, source, message, T.REQUEST_REPLY, -refusal.number)
        return
    lock = state.locks.create(resource)
    lock.exflags = message.exflags
    _take_flags(state, lock, message)
    lock.flags |= MASTER_COPY
    lock.nodeid = source
    lock.pid = message.pid
    lock.remote_id = message.lock_id
    lock.requested_mode = message.requested_mode
    lock.has_blocking = message.wants_blocking
    if lock.exflags & VALBLK:
        lock.value = NO_VALUE
        lock.value_attached = True
    error = locking.do_request(state, resource, lock)
    answer(state, resource, lock, T.REQUEST_REPLY, error)
    locking.request_effects(state, resource, lock, error)
    if error == -errno.EAGAIN:
        state.end(lock)
        state.settle(lock)


def _repeat_remove(state: State, name: bytes) -> None:
    key = state.resources.key(name)
    if key in state.resources.in_use or key in state.resources.tossed:
        return
    hashed = hash_name(name)
    directory = state.directory_node(hashed)
    if directory != state.node:
        state.send(directory, LockMessage(T.REMOVE, hash=hashed, name=name))


def _convert(state: State, source: int, message: LockMessage) -> None:
    try:
        lock = _find_master_copy(state, source, message)
    except Refused as refusal:
        answer_unknown(state, source, message, T.CONVERT_REPLY, -refusal.number)
        return
    resource = lock.resource
    lock.exflags = message.exflags
    _take_flags(state, lock, message)
    if lock.status != GRANTED:
        answer(state, resource, lock, T.CONVERT_REPLY, -errno.EBUSY)
        return
    _take_value(lock, message)
    lock.requested_mode = message.requested_mode
    lock.value_sequence = message.value_sequence
    silent = is_down_conversion(lock.granted_mode, lock.requested_mode)
    error = locking.do_convert(state, resource, lock)
    if not silent:
        answer(state, resource, lock, T.CONVERT_REPLY, error)
    locking.convert_effects(state, resource, lock, error)


def _unlock(state: State, source: int, message: LockMessage) -> None:
    try:
        lock = _find_master_copy(state, source, message)
    except Refused as refusal:
        answer_unknown(state, source, message, T.UNLOCK_REPLY, -refusal.number)
        return
    resource = lock.resource
    lock.exflags = message.exflags
    _take_flags(state, lock, message)
    _take_value(lock, message)
    error = locking.do_unlock(state, resource, lock)
    answer(state, resource, lock, T.UNLOCK_REPLY, error)
    locking.grant_pending(state, resource)
    state.settle(lock)


def _cancel(state: State, source: int, message: LockMessage) -> None:
    try:
        lock = _find_lock(state, message)
    except Refused as refusal:
        answer_unknown(state, source, message, T.CANCEL_REPLY, -refusal.number)
        return
    _check(state, lock, lock.is_master_copy and lock.nodeid == source, message)
    lock.exflags = message.exflags
    _take_flags(state, lock, message)
    resource = lock.resource
    error = locking.do_cancel(state, resource, lock)
    answer(state, resource, lock, T.CANCEL_REPLY, error)
    if error:
        locking.grant_pending(state, resource)
    state.settle(lock)


# ---- messages from a master ---------------------------------------------------------------------


def _apply_demotion(lock: LockBlock) -> None:
    """The master lowered our granted mode to NL (munge_demoted)."""
    if lock.status_flags & DEMOTED and IV not in (lock.requested_mode, lock.granted_mode):
        lock.granted_mode = NL


def _grant_process_copy(state: State, lock: LockBlock, message: LockMessage) -> None:
    """The lock is granted there, so it is granted here (munge_altmode, grant_lock_pc)."""
    if lock.status_flags & ALTMODE:
        # Quirk: every kernel forgets this for conversions, and with both flags always takes PR. Its
        # process copy then has the mode asked for: the next conversion may be a downward one here,
        # done at once, and wait at the master (seen on 6.1 and 7.2 guests), whose reply is taken
        # for an UNLOCK's if that is under way by then.
        if message.type is T.CONVERT_REPLY:
            taken = lock.requested_mode
        else:
            taken = lock.requested_mode = PR if lock.exflags & ALTPR else CW
        if message.type is T.CONVERT_REPLY or taken != message.granted_mode:
            state.risk(ALTERNATIVE_MODE, f"lock {lock.lock_id:x}")
            state.diverged.add(lock.resource.key)
    if (
        lock.value_attached
        and lock.exflags & VALBLK
        and VALUE_MOVES[lock.granted_mode][lock.requested_mode] == RETURNED
    ):
        if message.value is not None:
            lock.value = message.value
        lock.value_sequence = message.value_sequence
    locking.set_granted(state, lock.resource, lock)


def _request_reply(state: State, source: int, message: LockMessage) -> None:
    lock = _find_lock(state, message)
    _check(state, lock, lock.is_process_copy and lock.nodeid in (-1, source), message)
    waited_for = lock.wait_type
    if message.result == -errno.EAGAIN and waited_for:
        # Quirk: since 6.10 nothing keeps the lock for dlm_user_request(), which may still run.
        state.risk(REFUSED_ELSEWHERE, f"lock {lock.lock_id:x}")
    if not stop_waiting(state, lock, T.REQUEST_REPLY):
        return
    resource = lock.resource
    if waited_for == T.LOOKUP:
        # The directory node was the master and took our lookup for a request.
        resource.master = resource.nodeid = lock.nodeid = source
    result = message.result
    if result == -errno.EAGAIN:
        queue_completion(state, lock, -errno.EAGAIN)
        operations.confirm_master(state, resource, -errno.EAGAIN)
        state.end(lock)
    elif result in (0, -errno.EINPROGRESS):
        _take_flags(state, lock, message)
        lock.remote_id = message.lock_id
        if result:
            state.add(resource, lock, WAITING)
        else:
            _grant_process_copy(state, lock, message)
            queue_completion(state, lock, 0)
        operations.confirm_master(state, resource, result)
    elif result in (-errno.EBADR, -errno.ENOTBLK):
        _request_again(state, resource, lock)
    _send_overlap(state, resource, lock, result)
    state.settle(lock)


def _request_again(state: State, resource: Resource, lock: LockBlock) -> None:
    """The node that we asked is not the master: look it up anew."""
    if state.node not in (resource.directory_node, resource.master):
        resource.master = 0
        resource.nodeid = -1
        lock.nodeid = -1
    if lock.flags & OVERLAP:
        _give_up(state, resource, lock)
        return
    operations.request(state, resource, lock)
    if resource.master == state.node:
        operations.confirm_master(state, resource, 0)


def _give_up(state: State, resource: Resource, lock: LockBlock) -> None:
    """End a request for which a cancel or unlock was remembered; the next one goes on.

    Quirk: when a lookup is given up and another node is the master, every kernel forgets the locks
    that wait for it: they and all that come while the resource lives hang.
    """
    queue_completion(state, lock, -EUNLOCK if lock.flags & OVERLAP_UNLOCK else -ECANCEL)
    operations.confirm_master(state, resource, -errno.EAGAIN)
    state.end(lock)


def _send_overlap(state: State, resource: Resource, lock: LockBlock, result: int) -> None:
    """Send the cancel or unlock that was remembered while the request was under way."""
    flags = lock.flags
    lock.flags &= ~OVERLAP
    if flags & OVERLAP_UNLOCK and result in (0, -errno.EINPROGRESS):
        ask(state, resource, lock, T.UNLOCK, resource.nodeid)
    elif flags & OVERLAP_CANCEL and result == -errno.EINPROGRESS:
        ask(state, resource, lock, T.CANCEL, resource.nodeid)


def _convert_reply(state: State, source: int, message: LockMessage) -> None:
    lock = _find_process_copy(state, source, message)
    if not stop_waiting(state, lock, T.CONVERT_REPLY, result=message.result):
        return
    result = message.result
    if result == -errno.EAGAIN:
        queue_completion(state, lock, result)
    elif result == -errno.EDEADLK:
        _take_flags(state, lock, message)
        revert(state, lock.resource, lock)
        queue_completion(state, lock, result)
    elif result == -errno.EINPROGRESS:
        _take_flags(state, lock, message)
        _apply_demotion(lock)
        state.move(lock.resource, lock, CONVERTING)
    elif result == 0:
        _take_flags(state, lock, message)
        _apply_demotion(lock)
        _grant_process_copy(state, lock, message)
        queue_completion(state, lock, 0)
    else:
        state.log(f"receive_convert_reply {lock.lock_id:x} remote {source} error {result}")


def queue_converting(state: State, lock: LockBlock) -> None:
    """Treat a conversion as if its master had replied that it is queued (recovery)."""
    if stop_waiting(state, lock, T.CONVERT_REPLY):
        state.move(lock.resource, lock, CONVERTING)


def _unlock_reply(state: State, source: int, message: LockMessage) -> None:
    lock = _find_process_copy(state, source, message)
    finish_unlock(state, lock, message.result, message)


def finish_unlock(
    state: State, lock: LockBlock, result: int, message: LockMessage | None = None
) -> None:
    """End a lock because its master unlocked it, or is gone (_receive_unlock_reply)."""
    if stop_waiting(state, lock, T.UNLOCK_REPLY) and result == -EUNLOCK:
        if message is not None:
            _take_flags(state, lock, message)
        locking.end_lock(state, lock.resource, lock)
        queue_completion(state, lock, -EUNLOCK)
    state.settle(lock)


def _cancel_reply(state: State, source: int, message: LockMessage) -> None:
    lock = _find_process_copy(state, source, message)
    finish_cancel(state, lock, message.result, message)


def finish_cancel(
    state: State, lock: LockBlock, result: int, message: LockMessage | None = None
) -> None:
    """Revert a lock because its master cancelled it, or is gone (_receive_cancel_reply)."""
    if stop_waiting(state, lock, T.CANCEL_REPLY) and result == -ECANCEL:
        if message is not None:
            _take_flags(state, lock, message)
        revert(state, lock.resource, lock)
        queue_completion(state, lock, -ECANCEL)
    state.settle(lock)


def _grant(state: State, source: int, message: LockMessage) -> None:
    lock = _find_process_copy(state, source, message)
    _take_flags(state, lock, message)
    _grant_process_copy(state, lock, message)
    queue_completion(state, lock, 0)


def _bast(state: State, source: int, message: LockMessage) -> None:
    lock = _find_process_copy(state, source, message)
    queue_blocking(state, lock, message.blocked_mode)
    lock.highest_blocked = message.blocked_mode


# ---- messages to and from a directory node ------------------------------------------------------


def _lookup(state: State, source: int, message: LockMessage) -> None:
    try:
        master, error = look_up(state, source, message.name), 0
    except Refused as refusal:
        master, error = -1, refusal.number
    if not error and master == state.node:
        _request(state, source, message)
        return
    state.send(
        source,
        LockMessage(T.LOOKUP_REPLY, lock_id=message.lock_id, nodeid=master, result=-error),
    )


def _lookup_reply(state: State, source: int, message: LockMessage) -> None:
    del source
    lock = state.locks.locks.get(message.lock_id)
    if lock is None or not stop_waiting(state, lock, T.LOOKUP_REPLY):
        return
    resource = lock.resource
    master = message.nodeid
    ours = master == state.node
    if ours:
        resource.master = master
        resource.nodeid = 0
        resource.first_lock_id = 0
    elif master == -1:
        resource.master = 0
        resource.nodeid = -1
        lock.nodeid = -1
    else:
        resource.master = resource.nodeid = master
    if lock.flags & OVERLAP:
        if resource.lookups and not ours:
            state.risk(LOOKUP_GIVEN_UP, f"lock {lock.lock_id:x}")
        _give_up(state, resource, lock)
    else:
        operations.request(state, resource, lock)
    if ours:
        operations.request_waiting_for_lookup(state, resource)
    state.settle(lock)


def _remove(state: State, source: int, message: LockMessage) -> None:
    if state.directory_node(message.hash) == state.node:
        forget_entry(state, source, message.name)


def _purge(state: State, source: int, message: LockMessage) -> None:
    del source
    purge_orphans(state, message.pid)


_RECEIVE: Final[dict[MessageType, Callable[[State, int, LockMessage], None]]] = {
    T.REQUEST: _request,
    T.CONVERT: _convert,
    T.UNLOCK: _unlock,
    T.CANCEL: _cancel,
    T.REQUEST_REPLY: _request_reply,
    T.CONVERT_REPLY: _convert_reply,
    T.UNLOCK_REPLY: _unlock_reply,
    T.CANCEL_REPLY: _cancel_reply,
    T.GRANT: _grant,
    T.BAST: _bast,
    T.LOOKUP: _lookup,
    T.REMOVE: _remove,
    T.LOOKUP_REPLY: _lookup_reply,
    T.PURGE: _purge,
}


def receive(state: State, source: int, message: LockMessage) -> None:
    """Do what a message asks for; only members are listened to."""
    if not state.is_member(source):
        state.log(
            f"receive {int(message.type)} from non-member {source} "
            f"{message.lock_id:x} {message.remote_id:x} {message.result}"
        )
        return
    try:
        _RECEIVE[message.type](state, source, message)
    except Refused as refusal:
        state.log(
            f"receive {int(message.type)} no {message.remote_id:x} remote {source} "
            f"{message.lock_id:x} error {refusal.number}"
        )
    except _Ignored:
        pass
