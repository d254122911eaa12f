"""The tool's session on a real kernel, and the trees of its moments.

Runs in a guest only (tests/vm/run): as root, with a DLM that nobody has used since it was loaded.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dlm.kernel import KernelBackend
from dlm.ports import UeventSource
from tests.vm.session import BEGINNING, CASES, ENDING, STEPS, Step
from tests.vm.trees import FIXTURES, Tree, differences, load, record, save

KERNEL = os.environ.get("DLM_VM_KERNEL", "")
RESULTS = Path(os.environ.get("DLM_VM_RESULTS", "."))
RECORDING = os.environ.get("DLM_VM_RECORD") == "1"

pytestmark = pytest.mark.skipif(not KERNEL, reason="needs a guest: run `make vm`")


@pytest.fixture(scope="module")
def backend() -> Iterator[KernelBackend]:
    """This machine's kernel."""
    backend = KernelBackend()
    yield backend
    backend.close()


@dataclass
class Recorder:
    """What records the trees: the events that it hears, and the command lines so far."""

    backend: KernelBackend
    uevents: UeventSource
    said: list[str] = field(default_factory=list)

    def keep(self, case: str) -> None:
        """Record the tree of this moment into the results."""
        subprocess.run(["udevadm", "settle"], check=True)
        nodes = [each for each in Path("/dev").iterdir() if each.name.startswith("dlm")]
        tree = record(
            self.backend,
            devices={each.name: each.stat().st_mode for each in nodes},
            uevents=self.uevents.read_nowait(),
            case=case,
            kernel=platform.release(),
            recorded=time.strftime("%Y-%m-%d"),
            how=f"make fixtures KERNEL={KERNEL}",
            commands=[f"dlm_tool {words}" for words in self.said],
        )
        save(tree, RESULTS / "sysfs" / KERNEL / case)


@pytest.fixture(scope="module")
def recorder(backend: KernelBackend) -> Recorder:
    """A recorder that listens."""
    return Recorder(backend, backend.uevents())


def test_the_module_is_loaded(recorder: Recorder) -> None:
    """The session begins with a DLM that was just loaded and has nothing configured."""
    subprocess.run(["modprobe", "-r", "dlm"], check=True)
    recorder.uevents.read_nowait()
    subprocess.run(["modprobe", "dlm"], check=True)
    recorder.keep(BEGINNING)
    assert recorder.backend.list_directory("config/dlm") == []


@pytest.mark.parametrize("step", STEPS, ids=[step.words for step in STEPS])
def test_step(recorder: Recorder, step: Step) -> None:
    """The installed dlm_tool prints exactly this, exits with this, and nothing else."""
    done = subprocess.run(
        ["dlm_tool", *step.words.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    recorder.said.append(step.words)
    print(f"$ dlm_tool {step.words}\n{done.stdout}{done.stderr}[{done.returncode}]")
    if step.case:
        recorder.keep(step.case)
    said_now = (done.stdout, done.stderr, done.returncode)
    assert said_now == (step.output, step.errors, step.code)


def test_the_lockspace_is_gone(backend: KernelBackend, recorder: Recorder) -> None:
    """What terminate has answered ends soon."""
    while backend.list_directory("dlm"):
        backend.pause(0.1)  # the test's own limit ends this
    recorder.keep(ENDING)
    assert "dlm_test" not in backend.misc_devices()


@pytest.mark.skipif(RECORDING, reason="these trees are what is being recorded")
@pytest.mark.parametrize("case", CASES)
def test_tree(case: str) -> None:
    """The tree of this moment is the one in fixtures/sysfs, apart from what its manifest says."""
    found = load(RESULTS / "sysfs" / KERNEL / case)
    kept = load(FIXTURES / KERNEL / case) if (FIXTURES / KERNEL / case).exists() else Tree({})
    unlike = differences(kept, found)
    assert not unlike, "\n".join([*unlike, f"if that is right: make fixtures KERNEL={KERNEL}"])
