"""Emulated nodes whose processes are ``dlm.kernel``'s, on a fake file system for each boot.

Decides: which file system a process gets.
May not know: what it does there.
"""

from __future__ import annotations

from typing import Any

from dlm.emulator import Cluster
from dlm.emulator.node import Node
from dlm.emulator.process import Process
from dlm.kernel import KernelBackend
from tests.fakefs.files import Files
from tests.fakefs.syscalls import FakeSyscalls


class FakeNode:
    """A node, looked at through the kernel room; whatever is not a process is the node's own."""

    def __init__(self, node: Node, *, devices: str = "/dev/misc") -> None:
        self._node = node
        self._devices = devices
        self._boot = node.boot
        self._files = self._new_files()

    @property
    def files(self) -> Files:
        """The file system of this boot; /run is as empty after a boot as all else."""
        if self._boot is not self._node.boot:
            self._boot = self._node.boot
            self._files = self._new_files()
        return self._files

    @property
    def last_files(self) -> Files:
        """The file system of the newest boot that anybody looked at, also when it is down."""
        return self._files

    def process(self, **rights: bool) -> KernelBackend:
        """Return a new process (``Node.process``), as the kernel room sees the node."""
        return KernelBackend(syscalls=self.syscalls(**rights))

    def syscalls(self, **rights: bool) -> FakeSyscalls:
        """Return the system calls of a new process."""
        return FakeSyscalls(self.files, self.twin(**rights))

    def twin(self, **rights: bool) -> Process:
        """Return a new process as the emulator has it, without the kernel room."""
        return self._node.process(**rights)

    def _new_files(self) -> Files:
        return Files(self._node.process(), devices=self._devices)

    def __getattr__(self, name: str) -> Any:  # Any: whatever the node has
        return getattr(self._node, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._node, name, value)


class FakeCluster(Cluster):
    """``dlm.emulator.Cluster`` with such nodes."""

    def __init__(self, *arguments: Any, devices: str = "/dev/misc", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fakes = {node.name: FakeNode(node, devices=devices) for node in self.nodes}

    def node(self, name: str) -> FakeNode:  # type: ignore[override]
        """Return a node by name; ``KeyError``."""
        return self._fakes[name]
