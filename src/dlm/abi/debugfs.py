"""The tables of resources and locks under ``debug/dlm``, to values and back.

Decides: the formats of ``<ls>_all``, ``<ls>_locks``, ``<ls>_toss`` and ``<ls>_waiters`` (that of
``<ls>`` itself is in ``dlm.abi.queues``).
May not know: what a flag or status means for locking, in which order things are listed.
Mirrors: fs/dlm/debug_fs.c (Linux 6.1 and 6.12: ``_all`` and ``_toss`` differ in their first line).

Parsers take any kernel's text and pass over lines that they do not know; formatters write the
bytes of the kernel whose profile they are given. Resource names are bytes. ``ResourceEntry`` with
its locks holds all that ``_all``, ``_locks`` and ``<ls>`` show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dlm.terms import KernelProfile

POINTER = "(____ptrval____)"
"""How a kernel prints a pointer that it does not tell."""

FILES = {"": 0o444, "_locks": 0o644, "_all": 0o444, "_toss": 0o444, "_waiters": 0o644}
"""The files of a lockspace: what follows its name, and the permission bits (5.10: no write)."""


# ---- values -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LockEntry:
    """A lock in ``<ls>_all``, in the line's order.

    ``nodeid`` is 0 for a lock of this node on a resource that it masters, else the master (process
    copy) or the holder (master copy, flag ``MASTER_COPY``), and ``remote_id`` the lock's id there.
    Modes are -1 where there is none. Times are nanoseconds since boot.
    """

    lock_id: int
    nodeid: int
    remote_id: int
    pid: int
    xid: int
    exflags: int
    flags: int
    status: int
    granted_mode: int
    requested_mode: int
    bast_mode: int = 0
    looking_up: int = 0
    wait_type: int = 0
    value_sequence: int = 0
    queued_ns: int = 0
    bast_ns: int = 0


@dataclass(frozen=True, slots=True)
class ResourceEntry:
    """A resource in ``<ls>_all`` with its locks: granted, converting, waiting, looking up.

    ``nodeid`` is the master: 0 this node, -1 unknown. ``value`` is None without a value block.
    """

    name: bytes
    nodeid: int = 0
    first_lock_id: int = 0
    flags: int = 0
    on_root_list: int = 0
    on_recover_list: int = 0
    recover_locks: int = 0
    value_sequence: int = 0
    value: bytes | None = None
    locks: Sequence[LockEntry] = ()
    pointer: str = POINTER


@dataclass(frozen=True, slots=True)
class LockLine:
    """A lock in ``<ls>_locks``; after ``name``, in the line's order.

    ``name`` ends at its first NUL; ``name_length`` is its full length. ``queued_us``: for how long
    the lock is on its queue (the column's title says ms; it holds microseconds).
    """

    name: bytes
    lock_id: int
    nodeid: int
    remote_id: int
    pid: int
    xid: int
    exflags: int
    flags: int
    status: int
    granted_mode: int
    requested_mode: int
    queued_us: int
    resource_nodeid: int
    name_length: int


@dataclass(frozen=True, slots=True)
class TossedEntry:
    """An unused resource in ``<ls>_toss``; ``toss_time`` is in jiffies."""

    name: bytes
    nodeid: int
    master_nodeid: int
    directory_nodeid: int
    our_nodeid: int
    toss_time: int
    flags: int = 0
    pointer: str = POINTER


@dataclass(frozen=True, slots=True)
class WaiterEntry:
    """A lock in ``<ls>_waiters`` that waits for a reply; ``wait_type`` is the message's type."""

    lock_id: int
    wait_type: int
    nodeid: int
    name: bytes


# ---- names --------------------------------------------------------------------------------------


def _format_name(name: bytes) -> bytes:
    # Linux 6.1 fs/dlm/debug_fs.c, print_format3(): "str " or "hex", then the name.
    if all(0x20 <= byte < 0x7F for byte in name):
        return b"str " + name
    return b"hex" + b"".join(b" %02x" % byte for byte in name)


def _parse_name(text: bytes) -> bytes:
    style, _, rest = text.partition(b" ")
    return bytes.fromhex(rest.decode("ascii")) if style == b"hex" else rest


def _shown_flags(lock: LockEntry, profile: KernelProfile) -> int:
    # Since 6.4 the column leaves the low half out; no profile lies between 6.4 and 6.10.
    return lock.flags & ~0xFFFF if profile.padded_names else lock.flags


def _until_nul(name: bytes) -> bytes:
    return name.partition(b"\0")[0]


# ---- <ls>_all -----------------------------------------------------------------------------------

_ALL_OLD = b"version rsb 1.1 lvb 1.1 lkb 1.1\n"
_ALL_NEW = (
    b"rsb ptr nodeid first_lkid flags !root_list_empty !recover_list_empty "
    b"recover_locks_count len\n"
)
# Bases of the numbers of a lkb line; the first ten are those of a line of <ls>_locks.
_LOCK_BASES = (16, 10, 16, 10, 10, 16, 16, 10, 10, 10, 10, 10, 10, 10, 10, 10)
_ALL_LOCK = b"lkb %x %d %x %d %d %x %x %d %d %d %d %d %d %d %d %d\n"


def parse_all(text: bytes | str) -> list[ResourceEntry]:
    """Read ``<ls>_all``: every resource with its locks, in the file's order."""
    entries: list[ResourceEntry] = []
    head: tuple[bytes, ...] = ()
    value: tuple[int, bytes | None] = (0, None)
    locks: list[LockEntry] = []

    def finish() -> None:
        if head:
            entries.append(_resource(head, value, tuple(locks)))

    for line in _lines(text):
        kind, _, rest = line.partition(b" ")
        if kind == b"rsb" and not rest.startswith(b"ptr "):
            finish()
            head, value, locks = tuple(rest.split(b" ", 8)), (0, None), []
        elif kind == b"lvb":
            sequence, _, *digits = rest.split()
            value = (int(sequence), bytes.fromhex(b"".join(digits).decode("ascii")))
        elif kind == b"lkb":
            locks.append(LockEntry(*map(int, rest.split(), _LOCK_BASES)))
    finish()
    return entries


def _resource(
    head: tuple[bytes, ...], value: tuple[int, bytes | None], locks: tuple[LockEntry, ...]
) -> ResourceEntry:
    pointer, nodeid, first, flags, root, recover, count, _, name = head
    return ResourceEntry(
        _parse_name(name),
        int(nodeid),
        int(first, 16),
        int(flags, 16),
        int(root),
        int(recover),
        int(count),
        *value,
        locks,
        pointer.decode("ascii"),
    )


def format_all(
    resources: Iterable[ResourceEntry], profile: KernelProfile, *, bucket: int = 0
) -> bytes:
    """Return ``<ls>_all``; nothing at all when there is no resource.

    ``bucket`` is the one of the first resource: up to 6.9 the header may be missing for it.
    """
    records = []
    for resource in resources:
        lines = [
            b"rsb %s %d %x %x %d %d %d %d %s\n"
            % (
                resource.pointer.encode("ascii"),
                resource.nodeid,
                resource.first_lock_id,
                resource.flags,
                resource.on_root_list,
                resource.on_recover_list,
                resource.recover_locks,
                len(resource.name),
                _format_name(resource.name),
            )
        ]
        if resource.value is not None:
            digits = b"".join(b" %02x" % byte for byte in resource.value)
            lines.append(b"lvb %d %d%s\n" % (resource.value_sequence, len(resource.value), digits))
        lines += [_format_lock(lock, profile) for lock in resource.locks]
        records.append(b"".join(lines))
    header = _ALL_NEW if profile.padded_names else _ALL_OLD
    return _with_header(header, records, bucket, profile)


def _format_lock(lock: LockEntry, profile: KernelProfile) -> bytes:
    return _ALL_LOCK % (
        lock.lock_id,
        lock.nodeid,
        lock.remote_id,
        lock.pid,
        lock.xid,
        lock.exflags,
        _shown_flags(lock, profile),
        lock.status,
        lock.granted_mode,
        lock.requested_mode,
        lock.bast_mode,
        lock.looking_up,
        lock.wait_type,
        lock.value_sequence,
        lock.queued_ns,
        lock.bast_ns,
    )


# ---- <ls>_locks ---------------------------------------------------------------------------------

_LOCKS = b"id nodeid remid pid xid exflags flags sts grmode rqmode time_ms r_nodeid r_len r_name\n"
# A name may hold quotes and newlines: it ends where the next line's numbers begin.
_LOCKS_LINE = re.compile(rb'((?:-?[0-9a-f]+ ){13})"(.*?)"\n(?=(?:-?[0-9a-f]+ ){13}"|\Z)', re.DOTALL)
_LINE_BASES = (*_LOCK_BASES[:10], 10, 10, 10)


def parse_locks(text: bytes | str) -> list[LockLine]:
    """Read ``<ls>_locks``: every lock on a queue, in the file's order."""
    lines = []
    for match in _LOCKS_LINE.finditer(_bytes(text)):
        numbers = list(map(int, match[1].split(), _LINE_BASES))
        # Quirk: the resource's master is printed unsigned, so that unknown (-1) is 4294967295.
        numbers[11] -= (1 << 32) if numbers[11] >= 1 << 31 else 0
        lines.append(LockLine(match[2], *numbers))
    return lines


def format_locks(
    resources: Iterable[ResourceEntry], now_ns: int, profile: KernelProfile, *, bucket: int = 0
) -> bytes:
    """Return ``<ls>_locks``; nothing at all when there is no resource.

    ``now_ns`` is the clock of ``LockEntry.queued_ns``. A lock that looks for its master is on no
    queue and not listed. ``bucket``: see ``format_all``.
    """
    records = []
    for resource in resources:
        lines = [
            b'%x %d %x %d %d %x %x %d %d %d %d %d %d "%s"\n'
            % (
                lock.lock_id,
                lock.nodeid,
                lock.remote_id,
                lock.pid,
                lock.xid,
                lock.exflags,
                _shown_flags(lock, profile),
                lock.status,
                lock.granted_mode,
                lock.requested_mode,
                (now_ns - lock.queued_ns) // 1000,
                resource.nodeid & 0xFFFFFFFF,
                len(resource.name),
                _until_nul(resource.name),
            )
            for lock in resource.locks
            if not lock.looking_up
        ]
        records.append(b"".join(lines))
    return _with_header(_LOCKS, records, bucket, profile)


# ---- <ls>_toss and <ls>_waiters -----------------------------------------------------------------

_TOSS_OLD = b"version 4 rsb 2\n"
_TOSS_NEW = b"rsb ptr nodeid master_nodeid dir_nodeid our_nodeid toss_time flags len str|hex name\n"


def parse_toss(text: bytes | str) -> list[TossedEntry]:
    """Read ``<ls>_toss``: the unused resources, in the file's order."""
    entries = []
    for line in _lines(text):
        if line.startswith(b"rsb ") and not line.startswith(b"rsb ptr "):
            pointer, nodeid, master, directory, ours, time, flags, _, name = line[4:].split(b" ", 8)
            entries.append(
                TossedEntry(
                    _parse_name(name),
                    int(nodeid),
                    int(master),
                    int(directory),
                    int(ours),
                    int(time),
                    int(flags, 16),
                    pointer.decode("ascii"),
                )
            )
    return entries


def format_toss(entries: Iterable[TossedEntry], profile: KernelProfile) -> bytes:
    """Return ``<ls>_toss``; nothing at all when there is no unused resource."""
    lines = [
        b"rsb %s %d %d %d %d %d %x %d %s\n"
        % (
            entry.pointer.encode("ascii"),
            entry.nodeid,
            entry.master_nodeid,
            entry.directory_nodeid,
            entry.our_nodeid,
            entry.toss_time,
            entry.flags,
            len(entry.name),
            _format_name(entry.name),
        )
        for entry in entries
    ]
    return _with_header(_TOSS_NEW if profile.padded_names else _TOSS_OLD, lines, 0, profile)


_PAGE = 4096

WAITERS_MAX = 4096
"""Bytes that ``<ls>_waiters`` shows at most, in whole lines."""


_WAITER = re.compile(
    rb"([0-9a-f]+) ([0-9]+) (-?[0-9]+) (.*?)\n(?=[0-9a-f]+ [0-9]+ -?[0-9]+ |\Z)", re.DOTALL
)


def parse_waiters(text: bytes | str) -> list[WaiterEntry]:
    """Read ``<ls>_waiters``: the locks that wait for a reply, in the file's order."""
    return [
        WaiterEntry(int(match[1], 16), int(match[2]), int(match[3]), match[4])
        for match in _WAITER.finditer(_bytes(text))
    ]


def format_waiters(entries: Iterable[WaiterEntry]) -> bytes:
    """Return ``<ls>_waiters``: as many whole lines as stay below 4096 bytes."""
    text = b""
    for entry in entries:
        name = _until_nul(entry.name)
        line = b"%x %d %d %s\n" % (entry.lock_id, entry.wait_type, entry.nodeid, name)
        if len(text) + len(line) >= WAITERS_MAX:
            break
        text += line
    return text


# ---- common -------------------------------------------------------------------------------------


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _lines(text: bytes | str) -> list[bytes]:
    return [line for line in _bytes(text).split(b"\n") if line]


def _with_header(header: bytes, records: list[bytes], bucket: int, profile: KernelProfile) -> bytes:
    """Put the header before the resources' records, if there are any."""
    if not records:
        return b""
    # Quirk: up to 6.9, where the header and the first record overflow the page that they are made
    # in, the kernel begins again in a larger one at the record's bucket, without a header unless
    # that is the first bucket. Linux 6.1 fs/dlm/debug_fs.c, table_seq_start().
    if profile.merged_results and bucket and len(header) + len(records[0]) >= _PAGE:
        header = b""
    return header + b"".join(records)
