"""What the calls of dlm.locks raise: one small tree, each an ``OSError`` with its errno.

Decides: which errno and which status of a completion is which exception.
May not know: what was tried; the caller says that in words.
"""

from __future__ import annotations

import errno
import os
from enum import Enum

from dlm.errors import RefusedError, TimedOutError, UsageError
from dlm.terms import ECANCEL, EUNLOCK

LOST = 0x20000
"""Status that a completion never has: the file itself is of no use any more."""


class Ending(Enum):
    """What became of a request whose time ran out."""

    CANCELLED = "it was cancelled: nothing of it is left"
    LEFT = "no node can answer now (locking is stopped, or one is dead): it is undone afterwards"


class LockError(RefusedError):
    """An operation on a lock or lockspace failed; base of all that dlm.locks raises.

    ``errno`` says how. ``lockspace`` is the lockspace's name, ``name`` the resource's and
    ``lock_id`` the lock's where there is one.
    """

    def __init__(
        self,
        number: int,
        message: str,
        lockspace: str = "",
        name: bytes | None = None,
        lock_id: int | None = None,
    ) -> None:
        RefusedError.__init__(self, number, message)
        self.lockspace = lockspace
        self.name = name
        self.lock_id = lock_id


class WouldBlockError(LockError, BlockingIOError):
    """It was to be had at once, and somebody else is in the way; EAGAIN."""


class DeadlockError(LockError):
    """The conversion would deadlock, or a request was cancelled to end a deadlock; EDEADLK.

    A conversion leaves the lock in its old mode: unlock it, or convert it down, and try again.
    """


class LockCancelledError(LockError):
    """Somebody else cancelled what was waited for: ``cancel()``, or a close; ECANCELED."""


class LockTimedOutError(LockError, TimedOutError):
    """The time given ran out; ETIMEDOUT. ``ending`` says what became of the request.

    Nothing is held because of it, now or later. A grant that came before the cancel is no timeout:
    the lock is returned.
    """

    def __init__(
        self,
        message: str,
        ending: Ending,
        lockspace: str = "",
        name: bytes | None = None,
        lock_id: int | None = None,
    ) -> None:
        LockError.__init__(self, errno.ETIMEDOUT, message, lockspace, name, lock_id)
        self.ending = ending
        self.waiting = "" if ending is Ending.CANCELLED else "the answer to a request"


class NoLockError(LockError):
    """There is no such lock, or it has ended; ENOENT.

    From ``adopt()`` also EAGAIN: there are orphans of that name, none in that mode.
    """


class NoLockspaceError(LockError):
    """There is no such lockspace on this node; ENOENT or ENODEV."""


class LockBusyError(LockError):
    """Another operation on that lock is under way, or the lockspace has locks; EBUSY."""


class LockUsageError(LockError, UsageError):
    """What was asked for cannot be meant; EINVAL. Nothing was written; a ``ValueError`` too."""


class LockspaceClosedError(LockError):
    """This ``Lockspace`` was closed, or belongs to the parent of this process; EBADF."""


class LockspaceLostError(LockError):
    """The file on the lockspace is of no use any more, as after the end of an emulated node.

    All that waits ends with it. ``errno`` is what the file said.
    """


_CLASSES: dict[int, type[LockError]] = {
    errno.EAGAIN: WouldBlockError,
    errno.EDEADLK: DeadlockError,
    errno.ECANCELED: LockCancelledError,
    errno.ENOENT: NoLockError,
    errno.EBUSY: LockBusyError,
    errno.EBADF: LockspaceClosedError,
}
_ERRNO_OF_STATUS = {ECANCEL: errno.ECANCELED, EUNLOCK: errno.ENOENT}


def failure(
    status: int,
    doing: str,
    lockspace: str = "",
    name: bytes | None = None,
    lock_id: int | None = None,
) -> LockError:
    """Return the exception for an errno or a status of either sign.

    ``doing`` says what was tried: "lock EX on 'a'".
    """
    number = abs(status)
    said = f"{doing} in {lockspace}" if lockspace else doing
    if number & LOST:
        number &= ~LOST
        text = f"{said}: the lockspace is lost, {os.strerror(number)}"
        return LockspaceLostError(number, text, lockspace, name, lock_id)
    number = _ERRNO_OF_STATUS.get(number, number)
    text = f"{said}: {_SENTENCES.get(number) or os.strerror(number)}"
    return _CLASSES.get(number, LockError)(number, text, lockspace, name, lock_id)


_SENTENCES = {
    errno.EAGAIN: "others are in the way",
    errno.EDEADLK: "it would deadlock",
    errno.ECANCELED: "it was cancelled",
    errno.ENOENT: "there is no such lock",
    errno.EBUSY: "an operation on it is under way",
    errno.EBADF: "the lockspace is closed",
}


def usage(message: str, lockspace: str = "", name: bytes | None = None) -> LockUsageError:
    """Return the exception for an argument that cannot be meant."""
    return LockUsageError(errno.EINVAL, message, lockspace, name)
