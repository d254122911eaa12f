"""One process on an emulated node: the backend that programs are given.

Decides: the file table, what of a process ends with it, which rights it has.
May not know: what any path or device means.
Mirrors: what a process is to the kernel: struct files_struct, credentials, exit(2).
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from typing import TYPE_CHECKING

from dlm.emulator.misc import DEVICE_MODE, MiscFile
from dlm.emulator.pending import Body, Pending
from dlm.emulator.state import StateFiles
from dlm.emulator.uevents import UeventSource
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

if TYPE_CHECKING:
    from dlm.emulator.node import Boot

_LOOPBACK = ("127.0.0.1", "::1")


class Process:
    """A process (``dlm.ports.Backend``); calls that sleep let the world go on.

    ``privileged`` False: an ordinary user's process, which files and devices of root's refuse.
    ``capable`` False: without CAP_SYS_ADMIN, which root's process may have dropped. Both may be set
    while the process lives.
    """

    def __init__(self, boot: Boot, *, privileged: bool = True, capable: bool | None = None) -> None:
        self.privileged = privileged
        self.capable = privileged if capable is None else capable
        self.pid = next(boot.pids)
        self.files: dict[MiscFile, int] = {}
        """Open files and their descriptors' numbers among them."""
        self.pendings: list[Pending] = []
        """Calls begun that are not detached; those that can be killed end with the process."""
        self._boot = boot
        self._sources: list[UeventSource] = []
        self._open = True

    # ---- files ----------------------------------------------------------------------------------

    def read_attribute(self, path: str) -> bytes:
        """Open, read to the end and close."""
        return self._alive().tree.read(path, self.privileged)

    def write_attribute(self, path: str, value: bytes) -> int:
        """Open, make exactly one write(2), close; return what write returned."""
        answer = self._begin_write(path, value)
        return answer if isinstance(answer, int) else int(answer.result())

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return self._alive().tree.list(path, self.privileged)

    def make_directory(self, path: str) -> None:
        """mkdir(2)."""
        boot = self._alive()
        boot.tree.make_directory(path, self.privileged)
        boot.acted("mkdir", path)

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""
        boot = self._alive()
        boot.tree.remove_directory(path, self.privileged)
        boot.acted("rmdir", path)

    def stat(self, path: str) -> Stat:
        """Return mode and inode of a path."""
        return self._alive().tree.stat(path, self.privileged)

    # ---- devices --------------------------------------------------------------------------------

    def misc_devices(self) -> dict[str, int]:
        """Return the misc devices and their minors, newest first as in /proc/misc."""
        return self._alive().misc_devices()

    def open_device(
        self, name: str, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> MiscFile:
        """Open a misc device by name."""
        boot = self._alive()
        opener = boot.find_device(name)
        if opener is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        mode = boot.device_modes.get(name, DEVICE_MODE)
        if not (self.privileged or mode & stat.S_IROTH):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), name)
        file = opener(self, name, flags)
        taken = self.files.values()
        self.files[file] = next(number for number in count() if number not in taken)
        boot.acted("open", name)
        return file

    # ---- calls that sleep -----------------------------------------------------------------------

    def submit(self, call: Call, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep; a detached one outlives this process."""
        boot = self._alive()
        text = f"{type(call).__name__} {call.path}"
        try:
            answer = self._begin(call)
        except OSError as error:
            pending = Pending(boot.scheduler, text)
            pending.finish(error=error)
            return pending
        if not isinstance(answer, Pending):
            pending = Pending(boot.scheduler, text)
            pending.finish(answer)
            return pending
        if not detached:
            self.pendings.append(answer)
        return answer

    def _begin(self, call: Call) -> object:
        match call:
            case WriteAttribute(path, value):
                return self._begin_write(path, value)
            case ReadAttribute(path):
                return self.read_attribute(path)
            case ListDirectory(path):
                return self.list_directory(path)
            case MakeDirectory(path):
                self.make_directory(path)
            case RemoveDirectory(path):
                self.remove_directory(path)
            case StatPath(path):
                return self.stat(path)
        return None

    def _begin_write(self, path: str, value: bytes) -> int | Pending:
        boot = self._alive()
        store = boot.tree.open_for_write(path, self.privileged)
        boot.acted("write", path, value)
        answer = store(value, self.capable)
        return answer if isinstance(answer, int) else boot.begin(answer, f"write of {path}")

    # ---- the node -------------------------------------------------------------------------------

    def controller(self) -> str | None:
        """Name who controls this node's DLM, or None."""
        return self._alive().controller()

    def local_addresses(self) -> tuple[str, ...]:
        """Return the node's addresses."""
        return (*self._alive().addresses, *_LOOPBACK)

    def uevents(self) -> UeventSource:
        """Subscribe to the kernel's events."""
        boot = self._alive()
        source = UeventSource(boot.scheduler, boot.uevents)
        self._sources.append(source)
        return source

    def state_directory(self) -> StateFiles:
        """Return the control module's place on this node."""
        return self._alive().state

    def now(self) -> float:
        """Return the virtual clock in seconds."""
        return self._boot.scheduler.now

    def pause(self, seconds: float, *, bounded: bool = True) -> None:
        """Let the world go on for so many virtual seconds."""
        scheduler = self._boot.scheduler
        if not bounded:  # the caller has looked: what moves from now on, it will see
            scheduler.expect_change("a wait without end")
        scheduler.run_until(lambda: False, scheduler.now + seconds)

    def describe(self) -> str:
        """Return ``emulator:<node>``."""
        return f"emulator:{self._boot.name}"

    def concurrent(self) -> bool:
        """Say that only one thread may make calls: the cluster's."""
        return False

    def process_id(self) -> int:
        """Return this process's id."""
        return self.pid

    # ---- life -----------------------------------------------------------------------------------

    def spawn_process(self) -> Process:
        """Return another process on the same node, with the same rights."""
        return Process(self._alive(), privileged=self.privileged, capable=self.capable)

    def close(self) -> None:
        """Exit; files close one after the other, and what sleeps in a close does so on its own."""
        if not self._open:
            return
        self._open = False
        for pending in self.pendings:
            pending.kill()
        for source in self._sources:
            source.close()
        if self._boot.alive:
            self._boot.acted("exit of", self.pid)
            self._boot.begin(self._close_files(), f"exit of {self.pid}")

    def _close_files(self) -> Body:
        # Linux kernel/task_work.c, task_work_run(): the last to be put is the first to be released:
        # the highest descriptor goes first; an open(2) takes the lowest that is free. Seen on 6.1.
        for file in sorted(self.files, key=self.files.__getitem__, reverse=True):
            pending = file.begin_close()
            if pending is not None:
                yield pending.done

    def _alive(self) -> Boot:
        if not self._boot.alive:
            raise OSError(errno.EIO, "node crashed", self._boot.name)
        if not self._open:
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH), f"process {self.pid}")
        return self._boot
