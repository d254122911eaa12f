"""The third world of the contract suite: an emulated node at the other end of a stream.

Decides: which rights each of its processes has.
May not know: what any test asserts.

The node's clock runs ``SPEED`` times as fast as the machine's, so that a pause of a test costs
little. Each process of a test has a connection of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dlm.emulator import Cluster
from dlm.ports import Backend, Device
from dlm.terms import KernelProfile
from tests.contract.machine import Machine
from tests.served import Served

SPEED = 10.0


class RemoteWorld:
    """A fresh emulated node for each test, served on sockets."""

    def __init__(self, profile: KernelProfile) -> None:
        self.profile = profile
        cluster = Cluster({"node1": "127.0.0.1"}, kernel=profile.name)
        node = cluster.node("node1")
        self._served = Served(
            cluster,
            {
                "root": node.process,
                "incapable": lambda: node.process(capable=False),
                "user": lambda: node.process(privileged=False),
            },
            speed=SPEED,
        )

    def machine(self) -> Machine:
        """Return a new process on the node."""
        return Machine(self._served.connect("root"))

    @contextmanager
    def unprivileged(self) -> Iterator[Backend]:
        """Give a process of root's without CAP_SYS_ADMIN."""
        yield self._served.connect("incapable")

    @contextmanager
    def ordinary_user(self) -> Iterator[Backend]:
        """Give a process of somebody who is not root."""
        yield self._served.connect("user")

    def read_into_larger_buffer(self, device: Device, size: int) -> bytes:
        """Read with ``size``; the emulator has no buffer that could overflow."""
        return device.read(size)

    def finish(self, *, reload: bool) -> None:  # noqa: ARG002 - a fresh node needs no reload
        """End the server, and check the node's invariants a last time."""
        self._served.close()
        self._served.cluster.check()
