"""The facts that shape the verbs on a mainline kernel (design, section 3), one by one."""

from __future__ import annotations

import asyncio
import errno

import pytest

from dlm.control import Phase, aio
from dlm.control.common import find
from dlm.control.plan import File, Submit, say
from dlm.control.recovery import start as start_plan
from dlm.control.runner import Journal, run
from dlm.emulator.aio import run as run_in_world
from dlm.errors import ControlledError, RefusedError, TimedOutError
from dlm.ports import DeviceClose
from dlm.terms import LockFlag, LockMode
from tests.unit.control.world import COMMS, NODES, Locker, World


def phase(world: World, node: str, lockspace: str = "test") -> Phase | None:
    """Return where a lockspace stands on a node."""
    views = {view.name: view for view in world.control(node).snapshot().lockspaces}
    return views[lockspace].phase if lockspace in views else None


# ---- fact 1: create sleeps in the kernel --------------------------------------------------------


def test_fact_1_create_returns_while_the_join_still_waits() -> None:
    """The caller is back once the directory is there; the kernel's call goes on without it."""
    world = World("nodea")
    assert world.control("nodea").lockspace("test").create() is None
    assert phase(world, "nodea") is Phase.JOINING
    assert "dlm_test" not in world.processes["nodea"].misc_devices()


def test_fact_1_a_created_lockspace_outlives_its_creator() -> None:
    """The call is detached: the creator's exit leaves the join where it was."""
    world = World("nodea")
    creator = world.cluster.node("nodea").process()
    world.processes["nodea"] = creator
    world.control("nodea").lockspace("test").create()
    creator.close()
    world.processes["nodea"] = world.cluster.node("nodea").process()
    world.start()
    assert phase(world, "nodea") is Phase.RUNNING


def test_fact_1_create_with_wait_returns_the_minor_when_recovery_has_ended() -> None:
    """Another process starts the lockspace: only then is the creator's call over."""
    world = World("nodea")
    lockspace = world.control("nodea", timeout=5).lockspace("test")
    with pytest.raises(TimedOutError) as caught:
        lockspace.create(wait=True)
    assert "the join of test to end" in caught.value.message
    assert caught.value.waiting == "write dlm-control CREATE_LOCKSPACE test"
    world.start()
    assert lockspace.create(wait=True) == world.processes["nodea"].misc_devices()["dlm_test"]


def test_fact_1_a_refusal_before_the_join_is_reported_at_once() -> None:
    """An existing lockspace, asked for exclusively, is the kernel's own EEXIST."""
    world = World("nodea")
    world.start()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").create(exclusive=True)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.written == ()


def test_fact_1_without_rights_create_is_eperm() -> None:
    """Root without CAP_SYS_ADMIN may open dlm-control, but not create."""
    world = World("nodea")
    world.processes["nodea"] = world.cluster.node("nodea").process(capable=False)
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").create()
    assert caught.value.errno == errno.EPERM


def test_fact_1_without_a_local_node_create_is_enotconn_and_nothing_is_sent() -> None:
    """It is found out by looking: a newer kernel does not survive the question."""
    world = World("nodea")
    world.crash("nodea")
    world.processes["nodea"] = world.cluster.node("nodea").process()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").create()
    assert caught.value.errno == errno.ENOTCONN
    assert not any("dlm-control" in line for line in world.cluster.trace()[-3:])


def test_fact_1_a_create_behind_another_join_names_it() -> None:
    """One mutex for all: the second create makes nothing until the first join is over."""
    world = World("nodea")
    world.control("nodea").lockspace("first").create()
    with pytest.raises(TimedOutError) as caught:
        world.control("nodea", timeout=1).lockspace("second").create()
    assert "lockspace first, which is joining" in caught.value.message
    assert world.notes == [
        "create second waits for lockspace first, which is joining, to get out of the way"
    ]
    assert caught.value.waiting == "write dlm-control CREATE_LOCKSPACE second"
    assert phase(world, "nodea", "second") is None


def test_fact_1_what_waited_behind_another_join_goes_on_after_it() -> None:
    """The call that was left in the kernel makes its lockspace once it can."""
    world = World("nodea")
    world.control("nodea").lockspace("first").create()
    with pytest.raises(TimedOutError):
        world.control("nodea", timeout=1).lockspace("second").create()
    world.start(1, lockspace="first")
    assert phase(world, "nodea", "second") is Phase.JOINING


def test_fact_1_a_second_create_makes_a_second_user() -> None:
    """Without NEWEXCL the kernel counts users: the first release only takes one off."""
    world = World("nodea")
    world.start()
    lockspace = world.control("nodea").lockspace("test")
    lockspace.create()
    assert world.notes.pop() == "lockspace test was there: it has one more user now"
    lockspace.release()
    assert world.notes.pop() == "lockspace test has other users: it only has one less now"
    assert phase(world, "nodea") is Phase.RUNNING
    lockspace.release()
    assert phase(world, "nodea") is None


def test_fact_1_a_create_behind_the_leave_of_its_own_name_waits_for_a_new_directory() -> None:
    """The one that is there is not what was asked for."""
    world = World("nodea")
    world.start()
    world.control("nodea").lockspace("test").release(answer=False)
    with pytest.raises(TimedOutError, match="lockspace test, which is leaving"):
        world.control("nodea", timeout=1).lockspace("test").create()
    world.control("nodea").lockspace("test").terminate()
    world.cluster.settle()
    assert phase(world, "nodea") is Phase.JOINING


# ---- fact 2: calls that sleep unkillably --------------------------------------------------------


def test_fact_2_release_with_an_open_file_ends_at_its_timeout_and_says_what_waits() -> None:
    """The kernel waits for the last close; the caller does not have to."""
    world = World("nodea")
    world.start()
    locker = Locker(world.cluster.node("nodea").process())
    with pytest.raises(TimedOutError) as caught:
        world.control("nodea").lockspace("test").release(timeout=2)
    assert "every open file on dlm_test to be closed" in caught.value.message
    assert caught.value.waiting == "write dlm-control REMOVE_LOCKSPACE test FORCEFREE"
    assert phase(world, "nodea") is Phase.LEAVING
    locker.device.close()
    world.cluster.settle()
    assert phase(world, "nodea") is None


# ---- fact 3: event_done is written once per wait ------------------------------------------------


def test_fact_3_a_join_is_answered_once_however_many_starts_follow() -> None:
    """A stop and a second start while the join still waits for its recovery answer nothing."""
    world = World("nodea", "nodeb")
    lockspace = world.control("nodea").lockspace("test")
    lockspace.create()
    lockspace.start(1, [1, 2])
    lockspace.stop()
    journal = Journal()
    plan = start_plan("test", 2, [1, 2])
    run(plan, world.processes["nodea"], journal=journal)
    assert journal.written == ["write /sys/kernel/dlm/test/control 1"]


def test_fact_3_the_next_leave_still_waits_for_its_own_answer() -> None:
    """Nothing of the join is left that could answer the leave."""
    world = World("nodea")
    world.start()
    world.stop()
    world.start(2)
    world.control("nodea").lockspace("test").release(answer=False)
    world.cluster.settle()
    assert phase(world, "nodea") is Phase.LEAVING
    world.control("nodea").lockspace("test").terminate()
    world.cluster.settle()
    assert phase(world, "nodea") is None


def test_fact_3_terminate_where_nothing_waits_is_refused_and_writes_nothing() -> None:
    """An answer that nobody waits for would answer the next leave."""
    world = World("nodea")
    world.start()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").terminate()
    assert caught.value.errno == errno.EINVAL
    assert caught.value.written == ()


def test_fact_3_terminate_of_an_answered_join_is_refused_unless_forced() -> None:
    """The join whose recovery still runs looks like one that waits: the state tells."""
    world = World("nodea", "nodeb")
    lockspace = world.control("nodea").lockspace("test")
    lockspace.create()
    lockspace.start(1, [1, 2])
    with pytest.raises(RefusedError) as caught:
        lockspace.terminate()
    assert caught.value.errno == errno.EALREADY
    world.control("nodea", force=True).lockspace("test").terminate()


def test_fact_3_a_leave_that_was_answered_is_not_answered_again() -> None:
    """The release has answered it and waits for an open file; terminate is refused."""
    world = World("nodea")
    world.start()
    Locker(world.cluster.node("nodea").process())
    with pytest.raises(TimedOutError):
        world.control("nodea").lockspace("test").release(timeout=2)
    (view,) = world.control("nodea").snapshot().lockspaces
    assert view.waits_for == "open files to be closed"
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").terminate()
    assert caught.value.errno == errno.EALREADY


def test_fact_3_a_leave_that_a_manager_answers_first_is_not_answered_by_the_release() -> None:
    """Both run side by side; event_done is written once for the leave."""
    world = World("nodea")
    world.start()
    Locker(world.cluster.node("nodea").process())
    before = len(world.cluster.trace())
    process = world.processes["nodea"]
    devices = process.misc_devices()

    class Slow:
        """A process that does not see yet that the device has gone."""

        behind = True

        def __getattr__(self, name: str) -> object:
            return getattr(process, name)

        def misc_devices(self) -> dict[str, int]:
            return devices if self.behind else process.misc_devices()

    async def main() -> None:
        slow = Slow()
        release = asyncio.create_task(
            aio.Control(slow).lockspace("test").release(timeout=5)  # type: ignore[arg-type]
        )
        await asyncio.sleep(1)
        await aio.Control(process).lockspace("test").terminate()
        slow.behind = False
        with pytest.raises(TimedOutError):
            await release

    run_in_world(main(), world.cluster)
    lines = world.cluster.trace()[before:]
    assert len([line for line in lines if "write dlm/test/event_done" in line]) == 1


def test_fact_3_a_join_that_ends_at_this_moment_is_not_taken_for_a_leave() -> None:
    """The debug files come before the device: the second look finds it."""
    world = World("nodea")
    world.start()

    class Late:
        """A process that sees the device only at its second look."""

        looks = 0

        def __getattr__(self, name: str) -> object:
            return getattr(world.processes["nodea"], name)

        def misc_devices(self) -> dict[str, int]:
            self.looks += 1
            devices = world.processes["nodea"].misc_devices()
            return {} if self.looks == 1 else devices

    seen = run(find("test"), Late())  # type: ignore[arg-type]
    assert seen.phase is Phase.RUNNING


def test_fact_3_terminate_lets_a_join_fail() -> None:
    """The create ends with ECANCELED, which no program takes for "try again"."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    world.control("nodea").lockspace("test").terminate()
    world.cluster.settle()
    assert phase(world, "nodea") is None
    assert any("-125" in line for line in world.cluster.node("nodea").log())


def test_fact_3_a_new_life_of_a_lockspace_is_answered_anew() -> None:
    """What was answered belongs to one life, told by boot and inode."""
    world = World("nodea")
    for _ in range(2):
        world.start()
        assert phase(world, "nodea") is Phase.RUNNING
        world.control("nodea").lockspace("test").release()


def test_fact_3_joining_and_leaving_are_told_apart() -> None:
    """Both have a directory and no device; only the one that leaves has debug files."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    assert phase(world, "nodea") is Phase.JOINING
    world.start()
    world.control("nodea").lockspace("test").release(answer=False)
    assert phase(world, "nodea") is Phase.LEAVING


# ---- fact 4: release ----------------------------------------------------------------------------


def test_fact_4_release_drops_orphans_and_answers_its_own_leave() -> None:
    """FORCEFREE: without it an orphan is EBUSY."""
    world = World("nodea")
    world.start()
    process = world.cluster.node("nodea").process()
    locker = Locker(process)
    locker.lock(b"foo", LockMode.EX, LockFlag.PERSISTENT)
    assert locker.result() is not None
    process.close()
    world.control("nodea").lockspace("test").release()
    assert phase(world, "nodea") is None


def test_fact_4_release_while_joining_is_refused() -> None:
    """There is no device to remove yet; terminate is the way out."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").release()
    assert caught.value.errno == errno.EBUSY


# ---- fact 5: a start that the kernel would ignore -----------------------------------------------


def test_fact_5_a_start_while_running_is_refused_before_any_write() -> None:
    """The kernel would say success and do nothing."""
    world = World("nodea")
    world.start()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").start(2, [1])
    assert caught.value.errno == errno.EINVAL
    assert caught.value.written == ()


def test_fact_5_a_start_whose_members_are_away_is_reported_as_it_is_seen() -> None:
    """recover_status stays 0: not done, and refused is another start without a stop."""
    world = World("nodea", "nodeb")
    lockspace = world.control("nodea").lockspace("test")
    lockspace.create()
    lockspace.start(1, [1, 2])
    world.cluster.advance(5)
    assert lockspace.get_done() == 0
    with pytest.raises(RefusedError) as caught:
        lockspace.finish(1)
    assert caught.value.errno == errno.EAGAIN
    with pytest.raises(RefusedError) as caught:
        lockspace.start(2, [1])
    assert caught.value.message == "the recovery of test for start 1 is not over"
    lockspace.stop()
    lockspace.start(2, [1])
    world.cluster.settle()
    assert lockspace.get_done() == 2


def test_fact_5_a_member_without_an_address_is_refused() -> None:
    """Its comm is there, and nobody would know where to connect to."""
    world = World("nodea")
    process = world.processes["nodea"]
    process.make_directory(f"{COMMS}/2")
    process.write_attribute(f"{COMMS}/2/nodeid", b"2")
    world.control("nodea").lockspace("test").create()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").start(1, [1, 2])
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("event_nr", [1, 2])
def test_fact_5_an_event_number_not_above_the_last_is_refused(event_nr: int) -> None:
    """The kernel has no event numbers: the state directory has."""
    world = World("nodea")
    world.start(2)
    world.stop()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").start(event_nr, [1])
    assert caught.value.message == f"event {event_nr} is not above the last start 2"
    assert caught.value.errno == errno.EINVAL


def test_fact_5_a_member_that_was_never_set_is_refused() -> None:
    """The kernel would try to connect for ever."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").start(1, [1, 9])
    assert caught.value.errno == errno.ENOENT
    assert "node 9" in caught.value.message


def test_fact_5_a_start_without_this_node_is_refused() -> None:
    """The kernel would recover a lockspace whose members do not know us."""
    world = World("nodea", "nodeb")
    world.control("nodea").lockspace("test").create()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("test").start(1, [2])
    assert caught.value.errno == errno.EINVAL


# ---- fact 6: a node that left and came back -----------------------------------------------------


def rejoin(world: World) -> None:
    """Let nodea take part in locking, fail and come back, without a start in between."""
    assert lock_on_every_node(world) == [0, 0, 0]
    world.crash("nodea")
    world.set_up("nodea")
    world.control("nodea").lockspace("test").create()
    world.stop("nodeb", "nodec")


def lock_on_every_node(world: World) -> list[int | None]:
    """Take and drop an EX lock on each node in turn; return the status of each grant."""
    statuses: list[int | None] = []
    for name in world.names:
        process = world.cluster.node(name).process()
        locker = Locker(process)
        locker.lock(b"across", LockMode.EX)
        result = locker.result()
        statuses.append(None if result is None else result.status)
        process.close()
        world.cluster.settle()
    return statuses


def test_fact_6_a_node_that_was_missed_is_made_anew_by_the_start_that_takes_it_back() -> None:
    """Its comm and its place among the members are new, and locks go across."""
    world = World("nodea", "nodeb", "nodec")
    world.start()
    assert lock_on_every_node(world) == [0, 0, 0]
    before = world.processes["nodeb"].stat(f"{COMMS}/1").inode
    world.crash("nodea")
    world.stop("nodeb", "nodec")
    world.start(2, "nodeb", "nodec")
    assert "1" not in world.processes["nodeb"].list_directory(NODES)
    world.set_up("nodea")
    world.control("nodea").lockspace("test").create()
    world.stop("nodeb", "nodec")
    for name in ("nodeb", "nodec"):
        world.control(name).lockspace("test").start(3, [1, 2, 3])
    world.control("nodea").lockspace("test").start(1, [1, 2, 3])
    world.cluster.settle()
    assert world.processes["nodeb"].stat(f"{COMMS}/1").inode != before
    assert [world.control(name).lockspace("test").get_done() for name in world.names] == [1, 3, 3]
    assert lock_on_every_node(world) == [0, 0, 0]


def test_fact_6_a_node_back_before_it_was_missed_is_named_as_rejoined() -> None:
    """It is a member of the last start: nothing but the caller can tell."""
    world = World("nodea", "nodeb", "nodec")
    world.start()
    rejoin(world)
    for name in ("nodeb", "nodec"):
        world.control(name).lockspace("test").start(2, [1, 2, 3], rejoined=[1])
    world.control("nodea").lockspace("test").start(1, [1, 2, 3])
    world.cluster.settle()
    assert [world.control(name).lockspace("test").get_done() for name in world.names] == [1, 2, 2]
    assert lock_on_every_node(world) == [0, 0, 0]


def test_fact_6_without_that_the_status_bits_look_well_and_locks_hang() -> None:
    """This is why: the connection's numbers never match again."""
    world = World("nodea", "nodeb", "nodec")
    world.start()
    rejoin(world)
    for name in ("nodeb", "nodec"):
        world.control(name).lockspace("test").start(2, [1, 2, 3])
    world.control("nodea").lockspace("test").start(1, [1, 2, 3])
    world.cluster.settle()
    assert [world.text(name, "dlm/test/recover_status") for name in world.names] == [
        "ff\n",
        "55\n",
        "55\n",
    ]
    assert None in lock_on_every_node(world)


def test_fact_6_the_writes_of_a_rejoin_in_their_order() -> None:
    """While stopped: the member goes, the comm is made again, the member is made again."""
    world = World("nodea", "nodeb")
    world.start()
    world.crash("nodea")
    world.stop("nodeb")
    journal = Journal()
    plan = start_plan("test", 2, [1, 2], rejoined=[1])
    run(plan, world.processes["nodeb"], journal=journal)
    sys = "/sys/kernel/"
    assert journal.written == [
        f"rmdir {sys}{NODES}/1",
        f"rmdir {sys}{COMMS}/1",
        f"mkdir {sys}{COMMS}/1",
        f"write {sys}{COMMS}/1/nodeid 1",
        f"write {sys}{COMMS}/1/addr 10.0.0.1",
        f"mkdir {sys}{NODES}/1",
        f"write {sys}{NODES}/1/nodeid 1",
        f"write {sys}{NODES}/1/weight 1",
        f"write {sys}dlm/test/control 1",
    ]


def test_fact_6_the_writes_of_a_first_start_in_their_order() -> None:
    """Comms that were never used are not touched; the answer to the join comes last."""
    world = World("nodea", "nodeb")
    world.control("nodea").lockspace("test").create()
    journal = Journal()
    run(start_plan("test", 1, [2, 1]), world.processes["nodea"], journal=journal)
    sys = "/sys/kernel/"
    assert journal.written == [
        f"mkdir {sys}config/dlm/cluster/spaces/test",
        f"mkdir {sys}{NODES}/1",
        f"write {sys}{NODES}/1/nodeid 1",
        f"write {sys}{NODES}/1/weight 1",
        f"mkdir {sys}{NODES}/2",
        f"write {sys}{NODES}/2/nodeid 2",
        f"write {sys}{NODES}/2/weight 1",
        f"write {sys}dlm/test/control 1",
        f"write {sys}dlm/test/event_done 0",
    ]


def test_fact_6_members_left_over_from_an_earlier_life_are_made_again() -> None:
    """They remember the comms of that time."""
    world = World("nodea")
    world.start()
    world.control("nodea").lockspace("test").release()
    world.control("nodea").lockspace("test").create()
    journal = Journal()
    run(start_plan("test", 1, [1]), world.processes["nodea"], journal=journal)
    assert journal.written[:2] == [f"rmdir /sys/kernel/{NODES}/1", f"mkdir /sys/kernel/{NODES}/1"]


def test_fact_6_a_member_whose_comm_set_node_has_replaced_is_made_again() -> None:
    """A member remembers the comm that it was made with; the comm itself is new already."""
    world = World("nodea", "nodeb")
    world.start()
    world.stop("nodea")
    world.control("nodea").set_node(2, "10.0.9.2")
    journal = Journal()
    run(start_plan("test", 2, [1, 2]), world.processes["nodea"], journal=journal)
    assert journal.written == [
        f"rmdir /sys/kernel/{NODES}/2",
        f"mkdir /sys/kernel/{NODES}/2",
        f"write /sys/kernel/{NODES}/2/nodeid 2",
        f"write /sys/kernel/{NODES}/2/weight 1",
        "write /sys/kernel/dlm/test/control 1",
    ]


def test_fact_6_a_comm_that_was_made_again_already_is_left_alone() -> None:
    """The second lockspace of the same survivor finds it new; only the member is made again."""
    world = World("nodea", "nodeb")
    world.start()
    world.start(1, lockspace="other")
    world.crash("nodea")
    for name in ("test", "other"):
        world.control("nodeb").lockspace(name).stop()
    world.control("nodeb").lockspace("test").start(2, [1, 2], rejoined=[1])
    journal = Journal()
    plan = start_plan("other", 2, [1, 2], rejoined=[1])
    run(plan, world.processes["nodeb"], journal=journal)
    assert not [line for line in journal.written if "comms" in line]
    assert any(line.startswith("mkdir") and line.endswith("nodes/1") for line in journal.written)


def test_fact_6_a_rejoined_node_in_a_running_lockspace_is_refused_naming_that() -> None:
    """Its comm cannot be made again under a lockspace that uses it."""
    world = World("nodea", "nodeb")
    world.start()
    world.start(1, lockspace="other")
    world.stop("nodeb")
    with pytest.raises(RefusedError) as caught:
        world.control("nodeb").lockspace("test").start(2, [1, 2], rejoined=[1])
    assert caught.value.errno == errno.EBUSY
    assert "lockspace other" in caught.value.message
    assert caught.value.written == ()


def test_fact_6_a_node_that_only_left_the_lockspace_keeps_its_comm_while_another_runs() -> None:
    """It is alive in the other lockspace on the comm that it has."""
    world = World("nodea", "nodeb")
    world.start()
    world.start(1, lockspace="other")
    world.control("nodea").lockspace("test").release()
    world.stop("nodeb")
    world.start(2, "nodeb")
    world.control("nodea").lockspace("test").create()
    world.stop("nodeb")
    journal = Journal()
    run(start_plan("test", 3, [1, 2]), world.processes["nodeb"], journal=journal)
    assert not [line for line in journal.written if "comms" in line]


def test_fact_6_addresses_and_weight_survive_the_making_again() -> None:
    """All addresses are read first and written again; the weight is remembered."""
    world = World("nodea", "nodeb")
    control = world.control("nodeb")
    control.set_node(1, ["10.0.0.1", "fd00::1"], weight=4)
    world.start()
    world.crash("nodea")
    world.stop("nodeb")
    control.lockspace("test").start(2, [1, 2], rejoined=[1])
    assert world.text("nodeb", f"{COMMS}/1/addr_list") == (
        "AF_INET\t10.0.0.1\nAF_INET6\tfd00:0000:0000:0000:0000:0000:0000:0001\n"
    )
    assert world.text("nodeb", f"{NODES}/1/weight") == "4\n"


# ---- fact 7: set_local and set_node -------------------------------------------------------------


def test_fact_7_setting_what_is_set_writes_nothing() -> None:
    """A second write of an address would be EEXIST."""
    world = World("nodea", "nodeb")
    before = world.cluster.trace()
    world.control("nodea").set_local(1, "10.0.0.1")
    world.control("nodea").set_node(2, "10.0.0.2")
    assert [line for line in world.cluster.trace()[len(before) :] if " write " in line] == []


def test_fact_7_set_local_of_a_node_that_set_node_has_set_makes_it_the_local_one() -> None:
    """The order of steps 3 and 4 does not matter."""
    world = World("nodea")
    world.crash("nodea")
    world.processes["nodea"] = world.cluster.node("nodea").process()
    world.control("nodea").set_node(1, "10.0.0.1")
    assert world.text("nodea", f"{COMMS}/1/local") == "0\n"
    world.control("nodea").set_local(1, "10.0.0.1")
    assert world.text("nodea", f"{COMMS}/1/local") == "1\n"


def test_fact_7_set_local_adds_an_address() -> None:
    """The kernel takes several; the first stays the one that is listened on."""
    world = World("nodea")
    world.control("nodea").set_local(1, "fd00::1")
    shown = world.text("nodea", f"{COMMS}/1/addr_list")
    assert [line.partition("\t")[0] for line in shown.splitlines()] == ["AF_INET", "AF_INET6"]


def test_fact_7_set_local_of_another_number_is_refused() -> None:
    """The local comm cannot be taken back: a node is one node."""
    world = World("nodea")
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_local(7, "10.0.0.1")
    assert caught.value.errno == errno.EEXIST


def test_fact_7_set_node_replaces_the_comm() -> None:
    """Other addresses than before: made anew, with these alone."""
    world = World("nodea", "nodeb")
    world.control("nodea").set_node(2, ["10.0.9.2", "10.0.8.2"])
    shown = world.text("nodea", f"{COMMS}/2/addr_list")
    assert shown == "AF_INET\t10.0.9.2\nAF_INET\t10.0.8.2\n"


def test_fact_7_set_node_is_refused_while_a_lockspace_runs_with_the_node() -> None:
    """Its connection would be closed under the lockspace; stopped, it may be."""
    world = World("nodea", "nodeb")
    world.start()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_node(2, "10.0.9.2")
    assert caught.value.errno == errno.EBUSY
    assert caught.value.written == ()
    world.stop("nodea")
    world.control("nodea").set_node(2, "10.0.9.2")


def test_fact_7_set_local_tells_when_no_interface_has_the_address() -> None:
    """The create would fail with EADDRNOTAVAIL; it may still come up later."""
    world = World("nodea")
    world.control("nodea").set_local(1, "10.9.9.9")
    assert world.notes == ["no interface of this node has the address 10.9.9.9"]


def test_fact_7_too_many_addresses_are_the_kernels_enospc_and_what_was_written_is_said() -> None:
    """Three fit on 6.1; a plan that fails half-way says which writes were made."""
    world = World("nodea")
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_node(2, [f"10.0.0.{number}" for number in (2, 3, 4, 5)])
    assert caught.value.errno == errno.ENOSPC
    sys = f"/sys/kernel/{COMMS}/2"
    assert caught.value.written == (
        f"mkdir {sys}",
        f"write {sys}/nodeid 2",
        f"write {sys}/addr 10.0.0.2",
        f"write {sys}/addr 10.0.0.3",
        f"write {sys}/addr 10.0.0.4",
    )


# ---- fact 9: dlm-monitor ------------------------------------------------------------------------


def test_fact_9_no_verb_opens_dlm_monitor() -> None:
    """Opened and closed once, it would stop every lockspace and refuse every create."""
    world = World("nodea")
    world.start()
    world.stop()
    world.start(2)
    world.control("nodea").snapshot()
    world.control("nodea").lockspace("test").release()
    assert not any("open dlm-monitor" in line for line in world.cluster.trace())


def test_fact_9_hold_monitor_holds_it_and_its_end_stops_lockspaces() -> None:
    """After the block the lockspace is stopped, and a create is EUNATCH."""
    world = World("nodea")
    world.start()
    with world.control("nodea").hold_monitor():
        assert phase(world, "nodea") is Phase.RUNNING
    assert phase(world, "nodea") is Phase.STOPPED
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("more").create()
    assert caught.value.errno == errno.EUNATCH


# ---- fact 10: dlm_controld ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "release", "stop", "terminate", "start", "set_id"])
def test_fact_10_what_dlm_controld_controls_is_left_alone_unless_forced(verb: str) -> None:
    """Its files are its own; ``force`` is for who knows better."""
    world = World("nodea")
    world.start()
    world.cluster.node("nodea").controller = "dlm_controld"
    before = world.tree("nodea")
    lockspace = world.control("nodea").lockspace("test")
    arguments: dict[str, tuple[object, ...]] = {"start": (2, [1]), "set_id": (7,)}
    with pytest.raises(ControlledError) as caught:
        getattr(lockspace, verb)(*arguments.get(verb, ()))
    assert caught.value.errno == errno.EBUSY
    assert world.tree("nodea") == before
    forced = world.control("nodea", force=True).lockspace("test")
    forced.stop()
    assert phase(world, "nodea") is Phase.STOPPED


def test_fact_10_looking_is_always_allowed() -> None:
    """get_done and the snapshot only read, and say who controls."""
    world = World("nodea")
    world.start()
    world.cluster.node("nodea").controller = "dlm_controld"
    assert world.control("nodea").lockspace("test").get_done() == 1
    assert world.control("nodea").snapshot().controller == "dlm_controld"


def test_a_submit_without_words_is_no_write() -> None:
    """Closing a device is no write that a failure would have to name."""
    assert say(Submit(DeviceClose(), File("dlm_test", None))) == ""


LET_GO = 400.0
"""Seconds that a release is given where nobody starts the others without the node that leaves."""


# ---- what follows from several of them ----------------------------------------------------------


def test_a_clean_leave_and_return_locks_across() -> None:
    """The node releases and creates again, with no other lockspace: facts 4 and 6."""
    world = World("nodea", "nodeb", "nodec")
    world.start()
    assert lock_on_every_node(world) == [0, 0, 0]
    world.control("nodea").lockspace("test").release(timeout=LET_GO)
    world.stop("nodeb", "nodec")
    world.start(2, "nodeb", "nodec")
    world.control("nodea").lockspace("test").create()
    world.stop("nodeb", "nodec")
    for name in ("nodeb", "nodec"):
        world.control(name).lockspace("test").start(3, [1, 2, 3])
    world.control("nodea").lockspace("test").start(1, [1, 2, 3])
    world.cluster.settle()
    assert lock_on_every_node(world) == [0, 0, 0]


def test_a_lockspace_made_anew_by_all_locks_across() -> None:
    """Released and created again everywhere: the comms of before have been used."""
    world = World("nodea", "nodeb", "nodec")
    for _ in range(3):
        world.start()
        assert lock_on_every_node(world) == [0, 0, 0]
        for name in world.names:
            world.control(name).lockspace("test").release(timeout=LET_GO)


def test_a_second_lockspace_locks_across_beside_the_first() -> None:
    """The comms in use are left alone by its start."""
    world = World("nodea", "nodeb", "nodec")
    world.start()
    assert lock_on_every_node(world) == [0, 0, 0]
    before = [world.processes["nodea"].stat(f"{COMMS}/{number}").inode for number in (2, 3)]
    for name in world.names:
        world.control(name).lockspace("more").create()
        world.control(name).lockspace("more").set_id(2)
    for name in world.names:
        world.control(name).lockspace("more").start(1, [1, 2, 3])
    world.cluster.settle()
    assert before == [world.processes["nodea"].stat(f"{COMMS}/{n}").inode for n in (2, 3)]
    assert lock_on_every_node(world) == [0, 0, 0]


def test_the_local_node_may_be_replaced_while_there_is_no_lockspace() -> None:
    """It stays the local one; with a lockspace it is refused."""
    world = World("nodea")
    world.control("nodea").set_node(1, "10.0.0.9")
    assert world.text("nodea", f"{COMMS}/1/local") == "1\n"
    assert world.text("nodea", f"{COMMS}/1/addr_list") == "AF_INET\t10.0.0.9\n"
    world.control("nodea").set_node(1, "10.0.0.1")
    world.start()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").set_node(1, "10.0.0.9")
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.2"])
def test_the_life_of_a_lockspace_is_the_same_on_every_kernel(kernel: str) -> None:
    """Node ids from names, shared attributes, members that leave a trace: no verb minds."""
    world = World("nodea", "nodeb", kernel=kernel)
    world.start()
    assert lock_on_every_node(world) == [0, 0]
    world.crash("nodea")
    world.stop("nodeb")
    world.start(2, "nodeb")
    world.set_up("nodea")
    world.control("nodea").lockspace("test").create()
    world.stop("nodeb")
    world.control("nodeb").lockspace("test").start(3, [1, 2])
    world.control("nodea").lockspace("test").start(1, [1, 2])
    world.cluster.settle()
    assert lock_on_every_node(world) == [0, 0]
    for name in world.names:
        world.control(name).lockspace("test").release(timeout=LET_GO)


def test_two_lockspaces_with_one_id_are_noted_and_set_id_refuses_the_second() -> None:
    """The nodes know a lockspace by its id alone."""
    world = World("nodea")
    world.start()
    world.control("nodea").lockspace("more").create()
    with pytest.raises(RefusedError) as caught:
        world.control("nodea").lockspace("more").set_id(0)
    assert caught.value.errno == errno.EEXIST
    world.control("nodea").lockspace("more").start(1, [1])
    assert world.notes == ["lockspaces more and test have the same id 0: use set_id"]
