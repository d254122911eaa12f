"""Create and remove: the events that they send, and what they wait for.

Linux 6.1 fs/dlm/lockspace.c, lib/kobject_uevent.c, drivers/char/misc.c.
"""

from __future__ import annotations

import errno

import pytest

from dlm.ports import DeviceWrite, Uevent
from dlm.terms import KernelProfile, LockMode, ReleaseFlag
from tests.contract.machine import Lockspace, Machine, create_request, refused

ADD, ONLINE = "add@/kernel/dlm/test", "online@/kernel/dlm/test"
OFFLINE, REMOVE = "offline@/kernel/dlm/test", "remove@/kernel/dlm/test"
MISC = "/devices/virtual/misc/dlm_test"


def keys(event: Uevent) -> list[tuple[str, str]]:
    """Return the event's keys in order, without the value of SEQNUM, which counts all events."""
    return [(key, "" if key == "SEQNUM" else value) for key, value in event.env]


def lockspace_keys(action: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the keys of an event of the lockspace itself."""
    return [
        ("ACTION", action),
        ("DEVPATH", "/kernel/dlm/test"),
        ("SUBSYSTEM", "dlm"),
        *more,
        ("LOCKSPACE", "test"),
        ("SEQNUM", ""),
    ]


def misc_keys(action: str, minor: int) -> list[tuple[str, str]]:
    """Return the keys of an event of the lockspace's misc device."""
    return [
        ("ACTION", action),
        ("DEVPATH", MISC),
        ("SUBSYSTEM", "misc"),
        ("MAJOR", "10"),
        ("MINOR", str(minor)),
        ("DEVNAME", "dlm_test"),
        ("SEQNUM", ""),
    ]


# ---- events -------------------------------------------------------------------------------------


@pytest.mark.row("3 create first uevent", "3 create second uevent", "3 create last uevent")
def test_events_of_create(machine: Machine) -> None:
    """A create sends add and online before it waits, and add of the device last."""
    machine.configure()
    machine.add_member("test", 1)
    uevents = machine.uevents()
    lockspace, pending = machine.begin_create()
    assert uevents.headers(2) == [ADD, ONLINE]

    machine.finish_create(lockspace, pending)

    events = uevents.events(3)
    assert [event.header for event in events] == [ADD, ONLINE, f"add@{MISC}"]
    assert keys(events[0]) == lockspace_keys("add")
    assert keys(events[1]) == lockspace_keys("online")
    assert keys(events[2]) == misc_keys("add", lockspace.minor)


@pytest.mark.row("3 remove first uevent", "3 remove second uevent", "3 remove last uevent")
def test_events_of_remove(lockspace: Lockspace, machine: Machine, profile: KernelProfile) -> None:
    """A remove sends remove of the device and offline before it waits, and remove last."""
    recover = [("RELEASE_RECOVER", "0")] if profile.release_recover else []
    uevents = machine.uevents()
    pending = lockspace.begin_remove()
    assert uevents.headers(2) == [f"remove@{MISC}", OFFLINE]
    assert uevents.headers_nowait() == [f"remove@{MISC}", OFFLINE]

    lockspace.write("event_done", "0")
    assert machine.result(pending) == 0

    events = uevents.events(3)
    assert [event.header for event in events] == [f"remove@{MISC}", OFFLINE, REMOVE]
    assert keys(events[0]) == misc_keys("remove", lockspace.minor)
    assert keys(events[1]) == lockspace_keys("offline", *recover)
    assert keys(events[2]) == lockspace_keys("remove")


@pytest.mark.row("3 DEVPATH and LOCKSPACE", "3 remove last uevent")
def test_events_of_a_name_with_a_slash(machine: Machine) -> None:
    """DEVPATH has the directory's name, LOCKSPACE the real one, and there is no other key."""
    machine.configure()
    uevents = machine.uevents()
    pending = machine.submit_create("a/b")
    machine.eventually(lambda: machine.exists("dlm/a!b"), "dlm/a!b")
    machine.write("dlm/a!b/event_done", "-1")
    with refused(errno.EPERM):
        machine.result(pending)

    events = uevents.events(3)

    assert [event.header for event in events] == [
        f"{action}@/kernel/dlm/a!b" for action in ("add", "online", "remove")
    ]
    for event in events:
        assert dict(event.env)["DEVPATH"] == "/kernel/dlm/a!b"
        assert dict(event.env)["LOCKSPACE"] == "a/b"
        assert [key for key, _ in event.env] == [key for key, _ in lockspace_keys("")]


@pytest.mark.row("3 event_done negative", "3 remove last uevent")
@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO, errno.ETIMEDOUT])
def test_negative_answer_fails_the_create(machine: Machine, number: int) -> None:
    """A negative event_done is the create's errno; remove follows online, and all has gone."""
    machine.configure()
    uevents = machine.uevents()
    lockspace, pending = machine.begin_create()

    lockspace.write("event_done", str(-number))

    with refused(number):
        machine.result(pending)
    assert uevents.headers(3) == [ADD, ONLINE, REMOVE]
    assert not lockspace.exists()
    assert not lockspace.has_device()


@pytest.mark.row("3 event_done negative")
def test_create_after_a_failed_create(machine: Machine) -> None:
    """A failed create leaves nothing behind: the same name can be created again."""
    machine.configure()
    lockspace, pending = machine.begin_create()
    lockspace.write("event_done", "-5")
    with refused(errno.EIO):
        machine.result(pending)

    lockspace = machine.create()

    assert lockspace.read("recover_status") == "ff\n"


# ---- what create waits for ----------------------------------------------------------------------


@pytest.mark.row("3 create waits for event_done", "fact 1")
def test_create_waits_for_event_done(machine: Machine) -> None:
    """Even when the first recovery has ended, create sleeps until event_done is written."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    lockspace.start()
    assert machine.still_sleeps(pending)
    assert not lockspace.has_device()

    lockspace.write("event_done", "0")

    assert machine.result(pending) == machine.backend.misc_devices()["dlm_test"]


@pytest.mark.row("3 create waits for the first recovery", "fact 1")
def test_create_waits_for_the_first_recovery(machine: Machine) -> None:
    """After event_done, create sleeps until the first recovery has ended."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    lockspace.write("event_done", "0")
    assert machine.still_sleeps(pending)
    assert not lockspace.has_device()

    lockspace.write("control", "1")

    assert machine.result(pending) == machine.backend.misc_devices()["dlm_test"]


@pytest.mark.row("3 event_done not negative")
@pytest.mark.parametrize("text", ["1", "2147483647"])
def test_positive_answer_is_success(machine: Machine, text: str) -> None:
    """A positive event_done lets the create go on like 0."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    lockspace.start()

    lockspace.write("event_done", text)

    assert machine.result(pending) == machine.backend.misc_devices()["dlm_test"]


@pytest.mark.row("3 create waits for event_done")
def test_killed_creator_creates_all_the_same(machine: Machine) -> None:
    """Whoever kills the process in a create does not end it: the lockspace comes all the same."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create(detached=False)

    pending.close()

    machine.backend.pause(0.3)
    assert lockspace.exists()
    lockspace.start()
    lockspace.write("event_done", "0")
    machine.eventually(lockspace.has_device, "dlm_test")


@pytest.mark.row("3 first recovery interrupted")
def test_stop_before_the_first_start(machine: Machine) -> None:
    """A stop while create waits for the first recovery does not end the wait; a start does."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    lockspace.write("event_done", "0")
    lockspace.stop()
    assert machine.still_sleeps(pending)

    lockspace.start()

    assert machine.result(pending) == machine.backend.misc_devices()["dlm_test"]


# ---- what remove waits for ----------------------------------------------------------------------


@pytest.mark.row("3 remove waits for event_done", "fact 4")
def test_remove_waits_for_event_done(lockspace: Lockspace, machine: Machine) -> None:
    """A remove sleeps until event_done; meanwhile the device has gone and the directory not."""
    pending = lockspace.begin_remove()
    machine.eventually(lambda: not lockspace.has_device(), "the end of dlm_test")

    assert machine.still_sleeps(pending)
    assert lockspace.exists()

    lockspace.write("event_done", "0")
    assert machine.result(pending) == 0
    assert not lockspace.exists()


@pytest.mark.row("3 remove waits for event_done")
@pytest.mark.parametrize("text", ["-9", "1"])
def test_remove_ignores_the_answer(lockspace: Lockspace, machine: Machine, text: str) -> None:
    """A remove succeeds whatever number event_done holds."""
    pending = lockspace.begin_remove()
    machine.eventually(lambda: not lockspace.has_device(), "the end of dlm_test")

    lockspace.write("event_done", text)

    assert machine.result(pending) == 0
    assert not lockspace.exists()


@pytest.mark.row("3 early event_done", "fact 3")
def test_early_answer_is_remembered(lockspace: Lockspace, machine: Machine) -> None:
    """An event_done that nobody waited for answers the next remove at once."""
    lockspace.write("event_done", "0")

    pending = lockspace.begin_remove()

    assert machine.result(pending) == 0
    assert not lockspace.exists()


@pytest.mark.row("fact 3")
def test_answer_is_used_up(lockspace: Lockspace, machine: Machine) -> None:
    """The answer to the join does not answer the leave."""
    pending = lockspace.begin_remove()

    assert machine.still_sleeps(pending)


@pytest.mark.row("3 FORCEFREE")
@pytest.mark.parametrize("flags", [0, ReleaseFlag.FORCEFREE, ReleaseFlag.AUTOFREE])
def test_no_flag_shortens_the_wait(lockspace: Lockspace, machine: Machine, flags: int) -> None:
    """A remove waits with every flag."""
    pending = lockspace.begin_remove(flags)

    assert machine.still_sleeps(pending)


# ---- one at a time ------------------------------------------------------------------------------


@pytest.mark.row("3 mutual exclusion", "fact 1")
def test_one_create_at_a_time(machine: Machine, other: Machine) -> None:
    """While one lockspace joins, a create of another name sleeps before it makes anything."""
    machine.configure()
    first, first_pending = machine.begin_create("first")
    uevents = machine.uevents()
    second_pending = other.submit_create("second")
    assert machine.still_sleeps(second_pending)
    assert machine.backend.list_directory("dlm") == ["first"]
    assert uevents.headers_nowait() == []

    first.write("event_done", "-1")

    with refused(errno.EPERM):
        machine.result(first_pending)
    second = Lockspace(machine, "second")
    machine.eventually(second.exists, "the second lockspace")
    second.write("event_done", "-1")
    with refused(errno.EPERM):
        machine.result(second_pending)


@pytest.mark.row("3 mutual exclusion")
def test_no_remove_while_another_joins(machine: Machine, other: Machine) -> None:
    """While one lockspace joins, the remove of another sleeps before it takes the device away."""
    machine.configure()
    first = machine.create("first")
    second, second_pending = other.begin_create("second")
    pending = first.begin_remove()
    assert machine.still_sleeps(pending)
    assert first.has_device()

    second.write("event_done", "-1")

    with refused(errno.EPERM):
        machine.result(second_pending)
    machine.eventually(lambda: not first.has_device(), "the leave of the first")
    first.write("event_done", "0")
    assert machine.result(pending) == 0


@pytest.mark.row("3 mutual exclusion")
def test_no_create_while_another_leaves(machine: Machine, other: Machine) -> None:
    """While one lockspace leaves, a create sleeps; even one of a lockspace that exists."""
    machine.configure()
    first, second = machine.create("first"), machine.create("second")
    leaving = first.begin_remove()
    machine.eventually(lambda: not first.has_device(), "the leave of the first")
    joining = other.submit_create("second")
    assert machine.still_sleeps(joining)

    first.write("event_done", "0")

    assert machine.result(leaving) == 0
    assert machine.result(joining) == second.minor


@pytest.mark.row("fact 1")
def test_locks_go_on_while_another_joins(machine: Machine, other: Machine) -> None:
    """The mutual exclusion is of creates and removes alone; locking goes on in other lockspaces."""
    machine.configure()
    first = machine.create("first")
    other.begin_create("second")

    file = first.open()

    assert file.granted(b"a", LockMode.EX) == 1
    first.stop()
    first.start()


@pytest.mark.row("fact 3")
def test_joining_and_leaving_tell_apart(machine: Machine) -> None:
    """Without a device, a lockspace that joins has no debugfs file, and one that leaves has."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    assert not lockspace.has_device()
    assert not machine.exists("debug/dlm/test")
    machine.finish_create(lockspace, pending)
    assert machine.exists("debug/dlm/test")

    lockspace.begin_remove()

    machine.eventually(lambda: not lockspace.has_device(), "the leave")
    assert machine.exists("debug/dlm/test")
    assert lockspace.read("recover_status") == "ff\n"


@pytest.mark.row("fact 1")
def test_errors_before_the_wait_come_at_once(machine: Machine) -> None:
    """A create that is refused before it makes a directory is answered without any event_done."""
    uevents = machine.uevents()

    with refused(errno.ENOTCONN):
        machine.result(machine.control().submit(DeviceWrite(create_request("test"))))

    assert machine.backend.list_directory("dlm") == []
    assert uevents.headers_nowait() == []
