"""The directories of configfs: what each holds, who may make and remove them, and when it counts.

Linux 6.1 fs/dlm/config.c, fs/configfs/dir.c.
"""

from __future__ import annotations

import errno

import pytest

from dlm.terms import KernelProfile
from tests.contract.machine import CLUSTER, Lockspace, Machine, refused
from tests.contract.worlds import cluster_defaults

pytestmark = pytest.mark.usefixtures("machine")


@pytest.mark.row("1.1 subsystem")
def test_subsystem_directory(machine: Machine) -> None:
    """With the module loaded and nothing configured, the directory dlm exists and is empty."""
    assert machine.backend.list_directory("config/dlm") == []


@pytest.mark.row("1.1 cluster", "1.3 timewarn_cs")
def test_cluster_directory(machine: Machine, profile: KernelProfile) -> None:
    """A cluster has its attributes and two default directories; timeouts only in 5.10."""
    machine.mkdir(CLUSTER)

    names = machine.backend.list_directory(CLUSTER)

    assert names == sorted([*cluster_defaults(profile), "comms", "spaces"])


@pytest.mark.row("1.1 cluster name")
def test_cluster_of_any_name(machine: Machine) -> None:
    """A cluster directory may have any name; "cluster" is only a habit."""
    machine.mkdir("config/dlm/Löwe 1.2")

    assert machine.backend.list_directory("config/dlm") == ["Löwe 1.2"]


@pytest.mark.row("1.1 comm")
def test_comm_directory(machine: Machine) -> None:
    """A comm has five attributes."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/comms/1")

    names = machine.backend.list_directory(f"{CLUSTER}/comms/1")

    assert names == ["addr", "addr_list", "local", "mark", "nodeid"]


@pytest.mark.row("1.1 space")
def test_space_directory(machine: Machine) -> None:
    """A space has nothing but the default directory nodes."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test")

    assert machine.backend.list_directory(f"{CLUSTER}/spaces/test") == ["nodes"]


@pytest.mark.row("1.1 node")
def test_node_directory(machine: Machine, profile: KernelProfile) -> None:
    """A node of a space has a nodeid and a weight; release_recover came with 6.18."""
    later = ["release_recover"] if profile.release_recover else []
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test", f"{CLUSTER}/spaces/test/nodes/1")

    names = machine.backend.list_directory(f"{CLUSTER}/spaces/test/nodes/1")

    assert names == ["nodeid", *later, "weight"]


@pytest.mark.row("1.1 directory mode")
@pytest.mark.parametrize(
    "path",
    ["", "/comms", "/spaces", "/comms/1", "/spaces/test", "/spaces/test/nodes"],
)
def test_directory_modes(machine: Machine, path: str) -> None:
    """Every directory is 0755."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/comms/1", f"{CLUSTER}/spaces/test")

    assert machine.permissions(CLUSTER + path) == 0o755


@pytest.mark.row("1.2 second cluster")
def test_second_cluster(machine: Machine) -> None:
    """A second cluster beside the first is allowed."""
    machine.mkdir(CLUSTER, "config/dlm/other")

    assert machine.backend.list_directory("config/dlm") == ["cluster", "other"]


@pytest.mark.row("1.2 newest cluster")
def test_newest_cluster_is_looked_into(machine: Machine) -> None:
    """A start reads the members from the cluster that was made last, and from no other."""
    lockspace = machine.bring_up()
    lockspace.stop()
    machine.mkdir("config/dlm/other")

    assert lockspace.write("control", "1") == 1
    assert stays_stopped(lockspace)

    machine.add_member("test", 1, cluster="config/dlm/other")
    lockspace.start()


@pytest.mark.row("1.2 rmdir of any cluster")
def test_rmdir_of_any_cluster_forgets_the_lists(machine: Machine) -> None:
    """When any cluster is removed, starts find no members, although another cluster is left."""
    lockspace = machine.bring_up()
    lockspace.stop()
    machine.mkdir("config/dlm/other")
    machine.rmdir("config/dlm/other")

    assert lockspace.write("control", "1") == 1

    assert stays_stopped(lockspace)


@pytest.mark.row("1.2 rmdir of a full cluster")
@pytest.mark.parametrize("child", ["comms/1", "spaces/test"])
def test_rmdir_of_a_full_cluster(machine: Machine, child: str) -> None:
    """A cluster with a child in comms or spaces is not removed: ENOTEMPTY."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/{child}")

    with refused(errno.ENOTEMPTY):
        machine.rmdir(CLUSTER)

    machine.rmdir(f"{CLUSTER}/{child}", CLUSTER)


@pytest.mark.row("1.2 rmdir of a default dir")
@pytest.mark.parametrize("path", ["comms", "spaces", "spaces/test/nodes"])
def test_rmdir_of_a_default_dir(machine: Machine, path: str) -> None:
    """Directories that came with their parent cannot be removed: EPERM."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test")

    with refused(errno.EPERM):
        machine.rmdir(f"{CLUSTER}/{path}")


@pytest.mark.row("1.2 mkdir where nothing belongs")
@pytest.mark.parametrize("parent", ["", "/spaces/test", "/comms/1", "/spaces/test/nodes/1"])
def test_mkdir_where_nothing_belongs(machine: Machine, parent: str) -> None:
    """Inside a cluster, a space, a comm and a node nothing can be made: EPERM."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/comms/1", f"{CLUSTER}/spaces/test")
    machine.mkdir(f"{CLUSTER}/spaces/test/nodes/1")

    with refused(errno.EPERM):
        machine.mkdir(f"{CLUSTER}{parent}/new")


@pytest.mark.row("1.2 names taken and missing")
def test_names_taken_and_missing(machine: Machine) -> None:
    """A name that is taken is EEXIST, one that is missing ENOENT, a file is no directory."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/comms/1")

    with refused(errno.EEXIST):
        machine.mkdir(f"{CLUSTER}/comms/1")
    with refused(errno.EEXIST):
        machine.mkdir(f"{CLUSTER}/tcp_port")
    with refused(errno.ENOENT):
        machine.rmdir(f"{CLUSTER}/comms/2")
    with refused(errno.ENOENT):
        machine.mkdir("config/dlm/none/comms/1")
    with refused(errno.ENOTDIR):
        machine.rmdir(f"{CLUSTER}/tcp_port")
    with refused(errno.ENOTDIR):
        machine.mkdir(f"{CLUSTER}/tcp_port/x")
    with refused(errno.ENOTDIR):
        machine.backend.list_directory(f"{CLUSTER}/tcp_port")
    with refused(errno.EISDIR):
        machine.read(f"{CLUSTER}/comms")
    with refused(errno.EISDIR):
        machine.write(f"{CLUSTER}/comms", "1")
    with refused(errno.ENOENT):
        machine.write(f"{CLUSTER}/none", "1")
    with refused(errno.ENOENT):
        machine.backend.stat(f"{CLUSTER}/none")


@pytest.mark.row("1.2 rmdir of a space with nodes")
def test_rmdir_of_a_space_with_nodes(machine: Machine) -> None:
    """A space is removed only when it has no node: ENOTEMPTY before that."""
    machine.mkdir(CLUSTER)
    node = machine.add_member("test", 1)

    with refused(errno.ENOTEMPTY):
        machine.rmdir(f"{CLUSTER}/spaces/test")

    machine.rmdir(node, f"{CLUSTER}/spaces/test")
    assert machine.backend.list_directory(f"{CLUSTER}/spaces") == []


@pytest.mark.row("1.2 rmdir while running", "1.5 when the members are read")
def test_rmdir_while_running(lockspace: Lockspace, machine: Machine) -> None:
    """Node, space, comm and cluster may go while a lockspace runs; only the next start notices."""
    machine.rmdir(f"{CLUSTER}/spaces/test/nodes/1", f"{CLUSTER}/spaces/test")
    machine.rmdir(f"{CLUSTER}/comms/1", CLUSTER)

    assert lockspace.read("recover_status") == "ff\n"
    lockspace.stop()
    assert lockspace.write("control", "1") == 1
    assert stays_stopped(lockspace)


@pytest.mark.row("1.2 rmdir of a comm")
def test_rmdir_of_the_local_comm(machine: Machine) -> None:
    """With the local comm goes this node's address: a create is ENOTCONN until there is one."""
    machine.configure()
    machine.rmdir(f"{CLUSTER}/comms/1")

    with refused(errno.ENOTCONN):
        machine.result(machine.submit_create("test"))

    machine.add_comm(1, machine.address, local=True)
    machine.create("test")


@pytest.mark.row("1.2 rmdir of a comm")
def test_rmdir_of_a_comm_forgets_its_addresses(machine: Machine) -> None:
    """After its comm was removed, a node may be given the same address again."""
    machine.mkdir(CLUSTER)
    machine.add_comm(2, "10.0.0.2")
    machine.rmdir(f"{CLUSTER}/comms/2")

    machine.add_comm(2, "10.0.0.2")

    assert machine.read(f"{CLUSTER}/comms/2/addr_list") == "AF_INET\t10.0.0.2\n"


@pytest.mark.row("1.2 names")
@pytest.mark.profile(node_id_from_name=True)
@pytest.mark.parametrize("parent", ["comms", "spaces/test/nodes"])
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("nodea", errno.EINVAL),
        ("-1", errno.EINVAL),
        (" ", errno.EINVAL),
        ("1 ", errno.EINVAL),
        ("08", errno.EINVAL),
        ("4294967296", errno.ERANGE),
        ("99999999999999999999", errno.ERANGE),
    ],
)
def test_names_must_be_numbers(machine: Machine, parent: str, name: str, number: int) -> None:
    """Since 6.13 a comm or node whose name is no unsigned number is not made."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test")

    with refused(number):
        machine.mkdir(f"{CLUSTER}/{parent}/{name}")

    assert machine.backend.list_directory(f"{CLUSTER}/{parent}") == []


@pytest.mark.row("1.2 names", "1.4 nodeid", "1.5 nodeid")
@pytest.mark.profile(node_id_from_name=True)
@pytest.mark.parametrize("parent", ["comms", "spaces/test/nodes"])
@pytest.mark.parametrize(
    ("name", "nodeid"),
    [("7", 7), ("+7", 7), ("0x1F", 31), ("017", 15), ("0", 0), ("4294967295", 4294967295)],
)
def test_names_are_node_ids(machine: Machine, parent: str, name: str, nodeid: int) -> None:
    """Since 6.13 the name, read as numbers of attributes are, is the node id."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test")

    machine.mkdir(f"{CLUSTER}/{parent}/{name}")

    assert machine.read(f"{CLUSTER}/{parent}/{name}/nodeid") == f"{nodeid}\n"


@pytest.mark.row("1.2 names")
@pytest.mark.profile(node_id_from_name=False)
@pytest.mark.parametrize("parent", ["comms", "spaces/test/nodes"])
@pytest.mark.parametrize("name", ["nodea", "-1", "99999999999999999999", " "])
def test_names_need_not_be_numbers(machine: Machine, parent: str, name: str) -> None:
    """A comm or node may have any name up to 6.12; nodeid alone says who it is."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test")

    machine.mkdir(f"{CLUSTER}/{parent}/{name}")

    assert machine.read(f"{CLUSTER}/{parent}/{name}/nodeid") == "-1\n"


@pytest.mark.row("1.2 two comms with one nodeid")
def test_two_comms_with_one_nodeid(machine: Machine) -> None:
    """Two comms may say the same nodeid: nobody compares them."""
    machine.mkdir(CLUSTER)
    machine.add_comm(2, "10.0.0.2")
    machine.mkdir(f"{CLUSTER}/comms/02")  # where the name is the node id, this is 2, too

    assert machine.write(f"{CLUSTER}/comms/02/nodeid", "2\n") == 2

    assert machine.read(f"{CLUSTER}/comms/02/nodeid") == "2\n"


@pytest.mark.row("1.2 name length")
@pytest.mark.parametrize("parent", ["config/dlm", f"{CLUSTER}/comms", f"{CLUSTER}/spaces"])
def test_name_length(machine: Machine, parent: str) -> None:
    """Names have the length that every file system allows: 255 bytes."""
    machine.mkdir(CLUSTER)

    with refused(errno.ENAMETOOLONG):
        machine.mkdir(f"{parent}/{'0' * 256}")
    machine.mkdir(f"{parent}/{'0' * 255}")

    assert "0" * 255 in machine.backend.list_directory(parent)


def stays_stopped(lockspace: Lockspace) -> bool:
    """Say whether nothing recovers within a short while."""
    lockspace.machine.backend.pause(0.3)
    return lockspace.read("recover_status") == "0\n"
