"""The dialect of April 2005: stop, start, finish and terminate, with event numbers.

Decides: which of these files is written for what, how a lockspace's phase shows in their numbers.
May not know: when a verb may do what, nodes (dlm.control.common2005).
Mirrors: member.c and member_sysfs.c of the DLM as posted to linux-kernel on 25 April 2005.

The kernel keeps the event numbers itself: they go before what is remembered. Locking is off from a
start until its ``finish``. Several orders of events were a panic of that kernel: a start while it
runs, a finish that comes twice or after a stop; none is ever written.
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
from dlm.control.plan import Begun, Note, Plan, Submit, read_number, write_number
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Numbers, Phase, Seen
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
    numbers = yield from _numbers(name)
    if there is None or numbers is None:
        return None
    # Readable exactly while locking is on, whatever the numbers say.
    running = (yield from shown_members(name)) is not None
    done = not numbers.stopped and numbers.done == numbers.last_start
    status = 0 if numbers.stopped else RecoverStatus.DONE if done else RecoverStatus.NODES
    seen = Seen(name, *there, int(status), Phase.STOPPED, numbers)
    phase = yield from phase_of(seen, started=not numbers.stopped, running=running)
    return seen.replace(phase=phase)


glance = look


def _numbers(name: str) -> Plan[Numbers | None]:
    found: list[int] = []
    for attribute in ("stop", "start", "done"):
        number = yield from read_number(f"{place(name)}/{attribute}")
        if number is None:
            return None
        found.append(number)
    stop, start, done = found
    # A first start that was cancelled by a stop is forgotten: both are 0 again.
    return Numbers(last_start=start, done=done, stopped=start <= stop)


def begin_stop(name: str) -> Plan[Begun]:
    """Suspend locking; the write returns when no lock operation is left inside."""
    begun: Begun = yield Submit(WriteAttribute(f"{place(name)}/stop", b"1\n"))
    return begun


def write_start(name: str, event_nr: int) -> Plan[None]:
    """Let recovery begin; it answers a join that waits, too."""
    yield from write_number(f"{place(name)}/start", event_nr)


def write_finish(name: str, event_nr: int) -> Plan[None]:
    """Switch locking on after a start; written once, and never after a stop (each a panic)."""
    if (yield from read_number(f"{place(name)}/finish")) == event_nr:
        return
    numbers = yield from _numbers(name)
    if numbers is None or numbers.stopped:
        yield Note(f"{name} was stopped after start {event_nr}: it needs no finish any more")
        return
    yield from write_number(f"{place(name)}/finish", event_nr)


def answer_join(name: str, answer: int) -> Plan[None]:
    """Write nothing for 0: the start has answered; else ``terminate``, which has one errno only."""
    if answer:
        yield from answer_leave(name)


def answer_leave(name: str) -> Plan[None]:
    """Let a leave go on; the kernel keeps this, and no later wait of this lockspace waits."""
    yield from write_number(f"{place(name)}/terminate", 1)


def write_raw(name: str, attribute: str, text: str) -> Plan[None]:
    """Refuse: these were the words of July."""
    del name, text
    yield from ()
    why = f"the action {attribute} is for the DLM of July 2005; use start, stop, finish, terminate"
    raise CheckError(Reason.NOT_SUPPORTED, f"not supported by this kernel: {why}")
