"""One recovery: what it waits for, what goes on when an answer has come, how it ends.

Decides: when a question is put again, which answers are still awaited, what a stop leaves behind.
May not know: the steps (steps.py), which are a generator that yields what it waits for and is sent
the answer; clocks: delays are timers.
Mirrors: dlm_wait_function() of fs/dlm/recover.c and the asking half of rcom.c (Linux 6.1).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from dlm.core import rebuilding
from dlm.core.blocks import NEW_MASTER, Resource
from dlm.core.events import CancelTimer, SetTimer, StartMember, Timer
from dlm.core.messages import RecoveryMessage, RecoveryType
from dlm.core.state import State

QUERY_RETRY = 5.0
"""Seconds after which an unanswered question is put again (recover_timer's default)."""


class RecoveryFailed(Exception):
    """A recovery cannot go on; ``number`` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


# ---- what a recovery waits for ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """Ask a member and wait for its reply; put again when none comes."""

    target: int
    type: RecoveryType
    name: bytes = b""
    want_slots: bool = False


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Wait until nothing is left of what was asked for many resources at once."""


Wait = Question | Delay | Answers
Steps = Generator[Wait, RecoveryMessage | None, None]
Told = Generator[Wait, RecoveryMessage | None, RecoveryMessage]


class Recovery:
    """One recovery of one lockspace."""

    def __init__(
        self,
        state: State,
        sequence: int,
        members: tuple[StartMember, ...],
        steps: Callable[[Recovery], Steps],
        *,
        finish_later: bool = False,
    ) -> None:
        self.state = state
        self.sequence = sequence
        self.configured = members
        self.finish_later = finish_later
        """Locking stays off at the end; who manages the members sees to the last barrier."""
        self.root: list[Resource] = []
        self.places: dict[bytes, int] = {}
        """Where in ``root`` each name is."""
        self.rebuilds = False
        """Members are gone, so locks are purged and rebuilt."""
        self.awaited: dict[int, Resource] = {}
        """Resources for which answers are outstanding, by the id that the answers carry."""
        self.rebuilt_here = 0
        self._last_id = 0
        self._question: Question | None = None
        self._question_id = 0
        self._wait: Wait | None = None
        self._steps = steps(self)

    # ---- driven by the lockspace ----------------------------------------------------------------

    def begin(self) -> bool:
        """Go as far as possible without an answer; True when recovery has come to its end.

        This, and whatever else goes on with it, raises ``RecoveryFailed``.
        """
        return self._go_on(None)

    def abort(self) -> None:
        """A stop has come: leave everything so that a new recovery can begin."""
        self._steps.close()
        self._wait = None
        self._forget_question()
        for resource in self.awaited.values():
            resource.recover_locks = 0
            resource.recover_id = 0
        self.awaited.clear()
        self.state.outputs.append(CancelTimer(Timer.BARRIER_POLL))
        self.release_root()

    def timer(self, timer: Timer) -> bool:
        """A timer has run out; True at the end of recovery."""
        if timer is Timer.BARRIER_POLL and isinstance(self._wait, Delay):
            return self._go_on(None)
        if timer is Timer.QUERY_RETRY and self._question is not None:
            self._put(self._question)
        return False

    def receive(self, source: int, message: RecoveryMessage) -> bool:
        """A reply has come; True at the end of recovery."""
        if message.type in (RecoveryType.STATUS_REPLY, RecoveryType.NAMES_REPLY):
            if self._question is None or message.id != self._question_id:
                return False
            self._forget_question()
            return self._go_on(message)
        if message.type is RecoveryType.LOOKUP_REPLY:
            resource = self.awaited.pop(message.id, None)
            if resource is None:
                return False
            resource.recover_id = 0
            self.state.world.progress += 1
            rebuilding.master_found(self.state, resource, message.result)
        elif message.lock is not None:
            self._lock_answered(source, message)
        return isinstance(self._wait, Answers) and not self.awaited and self._go_on(None)

    def release_root(self) -> None:
        """Let go of the resources that this recovery went through."""
        for resource in self.root:
            resource.on_root_list = False
            self.state.put(resource)
        self.root = []
        self.places = {}

    # ---- inside ---------------------------------------------------------------------------------

    def _go_on(self, answer: RecoveryMessage | None) -> bool:
        self._wait = None
        while True:
            try:
                wait = self._steps.send(answer)
            except StopIteration:
                return True
            answer = None
            if isinstance(wait, Question):
                self.state.recover_nodeid = wait.target
                if wait.target == self.state.node:
                    answer = RecoveryMessage(
                        RecoveryType.STATUS_REPLY, result=self.state.recover_status
                    )
                    continue
                self._put(wait)
            elif isinstance(wait, Delay):
                self.state.outputs.append(SetTimer(Timer.BARRIER_POLL, wait.seconds))
            elif not self.awaited:
                continue
            self._wait = wait
            return False

    def _put(self, question: Question) -> None:
        self._question = question
        self._question_id += 1
        self.send(
            question.target,
            RecoveryMessage(
                question.type,
                id=self._question_id,
                name=question.name,
                want_slots=question.want_slots,
            ),
        )
        self.state.outputs.append(SetTimer(Timer.QUERY_RETRY, QUERY_RETRY))

    def _forget_question(self) -> None:
        if self._question is not None:
            self._question = None
            self.state.outputs.append(CancelTimer(Timer.QUERY_RETRY))

    def _lock_answered(self, source: int, message: RecoveryMessage) -> None:
        rebuilt = message.lock
        lock = self.state.locks.locks.get(rebuilt.lock_id) if rebuilt is not None else None
        if rebuilt is None or lock is None or not lock.is_process_copy:
            return
        resource = lock.resource
        if rebuilt.result == -errno.EBADR:
            # The new master does not know yet that it is: send the lock again.
            self.send_lock(source, resource, lock.lock_id)
            return
        self.state.world.progress += 1
        lock.remote_id = rebuilt.remote_id
        resource.recover_locks -= 1
        if not resource.recover_locks:
            resource.flags &= ~NEW_MASTER
            self.awaited.pop(resource.recover_id, None)
            resource.recover_id = 0

    def send(self, target: int, message: RecoveryMessage) -> None:
        """Send a message of this recovery."""
        send(self.state, target, message)

    def send_lock(self, target: int, resource: Resource, lock_id: int) -> None:
        """Send one of our locks to its new master."""
        lock = self.state.locks.locks[lock_id]
        self.send(
            target,
            RecoveryMessage(
                RecoveryType.LOCK, id=resource.recover_id, lock=rebuilding.pack(resource, lock)
            ),
        )

    def expect_answer(self, resource: Resource) -> None:
        """Count a resource among those for which answers are outstanding."""
        self._last_id += 1
        resource.recover_id = self._last_id
        self.awaited[self._last_id] = resource


def send(state: State, target: int, message: RecoveryMessage, reply_to: int = 0) -> None:
    """Send a recovery message with this node's recovery sequence."""
    state.send(target, replace(message, sequence=state.recover_sequence, sequence_reply=reply_to))
