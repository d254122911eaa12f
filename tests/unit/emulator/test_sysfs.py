"""What writing a lockspace's attributes does; formats and parse rules stand elsewhere."""

from __future__ import annotations

import errno

import pytest

from dlm.emulator.process import Process
from tests.unit.emulator.helpers import one_node, refused, running_alone, status


@pytest.fixture
def process() -> Process:
    """A process on a node with a lockspace that runs."""
    process = one_node().node("nodea").process()
    running_alone(process)
    return process


def test_nodir_is_set_by_1_alone_and_never_cleared(process: Process) -> None:
    """Other numbers are taken without effect."""
    shown = []
    for text in (b"0", b"2", b"-1", b"1", b"0"):
        assert process.write_attribute("dlm/test/nodir", text) == len(text)
        shown.append(process.read_attribute("dlm/test/nodir"))

    assert shown == [b"0\n", b"0\n", b"0\n", b"1\n", b"1\n"]


def test_the_id_may_change_any_time(process: Process) -> None:
    """It is shown unsigned; -1 is EINVAL."""
    assert process.read_attribute("dlm/test/id") == b"0\n"
    assert process.write_attribute("dlm/test/id", b"0xffffffff\n") == 11
    with refused(errno.EINVAL):
        process.write_attribute("dlm/test/id", b"-1")

    assert process.read_attribute("dlm/test/id") == b"4294967295\n"


def test_a_write_of_no_bytes_does_nothing(process: Process) -> None:
    """Sysfs answers 0 without asking the attribute."""
    for name in ("control", "event_done", "id", "nodir"):
        assert process.write_attribute(f"dlm/test/{name}", b"") == 0

    assert status(process) == "ff"


def test_no_attribute_sees_more_than_a_page(process: Process) -> None:
    """What comes after 4096 bytes is neither written nor looked at."""
    text = b"+" + b"0" * 4094 + b"7"

    assert process.write_attribute("dlm/test/id", text + b"rubbish") == 4096

    assert process.read_attribute("dlm/test/id") == b"7\n"
