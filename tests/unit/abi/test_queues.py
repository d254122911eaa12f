"""The file debug/dlm/<ls>, against what real kernels printed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.debugfs import LockEntry, ResourceEntry
from dlm.abi.queues import QueuedLock, ResourceQueues, format_queues, parse_queues
from dlm.terms import LockStatus, ResourceFlag


def lock(lock_id: int, status: int, granted: int, requested: int = -1, **fields: int) -> LockEntry:
    """Return a lock of this node, unless fields say more."""
    none = LockEntry(lock_id, 0, 0, 1, 0, 0, 1, status, granted, requested)
    return dataclasses.replace(none, **fields)


VALUE = bytes([0xBB] * 32)

# §7.1 of the kernel's facts, as the master of the other locks' node 2 saw it.
COPY = ResourceEntry(
    b"a",
    nodeid=2,
    flags=ResourceFlag.VALNOTVALID,
    value=VALUE,
    on_root_list=1,
    locks=(
        lock(4, LockStatus.GRANTED, 0, nodeid=2, remote_id=0xC),
        lock(6, LockStatus.CONVERT, 0, 5, nodeid=2, remote_id=0xE),
        lock(5, LockStatus.WAITING, -1, 5, nodeid=2, remote_id=0xD, wait_type=1),
        lock(9, LockStatus.NONE, -1, 3, looking_up=1, wait_type=11),
    ),
)
COPY_TEXT = (
    b"\n"
    b'Resource (____ptrval____) Name (len=1) "a"\n'
    b"Local Copy, Master is node 2\n"
    b"LVB: bb bb bb bb bb bb bb bb bb bb bb bb bb bb bb bb \n"
    b"     bb bb bb bb bb bb bb bb bb bb bb bb bb bb bb bb  (INVALID)\n"
    b"Recovery: root 1 recover 0 flags 2 count 0\n"
    b"Granted Queue\n"
    b"00000004 NL Master:     0000000c\n"
    b"Conversion Queue\n"
    b"00000006 NL (EX) Master:     0000000e\n"
    b"Waiting Queue\n"
    b"00000005 -- (EX) Master:     0000000d wait_type: 1\n"
    b"Lookup Queue\n"
    b"00000009 PR wait_type: 11\n"
)


def test_a_process_copy_is_printed_as_the_kernel_prints_it() -> None:
    """Value block, queues and the master's ids, line by line."""
    assert format_queues([COPY]) == COPY_TEXT


def test_a_process_copy_is_read_back() -> None:
    """Everything that is printed is read."""
    expected = ResourceQueues(
        name=b"a",
        nodeid=2,
        first_lock_id=0,
        value=VALUE,
        value_invalid=True,
        granted=(QueuedLock(4, 0, remote_id=0xC),),
        converting=(QueuedLock(6, 0, 5, remote_id=0xE),),
        waiting=(QueuedLock(5, -1, 5, remote_id=0xD, wait_type=1),),
        looking_up=(QueuedLock(9, -1, 3, wait_type=11),),
    )
    assert parse_queues(COPY_TEXT) == [expected]


MASTER = ResourceEntry(
    b"res",
    locks=(
        lock(1, LockStatus.GRANTED, 3),
        lock(2, LockStatus.GRANTED, 3, nodeid=12, remote_id=0x1F),
    ),
)
MASTER_TEXT = (
    b"\n"
    b'Resource (____ptrval____) Name (len=3) "res"\n'
    b"Master Copy\n"
    b"Granted Queue\n"
    b"00000001 PR\n"
    b"00000002 PR Remote:  12 0000001f\n"
    b"Conversion Queue\n"
    b"Waiting Queue\n"
)


def test_a_master_copy_names_the_holders_nodes() -> None:
    """At the master, a lock of another node shows that node and its id there."""
    assert format_queues([MASTER]) == MASTER_TEXT
    (resource,) = parse_queues(MASTER_TEXT)
    assert resource.nodeid == 0
    assert resource.granted == (QueuedLock(1, 3), QueuedLock(2, 3, nodeid=12, remote_id=0x1F))
    assert (resource.converting, resource.waiting, resource.looking_up) == ((), (), ())


@pytest.mark.parametrize(
    ("nodeid", "line"),
    [
        (0, b"Master Copy"),
        (3, b"Local Copy, Master is node 3"),
        (-1, b"Looking up master (lkid 1f)"),
        (-2, b"Invalid master -2"),
    ],
)
def test_the_master_is_named_in_words(nodeid: int, line: bytes) -> None:
    """Each state of a resource's master has its own line."""
    text = format_queues([ResourceEntry(b"a", nodeid=nodeid, first_lock_id=0x1F)])
    assert text.split(b"\n")[2] == line
    assert parse_queues(text)[0].nodeid == nodeid


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"a b", b"a b"), (b"a\0\n\x7f\x9f", b"a...."), (b"\xa0\xe9\xff", b"\xa0\xe9\xff")],
)
def test_unprintable_bytes_of_a_name_are_dots(name: bytes, shown: bytes) -> None:
    """The kernel takes ASCII and Latin-1 for printable."""
    text = format_queues([ResourceEntry(name)])
    assert b'Name (len=%d) "%s"\n' % (len(name), shown) in text
    assert parse_queues(text)[0].name == shown


def test_an_unknown_mode_is_two_question_marks() -> None:
    """A mode outside -1 to 5 is printed ?? and read as None."""
    text = format_queues([ResourceEntry(b"a", locks=(lock(1, LockStatus.GRANTED, 9),))])
    assert b"00000001 ??\n" in text
    assert parse_queues(text)[0].granted == (QueuedLock(1, None),)


def test_blanks_behind_the_name_are_no_part_of_it() -> None:
    """Older kernels write two blanks behind the name."""
    text = MASTER_TEXT.replace(b'"res"\n', b'"res"  \n')
    assert parse_queues(text) == parse_queues(MASTER_TEXT)


modes = st.integers(-1, 5)
granted = st.builds(lock, st.integers(1, 2**32 - 1), st.just(LockStatus.GRANTED), modes)
waiting = st.builds(lock, st.integers(1, 2**32 - 1), st.just(LockStatus.WAITING), modes, modes)


@given(
    st.lists(st.tuples(st.binary(max_size=64), st.lists(granted), st.lists(waiting)), max_size=3)
)
def test_every_lock_is_found_on_its_queue(
    resources: list[tuple[bytes, list[LockEntry], list[LockEntry]]],
) -> None:
    """Whatever the names are, locks are read from the queue that they were printed on."""
    entries = [ResourceEntry(name, locks=(*held, *asked)) for name, held, asked in resources]
    read = parse_queues(format_queues(entries))
    assert [(r.granted, r.converting, r.waiting) for r in read] == [
        (
            tuple(QueuedLock(each.lock_id, each.granted_mode) for each in held),
            (),
            tuple(
                QueuedLock(each.lock_id, each.granted_mode, each.requested_mode) for each in asked
            ),
        )
        for _, held, asked in resources
    ]
