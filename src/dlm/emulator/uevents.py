"""Kernel events: who hears of them.

Decides: the keys that every event has and their order, the numbering, the delivery.
May not know: when which event is sent.
Mirrors: kobject_uevent_env() of lib/kobject_uevent.c (Linux 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dlm.emulator.pending import Signal
from dlm.emulator.scheduler import Scheduler
from dlm.ports import Uevent


class Uevents:
    """The event socket group of one node, from boot to crash."""

    def __init__(self, scheduler: Scheduler, name: str, dropped: Callable[[], bool]) -> None:
        """Begin without listeners; ``dropped()`` says whether events are lost at present."""
        self._scheduler = scheduler
        self._name = name
        self._dropped = dropped
        self._number = 0
        self.sources: list[UeventSource] = []

    def emit(
        self, action: str, path: str, subsystem: str, extra: Iterable[tuple[str, str]]
    ) -> None:
        """Send an event for the object at ``path`` (below ``/sys``)."""
        self._number += 1
        env = (
            ("ACTION", action),
            ("DEVPATH", path),
            ("SUBSYSTEM", subsystem),
            *extra,
            ("SEQNUM", str(self._number)),
        )
        self._deliver(Uevent(f"{action}@{path}", env))

    def emit_bare(self, action: str, path: str) -> None:
        """Send an event of 2005 that is its header alone, without environment and number."""
        self._deliver(Uevent(f"{action}@{path}", ()))

    def _deliver(self, event: Uevent) -> None:
        lost = self._dropped()
        self._scheduler.record(self._name, "uevent", event.header, *(("lost",) if lost else ()))
        if not lost:
            for source in self.sources:
                source.add(event)


class UeventSource:
    """A subscription (``dlm.ports.UeventSource``)."""

    def __init__(self, scheduler: Scheduler, hub: Uevents) -> None:
        self._scheduler = scheduler
        self._hub = hub
        self._queue: list[Uevent] = []
        self._signal = Signal(scheduler)
        hub.sources.append(self)

    def add(self, event: Uevent) -> None:
        """Queue an event."""
        self._queue.append(event)
        self._signal.set()

    def read_nowait(self) -> list[Uevent]:
        """Return what has come, oldest first."""
        queue, self._queue = self._queue, []
        self._signal.clear()
        return queue

    def wait(self, timeout: float | None) -> bool:
        """Let the world go on until something has come; say whether it has."""
        deadline = None if timeout is None else self._scheduler.now + timeout
        return self._scheduler.run_until(
            lambda: bool(self._queue), deadline, waiting="a wait for kernel events"
        )

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something has come."""
        return self._signal.fileno()

    def close(self) -> None:
        """End the subscription."""
        if self in self._hub.sources:
            self._hub.sources.remove(self)
        self._signal.close()
