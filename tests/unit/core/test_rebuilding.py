"""Locks and value blocks after a recovery: at the old master, at a new one, without a directory.

Sources: Linux 6.1 fs/dlm/recover.c, lock.c (dlm_recover_master_copy(), …_process_copy()); the
value-block rows as seen on two real 6.1.192 nodes.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from dlm.core.blocks import LockBlock
from dlm.core.messages import MessageType, RecoveryMessage, RecoveryType
from dlm.terms import ResourceFlag, StatusFlag
from tests.unit.core.world import (
    BLOCKS,
    CR,
    CW,
    EX,
    GRANTED,
    NL,
    PR,
    PW,
    F,
    World,
    types,
    value,
)

T, R = MessageType, RecoveryType
VALNOTVALID = int(ResourceFlag.VALNOTVALID)
ZEROS = bytes(32)

# ---- locks --------------------------------------------------------------------------------------


def three_queues(world: World, dying: int, nodes: tuple[int, ...]) -> tuple[bytes, dict[str, int]]:
    """Let ``dying`` master a name with locks of the others on all three queues."""
    name = world.name(directory=dying, then=nodes[0])
    world.user(dying).lock(name, NL)
    world.deliver()
    users = [world.user(node) for node in nodes]
    locks = {"granted": users[0].lock(name, PR)}
    world.deliver()
    locks["converting"] = users[-1].lock(name, NL)
    world.deliver()
    users[-1].convert(locks["converting"], EX)
    world.deliver()
    locks["waiting"] = users[-1].lock(name, CR)
    world.deliver()
    return name, locks


@pytest.mark.parametrize("nodes", [(1,), (1, 2), (2, 1)])
def test_locks_of_all_queues_come_to_the_new_master(nodes: tuple[int, ...]) -> None:
    """Granted, converting and waiting locks keep their queue and modes at the new master."""
    world = World(1, 2, 3).up()
    name, locks = three_queues(world, 3, nodes)

    world.survive(3)

    master = world.master(name)
    assert master in nodes
    resource = world.resource(master, name)

    def seen(queue: list[LockBlock]) -> list[tuple[int, int, int, int]]:
        return [
            (
                each.nodeid or master,
                each.remote_id if each.nodeid else each.lock_id,
                each.granted_mode,
                each.requested_mode,
            )
            for each in queue
        ]

    assert seen(resource.granted) == [(nodes[0], locks["granted"], PR, -1)]
    assert seen(resource.converting) == [(nodes[-1], locks["converting"], NL, EX)]
    assert seen(resource.waiting) == [(nodes[-1], locks["waiting"], -1, CR)]
    for node in set(nodes) - {master}:
        for each in (*world.resource(node, name).granted, *world.resource(node, name).converting):
            copy = world.lock(master, each.remote_id)
            assert (each.nodeid, copy.nodeid, copy.remote_id) == (master, node, each.lock_id)


def test_locks_that_were_rebuilt_go_on_as_before() -> None:
    """After the granted lock goes, the conversion is granted, and then the waiting lock."""
    world = World(1, 2, 3).up()
    name = world.name(directory=3, then=1)
    world.user(3).lock(name, NL)
    first, second = world.user(1), world.user(2)
    granted = first.lock(name, PR)
    world.deliver()
    converting = second.lock(name, NL)
    world.deliver()
    second.convert(converting, EX)
    world.deliver()
    waiting = second.lock(name, CR)
    world.deliver()
    first.results()
    second.results()
    world.survive(3)
    assert world.master(name) == 1
    assert first.results() == second.results() == [], "it has been told before that it blocks"

    first.unlock(granted)
    world.deliver()
    assert second.results() == [(converting, GRANTED), (BLOCKS, converting, CR)]
    second.convert(converting, NL)
    world.deliver()

    assert second.results() == [(converting, GRANTED), (waiting, GRANTED)]


def test_a_lock_that_the_new_master_does_not_know_of_is_sent_again() -> None:
    """EBADR says that the new master is not one yet: the same lock is sent again, until it is."""
    world = World(1, 2, 3).up()
    name, locks = _two_survivors(world)
    world.held = types(R.LOCK)
    world.crash(3)
    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)
    ((source, target, question),) = world.kept
    assert question.lock is not None
    before = len(world.sent)

    refusal = RecoveryMessage(
        R.LOCK_REPLY,
        id=question.id,
        sequence_reply=question.sequence,
        lock=replace(question.lock, result=-errno.EBADR),
    )
    world.kept.clear()
    world.send(target, source, refusal)

    ((again_from, again_to, again),) = world.messages(R.LOCK, before)
    assert (again_from, again_to, again.lock) == (source, target, question.lock)
    assert world.spaces[source].stopped
    world.release()
    world.settle(40)
    assert not world.spaces[source].stopped
    assert _copies(world, name) == 1
    assert world.lock(source, locks[source]).remote_id


def test_a_lock_that_came_twice_is_one_lock() -> None:
    """A recovery cut short after a lock was rebuilt: the next one finds it there (EEXIST)."""
    world = World(1, 2, 3).up()
    name, locks = _two_survivors(world)
    world.held = types(R.LOCK_REPLY)
    world.crash(3)
    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)
    assert _copies(world, name) == 1
    assert len(world.kept) == 1

    world.stop(1, 2)
    world.let_through()
    before = len(world.sent)
    world.start(1, 2)
    world.settle(40)

    ((_, holder, reply),) = world.messages(R.LOCK_REPLY, before)
    assert reply.lock is not None
    assert reply.lock.result == -errno.EEXIST
    assert _copies(world, name) == 1
    assert world.lock(holder, locks[holder]).remote_id == reply.lock.remote_id


def test_a_node_without_the_resource_refuses_a_lock_of_it() -> None:
    """EBADR: in recovery no resource is made for somebody else's lock."""
    world = World(1, 2, 3).up()
    _, _ = _two_survivors(world)
    world.held = types(R.LOCK)
    world.crash(3)
    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)
    ((source, target, question),) = world.kept
    assert question.lock is not None
    before = len(world.sent)

    unknown = replace(question, lock=replace(question.lock, name=b"nowhere"))
    world.held = types(R.LOCK_REPLY)
    world.send(source, target, unknown)

    ((_, _, reply),) = world.messages(R.LOCK_REPLY, before)
    assert reply.lock is not None
    assert reply.lock.result == -errno.EBADR


def _two_survivors(world: World) -> tuple[bytes, dict[int, int]]:
    """Let node 3 master a name on which 1 and 2 hold CR."""
    name = world.name(directory=3, then=1)
    world.user(3).lock(name, NL)
    world.deliver()
    locks = {node: world.user(node).lock(name, CR) for node in (1, 2)}
    world.deliver()
    return name, locks


def _copies(world: World, name: bytes) -> int:
    return sum(
        each.is_master_copy
        for space in world.spaces.values()
        for resource in space.resources()
        if resource.name == name
        for each in resource.granted
    )


@pytest.mark.parametrize("mode", [NL, CR, PR, EX])
def test_locks_of_a_node_that_is_gone_go_without_a_word(mode: int) -> None:
    """The surviving master drops its copies, from any queue, and grants what that sets free."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    user = world.user(1)
    held = user.lock(name, NL)
    other = world.user(2)
    other.lock(name, mode)
    world.deliver()
    wanted = user.lock(name, EX)
    other.lock(name, EX)
    world.deliver()

    world.survive(2)

    assert {each.nodeid for each in world.resource(1, name).granted} == {0}
    assert [each for each in user.results() if each[0] is not BLOCKS] == [
        (held, GRANTED),
        (wanted, GRANTED),
    ]
    assert world.resource(1, name).waiting == []


def test_a_resource_that_nobody_left_has_vanishes() -> None:
    """Without a surviving lock, neither a resource nor a directory entry is left."""
    world = World(1, 2, 3).up()
    for directory in (1, 2, 3):
        world.user(3).lock(world.name(directory=directory), EX)
        world.deliver()

    world.survive(3)

    assert [space.resources() + space.tossed() for space in world.spaces.values()] == [[], []]


def test_masters_that_live_stay_masters() -> None:
    """When nodes only join, nothing is purged, looked up or sent anew."""
    world = World(1, 2, 3)
    world.start(2, 3)
    world.settle(40)
    user = world.user(3)
    names = [b"n%d" % number for number in range(12)]
    for name in names:
        user.lock(name, CR)
        world.deliver()
    masters = {name: world.master(name) for name in names}
    world.stop(2, 3)
    before = len(world.sent)

    world.start(1, 2, 3)
    world.settle(40)

    assert {name: world.master(name) for name in names} == masters
    assert not world.messages(R.LOOKUP, before)
    assert not world.messages(R.LOCK, before)
    newcomer = world.user(1)
    for name in names:
        newcomer.lock(name, CR)
    world.deliver()
    assert len(newcomer.results()) == len(names)
    assert {name: world.master(name) for name in names} == masters


@pytest.mark.parametrize("survivors", [(1, 2), (2, 3), (1, 3)])
def test_nodes_and_directory_agree_on_every_master(survivors: tuple[int, ...]) -> None:
    """After a death each name in use has one master, whom its directory node names too."""
    world = World(1, 2, 3).up()
    names = [b"n%d" % number for number in range(30)]
    users = {node: world.user(node) for node in world.nodes}
    for at, name in enumerate(names):
        for node in (1 + at % 3, 1 + (at + 1 + at // 3 % 2) % 3):
            users[node].lock(name, CR)
            world.deliver()
    (dying,) = set(world.nodes) - set(survivors)

    world.survive(dying)

    for name in names:
        holders = [n for n in survivors if name in [r.name for r in world.spaces[n].resources()]]
        if not holders:
            continue
        master = world.master(name)
        for node, space in world.spaces.items():
            for each in (*space.resources(), *space.tossed()):
                if each.name == name:
                    assert each.master == master, (node, name)
        directory = world.resource(master, name).directory_node
        known = [*world.spaces[directory].resources(), *world.spaces[directory].tossed()]
        assert [each.master for each in known if each.name == name] == [master]


# ---- without a directory ------------------------------------------------------------------------


def test_without_a_directory_the_hash_gives_the_master() -> None:
    """No lookup is ever sent; each name's master is the node that its hash chooses."""
    world = World(1, 2, 3).without_directory().up()
    user = world.user(2)
    for directory in (1, 2, 3):
        for number in range(3):
            lock_id = user.lock(world.name(directory, number), CR)
            world.deliver()
            assert user.results() == [(lock_id, GRANTED)]
            assert world.master(world.name(directory, number)) == directory

    assert not world.messages(T.LOOKUP)
    assert not world.messages(R.NAMES)


def test_without_a_directory_all_is_rebuilt_each_time() -> None:
    """A stop and a start send every lock to its master again, and nothing is lost or doubled."""
    world = World(1, 2, 3).without_directory().up()
    users = {node: world.user(node) for node in world.nodes}
    names = [world.name(directory, number) for directory in (1, 2, 3) for number in range(2)]
    for name in names:
        for user in users.values():
            user.lock(name, CR)
        world.deliver()
    for _ in range(2):
        before = len(world.sent)
        world.stop(1, 2, 3)
        world.start(1, 2, 3)
        world.settle(40)

        assert len(world.messages(R.LOCK, before)) == 2 * len(names)
        for name in names:
            granted = world.resource(world.master(name), name).granted
            assert sorted(each.nodeid or world.master(name) for each in granted) == [1, 2, 3]

    world.survive(1)

    for name in names:
        granted = world.resource(world.master(name), name).granted
        assert sorted(each.nodeid or world.master(name) for each in granted) == [2, 3]


def test_a_lock_that_comes_to_the_wrong_static_master() -> None:
    """Without a directory a node takes only locks on names that hash to it: else EBADR."""
    world = World(1, 2).without_directory().up()
    name = world.name(directory=2)
    world.user(1).lock(name, CR)
    world.deliver()
    world.held = types(R.LOCK)
    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)
    ((source, target, question),) = world.kept
    assert question.lock is not None
    before = len(world.sent)

    world.held = types(R.LOCK_REPLY)
    wrong = replace(question.lock, name=world.name(directory=1))
    world.send(source, target, replace(question, lock=wrong))

    ((_, _, reply),) = world.messages(R.LOCK_REPLY, before)
    assert reply.lock is not None
    assert reply.lock.result == -errno.EBADR


def test_nodir_moves_what_a_directory_had_placed() -> None:
    """Set while running, it takes hold at the next recovery, and masters move.

    What is no master any more forgets that its value block was not valid.
    """
    world = World(1, 2).up()
    name = world.name(directory=1)
    closing = world.user(2)
    closing.lock(name, EX)
    world.deliver()
    kept = world.user(2).lock(name, NL)
    world.deliver()
    assert world.master(name) == 2
    closing.close()
    assert world.resource(2, name).flags & VALNOTVALID

    world.without_directory()
    world.stop(1, 2)
    world.start(1, 2)
    world.settle(40)

    assert world.master(name) == 1
    assert not world.resource(2, name).flags & VALNOTVALID
    assert world.lock(2, kept).nodeid == 1


def test_without_a_directory_a_copy_from_before_is_no_copy() -> None:
    """A grant that came while its holder was stopped is dropped: the lock is granted once more.

    Quirk: a 6.1 kernel that gets a lock before it has purged its copies keeps the old copy, and
    the holder waits for ever.
    """
    world = World(1, 2).without_directory().up()
    name = world.name(directory=2)
    holder = world.user(2)
    held = holder.lock(name, EX)
    user = world.user(1)
    lock_id = user.lock(name, PR)
    world.deliver()
    world.stop(1)
    holder.unlock(held)
    world.deliver()
    assert world.messages(T.GRANT)
    world.stop(2)

    world.start(1, 2)
    world.settle(40)

    assert user.results() == [(lock_id, GRANTED)]
    (copy,) = world.resource(2, name).granted
    assert world.lock(1, lock_id).remote_id == copy.lock_id


# ---- value blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "flags", "valid"),
    [
        (EX, F.VALBLK, False),
        (PW, F.VALBLK, False),
        (PR, F.VALBLK, True),
        (NL, F.VALBLK, True),
        (EX, 0, True),
        (PW, 0, True),
    ],
)
def test_the_master_survives_a_holder(mode: int, flags: int, valid: bool) -> None:
    """A purged lock with VALBLK and PW or EX makes the block invalid; its bytes stay."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    user = world.user(1)
    lock_id = user.lock(name, EX, F.VALBLK)
    user.convert(lock_id, NL, F.VALBLK, value(b"written"))
    world.user(2).lock(name, mode, flags)
    world.deliver()
    user.results()

    world.survive(2)

    resource = world.resource(1, name)
    assert resource.value == value(b"written")
    assert bool(resource.flags & VALNOTVALID) != valid
    user.convert(lock_id, CR, F.VALBLK)
    (result,) = user.whole_results()
    assert (result.value, result.flags) == (
        value(b"written"),
        0 if valid else StatusFlag.VALNOTVALID,
    )


@pytest.mark.parametrize(
    ("mode", "flags", "written", "expected", "valid"),
    [
        (NL, F.VALBLK, b"e1", value(b"e1"), False),
        (CR, F.VALBLK, b"e3", value(b"e3"), False),
        (CW, F.VALBLK, b"e5", value(b"e5"), True),
        (PR, F.VALBLK, b"e2", value(b"e2"), True),
        (NL, F.VALBLK, None, ZEROS, False),
        (PR, F.VALBLK, None, ZEROS, True),
        (NL, 0, b"e4", None, True),
        (PR, 0, b"e4", None, True),
        (CR, 0, None, None, True),
    ],
)
def test_a_survivor_becomes_the_master(
    mode: int, flags: int, written: bytes | None, expected: bytes | None, valid: bool
) -> None:
    """The block comes from a lock with VALBLK: valid above CR, else kept but not valid; or lost."""
    world = World(1, 2).up()
    name = world.name(directory=2)
    old = world.user(2)
    first = old.lock(name, EX, F.VALBLK)
    if written is not None:
        old.convert(first, NL, F.VALBLK, value(written))
    else:
        old.convert(first, NL)
    user = world.user(1)
    lock_id = user.lock(name, mode, flags)
    world.deliver()
    user.results()

    world.survive(2)

    resource = world.resource(1, name)
    assert resource.value == expected
    assert bool(resource.flags & VALNOTVALID) != valid
    user.convert(lock_id, max(mode, CR), F.VALBLK)
    (result,) = user.whole_results()
    shown = not valid and expected is not None
    assert result.flags == (StatusFlag.VALNOTVALID if shown else 0)


@pytest.mark.parametrize("begin", [0, 0xFFFFFFFE])
def test_of_weak_locks_the_newest_block_counts(begin: int) -> None:
    """Where only NL and CR locks are left, the one with the highest sequence number gives it.

    Sequence numbers have 32 bits and go round.
    """
    world = World(1, 2, 3).up()
    name = world.name(directory=3)
    writer = world.user(3)
    lock_id = writer.lock(name, EX, F.VALBLK)
    world.resource(3, name).value_sequence = begin
    readers = {1: world.user(1), 2: world.user(2)}
    for node, text in ((2, b"old"), (1, b"new")):
        writer.convert(lock_id, NL, F.VALBLK, value(text))
        world.deliver()
        readers[node].lock(name, NL, F.VALBLK)
        world.deliver()
        writer.convert(lock_id, EX)
        world.deliver()

    world.survive(3)

    resource = world.resource(world.master(name), name)
    assert resource.value == value(b"new")
    assert resource.value_sequence == (begin + 2) & 0xFFFFFFFF
    assert resource.flags & VALNOTVALID


@pytest.mark.parametrize("operation", ["request", "conversion"])
def test_a_waiter_is_granted_what_the_dead_holder_had(operation: str) -> None:
    """A new EX finds no block and no remark; a conversion from NL zeros that are not valid."""
    world = World(1, 2).up()
    name = world.name(directory=2)
    world.user(2).lock(name, EX)
    user = world.user(1)
    lock_id = user.lock(name, NL if operation == "conversion" else EX, F.VALBLK)
    world.deliver()
    user.whole_results()
    if operation == "conversion":
        user.convert(lock_id, EX, F.VALBLK)
        world.deliver()
    assert user.results() == []

    world.survive(2)

    (result,) = user.whole_results()
    assert (result.lock_id, result.status, result.value) == (lock_id, GRANTED, ZEROS)
    assert result.flags == (StatusFlag.VALNOTVALID if operation == "conversion" else 0)
