"""Start and stop killed at each of their changes of a real kernel, and what comes after.

Runs in a guest only (tests/vm/run). Every verb, in each dialect, is killed on the emulator
(tests/cli/test_interrupted.py). Here the process gets a real SIGKILL, with helper processes that
sleep in the kernel for it.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from dlm.cli.main import main
from dlm.kernel import KernelBackend
from tests.cli.doomed import Doomed
from tests.contract.worlds import KernelWorld

pytestmark = pytest.mark.skipif(
    not os.environ.get("DLM_VM_KERNEL"), reason="needs a guest: run `make vm`"
)

NETWORK = (
    "ip link add dlm0 type dummy",
    "ip address add 10.0.0.1/24 dev dlm0",
    "ip link set dlm0 up",
)
"""Where node 2 would be: what is sent there is lost, for a refusal would be tried again at once."""

NODES = ("set_local 1 10.0.0.1", "set_node 2 10.0.0.2")
RUNS = ("create test", "start test 1 0 1", "poll_done test 1")
LONELY = ("create test", "start test 1 0 1 2", "stop test")
"""Node 2 is never there: its recovery waits, and is stopped."""


@dataclass(frozen=True)
class Case:
    """A line that is killed, and the lines before it."""

    line: str
    given: tuple[str, ...]


CASES = {
    "the first start": Case("start test 1 0 1", RUNS[:1]),
    "a start without a member of before": Case("start test 2 0 1", LONELY),
    "a start with a member that is back": Case(
        "start test 3 0 1 2", (*LONELY, "start test 2 0 1", "poll_done test 2", "stop test")
    ),
    "stop": Case("stop test", RUNS),
}


class Guest:
    """This machine, on which lines are run and processes are killed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.backend = KernelBackend()
        for line in (*NODES, *case.given):
            assert self.run(line) == 0, (line, self.said)

    def run(self, line: str) -> int:
        """Run one line; what it says is kept."""
        out = io.StringIO()
        code = main(shlex.split(line), backend=self.backend, stdout=out, stderr=out)
        self.said = out.getvalue()
        return code

    def kill(self, after: int) -> bool:
        """Run the line in a process that is killed after a change; say whether it got that far."""
        child = os.fork()
        if child == 0:
            doomed = Doomed(KernelBackend(), after, after=True, die=_die)
            out = io.StringIO()
            os._exit(main(shlex.split(self.case.line), backend=doomed, stdout=out, stderr=out))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False

    def hints(self) -> list[str]:
        """Return the commands that ls gives."""
        assert self.run("ls --json") == 0
        (view,) = json.loads(self.said)["lockspaces"]
        return [command for hint in view["hints"] for command in hint["commands"]]

    def seen(self) -> dict[str, str]:
        """Return what is seen of the lockspace, its members and the nodes."""
        assert self.run("ls --json") == 0
        found = {"ls": self.said}
        for root in ("config/dlm", "dlm"):
            self._walk(root, found)
        return found

    def _walk(self, path: str, found: dict[str, str]) -> None:
        try:
            names = self.backend.list_directory(path)
        except NotADirectoryError:
            try:
                found[path] = self.backend.read_attribute(path).decode()
            except PermissionError:
                found[path] = "(write only)"
            return
        found[path] = " ".join(names)
        for name in names:
            self._walk(f"{path}/{name}", found)

    def differs(self, expected: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
        """Wait until the kernel's threads have brought this about; return what is otherwise."""
        for _ in range(50):
            seen = self.seen()
            if seen == expected:
                break
            self.backend.pause(0.1)
        paths = sorted(seen.keys() | expected.keys())
        pairs = {each: (seen.get(each), expected.get(each)) for each in paths}
        return {each: (now, then) for each, (now, then) in pairs.items() if now != then}

    def leave(self) -> None:
        """Leave nothing behind."""
        self.backend.close()
        KernelWorld().finish(reload=False)
        directory = KernelBackend().state_directory()
        for name in ("nodes", "lockspace-test"):
            directory.remove(name)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """A line to be killed."""
    case: Case = request.param
    return case


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Have a network with nobody on it."""
    for line in NETWORK:
        subprocess.run(shlex.split(line), check=True)
    yield
    subprocess.run(["ip", "link", "delete", "dlm0"], check=True)


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Begin and end with nothing configured."""
    KernelWorld().finish(reload=False)
    yield
    KernelWorld().finish(reload=False)


@pytest.mark.timeout(600)
def test_a_line_that_was_killed_is_finished_by_what_ls_says(case: Case) -> None:
    """Killed after any of its changes; where ls says nothing, there is nothing left to do."""
    whole = Guest(case)
    assert not whole.kill(after=0)
    whole.backend.pause(1)  # recovery takes a few milliseconds where it can end
    expected, said_anyway = whole.seen(), whole.hints()
    whole.leave()
    for change in count(1):
        guest = Guest(case)
        killed = guest.kill(after=change)
        commands = guest.hints()
        if commands == said_anyway:  # of a recovery that waits for node 2
            commands = []
        for command in commands:
            assert guest.run(command) == 0, (change, command, guest.said)
        assert guest.differs(expected) == {}, (change, commands, guest.said)
        guest.leave()
        print(f"killed after change {change}: {commands}" if killed else "ended")
        if not killed:
            assert change > 3, "that was no plan"
            return
