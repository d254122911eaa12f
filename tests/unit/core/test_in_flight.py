"""Operations under way when their master or directory node dies, and what overlaps them.

Sources: Linux 6.1 fs/dlm/lock.c, validate_unlock_args(), dlm_recover_waiters_pre(), …_post();
the rows as seen on two real 6.1.192 nodes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

import pytest

from dlm.core.messages import MessageType, RecoveryType
from dlm.core.modes import IV
from dlm.terms import KERNELS, InternalFlag, LockStatus, StatusFlag
from tests.unit.core.world import (
    BLOCKS,
    CANCELLED,
    CR,
    CW,
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

T, R = MessageType, RecoveryType

Operation = Callable[[User, bytes, int], int]


class Row(NamedTuple):
    """What is under way, what comes of it, and the mode that is left (None: no lock)."""

    held: int | None
    operations: tuple[Operation, ...]
    results: list[int]
    left: int | None
    waits: bool = False
    """The master's own EX lock makes the operation before wait."""


def request(user: User, name: bytes, _: int) -> int:
    """Request EX."""
    return user.lock(name, EX)


def up(user: User, _: bytes, lock_id: int) -> int:
    """Convert to EX."""
    return user.convert(lock_id, EX)


def down(user: User, _: bytes, lock_id: int) -> int:
    """Convert to NL."""
    return user.convert(lock_id, NL)


def unlock(user: User, _: bytes, lock_id: int) -> int:
    """Unlock."""
    return user.unlock(lock_id)


def cancel(user: User, _: bytes, lock_id: int) -> int:
    """Cancel."""
    return user.cancel(lock_id)


def force(user: User, _: bytes, lock_id: int) -> int:
    """Unlock with FORCEUNLOCK."""
    return user.force(lock_id)


ROWS = {
    "request": Row(None, (request,), [GRANTED], EX),
    "up-conversion": Row(PR, (up,), [GRANTED], EX),
    "down-conversion": Row(EX, (down,), [GRANTED], NL),
    "unlock": Row(PR, (unlock,), [UNLOCKED], None),
    "cancel of a request": Row(None, (cancel,), [CANCELLED], None, waits=True),
    "cancel of a conversion": Row(NL, (cancel,), [CANCELLED], NL, waits=True),
    "request, FORCEUNLOCK": Row(None, (request, force), [UNLOCKED], None),
    "request, CANCEL": Row(None, (request, cancel), [CANCELLED], None),
    "convert, CANCEL": Row(PR, (up, cancel), [CANCELLED], PR),
    "convert, FORCEUNLOCK": Row(PR, (up, force), [UNLOCKED], None),
    "convert, CANCEL, FORCEUNLOCK": Row(PR, (up, cancel, force), [CANCELLED], PR),
}


@pytest.mark.parametrize("nodes", [(1, 2), (1, 2, 3)], ids=["one survivor", "two survivors"])
@pytest.mark.parametrize("known", [False, True], ids=["lookup", "request"])
@pytest.mark.parametrize("label", ROWS)
def test_the_master_dies(label: str, known: bool, nodes: tuple[int, ...]) -> None:
    """What was sent to a master that died is ended, sent anew or done by itself.

    ``known``: the asker knows the master by another lock of its own; else it has just looked the
    name up (a request then travels as a LOOKUP). The highest node is master and directory node.
    """
    row = ROWS[label]
    world = World(*nodes).up()
    dying, node = nodes[-1], nodes[-2]
    name = world.name(directory=dying)
    blocker = world.user(dying)
    blocker.lock(name, EX if row.waits else NL)
    user, other = world.user(node), world.user(node)
    if known:
        other.lock(name, NL)
        world.deliver()
    lock_id = 0
    if row.held is not None:
        lock_id = user.lock(name, row.held)
        world.deliver()
        assert user.results() == [(lock_id, GRANTED)]
    if row.waits:
        lock_id = user.convert(lock_id, EX) or lock_id if lock_id else user.lock(name, EX)
        world.deliver()
        assert user.results() == []
    world.held = lambda source, target, _: dying in (source, target)

    for operation in row.operations:
        answered = operation(user, name, lock_id)
        assert answered >= 0
        lock_id = lock_id or answered
    world.survive(dying)

    assert user.results() == [(lock_id, status) for status in row.results]
    assert world.spaces[node].waiters() == []
    if row.left is None:
        assert world.spaces[node].lock(lock_id) is None
    else:
        assert world.lock(node, lock_id).granted_mode == row.left
        assert user.unlock(lock_id) == 0
        world.deliver()
        assert user.results() == [(lock_id, UNLOCKED)]


@pytest.mark.parametrize("dies", [True, False])
def test_every_lookup_is_repeated(dies: bool) -> None:
    """A lookup is sent again after a recovery wherever it went, be its directory node alive."""
    world = World(1, 2, 3).up()
    name = world.name(directory=3, then=1)
    user = world.user(2)
    world.held = types(T.LOOKUP)
    lock_id = user.lock(name, EX)
    world.let_through()
    before = len(world.sent)

    if dies:
        world.survive(3)
    else:
        world.stop(1, 2, 3)
        world.start(1, 2, 3)
        world.settle(40)

    assert [target for _, target, _ in world.messages(T.LOOKUP, before)] == ([1] if dies else [3])
    assert user.results() == [(lock_id, GRANTED)]
    assert world.master(name) == 2


@pytest.mark.parametrize("kind", [T.REQUEST, T.CONVERT, T.UNLOCK, T.CANCEL])
def test_what_a_living_master_has_to_answer_is_left_alone(kind: MessageType) -> None:
    """Another node's death does not touch a message to a master that lives: it comes through."""
    world = World(1, 2, 3).up()
    name = world.name(directory=1)
    holder = world.user(1)
    blocking = holder.lock(name, CR)
    user = world.user(2)
    other = user.lock(name, CR)
    world.deliver()
    waiting = user.lock(name, EX)
    world.deliver()
    user.results()
    world.held = types(kind)
    before = len(world.sent)
    expected = {
        T.REQUEST: lambda: user.lock(name, NL, F.EXPEDITE) and 0,
        T.CONVERT: lambda: user.convert(other, PR),
        T.UNLOCK: lambda: user.unlock(other),
        T.CANCEL: lambda: user.cancel(waiting),
    }
    assert expected[kind]() == 0

    world.crash(3)
    world.stop(1, 2)
    world.release()
    world.start(1, 2)
    world.settle(40)

    assert len(world.messages(kind, before)) == 1
    assert len([each for each in user.results() if each[0] is not BLOCKS]) == 1
    assert world.spaces[2].waiters() == []
    assert world.lock(1, blocking).granted_mode == CR


def test_operations_go_on_newest_first() -> None:
    """The list of those that wait for a reply begins with the newest: so do the repetitions."""
    world = World(1, 2).up()
    name = world.name(directory=2)
    world.user(2).lock(name, NL)
    user = world.user(1)
    user.lock(name, NL)
    world.deliver()
    user.results()
    world.held = types(T.REQUEST)

    locks = [user.lock(name, mode) for mode in (CR, CR, CR)]
    world.survive(2)

    assert user.results() == [(lock_id, GRANTED) for lock_id in reversed(locks)]


# ---- overlapping, without any recovery ----------------------------------------------------------


def overlapping(mode: int | None, blocked: bool) -> tuple[World, User, bytes, int]:
    """Node 1 masters a name; node 2's user has a lock on it, or none, and its messages wait."""
    world = World(1, 2).up()
    name = world.name(directory=1)
    world.user(1).lock(name, EX if blocked else NL)
    user = world.user(2)
    world.user(2).lock(name, NL, F.EXPEDITE)
    world.deliver()
    lock_id = 0
    if mode is not None:
        lock_id = user.lock(name, mode)
        world.deliver()
        user.results()
    world.held = types(T.REQUEST, T.CONVERT, T.UNLOCK, T.CANCEL)
    return world, user, name, lock_id


class Overlap(NamedTuple):
    """Operations one after another, their answers, and the results in the end."""

    held: int | None
    blocked: bool
    operations: tuple[Operation, ...]
    answers: tuple[int, ...]
    results: list[int]


EBUSY, EINVAL, ENOENT = -errno.EBUSY, -errno.EINVAL, -errno.ENOENT

OVERLAPS = {
    "unlock during a request": Overlap(None, False, (request, unlock), (EBUSY,), [GRANTED]),
    "unlock during a conversion": Overlap(PR, False, (up, unlock), (0, EBUSY), [GRANTED]),
    "conversion during a conversion": Overlap(PR, False, (up, down), (0, EBUSY), [GRANTED]),
    "unlock during an unlock": Overlap(PR, False, (unlock, unlock), (0, EBUSY), [UNLOCKED]),
    "force during an unlock": Overlap(PR, False, (unlock, force), (0, EINVAL), [UNLOCKED]),
    "force twice": Overlap(PR, False, (force, force), (0, EINVAL), [UNLOCKED]),
    "cancel during an unlock": Overlap(PR, False, (unlock, cancel), (0, EINVAL), [UNLOCKED]),
    "cancel of a request that is granted": Overlap(None, False, (request, cancel), (0,), [GRANTED]),
    "cancel of a request that waits": Overlap(None, True, (request, cancel), (0,), [CANCELLED]),
    "cancel of a request twice": Overlap(
        None, True, (request, cancel, cancel), (0, EINVAL), [CANCELLED]
    ),
    "force during a request": Overlap(None, False, (request, force), (0,), [GRANTED, UNLOCKED]),
    "force during a request that waits": Overlap(None, True, (request, force), (0,), [UNLOCKED]),
    "force during a request twice": Overlap(
        None, True, (request, force, force), (0, EINVAL), [UNLOCKED]
    ),
    "cancel and force during a request": Overlap(
        None, True, (request, cancel, force), (0, 0), [UNLOCKED]
    ),
    "force and cancel during a request": Overlap(
        None, True, (request, force, cancel), (0, EINVAL), [UNLOCKED]
    ),
    "cancel of a conversion that is granted": Overlap(PR, False, (up, cancel), (0, 0), [GRANTED]),
    "cancel of a conversion that waits": Overlap(NL, True, (up, cancel), (0, 0), [CANCELLED]),
    "cancel of a conversion twice": Overlap(
        NL, True, (up, cancel, cancel), (0, 0, EINVAL), [CANCELLED]
    ),
    "force during a conversion": Overlap(PR, False, (up, force), (0, 0), [GRANTED, UNLOCKED]),
    "force during a conversion that waits": Overlap(NL, True, (up, force), (0, 0), [UNLOCKED]),
    "cancel of what is granted": Overlap(PR, False, (cancel,), (0,), []),
    "conversion and unlock of nothing": Overlap(None, False, (up, unlock), (ENOENT, ENOENT), []),
}


@pytest.mark.parametrize("label", OVERLAPS)
def test_operations_that_overlap(label: str) -> None:
    """What can be asked of a lock whose last message was not answered, and what comes of it."""
    case = OVERLAPS[label]
    world, user, name, lock_id = overlapping(case.held, case.blocked)
    answers = []
    for operation in case.operations:
        answered = operation(user, name, lock_id)
        if operation is request:
            lock_id = answered
        else:
            answers.append(answered)
    assert tuple(answers) == case.answers

    world.release()

    assert user.results() == [(lock_id, status) for status in case.results]
    assert world.spaces[2].waiters() == []
    ends = UNLOCKED in case.results or (case.held is None and GRANTED not in case.results)
    assert (world.spaces[2].lock(lock_id) is None) == ends
    master = [each for each in world.spaces[1].resources() if each.name == name]
    copies = sum(
        each.remote_id == lock_id and bool(each.nodeid) for r in master for each in r.granted
    )
    assert copies == (not ends)


def test_a_granted_conversion_makes_its_cancel_void_at_once() -> None:
    """The user sees the grant and may go on, although the cancel has not been answered."""
    world, user, _, lock_id = overlapping(PR, blocked=False)
    user.convert(lock_id, EX)
    user.cancel(lock_id)
    world.held, kept = types(T.CANCEL_REPLY), world.kept
    world.kept = []
    world.wire.extend(kept)
    world.deliver()
    assert user.results() == [(lock_id, GRANTED)]

    assert user.convert(lock_id, PR) == 0
    world.release()

    assert user.results() == [(lock_id, GRANTED)]
    assert world.spaces[2].waiters() == []


def test_a_deadlock_is_a_cancel_with_another_status() -> None:
    """DEADLOCK of a conversion that waits at another master completes with EDEADLK."""
    world, user, _, lock_id = overlapping(NL, blocked=True)
    user.convert(lock_id, EX)
    world.release()

    assert user.deadlock(lock_id) == 0
    world.deliver()

    assert user.results() == [(lock_id, -errno.EDEADLK)]
    assert world.lock(2, lock_id).granted_mode == NL


@pytest.mark.parametrize(
    ("converts", "flag", "wanted", "given", "taken"),
    [
        (False, F.ALTPR, EX, PR, PR),
        (False, F.ALTCW, EX, CW, CW),
        (False, F.ALTPR | F.ALTCW, PR, CW, PR),
        (True, F.ALTPR, EX, PR, EX),
        (True, F.ALTCW, EX, CW, EX),
        (True, F.ALTPR | F.ALTCW, PR, CW, PR),
    ],
)
def test_the_holder_takes_an_alternative_mode_for_another(
    converts: bool, flag: int, wanted: int, given: int, taken: int
) -> None:
    """ALTPR and ALTCW: what the other node's master grants is what the holder has, but not always.

    Quirk: after a conversion its own node shows the mode that it asked for, and with both flags
    always PR (seen on guests of 6.1 and 7.2).
    """
    world, user, name, lock_id = overlapping(NL if converts else None, blocked=False)
    world.release()
    other = world.user(1)
    other.lock(name, given)

    if converts:
        user.convert(lock_id, wanted, flag)
    else:
        lock_id = user.lock(name, wanted, flag)
    world.deliver()

    (result,) = user.whole_results()
    assert (result.status, result.flags) == (GRANTED, StatusFlag.ALTMODE)
    process_copy = world.lock(2, lock_id)
    assert process_copy.granted_mode == taken
    assert world.lock(1, process_copy.remote_id).granted_mode == given


def test_a_conversion_after_an_alternative_mode_completes_twice() -> None:
    """What is down for the holder is done at once; the master, for which it is not, queues it.

    Its grant then finds a lock that asks for no mode, and gives it that.
    """
    world, user, name, lock_id = overlapping(NL, blocked=False)
    world.release()
    other = world.user(1)
    in_the_way = other.lock(name, PR)
    user.convert(lock_id, EX, F.ALTPR)
    world.deliver()

    user.convert(lock_id, CW)
    world.deliver()

    process_copy = world.lock(2, lock_id)
    master_copy = world.lock(1, process_copy.remote_id)
    assert user.results() == [(lock_id, GRANTED)] * 2
    assert (process_copy.granted_mode, master_copy.granted_mode) == (CW, PR)
    assert master_copy.status == LockStatus.CONVERT
    other.unlock(in_the_way)
    world.deliver()
    assert user.results() == [(lock_id, GRANTED)]
    assert (process_copy.granted_mode, master_copy.granted_mode) == (IV, CW)


def test_a_grant_that_crosses_its_owners_close() -> None:
    """The waiting PERSISTENT request of a file that closes is granted meanwhile: it is an orphan.

    Quirk: a 6.1 kernel forgets that it is one.
    """
    world = World(1, 2).up()
    name = world.name(directory=1)
    holder = world.user(1)
    held = holder.lock(name, EX)
    user = world.user(2)
    lock_id = user.lock(name, CR, F.PERSISTENT)
    world.deliver()
    world.held = types(T.CANCEL)
    user.close()
    holder.unlock(held)
    world.deliver()

    world.release()

    assert world.lock(2, lock_id).granted_mode == CR
    assert world.lock(2, lock_id).flags & InternalFlag.ORPHAN
    assert world.user(2).adopt(name, CR) == lock_id


# ---- PR and CW ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
@pytest.mark.parametrize(("old", "new"), [(PR, CW), (CW, PR)])
class TestMiddleConversions:
    """A conversion between PR and CW whose master dies before it has answered."""

    def test_alone(self, kernel: str, old: int, new: int) -> None:
        """Nothing is in its way: it is granted; up to 6.12 twice, and has no mode then.

        Quirk: recovery guesses the mode that it asks for, and leaves it on its queue (seen on 6.1).
        """
        world = World(1, 2, kernel=kernel).up()
        name = world.name(directory=2)
        world.user(2).lock(name, NL)
        user = world.user(1)
        lock_id = user.lock(name, old)
        world.deliver()
        user.results()
        world.held = types(T.CONVERT)

        user.convert(lock_id, new)
        world.survive(2)

        twice = kernel != "7.2"
        assert user.results() == [(lock_id, GRANTED)] * (1 + twice)
        assert world.lock(1, lock_id).granted_mode == (-1 if twice else new)
        assert world.resource(1, name).converting == []

    def test_another_holds_the_old_mode(self, kernel: str, old: int, new: int) -> None:
        """It cannot have been granted: it waits, in its old mode, until the other one goes."""
        world, users, locks, name = self._three(kernel, old)
        world.held = types(T.CONVERT)
        users[1].convert(locks[1], new)
        world.survive(3)

        assert [each for each in users[1].results() if each[0] == locks[1]] == []
        master = world.resource(world.master(name), name)
        (waiting,) = master.converting
        assert (waiting.granted_mode, waiting.requested_mode) == (old, new)
        users[2].unlock(locks[2])
        world.deliver()
        assert users[1].results() == [(locks[1], GRANTED)]

    def test_another_holds_the_new_mode(self, kernel: str, old: int, new: int) -> None:
        """It had been granted by the master that died: it is granted again."""
        world, users, locks, name = self._three(kernel, old)
        world.held = lambda source, target, _: (source, target) == (3, 1)
        users[1].convert(locks[1], new)
        world.deliver()
        users[2].unlock(locks[2])
        world.deliver()
        other = users[2].lock(name, new)
        world.deliver()
        users[2].results()

        world.survive(3)

        twice = kernel != "7.2"
        assert users[1].results() == [(locks[1], GRANTED)] * (1 + twice)
        master = world.resource(world.master(name), name)
        assert sorted(lock.granted_mode for lock in master.granted) == sorted(
            [new, -1 if twice else new]
        )
        assert world.lock(2, other).granted_mode == new

    @staticmethod
    def _three(kernel: str, mode: int) -> tuple[World, dict[int, User], dict[int, int], bytes]:
        world = World(1, 2, 3, kernel=kernel).up()
        name = world.name(directory=3)
        world.user(3).lock(name, NL)
        users = {node: world.user(node) for node in (1, 2)}
        locks = {node: users[node].lock(name, mode) for node in (1, 2)}
        world.deliver()
        for user in users.values():
            user.results()
        return world, users, locks, name


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_close_after_an_unlock_that_is_remembered(kernel: str) -> None:
    """A PERSISTENT lock that is being unlocked leaves no orphan, though its request is under way.

    Linux 6.1 fs/dlm/lock.c, dlm_user_unlock(): EBUSY with FORCEUNLOCK is success, and the lock goes
    to those being unlocked, which a close forgets.
    """
    world = World(1, 2, kernel=kernel).up()
    name = world.name(directory=1)
    world.user(1).lock(name, NL)
    world.held = types(T.LOOKUP)
    user = world.user(2)
    lock_id = user.lock(name, EX, F.PERSISTENT)

    assert user.force(lock_id) == 0
    user.close()
    world.release()

    assert not world.spaces[2].busy()
    assert [lock.nodeid for lock in world.resource(1, name).granted] == [0]
