"""The table of broken rules fits the code, and breaking a rule is noticed."""

from __future__ import annotations

import builtins
import dis
import keyword
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import CodeType

import pytest

from tests.mutation.check import SOURCE, TRACES, broken, in_order, load, run
from tests.mutation.mutants import MUTANTS, Mutant

WORD = re.compile(r"[^\W\d]\w*")


@cache
def words() -> frozenset[str]:
    """Return all words of the package's sources, and Python's own."""
    texts = (path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    return frozenset(WORD.findall("\n".join(texts))) | {*keyword.kwlist, *dir(builtins)}


def globals_of(code: CodeType) -> Iterator[str]:
    """Give the global names that code reads, its functions' included."""
    yield from (each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from globals_of(constant)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_broken_rule_is_a_change_of_its_file(mutant: Mutant) -> None:
    """Its old text stands there exactly once, the new text loads and names nothing that is gone."""
    module = load(mutant)

    assert mutant.old != mutant.new
    assert set(WORD.findall(mutant.new)) <= words()
    names = set(globals_of(compile(broken(mutant), mutant.file, "exec")))
    assert names <= {*vars(module), *dir(builtins)}


def test_what_an_edit_may_not_do() -> None:
    """Old text that is not there, or twice; new text that does not load."""
    one = Mutant("", "core/modes.py", "NL", "NL")
    with pytest.raises(ValueError, match="times 'NL'"):
        broken(one)
    with pytest.raises(ValueError, match="0 times"):
        broken(replace(one, old="no such rule"))
    with pytest.raises(NameError):
        load(replace(one, old="QUECVT_ALLOWED: Final", new="no_such_rule\nQUECVT_ALLOWED: Final"))


def test_rules_have_names_of_their_own() -> None:
    """They are chosen by name."""
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS)


def test_the_likely_traces_come_first() -> None:
    """All of them come."""
    mutant = Mutant("", "", "", "", "7.2/")
    paths = in_order(mutant)

    assert paths[0].parent.name == "7.2"
    assert sorted(paths) == sorted(TRACES.glob("*/*.jsonl*"))


def test_a_broken_rule_is_noticed() -> None:
    """The first of the table, through a process of its own; ``make mutation`` tries them all."""
    assert "operation" in run(MUTANTS[0])
