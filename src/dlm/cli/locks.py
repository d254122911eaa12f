"""The locks of the command line: lock, unlock, convert, as plans.

Decides: how a lock outlives the tool, and how it is found and taken over again by its id.
May not know: how a plan is run; which result is which request's, and what must never be sent: that
is dlm.locks' low level, whose writes and reads a plan makes.
Mirrors: fs/dlm/user.c and lock.c (Linux 6.1); what the tool of 2005 did with its own kernel.

A lock that is to outlive its process is *pinned* once it is granted: converted to its own mode
with PERSISTENT. Requested with PERSISTENT and killed while it waits, it would stay as a dead entry
of the orphan list (Quirk: a later purge crashes a 6.1 kernel). Its process gone, it is an orphan;
only a process that has *adopted* it may unlock it (Quirk: else a 6.1 kernel hangs for ever).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from dlm.abi.debugfs import LockEntry, parse_all
from dlm.abi.device import RESULT_SIZE_MAX, Command, LockRequest, encode_request
from dlm.control.common import device_of, dialect
from dlm.control.plan import (
    Begun,
    File,
    NextResult,
    OpenDevice,
    Plan,
    Result,
    Submit,
    Waiting,
    WaitUntil,
)
from dlm.control.reasons import CheckError, Reason
from dlm.control.recovery import wait_running
from dlm.errors import NoDlmError, RefusedError
from dlm.locks.arguments import harm, harm_of_unlock
from dlm.locks.errors import usage
from dlm.locks.raw import BareDesk, Completion, RawLocks
from dlm.ports import DeviceClose, DeviceWrite
from dlm.terms import EUNLOCK, InternalFlag, LockFlag, LockMode, LockStatus, StatusFlag

SUSPENDED = "locking to go on: the lockspace was stopped"
ANY = 1  # castaddr and lksb: any number but 0 (Linux 6.1 fs/dlm/user.c, device_user_lock())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation on a lock ended.

    ``flags`` are those of the line that is printed. ``status`` is 0, a positive errno or a DLM
    status; None when the result goes to the lock's owner. ``wanted`` is the status of success.
    """

    lock_id: int
    mode: LockMode | None
    flags: LockFlag
    status: int | None
    wanted: int = 0

    @property
    def refused(self) -> bool:
        """Say whether the lock manager ended it otherwise than asked for."""
        return self.status is not None and self.status != self.wanted


def lock(name: str, resource: bytes, mode: LockMode, flags: LockFlag) -> Plan[Outcome]:
    """Request a lock, wait until it is granted, and pin it."""
    yield from wait_running(name)
    opened = yield from _open(name)
    said = f"on {text_of(resource)}"
    plain = flags & ~LockFlag.PERSISTENT
    request = LockRequest(mode=mode, flags=plain, name=resource)
    end = yield from opened.send(request, f"LOCK {say(mode, plain)} {said}")
    yield from opened.completed(end, f"the lock {said} to be granted")
    lock_id = end.lock_id
    if not end.status:
        pinned = granted_mode_of(mode, flags, end.flags)
        pin = LockFlag.CONVERT | LockFlag.PERSISTENT
        request = LockRequest(mode=pinned, flags=pin, lock_id=lock_id)
        end = yield from opened.send(request, f"LOCK {say(pinned, pin)} lkid {lock_id or '?'}")
        yield from opened.completed(end, f"the lock {said} to be pinned")
    yield from close_file(opened.file)
    return Outcome(lock_id, mode, flags | LockFlag.PERSISTENT, -end.status)


def unlock(name: str, lock_id: int, flags: LockFlag, *, force: bool = False) -> Plan[Outcome]:
    """Drop a lock, or cancel what it waits for."""
    yield from wait_running(name)
    cancel = bool(flags & LockFlag.CANCEL)
    resource, entry = yield from _find_quiet(name, lock_id)
    opened = yield from _open(name)
    request = LockRequest(Command.UNLOCK, flags=flags, lock_id=lock_id)
    said = f"UNLOCK{say_flags(flags)} lkid {lock_id}"
    status = None
    if not cancel and (yield from _take_over(opened, resource, entry, force)):
        end = yield from opened.send(request, said)
        yield from opened.completed(end, f"lock {lock_id} to end")
        status = -end.status or EUNLOCK
    else:
        yield from opened.send_for_owner(request, said)
    yield from close_file(opened.file)
    return Outcome(lock_id, None, flags, status, EUNLOCK)


def convert(
    name: str, lock_id: int, mode: LockMode, flags: LockFlag, *, force: bool = False
) -> Plan[Outcome]:
    """Convert a lock to another mode; it goes on to outlive the tool."""
    yield from wait_running(name)
    resource, entry = yield from _find_quiet(name, lock_id)
    opened = yield from _open(name)
    adopted = yield from _take_over(opened, resource, entry, force)
    # A conversion decides anew whether the lock outlives its process (Linux 6.1 fs/dlm/user.c,
    # device_user_lock()): a forced one leaves that as the owner had it.
    keep = LockFlag.PERSISTENT if adopted else LockFlag(entry.exflags) & LockFlag.PERSISTENT
    sent = flags | keep | LockFlag.CONVERT
    request = LockRequest(mode=mode, flags=sent, lock_id=lock_id)
    said = f"LOCK {say(mode, sent)} lkid {lock_id}"
    status = None
    if adopted:
        end = yield from opened.send(request, said)
        yield from opened.completed(end, f"lock {lock_id} on {text_of(resource)} to be converted")
        status = -end.status
    else:
        yield from opened.send_for_owner(request, said)
    yield from close_file(opened.file)
    return Outcome(lock_id, mode, sent, status)


# ---- finding and taking over --------------------------------------------------------------------


def find_lock(name: str, lock_id: int) -> Plan[tuple[bytes, LockEntry]]:
    """Return the resource and the entry of a lock of this node; another node's copy is none."""
    listed = yield from dialect.read_locks(name)
    if listed is None:
        raise NoDlmError(
            "debugfs is not mounted, which lists the locks",
            "mount it: mount -t debugfs none /sys/kernel/debug",
        )
    for resource in parse_all(listed):
        for entry in resource.locks:
            if entry.lock_id == lock_id and not entry.flags & InternalFlag.MASTER_COPY:
                return resource.name, entry
    raise CheckError(Reason.NO_LOCK, f"there is no lock {lock_id} of this node in {name}")


def _find_quiet(name: str, lock_id: int) -> Plan[tuple[bytes, LockEntry]]:
    """Return what ``find_lock`` does once nothing is in flight for the lock.

    An orphan's close sends its master a cancel, although there is nothing to cancel; until that is
    answered, an unlock is EBUSY (Linux 6.1 fs/dlm/lock.c, orphan_proc_lock(), cancel_lock()).
    Quirk: a CANCEL that overtakes the answer to a request is deadly (docs/hazards.md).
    """

    def check() -> Plan[tuple[bytes, LockEntry] | Waiting]:
        resource, entry = yield from find_lock(name, lock_id)
        if entry.wait_type:
            return Waiting(f"an answer for lock {lock_id} that is under way from its master")
        return resource, entry

    found: tuple[bytes, LockEntry] = yield WaitUntil(check, f"lock {lock_id} is at rest")
    return found


def _take_over(opened: Opened, resource: bytes, entry: LockEntry, force: bool) -> Plan[bool]:
    """Adopt a lock; False when a living process owns it and ``force`` says to go on."""
    # Only granted locks are orphans: what waits is dropped, what converts goes back to its mode
    # (Linux 6.1 fs/dlm/lock.c, orphan_proc_lock()).
    if entry.status == LockStatus.GRANTED and (yield from _adopt(opened, resource, entry)):
        return True
    if not force or entry.flags & InternalFlag.ORPHAN:
        text = f"lock {entry.lock_id} on {text_of(resource)} belongs to process {entry.pid}"
        raise CheckError(Reason.LOCK_OWNED, text)
    return False


def _adopt(opened: Opened, resource: bytes, entry: LockEntry) -> Plan[bool]:
    """Adopt orphans of the same name and mode, oldest first, until the wanted one comes.

    The others are orphans again when the file is closed, for PERSISTENT was given here.
    """
    mode, flags = LockMode(entry.granted_mode), LockFlag.ORPHAN | LockFlag.PERSISTENT
    request = LockRequest(mode=mode, flags=flags, name=resource)
    while True:
        try:
            said = f"LOCK {say(mode, flags)} on {text_of(resource)}"
            adopted = yield from opened.send(request, said, dry=entry.lock_id)
        except RefusedError as error:
            if error.errno in {errno.EAGAIN, errno.ENOENT}:
                return False
            raise
        if adopted.lock_id == entry.lock_id:
            return True


# ---- the device ---------------------------------------------------------------------------------


class Opened:
    """An open file on a lockspace, and what was asked for on it."""

    __slots__ = ("_desk", "_locks", "file")

    def __init__(self, name: str, file: File) -> None:
        self.file = file
        self._desk = BareDesk(name)
        self._locks = RawLocks(self._desk)

    def send(self, request: LockRequest, said: str, *, dry: int = 0) -> Plan[Completion]:
        """Write a request from a helper, for it sleeps while the lockspace is stopped.

        ``dry`` is the lock id that a dry run goes on with.
        """
        prepared = self._locks.prepare(request)
        try:
            answer = yield from _write(self.file, prepared.data, said)
        except RefusedError:
            prepared.refused()
            raise
        return prepared.written(answer or dry)

    def send_for_owner(self, request: LockRequest, said: str) -> Plan[None]:
        """Write a request for a lock whose results go to the process that owns it."""
        locks = request.command == Command.LOCK
        if why := harm(request.flags, converts=True) if locks else harm_of_unlock(request.flags):
            raise usage(why)
        if locks:
            request = request._replace(castaddr=ANY, lksb=ANY)
        yield from _write(self.file, encode_request(request), said)

    def completed(self, end: Completion, waiting: str) -> Plan[None]:
        """Wait until a request has completed."""
        while not end.done:
            raw: bytes | None = yield NextResult(self.file, RESULT_SIZE_MAX, waiting)
            if raw is None:  # a dry run
                return
            self._desk.took(raw)


def _open(name: str) -> Plan[Opened]:
    file: File = yield OpenDevice(device_of(name))
    return Opened(name, file)


def _write(file: File, data: bytes, said: str) -> Plan[int]:
    begun: Begun = yield Submit(DeviceWrite(data), file, said)
    answer: int = yield Result(begun, SUSPENDED)
    return answer


def granted_mode_of(mode: LockMode, flags: LockFlag, remarks: int) -> LockMode:
    """Return the mode in which a lock was granted: ALTPR and ALTCW allow another."""
    if not remarks & StatusFlag.ALTMODE:
        return mode
    return LockMode.PR if flags & LockFlag.ALTPR else LockMode.CW


def close_file(file: File) -> Plan[None]:
    """Close the lockspace's device, which sleeps while the lockspace is stopped."""
    begun: Begun = yield Submit(DeviceClose(), file)
    yield Result(begun, SUSPENDED)


# ---- words --------------------------------------------------------------------------------------


def say(mode: LockMode, flags: LockFlag) -> str:
    """Say what a request asks for."""
    return mode.name + say_flags(flags)


def say_flags(flags: LockFlag) -> str:
    """Say flags by name, each behind a blank."""
    return "".join(f" {flag.name}" for flag in LockFlag if flag & flags)


def text_of(resource: bytes) -> str:
    """Return a resource's name as a person reads it."""
    return resource.decode("utf-8", "backslashreplace")
