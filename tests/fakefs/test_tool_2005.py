"""dlm_tool on the kernels of 2005, through the kernel room's code and a fake file system."""

from __future__ import annotations

import pytest

from tests.cli.test_2005 import *  # noqa: F403 (these are the tests)
from tests.fakefs.nodes import FakeCluster


@pytest.fixture(autouse=True)
def kernel_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of an emulated node be one of ``dlm.kernel``."""
    monkeypatch.setattr("tests.cli.tool.Cluster", FakeCluster)
