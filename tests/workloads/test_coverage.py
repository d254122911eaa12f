"""The recorded traces cover the interface's sections 4 and 5, but for what is said."""

from __future__ import annotations

from tests.workloads.coverage import TRACES, watched
from tests.workloads.evidence import NEEDS_TWO, UNCOVERED, missing


def test_every_row_is_covered_or_its_reason_is_given() -> None:
    """What no trace covers is exactly what the table explains, and what needs two nodes."""
    stories = any("two-node-in-flight" in path.name for path in TRACES.glob("*/*"))
    expected = UNCOVERED.keys() | (set() if stories else NEEDS_TWO)
    uncovered = set(missing(watched(TRACES)))
    assert uncovered <= expected
    assert uncovered >= UNCOVERED.keys()
