"""The tree ``debug/dlm``: lists of resources and locks, and the state of connections.

Decides: which files there are and when, which value of a resource or lock stands in which column.
May not know: the columns' formats (dlm.abi.debugfs, dlm.abi.queues).
Mirrors: fs/dlm/debug_fs.c and the debugfs part of midcomms.c (Linux 6.1).

Not there: writing to the files that a real kernel lets testers write, ``<ls>_locks`` and
``<ls>_waiters`` (artificial locks and waits) and ``comms/<id>/rawmsg`` (bytes for a connection,
which carries values here): EACCES.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from dlm.abi import debugfs as texts
from dlm.abi.queues import format_queues
from dlm.core.blocks import LockBlock, Resource
from dlm.emulator.network import PEER_VERSION
from dlm.emulator.tree import Directory, File
from dlm.terms import ResourceFlag

if TYPE_CHECKING:
    from dlm.emulator.module import Module
    from dlm.emulator.space import Space

_COMMS = "comms"
_NAME_MAX = 71
"""Bytes of a file's name up to 6.5, which cuts ``_waiters`` of the longest lockspace name."""
_NAME_LINE = re.compile(rb'^Resource .*"$', re.MULTILINE)
_HZ = 250  # of Debian's kernels
_FIRST_JIFFY = 2**32 - 300 * _HZ  # include/linux/jiffies.h, INITIAL_JIFFIES


def root(module: Module) -> Directory:
    """Return the directory of a module that was just loaded."""
    directory = Directory()
    if module.profile.debug_comms:
        directory.entries[_COMMS] = Directory()
    return directory


# ---- lockspaces ---------------------------------------------------------------------------------


def add(directory: Directory, space: Space) -> None:
    """Show the files of a lockspace, as far as their names are free."""
    # Quirk: nobody looks whether a file could be made (Linux 6.1 fs/dlm/debug_fs.c,
    # dlm_create_debug_file()): a name with a slash cannot, nor one that is there already.
    writable = 0o777 if space.module.profile.debugfs_writable else 0o555
    for suffix, mode in texts.FILES.items():
        name = _file_name(space, suffix)
        if "/" not in name and name not in directory.entries:
            shown = File(mode & writable, partial(_SHOW[suffix], space), _refuse)
            directory.entries[name] = space.shown[suffix] = shown


def _file_name(space: Space, suffix: str) -> str:
    # Linux 6.1 fs/dlm/debug_fs.c: char name[DLM_LOCKSPACE_LEN + 8]
    whole = f"{space.name}{suffix}".encode("utf-8", "surrogateescape")
    cut = whole if space.module.profile.debug_comms == "address" else whole[:_NAME_MAX]
    return cut.decode("utf-8", "surrogateescape")


def add_queues(directory: Directory, space: Space) -> None:
    """Show the one file that a lockspace of 2005 has: its queues."""
    if "/" not in space.name:
        shown = File(0o444, partial(_queues_2005, space), _refuse)
        directory.entries[space.name] = space.shown[""] = shown


def remove(directory: Directory, space: Space) -> None:
    """Take the files of a lockspace away; fine when there are none."""
    for suffix, shown in space.shown.items():
        name = _file_name(space, suffix)
        if directory.entries.get(name) is shown:
            del directory.entries[name]


def _refuse(_value: bytes, _capable: bool) -> int:
    # debugfs lets root open any file to write, and a file that takes nothing refuses the write.
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _queues(space: Space) -> bytes:
    return format_queues(_resources(space))


def _queues_2005(space: Space) -> bytes:
    return _NAME_LINE.sub(rb"\g<0>  ", _queues(space))


def _locks(space: Space) -> bytes:
    now = space.module.boot.clock()
    bucket = _first_bucket(space)
    return texts.format_locks(_resources(space), now, space.module.profile, bucket=bucket)


def _all(space: Space) -> bytes:
    bucket = _first_bucket(space)
    return texts.format_all(_resources(space), space.module.profile, bucket=bucket)


def _first_bucket(space: Space) -> int:
    first = next(iter(space.core.resources()), None)
    return 0 if first is None else first.bucket


def _toss(space: Space) -> bytes:
    return texts.format_toss(
        (
            texts.TossedEntry(
                resource.name,
                resource.nodeid,
                resource.master,
                resource.directory_node,
                space.nodeid,
                _toss_time(space, resource),
                _flags(space, resource, inactive=True),
            )
            for resource in space.core.tossed()
        ),
        space.module.profile,
    )


def _toss_time(space: Space, resource: Resource) -> int:
    """Return when it was tossed, since 6.10 when it is to go (0: not while the master has it)."""
    when = resource.tossed_ns or 0
    if not space.module.profile.scans_periodically:
        if space.core.is_kept_for_master(resource):
            return 0
        when = resource.due_ns
    return _FIRST_JIFFY + when * _HZ // 1_000_000_000


def _waiters(space: Space) -> bytes:
    # Linux 6.12 fs/dlm/debug_fs.c, waiters_read(): not while locking is stopped.
    if space.module.profile.padded_names and space.core.stopped:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return texts.format_waiters(
        texts.WaiterEntry(lock.lock_id, int(lock.wait_type), lock.nodeid, lock.resource.name)
        for lock in space.core.waiters()
    )


_SHOW: dict[str, Callable[[Space], bytes]] = {
    "": _queues,
    "_locks": _locks,
    "_all": _all,
    "_toss": _toss,
    "_waiters": _waiters,
}


def _resources(space: Space) -> Iterable[texts.ResourceEntry]:
    for resource in space.core.resources():
        yield texts.ResourceEntry(
            resource.name,
            resource.nodeid,
            resource.first_lock_id,
            _flags(space, resource, inactive=False),
            int(resource.on_root_list),
            int(resource.recover_id != 0),
            resource.recover_locks,
            resource.value_sequence,
            resource.value,
            tuple(
                _lock(lock)
                for queue in (
                    resource.granted,
                    resource.converting,
                    resource.waiting,
                    resource.lookups,
                )
                for lock in queue
            ),
        )


def _flags(space: Space, resource: Resource, *, inactive: bool) -> int:
    # Linux 6.12 fs/dlm/dlm_internal.h: RSB_HASHED and RSB_INACTIVE say what up to 6.9 the table
    # said in which a resource is kept.
    flags = resource.flags
    if space.module.profile.padded_names:
        flags |= int(ResourceFlag.HASHED | (ResourceFlag.INACTIVE if inactive else 0))
    return flags


def _lock(lock: LockBlock) -> texts.LockEntry:
    return texts.LockEntry(
        lock.lock_id,
        lock.nodeid,
        lock.remote_id,
        lock.pid,
        lock.xid,
        lock.exflags,
        lock.flags,
        int(lock.status),
        lock.granted_mode,
        lock.requested_mode,
        lock.blocked_mode,
        int(lock.looking_up),
        int(lock.wait_type),
        lock.value_sequence,
        lock.queued_ns,
        lock.blocked_ns,
    )


# ---- connections --------------------------------------------------------------------------------


def add_comm(module: Module, nodeid: int) -> None:
    """Show what is kept about a node id; fine when it is shown already."""
    comms = module.debugfs.entries.get(_COMMS)
    if isinstance(comms, Directory) and str(nodeid) not in comms.entries:
        shown = comms.entries[str(nodeid)] = Directory()
        for name, show in _COMM_SHOW.items():
            shown.entries[name] = File(0o444, partial(show, module, nodeid), _refuse)
        shown.entries["rawmsg"] = File(0o200, None, None)


def remove_comm(module: Module, nodeid: int) -> None:
    """Forget a node id; fine when it is not shown."""
    comms = module.debugfs.entries.get(_COMMS)
    if isinstance(comms, Directory):
        comms.entries.pop(str(nodeid), None)


def _comm_state(module: Module, nodeid: int) -> bytes:
    # Linux 6.1 fs/dlm/midcomms.c: the other states of the hand-shake last as long as a message.
    endpoint = module.endpoint
    if not endpoint.knows(nodeid):
        return b"ESTABLISHED\n" if endpoint.is_established(nodeid) else b"CLOSED\n"
    if endpoint.is_closing(nodeid):
        return b"CLOSE_WAIT\n"
    return b"FIN_WAIT2\n" if module.parting else b"ESTABLISHED\n"


def _comm_flags(module: Module, nodeid: int) -> bytes:
    # Set only while a connection closes or a batch of messages is not acknowledged yet.
    del module, nodeid
    return b"0\n"


def _comm_queue(module: Module, nodeid: int) -> bytes:
    return b"%d\n" % module.endpoint.queued(nodeid)


def _comm_version(module: Module, nodeid: int) -> bytes:
    return b"0x%08x\n" % (PEER_VERSION if module.endpoint.knows(nodeid) else 0)


_COMM_SHOW: dict[str, Callable[[Module, int], bytes]] = {
    "state": _comm_state,
    "flags": _comm_flags,
    "send_queue_count": _comm_queue,
    "version": _comm_version,
}
