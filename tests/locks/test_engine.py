"""The engine on a device that answers what the test says: races that no world can be asked for.

The device grants nothing by itself: a test says which result comes when.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable

import pytest

from dlm.abi.device import (
    VERSION_SIZE,
    Command,
    LockRequest,
    LockResult,
    decode_request,
    encode_result,
    encode_version,
)
from dlm.locks import (
    DeadlockError,
    Ending,
    LockMode,
    Lockspace,
    LockspaceClosedError,
    LockTimedOutError,
    aio,
)
from dlm.locks.state import SETTLING, LockState
from dlm.terms import ECANCEL, EUNLOCK, LockFlag

EX, PR = LockMode.EX, LockMode.PR
PATIENCE = 20.0
PROBE = 7
"""The lock id of what the engine asks for itself."""


class Script:
    """A device of a lockspace, and the backend that opens it."""

    def __init__(self) -> None:
        self.written: list[LockRequest] = []
        self.react: Callable[[LockRequest], int] = lambda _: 1
        self.running = True
        self.clock = 0.0
        self.tick = 0.001
        self._results: deque[bytes] = deque()
        self._signalled = False
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._turn = threading.Condition()

    # ---- the device ----

    def write(self, request: bytes) -> int:
        """Note a request and let the test answer it."""
        body = decode_request(request, control=False).body
        assert isinstance(body, LockRequest)
        answer = self.react(body)
        with self._turn:
            self.written.append(body)
            self._turn.notify_all()
        return answer

    def read(self, size: int) -> bytes:
        """Give the version, or the next result."""
        if size == VERSION_SIZE:
            return encode_version()
        with self._turn:
            if not self._results:
                raise BlockingIOError(errno.EAGAIN, "nothing")
            if len(self._results) == 1 and self._signalled:
                os.eventfd_read(self._ready)
                self._signalled = False
            return self._results.popleft()

    def fileno(self) -> int:
        """Be readable while a result is there."""
        return self._ready

    def close(self) -> None:
        """Stay open: the test looks at it."""

    disown = close

    def poll(self, timeout: float | None) -> int:
        """Wait for a result."""
        return len(select.select([self._ready], [], [], timeout)[0])

    # ---- the backend ----

    def open_device(self, _: str) -> Script:
        """Be the device."""
        return self

    def concurrent(self) -> bool:
        """Be fit for threads."""
        return True

    def now(self) -> float:
        """Give a clock that runs when it is asked."""
        self.clock += self.tick
        return self.clock

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.clock += seconds

    def read_attribute(self, _: str) -> bytes:
        """Say whether locking is suspended."""
        return b"ff\n" if self.running else b"0\n"

    # ---- the test's side ----

    def result(
        self,
        request: LockRequest,
        status: int = 0,
        lock_id: int = 1,
        bast_mode: int = 0,
        *,
        seen: bool = True,
    ) -> None:
        """Let a result come for what was asked; not ``seen``: whoever sleeps is too slow for it."""
        parameter = request.bastparam if bast_mode else request.castparam
        data = encode_result(LockResult(1, parameter, 1, status, lock_id, 0, bast_mode))
        with self._turn:
            if seen and not self._signalled:
                self._signalled = True
                os.eventfd_write(self._ready, 1)
            self._results.append(data)

    def wait_written(self, count: int) -> None:
        """Wait until so many requests have been written."""
        with self._turn:
            assert self._turn.wait_for(lambda: len(self.written) >= count, PATIENCE)

    def commands(self) -> list[str]:
        """Return what was written, in order."""
        return [
            "CANCEL" if each.flags & LockFlag.CANCEL else Command(each.command).name
            for each in self.written
        ]


@pytest.fixture
def script() -> Script:
    """A device that answers nothing by itself."""
    return Script()


@pytest.fixture
def space(script: Script) -> Lockspace:
    """A lockspace on it."""
    return Lockspace.open(script, "test")  # type: ignore[arg-type]


def answering(script: Script) -> Callable[[LockRequest], int]:
    """Complete each request as it is made, all with lock id 1."""

    def react(request: LockRequest) -> int:
        script.result(request, -EUNLOCK if request.command == Command.UNLOCK else 0)
        return 0 if request.command == Command.UNLOCK else 1

    return react


def granting_probes(script: Script, then: Callable[[LockRequest], None]) -> None:
    """Grant and drop what asks whether a request was answered; the rest is the test's."""

    def react(request: LockRequest) -> int:
        if request.command == Command.LOCK and request.flags & LockFlag.EXPEDITE:
            script.result(request, lock_id=PROBE)
            return PROBE
        if request.lock_id == PROBE:
            script.result(request, -EUNLOCK, PROBE)
            return 0
        then(request)
        return 1

    script.react = react


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Call something in a thread; what it returns or raises is in the list."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(call())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def test_an_uncontended_lock_is_one_write_and_one_read(script: Script, space: Lockspace) -> None:
    """No thread is started for it."""
    script.react = answering(script)
    before = threading.active_count()
    with space.lock("a"):
        pass
    assert script.commands() == ["LOCK", "UNLOCK"]
    assert threading.active_count() == before


def test_a_thread_that_leads_is_woken_when_another_reads_its_result(
    script: Script, space: Lockspace
) -> None:
    """One thread sleeps on the file, one behind it; whoever reads hands the others theirs."""
    first, got = in_thread(lambda: space.lock("a"))
    script.wait_written(1)
    second, also = in_thread(lambda: space.lock("b"))
    script.wait_written(2)
    script.result(script.written[0], lock_id=1, seen=False)
    script.result(script.written[1], lock_id=2, seen=False)
    while space.dispatch():
        pass
    for thread in (first, second):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [lock.name for lock in (*got, *also)] == [b"a", b"b"]  # type: ignore[attr-defined]


def test_a_result_of_an_ended_lock_is_nobodys_though_its_id_is_used_again(
    script: Script, space: Lockspace
) -> None:
    """Since 6.10 an id is free when its lock has ended; a late blocking AST names it."""
    script.react = answering(script)
    old = space.lock("a")
    asked = script.written[0]
    old.unlock()
    new = space.lock("b")
    script.result(asked, bast_mode=EX)
    space.dispatch()
    assert new.lock_id == old.lock_id
    assert new.blocking is None


def test_a_grant_that_is_faster_than_the_cancel_is_returned(
    script: Script, space: Lockspace
) -> None:
    """What has ended is not cancelled: its id may be another's by then."""
    asked: list[LockRequest] = []

    def react(request: LockRequest) -> int:
        asked.append(request)
        return 1

    script.react = react
    thread, ended = in_thread(lambda: space.lock("a", timeout=0.05))
    script.wait_written(1)
    script.result(asked[0], seen=False)
    thread.join(PATIENCE)
    (lock,) = ended
    assert getattr(lock, "mode", None) == EX
    assert script.commands() == ["LOCK"]


def test_a_timeout_that_the_kernel_confirms(script: Script, space: Lockspace) -> None:
    """It is seen that the request was answered; then CANCEL is written, its answer waited for."""

    def react(request: LockRequest) -> None:
        if request.flags & LockFlag.CANCEL:
            script.result(script.written[0], -ECANCEL)

    granting_probes(script, react)
    with pytest.raises(LockTimedOutError) as caught:
        space.lock("a", timeout=0.05)
    assert not space._engine._probes
    assert caught.value.ending is Ending.CANCELLED
    assert script.commands() == ["LOCK", "LOCK", "UNLOCK", "CANCEL"]


def test_what_is_free_is_granted_however_short_the_time(script: Script, space: Lockspace) -> None:
    """A timeout of 0 begins while other writes are still to be made: it is asked for, too."""
    begun, released = threading.Event(), threading.Event()
    answer = answering(script)

    def react(request: LockRequest) -> int:
        if request.name == b"first":
            begun.set()
            released.wait(PATIENCE)
        return answer(request)

    script.react = react
    first, _ = in_thread(lambda: space.lock("first", timeout=PATIENCE))
    assert begun.wait(PATIENCE)
    second, ended = in_thread(lambda: space.lock("second", timeout=0))
    second.join(0.1)  # it waits for its write; else it has ended by now
    released.set()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert getattr(ended[0], "held", ended[0]) is True


def test_a_cancel_that_no_node_answers(script: Script, space: Lockspace) -> None:
    """The node dies just then: the timeout ends the call all the same, LEFT."""

    def react(request: LockRequest) -> None:
        if request.flags & LockFlag.CANCEL:
            script.tick = 0.1  # from now on a second is soon over

    granting_probes(script, react)
    with pytest.raises(LockTimedOutError) as caught:
        space.lock("a", timeout=0.05)
    assert caught.value.ending is Ending.LEFT
    assert script.commands() == ["LOCK", "LOCK", "UNLOCK", "CANCEL"]


def test_what_has_ended_unread_is_not_cancelled(script: Script, space: Lockspace) -> None:
    """Since 6.10 its id may be another lock's already: what has come is read before a CANCEL."""

    def react(request: LockRequest) -> int:
        if request.command == Command.LOCK and request.flags & LockFlag.EXPEDITE:
            script.result(request, lock_id=PROBE, seen=False)
            return PROBE
        if request.lock_id == PROBE:
            script.result(request, -EUNLOCK, PROBE, seen=False)
            script.result(script.written[0], seen=False)  # granted at the last moment
            return 0
        return 1

    script.react = react
    assert space.lock("a", timeout=0.05).held
    assert script.commands() == ["LOCK", "LOCK", "UNLOCK"]


def test_what_no_node_answers_is_not_cancelled(script: Script, space: Lockspace) -> None:
    """A node is dead and nobody has stopped the lockspace yet: the timeout ends the call, LEFT."""

    def react(request: LockRequest) -> int:
        if request.flags & LockFlag.EXPEDITE:
            script.tick = 0.1  # from now on a second is soon over
        return 1

    script.react = react
    with pytest.raises(LockTimedOutError) as caught:
        space.lock("a", timeout=0.05)
    assert caught.value.ending is Ending.LEFT
    assert script.commands() == ["LOCK", "LOCK"]


def test_a_probe_is_no_lock_of_the_program(script: Script, space: Lockspace) -> None:
    """A release right after a timeout is not refused because of what the engine asked itself."""

    def react(request: LockRequest) -> int:
        if request.flags & LockFlag.EXPEDITE:
            script.result(script.written[0])  # granted at the last moment
            return PROBE
        if request.command == Command.UNLOCK:
            script.result(request, -EUNLOCK)
        return 1

    script.react = react
    space.lock("a", timeout=0.05).unlock()
    assert len(space._engine.entries()) == 1  # no node has answered the probe
    assert not space._engine.has_locks()


def test_what_a_stop_left_is_undone_however_busy_the_lock_is(
    script: Script, space: Lockspace
) -> None:
    """A late grant is unlocked by the lockspace's own thread, which tries EBUSY again."""
    script.running = False
    busy = iter((True, True, False))

    def react(request: LockRequest) -> None:
        if request.command == Command.UNLOCK and not request.flags & LockFlag.CANCEL:
            if next(busy):
                script.written.append(request)
                raise OSError(errno.EBUSY, "a cancel is under way")
            script.result(request, -EUNLOCK)

    granting_probes(script, react)
    with pytest.raises(LockTimedOutError) as caught:
        space.lock("a", timeout=0.05)
    assert caught.value.ending is Ending.LEFT
    script.wait_written(4)
    script.result(script.written[0])
    script.wait_written(7)
    assert script.commands() == ["LOCK", "LOCK", "UNLOCK", "CANCEL", *["UNLOCK"] * 3]
    assert space.locks() == []


def test_a_request_has_ended_only_when_its_write_has(
    script: Script, space: Lockspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grant may be read before the write(2) returns; 7.2 panics if it is unlocked so soon."""
    noted, ended_one, answer = threading.Event(), LockState._ended, answering(script)
    seen: list[int] = []

    def note(lock: LockState, status: int) -> None:
        ended_one(lock, status)
        seen.append(lock._op)
        noted.set()

    def react(request: LockRequest) -> int:
        found = answer(request)
        if request.command == Command.LOCK:
            noted.wait(PATIENCE)
        return found

    monkeypatch.setattr(LockState, "_ended", note)
    script.react = react
    thread, ended = in_thread(lambda: space.lock("a", timeout=PATIENCE).unlock(timeout=PATIENCE))
    thread.join(PATIENCE)
    script.wait_written(2)
    assert seen[0] == SETTLING
    assert ended == [None]
    assert script.commands() == ["LOCK", "UNLOCK"]


def test_a_close_waits_for_who_is_about_to_write(script: Script, space: Lockspace) -> None:
    """The number of a closed file soon means another one: nobody may write to that by mistake."""
    begun, waits, closed = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def react(request: LockRequest) -> int:
        if request.flags & LockFlag.EXPEDITE:
            script.result(request, lock_id=PROBE)
            return PROBE
        begun.set()
        waits.wait(PATIENCE)  # until the other thread does
        seen.append(closed.is_set())
        return 1

    script.react = react
    script.pause = lambda _: waits.set()  # type: ignore[method-assign]
    script.now = lambda: 0.0  # type: ignore[method-assign]
    script.close = closed.set  # type: ignore[method-assign]
    thread, ended = in_thread(lambda: space.lock("a"))
    assert begun.wait(PATIENCE)
    space.close()
    thread.join(PATIENCE)
    assert closed.is_set()
    assert seen == [False]
    assert isinstance(ended[0], LockspaceClosedError)


@pytest.mark.parametrize("status", [0, -errno.EDEADLK])
def test_a_conversion_that_ended_before_another_thread_unlocked(
    script: Script, space: Lockspace, status: int
) -> None:
    """Its caller wakes when the lock has ended, and is told of the conversion all the same."""
    script.react = answering(script)
    lock = space.lock("a")
    unlocked = threading.Event()

    def react(request: LockRequest) -> int:
        if request.command == Command.UNLOCK:
            script.result(request, -EUNLOCK, seen=False)
            unlocked.set()
        else:
            script.result(request, status, seen=False)
            space.dispatch()  # another thread reads it, and goes on
            lock.unlock()
        return 0

    script.react = react
    thread, ended = in_thread(lambda: lock.convert(PR))
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert unlocked.is_set()
    (outcome,) = ended
    assert outcome is None if not status else isinstance(outcome, DeadlockError), outcome
    assert not lock.held


def test_a_close_gives_up_nothing_unanswered(script: Script, space: Lockspace) -> None:
    """The file stays open, by itself, until the node has answered that may be dead."""
    probes: list[LockRequest] = []
    closed = threading.Event()

    def react(request: LockRequest) -> int:
        if request.flags & LockFlag.EXPEDITE:
            probes.append(request)
            script.tick = 0.1  # from now on a second is soon over
        return 1

    script.react = react
    script.close = closed.set  # type: ignore[method-assign]
    space.submit(LockRequest(mode=EX, name=b"a"))
    space.close()
    assert not closed.is_set()
    assert script.commands()[:2] == ["LOCK", "LOCK"]
    script.wait_written(3)
    for probe in probes:
        script.result(probe, lock_id=PROBE)
    assert closed.wait(PATIENCE)


def test_a_task_is_told_though_the_next_write_sleeps(script: Script) -> None:
    """A stop that falls between two writes keeps the second request, not the first's grant."""
    both, go_on = threading.Event(), threading.Event()
    answer = answering(script)

    def react(request: LockRequest) -> int:
        event = both if request.name == b"first" else go_on
        assert event.wait(2 * PATIENCE)
        return answer(request)

    async def main() -> None:
        script.react = react
        space = await aio.Lockspace.open(script, "test")  # type: ignore[arg-type]
        first = asyncio.create_task(space.lock("first"))
        second = asyncio.create_task(space.lock("second"))
        await asyncio.sleep(0)
        both.set()
        try:
            await asyncio.wait_for(asyncio.shield(first), PATIENCE)
            assert not second.done()
        finally:
            go_on.set()
            await asyncio.wait_for(second, PATIENCE)

    asyncio.run(main())
