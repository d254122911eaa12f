"""What a start of the command line costs, next to a start of Python itself.

Measures ``dlm_tool --backend kernel:root=TREE get_done test`` on a recorded tree, against
``python -c pass`` of the same interpreter, turn by turn, and prints the ratio of the medians. The
limit is 3.5: a membership manager's shell script runs the tool dozens of times per recovery.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

ROUNDS = 40
LIMIT = 3.5
TREE = Path(__file__).resolve().parent.parent / "fixtures" / "sysfs" / "6.1" / "running"
# What the console script does, without the shell's search for it.
TOOL = "from dlm.cli.main import console; console()"
# Compiled modules are part of every installation.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def seconds_of(command: list[str]) -> float:
    """Run a command to its end; return the seconds it took."""
    start = perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    taken = perf_counter() - start
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    return taken


def main() -> int:
    """Measure both in turn and print the ratio; return 1 above the limit."""
    plain = [sys.executable, "-c", "pass"]
    tool = [sys.executable, "-c", TOOL, "--backend", f"kernel:root={TREE}", "get_done", "test"]
    seconds_of(tool)  # the first run writes the compiled modules
    rounds = [(seconds_of(plain), seconds_of(tool)) for _ in range(ROUNDS)]
    python, ours = (median(times) * 1e3 for times in zip(*rounds, strict=True))
    ratio = ours / python
    print(f"start: dlm_tool get_done {ours:.1f} ms, python -c pass {python:.1f} ms: {ratio:.2f} x")
    print(f"limit: {LIMIT} x")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
