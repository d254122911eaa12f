"""Random workloads: what a seed fixes, and what is never asked."""

from __future__ import annotations

import pytest

from dlm.cli.emulated import Emulated
from dlm.core.hazards import READ_TOO_SHORT, TIMEOUT_RUNS_OUT
from dlm.emulator import Cluster
from dlm.trace import Header, Trace, dumps, replay
from dlm.trace.format import MASK
from tests.workloads import record, record_two
from tests.workloads.evidence import EVIDENCE, SHOWN_BY, UNCOVERED, missing
from tests.workloads.watch import Watch

KERNELS = ("5.10", "6.1", "6.12", "7.2")
OPERATIONS = 200

EXPECTED = (READ_TOO_SHORT.deed, TIMEOUT_RUNS_OUT.deed)
"""Hazards that a workload meets with open eyes: its reads have room, and no time runs out."""


def of_one(seed: int, kernel: str) -> Trace:
    """Return a trace of one emulated node."""
    return record.on_emulator(seed, OPERATIONS, kernel)


def of_two(seed: int, kernel: str) -> Trace:
    """Return a trace of two emulated nodes."""
    return record_two.on_emulator(seed, 60, kernel)


@pytest.mark.parametrize("make", [of_one, of_two])
def test_a_seed_fixes_a_workload(make: object) -> None:
    """Equal results make equal operations; another seed makes others."""
    assert callable(make)
    first, again, other = make(7, "6.1"), make(7, "6.1"), make(8, "6.1")
    assert dumps(first) == dumps(again)
    assert dumps(first) != dumps(other)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("make", [of_one, of_two])
def test_a_workload_can_be_replayed(make: object, kernel: str) -> None:
    """A replay on a fresh emulator has all that the recording had, and the same results."""
    assert callable(make)
    trace = make(11, kernel)
    emulated = Emulated(trace)
    report = replay(trace, emulated.backends, machines=emulated)
    assert report.operations == len(trace.lines) > 60
    assert report.differences == ()


def test_workloads_that_share_a_boot_can_be_replayed_alone() -> None:
    """The second workload of two nodes' life is a whole trace, which needs nothing of the first."""
    emulated = Emulated(Trace(Header("6.1", nodes=2), ()))
    life = record_two.Life(emulated.backends, emulated, "6.1")
    first, second = life.record(7, 60, dies=False), life.record(8, 60)

    assert [each.operation["do"] for each in first.lines].count("crash") == 0
    assert [each.operation["do"] for each in second.lines].count("crash") == 1
    for trace in (first, second):
        alone = Emulated(trace)
        report = replay(trace, alone.backends, machines=alone)
        assert report.operations == len(trace.lines) > 60
        assert report.differences == ()


def strict(nodes: int, kernel: str, deeds: list[str]) -> Cluster:
    """Return a cluster that notes what would have ended a real node, and goes on."""
    addresses = {f"node{number}": f"10.0.0.{number}" for number in range(1, nodes + 1)}
    cluster = Cluster(
        {"node1": "127.0.0.1"} if nodes == 1 else addresses, kernel=kernel, strict=True
    )
    cluster.on_hazard = lambda _, error: deeds.append(str(error))
    return cluster


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
@pytest.mark.parametrize("seed", range(4))
def test_one_node_would_survive(seed: int, kernel: str) -> None:
    """A workload asks for nothing that hangs, crashes or corrupts a real kernel."""
    deeds: list[str] = []
    with strict(1, kernel, deeds) as cluster:
        record.record(seed, OPERATIONS, cluster.node("node1").process(), kernel)
    assert [each for each in deeds if not each.startswith(EXPECTED)] == []


class Outside:
    """What is done to the nodes of a cluster from outside."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def crash(self, node: int) -> None:
        """Cut a node's power."""
        self.cluster.crash(f"node{node}")


@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
@pytest.mark.parametrize("seed", range(6))
def test_two_nodes_would_survive(seed: int, kernel: str) -> None:
    """Nor does one of two nodes."""
    deeds: list[str] = []
    with strict(2, kernel, deeds) as cluster:
        backends = [cluster.node(name).process() for name in ("node1", "node2")]
        outside: object = Outside(cluster)
        record_two.record(seed, 60, backends, outside, kernel)  # type: ignore[arg-type]
    assert [each for each in deeds if not each.startswith(EXPECTED)] == []


def test_rows_have_evidence_or_a_reason() -> None:
    """Every row of sections 4 and 5 is looked for, or is said to be uncovered and why."""
    without = [row for row in missing([]) if row not in EVIDENCE]
    assert set(without) <= UNCOVERED.keys() | SHOWN_BY.keys()
    assert not UNCOVERED.keys() & (EVIDENCE.keys() | SHOWN_BY.keys())


def test_a_trace_is_watched_without_changing_it() -> None:
    """Every operation is seen, and gives what the trace has."""
    trace = of_one(3, "6.1")
    seen = Watch(trace).seen()
    assert [each.operation for each in seen] == [line.operation for line in trace.lines]
    assert [each.errno for each in seen] == [
        line.operation.get("errno", "") for line in trace.lines
    ]


def test_a_header_says_the_seed() -> None:
    """A trace says which seed made it, and that the minors in it are not compared."""
    header = of_one(5, "7.2").header
    assert (header.kernel, header.comment) == ("7.2", "random, seed 5")
    assert {*MASK, "minor_t"} <= {*header.mask}
