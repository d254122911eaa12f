"""A lockspace of April 2005: stop, start, finish and terminate with event numbers.

Decides: what each of the four events does when, which events the recovery thread makes one of, what
a lockspace shows of it.
May not know: how recovery goes; parse rules and modes (dlm.abi.attributes2005).
Mirrors: member.c and recoverd.c of the DLM as posted to linux-kernel on 25 April 2005.

That kernel panicked where the events came in an order that it did not expect. INFER: here such an
event is ignored, a start with EINVAL, a finish silently, as the check "already running" of the
months after has it. The recovery thread runs at once after each event, so that several events meet
only during a recovery.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from dlm.core.events import Finish, RecoveryEnded, Start
from dlm.emulator.misc import refuse
from dlm.emulator.pending import Pending
from dlm.emulator.space import Space

if TYPE_CHECKING:
    from dlm.emulator.module2005 import Module2005


class Phase(Enum):
    """The states of the recovery thread (LSST_*); no user sees them."""

    INIT = "INIT"
    INIT_DONE = "INIT_DONE"
    CLEAR = "CLEAR"
    WAIT_START = "WAIT_START"
    RECONFIG_DONE = "RECONFIG_DONE"


class Action(Enum):
    """What the recovery thread makes of the events that have come."""

    NONE = "none"
    STOP = "stop"
    START = "start"
    FINISH = "finish"


_N, _STOP, _START, _FINISH = Action.NONE, Action.STOP, Action.START, Action.FINISH

# (stop, start, finish) -> what is done with a start that no stop has overtaken, and without one.
# FINISH_STOP and FINISH_START differ from STOP and START in what is forgotten of members that are
# gone, which the lock manager sees to itself. A finish beside a start without a stop was a panic.
MOVES: dict[tuple[bool, bool, bool], tuple[Action, Action]] = {
    (False, False, False): (_N, _N),
    (False, False, True): (_FINISH, _FINISH),
    (False, True, False): (_START, _N),
    (False, True, True): (_START, _N),
    (True, False, False): (_STOP, _STOP),
    (True, False, True): (_STOP, _STOP),
    (True, True, False): (_START, _STOP),
    (True, True, True): (_START, _STOP),
}
"""next_move(): the events that have come since it last looked, boiled down to one action."""

FINISHABLE = frozenset({Phase.INIT_DONE, Phase.RECONFIG_DONE})
"""The states in which FINISH switches locking on; in every other it was a panic."""

AFTER_STOP = {phase: Phase.INIT if phase is Phase.INIT else Phase.WAIT_START for phase in Phase}
"""The state after a stop, and after a recovery that failed."""

AFTER_RECOVERY = {
    phase: Phase.INIT_DONE if phase is Phase.INIT else Phase.RECONFIG_DONE for phase in Phase
}
"""The state after a recovery that succeeded."""


@dataclass(slots=True)
class Events:
    """The event numbers of a lockspace and the flags LS_STOP, LS_START, LS_FINISH."""

    last_stop: int = 0
    last_start: int = 0
    last_finish: int = 0
    done: int = 0
    stop: bool = False
    start: bool = False
    finish: bool = False
    starts: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    """Starts that the recovery thread has not taken: number and members."""

    def next_move(self) -> Action:
        """Read and clear the flags; return what they come to."""
        flags = (self.stop, self.start, self.finish)
        self.stop = self.start = self.finish = False
        if not self.last_finish and self.last_start == self.last_stop:
            # The first start was cancelled by a stop, or there was none: its number is free again.
            self.last_start = self.last_stop = 0
            self.starts.clear()
            return Action.STOP
        self.starts = [start for start in self.starts if start[0] > self.last_stop]
        with_start, without = MOVES[flags]
        return with_start if self.starts else without


class EventSpace(Space):
    """A lockspace of April 2005."""

    def __init__(self, module: Module2005, name: str) -> None:
        super().__init__(module, name, 0)
        self.events = Events()
        self.phase = Phase.INIT
        self.terminated = False
        self.join_answer: int | None = None
        """How the join was answered: 0, or an errno; None: it was not."""
        self.next_members: tuple[int, ...] | None = None
        """The list of members that the next start takes."""
        self._module = module
        self._recovering: int | None = None

    # ---- what can be seen -----------------------------------------------------------------------

    def shown_members(self) -> tuple[int, ...]:
        """Return the members; EBUSY while locking is off."""
        if self.core.stopped:
            raise refuse(errno.EBUSY, "members")
        return self.core.members

    # ---- join and leave -------------------------------------------------------------------------

    def join_answered(self) -> bool:
        """Say whether a start or a terminate has ended the wait of create."""
        return self.join_answer is not None

    def join_result(self) -> int:
        """Return 0 after a start.

        UNKNOWN: what user space made of the ERESTARTSYS (512) that terminate brought without a
        signal. EINTR, as INFERred.
        """
        if self.join_answer:
            raise refuse(self.join_answer, "join")
        return 0

    def leave_answered(self) -> bool:
        """Say whether a terminate has come, ever."""
        return self.terminated

    # ---- events ---------------------------------------------------------------------------------

    def set_next_members(self, nodeids: tuple[int, ...]) -> None:
        """Keep the members of the next start; EINVAL while there are some."""
        if self.next_members is not None:
            raise refuse(errno.EINVAL, "members")
        self.next_members = nodeids

    def stop(self) -> Pending | None:
        """stop=1: legal at any time, and again."""
        events = self.events
        events.last_stop = events.last_start
        events.stop = True
        if self._recovering is not None:
            self._recovering = None
            self.phase = AFTER_STOP[self.phase]
        sleeping = super().stop()
        self._kick()
        return sleeping

    def start_event(self, number: int) -> None:
        """start=N: recover with the members that were written; EINVAL."""
        events = self.events
        if not self.core.stopped:
            self.log("start ignored: lockspace running")
            raise refuse(errno.EINVAL, "start")
        if self.next_members is None:
            self.log("existing nodeids_next")  # Quirk: the text says the opposite
            raise refuse(errno.EINVAL, "start")
        if events.finish:  # INFER: it runs once the recovery under way has ended
            raise refuse(errno.EINVAL, "start")
        if number <= events.last_start:
            self.log(f"start event_nr {number} not greater than last {events.last_start}")
            raise refuse(errno.EINVAL, "start")
        events.last_start = number
        events.starts.append((number, self.next_members))
        events.start = True
        self.next_members = None
        if self.join_answer is None:
            self.join_answer = 0
        self.module.boot.sleepers.wake()
        self._kick()

    def finish_event(self, number: int) -> None:
        """finish=N: switch locking on once the start N is done; no refusal reaches the writer."""
        events = self.events
        if number != events.last_start:
            self.log(f"finish event_nr {number} doesn't match start {events.last_start}")
            return
        # INFER: where the kernel would have panicked the event is ignored.
        if self._recovering is None:
            if self.phase not in FINISHABLE:
                return
        elif events.start:
            return
        events.last_finish = number
        events.finish = True
        self._kick()

    def terminate(self) -> None:
        """terminate=1: end a join or a leave that waits; the flags stay for ever."""
        self.log("dlm_ls_terminate")
        self.terminated = True
        if self.join_answer is None:
            self.join_answer = errno.EINTR
        self.module.boot.sleepers.wake()

    # ---- the recovery thread --------------------------------------------------------------------

    def _kick(self) -> None:
        while self._recovering is None:
            action = self.events.next_move()
            if action is Action.NONE:
                return
            if action is Action.STOP:
                self.phase = AFTER_STOP[self.phase]
                return
            if action is Action.FINISH:
                if self.phase in FINISHABLE:
                    self.phase = Phase.CLEAR
                    self.step(Finish())
                return
            self._recover()

    def _recover(self) -> None:
        # INFER: of several starts that have waited behind a recovery the newest one runs.
        number, nodeids = self.events.starts[-1]
        self.events.starts.clear()
        self._recovering = number
        self.step(Start(self._module.start_members(nodeids), finish_later=True))

    def _recovery_ended(self, output: RecoveryEnded) -> None:
        number, self._recovering = self._recovering, None
        if number is None:  # a stop has come, which sees to the rest
            return
        if output.error:
            self.phase = AFTER_STOP[self.phase]
        else:
            self.phase = AFTER_RECOVERY[self.phase]
            self.events.done = number
            self._module.bare_uevent("change", self)
        self.module.boot.sleepers.wake()
        self._kick()
