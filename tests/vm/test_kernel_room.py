"""dlm.kernel where the DLM really sleeps: whoever waits in the kernel, this process does not.

Runs in a guest only (tests/vm/run). On a machine without a DLM, FIFOs stand for these sleeps
(tests/unit/kernel/test_helpers.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dlm.kernel import KernelBackend
from dlm.ports import DeviceClose, DeviceRead, OpenFlags
from dlm.terms import LockMode
from tests.contract.machine import SHORT_WHILE, LockFile, Lockspace, Machine
from tests.contract.worlds import KernelWorld

pytestmark = pytest.mark.skipif(
    not os.environ.get("DLM_VM_KERNEL"), reason="needs a guest: run `make vm`"
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine where nothing is configured, and which is left so."""
    world = KernelWorld()
    yield world.machine()
    world.finish(reload=False)


@pytest.fixture
def lockspace(machine: Machine) -> Lockspace:
    """A lockspace that runs."""
    return machine.bring_up("test")


def lock_in(backend: KernelBackend, name: bytes) -> LockFile:
    """Take a lock in a process of its own."""
    file = LockFile(Machine(backend).open_device("dlm_test"))
    file.granted(name, LockMode.EX)
    return file


def held(lockspace: Lockspace) -> list[bytes]:
    """Return the names of the resources that are locked."""
    return [resource.name for resource in lockspace.resources() if resource.locks]


def is_freed(lockspace: Lockspace) -> None:
    """Wait until no resource is locked any more."""
    lockspace.machine.eventually(lambda: not held(lockspace), "the end of the locks")


def test_close_of_the_backend_does_not_wait_for_a_stopped_lockspace(lockspace: Lockspace) -> None:
    """close() comes back while the kernel sleeps over the file; the file goes with the start."""
    backend = KernelBackend(patience=SHORT_WHILE)
    lock_in(backend, b"held")
    lockspace.stop()
    backend.close()
    assert held(lockspace) == [b"held"]
    lockspace.start()
    is_freed(lockspace)


def test_a_submitted_close_sleeps_elsewhere(lockspace: Lockspace) -> None:
    """submit(DeviceClose()) is under way until the lockspace runs again."""
    backend = KernelBackend()
    file = lock_in(backend, b"held")
    lockspace.stop()
    pending = file.device.submit(DeviceClose())
    assert not pending.wait(SHORT_WHILE)
    lockspace.start()
    assert pending.result() is None
    assert held(lockspace) == []
    pending.close()
    backend.close()


def test_a_process_exits_while_its_lockspace_is_stopped(lockspace: Lockspace) -> None:
    """close() of another process comes back although its exit(2) sleeps, and that ends later."""
    other = KernelBackend(patience=SHORT_WHILE).spawn_process()
    pid = other.process_id()
    lock_in(other, b"held")
    lockspace.stop()
    other.close()
    assert os.path.exists(f"/proc/{pid}")
    lockspace.start()
    is_freed(lockspace)


def test_the_exit_of_a_process_frees_its_locks(lockspace: Lockspace) -> None:
    """After close() of another process its locks are gone, even when we polled its file."""
    other = KernelBackend().spawn_process()
    file = lock_in(other, b"held")
    assert file.device.fileno() >= 0
    assert [lock.pid for resource in lockspace.resources() for lock in resource.locks] == [
        other.process_id()
    ]
    other.close()
    assert held(lockspace) == []


def test_a_create_that_was_given_up_is_finished_by_the_kernel(machine: Machine) -> None:
    """close() of a sleeping CREATE comes back; its helper dies only when the kernel lets it."""
    machine.configure()
    machine.add_member("test", 1)
    lockspace, pending = machine.begin_create("test", detached=False)
    pending.close()
    machine.backend.pause(SHORT_WHILE)
    assert lockspace.exists()
    assert not lockspace.has_device()
    lockspace.write("control", "1")
    lockspace.write("event_done", "0")
    machine.eventually(lockspace.has_device, "the end of the create")


def test_a_read_that_was_given_up_lets_go_of_the_file(lockspace: Lockspace) -> None:
    """A sleeping read ends at once when it is closed, so that the next close is the last."""
    backend = KernelBackend()
    file = lock_in(backend, b"held")
    reading = Machine(backend).open_device("dlm_test", OpenFlags.RDWR)
    pending = reading.submit(DeviceRead(104))
    assert not pending.wait(SHORT_WHILE)
    LockFile(reading).lock(b"other", LockMode.EX)
    assert len(pending.result()) == 72
    pending.close()
    pending = reading.submit(DeviceRead(104))
    assert not pending.wait(SHORT_WHILE)
    reading.close()
    assert sorted(held(lockspace)) == [b"held", b"other"]
    pending.close()
    lockspace.machine.eventually(lambda: held(lockspace) == [b"held"], "the end of the reader")
    file.close()
    backend.close()


def test_events_of_the_real_kernel(machine: Machine) -> None:
    """The subscription gives the kernel's own events, header and keys."""
    backend = KernelBackend()
    source = backend.uevents()
    machine.bring_up("test")
    seen: list[str] = []
    while "add@/devices/virtual/misc/dlm_test" not in seen:
        assert source.wait(30)
        seen += [event.header for event in source.read_nowait()]
    assert seen.index("add@/kernel/dlm/test") < seen.index("online@/kernel/dlm/test")
    backend.close()
