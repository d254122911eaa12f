"""Every recorded trace on the emulator: what a real kernel answered is what it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.cli.emulated import Emulated
from dlm.trace import load, replay

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
FILES = sorted(FIXTURES.glob("*/*.jsonl*"))
SIZE_LIMIT = 10_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name[:-9]}")
def test_the_emulator_answers_as_the_kernel_did(path: Path) -> None:
    """No operation of a recorded trace has another result; `make replay` shows them all."""
    trace = load(path)
    emulated = Emulated(trace)

    report = replay(trace, emulated.backends, machines=emulated)

    assert report.operations == len(trace.lines) > 0
    assert not report.differences, (
        f"{len(report.differences)} differences, dlm_tool trace replay {path} shows them; "
        f"first: {report.differences[0]}"
    )


def test_the_recorded_traces_are_small() -> None:
    """All of them together, compressed."""
    assert FILES
    assert sum(path.stat().st_size for path in FILES) < SIZE_LIMIT
