"""The tool's session on the emulator: output, files and events as recorded on real kernels.

The trees were recorded by ``make fixtures``, and ``make vm`` holds the kernels to them too.
"""

from __future__ import annotations

import io
import json
import re
import stat
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from dlm.cli.main import main
from dlm.kernel import KernelBackend
from dlm.ports import Backend, Uevent
from dlm.terms import KERNELS
from tests.vm.session import ADDRESS, BEGINNING, CASES, ENDING, STEPS, Step
from tests.vm.trees import FIXTURES, Entry, Tree, differences, laid_out, lay_out, load, record, save

A_MOMENT = 0.1
"""Seconds between two commands: on a machine something passes, in the emulator only what is let."""

pytestmark = pytest.mark.emulator_only("make vm has this session in a run of its own")


@dataclass
class Session:
    """What the session has shown: output and exit code of each step, and the trees."""

    shown: list[tuple[str, str, int]] = field(default_factory=list)
    trees: dict[str, Tree] = field(default_factory=dict)


@cache
def session(kernel: str) -> Session:
    """Hold the whole session on one emulated node."""
    from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it
    from dlm.emulator.misc import DEVICE_MODE  # noqa: PLC0415

    session = Session()
    with Cluster({"node1": ADDRESS}, kernel=kernel) as cluster:
        node = cluster.node("node1")
        observer = node.process()

        def keep(case: str) -> None:
            names = [each for each in observer.misc_devices() if each.startswith("dlm")]
            session.trees[case] = record(
                observer,
                devices=dict.fromkeys(names, DEVICE_MODE),
                uevents=uevents.read_nowait(),
            )

        node.unload_module()
        uevents = observer.uevents()
        node.load_module()
        keep(BEGINNING)
        for step in STEPS:
            session.shown.append(perform(step, node.process()))
            observer.pause(A_MOMENT)
            if step.case:
                keep(step.case)
        cluster.settle()
        keep(ENDING)
    return session


def perform(step: Step, backend: Backend) -> tuple[str, str, int]:
    """Run the tool as a process of its own; return what it prints and its exit code."""
    output, errors = io.StringIO(), io.StringIO()
    code = main(step.words.split(), backend=backend, stdout=output, stderr=errors)
    backend.close()
    return output.getvalue(), errors.getvalue(), code


every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@every_kernel
@pytest.mark.parametrize("number", range(len(STEPS)), ids=[step.words for step in STEPS])
def test_the_tool_says_what_it_says_on_a_real_kernel(kernel: str, number: int) -> None:
    """Every step prints the same and ends the same as on the kernel, whichever it is."""
    step = STEPS[number]
    assert session(kernel).shown[number] == (step.output, step.errors, step.code)


@every_kernel
@pytest.mark.parametrize("case", CASES)
def test_the_tree_is_the_kernels(kernel: str, case: str) -> None:
    """Names, types, modes and texts of all files, and the events, are the recorded ones."""
    assert differences(load(FIXTURES / kernel / case), session(kernel).trees[case]) == []


@every_kernel
def test_nothing_of_the_lockspace_is_left(kernel: str) -> None:
    """After the session the lockspace's files are gone; nodes and members stay configured."""
    left = [path for path in load(FIXTURES / kernel / ENDING).entries if "test" in path]
    assert [path for path in left if not path.startswith("sys/kernel/config/")] == []


# ---- the format ---------------------------------------------------------------------------------


@every_kernel
def test_every_recorded_tree_is_of_a_case(kernel: str) -> None:
    """There is a tree for each case, with kernel, day and the commands before it, and no other."""
    assert sorted(each.name for each in (FIXTURES / kernel).iterdir()) == sorted(CASES)
    for case in CASES:
        about = load(FIXTURES / kernel / case).about
        assert (about["case"], about["how"]) == (case, f"make fixtures KERNEL={kernel}")
        assert re.match(rf"{re.escape(kernel)}[.-]", about["kernel"])
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", about["recorded"])
        said = [step.case for step in STEPS[: len(about["commands"])]]
        last = ENDING if len(said) == len(STEPS) else [BEGINNING, *filter(None, said)][-1]
        assert last == case


def test_there_is_a_tree_of_every_kernel_and_of_no_other() -> None:
    """Each profile has its recorded trees."""
    assert sorted(each.name for each in FIXTURES.iterdir()) == sorted(KERNELS)


@every_kernel
@pytest.mark.parametrize("case", CASES)
def test_a_tree_can_be_looked_at_as_a_kernel(tmp_path: Path, kernel: str, case: str) -> None:
    """Laid out again, a recorded tree gives ``kernel:root=DIR`` the files that were recorded."""
    recorded = load(FIXTURES / kernel / case)
    lay_out(recorded, tmp_path)
    assert differences(laid_out(recorded), record(KernelBackend(str(tmp_path)))) == []


NODE = Entry(stat.S_IFCHR | 0o600)
EVENT = Uevent("add@/kernel/dlm/test", (("ACTION", "add"), ("LOCKSPACE", "test")))

LITTLE = {
    "dev/dlm_test": NODE,
    "sys/kernel/debug/dlm/test_waiters": Entry(stat.S_IFREG | 0o444, None, "EAGAIN"),
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
        ("dev/dlm_test", Entry(stat.S_IFCHR | 0o660)),
        ("sys/kernel/debug/dlm/test_waiters", Entry(stat.S_IFREG | 0o444, "")),
        ("sys/kernel/debug/dlm/test_waiters", Entry(stat.S_IFREG | 0o444, None, "EBUSY")),
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


@pytest.mark.parametrize(
    "events",
    [(), (EVENT, EVENT), (Uevent(EVENT.header, ()),), (Uevent("add@/kernel/dlm/x", EVENT.env),)],
)
def test_another_event_is_seen(events: tuple[Uevent, ...]) -> None:
    """An event too many or too few, another header, another key: each is a difference."""
    assert len(differences(Tree(LITTLE, (EVENT,)), Tree(LITTLE, events))) == 1


def test_what_varies_is_no_difference() -> None:
    """Addresses, processes and times may differ, and only they."""
    later = Entry(
        stat.S_IFREG | 0o444,
        "rsb 000000009de 0 4 str resA\nlkb 1 0 0 7 0 84 3 2 5 -1 0 0 0 0 99 0\n",
    )
    assert differences(Tree(LITTLE), changed("sys/kernel/debug/dlm/test_all", later)) == []


def test_a_tree_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    """Saving and loading keeps entries and how they came about; what varies is named."""
    save(Tree(LITTLE, (EVENT,), {"case": "little"}), tmp_path)
    loaded = load(tmp_path)
    assert (loaded.entries, loaded.about["case"]) == (LITTLE, "little")
    assert loaded.uevents == (EVENT,)
    varies = json.loads((tmp_path / "manifest.json").read_text())["varies"]
    assert {each["path"] for each in varies} == {"sys/kernel/debug/dlm/test_all"}
