"""The attributes of a lockspace in sysfs.

Linux 6.1 fs/dlm/lockspace.c, fs/sysfs/file.c, lib/kstrtox.c.
"""

from __future__ import annotations

import errno

import pytest

from dlm.terms import RecoverStatus
from tests.contract.machine import SHORT_WHILE, Lockspace, Machine, refused

MODES = {
    "control": 0o200,
    "event_done": 0o200,
    "id": 0o644,
    "nodir": 0o644,
    "recover_nodeid": 0o444,
    "recover_status": 0o444,
}


@pytest.mark.row("2 directory")
def test_directory_appears_with_create(machine: Machine) -> None:
    """The directory is there while create still waits, and goes when the lockspace has gone."""
    machine.configure()
    assert machine.backend.list_directory("dlm") == []

    lockspace, pending = machine.begin_create()

    assert machine.backend.list_directory("dlm") == ["test"]
    assert not pending.done()
    lockspace.write("event_done", "-1")
    with refused(errno.EPERM):
        machine.result(pending)
    assert machine.backend.list_directory("dlm") == []


@pytest.mark.row("2 directory")
def test_files_and_modes(lockspace: Lockspace, machine: Machine) -> None:
    """The directory is 0755 and holds six files of fixed modes."""
    assert machine.permissions("dlm/test") == 0o755
    names = machine.backend.list_directory("dlm/test")
    assert {name: machine.permissions(f"{lockspace.directory}/{name}") for name in names} == MODES


@pytest.mark.row("2 slash in a name")
def test_slash_in_a_name(machine: Machine) -> None:
    """A slash in a lockspace's name is an exclamation mark in its directory's name."""
    machine.configure()
    pending = machine.submit_create("a/b")

    machine.eventually(lambda: machine.exists("dlm/a!b"), "dlm/a!b")

    assert machine.backend.list_directory("dlm") == ["a!b"]
    machine.write("dlm/a!b/event_done", "-1")
    with refused(errno.EPERM):
        machine.result(pending)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("control", marks=pytest.mark.row("2 control")),
        pytest.param("event_done", marks=pytest.mark.row("2 event_done")),
    ],
)
def test_write_only(lockspace: Lockspace, name: str) -> None:
    """Control and event_done cannot be opened to read, not even by root: EACCES."""
    with refused(errno.EACCES):
        lockspace.read(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("recover_status", marks=pytest.mark.row("2 recover_status")),
        pytest.param("recover_nodeid", marks=pytest.mark.row("2 recover_nodeid")),
    ],
)
def test_read_only(lockspace: Lockspace, name: str) -> None:
    """recover_status and recover_nodeid cannot be opened to write: EACCES."""
    with refused(errno.EACCES):
        lockspace.write(name, "0")


@pytest.mark.row("2 zero-byte write")
@pytest.mark.parametrize("name", ["control", "event_done", "id", "nodir"])
def test_zero_byte_write(lockspace: Lockspace, name: str) -> None:
    """A write of no bytes returns 0 in sysfs and does nothing, unlike in configfs."""
    assert lockspace.write(name, "") == 0

    assert lockspace.read("recover_status") == "ff\n"


@pytest.mark.row("2 control refused")
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", errno.EINVAL),
        ("-1", errno.EINVAL),
        ("x", errno.EINVAL),
        ("\n", errno.EINVAL),
        (" 0", errno.EINVAL),
        ("0 ", errno.EINVAL),
        ("0\n\n", errno.EINVAL),
        ("4294967296", errno.ERANGE),
        ("99999999999999999999", errno.ERANGE),
    ],
)
def test_control_refused(lockspace: Lockspace, text: str, number: int) -> None:
    """Control takes 0 and 1 only; anything else changes nothing."""
    with refused(number):
        lockspace.write("control", text)

    assert lockspace.read("recover_status") == "ff\n"


@pytest.mark.row("2 control", "2 control 0 while running", "2 control 1 while stopped")
@pytest.mark.parametrize(
    ("stop", "start"), [("0", "1"), ("0\n", "1\n"), ("0x0", "+1"), ("-0", "01")]
)
def test_stop_and_start(lockspace: Lockspace, machine: Machine, stop: str, start: str) -> None:
    """A stop shows status 0 as soon as it returns; a start returns at once and recovers."""
    assert lockspace.write("control", stop) == len(stop)
    assert lockspace.read("recover_status") == "0\n"

    assert lockspace.write("control", start) == len(start)
    machine.eventually(lambda: lockspace.read("recover_status") == "ff\n", "the recovery")


@pytest.mark.row("2 control 0 while stopped")
def test_stop_while_stopped(lockspace: Lockspace) -> None:
    """A second stop is fine, and one start is enough after it."""
    lockspace.stop()
    lockspace.stop()

    assert lockspace.read("recover_status") == "0\n"
    lockspace.start()


@pytest.mark.row("2 control 1 while running", "fact 5")
def test_start_while_running(lockspace: Lockspace, machine: Machine) -> None:
    """A start of a lockspace that runs succeeds and does nothing."""
    assert lockspace.write("control", "1") == 1

    machine.backend.pause(SHORT_WHILE)
    assert lockspace.read("recover_status") == "ff\n"
    assert lockspace.open().granted(b"a", 5) == 1


@pytest.mark.row("2 control 1 without members", "fact 5")
def test_start_without_members(lockspace: Lockspace, machine: Machine) -> None:
    """A start without members succeeds and does nothing, with or without the space's directory."""
    lockspace.stop()
    machine.rmdir("config/dlm/cluster/spaces/test/nodes/1")

    assert lockspace.write("control", "1") == 1
    machine.backend.pause(SHORT_WHILE)
    assert lockspace.read("recover_status") == "0\n"

    machine.rmdir("config/dlm/cluster/spaces/test")
    assert lockspace.write("control", "1") == 1
    machine.backend.pause(SHORT_WHILE)
    assert lockspace.read("recover_status") == "0\n"


@pytest.mark.row("2 event_done")
@pytest.mark.parametrize(
    ("text", "number"),
    [("x", errno.EINVAL), ("\n", errno.EINVAL), ("1 ", errno.EINVAL), ("2147483648", errno.ERANGE)],
)
def test_event_done_refused(machine: Machine, text: str, number: int) -> None:
    """event_done takes any signed number; a text that is none wakes nobody."""
    machine.configure()
    lockspace, pending = machine.begin_create()

    with refused(number):
        lockspace.write("event_done", text)

    assert machine.still_sleeps(pending)


@pytest.mark.row("2 id")
def test_id_is_zero_at_first(lockspace: Lockspace) -> None:
    """The id is 0 until it is written."""
    assert lockspace.read("id") == "0\n"


@pytest.mark.row("2 id")
@pytest.mark.parametrize(
    ("text", "reads"),
    [("5\n", "5"), ("0x12aabd2d", "313179437"), ("017", "15"), ("4294967295", "4294967295")],
)
def test_id_taken(lockspace: Lockspace, text: str, reads: str) -> None:
    """The id is an unsigned number of 32 bits and may change while the lockspace runs."""
    assert lockspace.write("id", text) == len(text)

    assert lockspace.read("id") == reads + "\n"


@pytest.mark.row("2 id")
@pytest.mark.parametrize(
    ("text", "number"),
    [("-1", errno.EINVAL), ("x", errno.EINVAL), ("5 ", errno.EINVAL), ("4294967296", errno.ERANGE)],
)
def test_id_refused(lockspace: Lockspace, text: str, number: int) -> None:
    """Another text is refused and leaves the id alone."""
    lockspace.write("id", "5")

    with refused(number):
        lockspace.write("id", text)

    assert lockspace.read("id") == "5\n"


@pytest.mark.row("2 nodir")
@pytest.mark.parametrize("text", ["0", "2", "-1\n"])
def test_nodir_takes_other_numbers_without_effect(lockspace: Lockspace, text: str) -> None:
    """A number other than 1 is taken and does nothing."""
    assert lockspace.write("nodir", text) == len(text)

    assert lockspace.read("nodir") == "0\n"


@pytest.mark.row("2 nodir")
def test_nodir_cannot_be_cleared(lockspace: Lockspace) -> None:
    """Writing 1 sets the mode for good; the lockspace goes on working."""
    assert lockspace.write("nodir", "1\n") == 2
    assert lockspace.read("nodir") == "1\n"

    assert lockspace.write("nodir", "0") == 1

    assert lockspace.read("nodir") == "1\n"
    lockspace.stop()
    lockspace.start()
    assert lockspace.open().granted(b"a", 5) == 1


@pytest.mark.row("2 nodir")
@pytest.mark.parametrize(("text", "number"), [("x", errno.EINVAL), ("2147483648", errno.ERANGE)])
def test_nodir_refused(lockspace: Lockspace, text: str, number: int) -> None:
    """Nodir is parsed as a signed number."""
    with refused(number):
        lockspace.write("nodir", text)


@pytest.mark.row("2 recover_status", "2 recover_status bits", "2 final status")
def test_status_of_a_single_node(lockspace: Lockspace) -> None:
    """A node that is alone leads its own recovery and ends with every bit set."""
    status = RecoverStatus(int(lockspace.read("recover_status"), 16))

    assert status == RecoverStatus(0xFF)
    assert len(list(RecoverStatus)) == 8


@pytest.mark.row("2 recover_status", "2 recover_nodeid")
def test_status_before_the_first_start(machine: Machine) -> None:
    """Before the first start the status is 0 and no node was asked."""
    machine.configure()
    lockspace, _ = machine.begin_create()

    assert lockspace.read("recover_status") == "0\n"
    assert lockspace.read("recover_nodeid") == "0\n"


@pytest.mark.row("2 recover_nodeid")
@pytest.mark.parametrize("nodeid", [1, 7, 65535])
def test_single_node_asked_itself(machine: Machine, nodeid: int) -> None:
    """recover_nodeid is the node whose status was asked last: a single node's own."""
    machine.configure(nodeid)

    lockspace = machine.create(members=(nodeid,))

    assert lockspace.read("recover_nodeid") == f"{nodeid}\n"
