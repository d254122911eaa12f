"""Record random workloads on a backend, and replay them on a fresh emulator.

    python -m tests.workloads.record --seeds 0-24 --operations 400 DIRECTORY

records on this machine's kernel (in a guest: it wrecks what it runs on), ``--kernel 6.1`` with
``--emulator`` on an emulated one. Each trace is DIRECTORY/random-<seed>.jsonl.gz.

Decides: how a seed becomes a trace, from a module that was loaded a moment ago.
May not know: what a workload asks (tests/workloads/onenode.py), what results should be.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as replace_fields
from pathlib import Path

from dlm.cli.emulated import Emulated
from dlm.ports import Backend
from dlm.terms import KERNELS
from dlm.trace import Header, Patience, Recorder, Trace, dump, replay
from tests.workloads.onenode import OneNode
from tests.workloads.words import Line

Keep = Callable[[Line], object]

OPERATIONS = 400
PATIENCE = Patience(pending=0.1, quiet=0.1, uevent=5.0)
"""A guest's DLM does what it does at once: these are the kernel's own seconds, and many."""


def record(
    seed: int, operations: int, backend: Backend, kernel: str, keep: Keep | None = None
) -> Trace:
    """Run one seed's workload on a backend and return its trace."""
    comment = f"random, seed {seed}"
    header = Header(kernel, comment=comment)
    recorder = Recorder([backend], header, uevents=True, patience=PATIENCE, keep=keep)
    steps = OneNode(seed, operations).steps()
    try:
        operation = next(steps)
        while True:
            operation = steps.send(recorder.do(operation))
    except StopIteration:
        return masked(recorder.trace(comment))
    finally:
        recorder.close()


def masked(trace: Trace) -> Trace:
    """Leave the values that operations save out of comparisons: minors are the machine's own."""
    saved = dict.fromkeys(
        line.operation["save"] for line in trace.lines if "save" in line.operation
    )
    mask = tuple(dict.fromkeys((*trace.header.mask, *saved)))
    return replace_fields(trace, header=replace_fields(trace.header, mask=mask))


def emulated(kernel: str) -> Backend:
    """Return a process on a fresh emulated node."""
    from dlm.emulator import Cluster  # noqa: PLC0415 - a guest that only records need not load it

    return Cluster({"node1": "127.0.0.1"}, kernel=kernel).node("node1").process()


def on_emulator(seed: int, operations: int, kernel: str) -> Trace:
    """Record one seed on a fresh emulated node."""
    return record(seed, operations, emulated(kernel), kernel)


def on_kernel(seed: int, operations: int, lost: Path) -> Trace:
    """Record one seed on this machine's kernel, whose module is loaded afresh before.

    ``lost`` has the lines up to the last when the kernel does not survive it.
    """
    from tests.contract.worlds import KernelWorld  # noqa: PLC0415 - it is pytest's

    world = KernelWorld()
    world.finish(reload=True)
    with lost.open("w", buffering=1) as file:
        backend, release = world.machine().backend, os.uname().release
        keep: Keep = lambda line: file.write(f"{json.dumps(line)}\n")  # noqa: E731
        try:
            trace = record(seed, operations, backend, release, keep)
        finally:
            world.finish(reload=False)
    lost.unlink()
    return trace


def differences(trace: Trace) -> list[str]:
    """Replay a trace on a fresh emulator; return what differs, a line each."""
    machines = Emulated(trace)
    report = replay(trace, machines.backends, machines=machines)
    return [
        f"line {each.number}: {each.operation}\n    was {each.expected}\n    now {each.got}"
        for each in report.differences
    ]


def hold_to(trace: Trace, kept: Path) -> None:
    """Fail where the emulator answers otherwise; the trace then stays as ``kept``."""
    dump(trace, kept)
    found = differences(trace)
    assert not found, (
        f"{len(found)} differences; the trace is {kept.name}, among this run's logs: "
        f"`dlm_tool trace replay` shows them again\n" + "\n".join(found[:5])
    )
    kept.unlink()


def seeds_of(text: str) -> Iterator[int]:
    """Read ``7`` or ``0-24``."""
    first, _, last = text.partition("-")
    yield from range(int(first), int(last or first) + 1)


def main() -> int:
    """Do what the command line says; 1 when a replay differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", metavar="FIRST-LAST")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument("--emulator", choices=tuple(KERNELS), help="record on an emulated kernel")
    parser.add_argument("--replay", action="store_true", help="replay each at once")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    failed = False
    for seed in seeds_of(given.seeds):
        begin = time.monotonic()
        if given.emulator:
            trace = on_emulator(seed, given.operations, given.emulator)
        else:
            trace = on_kernel(seed, given.operations, given.directory / f"lost-{seed}.jsonl")
        path = given.directory / f"random-{seed}.jsonl.gz"
        dump(trace, path)
        found = differences(trace) if given.replay else []
        failed = failed or bool(found)
        print(
            f"seed {seed}: {len(trace.lines)} operations, {time.monotonic() - begin:.1f} s"
            + (f", {len(found)} differences in {path}" if given.replay else "")
        )
        print(*found[:3], sep="\n", end="\n" if found else "")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
