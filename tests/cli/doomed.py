"""A process that dies at a chosen change of the node.

Decides: what counts as a change; that a dead process changes nothing any more.
May not know: any verb.

Every call that changes something goes through here: writes, mkdir, rmdir, requests to devices,
ioctls, files of the state directory. So whoever counts the changes of one run to its end knows all
the moments at which it could have been killed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from dlm.ports import (
    Backend,
    Call,
    Device,
    DeviceCall,
    DeviceWrite,
    MakeDirectory,
    OpenFlags,
    Pending,
    RemoveDirectory,
    StateDirectory,
    WriteAttribute,
)

_CHANGES = WriteAttribute | MakeDirectory | RemoveDirectory


class KilledError(BaseException):
    """The process was killed; nothing may catch it."""


class Doomed:
    """A backend that is killed just before, or just after, its ``at``-th change (0: never).

    ``changes`` says what was, or was about to be, changed; ``die`` is what kills.
    """

    def __init__(
        self, backend: Backend, at: int = 0, *, after: bool = False, die: Callable[[], None]
    ) -> None:
        self.changes: list[str] = []
        self._backend = backend
        self._at = at
        self._after = after
        self._die = die
        self._dead = False

    def __getattr__(self, name: str) -> Any:  # Any: whatever the backend has
        return getattr(self._backend, name)

    def change(self, what: str, act: Callable[[], Any]) -> Any:  # Any: what the act returns
        """Make one change, or die."""
        if self._dead:
            raise KilledError
        self.changes.append(what)
        if len(self.changes) == self._at and not self._after:
            self._kill()
        answer = act()
        if len(self.changes) == self._at:
            self._kill()
        return answer

    def _kill(self) -> None:
        self._dead = True
        self._die()
        raise KilledError

    def write_attribute(self, path: str, value: bytes) -> int:
        """Open, make exactly one write(2), close."""
        written: int = self.change(
            f"write {path}", lambda: self._backend.write_attribute(path, value)
        )
        return written

    def make_directory(self, path: str) -> None:
        """mkdir(2)."""
        self.change(f"mkdir {path}", lambda: self._backend.make_directory(path))

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""
        self.change(f"rmdir {path}", lambda: self._backend.remove_directory(path))

    def submit(self, call: Call, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep."""
        if not isinstance(call, _CHANGES):
            return self._backend.submit(call, detached=detached)
        begin = lambda: self._backend.submit(call, detached=detached)  # noqa: E731 - one use
        begun: Pending = self.change(f"{type(call).__name__} {call.path}", begin)
        return begun

    def open_device(
        self, name: str, *, flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK
    ) -> Device:
        """Open a misc device by name."""
        return _Device(self, self._backend.open_device(name, flags=flags), name)

    def state_directory(self) -> StateDirectory:
        """Return the control module's place on this node."""
        return _State(self, self._backend.state_directory())


class _Device:
    """An open device of a process that is to die."""

    def __init__(self, doomed: Doomed, device: Device, name: str) -> None:
        self._doomed = doomed
        self._device = device
        self._name = name

    def __getattr__(self, name: str) -> Any:  # Any: whatever the device has
        return getattr(self._device, name)

    def write(self, request: bytes) -> int:
        """Write one request."""
        written: int = self._doomed.change(
            f"write {self._name}", lambda: self._device.write(request)
        )
        return written

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Make one ioctl(2)."""
        answer: tuple[int, bytes] = self._doomed.change(
            f"ioctl {self._name}", lambda: self._device.ioctl(request, argument)
        )
        return answer

    def submit(self, call: DeviceCall, *, detached: bool = False) -> Pending:
        """Begin a call that can sleep."""
        if not isinstance(call, DeviceWrite):
            return self._device.submit(call, detached=detached)
        begin = lambda: self._device.submit(call, detached=detached)  # noqa: E731 - one use
        begun: Pending = self._doomed.change(f"write {self._name}", begin)
        return begun


class _State:
    """The state directory of a process that is to die."""

    def __init__(self, doomed: Doomed, state: StateDirectory) -> None:
        self._doomed = doomed
        self._state = state

    def read(self, name: str) -> bytes | None:
        """Return the file's content."""
        return self._state.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Replace the file atomically."""
        self._doomed.change(f"remember {name}", lambda: self._state.write(name, content))

    def remove(self, name: str) -> None:
        """Remove the file."""
        self._doomed.change(f"forget {name}", lambda: self._state.remove(name))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the node-wide lock."""
        return self._state.lock()

    def boot_id(self) -> str:
        """Return a text that differs between two boots of the node."""
        return self._state.boot_id()
