"""The locks of the command line on the lock device 3.0.0: lock, unlock, convert, as plans.

Decides: how a lock outlives the tool there, what that device cannot do.
May not know: how a plan is run.
Mirrors: device.c of the DLM as posted to linux-kernel on 25 April 2005.

As with the later device a lock is requested plain and *pinned* once it is granted: converted to its
own mode with PERSISTENT. Any process may unlock and convert any lock by its id, and has to: nothing
is adopted (ORPHAN would make one more lock), and nothing tells who owns a lock. INFER: the result
of an orphan's operation comes to whoever asked for it, that of a living process's lock to that
process: with ``force``, and for CANCEL, it is not waited for.
"""

from __future__ import annotations

from dlm.abi.device import Command, LockRequest, LockResult
from dlm.abi.device2005 import FLAGS_MAX, RESULT_SIZE_MAX, decode_result, encode_request
from dlm.cli.locks import (
    ANY,
    SUSPENDED,
    Outcome,
    close_file,
    granted_mode_of,
    say,
    say_flags,
    text_of,
)
from dlm.control.common import device_of
from dlm.control.plan import Begun, File, NextResult, OpenDevice, Plan, Result, Submit
from dlm.control.reasons import CheckError, Reason
from dlm.control.recovery import wait_running
from dlm.ports import DeviceWrite
from dlm.terms import EUNLOCK, LockFlag, LockMode


def lock(name: str, resource: bytes, mode: LockMode, flags: LockFlag) -> Plan[Outcome]:
    """Request a lock, wait until it is granted, and pin it."""
    _check_flags(flags)
    yield from wait_running(name)
    file: File = yield OpenDevice(device_of(name))
    said = f"on {text_of(resource)}"
    plain = flags & ~LockFlag.PERSISTENT
    request = LockRequest(mode=mode, flags=plain, name=resource)
    lock_id = yield from _send(file, request, f"LOCK {say(mode, plain)} {said}")
    result = yield from _completion(file, lock_id, f"the lock {said} to be granted")
    if not result.status:
        pinned = granted_mode_of(mode, flags, result.flags)
        pin = LockFlag.CONVERT | LockFlag.PERSISTENT
        request = LockRequest(mode=pinned, flags=pin, lock_id=lock_id)
        yield from _send(file, request, f"LOCK {say(pinned, pin)} lkid {lock_id or '?'}")
        result = yield from _completion(file, lock_id, f"the lock {said} to be pinned")
    yield from close_file(file)
    return Outcome(lock_id, mode, flags | LockFlag.PERSISTENT, -result.status)


def unlock(name: str, lock_id: int, flags: LockFlag, *, force: bool = False) -> Plan[Outcome]:
    """Drop a lock by its id, or cancel what it waits for."""
    _check_flags(flags)
    yield from wait_running(name)
    file: File = yield OpenDevice(device_of(name))
    mine = not (force or flags & LockFlag.CANCEL)
    request = LockRequest(Command.UNLOCK, flags=flags, lock_id=lock_id)
    yield from _send(file, request, f"UNLOCK{say_flags(flags)} lkid {lock_id}", mine=mine)
    status = None
    if mine:
        result = yield from _completion(file, lock_id, f"lock {lock_id} to end")
        status = -result.status or EUNLOCK
    yield from close_file(file)
    return Outcome(lock_id, None, flags, status, EUNLOCK)


def convert(
    name: str, lock_id: int, mode: LockMode, flags: LockFlag, *, force: bool = False
) -> Plan[Outcome]:
    """Convert a lock to another mode by its id; it goes on to outlive the tool."""
    _check_flags(flags)
    yield from wait_running(name)
    file: File = yield OpenDevice(device_of(name))
    sent = flags | LockFlag.CONVERT | LockFlag.PERSISTENT
    request = LockRequest(mode=mode, flags=sent, lock_id=lock_id)
    yield from _send(file, request, f"LOCK {say(mode, sent)} lkid {lock_id}")
    status = None
    if not force:
        result = yield from _completion(file, lock_id, f"lock {lock_id} to be converted")
        status = -result.status
    yield from close_file(file)
    return Outcome(lock_id, mode, sent, status)


def _check_flags(flags: LockFlag) -> None:
    # The request has 16 bits for them (dlm_device.h, dlm_lock_params.flags).
    unknown = flags & ~LockFlag(FLAGS_MAX)
    if unknown:
        text = f"not supported by this kernel:{say_flags(unknown)}"
        raise CheckError(Reason.NOT_SUPPORTED, text)


def _send(file: File, request: LockRequest, said: str, *, mine: bool = True) -> Plan[int]:
    # castaddr and lksb may not be 0 in a LOCK; 0 in an UNLOCK leaves the owner's castaddr in place.
    address = ANY if mine else 0
    whole = LockRequest(
        request.command,
        request.mode,
        request.flags,
        request.lock_id,
        castaddr=address,
        lksb=address,
        name=request.name,
    )
    begun: Begun = yield Submit(DeviceWrite(encode_request(whole)), file, said)
    answer: int = yield Result(begun, SUSPENDED)
    return answer


def _completion(file: File, lock_id: int, waiting: str) -> Plan[LockResult]:
    """Wait for the completion of a lock's operation; bast_mode is 0, the address tells a bast."""
    while True:
        raw: bytes | None = yield NextResult(file, RESULT_SIZE_MAX, waiting)
        if raw is None:  # a dry run
            return LockResult(0, 0, 0, 0, lock_id, 0, 0)
        result = decode_result(raw)
        if result.lock_id == lock_id and result.astaddr == ANY:
            return result
