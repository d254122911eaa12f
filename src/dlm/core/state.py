"""The state of one lockspace on one node, and the small moves that every rule is made of.

Decides: what a lockspace remembers; how a lock changes queues, ends and is freed; what waits for a
reply; which node holds a name's directory entry.
May not know: when any of this happens.
Mirrors: struct dlm_ls (fs/dlm/dlm_internal.h) and the basic operations of fs/dlm/lock.c
(add_lkb, del_lkb, put_lkb, toss_rsb, dlm_hash2nodeid; Linux 6.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from dlm.core.blocks import (
    CONVERTING,
    GRANTED,
    HEADQUE,
    NODLCKWT,
    NONE,
    TIMEOUT,
    WAITING,
    WATCH_TIMEWARN,
    LockBlock,
    LockTable,
    Member,
    Resource,
    ResourceTable,
    SavedMessage,
    ScatteredLockTable,
)
from dlm.core.events import (
    FileId,
    Input,
    Log,
    Output,
    Result,
    ResultQueued,
    Send,
    SetTimer,
    Timer,
)
from dlm.core.hazards import TIMEOUT_RUNS_OUT, Hazard, meet
from dlm.core.messages import Message
from dlm.core.modes import IV
from dlm.terms import KernelProfile, LockStatus, NodeId

SECOND = 1_000_000_000


class Refused(Exception):
    """An operation is refused with an errno; inside the core only, answered as ``Reply.error``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class OpenFileState:
    """An open file of the lockspace's device: its locks and its results (struct dlm_user_proc)."""

    __slots__ = ("locks", "news", "ready", "results", "unlocking")

    def __init__(self, file: FileId) -> None:
        self.news = ResultQueued(file)
        self.locks: dict[int, LockBlock] = {}
        """Its locks by id, in the order in which they came to it."""
        self.unlocking: dict[int, LockBlock] = {}
        """Locks whose unlock awaits the master's reply."""
        self.ready: dict[int, LockBlock] = {}
        """Up to 6.9: locks with unread results, by id, in the order of the oldest one."""
        self.results: deque[Result] = deque()
        """Since 6.10: unread results."""


class World(Protocol):
    """What counts the changes of all whose world it is: ``progress`` grows with every real one."""

    progress: int


class _OwnWorld:
    progress = 0


def new_world() -> World:
    """Return a world of one."""
    return _OwnWorld()


class State:
    """Everything that a lockspace remembers on this node."""

    def __init__(
        self, name: str, node: NodeId, profile: KernelProfile, exflags: int, table_size: int
    ) -> None:
        self.strict = False
        """Raise where a real kernel would not survive (hazards.py)."""
        self.reaches: Callable[[int], bool] = lambda _: True
        """Whether a message to a member can be made: since its comm it has been heard of."""
        self.knows_itself: Callable[[], bool] = lambda: True
        """Whether this node has its own comm still."""
        self.name = name
        self.node = int(node)
        self.profile = profile
        self.exflags = exflags
        self.now = 0
        self.outputs: list[Output] = []
        self.world = new_world()
        """Where changes are counted; may be shared."""
        # Locks and resources.
        self.locks = (
            ScatteredLockTable()
            if profile.scattered_lock_ids
            else LockTable(0 if profile.merged_results else IV)
        )
        self.resources = ResourceTable(profile, table_size)
        self.waiters: dict[int, LockBlock] = {}
        """Locks that wait for a reply, by id, oldest first (the kernel walks newest first)."""
        self.orphans: dict[int, LockBlock] = {}
        self.diverged: set[bytes] = set()
        """Resources, by key, whose locks here have other modes than their master granted."""
        self.files: dict[FileId, OpenFileState] = {}
        # Running and stopped.
        self.stopped = True
        self.recovery_stopped = True
        self.blocked: deque[Input] = deque()
        """Calls that wait for the end of recovery, oldest first."""
        self.saved: deque[SavedMessage] = deque()
        self.recover_status = 0
        self.recover_nodeid = 0
        self.recover_sequence = 0
        self.generation = 0
        self.slot = 0
        self.slots: tuple[tuple[int, int], ...] = ()
        self.no_directory = False
        self.holds_results = False
        """No result can be read while the lockspace is stopped (2005)."""
        self.watches_waits = False
        """Locks that have to wait are marked (create flag TIMEWARN, up to 6.3)."""
        # Members.
        self.members: list[Member] = []
        self.gone: list[Member] = []
        self.low_node = -1
        self.directory_nodes: list[int] = []
        # Settings.
        self.toss_secs = 10
        self.scan_secs = 5
        self.scan_armed = False

    # ---- outputs --------------------------------------------------------------------------------

    def log(self, text: str) -> None:
        """Write a line of the kernel's log."""
        self.outputs.append(Log(text))

    def risk(self, hazard: Hazard, who: str) -> None:
        """Say that this is where real kernels go wrong; raises when strict and this is one."""
        meet(hazard, who, self.profile, strict=self.strict)

    def send(self, target: int, message: Message) -> None:
        """Send a message to a member."""
        self.outputs.append(Send(NodeId(target), message))

    # ---- members and directory ------------------------------------------------------------------

    def is_member(self, nodeid: int) -> bool:
        """Say whether a node is a member now."""
        return any(member.nodeid == nodeid for member in self.members)

    def is_gone(self, nodeid: int) -> bool:
        """Say whether a node was a member and this recovery is not over."""
        return any(member.nodeid == nodeid for member in self.gone)

    def directory_node(self, hashed: int) -> int:
        """Return the node that keeps the directory entry of a name (dlm_hash2nodeid)."""
        if len(self.members) == 1 or not self.directory_nodes:
            return self.node
        return self.directory_nodes[(hashed >> 16) % len(self.directory_nodes)]

    # ---- a lock on its queues -------------------------------------------------------------------

    def add(self, resource: Resource, lock: LockBlock, status: LockStatus) -> None:
        """Put a lock on a queue (add_lkb)."""
        lock.queued_ns = self.now
        lock.status = status
        if status is GRANTED:
            queue = resource.granted
            # Quirk: meant is "in order of granted mode", but what is compared is the mode that the
            # others ask for, so that a granted lock nearly always goes to the front.
            # Linux 6.1 fs/dlm/lock.c, lkb_add_ordered().
            at = 0
            while at < len(queue) and queue[at].requested_mode >= lock.granted_mode:
                at += 1
            queue.insert(at, lock)
            return
        queue = resource.queue(status)
        if lock.exflags & HEADQUE:
            queue.insert(0, lock)
        else:
            queue.append(lock)
        if not lock.is_master_copy:
            self._watch(lock)

    def _watch(self, lock: LockBlock) -> None:
        # Linux 5.10 fs/dlm/lock.c, add_timeout(): the mark goes when a warning is sent, which here
        # nobody waits long enough for.
        if self.watches_waits and not lock.exflags & NODLCKWT:
            lock.flags |= WATCH_TIMEWARN
        if lock.exflags & TIMEOUT:
            self.risk(TIMEOUT_RUNS_OUT, f"lock {lock.lock_id:x}")

    def take_off(self, resource: Resource, lock: LockBlock) -> None:
        """Take a lock off its queue (del_lkb)."""
        resource.queue(lock.status).remove(lock)
        lock.status = NONE

    def move(self, resource: Resource, lock: LockBlock, status: LockStatus) -> None:
        """Put a lock on another queue, or anew on its own (move_lkb)."""
        self.take_off(resource, lock)
        self.add(resource, lock, status)

    def end(self, lock: LockBlock) -> None:
        """End a lock's life: its id goes when nothing refers to it any more."""
        lock.alive = False
        if self.profile.locks_by_id:
            self.orphans.pop(lock.lock_id, None)

    def settle(self, lock: LockBlock) -> None:
        """Free a lock to which nothing refers any more, and its resource with it (put_lkb)."""
        if lock.alive or lock.freed or lock.status or lock.wait_count:
            return
        if lock.callbacks and self.profile.ids_free_when_read:
            return
        if lock.lock_id in self.orphans:
            return
        if lock.file is not None:
            file = self.files.get(lock.file)
            if file is not None and (lock.lock_id in file.locks or lock.lock_id in file.unlocking):
                return
        self.locks.remove(lock)
        lock.resource.holds -= 1
        self.put(lock.resource)

    def put(self, resource: Resource) -> None:
        """Toss a resource that nobody uses (put_rsb)."""
        if resource.holds or resource.on_root_list or resource.tossed_ns is not None:
            return
        self.resources.toss(resource, self.now)
        resource.due_ns = self.now + self.toss_secs * SECOND
        if self.scan_armed:
            return
        if self.profile.scans_periodically:
            self.arm_scan(float(self.scan_secs))
        elif not self.is_kept_for_master(resource):
            self.arm_scan(float(self.toss_secs))

    def is_kept_for_master(self, resource: Resource) -> bool:
        """A directory entry stays until the master says that it is done with the name."""
        return (
            not self.no_directory
            and resource.master != self.node
            and resource.directory_node == self.node
        )

    def arm_scan(self, after: float) -> None:
        """See to it that tossed resources are looked at, in some seconds at the latest."""
        if not self.scan_armed:
            self.scan_armed = True
            self.outputs.append(SetTimer(Timer.TOSS_SCAN, after))

    # ---- locks that wait for a reply ------------------------------------------------------------

    def forget_wait(self, lock: LockBlock) -> None:
        """Take a lock off the list of those that wait for a reply."""
        self.waiters.pop(lock.lock_id, None)

    def walk_waiters(self) -> list[LockBlock]:
        """Return the locks that wait for a reply in the kernel's order, newest first."""
        return list(reversed(self.waiters.values()))


def revert(state: State, resource: Resource, lock: LockBlock) -> int:
    """Undo what a lock asked for: 0 it asked for nothing, 1 back to granted, -1 it has ended."""
    lock.requested_mode = IV
    if lock.status == CONVERTING:
        state.move(resource, lock, GRANTED)
        return 1
    if lock.status == WAITING:
        state.take_off(resource, lock)
        lock.granted_mode = IV
        state.end(lock)
        return -1
    return 0


def queued_locks(resource: Resource) -> Iterator[LockBlock]:
    """Walk a resource's locks: granted, converting, waiting."""
    yield from resource.granted
    yield from resource.converting
    yield from resource.waiting
