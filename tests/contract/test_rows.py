"""The suite against its table: which rows of the kernel's interface have a test, and which not."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType

import pytest

from tests.contract.rows import ROWS, UNTESTED

HERE = Path(__file__).parent

WITHOUT_ROWS = {"test_rows", "test_recorded_trees"}
"""Files whose tests hold no single row: this one, and whole trees of files."""


def marks(function: FunctionType) -> Iterator[pytest.Mark]:
    """Give a test's own marks and those of its parameters."""
    for mark in getattr(function, "pytestmark", ()):
        yield mark
        if mark.name == "parametrize":
            for parameters in mark.args[1]:
                yield from getattr(parameters, "marks", ())


def functions() -> Iterator[tuple[Path, str, FunctionType]]:
    """Give every test function of the suite: its file, its name, itself."""
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.contract.{path.stem}")
        for name, function in vars(module).items():
            if name.startswith("test_") and isinstance(function, FunctionType):
                yield path, name, function


@cache
def rows_of_tests() -> dict[str, list[str]]:
    """Return the rows that tests declare, and which tests do."""
    found: dict[str, list[str]] = {}
    for path, name, function in functions():
        for mark in marks(function):
            if mark.name == "row":
                for row in mark.args:
                    found.setdefault(row, []).append(f"{path.name}::{name}")
    return found


def test_every_row_has_a_test_or_a_reason() -> None:
    """Each row of the table has a test, or says why there can be none yet."""
    missing = [row for row in ROWS if row not in rows_of_tests() and row not in UNTESTED]

    assert not missing, f"rows without test and without reason: {missing}"


def test_tests_name_rows_that_exist() -> None:
    """Each row that a test declares is in the table."""
    unknown = {row: tests for row, tests in rows_of_tests().items() if row not in ROWS}

    assert not unknown


def test_reasons_are_not_stale() -> None:
    """A row with a reason is in the table and has no test yet, and its reason says something."""
    stale = [
        row for row in UNTESTED if row in rows_of_tests() or row not in ROWS or not UNTESTED[row]
    ]

    assert not stale


def test_every_test_declares_a_row() -> None:
    """Each test of the suite, but for these, says which row it holds."""
    bare = [
        f"{path.name}::{name}"
        for path, name, function in functions()
        if path.stem not in WITHOUT_ROWS and "row" not in {mark.name for mark in marks(function)}
    ]

    assert not bare
