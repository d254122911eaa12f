"""A dlm_tool that was killed at any point: the next command explains it, and finishes or undoes it.

Every verb is run once to its end, which counts its changes of the node. Then it is killed just
before and just after each of them, in a world of its own. A write that a verb gains is covered by
being made.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from dlm.cli.main import main
from dlm.control import Control
from tests.cli.doomed import Doomed, KilledError
from tests.cli.tool import ADDRESSES, Ran, Shell

THREE = ("nodea", "nodeb", "nodec")


@dataclass(frozen=True, slots=True)
class Case:
    """A line that is interrupted on nodea.

    ``given`` are the lines before it, ``others`` those of the other nodes beside it, each with its
    node. ``again``: what gives the line again may say that it is there already, or has gone.
    """

    line: str
    given: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ("nodea",)
    abis: tuple[str, ...] = ("configfs", "event", "members")
    locks: bool = False
    reads: bool = False


MAINLINE, OF_2005, JULY = ("configfs",), ("event", "members"), ("members",)
SET = ("set_local 1 10.0.0.1", "set_node 2 10.0.0.2 4")
JOINS = (*SET, "create test")
RUNS = (*JOINS, "start test 1 0 1", "poll_done test 1", "finish test 1")
STOPPED = (*RUNS, "stop test")


def everywhere(*lines: str, nodes: tuple[str, ...] = THREE) -> tuple[str, ...]:
    """Return lines for each of these nodes, line by line."""
    return tuple(f"{node}: {line}" for line in lines for node in nodes)


SET_ALL = tuple(
    f"{node}: {verb} {number} {ADDRESSES[name]}"
    for node in THREE
    for verb, number, name in (
        ("set_local", THREE.index(node) + 1, node),
        *(("set_node", number, name) for number, name in enumerate(THREE, 1)),
    )
)
JOIN_ALL = (*SET_ALL, *everywhere("create test"))
DONE_1 = everywhere("poll_done test 1", "finish test 1")
RUN_ALL = (*JOIN_ALL, *everywhere("start test 1 0 1 2 3"), *DONE_1)
C_IS_BACK = (
    "nodec: crash",
    *(line for line in SET_ALL if line.startswith("nodec:")),
    "nodec: create test",
)
AB, BC = ("nodea", "nodeb"), ("nodeb", "nodec")
WITHOUT_C = (
    *RUN_ALL,
    "nodec: crash",
    *everywhere("stop test", "start test 2 0 1 2", "poll_done test 2", "finish test 2", nodes=AB),
    *C_IS_BACK[1:],
    *everywhere("stop test", nodes=AB),
)

CASES = {
    "set_local": Case("set_local 1 10.0.0.1 3"),
    "set_local, two addresses": Case("set_local 1 10.0.0.1,fd00::1"),
    "set_local, one more": Case("set_local 1 fd00::1", ("set_local 1 10.0.0.1 2",)),
    "set_local again": Case("set_local 1 10.0.0.1", ("set_local 1 10.0.0.1",)),
    "set_node": Case("set_node 2 10.0.0.2 4", SET[:1]),
    "set_node, two addresses": Case("set_node 2 10.0.0.2,fd00::2", abis=MAINLINE),
    "set_node elsewhere": Case("set_node 2 10.0.0.9", SET),
    "set_node, weight": Case("set_node 2 10.0.0.2 7", SET),
    "set_node, this node": Case("set_node 1 10.0.0.8", ("set_local 1 10.0.0.1 2",)),
    "create": Case("create test", SET),
    "create again": Case("create test", RUNS, abis=MAINLINE),
    "set_id": Case("set_id test 5", JOINS),
    "start, first": Case("start test 1 0 1", JOINS),
    "start, first of three": Case(
        "start test 1 0 1 2 3",
        JOIN_ALL,
        (*everywhere("start test 1 0 1 2 3", nodes=BC),),
        THREE,
        locks=True,
    ),
    "start, later": Case("start test 2 0 1", STOPPED),
    "start without one": Case(
        "start test 2 0 1 2",
        (*RUN_ALL, "nodec: crash", *everywhere("stop test", nodes=AB)),
        ("nodeb: start test 2 0 1 2",),
        AB,
        locks=True,
    ),
    "start with one that was missed": Case(
        "start test 3 0 1 2 3",
        WITHOUT_C,
        ("nodeb: start test 3 0 1 2 3", "nodec: start test 3 0 1 2 3"),
        THREE,
        locks=True,
    ),
    "start with one that nobody missed": Case(
        "start test 2 0 1 2 3 --rejoined 3",
        (*RUN_ALL, *C_IS_BACK, *everywhere("stop test", nodes=AB)),
        ("nodeb: start test 2 0 1 2 3 --rejoined 3", "nodec: start test 2 0 1 2 3"),
        THREE,
        locks=True,
    ),
    "stop": Case("stop test", RUNS),
    "stop in a recovery": Case("stop test", (*JOIN_ALL, "start test 1 0 1 2 3"), (), THREE),
    "get_done": Case("get_done test", RUNS, reads=True),
    "poll_done": Case("poll_done test 1", RUNS, reads=True),
    "finish": Case("finish test 1", RUNS[:-1]),
    "terminate a join": Case("terminate test", JOINS),
    "terminate a leave": Case("terminate test", (*RUNS, "release test --no-answer")),
    "release": Case("release test", RUNS),
    "release, stopped": Case("release test", STOPPED),
    "release without answer": Case("release test --no-answer", RUNS),
    "control 0": Case("control test 0", RUNS, abis=JULY),
    "control 1": Case("control test 1", (*STOPPED, "members test 1"), abis=JULY),
    "event_done": Case("event_done test 0", RUNS, abis=JULY),
    "members": Case("members test 1", STOPPED, abis=JULY),
}
GRID = [
    pytest.param(case, abi, id=f"{name}-{abi}")
    for name, case in CASES.items()
    for abi in case.abis
    if not (abi != "configfs" and "," in case.line.split("--")[0])
]


class World:
    """A cluster in which ``given`` was done, and what is seen of it."""

    def __init__(self, case: Case, abi: str) -> None:
        self.case = case
        self.shell = Shell(*(THREE if len(case.nodes) > 1 else case.nodes), abi=abi)
        self.do(case.given)

    def do(self, lines: tuple[str, ...]) -> None:
        """Run lines, each on its node; every one must succeed."""
        for each in lines:
            node, line = each.split(": ") if ": " in each else ("nodea", each)
            if line == "crash":
                self.shell.cluster.crash(node)
                self.shell.cluster.restart(node)
            else:
                self.shell.do(line, node=node)
            self.shell.cluster.settle()

    def kill(self, at: int, *, after: bool) -> list[str]:
        """Run the line; kill it at its ``at``-th change (0: not at all). Return its changes."""
        process = self.shell.cluster.node("nodea").process()
        doomed = Doomed(process, at, after=after, die=process.close)
        out = io.StringIO()
        try:
            code = main(shlex.split(self.case.line), backend=doomed, stdout=out, stderr=out)
        except KilledError:
            assert at
        else:
            assert not at
            assert code == 0, out.getvalue()
        process.close()
        self.shell.cluster.settle()
        return doomed.changes

    def seen(self) -> dict[str, object]:
        """Return all that is seen on nodea, hints apart."""
        looked = json.loads(self.shell.run("ls --json").out)
        for each in (looked, *looked["lockspaces"]):
            each.pop("hints")
        tree = self.shell.tree()
        for path in tree:  # when a resource was last used, in jiffies
            if path.endswith("_toss"):
                tree[path] = re.sub(r"\b4294\d{6}\b", "then", tree[path])
        process = self.shell.cluster.node("nodea").process()
        nodes = Control(process).snapshot().nodes  # weights, which the next start writes
        process.close()
        return {**tree, "ls": looked, "nodes": nodes}

    def hints(self) -> list[str]:
        """Return the commands that ls gives on nodea, without the program's name."""
        text = self.shell.run("ls").out
        return re.findall(r"dlm_tool (.*?)(?:, then|$)", text, re.MULTILINE)

    def finish(self) -> dict[str, object]:
        """Return what is seen in the end, when locks have gone between all nodes."""
        if self.case.locks:
            self.lock_everywhere()
        return self.seen()

    def lock_everywhere(self) -> None:
        """Take a lock on every node, and drop it: messages go between all of them."""
        number = self.case.line.split()[2]
        for node in self.case.nodes:
            self.shell.do(f"poll_done test {number} --timeout 60", node=node)
            self.shell.do(f"finish test {number}", node=node)
        for node in self.case.nodes:
            ran = self.shell.run(f"lock test of-{node} EX --timeout 60", node)
            assert ran.code == 0, ran
            self.shell.do(f"unlock test {ran.out.split()[-1]}", node=node)

    def again(self) -> Ran:
        """Give the line once more."""
        ran = self.shell.run(f"{self.case.line} --timeout 60")
        self.shell.cluster.settle()
        return ran


Point = tuple[int, bool]


def points(case: Case, abi: str) -> list[Point]:
    """Return every point at which the line can be killed, from a run to its end."""
    changes = World(case, abi).kill(0, after=False)
    assert bool(changes) is not case.reads
    return [(at, after) for at in range(1, len(changes) + 1) for after in (False, True)]


def at_each_point(case: Case, abi: str, check: Callable[[World, str], None]) -> None:
    """Kill the line at each point, in a world of its own, and check what comes after."""
    for at, after in points(case, abi):
        world = World(case, abi)
        changes = world.kill(at, after=after)
        check(world, f"killed {'after' if after else 'before'} {at}: {changes[-1]}")


@pytest.mark.parametrize(("case", "abi"), GRID)
def test_ls_explains_what_was_interrupted(case: Case, abi: str) -> None:
    """Where ls says nothing to go on with, the state is that before the verb, or that after it."""
    before, after = World(case, abi), World(case, abi)
    after.kill(0, after=False)
    wholes = [before.seen(), after.seen()]
    usual = set(before.hints())
    assert case.line not in after.hints()

    def check(world: World, point: str) -> None:
        if not set(world.hints()) - usual:
            assert world.seen() in wholes, point

    at_each_point(case, abi, check)


@pytest.mark.parametrize(("case", "abi"), GRID)
def test_the_same_line_again_finishes_it(case: Case, abi: str) -> None:
    """In the end all is as after a run that nobody interrupted, or the line was through already."""
    whole = World(case, abi)
    whole.kill(0, after=False)
    whole.do(case.others)
    expected = whole.finish()

    def check(world: World, point: str) -> None:
        world.do(case.others)
        ran = world.again()
        assert ran.code in {0, 1}, (point, ran)
        assert world.finish() == expected, (point, ran)
        assert not set(world.hints()) - set(whole.hints()), point

    at_each_point(case, abi, check)


@pytest.mark.parametrize(("case", "abi"), GRID)
def test_what_ls_says_finishes_it_or_leaves_the_line_to_be_given_again(
    case: Case, abi: str
) -> None:
    """The commands of ls, as they stand there, until it has none; then the line if need be."""
    whole = World(case, abi)
    whole.kill(0, after=False)
    usual = set(whole.hints())
    whole.do(case.others)
    expected = whole.finish()

    def check(world: World, point: str) -> None:
        world.do(case.others)
        for _ in range(4):
            commands = [each for each in world.hints() if each not in usual]
            if not commands:
                break
            for each in commands:
                ran = world.shell.run(f"{each} --timeout 60")
                assert ran.code == 0, (point, each, ran)
                world.shell.cluster.settle()
        assert not set(world.hints()) - usual, point
        if world.seen() != expected:
            world.again()
            assert world.finish() == expected, point

    at_each_point(case, abi, check)


# ---- what is undone, and what no kernel shows ---------------------------------------------------


@pytest.mark.parametrize("abi", ["configfs", "event", "members"])
def test_terminate_undoes_a_first_start_at_any_point(abi: str) -> None:
    """While the join waits: the create fails, and nothing of the lockspace stays."""
    case = Case("start test 1 0 1 2 3", JOIN_ALL, nodes=THREE)

    def check(world: World, point: str) -> None:
        if '"joining"' not in world.shell.run("ls --json").out:
            return  # the answer was written: now it can only be released
        ran = world.shell.run("terminate test")
        if ran.code and not world.hints():  # all was done but the end of the tool
            assert "the join of test was answered already (EALREADY)" in ran.err, point
            return
        if ran.code:  # whether the answer was written, nothing shows
            assert ran.err.endswith(
                "the join of test was answered already, or was about to be (EALREADY); give the "
                "start again, or use --force\n"
            )
            world.shell.do("terminate test --force")
        world.shell.cluster.settle()
        gone = "dlm/test" not in world.shell.tree()
        assert gone or re.search("after .*event_done|: remember", point), point
        assert not (gone and world.hints()), point

    at_each_point(case, abi, check)


def test_an_interrupted_release_that_was_not_the_last_says_what_it_may_have_done() -> None:
    """No kernel shows the number of users: to release again may be one time too many."""
    case = Case("release test", (*RUNS, "create test"))
    world = World(case, "configfs")
    changes = world.kill(2, after=True)
    assert changes[-1] == "write dlm-control"
    assert world.shell.run("ls").out.splitlines()[-1] == (
        "release test was begun and has not ended; unless it still goes on, or had other users and"
        " has lost one: dlm_tool release test"
    )


def test_a_second_create_of_a_lockspace_that_joins_is_refused() -> None:
    """It would sleep behind the first one, and make a second user that nobody meant."""
    world = World(CASES["set_id"], "configfs")
    assert world.shell.run("create test") == Ran(
        1,
        "",
        "dlm_tool: create test: refused, lockspace test is there and still joins (EBUSY); start it,"
        " or end the join: dlm_tool terminate\n",
    )


# ---- left behind --------------------------------------------------------------------------------


def left_behind(shell: Shell) -> None:
    """Have somebody else join and start a lockspace, who then goes away without a word."""
    shell.set_up()
    shell.do("create test")
    process = shell.cluster.node("nodea").process()
    process.make_directory("config/dlm/cluster/spaces/test")
    process.make_directory("config/dlm/cluster/spaces/test/nodes/1")
    process.write_attribute("config/dlm/cluster/spaces/test/nodes/1/nodeid", b"1")
    process.write_attribute("dlm/test/control", b"1")
    process.write_attribute("dlm/test/event_done", b"0")
    process.close()
    shell.cluster.settle()


def last_line(shell: Shell) -> str:
    """Return the last line of ls."""
    return shell.run("ls").out.splitlines()[-1]


def test_a_lockspace_of_a_controller_that_is_gone_is_shown_as_left_behind() -> None:
    """While the controller is there nothing is said; afterwards, how to be rid of it."""
    shell = Shell("nodea")
    left_behind(shell)
    shell.cluster.node("nodea").controller = "dlm_controld"
    assert last_line(shell).split()[0] == "test"
    shell.cluster.node("nodea").controller = None
    assert last_line(shell) == (
        "test was left behind: somebody else has joined and started it, and nobody is seen to "
        "control it now; to take it over, stop test, then start test 1 0 1; to remove it with its "
        "locks: dlm_tool release test"
    )
    shell.do("release test")
    assert shell.run("ls") == Ran(0, "", "")


def test_a_lockspace_that_was_left_behind_can_be_taken_over() -> None:
    """From then on it is like any other."""
    shell = Shell("nodea")
    left_behind(shell)
    shell.do("stop test", "start test 1 0 1", "poll_done test 1")
    assert last_line(shell).split()[3:6] == ["running", "1", "1"]


def test_a_lockspace_that_the_kernel_stopped_when_its_manager_died_is_explained() -> None:
    """Whoever held dlm-monitor has gone: the commands start it again."""
    shell = Shell("nodea")
    shell.start()
    manager = shell.cluster.node("nodea").process()
    manager.open_device("dlm-monitor")
    manager.close()
    shell.cluster.settle()
    assert last_line(shell) == (
        "test is stopped, though start 1 was made here: somebody else has stopped it, or its "
        "controller died and the kernel did, or recovery is about to begin: dlm_tool stop test, "
        "then dlm_tool start test 2 0 1"
    )
    shell.do("stop test", "start test 2 0 1", "poll_done test 2")
    assert last_line(shell).split()[3:6] == ["running", "2", "2"]


def test_lockspaces_without_any_node_are_explained() -> None:
    """A dlm_controld that ends takes all nodes along, not the lockspaces: no start without one."""
    shell = Shell("nodea")
    shell.start()
    process = shell.cluster.node("nodea").process()
    for directory in ("spaces/test/nodes/1", "spaces/test", "comms/1"):
        process.remove_directory(f"config/dlm/cluster/{directory}")
    process.remove_directory("config/dlm/cluster")
    assert "no node was set as this one: dlm_tool set_local <nodeid> <ipaddr>" in (
        shell.run("ls").out.splitlines()
    )
    shell.do("stop test", "set_local 1 10.0.0.1", "start test 2 0 1", "poll_done test 2")
    assert last_line(shell).split()[3:6] == ["running", "2", "2"]


def test_hints_are_in_the_json_of_ls_too() -> None:
    """Of the nodes on the outside, of a lockspace with it."""
    shell = Shell("nodea")
    shell.do("set_node 1 10.0.0.1")
    looked = json.loads(shell.run("ls --json").out)
    assert looked["hints"] == [
        {"text": "no node was set as this one", "commands": ["set_local <nodeid> <ipaddr>"]}
    ]
    left_behind(shell)
    (lockspace,) = json.loads(shell.run("ls --json").out)["lockspaces"]
    assert [hint["commands"] for hint in lockspace["hints"]] == [["release test"]]
