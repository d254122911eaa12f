"""A trace of rules that no other trace reaches: rules.jsonl.gz, of some kernels.

    python -m tests.traces.rulestories DIRECTORY        in a guest, as root

Decides: which requests are made, in which order.
May not know: their results.

Each story was found by breaking a rule and replaying what there was (tests/mutation), or by a
hazard that the kernel still survives.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dlm.ports import Backend
from dlm.trace import Header, Patience, Recorder, Trace, dump
from tests.traces.kit import CR, CW, EX, NL, PR, PW, F, Tape
from tests.traces.lockstories import Story, play


def again_from_the_head(tape: Tape, a: bytes) -> None:
    """5.10: a conversion is granted because one behind it was: the pass begins again."""
    f = tape.file()
    for mode in (PR, NL, PR):
        f.lock(a, mode)
    f.convert(2, CW)
    f.convert(3, CW, F.NOORDER | F.NODLCKWT)
    f.results()
    tape.locks()
    f.unlock(1)
    f.results()
    tape.locks()
    f.close()


def blockers_that_convert(tape: Tape, a: bytes) -> None:
    """5.12: NOQUEUEBAST tells those that hold and wait for another mode, too."""
    f = tape.file()
    f.lock(a, PR)
    f.lock(a, PR)
    f.convert(1, EX)
    f.results()
    f.lock(a, EX, F.NOQUEUE)
    f.results()
    f.lock(a, EX, F.NOQUEUE | F.NOQUEUEBAST)
    f.results()
    f.close()


def told_of_itself(tape: Tape, a: bytes) -> None:
    """5.11: NODLCKWT: a pass tells deadlocked locks of their wishes, where that excludes the mode.

    PW, which lock 1 wants, goes with its CR: no result; EX does not go with lock 2's PR. The next
    pass tells nobody again.
    """
    f = tape.file()
    for mode in (CR, PR, NL, NL):
        f.lock(a, mode)
    f.convert(1, PW, F.NODLCKWT)
    f.convert(2, EX, F.NODLCKWT)
    f.results()
    for lock_id in (3, 4):
        f.unlock(lock_id)
        f.poll()
        f.results()
    tape.locks()
    f.close()


def demoted_then_granted(tape: Tape, a: bytes) -> None:
    """5.11: CONVDEADLK: down to NL, which lets the other conversion through, and then this one."""
    f = tape.file()
    for mode in (PR, PR):
        f.lock(a, mode)
    f.convert(1, CW)
    f.convert(2, CW, F.CONVDEADLK)
    f.results()
    tape.locks()
    f.close()


def demoted_in_a_pass(tape: Tape, a: bytes) -> None:
    """5.11: CONVDEADLK in the queue: a pass takes it down to NL and goes round once more."""
    f = tape.file()
    for mode in (CR, CW, NL, NL):
        f.lock(a, mode)
    f.convert(2, EX, F.CONVDEADLK)
    f.convert(3, PR, F.HEADQUE)
    f.results()
    tape.locks()
    f.unlock(4)
    f.results()
    tape.locks()
    f.close()


def covered(tape: Tape, a: bytes) -> None:
    """4.9: an unread blocking AST covers a lower one that follows, if it is above PR."""
    f = tape.file()
    f.lock(a, PR)
    f.lock(a, PW)
    f.lock(a, CW)
    f.results()
    f.close()


def granted_in_place(tape: Tape, a: bytes) -> None:
    """5.10 b: ALTPR grants a queued conversion the mode that it has: twice, and none is left."""
    f = tape.file()
    for mode in (PR, PR, NL):
        f.lock(a, mode, F.VALBLK)
    f.convert(3, EX)
    f.convert(1, EX, F.ALTPR | F.NODLCKWT)
    f.results()
    f.cancel(3)
    f.results()
    tape.everything()
    f.convert(1, CR)
    f.results()
    f.close()


def dead_orphan(tape: Tape, a: bytes) -> None:
    """4.7: a PERSISTENT request that waits leaves an entry that keeps its id and is no lock."""
    f, g = tape.file(), tape.file()
    f.lock(a, EX)
    g.lock(a, PR, F.PERSISTENT)
    g.close()
    f.lock(a, NL, F.EXPEDITE)
    f.adopt(a, PR)
    f.convert(2, EX)
    f.cancel(2)
    f.cancel(2)
    f.deadlock(2)
    f.results()
    tape.locks()
    f.close()


def force_flag(tape: Tape, a: bytes) -> None:
    """5.8: FORCEUNLOCK among a lock's flags makes forced unlocks EINVAL, also that of a purge."""
    f = tape.file()
    f.lock(a, EX, F.FORCEUNLOCK)
    f.results()
    f.unlock(1, F.FORCEUNLOCK)
    f.deadlock(1, F.FORCEUNLOCK)
    f.cancel(1)
    tape.locks()
    f.unlock(1)
    f.results()
    f.close()


STORIES: tuple[Story, ...] = (
    again_from_the_head,
    blockers_that_convert,
    told_of_itself,
    demoted_then_granted,
    demoted_in_a_pass,
    covered,
    granted_in_place,
    force_flag,
    dead_orphan,
)
"""They share a lockspace; the one that leaves a dead orphan comes last."""

COMMENT = " ".join(str(story.__doc__).splitlines()[0] for story in STORIES)


def record(backend: Backend, kernel: str) -> Trace:
    """Tell the stories on a node where nothing is configured."""
    patience = Patience(pending=0.3, quiet=0.3)
    recorder = Recorder([backend], Header(kernel, comment=COMMENT), patience=patience)
    try:
        play(Tape(recorder), STORIES)
    finally:
        recorder.close()
    return recorder.trace("rules")


if __name__ == "__main__":
    from dlm.kernel import KernelBackend

    node = KernelBackend()
    dump(record(node, os.uname().release), Path(sys.argv[1]) / "rules.jsonl.gz")
    node.close()
