"""The asyncio face of dlm.locks, of the same shape as the blocking one.

Decides: how a task waits, and that a cancelled one leaves nothing behind.
May not know: how results are read, in which order an operation's parts are done.

Nothing is written on the loop's thread: LOCK, CANCEL and close sleep uninterruptibly while locking
is suspended, O_NONBLOCK or not. The lockspace's own thread writes and reads (dlm.locks.jobs), not
the loop's executor, whose threads would keep the interpreter from ending. Where the backend allows
no threads it makes the writes itself, and the loop watches its descriptors.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from threading import get_ident
from types import TracebackType
from typing import Any, Self

from dlm.locks import api, arguments, space
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
from dlm.locks.jobs import Job, SeamJobs, ThreadJobs
from dlm.locks.lock import adopt
from dlm.locks.operations import Lock, Operation, Request
from dlm.locks.space import DEFAULT, MODE, Orphan
from dlm.locks.state import Bit
from dlm.ports import Backend, DeviceClose, Pending
from dlm.terms import RESOURCE_NAME_MAX, LockFlag, LockMode

__all__ = ["Lockspace", "Request", "Operation", "Lock", "Mutex"]

_NO_FLAGS = LockFlag(0)
_EX, _PR = LockMode.EX, LockMode.PR
_ERRAND = 6
BEAT = 0.05
"""Seconds after which what has ended is told, though the thread has not come to that."""

_VALUE_BLOCK, _VALBLK = int(Bit.VALUE_BLOCK), int(LockFlag.VALBLK)


class Lockspace:
    """An open file on a lockspace, for the tasks of one event loop.

    ``on(lockspace)`` makes it share the file of a blocking one: for threads and tasks at once.
    """

    def __init__(self, engine: Engine) -> None:
        """See ``open``, ``create`` and ``on``; in the loop that is to use it."""
        self._engine = engine
        self.loop = asyncio.get_running_loop()
        self._todo: deque[Operation[Any] | asyncio.Future[None]] = deque()  # Any: whichever
        """What the loop is to let go on."""
        self._scheduled = False
        """Whether it knows."""
        self._beat: asyncio.TimerHandle | None = None
        self._watched: dict[int, None] = {}
        if isinstance(engine.jobs, SeamJobs):
            engine.jobs.on_sleep = self._watch_job

    # ---- life -----------------------------------------------------------------------------------

    @classmethod
    async def open(cls, backend: Backend, name: str, *, threads: bool | None = None) -> Self:
        """Open a lockspace of this node; see ``dlm.locks.Lockspace.open``."""
        return cls(space.open_engine(backend, name, threads=threads))

    @classmethod
    def on(cls, lockspace: api.Lockspace) -> Self:
        """Return the asyncio face of an open lockspace, for the running loop."""
        return cls(lockspace._engine)

    @classmethod
    async def create(
        cls,
        backend: Backend,
        name: str,
        mode: int = MODE,
        *,
        exclusive: bool = False,
        timeout: float | None = None,
    ) -> Self:
        """Create a lockspace and open it; see ``dlm.locks.Lockspace.create``."""
        pending = space.begin_create(backend, name, exclusive=exclusive)
        await _finish(pending, "create", name, timeout)
        opened = await cls.open(backend, name)
        if mode != MODE:
            opened._engine.device.change_mode(mode)
        return opened

    @classmethod
    async def default(cls, backend: Backend, *, timeout: float | None = None) -> Self:
        """Open the lockspace ``default``; create it if need be."""
        try:
            return await cls.open(backend, DEFAULT)
        except NoLockspaceError:
            return await cls.create(backend, DEFAULT, timeout=timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Drop the locks and close the file; see ``dlm.locks.Lockspace.close``."""
        engine = self._engine
        self._unwatch()
        if not engine.shut():
            return
        if not engine.threads:
            pending = engine.device.submit(DeviceClose(), detached=True)
            await _finish(pending, "close", engine.name, timeout)
            return
        done: asyncio.Future[None] = self.loop.create_future()
        space.close_aside(engine, lambda _: self.woken(done))
        await _within(done, "close", engine.name, timeout)

    async def release(self, force: bool = False, *, timeout: float | None = None) -> None:
        """Close the file and remove the lockspace; see ``dlm.locks.Lockspace.release``."""
        engine = self._engine
        engine.check_open()
        if not force and engine.has_locks():
            text = f"release {engine.name}: it has locks of this very program"
            raise LockBusyError(errno.EBUSY, text, engine.name)
        await self.close(timeout)
        pending = space.begin_release(engine.backend, engine.name, force=force)
        await _finish(pending, "release", engine.name, timeout)

    @property
    def name(self) -> str:
        """The lockspace's name."""
        return self._engine.name

    @property
    def closed(self) -> bool:
        """Whether it is closed or lost."""
        return bool(self._engine.closed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

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
    ) -> Request:
        """Request a lock: to be awaited, or entered; see ``dlm.locks.Lockspace.lock``.

        A task that is cancelled while it waits cancels the request in the kernel, and sees to it
        that a grant which came first is undone; while locking is suspended that is done later.
        """
        raw = name.encode() if isinstance(name, str) else bytes(name)
        given, at_once = 0, False
        if len(raw) > RESOURCE_NAME_MAX or mode.__class__ is not LockMode or flags:
            raw = arguments.resource_name(raw)
            mode, given = arguments.checked_mode(mode), arguments.checked_flags(flags)
            at_once, given = bool(given & arguments.NOQUEUE), given & ~arguments.QUEUELESS
        lock = Lock(self, raw, 0)
        if value_block:
            lock._bits = _VALUE_BLOCK
            given |= _VALBLK
        return Request(lock, timeout, mode, given, persistent, at_once)

    async def try_lock(
        self,
        name: str | bytes,
        mode: LockMode = _EX,
        *,
        timeout: float | None = None,
        flags: LockFlag = _NO_FLAGS,
        value_block: bool = False,
        persistent: bool = False,
    ) -> Lock | None:
        """Return a lock if it can be granted at once, else None; see ``dlm.locks``."""
        try:
            return await self.lock(
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
    ) -> Request:
        """Request a lock that readers share (PR)."""
        return self.lock(name, _PR, timeout=timeout, value_block=value_block)

    def write(
        self, name: str | bytes, *, timeout: float | None = None, value_block: bool = False
    ) -> Request:
        """Request a lock that excludes everybody (EX)."""
        return self.lock(name, _EX, timeout=timeout, value_block=value_block)

    def mutex(self, name: str | bytes, mode: LockMode = _EX) -> Mutex:
        """Return an object with the habits of ``asyncio.Lock``; nothing is asked for yet."""
        return Mutex(self, arguments.resource_name(name), arguments.checked_mode(mode))

    def locks(self) -> list[Lock]:
        """Return the locks that are held, oldest first."""
        entries = self._engine.entries()
        return [each for each in entries if isinstance(each, Lock) and each.held]

    # ---- orphans and deadlocks ------------------------------------------------------------------

    async def orphans(self) -> list[Orphan]:
        """Return the locks of this node whose process has gone (from debugfs)."""
        return space.orphans(self._engine)

    async def adopt(
        self,
        name: str | bytes,
        mode: LockMode,
        *,
        lock_id: int | None = None,
        value_block: bool = False,
    ) -> Lock:
        """Take over an orphan; see ``dlm.locks.Lockspace.adopt``. That never sleeps."""
        raw, wanted = arguments.resource_name(name), arguments.checked_mode(mode)

        def kind(_: Engine, name: bytes, bits: int) -> Lock:
            return Lock(self, name, bits)

        return adopt(self._engine, kind, raw, wanted, lock_id, value_block)

    async def purge(self, nodeid: int = 0, pid: int = 0) -> None:
        """Drop orphans; see ``dlm.locks.Lockspace.purge``."""
        data = space.purge_request(self._engine.backend, nodeid, pid)
        await self._errand(data, f"purge of node {nodeid}, thread {pid}")

    async def deadlock_cancel(self, lock_id: int) -> None:
        """Cancel what a lock waits for; see ``dlm.locks.Lockspace.deadlock_cancel``."""
        await self._errand(space.deadlock_request(self._engine, lock_id), "deadlock_cancel")

    async def _errand(self, data: bytes, doing: str) -> None:
        """Have a request written that is no lock's operation."""
        engine = self._engine
        engine.check_open()
        done: asyncio.Future[None] = self.loop.create_future()
        errors: list[OSError] = []

        def told(_: int, error: OSError | None) -> None:
            if error is not None:
                errors.append(error)
            self.woken(done)

        job = Job(None, _ERRAND, data)
        job.told = told
        engine.jobs.put(job)
        await done
        if errors:
            number = -(errors[0].errno or errno.EIO)
            raise failure(engine.closed or number, doing, engine.name) from errors[0]

    # ---- waiting --------------------------------------------------------------------------------

    def deadline(self, timeout: float | None) -> float | None:
        """Return when a timeout that begins now ends."""
        return None if timeout is None else self._engine.backend.now() + timeout

    def woken(self, what: Operation[Any] | asyncio.Future[None]) -> None:  # Any: whichever
        """Have an operation go on, or a future finished, in the loop; from any thread."""
        self._todo.append(what)
        if not self._scheduled:
            self._tell_loop()

    def begun(self) -> None:
        """See to it that the end of what has begun is told."""
        if not self._engine.threads:
            self.watch()
        elif self._beat is None:
            self._beat = self.loop.call_later(BEAT, self._look)

    def _look(self) -> None:
        # The thread tells of what has ended when it has made a batch of writes, and may sleep in
        # one of them as long as locking is suspended.
        self._beat = None
        if self._todo:
            self._do()
        jobs = self._engine.jobs
        if isinstance(jobs, ThreadJobs) and jobs.busy:
            self.begun()

    def _tell_loop(self) -> None:
        """See to it that the loop does what is to do; from any thread."""
        jobs = self._engine.jobs
        if isinstance(jobs, ThreadJobs) and jobs.ident == get_ident():
            jobs.after_batch[self._schedule] = None  # a loop is slow to wake: not for each one
        else:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._do)
        except RuntimeError:  # the loop is closed: nobody is there to be told
            self._todo.clear()

    def _do(self) -> None:
        self._scheduled = False
        todo = self._todo
        try:
            for _ in range(len(todo)):  # what comes meanwhile is for the loop's next turn
                what = todo.popleft()
                if isinstance(what, Operation):
                    what.go_on()
                elif not what.done():
                    what.set_result(None)
        finally:
            if todo and not self._scheduled:
                self._schedule()

    # ---- without threads the loop itself reads --------------------------------------------------

    def watch(self) -> None:
        """See to it that results are read."""
        descriptor = self._engine.device.fileno()
        if descriptor not in self._watched:
            self._watched[descriptor] = None
            self.loop.add_reader(descriptor, self._read)

    def _unwatch(self) -> None:
        for descriptor in self._watched:
            self.loop.remove_reader(descriptor)
        self._watched.clear()

    def _read(self) -> None:
        engine = self._engine
        engine.jobs.look()
        engine.collect()
        engine.make_calls()
        if engine.closed:
            self._unwatch()

    def _watch_job(self, job: Job) -> None:
        assert job.pending is not None
        descriptor = job.pending.fileno()

        def look() -> None:
            self.loop.remove_reader(descriptor)
            self._watched.pop(descriptor, None)
            self._engine.jobs.look()
            self._engine.collect()

        self.watch()
        self._watched[descriptor] = None
        self.loop.add_reader(descriptor, look)


class Mutex:
    """A resource with the habits of ``asyncio.Lock``, beside ``acquire``'s arguments."""

    __slots__ = ("_lock", "_mode", "_name", "_space")

    def __init__(self, lockspace: Lockspace, name: bytes, mode: LockMode) -> None:
        self._space = lockspace
        self._name = name
        self._mode = mode
        self._lock: Lock | None = None

    async def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; say whether it was taken; see ``dlm.locks.Mutex.acquire``."""
        if not blocking:
            taken = await self._space.try_lock(self._name, self._mode)
        else:
            limit = None if timeout is None or timeout < 0 else timeout
            try:
                taken = await self._space.lock(self._name, self._mode, timeout=limit)
            except LockTimedOutError:
                return False
        if taken is None:
            return False
        self._lock = taken
        return True

    async def release(self) -> None:
        """Unlock; ``NoLockError`` when it is not held."""
        lock, self._lock = self._lock, None
        if lock is None:
            text = f"release of {self._name!r} in {self._space.name}: it is not held"
            raise NoLockError(errno.ENOENT, text, self._space.name, self._name)
        await lock.unlock()

    def locked(self) -> bool:
        """Say whether this object holds the lock."""
        return self._lock is not None and self._lock.held

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()


def _finish_future(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _finish(pending: Pending, doing: str, name: str, timeout: float | None) -> None:
    """Wait for a call that may sleep for long; past the timeout it goes on by itself."""
    loop = asyncio.get_running_loop()
    try:
        if not pending.done():
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(pending.fileno(), _finish_future, ready)
            try:
                await _within(ready, doing, name, timeout)
            finally:
                loop.remove_reader(pending.fileno())
        pending.result()
    except LockError:
        raise
    except OSError as error:
        raise space.refusal(error, doing, name) from error
    finally:
        pending.close()


async def _within(done: asyncio.Future[None], doing: str, name: str, timeout: float | None) -> None:
    try:
        await asyncio.wait_for(done, timeout)
    except TimeoutError:
        text = f"{doing} {name}: timed out; it goes on by itself"
        raise LockTimedOutError(text, Ending.LEFT, name) from None
