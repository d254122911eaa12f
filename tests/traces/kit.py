"""What the directed traces are written with: short words for a recorder's operations.

Decides: how a node is set up, what of debugfs two runs can share.
May not know: what a result should be. A story only asks; the kernel answers, and the emulator is
held to what it said.
"""

from __future__ import annotations

from typing import Any

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import (
    Command,
    Layout,
    LockRequest,
    LockspaceRequest,
    PurgeRequest,
    encode_request,
)
from dlm.terms import LockFlag, LockMode
from dlm.trace import Recorder, Result

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag

CLUSTER = "config/dlm/cluster"
READ_SIZE = 104
"""Bytes of the largest result: 72, and 32 of value block."""

LOCKS_COLUMNS = [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13]
"""Columns of ``<ls>_locks`` without pid (3) and time (10)."""

ALL_COLUMNS = [0, 2, 3, *range(5, 15), *range(17, 36)]
"""Columns of ``<ls>_all`` without a resource's pointer (1), a lock's pid (4) and times (15, 16)."""

VALUE_COLUMNS = [0, *range(2, 20)]
"""Columns of ``<ls>``: (INVALID) behind a value block, no resource's pointer (1)."""

HOLE = 0x55443322
"""A number that stands where a saved one will be put."""


def saved(request: bytes, name: str) -> str:
    """Return a request in hexadecimal, with a saved value in the place of ``HOLE``."""
    return request.hex().replace(HOLE.to_bytes(4, "little").hex(), f"${{{name}:u32}}")


def create(name: str | bytes, flags: int = 0, *, layout: Layout = Layout.NATIVE) -> bytes:
    """Return the bytes of a CREATE_LOCKSPACE request."""
    text = name.encode() if isinstance(name, str) else name
    request = LockspaceRequest(command=Command.CREATE_LOCKSPACE, flags=flags, name=text)
    return encode_request(request, layout=layout)


def remove(minor: int, flags: int = 0) -> bytes:
    """Return the bytes of a REMOVE_LOCKSPACE request."""
    request = LockspaceRequest(command=Command.REMOVE_LOCKSPACE, flags=flags, minor=minor)
    return encode_request(request)


def lock(
    name: bytes = b"", mode: int = 0, flags: int = 0, *, layout: Layout = Layout.NATIVE, **more: Any
) -> bytes:
    """Return the bytes of a LOCK request; ``more`` are fields of ``LockRequest``."""
    fields: dict[str, Any] = {
        "command": Command.LOCK,
        "castaddr": 0x1000,
        "castparam": 0x1001,
        "bastaddr": 0x2000,
        "bastparam": 0x2001,
        "lksb": 0x3000,
        "name": name,
        "mode": mode,
        "flags": flags,
    }
    fields |= more
    if "value" in fields:
        fields["value"] = fields["value"].ljust(32, b"\0")
    return encode_request(LockRequest(**fields), layout=layout)


def unlock(lock_id: int, flags: int = 0, *, layout: Layout = Layout.NATIVE, **more: Any) -> bytes:
    """Return the bytes of an UNLOCK request."""
    fields: dict[str, Any] = {
        "command": Command.UNLOCK,
        "lock_id": lock_id,
        "castparam": 0x1001,
        "lksb": 0x3000,
        "flags": flags,
    }
    fields |= more
    if "value" in fields:
        fields["value"] = fields["value"].ljust(32, b"\0")
    return encode_request(LockRequest(**fields), layout=layout)


class Tape:
    """A recorder's operations on one node, by short names.

    Every call is one line of the trace, unless it says otherwise.
    """

    def __init__(self, recorder: Recorder, *, node: int = 1, address: str = "127.0.0.1") -> None:
        self.recorder = recorder
        self.kernel = recorder.header.kernel
        self.number = node
        self.address = address
        self._node = {"node": node} if recorder.header.nodes > 1 else {}
        self._names = 0

    def do(self, do: str, **fields: Any) -> Result:
        """Do one operation."""
        given = {k.rstrip("_"): v for k, v in fields.items() if v is not None}
        return self.recorder.do({"do": do, **self._node, **given})

    def name(self, stem: str) -> str:
        """Return a name that nothing else on this node has; no line."""
        self._names += 1
        return f"{stem}{self._names}"

    # ---- trees ----

    def mkdir(self, *paths: str) -> None:
        """Make directories, a line each."""
        for path in paths:
            self.do("mkdir", path=path)

    def rmdir(self, *paths: str) -> None:
        """Remove directories, a line each."""
        for path in paths:
            self.do("rmdir", path=path)

    def put(self, path: str, value: str | bytes, async_: str | None = None) -> Result:
        """Write an attribute."""
        if isinstance(value, bytes):
            return self.do("put", path=path, hex=value.hex(), async_=async_)
        return self.do("put", path=path, text=value, async_=async_)

    def get(self, *paths: str, columns: list[int] | None = None) -> str:
        """Read attributes, a line each; return the last one's text, "" where it is refused."""
        text = ""
        for path in paths:
            text = self.do("get", path=path, columns=columns).get("text", "")
        return text

    def list(self, *paths: str) -> None:
        """List directories, a line each."""
        for path in paths:
            self.do("list", path=path)

    def mode(self, *paths: str) -> None:
        """Look at modes, a line each."""
        for path in paths:
            self.do("mode", path=path)

    def settle(self) -> None:
        """Wait until nothing moves."""
        self.do("settle")

    def uevents(self, count: int) -> None:
        """Take so many events, a line each."""
        for _ in range(count):
            self.do("uevent")

    # ---- a node ----

    def comm(self, nodeid: int, address: str | None, *, local: bool = False) -> str:
        """Make the comm of a node; several lines. Return its directory."""
        path = f"{CLUSTER}/comms/{nodeid}"
        self.mkdir(path)
        self.put(f"{path}/nodeid", f"{nodeid}\n")
        if address is not None:
            self.put(f"{path}/addr", encode_sockaddr(address))
        if local:
            self.put(f"{path}/local", "1\n")
        return path

    def configure(self) -> None:
        """Make the cluster and this node's own comm; toss_secs is high: time does not show."""
        self.mkdir(CLUSTER)
        self.put(f"{CLUSTER}/toss_secs", "100000\n")
        self.put(f"{CLUSTER}/scan_secs", "100000\n")
        self.comm(self.number, self.address, local=True)

    def member(self, lockspace: str, nodeid: int, weight: int = 1) -> str:
        """Add a member to the configuration of a lockspace whose directory is there."""
        path = f"{CLUSTER}/spaces/{lockspace}/nodes/{nodeid}"
        self.mkdir(path)
        self.put(f"{path}/nodeid", f"{nodeid}\n")
        if weight != 1:
            self.put(f"{path}/weight", f"{weight}\n")
        return path

    def control(self) -> str:
        """Open dlm-control, and return its name."""
        name = self.name("control")
        self.do("open", device="dlm-control", as_=name)
        return name

    def begin_create(
        self, fd: str, name: str = "test", flags: int = 0, *, save: str = "minor"
    ) -> str:
        """Begin CREATE_LOCKSPACE and wait until it sleeps; return the call's name."""
        call = self.name("create")
        self.do("write", fd=fd, hex=create(name, flags).hex(), async_=call, save=save)
        self.settle()
        return call

    def join(self, call: str, name: str = "test") -> None:
        """Start a lockspace, answer the join, wait for the return of its create."""
        self.put(f"dlm/{name}/control", "1\n")
        self.put(f"dlm/{name}/event_done", "0\n")
        self.do("wait", async_=call)
        self.settle()

    def up(self, name: str = "test", *members: int, save: str = "minor") -> str:
        """Bring a lockspace up on a configured node; return the name of the control file."""
        self.mkdir(f"{CLUSTER}/spaces/{name}")
        for nodeid in members or (self.number,):
            self.member(name, nodeid)
        fd = self.control()
        self.join(self.begin_create(fd, name, save=save), name)
        return fd

    def release(self, fd: str, name: str = "test", flags: int = 2, saved_as: str = "minor") -> str:
        """Begin REMOVE_LOCKSPACE and answer the leave; return the call's name."""
        call = self.name("remove")
        request = saved(remove(HOLE, flags), saved_as)
        self.do("write", fd=fd, hex=request, async_=call)
        self.settle()
        self.put(f"dlm/{name}/event_done", "0\n")
        return call

    def down(self, fd: str, name: str = "test", *, saved_as: str = "minor") -> None:
        """Remove a lockspace and wait for the end."""
        self.do("wait", async_=self.release(fd, name, saved_as=saved_as))
        self.list("dlm")

    def stop(self, name: str = "test") -> None:
        """Stop a lockspace."""
        self.put(f"dlm/{name}/control", "0\n")

    def start(self, name: str = "test") -> None:
        """Start it and wait for the end of its recovery."""
        self.put(f"dlm/{name}/control", "1\n")
        self.settle()
        self.get(f"dlm/{name}/recover_status")

    # ---- what is there ----

    def locks(self, name: str = "test") -> None:
        """Look at the locks, and at the order on their queues."""
        self.get(f"debug/dlm/{name}_locks", columns=LOCKS_COLUMNS)
        self.get(f"debug/dlm/{name}", columns=[0])

    def everything(self, name: str = "test") -> None:
        """Look at all of resources and locks that two runs can share."""
        self.get(f"debug/dlm/{name}_all", columns=ALL_COLUMNS)

    # ---- files ----

    def file(
        self,
        name: str | None = None,
        *,
        lockspace: str = "test",
        process: str | None = None,
        flags: list[str] | None = None,
    ) -> File:
        """Open the device of a lockspace."""
        name = name or self.name("f")
        self.do("open", device=f"dlm_{lockspace}", as_=name, process=process, flags=flags)
        return File(self, name)


class File:
    """An open file on a lockspace's device."""

    def __init__(self, tape: Tape, name: str) -> None:
        self.tape = tape
        self.name = name

    def write(self, request: bytes | str, async_: str | None = None) -> int:
        """Write a request; return what that returned, 0 when it was refused or sleeps."""
        digits = request if isinstance(request, str) else request.hex()
        result = self.tape.do("write", fd=self.name, hex=digits, async_=async_)
        returned: int = result.get("ret", 0)
        return returned

    def lock(self, name: bytes, mode: int, flags: int = 0, **more: Any) -> int:
        """Request a lock; return its id."""
        return self.write(lock(name, mode, flags, **more))

    def convert(self, lock_id: int, mode: int, flags: int = 0, **more: Any) -> int:
        """Convert a lock."""
        return self.write(lock(b"", mode, flags | F.CONVERT, lock_id=lock_id, **more))

    def unlock(self, lock_id: int, flags: int = 0, **more: Any) -> int:
        """Unlock."""
        return self.write(unlock(lock_id, flags, **more))

    def cancel(self, lock_id: int, flags: int = 0) -> int:
        """Cancel."""
        return self.unlock(lock_id, flags | F.CANCEL)

    def deadlock(self, lock_id: int, flags: int = 0) -> int:
        """Cancel as a victim of a deadlock."""
        request = LockRequest(command=Command.DEADLOCK, lock_id=lock_id, flags=flags)
        return self.write(encode_request(request))

    def adopt(self, name: bytes, mode: int, flags: int = F.PERSISTENT, **more: Any) -> int:
        """Take over an orphan."""
        return self.lock(name, mode, F.ORPHAN | flags, **more)

    def purge(self, nodeid: int, pid: int) -> int:
        """Purge orphans."""
        return self.write(encode_request(PurgeRequest(nodeid=nodeid, pid=pid)))

    def purge_own(self) -> int:
        """Purge this process's locks of this file."""
        request = encode_request(PurgeRequest(nodeid=0, pid=HOLE))
        return self.write(saved(request, "pid"))

    def read(self, size: int = READ_SIZE) -> str:
        """Read once; return what came, in hexadecimal, "" for a refusal."""
        got: str = self.tape.do("read", fd=self.name, size=size).get("hex", "")
        return got

    def results(self, size: int = READ_SIZE) -> None:
        """Read until nothing is left."""
        while self.read(size):
            pass

    def poll(self) -> None:
        """Look at the event mask."""
        self.tape.do("poll", fd=self.name)

    def close(self) -> None:
        """Close the file."""
        self.tape.do("close", fd=self.name)
