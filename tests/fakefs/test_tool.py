"""dlm_tool by its ``main(argv)``, on the kernel room's code and a fake file system, without root.

Every golden test of the command line runs here again: the tool prints the same and ends the same
whichever backend it has. And the 18 steps of the usage document, on three machines.
"""

from __future__ import annotations

import io
from typing import Any

import pytest

from dlm.cli.main import main
from tests.cli.test_actions import *  # noqa: F403 (these are the tests)
from tests.cli.test_bad_input import *  # noqa: F403
from tests.cli.test_locks import *  # noqa: F403
from tests.cli.tool import Shell
from tests.fakefs.nodes import FakeCluster

# In their place: test_without_rights_one_may_not_look_at_the_state.
del test_without_rights_one_may_still_look, test_without_rights_a_join_shows_as_one  # noqa: F821


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


@pytest.mark.parametrize("line", ["get_done test", "ls"])
def test_without_rights_one_may_not_look_at_the_state(line: str) -> None:
    """The state directory has mode 0700 where there are modes; of the emulator's anybody reads."""
    shell = Shell("nodea")
    shell.start()
    ran = shell.run(line, privileged=False)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.endswith("(EACCES); be root\n")
