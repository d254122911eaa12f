"""The contract of the kernels of 2005, on the kernel room's code and a fake file system.

The dialects of April and July 2005: their attributes, ``dlm-node`` with its ioctls, lock device
3.0.0, through the same KernelBackend.
"""

from __future__ import annotations

import pytest

from tests.contract2005.conftest import *  # noqa: F403 (these are the fixtures)
from tests.contract2005.test_attributes import *  # noqa: F403 (these are the tests)
from tests.contract2005.test_device import *  # noqa: F403
from tests.contract2005.test_life import *  # noqa: F403
from tests.contract2005.test_node_ioctl import *  # noqa: F403
from tests.fakefs.nodes import FakeCluster


@pytest.fixture(autouse=True)
def kernel_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of an emulated node be one of ``dlm.kernel``."""
    monkeypatch.setattr("tests.contract2005.world.Cluster", FakeCluster)
