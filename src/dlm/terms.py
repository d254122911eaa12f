"""The vocabulary of the package as types: modes, flags, ids, and the constants of the kernel's ABI.

Decides: how the words of the field are spelled in code (docs/glossary.md).
May not know: anything else of this package.
Mirrors: include/uapi/linux/dlmconstants.h, dlm.h, dlm_device.h (Linux 5.10 … 7.2; equal in all).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import NewType

NodeId = NewType("NodeId", int)
"""A member of the cluster: a positive integer below 2**31 (kernel: nodeid)."""

LockId = NewType("LockId", int)
"""A lock on this node in one lockspace: unsigned 32 bits, never 0 (kernel: lkid)."""

EventNr = NewType("EventNr", int)
"""The number of a start, counted up by the membership manager (2005: event_nr)."""

RESOURCE_NAME_MAX = 64
"""Longest resource name in bytes (DLM_RESNAME_MAXLEN)."""

LOCKSPACE_NAME_MAX = 64
"""Longest lockspace name in bytes (DLM_LOCKSPACE_LEN)."""

VALUE_BLOCK_SIZE = 32
"""Bytes of a value block of the lock device (DLM_USER_LVB_LEN)."""

ECANCEL = 0x10001
"""Status of a completion whose request was cancelled (DLM_ECANCEL; not a libc errno)."""

EUNLOCK = 0x10002
"""Status of a completion that ended the lock (DLM_EUNLOCK; not a libc errno)."""


class LockMode(IntEnum):
    """The six lock modes, weakest first (DLM_LOCK_*)."""

    NL = 0
    CR = 1
    CW = 2
    PR = 3
    PW = 4
    EX = 5


class LockFlag(IntFlag):
    """What a request, a conversion or an unlock asks for (DLM_LKF_*)."""

    NOQUEUE = 0x00001
    CANCEL = 0x00002
    CONVERT = 0x00004
    VALBLK = 0x00008
    QUECVT = 0x00010
    IVVALBLK = 0x00020
    CONVDEADLK = 0x00040
    PERSISTENT = 0x00080
    NODLCKWT = 0x00100
    NODLCKBLK = 0x00200
    EXPEDITE = 0x00400
    NOQUEUEBAST = 0x00800
    HEADQUE = 0x01000
    NOORDER = 0x02000
    ORPHAN = 0x04000
    ALTPR = 0x08000
    ALTCW = 0x10000
    FORCEUNLOCK = 0x20000
    TIMEOUT = 0x40000


class StatusFlag(IntFlag):
    """Remarks in a completion's lock status block (DLM_SBF_*)."""

    DEMOTED = 0x01
    VALNOTVALID = 0x02
    ALTMODE = 0x04


class LockspaceFlag(IntFlag):
    """Flags of CREATE_LOCKSPACE (DLM_LSFL_*) that user space may send."""

    NEWEXCL = 0x8


class ReleaseFlag(IntFlag):
    """Flags of REMOVE_LOCKSPACE (DLM_USER_LSFLG_*)."""

    AUTOFREE = 1
    FORCEFREE = 2


class RecoverStatus(IntFlag):
    """Bits of the attribute recover_status (fs/dlm/dlm_internal.h, DLM_RS_*)."""

    NODES = 0x01
    NODES_ALL = 0x02
    DIR = 0x04
    DIR_ALL = 0x08
    LOCKS = 0x10
    LOCKS_ALL = 0x20
    DONE = 0x40
    DONE_ALL = 0x80


class LockStatus(IntEnum):
    """The queue that a lock is on (DLM_LKSTS_*); NONE: on none."""

    NONE = 0
    WAITING = 1
    GRANTED = 2
    CONVERT = 3


class InternalFlag(IntFlag):
    """Bits of a lock's own flags (DLM_IFL_*, 6.1; since 6.4 debugfs shows 0x10000 and above)."""

    USER = 0x1
    ORPHAN = 0x2
    MASTER_COPY = 0x10000
    RESEND = 0x20000
    DEAD = 0x40000
    OVERLAP_UNLOCK = 0x80000
    OVERLAP_CANCEL = 0x100000
    ENDOFLIFE = 0x200000
    WATCH_TIMEWARN = 0x400000
    DEADLOCK_CANCEL = 0x1000000


class ResourceFlag(IntFlag):
    """Bits of a resource's flags (RSB_*); the last two since 6.10."""

    MASTER_UNCERTAIN = 0x1
    VALNOTVALID = 0x2
    VALNOTVALID_PREV = 0x4
    NEW_MASTER = 0x8
    NEW_MASTER2 = 0x10
    RECOVER_CONVERT = 0x20
    RECOVER_GRANT = 0x40
    RECOVER_LVB_INVAL = 0x80
    INACTIVE = 0x100
    HASHED = 0x200


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """What differs between kernel releases where a user can see it.

    Each field names one difference, so that code asks for the behaviour and never for a version.
    Source: Debian's kernels of these releases, run in a VM.
    """

    name: str
    """The release as people say it: "6.1"."""
    merged_results: bool
    """Results come grouped by lock, read at read time (up to 6.9); else one FIFO (6.10)."""
    ids_free_when_read: bool
    """A lock id is reused only when its last result was read (up to 6.9)."""
    node_id_from_name: bool
    """configfs takes the node id from the directory's name and ignores writes (6.13)."""
    release_recover: bool
    """nodes/<id>/release_recover exists; a member gone without a trace fails the start (6.18)."""
    max_addresses: int
    """Addresses that one node may have (3, and 8 since 6.15)."""
    shared_cluster_attributes: bool
    """Cluster attributes have one module-wide value, not a copy per directory (6.13)."""
    deprecated_timeouts: bool
    """cluster/timewarn_cs and waitwarn_us exist (5.10)."""
    guesses_middle_conversions: bool
    """After recovery a PR-CW conversion under way gets its granted mode by guess (up to 6.12)."""
    padded_names: bool
    """Resource names are compared padded with zeros to 64 bytes (6.10)."""
    scans_periodically: bool
    """Unused resources are looked at every scan_secs (up to 6.9); else freed when due (6.10)."""
    unreachable_fails: bool
    """A new member without an address ends the recovery with ENOENT (6.12)."""
    empty_write_fault: bool
    """A write of no bytes to configfs is EFAULT (5.13); else it returns 0."""
    guards_transport: bool
    """Port and protocol are EBUSY while a lockspace exists, and protocol is 0 or 1; in 5.10 any
    number is taken at any time."""
    refuses_known_address: bool
    """An address that its node has already is EEXIST; in 5.10 it is filed again."""
    mark_follows_address: bool
    """A comm's mark needs an address (ENOENT), and 0 takes the cluster's; in 5.10 it is a plain
    number."""
    minors_from: int
    """The misc minor of dlm_plock on an otherwise quiet machine."""
    minors_step: int
    """Direction in which dynamic misc minors are handed out (-1 up to 6.1, +1 later)."""
    parting_seconds: float
    """How long the last lockspace's remove waits for each peer to let go of this node: 3 minutes
    (6.1), 5 seconds (6.12), not at all (5.10)."""
    joins_with_members: bool
    """A create returns when the members are known, before its first recovery has ended (5.10)."""
    forgets_minor: bool
    """A lockspace that leaves is not found by its minor any more (6.12)."""
    reserved_flag: bool
    """Flag 0x10 of a create is the kernel's own and refused (6.11)."""
    debugfs_writable: bool
    """Testers may write ``<ls>_locks`` and ``<ls>_waiters`` in debugfs: their mode is 0644, else
    0444 (5.10)."""
    numbers_names: bool
    """The questions for a directory's names, and their answers, are numbered as messages about
    locks are (6.6): out of step, a recovery never ends; before, only locks hang."""
    debug_comms: str
    """When debug/dlm/comms/<id> is made: "" never (5.10), with the first message to or from a
    "member" (6.1), with the first "address" (6.6)."""
    takes_any_target: bool = False
    """A message to a node that nobody configured is taken and goes nowhere (5.10)."""
    one_tcp_address: bool = False
    """With TCP a first create is EINVAL once the local comm has had two addresses (5.10)."""
    listen_error: str = "EADDRNOTAVAIL"
    """What a create gives that cannot bind to the local address (EADDRINUSE in 5.10)."""
    control: str = "configfs"
    """The dialect of control: "configfs", or one of 2005: "event" (April), "members" (July)."""
    locks_by_id: bool = False
    """Any process may convert and unlock any lock of its node by id; an orphan then becomes its
    own (lock device 3.0.0)."""
    scattered_lock_ids: bool = False
    """A lock id has a bucket of 1024 in its low half and a counter above (2005)."""
    holds_results: bool = False
    """No result can be read while the lockspace is stopped (2005)."""


_5_10 = KernelProfile(
    name="5.10",
    takes_any_target=True,
    one_tcp_address=True,
    listen_error="EADDRINUSE",
    merged_results=True,
    ids_free_when_read=True,
    node_id_from_name=False,
    release_recover=False,
    max_addresses=3,
    shared_cluster_attributes=False,
    deprecated_timeouts=True,
    guesses_middle_conversions=True,
    padded_names=False,
    scans_periodically=True,
    unreachable_fails=False,
    empty_write_fault=False,
    guards_transport=False,
    refuses_known_address=False,
    mark_follows_address=False,
    minors_from=59,
    minors_step=-1,
    parting_seconds=0.0,
    joins_with_members=True,
    forgets_minor=False,
    reserved_flag=False,
    debugfs_writable=False,
    numbers_names=False,
    debug_comms="",
)
_6_1 = replace(
    _5_10,
    name="6.1",
    parting_seconds=180.0,
    joins_with_members=False,
    takes_any_target=False,
    one_tcp_address=False,
    listen_error="EADDRNOTAVAIL",
    deprecated_timeouts=False,
    empty_write_fault=True,
    guards_transport=True,
    refuses_known_address=True,
    mark_follows_address=True,
    debugfs_writable=True,
    minors_from=122,
    debug_comms="member",
)
_6_12 = replace(
    _6_1,
    name="6.12",
    merged_results=False,
    ids_free_when_read=False,
    padded_names=True,
    scans_periodically=False,
    unreachable_fails=True,
    minors_from=262,
    minors_step=1,
    parting_seconds=5.0,
    forgets_minor=True,
    reserved_flag=True,
    numbers_names=True,
    debug_comms="address",
)
_7_2 = replace(
    _6_12,
    name="7.2",
    node_id_from_name=True,
    release_recover=True,
    max_addresses=8,
    shared_cluster_attributes=True,
    guesses_middle_conversions=False,
)

LINUX_2005_APRIL = replace(
    _6_12,
    name="2005-04",
    minors_from=61,  # INFER: 63 is the first that a misc device gets, two devices come first
    minors_step=-1,
    padded_names=False,
    scans_periodically=True,
    unreachable_fails=False,
    reserved_flag=False,
    max_addresses=1,
    guesses_middle_conversions=True,
    debug_comms="",
    control="event",
    locks_by_id=True,
    scattered_lock_ids=True,
    holds_results=True,
)
"""The DLM as posted to linux-kernel on 25 April 2005, on 2.6.12."""

LINUX_2005_JULY = replace(LINUX_2005_APRIL, name="2005-07", control="members")
"""The DLM as posted to linux-kernel on 15 July 2005, on 2.6.13."""

KERNELS_2005: dict[str, KernelProfile] = {
    profile.control: profile for profile in (LINUX_2005_APRIL, LINUX_2005_JULY)
}
"""The profiles of 2005 by their dialect of control."""

KERNELS: dict[str, KernelProfile] = {
    profile.name: profile for profile in (_5_10, _6_1, _6_12, _7_2)
}
"""The profiles that the emulator can take, by name."""
