"""Seeded scenarios: requests, crashes, restarts and recoveries in any order.

A failing seed is in the test's name: run it alone, and look at ``Scenario(seed, keep_trace=True)``
with ``cluster.trace()``.
"""

from __future__ import annotations

import pytest

from tests.sim.scenario import Scenario

SEEDS = range(200)
STEPS = 80


def run(
    seed: int, *, kernel: str = "6.1", keep_trace: bool = False, checked: bool = False
) -> Scenario:
    """Run one scenario to its end; the assertion that fails says its seed."""
    scenario = Scenario(seed, kernel=kernel, keep_trace=keep_trace)
    if checked:
        scenario.cluster.check_every_step()
    try:
        scenario.run(STEPS)
        scenario.finish()
    except Exception as error:
        error.add_note(f"seed {seed}, kernel {kernel}")
        raise
    return scenario


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_ends_and_nothing_is_left(seed: int) -> None:
    """Whatever crashed and recovered, each request completes once and all can lock in the end.

    In every fourth run all invariants are looked at after every step.
    """
    run(seed, checked=seed % 4 == 0)


@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.2"])
@pytest.mark.parametrize("seed", range(10))
def test_other_kernels_do_no_worse(seed: int, kernel: str) -> None:
    """The same holds for every kernel profile."""
    run(seed, kernel=kernel, checked=seed % 4 == 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_seed_fixes_the_trace(seed: int) -> None:
    """Two runs of one seed have the same trace, byte for byte."""
    first, second = (run(seed, keep_trace=True).cluster.trace() for _ in range(2))

    assert first == second


def test_another_seed_is_another_run() -> None:
    """Seeds differ in what they do."""
    assert run(1, keep_trace=True).cluster.trace() != run(2, keep_trace=True).cluster.trace()
