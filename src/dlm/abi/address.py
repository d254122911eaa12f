"""Node addresses, as configfs takes them and as it shows them.

Decides: the 128 bytes of ``comms/<comm>/addr``, the lines of ``addr_list``.
May not know: which node has which address, interfaces, sockets.
Mirrors: comm_addr_store() and comm_addr_list_show() of fs/dlm/config.c (Linux 6.1).
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from dlm.abi._layout import constant, record, size_of

SOCKADDR_SIZE = size_of("union dlm_sockaddr_storage")
"""Bytes of an address (128): the only length that ``addr`` takes."""

UNKNOWN = "<UNKNOWN>"
"""What ``addr_list`` shows for an address of a family other than IPv4 and IPv6."""

_INET = constant("DLM_AF_INET")
_INET6 = constant("DLM_AF_INET6")
_PORT = slice(2, 4)
_IN = record("struct dlm_sockaddr_in", skip=frozenset({"sin_port", "sin_zero"}))
_IN6 = record(
    "struct dlm_sockaddr_in6", skip=frozenset({"sin6_port", "sin6_flowinfo", "sin6_scope_id"})
)


def encode_sockaddr(address: str) -> bytes:
    """Return the 128 bytes of an IPv4 or IPv6 address, in this machine's byte order, port 0.

    Raises ``ValueError`` for anything else: host names, masks, scopes, ports.
    """
    for number, family, packer in ((_INET, AF_INET, _IN), (_INET6, AF_INET6, _IN6)):
        try:
            packed = inet_pton(family, address)
        except (OSError, ValueError):  # ValueError: a NUL in it
            continue
        return packer.pack(number, packed).ljust(SOCKADDR_SIZE, b"\0")
    raise ValueError(f"{address!r} is neither an IPv4 nor an IPv6 address")


def decode_sockaddr(raw: bytes) -> str | None:
    """Return the address in its shortest usual form, or None for another family.

    Raises ``ValueError`` when there are not 128 bytes.
    """
    if len(raw) != SOCKADDR_SIZE:
        raise ValueError(f"an address has {SOCKADDR_SIZE} bytes, not {len(raw)}")
    number, packed = _IN.unpack_from(raw)
    if number == _INET:
        return inet_ntop(AF_INET, packed)
    if number == _INET6:
        return inet_ntop(AF_INET6, _IN6.unpack_from(raw)[1])
    return None


def is_same_address(filed: bytes, other: bytes) -> bool:
    """Say whether the kernel takes an address for one that it has; 128 bytes both.

    An address of an unknown family is like no other. Quirk: those with another port are others,
    though no port is used; and only the family of the one that is there counts, so that the same
    bytes under another family are the same address.
    """
    # Linux 6.1 fs/dlm/lowcomms.c, addr_compare()
    family, packed = _IN.unpack_from(filed)
    if filed[_PORT] != other[_PORT]:
        return False
    if family == _INET:
        return bool(packed == _IN.unpack_from(other)[1])
    return bool(family == _INET6 and _IN6.unpack_from(filed)[1] == _IN6.unpack_from(other)[1])


def format_address_line(raw: bytes) -> str:
    """Return the line of ``addr_list`` for the 128 bytes that were written to ``addr``."""
    number, packed = _IN.unpack_from(raw)
    if number == _INET:
        return f"AF_INET\t{inet_ntop(AF_INET, packed)}\n"
    if number == _INET6:
        digits = _IN6.unpack_from(raw)[1].hex()
        groups = ":".join(digits[start : start + 4] for start in range(0, 32, 4))
        return f"AF_INET6\t{groups}\n"
    return f"{UNKNOWN}\n"


def parse_address_list(text: bytes | str) -> list[str]:
    """Return the addresses that ``addr_list`` shows, in its order, each in its shortest form.

    An address of an unknown family is returned as ``<UNKNOWN>``, which ``encode_sockaddr`` refuses.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii")
    return [_shortest(line.rpartition("\t")[2]) for line in text.splitlines()]


def _shortest(address: str) -> str:
    return address if address == UNKNOWN else decode_sockaddr(encode_sockaddr(address)) or address
