"""Every system call goes through the one object: an imagined world can be put in its place."""

# ruff: noqa: D102 (the calls of the imagined world are those of the seam, which says what they do)

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dlm.kernel import KernelBackend, Syscalls
from dlm.kernel.pending import SystemCall
from dlm.ports import DeviceWrite, Pending, Stat, Uevent, UeventSource, WriteAttribute


class Imagined:
    """System calls on files that exist only here; answers are what a test can tell apart."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.directories = {"/r/sys/kernel/dlm", "/r/run/dlm"}
        self.descriptors: dict[int, str] = {}
        self.submitted: list[tuple[tuple[SystemCall, ...], bool]] = []
        self.exited: list[int] = []

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        if flags & os.O_CREAT:
            assert mode == 0o600
            self.files[path] = b""
        elif path not in self.files and path not in self.directories:
            raise FileNotFoundError(2, "imagined", path)
        number = 1000 + len(self.descriptors)
        self.descriptors[number] = path
        return number

    def close(self, descriptor: int) -> None:
        self.descriptors[descriptor] += " (closed)"

    def read(self, descriptor: int, size: int) -> bytes:
        path = self.descriptors[descriptor]
        data = self.files[path]
        self.files[path] = data[size:]
        return data[:size]

    read_with_room = read

    def write(self, descriptor: int, data: bytes) -> int:
        self.files[self.descriptors[descriptor]] = data
        return len(data)

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> tuple[int, bytes]:
        return request, argument[::-1] + self.descriptors[descriptor].encode()

    def poll(self, descriptor: int, events: int, timeout: float | None) -> int:
        return events if timeout is None else descriptor

    def mkdir(self, path: str, mode: int) -> None:
        if path in self.directories:
            raise FileExistsError(17, "imagined", path)
        self.directories.add(f"{path} {mode:o}")

    def rmdir(self, path: str) -> None:
        self.directories.remove(path)

    def listdir(self, path: str) -> list[str]:
        return ["b", "a", path]

    def stat(self, path: str) -> tuple[int, int]:
        return len(path), 42

    def replace(self, source: str, target: str) -> None:
        self.files[target] = self.files.pop(source)

    def unlink(self, path: str) -> None:
        del self.files[path]

    def flock(self, descriptor: int, operation: int) -> None:
        self.descriptors[descriptor] += f" (locked {operation})"

    def getpid(self) -> int:
        return 4711

    def monotonic(self) -> float:
        return 12.5

    def sleep(self, seconds: float) -> None:
        self.files["slept"] = str(seconds).encode()

    def uevents(self) -> UeventSource:
        return ImaginedEvents()

    def addresses(self) -> Sequence[str]:
        return ["192.0.2.1"]

    def pollable(self, descriptor: int) -> int:
        return descriptor + 1

    def submit(
        self,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any] = lambda result: result,  # noqa: ARG002
        path: str | None = None,  # noqa: ARG002
    ) -> Pending:
        self.submitted.append((calls, detached))
        return ImaginedPending()

    def spawn(self) -> Syscalls:
        return Imagined({"/r/sys/kernel/dlm/who": b"another"})

    def exit(self, files: Sequence[int], patience: float) -> None:
        assert patience == 3
        self.exited = list(files)


class ImaginedPending:
    """A call that nobody makes."""

    def done(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        return False

    def result(self) -> object:
        return None

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class ImaginedEvents:
    """A subscription to nothing."""

    def __init__(self) -> None:
        self.closed = False

    def read_nowait(self) -> list[Uevent]:
        return []

    def wait(self, timeout: float | None) -> bool:  # noqa: ARG002
        return False

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def world() -> Imagined:
    """A world with a few files."""
    return Imagined(
        {
            "/r/sys/kernel/dlm/id": b"5\n",
            "/r/proc/misc": b"121 dlm_test\n",
            "/r/proc/net/unix": b"1 @dlmc_sock\n",
            "/r/proc/sys/kernel/random/boot_id": b"imagined\n",
            "/r/dev/dlm_test": b"result",
        }
    )


@pytest.fixture
def backend(world: Imagined) -> KernelBackend:
    """A backend on it, whose root does not exist on this machine."""
    return KernelBackend("/r", syscalls=world, patience=3)


def test_trees(backend: KernelBackend, world: Imagined) -> None:
    """Attributes and directories are asked of the object."""
    assert backend.read_attribute("dlm/id") == b"5\n"
    assert backend.write_attribute("dlm/id", b"77") == 2
    assert world.files["/r/sys/kernel/dlm/id"] == b"77"
    assert backend.list_directory("x") == ["/r/sys/kernel/x", "a", "b"]
    assert backend.stat("x") == Stat(len("/r/sys/kernel/x"), 42)
    backend.make_directory("config")
    assert "/r/sys/kernel/config 755" in world.directories
    backend.remove_directory("dlm")
    assert "/r/sys/kernel/dlm" not in world.directories


def test_machine(backend: KernelBackend, world: Imagined) -> None:
    """The machine's facts, time and other processes are asked of the object."""
    assert backend.misc_devices() == {"dlm_test": 121}
    assert backend.controller() == "dlm_controld"
    assert backend.process_id() == 4711
    assert backend.now() == 12.5
    backend.pause(0.25)
    assert world.files["slept"] == b"0.25"
    assert backend.spawn_process().read_attribute("dlm/who") == b"another"
    assert KernelBackend(syscalls=world).local_addresses() == ["192.0.2.1"]


def test_device(backend: KernelBackend, world: Imagined) -> None:
    """All that can be done with a device is done by the object."""
    device = backend.open_device("dlm_test")
    assert device.read(3) == b"res"
    assert device.write(b"request") == 7
    assert device.ioctl(9, b"ab") == (9, b"ba/r/dev/dlm_test")
    assert device.poll(1.0) == 1000
    assert device.poll(None) == 0x45
    assert device.fileno() == 1001
    device.submit(DeviceWrite(b"sleeps"), detached=True)
    assert world.submitted == [((("write", (1000, b"sleeps")),), True)]
    device.close()
    assert world.descriptors[1000] == "/r/dev/dlm_test (closed)"


def test_submit(backend: KernelBackend, world: Imagined) -> None:
    """A submitted call is handed to the object, by its name."""
    backend.submit(WriteAttribute("dlm/id", b"1"))
    call = ("write_attribute", ("/r/sys/kernel/dlm/id", b"1"))
    assert world.submitted == [((call,), False)]


def test_state(backend: KernelBackend, world: Imagined) -> None:
    """State is kept by the object's calls."""
    state = backend.state_directory()
    assert state.boot_id() == "imagined"
    state.write("test", b"content")
    assert world.files["/r/run/dlm/test"] == b"content"
    assert state.read("test") == b"content"
    state.remove("test")
    assert state.read("test") is None
    with state.lock():
        assert any(text == "/r/run/dlm (locked 2)" for text in world.descriptors.values())
    assert any(text.endswith("(locked 2) (closed)") for text in world.descriptors.values())


def test_close(backend: KernelBackend, world: Imagined) -> None:
    """close() ends subscriptions and gives the object the files that are open still."""
    events = backend.uevents()
    first, second = (backend.open_device("dlm_test") for _ in range(2))
    first.close()
    backend.close()
    assert isinstance(events, ImaginedEvents)
    assert events.closed
    assert world.exited == [1001]
    with pytest.raises(OSError, match="closed"):
        second.read(1)
