"""Record the two-node traces: on two guests, or on an emulated pair.

    python -m tests.traces.record_two --emulator 6.1 DIRECTORY [NAME...]
    python -m tests.traces.record_two --guests 6.1 DIRECTORY [NAME...]

Each trace is DIRECTORY/two-node-<name>.jsonl.gz. Guests are steered from here.

Decides: in what state each story begins.
May not know: what a story asks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dlm.cli.emulated import Emulated
from dlm.errors import NoDlmError
from dlm.ports import Backend
from dlm.trace import Header, Machines, Patience, Recorder, Trace, dump, replay
from tests.traces.kit import Tape
from tests.traces.twodeaths import DYING
from tests.traces.twonodes import ADDRESSES, ALIVE, Two

if TYPE_CHECKING:
    from tests.vm.guests import Guest, Lab

STORIES = {**ALIVE, **DYING}

TRIES = 10
"""Seconds in which a guest that was booted begins to serve."""

PATIENCE = Patience(wait=240.0, quiet=0.3, settle=30.0)


def record(
    name: str, backends: list[Backend], machines: Machines, kernel: str, **more: object
) -> Trace:
    """Record one story on two nodes whose modules are new."""
    header = Header(kernel, comment=str(STORIES[name].__doc__).splitlines()[0])
    recorder = Recorder(backends, header, machines=machines, patience=PATIENCE, **more)  # type: ignore[arg-type]
    one, other = (Tape(recorder, node=n, address=ADDRESSES[n]) for n in ADDRESSES)
    try:
        two = Two(one, other)
        two.up()
        STORIES[name](two)  # its end is the end of the nodes: leaving takes minutes
    finally:
        recorder.close()
    return recorder.trace(name)


def on_emulator(names: list[str], directory: Path, kernel: str) -> None:
    """Record stories on an emulated pair."""
    for name in names:
        emulated = Emulated(Trace(Header(kernel, nodes=2), ()))
        trace = record(name, emulated.backends, emulated, kernel)
        emulated.cluster.check()
        dump(trace, directory / f"two-node-{name}.jsonl.gz")
        print(f"{name}: {len(trace.lines)} operations")


class Guests:
    """Two guests: ``dlm.trace.Machines``."""

    def __init__(self, lab: Lab, stack: ExitStack) -> None:
        self._guests = lab.guests
        self._stack = stack

    def crash(self, node: int) -> None:
        """Cut a node's power."""
        self._guests[node - 1].power_cut()

    def boot(self, node: int) -> Backend:
        """Let it boot again."""
        self._guests[node - 1].boot()
        reach(self._guests[node - 1])
        return self.process(node)

    def process(self, node: int) -> Backend:
        """Return a new process of a guest."""
        self._stack.enter_context(suppress(OSError))  # one that lost power cannot be taken leave of
        return self._stack.enter_context(self._guests[node - 1].backend())

    def partition(self, first: int, second: int) -> None:
        """Pull a cable."""
        self._guests[max(first, second) - 1].port.connected = False

    def heal(self, first: int, second: int) -> None:
        """Put it back."""
        self._guests[max(first, second) - 1].port.connected = True


def on_guests(names: list[str], directory: Path, kernel: str) -> None:
    """Record stories on two guests, which boot for each."""
    # They need what only a machine with qemu has.
    from tests.vm.guests import Lab  # noqa: PLC0415
    from tests.vm.host import cache_directory  # noqa: PLC0415

    runs = cache_directory() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    results = tempfile.mkdtemp(dir=runs, prefix=time.strftime("%H%M%S-"))
    with Lab([kernel, kernel], Path(results)) as lab:
        for name in names:
            begin = time.monotonic()
            boot(lab)  # a lockspace whose nodes leave one by one waits for minutes
            release = lab.guests[0].run("uname -r", quiet=True, check=True).stdout.strip()
            fresh = time.monotonic()
            with ExitStack() as stack, (directory / f"{name}.part").open("w") as part:

                def keep(line: object, part: TextIO = part) -> None:
                    print(json.dumps(line), file=part, flush=True)

                guests = Guests(lab, stack)
                backends = [guests.process(node) for node in (1, 2)]
                trace = record(name, backends, guests, release, keep=keep)
            (directory / f"{name}.part").unlink()
            dump(trace, directory / f"two-node-{name}.jsonl.gz")
            emulated = Emulated(trace)
            report = replay(trace, emulated.backends, machines=emulated)
            print(
                f"{name}: {report.operations} operations, {len(report.differences)} differences, "
                f"{time.monotonic() - fresh:.0f} s after {fresh - begin:.0f} s"
            )
            sys.stdout.flush()


def reach(guest: Guest) -> None:
    """Wait until a guest that was booted serves its kernel."""
    for left in reversed(range(TRIES)):
        try:
            with guest.backend():
                return
        except NoDlmError:
            if not left:
                raise
            time.sleep(1.0)


def boot(lab: Lab) -> None:
    """Boot both guests."""
    lab.power_off()
    for guest in lab.boot():
        reach(guest)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--emulator", metavar="KERNEL")
    where.add_argument("--guests", metavar="KERNEL")
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", choices=[[], *STORIES])
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    names = arguments.names or list(STORIES)
    if arguments.emulator:
        on_emulator(names, arguments.directory, arguments.emulator)
    else:
        on_guests(names, arguments.directory, arguments.guests)


if __name__ == "__main__":
    main()
