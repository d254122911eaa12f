"""What a dialect of control answers: the questions of the verbs, as a type.

Decides: the questions; each dialect is a module of functions with these names.
May not know: any dialect. Nothing imports this module at run time.

``configfs`` speaks to mainline kernels, ``event`` to the DLM of April 2005, ``members`` to that of
July 2005. A question that a dialect has no use for it answers in its own terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dlm.control.plan import Begun, Plan
from dlm.control.seen import Member, Membership, Nodes, Seen
from dlm.ports import Stat


class Dialect(Protocol):
    """How one generation of kernels is spoken to; each answer is a plan."""

    # ---- is there a DLM ----

    def explain_absence(self) -> Plan[None]:
        """Raise ``NoDlmError`` when something is missing that every lockspace needs."""

    def has_module(self) -> Plan[bool]:
        """Say whether the DLM is in this kernel."""

    # ---- lockspaces as the kernel shows them ----

    def lockspaces(self) -> Plan[list[str]]:
        """Return the names of the lockspaces of this node."""

    def look(self, name: str) -> Plan[Seen | None]:
        """Look at a lockspace: None when there is none of that name."""

    def glance(self, name: str) -> Plan[Seen | None]:
        """Look at identity and recovery of a lockspace only."""

    def is_complete(self, name: str) -> Plan[Stat | None]:
        """Return a lockspace's directory once its attributes are all there."""

    def read_id(self, name: str) -> Plan[int | None]:
        """Return the global id of a lockspace, None when it has gone."""

    def lock_device(self) -> Plan[int]:
        """Return the major version of the lock device."""

    def read_locks(self, name: str) -> Plan[bytes | None]:
        """Return the list of all locks of a lockspace, None when the kernel does not show it."""

    def shows_leaves(self) -> Plan[bool]:
        """Say whether a leave that waits can be seen."""

    # ---- control words ----

    def write_id(self, name: str, number: int) -> Plan[None]:
        """Set the global id."""

    def begin_stop(self, name: str) -> Plan[Begun]:
        """Suspend locking; the call returns when no lock operation is left inside."""

    def write_start(self, name: str, event_nr: int) -> Plan[None]:
        """Let recovery begin with the members that were written."""

    def write_finish(self, name: str, event_nr: int) -> Plan[None]:
        """Say that a start which is done is done everywhere."""

    def answer_join(self, name: str, answer: int) -> Plan[None]:
        """Answer a join that waits: 0, or a negative errno; a start may have done so."""

    def takes_answer(self, name: str) -> Plan[bool]:
        """Say whether the answer to the removal that was begun may be written now."""

    def answer_leave(self, name: str) -> Plan[None]:
        """Answer a leave that waits."""

    def write_raw(self, name: str, attribute: str, text: str) -> Plan[None]:
        """Write one attribute, unchecked; refused where the dialect is not July's."""

    # ---- create and remove ----

    def begin_create(self, name: str, exclusive: bool, /) -> Plan[Begun]:
        """Send CREATE_LOCKSPACE; it sleeps until the join is over."""

    def begin_remove(self, name: str, minor: int) -> Plan[Begun]:
        """Send REMOVE_LOCKSPACE with FORCEFREE; it sleeps until the leave is over."""

    # ---- nodes and members ----

    def nodes(self) -> Plan[Nodes]:
        """Return the nodes that were set."""

    def set_local(
        self, nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None
    ) -> Plan[None]:
        """Say which node this is and add the addresses that it lacks."""

    def set_node(
        self, nodes: Nodes, nodeid: int, addresses: Sequence[str], weight: int | None
    ) -> Plan[None]:
        """Say where a node is; other addresses than it has replace them all."""

    def takes_back(self) -> Plan[bool]:
        """Say whether a node that left and came back is spoken to again without being set anew."""

    def members(self, nodes: Nodes, name: str) -> Plan[tuple[Member, ...] | None]:
        """Return the members of a lockspace by node id, None when nothing is configured."""

    def write_members(self, nodes: Nodes, name: str, change: Membership) -> Plan[dict[int, int]]:
        """Write the members of the next start; return the inode of each one's comm."""
