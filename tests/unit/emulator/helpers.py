"""The shortest way to a configured cluster, in raw writes, for the tests of the emulator."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import (
    Command,
    LockRequest,
    LockResult,
    LockspaceRequest,
    decode_result,
    encode_request,
)
from dlm.emulator import Cluster
from dlm.emulator.misc import MiscFile
from dlm.emulator.pending import Pending
from dlm.emulator.process import Process
from dlm.errors import errno_name
from dlm.ports import DeviceWrite
from dlm.terms import ReleaseFlag

NAMES = ("nodea", "nodeb", "nodec")
ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(NAMES, 1)}
CLUSTER = "config/dlm/cluster"
NL, CR, CW, PR, PW, EX = range(6)


@contextmanager
def refused(number: int):  # type: ignore[no-untyped-def]
    """Expect an ``OSError`` with exactly this errno."""
    with pytest.raises(OSError) as caught:
        yield
    assert errno_name(caught.value.errno or 0) == errno_name(number)


def one_node(*, kernel: str = "6.1", seed: int = 0) -> Cluster:
    """Return a cluster of one node, nothing configured."""
    return Cluster({"nodea": ADDRESSES["nodea"]}, kernel=kernel, seed=seed)


def three_nodes(*, kernel: str = "6.1", seed: int = 0, keep_trace: bool = False) -> Cluster:
    """Return a cluster of three nodes, nothing configured."""
    return Cluster(ADDRESSES, kernel=kernel, seed=seed, keep_trace=keep_trace)


def add_comm(process: Process, nodeid: int, address: str, *, local: bool = False) -> None:
    """Make the comm of a node."""
    path = f"{CLUSTER}/comms/{nodeid}"
    process.make_directory(path)
    process.write_attribute(f"{path}/nodeid", b"%d\n" % nodeid)
    process.write_attribute(f"{path}/addr", encode_sockaddr(address))
    if local:
        process.write_attribute(f"{path}/local", b"1\n")


def set_up(process: Process, number: int, others: Iterable[int] = (1, 2, 3)) -> Process:
    """Make the cluster and the comms of these nodes; ``number`` is this one."""
    process.make_directory(CLUSTER)
    for nodeid in others:
        add_comm(process, nodeid, f"10.0.0.{nodeid}", local=nodeid == number)
    return process


def set_members(process: Process, members: Iterable[int], lockspace: str = "test") -> None:
    """Make the node directories of a lockspace be these, touching no other."""
    wanted = {str(member) for member in members}
    space = f"{CLUSTER}/spaces/{lockspace}"
    if lockspace not in process.list_directory(f"{CLUSTER}/spaces"):
        process.make_directory(space)
    present = set(process.list_directory(f"{space}/nodes"))
    for name in sorted(present - wanted):
        process.remove_directory(f"{space}/nodes/{name}")
    for name in sorted(wanted - present):
        process.make_directory(f"{space}/nodes/{name}")
        process.write_attribute(f"{space}/nodes/{name}/nodeid", name.encode())


def create_request(name: str = "test", flags: int = 0) -> bytes:
    """Return the bytes of CREATE_LOCKSPACE."""
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, flags=flags, name=name.encode())
    return encode_request(request)


def remove_request(minor: int, flags: int = ReleaseFlag.FORCEFREE) -> bytes:
    """Return the bytes of REMOVE_LOCKSPACE."""
    return encode_request(LockspaceRequest(Command.REMOVE_LOCKSPACE, flags=flags, minor=minor))


def lock_request(name: bytes, mode: int = EX, flags: int = 0) -> bytes:
    """Return the bytes of LOCK."""
    return encode_request(
        LockRequest(Command.LOCK, mode=mode, flags=flags, castaddr=1, lksb=1, bastaddr=2, name=name)
    )


def unlock_request(lock_id: int) -> bytes:
    """Return the bytes of UNLOCK."""
    return encode_request(LockRequest(Command.UNLOCK, lock_id=lock_id, castparam=3, lksb=1))


def submit_create(process: Process, name: str = "test", flags: int = 0) -> Pending:
    """Begin CREATE_LOCKSPACE, detached."""
    control = process.open_device("dlm-control")
    return control.submit(DeviceWrite(create_request(name, flags)), detached=True)


def submit_remove(process: Process, minor: int, flags: int = ReleaseFlag.FORCEFREE) -> Pending:
    """Begin REMOVE_LOCKSPACE, detached."""
    control = process.open_device("dlm-control")
    return control.submit(DeviceWrite(remove_request(minor, flags)), detached=True)


def start(process: Process, lockspace: str = "test") -> None:
    """Write control 1."""
    process.write_attribute(f"dlm/{lockspace}/control", b"1")


def stop(process: Process, lockspace: str = "test") -> None:
    """Write control 0."""
    process.write_attribute(f"dlm/{lockspace}/control", b"0")


def answer(process: Process, lockspace: str = "test", result: bytes = b"0") -> None:
    """Write event_done."""
    process.write_attribute(f"dlm/{lockspace}/event_done", result)


def status(process: Process, lockspace: str = "test") -> str:
    """Return recover_status."""
    return process.read_attribute(f"dlm/{lockspace}/recover_status").decode().strip()


def running_alone(process: Process, lockspace: str = "test") -> int:
    """Bring up a lockspace with node 1 as its only member on a node without configuration."""
    set_up(process, 1, [1])
    return join_alone(process, lockspace)


def join_alone(process: Process, lockspace: str = "test") -> int:
    """Bring up one more lockspace with node 1 as its only member; return its minor."""
    set_members(process, [1], lockspace)
    pending = submit_create(process, lockspace)
    start(process, lockspace)
    answer(process, lockspace)
    minor = pending.result()
    assert isinstance(minor, int)
    return minor


def running_together(cluster: Cluster, lockspace: str = "test") -> list[Process]:
    """Bring up a lockspace on all three nodes; return a process on each."""
    processes = [cluster.node(name).process() for name in NAMES]
    for number, process in enumerate(processes, 1):
        set_up(process, number)
        set_members(process, (1, 2, 3), lockspace)
    pendings = [submit_create(process, lockspace) for process in processes]
    for process in processes:
        start(process, lockspace)
        answer(process, lockspace)
    for pending in pendings:
        pending.result()
    return processes


def results(file: MiscFile) -> list[LockResult]:
    """Read what a file has to give."""
    found = []
    while file.poll(0):
        try:
            found.append(decode_result(file.read(104)))
        except BlockingIOError:
            break
    return found


def headers(source: object) -> list[str]:
    """Return the headers of the kernel events that have come."""
    return [event.header for event in source.read_nowait()]  # type: ignore[attr-defined]
