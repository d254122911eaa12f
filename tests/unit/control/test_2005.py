"""The verbs on the kernels of 2005: the 18 steps, every write, what they do not show."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

import pytest

from dlm.control import Join, Leave, Phase
from dlm.control import aio as control_aio
from dlm.control.common import dialect, find
from dlm.control.dry import Record, dry_run
from dlm.control.life import create, release, terminate
from dlm.control.nodes import set_local, set_node
from dlm.control.plan import Plan
from dlm.control.reasons import CheckError, Reason
from dlm.control.recovery import finish, start, stop
from dlm.control.runner import run
from dlm.control.state import update
from dlm.emulator.aio import run as run_virtual
from dlm.errors import RefusedError
from tests.unit.control.world import ADDRESSES, IDS, World

ABIS = ("event", "members")
ALL = ("configfs", *ABIS)
TEST = "/sys/kernel/dlm/test"
SURVIVORS = ("nodeb", "nodec")


def lines(plan: Plan[object], world: World, name: str = "nodea") -> list[str]:
    """Return what a dry run of a plan says."""
    said: list[str] = []

    def tell(line: str, _record: Record) -> None:
        said.append(line)

    dry_run(plan, world.processes[name], tell=tell)
    return said


def running(abi: str, *names: str) -> World:
    """Return a world whose lockspace ``test`` runs and is finished on these nodes."""
    world = World(*names or ("nodea",), abi=abi)
    world.start()
    for name in world.names:
        world.control(name).lockspace("test").finish(1)
    world.cluster.settle()
    return world


def phase(world: World, name: str = "nodea") -> Phase:
    """Return the phase of the only lockspace of a node."""
    (view,) = world.control(name).snapshot().lockspaces
    return view.phase


# ---- the usage document -------------------------------------------------------------------------


Do = Callable[..., object]
"""Performs a verb: node, verb, its arguments; returns its result."""


def _blocking(world: World) -> Do:
    def do(name: str, verb: str, *given: object, **named: object) -> object:
        control = world.control(name)
        owner = control if verb in NODE_VERBS else control.lockspace("test")
        return getattr(owner, verb)(*given, **named)

    return do


def _asyncio(world: World) -> Do:
    def do(name: str, verb: str, *given: object, **named: object) -> object:
        async def main() -> object:
            process = world.processes[name]
            control = control_aio.Control(process, timeout=30, tell=world.notes.append)
            owner = control if verb in NODE_VERBS else control.lockspace("test")
            return await getattr(owner, verb)(*given, **named)

        return run_virtual(main(), world.cluster)

    return do


NODE_VERBS = ("set_local", "set_node")

LET_GO = 400.0
"""Seconds that a release is given where nobody starts the other nodes without the one that leaves:
on mainline each of them is waited for, up to 3 minutes."""


@pytest.mark.parametrize("abi", ALL)
@pytest.mark.parametrize("face", [_blocking, _asyncio])
def test_the_18_steps(abi: str, face: Callable[[World], Do]) -> None:
    """The same calls, the same results in each dialect; nothing is noted on the way."""
    world = World(*ADDRESSES, abi=abi)
    do = face(world)

    def configure(name: str) -> None:
        do(name, "set_local", IDS[name], ADDRESSES[name])
        for other, address in ADDRESSES.items():
            do(name, "set_node", IDS[other], address)

    def recover(numbers: dict[str, int], members: list[int]) -> None:
        for name, number in numbers.items():
            do(name, "start", number, members)
        for name, number in numbers.items():
            assert do(name, "wait_done", number) == number
        for name, number in numbers.items():
            do(name, "finish", number)
        world.cluster.settle()
        assert {phase(world, name) for name in numbers} == {Phase.RUNNING}

    for name in ADDRESSES:
        configure(name)
        do(name, "create")
    recover(dict.fromkeys(ADDRESSES, 1), [1, 2, 3])
    world.cluster.crash("nodea")
    for name in SURVIVORS:
        do(name, "stop")
        assert do(name, "get_done") == 1
    recover(dict.fromkeys(SURVIVORS, 2), [2, 3])
    world.cluster.restart("nodea")
    world.processes["nodea"] = world.cluster.node("nodea").process()
    with pytest.raises(CheckError) as caught:
        do("nodea", "create")
    assert caught.value.reason is Reason.NO_LOCAL_NODE
    configure("nodea")
    do("nodea", "create")
    for name in SURVIVORS:
        do(name, "stop")
    recover({"nodea": 1, "nodeb": 3, "nodec": 3}, [1, 2, 3])
    for name in ADDRESSES:
        do(name, "release", timeout=LET_GO)
    world.cluster.check()
    assert world.notes == []


# ---- every write --------------------------------------------------------------------------------

STOP = {"event": f"write {TEST}/stop 1", "members": f"write {TEST}/control 0"}
START = {"event": f"write {TEST}/start 2", "members": f"write {TEST}/control 1"}
LEAVE = {"event": f"write {TEST}/terminate 1", "members": f"write {TEST}/event_done 0"}
ABORT = {"event": f"write {TEST}/terminate 1", "members": f"write {TEST}/event_done -125"}
JOIN = {
    "event": [f"write {TEST}/members 1", f"write {TEST}/start 1"],
    "members": [f"write {TEST}/members 1", f"write {TEST}/control 1", f"write {TEST}/event_done 0"],
}


@pytest.mark.parametrize("abi", ABIS)
def test_the_writes_of_each_verb(abi: str) -> None:
    """In their order: members first, then the start, in July the answer to the join last."""
    world = World("nodea", abi=abi)
    assert lines(create("test"), world) == [
        "write dlm-control CREATE_LOCKSPACE test",
        f"wait until {TEST} is there",
    ]
    world.control("nodea").lockspace("test").create()
    assert lines(start("test", 1, [1]), world) == JOIN[abi]
    assert lines(terminate("test"), world) == [ABORT[abi]]
    world = running(abi, "nodea", "nodeb")
    assert lines(stop("test"), world) == [STOP[abi]]
    assert lines(finish("test", 1), world) == []
    assert lines(release("test"), world) == [
        "write dlm-control REMOVE_LOCKSPACE test FORCEFREE",
        "wait until test leaves",
        LEAVE[abi],
        "wait for every open file on dlm_test to be closed, and other nodes to let go",
    ]
    world.stop("nodea")
    assert lines(start("test", 2, [1, 2]), world) == [f"write {TEST}/members 1 2", START[abi]]


def test_april_is_finished_by_a_write_and_july_by_none() -> None:
    """In April locking is off until then."""
    for abi, written in (("event", [f"write {TEST}/finish 1"]), ("members", [])):
        world = World("nodea", abi=abi)
        world.start()
        assert lines(finish("test", 1), world) == written


@pytest.mark.parametrize("abi", ABIS)
def test_nodes_are_set_by_ioctl_with_their_weight(abi: str) -> None:
    """SET_LOCAL appends: what is known is not said again. SET_NODE may be said again, and is."""
    world = World("nodea", "nodeb", abi=abi)
    assert lines(set_local(1, "10.0.0.1"), world) == []
    assert lines(set_local(1, ["10.0.0.1", "10.0.1.1"], 4), world) == [
        "ioctl dlm-node SET_LOCAL 1 10.0.1.1 weight 4"
    ]
    again = "ioctl dlm-node SET_NODE 2 10.0.0.2 weight"
    assert lines(set_node(2, "10.0.0.2"), world) == [f"{again} 1"]
    world.control("nodea").set_node(2, "10.0.0.2", weight=3)
    assert lines(set_node(2, "10.0.0.2"), world) == [f"{again} 3"]
    assert lines(set_node(3, "fd00::3", 0), world) == ["ioctl dlm-node SET_NODE 3 fd00::3 weight 0"]


def test_a_dry_ioctl_is_a_line_of_a_trace() -> None:
    """Request and argument in hexadecimal: 276 bytes that begin with the version 1.0.0."""
    world = World("nodea", abi="event")
    records: list[Record] = []
    dry_run(
        set_node(2, "10.0.0.2", 5),
        world.processes["nodea"],
        tell=lambda _, line: records.append(line),
    )
    (record,) = records
    assert (record["do"], record["fd"], record["request"]) == ("ioctl", "dlm-node", "c114d101")
    words = "01000000" + "00000000" * 2 + "02000000" + "05000000"
    assert record["hex"].startswith(words + "0200" + "0000" + "0a000002")
    assert len(record["hex"]) == 2 * 276


# ---- what is chosen -----------------------------------------------------------------------------


@pytest.mark.parametrize(("abi", "device"), [("configfs", 6), ("event", 3), ("members", 3)])
def test_the_dialect_is_what_the_node_shows(abi: str, device: int) -> None:
    """Without a lockspace, too: dlm-node is there or not."""
    world = World("nodea", abi=abi)
    assert run(dialect.lock_device(), world.processes["nodea"]) == device


@pytest.mark.parametrize("abi", ALL)
def test_a_run_finds_out_once(abi: str) -> None:
    """Every question of a verb goes to the same dialect; only the first one costs a look."""
    world = running(abi)
    asked: list[str] = []
    process = world.processes["nodea"]

    class Counting:
        def __getattr__(self, name: str) -> object:
            if name == "misc_devices":
                asked.append(name)
            return getattr(process, name)

    plan = finish("test", 1)
    run(plan, Counting())  # type: ignore[arg-type]
    looks = {"configfs": 1, "event": 1, "members": 1}[abi]
    assert len(asked) == 1 + looks


# ---- members ------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
def test_a_refused_start_leaves_no_list_behind(abi: str) -> None:
    """The list of a refused start would stay, and no other be taken: all checks come before."""
    world = running(abi, "nodea", "nodeb")
    space = world.control("nodea").lockspace("test")
    refusals = [(2, [1, 2])]
    world.stop()
    refusals += [(1, [1, 2]), (2, [2]), (2, [1, 9])]
    for event_nr, members in refusals[1:]:
        with pytest.raises(CheckError):
            space.start(event_nr, members)
    space.start(2, [1, 2])
    with pytest.raises(CheckError):
        space.start(3, [1, 2])  # the recovery goes on: nodeb is away
    space.stop()
    space.start(3, [1])
    assert space.wait_done(3) == 3


@pytest.mark.parametrize("abi", ABIS)
def test_a_list_that_somebody_left_is_the_kernels_einval_and_nothing_was_written(abi: str) -> None:
    """Only a start takes it: the caller is told, and nothing is remembered of this one."""
    world = running(abi)
    world.stop()
    world.processes["nodea"].write_attribute("dlm/test/members", b"1 2")
    with pytest.raises(RefusedError, match="members 1: Invalid") as caught:
        world.control("nodea").lockspace("test").start(2, [1])
    assert (caught.value.errno, caught.value.written) == (errno.EINVAL, ())
    assert world.control("nodea").snapshot().lockspaces[0].last_start == 1


@pytest.mark.parametrize("abi", ABIS)
def test_members_are_shown_also_while_locking_is_off(abi: str) -> None:
    """The kernel's list is EBUSY then; the last start's is remembered."""
    world = running(abi, "nodea", "nodeb")
    world.stop()
    (view,) = world.control("nodea").snapshot().lockspaces
    assert (view.phase, view.members) == (Phase.STOPPED, ((1, 1), (2, 1)))
    assert view.contradictions == ()


# ---- numbers and phases -------------------------------------------------------------------------


def test_april_keeps_the_numbers_itself() -> None:
    """What somebody else started is known by its number, and believed; finish goes by it."""
    world = World("nodea", abi="event")
    process, space = world.processes["nodea"], world.control("nodea").lockspace("test")
    space.create()
    process.write_attribute("dlm/test/members", b"1")
    process.write_attribute("dlm/test/start", b"7")
    world.cluster.settle()
    assert space.get_done() == 7
    (view,) = world.control("nodea").snapshot().lockspaces
    assert (view.phase, view.last_start, view.waits_for) == (Phase.RECOVERING, 7, "finish")
    space.finish(7)
    assert phase(world) is Phase.RUNNING
    space.stop()
    with pytest.raises(CheckError, match="event 7 is not above the last start 7"):
        space.start(7, [1])
    assert process.read_attribute("dlm/test/finish") == b"7\n"


def test_april_is_never_told_what_was_a_panic() -> None:
    """A finish that comes again, or after a stop, is never written."""
    world = running("event")
    space = world.control("nodea").lockspace("test")
    space.finish(1)
    space.stop()
    space.start(2, [1])
    space.wait_done(2)
    space.stop()
    space.finish(2)
    assert world.text("nodea", "dlm/test/finish") == "1\n"
    assert world.notes == ["test was stopped after start 2: it needs no finish any more"]
    assert not [line for line in world.cluster.node("nodea").log() if "finish" in line]


def test_july_tells_a_start_of_somebody_else_as_a_contradiction() -> None:
    """It keeps no number: the state is shown, the number is not known."""
    world = World("nodea", abi="members")
    process, space = world.processes["nodea"], world.control("nodea").lockspace("test")
    space.create()
    process.write_attribute("dlm/test/members", b"1")
    process.write_attribute("dlm/test/control", b"1")
    process.write_attribute("dlm/test/event_done", b"0")
    world.cluster.settle()
    assert space.get_done() == 0
    (view,) = world.control("nodea").snapshot().lockspaces
    assert view.phase is Phase.RUNNING
    assert view.contradictions == (
        "test was started by somebody else: the number of that start is not known",
    )


@pytest.mark.parametrize("abi", ABIS)
def test_phases_of_a_life(abi: str) -> None:
    """Joining, recovering while a member is away, running, stopped, leaving."""
    world = World("nodea", "nodeb", abi=abi)
    spaces = [world.control(name).lockspace("test") for name in world.names]
    seen = []
    spaces[0].create()
    seen.append(phase(world))
    spaces[0].start(1, [1, 2])
    world.cluster.advance(1)
    seen.append(phase(world))
    spaces[1].create()
    spaces[1].start(1, [1, 2])
    for space in spaces:
        space.wait_done(1)
        space.finish(1)
    seen.append(phase(world))
    spaces[0].stop()
    seen.append(phase(world))
    spaces[0].release(answer=False)
    seen.append(phase(world))
    assert [each.value for each in seen] == [
        "joining",
        "recovering",
        "running",
        "stopped",
        "leaving",
    ]


# ---- joins and leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
def test_terminate_ends_a_join_and_a_leave_that_was_begun_here(abi: str) -> None:
    """The kernel shows no leave; the release that began it remembered."""
    world = World("nodea", abi=abi)
    space = world.control("nodea").lockspace("test")
    space.create()
    space.terminate()
    world.cluster.settle()
    assert world.control("nodea").snapshot().lockspaces == ()
    space.create()
    space.start(1, [1])
    space.wait_done(1)
    world.cluster.settle()
    with pytest.raises(CheckError) as caught:
        space.terminate()
    assert caught.value.reason is Reason.NOT_SHOWN
    space.release(answer=False)
    with pytest.raises(CheckError) as caught:
        space.start(2, [1])
    assert caught.value.reason is Reason.LEAVES
    space.terminate()
    world.cluster.settle()
    assert world.control("nodea").snapshot().lockspaces == ()


@pytest.mark.parametrize("abi", ABIS)
def test_a_leave_that_somebody_else_began_is_told_by_its_uevent_and_answered_by_force(
    abi: str,
) -> None:
    """Nothing else shows it; a new life of the name joins again."""
    world = running(abi)
    watch = world.control("nodea").events()
    world.control("nodea").lockspace("more").create()
    assert watch.next_event(5) == Join("more")
    other = world.control("nodea").lockspace("test")
    other.release(answer=False)
    run(_forget_leave(), world.processes["nodea"])
    assert phase_of(world, "test") is Phase.RUNNING
    assert watch.next_event(5) == Leave("test")
    world.control("nodea", force=True).lockspace("test").terminate()
    world.cluster.settle()
    assert "test" not in world.processes["nodea"].list_directory("dlm")
    watch.close()


def _forget_leave() -> Plan[None]:
    seen = yield from find("test")
    yield from update(seen, lambda state: state.replace(leaving=False))


def phase_of(world: World, lockspace: str) -> Phase:
    """Return the phase of a lockspace of nodea."""
    views = world.control("nodea").snapshot().lockspaces
    return next(view.phase for view in views if view.name == lockspace)


@pytest.mark.parametrize("abi", ABIS)
def test_a_second_create_is_eexist_for_no_users_are_counted(abi: str) -> None:
    """Mainline counts one more user; here a release would end it for both."""
    world = running(abi)
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").create()
    assert caught.value.errno == errno.EEXIST


@pytest.mark.parametrize("abi", ABIS)
def test_a_name_of_64_bytes_has_a_directory_of_63(abi: str) -> None:
    """And is controlled by its whole name all the same."""
    world, name = World("nodea", abi=abi), "n" * 64
    space = world.control("nodea").lockspace(name)
    space.create()
    space.start(1, [1])
    assert space.wait_done(1) == 1
    space.finish(1)
    space.release()
    assert world.processes["nodea"].list_directory("dlm") == []


# ---- nodes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
def test_what_dlm_node_was_told_is_remembered_for_a_life_of_the_module(abi: str) -> None:
    """The kernel does not show it, and loses it with the module."""
    world = World("nodea", "nodeb", abi=abi)
    view = world.control("nodea").snapshot()
    assert view.local == 1
    assert [(node.nodeid, node.addresses, node.local) for node in view.nodes] == [
        (1, ("10.0.0.1",), True),
        (2, ("10.0.0.2",), False),
    ]
    node = world.cluster.node("nodea")
    node.unload_module()
    node.load_module()
    assert world.control("nodea").snapshot().nodes == ()


@pytest.mark.parametrize("abi", ABIS)
def test_one_address_of_a_node_and_three_of_this_one(abi: str) -> None:
    """SET_NODE replaces, so a second address would take the first one's place."""
    world = World("nodea", "nodeb", abi=abi)
    with pytest.raises(CheckError) as caught:
        world.control("nodea").set_node(2, ["10.0.0.2", "10.0.1.2"])
    assert caught.value.reason is Reason.TOO_MANY_ADDRESSES
    more = [f"10.0.0.{number}" for number in range(5, 9)]
    with pytest.raises(RefusedError, match=r"SET_LOCAL 1 10\.0\.0\.7") as refused:
        world.control("nodea").set_local(1, more)
    assert refused.value.errno == errno.EINVAL
    assert len(refused.value.written) == 2
    local = world.control("nodea").snapshot().nodes[0]
    assert local.addresses == ("10.0.0.1", "10.0.0.5", "10.0.0.6")


@pytest.mark.parametrize("abi", ABIS)
def test_a_node_that_came_back_is_not_set_anew(abi: str) -> None:
    """There is nothing to make again: the address is all that the kernel keeps."""
    world = running(abi, *ADDRESSES)
    world.crash("nodea")
    world.stop(*SURVIVORS)
    written = lines(start("test", 2, [1, 2, 3], rejoined=[1]), world, "nodeb")
    assert written == [f"write {TEST}/members 1 2 3", START[abi]]


@pytest.mark.parametrize("abi", ABIS)
def test_without_rights_nothing_can_be_set(abi: str) -> None:
    """EACCES of the ioctl's own check."""
    world = World("nodea", abi=abi)
    world.processes["nodea"] = world.cluster.node("nodea").process(privileged=False)
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_node(IDS["nodeb"], "10.0.0.2")
    assert caught.value.errno == errno.EACCES
    assert re.search("dlm-node", str(caught.value))


@pytest.mark.parametrize("abi", ABIS)
def test_a_rejoined_node_may_be_in_use_elsewhere(abi: str) -> None:
    """Mainline refuses, for it would have to cut the other lockspace's connection."""
    world = running(abi, "nodea", "nodeb")
    world.start(lockspace="more")
    world.stop()
    written = lines(start("test", 2, [1, 2], rejoined=[2]), world)
    assert written == [f"write {TEST}/members 1 2", START[abi]]
