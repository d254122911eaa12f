"""Threads and tasks that do everything to a few resources at once, for a while.

Decides: what they do, and what must be true: held modes are compatible at every moment, nobody gets
an exception that docs/locks/endings.md does not name, and in the end no lock is left.
May not know: where the lockspace runs.

    python -m tests.locks.stress SECONDS [SEED]      on the backend that DLM_BACKEND names
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic

from dlm.connect import connect
from dlm.locks import (
    Lock,
    LockError,
    LockFlag,
    Lockspace,
    LockspaceClosedError,
    NoLockError,
    aio,
)
from dlm.ports import Backend
from dlm.terms import LockMode
from tests.locks.worlds import NAME, locks_of

NL, CR, CW, PR, PW, EX = LockMode
MODES = (*LockMode, PR, PR, EX)
NAMES = tuple(f"stress{number}" for number in range(10))
THREADS, TASKS = 8, 50
SHORT = 0.1
"""Longest time in seconds that anybody waits for a lock, or keeps one."""

INCOMPATIBLE = {
    NL: set(),
    CR: {EX},
    CW: {PR, PW, EX},
    PR: {CW, PW, EX},
    PW: {CW, PR, PW, EX},
    EX: {CR, CW, PR, PW, EX},
}

ENDINGS = Path(__file__).resolve().parents[2] / "docs" / "locks" / "endings.md"


def documented() -> set[str]:
    """Return the exceptions that the documentation explains, but for "anything else"."""
    names = re.findall(r"^\| `(\w+)` \|", ENDINGS.read_text(encoding="utf-8"), re.MULTILINE)
    return set(names) - {LockError.__name__}


class Ledger:
    """Who holds what, by what the API said; raises when that cannot be."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._modes: dict[str, Counter[LockMode]] = {name: Counter() for name in NAMES}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def gained(self, name: str, mode: LockMode) -> None:
        """Note a lock that was granted."""
        with self._mutex:
            held = self._modes[name]
            for other in INCOMPATIBLE[mode]:
                if held[other]:
                    self.wrong.append(f"{name}: {mode.name} was granted beside {other.name}")
            held[mode] += 1

    def lost(self, name: str, mode: LockMode) -> None:
        """Note a lock that is about to go."""
        with self._mutex:
            self._modes[name][mode] -= 1

    def count(self, what: str) -> None:
        """Count something that happened."""
        with self._mutex:
            self.counts[what] += 1


class Worker:
    """One thread or task: chance of its own, the common ledger."""

    def __init__(self, seed: str, ledger: Ledger, end: float) -> None:
        self.chance = Random(seed)
        self.ledger = ledger
        self.end = end

    def goes_on(self) -> bool:
        """Say whether there is time left."""
        return monotonic() < self.end and not self.ledger.wrong

    def timeout(self) -> float:
        """Return how long to wait this time."""
        return self.chance.choice((0.0, 0.001, 0.01, SHORT))

    def told(self, mode: LockMode) -> None:
        """Be the blocking callback."""
        self.ledger.count(f"told {mode.name}")

    def failed(self, error: Exception, *, closed: bool = False) -> None:
        """Count a refusal; what the documentation does not name, or not here, is wrong."""
        name = type(error).__name__
        self.ledger.count(name)
        after_close = isinstance(error, LockspaceClosedError | NoLockError)
        if name not in documented_names or (after_close and not closed):
            self.ledger.wrong.append(f"{name}: {error!r}")


documented_names = documented()


class ThreadWorker(Worker):
    """A thread that takes, converts, drops and cancels."""

    def __init__(
        self, seed: str, ledger: Ledger, end: float, space: Lockspace, held: list[Lock]
    ) -> None:
        super().__init__(seed, ledger, end)
        self.space = space
        self.held = held
        """The locks that all threads hold now: anybody may cancel what they wait for."""

    def run(self) -> None:
        """Work until the time is over."""
        actions = (self.plain, self.plain, self.nested, self.refused, self.cancel)
        while self.goes_on():
            try:
                self.chance.choice(actions)()
            except LockError as error:
                self.failed(error)
            except Exception as error:  # noqa: BLE001 - the stress run is what finds it
                self.ledger.wrong.append(repr(error))

    def plain(self) -> None:
        """Take a lock, convert it a few times, drop it."""
        name, mode = self.chance.choice(NAMES), self.chance.choice(MODES)
        value_block = self.chance.random() < 0.5
        with self.space.lock(name, mode, timeout=self.timeout(), value_block=value_block) as lock:
            self.use(name, lock)

    def use(self, name: str, lock: Lock) -> None:
        """Do something with a lock that was just granted."""
        ledger, chance = self.ledger, self.chance
        ledger.gained(name, lock.mode)
        ledger.count("locked")
        self.held.append(lock)
        try:
            if chance.random() < 0.5:
                lock.on_blocking(self.told)
            for _ in range(chance.randrange(4)):
                self.convert(name, lock)
        finally:
            self.held.remove(lock)
            ledger.lost(name, lock.mode)

    def convert(self, name: str, lock: Lock) -> None:
        """Convert a held lock: a wish for more may be refused, less is given at once."""
        before, mode = lock.mode, self.chance.choice(MODES)
        flags = self.chance.choice((LockFlag(0), LockFlag(0), LockFlag.NOQUEUE, LockFlag.NODLCKWT))
        self.ledger.lost(name, before)
        if mode != before and INCOMPATIBLE[mode] >= INCOMPATIBLE[before]:
            self.ledger.gained(name, before)  # it is held all the time
        try:
            lock.convert(mode, timeout=self.timeout(), flags=flags)
            self.ledger.count("converted")
        except LockError as error:
            self.failed(error)
        finally:
            if mode != before and INCOMPATIBLE[mode] >= INCOMPATIBLE[before]:
                self.ledger.lost(name, before)
            self.ledger.gained(name, lock.mode)

    def nested(self) -> None:
        """Hold a lock while taking another: what may deadlock is ended by timeouts."""
        name, other = self.chance.sample(NAMES, 2)
        with self.space.lock(name, self.chance.choice(MODES), timeout=self.timeout()) as lock:
            self.ledger.gained(name, lock.mode)
            try:
                with self.space.lock(other, EX, timeout=self.timeout()) as second:
                    self.use(other, second)
            finally:
                self.ledger.lost(name, lock.mode)

    def refused(self) -> None:
        """Try without waiting."""
        name = self.chance.choice(NAMES)
        lock = self.space.try_lock(name, self.chance.choice(MODES))
        if lock is None:
            self.ledger.count("would block")
            return
        with lock:
            self.use(name, lock)

    def cancel(self) -> None:
        """Cancel what some lock waits for, whosever it is."""
        held = list(self.held)
        if held and self.chance.choice(held).cancel():
            self.ledger.count("cancelled for somebody")


class CloseWorker(Worker):
    """A thread whose lockspace is closed again and again while others wait in it."""

    def __init__(self, seed: str, ledger: Ledger, end: float, backend: Backend) -> None:
        super().__init__(seed, ledger, end)
        self.backend = backend

    def run(self) -> None:
        """Open, let two threads wait, close."""
        while self.goes_on():
            space = Lockspace.open(self.backend, NAME)
            threads = [threading.Thread(target=self.wait, args=(space, n)) for n in range(2)]
            for thread in threads:
                thread.start()
            threading.Event().wait(self.timeout())
            space.close()
            for thread in threads:
                thread.join()
            self.ledger.count("closed")

    def wait(self, space: Lockspace, number: int) -> None:
        """Wait without end for what is often held; the close ends it."""
        try:
            while True:
                lock = space.lock(NAMES[number], EX)
                threading.Event().wait(0.001)
                lock.unlock()
        except LockError as error:
            self.failed(error, closed=True)
        except Exception as error:  # noqa: BLE001 - the stress run is what finds it
            self.ledger.wrong.append(repr(error))


class TaskWorker(Worker):
    """A task that takes, converts, drops, and is cancelled."""

    def __init__(self, seed: str, ledger: Ledger, end: float, space: aio.Lockspace) -> None:
        super().__init__(seed, ledger, end)
        self.space = space

    async def run(self) -> None:
        """Work until the time is over."""
        actions = (self.plain, self.plain, self.watch, self.cancelled)
        while self.goes_on():
            try:
                await self.chance.choice(actions)()
            except LockError as error:
                self.failed(error)
            except Exception as error:  # noqa: BLE001 - the stress run is what finds it
                self.ledger.wrong.append(repr(error))

    async def plain(self) -> None:
        """Take a lock, keep it a moment, convert it, drop it."""
        name, mode = self.chance.choice(NAMES), self.chance.choice(MODES)
        async with self.space.lock(name, mode, timeout=self.timeout()) as lock:
            self.ledger.gained(name, lock.mode)
            self.ledger.count("locked by a task")
            try:
                await asyncio.sleep(self.chance.choice((0, 0.001)))
                self.ledger.lost(name, lock.mode)
                try:
                    await lock.convert(self.chance.choice((NL, CR)), timeout=SHORT)
                    self.ledger.count("converted by a task")
                finally:
                    self.ledger.gained(name, lock.mode)
            finally:
                self.ledger.lost(name, lock.mode)

    async def watch(self) -> None:
        """Hold a lock until somebody wants it, or for a moment."""
        name = self.chance.choice(NAMES)
        async with self.space.lock(name, EX, timeout=self.timeout()) as lock:
            self.ledger.gained(name, EX)
            try:
                async with asyncio.timeout(SHORT):
                    async for mode in lock.blocking():
                        self.told(mode)
                        break
            except TimeoutError:
                self.ledger.count("nobody wanted it")
            finally:
                self.ledger.lost(name, EX)

    async def cancelled(self) -> None:
        """Let a request be cancelled at some moment of its life."""
        name = self.chance.choice(NAMES)

        async def hold() -> None:
            async with self.space.lock(name, EX):
                self.ledger.gained(name, EX)
                try:
                    await asyncio.sleep(self.timeout())
                finally:
                    self.ledger.lost(name, EX)

        task = asyncio.create_task(hold())
        await asyncio.sleep(self.timeout())
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.ledger.count("task cancelled")


def stress(
    new_backend: Callable[[], Backend],
    seconds: float,
    seed: int = 0,
    *,
    tasks: int = TASKS,
) -> Ledger:
    """Let eight threads and so many tasks work for a while; return what happened.

    Two lockspaces are shared by six threads and all tasks, two threads open and close their own.
    """
    ledger = Ledger()
    end = monotonic() + seconds
    held: list[Lock] = []
    backends = [new_backend() for _ in range(4)]
    spaces = [Lockspace.open(backend, NAME) for backend in backends[:2]]
    workers: list[ThreadWorker | CloseWorker] = [
        ThreadWorker(f"{seed} thread {n}", ledger, end, spaces[n % 2], held)
        for n in range(THREADS - 2)
    ]
    workers += [CloseWorker(f"{seed} closing {n}", ledger, end, backends[2 + n]) for n in range(2)]
    threads = [threading.Thread(target=worker.run) for worker in workers]

    async def main() -> None:
        shared = [aio.Lockspace.on(space) for space in spaces]
        await asyncio.gather(
            *(
                TaskWorker(f"{seed} task {n}", ledger, end, shared[n % 2]).run()
                for n in range(tasks)
            )
        )

    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    for space in spaces:
        space.close()
    for backend in backends:
        backend.close()
    return ledger


def main(arguments: list[str]) -> int:
    """Run it, print the counts; 1 when something was wrong or left."""
    seconds, seed = float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
    ledger = stress(connect, seconds, seed)
    for what, count in sorted(ledger.counts.items()):
        print(f"{count:8} {what}")
    left = locks_of(connect())
    print(f"{len(left)} locks left", *left, sep="\n  ")
    for what in ledger.wrong:
        print(f"wrong: {what}")
    return int(bool(ledger.wrong or left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
