"""The usage document on three nodes with locks on all of them: nodea loses power, and comes back.

Decides: what is typed, in which order, and what must be seen, the same on guests with real kernels
and on a served emulator.
May not know: which of the two its nodes are.
Mirrors: the usage document (dlm.txt of April 2005), steps 1 to 18 and its notes.

Lines are typed as ``dlm_tool`` commands. What the tool has no words for, value blocks, is done by a
program on each node, through a backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Protocol

from dlm.abi.debugfs import parse_all
from dlm.abi.device import LockResult
from dlm.ports import Backend
from dlm.terms import LockFlag, LockMode, StatusFlag
from tests.cli.tool import Ran
from tests.contract.machine import LockFile, value_block

NL, CR, CW, PR, PW, EX = LockMode
VALBLK = LockFlag.VALBLK

PATIENCE = 60.0
"""Seconds, by the node's own clock, for what ends by itself."""

GRANTED = r"lock: mode 0x\d flags 0x8[01] name \S+\nstatus 0x0 id (\d+)\n"
REFUSED = r"lock: mode 0x\d flags 0x8[01] name \S+\nstatus 0xb id \d+\n"
UNLOCKED = r"unlock: lkid \d+ flags 0x0\nstatus 0x10002\n"
DONE = r"done event_nr (\d+)\n"
CONVERTED = r"convert: lkid \d+ flags 0x84\nstatus 0x0\n"


class Begun(Protocol):
    """A line that was typed and has not ended yet."""

    def finished(self) -> bool:
        """Say whether it has ended."""

    def wait(self) -> Ran:
        """Wait for its end."""


class Node(Protocol):
    """A machine to type at; ``name`` is nodea, nodeb or nodec."""

    name: str

    def begin(self, line: str) -> Begun:
        """Type ``dlm_tool`` and a line; do not wait for its end."""

    def backend(self) -> AbstractContextManager[Backend]:
        """Give a program's process on it."""

    def cut(self) -> None:
        """Cut its power."""

    def boot(self) -> None:
        """Switch it on again, with nothing configured."""


class Program:
    """A program on a node that holds locks with value blocks, and looks at debugfs."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._files: dict[str, LockFile] = {}

    def file(self) -> LockFile:
        """Return its open file on the lockspace."""
        if "test" not in self._files:
            self.eventually(lambda: "dlm_test" in self.backend.misc_devices(), "the device")
            self._files["test"] = LockFile(self.backend.open_device("dlm_test"))
        return self._files["test"]

    def result(self) -> LockResult:
        """Wait for the next completion."""
        results: list[LockResult] = []

        def came() -> bool:
            results.extend(each for each in self.file().whole_results() if not each.bast_mode)
            return bool(results)

        self.eventually(came, "a completion")
        (result,) = results
        return result

    def lock(self, name: bytes, mode: LockMode, *, value: bytes = b"") -> int:
        """Take a lock with a value block."""
        lock_id = self.file().lock(name, mode, VALBLK, value=value)
        assert self.result().status == 0, name
        return lock_id

    def convert(self, lock_id: int, mode: LockMode, *, value: bytes = b"") -> LockResult:
        """Convert a lock; return its completion, with the value block if one came."""
        assert self.file().convert(lock_id, mode, VALBLK, value=value) == 0
        result = self.result()
        assert result.status == 0, lock_id
        return result

    def waits_for(self, name: bytes, lockspace: str = "test") -> bool:
        """Say whether a process of this node waits for a lock."""
        text = self.backend.read_attribute(f"debug/dlm/{lockspace}_all").decode()
        return any(
            lock.granted_mode < 0 <= lock.requested_mode
            for resource in parse_all(text)
            if resource.name == name
            for lock in resource.locks
        )

    def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        end = self.backend.now() + PATIENCE
        while not condition():
            assert self.backend.now() < end, f"waited {PATIENCE:g} s for {what}"
            self.backend.pause(0.1)


class Story:
    """Three nodes, what is typed at them, and a program on each."""

    def __init__(self, nodes: Sequence[Node], programs: ExitStack) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.ids = {node.name: number for number, node in enumerate(nodes, 1)}
        self.addresses = {node.name: f"10.0.0.{self.ids[node.name]}" for node in nodes}
        self.programs: dict[str, Program] = {}
        self._stack = programs
        for node in nodes:
            self.run_program(node.name)

    @property
    def all(self) -> tuple[str, ...]:
        """Return the names of all nodes."""
        return tuple(self.nodes)

    def run_program(self, name: str) -> None:
        """Start the program of a node, which ends with the story, or with its node."""
        self.programs[name] = Program(self._stack.enter_context(alive(self.nodes[name])))

    def check(self, name: str, line: str, ran: Ran, shows: str, code: int) -> str:
        """Hold what a line has shown to what it must; return the first group of it."""
        assert ran.code == code, (name, line, ran)
        match = re.fullmatch(shows, ran.out)
        assert match, (name, line, ran)
        assert (ran.err == "") == (code == 0), (name, line, ran)
        return match[1] if match.re.groups else ""

    def one(self, name: str, line: str, shows: str = "", code: int = 0) -> str:
        """Type a line on a node."""
        return self.check(name, line, self.nodes[name].begin(line).wait(), shows, code)

    def each(self, lines: dict[str, str], shows: str = "") -> list[str]:
        """Type a line on each of some nodes, on all at about the same time."""
        begun = {name: self.nodes[name].begin(line) for name, line in lines.items()}
        return [
            self.check(name, lines[name], each.wait(), shows, 0) for name, each in begun.items()
        ]

    def every(self, names: Sequence[str], line: str, shows: str = "") -> list[str]:
        """Type the same line on each of some nodes."""
        return self.each(dict.fromkeys(names, line), shows)

    def set_nodes(self, names: Sequence[str]) -> None:
        """Do steps 3 and 4 on some nodes."""
        self.each({name: f"set_local {self.ids[name]} {self.addresses[name]}" for name in names})
        for other, address in self.addresses.items():
            self.every(names, f"set_node {self.ids[other]} {address}")

    def start(self, lockspace: str, events: dict[str, int], members: str) -> None:
        """Do steps 6 to 8: start, wait until it is done, finish; ``events`` by node.

        Who stayed is started before who comes back: see docs/control.md.
        """
        starts = {name: f"start {lockspace} {nr} 0 {members}" for name, nr in events.items()}
        back = {name for name, nr in events.items() if nr == 1 < max(events.values())}
        self.each({name: line for name, line in starts.items() if name not in back})
        self.each({name: line for name, line in starts.items() if name in back})
        done = [str(nr) for nr in events.values()]
        polls = {
            n: f"poll_done {lockspace} {nr} --timeout {PATIENCE:g}" for n, nr in events.items()
        }
        assert self.each(polls, DONE) == done
        assert self.every(tuple(events), f"get_done {lockspace}", DONE) == done
        self.each({name: f"finish {lockspace} {nr}" for name, nr in events.items()})

    def begin_to_wait(self, name: str, line: str, resource: bytes) -> Begun:
        """Type a request that has to wait, and see that it does."""
        begun = self.nodes[name].begin(line)
        program = self.programs[name]
        program.eventually(lambda: begun.finished() or program.waits_for(resource), "the request")
        assert not begun.finished(), (name, line, begun.wait())
        return begun


@contextmanager
def alive(node: Node) -> Iterator[Backend]:
    """Give a program's process on a node; at the end the node may have lost its power."""
    stack = ExitStack()
    yield stack.enter_context(node.backend())
    with suppress(OSError):
        stack.close()


VALUES = {
    # name: who keeps the resource alive, and how; nodea's mode when its power is cut
    #       -> what a survivor reads then, and whether it is told that this is not valid
    b"held-elsewhere": (NL, "nodeb", EX, b"written by a", True),
    b"let-go-elsewhere": (NL, "nodeb", NL, b"written by a", False),
    b"held-by-master": (NL, "nodea", EX, b"read by b", True),
    b"shared-at-master": (PR, "nodea", NL, b"written by a", False),
}
"""Value blocks over the death of a node.

Linux 6.1 fs/dlm/recover.c, recover_lvb(), and lock.c, purge_dead_list(): where the master lives,
bytes stay, and are no longer valid if the dead held PW or EX with VALBLK. Where the master died,
they come from the locks that are left: valid from one above CR, else the newest, and not valid.
"""


def write_values(story: Story) -> dict[bytes, int]:
    """Write value blocks on nodea before its power is cut; return nodeb's locks on them."""
    nodea, nodeb = story.programs["nodea"], story.programs["nodeb"]
    survivors: dict[bytes, int] = {}
    for name, (kept, master, last, _, _) in VALUES.items():
        first = {"nodea": nodea, "nodeb": nodeb}[master]
        writer = reader = 0
        if first is nodeb:  # who asks first is the master
            reader = nodeb.lock(name, NL)
            writer = nodea.lock(name, NL)
        else:
            writer = nodea.lock(name, NL)
            reader = nodeb.lock(name, NL)
        nodea.convert(writer, EX)
        nodea.convert(writer, NL, value=value_block(b"read by b"))
        nodeb.convert(reader, CR)
        nodeb.convert(reader, NL, value=value_block(b"read by b"))  # its copy: nothing is written
        nodea.convert(writer, EX)
        nodea.convert(writer, EX, value=value_block(b"written by a"))
        if last != EX:
            nodea.convert(writer, last, value=value_block(b"written by a"))
        if kept != NL:
            nodeb.convert(reader, kept)
        survivors[name] = reader
    return survivors


def check_values(story: Story, survivors: dict[bytes, int]) -> None:
    """See what nodeb reads after the recovery, against the kernel's rules."""
    nodeb = story.programs["nodeb"]
    for name, (kept, _, _, value, invalid) in VALUES.items():
        result = nodeb.convert(survivors[name], max(kept, CR))
        read = (result.value or b"").rstrip(b"\0")
        print(f"nodeb reads {name.decode()}: {read!r}, sb_flags {result.flags:#x}")
        assert result.value == value_block(value), name
        assert bool(result.flags & StatusFlag.VALNOTVALID) == invalid, name


def hand_round(story: Story, resource: str) -> None:
    """Hand a lock round all nodes: each gets it when the one before it lets go."""
    holder, *others = story.all
    lock_id = story.one(holder, f"lock test {resource} EX", GRANTED)
    waiting = [
        (name, story.begin_to_wait(name, f"lock test {resource} EX", resource.encode()))
        for name in others
    ]
    for name, begun in waiting:
        story.one(holder, f"unlock test {lock_id}", UNLOCKED)
        lock_id = story.check(name, "lock", begun.wait(), GRANTED, 0)
        holder = name
    story.one(holder, f"unlock test {lock_id}", UNLOCKED)


def tell(nodes: Sequence[Node]) -> None:
    """Type it all, and hold every line to what it must show."""
    with ExitStack() as programs:
        _tell(Story(nodes, programs))


def _tell(story: Story) -> None:
    survivors = ("nodeb", "nodec")
    story.set_nodes(story.all)  # 3, 4
    story.every(story.all, "create test")  # 5
    story.start("test", dict.fromkeys(story.all, 1), "1 2 3")  # 6, 7, 8

    story.one("nodea", "lock test resA EX", GRANTED)  # 9
    waiting = story.begin_to_wait("nodeb", "lock test resA EX", b"resA")
    kept = story.one("nodeb", "lock test resB PR", GRANTED)
    story.one("nodeb", f"convert test {kept} EX", CONVERTED)
    story.one("nodec", "lock test resB EX NOQUEUE", REFUSED, 1)
    story.one("nodec", "lock test resC PW", GRANTED)
    values = write_values(story)

    story.nodes["nodea"].cut()  # 10
    # Nothing is asked of the dead here: a first request for a resource that is given up before the
    # recovery makes a later one a panic (dlm.core.hazards, LOOKUP_GIVEN_UP; seen on 6.1).
    story.every(survivors, "stop test")
    assert not waiting.finished()
    story.one("nodec", "lock test resD EX --timeout 0.5", "", 3)
    story.start("test", dict.fromkeys(survivors, 2), "2 3")  # 11, 12, 13
    inherited = story.check("nodeb", "lock test resA EX", waiting.wait(), GRANTED, 0)
    story.one("nodec", "lock test resA EX NOQUEUE", REFUSED, 1)
    story.one("nodec", "lock test resB PR NOQUEUE", REFUSED, 1)
    check_values(story, values)

    story.nodes["nodea"].boot()  # 14
    story.one("nodea", "create test", "", 1)  # it has lost steps 3 and 4
    story.set_nodes(["nodea"])
    story.one("nodea", "create test")
    story.every(survivors, "stop test")  # 15
    story.start("test", {"nodeb": 3, "nodec": 3, "nodea": 1}, "1 2 3")  # 16, 17, 18
    story.run_program("nodea")

    story.one("nodea", "lock test resA PR NOQUEUE", REFUSED, 1)
    story.one("nodea", "lock test resC PR NOQUEUE", REFUSED, 1)
    story.one("nodeb", f"unlock test {inherited}", UNLOCKED)
    mine = story.one("nodea", "lock test resA PR", GRANTED)
    story.one("nodea", f"unlock test {mine}", UNLOCKED)
    for resource in ("round1", "round2", "round3"):  # other names have other directory nodes
        hand_round(story, resource)

    story.every(story.all, "create second")  # a second lockspace has an id of its own
    story.every(story.all, "set_id second 7")
    story.start("second", dict.fromkeys(story.all, 1), "1 2 3")
    story.one("nodec", "lock second resA EX", GRANTED)
    story.one("nodea", "lock second resA EX NOQUEUE", REFUSED, 1)

    story.one("nodec", "release second")  # a node leaves
    story.every(("nodea", "nodeb"), "stop second")
    story.start("second", {"nodea": 2, "nodeb": 2}, "1 2")
    story.one("nodea", "lock second resA EX NOQUEUE", GRANTED)
    story.one("nodeb", "lock second resA EX NOQUEUE", REFUSED, 1)
    story.one("nodea", "lock test resC PR NOQUEUE", REFUSED, 1)  # the other one goes on
