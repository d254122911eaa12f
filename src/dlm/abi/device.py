"""The lock device 6.0.2: requests, results and the version, between values and bytes.

Decides: every byte that is written to or read from ``dlm-control`` and ``dlm_<lockspace>``, in the
layout of the machine's own programs and in the 32-bit one, and the checks that a write(2) meets
before its command is looked at.
May not know: what a command does, who owns a lock.
Mirrors: include/uapi/linux/dlm_device.h and fs/dlm/user.c (Linux 6.1; the bytes are equal in 5.10
to 7.2).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Self

from dlm.abi._layout import constant, offset_of, record, size_of
from dlm.record import new_tuple
from dlm.terms import RESOURCE_NAME_MAX, VALUE_BLOCK_SIZE, LockFlag

VERSION = (
    constant("DLM_DEVICE_VERSION_MAJOR"),
    constant("DLM_DEVICE_VERSION_MINOR"),
    constant("DLM_DEVICE_VERSION_PATCH"),
)
"""The interface's version, 6.0.2."""

_NO_VALUE = bytes(VALUE_BLOCK_SIZE)


class Command(IntEnum):
    """What a request asks for (DLM_USER_*); QUERY was never implemented."""

    LOCK = 1
    UNLOCK = 2
    QUERY = 3
    CREATE_LOCKSPACE = 4
    REMOVE_LOCKSPACE = 5
    PURGE = 6
    DEADLOCK = 7


class Layout(Enum):
    """Whose programs' layout: this machine's own, or 32-bit ones' on a 64-bit kernel."""

    NATIVE = "native"
    COMPAT32 = "compat32"


_LOCK, _UNLOCK, _CONVERT = int(Command.LOCK), int(Command.UNLOCK), int(LockFlag.CONVERT)


# ---- values -------------------------------------------------------------------------------------

# The two that every lock's path is full of are named tuples: made in a fifth of a dataclass's time.


class LockRequest(NamedTuple):
    """A LOCK, UNLOCK or DEADLOCK (struct dlm_lock_params).

    ``value`` is the value block, 32 bytes; ``name`` the resource name, at most 255 bytes here (the
    kernel takes 64). The addresses and ``lksb`` are opaque numbers that come back in results;
    LOCK needs ``castaddr`` and ``lksb`` other than 0. ``parent`` and ``timeout`` are ignored.
    """

    command: int = Command.LOCK
    mode: int = 0
    flags: int = 0
    lock_id: int = 0
    parent: int = 0
    xid: int = 0
    timeout: int = 0
    castparam: int = 0
    castaddr: int = 0
    bastparam: int = 0
    bastaddr: int = 0
    lksb: int = 0
    value: bytes = _NO_VALUE
    name: bytes = b""

    # The same in half the time: a class's call with keywords is slow (CPython 3.11).

    @classmethod
    def lock(cls, name: bytes, mode: int, flags: int = 0, value: bytes = _NO_VALUE) -> Self:
        """Return a request for a new lock."""
        return new_tuple(cls, (_LOCK, mode, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, value, name))

    @classmethod
    def convert(cls, lock_id: int, mode: int, flags: int = 0, value: bytes = _NO_VALUE) -> Self:
        """Return a request to convert a lock; CONVERT is added to the flags."""
        flags |= _CONVERT
        return new_tuple(cls, (_LOCK, mode, flags, lock_id, 0, 0, 0, 0, 0, 0, 0, 0, value, b""))

    @classmethod
    def unlock(cls, lock_id: int, flags: int = 0, value: bytes = _NO_VALUE) -> Self:
        """Return a request to unlock; with the flag CANCEL, to cancel what is under way."""
        return new_tuple(cls, (_UNLOCK, 0, flags, lock_id, 0, 0, 0, 0, 0, 0, 0, 0, value, b""))


@dataclass(frozen=True, slots=True)
class LockspaceRequest:
    """A CREATE_LOCKSPACE (by name) or REMOVE_LOCKSPACE (by minor) (struct dlm_lspace_params)."""

    command: int
    flags: int = 0
    minor: int = 0
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """A PURGE (struct dlm_purge_params); both numbers are signed."""

    nodeid: int
    pid: int


Request = LockRequest | LockspaceRequest | PurgeRequest


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request that passed the checks of its envelope.

    ``compat`` says that it came in the 32-bit layout: from then on the file's results go out in it.
    """

    command: int
    compat: bool
    body: Request


class LockResult(NamedTuple):
    """A completion AST, or a blocking AST when ``bast_mode`` is not 0 (struct dlm_lock_result).

    ``status`` is 0 or a negative errno or DLM status; ``value`` the value block where one is due.
    """

    astaddr: int
    astparam: int
    lksb: int
    status: int
    lock_id: int
    flags: int
    bast_mode: int
    value: bytes | None = None


# ---- layouts ------------------------------------------------------------------------------------

_PADDING = frozenset({"unused", "sb_lvbptr"})


class _Packers:
    """The packers and sizes of one layout, all from cffi's offsets."""

    __slots__ = ("is64bit", "lock", "lspace", "name_at", "purge", "request", "result")

    def __init__(self, suffix: str, is64bit: int) -> None:
        request = f"struct dlm_write_request{suffix}"
        self.is64bit = is64bit
        self.lock = record(request, member="lock", skip=_PADDING)
        self.lspace = record(request, member="lspace", skip=_PADDING)
        self.purge = record(request, member="purge", skip=_PADDING)
        self.result = record(f"struct dlm_lock_result{suffix}", skip=_PADDING)
        self.request = size_of(request)
        self.name_at = offset_of(request, "i", "lock", "name")


_NATIVE_LAYOUT = Layout.NATIVE
_NATIVE = _Packers("", int(size_of("void *") == 8))
_COMPAT = _Packers("32", 0)
_PACKERS = {Layout.NATIVE: _NATIVE, Layout.COMPAT32: _COMPAT}
_VERSION_PACKER = record("struct dlm_device_version")
_ENVELOPE = struct.Struct("=3IBB")  # version, cmd, is64bit: the first 14 bytes in both layouts

REQUEST_SIZE = {layout: packers.request for layout, packers in _PACKERS.items()}
"""Bytes of a request without a name: 120, and 104."""

RESULT_SIZE = {layout: packers.result.size for layout, packers in _PACKERS.items()}
"""Bytes of a result without a value block: 72, and 52."""

RESULT_SIZE_MAX = RESULT_SIZE[Layout.NATIVE] + VALUE_BLOCK_SIZE
"""Bytes that a read(2) should offer, so that every result fits whole."""

VERSION_SIZE = _VERSION_PACKER.size
"""A read(2) of exactly so many bytes (12) answers with the version."""

_WRITE_MIN = min(REQUEST_SIZE.values())
_WRITE_MAX = REQUEST_SIZE[Layout.NATIVE] + RESOURCE_NAME_MAX

# ---- requests -----------------------------------------------------------------------------------


def encode_request(
    request: Request,
    *,
    layout: Layout = Layout.NATIVE,
    version: tuple[int, int, int] = VERSION,
) -> bytes:
    """Return the bytes of one write(2).

    Numbers that do not fit their field raise ``ValueError``; all else is the kernel's to refuse.
    """
    packers = _NATIVE if layout is Layout.NATIVE else _COMPAT
    try:
        if isinstance(request, LockRequest):
            return _encode_lock(request, packers, version)
        if isinstance(request, LockspaceRequest):
            head = packers.lspace.pack(
                *version, request.command, packers.is64bit, request.flags, request.minor
            )
            size = packers.request
            # The 64-bit kernel copies as many bytes of a 32-bit name as the write is longer than
            # the struct (Linux 6.1 fs/dlm/user.c, compat_input(), device_write()).
            if layout is Layout.COMPAT32:
                size += len(request.name) + 1
            return (head + request.name + b"\0").ljust(size, b"\0")
        nodeid, pid = request.nodeid & 0xFFFFFFFF, request.pid & 0xFFFFFFFF
        head = packers.purge.pack(*version, Command.PURGE, packers.is64bit, nodeid, pid)
        return head.ljust(packers.request, b"\0")
    except struct.error as error:
        raise ValueError(f"a number does not fit its field: {request}") from error


def _encode_lock(request: LockRequest, packers: _Packers, version: tuple[int, int, int]) -> bytes:
    command, mode, *numbers, value, name = request
    if len(value) != VALUE_BLOCK_SIZE:
        raise ValueError(f"a value block has {VALUE_BLOCK_SIZE} bytes, not {len(value)}")
    head = packers.lock.pack(*version, command, packers.is64bit, mode, len(name), *numbers, value)
    # Quirk: a 32-bit name begins before the end of the struct (100 of 104), but is counted from
    # its end: the last 4 bytes that are sent never count.
    return head + name + bytes(packers.request - packers.name_at)


# What an application's lock needs, and no more, for the path of every lock: a third of the time of
# encode_request() and decode_result() (bench/lock_device.py).

_UNUSED_HERE = frozenset({"parent", "xid", "timeout"})
_ENVELOPE_HERE = frozenset({"version", "cmd", "is64bit"})
_SKIPPED = record(
    "struct dlm_write_request", member="lock", skip=_PADDING | _UNUSED_HERE | _ENVELOPE_HERE
)
_FAST = struct.Struct(_SKIPPED.format.replace("12x1x1x", f"{_ENVELOPE.size}s", 1))
assert _FAST.size == _NATIVE.lock.size
_pack_fast = _FAST.pack
_ENVELOPES = tuple(_ENVELOPE.pack(*VERSION, command, _NATIVE.is64bit) for command in range(8))


def pack_lock(
    command: int, mode: int, flags: int, lock_id: int, parameter: int, value: bytes, name: bytes
) -> bytes:
    """Return the bytes of a LOCK or UNLOCK whose results, of both kinds, carry ``parameter``.

    ``value`` has 32 bytes. Completion and blocking AST are both asked for.
    """
    envelope = _ENVELOPES[command]
    length = len(name)
    head = _pack_fast(envelope, mode, length, flags, lock_id, parameter, 1, parameter, 1, 1, value)
    return head + name if length else head


unpack_result = record(
    "struct dlm_lock_result",
    skip=_PADDING | {"version", "length", "user_astaddr", "user_lksb"},
).unpack_from
"""Return parameter, status, lock id, flags, mode of a blocking AST, and where the value block is.

Of what one read(2) of ``RESULT_SIZE_MAX`` gave to a program of this machine's own; the last is 0
where there is none.
"""


_LOCK_COMMANDS = frozenset({Command.LOCK, Command.UNLOCK, Command.DEADLOCK})
_MAJOR, _MINOR, _PATCH = VERSION
_LOCKSPACE_COMMANDS = frozenset({Command.CREATE_LOCKSPACE, Command.REMOVE_LOCKSPACE})
_FILE_COMMANDS = _LOCK_COMMANDS | {Command.PURGE}


def decode_envelope(data: bytes) -> tuple[int, bool]:
    """Return the command of one write(2), and whether it is in the 32-bit layout.

    Raises ``OSError``: EINVAL for a length outside 104 to 184, EBADE for a version other than 6.0.
    A file learns its layout here: before the kernel looks at the command.
    """
    # Linux 6.1 fs/dlm/user.c, device_write(): lengths, version, compat, then the command.
    size = len(data)
    if not _WRITE_MIN <= size <= _WRITE_MAX:
        raise OSError(errno.EINVAL, f"a request of {size} bytes")
    major, minor, patch, command, is64bit = _ENVELOPE.unpack_from(data)
    if major != _MAJOR or minor > _MINOR:
        raise OSError(errno.EBADE, f"device version {major}.{minor}.{patch}")
    return command, not is64bit


def decode_request(data: bytes, *, control: bool) -> DecodedRequest:
    """Read the bytes of one write(2) as a 64-bit kernel does; ``control``: on ``dlm-control``.

    Raises ``OSError``: EINVAL for a length outside 104 to 184, EBADE for a version other than 6.0,
    EINVAL for a command that the file does not take, in this order. What was not sent reads as
    zeros (the kernel reads on in its own buffer).
    """
    command, compat = decode_envelope(data)
    body = decode_body(data, command, compat=compat, control=control)
    return DecodedRequest(command, compat, body)


def decode_body(data: bytes, command: int, *, compat: bool, control: bool) -> Request:
    """Read what follows the envelope; as ``decode_request``."""
    if command not in (_LOCKSPACE_COMMANDS if control else _FILE_COMMANDS):
        raise OSError(errno.EINVAL, f"command {command} on this file")
    size = len(data)
    packers = _COMPAT if compat else _NATIVE
    whole = data.ljust(_WRITE_MAX, b"\0")
    if command in _LOCK_COMMANDS:
        return _decode_lock(whole, size, packers)
    if command in _LOCKSPACE_COMMANDS:
        flags, device_minor = packers.lspace.unpack_from(whole)[5:]
        start = packers.lspace.size
        end = start + size - packers.request if compat else size
        name = data[start:end].split(b"\0", 1)[0]
        return LockspaceRequest(command, flags, device_minor, name)
    nodeid, pid = packers.purge.unpack_from(whole)[5:]
    return PurgeRequest(_signed(nodeid), _signed(pid))


_read_native = record(
    "struct dlm_write_request", member="lock", skip=_PADDING | {"version", "is64bit", "namelen"}
).unpack_from
_NATIVE_SIZE, _NAME_AT = _NATIVE.request, _NATIVE.name_at
_NAME_LENGTH_AT = offset_of("struct dlm_write_request", "i", "lock", "namelen")
_ENVELOPE_SIZE = _ENVELOPE.size
_NATIVE_ENVELOPES = frozenset(_ENVELOPES[command] for command in _LOCK_COMMANDS)


def decode_native(data: bytes) -> LockRequest | None:
    """Read a LOCK, UNLOCK or DEADLOCK as programs of this machine's own send it; else None.

    Says what ``decode_request`` says of it, in a quarter of its time.
    """
    size = len(data)
    if data[:_ENVELOPE_SIZE] not in _NATIVE_ENVELOPES or not _NATIVE_SIZE <= size <= _WRITE_MAX:
        return None
    name = b""
    length = data[_NAME_LENGTH_AT]
    if length:
        if length > size - _NATIVE_SIZE:
            return None
        name = data[_NAME_AT : _NAME_AT + length]
    return new_tuple(LockRequest, (*_read_native(data), name))


def _decode_lock(whole: bytes, size: int, packers: _Packers) -> LockRequest:
    fields = packers.lock.unpack_from(whole)
    command, mode, namelen = fields[3], fields[5], fields[6]
    name = b""
    if namelen:
        at = packers.name_at
        name = whole[at : at + max(size - packers.request, 0)][:namelen].ljust(namelen, b"\0")
    return LockRequest(*(command, mode, *fields[7:], name))  # fields[7:]: from flags to value


def _signed(number: int) -> int:
    return number - (1 << 32) if number & 0x80000000 else number


# ---- results and the version --------------------------------------------------------------------


def encode_result(result: LockResult, *, layout: Layout = Layout.NATIVE) -> bytes:
    """Return what one read(2) gives, with the value block behind it where there is one."""
    return pack_result(layout, *result)


def pack_result(
    layout: Layout,
    astaddr: int,
    astparam: int,
    lksb: int,
    status: int,
    lock_id: int,
    flags: int,
    bast_mode: int,
    value: bytes | None,
) -> bytes:
    """Return what ``encode_result`` does, of a result's parts."""
    if layout is _NATIVE_LAYOUT:
        packer = _NATIVE.result
    else:
        # Linux 6.1 fs/dlm/user.c, compat_output(): addresses are cut to 32 bits.
        packer = _COMPAT.result
        astaddr, astparam, lksb = astaddr & 0xFFFFFFFF, astparam & 0xFFFFFFFF, lksb & 0xFFFFFFFF
    at = 0
    length = packer.size
    if value:
        at = length
        length += len(value)
    head = packer.pack(
        _MAJOR,
        _MINOR,
        _PATCH,
        length,
        astaddr,
        astparam,
        lksb,
        status,
        lock_id,
        flags,
        bast_mode,
        at,
    )
    return head + value if value else head


_RESULT_PACKERS = {
    packers.result.size + extra: packers.result
    for packers in (_NATIVE, _COMPAT)
    for extra in (0, VALUE_BLOCK_SIZE)
}


def decode_result(data: bytes) -> LockResult:
    """Read what one read(2) gave, in either layout; its length tells which.

    Raises ``ValueError`` for anything that is no result.
    """
    packer = _RESULT_PACKERS.get(len(data))
    if packer is None:
        raise ValueError(f"{len(data)} bytes are no result of the lock device")
    fields = packer.unpack_from(data)
    at = fields[-1]
    value = data[at : at + VALUE_BLOCK_SIZE] if at else None
    return LockResult(*(*fields[4:-1], value))  # fields[4:-1]: from user_astaddr to bast_mode


def encode_version(version: tuple[int, int, int] = VERSION) -> bytes:
    """Return the 12 bytes that a read(2) of 12 bytes gives."""
    return _VERSION_PACKER.pack(*version)


def decode_version(data: bytes) -> tuple[int, int, int]:
    """Read the 12 bytes of a version; raises ``ValueError`` for another length."""
    if len(data) != VERSION_SIZE:
        raise ValueError(f"a version has {VERSION_SIZE} bytes, not {len(data)}")
    major, minor, patch = _VERSION_PACKER.unpack(data)
    return major, minor, patch
