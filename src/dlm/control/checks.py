"""What a caller may say: names, numbers and addresses, checked before anything is read or written.

Decides: what is a usage error, and the words for it.
May not know: the kernel's state.
Mirrors: the kernel's own limits (Linux 6.1 fs/dlm/lockspace.c, dlm_internal.h, config.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlm.errors import UsageError
from dlm.terms import LOCKSPACE_NAME_MAX, RESOURCE_NAME_MAX, EventNr, LockId, NodeId

_INT_MAX = 2**31 - 1
_UINT_MAX = 2**32 - 1


def check_lockspace(name: str) -> str:
    """Return the name of a lockspace that can be one: 1 to 64 bytes, a single path component."""
    size = len(_encode(name))
    if not name:
        raise UsageError("a lockspace name may not be empty")
    if size > LOCKSPACE_NAME_MAX:
        raise UsageError(
            f"lockspace name {name!r} has {size} bytes, more than {LOCKSPACE_NAME_MAX}"
        )
    if "/" in name or "\0" in name or name in {".", ".."}:
        raise UsageError(f"lockspace name {name!r} is no file name")
    return name


def check_resource(name: bytes) -> bytes:
    """Return the name of a resource that can be one: at most 64 bytes."""
    if len(name) > RESOURCE_NAME_MAX:
        raise UsageError(
            f"resource name {name!r} has {len(name)} bytes, more than {RESOURCE_NAME_MAX}"
        )
    return name


def check_nodeid(number: int) -> NodeId:
    """Return a node id: 1 to 2**31 - 1."""
    return NodeId(_check_range("node id", number, 1, _INT_MAX))


def check_event(number: int) -> EventNr:
    """Return an event number: 1 to 2**31 - 1."""
    return EventNr(_check_range("event number", number, 1, _INT_MAX))


def check_weight(number: int) -> int:
    """Return a weight: 0 to 2**31 - 1."""
    return _check_range("weight", number, 0, _INT_MAX)


def check_lockspace_id(number: int) -> int:
    """Return a lockspace's global id: 0 to 2**32 - 1."""
    return _check_range("lockspace id", number, 0, _UINT_MAX)


def check_lock_id(number: int) -> LockId:
    """Return a lock id: 1 to 2**32 - 1."""
    return LockId(_check_range("lock id", number, 1, _UINT_MAX))


def check_members(members: Iterable[int], rejoined: Iterable[int]) -> tuple[NodeId, ...]:
    """Return the members of a start in ascending order; ``rejoined`` must be among them."""
    found = [check_nodeid(member) for member in members]
    if not found:
        raise UsageError("a start needs at least one member")
    for nodeid in found:
        if found.count(nodeid) > 1:
            raise UsageError(f"node {nodeid} is named twice among the members")
    for each in rejoined:
        if each not in found:
            raise UsageError(f"node {each} cannot have rejoined: it is not among the members")
    return tuple(sorted(found))


def check_addresses(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of a node, each once, written as the kernel's list shows them."""
    from dlm.abi.address import decode_sockaddr, encode_sockaddr

    texts = (addresses,) if isinstance(addresses, str) else tuple(addresses)
    if not texts:
        raise UsageError("a node needs at least one address")
    found: list[str] = []
    for text in texts:
        try:
            plain = decode_sockaddr(encode_sockaddr(text)) or text
        except ValueError:
            raise UsageError(f"{text!r} is neither an IPv4 nor an IPv6 address") from None
        if plain not in found:
            found.append(plain)
    return tuple(found)


def _check_range(what: str, number: int, low: int, high: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise UsageError(f"{what} {number!r} is no integer")
    if not low <= number <= high:
        kind = "a positive integer" if low == 1 else "an integer of at least 0"
        limit = "" if number < low else f" up to {high}"
        raise UsageError(f"{what} {number} is not {kind}{limit}")
    return number


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
