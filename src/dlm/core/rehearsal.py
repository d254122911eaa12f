"""The rehearsal: what a strict lockspace does on a copy first, so that a hazard changes nothing.

Decides: which calls and messages may meet a hazard (what does not is spared the copy).
May not know: what a rule does; where in it a hazard is told (hazards.py).
Mirrors: nothing.

Most hazards show in the midst of a rule: whether a lock has to wait is known when it is on its
queue. A step that might meet one is done on a copy of the lockspace's state, which raises, and
only then in earnest. A recovery is not rehearsed: it is a step of several nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final

from dlm.core.blocks import ALTCW, ALTPR, ORPHAN, OVERLAP, TIMEOUT, LockBlock, Resource
from dlm.core.events import Adopt, CloseFile, Convert, Purge, Request, Unlock
from dlm.core.locking import ALTMODE
from dlm.core.messages import LockMessage, MessageType
from dlm.core.modes import hash_name
from dlm.core.state import Refused, State, new_world

_ALTERNATIVES: Final = ALTPR | ALTCW


def rehearse(state: State, act: Callable[..., object], *arguments: object) -> None:
    """Do a step on a copy of the state; raises what it raises, but for a refusal."""
    asked = (state.profile, state.reaches, state.knows_itself)
    unused = (state.world, state.outputs, state.blocked, state.saved)
    copy = deepcopy(state, {id(each): each for each in (*asked, *unused)})
    copy.outputs = []
    copy.world = new_world()
    with suppress(Refused):
        act(copy, *arguments)


def may_call_meet(state: State, question: Any) -> bool:  # Any: its type is looked at
    """Say whether a user's call may meet a hazard."""
    kind = type(question)
    if kind in (Request, Convert) and question.flags & TIMEOUT:
        return True
    if kind is Request and _is_cut_off(state, state.directory_node(hash_name(question.name))):
        return True
    if kind is Unlock:
        lock = state.locks.locks.get(question.lock_id)
        if lock is not None and lock.file not in state.files:
            return True
    if kind is Purge and _has_dead_orphan(state):
        return True
    return any(map(_may_grant_in_place, _touched(state, question)))


def _touched(state: State, question: Any) -> Iterable[Resource]:  # Any: its type is looked at
    """Return the resources on which a call may let others be granted."""
    if type(question) in (Request, Adopt):
        return ()  # these only ask for themselves
    if type(question) in (CloseFile, Purge):
        return state.resources.in_use.values()
    lock = state.locks.locks.get(question.lock_id)
    return () if lock is None else (lock.resource,)


def may_message_meet(state: State, message: LockMessage) -> bool:
    """Say whether a message about a lock may meet a hazard."""
    kind = message.type
    if kind is MessageType.PURGE and _has_dead_orphan(state):
        return True
    if message.status_flags & ALTMODE:
        return True
    if any(_is_cut_off(state, member.nodeid) for member in state.members):
        return True
    number = message.lock_id if kind is MessageType.LOOKUP_REPLY else message.remote_id
    lock = state.locks.locks.get(number)
    if lock is None:
        return False
    return (
        _may_grant_in_place(lock.resource)
        or bool(lock.flags & (ORPHAN | OVERLAP))
        or any(each.exflags & TIMEOUT for each in (lock, *lock.resource.lookups))
    )


def _is_cut_off(state: State, nodeid: int) -> bool:
    return nodeid != state.node and not state.reaches(nodeid)


def _has_dead_orphan(state: State) -> bool:
    return any(not lock.alive for lock in state.orphans.values())


def _may_grant_in_place(resource: Resource) -> bool:
    return any(map(_asks_for_its_own_mode, resource.converting))


def _asks_for_its_own_mode(lock: LockBlock) -> bool:
    return bool(lock.exflags & _ALTERNATIVES) or lock.granted_mode == lock.requested_mode
