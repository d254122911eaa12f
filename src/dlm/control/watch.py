"""Joins, leaves and done starts, as they come to be seen.

Decides: what counts as an event, and how often the kernel is looked at.
May not know: how a dialect shows a lockspace.

Every event is found by looking: a uevent only says "look now". So lost uevents, even all of them,
cost time and nothing else; the mainline kernels tell of no end of a recovery anyway. One thing a
kernel of 2005 does not show: a leave that waits. There ``offline`` is believed.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from dlm.control.common import dialect
from dlm.control.plan import Plan
from dlm.control.runner import run
from dlm.control.seen import Phase
from dlm.control.state import recall
from dlm.errors import TimedOutError
from dlm.ports import Backend, UeventSource

_DEVPATH = "/kernel/dlm/"

RESCAN = 1.0
"""Seconds between two looks when no uevent comes."""

RESCAN_RECOVERING = 0.1
"""Seconds between two looks while a start is not done: nothing tells of its end."""


@dataclass(frozen=True, slots=True)
class Join:
    """A lockspace has appeared on this node; its join waits for ``start``."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class Leave:
    """A lockspace leaves this node, or has left."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class Done:
    """The recovery of a start made on this node is done here.

    No uevent tells of a start: it is found at the next look, and of several the last one counts.
    """

    lockspace: str
    event_nr: int


Event = Join | Leave | Done


class _Known:
    """What was told of one life of a lockspace."""

    __slots__ = ("done", "inode", "left")

    def __init__(self, inode: int, done: int) -> None:
        self.inode = inode
        self.done = done
        self.left = False


class Scanner:
    """Turns looks into events; the part that the blocking and the asyncio watch share."""

    def __init__(self, backend: Backend, rescan: float) -> None:
        self._backend = backend
        self._rescan = rescan
        self._known: dict[str, _Known] | None = None
        self._recovering = False
        self._events: deque[Event] = deque()
        self._offline: set[str] = set()  # lockspaces whose last uevent was that; never iterated

    def pop(self) -> Event | None:
        """Return the oldest event that was found and not told."""
        return self._events.popleft() if self._events else None

    def take(self, events: list[Event]) -> None:
        """Keep what a scan has found."""
        self._events.extend(events)

    def patience(self, end: float | None) -> float | None:
        """Return for how long to wait before the next look, None when ``end`` has passed."""
        seconds = min(self._rescan, RESCAN_RECOVERING) if self._recovering else self._rescan
        if end is None:
            return seconds
        left = end - self._backend.now()
        return None if left <= 0 else min(left, seconds)

    def drain(self, source: UeventSource) -> None:
        """Take what uevents there are: that there were any is what counts, and which leave."""
        with suppress(OSError):  # ENOBUFS: some were lost; the look that follows finds out
            for uevent in source.read_nowait():
                action, _, path = uevent.header.partition("@")
                name = path.removeprefix(_DEVPATH)
                if action == "offline":
                    self._offline.add(name)
                elif action == "online":
                    self._offline.discard(name)

    def scan(self) -> Plan[list[Event]]:
        """Look at every lockspace and return what is new.

        The first look tells of joins and leaves that wait, and takes the rest as told.
        """
        events: list[Event] = []
        first = self._known is None
        before, now = self._known or {}, {}
        self._recovering = False
        for name in (yield from dialect.lockspaces()):
            seen = yield from dialect.look(name)
            if seen is None:
                continue
            state = yield from recall(seen)
            done = state.done_now(seen)
            known = before.get(name)
            if known is None or known.inode != seen.inode:
                if known is not None and not known.left:
                    events.append(Leave(name))
                known = _Known(seen.inode, done if first else 0)
                if not first or (seen.phase is Phase.JOINING and not state.join_answered):
                    events.append(Join(name))
            now[name] = known
            if done > known.done:
                known.done = done
                events.append(Done(name, done))
            leaves = seen.phase is Phase.LEAVING or name in self._offline
            if leaves and not known.left:
                known.left = True
                events.append(Leave(name))
            self._recovering |= bool(state.last_start) and not state.stopped and not seen.done
        gone = (name for name, known in before.items() if name not in now and not known.left)
        events += [Leave(name) for name in gone]
        self._known = now
        self._offline.clear()
        return events


class Watch:
    """The joins, leaves and done starts of a node, as they are seen; an iterator.

    Subscribes to uevents when it is made, so nothing is missed between this and the first look.
    """

    def __init__(self, backend: Backend, rescan: float = RESCAN) -> None:
        self._backend = backend
        self._source: UeventSource | None = backend.uevents()
        self._scanner = Scanner(backend, rescan)

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Event:
        if self._source is None:
            raise StopIteration
        return self.next_event()

    def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next event; raises ``TimedOutError`` after ``timeout`` seconds."""
        assert self._source is not None, "the watch was closed"
        end = None if timeout is None else self._backend.now() + timeout
        while (event := self._next_nowait()) is None:
            left = self._scanner.patience(end)
            if left is None:
                raise TimedOutError(f"no event came in {timeout:g} s")
            if self._source.wait(left):
                self._scanner.drain(self._source)
        return event

    def _next_nowait(self) -> Event | None:
        if (event := self._scanner.pop()) is None:
            self._scanner.take(run(self._scanner.scan(), self._backend))
            event = self._scanner.pop()
        return event

    def close(self) -> None:
        """End the watch."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
