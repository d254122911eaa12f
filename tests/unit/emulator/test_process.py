"""One process: its rights, its files, its end."""

from __future__ import annotations

import errno

import pytest

from dlm.emulator import Cluster
from dlm.emulator.process import Process
from dlm.errors import StalledError
from dlm.ports import (
    DeviceWrite,
    ListDirectory,
    MakeDirectory,
    ReadAttribute,
    RemoveDirectory,
    StatPath,
    WriteAttribute,
)
from tests.unit.emulator.helpers import (
    CLUSTER,
    answer,
    headers,
    lock_request,
    one_node,
    refused,
    running_alone,
    set_up,
    start,
    stop,
    submit_create,
    submit_remove,
)


@pytest.fixture
def cluster() -> Cluster:
    """One node, nothing configured."""
    return one_node()


@pytest.fixture
def process(cluster: Cluster) -> Process:
    """A process on it."""
    return cluster.node("nodea").process()


def test_an_ordinary_user_may_read_what_is_public(cluster: Cluster, process: Process) -> None:
    """World-readable attributes are read, everything else is EACCES."""
    running_alone(process)
    user = cluster.node("nodea").process(privileged=False)

    assert user.read_attribute("dlm/test/recover_status") == b"ff\n"
    assert user.list_directory(f"{CLUSTER}/comms") == ["1"]
    for call in (
        lambda: user.write_attribute("dlm/test/control", b"0"),
        lambda: user.write_attribute(f"{CLUSTER}/log_debug", b"1"),
        lambda: user.make_directory(f"{CLUSTER}/comms/2"),
        lambda: user.remove_directory(f"{CLUSTER}/comms/1"),
        lambda: user.open_device("dlm-control"),
        lambda: user.open_device("dlm_test"),
        lambda: user.list_directory("debug/dlm"),
    ):
        with refused(errno.EACCES):
            call()


def test_root_without_the_capability_stores_no_number(cluster: Cluster, process: Process) -> None:
    """Numbers of the cluster need CAP_SYS_ADMIN (EPERM), the cluster's name does not."""
    process.make_directory(CLUSTER)
    weak = cluster.node("nodea").process(capable=False)

    with refused(errno.EPERM):
        weak.write_attribute(f"{CLUSTER}/log_debug", b"rubbish")
    assert weak.write_attribute(f"{CLUSTER}/cluster_name", b"alpha") == 5


def test_devices_that_are_not_there(process: Process) -> None:
    """An unknown name is ENOENT."""
    with refused(errno.ENOENT):
        process.open_device("dlm_none")


def test_every_call_can_be_submitted(process: Process) -> None:
    """A submitted call has the result that the plain one has."""
    assert process.submit(MakeDirectory(CLUSTER)).result() is None
    assert process.submit(WriteAttribute(f"{CLUSTER}/mark", b"7\n")).result() == 2
    assert process.submit(ReadAttribute(f"{CLUSTER}/mark")).result() == b"7\n"
    assert process.submit(ListDirectory("config/dlm")).result() == ["cluster"]
    assert process.submit(StatPath(CLUSTER)).result() == process.stat(CLUSTER)
    assert process.submit(RemoveDirectory(CLUSTER)).result() is None
    with refused(errno.ENOENT):
        process.submit(ReadAttribute(f"{CLUSTER}/mark")).result()


def test_exit_closes_every_file(cluster: Cluster, process: Process) -> None:
    """With the process go its locks: another one can remove the lockspace without force."""
    minor = running_alone(process)
    other = process.spawn_process()
    other.open_device("dlm_test").write(lock_request(b"x"))
    other.open_device("dlm-monitor")
    other.close()
    other.close()
    cluster.settle()
    start(process)  # the monitor's last close has stopped the lockspace
    removing = submit_remove(process, minor, 0)

    assert removing.done(), "without a daemon nobody is asked"
    assert removing.result() == 0


def test_exit_of_a_process_does_not_wait_for_its_closes(cluster: Cluster, process: Process) -> None:
    """While the lockspace is stopped a file's close sleeps on its own; the caller goes on."""
    minor = running_alone(process)
    other = process.spawn_process()
    other.open_device("dlm_test")
    stop(process)
    other.close()
    removing = submit_remove(process, minor)
    assert not removing.wait(1)
    answer(process)
    cluster.settle()

    with refused(errno.ESRCH):
        other.read_attribute("dlm/test/id")
    assert removing.result() == 0, "the recovery thread has gone, and with it what it held off"


def test_a_detached_call_outlives_its_process(cluster: Cluster, process: Process) -> None:
    """Its result is there for whoever kept it."""
    running_alone(process)
    creator = process.spawn_process()
    control = creator.open_device("dlm-control")
    pending = submit_create(creator, "other")
    creator.close()
    answer(process, "other", b"-3")

    with refused(errno.ESRCH):
        pending.result()
    with refused(errno.EBADF):
        control.submit(DeviceWrite(b"")).result()
    cluster.settle()


def test_pids_and_names(cluster: Cluster, process: Process) -> None:
    """Every process has its own id; describe() and local_addresses() say whose it is."""
    other = process.spawn_process()

    assert other.process_id() == process.process_id() + 1
    assert process.describe() == "emulator:nodea"
    assert list(process.local_addresses()) == ["10.0.0.1", "127.0.0.1", "::1"]
    assert process.controller() is None
    cluster.node("nodea").controller = "dlm_controld"
    assert process.controller() == "dlm_controld"


def test_pause_lets_virtual_time_pass(process: Process) -> None:
    """A bounded pause always ends; one without end says when nothing can change."""
    process.pause(3600)
    assert process.now() == 3600

    with pytest.raises(StalledError):
        process.pause(0.1, bounded=False)


def test_a_pause_without_end_is_fine_while_something_moves(
    cluster: Cluster, process: Process
) -> None:
    """Whoever polls without end for something that is coming is left alone."""
    running_alone(process)
    cluster.scheduler.schedule(20, lambda: None)

    for _ in range(10):
        process.pause(1, bounded=False)

    assert process.now() == pytest.approx(10, abs=0.1)


def test_dropped_events_are_lost_without_a_word(cluster: Cluster, process: Process) -> None:
    """While a node drops events, its listeners hear nothing; numbering goes on."""
    set_up(process, 1, [1])
    source = process.uevents()
    cluster.node("nodea").drop_uevents = True
    submit_create(process)
    cluster.node("nodea").drop_uevents = False
    answer(process, result=b"-1")
    cluster.settle()

    (event,) = source.read_nowait()
    assert event.header == "remove@/kernel/dlm/test"
    assert int(dict(event.env)["SEQNUM"]) > 2


def test_waiting_for_an_event(cluster: Cluster, process: Process) -> None:
    """wait() says whether one came; without end and without hope it is stalled."""
    set_up(process, 1, [1])
    source = process.uevents()
    assert not source.wait(1)
    cluster.scheduler.schedule(5, lambda: None)
    with pytest.raises(StalledError):
        source.wait(None)
    submit_create(process)
    assert source.wait(None)
    assert headers(source) == ["add@/kernel/dlm/test", "online@/kernel/dlm/test"]
    source.close()


def test_the_state_directory_is_the_nodes(cluster: Cluster, process: Process) -> None:
    """All processes of a node share it; a crash empties it and changes the boot's id."""
    process.state_directory().write("test", b"1")
    assert process.spawn_process().state_directory().read("test") == b"1"
    before = process.state_directory().boot_id()
    cluster.crash("nodea")
    cluster.restart("nodea")
    after = cluster.node("nodea").process().state_directory()

    assert after.read("test") is None
    assert after.boot_id() != before
    after.remove("test")


def test_the_state_directory_has_one_lock(process: Process) -> None:
    """Whoever wants it while it is held waits; in one thread that is for ever."""
    state = process.state_directory()
    with state.lock():
        other = process.spawn_process().state_directory().lock()
        with pytest.raises(StalledError, match="lock"), other:
            pass
    with state.lock():
        pass
