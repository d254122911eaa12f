"""An emulated world that keeps step with a real clock.

Decides: how much of the world may happen by now, and how long nothing will.
May not know: who asks, and what they do in between.

The scheduler stays what it is; whoever drives it here never lets it run ahead of the clock, so a
call that waits for something that never comes waits, and no ``StalledError`` arises.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dlm.emulator.cluster import Cluster
from dlm.errors import StalledError


class RealTime:
    """Keeps a cluster's virtual clock at ``speed`` times what ``clock`` (seconds) has gone on."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = cluster.scheduler
        self._speed = speed
        self._clock = clock
        self._zero = clock() - cluster.scheduler.now / speed

    def catch_up(self) -> None:
        """Let happen what is due by now."""
        now = (self._clock() - self._zero) * self._speed
        while self._scheduler.now < now:
            try:
                self._scheduler.run_until(lambda: False, now)
            except StalledError:  # too many events in a row that changed nothing: no fault here
                continue

    def delay(self) -> float | None:
        """Return seconds of the clock until something is due, None when nothing ever is."""
        due = self._scheduler.next_due()
        if due is None:
            return None
        return max(0.0, due / self._speed + self._zero - self._clock())
