"""Messages about locks: made from a lock's fields, sent, and waited for.

Decides: which fields a message carries, whose reply is awaited, what an overlapping cancel or
unlock of a lock with a message under way does.
May not know: what a receiver does.
Mirrors: send_args() … send_purge(), add_to_waiters(), remove_from_waiters() of fs/dlm/lock.c
(Linux 6.1).
"""

from __future__ import annotations

import errno
from typing import Final

from dlm.core.blocks import (
    OVERLAP_CANCEL,
    OVERLAP_UNLOCK,
    RESEND,
    LockBlock,
    Resource,
)
from dlm.core.messages import LockMessage, MessageType
from dlm.core.state import Refused, State

_NAMED: Final = frozenset({MessageType.REQUEST, MessageType.LOOKUP})
_VALUED: Final = frozenset(
    {
        MessageType.CONVERT,
        MessageType.UNLOCK,
        MessageType.REQUEST_REPLY,
        MessageType.CONVERT_REPLY,
        MessageType.GRANT,
    }
)


_REPLY: Final = {
    MessageType.LOOKUP: MessageType.LOOKUP_REPLY,
    MessageType.REQUEST: MessageType.REQUEST_REPLY,
    MessageType.CONVERT: MessageType.CONVERT_REPLY,
    MessageType.UNLOCK: MessageType.UNLOCK_REPLY,
    MessageType.CANCEL: MessageType.CANCEL_REPLY,
}


def make(
    resource: Resource,
    lock: LockBlock,
    kind: MessageType,
    *,
    result: int = 0,
    blocked_mode: int = 0,
) -> LockMessage:
    """Return a message about a lock (send_args)."""
    return LockMessage(
        kind,
        nodeid=lock.nodeid,
        pid=lock.pid,
        lock_id=lock.lock_id,
        remote_id=lock.remote_id,
        exflags=lock.exflags,
        status_flags=lock.status_flags,
        lock_flags=lock.flags,
        value_sequence=lock.value_sequence,
        hash=resource.hash,
        status=lock.status,
        granted_mode=lock.granted_mode,
        requested_mode=lock.requested_mode,
        blocked_mode=blocked_mode,
        wants_completion=True,
        wants_blocking=lock.has_blocking,
        result=result,
        name=resource.name if kind in _NAMED else b"",
        value=lock.value if kind in _VALUED and lock.value_attached else None,
    )


def ask(state: State, resource: Resource, lock: LockBlock, kind: MessageType, target: int) -> None:
    """Send a message that will be replied to, and wait for the reply (send_common).

    ENOBUFS, and nothing is waited for, when no message to the target can be made.
    """
    wait(state, lock, kind, target)
    if not state.reaches(target):
        stop_waiting(state, lock, _REPLY[kind])
        raise Refused(errno.ENOBUFS)
    state.send(target, make(resource, lock, kind))


def answer(
    state: State, resource: Resource, lock: LockBlock, kind: MessageType, result: int
) -> None:
    """Send the reply to a message about a master copy (send_common_reply)."""
    state.send(lock.nodeid, make(resource, lock, kind, result=result))


def answer_unknown(
    state: State, source: int, message: LockMessage, kind: MessageType, result: int
) -> None:
    """Reply to a message about a lock or resource that is not here (the stub lock)."""
    state.send(source, LockMessage(kind, nodeid=source, remote_id=message.lock_id, result=result))


def wait(state: State, lock: LockBlock, kind: MessageType, target: int) -> None:
    """Note that a lock waits for a reply, or that a cancel or unlock overlaps (add_to_waiters)."""
    flags = lock.flags
    if flags & OVERLAP_UNLOCK or (flags & OVERLAP_CANCEL and kind == MessageType.CANCEL):
        raise Refused(errno.EINVAL)
    if lock.wait_type or flags & OVERLAP_CANCEL:
        if kind == MessageType.UNLOCK:
            lock.flags |= OVERLAP_UNLOCK
        elif kind == MessageType.CANCEL:
            lock.flags |= OVERLAP_CANCEL
        else:
            raise Refused(errno.EBUSY)
        lock.wait_count += 1
        return
    lock.wait_count += 1
    lock.wait_type = kind
    lock.wait_nodeid = target
    state.waiters[lock.lock_id] = lock


def stop_waiting(
    state: State, lock: LockBlock, kind: MessageType, *, result: int | None = None
) -> bool:
    """Take a reply as come; False when the lock does not wait for it (_remove_from_waiters).

    ``result`` is the reply's, None for a reply that was never sent.
    """
    overlap_done = False
    if lock.flags & OVERLAP_UNLOCK and kind == MessageType.UNLOCK_REPLY:
        lock.flags &= ~OVERLAP_UNLOCK
        overlap_done = True
    elif lock.flags & OVERLAP_CANCEL and kind == MessageType.CANCEL_REPLY:
        lock.flags &= ~OVERLAP_CANCEL
        overlap_done = True
    elif kind == MessageType.CANCEL_REPLY and lock.wait_type != MessageType.CANCEL:
        # A conversion that was granted first has made the cancel void, see below.
        return False
    elif (
        kind == MessageType.CONVERT_REPLY
        and lock.wait_type == MessageType.CONVERT
        and lock.flags & OVERLAP_CANCEL
        and result == 0
    ):
        # The conversion was granted while its cancel is under way: the user sees the grant and may
        # go on with the lock, so the cancel's reply must not be waited for.
        lock.wait_type = 0
        lock.flags &= ~OVERLAP_CANCEL
        lock.wait_count -= 1
    elif lock.wait_type:
        lock.wait_type = 0
    else:
        state.log(f"remwait error {lock.lock_id:x} msg {int(kind)} flags {lock.flags:x} no wait")
        return False
    if overlap_done and lock.wait_type:
        lock.wait_count -= 1
        lock.wait_type = 0
    lock.flags &= ~RESEND
    lock.wait_count -= 1
    if not lock.wait_count:
        state.forget_wait(lock)
    return True
