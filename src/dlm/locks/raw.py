"""The low level: any request with any flags, its lock id, its completion.

Decides: which result is which request's; what is never written.
May not know: who reads results (dlm.locks.engine).
Mirrors: dlm_ls_lockx() and dlm_ls_unlock() of libdlm with an AST routine.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

from dlm.abi.device import Command, LockRequest, pack_lock
from dlm.locks.engine import Engine
from dlm.locks.errors import failure, usage
from dlm.locks.jobs import Job
from dlm.terms import EUNLOCK, RESOURCE_NAME_MAX, LockFlag, LockId, LockMode, StatusFlag

_PERSISTENT, _ORPHAN, _CONVERT = LockFlag.PERSISTENT, LockFlag.ORPHAN, LockFlag.CONVERT
_NEW = int(_CONVERT)
_CANCEL = int(LockFlag.CANCEL)
_LOCK, _UNLOCK = int(Command.LOCK), int(Command.UNLOCK)


class Completion:
    """What becomes of a request that was submitted.

    ``done`` says whether it has completed; then ``status`` is 0, or a negative errno or DLM status
    (``-ECANCEL``, ``-EUNLOCK`` of dlm.terms), ``flags`` the remarks and ``value`` the value block,
    where one came.
    """

    __slots__ = (
        "_engine",
        "_job",
        "_op",
        "_wake",
        "callback",
        "flags",
        "lock_id",
        "status",
        "value",
    )

    def __init__(self, engine: Engine, callback: Callable[[Completion], None] | None) -> None:
        self._engine = engine
        self._op = 1
        self._job: Job | None = None
        self._wake: Callable[[], None] | None = None
        self.callback = callback
        self.status = 0
        self.lock_id = LockId(0)
        self.flags = StatusFlag(0)
        self.value: bytes | None = None

    @property
    def done(self) -> bool:
        """Whether the request has completed."""
        return not self._op

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (None: no end) for it; say whether it has completed.

        Reads results as ``dispatch()`` does, but calls no callback.
        """
        self._engine.wait(self, timeout)
        return not self._op

    def __repr__(self) -> str:
        said = f"status {self.status}" if self.done else "not yet done"
        return f"<Completion of lock {self.lock_id}: {said}>"


class RawLock:
    """A lock of the low level: its requests complete in the order in which they were made."""

    __slots__ = ("_engine", "_id", "_new", "_owner", "_token", "_waiting")

    def __init__(self, owner: RawLocks, token: int) -> None:
        self._owner = owner
        self._token = token
        self._id = 0
        self._new = True
        self._waiting: deque[Completion] = deque()

    def _took(
        self, status: int, lock_id: int, flags: int, bast_mode: int, value: bytes | None
    ) -> None:
        """Take in a result."""
        if bast_mode:
            self._owner.blocked.append((lock_id, bast_mode))
            return
        self._id = lock_id
        if status == -EUNLOCK or (status and self._new):
            self._owner.drop(self)
        self._new = False
        if self._waiting:
            self._complete(self._waiting.popleft(), status, flags, value)

    def _complete(
        self, completion: Completion, status: int, flags: int, value: bytes | None
    ) -> None:
        completion.status = status
        completion.lock_id = LockId(self._id)
        if flags:
            completion.flags = StatusFlag(flags)
        completion.value = value
        completion._op = 0
        if completion.callback is not None:
            self._owner.completed.append(completion)
        self._owner.engine.tell(completion)

    def _lose(self, status: int) -> None:
        """No result will come any more."""
        while self._waiting:
            self._complete(self._waiting.popleft(), status, 0, None)


class RawLocks:
    """The low level of one lockspace."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.completed: deque[Completion] = deque()
        """Completions whose callbacks are to be called."""
        self.blocked: deque[tuple[int, int]] = deque()
        """Blocking ASTs that have come: lock id, mode."""
        self.on_blocking: Callable[[LockId, LockMode], None] | None = None

        self._by_id: dict[int, RawLock] = {}

    def drop(self, raw: RawLock) -> None:
        """Forget a lock that has ended."""
        self.engine.drop(raw._token)
        if self._by_id.get(raw._id) is raw:
            del self._by_id[raw._id]

    def submit(
        self, request: LockRequest, callback: Callable[[Completion], None] | None
    ) -> tuple[LockId, Completion]:
        """Write a request; see ``Lockspace.submit``."""
        flags, command = request.flags, request.command
        if command == _LOCK and not flags & _NEW:
            return self._new(request, callback)
        if command not in {_LOCK, _UNLOCK}:
            raise usage(f"command {command} is not one for submit()", self.engine.name)
        raw = self._by_id.get(request.lock_id)
        if raw is None:
            # An UNLOCK of an orphan that was not adopted hangs the kernel (Linux 6.1 fs/dlm/lock.c,
            # dlm_user_unlock()), a CONVERT takes the results from the lock's owner.
            doing = f"operation on lock {request.lock_id}, which was not made by submit(),"
            raise failure(-errno.ENOENT, doing, self.engine.name, None, request.lock_id)
        completion = Completion(self.engine, callback)
        completion.lock_id = LockId(raw._id)
        cancels = command == _UNLOCK and flags & _CANCEL
        if not cancels:
            raw._waiting.append(completion)
        try:
            self._write(request, raw._token, b"")
        except BaseException:
            if not cancels:
                raw._waiting.remove(completion)
            raise
        if cancels:  # what it cancels completes, it itself does not
            completion._op = 0
        return completion.lock_id, completion

    def _new(
        self, request: LockRequest, callback: Callable[[Completion], None] | None
    ) -> tuple[LockId, Completion]:
        flags = request.flags
        adopts = flags & _ORPHAN
        if flags & _PERSISTENT and not adopts:
            # Killed while it waits, it would be a dead entry of the orphan list, and a later purge
            # would crash the kernel (Linux 6.1 fs/dlm/user.c, lock.c, dlm_clear_proc_locks()).
            text = "PERSISTENT on a new request: convert it to its own mode once it is granted"
            raise usage(text, self.engine.name, request.name)
        if len(request.name) > RESOURCE_NAME_MAX:
            text = f"a resource's name has at most {RESOURCE_NAME_MAX} bytes"
            raise usage(text, self.engine.name, request.name)
        raw = RawLock(self, self.engine.next_token())
        completion = Completion(self.engine, callback)
        if not adopts:
            raw._waiting.append(completion)
        self.engine.add(raw._token, raw)
        try:
            lock_id = self._write(request, raw._token, request.name)
        except BaseException:
            self.engine.drop(raw._token)
            raise
        raw._id = lock_id
        completion.lock_id = LockId(lock_id)
        if completion._op or not completion.status:  # else it has ended already
            self._by_id[lock_id] = raw
        if adopts:  # an adoption has no completion
            raw._new = False
            completion._op = 0
        return completion.lock_id, completion

    def _write(self, request: LockRequest, token: int, name: bytes) -> int:
        data = pack_lock(
            request.command,
            request.mode,
            request.flags,
            request.lock_id,
            token,
            request.value,
            name,
        )
        return self.engine.write(data, "submit")

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
