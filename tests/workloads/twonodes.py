"""A random workload for two nodes: one operation at a time, whose messages arrive before the next.

Decides: which node does what next; recoveries of both, and the death of node 2.
May not know: what an operation's result should be. What one node never does is
tests/workloads/onenode.py's.
"""

from __future__ import annotations

import random
from dataclasses import replace

from dlm.abi.device import Command, LockRequest, encode_request
from dlm.terms import LockFlag, LockMode
from tests.traces.kit import CLUSTER
from tests.workloads.onenode import LockAction, OneNode, Space, Steps
from tests.workloads.words import Line, draw_theme

LOCKSPACE = "test"

ACTIONS: dict[LockAction, int] = {
    OneNode.request: 26,
    OneNode.convert: 22,
    OneNode.unlock: 13,
    OneNode.cancel: 5,
    OneNode.deadlock: 3,
    OneNode.adopt: 2,
    OneNode.read: 14,
    OneNode.poll: 1,
    OneNode.look: 8,
    OneNode.reopen: 2,
}
"""What a node does, and how often."""

BY_ID = frozenset({OneNode.convert, OneNode.unlock, OneNode.cancel, OneNode.deadlock})
"""What is asked about a lock by its id."""

# Hazard: the lock's own node takes another mode than its master has granted (ALTPR, ALTCW); an
# orphan is forgotten that the other node grants while its file closes (PERSISTENT).
NEVER = int(LockFlag.PERSISTENT | LockFlag.ALTPR | LockFlag.ALTCW)

MIDDLE = {LockMode.PR, LockMode.CW}
GRANTED_MODE = 8
"""Column of a listed lock."""

SILENT = frozenset({"read", "poll", "get", "open", "settle", "pending"})
"""Operations that send nothing to the other node."""


class Side(OneNode):
    """One of the nodes; both draw from one source."""

    def __init__(self, number: int, whole: TwoNodes) -> None:
        super().__init__(0, 0, rng=whole.rng, theme=whole.theme)
        self.number = number
        self._whole = whole
        self.spaces = [Space(whole.lockspace)]
        self.requests.never = NEVER

    def do(self, action: str, **what: object) -> Steps[Line]:
        """Do one operation here, and let its messages arrive."""
        self.count = self._whole.count = self._whole.count + 1
        result = yield {"do": action, "node": self.number, **what}
        if action not in SILENT and "errno" not in result:
            yield {"do": "settle"}
        return result

    @property
    def space(self) -> Space:
        """Return the lockspace."""
        return self.spaces[0]

    def act(self) -> Steps[None]:
        """Do something."""
        if self.rng.random() < 0.02:
            request = self.requests.purge(self.rng.choice((0, 1, 2)), 0)
            yield from self.write(self.file_of(self.space), request)
        else:
            choices, weights = tuple(ACTIONS), tuple(ACTIONS.values())
            (action,) = self.rng.choices(choices, weights)
            if action in BY_ID:
                # Hazard: a request by the id of another node's lock kills its process inside the
                # lockspace, and an id that has ended may be that now.
                locks = yield from self.list_locks(self.space)
                self.space.recent = [int(words[0], 16) for words in locks]
            yield from action(self, self.space)


class TwoNodes:
    """One seed's workload on two nodes whose lockspace runs; ``dies`` says that node 2 does."""

    def __init__(
        self, seed: int, operations: int, lockspace: str = LOCKSPACE, *, dies: bool = True
    ) -> None:
        self.lockspace = lockspace
        self.dies = dies
        self.rng = random.Random(seed)
        self.theme = replace(draw_theme(self.rng), claims_values=False)
        self.count = 0
        self._operations = operations
        self.first = Side(1, self)
        self.second = Side(2, self)
        self.sides = (self.first, self.second)

    def steps(self) -> Steps[None]:
        """Do random things; at last node 2 dies, and node 1 goes on without it.

        A clean leave would wait for minutes where connections close badly.
        """
        lives = self.rng.choice((0.6, 0.8, 0.95))
        for side in self.sides:
            for _ in range(self.rng.choice((1, 2))):
                yield from side.open(side.space)
            yield from side.keep_open()
        while self.count < self._operations * lives:
            if self.rng.random() < 0.015:
                yield from self.recover()
            else:
                yield from self.rng.choice(self.sides).act()
        if self.dies:
            yield from self.die()
        while self.count < self._operations and self.dies:
            yield from self.first.act()
        while self.first.space.files:
            yield from self.first.close(self.first.space.files[-1])

    def recover(self) -> Steps[None]:
        """Stop both nodes, let one call wait, start them."""
        for side in self.sides:
            yield from side.put(f"dlm/{self.lockspace}/control", "0")
        side = self.rng.choice(self.sides)
        file = next(each for each in side.space.files if each.writes)
        waiting = side.fresh("w") if self.rng.random() < 0.5 else None
        if waiting:
            yield from side.write(file, side.sleeping(side.space), **{"async": waiting})
        if self.rng.random() < 0.5:  # of the other node: that does not wait
            request = side.requests.purge(3 - side.number, 0)
            yield from side.write(file, request)
        for each in self.sides:
            yield from each.read(each.space)
        for each in self.sides:
            yield from each.put(f"dlm/{self.lockspace}/control", "1")
        yield {"do": "settle"}
        if waiting:
            side.note(file, (yield from side.do("wait", **{"async": waiting})))

    def die(self) -> Steps[None]:
        """Cut the power of node 2; node 1 recovers without it."""
        yield {"do": "crash", "node": 2}
        side = self.first
        yield from self.ask_the_dead()
        for _ in range(self.rng.choice((0, 2))):
            yield from self.rng.choice((OneNode.look, OneNode.read))(side, side.space)
        yield from side.put(f"dlm/{self.lockspace}/control", "0")
        yield from side.do("rmdir", path=f"{CLUSTER}/spaces/{self.lockspace}/nodes/2")
        yield from side.do("rmdir", path=f"{CLUSTER}/comms/2")
        yield from side.put(f"dlm/{self.lockspace}/control", "1")
        yield {"do": "settle"}
        for file in side.space.files:
            for _ in range(30):
                result = yield from side.do("read", fd=file.name, size=104)
                if "errno" in result:
                    break
        yield from side.look(side.space)

    def ask_the_dead(self) -> Steps[None]:
        """Ask for what needs node 2, before node 1 knows that it is dead."""
        # Hazard: what is given up on its way (CANCEL, FORCEUNLOCK, a close) ends a 6.1 node when it
        # recovers; a conversion between PR and CW is granted twice there.
        side, rng = self.first, self.rng
        for _ in range(rng.choice((0, 2, 5))):
            locks = yield from side.list_locks(side.space)
            file = side.file_of(side.space)
            if not locks or rng.random() < 0.4:
                yield from side.request(side.space)
                continue
            words = rng.choice(locks)
            lock_id, granted = int(words[0], 16), int(words[GRANTED_MODE])
            if rng.random() < 0.4 and lock_id in side.space.owners:
                flags = rng.choice((0, 0, LockFlag.VALBLK, LockFlag.IVVALBLK))
                request = LockRequest(Command.UNLOCK, lock_id=lock_id, flags=flags, lksb=1)
                yield from side.write(file, encode_request(request))
            else:
                modes = [mode for mode in LockMode if {mode, granted} != MIDDLE]
                request = side.requests.convert(self.count, lock_id, mode=rng.choice(modes))
                yield from side.write(file, request)
