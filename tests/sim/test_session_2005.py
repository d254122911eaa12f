"""The usage document's session on three nodes of 2005, in raw writes, with a crash and a return.

The steps of the comments are those of the document. All invariants are looked at after every step
of every lockspace.
"""

from __future__ import annotations

import pytest

from dlm.emulator import Cluster
from dlm.emulator.misc import MiscFile
from dlm.emulator.pending import Pending
from dlm.terms import EUNLOCK, LockFlag
from tests.contract2005.world import (
    ADDRESSES,
    EX,
    PR,
    Machine,
    lock_bytes,
    results,
    unlock_bytes,
)


def start(
    machines: list[Machine], members: list[int], numbers: list[int], joining: int = 0
) -> None:
    """Start everywhere, wait for done everywhere, finish; node ``joining`` (0: all) answers."""
    for machine, number in zip(machines, numbers, strict=True):
        machine.start(members, number)
        if not machine.event and joining in (0, machine.number):
            machine.put("event_done", b"0")
    machines[0].cluster.settle()
    for machine, number in zip(machines, numbers, strict=True):
        if machine.event:
            assert machine.get("done") == b"%d\n" % number
            machine.put("finish", b"%d" % number)
    for machine in machines:
        assert machine.get("members") == "".join(f"{each} " for each in members).encode() + b"\n"


def settled_statuses(cluster: Cluster, file: MiscFile) -> list[tuple[int, int]]:
    """Let everything arrive; return the completions of a file."""
    cluster.settle()
    return [(result.lock_id, result.status) for result in results(file) if result.astaddr == 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("abi", ["event", "members"])
def test_the_session_of_the_usage_document(abi: str, seed: int) -> None:
    """Locks exclude each other across nodes, survive a crash, and its victim comes back."""
    # 1-4: three machines know themselves and each other
    cluster = Cluster(ADDRESSES, abi=abi, seed=seed)
    cluster.check_every_step()
    machines = [Machine(cluster, name) for name in ADDRESSES]
    for machine in machines:
        machine.configure()
    # 5-8: create, start, done, finish
    creates: list[Pending] = [machine.create() for machine in machines]
    for machine in machines:
        machine.put("id", b"17")
    start(machines, [1, 2, 3], [1, 1, 1])
    minors = [create.result() for create in creates]
    assert minors == [machine.process.misc_devices()["dlm_test"] for machine in machines]
    # 9: a, b and c use it
    a, b, c = (machine.open() for machine in machines)
    held = a.write(lock_bytes(EX, name=b"shared"))
    assert settled_statuses(cluster, a) == [(held, 0)]
    waits = b.write(lock_bytes(EX, name=b"shared"))
    assert settled_statuses(cluster, b) == []
    assert [result.astaddr for result in results(a)] == [2]  # blocking
    kept = c.write(lock_bytes(PR, LockFlag.PERSISTENT, name=b"kept"))
    assert settled_statuses(cluster, c) == [(kept, 0)]
    # 10: nodea fails; the others stop, and their requests wait
    cluster.crash("nodea")
    survivors = machines[1:]
    for machine in survivors:
        machine.stop()
    # 11-13: they start without it, and its lock is gone
    start(survivors, [2, 3], [2, 2], joining=-1)
    assert settled_statuses(cluster, b) == [(waits, 0)]
    # 14: nodea comes back
    cluster.restart("nodea")
    machines[0] = Machine(cluster, "nodea")
    machines[0].configure()
    create = machines[0].create()
    machines[0].put("id", b"17")
    # 15-18: stop, start everywhere with numbers of each node's own, done, finish
    for machine in survivors:
        machine.stop()
    start(machines, [1, 2, 3], [1, 3, 3], joining=1)
    assert create.result() == machines[0].process.misc_devices()["dlm_test"]
    # and locks go across the return
    a = machines[0].open()
    again = a.write(lock_bytes(EX, name=b"shared"))
    assert settled_statuses(cluster, a) == []
    b.write(unlock_bytes(waits))
    cluster.settle()
    assert settled_statuses(cluster, b) == [(waits, -EUNLOCK)]
    assert settled_statuses(cluster, a) == [(again, 0)]
    other = a.write(lock_bytes(EX, LockFlag.NOQUEUE, name=b"kept"))
    assert [lock for lock, status in settled_statuses(cluster, a) if status] == [other]
    cluster.check()


@pytest.mark.parametrize("abi", ["event", "members"])
def test_a_node_that_goes_down_during_a_recovery(abi: str) -> None:
    """The recovery with it never ends; stopped and started without it, the others go on."""
    cluster = Cluster(ADDRESSES, abi=abi, seed=3)
    cluster.check_every_step()
    machines = [Machine(cluster, name) for name in ADDRESSES]
    for machine in machines:
        machine.configure()
        machine.create()
    start(machines, [1, 2, 3], [1, 1, 1])
    for machine in machines:
        machine.stop()
    for machine in machines[1:]:
        machine.start([1, 2, 3], 2)
    cluster.crash("nodea")
    cluster.settle()
    if abi == "event":
        assert machines[1].get("done") == b"1\n"
    for machine in machines[1:]:
        machine.stop()
    start(machines[1:], [2, 3], [3, 3], joining=-1)
    cluster.check()


def test_equal_seeds_give_equal_traces() -> None:
    """The emulated nodes of 2005 know no chance but the cluster's own."""

    def trace(seed: int) -> tuple[str, ...]:
        cluster = Cluster(ADDRESSES, abi="event", seed=seed, keep_trace=True)
        machines = [Machine(cluster, name) for name in ADDRESSES]
        for machine in machines:
            machine.configure()
            machine.create()
        start(machines, [1, 2, 3], [1, 1, 1])
        return cluster.trace()

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
