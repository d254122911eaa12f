"""Create and remove: steps, refusals, waits, and what all lockspaces of a node share."""

from __future__ import annotations

import errno

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.emulator import Cluster
from dlm.emulator.process import Process
from dlm.errors import StalledError
from dlm.ports import DeviceWrite
from dlm.terms import LockspaceFlag, RecoverStatus, ReleaseFlag
from tests.unit.emulator.helpers import (
    CLUSTER,
    add_comm,
    answer,
    headers,
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
    status,
    stop,
    submit_create,
    submit_remove,
    three_nodes,
)


@pytest.fixture
def cluster() -> Cluster:
    """One node, nothing configured."""
    return one_node()


@pytest.fixture
def process(cluster: Cluster) -> Process:
    """A process on it."""
    return cluster.node("nodea").process()


# ---- create -------------------------------------------------------------------------------------


def test_create_waits_for_the_answer_and_the_recovery(process: Process) -> None:
    """Directory and events come at once, the device when both have come, whatever their order."""
    set_up(process, 1, [1])
    set_members(process, [1])
    source = process.uevents()
    pending = submit_create(process)
    assert process.list_directory("dlm") == ["test"]
    assert headers(source) == ["add@/kernel/dlm/test", "online@/kernel/dlm/test"]

    start(process)
    assert not pending.wait(60)
    answer(process)

    assert pending.result() == process.misc_devices()["dlm_test"] == 121
    assert headers(source) == ["add@/devices/virtual/misc/dlm_test"]


def test_an_answer_without_a_start_ends_nothing(process: Process) -> None:
    """event_done alone does not end a create: nobody can recover, so the wait is stalled."""
    set_up(process, 1, [1])
    pending = submit_create(process)
    answer(process)

    with pytest.raises(StalledError, match="create test"):
        pending.result()

    set_members(process, [1])
    start(process)
    assert pending.result() == 121


def test_a_refused_join_leaves_nothing(process: Process) -> None:
    """A negative answer is the errno of create; the directory goes, and so do the comms."""
    set_up(process, 1, [1])
    source = process.uevents()
    pending = submit_create(process)
    answer(process, result=b"-5")

    with refused(errno.EIO):
        pending.result()

    assert process.list_directory("dlm") == []
    assert headers(source)[2:] == ["remove@/kernel/dlm/test"]
    assert process.write_attribute(f"{CLUSTER}/tcp_port", b"21065") == 5, "comms do not run"


def test_a_positive_answer_is_success(process: Process) -> None:
    """Any answer from 0 up lets the join go on."""
    set_up(process, 1, [1])
    set_members(process, [1])
    pending = submit_create(process)
    answer(process, result=b"7")
    start(process)

    assert pending.result() == 121


def test_a_stop_during_the_first_recovery_keeps_create_waiting(cluster: Cluster) -> None:
    """A recovery that was interrupted is none: the next start's counts."""
    process = cluster.node("nodea").process()
    set_up(process, 1, [1, 2])
    set_members(process, [1, 2])
    pending = submit_create(process)
    answer(process)
    start(process)
    assert not pending.wait(10), "node 2 is away"
    stop(process)
    assert not pending.wait(10)
    set_members(process, [1])
    start(process)

    assert pending.result() == 121


@pytest.mark.parametrize(("kernel", "returns"), [("5.10", True), ("6.1", False), ("7.2", False)])
def test_what_a_create_waits_for(kernel: str, returns: bool) -> None:
    """For the end of the first recovery; in 5.10 until every member has answered once."""
    cluster = three_nodes(kernel=kernel)
    first, second = (cluster.node(name).process() for name in ("nodea", "nodeb"))
    for number, each in enumerate((first, second), 1):
        set_up(each, number, [1, 2])
        set_members(each, [1, 2])
    creating = submit_create(first)
    submit_create(second)
    start(first)
    answer(first)

    first.pause(2.0)

    assert creating.done() == returns
    assert status(first) != "ff"


def create_after(process: Process, *steps: str) -> object:
    """Take steps of a configuration, then create; return its result."""
    doing = {
        "cluster": lambda: process.make_directory(CLUSTER),
        "comm": lambda: process.make_directory(f"{CLUSTER}/comms/1"),
        "nodeid": lambda: process.write_attribute(f"{CLUSTER}/comms/1/nodeid", b"1"),
        "addr": lambda: process.write_attribute(
            f"{CLUSTER}/comms/1/addr", encode_sockaddr("10.0.0.1")
        ),
        "foreign addr": lambda: process.write_attribute(
            f"{CLUSTER}/comms/1/addr", encode_sockaddr("10.0.0.9")
        ),
        "unix addr": lambda: process.write_attribute(
            f"{CLUSTER}/comms/1/addr", b"\x01\0".ljust(128, b"\0")
        ),
        "no addr": lambda: process.write_attribute(f"{CLUSTER}/comms/1/addr", bytes(128)),
        "local": lambda: process.write_attribute(f"{CLUSTER}/comms/1/local", b"1"),
    }
    for step in steps:
        doing[step]()
    return submit_create(process).result()


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        ((), errno.ENOTCONN),
        (("cluster", "comm", "nodeid", "addr"), errno.ENOTCONN),
        (("cluster", "comm", "nodeid", "local"), errno.ENOTCONN),
        (("cluster", "comm", "nodeid", "foreign addr", "local"), errno.EADDRNOTAVAIL),
        (("cluster", "comm", "nodeid", "unix addr", "local"), errno.EPROTONOSUPPORT),
        (("cluster", "comm", "nodeid", "no addr", "local"), errno.EAFNOSUPPORT),
    ],
)
def test_the_first_create_needs_an_address(
    process: Process, steps: tuple[str, ...], number: int
) -> None:
    """Without a local comm, or without an address of this machine in it, there are no comms."""
    with refused(number):
        create_after(process, *steps)

    assert process.list_directory("dlm") == []


@pytest.mark.parametrize(("kernel", "number"), [("5.10", errno.EINVAL), ("6.1", 0)])
def test_a_second_local_address(kernel: str, number: int) -> None:
    """5.10 takes no two with TCP, and never forgets that there were two; later ones use one."""
    process = one_node(kernel=kernel).node("nodea").process()
    set_up(process, 1, [1])
    comm = f"{CLUSTER}/comms/1"
    process.write_attribute(f"{comm}/addr", encode_sockaddr("10.0.0.2"))
    for _ in range(2):
        pending = submit_create(process)
        if number:
            with refused(number):
                pending.result()
        else:
            answer(process, result=b"-5")
            with refused(errno.EIO):
                pending.result()
        process.remove_directory(comm)
        add_comm(process, 1, "10.0.0.1", local=True)


@pytest.mark.parametrize("name", ["", "n" * 65])
def test_lockspace_names_have_1_to_64_bytes(process: Process, name: str) -> None:
    """Other lengths are EINVAL, after the comms were started and are stopped again."""
    set_up(process, 1, [1])

    with refused(errno.EINVAL):
        submit_create(process, name).result()

    assert process.write_attribute(f"{CLUSTER}/tcp_port", b"21065") == 5


def test_create_of_what_exists_counts(process: Process) -> None:
    """A second create returns the minor, no event; NEWEXCL refuses it; removes count down."""
    minor = running_alone(process)
    source = process.uevents()

    assert submit_create(process).result() == minor
    with refused(errno.EEXIST):
        submit_create(process, flags=LockspaceFlag.NEWEXCL).result()
    assert submit_remove(process, minor, 0).result() == 0

    assert headers(source) == []
    assert "dlm_test" in process.misc_devices()


def test_two_names_with_one_directory_cannot_be(process: Process) -> None:
    """a/b and a!b would have the same directory in sysfs: EEXIST."""
    set_up(process, 1, [1])
    first = submit_create(process, "a/b")
    answer(process, "a!b", b"-1")
    with refused(errno.EPERM):
        first.result()
    join_alone(process, "a!b")

    with refused(errno.EEXIST):
        submit_create(process, "a/b").result()


@pytest.mark.parametrize(("kernel", "refuses"), [("6.1", False), ("6.12", True), ("7.2", True)])
def test_flag_0x10_is_the_kernels_own_since_6_11(kernel: str, refuses: bool) -> None:
    """Later kernels refuse the flag before anything else is looked at."""
    process = one_node(kernel=kernel).node("nodea").process()
    number = errno.EINVAL if refuses else errno.ENOTCONN

    with refused(number):
        submit_create(process, flags=0x10).result()


# ---- one mutex ----------------------------------------------------------------------------------


def test_while_one_joins_every_other_create_and_remove_waits(process: Process) -> None:
    """The mutex lets nobody begin: no directory is made, no device goes; then they go in order."""
    minor = running_alone(process, "old")
    first = submit_create(process, "first")
    second = submit_create(process, "second")
    removing = submit_remove(process, minor)
    assert process.list_directory("dlm") == ["first", "old"]
    assert "dlm_old" in process.misc_devices()

    answer(process, "first", b"-1")
    with refused(errno.EPERM):
        first.result()
    assert process.list_directory("dlm") == ["old", "second"]
    answer(process, "second", b"-2")
    with refused(errno.ENOENT):
        second.result()
    assert not removing.wait(1)
    assert "dlm_old" not in process.misc_devices()
    answer(process, "old")

    assert removing.result() == 0


def test_a_killed_creator_finishes_the_creation(cluster: Cluster, process: Process) -> None:
    """A call that sleeps uninterruptibly goes on when its process, and its holder, are gone."""
    set_up(process, 1, [1])
    set_members(process, [1])
    creator = process.spawn_process()
    pending = submit_create(creator)
    pending.close()
    creator.close()
    start(process)
    answer(process)
    cluster.settle()

    assert "dlm_test" in process.misc_devices()


# ---- remove -------------------------------------------------------------------------------------


def test_remove_waits_for_the_answer_and_for_every_file(process: Process) -> None:
    """The device goes first; open files stay usable until they are closed; then all goes."""
    minor = running_alone(process)
    file = process.open_device("dlm_test")
    source = process.uevents()
    pending = submit_remove(process, minor)
    assert "dlm_test" not in process.misc_devices()
    assert headers(source) == [
        "remove@/devices/virtual/misc/dlm_test",
        "offline@/kernel/dlm/test",
    ]
    with refused(errno.ENOENT):
        process.open_device("dlm_test")
    answer(process, result=b"-9")
    assert not pending.wait(5)
    assert status(process) == "ff"
    assert file.write(lock_request(b"x")) > 0
    assert len(results(file)) == 1
    file.close()

    assert pending.result() == 0
    assert process.list_directory("dlm") == []
    assert headers(source) == ["remove@/kernel/dlm/test"]


@pytest.mark.parametrize(
    ("kernel", "seconds"), [("5.10", 0), ("6.1", 180), ("6.12", 5), ("7.2", 5)]
)
def test_the_last_remove_waits_for_the_others_to_let_go(kernel: str, seconds: int) -> None:
    """Until they have recovered without this node, or each for 3 minutes; 5 seconds since 6.12."""
    cluster = three_nodes(kernel=kernel)
    _, _, third = running_together(cluster)
    minor = third.misc_devices()["dlm_test"]

    began = cluster.now()
    removing = submit_remove(third, minor)
    answer(third)
    third.pause(1.0)
    assert removing.done() == (seconds == 0)
    removing.result()
    assert cluster.now() - began == pytest.approx(2 * seconds, abs=1.5)


@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
def test_the_last_remove_ends_when_the_others_have_let_go(kernel: str) -> None:
    """Recovered without this node, or with its comm removed, they hold nothing up."""
    cluster = three_nodes(kernel=kernel)
    first, second, third = running_together(cluster)
    removing = submit_remove(third, third.misc_devices()["dlm_test"])
    answer(third)
    third.pause(0.1)
    assert third.read_attribute("debug/dlm/comms/1/state") == b"FIN_WAIT2\n"
    assert first.read_attribute("debug/dlm/comms/3/state") == b"CLOSE_WAIT\n"
    for process in (first, second):
        stop(process)
        set_members(process, [1, 2])
    for process in (first, second):
        start(process)

    third.pause(2.0)

    assert removing.done()
    assert removing.result() == 0


def test_a_remove_beside_another_lockspace_waits_for_nobody() -> None:
    """Only the last lockspace closes the connections."""
    first, _, _ = running_together(three_nodes())
    join_alone(first, "more")

    minor = first.misc_devices()["dlm_test"]
    removing = submit_remove(first, minor)
    answer(first)

    first.pause(0.1)
    assert removing.done()


def test_a_leave_lets_go_of_who_waits_for_a_start(process: Process) -> None:
    """The thread that holds locking off ends, and with it the wait of a close or a request.

    Linux 6.1 fs/dlm/recoverd.c, dlm_recoverd(); seen on 7.2.
    """
    minor = running_alone(process)
    file = process.open_device("dlm_test")
    stop(process)
    waiting = file.submit(DeviceWrite(lock_request(b"a")), detached=True)
    removing = submit_remove(process, minor)
    process.pause(1.0)
    assert not waiting.done()

    answer(process)

    assert waiting.result() == 1
    assert file.write(lock_request(b"b")) == 2
    file.close()
    assert removing.result() == 0


@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
def test_a_lockspace_whose_device_is_there_already_goes_again(kernel: str) -> None:
    """It joins, cannot have its device, leaves, which is to be answered, too, and is EEXIST."""
    process = one_node(kernel=kernel).node("nodea").process()
    set_up(process, 1, [1])
    set_members(process, [1], "plock")
    pending = submit_create(process, "plock")
    start(process, "plock")
    answer(process, "plock")
    process.pause(1.0)
    assert not pending.done()
    assert process.list_directory("dlm") == ["plock"]

    answer(process, "plock")

    with refused(errno.EEXIST):
        pending.result()
    assert process.list_directory("dlm") == []
    assert set(process.misc_devices()) == {"dlm-control", "dlm-monitor", "dlm_plock"}


def test_an_early_answer_is_remembered_for_the_next_wait(process: Process) -> None:
    """A second event_done after the join makes the remove return at once."""
    minor = running_alone(process)
    answer(process)

    assert submit_remove(process, minor).done()


def test_remove_of_a_minor_that_no_lockspace_has(process: Process) -> None:
    """0, dlm-control's own minor and any other number are ENOENT."""
    running_alone(process)

    for minor in (0, process.misc_devices()["dlm-control"], 17):
        with refused(errno.ENOENT):
            submit_remove(process, minor).result()


def test_remove_while_locks_exist_needs_forcefree(process: Process) -> None:
    """A held lock is EBUSY without the flag, before anything has happened."""
    minor = running_alone(process)
    file = process.open_device("dlm_test")
    file.write(lock_request(b"x"))

    with refused(errno.EBUSY):
        submit_remove(process, minor, 0).result()

    assert "dlm_test" in process.misc_devices()
    removing = submit_remove(process, minor, ReleaseFlag.FORCEFREE)
    assert "dlm_test" not in process.misc_devices()
    answer(process)
    file.close()
    assert removing.result() == 0


def test_a_remove_that_comes_too_late(process: Process) -> None:
    """A second remove waits behind the first, and then there is no such lockspace: EINVAL."""
    minor = running_alone(process)
    source = process.uevents()
    first, second = submit_remove(process, minor), submit_remove(process, minor)
    answer(process)

    assert first.result() == 0
    with refused(errno.EINVAL):
        second.result()
    assert headers(source).count("offline@/kernel/dlm/test") == 1


@pytest.mark.parametrize(
    ("kernel", "keys"),
    [
        ("6.1", ["ACTION", "DEVPATH", "SUBSYSTEM", "LOCKSPACE", "SEQNUM"]),
        ("7.2", ["ACTION", "DEVPATH", "SUBSYSTEM", "RELEASE_RECOVER", "LOCKSPACE", "SEQNUM"]),
    ],
)
def test_keys_of_the_offline_event(kernel: str, keys: list[str]) -> None:
    """Since 6.18 it says whether the leave counts as a failure."""
    process = one_node(kernel=kernel).node("nodea").process()
    minor = running_alone(process)
    source = process.uevents()
    submit_remove(process, minor)

    events = {event.header: event.env for event in source.read_nowait()}

    assert [key for key, _ in events["offline@/kernel/dlm/test"]] == keys


def test_a_removed_minor_is_given_again(process: Process) -> None:
    """The lowest free place in the kernel's direction is taken first."""
    first = running_alone(process, "first")
    second = join_alone(process, "second")
    assert (first, second) == (121, 120)
    removing = submit_remove(process, first)
    answer(process, "first")
    removing.result()

    assert join_alone(process, "third") == 121


@pytest.mark.parametrize(
    ("kernel", "minors"),
    [
        ("5.10", {"dlm_test": 58, "dlm_plock": 59, "dlm-monitor": 60, "dlm-control": 61}),
        ("6.1", {"dlm_test": 121, "dlm_plock": 122, "dlm-monitor": 123, "dlm-control": 124}),
        ("6.12", {"dlm_test": 263, "dlm_plock": 262, "dlm-monitor": 261, "dlm-control": 260}),
        ("7.2", {"dlm_test": 263, "dlm_plock": 262, "dlm-monitor": 261, "dlm-control": 260}),
    ],
)
def test_minors_by_kernel(kernel: str, minors: dict[str, int]) -> None:
    """Where dynamic minors begin and which way they go differs between kernels."""
    process = one_node(kernel=kernel).node("nodea").process()
    running_alone(process)

    assert process.misc_devices() == minors
    assert list(process.misc_devices()) == list(minors), "newest first, as /proc/misc"


# ---- the daemon ---------------------------------------------------------------------------------


def test_a_monitor_that_was_closed_stops_and_refuses(cluster: Cluster, process: Process) -> None:
    """After the last close of dlm-monitor lockspaces are stopped and creates are EUNATCH."""
    running_alone(process)
    first, second = process.open_device("dlm-monitor"), process.open_device("dlm-monitor")
    first.close()
    assert status(process) == "ff"
    join_alone(process, "stopped")
    stop(process, "stopped")
    second.close()
    assert status(process) == "0"
    log = cluster.node("nodea").log()
    assert "dlm: test: no userland control daemon, stopping lockspace" in log
    assert "dlm: stopped: no userland control daemon, stopping lockspace" not in log
    with refused(errno.EUNATCH):
        submit_create(process, "other").result()
    start(process)
    assert status(process) == "ff"

    process.open_device("dlm-monitor")
    join_alone(process, "other")


def test_without_a_daemon_a_remove_does_not_ask(process: Process) -> None:
    """No offline event, no wait."""
    minor = running_alone(process)
    process.open_device("dlm-monitor").close()
    start(process)
    source = process.uevents()

    assert submit_remove(process, minor).result() == 0

    assert "offline@/kernel/dlm/test" not in headers(source)


# ---- start --------------------------------------------------------------------------------------


def test_a_start_that_can_do_nothing_succeeds(cluster: Cluster, process: Process) -> None:
    """No space, no members, or running already: the write succeeds and the log tells."""
    set_up(process, 1, [1])
    submit_create(process)
    start(process)
    process.make_directory(f"{CLUSTER}/spaces/test")
    start(process)
    assert status(process) == "0"
    assert "dlm: zero members_count" in cluster.node("nodea").log()
    set_members(process, [1])
    start(process)
    assert status(process) == "ff"

    start(process)

    assert status(process) == "ff"
    assert "dlm: test: start ignored: lockspace running" in cluster.node("nodea").log()


def test_a_member_lost_without_a_trace_fails_the_start_since_6_18() -> None:
    """With the space made anew, a member that is not there was never seen to go: EFAULT inside."""
    cluster = one_node(kernel="7.2")
    process = cluster.node("nodea").process()
    set_up(process, 1, [1, 2])
    set_members(process, [1, 2])
    pending = submit_create(process)
    start(process)
    stop(process)
    for name in ("nodes/1", "nodes/2", ""):
        process.remove_directory(f"{CLUSTER}/spaces/test/{name}")
    set_members(process, [1])
    start(process)
    answer(process)
    assert not pending.wait(1), "the failed join asks a second time"
    answer(process)

    with refused(errno.EFAULT):
        pending.result()

    assert "dlm: test: remove member 2 invalid" in cluster.node("nodea").log()


def test_a_member_that_was_removed_does_not_fail_the_start() -> None:
    """A node directory that was removed is remembered until the next start."""
    process = one_node(kernel="7.2").node("nodea").process()
    set_up(process, 1, [1, 2])
    set_members(process, [1, 2])
    pending = submit_create(process)
    start(process)
    stop(process)
    set_members(process, [1])
    start(process)
    answer(process)

    assert pending.result() == 263


# ---- between nodes ------------------------------------------------------------------------------


def three_nodes_with_ids(ids: list[int]) -> tuple[list[Process], Cluster]:
    """Let three nodes join with these ids, and ten seconds pass."""
    cluster = Cluster({"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"})
    processes = [node.process() for node in cluster.nodes]
    for number, process in enumerate(processes, 1):
        set_up(process, number)
        set_members(process, (1, 2, 3))
        submit_create(process)
        process.write_attribute("dlm/test/id", b"%d" % ids[number - 1])
    for process in processes:
        start(process)
        answer(process)
    cluster.advance(10)
    return processes, cluster


def test_messages_go_to_the_lockspace_with_their_id() -> None:
    """The receiver looks for the id that the sender's lockspace had; another one is not found."""
    processes, _ = three_nodes_with_ids([5, 5, 6])

    assert not any(int(status(process), 16) & RecoverStatus.DONE for process in processes)


def test_equal_ids_let_a_lockspace_start() -> None:
    """With one id everywhere the three recover."""
    processes, _ = three_nodes_with_ids([7, 7, 7])

    assert [status(process) for process in processes] == ["ff", "55", "55"]


def test_a_node_whose_comm_is_missing_holds_the_recovery_up() -> None:
    """Two of three know each other; the start ends when the third is set everywhere."""
    cluster = Cluster({"nodea": "10.0.0.1", "nodeb": "10.0.0.2"})
    first, second = (node.process() for node in cluster.nodes)
    set_up(first, 1, [1])
    set_up(second, 2, [1, 2])
    for process in (first, second):
        set_members(process, [1, 2])
        submit_create(process)
        start(process)
        answer(process)
    cluster.settle()
    assert int(status(first), 16) & RecoverStatus.DONE == 0
    add_comm(first, 2, "10.0.0.2")
    cluster.settle()

    assert (status(first), status(second)) == ("ff", "55")


def test_three_nodes_come_up() -> None:
    """The lowest node ends with all bits, the others with theirs."""
    processes = running_together(
        Cluster({"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"})
    )

    assert [status(process) for process in processes] == ["ff", "55", "55"]
