"""One lockspace on one node: what stands between ``dlm.core`` and the emulated world.

Decides: where the outputs of a lockspace's machine go, what of a lockspace is not the lock
manager's: its id, use count, minor, the answers that its create and remove wait for.
May not know: any rule of locking or recovery; how create and remove go (module.py).
Mirrors: struct dlm_ls, as fs/dlm/lockspace.c and user.c (Linux 6.1) use it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dlm.core.events import (
    Adopt,
    CallId,
    CancelTimer,
    CloseFile,
    Convert,
    Deadlock,
    EndRecoveries,
    FileId,
    Input,
    Log,
    MemberChanged,
    MembersKnown,
    OpenFile,
    Purge,
    RecoveryEnded,
    Reply,
    Request,
    Result,
    ResultQueued,
    Send,
    SetNoDirectory,
    SetTimer,
    Start,
    StartMember,
    Stop,
    Timer,
    TimerFired,
    Tune,
    Unlock,
)
from dlm.core.lockspace import Lockspace
from dlm.core.messages import Message, RecoveryMessage, RecoveryType
from dlm.emulator.pending import Pending
from dlm.emulator.scheduler import Event
from dlm.emulator.tree import File
from dlm.errors import KernelHazardError
from dlm.terms import KernelProfile, NodeId

if TYPE_CHECKING:
    from dlm.emulator.module import Module

STATELESS = frozenset({RecoveryType.STATUS, RecoveryType.STATUS_REPLY})
"""Recovery messages that travel outside the reliable layer's numbering (Linux 6.1 midcomms.c)."""

NAMES = frozenset({RecoveryType.NAMES, RecoveryType.NAMES_REPLY})
"""Those that do up to 6.5 (rcom.c, dlm_rcom_names())."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What travels: a message, and the global id that its lockspace had when it was sent."""

    lockspace_id: int
    message: Message


Question = CloseFile | Request | Convert | Adopt | Unlock | Deadlock | Purge | Stop
"""Inputs that are users' calls."""


def is_sequenced(message: Message, profile: KernelProfile) -> bool:
    """Say whether the reliable layer of this kernel numbers a message."""
    if not isinstance(message, RecoveryMessage) or message.type not in STATELESS | NAMES:
        return True
    return message.type in NAMES and profile.numbers_names


class Space:
    """A lockspace of this node, from the beginning of its create to the end of its remove."""

    def __init__(
        self, module: Module, name: str, exflags: int, *, watches_waits: bool = False
    ) -> None:
        self.module = module
        self._boot = module.boot
        self.name = name
        self.nodeid = module.nodeid
        self.core: Lockspace = Lockspace(
            name,
            NodeId(self.nodeid),
            module.profile,
            exflags=exflags,
            table_size=module.number("rsbtbl_size"),
            holds_results=module.profile.holds_results,
            watches_waits=watches_waits,
            strict=module.boot.strict,
            reaches=module.reaches,
            knows_itself=module.has_local,
            world=module.scheduler,
        )
        self.global_id: int = 0
        self.use_count = 1
        self.minor: int | None = None
        self.gone = False
        self.event_done = False
        self.event_result = 0
        self.recovery_result: int | None = None
        """How the last recovery that was not interrupted ended: 0 or an errno; None: none did."""
        self.members: frozenset[int] = frozenset()
        """The members of the last start."""
        self.on_result: dict[FileId, Callable[[], None]] = {}
        self.shown: dict[str, File] = {}
        """The files in debugfs that are this lockspace's, by what is behind its name."""
        """What is told of new results, by open file."""
        self._scheduler = module.scheduler
        self._timers: dict[Timer, Event] = {}
        self._deaf = False
        self.tune()

    # ---- calls ----------------------------------------------------------------------------------

    def expect(self, call: CallId, text: str, *, numeric: bool = False) -> Pending:
        """Return the call that ``step()`` did not answer at once; ``numeric``: see ``Boot``."""
        return self._boot.expect(call, f"{text} on {self.name}", numeric=numeric)

    def step(self, question: Input) -> Reply | None:
        """Let the lockspace's machine take one step, and carry out what it says.

        Returns the answer to a user's call; None when it comes later: then ``expect`` it.
        """
        scheduler, boot = self._scheduler, self._boot
        scheduler.record(boot.name, self.name, question)
        try:
            answer, outputs = self.core.step(question, boot.clock())
        except KernelHazardError as error:
            boot.met(error)
            if isinstance(question, Question):
                raise OSError(errno.EIO, error.message, boot.name) from error
            return None
        for output in outputs:
            _CARRY_OUT[type(output)](self, output)
        for check in scheduler.checks:
            check(scheduler.world)
        return answer

    def take(self, file: FileId, room: bool = True) -> Result | None:
        """Take a file's next result; ``room``: the reader has room for its value block."""
        scheduler, boot = self._scheduler, self._boot
        result, outputs = self.core.take(file, room, boot.clock())
        if result is not None:
            scheduler.record(boot.name, self.name, "read", file)
        for output in outputs:
            _CARRY_OUT[type(output)](self, output)
        for check in scheduler.checks:
            check(scheduler.world)
        return result

    # ---- files ----------------------------------------------------------------------------------

    def open_file(self, on_result: Callable[[], None]) -> FileId:
        """Add an open file; ``on_result`` is told of every new result."""
        file = FileId(self._boot.next_call())
        self.on_result[file] = on_result
        self.step(OpenFile(file))
        return file

    def close_file(self, file: FileId) -> Pending | None:
        """Close a file; None when that is done at once."""
        call = self._boot.next_call()
        if self.step(CloseFile(call, file)) is not None:
            self._closed(file)
            return None
        pending = self.expect(call, "close")
        pending.then = partial(self._closed, file)
        return pending

    def _closed(self, file: FileId) -> None:
        del self.on_result[file]
        self._boot.sleepers.wake()

    # ---- control --------------------------------------------------------------------------------

    def stop(self) -> Pending | None:
        """control=0; None when no operation was inside."""
        call = self._boot.next_call()
        return None if self.step(Stop(call)) is not None else self.expect(call, "control 0")

    def start(self) -> None:
        """control=1: recover with the members as they are configured at this moment."""
        # Linux 6.1 fs/dlm/member.c, dlm_ls_start(): the members are read, and their marks cleared,
        # before anything else is looked at; no refusal ever reaches the writer.
        configured = self.module.configfs.read_members(self.name)
        if configured is None:
            return
        members, gone = configured
        if not members:
            self._boot.log("dlm: zero members_count")
            return
        if not self.core.stopped:
            self.log("start ignored: lockspace running")
            return
        nodeids = frozenset(member.nodeid for member in members)
        lost = sorted(self.members - nodeids - gone)
        if lost and self.module.profile.release_recover:
            # Linux 6.18 fs/dlm/member.c: a member that is neither configured nor on the list of
            # removed ones ends the recovery with EFAULT.
            self.log(f"remove member {lost[0]} invalid")
            self._recovery_ended(RecoveryEnded(errno.EFAULT))
            return
        if self.module.profile.unreachable_fails and self._is_unreachable(members):
            # Linux 6.12 fs/dlm/member.c, dlm_add_member(); lowcomms.c, dlm_lowcomms_connect_node()
            self.log("dlm_recover_members error -2")
            self._recovery_ended(RecoveryEnded(errno.ENOENT))
            return
        self.members = nodeids
        if not self._deaf:
            self.step(Start(members))

    def _is_unreachable(self, members: tuple[StartMember, ...]) -> bool:
        """Say whether a member that is new has no address."""
        return any(
            member.nodeid != self.nodeid
            and (member.new or member.nodeid not in self.core.members)
            and not self.module.endpoint.has_address(member.nodeid)
            for member in members
        )

    def set_event_done(self, result: int) -> None:
        """Answer the join or the leave that waits, or else the next one that will."""
        self.event_done = True
        self.event_result = result
        self._boot.sleepers.wake()

    def set_no_directory(self) -> None:
        """nodir=1."""
        self.step(SetNoDirectory())

    def tune(self) -> None:
        """Tell the lockspace the settings that it heeds while it lives."""
        number = self.module.number
        self.step(Tune(number("toss_secs"), number("scan_secs")))

    def halt(self) -> None:
        """Stop the recovery thread: no recovery begins or goes on from here."""
        self._deaf = True
        self._cancel(CancelTimer(Timer.BARRIER_POLL))
        self._cancel(CancelTimer(Timer.QUERY_RETRY))
        if self.module.profile.control == "configfs":
            self.step(EndRecoveries())

    def end(self) -> None:
        """Note that the lockspace is gone; its timers go with it."""
        self.gone = True
        for nodeid in self.core.members:  # Linux 6.1 fs/dlm/member.c, dlm_clear_members()
            self._member_changed(MemberChanged(nodeid, added=False))
        for timer in tuple(self._timers):
            self._cancel(CancelTimer(timer))

    def log(self, text: str) -> None:
        """Write a line to the kernel's log."""
        self._boot.log(f"dlm: {self.name}: {text}")

    # ---- outputs --------------------------------------------------------------------------------

    def _replied(self, output: Reply) -> None:
        self._boot.answer(output)

    def _result_queued(self, output: ResultQueued) -> None:
        told = self.on_result.get(output.file)
        if told is not None:
            told()

    def _send(self, output: Send) -> None:
        packet = Packet(self.global_id, output.message)
        sequenced = self.module.numbers_messages and is_sequenced(
            output.message, self.module.profile
        )
        self.module.endpoint.send(output.target, packet, sequenced=sequenced)

    def _set_timer(self, output: SetTimer) -> None:
        timer = output.timer
        self._scheduler.cancel(self._timers.get(timer))
        if not (self.gone or (self._deaf and timer is not Timer.TOSS_SCAN)):
            self._timers[timer] = self._scheduler.schedule(
                output.after, partial(self._fire, timer), idle=True
            )

    def _cancel(self, output: CancelTimer) -> None:
        self._scheduler.cancel(self._timers.pop(output.timer, None))

    def _fire(self, timer: Timer) -> None:
        del self._timers[timer]
        self.step(TimerFired(timer))

    def _member_changed(self, output: MemberChanged) -> None:
        if output.nodeid != self.nodeid:
            self.module.endpoint.count_user(output.nodeid, 1 if output.added else -1)

    def _members_known(self, output: MembersKnown) -> None:
        # Linux 5.10 fs/dlm/member.c, dlm_recover_members(): ls_members_done is what a join awaits.
        del output
        self.module.endpoint.network.changed()
        if self.module.profile.joins_with_members:
            self.recovery_result = 0
            self._boot.sleepers.wake()

    def _recovery_ended(self, output: RecoveryEnded) -> None:
        error = abs(output.error)
        if error != errno.EINTR:
            self.recovery_result = error
            self._boot.sleepers.wake()

    def _log(self, output: Log) -> None:
        self.log(output.text)


# Any: each takes the kind of output that it stands beside.
_CARRY_OUT: dict[type, Callable[[Space, Any], None]] = {
    Reply: Space._replied,
    ResultQueued: Space._result_queued,
    Send: Space._send,
    SetTimer: Space._set_timer,
    CancelTimer: Space._cancel,
    MemberChanged: Space._member_changed,
    MembersKnown: Space._members_known,
    RecoveryEnded: lambda space, output: space._recovery_ended(output),  # 2005 has its own
    Log: Space._log,
}
