"""Every example of the lock API's documents does what the document shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dlm import locks
from tests.documents import Reader, blocks, is_shown
from tests.locks.conftest import ON_KERNEL
from tests.locks.stress import documented

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "docs" / "locks"
WITH_EXAMPLES = ("tutorial", "howto-asyncio", "howto-workers", "howto-leader", "howto-cache")

pytestmark = pytest.mark.skipif(ON_KERNEL, reason="runs on the served emulator: `make test`")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_the_document_shows(name: str) -> None:
    """All of a document's examples, in their order, in one session."""
    reader = Reader(PLACE / f"{name}.md")
    try:
        assert reader.read() > 0
    finally:
        reader.close()


def test_every_document_with_code_is_run() -> None:
    """No document of the directory has examples that nobody runs."""
    with_code = {
        path.stem
        for path in PLACE.glob("*.md")
        if any(block.language for block in blocks(path.read_text(encoding="utf-8")))
    }
    assert with_code == set(WITH_EXAMPLES)


def test_the_reference_is_what_the_docstrings_say() -> None:
    """reference.md is generated; ``make reference`` writes it again."""
    done = subprocess.run(
        [sys.executable, str(PLACE / "make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_exception_is_explained() -> None:
    """endings.md explains each exception of the room, and no other."""
    exported = {name for name in locks.__all__ if name.endswith("Error")}
    assert documented() | {"LockError"} == exported


def test_a_wrong_example_is_found() -> None:
    """The comparison takes ``…`` for any lines, and nothing else."""
    assert is_shown("a\n…\nd\n", "a\nb\nc\nd\n")
    assert is_shown("…\n", "")
    assert not is_shown("a\n", "a\nb\n")
    assert not is_shown("a\n…\nd\n", "a\nb\n")
