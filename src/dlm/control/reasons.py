"""Why a verb was refused before it wrote anything.

Decides: the reasons that a check can have, each with its errno.
May not know: the words for a person (dlm.cli.sentences has the advice for each).
"""

from __future__ import annotations

import errno
from enum import Enum

from dlm.errors import RefusedError


class Reason(Enum):
    """What a check found; the first of the pair is the errno that the caller sees."""

    NO_LOCKSPACE = (errno.ENOENT, "no such lockspace")
    NO_LOCAL_NODE = (errno.ENOTCONN, "this node was not set")
    OTHER_LOCAL_NODE = (errno.EEXIST, "this node is another one")
    NODE_NOT_SET = (errno.ENOENT, "a member was not set")
    NODE_IN_USE = (errno.EBUSY, "a lockspace uses the node")
    NOT_A_MEMBER = (errno.EINVAL, "this node is not among the members")
    NOT_STOPPED = (errno.EINVAL, "the lockspace is not stopped")
    NUMBER_NOT_ABOVE = (errno.EINVAL, "the event number is not above the last")
    NUMBER_NOT_LAST = (errno.EINVAL, "the event number is not the last start's")
    NOT_DONE = (errno.EAGAIN, "the start is not done")
    NOTHING_WAITS = (errno.EINVAL, "nobody waits for an answer")
    NOT_SHOWN = (errno.EINVAL, "the kernel does not show whether anybody waits")
    ANSWERED = (errno.EALREADY, "the wait was answered")
    MAYBE_ANSWERED = (errno.EALREADY, "the wait may have been answered")
    LEAVES = (errno.EALREADY, "the lockspace leaves")
    JOINS = (errno.EBUSY, "the lockspace joins")
    RUNS = (errno.EBUSY, "the lockspace is not stopped")
    ID_TAKEN = (errno.EEXIST, "another lockspace has the id")
    NO_LOCK = (errno.ENOENT, "no such lock")
    NOT_SUPPORTED = (errno.EOPNOTSUPP, "this kernel has no such thing")
    TOO_MANY_ADDRESSES = (errno.ENOSPC, "more addresses than the kernel keeps")
    LOCK_OWNED = (errno.EBUSY, "a living process owns the lock")


class CheckError(RefusedError):
    """A check of what the kernel shows refused; ``reason`` says which."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason.value[0], message)
        self.reason = reason
