"""What waits, what is kept and what is forgotten while locking is off; who the members are.

Sources: Linux 6.1 fs/dlm/requestqueue.c, member.c, dir.c, lock.c (dlm_receive_message()).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from dlm.core.answering import NAMES_ROOM
from dlm.core.events import Timer
from dlm.core.messages import LockMessage, MessageType, RecoveryType
from dlm.core.modes import hash_name
from tests.unit.core.world import (
    CR,
    EX,
    GRANTED,
    F,
    User,
    World,
    types,
)

T, R = MessageType, RecoveryType

# ---- starts -------------------------------------------------------------------------------------


def test_of_two_waiting_starts_the_newer_counts() -> None:
    """A start that waits for the end of the recovery before it is replaced by a newer one."""
    world = World(1, 2, exflags={2: 0x20})
    world.held = types(R.STATUS_REPLY)
    world.start(1, 2, on=[1])
    world.deliver()
    world.start(1, 3, on=[1])
    world.start(1, on=[1])
    assert world.ends(1) == []

    world.let_through()
    world.fire(1, Timer.QUERY_RETRY)
    world.deliver()

    assert world.ends(1) == [errno.EPROTO, 0]
    assert world.spaces[1].members == (1,)


def test_a_superseded_recovery_does_not_let_locking_on() -> None:
    """A recovery whose start is not the newest ends with EINTR at its end, and the newest begins.

    Linux 6.1 fs/dlm/recoverd.c, enable_locking().
    """
    world = World(1, 2)
    world.held = types(R.STATUS_REPLY)
    world.start(1, 2)
    world.deliver()
    world.start(1, 2)
    assert world.ended == []

    world.let_through()
    for node in (1, 2):
        world.fire(node, Timer.QUERY_RETRY)
    world.settle(60)

    assert world.ends(1)[-1] == world.ends(2)[-1] == 0
    assert len(world.ends(1)) == len(world.ends(2)) == 2
    assert world.status() == {1: 0xFF, 2: 0x55}


# ---- calls --------------------------------------------------------------------------------------

WAITING: dict[str, Callable[[User, int], int]] = {
    "request": lambda user, _: user.lock(b"new", EX),
    "request that is refused": lambda user, _: user.lock(b"new", 77),
    "conversion": lambda user, held: user.convert(held, CR),
    "conversion of nothing": lambda user, _: user.convert(99, CR),
    "unlock": lambda user, held: user.unlock(held),
    "cancel": lambda user, held: user.cancel(held),
    "deadlock": lambda user, held: user.deadlock(held),
    "purge": lambda user, _: user.purge(0, 1),
    "close": lambda user, _: user.close(),
}


@pytest.mark.parametrize("call", WAITING)
def test_calls_that_wait_while_stopped(call: str) -> None:
    """These calls are answered only when locking is on again, with all their checks after that."""
    world = World(1).up()
    user = world.user(1)
    held = user.lock(b"held", EX)
    world.stop(1)

    WAITING[call](user, held)
    assert world.answer(user.last_call) == world.waits
    assert world.spaces[1].blocked_calls() == 1
    world.start(1)

    assert world.answer(user.last_call) != world.waits
    assert world.spaces[1].blocked_calls() == 0


def test_calls_that_do_not_wait_while_stopped() -> None:
    """Adopting, reading results and a purge of another node go on while locking is off."""
    world = World(1, 2).up()
    gone = world.user(1)
    orphan = gone.lock(b"orphan", EX, F.PERSISTENT)
    world.deliver()
    gone.close()
    user = world.user(1)
    user.lock(b"granted", EX)
    world.deliver()
    world.stop(1)

    assert user.adopt(b"orphan", EX) == orphan
    assert [status for _, status in user.results()] == [GRANTED]
    assert user.purge(2, 0) == 0


def test_waiting_calls_go_on_in_the_order_in_which_they_came() -> None:
    """First come, first served, over all files."""
    world = World(1).up()
    first, second = world.user(1), world.user(1)
    world.stop(1)
    calls = []
    for user, name in ((second, b"x"), (first, b"x"), (second, b"y"), (first, b"z")):
        user.lock(name, EX)
        calls.append(user.last_call)
    second.close()
    closing = second.last_call

    world.start(1)

    assert world.answered[-5:] == [*calls, closing]
    assert [world.answer(call) for call in calls] == [1, 2, 3, 4]
    assert first.results() == [(4, GRANTED), (2, GRANTED)]


def test_what_waited_comes_after_what_recovery_sets_going() -> None:
    """The results of recovered locks come first, then those of the calls that waited."""
    world = World(1, 2).up()
    user = world.user(1)
    name = world.name(directory=1)
    world.user(2).lock(name, EX)
    world.deliver()
    waiter = user.lock(name, EX)
    assert user.results() == []
    world.crash(2)
    world.stop(1)
    user.lock(b"later", EX)
    later = user.last_call

    world.start(1)

    assert user.results() == [(waiter, GRANTED), (world.answer(later), GRANTED)]


# ---- messages -----------------------------------------------------------------------------------


def test_messages_that_come_while_stopped_are_done_at_the_end() -> None:
    """A request that arrives between stop and the end of recovery is granted after it."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    user = world.user(2)
    world.stop(1)

    lock_id = user.lock(name, CR)
    world.deliver()
    assert user.results() == []
    world.stop(2)
    world.start(1, 2)
    world.settle(40)

    assert user.results() == [(lock_id, GRANTED)]


def test_waiting_calls_go_on_between_saved_messages() -> None:
    """After each saved message one of them: their locks' ids show it, as on guests of 6.12 and 7.2.

    Two calls that wait may go on in any order there, one waits for exactly one message.
    """
    world = World(1, 2).up()
    names = [world.name(directory=1, number=number) for number in range(3)]
    user, other = world.user(1), world.user(2)
    for each in (user, other):
        for name in names:
            each.lock(name, CR)
        world.deliver()
    world.stop(1)
    calls = []
    for name in names[:2]:
        user.lock(name, CR)
        calls.append(user.last_call)
    for name in names:
        other.lock(name, CR)
    world.deliver()

    world.stop(2)
    world.start(1, 2)
    world.settle(40)

    copies = [lock.lock_id for name in names for lock in world.resource(1, name).granted]
    assert sorted(copies) == list(range(1, 12))
    assert [world.answer(call) for call in calls] == [8, 10], "7, 9 and 11 are the other node's"


def test_a_lookup_that_was_saved_is_dropped_and_sent_again() -> None:
    """Lookups, their replies and removes mean nothing once the directory is rebuilt."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    user = world.user(2)
    world.stop(1)
    lock_id = user.lock(name, CR)
    world.deliver()
    assert len(world.messages(T.LOOKUP)) == 1
    world.stop(2)
    world.start(1, 2)
    world.settle(40)

    assert len(world.messages(T.LOOKUP)) == 2
    assert user.results() == [(lock_id, GRANTED)]


@pytest.mark.parametrize(
    ("kind", "done"),
    [(T.PURGE, True), (T.REMOVE, False), (T.LOOKUP, False), (T.LOOKUP_REPLY, False)],
)
def test_which_saved_messages_are_dropped(kind: MessageType, done: bool) -> None:
    """Of what a member sent meanwhile, only messages about the directory are dropped."""
    world = World(1, 2).up()
    closing = world.user(1)
    closing.lock(b"orphan", EX, F.PERSISTENT)
    world.deliver()
    closing.close()
    waiting = world.user(1).lock(world.name(directory=2), EX)
    world.stop(1, 2)
    name = world.name(directory=1)
    before = len(world.sent)

    world.send(2, 1, LockMessage(kind, nodeid=1, lock_id=waiting, name=name))
    assert len(world.sent) == before, "saved: nothing is done yet"
    world.start(1, 2)
    world.settle(40)

    orphans = [lock for r in world.spaces[1].resources() for lock in r.granted if lock.flags & 2]
    assert bool(orphans) != done
    assert [source for source, _, _ in world.messages(T.LOOKUP_REPLY, before)] == [2]
    assert name not in [entry.name for entry in world.spaces[1].tossed()]
    assert len(world.messages(T.LOOKUP, before)) == 1, "the lookup under way is sent again"


def test_saved_messages_of_a_node_that_is_gone_are_dropped() -> None:
    """A request of a node that died meanwhile leaves no lock."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    world.stop(1)
    world.user(3).lock(name, CR)
    world.user(2).lock(name, CR)
    world.deliver()

    world.survive(3)

    (resource,) = world.spaces[1].resources()
    assert sorted(lock.nodeid for lock in resource.granted) == [0, 2]


def test_saved_messages_of_a_members_former_life_are_dropped() -> None:
    """A member that left and came back in one start: what it sent before is not its any more."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    user = world.user(2)
    user.lock(name, CR)
    world.deliver()
    world.stop(1)
    user.lock(name, CR)
    world.deliver()
    world.spaces[2] = World(2).spaces[2]

    world.start(1, 2, new=[2])
    world.settle(40)

    (resource,) = world.spaces[1].resources()
    assert [lock.nodeid for lock in resource.granted] == [0]


def test_without_a_directory_every_saved_message_is_dropped() -> None:
    """All is rebuilt and resent then, so no saved message can be told from a stale one."""
    world = World(1, 2).without_directory().up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    user = world.user(2)
    world.stop(1)
    lock_id = user.lock(name, CR)
    world.deliver()
    world.stop(2)
    world.start(1, 2)
    world.settle(40)

    assert len(world.messages(T.REQUEST)) == 2
    assert user.results() == [(lock_id, GRANTED)]


def test_messages_before_the_first_recovery_are_not_even_saved() -> None:
    """A lockspace without a generation never spoke with anybody: what comes is for another life."""
    world = World(1)

    world.send(2, 1, LockMessage(T.PURGE))

    assert (1, "receive 14 from 2 ignore old gen") in world.logs


# ---- members, generation, slots -----------------------------------------------------------------


def test_generation_counts_agreements_of_members() -> None:
    """It is 1 after the first recovery, and one more than the highest of any member after each."""
    world = World(1, 2, 3)
    world.start(1, on=[1])
    for _ in range(4):
        world.stop(1)
        world.start(1, on=[1])
    assert world.spaces[1].generation == 5
    world.start(2, 3)
    world.settle(40)
    assert [world.spaces[node].generation for node in (2, 3)] == [1, 1]

    world.stop(1, 2, 3)
    world.start(1, 2, 3)
    world.settle(40)

    assert {space.generation for space in world.spaces.values()} == {6}


def slots(world: World, node: int) -> str:
    """Return the last slots that a node has logged."""
    return [text for each, text in world.logs if each == node and "slots" in text][-1]


def test_slots_stay_with_their_members() -> None:
    """Slots are given by node id to those without one; a free slot goes to the next that comes."""
    world = World(1, 2, 3)
    world.start(2, 3)
    world.settle(40)
    assert slots(world, 2) == slots(world, 3) == "generation 1 slots 2 1:2 2:3"

    world.stop(2, 3)
    world.start(1, 2, 3)
    world.settle(40)
    assert slots(world, 1) == slots(world, 3) == "generation 2 slots 3 1:2 2:3 3:1"

    world.survive(2)
    assert slots(world, 1) == "generation 3 slots 2 2:3 3:1"


def test_a_member_that_came_back_gets_a_free_slot() -> None:
    """Its old slot is free for it when nobody else took it."""
    world = World(1, 2, 3).up()
    world.survive(2)
    fresh = World(2)
    world.spaces[2] = fresh.spaces[2]
    world.dead.clear()

    world.stop(1, 3)
    world.start(1, 2, 3, new=[2])
    world.settle(40)

    assert slots(world, 3) == "generation 3 slots 3 1:1 2:2 3:3"
    assert world.status() == {1: 0xFF, 2: 0x55, 3: 0x55}


@pytest.mark.parametrize("new", [False, True])
def test_a_member_made_anew_counts_as_gone_and_come(new: bool) -> None:
    """With its directory made again, a member's old locks go, even if no start missed it."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    world.user(2).lock(name, CR)
    world.deliver()
    fresh = World(2)
    world.spaces[2] = fresh.spaces[2]

    world.stop(1)
    world.start(1, 2, new=[2] if new else [])
    world.settle(40)

    (resource,) = world.spaces[1].resources()
    assert sorted(lock.nodeid for lock in resource.granted) == ([0] if new else [0, 2])


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 61, 62, 63, 200])
def test_names_travel_in_as_many_messages_as_they_need(count: int) -> None:
    """A NAMES_REPLY has room for 4048 bytes, a name takes two more: 61 names of 64 bytes go in."""
    world = World(1, 2, weights={2: 0}).up()
    user = world.user(2)
    names = [b"%064d" % number for number in range(count)]
    for name in names:
        user.lock(name, EX)
        world.deliver()
    before = len(world.sent)

    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)

    replies = [
        message for source, _, message in world.messages(R.NAMES_REPLY, before) if source == 2
    ]
    told = [name for message in replies for name in message.names]
    assert sorted(told) == names
    assert [message.complete for message in replies] == [False] * (len(replies) - 1) + [True]
    assert [len(message.names) for message in replies] == [
        min(61, count - at) for at in range(0, max(count, 1), 61)
    ]
    assert all(sum(2 + len(name) for name in m.names) + 2 <= NAMES_ROOM for m in replies)
    assert {entry.master for entry in world.spaces[1].tossed()} == ({2} if count else set())


def test_the_empty_name_travels_like_any_other() -> None:
    """A resource may have no name; a full message never ends with it, or it would come for ever.

    A question for the names after that one would be a question for all of them.
    Quirk: on the wire of a real kernel a name of length 0 means "end of message", and recovery
    never ends there.
    """
    world = World(1, 2, weights={2: 0}).up()
    user = world.user(2)
    bucket = hash_name(b"") % 1024
    names = [b"%064d" % number for number in range(800)]
    before = [name for name in names if hash_name(name) % 1024 > bucket][:61]
    after = [name for name in names if hash_name(name) % 1024 < bucket][:61]
    for name in [*before, b"", *after]:
        user.lock(name, EX)
        world.deliver()
    sent = len(world.sent)

    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)

    replies = [message.names for _, _, message in world.messages(R.NAMES_REPLY, sent)]
    assert [len(told) for told in replies if told] == [61, 62]
    assert {entry.name for entry in world.spaces[1].tossed()} == {*before, b"", *after}
