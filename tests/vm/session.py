"""One session with dlm_tool, step by step: what is said, what it answers, when a tree is recorded.

Decides: the steps.
May not know: whether a real kernel or the emulator answers.

A node of its own goes through a lockspace's whole life: configured, joined, locked in, stopped,
started again, left; and once more, to be seen in the middle of leaving.
"""

from __future__ import annotations

from dataclasses import dataclass

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Step:
    """A command line, all that it prints, its exit code; ``case`` names the tree after it."""

    words: str
    output: str = ""
    code: int = 0
    errors: str = ""
    case: str = ""


BEGINNING = "loaded"
"""The tree before the first step: the module was loaded a moment ago, nothing else."""

ENDING = "left"
"""The tree after the last step, when what it began has ended: the lockspace has gone."""

STEPS = (
    Step("set_local 1 127.0.0.1", case="cluster"),
    Step("set_node 1 127.0.0.1"),
    Step("set_node 2 127.0.0.2"),
    Step("set_node 3 fd00::3", case="nodes"),
    Step("create test"),
    Step("set_id test 5", case="joining"),
    Step("start test 1 0 1"),
    Step("poll_done test 1 --timeout 60", "done event_nr 1\n"),
    Step("get_done test", "done event_nr 1\n"),
    Step("finish test 1", case="running"),
    Step(
        "lock test resA EX",
        "lock: mode 0x5 flags 0x80 name resA\nstatus 0x0 id 1\n",
    ),
    Step(
        "lock test resA PR NOQUEUE",
        "lock: mode 0x3 flags 0x81 name resA\nstatus 0xb id 2\n",
        code=1,
        errors="dlm_tool: lock test resA PR NOQUEUE: not granted (EAGAIN)\n",
        case="locked",
    ),
    Step("lock test resB CR", "lock: mode 0x1 flags 0x80 name resB\nstatus 0x0 id 2\n"),
    Step("convert test 1 PR", "convert: lkid 1 flags 0x84\nstatus 0x0\n"),
    Step("unlock test 1", "unlock: lkid 1 flags 0x0\nstatus 0x10002\n"),
    Step("stop test", case="stopped"),
    Step(
        "lock test resA EX --timeout 1",
        code=3,
        errors="dlm_tool: lock test resA EX: timed out after 1 s waiting for lockspace test to run:"
        " it is stopped\n",
    ),
    Step("start test 2 0 1"),
    Step("poll_done test 2 --timeout 60", "done event_nr 2\n"),
    Step("get_done test", "done event_nr 2\n"),
    Step("finish test 2", case="recovered"),
    Step("unlock test 2", "unlock: lkid 2 flags 0x0\nstatus 0x10002\n"),
    Step("release test"),
    Step("create test"),
    Step("start test 1 0 1"),
    Step("poll_done test 1 --timeout 60", "done event_nr 1\n"),
    Step("release test --no-answer", case="leaving"),
    Step("terminate test"),
)

CASES = (BEGINNING, *(step.case for step in STEPS if step.case), ENDING)
"""The moments of the session of which a tree is kept, in their order."""
