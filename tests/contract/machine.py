"""One machine as the contract tests use it: the order of raw writes, and raw lock requests.

Decides: the shortest way from nothing to a lockspace that runs, and how a test reads results.
May not know: which world (kernel or emulator) the backend belongs to, or ``dlm.control``, whose
own order of writes these tests must not lean on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.debugfs import LockEntry, ResourceEntry, parse_all
from dlm.abi.device import (
    Command,
    Layout,
    LockRequest,
    LockResult,
    LockspaceRequest,
    PurgeRequest,
    decode_result,
    encode_request,
)
from dlm.errors import errno_name
from dlm.ports import Backend, Device, DeviceWrite, OpenFlags, Pending, Uevent, UeventSource
from dlm.terms import ECANCEL, EUNLOCK, KernelProfile, LockFlag, LockMode, ReleaseFlag

NL, CR, CW, PR, PW, EX = LockMode

CLUSTER = "config/dlm/cluster"

CAST_ADDRESS, CAST_PARAMETER = 0x1000, 0x1001
BAST_ADDRESS, BAST_PARAMETER = 0x2000, 0x2001
LKSB = 0x3000

READ_SIZE = 104
"""Bytes of the largest result in the native layout: 72, and 32 of value block."""

SHORT_WHILE = 0.3
"""Seconds given to a call that should sleep, so that one that does not sleep is found out."""


@contextmanager
def refused(number: int) -> Iterator[None]:
    """Expect an ``OSError`` with exactly this errno."""
    with pytest.raises(OSError) as caught:
        yield
    got = caught.value.errno
    assert got == number, f"{errno_name(got or 0)} in place of {errno_name(number)}"


class Cast(NamedTuple):
    """A completion AST, as far as most tests look at it."""

    lock_id: int
    status: int = 0
    flags: int = 0


class Bast(NamedTuple):
    """A blocking AST, as far as most tests look at it."""

    lock_id: int
    mode: int


def unlocked(lock_id: int) -> Cast:
    """Return the completion that ends a lock."""
    return Cast(lock_id, -EUNLOCK)


def cancelled(lock_id: int) -> Cast:
    """Return the completion of a request that was cancelled."""
    return Cast(lock_id, -ECANCEL)


def brief(result: LockResult) -> Cast | Bast:
    """Return a result without its addresses and value block."""
    if result.bast_mode:
        return Bast(result.lock_id, result.bast_mode)
    return Cast(result.lock_id, result.status, result.flags)


def as_read(profile: KernelProfile, happened: Sequence[Cast | Bast]) -> list[Cast | Bast]:
    """Return results that nobody has read yet in the order in which a kernel gives them.

    ``happened`` is the order of events; with ``merged_results`` a lock's results come together.
    """
    if not profile.merged_results:
        return list(happened)
    locks = list(dict.fromkeys(result.lock_id for result in happened))
    return sorted(happened, key=lambda result: locks.index(result.lock_id))


def value_block(text: bytes) -> bytes:
    """Return a whole value block that begins with these bytes."""
    return text.ljust(32, b"\0")


class LockFile:
    """An open file on a lockspace's device."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def lock(
        self,
        name: bytes,
        mode: int,
        flags: int = 0,
        *,
        value: bytes = b"",
        castaddr: int = CAST_ADDRESS,
        castparam: int = CAST_PARAMETER,
        bastaddr: int = BAST_ADDRESS,
        lksb: int = LKSB,
        xid: int = 0,
    ) -> int:
        """Request a lock; return its id."""
        return self.device.write(
            lock_request(
                name=name,
                mode=mode,
                flags=flags,
                value=value,
                castaddr=castaddr,
                castparam=castparam,
                bastaddr=bastaddr,
                lksb=lksb,
                xid=xid,
            )
        )

    def granted(self, name: bytes, mode: int, flags: int = 0, *, value: bytes = b"") -> int:
        """Request a lock that is granted at once, read its completion, return its id."""
        lock_id = self.lock(name, mode, flags, value=value)
        assert self.results() == [Cast(lock_id)]
        return lock_id

    def convert(
        self,
        lock_id: int,
        mode: int,
        flags: int = 0,
        *,
        value: bytes = b"",
        castparam: int = CAST_PARAMETER,
        bastaddr: int = BAST_ADDRESS,
    ) -> int:
        """Convert a lock; return what the write returned."""
        return self.device.write(
            lock_request(
                lock_id=lock_id,
                mode=mode,
                flags=flags | LockFlag.CONVERT,
                value=value,
                castparam=castparam,
                bastaddr=bastaddr,
            )
        )

    def converted(self, lock_id: int, mode: int, flags: int = 0, *, value: bytes = b"") -> None:
        """Convert a lock, and read the completion that comes at once."""
        assert self.convert(lock_id, mode, flags, value=value) == 0
        assert self.results() == [Cast(lock_id)]

    def adopt(self, name: bytes, mode: int, flags: int = LockFlag.PERSISTENT) -> int:
        """Take over an orphan; return its id."""
        return self.lock(name, mode, LockFlag.ORPHAN | flags)

    def unlock(self, lock_id: int, flags: int = 0, *, value: bytes = b"") -> int:
        """Unlock by lock id; return what the write returned."""
        return self.device.write(unlock_request(lock_id, flags, value=value))

    def cancel(self, lock_id: int, flags: int = 0) -> int:
        """Cancel by lock id; return what the write returned."""
        return self.unlock(lock_id, flags | LockFlag.CANCEL)

    def deadlock(self, lock_id: int, flags: int = 0) -> int:
        """Cancel by lock id as a victim of a deadlock; return what the write returned."""
        request = LockRequest(command=Command.DEADLOCK, lock_id=lock_id, flags=flags)
        return self.device.write(encode_request(request))

    def purge(self, nodeid: int, pid: int) -> int:
        """Purge orphans, or this file's own locks; return what the write returned."""
        return self.device.write(encode_request(PurgeRequest(nodeid=nodeid, pid=pid)))

    def submit(self, request: bytes) -> Pending:
        """Begin a write that may sleep."""
        return self.device.submit(DeviceWrite(request))

    def raw_results(self, size: int = READ_SIZE) -> list[bytes]:
        """Read until nothing is left, with reads of this size."""
        found: list[bytes] = []
        while True:
            try:
                found.append(self.device.read(size))
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                return found

    def whole_results(self) -> list[LockResult]:
        """Read until nothing is left; return every field."""
        return [decode_result(data) for data in self.raw_results()]

    def results(self) -> list[Cast | Bast]:
        """Read until nothing is left; return the short form."""
        return [brief(result) for result in self.whole_results()]

    def values(self) -> list[bytes | None]:
        """Read until nothing is left; return only the value blocks, None where none came."""
        return [result.value for result in self.whole_results()]

    def poll(self) -> int:
        """Return the event mask of this moment."""
        return self.device.poll(0)

    def close(self) -> None:
        """Close the file."""
        self.device.close()


def lock_request(
    *,
    name: bytes = b"",
    mode: int = 0,
    flags: int = 0,
    lock_id: int = 0,
    value: bytes = b"",
    castaddr: int = CAST_ADDRESS,
    castparam: int = CAST_PARAMETER,
    bastaddr: int = BAST_ADDRESS,
    bastparam: int = BAST_PARAMETER,
    lksb: int = LKSB,
    xid: int = 0,
    layout: Layout = Layout.NATIVE,
) -> bytes:
    """Return the bytes of a LOCK request."""
    request = LockRequest(
        command=Command.LOCK,
        mode=mode,
        flags=flags,
        lock_id=lock_id,
        xid=xid,
        castparam=castparam,
        castaddr=castaddr,
        bastparam=bastparam,
        bastaddr=bastaddr,
        lksb=lksb,
        value=value_block(value),
        name=name,
    )
    return encode_request(request, layout=layout)


def unlock_request(lock_id: int, flags: int = 0, *, value: bytes = b"") -> bytes:
    """Return the bytes of an UNLOCK request."""
    return encode_request(
        LockRequest(
            command=Command.UNLOCK,
            lock_id=lock_id,
            flags=flags,
            castparam=CAST_PARAMETER,
            lksb=LKSB,
            value=value_block(value),
        )
    )


def create_request(name: str | bytes, flags: int = 0, *, layout: Layout = Layout.NATIVE) -> bytes:
    """Return the bytes of a CREATE_LOCKSPACE request."""
    text = name.encode() if isinstance(name, str) else name
    request = LockspaceRequest(command=Command.CREATE_LOCKSPACE, flags=flags, name=text)
    return encode_request(request, layout=layout)


def remove_request(minor: int, flags: int = 0) -> bytes:
    """Return the bytes of a REMOVE_LOCKSPACE request."""
    request = LockspaceRequest(command=Command.REMOVE_LOCKSPACE, flags=flags, minor=minor)
    return encode_request(request)


@dataclass
class Lockspace:
    """A lockspace of a machine, by name; ``minor`` is what its create returned."""

    machine: Machine
    name: str
    minor: int = 0

    @property
    def directory(self) -> str:
        """Return its directory in sysfs."""
        return "dlm/" + self.name.replace("/", "!")

    @property
    def device_name(self) -> str:
        """Return the name of its misc device."""
        return "dlm_" + self.name

    def write(self, attribute: str, text: str) -> int:
        """Write one of its sysfs attributes."""
        return self.machine.backend.write_attribute(f"{self.directory}/{attribute}", text.encode())

    def read(self, attribute: str) -> str:
        """Read one of its sysfs attributes."""
        return self.machine.backend.read_attribute(f"{self.directory}/{attribute}").decode()

    def exists(self) -> bool:
        """Say whether its sysfs directory exists."""
        return self.machine.exists(self.directory)

    def has_device(self) -> bool:
        """Say whether its misc device is there."""
        return self.device_name in self.machine.backend.misc_devices()

    def stop(self) -> None:
        """Write control 0."""
        assert self.write("control", "0") == 1

    def start(self, status: str = "ff\n") -> None:
        """Write control 1 and wait for the end of the recovery."""
        assert self.write("control", "1") == 1
        self.machine.eventually(
            lambda: self.read("recover_status") == status, f"recover_status {status!r}"
        )

    def open(self, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK) -> LockFile:
        """Open its device in the machine's process."""
        return LockFile(self.machine.open_device(self.device_name, flags))

    def resources(self) -> list[ResourceEntry]:
        """Return its resources and locks, as debugfs shows them."""
        return parse_all(self.machine.read(f"debug/dlm/{self.name}_all"))

    def find(self, lock_id: int) -> LockEntry | None:
        """Return what debugfs shows of a lock, None when it is not on any queue."""
        for resource in self.resources():
            for lock in resource.locks:
                if lock.lock_id == lock_id:
                    return lock
        return None

    def entry(self, lock_id: int) -> LockEntry:
        """Return what debugfs shows of a lock that is there."""
        found = self.find(lock_id)
        assert found is not None, f"lock {lock_id} is not in debugfs"
        return found

    def begin_remove(self, flags: int = ReleaseFlag.FORCEFREE) -> Pending:
        """Begin REMOVE, which sleeps until it is answered."""
        return self.machine.control().submit(
            DeviceWrite(remove_request(self.minor, flags)), detached=True
        )

    def remove(self, flags: int = ReleaseFlag.FORCEFREE) -> int:
        """Remove it and answer the leave; return what the write returned."""
        pending = self.begin_remove(flags)
        self.machine.eventually(lambda: pending.done() or not self.has_device(), "the leave")
        if not pending.done():
            self.write("event_done", "0")
        return self.machine.result(pending)


class Machine:
    """One process on one node, with what tests do over and over."""

    def __init__(self, backend: Backend, address: str = "127.0.0.1") -> None:
        self.backend = backend
        self.address = address
        self._control: Device | None = None
        self._opened: list[Device] = []

    # -- files ------------------------------------------------------------------------------------

    def read(self, path: str) -> str:
        """Read an attribute as text."""
        return self.backend.read_attribute(path).decode()

    def write(self, path: str, text: str | bytes) -> int:
        """Make exactly one write(2) to an attribute."""
        return self.backend.write_attribute(path, text.encode() if isinstance(text, str) else text)

    def writes_nothing(self, path: str, profile: KernelProfile) -> None:
        """Make a write of no bytes to a file of configfs: refused, or without any effect."""
        if profile.empty_write_fault:
            with refused(errno.EFAULT):
                self.write(path, "")
        else:
            assert self.write(path, "") == 0

    def mkdir(self, *paths: str) -> None:
        """Make directories, in this order."""
        for path in paths:
            self.backend.make_directory(path)

    def rmdir(self, *paths: str) -> None:
        """Remove directories, in this order."""
        for path in paths:
            self.backend.remove_directory(path)

    def exists(self, path: str) -> bool:
        """Say whether a path is there."""
        try:
            self.backend.stat(path)
        except FileNotFoundError:
            return False
        return True

    def permissions(self, path: str) -> int:
        """Return the permission bits of a path."""
        return self.backend.stat(path).mode & 0o7777

    # -- devices ----------------------------------------------------------------------------------

    def open_device(
        self, name: str, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> Device:
        """Open a misc device; the node of one made a moment ago may take a while to appear."""
        for _ in range(200):
            try:
                device = self.backend.open_device(name, flags=flags)
            except FileNotFoundError:
                if name not in self.backend.misc_devices():
                    raise
            else:
                self._opened.append(device)
                return device
            self.backend.pause(0.05)
        pytest.fail(f"no device node for {name}")

    def close(self) -> None:
        """Close every file of this process one by one, then end it: cheaper than all at once.

        No lockspace may be stopped: close(2) would sleep.
        """
        for device in self._opened:
            device.close()
        self.backend.close()

    def control(self) -> Device:
        """Return this process's open file on dlm-control."""
        if self._control is None:
            self._control = self.open_device("dlm-control")
        return self._control

    def uevents(self) -> Uevents:
        """Subscribe to the kernel's events."""
        return Uevents(self, self.backend.uevents())

    # -- time -------------------------------------------------------------------------------------

    def eventually(self, condition: Callable[[], object], what: str, *, tries: int = 400) -> None:
        """Let the world go on, in small steps and not for ever, until the condition holds."""
        for _ in range(tries):
            if condition():
                return
            self.backend.pause(0.05)
        pytest.fail(f"did not come: {what}")

    def still_sleeps(self, pending: Pending) -> bool:
        """Say whether a call still sleeps after a short while."""
        self.backend.pause(SHORT_WHILE)
        return not pending.done()

    def result(self, pending: Pending) -> int:
        """Wait, not for ever, for a write's return value, or raise its error."""
        self.eventually(pending.done, "the return of a call")
        value = pending.result()
        assert isinstance(value, int)
        return value

    # -- configuration ----------------------------------------------------------------------------

    def add_comm(
        self, nodeid: int, address: str | None, *, local: bool = False, cluster: str = CLUSTER
    ) -> str:
        """Make the comm of a node; return its directory."""
        path = f"{cluster}/comms/{nodeid}"
        self.mkdir(path)
        self.write(f"{path}/nodeid", f"{nodeid}\n")
        if address is not None:
            self.write(f"{path}/addr", encode_sockaddr(address))
        if local:
            self.write(f"{path}/local", "1\n")
        return path

    def configure(self, nodeid: int = 1) -> None:
        """Make the cluster and this node's own comm."""
        self.mkdir(CLUSTER)
        self.add_comm(nodeid, self.address, local=True)

    def add_member(
        self, lockspace: str, nodeid: int, weight: int = 1, *, cluster: str = CLUSTER
    ) -> str:
        """Add a member to a lockspace's configuration; return its directory."""
        space = f"{cluster}/spaces/{lockspace}"
        if not self.exists(space):
            self.mkdir(space)
        path = f"{space}/nodes/{nodeid}"
        self.mkdir(path)
        self.write(f"{path}/nodeid", f"{nodeid}\n")
        if weight != 1:
            self.write(f"{path}/weight", f"{weight}\n")
        return path

    # -- lockspaces -------------------------------------------------------------------------------

    def submit_create(self, name: str, flags: int = 0, *, detached: bool = True) -> Pending:
        """Begin CREATE_LOCKSPACE."""
        return self.control().submit(DeviceWrite(create_request(name, flags)), detached=detached)

    def begin_create(
        self, name: str = "test", flags: int = 0, *, detached: bool = True
    ) -> tuple[Lockspace, Pending]:
        """Begin CREATE_LOCKSPACE and wait until the lockspace's directory is there."""
        lockspace = Lockspace(self, name)
        pending = self.submit_create(name, flags, detached=detached)
        self.eventually(lambda: lockspace.exists() or pending.done(), f"{lockspace.directory}")
        return lockspace, pending

    def finish_create(self, lockspace: Lockspace, pending: Pending) -> Lockspace:
        """Start the lockspace, answer the join, and wait for the return of its create."""
        lockspace.write("control", "1\n")
        lockspace.write("event_done", "0\n")
        lockspace.minor = self.result(pending)
        return lockspace

    def create(
        self, name: str = "test", flags: int = 0, *, members: tuple[int, ...] = (1,)
    ) -> Lockspace:
        """Bring a lockspace up on a configured machine."""
        for nodeid in members:
            self.add_member(name, nodeid)
        return self.finish_create(*self.begin_create(name, flags))

    def bring_up(self, name: str = "test") -> Lockspace:
        """Configure the machine and bring a lockspace of one node up."""
        self.configure()
        return self.create(name)


class Uevents:
    """The kernel's events that concern the DLM, from the moment of subscribing."""

    def __init__(self, machine: Machine, source: UeventSource) -> None:
        self._machine = machine
        self._source = source
        self._seen: list[Uevent] = []

    def _count(self) -> int:
        self._seen += [
            event
            for event in self._source.read_nowait()
            if "@/kernel/dlm/" in event.header or "/misc/dlm" in event.header
        ]
        return len(self._seen)

    def headers(self, count: int) -> list[str]:
        """Return the headers of all events so far, once there are at least ``count``."""
        self._machine.eventually(lambda: self._count() >= count, "uevents")
        return [event.header for event in self._seen]

    def events(self, count: int) -> list[Uevent]:
        """Return all events so far, once there are at least ``count``."""
        self.headers(count)
        return list(self._seen)

    def headers_nowait(self) -> list[str]:
        """Return the headers of all events that have come after a short while."""
        self._machine.backend.pause(SHORT_WHILE)
        self._count()
        return [event.header for event in self._seen]

    def clear(self) -> None:
        """Forget what has come."""
        self.headers_nowait()
        self._seen.clear()
