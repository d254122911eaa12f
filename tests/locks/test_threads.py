"""One lockspace object used by many threads at once, and the lock with threading's habits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from dlm.locks import LockCancelledError, Lockspace, LockTimedOutError, NoLockError
from dlm.terms import LockMode
from tests.locks.worlds import NAME, PATIENCE, Places

NL, CR, CW, PR, PW, EX = LockMode


@pytest.fixture
def space(live: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(live.process(), NAME) as lockspace:
        yield lockspace


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Do something in so many threads at once; return the results, raise what one raised."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count), timeout=2 * PATIENCE))


def test_threads_exclude_each_other(live: Places, space: Lockspace) -> None:
    """Eight threads count up under an EX lock: no count is lost, and each is inside alone."""
    inside, count = 0, 0

    def work(_: int) -> None:
        nonlocal inside, count
        for _ in range(10):
            with space.lock("count", EX):
                inside += 1
                assert inside == 1
                count += 1
                inside -= 1

    in_threads(8, work)
    assert count == 80
    assert live.locks() == []


def test_threads_share(space: Lockspace) -> None:
    """Eight threads are inside at once when all of them read."""
    meeting = threading.Barrier(8, timeout=PATIENCE)

    def work(_: int) -> None:
        with space.read("res"):
            meeting.wait()

    in_threads(8, work)


def test_different_resources_do_not_wait_for_each_other(space: Lockspace) -> None:
    """A thread that waits keeps nobody from anything else."""
    with space.lock("busy", EX):
        waiter = threading.Thread(target=lambda: space.lock("busy", EX).unlock())
        waiter.start()
        in_threads(4, lambda n: space.lock(f"free{n}", EX, timeout=PATIENCE).unlock())
        assert waiter.is_alive()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


def test_each_thread_gets_its_own_answer(live: Places, space: Lockspace) -> None:
    """Timeouts, grants and refusals at once: everybody is told about the own request."""
    with space.lock("held", PR):

        def work(number: int) -> str:
            kind = number % 3
            if kind == 0:
                with pytest.raises(LockTimedOutError):
                    space.lock("held", EX, timeout=0.1 + number / 100)
                return "timed out"
            if kind == 1:
                assert space.try_lock("held", EX) is None
                return "refused"
            with space.lock(f"own{number}", EX) as lock:
                return "granted" if lock.name == b"own%d" % number else "wrong"

        expected = ["timed out", "refused", "granted"] * 4
        assert in_threads(12, work) == expected
        assert live.held() == [(b"held", PR)]


def test_a_conversion_is_cancelled_from_another_thread(live: Places, space: Lockspace) -> None:
    """lock.cancel() ends the conversion that another thread waits for; the old mode is kept."""
    other = Lockspace.open(live.process(), NAME)
    with other.lock("res", PR), space.lock("res", PR) as lock:
        live.later(0.2, lock.cancel)
        with pytest.raises(LockCancelledError):
            lock.convert(EX)
        assert lock.mode == PR
        assert not lock.cancel()
    other.close()


def test_blocking_callbacks_come_in_order(live: Places, space: Lockspace) -> None:
    """Rising wishes are told one by one, with the mode that somebody waits for."""
    told: list[LockMode] = []
    other = Lockspace.open(live.process(), NAME)
    with space.lock("res", EX) as lock:
        lock.on_blocking(told.append)
        for mode in (CR, PR, EX):
            with pytest.raises(LockTimedOutError):
                other.lock("res", mode, timeout=0.2)
        live.eventually(lambda: len(told) >= 3, "three notifications")
        assert told == [CR, PR, EX]
        assert lock.blocking is EX
    other.close()


def test_a_callback_may_use_the_lock(live: Places, space: Lockspace) -> None:
    """Giving way inside the callback is what it is for."""
    lock = space.lock("res", EX)

    def give_way(_: LockMode) -> None:
        with suppress(NoLockError):  # a second notification may meet the end of the lock
            lock.convert(NL)

    lock.on_blocking(give_way)
    with Lockspace.open(live.process(), NAME) as other, other.lock("res", EX, timeout=PATIENCE):
        live.eventually(lambda: lock.mode == NL, "the end of the conversion")
    lock.unlock()


def test_a_callback_that_raises_harms_nobody(
    live: Places, space: Lockspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises goes to threading.excepthook; notifications and answers go on."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))

    def fail(_: LockMode) -> None:
        raise ZeroDivisionError

    other = Lockspace.open(live.process(), NAME)
    with space.lock("res", EX) as lock:
        lock.on_blocking(fail)
        with pytest.raises(LockTimedOutError):
            other.lock("res", PR, timeout=0.2)
        live.eventually(lambda: raised, "the hook")
        told: list[LockMode] = []
        lock.on_blocking(told.append)
        with pytest.raises(LockTimedOutError):
            other.lock("res", EX, timeout=0.2)
        live.eventually(lambda: EX in told, "the next notification")
    assert raised == [ZeroDivisionError]
    other.close()


# ---- Mutex --------------------------------------------------------------------------------------


def test_a_mutex_is_used_like_threadings(live: Places, space: Lockspace) -> None:
    """acquire, locked, release, with: as code written for threading.Lock does."""
    mutex = space.mutex("res")
    assert not mutex.locked()
    assert mutex.acquire()
    assert mutex.locked()
    assert live.held() == [(b"res", EX)]
    mutex.release()
    assert not mutex.locked()
    with mutex:
        assert mutex.locked()
    assert live.locks() == []


def test_a_mutex_that_somebody_else_has(live: Places, space: Lockspace) -> None:
    """acquire(False) and a timeout are False, never an exception."""
    with Lockspace.open(live.process(), NAME) as other, other.mutex("res"):
        mutex = space.mutex("res")
        assert mutex.acquire(blocking=False) is False
        assert mutex.acquire(timeout=0.1) is False
        assert mutex.acquire(False) is False
        assert not mutex.locked()
    assert mutex.acquire(True, 10)
    mutex.release()


def test_a_mutex_that_is_not_held_cannot_be_released(space: Lockspace) -> None:
    """Releasing without holding is an error."""
    with pytest.raises(NoLockError):
        space.mutex("res").release()


def test_a_mutex_excludes_threads(space: Lockspace) -> None:
    """One mutex object shared by threads, as threading.Lock is."""
    mutex = space.mutex("res")
    inside, count = 0, 0

    def work(_: int) -> None:
        nonlocal inside, count
        for _ in range(5):
            with mutex:
                inside += 1
                assert inside == 1
                count += 1
                inside -= 1

    in_threads(6, work)
    assert count == 30


def test_another_thread_may_release_a_mutex(space: Lockspace) -> None:
    """As with threading.Lock, who releases need not be who acquired."""
    mutex = space.mutex("res")
    mutex.acquire()
    thread = threading.Thread(target=mutex.release)
    thread.start()
    thread.join(PATIENCE)
    assert not mutex.locked()
