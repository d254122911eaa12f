"""Directed traces of two nodes of which node 2 dies: rows 5.8, 6.2 to 6.7 and 11.5.

Decides: which operations are made on which node, in which order.
May not know: their results; how two nodes begin (tests/traces/twonodes.py).
"""

from __future__ import annotations

from tests.traces.kit import CR, CW, EX, NL, PR, PW, VALUE_COLUMNS, F
from tests.traces.twonodes import ADDRESSES, Story, Two, name_for


def holder_dies(two: Two) -> None:
    """6.3, 11.5: node 1 is the master of all; node 2 held, waited and converted there, and dies."""
    f, g = two.files()
    names = [name_for(directory, stem) for stem in "hijk" for directory in (1, 2)]
    two.master(f, *names)
    for name in names[:2]:
        g.lock(name, EX, F.VALBLK)
        two.settle()
    for name in names[2:4]:
        g.lock(name, EX)
        two.settle()
    g.lock(names[4], PR, F.VALBLK)
    two.settle()
    for name in names[:4]:
        f.lock(name, CR)
        two.settle()
    f.lock(names[5], EX)
    two.settle()
    g.lock(names[5], PR)
    two.settle()
    g.lock(names[6], CR)
    two.settle()
    f.lock(names[6], CR)
    two.settle()
    g.convert(7, EX)
    two.results(f, g)
    f.lock(names[6], PR)
    two.results(f, g)
    two.look()
    two.lose()
    f.results()
    two.look(two.one)
    for name in names:
        f.lock(name, CR, F.VALBLK | F.NOQUEUE)
        f.results()


def last_values(two: Two) -> None:
    """6.3, 6.7, 11.5: node 1 is the master and has written; node 2's lock says what that is worth.

    Two resources each, of both directory nodes. The plain text of debugfs says what is not valid.
    """
    f, g = two.files()
    stems = ("va", "vb", "vc", "vd", "ve", "vf", "vg")
    names = [name_for(directory, stem) for stem in stems for directory in (1, 2)]
    for name in names:
        writer = f.lock(name, EX, F.VALBLK)
        f.convert(writer, NL, F.VALBLK, value=b"kept " + name)
    two.results(f)
    holds = ((EX, F.VALBLK), (EX, 0), (PW, F.VALBLK), (PR, F.VALBLK), (CW, F.VALBLK))
    for name, (mode, flags) in zip(names, (each for each in holds for _ in "12"), strict=False):
        g.lock(name, mode, flags)
        two.settle()
    for name in names[10:12]:  # it waits for EX
        f.lock(name, CR)
        g.lock(name, EX, F.VALBLK)
        two.settle()
    for name in names[12:]:  # it holds CR and waits for EX
        f.lock(name, CR)
        converter = g.lock(name, CR, F.VALBLK)
        two.results(g)
        g.convert(converter, EX, F.VALBLK)
        two.settle()
    for name, mode in ((names[0], CR), (names[2], CR), (names[4], PR)):
        f.lock(name, mode, F.VALBLK)
        two.settle()
    two.results(f, g)
    two.look()
    two.one.get("debug/dlm/test", columns=VALUE_COLUMNS)
    two.lose()
    f.results()
    two.look(two.one)
    two.one.get("debug/dlm/test", columns=VALUE_COLUMNS)
    for name in names:
        f.lock(name, CR, F.VALBLK | F.NOQUEUE)
        f.results()
    two.look(two.one)


def master_dies(two: Two) -> None:
    """6.4, 6.7, 11.5: node 2 was the master; what node 1 has of each resource makes a new one."""
    f, g = two.files()
    for directory in (1, 2):
        for stem, mode, flags in (
            ("e1-", NL, F.VALBLK), ("e2-", PR, F.VALBLK), ("e3-", CR, F.VALBLK), ("e4-", NL, 0),
            ("e5-", PR, 0),
        ):  # fmt: skip
            name = name_for(directory, stem)
            writer = g.lock(name, EX, F.VALBLK)
            two.settle()
            g.convert(writer, NL, F.VALBLK, value=name)
            two.settle()
            g.results()
            f.lock(name, mode, flags)
            two.results(f)
        for stem, mode in (("e6-", CR), ("e7-", PR)):
            name = name_for(directory, stem)
            two.master(g, name)
            f.lock(name, mode, F.VALBLK)
            two.results(f)
    two.look()
    two.lose()
    f.results()
    two.look(two.one)
    for lock_id in range(1, 15):
        f.convert(lock_id, PR, F.VALBLK)
        f.results()
    two.look(two.one)


def newest_value(two: Two) -> None:
    """6.3, 6.7: a new master takes the newest value of NL and CR locks; a dead node's orphans.

    The newest is that of the first or of the second lock, of both directory nodes.
    """
    f, g = two.files()
    names = [name_for(directory, stem) for stem in ("na", "nb", "nc") for directory in (1, 2)]
    for number, name in enumerate(names[:4]):
        writer = g.lock(name, EX, F.VALBLK)
        two.settle()
        g.convert(writer, NL, F.VALBLK, value=b"old")
        two.settle()
        readers = []
        for _ in range(2):
            readers.append(f.lock(name, NL, F.VALBLK))
            two.settle()
        g.convert(writer, EX, F.VALBLK)
        two.settle()
        g.convert(writer, NL, F.VALBLK, value=b"new")
        two.settle()
        # NL again keeps its place in the queue, CR does not
        f.convert(readers[number // 2], NL if number % 2 else CR, F.VALBLK)
        two.results(f, g)
    for name, flags in zip(names[4:], (F.VALBLK, 0), strict=True):
        writer = f.lock(name, EX, F.VALBLK)
        f.convert(writer, NL, F.VALBLK, value=name)
        h = two.other.file()
        h.lock(name, EX, flags | F.PERSISTENT)
        two.results(f, h)
        h.close()
        two.settle()
    two.look()
    two.lose()
    f.results()
    two.look(two.one)
    two.one.get("debug/dlm/test", columns=VALUE_COLUMNS)
    for name in names:
        f.lock(name, CR, F.VALBLK | F.NOQUEUE)
        f.results()
    two.look(two.one)


def waiters_outlive(two: Two) -> None:
    """6.4, 6.6, 11.5: node 1 waits and converts on resources whose master, node 2, dies."""
    f, g = two.files()
    names = [name_for(directory, stem) for stem in "wxyz" for directory in (1, 2)]
    for name in names:
        g.lock(name, EX if name in names[:2] else NL, F.VALBLK)
        two.settle()
    g.results()
    f.lock(names[0], EX)
    two.settle()
    f.lock(names[1], NL)
    two.settle()
    f.convert(2, EX, F.VALBLK)
    two.settle()
    for name in names[2:4]:
        f.lock(name, PR)
        two.settle()
        g.lock(name, PR)
        two.settle()
        f.convert(3 if name == names[2] else 4, CW)
        two.settle()
    for name in names[4:6]:
        f.lock(name, CR)
        two.settle()
        f.lock(name, EX)
        two.settle()
        f.lock(name, PR)
        two.settle()
    two.results(f, g)
    two.look()
    two.lose()
    f.results()
    two.look(two.one)


def middle(two: Two) -> None:
    """6.6: conversions between PR and CW, under way or queued, whose master dies; another holds."""
    f, g = two.files()
    names = [name_for(1, stem) for stem in ("ma", "mb", "mc", "md")]
    two.master(g, *names)
    modes = ((PR, CW), (CW, PR), (PR, CW), (CW, PR))
    held, others = [], []
    for name, (mode, _) in zip(names, modes, strict=True):
        held.append(f.lock(name, mode))
        two.settle()
        others.append(f.lock(name, mode))
        two.settle()
    for lock_id, (_, mode) in zip(held[2:], modes[2:], strict=True):
        f.convert(lock_id, mode)
        two.settle()
    two.results(f, g)
    two.look()
    two.other.do("crash")
    for lock_id, (_, mode) in zip(held[:2], modes[:2], strict=True):
        f.convert(lock_id, mode)
    two.settle()
    f.results()
    two.one.locks()
    two.go_on()
    f.results()
    two.look(two.one)
    for lock_id in others:
        f.unlock(lock_id)
        f.results()
    two.look(two.one)


def directory_dies(two: Two) -> None:
    """6.2, 6.5: node 2 had the directory entries; what node 1 is the master of stays as it is."""
    f, g = two.files()
    names = [name_for(2, stem) for stem in ("da", "db", "dc")]
    two.master(f, *names)
    f.lock(names[0], EX, F.VALBLK)
    f.convert(4, EX, F.VALBLK, value=b"kept")
    f.lock(names[0], PR)
    f.lock(names[1], PR)
    two.results(f)
    g.lock(names[1], PR)
    two.results(g)
    two.look()
    two.lose()
    f.results()
    two.look(two.one)
    f.lock(name_for(2, "new"), EX)
    f.convert(4, NL, F.VALBLK, value=b"again")
    f.results()
    two.look(two.one)


def in_flight(two: Two) -> None:
    """6.5, 11.5: node 2 is dead and nobody knows: requests, lookups, conversions on their way."""
    f, g = two.files()
    names = [name_for(1, stem) for stem in ("fa", "fb", "fc", "fd", "fe")]
    held = []
    for name in names:
        two.master(g, name)
        held.append(f.lock(name, PR))
        two.settle()
    f.results()
    two.other.do("crash")
    for name in (name_for(2, "lookup"), names[0]):
        f.unlock(f.lock(name, EX))
    f.convert(held[0], EX)
    f.unlock(held[0])
    f.convert(held[0], PR)
    f.convert(held[1], EX)
    f.convert(held[2], CR)  # down: needs no reply
    f.unlock(held[3])
    f.convert(held[4], CW)  # PR to CW
    two.settle()
    f.results()
    two.one.locks()
    two.one.get("debug/dlm/test_waiters")
    two.go_on()
    f.results()
    two.look(two.one)


def given_up(two: Two) -> None:
    """6.5: node 2 is dead and nobody knows: conversions on their way that are given up."""
    f, g = two.files()
    names = [name_for(1, stem) for stem in ("ga", "gb", "gc")]
    held = []
    for name in names:
        two.master(g, name)
        held.append(f.lock(name, PR))
        two.settle()
    f.results()
    two.other.do("crash")
    for lock_id in held:
        f.convert(lock_id, EX)
    f.cancel(held[0])
    f.deadlock(held[1])
    f.unlock(held[2], F.FORCEUNLOCK)
    two.settle()
    f.results()
    two.one.locks()
    two.go_on()
    f.results()
    two.look(two.one)


def too_late(two: Two) -> None:
    """5.8, 6.5, 11.5: node 2 is dead and nobody knows: unlocks and cancels of what is on its way.

    Also of requests that wait for another one's lookup; DEADLOCK of a lookup.
    """
    f, g = two.files()
    names = [name_for(1, stem) for stem in ("ta", "tb", "tc", "td", "te")]
    held = []
    for name in names:
        two.master(g, name)
        held.append(f.lock(name, PR))
        two.settle()
    f.results()
    two.other.do("crash")
    a, b, c, d, e = held
    f.convert(a, EX)
    f.unlock(a)
    f.convert(a, PR)
    for _ in range(2):
        f.cancel(a)
    for _ in range(2):
        f.unlock(a, F.FORCEUNLOCK)
    f.unlock(a)
    f.convert(b, EX)
    for _ in range(2):
        f.unlock(b, F.FORCEUNLOCK)
    f.cancel(b)
    f.deadlock(b)
    for _ in range(2):
        f.unlock(c)
    f.cancel(c)
    f.unlock(c, F.FORCEUNLOCK)
    f.convert(c, NL)
    f.convert(d, EX)
    f.deadlock(d)
    f.cancel(d)
    f.deadlock(d)
    f.convert(e, NL)  # down: needs no reply
    f.convert(e, CR)
    f.cancel(e)
    name = name_for(2, "lookup")
    first, second, third, last = (f.lock(name, mode) for mode in (EX, PR, CR, NL))
    f.unlock(second)
    f.cancel(second)
    f.unlock(third)
    f.unlock(third, F.FORCEUNLOCK)
    f.deadlock(last)
    f.convert(last, NL)
    f.unlock(first)
    f.convert(first, PR)
    f.deadlock(first)
    two.settle()
    f.results()
    two.one.locks()
    two.one.get("debug/dlm/test_waiters")
    two.go_on()
    f.results()
    two.look(two.one)
    for lock_id in (a, d, first, last):
        f.convert(lock_id, NL)
        f.results()
    two.look(two.one)


def remembered(two: Two) -> None:
    """5.8, 6.5: node 2 is dead and nobody knows: requests and lookups that are given up."""
    f, g = two.files()
    known = [name_for(1, stem) for stem in ("ra", "rb")]
    for name in known:
        two.master(g, name)
        f.lock(name, NL)
        two.settle()
    f.results()
    two.other.do("crash")
    asked = [f.lock(name, EX) for name in (*known, name_for(2, "rc"), name_for(2, "rd"))]
    for lock_id, force in zip(asked, (False, True, False, True), strict=True):
        for _ in range(2):
            if force:
                f.unlock(lock_id, F.FORCEUNLOCK)
            else:
                f.cancel(lock_id)
    two.settle()
    f.results()
    two.one.locks()
    two.one.get("debug/dlm/test_waiters")
    two.go_on()
    f.results()
    two.look(two.one)


def out_of_order(two: Two) -> None:
    """5.10, 6.5, 6.6: conversions that no lock forbids are granted, though others come before them.

    The master is node 1 or 2. Cancels of what the master had queued are on their way when it dies.
    """
    f, g = two.files()
    names = [name_for(directory, stem) for stem in ("oa", "ob", "oc") for directory in (1, 2)]
    for file, some in ((f, names[:2]), (g, names[2:])):
        two.master(file, *some)
    cancelled = []
    for name in names:
        f.lock(name, CR)
        two.settle()
        first = f.lock(name, CR)
        two.settle()
        second = f.lock(name, NL)
        two.settle()
        g.lock(name, CW)
        two.results(f, g)
        f.convert(first, EX)
        two.settle()
        f.convert(second, PR)
        two.settle()
        third = f.lock(name, PR)
        two.results(f, g)
        cancelled.append((first, third))
    two.look()
    two.other.do("crash")
    for locks in cancelled[4:]:
        for lock_id in locks:
            f.cancel(lock_id)
            f.cancel(lock_id)
    two.settle()
    f.results()
    two.one.locks()
    two.go_on()
    f.results()
    two.look(two.one)


def coming_back(two: Two) -> None:
    """6.4: node 2 loses power, boots, joins again; locks go back and forth as before."""
    f, g = two.files()
    a, b = name_for(1, "r"), name_for(2, "r")
    two.master(f, a)
    two.master(g, b)
    g.lock(a, EX, F.VALBLK)
    two.settle()
    kept = f.lock(b, PR, F.VALBLK)
    two.results(f, g)
    two.lose()
    f.results()
    two.look(two.one)
    two.other.do("boot")
    two.configure(two.other)
    fd = two.controls[2] = two.other.control()
    call = two.other.begin_create(fd)
    two.one.stop()
    two.one.comm(2, ADDRESSES[2])
    two.one.member("test", 2)
    two.one.put("dlm/test/control", "1\n")
    two.other.put("dlm/test/control", "1\n")
    two.other.put("dlm/test/event_done", "0\n")
    two.other.do("wait", async_=call)
    two.settle()
    for tape in two.tapes:
        tape.get("dlm/test/recover_status")
    h = two.other.file()
    h.lock(a, EX)
    writer = h.lock(b, EX, F.VALBLK)
    two.results(f, h)
    two.look()
    f.convert(kept, NL)
    two.results(f, h)
    h.convert(writer, NL, F.VALBLK, value=b"back")
    two.settle()
    f.convert(kept, CR, F.VALBLK)
    two.results(f, h)
    two.look()


DYING: dict[str, Story] = {
    "holder-dies": holder_dies,
    "last-values": last_values,
    "master-dies": master_dies,
    "newest-value": newest_value,
    "waiters-outlive": waiters_outlive,
    "middle": middle,
    "directory-dies": directory_dies,
    "in-flight": in_flight,
    "given-up": given_up,
    "too-late": too_late,
    "remembered": remembered,
    "out-of-order": out_of_order,
    "coming-back": coming_back,
}
"""Stories in which node 2 loses power."""
