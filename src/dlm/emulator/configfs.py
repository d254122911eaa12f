"""The tree ``config/dlm``: clusters, comms, spaces and nodes, and what a start reads from it.

Decides: what mkdir(2) and rmdir(2) make and undo, which values live in the directory and which in
the module, whom the local comm and the members of a lockspace are.
May not know: modes, formats, parse rules and limits of single values (dlm.abi.attributes).
Mirrors: fs/dlm/config.c (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial

from dlm.abi.address import decode_sockaddr, format_address_line
from dlm.abi.attributes import (
    CLUSTER,
    COMM,
    NODE,
    Attribute,
    Value,
    attributes_of,
    parse_unsigned,
)
from dlm.core.events import StartMember
from dlm.emulator.network import Endpoint
from dlm.emulator.tree import Directory, File
from dlm.terms import KernelProfile, NodeId

SIMPLE_ATTR_SIZE = 4096

_HEEDED = frozenset({"toss_secs", "scan_secs"})
"""Settings that living lockspaces heed."""


class Comm:
    """A node's address directory."""

    __slots__ = ("addresses", "local", "mark", "nodeid", "sequence")

    def __init__(self, nodeid: int, sequence: int) -> None:
        self.nodeid = nodeid
        self.sequence = sequence
        self.local = 0
        self.mark = 0
        self.addresses: list[bytes] = []

    def address_texts(self) -> list[str]:
        """Return the addresses as texts ("": of an unknown family)."""
        return [decode_sockaddr(raw) or "" for raw in self.addresses]


class Member:
    """A member's directory in a space."""

    __slots__ = ("comm", "new", "nodeid", "release_recover", "weight")

    def __init__(self, nodeid: int, comm: int) -> None:
        self.nodeid = nodeid
        self.comm = comm
        self.weight = 1
        self.new = True
        self.release_recover = 0


class Members:
    """What a space knows of its members."""

    __slots__ = ("gone", "present")

    def __init__(self) -> None:
        self.present: list[Member] = []  # newest first, as the kernel's list
        self.gone: set[int] = set()


class Configfs:
    """The module's configuration."""

    def __init__(
        self,
        profile: KernelProfile,
        endpoint: Endpoint,
        tune: Callable[[], None],
        forgot: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Begin with the defaults.

        ``tune`` is called when living lockspaces must be told, ``forgot`` with the node id of a
        comm that was removed.
        """
        self._profile = profile
        self._endpoint = endpoint
        self._tune = tune
        self._forgot = forgot
        self.values: dict[str, Value] = {
            row.name: row.default.encode() if isinstance(row.default, str) else row.default
            for row in attributes_of(CLUSTER, profile)
        }
        """The module's settings; they outlive every cluster directory."""
        self.local: Comm | None = None
        self.root = Directory(make=self._make_cluster)
        self._comms: list[Comm] | None = None
        self._spaces: dict[str, Members] | None = None
        self._sequence = 0

    @property
    def local_nodeid(self) -> int:
        """The id of this node, 0 without a local comm."""
        return 0 if self.local is None else self.local.nodeid

    def read_members(self, lockspace: str) -> tuple[tuple[StartMember, ...], frozenset[int]] | None:
        """Read what a start of this lockspace is given; None when it has no space.

        The second part are the members that were removed since the last start. Reading clears the
        marks of new members.
        """
        # Linux 6.1 fs/dlm/config.c, dlm_config_nodes()
        members = None if self._spaces is None else self._spaces.get(lockspace)
        if members is None:
            return None
        found = tuple(
            StartMember(NodeId(member.nodeid), member.weight, member.comm, member.new)
            for member in members.present
        )
        gone = frozenset(members.gone)
        if found:
            members.gone.clear()
        for member in members.present:
            member.new = False
        return found, gone

    # ---- clusters -------------------------------------------------------------------------------

    def _make_cluster(self, name: str) -> Directory:
        del name
        # The newest cluster's lists are the ones that the module looks into.
        comms: list[Comm] = []
        spaces: dict[str, Members] = {}
        self._comms, self._spaces = comms, spaces
        if self._profile.shared_cluster_attributes:
            shown = self.values
        else:
            # Quirk: the copy's mark is not initialised, whatever the module's value is.
            shown = self.values | {"mark": 0}
        cluster = Directory(remove=self._remove_cluster)
        for row in attributes_of(CLUSTER, self._profile):
            cluster.entries[row.name] = File(
                row.mode,
                partial(_show_value, row, shown),
                partial(self._store, row, partial(self._set, shown)),
            )
        cluster.entries["comms"] = Directory(make=partial(self._make_comm, comms))
        cluster.entries["spaces"] = Directory(make=partial(self._make_space, spaces))
        return cluster

    def _remove_cluster(self) -> None:
        # Quirk: whichever cluster goes, the module forgets its lists.
        self._comms = self._spaces = None

    def _set(self, shown: dict[str, Value], row: Attribute, value: Value) -> None:
        shown[row.name] = self.values[row.name] = value
        if row.name in _HEEDED:
            self._tune()

    # ---- comms ----------------------------------------------------------------------------------

    def _make_comm(self, comms: list[Comm], name: str) -> Directory:
        self._sequence += 1
        comm = Comm(self._nodeid_of(name), self._sequence)
        comms.append(comm)
        directory = Directory(remove=partial(self._remove_comm, comms, comm))
        for row in attributes_of(COMM, self._profile):
            directory.entries[row.name] = self._file(row, comm, _COMM_SHOW, _COMM_STORE)
        return directory

    def _remove_comm(self, comms: list[Comm], comm: Comm) -> None:
        comms.remove(comm)
        if self.local is comm:
            self.local = None
        self._endpoint.forget(comm.nodeid)
        self._forgot(comm.nodeid)

    def _set_local(self, comm: Comm, value: Value) -> None:
        assert isinstance(value, int)
        comm.local = value
        if value and self.local is None:
            self.local = comm

    def _add_address(self, comm: Comm, value: Value) -> None:
        assert isinstance(value, bytes)
        if len(comm.addresses) >= self._profile.max_addresses:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        repeated = not self._profile.refuses_known_address
        self._endpoint.add_address(comm.nodeid, value, repeated=repeated)
        comm.addresses.append(value)

    def _set_mark(self, comm: Comm, value: Value) -> None:
        assert isinstance(value, int)
        if not self._profile.mark_follows_address:
            comm.mark = value
            return
        mark = value or self.values["mark"]
        assert isinstance(mark, int)
        if not self._endpoint.has_address(comm.nodeid):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        comm.mark = mark

    # ---- spaces ---------------------------------------------------------------------------------

    def _make_space(self, spaces: dict[str, Members], name: str) -> Directory:
        members = spaces[name] = Members()
        directory = Directory(remove=lambda: spaces.__delitem__(name))
        directory.entries["nodes"] = Directory(make=partial(self._make_member, members))
        return directory

    def _make_member(self, members: Members, name: str) -> Directory:
        nodeid = self._nodeid_of(name)
        member = Member(nodeid, self._comm_sequence(nodeid) if nodeid >= 0 else 0)
        members.present.insert(0, member)
        directory = Directory(remove=partial(self._remove_member, members, member))
        for row in attributes_of(NODE, self._profile):
            directory.entries[row.name] = self._file(row, member, _MEMBER_SHOW, _MEMBER_STORE)
        return directory

    def _remove_member(self, members: Members, member: Member) -> None:
        members.present.remove(member)
        members.gone.add(member.nodeid)

    def _set_member(self, member: Member, value: Value) -> None:
        # The comm's sequence is taken at this moment: make the comm before the member.
        assert isinstance(value, int)
        member.nodeid = value
        member.comm = self._comm_sequence(value)

    # ---- common ---------------------------------------------------------------------------------

    def _nodeid_of(self, name: str) -> int:
        # Linux 6.13 fs/dlm/config.c, make_comm(), make_node(): kstrtouint() of the name.
        if not self._profile.node_id_from_name:
            return -1
        return parse_unsigned(name.encode("utf-8", "surrogateescape"))

    def _comm_sequence(self, nodeid: int) -> int:
        return next((comm.sequence for comm in self._comms or () if comm.nodeid == nodeid), 0)

    def _file(
        self,
        row: Attribute,
        owner: object,
        show: dict[str, Callable[..., object]],
        store: dict[str, Callable[..., None]],
    ) -> File:
        shown, stored = None, None
        if row.show is not None:
            shown = partial(_show_field, row, show[row.name], owner)
        if row.parse is not None:
            stored = partial(self._store, row, partial(self._set_field, store, owner))
        return File(row.mode, shown, stored)

    def _set_field(
        self, store: dict[str, Callable[..., None]], owner: object, row: Attribute, value: Value
    ) -> None:
        if value is not None:  # None: the kernel ignores what is written
            store[row.name](self, owner, value)

    def _store(
        self,
        row: Attribute,
        apply: Callable[[Attribute, Value], None],
        text: bytes,
        capable: bool,
    ) -> int:
        # Linux 6.1 fs/configfs/file.c, fill_write_buffer(). Quirk: a write of no bytes is EFAULT;
        # up to 5.12 it never reached the attribute.
        text = text[: SIMPLE_ATTR_SIZE - 1]
        if not text:
            if not self._profile.empty_write_fault:
                return 0
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        if row.privileged and not capable:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        value = row.parse_value(text)
        busy = row.busy_while_running and self._profile.guards_transport
        if busy and self._endpoint.running:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        apply(row, value)
        return len(text)


def _show_value(row: Attribute, values: dict[str, Value]) -> bytes:
    value = values[row.name]
    assert isinstance(value, int | bytes)
    return row.show_value(value)


def _show_field(row: Attribute, read: Callable[..., object], owner: object) -> bytes:
    value = read(owner)
    assert isinstance(value, int | str)
    return row.show_value(value)


def _set_number(field: str) -> Callable[..., None]:
    def apply(_: Configfs, owner: object, value: Value) -> None:
        setattr(owner, field, value)

    return apply


_COMM_SHOW: dict[str, Callable[..., object]] = {
    "nodeid": lambda comm: comm.nodeid,
    "local": lambda comm: comm.local,
    "mark": lambda comm: comm.mark,
    "addr_list": lambda comm: "".join(map(format_address_line, comm.addresses)),
}
_COMM_STORE: dict[str, Callable[..., None]] = {
    "nodeid": _set_number("nodeid"),
    "local": Configfs._set_local,
    "addr": Configfs._add_address,
    "mark": Configfs._set_mark,
}
_MEMBER_SHOW: dict[str, Callable[..., object]] = {
    "nodeid": lambda member: member.nodeid,
    "weight": lambda member: member.weight,
    "release_recover": lambda member: member.release_recover,
}
_MEMBER_STORE: dict[str, Callable[..., None]] = {
    "nodeid": Configfs._set_member,
    "weight": _set_number("weight"),
    "release_recover": _set_number("release_recover"),
}
