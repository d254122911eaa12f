"""Directories and files of a kernel's file systems, and what every path call answers.

Decides: how a path is followed, and the refusals that a file system makes before any attribute is
asked: ENOENT, ENOTDIR, EISDIR, EEXIST, EPERM, EACCES, ENOTEMPTY, ENAMETOOLONG.
May not know: which directories and attributes there are.
Mirrors: fs/configfs/, fs/kernfs/ and fs/debugfs/ as far as a path call meets them (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from itertools import count

from dlm.emulator.pending import Body
from dlm.ports import Stat

NAME_MAX = 255
_STAYS = frozenset({"", "."})  # path components that lead nowhere
_UP = ".."
_DOTS = frozenset({".", _UP})

Show = Callable[[], bytes]
Store = Callable[[bytes, bool], int | Body]
"""One write(2) on an attribute; the flag says whether the caller has CAP_SYS_ADMIN.

Returns what the call returns, or the body of a call that may sleep.
"""


def refusal(number: int, path: str) -> OSError:
    """Return the refusal of a call on ``path``."""
    return OSError(number, os.strerror(number), path)


class File:
    """An attribute; without ``show`` not even root can open it to read, so ``store`` to write."""

    __slots__ = ("inode", "mode", "show", "store")

    def __init__(self, mode: int, show: Show | None, store: Store | None) -> None:
        self.mode = mode
        self.show = show
        self.store = store
        self.inode = 0


class Directory:
    """A directory of mode 0755.

    ``mounted``: it is the root of a mounted file system, which rmdir(2) finds busy.
    ``make`` is called for mkdir(2) of a name in it and returns the new directory (it may raise);
    ``remove`` after rmdir(2) of it. A directory without ``remove`` cannot be removed by a caller.
    """

    __slots__ = ("entries", "inode", "make", "mode", "mounted", "remove")

    def __init__(
        self,
        *,
        make: Callable[[str], Directory] | None = None,
        remove: Callable[[], None] | None = None,
        mode: int = 0o755,
        mounted: bool = False,
    ) -> None:
        self.entries: dict[str, Directory | File] = {}
        self.mounted = mounted
        self.make = make
        self.remove = remove
        self.mode = mode
        self.inode = 0

    def directories(self) -> Iterator[tuple[str, Directory]]:
        """Yield the directories in this one, oldest first."""
        for name, entry in self.entries.items():
            if isinstance(entry, Directory):
                yield name, entry


class Tree:
    """Everything under ``/sys/kernel`` of one node, as path calls see it."""

    def __init__(self) -> None:
        self.root = Directory()
        self._inodes = count(1000)

    # A privileged caller (root) passes permission bits; an unprivileged one has the bits of
    # "others": every file and directory here belongs to root.

    def read(self, path: str, privileged: bool = True) -> bytes:
        """Open, read to the end and close."""
        file = self._file(path, privileged)
        if file.show is None or not (privileged or file.mode & 0o004):
            raise refusal(errno.EACCES, path)
        return file.show()

    def open_for_write(self, path: str, privileged: bool = True) -> Store:
        """Open for writing; return what one write(2) does."""
        file = self._file(path, privileged)
        if file.store is None or not (privileged or file.mode & 0o002):
            raise refusal(errno.EACCES, path)
        return file.store

    def list(self, path: str, privileged: bool = True) -> list[str]:
        """Return the names in a directory, sorted."""
        entry = self.find(path, privileged)
        if not isinstance(entry, Directory):
            raise refusal(errno.ENOTDIR, path)
        if not (privileged or entry.mode & 0o004):
            raise refusal(errno.EACCES, path)
        return sorted(entry.entries)

    def stat(self, path: str, privileged: bool = True) -> Stat:
        """Return mode and inode of a path."""
        entry = self.find(path, privileged)
        kind = stat.S_IFDIR if isinstance(entry, Directory) else stat.S_IFREG
        entry.inode = entry.inode or next(self._inodes)
        return Stat(kind | entry.mode, entry.inode)

    def make_directory(self, path: str, privileged: bool = True) -> None:
        """mkdir(2)."""
        parent, name = self._parent(path, privileged)
        if name in parent.entries or name in _DOTS:
            raise refusal(errno.EEXIST, path)
        if not privileged:
            raise refusal(errno.EACCES, path)
        if parent.make is None:
            raise refusal(errno.EPERM, path)
        try:
            parent.entries[name] = parent.make(name)
        except OSError as error:
            raise refusal(error.errno or errno.EINVAL, path) from error

    def remove_directory(self, path: str, privileged: bool = True) -> None:
        """rmdir(2)."""
        parent, name = self._parent(path, privileged)
        if name in _DOTS:  # Linux 6.1 fs/namei.c, do_rmdir()
            raise refusal(errno.EINVAL if name in _STAYS else errno.ENOTEMPTY, path)
        entry = parent.entries.get(name)
        if entry is None:
            raise refusal(errno.ENOENT, path)
        if not privileged:
            raise refusal(errno.EACCES, path)
        if isinstance(entry, File):
            raise refusal(errno.ENOTDIR, path)
        if entry.mounted:
            raise refusal(errno.EBUSY, path)
        if entry.remove is None:
            raise refusal(errno.EPERM, path)
        if _has_children(entry):
            raise refusal(errno.ENOTEMPTY, path)
        del parent.entries[name]
        entry.remove()

    def find(self, path: str, privileged: bool = True) -> Directory | File:
        """Follow a path; one that leaves ``/sys/kernel`` finds nothing."""
        trail: list[Directory | File] = [self.root]
        for name in path.split("/"):
            here = trail[-1]
            if isinstance(here, File):  # also a slash behind it
                raise refusal(errno.ENOTDIR, path)
            if name in _STAYS:
                continue
            if len(name) > NAME_MAX:
                raise refusal(errno.ENAMETOOLONG, path)
            if not (privileged or here.mode & 0o001):
                raise refusal(errno.EACCES, path)
            if name == _UP and len(trail) > 1:
                trail.pop()
                continue
            below = here.entries.get(name)
            if below is None:
                raise refusal(errno.ENOENT, path)
            trail.append(below)
        return trail[-1]

    # ---- private --------------------------------------------------------------------------------

    def _file(self, path: str, privileged: bool) -> File:
        entry = self.find(path, privileged)
        if isinstance(entry, Directory):
            raise refusal(errno.EISDIR, path)
        return entry

    def _parent(self, path: str, privileged: bool) -> tuple[Directory, str]:
        head, _, name = path.rstrip("/").rpartition("/")
        if len(name) > NAME_MAX:
            raise refusal(errno.ENAMETOOLONG, path)
        parent = self.find(head, privileged)
        if isinstance(parent, File):
            raise refusal(errno.ENOTDIR, path)
        return parent, name


def _has_children(directory: Directory) -> bool:
    # Linux 6.1 fs/configfs/dir.c, configfs_detach_prep(): directories that a mkdir(2) made, here
    # or in a default directory, are in the way.
    return any(
        below.remove is not None or _has_children(below) for _, below in directory.directories()
    )
