"""The protocol of dlm.remote, version 1: preamble, frames, values.

Decides: every byte on the stream.
May not know: what a call means, what kind of stream it is.

Each side begins with a preamble of eight bytes: ``DLMR`` and its version, a big-endian u32. The
client's comes first. Then frames follow: their length (u32, without itself) and one value, which is
a list.

===================  ==================================================  =========================
from the client      ``[number, target, how, verb, argument, …]``        a request
from the server      ``[number, RESULT, value]``                         its end
                     ``[number, REFUSED, errno, text, file name|None]``  its end: an ``OSError``
                     ``[number, BEGUN]``                                 it sleeps; the end follows
                     ``[0, LEVEL, target, 0|1]``                         a descriptor's readability
===================  ==================================================  =========================

Requests are numbered from 1 and may overlap; number 0 wants no answer. A *target* is the number of
a process, device or subscription; 0 is the process that the connection is. The first request is
``hello``. Values are self-describing, one letter and its content (all numbers big-endian):

``N`` None, ``T`` ``F`` booleans, ``i`` s64, ``d`` double, ``b`` u32 + bytes, ``s`` u32 + UTF-8,
``l`` u32 + so many values.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Any

VERSION = 1
"""Of the protocol; both sides must have the same."""

MAGIC = b"DLMR"
"""Begins a session; as a length it is longer than any frame, so it is never taken for one."""

REQUEST_LIMIT = 1 << 20
"""Bytes of the longest request."""

ANSWER_LIMIT = 1 << 28
"""Bytes of the longest answer: a list of all locks of a large lockspace."""

_DEPTH = 8
_U32 = struct.Struct(">I")
_PREAMBLE = struct.Struct(">4sI")
_INTEGER = struct.Struct(">cq")
_DOUBLE = struct.Struct(">cd")
_SIZED = struct.Struct(">cI")
_S64 = struct.Struct(">q")
_F64 = struct.Struct(">d")


class Kind(IntEnum):
    """What a frame from the server says."""

    RESULT = 0
    REFUSED = 1
    BEGUN = 2
    LEVEL = 3


class How(IntFlag):
    """How a request is made."""

    PLAIN = 0
    SUBMIT = 1
    """Say ``BEGUN`` when it does not end at once."""
    DETACHED = 2
    """It outlives its process."""


class ProtocolError(Exception):
    """What came is no frame of this protocol; says why."""


def preamble(version: int = VERSION) -> bytes:
    """Return what a side says first."""
    return _PREAMBLE.pack(MAGIC, version)


PREAMBLE_SIZE = _PREAMBLE.size


def read_preamble(data: bytes) -> int:
    """Return the version in a preamble; raises ``ProtocolError``."""
    magic, version = _PREAMBLE.unpack(data)
    if magic != MAGIC:
        raise ProtocolError(f"no preamble: {data!r}")
    return int(version)


# ---- values -------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """Return a value's bytes; ``TypeError`` for what has none, ``OverflowError`` beyond 64 bits."""
    chunks: list[bytes] = []
    _put(value, chunks.append)
    return b"".join(chunks)


def _put(value: object, add: Any) -> None:  # Any: list.append of the chunks
    if isinstance(value, bool):
        add(b"T" if value else b"F")
    elif isinstance(value, int):
        try:
            add(_INTEGER.pack(b"i", value))
        except struct.error as error:
            raise OverflowError(f"{value} does not fit 64 bits") from error
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        add(_SIZED.pack(b"b", len(data)))
        add(data)
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        add(_SIZED.pack(b"s", len(data)))
        add(data)
    elif value is None:
        add(b"N")
    elif isinstance(value, list | tuple):
        add(_SIZED.pack(b"l", len(value)))
        for each in value:
            _put(each, add)
    elif isinstance(value, float):
        add(_DOUBLE.pack(b"d", value))
    else:
        raise TypeError(f"{type(value).__name__} does not travel")


def decode(data: bytes) -> Any:  # Any: it says itself what it is
    """Return the value that these bytes are, all of them; raises ``ProtocolError``."""
    try:
        value, end = _get(data, 0, _DEPTH)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a value is cut short or garbled ({error})") from error
    if end != len(data):
        raise ProtocolError(f"{len(data) - end} bytes behind a value")
    return value


def _get(data: bytes, at: int, depth: int) -> tuple[Any, int]:  # Any: as decode()
    tag = data[at]
    at += 1
    if tag == 0x69:  # i
        return _S64.unpack_from(data, at)[0], at + 8
    if tag in b"bs":
        start = at + 4
        end = start + _U32.unpack_from(data, at)[0]
        if end > len(data):
            raise ProtocolError("a text is longer than its frame")
        content = data[start:end]
        return (content if tag == 0x62 else content.decode("utf-8", "surrogateescape")), end
    if tag == 0x6C:  # l
        count = _U32.unpack_from(data, at)[0]
        at += 4
        if count > len(data) - at or not depth:
            raise ProtocolError("a list is longer or deeper than its frame allows")
        values = []
        for _ in range(count):
            value, at = _get(data, at, depth - 1)
            values.append(value)
        return values, at
    if tag == 0x64:  # d
        return _F64.unpack_from(data, at)[0], at + 8
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    raise ProtocolError(f"no value begins with {tag:#04x}")


_CONSTANTS = {ord("N"): None, ord("T"): True, ord("F"): False}


# ---- frames -------------------------------------------------------------------------------------


def frame(value: object) -> bytes:
    """Return a value as a frame."""
    data = encode(value)
    return _U32.pack(len(data)) + data


class Frames:
    """Cuts what comes from a stream into the preamble and frames.

    ``limit`` is the length that no frame may have more than. With ``restarts`` (a serial port,
    which has no end of file) a preamble may come in place of a frame: whoever was there is gone.
    """

    def __init__(self, limit: int, *, restarts: bool = False) -> None:
        self._limit = limit
        self._restarts = restarts
        self._buffer = bytearray()
        self._begun = False
        self._head = 0  # of the buffer: what has been given already

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self._head:
            del self._buffer[: self._head]
            self._head = 0
        self._buffer += data

    def resynchronize(self) -> None:
        """Look for the next preamble (a serial line, after a session's end)."""
        self._begun = False

    def _skip(self) -> None:
        """Forget what comes before a preamble, or what may be the beginning of one."""
        del self._buffer[: self._head]
        self._head = 0
        found = self._buffer.find(MAGIC)
        del self._buffer[: found if found >= 0 else max(0, len(self._buffer) - len(MAGIC) + 1)]

    def take(self) -> int | list[Any] | None:  # Any: an argument says itself what it is
        """Return the version in a preamble, a frame's list, or None when no more is there.

        Raises ``ProtocolError``; then nothing more can be taken, except after
        ``resynchronize()``.
        """
        if self._restarts and not self._begun:
            self._skip()
            if len(self._buffer) < len(MAGIC):
                return None
        buffer, head = self._buffer, self._head
        there = len(buffer) - head
        if not self._begun or (self._restarts and buffer[head : head + 4] == MAGIC):
            return self._take_preamble(there)
        if there < 4:
            return None
        (size,) = _U32.unpack_from(buffer, head)
        if size > self._limit:
            raise ProtocolError(f"a frame of {size} bytes, {self._limit} are allowed")
        if there < 4 + size:
            return None
        self._head = head + 4 + size
        value = decode(bytes(buffer[head + 4 : self._head]))
        if not isinstance(value, list):
            raise ProtocolError("a frame that is no list")
        return value

    def _take_preamble(self, there: int) -> int | None:
        head = self._head
        start = bytes(self._buffer[head : head + PREAMBLE_SIZE])
        if not MAGIC.startswith(start[:4]):
            raise ProtocolError(f"no preamble: {start!r}")
        if there < PREAMBLE_SIZE:
            return None
        self._head = head + PREAMBLE_SIZE
        self._begun = True
        return read_preamble(start)
