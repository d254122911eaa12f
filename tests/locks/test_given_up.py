"""What is given up before a dead node could answer it: no order of calls may harm the kernel.

A kernel that has a request cancelled whose resource's master is still being looked up forgets half
of it, and hangs or panics when the resource is asked for again (docs/hazards.md). The emulated
cluster here is strict: it raises where a kernel would not survive. tests/vm/cluster/test_locks.py
does the same on guests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dlm.abi.device import RESULT_SIZE_MAX, Command, LockRequest, encode_request
from dlm.errors import KernelHazardError
from dlm.locks import Ending, LockBusyError, Lockspace, LockTimedOutError, LockUsageError, aio
from dlm.terms import KERNELS, LockFlag, LockMode
from tests.locks.conftest import ON_KERNEL
from tests.locks.worlds import NAME, PATIENCE, EmulatedWorld

NL, PR, EX = LockMode.NL, LockMode.PR, LockMode.EX
NAMES = [f"res{number}" for number in range(8)]
"""Resources: the directory node of some is node 2."""


@pytest.fixture(params=sorted(KERNELS))
def two(request: pytest.FixtureRequest) -> Iterator[EmulatedWorld]:
    """Two strict nodes; node 2 will die."""
    if ON_KERNEL:
        pytest.skip("emulator only: needs two nodes")
    world = EmulatedWorld((1, 2), kernel=request.param, strict=True)
    yield world
    world.finish()


def bury(world: EmulatedWorld) -> None:
    """Let node 1 go on without node 2, which has died."""
    lockspace = world.control(1).lockspace(NAME)
    lockspace.stop()
    lockspace.start(2, [1])
    lockspace.wait_done(2)


def rest(world: EmulatedWorld, *spaces: Lockspace) -> None:
    """Let programs without threads see to what they left."""
    for _ in range(4):
        for space in spaces:
            space.dispatch()
        world.settle()


def test_a_cancel_that_overtakes_the_answer_is_deadly(two: EmulatedWorld) -> None:
    """Why all this: a plain CANCEL of such a request, a recovery, the same request: the end."""
    device = two.process(1).open_device(f"dlm_{NAME}")
    two.cluster.crash("node2")
    ids = {}
    for name in NAMES:
        request = LockRequest(mode=EX, name=name.encode(), castaddr=1, lksb=1)
        ids[name] = device.write(encode_request(request))
    for lock_id in ids.values():
        device.write(encode_request(LockRequest(Command.UNLOCK, 0, LockFlag.CANCEL, lock_id)))
    bury(two)
    two.settle()
    while device.poll(0):
        device.read(RESULT_SIZE_MAX)

    def ask_again() -> None:
        for name in NAMES:
            request = LockRequest(mode=EX, name=name.encode(), castaddr=1, lksb=1)
            device.write(encode_request(request))

    with pytest.raises(KernelHazardError):
        ask_again()


def test_a_timeout_of_what_a_dead_node_should_answer(two: EmulatedWorld) -> None:
    """It raises LEFT before anybody has noticed the death; after the recovery all is as ever."""
    space, other = (Lockspace.open(two.process(1), NAME) for _ in range(2))
    two.cluster.crash("node2")
    endings = []
    for name in NAMES:
        try:
            space.lock(name, timeout=0.1).unlock()
        except LockTimedOutError as error:
            endings.append(error.ending)
    assert endings
    assert set(endings) == {Ending.LEFT}
    bury(two)
    rest(two, space)
    assert two.locks(1) == []
    for name in NAMES:
        other.lock(name, timeout=PATIENCE).unlock()
        space.lock(name, timeout=PATIENCE).unlock()


def test_others_who_want_it_too_have_it_after_the_recovery(two: EmulatedWorld) -> None:
    """Who waits behind the one that gives up is not forgotten."""
    space, other = (Lockspace.open(two.process(1), NAME) for _ in range(2))
    two.cluster.crash("node2")
    behind = []
    for name in NAMES:
        try:
            space.lock(name, timeout=0.1).unlock()
        except LockTimedOutError:
            behind.append(other.submit(LockRequest(mode=EX, name=name.encode()))[1])
    bury(two)
    rest(two, space, other)
    assert [each.status for each in behind if each.done] == [0] * len(behind)


def test_a_conversion_whose_master_dies(two: EmulatedWorld) -> None:
    """It is not cancelled either before there is an answer; the lock can be unlocked as ever."""
    there, space = Lockspace.open(two.process(2), NAME), Lockspace.open(two.process(1), NAME)
    for name in NAMES:
        there.lock(name, NL)  # node 2 is the master
    locks = [space.lock(name, PR) for name in NAMES]
    two.cluster.crash("node2")
    for lock in locks:
        with pytest.raises(LockTimedOutError) as caught:
            lock.convert(EX, timeout=0.1)
        assert caught.value.ending is Ending.LEFT
    bury(two)
    for lock in locks:
        lock.unlock(timeout=PATIENCE)
    rest(two, space)
    assert two.locks(1) == []


@pytest.mark.parametrize("flag", [LockFlag.CANCEL, LockFlag.FORCEUNLOCK])
def test_the_low_level_cancels_nothing_unanswered(two: EmulatedWorld, flag: LockFlag) -> None:
    """CANCEL and FORCEUNLOCK are EBUSY then, and can be had after the recovery."""
    space = Lockspace.open(two.process(1), NAME)
    two.cluster.crash("node2")
    begun = [space.submit(LockRequest(mode=EX, name=name.encode())) for name in NAMES]
    space.dispatch()
    unanswered = [lock_id for lock_id, completion in begun if not completion.done]
    assert unanswered
    for lock_id in unanswered:
        with pytest.raises(LockBusyError):
            space.submit(LockRequest(Command.UNLOCK, 0, flag, lock_id))
    bury(two)
    rest(two, space)
    for lock_id, completion in begun:
        assert completion.done
        assert not completion.status
        space.submit(LockRequest(Command.UNLOCK, lock_id=lock_id))
    rest(two, space)
    assert two.locks(1) == []


def test_no_deadlocks_victim_is_unanswered(two: EmulatedWorld) -> None:
    """deadlock_cancel refuses a request that no node has answered, anybody's."""
    space, other = (Lockspace.open(two.process(1), NAME) for _ in range(2))
    two.cluster.crash("node2")
    begun = [other.submit(LockRequest(mode=EX, name=name.encode())) for name in NAMES]
    other.dispatch()
    unanswered = [lock_id for lock_id, completion in begun if not completion.done]
    assert unanswered
    for lock_id in unanswered:
        with pytest.raises(LockUsageError):
            space.deadlock_cancel(lock_id)
    bury(two)


def test_a_task_that_is_cancelled(two: EmulatedWorld) -> None:
    """The same on asyncio: CancelledError comes out soon, nothing is cancelled in the kernel."""
    backend = two.process(1)

    async def main() -> None:
        async with await aio.Lockspace.open(backend, NAME) as space:
            two.cluster.crash("node2")
            tasks = [asyncio.create_task(space.lock(name)) for name in NAMES]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert any(isinstance(each, asyncio.CancelledError) for each in ended)
            for each in ended:
                if isinstance(each, aio.Lock):
                    await each.unlock()
            two.control(1).lockspace(NAME).stop()
            two.control(1).lockspace(NAME).start(2, [1])
            await asyncio.sleep(1)
            for name in NAMES:
                await (await space.lock(name, timeout=PATIENCE)).unlock()

    two.run(main())
