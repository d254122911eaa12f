"""The control module's small place on an emulated node: files in memory, gone with a crash.

Decides: nothing but where bytes are kept. May not know: what the files say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dlm.emulator.scheduler import Scheduler


class StateFiles:
    """One boot's state directory (``dlm.ports.StateDirectory``)."""

    def __init__(self, scheduler: Scheduler, boot_id: str) -> None:
        self._scheduler = scheduler
        self._boot_id = boot_id
        self._files: dict[str, bytes] = {}
        self._locked = False

    def read(self, name: str) -> bytes | None:
        """Return the file's content, None when there is none."""
        return self._files.get(name)

    def write(self, name: str, content: bytes) -> None:
        """Replace the file."""
        self._files[name] = bytes(content)

    def remove(self, name: str) -> None:
        """Remove the file; fine when there is none."""
        self._files.pop(name, None)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the node-wide lock, once whoever holds it lets go."""
        self._scheduler.run_until(lambda: not self._locked, waiting="the state directory's lock")
        self._locked = True
        try:
            yield
        finally:
            self._locked = False

    def boot_id(self) -> str:
        """Return this boot's id."""
        return self._boot_id
