"""Made-up machines for the tests of the kernel room: a root directory, and FIFOs that sleep.

Decides: what a small tree looks like, and how a test sees that a process has let go of a file.
May not know: any rule of the DLM.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

PATIENCE = 30.0
"""Seconds after which a test gives up on what must happen: far above what anything takes."""


def make_tree(root: Path) -> Path:
    """Make the directories of a machine below ``root``, with a few files in them; return it."""
    for directory in (
        "sys/kernel/dlm/test",
        "sys/kernel/config/dlm",
        "dev/misc",
        "proc/net",
        "run",
    ):
        (root / directory).mkdir(parents=True)
    (root / "sys/kernel/dlm/test/id").write_bytes(b"5\n")
    (root / "proc/misc").write_bytes(b"121 dlm_test\n124 dlm-control\n")
    return root


class Fifo:
    """A device, or attribute, whose calls sleep until the test does its part."""

    def __init__(self, path: Path) -> None:
        """Make it."""
        os.mkfifo(path)
        self.path = path
        self._both = os.open(path, os.O_RDWR)  # lets either end be opened without the other

    def open_writer(self) -> int:
        """Open the writing end, and from here on leave the reading end to others."""
        writer = os.open(self.path, os.O_WRONLY)
        self.leave()
        return writer

    def leave(self) -> None:
        """Leave both ends to others."""
        if self._both >= 0:
            os.close(self._both)
            self._both = -1


def nobody_reads(writer: int) -> bool:
    """Wait until the last reader of a FIFO has gone; say whether it has."""
    poll = select.poll()
    poll.register(writer, 0)  # POLLERR always counts
    return bool(poll.poll(PATIENCE * 1000))
