"""The virtual clock, the order of events, and what counts as a stalled world."""

from __future__ import annotations

import pytest

from dlm.emulator.scheduler import RING_SIZE, Scheduler
from dlm.errors import StalledError


def never() -> bool:
    """Hold never."""
    return False


def test_events_happen_by_time_then_in_the_order_of_scheduling() -> None:
    """An earlier time goes first; of one time, what was scheduled first goes first."""
    scheduler = Scheduler()
    seen: list[str] = []
    for delay, name in ((2.0, "late"), (1.0, "first"), (1.0, "second"), (0.5, "early")):
        scheduler.schedule(delay, lambda name=name: seen.append(name))

    scheduler.settle()

    assert seen == ["early", "first", "second", "late"]
    assert scheduler.now == 2.0


def test_run_until_stops_at_the_deadline() -> None:
    """A bounded wait moves the clock to its deadline and leaves later events alone."""
    scheduler = Scheduler()
    seen: list[str] = []
    scheduler.schedule(1.0, lambda: seen.append("in time"))
    scheduler.schedule(3.0, lambda: seen.append("too late"))

    assert not scheduler.run_until(never, 2.0)

    assert (seen, scheduler.now) == (["in time"], 2.0)


def test_run_until_stops_as_soon_as_the_condition_holds() -> None:
    """No event happens after the one that made the condition true."""
    scheduler = Scheduler()
    seen: list[int] = []
    for number in range(5):
        scheduler.schedule(number, lambda number=number: seen.append(number))

    assert scheduler.run_until(lambda: len(seen) == 3)

    assert (seen, scheduler.now) == ([0, 1, 2], 2.0)


def test_a_cancelled_event_never_happens() -> None:
    """Cancelling is fine before the event, after it, twice, and for no event at all."""
    scheduler = Scheduler()
    seen: list[str] = []
    gone = scheduler.schedule(1.0, lambda: seen.append("gone"))
    kept = scheduler.schedule(2.0, lambda: seen.append("kept"))
    scheduler.cancel(gone)
    scheduler.cancel(gone)
    scheduler.cancel(None)

    scheduler.settle()
    scheduler.cancel(kept)

    assert seen == ["kept"]
    assert scheduler.stalled


def test_a_wait_in_an_empty_world_is_stalled() -> None:
    """Without any event an unbounded wait raises at once, says for what, and shows the trace."""
    scheduler = Scheduler()
    scheduler.record("the last thing")

    with pytest.raises(StalledError) as caught:
        scheduler.run_until(never, waiting="create of test")

    assert caught.value.message.startswith("create of test")
    assert caught.value.trace == ("0.000000 the last thing",)


def test_idle_timers_alone_stall_after_two_rounds() -> None:
    """A poll that finds nothing new, set again for ever, cannot end a wait: two rounds show it."""
    scheduler = Scheduler()
    polls: list[float] = []

    def poll(period: float) -> None:
        polls.append(period)
        scheduler.schedule(period, lambda: poll(period), idle=True)

    poll(1.0)
    poll(5.0)
    polls.clear()

    with pytest.raises(StalledError):
        scheduler.run_until(never)

    assert polls.count(5.0) == 2
    assert polls.count(1.0) >= 2


def test_a_round_that_changed_something_is_followed_by_another() -> None:
    """As long as idle timers bring about changes, the world is not stalled."""
    scheduler = Scheduler()
    left = 4

    def scan() -> None:
        nonlocal left
        if left:
            left -= 1
            scheduler.progress += 1
        scheduler.schedule(5.0, scan, idle=True)

    scan()
    scheduler.settle()

    assert left == 0


def test_what_an_idle_event_sends_is_idle_too() -> None:
    """A poll's question and its answer do not keep a world alive that only polls."""
    scheduler = Scheduler()
    answers: list[float] = []

    def poll() -> None:
        scheduler.schedule(0.1, lambda: scheduler.schedule(0.1, answer))
        scheduler.schedule(1.0, poll, idle=True)

    def answer() -> None:
        answers.append(scheduler.now)

    scheduler.schedule(1.0, poll, idle=True)

    with pytest.raises(StalledError):
        scheduler.run_until(never)

    assert len(answers) == 2, "a round includes the answer to its own question, and no other"


def test_an_answer_from_before_the_last_change_does_not_count() -> None:
    """What was asked too early is asked again before the world counts as stalled."""
    scheduler = Scheduler()
    ready, seen = False, False

    def poll() -> None:
        told = ready
        scheduler.schedule(0.1, lambda: answer(told))

    def answer(told: bool) -> None:
        nonlocal seen
        if told:
            seen = True
            scheduler.progress += 1
        else:
            scheduler.schedule(1.0, poll, idle=True)

    def change() -> None:
        nonlocal ready
        ready = True
        scheduler.progress += 1

    scheduler.schedule(1.0, poll, idle=True)
    scheduler.schedule(1.05, change, idle=True)
    scheduler.settle()

    assert seen


def test_an_answer_to_a_poll_that_changes_something_ends_the_wait() -> None:
    """A stalled world is not declared while the answer to this round's question is under way."""
    scheduler = Scheduler()
    arrived: list[bool] = []

    def poll() -> None:
        scheduler.schedule(3.0, lambda: arrived.append(True))
        scheduler.schedule(1.0, poll, idle=True)

    scheduler.schedule(1.0, poll, idle=True)

    assert scheduler.run_until(lambda: bool(arrived))


def test_after_progress_an_idle_event_schedules_busy_ones() -> None:
    """Once an idle event has changed something, what it sends is no longer idle."""
    scheduler = Scheduler()

    def found() -> None:
        scheduler.progress += 1
        scheduler.schedule(1.0, lambda: scheduler.record("an answer"))

    scheduler.schedule(1.0, found, idle=True)
    scheduler.settle()

    assert scheduler.trace() == ("2.000000 an answer",), "what idle events note is left out"


def test_an_unbounded_pause_notices_the_stall_over_several_calls() -> None:
    """expect_change raises once two rounds have passed, however small the steps were."""
    scheduler = Scheduler()

    def poll() -> None:
        scheduler.schedule(1.0, poll, idle=True)

    poll()
    for _ in range(7):
        scheduler.run_until(never, scheduler.now + 0.25)
        scheduler.expect_change("a wait without end")
    scheduler.run_until(never, scheduler.now + 0.25)

    with pytest.raises(StalledError, match="a wait without end"):
        scheduler.expect_change("a wait without end")


def test_events_that_change_nothing_for_ever_are_a_livelock() -> None:
    """Busy events that only make each other are found out."""
    scheduler = Scheduler()

    def again() -> None:
        scheduler.schedule(0.0, again)

    again()

    with pytest.raises(StalledError, match="change nothing"):
        scheduler.run_until(never)


def test_changes_that_never_end_are_a_livelock() -> None:
    """A wait without end gives up when the world goes on for ever without coming to it."""
    scheduler = Scheduler()
    scheduler.patience = 1000

    def again() -> None:
        scheduler.progress += 1
        scheduler.schedule(1.0, again)

    again()

    with pytest.raises(StalledError, match="settling waits while others go on for ever"):
        scheduler.settle()


def test_run_due_does_not_move_the_clock() -> None:
    """Only what is due at this moment happens."""
    scheduler = Scheduler()
    seen: list[str] = []
    scheduler.schedule(0.0, lambda: seen.append("now"))
    scheduler.schedule(0.1, lambda: seen.append("soon"))

    assert scheduler.run_due()
    assert not scheduler.run_due()

    assert (seen, scheduler.now) == (["now"], 0.0)


def test_an_event_must_not_pump() -> None:
    """An event that waits for others would turn their order around: it is a bug."""
    scheduler = Scheduler()
    scheduler.schedule(1.0, lambda: None)
    scheduler.schedule(0.5, scheduler.settle)

    with pytest.raises(AssertionError):
        scheduler.settle()


def test_the_trace_keeps_its_end_or_all() -> None:
    """The ring forgets the oldest lines; a trace that is kept forgets nothing."""
    ring, whole = Scheduler(), Scheduler(keep_trace=True)
    for scheduler in (ring, whole):
        for number in range(RING_SIZE + 10):
            scheduler.record("line", number)

    assert len(ring.trace()) == RING_SIZE
    assert ring.trace()[-1] == f"0.000000 line {RING_SIZE + 9}"
    assert len(whole.trace()) == RING_SIZE + 10


def test_the_ring_leaves_out_what_fruitless_polls_do() -> None:
    """A poll's lines appear in the ring only when it found something new."""
    scheduler = Scheduler()

    def poll(*, fruitful: bool) -> None:
        if fruitful:
            scheduler.progress += 1
        scheduler.record("poll", fruitful)

    scheduler.schedule(1.0, lambda: poll(fruitful=False), idle=True)
    scheduler.schedule(2.0, lambda: poll(fruitful=True), idle=True)
    scheduler.settle()

    assert scheduler.trace() == ("2.000000 poll True",)


def test_chance_depends_on_the_seed_alone() -> None:
    """Equal seeds give equal numbers, others do not."""
    first, same, other = (Scheduler(seed).random.random() for seed in (7, 7, 8))

    assert first == same != other


def test_an_answer_that_is_out_of_date_does_not_end_a_wait() -> None:
    """An answer under way when something changed says nothing: the next poll is waited for."""
    scheduler = Scheduler()
    state = {"changed": False, "seen": False}

    def answer(changed: bool) -> None:
        if changed:
            state["seen"] = True
            scheduler.progress += 1
        else:
            scheduler.schedule(1.0, poll, idle=True)

    def poll() -> None:
        changed = state["changed"]
        scheduler.schedule(0.5, lambda: answer(changed))

    def change() -> None:
        state["changed"] = True
        scheduler.progress += 1

    scheduler.schedule(1.0, poll, idle=True)
    scheduler.schedule(1.2, change)
    scheduler.settle()

    assert state["seen"]
