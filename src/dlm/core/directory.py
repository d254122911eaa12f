"""Which node masters a resource: finding it, its directory entry, and how both are forgotten.

Decides: when a resource is made, who becomes its master, what a directory node answers, when
unused resources go.
May not know: locks on it.
Mirrors: find_rsb_dir(), find_rsb_nodir(), dlm_master_lookup(), shrink_bucket(), receive_remove()
of fs/dlm/lock.c and fs/dlm/dir.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from enum import Enum

from dlm.core.blocks import MASTER_UNCERTAIN, NEW_MASTER, Resource
from dlm.core.hazards import MASTER_NEVER_FOUND
from dlm.core.messages import LockMessage, MessageType
from dlm.core.modes import hash_name
from dlm.core.state import SECOND, Refused, State
from dlm.terms import RESOURCE_NAME_MAX


class Why(Enum):
    """Why a resource is looked for."""

    LOCAL = "a lock of this node"
    REQUEST = "another node's request"
    RECOVERY = "another node's lock, rebuilt here"


def find(state: State, name: bytes, why: Why, source: int = 0) -> Resource:
    """Return the resource of a name, in use; make it where that is right.

    Raises ``Refused``: ENOTBLK when another node's request came to the wrong master, EBADR when the
    resource is not here.
    """
    if len(name) > RESOURCE_NAME_MAX:
        raise Refused(errno.EINVAL)
    resources = state.resources
    key = resources.key(name)
    resource = resources.in_use.get(key)
    if resource is not None:
        return resource
    resource = resources.tossed.get(key)
    if resource is not None:
        if resource.master != state.node:
            _check_tossed(state, resource, why, source)
        resources.activate(resource)
        return resource
    return _create(state, name, why, source)


def _check_tossed(state: State, resource: Resource, why: Why, source: int) -> None:
    """A tossed resource may have a stale master, unless we are its directory node."""
    if state.no_directory:
        if why is Why.REQUEST:
            raise Refused(errno.ENOTBLK)
        return
    if why is Why.REQUEST:
        if source != resource.directory_node:
            raise Refused(errno.ENOTBLK)
        _become_master(state, resource)
        resource.flags &= ~MASTER_UNCERTAIN
        resource.first_lock_id = 0
    elif why is Why.LOCAL:
        if resource.master:
            resource.flags |= MASTER_UNCERTAIN
        else:
            # Quirk: where the master was never found out (the lookup was cancelled), every kernel
            # takes -1 for it, which an assertion stops. Look it up instead.
            state.risk(MASTER_NEVER_FOUND, f"resource {resource.name!r}")
        resource.first_lock_id = 0


def _create(state: State, name: bytes, why: Why, source: int) -> Resource:
    directory = state.directory_node(hash_name(name))
    from_directory = why is Why.REQUEST and source == directory
    ours = directory == state.node
    if not state.no_directory and not (
        why is Why.LOCAL or from_directory or (why is Why.REQUEST and ours)
    ):
        # Another node takes us for the master: it has the name from a directory that is behind.
        raise Refused(errno.EBADR)
    resource = state.resources.create(name, in_use=True)
    resource.directory_node = directory
    if state.no_directory:
        resource.master = directory
        resource.nodeid = 0 if ours else directory
    elif ours or from_directory:
        _become_master(state, resource)
    return resource


def _become_master(state: State, resource: Resource) -> None:
    resource.master = state.node
    resource.nodeid = 0


def check_master(state: State, resource: Resource, source: int) -> None:
    """Check that another node's request came to the master (validate_master_nodeid).

    Raises ``Refused`` ENOTBLK; a directory node that sends a request makes us the master.
    """
    if resource.master == state.node:
        return
    if state.no_directory or source != resource.directory_node:
        raise Refused(errno.ENOTBLK)
    _become_master(state, resource)


def look_up(
    state: State, source: int, name: bytes, *, from_master: bool = False, fix: bool = False
) -> int:
    """Answer as the directory node who masters a name: the asker, where nobody does.

    ``from_master``: the asker says that it is the master (the directory is rebuilt). ``fix``: a
    master that is gone is replaced by the asker. Returns -1 when this is not the directory node.
    Linux 6.1 fs/dlm/lock.c, dlm_master_lookup().
    """
    if len(name) > RESOURCE_NAME_MAX or source == state.node:
        raise Refused(errno.EINVAL)
    if state.directory_node(hash_name(name)) != state.node:
        return -1
    resources = state.resources
    key = resources.key(name)
    resource = resources.in_use.get(key) or resources.tossed.get(key)
    if resource is None:
        resource = resources.create(name, in_use=False)
        resource.tossed_ns = state.now
        resource.directory_node = state.node
        resource.master = resource.nodeid = source
        return source
    resource.directory_node = state.node
    if fix and state.is_gone(resource.master):
        resource.master = resource.nodeid = source
        resource.flags |= NEW_MASTER
    if from_master and resource.master not in (source, state.node):
        # It became the master in an earlier recovery that was cut short before we heard of it.
        resource.master = resource.nodeid = source
        resource.flags |= NEW_MASTER
    if not resource.master:
        # Recovery came between our own lookup and its answer.
        resource.master = resource.nodeid = source
    if resource.tossed_ns is not None:
        resource.tossed_ns = state.now
    return resource.master


# ---- forgetting ---------------------------------------------------------------------------------


def scan(state: State) -> None:
    """Free what has been tossed for long enough, and tell directory nodes."""
    state.scan_armed = False
    if state.profile.scans_periodically:
        _scan_all(state)
    else:
        _scan_oldest(state)


def _scan_all(state: State) -> None:
    """Linux 6.1 fs/dlm/lock.c, dlm_scan_rsbs(): all, by the toss_secs of this moment."""
    keep_on = False
    for resource in state.resources.walk_tossed():
        if state.is_kept_for_master(resource):
            continue
        tossed = resource.tossed_ns or 0
        if state.stopped or state.now < tossed + state.toss_secs * SECOND:
            keep_on = True
        else:
            _free(state, resource)
    if keep_on:
        state.arm_scan(float(state.scan_secs))


_WHILE_STOPPED = 1.0


def _scan_oldest(state: State) -> None:
    """Linux 6.12 fs/dlm/lock.c, dlm_rsb_scan(): in order of tossing, as far as they are due."""
    for resource in list(state.resources.tossed.values()):
        if state.is_kept_for_master(resource):
            continue
        if state.stopped:
            state.arm_scan(_WHILE_STOPPED)
            return
        if state.now < resource.due_ns:
            state.arm_scan((resource.due_ns - state.now) / SECOND)
            return
        _free(state, resource)


def _free(state: State, resource: Resource) -> None:
    del state.resources.tossed[resource.key]
    state.world.progress += 1
    if (
        not state.no_directory
        and resource.master == state.node
        and resource.directory_node != state.node
    ):
        state.send(
            resource.directory_node,
            LockMessage(MessageType.REMOVE, hash=resource.hash, name=resource.name),
        )


def forget_entry(state: State, source: int, name: bytes) -> None:
    """Drop a directory entry because its master says so (receive_remove)."""
    key = state.resources.key(name)
    resource = state.resources.tossed.get(key)
    if resource is not None and resource.master == source:
        del state.resources.tossed[key]


def clear_tossed(state: State) -> None:
    """Forget every tossed resource: recovery begins (dlm_clear_toss)."""
    count = len(state.resources.tossed)
    state.resources.tossed.clear()
    if count:
        state.log(f"dlm_clear_toss {count} done")
