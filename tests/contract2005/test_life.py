"""Rows of sections 5 to 7: the states of a lockspace, create and release, uevents."""

from __future__ import annotations

import errno

import pytest

from dlm.ports import DeviceWrite
from tests.contract2005.world import EX, Machine, events, headers, lock_bytes, refused, world

row = pytest.mark.row


def shown(april: Machine) -> tuple[int, ...]:
    """Return stop, start, finish and done."""
    return tuple(int(april.get(name)) for name in ("stop", "start", "finish", "done"))


def two(abi: str) -> tuple[Machine, Machine]:
    """Return two configured nodes that wait in create."""
    cluster = world(abi)
    machines = Machine(cluster, "nodea"), Machine(cluster, "nodeb")
    for machine in machines:
        machine.configure()
        machine.create()
    return machines


def last_log(machine: Machine) -> str:
    """Return the last line of the kernel's log."""
    return machine.cluster.node(machine.name).log()[-1]


# ---- 5.2, 5.3 the events in order ---------------------------------------------------------------


@row("5.2 stop", "5.2 start", "5.2 finish", "5.3 order")
def test_the_order_of_events(april: Machine) -> None:
    """Start, done, finish, stop, start: each number is shown when its event has come."""
    april.create()
    assert shown(april) == (0, 0, 0, 0)
    april.start([1], 1)
    assert shown(april) == (0, 1, 0, 1)
    april.put("finish", b"1")
    assert shown(april) == (0, 1, 1, 1)
    april.stop()
    assert shown(april) == (1, 1, 1, 1)
    april.start([1], 5)
    assert shown(april) == (1, 5, 1, 5)
    april.put("finish", b"5")
    assert shown(april) == (1, 5, 5, 5)
    assert april.get("members") == b"1 \n"


@row("5.3 own numbers")
def test_each_node_may_use_its_own_numbers() -> None:
    """One node at 7 and the other at 1 recover together."""
    first, second = two("event")
    first.start([1, 2], 7)
    second.start([1, 2], 1)
    first.cluster.settle()
    assert (first.get("done"), second.get("done")) == (b"7\n", b"1\n")


@row("5.2 done on all")
def test_done_waits_for_the_other_members() -> None:
    """A recovery ends when every member has come along."""
    first, second = two("event")
    first.start([1, 2])
    first.cluster.settle()
    assert first.get("done") == b"0\n"
    second.start([1, 2])
    first.cluster.settle()
    assert (first.get("done"), second.get("done")) == (b"1\n", b"1\n")


# ---- 5.4 stop -----------------------------------------------------------------------------------


@row("5.4 stop is legal at any time")
def test_stop_before_the_first_start_and_twice(node: Machine) -> None:
    """It always succeeds; without a start nothing changes."""
    node.create()
    node.stop()
    node.stop()
    node.start([1])
    if node.event:
        assert shown(node) == (0, 1, 0, 1)
        node.put("finish", b"1")
    node.stop()
    node.stop()
    with refused(errno.EBUSY):
        node.get("members")


@row("5.4 stop during a recovery")
def test_a_stop_ends_a_recovery(abi: str) -> None:
    """``done`` stays; with all members started anew it goes on to its end."""
    first, second = two(abi)
    first.start([1, 2], 1)
    first.stop()
    if first.event:
        assert first.get("done") == b"0\n"
    for machine in (first, second):
        machine.start([1, 2], 2)
    first.cluster.settle()
    if first.event:
        assert [machine.get("done") for machine in (first, second)] == [b"2\n", b"2\n"]
    else:
        assert first.get("members") == b"1 2 \n"


@row("5.4 locking is off")
def test_a_request_waits_from_stop_to_the_next_run(node: Machine) -> None:
    """A lock that is asked for while stopped is answered when locking is on again."""
    node.run()
    file = node.open()
    node.stop()
    pending = file.submit(DeviceWrite(lock_bytes(EX)))
    node.cluster.settle()
    assert not pending.done()
    node.start([1], 2)
    if node.event:
        node.cluster.settle()
        assert not pending.done()
        node.put("finish", b"2")
    assert int(pending.result()) > 0


# ---- 5.5 start ----------------------------------------------------------------------------------


@row("5.5 running")
def test_start_while_running(node: Machine) -> None:
    """April: EINVAL (INFER: there it was a panic). July: no error, and nothing happens."""
    node.run()
    node.put("members", b"1 2")
    if node.event:
        with refused(errno.EINVAL):
            node.put("start", b"2")
        assert shown(node) == (0, 1, 1, 1)
    else:
        assert node.put("control", b"1") == 1
    assert last_log(node) == "dlm: test: start ignored: lockspace running"
    with refused(errno.EINVAL):  # the list is kept
        node.put("members", b"1")


@row("5.5 no members")
def test_start_without_members(april: Machine) -> None:
    """EINVAL; the log says the opposite of what is wrong."""
    april.create()
    with refused(errno.EINVAL):
        april.put("start", b"1")
    assert last_log(april) == "dlm: test: existing nodeids_next"
    assert shown(april) == (0, 0, 0, 0)


@row("5.5 number")
@pytest.mark.parametrize("number", [b"3", b"2", b"0", b"-1", b"x"])
def test_start_with_a_number_that_does_not_grow(april: Machine, number: bytes) -> None:
    """EINVAL, and the members are kept for a start with a greater one."""
    april.create()
    april.start([1], 3)
    april.put("finish", b"3")
    april.stop()
    april.put("members", b"1")
    with refused(errno.EINVAL):
        april.put("start", number)
    assert "not greater than last 3" in last_log(april)
    with refused(errno.EINVAL):
        april.put("members", b"1")
    april.put("start", b"4")
    assert april.get("done") == b"4\n"


@row("5.5 number")
def test_the_first_number_is_above_0(april: Machine) -> None:
    """0 is not above the 0 with which every lockspace begins."""
    april.create()
    april.put("members", b"1")
    with refused(errno.EINVAL):
        april.put("start", b"0")


# ---- 5.6, 5.7 finish, terminate -----------------------------------------------------------------


@row("5.6 finish before done")
def test_a_finish_may_come_before_done() -> None:
    """It is heeded when the recovery has succeeded."""
    first, second = two("event")
    for machine in (first, second):
        machine.start([1, 2])
        machine.put("finish", b"1")
        with refused(errno.EBUSY):
            machine.get("members")
    first.cluster.settle()
    assert [machine.get("members") for machine in (first, second)] == [b"1 2 \n"] * 2


@row("5.6 wrong number")
def test_a_finish_with_another_number(april: Machine) -> None:
    """It is ignored, and the log says why."""
    april.create()
    april.start([1], 1)
    assert april.put("finish", b"2") == 1
    assert last_log(april) == "dlm: test: finish event_nr 2 doesn't match start 1"
    assert shown(april) == (0, 1, 0, 1)
    with refused(errno.EBUSY):
        april.get("members")


@row("5.7 terminate")
def test_terminate_changes_nothing_on_a_running_lockspace(april: Machine) -> None:
    """Locking goes on, the flag stays, and a later release does not wait."""
    minor = april.run()
    assert april.put("terminate", b"1") == 1
    assert last_log(april) == "dlm: test: dlm_ls_terminate"
    assert april.get("members") == b"1 \n"
    file = april.open()
    assert file.write(lock_bytes(EX)) > 0
    assert april.remove(minor).done()


# ---- 5.8 out of order ---------------------------------------------------------------------------


@row("5.8 first start cancelled")
def test_a_cancelled_first_start_gives_its_number_back(april: Machine) -> None:
    """Stopped before its finish, the numbers are 0 again and 1 may be used again."""
    april.create()
    april.start([1], 1)
    april.stop()
    assert shown(april) == (0, 0, 0, 1)
    april.start([1], 1)
    april.put("finish", b"1")
    assert april.get("members") == b"1 \n"


@row("5.8 finish twice")
def test_finish_twice(april: Machine) -> None:
    """INFER: ignored, where the kernel panicked."""
    april.run()
    assert april.put("finish", b"1") == 1
    assert shown(april) == (0, 1, 1, 1)
    assert april.get("members") == b"1 \n"


@row("5.8 finish after stop")
def test_finish_after_a_stop_of_the_same_event(april: Machine) -> None:
    """The very first: its number is wrong by then. Any later one: INFER, ignored."""
    april.create()
    april.start([1], 1)
    april.stop()
    april.put("finish", b"1")
    assert shown(april) == (0, 0, 0, 1)
    april.start([1], 1)
    april.put("finish", b"1")
    april.stop()
    april.start([1], 2)
    april.stop()
    april.put("finish", b"2")
    assert shown(april) == (2, 2, 1, 2)
    with refused(errno.EBUSY):
        april.get("members")


@row("5.8 start after start")
def test_a_start_during_the_recovery_of_another() -> None:
    """Without a stop between them the first ends, then the second runs."""
    first, second = two("event")
    first.start([1, 2], 1)
    first.start([1, 2], 2)
    assert shown(first) == (0, 2, 0, 0)
    second.start([1, 2], 1)
    second.start([1, 2], 2)
    first.cluster.settle()
    assert (shown(first), shown(second)) == ((0, 2, 0, 2), (0, 2, 0, 2))
    for machine in (first, second):
        machine.put("finish", b"2")
    assert first.get("members") == b"1 2 \n"


@row("5.8 finish with a start under way")
def test_a_finish_beside_a_queued_start_is_ignored() -> None:
    """INFER: finish and start with no stop was a panic; the start goes on."""
    first, second = two("event")
    first.start([1, 2], 1)
    first.start([1, 2], 2)
    assert first.put("finish", b"2") == 1
    assert shown(first) == (0, 2, 0, 0)
    del second


@row("5.8 finish before any start")
def test_finish_0_before_any_start(april: Machine) -> None:
    """It is harmless."""
    april.create()
    april.put("finish", b"0")
    assert shown(april) == (0, 0, 0, 0)
    april.start([1], 1)
    assert april.get("done") == b"1\n"


@row("5.8 stop drops queued starts")
def test_a_stop_drops_the_starts_before_it() -> None:
    """A start that waits behind a recovery goes with it."""
    first, second = two("event")
    first.start([1, 2], 1)
    first.start([1, 2], 2)
    first.stop()
    first.cluster.settle()
    assert shown(first) == (0, 0, 0, 0)
    second.start([1, 2], 1)
    first.start([1, 2], 1)
    first.cluster.settle()
    assert (shown(first), shown(second)) == ((0, 1, 0, 1), (0, 1, 0, 1))


@row("5.10 start during a recovery")
def test_july_takes_a_start_during_a_recovery() -> None:
    """It needs members of its own; the newer recovery is the one that counts."""
    first, second = two("members")
    first.start([1, 2])
    first.start([1])
    first.cluster.settle()
    with refused(errno.EBUSY):
        first.get("members")
    second.start([1, 2])
    first.cluster.settle()
    assert first.get("members") == b"1 \n"


# ---- 6 create and release -----------------------------------------------------------------------


@row("6.1 mutex")
def test_a_second_create_waits_for_the_first(node: Machine) -> None:
    """One mutex is held over the whole join: before it, the second makes no directory."""
    first, second = node.create("one"), node.create("two")
    assert node.process.list_directory("dlm") == ["one"]
    node.put("members", b"1", "one")
    if node.event:
        node.put("start", b"1", "one")
    else:
        node.put("event_done", b"0", "one")
    first.result()
    assert node.process.list_directory("dlm") == ["one", "two"]
    assert not second.done()


@row("6.1 name taken")
def test_a_name_that_is_taken_is_eexist(node: Machine) -> None:
    """At once, without a wait."""
    node.run()
    with refused(errno.EEXIST):
        node.create().result()


@row("6.1 name too long")
def test_a_name_of_65_bytes_is_einval(node: Machine) -> None:
    """64 are fine."""
    with refused(errno.EINVAL):
        node.create("x" * 65).result()
    assert not node.create("x" * 64).done()


@row("6.2 April: start")
def test_create_returns_at_start_not_at_finish(april: Machine) -> None:
    """An accepted start answers the join, before its recovery is done."""
    creating = april.create()
    april.put("members", b"1 2")
    april.put("start", b"1")
    assert creating.result() == april.process.misc_devices()["dlm_test"]
    assert april.get("done") == b"0\n"


@row("6.2 April: terminate")
def test_terminate_ends_a_join(april: Machine) -> None:
    """Create fails (EINTR stands for the 512 that nobody could name), all is taken down."""
    source = april.process.uevents()
    creating = april.create()
    april.put("terminate", b"1")
    with refused(errno.EINTR):
        creating.result()
    assert april.process.list_directory("dlm") == []
    assert headers(source) == ["add", "online", "remove"]


@row("6.2 July: event_done")
def test_event_done_answers_a_join(july: Machine) -> None:
    """0 lets it succeed, started or not."""
    creating = july.create()
    july.put("event_done", b"0")
    assert creating.result() == july.process.misc_devices()["dlm_test"]
    with refused(errno.EBUSY):
        july.get("members")


@row("6.2 July: event_done")
@pytest.mark.parametrize(("text", "number"), [(b"-1", errno.EPERM), (b"-110", errno.ETIMEDOUT)])
def test_a_negative_event_done_fails_a_join(july: Machine, text: bytes, number: int) -> None:
    """Create fails with that errno, the lockspace goes."""
    creating = july.create()
    july.put("event_done", text)
    with refused(number):
        creating.result()
    assert july.process.list_directory("dlm") == []


@row("6.2 July: positive event_done")
def test_a_positive_event_done_looks_like_a_minor(july: Machine) -> None:
    """Write returns the number, and there is no lockspace."""
    creating = july.create()
    july.put("event_done", b"7")
    assert creating.result() == 7
    assert july.process.list_directory("dlm") == []
    assert "dlm_test" not in july.process.misc_devices()


@row("6.3 device")
def test_the_device_comes_when_create_returns(node: Machine) -> None:
    """Before the join is answered there is none."""
    node.create()
    assert "dlm_test" not in node.process.misc_devices()
    with refused(errno.ENOENT):
        node.open()


@row("6.4 busy")
def test_locks_mastered_here_keep_a_lockspace_unless_forced(node: Machine) -> None:
    """Without FORCEFREE EBUSY, with it not."""
    minor = node.run()
    node.open().write(lock_bytes(EX))
    with refused(errno.EBUSY):
        node.remove(minor, 0).result()
    node.answer_leave()
    assert node.remove(minor).result() == 136


@row("6.4 leave")
def test_a_release_waits_for_its_answer(node: Machine) -> None:
    """Offline first; only then, answered, the lockspace goes, with an event. No stop is needed."""
    minor = node.run()
    source = node.process.uevents()
    leaving = node.remove(minor, 0)
    assert headers(source) == ["offline"]
    assert not leaving.done()
    assert node.process.list_directory("dlm") == ["test"]
    if node.event:
        node.put("terminate", b"1")
    else:
        node.put("event_done", b"-5")  # whatever it says
    assert leaving.result() == 136
    assert headers(source) == ["remove"]
    assert node.process.list_directory("dlm") == []
    assert "dlm_test" not in node.process.misc_devices()


# ---- 7 uevents ----------------------------------------------------------------------------------


@row("7 add and online")
def test_create_sends_add_with_and_online_without_environment(node: Machine) -> None:
    """The header of a bare event is all of it."""
    source = node.process.uevents()
    node.create()
    first, second = events(source)
    assert first.header == "add@/kernel/dlm/test"
    assert [key for key, _ in first.env] == ["ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM"]
    assert dict(first.env)["SUBSYSTEM"] == "dlm"
    assert (second.header, second.env) == ("online@/kernel/dlm/test", ())


@row("7 change")
def test_april_tells_of_every_recovery_that_ended(april: Machine) -> None:
    """Once for each; a stop, a finish and a refused start say nothing."""
    april.create()
    source = april.process.uevents()
    april.start([1], 1)
    april.put("finish", b"1")
    april.stop()
    april.start([1], 2)
    found = events(source)
    assert [(event.header, event.env) for event in found] == [("change@/kernel/dlm/test", ())] * 2


@row("7 change")
def test_july_does_not_tell_of_a_recovery(july: Machine) -> None:
    """There is no change event; members that can be read are all there is to see."""
    july.create()
    source = july.process.uevents()
    july.start([1])
    assert events(source) == []


@row("7 remove")
def test_a_removed_lockspace_sends_remove_with_environment(node: Machine) -> None:
    """As add has it, after offline."""
    minor = node.run()
    source = node.process.uevents()
    node.remove(minor)
    node.answer_leave()
    node.cluster.settle()
    offline, remove = events(source)
    assert (offline.header, offline.env) == ("offline@/kernel/dlm/test", ())
    assert remove.header == "remove@/kernel/dlm/test"
    assert [key for key, _ in remove.env] == ["ACTION", "DEVPATH", "SUBSYSTEM", "SEQNUM"]
