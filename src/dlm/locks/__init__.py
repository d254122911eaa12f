"""Cluster-wide locks for Python programs: the DLM's six modes, with threads or asyncio.

Decides: what is public. May not know: any backend (``dlm.connect`` gives one).

==============  =================================================================================
``api``         the blocking face: Lockspace, Mutex
``lock``        its locks
``aio``         the asyncio face, of the same shape; imported by those who want it
``operations``  its locks, and what a task awaits
``errors``      what they raise
``flows``       what an operation is made of: waiting, cancelling, pinning, undoing
``engine``      one open file, shared by threads and tasks: who reads it, who is woken
``jobs``        writes that may sleep, made where nobody has to wait for them
``calls``       the thread of programs' callbacks
``state``       one lock as this process knows it
``raw``         the low level: any request, its completion
``space``       open, create, release; orphans
==============  =================================================================================
"""

from __future__ import annotations

from dlm.locks.api import Lockspace, Mutex
from dlm.locks.errors import (
    DeadlockError,
    Ending,
    LockBusyError,
    LockCancelledError,
    LockError,
    LockspaceClosedError,
    LockspaceLostError,
    LockTimedOutError,
    LockUsageError,
    NoLockError,
    NoLockspaceError,
    WouldBlockError,
)
from dlm.locks.lock import Lock
from dlm.locks.raw import Completion
from dlm.locks.space import Orphan
from dlm.terms import LockFlag, LockId, LockMode, StatusFlag

__all__ = [
    "Lockspace",
    "Lock",
    "Mutex",
    "Orphan",
    "Completion",
    "LockMode",
    "LockFlag",
    "LockId",
    "StatusFlag",
    "LockError",
    "WouldBlockError",
    "DeadlockError",
    "LockCancelledError",
    "LockTimedOutError",
    "Ending",
    "NoLockError",
    "NoLockspaceError",
    "LockBusyError",
    "LockUsageError",
    "LockspaceClosedError",
    "LockspaceLostError",
]
