"""What goes into a lockspace's machine and what comes out of it, as values.

Decides: the words between ``dlm.core`` and whoever gives it a world (``dlm.emulator``).
May not know: how the machine works; sockets, files, clocks.

A ``Lockspace`` (dlm.core.lockspace) is one lockspace on one node:
``step(input, now) -> (Reply | None, list[Output])``, ``now`` in nanoseconds of the node's own
clock; and ``take(file, room, now) -> (Result | None, list[Output])``, which no event stands for.
Every user input carries a ``CallId`` of the caller's choosing and is answered by exactly one
``Reply``: at once, beside the outputs, or, where the kernel sleeps (lockspace stopped), by one
among the outputs of a later step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

from dlm.core.messages import Message
from dlm.terms import NodeId

CallId = NewType("CallId", int)
"""A system call that waits for its answer; chosen by the world."""

FileId = NewType("FileId", int)
"""An open file on the lockspace's device, shared by dup and fork; chosen by the world."""

NO_VALUE = bytes(32)


class UserArgs(NamedTuple):
    """The user-space addresses that travel from a request to its results (opaque numbers).

    They have the order of struct dlm_lock_params.
    """

    castparam: int = 0
    castaddr: int = 0
    bastparam: int = 0
    bastaddr: int = 0
    lksb: int = 0


# ---- inputs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenFile:
    """open(2) of the lockspace device; not answered."""

    file: FileId


@dataclass(frozen=True, slots=True)
class CloseFile:
    """The last close(2) of a file; waits while the lockspace is stopped."""

    call: CallId
    file: FileId


class Request(NamedTuple):
    """A LOCK without CONVERT and without ORPHAN; answered with the new lock id.

    ``mode`` and ``flags`` are as the user wrote them (unknown bits too): checking them is a rule.
    """

    call: CallId
    file: FileId
    pid: int
    name: bytes
    mode: int
    flags: int
    args: UserArgs
    xid: int = 0
    value: bytes = NO_VALUE


class Convert(NamedTuple):
    """A LOCK with CONVERT; answered with 0."""

    call: CallId
    file: FileId
    pid: int
    lock_id: int
    mode: int
    flags: int
    args: UserArgs
    xid: int = 0
    value: bytes = NO_VALUE


class Adopt(NamedTuple):
    """A LOCK with ORPHAN and without CONVERT; answered with the lock id; never waits."""

    call: CallId
    file: FileId
    pid: int
    name: bytes
    mode: int
    flags: int
    args: UserArgs
    xid: int = 0
    value: bytes = NO_VALUE


class Unlock(NamedTuple):
    """An UNLOCK, a cancel when ``flags`` has CANCEL; answered with 0."""

    call: CallId
    file: FileId
    lock_id: int
    flags: int
    args: UserArgs
    value: bytes = NO_VALUE


@dataclass(frozen=True, slots=True)
class Deadlock:
    """The DEADLOCK command: a cancel that completes with EDEADLK; answered with 0."""

    call: CallId
    lock_id: int
    flags: int


@dataclass(frozen=True, slots=True)
class Purge:
    """The PURGE command; ``caller`` is the calling thread's id; answered with 0.

    A purge of another node never waits; that the node can be reached is checked by the world.
    """

    call: CallId
    file: FileId
    caller: int
    nodeid: int
    pid: int


@dataclass(frozen=True, slots=True)
class Stop:
    """control=0: suspend locking; answered with 0 when no operation is inside."""

    call: CallId


@dataclass(frozen=True, slots=True)
class StartMember:
    """A member as configured when control=1 was written.

    ``comm`` identifies the comm under which the node was added (its sequence number; 0: none);
    ``new`` says that its directory was made since the last start.
    """

    nodeid: NodeId
    weight: int
    comm: int = 0
    new: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """control=1 with these members: recover; not answered (the kernel returns at once).

    The world has checked that there are members and that the lockspace is stopped. With
    ``finish_later`` (April 2005) the recovery has no last barrier, and locking stays off at its
    end until ``Finish``.
    """

    members: tuple[StartMember, ...]
    finish_later: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """April 2005: switch locking on after a recovery that has ended; else without effect."""


@dataclass(frozen=True, slots=True)
class SetNoDirectory:
    """nodir=1: a resource's master is a fixed hash of its name.

    New resources heed it at once, those that exist from the next recovery on.
    """


@dataclass(frozen=True, slots=True)
class EndRecoveries:
    """The lockspace leaves: no recovery begins any more, and who waits for one goes on."""


@dataclass(frozen=True, slots=True)
class Tune:
    """The node's settings that a lockspace heeds while it lives, in seconds."""

    toss_secs: int
    scan_secs: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message from another member has arrived (in order, once, per pair of nodes)."""

    source: NodeId
    message: Message


class Timer(Enum):
    """The timers of a lockspace; each is set at most once at a time."""

    BARRIER_POLL = "barrier poll"
    QUERY_RETRY = "query retry"
    TOSS_SCAN = "toss scan"


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer set earlier has run out."""

    timer: Timer


Input = (
    OpenFile
    | CloseFile
    | Request
    | Convert
    | Adopt
    | Unlock
    | Deadlock
    | Purge
    | Stop
    | Start
    | Finish
    | SetNoDirectory
    | EndRecoveries
    | Tune
    | Deliver
    | TimerFired
)

# ---- outputs ------------------------------------------------------------------------------------


class Result(NamedTuple):
    """One completion AST or blocking AST, as the lock device reports it.

    ``bast_mode`` is 0 for a completion. ``status`` is 0 or a negative errno or DLM status.
    ``value`` is the value block, where one is due.
    """

    args: UserArgs
    lock_id: int
    status: int
    flags: int
    bast_mode: int
    value: bytes | None


class Reply(NamedTuple):
    """The answer to the call: ``error`` is 0 or a positive errno, ``value`` counts when it is 0."""

    call: CallId
    value: int = 0
    error: int = 0


class ResultQueued(NamedTuple):
    """A file has a result that it did not have before (its poll mask may have changed)."""

    file: FileId


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a member; nothing is known of its fate."""

    target: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call back with ``TimerFired`` after so many seconds; a lockspace's timers are idle ones."""

    timer: Timer
    after: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer if it is set."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A recovery has begun that counts another node among the members, or no more."""

    nodeid: int
    added: bool


@dataclass(frozen=True, slots=True)
class MembersKnown:
    """A recovery knows its members, and each has answered once."""


@dataclass(frozen=True, slots=True)
class RecoveryEnded:
    """A recovery has ended: 0 locking is on, or ``Finish`` comes next; EINTR a stop; else why."""

    error: int


@dataclass(frozen=True, slots=True)
class Log:
    """A line of the kernel's log, without its prefix ``dlm: <ls>: ``."""

    text: str


Output = (
    Reply
    | ResultQueued
    | Send
    | SetTimer
    | CancelTimer
    | MemberChanged
    | MembersKnown
    | RecoveryEnded
    | Log
)
