"""The fake file system of one machine, from boot to crash: what pyfakefs keeps.

Decides: which directories, files, modes and texts there are, and when they are looked at again.
May not know: what a read of an attribute gives, what a write does, what a device is.
Mirrors: sysfs, configfs, debugfs, devtmpfs, procfs and /run as far as a path call meets them.

An emulated node feeds the trees: before a call on a path, the fake directories on the way to it are
made like the node's, names, modes and inode numbers. A file below ``/sys`` is empty here: what it
says is asked of the node by whoever reads it (tests/fakefs/syscalls.py). A machine without a node
has what a recorded tree gives it, texts and all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from pyfakefs import helpers
from pyfakefs.fake_file import FakeDirectory, FakeDirWrapper, FakeFile
from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_os import FakeOsModule

from dlm.abi.texts import format_misc
from dlm.emulator.misc import DEVICE_MODE
from dlm.ports import Backend, Stat
from tests.vm.trees import Tree

SYSFS = "/sys/kernel"
ROOT = 0
NOBODY = 65534

_UNIX_HEAD = "Num       RefCount Protocol Flags    Type St Inode Path\n"
_UNIX_LINE = "0000000000000000: 00000002 00000000 00010000 0001 01 20101 {}\n"
_SOCKETS = {"dlm_controld": "@dlmc_sock"}
"""The abstract socket of whoever controls a node's DLM."""


class LinuxOs(FakeOsModule):
    """pyfakefs's ``os``, a little nearer to Linux where the kernel room looks.

    open(2) leaves the mode of a file that is there as it is; read(2) of a directory is EISDIR;
    a directory that may not be searched hides what is not in it.
    """

    def open(  # type: ignore[override] # no path here is bytes
        self, path: str, flags: int, mode: int | None = None, **_: object
    ) -> int:
        """open(2). Nothing else here calls chmod(2), which pyfakefs makes part of every open."""
        self._is_there = self.filesystem.exists(path)
        there = self.filesystem.get_object(path) if self._is_there else None
        if isinstance(there, FakeDirectory):
            flags &= ~os.O_DIRECTORY  # for pyfakefs one that may not be searched is none
        return super().open(path, flags, mode)

    def read(self, fd: int, n: int) -> bytes:
        """read(2)."""
        if isinstance(self.filesystem.get_open_file(fd), FakeDirWrapper):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return super().read(fd, n)

    def search(self, directory: str) -> None:
        """Follow a path: EACCES where a directory may not be searched, whatever would be in it."""
        self.filesystem.resolve(directory, check_read_perm=False, check_exe_perm=True)

    def chmod(  # type: ignore[override] # the same
        self, path: str, mode: int, **_: object
    ) -> None:
        """Give a file that open(2) has made its mode."""
        if not self._is_there:
            super().chmod(path, mode)


class Files:
    """The file system, and the node that feeds it.

    ``devices`` is where device nodes lie: ``/dev/misc`` (udev, with libdlm's rule) or ``/dev``.
    """

    def __init__(self, node: Backend | None = None, *, devices: str = "/dev/misc") -> None:
        self.os = LinuxOs(FakeFilesystem())
        self._system = self.os.filesystem
        self._system.shuffle_listdir_results = False
        self._system.umask = 0o022
        self.calls: list[tuple[object, ...]] = []
        """What every process has called, in order (tests/fakefs/syscalls.py)."""
        self.locked: set[str] = set()
        """Directories that somebody holds the lock of."""
        self._node = node
        self._devices = devices
        with as_user(ROOT):
            for path in (SYSFS, devices, "/proc/net", "/proc/sys/kernel/random", "/run"):
                self._system.create_dir(path, apply_umask=False, perm_bits=0o755)
        self._texts: dict[str, Callable[[], str]] = {}
        if node is not None:
            boot_id = node.state_directory().boot_id()
            self._texts = {
                "/proc/misc": lambda: format_misc(node.misc_devices()),
                "/proc/net/unix": lambda: _unix_sockets(node.controller()),
                "/proc/sys/kernel/random/boot_id": lambda: f"{boot_id}\n",
            }

    def load(self, tree: Tree) -> None:
        """Lay out a recorded tree."""
        with as_user(ROOT):
            for path, entry in tree.entries.items():
                if entry.is_directory:
                    self._replace(f"/{path}", entry.mode, "")
                else:
                    self._make(f"/{path}", entry.mode, entry.text or "")

    def look(self, path: str) -> None:
        """Make what is on the way to a path, and in it, like the node's."""
        if self._node is None:
            return
        with as_user(ROOT):
            if path in self._texts:
                self._replace(path, stat.S_IFREG | 0o444, self._texts[path]())
            elif is_below(path, SYSFS):
                self._look_at_trees(self._node, path)
            elif is_below(path, "/dev"):
                self._look_at_devices(self._node)

    def device_name(self, path: str) -> str:
        """Return the name of the device whose node lies at a path."""
        return path.removeprefix(f"{self._devices}/")

    # ---- private --------------------------------------------------------------------------------

    def _look_at_trees(self, node: Backend, path: str) -> None:
        here, below = "", [*PurePosixPath(path).relative_to(SYSFS).parts]
        while True:
            fake = self._find(f"{SYSFS}/{here}")
            assert isinstance(fake, FakeDirectory)
            names = node.list_directory(here)
            for gone in [name for name in fake.entries if name not in names]:
                fake.remove_entry(gone)
            for name in names:
                if name not in fake.entries or below[:1] == [name]:
                    where = f"{here}/{name}".lstrip("/")
                    self._like(f"{SYSFS}/{where}", node.stat(where))
            name = below.pop(0) if below else ""
            if not isinstance(fake.entries.get(name), FakeDirectory):
                return
            here = f"{here}/{name}".lstrip("/")

    def _look_at_devices(self, node: Backend) -> None:
        names = node.misc_devices()
        known = self._find(self._devices)
        assert isinstance(known, FakeDirectory)
        for gone in [path for path in _files_in(known, "") if path not in names]:
            self._system.remove_object(f"{self._devices}/{gone}")
        for name in names:
            if self._find(f"{self._devices}/{name}") is None:
                self._make(f"{self._devices}/{name}", DEVICE_MODE, "")

    def _like(self, path: str, status: Stat) -> None:
        """Have what the node has; another inode number is another thing."""
        there = self._find(path)
        if there is None or (there.st_mode, there.st_ino) != (status.mode, status.inode):
            self._replace(path, status.mode, "").st_ino = status.inode

    def _replace(self, path: str, mode: int, text: str) -> FakeFile:
        if self._find(path) is not None:
            self._system.remove_object(path)
        return self._make(path, mode, text)

    def _make(self, path: str, mode: int, text: str) -> FakeFile:
        if stat.S_ISDIR(mode):
            return self._system.create_dir(path, stat.S_IMODE(mode), apply_umask=False)
        return self._system.create_file(path, mode, text, apply_umask=False)

    def _find(self, path: str) -> FakeFile | None:
        """Return what is there, or None; pyfakefs's own way takes ten times as long."""
        here: FakeFile | None = self._system.root
        for name in path.split("/"):
            if name:
                here = here.entries.get(name) if isinstance(here, FakeDirectory) else None
        return here


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Be this user for pyfakefs, which has one for all file systems."""
    before = helpers.get_uid()
    helpers.set_uid(uid)
    try:
        yield
    finally:
        helpers.set_uid(before)


def is_below(path: str, directory: str) -> bool:
    """Say whether a path is this directory or something in it."""
    return path == directory or path.startswith(f"{directory}/")


def _files_in(directory: FakeDirectory, prefix: str) -> Iterator[str]:
    for name, entry in directory.entries.items():
        if isinstance(entry, FakeDirectory):
            yield from _files_in(entry, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}"


def _unix_sockets(controller: str | None) -> str:
    socket = _SOCKETS.get(controller or "")
    return _UNIX_HEAD + (_UNIX_LINE.format(socket) if socket else "")
