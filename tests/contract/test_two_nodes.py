"""What only a second node shows.

A single guest has no second node: these run on the emulator, and on real guests with the issue that
brings several of them. Where the table of the kernel's interfaces says "seen on two nodes", that is
what is held here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dlm.abi.debugfs import parse_toss
from dlm.ports import DeviceWrite, Pending
from dlm.terms import KERNELS, LockFlag, LockMode
from tests.contract.machine import (
    CLUSTER,
    Bast,
    Cast,
    LockFile,
    Lockspace,
    Machine,
    create_request,
    refused,
    unlocked,
)

pytestmark = pytest.mark.emulator_only("needs several guests on one network")

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag

NAMES = {1: "first", 2: "second"}
ADDRESSES = {1: "10.0.0.1", 2: "10.0.0.2"}


class Pair:
    """Two nodes, 1 and 2, each with a process."""

    def __init__(self, kernel: str) -> None:
        from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it

        addresses = {NAMES[nodeid]: ADDRESSES[nodeid] for nodeid in (1, 2)}
        self.kernel = kernel
        self.cluster = Cluster(addresses, kernel=kernel)
        self.machines = {nodeid: self.process(nodeid) for nodeid in (1, 2)}

    def process(self, nodeid: int) -> Machine:
        """Return a new process on a node."""
        node = self.cluster.node(NAMES[nodeid])
        return Machine(node.process(), ADDRESSES[nodeid])

    def configure(self, *nodeids: int) -> None:
        """Tell these nodes of both."""
        for nodeid in nodeids:
            machine = self.machines[nodeid]
            machine.mkdir(CLUSTER)
            for each in (1, 2):
                machine.add_comm(each, ADDRESSES[each], local=each == nodeid)

    def add_members(self, *nodeids: int, weights: tuple[int, int] = (1, 1)) -> None:
        """Give the lockspace both members, on these nodes."""
        for nodeid in nodeids:
            for each in (1, 2):
                self.machines[nodeid].add_member("test", each, weights[each - 1])

    def create(self, *nodeids: int) -> list[Lockspace]:
        """Create the lockspace on these nodes, all at the same time."""
        begun = [self.machines[nodeid].begin_create() for nodeid in nodeids]
        for lockspace, _ in begun:
            lockspace.write("control", "1")
            lockspace.write("event_done", "0")
        for lockspace, pending in begun:
            lockspace.minor = lockspace.machine.result(pending)
        return [lockspace for lockspace, _ in begun]

    def settle(self) -> None:
        """Let everything under way arrive."""
        self.cluster.settle()


@dataclass
class Up:
    """A pair with a lockspace that runs on both, and a file on each."""

    pair: Pair
    spaces: tuple[Lockspace, Lockspace]
    files: tuple[LockFile, LockFile]

    def settle(self) -> None:
        """Let everything under way arrive."""
        self.pair.settle()


@pytest.fixture(params=KERNELS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two nodes of each kernel, not configured."""
    pair = Pair(request.param)
    yield pair
    pair.cluster.check()


@pytest.fixture
def up(pair: Pair) -> Up:
    """Two nodes with a lockspace, node 1 being the directory of every name."""
    return bring_up(pair, weights=(1, 0))


def bring_up(pair: Pair, weights: tuple[int, int] = (1, 1)) -> Up:
    """Bring the lockspace up on both nodes."""
    pair.configure(1, 2)
    pair.add_members(1, 2, weights=weights)
    first, second = pair.create(1, 2)
    return Up(pair, (first, second), (first.open(), second.open()))


def settled(up: Up, lock_id: int, file: LockFile) -> None:
    """Let a request arrive and take its one result: it was granted."""
    up.settle()
    assert file.results() == [Cast(lock_id)]


# ---- recovery -----------------------------------------------------------------------------------


@pytest.mark.row("2 final status")
def test_status_of_two_nodes(up: Up) -> None:
    """The lowest node ends at ff, the other at 55."""
    up.settle()
    assert [space.read("recover_status") for space in up.spaces] == ["ff\n", "55\n"]


@pytest.mark.row("3 create waits for the first recovery", "1.5 member without an address")
def test_create_waits_for_the_other_node(pair: Pair) -> None:
    """The first recovery, and with it create, waits until every member has started."""
    pair.configure(1, 2)
    pair.add_members(1, 2)
    first, first_pending = pair.machines[1].begin_create()
    first.write("control", "1")
    first.write("event_done", "0")
    pair.cluster.advance(10)
    assert not first_pending.done()

    (second,) = pair.create(2)

    assert pair.machines[1].result(first_pending)
    pair.settle()  # 5.10 returns before the recovery has ended
    assert [space.read("recover_status") for space in (first, second)] == ["ff\n", "55\n"]


@pytest.mark.row("3 first recovery fails", "4.4.1 flags between nodes")
def test_first_recovery_that_fails(pair: Pair) -> None:
    """Flags that differ between nodes are EPROTO: offline, a second answer, then the error."""
    pair.configure(1, 2)
    pair.add_members(1, 2)
    first, first_pending = pair.machines[1].begin_create(flags=0x20)
    uevents = pair.machines[1].uevents()
    second, _ = pair.machines[2].begin_create()
    for space in (first, second):
        space.write("control", "1")
        space.write("event_done", "0")

    assert uevents.headers(1) == ["offline@/kernel/dlm/test"]
    assert not first_pending.done()
    first.write("event_done", "0")

    with refused(errno.EPROTO):
        pair.machines[1].result(first_pending)
    assert uevents.headers(2) == ["offline@/kernel/dlm/test", "remove@/kernel/dlm/test"]
    assert not first.exists()


@pytest.mark.row("1.5 directory node", "1.5 weight")
@pytest.mark.parametrize(
    ("weights", "directories"),
    [((1, 0), {1}), ((0, 1), {2}), ((1, 1), {1, 2}), ((0, 0), {1, 2}), ((1, 3), {1, 2})],
)
def test_directory_of_a_name(pair: Pair, weights: tuple[int, int], directories: set[int]) -> None:
    """A name's directory node is one that has weight; all of weight 0 count as 1; nodes agree."""
    up = bring_up(pair, weights)
    names = [b"resource %d" % number for number in range(32)]
    locks = [up.files[0].lock(name, EX) for name in names]
    pair.cluster.advance(0.1)  # not settle(): that lets unused resources go
    for lock_id in locks:
        up.files[0].unlock(lock_id)
    up.files[0].results()

    tossed = parse_toss(up.spaces[0].machine.read("debug/dlm/test_toss"))

    assert {entry.name for entry in tossed} == set(names)
    assert {entry.directory_nodeid for entry in tossed} == directories
    assert {entry.master_nodeid for entry in tossed} == {1}


# ---- a node that leaves and comes back ----------------------------------------------------------


def begin_to_come_back(
    up: Up, *, keep_comm: bool = False, keep_node: bool = False
) -> tuple[Lockspace, Pending]:
    """Let node 2 lose power, boot and join again; node 1 takes it back in one start.

    Returns node 2's lockspace and its create.
    """
    pair, (first, _) = up.pair, up.spaces
    pair.cluster.crash(NAMES[2])
    pair.cluster.restart(NAMES[2])
    first.stop()
    machine = pair.machines[1]
    if not keep_comm:
        machine.rmdir(f"{CLUSTER}/comms/2")
        machine.add_comm(2, ADDRESSES[2])
    if not keep_node:
        machine.rmdir(f"{CLUSTER}/spaces/test/nodes/2")
        machine.add_member("test", 2, 0)
    pair.machines[2] = pair.process(2)
    pair.configure(2)
    pair.add_members(2, weights=(1, 0))
    second, pending = pair.machines[2].begin_create()
    for space in (first, second):
        space.write("control", "1")
    second.write("event_done", "0")
    pair.settle()
    return second, pending


def come_back(up: Up, *, keep_comm: bool = False, keep_node: bool = False) -> Up:
    """The same, to the end of node 2's create."""
    second, pending = begin_to_come_back(up, keep_comm=keep_comm, keep_node=keep_node)
    second.minor = second.machine.result(pending)
    up.settle()
    return Up(up.pair, (up.spaces[0], second), (up.files[0], second.open()))


@pytest.mark.row("1.2 comm sequence", "1.5 new mark", "fact 6")
def test_a_node_that_came_back(up: Up) -> None:
    """With node and comm made again, a node that came back has lost its locks, and locks anew."""
    lost = up.files[1].lock(b"lost", EX)
    settled(up, lost, up.files[1])

    again = come_back(up)

    assert [space.read("recover_status") for space in again.spaces] == ["ff\n", "55\n"]
    mine = again.files[0].lock(b"lost", EX)
    settled(again, mine, again.files[0])
    theirs = again.files[1].lock(b"lost", EX)
    again.settle()
    assert again.files[0].results() == [Bast(mine, EX)]
    again.files[0].unlock(mine)
    again.settle()
    assert again.files[1].results() == [Cast(theirs)]


@pytest.mark.row("fact 6")
def test_a_node_that_came_back_under_its_old_comm(up: Up) -> None:
    """With the old comm in place recovery ends as ever, and locks across the nodes hang.

    Since 6.6 the recovery does not end: the directory's names are not given either.
    """
    settled(up, up.files[1].lock(b"before", EX), up.files[1])
    if KERNELS[up.pair.kernel].numbers_names:
        second, pending = begin_to_come_back(up, keep_comm=True)
        assert [space.read("recover_status") for space in (up.spaces[0], second)] == ["3\n", "1\n"]
        assert second.machine.still_sleeps(pending)
        return
    again = come_back(up, keep_comm=True)
    assert [space.read("recover_status") for space in again.spaces] == ["ff\n", "55\n"]

    again.files[1].lock(b"a", EX)
    again.settle()

    assert again.files[1].results() == []


# ---- locks across nodes -------------------------------------------------------------------------


@pytest.mark.row("4.11 master copies", "4.11 lock ids")
def test_master_copies_take_lock_ids(up: Up) -> None:
    """The copy of another node's lock takes an id of the master's own numbers."""
    first, second = up.files
    assert first.lock(b"a", CR) == 1
    assert second.lock(b"a", CR) == 1
    up.settle()

    assert first.lock(b"a", CR) == 3

    entry = up.spaces[1].entry(1)
    assert (entry.nodeid, entry.remote_id) == (1, 2)


@pytest.mark.row("4.4.2 master copies")
def test_master_copies_are_busy(up: Up) -> None:
    """A lock of another node that is mastered here makes REMOVE EBUSY, too."""
    first, second = up.files
    settled(up, first.lock(b"a", CR), first)
    settled(up, second.lock(b"a", CR), second)
    first.unlock(1)
    up.settle()
    assert first.results() == [unlocked(1)]
    first.close()

    with refused(errno.EBUSY):
        up.spaces[0].machine.result(up.spaces[0].begin_remove(0))


@pytest.mark.row("4.4.4 lock state checks", "4.4.3 lock state checks")
def test_operations_while_a_request_is_on_its_way(up: Up) -> None:
    """Until the master has answered, unlock and convert are EBUSY, and the lock is granted then."""
    first, second = up.files
    settled(up, first.lock(b"a", CR), first)
    lock_id = second.lock(b"a", CR)

    with refused(errno.EBUSY):
        second.unlock(lock_id)
    with refused(errno.EBUSY):
        second.convert(lock_id, PR)

    settled(up, lock_id, second)


@pytest.mark.row("4.4.5 remote request in flight")
def test_deadlock_while_a_request_is_on_its_way(up: Up) -> None:
    """DEADLOCK of a request that the master has not answered yet succeeds and does nothing."""
    first, second = up.files
    settled(up, first.lock(b"a", CR), first)
    lock_id = second.lock(b"a", CR)

    assert second.deadlock(lock_id) == 0

    settled(up, lock_id, second)


@pytest.mark.row("4.4.4 EBUSY of a cancel is success")
def test_cancel_while_a_request_is_on_its_way(up: Up) -> None:
    """CANCEL of such a request succeeds and is remembered: it applies when the answer comes."""
    first, second = up.files
    settled(up, first.lock(b"a", EX), first)
    lock_id = second.lock(b"a", EX)

    assert second.cancel(lock_id) == 0

    up.settle()
    assert [result.status for result in second.whole_results()] == [-0x10001]
    assert up.spaces[1].find(lock_id) is None


@pytest.mark.row("4.4.4 lock state checks")
@pytest.mark.parametrize("waits", [False, True])
def test_force_unlock_while_a_request_is_on_its_way(up: Up, waits: bool) -> None:
    """FORCEUNLOCK of such a request is remembered, too; no second one and no cancel are taken."""
    first, second = up.files
    settled(up, first.lock(b"a", EX if waits else CR), first)
    lock_id = second.lock(b"a", CR)

    assert second.unlock(lock_id, F.FORCEUNLOCK) == 0

    for flags in (F.FORCEUNLOCK, F.CANCEL):
        with refused(errno.EINVAL):
            second.unlock(lock_id, flags)
    up.settle()
    assert second.results() == [*([] if waits else [Cast(lock_id)]), unlocked(lock_id)]
    assert up.spaces[1].find(lock_id) is None


@pytest.mark.row("4.4.4 lock state checks")
def test_operations_while_an_unlock_is_on_its_way(up: Up) -> None:
    """While an unlock is on its way, another is EBUSY, a cancel or a forced one EINVAL."""
    first, second = up.files
    settled(up, first.lock(b"a", CR), first)
    lock_id = second.lock(b"a", CR)
    settled(up, lock_id, second)
    second.unlock(lock_id)

    with refused(errno.EBUSY):
        second.unlock(lock_id)
    for flags in (F.FORCEUNLOCK, F.CANCEL):
        with refused(errno.EINVAL):
            second.unlock(lock_id, flags)

    up.settle()
    assert second.results() == [unlocked(lock_id)]


@pytest.mark.row("4.9 skipping", "4.6 poll of a BAST to be skipped")
def test_bast_that_no_longer_blocks_is_skipped(up: Up) -> None:
    """A blocking AST that crossed the conversion it asks for is never read; up to 6.9 poll sees it.

    Since 6.10 it is skipped before it is queued.
    """
    merged = up.pair.cluster.node(NAMES[2]).profile.merged_results
    first, second = up.files
    holder = second.lock(b"a", EX)
    up.settle()
    assert up.spaces[0].find(1) is None, "node 2 locked first, so it is the master"
    assert second.results() == [Cast(holder)]
    other = first.lock(b"b", NL)
    settled(up, other, first)
    remote = second.lock(b"b", EX)
    settled(up, remote, second)

    waiter = first.lock(b"b", PR)
    assert second.convert(remote, NL) == 0
    assert second.results() == [Cast(remote)]
    up.settle()

    assert second.poll() == (0x41 if merged else 0)
    assert second.results() == []
    assert second.poll() == 0
    assert first.results() == [Cast(waiter)]


@pytest.mark.row("4.7 already unlocking")
def test_close_while_an_unlock_is_on_its_way(up: Up) -> None:
    """A lock whose unlock has not been answered when its file closes goes with the answer."""
    first, second = up.files
    settled(up, first.lock(b"a", CR), first)
    lock_id = second.lock(b"a", CR)
    settled(up, lock_id, second)
    second.unlock(lock_id)

    second.close()
    up.settle()

    assert up.spaces[1].find(lock_id) is None
    assert [lock.lock_id for lock in up.spaces[0].resources()[0].locks] == [1]


@pytest.mark.row("4.4.6 other node")
@pytest.mark.parametrize("all_of_them", [False, True])
def test_purge_on_another_node(up: Up, all_of_them: bool) -> None:
    """PURGE with another member's id ends orphans there: of one process, or all."""
    first, _ = up.files
    dying, kept = up.pair.process(2), up.pair.process(2)
    pids = []
    for name, machine in ((b"a", dying), (b"b", kept)):
        file = LockFile(machine.open_device("dlm_test"))
        lock_id = file.lock(name, EX, F.PERSISTENT)
        settled(up, lock_id, file)
        pids.append(machine.backend.process_id())
        machine.close()
    names = [resource.name for resource in up.spaces[1].resources() if resource.locks]
    assert sorted(names) == [b"a", b"b"]

    assert first.purge(2, 0 if all_of_them else pids[0]) == 0
    up.settle()

    names = [resource.name for resource in up.spaces[1].resources() if resource.locks]
    assert names == ([] if all_of_them else [b"b"])


@pytest.mark.row("4.4.6 remote purge does not wait")
def test_purge_on_another_node_while_stopped(up: Up) -> None:
    """A purge of another member returns at once while the lockspace is stopped here."""
    up.spaces[0].stop()

    assert up.files[0].purge(2, 0) == 0


@pytest.mark.row("3 mutual exclusion")
def test_nodes_exclude_each_other_no_creates(pair: Pair) -> None:
    """The mutual exclusion of creates is one node's own: another node creates meanwhile."""
    pair.configure(1, 2)
    pair.machines[1].begin_create("one")

    pending = pair.machines[2].control().submit(DeviceWrite(create_request("two")), detached=True)

    pair.machines[2].eventually(lambda: pair.machines[2].exists("dlm/two"), "dlm/two")
    assert not pending.done()
