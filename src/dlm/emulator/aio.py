"""An asyncio event loop that lives in an emulated cluster's time.

Decides: that the world goes on exactly when every task waits, that ``loop.time()`` is the virtual
clock, that a wait which nothing can end raises ``StalledError``.
May not know: what tasks do.

The loop's selector is where a real loop would sleep. Descriptors of the emulator (``fileno()`` of
devices, pending calls, kernel events) are real eventfds, so ``loop.add_reader`` works as it does on
a real kernel; descriptors of the world outside work too, but nobody waits for them in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from dlm.emulator.cluster import Cluster
from dlm.emulator.scheduler import Scheduler

T = TypeVar("T")

_Ready = list[tuple[selectors.SelectorKey, int]]


def run(main: Coroutine[Any, Any, T], cluster: Cluster) -> T:
    """Run a coroutine to its end in the cluster's time, as ``asyncio.run`` does in real time."""
    with asyncio.Runner(loop_factory=lambda: EventLoop(cluster)) as runner:
        return runner.run(main)


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop on the virtual clock of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._scheduler = cluster.scheduler
        super().__init__(_Selector(cluster.scheduler))

    def time(self) -> float:
        """Return virtual seconds."""
        return self._scheduler.now


class _Selector(selectors.BaseSelector):
    """Looks at real descriptors, and pumps the scheduler where others sleep."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> _Ready:
        """Let the world go on until a descriptor is ready or ``timeout`` virtual seconds passed."""
        scheduler, real = self._scheduler, self._real
        ready = real.select(0)
        if ready:
            return ready
        if timeout is not None and timeout <= 0:
            # Somebody has work to do at this very moment; what is due now may happen in between.
            if scheduler.run_due():
                return real.select(0)
            return ready
        deadline = None if timeout is None else scheduler.now + timeout
        while not ready:
            seen = scheduler.signals
            if not scheduler.run_until(
                lambda seen=seen: scheduler.signals != seen,  # type: ignore[misc]  # mypy: default
                deadline,
                waiting="every task",
            ):
                break
            ready = real.select(0)
        return ready

    def register(
        self,
        fileobj: Any,
        events: int,
        data: Any = None,  # Any: as selectors has it
    ) -> selectors.SelectorKey:
        """Add a descriptor."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # Any: as selectors has it
        """Remove a descriptor."""
        return self._real.unregister(fileobj)

    def modify(
        self,
        fileobj: Any,
        events: int,
        data: Any = None,  # Any: as selectors has it
    ) -> selectors.SelectorKey:
        """Change what is looked for."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:  # Any: as selectors has it
        """Return all descriptors."""
        return self._real.get_map()

    def close(self) -> None:
        """Give the real selector back."""
        self._real.close()
