"""The verbs on recovery: stop, start, get_done, wait_done, finish; and waiting until it runs.

Decides: when a start may be made, which members and nodes it makes anew, what counts as done.
May not know: where members are kept, what a control word looks like.

The kernel says "success" to a start that it ignores (design fact 5), so everything is checked
before; afterwards only what is seen is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dlm.control.checks import check_event, check_lockspace, check_members
from dlm.control.common import absent, check_controller, dialect, find, find_with_state
from dlm.control.life import answered
from dlm.control.nodes import lockspace_running_with
from dlm.control.plan import Note, Plan, Result, Waiting, WaitUntil, locked
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Comm, Member, Membership, Nodes, Phase, Seen
from dlm.control.state import (
    LockspaceState,
    NodeState,
    contradictions,
    recall,
    recall_nodes,
    remember,
    update,
    update_nodes,
)
from dlm.errors import RefusedError
from dlm.record import Record

# ---- stop ---------------------------------------------------------------------------------------


def stop(name: str, *, force: bool = False) -> Plan[None]:
    """Suspend locking on this node; returns when no lock operation is left inside the kernel."""
    check_lockspace(name)
    yield from check_controller(force)
    seen = yield from locked(lambda: _note_stop(name))
    try:
        begun = yield from dialect.begin_stop(name)
        yield Result(begun, f"the lock operations in {name} to come to an end")
    except RefusedError:
        yield from locked(lambda: update(seen, lambda state: state.replace(doing="")))
        raise
    yield from locked(lambda: update(seen, lambda state: state.replace(stopped=True, doing="")))


def _note_stop(name: str) -> Plan[Seen]:
    """Remember the stop, and the last start as done if it is: the stop clears what says so."""
    seen, state = yield from find_with_state(name)
    done = state.done_now(seen)
    yield from remember(seen, state.replace(done=done, doing=f"stop {name}"))
    return seen


# ---- start --------------------------------------------------------------------------------------


class _Start(Record):
    """What a start found before its first write."""

    seen: Seen
    state: LockspaceState
    nodes: Nodes
    known: dict[int, NodeState]
    configured: tuple[Member, ...] | None

    @property
    def first(self) -> bool:
        """Say whether this is the first start in the life of the lockspace."""
        return self.seen.phase is Phase.JOINING and not self.state.last_start

    def member(self, nodeid: int) -> Member | None:
        """Return the member configured under a node id, None when there is none."""
        found = (member for member in self.configured or () if member.nodeid == nodeid)
        return next(found, None)


def start(
    name: str,
    event_nr: int,
    members: Sequence[int],
    *,
    rejoined: Iterable[int] = (),
    force: bool = False,
) -> Plan[None]:
    """Let a lockspace recover with these members, and answer its join if that still waits.

    ``event_nr`` must be above the last start's. ``rejoined`` names members of the last start that
    left and came back since; members that were not in the last start are known to have.
    """
    check_lockspace(name)
    check_event(event_nr)
    rejoined = tuple(rejoined)
    wanted = check_members(members, rejoined)
    yield from check_controller(force)
    unsure = yield from locked(lambda: _start(name, event_nr, wanted, rejoined))
    if unsure:
        missing: bool = yield WaitUntil(_join_waits(name), f"the join of {name} ends", dry=False)
        yield from locked(lambda: _settle_answer(name, missing=missing))


def _start(
    name: str, event_nr: int, wanted: tuple[int, ...], rejoined: tuple[int, ...]
) -> Plan[bool]:
    """Make a start, or what is left of it; say whether its join may still want its answer."""
    seen, state = yield from find_with_state(name)
    if _is_begun(state, event_nr, wanted) and seen.phase is not Phase.LEAVING:
        return (yield from _resume(seen, state))
    _check_startable(seen, state, event_nr)
    nodes = yield from dialect.nodes()
    known = yield from recall_nodes()
    half = yield from _half_set(nodes, known)
    nodes = nodes.replace(comms={**nodes.comms, **half})
    configured = yield from dialect.members(nodes, name)
    found = _Start(seen, state, nodes, known, configured)
    _check_nodes(found, wanted)
    kept = {each for each in wanted if each not in half and _is_kept(found, each, rejoined)}
    returned = []
    for nodeid in wanted:
        if nodeid in half or (
            nodeid not in kept and (yield from _has_returned(found, nodeid, rejoined))
        ):
            returned.append(nodes.comms[nodeid])  # noqa: PERF401 - a generator cannot yield there
    yield from _warn_of_same_id(name)
    weights = {nodeid: known.get(nodeid, NodeState()).weight for nodeid in wanted}
    doing = _say_start(name, event_nr, wanted, rejoined)
    change = Membership(
        weights, configured, frozenset(kept), tuple(returned), again=state.doing == doing
    )
    yield from remember(seen, state.replace(doing=doing))
    try:
        yield from _remember_making(known, change)
        comms = yield from dialect.write_members(nodes, name, change)
    except RefusedError:
        yield from remember(seen, state)
        raise
    begun = state.replace(
        last_start=event_nr, stopped=False, members=tuple(comms.items()), doing=doing
    )
    return (yield from _begin(seen, begun, before=state))


def _say_start(name: str, event_nr: int, wanted: tuple[int, ...], rejoined: tuple[int, ...]) -> str:
    words = [f"start {name} {event_nr} 0", *map(str, wanted)]
    return " ".join(words + ["--rejoined " + ",".join(map(str, rejoined))] * bool(rejoined))


def _is_begun(state: LockspaceState, event_nr: int, wanted: tuple[int, ...]) -> bool:
    """Say whether this very start was interrupted when all its members had been written."""
    begun = state.doing.startswith("start ") and state.last_start == event_nr and not state.stopped
    return begun and tuple(nodeid for nodeid, _ in state.members) == wanted


def _half_set(nodes: Nodes, known: dict[int, NodeState]) -> Plan[dict[int, Comm]]:
    """Return the nodes whose setting was interrupted, as they were to become.

    Where a node is set for good by one call, there is none.
    """
    if (yield from dialect.takes_back()):
        return {}
    found: dict[int, Comm] = {}
    for nodeid, node in known.items():
        comm = nodes.comms.get(nodeid)
        if node.is_half_set(comm) and not node.local:
            path, inode = ("", 0) if comm is None else (comm.path, comm.inode)
            found[nodeid] = Comm(nodeid, path, node.addresses, False, inode)
    return found


def _check_startable(seen: Seen, state: LockspaceState, event_nr: int) -> None:
    name = seen.name
    if seen.phase is Phase.LEAVING:
        raise CheckError(Reason.LEAVES, f"lockspace {name} leaves")
    if seen.done:
        raise CheckError(Reason.NOT_STOPPED, f"lockspace {name} runs")
    if seen.status or not state.stopped:
        number = "" if state.stopped else f" for start {state.last_start}"
        raise CheckError(Reason.NOT_STOPPED, f"the recovery of {name}{number} is not over")
    if event_nr <= state.last_start:
        text = f"event {event_nr} is not above the last start {state.last_start}"
        raise CheckError(Reason.NUMBER_NOT_ABOVE, text)


def _check_nodes(found: _Start, wanted: tuple[int, ...]) -> None:
    local = found.nodes.local
    if local is None:
        raise CheckError(Reason.NO_LOCAL_NODE, "no node was set as this one")
    if local.nodeid not in wanted:
        text = f"this node ({local.nodeid}) is not among the members"
        raise CheckError(Reason.NOT_A_MEMBER, text)
    for nodeid in wanted:
        comm = found.nodes.comms.get(nodeid)
        if comm is None or not comm.addresses:
            raise CheckError(Reason.NODE_NOT_SET, f"node {nodeid} was not set: it has no address")


def _is_kept(found: _Start, nodeid: int, rejoined: tuple[int, ...]) -> bool:
    """Say whether a member is still the one it was: its place under nodes/ stays as it is."""
    if found.first or nodeid in rejoined or found.member(nodeid) is None:
        return False
    if not found.state.last_start:  # somebody else started it: nothing is known against it
        return True
    return dict(found.state.members).get(nodeid) == found.nodes.comms[nodeid].inode


def _has_returned(found: _Start, nodeid: int, rejoined: tuple[int, ...]) -> Plan[bool]:
    """Say whether a node's comm must be made again, because it left and came back.

    With the comm of before, the connection's sequence numbers never match again and messages to
    and from the node are dropped (Linux 6.1 fs/dlm/lock.c, dlm_receive_buffer(), midcomms.c). A
    comm that was made again since needs nothing; a node that takes part in another lockspace that
    runs is alive on the comm that it has.
    """
    comm = found.nodes.comms[nodeid]
    if comm.local or (yield from dialect.takes_back()):
        return False
    then = dict(found.state.members).get(nodeid)
    if then is not None:
        used = then == comm.inode  # in the last start, and named as rejoined or made again since
    else:
        known = found.known.get(nodeid, NodeState()).comm
        strange = not found.first and not found.state.last_start
        used = strange or nodeid in rejoined or known == comm.inode
    if not used:
        return False
    user = yield from lockspace_running_with(found.nodes, nodeid, found.seen.name)
    if user is not None and nodeid in rejoined:
        text = f"node {nodeid} is a member of lockspace {user}, which is not stopped"
        raise CheckError(Reason.NODE_IN_USE, text)
    return user is None


def _warn_of_same_id(name: str) -> Plan[None]:
    number = yield from dialect.read_id(name)
    for other in (yield from dialect.lockspaces()):
        if other != name and (yield from dialect.read_id(other)) == number:
            yield Note(f"lockspaces {name} and {other} have the same id {number}: use set_id")


def _remember_making(known: dict[int, NodeState], change: Membership) -> Plan[None]:
    """Remember the addresses of nodes whose comms are about to be made again."""
    making: dict[int, NodeState] = {}
    for comm in change.returned:
        node = known.get(comm.nodeid, NodeState())
        making[comm.nodeid] = node.replace(verb="set_node", addresses=comm.addresses)
    yield from update_nodes(making)


def _begin(seen: Seen, begun: LockspaceState, *, before: LockspaceState) -> Plan[bool]:
    """Write the start, then the answer to a join that waits; what is remembered comes first.

    Says whether the join may still want its answer: whoever was to write it was interrupted.
    """
    yield from remember(seen, begun)
    known = yield from recall_nodes()
    used = {
        nodeid: known.get(nodeid, NodeState()).is_set().replace(comm=inode)
        for nodeid, inode in begun.members
    }
    yield from update_nodes(used)
    try:
        yield from dialect.write_start(seen.name, begun.last_start)
    except RefusedError:
        yield from remember(seen, before)
        raise
    return (yield from _answer_join(seen, begun))


def _resume(seen: Seen, state: LockspaceState) -> Plan[bool]:
    """Make what is left of a start that was interrupted after its members had been written."""
    if not seen.status:  # a start that was written, and has gone no step, is only written again
        return (yield from _begin(seen, state, before=state))
    if seen.phase is not Phase.JOINING:  # where a start is its answer, too
        state = answered(state, leave=False)
    return (yield from _answer_join(seen, state))


def _answer_join(seen: Seen, state: LockspaceState) -> Plan[bool]:
    if state.unsure:
        return True
    if seen.phase is Phase.JOINING and not state.join_answered:
        state = answered(state, leave=False)
        yield from remember(seen, state.replace(unsure=True))
        try:
            yield from dialect.answer_join(seen.name, 0)
        except RefusedError:
            yield from remember(seen, state.replace(join_answered=False, doing=""))
            raise
    yield from remember(seen, state.replace(doing=""))
    return False


_LOOKS_AFTER_RECOVERY = 8
"""Looks, in 0.8 s, at a join whose recovery is done: one that was answered ends meanwhile."""


def _join_waits(name: str) -> Callable[[], Plan[bool | Waiting]]:
    """Return the check whether a join that may have been answered still waits.

    An answer that nobody waits for would be kept for the next leave, so it is not written twice.
    """
    looks = 0

    def check() -> Plan[bool | Waiting]:
        nonlocal looks
        seen = yield from dialect.look(name)
        if seen is None or seen.phase is not Phase.JOINING:
            return False
        looks += seen.done
        if looks > _LOOKS_AFTER_RECOVERY:
            return True
        return Waiting(f"the create of {name} to end" if seen.done else f"the recovery of {name}")

    return check


def _settle_answer(name: str, *, missing: bool) -> Plan[None]:
    seen = yield from dialect.look(name)
    if seen is None:
        return
    state = yield from recall(seen)
    if missing and seen.phase is Phase.JOINING:
        yield from dialect.answer_join(name, 0)
    yield from remember(seen, state.replace(unsure=False, doing=""))


# ---- done, finish -------------------------------------------------------------------------------


def get_done(name: str) -> Plan[int]:
    """Return the number of the last start seen done, 0 if none; reads only."""
    check_lockspace(name)
    seen = yield from dialect.glance(name)
    if seen is None:
        raise (yield from absent(name))
    state = yield from recall(seen)
    if seen.done and (state.stopped or not state.last_start):
        for text in contradictions(state, seen):
            yield Note(text)
    return state.done_now(seen)


def wait_done(name: str, event_nr: int) -> Plan[int]:
    """Wait until start ``event_nr``, or a later one, is done; return the number seen."""
    check_lockspace(name)
    check_event(event_nr)

    def check() -> Plan[int | Waiting]:
        done = yield from get_done(name)
        return done if done >= event_nr else (yield from _say_recovery(name, event_nr))

    done: int = yield WaitUntil(check, f"start {event_nr} of {name} is done", dry=event_nr)
    return done


def _say_recovery(name: str, event_nr: int) -> Plan[Waiting]:
    seen = yield from find(name)
    state = yield from recall(seen)
    if state.last_start < event_nr:
        return Waiting(f"start {event_nr} of {name}: the last one made here is {state.last_start}")
    if state.stopped:
        return Waiting(f"a start of {name}, which was stopped")
    return Waiting(f"the recovery of {name} (recover_status {seen.status:x})")


def finish(name: str, event_nr: int) -> Plan[None]:
    """Check that ``event_nr`` is the last start and that it is done, and say so to the kernel.

    Only the kernel of April 2005 needs the word: there locking is off until it comes.
    """
    check_lockspace(name)
    check_event(event_nr)
    yield from locked(lambda: _finish(name, event_nr))


def _finish(name: str, event_nr: int) -> Plan[None]:
    seen, state = yield from find_with_state(name)
    if event_nr != state.last_start:
        text = f"event {event_nr} is not the last start {state.last_start}"
        raise CheckError(Reason.NUMBER_NOT_LAST, text)
    if state.done_now(seen) != event_nr:
        raise CheckError(Reason.NOT_DONE, f"start {event_nr} of {name} is not done yet")
    if state.done != event_nr:
        yield from remember(seen, state.replace(done=event_nr))
    yield from dialect.write_finish(name, event_nr)


def wait_running(name: str) -> Plan[Seen]:
    """Wait until a lockspace runs on this node; ENOENT when there is none."""
    check_lockspace(name)

    def check() -> Plan[Seen | Waiting]:
        seen = yield from find(name)
        if seen.phase is Phase.RUNNING:
            return seen
        return Waiting(f"lockspace {name} to run: it is {seen.phase.value}")

    seen: Seen = yield WaitUntil(check, f"lockspace {name} runs")
    return seen
