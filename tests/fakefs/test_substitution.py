"""The substitution is real: nothing reaches this machine, and a broken kernel room is found out."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dlm.abi.texts import parse_misc
from dlm.cli.main import main
from dlm.kernel import KernelBackend, OwnSyscalls, backend, device, helper
from dlm.ports import Call, DeviceWrite, Pending
from tests.fakefs.files import is_below
from tests.fakefs.nodes import FakeCluster, FakeNode
from tests.fakefs.pending import FakePending

TREES = ("/sys", "/dev", "/proc", "/run")
ON_PATHS = frozenset({"open", "mkdir", "rmdir", "listdir", "stat", "replace", "unlink"})

SESSION = (
    "set_local 1 10.0.0.1",
    "set_node 1 10.0.0.1",
    "set_node 2 10.0.0.2",
    "set_node 2 10.0.0.3",
    "create test",
    "start test 1 0 1",
    "get_done test",
    "finish test 1",
    "ls",
    "lock test resource EX",
    "convert test 1 PR",
    "unlock test 1",
    "stop test",
    "start test 2 0 1",
    "poll_done test 2",
    "release test",
)

Said = list[tuple[int, str, str]]


def session(node: FakeNode) -> Said:
    """Do with dlm_tool what one node alone can do; return exit codes and words."""
    said = []
    for line in SESSION:
        out, err = io.StringIO(), io.StringIO()
        process = node.process()
        code = main([*line.split(), "--timeout", "20"], backend=process, stdout=out, stderr=err)
        process.close()
        said.append((code, out.getvalue(), err.getvalue()))
    return said


def new_node() -> FakeNode:
    """Return a node where nothing is configured."""
    return FakeCluster({"nodea": "10.0.0.1"}).node("nodea")


# ---- nothing reaches this machine ---------------------------------------------------------------

_watchers: list[list[tuple[object, ...]]] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    for seen in _watchers:
        seen.append((event, *arguments))


@contextmanager
def watched() -> Iterator[list[tuple[object, ...]]]:
    """Collect what the interpreter itself audits: open, mkdir, ioctl, spawn, sockets and more."""
    if _watch not in _added:
        sys.addaudithook(_watch)  # there is no way to take one away
        _added.append(_watch)
    seen: list[tuple[object, ...]] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


_added: list[Callable[..., None]] = []


def reached(seen: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return what went to this machine's trees, and ioctls, processes and sockets."""
    calls = ("fcntl.", "os.posix_spawn", "os.fork", "os.exec", "subprocess.", "socket.")
    return [
        each
        for each in seen
        if str(each[0]).startswith(calls)
        or any(isinstance(path, str) and is_below(path, tree) for path in each for tree in TREES)
    ]


def test_the_watch_sees_the_real_thing() -> None:
    """With its own system calls the same room reaches this machine's /proc and spawns helpers."""
    with watched() as seen:
        process = KernelBackend()
        process.misc_devices()
        process.spawn_process().close()
    assert ("open", "/proc/misc") in [each[:2] for each in seen]
    assert {"open", "os.posix_spawn"} <= {str(each[0]) for each in reached(seen)}


def test_no_call_reaches_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole session makes no call of the real kind; stat(2), which is not audited, is no more."""

    def real(*_: object) -> None:
        raise AssertionError("a system call of this machine's")

    node = new_node()
    node.process().uevents().close()  # pyroute2 is imported here, and makes what it likes
    for kind in (helper.System, OwnSyscalls):
        for name in [each for each in vars(kind) if not each.startswith("_")]:
            monkeypatch.setattr(kind, name, real)
    with watched() as seen:
        said = session(node)
    assert {code for code, _, _ in said} == {0}
    assert reached(seen) == []


def test_every_path_is_one_of_the_trees() -> None:
    """What the room asked for: paths of /sys, /dev, /proc and /run, and all four of them."""
    node = new_node()
    session(node)
    paths = [str(call[1]) for call in node.files.calls if call[0] in ON_PATHS]
    assert [path for path in paths if not any(is_below(path, tree) for tree in TREES)] == []
    assert [tree for tree in TREES if not any(is_below(path, tree) for path in paths)] == []


def test_this_machines_own_files_do_not_show() -> None:
    """Neither its misc devices nor its boot id."""
    process = new_node().process()
    assert [name for name in process.misc_devices() if not name.startswith("dlm")] == []
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert process.state_directory().boot_id() != file.read().strip()
    with open("/proc/misc") as file:
        assert process.misc_devices() != parse_misc(file.read())


# ---- a broken room is found out -----------------------------------------------------------------

Patch = pytest.MonkeyPatch


def write_twice(patch: Patch) -> None:
    """Two writes for one attribute."""

    def broken(system: helper.Files, path: str, value: bytes) -> int:
        descriptor = system.open(path, os.O_WRONLY)
        system.write(descriptor, value)
        written = system.write(descriptor, value)
        system.close(descriptor)
        return written

    patch.setitem(helper.COMPOUND, "write_attribute", broken)


def write_in_pieces(patch: Patch) -> None:
    """A byte at a time, as a buffered file may."""

    def broken(system: helper.Files, path: str, value: bytes) -> int:
        descriptor = system.open(path, os.O_WRONLY)
        written = sum(system.write(descriptor, value[i : i + 1]) for i in range(len(value)))
        system.close(descriptor)
        return written

    patch.setitem(helper.COMPOUND, "write_attribute", broken)


def open_to_read_and_write(patch: Patch) -> None:
    """O_RDWR for a write, which sysfs refuses where there is no read."""

    def broken(system: helper.Files, path: str, value: bytes) -> int:
        descriptor = system.open(path, os.O_RDWR)
        written = system.write(descriptor, value)
        system.close(descriptor)
        return written

    patch.setitem(helper.COMPOUND, "write_attribute", broken)


def read_once(patch: Patch) -> None:
    """One read(2) of a few bytes in place of reads to the end."""

    def broken(system: helper.Files, path: str) -> bytes:
        descriptor = system.open(path, os.O_RDONLY)
        text = system.read(descriptor, 8)
        system.close(descriptor)
        return text

    patch.setitem(helper.COMPOUND, "read_attribute", broken)


def return_the_length(patch: Patch) -> None:
    """A device's write that returns the length, as pyfakefs's would."""
    whole = device.KernelDevice.submit

    def broken(self: device.KernelDevice, call: DeviceWrite, *, detached: bool = False) -> Pending:
        return FakePending(whole(self, call, detached=detached), lambda _: len(call.request), None)

    patch.setattr(device.KernelDevice, "submit", broken)


def swallow_removals(patch: Patch) -> None:
    """rmdir(2) that does nothing."""
    patch.setattr(backend.KernelBackend, "remove_directory", lambda *_: None)


def swallow_creations(patch: Patch) -> None:
    """mkdir(2) that does nothing."""
    patch.setattr(backend.KernelBackend, "make_directory", lambda *_: None)


def look_elsewhere(patch: Patch) -> None:
    """Paths one directory too high."""
    whole = backend.KernelBackend._translate

    def broken(self: KernelBackend, call: Call) -> object:
        (name, (path, *rest)), convert = whole(self, call)
        return (name, (str(path).replace("/sys/kernel", "/sys"), *rest)), convert

    patch.setattr(backend.KernelBackend, "_translate", broken)


def forget_the_state(patch: Patch) -> None:
    """A state directory that keeps nothing."""
    patch.setattr("dlm.kernel.state.RunDirectory.write", lambda *_: None)


def read_nothing(patch: Patch) -> None:
    """A device that always has a result, and never anything in it."""
    patch.setattr(device.KernelDevice, "read", lambda *_: b"")


BREAKS = (
    write_twice,
    write_in_pieces,
    open_to_read_and_write,
    read_once,
    return_the_length,
    swallow_removals,
    swallow_creations,
    look_elsewhere,
    forget_the_state,
    read_nothing,
)


@pytest.fixture(scope="module")
def whole() -> Said:
    """What the session says with the room as it is."""
    return session(new_node())


def test_the_session_is_whole(whole: Said) -> None:
    """Every line of it succeeds."""
    assert [line for line, said in zip(SESSION, whole, strict=True) if said[0]] == []


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda each: each.__name__)
def test_a_broken_room_is_found_out(
    monkeypatch: pytest.MonkeyPatch, whole: Said, break_it: Callable[[Patch], None]
) -> None:
    """The session says something else, as it would on a kernel."""
    break_it(monkeypatch)
    assert session(new_node()) != whole
