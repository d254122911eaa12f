"""Locks that outlive their process: pinned once granted, listed, taken over, purged.

Nothing of this API may do what hangs or corrupts a kernel (Linux 6.1): a waiting request is never
persistent, an orphan is never unlocked before it was adopted, a purge never names its own thread.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dlm.abi.device import Command, LockRequest
from dlm.locks import LockFlag, Lockspace, LockTimedOutError, LockUsageError, NoLockError
from dlm.terms import LockMode
from tests.locks.worlds import NAME, Places

NL, CR, CW, PR, PW, EX = LockMode


@pytest.fixture
def space(world: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        yield lockspace
        lockspace.purge()


def leave(world: Places, name: str, mode: LockMode) -> int:
    """Let a process take a persistent lock and end; return the lock's id."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        return lockspace.lock(name, mode, persistent=True).lock_id


def test_a_persistent_lock_outlives_its_file(world: Places, space: Lockspace) -> None:
    """After the end of its owner it is held in its mode, by nobody."""
    lock_id = leave(world, "res", EX)
    assert space.try_lock("res", PR) is None
    assert [(each.name, each.mode, each.lock_id) for each in space.orphans()] == [
        (b"res", EX, lock_id)
    ]


def test_an_ordinary_lock_does_not(world: Places, space: Lockspace) -> None:
    """Without persistent=True the end of the file is the end of the lock."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        lockspace.lock("res", EX)
    assert space.orphans() == []
    assert world.locks() == []


def test_a_waiting_request_is_not_pinned(world: Places, space: Lockspace) -> None:
    """While it waits debugfs shows no PERSISTENT: it is added once the lock is granted."""
    seen: list[bool] = []
    with space.lock("res", EX):
        world.later(0.1, lambda: seen.extend(e.persistent for e in world.locks() if e.waits))
        other = Lockspace.open(world.process(), NAME)
        with pytest.raises(LockTimedOutError):
            other.lock("res", EX, persistent=True, timeout=0.3)
        other.close()
    assert seen == [False]
    assert space.orphans() == []


def test_every_conversion_keeps_it_pinned(world: Places) -> None:
    """A conversion decides anew whether a lock persists: it still does after three of them."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        lock = lockspace.lock("res", NL, persistent=True)
        for mode in (EX, PR, CR):
            lock.convert(mode)
            assert [each.persistent for each in world.locks()] == [True]
    with Lockspace.open(world.process(), NAME) as lockspace:
        assert [each.mode for each in lockspace.orphans()] == [CR]
        lockspace.adopt("res", CR).unlock()


def test_adopting_makes_it_ones_own(world: Places, space: Lockspace) -> None:
    """The adopter holds it, may convert and unlock it, and it persists until then."""
    lock_id = leave(world, "res", EX)
    lock = space.adopt("res", EX)
    assert lock.lock_id == lock_id
    assert lock.persistent
    lock.convert(PR)
    assert world.held() == [(b"res", PR)]
    lock.unlock()
    assert world.locks() == []
    assert space.orphans() == []


@pytest.mark.parametrize("had", [True, False])
def test_an_adopted_lock_with_a_value_block(world: Places, space: Lockspace, had: bool) -> None:
    """What its new owner sets, others read after a conversion, had the orphan a value or not."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        lockspace.lock("res", EX, persistent=True, value_block=had)
    with space.adopt("res", EX, value_block=True) as lock:
        lock.value = b"from the heir"
        lock.convert(CR)
        with Lockspace.open(world.process(), NAME) as other:
            reader = other.lock("res", PR, value_block=True)
            assert reader.value == b"from the heir".ljust(32, b"\0")
            assert reader.value_valid


def test_an_adopted_lock_is_an_orphan_again(world: Places, space: Lockspace) -> None:
    """Whoever adopts and ends without unlocking leaves it for the next."""
    leave(world, "res", EX)
    with Lockspace.open(world.process(), NAME) as lockspace:
        lockspace.adopt("res", EX)
    assert [each.mode for each in space.orphans()] == [EX]


def test_there_is_none_of_that_name(space: Lockspace) -> None:
    """Adopting what is not there is ENOENT."""
    with pytest.raises(NoLockError) as caught:
        space.adopt("res", EX)
    assert caught.value.errno == errno.ENOENT


def test_there_is_one_in_another_mode_only(world: Places, space: Lockspace) -> None:
    """Adopting in the wrong mode is EAGAIN, and the orphan stays one."""
    leave(world, "res", PR)
    with pytest.raises(NoLockError) as caught:
        space.adopt("res", EX)
    assert caught.value.errno == errno.EAGAIN
    assert [each.mode for each in space.orphans()] == [PR]


def test_a_living_owners_lock_is_not_adopted(world: Places, space: Lockspace) -> None:
    """A persistent lock whose owner lives is nobody's to take."""
    other = Lockspace.open(world.process(), NAME)
    lock = other.lock("res", EX, persistent=True)
    with pytest.raises(NoLockError):
        space.adopt("res", EX)
    assert lock.held
    lock.unlock()


def test_the_wanted_one_of_several(world: Places, space: Lockspace) -> None:
    """By lock id the younger of two orphans is taken, and the older stays an orphan."""
    ids = [leave(world, "res", PR) for _ in range(2)]
    lock = space.adopt("res", PR, lock_id=ids[1])
    assert lock.lock_id == ids[1]
    lock.unlock()
    world.eventually(lambda: [e.lock_id for e in world.locks()] == [ids[0]], "the older one")


def test_purge_drops_all_orphans(world: Places, space: Lockspace) -> None:
    """Without arguments every orphan of this node goes, and no living lock."""
    leave(world, "a", EX)
    leave(world, "b", PR)
    with space.lock("c", EX):
        space.purge()
        assert world.held() == [(b"c", EX)]


def test_purge_by_pid_drops_only_those(world: Places, space: Lockspace) -> None:
    """With the id of a thread only the orphans of that thread go."""
    leave(world, "ours", EX)
    stranger = Lockspace.open(world.separate(), NAME)
    stranger.lock("theirs", EX, persistent=True)
    stranger.close()
    pid = next(each.pid for each in space.orphans() if each.name == b"theirs")
    if pid == next(each.pid for each in space.orphans() if each.name == b"ours"):
        pytest.fail("two processes with one id")
    space.purge(pid=pid)
    assert [each.name for each in space.orphans()] == [b"ours"]


def test_purge_of_ones_own_thread_is_refused(world: Places, space: Lockspace) -> None:
    """It would drop the living locks of this file: refused before anything is written."""
    with space.lock("res", EX):
        pid = world.locks()[0].pid
        with pytest.raises(LockUsageError):
            space.purge(pid=pid)
        assert world.held() == [(b"res", EX)]


def test_purge_of_another_threads_id_of_this_process(live: Places) -> None:
    """The kernel compares thread ids: a purge by one thread never takes another's living locks."""
    with Lockspace.open(live.process(), NAME) as space:
        taken: list[object] = []
        thread = threading.Thread(target=lambda: taken.append(space.lock("res", EX)))
        thread.start()
        thread.join()
        pid = live.locks()[0].pid
        with suppress(LockUsageError):
            space.purge(pid=pid)
        assert live.held() == [(b"res", EX)]


@pytest.mark.parametrize("flag", [LockFlag.PERSISTENT, LockFlag.ORPHAN, LockFlag.CONVERT])
def test_flags_that_have_their_own_call_are_refused(space: Lockspace, flag: LockFlag) -> None:
    """What would be dangerous or meaningless as a flag is refused before anything is written."""
    with pytest.raises(LockUsageError):
        space.lock("res", EX, flags=flag)


def test_a_persistent_request_cannot_be_submitted(space: Lockspace) -> None:
    """The low level refuses it too: killed while it waits, it would corrupt the orphan list."""
    with pytest.raises(LockUsageError):
        space.submit(LockRequest(mode=EX, flags=LockFlag.PERSISTENT, name=b"res"))


def test_an_orphan_cannot_be_unlocked_by_its_id(world: Places, space: Lockspace) -> None:
    """UNLOCK of an orphan that was not adopted hangs a 6.1 kernel: it is never sent."""
    lock_id = leave(world, "res", EX)
    with pytest.raises(NoLockError):
        space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock_id))
    assert [each.lock_id for each in space.orphans()] == [lock_id]


def test_a_strangers_lock_cannot_be_unlocked_by_its_id(world: Places, space: Lockspace) -> None:
    """Nor is a living lock of somebody else's."""
    other = Lockspace.open(world.process(), NAME)
    lock = other.lock("res", EX)
    with pytest.raises(NoLockError):
        space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock.lock_id))
    assert lock.held
    assert world.held() == [(b"res", EX)]
