"""Which part of a machine pyfakefs plays, and which the emulated node."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import struct
from pathlib import Path

import pytest

from dlm.abi.device import VERSION_SIZE, decode_version
from dlm.abi.node2005 import NODE_VERSION, Ioctl
from dlm.errors import StalledError
from dlm.kernel import KernelBackend
from dlm.ports import DeviceClose, DeviceWrite, OpenFlags, WriteAttribute
from tests.contract.machine import LockFile, Machine, create_request, lock_request, refused
from tests.fakefs.files import Files
from tests.fakefs.nodes import FakeCluster, FakeNode
from tests.fakefs.syscalls import FakeSyscalls

COMM = "config/dlm/cluster/comms/1"
ATTRIBUTES = ["addr", "addr_list", "local", "mark", "nodeid"]


@pytest.fixture
def node() -> FakeNode:
    """A node of today."""
    return FakeCluster({"node1": "127.0.0.1"}).node("node1")


@pytest.fixture
def machine(node: FakeNode) -> Machine:
    """A process on it."""
    return Machine(node.process())


def keeps(node: FakeNode, path: str) -> list[str]:
    """Return what pyfakefs has in a directory at this moment, the node not asked."""
    return sorted(node.files.os.listdir(f"/sys/kernel/{path}"))


# ---- directories --------------------------------------------------------------------------------


def test_mkdir_makes_the_attributes_appear_and_rmdir_takes_them_away(
    node: FakeNode, machine: Machine
) -> None:
    """A configfs group is there with its attributes as soon as mkdir(2) returns."""
    machine.mkdir("config/dlm/cluster", COMM)
    assert keeps(node, COMM) == ATTRIBUTES
    machine.rmdir(COMM)
    assert keeps(node, "config/dlm/cluster/comms") == []


def test_modes_and_inodes_are_the_nodes(node: FakeNode, machine: Machine) -> None:
    """stat(2) says of the fake files what the node says, and of a group made again that it is."""
    machine.mkdir("config/dlm/cluster", COMM)
    first = machine.backend.stat(COMM)
    assert first == node.twin().stat(COMM)
    assert machine.permissions(f"{COMM}/addr") == 0o200
    machine.rmdir(COMM)
    machine.mkdir(COMM)
    assert machine.backend.stat(COMM).inode != first.inode


def test_what_was_made_anew_unseen_is_another(node: FakeNode, machine: Machine) -> None:
    """A group that went and came back between two looks has the new one's inode number."""
    machine.mkdir("config/dlm/cluster", COMM)
    first = machine.backend.stat(COMM)
    twin = node.twin()
    twin.remove_directory(COMM)
    twin.make_directory(COMM)
    assert machine.backend.stat(COMM).inode == twin.stat(COMM).inode != first.inode


def test_refusals_of_mkdir_are_the_nodes(machine: Machine) -> None:
    """Sysfs makes no directories; the error names the path."""
    with pytest.raises(PermissionError) as caught:
        machine.mkdir("dlm/more")
    assert (caught.value.errno, caught.value.filename) == (errno.EPERM, "/sys/kernel/dlm/more")


def test_what_another_process_makes_is_there_at_once(node: FakeNode, machine: Machine) -> None:
    """The node is looked at before every call on a path, so nothing is out of date."""
    Machine(node.process()).bring_up("test")
    assert machine.backend.list_directory("dlm") == ["test"]
    assert "dlm_test" in machine.backend.misc_devices()


# ---- attributes ---------------------------------------------------------------------------------


def test_an_attribute_is_asked_when_it_is_read(node: FakeNode, machine: Machine) -> None:
    """A read of an open file gives the text of that moment, not of the open."""
    lockspace = machine.bring_up("test")
    calls = node.syscalls()
    descriptor = calls.open("/sys/kernel/dlm/test/recover_status", os.O_RDONLY)
    lockspace.stop()
    assert calls.read(descriptor, 4096) == b"0\n"
    assert calls.read(descriptor, 4096) == b""


def test_a_text_comes_in_pieces(node: FakeNode, machine: Machine) -> None:
    """Reads smaller than the text give one piece after the other."""
    machine.bring_up("test")
    calls = node.syscalls()
    descriptor = calls.open("/sys/kernel/dlm/test/recover_status", os.O_RDONLY)
    assert [calls.read(descriptor, 2) for _ in range(3)] == [b"ff", b"\n", b""]


def test_a_write_is_one_write(node: FakeNode, machine: Machine) -> None:
    """One write_attribute of the seam is open, one write(2), close; the node's trace has one."""
    machine.bring_up("test")
    node.files.calls.clear()
    machine.write("dlm/test/control", "0")
    path = "/sys/kernel/dlm/test/control"
    assert [call[:2] for call in node.files.calls] == [
        ("open", path),
        ("write", path),
        ("close", path),
    ]


def test_a_write_returns_what_the_node_returns(node: FakeNode, machine: Machine) -> None:
    """A lock id is no length."""
    file = machine.bring_up("test").open()
    request = lock_request(name=b"resource", mode=5)
    assert file.device.write(request) == 1 != len(request)
    assert [call[0] for call in node.files.calls[-2:]] == ["open", "write"]


@pytest.mark.parametrize(
    ("path", "text", "number"),
    [
        ("config/dlm/cluster/comms/1/addr", b"short", errno.EINVAL),
        ("config/dlm/cluster/protocol", b"7\n", errno.EINVAL),
        ("dlm/test/id", b"text", errno.EINVAL),
    ],
)
def test_refusals_of_a_write_are_the_nodes(
    machine: Machine, path: str, text: bytes, number: int
) -> None:
    """The node's errno, with the path that was written."""
    machine.bring_up("test")
    with pytest.raises(OSError) as caught:
        machine.write(path, text)
    assert (caught.value.errno, caught.value.filename) == (number, f"/sys/kernel/{path}")


@pytest.mark.parametrize(
    ("attribute", "flags"),
    [("control", os.O_RDONLY), ("control", os.O_RDWR), ("recover_status", os.O_WRONLY)],
)
def test_not_even_root_opens_against_the_mode(
    node: FakeNode, machine: Machine, attribute: str, flags: int
) -> None:
    """Sysfs has no read for mode 0200 and no write for 0444."""
    machine.bring_up("test")
    with refused(errno.EACCES):
        node.syscalls().open(f"/sys/kernel/dlm/test/{attribute}", flags)


# ---- users --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["dlm/test/control", "debug/dlm/test_all"])
def test_an_ordinary_user_is_refused(node: FakeNode, machine: Machine, path: str) -> None:
    """By pyfakefs, from the modes: of the file, or of a directory on the way."""
    machine.bring_up("test")
    with refused(errno.EACCES):
        node.process(privileged=False).write_attribute(path, b"0")


def test_an_ordinary_user_opens_no_device(node: FakeNode) -> None:
    """A device node is root's, mode 0600."""
    with refused(errno.EACCES):
        node.process(privileged=False).open_device("dlm-control")


# ---- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", ["/dev/misc", "/dev"])
def test_a_device_is_found_where_it_lies(devices: str) -> None:
    """With libdlm's udev rule in /dev/misc, without it in /dev."""
    node = FakeCluster({"node1": "127.0.0.1"}, devices=devices).node("node1")
    control = node.process().open_device("dlm-control")
    assert decode_version(control.read(VERSION_SIZE)) == (6, 0, 2)
    assert stat.S_ISCHR(node.files.os.stat(f"{devices}/dlm-control").st_mode)


def test_device_nodes_come_and_go(node: FakeNode, machine: Machine) -> None:
    """A lockspace's device node is there as long as the lockspace."""
    lockspace = machine.bring_up("test")
    lockspace.open().close()
    assert "dlm_test" in node.files.os.listdir("/dev/misc")
    lockspace.remove()
    with refused(errno.ENOENT):
        machine.backend.open_device("dlm_test")


def test_an_ioctl_reaches_the_node() -> None:
    """dlm-node of 2005 compares versions; dlm-control knows no ioctl."""
    process = FakeCluster({"node1": "127.0.0.1"}, abi="event").node("node1").process()
    file = process.open_device("dlm-node")
    asked = struct.pack("=3I", *NODE_VERSION)
    assert file.ioctl(Ioctl.VERSION, asked) == (0, asked)
    with refused(errno.EINVAL):
        file.ioctl(Ioctl.VERSION, struct.pack("=3I", 9, 0, 0))
    with refused(errno.ENOTTY):
        process.open_device("dlm-control").ioctl(Ioctl.VERSION, bytes(276))


def test_poll_and_select_see_the_nodes_file(machine: Machine) -> None:
    """poll(2) of the room asks the node, and fileno() is a descriptor that a loop can watch."""
    file = machine.bring_up("test").open()
    watched = select.poll()
    watched.register(file.device.fileno(), select.POLLIN)
    assert (file.poll(), watched.poll(0)) == (0, [])
    file.lock(b"resource", 5)
    assert file.poll() == 0x41
    assert [mask for _, mask in watched.poll(0)] == [select.POLLIN]


def test_flags_of_an_open_reach_the_node(machine: Machine) -> None:
    """Without NONBLOCK a read waits, here for ever; a file open for writing is not read."""
    lockspace = machine.bring_up("test")
    with refused(errno.EAGAIN):
        lockspace.open().device.read(104)
    with pytest.raises(StalledError):
        lockspace.open(flags=OpenFlags.RDWR).device.read(104)
    with refused(errno.EBADF):
        lockspace.open(flags=OpenFlags.WRONLY | OpenFlags.NONBLOCK).device.read(104)


def test_a_closed_file_is_closed_on_the_node(node: FakeNode, machine: Machine) -> None:
    """Locks of a file go with its close, and those of a process with its end."""
    lockspace = machine.bring_up("test")
    file = lockspace.open()
    file.granted(b"first", 5)
    file.close()
    assert [each for each in lockspace.resources() if each.locks] == []
    other = node.process()
    LockFile(other.open_device("dlm_test")).granted(b"second", 5)
    other.close()
    assert [each for each in lockspace.resources() if each.locks] == []


# ---- calls that sleep ---------------------------------------------------------------------------


def test_a_create_sleeps_as_the_nodes_does(machine: Machine) -> None:
    """It is pending until it is answered; its return value is the minor."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create()
    assert machine.still_sleeps(pending)
    machine.finish_create(lockspace, pending)
    assert machine.backend.misc_devices()["dlm_test"] == lockspace.minor


def test_a_submitted_refusal_comes_with_the_result(machine: Machine) -> None:
    """Of an attribute that is not there, and of a device's write."""
    pending = machine.backend.submit(WriteAttribute("dlm/none/control", b"0"))
    assert pending.done()
    with refused(errno.ENOENT):
        pending.result()
    control = machine.control()
    sent = control.submit(DeviceWrite(create_request("test")))
    with pytest.raises(OSError) as caught:
        sent.result()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTCONN, "/dev/misc/dlm-control")


def test_a_submitted_write_is_one_write(node: FakeNode, machine: Machine) -> None:
    """It reaches the node once, and returns what the node returns."""
    machine.bring_up("test")
    node.files.calls.clear()
    assert machine.backend.submit(WriteAttribute("dlm/test/control", b"0")).result() == 1
    assert [call[0] for call in node.files.calls if call[0] == "write"] == ["write"]


def test_a_submitted_close_is_the_last(machine: Machine) -> None:
    """The file is closed for its holder at once, and sleeps while its lockspace is stopped."""
    lockspace = machine.bring_up("test")
    file = lockspace.open()
    file.granted(b"resource", 5)
    lockspace.stop()
    pending = file.device.submit(DeviceClose())
    with refused(errno.EBADF):
        file.device.read(104)
    assert machine.still_sleeps(pending)
    lockspace.start()
    machine.eventually(pending.done, "the close")


# ---- events, time, the rest of the machine ------------------------------------------------------


def test_events_come_through_the_rooms_own_reader(machine: Machine) -> None:
    """Datagrams of the node, parsed by dlm.kernel.netlink; its descriptor can be watched."""
    source = machine.backend.uevents()
    assert source.read_nowait() == []
    assert select.select([source], [], [], 0)[0] == []
    machine.bring_up("test")
    assert select.select([source], [], [], 0)[0] == [source]
    assert source.wait(0)
    assert "add@/kernel/dlm/test" in [event.header for event in source.read_nowait()]
    source.close()


def test_an_event_loop_can_wait_for_them(machine: Machine) -> None:
    """Asyncio's add_reader takes the subscription as it takes a real one."""

    async def wait() -> None:
        source = machine.backend.uevents()
        came = asyncio.Event()
        asyncio.get_running_loop().add_reader(source.fileno(), came.set)
        machine.bring_up("test")
        await came.wait()
        asyncio.get_running_loop().remove_reader(source.fileno())
        source.close()

    asyncio.run(wait())


def test_a_pause_is_virtual(machine: Machine) -> None:
    """An hour of the node's time costs nothing."""
    before = machine.backend.now()
    machine.backend.pause(3600)
    assert machine.backend.now() - before == pytest.approx(3600)


def test_the_controller_shows_as_a_socket(node: FakeNode) -> None:
    """/proc/net/unix names dlm_controld's abstract socket, or does not."""
    process = node.process()
    assert process.controller() is None
    node.controller = "dlm_controld"
    assert process.controller() == "dlm_controld"


def test_addresses_are_the_nodes() -> None:
    """Not this machine's."""
    process = FakeCluster({"node1": "192.0.2.77"}).node("node1").process()
    assert process.local_addresses() == ("192.0.2.77", "127.0.0.1", "::1")


def test_the_state_directory_is_pyfakefs_and_roots(node: FakeNode) -> None:
    """Mode 0700, a file in it 0600, replaced in one step; what is read is what was written."""
    state = node.process().state_directory()
    with state.lock():
        state.write("test", b"one")
        state.write("test", b"two")
    modes = {path: node.files.os.stat(path).st_mode for path in ("/run/dlm", "/run/dlm/test")}
    assert {path: stat.S_IMODE(mode) for path, mode in modes.items()} == {
        "/run/dlm": 0o700,
        "/run/dlm/test": 0o600,
    }
    assert state.read("test") == b"two"
    assert node.files.os.listdir("/run/dlm") == ["test"]
    state.remove("test")
    assert state.read("test") is None
    with refused(errno.EACCES):
        node.process(privileged=False).state_directory().read("test")


def test_its_lock_is_let_go_with_the_descriptor(node: FakeNode) -> None:
    """A second process gets it after the first, and would wait for ever before."""
    first, second = (node.process().state_directory() for _ in range(2))
    with first.lock(), pytest.raises(AssertionError, match="wait for ever"), second.lock():
        pass
    with second.lock():
        pass


def test_a_crash_empties_all_of_it() -> None:
    """After a boot there is no state, no lockspace, and another boot id."""
    cluster = FakeCluster({"node1": "127.0.0.1"})
    node = cluster.node("node1")
    before = Machine(node.process())
    before.bring_up("test")
    state = before.backend.state_directory()
    state.write("test", b"one")
    first = state.boot_id()
    cluster.crash("node1")
    with refused(errno.EIO):
        before.read("dlm/test/id")
    cluster.restart("node1")
    after = node.process()
    assert after.list_directory("dlm") == []
    assert after.state_directory().read("test") is None
    assert after.state_directory().boot_id() not in {first, ""}


def test_no_module_no_files(node: FakeNode) -> None:
    """What the node unloads goes from every tree."""
    process = node.process()
    node.unload_module()
    for path in ("dlm", "config/dlm", "debug/dlm"):
        with refused(errno.ENOENT):
            process.list_directory(path)
    with refused(errno.ENOENT):
        process.open_device("dlm-control")


def test_without_a_node_there_are_only_files(tmp_path: Path) -> None:
    """A machine that nothing was loaded into has no DLM, and does not show this one's files."""
    process = KernelBackend(syscalls=FakeSyscalls(Files()))
    with refused(errno.ENOENT):
        process.stat("dlm")
    with refused(errno.ENOENT):
        process.misc_devices()
    assert not Files().os.path.exists(str(tmp_path))
