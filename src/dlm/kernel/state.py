"""A small place of this node under /run, which a reboot empties.

Decides: how a file there is replaced and locked.
May not know: what is kept in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dlm.kernel import helper

if TYPE_CHECKING:
    from dlm.kernel.syscalls import Syscalls

NO_BOOT_ID = "no-boot-id"
"""The boot id of a recorded tree that has none."""


class RunDirectory:
    """The seam's ``StateDirectory``: files of mode 0600 in a directory of mode 0700."""

    def __init__(self, syscalls: Syscalls, path: str, boot_id_path: str) -> None:
        """``path`` need not exist: it is made by the first write or lock."""
        self._syscalls = syscalls
        self._path = path
        self._boot_id_path = boot_id_path

    def read(self, name: str) -> bytes | None:
        """Return the file's content, None when there is none."""
        try:
            return helper.read_attribute(self._syscalls, self._file(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replace the file: whoever reads it sees all of the old content or all of the new."""
        self._make()
        beside = self._file(f".{name}.{self._syscalls.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = self._syscalls.open(beside, flags, 0o600)
        try:
            while content:
                content = content[self._syscalls.write(descriptor, content) :]
        finally:
            self._syscalls.close(descriptor)
        self._syscalls.replace(beside, self._file(name))

    def remove(self, name: str) -> None:
        """Remove the file; fine when there is none."""
        with suppress(FileNotFoundError):
            self._syscalls.unlink(self._file(name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the node-wide lock of this directory; waits for its holder, not to be nested."""
        self._make()
        descriptor = self._syscalls.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._syscalls.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            self._syscalls.close(descriptor)

    def boot_id(self) -> str:
        """Return the kernel's random id of this boot; ``NO_BOOT_ID`` for a tree without one."""
        try:
            return helper.read_attribute(self._syscalls, self._boot_id_path).decode().strip()
        except FileNotFoundError:
            return NO_BOOT_ID

    def _file(self, name: str) -> str:
        if "/" in name or name in {"", ".", ".."}:
            raise ValueError(f"not a file name: {name!r}")
        return f"{self._path}/{name}"

    def _make(self) -> None:
        """Make the directory, and the one above, which a recorded tree may lack."""
        for path, mode in ((os.path.dirname(self._path), 0o755), (self._path, 0o700)):
            with suppress(FileExistsError):
                self._syscalls.mkdir(path, mode)
