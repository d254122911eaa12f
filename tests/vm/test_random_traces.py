"""New random traces of this guest's kernel, replayed on the emulator at once.

Runs in a guest only (tests/vm/run). Every run draws new seeds, so that every run looks for a
difference that nobody has seen yet. A trace that differs is kept with the guest's logs.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.workloads.record import OPERATIONS, hold_to, on_kernel

pytestmark = pytest.mark.skipif(
    not os.environ.get("DLM_VM_KERNEL"), reason="needs a guest: run `make vm`"
)

SEEDS = os.environ.get("DLM_VM_SEEDS", "")
"""Seeds to take, with blanks between; else new ones."""


def seeds() -> list[int]:
    """Return the seeds of this run."""
    if SEEDS:
        return [int(each) for each in SEEDS.split()]
    if not os.environ.get("DLM_VM_KERNEL"):
        return [0]
    return random.SystemRandom().sample(range(1_000_000, 1_000_000_000), 5)


@pytest.mark.parametrize("seed", seeds())
def test_the_emulator_does_what_this_kernel_did(seed: int) -> None:
    """A random workload gives the same results on a fresh emulator, to the byte."""
    results = Path(os.environ["DLM_VM_RESULTS"])
    trace = on_kernel(seed, OPERATIONS, results / f"lost-{seed}.jsonl")
    hold_to(trace, results / f"random-{seed}.jsonl.gz")
