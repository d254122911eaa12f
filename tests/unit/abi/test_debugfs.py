"""The tables under debug/dlm, against lines that real kernels printed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.debugfs import (
    WAITERS_MAX,
    LockEntry,
    LockLine,
    ResourceEntry,
    TossedEntry,
    WaiterEntry,
    format_all,
    format_locks,
    format_toss,
    format_waiters,
    parse_all,
    parse_locks,
    parse_toss,
    parse_waiters,
)
from dlm.terms import KERNELS, InternalFlag, KernelProfile, LockStatus

OLD, NEW = KERNELS["6.1"], KERNELS["6.12"]
PROFILES = pytest.mark.parametrize("profile", KERNELS.values(), ids=list(KERNELS))

HELD = LockEntry(
    lock_id=1,
    nodeid=0,
    remote_id=0,
    pid=96,
    xid=119,
    exflags=0xC,
    flags=InternalFlag.USER,
    status=LockStatus.GRANTED,
    granted_mode=5,
    requested_mode=-1,
    value_sequence=2,
    queued_ns=3270065767,
)
HELD_LINE = b"lkb 1 0 0 96 119 c 1 2 5 -1 0 0 0 2 3270065767 0\n"  # seen on 6.1
VALUE = bytes([0xBB] * 31 + [0])
VALUE_LINE = b"lvb 3 32" + b" bb" * 31 + b" 00\n"
ALL_OLD = b"version rsb 1.1 lvb 1.1 lkb 1.1\n"
ALL_NEW = (
    b"rsb ptr nodeid first_lkid flags !root_list_empty !recover_list_empty "
    b"recover_locks_count len\n"
)


# ---- <ls>_all -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "header", "flags"), [(OLD, ALL_OLD, 0x2), (NEW, ALL_NEW, 0x202)]
)
def test_a_resource_is_a_line_then_its_value_block_then_its_locks(
    profile: KernelProfile, header: bytes, flags: int
) -> None:
    """The file's first line differs between kernels, the lines of a resource do not."""
    lock = dataclasses.replace(HELD, flags=InternalFlag.MASTER_COPY)
    resource = ResourceEntry(b"a", flags=flags, value_sequence=3, value=VALUE, locks=(lock,))
    text = format_all([resource], profile)
    lines = (
        b"rsb (____ptrval____) 0 0 %x 0 0 0 1 str a\n" % flags
        + VALUE_LINE
        + HELD_LINE.replace(b" c 1 2 ", b" c 10000 2 ")
    )
    assert text == header + lines
    assert parse_all(text) == [resource]


def test_a_lock_line_is_the_one_that_6_1_printed() -> None:
    """The fields of a lock are in the kernel's order and bases."""
    text = format_all([ResourceEntry(b"x", locks=(HELD,))], OLD)
    assert text.endswith(HELD_LINE)
    assert parse_all(text)[0].locks == (HELD,)


def test_newer_kernels_leave_the_low_flags_out() -> None:
    """Since 6.4 USER and ORPHAN are not shown in a lock's flags."""
    text = format_all([ResourceEntry(b"x", locks=(HELD,))], NEW)
    assert text.endswith(HELD_LINE.replace(b" c 1 2 ", b" c 0 2 "))


def test_negative_numbers_and_hexadecimal_ones_are_told_apart() -> None:
    """A lock that looks for its master: unknown master, remote id and flags in hexadecimal."""
    line = b"lkb 1f -1 a2 7 0 4 180001 1 -1 3 0 1 11 0 0 0\n"
    text = ALL_OLD + b"rsb 00000000d1ea5e3b -1 1f 1 0 0 0 1 str a\n" + line
    (resource,) = parse_all(text)
    assert (resource.nodeid, resource.first_lock_id, resource.pointer) == (
        -1,
        0x1F,
        "00000000d1ea5e3b",
    )
    (lock,) = resource.locks
    assert (lock.lock_id, lock.nodeid, lock.remote_id, lock.flags) == (0x1F, -1, 0xA2, 0x180001)
    assert (lock.granted_mode, lock.requested_mode, lock.looking_up, lock.wait_type) == (
        -1,
        3,
        1,
        11,
    )
    assert format_all([resource], OLD) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"res A", b"str res A"),
        (b"", b"str "),
        (b"a\0", b"hex 61 00"),
        (b"\xe9", b"hex e9"),
        (b"a\nb", b"hex 61 0a 62"),
        (b"\x7f", b"hex 7f"),
        (b"str 61", b"str str 61"),
    ],
)
def test_a_name_is_text_if_all_of_it_is_printable_ascii(name: bytes, shown: bytes) -> None:
    """Any other byte makes the whole name hexadecimal."""
    text = format_all([ResourceEntry(name)], OLD)
    assert text.splitlines()[1].endswith(b" %d %s" % (len(name), shown))
    assert parse_all(text)[0].name == name


@PROFILES
def test_nothing_is_printed_without_resources(profile: KernelProfile) -> None:
    """An empty lockspace has empty files, without first lines."""
    assert format_all([], profile) == format_locks([], 0, profile) == b""
    assert format_toss([], profile) == format_waiters([]) == b""
    assert parse_all(b"") == []
    assert parse_locks(b"") == []
    assert parse_toss(b"") == []
    assert parse_waiters(b"") == []


u32 = st.integers(0, 2**32 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
names = st.binary(max_size=64)
locks = st.builds(
    LockEntry,
    lock_id=u32,
    nodeid=i32,
    remote_id=u32,
    pid=u32,
    xid=st.integers(0, 2**64 - 1),
    exflags=u32,
    flags=st.integers(0, 0xFFFF).map(lambda high: high << 16),
    status=st.integers(0, 3),
    granted_mode=st.integers(-1, 5),
    requested_mode=st.integers(-1, 5),
    bast_mode=st.integers(-1, 5),
    looking_up=st.integers(0, 1),
    wait_type=st.integers(0, 14),
    value_sequence=u32,
    queued_ns=st.integers(0, 2**63),
    bast_ns=st.integers(0, 2**63),
)
resources = st.builds(
    ResourceEntry,
    name=names,
    nodeid=i32,
    first_lock_id=u32,
    flags=u32,
    on_root_list=st.integers(0, 1),
    on_recover_list=st.integers(0, 1),
    recover_locks=u32,
    locks=st.lists(locks, max_size=4).map(tuple),
    pointer=st.sampled_from(["(____ptrval____)", "00000000d1ea5e3b"]),
) | st.builds(
    ResourceEntry,
    name=names,
    value_sequence=u32,
    value=st.binary(min_size=32, max_size=32),
)


@given(st.lists(resources, max_size=4), st.sampled_from(list(KERNELS.values())))
def test_all_survives(entries: list[ResourceEntry], profile: KernelProfile) -> None:
    """Whatever is formatted for whichever kernel is parsed to the same values."""
    assert parse_all(format_all(entries, profile)) == entries


def test_lines_of_an_unknown_kind_are_passed_over() -> None:
    """A line that a later kernel might add does not disturb."""
    text = ALL_OLD + b"rsb p 0 0 0 0 0 0 1 str a\nnew 1 2 3\n" + HELD_LINE
    assert parse_all(text)[0].locks == (HELD,)


def test_text_is_taken_as_well_as_bytes() -> None:
    """A decoded file gives the same."""
    text = format_all([ResourceEntry(b"a", locks=(HELD,))], OLD)
    assert parse_all(text.decode()) == parse_all(text)


# ---- <ls>_locks ---------------------------------------------------------------------------------

LOCKS = b"id nodeid remid pid xid exflags flags sts grmode rqmode time_ms r_nodeid r_len r_name\n"


def test_a_line_of_locks_ends_in_its_resource() -> None:
    """Time is in microseconds, an unknown master is printed unsigned, the name ends at its NUL."""
    resource = ResourceEntry(b"a\0b", nodeid=-1, locks=(HELD,))
    text = format_locks([resource], HELD.queued_ns + 1_500_999, OLD)
    assert text == LOCKS + b'1 0 0 96 119 c 1 2 5 -1 1500 4294967295 3 "a"\n'
    expected = LockLine(b"a", 1, 0, 0, 96, 119, 0xC, 1, 2, 5, -1, 1500, -1, 3)
    assert parse_locks(text) == [expected]


def test_a_lock_that_looks_for_its_master_is_on_no_queue() -> None:
    """Such a lock is not listed; its resource still brings the first line."""
    looking = dataclasses.replace(HELD, looking_up=1)
    assert format_locks([ResourceEntry(b"a", locks=(looking,))], 0, OLD) == LOCKS


def test_names_may_look_like_lines() -> None:
    """Quotes and newlines in a name do not end it."""
    name = b'"\n1 2 "x'
    resource = ResourceEntry(name, locks=(HELD, dataclasses.replace(HELD, lock_id=2)))
    lines = parse_locks(format_locks([resource], HELD.queued_ns, OLD))
    assert [(line.lock_id, line.name) for line in lines] == [(1, name), (2, name)]


# ---- <ls>_toss and <ls>_waiters -----------------------------------------------------------------


def test_a_tossed_resource_is_the_line_that_6_1_printed() -> None:
    """Masters and flags of an unused resource, as seen."""
    entry = TossedEntry(b"l", 0, 1, 1, 1, 4294892902, 2)
    text = b"version 4 rsb 2\nrsb (____ptrval____) 0 1 1 1 4294892902 2 1 str l\n"
    assert format_toss([entry], OLD) == text
    assert parse_toss(text) == [entry]
    header = (
        b"rsb ptr nodeid master_nodeid dir_nodeid our_nodeid toss_time flags len str|hex name\n"
    )
    new = header + text.partition(b"\n")[2]
    assert format_toss([entry], NEW) == new
    assert parse_toss(new) == [entry]


tossed = st.builds(
    TossedEntry,
    name=names,
    nodeid=i32,
    master_nodeid=i32,
    directory_nodeid=i32,
    our_nodeid=i32,
    toss_time=st.integers(0, 2**64 - 1),
    flags=u32,
)


@given(st.lists(tossed, max_size=4), st.sampled_from(list(KERNELS.values())))
def test_toss_survives(entries: list[TossedEntry], profile: KernelProfile) -> None:
    """Whatever is formatted for whichever kernel is parsed to the same values."""
    assert parse_toss(format_toss(entries, profile)) == entries


def test_waiters_are_the_lines_that_6_1_printed() -> None:
    """Lock id, message type, node and name of a lock that waits for a reply, as seen."""
    entries = [WaiterEntry(8, 2, 2, b"e8"), WaiterEntry(9, 11, -1, b"e9")]
    text = b"8 2 2 e8\n9 11 -1 e9\n"
    assert format_waiters(entries) == text
    assert parse_waiters(text) == entries


def test_waiters_show_whole_lines_only() -> None:
    """At most 4095 bytes are shown, and no line is cut."""
    entries = [WaiterEntry(number, 1, 2, bytes([0x61]) * 64) for number in range(100)]
    text = format_waiters(entries)
    shown = parse_waiters(text)
    assert shown == entries[: len(shown)]
    assert WAITERS_MAX - 80 < len(text) < WAITERS_MAX


@pytest.mark.parametrize(
    ("profile", "bucket", "locks", "begins"),
    [
        (OLD, 7, 60, ALL_OLD),
        (OLD, 7, 120, b"rsb"),
        (OLD, 0, 120, ALL_OLD),
        (NEW, 7, 120, ALL_NEW),
    ],
)
def test_the_header_before_a_large_first_record(
    profile: KernelProfile, bucket: int, locks: int, begins: bytes
) -> None:
    """Up to 6.9 a first resource of a page and more costs the header, but not in bucket 0."""
    large = ResourceEntry(b"x", locks=(HELD,) * locks)

    text = format_all([large], profile, bucket=bucket)

    assert text.startswith(begins)
    assert len(parse_all(text)[0].locks) == locks
    lines = format_locks([large], 10**12, profile, bucket=bucket)
    assert lines.startswith(b"id ") == (begins != b"rsb")
