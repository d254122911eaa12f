"""The tests of 2005 against their table: which rows have a test, and which not."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from tests.contract2005.rows import ROWS, UNTESTED

HERE = Path(__file__).parent


@cache
def declared() -> frozenset[str]:
    """Return the rows that tests declare."""
    found: set[str] = set()
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.contract2005.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_"):
                for mark in getattr(function, "pytestmark", ()):
                    if mark.name == "row":
                        found.update(mark.args)
    return frozenset(found)


def test_every_row_has_a_test_or_a_reason() -> None:
    """Each row of the table has a test, or says why it has none."""
    assert [row for row in ROWS if row not in declared() and row not in UNTESTED] == []


def test_tests_name_rows_that_exist() -> None:
    """Each row that a test declares is in the table."""
    assert sorted(declared() - set(ROWS)) == []


def test_reasons_are_not_stale() -> None:
    """A row with a reason is in the table and has no test yet."""
    assert [row for row in UNTESTED if row in declared() or row not in ROWS] == []
