"""Deadlocks: what the kernel finds, what the options change, and what only a program can end."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from dlm.abi.device import Command, LockRequest
from dlm.errors import DlmError
from dlm.locks import (
    DeadlockError,
    LockFlag,
    Lockspace,
    LockTimedOutError,
    LockUsageError,
)
from dlm.terms import LockMode
from tests.locks.worlds import NAME, PATIENCE, Places

NL, CR, CW, PR, PW, EX = LockMode


@pytest.fixture
def space(world: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        yield lockspace


def raw_lock(space: Lockspace, mode: LockMode) -> int:
    """Take a lock by a request of our own, so that it can be converted without waiting."""
    lock_id, completion = space.submit(LockRequest(mode=mode, name=b"res"))
    assert completion.wait(PATIENCE)
    assert completion.status == 0
    return lock_id


def begin_conversion(space: Lockspace, lock_id: int, mode: LockMode) -> None:
    """Begin a conversion of such a lock."""
    space.submit(LockRequest(mode=mode, flags=LockFlag.CONVERT, lock_id=lock_id))


def test_two_readers_that_want_to_write(world: Places, space: Lockspace) -> None:
    """Both hold PR, both want EX: the second is refused with EDEADLK and keeps PR."""
    other = Lockspace.open(world.process(), NAME)
    first = raw_lock(space, PR)
    second = other.lock("res", PR)
    begin_conversion(space, first, EX)
    with pytest.raises(DeadlockError) as caught:
        second.convert(EX)
    assert caught.value.errno == errno.EDEADLK
    assert isinstance(caught.value, DlmError)
    assert isinstance(caught.value, OSError)
    assert second.mode == PR
    assert second.held
    second.unlock()
    world.eventually(lambda: world.held() == [(b"res", EX)], "the grant of the first")


def test_nodlckwt_waits_all_the_same(world: Places, space: Lockspace) -> None:
    """With NODLCKWT the kernel does not refuse: a timeout is what ends it, and PR is kept."""
    first, second = raw_lock(space, PR), space.lock("res", PR)
    begin_conversion(space, first, EX)
    with pytest.raises(LockTimedOutError):
        second.convert(EX, flags=LockFlag.NODLCKWT, timeout=0.2)
    assert second.mode == PR
    second.unlock()
    world.eventually(lambda: world.held() == [(b"res", EX)], "the grant of the first")


def test_convdeadlk_gives_up_what_it_holds(world: Places, space: Lockspace) -> None:
    """With CONVDEADLK the kernel takes the held mode away, so that the other can go on."""
    first = space.lock("res", PR)
    other = Lockspace.open(world.process(), NAME)
    second = raw_lock(other, PR)
    begin_conversion(other, second, EX)
    unlock = LockRequest(command=Command.UNLOCK, lock_id=second)
    world.later(0.2, lambda: other.submit(unlock))
    first.convert(EX, flags=LockFlag.CONVDEADLK, timeout=PATIENCE)
    assert first.mode == EX
    assert first.demoted


def test_two_resources_are_nobodys_business(world: Places, space: Lockspace) -> None:
    """A ring over two resources is not found by the kernel; a timeout breaks it."""
    other = Lockspace.open(world.process(), NAME)
    with space.lock("a", EX), other.lock("b", EX):
        other.submit(LockRequest(mode=EX, name=b"a"))
        with pytest.raises(LockTimedOutError):
            space.lock("b", EX, timeout=0.2)


def test_deadlock_cancel_ends_the_victims_wait(world: Places, space: Lockspace) -> None:
    """Whoever found a ring names its victim by lock id; the victim's call ends with EDEADLK."""
    other = Lockspace.open(world.process(), NAME)
    with space.lock("res", EX):

        def find_and_cancel() -> None:
            victim = next(each for each in world.locks() if each.waits)
            space.deadlock_cancel(victim.lock_id)

        world.later(0.2, find_and_cancel)
        with pytest.raises(DeadlockError) as caught:
            other.lock("res", EX)
        assert caught.value.errno == errno.EDEADLK
    world.eventually(lambda: not world.locks(), "the end of all locks")


def test_a_held_lock_is_no_victim(world: Places, space: Lockspace) -> None:
    """A lock that waits for nothing is refused: the kernel would keep a mark on it for later."""
    with space.lock("res", PR) as lock:
        with pytest.raises(LockUsageError):
            space.deadlock_cancel(lock.lock_id)
        lock.convert(EX)
        assert world.held() == [(b"res", EX)]
