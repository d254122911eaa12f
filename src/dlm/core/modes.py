"""The tables of the lock manager: which modes go together, and where a value block moves.

Decides: compatibility, conversions that QUECVT allows, value-block moves, name hashing.
May not know: locks, resources, nodes.
Mirrors: the tables at the top of fs/dlm/lock.c and fs/dlm/lvb_table.h, include/linux/jhash.h
(Linux 5.10 … 7.2; equal in all).
"""

from __future__ import annotations

from typing import Final

IV: Final = -1
"""No mode: a lock that was never granted, or that asks for nothing (DLM_LOCK_IV)."""

NL: Final = 0
CR: Final = 1
CW: Final = 2
PR: Final = 3
PW: Final = 4
EX: Final = 5

# The index of every row and column is the mode; index -1 (no mode) is the last entry.

COMPATIBLE: Final = (
    # NL    CR     CW     PR     PW     EX     none
    (True, True, True, True, True, True, True),  # NL
    (True, True, True, True, True, False, True),  # CR
    (True, True, True, False, False, False, True),  # CW
    (True, True, False, True, False, False, True),  # PR
    (True, True, False, False, False, False, True),  # PW
    (True, False, False, False, False, False, True),  # EX
    (True, True, True, True, True, True, True),  # none
)

"""``COMPATIBLE[granted][requested]``: both may be held at once; symmetric."""
QUECVT_ALLOWED: Final = (
    # NL     CR     CW     PR     PW     EX     none
    (False, True, True, True, True, True, False),  # NL
    (False, False, True, True, True, True, False),  # CR
    (False, False, False, True, True, True, False),  # CW
    (False, False, True, False, True, True, False),  # PR
    (False, False, False, False, False, True, False),  # PW
    (False, False, False, False, False, False, False),  # EX
    (False, False, False, False, False, False, False),  # none
)
"""``QUECVT_ALLOWED[granted][requested]``: the conversion may carry QUECVT."""

RETURNED: Final = 1
"""The resource's value block goes to the caller."""

WRITTEN: Final = 0
"""The caller's value block goes to the resource."""

NOTHING: Final = -1
"""No value block moves."""

VALUE_MOVES: Final = (
    # NL       CR        CW        PR        PW        EX        none
    (RETURNED, RETURNED, RETURNED, RETURNED, RETURNED, RETURNED, NOTHING),  # NL
    (NOTHING, RETURNED, RETURNED, RETURNED, RETURNED, RETURNED, NOTHING),  # CR
    (NOTHING, NOTHING, RETURNED, RETURNED, RETURNED, RETURNED, NOTHING),  # CW
    (NOTHING, NOTHING, NOTHING, RETURNED, RETURNED, RETURNED, NOTHING),  # PR
    (WRITTEN, WRITTEN, WRITTEN, WRITTEN, WRITTEN, RETURNED, NOTHING),  # PW
    (WRITTEN, WRITTEN, WRITTEN, WRITTEN, WRITTEN, WRITTEN, NOTHING),  # EX
    (RETURNED, RETURNED, RETURNED, RETURNED, RETURNED, RETURNED, NOTHING),  # none
)
"""``VALUE_MOVES[granted before][granted now]``."""


def is_middle_conversion(granted: int, requested: int) -> bool:
    """Say whether a conversion is between PR and CW, where neither mode includes the other."""
    return (granted, requested) in ((PR, CW), (CW, PR))


def is_down_conversion(granted: int, requested: int) -> bool:
    """Say whether a conversion gives up rights: the master grants it without a reply."""
    return requested < granted and not is_middle_conversion(granted, requested)


_GOLDEN: Final = 0xDEADBEEF
_MASK: Final = 0xFFFFFFFF


def _rotate(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _MASK


def hash_name(name: bytes) -> int:
    """Return the hash of a resource name, 32 bits: Bob Jenkins' lookup3 with initial value 0.

    The low bits choose the bucket, the upper 16 the directory node.
    """
    length = len(name)
    a = b = c = (_GOLDEN + length) & _MASK
    at = 0
    while length - at > 12:
        a = (a + int.from_bytes(name[at : at + 4], "little")) & _MASK
        b = (b + int.from_bytes(name[at + 4 : at + 8], "little")) & _MASK
        c = (c + int.from_bytes(name[at + 8 : at + 12], "little")) & _MASK
        a = ((a - c) & _MASK) ^ _rotate(c, 4)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotate(a, 6)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotate(b, 8)
        b = (b + a) & _MASK
        a = ((a - c) & _MASK) ^ _rotate(c, 16)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotate(a, 19)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotate(b, 4)
        b = (b + a) & _MASK
        at += 12
    if at == length:
        return c
    tail = name[at:].ljust(12, b"\0")
    a = (a + int.from_bytes(tail[0:4], "little")) & _MASK
    b = (b + int.from_bytes(tail[4:8], "little")) & _MASK
    c = (c + int.from_bytes(tail[8:12], "little")) & _MASK
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    return ((c ^ b) - _rotate(b, 24)) & _MASK
