"""The steps of a recovery and their barriers, from the list of members to the end.

Decides: the order of the steps, what each asks of which member, when all have reached a barrier.
May not know: what is done to a lock or resource (rebuilding.py), how a question is put.
Mirrors: ls_recover() of fs/dlm/recoverd.c, fs/dlm/member.c and the waits of recover.c (Linux 6.1).

``STEPS`` is the table. The node with the lowest id asks every member whether it has reached a step
and then sets the step's ``…_ALL`` bit; the others ask that node for the bit.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dlm.core import rebuilding
from dlm.core.blocks import NEW_MASTER, Member, SavedMessage
from dlm.core.directory import clear_tossed, look_up
from dlm.core.events import MemberChanged, MembersKnown
from dlm.core.messages import MessageType, RecoveryMessage, RecoveryType
from dlm.core.recovery import (
    Answers,
    Delay,
    Question,
    Recovery,
    RecoveryFailed,
    Steps,
    Told,
    Wait,
)
from dlm.core.state import State, queued_locks
from dlm.terms import RecoverStatus

_RETRY_STEP = 0.02
_RETRY_MAX = 1.0


def recover(recovery: Recovery) -> Steps:
    """Go through all steps (ls_recover)."""
    state = recovery.state
    state.log(f"dlm_recover {recovery.sequence}")
    clear_tossed(state)
    recovery.root = state.resources.walk()[::-1]
    recovery.places = {resource.name: at for at, resource in enumerate(recovery.root)}
    for resource in recovery.root:
        resource.on_root_list = True
    for step in STEPS:
        yield from step.work(recovery)
        if recovery.finish_later and step.status == RecoverStatus.DONE:
            return
        state.recover_status |= step.status
        state.world.progress += 1
        yield from step.barrier(recovery, step.status)
        state.world.progress += 1


def _members(recovery: Recovery) -> Steps:
    """Who has gone, who is new; ask every member once (dlm_recover_members)."""
    state = recovery.state
    departed = len(state.gone)
    configured = {member.nodeid: member for member in reversed(recovery.configured)}
    for member in list(state.members):
        now = configured.get(member.nodeid)  # type: ignore[call-overload]  # a NodeId is an int
        if now is not None and not now.new:
            continue
        state.log(
            f"remove member {member.nodeid}"
            + (f" comm_seq {member.comm} {now.comm}" if now is not None else "")
        )
        departed += 1
        state.members.remove(member)
        state.gone.append(member)
        state.outputs.append(MemberChanged(member.nodeid, added=False))
    for new in recovery.configured:
        if not state.is_member(new.nodeid):
            state.members.append(Member(int(new.nodeid), new.weight, new.comm))
            state.log(f"add member {new.nodeid}")
            state.outputs.append(MemberChanged(int(new.nodeid), added=True))
    state.members.sort(key=lambda member: member.nodeid)
    state.low_node = state.members[0].nodeid
    state.directory_nodes = _directory_nodes(state.members)
    recovery.rebuilds = bool(departed) or state.no_directory
    for member in list(state.members):
        yield from _ask(recovery, Question(member.nodeid, RecoveryType.STATUS))
    state.log(f"dlm_recover_members {len(state.members)} nodes")
    state.outputs.append(MembersKnown())
    for resource in recovery.root:
        resource.directory_node = state.directory_node(resource.hash)


def _directory_nodes(members: list[Member]) -> list[int]:
    """Each member as often as its weight, in order of node id; all once when all weigh nothing."""
    nodes = [member.nodeid for member in members for _ in range(member.weight)]
    return nodes or [member.nodeid for member in members]


def _directory(recovery: Recovery) -> Steps:
    """Collect from every member the names that it masters and we keep (dlm_recover_directory)."""
    state = recovery.state
    if state.no_directory:
        return
    state.log("dlm_recover_directory")
    count = 0
    for member in list(state.members):
        if member.nodeid == state.node:
            continue
        last, complete = b"", False
        while not complete:
            reply = yield from _ask(recovery, Question(member.nodeid, RecoveryType.NAMES, last))
            for name in reply.names:
                look_up(state, member.nodeid, name, from_master=True)
                last = name
                count += 1
            complete = reply.complete
    state.log(f"dlm_recover_directory {count} in {count} new")
    if recovery.finish_later:
        # Without a last barrier a member may run before we are at the end: what it then says about
        # the directory holds. Whoever answered us has sent nothing older since.
        _drop_saved(state, _DIRECTORY_MESSAGES)


def _locks(recovery: Recovery) -> Steps:
    """Purge, find new masters, send them our locks: where somebody has gone."""
    state = recovery.state
    rebuilding.settle_waiters(state)
    if not recovery.rebuilds:
        return
    rebuilding.purge_gone(state, recovery.root)
    yield from _masters(recovery)
    yield from _rebuild(recovery)


def _masters(recovery: Recovery) -> Steps:
    """dlm_recover_masters(): every directory node is asked at once."""
    state = recovery.state
    state.log("dlm_recover_masters")
    count = 0
    for resource in recovery.root:
        if state.no_directory:
            rebuilding.set_static_master(state, resource)
            count += 1
            continue
        was_new = resource.flags & NEW_MASTER
        asked = rebuilding.find_new_master(state, resource)
        if asked is not None:
            recovery.expect_answer(resource)
            recovery.send(
                asked,
                RecoveryMessage(RecoveryType.LOOKUP, id=resource.recover_id, name=resource.name),
            )
        count += asked is not None or bool(resource.flags & NEW_MASTER and not was_new)
    state.log(f"dlm_recover_masters {count} of {len(recovery.root)}")
    yield Answers()


def _rebuild(recovery: Recovery) -> Steps:
    """dlm_recover_locks(): every lock is sent at once."""
    state = recovery.state
    count = 0
    for resource in recovery.root:
        if resource.is_master:
            resource.flags &= ~NEW_MASTER
            continue
        if not resource.flags & NEW_MASTER:
            continue
        locks = list(queued_locks(resource))
        if not locks:
            resource.flags &= ~NEW_MASTER
            continue
        recovery.expect_answer(resource)
        for lock in locks:
            resource.recover_locks += 1
            recovery.send_lock(resource.nodeid, resource, lock.lock_id)
        count += len(locks)
    state.log(f"dlm_recover_locks {count} out")
    yield Answers()


def _done(recovery: Recovery) -> Iterable[Wait]:
    """Make the resources whole and drop saved messages that mean nothing any more."""
    state = recovery.state
    if recovery.rebuilds:
        state.log(f"dlm_recover_locks {recovery.rebuilt_here} in")
        rebuilding.finish_resources(state, recovery.root)
    recovery.release_root()
    _drop_saved(state, frozenset() if recovery.finish_later else _DIRECTORY_MESSAGES)
    return ()


_DIRECTORY_MESSAGES = frozenset({MessageType.REMOVE, MessageType.LOOKUP, MessageType.LOOKUP_REPLY})


def _drop_saved(state: State, stale: frozenset[MessageType]) -> None:
    """dlm_purge_requestqueue(): gone senders, and all about a directory that was rebuilt."""
    kept = [saved for saved in state.saved if not _is_stale(state, saved, stale)]
    state.saved.clear()
    state.saved.extend(kept)


def _is_stale(state: State, saved: SavedMessage, stale: frozenset[MessageType]) -> bool:
    source, message = saved
    return state.is_gone(source) or message.type in stale or state.no_directory


# ---- barriers -----------------------------------------------------------------------------------


def _ask(recovery: Recovery, question: Question) -> Told:
    """Ask until the member's lockspace answers; EPROTO when it is another kind of lockspace."""
    reply = yield question
    assert reply is not None
    state = recovery.state
    if question.type is not RecoveryType.STATUS or question.target == state.node:
        return reply
    if reply.result == -errno.ESRCH:
        state.log(f"remote node {question.target} not ready")
        return RecoveryMessage(RecoveryType.STATUS_REPLY)
    if reply.exflags != state.exflags:
        state.log(
            f"config mismatch: 32,{state.exflags:x} nodeid {question.target}: 32,{reply.exflags:x}"
        )
        raise RecoveryFailed(errno.EPROTO)
    return reply


def _ask_until(recovery: Recovery, question: Question, status: int) -> Told:
    """Ask a member until it shows the status, less and less often."""
    delay = 0.0
    while True:
        reply = yield from _ask(recovery, question)
        if reply.result & status:
            return reply
        delay = min(delay + _RETRY_STEP, _RETRY_MAX)
        yield Delay(delay)


def _barrier(recovery: Recovery, status: int) -> Steps:
    """Nobody goes on before everybody has reached the step (wait_status)."""
    state = recovery.state
    if state.low_node == state.node:
        for member in list(state.members):
            yield from _ask_until(recovery, Question(member.nodeid, RecoveryType.STATUS), status)
        state.recover_status |= status << 1
    else:
        question = Question(state.low_node, RecoveryType.STATUS)
        yield from _ask_until(recovery, question, status << 1)


def _members_barrier(recovery: Recovery, status: int) -> Steps:
    """The first barrier also agrees on a generation and on slots (dlm_recover_members_wait)."""
    state = recovery.state
    if state.low_node != state.node:
        question = Question(state.low_node, RecoveryType.STATUS, want_slots=True)
        reply = yield from _ask_until(recovery, question, status << 1)
        state.generation = reply.generation
        state.slots = reply.slots
        state.slot = dict(reply.slots).get(state.node, state.slot)
        _log_slots(state)
        return
    for member in list(state.members):
        question = Question(member.nodeid, RecoveryType.STATUS)
        reply = yield from _ask_until(recovery, question, status)
        ours = member.nodeid == state.node
        member.slot = state.slot if ours else reply.slot
        member.generation = state.generation if ours else reply.generation
    _assign_slots(state)
    state.recover_status |= status << 1


def _assign_slots(state: State) -> None:
    """Give every member without one the lowest free slot (dlm_slots_assign)."""
    taken = {member.slot for member in state.members if member.slot}
    for member in state.members:
        if not member.slot:
            member.slot = next(slot for slot in range(1, len(taken) + 2) if slot not in taken)
            taken.add(member.slot)
    state.slots = tuple(
        (member.nodeid, member.slot) for member in sorted(state.members, key=lambda m: m.slot)
    )
    state.slot = dict(state.slots).get(state.node, state.slot)
    state.generation = max(member.generation for member in state.members) + 1
    _log_slots(state)


def _log_slots(state: State) -> None:
    slots = "".join(f" {slot}:{nodeid}" for nodeid, slot in state.slots)
    state.log(f"generation {state.generation} slots {len(state.slots)}{slots}")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its work, the bit that says that it is done here, and the wait for the others."""

    status: int
    work: Callable[[Recovery], Iterable[Wait]]
    barrier: Callable[[Recovery, int], Steps]


STEPS = (
    Step(int(RecoverStatus.NODES), _members, _members_barrier),
    Step(int(RecoverStatus.DIR), _directory, _barrier),
    Step(int(RecoverStatus.LOCKS), _locks, _barrier),
    Step(int(RecoverStatus.DONE), _done, _barrier),
)
