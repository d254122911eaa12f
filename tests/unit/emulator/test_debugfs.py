"""The lists under debug/dlm: what stands in which column, and when files are there."""

from __future__ import annotations

import errno

import pytest

from dlm.abi.debugfs import parse_all, parse_locks, parse_toss, parse_waiters
from dlm.emulator.process import Process
from dlm.terms import LockFlag, LockStatus
from tests.unit.emulator.helpers import (
    CR,
    EX,
    NL,
    PR,
    add_comm,
    answer,
    join_alone,
    lock_request,
    one_node,
    refused,
    results,
    running_alone,
    running_together,
    set_members,
    set_up,
    start,
    stop,
    submit_create,
    submit_remove,
    three_nodes,
    unlock_request,
)


@pytest.fixture
def process() -> Process:
    """A process on a node with a lockspace that runs."""
    process = one_node().node("nodea").process()
    running_alone(process)
    return process


def test_files_come_with_the_end_of_create_and_go_with_the_lockspace() -> None:
    """The directory comms is there from the module's load; a joining lockspace has no files yet."""
    process = one_node().node("nodea").process()
    assert process.list_directory("debug/dlm") == ["comms"]
    set_up(process, 1, [1])
    set_members(process, [1])
    pending = submit_create(process)
    assert process.list_directory("debug/dlm") == ["comms"]
    start(process)
    answer(process)
    minor = pending.result()
    files = ["test", "test_all", "test_locks", "test_toss", "test_waiters"]
    assert process.list_directory("debug/dlm") == ["comms", *files]
    assert [process.read_attribute(f"debug/dlm/{name}") for name in files] == [b""] * 5
    answer(process)

    assert submit_remove(process, minor).result() == 0

    assert process.list_directory("debug/dlm") == ["comms"]


def test_a_lock_in_every_list(process: Process) -> None:
    """_all, _locks and the list for people show one granted and one waiting lock."""
    file = process.open_device("dlm_test")
    first = file.write(lock_request(b"one", PR, LockFlag.VALBLK))
    process.pause(1.5)
    second = file.write(lock_request(b"one", EX))

    (resource,) = parse_all(process.read_attribute("debug/dlm/test_all"))
    assert (resource.name, resource.nodeid) == (b"one", 0)
    granted, waiting = resource.locks
    assert (granted.lock_id, granted.status, granted.granted_mode) == (first, 2, PR)
    assert (granted.pid, granted.exflags) == (process.process_id(), int(LockFlag.VALBLK))
    assert (waiting.lock_id, waiting.status, waiting.requested_mode) == (second, 1, EX)
    assert waiting.granted_mode == -1
    lines = parse_locks(process.read_attribute("debug/dlm/test_locks"))
    assert [(line.lock_id, LockStatus(line.status)) for line in lines] == [
        (first, LockStatus.GRANTED),
        (second, LockStatus.WAITING),
    ]
    assert [line.queued_us for line in lines] == [1500000, 0]
    text = process.read_attribute("debug/dlm/test")
    assert b'Name (len=3) "one"\nMaster Copy\n' in text
    assert (
        b"Granted Queue\n%08x PR\nConversion Queue\nWaiting Queue\n%08x -- (EX)\n"
        % (
            first,
            second,
        )
        in text
    )


def test_unused_resources_are_listed_until_they_are_freed(process: Process) -> None:
    """_toss shows the name and the jiffy, for toss_secs and until the next scan."""
    file = process.open_device("dlm_test")
    process.pause(4)
    lock_id = file.write(lock_request(b"gone"))
    file.write(unlock_request(lock_id))
    assert len(results(file)) == 2

    (entry,) = parse_toss(process.read_attribute("debug/dlm/test_toss"))
    assert (entry.name, entry.master_nodeid, entry.our_nodeid) == (b"gone", 1, 1)
    assert entry.toss_time == 2**32 - 75000 + 1000
    assert process.read_attribute("debug/dlm/test_all") == b""
    process.pause(20)
    assert process.read_attribute("debug/dlm/test_toss") == b""


def test_a_lock_that_waits_for_a_reply_is_a_waiter() -> None:
    """Between request and reply the lock stands in _waiters with the message's type."""
    cluster = three_nodes()
    processes = running_together(cluster)
    cluster.partition("nodea", "nodeb")
    cluster.partition("nodea", "nodec")
    file = processes[0].open_device("dlm_test")
    for name in (b"a", b"b", b"c", b"d"):
        file.write(lock_request(name, CR))

    waiters = parse_waiters(processes[0].read_attribute("debug/dlm/test_waiters"))

    assert waiters, "one of four names has its directory entry elsewhere"
    assert {waiter.wait_type for waiter in waiters} == {11}
    assert {waiter.nodeid for waiter in waiters} == {-1}


def test_copies_name_each_other() -> None:
    """A master copy names its holder's lock and the process copy the master's."""
    cluster = three_nodes()
    processes = running_together(cluster)
    ids = []
    for process in processes:
        ids.append(process.open_device("dlm_test").write(lock_request(b"shared", NL)))
        cluster.settle()

    entries = [parse_all(process.read_attribute("debug/dlm/test_all"))[0] for process in processes]

    assert [entry.nodeid for entry in entries] == [0, 1, 1], "the first to lock masters it"
    seen = {(lock.nodeid, lock.remote_id) for lock in entries[0].locks}
    assert seen == {(0, 0), (2, ids[1]), (3, ids[2])}
    masters_ids = {lock.nodeid: lock.lock_id for lock in entries[0].locks}
    for number in (1, 2):
        (copy,) = entries[number].locks
        assert (copy.nodeid, copy.remote_id) == (1, masters_ids[number + 1])


@pytest.mark.parametrize(
    ("kernel", "before", "after"),
    [("5.10", None, None), ("6.1", [], ["2", "3"]), ("6.12", ["1", "2", "3"], ["1", "2", "3"])],
)
def test_connections(kernel: str, before: list[str] | None, after: list[str] | None) -> None:
    """A node's directory comes with the first message (6.1) or the first address (6.6)."""
    cluster = three_nodes(kernel=kernel)
    first = cluster.node("nodea").process()
    set_up(first, 1)
    path = "debug/dlm/comms"
    if before is None or after is None:
        with refused(errno.ENOENT):
            first.list_directory(path)
        return
    assert first.list_directory(path) == before
    cluster = three_nodes(kernel=kernel)
    first = running_together(cluster)[0]
    assert first.list_directory(path) == after
    assert first.read_attribute(f"{path}/2/state") == b"ESTABLISHED\n"
    assert first.read_attribute(f"{path}/2/version") == b"0x00030002\n"
    assert first.read_attribute(f"{path}/2/flags") == b"0\n"
    # Since 6.5 nobody acknowledges few messages; these are NAMES and a NAMES_REPLY.
    kept = b"2\n" if kernel == "6.12" else b"0\n"
    assert first.read_attribute(f"{path}/2/send_queue_count") == kept
    assert first.stat(f"{path}/2/rawmsg").mode & 0o777 == 0o200
    with refused(errno.EACCES):
        first.write_attribute(f"{path}/2/rawmsg", bytes(16))
    first.remove_directory("config/dlm/cluster/comms/2")
    if kernel == "6.12":  # the directory goes with the comm
        assert first.list_directory(path) == ["1", "3"]
        return
    assert first.read_attribute(f"{path}/2/state") == b"CLOSED\n"
    assert first.read_attribute(f"{path}/2/version") == b"0x00000000\n"


@pytest.mark.parametrize(("kernel", "left"), [("6.1", []), ("6.12", ["1", "2", "3"])])
def test_connections_of_a_node_without_lockspaces(kernel: str, left: list[str]) -> None:
    """With the last lockspace go the connections' directories (6.1), and come again with the next.

    Since 6.6 they stay until the address goes. Seen on two guests of 6.1.
    """
    processes = running_together(three_nodes(kernel=kernel))
    leaves = [submit_remove(each, each.misc_devices()["dlm_test"]) for each in processes]
    for process in processes:
        answer(process)
    for leave in leaves:
        leave.result()

    assert [each.list_directory("debug/dlm/comms") for each in processes] == [left] * 3

    creates = [submit_create(each) for each in processes]
    for process in processes:
        start(process)
        answer(process)
    for create in creates:
        create.result()
    assert processes[0].list_directory("debug/dlm/comms")[-2:] == ["2", "3"]


@pytest.mark.parametrize(
    ("kernel", "before", "after"),
    [("6.1", ["2", "3"], []), ("6.12", ["1", "2", "3"], ["1", "2", "3"])],
)
def test_connections_to_members_that_were_never_heard_of(
    kernel: str, before: list[str], after: list[str]
) -> None:
    """A member's connection is ESTABLISHED from the start that names it, until its comm goes."""
    path = "debug/dlm/comms"
    process = set_up(three_nodes(kernel=kernel).node("nodea").process(), 1)
    minor = join_alone(process)
    set_members(process, [1, 2, 3])
    stop(process)
    start(process)
    assert process.list_directory(path) == before
    assert process.read_attribute(f"{path}/3/state") == b"ESTABLISHED\n"
    assert process.read_attribute(f"{path}/2/send_queue_count") == b"0\n"
    set_members(process, [1])
    stop(process)
    start(process)
    assert process.read_attribute(f"{path}/3/state") == b"ESTABLISHED\n"
    process.remove_directory("config/dlm/cluster/comms/3")
    add_comm(process, 3, "10.0.0.3")
    assert process.read_attribute(f"{path}/3/state") == b"CLOSED\n"
    answer(process)

    submit_remove(process, minor).result()

    assert process.list_directory(path) == after
    for each in after:
        assert process.read_attribute(f"{path}/{each}/state") == b"CLOSED\n"


def test_files_whose_names_are_taken() -> None:
    """A lockspace does without: what is there stays what it is, also when the lockspace goes."""
    process = one_node().node("nodea").process()
    minor = running_alone(process, "comms")
    join_alone(process, "comms_all")

    assert process.list_directory("debug/dlm/comms") == []
    assert process.read_attribute("debug/dlm/comms_all") == b""
    answer(process, "comms")
    submit_remove(process, minor).result()

    files = ("", "_all", "_locks", "_toss", "_waiters")
    assert process.list_directory("debug/dlm") == [
        "comms",
        *(f"comms_all{each}" for each in files[1:]),
    ]


@pytest.mark.parametrize(("kernel", "suffix"), [("6.1", "_waiter"), ("6.12", "_waiters")])
def test_the_longest_name(kernel: str, suffix: str) -> None:
    """Up to 6.5 the last letter of a file's name has no room."""
    process = one_node(kernel=kernel).node("nodea").process()
    running_alone(process, "n" * 64)

    assert process.read_attribute(f"debug/dlm/{'n' * 64}{suffix}") == b""
    assert f"{'n' * 64}_locks" in process.list_directory("debug/dlm")


def test_waiters_of_a_stopped_lockspace_since_6_10() -> None:
    """EAGAIN while in recovery; before that the list is shown."""
    for kernel, refuses in (("6.1", False), ("6.12", True)):
        process = one_node(kernel=kernel).node("nodea").process()
        running_alone(process)
        stop(process)
        if refuses:
            with refused(errno.EAGAIN):
                process.read_attribute("debug/dlm/test_waiters")
        else:
            assert process.read_attribute("debug/dlm/test_waiters") == b""


def test_flags_of_resources_since_6_10() -> None:
    """Plain resources show 200, unused ones 300."""
    process = one_node(kernel="6.12").node("nodea").process()
    running_alone(process)
    file = process.open_device("dlm_test")
    lock_id = file.write(lock_request(b"a"))
    (resource,) = parse_all(process.read_attribute("debug/dlm/test_all"))
    assert resource.flags == 0x200
    file.write(unlock_request(lock_id))

    (entry,) = parse_toss(process.read_attribute("debug/dlm/test_toss"))

    assert entry.flags == 0x300


@pytest.mark.parametrize(("kernel", "names"), [("6.1", b"5 2 1"), ("6.12", b"5 1 2")])
def test_unused_resources_come_by_bucket_or_newest_first(kernel: str, names: bytes) -> None:
    """_toss is in the order of the hash table up to 6.9, since 6.10 the last used comes first."""
    process = one_node(kernel=kernel).node("nodea").process()
    running_alone(process)
    file = process.open_device("dlm_test")
    for name in (b"n2", b"n1", b"n5"):
        file.write(unlock_request(file.write(lock_request(name))))
    results(file)

    entries = parse_toss(process.read_attribute("debug/dlm/test_toss"))

    assert [entry.name for entry in entries] == [b"n" + digit for digit in names.split()]


@pytest.mark.parametrize(("kernel", "before", "after"), [("6.1", 0, 3), ("6.12", -1, 3)])
def test_the_mode_of_the_last_blocking_ast(kernel: str, before: int, after: int) -> None:
    """_all shows 0 up to 6.9, -1 since 6.10, for a lock that never was told that it blocks."""
    process = one_node(kernel=kernel).node("nodea").process()
    running_alone(process)
    file = process.open_device("dlm_test")
    file.write(lock_request(b"a"))
    results(file)

    def shown() -> int:
        return parse_all(process.read_attribute("debug/dlm/test_all"))[0].locks[0].bast_mode

    assert shown() == before
    file.write(lock_request(b"a", PR))
    results(file)
    assert shown() == after


@pytest.mark.parametrize(("kernel", "scan_secs"), [("6.1", b"1"), ("6.12", b"60"), ("7.2", b"60")])
def test_unused_resources_go(kernel: str, scan_secs: bytes) -> None:
    """After toss_secs a scan frees them up to 6.9; since 6.10 they go when they are due."""
    process = one_node(kernel=kernel).node("nodea").process()
    set_up(process, 1, [1])
    process.write_attribute("config/dlm/cluster/toss_secs", b"2")
    process.write_attribute("config/dlm/cluster/scan_secs", scan_secs)
    join_alone(process)
    file = process.open_device("dlm_test")
    file.write(unlock_request(file.write(lock_request(b"a"))))
    results(file)

    process.pause(1.5)
    assert process.read_attribute("debug/dlm/test_toss")
    process.pause(2.0)
    assert not process.read_attribute("debug/dlm/test_toss")
