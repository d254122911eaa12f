"""A new random trace of two nodes, replayed on the emulator at once.

Every run draws a new seed, so that every run looks for a difference that nobody has seen yet. One
of the nodes loses power on the way. A trace that differs stays among the guests' logs.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.traces.record_two import Guests, reach
from tests.vm.guests import Guest, Lab
from tests.workloads.record import Keep, hold_to
from tests.workloads.record_two import Life

OPERATIONS = 70
"""About a minute, with the boot."""


def seed() -> int:
    """Return the seed of this run: the first of ``DLM_VM_SEEDS``, else a new one."""
    given = os.environ.get("DLM_VM_SEEDS", "").split()
    if given or not os.environ.get("DLM_VM_KERNELS"):
        return int(given[0]) if given else 0
    return random.SystemRandom().randrange(1_000_000, 1_000_000_000)


@pytest.fixture
def pair(lab: Lab) -> Iterator[tuple[Guest, Guest]]:
    """Give the first two guests, freshly booted; one kernel has to be told of in a trace."""
    one, other = lab.guests[:2]
    if one.kernel != other.kernel:
        pytest.skip("a trace is of one kernel: run tests/vm/run --kernel 6.1 --cluster")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Guest.boot, (one, other)))
    for each in (one, other):
        each.port.connected = True
        reach(each)
    yield one, other
    lab.power_off()


@pytest.mark.parametrize("seed", [seed()])
def test_the_emulator_does_what_two_nodes_did(
    pair: tuple[Guest, Guest], lab: Lab, seed: int
) -> None:
    """A random workload of two nodes gives the same results on emulated ones, to the byte."""
    results = Path(os.environ["DLM_VM_RESULTS"])
    lost = results / f"lost-{seed}.jsonl"
    release = pair[0].run("uname -r", quiet=True, check=True).stdout.strip()
    with ExitStack() as processes, lost.open("w", buffering=1) as file:
        guests = Guests(lab, processes)
        life = Life([guests.process(node) for node in (1, 2)], guests, release)
        keep: Keep = lambda line: file.write(f"{json.dumps(line)}\n")  # noqa: E731
        trace = life.record(seed, OPERATIONS, keep)
    lost.unlink()
    hold_to(trace, results / f"two-node-random-{seed}.jsonl.gz")
