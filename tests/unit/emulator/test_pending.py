"""Calls that sleep: conditions, order, results, descriptors, death."""

from __future__ import annotations

import errno
import select

import pytest

from dlm.emulator.pending import Body, Pending, Signal, Sleepers
from dlm.emulator.scheduler import Scheduler
from dlm.errors import StalledError


def readable(descriptor: int) -> bool:
    """Say whether a descriptor is readable at this moment."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


class Gate:
    """A condition that a test opens."""

    def __init__(self, sleepers: Sleepers) -> None:
        self.open = False
        self._sleepers = sleepers

    def let_through(self) -> None:
        """Open it."""
        self.open = True
        self._sleepers.wake()

    def body(self, result: object = None) -> Body:
        """Wait for it, then return the result."""
        yield lambda: self.open
        return result


def test_a_call_that_need_not_sleep_returns_at_once() -> None:
    """A body whose conditions hold runs to its end within begin()."""
    sleepers = Sleepers(Scheduler())

    def body() -> Body:
        yield lambda: True
        return 7

    pending = sleepers.begin(body(), "a call")

    assert pending.done()
    assert pending.result() == 7


def test_a_sleeping_call_goes_on_when_it_is_woken() -> None:
    """result() lets the world go on until the condition holds."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    pending = sleepers.begin(gate.body("through"), "a call")
    scheduler.schedule(3.0, gate.let_through)
    assert not pending.done()

    assert pending.result() == "through"

    assert scheduler.now == 3.0


def test_sleepers_go_on_in_the_order_in_which_they_went_to_sleep() -> None:
    """Of several that may go on, the one that slept longest goes first."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    order: list[str] = []

    def body(name: str) -> Body:
        yield lambda: gate.open
        order.append(name)

    for name in ("first", "second", "third"):
        sleepers.begin(body(name), name)
    gate.let_through()
    scheduler.settle()

    assert order == ["first", "second", "third"]


def test_a_sleeper_that_goes_on_can_close_the_door_behind_it() -> None:
    """Conditions are looked at again after every sleeper that went on."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    through: list[int] = []

    def body(number: int) -> Body:
        yield lambda: gate.open
        gate.open = False
        through.append(number)

    for number in range(2):
        sleepers.begin(body(number), "a call")
    gate.let_through()
    scheduler.settle()

    assert through == [0]


def test_a_refusal_is_raised_to_whoever_asks_for_the_result() -> None:
    """An OSError of the body is the call's result."""
    sleepers = Sleepers(Scheduler())

    def body() -> Body:
        yield lambda: True
        raise OSError(errno.EBUSY, "busy")

    pending = sleepers.begin(body(), "a call")

    assert pending.done()
    with pytest.raises(OSError, match="busy"):
        pending.result()


def test_a_wait_with_a_timeout_gives_up() -> None:
    """wait() says whether the call returned; the clock stands at the timeout."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    pending = sleepers.begin(gate.body(), "a call")

    assert not pending.wait(2.5)

    assert scheduler.now == 2.5
    gate.let_through()
    assert pending.wait(0.0)


def test_a_wait_that_nothing_can_end_is_stalled() -> None:
    """Waiting without end for a call that nobody will wake raises at once, by the call's name."""
    gate = Gate(sleepers := Sleepers(Scheduler()))
    pending = sleepers.begin(gate.body(), "create of test on nodea")

    with pytest.raises(StalledError, match="create of test on nodea"):
        pending.result()


def test_only_a_killable_call_can_be_killed() -> None:
    """An interruptible sleep ends with EINTR; an uninterruptible one goes on."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    soft = sleepers.begin(gate.body(), "a read", killable=True)
    hard = sleepers.begin(gate.body(), "a create")
    soft.close()
    hard.close()
    gate.let_through()
    scheduler.settle()

    with pytest.raises(InterruptedError):
        soft.result()
    assert hard.result() is None


def test_a_crash_ends_every_call_with_the_error_given() -> None:
    """When the node is gone, whoever waited for a call of it learns so."""
    gate = Gate(sleepers := Sleepers(Scheduler()))
    pending = sleepers.begin(gate.body(), "a call")

    sleepers.crash(OSError(errno.EIO, "node crashed"))

    with pytest.raises(OSError, match="node crashed"):
        pending.result()


def test_fileno_becomes_readable_when_the_call_returns() -> None:
    """The descriptor is unreadable before the return and readable after it."""
    scheduler = Scheduler()
    gate = Gate(sleepers := Sleepers(scheduler))
    early = sleepers.begin(gate.body(), "a call")
    late = sleepers.begin(gate.body(), "a call")
    assert not readable(early.fileno())
    seen = scheduler.signals

    gate.let_through()
    scheduler.settle()

    assert readable(early.fileno())
    assert readable(late.fileno())
    assert scheduler.signals == seen + 1
    early.close()
    late.close()


def test_a_call_finishes_once() -> None:
    """A later result does not replace the first."""
    pending = Pending(Scheduler(), "a call")
    told: list[bool] = []
    pending.then = lambda: told.append(True)
    pending.finish(1)
    pending.finish(2)

    assert pending.result() == 1
    assert told == [True]


def test_a_signal_shows_its_level() -> None:
    """Set and clear may be repeated; the descriptor shows the level whenever it was made."""
    signal = Signal(Scheduler())
    signal.set()
    signal.set()
    assert readable(signal.fileno())
    signal.clear()
    signal.clear()
    assert not readable(signal.fileno())
    signal.set()
    assert readable(signal.fileno())
    signal.close()
