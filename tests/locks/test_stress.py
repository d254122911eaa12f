"""Everything at once, for a while: nothing is left, and nobody is told what no document names.

30 s on a real kernel, 2 s on the served emulator; ``DLM_STRESS=SECONDS`` says otherwise. A failure
names its seed: ``DLM_STRESS_SEED`` takes it.
"""

from __future__ import annotations

import os

import pytest

from tests.locks.conftest import ON_KERNEL
from tests.locks.stress import stress
from tests.locks.worlds import Places, ServedWorld

SECONDS = float(os.environ.get("DLM_STRESS") or (30 if ON_KERNEL else 2))
SEED = int(os.environ.get("DLM_STRESS_SEED") or 0)

EXPECTED = (
    "locked",
    "converted",
    "locked by a task",
    "converted by a task",
    "task cancelled",
    "closed",
    "would block",
    "told EX",
    "LockTimedOutError",
    "LockspaceClosedError",
)
"""What must have happened at least once, else the run has shown less than it should."""


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_everything_at_once(live: Places) -> None:
    """8 threads and 50 tasks lock, convert, cancel, time out, are told and close."""
    ledger = stress(live.process, SECONDS, SEED)
    print(dict(ledger.counts))
    assert not ledger.wrong, (SEED, ledger.wrong[:10])
    live.eventually(lambda: live.locks() == [], f"the end of all locks, seed {SEED}")
    missing = [what for what in EXPECTED if not ledger.counts[what]]
    assert not missing, (missing, ledger.counts)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(ON_KERNEL, reason="on guests: tests/vm/cluster/test_locks.py")
def test_everything_at_once_on_three_nodes() -> None:
    """The same from three nodes, whose cancels, grants and unlocks cross on their way."""
    world = ServedWorld((1, 2, 3))
    try:
        turn = iter(range(1000))
        ledger = stress(lambda: world.process(next(turn) % 3 + 1), SECONDS, SEED, tasks=12)
        assert not ledger.wrong, (SEED, ledger.wrong[:10])
        for node in world.nodes:
            world.eventually(lambda node=node: world.locks(node) == [], "the end of all", node)
    finally:
        world.finish()
