"""The core of dlm.locks: the operations of locks on one open file, shared by threads and tasks.

Decides: what is written when an operation begins, what becomes of one that nobody waits for any
more, when a CANCEL may be written, what a close and a fork mean.
May not know: which backend it has; how a face waits (dlm.locks.api, dlm.locks.aio).
Mirrors: fs/dlm/user.c, device_write(); the hazards of fs/dlm/lock.c (docs/hazards.md).

Results that no waiting thread will read, those of tasks and of forsaken operations and blocking
ASTs for callbacks, are read by the thread of dlm.locks.jobs; the others: dlm.locks.results.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dlm.abi.device import Command, pack_lock
from dlm.abi.texts import directory_name
from dlm.locks.calls import CallThread
from dlm.locks.errors import LockError, failure
from dlm.locks.jobs import Job, SeamJobs, ThreadJobs
from dlm.locks.probes import NO_ANSWER, Probe
from dlm.locks.results import Results
from dlm.locks.state import CONVERT, NOTHING, REQUEST, SETTLING, UNLOCK, Bit, LockState
from dlm.ports import Backend, Device
from dlm.terms import ECANCEL, LockFlag, LockMode, RecoverStatus

_GONE = frozenset({errno.EIO, errno.ECONNRESET, errno.EPIPE, errno.ENODEV})
"""What a write raises when there is nobody any more to write to."""

PATIENCE = 0.5
"""Seconds that a close gives those who sleep on the file."""

GRACE = 0.05
"""Seconds that it gives those who are about to write, though they may sleep in that."""

CANCEL = 5
"""A job's ``op`` that begins no operation of its lock."""

_LOCK, _UNLOCK = int(Command.LOCK), int(Command.UNLOCK)
_CANCEL = int(LockFlag.CANCEL)
_REQUEST, _CONVERT = REQUEST, CONVERT
_WATCHED, _DOOMED, _CANCELLING = int(Bit.WATCHED), int(Bit.DOOMED), int(Bit.CANCELLING)
_VALUE_BLOCK = int(Bit.VALUE_BLOCK)
_CANCEL_OUT, _REFUSED = int(Bit.CANCEL_OUT), int(Bit.REFUSED)
_PER_OPERATION = ~(_CANCELLING | _CANCEL_OUT | _REFUSED)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(Results):
    """An open file on a lockspace, and the operations of its locks."""

    def __init__(self, backend: Backend, name: str, device: Device, *, threads: bool) -> None:
        super().__init__(backend, name, device, threads=threads)
        self.watching = 0
        """Operations and callbacks whose results the thread of the jobs is to read."""
        self._shut = False
        self.unanswered_names: list[bytes] = []
        """Once it is shut: resources of which something was asked that may have no answer yet."""
        self._probes: dict[LockState, Probe] = {}
        """Locks whose operation is to be cancelled once it has been answered, until it ends."""
        self._jobs: ThreadJobs | SeamJobs
        self._calls: CallThread | deque[tuple[Callable[[LockMode], None], LockMode]]
        if threads:
            self._jobs = ThreadJobs(self, device)
            self._calls = CallThread(name)
        else:
            self._jobs = SeamJobs(self, device)
            self._calls = deque()
        _engines.add(self)

    def look(self) -> None:
        """Take notice of writes that have returned meanwhile, where nobody else does."""
        self._jobs.look()

    @property
    def jobs(self) -> ThreadJobs | SeamJobs:
        """Who makes the writes that may sleep."""
        return self._jobs

    # ---- operations -----------------------------------------------------------------------------

    def start(
        self,
        lock: LockState,
        op: int,
        mode: int,
        flags: int,
        *,
        aside: bool,
        wake: Callable[[], None] | None = None,
    ) -> int:
        """Begin an operation of a lock: here and now, or as a job where it may sleep (``aside``).

        Returns which one of the lock's it is, for ``_status_of``. Ends with the lock's ``_op``
        being ``NOTHING`` if it is over already. Raises EBUSY when another one is under way; what
        the kernel refuses is the operation's status. With ``wake``, which is as in ``watch``,
        nobody need read the result.
        """
        mutex = self._mutex
        mutex.acquire()  # see Results.collect()
        try:
            if lock._op or self.closed:
                raise self.failure(self.closed or -errno.EBUSY, "operation", lock)
            lock._op = op
            lock._before = lock._status
            lock._turn = turn = lock._turn + 1
            lock._bits &= _PER_OPERATION
            if op == _REQUEST:
                self.table[lock._token] = lock
            if wake is not None:
                lock._wake = wake
                lock._bits |= _WATCHED
                self.watching += 1
        finally:
            mutex.release()
        if op == UNLOCK:
            command = _UNLOCK
        else:
            command = _LOCK
            lock._asked, lock._sent = mode, flags
        name = lock._name if op == _REQUEST else b""
        data = pack_lock(command, mode, flags, lock._id, lock._token, lock._value, name)
        if aside:
            lock._job = job = Job(lock, op, data)
            self._jobs.put(job)
            return turn
        self.writing.append(lock._token)  # before the last look at closed: see shut()
        try:
            if not lock._op:
                return turn
            answer = self._write(data)
        except OSError as error:
            with self._mutex:
                self._refuse(lock, op, error)
            return turn
        finally:
            self.writing.remove(lock._token)
        if op == _REQUEST:
            lock._id = answer
        self.collect(lock)
        return turn

    def _refuse(self, lock: LockState, op: int, error: OSError) -> None:
        number = error.errno or errno.EIO
        if number in _GONE:
            self._lose(error)
            return
        if op == _REQUEST or number == errno.ENOENT:
            self.forget(lock)
        lock._bits |= _REFUSED
        lock._ended(-number)

    def forget(self, lock: LockState) -> None:
        """Expect no more results of a lock."""
        self.table.pop(lock._token, None)
        lock._over()

    def failure(self, status: int, doing: str, lock: LockState) -> LockError:
        """Return the exception for a status."""
        said = f"{doing} of {lock._name!r}"
        return failure(status, said, self.name, lock._name, lock._id or None)

    def settled(self, lock: LockState) -> None:
        """A lock's operation has ended (its ``_op`` is ``NOTHING``): tell who waits."""
        bits = lock._bits
        if bits & _CANCELLING:
            self._probes.pop(lock, None)
        if bits & _WATCHED:
            self.watching -= 1
            lock._bits = bits & ~_WATCHED
        if bits & _DOOMED and lock._mode is not None and not (self.closed or bits & _REFUSED):
            self._undo(lock)
        if lock._wake is not None or self.led is not None or self.followers:
            self.tell(lock)

    # ---- operations that nobody waits for any more ----------------------------------------------

    def watch(self, lock: LockState, wake: Callable[[], None]) -> bool:
        """Have the result of the operation under way read, and ``wake`` called when it has ended.

        False when it has ended already. ``wake`` is called by any thread, with the mutex held.
        """
        with self._mutex:
            if not lock._op:
                return False
            if not lock._bits & _WATCHED:
                lock._bits |= _WATCHED
                self.watching += 1
            first = lock._wake
            lock._wake = wake if first is None else _both(first, wake)
        self._jobs.wake()
        return True

    def watch_always(self, change: int) -> None:
        """Have everything read, from now on (1) or no more (-1)."""
        with self._mutex:
            self.watching += change
        self._jobs.wake()

    def cancel(self, lock: LockState) -> bool:
        """Have the operation under way cancelled; False when there is none."""
        with self._mutex:
            return self._cancel(lock)

    def forsake(self, lock: LockState, *, doomed: bool) -> None:
        """Cancel the operation under way; its end is seen to. Then, if ``doomed``, unlock."""
        with self._mutex:
            if not lock._op:
                if doomed and lock._mode is not None and not self.closed:
                    self._undo(lock)
            else:
                if doomed:
                    lock._bits |= _DOOMED
                if not lock._bits & _WATCHED:
                    lock._bits |= _WATCHED
                    self.watching += 1
                self._cancel(lock)
        self._jobs.wake()

    def _cancel(self, lock: LockState) -> bool:
        if lock._op not in {_REQUEST, _CONVERT} or self.closed:
            return False
        if lock._bits & _CANCELLING:
            return True
        lock._bits |= _CANCELLING
        job = lock._job
        if job is not None and not job.begun:  # not sent yet: it never will be
            lock._job = None
            if lock._op == _REQUEST:
                self.forget(lock)
            lock._ended(-ECANCEL)
        elif lock._id and job is None:
            self._cancel_when_answered(lock)
        return True

    def _cancel_when_answered(self, lock: LockState) -> None:
        self._probes[lock] = probe = Probe(self, lock._name)  # first: it may be over at once
        self.ask(probe, partial(self._answered, lock, probe))

    def _answered(self, lock: LockState, probe: Probe) -> None:
        if self._probes.get(lock) is probe:
            probe.since = self.backend.now()  # from now on it is the CANCEL that must be answered
            if lock._op in {_REQUEST, _CONVERT} and lock._bits & _CANCELLING and not self.closed:
                self._put_cancel(lock)

    def unanswered(self, lock: LockState) -> bool:
        """Say whether the node seems dead that is to answer what is to be cancelled."""
        probe = self._probes.get(lock)
        return probe is not None and self.backend.now() >= probe.since + NO_ANSWER

    def answered(self, name: bytes) -> bool:
        """Wait until what was asked of a resource has been answered; False when no node does."""
        probe, ended = Probe(self, name), []
        with self._mutex:
            self.ask(probe, lambda: ended.append(True))
        self.wait(probe, NO_ANSWER)
        return bool(ended)

    def has_locks(self) -> bool:
        """Say whether there are locks of the program's, or requests for some."""
        return any(not isinstance(entry, Probe) for entry in self.entries())

    def ask(self, probe: Probe, then: Callable[[], None]) -> None:
        """Have ``then`` called when a probe has been answered; now as then the mutex is held."""
        probe._op = _REQUEST
        probe._wake = then
        self.table[probe._token] = probe
        self.watching += 1
        self._put(Job(probe, _REQUEST, probe.request()))

    def _put_cancel(self, lock: LockState) -> None:
        # The mutex is held, and the job may be made at once (SeamJobs): bits first, see begin_job.
        data = pack_lock(_UNLOCK, 0, _CANCEL, lock._id, lock._token, lock._value, b"")
        self._put(Job(lock, CANCEL, data))

    def _undo(self, lock: LockState) -> None:
        """Begin to unlock a lock that nobody wants; the mutex is held."""
        lock._op = UNLOCK
        lock._bits = lock._bits & _PER_OPERATION | _WATCHED | _DOOMED
        self.watching += 1
        flags = lock._unlock_flags() if lock._bits & _VALUE_BLOCK else 0
        data = pack_lock(_UNLOCK, 0, flags, lock._id, lock._token, lock._value, b"")
        self._put(Job(lock, UNLOCK, data))

    def _put(self, job: Job) -> None:
        """Put a job while the mutex is held."""
        if job.op != CANCEL and job.lock is not None:
            job.lock._job = job
        if self.threads:
            self._jobs.put(job)
        else:
            self._mutex.release()
            try:
                self._jobs.put(job)
            finally:
                self._mutex.acquire()

    # ---- what the makers of jobs call -----------------------------------------------------------

    def begin_job(self, job: Job) -> bool:
        """Say whether a job is still to be made; from now on it counts as begun."""
        lock = job.lock
        if lock is None:
            return not self.closed or self._turn_down(job)
        self._mutex.acquire()  # see Results.collect()
        try:
            if self.closed or (job.op == CANCEL and not self._begin_cancel(lock, job)):
                return False
            job.begun = begun = lock._job is job
            return begun
        finally:
            self._mutex.release()

    def _begin_cancel(self, lock: LockState, job: Job) -> bool:
        # An id is handed out again once its lock has ended, whoever has read that (6.10): what is
        # known to have ended by now is not cancelled.
        self._collect(lock)
        # Of an operation that has ended: it would hit the next one.
        if lock._op not in {_REQUEST, _CONVERT} or not lock._bits & _CANCELLING:
            return False
        lock._bits |= _CANCEL_OUT
        lock._job = job
        return True

    def _turn_down(self, job: Job) -> bool:
        if job.told is not None:
            job.told(0, OSError(errno.EBADF, "closed"))
        return False

    def end_job(self, job: Job, answer: int, error: OSError | None) -> None:
        """Take note of a job's return."""
        lock = job.lock
        if lock is None:
            if job.told is not None:
                job.told(answer, error)
            return
        self._mutex.acquire()  # see Results.collect()
        try:
            if lock._job is job:
                lock._job = None
            if error is None and job.op != CANCEL:  # nearly all of them
                if job.op == _REQUEST:
                    lock._id = answer
                if lock._op == SETTLING:
                    if not lock._bits & _CANCEL_OUT:
                        lock._op = NOTHING
                        self.settled(lock)
                elif lock._bits & _CANCELLING and lock._op in {_REQUEST, _CONVERT}:
                    self._cancel_when_answered(lock)
            elif job.op == CANCEL:
                lock._bits &= ~_CANCEL_OUT
                if lock._op == SETTLING:
                    lock._op = NOTHING
                    self.settled(lock)
            else:
                assert error is not None
                if job.op == UNLOCK and error.errno == errno.EBUSY and lock._bits & _DOOMED:
                    job.begun = False
                    lock._job = job
                    self._jobs.later(job)
                    return
                self._refuse(lock, job.op, error)
            if not self._leading or not self.threads:
                self._collect(lock)
        finally:
            self._mutex.release()

    # ---- callbacks ------------------------------------------------------------------------------

    def call(self, callback: Callable[[LockMode], None], mode: LockMode) -> None:
        """Have a callback called, where callbacks are."""
        if isinstance(self._calls, deque):
            self._calls.append((callback, mode))
        else:
            self._calls.put(callback, mode)

    def make_calls(self) -> None:
        """Call what waits to be called here, where there is no thread for it."""
        while isinstance(self._calls, deque) and self._calls:
            callback, mode = self._calls.popleft()
            callback(mode)

    # ---- the lockspace --------------------------------------------------------------------------

    def suspended(self) -> bool:
        """Say whether locking is suspended: a write would sleep until the next start."""
        path = f"dlm/{directory_name(self.name)}/recover_status"
        try:
            return not int(self.backend.read_attribute(path), 16) & RecoverStatus.DONE
        except (OSError, ValueError):
            return True

    def shut(self) -> bool:
        """End everything that waits and let go of all but the file, which the caller closes.

        False when that was done before. Only the last close of a file drops its locks, and who
        sleeps on it has a copy: so they are given a moment to wake. Not so a write that sleeps,
        which ends with the stop. Who is just about to write must not write to what gets the number
        of the file next.
        """
        patience = 0.0 if self.suspended() else PATIENCE
        gate = threading.Lock()
        with self._mutex:
            if self._shut:
                return False
            self._shut = True
            self.closed = -errno.EBADF
            asking = [each._name for each in self.table.values() if each._asks()]
            self.unanswered_names = list(dict.fromkeys(asking))
            self._lose(OSError(errno.EBADF, "closed"))
            if self._leading:
                gate.acquire()
                self.followers[gate] = None
        self._jobs.end(patience)
        if not isinstance(self._calls, deque):
            self._calls.end()
        end = self.backend.now() + patience
        self._follow(gate, end)
        end = max(end, self.backend.now() + GRACE)
        while self.threads and self.writing and self.backend.now() < end:
            self.backend.pause(0.001)
        with self._mutex:
            if self._bell >= 0 and not self._leading:
                os.close(self._bell)
                self._bell = -1
        return True

    def disown(self) -> None:
        """In the child of a fork(2): be closed, and let go of the copy of the file."""
        self._mutex = threading.Lock()  # whoever held it is not here
        self._shut = True
        self.closed = -errno.EBADF
        table, self.table = self.table, {}
        for entry in table.values():
            if isinstance(entry, LockState):
                entry._mode = None
        self.followers = {}
        with suppress(OSError):
            self.device.disown()


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def wake() -> None:
        first()
        second()

    return wake


def _disown_all() -> None:
    for engine in tuple(_engines):
        engine.disown()


os.register_at_fork(after_in_child=_disown_all)
