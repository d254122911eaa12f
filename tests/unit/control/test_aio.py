"""The asyncio face: the same plans, awaited, in the emulator's virtual time."""

from __future__ import annotations

import asyncio
import errno

import pytest

from dlm.control import Done, Join, Leave, Phase, global_id
from dlm.control.aio import Control
from dlm.emulator.aio import run
from dlm.errors import RefusedError, TimedOutError
from tests.unit.control.world import ADDRESSES, IDS, World


def controls(world: World) -> dict[str, Control]:
    """Return an asyncio control of each node."""
    return {name: Control(process, timeout=60) for name, process in world.processes.items()}


def test_a_create_that_waits_and_the_start_that_ends_it_run_side_by_side() -> None:
    """Three nodes in one loop: every create returns its minor once recovery has ended."""
    world = World(*ADDRESSES)

    async def main() -> list[int | None]:
        spaces = [control.lockspace("test") for control in controls(world).values()]
        creates = [asyncio.create_task(space.create(wait=True)) for space in spaces]
        for space in spaces:
            while not any(view.name == "test" for view in (await _views(world, space.name))):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await asyncio.gather(*(space.start(1, [1, 2, 3]) for space in spaces))
        assert await asyncio.gather(*(space.wait_done(1) for space in spaces)) == [1, 1, 1]
        await asyncio.gather(*(space.finish(1) for space in spaces))
        return list(await asyncio.gather(*creates))

    assert run(main(), world.cluster) == [121, 121, 121]


async def _views(world: World, _name: str) -> tuple[object, ...]:
    view = await Control(world.processes["nodea"]).snapshot()
    return view.lockspaces


def test_a_refusal_says_errno_and_what_was_written() -> None:
    """As the blocking face does."""
    world = World("nodea")

    async def main() -> None:
        with pytest.raises(RefusedError) as caught:
            await Control(world.processes["nodea"]).lockspace("nope").stop()
        assert caught.value.errno == errno.ENOENT

    run(main(), world.cluster)


def test_a_timeout_ends_one_task_and_leaves_the_others_alone() -> None:
    """The lockspace's first member is away; its watcher goes on."""
    world = World("nodea", "nodeb")

    async def main() -> None:
        space = controls(world)["nodea"].lockspace("test")
        await space.create()
        await space.start(1, [1, 2])
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.5)
                ticks += 1

        ticker = asyncio.create_task(tick())
        with pytest.raises(TimedOutError, match="the recovery of test"):
            await space.wait_done(1, timeout=3)
        ticker.cancel()
        assert ticks in {5, 6}

    run(main(), world.cluster)


def test_two_tasks_that_start_the_same_lockspace_do_not_both_answer_its_join() -> None:
    """One of them is first; the other finds it running or recovering."""
    world = World("nodea")

    async def main() -> list[object]:
        space = controls(world)["nodea"].lockspace("test")
        await space.create()
        starts = (space.start(1, [1]), space.start(2, [1]))
        return list(await asyncio.gather(*starts, return_exceptions=True))

    results = run(main(), world.cluster)
    assert results[0] is None
    assert isinstance(results[1], RefusedError)


def test_a_membership_manager_in_one_task() -> None:
    """Joins are answered, a failed node is taken out, all from events and snapshots."""
    world = World(*ADDRESSES)

    async def main() -> list[int]:
        by_name = controls(world)
        for control in by_name.values():
            await control.lockspace("test").create()
        async with by_name["nodeb"].events(rescan=2) as watch:
            assert await watch.next_event(5) == Join("test")
            for control in by_name.values():
                await control.lockspace("test").start(1, list(IDS.values()))
            assert await watch.next_event(5) == Done("test", 1)
            world.cluster.crash("nodea")
            for name in ("nodeb", "nodec"):
                await by_name[name].lockspace("test").stop()
            for name in ("nodeb", "nodec"):
                await by_name[name].lockspace("test").start(2, [2, 3])
            assert await watch.next_event(60) == Done("test", 2)
            leaving = asyncio.ensure_future(by_name["nodeb"].lockspace("test").release(timeout=400))
            assert await watch.next_event(5) == Leave("test")
            with pytest.raises(TimedOutError):
                await watch.next_event(1)
            # It waits for the other node to go on without this one, and 3 minutes for the dead one.
            assert not leaving.done()
            await by_name["nodec"].lockspace("test").stop()
            await by_name["nodec"].lockspace("test").start(3, [3])
            await leaving
        return [await by_name["nodec"].lockspace("test").get_done()]

    assert run(main(), world.cluster) == [3]


def test_all_verbs_are_there() -> None:
    """set_local, set_node, set_id, terminate, hold_monitor and the snapshot too."""
    world = World("nodea")

    async def main() -> None:
        control = Control(world.processes["nodea"])
        await control.set_local(1, "10.0.0.1", weight=2)
        await control.set_node(2, ["10.0.0.2", "fd00::2"])
        space = control.lockspace("test")
        await space.create()
        await space.set_id(global_id("test"))
        await space.terminate()
        await asyncio.sleep(1)
        view = await control.snapshot()
        assert (view.local, view.lockspaces) == (1, ())
        assert [node.weight for node in view.nodes] == [2, 1]
        async with control.hold_monitor():
            await space.create()
            await space.start(1, [1])
            await space.wait_done(1)
            await asyncio.sleep(1)
            assert (await control.snapshot()).lockspaces[0].phase is Phase.RUNNING

    run(main(), world.cluster)
