"""The backend on a tree below another root: paths, texts, errors."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from dlm.kernel import KernelBackend
from dlm.ports import (
    Call,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    ReadAttribute,
    RemoveDirectory,
    Stat,
    StatPath,
    WriteAttribute,
)
from tests.unit.kernel.trees import make_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree."""
    return make_tree(tmp_path)


@pytest.fixture
def backend(root: Path) -> KernelBackend:
    """A backend on it."""
    return KernelBackend(str(root))


def test_attributes_are_below_sys_kernel(backend: KernelBackend, root: Path) -> None:
    """A path of the seam is below ROOT/sys/kernel; a write is one write(2) without truncation."""
    assert backend.read_attribute("dlm/test/id") == b"5\n"
    assert backend.write_attribute("dlm/test/id", b"7") == 1
    assert (root / "sys/kernel/dlm/test/id").read_bytes() == b"7\n"


def test_an_attribute_is_read_to_its_end(backend: KernelBackend, root: Path) -> None:
    """What does not fit one read(2) is read by several."""
    text = b"0123456789abcdef" * 20_000
    (root / "sys/kernel/dlm/test/long").write_bytes(text)
    assert backend.read_attribute("dlm/test/long") == text


def test_directories(backend: KernelBackend, root: Path) -> None:
    """Directories are made, removed, listed in order and looked at."""
    for name in ("b", "a"):
        backend.make_directory(f"config/dlm/{name}")
    assert backend.list_directory("config/dlm") == ["a", "b"]
    status = (root / "sys/kernel/config/dlm/a").stat()
    assert backend.stat("config/dlm/a") == Stat(status.st_mode, status.st_ino)
    backend.remove_directory("config/dlm/a")
    assert backend.list_directory("config/dlm") == ["b"]


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (ReadAttribute("dlm/test/id"), b"5\n"),
        (WriteAttribute("dlm/test/id", b"12\n"), 3),
        (ListDirectory("dlm/test"), ["id"]),
        (MakeDirectory("config/dlm/c"), None),
        (RemoveDirectory("config/dlm"), None),
    ],
)
def test_a_submitted_call_gives_what_the_plain_one_does(
    backend: KernelBackend, call: Call, result: object
) -> None:
    """A call in a helper process has the result of the call itself."""
    pending = backend.submit(call)
    assert pending.result() == result
    pending.close()


def test_a_submitted_stat(backend: KernelBackend) -> None:
    """The seam's own values come back from a helper too."""
    pending = backend.submit(StatPath("dlm/test"))
    assert pending.result() == backend.stat("dlm/test")
    pending.close()


@pytest.mark.parametrize("in_helper", [False, True])
@pytest.mark.parametrize(
    ("call", "number"),
    [
        (ReadAttribute("dlm/absent"), errno.ENOENT),
        (ReadAttribute("dlm/test"), errno.EISDIR),  # by read(2): open(2) of a directory succeeds
        (WriteAttribute("dlm/test/id/x", b"1"), errno.ENOTDIR),
        (MakeDirectory("dlm/test"), errno.EEXIST),
        (RemoveDirectory("dlm/test"), errno.ENOTEMPTY),
    ],
)
def test_an_error_is_the_kernels_and_names_the_path(
    backend: KernelBackend, root: Path, call: Call, number: int, in_helper: bool
) -> None:
    """Errno and path are in the error, whichever of a call's system calls failed, and where."""
    make = backend._make if not in_helper else lambda call: backend.submit(call).result()
    with pytest.raises(OSError) as caught:
        make(call)
    assert caught.value.errno == number
    assert caught.value.filename == f"{root}/sys/kernel/{call.path}"


def test_misc_devices(backend: KernelBackend) -> None:
    """/proc/misc is read below the root."""
    assert backend.misc_devices() == {"dlm_test": 121, "dlm-control": 124}


def test_a_device_is_looked_for_in_dev_misc_first(backend: KernelBackend, root: Path) -> None:
    """/dev/misc/X is preferred, /dev/X is taken without it, and its name is in the error."""
    (root / "dev/dlm_test").write_bytes(b"plain")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    assert device.read(9) == b"plain"
    (root / "dev/misc/dlm_test").write_bytes(b"udev's")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    assert device.read(9) == b"udev's"
    with pytest.raises(FileNotFoundError) as caught:
        backend.open_device("dlm-monitor")
    assert caught.value.filename == f"{root}/dev/dlm-monitor"
    backend.close()


def test_a_devices_error_names_it(backend: KernelBackend, root: Path) -> None:
    """A refusal of read, write or ioctl names the device."""
    (root / "dev/dlm_test").write_bytes(b"")
    device = backend.open_device("dlm_test", flags=OpenFlags.RDONLY)
    for call, number in (
        (lambda: device.write(b"x"), errno.EBADF),
        (lambda: device.ioctl(0xC114D101, b"argument"), errno.ENOTTY),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert (caught.value.errno, caught.value.filename) == (number, f"{root}/dev/dlm_test")
    backend.close()


def test_ioctl_gives_back_the_argument(backend: KernelBackend, root: Path) -> None:
    """An ioctl's result comes with the bytes that the kernel has left: FIONREAD of a FIFO."""
    os.mkfifo(root / "dev/fifo")
    device = backend.open_device("fifo")
    device.write(b"seven..")
    assert device.ioctl(0x541B, bytes(4)) == (0, (7).to_bytes(4, "little"))
    backend.close()


@pytest.mark.parametrize(
    ("lines", "controller"),
    [
        ("0000000000000000: 00000002 00000000 00010000 0001 01 12 @dlmc_sock\n", "dlm_controld"),
        ("0000000000000000: 00000002 0 0 0001 01 12 @dlmc_query_sock\n", "dlm_controld"),
        ("0000000000000000: 00000002 0 0 0001 01 12 /run/dlmc_sock\n", None),
        ("0000000000000000: 00000003 00000000 00000000 0001 03 12\n\n", None),
    ],
)
def test_controller(backend: KernelBackend, root: Path, lines: str, controller: str | None) -> None:
    """dlm_controld is known by its abstract sockets, and by nothing like them."""
    assert backend.controller() is None
    heading = "Num       RefCount Protocol Flags    Type St Inode Path\n"
    (root / "proc/net/unix").write_text(heading + lines)
    assert backend.controller() == controller


def test_description_and_addresses(backend: KernelBackend, root: Path) -> None:
    """A backend describes itself as connect() takes it; a recorded tree has no addresses."""
    assert backend.describe() == f"kernel:root={root}"
    assert KernelBackend().describe() == "kernel"
    assert backend.local_addresses() == ()
    assert "127.0.0.1" in KernelBackend().local_addresses()
    assert backend.process_id() == os.getpid()


# ---- the state directory ------------------------------------------------------------------------


def test_state_is_below_run(backend: KernelBackend, root: Path) -> None:
    """State lies in files of mode 0600 in ROOT/run/dlm, which has mode 0700, and nothing else."""
    state = backend.state_directory()
    assert state.read("test") is None
    state.write("test", b"first")
    state.write("test", b"second")
    assert state.read("test") == b"second"
    directory = root / "run/dlm"
    assert (directory.stat().st_mode & 0o777, os.listdir(directory)) == (0o700, ["test"])
    assert (directory / "test").stat().st_mode & 0o777 == 0o600
    state.remove("test")
    state.remove("test")
    assert state.read("test") is None


def test_state_is_replaced_not_rewritten(backend: KernelBackend, root: Path) -> None:
    """Who has the old file open goes on seeing all of it."""
    state = backend.state_directory()
    state.write("test", b"old and long")
    with (root / "run/dlm/test").open("rb") as old:
        state.write("test", b"new")
        assert old.read() == b"old and long"


def test_the_state_lock_is_held(backend: KernelBackend, root: Path) -> None:
    """While one process holds the lock another cannot have it; its exit gives it up."""
    other = backend.spawn_process()
    held = other.state_directory().lock()
    held.__enter__()
    waiting = os.open(root / "run/dlm", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.close()
    fcntl.flock(waiting, fcntl.LOCK_EX)
    os.close(waiting)
    with pytest.raises(ProcessLookupError):  # there is nobody left to give the lock up
        held.__exit__(None, None, None)
    with backend.state_directory().lock():
        pass


def test_the_name_of_a_state_file_is_a_name(backend: KernelBackend) -> None:
    """A name cannot lead out of the directory."""
    for name in ("../x", "a/b", "", ".", ".."):
        with pytest.raises(ValueError, match="not a file name"):
            backend.state_directory().read(name)


def test_boot_id(backend: KernelBackend, root: Path) -> None:
    """The kernel's boot id, or a fixed text in a tree that has none."""
    assert backend.state_directory().boot_id() == "no-boot-id"
    place = root / "proc/sys/kernel/random"
    place.mkdir(parents=True)
    (place / "boot_id").write_text("3e0f-41\n")
    assert backend.state_directory().boot_id() == "3e0f-41"
