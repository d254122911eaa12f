"""The file ``debug/dlm/<ls>``: the queues of every resource, for people to read.

Decides: its format.
May not know: what a queue means.
Mirrors: print_format1() of fs/dlm/debug_fs.c (Linux 6.1; 6.12 is equal).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dlm.abi.debugfs import LockEntry, ResourceEntry
from dlm.terms import LockMode, LockStatus, ResourceFlag

_MODES = {-1: b"--", **{int(mode): mode.name.encode("ascii") for mode in LockMode}}
_NUMBERS = {text: mode for mode, text in _MODES.items()}
_UNKNOWN = b"??"


@dataclass(frozen=True, slots=True)
class QueuedLock:
    """A lock on a queue.

    ``requested_mode`` is None on the grant queue. ``nodeid`` and ``remote_id`` name the lock on the
    other node: the holder's, or the master's (``nodeid`` None: the resource's master); both are
    None for a lock of this node on a resource that it masters. Modes are -1 for none and None where
    the kernel printed ``??``.
    """

    lock_id: int
    granted_mode: int | None
    requested_mode: int | None = None
    nodeid: int | None = None
    remote_id: int | None = None
    wait_type: int = 0


@dataclass(frozen=True, slots=True)
class ResourceQueues:
    """A resource: name as shown (unprintable bytes are dots), master, value block, queues.

    ``nodeid`` is the master: 0 this node, -1 unknown (``first_lock_id`` looks it up).
    """

    name: bytes
    nodeid: int
    first_lock_id: int
    value: bytes | None
    value_invalid: bool
    granted: tuple[QueuedLock, ...]
    converting: tuple[QueuedLock, ...]
    waiting: tuple[QueuedLock, ...]
    looking_up: tuple[QueuedLock, ...]


# ---- format -------------------------------------------------------------------------------------

_QUEUES = (
    (b"Granted Queue", LockStatus.GRANTED),
    (b"Conversion Queue", LockStatus.CONVERT),
    (b"Waiting Queue", LockStatus.WAITING),
)
_LOOKUP_QUEUE = b"Lookup Queue"


def format_queues(resources: Iterable[ResourceEntry]) -> bytes:
    """Return ``<ls>``: a paragraph per resource."""
    return b"".join(_format_resource(resource) for resource in resources)


def _format_resource(resource: ResourceEntry) -> bytes:
    lines = [
        b"",
        b'Resource %s Name (len=%d) "%s"'
        % (resource.pointer.encode("ascii"), len(resource.name), _printable(resource.name)),
        _format_master(resource),
    ]
    if resource.value is not None:
        half = len(resource.value) // 2
        first, second = (
            b"".join(b"%02x " % byte for byte in part)
            for part in (resource.value[:half], resource.value[half:])
        )
        invalid = b" (INVALID)" if resource.flags & ResourceFlag.VALNOTVALID else b""
        lines += [b"LVB: " + first, b"     " + second + invalid]
    if resource.on_root_list or resource.on_recover_list:
        lines.append(
            b"Recovery: root %d recover %d flags %x count %d"
            % (
                resource.on_root_list,
                resource.on_recover_list,
                resource.flags,
                resource.recover_locks,
            )
        )
    for title, status in _QUEUES:
        lines.append(title)
        lines += [
            _format_lock(lock, resource)
            for lock in resource.locks
            if lock.status == status and not lock.looking_up
        ]
    looking_up = [lock for lock in resource.locks if lock.looking_up]
    if looking_up:
        lines.append(_LOOKUP_QUEUE)
        lines += [
            b"%08x %s%s" % (lock.lock_id, _mode(lock.requested_mode), _wait_type(lock))
            for lock in looking_up
        ]
    return b"\n".join(lines) + b"\n"


def _printable(name: bytes) -> bytes:
    # The kernel's isprint() takes Latin-1 (lib/ctype.c).
    return bytes(byte if 0x20 <= byte < 0x7F or byte >= 0xA0 else 0x2E for byte in name)


def _format_master(resource: ResourceEntry) -> bytes:
    if resource.nodeid > 0:
        return b"Local Copy, Master is node %d" % resource.nodeid
    if resource.nodeid == 0:
        return b"Master Copy"
    if resource.nodeid == -1:
        return b"Looking up master (lkid %x)" % resource.first_lock_id
    return b"Invalid master %d" % resource.nodeid


def _format_lock(lock: LockEntry, resource: ResourceEntry) -> bytes:
    line = b"%08x %s" % (lock.lock_id, _mode(lock.granted_mode))
    if lock.status in {LockStatus.CONVERT, LockStatus.WAITING}:
        line += b" (%s)" % _mode(lock.requested_mode)
    if lock.nodeid:
        if lock.nodeid != resource.nodeid:
            line += b" Remote: %3d %08x" % (lock.nodeid, lock.remote_id)
        else:
            line += b" Master:     %08x" % lock.remote_id
    return line + _wait_type(lock)


def _wait_type(lock: LockEntry) -> bytes:
    return b" wait_type: %d" % lock.wait_type if lock.wait_type else b""


def _mode(mode: int) -> bytes:
    return _MODES.get(mode, _UNKNOWN)


# ---- parse --------------------------------------------------------------------------------------

# The name may hold quotes and newlines; up to 5.10 two blanks follow it.
_RESOURCE = re.compile(
    rb'\nResource (?P<pointer>\S+) Name \(len=(?P<length>\d+)\) "(?P<name>.*?)" *\n'
    rb"(?:Local Copy, Master is node (?P<node>\d+)|(?P<here>Master Copy)"
    rb"|Looking up master \(lkid (?P<lkid>[0-9a-f]+)\)|Invalid master (?P<invalid>-?\d+))\n",
    re.DOTALL,
)
_LOCK = re.compile(
    rb"(?P<id>[0-9a-f]{8,}) (?P<granted>\S\S)(?: \((?P<requested>\S\S)\))?"
    rb"(?: Remote: +(?P<node>-?\d+) (?P<remote>[0-9a-f]+)| Master: +(?P<master>[0-9a-f]+))?"
    rb"(?: wait_type: (?P<wait>\d+))?"
)


def parse_queues(text: bytes | str) -> list[ResourceQueues]:
    """Read ``<ls>``: every resource with its queues, in the file's order."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    heads = list(_RESOURCE.finditer(data))
    ends = [*(head.start() for head in heads[1:]), len(data)]
    return [  # not strict: without a resource there is one end too many
        _parse_resource(head, data[head.end() : end])
        for head, end in zip(heads, ends, strict=False)
    ]


def _parse_resource(head: re.Match[bytes], body: bytes) -> ResourceQueues:
    queues: dict[bytes, list[QueuedLock]] = {title: [] for title, _ in _QUEUES}
    queues[_LOOKUP_QUEUE] = []
    current: list[QueuedLock] = []
    digits = b""
    invalid = False
    for line in body.split(b"\n"):
        if line in queues:
            current = queues[line]
        elif line.startswith((b"LVB: ", b"     ")):
            line_digits, mark, _ = line[5:].partition(b"(INVALID)")
            digits += line_digits
            invalid = bool(mark)
        elif match := _LOCK.fullmatch(line):
            current.append(_parse_lock(match, looking_up=current is queues[_LOOKUP_QUEUE]))
    return ResourceQueues(
        head["name"],
        _parse_master(head),
        int(head["lkid"] or b"0", 16),
        bytes.fromhex(digits.decode("ascii")) if digits else None,
        invalid,
        *(tuple(locks) for locks in queues.values()),
    )


def _parse_master(head: re.Match[bytes]) -> int:
    if head["here"]:
        return 0
    if head["lkid"]:
        return -1
    return int(head["node"] or head["invalid"])


def _parse_lock(match: re.Match[bytes], *, looking_up: bool) -> QueuedLock:
    first = _NUMBERS.get(match["granted"])
    second = _NUMBERS.get(match["requested"]) if match["requested"] else None
    remote = match["remote"] or match["master"]
    return QueuedLock(
        int(match["id"], 16),
        -1 if looking_up else first,
        first if looking_up else second,
        int(match["node"]) if match["node"] else None,
        int(remote, 16) if remote else None,
        int(match["wait"] or b"0"),
    )
