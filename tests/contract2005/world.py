"""Nodes of 2005 in raw writes: the shortest way from nothing to a lockspace that runs.

Decides: how the tests of this directory speak to a node, in each of the two dialects.
May not know: the code of ``dlm.control``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import Command, LockRequest, LockResult, LockspaceRequest
from dlm.abi.device2005 import RESULT_SIZE_MAX, decode_result, encode_request
from dlm.abi.node2005 import Ioctl, NodeRequest, encode_node_request
from dlm.emulator import Cluster
from dlm.emulator.misc import MiscFile
from dlm.emulator.pending import Pending
from dlm.emulator.process import Process
from dlm.errors import errno_name
from dlm.ports import DeviceWrite, Uevent, UeventSource

ADDRESSES = {"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"}
NL, CR, CW, PR, PW, EX = range(6)
FORCEFREE = 2


@contextmanager
def refused(number: int) -> Iterator[None]:
    """Expect an ``OSError`` with exactly this errno."""
    with pytest.raises(OSError) as caught:
        yield
    assert errno_name(caught.value.errno or 0) == errno_name(number)


class Machine:
    """One node's process, and what can be done with it in raw writes."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.number = list(ADDRESSES).index(name) + 1
        self.process: Process = cluster.node(name).process()
        self.event = cluster.abi == "event"

    # ---- attributes -----------------------------------------------------------------------------

    def put(self, attribute: str, text: bytes, lockspace: str = "test") -> int:
        """Write an attribute of the lockspace; return what write(2) returned."""
        return self.process.write_attribute(f"dlm/{lockspace}/{attribute}", text)

    def get(self, attribute: str, lockspace: str = "test") -> bytes:
        """Read an attribute of the lockspace."""
        return self.process.read_attribute(f"dlm/{lockspace}/{attribute}")

    # ---- nodes ----------------------------------------------------------------------------------

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Open dlm-node, make one ioctl, close it."""
        file = self.process.open_device("dlm-node")
        try:
            return file.ioctl(request, argument)
        finally:
            file.close()

    def set_local(self, nodeid: int, address: str, weight: int = 0) -> None:
        """SET_LOCAL."""
        request = NodeRequest(nodeid, weight, encode_sockaddr(address))
        self.ioctl(Ioctl.SET_LOCAL, encode_node_request(request))

    def set_node(self, nodeid: int, address: str, weight: int = 1) -> None:
        """SET_NODE."""
        request = NodeRequest(nodeid, weight, encode_sockaddr(address))
        self.ioctl(Ioctl.SET_NODE, encode_node_request(request))

    def configure(self) -> None:
        """Say who this node and all others are."""
        self.set_local(self.number, ADDRESSES[self.name])
        for nodeid, address in enumerate(ADDRESSES.values(), 1):
            self.set_node(nodeid, address)

    # ---- lockspaces -----------------------------------------------------------------------------

    def create(self, name: str = "test", flags: int = 0) -> Pending:
        """Begin CREATE_LOCKSPACE, detached."""
        request = LockspaceRequest(Command.CREATE_LOCKSPACE, flags, 0, name.encode())
        return self.control(encode_request(request))

    def remove(self, minor: int, flags: int = FORCEFREE) -> Pending:
        """Begin REMOVE_LOCKSPACE, detached."""
        request = LockspaceRequest(Command.REMOVE_LOCKSPACE, flags, minor)
        return self.control(encode_request(request))

    def control(self, request: bytes) -> Pending:
        """Begin a write to dlm-control, detached."""
        return self.process.open_device("dlm-control").submit(DeviceWrite(request), detached=True)

    def stop(self) -> None:
        """Stop the lockspace."""
        self.put("stop" if self.event else "control", b"1" if self.event else b"0")

    def start(self, members: Sequence[int], number: int = 1) -> None:
        """Start it, as ``dlm_tool`` and the daemon of the time did; the join is answered, too."""
        self.put("members", " ".join(map(str, members)).encode() + b"\0")
        if self.event:
            self.put("start", b"%d" % number)
        else:
            self.put("control", b"1")

    def answer_leave(self) -> None:
        """Let a remove that waits go on."""
        self.put("terminate" if self.event else "event_done", b"1" if self.event else b"0")

    def run(self, name: str = "test") -> int:
        """Create a lockspace and run it alone; return its minor."""
        creating = self.create(name)
        self.put("members", b"%d" % self.number, name)
        if self.event:
            self.put("start", b"1", name)
            self.put("finish", b"1", name)
        else:
            self.put("control", b"1", name)
            self.put("event_done", b"0", name)
        return int(creating.result())

    # ---- locks ----------------------------------------------------------------------------------

    def open(self, name: str = "test") -> MiscFile:
        """Open the lockspace's device."""
        return self.process.open_device(f"dlm_{name}")


def lock_bytes(mode: int = EX, flags: int = 0, *, name: bytes = b"res", **fields: int) -> bytes:
    """Return the bytes of a LOCK with addresses 1 (completion), 2 (blocking) and 3 (status)."""
    given = {"castaddr": 1, "bastaddr": 2, "lksb": 3} | fields
    return encode_request(LockRequest(mode=mode, flags=flags, name=name, **given))  # type: ignore[arg-type]


def unlock_bytes(lock_id: int, flags: int = 0, **fields: int) -> bytes:
    """Return the bytes of an UNLOCK."""
    request = LockRequest(command=Command.UNLOCK, lock_id=lock_id, flags=flags, **fields)  # type: ignore[arg-type]
    return encode_request(request)


def results(file: MiscFile) -> list[LockResult]:
    """Read what has come."""
    found = []
    while file.poll(0):
        found.append(decode_result(file.read(RESULT_SIZE_MAX)))
    return found


def world(abi: str) -> Cluster:
    """Return three nodes of a dialect, nothing configured."""
    return Cluster(ADDRESSES, abi=abi)


def single(abi: str) -> Machine:
    """Return a configured node."""
    machine = Machine(world(abi), "nodea")
    machine.configure()
    return machine


def events(source: UeventSource) -> list[Uevent]:
    """Return the events of lockspaces that have come, not those of misc devices."""
    return [event for event in source.read_nowait() if "/kernel/dlm/" in event.header]


def headers(source: UeventSource) -> list[str]:
    """Return the headers of these events without their common end."""
    return [event.header.partition("@")[0] for event in events(source)]
