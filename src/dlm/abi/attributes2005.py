"""The tables of a lockspace's attributes in 2005: April (event numbers) and July (members).

Decides: which attributes a lockspace has in each of the two dialects, with mode, format, parse rule
and checks of the value alone.
May not know: what writing an attribute brings about.
Mirrors: member_sysfs.c of the DLM as posted to linux-kernel on 25 April 2005 and on 15 July 2005.

The files stand in ``dlm/<lockspace>`` below /sys/kernel, as in mainline; node addresses go through
the ioctls of ``dlm.abi.node2005``.
"""

from __future__ import annotations

from dlm.abi.attributes import LOCKSPACE, Attribute, Parse
from dlm.abi.parse2005 import parse_int, parse_long, parse_members, wrap

__all__ = [
    "ATTRIBUTES",
    "ATTRIBUTES_EVENT",
    "ATTRIBUTES_MEMBERS",
    "KOBJECT_NAME_MAX",
    "PAGE_LIMIT",
    "format_members",
    "kobject_name",
    "parse_int",
    "parse_long",
    "parse_members",
    "parse_shown_members",
    "wrap",
]

KOBJECT_NAME_MAX = 63
"""Bytes of a lockspace's name that its directory shows."""

PAGE_LIMIT = {"event": 4095, "members": 4096}
"""Bytes of one write(2) that a store sees, by dialect; write returns no more (20 June 2005)."""

_RW, _RO, _WO = 0o644, 0o444, 0o200


def _attribute(
    name: str,
    mode: int,
    parse: Parse | None,
    show: str | None,
    meaning: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
) -> Attribute:
    default: int | str | None = None if show is None else "" if show == _MEMBERS else 0
    return Attribute(
        f"{LOCKSPACE}/{name}", mode, parse, show, default, meaning, minimum=minimum, maximum=maximum
    )


_MEMBERS = "%s\n"
_ID = _attribute("id", _RW, Parse.LONG, "%u\n", "lockspace id between nodes")
_LIST = _attribute(
    "members", _RW, Parse.MEMBERS, _MEMBERS, "read: members now; write: those of the next start"
)

ATTRIBUTES_EVENT: tuple[Attribute, ...] = (
    _attribute(
        "stop",
        _RW,
        Parse.LONG,
        "%d\n",
        "1: stop; shows the last start that was stopped",
        minimum=1,
        maximum=1,
    ),
    _attribute("start", _RW, Parse.LONG, "%d\n", "event number of a start"),
    _attribute("finish", _RW, Parse.LONG, "%d\n", "event number of the start to finish"),
    _attribute(
        "terminate",
        _RW,
        Parse.LONG,
        "%d\n",
        "1: end a join or a leave that waits",
        minimum=1,
        maximum=1,
    ),
    _attribute("done", _RO, None, "%d\n", "event number of the last start that is done"),
    _ID,
    _LIST,
)
"""April 2005."""

ATTRIBUTES_MEMBERS: tuple[Attribute, ...] = (
    _attribute("control", _WO, Parse.LONG, None, "0: stop, 1: start", minimum=0, maximum=1),
    _attribute("event_done", _WO, Parse.LONG, None, "answers a join or a leave"),
    _ID,
    _LIST,
)
"""July 2005."""

ATTRIBUTES = {"event": ATTRIBUTES_EVENT, "members": ATTRIBUTES_MEMBERS}
"""The attributes of a lockspace by the dialect of control."""


def format_members(nodeids: tuple[int, ...]) -> bytes:
    """Return what reading ``members`` gives: each id and a blank, then a newline."""
    return "".join(f"{nodeid} " for nodeid in nodeids).encode("ascii") + b"\n"


def parse_shown_members(text: bytes) -> tuple[int, ...]:
    """Return the node ids that reading ``members`` gave."""
    return tuple(int(word) for word in text.split())


def kobject_name(lockspace: str) -> str:
    """Return the name of a lockspace's directory: its first 63 bytes, nothing replaced."""
    return lockspace.encode("utf-8", "surrogateescape")[:KOBJECT_NAME_MAX].decode(
        "utf-8", "surrogateescape"
    )
