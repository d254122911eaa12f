"""A further world of the contract suite: ``dlm.kernel``'s own code on a fake file system.

Decides: which rights each of its processes has.
May not know: what any test asserts.

What lies behind is an emulated node; tests/fakefs says which part pyfakefs plays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dlm.ports import Backend, Device
from dlm.terms import KernelProfile
from tests.contract.machine import Machine
from tests.fakefs.nodes import FakeCluster


class FakeFsWorld:
    """A fresh emulated node for each test, under a fresh fake file system."""

    def __init__(self, profile: KernelProfile) -> None:
        self.profile = profile
        self.cluster = FakeCluster({"node1": "127.0.0.1"}, kernel=profile.name)
        self._node = self.cluster.node("node1")

    def machine(self) -> Machine:
        """Return a new process on the node."""
        return Machine(self._node.process())

    @contextmanager
    def unprivileged(self) -> Iterator[Backend]:
        """Give a process of root's without CAP_SYS_ADMIN."""
        yield self._node.process(capable=False)

    @contextmanager
    def ordinary_user(self) -> Iterator[Backend]:
        """Give a process of somebody who is not root."""
        yield self._node.process(privileged=False)

    def read_into_larger_buffer(self, device: Device, size: int) -> bytes:
        """Read with ``size``; the emulator has no buffer that could overflow."""
        return device.read(size)

    def finish(self, *, reload: bool) -> None:  # noqa: ARG002 - a fresh node needs no reload
        """Check the cluster's invariants a last time."""
        self.cluster.check()
