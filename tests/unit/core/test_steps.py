"""Recovery's steps: the bits they set, the barriers between them, what stops them.

Sources: Linux 6.1 fs/dlm/recoverd.c, member.c, rcom.c; the bits as seen on two real nodes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from dlm.core.events import Timer
from dlm.core.messages import Message, RecoveryType
from dlm.core.recovery import QUERY_RETRY
from dlm.core.steps import STEPS
from dlm.terms import RecoverStatus
from tests.unit.core.world import CR, NL, World, types

R = RecoveryType
S = RecoverStatus


def held(source: int) -> Callable[[int, int, Message], bool]:
    """Hold back all that a node sends."""
    return lambda sender, _target, _message: sender == source


# ---- steps, bits, barriers ----------------------------------------------------------------------


def test_the_table_of_steps() -> None:
    """Four steps, in this order, each with one bit of its own and the next one for all."""
    assert [step.status for step in STEPS] == [S.NODES, S.DIR, S.LOCKS, S.DONE]
    assert [step.status << 1 for step in STEPS] == [S.NODES_ALL, S.DIR_ALL, S.LOCKS_ALL, S.DONE_ALL]


@pytest.mark.parametrize("nodes", [(1,), (7,), (1, 2), (2, 5), (1, 2, 3), (3, 4, 9)])
def test_status_at_the_end(nodes: tuple[int, ...]) -> None:
    """The lowest node ends at ff, all others at 55."""
    world = World(*nodes).up()

    assert world.status() == {node: 0xFF if node == nodes[0] else 0x55 for node in nodes}
    assert [world.ends(node) for node in nodes] == [[0]] * len(nodes)


@pytest.mark.parametrize("late", [1, 2, 3])
def test_nobody_passes_a_barrier_alone(late: int) -> None:
    """While one node has reached step N, no node is beyond step N: at every moment, in every order.

    The late node's messages wait, and are let through one at a time.
    """
    world = World(1, 2, 3)
    world.held = held(late)
    world.start(1, 2, 3)
    own = [S.NODES, S.DIR, S.LOCKS, S.DONE]
    seen: set[tuple[int, ...]] = set()

    for _ in range(400):
        world.settle(1)
        reached = {n: sum(bool(bits & bit) for bit in own) for n, bits in world.status().items()}
        assert max(reached.values()) - min(reached.values()) <= 1
        for bit in own:
            if world.spaces[1].recover_status & bit << 1:
                assert all(bits & bit for bits in world.status().values())
        seen.add(tuple(world.status().values()))
        if world.kept:
            world.wire.append(world.kept.pop(0))

    assert world.status() == {1: 0xFF, 2: 0x55, 3: 0x55}
    assert len(seen) >= 5


@pytest.mark.parametrize("silent", [1, 2])
def test_a_node_that_says_nothing_holds_all_at_the_start(silent: int) -> None:
    """The first thing is a question to every member: unanswered, status stays 0 elsewhere."""
    world = World(1, 2, 3)
    world.held = held(silent)
    world.start(1, 2, 3)
    world.settle()

    assert {node: bits for node, bits in world.status().items() if node != silent} == dict.fromkeys(
        {1, 2, 3} - {silent}, 0
    )
    assert all(space.stopped for space in world.spaces.values())


def test_the_last_node_at_a_barrier_lets_the_others_go() -> None:
    """Held back at the first barrier, node 2 shows 01 and node 1 waits with 01 until it speaks."""
    world = World(1, 2)
    world.start(1, 2, on=[1])
    world.settle()
    assert world.status() == {1: 0x01, 2: 0x00}, "node 2 has a lockspace, which answers: status 0"

    world.start(1, 2, on=[2])
    world.settle(40)

    assert world.status() == {1: 0xFF, 2: 0x55}


def test_polls_come_less_and_less_often() -> None:
    """A barrier is polled after 20, 40, 60 … ms, and from then on once a second."""
    world = World(1, 2)
    world.start(1, 2, on=[1])
    world.deliver()

    delays = []
    for _ in range(60):
        delays.append(world.timers[1, Timer.BARRIER_POLL])
        world.fire(1, Timer.BARRIER_POLL)
        world.deliver()

    assert delays[:3] == pytest.approx([0.02, 0.04, 0.06])
    assert delays == sorted(delays)
    assert delays[50:] == [1.0] * 10


def test_a_question_without_an_answer_is_put_again() -> None:
    """A member that does not answer leaves status 0 and is asked again after the recover timer."""
    world = World(1, 2)
    world.held = types(R.STATUS)
    world.start(1, 2)
    world.settle()
    assert world.status() == {1: 0, 2: 0}
    assert world.spaces[1].recover_nodeid == 2
    assert world.timers[1, Timer.QUERY_RETRY] == QUERY_RETRY == 5.0
    before = len(world.messages(R.STATUS))

    world.let_through()
    for node in (1, 2):
        world.fire(node, Timer.QUERY_RETRY)
    assert len(world.messages(R.STATUS)) == before + 2
    world.settle(40)

    assert world.status() == {1: 0xFF, 2: 0x55}
    assert (1, Timer.QUERY_RETRY) not in world.timers


def test_an_answer_to_the_first_of_two_questions_is_ignored() -> None:
    """Only the reply to the last question counts: an early one that comes late is nothing."""
    world = World(1, 2)
    world.start(1, 2, on=[2])
    world.settle()
    world.held = types(R.STATUS_REPLY)
    world.start(1, 2, on=[1])
    world.deliver()
    ((_, _, early),) = [each for each in world.kept if each[1] == 1][:1]
    world.fire(1, Timer.QUERY_RETRY)
    world.deliver()

    before = world.spaces[1].recover_nodeid, world.spaces[1].recover_status
    world.send(2, 1, early)

    assert (world.spaces[1].recover_nodeid, world.spaces[1].recover_status) == before
    assert (1, Timer.QUERY_RETRY) in world.timers


def test_an_answer_to_an_earlier_recovery_is_ignored() -> None:
    """A reply says which recovery asked: after a stop and a start it is an old one."""
    world = World(1, 2)
    world.held = types(R.STATUS_REPLY)
    world.start(1, 2, on=[1])
    world.deliver()
    ((_, _, old),) = world.kept
    world.stop(1)
    world.start(1, 2, on=[1])
    world.deliver()

    world.send(2, 1, old)

    assert (1, Timer.QUERY_RETRY) in world.timers, "the question is still open"
    assert world.status()[1] == 0


def test_a_member_without_the_lockspace_counts_as_not_ready() -> None:
    """A node that has no such lockspace answers so; recovery waits for it with its own bit set."""
    world = World(1)
    world.start(1, 2, on=[1])
    world.settle()

    assert world.status() == {1: 0x01}
    assert (1, "remote node 2 not ready") in world.logs
    assert world.ends(1) == []


# ---- what ends a recovery -----------------------------------------------------------------------


def test_lockspaces_with_other_flags_do_not_go_together() -> None:
    """Members whose exflags differ end the recovery with EPROTO, on both, at the first question."""
    world = World(1, 2, exflags={1: 0x20})
    world.start(1, 2)
    world.settle()

    assert world.ends(1) == world.ends(2) == [errno.EPROTO]
    assert world.status() == {1: 0, 2: 0}
    assert (1, "config mismatch: 32,20 nodeid 2: 32,0") in world.logs


def test_after_eproto_a_start_without_that_member_succeeds() -> None:
    """A failed recovery leaves a lockspace that can be started again, without a stop."""
    world = World(1, 2, exflags={1: 0x20})
    world.start(1, 2)
    world.settle()

    world.start(1, on=[1])

    assert world.status()[1] == 0xFF
    assert world.ends(1) == [errno.EPROTO, 0]


@pytest.mark.parametrize("stopped", [1, 2])
@pytest.mark.parametrize("joined", [False, True])
def test_a_stop_at_any_moment_interrupts(joined: bool, stopped: int) -> None:
    """After every number of messages: a stop ends recovery with EINTR, a later start succeeds.

    ``joined``: the members ran before, hold locks across both nodes and lose a third one.
    """
    for moment in range(200):
        world = World(1, 2, 3) if joined else World(1, 2)
        if joined:
            world.up()
            users = {node: world.user(node) for node in (1, 2)}
            names = [world.name(directory, at) for directory in (1, 2, 3) for at in range(3)]
            third = world.user(3)
            for name in names:
                third.lock(name, CR)
                world.deliver()
                for user in users.values():
                    user.lock(name, CR)
                    world.deliver()
            world.crash(3)
            world.stop(1, 2)
        world.start(1, 2)
        for _ in range(moment):
            if not world.wire:
                for node in world.polling():
                    world.fire(node, Timer.BARRIER_POLL)
            if not world.wire:
                break
            world.deliver_one()
        over = not world.spaces[stopped].stopped
        ends = world.ends(stopped)
        world.stop(stopped)
        assert world.spaces[stopped].recover_status == 0
        assert world.spaces[stopped].stopped
        if not over:
            assert world.ends(stopped) == [*ends, errno.EINTR]
        assert not [
            timer
            for node, timer in world.timers
            if node == stopped and timer is not Timer.TOSS_SCAN
        ]
        other = 3 - stopped
        world.stop(other)
        world.start(1, 2)
        world.settle(60)

        assert world.status() == {1: 0xFF, 2: 0x55}, moment
        if joined:
            for user in users.values():
                assert user.lock(b"afterwards", NL) > 0
            world.deliver()
            for name in names:
                assert _holders(world, name) == {1: 1, 2: 1}, (moment, name)
        if over:
            assert moment > 10
            return
    raise AssertionError("recovery never ended")


def _holders(world: World, name: bytes) -> dict[int, int]:
    """Return how many granted locks of each node the master of a name knows."""
    found: dict[int, int] = {}
    for node, space in world.spaces.items():
        for resource in space.resources():
            if resource.name == name and resource.is_master:
                for lock in resource.granted:
                    holder = lock.nodeid or node
                    found[holder] = found.get(holder, 0) + 1
    return found
