"""The node and address device of 2005, ``dlm-node`` 1.0.0: one struct, three ioctl requests.

Decides: every byte of the argument of an ioctl on ``dlm-node``.
May not know: which checks an ioctl meets, what becomes of a node.
Mirrors: struct dlm_node_ioctl of dlm_node.h as posted to linux-kernel on 25 April 2005 (still the
same on 15 July); it went with the patch "dlm: use configfs" of 18 August.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from dlm.abi._layout import constant, record, size_of
from dlm.abi.address import SOCKADDR_SIZE

NODE_VERSION = (
    constant("DLM_NODE_VERSION_MAJOR"),
    constant("DLM_NODE_VERSION_MINOR"),
    constant("DLM_NODE_VERSION_PATCH"),
)
"""The interface's version, 1.0.0."""

NODE_SIZE = size_of("struct dlm_node_ioctl")
"""Bytes of an ioctl's argument (276), equal for 32-bit and 64-bit programs."""

NODE_VERSION_SIZE = 12
"""Bytes at its beginning that hold the version; ``Ioctl.VERSION`` takes no more than these."""

ADDRESSES_MAX = constant("DLM_NODE_MAX_ADDR_COUNT")
"""Local addresses that a node may have (3)."""

IOCTL_TYPE = 0xD1
"""The type byte of every request (DLM_IOCTL)."""

_ADDRESS_SIZE = constant("DLM_NODE_ADDR_LEN")
_NODE = record("struct dlm_node_ioctl")
_VERSION = struct.Struct("=3I")


class Ioctl(IntEnum):
    """The requests: ``_IOWR(0xd1, 0 … 2, 276 bytes)``."""

    VERSION = 0xC114D100
    SET_NODE = 0xC114D101
    SET_LOCAL = 0xC114D102


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """What SET_NODE and SET_LOCAL say; the numbers are signed 32-bit ones, unchecked.

    ``address`` holds the bytes of a sockaddr, at most 256; the kernel takes 128 of them
    (``dlm.abi.address.encode_sockaddr`` makes them).
    """

    nodeid: int
    weight: int
    address: bytes


def encode_node_request(
    request: NodeRequest, *, version: tuple[int, int, int] = NODE_VERSION
) -> bytes:
    """Return the 276 bytes of an ioctl's argument; ``ValueError`` for what does not fit."""
    if len(request.address) > _ADDRESS_SIZE:
        raise ValueError(f"an address has {_ADDRESS_SIZE} bytes at most")
    try:
        return _NODE.pack(*version, request.nodeid, request.weight, request.address)
    except struct.error as error:
        raise ValueError(f"a number does not fit its field: {request}") from error


def decode_node_request(data: bytes) -> NodeRequest:
    """Read the argument of SET_NODE or SET_LOCAL; ``address`` is the 128 bytes that count.

    Raises ``ValueError`` when there are less than 276 bytes.
    """
    if len(data) < NODE_SIZE:
        raise ValueError(f"the argument has {NODE_SIZE} bytes, not {len(data)}")
    nodeid, weight, address = _NODE.unpack_from(data)[3:]
    return NodeRequest(nodeid, weight, address[:SOCKADDR_SIZE])


def encode_node_version(version: tuple[int, int, int] = NODE_VERSION) -> bytes:
    """Return the 12 bytes of a version."""
    return _VERSION.pack(*version)


def decode_node_version(data: bytes) -> tuple[int, int, int]:
    """Read the version at the beginning of an argument; ``ValueError`` under 12 bytes."""
    if len(data) < NODE_VERSION_SIZE:
        raise ValueError(f"a version has {NODE_VERSION_SIZE} bytes, not {len(data)}")
    major, minor, patch = _VERSION.unpack_from(data)
    return major, minor, patch
