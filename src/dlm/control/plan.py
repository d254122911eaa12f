"""A verb as a value: the operations that a plan yields, and the smallest plans.

Decides: what a plan can ask for, and how each operation is said in one line.
May not know: any path's meaning, any dialect, any backend, how a plan is run (dlm.control.runner).

A plan is a generator: it yields operations and receives their results. A refusal comes back as a
``RefusedError`` that it may catch. What it decides it decides from reads made before its first
write, so that a dry run says what a run would do.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from dlm.errors import RefusedError
from dlm.ports import (
    Call,
    Device,
    DeviceCall,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    Pending,
    ReadAttribute,
    RemoveDirectory,
    Stat,
    StatPath,
    WriteAttribute,
)
from dlm.record import Record

T = TypeVar("T")


class Ask(Record):
    """Ask the backend itself, by its method's name; result: what the method returns."""

    question: str


class ReadState(Record):
    """Read a file of the state directory; result: bytes, None when there is none."""

    name: str


class WriteState(Record):
    """Replace a file of the state directory, remove it when ``content`` is None."""

    name: str
    content: bytes | None


class Locked(Record):
    """Run a plan that never waits, under the node-wide lock; result: the plan's."""

    plan: Callable[[], Plan[Any]]


class OpenDevice(Record):
    """Open a misc device; result: a ``File``, which the runner closes if the plan does not."""

    name: str
    flags: OpenFlags = OpenFlags.RDWR | OpenFlags.NONBLOCK


class Submit(Record):
    """Begin a call that can sleep, on a file or on the node's trees; result: a ``Begun``.

    ``what`` says a device's request in words, for whoever reads what was written or what waits.
    """

    call: Call | DeviceCall
    file: File | None = None
    what: str = ""
    detached: bool = False


class Ioctl(Record):
    """Make one ioctl(2) on a file, which never sleeps; result: that of the ``Device``'s.

    ``what`` says the request in words.
    """

    file: File
    request: int
    argument: bytes
    what: str


class Once(Record):
    """Run a plan that never waits, once in a run: what it returns is kept, unless it is None."""

    plan: Callable[[], Plan[Any]]


class Result(Record):
    """Wait for a call that was begun; result: the call's."""

    begun: Begun
    waiting: str


class NextResult(Record):
    """Wait until a file has something to read, then read it; result: bytes."""

    file: File
    size: int
    waiting: str


class WaitUntil(Record):
    """Look again and again until ``check`` returns anything but ``Waiting``; result: that.

    ``what`` completes "wait until …". ``dry`` is the answer that a dry run gives.
    """

    check: Callable[[], Plan[Any]]
    what: str
    dry: Any = None  # Any: as the check's result


class Note(Record):
    """Tell the caller something that is no error."""

    text: str


Op = (
    Call
    | Ask
    | ReadState
    | WriteState
    | Locked
    | OpenDevice
    | Submit
    | Ioctl
    | Once
    | Result
    | NextResult
    | WaitUntil
    | Note
)
"""What a plan can yield."""

Plan: TypeAlias = Generator[Op, Any, T]  # Any: an answer's type is its operation's
"""A verb: yields operations, receives their results, returns ``T``."""


class File:
    """An open device of a plan; ``device`` is None in a dry run."""

    __slots__ = ("device", "name")

    def __init__(self, name: str, device: Device | None) -> None:
        self.name = name
        self.device = device


class Begun:
    """A call that has begun; ``pending`` is None in a dry run."""

    __slots__ = ("_end", "detached", "pending", "what")

    def __init__(self, what: str, pending: Pending | None, detached: bool) -> None:
        self.what = what
        self.pending = pending
        self.detached = detached
        self._end: bool | None = None

    def done(self) -> bool:
        """Say whether the call has returned, or had when it was let go; a dry run's never does."""
        if self._end is not None:
            return self._end
        return self.pending is not None and self.pending.done()

    def close(self) -> None:
        """Let go of the call; one that is detached goes on."""
        if self._end is None and self.pending is not None:
            self._end = self.pending.done()
            self.pending.close()


class Waiting:
    """What a check returns while its condition is not met; ``what`` says what is missing."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


# ---- how an operation is said -------------------------------------------------------------------


def say_value(path: str, value: bytes) -> str:
    """Return an attribute's value as a person writes it; an address is said as an address."""
    if path.endswith("/addr"):
        from dlm.abi.address import decode_sockaddr  # only addresses need it

        return decode_sockaddr(value) or value.hex()
    return value.decode("ascii", "backslashreplace").rstrip("\n")


def say(op: Op) -> str:
    """Return the line that stands for an operation that changes something, "" for any other."""
    match op:
        case WriteAttribute(path, value):
            return f"write /sys/kernel/{path} {say_value(path, value)}"
        case MakeDirectory(path):
            return f"mkdir /sys/kernel/{path}"
        case RemoveDirectory(path):
            return f"rmdir /sys/kernel/{path}"
        case Submit(call, file, what):
            if file is None:
                return say(call)  # type: ignore[arg-type]  # without a file it is no DeviceCall
            return f"write {file.name} {what}" if what else ""
        case Ioctl(file, _, _, what):
            return f"ioctl {file.name} {what}"
        case _:
            return ""


# ---- the smallest plans: an operation whose result has a type -----------------------------------


def read(path: str) -> Plan[bytes]:
    """Read an attribute."""
    content: bytes = yield ReadAttribute(path)
    return content


def read_if_there(path: str) -> Plan[bytes | None]:
    """Read an attribute, None when it is not there (any more)."""
    try:
        return (yield from read(path))
    except RefusedError as error:
        # ENODEV, EINVAL: the directory went away between open and read (Linux 6.1 fs/kernfs).
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            return None
        raise


def read_number(path: str) -> Plan[int | None]:
    """Read an attribute that holds one decimal number, None when it is not there."""
    content = yield from read_if_there(path)
    return None if content is None else int(content)


def stat(path: str) -> Plan[Stat | None]:
    """Look at a path, None when it is not there."""
    try:
        found: Stat = yield StatPath(path)
    except RefusedError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
    return found


def names_in(path: str) -> Plan[list[str] | None]:
    """List a directory, None when it is not there."""
    try:
        names: list[str] = yield ListDirectory(path)
    except RefusedError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
    return names


def write_number(path: str, number: int) -> Plan[None]:
    """Write a decimal number, as ``echo`` would."""
    yield WriteAttribute(path, b"%d\n" % number)


def once(plan: Callable[[], Plan[T]]) -> Plan[T]:
    """Run a plan once in a run; from then on its result is known, unless it was None."""
    result: T = yield Once(plan)
    return result


def misc_devices() -> Plan[dict[str, int]]:
    """Return the misc devices and their minors."""
    devices: dict[str, int] = yield Ask("misc_devices")
    return devices


def locked(plan: Callable[[], Plan[T]]) -> Plan[T]:
    """Run a plan that never waits under the node-wide lock."""
    result: T = yield Locked(plan)
    return result
