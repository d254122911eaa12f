"""asyncio on virtual time: the world goes on exactly when every task waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from dlm.emulator import Cluster, aio
from dlm.emulator.misc import MiscFile
from dlm.emulator.pending import Pending
from dlm.errors import StalledError
from tests.unit.emulator.helpers import (
    answer,
    headers,
    lock_request,
    one_node,
    results,
    running_alone,
    set_members,
    set_up,
    start,
    submit_create,
)


@pytest.fixture
def cluster() -> Cluster:
    """One node, nothing configured."""
    return one_node()


async def readable(source: MiscFile | Pending | object) -> None:
    """Wait until a descriptor of the emulator is readable."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    descriptor = source.fileno()  # type: ignore[union-attr]
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def test_sleeping_takes_no_real_time(cluster: Cluster) -> None:
    """An hour passes for the cluster and the loop alike."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - begun

    real = time.monotonic()
    assert aio.run(main(), cluster) == 3600

    assert cluster.now() == 3600
    assert time.monotonic() - real < 10


def test_a_task_waits_for_a_call_that_sleeps(cluster: Cluster) -> None:
    """One task creates, another answers two virtual seconds later."""
    process = cluster.node("nodea").process()
    set_up(process, 1, [1])
    set_members(process, [1])

    async def create() -> object:
        pending = submit_create(process)
        await readable(pending)
        return pending.result()

    async def manage() -> None:
        await asyncio.sleep(2)
        start(process)
        answer(process)

    async def main() -> object:
        minor, _ = await asyncio.gather(create(), manage())
        return minor

    assert aio.run(main(), cluster) == 121
    assert 2 <= cluster.now() < 3


def test_results_and_events_wake_readers(cluster: Cluster) -> None:
    """Descriptors of devices and event sources work with add_reader."""
    process = cluster.node("nodea").process()
    running_alone(process)
    file = process.open_device("dlm_test")
    source = process.uevents()

    async def locker() -> None:
        await asyncio.sleep(1)
        file.write(lock_request(b"x"))
        await asyncio.sleep(1)
        submit_create(process, "other")

    async def main() -> tuple[int, list[str]]:
        task = asyncio.create_task(locker())
        await readable(file)
        found = len(results(file))
        await readable(source)
        await task
        return found, headers(source)

    found, seen = aio.run(main(), cluster)

    assert found == 1
    assert seen == ["add@/kernel/dlm/other", "online@/kernel/dlm/other"]


def test_a_timeout_ends_a_wait(cluster: Cluster) -> None:
    """asyncio.timeout counts virtual seconds."""
    process = cluster.node("nodea").process()
    set_up(process, 1, [1])

    async def main() -> None:
        async with asyncio.timeout(30):
            await readable(submit_create(process))

    with pytest.raises(TimeoutError):
        aio.run(main(), cluster)

    assert cluster.now() == pytest.approx(30)


def test_a_wait_that_nothing_can_end_is_stalled(cluster: Cluster) -> None:
    """When every task waits for ever, the loop says so in place of hanging."""
    process = cluster.node("nodea").process()
    running_alone(process)

    async def main() -> None:
        await readable(submit_create(process, "other"))

    with pytest.raises(StalledError, match="every task"):
        aio.run(main(), cluster)


def test_a_busy_task_does_not_hold_up_what_is_due(cluster: Cluster) -> None:
    """What is due at this very moment happens between the steps of a task that never waits."""
    seen: list[int] = []
    cluster.scheduler.schedule(0.0, lambda: seen.append(1))

    async def main() -> int:
        rounds = 0
        while not seen:
            rounds += 1
            await asyncio.sleep(0)
        return rounds

    assert aio.run(main(), cluster) < 5
    assert cluster.now() == 0
