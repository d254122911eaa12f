"""How to learn that a node has answered: what must be known before anything is cancelled.

Decides: what is asked for that, for a CANCEL and for the close of a file, which cancels all.
May not know: when, and what is done then (dlm.locks.engine, dlm.locks.space).
Mirrors: set_master(), receive_lookup_reply(), dlm_recover_waiters_post() of fs/dlm/lock.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlm.abi.device import Command, pack_lock
from dlm.locks.state import NO_VALUE, Bit, LockState
from dlm.terms import LockFlag, LockMode

if TYPE_CHECKING:
    from dlm.locks.engine import Engine

NO_ANSWER = 1.0
"""Seconds after which the node is taken for dead that has not answered a probe."""

_LOCK, _NL, _EXPEDITE = int(Command.LOCK), int(LockMode.NL), int(LockFlag.EXPEDITE)


class Probe(LockState):
    """A request by which we learn that what was asked of a resource before has been answered.

    Quirk: a request that is cancelled before its master or directory node has answered, or a
    conversion whose master then dies, is half forgotten (Linux 5.10 to 7.2 fs/dlm/lock.c,
    receive_lookup_reply(), dlm_recover_waiters_pre(), dlm_recover_waiters_post()): when the answer
    or a recovery has come, others who want the resource hang, or the node panics. Nothing tells
    user space whether there was an answer. But a request for NL with EXPEDITE waits for no lock,
    and is not answered before the one that finds the resource's master out: it has the same way to
    go, or stands behind it (set_master(): res_first_lkid). So it is made, and dropped, and only
    then the CANCEL.
    """

    __slots__ = ("since",)

    def __init__(self, engine: Engine, name: bytes) -> None:
        super().__init__(engine, name, int(Bit.WATCHED | Bit.DOOMED))
        self.since = engine.backend.now()
        """When it was begun, on the backend's clock."""

    def request(self) -> bytes:
        """Return what is written for it."""
        return pack_lock(_LOCK, _NL, _EXPEDITE, 0, self._token, NO_VALUE, self._name)


class Last:
    """A probe on a file that is to be closed: ``waiting`` are those that have no answer."""

    __slots__ = ("_id", "_name", "_waiting")

    def __init__(self, waiting: dict[Last, None], name: bytes) -> None:
        self._id = 0
        self._name = name
        self._waiting = waiting
        waiting[self] = None

    def _asks(self) -> bool:
        """Say whether its answer is out."""
        return self in self._waiting

    def _took(
        self, status: int, lock_id: int, flags: int, bast_mode: int, value: bytes | None
    ) -> None:
        """It was answered, however."""
        del status, lock_id, flags, bast_mode, value
        self._waiting.pop(self, None)

    def _lose(self, status: int) -> None:
        """No answer will come any more."""
        del status
        self._waiting.pop(self, None)


def wait_answered(engine: Engine, seconds: float | None) -> bool:
    """Wait until what was asked on an engine's file, which is shut, has been answered.

    False when that takes longer than so many seconds. What is under way when the file is closed is
    given up by the kernel itself, with the same danger as by a CANCEL; see ``Probe``. Sleeps while
    locking is suspended, as the close does.
    """
    waiting: dict[Last, None] = {}
    names, engine.unanswered_names = engine.unanswered_names, []
    for name in names:
        token = engine.next_token()
        engine.table[token] = Last(waiting, name)
        try:
            engine.device.write(pack_lock(_LOCK, _NL, _EXPEDITE, 0, token, NO_VALUE, name))
        except OSError:
            return True  # there is nobody any more whom it could harm
    end = None if seconds is None else engine.backend.now() + seconds
    while engine.collect() >= 0 and waiting:
        left = None if end is None else end - engine.backend.now()
        if left is not None and left <= 0:
            engine.unanswered_names = [each._name for each in waiting]
            return False
        try:
            engine.device.poll(left)
        except OSError:
            return True
    return True
