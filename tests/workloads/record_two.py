"""Record random workloads of two nodes: on two guests, or on an emulated pair.

    python -m tests.workloads.record_two --guests 7.2 --seeds 0-9 DIRECTORY
    python -m tests.workloads.record_two --emulator 7.2 --seeds 0-9 DIRECTORY

Each trace is DIRECTORY/two-node-random-<seed>.jsonl.gz. Guests are steered from here.

Decides: how a seed becomes a trace of two nodes.
May not know: what a workload asks (tests/workloads/twonodes.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlm.cli.emulated import Emulated
from dlm.errors import NoDlmError
from dlm.ports import Backend
from dlm.trace import Header, Machines, Recorder, Trace, dump
from tests.traces.kit import Tape
from tests.traces.record_two import PATIENCE, Guests, freshen
from tests.traces.twonodes import ADDRESSES, Two
from tests.workloads.record import Keep, differences, seeds_of
from tests.workloads.twonodes import TwoNodes

if TYPE_CHECKING:
    from tests.vm.guests import Guest

OPERATIONS = 100
ATTEMPTS = 20


def record(
    seed: int,
    operations: int,
    backends: Sequence[Backend],
    machines: Machines,
    kernel: str,
    keep: Keep | None = None,
) -> Trace:
    """Run one seed's workload on two nodes whose modules were loaded a moment ago."""
    comment = f"random, two nodes, seed {seed}"
    header = Header(kernel, comment=comment)
    recorder = Recorder(backends, header, machines=machines, patience=PATIENCE, keep=keep)
    two = Two(*(Tape(recorder, node=n, address=ADDRESSES[n]) for n in ADDRESSES))
    workload = TwoNodes(seed, operations)
    try:
        two.up()
        steps = workload.steps()
        operation = next(steps)
        while True:
            operation = steps.send(recorder.do(operation))
    except StopIteration:
        two.down(alone=True)
        return recorder.trace(comment)
    finally:
        recorder.close()


def on_emulator(seed: int, operations: int, kernel: str) -> Trace:
    """Record one seed on an emulated pair."""
    emulated = Emulated(Trace(Header(kernel, nodes=2), ()))
    return record(seed, operations, emulated.backends, emulated, kernel)


class Pair:
    """Two guests, booted once; their modules are loaded afresh for each workload."""

    def __init__(self, kernel: str, results: Path, stack: ExitStack) -> None:
        from tests.vm.guests import Lab  # noqa: PLC0415 - needs what only a machine with qemu has

        self._lab = stack.enter_context(Lab([kernel, kernel], results))
        first = self._lab.boot()[0]
        self.release = first.run("uname -r", quiet=True, check=True).stdout.strip()

    def record(self, seed: int, operations: int, lost: Path) -> Trace:
        """Record one seed; ``lost`` has its lines as long as it is under way."""
        for guest in self._lab.guests:
            if guest.has_power:
                reach(guest)
            freshen(guest)
            reach(guest)
        with ExitStack() as processes, lost.open("w", buffering=1) as file:
            guests = Guests(self._lab, processes)
            backends = [guests.process(node) for node in (1, 2)]
            keep: Keep = lambda line: file.write(f"{json.dumps(line)}\n")  # noqa: E731
            trace = record(seed, operations, backends, guests, self.release, keep)
        lost.unlink()
        return trace


def reach(guest: Guest) -> None:
    """Try until a connection to a guest holds: one soon after its boot may be lost."""
    for _ in range(ATTEMPTS):
        with suppress(NoDlmError), guest.backend():
            return
        guest.run("sleep 1", quiet=True)


def main() -> int:
    """Do what the command line says; 1 when a replay differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", metavar="FIRST-LAST")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--emulator", metavar="KERNEL")
    where.add_argument("--guests", metavar="KERNEL")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as results, ExitStack() as stack:
        pair = Pair(given.guests, Path(results), stack) if given.guests else None
        return int(record_all(given, pair))


def record_all(given: argparse.Namespace, pair: Pair | None) -> bool:
    """Record each seed and replay it; say whether one differed."""
    failed = False
    for seed in seeds_of(given.seeds):
        begin = time.monotonic()
        path = given.directory / f"two-node-random-{seed}.jsonl.gz"
        if pair is None:
            trace = on_emulator(seed, given.operations, given.emulator)
        else:
            trace = pair.record(seed, given.operations, given.directory / f"lost-{seed}.jsonl")
        dump(trace, path)
        found = differences(trace)
        failed = failed or bool(found)
        seconds = time.monotonic() - begin
        print(f"{path}: {len(trace.lines)} operations, {seconds:.0f} s, {len(found)} differences")
        print(*found[:3], sep="\n", end="\n" if found else "", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
