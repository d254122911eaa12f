"""The verbs on nodes: set_local, set_node.

Decides: when a node is set, extended, replaced or left as it is; when that is refused.
May not know: where the kernel keeps nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dlm.control.checks import check_addresses, check_nodeid, check_weight
from dlm.control.common import check_controller, dialect
from dlm.control.plan import Ask, Note, Plan, locked
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Comm, Nodes, Phase
from dlm.control.state import NodeState, recall_nodes, update_nodes
from dlm.errors import RefusedError


def set_local(
    nodeid: int, addresses: str | Sequence[str], weight: int | None = None, *, force: bool = False
) -> Plan[None]:
    """Say which node this is, and add addresses to it; what is so already is not written."""
    nodeid, wanted = check_nodeid(nodeid), check_addresses(addresses)
    if weight is not None:
        check_weight(weight)
    yield from check_controller(force)
    yield from _warn_of_strangers(wanted)
    yield from locked(lambda: _set_local(nodeid, wanted, weight))


def _set_local(nodeid: int, wanted: tuple[str, ...], weight: int | None) -> Plan[None]:
    nodes = yield from dialect.nodes()
    comm, local = nodes.comms.get(nodeid), nodes.local
    if local is not None and local is not comm:
        raise CheckError(Reason.OTHER_LOCAL_NODE, f"this node is node {local.nodeid} already")
    yield from _set(nodes, nodeid, wanted, weight, local=True)


def _set(
    nodes: Nodes, nodeid: int, wanted: tuple[str, ...], weight: int | None, *, local: bool
) -> Plan[None]:
    """Set a node; what it is to become is remembered first, for its comm may be half made then.

    A node that is set for the first time starts with nothing remembered, and one whose setting was
    interrupted with what it had: its weight, and whether it is this node.
    """
    comm = nodes.comms.get(nodeid)
    before = (yield from recall_nodes()).get(nodeid, NodeState())
    node = before if comm is not None or before.addresses else NodeState()
    if weight is not None:
        node = node.replace(weight=weight)
    own = comm.local if comm is not None else False
    ours = local or own or before.local
    name = "set_local" if local else "set_node"
    yield from update_nodes({nodeid: node.replace(verb=name, local=ours, addresses=wanted)})
    lost = ours and not own and not (yield from dialect.takes_back())
    verb = dialect.set_local if local or lost else dialect.set_node
    try:
        yield from verb(nodes, nodeid, wanted, weight)
    except RefusedError:
        yield from update_nodes({nodeid: before})
        raise
    yield from update_nodes({nodeid: node.is_set()})


def _warn_of_strangers(wanted: tuple[str, ...]) -> Plan[None]:
    ours = yield Ask("local_addresses")
    plain = check_addresses(tuple(ours)) if ours else ()
    for address in wanted:
        if address not in plain:
            yield Note(f"no interface of this node has the address {address}")


def set_node(
    nodeid: int, addresses: str | Sequence[str], weight: int | None = None, *, force: bool = False
) -> Plan[None]:
    """Say where a node is; other addresses than it has replace them all.

    Refused with EBUSY while the node is a member of a lockspace that is not stopped, and for this
    node itself while there is any lockspace.
    """
    nodeid, wanted = check_nodeid(nodeid), check_addresses(addresses)
    if weight is not None:
        check_weight(weight)
    yield from check_controller(force)
    yield from locked(lambda: _set_node(nodeid, wanted, weight))


def _set_node(nodeid: int, wanted: tuple[str, ...], weight: int | None) -> Plan[None]:
    nodes = yield from dialect.nodes()
    comm = nodes.comms.get(nodeid)
    if comm is not None and not set(wanted) <= set(comm.addresses):
        yield from _check_unused(nodes, comm)
    yield from _set(nodes, nodeid, wanted, weight, local=False)


def _check_unused(nodes: Nodes, comm: Comm) -> Plan[None]:
    if comm.local:
        names = yield from dialect.lockspaces()
        if names:
            text = f"node {comm.nodeid} is this node, and lockspace {names[0]} uses its address"
            raise CheckError(Reason.NODE_IN_USE, text)
    user = yield from lockspace_running_with(nodes, comm.nodeid)
    if user is not None:
        text = f"node {comm.nodeid} is a member of lockspace {user}, which runs"
        raise CheckError(Reason.NODE_IN_USE, text)


def lockspace_running_with(nodes: Nodes, nodeid: int, but: str = "") -> Plan[str | None]:
    """Return a lockspace other than ``but`` that has the node as a member and is not stopped."""
    for name in (yield from dialect.lockspaces()):
        seen = None if name == but else (yield from dialect.look(name))
        if seen is None or seen.phase is Phase.STOPPED:
            continue
        members = yield from dialect.members(nodes, name)
        if any(member.nodeid == nodeid for member in members or ()):
            return name
    return None
