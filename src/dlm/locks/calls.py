"""The thread that calls programs' callbacks.

Decides: where and in which order they run, what becomes of their exceptions.
May not know: what they are about.

They may take, convert and drop locks themselves, which waits for results: so they have a thread of
their own, beside the one that reads results nobody waits for.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from dlm.terms import LockMode

_Call = tuple[Callable[[LockMode], None], LockMode]


class CallThread:
    """One daemon thread, started with the first call; an exception goes to threading.excepthook."""

    def __init__(self, name: str) -> None:
        self._name = f"dlm-locks-callbacks {name}"
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, callback: Callable[[LockMode], None], mode: LockMode) -> None:
        """Have a callback called with a mode, after those that were put before."""
        self._queue.put((callback, mode))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let the thread end after what was put."""
        self._queue.put(None)

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            callback, mode = call
            try:
                callback(mode)
            except Exception:  # noqa: BLE001 - a callback's mistake is shown, and ends no other
                threading.excepthook(
                    threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
                )
