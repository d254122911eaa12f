"""The low level: any request with any flags, its lock id, its completion.

Decides: which result is which request's; what is never written.
May not know: who writes and who reads (dlm.locks.engine; the plans of dlm_tool).
Mirrors: dlm_ls_lockx() and dlm_ls_unlock() of libdlm with an AST routine.
"""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Protocol

from dlm.abi.device import Command, LockRequest, pack_lock, unpack_result
from dlm.locks.arguments import RISKY, harm, harm_of_unlock
from dlm.locks.errors import failure, usage
from dlm.terms import (
    EUNLOCK,
    RESOURCE_NAME_MAX,
    VALUE_BLOCK_SIZE,
    LockFlag,
    LockId,
    LockMode,
    StatusFlag,
)

if TYPE_CHECKING:
    from dlm.locks.engine import Engine
    from dlm.locks.jobs import Job

_ORPHAN = int(LockFlag.ORPHAN)
_CONVERT, _CANCEL = int(LockFlag.CONVERT), int(LockFlag.CANCEL)
_OVERTAKES = _CANCEL | int(LockFlag.FORCEUNLOCK)
_LOCK, _UNLOCK = int(Command.LOCK), int(Command.UNLOCK)
_UNLOCKED = -EUNLOCK
_NO_FLAGS, _NO_ID = StatusFlag(0), LockId(0)
NOT_PLAIN = _CONVERT | _ORPHAN | RISKY
"""Flags with which a LOCK is not simply a new request."""


class Completion:
    """What becomes of a request that was submitted.

    ``done`` says whether it has completed; then ``status`` is 0, or a negative errno or DLM status
    (``-ECANCEL``, ``-EUNLOCK`` of dlm.terms), ``flags`` the remarks and ``value`` the value block,
    where one came.
    """

    __slots__ = ("_desk", "callback", "done", "flags", "lock_id", "status", "value")

    _job: Job | None = None
    _wake: Callable[[], None] | None = None

    def __init__(
        self, desk: Desk, callback: Callable[[Completion], None] | None, lock_id: LockId = _NO_ID
    ) -> None:
        self._desk = desk
        self.done = False
        self.callback = callback
        self.status = 0
        self.lock_id = lock_id
        self.flags = _NO_FLAGS
        self.value: bytes | None = None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (None: no end) for it; say whether it has completed.

        Reads results as ``dispatch()`` does, but calls no callback.
        """
        self._desk.wait(self, timeout)
        return self.done

    @property
    def _op(self) -> int:
        """As a lock's: 0 when it has ended."""
        return not self.done

    def __repr__(self) -> str:
        said = f"status {self.status}" if self.done else "not yet done"
        return f"<Completion of lock {self.lock_id}: {said}>"


class Desk(Protocol):
    """Where results are handed out: the engine of an open lockspace, or a ``BareDesk``.

    ``led`` or ``followers`` is not empty while somebody sleeps until something has ended.
    """

    name: str

    @property
    def led(self) -> object:
        """What the thread that sleeps on the file waits for."""

    @property
    def followers(self) -> Sized:
        """Who else sleeps."""

    def next_token(self) -> int:
        """Return what results of the next lock will carry."""

    def add(self, token: int, entry: RawLock) -> None:
        """Expect results for a lock."""

    def drop(self, token: int) -> None:
        """Expect none any more."""

    def tell(self, completion: Completion) -> None:
        """A request has completed."""

    def wait(self, completion: Completion, seconds: float | None) -> None:
        """Wait until a request has completed."""


class RawLock:
    """A lock of the low level: its requests complete in the order in which they were made."""

    __slots__ = ("_fresh", "_id", "_more", "_name", "_owner", "_token", "_waiting")

    def __init__(
        self, owner: RawLocks, token: int, name: bytes, completion: Completion | None
    ) -> None:
        self._owner = owner
        self._token = token
        self._name = name
        self._id = 0
        self._fresh = True
        self._waiting = completion
        self._more: deque[Completion] | None = None

    def expect(self, completion: Completion) -> None:
        """Wait for the completion of one more request."""
        self._owner._op += 1
        if self._waiting is None:
            self._waiting = completion
        elif self._more is None:
            self._more = deque((completion,))
        else:
            self._more.append(completion)

    def expect_not(self, completion: Completion) -> None:
        """The last request that was expected to complete was refused."""
        self._owner._op -= 1
        if self._waiting is completion:
            self._waiting = None
        elif self._more and self._more[-1] is completion:
            self._more.pop()

    def _took(
        self, status: int, lock_id: int, flags: int, bast_mode: int, value: bytes | None
    ) -> None:
        """Take in a result."""
        if bast_mode:
            self._owner.blocked.append((lock_id, bast_mode))
            return
        owner, completion = self._owner, self._waiting
        desk = owner.desk
        self._id = lock_id
        if status and (status == _UNLOCKED or self._fresh):
            desk.drop(self._token)
            if owner.by_id.get(lock_id) is self:
                del owner.by_id[lock_id]
        self._fresh = False
        if completion is None:
            return
        self._waiting = self._more.popleft() if self._more else None
        owner._op -= 1
        completion.status = status
        completion.lock_id = lock_id  # type: ignore[assignment]  # a LockId is its number
        if flags:
            completion.flags = StatusFlag(flags)
        if value is not None:
            completion.value = value
        completion.done = True
        if completion.callback is not None:
            owner.completed.append(completion)
        if desk.led is not None or desk.followers:
            desk.tell(completion)

    def _asks(self) -> bool:
        """Say whether an answer is out."""
        return self._waiting is not None

    def _lose(self, status: int) -> None:
        """No result will come any more."""
        while self._waiting is not None:
            self._took(status, self._id, 0, 0, None)


class Prepared:
    """A request that was checked: ``data`` is to be written, ``completion`` is its own."""

    __slots__ = ("_owner", "_raw", "_request", "completion", "data")

    def __init__(
        self,
        owner: RawLocks,
        raw: RawLock,
        request: LockRequest,
        callback: Callable[[Completion], None] | None,
    ) -> None:
        self._owner = owner
        self._raw = raw
        self._request = request
        self.completion = Completion(owner.desk, callback)
        self.completion.lock_id = LockId(raw._id)
        if self._completes:
            raw.expect(self.completion)
        self.data = pack_lock(
            request.command,
            request.mode,
            request.flags,
            request.lock_id,
            raw._token,
            request.value,
            request.name if self._new else b"",
        )

    @property
    def _new(self) -> bool:
        return self._request.command == _LOCK and not self._request.flags & _CONVERT

    @property
    def _completes(self) -> bool:
        # An adoption has no completion; what a cancel cancels completes, it itself does not.
        flags = self._request.flags
        return not flags & (_ORPHAN if self._new else _CANCEL)

    def written(self, answer: int) -> Completion:
        """Take note of what write(2) returned."""
        raw, completion = self._raw, self.completion
        if self._new:
            raw._id = answer
            completion.lock_id = LockId(answer)
            if not (completion.done and completion.status):  # else it has ended already
                self._owner.by_id[answer] = raw
        if not self._completes:
            raw._fresh = False
            completion.done = True
        return completion

    def refused(self) -> None:
        """Take note that the write was refused, or never made."""
        if self._new:
            self._owner.desk.drop(self._raw._token)
        if self._completes and not self.completion.done:
            self._raw.expect_not(self.completion)


class RawLocks:
    """The locks of one file that are asked for on the low level."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.by_id: dict[int, RawLock] = {}
        self._op = 0
        """Requests that have not completed: what a dispatch waits for."""
        self.completed: deque[Completion] = deque()
        """Completions whose callbacks are to be called."""
        self.blocked: deque[tuple[int, int]] = deque()
        """Blocking ASTs that have come: lock id, mode."""
        self.on_blocking: Callable[[LockId, LockMode], None] | None = None

    def prepare(
        self, request: LockRequest, callback: Callable[[Completion], None] | None = None
    ) -> Prepared:
        """Check a request, and return what to write; see ``Lockspace.submit`` for what is refused.

        Then call ``written`` or ``refused`` on it.
        """
        if request.command not in {_LOCK, _UNLOCK}:
            raise usage(f"command {request.command} is no LOCK or UNLOCK", self.desk.name)
        converts = bool(request.flags & _CONVERT)
        if request.command == _LOCK:
            why = harm(request.flags, converts=converts)
        else:
            why = harm_of_unlock(request.flags)
        if why:
            raise usage(why, self.desk.name, request.name)
        if request.command == _LOCK and not converts:
            return self._prepare_new(request, callback)
        raw = self.by_id.get(request.lock_id)
        if raw is None:
            # An UNLOCK of an orphan that was not adopted hangs the kernel (Linux 6.1 fs/dlm/lock.c,
            # dlm_user_unlock()), a CONVERT takes the results from the lock's owner.
            doing = f"operation on lock {request.lock_id}, which was not made by submit(),"
            raise failure(-errno.ENOENT, doing, self.desk.name, None, request.lock_id)
        return Prepared(self, raw, request, callback)

    def _prepare_new(
        self, request: LockRequest, callback: Callable[[Completion], None] | None
    ) -> Prepared:
        if len(request.name) > RESOURCE_NAME_MAX:
            text = f"a resource's name has at most {RESOURCE_NAME_MAX} bytes"
            raise usage(text, self.desk.name, request.name)
        raw = RawLock(self, self.desk.next_token(), request.name, None)
        prepared = Prepared(self, raw, request, callback)
        self.desk.add(raw._token, raw)
        return prepared

    def submit(
        self, engine: Engine, request: LockRequest, callback: Callable[[Completion], None] | None
    ) -> tuple[LockId, Completion]:
        """Write a request of ``engine``'s, whose desk this is; see ``Lockspace.submit``."""
        raw = self.by_id.get(request.lock_id)
        if raw is not None and raw._waiting is not None:
            if request.command == _UNLOCK and request.flags & _OVERTAKES:
                self._check_answered(engine, raw)
            # It may have ended without our knowing: since 6.10 its id is then free for others.
            engine.collect()
        prepared = self.prepare(request, callback)
        try:
            answer = engine.write(prepared.data, "submit")
        except BaseException:
            prepared.refused()
            raise
        completion = prepared.written(answer)
        return completion.lock_id, completion

    def _check_answered(self, engine: Engine, raw: RawLock) -> None:
        if not engine.answered(raw._name):
            doing = f"CANCEL or FORCEUNLOCK of lock {raw._id}, which no node has answered yet,"
            raise failure(-errno.EBUSY, doing, self.desk.name, raw._name, raw._id)

    def make_calls(self) -> None:
        """Call the callbacks of what has come."""
        while self.completed:
            completion = self.completed.popleft()
            if completion.callback is not None:
                completion.callback(completion)
        while self.blocked:
            lock_id, mode = self.blocked.popleft()
            if self.on_blocking is not None:
                self.on_blocking(LockId(lock_id), LockMode(mode))


class BareDesk:
    """A desk for whoever writes and reads the file himself, and waits in his own way."""

    led = None
    followers = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self._tokens = itertools.count(1)
        self._table: dict[int, RawLock] = {}

    def next_token(self) -> int:
        """Return what results of the next lock will carry."""
        return next(self._tokens)

    def add(self, token: int, entry: RawLock) -> None:
        """Expect results for a lock."""
        self._table[token] = entry

    def drop(self, token: int) -> None:
        """Expect none any more."""
        self._table.pop(token, None)

    def tell(self, completion: Completion) -> None:
        """Nobody sleeps here."""

    def wait(self, completion: Completion, seconds: float | None) -> None:
        """Whoever reads himself waits himself."""
        text = f"{completion} cannot be waited for ({seconds} s): its results are read elsewhere"
        raise usage(text, self.name)

    def took(self, data: bytes) -> None:
        """Hand out a result that was read."""
        token, status, lock_id, flags, bast_mode, at = unpack_result(data)
        value = data[at : at + VALUE_BLOCK_SIZE] if at else None
        entry = self._table.get(token)
        if entry is not None:
            entry._took(status, lock_id, flags, bast_mode, value)
