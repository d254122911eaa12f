"""Rows of section 4.1: the device dlm-node."""

from __future__ import annotations

import errno
import struct

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.node2005 import NODE_SIZE, Ioctl, NodeRequest, encode_node_request
from tests.contract2005.world import ADDRESSES, Machine, lock_bytes, refused, world

row = pytest.mark.row
ONE = NodeRequest(1, 1, encode_sockaddr("10.0.0.1"))


@pytest.fixture
def fresh(abi: str) -> Machine:
    """Return a node on which nothing is configured."""
    return Machine(world(abi), "nodea")


@row("4.1 device")
def test_dlm_node_is_a_misc_device_with_an_ioctl_and_nothing_else(fresh: Machine) -> None:
    """It is in /proc/misc; reads and writes are EINVAL."""
    assert "dlm-node" in fresh.process.misc_devices()
    file = fresh.process.open_device("dlm-node")
    with refused(errno.EINVAL):
        file.read(276)
    with refused(errno.EINVAL):
        file.write(bytes(276))


@row("4.1 capability")
def test_without_cap_sys_admin_it_is_eacces(fresh: Machine) -> None:
    """Before anything else is looked at, and not EPERM."""
    process = fresh.cluster.node("nodea").process(capable=False)
    file = process.open_device("dlm-node")
    for request in (Ioctl.VERSION, 0x1234, Ioctl.SET_NODE):
        with refused(errno.EACCES):
            file.ioctl(request, b"")


@row("4.1 type")
@pytest.mark.parametrize("request_", [0xC114D001, 0x541B, 0, 0xC114D201])
def test_another_type_byte_is_enotty(fresh: Machine, request_: int) -> None:
    """Before the argument is read; the kernel logs what it was asked."""
    with refused(errno.ENOTTY):
        fresh.ioctl(request_, b"")
    kind, number = request_ >> 8 & 0xFF, request_ & 0xFF
    said = f"dlm node_ioctl: bad ioctl {request_:#x} {kind:#x} {number:#x}"
    assert fresh.cluster.node("nodea").log()[-1] == said


@row("4.1 type")
@pytest.mark.parametrize("request_", [0x0000D100, 0x4004D100, 0xFFFFD100])
def test_direction_and_size_of_a_request_are_not_looked_at(fresh: Machine, request_: int) -> None:
    """Type and number alone decide: all of these ask for the version."""
    assert fresh.ioctl(request_, bytes((1, 0, 0, 0)) + bytes(8))[0] == 0


@row("4.1 version")
def test_the_kernel_s_version_is_written_back(fresh: Machine) -> None:
    """A patch level is not compared; 1.0.0 stands in its place afterwards, nothing else changes."""
    argument = struct.pack("<3I", 1, 0, 77) + b"rest"
    assert fresh.ioctl(Ioctl.VERSION, argument) == (0, struct.pack("<3I", 1, 0, 0) + b"rest")


@row("4.1 version")
@pytest.mark.parametrize("version", [(0, 0, 0), (2, 0, 0), (1, 1, 0), (2**32 - 1, 0, 0)])
def test_another_version_is_einval(fresh: Machine, version: tuple[int, int, int]) -> None:
    """Another major or a higher minor; the kernel logs both."""
    for request in Ioctl:
        with refused(errno.EINVAL):
            fresh.ioctl(request, encode_node_request(ONE, version=version))
    user = "{}.{}.{}".format(*version)
    expected = f"interface mismatch: kernel(1.0.0), user({user}), cmd(2)"
    assert expected in fresh.cluster.node("nodea").log()[-1]


@row("4.1 faults")
def test_what_cannot_be_read_is_efault(fresh: Machine) -> None:
    """Twelve bytes for the version, 276 for everything else, known number or not."""
    with refused(errno.EFAULT):
        fresh.ioctl(Ioctl.VERSION, bytes(11))
    for request in (Ioctl.SET_NODE, Ioctl.SET_LOCAL, 0xC114D107):
        with refused(errno.EFAULT):
            fresh.ioctl(request, encode_node_request(ONE)[: NODE_SIZE - 1])


@row("4.1 other numbers")
def test_an_unknown_number_succeeds_without_effect(fresh: Machine) -> None:
    """Number 7 returns 0 and configures nobody: a create finds no local address."""
    assert fresh.ioctl(0xC114D107, encode_node_request(ONE))[0] == 0
    with refused(errno.EINVAL):
        fresh.create().result()


@row("4.1 set_node")
@pytest.mark.parametrize("nodeid", [0, -1, 2**31 - 1, -(2**31)])
def test_set_node_checks_nothing(fresh: Machine, nodeid: int) -> None:
    """Any node id, any weight, any bytes, again and again, also while a lockspace runs."""
    fresh.configure()
    fresh.run()
    for address in (bytes(128), b"\xff" * 256, encode_sockaddr("fe80::1")):
        request = NodeRequest(nodeid, -5, address)
        assert fresh.ioctl(Ioctl.SET_NODE, encode_node_request(request))[0] == 0


@row("4.1 set_node")
def test_set_node_overwrites(abi: str) -> None:
    """The address said last is the one to which messages go."""
    cluster = world(abi)
    machines = [Machine(cluster, name) for name in ("nodea", "nodeb")]
    for machine in machines:
        machine.configure()
    machines[0].set_node(2, "10.9.9.9")
    machines[0].set_node(2, ADDRESSES["nodeb"])
    for machine in machines:
        machine.create()
        machine.start([1, 2])
    cluster.settle()
    if machines[0].event:
        assert [machine.get("done") for machine in machines] == [b"1\n", b"1\n"]
    else:
        assert [machine.get("members") for machine in machines] == [b"1 2 \n", b"1 2 \n"]


@row("4.1 set_local")
def test_a_node_has_three_local_addresses_at_most(fresh: Machine) -> None:
    """The fourth is EINVAL, and so is a known one then; the kernel says so."""
    for number in (1, 2, 3):
        fresh.set_local(1, f"10.0.0.{number}")
    for number in (4, 1):
        with refused(errno.EINVAL):
            fresh.set_local(9, f"10.0.0.{number}")
    assert fresh.cluster.node("nodea").log()[-1] == "dlm: too many local addresses set 3"


@row("4.1 set_local again")
def test_the_same_local_address_twice(fresh: Machine) -> None:
    """In April it fills a place of the three, from June on it is dropped."""
    for _ in range(3):
        fresh.set_local(1, "10.0.0.1")
    if fresh.event:
        with refused(errno.EINVAL):
            fresh.set_local(1, "10.0.0.1")
    else:
        fresh.set_local(1, "10.0.0.2")
        fresh.set_local(1, "10.0.0.3")


@row("4.1 set_local")
def test_the_last_local_node_id_wins(fresh: Machine) -> None:
    """It is the one under which a lockspace that is created then takes part."""
    fresh.set_local(5, "10.0.0.1")
    fresh.set_local(1, "10.0.0.1")
    fresh.run()
    assert fresh.cluster.node("nodea").lockspaces()["test"].node == 1


@row("4.1 no local address")
def test_without_a_local_address_no_lockspace_is_made(fresh: Machine) -> None:
    """INFER: EINVAL and a line in the log, where April's kernel dereferenced a null pointer."""
    with refused(errno.EINVAL):
        fresh.create().result()
    assert fresh.cluster.node("nodea").log()[-1] == "dlm: no local IP address has been set"
    assert fresh.process.list_directory("dlm") == []


@row("4.1 local address of another machine")
def test_a_local_address_that_is_not_this_machine_s(fresh: Machine) -> None:
    """Communication cannot begin: EADDRNOTAVAIL from create."""
    fresh.set_local(1, "10.0.0.2")
    with refused(errno.EADDRNOTAVAIL):
        fresh.create().result()


@row("4.1 weight")
def test_weights_share_the_directory_in_july_only(abi: str) -> None:
    """A node of weight 0 keeps no part of the directory in July, and an equal part in April."""
    cluster = world(abi)
    machines = [Machine(cluster, name) for name in ("nodea", "nodeb")]
    for machine in machines:
        machine.configure()
        machine.set_node(2, ADDRESSES["nodeb"], weight=0)
        machine.create()
        machine.start([1, 2])
        if not machine.event:
            machine.put("event_done", b"0")
    cluster.settle()
    for machine in machines if machines[0].event else ():
        machine.put("finish", b"1")
    file = machines[0].open()
    for number in range(40):
        file.write(lock_bytes(name=b"%d" % number))
        cluster.settle()
    resources = cluster.node("nodea").lockspaces()["test"].resources()
    kept_by = {resource.directory_node for resource in resources}
    assert kept_by == ({1, 2} if abi == "event" else {1})
