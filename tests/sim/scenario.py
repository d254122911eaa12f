"""Three nodes under a seeded stream of requests, crashes, leaves, partitions and recoveries.

Decides: what users and the membership manager of a scenario do, and what must hold at its end.
May not know: how any of it is done: everything goes through the seam of a process.

All chance comes from one ``random.Random(seed)`` and the cluster's own, which has the same seed.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dlm.abi.device import Command, LockRequest, PurgeRequest, decode_result, encode_request
from dlm.emulator.misc import MiscFile
from dlm.emulator.pending import Pending
from dlm.emulator.process import Process
from dlm.errors import errno_name
from dlm.ports import DeviceWrite
from dlm.terms import ECANCEL, EUNLOCK, KERNELS, LockFlag, LockMode
from tests.unit.emulator.helpers import (
    CLUSTER,
    NAMES,
    add_comm,
    answer,
    set_members,
    set_up,
    start,
    status,
    stop,
    submit_create,
    submit_remove,
    three_nodes,
)

RESOURCES = (b"a", b"b", b"c\0", b"\xff" * 64)
MODES = range(6)
REQUEST_FLAGS = (0, 0, LockFlag.NOQUEUE, LockFlag.VALBLK, LockFlag.PERSISTENT, LockFlag.HEADQUE)
CONVERT_FLAGS = (0, 0, LockFlag.NOQUEUE, LockFlag.VALBLK, LockFlag.QUECVT, LockFlag.CONVDEADLK)
ENDS_A_REQUEST = {-errno.EAGAIN, -errno.EDEADLK, -ECANCEL, -EUNLOCK}


@dataclass(eq=False)
class Held:
    """A lock as its user sees it: ``due`` is the operation whose completion has not come."""

    lock_id: int
    name: bytes
    due: str = "request"
    granted: bool = False
    twice: bool = False
    """It was converted to PR or CW: if it had the other of the two, and the master died meanwhile,
    kernels up to 6.12 may complete that twice."""
    busy: bool = False
    """A write about it has not returned: it may act on another lock if this one ends before."""


@dataclass
class Operation:
    """A write that may still sleep."""

    pending: Pending
    kind: str
    name: bytes = b""
    held: Held | None = None


@dataclass
class User:
    """One program on one node."""

    file: MiscFile
    locks: list[Held] = field(default_factory=list)
    """Oldest first. Since 6.10 an id may be given again before its last result was read."""
    operations: list[Operation] = field(default_factory=list)


class Scenario:
    """One run: ``run(steps)``, then ``finish()``, which asserts what must hold."""

    def __init__(self, seed: int, *, kernel: str = "6.1", keep_trace: bool = False) -> None:
        self.random = random.Random(seed)
        self.cluster = three_nodes(kernel=kernel, seed=seed, keep_trace=keep_trace)
        self.processes: dict[int, Process] = {}
        self.users: dict[int, User] = {}
        self.back: dict[int, bool] = {}
        """Nodes that came back since the members were last set; True: after a crash, so that their
        comms must be made anew."""
        self.left: dict[int, bool] = {}
        """Nodes that are up and have left; the value is that of ``back`` when they return."""
        self.parted: tuple[str, str] | None = None
        self.completes_twice = KERNELS[kernel].guesses_middle_conversions
        self.ids_come_again_early = not KERNELS[kernel].ids_free_when_read
        self.removes: dict[int, Pending] = {}
        """Removes of nodes that have left; each waits for the others to let go of the node."""
        self.creates: dict[int, Pending] = {}
        """Creates whose join nobody has answered."""
        for number in (1, 2, 3):
            self.boot(number)
        self.reform()
        self.cluster.settle()

    # ---- the manager ----------------------------------------------------------------------------

    def boot(self, number: int) -> None:
        """Configure a node that was just started, and let it begin to join."""
        node = self.cluster.node(NAMES[number - 1])
        if not node.up:
            self.cluster.restart(node.name)
        process = self.processes[number] = node.process()
        set_up(process, number)
        self.join(number, crashed=True)

    def come_back(self, number: int) -> None:
        """Let a node that has left begin to join again.

        If others could not be reached when it left, they go on counting messages where they were,
        and what they had to say to it waits. Both sides make each other's comm anew *before* it
        listens again: its kernel would take the first of those messages, and then wait for numbers
        that never come (Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_receive_buffer()).
        """
        assert self.removes.pop(number).result() == 0
        crashed = self.left.pop(number)
        if crashed:
            for one, process in self.processes.items():
                for other in {1, 2, 3} - {one}:
                    if number in (one, other):
                        process.remove_directory(f"{CLUSTER}/comms/{other}")
                        add_comm(process, other, f"10.0.0.{other}")
        self.join(number, crashed=crashed)

    def join(self, number: int, *, crashed: bool) -> None:
        """Let a node begin to join."""
        self.creates[number] = submit_create(self.processes[number])
        self.back[number] = crashed

    def leave(self, number: int) -> None:
        """Let a node leave in good order, if it runs."""
        process = self.processes[number]
        user = self.user(number)
        if user is None:
            return
        self.collect(user)
        if user.operations or not self.close(number):  # stopped
            return
        minor = process.misc_devices()["dlm_test"]
        self.removes[number] = submit_remove(process, minor)
        answer(process)
        self.cluster.advance(0)
        self.back.pop(number, None)
        self.left[number] = self.parted is not None

    def part(self) -> None:
        """Part two nodes, or heal the network."""
        if self.parted is not None:
            self.cluster.heal(*self.parted)
            self.parted = None
        else:
            first, second = self.random.sample(NAMES, 2)
            self.parted = (first, second)
            self.cluster.partition(first, second)

    def crash(self, number: int) -> None:
        """Cut a node's power."""
        self.cluster.crash(NAMES[number - 1])
        del self.processes[number]
        self.users.pop(number, None)
        self.creates.pop(number, None)
        self.back.pop(number, None)
        self.left.pop(number, None)
        self.removes.pop(number, None)

    def reform(self) -> None:
        """Make the nodes that have joined the members: stop everywhere, set, start everywhere."""
        alive = sorted(set(self.processes) - set(self.left))
        for number in alive:
            stop(self.processes[number])
            self.pass_time()
        for number in alive:
            process = self.processes[number]
            others = {other: crashed for other, crashed in self.back.items() if other != number}
            set_members(process, set(alive) - set(others))
            for other, crashed in others.items():
                if crashed:
                    process.remove_directory(f"{CLUSTER}/comms/{other}")
                    add_comm(process, other, f"10.0.0.{other}")
            set_members(process, alive)
        self.back.clear()
        for number in alive:
            start(self.processes[number])
            if number in self.creates:
                answer(self.processes[number])
                del self.creates[number]
            self.pass_time()

    # ---- users ----------------------------------------------------------------------------------

    def user(self, number: int) -> User | None:
        """Return the program on a node, begun on first use; None where there is no device."""
        user = self.users.get(number)
        process = self.processes.get(number)
        if user is None and process is not None and "dlm_test" in process.misc_devices():
            user = self.users[number] = User(process.open_device("dlm_test"))
        return user

    def write(self, user: User, kind: str, request: LockRequest, held: Held | None = None) -> None:
        """Begin a write."""
        pending = user.file.submit(DeviceWrite(encode_request(request)))
        if held is not None:
            held.busy = True
        user.operations.append(Operation(pending, kind, request.name, held))
        self.collect(user)

    def request(self, user: User) -> None:
        """Ask for a new lock."""
        if self.ids_come_again_early and user.operations:
            # The new lock might get the id of one that ends before a write about it goes on.
            return
        choose = self.random.choice
        self.write(
            user,
            "request",
            LockRequest(
                Command.LOCK,
                mode=choose(MODES),
                flags=choose(REQUEST_FLAGS),
                castaddr=1,
                bastaddr=2,
                lksb=1,
                name=choose(RESOURCES),
            ),
        )

    def convert(self, user: User) -> None:
        """Convert a granted lock that nothing is asked for."""
        held = self.pick(user, lambda held: held.granted and not held.due)
        if held is not None:
            held.due = "convert"
            mode = self.random.choice(MODES)
            held.twice = self.completes_twice and mode in {LockMode.PR, LockMode.CW}
            flags = LockFlag.CONVERT | self.random.choice(CONVERT_FLAGS)
            self.write(
                user,
                "convert",
                LockRequest(
                    Command.LOCK,
                    mode=mode,
                    flags=flags,
                    lock_id=held.lock_id,
                    castaddr=1,
                    bastaddr=2,
                    lksb=1,
                    value=self.random.randbytes(32),
                ),
                held,
            )

    def unlock(self, user: User, flags: int = 0) -> None:
        """Unlock or cancel some lock, whatever state it is in."""
        held = self.pick(user, lambda held: held.due != "unlock")
        if held is not None:
            kind = "cancel" if flags & LockFlag.CANCEL else "unlock"
            request = LockRequest(Command.UNLOCK, flags=flags, lock_id=held.lock_id, lksb=1)
            self.write(user, kind, request, held)

    def pick(self, user: User, wanted: Callable[[Held], bool]) -> Held | None:
        """Choose among a user's locks, after all results were read."""
        self.collect(user)
        if self.ids_come_again_early and user.operations:
            return None
        found = [held for held in user.locks if not held.busy and wanted(held)]
        return self.random.choice(found) if found else None

    def close(self, number: int) -> bool:
        """Let the program end and another one begin later; False: its close sleeps."""
        user = self.users.pop(number, None)
        return user is None or user.file.begin_close() is None

    def collect(self, user: User) -> None:
        """Take the returns of writes, then the results."""
        asleep = []
        for operation in user.operations:
            if operation.pending.done():
                self.returned(user, operation)
            else:
                asleep.append(operation)
        user.operations = asleep
        while user.file.poll(0):
            try:
                result = decode_result(user.file.read(104))
            except BlockingIOError:
                break
            if not result.bast_mode:
                self.completed(user, result.lock_id, result.status)

    def returned(self, user: User, operation: Operation) -> None:
        """Take note of a write's return."""
        try:
            value = operation.pending.result()
        except OSError as error:
            refused = error.errno or 0
        else:
            refused = 0
        held = operation.held
        if operation.kind == "request":
            # ENOBUFS: a comm was made anew whose node is a member still (come_back).
            assert refused in {0, errno.ENOBUFS}, f"request refused: {errno_name(refused)}"
            if refused:
                return
            user.locks.append(Held(value, operation.name))
            return
        assert held is not None
        held.busy = False
        allowed = {0, errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.ENOBUFS}
        assert refused in allowed, f"{operation.kind} refused: {errno_name(refused)}"
        if operation.kind == "convert" and refused and held.due == "convert":
            held.due = ""
        if operation.kind == "unlock" and not refused:
            held.due = "unlock"

    def completed(self, user: User, lock_id: int, outcome: int) -> None:
        """Take note of a completion."""
        held = next((held for held in user.locks if held.lock_id == lock_id), None)
        assert held is not None, f"completion {outcome} of lock {lock_id} that is not there"
        if not held.due and held.twice and not outcome:
            held.twice = False
            return
        assert held.due, f"completion {outcome} of lock {lock_id} that asked for nothing"
        if outcome == -EUNLOCK:
            assert held.due == "unlock", f"lock {lock_id} ended unasked"
            user.locks.remove(held)
            return
        assert outcome == 0 or outcome in ENDS_A_REQUEST, outcome
        if outcome == 0:
            held.granted = True
        elif not held.granted:
            user.locks.remove(held)
            return
        if held.due != "unlock":
            held.due = ""

    # ---- a run ----------------------------------------------------------------------------------

    def pass_time(self) -> None:
        """Let a short while go by, often none."""
        self.cluster.advance(self.random.choice((0, 0, 0.0005, 0.002, 0.05, 1.5)))

    def run(self, steps: int) -> None:
        """Do that many things."""
        for _ in range(steps):
            self.step()
            self.pass_time()

    def step(self) -> None:
        """Do one thing."""
        roll = self.random.random()
        number = self.random.choice((1, 2, 3))
        if roll < 0.03:
            self.change_power(number)
        elif roll < 0.07:
            self.reform()
        elif roll < 0.08:
            self.close(number)
        elif roll < 0.09:
            self.part()
        elif roll < 0.10 and number in self.left:
            self.come_back(number)
        elif roll < 0.10 and number in self.processes:
            self.leave(number)
        elif (user := self.user(number)) is not None:
            if roll < 0.55:
                self.request(user)
            elif roll < 0.75:
                self.convert(user)
            elif roll < 0.87:
                self.unlock(user)
            elif roll < 0.93:
                self.unlock(user, LockFlag.CANCEL)
            else:
                self.collect(user)

    def change_power(self, number: int) -> None:
        """Crash a node while another is up, or let one come back."""
        if number not in self.processes:
            self.boot(number)
        elif len(self.processes) > 1:
            self.crash(number)

    # ---- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Bring everybody back, let all locks go, and assert that nothing is left of them."""
        if self.parted is not None:
            self.part()
        for number in (1, 2, 3):
            if number not in self.processes:
                self.boot(number)
            elif number in self.left:
                self.come_back(number)
        self.reform()
        self.cluster.settle()
        assert [status(self.processes[number]) for number in (1, 2, 3)] == ["ff", "55", "55"]
        self.let_everything_go()
        for number in (1, 2, 3):
            self.purge_orphans(number)
        for name in RESOURCES:
            for number in (1, 2, 3):
                self.lock_and_unlock(number, name)
        for number in (1, 2, 3):
            self.close(number)
        self.cluster.settle()
        self.cluster.check()

    def let_everything_go(self) -> None:
        """Unlock until nobody holds or waits for anything."""
        for _ in range(200):
            left = 0
            for number in (1, 2, 3):
                user = self.user(number)
                assert user is not None
                self.collect(user)
                assert not user.operations, f"asleep: {user.operations[0].pending.text}"
                for held in tuple(user.locks):
                    left += 1
                    if held.due != "unlock":
                        request = LockRequest(Command.UNLOCK, lock_id=held.lock_id, lksb=1)
                        self.write(user, "unlock", request, held)
            self.cluster.settle()
            if not left:
                return
        raise AssertionError("locks that cannot be let go")

    def purge_orphans(self, number: int) -> None:
        """Let go what programs that ended have left on a node."""
        user = self.user(number)
        assert user is not None
        user.file.write(encode_request(PurgeRequest(0, 0)))
        self.cluster.settle()

    def lock_and_unlock(self, number: int, name: bytes) -> None:
        """Hold a resource alone for a moment."""
        user = self.user(number)
        assert user is not None
        request = LockRequest(Command.LOCK, mode=LockMode.EX, castaddr=1, lksb=1, name=name)
        self.write(user, "request", request)
        self.cluster.settle()
        self.collect(user)
        (held,) = user.locks
        assert held.granted, f"EX of {name!r} not granted on node {number}"
        unlock = LockRequest(Command.UNLOCK, lock_id=held.lock_id, lksb=1)
        self.write(user, "unlock", unlock, held)
        self.cluster.settle()
        self.collect(user)
        assert not user.locks
