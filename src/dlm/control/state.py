"""What the control module remembers between two calls, because the kernel does not show it.

Decides: the little files of the state directory, what a life of a lockspace is, and which
contradictions between what was remembered and what is shown are reported.
May not know: any dialect's files.
Mirrors: nothing; the kernels of 2005 kept the event numbers themselves (fs/dlm/member.c then).

What is remembered is never believed against the kernel: it only adds what the kernel lacks. A
lockspace's file counts for one life of it, told by boot id and inode of its sysfs directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dlm.control.plan import Ask, Plan, ReadState, WriteState
from dlm.control.seen import Comm, Phase, Seen
from dlm.record import Record

NODES = "nodes"

NO_ANSWER = " --no-answer"
"""What a release is remembered with that leaves the answer to somebody else."""


class LockspaceState(Record):
    """What is remembered of one life of a lockspace.

    ``last_start`` is 0 before the first start; ``done`` the last start seen done; ``stopped`` says
    that the last control word was a stop. ``members`` are the last start's node ids, each with the
    inode of the comm that it had then. ``join_answered`` and ``leave_answered``: event_done was
    written for that wait; ``unsure``: or was about to be. ``leaving``: a release was begun here,
    where the kernel shows none. ``doing`` is the verb that was begun and has not ended, with its
    arguments; a refusal ends it, too.
    """

    last_start: int = 0
    done: int = 0
    stopped: bool = True
    members: tuple[tuple[int, int], ...] = ()
    join_answered: bool = False
    leave_answered: bool = False
    unsure: bool = False
    leaving: bool = False
    doing: str = ""

    def done_now(self, seen: Seen) -> int:
        """Return the number of the last start that is known to be done, 0 if none."""
        return self.last_start if seen.done and not self.stopped else self.done


class NodeState(Record):
    """What is remembered of a node: its weight, and the comm it last took part with (0: none).

    ``addresses`` and ``local`` are what it is being set to, ``verb`` by which verb; no address:
    nothing is under way. They stay when whoever set it was killed, for its comm may be half made.
    """

    weight: int = 1
    comm: int = 0
    verb: str = ""
    local: bool = False
    addresses: tuple[str, ...] = ()

    def is_set(self) -> NodeState:
        """Return the node when nothing is under way any more."""
        return NodeState(self.weight, self.comm)

    def is_half_set(self, comm: Comm | None) -> bool:
        """Say whether the comm, as the kernel shows it, is not yet what it was to become."""
        if comm is None:
            return bool(self.addresses)
        return not set(self.addresses) <= set(comm.addresses) or (self.local and not comm.local)


def boot_id() -> Plan[str]:
    """Return the text that tells this boot from the one before."""
    text: str = yield Ask("boot_id")
    return text


# ---- one lockspace ------------------------------------------------------------------------------


def _file_of(name: str) -> str:
    return f"lockspace-{name}"


def recall(seen: Seen) -> Plan[LockspaceState]:
    """Return what is remembered of this life of a lockspace; empty when nothing is.

    Numbers that the kernel keeps itself are the kernel's.
    """
    state = yield from _recall(seen)
    return state if seen.numbers is None else state.replace(**vars(seen.numbers))


def _recall(seen: Seen) -> Plan[LockspaceState]:
    content: bytes | None = yield ReadState(_file_of(seen.name))
    if content is None:
        return LockspaceState()
    lines = parse_lines(content)
    life = yield from life_of(seen.inode)
    if lines.get("life") != life:
        return LockspaceState()
    try:
        return LockspaceState(
            last_start=int(lines["start"]),
            done=int(lines["done"]),
            stopped=lines["stopped"] == "yes",
            members=_parse_members(lines["members"]),
            join_answered="join" in lines["answered"].split(),
            leave_answered="leave" in lines["answered"].split(),
            unsure="unsure" in lines,
            leaving="leaving" in lines,
            doing=lines.get("doing", ""),
        )
    except (KeyError, ValueError):
        return LockspaceState()


def remember(seen: Seen, state: LockspaceState) -> Plan[None]:
    """Keep what is to be remembered of this life of a lockspace."""
    life = yield from life_of(seen.inode)
    answered = ("join",) * state.join_answered + ("leave",) * state.leave_answered
    lines = [
        ("life", life),
        ("start", str(state.last_start)),
        ("done", str(state.done)),
        ("stopped", "yes" if state.stopped else "no"),
        ("members", " ".join(f"{nodeid}:{comm}" for nodeid, comm in state.members)),
        ("answered", " ".join(answered)),
    ]
    lines += [("unsure", "yes")] * state.unsure + [("leaving", "yes")] * state.leaving
    lines += [("doing", state.doing)] * bool(state.doing)
    yield WriteState(_file_of(seen.name), format_lines(lines))


def forget(name: str) -> Plan[None]:
    """Drop what is remembered of a lockspace that has gone."""
    yield WriteState(_file_of(name), None)


def update(seen: Seen, change: Callable[[LockspaceState], LockspaceState]) -> Plan[None]:
    """Change what is remembered; to be run under the lock."""
    state = yield from recall(seen)
    changed = change(state)
    if changed != state:
        yield from remember(seen, changed)


def life_of(inode: int) -> Plan[str]:
    """Return the text that tells the life of a directory from the one before."""
    boot = yield from boot_id()
    return f"{boot} {inode}"


# ---- the nodes ----------------------------------------------------------------------------------


def recall_nodes() -> Plan[dict[int, NodeState]]:
    """Return what is remembered of the nodes, by node id."""
    content: bytes | None = yield ReadState(NODES)
    if content is None:
        return {}
    lines = parse_lines(content)
    boot = yield from boot_id()
    if lines.pop("boot", "") != boot:
        return {}
    try:
        return {int(nodeid): _parse_node(text) for nodeid, text in lines.items()}
    except ValueError:
        return {}


def _parse_node(text: str) -> NodeState:
    weight, comm, *making = text.split()
    node = NodeState(int(weight), int(comm))
    if not making:
        return node
    verb, who, *addresses = making
    return node.replace(verb=verb, local=who == "local", addresses=tuple(addresses))


def _format_node(node: NodeState) -> str:
    words = [str(node.weight), str(node.comm)]
    if node.addresses:
        words += [node.verb, "local" if node.local else "other", *node.addresses]
    return " ".join(words)


def remember_nodes(nodes: dict[int, NodeState]) -> Plan[None]:
    """Keep what is to be remembered of the nodes."""
    boot = yield from boot_id()
    lines = [("boot", boot)]
    lines += [(str(nodeid), _format_node(node)) for nodeid, node in sorted(nodes.items())]
    yield WriteState(NODES, format_lines(lines))


def update_nodes(changed: dict[int, NodeState]) -> Plan[None]:
    """Change what is remembered of some nodes; under the lock."""
    nodes = yield from recall_nodes()
    if any(nodes.get(nodeid, NodeState()) != node for nodeid, node in changed.items()):
        yield from remember_nodes({**nodes, **changed})


# ---- texts --------------------------------------------------------------------------------------


def format_lines(lines: Iterable[tuple[str, str]]) -> bytes:
    """Return the text of a file of keys, each with its value."""
    return "".join(f"{key} {value}\n" for key, value in lines).encode()


def parse_lines(content: bytes) -> dict[str, str]:
    """Return the values of such a text by their keys."""
    lines = content.decode("utf-8", "replace").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _parse_members(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (each.split(":") for each in text.split())
    return tuple((int(nodeid), int(comm)) for nodeid, comm in pairs)


# ---- contradictions -----------------------------------------------------------------------------


def contradictions(
    state: LockspaceState, seen: Seen, members: Iterable[int] | None = None
) -> list[str]:
    """Say where what was remembered and what the kernel shows cannot both be.

    ``members`` are the node ids configured for the lockspace, None when they were not read.
    """
    name, found = seen.name, []
    if not state.last_start and seen.status:
        found.append(f"{name} was started by somebody else: the number of that start is not known")
    elif state.stopped and seen.status:
        found.append(f"{name} was stopped here, and somebody else has started it since")
    elif seen.phase in {Phase.RUNNING, Phase.STOPPED} and not state.join_answered:
        found.append(f"the join of {name} was answered by somebody else")
    if seen.phase is Phase.RUNNING and state.leave_answered:
        found.append(f"the leave of {name} was answered, and yet it runs")
    if members is not None and state.members and not state.stopped:
        now, then = sorted(members), [nodeid for nodeid, _ in state.members]
        if now != then:
            found.append(f"{name} has members {_list(now)} now, started with {_list(then)}")
    return found


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers)) or "none"
