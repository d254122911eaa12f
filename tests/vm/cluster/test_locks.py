"""The lock API on three guests: the tests of tests/locks/test_nodes.py, and the death of a node.

The programs run here, each as a process of a guest whose kernel it calls over a serial port. One
set of guests serves all tests of the file, for booting it takes a minute; each leaves no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dlm.abi.device import LockRequest
from dlm.locks import Ending, Lockspace, LockTimedOutError
from dlm.ports import Backend
from dlm.terms import LockMode
from tests.locks.stress import stress
from tests.locks.test_nodes import *  # noqa: F403 - the very same tests, on other nodes
from tests.locks.worlds import NAME, PATIENCE, Later, Places
from tests.vm.guests import Guest, Lab

NL, EX = LockMode.NL, LockMode.EX


class Guests(Places):
    """Three guests with the lockspace ``test``."""

    def __init__(self, guests: list[Guest]) -> None:
        super().__init__(tuple(each.node_id for each in guests))
        self.guests = {each.node_id: each for each in guests}
        self._stack = ExitStack()
        self._threads: list[Later] = []
        self.observers = {node: self.process(node) for node in self.nodes}
        self.bring_up()

    def address(self, node: int) -> str:
        """Return the address of a guest."""
        return self.guests[node].address

    def process(self, node: int = 1) -> Backend:
        """Return a new process in a guest."""
        return self._stack.enter_context(self.guests[node].backend())

    separate = process

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Let a thread do something in so many seconds; what it raises fails the file's tests."""
        self._threads.append(Later(seconds, action))

    def settle(self) -> None:
        """Let a while pass in which what is under way arrives."""
        self.observers[self.nodes[0]].pause(0.5)

    def finish(self) -> None:
        """End every process."""
        with self._stack:
            for thread in self._threads:
                thread.finish()


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[Guests]:
    """Three guests that have booted, with the lockspace running on all."""
    world = Guests(lab.boot())
    yield world
    world.finish()
    lab.power_off()


def test_everything_at_once_on_three_nodes(three: Guests) -> None:
    """Threads and tasks on all three nodes, each by a connection of its own: nothing is left."""
    turn = iter(range(1000))
    ledger = stress(lambda: three.process(next(turn) % 3 + 1), 20, tasks=12)
    assert not ledger.wrong, ledger.wrong[:10]
    assert ledger.counts["locked"] > 0
    assert ledger.counts["LockTimedOutError"] > 0
    for node in three.nodes:
        three.eventually(lambda node=node: three.locks(node) == [], "the end of all locks", node)


def test_the_death_of_a_node(three: Guests) -> None:
    """Node 3 loses power in EX: once the others have recovered, one has the lock, and is warned.

    What was asked for the first time and given up before anybody noticed can be had afterwards: a
    CANCEL of such a request makes the kernel panic there (docs/hazards.md; tests/locks/
    test_given_up.py has the same on emulated nodes).
    """
    names = [f"new{number}" for number in range(12)]
    endings = set()
    with Lockspace.open(three.process(1), NAME) as space:
        lock = space.lock("res", EX, value_block=True)
        lock.value = b"written once"
        lock.convert(NL)
        doomed = Lockspace.open(three.process(3), NAME)
        doomed.lock("res", EX, value_block=True)
        three.guests[3].power_cut()
        for name in names:  # those that node 3 is to look up are not answered
            try:
                space.lock(name, timeout=0.3).unlock()
            except LockTimedOutError as error:
                endings.add(error.ending)
        assert endings == {Ending.LEFT}
        with Lockspace.open(three.process(1), NAME) as quitter:
            for name in names:
                quitter.submit(LockRequest(mode=EX, name=f"{name}, too".encode()))
        for node in (1, 2):
            three.control(node).lockspace(NAME).stop()
        for node in (1, 2):
            three.control(node).lockspace(NAME).start(2, [1, 2])
        for node in (1, 2):
            three.control(node).lockspace(NAME).wait_done(2)
        lock.convert(LockMode.PR, timeout=PATIENCE)
        assert not lock.value_valid
        lock.unlock()
        for name in (*names, *(f"{name}, too" for name in names)):
            for other in (space, Lockspace.open(three.process(1), NAME)):
                other.lock(name, timeout=PATIENCE).unlock(timeout=PATIENCE)
