"""The recorded traces cover the interface's sections 4 and 5, but for what is said."""

from __future__ import annotations

from tests.workloads.coverage import TRACES, watched
from tests.workloads.evidence import UNCOVERED, missing


def test_every_row_is_covered_or_its_reason_is_given() -> None:
    """What no trace covers is exactly what the table explains."""
    assert set(missing(watched(TRACES))) == UNCOVERED.keys()
