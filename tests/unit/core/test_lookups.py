"""Locks that wait for another lock's master lookup, and lookups that are given up.

Only one request of a resource is under way while the master is not certain (Linux 6.1
fs/dlm/lock.c, set_master(), confirm_master(), process_lookup_list()).
"""

from __future__ import annotations

import errno

import pytest

from dlm.core.messages import LockMessage, MessageType
from tests.unit.core.world import (
    BLOCKS,
    CANCELLED,
    CR,
    EX,
    GRANTED,
    NL,
    PR,
    UNLOCKED,
    F,
    User,
    World,
    types,
)

T = MessageType


def looking(
    world: World, directory: int = 1, node: int = 2, mode: int = CR
) -> tuple[User, bytes, int]:
    """Let a user's lookup be under way, held back."""
    name = world.name(directory=directory)
    user = world.user(node)
    world.held = types(T.LOOKUP)
    return user, name, user.lock(name, mode)


@pytest.mark.parametrize("mastered", [0, 1, 3])
def test_only_one_lookup_is_under_way(mastered: int) -> None:
    """The others wait without a message, and go on when the first one's master is known.

    ``mastered``: which node masters the name already (0: none, so the asker becomes the master).
    """
    world = World(1, 2, 3).up()
    if mastered:
        world.user(mastered).lock(world.name(directory=1), NL)
        world.deliver()
    before = len(world.sent)
    user, name, first = looking(world)
    others = [user.lock(name, CR) for _ in range(3)]
    assert [each.lock_id for each in world.resource(2, name).lookups] == others
    assert len(world.sent) == before + 1

    world.release()

    assert user.results() == [(lock_id, GRANTED) for lock_id in (first, *others)]
    assert len(world.messages(T.LOOKUP)) == 1 + (mastered == 3)
    assert world.master(name) == (mastered or 2)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("mastered", [0, 1, 3])
def test_one_that_waited_may_be_refused(mastered: int, kernel: str) -> None:
    """NOQUEUE requests that waited for the lookup end with EAGAIN, and nothing of them stays."""
    world = World(1, 2, 3, kernel=kernel).up()
    if mastered:
        world.user(mastered).lock(world.name(directory=1), CR)
        world.deliver()
    user, name, first = looking(world)
    refused = [user.lock(name, EX, F.NOQUEUE) for _ in range(2)]

    world.release()

    assert user.results() == [
        (first, GRANTED),
        (refused[0], -errno.EAGAIN),
        (refused[1], -errno.EAGAIN),
    ]
    assert [world.spaces[2].lock(lock_id) for lock_id in refused] == [None, None]
    assert world.spaces[2].waiters() == []


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_the_first_one_may_be_refused(kernel: str) -> None:
    """When a NOQUEUE request that looked the master up is refused, the next one goes on."""
    world = World(1, 2, kernel=kernel).up()
    name = world.name(directory=1)
    holder = world.user(1)
    held = holder.lock(name, EX)
    user = world.user(2)
    world.held = types(T.LOOKUP)
    first = user.lock(name, CR, F.NOQUEUE)
    second = user.lock(name, CR)
    third = user.lock(name, NL)

    world.release()

    assert user.results() == [(first, -errno.EAGAIN)]
    assert holder.results() == [(held, GRANTED), (BLOCKS, held, CR)]
    holder.unlock(held)
    world.deliver()
    assert user.results() == [(second, GRANTED), (third, GRANTED)]


@pytest.mark.parametrize(("operation", "status"), [("cancel", CANCELLED), ("force", UNLOCKED)])
def test_one_that_waits_can_be_given_up(operation: str, status: int) -> None:
    """CANCEL and FORCEUNLOCK end it at once; a plain unlock is EBUSY."""
    world = World(1, 2).up()
    user, name, first = looking(world)
    second = user.lock(name, CR)
    third = user.lock(name, CR)

    assert user.unlock(second) == -errno.EBUSY
    assert getattr(user, operation)(second) == 0

    assert user.results() == [(second, status)]
    assert world.spaces[2].lock(second) is None
    world.release()
    assert user.results() == [(first, GRANTED), (third, GRANTED)]


@pytest.mark.parametrize("mastered", [0, 1, 3])
@pytest.mark.parametrize("operation", ["cancel", "force", "close"])
def test_the_lookup_itself_can_be_given_up(operation: str, mastered: int) -> None:
    """Nobody hangs when the lock that looks the master up is given up meanwhile.

    Quirk: where the answer names another node, a 6.1 kernel forgets those that wait for this
    lock's lookup.
    """
    world = World(1, 2, 3).up()
    if mastered:
        world.user(mastered).lock(world.name(directory=1), NL)
        world.deliver()
    user, name, first = looking(world)
    other = world.user(2)
    second = other.lock(name, CR)
    third = other.lock(name, CR)

    assert user.close() == 0 if operation == "close" else getattr(user, operation)(first) == 0
    world.release()

    assert other.results() == [(second, GRANTED), (third, GRANTED)]
    if operation != "close":
        status = {"cancel": [CANCELLED], "force": [UNLOCKED]}[operation]
        if mastered == 1:  # its lookup was taken for a request, and granted
            status = [GRANTED] if operation == "cancel" else [GRANTED, UNLOCKED]
        assert user.results() == [(first, each) for each in status]
    fourth = other.lock(name, CR)
    world.deliver()
    assert other.results() == [(fourth, GRANTED)]


def test_a_resource_whose_lookup_was_given_up_is_looked_up_again() -> None:
    """Without anybody left, the resource goes; the next lock begins afresh."""
    world = World(1, 2, 3).up()
    world.user(3).lock(world.name(directory=1), NL)
    world.deliver()
    user, name, first = looking(world)
    user.cancel(first)
    world.release()
    assert user.results() == [(first, CANCELLED)]
    assert world.spaces[2].resources() == []

    again = user.lock(name, CR)
    world.deliver()

    assert user.results() == [(again, GRANTED)]
    assert world.master(name) == 3


@pytest.mark.parametrize("mode", [NL, EX])
def test_an_unused_resource_is_asked_of_its_last_master(mode: int) -> None:
    """A tossed resource keeps its master, which may be stale: one request finds out for all."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, NL)
    user = world.user(2)
    user.lock(name, CR)
    world.deliver()
    user.unlock(user.results()[0][0])
    world.deliver()
    user.results()
    assert [entry.master for entry in world.spaces[2].tossed()] == [1]
    before = len(world.sent)

    first = user.lock(name, mode)
    second = user.lock(name, NL)
    assert [message.type for _, _, message in world.sent[before:]] == [T.REQUEST]
    world.deliver()

    assert user.results() == [(first, GRANTED), (second, GRANTED)]


@pytest.mark.parametrize("error", [errno.ENOTBLK, errno.EBADR])
def test_a_request_to_the_wrong_master_is_looked_up_anew(error: int) -> None:
    """ENOTBLK and EBADR say "not me": the directory node is asked, and the request goes there."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    world.user(3).lock(name, NL)
    user = world.user(2)
    other = user.lock(name, NL)
    world.deliver()
    user.results()
    world.held = types(T.REQUEST)
    first = user.lock(name, PR)
    world.let_through()
    before = len(world.sent)

    reply = LockMessage(T.REQUEST_REPLY, nodeid=2, remote_id=first, result=-error)
    world.send(3, 2, reply)

    assert [message.type for source, _, message in world.sent[before:] if source == 2] == [
        T.LOOKUP,
        T.REQUEST,
    ]
    assert user.results() == [(first, GRANTED)]
    assert world.lock(2, other).granted_mode == NL


@pytest.mark.parametrize(("operation", "status"), [("cancel", CANCELLED), ("force", UNLOCKED)])
def test_a_request_to_the_wrong_master_that_was_given_up(operation: str, status: int) -> None:
    """It is not sent again, and those that wait for it go on."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    world.user(3).lock(name, NL)
    user = world.user(2)
    lock_id = user.lock(name, NL)
    world.deliver()
    user.unlock(lock_id)
    world.deliver()
    user.results()
    world.held = types(T.REQUEST)
    first = user.lock(name, PR)
    second = user.lock(name, PR)
    getattr(user, operation)(first)
    world.let_through()

    world.send(3, 2, LockMessage(T.REQUEST_REPLY, nodeid=2, remote_id=first, result=-errno.EBADR))

    assert user.results() == [(first, status), (second, GRANTED)]
    assert world.spaces[2].lock(first) is None


def test_a_directory_node_that_is_none_any_more() -> None:
    """A lookup that reaches a node which does not keep the name gets -1, and is repeated."""
    world = World(1, 2).up()
    user, name, first = looking(world)
    world.let_through()

    world.send(1, 2, LockMessage(T.LOOKUP_REPLY, lock_id=first, nodeid=-1))

    assert user.results() == [(first, GRANTED)]
    assert len(world.messages(T.LOOKUP)) == 2
    assert world.master(name) == 2
