"""Record the directed traces: on this machine's kernel, or on an emulated one.

    python -m tests.traces.record DIRECTORY [NAME...]                  in a guest, as root
    python -m tests.traces.record --emulator 6.1 DIRECTORY [NAME...]

Each trace is DIRECTORY/directed-<name>.jsonl.gz. What is recorded on a kernel is replayed at once.

Decides: which script makes which trace, in what state each begins.
May not know: what a script asks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dlm.ports import Backend
from dlm.trace import Header, Patience, Recorder, Trace, dump
from tests.traces import controlstories, lockstories
from tests.traces.kit import Tape

PATIENCE = Patience(pending=0.3, quiet=0.3, uevent=1.0)

SCRIPTS: dict[str, Callable[[Tape], None]] = {
    **controlstories.SCRIPTS,
    **{
        name: partial(lockstories.play, stories=stories)
        for name, stories in lockstories.STORIES.items()
    },
}
"""What each directed trace of one node is made of."""


def comment(name: str) -> str:
    """Return what a trace's header says: which rows it is of."""
    stories = lockstories.STORIES.get(name) or (controlstories.SCRIPTS[name],)
    return " ".join(str(story.__doc__).splitlines()[0] for story in stories)


def record(name: str, backend: Backend, kernel: str, keep: Callable[..., object]) -> Trace:
    """Record one script on a node whose module was loaded a moment ago."""
    header = Header(kernel, comment=comment(name))
    uevents = name.startswith("3-")
    recorder = Recorder([backend], header, uevents=uevents, patience=PATIENCE, keep=keep)
    try:
        SCRIPTS[name](Tape(recorder))
    finally:
        recorder.close()
    return recorder.trace(name)


def fresh_module() -> None:
    """Unload the DLM and load it again."""
    subprocess.run(["modprobe", "-r", "dlm"], check=True)
    subprocess.run(["modprobe", "dlm"], check=True)


def clean_configfs(backend: Backend) -> None:
    """Remove every cluster: it holds the module."""
    root = "config/dlm"
    for cluster in backend.list_directory(root):
        here = f"{root}/{cluster}"
        for space in backend.list_directory(f"{here}/spaces"):
            for node in backend.list_directory(f"{here}/spaces/{space}/nodes"):
                backend.remove_directory(f"{here}/spaces/{space}/nodes/{node}")
            backend.remove_directory(f"{here}/spaces/{space}")
        for comm in backend.list_directory(f"{here}/comms"):
            backend.remove_directory(f"{here}/comms/{comm}")
        backend.remove_directory(here)


def on_kernel(names: list[str], directory: Path) -> None:
    """Record scripts on this machine's kernel, which may be wrecked."""
    from dlm.kernel import KernelBackend  # noqa: PLC0415 - only a guest has one

    for name in names:
        fresh_module()
        begin = time.monotonic()
        backend = KernelBackend()
        with (directory / f"{name}.part").open("w") as part:

            def keep(line: object, part: object = part) -> None:
                print(json.dumps(line), file=part, flush=True)  # type: ignore[call-overload]

            trace = record(name, backend, os.uname().release, keep)
        backend.close()
        clean_configfs(KernelBackend())
        (directory / f"{name}.part").unlink()
        dump(trace, directory / f"directed-{name}.jsonl.gz")
        print(f"{name}: {len(trace.lines)} operations, {time.monotonic() - begin:.1f} s")
        sys.stdout.flush()


def on_emulator(names: list[str], directory: Path, kernel: str) -> None:
    """Record scripts on the emulator."""
    from dlm.emulator import Cluster  # noqa: PLC0415 - a guest need not load it

    for name in names:
        with Cluster({"node1": "127.0.0.1"}, kernel=kernel) as cluster:
            trace = record(name, cluster.node("node1").process(), kernel, lambda _: None)
            cluster.check()
        dump(trace, directory / f"directed-{name}.jsonl.gz")
        print(f"{name}: {len(trace.lines)} operations")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emulator", metavar="KERNEL")
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", choices=[[], *SCRIPTS])
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    names = arguments.names or list(SCRIPTS)
    if arguments.emulator:
        on_emulator(names, arguments.directory, arguments.emulator)
    else:
        on_kernel(names, arguments.directory)


if __name__ == "__main__":
    main()
