"""Locks and resources of one lockspace on one node: what they are, where they are kept.

Decides: the fields of a lock and of a resource, lock ids, who keeps what alive, in which order
tables are walked.
May not know: when a lock is granted, what is sent to whom.
Mirrors: struct dlm_lkb and struct dlm_rsb (fs/dlm/dlm_internal.h), the reference counts and the
hash table of fs/dlm/lock.c (Linux 6.1; where 6.10 differs the kernel profile says so).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from dlm.core.events import FileId, UserArgs
from dlm.core.messages import LockMessage
from dlm.core.modes import IV, hash_name
from dlm.terms import (
    RESOURCE_NAME_MAX,
    InternalFlag,
    KernelProfile,
    LockFlag,
    LockStatus,
    ResourceFlag,
)

# Plain integers: an operation tests several of these, and an IntFlag's ``&`` costs ten times more.

NOQUEUE: Final = int(LockFlag.NOQUEUE)
CANCEL: Final = int(LockFlag.CANCEL)
CONVERT: Final = int(LockFlag.CONVERT)
VALBLK: Final = int(LockFlag.VALBLK)
QUECVT: Final = int(LockFlag.QUECVT)
IVVALBLK: Final = int(LockFlag.IVVALBLK)
CONVDEADLK: Final = int(LockFlag.CONVDEADLK)
PERSISTENT: Final = int(LockFlag.PERSISTENT)
NODLCKWT: Final = int(LockFlag.NODLCKWT)
EXPEDITE: Final = int(LockFlag.EXPEDITE)
NOQUEUEBAST: Final = int(LockFlag.NOQUEUEBAST)
HEADQUE: Final = int(LockFlag.HEADQUE)
NOORDER: Final = int(LockFlag.NOORDER)
ALTPR: Final = int(LockFlag.ALTPR)
ALTCW: Final = int(LockFlag.ALTCW)
FORCEUNLOCK: Final = int(LockFlag.FORCEUNLOCK)
TIMEOUT: Final = int(LockFlag.TIMEOUT)

USER: Final = int(InternalFlag.USER)
ORPHAN: Final = int(InternalFlag.ORPHAN)
MASTER_COPY: Final = int(InternalFlag.MASTER_COPY)
RESEND: Final = int(InternalFlag.RESEND)
DEAD: Final = int(InternalFlag.DEAD)
OVERLAP_UNLOCK: Final = int(InternalFlag.OVERLAP_UNLOCK)
OVERLAP_CANCEL: Final = int(InternalFlag.OVERLAP_CANCEL)
OVERLAP: Final = OVERLAP_UNLOCK | OVERLAP_CANCEL
ENDOFLIFE: Final = int(InternalFlag.ENDOFLIFE)
WATCH_TIMEWARN: Final = int(InternalFlag.WATCH_TIMEWARN)
DEADLOCK_CANCEL: Final = int(InternalFlag.DEADLOCK_CANCEL)
SHARED_FLAGS: Final = 0xFFFF
"""The bits of a lock's flags that travel in messages."""

MASTER_UNCERTAIN: Final = int(ResourceFlag.MASTER_UNCERTAIN)
VALNOTVALID: Final = int(ResourceFlag.VALNOTVALID)
NEW_MASTER: Final = int(ResourceFlag.NEW_MASTER)
NEW_MASTER2: Final = int(ResourceFlag.NEW_MASTER2)
RECOVER_CONVERT: Final = int(ResourceFlag.RECOVER_CONVERT)
RECOVER_GRANT: Final = int(ResourceFlag.RECOVER_GRANT)
RECOVER_LVB_INVAL: Final = int(ResourceFlag.RECOVER_LVB_INVAL)

ID_BUCKETS: Final = 1024
"""Buckets of lock ids in 2005."""

NONE: Final = LockStatus.NONE
WAITING: Final = LockStatus.WAITING
GRANTED: Final = LockStatus.GRANTED
CONVERTING: Final = LockStatus.CONVERT


_NO_ARGS: Final = UserArgs()


class Callback:
    """A completion or blocking AST that waits to be read (struct dlm_callback)."""

    __slots__ = ("blocking", "flags", "mode", "status")

    def __init__(self, blocking: bool, mode: int, status: int, flags: int) -> None:
        self.blocking = blocking
        self.mode = mode
        self.status = status
        self.flags = flags


class LockBlock:
    """A lock on this node: a local lock, a process copy or a master copy (struct dlm_lkb).

    ``nodeid`` is 0 for a local lock, the master's for a process copy, the holder's for a master
    copy, -1 while the master is not known. ``alive`` ends with the lock: what then still refers to
    the block (unread results, a reply to come) keeps its id taken.
    """

    __slots__ = (
        "alive",
        "args",
        "blocked_mode",
        "blocked_ns",
        "callbacks",
        "exflags",
        "file",
        "flags",
        "freed",
        "granted_mode",
        "has_blocking",
        "highest_blocked",
        "last_callback",
        "last_completion",
        "lock_id",
        "looking_up",
        "nodeid",
        "pid",
        "queued_ns",
        "recover_sequence",
        "remote_id",
        "requested_mode",
        "resource",
        "result_flags",
        "result_status",
        "status",
        "status_flags",
        "value",
        "value_attached",
        "value_sequence",
        "wait_count",
        "wait_nodeid",
        "wait_type",
        "xid",
    )

    def __init__(self, lock_id: int, resource: Resource) -> None:
        self.lock_id = lock_id
        self.resource = resource
        self.nodeid = -1
        self.remote_id = 0
        self.pid = 0
        self.xid = 0
        self.exflags = 0
        self.flags = 0
        self.status_flags = 0
        self.status: LockStatus = NONE
        self.granted_mode = IV
        self.requested_mode = IV
        self.highest_blocked = 0
        self.value: bytes | None = None
        """The 32 bytes of the value-block buffer, where there is one."""
        self.value_attached = False
        """The last accepted operation saw the buffer (lkb_lvbptr is set)."""
        self.value_sequence = 0
        self.has_blocking = True
        self.wait_type = 0
        """The message whose reply is awaited (MessageType), 0: none."""
        self.wait_count = 0
        self.wait_nodeid = 0
        self.looking_up = False
        """On the resource's list of locks that wait for another lock's master lookup."""
        self.recover_sequence = -1
        self.queued_ns = 0
        self.alive = True
        self.freed = False
        # What belongs to the user's side (fs/dlm/user.c, ast.c).
        self.args = _NO_ARGS
        self.file: FileId | None = None
        self.callbacks: list[Callback] = []
        self.last_completion = IV
        self.last_callback: Callback | None = None
        self.blocked_mode = 0
        """The mode of the last blocking AST delivered, 0 none; since 6.10 queued, -1 none."""
        self.blocked_ns = 0
        self.result_status = 0
        self.result_flags = 0

    @property
    def is_master_copy(self) -> bool:
        """Say whether this is another node's lock on a resource that we master."""
        return bool(self.flags & MASTER_COPY)

    @property
    def is_process_copy(self) -> bool:
        """Say whether this is our lock on a resource that another node masters."""
        return bool(self.nodeid) and not self.flags & MASTER_COPY


class Resource:
    """A resource as this node knows it (struct dlm_rsb).

    ``nodeid`` is 0 when this node is the master, -1 while it is not known, else the master's.
    ``master`` is the same with this node's own id, 0 while it is not known.
    """

    __slots__ = (
        "activated",
        "bucket",
        "converting",
        "directory_node",
        "due_ns",
        "first_lock_id",
        "flags",
        "granted",
        "hash",
        "holds",
        "key",
        "lookups",
        "master",
        "name",
        "nodeid",
        "on_root_list",
        "recover_id",
        "recover_locks",
        "tossed_ns",
        "value",
        "value_sequence",
        "waiting",
    )

    def __init__(self, name: bytes, key: bytes, hashed: int, bucket: int) -> None:
        self.name = name
        self.key = key
        self.hash = hashed
        self.bucket = bucket
        self.nodeid = -1
        self.master = 0
        self.directory_node = 0
        self.first_lock_id = 0
        self.flags = 0
        self.granted: list[LockBlock] = []
        self.converting: list[LockBlock] = []
        self.waiting: list[LockBlock] = []
        self.lookups: list[LockBlock] = []
        self.value: bytes | None = None
        self.value_sequence = 0
        self.holds = 0
        """How many locks and lists keep this resource from being tossed."""
        self.tossed_ns: int | None = None
        """When it was tossed; None while it is in use."""
        self.due_ns = 0
        """Since 6.10: when it is to be freed, by the toss_secs of the moment when it was tossed."""
        self.activated = 0
        self.on_root_list = False
        self.recover_id = 0
        self.recover_locks = 0

    @property
    def is_master(self) -> bool:
        """Say whether this node is the master."""
        return not self.nodeid

    def queue(self, status: int) -> list[LockBlock]:
        """Return the queue of a status other than NONE."""
        if status == GRANTED:
            return self.granted
        return self.converting if status == CONVERTING else self.waiting


class LockTable:
    """The lock ids of a lockspace on this node: the lowest free positive number is next.

    ``never_blocked`` is what debugfs shows of a lock that had no blocking AST.
    """

    def __init__(self, never_blocked: int = 0) -> None:
        self.locks: dict[int, LockBlock] = {}
        self._never_blocked = never_blocked
        self._free: list[int] = []
        self._next = 1

    def create(self, resource: Resource) -> LockBlock:
        """Make a lock that keeps its resource."""
        lock_id = heapq.heappop(self._free) if self._free else self._new_id()
        lock = self.locks[lock_id] = LockBlock(lock_id, resource)
        lock.blocked_mode = self._never_blocked
        resource.holds += 1
        return lock

    def _new_id(self) -> int:
        self._next += 1
        return self._next - 1

    def remove(self, lock: LockBlock) -> None:
        """Free the lock's id."""
        del self.locks[lock.lock_id]
        heapq.heappush(self._free, lock.lock_id)
        lock.freed = True


class ScatteredLockTable(LockTable):
    """The lock ids of 2005: a bucket of 1024, and in the upper half how often it was taken.

    The kernel took a random bucket; here the buckets come in a fixed scattered order, each once in
    1024 locks. An id never comes again.
    """

    def _new_id(self) -> int:
        count = super()._new_id() - 1
        bucket = (count * 389 + 229) % ID_BUCKETS
        return bucket | count // ID_BUCKETS + 1 << 16

    def remove(self, lock: LockBlock) -> None:
        """Forget the lock."""
        del self.locks[lock.lock_id]
        lock.freed = True


class ResourceTable:
    """The resources of a lockspace on this node, in use and tossed."""

    def __init__(self, profile: KernelProfile, size: int) -> None:
        self._padded = profile.padded_names
        self._mask = size - 1
        self._by_bucket = profile.merged_results
        self._activations = 0
        self.in_use: dict[bytes, Resource] = {}
        self.tossed: dict[bytes, Resource] = {}

    def key(self, name: bytes) -> bytes:
        """Return what two names must share to name one resource."""
        if self._padded:
            return name.ljust(RESOURCE_NAME_MAX, b"\0")
        if not self._by_bucket or name[-1:] != b"\0":
            return name
        # Quirk: up to 6.9 names are compared padded with zeros, too, but within their bucket only,
        # which is that of the whole name: Linux 6.1 fs/dlm/lock.c, rsb_cmp().
        bare, bucket = name.rstrip(b"\0"), self._bucket(name)
        if bucket == self._bucket(bare):
            return bare
        return bare.ljust(RESOURCE_NAME_MAX + 1, b"\0") + bucket.to_bytes(4)

    def _bucket(self, name: bytes) -> int:
        return hash_name(name) & self._mask

    def create(self, name: bytes, *, in_use: bool) -> Resource:
        """Make a resource of that name."""
        key = self.key(name)
        hashed = hash_name(name)
        resource = Resource(name, key, hashed, hashed & self._mask)
        if in_use:
            self._use(resource)
        else:
            self.tossed[key] = resource
        return resource

    def activate(self, resource: Resource) -> None:
        """Take a tossed resource back into use."""
        del self.tossed[resource.key]
        resource.tossed_ns = None
        self._use(resource)

    def toss(self, resource: Resource, now: int) -> None:
        """Put a resource that nobody uses aside; its value block is lost, its flags stay."""
        key = resource.key
        del self.in_use[key]
        resource.tossed_ns = now
        resource.value = None
        self.tossed[key] = resource

    def walk(self) -> list[Resource]:
        """Return the resources in use in the kernel's order.

        Up to 6.9 by bucket; since 6.10 the one used last comes first.
        """
        if self._by_bucket:
            return _by_bucket(self.in_use.values())
        return sorted(self.in_use.values(), key=lambda r: -r.activated)

    def walk_tossed(self) -> list[Resource]:
        """Return the tossed resources in the kernel's order, as ``walk`` has it."""
        if self._by_bucket:
            return _by_bucket(self.tossed.values())
        return list(reversed(self.tossed.values()))

    def _use(self, resource: Resource) -> None:
        self.in_use[resource.key] = resource
        self._activations += 1
        resource.activated = self._activations


def _by_bucket(resources: Iterable[Resource]) -> list[Resource]:
    # Quirk: within a bucket the greatest name comes first: what is compared is the name in the
    # tree, not the one that is looked for. Linux 6.1 fs/dlm/lock.c, dlm_search_rsb_tree().
    by_name = sorted(resources, key=lambda r: r.name.ljust(RESOURCE_NAME_MAX, b"\0"), reverse=True)
    return sorted(by_name, key=lambda r: r.bucket)


class Member:
    """A member of the lockspace (struct dlm_member)."""

    __slots__ = ("comm", "generation", "nodeid", "slot", "weight")

    def __init__(self, nodeid: int, weight: int, comm: int) -> None:
        self.nodeid = nodeid
        self.weight = weight
        self.comm = comm
        self.slot = 0
        self.generation = 0


SavedMessage = tuple[int, LockMessage]
"""A message that came while locking was stopped, and its sender."""
