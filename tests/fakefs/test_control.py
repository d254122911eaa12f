"""dlm.control's facts on the kernel room's code and a fake file system."""

from __future__ import annotations

import pytest

from tests.fakefs.nodes import FakeCluster
from tests.unit.control.test_facts import *  # noqa: F403 (these are the tests)


@pytest.fixture(autouse=True)
def kernel_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of an emulated node be one of ``dlm.kernel``."""
    monkeypatch.setattr("tests.unit.control.world.Cluster", FakeCluster)
