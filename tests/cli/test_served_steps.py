"""The 18 steps of the usage document, typed by hand: every line a process of its own.

Mirrors: the usage document (dlm.txt of April 2005), example steps 1 to 18.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

import pytest

import dlm
from dlm.ports import Backend
from tests.cli.shells import PATIENCE, Shells
from tests.cli.tool import ADDRESSES, Ran
from tests.power_failure import CONVERTED, GRANTED, REFUSED, UNLOCKED, tell

DIALECTS = ("event", "members", "configfs")
ALL = tuple(ADDRESSES)
SURVIVORS = ("nodeb", "nodec")


class Script(Shells):
    """Lines on nodes, and what they must show."""

    def one(self, node: str, line: str, shows: str = "", code: int = 0) -> str:
        """Run a line on a node; return the first group of what it shows."""
        ran = self.on(node, line)
        assert ran.code == code, (node, line, ran)
        match = re.fullmatch(shows, ran.out)
        assert match, (node, line, ran)
        assert (ran.err == "") == (code == 0), (node, line, ran)
        return match[1] if match.re.groups else ""

    def each(self, nodes: tuple[str, ...], line: str, shows: str = "") -> list[str]:
        """Run a line on each of the nodes."""
        return [self.one(node, line, shows) for node in nodes]

    def power(self, verb: str, node: str) -> None:
        """Crash or restart a node."""
        assert self.tool(f"emulator {verb} {node} DIR").code == 0


@pytest.fixture(params=DIALECTS)
def script(request: pytest.FixtureRequest) -> Iterator[Script]:
    """A served cluster of three nodes."""
    script = Script()
    script.up(f"--abi {request.param}")
    yield script
    script.close()


@pytest.mark.slow
def test_the_18_steps_typed_by_hand(script: Script) -> None:
    """Same commands and results as the demo, each in a process of its own, in real time."""
    ids = dict(zip(ALL, (1, 2, 3), strict=True))
    for name, number in ids.items():  # 3
        script.one(name, f"set_local {number} {ADDRESSES[name]}")
    for name, number in ids.items():  # 4
        script.each(ALL, f"set_node {number} {ADDRESSES[name]}")
    script.each(ALL, "create test")  # 5
    script.each(ALL, "start test 1 0 1 2 3")  # 6
    script.each(ALL, "poll_done test 1 --timeout 30", r"done event_nr 1\n")  # 7
    script.each(ALL, "finish test 1")  # 8
    script.one("nodea", "lock test resA EX", GRANTED)  # 9
    kept = script.one("nodeb", "lock test resB PR", GRANTED)
    script.one("nodeb", f"convert test {kept} EX", CONVERTED)
    script.one("nodeb", "lock test resA EX NOQUEUE", REFUSED, 1)

    script.power("crash", "nodea")  # 10
    script.each(SURVIVORS, "stop test")
    script.one("nodec", "lock test resC EX --timeout 0.2", "", 3)
    script.each(SURVIVORS, "start test 2 0 2 3")  # 11
    script.each(SURVIVORS, "poll_done test 2 --timeout 30", r"done event_nr 2\n")  # 12
    script.each(SURVIVORS, "finish test 2")  # 13
    free = script.one("nodec", "lock test resA EX NOQUEUE", GRANTED)
    script.one("nodec", f"unlock test {free}", UNLOCKED)
    script.one("nodec", "lock test resB PR NOQUEUE", REFUSED, 1)

    assert script.on("nodea", "create test").code == 4  # 14: it is down
    script.power("restart", "nodea")
    script.one("nodea", "create test", "", 1)  # and has lost steps 3 and 4
    script.one("nodea", "set_local 1 10.0.0.1")
    for name, number in ids.items():
        script.one("nodea", f"set_node {number} {ADDRESSES[name]}")
    script.one("nodea", "create test")
    script.each(SURVIVORS, "stop test")  # 15
    script.each(SURVIVORS, "start test 3 0 1 2 3")  # 16
    script.one("nodea", "start test 1 0 1 2 3")
    script.each(SURVIVORS, "poll_done test 3 --timeout 30", r"done event_nr 3\n")  # 17
    script.one("nodea", "poll_done test 1 --timeout 30", r"done event_nr 1\n")
    script.each(SURVIVORS, "finish test 3")  # 18
    script.one("nodea", "finish test 1")

    for name in ALL:
        lock = script.one(name, "lock test resD EX NOQUEUE", GRANTED)
        script.one(name, f"unlock test {lock}", UNLOCKED)
    script.one("nodea", "lock test resB EX NOQUEUE", REFUSED, 1)
    assert "status" not in (script.directory / "log").read_text()


class Typed:
    """A line typed at a served node."""

    def __init__(self, line: str, backend: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dlm", *line.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DLM_BACKEND": backend},
        )

    def finished(self) -> bool:
        """Say whether it has ended."""
        return self._process.poll() is not None

    def wait(self) -> Ran:
        """Wait for its end."""
        out, err = self._process.communicate(timeout=PATIENCE)
        return Ran(self._process.returncode, out, err)


class ServedNode:
    """A served node as the story of the power failure knows its nodes."""

    def __init__(self, name: str, shells: Shells) -> None:
        self.name = name
        self._shells = shells
        self._spec = f"emulator:{shells.directory}/{name}"

    def begin(self, line: str) -> Typed:
        """Type ``dlm_tool`` and a line; do not wait for its end."""
        return Typed(line, self._spec)

    def backend(self) -> AbstractContextManager[Backend]:
        """Give a program's process on it."""
        return closing(dlm.connect(self._spec))

    def cut(self) -> None:
        """Cut its power."""
        assert self._shells.tool(f"emulator crash {self.name} DIR").code == 0

    def boot(self) -> None:
        """Switch it on again."""
        assert self._shells.tool(f"emulator restart {self.name} DIR").code == 0


@pytest.mark.slow
def test_a_node_loses_power_and_comes_back() -> None:
    """What tests/vm/cluster sees on three real kernels is seen on the emulator, line by line."""
    shells = Shells()
    shells.up()
    try:
        tell([ServedNode(name, shells) for name in ALL])
    finally:
        shells.close()
