"""Record random workloads of two nodes: on two guests, or on an emulated pair.

    python -m tests.workloads.record_two --guests 7.2 --seeds 0-9 DIRECTORY
    python -m tests.workloads.record_two --guests 7.2 --seeds 0-9 --together 5 DIRECTORY
    python -m tests.workloads.record_two --emulator 7.2 --seeds 0-9 DIRECTORY

Each trace is DIRECTORY/two-node-random-<seed>.jsonl.gz. Guests are steered from here. Seeds that
are recorded together share a boot: each has a lockspace of its own, node 2 dies in the last only.

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
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dlm.cli.emulated import Emulated
from dlm.ports import Backend
from dlm.trace import Header, Line, Machines, Patience, Recorder, Trace, dump
from tests.traces.kit import Tape
from tests.traces.record_two import Guests, boot
from tests.traces.twonodes import ADDRESSES, Two
from tests.workloads.record import Keep, differences, seeds_of
from tests.workloads.twonodes import TwoNodes

OPERATIONS = 100
PATIENCE = Patience(wait=240.0, pending=0.1, quiet=0.1)
"""A rest is waited for after nearly every operation: that is most of a recording's time. None
comes, and 10 s are waited, where one node was started and the other not yet.
"""


class Life:
    """Two nodes that have just booted, on which seeds are recorded one after the other."""

    def __init__(self, backends: Sequence[Backend], machines: Machines, kernel: str) -> None:
        self._backends = backends
        self._machines = machines
        self._kernel = kernel
        self._configuration: tuple[Line, ...] = ()
        self._count = 0

    def record(
        self, seed: int, operations: int, keep: Keep | None = None, *, dies: bool = True
    ) -> Trace:
        """Run one seed's workload; where node 2 ``dies``, that was the last one."""
        comment = f"random, two nodes, seed {seed}" + ("" if dies else ", nobody dies")
        recorder = Recorder(
            self._backends,
            Header(self._kernel, comment=comment),
            machines=self._machines,
            patience=PATIENCE,
            keep=keep,
        )
        self._count += 1
        workload = TwoNodes(
            seed, operations, f"test{self._count if self._count > 1 else ''}", dies=dies
        )
        tapes = (Tape(recorder, node=n, address=ADDRESSES[n]) for n in ADDRESSES)
        try:
            self._bring_up(Two(*tapes, workload.lockspace), recorder)
            steps = workload.steps()
            operation = next(steps)
            while True:
                operation = steps.send(recorder.do(operation))
        except StopIteration:
            return self._whole(recorder.trace(comment))
        finally:
            recorder.close()

    def _bring_up(self, two: Two, recorder: Recorder) -> None:
        for tape in two.tapes:
            if self._configuration:
                two.configure_members(tape)
            else:
                two.configure(tape)
        if not self._configuration:
            self._configuration = recorder.trace().lines
        two.create()

    def _whole(self, trace: Trace) -> Trace:
        """Put the nodes' configuration before what later seeds did; the first one has it."""
        if self._count == 1:
            return trace
        lines = (*self._configuration, *trace.lines)
        numbered = (Line(number, each.operation) for number, each in enumerate(lines, 2))
        return replace(trace, lines=tuple(numbered))


def record(
    seed: int,
    operations: int,
    backends: Sequence[Backend],
    machines: Machines,
    kernel: str,
    keep: Keep | None = None,
) -> Trace:
    """Run one seed's workload on two nodes that have just booted."""
    return Life(backends, machines, kernel).record(seed, operations, keep)


def on_emulator(seed: int, operations: int, kernel: str) -> Trace:
    """Record one seed on an emulated pair."""
    emulated = Emulated(Trace(Header(kernel, nodes=2), ()))
    return record(seed, operations, emulated.backends, emulated, kernel)


class Pair:
    """Two guests; they boot anew when as many workloads as are recorded ``together`` are done."""

    def __init__(self, kernel: str, results: Path, stack: ExitStack, together: int = 1) -> None:
        from tests.vm.guests import Lab  # noqa: PLC0415 - needs what only a machine with qemu has

        self._lab = stack.enter_context(Lab([kernel, kernel], results))
        self._processes = stack.enter_context(ExitStack())
        self._together = together
        self._left = 0
        self._life: Life

    def record(self, seed: int, operations: int, lost: Path) -> Trace:
        """Record one seed; ``lost`` has its lines as long as it is under way."""
        if not self._left:
            self._boot()
        self._left -= 1
        with lost.open("w", buffering=1) as file:
            keep: Keep = lambda line: file.write(f"{json.dumps(line)}\n")  # noqa: E731
            trace = self._life.record(seed, operations, keep, dies=not self._left)
        lost.unlink()
        return trace

    def _boot(self) -> None:
        self._processes.close()
        boot(self._lab)
        release = self._lab.guests[0].run("uname -r", quiet=True, check=True).stdout.strip()
        guests = Guests(self._lab, self._processes)
        self._life = Life([guests.process(node) for node in (1, 2)], guests, release)
        self._left = self._together


def main() -> int:
    """Do what the command line says; 1 when a replay differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", metavar="FIRST-LAST")
    parser.add_argument("--operations", type=int, default=OPERATIONS)
    parser.add_argument(
        "--together", type=int, default=1, metavar="SEEDS", help="that share a boot"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--emulator", metavar="KERNEL")
    where.add_argument("--guests", metavar="KERNEL")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as results, ExitStack() as stack:
        pair = None
        if given.guests:
            pair = Pair(given.guests, Path(results), stack, given.together)
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
