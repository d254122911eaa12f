"""What must hold in every cluster at every moment, one function each.

Decides: what is an error of the lock manager, whoever made it.
May not know: how the lock manager comes to its decisions.

``Cluster.check`` looks at all of them, ``Cluster.check_every_step`` after every single step.
Each raises ``AssertionError`` with the nodes and names concerned. Where nodes are compared, only
those count that run with the same members in the same generation: a node that was cut off does not
know yet what the others have decided. Resources do not count whose copies every real kernel lets
drift apart (``hazards.ALTERNATIVE_MODE``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from dlm.core.blocks import (
    CONVDEADLK,
    CONVERTING,
    GRANTED,
    HEADQUE,
    OVERLAP_UNLOCK,
    LockBlock,
    Resource,
)
from dlm.core.lockspace import Lockspace
from dlm.core.messages import MessageType
from dlm.core.modes import COMPATIBLE, IV
from dlm.terms import LockMode, RecoverStatus

if TYPE_CHECKING:
    from dlm.emulator.cluster import Cluster

CW, PR = int(LockMode.CW), int(LockMode.PR)

Group = list[Lockspace]
"""The nodes of one lockspace that run with the same members."""


def _lockspaces(cluster: Cluster) -> Iterator[Lockspace]:
    for node in cluster.nodes:
        if node.up:
            yield from node.lockspaces().values()


def _groups(cluster: Cluster) -> list[Group]:
    found: dict[tuple[str, tuple[int, ...], int], Group] = defaultdict(list)
    for core in _lockspaces(cluster):
        if not core.stopped:
            found[core.name, core.members, core.generation].append(core)
    return list(found.values())


def _locks(resource: Resource) -> Iterator[LockBlock]:
    yield from resource.granted
    yield from resource.converting
    yield from resource.waiting


def _have_diverged(cluster: Cluster, resource: Resource) -> bool:
    return any(core.has_diverged(resource) for core in _lockspaces(cluster))


def _own_locks(core: Lockspace) -> Iterator[LockBlock]:
    for resource in core.resources():
        yield from (lock for lock in _locks(resource) if not lock.is_master_copy)


def _may_have_given_up(lock: LockBlock) -> bool:
    # The master has demoted the lock, or has granted it CW for PR or PR for CW; its process copy
    # learns of either with the grant, which is on its way.
    return lock.status == CONVERTING and (
        bool(lock.exflags & CONVDEADLK) or {lock.granted_mode, lock.requested_mode} == {CW, PR}
    )


# ---- at every step ------------------------------------------------------------------------------


def granted_modes_are_compatible(cluster: Cluster) -> None:
    """No two locks are held in modes that exclude each other, on whatever nodes.

    A lock whose unlock or conversion is on its way counts no more: its holder has let go of it.
    """
    for group in _groups(cluster):
        held: dict[bytes, list[tuple[int, LockBlock]]] = defaultdict(list)
        for core in group:
            for lock in _own_locks(core):
                under_way = (
                    lock.wait_type in (MessageType.UNLOCK, MessageType.CONVERT)
                    or lock.flags & OVERLAP_UNLOCK
                    or (lock.is_process_copy and _may_have_given_up(lock))
                )
                if lock.granted_mode != IV and not under_way:
                    held[lock.resource.key].append((core.node, lock))
        for name, locks in held.items():
            if _have_diverged(cluster, locks[0][1].resource):
                continue
            for at, (node, lock) in enumerate(locks):
                for other_node, other in locks[at + 1 :]:
                    assert COMPATIBLE[lock.granted_mode][other.granted_mode], (
                        f"{name!r}: mode {lock.granted_mode} on node {node} and "
                        f"{other.granted_mode} on node {other_node} are held at once"
                    )


def master_holds_compatible_modes(cluster: Cluster) -> None:
    """No master has granted modes that exclude each other, not even during recovery."""
    for core in _lockspaces(cluster):
        for resource in core.resources():
            if not resource.is_master or _have_diverged(cluster, resource):
                continue
            locks = [*resource.granted, *resource.converting]
            for at, lock in enumerate(locks):
                for other in locks[at + 1 :]:
                    assert COMPATIBLE[lock.granted_mode][other.granted_mode], (
                        f"{core.name} node {core.node}: {resource.name!r} is granted in "
                        f"{lock.granted_mode} and {other.granted_mode}"
                    )


def queues_are_first_come_first_served(cluster: Cluster) -> None:
    """Who asks later waits behind, unless HEADQUE said otherwise."""
    for core in _lockspaces(cluster):
        for resource in core.resources():
            for queue in (resource.converting, resource.waiting):
                plain = [lock for lock in queue if not lock.exflags & HEADQUE]
                for earlier, later in pairwise(plain):
                    assert earlier.queued_ns <= later.queued_ns, (
                        f"{core.name} node {core.node}: lock {later.lock_id} overtook "
                        f"{earlier.lock_id} on {resource.name!r}"
                    )


_STEPS = (RecoverStatus.NODES, RecoverStatus.DIR, RecoverStatus.LOCKS, RecoverStatus.DONE)


def nobody_passes_a_barrier_alone(cluster: Cluster) -> None:
    """A step's ``…_ALL`` bit, or a later step's bit, means that every member has the step's bit.

    Members that have been stopped again show 0 and are left out.
    """
    groups: dict[tuple[str, tuple[int, ...]], Group] = defaultdict(list)
    for core in _lockspaces(cluster):
        if core.recover_status:
            groups[core.name, core.members].append(core)
    for group in groups.values():
        if {core.node for core in group} < set(group[0].members):
            continue
        for step in _STEPS:
            beyond = ~(int(step) * 2 - 1)
            passed = [core.node for core in group if core.recover_status & beyond & ~int(step)]
            short = [core.node for core in group if not core.recover_status & step]
            assert not (passed and short), (
                f"{group[0].name}: nodes {passed} are beyond {step.name}, nodes {short} are not"
            )


class NothingIsGrantedWhileStopped:
    """Between a stop and the end of recovery no lock of a node is granted anything.

    A conversion between PR and CW whose master is gone keeps converting, from a mode that is
    guessed (up to 6.12): that is no grant.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], dict[int, int]] = {}

    def __call__(self, cluster: Cluster) -> None:
        """Compare what is held now with what was held when the stop came."""
        now_stopped = set()
        for core in _lockspaces(cluster):
            key = (core.node, core.name)
            if not core.stopped:
                continue
            now_stopped.add(key)
            held = [lock for lock in _own_locks(core) if lock.status in (GRANTED, CONVERTING)]
            before = self._seen.setdefault(key, {lock.lock_id: lock.granted_mode for lock in held})
            for lock in held:
                assert lock.status != GRANTED or before.get(lock.lock_id) == lock.granted_mode, (
                    f"{core.name} node {core.node}: lock {lock.lock_id} was granted "
                    f"mode {lock.granted_mode} while stopped"
                )
        for key in [key for key in self._seen if key not in now_stopped]:
            del self._seen[key]


# ---- when nothing is under way ------------------------------------------------------------------


def _is_quiet(cluster: Cluster, group: Group) -> bool:
    return (
        {core.node for core in group} == set(group[0].members)
        and not any(core.waiters() for core in group)
        and cluster.network.quiet
        and not cluster.network.mismatched
    )


def copies_agree(cluster: Cluster) -> None:
    """When all is quiet, each process copy has its master copy, with the same modes and queue."""
    for group in _groups(cluster):
        if not _is_quiet(cluster, group):
            continue
        nodes = {core.node: core for core in group}
        for core in group:
            for lock in _own_locks(core):
                if not lock.is_process_copy or _have_diverged(cluster, lock.resource):
                    continue
                copy = nodes[lock.nodeid].lock(lock.remote_id)
                where = f"{core.name} node {core.node} lock {lock.lock_id}"
                assert copy is not None, f"{where}: no master copy on node {lock.nodeid}"
                assert copy.is_master_copy, f"{where}: its master copy is a lock of its own"
                assert (copy.granted_mode, copy.requested_mode, copy.status) == (
                    lock.granted_mode,
                    lock.requested_mode if lock.status != GRANTED else copy.requested_mode,
                    lock.status,
                ), f"{where}: the master copy differs"


def one_master(cluster: Cluster) -> None:
    """When all is quiet, each name has one master, and all who hold locks on it know which."""
    for group in _groups(cluster):
        if not _is_quiet(cluster, group):
            continue
        masters: dict[bytes, set[int]] = defaultdict(set)
        for core in group:
            for resource in core.resources():
                if resource.master and any(True for _ in _locks(resource)):
                    masters[resource.key].add(resource.master)
        for name, found in masters.items():
            assert len(found) == 1, f"{group[0].name}: {name!r} has the masters {sorted(found)}"


STEADY: tuple[Callable[[Cluster], None], ...] = (
    granted_modes_are_compatible,
    master_holds_compatible_modes,
    queues_are_first_come_first_served,
    nobody_passes_a_barrier_alone,
)
"""What holds after every step."""

QUIET: tuple[Callable[[Cluster], None], ...] = (copies_agree, one_master)
"""What holds whenever nothing is under way."""
