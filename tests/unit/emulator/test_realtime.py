"""A world in step with a clock, which in these tests stands until it is told to go on."""

from __future__ import annotations

import pytest

from dlm.emulator import Cluster
from dlm.emulator.realtime import RealTime


class Clock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now


def world(speed: float = 1.0) -> tuple[Cluster, Clock, RealTime, list[float]]:
    """Return a world in which something happens 1 s and 2 s from now, and when it happened."""
    cluster, clock = Cluster({"nodea": "10.0.0.1"}), Clock()
    real = RealTime(cluster, speed=speed, clock=clock)
    happened: list[float] = []
    for seconds in (1.0, 2.0):
        cluster.scheduler.schedule(seconds, lambda: happened.append(cluster.now()))
    return cluster, clock, real, happened


def test_nothing_happens_before_its_time() -> None:
    """The virtual clock never runs ahead of the real one, nor behind it."""
    cluster, clock, real, happened = world()
    clock.now += 0.75
    real.catch_up()
    assert (happened, cluster.now(), real.delay()) == ([], 0.75, 0.25)
    clock.now += 0.5
    real.catch_up()
    assert (happened, cluster.now(), real.delay()) == ([1.0], 1.25, 0.75)


def test_after_the_last_event_there_is_no_delay() -> None:
    """None: only somebody outside can bring anything about. What is late has no delay."""
    _, clock, real, happened = world()
    clock.now += 5
    assert real.delay() == 0
    real.catch_up()
    assert (happened, real.delay()) == ([1.0, 2.0], None)


def test_a_world_may_be_faster_than_the_clock() -> None:
    """Its seconds pass ``speed`` times as fast."""
    cluster, clock, real, happened = world(speed=4)
    clock.now += 0.25
    real.catch_up()
    assert (happened, cluster.now(), real.delay()) == ([1.0], 1.0, 0.25)


def test_a_wait_that_nothing_can_end_waits() -> None:
    """No StalledError: a create that nobody starts sleeps on, hours later too."""
    cluster, clock = Cluster({"nodea": "10.0.0.1"}), Clock()
    real = RealTime(cluster, clock=clock)
    process = cluster.node("nodea").process()
    source = process.uevents()
    with pytest.raises(OSError):
        process.read_attribute("dlm/test/control")
    clock.now += 10_000
    real.catch_up()
    assert source.read_nowait() == []
    assert cluster.now() == 10_000
