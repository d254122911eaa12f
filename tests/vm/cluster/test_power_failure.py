"""The usage document typed at three guests with real kernels, one of which loses power."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from dlm.ports import Backend
from tests.cli.tool import Ran
from tests.power_failure import tell
from tests.vm.guests import Guest
from tests.vm.link import Running

LINE_LIMIT = 200.0
"""Seconds for one line: guests are slow, and three share this machine."""


class Typed:
    """A line typed at a guest."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def finished(self) -> bool:
        """Say whether it has ended."""
        return not self._running.running

    def wait(self) -> Ran:
        """Wait for its end."""
        done = self._running.wait(LINE_LIMIT)
        return Ran(done.code, done.stdout, done.stderr)


class Machine:
    """A guest as the story knows its nodes."""

    def __init__(self, guest: Guest) -> None:
        self.name = guest.name
        self._guest = guest

    def begin(self, line: str) -> Typed:
        """Type ``dlm_tool`` and a line; do not wait for its end."""
        return Typed(self._guest.start(f"exec dlm_tool {line}"))

    def backend(self) -> AbstractContextManager[Backend]:
        """Give a program's process on it."""
        return self._guest.backend()

    def cut(self) -> None:
        """Cut its power."""
        self._guest.power_cut()

    def boot(self) -> None:
        """Switch it on again."""
        self._guest.boot()


def machines(guests: Sequence[Guest]) -> list[Machine]:
    """Return guests as the story's nodes."""
    return [Machine(each) for each in guests]


def test_a_node_loses_power_and_comes_back(guests: list[Guest]) -> None:
    """Who waited for its lock gets it, value blocks say what they are worth, and it rejoins."""
    tell(machines(guests))
