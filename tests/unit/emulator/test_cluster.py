"""A cluster from outside: its nodes, their power, modules and mounts, its trace."""

from __future__ import annotations

import errno

import pytest

from dlm.emulator import Cluster
from dlm.ports import DeviceRead, OpenFlags
from tests.unit.emulator.helpers import (
    ADDRESSES,
    CLUSTER,
    CR,
    EX,
    NAMES,
    add_comm,
    answer,
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
    three_nodes,
    unlock_request,
)


def test_nodes_by_name() -> None:
    """Nodes keep the order in which they were named."""
    cluster = Cluster({"b": ["10.0.0.2", "10.1.0.2"], "a": "10.0.0.1"})

    assert [node.name for node in cluster.nodes] == ["b", "a"]
    assert cluster.node("b").addresses == ("10.0.0.2", "10.1.0.2")
    with pytest.raises(KeyError):
        cluster.node("c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": {"a": "10.0.0.1"}, "kernel": "2.6"}, "unknown kernel"),
        ({"nodes": {"a": "10.0.0.1"}, "abi": "june"}, "unknown dialect"),
        ({"nodes": {"a": "10.0.0.1", "b": "10.0.0.1"}}, "both a and b"),
    ],
)
def test_what_a_cluster_cannot_be(arguments: dict[str, object], message: str) -> None:
    """Unknown kernels and dialects and shared addresses are refused."""
    with pytest.raises(ValueError, match=message):
        Cluster(**arguments)  # type: ignore[arg-type]


def test_a_crash_forgets_everything() -> None:
    """After power comes back the module is loaded, configfs mounted, and nothing configured."""
    cluster = one_node()
    node = cluster.node("nodea")
    process = node.process()
    running_alone(process)
    node.controller = "dlm_controld"
    cluster.crash("nodea")
    assert not node.up
    with refused(errno.EIO):
        process.read_attribute("dlm/test/id")
    with refused(errno.EIO):
        node.process()
    with pytest.raises(ValueError, match="down already"):
        cluster.crash("nodea")
    cluster.restart("nodea")

    again = node.process()
    assert again.list_directory("config/dlm") == again.list_directory("dlm") == []
    assert sorted(again.misc_devices()) == ["dlm-control", "dlm-monitor", "dlm_plock"]
    assert node.controller is None
    assert node.log() == ()
    with pytest.raises(ValueError, match="is up"):
        cluster.restart("nodea")
    running_alone(again)


def test_nothing_happens_on_a_node_that_is_down() -> None:
    """Timers, sleeping calls and closes of a node that lost power are no more."""
    cluster = three_nodes(keep_trace=True)
    processes = running_together(cluster)
    file = processes[0].open_device("dlm_test", flags=OpenFlags.RDWR)
    lock_id = file.write(lock_request(b"x"))
    cluster.settle()
    assert file.read(104)
    file.write(unlock_request(lock_id))
    cluster.settle()
    assert file.read(104)
    reading = file.submit(DeviceRead(104))
    file.close()
    cluster.crash("nodea")
    with refused(errno.EIO):
        reading.result()
    cluster.advance(60)

    lines = [line.split(maxsplit=1)[1] for line in cluster.trace()]
    after = lines[lines.index("crash of nodea") :]
    assert not [line for line in after if line.startswith("nodea")]


def test_a_module_that_is_not_there() -> None:
    """Without the module neither trees nor devices exist; loading brings them back, empty."""
    node = one_node().node("nodea")
    process = node.process()
    process.make_directory(CLUSTER)
    process.write_attribute(f"{CLUSTER}/mark", b"9")
    with refused(errno.EWOULDBLOCK):
        node.unload_module()
    process.remove_directory(CLUSTER)
    node.unload_module()

    for path in ("dlm", "config/dlm", "debug/dlm"):
        with refused(errno.ENOENT):
            process.list_directory(path)
    assert process.misc_devices() == {}
    with refused(errno.ENOENT):
        process.open_device("dlm-control")
    with refused(errno.ENOENT):
        node.unload_module()
    node.load_module()
    node.load_module()
    process.make_directory(CLUSTER)
    assert process.read_attribute(f"{CLUSTER}/mark") == b"0\n"


def test_an_open_device_holds_the_module() -> None:
    """EWOULDBLOCK until it is closed."""
    node = one_node().node("nodea")
    control = node.process().open_device("dlm-control")
    with refused(errno.EWOULDBLOCK):
        node.unload_module()
    control.close()

    node.unload_module()


def test_configfs_that_is_not_mounted() -> None:
    """The mount point is an empty directory; what was configured is there again after a mount."""
    node = one_node().node("nodea")
    process = node.process()
    set_up(process, 1, [1])
    node.unmount_configfs()
    assert process.list_directory("config") == []
    with refused(errno.ENOENT):
        process.make_directory(CLUSTER)
    node.mount_configfs()

    assert process.list_directory(f"{CLUSTER}/comms") == ["1"]


def test_equal_seeds_give_equal_traces() -> None:
    """The seed fixes the whole trace byte for byte, another seed changes it."""
    traces = []
    for seed in (1, 1, 2):
        cluster = three_nodes(seed=seed, keep_trace=True)
        running_together(cluster)
        cluster.advance(30)
        traces.append(cluster.trace())

    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_a_partition_holds_a_recovery_up() -> None:
    """Two parts cannot recover together; once healed they do."""
    cluster = three_nodes()
    processes = running_together(cluster)
    for process in processes:
        stop(process)
    cluster.partition("nodea", "nodec")
    for process in processes:
        start(process)
    cluster.settle()
    assert status(processes[0]) != "ff"
    cluster.heal("nodea", "nodec")
    cluster.settle()

    assert [status(process) for process in processes] == ["ff", "55", "55"]


def test_survivors_recover_without_a_node_that_crashed() -> None:
    """stop, remove the member, start: the two that are left run again."""
    cluster = three_nodes()
    processes = running_together(cluster)
    cluster.crash("nodea")
    for process in processes[1:]:
        stop(process)
        set_members(process, (2, 3))
        start(process)
    cluster.settle()

    assert [status(process) for process in processes[1:]] == ["ff", "55"]


@pytest.mark.parametrize("remade", [False, True])
def test_a_node_that_came_back_needs_its_comm_made_anew(remade: bool) -> None:
    """With the old comm status shows success, and locks across the pair hang; anew they do not."""
    cluster = three_nodes()
    processes = running_together(cluster)
    for process in processes:
        file = process.open_device("dlm_test")
        for number in range(8):
            file.write(lock_request(b"before %d" % number, CR))
            cluster.settle()
    cluster.crash("nodea")
    for process in processes[1:]:
        stop(process)
        set_members(process, (2, 3))
        start(process)
    cluster.settle()
    cluster.restart("nodea")
    processes[0] = set_up(cluster.node("nodea").process(), 1)
    set_members(processes[0], (1, 2, 3))
    pending = submit_create(processes[0])
    for process in processes[1:]:
        stop(process)
        if remade:
            process.remove_directory(f"{CLUSTER}/comms/1")
            add_comm(process, 1, ADDRESSES["nodea"])
        set_members(process, (1, 2, 3))
    for process in processes:
        start(process)
    answer(processes[0])
    pending.result()
    cluster.settle()
    assert [status(process) for process in processes] == ["ff", "55", "55"]

    file = processes[0].open_device("dlm_test")
    for number in range(8):
        file.write(lock_request(b"after %d" % number, EX))
    cluster.settle()

    granted = len(results(file))
    logs = [line for node in cluster.nodes for line in node.log()]
    mismatches = [line for line in logs if "ignore dlm msg because seq mismatch" in line]
    if remade:
        assert (granted, mismatches) == (8, [])
    else:
        assert granted < 8
        assert mismatches


def test_checks_run_after_every_step_and_on_demand() -> None:
    """A check that fails is seen at the step that broke it."""
    cluster = one_node()
    steps: list[float] = []
    cluster.checks.append(lambda cluster: steps.append(cluster.now()))
    running_alone(cluster.node("nodea").process())
    assert steps
    seen = len(steps)

    cluster.check()

    assert len(steps) == seen + 1


def test_lockspaces_can_be_looked_at() -> None:
    """Each node shows its lockspaces' machines, none while it is down."""
    with three_nodes() as cluster:
        running_together(cluster)
        assert [list(node.lockspaces()) for node in cluster.nodes] == [["test"]] * 3
    assert [node.lockspaces() for node in cluster.nodes] == [{}] * 3


def test_leaving_the_context_cuts_the_power() -> None:
    """A cluster used as a context manager ends with every node down."""
    with Cluster(ADDRESSES) as cluster:
        assert all(cluster.node(name).up for name in NAMES)

    assert not any(cluster.node(name).up for name in NAMES)
