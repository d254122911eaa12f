"""Benchmark: ``dlm.locks`` against the same work of a C program on libdlm, on a real kernel.

    python bench/locks.py            what can be measured here
    make bench-vm                    in a guest with a real kernel

Decides: what is measured, each as a ratio in the same run; prints a table, and exits with 1 when a
ratio is over its limit, with 4 when it was asked to ``--require`` a kernel and there is none.

With a DLM, as root, it brings the lockspace ``bench`` up and takes turns: the C program
(bench/c/peer.c) a round, Python a round. On any machine it measures what importing ``dlm.locks``
adds to a start of Python; in emulation of a processor that says nothing, so a guest leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import select
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from dlm.abi.device import LockRequest  # noqa: E402 - the path comes first
from dlm.connect import connect  # noqa: E402
from dlm.control import Control  # noqa: E402
from dlm.locks import LockMode, Lockspace, aio  # noqa: E402
from dlm.ports import Backend  # noqa: E402
from tests.locks import libdlm  # noqa: E402

NAME = "bench"
ROUNDS = 7
NO_KERNEL = 4
NL, EX = LockMode.NL, LockMode.EX


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured, against what, and how much is too much."""

    measure: str
    ours: float
    peer: float
    unit: str
    limit: float
    ratio: bool = True

    @property
    def shown(self) -> float:
        """Return the number that the limit is for."""
        return self.ours / self.peer if self.ratio else self.ours - self.peer

    @property
    def over(self) -> bool:
        """Say whether it is too much."""
        return self.shown > self.limit

    def __str__(self) -> str:
        sign = "×" if self.ratio else self.unit
        numbers = f"{self.ours:9.1f} | {self.peer:9.1f} {self.unit}"
        return f"{self.measure:44} | {numbers} | {self.shown:6.2f} {sign} | {self.limit:g} {sign}"


# ---- Python's half ------------------------------------------------------------------------------


class Work:
    """The same work as the C program's, by ``dlm.locks``; each returns microseconds of one time."""

    def __init__(self, space: Lockspace) -> None:
        self._space = space

    def wait(self, count: int) -> float:
        """Lock and unlock, blocking."""
        lock = self._space.lock
        begin = perf_counter()
        for _ in range(count):
            with lock(NAME, EX):
                pass
        return (perf_counter() - begin) / count * 1e6

    def hand(self, count: int) -> float:
        """Lock and unlock by submit and dispatch."""
        wanted = select.poll()
        wanted.register(self._space.fileno(), select.POLLIN)
        submit, dispatch, wait = self._space.submit, self._space.dispatch, wanted.poll
        unlock, wish = LockRequest.unlock, LockRequest.lock(NAME.encode(), EX)
        begin = perf_counter()
        for _ in range(count):
            lock_id, completion = submit(wish)
            while not completion.done:
                wait()
                dispatch()
            _, completion = submit(unlock(lock_id))
            while not completion.done:
                wait()
                dispatch()
        return (perf_counter() - begin) / count * 1e6

    def pipeline(self, count: int) -> float:
        """Take so many locks at once, then drop them all at once, on asyncio."""

        async def main() -> float:
            async with await aio.Lockspace.open(connect(), NAME) as space:
                begin = perf_counter()
                locks = await asyncio.gather(*(space.lock(f"{NAME}{n}") for n in range(count)))
                await asyncio.gather(*(lock.unlock() for lock in locks))
                return (perf_counter() - begin) / count * 1e6

        return asyncio.run(main())

    def convert(self, count: int) -> float:
        """Convert a held lock between NL and EX."""
        with self._space.lock(NAME, NL) as lock:
            begin = perf_counter()
            for _ in range(count // 2):
                lock.convert(EX)
                lock.convert(NL)
            return (perf_counter() - begin) / (count // 2 * 2) * 1e6

    def bytes_of_a_held_lock(self, count: int) -> float:
        """Return the bytes that this process keeps for each of so many held locks."""
        tracemalloc.start()
        held = [self._space.lock(f"{NAME}{n}") for n in range(count)]
        before = tracemalloc.get_traced_memory()[0]
        for lock in held:
            lock.unlock()
        del lock
        held.clear()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (before - after) / count


@dataclass(frozen=True)
class Measure:
    """A row that a C program is the peer of."""

    name: str
    text: str
    count: int
    limit: float


MEASURES = (
    Measure("wait", "lock + unlock, blocking", 2000, 1.8),
    Measure("hand", "lock + unlock, submit and dispatch", 2000, 4),
    Measure("pipeline", "1,000 locks, then 1,000 unlocks, asyncio", 1000, 10),
    Measure("convert", "convert NL-EX of a held lock, blocking", 2000, 1.8),
)


@contextmanager
def running(backend: Backend) -> Iterator[None]:
    """Let the lockspace run on this node, which nobody else may use, as long as the block lasts."""
    control = Control(backend, timeout=60)
    control.set_local(1, "127.0.0.1")
    space = control.lockspace(NAME)
    space.create()
    space.start(1, [1])
    space.wait_done(1)
    while f"dlm_{NAME}" not in backend.misc_devices():  # the create returns a moment later
        backend.pause(0.05)
    try:
        yield
    finally:
        space.release()


@contextmanager
def shown_to_libdlm(backend: Backend) -> Iterator[Path]:
    """``running``, with the lockspace where libdlm looks; gives the C program's path."""
    with tempfile.TemporaryDirectory() as scratch:
        peer = libdlm.compiled(ROOT / "bench" / "c" / "peer.c", Path(scratch))
        with running(backend):
            while not Path(f"/dev/dlm_{NAME}").exists():
                backend.pause(0.05)
            libdlm.show_devices(NAME)
            yield peer


def kernel_rows(rounds: int) -> list[Row]:
    """Take turns with the C program."""
    backend = connect("kernel")
    with shown_to_libdlm(backend) as peer, Lockspace.open(backend, NAME) as space:
        work = Work(space)
        calls: dict[str, Callable[[int], float]] = {
            "wait": work.wait,
            "hand": work.hand,
            "pipeline": work.pipeline,
            "convert": work.convert,
        }
        times: dict[str, list[tuple[float, float]]] = {each: [] for each in calls}
        for _ in range(rounds):
            for each in MEASURES:
                theirs = peer_time(peer, each.name, each.count)
                times[each.name].append((calls[each.name](each.count), theirs))
        size = work.bytes_of_a_held_lock(1000)
    rows = []
    for each in MEASURES:
        ours, theirs = (median(column) for column in zip(*times[each.name], strict=True))
        rows.append(Row(each.text, ours, theirs, "µs", each.limit))
    rows.append(Row("memory per held lock", size, 0, "bytes", 1024, ratio=False))
    return rows


def peer_time(peer: Path, measure: str, count: int) -> float:
    """Return the C program's microseconds."""
    words = [str(peer), NAME, measure, str(count)]
    return int(subprocess.run(words, check=True, capture_output=True).stdout) / 1000


# ---- importing ----------------------------------------------------------------------------------


def import_row(rounds: int = 20) -> Row:
    """Measure what importing ``dlm.locks`` adds to a start of Python, turn by turn.

    In the processor's time, user and system: the same as the clock's on a machine that does nothing
    else, and nearly the same on one that does.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def start(code: str) -> float:
        process = os.posix_spawn(sys.executable, [sys.executable, "-c", code], environment)
        _, status, used = os.wait4(process, 0)
        if status:
            sys.exit(f"python -c {code!r} ended with {os.waitstatus_to_exitcode(status)}")
        return (used.ru_utime + used.ru_stime) * 1e3

    start("import dlm.locks")  # the first one writes the compiled modules
    pairs = [(start("import dlm.locks"), start("pass")) for _ in range(rounds)]
    ours, peer = (median(column) for column in zip(*pairs, strict=True))
    return Row("import of dlm.locks", ours, peer, "ms", 40, ratio=False)


# ---- all of it ----------------------------------------------------------------------------------


def main() -> int:
    """Measure what can be measured here and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--require", action="store_true", help="fail where there is no kernel DLM")
    arguments = parser.parse_args()
    lacking = "" if os.path.exists("/dev/dlm-control") else "there is no /dev/dlm-control"
    lacking = lacking or libdlm.is_missing()
    rows: list[Row] = []
    if lacking:
        print(f"the rows of a real kernel are left out, {lacking}: make bench-vm", flush=True)
        rows.append(import_row())
    else:
        rows += kernel_rows(arguments.rounds)
    print(f"{'measure':44} | {'dlm.locks':>9} | {'peer':>9}    |    ratio | at most")
    for row in rows:
        print(f"{row}{'   TOO MUCH' if row.over else ''}")
    if lacking and arguments.require:
        return NO_KERNEL
    return int(any(row.over for row in rows))


if __name__ == "__main__":
    sys.exit(main())
