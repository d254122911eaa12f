"""The low level: any request, its completion, and a program's own loop around the descriptor."""

from __future__ import annotations

import errno
import select
from collections.abc import Iterator

import pytest

from dlm.abi.device import Command, LockRequest, PurgeRequest
from dlm.locks import Completion, Lockspace, LockUsageError, NoLockError
from dlm.terms import ECANCEL, EUNLOCK, LockFlag, LockMode, StatusFlag
from tests.locks.worlds import NAME, PATIENCE, Places

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag


@pytest.fixture
def space(world: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(world.process(), NAME, threads=False) as lockspace:
        yield lockspace


def complete(space: Lockspace, request: LockRequest) -> Completion:
    """Submit a request and wait for its completion."""
    _, completion = space.submit(request)
    assert completion.wait(PATIENCE)
    return completion


def test_a_lock_through_its_life(world: Places, space: Lockspace) -> None:
    """Request, convert, unlock by id: each completion has the status that the kernel gave."""
    lock_id, granted = space.submit(LockRequest(mode=PR, name=b"res"))
    assert granted.wait(PATIENCE)
    assert (granted.done, granted.status, granted.lock_id) == (True, 0, lock_id)
    converted = complete(space, LockRequest(mode=EX, flags=F.CONVERT, lock_id=lock_id))
    assert converted.status == 0
    assert world.held() == [(b"res", EX)]
    ended = complete(space, LockRequest(command=Command.UNLOCK, lock_id=lock_id))
    assert ended.status == -EUNLOCK
    assert world.locks() == []


def test_a_completion_is_not_done_before_it_is_read(space: Lockspace) -> None:
    """Nothing is read behind a program's back: dispatch() is what completes."""
    holder, _ = space.submit(LockRequest(mode=EX, name=b"res"))
    space.dispatch()
    _, waiting = space.submit(LockRequest(mode=EX, name=b"res"))
    space.dispatch()
    assert not waiting.done
    assert not waiting.wait(0.05)
    space.submit(LockRequest(command=Command.UNLOCK, lock_id=holder))
    assert waiting.wait(PATIENCE)
    assert waiting.status == 0


def test_the_descriptor_tells_when_there_is_something(world: Places, space: Lockspace) -> None:
    """It polls readable with a result, and not once dispatch() has read it."""
    wanted = select.poll()
    wanted.register(space.fileno(), select.POLLIN)
    assert wanted.poll(0) == []
    _, completion = space.submit(LockRequest(mode=EX, name=b"res"))
    world.settle()
    assert wanted.poll(5000) != []
    assert space.dispatch() == 1
    assert completion.done
    assert wanted.poll(50) == []
    assert space.dispatch() == 0


def test_callbacks_are_called_in_dispatch(world: Places, space: Lockspace) -> None:
    """In the order of the completions, and nowhere else."""
    told: list[Completion] = []
    pairs = [
        space.submit(LockRequest(mode=EX, name=b"res%d" % number), told.append)
        for number in range(5)
    ]
    world.settle()
    assert told == []
    world.eventually(lambda: (space.dispatch(), len(told) == 5)[1], "five completions")
    assert told == [completion for _, completion in pairs]


def test_a_refusal_is_a_status(space: Lockspace) -> None:
    """NOQUEUE that cannot be had at once completes with -EAGAIN."""
    complete(space, LockRequest(mode=EX, name=b"res"))
    refused = complete(space, LockRequest(mode=PR, flags=F.NOQUEUE, name=b"res"))
    assert refused.status == -errno.EAGAIN


def test_a_cancel_completes_what_it_cancels(space: Lockspace) -> None:
    """The waiting request ends with -ECANCEL; the cancel itself is done at once."""
    complete(space, LockRequest(mode=EX, name=b"res"))
    lock_id, waiting = space.submit(LockRequest(mode=PR, name=b"res"))
    cancel = LockRequest(command=Command.UNLOCK, flags=F.CANCEL, lock_id=lock_id)
    _, cancelled = space.submit(cancel)
    assert cancelled.done
    assert waiting.wait(PATIENCE)
    assert waiting.status == -ECANCEL


def test_alternative_modes_and_values_are_told(space: Lockspace) -> None:
    """Remarks and the value block arrive with the completion."""
    first = complete(space, LockRequest(mode=EX, flags=F.VALBLK, name=b"res"))
    value = b"v".ljust(32, b"\0")
    complete(
        space,
        LockRequest(mode=CR, flags=F.CONVERT | F.VALBLK, lock_id=first.lock_id, value=value),
    )
    second = complete(space, LockRequest(mode=PR, flags=F.VALBLK, name=b"res"))
    assert second.value == value
    third = complete(space, LockRequest(mode=CW, flags=F.ALTPR, name=b"res"))
    assert third.status == 0
    assert third.flags == StatusFlag.ALTMODE


def test_blocking_notifications(world: Places, space: Lockspace) -> None:
    """Those of locks made by submit() go to one callback, with the lock's id and the mode."""
    told: list[tuple[int, LockMode]] = []
    space.on_blocking(lambda lock_id, mode: told.append((lock_id, mode)))
    holder = complete(space, LockRequest(mode=EX, name=b"res"))
    space.submit(LockRequest(mode=PR, name=b"res"))
    world.eventually(lambda: (space.dispatch(), told)[1], "the notification")
    assert told == [(holder.lock_id, PR)]


def test_requests_of_one_lock_complete_in_order(world: Places, space: Lockspace) -> None:
    """A conversion and an unlock sent at once: two completions, each its own."""
    lock_id = complete(space, LockRequest(mode=PR, name=b"res")).lock_id
    _, converted = space.submit(LockRequest(mode=EX, flags=F.CONVERT, lock_id=lock_id))
    _, ended = space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock_id))
    assert ended.wait(PATIENCE)
    assert converted.done
    assert (converted.status, ended.status) == (0, -EUNLOCK)
    assert world.locks() == []


def test_what_submit_does_not_take(space: Lockspace) -> None:
    """Purges and deadlock cancels have their own calls; ids must be one's own."""
    with pytest.raises(LockUsageError):
        space.submit(LockRequest(command=Command.DEADLOCK, lock_id=1))
    with pytest.raises((LockUsageError, AttributeError)):
        space.submit(PurgeRequest(0, 0))  # type: ignore[arg-type]  # on purpose
    for request in (
        LockRequest(command=Command.UNLOCK, lock_id=4711),
        LockRequest(mode=EX, flags=F.CONVERT, lock_id=4711),
    ):
        with pytest.raises(NoLockError):
            space.submit(request)


def test_an_ended_lock_is_nobodys(space: Lockspace) -> None:
    """After its unlock an id is refused, though its completion was not read.

    Since Linux 6.10 it may be another's by then.
    """
    lock_id = complete(space, LockRequest(mode=PR, name=b"res")).lock_id
    space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock_id))
    with pytest.raises(NoLockError):
        space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock_id))


def test_both_levels_on_one_file(world: Places, space: Lockspace) -> None:
    """Locks of the low level and of the high one exclude each other and do not mix results."""
    raw = complete(space, LockRequest(mode=PR, name=b"res"))
    with space.read("res") as lock:
        assert lock.lock_id != raw.lock_id
        assert space.locks() == [lock]
        _, waiting = space.submit(LockRequest(mode=EX, name=b"res"))
        space.dispatch()
        assert not waiting.done
    complete(space, LockRequest(command=Command.UNLOCK, lock_id=raw.lock_id))
    assert waiting.wait(PATIENCE)
    assert world.held() == [(b"res", EX)]


@pytest.mark.parametrize(
    "flags",
    [F.PERSISTENT, F.TIMEOUT, F.FORCEUNLOCK, F.ALTPR | F.ALTCW, F.ORPHAN | F.VALBLK],
)
def test_a_request_that_a_kernel_would_not_survive(
    world: Places, space: Lockspace, flags: LockFlag
) -> None:
    """It is refused before it is written (docs/hazards.md)."""
    with pytest.raises(LockUsageError):
        space.submit(LockRequest(mode=PR, flags=flags, name=b"res"))
    assert world.locks() == []


@pytest.mark.parametrize("flags", [F.ALTPR, F.ALTCW, F.TIMEOUT, F.FORCEUNLOCK])
def test_a_conversion_that_a_kernel_would_not_survive(
    world: Places, space: Lockspace, flags: LockFlag
) -> None:
    """The same, on every level: the lock is as it was."""
    lock_id = complete(space, LockRequest(mode=PR, name=b"res")).lock_id
    with pytest.raises(LockUsageError):
        space.submit(LockRequest(mode=EX, flags=F.CONVERT | flags, lock_id=lock_id))
    with space.lock("other", PR) as lock, pytest.raises(LockUsageError):
        lock.convert(EX, flags=flags)
    assert world.held() == [(b"res", PR)]


def test_a_cancel_with_a_value_block(space: Lockspace) -> None:
    """It is refused: the lock may have none, and a recovery of the kernel would look for it."""
    complete(space, LockRequest(mode=EX, name=b"res"))
    lock_id, _ = space.submit(LockRequest(mode=EX, name=b"res"))
    with pytest.raises(LockUsageError):
        space.submit(LockRequest(Command.UNLOCK, flags=F.CANCEL | F.VALBLK, lock_id=lock_id))
