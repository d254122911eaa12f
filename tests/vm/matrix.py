"""What is run on real kernels, and on which: the list behind docs/support-matrix.md.

Decides: which runs there are, what each is called, which kernels take part.
May not know: how a guest is booted, how a run ends (the document says what came out).

A run that is added here needs a row in the document, and a file of tests in this directory needs a
run: tests/unit/test_support_matrix.py compares. ``kernels`` are those on which the run is made one
after the other; for a run of several guests with different kernels, ``together`` is true.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY = ("5.10", "6.1", "6.12", "7.2")


@dataclass(frozen=True)
class Run:
    """Something that is run on real kernels; ``tests`` are the files or directories that do it."""

    title: str
    tests: tuple[str, ...]
    kernels: tuple[str, ...]
    guests: int = 1
    together: bool = False
    dialect: str = "configfs"


RUNS = (
    Run("the contract suite", ("tests/contract",), EVERY),
    Run("calls that sleep in the kernel", ("tests/vm/test_kernel_room.py",), EVERY),
    Run("new random traces, replayed", ("tests/vm/test_random_traces.py",), EVERY),
    Run("the lock API", ("tests/locks",), EVERY),
    Run("a session with `dlm_tool`, every file and event", ("tests/vm/test_tool.py",), EVERY),
    Run("`start` and `stop` killed at every write", ("tests/vm/test_interrupted.py",), ("6.1",)),
    Run("beside Debian's dlm_controld", ("tests/vm/test_beside.py",), ("6.1",)),
    Run(
        "guests that see each other and lose power",
        ("tests/vm/cluster/test_harness.py",),
        ("6.1", "7.2"),
        guests=3,
    ),
    Run(
        "the usage document with a power failure",
        ("tests/vm/cluster/test_power_failure.py",),
        ("6.1", "7.2"),
        guests=3,
    ),
    Run(
        "both, each node with another kernel",
        ("tests/vm/cluster/test_harness.py", "tests/vm/cluster/test_power_failure.py"),
        ("6.1", "6.12", "7.2"),
        guests=3,
        together=True,
    ),
    Run(
        "the lock API across nodes, the death of a node",
        ("tests/vm/cluster/test_locks.py",),
        ("6.1", "7.2"),
        guests=3,
    ),
    Run(
        "a new random trace of two nodes, replayed",
        ("tests/vm/cluster/test_random_traces.py",),
        ("6.1", "7.2"),
        guests=2,
    ),
)
"""In the order of the document's rows."""


def starts() -> tuple[tuple[str, bool], ...]:
    """Return what has to be started for all runs: kernels, and whether there are several guests.

    Runs with the same kernels and guests are parts of one start. ``6.1,7.2`` are two guests.
    """
    found: dict[tuple[str, bool], None] = {}
    for run in RUNS:
        for kernels in [",".join(run.kernels)] if run.together else run.kernels:
            found[kernels, run.guests > 1] = None
    return tuple(found)
