"""A small cluster with a control on each node, for the tests of dlm.control.

Decides: names, ids and addresses that all these tests share.
May not know: what any test asserts.
"""

from __future__ import annotations

from dlm.abi.device import (
    RESULT_SIZE_MAX,
    Command,
    LockRequest,
    LockResult,
    decode_result,
    encode_request,
)
from dlm.control import Control
from dlm.emulator import Cluster
from dlm.ports import Backend, Device
from dlm.terms import LockMode

ADDRESSES = {"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"}
IDS = {name: number for number, name in enumerate(ADDRESSES, 1)}
COMMS = "config/dlm/cluster/comms"
NODES = "config/dlm/cluster/spaces/test/nodes"


class World:
    """A cluster whose nodes are configured; each node has one process that controls it."""

    def __init__(self, *names: str, kernel: str = "6.1", abi: str = "configfs") -> None:
        self.cluster = Cluster({name: ADDRESSES[name] for name in names}, kernel=kernel, abi=abi)
        self.names = names
        self.processes: dict[str, Backend] = {}
        self.notes: list[str] = []
        for name in names:
            self.set_up(name)

    def set_up(self, name: str) -> None:
        """Configure one node, as steps 3 and 4 of the usage document do."""
        self.processes[name] = self.cluster.node(name).process()
        control = self.control(name)
        control.set_local(IDS[name], ADDRESSES[name])
        for other in self.names:
            control.set_node(IDS[other], ADDRESSES[other])

    def control(self, name: str, *, force: bool = False, timeout: float | None = 30) -> Control:
        """Return a control of a node; its notes are kept in ``notes``."""
        return Control(self.processes[name], force=force, timeout=timeout, tell=self.notes.append)

    def start(self, event_nr: int = 1, *names: str, lockspace: str = "test") -> None:
        """Create (where it is not there) and start a lockspace on these nodes, and settle."""
        names = names or self.names
        members = [IDS[name] for name in names]
        for name in names:
            if lockspace not in self.processes[name].list_directory("dlm"):
                self.control(name).lockspace(lockspace).create()
        for name in names:
            self.control(name).lockspace(lockspace).start(event_nr, members)
        self.cluster.settle()

    def stop(self, *names: str) -> None:
        """Stop the lockspace on these nodes."""
        for name in names or self.names:
            self.control(name).lockspace("test").stop()

    def crash(self, name: str) -> None:
        """Cut a node's power, and let it boot again with nothing configured."""
        self.cluster.crash(name)
        self.cluster.restart(name)

    def text(self, name: str, path: str) -> str:
        """Return an attribute of a node."""
        return self.processes[name].read_attribute(path).decode()

    def tree(self, name: str) -> dict[str, str]:
        """Return all that can be read of a node's configfs and sysfs trees."""
        found: dict[str, str] = {}
        _walk(self.processes[name], "config", found)
        _walk(self.processes[name], "dlm", found)
        return found


def _walk(backend: Backend, path: str, found: dict[str, str]) -> None:
    try:
        names = backend.list_directory(path)
    except NotADirectoryError:
        try:
            found[path] = backend.read_attribute(path).decode()
        except PermissionError:
            found[path] = "(write only)"
        return
    found[path] = " ".join(names)
    for name in names:
        _walk(backend, f"{path}/{name}", found)


class Locker:
    """An application with one file on a lockspace: takes locks as libdlm would."""

    def __init__(self, backend: Backend, lockspace: str = "test") -> None:
        self.device: Device = backend.open_device(f"dlm_{lockspace}")

    def lock(self, name: bytes, mode: LockMode, flags: int = 0) -> int:
        """Request a lock; return its id."""
        request = LockRequest(mode=mode, flags=flags, castaddr=1, lksb=1, name=name)
        return self.device.write(encode_request(request))

    def unlock(self, lock_id: int) -> None:
        """Drop a lock."""
        self.device.write(encode_request(LockRequest(Command.UNLOCK, lock_id=lock_id)))

    def result(self, timeout: float = 10) -> LockResult | None:
        """Return the next result, None when none comes in time."""
        if not self.device.poll(timeout):
            return None
        return decode_result(self.device.read(RESULT_SIZE_MAX))
