"""An open file on a lockspace: its results, read by whoever waits, and handed to whom they are for.

Decides: who reads the file, who sleeps on it, whom a result wakes, what a lost file means.
May not know: what results mean to whom they are for; which backend it has.
Mirrors: libdlm's own thread and its dispatcher; results are fs/dlm/user.c, device_read().

Nobody owns the reading. Whoever has begun an operation reads until its own result has come, under a
mutex that is held for no sleep, and hands to others what is theirs. Only who must wait sleeps: one
of the waiting threads, the leader, on the file; the others, its followers, each on a lock of its
own; a leader that leaves wakes a follower. An uncontended operation thus costs one write and one
read and no switch of threads.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from dlm.abi.device import RESULT_SIZE_MAX, unpack_result
from dlm.locks.errors import LOST, LockError, LockspaceLostError, failure
from dlm.locks.jobs import Job
from dlm.ports import Backend, Device
from dlm.terms import VALUE_BLOCK_SIZE

_TOKEN_BITS = 40
_TOKENS = 1 << _TOKEN_BITS
"""The first number that results of a lock carry: nobody else's look like them."""


class Entry(Protocol):
    """What results are for: a lock, or the low level's own kind of it."""

    _id: int
    _name: bytes

    def _asks(self) -> bool:
        """Say whether the answer to a request or conversion is out."""

    def _took(
        self, status: int, lock_id: int, flags: int, bast_mode: int, value: bytes | None
    ) -> None:
        """Take in a result, under the mutex."""

    def _lose(self, status: int) -> None:
        """No result will come any more."""


class Ends(Protocol):
    """What is to end: ``_op`` is 0 when it has."""

    @property
    def _op(self) -> int: ...


class Everything:
    """What never ends: whoever collects for it reads all that is there."""

    _op = 1


EVERYTHING = Everything()


class Waited(Ends, Protocol):
    """What can be waited for."""

    _job: Job | None
    _wake: Callable[[], None] | None


class Results:
    """An open file on a lockspace, what its results are for, and those who wait for them."""

    def __init__(self, backend: Backend, name: str, device: Device, *, threads: bool) -> None:
        self.backend = backend
        self.name = name
        self.threads = threads
        self.closed = 0
        """0, or the status that every operation is answered with from now on."""
        self.device = device
        self._write = device.write
        self._read = device.read
        self._mutex = threading.Lock()
        self.tokens = itertools.count(_TOKENS)
        self.table: dict[int, Entry] = {}
        self.writing: list[int] = []
        """Who writes here and now: a closed file's number may mean another one soon."""
        self._leading = False
        self.led: Waited | None = None
        self.followers: dict[threading.Lock, Waited | None] = {}
        self._bell = -1
        if threads:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._poll = select.poll()
            self._poll.register(device.fileno(), select.POLLIN)
            self._poll.register(self._bell, select.POLLIN)

    def look(self) -> None:
        """Take notice of writes that have returned meanwhile, where nobody else does."""
        raise NotImplementedError

    # ---- reading --------------------------------------------------------------------------------

    def next_token(self) -> int:
        """Return what results of the next lock will carry."""
        return next(self.tokens)

    def collect(self, waited: Ends = EVERYTHING) -> int:
        """Read until what is waited for has ended, or nothing is left; return how many results."""
        mutex = self._mutex
        mutex.acquire()  # in half the time of ``with``, which counts here
        try:
            return self._collect(waited)
        finally:
            mutex.release()

    def _collect(self, waited: Ends) -> int:
        count = 0
        while waited._op:
            try:
                data = self._read(RESULT_SIZE_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                break
            token, status, lock_id, flags, bast_mode, at = unpack_result(data)
            entry = self.table.get(token)
            if entry is not None and not at:  # nearly all of them
                entry._took(status, lock_id, flags, bast_mode, None)
            else:
                self._hand(token, status, lock_id, flags, bast_mode, at, data)
            count += 1
        return count

    def _hand(
        self,
        token: int,
        status: int,
        lock_id: int,
        flags: int,
        bast_mode: int,
        at: int,
        data: bytes,
    ) -> None:
        entry = self.table.get(token)
        if entry is None:
            entry = None if token >> _TOKEN_BITS == 1 else self._find(lock_id)
            if entry is None:
                return
        value = data[at : at + VALUE_BLOCK_SIZE] if at else None
        entry._took(status, lock_id, flags, bast_mode, value)

    def _find(self, lock_id: int) -> Entry | None:
        # An operation of another process on our lock replaces what its results carry (Linux 6.1
        # fs/dlm/user.c, dlm_user_convert()), and they come to us.
        for entry in tuple(self.table.values()):
            if entry._id == lock_id:
                return entry
        return None

    def _lose(self, error: OSError) -> None:
        """The file is of no use any more: everything that waits ends."""
        if not self.closed:
            self.closed = -((error.errno or errno.EIO) | LOST)
        table, self.table = self.table, {}
        for entry in table.values():
            entry._lose(self.closed)

    def add(self, token: int, entry: Entry) -> None:
        """Expect results for an entry of the low level."""
        with self._mutex:
            if self.closed:
                raise failure(self.closed, "operation", self.name)
            self.table[token] = entry

    def drop(self, token: int) -> None:
        """Expect none any more."""
        self.table.pop(token, None)

    def write(self, data: bytes, doing: str) -> int:
        """Write a request that is no lock's operation, here and now."""
        writer = next(self.tokens)
        self.writing.append(writer)
        try:
            self.check_open()
            return self._write(data)
        except LockError:
            raise
        except OSError as error:
            number = -(error.errno or errno.EIO)
            raise failure(self.closed or number, doing, self.name) from error
        finally:
            self.writing.remove(writer)

    def entries(self) -> list[Entry]:
        """Return everything that results may come for."""
        with self._mutex:
            return list(self.table.values())

    def check_open(self) -> None:
        """Raise what every operation ends with once the file is closed or lost."""
        if self.closed:
            raise failure(self.closed, "operation", self.name)

    def lost(self) -> LockspaceLostError | None:
        """Return what ended the file, unless it was closed here."""
        found = failure(self.closed, "operation", self.name) if self.closed else None
        return found if isinstance(found, LockspaceLostError) else None

    # ---- waiting --------------------------------------------------------------------------------

    def wait(self, lock: Waited, seconds: float | None) -> None:
        """Wait until the lock's operation has ended, or so many seconds of the backend's clock."""
        end = None if seconds is None else self.backend.now() + seconds
        try:
            while lock._op:
                gate = None
                with self._mutex:
                    self._collect(lock)
                    if not lock._op:
                        return
                    if self._leading and self.threads:
                        gate = threading.Lock()
                        gate.acquire()
                        self.followers[gate] = lock
                    else:
                        self._leading = True
                        self.led = lock
                if gate is None:
                    self._lead(lock, end)
                else:
                    self._follow(gate, end)
                if end is not None and self.backend.now() >= end:
                    return
        finally:
            with self._mutex:
                if self.followers and not self._leading:
                    gate = next(iter(self.followers))
                    del self.followers[gate]
                    gate.release()

    def _follow(self, gate: threading.Lock, end: float | None) -> None:
        """Sleep until the operation has ended, the time has passed, or somebody must lead."""
        try:
            gate.acquire(timeout=-1 if end is None else max(0.0, end - self.backend.now()))
        finally:
            with self._mutex:
                self.followers.pop(gate, None)

    def _lead(self, lock: Waited, end: float | None) -> None:
        """Sleep on the file until the operation has ended or the time has passed."""
        left = None
        try:
            while lock._op:
                if end is not None and (left := end - self.backend.now()) <= 0:
                    return
                self._sleep(lock, left)
                with self._mutex:
                    self.led = None  # here and now nobody need ring
                    self._collect(lock)
                    self.led = lock
        finally:
            with self._mutex:
                self._leading = False
                self.led = None

    def _sleep(self, lock: Waited, left: float | None) -> None:
        if self.threads:
            self._poll.poll(None if left is None else left * 1000)
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            return
        self.look()
        if not lock._op:
            return
        job = lock._job
        try:
            if job is not None and job.pending is not None:
                job.pending.wait(left)
            else:
                self.device.poll(left)
        except OSError as error:
            with self._mutex:
                self._lose(error)
        self.look()

    def tell(self, waited: Waited) -> None:
        """Wake whoever waits for what has ended; the mutex is held."""
        if waited is self.led and self._bell >= 0:
            os.eventfd_write(self._bell, 1)
        if self.followers:
            for gate in [gate for gate, what in self.followers.items() if what is waited]:
                del self.followers[gate]
                gate.release()
        wake = waited._wake
        if wake is not None:
            waited._wake = None
            wake()
