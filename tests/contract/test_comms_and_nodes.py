"""The attributes of comms and of the nodes of a space, and which of them a start heeds.

Linux 6.1 fs/dlm/config.c, lowcomms.c, member.c.
"""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.terms import KernelProfile
from tests.contract.machine import CLUSTER, Lockspace, Machine, refused

COMM = f"{CLUSTER}/comms/1"
NODE = f"{CLUSTER}/spaces/test/nodes/1"


@pytest.fixture
def comm(machine: Machine) -> str:
    """A fresh comm directory."""
    machine.mkdir(CLUSTER, COMM)
    return COMM


@pytest.fixture
def node(machine: Machine) -> str:
    """A fresh node directory."""
    machine.mkdir(CLUSTER, f"{CLUSTER}/spaces/test", NODE)
    return NODE


SIGNED = [
    ("0", "0"),
    ("7\n", "7"),
    ("+7", "7"),
    ("-1", "-1"),
    ("-0", "0"),
    ("-0x10", "-16"),
    ("0x7fffffff", "2147483647"),
    ("-2147483648", "-2147483648"),
    ("017", "15"),
]
NOT_SIGNED = [
    ("\n", errno.EINVAL),
    (" 1", errno.EINVAL),
    ("1 ", errno.EINVAL),
    ("1\n\n", errno.EINVAL),
    ("--1", errno.EINVAL),
    ("-+1", errno.EINVAL),
    ("+-1", errno.EINVAL),
    ("-", errno.EINVAL),
    ("- 1", errno.EINVAL),
    ("x", errno.EINVAL),
    ("2147483648", errno.ERANGE),
    ("-2147483649", errno.ERANGE),
    ("4294967295", errno.ERANGE),
    ("18446744073709551616", errno.ERANGE),
]


def fresh_nodeid(profile: KernelProfile) -> str:
    """Return what nodeid of a directory named 1 reads before anything is written."""
    return "1\n" if profile.node_id_from_name else "-1\n"


# ---- comms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "reads"),
    [
        pytest.param("local", 0o644, "0\n", marks=pytest.mark.row("1.4 local")),
        pytest.param("addr", 0o200, None, marks=pytest.mark.row("1.4 addr")),
        pytest.param("addr_list", 0o444, "", marks=pytest.mark.row("1.4 addr_list")),
        pytest.param("mark", 0o644, "0\n", marks=pytest.mark.row("1.4 mark")),
    ],
)
def test_comm_attributes(
    machine: Machine, comm: str, name: str, mode: int, reads: str | None
) -> None:
    """Each attribute of a comm has its mode and default; addr cannot even be opened to read."""
    assert machine.permissions(f"{comm}/{name}") == mode
    if reads is None:
        with refused(errno.EACCES):
            machine.read(f"{comm}/{name}")
    else:
        assert machine.read(f"{comm}/{name}") == reads


@pytest.mark.row("1.4 nodeid", "1.5 nodeid")
@pytest.mark.parametrize("where", ["comm", "node"])
def test_fresh_nodeid(
    machine: Machine, profile: KernelProfile, request: pytest.FixtureRequest, where: str
) -> None:
    """A nodeid is 0644 and reads -1 at first; since 6.13 it is the directory's name."""
    path = f"{request.getfixturevalue(where)}/nodeid"

    assert machine.permissions(path) == 0o644
    assert machine.read(path) == fresh_nodeid(profile)


@pytest.mark.row("1.4 nodeid", "1.5 nodeid")
@pytest.mark.profile(node_id_from_name=True)
@pytest.mark.parametrize("where", ["comm", "node"])
@pytest.mark.parametrize("text", ["9", "-1", "x", "\n", " ", "99999999999999999999", "n" * 4095])
def test_written_nodeid_is_ignored(
    machine: Machine, request: pytest.FixtureRequest, where: str, text: str
) -> None:
    """Since 6.13 any text is taken for nodeid, and means nothing."""
    path = f"{request.getfixturevalue(where)}/nodeid"

    assert machine.write(path, text) == len(text)

    assert machine.read(path) == "1\n"


@pytest.mark.row("1.4 nodeid")
@pytest.mark.profile(node_id_from_name=False)
@pytest.mark.parametrize(("text", "reads"), SIGNED)
def test_comm_nodeid_taken(machine: Machine, comm: str, text: str, reads: str) -> None:
    """A comm's nodeid is a signed number of 32 bits; negative ones are taken."""
    assert machine.write(f"{comm}/nodeid", text) == len(text)

    assert machine.read(f"{comm}/nodeid") == reads + "\n"


@pytest.mark.row("1.4 nodeid")
@pytest.mark.profile(node_id_from_name=False)
@pytest.mark.parametrize(("text", "number"), NOT_SIGNED)
def test_comm_nodeid_refused(machine: Machine, comm: str, text: str, number: int) -> None:
    """Other texts are EINVAL or ERANGE, and nothing changes."""
    with refused(number):
        machine.write(f"{comm}/nodeid", text)

    assert machine.read(f"{comm}/nodeid") == "-1\n"


@pytest.mark.row("1.3 zero-byte write")
@pytest.mark.parametrize("name", ["nodeid", "local", "addr", "mark"])
def test_zero_byte_write_to_a_comm(
    machine: Machine, profile: KernelProfile, comm: str, name: str
) -> None:
    """A write of no bytes is EFAULT in a comm, too; in 5.10 nothing."""
    machine.writes_nothing(f"{comm}/{name}", profile)


@pytest.mark.row("1.4 local")
@pytest.mark.parametrize("text", ["1", "2\n", "-1"])
def test_local_taken(machine: Machine, comm: str, text: str) -> None:
    """Any number is taken for local, and reads back."""
    assert machine.write(f"{comm}/local", text) == len(text)

    assert machine.read(f"{comm}/local") == text.strip() + "\n"


@pytest.mark.row("1.4 local")
@pytest.mark.parametrize(("text", "number"), [("x", errno.EINVAL), ("2147483648", errno.ERANGE)])
def test_local_refused(machine: Machine, comm: str, text: str, number: int) -> None:
    """Local is parsed as a signed number."""
    with refused(number):
        machine.write(f"{comm}/local", text)


@pytest.mark.row("1.4 local")
def test_first_local_comm_stays_local(machine: Machine) -> None:
    """The first comm marked local is this node's; a second one, or a 0 later, changes nothing."""
    machine.configure(1)
    machine.add_comm(2, "10.0.0.2", local=True)
    machine.write(f"{CLUSTER}/comms/1/local", "0")

    lockspace = machine.create()

    assert lockspace.read("recover_nodeid") == "1\n"


@pytest.mark.row("1.4 addr")
@pytest.mark.parametrize("size", [1, 16, 28, 127, 129, 256])
def test_address_of_another_size(machine: Machine, comm: str, size: int) -> None:
    """An address is exactly 128 bytes; every other size is EINVAL."""
    machine.write(f"{comm}/nodeid", "1")

    with refused(errno.EINVAL):
        machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.1").ljust(256, b"\0")[:size])

    assert machine.read(f"{comm}/addr_list") == ""


@pytest.mark.row("1.4 addr")
def test_addresses_have_a_limit(machine: Machine, profile: KernelProfile, comm: str) -> None:
    """A node has three addresses at most, since 6.15 eight; one more, or a known one, is ENOSPC."""
    machine.write(f"{comm}/nodeid", "1")
    addresses = [f"10.0.0.{last}" for last in range(1, profile.max_addresses + 1)]
    for address in addresses:
        assert machine.write(f"{comm}/addr", encode_sockaddr(address)) == 128

    with refused(errno.ENOSPC):
        machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.77"))
    with refused(errno.ENOSPC):
        machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.1"))

    lines = machine.read(f"{comm}/addr_list").splitlines()
    assert lines == [f"AF_INET\t{address}" for address in addresses]


@pytest.mark.row("1.4 addr", "1.4 shared address list")
@pytest.mark.profile(refuses_known_address=False)
def test_same_address_twice(machine: Machine, comm: str) -> None:
    """In 5.10 a node may have the same address twice."""
    machine.write(f"{comm}/nodeid", "1")
    for _ in range(2):
        assert machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.2")) == 128

    assert machine.read(f"{comm}/addr_list") == "AF_INET\t10.0.0.2\n" * 2


@pytest.mark.row("1.4 addr", "1.4 shared address list")
@pytest.mark.profile(refuses_known_address=True)
def test_same_address_again(machine: Machine) -> None:
    """The same address again for a nodeid is EEXIST, from another directory, too."""
    machine.mkdir(CLUSTER)
    first = machine.add_comm(2, "10.0.0.2")
    again = f"{CLUSTER}/comms/02"
    machine.mkdir(again)
    machine.write(f"{again}/nodeid", "2")
    third = machine.add_comm(3, None)

    for path in (first, again):
        with refused(errno.EEXIST):
            machine.write(f"{path}/addr", encode_sockaddr("10.0.0.2"))
    machine.write(f"{third}/addr", encode_sockaddr("10.0.0.2"))

    assert machine.read(f"{again}/addr_list") == ""


@pytest.mark.row("1.4 addr")
@pytest.mark.profile(refuses_known_address=True)
def test_same_address_under_another_family(machine: Machine) -> None:
    """Quirk: what family an address is of is not asked where an IPv4 address is there already."""
    machine.mkdir(CLUSTER)
    comm = machine.add_comm(2, "10.0.0.2")
    other = b"\x01\0" + encode_sockaddr("10.0.0.2")[2:]

    with refused(errno.EEXIST):
        machine.write(f"{comm}/addr", other)
    machine.write(f"{comm}/addr", b"\x01\0" + encode_sockaddr("10.0.0.3")[2:])
    machine.write(f"{comm}/addr", b"\x01\0" + encode_sockaddr("10.0.0.3")[2:])

    assert machine.read(f"{comm}/addr_list") == "AF_INET\t10.0.0.2\n" + "<UNKNOWN>\n" * 2


@pytest.mark.row("1.4 shared address list")
def test_directories_of_one_node_share_the_limit(machine: Machine, profile: KernelProfile) -> None:
    """The limit of addresses is the nodeid's, over all of its directories: then ENOSPC."""
    machine.mkdir(CLUSTER)
    first = machine.add_comm(2, "10.0.0.1")
    again = f"{CLUSTER}/comms/02"
    machine.mkdir(again)
    machine.write(f"{again}/nodeid", "2")
    machine.write(f"{again}/addr", encode_sockaddr("10.0.0.2"))
    for last in range(3, profile.max_addresses + 1):
        machine.write(f"{first}/addr", encode_sockaddr(f"10.0.0.{last}"))

    with refused(errno.ENOSPC):
        machine.write(f"{again}/addr", encode_sockaddr("10.0.0.77"))

    assert len(machine.read(f"{first}/addr_list").splitlines()) == profile.max_addresses - 1
    assert machine.read(f"{again}/addr_list") == "AF_INET\t10.0.0.2\n"


@pytest.mark.row("1.4 order of nodeid and addr")
@pytest.mark.profile(node_id_from_name=False, mark_follows_address=True)
@pytest.mark.reload
def test_address_is_filed_under_the_nodeid_of_the_moment(machine: Machine) -> None:
    """A nodeid written after addr does not take the address along: the node has none."""
    machine.mkdir(CLUSTER)
    machine.mkdir(COMM)
    machine.write(f"{COMM}/nodeid", "9")
    machine.write(f"{COMM}/addr", encode_sockaddr(machine.address))
    machine.write(f"{COMM}/nodeid", "1")
    machine.write(f"{COMM}/local", "1")

    with refused(errno.ENOENT):
        machine.write(f"{COMM}/mark", "1")
    machine.write(f"{COMM}/addr", encode_sockaddr(machine.address))
    machine.create()


@pytest.mark.row("1.4 order of nodeid and addr")
def test_local_may_come_before_the_address(machine: Machine) -> None:
    """Local may be written at any time before the first create."""
    machine.mkdir(CLUSTER, COMM)
    machine.write(f"{COMM}/local", "1")
    machine.write(f"{COMM}/nodeid", "1")
    machine.write(f"{COMM}/addr", encode_sockaddr(machine.address))

    lockspace = machine.create()

    assert lockspace.read("recover_nodeid") == "1\n"


@pytest.mark.row("1.4 addr_list lines")
@pytest.mark.parametrize(
    ("address", "line"),
    [
        (encode_sockaddr("127.0.0.1"), "AF_INET\t127.0.0.1\n"),
        (
            encode_sockaddr("fe80::1:2"),
            "AF_INET6\tfe80:0000:0000:0000:0000:0000:0001:0002\n",
        ),
        (
            encode_sockaddr("::ffff:10.0.0.1"),
            "AF_INET6\t0000:0000:0000:0000:0000:ffff:0a00:0001\n",
        ),
        (bytes(128), "<UNKNOWN>\n"),
        (struct.pack("=H", socket.AF_UNIX) + b"/x".ljust(126, b"\0"), "<UNKNOWN>\n"),
        (
            struct.pack("=HH4s", socket.AF_INET, 0xFFFF, bytes([10, 0, 0, 9])).ljust(128, b"\xff"),
            "AF_INET\t10.0.0.9\n",
        ),
    ],
    ids=["IPv4", "IPv6", "IPv4 in IPv6", "no family", "another family", "port and rubbish"],
)
def test_address_lines(machine: Machine, comm: str, address: bytes, line: str) -> None:
    """addr_list has a line for each address, of any family: IPv4, IPv6 in full, or <UNKNOWN>."""
    machine.write(f"{comm}/nodeid", "1")

    assert machine.write(f"{comm}/addr", address) == 128

    assert machine.read(f"{comm}/addr_list") == line


@pytest.mark.row("1.4 addr_list")
def test_address_list_is_not_writable(machine: Machine, comm: str) -> None:
    """addr_list cannot be opened to write, not even by root: EACCES."""
    with refused(errno.EACCES):
        machine.write(f"{comm}/addr_list", "x")


@pytest.mark.row("1.4 mark")
@pytest.mark.profile(mark_follows_address=False)
def test_mark_is_a_number(machine: Machine, comm: str) -> None:
    """In 5.10 a mark is kept as it is, with an address or without, and 0 is 0."""
    machine.write(f"{CLUSTER}/mark", "7")

    for text in ("5", "0", "4294967295"):
        machine.write(f"{comm}/mark", text)
        assert machine.read(f"{comm}/mark") == text + "\n"


@pytest.mark.row("1.4 mark")
@pytest.mark.profile(mark_follows_address=True)
def test_mark_needs_an_address(machine: Machine, comm: str) -> None:
    """Mark is ENOENT before the node has an address, and is a plain unsigned number after it."""
    machine.write(f"{comm}/nodeid", "1")
    with refused(errno.ENOENT):
        machine.write(f"{comm}/mark", "5")
    with refused(errno.EINVAL):
        machine.write(f"{comm}/mark", "-5")
    machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.1"))

    assert machine.write(f"{comm}/mark", "4294967295\n") == 11

    assert machine.read(f"{comm}/mark") == "4294967295\n"


@pytest.mark.row("1.4 mark")
@pytest.mark.profile(mark_follows_address=True)
def test_mark_zero_means_the_clusters_mark(machine: Machine, comm: str) -> None:
    """A mark of 0 is replaced by the cluster's mark, and then shows that."""
    machine.write(f"{CLUSTER}/mark", "7")
    machine.write(f"{comm}/nodeid", "1")
    machine.write(f"{comm}/addr", encode_sockaddr("10.0.0.1"))
    assert machine.read(f"{comm}/mark") == "0\n"

    machine.write(f"{comm}/mark", "0")

    assert machine.read(f"{comm}/mark") == "7\n"


# ---- nodes of a space ---------------------------------------------------------------------------


@pytest.mark.row("1.5 weight attribute")
def test_fresh_weight(machine: Machine, node: str) -> None:
    """A node's weight is 0644 and 1 at first."""
    assert machine.permissions(f"{node}/weight") == 0o644
    assert machine.read(f"{node}/weight") == "1\n"


@pytest.mark.row("1.5 release_recover")
@pytest.mark.profile(release_recover=True)
def test_release_recover(machine: Machine, node: str) -> None:
    """release_recover is 0644, 0 at first, and an unsigned number like those of a cluster."""
    path = f"{node}/release_recover"
    assert machine.permissions(path) == 0o644
    assert machine.read(path) == "0\n"

    for text, reads in (("1", "1"), ("0x10\n", "16"), ("4294967295", "4294967295"), ("0", "0")):
        assert machine.write(path, text) == len(text)
        assert machine.read(path) == reads + "\n"
    for text, number in (("-1", errno.EINVAL), ("x", errno.EINVAL), ("4294967296", errno.ERANGE)):
        with refused(number):
            machine.write(path, text)
    assert machine.read(path) == "0\n"


@pytest.mark.row("1.5 weight attribute")
@pytest.mark.parametrize(("text", "reads"), SIGNED)
def test_weight_taken(machine: Machine, node: str, text: str, reads: str) -> None:
    """A weight is a signed number of 32 bits; negative ones are taken."""
    assert machine.write(f"{node}/weight", text) == len(text)

    assert machine.read(f"{node}/weight") == reads + "\n"


@pytest.mark.row("1.5 weight attribute")
@pytest.mark.parametrize(("text", "number"), NOT_SIGNED)
def test_weight_refused(machine: Machine, node: str, text: str, number: int) -> None:
    """Other texts are refused, and nothing changes."""
    with refused(number):
        machine.write(f"{node}/weight", text)

    assert machine.read(f"{node}/weight") == "1\n"


@pytest.mark.row("1.5 nodeid")
@pytest.mark.profile(node_id_from_name=False)
@pytest.mark.parametrize(("text", "reads"), SIGNED)
def test_node_nodeid_taken(machine: Machine, node: str, text: str, reads: str) -> None:
    """A node's nodeid is a signed number of 32 bits; negative ones are taken."""
    assert machine.write(f"{node}/nodeid", text) == len(text)

    assert machine.read(f"{node}/nodeid") == reads + "\n"


@pytest.mark.row("1.5 nodeid")
@pytest.mark.profile(node_id_from_name=False)
@pytest.mark.parametrize(("text", "number"), NOT_SIGNED)
def test_node_nodeid_refused(machine: Machine, node: str, text: str, number: int) -> None:
    """Other texts are refused, and nothing changes."""
    with refused(number):
        machine.write(f"{node}/nodeid", text)

    assert machine.read(f"{node}/nodeid") == "-1\n"


@pytest.mark.row("1.3 zero-byte write")
@pytest.mark.parametrize("name", ["nodeid", "weight"])
def test_zero_byte_write_to_a_node(
    machine: Machine, profile: KernelProfile, node: str, name: str
) -> None:
    """A write of no bytes is EFAULT in a node, too, also where the text would be ignored."""
    machine.writes_nothing(f"{node}/{name}", profile)


@pytest.mark.row("1.5 no space")
def test_start_without_a_space(machine: Machine) -> None:
    """A start without a directory of the lockspace's name succeeds and does nothing."""
    machine.configure()
    lockspace, pending = machine.begin_create()

    assert lockspace.write("control", "1") == 1

    lockspace.write("event_done", "0")
    assert machine.still_sleeps(pending)
    assert lockspace.read("recover_status") == "0\n"


@pytest.mark.row("1.5 zero nodes")
def test_start_without_nodes(machine: Machine) -> None:
    """A start with an empty list of nodes succeeds and does nothing."""
    machine.configure()
    machine.mkdir(f"{CLUSTER}/spaces/test")
    lockspace, pending = machine.begin_create()

    assert lockspace.write("control", "1") == 1

    lockspace.write("event_done", "0")
    assert machine.still_sleeps(pending)
    assert lockspace.read("recover_status") == "0\n"


@pytest.mark.row("1.5 when the members are read")
def test_members_are_read_when_the_lockspace_starts(machine: Machine) -> None:
    """Members may be written until control is; what is written later waits for a start."""
    machine.configure()
    lockspace, pending = machine.begin_create()
    machine.add_member("test", 1)

    machine.finish_create(lockspace, pending)
    machine.add_member("test", 77)

    # 5.10 returns from the create before the recovery has ended.
    machine.eventually(lambda: lockspace.read("recover_status") == "ff\n", "the recovery")


@pytest.mark.row("1.5 weight")
@pytest.mark.parametrize("weight", [0, 3, 1000])
def test_weight_of_the_only_member(machine: Machine, weight: int) -> None:
    """A single member is its own directory node, whatever it weighs."""
    machine.configure()
    machine.add_member("test", 1, weight)
    lockspace = machine.finish_create(*machine.begin_create())

    file = lockspace.open()

    assert file.granted(b"a", 5) == 1


@pytest.mark.row("1.5 member without an address", "3 first recovery interrupted")
def test_member_out_of_reach(machine: Machine) -> None:
    """A recovery with a member out of reach waits; a stop ends it, a new start mends it."""
    waits_until_it_is_gone(machine, "127.0.0.2")


@pytest.mark.row("1.5 member without an address", "3 first recovery interrupted")
@pytest.mark.profile(unreachable_fails=False)
def test_recovery_waits_for_an_address(machine: Machine) -> None:
    """Up to 6.1 a member without an address is no other than one that does not answer."""
    waits_until_it_is_gone(machine, None)


@pytest.mark.row("1.5 member without an address")
@pytest.mark.profile(unreachable_fails=True)
def test_create_fails_for_want_of_an_address(machine: Machine) -> None:
    """Since 6.12 a first recovery with a member without an address ends the create: ENOENT.

    That is a leave, which is announced and waits for its answer.
    """
    machine.configure()
    machine.add_comm(2, None)
    machine.add_member("test", 1)
    machine.add_member("test", 2)
    uevents = machine.uevents()
    lockspace, pending = machine.begin_create()
    lockspace.write("event_done", "0")
    lockspace.write("control", "1")
    assert uevents.headers(3)[2] == "offline@/kernel/dlm/test"
    assert machine.still_sleeps(pending)
    assert lockspace.read("recover_status") == "0\n"

    lockspace.write("event_done", "0")

    with refused(errno.ENOENT):
        machine.result(pending)
    assert not lockspace.exists()


@pytest.mark.row("1.5 member without an address")
@pytest.mark.profile(unreachable_fails=True)
def test_start_fails_for_want_of_an_address(lockspace: Lockspace, machine: Machine) -> None:
    """Since 6.12 a lockspace that is started with such a member stays stopped.

    It can be started again without being stopped first.
    """
    lockspace.stop()
    stranger = machine.add_member("test", 2)
    assert lockspace.write("control", "1") == 1
    machine.backend.pause(0.3)
    assert lockspace.read("recover_status") == "0\n"

    machine.rmdir(stranger)

    lockspace.start()


def waits_until_it_is_gone(machine: Machine, address: str | None) -> None:
    """Start with a member at an address where nobody is, and then without it."""
    machine.configure()
    comm = machine.add_comm(2, address)
    machine.add_member("test", 1)
    stranger = machine.add_member("test", 2)
    lockspace, pending = machine.begin_create()
    lockspace.write("event_done", "0")
    lockspace.write("control", "1")
    assert machine.still_sleeps(pending)

    lockspace.stop()
    assert machine.still_sleeps(pending)
    machine.rmdir(stranger, comm)  # without the comm 6.1 gives up connecting at once
    lockspace.start()

    assert machine.result(pending) == machine.backend.misc_devices()["dlm_test"]


@pytest.mark.row("1.5 nodeid order")
def test_nodeid_matters(lockspace: Lockspace, machine: Machine, profile: KernelProfile) -> None:
    """The nodeid of a directory, wherever it comes from, is what a start reads."""
    lockspace.stop()
    machine.rmdir(f"{CLUSTER}/spaces/test/nodes/1")
    node = f"{CLUSTER}/spaces/test/nodes/{'0x1' if profile.node_id_from_name else 'me'}"
    machine.mkdir(node)
    machine.write(f"{node}/nodeid", "1")

    lockspace.start()

    assert lockspace.read("recover_nodeid") == "1\n"
