"""Locks across nodes: what one node does, the others see.

On three emulated nodes here, and on three guests with real kernels in tests/vm/cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dlm.abi.device import Command, LockRequest
from dlm.locks import DeadlockError, LockFlag, Lockspace, LockTimedOutError, WouldBlockError
from dlm.terms import LockMode
from tests.locks.worlds import NAME, PATIENCE, Places

NL, CR, CW, PR, PW, EX = LockMode

COMPATIBLE = {
    NL: {NL, CR, CW, PR, PW, EX},
    CR: {NL, CR, CW, PR, PW},
    CW: {NL, CR, CW},
    PR: {NL, CR, PR},
    PW: {NL, CR},
    EX: {NL},
}


@pytest.fixture
def spaces(three: Places) -> Iterator[list[Lockspace]]:
    """A program on each node; in the end no lock is left on any."""
    opened = [Lockspace.open(three.process(node), NAME) for node in three.nodes]
    yield opened
    for space in opened:
        space.close()
    for node in three.nodes:
        three.eventually(lambda node=node: three.locks(node) == [], "the end of all locks", node)


def raw_lock(space: Lockspace, name: bytes, mode: LockMode) -> int:
    """Take a lock by a request of our own, so that more can be begun without waiting."""
    lock_id, completion = space.submit(LockRequest(mode=mode, name=name))
    assert completion.wait(PATIENCE)
    assert completion.status == 0
    return lock_id


@pytest.mark.parametrize("held", LockMode)
def test_modes_exclude_each_other_across_nodes(spaces: list[Lockspace], held: LockMode) -> None:
    """What node 1 holds decides what nodes 2 and 3 get, whoever is the resource's master."""
    for name in ("here", "there", "elsewhere"):
        with spaces[0].lock(name, held):
            for space in spaces[1:]:
                for asked in LockMode:
                    try:
                        space.lock(name, asked, flags=LockFlag.NOQUEUE).unlock()
                    except WouldBlockError:
                        assert asked not in COMPATIBLE[held], (name, asked)
                    else:
                        assert asked in COMPATIBLE[held], (name, asked)


def test_a_waiter_is_granted_when_another_node_lets_go(
    three: Places, spaces: list[Lockspace]
) -> None:
    """Node 2 waits for what node 1 holds, and has it as soon as node 1 unlocks."""
    lock_id = raw_lock(spaces[0], b"res", EX)
    unlock = LockRequest(command=Command.UNLOCK, lock_id=lock_id)
    three.later(0.3, lambda: spaces[0].submit(unlock))
    with spaces[1].lock("res", EX, timeout=PATIENCE):
        assert three.held(2) == [(b"res", EX)]
        three.eventually(lambda: three.held(1) == [], "the end of node 1's lock")


def test_a_holder_is_told_who_waits_on_another_node(three: Places, spaces: list[Lockspace]) -> None:
    """The mode that node 3 asks for reaches the holder on node 1."""
    with spaces[0].lock("res", EX) as lock:
        for mode in (CR, PR, EX):
            with pytest.raises(LockTimedOutError):
                spaces[2].lock("res", mode, timeout=0.3)
            three.eventually(seen(spaces[0], lambda mode=mode: lock.blocking == mode), "the news")


def seen(space: Lockspace, condition: Callable[[], object]) -> Callable[[], object]:
    """Return a condition that reads what has come before it looks."""

    def look() -> object:
        space.dispatch()
        return condition()

    return look


def test_a_timeout_leaves_nothing_on_any_node(three: Places, spaces: list[Lockspace]) -> None:
    """The cancel travels to the master; afterwards only the holder's lock is left."""
    with spaces[0].lock("res", EX):
        for space in spaces[1:]:
            with pytest.raises(LockTimedOutError):
                space.lock("res", PR, timeout=0.3)
        assert [three.locks(node) == [] for node in three.nodes] == [False, True, True]


def test_a_conversion_deadlock_across_nodes(three: Places, spaces: list[Lockspace]) -> None:
    """Two nodes that read and both want to write: the second is refused and keeps PR."""
    first = raw_lock(spaces[0], b"res", PR)
    with spaces[1].lock("res", PR) as second:
        spaces[0].submit(LockRequest(mode=EX, flags=LockFlag.CONVERT, lock_id=first))
        three.eventually(lambda: any(e.waits for e in three.locks(1)), "one that waits")
        three.settle()
        with pytest.raises(DeadlockError):
            second.convert(EX, timeout=PATIENCE)
        assert second.mode == PR
    three.eventually(lambda: three.held(1) == [(b"res", EX)], "the grant of the first")


def test_a_counter_that_three_nodes_share(spaces: list[Lockspace]) -> None:
    """A value block, counted up by each node in turn, misses nothing."""
    anchors = [space.lock("count", NL, value_block=True) for space in spaces]
    for turn in range(30):
        lock = anchors[turn % 3]
        lock.convert(EX)
        lock.value = (int.from_bytes(lock.value[:8], "big") + 1).to_bytes(8, "big")
        lock.convert(NL)
    anchors[0].convert(PR)
    assert int.from_bytes(anchors[0].value[:8], "big") == 30


def test_a_process_that_ends_frees_others_on_other_nodes(
    three: Places, spaces: list[Lockspace]
) -> None:
    """A program on node 3 ends in EX: node 1 gets the lock, and its value is not to be trusted."""
    with spaces[0].lock("res", EX, value_block=True) as lock:
        lock.value = b"written once"
        lock.convert(NL)
        other = three.separate(3)
        Lockspace.open(other, NAME).lock("res", EX, value_block=True)
        three.later(0.3, other.close)
        lock.convert(PR, timeout=PATIENCE)
        assert not lock.value_valid


def test_orphans_of_another_node_are_purged_there(three: Places, spaces: list[Lockspace]) -> None:
    """A purge with a node id reaches that node's orphans and no others."""
    for node in three.nodes:
        with Lockspace.open(three.process(node), NAME) as lockspace:
            lockspace.lock(f"res{node}", EX, persistent=True)
    three.settle()
    spaces[0].purge(nodeid=2)
    three.eventually(lambda: three.held(2) == [], "the end of node 2's orphan", 2)
    assert three.held(1) == [(b"res1", EX)]
    assert three.held(3) == [(b"res3", EX)]
    for node, space in zip(three.nodes, spaces, strict=True):
        if node != 2:
            space.adopt(f"res{node}", EX).unlock()


def test_a_stop_and_a_start_keep_every_lock(three: Places, spaces: list[Lockspace]) -> None:
    """All nodes stop and recover: held locks stay, a value stays, and locking goes on."""
    with spaces[0].lock("res", EX, value_block=True) as lock, spaces[1].read("other"):
        lock.value = b"kept"
        lock.convert(PR)
        three.stop()
        three.start()
        assert three.held(1) == [(b"res", PR)]
        assert three.held(2) == [(b"other", PR)]
        with spaces[2].lock("res", PR, value_block=True, timeout=PATIENCE) as reader:
            assert reader.value == b"kept".ljust(32, b"\0")
            assert reader.value_valid
