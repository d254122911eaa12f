"""The emulated world's time, chance and order of events.

Decides: what happens next, when a wait can never end, what the trace keeps.
May not know: nodes, lockspaces, messages; the machine's real clock.

One scheduler belongs to one cluster and one thread. Nothing here reads a real clock, and the
``random.Random`` of the scheduler is the only source of chance in the whole emulator: the same seed
and the same calls give the same trace, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from dlm.emulator.brief import brief
from dlm.errors import StalledError

RING_SIZE = 200
"""Trace lines that are kept when nobody asked for the whole trace."""

FRUITLESS_LIMIT = 100_000
"""Busy events in a row that change nothing before the world counts as a livelock."""

PATIENCE = 1_000_000
"""Events of one wait without end before the world counts as a livelock, whatever they change."""


class Event:
    """Something that will happen; ``action`` None: it has happened or was cancelled."""

    __slots__ = ("action", "idle", "round", "time")

    def __init__(self, time: float, action: Callable[[], None], idle: bool, round_: int) -> None:
        self.time = time
        self.action: Callable[[], None] | None = action
        self.idle = idle
        self.round = round_


class Scheduler:
    """A virtual clock and a heap of events ordered by (time, sequence).

    An event is *idle* when it only looks whether something has changed: a barrier poll, a toss
    scan, an attempt to connect. What is scheduled while an idle event runs is idle too, unless the
    world's ``progress`` has moved since that event began. The world is *stalled* when only idle
    events are left and two rounds of them changed nothing: in the first, answers may come to
    questions that were asked before the last change, in the second all of them are fresh.
    """

    # Any: what the world is, those who check it know.
    def __init__(self, seed: int = 0, world: Any = None, *, keep_trace: bool = False) -> None:
        self.now = 0.0
        """Virtual seconds since the cluster was made."""
        self.progress = 0
        """Grows with every real change of the world; whoever makes a change adds to it."""
        self.now_ns = 0
        """The same in nanoseconds."""
        self.random = Random(seed)
        self.signals = 0
        """Grows with every descriptor that became readable; the asyncio selector looks at it."""
        self.world = world
        self.checks: list[Callable[[Any], None]] = []
        """Called with the world after every step of any lockspace: invariants are checked here."""
        self.patience = PATIENCE
        self._keep_trace = keep_trace
        self._trace: deque[tuple[float, tuple[object, ...]]] = deque(
            maxlen=None if keep_trace else RING_SIZE
        )
        self._heap: list[tuple[float, int, Event]] = []
        self._sequence = 0
        self._busy = 0  # events in the heap that are not idle
        self._running: Event | None = None
        self._before = 0  # progress when the running event began
        self._fruitless = 0
        self._round = 0
        self._round_progress = -1  # progress when the round began; -1: no round
        self._left = 0  # events of this round that have not happened yet
        self._fresh = False  # this is the second round since the last change

    # ---- events ---------------------------------------------------------------------------------

    def schedule(
        self,
        delay: float,
        action: Callable[[], None],
        *,
        idle: bool = False,
        not_before: float = 0.0,
    ) -> Event:
        """Let ``action`` happen after ``delay`` virtual seconds, but not before ``not_before``.

        Events of one time happen in the order in which they were scheduled.
        """
        running = self._running
        time = max(self.now + delay, not_before)
        if idle:
            event = Event(time, action, True, 0)
        elif running is not None and running.idle and self.progress == self._before:
            event = Event(time, action, True, running.round)
            if running.round == self._round:
                self._left += 1
        else:
            event = Event(time, action, False, 0)
            self._busy += 1
            self._round_progress = -1
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, event))
        return event

    def cancel(self, event: Event | None) -> None:
        """Forget an event; fine when it has happened, or is None."""
        if event is not None and event.action is not None:
            event.action = None
            self._count_out(event)

    def step(self) -> None:
        """Let the next event happen; fine when there is none."""
        if not self._skip_cancelled():
            return
        assert self._running is None, "an event must not pump the world"
        time, _, event = heappop(self._heap)
        self._pass(time)
        action = event.action
        assert action is not None
        event.action = None
        self._running = event
        self._before = self.progress
        try:
            action()
        finally:
            self._running = None
            self._count_out(event)
        if event.idle or self.progress != self._before:
            self._fruitless = 0
        else:
            self._fruitless += 1
            if self._fruitless > FRUITLESS_LIMIT:
                raise StalledError("events go on for ever and change nothing", self.trace())

    # ---- running --------------------------------------------------------------------------------

    @property
    def stalled(self) -> bool:
        """Whether nothing can ever change again unless somebody outside acts."""
        if self._busy:
            return False
        if self._round_progress != self.progress:
            self._begin_round()
            self._fresh = False
        if self._left == 0 and not self._fresh:
            self._begin_round()
            self._fresh = True
        return self._left == 0

    def run_until(
        self,
        condition: Callable[[], bool],
        deadline: float | None = None,
        *,
        waiting: str = "a call",
    ) -> bool:
        """Let events happen until ``condition()`` holds or the clock reaches ``deadline``.

        Returns whether the condition holds. Without a deadline a stalled world raises
        ``StalledError`` that says what was ``waiting``.
        """
        patience = self.patience
        while not condition():
            if deadline is None:
                self.expect_change(waiting)
                self.step()
                patience -= 1
                if patience < 0:
                    raise StalledError(f"{waiting} waits while others go on for ever", self.trace())
            elif self._skip_cancelled() and self._heap[0][0] <= deadline:
                self.step()
            else:
                self._pass(max(self.now, deadline))
                return condition()
        return True

    def expect_change(self, waiting: str) -> None:
        """Raise ``StalledError`` that says what was ``waiting`` when the world is stalled."""
        if self.stalled:
            raise StalledError(f"{waiting} waits for ever: nothing moves", self.trace())

    def run_due(self) -> bool:
        """Let one event happen that is due at this very moment; say whether there was one."""
        if self._skip_cancelled() and self._heap[0][0] <= self.now:
            self.step()
            return True
        return False

    def next_due(self) -> float | None:
        """Return the time of the next event, None when there is none."""
        return self._heap[0][0] if self._skip_cancelled() else None

    def settle(self) -> None:
        """Let events happen until the world is stalled."""
        self.run_until(lambda: self.stalled, waiting="settling")

    # ---- trace ----------------------------------------------------------------------------------

    def record(self, *parts: object) -> None:
        """Note what happens now; the parts (values that never change) become text when read.

        What an idle event does before anything has changed is noted only in a whole trace.
        """
        running = self._running
        if running is None or self._keep_trace or not running.idle or self.progress != self._before:
            self._trace.append((self.now, parts))

    def trace(self) -> tuple[str, ...]:
        """Return what was recorded, oldest first: ``1.000250 nodea …``."""
        return tuple(f"{time:.6f} {' '.join(map(brief, parts))}" for time, parts in self._trace)

    # ---- private --------------------------------------------------------------------------------

    def _pass(self, time: float) -> None:
        self.now = time
        self.now_ns = int(time * 1e9)

    def _skip_cancelled(self) -> bool:
        heap = self._heap
        while heap and heap[0][2].action is None:
            heappop(heap)
        return bool(heap)

    def _count_out(self, event: Event) -> None:
        if not event.idle:
            self._busy -= 1
        elif event.round == self._round:
            self._left -= 1

    def _begin_round(self) -> None:
        # Timers that are set again during a round belong to the next one (their round is 0);
        # messages that an event of this round sends belong to it.
        self._round += 1
        self._round_progress = self.progress
        self._left = 0
        for _, _, event in self._heap:
            if event.action is not None:
                event.round = self._round
                self._left += 1
