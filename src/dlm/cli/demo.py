"""The usage document, end to end: its 18 steps on three emulated nodes.

Decides: what is shown, and what each step must show.
May not know: how anything works; every line goes through ``main``, as from a shell.
Mirrors: the usage document (dlm.txt of April 2005), example steps 1 to 18.
"""

from __future__ import annotations

import io
import re
import shlex
from typing import TextIO

from dlm.cli.main import main
from dlm.cli.sentences import ExitCode
from dlm.emulator import Cluster
from dlm.errors import UsageError

NODES = {"nodea": "10.0.0.1", "nodeb": "10.0.0.2", "nodec": "10.0.0.3"}
IDS = {name: number for number, name in enumerate(NODES, 1)}
ALL = tuple(NODES)
SURVIVORS = ("nodeb", "nodec")

NOTHING = r""
GRANTED = r"lock: mode 0x\d flags 0x8[01] name \S+\nstatus 0x0 id (\d+)\n"
REFUSED = r"lock: mode 0x\d flags 0x8[01] name \S+\nstatus 0xb id \d+\n"
UNLOCKED = r"unlock: lkid \d+ flags 0x0\nstatus 0x10002\n"
CONVERTED = r"convert: lkid \d+ flags 0x84\nstatus 0x0\n"


RESTART = {
    "configfs": r"rmdir \S*/nodes/1\nwrite \S*/control 1\n",
    "event": r"write \S*/members 2 3\nwrite \S*/start 2\n",
    "members": r"write \S*/members 2 3\nwrite \S*/control 1\n",
}
"""What the start of step 11 writes, by the dialect: all that differs in what is shown."""


def demo(abi: str, out: TextIO) -> int:
    """Show the 18 steps; return 0, or 1 when a step did not show what it must."""
    if abi not in RESTART:
        raise UsageError(f"abi {abi!r} is none of: {' '.join(RESTART)}")
    with Cluster(NODES, abi=abi) as cluster:
        show = _Show(cluster, out)
        try:
            _set_up(show)
            _lock(show)
            _fail(show)
            _rejoin(show)
            _lock_again(show)
            cluster.check()
        except DemoError as error:
            out.write(f"\nThe demo failed: {error}\n")
            return ExitCode.REFUSED
    out.write("\nAll 18 steps showed what they must.\n")
    return ExitCode.DONE


class DemoError(Exception):
    """A step did not show what the usage document says."""


class _Show:
    """Three nodes, and a place to show what is done on them."""

    def __init__(self, cluster: Cluster, out: TextIO) -> None:
        self.cluster = cluster
        self._out = out
        self._colour = out.isatty()

    def step(self, number: int | None, title: str, *remarks: str) -> None:
        """Begin a step of the document; None: what comes after the last."""
        text = title if number is None else f"{number}. {title}"
        self._out.write(f"\n{self._paint('1', text)}\n")
        self.say(*remarks)

    def say(self, *remarks: str) -> None:
        """Say something to the reader."""
        for remark in remarks:
            self._out.write(self._paint("2", f"   # {remark}") + "\n")

    def on(
        self, nodes: tuple[str, ...], line: str, shows: str = NOTHING, code: int = 0
    ) -> list[str]:
        """Run a line on each of the nodes; return the first group of what each of them shows."""
        return [self._run(node, line, shows, code) for node in nodes]

    def one(self, node: str, line: str, shows: str = NOTHING, code: int = 0) -> str:
        """Run a line on one node; return the first group of what it shows."""
        return self._run(node, line, shows, code)

    def _run(self, node: str, line: str, shows: str, code: int) -> str:
        self._out.write(f"{self._paint('36', f'{node}>')} dlm_tool {line}\n")
        stdout, stderr = io.StringIO(), io.StringIO()
        process = self.cluster.node(node).process()
        try:
            got = main(shlex.split(line), backend=process, stdout=stdout, stderr=stderr)
        finally:
            process.close()
        self._out.write(stdout.getvalue() + self._paint("33", stderr.getvalue()))
        if got:
            self._out.write(f"   # exit code {got}\n")
        if got != code:
            raise DemoError(f"exit code {got}, not {code}")
        match = re.fullmatch(shows, stdout.getvalue())
        if match is None:
            raise DemoError(f"the output is not {shows!r}")
        if not code and stderr.getvalue():
            raise DemoError("something was said on stderr")
        return match[1] if match.re.groups else ""

    def _paint(self, style: str, text: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour and text else text


def _set_up(show: _Show) -> None:
    show.step(1, "Three machines are to use the DLM", *(f"{n} -- {a}" for n, a in NODES.items()))
    show.step(2, "Each gets a number", *(f"{name} -- {number}" for name, number in IDS.items()))
    show.step(3, "Each node is told its own number and address")
    for name, number in IDS.items():
        show.one(name, f"set_local {number} {NODES[name]}")
    show.step(4, "Every node is told where every node is")
    for name, number in IDS.items():
        show.on(ALL, f"set_node {number} {NODES[name]}")
    show.step(5, "A lockspace, as an application would create it", "It waits for its first start.")
    show.on(ALL, "create test")
    show.step(6, "Start it everywhere with its members", "The event number begins at 1.")
    show.on(ALL, "start test 1 0 1 2 3")
    show.step(7, "Each node recovers; then the event number shows as done")
    show.cluster.settle()
    show.on(ALL, "get_done test", r"done event_nr 1\n")
    show.step(8, "When all are done, recovery is finished everywhere")
    show.on(ALL, "finish test 1")


def _lock(show: _Show) -> None:
    show.step(9, "Now it can be used", "A lock outlives the tool that took it: flag 0x80.")
    show.one("nodea", "lock test resA EX", GRANTED)
    lock = show.one("nodeb", "lock test resB PR", GRANTED)
    show.one("nodeb", f"convert test {lock} EX", CONVERTED)
    show.say("nodea has resA: nodeb, which does not want to queue, is turned down.")
    show.one("nodeb", "lock test resA EX NOQUEUE", REFUSED, ExitCode.REFUSED)


def _fail(show: _Show) -> None:
    show.step(10, "nodea fails: its power is cut", "The others suspend locking.")
    show.cluster.crash("nodea")
    show.on(SURVIVORS, "stop test")
    show.say("Lock requests wait from now on; --timeout ends the wait.")
    show.one("nodec", "lock test resC EX --timeout 1", NOTHING, ExitCode.TIMED_OUT)
    show.step(11, "Start again without nodea, one number up", "What that writes, first:")
    show.one("nodeb", "start test 2 0 2 3 --dry-run", RESTART[show.cluster.abi])
    show.on(SURVIVORS, "start test 2 0 2 3")
    show.step(12, "Wait until both have recovered")
    show.cluster.settle()
    show.on(SURVIVORS, "get_done test", r"done event_nr 2\n")
    show.step(13, "Recovery is finished on both")
    show.on(SURVIVORS, "finish test 2")
    show.say("nodea's lock on resA went away with it; nodeb's on resB came through.")
    lock = show.one("nodec", "lock test resA EX NOQUEUE", GRANTED)
    show.one("nodec", f"unlock test {lock}", UNLOCKED)
    show.one("nodec", "lock test resB PR NOQUEUE", REFUSED, ExitCode.REFUSED)


def _rejoin(show: _Show) -> None:
    show.step(14, "nodea comes back", "A restart has lost steps 3 and 4, so create says:")
    show.cluster.restart("nodea")
    show.one("nodea", "create test", NOTHING, ExitCode.REFUSED)
    show.say("Both steps again, on nodea alone.")
    show.one("nodea", "set_local 1 10.0.0.1")
    for name, number in IDS.items():
        show.one("nodea", f"set_node {number} {NODES[name]}")
    show.one("nodea", "create test")
    show.step(15, "To take it back in, the others suspend locking")
    show.on(SURVIVORS, "stop test")
    show.step(16, "Start everywhere", "nodea, which is new, counts from 1 again.")
    show.on(SURVIVORS, "start test 3 0 1 2 3")
    show.one("nodea", "start test 1 0 1 2 3")
    show.step(17, "Wait until all have recovered")
    show.cluster.settle()
    show.on(SURVIVORS, "get_done test", r"done event_nr 3\n")
    show.one("nodea", "get_done test", r"done event_nr 1\n")
    show.step(18, "Recovery is finished everywhere")
    show.on(SURVIVORS, "finish test 3")
    show.one("nodea", "finish test 1")


def _lock_again(show: _Show) -> None:
    show.step(None, "Locks go across all three nodes again", "Shared first, then each alone.")
    shared = show.on(ALL, "lock test resD PR NOQUEUE", GRANTED)
    for node, lock in zip(ALL, shared, strict=True):
        show.one(node, f"unlock test {lock}", UNLOCKED)
    for node in ALL:
        lock = show.one(node, "lock test resD EX NOQUEUE", GRANTED)
        show.one(node, f"unlock test {lock}", UNLOCKED)
    show.say("And nodeb still has resB.")
    show.one("nodea", "lock test resB EX NOQUEUE", REFUSED, ExitCode.REFUSED)
    table = r"lockspace .*\ntest +0 +1 2 3 +running +\d +\d +- +-\n"
    show.on(ALL, "ls", table)
