"""Directory entries: who keeps them, when they go, and what happens when that crosses a request.

Sources: Linux 6.1 fs/dlm/lock.c (shrink_bucket(), receive_remove(), send_repeat_remove(),
find_rsb_dir()), dir.c (dlm_hash2nodeid()), member.c (make_member_array()).
"""

from __future__ import annotations

import errno

import pytest

from dlm.core.events import Timer, Tune
from dlm.core.messages import LockMessage, MessageType
from dlm.core.modes import hash_name
from tests.unit.core.world import CR, EX, GRANTED, NL, UNLOCKED, User, World, types

T = MessageType
SECOND = 1_000_000_000


def scan(world: World, node: int, after: float = 11) -> None:
    """Let a node look at its unused resources after so many seconds."""
    world.now += int(after * SECOND)
    world.fire(node, Timer.TOSS_SCAN)
    world.deliver()


def use(user: User, name: bytes, mode: int = CR) -> None:
    """Lock and unlock."""
    lock_id = user.lock(name, mode)
    user.world.deliver()
    user.unlock(lock_id)
    user.world.deliver()
    assert user.results() == [(lock_id, GRANTED), (lock_id, UNLOCKED)]


def entries(world: World) -> dict[int, list[int]]:
    """Return the masters that each node's unused resources name."""
    return {node: [each.master for each in s.tossed()] for node, s in world.spaces.items()}


# ---- who keeps an entry -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({}, {1: 1, 2: 1, 3: 1}),
        ({1: 0}, {2: 1, 3: 1}),
        ({1: 0, 2: 0}, {3: 1}),
        ({1: 0, 2: 0, 3: 0}, {1: 1, 2: 1, 3: 1}),
        ({1: 3, 2: 0}, {1: 3, 3: 1}),
        ({1: 1, 2: 2, 3: 5}, {1: 1, 2: 2, 3: 5}),
    ],
)
def test_directory_entries_go_by_weight(weights: dict[int, int], shares: dict[int, int]) -> None:
    """Members keep entries as their weights say; weight 0 keeps none, all of 0 count as 1."""
    world = World(1, 2, 3, weights=weights).up()
    user = world.user(1)
    for number in range(240):
        user.lock(b"resource %d" % number, NL)
        world.deliver()

    kept = [each.directory_node for each in world.spaces[1].resources()]

    assert set(kept) == set(shares)
    for node, share in shares.items():
        assert kept.count(node) == pytest.approx(240 * share / sum(shares.values()), rel=0.35)


def test_the_upper_half_of_the_hash_chooses() -> None:
    """The directory node is members, in order of id, at (hash >> 16) modulo their number."""
    world = World(3, 7, 20).up()
    user = world.user(7)
    for number in range(40):
        user.lock(b"%d" % number, NL)
        world.deliver()

    for each in world.spaces[7].resources():
        assert each.directory_node == [3, 7, 20][(hash_name(each.name) >> 16) % 3]


def test_the_only_member_keeps_all() -> None:
    """With one member no message is sent at all."""
    world = World(5).up()
    use(world.user(5), b"a")

    assert world.sent == []
    assert entries(world) == {5: [5]}


# ---- how it goes --------------------------------------------------------------------------------


def test_an_unused_resource_goes_and_its_directory_node_hears_of_it() -> None:
    """After toss_secs the master frees it and sends REMOVE: the entry goes as well."""
    world = World(1, 2).up()
    use(world.user(2), world.name(directory=1))
    assert entries(world) == {1: [2], 2: [2]}
    assert world.timers[2, Timer.TOSS_SCAN] == 5.0

    scan(world, 2, after=5)
    assert entries(world) == {1: [2], 2: [2]}
    assert world.timers[2, Timer.TOSS_SCAN] == 5.0
    scan(world, 2, after=5)

    assert entries(world) == {1: [], 2: []}
    assert [each[:2] for each in world.messages(T.REMOVE)] == [(2, 1)]
    assert (2, Timer.TOSS_SCAN) not in world.timers


def test_the_directory_node_waits_for_the_master() -> None:
    """An entry of its own accord never goes, however old: the master may still use the name."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(2).lock(name, CR)
    world.deliver()
    use(world.user(1), name)
    assert entries(world) == {1: [2], 2: []}

    scan(world, 1, after=1000)

    assert entries(world) == {1: [2], 2: []}
    assert (1, Timer.TOSS_SCAN) not in world.timers, "nothing to look at until something is tossed"


def test_what_a_bystander_knew_goes_without_a_word() -> None:
    """A node that is neither master nor directory node frees what it does not use."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    world.user(2).lock(name, CR)
    world.deliver()
    use(world.user(3), name)
    assert entries(world)[3] == [2]
    before = len(world.sent)

    scan(world, 3)

    assert entries(world)[3] == []
    assert len(world.sent) == before


def test_tuned_times_count() -> None:
    """toss_secs and scan_secs are heeded as soon as they are written."""
    world = World(1).up()
    world.step(1, Tune(toss_secs=2, scan_secs=1))
    use(world.user(1), b"a")
    assert world.timers[1, Timer.TOSS_SCAN] == 1.0

    scan(world, 1, after=2)

    assert entries(world) == {1: []}


def test_nothing_goes_while_locking_is_off() -> None:
    """A scan while the lockspace is stopped frees nothing, and comes again."""
    world = World(1).up()
    use(world.user(1), b"a")
    world.stop(1)

    scan(world, 1, after=100)

    assert entries(world) == {1: [1]}
    assert (1, Timer.TOSS_SCAN) in world.timers
    world.start(1)
    assert entries(world) == {1: []}, "a recovery frees all of them"


def test_use_makes_it_young_again() -> None:
    """toss_secs count from the last time that a resource fell out of use."""
    world = World(1).up()
    user = world.user(1)
    use(user, b"a")
    world.now += 8 * SECOND
    use(user, b"a")

    scan(world, 1, after=8)

    assert entries(world) == {1: [1]}


# ---- races --------------------------------------------------------------------------------------


def test_a_remove_that_crosses_the_directory_nodes_own_request() -> None:
    """The directory node uses the name meanwhile: it ignores REMOVE, and the master makes it anew.

    A request from the directory node says who is the master.
    """
    world = World(1, 2).up()
    name = world.name(directory=1)
    use(world.user(2), name)
    world.held = types(T.REMOVE, T.REQUEST)
    user = world.user(1)
    lock_id = user.lock(name, EX)
    assert user.results() == []
    scan(world, 2)
    assert entries(world)[2] == []

    world.release()

    assert user.results() == [(lock_id, GRANTED)]
    assert world.master(name) == 2


@pytest.mark.parametrize("lost", [False, True])
def test_a_request_that_crosses_a_remove(lost: bool) -> None:
    """A third node was sent to a master that has just freed the name: it is told, and asks again.

    ``lost``: the directory node never got REMOVE. The node that refuses (EBADR) sends it again.
    """
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    use(world.user(2), name)
    user = world.user(3)
    world.held = types(T.REMOVE)
    scan(world, 2)
    lock_id = user.lock(name, EX)
    if not lost:
        world.wire.extend(world.kept)
    world.let_through()
    world.deliver()

    assert user.results() == [(lock_id, GRANTED)]
    assert world.master(name) == 3
    assert entries(world)[1] == [3]
    assert [each[:2] for each in world.messages(T.REMOVE)] == [(2, 1), (2, 1)]


def test_a_request_of_a_bystander_with_a_stale_master() -> None:
    """The master it remembers has freed the name, another node has it now: it is looked up anew."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    first = world.user(2)
    held = first.lock(name, CR)
    world.deliver()
    user = world.user(3)
    use(user, name)
    first.unlock(held)
    first.results()
    scan(world, 2)
    world.user(1).lock(name, CR)
    assert entries(world)[3] == [2]
    assert world.master(name) == 1

    lock_id = user.lock(name, CR)
    world.deliver()

    assert user.results() == [(lock_id, GRANTED)]
    assert world.lock(3, lock_id).nodeid == 1


def test_two_nodes_ask_for_a_name_at_once() -> None:
    """The first lookup to arrive makes its sender the master; the other one is sent there.

    Its request may come before the master knows that it is one: ENOTBLK, and it asks again.
    """
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    users = {node: world.user(node) for node in (2, 3)}
    world.held = lambda source, target, _: (source, target) == (1, 2)
    locks = {node: users[node].lock(name, CR) for node in (2, 3)}
    for _ in range(30):
        world.deliver_one()
    assert users[2].results() == users[3].results() == []
    refusals = [message.result for _, _, message in world.messages(T.REQUEST_REPLY)]
    assert len(refusals) > 3
    assert set(refusals) == {-errno.ENOTBLK}

    world.release()

    assert [users[node].results() for node in (2, 3)] == [[(locks[n], GRANTED)] for n in (2, 3)]
    assert world.master(name) == 2


@pytest.mark.parametrize(("source", "name_of", "kept"), [(3, 1, True), (2, 1, False), (2, 2, True)])
def test_whose_remove_counts(source: int, name_of: int, kept: bool) -> None:
    """REMOVE is heeded from the master that the entry names, at the name's directory node."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    use(world.user(2), name)
    assert entries(world)[1] == [2]
    hashed = hash_name(world.name(directory=name_of))

    world.send(source, 1, LockMessage(T.REMOVE, hash=hashed, name=name))

    assert entries(world)[1] == ([2] if kept else [])


def test_a_remove_of_what_the_directory_node_uses_is_ignored() -> None:
    """The entry is the resource itself then."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(2).lock(name, CR)
    world.deliver()
    world.user(1).lock(name, CR)
    world.deliver()

    world.send(2, 1, LockMessage(T.REMOVE, hash=hash_name(name), name=name))

    assert world.resource(1, name).master == 2


# ---- lock ids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "again"), [("5.10", 3), ("6.1", 3), ("6.12", 2), ("7.2", 2)])
def test_when_a_lock_id_is_free(kernel: str, again: int) -> None:
    """The lowest free id is next; up to 6.9 one is free only when its last result was read."""
    world = World(1, kernel=kernel).up()
    user = world.user(1)
    assert [user.lock(b"a", NL), user.lock(b"b", NL)] == [1, 2]
    user.unlock(2)

    assert user.lock(b"c", NL) == again
    user.results()
    user.unlock(1)
    user.results()

    assert user.lock(b"d", NL) == 1


def test_copies_of_other_nodes_locks_take_ids_too() -> None:
    """A master copy has an id of the master's own; it is free as soon as the copy goes."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    local, remote = world.user(1), world.user(2)
    assert local.lock(name, NL) == 1
    lock_id = remote.lock(name, NL)
    world.deliver()
    assert local.lock(name, NL) == 3
    assert world.lock(2, lock_id).remote_id == 2

    remote.unlock(lock_id)
    world.deliver()

    assert local.lock(name, NL) == 2
