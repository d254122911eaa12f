"""What is remembered beside the kernel, and how it is held against what the kernel shows."""

from __future__ import annotations

import pytest

from dlm.control.runner import run
from dlm.control.seen import Phase, Seen
from dlm.control.state import (
    NODES,
    LockspaceState,
    NodeState,
    contradictions,
    recall,
    recall_nodes,
    remember,
    remember_nodes,
)
from tests.unit.control.world import World

RUNNING = Seen("test", 7, 121, 0xFF, Phase.RUNNING)
STOPPED = Seen("test", 7, 121, 0, Phase.STOPPED)
JOINING = Seen("test", 7, None, 0, Phase.JOINING)
STARTED = LockspaceState(3, 2, False, ((1, 10), (2, 20)), True, False)


def test_what_was_remembered_comes_back() -> None:
    """All fields, through the state directory's text."""
    world = World("nodea")
    run(remember(RUNNING, STARTED), world.processes["nodea"])
    assert run(recall(RUNNING), world.processes["nodea"]) == STARTED


def test_a_verb_that_has_not_ended_comes_back() -> None:
    """With its arguments; and what a node is being set to."""
    world = World("nodea")
    process = world.processes["nodea"]
    doing = STARTED.replace(unsure=True, leaving=True, doing="start test 4 0 1 2 --rejoined 2")
    run(remember(RUNNING, doing), process)
    assert run(recall(RUNNING), process) == doing
    nodes = {
        1: NodeState(2, 7, "set_local", True, ("10.0.0.1", "fd00::1")),
        2: NodeState(1, 8, "set_node", False, ("10.0.0.2",)),
        3: NodeState(4, 9),
    }
    run(remember_nodes(nodes), process)
    assert run(recall_nodes(), process) == nodes


def test_another_life_remembers_nothing() -> None:
    """Another inode is another lockspace of the same name, and so is another boot."""
    world = World("nodea")
    run(remember(RUNNING, STARTED), world.processes["nodea"])
    other = RUNNING.replace(inode=8)
    assert run(recall(other), world.processes["nodea"]) == LockspaceState()
    world.crash("nodea")
    world.set_up("nodea")
    assert run(recall(RUNNING), world.processes["nodea"]) == LockspaceState()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"life x\n", b"start 3\nlife "])
def test_a_file_that_makes_no_sense_is_no_memory(content: bytes) -> None:
    """Whatever is in the file: it is only ever a hint."""
    world = World("nodea")
    directory = world.processes["nodea"].state_directory()
    directory.write("lockspace-test", content + directory.boot_id().encode() + b" 7\n")
    assert run(recall(RUNNING), world.processes["nodea"]) == LockspaceState()


@pytest.mark.parametrize(
    ("state", "seen", "members", "found"),
    [
        (STARTED, RUNNING, [1, 2], None),
        (STARTED.replace(stopped=True), STOPPED, [1], None),
        (LockspaceState(), JOINING, None, None),
        (LockspaceState(), RUNNING, None, "test was started by somebody else"),
        (LockspaceState(), STOPPED, None, "the join of test was answered by somebody else"),
        (STARTED.replace(stopped=True), RUNNING, None, "somebody else has started it since"),
        (STARTED.replace(leave_answered=True), RUNNING, None, "was answered, and yet it runs"),
        (STARTED, RUNNING, [1], "has members 1 now, started with 1,2"),
    ],
)
def test_contradictions_are_said(
    state: LockspaceState, seen: Seen, members: list[int] | None, found: str | None
) -> None:
    """What cannot both be; and nothing where all is well."""
    said = contradictions(state, seen, members)
    assert len(said) == (found is not None)
    assert found is None or found in said[0]


def test_a_start_by_somebody_else_is_reported_and_its_number_not_made_up() -> None:
    """A raw write to control after our stop: the last start seen done stays what it was."""
    world = World("nodea")
    world.start(4)
    world.stop()
    world.processes["nodea"].write_attribute("dlm/test/control", b"1")
    world.cluster.settle()
    assert world.control("nodea").lockspace("test").get_done() == 4
    assert world.notes == ["test was stopped here, and somebody else has started it since"]
    (view,) = world.control("nodea").snapshot().lockspaces
    assert view.contradictions == tuple(world.notes)


def test_a_start_by_somebody_else_does_not_make_ours_done() -> None:
    """Start 5 never was done; what is done now was started by a raw write."""
    world = World("nodea", "nodeb")
    world.start(4)
    world.stop()
    world.cluster.crash("nodeb")
    space = world.control("nodea").lockspace("test")
    space.start(5, [1, 2])
    space.stop()
    world.processes["nodea"].remove_directory("config/dlm/cluster/spaces/test/nodes/2")
    world.processes["nodea"].write_attribute("dlm/test/control", b"1")
    world.cluster.settle()
    assert world.text("nodea", "dlm/test/recover_status") == "ff\n"
    assert space.get_done() == 4


def test_weights_of_another_boot_are_not_remembered() -> None:
    """A state directory may outlive a boot; what configfs held does not."""
    world = World("nodea")
    process = world.processes["nodea"]
    process.state_directory().write(NODES, b"boot another\n1 7 0\n")
    assert run(recall_nodes(), process) == {}


def test_the_last_start_seen_done_survives_a_stop_and_a_start_that_is_not_done() -> None:
    """The stop looks before it writes; the kernel itself shows 0 afterwards."""
    world = World("nodea", "nodeb")
    world.start(3)
    world.stop()
    space = world.control("nodea").lockspace("test")
    assert space.get_done() == 3
    world.cluster.crash("nodeb")
    space.start(4, [1, 2])
    world.cluster.advance(5)
    assert space.get_done() == 3


def test_a_release_leaves_nothing_to_remember() -> None:
    """The next lockspace of the name begins at event number 1."""
    world = World("nodea")
    world.start(9)
    world.control("nodea").lockspace("test").release()
    assert world.processes["nodea"].state_directory().read("lockspace-test") is None
    world.start(1)
    assert world.control("nodea").lockspace("test").get_done() == 1


def test_weights_reach_the_members_of_the_next_start() -> None:
    """set_node keeps them; without one a node counts 1, and a new comm begins anew."""
    world = World("nodea", "nodeb")
    control = world.control("nodea")
    control.set_node(2, "10.0.0.2", weight=5)
    world.start()
    nodes = "config/dlm/cluster/spaces/test/nodes"
    assert world.text("nodea", f"{nodes}/1/weight") == "1\n"
    assert world.text("nodea", f"{nodes}/2/weight") == "5\n"
    control.set_node(2, "10.0.0.2", weight=0)
    control.set_node(2, "10.0.0.2")
    world.stop()
    world.start(2)
    assert world.text("nodea", f"{nodes}/2/weight") == "0\n"
