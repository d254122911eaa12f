"""Benchmark: 50 clients at once on one served cluster for 30 s, some of them killed at random.

Decides: what a client does, what must be true at the end. Prints requests per second as a ratio
against an emulator in this process, measured in the same run, and the latency of a plain call.

What must be true: every request of a living client was answered, once; no lock of a killed client
is left but its persistent ones; every invariant of the cluster holds.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dlm.abi.debugfs import parse_all
from dlm.abi.device import Command, LockRequest, decode_result, encode_request
from dlm.connect import connect
from dlm.control import Control
from dlm.emulator import Cluster
from dlm.ports import Backend
from dlm.remote.client import ask
from dlm.terms import EUNLOCK, LockFlag, LockMode

CLIENTS, SECONDS, LATENCY_CALLS = 50, 30.0, 2000
NODES = {"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"}
RESOURCES = 40
MODES = (LockMode.EX, LockMode.PR, LockMode.PR, LockMode.CR)
KEPT_EACH = 3
DEATH = 0.002
"""How likely a client that may die dies at each request."""
READ_SIZE = 104
PATIENCE = 30.0
"""Seconds that an answer may take before it counts as lost."""


class Wrong(Exception):
    """What must be true is not."""


class Worker:
    """A process that takes and drops locks; every request has a number that its result bears."""

    def __init__(self, backend: Backend, name: str, chance: random.Random) -> None:
        self.file = backend.open_device("dlm_test")
        self.requests = 0
        self.kept: list[str] = []
        self._name = name
        self._chance = chance
        self._outstanding: int | None = None
        self._held = 0
        self._keeps = ""

    def ask(self) -> None:
        """Make a request: for a lock, or to drop the one that is held."""
        assert self._outstanding is None
        self.requests += 1
        self._outstanding = number = self.requests
        if self._held:
            request = LockRequest(
                command=Command.UNLOCK, lock_id=self._held, castparam=number, lksb=1
            )
        else:
            keeps = len(self.kept) < KEPT_EACH and self._chance.random() < 0.02
            self._keeps = f"keep-{self._name}-{number}" if keeps else ""
            request = LockRequest(
                mode=LockMode.EX if keeps else self._chance.choice(MODES),
                flags=LockFlag.PERSISTENT if keeps else 0,
                castaddr=1,
                castparam=number,
                lksb=1,
                name=(self._keeps or f"r{self._chance.randrange(RESOURCES)}").encode(),
            )
        self.file.write(encode_request(request))

    def answered(self) -> bool:
        """Read the result of the request; say whether it was there."""
        try:
            result = decode_result(self.file.read(READ_SIZE))
        except BlockingIOError:
            return False
        if result.astparam != self._outstanding:
            raise Wrong(f"a result of {result.astparam}, {self._outstanding} was asked for")
        if result.status not in {0, -EUNLOCK}:
            raise Wrong(f"status {result.status}")
        self._outstanding = None
        if self._keeps:
            self.kept.append(self._keeps)
            self._keeps = ""
        elif self._held:
            self._held = 0
        else:
            self._held = result.lock_id
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for, and nothing held that goes away."""
        return self._outstanding is None and not self._held

    def nothing_more(self) -> None:
        """Raise when another result is there."""
        if self.file.poll(0):
            raise Wrong("a result too many")


# ---- on a served cluster ------------------------------------------------------------------------


@dataclass
class Child:
    """A client's process, and what it has reported."""

    pid: int
    reports: int
    said: bytes = b""
    killed: bool = False


@dataclass
class Storm:
    """Clients on the cluster served in ``directory``; each asks for at most ``count`` locks.

    ``end`` (of time.monotonic) ends it too. Every fifth client may die, and is then replaced while
    there is time.
    """

    directory: str
    clients: int
    count: int = 1 << 60
    end: float = float("inf")
    seed: int = 1
    living: int = 0
    killed: int = 0
    requests: int = 0
    kept: set[str] = field(default_factory=set)
    """Names of persistent locks that clients have reported."""

    def run(self) -> None:
        """Let it blow; raises ``Wrong``."""
        children = [self._start(number) for number in range(self.clients)]
        mortal = (self.clients + 4) // 5 * 5  # the number of the next one that may die
        while children:
            poll = select.poll()
            for child in children:
                poll.register(child.reports, select.POLLIN)
            for descriptor, _ in poll.poll():
                child = next(each for each in children if each.reports == descriptor)
                data = os.read(descriptor, 1 << 16)
                child.said += data
                if not data:
                    children.remove(child)
                    self._count(child)
                    if child.killed and time.monotonic() < self.end < float("inf"):
                        children.append(self._start(mortal))
                        mortal += 5

    def _start(self, number: int) -> Child:
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid:
            os.close(theirs)
            return Child(pid, ours)
        code = 1
        try:
            os.close(ours)
            self._client(number, lambda text: os.write(theirs, f"{text}\n".encode()))
            code = 0
        except BaseException as error:  # noqa: BLE001 - the parent is told
            os.write(theirs, f"wrong {type(error).__name__} {error}\n".encode())
        finally:
            os._exit(code)

    def _client(self, number: int, report: Callable[[str], object]) -> None:
        chance = random.Random(f"{self.seed} {number}")
        node = list(NODES)[number % len(NODES)]
        backend = connect(f"emulator:{self.directory}/{node}")
        worker = Worker(backend, f"{number}", chance)
        dies_at = chance.randrange(self.count) if self.count < 1 << 60 else -1
        mortal = number % 5 == 0
        while (worker.requests < self.count and time.monotonic() < self.end) or not worker.idle:
            worker.ask()
            if mortal and (worker.requests == dies_at + 1 or self._dies(chance)):
                os.kill(os.getpid(), signal.SIGKILL)
            before = len(worker.kept)
            while not worker.answered():
                if not worker.file.poll(PATIENCE):
                    raise Wrong(f"request {worker.requests} got no answer")
            if len(worker.kept) > before:
                report(f"kept {worker.kept[-1]}")
        worker.nothing_more()
        report(f"done {worker.requests}")
        backend.close()

    def _dies(self, chance: random.Random) -> bool:
        return self.count == 1 << 60 and chance.random() < DEATH

    def _count(self, child: Child) -> None:
        os.close(child.reports)
        _, status = os.waitpid(child.pid, 0)
        child.killed = os.WIFSIGNALED(status)
        done = False
        for line in child.said.decode().splitlines():
            word, _, rest = line.partition(" ")
            if word == "wrong":
                raise Wrong(rest)
            if word == "kept":
                self.kept.add(rest)
            elif word == "done":
                done = True
                self.requests += int(rest)
        if done == child.killed:
            raise Wrong(f"client {child.pid} ended with status {status:#x}: {child.said!r:.200}")
        if child.killed:
            self.killed += 1
        else:
            self.living += 1


def check(storm: Storm) -> int:
    """Look at what is left; return how many persistent locks are. Raises ``Wrong``."""
    left = _left(storm.directory)
    for _ in range(1000):  # the exits of the last ones may be under way
        if all(name.startswith("keep-") for name in left):
            break
        time.sleep(0.02)
        left = _left(storm.directory)
    gone = [name for name in left if not name.startswith("keep-")]
    if gone:
        raise Wrong(f"locks of clients that have gone are left: {gone}")
    missing = storm.kept - left
    if missing:
        raise Wrong(f"persistent locks are not left: {missing}")
    if len(left - storm.kept) > storm.killed:  # one may have been granted as its client died
        raise Wrong(f"persistent locks that nobody has: {left - storm.kept}")
    if complaint := ask(f"{storm.directory}/control", "check"):
        raise Wrong(str(complaint))
    return len(left)


def _left(directory: str) -> set[str]:
    found: set[str] = set()
    for node in NODES:
        backend = connect(f"emulator:{directory}/{node}")
        for entry in parse_all(backend.read_attribute("debug/dlm/test_all").decode()):
            if entry.locks:
                found.add(entry.name.decode())
        backend.close()
    return found


# ---- the cluster, and its peer in this process --------------------------------------------------


def tool(*words: str, node: str = "", directory: str = "") -> None:
    """Run dlm_tool in a process of its own; it must succeed."""
    backend = f"emulator:{directory}/{node}" if node else ""
    subprocess.run(
        [sys.executable, "-m", "dlm", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "DLM_BACKEND": backend},
    )


def serve(directory: str) -> None:
    """Start a cluster whose lockspace ``test`` runs on all nodes."""
    nodes = ",".join(f"{name}={address}" for name, address in NODES.items())
    tool("emulator", "up", "--nodes", nodes, directory)
    lines = [["set_local", str(n), address] for n, address in enumerate(NODES.values(), 1)]
    for number, name in enumerate(NODES):
        tool(*lines[number], node=name, directory=directory)
        for _, other, address in lines:
            tool("set_node", other, address, node=name, directory=directory)
    for words in (["create", "test"], ["start", "test", "1", "0", "1", "2", "3"]):
        for name in NODES:
            tool(*words, node=name, directory=directory)
    for name in NODES:
        tool("poll_done", "test", "1", "--timeout", "30", node=name, directory=directory)
        # The end of a recovery shows a moment before the join's last act, which makes the device.
        backend = connect(f"emulator:{directory}/{name}")
        while "dlm_test" not in backend.misc_devices():
            backend.pause(0.01, bounded=True)
        backend.close()


def in_process(seconds: float) -> float:
    """Return requests per second of the same clients on a cluster in this process."""
    cluster = Cluster(NODES)
    controls = [Control(cluster.node(name).process()) for name in NODES]
    for number, (control, address) in enumerate(zip(controls, NODES.values(), strict=True), 1):
        control.set_local(number, address)
        for other, where in enumerate(NODES.values(), 1):
            control.set_node(other, where)
    for control in controls:
        control.lockspace("test").create()
    for control in controls:
        control.lockspace("test").start(1, [1, 2, 3])
    cluster.settle()
    names = list(NODES)
    workers = [
        Worker(cluster.node(names[n % 3]).process(), str(n), random.Random(n))
        for n in range(CLIENTS)
    ]
    begun = time.perf_counter()
    for worker in workers:
        worker.ask()
    while time.perf_counter() - begun < seconds:
        for worker in workers:
            if worker.answered():
                worker.ask()
        cluster.advance(0.001)
    return sum(worker.requests for worker in workers) / (time.perf_counter() - begun)


def latency(backend: Backend) -> float:
    """Return microseconds of a plain call, the median of many."""
    times = []
    for _ in range(LATENCY_CALLS):
        begun = time.perf_counter()
        backend.list_directory("dlm")
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2] * 1e6


def main() -> None:
    """Measure, check and print."""
    seconds = float(os.environ.get("STORM_SECONDS", SECONDS))
    alone = in_process(min(5.0, seconds))
    parent = tempfile.mkdtemp(prefix="dlm-")
    directory = str(Path(parent) / "cluster")
    serve(directory)
    try:
        backend = connect(f"emulator:{directory}/nodea")
        served = latency(backend)
        backend.close()
        storm = Storm(directory, CLIENTS, end=time.monotonic() + seconds)
        storm.run()
        kept = check(storm)
    finally:
        tool("emulator", "down", directory)
        shutil.rmtree(parent)
    own = latency(Cluster({"nodea": "10.0.0.1"}).node("nodea").process())
    rate = storm.requests / seconds
    print(
        f"{CLIENTS} clients on one served cluster, {seconds:g} s: {storm.requests} lock requests "
        f"of living clients, {rate:.0f}/s, in process {alone:.0f}/s, ratio {rate / alone:.2f}"
    )
    print(f"  {storm.killed} killed, {kept} persistent locks left, nothing lost, nothing twice")
    print(
        f"a plain call: served {served:.0f} µs, in process {own:.1f} µs, ratio {served / own:.0f}"
    )


if __name__ == "__main__":
    main()
