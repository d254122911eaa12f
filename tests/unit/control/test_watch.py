"""Events: found by looking, so that no lost uevent loses one."""

from __future__ import annotations

import pytest

from dlm.control import Done, Join, Leave
from dlm.errors import TimedOutError
from tests.unit.control.world import World


def test_events_of_a_life_come_in_order() -> None:
    """Join, done, done again, leave; each once."""
    world = World("nodea")
    watch = world.control("nodea").events()
    space = world.control("nodea").lockspace("test")
    seen = []
    space.create()
    seen.append(watch.next_event(5))
    space.start(1, [1])
    seen.append(watch.next_event(5))
    space.stop()
    space.start(2, [1])
    seen.append(watch.next_event(5))
    space.release()
    seen.append(watch.next_event(5))
    assert seen == [Join("test"), Done("test", 1), Done("test", 2), Leave("test")]
    with pytest.raises(TimedOutError):
        watch.next_event(10)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_dropped_uevent_makes_an_event_late_and_no_more(dropped: bool) -> None:
    """At once with uevents, at the next look without: never more than ``rescan`` later."""
    world = World("nodea")
    world.cluster.node("nodea").drop_uevents = dropped
    watch = world.control("nodea").events(rescan=8)
    with pytest.raises(TimedOutError):
        watch.next_event(1)
    begin = world.cluster.now()
    world.control("nodea").lockspace("test").create()
    assert watch.next_event(20) == Join("test")
    world.control("nodea").lockspace("test").terminate()
    assert watch.next_event(20) == Leave("test")
    assert (world.cluster.now() - begin > 1) == dropped
    assert world.cluster.now() - begin <= 17


def test_the_end_of_a_recovery_is_found_soon() -> None:
    """No uevent tells of it: while a start is not done the looks come ten times a second."""
    world = World("nodea")
    world.start()
    watch = world.control("nodea").events(rescan=60)
    world.stop()
    with pytest.raises(TimedOutError):
        watch.next_event(1)
    world.control("nodea").lockspace("test").start(2, [1])
    begin = world.cluster.now()
    assert watch.next_event(60) == Done("test", 2)
    assert world.cluster.now() - begin < 1


def test_what_waits_already_is_told_first_and_what_is_over_is_not() -> None:
    """A manager that starts late finds the join that waits for it, not the one of yesterday."""
    world = World("nodea")
    world.start(lockspace="old")
    world.control("nodea").lockspace("test").create()
    watch = world.control("nodea").events()
    assert watch.next_event(5) == Join("test")
    with pytest.raises(TimedOutError):
        watch.next_event(5)


def test_a_lockspace_that_came_back_between_two_looks_is_another_life() -> None:
    """Its directory is another one: it has left, and joins."""
    world = World("nodea")
    world.start()
    world.cluster.node("nodea").drop_uevents = True
    watch = world.control("nodea").events(rescan=5)
    with pytest.raises(TimedOutError):
        watch.next_event(1)
    world.control("nodea").lockspace("test").release()
    world.control("nodea").lockspace("test").create()
    assert [watch.next_event(10), watch.next_event(10)] == [Leave("test"), Join("test")]


def test_a_leave_that_waits_for_terminate_is_an_event() -> None:
    """A manager that answers leaves itself has to hear of them."""
    world = World("nodea")
    world.start()
    watch = world.control("nodea").events()
    with pytest.raises(TimedOutError):
        watch.next_event(1)
    world.control("nodea").lockspace("test").release(answer=False)
    assert watch.next_event(5) == Leave("test")
    world.control("nodea").lockspace("test").terminate()
    with pytest.raises(TimedOutError):
        watch.next_event(5)


def test_it_is_an_iterator_that_ends_when_it_is_closed() -> None:
    """Events come by iteration too."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    with world.control("nodea").events() as watch:
        assert next(iter(watch)) == Join("test")
    assert list(watch) == []
