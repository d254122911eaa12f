"""Lockspaces created, opened, released by a program, while somebody else manages membership."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from dlm.locks import (
    Ending,
    LockBusyError,
    LockError,
    Lockspace,
    LockTimedOutError,
    LockUsageError,
    NoLockspaceError,
)
from dlm.terms import LockMode
from tests.locks.conftest import ON_KERNEL
from tests.locks.worlds import NAME, PATIENCE, Places

EX = LockMode.EX


def is_there(world: Places, name: str) -> bool:
    """Say whether a lockspace is on node 1, joining or running."""
    return name in world.observers[1].list_directory("dlm")


def answer_join(world: Places, name: str) -> None:
    """Be the membership manager: let a lockspace that joins run on node 1."""
    world.eventually(lambda: is_there(world, name), f"the join of {name}")
    world.control().lockspace(name).start(1, [1])


def answer_leave(world: Places, name: str) -> None:
    """Be the membership manager: let a lockspace that leaves go."""
    devices = world.observers[1].misc_devices
    world.eventually(lambda: f"dlm_{name}" not in devices(), f"the leave of {name}")
    world.observers[1].write_attribute(f"dlm/{name}/event_done", b"0")


def created(world: Places, name: str, mode: int = 0o600) -> Lockspace:
    """Create a lockspace, answered by a thread."""
    world.later(0.0, lambda: answer_join(world, name))
    return Lockspace.create(world.process(), name, mode, timeout=PATIENCE)


def released(world: Places, space: Lockspace, *, force: bool = False) -> None:
    """Release a lockspace, answered by a thread; it must be gone."""
    world.later(0.0, lambda: answer_leave(world, space.name))
    space.release(force, timeout=PATIENCE)
    assert not is_there(world, space.name)


def test_create_lock_and_release(live: Places) -> None:
    """A program that makes its own lockspace can lock in it, and takes it away again."""
    space = created(live, "mine")
    assert space.name == "mine"
    space.lock("res", EX).unlock()
    released(live, space)
    assert space.closed
    with pytest.raises(NoLockspaceError):
        Lockspace.open(live.process(), "mine")


def test_create_of_one_that_is_there(live: Places) -> None:
    """It has one more user; its release leaves the lockspace to the others."""
    first = created(live, "mine")
    second = Lockspace.create(live.process(), "mine", timeout=PATIENCE)
    second.release(timeout=PATIENCE)
    assert is_there(live, "mine")
    first.lock("res", EX).unlock()
    released(live, first)


def test_an_exclusive_create(live: Places) -> None:
    """EEXIST when the lockspace is there."""
    with pytest.raises(LockError) as caught:
        Lockspace.create(live.process(), NAME, exclusive=True, timeout=PATIENCE)
    assert caught.value.errno == errno.EEXIST


def test_a_create_that_nobody_answers(live: Places) -> None:
    """Its timeout comes; the join goes on by itself and can still be answered."""
    with pytest.raises(LockTimedOutError) as caught:
        Lockspace.create(live.process(), "mine", timeout=0.5)
    assert caught.value.ending is Ending.LEFT
    answer_join(live, "mine")
    live.eventually(lambda: "dlm_mine" in live.observers[1].misc_devices(), "the device")
    live.control().lockspace("mine").wait_done(1)
    released(live, Lockspace.open(live.process(), "mine"))


def test_the_default_lockspace(live: Places) -> None:
    """It is created by the first and opened by the next."""
    live.later(0.0, lambda: answer_join(live, "default"))
    first = Lockspace.default(live.process(), timeout=PATIENCE)
    second = Lockspace.default(live.process(), timeout=PATIENCE)
    with first.lock("res", EX):
        assert second.try_lock("res", EX) is None
    second.close()
    released(live, first)


def test_release_with_locks(live: Places) -> None:
    """One's own locks and others' are EBUSY; with force the lockspace goes with all of them."""
    space = created(live, "mine")
    lock = space.lock("res", EX)
    with pytest.raises(LockBusyError):
        space.release(timeout=PATIENCE)
    assert lock.held
    assert not space.closed
    released(live, space, force=True)


def test_a_close_while_it_is_stopped(live: Places) -> None:
    """Past its timeout the close goes on by itself, and the locks go with the start."""
    space = Lockspace.open(live.process(), NAME)
    space.lock("res", EX)
    live.stop()
    with pytest.raises(LockTimedOutError) as caught:
        space.close(timeout=0.3)
    assert caught.value.ending is Ending.LEFT
    assert space.closed
    live.start()
    live.eventually(lambda: live.locks() == [], "the end of the lock")


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "x" * 65])
def test_names_that_no_lockspace_has(live: Places, name: str) -> None:
    """Refused before anything is opened."""
    with pytest.raises(LockUsageError):
        Lockspace.open(live.process(), name)


@pytest.mark.skipif(not ON_KERNEL, reason="looks at a device node of a kernel: run `make vm`")
def test_the_mode_of_a_created_lockspace(live: Places) -> None:
    """Who else may open the device is said when it is created."""
    space = created(live, "mine", 0o660)
    assert stat.S_IMODE(os.stat("/dev/dlm_mine").st_mode) == 0o660
    released(live, space)
