"""The blocking face of dlm.locks.

Decides: what a program calls, and that what it calls waits in its own thread.
May not know: how results are read, in which order an operation's parts are done.
Mirrors: libdlm's functions on lockspaces and locks (libdlm.h), with Python's habits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Self

from dlm.abi.device import Command, LockRequest, pack_lock
from dlm.locks import arguments, flows, space
from dlm.locks.engine import Engine
from dlm.locks.errors import (
    Ending,
    LockBusyError,
    LockError,
    LockTimedOutError,
    NoLockError,
    NoLockspaceError,
    WouldBlockError,
    failure,
)
from dlm.locks.lock import Lock, adopt, run
from dlm.locks.raw import NOT_PLAIN, Completion, RawLock, RawLocks
from dlm.locks.results import EVERYTHING
from dlm.locks.space import DEFAULT, MODE, Orphan
from dlm.locks.state import REQUEST, Bit
from dlm.ports import Backend, Pending
from dlm.terms import RESOURCE_NAME_MAX, LockFlag, LockId, LockMode, StatusFlag

_NO_FLAGS = LockFlag(0)
_VALUE_BLOCK, _VALBLK = int(Bit.VALUE_BLOCK), int(LockFlag.VALBLK)
_LOCK, _UNLOCK, _CANCEL = int(Command.LOCK), int(Command.UNLOCK), int(LockFlag.CANCEL)
_PR, _EX = LockMode.PR, LockMode.EX
_NO_REMARKS = StatusFlag(0)
_new = object.__new__


class Lockspace:
    """An open file on a lockspace, with its locks; any number of threads may use it.

    Closing it, as leaving its ``with`` block does, drops its locks; persistent ones become orphans.
    In the child of a fork(2) it is closed: the locks are the parent's.
    """

    def __init__(self, engine: Engine) -> None:
        """See ``open`` and ``create``."""
        self._engine = engine
        self._raw = RawLocks(engine)

    # ---- life -----------------------------------------------------------------------------------

    @classmethod
    def open(cls, backend: Backend, name: str, *, threads: bool | None = None) -> Self:
        """Open a lockspace of this node.

        ``threads`` False: never start a thread; callbacks are then called in ``dispatch()``. None:
        as the backend allows. Raises ``NoLockspaceError``; EPROTONOSUPPORT where the lock device is
        3.0.0, that of 2005.
        """
        return cls(space.open_engine(backend, name, threads=threads))

    @classmethod
    def create(
        cls,
        backend: Backend,
        name: str,
        mode: int = MODE,
        *,
        exclusive: bool = False,
        timeout: float | None = None,
        threads: bool | None = None,
    ) -> Self:
        """Create a lockspace, wait until this node has joined it, and open it.

        ``mode`` are the permissions of its device, for whom else may use it. One that is there
        already has one more user, or is EEXIST when ``exclusive``. Whoever manages membership
        (dlm_controld, ``dlm_tool start``, dlm.control) has to answer the join; past the ``timeout``
        (``LockTimedOutError``) it goes on by itself.
        """
        pending = space.begin_create(backend, name, exclusive=exclusive)
        _finish(pending, "create", name, timeout)
        opened = cls.open(backend, name, threads=threads)
        if mode != MODE:
            opened._engine.device.change_mode(mode)
        return opened

    @classmethod
    def default(cls, backend: Backend, *, timeout: float | None = None) -> Self:
        """Open the lockspace ``default``, which libdlm's programs share; create it if need be."""
        try:
            return cls.open(backend, DEFAULT)
        except NoLockspaceError:
            return cls.create(backend, DEFAULT, timeout=timeout)

    def close(self, timeout: float | None = None) -> None:
        """Drop the locks and close the file; what waits ends with ``LockspaceClosedError``.

        It sleeps while locking is suspended; past the ``timeout`` (``LockTimedOutError``) it goes
        on by itself. So it does after a second, the locks still held, when a request is under way
        that a dead node should answer. Closing twice is fine.
        """
        engine = self._engine
        lost = engine.lost() is not None
        if not engine.shut():
            return
        if timeout is None:
            with suppress(OSError) if lost else nullcontext():  # then nothing is left to close
                space.close(engine)
        elif not space.close_within(engine, timeout):
            text = f"close {engine.name}: timed out; it goes on by itself"
            raise LockTimedOutError(text, Ending.LEFT, engine.name)

    def release(self, force: bool = False, *, timeout: float | None = None) -> None:
        """Close the file and remove the lockspace from this node; wait until the node has left it.

        Without ``force`` a lockspace with locks, anybody's, is ``LockBusyError``, and one's own
        locks are seen before anything is done. With it all locks are dropped; the leave still waits
        until everybody has closed the lockspace's files. A lockspace with more users only loses
        one. Past the ``timeout`` it goes on by itself.
        """
        engine = self._engine
        engine.check_open()
        if not force and engine.has_locks():
            text = f"release {engine.name}: it has locks of this very program"
            raise LockBusyError(errno.EBUSY, text, engine.name)
        self.close(timeout)
        pending = space.begin_release(engine.backend, engine.name, force=force)
        _finish(pending, "release", engine.name, timeout)

    @property
    def name(self) -> str:
        """The lockspace's name."""
        return self._engine.name

    @property
    def closed(self) -> bool:
        """Whether it is closed or lost."""
        return bool(self._engine.closed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lockspace {self.name}{', closed' if self.closed else ''}>"

    # ---- locks ----------------------------------------------------------------------------------

    def lock(
        self,
        name: str | bytes,
        mode: LockMode = _EX,
        *,
        timeout: float | None = None,
        flags: LockFlag = _NO_FLAGS,
        value_block: bool = False,
        persistent: bool = False,
    ) -> Lock:
        """Request a lock on a resource and wait until it is granted; return it.

        ``name`` has at most 64 bytes; a text is taken as UTF-8. Past the ``timeout`` in seconds the
        request is cancelled, and ``LockTimedOutError`` says whether that is over; a grant that was
        faster is returned. ``flags`` such as EXPEDITE, HEADQUE, NOORDER, ALTPR or ALTCW, or NOQUEUE
        for what ``try_lock`` does (``WouldBlockError``). ``value_block`` asks for the resource's
        value block.
        ``persistent``: the lock stays when this process ends, as an orphan that ``adopt`` finds.
        While locking is suspended a request without timeout sleeps uninterruptibly.
        """
        raw = name.encode() if isinstance(name, str) else bytes(name)
        given, at_once = 0, False
        if len(raw) > RESOURCE_NAME_MAX or mode.__class__ is not LockMode or flags:
            raw = arguments.resource_name(raw)
            mode, given = arguments.checked_mode(mode), arguments.checked_flags(flags)
            at_once, given = bool(given & arguments.NOQUEUE), given & ~arguments.QUEUELESS
        engine = self._engine
        lock = Lock(engine, raw, 0)
        if value_block:
            lock._bits = _VALUE_BLOCK
            given |= _VALBLK
        aside = timeout is not None
        try:
            engine.start(lock, REQUEST, mode, given, aside=aside)
            if not (lock._op or lock._status or persistent):
                return lock
            deadline = None if timeout is None else engine.backend.now() + timeout
            run(
                lock,
                flows.requesting(
                    lock, deadline, persistent=persistent, aside=aside, at_once=at_once
                ),
            )
        except LockError:
            raise
        except BaseException:
            engine.forsake(lock, doomed=True)
            raise
        return lock

    def try_lock(
        self,
        name: str | bytes,
        mode: LockMode = _EX,
        *,
        timeout: float | None = None,
        flags: LockFlag = _NO_FLAGS,
        value_block: bool = False,
        persistent: bool = False,
    ) -> Lock | None:
        """Return a lock if it can be granted at once, else None.

        The answer of the resource's master is waited for, and the end of a recovery; ``timeout``
        bounds that. Else as ``lock``. Whoever is in the way is told, for the request is queued and
        cancelled: a refusal of NOQUEUE by another node can crash kernels since 6.10
        (docs/hazards.md).
        """
        try:
            return self.lock(
                name,
                mode,
                timeout=timeout,
                flags=flags | LockFlag.NOQUEUE,
                value_block=value_block,
                persistent=persistent,
            )
        except WouldBlockError:
            return None

    def read(
        self, name: str | bytes, *, timeout: float | None = None, value_block: bool = False
    ) -> Lock:
        """Take a lock that readers share (PR)."""
        return self.lock(name, _PR, timeout=timeout, value_block=value_block)

    def write(
        self, name: str | bytes, *, timeout: float | None = None, value_block: bool = False
    ) -> Lock:
        """Take a lock that excludes everybody (EX)."""
        return self.lock(name, _EX, timeout=timeout, value_block=value_block)

    def mutex(self, name: str | bytes, mode: LockMode = _EX) -> Mutex:
        """Return an object with the habits of ``threading.Lock``; nothing is asked for yet."""
        return Mutex(self, arguments.resource_name(name), arguments.checked_mode(mode))

    def locks(self) -> list[Lock]:
        """Return the locks that are held, oldest first."""
        entries = self._engine.entries()
        return [each for each in entries if isinstance(each, Lock) and each.held]

    # ---- orphans and deadlocks ------------------------------------------------------------------

    def orphans(self) -> list[Orphan]:
        """Return the locks of this node whose process has gone (from debugfs)."""
        return space.orphans(self._engine)

    def adopt(
        self,
        name: str | bytes,
        mode: LockMode,
        *,
        lock_id: int | None = None,
        value_block: bool = False,
    ) -> Lock:
        """Take over the oldest orphan of that name and mode; it stays persistent.

        With ``lock_id`` that one: older ones are taken over on the way to it, and stay with this
        object (see ``locks()``) until it is closed. Raises ``NoLockError``: there is none (ENOENT),
        none in this mode (EAGAIN).
        """
        raw, wanted = arguments.resource_name(name), arguments.checked_mode(mode)
        return adopt(self._engine, Lock, raw, wanted, lock_id, value_block)

    def purge(self, nodeid: int = 0, pid: int = 0) -> None:
        """Drop orphans: of this node (``nodeid`` 0) or another, all (``pid`` 0) or one process's.

        ``pid`` is the id of the THREAD that last asked something of the lock. One's own is EINVAL
        and never sent: to the kernel that means one's own locks.
        """
        data = space.purge_request(self._engine.backend, nodeid, pid)
        self._engine.write(data, f"purge of node {nodeid}, thread {pid}")

    def deadlock_cancel(self, lock_id: int) -> None:
        """Cancel what a lock of this node waits for, to end a deadlock.

        Whoever waits for it gets ``DeadlockError``. A lock that waits for nothing is EINVAL: the
        kernel would take it for a mark on later cancels. So is one whose request no node has
        answered yet. Needs debugfs, which tells these.
        """
        self._engine.write(space.deadlock_request(self._engine, lock_id), "deadlock_cancel")

    # ---- low level ------------------------------------------------------------------------------

    def submit(
        self, request: LockRequest, callback: Callable[[Completion], None] | None = None
    ) -> tuple[LockId, Completion]:
        """Write a request here and now; return its lock id and its completion.

        A LOCK, with CONVERT or ORPHAN or neither, or an UNLOCK, with CANCEL or not, with any other
        flags. Its addresses are replaced. ``callback(completion)`` is called in ``dispatch()``. The
        write sleeps while locking is suspended. Raises what the kernel refuses it with;
        ``NoLockError`` for the id of a lock that was not made here, and EINVAL for what can hang or
        corrupt a kernel: PERSISTENT on a new request; FORCEUNLOCK or TIMEOUT on a LOCK; ALTPR and
        ALTCW together, or either on a conversion. So can CANCEL or FORCEUNLOCK of what no node has
        answered: that is asked first, and ``LockBusyError`` if none does within a second.
        """
        engine, raw = self._engine, self._raw
        if request.__class__ is not LockRequest:
            return raw.submit(engine, request, callback)
        command, mode, flags, lock_id, _, _, _, _, _, _, _, _, value, name = request
        # As Completion(engine, callback, lock_id), whose call takes half as long again.
        completion = _new(Completion)
        completion._desk, completion.callback, completion.value = engine, callback, None
        completion.done, completion.status, completion.flags = False, 0, _NO_REMARKS
        completion.lock_id = lock_id  # type: ignore[assignment]  # a LockId is its number
        # Nearly all of them: a new lock, or the end of one with nothing under way.
        if command == _LOCK and not (flags & NOT_PLAIN or len(name) > RESOURCE_NAME_MAX):
            token = next(engine.tokens)
            entry = RawLock(raw, token, name, completion)
        elif command == _UNLOCK and not flags & _CANCEL:
            found = raw.by_id.get(lock_id)
            if found is None or found._waiting is not None:
                return raw.submit(engine, request, callback)
            entry, token, name = found, found._token, b""
            entry._waiting = completion
        else:
            return raw.submit(engine, request, callback)
        raw._op += 1
        engine.writing.append(token)
        try:
            data = pack_lock(command, mode, flags, lock_id, token, value, name)
            if engine.closed:
                engine.check_open()
            engine.table[token] = entry
            answer = engine._write(data)
        except BaseException as error:
            if command == _LOCK:
                engine.drop(token)
            if not completion.done:
                entry.expect_not(completion)
            if isinstance(error, OSError) and not isinstance(error, LockError):
                number = -(error.errno or errno.EIO)
                raise failure(number, "submit", engine.name) from error
            raise
        finally:
            engine.writing.remove(token)
        if command == _LOCK:
            lock_id = entry._id = answer
            completion.lock_id = answer  # type: ignore[assignment]  # as above
            if not completion.status:  # else it has ended already
                raw.by_id[answer] = entry
        return lock_id, completion  # type: ignore[return-value]  # as above

    def on_blocking(self, callback: Callable[[LockId, LockMode], None] | None) -> None:
        """Have ``dispatch()`` call this for blocking ASTs of the locks that ``submit`` made."""
        self._raw.on_blocking = callback

    def fileno(self) -> int:
        """Return a descriptor that is readable when ``dispatch()`` has something to read."""
        self._engine.check_open()
        return self._engine.device.fileno()

    def dispatch(self) -> int:
        """Read results and call what waits for them; return how many results there were.

        Reads what is there, or until the last request of ``submit`` has completed: what is left
        then keeps ``fileno()`` readable. Never waits. Raises ``LockspaceLostError`` when the file
        is of no use any more.
        """
        engine, raw = self._engine, self._raw
        if engine.closed:
            engine.check_open()
        threads, mutex = engine.threads, engine._mutex
        if not threads:
            engine.jobs.look()
        mutex.acquire()  # see Results.collect()
        try:
            count = engine._collect(raw if raw._op else EVERYTHING)
        finally:
            mutex.release()
        if raw.completed or raw.blocked:
            raw.make_calls()
        if not threads:
            engine.make_calls()
        if engine.closed and (lost := engine.lost()) is not None:
            raise lost
        return count


class Mutex:
    """A resource with the habits of ``threading.Lock``: for code that is written to them.

    It may be used again and again; any thread may release what another has acquired. One object is
    one lock: threads of one process that share it take turns, as processes and nodes do.
    """

    __slots__ = ("_lock", "_mode", "_name", "_space")

    def __init__(self, lockspace: Lockspace, name: bytes, mode: LockMode) -> None:
        self._space = lockspace
        self._name = name
        self._mode = mode
        self._lock: Lock | None = None

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; say whether it was taken.

        Not ``blocking``: only if it can be granted at once. ``timeout`` in seconds; None and -1
        mean no end.
        """
        if not blocking:
            taken = self._space.try_lock(self._name, self._mode)
        else:
            limit = None if timeout is None or timeout < 0 else timeout
            try:
                taken = self._space.lock(self._name, self._mode, timeout=limit)
            except LockTimedOutError:
                return False
        if taken is None:
            return False
        self._lock = taken
        return True

    def release(self) -> None:
        """Unlock; ``NoLockError`` when it is not held."""
        lock, self._lock = self._lock, None
        if lock is None:
            text = f"release of {self._name!r} in {self._space.name}: it is not held"
            raise NoLockError(errno.ENOENT, text, self._space.name, self._name)
        lock.unlock()

    def locked(self) -> bool:
        """Say whether this object holds the lock."""
        return self._lock is not None and self._lock.held

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _finish(pending: Pending, doing: str, name: str, timeout: float | None) -> None:
    """Wait for a call that may sleep for long; past the timeout it goes on by itself."""
    try:
        if not pending.wait(timeout):
            text = f"{doing} {name}: timed out; it goes on by itself"
            raise LockTimedOutError(text, Ending.LEFT, name)
        pending.result()
    except LockError:
        raise
    except OSError as error:
        raise space.refusal(error, doing, name) from error
    finally:
        pending.close()
