"""What in configfs differs between kernels, and what a start reads from it.

What a real 6.1 kernel shows as well stands in the contract suite.
"""

from __future__ import annotations

import errno

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.core.events import StartMember
from dlm.emulator.configfs import Configfs
from dlm.emulator.network import Endpoint, Network
from dlm.emulator.process import Process
from dlm.emulator.scheduler import Scheduler
from dlm.emulator.tree import Tree
from dlm.terms import KERNELS, NodeId
from tests.unit.emulator.helpers import CLUSTER, one_node, refused


def process_on(kernel: str) -> Process:
    """Return a process on a node where the cluster's directory and one space exist."""
    process = one_node(kernel=kernel).node("nodea").process()
    process.make_directory(CLUSTER)
    process.make_directory(f"{CLUSTER}/spaces/test")
    return process


def configfs_of(kernel: str) -> tuple[Tree, Configfs, Endpoint]:
    """Return a module's configuration alone, with the cluster and one space."""
    scheduler = Scheduler()
    profile = KERNELS[kernel]
    endpoint = Endpoint(
        Network(scheduler, {}), "a", profile.max_addresses, lambda *_: None, print, lambda *_: None
    )
    configfs = Configfs(profile, endpoint, lambda: None)
    tree = Tree()
    tree.root.entries["dlm"] = configfs.root
    tree.make_directory("dlm/c")
    tree.make_directory("dlm/c/spaces/test")
    return tree, configfs, endpoint


def put(tree: Tree, path: str, text: bytes) -> None:
    """Write an attribute."""
    tree.open_for_write(path)(text, True)


@pytest.mark.parametrize("parent", [f"{CLUSTER}/comms", f"{CLUSTER}/spaces/test/nodes"])
def test_names_are_numbers_since_6_13(parent: str) -> None:
    """The directory's name is the node id; what is written to nodeid is ignored."""
    process = process_on("7.2")
    for name, number in (("nodea", errno.EINVAL), ("-1", errno.EINVAL), ("9" * 11, errno.ERANGE)):
        with refused(number):
            process.make_directory(f"{parent}/{name}")
    process.make_directory(f"{parent}/0x10")

    assert process.read_attribute(f"{parent}/0x10/nodeid") == b"16\n"
    assert process.write_attribute(f"{parent}/0x10/nodeid", b"any text") == 8
    assert process.read_attribute(f"{parent}/0x10/nodeid") == b"16\n"


@pytest.mark.parametrize(("kernel", "shown"), [("6.1", b"0\n"), ("6.12", b"0\n"), ("7.2", b"5\n")])
def test_the_mark_of_a_remade_cluster(kernel: str, shown: bytes) -> None:
    """Up to 6.12 a cluster shows a copy whose mark is not initialised; all else survives."""
    process = process_on(kernel)
    process.write_attribute(f"{CLUSTER}/mark", b"5")
    process.write_attribute(f"{CLUSTER}/toss_secs", b"77")
    process.remove_directory(f"{CLUSTER}/spaces/test")
    process.remove_directory(CLUSTER)
    process.make_directory(CLUSTER)

    assert process.read_attribute(f"{CLUSTER}/mark") == shown
    assert process.read_attribute(f"{CLUSTER}/toss_secs") == b"77\n"


@pytest.mark.parametrize(("kernel", "shown"), [("6.1", b"10\n"), ("7.2", b"77\n")])
def test_two_clusters_share_values_since_6_13(kernel: str, shown: bytes) -> None:
    """A store changes the module's value; another directory's copy does not see it."""
    process = process_on(kernel)
    process.make_directory("config/dlm/other")
    process.write_attribute("config/dlm/other/toss_secs", b"77")

    assert process.read_attribute(f"{CLUSTER}/toss_secs") == shown


@pytest.mark.parametrize(("kernel", "most"), [("6.1", 3), ("7.2", 8)])
def test_addresses_per_node(kernel: str, most: int) -> None:
    """Three up to 6.14, eight since 6.15; one more is ENOSPC."""
    process = process_on(kernel)
    process.make_directory(f"{CLUSTER}/comms/2")
    for number in range(most):
        process.write_attribute(f"{CLUSTER}/comms/2/addr", encode_sockaddr(f"10.0.{number}.2"))

    with refused(errno.ENOSPC):
        process.write_attribute(f"{CLUSTER}/comms/2/addr", encode_sockaddr("10.9.9.2"))


def test_release_recover_since_6_18() -> None:
    """The attribute exists on 7.2 alone, and keeps what is written."""
    process = process_on("7.2")
    process.make_directory(f"{CLUSTER}/spaces/test/nodes/2")
    path = f"{CLUSTER}/spaces/test/nodes/2/release_recover"
    assert process.read_attribute(path) == b"0\n"
    process.write_attribute(path, b"1")

    assert process.read_attribute(path) == b"1\n"


def test_what_a_start_reads() -> None:
    """Members newest first, each with its comm's number; new marks are cleared by the reading."""
    tree, configfs, _ = configfs_of("6.1")
    put_member(tree, 1)
    tree.make_directory("dlm/c/comms/two")
    put(tree, "dlm/c/comms/two/nodeid", b"2")
    put_member(tree, 2)
    put(tree, "dlm/c/spaces/test/nodes/2/weight", b"-3")

    assert configfs.read_members("test") == (
        (StartMember(NodeId(2), -3, 1, True), StartMember(NodeId(1), 1, 0, True)),
        frozenset(),
    )
    again = configfs.read_members("test")
    assert again is not None
    assert [member.new for member in again[0]] == [False, False]
    assert configfs.read_members("other") is None


def put_member(tree: Tree, nodeid: int) -> None:
    """Add a member."""
    tree.make_directory(f"dlm/c/spaces/test/nodes/{nodeid}")
    put(tree, f"dlm/c/spaces/test/nodes/{nodeid}/nodeid", b"%d" % nodeid)


def test_a_remade_comm_has_another_number() -> None:
    """A member takes its comm's number when its nodeid is written; later comms do not count."""
    tree, configfs, _ = configfs_of("6.1")
    seen = []
    for _ in range(2):
        tree.make_directory("dlm/c/comms/2")
        put(tree, "dlm/c/comms/2/nodeid", b"2")
        put_member(tree, 2)
        members = configfs.read_members("test")
        assert members is not None
        seen.append(members[0][0].comm)
        tree.remove_directory("dlm/c/spaces/test/nodes/2")
        tree.remove_directory("dlm/c/comms/2")

    assert seen == [1, 2]


def test_removed_members_are_remembered_until_a_start_reads_them() -> None:
    """The gone ones come with the next reading, once."""
    tree, configfs, _ = configfs_of("7.2")
    for name in ("1", "2"):
        tree.make_directory(f"dlm/c/spaces/test/nodes/{name}")
    tree.remove_directory("dlm/c/spaces/test/nodes/2")

    first, second = configfs.read_members("test"), configfs.read_members("test")

    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == ({2}, frozenset())


def test_removing_any_cluster_forgets_the_lists() -> None:
    """Whichever cluster goes, members and comms are not found any more."""
    tree, configfs, _ = configfs_of("6.1")
    tree.make_directory("dlm/newest")
    tree.make_directory("dlm/newest/spaces/test")
    assert configfs.read_members("test") == ((), frozenset())
    tree.remove_directory("dlm/c/spaces/test")
    tree.remove_directory("dlm/c")

    assert configfs.read_members("test") is None


def test_the_local_comm() -> None:
    """The first comm that is told so is the local one, until it is removed."""
    tree, configfs, _ = configfs_of("6.1")
    for nodeid in (b"1", b"2"):
        path = f"dlm/c/comms/{nodeid.decode()}"
        tree.make_directory(path)
        put(tree, f"{path}/nodeid", nodeid)
        put(tree, f"{path}/local", b"1")
    assert configfs.local_nodeid == 1
    put(tree, "dlm/c/comms/1/local", b"0")
    assert configfs.local_nodeid == 1
    tree.remove_directory("dlm/c/comms/1")

    assert configfs.local_nodeid == 0


def test_the_mark_of_a_comm_needs_an_address() -> None:
    """ENOENT before any address; 0 stands for the cluster's mark."""
    tree, _, _ = configfs_of("6.1")
    tree.make_directory("dlm/c/comms/2")
    with refused(errno.ENOENT):
        put(tree, "dlm/c/comms/2/mark", b"3")
    put(tree, "dlm/c/comms/2/addr", encode_sockaddr("10.0.0.2"))
    put(tree, "dlm/c/mark", b"9")

    put(tree, "dlm/c/comms/2/mark", b"0")

    assert tree.read("dlm/c/comms/2/mark") == b"9\n"


def test_addresses_are_filed_under_the_nodeid_of_the_moment() -> None:
    """A later nodeid does not move them."""
    tree, _, endpoint = configfs_of("6.1")
    tree.make_directory("dlm/c/comms/x")
    put(tree, "dlm/c/comms/x/addr", encode_sockaddr("10.0.0.2"))
    put(tree, "dlm/c/comms/x/nodeid", b"2")

    assert endpoint.has_address(-1)
    assert not endpoint.has_address(2)


def test_settings_that_living_lockspaces_heed_are_passed_on() -> None:
    """toss_secs and scan_secs call the module; others do not."""
    told: list[str] = []
    scheduler = Scheduler()
    endpoint = Endpoint(Network(scheduler, {}), "a", 3, lambda *_: None, print, lambda *_: None)
    configfs = Configfs(KERNELS["6.1"], endpoint, lambda: told.append("told"))
    tree = Tree()
    tree.root.entries["dlm"] = configfs.root
    tree.make_directory("dlm/c")
    for name in ("toss_secs", "scan_secs", "recover_timer", "log_info"):
        put(tree, f"dlm/c/{name}", b"3")

    assert told == ["told", "told"]
