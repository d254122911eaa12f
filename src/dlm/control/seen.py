"""What the kernel shows of a node and its lockspaces, in words that hold for every dialect.

Decides: the names of a lockspace's states, and what each of them means.
May not know: how a dialect finds them out.
"""

from __future__ import annotations

from enum import Enum

from dlm.record import Record
from dlm.terms import RecoverStatus


class Phase(Enum):
    """Where a lockspace on this node stands."""

    JOINING = "joining"
    """Its create waits: for event_done, or for the end of the first recovery."""
    RUNNING = "running"
    """Recovery is done: locks are granted."""
    STOPPED = "stopped"
    """Locking is suspended and no recovery has gone a step."""
    RECOVERING = "recovering"
    """A recovery is under way."""
    LEAVING = "leaving"
    """Its removal waits: for event_done, or for the last file on it to be closed."""


class Numbers(Record):
    """What a kernel keeps itself of event numbers (April 2005).

    ``last_start`` and ``done`` are 0 before the first; ``stopped``: no start has followed the last
    stop.
    """

    last_start: int
    done: int
    stopped: bool


class Seen(Record):
    """A lockspace as the kernel shows it at one moment.

    ``inode`` is its sysfs directory's: another life of the same name has another one. ``minor`` is
    its device's, None while it has none. ``status`` holds the bits of recover_status; where the
    kernel has no such file, DONE, NODES (under way) or 0, as far as can be told. ``numbers`` are
    the kernel's own, None where it keeps none.
    """

    name: str
    inode: int
    minor: int | None
    status: int
    phase: Phase
    numbers: Numbers | None = None

    @property
    def done(self) -> bool:
        """Say whether the recovery of the last start is done."""
        return bool(self.status & RecoverStatus.DONE)


class Comm(Record):
    """A node as it was set: where, its addresses, whether it is this node.

    ``inode`` tells a comm that was made again from the one before.
    """

    nodeid: int
    path: str
    addresses: tuple[str, ...]
    local: bool
    inode: int


class Nodes(Record):
    """All nodes that were set, by node id; ``root`` is where the dialect keeps them.

    ``there`` says whether the root exists. ``strays`` are places that were made for a node by
    somebody who was stopped before saying which.
    """

    root: str
    there: bool
    comms: dict[int, Comm]
    strays: tuple[str, ...]

    @property
    def local(self) -> Comm | None:
        """Return this node, None when it was not set."""
        return next((comm for comm in self.comms.values() if comm.local), None)


class Member(Record):
    """A member as it is configured for a lockspace; the next start reads it.

    ``nodeid`` is not positive where somebody was stopped before writing it.
    """

    nodeid: int
    path: str
    weight: int


class Membership(Record):
    """The members that a start is to have, next to those that are configured.

    ``weights`` are by node id, ascending. ``kept`` are members whose place stays as it is,
    ``returned`` nodes that must be set anew; one without an inode has no place any more.
    ``configured`` is None where nothing is configured. ``again``: the same members were being
    written when that was interrupted.
    """

    weights: dict[int, int]
    configured: tuple[Member, ...] | None
    kept: frozenset[int]
    returned: tuple[Comm, ...]
    again: bool = False
