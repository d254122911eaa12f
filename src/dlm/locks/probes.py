"""How to learn that a node has answered: what must be known before anything is cancelled.

Decides: what is asked for that.
May not know: when, and what is done then (dlm.locks.engine).
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
