"""The lock API on asyncio: many tasks, cancellation that reaches the kernel, a loop that goes on.

In the in-process emulator the loop lives in virtual time, so that what races is forced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import pairwise

import pytest

from dlm.locks import (
    DeadlockError,
    Ending,
    Lockspace,
    LockspaceClosedError,
    LockTimedOutError,
    NoLockError,
    aio,
)
from dlm.terms import LockMode
from tests.locks.worlds import NAME, PATIENCE, EmulatedWorld, Places

NL, CR, CW, PR, PW, EX = LockMode


@asynccontextmanager
async def opened(world: Places) -> AsyncIterator[tuple[aio.Lockspace, aio.Lockspace]]:
    """Two programs that have the lockspace open."""
    async with (
        await aio.Lockspace.open(world.process(), NAME) as first,
        await aio.Lockspace.open(world.process(), NAME) as second,
    ):
        yield first, second


async def until(condition: object, what: str) -> None:
    """Let the loop go on until the condition holds."""
    for _ in range(1500):
        if condition():  # type: ignore[operator]  # a callable
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"did not come: {what}")


def test_lock_and_unlock(world: Places) -> None:
    """``async with`` takes and drops it; ``await`` only takes it."""

    async def main() -> None:
        async with opened(world) as (space, _):
            async with space.lock("res", EX) as lock:
                assert lock.mode == EX
                assert world.held() == [(b"res", EX)]
            assert world.locks() == []
            lock = await space.lock("res", PR)
            await lock.convert(CR)
            assert world.held() == [(b"res", CR)]
            await lock.unlock()
            assert world.locks() == []
            assert not lock.held

    world.run(main())


def test_readers_share_and_writers_do_not(world: Places) -> None:
    """Twenty readers are inside at once, a writer is alone."""

    async def main() -> None:
        async with opened(world) as (space, _):
            inside = most = 0

            async def read() -> None:
                nonlocal inside, most
                async with space.read("res"):
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.1)
                    inside -= 1

            async def write() -> None:
                async with space.write("res"):
                    assert inside == 0

            await asyncio.gather(*(read() for _ in range(20)), write())
            assert most > 1

    world.run(main())


def test_try_lock(world: Places) -> None:
    """None when it cannot be had at once."""

    async def main() -> None:
        async with opened(world) as (space, other), space.write("res"):
            assert await other.try_lock("res", PR) is None
            lock = await other.try_lock("free")
            assert lock is not None
            await lock.unlock()

    world.run(main())


def test_a_timeout(world: Places) -> None:
    """It is cancelled in the kernel, and nothing is left."""

    async def main() -> None:
        async with opened(world) as (space, other), space.write("res"):
            with pytest.raises(LockTimedOutError) as caught:
                await other.lock("res", timeout=0.1)
            assert caught.value.ending is Ending.CANCELLED
            assert [each.waits for each in world.locks()] == [False]

    world.run(main())


def test_what_is_cancelled_before_it_began_never_begins(world: Places) -> None:
    """A request that nobody has awaited never reaches the kernel, though it be awaited later."""

    async def main() -> None:
        async with opened(world) as (space, _):
            request = space.lock("res")
            request.cancel()
            (ended,) = await asyncio.gather(request, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError)
            assert world.locks() == []

    world.run(main())


def test_cancelling_a_task_cancels_its_request(world: Places) -> None:
    """When the task has ended nothing of its request is left in the kernel."""

    async def main() -> None:
        async with opened(world) as (space, other), space.write("res"):
            task = asyncio.create_task(other.lock("res").__aenter__())
            await until(lambda: any(e.waits for e in world.locks()), "a request that waits")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [each.waits for each in world.locks()] == [False]

    world.run(main())


def test_cancelling_a_conversion_keeps_the_old_mode(world: Places) -> None:
    """The lock is held as before, and can be converted again."""

    async def main() -> None:
        async with opened(world) as (space, other):
            reader = await space.read("res")
            lock = await other.read("res")
            task = asyncio.create_task(lock.convert(EX))
            await until(lambda: any(e.waits for e in world.locks()), "a conversion that waits")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert lock.mode == PR
            await reader.unlock()
            await lock.convert(EX)
            assert world.held() == [(b"res", EX)]
            await lock.unlock()

    world.run(main())


def test_asyncios_own_timeout(world: Places) -> None:
    """``asyncio.timeout`` works by cancelling: it leaves nothing either."""

    async def main() -> None:
        async with opened(world) as (space, other), space.write("res"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), other.write("res"):
                    pytest.fail("never inside")
            assert [each.waits for each in world.locks()] == [False]

    world.run(main())


STEPS = 160
STEP = 0.000_025


def test_a_grant_that_races_with_a_cancellation(three: EmulatedWorld) -> None:
    """Whenever a task is cancelled around the grant of its lock, nothing is left of it.

    The task either has the lock and drops it at the end of its block, or never had it; holder,
    master and waiter are three nodes, so that every message can be under way.
    """

    async def main() -> None:
        spaces = [await aio.Lockspace.open(three.process(node), NAME) for node in three.nodes]
        holder, master, waiter = spaces
        anchor = await master.lock("res", NL)
        entered = set()
        for step in range(STEPS):
            lock = await holder.lock("res", EX)
            got = False

            async def use() -> None:
                nonlocal got
                async with waiter.lock("res", EX):
                    got = True

            task = asyncio.create_task(use())
            await asyncio.sleep(0.05)
            unlock = asyncio.create_task(lock.unlock())
            await asyncio.sleep(step * STEP)
            task.cancel()
            await asyncio.gather(task, unlock, return_exceptions=True)
            entered.add(got)
            await asyncio.sleep(0.05)
            assert [three.held(node) for node in three.nodes] == [[], [(b"res", NL)], []], step
            assert not any(e.waits for node in three.nodes for e in three.locks(node)), step
        assert entered == {False, True}
        await anchor.unlock()
        for space in spaces:
            await space.close()

    three.run(main())


def test_a_block_that_raises(world: Places) -> None:
    """The block's own exception comes out, and the lock is gone."""

    async def main() -> None:
        async with opened(world) as (space, _):
            with pytest.raises(ZeroDivisionError):
                async with space.write("res"):
                    _ = 1 / 0
            assert world.locks() == []

    world.run(main())


def test_a_task_cancelled_inside_its_block(world: Places) -> None:
    """The lock is dropped although the task is being cancelled."""

    async def main() -> None:
        async with opened(world) as (space, _):
            inside = asyncio.Event()

            async def hold() -> None:
                async with space.write("res"):
                    inside.set()
                    await asyncio.sleep(3600)

            task = asyncio.create_task(hold())
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: world.locks() == [], "the end of the lock")

    world.run(main())


def test_a_thousand_in_flight(world: Places) -> None:
    """A thousand requests at once are answered each, and a thousand unlocks after them."""

    async def main() -> None:
        async with opened(world) as (space, _):
            locks = await asyncio.gather(*(space.lock(f"res{n}") for n in range(1000)))
            assert len({lock.lock_id for lock in locks}) == 1000
            assert [lock.name for lock in locks] == [b"res%d" % n for n in range(1000)]
            await asyncio.gather(*(lock.unlock() for lock in locks))
            assert world.locks() == []

    world.run(main())


def test_callbacks_of_an_operation_are_a_futures(world: Places) -> None:
    """In order, in the context they were added in, none that was removed; one may raise."""

    async def main() -> None:
        async with opened(world) as (space, _):
            told: list[object] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: told.append(type(context["exception"]))
            )
            variable: ContextVar[str] = ContextVar("variable")
            request = space.lock("res")

            def first(_: object) -> None:
                told.append(variable.get())
                raise ZeroDivisionError

            def never(_: object) -> None:
                told.append("never")

            variable.set("then")
            request.add_done_callback(first)
            variable.set("now")
            request.add_done_callback(lambda each: told.append(each is request))
            request.add_done_callback(never)
            assert request.remove_done_callback(never) == 1
            lock = await request
            assert told == ["then", ZeroDivisionError, True]

            unlock = lock.unlock()
            unlock.add_done_callback(never)
            assert unlock.remove_done_callback(never) == 1
            assert unlock.remove_done_callback(never) == 0
            await unlock
            unlock.add_done_callback(told.append)
            await asyncio.sleep(0)
            assert told[3:] == [unlock]

    world.run(main())


def test_what_lock_returns_is_a_future_and_a_coroutine(world: Places) -> None:
    """``wait_for``, ``create_task``, ``TaskGroup`` and ``shield`` take it."""

    async def main() -> None:
        async with opened(world) as (space, other):
            await (await asyncio.create_task(space.lock("res"))).unlock()
            lock = await asyncio.wait_for(space.lock("res"), PATIENCE)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other.lock("res"), 0.1)
            async with asyncio.TaskGroup() as group:
                group.create_task(lock.unlock())
                second = group.create_task(other.lock("res"))
            await asyncio.shield(second.result().unlock())
            assert world.locks() == []

    world.run(main())


def test_blocking_tells_each_wish(world: Places) -> None:
    """``async for`` gives the modes that others wait for, and ends with the lock."""

    async def main() -> None:
        async with opened(world) as (space, other):
            lock = await space.lock("res", EX)
            told = []

            async def watch() -> None:
                async for mode in lock.blocking():
                    told.append(mode)
                    if mode == EX:
                        await lock.unlock()

            watcher = asyncio.create_task(watch())
            for mode in (PR, EX):
                waiter = asyncio.create_task(other.lock("res", mode).__aenter__())
                await until(lambda mode=mode: mode in told, "the notification")
                if mode == PR:
                    waiter.cancel()
                    await asyncio.gather(waiter, return_exceptions=True)
            await (await waiter).unlock()
            await watcher
            assert told == [PR, EX]

    world.run(main())


def test_a_cache_that_gives_way(world: Places) -> None:
    """Two programs pass a resource to and fro, each giving way as soon as it is asked."""

    async def main() -> None:
        async with opened(world) as spaces:
            turns: list[int] = []

            async def play(number: int) -> None:
                lock = await spaces[number].lock("ball", NL)
                for _ in range(5):
                    await lock.convert(EX)
                    turns.append(number)
                    async for _ in lock.blocking():
                        break
                    await lock.convert(NL)
                await lock.unlock()

            first = asyncio.create_task(play(0))
            second = asyncio.create_task(play(1))
            await asyncio.wait(
                [first, second], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            for task in (first, second):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert len(turns) >= 9
            assert all(a != b for a, b in pairwise(turns))

    world.run(main())


def test_a_conversion_deadlock(world: Places) -> None:
    """The second of two readers that want to write is refused; the first gets it then."""

    async def main() -> None:
        async with opened(world) as (space, other):
            first, second = await space.read("res"), await other.read("res")
            task = asyncio.create_task(first.convert(EX))
            await until(lambda: any(e.waits for e in world.locks()), "a conversion that waits")
            with pytest.raises(DeadlockError):
                await second.convert(EX)
            await second.unlock()
            await task
            assert first.mode == EX
            await first.unlock()

    world.run(main())


def test_the_loop_goes_on_while_the_lockspace_is_stopped(live: Places) -> None:
    """A request that sleeps in the kernel sleeps elsewhere; the loop's own work goes on."""

    async def main() -> None:
        async with opened(live) as (space, _):
            await asyncio.to_thread(live.stop)
            endings = []
            for name in ("first", "second"):  # the first sleeps in the kernel, the other behind it
                try:
                    await space.lock(name, timeout=0.1)
                except LockTimedOutError as error:
                    endings.append(error.ending)
            task = asyncio.create_task(space.lock("res").__aenter__())
            for _ in range(20):
                await asyncio.sleep(0.01)
            waited = not task.done()
            await asyncio.to_thread(live.start)
            assert waited
            assert endings == [Ending.LEFT, Ending.CANCELLED]
            lock = await asyncio.wait_for(task, PATIENCE)
            await lock.unlock()
            await until(lambda: live.locks() == [], "the end of what was left")

    live.run(main())


def test_a_cancellation_that_falls_into_a_stop(live: Places) -> None:
    """The task ends at once; what it asked for is undone after the start."""

    async def main() -> None:
        async with opened(live) as (space, _):
            await asyncio.to_thread(live.stop)
            task = asyncio.create_task(space.lock("res").__aenter__())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, PATIENCE)
            await asyncio.to_thread(live.start)
            async with space.lock("res", timeout=PATIENCE):
                pass
            await until(lambda: live.locks() == [], "the end of what was left")

    live.run(main())


def test_threads_and_tasks_on_one_file(live: Places) -> None:
    """``aio.Lockspace.on`` shares a blocking lockspace's file: both exclude each other."""

    async def main() -> None:
        with Lockspace.open(live.process(), NAME) as space:
            async with aio.Lockspace.on(space) as tasks:
                count = inside = 0

                def in_thread() -> None:
                    nonlocal count, inside
                    for _ in range(10):
                        with space.write("res"):
                            inside += 1
                            assert inside == 1
                            count += 1
                            inside -= 1

                async def in_task() -> None:
                    nonlocal count, inside
                    for _ in range(10):
                        async with tasks.write("res"):
                            inside += 1
                            assert inside == 1
                            count += 1
                            inside -= 1

                threads = [asyncio.to_thread(in_thread) for _ in range(3)]
                await asyncio.wait_for(asyncio.gather(*threads, in_task(), in_task()), PATIENCE)
                assert count == 50
        live.eventually(lambda: live.locks() == [], "the end of the locks")

    live.run(main())


def test_nothing_can_be_asked_of_a_closed_lockspace(world: Places) -> None:
    """EBADF, as for the blocking one."""

    async def main() -> None:
        space = await aio.Lockspace.open(world.process(), NAME)
        lock = await space.lock("res")
        await space.close()
        with pytest.raises(LockspaceClosedError):
            await space.lock("res")
        assert not lock.held

    world.run(main())


def test_a_mutex(world: Places) -> None:
    """acquire, locked, release, async with."""

    async def main() -> None:
        async with opened(world) as (space, other):
            mutex = space.mutex("res")
            assert await mutex.acquire()
            assert mutex.locked()
            theirs = other.mutex("res")
            assert await theirs.acquire(timeout=0.1) is False
            assert await theirs.acquire(blocking=False) is False
            await mutex.release()
            async with theirs:
                assert world.held() == [(b"res", EX)]
            with pytest.raises(NoLockError):
                await mutex.release()

    world.run(main())


def test_persistence(world: Places) -> None:
    """Pinned, listed, adopted, purged: as in the blocking API."""

    async def main() -> None:
        async with opened(world) as (space, other):
            gone = await aio.Lockspace.open(world.process(), NAME)
            await gone.lock("a", EX, persistent=True)
            await gone.lock("b", PR, persistent=True)
            await gone.close()
            assert sorted(each.name for each in await space.orphans()) == [b"a", b"b"]
            lock = await space.adopt("a", EX)
            assert lock.persistent
            await lock.unlock()
            await other.purge()
            assert world.locks() == []

    world.run(main())
