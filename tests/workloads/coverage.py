"""Say what recorded traces cover.

    python -m tests.workloads.coverage [DIRECTORY]

prints for each kernel how many operations its traces have and how many distinct combinations of
(command, flags, state, result), then which rows of the interface's sections 4 and 5 none covers.

Decides: what is counted.
May not know: what a row's evidence is (tests/workloads/evidence.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from dlm.trace import load
from tests.workloads.evidence import UNCOVERED, missing
from tests.workloads.watch import Seen, Watch

TRACES = Path(__file__).parents[2] / "fixtures" / "traces"

Combination = tuple[str, str, str, str]


def watched(directory: Path) -> Iterator[tuple[str, list[Seen]]]:
    """Give each trace's path below a directory and what was seen of it."""
    for path in sorted(directory.rglob("*.jsonl.gz")):
        yield path.relative_to(directory).as_posix(), Watch(load(path)).seen()


def main() -> int:
    """Count and print; 1 when a row is uncovered that should not be."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else TRACES
    counts: dict[str, int] = {}
    combinations: dict[str, set[Combination]] = {}

    def counted() -> Iterator[tuple[str, list[Seen]]]:
        for name, trace in watched(directory):
            kernel = name.partition("/")[0]
            counts[kernel] = counts.get(kernel, 0) + len(trace)
            combinations.setdefault(kernel, set()).update(seen.combination for seen in trace)
            yield name, trace

    uncovered = missing(counted())
    for kernel in sorted(counts, key=lambda each: [int(n) for n in each.split(".") if n.isdigit()]):
        print(f"{kernel}: {counts[kernel]} operations, {len(combinations[kernel])} combinations")
    union = set().union(*combinations.values()) if combinations else set()
    print(
        f"all: {sum(counts.values())} operations, "
        f"{len(union)} combinations of command, flags, state and result"
    )
    print("rows of sections 4 and 5 that no trace covers:")
    for row in uncovered:
        print(f"  {row}: {UNCOVERED.get(row, 'NOT EXPLAINED')}")
    return int(any(row not in UNCOVERED for row in uncovered))


if __name__ == "__main__":
    sys.exit(main())
