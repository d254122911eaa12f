"""Runs dlm_tool on emulated nodes, as a shell would.

Decides: how a line becomes a process, and what is kept of it.
May not know: what any test asserts.
"""

from __future__ import annotations

import io
import shlex
from dataclasses import dataclass

from dlm.cli.main import main
from dlm.emulator import Cluster
from dlm.errors import errno_name
from dlm.ports import Backend

ADDRESSES = {"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a line has shown, and its exit code."""

    code: int
    out: str
    err: str


class Shell:
    """A cluster with a shell on each node; every line is a process of its own."""

    def __init__(self, *names: str, kernel: str = "6.1", abi: str = "configfs") -> None:
        self.cluster = Cluster({name: ADDRESSES[name] for name in names}, kernel=kernel, abi=abi)
        self.names = names

    def run(self, line: str, node: str = "nodea", *, privileged: bool = True) -> Ran:
        """Run one line on a node, without the program's name."""
        return self.run_words(shlex.split(line), node, privileged=privileged)

    def run_words(self, words: list[str], node: str = "nodea", *, privileged: bool = True) -> Ran:
        """Run one command line on a node."""
        out, err = io.StringIO(), io.StringIO()
        process = self.cluster.node(node).process(privileged=privileged)
        try:
            code = main(words, backend=process, stdout=out, stderr=err)
        finally:
            process.close()
        return Ran(code, out.getvalue(), err.getvalue())

    def do(self, *lines: str, node: str = "nodea") -> None:
        """Run lines that must succeed."""
        for line in lines:
            ran = self.run(line, node)
            assert ran.code == 0, (line, ran)

    def set_up(self) -> None:
        """Do steps 3 and 4 of the usage document on every node."""
        for number, name in enumerate(self.names, 1):
            self.do(f"set_local {number} {ADDRESSES[name]}", node=name)
            for other, address in enumerate(self.names, 1):
                self.do(f"set_node {other} {ADDRESSES[address]}", node=name)

    def start(self, event_nr: int = 1) -> None:
        """Do steps 3 to 7 for a lockspace ``test`` on every node."""
        members = " ".join(str(number) for number in range(1, len(self.names) + 1))
        self.set_up()
        for name in self.names:
            self.do("create test", node=name)
        for name in self.names:
            self.do(f"start test {event_nr} 0 {members}", node=name)
        self.cluster.settle()

    def tree(self, node: str = "nodea") -> dict[str, str]:
        """Return all that can be seen of a node's trees, devices and locks."""
        process = self.cluster.node(node).process()
        found = {"misc": repr(process.misc_devices())}
        for root in ("config", "dlm", "debug"):
            _walk(process, root, found)
        process.close()
        return found


def _walk(process: Backend, path: str, found: dict[str, str]) -> None:
    try:
        names = process.list_directory(path)
    except NotADirectoryError:
        try:
            found[path] = process.read_attribute(path).decode()
        except PermissionError:
            found[path] = "(write only)"
        except OSError as error:  # members of 2005, while locking is off
            found[path] = f"({errno_name(error.errno or 0)})"
        return
    found[path] = " ".join(names)
    for name in names:
        _walk(process, f"{path}/{name}", found)
