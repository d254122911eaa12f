"""The lock device of 2005, version 3.0.0: requests and results, between values and bytes.

Decides: every byte that is written to or read from ``dlm-control`` and ``dlm_<lockspace>`` of 2005,
as 64-bit and as i386 programs lay them out, and the checks of a request's envelope.
May not know: what a command does, who owns a lock.
Mirrors: dlm_device.h and the read and write of device.c as of 25 April 2005.

The values are those of ``dlm.abi.device``, whose fields without a place here (xid, timeout) are
left out. ``Layout.NATIVE`` is a 64-bit kernel's (136 and 64 bytes), ``Layout.COMPAT32`` an i386
kernel's (104 and 40 bytes): neither takes the other's, the device had no compat layer.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from dlm.abi._layout import constant, offset_of, record, size_of
from dlm.abi.device import Command, Layout, LockRequest, LockResult, LockspaceRequest
from dlm.terms import VALUE_BLOCK_SIZE

VERSION = (
    constant("DLM_DEVICE3_VERSION_MAJOR"),
    constant("DLM_DEVICE3_VERSION_MINOR"),
    constant("DLM_DEVICE3_VERSION_PATCH"),
)
"""The interface's version, 3.0.0."""

COMMANDS = (
    Command.LOCK,
    Command.UNLOCK,
    Command.QUERY,
    Command.CREATE_LOCKSPACE,
    Command.REMOVE_LOCKSPACE,
)
"""The commands that have a number; QUERY's was kept, it is not implemented."""

FLAGS_MAX = 0xFFFF
"""The flags of a lock are 16 bits wide: ALTCW and all later ones cannot be said."""

_LOCK_COMMANDS = frozenset({Command.LOCK, Command.UNLOCK})
_LOCKSPACE_COMMANDS = frozenset({Command.CREATE_LOCKSPACE, Command.REMOVE_LOCKSPACE})


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A request that passed the checks of its envelope.

    ``extent`` is the byte range of a lock, (0, 0) where none is said; it counts when its end is
    not 0.
    """

    command: int
    body: LockRequest | LockspaceRequest
    extent: tuple[int, int] = (0, 0)


class _Packers:
    """The packers and sizes of one layout, all from cffi's offsets."""

    __slots__ = ("lock", "lspace", "name_at", "request", "result", "space_name_at")

    def __init__(self, suffix: str) -> None:
        request = f"struct dlm_write_request3{suffix}"
        # The name is an array of one byte in the struct; what is sent goes on behind it.
        self.lock = record(request, member="lock", skip=frozenset({"name"}))
        self.lspace = record(request, member="lspace", skip=frozenset({"name"}))
        self.result = record(
            f"struct dlm_lock_result3{suffix}", skip=frozenset({"sb_lvbptr", "unused"})
        )
        self.request = size_of(request)
        self.name_at = offset_of(request, "i", "lock", "name")
        self.space_name_at = offset_of(request, "i", "lspace", "name")


_PACKERS = {Layout.NATIVE: _Packers(""), Layout.COMPAT32: _Packers("_i386")}

REQUEST_SIZE = {layout: packers.request for layout, packers in _PACKERS.items()}
"""Bytes of a request whose name has one byte or none: 136, and 104."""

WRITE_MIN = {layout: packers.request - 1 for layout, packers in _PACKERS.items()}
"""Shortest write(2): one byte less than a request, whatever the command and the name."""

RESULT_SIZE = {layout: packers.result.size for layout, packers in _PACKERS.items()}
"""Bytes of a result without a value block: 64, and 40."""

RESULT_SIZE_MAX = RESULT_SIZE[Layout.NATIVE] + VALUE_BLOCK_SIZE
"""Bytes that a read(2) should offer, so that every result fits whole."""

_ENVELOPE = struct.Struct("=3IB")  # version, cmd: the first 13 bytes in both layouts
_HALF = 0xFFFFFFFF

# ---- requests -----------------------------------------------------------------------------------


def encode_request(
    request: LockRequest | LockspaceRequest,
    *,
    layout: Layout = Layout.NATIVE,
    version: tuple[int, int, int] = VERSION,
    extent: tuple[int, int] = (0, 0),
) -> bytes:
    """Return the bytes of one write(2), as libdlm of 2005 wrote them.

    ``extent`` is a lock's byte range. What does not fit its field raises ``ValueError``: flags have
    16 bits; all else is the kernel's to refuse.
    """
    packers = _PACKERS[layout]
    try:
        if isinstance(request, LockRequest):
            whole = _lock_head(request, layout, version, extent) + request.name
            # libdlm: the name's first byte is the struct's own; an unlock is the bare struct.
            size = packers.request + len(request.name) - (request.command == Command.LOCK)
            return whole.ljust(size, b"\0")
        head = packers.lspace.pack(*version, request.command, request.flags, request.minor)
        whole = head[: packers.space_name_at] + request.name
        return whole.ljust(packers.request + len(request.name), b"\0")
    except struct.error as error:
        raise ValueError(f"a number does not fit its field: {request}") from error


def _lock_head(
    request: LockRequest,
    layout: Layout,
    version: tuple[int, int, int],
    extent: tuple[int, ...],
) -> bytes:
    packers = _PACKERS[layout]
    if len(request.value) != VALUE_BLOCK_SIZE:
        raise ValueError(f"a value block has {VALUE_BLOCK_SIZE} bytes, not {len(request.value)}")
    numbers = extent
    if layout is Layout.COMPAT32:
        numbers = tuple(half for number in extent for half in (number & _HALF, number >> 32))
    head = packers.lock.pack(
        *version,
        request.command,
        request.mode,
        request.flags,
        request.lock_id,
        request.parent,
        *numbers,
        len(request.name),
        request.castparam,
        request.castaddr,
        request.bastparam,
        request.bastaddr,
        request.lksb,
        request.value,
    )
    return head[: packers.name_at]


def decode_envelope(
    data: bytes, *, layout: Layout = Layout.NATIVE
) -> tuple[int, tuple[int, int, int]]:
    """Return command and version of one write(2); EINVAL (``OSError``) when it is too short."""
    if len(data) < WRITE_MIN[layout]:
        raise OSError(errno.EINVAL, f"a request of {len(data)} bytes")
    major, minor, patch, command = _ENVELOPE.unpack_from(data)
    return command, (major, minor, patch)


def is_version_taken(version: tuple[int, int, int]) -> bool:
    """Say whether the kernel takes requests of a version: 3.0, whatever the patch."""
    return version[0] == VERSION[0] and version[1] <= VERSION[1]


def decode_request(data: bytes, *, control: bool, layout: Layout = Layout.NATIVE) -> DecodedRequest:
    """Read the bytes of one write(2) as a kernel does; ``control``: on ``dlm-control``.

    Raises ``OSError``: EINVAL under 135 bytes, EBADE for a version other than 3.0, EINVAL for a
    command that the file does not take, in this order. What was not sent reads as zeros (the
    kernel read on in its own buffer).
    """
    command, version = decode_envelope(data, layout=layout)
    if not is_version_taken(version):
        raise OSError(errno.EBADE, "device version {}.{}.{}".format(*version))
    if command not in (_LOCKSPACE_COMMANDS if control else _LOCK_COMMANDS):
        raise OSError(errno.EINVAL, f"command {command} on this file")
    packers = _PACKERS[layout]
    # One byte less than the struct may be sent.
    if command in _LOCKSPACE_COMMANDS:
        flags, minor = packers.lspace.unpack_from(data.ljust(packers.request, b"\0"))[4:6]
        name = data[packers.space_name_at :].partition(b"\0")[0]
        return DecodedRequest(command, LockspaceRequest(command, flags, minor, name))
    return _decode_lock(command, data.ljust(packers.request, b"\0"), layout)


def _decode_lock(command: int, data: bytes, layout: Layout) -> DecodedRequest:
    packers = _PACKERS[layout]
    fields = packers.lock.unpack_from(data)[4:]
    mode, flags, lock_id, parent = fields[:4]
    if layout is Layout.COMPAT32:
        extent = (fields[4] | fields[5] << 32, fields[6] | fields[7] << 32)
    else:
        extent = fields[4:6]
    namelen, castparam, castaddr, bastparam, bastaddr, lksb, value = fields[-7:]
    name = data[packers.name_at :][:namelen].ljust(namelen, b"\0")
    body = LockRequest(
        command=command,
        mode=mode,
        flags=flags,
        lock_id=lock_id,
        parent=parent,
        castparam=castparam,
        castaddr=castaddr,
        bastparam=bastparam,
        bastaddr=bastaddr,
        lksb=lksb,
        value=value,
        name=name,
    )
    return DecodedRequest(command, body, extent)


# ---- results ------------------------------------------------------------------------------------


def encode_result(
    result: LockResult, *, layout: Layout = Layout.NATIVE, room: bool = True
) -> bytes:
    """Return what one read(2) gives, with the value block behind it where there is one.

    Without ``room`` for the value block the struct comes alone, its length that of the whole and
    its offset 0; the event stays to be read again. bast_mode is always 0.
    """
    packer = _PACKERS[layout].result
    value = result.value or b""
    head = packer.pack(
        packer.size + len(value),
        result.astaddr,
        result.astparam,
        result.lksb,
        result.status,
        result.lock_id,
        result.flags,
        0,
        packer.size if value and room else 0,
    )
    return head + value if room else head


_BY_LENGTH = {
    packers.result.size + extra: packers.result
    for packers in _PACKERS.values()
    for extra in (0, VALUE_BLOCK_SIZE)
}


def decode_result(data: bytes) -> LockResult:
    """Read what one read(2) gave, in either layout; its length tells which.

    ``status`` is negative as the kernel gives it (libdlm flips the sign). Raises ``ValueError`` for
    anything that is no result.
    """
    packer = _BY_LENGTH.get(len(data))
    if packer is None:
        raise ValueError(f"{len(data)} bytes are no result of the lock device 3.0.0")
    fields = packer.unpack_from(data)
    at = fields[-1]
    value = data[at : at + VALUE_BLOCK_SIZE] if at else None
    return LockResult(*(*fields[1:-1], value))  # fields[1:-1]: from user_astaddr to bast_mode
