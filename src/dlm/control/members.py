"""The dialect of July 2005: control, event_done and a list of members.

Decides: which of these files is written for what, how a lockspace's phase shows.
May not know: when a verb may do what, nodes (dlm.control.common2005).
Mirrors: member_sysfs.c and recoverd.c after "dlm: rework recovery control" of 15 July 2005.

The kernel keeps no event number and tells of no end of a recovery; INFER: the end is seen by
``members``, which is EBUSY while locking is off. A stop and a recovery that goes on look alike:
what was written last is remembered.
"""

from __future__ import annotations

from dlm.control.common2005 import (
    begin_create,
    begin_remove,
    explain_absence,
    has_module,
    identity,
    is_complete,
    lock_device,
    lockspaces,
    members,
    nodes,
    phase_of,
    place,
    read_id,
    read_locks,
    set_local,
    set_node,
    shown_members,
    shows_leaves,
    takes_answer,
    takes_back,
    write_id,
    write_members,
)
from dlm.control.plan import Begun, Plan, Result, Submit, write_number
from dlm.control.seen import Phase, Seen
from dlm.control.state import recall
from dlm.ports import WriteAttribute
from dlm.terms import RecoverStatus

__all__ = [
    "answer_join",
    "answer_leave",
    "begin_create",
    "begin_remove",
    "begin_stop",
    "explain_absence",
    "glance",
    "has_module",
    "is_complete",
    "lock_device",
    "lockspaces",
    "look",
    "members",
    "nodes",
    "read_id",
    "read_locks",
    "set_local",
    "set_node",
    "shows_leaves",
    "takes_answer",
    "takes_back",
    "write_finish",
    "write_id",
    "write_members",
    "write_raw",
    "write_start",
]


def look(name: str) -> Plan[Seen | None]:
    """Look at a lockspace: None when there is none of that name."""
    there = yield from identity(name)
    if there is None:
        return None
    running = (yield from shown_members(name)) is not None
    seen = Seen(name, *there, 0, Phase.STOPPED)
    state = yield from recall(seen)
    # A start that was interrupted may not have been written; to write it again does no harm.
    doubt = state.doing.startswith("start ")
    started = bool(state.last_start) and not state.stopped and not doubt
    status = RecoverStatus.DONE if running else RecoverStatus.NODES if started else 0
    phase = yield from phase_of(seen, started=started, running=running)
    return seen.replace(status=int(status), phase=phase)


glance = look


def begin_stop(name: str) -> Plan[Begun]:
    """Suspend locking; the write returns when no lock operation is left inside."""
    begun: Begun = yield Submit(WriteAttribute(f"{place(name)}/control", b"0\n"))
    return begun


def write_start(name: str, event_nr: int) -> Plan[None]:
    """Let recovery begin; success says nothing, and no number is kept."""
    del event_nr
    yield from write_number(f"{place(name)}/control", 1)


def write_finish(name: str, event_nr: int) -> Plan[None]:
    """Write nothing: recovery switches locking on itself."""
    del name, event_nr
    yield from ()


def answer_join(name: str, answer: int) -> Plan[None]:
    """Answer the join that waits; unawaited, it answers the next wait."""
    yield from write_number(f"{place(name)}/event_done", answer)


def answer_leave(name: str) -> Plan[None]:
    """Answer the leave that waits, likewise; the value does not count."""
    yield from write_number(f"{place(name)}/event_done", 0)


def write_raw(name: str, attribute: str, text: str) -> Plan[None]:
    """Write an attribute as the tool of July did, but for the NUL behind the text."""
    what = f"the lock operations in {name} to come to an end"
    begun: Begun = yield Submit(WriteAttribute(f"{place(name)}/{attribute}", text.encode("ascii")))
    yield Result(begun, what)
