"""A cluster of emulated nodes in one process and one thread.

Decides: who is in it, and what can be done to it from outside: power, network, time.
May not know: how a node works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from dlm.emulator.invariants import QUIET, STEADY, NothingIsGrantedWhileStopped
from dlm.emulator.network import Network
from dlm.emulator.node import Node
from dlm.emulator.scheduler import Scheduler
from dlm.errors import KernelHazardError
from dlm.terms import KERNELS, KERNELS_2005

Check = Callable[["Cluster"], None]
"""An invariant: raises ``AssertionError`` when it does not hold."""


class Cluster:
    """Nodes under one virtual clock.

    ``nodes`` maps names to IP addresses (one, or several in order), ``kernel`` names a profile of
    ``dlm.terms.KERNELS``, ``abi`` the dialect of control: ``configfs``, or one of 2005, ``event``
    (April) and ``members`` (July), which bring their own kernel (``kernel`` then says nothing).
    ``seed`` fixes everything that chance decides: equal seeds and equal calls give equal traces.
    ``keep_trace`` keeps the whole trace, not only its end. ``strict`` raises ``KernelHazardError``
    where a real kernel of that release would hang, crash or lose a lock; without it the emulated
    kernel does the sane thing there (docs/hazards.md).

    Every node starts with the module loaded, configfs mounted and nothing configured.
    """

    def __init__(
        self,
        nodes: Mapping[str, str | Sequence[str]],
        *,
        kernel: str = "6.1",
        abi: str = "configfs",
        seed: int = 0,
        keep_trace: bool = False,
        strict: bool = False,
    ) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}: say {', '.join(KERNELS)}")
        if abi != "configfs" and abi not in KERNELS_2005:
            raise ValueError(f"unknown dialect {abi!r}: say configfs, {', '.join(KERNELS_2005)}")
        profile = KERNELS_2005.get(abi, KERNELS[kernel])
        self.abi = abi
        """The dialect of control."""
        self.scheduler = Scheduler(seed, self, keep_trace=keep_trace)
        self.on_hazard: Callable[[str, KernelHazardError], None] | None = None
        """What a strict cluster does with a node and its hazard, in place of raising."""
        self.checks: list[Check] = self.scheduler.checks
        """Looked at after every step of any lockspace; ``check_every_step`` adds all invariants."""
        addresses = {
            name: (given,) if isinstance(given, str) else tuple(given)
            for name, given in nodes.items()
        }
        owners: dict[str, str] = {}
        for name, texts in addresses.items():
            for text in texts:
                if text in owners:
                    raise ValueError(f"{text} belongs to both {owners[text]} and {name}")
                owners[text] = name
        self.network = Network(self.scheduler, owners)
        self._nodes = {
            name: Node(
                name,
                texts,
                profile,
                self.scheduler,
                self.network,
                on_hazard=partial(self._met, name) if strict else None,
            )
            for name, texts in addresses.items()
        }

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order in which they were named."""
        return tuple(self._nodes.values())

    def node(self, name: str) -> Node:
        """Return a node by name; ``KeyError``."""
        return self._nodes[name]

    # ---- power and network ----------------------------------------------------------------------

    def crash(self, name: str) -> None:
        """Cut a node's power: everything it knew is gone, pending calls end with EIO."""
        node = self._nodes[name]
        if not node.up:
            raise ValueError(f"{name} is down already")
        self._happened("crash of", name)
        node.crash()

    def restart(self, name: str) -> None:
        """Let a node that is down boot again, with nothing configured."""
        node = self._nodes[name]
        if node.up:
            raise ValueError(f"{name} is up")
        node.restart()
        self._happened("boot of", name)

    def partition(self, first: str, second: str) -> None:
        """Let all messages between two nodes wait from now on."""
        self._happened("partition of", self._nodes[first].name, self._nodes[second].name)
        self.network.partition(first, second)

    def heal(self, first: str, second: str) -> None:
        """Let them travel again."""
        self._happened("heal of", self._nodes[first].name, self._nodes[second].name)
        self.network.heal(first, second)

    # ---- time -----------------------------------------------------------------------------------

    def now(self) -> float:
        """Return virtual seconds since the cluster was made."""
        return self.scheduler.now

    def advance(self, seconds: float) -> None:
        """Let so many virtual seconds pass."""
        self.scheduler.run_until(lambda: False, self.scheduler.now + seconds)

    def settle(self) -> None:
        """Let the world go on until only timers are left that change nothing."""
        self.scheduler.settle()

    # ---- looking at it --------------------------------------------------------------------------

    def trace(self) -> tuple[str, ...]:
        """Return what happened, oldest first: all of it with ``keep_trace``, else the end."""
        return self.scheduler.trace()

    def check(self) -> None:
        """Look at every invariant of a moment; ``AssertionError`` when one does not hold."""
        for check in (*STEADY, *QUIET, *self.checks):
            check(self)

    def check_every_step(self) -> None:
        """From now on look at every invariant after every step of any lockspace (slow)."""
        self.checks += [*STEADY, *QUIET, NothingIsGrantedWhileStopped()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cut the power of every node."""
        for node in self._nodes.values():
            if node.up:
                node.crash()

    # ---- private --------------------------------------------------------------------------------

    def _met(self, name: str, error: KernelHazardError) -> None:
        self._happened("hazard on", name, error.message)
        if self.on_hazard is None:
            raise error
        self.on_hazard(name, error)

    def _happened(self, *what: object) -> None:
        self.scheduler.progress += 1
        self.scheduler.record(*what)
