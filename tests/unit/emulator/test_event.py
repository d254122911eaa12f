"""The recovery thread of April 2005 as tables, and small parts that only 2005 has."""

from __future__ import annotations

import itertools

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.node2005 import NodeRequest
from dlm.emulator import Cluster
from dlm.emulator.event import (
    AFTER_RECOVERY,
    AFTER_STOP,
    FINISHABLE,
    MOVES,
    Action,
    Events,
    Phase,
)
from dlm.emulator.module2005 import Mutex
from dlm.emulator.node_ioctl import NodeTable
from dlm.emulator.pending import Body, Sleepers
from dlm.emulator.scheduler import Scheduler

LIVE = [(5, (1,))]


def events(
    stop: bool, start: bool, finish: bool, starts: list[tuple[int, tuple[int, ...]]]
) -> Events:
    """Return a lockspace's events after a first start that was finished, with these flags."""
    return Events(3, 5, 3, 3, stop, start, finish, list(starts))


@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=3)))
def test_every_combination_of_events_has_a_move(flags: tuple[bool, bool, bool]) -> None:
    """The flags are read and cleared, and a start that no stop has overtaken decides."""
    for starts, expected in zip((LIVE, []), MOVES[flags], strict=True):
        both = events(*flags, starts)
        assert both.next_move() is expected
        assert (both.stop, both.start, both.finish) == (False, False, False)


def test_a_stop_alone_never_starts_and_a_finish_alone_never_stops() -> None:
    """What has not come is not done."""
    for (stop, start, finish), moves in MOVES.items():
        for move in moves:
            assert move is not Action.START or start
            assert move is not Action.STOP or stop
            assert move is not Action.FINISH or finish


def test_a_start_that_a_stop_has_overtaken_is_dropped() -> None:
    """Its number is not above the last stop's."""
    both = Events(6, 6, 3, 3, stop=True, start=True, starts=[(5, (1,)), (6, (1,))])
    assert both.next_move() is Action.STOP
    assert both.starts == []


def test_the_first_start_is_forgotten_when_it_was_stopped_before_its_finish() -> None:
    """Numbers are 0 again, queued starts are gone; after a finish nothing is forgotten."""
    both = Events(1, 1, 0, 1, stop=True, starts=[(1, (1,))])
    assert both.next_move() is Action.STOP
    assert (both.last_start, both.last_stop, both.done, both.starts) == (0, 0, 1, [])
    both = Events(1, 1, 1, 1, stop=True)
    both.next_move()
    assert (both.last_start, both.last_stop) == (1, 1)


def test_a_finish_is_for_a_recovery_that_has_just_succeeded() -> None:
    """The states after success are those in which it counts; a stop leads out of them."""
    assert set(AFTER_RECOVERY.values()) == FINISHABLE
    assert not FINISHABLE & set(AFTER_STOP.values())
    assert (AFTER_STOP[Phase.INIT], AFTER_RECOVERY[Phase.INIT]) == (Phase.INIT, Phase.INIT_DONE)


# ---- the table of nodes -------------------------------------------------------------------------


def test_the_table_of_nodes_keeps_what_was_said_last() -> None:
    """Weight and address of a node are overwritten, its address filed under its id."""
    filed: list[tuple[int, bytes]] = []
    table = NodeTable(lambda *said: filed.append(said), print, drops_repeated=True)
    for weight, address in ((1, "10.0.0.1"), (2, "10.0.0.2")):
        table.set_node(NodeRequest(7, weight, encode_sockaddr(address)))
    assert table.weights == {7: 2}
    assert filed == [(7, encode_sockaddr("10.0.0.1")), (7, encode_sockaddr("10.0.0.2"))]


def test_local_addresses_of_an_unknown_family_have_no_text() -> None:
    """They take a place all the same."""
    table = NodeTable(lambda *_: None, print, drops_repeated=False)
    table.set_local(NodeRequest(1, 0, b"\xff" * 128))
    table.set_local(NodeRequest(2, 0, encode_sockaddr("fe80::1")))
    assert (table.local_nodeid, table.local_addresses) == (2, ("", "fe80::1"))


# ---- mutexes ------------------------------------------------------------------------------------


def test_a_mutex_is_passed_on_in_order() -> None:
    """Who came first goes first, and nobody does anything before it is his turn."""
    scheduler = Scheduler()
    sleepers = Sleepers(scheduler)
    mutex = Mutex(sleepers.wake)
    order: list[str] = []
    doors = {"a": False, "b": True}

    def body(name: str) -> Body:
        order.append(f"{name} in")
        yield lambda: doors[name]
        order.append(f"{name} out")

    for name in doors:
        sleepers.begin(mutex.hold(lambda name=name: body(name)), name)  # type: ignore[misc]
    assert (order, mutex.free) == (["a in"], False)
    doors["a"] = True
    sleepers.wake()
    scheduler.settle()
    assert (order, mutex.free) == (["a in", "a out", "b in", "b out"], True)


# ---- the module ---------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ["event", "members"])
def test_a_node_of_2005_has_no_configfs(abi: str) -> None:
    """``config`` holds nothing, ``dlm`` is there, and the devices are those two."""
    cluster = Cluster({"nodea": "10.0.0.1"}, abi=abi)
    process = cluster.node("nodea").process()
    assert process.list_directory("config") == []
    assert process.list_directory("dlm") == []
    assert process.misc_devices() == {"dlm-control": 62, "dlm-node": 63}


def test_unloading_the_module_forgets_the_nodes() -> None:
    """It is the only way to take a SET_LOCAL back; an open device holds the module."""
    cluster = Cluster({"nodea": "10.0.0.1"}, abi="event")
    node = cluster.node("nodea")
    module = node.boot.module
    file = node.process().open_device("dlm-node")
    with pytest.raises(BlockingIOError):
        node.unload_module()
    file.close()
    node.unload_module()
    node.load_module()
    assert node.boot.module is not module
    assert node.process().misc_devices() == {"dlm-control": 62, "dlm-node": 63}
