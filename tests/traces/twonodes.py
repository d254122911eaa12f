"""Directed traces of two nodes that live: rows 5.9 to 6.4 of the interface.

Decides: how two nodes begin, which operations are made on which node, in which order.
May not know: their results; stories in which node 2 dies (tests/traces/twodeaths.py).

A story begins with a lockspace of both nodes. Operations are made one at a time, and what travels
between the nodes has arrived before the next: there is one order, and the emulator can keep it.

A lock is named by what its own node was told: UNLOCK or CONVERT by the number of a master's copy
of the other node's lock ends the process that asks on a 6.1 node (an oops in dlm_user_unlock()).
"""

from __future__ import annotations

from collections.abc import Callable

from dlm.core.modes import hash_name
from tests.traces.kit import (
    CLUSTER,
    CR,
    CW,
    EX,
    HOLE,
    NL,
    PR,
    PW,
    F,
    File,
    Tape,
    remove,
    saved,
)

ADDRESSES = {1: "10.0.0.1", 2: "10.0.0.2"}


def name_for(directory: int, stem: str) -> bytes:
    """Return a name whose directory node, of two with weight 1, is this one."""
    # Linux 6.1 fs/dlm/dir.c, dlm_hash2nodeid(): members in order, (hash >> 16) % total weight
    candidates = (f"{stem}{number}".encode() for number in range(100))
    return next(each for each in candidates if (hash_name(each) >> 16) % 2 + 1 == directory)


class Two:
    """Two nodes with a lockspace, and what stories do with them."""

    def __init__(self, one: Tape, other: Tape, lockspace: str = "test") -> None:
        self.lockspace = lockspace
        self.one = one
        self.other = other
        self.tapes = (one, other)
        self.controls: dict[int, str] = {}

    def up(self) -> None:
        """Bring the lockspace up on both nodes."""
        for tape in self.tapes:
            self.configure(tape)
        self.create()

    def create(self) -> None:
        """Bring the lockspace up on two nodes that are configured."""
        calls = {}
        for tape in self.tapes:
            fd = self.controls[tape.number] = tape.control()
            calls[tape.number] = tape.begin_create(fd, self.lockspace)
        for tape in self.tapes:
            tape.put(f"dlm/{self.lockspace}/control", "1\n")
            tape.put(f"dlm/{self.lockspace}/event_done", "0\n")
        for tape in self.tapes:
            tape.do("wait", async_=calls[tape.number])
        self.settle()

    def configure(self, tape: Tape) -> None:
        """Tell a node of itself, of the other, and of the lockspace."""
        tape.configure()
        for nodeid, address in ADDRESSES.items():
            if nodeid != tape.number:
                tape.comm(nodeid, address)
        self.configure_members(tape)

    def configure_members(self, tape: Tape) -> None:
        """Tell a node of the lockspace."""
        tape.mkdir(f"{CLUSTER}/spaces/{self.lockspace}")
        for nodeid in ADDRESSES:
            tape.member(self.lockspace, nodeid)

    def settle(self) -> None:
        """Let messages arrive."""
        self.one.settle()

    def files(self) -> tuple[File, File]:
        """Open the lockspace on each node."""
        return self.one.file(), self.other.file()

    def results(self, *files: File) -> None:
        """Let messages arrive, then read what has come."""
        self.settle()
        for file in files:
            file.results()

    def look(self, *tapes: Tape) -> None:
        """Look at the locks of these nodes, both if none is named."""
        for tape in tapes or self.tapes:
            tape.locks()
            tape.everything()

    def master(self, file: File, *names: bytes) -> list[int]:
        """Make a node the master of resources by locks that it keeps: NL; return their ids."""
        held = []
        for name in names:
            held.append(file.lock(name, NL))
            self.settle()
        file.results()
        return held

    def lose(self) -> None:
        """Cut the power of node 2, and let node 1 go on alone."""
        self.other.do("crash")
        self.go_on()

    def go_on(self) -> None:
        """Let node 1 recover without node 2."""
        self.one.stop()
        self.one.rmdir(f"{CLUSTER}/spaces/test/nodes/2", f"{CLUSTER}/comms/2")
        self.one.start()
        self.settle()

    def again(self) -> None:
        """Stop both nodes, and let them recover."""
        for tape in self.tapes:
            tape.stop()
        for tape in self.tapes:
            tape.put("dlm/test/control", "1\n")
        self.settle()
        for tape in self.tapes:
            tape.get("dlm/test/recover_status")


Story = Callable[[Two], None]


def grants(two: Two) -> None:
    """5.10 across nodes: requests wait for the other node's lock, whichever of them is master."""
    f, g = two.files()
    for name in (name_for(1, "m"), name_for(2, "m")):
        for first, second in ((f, g), (g, f)):
            held = first.lock(name, EX)
            two.settle()
            waits = second.lock(name, PR)
            two.settle()
            second.lock(name, EX, F.NOQUEUE)
            two.settle()
            second.lock(name, CR, F.NOQUEUE | F.NOQUEUEBAST)
            two.results(f, g)
            two.look()
            first.convert(held, CR)
            two.results(f, g)
            second.convert(waits, NL)
            two.results(f, g)
            for file, lock_id in ((first, held), (second, waits)):
                file.unlock(lock_id)
                two.settle()
            two.results(f, g)
            two.look()


def blocking(two: Two) -> None:
    """5.12 across nodes: rising modes, PR and CW, a holder that converts and still blocks."""
    f, g = two.files()
    a = name_for(2, "b")
    two.master(f, a)
    g.lock(a, PR)
    two.settle()
    f.lock(a, CR)
    two.results(f, g)
    for mode in (CW, PR, PW, EX):
        f.lock(a, mode)
        two.results(f, g)
    g.lock(a, EX, F.NOQUEUE | F.NOQUEUEBAST)
    two.results(f, g)
    g.convert(1, CR)
    two.results(f, g)
    two.look()
    g.convert(1, NL)
    two.results(f, g)
    two.look()


def conversions(two: Two) -> None:
    """5.11 across nodes: conversions, deadlock, CONVDEADLK, ALTPR, cancel, DEADLOCK."""
    f, g = two.files()
    a = name_for(1, "c")
    two.master(f, a)
    f.lock(a, PR)
    g.lock(a, PR)
    two.results(f, g)
    g.convert(1, EX)
    two.results(f, g)
    f.convert(2, EX)
    two.results(f, g)
    g.cancel(1)
    two.results(f, g)
    f.convert(2, EX)
    two.settle()
    g.convert(1, EX)
    two.results(f, g)
    g.convert(1, EX, F.CONVDEADLK)
    two.results(f, g)
    two.look()
    f.unlock(2)
    two.results(f, g)
    f.lock(a, PW)
    two.settle()
    g.convert(1, CR)
    two.results(f, g)
    g.convert(1, EX, F.ALTPR)
    two.results(f, g)
    g.deadlock(1)
    two.results(f, g)
    g.convert(1, PR, F.NOQUEUE)
    two.results(f, g)
    g.convert(1, PW, F.QUECVT)
    two.results(f, g)
    g.unlock(1)
    two.results(f, g)
    g.lock(a, EX)
    two.settle()
    g.unlock(1)
    two.results(f, g)
    g.lock(a, EX)
    two.settle()
    g.cancel(1)
    two.results(f, g)
    g.lock(a, EX)
    two.settle()
    g.deadlock(1)
    two.results(f, g)
    two.look()


def order(two: Two) -> None:
    """5.10 across nodes: HEADQUE, NOORDER, EXPEDITE, QUECVT, NODLCKWT, NOQUEUE to convert."""
    f, g = two.files()
    a = name_for(1, "q")
    two.master(f, a)
    held = f.lock(a, PR)
    two.settle()
    for mode, flags in (
        (EX, 0), (CR, 0), (PW, F.HEADQUE), (CR, F.NOORDER), (NL, 0), (NL, F.EXPEDITE)
    ):  # fmt: skip
        g.lock(a, mode, flags)
        two.results(f, g)
    two.look()
    f.convert(held, EX, F.NOQUEUE)
    two.results(f, g)
    g.convert(4, PW, F.NOQUEUE)
    two.results(f, g)
    g.convert(6, EX, F.NOQUEUE | F.NOQUEUEBAST)
    two.results(f, g)
    g.convert(4, EX)
    two.results(f, g)
    g.convert(6, PR, F.QUECVT)
    two.results(f, g)
    f.convert(held, EX, F.NODLCKWT)
    two.results(f, g)
    two.look()
    g.convert(6, EX, F.NOQUEUE | F.NOQUEUEBAST)
    two.results(f, g)
    g.cancel(4)
    two.results(f, g)
    two.look()
    f.unlock(held, F.FORCEUNLOCK)
    two.results(f, g)
    two.look()


def alternatives(two: Two) -> None:
    """5.10 b across nodes: ALTPR and ALTCW, at once, from a queue, to convert."""
    # Not both flags, nor what node 2 then thinks it has: it may be wrong after a conversion.
    f, g = two.files()
    a = name_for(1, "t")
    two.master(f, a)
    held = f.lock(a, PR)
    two.settle()
    given = g.lock(a, EX, F.ALTPR)
    two.settle()
    queued = g.lock(a, EX, F.ALTCW)
    two.settle()
    g.lock(a, PW, F.ALTCW | F.NOQUEUE)
    two.results(f, g)
    two.look()
    f.convert(held, CW)
    two.results(f, g)
    g.unlock(given)
    two.results(f, g)
    two.look()
    g.convert(queued, NL)
    two.results(f, g)
    g.convert(queued, PR, F.ALTCW)
    two.results(f, g)
    two.look(two.one)
    g.unlock(queued)
    two.results(f, g)
    waits = g.lock(a, NL)
    two.settle()
    g.convert(waits, EX, F.ALTPR)
    two.results(f, g)
    two.look()
    f.convert(held, CR)
    two.results(f, g)
    two.look()


def values(two: Two) -> None:
    """5.4 across nodes: what a remote holder writes and reads, with and without VALBLK."""
    f, g = two.files()
    a = name_for(2, "v")
    two.master(f, a)
    writer = g.lock(a, EX, F.VALBLK)
    two.results(g)
    g.convert(writer, NL, F.VALBLK, value=b"remote")
    two.results(g)
    reader = f.lock(a, PR, F.VALBLK)
    two.results(f)
    f.convert(reader, NL)
    two.results(f)
    g.convert(writer, EX, value=b"not taken")
    two.results(g)
    g.convert(writer, PW, F.VALBLK, value=b"second")
    two.results(g)
    g.unlock(writer, value=b"third")
    two.results(g)
    f.convert(reader, CR, F.VALBLK)
    two.results(f)
    two.look()
    f.convert(reader, NL)
    two.results(f)
    writer = g.lock(a, EX)
    two.results(g)
    g.unlock(writer, F.VALBLK, value=b"no buffer")
    two.results(g)
    f.convert(reader, CR, F.VALBLK)
    two.results(f)
    f.convert(reader, NL)
    two.results(f)
    writer = g.lock(a, EX, F.VALBLK)
    two.results(g)
    g.unlock(writer, F.IVVALBLK)
    two.results(g)
    f.convert(reader, CR, F.VALBLK)
    two.results(f)
    g.lock(a, PR, F.VALBLK)
    two.results(g)
    two.look()


def orphans(two: Two) -> None:
    """4.7, 4.8, 4.4.6 across nodes: a file closes, orphans of the other node, a remote purge."""
    f, g = two.files()
    a, b = name_for(1, "o"), name_for(2, "o")
    two.master(f, a)
    g.lock(a, PR, F.PERSISTENT | F.VALBLK)
    two.settle()
    g.lock(b, EX, F.PERSISTENT)
    two.settle()
    g.lock(b + b"2", EX)
    two.results(g)
    f.lock(a, EX)
    f.lock(b, EX)
    f.lock(b + b"2", PR)
    two.results(f)
    g.close()
    two.results(f)
    two.look()
    h = two.other.file()
    h.adopt(a, PR)
    h.adopt(b, PR)
    two.results(f, h)
    h.close()
    two.results(f)
    f.purge(2, 0)
    two.results(f)
    two.look()


def closing(two: Two) -> None:
    """4.7 across nodes: a process ends that holds, converts and waits at the other node."""
    f, g = two.files()
    h = two.other.file(process="p")
    names = [name_for(directory, stem) for stem in "pu" for directory in (1, 2)]
    two.master(f, *names)
    writer = h.lock(names[0], EX, F.VALBLK)
    two.settle()
    h.convert(writer, EX, F.VALBLK, value=b"before")
    two.settle()
    h.lock(names[1], PR)
    two.settle()
    g.lock(names[1], PR)
    two.settle()
    h.lock(names[2], CR)
    two.settle()
    for name, mode in ((names[0], CR), (names[1], EX), (names[2], PR)):
        f.lock(name, mode, F.VALBLK)
        two.settle()
    h.convert(2, PW)
    two.settle()
    h.convert(4, EX)
    two.settle()
    h.lock(names[1], CR)
    h.lock(names[3], NL)
    two.results(f, g, h)
    two.look()
    two.other.do("exit", process="p")
    two.results(f, g)
    two.look()


def stopped(two: Two) -> None:
    """6.1, 6.2 with both: one is stopped, requests of the other are kept and made later."""
    f, g = two.files()
    a, b = name_for(1, "s"), name_for(2, "s")
    two.master(f, a)
    two.master(g, b)
    f.lock(a, EX)
    two.results(f)
    two.one.stop()
    g.lock(a, PR)
    g.lock(b, EX)
    two.settle()
    g.results()
    two.other.stop()
    for tape in two.tapes:
        tape.put("dlm/test/control", "1\n")
    two.results(f, g)
    for tape in two.tapes:
        tape.get("dlm/test/recover_status")
    two.look()
    f.unlock(2)
    two.results(f, g)


def nodir(two: Two) -> None:
    """6.2, 6.4: no directory, a name's hash says who is master; each recovery rebuilds all."""
    f, g = two.files()
    a, b, c = name_for(1, "n"), name_for(2, "n"), name_for(2, "nn")
    for tape in two.tapes:
        tape.put("dlm/test/nodir", "1\n")
    two.again()
    for first, second, name in ((g, f, a), (f, g, b), (f, g, c)):
        held = first.lock(name, EX, F.VALBLK)
        two.settle()
        first.convert(held, PR, F.VALBLK, value=name)
        two.settle()
        second.lock(name, PR, F.VALBLK)
        two.settle()
        second.lock(name, EX)
        two.settle()
    f.convert(2, EX)
    two.results(f, g)
    two.look()
    two.again()
    two.results(f, g)
    two.look()
    f.unlock(2, F.FORCEUNLOCK)
    two.results(f, g)
    two.look()
    two.lose()
    f.results()
    two.look(two.one)


def leaving(two: Two) -> None:
    """6.4: node 2 leaves, its locks and what it was the master of go; node 1 goes on."""
    f, g = two.files()
    a, b = name_for(1, "l"), name_for(2, "l")
    two.master(f, a)
    two.master(g, b)
    g.lock(a, EX, F.VALBLK)
    two.settle()
    g.lock(b, EX, F.VALBLK)
    two.settle()
    f.lock(a, PR)
    f.lock(b, PR)
    two.results(f, g)
    g.close()
    two.results(f)
    two.look()
    call = two.other.release(two.controls[2])  # which waits until node 1 has let go of node 2
    two.one.stop()
    two.one.rmdir(f"{CLUSTER}/spaces/test/nodes/2")
    two.one.start()
    two.other.do("wait", async_=call)
    two.other.list("dlm")
    f.results()
    two.look(two.one)


def remade(two: Two) -> None:
    """1.2, 6.2: one node alone makes the other's comm anew; from then on they are out of step."""
    # No lock whose directory is node 2: its lookup would not be sent, and the lock hang for ever.
    f, g = two.files()
    a, b = name_for(1, "t"), name_for(2, "t")
    two.master(f, a)
    two.master(g, b)
    held = f.lock(b, PR)
    two.results(f, g)
    two.one.rmdir(f"{CLUSTER}/comms/2")
    two.one.comm(2, ADDRESSES[2])
    two.settle()
    f.lock(b, CR)
    two.results(f, g)
    two.look()
    g.lock(a, CR)
    two.results(f, g)
    two.look()
    f.convert(held, CR)
    two.results(f, g)
    two.look()
    two.again()
    two.results(f, g)
    two.look()


def only_copies(two: Two) -> None:
    """4.4.2: a node that has none but copies of the other node's locks is EBUSY all the same."""
    f, g = two.files()
    name = name_for(1, "o")
    (held,) = two.master(f, name)
    other = g.lock(name, CR)
    two.results(f, g)
    two.look()
    f.unlock(held)
    two.results(f, g)
    two.look()
    request = saved(remove(HOLE), "minor")
    for _ in range(2):
        two.one.do("write", fd=two.controls[1], hex=request)
        two.one.list("dlm")
    g.convert(other, EX)
    two.results(f, g)
    g.unlock(other)
    two.results(f, g)
    two.look()
    for tape in two.tapes:
        tape.get("dlm/test/recover_status")


def unlike(two: Two) -> None:
    """4.4.1, 3: a lockspace whose flags differ between nodes: no recovery, EPROTO on both."""
    calls = {}
    for tape, flags in zip(two.tapes, (0x20, 0), strict=True):
        tape.mkdir(f"{CLUSTER}/spaces/other")
        for nodeid in ADDRESSES:
            tape.member("other", nodeid)
        control = two.controls[tape.number]
        calls[tape.number] = tape.begin_create(control, "other", flags, save="unlike")
    for tape in two.tapes:
        tape.put("dlm/other/control", "1\n")
        tape.put("dlm/other/event_done", "0\n")
    two.settle()
    for tape in two.tapes:
        tape.get("dlm/other/recover_status")
        tape.put("dlm/other/event_done", "0\n")  # that it has left again
        tape.do("wait", async_=calls[tape.number])
        tape.list("dlm")
    f, g = two.files()
    for name in (name_for(1, "u"), name_for(2, "u")):
        f.lock(name, EX)
        two.settle()
        g.lock(name, CR)
        two.results(f, g)
    two.look()


ALIVE: dict[str, Story] = {
    "grants": grants,
    "blocking": blocking,
    "conversions": conversions,
    "order": order,
    "alternatives": alternatives,
    "values": values,
    "orphans": orphans,
    "closing": closing,
    "stopped": stopped,
    "nodir": nodir,
    "leaving": leaving,
    "remade": remade,
    "only-copies": only_copies,
    "unlike": unlike,
}
"""Stories in which nobody dies."""
