"""Calls that sleep, and what wakes them.

Decides: how a sleeping call is written (a generator that yields the conditions it waits for), when
it goes on, what a caller that waits for it sees.
May not know: which calls there are.
Mirrors: wait_event() and mutexes, as fs/dlm/lockspace.c (Linux 6.1) uses them.

There is one mechanism: the body of a call is a generator, every ``yield condition`` sleeps until
``condition()`` holds. Whoever changes something that a sleeper may wait for calls
``Sleepers.wake()``; sleepers go on in the order in which they went to sleep. Calls that
``dlm.core`` answers later need no body: the answer finishes their ``Pending``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from errno import EINTR
from typing import Any

from dlm.emulator.scheduler import Scheduler

Body = Generator[Callable[[], bool], None, Any]  # Any: the result's type is the call's
"""A call that may sleep: yields conditions, returns the call's result or raises its ``OSError``."""


class Signal:
    """A level that a descriptor, made on demand, shows: it is readable while the level is set."""

    __slots__ = ("_descriptor", "_scheduler", "_set")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._descriptor = -1
        self._set = False

    def set(self) -> None:
        """Make the descriptor readable."""
        if not self._set:
            self._set = True
            if self._descriptor >= 0:
                self._scheduler.signals += 1
                os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Make the descriptor unreadable."""
        if self._set:
            self._set = False
            if self._descriptor >= 0:
                os.eventfd_read(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor."""
        if self._descriptor < 0:
            self._descriptor = os.eventfd(int(self._set), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class Pending:
    """A call that has begun (``dlm.ports.Pending``); waiting for it lets the world go on."""

    __slots__ = (
        "_error",
        "_scheduler",
        "_signal",
        "_value",
        "finished",
        "killable",
        "text",
        "then",
    )

    def __init__(self, scheduler: Scheduler, text: str, *, killable: bool = False) -> None:
        self._scheduler = scheduler
        self._signal: Signal | None = None
        self._value: Any = None  # Any: the result's type is the call's
        self._error: OSError | None = None
        self.finished = False
        self.killable = killable
        self.text = text
        self.then: Callable[[], object] | None = None
        """What is done when the call returns, before anybody learns of it."""

    def finish(self, value: object = None, error: OSError | None = None) -> None:
        """Let the call return; only the first time counts."""
        if not self.finished:
            self.finished = True
            self._value, self._error = value, error
            if self.then is not None:
                self.then()
            if self._signal is not None:
                self._signal.set()

    def done(self) -> bool:
        """Say whether the call has returned."""
        return self.finished

    def wait(self, timeout: float | None = None) -> bool:
        """Let the world go on up to ``timeout`` virtual seconds; say whether the call returned."""
        if self.finished:
            return True
        deadline = None if timeout is None else self._scheduler.now + timeout
        return self._scheduler.run_until(self.done, deadline, waiting=self.text)

    def result(self) -> Any:  # Any: the result's type is the call's
        """Wait without end, then return the call's result or raise its ``OSError``."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the call has returned."""
        if self._signal is None:
            self._signal = Signal(self._scheduler)
            if self.finished:
                self._signal.set()
        return self._signal.fileno()

    def close(self) -> None:
        """Let go; what sleeps uninterruptibly goes on in the kernel all the same."""
        if self._signal is not None:
            self._signal.close()
            self._signal = None
        self.kill()

    def kill(self) -> None:
        """End the call if its sleep can be interrupted."""
        if self.killable:
            self.finish(error=OSError(EINTR, os.strerror(EINTR), self.text))


class Sleepers:
    """The calls that sleep in one node's kernel."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._asleep: list[tuple[Callable[[], bool], Body, Pending]] = []
        self._woken = False

    def begin(self, body: Body, text: str, *, killable: bool = False) -> Pending:
        """Run a call up to its first sleep."""
        pending = Pending(self._scheduler, text, killable=killable)
        self._go_on(body, pending)
        return pending

    def wake(self) -> None:
        """Look, after what happens now, which sleepers can go on."""
        if self._asleep and not self._woken:
            self._woken = True
            self._scheduler.schedule(0.0, self._look)

    def crash(self, error: OSError) -> None:
        """End every call at once: the node is gone."""
        asleep, self._asleep = self._asleep, []
        for _, body, pending in asleep:
            body.close()
            pending.then = None
            pending.finish(error=error)

    # ---- private --------------------------------------------------------------------------------

    def _go_on(self, body: Body, pending: Pending) -> None:
        try:
            while True:
                condition = next(body)
                if not condition():
                    self._asleep.append((condition, body, pending))
                    return
        except StopIteration as end:
            pending.finish(end.value)
        except OSError as error:
            pending.finish(error=error)

    def _look(self) -> None:
        # Conditions are asked one by one: a sleeper that goes on may close the door behind it.
        self._woken = False
        position = 0
        while position < len(self._asleep):
            condition, body, pending = self._asleep[position]
            if pending.finished:  # killed
                del self._asleep[position]
                body.close()
            elif condition():
                del self._asleep[position]
                self._scheduler.progress += 1
                self._go_on(body, pending)
            else:
                position += 1
