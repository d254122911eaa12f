"""One lockspace on one node: a machine that takes inputs and gives outputs.

Decides: which input goes where, what waits while locking is stopped, when recovery begins and what
its end sets going.
May not know: how inputs come about and where outputs go.
Mirrors: the entry points of fs/dlm/user.c and lock.c, dlm_ls_stop(), dlm_ls_start(),
dlm_receive_message(), dlm_receive_rcom() (Linux 6.1).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from dlm.core import directory, rebuilding, receiving, results, users
from dlm.core.answering import answer
from dlm.core.blocks import LockBlock, Resource
from dlm.core.events import (
    Adopt,
    CloseFile,
    Convert,
    Deadlock,
    Deliver,
    EndRecoveries,
    FileId,
    Finish,
    Input,
    OpenFile,
    Output,
    Purge,
    RecoveryEnded,
    Reply,
    Request,
    Result,
    SetNoDirectory,
    Start,
    Stop,
    Timer,
    TimerFired,
    Tune,
    Unlock,
)
from dlm.core.messages import LockMessage, RecoveryMessage, RecoveryType
from dlm.core.recovery import Recovery, RecoveryFailed
from dlm.core.rehearsal import may_call_meet, may_message_meet, rehearse
from dlm.core.state import OpenFileState, Refused, State, World
from dlm.core.steps import recover
from dlm.core.users2005 import COMMANDS_2005
from dlm.record import new_tuple
from dlm.terms import KernelProfile, NodeId, RecoverStatus

_REPLIES: Final = frozenset(
    {
        RecoveryType.STATUS_REPLY,
        RecoveryType.NAMES_REPLY,
        RecoveryType.LOOKUP_REPLY,
        RecoveryType.LOCK_REPLY,
    }
)
_LOOKUPS: Final = frozenset({RecoveryType.LOOKUP, RecoveryType.LOOKUP_REPLY})
_LOCKS: Final = frozenset({RecoveryType.LOCK, RecoveryType.LOCK_REPLY})
_NODES: Final = int(RecoverStatus.NODES)
_DIR: Final = int(RecoverStatus.DIR)


Call = CloseFile | Request | Convert | Unlock | Deadlock | Purge
"""An input that can wait for locking to be on."""


class Lockspace:
    """A lockspace on a node; ``step`` and ``take`` are all that ever change it."""

    def __init__(
        self,
        name: str,
        node: NodeId,
        profile: KernelProfile,
        *,
        exflags: int = 0,
        table_size: int = 1024,
        holds_results: bool = False,
        watches_waits: bool = False,
        strict: bool = False,
        reaches: Callable[[int], bool] | None = None,
        knows_itself: Callable[[], bool] | None = None,
        world: World | None = None,
    ) -> None:
        """Begin stopped; with ``holds_results`` no result can be read while it is.

        ``watches_waits``: locks that have to wait are marked (create flag TIMEWARN, up to 6.3).
        ``strict``: raise ``KernelHazardError`` where a real kernel would not survive (hazards.py).
        ``reaches``: says whether a message to a node can be made; ENOBUFS where it cannot.
        ``knows_itself``: says whether the node has its own comm still; only hazards hang on it.
        ``world``: counts the changes of this lockspace with others'.
        """
        self.name = name
        self._state = State(name, node, profile, exflags, table_size)
        self._held_answers: list[Output] = []
        self._state.holds_results = holds_results
        self._state.watches_waits = watches_waits
        self._state.strict = strict
        if reaches is not None:
            self._state.reaches = reaches
        if knows_itself is not None:
            self._state.knows_itself = knows_itself
        if world is not None:
            self._state.world = world
        self._commands = COMMANDS_2005 if profile.locks_by_id else _COMMANDS
        self._recovery: Recovery | None = None
        self._next: tuple[int, Start] | None = None
        """A start that waits for the recovery before it, and its sequence number."""
        self._finishable: int | None = None
        """The sequence number of a recovery that has ended and waits for ``Finish``."""

    # ---- what can be seen -----------------------------------------------------------------------

    @property
    def node(self) -> int:
        """This node's id."""
        return self._state.node

    @property
    def stopped(self) -> bool:
        """Say whether locking is off: before the first recovery, and from a stop to the next."""
        return self._state.stopped

    @property
    def recover_status(self) -> int:
        """Return the bits of the attribute recover_status."""
        return self._state.recover_status

    @property
    def recover_nodeid(self) -> int:
        """Return the member that recovery asked last."""
        return self._state.recover_nodeid

    @property
    def no_directory(self) -> bool:
        """Say whether masters are a fixed hash of names."""
        return self._state.no_directory

    @property
    def generation(self) -> int:
        """Return how many times the members have agreed on who they are."""
        return self._state.generation

    @property
    def progress(self) -> int:
        """Return a number that grows with every real change of the world."""
        return self._state.world.progress

    @property
    def members(self) -> tuple[int, ...]:
        """Return the members' ids in ascending order."""
        return tuple(member.nodeid for member in self._state.members)

    def has_result(self, file: FileId) -> bool:
        """Say whether a file has unread results."""
        state = self._state
        opened = state.files.get(file)
        return (
            opened is not None
            and bool(opened.ready or opened.results)
            and not (state.stopped and results.are_held(state))
        )

    def busy(self) -> bool:
        """Say whether any lock block exists, as a release without force asks."""
        return bool(self._state.locks.locks)

    def lock(self, lock_id: int) -> LockBlock | None:
        """Return the lock block of an id."""
        return self._state.locks.locks.get(lock_id)

    def resources(self) -> list[Resource]:
        """Return the resources in use, in the order of debugfs."""
        return self._state.resources.walk()

    def tossed(self) -> list[Resource]:
        """Return the resources that are unused, in the order of debugfs."""
        return self._state.resources.walk_tossed()

    def is_kept_for_master(self, resource: Resource) -> bool:
        """Say whether an unused resource is the directory entry of another node's."""
        return self._state.is_kept_for_master(resource)

    def has_diverged(self, resource: Resource) -> bool:
        """Say whether locks here have, as on a real kernel, other modes than their master has."""
        return resource.key in self._state.diverged

    def waiters(self) -> list[LockBlock]:
        """Return the locks that wait for a reply, in the order of debugfs."""
        return self._state.walk_waiters()

    def blocked_calls(self) -> int:
        """Return how many calls wait for the end of recovery."""
        return len(self._state.blocked)

    def abandon_calls(self) -> tuple[Call, ...]:
        """Forget the calls that wait for locking to be on, and return them, oldest first.

        For a lockspace of 2005 that is removed under its callers.
        """
        blocked: tuple[Call, ...] = tuple(self._state.blocked)  # type: ignore[arg-type]
        self._state.blocked.clear()
        return blocked

    # ---- the machine ----------------------------------------------------------------------------

    def step(self, question: Input, now: int = 0) -> tuple[Reply | None, list[Output]]:
        """Take one input; return the answer to it, if there is one yet, and what it brings about.

        ``now`` is the node's clock in nanoseconds; it is shown and compared, never waited for.
        """
        state = self._state
        state.now = now
        outputs: list[Output] = []
        state.outputs = outputs
        return _STEP[type(question)](self, question), outputs

    def take(
        self, file: FileId, room: bool = True, now: int = 0
    ) -> tuple[Result | None, list[Output]]:
        """Take the next result of a file; return it, and what that brings about.

        ``room`` False: the caller's buffer has no room for the value block, which is then lost.
        """
        state = self._state
        state.now = now
        outputs: list[Output] = []
        state.outputs = outputs
        result = results.take(state, file, room)
        if result is not None:
            state.world.progress += 1
        return result, outputs

    # ---- calls ----------------------------------------------------------------------------------

    def _run(self, question: Any) -> Reply | None:  # Any: the command's type chooses the rule
        """Carry out a user's command and answer it, once locking is on: no check comes before."""
        state = self._state
        if state.stopped and type(question) is not Adopt:
            state.world.progress += 1
            state.blocked.append(question)
            return None
        command = self._commands[type(question)]
        if state.strict and may_call_meet(state, question):
            rehearse(state, command, question)
        try:
            value = command(state, question)
        except Refused as refusal:
            return Reply(question.call, error=refusal.number)
        state.world.progress += 1
        return new_tuple(Reply, (question.call, value, 0))

    def _purge(self, question: Purge) -> Reply | None:
        if question.nodeid not in (0, self._state.node):
            return Reply(question.call, users.send_purge(self._state, question))
        return self._run(question)

    def _open(self, question: OpenFile) -> None:
        self._state.files[question.file] = OpenFileState(question.file)

    # ---- control --------------------------------------------------------------------------------

    def _stop(self, question: Stop) -> Reply:
        state = self._state
        state.world.progress += 1
        state.stopped = True
        state.recovery_stopped = True
        state.recover_sequence += 1
        self._next = None
        self._finishable = None
        self._abort(errno.EINTR)
        state.slots = ()
        state.recover_status = 0
        return Reply(question.call)

    def _abort(self, number: int) -> None:
        recovery, self._recovery = self._recovery, None
        if recovery is not None:
            recovery.abort()
            self._state.outputs.append(RecoveryEnded(number))

    def _start(self, question: Start) -> None:
        state = self._state
        state.world.progress += 1
        state.recover_sequence += 1
        self._next = (state.recover_sequence, question)
        self._finishable = None
        if self._recovery is None:
            self._begin()

    def _begin(self) -> None:
        """Take the start that waits, if one does (do_ls_recovery)."""
        state = self._state
        if self._next is None:
            return
        (sequence, start), self._next = self._next, None
        state.recovery_stopped = False
        if start.finish_later:
            state.recover_status = 0  # a start may follow a start without a stop between
        self._recovery = Recovery(
            state, sequence, start.members, recover, finish_later=start.finish_later
        )
        self._drive(self._recovery.begin)

    def _drive(self, go_on: Callable[[], bool]) -> None:
        """Let the recovery go on; see to its end."""
        recovery = self._recovery
        assert recovery is not None
        try:
            if not go_on():
                return
        except RecoveryFailed as failure:
            self._abort(failure.number)
            self._begin()
            return
        self._recovery = None
        self._state.world.progress += 1
        if recovery.sequence != self._state.recover_sequence:
            # A newer start came meanwhile: locking stays off until that is done.
            self._state.outputs.append(RecoveryEnded(errno.EINTR))
            self._begin()
            return
        if recovery.finish_later:
            self._finishable = recovery.sequence
            self._state.outputs.append(RecoveryEnded(0))
        else:
            self._enable(recovery.sequence)
            self._state.outputs.append(RecoveryEnded(0))
            self._run_blocked()

    def _finish(self, question: Finish) -> None:
        del question
        if self._finishable is not None:
            self._state.world.progress += 1
            sequence, self._finishable = self._finishable, None
            self._enable(sequence)
            self._run_blocked()

    def _enable(self, sequence: int) -> None:
        """Locking is on: what waited goes on (the end of ls_recover)."""
        state = self._state
        state.gone.clear()
        state.stopped = False
        while state.saved:
            source, message = state.saved.popleft()
            receiving.receive(state, source, message)
            # Linux 6.1 fs/dlm/requestqueue.c, dlm_process_requestqueue(): schedule() after each
            # message, so that those who wait, and were woken before the first, go on in between.
            if state.blocked:
                self._run_first_blocked()
        rebuilding.repeat_waiters(state)
        rebuilding.grant_recovered(state)
        state.log(f"dlm_recover {sequence} generation {state.generation} done")
        if state.holds_results:
            results.tell_held(state)

    def _run_blocked(self) -> None:
        """Let the calls go on that waited for locking to be on."""
        while self._state.blocked:
            self._run_first_blocked()
        self._state.outputs += self._held_answers
        self._held_answers.clear()

    def _run_first_blocked(self) -> None:
        # Whoever is answered may ask for more at once: not before all messages are on their way.
        reply = self._run(self._state.blocked.popleft())
        assert reply is not None, "locking is on"
        self._held_answers.append(reply)

    def _end_recoveries(self, question: EndRecoveries) -> None:
        # Quirk: the thread that holds locking off lets go of it when it ends, in a stopped
        # lockspace, too; Linux 6.1 fs/dlm/recoverd.c, dlm_recoverd().
        del question
        if self._state.stopped and self._recovery is None:
            self._state.world.progress += 1
            self._state.stopped = False
            self._run_blocked()

    def _no_directory(self, question: SetNoDirectory) -> None:
        del question
        self._state.no_directory = True

    def _tune(self, question: Tune) -> None:
        self._state.toss_secs = question.toss_secs
        self._state.scan_secs = question.scan_secs

    # ---- messages and timers --------------------------------------------------------------------

    def _deliver(self, question: Deliver) -> None:
        message, source = question.message, int(question.source)
        if isinstance(message, LockMessage):
            self._receive(source, message)
        else:
            self._receive_recovery(source, message)

    def _receive(self, source: int, message: LockMessage) -> None:
        state = self._state
        state.world.progress += 1
        if not state.stopped:
            if state.strict and may_message_meet(state, message):
                rehearse(state, receiving.receive, source, message)
            receiving.receive(state, source, message)
        elif state.generation:
            state.saved.append((source, message))
        else:
            state.log(f"receive {int(message.type)} from {source} ignore old gen")

    def _receive_recovery(self, source: int, message: RecoveryMessage) -> None:
        """dlm_receive_rcom(): what comes too early or too late is ignored."""
        state = self._state
        kind = message.type
        if kind is not RecoveryType.STATUS:
            if state.recovery_stopped:
                return
            if kind in _REPLIES and message.sequence_reply != state.recover_sequence:
                return
            needs_nodes = kind is not RecoveryType.STATUS_REPLY
            if needs_nodes and not state.recover_status & _NODES:
                return
            if kind in _LOOKUPS | _LOCKS and not state.recover_status & _DIR:
                return
        recovery = self._recovery
        if kind not in _REPLIES:
            answer(state, recovery, source, message)
        elif recovery is not None:
            self._drive(lambda: recovery.receive(source, message))

    def _timer(self, question: TimerFired) -> None:
        recovery = self._recovery
        if question.timer is Timer.TOSS_SCAN:
            directory.scan(self._state)
        elif recovery is not None:
            self._drive(lambda: recovery.timer(question.timer))


_COMMANDS: Final[dict[type, Callable[[State, Any], int]]] = {
    Request: users.request,
    Convert: users.convert,
    Adopt: users.adopt,
    Unlock: users.unlock,
    Deadlock: users.deadlock,
    Purge: users.purge,
    CloseFile: users.close,
}

_STEP: Final[dict[type, Callable[[Lockspace, Any], Reply | None]]] = {
    OpenFile: Lockspace._open,
    CloseFile: Lockspace._run,
    Request: Lockspace._run,
    Convert: Lockspace._run,
    Adopt: Lockspace._run,
    Unlock: Lockspace._run,
    Deadlock: Lockspace._run,
    Purge: Lockspace._purge,
    Stop: Lockspace._stop,
    Start: Lockspace._start,
    Finish: Lockspace._finish,
    SetNoDirectory: Lockspace._no_directory,
    EndRecoveries: Lockspace._end_recoveries,
    Tune: Lockspace._tune,
    Deliver: Lockspace._deliver,
    TimerFired: Lockspace._timer,
}
