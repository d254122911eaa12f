"""Messages as values: what they carry, which of them are ignored; and the machine's purity."""

from __future__ import annotations

import dataclasses
import errno
import random
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum

import pytest

from dlm.core.events import Deliver, Timer
from dlm.core.messages import (
    LockMessage,
    MessageType,
    RebuiltLock,
    RecoveryMessage,
    RecoveryType,
)
from dlm.terms import NodeId, RecoverStatus
from tests.unit.core.world import BLOCKS, CR, EX, GRANTED, NL, PR, F, World, types, value

T, R = MessageType, RecoveryType

# ---- a scenario that sends everything -----------------------------------------------------------


def scenario(seed: int, kernel: str = "6.1") -> World:
    """Let three nodes lock and recover at random; one dies, and comes back, twice."""
    chance = random.Random(seed)
    world = World(1, 2, 3, kernel=kernel).up()
    users = {node: [world.user(node) for _ in range(2)] for node in world.nodes}
    locks: dict[int, list[int]] = {node: [1] for node in world.nodes}
    for round_ in range(3):
        for _ in range(120):
            node = chance.choice(sorted(world.spaces))
            user = chance.choice(users[node])
            flags = chance.choice((0, F.NOQUEUE, F.VALBLK, F.PERSISTENT, F.ALTPR | F.VALBLK))
            mode, lock_id = chance.randrange(6), chance.choice(locks[node][-8:])
            kind = chance.randrange(10)
            if kind < 4:
                locks[node].append(user.lock(b"r%d" % chance.randrange(6), mode, flags))
            elif kind < 7:
                user.convert(lock_id, mode, flags, value(b"%d" % chance.randrange(99)))
            elif kind < 9:
                user.unlock(lock_id, chance.choice((0, 0, F.CANCEL, F.FORCEUNLOCK)))
            else:
                user.results()
            for _ in range(chance.randrange(4)):
                if world.wire:
                    world.deliver_one()
        if round_ < 2:
            world.survive(3)
            world.spaces |= World(3, kernel=kernel).spaces
            world.dead.clear()
            users[3] = [world.user(3) for _ in range(2)]
            world.stop(1, 2)
            world.start(1, 2, 3, new=[3])
            world.settle(60)
    users[1][0].purge(2, 0)
    for number in range(6):
        users[2][0].lock(b"once %d" % number, NL)
    world.deliver()
    for node in world.nodes:
        for each in users[node]:
            each.results()
            each.close()
        world.deliver()
    world.now += 20_000_000_000
    for node in world.nodes:
        if (node, Timer.TOSS_SCAN) in world.timers:
            world.fire(node, Timer.TOSS_SCAN)
            world.deliver()
    return world


PLAIN = (int, bool, bytes, type(None))


def leaves(thing: object) -> Iterator[object]:
    """Walk a message down to what is no tuple and no message's part."""
    if isinstance(thing, LockMessage | RecoveryMessage | RebuiltLock):
        for field in dataclasses.fields(thing):
            yield from leaves(getattr(thing, field.name))
    elif isinstance(thing, tuple):
        for each in thing:
            yield from leaves(each)
    else:
        yield thing


def test_messages_are_values_that_could_be_encoded() -> None:
    """Whatever is sent is numbers, bytes, and tuples of them: nothing of a node's own state."""
    world = scenario(1)

    kinds = {message.type.name for _, _, message in world.sent}
    assert kinds == {*T.__members__, *R.__members__}
    for _, _, message in world.sent:
        for leaf in leaves(message):
            assert type(leaf) in PLAIN or isinstance(leaf, IntEnum), (message, leaf)
            if isinstance(leaf, int):
                assert -(1 << 31) <= leaf < 1 << 32
    names = {len(name) for _, _, message in world.sent for name in (message.name,)}
    assert max(names) <= 64


def test_messages_cannot_be_changed() -> None:
    """A message that was sent stays what it was: both its kinds are frozen, down to the leaves."""
    for message in (LockMessage(T.GRANT), RecoveryMessage(R.STATUS)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            message.result = 1  # type: ignore[misc]
        assert hash(message) == hash(replace(message))


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize("seed", [2, 3])
def test_the_same_inputs_bring_the_same_outputs(seed: int, kernel: str) -> None:
    """The machine is pure: a scenario run twice gives equal outputs, in the same order."""
    assert scenario(seed, kernel).outputs == scenario(seed, kernel).outputs


def test_two_lockspaces_share_nothing() -> None:
    """A second machine in the same program does not change what the first one does."""
    alone = scenario(4).outputs
    World(1, 2, 3).up().user(1).lock(b"r1", EX)

    assert scenario(4).outputs == alone


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("seed", range(5, 9))
def test_nothing_is_left_when_all_files_are_closed(seed: int, kernel: str) -> None:
    """When every file is closed and all is settled, only orphans and those they block are left.

    Of the orphans those are dead whose request waited when its file closed: on no queue.
    """
    world = scenario(seed, kernel)

    for node, space in world.spaces.items():
        assert space.waiters() == []
        for resource in space.resources():
            for lock in (*resource.granted, *resource.converting, *resource.waiting):
                orphan = lock.lock_id if not lock.nodeid else lock.remote_id
                owner = world.lock(lock.nodeid or node, orphan)
                assert owner.flags & 2 or lock.nodeid, (seed, node, lock.lock_id)
        for lock_id in range(1, 400):
            lock = space.lock(lock_id)
            assert lock is None or lock.status or lock.flags & 2, (seed, node, lock_id)


# ---- what does not fit --------------------------------------------------------------------------


def picture(world: World) -> list[object]:
    """Return all that can be seen of locks and resources."""
    return [
        (
            node,
            [
                (
                    each.name,
                    each.master,
                    each.nodeid,
                    each.value,
                    each.flags,
                    *(
                        [(k.lock_id, k.granted_mode, k.requested_mode, k.exflags) for k in queue]
                        for queue in (each.granted, each.converting, each.waiting)
                    ),
                )
                for each in (*space.resources(), *space.tossed())
            ],
            [lock.lock_id for lock in space.waiters()],
            space.recover_status,
        )
        for node, space in world.spaces.items()
    ]


LOCAL, COPY, REMOTE = 1, 2, 1
"""On node 1: its own lock and the copy of node 2's; on node 2: that lock."""

STRAY = {
    "grant of a lock that does not exist": (1, 2, LockMessage(T.GRANT, remote_id=99), ""),
    "grant of the master's own lock": (2, 1, LockMessage(T.GRANT, remote_id=LOCAL), "ignore"),
    "grant of a copy": (2, 1, LockMessage(T.GRANT, remote_id=COPY), "ignore"),
    "grant from another node": (3, 2, LockMessage(T.GRANT, remote_id=REMOTE), "ignore"),
    "bast of a lock that does not exist": (1, 2, LockMessage(T.BAST, remote_id=99), ""),
    "bast from another node": (3, 2, LockMessage(T.BAST, remote_id=REMOTE), "ignore"),
    "conversion of the master's own lock": (
        2,
        1,
        LockMessage(T.CONVERT, remote_id=LOCAL),
        "ignore",
    ),
    "conversion from another node": (
        3,
        1,
        LockMessage(T.CONVERT, remote_id=COPY, lock_id=REMOTE, requested_mode=EX),
        "ignore",
    ),
    "unlock from another node": (
        3,
        1,
        LockMessage(T.UNLOCK, remote_id=COPY, lock_id=REMOTE),
        "ignore",
    ),
    "cancel from another node": (
        3,
        1,
        LockMessage(T.CANCEL, remote_id=COPY, lock_id=REMOTE, exflags=77),
        "ignore",
    ),
    "reply that nobody waits for": (
        1,
        2,
        LockMessage(T.REQUEST_REPLY, remote_id=REMOTE),
        "remwait",
    ),
    "reply of a conversion that nobody waits for": (
        1,
        2,
        LockMessage(T.CONVERT_REPLY, remote_id=REMOTE),
        "remwait",
    ),
    "reply of an unlock that nobody waits for": (
        1,
        2,
        LockMessage(T.UNLOCK_REPLY, remote_id=REMOTE, result=-0x10002),
        "remwait",
    ),
    "reply of a cancel that nobody waits for": (
        1,
        2,
        LockMessage(T.CANCEL_REPLY, remote_id=REMOTE, result=-0x10001),
        "",
    ),
    "reply of a lookup that nobody waits for": (
        1,
        2,
        LockMessage(T.LOOKUP_REPLY, lock_id=REMOTE, nodeid=3),
        "remwait",
    ),
    "reply of a lookup of no lock": (1, 2, LockMessage(T.LOOKUP_REPLY, lock_id=99, nodeid=3), ""),
    "message of a stranger": (
        9,
        1,
        LockMessage(T.UNLOCK, remote_id=COPY, lock_id=REMOTE),
        "receive 3 from non-member 9",
    ),
    "answer to no question": (2, 1, RecoveryMessage(R.STATUS_REPLY, id=1, result=0xFF), ""),
    "names that nobody asked for": (2, 1, RecoveryMessage(R.NAMES_REPLY, names=(b"x",)), ""),
    "master that nobody asked for": (2, 1, RecoveryMessage(R.LOOKUP_REPLY, id=1, result=2), ""),
    "lock that nobody sent": (2, 1, RecoveryMessage(R.LOCK_REPLY, id=1), ""),
}


@pytest.mark.parametrize("label", STRAY)
def test_messages_that_do_not_fit_are_ignored(label: str) -> None:
    """A message for a lock that is another's, or in another state, changes nothing."""
    source, target, message, log = STRAY[label]
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    users = {node: world.user(node) for node in (1, 2)}
    assert users[1].lock(name, CR) == LOCAL
    assert users[2].lock(name, CR) == REMOTE
    world.deliver()
    for user in users.values():
        user.results()
    if isinstance(message, RecoveryMessage):
        message = replace(message, sequence_reply=world.spaces[1]._state.recover_sequence)
    before, sent, logs = picture(world), len(world.sent), len(world.logs)

    world.send(source, target, message)

    assert picture(world) == before
    assert [user.results() for user in users.values()] == [[], []]
    assert len(world.sent) == sent
    if log:
        assert any(text.startswith(log) for _, text in world.logs[logs:])


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (T.CONVERT, T.CONVERT_REPLY),
        (T.UNLOCK, T.UNLOCK_REPLY),
        (T.CANCEL, T.CANCEL_REPLY),
    ],
)
def test_what_a_master_does_not_know_is_answered_all_the_same(
    kind: MessageType, reply: MessageType
) -> None:
    """ENOENT for a lock that is not there; for CONVERT and UNLOCK also when it is another one."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(2).lock(name, CR)
    world.deliver()
    before, sent = picture(world), len(world.sent)

    world.send(2, 1, LockMessage(kind, remote_id=99, lock_id=1))
    if kind is not T.CANCEL:
        world.send(2, 1, LockMessage(kind, remote_id=1, lock_id=7))

    answers = [(m.remote_id, m.result) for _, _, m in world.messages(reply, sent)]
    enoent = -errno.ENOENT
    assert answers == ([(1, enoent)] if kind is T.CANCEL else [(1, enoent), (7, enoent)])
    assert picture(world) == before


def test_a_conversion_of_a_lock_that_is_converting_is_busy() -> None:
    """The master answers EBUSY; the user's own node never lets it come to that."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, CR)
    user = world.user(2)
    lock_id = user.lock(name, CR)
    world.deliver()
    user.convert(lock_id, EX)
    world.deliver()
    sent = len(world.sent)

    world.send(2, 1, LockMessage(T.CONVERT, lock_id=lock_id, remote_id=2, requested_mode=NL))

    ((_, _, reply),) = world.messages(T.CONVERT_REPLY, sent)
    assert reply.result == -errno.EBUSY


def reached(status: int) -> World:
    """Return two nodes of which the first one has come this far: 0 is its first question."""
    world = World(1, 2)
    if not status:
        world.held = types(R.STATUS)
        world.start(1, 2)
    elif status == RecoverStatus.NODES:
        world.start(1, 2, on=[1])
    elif status == RecoverStatus.DIR:
        world.held = lambda source, _, message: source == 1 and message.type is R.NAMES_REPLY
        world.start(1, 2)
    world.settle()
    return world


@pytest.mark.parametrize("status", [0, RecoverStatus.NODES, RecoverStatus.DIR])
@pytest.mark.parametrize(
    ("kind", "needs"),
    [
        (R.STATUS, 0),
        (R.NAMES, RecoverStatus.NODES),
        (R.LOOKUP, RecoverStatus.DIR),
        (R.LOCK, RecoverStatus.DIR),
    ],
)
def test_recovery_messages_that_come_too_early(kind: RecoveryType, needs: int, status: int) -> None:
    """Names need a node's member list; lookups and locks its directory, too; status nothing."""
    world = reached(status)
    assert world.spaces[1].recover_status & ~RecoverStatus.NODES_ALL == {4: 5}.get(status, status)
    rebuilt = RebuiltLock(1, 1, 0, 0, 1, 0, 0, -1, CR, 2, True, True, 0, b"name", None)
    question = RecoveryMessage(kind, id=1, name=b"name", lock=rebuilt if kind is R.LOCK else None)
    sent = len(world.sent)

    world.step(1, Deliver(NodeId(2), question))

    replies = [message.type.name for _, _, message in world.sent[sent:]]
    assert replies == ([f"{kind.name}_REPLY"] if status >= needs else [])


# ---- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "kept"), [("5.10", 6), ("6.1", 6), ("6.12", 8), ("7.2", 8)])
def test_how_many_results_of_a_lock_are_kept(kernel: str, kept: int) -> None:
    """Up to 6.1 a lock has room for six results; since 6.10 there is no limit."""
    world = World(1, kernel=kernel).up()
    user = world.user(1)
    lock_id = user.lock(b"a", NL)
    for mode in (CR, NL, CR, NL, CR, NL, CR):
        assert user.convert(lock_id, mode) == 0

    assert user.results() == [(lock_id, GRANTED)] * kept
    assert ((1, "dlm_add_callback 1 no room") in world.logs) == (kept == 6)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_results_of_master_and_holder(kernel: str) -> None:
    """A blocking AST and the grant that follows reach the holders on other nodes, in order."""
    world = World(1, 2, 3, kernel=kernel).up()
    name = world.name(directory=1)
    users = {node: world.user(node) for node in world.nodes}
    users[1].lock(name, NL)
    holder = users[2].lock(name, EX)
    world.deliver()
    waiter = users[3].lock(name, PR)
    world.deliver()
    assert users[2].results() == [(holder, GRANTED), (BLOCKS, holder, PR)]
    assert users[3].results() == []

    users[2].convert(holder, CR)
    world.deliver()

    assert users[2].results() == [(holder, GRANTED)]
    assert users[3].results() == [(waiter, GRANTED)]
