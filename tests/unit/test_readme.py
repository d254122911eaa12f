"""What the README shows is what happens."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from dlm.cli.main import main

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_demo_prints_the_lines_that_the_readme_shows() -> None:
    """Every line under ``make demo``, in order, but for those left out."""
    shown = re.search(r"\$ make demo\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    out = io.StringIO()
    assert main(["demo"], stdout=out) == 0
    printed = iter(out.getvalue().splitlines())
    for line in shown[1].splitlines():
        assert line == "…" or line in printed, line


def test_the_example_for_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The code of the README prints what its last comment says."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})
    expected = example[1].rstrip().rpartition("  # ")[2]
    assert capsys.readouterr().out == f"{expected}\n"
