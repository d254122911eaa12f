"""Texts of the command line to values: numbers, names, modes, flags.

Decides: how a number, a mode and a flag are written.
May not know: any action; what is a legal value beyond its spelling is dlm.control.checks'.
Mirrors: the tool of 2005: modes by their first two letters, flags as a list with commas.
"""

from __future__ import annotations

from collections.abc import Callable

from dlm.control import checks
from dlm.errors import UsageError
from dlm.terms import LockFlag, LockMode

Value = int | float | str | bytes | tuple[int, ...] | tuple[str, ...]
"""What an argument can become."""

# CONVERT and ORPHAN are the tool's own to set; TIMEOUT has no effect on any kernel of today.
_FLAGS = {flag.name: flag for flag in LockFlag if flag.name not in {"CONVERT", "ORPHAN", "TIMEOUT"}}


def read_number(text: str, what: str) -> int:
    """Return a decimal number, or a hexadecimal one with 0x."""
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if digits.isascii() and digits.isdecimal():
        return int(text)
    if digits[:2] in {"0x", "0X"} and text == digits:
        try:
            return int(digits, 16)
        except ValueError:
            pass
    raise UsageError(f"{what} {text!r} is no number")


def read_mode(text: str) -> LockMode:
    """Return a mode: its first two letters count, in any case (``EXCLUSIVE`` is EX)."""
    try:
        return LockMode[text[:2].upper()]
    except KeyError:
        names = " ".join(mode.name for mode in LockMode)
        raise UsageError(f"mode {text!r} is none of: {names}") from None


def read_flags(text: str) -> LockFlag:
    """Return the flags of a list with commas, in any case; an empty item ends the list."""
    flags = LockFlag(0)
    for word in text.split(","):
        if not word:
            break
        if word.upper() not in _FLAGS:
            raise UsageError(f"flag {word!r} is none of: {' '.join(map(str, _FLAGS))}")
        flags |= _FLAGS[word.upper()]
    return flags


def _number(what: str, check: Callable[[int], int]) -> Callable[[str], int]:
    return lambda text: check(read_number(text, what))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UsageError(f"timeout {text!r} is no number of seconds")
    return seconds


def _nodeids(text: str) -> tuple[int, ...]:
    nodeid = READERS["nodeid"]
    return tuple(int(nodeid(word)) for word in text.split(","))  # type: ignore[arg-type]


READERS: dict[str, Callable[[str], Value]] = {
    "lockspace": checks.check_lockspace,
    "resource": lambda text: checks.check_resource(text.encode("utf-8", "surrogateescape")),
    "addresses": lambda text: checks.check_addresses(text.split(",")),
    "nodeid": _number("node id", checks.check_nodeid),
    "nodeids": _nodeids,
    "event": _number("event number", checks.check_event),
    "weight": _number("weight", checks.check_weight),
    "lockspace_id": _number("lockspace id", checks.check_lockspace_id),
    "lock_id": _number("lock id", checks.check_lock_id),
    "number": lambda text: read_number(text, "value"),
    "type": lambda text: read_number(text, "type"),
    "mode": read_mode,
    "flags": read_flags,
    "seconds": _seconds,
    "": str,
}
"""How each kind of argument is read; a text that cannot be one raises ``UsageError``."""
