"""The worlds of the lock API's tests: an emulated cluster, the same one served, a real kernel.

Decides: how each gets a lockspace ``test`` that runs, what a process is there, and how a test looks
at what the kernel holds.
May not know: what any test asserts, or ``dlm.locks``.

``emulator`` is one thread and virtual time: what races there is decided by the test. ``served`` is
the same cluster behind sockets, in real time, so that threads and separate processes can be tried.
``kernel`` is this machine's own (``DLM_CONTRACT=kernel``, as root, in a guest: ``make vm``).
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dlm.abi.debugfs import parse_all
from dlm.control import Control
from dlm.ports import Backend
from dlm.terms import InternalFlag, LockMode, LockStatus

T = TypeVar("T")

NAME = "test"
"""The lockspace of every test."""

ADDRESSES = {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}
PATIENCE = 30.0
"""Seconds after which something that must come has not come."""


@dataclass(frozen=True)
class Seen:
    """A lock as debugfs shows it, of the node that was asked."""

    name: bytes
    lock_id: int
    granted: LockMode | None
    requested: LockMode | None
    waits: bool
    persistent: bool
    pid: int


def _mode(number: int) -> LockMode | None:
    return None if number < 0 else LockMode(number)


def locks_of(backend: Backend, *, lockspace: str = NAME) -> list[Seen]:
    """Return the locks of a node, sorted by name and id; copies of other nodes' are none."""
    found = [
        Seen(
            name=resource.name,
            lock_id=entry.lock_id,
            granted=_mode(entry.granted_mode),
            requested=_mode(entry.requested_mode),
            waits=entry.status != LockStatus.GRANTED,
            persistent=bool(entry.exflags & 0x80),
            pid=entry.pid,
        )
        for resource in parse_all(backend.read_attribute(f"debug/dlm/{lockspace}_all").decode())
        for entry in resource.locks
        if not entry.flags & InternalFlag.MASTER_COPY
    ]
    return sorted(found, key=lambda each: (each.name, each.lock_id))


class Places:
    """A world with the lockspace ``test`` on every node: what all worlds share, and must have."""

    def __init__(self, nodes: tuple[int, ...]) -> None:
        self.nodes = nodes
        self.observers: dict[int, Backend] = {}
        self._event = 1

    def process(self, node: int = 1) -> Backend:
        """Return a view of a node with files of its own; it ends with the test."""
        raise NotImplementedError

    def separate(self, node: int = 1) -> Backend:
        """Return a process on a node that has a process id of its own."""
        raise NotImplementedError

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Let something happen once so many seconds have passed, while others wait."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in the world's time."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let everything under way arrive."""
        raise NotImplementedError

    def spec(self) -> str:
        """Return what ``dlm.connect`` takes for node 1, in whatever process."""
        raise NotImplementedError

    def finish(self) -> None:
        """End the test: leave nothing of it."""
        raise NotImplementedError

    def locks(self, node: int = 1) -> list[Seen]:
        """Return what debugfs of a node shows of its own locks."""
        return locks_of(self.observers[node])

    def held(self, node: int = 1) -> list[tuple[bytes, LockMode | None]]:
        """Return names and modes of the granted locks of a node."""
        return [(each.name, each.granted) for each in self.locks(node) if not each.waits]

    def eventually(self, condition: Callable[[], object], what: str, node: int = 1) -> None:
        """Let the world go on in small steps until the condition holds; fail after a while."""
        backend = self.observers[node]
        end = backend.now() + PATIENCE
        while not condition():
            assert backend.now() < end, f"did not come: {what}"
            backend.pause(0.02)

    def control(self, node: int = 1) -> Control:
        """Return a membership manager's view of a node."""
        return Control(self.observers[node], timeout=PATIENCE)

    def stop(self, *nodes: int) -> None:
        """Suspend locking, on all nodes unless some are named."""
        for node in nodes or self.nodes:
            self.observers[node].write_attribute(f"dlm/{NAME}/control", b"0")

    def start(self, *nodes: int) -> None:
        """Let it recover with the same members and wait until that is done."""
        for node in nodes or self.nodes:
            self.observers[node].write_attribute(f"dlm/{NAME}/control", b"1")
        for node in nodes or self.nodes:
            self.eventually(lambda node=node: self._recovered(node), f"recovery of {node}", node)

    def _recovered(self, node: int) -> bool:
        status = self.observers[node].read_attribute(f"dlm/{NAME}/recover_status")
        return bool(int(status, 16) & 0x40)

    def bring_up(self) -> None:
        """Configure every node and let the lockspace run on all of them."""
        controls = {node: self.control(node) for node in self.nodes}
        for node, control in controls.items():
            control.set_local(node, self.address(node))
            for other in self.nodes:
                if other != node:
                    control.set_node(other, self.address(other))
        for control in controls.values():
            control.lockspace(NAME).create()
        for control in controls.values():
            control.lockspace(NAME).start(1, self.nodes)
        for control in controls.values():
            control.lockspace(NAME).wait_done(1)
        for node in self.nodes:
            self.eventually(lambda node=node: self._has_device(node), "the device", node)

    def _has_device(self, node: int) -> bool:
        return f"dlm_{NAME}" in self.observers[node].misc_devices()

    def address(self, node: int) -> str:
        """Return the address of a node."""
        return ADDRESSES[node]


class Later:
    """A thread that does something after a while."""

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self._action = action
        self._timer = threading.Timer(seconds, self._act)
        self._timer.start()

    def finish(self) -> None:
        """Wait for the end of it; raise what it raised."""
        self._timer.join(PATIENCE)
        if self._error is not None:
            raise self._error

    def _act(self) -> None:
        try:
            self._action()
        except BaseException as error:  # noqa: BLE001 - it is raised where the test can see it
            self._error = error


class EmulatedWorld(Places):
    """A cluster in this process, on a virtual clock."""

    def __init__(
        self, nodes: tuple[int, ...] = (1,), *, kernel: str = "6.1", strict: bool = True
    ) -> None:
        from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it

        super().__init__(nodes)
        addresses = {f"node{n}": ADDRESSES[n] for n in nodes}
        self.cluster = Cluster(addresses, kernel=kernel, strict=strict)
        self.observers = {node: self.process(node) for node in nodes}
        self.bring_up()

    def process(self, node: int = 1) -> Backend:
        """Return a new process on a node."""
        return self.cluster.node(f"node{node}").process()

    separate = process

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Let something happen in so many virtual seconds; it must not wait itself."""
        self.cluster.scheduler.schedule(seconds, lambda: (action(), None)[1])

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the cluster's time."""
        from dlm.emulator import aio  # noqa: PLC0415 - the kernel's guest need not load it

        return aio.run(main, self.cluster)

    def settle(self) -> None:
        """Let everything under way arrive."""
        self.cluster.settle()

    def finish(self) -> None:
        """Check the cluster's invariants a last time, and end it."""
        self.cluster.check()
        with self.cluster:
            pass


class ServedWorld(Places):
    """A cluster that a thread of this process serves, in real time."""

    def __init__(self, nodes: tuple[int, ...] = (1,)) -> None:
        from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it
        from tests.served import Served  # noqa: PLC0415 - the same

        super().__init__(nodes)
        cluster = Cluster({f"node{n}": ADDRESSES[n] for n in nodes}, strict=True)
        ports = {f"node{node}": cluster.node(f"node{node}").process for node in nodes}
        self._threads: list[Later] = []
        self.served = Served(cluster, ports)
        try:
            self.observers = {node: self.process(node) for node in nodes}
            self.bring_up()
        except BaseException:
            self.served.close()
            raise

    def process(self, node: int = 1) -> Backend:
        """Return the process of a new connection to a node."""
        return self.served.connect(f"node{node}")

    separate = process

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Let a thread do something in so many seconds; what it raises fails the test."""
        self._threads.append(Later(seconds, action))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in real time."""
        return asyncio.run(main)

    def spec(self) -> str:
        """Return where node 1 is served."""
        return f"remote:{self.served.path('node1')}"

    def settle(self) -> None:
        """Let a while pass in which what is under way arrives."""
        self.observers[self.nodes[0]].pause(0.05)

    def finish(self) -> None:
        """End every connection and the server."""
        try:
            for thread in self._threads:
                thread.finish()
        finally:
            self.served.close()


class RealWorld(Places):
    """This machine's kernel, with one node."""

    def __init__(self, nodes: tuple[int, ...] = (1,)) -> None:
        from tests.contract.worlds import KernelWorld  # noqa: PLC0415 - only where it is root's

        super().__init__(nodes)
        self._threads: list[Later] = []
        self._views: list[Backend] = []
        self._world = KernelWorld()
        machine = self._world.machine()
        try:
            machine.bring_up(NAME)
        except BaseException:
            self.finish()  # half a lockspace would fail every test that follows
            raise
        self.observers = {1: machine.backend}

    def process(self, node: int = 1) -> Backend:
        """Return another view that this very process has: quick, and with threads."""
        from dlm.kernel import KernelBackend  # noqa: PLC0415 - only where there is one

        assert node == 1
        view = KernelBackend()
        self._views.append(view)
        return view

    def separate(self, node: int = 1) -> Backend:
        """Return a process of its own: a helper."""
        assert node == 1
        return self._world.machine().backend

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Let a thread do something in so many seconds; what it raises fails the test."""
        self._threads.append(Later(seconds, action))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in real time."""
        return asyncio.run(main)

    def spec(self) -> str:
        """Return this machine's kernel."""
        return "kernel"

    def settle(self) -> None:
        """Let a short while pass."""
        self.observers[1].pause(0.1)

    def finish(self) -> None:
        """Leave nothing on the machine."""
        try:
            for thread in self._threads:
                thread.finish()
        finally:
            for view in self._views:
                view.close()
            self._world.finish(reload=False)
            shutil.rmtree("/run/dlm", ignore_errors=True)  # what dlm.control remembers
