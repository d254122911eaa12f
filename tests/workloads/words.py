"""Random words: names, modes, flags, sizes and texts that a workload is made of.

Decides: what is drawn and how often. A ``Theme`` is one seed's taste, so that some seeds dwell on
few names and strong modes, others on flags, others on results that nobody reads.
May not know: what an operation does, or which of these words a kernel takes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dlm.abi.device import (
    Command,
    Layout,
    LockRequest,
    LockspaceRequest,
    PurgeRequest,
    encode_request,
)
from dlm.terms import VALUE_BLOCK_SIZE, LockFlag

Line = dict[str, Any]  # Any: the values of JSON
"""One line of a trace: an operation, or an operation with its result."""

NAMES = (
    *(b"a", b"b", b"res-c", b"d\0x", b"", b"e" * 64, b"f f", b"d", b"\xc3\xa9"),
    *(b"a\0", b"\0", b"\0\0", b'"%s'),
)
"""Resource names: plain, with a zero in it or at its end, empty, as long as can be, odd letters."""

MODE_TASTES = (
    (0, 1, 2, 3, 4, 5),
    (0, 1, 2, 3, 4, 5),
    (3, 4, 5, 5),
    (0, 0, 3, 5),
    (1, 2, 3),
    (0, 2, 3, 3, 2, 5),
    (1, 2, 4),
    (0, 1, 4, 4, 5),
)

REQUEST_FLAGS = (
    LockFlag.NOQUEUE,
    LockFlag.VALBLK,
    LockFlag.VALBLK,
    LockFlag.IVVALBLK,
    LockFlag.NODLCKWT,
    LockFlag.NODLCKBLK,
    LockFlag.EXPEDITE,
    LockFlag.NOQUEUEBAST,
    LockFlag.HEADQUE,
    LockFlag.NOORDER,
    LockFlag.ALTPR,
    LockFlag.ALTCW,
    LockFlag.FORCEUNLOCK,
    LockFlag.TIMEOUT,
    LockFlag.PERSISTENT,
    0x100000,
)
"""What a new request may carry; 0x100000 means nothing to any kernel."""

CONVERT_FLAGS = (*REQUEST_FLAGS, LockFlag.QUECVT, LockFlag.QUECVT, LockFlag.CONVDEADLK)
BAD_FLAGS = (LockFlag.CANCEL, LockFlag.QUECVT, LockFlag.CONVDEADLK, LockFlag.EXPEDITE)

UNLOCK_FLAGS = (
    *(0, 0, 0, 0, LockFlag.VALBLK, LockFlag.VALBLK, LockFlag.IVVALBLK, LockFlag.FORCEUNLOCK),
    LockFlag.FORCEUNLOCK | LockFlag.VALBLK,
    LockFlag.VALBLK | LockFlag.IVVALBLK,
    LockFlag.NOQUEUE,
    LockFlag.PERSISTENT,
    LockFlag.CONVERT,
)
CANCEL_FLAGS = (*(0,) * 6, LockFlag.FORCEUNLOCK, LockFlag.VALBLK, LockFlag.NOQUEUE)

LOST_IDS = (0, 9999, 0x7FFFFFF0, 0x80000000, 0xFFFFFFFF)
"""Lock ids that no lock has."""

READ_SIZES = (
    *(104,) * 14,
    *(72, 200, 4096, 12, 12, 84, 52, 0, 1, 11, 13, 51, 53, 64, 71, 73, 83, 85, 103, 105),
)

BAD_NUMBERS = (
    *("", "\n", " 1", "1 ", "1\n\n", "-", "-1", "+", "x", "0x", "08", "1x", "one", "1.0"),
    *("4294967296", "99999999999999999999", "--1", "-2147483649", "0xfffffffff", "\t1"),
)
"""Texts that no number attribute that refuses negative ones takes."""

_NAMELEN = 17  # where a LOCK's length of the name is, in both layouts

VERSIONS = ((5, 0, 2), (7, 0, 0), (6, 1, 0), (0, 0, 0), (6, 0xFFFFFFFF, 2))
"""Versions of a request that are refused."""


@dataclass(frozen=True, slots=True)
class Theme:
    """What one seed likes."""

    names: tuple[bytes, ...]
    modes: tuple[int, ...]
    flag_counts: tuple[int, ...]
    compat: float
    """How often a request comes in the 32-bit layout."""
    persistent: float
    drains: bool
    """Results are read as soon as they may be there; else now and then."""
    no_bast: float
    """How often a lock asks for no blocking ASTs."""
    claims_values: bool
    """Locks without a value block are adopted and cancelled with VALBLK; no recovery gives a
    resource a new master then."""


def draw_theme(rng: random.Random) -> Theme:
    """Draw a taste."""
    return Theme(
        names=tuple(rng.sample(NAMES, rng.choice((1, 2, 2, 3, 5, 9)))),
        modes=rng.choice(MODE_TASTES),
        flag_counts=rng.choice(((0,), (0, 0, 1), (0, 1, 1, 2), (0, 1, 2, 3), (2, 4, 6))),
        compat=rng.choice((0.0, 0.0, 0.0, 0.02, 0.3)),
        persistent=rng.choice((0.0, 0.05, 0.4)),
        drains=rng.random() < 0.5,
        no_bast=rng.choice((0.0, 0.1, 0.5)),
        claims_values=rng.random() < 0.5,
    )


class Requests:
    """The bytes of random requests, numbered by their place in the workload."""

    def __init__(self, rng: random.Random, theme: Theme) -> None:
        self._rng = rng
        self.theme = theme
        self.never = 0
        """Flags that no lock gets."""
        # Hazard: a lock with VALBLK and without a value block ends a recovery that makes its
        # resource anew: the death of a master, or any start in nodir mode.
        self._allowed = ~(0 if theme.claims_values else int(LockFlag.VALBLK))

    def new(self, number: int, **fixed: Any) -> bytes:  # Any: fields of a LockRequest
        """Draw a request for a lock; most are sound."""
        rng = self._rng
        name = rng.choice(self.theme.names)
        request = LockRequest(mode=self._mode(), flags=self._flags(REQUEST_FLAGS), name=name)
        if not fixed and rng.random() < 0.02:  # only the length is looked at: no name is read
            whole = bytearray(self._finish(request._replace(name=b"n" * 64), number, fixed))
            whole[_NAMELEN] = rng.choice((65, 128, 255))
            return bytes(whole)
        return self._finish(request, number, fixed)

    def adopt(self, number: int, **fixed: Any) -> bytes:  # Any: fields of a LockRequest
        """Draw a request for an orphan."""
        flags = self._flags((LockFlag.PERSISTENT, LockFlag.VALBLK)) | LockFlag.ORPHAN
        flags &= self._allowed
        mode = self._mode() if self._rng.random() < 0.95 else 200
        name = self._rng.choice(self.theme.names)
        return self._finish(LockRequest(mode=mode, flags=flags, name=name), number, fixed)

    def convert(self, number: int, lock_id: int, **fixed: Any) -> bytes:  # Any: as above
        """Draw a conversion."""
        flags = self._flags(CONVERT_FLAGS) | LockFlag.CONVERT
        if self._rng.random() < 0.02:
            flags |= LockFlag.ORPHAN
        if self._rng.random() < 0.05:
            flags |= LockFlag.QUECVT
        request = LockRequest(mode=self._mode(), flags=flags, lock_id=lock_id)
        return self._finish(request, number, fixed)

    def unlock(self, number: int, lock_id: int) -> bytes:
        """Draw an unlock."""
        flags = self._rng.choice(UNLOCK_FLAGS)
        if self._rng.random() < 0.05:
            flags = self._rng.choice((*CONVERT_FLAGS, LockFlag.ORPHAN))
        return self._end(number, LockRequest(Command.UNLOCK, flags=flags, lock_id=lock_id))

    def cancel(self, number: int, lock_id: int) -> bytes:
        """Draw a cancel."""
        flags = (self._rng.choice(CANCEL_FLAGS) | LockFlag.CANCEL) & self._allowed
        return self._end(number, LockRequest(Command.UNLOCK, flags=flags, lock_id=lock_id))

    def deadlock(self, number: int, lock_id: int) -> bytes:
        """Draw a cancel of a deadlock's victim."""
        flags = self._rng.choice((0, 0, 0, LockFlag.CANCEL, LockFlag.FORCEUNLOCK, 0x20002, 1))
        return self._end(number, LockRequest(Command.DEADLOCK, flags=flags, lock_id=lock_id))

    def purge(self, nodeid: int, pid: int = 0) -> bytes:
        """Return a purge."""
        return encode_request(PurgeRequest(nodeid, pid), layout=self._layout())

    def bad(self, number: int, *, control: bool) -> bytes:
        """Draw a request that no kernel takes, whatever the state of its locks."""
        rng = self._rng
        draw = rng.random()
        lock = LockRequest(mode=0, castaddr=0x1000, lksb=0x3000, name=b"never")
        if draw < 0.25:
            return encode_request(lock)[: rng.choice((0, 1, 12, 13, 16, 99, 100, 103))]
        if draw < 0.35:
            return encode_request(lock).ljust(rng.choice((185, 186, 300, 5000)), b"\0")
        if draw < 0.55:
            return encode_request(lock, version=rng.choice(VERSIONS), layout=self._layout())
        if draw < 0.75:
            command = rng.choice((0, 3, 8, 200, 255))
            return encode_request(lock._replace(command=command), layout=self._layout())
        if control:
            command = rng.choice((Command.LOCK, Command.UNLOCK, Command.DEADLOCK))
            return encode_request(lock._replace(command=command), layout=self._layout())
        if draw < 0.85:
            missing = rng.choice(({"castaddr": 0}, {"lksb": 0}, {"castaddr": 0, "lksb": 0}))
            return self._finish(LockRequest(name=b"never"), number, missing)
        command = rng.choice((Command.CREATE_LOCKSPACE, Command.REMOVE_LOCKSPACE))
        return encode_request(LockspaceRequest(command, name=b"never"), layout=self._layout())

    def create(self, name: bytes, flags: int) -> bytes:
        """Return a create, in either layout."""
        request = LockspaceRequest(Command.CREATE_LOCKSPACE, flags=flags, name=name)
        native = len(name) > 60 or self._rng.random() < 0.8  # 32-bit: too long to be sent
        return encode_request(request, layout=Layout.NATIVE if native else Layout.COMPAT32)

    # ---- private --------------------------------------------------------------------------------

    def _mode(self) -> int:
        if self._rng.random() < 0.01:
            return self._rng.choice((6, 7, 128, 255))
        return self._rng.choice(self.theme.modes)

    def _flags(self, pool: tuple[int, ...]) -> int:
        rng, flags = self._rng, 0
        for _ in range(rng.choice(self.theme.flag_counts)):
            flags |= rng.choice(pool)
        if rng.random() < self.theme.persistent:
            flags |= LockFlag.PERSISTENT
        if rng.random() < 0.01:
            flags |= rng.choice(BAD_FLAGS)
        return int(flags) & ~self.never

    def _layout(self) -> Layout:
        return Layout.COMPAT32 if self._rng.random() < self.theme.compat else Layout.NATIVE

    def _finish(self, request: LockRequest, number: int, fixed: Line) -> bytes:
        rng = self._rng
        fields: Line = {
            "xid": number,
            "castparam": number,
            "castaddr": 0x1000,
            "bastparam": number + 0x10000,
            "bastaddr": 0 if rng.random() < self.theme.no_bast else 0x2000,
            "lksb": 0x3000 + number,
            "value": bytes([number % 256]) * VALUE_BLOCK_SIZE,
        }
        layout = self._layout()
        return encode_request(request._replace(**(fields | fixed)), layout=layout)

    def _end(self, number: int, request: LockRequest) -> bytes:
        fixed: Line = {"castaddr": 0, "bastaddr": 0}
        if self._rng.random() < 0.3:
            fixed |= {"castparam": 0, "lksb": 0}
        return self._finish(request, number, fixed)
