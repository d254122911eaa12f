"""The lock manager of 2005: a start that is finished later, results held back, locks by id."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from dlm.core.events import (
    CallId,
    CloseFile,
    Convert,
    Deliver,
    FileId,
    Finish,
    Input,
    OpenFile,
    Output,
    RecoveryEnded,
    Reply,
    Request,
    ResultQueued,
    Send,
    SetTimer,
    Start,
    StartMember,
    Stop,
    Timer,
    TimerFired,
    Unlock,
    UserArgs,
)
from dlm.core.lockspace import Lockspace
from dlm.terms import (
    ECANCEL,
    EUNLOCK,
    LINUX_2005_APRIL,
    LINUX_2005_JULY,
    KernelProfile,
    LockFlag,
    NodeId,
)

ARGS = UserArgs(castaddr=1, bastaddr=2)
PR, EX = 3, 5


class World:
    """Some nodes' machines; messages are delivered at once, in order; polls by ``poll``."""

    def __init__(self, *numbers: int, profile: KernelProfile = LINUX_2005_APRIL) -> None:
        self.cores = {
            number: Lockspace("test", NodeId(number), profile, holds_results=True)
            for number in numbers
        }
        self.seen: dict[int, list[Output]] = {number: [] for number in numbers}
        self.calls = 0
        self._flying: deque[tuple[int, Deliver]] = deque()

    def step(self, number: int, question: Input) -> None:
        """Let a node take an input and everything that follows from it."""
        self._take(number, question)
        while self._flying:
            target, message = self._flying.popleft()
            if target in self.cores:
                self._take(target, message)

    def _take(self, number: int, question: Input) -> None:
        reply, outputs = self.cores[number].step(question)
        for output in outputs if reply is None else [*outputs, reply]:
            self.seen[number].append(output)
            if isinstance(output, Send):
                self._flying.append((int(output.target), Deliver(NodeId(number), output.message)))

    def poll(self, times: int = 20) -> None:
        """Let the barrier timers of all nodes run out, again and again."""
        for _ in range(times):
            for number in self.cores:
                self.step(number, TimerFired(Timer.BARRIER_POLL))

    def start(self, *, finish_later: bool = True, finish: bool = True) -> None:
        """Stop and start every node with all of them; finish."""
        members = tuple(StartMember(NodeId(number), 1) for number in self.cores)
        for number in self.cores:
            self.step(number, Stop(self.call()))
        for number in self.cores:
            self.step(number, Start(members, finish_later=finish_later))
        self.poll()
        for number in self.cores:
            if finish:
                self.step(number, Finish())

    def call(self) -> CallId:
        """Return a new call's id."""
        self.calls += 1
        return CallId(self.calls)

    def ask(self, number: int, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Reply | None:
        """Put a call; return its reply, None when it waits."""
        call = self.call()
        self.step(number, make(call, *args, **kwargs))
        return self.reply(number, call)

    def reply(self, number: int, call: CallId) -> Reply | None:
        """Return the reply to a call, if it has come."""
        replies = [o for o in self.seen[number] if isinstance(o, Reply) and o.call == call]
        assert len(replies) < 2
        return replies[0] if replies else None

    def lock(self, number: int, file: int, name: bytes, mode: int, flags: int = 0) -> int:
        """Request a lock; return its id."""
        reply = self.ask(number, Request, FileId(file), 1, name, mode, flags, ARGS)
        assert reply is not None
        assert not reply.error
        return reply.value

    def statuses(self, number: int, file: int) -> list[tuple[int, int]]:
        """Take the results of a file: lock id and status of each."""
        found = []
        while self.cores[number].has_result(FileId(file)):
            result, outputs = self.cores[number].take(FileId(file))
            assert result is not None
            self.seen[number] += outputs
            found.append((result.lock_id, result.status))
        return found

    def ended(self, number: int) -> list[int]:
        """Return how the recoveries of a node ended."""
        return [o.error for o in self.seen[number] if isinstance(o, RecoveryEnded)]


def running(*numbers: int) -> World:
    """Return nodes that run, each with the file 1 open."""
    world = World(*numbers)
    world.start()
    for number in numbers:
        world.step(number, OpenFile(FileId(1)))
    return world


# ---- start, finish ------------------------------------------------------------------------------


def test_locking_stays_off_until_finish() -> None:
    """After the recovery RecoveryEnded(0) comes once; a request waits until ``Finish``."""
    world = World(1, 2)
    world.start(finish=False)
    assert [world.ended(number) for number in (1, 2)] == [[0], [0]]
    world.step(1, OpenFile(FileId(1)))
    call = world.call()
    world.step(1, Request(call, FileId(1), 1, b"r", EX, 0, ARGS))
    assert (world.cores[1].stopped, world.reply(1, call)) == (True, None)
    world.step(1, Finish())
    assert not world.cores[1].stopped
    assert world.ended(1) == [0]
    # The directory or master may be the node that does not run yet: it answers at its own finish.
    world.step(2, Finish())
    assert world.reply(1, call) is not None
    assert [status for _, status in world.statuses(1, 1)] == [0]


def test_finish_without_a_recovery_that_has_ended_does_nothing() -> None:
    """Before the start, during it, after a stop and twice: locking stays as it is."""
    world = World(1, 2)
    world.step(1, Finish())
    assert world.cores[1].stopped
    members = (StartMember(NodeId(1), 1), StartMember(NodeId(2), 1))
    world.step(1, Start(members, finish_later=True))
    world.step(1, Finish())
    assert world.cores[1].stopped
    world.start(finish=False)
    world.step(1, Stop(world.call()))
    world.step(1, Finish())
    assert world.cores[1].stopped


def test_a_start_may_follow_a_start_without_a_stop() -> None:
    """The second recovery goes through all barriers again; ``Finish`` then means the second."""
    world = World(1, 2)
    world.start(finish=False)
    members = (StartMember(NodeId(1), 1), StartMember(NodeId(2), 1))
    world.step(2, Stop(world.call()))
    world.step(1, Start(members, finish_later=True))
    world.step(1, Finish())
    assert world.cores[1].stopped
    world.step(2, Start(members, finish_later=True))
    world.poll()
    assert [world.ended(number) for number in (1, 2)] == [[0, 0], [0, 0]]
    world.step(1, Finish())
    assert not world.cores[1].stopped


def test_april_has_no_last_barrier_and_july_has() -> None:
    """DONE is set by the recovery of July only: 0x3f and 0xff on the lowest node."""
    april = World(1, 2)
    april.start()
    july = World(1, 2, profile=LINUX_2005_JULY)
    july.start(finish_later=False, finish=False)
    assert (april.cores[1].recover_status, july.cores[1].recover_status) == (0x3F, 0xFF)
    assert not july.cores[2].stopped


# ---- results ------------------------------------------------------------------------------------


def test_no_result_can_be_read_while_stopped() -> None:
    """What was not read before the stop is told of again when locking is on."""
    world = running(1)
    lock = world.lock(1, 1, b"r", EX)
    assert world.cores[1].has_result(FileId(1))
    world.step(1, Stop(world.call()))
    assert not world.cores[1].has_result(FileId(1))
    assert world.cores[1].take(FileId(1)) == (None, [])
    world.seen[1].clear()
    world.start()
    assert [o for o in world.seen[1] if isinstance(o, ResultQueued)] == [ResultQueued(FileId(1))]
    assert world.statuses(1, 1) == [(lock, 0)]


# ---- locks by id --------------------------------------------------------------------------------


def test_lock_ids_have_a_bucket_below_and_a_counter_above() -> None:
    """The first 1024 locks have different buckets and the counter 1; ids never come again."""
    world = running(1)
    ids = [world.lock(1, 1, b"r", 0) for _ in range(1025)]
    assert {lock_id >> 16 for lock_id in ids[:1024]} == {1}
    assert len({lock_id & 0xFFFF for lock_id in ids[:1024]}) == 1024
    assert max(lock_id & 0xFFFF for lock_id in ids) == 1023
    assert ids[1024] >> 16 == 2


@pytest.mark.parametrize(
    ("lock_id", "number"), [(0x10400, errno.EBADSLT), (0xFFFF, errno.EBADSLT), (1, errno.ENOENT)]
)
def test_unknown_ids(lock_id: int, number: int) -> None:
    """A bucket of 1024 and above is EBADSLT, an id that nobody has ENOENT."""
    world = running(1)
    for reply in (
        world.ask(1, Convert, FileId(1), 1, lock_id, PR, LockFlag.CONVERT, ARGS),
        world.ask(1, Unlock, FileId(1), lock_id, 0, ARGS),
    ):
        assert reply is not None
        assert reply.error == number


def test_a_conversion_of_an_orphan_makes_it_the_caller_s() -> None:
    """Without PERSISTENT it then goes with the caller's file, and the completion comes there."""
    world = running(1)
    lock = world.lock(1, 1, b"r", EX, LockFlag.PERSISTENT)
    world.ask(1, CloseFile, FileId(1))
    assert world.cores[1].busy()
    world.step(1, OpenFile(FileId(2)))
    reply = world.ask(1, Convert, FileId(2), 1, lock, PR, LockFlag.CONVERT, ARGS)
    assert reply is not None
    assert (reply.value, reply.error) == (lock, 0)
    assert world.statuses(1, 2) == [(lock, 0)]
    world.ask(1, CloseFile, FileId(2))
    assert not world.cores[1].busy()


def test_a_refused_conversion_leaves_an_orphan_an_orphan() -> None:
    """A mode that does not exist is EINVAL, and closing the file does not end the lock."""
    world = running(1)
    lock = world.lock(1, 1, b"r", EX, LockFlag.PERSISTENT)
    world.ask(1, CloseFile, FileId(1))
    world.step(1, OpenFile(FileId(2)))
    reply = world.ask(1, Convert, FileId(2), 1, lock, 6, LockFlag.CONVERT, ARGS)
    assert reply is not None
    assert reply.error == errno.EINVAL
    world.ask(1, CloseFile, FileId(2))
    assert world.cores[1].busy()


def test_an_unlock_by_id_completes_at_the_owner_and_of_an_orphan_at_the_caller() -> None:
    """Anybody may unlock; the result goes to the file that has the lock."""
    world = running(1)
    world.step(1, OpenFile(FileId(2)))
    owned = world.lock(1, 1, b"r", EX)
    world.statuses(1, 1)
    world.ask(1, Unlock, FileId(2), owned, 0, UserArgs())
    assert (world.statuses(1, 1), world.statuses(1, 2)) == ([(owned, -EUNLOCK)], [])
    orphan = world.lock(1, 1, b"r", EX, LockFlag.PERSISTENT)
    world.ask(1, CloseFile, FileId(1))
    world.ask(1, Unlock, FileId(2), orphan, 0, UserArgs())
    assert world.statuses(1, 2) == [(orphan, -EUNLOCK)]


def test_unlock_and_cancel_ask_for_the_right_state() -> None:
    """CANCEL of a granted lock and an unlock of a waiting one are EINVAL; the others go."""
    world = running(1)
    held, waits = world.lock(1, 1, b"r", EX), world.lock(1, 1, b"r", EX)
    world.statuses(1, 1)
    for lock, flags in ((held, LockFlag.CANCEL), (waits, 0)):
        reply = world.ask(1, Unlock, FileId(1), lock, flags, ARGS)
        assert reply is not None
        assert reply.error == errno.EINVAL
    world.ask(1, Unlock, FileId(1), waits, LockFlag.CANCEL, ARGS)
    world.ask(1, Unlock, FileId(1), held, 0, ARGS)
    assert world.statuses(1, 1) == [(waits, -ECANCEL), (held, -EUNLOCK)]


def test_a_waiting_persistent_request_stays_when_its_file_closes() -> None:
    """It becomes nobody's, goes on waiting, and is granted; the kernel logs that it could not."""
    world = running(1)
    world.step(1, OpenFile(FileId(2)))
    held = world.lock(1, 1, b"r", EX)
    waits = world.lock(1, 2, b"r", EX, LockFlag.PERSISTENT)
    world.ask(1, CloseFile, FileId(2))
    world.ask(1, Unlock, FileId(1), held, 0, ARGS)
    block = world.cores[1].lock(waits)
    assert block is not None
    assert block.granted_mode == EX


def test_a_blocked_call_can_be_abandoned() -> None:
    """A lockspace that is removed under its callers gives up their calls, oldest first."""
    world = running(1)
    world.step(1, Stop(world.call()))
    calls = [world.call(), world.call()]
    for call in calls:
        world.step(1, Request(call, FileId(1), 1, b"r", EX, 0, ARGS))
    abandoned = world.cores[1].abandon_calls()
    assert [question.call for question in abandoned] == calls
    assert world.cores[1].blocked_calls() == 0


def test_timers_are_asked_for_while_a_barrier_is_not_reached() -> None:
    """A node whose peer has not started yet polls it."""
    world = World(1, 2)
    members = (StartMember(NodeId(1), 1), StartMember(NodeId(2), 1))
    world.step(1, Start(members, finish_later=True))
    polls = [o for o in world.seen[1] if isinstance(o, SetTimer)]
    assert polls[-1].timer is Timer.BARRIER_POLL
