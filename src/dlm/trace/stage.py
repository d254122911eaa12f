"""The nodes that a trace is played on: who is there, what happens to them, when they rest.

Decides: which process an operation is done by, what is done to nodes from outside, how long events
and rest are waited for.
May not know: any backend, what the operations of a process are (dlm.trace.player).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dlm.ports import Backend, Uevent, UeventSource
from dlm.trace.format import Operation, TraceError

Result = dict[str, Any]
"""What an operation adds to its line.  Any: each key has its own type (docs/traces.md)."""


OUTSIDE = frozenset({"crash", "boot", "partition", "heal"})
"""Operations that are done to nodes from outside."""

NO_MACHINES = "crash, boot, partition and heal need machines that can be told so"


class Machines(Protocol):
    """What is done to nodes from outside; nodes have numbers from 1 here."""

    def crash(self, node: int) -> None:
        """Cut a node's power."""

    def boot(self, node: int) -> Backend:
        """Let it boot again; return a process on it."""

    def partition(self, first: int, second: int) -> None:
        """Let nothing travel between two nodes."""

    def heal(self, first: int, second: int) -> None:
        """Let it travel again."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, of the backends' own clock, that are waited at most."""

    wait: float = 300.0
    """For the return of a call: a node that leaves may wait three minutes for its peers."""
    pending: float = 0.5
    """For a call that is said to sleep to show that it does not."""
    uevent: float = 2.0
    """For a kernel event."""
    settle: float = 10.0
    """For everything to come to rest."""
    quiet: float = 0.3
    """That nothing has changed for, when everything is at rest."""


_STEP = 0.1
_TRAVEL = 0.01
_AT_REST = frozenset({b"0\n", b"55\n", b"ff\n"})  # what recover_status says between recoveries
OK: Result = {"ok": True}


class Node:
    """A node: its first process, those that were named, its events."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.up = True
        self.processes: dict[str, Backend] = {}
        self.source: UeventSource | None = None
        self.events: list[Uevent] = []


class Stage:
    """Nodes in order, their processes and events; ``machines`` does what is done from outside."""

    def __init__(
        self,
        backends: Sequence[Backend],
        machines: Machines | None,
        patience: Patience,
        uevents: bool,
        devices: bool,
    ) -> None:
        self.nodes = [Node(backend) for backend in backends]
        self.patience = patience
        self._machines = machines
        self._uevents = uevents
        self._wanted = ("@/kernel/dlm/", "/misc/dlm")[: 1 + devices]
        for node in self.nodes:
            self._subscribe(node)

    def close(self) -> None:
        """End the processes that were named, listen no more."""
        for node in self.nodes:
            if node.source is not None:
                node.source.close()
            for process in node.processes.values():
                process.close()

    # ---- who ------------------------------------------------------------------------------------

    def node(self, operation: Operation) -> Node:
        """Return the node that an operation is done on."""
        number: int = operation.get("node", 1)
        return self.nodes[number - 1]

    def awake(self) -> Backend:
        """Return a process on a node that has power."""
        return next((node for node in self.nodes if node.up), self.nodes[0]).backend

    def process(self, operation: Operation) -> Backend:
        """Return the process that does an operation; one that is named begins when it is."""
        node = self.node(operation)
        name = operation.get("process")
        if name is None:
            return node.backend
        if name not in node.processes:
            node.processes[name] = node.backend.spawn_process()
        return node.processes[name]

    def pace(self) -> None:
        """Let every node's kernel do what it does between two operations of a program."""
        # A real one needs no leave. The emulator's clock stands still until it is told: at once is
        # enough for one node, several need the time that their messages travel.
        self.awake().pause(0.0 if len(self.nodes) == 1 else _TRAVEL)

    # ---- events, rest ---------------------------------------------------------------------------

    def _subscribe(self, node: Node) -> None:
        if self._uevents:
            node.source = node.backend.uevents()

    def _counts(self, event: Uevent) -> bool:
        """Say whether an event is of a lockspace or its device; a machine has many others."""
        return any(each in event.header for each in self._wanted)

    def uevent(self, operation: Operation) -> Result:
        """Return the next event of a node that concerns the DLM; EAGAIN when none comes."""
        node = self.node(operation)
        if node.source is None:
            raise TraceError("events were not asked for when the recording began")
        backend = node.backend
        deadline = backend.now() + self.patience.uevent
        while not node.events:
            if not node.source.wait(max(0.0, deadline - backend.now())):
                raise OSError(errno.EAGAIN, "no event has come")
            node.events += [each for each in node.source.read_nowait() if self._counts(each)]
        event = node.events.pop(0)
        env = [f"{key}={value}" for key, value in event.env if key != "SEQNUM"]
        return {"header": event.header, "env": env}

    def settle(self, calls: Iterable[Callable[[], bool]]) -> Result:
        """Wait until nothing changes any more, of the nodes and of whether ``calls`` are done."""
        calls = list(calls)
        waited = quiet = 0.0
        before: object = None
        while waited < self.patience.settle and quiet < self.patience.quiet:
            self.awake().pause(_STEP)
            waited += _STEP
            moving, now = self._look(calls)
            quiet = quiet + _STEP if now == before and not moving else 0.0
            before = now
        return OK

    def _look(self, calls: list[Callable[[], bool]]) -> tuple[bool, object]:
        """Say whether a recovery is under way, and return what changes when something moves."""
        seen: list[object] = [done() for done in calls]
        moving = False
        for node in self.nodes:
            try:
                for name in node.backend.list_directory("dlm"):
                    status = node.backend.read_attribute(f"dlm/{name}/recover_status")
                    moving = moving or status not in _AT_REST
                    seen.append((name, status))
                seen.append(tuple(node.backend.misc_devices()))
            except OSError as error:  # a node without power, a lockspace that goes
                seen.append(error.errno)
        return moving, seen

    # ---- from outside ---------------------------------------------------------------------------

    def _outside(self) -> Machines:
        if self._machines is None:
            raise TraceError(NO_MACHINES)
        return self._machines

    def crash(self, operation: Operation) -> Result:
        """Cut a node's power."""
        self._outside().crash(operation["node"])
        node = self.node(operation)
        node.up = False
        node.processes.clear()
        node.events.clear()
        return OK

    def boot(self, operation: Operation) -> Result:
        """Let a node boot again."""
        number = operation["node"]
        node = self.nodes[number - 1] = Node(self._outside().boot(number))
        self._subscribe(node)
        return OK

    def partition(self, operation: Operation) -> Result:
        """Let nothing travel between two nodes."""
        self._outside().partition(*operation["between"])
        return OK

    def heal(self, operation: Operation) -> Result:
        """Let it travel again."""
        self._outside().heal(*operation["between"])
        return OK
