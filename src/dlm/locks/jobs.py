"""Writes that may sleep, made where nobody has to wait for them.

Decides: which thread, if any, makes a write that its caller must be able to give up, and reads the
results that nobody waits for.
May not know: what a write asks for, what its return means (dlm.locks.engine).

LOCK, UNLOCK, CANCEL and close sleep uninterruptibly while the lockspace is stopped (Linux 6.1
fs/dlm/lock.c, dlm_lock_recovery()). ``ThreadJobs`` has one daemon thread for them: a helper process
would do, but the kernel notes the id of whoever writes with the lock, and a start of one costs a
hundred locks. A process whose thread sleeps so cannot end before the lockspace runs again; nor
could it without the thread, for exit(2) closes the lockspace's file, which sleeps too.
``SeamJobs`` leaves it to the backend (``Device.submit``) where threads are not allowed.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dlm.ports import Device, DeviceWrite, Pending

if TYPE_CHECKING:
    from dlm.locks.engine import Engine
    from dlm.locks.state import LockState

BATCH = 32
"""Writes after which loops are told what has come, while more are to be made."""

RETRY = 0.01
"""Seconds after which an unlock that met EBUSY is tried again."""


class Job:
    """A write for a lock: ``op`` is the lock's operation that it begins, or CANCEL.

    Or, with ``told``, for none: that is called with what write(2) returned or raised.
    """

    # Class-wide until they are set, for one is made for every operation of a task.
    begun = False
    pending: Pending | None = None
    told: Callable[[int, OSError | None], None] | None = None

    def __init__(self, lock: LockState | None, op: int, data: bytes) -> None:
        self.lock = lock
        self.op = op
        self.data = data


class ThreadJobs:
    """One daemon thread, started when it is first needed."""

    def __init__(self, engine: Engine, device: Device) -> None:
        self._engine = engine
        self._device = device
        self._jobs: deque[Job] = deque()
        self._later: list[Job] = []
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._ended = False
        self._bell = -1
        self._asleep = True
        """Whether it is to be woken, or started, for a job to be made."""
        self.ident = 0
        """The thread's id."""
        self.after_batch: dict[Callable[[], None], None] = {}
        """What the thread is to call when it has made a batch of writes."""

    def put(self, job: Job) -> None:
        """Have a write made, after those that were put before."""
        self._jobs.append(job)
        if self._asleep:
            self.wake()

    @property
    def busy(self) -> bool:
        """Whether it makes writes, or sleeps in one."""
        return not (self._asleep or self._ended)

    def later(self, job: Job) -> None:
        """Have it made again in a little while."""
        self._later.append(job)

    def wake(self) -> None:
        """Let the thread look again; starts it."""
        if self._thread is None:
            self._start()
        if self._asleep:
            self._asleep = False
            with suppress(OSError):  # ended meanwhile
                os.eventfd_write(self._bell, 1)

    def look(self) -> None:
        """Nothing to do: the thread takes notice."""

    def end(self, patience: float) -> None:
        """Let the thread end; it is not waited for for long, for it may sleep in a write."""
        with self._starting:
            self._ended = True
        if self._thread is not None:
            self.wake()
            self._thread.join(patience)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._ended:
                self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                name = f"dlm-locks {self._engine.name}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        bell, engine = self._bell, self._engine
        self.ident = threading.get_ident()
        quiet, watching = select.poll(), select.poll()
        quiet.register(bell, select.POLLIN)
        watching.register(bell, select.POLLIN)
        watching.register(self._device.fileno(), select.POLLIN)
        try:
            while not self._ended or self._jobs:
                self._work()
                if engine.watching:
                    engine.collect()
                if self.after_batch:
                    self._tell()
                self._asleep = True
                if not self._jobs and not self._ended:  # else the bell may not have been rung
                    poll = watching if engine.watching else quiet
                    poll.poll(RETRY * 1000 if self._later else None)
                self._asleep = False
                with suppress(BlockingIOError):
                    os.eventfd_read(bell)
                self._jobs.extend(self._later)
                self._later.clear()
        finally:
            self._ended = True
            self.ident = 0  # the next thread may get the same
            self._tell()
            os.close(bell)

    def _work(self) -> None:
        begin, end = self._engine.begin_job, self._engine.end_job
        write, jobs = self._device.write, self._jobs
        count = 0
        while jobs:
            count += 1
            if not count % BATCH and self.after_batch:
                self._tell()
            job = jobs.popleft()
            if not begin(job):
                continue
            try:
                answer = write(job.data)
            except OSError as error:
                end(job, 0, error)
            else:
                end(job, answer, None)

    def _tell(self) -> None:
        calls, self.after_batch = self.after_batch, {}
        for call in calls:
            call()


class SeamJobs:
    """The backend's own way (``Device.submit``), for backends that only one thread may use."""

    def __init__(self, engine: Engine, device: Device) -> None:
        self._engine = engine
        self._device = device
        self._later: list[Job] = []
        self.out: dict[Job, None] = {}
        """Writes that sleep, oldest first."""
        self.on_sleep: Callable[[Job], None] | None = None
        """Told of each write that sleeps."""

    def put(self, job: Job) -> None:
        """Make a write now; it may go on sleeping."""
        if not self._engine.begin_job(job):
            return
        job.pending = self._device.submit(DeviceWrite(job.data))
        if job.pending.done():
            self._end(job)
        else:
            self.out[job] = None
            if self.on_sleep is not None:
                self.on_sleep(job)

    def later(self, job: Job) -> None:
        """Make it again when next somebody looks."""
        self._later.append(job)

    def wake(self) -> None:
        """Nothing to do: whoever waits looks."""

    def look(self) -> None:
        """Take notice of writes that have returned meanwhile."""
        for job in [job for job in self.out if job.pending is not None and job.pending.done()]:
            del self.out[job]
            self._end(job)
        again, self._later = self._later, []
        for job in again:
            self.put(job)

    def end(self, patience: float) -> None:  # noqa: ARG002 - nobody else is at work
        """Let go of what sleeps: it goes on."""
        self.out.clear()

    def _end(self, job: Job) -> None:
        pending = job.pending
        assert pending is not None
        try:
            answer = int(pending.result())
        except OSError as error:
            self._engine.end_job(job, 0, error)
        else:
            self._engine.end_job(job, answer, None)
        finally:
            pending.close()
