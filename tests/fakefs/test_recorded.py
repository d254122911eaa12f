"""Trees recorded on a real kernel, in the fake file system: dlm_tool reads them without a node."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dlm.cli.main import main
from dlm.kernel import KernelBackend
from dlm.ports import Backend
from tests.fakefs.files import Files
from tests.fakefs.syscalls import FakeSyscalls
from tests.vm.trees import FIXTURES, differences, laid_out, lay_out, load, record

CASES = sorted(FIXTURES.glob("*/*"))


def named(case: Path) -> str:
    """Return how a case is called: kernel and state."""
    return f"{case.parent.name} {case.name}"


def fake(case: Path) -> KernelBackend:
    """Return a process on a machine that looks as recorded."""
    files = Files()
    files.load(load(case))
    return KernelBackend(syscalls=FakeSyscalls(files))


def run(line: str, backend: Backend) -> tuple[int, str, str]:
    """Run dlm_tool; return its exit code and what it says."""
    out, err = io.StringIO(), io.StringIO()
    code = main(line.split(), backend=backend, stdout=out, stderr=err)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_tree_is_there_as_it_was_recorded(case: Path) -> None:
    """Paths, types, modes and texts that the kernel room finds are the recorded ones."""
    assert differences(laid_out(load(case)), record(fake(case))) == []


@pytest.mark.parametrize("line", ["ls", "ls test", "ls --json", "get_done test", "ls nothing"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_tool_says_what_it_says_of_the_tree_on_disk(
    tmp_path: Path, case: Path, line: str
) -> None:
    """``kernel:root=TREE`` on the machine's own file system and the fake one: the same words."""
    lay_out(load(case), tmp_path)
    assert run(line, fake(case)) == run(line, KernelBackend(str(tmp_path)))


@pytest.mark.parametrize("state", ["joining", "running", "stopped", "leaving"])
def test_ls_names_the_state(state: str) -> None:
    """A lockspace shows the state that it was recorded in."""
    code, out, err = run("ls", fake(FIXTURES / "6.1" / state))
    assert (code, err) == (0, "")
    assert [line.split()[3] for line in out.splitlines()[1:2]] == [state]


def test_get_done_reads_what_a_kernel_shows() -> None:
    """A tree has no state directory: recovery is done, and the start's number nobody has kept."""
    code, out, err = run("get_done test", fake(FIXTURES / "6.1" / "running"))
    assert (code, out) == (0, "done event_nr 0\n")
    assert "the number of that start is not known" in err


@pytest.mark.parametrize("path", ["dlm/nothing/id", "config/dlm/other/comms"])
def test_what_was_not_recorded_is_not_there(path: str) -> None:
    """Nothing of this machine's own shows through."""
    with pytest.raises(FileNotFoundError):
        fake(FIXTURES / "6.1" / "running").read_attribute(path)
