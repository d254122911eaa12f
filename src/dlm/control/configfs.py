"""The dialect of mainline kernels (2.6.19 to 7.x): which files are used, in which order.

Decides: every path and every order of writes for configfs nodes and members, sysfs control words
and the requests to dlm-control; how a lockspace's phase shows.
May not know: when a verb may do what (dlm.control.nodes, .life, .recovery), event numbers.
Mirrors: fs/dlm/config.c, lockspace.c, user.c (Linux 6.1).

Another dialect is another module that answers the same questions (dlm.control.dialect).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from dlm.control.plan import (
    Begun,
    File,
    OpenDevice,
    Plan,
    Submit,
    misc_devices,
    names_in,
    read,
    read_if_there,
    read_number,
    stat,
    write_number,
)
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Comm, Member, Membership, Nodes, Phase, Seen
from dlm.errors import NoDlmError, RefusedError
from dlm.ports import (
    DeviceClose,
    DeviceWrite,
    MakeDirectory,
    RemoveDirectory,
    Stat,
    WriteAttribute,
)
from dlm.terms import LockspaceFlag, RecoverStatus, ReleaseFlag

CONTROL_DEVICE = "dlm-control"
MONITOR_DEVICE = "dlm-monitor"
_SYSFS = "dlm"
_CONFIG = "config/dlm"
_CLUSTER = "cluster"
_DEBUG = "debug/dlm"
_LAST_ATTRIBUTE = "recover_nodeid"  # of a lockspace's sysfs directory, as the kernel makes them


def device_of(name: str) -> str:
    """Return the name of a lockspace's device."""
    return f"dlm_{name}"


# ---- is there a DLM at all ----------------------------------------------------------------------


def explain_absence() -> Plan[None]:
    """Raise ``NoDlmError`` when something is missing that every lockspace needs; else return."""
    if not (yield from has_module()):
        raise NoDlmError(
            "this kernel has no DLM loaded", "load the module (modprobe dlm) or start an emulator"
        )
    if (yield from stat(_CONFIG)) is None:
        raise NoDlmError(
            "the DLM is loaded, but configfs is not mounted",
            "mount it: mount -t configfs none /sys/kernel/config",
        )


def has_module() -> Plan[bool]:
    """Say whether the DLM is in this kernel."""
    try:
        devices = yield from misc_devices()
    except RefusedError as error:
        if error.errno != errno.ENOENT:
            raise
        devices = {}
    return CONTROL_DEVICE in devices or (yield from stat(_SYSFS)) is not None


# ---- lockspaces as the kernel shows them --------------------------------------------------------


def lockspaces() -> Plan[list[str]]:
    """Return the names of the lockspaces of this node; a ``/`` in a name shows as ``!``."""
    return (yield from names_in(_SYSFS)) or []


def look(name: str) -> Plan[Seen | None]:
    """Look at a lockspace: None when there is none of that name."""
    found = yield from stat(f"{_SYSFS}/{name}")
    if found is None:
        return None
    minor = (yield from misc_devices()).get(device_of(name))
    leaving = minor is None and (yield from _has_debug_file(name))
    if leaving:
        # The end of a join makes the debug files first and the device right after
        # (Linux 6.1 fs/dlm/user.c, device_create_lockspace()): only a second look tells.
        minor = (yield from misc_devices()).get(device_of(name))
    status = yield from read_status(name)
    if status is None:
        return None
    return Seen(name, found.inode, minor, status, _phase(minor, leaving, status))


def glance(name: str) -> Plan[Seen | None]:
    """Look at identity and recovery of a lockspace only; ``phase`` is that of a joined one."""
    found = yield from stat(f"{_SYSFS}/{name}")
    status = None if found is None else (yield from read_status(name))
    if found is None or status is None:
        return None
    return Seen(name, found.inode, None, status, _phase(0, False, status))


def is_complete(name: str) -> Plan[Stat | None]:
    """Return a lockspace's directory once its attributes are all there."""
    if (yield from stat(f"{_SYSFS}/{name}/{_LAST_ATTRIBUTE}")) is None:
        return None
    return (yield from stat(f"{_SYSFS}/{name}"))


def _phase(minor: int | None, leaving: bool, status: int) -> Phase:
    if minor is None:
        return Phase.LEAVING if leaving else Phase.JOINING
    if not status:
        return Phase.STOPPED
    return Phase.RUNNING if status & RecoverStatus.DONE else Phase.RECOVERING


def _has_debug_file(name: str) -> Plan[bool]:
    try:
        return (yield from stat(f"{_DEBUG}/{name}")) is not None
    except RefusedError as error:
        if error.errno != errno.EACCES:  # debugfs is root's alone
            raise
        return False


def read_status(name: str) -> Plan[int | None]:
    """Return the bits of recover_status, None when the lockspace has gone."""
    text = yield from read_if_there(f"{_SYSFS}/{name}/recover_status")
    return None if text is None else int(text, 16)


def read_id(name: str) -> Plan[int | None]:
    """Return the global id of a lockspace, None when it has gone."""
    return (yield from read_number(f"{_SYSFS}/{name}/id"))


def lock_device() -> Plan[int]:
    """Return the major version of the lock device."""
    yield from ()
    return 6


def read_locks(name: str) -> Plan[bytes | None]:
    """Return the list of all locks of a lockspace, None when debugfs does not show it."""
    return (yield from read_if_there(f"{_DEBUG}/{name}_all"))


# ---- control words ------------------------------------------------------------------------------


def write_id(name: str, number: int) -> Plan[None]:
    """Set the global id."""
    yield from write_number(f"{_SYSFS}/{name}/id", number)


def write_raw(name: str, attribute: str, text: str) -> Plan[None]:
    """Refuse: the raw actions are those of the kernels whose only words they were."""
    del name, text
    yield from ()
    why = f"the action {attribute} is for the DLM of July 2005; use start, stop and terminate"
    raise CheckError(Reason.NOT_SUPPORTED, f"not supported by this kernel: {why}")


def begin_stop(name: str) -> Plan[Begun]:
    """Suspend locking; the write returns when no lock operation is left inside."""
    begun: Begun = yield Submit(WriteAttribute(f"{_SYSFS}/{name}/control", b"0\n"))
    return begun


def write_start(name: str, event_nr: int) -> Plan[None]:
    """Let recovery begin; success says nothing (design fact 5), and no number is kept."""
    del event_nr
    yield from write_number(f"{_SYSFS}/{name}/control", 1)


def write_finish(name: str, event_nr: int) -> Plan[None]:
    """Write nothing: recovery switches locking on itself."""
    del name, event_nr
    yield from ()


def answer_join(name: str, answer: int) -> Plan[None]:
    """Answer the join that waits; unawaited, it answers the next wait (fact 3)."""
    yield from write_number(f"{_SYSFS}/{name}/event_done", answer)


def answer_leave(name: str) -> Plan[None]:
    """Answer the leave that waits, likewise."""
    yield from write_number(f"{_SYSFS}/{name}/event_done", 0)


def shows_leaves() -> Plan[bool]:
    """Say that a leave can be seen: the device goes first."""
    yield from ()
    return True


def takes_answer(name: str) -> Plan[bool]:
    """Say whether the removal of a lockspace waits for its answer: its device has gone."""
    return device_of(name) not in (yield from misc_devices())


# ---- create and remove --------------------------------------------------------------------------


def begin_create(name: str, exclusive: bool, /) -> Plan[Begun]:
    """Send CREATE_LOCKSPACE; it sleeps until the join was answered and recovery has ended."""
    from dlm.abi.device import Command, LockspaceRequest, encode_request

    flags = LockspaceFlag.NEWEXCL if exclusive else 0
    raw = name.encode("utf-8", "surrogateescape")
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, flags, name=raw)
    what = f"CREATE_LOCKSPACE {name}" + " NEWEXCL" * exclusive
    return (yield from _send(encode_request(request), what))


def begin_remove(name: str, minor: int) -> Plan[Begun]:
    """Send REMOVE_LOCKSPACE with FORCEFREE; it sleeps until the leave is over."""
    from dlm.abi.device import Command, LockspaceRequest, encode_request

    request = LockspaceRequest(Command.REMOVE_LOCKSPACE, ReleaseFlag.FORCEFREE, minor)
    what = f"REMOVE_LOCKSPACE {name} FORCEFREE"
    return (yield from _send(encode_request(request), what))


def _send(request: bytes, what: str) -> Plan[Begun]:
    file: File = yield OpenDevice(CONTROL_DEVICE)
    begun: Begun = yield Submit(DeviceWrite(request), file, what, detached=True)
    yield Submit(DeviceClose(), file)
    return begun


# ---- nodes: comms/ ------------------------------------------------------------------------------


def nodes() -> Plan[Nodes]:
    """Return the nodes that were set."""
    names = yield from names_in(_CONFIG)
    if names is None:
        yield from explain_absence()
        raise NoDlmError(f"there is no /sys/kernel/{_CONFIG}", "look whether configfs is mounted")
    # Any name will do; the one that is there owns the kernel's lists (Linux 6.1 fs/dlm/config.c,
    # make_cluster()).
    root = f"{_CONFIG}/{names[0] if names and _CLUSTER not in names else _CLUSTER}"
    found: dict[int, Comm] = {}
    strays: list[str] = []
    for directory in (yield from names_in(f"{root}/comms")) or ():
        comm = yield from _read_comm(f"{root}/comms/{directory}")
        if comm is not None and comm.nodeid > 0:
            found[comm.nodeid] = comm
        elif comm is not None:
            strays.append(comm.path)
    return Nodes(root, bool(names), dict(sorted(found.items())), tuple(strays))


def _read_comm(path: str) -> Plan[Comm | None]:
    from dlm.abi.address import parse_address_list

    inode = yield from _comm_inode(path)
    nodeid = yield from read_number(f"{path}/nodeid")
    if nodeid is None:
        return None
    local = yield from read_number(f"{path}/local")
    listed = yield from read(f"{path}/addr_list")
    addresses = tuple(parse_address_list(listed.decode()))
    return Comm(nodeid, path, addresses, bool(local), inode)


def _comm_path(nodes: Nodes, nodeid: int) -> str:
    return f"{nodes.root}/comms/{nodeid}"


def _comm_inode(path: str) -> Plan[int]:
    where = yield from stat(path)
    return 0 if where is None else where.inode


def set_local(
    nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None
) -> Plan[None]:
    """Say which node this is; the weight is a member's, the next start writes it."""
    del weight
    comm = nodes.comms.get(nodeid)
    if comm is None:
        yield from _make_comm(nodes, nodeid, addresses, local=True)
    else:
        missing = [address for address in addresses if address not in comm.addresses]
        yield from _add_addresses(comm.path, missing)
        if not comm.local:
            yield from _make_local(comm.path)


def set_node(nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None) -> Plan[None]:
    """Say where a node is; other addresses than it has replace them all."""
    del weight
    comm = nodes.comms.get(nodeid)
    if comm is None:
        yield from _make_comm(nodes, nodeid, addresses, local=False)
    elif not set(addresses) <= set(comm.addresses):
        yield RemoveDirectory(comm.path)
        yield from _make_comm(nodes, nodeid, addresses, local=comm.local)


def takes_back() -> Plan[bool]:
    """Say that a node which left and came back must be set anew (design fact 6)."""
    yield from ()
    return False


def _make_comm(nodes: Nodes, nodeid: int, addresses: Sequence[str], *, local: bool) -> Plan[None]:
    """Set a node: nodeid before addr, for the address is filed under the nodeid of the moment."""
    path = _comm_path(nodes, nodeid)
    if not nodes.there:
        yield MakeDirectory(nodes.root)
    if path in nodes.strays:
        yield RemoveDirectory(path)
    yield MakeDirectory(path)
    yield from write_number(f"{path}/nodeid", nodeid)
    yield from _add_addresses(path, addresses)
    if local:
        yield from _make_local(path)


def _add_addresses(path: str, addresses: Iterable[str]) -> Plan[None]:
    from dlm.abi.address import encode_sockaddr

    for address in addresses:
        yield WriteAttribute(f"{path}/addr", encode_sockaddr(address))


def _make_local(path: str) -> Plan[None]:
    # It cannot be taken back but by removing the comm.
    yield from write_number(f"{path}/local", 1)


# ---- members: spaces/<ls>/nodes/ ----------------------------------------------------------------


def members(nodes: Nodes, name: str) -> Plan[tuple[Member, ...] | None]:
    """Return the members configured for a lockspace by node id, None when it has no space."""
    root = f"{nodes.root}/spaces/{name}/nodes"
    directories = yield from names_in(root)
    if directories is None:
        return None
    found: list[Member] = []
    for directory in directories:
        nodeid = yield from read_number(f"{root}/{directory}/nodeid")
        weight = yield from read_number(f"{root}/{directory}/weight")
        if nodeid is not None and weight is not None:
            found.append(Member(nodeid, f"{root}/{directory}", weight))
    return tuple(sorted(found, key=lambda member: member.nodeid))


def write_members(nodes: Nodes, name: str, change: Membership) -> Plan[dict[int, int]]:
    """Make the members those of the next start; those that left go first.

    Returns the inode of each member's comm by node id.
    """
    before = change.configured or ()
    stay = {each.nodeid: each for each in reversed(before) if each.nodeid in change.kept}
    if change.configured is None:
        yield MakeDirectory(f"{nodes.root}/spaces/{name}")
    for member in before:
        if member is not stay.get(member.nodeid):
            yield RemoveDirectory(member.path)
    for comm in change.returned:
        if comm.inode:  # its connection is closed, its addresses are dropped
            yield RemoveDirectory(comm.path)
        yield from _make_comm(nodes, comm.nodeid, comm.addresses, local=False)
    for nodeid, weight in change.weights.items():
        kept = stay.get(nodeid)
        if kept is None:
            yield from _make_member(f"{nodes.root}/spaces/{name}/nodes/{nodeid}", nodeid, weight)
        elif kept.weight != weight:
            yield from write_number(f"{kept.path}/weight", weight)
    moved = {comm.nodeid: _comm_path(nodes, comm.nodeid) for comm in change.returned}
    inodes: dict[int, int] = {}
    for nodeid in change.weights:
        path = moved.get(nodeid, nodes.comms[nodeid].path)
        inodes[nodeid] = yield from _comm_inode(path)
    return inodes


def _make_member(path: str, nodeid: int, weight: int) -> Plan[None]:
    # Its comm must be there: nodeid remembers which one it was.
    yield MakeDirectory(path)
    yield from write_number(f"{path}/nodeid", nodeid)
    yield from write_number(f"{path}/weight", weight)
