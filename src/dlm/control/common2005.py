"""What the two dialects of 2005 have in common: nodes by ioctl, the lock device 3.0.0, members.

Decides: which of the two a lockspace shows; the ioctls on ``dlm-node``, the requests to
``dlm-control``, how a list of members is written and read.
May not know: how recovery is told (dlm.control.event, dlm.control.members).
Mirrors: node_ioctl.c, device.c, member_sysfs.c of the DLM as posted in April and July 2005.

INFER: that kernel shows no node and no address, so what was said to it is remembered, for one life
of the directory ``dlm``: SET_LOCAL appends, and a create without a local address was a panic. Nor
does it show a leave: a release that was begun here is remembered, any other is told by a uevent
alone.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlm.abi.address import encode_sockaddr
from dlm.abi.attributes2005 import kobject_name, parse_shown_members
from dlm.abi.device import Command, LockspaceRequest
from dlm.abi.device2005 import encode_request
from dlm.abi.node2005 import Ioctl as Request
from dlm.abi.node2005 import NodeRequest, encode_node_request
from dlm.control.configfs import CONTROL_DEVICE, device_of
from dlm.control.plan import (
    Begun,
    File,
    Ioctl,
    OpenDevice,
    Plan,
    ReadState,
    Submit,
    WriteState,
    locked,
    misc_devices,
    names_in,
    read_if_there,
    read_number,
    stat,
    write_number,
)
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Comm, Member, Membership, Nodes, Phase, Seen
from dlm.control.state import (
    NodeState,
    format_lines,
    life_of,
    parse_lines,
    recall,
    recall_nodes,
    update,
)
from dlm.errors import RefusedError
from dlm.ports import DeviceClose, DeviceWrite, Stat, WriteAttribute
from dlm.record import Record
from dlm.terms import ReleaseFlag

if TYPE_CHECKING:
    from dlm.control.dialect import Dialect

NODE_DEVICE = "dlm-node"
_SYSFS = "dlm"
_ADDRESSES = "addresses"  # the state file of what was said to dlm-node
_MARKS = {"done": "event", "event_done": "members"}
"""An attribute that only one of the dialects has, and which."""


def choose() -> Plan[Dialect | None]:
    """Return the dialect that a lockspace of this node shows, None when there is no lockspace."""
    from dlm.control import event, members

    dialects: dict[str, Dialect] = {"event": event, "members": members}
    for name in (yield from lockspaces()):
        for mark, found in _MARKS.items():
            if (yield from stat(f"{place(name)}/{mark}")) is not None:
                return dialects[found]
    return None


# ---- is there a DLM at all ----------------------------------------------------------------------


def explain_absence() -> Plan[None]:
    """Say nothing: the device that chose this dialect is all that a lockspace needs."""
    yield from ()


def has_module() -> Plan[bool]:
    """Say that there is one: the device that chose this dialect is the module's."""
    yield from ()
    return True


# ---- lockspaces as the kernel shows them --------------------------------------------------------


def place(name: str) -> str:
    """Return a lockspace's directory; of a name of 64 bytes it has 63."""
    return f"{_SYSFS}/{kobject_name(name)}"


def lockspaces() -> Plan[list[str]]:
    """Return the names of the lockspaces of this node, as their directories have them."""
    return (yield from names_in(_SYSFS)) or []


def is_complete(name: str) -> Plan[Stat | None]:
    """Return a lockspace's directory; its attributes come with it."""
    return (yield from stat(place(name)))


def identity(name: str) -> Plan[tuple[int, int | None] | None]:
    """Return the inode of a lockspace's directory and its device's minor, None without one."""
    found = yield from stat(place(name))
    if found is None:
        return None
    minor = (yield from misc_devices()).get(device_of(name))
    return found.inode, minor


def phase_of(seen: Seen, *, started: bool, running: bool) -> Plan[Phase]:
    """Return where a lockspace stands; ``started``: a start has followed the last stop."""
    if seen.minor is None:
        return Phase.JOINING
    if (yield from recall(seen)).leaving:
        return Phase.LEAVING
    if running:
        return Phase.RUNNING
    return Phase.RECOVERING if started else Phase.STOPPED


def read_id(name: str) -> Plan[int | None]:
    """Return the global id of a lockspace, None when it has gone."""
    return (yield from read_number(f"{place(name)}/id"))


def read_locks(name: str) -> Plan[bytes | None]:
    """Return nothing: there is no list of names and owners, and no request of 3.0.0 needs one."""
    del name
    yield from ()
    return None


def lock_device() -> Plan[int]:
    """Return the major version of the lock device."""
    yield from ()
    return 3


def shows_leaves() -> Plan[bool]:
    """Say that nothing shows a leave: the device stays until it is over."""
    yield from ()
    return False


# ---- control words ------------------------------------------------------------------------------


def write_id(name: str, number: int) -> Plan[None]:
    """Set the global id; the kernel's parser is signed, what it wraps is the same 32 bits."""
    yield from write_number(f"{place(name)}/id", number)


def takes_answer(name: str) -> Plan[bool]:
    """Say yes: an answer that comes before its question is kept for it, in both dialects.

    INFER: with FORCEFREE nothing of the lockspace refuses a removal, so the question comes.
    """
    del name
    yield from ()
    return True


# ---- create and remove --------------------------------------------------------------------------


def begin_create(name: str, exclusive: bool, /) -> Plan[Begun]:
    """Send CREATE_LOCKSPACE; a name that is there is EEXIST, exclusive or not: none is counted."""
    del exclusive
    raw = name.encode("utf-8", "surrogateescape")
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, 0, name=raw)
    return (yield from _send(encode_request(request), f"CREATE_LOCKSPACE {name}"))


def begin_remove(name: str, minor: int) -> Plan[Begun]:
    """Send REMOVE_LOCKSPACE with FORCEFREE, and remember that the lockspace leaves."""
    found = yield from stat(place(name))
    if found is not None:
        seen = Seen(name, found.inode, minor, 0, Phase.LEAVING)
        yield from locked(lambda: update(seen, lambda state: state.replace(leaving=True)))
    request = LockspaceRequest(Command.REMOVE_LOCKSPACE, ReleaseFlag.FORCEFREE, minor)
    return (yield from _send(encode_request(request), f"REMOVE_LOCKSPACE {name} FORCEFREE"))


def _send(request: bytes, what: str) -> Plan[Begun]:
    file: File = yield OpenDevice(CONTROL_DEVICE)
    begun: Begun = yield Submit(DeviceWrite(request), file, what, detached=True)
    yield Submit(DeviceClose(), file)
    return begun


# ---- nodes: ioctls on dlm-node, and what is remembered of them ----------------------------------


class _Told(Record):
    """What was said to ``dlm-node``: this node's id (0: not said), its addresses, the nodes'."""

    local: int = 0
    local_addresses: tuple[str, ...] = ()
    nodes: tuple[tuple[int, str], ...] = ()


def nodes() -> Plan[Nodes]:
    """Return the nodes that were set from here."""
    told = yield from _recall_told()
    found = {nodeid: (address,) for nodeid, address in told.nodes}
    if told.local:
        own = dict.fromkeys((*told.local_addresses, *found.get(told.local, ())))
        found[told.local] = tuple(own)
    comms = {
        nodeid: Comm(nodeid, NODE_DEVICE, addresses, nodeid == told.local, 0)
        for nodeid, addresses in sorted(found.items())
    }
    return Nodes(NODE_DEVICE, True, comms, ())


def set_local(
    nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None
) -> Plan[None]:
    """Add local addresses that were not said yet: the kernel appends, and takes three."""
    del nodes
    told = yield from _recall_told()
    for address in addresses:
        if address not in told.local_addresses or nodeid != told.local:
            # The tool of July said 0; a local weight is never used.
            yield from _ioctl(Request.SET_LOCAL, nodeid, weight or 0, address)
            known = tuple(dict.fromkeys((*told.local_addresses, address)))
            told = told.replace(local=nodeid, local_addresses=known)
            yield from _remember_told(told)


def set_node(nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None) -> Plan[None]:
    """Say where a node is, also when that was said before: it can be said any number of times."""
    del nodes
    if len(addresses) > 1:
        text = f"this kernel keeps one address of a node, not {len(addresses)}"
        raise CheckError(Reason.TOO_MANY_ADDRESSES, text)
    if weight is None:
        weight = (yield from recall_nodes()).get(nodeid, NodeState()).weight
    yield from _ioctl(Request.SET_NODE, nodeid, weight, addresses[0])
    told = yield from _recall_told()
    known = {**dict(told.nodes), nodeid: addresses[0]}
    yield from _remember_told(told.replace(nodes=tuple(sorted(known.items()))))


def takes_back() -> Plan[bool]:
    """Say yes: a node that came back is spoken to at the address that it was set with."""
    yield from ()
    return True


def _ioctl(request: Request, nodeid: int, weight: int, address: str) -> Plan[None]:
    argument = encode_node_request(NodeRequest(nodeid, weight, encode_sockaddr(address)))
    file: File = yield OpenDevice(NODE_DEVICE)
    what = f"{request.name} {nodeid} {address} weight {weight}"
    yield Ioctl(file, request, argument, what)
    yield Submit(DeviceClose(), file)


def _recall_told() -> Plan[_Told]:
    content: bytes | None = yield ReadState(_ADDRESSES)
    lines = {} if content is None else parse_lines(content)
    if lines.pop("life", "") != (yield from _life()):
        return _Told()
    try:
        local, *own = lines.pop("local").split()
        return _Told(int(local), tuple(own), tuple((int(key), lines[key]) for key in lines))
    except (KeyError, ValueError):
        return _Told()


def _remember_told(told: _Told) -> Plan[None]:
    lines = [("life", (yield from _life()))]
    lines.append(("local", " ".join((str(told.local), *told.local_addresses))))
    lines += [(str(nodeid), address) for nodeid, address in told.nodes]
    yield WriteState(_ADDRESSES, format_lines(lines))


def _life() -> Plan[str]:
    # The module's: what dlm-node was told goes with it.
    found = yield from stat(_SYSFS)
    return (yield from life_of(0 if found is None else found.inode))


# ---- members ------------------------------------------------------------------------------------


def shown_members(name: str) -> Plan[tuple[int, ...] | None]:
    """Return the members of a lockspace that runs; None while locking is off, or without one."""
    try:
        text = yield from read_if_there(f"{place(name)}/members")
    except RefusedError as error:
        if error.errno != errno.EBUSY:
            raise
        return None
    return None if text is None else parse_shown_members(text)


def members(nodes: Nodes, name: str) -> Plan[tuple[Member, ...] | None]:
    """Return the members: while locking is off, those of the last start from here."""
    del nodes
    found = yield from shown_members(name)
    if found is None:
        there = yield from identity(name)
        if there is None:
            return None
        state = yield from recall(Seen(name, *there, 0, Phase.STOPPED))
        found = tuple(nodeid for nodeid, _ in state.members)
    known = yield from recall_nodes()
    path = f"{place(name)}/members"
    return tuple(Member(each, path, known.get(each, NodeState()).weight) for each in found)


def write_members(nodes: Nodes, name: str, change: Membership) -> Plan[dict[int, int]]:
    """Write the list of the next start.

    Without a newline, which would be counted as one more member; and last of all, for the list
    stays when the start is refused, and no other is taken until one succeeds. After a start that
    was interrupted the list may be there.
    """
    del nodes
    try:
        yield WriteAttribute(f"{place(name)}/members", list_members(change.weights))
    except RefusedError as error:
        if error.errno != errno.EINVAL or not change.again:
            raise
    return dict.fromkeys(change.weights, 0)


def list_members(nodeids: Sequence[int] | dict[int, int]) -> bytes:
    """Return a list of members as ``members`` takes it: single blanks, nothing behind."""
    return " ".join(map(str, nodeids)).encode("ascii")
