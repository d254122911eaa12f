"""docs/support-matrix.md against tests/vm: every run on real kernels, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dlm.terms import KERNELS, KernelProfile
from tests.vm.kernels import SUITES
from tests.vm.matrix import RUNS, Run, starts

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "docs" / "support-matrix.md"

RUNS_HEADING = "Real kernels"
HEAD = ["what was run", "tests", "dialect", "guests", *SUITES]

RESULTS = ("passed", "refused", "failed", "not yet", "not run")
"""How a cell of a kernel begins; more may follow. "not run": that kernel has no part in it."""


def rows(heading: str = RUNS_HEADING) -> list[list[str]]:
    """Return the table below a heading, its head first, without the line under that."""
    text = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[:1] + cells[2:]


def row_of(run: Run) -> dict[str, str]:
    """Return a run's row by column."""
    found = [row for row in rows()[1:] if row[0] == run.title]
    assert len(found) == 1, f"{DOCUMENT.name}: {len(found)} rows are called {run.title!r}"
    return dict(zip(HEAD, found[0], strict=True))


every_run = pytest.mark.parametrize("run", RUNS, ids=[run.title for run in RUNS])


def test_the_rows_are_the_runs() -> None:
    """The table has a column for each kernel that can be booted, a row for each run, in order."""
    assert rows()[0] == HEAD
    assert [row[0] for row in rows()[1:]] == [run.title for run in RUNS]


@every_run
def test_a_row_says_how_it_is_run(run: Run) -> None:
    """Each row names the files, the dialect and how many guests there are."""
    row = row_of(run)
    assert row["tests"] == ", ".join(f"`{each}`" for each in run.tests)
    assert (row["dialect"], row["guests"]) == (f"`{run.dialect}`", str(run.guests))


@every_run
def test_a_row_says_what_came_out(run: Run) -> None:
    """A kernel that takes part has a result, any other has not: and results have few words."""
    row = row_of(run)
    for kernel in SUITES:
        assert row[kernel].startswith(RESULTS), row[kernel]
        assert row[kernel].startswith("not run") == (kernel not in run.kernels), kernel


@every_run
def test_what_a_row_names_is_there(run: Run) -> None:
    """Files, kernels and the number of guests of a run make sense."""
    assert all((REPOSITORY / each).exists() for each in run.tests)
    assert set(run.kernels) <= set(SUITES)
    assert run.guests > 1 or not run.together


def test_what_all_starts() -> None:
    """tests/vm/run --all boots one guest of every kernel, and then the clusters."""
    assert starts() == (
        *((kernel, False) for kernel in SUITES),
        *((kernels, True) for kernels in ("6.1", "7.2", "6.1,6.12,7.2")),
    )


def test_every_test_that_needs_a_guest_is_in_a_run() -> None:
    """No file of tests in tests/vm is left out of the list."""
    named = [REPOSITORY / each for run in RUNS for each in run.tests]
    there = (REPOSITORY / "tests" / "vm").rglob("test_*.py")
    missing = [path for path in there if not any(path.is_relative_to(each) for each in named)]
    assert not missing, "add a run to RUNS in tests/vm/matrix.py"


def as_written(value: object) -> str:
    """Return a profile's value as the document has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "never"


def test_differences_of_kernels_are_those_of_their_profiles() -> None:
    """Each field in which the kernels differ has a row, with the values of all."""
    names = [field.name for field in fields(KernelProfile) if field.name != "name"]
    values = {
        name: [as_written(getattr(profile, name)) for profile in KERNELS.values()] for name in names
    }
    differing = {name: each for name, each in values.items() if len(set(each)) > 1}

    head, *written = rows("Where mainline kernels differ")

    assert head[1:5] == list(KERNELS)
    assert {row[0].strip("`"): row[1:5] for row in written} == differing


def test_differences_of_kernels_have_a_test() -> None:
    """Each of these rows names a test that there is, or says why there is none."""
    there = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    for field, *_, test in rows("Where mainline kernels differ")[1:]:
        named = re.fullmatch(r"`(test_\w+)`", test)
        assert (f"def {named[1]}(" in there) if named else test.startswith("none: "), field


def test_every_kernel_can_be_booted_and_emulated() -> None:
    """The kernels that can be booted are those that the emulator can be."""
    assert list(SUITES) == list(KERNELS)
