"""The trace of rules that no other trace reaches is what its stories ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.emulator import Cluster
from dlm.trace import load
from dlm.trace.format import request_of
from tests.traces.rulestories import COMMENT, record

FILES = sorted((Path(__file__).parents[2] / "fixtures" / "traces").glob("*/rules.jsonl.gz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_stories_ask_the_same_again(path: Path) -> None:
    """Played on the emulator, they ask what they asked when the trace was recorded."""
    recorded = load(path)
    kernel = path.parent.name

    cluster = Cluster({"node1": "127.0.0.1"}, kernel=kernel)
    played = record(cluster.node("node1").process(), kernel)

    asked, before = ([request_of(x.operation) for x in t.lines] for t in (played, recorded))
    assert asked == before
    assert recorded.header.kernel.startswith(f"{kernel}.")
    assert recorded.header.comment == COMMENT


def test_it_was_recorded() -> None:
    """On one kernel at least."""
    assert FILES
