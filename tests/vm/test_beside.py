"""dlm_tool beside the real dlm_controld, and what is left when that has died.

Runs in a guest only (tests/vm/run), where dlm_controld is Debian's own (tests/vm/controld.py). The
tests are one story, told in order.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlm.cli.main import main
from dlm.kernel import KernelBackend
from tests.contract.worlds import KernelWorld
from tests.vm.controld import Controller

TREE = Path(os.environ.get("DLM_VM_CONTROLD", "."))
"""What tests.vm.controld has unpacked on the host."""

pytestmark = [
    pytest.mark.skipif(not os.environ.get("DLM_VM_KERNEL"), reason="needs a guest: run `make vm`"),
    pytest.mark.skipif(
        not os.environ.get("DLM_VM_CONTROLD"), reason="needs dlm_controld: run `make vm`"
    ),
]


class Guest:
    """This machine with dlm_controld on it, and our tool."""

    def __init__(self) -> None:
        self.backend = KernelBackend()
        self.controller = Controller(TREE, self.wait)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; the test's own limit ends this."""
        while not condition():
            self.backend.pause(0.1)

    def run(self, line: str) -> tuple[int, str, str]:
        """Run one line of our dlm_tool; return its exit code, output and errors."""
        out, err = io.StringIO(), io.StringIO()
        code = main(shlex.split(line), backend=self.backend, stdout=out, stderr=err)
        print(f"$ dlm_tool {line}\n{out.getvalue()}{err.getvalue()}[{code}]")
        return code, out.getvalue(), err.getvalue()

    def row(self, name: str) -> list[str]:
        """Return the cells of a lockspace's line of ls."""
        rows = (re.split(r"\s{2,}", each) for each in self.run("ls")[1].splitlines())
        (found,) = (row for row in rows if row[0] == name)
        return found

    def status(self, name: str) -> str:
        """Return the recover_status of a lockspace."""
        return self.backend.read_attribute(f"dlm/{name}/recover_status").decode().strip()


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """A guest whose dlm_controld runs two lockspaces; the DLM is loaded afresh in the end."""
    KernelWorld().finish(reload=True)
    guest = Guest()
    yield guest
    guest.controller.end()
    guest.backend.close()
    KernelWorld().finish(reload=True)


def test_dlm_controld_joins_lockspaces(guest: Guest) -> None:
    """Debian's dlm_tool asks, dlm_controld configures, starts and answers."""
    for name in ("test", "forced"):
        guest.controller.tool("join", name)
    assert "test" in guest.controller.tool("ls")
    assert sorted(guest.backend.list_directory("dlm")) == ["forced", "test"]


def test_ls_names_who_controls(guest: Guest) -> None:
    """Each lockspace is dlm_controld's, and there is nothing else to say of it."""
    assert guest.row("test")[-2:] == guest.row("forced")[-2:] == ["dlm_controld", "-"]
    assert len(guest.run("ls")[1].splitlines()) == 3


@pytest.mark.parametrize(
    "line",
    [
        "stop test",
        "start test 2 0 1",
        "terminate test",
        "set_id test 5",
        "create more",
        "release test",
        "set_local 1 127.0.0.2",
        "set_node 2 127.0.0.2",
    ],
)
def test_what_it_controls_is_not_touched(guest: Guest, line: str) -> None:
    """Exit code 1, and who it is."""
    code, out, err = guest.run(line)
    assert (code, out) == (1, "")
    assert err.endswith(
        ": refused, dlm_controld controls the DLM of this node (EBUSY); use its own tools, or "
        "--force\n"
    )
    assert sorted(guest.backend.list_directory("dlm")) == ["forced", "test"]
    assert guest.backend.list_directory("config/dlm/cluster/comms") == ["1"]
    assert int(guest.status("test"), 16) & 0x40


def test_force_goes_through(guest: Guest) -> None:
    """A stop, and the start after it, made under dlm_controld's eyes."""
    assert guest.run("stop forced --force")[0] == 0
    assert guest.status("forced") == "0"
    assert guest.run("start forced 1 0 1 --force")[0] == 0
    assert guest.run("poll_done forced 1 --timeout 60")[0] == 0


def test_locks_are_everybodys(guest: Guest) -> None:
    """dlm_controld controls lockspaces, not locks: one is left behind with the lockspace."""
    code, out, _ = guest.run("lock test foo EX")
    assert (code, out.splitlines()[-1].startswith("status 0x0 ")) == (0, True)


def test_what_a_dead_dlm_controld_leaves_is_shown_as_left_behind(guest: Guest) -> None:
    """The kernel stops everything as dlm-monitor is closed; ls says so, and what to type."""
    guest.controller.kill()
    guest.wait(lambda: guest.status("test") == guest.status("forced") == "0")
    assert guest.row("test")[3] == "stopped"
    lines = guest.run("ls")[1].splitlines()[3:]
    assert lines[0].startswith("forced is stopped, though start 1 was made here: ")
    assert lines[0].endswith(": dlm_tool stop forced, then dlm_tool start forced 2 0 1")
    assert lines[1] == (
        "test was left behind: somebody else has joined and started it, and nobody is seen to "
        "control it now; to take it over, start test 1 0 1; to remove it with its locks: dlm_tool "
        "release test"
    )


def test_no_other_dlm_controld_cleans_up(guest: Guest) -> None:
    """It does not even start where somebody's lockspaces are, and takes the nodes along."""
    guest.controller.start()
    guest.controller.wait_ended()
    assert "found uncontrolled lockspace test" in guest.controller.log("dlm_controld")
    assert sorted(guest.backend.list_directory("dlm")) == ["forced", "test"]
    assert guest.run("ls")[1].splitlines()[3] == (
        "no node was set as this one: dlm_tool set_local <nodeid> <ipaddr>"
    )


def test_the_commands_of_ls_clean_up(guest: Guest) -> None:
    """As they stand there; the one that was started from here runs on, the other has gone."""
    for line in guest.run("ls")[1].splitlines()[3:]:
        for command in re.findall(r"dlm_tool (.*?)(?:, then|$)", line):
            assert guest.run(command.replace("<nodeid> <ipaddr>", "1 127.0.0.1"))[0] == 0
    assert guest.run("poll_done forced 2 --timeout 60")[0] == 0
    assert guest.backend.list_directory("dlm") == ["forced"]
    assert "dlm_test" not in guest.backend.misc_devices()
    assert len(guest.run("ls")[1].splitlines()) == 2


def test_once_nothing_is_left_dlm_controld_starts_again(guest: Guest) -> None:
    """And controls, until it dies once more."""
    assert guest.run("release forced")[0] == 0
    guest.controller.start()
    guest.controller.wait_ready()
    guest.controller.tool("join", "test")
    assert guest.row("test")[-2:] == ["dlm_controld", "-"]
    guest.controller.tool("leave", "test")
    guest.controller.kill()


def test_without_it_the_module_is_loaded_afresh(guest: Guest) -> None:
    """No create works until then, and the refusal says how: word for word it is what works."""
    code, _, err = guest.run("create test")
    assert (code, "(EUNATCH)" in err) == (1, True)
    subprocess.run(["bash", "-c", err.rpartition("afresh: ")[2]], check=True)
    for line in ("set_local 1 127.0.0.1", "create test", "start test 1 0 1"):
        assert guest.run(line)[0] == 0
    assert guest.run("poll_done test 1 --timeout 60")[0] == 0
    assert guest.run("release test")[0] == 0
