"""Rows of sections 1 to 3: sysfs as it was, the attributes of April and July."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.contract2005.world import Machine, refused

row = pytest.mark.row

APRIL = ("stop", "start", "finish", "terminate", "done", "id", "members")
JULY = ("control", "event_done", "id", "members")


# ---- 1 sysfs ------------------------------------------------------------------------------------


@row("1.1 directory before the join")
def test_the_directory_comes_before_the_join_is_answered(node: Machine) -> None:
    """While create waits its directory is there; dlm itself has been since the module came."""
    assert node.process.list_directory("dlm") == []
    creating = node.create()
    assert node.process.list_directory("dlm") == ["test"]
    assert not creating.done()


@row("1.1 directory name")
def test_a_name_of_64_bytes_is_cut_to_63(node: Machine) -> None:
    """The directory shows 63 bytes; white space is no matter."""
    node.create("x" * 64)
    assert node.process.list_directory("dlm") == ["x" * 63]


@row("1.1 directory name")
def test_white_space_in_a_name_is_not_looked_at(node: Machine) -> None:
    """A name of blanks makes a directory like any other."""
    node.create(" \n")
    assert node.process.list_directory("dlm") == [" \n"]


@row("1.2 mode bits bind root")
def test_root_cannot_open_against_the_mode_bits(april: Machine, july: Machine) -> None:
    """Write ``done``, read ``control`` and ``event_done``: EACCES."""
    april.create()
    july.create()
    with refused(errno.EACCES):
        april.put("done", b"1")
    for name in ("control", "event_done"):
        with refused(errno.EACCES):
            july.get(name)


@row("1.2 empty write")
def test_a_write_of_no_bytes_asks_no_store(node: Machine) -> None:
    """It returns 0, where a store would have said EINVAL."""
    node.create()
    assert node.put("members", b"") == 0


@row("1.2 long write")
@pytest.mark.parametrize(("dialect", "size"), [("event", 4095), ("members", 4096)])
def test_a_long_write_is_cut_to_a_page(dialect: str, size: int, request: Any) -> None:
    """Up to 2.6.12 a byte less than a page is taken, later a page; write returns that."""
    node = request.getfixturevalue("april" if dialect == "event" else "july")
    node.create()
    assert node.put("id", b"7" + b" " * 5000) == size
    assert node.get("id") == b"7\n"


@row("1.3 numbers")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"17", 17), (b"17\n", 17), (b"0x11", 17), (b"021", 17), (b"garbage", 0), (b" 5", 0),
        (b"-1", 4294967295), (b"+5", 0), (b"4294967296", 0), (b"5 6", 5), (b"12abc", 12),
    ],
)  # fmt: skip
def test_numbers_are_read_by_simple_strtol(node: Machine, text: bytes, shown: int) -> None:
    """``id`` takes any text: what it means is what is then shown as %u."""
    node.create()
    node.put("id", b"99")
    assert node.put("id", text) == len(text)
    assert node.get("id") == b"%d\n" % shown


# ---- 2 April ------------------------------------------------------------------------------------


@row("2 files of April")
def test_the_files_of_april(april: Machine) -> None:
    """Seven files, 0644 but for ``done``."""
    april.create()
    assert april.process.list_directory("dlm/test") == sorted(APRIL)
    modes = {name: april.process.stat(f"dlm/test/{name}").mode & 0o777 for name in APRIL}
    assert modes == {name: 0o444 if name == "done" else 0o644 for name in APRIL}


@row("2 initial values")
def test_the_values_of_a_new_lockspace(april: Machine) -> None:
    """All numbers are 0."""
    april.create()
    assert {april.get(name) for name in APRIL if name != "members"} == {b"0\n"}


@row("2 stop", "2 terminate")
@pytest.mark.parametrize("name", ["stop", "terminate"])
@pytest.mark.parametrize("text", [b"0", b"2", b"", b"x", b"-1", b"01\n", b"0x1", b"1\0"])
def test_stop_and_terminate_take_1_only(april: Machine, name: str, text: bytes) -> None:
    """Any other number is EINVAL and does nothing."""
    april.create()
    if text in {b"01\n", b"0x1", b"1\0"}:
        assert april.put(name, text) == len(text)
    elif text:
        with refused(errno.EINVAL):
            april.put(name, text)
        assert april.get("terminate") == b"0\n"


@row("2 terminate")
def test_terminate_shows_a_flag(april: Machine) -> None:
    """1 once it was written, although the kernel's own comment speaks of an event number."""
    april.run()
    april.put("terminate", b"1")
    assert april.get("terminate") == b"1\n"


@row("2 finish")
def test_finish_never_fails(april: Machine) -> None:
    """Any text returns its length; a number other than the last start's changes nothing."""
    april.create()
    for text in (b"7", b"x\n", b"-3"):
        assert april.put("finish", text) == len(text)
    assert april.get("finish") == b"0\n"


@row("2 id")
def test_id_is_set_at_any_time(node: Machine) -> None:
    """While it joins and while it runs, with an id that another lockspace has."""
    node.run("one")
    node.put("id", b"5", "one")
    node.create("two")
    assert node.put("id", b"5", "two") == 1
    assert node.get("id", "one") == node.get("id", "two") == b"5\n"


@row("2 members read")
def test_members_can_be_read_while_running_only(node: Machine) -> None:
    """EBUSY from creation to the first time it runs, and from a stop to the next."""
    creating = node.create()
    with refused(errno.EBUSY):
        node.get("members")
    node.start([1])
    if node.event:
        with refused(errno.EBUSY):  # done, and not finished
            node.get("members")
        node.put("finish", b"1")
    else:
        node.put("event_done", b"0")
    creating.result()
    assert node.get("members") == b"1 \n"
    node.stop()
    with refused(errno.EBUSY):
        node.get("members")


@row("2 numbers can be read at any time")
def test_event_numbers_can_always_be_read(april: Machine) -> None:
    """While it is stopped ``stop``, ``start``, ``finish`` and ``done`` answer."""
    april.run()
    april.stop()
    shown = [april.get(name) for name in ("stop", "start", "finish", "done")]
    assert shown == [b"1\n"] * 4


# ---- 2.1 members --------------------------------------------------------------------------------


@row("2.1 members write")
@pytest.mark.parametrize(
    "text",
    [b"1 2 3\n", b"1  2", b" 1", b"1 ", b"1\t2", b"-1", b"x", b"\0", b"1\n", b"+1", b"1 x"],
)
def test_lists_that_are_refused(node: Machine, text: bytes) -> None:
    """A newline, double, leading or trailing blanks, a tab, a sign, a word: EINVAL, none kept."""
    node.create()
    with refused(errno.EINVAL):
        node.put("members", text)
    assert node.put("members", b"1") == 1


@row("2.1 members write")
@pytest.mark.parametrize("text", [b"1", b"1\0", b"1 2 3", b"1 2 3\0", b"1abc", b"1 1"])
def test_lists_that_are_taken(node: Machine, text: bytes) -> None:
    """Write returns the length; nobody is checked against SET_NODE."""
    node.create()
    assert node.put("members", text) == len(text)


@row("2.1 pending list")
def test_a_pending_list_is_kept(node: Machine) -> None:
    """A second valid list is EINVAL until a start has taken the first."""
    node.create()
    node.put("members", b"1")
    with refused(errno.EINVAL):
        node.put("members", b"1 2")
    if node.event:
        node.put("start", b"1")
    else:
        node.put("control", b"1")
    assert node.put("members", b"1 2") == 3


@row("2.1 duplicates")
def test_a_member_said_twice_counts_once(node: Machine) -> None:
    """``1abc 1`` makes one member."""
    node.create()
    node.put("members", b"1abc 1")
    if node.event:
        node.put("start", b"1")
        node.put("finish", b"1")
    else:
        node.put("control", b"1")
    assert node.get("members") == b"1 \n"


# ---- 3 July -------------------------------------------------------------------------------------


@row("3 files of July")
def test_the_files_of_july(july: Machine) -> None:
    """Four files; control and event_done can only be written. None of April's is left."""
    july.create()
    assert july.process.list_directory("dlm/test") == sorted(JULY)
    modes = {name: july.process.stat(f"dlm/test/{name}").mode & 0o777 for name in JULY}
    assert modes == {"control": 0o200, "event_done": 0o200, "id": 0o644, "members": 0o644}


@row("3 control")
@pytest.mark.parametrize("text", [b"2", b"-1", b"0x10", b"99999"])
def test_control_takes_0_and_1(july: Machine, text: bytes) -> None:
    """Other numbers are EINVAL."""
    july.create()
    with refused(errno.EINVAL):
        july.put("control", text)


@row("3 control")
def test_garbage_is_a_stop(july: Machine) -> None:
    """A text without digits reads as 0, and 0 stops."""
    july.run()
    assert july.put("control", b"start\n") == 6
    with refused(errno.EBUSY):
        july.get("members")


@row("3 control")
def test_a_start_that_failed_is_not_told(july: Machine) -> None:
    """No members are pending: write returns its length and nothing happens."""
    july.create()
    assert july.put("control", b"1\n") == 2
    assert "start ignored: existing nodeids_next" in july.cluster.node("nodea").log()[-1]


@row("3 event_done")
def test_event_done_is_remembered(july: Machine) -> None:
    """Written with nobody waiting it answers the next wait: here, the release."""
    minor = july.run()
    assert july.put("event_done", b"anything") == 8
    assert july.remove(minor).done()
