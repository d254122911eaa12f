"""One look at all that the kernel shows of a node and its lockspaces.

Decides: what a snapshot holds, and how a wait is said.
May not know: how a dialect finds things out; what to do about them.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from dlm.control.common import absent, dialect, in_the_way
from dlm.control.hints import Hint, lockspace_hints, node_hints
from dlm.control.plan import Ask, Note, Plan, T
from dlm.control.seen import Phase, Seen
from dlm.control.state import LockspaceState, NodeState, contradictions, recall, recall_nodes
from dlm.errors import NoDlmError, RefusedError


@dataclass(frozen=True, slots=True)
class NodeSetting:
    """A node as it was set.

    ``weight`` is the one that the next start gives it, None to whom may not read what is
    remembered.
    """

    nodeid: int
    addresses: tuple[str, ...]
    local: bool
    weight: int | None


@dataclass(frozen=True, slots=True)
class LockspaceView:
    """A lockspace at one moment.

    ``members`` are the node ids and weights configured for the next start (and, unless somebody
    wrote there, those of the last one). ``last_start`` is 0 when no start is remembered, ``done``
    the last start seen done. ``controller`` names who controls it, if anybody but the caller does.
    ``waits_for`` says what its phase waits for, "" when for nothing. ``contradictions`` say where
    the kernel and what was remembered disagree, ``hints`` what is half done or left behind and
    which verbs end that. To whom may not read what is remembered, ``last_start``, ``done`` and,
    unless the lockspace runs, ``waits_for`` are None, and there are no hints.
    """

    name: str
    lockspace_id: int
    phase: Phase
    members: tuple[tuple[int, int], ...]
    recover_status: int
    minor: int | None
    last_start: int | None
    done: int | None
    controller: str | None
    waits_for: str | None
    contradictions: tuple[str, ...]
    hints: tuple[Hint, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node at one moment: who it is, the nodes that were set, who controls, its lockspaces.

    ``hints`` say which nodes are half set, and which verbs end that; each lockspace has its own.
    """

    local: int | None
    nodes: tuple[NodeSetting, ...]
    controller: str | None
    lockspaces: tuple[LockspaceView, ...]
    hints: tuple[Hint, ...] = ()


def snapshot() -> Plan[NodeView]:
    """Return what the kernel shows; raises ``NoDlmError`` when there is no DLM."""
    nodes = yield from dialect.nodes()
    known = yield from _if_readable(recall_nodes())
    controller: str | None = yield Ask("controller")
    views = []
    for name in (yield from dialect.lockspaces()):
        view = yield from _view(name, controller)
        if view is not None:
            views.append(view)
    settings = tuple(
        NodeSetting(
            comm.nodeid,
            comm.addresses,
            comm.local,
            None if known is None else known.get(comm.nodeid, NodeState()).weight,
        )
        for comm in nodes.comms.values()
    )
    local = nodes.local.nodeid if nodes.local else None
    hints = () if known is None else node_hints(nodes, known, bool(views))
    return NodeView(local, settings, controller, tuple(views), hints)


def view(name: str) -> Plan[LockspaceView]:
    """Return what the kernel shows of one lockspace; raises ENOENT when there is none."""
    controller: str | None = yield Ask("controller")
    found = yield from _view(name, controller)
    if found is None:
        raise (yield from absent(name))
    return found


def _view(name: str, controller: str | None) -> Plan[LockspaceView | None]:
    seen = yield from dialect.look(name)
    number = yield from dialect.read_id(name)
    if seen is None or number is None:
        return None
    state = yield from _if_readable(recall(seen))
    members = yield from _members(name)
    ids = tuple(nodeid for nodeid, _ in members)
    against = () if state is None else contradictions(state, seen, ids)
    hints = () if state is None else lockspace_hints(seen, state, ids, controller)
    return LockspaceView(
        name,
        number,
        seen.phase,
        members,
        seen.status,
        seen.minor,
        state.last_start if state else None,
        state.done_now(seen) if state else None,
        controller,
        (yield from _waits_for(seen, state)),
        tuple(against),
        hints,
    )


def _if_readable(remembered: Plan[T]) -> Plan[T | None]:
    """Return what is remembered; None, with a note, to whom may not read it."""
    try:
        return (yield from remembered)
    except RefusedError as error:
        if error.errno not in {errno.EACCES, errno.EPERM}:
            raise
        yield Note("what is remembered of starts and answers is for root to read: not shown")
        return None


def _members(name: str) -> Plan[tuple[tuple[int, int], ...]]:
    try:
        nodes = yield from dialect.nodes()
    except (NoDlmError, RefusedError):  # configfs went away: then nothing is configured
        return ()
    members = yield from dialect.members(nodes, name)
    return tuple((member.nodeid, member.weight) for member in members or ())


def _waits_for(seen: Seen, state: LockspaceState | None) -> Plan[str | None]:
    if state is None:
        return "" if seen.phase is Phase.RUNNING else None
    started = state.last_start and not state.stopped
    match seen.phase:
        case Phase.JOINING if not state.join_answered:
            return "start"
        case Phase.JOINING if seen.done or not started:
            return "its create to end"
        case Phase.RECOVERING if seen.done:
            return "finish"
        case Phase.JOINING | Phase.RECOVERING:
            return f"recovery {state.last_start}" if started else "recovery"
        case Phase.STOPPED if started:
            return f"recovery {state.last_start}, which has not begun"
        case Phase.STOPPED:
            return "start"
        case Phase.LEAVING if not state.leave_answered:
            return "terminate"
        case Phase.LEAVING:
            other = yield from in_the_way(seen.name)
            return "open files to be closed" if other is None else f"lockspace {other.name}"
        case _:
            return ""
