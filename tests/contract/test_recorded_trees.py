"""The tool's session on the emulator: output and files as recorded on a real 6.1 kernel.

The trees were recorded by ``tests/vm/run --record``, and ``make vm`` holds the kernel to them too.
"""

from __future__ import annotations

import io
import json
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dlm.cli.main import main
from dlm.kernel import KernelBackend
from dlm.ports import Backend
from tests.vm.session import ADDRESS, BEGINNING, STEPS, Step
from tests.vm.trees import FIXTURES, Entry, Tree, differences, lay_out, load, record, save

A_MOMENT = 0.1
"""Seconds between two commands: on a machine something passes, in the emulator only what is let."""

RECORDED = FIXTURES / "6.1"

CASES = (BEGINNING, *(step.case for step in STEPS if step.case))

pytestmark = pytest.mark.emulator_only("make vm has this session in a run of its own")


@dataclass
class Session:
    """What the session has shown: output and exit code of each step, and the trees."""

    shown: list[tuple[str, str, int]] = field(default_factory=list)
    trees: dict[str, Tree] = field(default_factory=dict)


@pytest.fixture(scope="module")
def session() -> Session:
    """The whole session on one emulated node."""
    from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it

    session = Session()
    with Cluster({"node1": ADDRESS}, kernel="6.1") as cluster:
        observer = cluster.node("node1").process()
        session.trees[BEGINNING] = record(observer)
        for step in STEPS:
            session.shown.append(perform(step, cluster.node("node1").process()))
            observer.pause(A_MOMENT)
            if step.case:
                session.trees[step.case] = record(observer)
        cluster.settle()
        session.trees["end"] = record(observer)
    return session


def perform(step: Step, backend: Backend) -> tuple[str, str, int]:
    """Run the tool as a process of its own; return what it prints and its exit code."""
    output, errors = io.StringIO(), io.StringIO()
    code = main(step.words.split(), backend=backend, stdout=output, stderr=errors)
    backend.close()
    return output.getvalue(), errors.getvalue(), code


@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.words for step in STEPS])
def test_the_tool_says_what_it_says_on_a_real_kernel(session: Session, number: int) -> None:
    """Every step prints the same and ends the same as on the kernel."""
    step = STEPS[number]
    assert session.shown[number] == (step.output, step.errors, step.code)


@pytest.mark.parametrize("case", CASES)
def test_the_tree_is_the_kernels(session: Session, case: str) -> None:
    """Names, types, modes and texts of all files are the recorded ones."""
    assert differences(load(RECORDED / case), session.trees[case]) == []


def test_nothing_of_the_lockspace_is_left(session: Session) -> None:
    """After the session the lockspace's files are gone; nodes and members stay configured."""
    left = [path for path in session.trees["end"].entries if "test" in path]
    assert [path for path in left if not path.startswith("sys/kernel/config/")] == []


# ---- the format ---------------------------------------------------------------------------------


def test_every_recorded_tree_is_of_a_case() -> None:
    """There is a tree for each case, with its case and the commands before it, and no other."""
    assert sorted(each.name for each in RECORDED.iterdir()) == sorted(CASES)
    for case in CASES:
        about = load(RECORDED / case).about
        assert about["case"] == case
        assert about["kernel"].startswith("6.1.")
        said = [step.case for step in STEPS[: len(about["commands"])]]
        assert ([BEGINNING, *filter(None, said)])[-1] == case


@pytest.mark.parametrize("case", CASES)
def test_a_tree_can_be_looked_at_as_a_kernel(tmp_path: Path, case: str) -> None:
    """Laid out again, a recorded tree gives ``kernel:root=DIR`` the files that were recorded."""
    recorded = load(RECORDED / case)
    lay_out(recorded, tmp_path)
    assert differences(recorded, record(KernelBackend(str(tmp_path)))) == []


LITTLE = {
    "sys/kernel/dlm": Entry(stat.S_IFDIR | 0o755),
    "sys/kernel/dlm/control": Entry(stat.S_IFREG | 0o200),
    "sys/kernel/dlm/id": Entry(stat.S_IFREG | 0o644, "5\n"),
    "sys/kernel/debug/dlm/test_all": Entry(
        stat.S_IFREG | 0o444,
        "rsb 00000000abc 0 4 str resA\nlkb 1 0 0 283 0 84 3 2 5 -1 0 0 0 0 451 7\n",
    ),
}


def changed(path: str, entry: Entry | None) -> Tree:
    """Return the little tree with one entry changed, or taken away."""
    entries = {key: value for key, value in LITTLE.items() if key != path}
    return Tree(entries | ({} if entry is None else {path: entry}))


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("sys/kernel/dlm/id", None),
        ("sys/kernel/dlm/id", Entry(stat.S_IFREG | 0o644, "6\n")),
        ("sys/kernel/dlm/id", Entry(stat.S_IFREG | 0o444, "5\n")),
        ("sys/kernel/dlm/id", Entry(stat.S_IFREG | 0o644)),
        ("sys/kernel/dlm/control", Entry(stat.S_IFDIR | 0o200)),
        ("sys/kernel/dlm/nodir", Entry(stat.S_IFREG | 0o644, "0\n")),
        (
            "sys/kernel/debug/dlm/test_all",
            Entry(
                stat.S_IFREG | 0o444,
                "rsb 00000000abc 0 4 str resA\nlkb 1 0 0 283 0 84 3 2 3 -1 0 0 0 0 451 7\n",
            ),
        ),
    ],
)
def test_a_difference_is_seen(path: str, entry: Entry | None) -> None:
    """A path too many or too few, another mode, another text: each is one difference."""
    assert len(differences(Tree(LITTLE), changed(path, entry))) == 1


def test_what_varies_is_no_difference() -> None:
    """Addresses, processes and times may differ, and only they."""
    later = Entry(
        stat.S_IFREG | 0o444,
        "rsb 000000009de 0 4 str resA\nlkb 1 0 0 7 0 84 3 2 5 -1 0 0 0 0 99 0\n",
    )
    assert differences(Tree(LITTLE), changed("sys/kernel/debug/dlm/test_all", later)) == []


def test_a_tree_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """Saving and loading keeps entries and how they came about; what varies is named."""
    save(Tree(LITTLE, {"case": "little"}), tmp_path)
    loaded = load(tmp_path)
    assert (loaded.entries, loaded.about["case"]) == (LITTLE, "little")
    varies = json.loads((tmp_path / "manifest.json").read_text())["varies"]
    assert {each["path"] for each in varies} == {"sys/kernel/debug/dlm/test_all"}
