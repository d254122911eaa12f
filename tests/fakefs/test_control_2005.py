"""dlm.control on the kernels of 2005, through the kernel room's code and a fake file system."""

from __future__ import annotations

import errno

import pytest

from dlm.errors import RefusedError
from tests.fakefs.nodes import FakeCluster
from tests.unit.control.test_2005 import *  # noqa: F403 (these are the tests)
from tests.unit.control.world import World

# In its place: test_without_rights_the_state_directory_refuses.
del test_without_rights_nothing_can_be_set  # noqa: F821


@pytest.fixture(autouse=True)
def kernel_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process of an emulated node be one of ``dlm.kernel``."""
    monkeypatch.setattr("tests.unit.control.world.Cluster", FakeCluster)


@pytest.mark.parametrize("abi", ["event", "members"])
def test_without_rights_the_state_directory_refuses(abi: str) -> None:
    """It has a mode here, and is locked before any device is opened."""
    world = World("nodea", abi=abi)
    world.processes["nodea"] = world.cluster.node("nodea").process(privileged=False)
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_node(2, "10.0.0.2")
    assert (caught.value.errno, "state directory" in str(caught.value)) == (errno.EACCES, True)
