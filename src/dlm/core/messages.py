"""What travels between the nodes of a lockspace: values that could be encoded.

Decides: the fields of every message (numbers, bytes, tuples of them; never a reference).
May not know: how messages travel, what a receiver does with them.
Mirrors: struct dlm_message and struct dlm_rcom (fs/dlm/dlm_internal.h, Linux 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class MessageType(IntEnum):
    """Kinds of lock message (DLM_MSG_*)."""

    REQUEST = 1
    CONVERT = 2
    UNLOCK = 3
    CANCEL = 4
    REQUEST_REPLY = 5
    CONVERT_REPLY = 6
    UNLOCK_REPLY = 7
    CANCEL_REPLY = 8
    GRANT = 9
    BAST = 10
    LOOKUP = 11
    REMOVE = 12
    LOOKUP_REPLY = 13
    PURGE = 14


@dataclass(frozen=True, slots=True)
class LockMessage:
    """A message about one lock or one resource name (struct dlm_message).

    ``lock_id`` is the sender's id of the lock, ``remote_id`` the receiver's. ``value`` is the value
    block where one travels. ``wants_completion`` and ``wants_blocking`` are the asts field.
    """

    type: MessageType
    nodeid: int = 0
    pid: int = 0
    lock_id: int = 0
    remote_id: int = 0
    exflags: int = 0
    status_flags: int = 0
    lock_flags: int = 0
    value_sequence: int = 0
    hash: int = 0
    status: int = 0
    granted_mode: int = 0
    requested_mode: int = 0
    blocked_mode: int = 0
    wants_completion: bool = False
    wants_blocking: bool = False
    result: int = 0
    name: bytes = b""
    value: bytes | None = None


class RecoveryType(IntEnum):
    """Kinds of recovery message (DLM_RCOM_*)."""

    STATUS = 1
    NAMES = 2
    LOOKUP = 3
    LOCK = 4
    STATUS_REPLY = 5
    NAMES_REPLY = 6
    LOOKUP_REPLY = 7
    LOCK_REPLY = 8


@dataclass(frozen=True, slots=True)
class RebuiltLock:
    """A lock as it is sent to its resource's new master (struct rcom_lock)."""

    pid: int
    lock_id: int
    remote_id: int
    exflags: int
    lock_flags: int
    value_sequence: int
    result: int
    requested_mode: int
    granted_mode: int
    status: int
    wants_completion: bool
    wants_blocking: bool
    wait_type: int
    name: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class RecoveryMessage:
    """A message of recovery (struct dlm_rcom).

    ``id`` pairs a reply with its question; ``sequence`` is the sender's recovery, and a reply's
    ``sequence_reply`` the asker's. ``result`` is the status, master or error asked for.
    """

    type: RecoveryType
    id: int = 0
    sequence: int = 0
    sequence_reply: int = 0
    result: int = 0
    want_slots: bool = False
    exflags: int = 0
    generation: int = 0
    slot: int = 0
    slots: tuple[tuple[int, int], ...] = ()
    name: bytes = b""
    names: tuple[bytes, ...] = ()
    complete: bool = False
    lock: RebuiltLock | None = None


Message = LockMessage | RecoveryMessage
