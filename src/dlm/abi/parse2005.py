"""How the kernel of 2005 read numbers and lists of members.

Decides: what a written text means.
May not know: which attribute it was written to.
Mirrors: simple_strtol() and vsscanf() of lib/vsprintf.c (2.6.12), the store of ``members`` in the
DLM as posted to linux-kernel on 25 April 2005.
"""

from __future__ import annotations

import errno
import re

# Uppercase 0X is UNKNOWN to our document of 2005's kernel; it is taken, as INFERred there.
_LONG = re.compile(rb"(-?)(?:0[xX](?=[0-9a-fA-F])([0-9a-fA-F]*)|(0[0-7]*)|([1-9][0-9]*)|)")
_TOKEN = re.compile(rb"[0-9]+")
_SPACES = b" \t\n\v\f\r"
_LONG_BITS = 64


def wrap(number: int, bits: int) -> int:
    """Return what is left of a number in a signed C type of so many bits."""
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def parse_long(text: bytes) -> int:
    """Read a text as simple_strtol() with base 0 does; never an error.

    One ``-``, then ``0x`` hexadecimal, ``0`` octal or decimal digits; it stops at the first byte
    that is none, so garbage and the empty text give 0. What is too large wraps in 64 bits.
    """
    match = _LONG.match(text.partition(b"\0")[0])
    assert match is not None
    minus, hexadecimal, octal, decimal = match.groups()
    # A page of digits is not worth a conversion: the last ones decide what is left of 64 bits.
    number = 0
    if hexadecimal:
        number = int(hexadecimal[-16:], 16)
    elif octal:
        number = int(octal[-22:], 8)
    elif decimal:
        number = _decimal(decimal)
    return wrap(-number if minus else number, _LONG_BITS)


def parse_int(text: bytes) -> int:
    """Read a text as simple_strtol() does and keep what fits a C int."""
    return wrap(parse_long(text), 32)


def parse_members(text: bytes) -> tuple[int, ...]:
    """Read the list of node ids that was written to ``members``; EINVAL (``OSError``).

    Ids are separated by exactly one blank, in unsigned decimal; what follows an id's digits up to
    the next blank is ignored, and numbers wrap in 32 bits. A newline makes the list wrong: white
    space is counted, tokens are not, and the two must agree.
    """
    count = 1 + sum(byte in _SPACES for byte in text)
    ids: list[int] = []
    for token in text.partition(b"\0")[0].split(b" "):
        match = _TOKEN.match(token)
        if match is None:
            break
        ids.append(_decimal(match[0]) & 0xFFFFFFFF)
    if len(ids) != count:
        raise OSError(errno.EINVAL, f"{text[:40]!r} is no list of node ids")
    return tuple(ids)


def _decimal(digits: bytes) -> int:
    # int() refuses thousands of digits.
    number = 0
    for start in range(0, len(digits), 1000):
        part = digits[start : start + 1000]
        number = (number * pow(10, len(part), 1 << _LONG_BITS) + int(part)) % (1 << _LONG_BITS)
    return number
