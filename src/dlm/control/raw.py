"""The raw actions of July 2005: one attribute, one write, no rule.

Decides: that they are made where they are meant, and nowhere else.
May not know: what a value brings about; nothing of them is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from dlm.control.checks import check_lockspace
from dlm.control.common import check_controller, dialect, find
from dlm.control.plan import Plan


def control(name: str, value: int, *, force: bool = False) -> Plan[None]:
    """Write ``control``: 0 stops, 1 starts, anything else is the kernel's EINVAL."""
    yield from _write(name, "control", str(value), force)


def event_done(name: str, value: int, *, force: bool = False) -> Plan[None]:
    """Write ``event_done``: the answer to a join or leave, kept for the next one if none waits."""
    yield from _write(name, "event_done", str(value), force)


def members(name: str, nodeids: Sequence[int], *, force: bool = False) -> Plan[None]:
    """Write ``members``: the list of the next start; EINVAL while one waits for that."""
    yield from _write(name, "members", " ".join(map(str, nodeids)), force)


def _write(name: str, attribute: str, text: str, force: bool) -> Plan[None]:
    check_lockspace(name)
    yield from check_controller(force)
    yield from find(name)
    yield from dialect.write_raw(name, attribute, text)
