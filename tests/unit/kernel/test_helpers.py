"""Calls in helper processes: they sleep, and nobody waits for them who does not want to.

A FIFO stands for the DLM: opening or reading one sleeps until somebody writes.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dlm.kernel import KernelBackend, OwnSyscalls, helper
from dlm.ports import DeviceClose, DeviceRead, DeviceWrite, OpenFlags, ReadAttribute
from tests.unit.kernel.trees import PATIENCE, Fifo, make_tree, nobody_reads


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree."""
    return make_tree(tmp_path)


@pytest.fixture
def backend(root: Path) -> KernelBackend:
    """A backend on it."""
    return KernelBackend(str(root))


def run_script(root: Path, script: str) -> subprocess.Popen[bytes]:
    """Start a Python process with a backend on the tree."""
    opening = f"""
from dlm.kernel import KernelBackend
from dlm.ports import *
B = KernelBackend({str(root)!r})
"""
    return subprocess.Popen(
        [sys.executable, "-c", opening + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_call_that_sleeps_is_not_done(backend: KernelBackend, root: Path) -> None:
    """done() and wait() tell a sleeping call from a returned one; result() may be asked twice."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    assert not pending.done()
    assert not pending.wait(0)
    writer = os.open(fifo.path, os.O_WRONLY)  # returns when the helper has come to open the FIFO
    os.write(writer, b"woken")
    assert not pending.done()
    os.close(writer)
    assert pending.wait(PATIENCE)
    assert pending.done()
    assert pending.result() == b"woken"
    assert pending.result() == b"woken"
    pending.close()
    pending.close()


def test_submit_returns_when_the_call_begins(
    backend: KernelBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that takes long to start cannot make its call after what is done next here."""
    monkeypatch.chdir(root)
    Fifo(root / "sys/kernel/dlm/test/control").leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    # Where a helper goes once it has started; until then it is where its starter is.
    assert os.readlink(f"/proc/{helper._children[-1]}/cwd") == "/"
    pending.close()


def test_a_device_call_is_made_on_the_same_open_file(backend: KernelBackend, root: Path) -> None:
    """A helper writes to and reads from the very file that is open here, not to one of its own."""
    (root / "dev/dlm_test").write_bytes(b"0123456789")
    device = backend.open_device("dlm_test")
    assert device.read(2) == b"01"
    reading = device.submit(DeviceRead(3))
    assert reading.result() == b"234"
    writing = device.submit(DeviceWrite(b"XY"))
    assert writing.result() == 2
    assert device.read(9) == b"789"
    reading.close()
    writing.close()
    backend.close()


def test_the_error_of_a_device_call_names_the_device(backend: KernelBackend, root: Path) -> None:
    """A refusal comes back from a helper with errno and name."""
    (root / "dev/dlm_test").write_bytes(b"")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    pending = device.submit(DeviceWrite(b"x"))
    with pytest.raises(OSError) as caught:
        pending.result()
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, f"{root}/dev/dlm_test")
    pending.close()
    backend.close()


def test_closing_a_pending_call_kills_it(backend: KernelBackend, root: Path) -> None:
    """close() ends the helper of a call that is not detached, in the middle of its sleep."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    writer = os.open(fifo.path, os.O_WRONLY)  # returns when the helper is in its call
    pending.close()
    assert nobody_reads(writer)
    os.close(writer)


def test_a_pending_call_that_is_closed_at_once(backend: KernelBackend, root: Path) -> None:
    """A helper whose call is given up before it begins does not begin it, or ends it."""
    fifo = Fifo(root / "dev/dlm_test")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    pending = device.submit(DeviceRead(1))
    device.close()
    pending.close()
    assert nobody_reads(writer)
    os.close(writer)


def test_a_pending_call_that_is_forgotten_is_closed(backend: KernelBackend, root: Path) -> None:
    """What is dropped without close() does not stay behind."""
    fifo = Fifo(root / "dev/dlm_test")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    pending = device.submit(DeviceRead(1))
    device.close()
    del pending
    assert nobody_reads(writer)
    os.close(writer)


def test_a_killed_process_takes_its_calls_along(root: Path) -> None:
    """Calls that are not detached end with their process, even when it is killed by SIGKILL."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    script = 'pending = B.submit(ReadAttribute("dlm/test/control")); input()'
    with run_script(root, script) as process:
        writer = os.open(fifo.path, os.O_WRONLY)  # returns when the helper is in its call
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert nobody_reads(writer)
    os.close(writer)


def test_a_detached_call_outlives_its_process(root: Path) -> None:
    """A detached call that sleeps lets its process exit at once, and is made all the same."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    script = 'B.submit(WriteAttribute("dlm/test/control", b"late"), detached=True)'
    with run_script(root, script) as process:
        assert process.wait(PATIENCE) == 0
    assert fifo.path.read_bytes() == b"late"


def test_closing_a_detached_call_lets_it_go_on(backend: KernelBackend, root: Path) -> None:
    """close() of a detached call is only the end of our interest."""
    fifo = Fifo(root / "dev/dlm_test")
    fifo.leave()
    pending = backend.submit(ReadAttribute("../../dev/dlm_test"), detached=True)
    pending.close()
    writer = os.open(fifo.path, os.O_WRONLY)  # returns when somebody reads
    os.close(writer)


def test_a_helper_that_was_killed(backend: KernelBackend, root: Path) -> None:
    """A call whose process was killed by somebody else gives EINTR."""
    Fifo(root / "sys/kernel/dlm/test/control").leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    os.kill(helper._children[-1], signal.SIGKILL)
    with pytest.raises(InterruptedError):
        pending.result()
    pending.close()


def test_a_helper_survives_a_late_signal(backend: KernelBackend, root: Path) -> None:
    """SIGIO that is not for the end of the channel ends no call: a request may bring one late."""
    fifo = Fifo(root / "sys/kernel/dlm/test/control")
    fifo.leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    writer = os.open(fifo.path, os.O_WRONLY)  # opens once the helper has: it is in its call
    os.kill(helper._children[-1], signal.SIGIO)
    assert not pending.wait(0.05)
    os.write(writer, b"woken")
    os.close(writer)
    assert pending.result() == b"woken"
    pending.close()


def test_a_helper_has_a_session_of_its_own(backend: KernelBackend, root: Path) -> None:
    """A terminal's Ctrl-C does not reach a helper."""
    Fifo(root / "sys/kernel/dlm/test/control").leave()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    pid = helper._children[-1]
    assert os.getsid(pid) == pid
    pending.close()


def ended_helper(pid: int) -> None:
    """Wait for the end of a helper without collecting it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_close_collects_the_helper(backend: KernelBackend) -> None:
    """A helper that has ended is a zombie no longer than until its call is closed."""
    pending = backend.submit(ReadAttribute("dlm/test/id"))
    pid = helper._children[-1]
    ended_helper(pid)
    pending.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_next_start_collects_the_helpers_that_have_ended(backend: KernelBackend) -> None:
    """Helpers that ended after their call was closed do not pile up."""
    pending = backend.submit(ReadAttribute("dlm/test/id"), detached=True)
    pid = helper._children[-1]
    pending.close()
    if pid in helper._children:  # it had not ended yet, which is usual
        ended_helper(pid)
    later = backend.submit(ReadAttribute("dlm/test/id"))
    assert not Path(f"/proc/{pid}").exists()
    later.close()


def test_a_helper_holds_no_other_file(backend: KernelBackend, root: Path) -> None:
    """A file of this process that a helper was not given is not open in it."""
    sleeping = Fifo(root / "sys/kernel/dlm/test/control")
    sleeping.leave()
    fifo = Fifo(root / "dev/dlm_test")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    leaked = os.open(root / "dev/dlm_test", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    writer = fifo.open_writer()
    pending = backend.submit(ReadAttribute("dlm/test/control"))
    woken = os.open(sleeping.path, os.O_WRONLY)  # the helper is in the middle of its call
    device.close()
    os.close(leaked)
    assert nobody_reads(writer)
    os.close(woken)
    assert pending.result() == b""
    pending.close()
    os.close(writer)


# ---- who closes last ----------------------------------------------------------------------------


def test_a_submitted_close_is_the_helpers(backend: KernelBackend, root: Path) -> None:
    """submit(DeviceClose()) closes the device here at once, and for good in the helper."""
    fifo = Fifo(root / "dev/dlm_test")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    pending = device.submit(DeviceClose())
    with pytest.raises(OSError, match="closed") as caught:
        device.read(1)
    assert caught.value.errno == errno.EBADF
    assert pending.result() is None
    assert nobody_reads(writer)
    pending.close()
    device.close()
    os.close(writer)


def test_a_helper_lets_go_before_it_answers(backend: KernelBackend, root: Path) -> None:
    """After result() the close here is the last: nobody has the file any more when it returns."""
    fifo = Fifo(root / "dev/dlm_test")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    writer = fifo.open_writer()
    os.write(writer, b"x")
    pending = device.submit(DeviceRead(1))
    assert pending.result() == b"x"
    device.close()
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"y")
    pending.close()
    os.close(writer)


class StuckSyscalls(OwnSyscalls):
    """System calls on a machine where every helper sleeps for ever."""

    def __init__(self) -> None:
        self.channels: list[int] = []

    def start(self, files: tuple[int, ...]) -> int:  # noqa: ARG002 - nobody is there to get them
        """Return the channel of a helper that has begun its call."""
        ours, theirs = (end.detach() for end in socket.socketpair())
        helper.send(theirs, helper.BEGUN)
        self.channels.append(theirs)
        return ours


def test_close_never_hangs(root: Path) -> None:
    """Files whose closing sleeps are left to a helper, and are closed in this process."""
    for name in ("dlm_a", "dlm_b"):
        (root / f"dev/{name}").write_bytes(b"")
    syscalls = StuckSyscalls()
    backend = KernelBackend(str(root), syscalls=syscalls, patience=0)
    devices = [backend.open_device(name) for name in ("dlm_a", "dlm_b")]
    numbers = [device.fileno() for device in devices]
    backend.close()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    assert len(syscalls.channels) == 1
    os.close(syscalls.channels[0])
    backend.close()


def test_close_closes_everything(backend: KernelBackend, root: Path) -> None:
    """Without a reason to sleep, close() has closed every device for good when it returns."""
    writers = []
    for name in ("dlm_a", "dlm_b"):
        fifo = Fifo(root / "dev" / name)
        backend.open_device(name, flags=OpenFlags.RDONLY)
        writers.append(fifo.open_writer())
    backend.close()
    for writer in writers:
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        os.close(writer)
