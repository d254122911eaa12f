"""A random workload for one node: hundreds of operations, drawn one by one as results come in.

Decides: which operation comes next, and what is never asked of a real kernel because it hangs or
corrupts it (every such rule is marked ``# Hazard:``).
May not know: what an operation's result should be. Results decide only which ids, names and files
there are to choose from, so equal results make equal workloads of one seed.

A workload does not depend on time: toss_secs and scan_secs are set high first, and where the kernel
does something on its own (a recovery, a join) an operation waits for its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeVar

from dlm.abi.device import (
    VERSION_SIZE,
    Command,
    Layout,
    LockRequest,
    LockspaceRequest,
    encode_request,
)
from dlm.terms import InternalFlag, LockFlag, LockMode, LockspaceFlag, ReleaseFlag
from tests.workloads import surroundings
from tests.workloads.words import LOST_IDS, READ_SIZES, Line, Requests, Theme, draw_theme

Action = TypeVar("Action")
Answer = TypeVar("Answer")
Steps = Generator[Line, Line, Answer]
"""Operations out, results in."""

NO_EVENT = "none"
ATTEMPTS = 5
"""Opens in a row of which one is surely for writing."""

HOLE = 0x7A7A7A7A
"""A number that stands where a saved one will be put."""


def fill(request: bytes, saved: str) -> str:
    """Return a request in hex whose hole will be filled with a saved number."""
    return request.hex().replace(HOLE.to_bytes(4, "little").hex(), f"${{{saved}:u32}}")


def minor_of(lockspace: str) -> str:
    """Return what a lockspace's minor is saved as."""
    return "minor_" + lockspace.replace("!", "_")


LOCK_COLUMNS = [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13]
"""Columns of ``<ls>_locks`` without pid (3) and time (10)."""

_ID, _EXFLAGS, _FLAGS, _STATUS = 0, 5, 6, 7
_WAITING = "1"

ALL_COLUMNS = [0, 2, 3, *range(5, 15), *range(17, 36)]
"""Columns of ``<ls>_all`` without pointers (1), pids (4) and times (15, 16)."""

DEBUG_FILES: tuple[tuple[str, list[int] | None], ...] = (
    ("", [0, 2, 3, 4, 5, 6, 7, 8]),  # column 1 is a pointer in some lines
    ("_locks", LOCK_COLUMNS),
    ("_locks", LOCK_COLUMNS),
    ("_all", ALL_COLUMNS),
    ("_toss", [0, 2, 3, 4, 5, 7, 8, 9, 10]),  # 1 is a pointer, 6 a time
    ("_waiters", None),
    ("_queued_asts", None),
)


@dataclass(slots=True)
class Space:
    """A lockspace: its files, and who was given which lock id last."""

    name: str
    uses: int = 1
    files: list[File] = field(default_factory=list)
    recent: list[int] = field(default_factory=list)
    owners: dict[int, File] = field(default_factory=dict)

    def device(self) -> str:
        """Return the name of its device's file."""
        return f"dlm_{self.name}".replace("!", "/")

    def give(self, lock_id: int, file: File) -> None:
        """Note that a write on a file returned this lock id."""
        self.owners[lock_id] = file
        self.recent = [*self.recent[-15:], lock_id]


@dataclass(slots=True, eq=False)
class File:
    """An open file on a lockspace's device."""

    name: str
    space: Space
    process: str | None
    writes: bool = True


class OneNode:
    """One seed's workload; ``steps`` gives at least ``operations`` of them."""

    def __init__(
        self,
        seed: int,
        operations: int,
        *,
        rng: random.Random | None = None,
        theme: Theme | None = None,
    ) -> None:
        """Draw from ``rng`` and with a taste that others share, if they are given."""
        self.rng = rng or random.Random(seed)
        self.theme = theme or draw_theme(self.rng)
        self.requests = Requests(self.rng, self.theme)
        self.count = 0
        self.spaces: list[Space] = []
        self._operations = operations
        self._made = 0
        self.processes: list[str] = []

    # ---- the whole ------------------------------------------------------------------------------

    def steps(self) -> Steps[None]:
        """Set a node up, do random things, and leave nothing behind."""
        yield from surroundings.set_up(self)
        yield from self.create("t")
        reads = 26 if self.theme.drains else 8
        while self.count < self._operations:
            if self.rng.random() < 0.9:
                action = self._draw(LOCK_ACTIONS | {OneNode.read: reads})
                yield from action(self, self.rng.choice(self.spaces))
            elif self.rng.random() < 0.1:
                yield from self.second_space()
            else:
                yield from self._draw(surroundings.ACTIONS)(self)
        while self.spaces:
            yield from self.remove(self.spaces[-1])

    def do(self, action: str, **what: object) -> Steps[Line]:
        """Do one operation and return its result."""
        self.count += 1
        return (yield {"do": action, **what})

    def _draw(self, actions: dict[Action, int]) -> Action:
        return self.rng.choices(tuple(actions), tuple(actions.values()))[0]

    def fresh(self, prefix: str) -> str:
        """Return a name that nothing had before."""
        self._made += 1
        return f"{prefix}{self._made}"

    # ---- lockspaces -----------------------------------------------------------------------------

    def create(self, name: str) -> Steps[None]:
        """Create a lockspace and answer its join; now and then the answer is no."""
        rng = self.rng
        yield from surroundings.add_member(self, name)
        flags = rng.choice((0, 0, 1, 2, 4, LockspaceFlag.NEWEXCL, 0x20, 0x40000000))
        waiting = self.fresh("w")
        request = self.requests.create(name.encode(), flags)
        how = {"async": waiting, "save": minor_of(name)}
        yield from self.do("write", fd="c", hex=request.hex(), **how)
        # A call that has begun may take a while to get to work: its first event says that it has.
        header = ""
        while header not in (f"add@/kernel/dlm/{name}", NO_EVENT):
            header = (yield from self.do("uevent")).get("header", NO_EVENT)
        yield from self.do("list", path=f"dlm/{name}")
        join = rng.random()
        if join < 0.1 and self.spaces:
            yield from self.put(f"dlm/{name}/event_done", rng.choice(("-5", "-1", "-110")))
            yield from self.do("wait", **{"async": waiting})
            yield from self.events(2)
            return
        if rng.random() < 0.5:
            yield from self.put(f"dlm/{name}/id", str(rng.randrange(1 << 32)))
        first, second = ("control", "1"), ("event_done", "0")
        if join > 0.5:
            first, second = second, first
        yield from self.put(f"dlm/{name}/{first[0]}", first[1])
        yield from self.put(f"dlm/{name}/{second[0]}", second[1])
        result = yield from self.do("wait", **{"async": waiting})
        if "errno" in result:
            return
        yield from self.events(2)
        space = Space(name)
        self.spaces.append(space)
        for _ in range(rng.choice((1, 2, 3))):
            yield from self.open(space)
        yield from self.keep_open()

    def remove(self, space: Space, *, force: bool = True) -> Steps[None]:
        """Remove a lockspace; files that are still open may be used until their close lets it go.

        Without force it stays when there are locks, and the answer to its leave is remembered.
        """
        rng = self.rng
        if rng.random() < 0.7 or not force:
            while space.files:
                yield from self.close(space.files[-1])
        stopped = force and space.uses == 1 and rng.random() < 0.15
        if stopped:  # what would wait for a start goes on when the leave is answered
            yield from self.put(f"dlm/{space.name}/control", "0")
        flags = ReleaseFlag.FORCEFREE if force else rng.choice((0, ReleaseFlag.AUTOFREE))
        layout = rng.choice((Layout.NATIVE, Layout.COMPAT32))
        waiting = self.fresh("w")
        request = encode_request(
            LockspaceRequest(Command.REMOVE_LOCKSPACE, flags, minor=HOLE), layout=layout
        )
        text = fill(request, minor_of(space.name))
        yield from self.do("write", fd="c", hex=text, **{"async": waiting})
        yield from self.do("settle")
        for _ in range(rng.choice((0, 3)) if space.files and not stopped else 0):
            yield from rng.choice((OneNode.request, OneNode.unlock, OneNode.read))(self, space)
        yield from self.put(f"dlm/{space.name}/event_done", rng.choice(("0", "0", "-9", "7")))
        if stopped:
            yield from self.do("settle")
        while space.files:
            yield from self.close(space.files[-1])
        result = yield from self.do("wait", **{"async": waiting})
        yield from self.events(3 if space.uses == 1 and "errno" not in result else 0)
        if "errno" not in result:
            space.uses -= 1
        if space.uses == 0:
            self.spaces.remove(space)
        yield from self.keep_open()

    def events(self, most: int) -> Steps[None]:
        """Read some of the events of a create or remove; later ones give the rest."""
        for _ in range(self.rng.choice((0, most, most))):
            yield from self.do("uevent")

    def second_space(self) -> Steps[None]:
        """Create or remove a second lockspace, or one of them once more."""
        draw = self.rng.random()
        if draw < 0.3:
            space = self.rng.choice(self.spaces)
            flags = self.rng.choice((0, 0, 1, 0x10, LockspaceFlag.NEWEXCL))
            request = self.requests.create(space.name.encode(), flags)
            how = {"save": minor_of(space.name)}
            result = yield from self.do("write", fd="c", hex=request.hex(), **how)
            space.uses += "errno" not in result
        elif len(self.spaces) == 1:
            taken = (
                "comms"  # a directory of debugfs; t_locks would have the columns of another file
            )
            other = self.fresh(self.rng.choice(("second", "second", "sec!nd")))
            yield from self.create(taken if self.rng.random() < 0.2 else other)
        elif draw < 0.5:
            yield from self.remove(self.spaces[-1], force=False)
        else:
            yield from self.remove(self.spaces[-1])

    # ---- files ----------------------------------------------------------------------------------

    def open(self, space: Space) -> Steps[None]:
        """Open a lockspace's device, mostly in the first process."""
        draw = self.rng.random()
        process = self.rng.choice((None, None, *self.processes))
        if draw < 0.2 and len(self.processes) < 3:
            process = self.fresh("p")
            self.processes.append(process)
        where: Line = {} if process is None else {"process": process}
        name, writes = self.fresh("f"), True
        if 0.95 < draw and space.files:
            flag = self.rng.choice(("rdonly", "wronly"))
            writes = flag == "wronly"
            where |= {"flags": [flag, "nonblock"]}
        device = space.device()
        result = yield from self.do("open", device=device, **{"as": name}, **where)
        if "errno" not in result:
            space.files.append(File(name, space, process, writes))

    def close(self, file: File, **how: object) -> Steps[None]:
        """Close a file."""
        yield from self.spare_the_orphan_list(file)
        yield from self.do("close", fd=file.name, **how)
        self.forget(file)

    def forget(self, file: File) -> None:
        """A file is closed: what was its own may be an orphan now."""
        # Hazard: UNLOCK of an orphan that nobody adopted hangs the kernel. An id without an owner
        # is never unlocked again until a LOCK returns it.
        space = file.space
        space.files.remove(file)
        space.owners = {key: owner for key, owner in space.owners.items() if owner is not file}

    def spare_the_orphan_list(self, *files: File) -> Steps[None]:
        """Unlock what would corrupt the kernel's list of orphans when these files close."""
        # Hazard: closing a file with a waiting PERSISTENT request leaves a dead entry on the list
        # of orphans, and the next purge or adoption crashes.
        for space in self.spaces:
            own = {each: owner for each, owner in space.owners.items() if owner in files}
            if not own:
                continue
            for words in (yield from self.list_locks(space)):
                lock_id = int(words[_ID], 16)
                persistent = int(words[_EXFLAGS], 16) & LockFlag.PERSISTENT
                if lock_id in own and persistent and words[_STATUS] == _WAITING:
                    request = LockRequest(Command.UNLOCK, lock_id=lock_id, lksb=1)
                    yield from self.write(own[lock_id], encode_request(request))

    def list_locks(self, space: Space) -> Steps[list[list[str]]]:
        """Read the lines of this node's own locks; another node's have ids of ours, too."""
        path = f"debug/dlm/{space.name}_locks"
        listing = yield from self.do("get", path=path, columns=LOCK_COLUMNS)
        lines = [line.split() for line in listing.get("text", "").splitlines()[1:]]
        return [line for line in lines if not int(line[_FLAGS], 16) & InternalFlag.MASTER_COPY]

    def reopen(self, space: Space) -> Steps[None]:
        """Open one more file, or close one, or end a process; one file is always left."""
        draw = self.rng.random()
        if draw < 0.4 and len(space.files) < 5:
            yield from self.open(space)
        elif draw < 0.8 or not self.processes:
            yield from self.close(self.rng.choice(space.files))
        else:
            yield from self.exit(self.rng.choice(self.processes))
        yield from self.keep_open()

    def exit(self, process: str) -> Steps[None]:
        """End a process and with it its files."""
        files = [file for space in self.spaces for file in space.files if file.process == process]
        yield from self.spare_the_orphan_list(*files)
        yield from self.do("exit", process=process)
        self.processes.remove(process)
        for file in files:
            self.forget(file)

    def keep_open(self) -> Steps[None]:
        """See that every lockspace has a file that can be written to."""
        for space in self.spaces:
            for _ in range(ATTEMPTS):
                if any(file.writes for file in space.files):
                    break
                yield from self.open(space)

    # ---- locks ----------------------------------------------------------------------------------

    def write(self, file: File, request: bytes, **how: object) -> Steps[Line]:
        """Write a request."""
        return (yield from self.do("write", fd=file.name, hex=request.hex(), **how))

    def file_of(self, space: Space) -> File:
        """Choose a file to write to."""
        return self.rng.choice(space.files)

    def id_of(self, space: Space) -> int:
        """Choose a lock id: mostly a recent one."""
        if not space.recent or self.rng.random() < 0.03:
            return self.rng.choice(LOST_IDS)
        return self.rng.choice(space.recent)

    def id_to_unlock(self, space: Space) -> int:
        """Choose a lock id that is no orphan's."""
        mine = [each for each in space.recent if each in space.owners]
        if not mine or self.rng.random() < 0.03:
            return self.rng.choice(LOST_IDS)
        return self.rng.choice(mine)

    def request(self, space: Space) -> Steps[None]:
        """Ask for a lock."""
        yield from self.lock(space, self.requests.new(self.count))

    def adopt(self, space: Space) -> Steps[None]:
        """Ask for an orphan."""
        yield from self.lock(space, self.requests.adopt(self.count))

    def lock(self, space: Space, request: bytes) -> Steps[None]:
        """Write a request that returns a lock id."""
        file = self.file_of(space)
        result = yield from self.write(file, request)
        self.note(file, result)

    def note(self, file: File, result: Line) -> None:
        """Remember the lock id that a write returned."""
        if result.get("ret", 0) > 0:
            file.space.give(result["ret"], file)

    def convert(self, space: Space) -> Steps[None]:
        """Convert a lock, whoever's it is."""
        yield from self.on(space, self.requests.convert, self.id_of(space))

    def unlock(self, space: Space) -> Steps[None]:
        """Unlock a lock, whoever's it is."""
        yield from self.on(space, self.requests.unlock, self.id_to_unlock(space))

    def cancel(self, space: Space) -> Steps[None]:
        """Cancel what a lock waits for."""
        yield from self.on(space, self.requests.cancel, self.id_of(space))

    def deadlock(self, space: Space) -> Steps[None]:
        """Cancel what a lock waits for as a deadlock's victim."""
        yield from self.on(space, self.requests.deadlock, self.id_of(space))

    def on(self, space: Space, draw: Callable[[int, int], bytes], lock_id: int) -> Steps[None]:
        """Write a request about a lock; one that has ended is seldom asked about again."""
        result = yield from self.write(self.file_of(space), draw(self.count, lock_id))
        if result.get("errno") == "ENOENT" and self.rng.random() < 0.8:
            space.recent = [each for each in space.recent if each != lock_id]

    def purge(self, space: Space) -> Steps[None]:
        """Purge all orphans, those of a process, or this file's own locks."""
        # Hazard: a purge sent to a node without an address makes 5.10 try to connect, which crashes
        # it when the cluster is removed.
        file = self.file_of(space)
        draw = self.rng.random()
        if draw < 0.4:
            request = self.requests.purge(self.rng.choice((0, 1)), 0).hex()
        elif draw < 0.7:
            request = fill(self.requests.purge(0, HOLE), "pid")
        else:
            request = self.requests.purge(self.rng.choice((0, 1)), 999_999).hex()
        yield from self.do("write", fd=file.name, hex=request)

    # ---- results --------------------------------------------------------------------------------

    def read(self, space: Space) -> Steps[None]:
        """Read one result, some, or all; in any size."""
        file = self.file_of(space)
        for _ in range(self.rng.choice((1, 2, 99))):
            size = self.rng.choice(READ_SIZES)
            result = yield from self.do("read", fd=file.name, size=size)
            if "errno" in result or size == VERSION_SIZE:
                return

    def poll(self, space: Space) -> Steps[None]:
        """Poll a file."""
        yield from self.do("poll", fd=self.file_of(space).name)

    def wait_for_a_result(self, space: Space) -> Steps[None]:
        """Let a read wait, and give it what it waits for."""
        name, waiting = self.fresh("f"), self.fresh("w")
        device = space.device()
        yield from self.do("open", device=device, flags=["rdwr"], **{"as": name})
        file = File(name, space, None)
        space.files.append(file)
        yield from self.do("read", fd=name, size=104, **{"async": waiting})
        yield from self.do("pending", **{"async": waiting})
        alone = self.fresh("alone").encode()
        request = self.requests.new(self.count, name=alone, mode=LockMode.EX, flags=0)
        self.note(file, (yield from self.write(file, request)))
        yield from self.do("wait", **{"async": waiting})
        yield from self.close(file)

    # ---- looking --------------------------------------------------------------------------------

    def get(self, path: str, columns: list[int] | None = None) -> Steps[Line]:
        """Read an attribute, or some columns of it."""
        how = {} if columns is None else {"columns": columns}
        return (yield from self.do("get", path=path, **how))

    def put(self, path: str, text: str) -> Steps[Line]:
        """Write an attribute."""
        return (yield from self.do("put", path=path, text=text))

    def look(self, space: Space) -> Steps[None]:
        """Read one of the lockspace's debugfs files."""
        suffix, columns = self.rng.choice(DEBUG_FILES)
        yield from self.get(f"debug/dlm/{space.name}{suffix}", columns)

    # ---- stop and start -------------------------------------------------------------------------

    def stop_and_start(self, space: Space) -> Steps[None]:
        """Stop a lockspace, see what still works and what waits, start it again."""
        rng = self.rng
        file = rng.choice([each for each in space.files if each.writes])
        leaving = rng.random() < 0.2 and len(space.files) > 1
        if leaving:
            yield from self.spare_the_orphan_list(file)
        if rng.random() < 0.05:
            yield from self.leave_monitor()
        else:
            yield from self.put(f"dlm/{space.name}/control", "0")
        for _ in range(rng.choice((0, 0, 2, 5))):
            yield from rng.choice(WHILE_STOPPED)(self, space)
        # Only one call waits at a time: several would go on in an order that nobody fixes.
        waiting = None
        if leaving:
            waiting = self.fresh("w")
            yield from self.do("close", fd=file.name, **{"async": waiting})
            self.forget(file)
        elif rng.random() < 0.6:
            waiting = self.fresh("w")
            yield from self.write(file, self.sleeping(space), **{"async": waiting})
        if waiting:
            yield from self.do("pending", **{"async": waiting})
        for _ in range(rng.choice((0, 0, 2))):
            yield from rng.choice(WHILE_STOPPED)(self, space)
        for each in self.spaces:
            yield from self.start(each)
        if waiting:
            result = yield from self.do("wait", **{"async": waiting})
            if not leaving:
                self.note(file, result)
        yield from self.keep_open()
        for each in self.spaces:  # an UNLOCK of nothing waits for the end of the recovery
            request = LockRequest(Command.UNLOCK, lock_id=LOST_IDS[1])
            writer = next(one for one in each.files if one.writes)
            yield from self.write(writer, encode_request(request))
            yield from self.get(f"dlm/{each.name}/recover_status")

    def start(self, space: Space) -> Steps[None]:
        """Start a lockspace; a start of one that runs does nothing."""
        draw = self.rng.random()
        if draw < 0.1:
            yield from surroundings.start_without_members(self, space.name)
        elif draw < 0.2:
            yield from surroundings.start_with_an_absent_member(self, space.name)
        yield from self.put(f"dlm/{space.name}/control", self.rng.choice(("1", "1\n", "0x1")))

    def sleeping(self, space: Space) -> bytes:
        """Draw a request that waits for the end of a stop, good or not."""
        rng = self.rng
        which = rng.randrange(6)
        if which == 0:
            return self.requests.new(self.count)
        if which == 1:
            return self.requests.convert(self.count, self.id_of(space))
        if which == 2:
            return self.requests.cancel(self.count, self.id_of(space))
        if which == 3:
            return self.requests.deadlock(self.count, self.id_of(space))
        if which == 4:
            return self.requests.purge(0, rng.choice((0, 999_999)))
        return self.requests.unlock(self.count, self.id_to_unlock(space))

    def leave_monitor(self) -> Steps[None]:
        """Open and close dlm-monitor: every lockspace stops, and none can be created any more."""
        yield from self.do("open", device="dlm-monitor", **{"as": "m"})
        yield from self.do("read", fd="m", size=self.rng.choice((12, 104)))
        yield from self.do("write", fd="m", hex="00" * 104)
        yield from self.do("close", fd="m")
        self.monitored = True

    # ---- anything else --------------------------------------------------------------------------

    def bad_request(self, space: Space) -> Steps[None]:
        """Write what no file takes."""
        if self.rng.random() < 0.3:
            request = self.requests.bad(self.count, control=True)
            yield from self.do("write", fd="c", hex=request.hex())
        else:
            request = self.requests.bad(self.count, control=False)
            yield from self.write(self.file_of(space), request)


LockAction = Callable[[OneNode, Space], Steps[None]]

LOCK_ACTIONS: dict[LockAction, int] = {
    OneNode.request: 24,
    OneNode.convert: 22,
    OneNode.unlock: 13,
    OneNode.cancel: 5,
    OneNode.deadlock: 3,
    OneNode.adopt: 2,
    OneNode.purge: 1,
    OneNode.read: 12,
    OneNode.poll: 2,
    OneNode.look: 4,
    OneNode.bad_request: 3,
    OneNode.reopen: 2,
    OneNode.stop_and_start: 1,
    OneNode.wait_for_a_result: 1,
}
"""What is done to a lockspace, and how often."""

WHILE_STOPPED: tuple[LockAction, ...] = (
    OneNode.read,
    OneNode.poll,
    OneNode.look,
    OneNode.bad_request,
    OneNode.adopt,
)
"""What does not wait for the start."""
