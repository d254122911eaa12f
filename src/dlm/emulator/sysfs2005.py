"""The directory ``dlm/<lockspace>`` of 2005: what its attributes show and what writing them does.

Decides: which part of a lockspace stands behind which attribute.
May not know: modes, formats and parse rules (dlm.abi.attributes2005), the rules of an event.
Mirrors: member_sysfs.c of April and July 2005, and fs/sysfs/file.c of 2.6.12.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dlm.abi.attributes import Attribute
from dlm.abi.attributes2005 import ATTRIBUTES, PAGE_LIMIT, format_members
from dlm.emulator.event import EventSpace
from dlm.emulator.members import MembersSpace
from dlm.emulator.tree import Directory, File

# Any, here and below: an attribute that only one of the dialects has finds only its lockspaces.
_SHOW: dict[str, Callable[[Any], int]] = {
    "stop": lambda space: int(space.events.last_stop),
    "start": lambda space: int(space.events.last_start),
    "finish": lambda space: int(space.events.last_finish),
    "terminate": lambda space: int(space.terminated),
    "done": lambda space: int(space.events.done),
    "id": lambda space: int(space.global_id),
}


def lockspace(space: EventSpace | MembersSpace) -> Directory:
    """Return a new directory for a lockspace."""
    directory = Directory()
    for row in ATTRIBUTES[space.module.profile.control]:
        show = None if row.show is None else partial(_show, space, row)
        store = None if row.parse is None else partial(_store, space, row)
        directory.entries[row.name] = File(row.mode, show, store)
    return directory


def _show(space: EventSpace | MembersSpace, row: Attribute) -> bytes:
    if row.name == "members":
        return format_members(space.shown_members())
    return row.show_value(_SHOW[row.name](space))


def _store(space: EventSpace | MembersSpace, row: Attribute, text: bytes, capable: bool) -> int:
    # fs/sysfs/file.c, fill_write_buffer(): more than a page is cut, nothing asks for no bytes.
    del capable
    text = text[: PAGE_LIMIT[space.module.profile.control]]
    if text:
        _STORE[row.name](space, row.parse_value(text))
    return len(text)


def _stop(space: EventSpace | MembersSpace, _: int) -> None:
    sleeping = space.stop()
    assert sleeping is None, "the lock manager takes every call in one step: none is ever inside"


def _control(space: MembersSpace, value: int) -> None:
    if value:
        space.start()
    else:
        _stop(space, value)


def _id(space: EventSpace | MembersSpace, value: int) -> None:
    space.global_id = value & 0xFFFFFFFF


_STORE: dict[str, Callable[[Any, Any], None]] = {
    "stop": _stop,
    "start": EventSpace.start_event,
    "finish": EventSpace.finish_event,
    "terminate": lambda space, _: space.terminate(),
    "control": _control,
    "event_done": MembersSpace.set_event_done,
    "id": _id,
    "members": lambda space, nodeids: space.set_next_members(nodeids),
}
