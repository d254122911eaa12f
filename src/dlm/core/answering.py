"""What a node answers when another member's recovery asks.

Decides: the status, names, masters and rebuilt locks that are sent back.
May not know: this node's own recovery, but for what it goes through.
Mirrors: the answering half of fs/dlm/rcom.c and dlm_copy_master_names() of dir.c (Linux 6.1).
"""

from __future__ import annotations

from dlm.core import rebuilding
from dlm.core.directory import look_up
from dlm.core.messages import RecoveryMessage, RecoveryType
from dlm.core.recovery import Recovery, send
from dlm.core.state import Refused, State

NAMES_ROOM = 4096 - 48
"""Bytes of names that one NAMES_REPLY holds; each name takes two more."""


def answer(state: State, recovery: Recovery | None, source: int, message: RecoveryMessage) -> None:
    """Answer another member's recovery message."""
    kind = message.type
    if kind is RecoveryType.STATUS:
        reply = RecoveryMessage(
            RecoveryType.STATUS_REPLY,
            id=message.id,
            result=state.recover_status,
            exflags=state.exflags,
            generation=state.generation,
            slot=state.slot,
            slots=state.slots if message.want_slots else (),
        )
    elif kind is RecoveryType.NAMES:
        names, complete = _names_after(recovery, message.name, source)
        reply = RecoveryMessage(
            RecoveryType.NAMES_REPLY, id=message.id, names=names, complete=complete
        )
    elif kind is RecoveryType.LOOKUP:
        try:
            master = look_up(state, source, message.name, fix=True)
        except Refused as refusal:
            master = -refusal.number
        reply = RecoveryMessage(RecoveryType.LOOKUP_REPLY, id=message.id, result=master)
    else:
        reply = _rebuilt(state, recovery, source, message)
    send(state, source, reply, reply_to=message.sequence)


def _names_after(
    recovery: Recovery | None, last: bytes, source: int
) -> tuple[tuple[bytes, ...], bool]:
    """The names that we master and the asker keeps, as many as fit (dlm_copy_master_names)."""
    if recovery is None:
        return (), True
    root = recovery.root
    start = recovery.places.get(last, len(root)) + 1 if last else 0
    names: list[bytes] = []
    used = 0
    for at in range(start, len(root)):
        resource = root[at]
        if not resource.is_master or resource.directory_node != source:
            continue
        if used + 4 + len(resource.name) > NAMES_ROOM:
            if not names[-1]:
                # To be asked for what follows the empty name would be to be asked for all.
                names.pop()
            return tuple(names), False
        names.append(resource.name)
        used += 2 + len(resource.name)
    return tuple(names), True


def _rebuilt(
    state: State, recovery: Recovery | None, source: int, message: RecoveryMessage
) -> RecoveryMessage:
    lock = message.lock
    assert lock is not None
    remote_id, result = rebuilding.rebuild(state, source, lock)
    if recovery is not None and not result:
        recovery.rebuilt_here += 1
    state.world.progress += 1
    return RecoveryMessage(
        RecoveryType.LOCK_REPLY,
        id=message.id,
        lock=rebuilding.with_answer(lock, remote_id, result),
    )
