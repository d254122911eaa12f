"""What is half done or left behind, and the verbs that end it.

Decides: which states of a node need a sentence, the sentence, the verbs to go on with.
May not know: how a dialect finds things out; how a person is told (dlm.cli).

A process can be killed between any two writes. Each verb remembers what it is about to do, so that
the next look can say what is half done; made again, the verb does what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlm.control.seen import Nodes, Phase, Seen
from dlm.control.state import NO_ANSWER, LockspaceState, NodeState


@dataclass(frozen=True, slots=True)
class Hint:
    """A state that somebody should see to, and how.

    ``commands`` are verbs with their arguments in dlm_tool's order, to be given one after another:
    ``stop test``. What is not known stands in them as ``<ipaddr>``.
    """

    text: str
    commands: tuple[str, ...]


def lockspace_hints(
    seen: Seen, state: LockspaceState, members: tuple[int, ...], controller: str | None
) -> tuple[Hint, ...]:
    """Return what there is to see to in a lockspace with these configured members."""
    found = _unfinished(seen, state) or _answered_leave(seen, state)
    if found is None and controller is None:
        found = _left_behind(seen, state, members) or _stopped_by_others(seen, state)
    return () if found is None else (found,)


def _unfinished(seen: Seen, state: LockspaceState) -> Hint | None:
    if not state.doing:
        return None
    text = f"{state.doing} was begun and has not ended; unless it still goes on"
    if not state.doing.startswith("release "):
        return Hint(text, (state.doing,))
    if seen.phase is Phase.LEAVING and seen.minor is None:
        if state.doing.endswith(NO_ANSWER):  # that is all that it was to do
            return None
        return Hint(text, (f"terminate {seen.name}",))
    # No kernel shows how many users a lockspace has.
    return Hint(f"{text}, or had other users and has lost one", (state.doing,))


def _answered_leave(seen: Seen, state: LockspaceState) -> Hint | None:
    # Where the kernel shows no leave, the device stays to its end (2005).
    if seen.phase is not Phase.LEAVING or seen.minor is None or not state.leave_answered:
        return None
    text = f"the leave of {seen.name} was answered, and it is still here"
    return Hint(f"{text}: its removal may never have been asked for", (f"release {seen.name}",))


def _left_behind(seen: Seen, state: LockspaceState, members: tuple[int, ...]) -> Hint | None:
    if state.last_start or state.join_answered or seen.phase in {Phase.JOINING, Phase.LEAVING}:
        return None
    name = seen.name
    stop = "" if seen.phase is Phase.STOPPED else f"stop {name}, then "
    ids = " ".join(map(str, members)) or "<nodeid>..."
    return Hint(
        f"{name} was left behind: somebody else has joined and started it, and nobody is seen to"
        f" control it now; to take it over, {stop}start {name} 1 0 {ids}; to remove it with its"
        " locks",
        (f"release {name}",),
    )


def _stopped_by_others(seen: Seen, state: LockspaceState) -> Hint | None:
    started = state.last_start and not state.stopped
    if not started or seen.status or seen.phase not in {Phase.JOINING, Phase.STOPPED}:
        return None
    name, ids = seen.name, " ".join(str(nodeid) for nodeid, _ in state.members)
    return Hint(
        f"{name} is stopped, though start {state.last_start} was made here: somebody else has"
        " stopped it, or its controller died and the kernel did, or recovery is about to begin",
        (f"stop {name}", f"start {name} {state.last_start + 1} 0 {ids}"),
    )


def node_hints(nodes: Nodes, known: dict[int, NodeState], lockspaces: bool) -> tuple[Hint, ...]:
    """Return what there is to see to in the nodes that were set, or half set.

    ``lockspaces`` says whether there is any: none starts without this node, and a dlm_controld that
    ends has removed all nodes.
    """
    found: list[Hint] = []
    for nodeid, node in sorted(known.items()):
        if node.is_half_set(nodes.comms.get(nodeid)):
            command = f"{node.verb} {nodeid} {','.join(node.addresses)}"
            found.append(Hint(f"node {nodeid} is half set: {command} has not ended", (command,)))
    for comm in nodes.comms.values():
        if not comm.addresses and not known.get(comm.nodeid, NodeState()).addresses:
            command = f"set_node {comm.nodeid} <ipaddr>"
            found.append(Hint(f"node {comm.nodeid} has no address", (command,)))
    ours = any(node.local and node.addresses for node in known.values())
    if (nodes.comms or lockspaces) and nodes.local is None and not ours:
        found.append(Hint("no node was set as this one", ("set_local <nodeid> <ipaddr>",)))
    return tuple(found)
