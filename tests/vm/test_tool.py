"""The tool's session on a real kernel, and the trees of its steps.

Runs in a guest only (tests/vm/run): as root, with a DLM that nobody has used since it was loaded.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.kernel import KernelBackend
from tests.vm.session import BEGINNING, STEPS, Step
from tests.vm.trees import FIXTURES, Tree, differences, load, record, save

KERNEL = os.environ.get("DLM_VM_KERNEL", "")
RESULTS = Path(os.environ.get("DLM_VM_RESULTS", "."))
RECORDING = os.environ.get("DLM_VM_RECORD") == "1"

CASES = (BEGINNING, *(step.case for step in STEPS if step.case))

pytestmark = pytest.mark.skipif(not KERNEL, reason="needs a guest: run `make vm`")


@pytest.fixture(scope="module")
def backend() -> Iterator[KernelBackend]:
    """This machine's kernel."""
    backend = KernelBackend()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def said() -> list[str]:
    """The command lines so far."""
    return []


def keep(backend: KernelBackend, case: str, said: list[str]) -> None:
    """Record the tree of this moment into the results."""
    tree = record(
        backend,
        case=case,
        kernel=platform.release(),
        recorded=time.strftime("%Y-%m-%d"),
        how="tests/vm/run --record",
        commands=[f"dlm_tool {words}" for words in said],
    )
    save(tree, RESULTS / "sysfs" / KERNEL / case)


def test_the_module_is_loaded(backend: KernelBackend, said: list[str]) -> None:
    """The session begins with a DLM that has nothing configured."""
    keep(backend, BEGINNING, said)
    assert backend.list_directory("config/dlm") == []


@pytest.mark.parametrize("step", STEPS, ids=[step.words for step in STEPS])
def test_step(backend: KernelBackend, said: list[str], step: Step) -> None:
    """The installed dlm_tool prints exactly this, exits with this, and nothing else."""
    done = subprocess.run(
        ["dlm_tool", *step.words.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    said.append(step.words)
    print(f"$ dlm_tool {step.words}\n{done.stdout}{done.stderr}[{done.returncode}]")
    if step.case:
        keep(backend, step.case, said)
    said_now = (done.stdout, done.stderr, done.returncode)
    assert said_now == (step.output, step.errors, step.code)


def test_the_lockspace_is_gone(backend: KernelBackend) -> None:
    """What terminate has answered ends soon."""
    while backend.list_directory("dlm"):
        backend.pause(0.1)  # the test's own limit ends this
    assert "dlm_test" not in backend.misc_devices()


@pytest.mark.skipif(RECORDING, reason="these trees are what is being recorded")
@pytest.mark.parametrize("case", CASES)
def test_tree(case: str) -> None:
    """The tree of this moment is the one in fixtures/sysfs, apart from what its manifest says."""
    found = load(RESULTS / "sysfs" / KERNEL / case)
    kept = load(FIXTURES / KERNEL / case) if (FIXTURES / KERNEL / case).exists() else Tree({})
    unlike = differences(kept, found)
    assert not unlike, "\n".join([*unlike, "if that is right: tests/vm/run --record"])
