"""The recorded directed traces show what the tables of rows say that they show."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from dlm.cli.emulated import Emulated
from dlm.trace import Header, Trace, load, replay
from tests.traces import lockstories, record_two
from tests.traces.record import SCRIPTS, comment
from tests.traces.rows import (
    ALL,
    NO_STORY,
    NO_TRACE,
    NOT_RECORDED,
    ONE_NODE,
    REFUSALS,
    STORIES,
    TWO_NODE_KERNELS,
    TWO_NODES,
    Shown,
)

FEWEST = 10

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"


@cache
def directed(kernel: str, name: str) -> Trace:
    """Return a recorded trace."""
    return load(FIXTURES / kernel / f"directed-{name}.jsonl.gz")


def shows(trace: Trace, shown: Shown) -> bool:
    """Say whether a trace has such a refusal."""
    return any(
        line.operation["do"] == shown.do
        and line.operation.get("errno") == shown.errno
        and any(shown.where in line.operation.get(part, "") for part in ("path", "device", "hex"))
        for line in trace.lines
    )


@pytest.mark.parametrize("row", REFUSALS)
def test_every_refusal_was_seen_on_a_real_kernel(row: str) -> None:
    """Each that bytes can bring about, on every kernel that has it."""
    shown = REFUSALS[row]
    recorded = [each for each in shown.kernels if shown.trace not in NOT_RECORDED.get(each, ())]

    assert recorded
    assert not [each for each in recorded if not shows(directed(each, shown.trace), shown)]


def test_what_has_no_trace_has_a_reason() -> None:
    """And is nowhere in the list of what has one."""
    assert all(NO_TRACE.values())
    assert not set(NO_TRACE) & set(REFUSALS)
    assert all(NO_STORY.values())
    assert not set(NO_STORY) & {*TWO_NODES, *ONE_NODE}
    assert set(ONE_NODE.values()) <= set(SCRIPTS)
    assert set(TWO_NODES.values()) == set(record_two.STORIES)


@pytest.mark.parametrize("row", STORIES)
def test_every_story_was_told_to_every_kernel(row: str) -> None:
    """Its function is one of a trace's, and the trace's header says so."""
    story = getattr(lockstories, STORIES[row])
    (name,) = [name for name, told in lockstories.STORIES.items() if story in told]

    assert str(story.__doc__).startswith(row.split(maxsplit=1)[0])
    recorded = [kernel for kernel in ALL if name not in NOT_RECORDED.get(kernel, ())]
    assert recorded
    for kernel in recorded:
        assert str(story.__doc__) in directed(kernel, name).header.comment


@pytest.mark.parametrize("kernel", TWO_NODE_KERNELS)
@pytest.mark.parametrize("name", record_two.STORIES)
def test_a_story_of_two_nodes_is_the_same_twice(name: str, kernel: str) -> None:
    """Its operations come one at a time, so a second cluster answers as the first one did."""
    emulated = Emulated(Trace(Header(kernel, nodes=2), ()))
    trace = record_two.record(name, emulated.backends, emulated, kernel)
    emulated.cluster.check()

    second = Emulated(trace)
    report = replay(trace, second.backends, machines=second)

    assert report.operations > 60
    assert not report.differences


@pytest.mark.parametrize("kernel", TWO_NODE_KERNELS)
def test_recorded_and_stories_of_two_nodes_agree(kernel: str) -> None:
    """Each story has its trace, of two nodes of this kernel.

    There are ten of them at least, and ten random workloads of two nodes.
    """
    found = {path.name for path in (FIXTURES / kernel).glob("two-node-*")}
    told = {f"two-node-{name}.jsonl.gz" for name in record_two.STORIES}

    drawn = {name for name in found if name.startswith(("two-node-random-", "two-node-wild-"))}
    assert found - drawn == told
    assert len(told) >= FEWEST
    assert len(drawn) >= FEWEST
    for name in found:
        header = load(FIXTURES / kernel / name).header
        assert header.nodes == 2
        assert header.kernel.startswith(f"{kernel}.")


@pytest.mark.parametrize("kernel", ALL)
def test_recorded_and_scripts_agree(kernel: str) -> None:
    """Each script has its trace, of this kernel, unless it is listed as not recorded."""
    found = {path.name for path in (FIXTURES / kernel).glob("directed-*")}
    recorded = [name for name in SCRIPTS if name not in NOT_RECORDED.get(kernel, ())]

    assert found == {f"directed-{name}.jsonl.gz" for name in recorded}
    for name in recorded:
        header = directed(kernel, name).header
        assert header.kernel.startswith(f"{kernel}.")
        assert header.comment == comment(name)


def test_the_scripts_ask_the_same_again() -> None:
    """A script played on the emulator asks what it asked when the trace was recorded."""
    from dlm.emulator import Cluster  # noqa: PLC0415 - this file is loaded in guests too
    from dlm.trace.format import request_of  # noqa: PLC0415
    from tests.traces.record import record  # noqa: PLC0415

    for name in set(SCRIPTS) - set(NOT_RECORDED.get("6.1", ())):
        cluster = Cluster({"node1": "127.0.0.1"}, kernel="6.1")
        played = record(name, cluster.node("node1").process(), "6.1", lambda _: None)
        recorded = directed("6.1", name)
        asked, before = ([request_of(x.operation) for x in t.lines] for t in (played, recorded))
        assert asked == before, name
