"""The table of broken rules fits the code, and breaking a rule is noticed."""

from __future__ import annotations

import pytest

from tests.mutation.check import TRACES, broken, in_order, run
from tests.mutation.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_broken_rule_is_a_change_of_its_file(mutant: Mutant) -> None:
    """Its old text stands there exactly once, and the new text is Python."""
    compile(broken(mutant), mutant.file, "exec")
    assert mutant.old != mutant.new


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
