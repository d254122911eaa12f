"""Another process on the same machine: the same backend, whose system calls are made elsewhere."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.kernel import KernelBackend, helper
from dlm.ports import DeviceRead, DeviceWrite, OpenFlags, ReadAttribute, WriteAttribute
from tests.unit.kernel.trees import PATIENCE, Fifo, make_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree."""
    return make_tree(tmp_path)


@pytest.fixture
def other(root: Path) -> Iterator[KernelBackend]:
    """Another process on it."""
    backend = KernelBackend(str(root)).spawn_process()
    yield backend
    backend.close()


def test_it_is_a_real_process(other: KernelBackend) -> None:
    """It has a pid of its own, and has none once it was closed."""
    pid = other.process_id()
    assert pid != os.getpid()
    assert f"{helper.__file__}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    other.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ProcessLookupError):
        other.read_attribute("dlm/test/id")


def test_it_sees_the_same_tree(other: KernelBackend, root: Path) -> None:
    """Every call of the seam works in it."""
    assert other.read_attribute("dlm/test/id") == b"5\n"
    assert other.write_attribute("dlm/test/id", b"9") == 1
    other.make_directory("config/dlm/a")
    assert other.list_directory("config/dlm") == ["a"]
    assert other.stat("config/dlm/a").inode == (root / "sys/kernel/config/dlm/a").stat().st_ino
    other.remove_directory("config/dlm/a")
    assert other.misc_devices() == {"dlm_test": 121, "dlm-control": 124}
    other.state_directory().write("test", b"state")
    assert (root / "run/dlm/test").read_bytes() == b"state"
    assert other.describe() == f"kernel:root={root}"
    assert other.now() >= 0


def test_its_errors_are_errors_here(other: KernelBackend, root: Path) -> None:
    """A refusal there is raised here with errno and path, and the next call is not confused."""
    with pytest.raises(FileNotFoundError) as caught:
        other.read_attribute("dlm/absent")
    assert caught.value.filename == f"{root}/sys/kernel/dlm/absent"
    assert other.read_attribute("dlm/test/id") == b"5\n"


def test_its_files_are_its_own(other: KernelBackend, root: Path) -> None:
    """A device that it opens is open in it; its end closes the file."""
    fifo = Fifo(root / "dev/dlm_test")
    device = other.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    os.write(writer, b"abc")
    assert device.read(9) == b"abc"
    other.close()
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_its_device_can_be_polled_here(other: KernelBackend, root: Path) -> None:
    """fileno() is a descriptor of this process, that does not keep the device open beyond it."""
    fifo = Fifo(root / "dev/dlm_test")
    device = other.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    number = device.fileno()
    assert number == device.fileno()
    assert select.select([number], [], [], 0) == ([], [], [])
    assert device.poll(0) == 0
    os.write(writer, b"abc")
    assert select.select([number], [], [], PATIENCE)[0] == [number]
    assert device.poll(PATIENCE) == select.POLLIN | select.POLLRDNORM
    assert device.read(9) == b"abc"
    device.close()
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


def test_a_submitted_call_leaves_it_free(other: KernelBackend, root: Path) -> None:
    """A call that sleeps has a helper of its own: the process itself goes on meanwhile."""
    Fifo(root / "sys/kernel/dlm/test/control").leave()
    pending = other.submit(ReadAttribute("dlm/test/control"))
    assert not pending.done()
    assert other.read_attribute("dlm/test/id") == b"5\n"
    writer = os.open(root / "sys/kernel/dlm/test/control", os.O_WRONLY)
    os.write(writer, b"woken")
    os.close(writer)
    assert pending.wait(PATIENCE)
    assert pending.result() == b"woken"
    pending.close()


def test_a_submitted_device_call(other: KernelBackend, root: Path) -> None:
    """A submitted call on its device is made on its open file."""
    (root / "dev/dlm_test").write_bytes(b"0123456789")
    device = other.open_device("dlm_test")
    assert device.read(2) == b"01"
    for call, result in ((DeviceRead(3), b"234"), (DeviceWrite(b"XY"), 2)):
        pending = device.submit(call)
        assert pending.result() == result
        pending.close()
    assert device.read(9) == b"789"


def test_a_detached_call_outlives_it(other: KernelBackend, root: Path) -> None:
    """A detached call goes on after the exit of the process that it was submitted in."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    other.submit(WriteAttribute("dlm/test/control", b"late"), detached=True).close()
    other.close()
    assert fifo.path.read_bytes() == b"late"


def test_a_process_that_was_killed(other: KernelBackend) -> None:
    """A call on a process that somebody killed gives EINTR or EPIPE, and closing it is fine."""
    pid = other.process_id()
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(OSError) as caught:
        other.read_attribute("dlm/test/id")
    assert caught.value.errno in {errno.EINTR, errno.EPIPE, errno.ECONNRESET}
    other.close()


def test_an_interrupted_call_ends_it(other: KernelBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in the middle of a call its late answer cannot pass for another call's."""

    def interrupt(_channel: int) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(helper, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            other.read_attribute("dlm/test/id")
    with pytest.raises(ProcessLookupError):
        other.read_attribute("dlm/test/id")


def test_a_third_process(other: KernelBackend) -> None:
    """A process can be asked for another one, which outlives it."""
    third = other.spawn_process()
    other.close()
    assert third.read_attribute("dlm/test/id") == b"5\n"
    third.close()
