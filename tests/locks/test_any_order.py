"""Calls in any order: none sends what is known to hang or corrupt a kernel, and nothing is left.

Every request is looked at on its way to the device. Known of Linux 6.1 (fs/dlm/user.c, lock.c): the
death of who *waits* for a persistent lock corrupts the list of orphans; UNLOCK of an orphan that
was not adopted hangs; PURGE with one's own thread id drops one's own living locks. Since 6.10 an id
is handed out again before its owner has read that its lock has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dlm.abi.device import (
    VERSION_SIZE,
    Command,
    LockRequest,
    PurgeRequest,
    decode_request,
    decode_result,
)
from dlm.locks import Lock, LockError, LockFlag, Lockspace, WouldBlockError
from dlm.ports import Backend, Device, DeviceCall, DeviceWrite, Pending
from dlm.terms import LockMode
from tests.locks.conftest import ON_KERNEL
from tests.locks.stress import documented_names
from tests.locks.worlds import NAME, Places

STEPS = 120
SEEDS = range(6 if ON_KERNEL else 12)
NAMES = ("a", "b", "c")
BRIEF = 0.02
FLAGS = (LockFlag(0), LockFlag(0), LockFlag.NOQUEUE, LockFlag.NODLCKWT, LockFlag.CONVDEADLK)
STARTS = (LockFlag(0), LockFlag(0), LockFlag.NOQUEUE, LockFlag.HEADQUE, LockFlag.NOORDER)


class Watch:
    """What is known of all lock ids of a node, and what was sent that should not have been."""

    def __init__(self) -> None:
        self.owners: dict[int, object] = {}
        self.late: set[tuple[object, int]] = set()
        """Ids that came late, after a stop, or noted by a thread that was held up: the file may
        mean its own request, or another has the id by then."""
        self.noted: dict[int, int] = {}
        """How often it was noted whose an id is."""
        self.wrong: list[str] = []
        self.sent = 0

    def look(self, file: object, data: bytes, thread: int) -> LockRequest | PurgeRequest:
        """Look at a request before it is written."""
        self.sent += 1
        body = decode_request(data, control=False).body
        assert isinstance(body, LockRequest | PurgeRequest)
        if isinstance(body, PurgeRequest):
            if body.pid == thread and body.nodeid in {0, 1}:
                self.wrong.append(f"purge of its own thread {body.pid}")
        elif body.command == Command.LOCK and not body.flags & LockFlag.CONVERT:
            if body.flags & LockFlag.PERSISTENT and not body.flags & LockFlag.ORPHAN:
                self.wrong.append(f"a persistent request for {body.name!r}")
        elif (
            body.command != Command.DEADLOCK
            and self.owners.get(body.lock_id) is not file
            and (file, body.lock_id) not in self.late
        ):
            self.wrong.append(f"{Command(body.command).name} of lock {body.lock_id}, not its own")
        return body

    def answered(
        self, file: object, body: LockRequest | PurgeRequest, answer: int, before: dict[int, int]
    ) -> None:
        """Note whose a new lock is; ``before`` is what was ``noted`` when it was asked for."""
        new = isinstance(body, LockRequest) and body.command == Command.LOCK
        if not new or body.flags & LockFlag.CONVERT:
            return
        if self.noted.get(answer) == before.get(answer) or self.owners[answer] is file:
            self.own(answer, file)
        else:
            self.late.add((file, answer))

    def own(self, lock_id: int, file: object) -> None:
        """Note whose an id is."""
        self.owners[lock_id] = file
        self.noted[lock_id] = self.noted.get(lock_id, 0) + 1


class WatchedPending:
    """A write under way whose answer is noted when it is asked for."""

    def __init__(self, pending: Pending, note: Callable[[int], None]) -> None:
        self._pending = pending
        self._note = note

    def result(self) -> int:
        """Return the answer."""
        answer: int = self._pending.result()
        self._note(answer)
        return answer

    def __getattr__(self, name: str) -> Any:  # Any: whatever the pending call has
        return getattr(self._pending, name)


class WatchedDevice:
    """A lockspace's device whose requests are looked at."""

    def __init__(self, device: Device, watch: Watch, process_id: int) -> None:
        self._device = device
        self._watch = watch
        self._process_id = process_id

    def write(self, request: bytes) -> int:
        """Write a request."""
        body = self._watch.look(self, request, self._thread())
        before = dict(self._watch.noted)
        answer = self._device.write(request)
        self._watch.answered(self, body, answer, before)
        return answer

    def read(self, size: int) -> bytes:
        """Read a result; a grant comes to the owner of its lock.

        So does everything else, but perhaps late: since 6.10 the id may be another's by then.
        """
        data = self._device.read(size)
        if size != VERSION_SIZE:
            result = decode_result(data)
            if not (result.status or result.bast_mode):
                self._watch.own(result.lock_id, self)
        return data

    def submit(self, call: DeviceCall, *, detached: bool = False) -> Pending:
        """Begin a call."""
        if not isinstance(call, DeviceWrite):
            return self._device.submit(call, detached=detached)
        body = self._watch.look(self, call.request, self._thread())
        pending = self._device.submit(call, detached=detached)
        if pending.done():
            before = dict(self._watch.noted)
            return WatchedPending(
                pending, lambda answer: self._watch.answered(self, body, answer, before)
            )
        return WatchedPending(pending, lambda answer: self._watch.late.add((self, answer)))

    def _thread(self) -> int:
        return threading.get_native_id() if ON_KERNEL else self._process_id

    def __getattr__(self, name: str) -> Any:  # Any: whatever the device has
        return getattr(self._device, name)


class WatchedBackend:
    """A backend whose lockspace devices are watched."""

    def __init__(self, backend: Backend, watch: Watch) -> None:
        self._backend = backend
        self._watch = watch

    def open_device(self, name: str, **flags: Any) -> Any:  # Any: as the backend's
        """Open a device."""
        device = self._backend.open_device(name, **flags)
        if name != f"dlm_{NAME}":
            return device
        return WatchedDevice(device, self._watch, self._backend.process_id())

    def __getattr__(self, name: str) -> Any:  # Any: whatever the backend has
        return getattr(self._backend, name)


class Chaos:
    """Somebody who makes calls in any order on three files of one node."""

    def __init__(self, world: Places, seed: int) -> None:
        self.world = world
        self.chance = Random(seed)
        self.watch = Watch()
        self.spaces = [self.open() for _ in range(3)]
        self.locks: list[Lock] = []
        self.raw: list[tuple[Lockspace, int]] = []
        self.stopped = False
        self.undocumented: list[str] = []

    def open(self) -> Lockspace:
        """Open the lockspace once more, watched."""
        backend = WatchedBackend(self.world.process(), self.watch)
        # Without threads a kernel's backend starts a helper process for every timed request.
        threads = None if ON_KERNEL else False
        return Lockspace.open(backend, NAME, threads=threads)  # type: ignore[arg-type]

    def run(self) -> None:
        """Make calls; then end everything."""
        calls: tuple[Callable[[], object], ...] = (
            self.lock,
            self.lock,
            self.lock,
            self.convert,
            self.convert,
            self.unlock,
            self.unlock,
            self.submit,
            self.submit_again,
            self.reopen,
            self.adopt,
            self.purge,
            self.deadlock,
            self.cancel,
            self.dispatch,
            self.value,
            self.stop_or_start,
        )
        for _ in range(STEPS):
            try:
                self.chance.choice(calls)()
            except LockError as error:
                name = type(error).__name__
                if name not in documented_names and name != "LockError":
                    self.undocumented.append(repr(error))
        if self.stopped:
            self.world.start()
        for space in self.spaces:
            space.close()
        last = self.open()
        last.purge()
        last.close()

    def space(self) -> Lockspace:
        """Choose a file."""
        return self.chance.choice(self.spaces)

    def mode(self) -> LockMode:
        """Choose a mode."""
        return self.chance.choice(tuple(LockMode))

    def a_lock(self) -> Lock | None:
        """Choose a lock that was once granted."""
        return self.chance.choice(self.locks) if self.locks else None

    def lock(self) -> None:
        """Request a lock."""
        chance = self.chance
        lock = self.space().lock(
            chance.choice(NAMES),
            self.mode(),
            timeout=BRIEF,
            flags=chance.choice(STARTS),
            value_block=chance.random() < 0.5,
            persistent=chance.random() < 0.5,
        )
        self.locks.append(lock)

    def convert(self) -> None:
        """Convert a lock, ended or not."""
        if lock := self.a_lock():
            lock.convert(self.mode(), timeout=BRIEF, flags=self.chance.choice(FLAGS))

    def unlock(self) -> None:
        """Unlock a lock, ended or not."""
        if lock := self.a_lock():
            lock.unlock(invalidate=self.chance.random() < 0.2, timeout=BRIEF)

    def value(self) -> None:
        """Set a value."""
        if lock := self.a_lock():
            lock.value = bytes([self.chance.randrange(256)]) * 32

    def cancel(self) -> None:
        """Cancel what is not waiting."""
        if lock := self.a_lock():
            lock.cancel()

    def submit(self) -> None:
        """Begin a request of our own."""
        if self.stopped:
            return  # it would sleep, and this is the only thread
        space = self.space()
        flags = self.chance.choice((0, LockFlag.NOQUEUE, LockFlag.PERSISTENT))
        request = LockRequest(mode=self.mode(), flags=flags, name=b"a")
        self.raw.append((space, space.submit(request)[0]))

    def submit_again(self) -> None:
        """Begin an operation by id, on whichever file, with whichever flags."""
        if self.stopped:
            return
        known = [number for _, number in self.raw] + [lock.lock_id for lock in self.locks] + [77]
        flags = self.chance.choice(
            (0, LockFlag.CONVERT, LockFlag.CONVERT | LockFlag.PERSISTENT, LockFlag.CANCEL)
        )
        command = Command.LOCK if flags & LockFlag.CONVERT else Command.UNLOCK
        number = self.chance.choice(known)
        self.space().submit(LockRequest(command, self.mode(), flags, number))

    def reopen(self) -> None:
        """Close a file, with whatever is under way in it, and open another."""
        if self.stopped:
            return
        number = self.chance.randrange(len(self.spaces))
        self.spaces[number].close()
        self.spaces[number] = self.open()

    def adopt(self) -> None:
        """Take over an orphan, if there is one."""
        space = self.space()
        orphans = space.orphans()
        if orphans and self.chance.random() < 0.8:
            found = self.chance.choice(orphans)
            self.locks.append(space.adopt(found.name, found.mode))
        else:
            self.locks.append(space.adopt(self.chance.choice(NAMES), self.mode()))

    def purge(self) -> None:
        """Drop orphans: all, or a thread's, whosever it is."""
        if self.stopped:
            return
        pids = [each.pid for each in self.world.locks()]
        self.space().purge(self.chance.choice((0, 1)), self.chance.choice([0, *pids]))

    def deadlock(self) -> None:
        """Cancel somebody's request by its id."""
        waiting = [each.lock_id for each in self.world.locks() if each.waits]
        if waiting and not self.stopped:
            self.space().deadlock_cancel(self.chance.choice(waiting))

    def dispatch(self) -> None:
        """Read what is there."""
        self.space().dispatch()

    def stop_or_start(self) -> None:
        """Suspend locking, or let it go on."""
        if self.stopped:
            self.world.start()
        else:
            self.world.stop()
        self.stopped = not self.stopped


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order(world: Places, seed: int) -> None:
    """Random calls on three files: every request may be sent, every exception is documented."""
    chaos = Chaos(world, seed)
    chaos.run()
    assert chaos.watch.wrong == []
    assert chaos.undocumented == []
    assert chaos.watch.sent > STEPS / 4
    world.eventually(lambda: (world.settle(), world.locks() == [])[1], "the end of all locks")


class Requests(Watch):
    """Keeps the flags of every new request."""

    def __init__(self) -> None:
        super().__init__()
        self.flags: list[int] = []

    def look(self, file: object, data: bytes, thread: int) -> LockRequest | PurgeRequest:
        """Look at a request before it is written."""
        body = super().look(file, data, thread)
        if isinstance(body, LockRequest) and body.command == Command.LOCK:
            self.flags.append(body.flags)
        return body


def test_what_is_to_be_had_at_once_is_asked_for_without_noqueue(world: Places) -> None:
    """Since 6.10 its refusal by another node can panic: it is queued, and cancelled."""
    watch = Requests()
    backend = WatchedBackend(world.process(), watch)
    holder = Lockspace.open(world.process(), NAME)
    space = Lockspace.open(backend, NAME, threads=None if ON_KERNEL else False)  # type: ignore[arg-type]
    with holder.lock("res"):
        assert space.try_lock("res", LockMode.PR) is None
        with pytest.raises(WouldBlockError):
            space.lock("res", flags=LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST)
        assert [each.waits for each in world.locks()] == [False]
    lock = space.try_lock("res", value_block=True, persistent=True)
    assert lock is not None
    lock.unlock()
    assert watch.flags
    assert not any(flags & LockFlag.NOQUEUE for flags in watch.flags)
    assert watch.wrong == []
    holder.close()
    space.close()
