"""dlm_tool by its ``main(argv)``, on the kernel room's code and a fake file system, without root.

Every golden test of the command line runs here again: the tool prints the same and ends the same
whichever backend it has. And the 18 steps of the usage document, on three machines.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from dlm.cli.main import main
from tests.cli.test_actions import *  # noqa: F403 (these are the tests)
from tests.cli.test_bad_input import *  # noqa: F403
from tests.cli.test_locks import *  # noqa: F403
from tests.cli.tool import Shell
from tests.fakefs.nodes import FakeCluster

# In its place: test_without_rights_one_may_not_ask_what_is_done and what follows it.
del test_without_rights_one_may_still_look  # noqa: F821


@pytest.fixture(autouse=True)
def kernel_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of an emulated node be one of ``dlm.kernel``."""
    monkeypatch.setattr("tests.cli.tool.Cluster", FakeCluster)


@pytest.mark.parametrize(
    ("abi", "call"),
    [
        ("configfs", ("mkdir", "/sys/kernel/config/dlm/cluster/comms/3")),
        ("event", ("ioctl", "/dev/misc/dlm-node")),
        ("members", ("ioctl", "/dev/misc/dlm-node")),
    ],
)
def test_the_18_steps(monkeypatch: pytest.MonkeyPatch, abi: str, call: tuple[str, str]) -> None:
    """The usage document's steps show what they must: ``demo`` checks every line of them."""
    clusters: list[FakeCluster] = []

    def make(*arguments: Any, **options: Any) -> FakeCluster:  # Any: as Cluster takes them
        clusters.append(FakeCluster(*arguments, **options))
        return clusters[0]

    monkeypatch.setattr("dlm.cli.demo.Cluster", make)
    out = io.StringIO()
    assert main(["demo", "--abi", abi], stdout=out, stderr=out) == 0, out.getvalue()
    assert out.getvalue().count("dlm_tool ") > 60
    for name in ("nodea", "nodeb", "nodec"):
        assert call in [each[:2] for each in clusters[0].node(name).last_files.calls]


def test_without_rights_one_may_not_ask_what_is_done() -> None:
    """The state directory has mode 0700 where there are modes; of the emulator's anybody reads."""
    shell = Shell("nodea")
    shell.start()
    ran = shell.run("get_done test", privileged=False)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.endswith("(EACCES); be root\n")


@pytest.mark.parametrize(
    ("before", "state", "waits_for"), [("", "running", "-"), ("stop test", "stopped", "?")]
)
def test_without_rights_one_sees_what_the_kernel_shows(
    before: str, state: str, waits_for: str
) -> None:
    """``ls`` says ``?`` for what is remembered in a directory of mode 0700, and why, once."""
    shell = Shell("nodea")
    shell.start()
    if before:
        shell.do(before)
    for line in ("ls", "ls test"):
        ran = shell.run(line, privileged=False)
        assert ran.code == 0
        row = ["test", "0", "1", state, "?", "?", "-", waits_for]
        assert ran.out.splitlines()[1].split() == row
        note = "what is remembered of starts and answers is for root to read: not shown"
        assert ran.err == f"dlm_tool: {line}: note: {note}\n"
    (view,) = json.loads(shell.run("ls --json", privileged=False).out)["lockspaces"]
    assert (view["start"], view["done"], view["recover_status"] > 0) == (None, None, not before)
