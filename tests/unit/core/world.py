"""A few lockspaces and a wire: the core's own world, without an emulator.

Decides: that messages arrive in the order in which they were sent, unless a test holds some back;
when timers run out (when a test says so, barrier polls when nothing else is under way).
May not know: what the core decides.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from dlm.core import not_ready
from dlm.core.blocks import LockBlock, Resource
from dlm.core.events import (
    Adopt,
    CallId,
    CancelTimer,
    CloseFile,
    Convert,
    Deadlock,
    Deliver,
    FileId,
    Input,
    Log,
    OpenFile,
    Output,
    Purge,
    RecoveryEnded,
    Reply,
    Request,
    Result,
    Send,
    SetNoDirectory,
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
from dlm.core.messages import Message
from dlm.core.modes import hash_name
from dlm.terms import ECANCEL, EUNLOCK, KERNELS, LockFlag, LockMode, NodeId

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag

GRANTED, CANCELLED, UNLOCKED = 0, -ECANCEL, -EUNLOCK
"""Statuses of completions."""

BLOCKS = "blocks"
"""``(BLOCKS, lock id, mode)`` is a blocking AST as ``User.results`` shows it."""

Held = Callable[[int, int, Message], bool]
"""Says of a message from one node to another whether it is held back."""

Letter = tuple[int, int, Message]


def nothing(source: int, target: int, message: Message) -> bool:
    """Hold nothing back."""
    del source, target, message
    return False


def types(*kinds: int) -> Held:
    """Hold back the messages of these types (of which some have the same number)."""
    return lambda _source, _target, message: any(message.type is kind for kind in kinds)


def value(text: bytes) -> bytes:
    """Return a value block that begins with this text."""
    return text.ljust(32, b"\0")


class User:
    """An open file on one node, and the one program that uses it."""

    def __init__(self, world: World, node: int, file: int) -> None:
        self.world = world
        self.node = node
        self.file = FileId(file)
        self.pid = 1000 + file
        world.step(node, OpenFile(self.file))

    def _ask(self, make: Callable[[CallId], Input]) -> int:
        """Make a call and return its value, -errno, or None: it waits (see ``World.answer``)."""
        call = CallId(next(self.world.numbers))
        self.last_call = call
        self.world.step(self.node, make(call))
        reply = self.world.replies.get(call)
        return (
            self.world.waits if reply is None else reply.value if not reply.error else -reply.error
        )

    def lock(self, name: bytes, mode: int, flags: int = 0, block: bytes = bytes(32)) -> int:
        """Request a lock; return its id or -errno."""
        return self._ask(
            lambda call: Request(
                call, self.file, self.pid, name, int(mode), int(flags), ARGS, value=block
            )
        )

    def convert(self, lock_id: int, mode: int, flags: int = 0, block: bytes = bytes(32)) -> int:
        """Convert a lock; return 0 or -errno."""
        flags = int(flags | F.CONVERT)
        return self._ask(
            lambda call: Convert(
                call, self.file, self.pid, lock_id, int(mode), flags, ARGS, value=block
            )
        )

    def adopt(self, name: bytes, mode: int, flags: int = F.PERSISTENT) -> int:
        """Adopt an orphan; return its id or -errno."""
        return self._ask(
            lambda call: Adopt(call, self.file, self.pid, name, int(mode), int(flags), ARGS)
        )

    def unlock(self, lock_id: int, flags: int = 0, block: bytes = bytes(32)) -> int:
        """Unlock, or cancel with that flag; return 0 or -errno."""
        return self._ask(
            lambda call: Unlock(call, self.file, lock_id, int(flags), ARGS, value=block)
        )

    def cancel(self, lock_id: int) -> int:
        """Cancel; return 0 or -errno."""
        return self.unlock(lock_id, F.CANCEL)

    def force(self, lock_id: int) -> int:
        """Unlock whatever is under way; return 0 or -errno."""
        return self.unlock(lock_id, F.FORCEUNLOCK)

    def deadlock(self, lock_id: int) -> int:
        """Cancel as a deadlock's victim; return 0 or -errno."""
        return self._ask(lambda call: Deadlock(call, lock_id, 0))

    def purge(self, nodeid: int, pid: int) -> int:
        """Purge; return 0 or -errno."""
        return self._ask(lambda call: Purge(call, self.file, self.pid, nodeid, pid))

    def close(self) -> int:
        """Close the file; return 0 or -errno."""
        return self._ask(lambda call: CloseFile(call, self.file))

    def whole_results(self) -> list[Result]:
        """Take every result that waits."""
        taken = []
        while True:
            result = self.world.take(self.node, self.file)
            if result is None:
                return taken
            taken.append(result)

    def results(self) -> list[tuple[object, ...]]:
        """Take every result: (lock id, status) or (BLOCKS, lock id, mode)."""
        return [
            (BLOCKS, each.lock_id, each.bast_mode)
            if each.bast_mode
            else (each.lock_id, each.status)
            for each in self.whole_results()
        ]


ARGS = UserArgs(castaddr=1, bastaddr=2, lksb=3)


class World:
    """Lockspaces on nodes, and what is under way between them."""

    waits = -(1 << 30)
    """What a call returns that has not been answered."""

    def __init__(
        self,
        *nodes: int,
        kernel: str = "6.1",
        weights: Mapping[int, int] | None = None,
        exflags: Mapping[int, int] | None = None,
        table_size: int = 1024,
        strict: bool = False,
    ) -> None:
        self.nodes = nodes
        self.weights = dict(weights or {})
        self.numbers = itertools.count(1)
        self.now = 0
        self.wire: deque[Letter] = deque()
        self.held: Held = nothing
        self.kept: list[Letter] = []
        self.sent: list[Letter] = []
        self.replies: dict[CallId, Reply] = {}
        self.answered: list[CallId] = []
        self.timers: dict[tuple[int, Timer], float] = {}
        self.ended: list[tuple[int, int]] = []
        self.logs: list[tuple[int, str]] = []
        self.outputs: list[tuple[int, Output]] = []
        self.dead: set[int] = set()
        self.spaces = {
            node: Lockspace(
                "test",
                NodeId(node),
                KERNELS[kernel],
                exflags=(exflags or {}).get(node, 0),
                table_size=table_size,
                strict=strict,
            )
            for node in nodes
        }

    # ---- the wire -------------------------------------------------------------------------------

    def step(self, node: int, question: Input) -> list[Output]:
        """Give a lockspace an input and take note of what comes of it."""
        reply, outputs = self.spaces[node].step(question, self.now)
        if reply is not None:
            outputs.append(reply)
        self._note(node, outputs)
        return outputs

    def take(self, node: int, file: FileId) -> Result | None:
        """Take a result of a file, and take note of what comes of it."""
        result, outputs = self.spaces[node].take(file, now=self.now)
        self._note(node, outputs)
        return result

    def _note(self, node: int, outputs: list[Output]) -> None:
        for output in outputs:
            self.outputs.append((node, output))
            if isinstance(output, Send):
                self._post((node, int(output.target), output.message))
            elif isinstance(output, Reply):
                self.replies[output.call] = output
                self.answered.append(output.call)
            elif isinstance(output, SetTimer):
                self.timers[node, output.timer] = output.after
            elif isinstance(output, CancelTimer):
                self.timers.pop((node, output.timer), None)
            elif isinstance(output, RecoveryEnded):
                self.ended.append((node, output.error))
            elif isinstance(output, Log):
                self.logs.append((node, output.text))

    def _post(self, letter: Letter) -> None:
        self.sent.append(letter)
        if letter[0] in self.dead or letter[1] in self.dead:
            return
        (self.kept if self.held(*letter) else self.wire).append(letter)

    def deliver(self) -> None:
        """Deliver all that is under way, and what comes of it."""
        while self.wire:
            self.deliver_one()

    def deliver_one(self) -> None:
        """Deliver the oldest message that is under way."""
        source, target, message = self.wire.popleft()
        if target in self.spaces:
            self.step(target, Deliver(NodeId(source), message))
        elif (reply := not_ready(message)) is not None:
            self._post((target, source, reply))

    def send(self, source: int, target: int, message: Message) -> None:
        """Let a message arrive that nobody sent, and what comes of it."""
        self.step(target, Deliver(NodeId(source), message))
        self.deliver()

    def release(self) -> None:
        """Send on what was held back, in its order, hold nothing any more, and deliver."""
        self.held = nothing
        kept, self.kept = self.kept, []
        self.wire.extend(each for each in kept if not {each[0], each[1]} & self.dead)
        self.deliver()

    def let_through(self) -> None:
        """Hold nothing any more; what was held back is lost."""
        self.held = nothing
        self.kept.clear()

    def fire(self, node: int, timer: Timer) -> list[Output]:
        """Let a timer run out that was set."""
        del self.timers[node, timer]
        return self.step(node, TimerFired(timer))

    def settle(self, rounds: int = 6) -> None:
        """Deliver, and poll barriers, until that changes nothing."""
        self.deliver()
        for _ in range(rounds):
            before = self.progress()
            for node, timer in sorted(self.timers, key=lambda each: (each[0], each[1].value)):
                if timer is Timer.BARRIER_POLL and (node, timer) in self.timers:
                    self.fire(node, timer)
                    self.deliver()
            if self.progress() == before and not self.polling():
                return

    def progress(self) -> int:
        """Return a number that grows with every change."""
        return sum(space.progress for space in self.spaces.values())

    def polling(self) -> list[int]:
        """Return the nodes that wait at a barrier."""
        return [node for node, timer in self.timers if timer is Timer.BARRIER_POLL]

    # ---- control --------------------------------------------------------------------------------

    def members(self, nodes: Iterable[int], new: Iterable[int] = ()) -> tuple[StartMember, ...]:
        """Return these nodes as a start names them."""
        return tuple(
            StartMember(NodeId(node), self.weights.get(node, 1), comm=node, new=node in new)
            for node in nodes
        )

    def stop(self, *nodes: int) -> None:
        """Stop these nodes."""
        for node in nodes:
            self.step(node, Stop(CallId(next(self.numbers))))

    def start(self, *nodes: int, new: Iterable[int] = (), on: Iterable[int] | None = None) -> None:
        """Start with these members, on all of them or only on some."""
        for node in nodes if on is None else on:
            self.step(node, Start(self.members(nodes, new)))

    def up(self) -> World:
        """Bring the lockspace up on every node."""
        self.start(*self.nodes)
        self.settle(40)
        assert not any(space.stopped for space in self.spaces.values())
        return self

    def without_directory(self) -> World:
        """Set nodir on every node."""
        for node in self.nodes:
            self.step(node, SetNoDirectory())
        return self

    def crash(self, node: int) -> None:
        """Take a node away, with all that is under way to it and from it."""
        self.dead.add(node)
        del self.spaces[node]
        self.wire = deque(each for each in self.wire if node not in each[:2])
        self.kept = [each for each in self.kept if node not in each[:2]]
        for key in [key for key in self.timers if key[0] == node]:
            del self.timers[key]

    def survive(self, node: int) -> None:
        """Let a node die and the others recover."""
        if node in self.spaces:
            self.crash(node)
        survivors = sorted(self.spaces)
        self.stop(*survivors)
        self.start(*survivors)
        self.settle(40)
        assert not any(space.stopped for space in self.spaces.values())

    def answer(self, call: CallId) -> int:
        """Return what a call was answered: its value, -errno, or ``waits``."""
        reply = self.replies.get(call)
        if reply is None:
            return self.waits
        return -reply.error if reply.error else reply.value

    # ---- what can be seen -----------------------------------------------------------------------

    def user(self, node: int) -> User:
        """Open a file on a node."""
        return User(self, node, next(self.numbers))

    def name(self, directory: int, number: int = 0, then: int | None = None) -> bytes:
        """Return a name that this node keeps the directory entry of; other numbers, others.

        ``then`` is the node that keeps it once that node has gone.
        """
        left = [node for node in self.nodes if node != directory]
        found = (
            name
            for name in (b"r%d" % at for at in itertools.count())
            if self._directory(name, self.nodes) == directory
            and (then is None or self._directory(name, left) == then)
        )
        return next(itertools.islice(found, number, None))

    def _directory(self, name: bytes, members: Iterable[int]) -> int:
        nodes = [node for node in sorted(members) for _ in range(self.weights.get(node, 1))]
        return nodes[(hash_name(name) >> 16) % len(nodes)]

    def status(self) -> dict[int, int]:
        """Return every node's recover_status."""
        return {node: space.recover_status for node, space in self.spaces.items()}

    def ends(self, node: int) -> list[int]:
        """Return how this node's recoveries have ended, oldest first."""
        return [error for each, error in self.ended if each == node]

    def messages(self, kind: int, since: int = 0) -> list[Letter]:
        """Return the messages of a type that were sent; ``since``: from that position on."""
        return [each for each in self.sent[since:] if each[2].type is kind]

    def resource(self, node: int, name: bytes) -> Resource:
        """Return a resource that is in use on a node."""
        return next(each for each in self.spaces[node].resources() if each.name == name)

    def lock(self, node: int, lock_id: int) -> LockBlock:
        """Return a lock on a node."""
        lock = self.spaces[node].lock(lock_id)
        assert lock is not None
        return lock

    def master(self, name: bytes) -> int:
        """Return the one node that takes itself for a resource's master."""
        (master,) = (
            node
            for node, space in self.spaces.items()
            for each in space.resources()
            if each.name == name and each.is_master
        )
        return master
