"""A lockspace's life as a user of locks sees it: open, create, release; its orphans.

Decides: which device is opened, which request makes and removes a lockspace, what an orphan is.
May not know: how its caller waits: what can sleep is handed back as a ``Pending``.
Mirrors: dlm_open_lockspace(), dlm_create_lockspace(), dlm_release_lockspace() of libdlm;
fs/dlm/user.c, device_create_lockspace(), device_remove_lockspace() (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlm.abi.device import (
    VERSION,
    VERSION_SIZE,
    Command,
    LockspaceRequest,
    PurgeRequest,
    decode_version,
    encode_request,
    pack_lock,
)
from dlm.abi.texts import directory_name
from dlm.locks.engine import Engine
from dlm.locks.errors import LockBusyError, LockError, NoLockspaceError, usage
from dlm.locks.probes import NO_ANSWER, wait_answered
from dlm.locks.state import NO_VALUE
from dlm.ports import Backend, Device, DeviceClose, DeviceWrite, Pending
from dlm.record import Record
from dlm.terms import (
    LOCKSPACE_NAME_MAX,
    InternalFlag,
    LockFlag,
    LockId,
    LockMode,
    LockspaceFlag,
    LockStatus,
    ReleaseFlag,
)

if TYPE_CHECKING:
    from dlm.abi.debugfs import ResourceEntry

DEFAULT = "default"
"""The lockspace that programs of libdlm share which name none."""

MODE = 0o600
"""The permissions that the kernel gives a lockspace's device."""

_CONTROL = "dlm-control"
_FREE_FLAGS = {False: ReleaseFlag(0), True: ReleaseFlag.FORCEFREE}


class Orphan(Record):
    """A lock of this node whose process has gone.

    ``pid`` is the id of the thread that last asked something of it. ``certain`` is false where the
    kernel does not tell orphans from locks of other processes (debugfs since Linux 6.4): whether it
    is one shows when it is adopted.
    """

    name: bytes
    mode: LockMode
    lock_id: LockId
    pid: int
    certain: bool


def open_engine(backend: Backend, name: str, *, threads: bool | None = None) -> Engine:
    """Open a lockspace's device, and check that it is one that this room speaks to."""
    device = _open(backend, f"dlm_{check_name(name)}", name)
    try:
        _check_version(device, name)
    except BaseException:
        device.close()
        raise
    wanted = backend.concurrent() if threads is None else threads
    return Engine(backend, name, device, threads=wanted)


def check_name(name: str) -> str:
    """Return the name of a lockspace; raises EINVAL for one that none can have."""
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or len(raw) > LOCKSPACE_NAME_MAX or b"\0" in raw or b"/" in raw:
        text = f"{name!r} is no lockspace's name: 1 to {LOCKSPACE_NAME_MAX} bytes, without / or NUL"
        raise usage(text, name)
    return name


def _open(backend: Backend, device: str, name: str) -> Device:
    try:
        return backend.open_device(device)
    except OSError as error:
        number = error.errno or errno.EIO
        if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            what = "the DLM" if device == _CONTROL else f"lockspace {name}"
            text = f"{what} is not on this node: no device {device}"
            raise NoLockspaceError(number, text, name) from error
        raise LockError(number, f"open {device}: {os.strerror(number)}", name) from error


def _check_version(device: Device, name: str) -> None:
    try:
        version = decode_version(device.read(VERSION_SIZE))
    except OSError as error:
        if error.errno != errno.EINVAL:
            number = error.errno or errno.EIO
            raise LockError(number, f"read dlm_{name}: {os.strerror(number)}", name) from error
        version = (3, 0, 0)  # it has no such read (device.c, April 2005)
    if version[0] != VERSION[0]:
        spoken = ".".join(map(str, version))
        text = f"lock device {spoken} of {name} is not supported ({VERSION[0]}.x is): use dlm_tool"
        raise LockError(errno.EPROTONOSUPPORT, text, name)


# ---- create and release -------------------------------------------------------------------------


def begin_create(backend: Backend, name: str, *, exclusive: bool) -> Pending:
    """Begin to create a lockspace; the call sleeps until the node has joined it."""
    flags = LockspaceFlag.NEWEXCL if exclusive else LockspaceFlag(0)
    raw = check_name(name).encode("utf-8", "surrogateescape")
    return _begin(backend, name, LockspaceRequest(Command.CREATE_LOCKSPACE, int(flags), name=raw))


def begin_release(backend: Backend, name: str, *, force: bool) -> Pending:
    """Begin to remove a lockspace; the call sleeps until the node has left it."""
    minor = backend.misc_devices().get(f"dlm_{name}")
    if minor is None:
        raise NoLockspaceError(errno.ENOENT, f"lockspace {name} is not on this node", name)
    flags = int(_FREE_FLAGS[force])
    return _begin(backend, name, LockspaceRequest(Command.REMOVE_LOCKSPACE, flags, minor))


def _begin(backend: Backend, name: str, request: LockspaceRequest) -> Pending:
    device = _open(backend, _CONTROL, name)
    pending = device.submit(DeviceWrite(encode_request(request)), detached=True)
    device.close()  # what was submitted has the file for itself
    return pending


# ---- close -------------------------------------------------------------------------------------


def close(engine: Engine) -> None:
    """Close the file of an engine that is shut, once what was asked on it has been answered.

    Where a node does not answer that may be dead, the file stays open until it does or the
    lockspace has recovered, and this returns before that.
    """
    if not engine.threads or wait_answered(engine, NO_ANSWER):
        engine.device.close()
    else:
        _close_aside(engine, None, lambda _: None)


def close_aside(engine: Engine, told: Callable[[OSError | None], None]) -> None:
    """Do that where nobody has to wait for it; ``told`` is called in a thread."""
    _close_aside(engine, NO_ANSWER, told)


def _close_aside(
    engine: Engine, seconds: float | None, told: Callable[[OSError | None], None]
) -> None:
    def run() -> None:
        error = None
        try:
            if not wait_answered(engine, seconds):
                told(None)
                wait_answered(engine, None)
            engine.device.close()
        except OSError as caught:
            error = caught
        told(error)

    name = f"dlm-locks close {engine.name}"
    threading.Thread(target=run, name=name, daemon=True).start()


def close_within(engine: Engine, timeout: float) -> bool:
    """Do that; False when it takes longer than the timeout, it then goes on by itself."""
    if not engine.threads:
        return engine.device.submit(DeviceClose(), detached=True).wait(timeout)
    done = threading.Event()
    close_aside(engine, lambda _: done.set())
    return done.wait(timeout)


def refusal(error: OSError, doing: str, name: str) -> LockError:
    """Return the exception for what ended a create or release."""
    number = error.errno or errno.EIO
    text = f"{doing} {name}: {os.strerror(number)}"
    if number == errno.EBUSY:
        return LockBusyError(number, f"{doing} {name}: it has locks", name)
    return LockError(number, text, name)


# ---- orphans ------------------------------------------------------------------------------------


def orphans(engine: Engine) -> list[Orphan]:
    """Return the orphans of a lockspace on this node, in the kernel's order."""
    ours = {entry._id for entry in engine.entries()}
    found = []
    for resource in _listed(engine):
        for entry in resource.locks:
            certain = bool(entry.flags & InternalFlag.USER)
            if (
                not entry.flags & InternalFlag.MASTER_COPY
                and entry.status == LockStatus.GRANTED
                and entry.lock_id not in ours
                and entry.exflags & LockFlag.PERSISTENT
                and (not certain or entry.flags & InternalFlag.ORPHAN)
            ):
                mode = LockMode(entry.granted_mode)
                lock_id = LockId(entry.lock_id)
                found.append(Orphan(resource.name, mode, lock_id, entry.pid, certain))
    return found


def _listed(engine: Engine) -> list[ResourceEntry]:
    from dlm.abi.debugfs import parse_all  # noqa: PLC0415 - a tenth of the import of dlm.locks

    path = f"debug/dlm/{directory_name(engine.name)}_all"
    try:
        return parse_all(engine.backend.read_attribute(path))
    except OSError as error:
        number = error.errno or errno.EIO
        text = f"read {path}: {os.strerror(number)}; debugfs lists the locks, is it mounted?"
        raise LockError(number, text, engine.name) from error


def purge_request(backend: Backend, nodeid: int, pid: int) -> bytes:
    """Return the bytes of a purge; raises EINVAL for one that would drop one's own locks.

    The kernel compares ``pid`` with the id of the thread that asks: that is, "all locks of this
    file" (Linux 6.1 fs/dlm/lock.c, dlm_user_purge()).
    """
    if nodeid < 0 or pid < 0:
        raise usage(f"no node or process is {min(nodeid, pid)}")
    own = backend.process_id()
    ours = {own}
    if own == os.getpid():
        ours |= {thread.native_id or 0 for thread in threading.enumerate()}
    if pid and pid in ours:
        raise usage(f"{pid} is this very process: purge drops what others have left")
    return encode_request(PurgeRequest(nodeid, pid))


def deadlock_request(engine: Engine, lock_id: int) -> bytes:
    """Return the bytes of a cancel as a deadlock's victim; EINVAL for what waits on no queue.

    What still waits for a node's answer is on none, and must not be cancelled (see ``Probe``).
    """
    if not 0 < lock_id < 1 << 32:
        raise usage(f"{lock_id} is no lock id", engine.name)
    for resource in _listed(engine):
        for entry in resource.locks:
            if (
                entry.lock_id == lock_id
                and not entry.flags & InternalFlag.MASTER_COPY
                and entry.status != LockStatus.GRANTED
                and not entry.wait_type
            ):
                return pack_lock(Command.DEADLOCK, 0, 0, lock_id, 0, NO_VALUE, b"")
    raise usage(f"lock {lock_id} of this node waits on no queue", engine.name)


# No VALBLK: the orphan may have no value block (see ``dlm.locks.arguments.harm``). The lock's next
# conversion makes it one.
ADOPT_FLAGS = int(LockFlag.ORPHAN | LockFlag.PERSISTENT)
"""The flags that a lock is adopted with."""
