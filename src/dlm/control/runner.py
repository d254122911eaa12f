"""Runs plans: what each operation becomes on a backend, once for all runners.

Decides: how long a wait lasts and how often it looks, what a refusal and a timeout say, what
happens to files and calls that are open at the end.
May not know: any verb, any path's meaning.

``steps`` does everything but waiting; it yields a ``Wait`` for whoever drives it. The blocking
driver is here, the asyncio one in dlm.control.aio, the dry run in dlm.control.dry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from typing import Any

from dlm.control.plan import (
    Ask,
    Begun,
    File,
    Ioctl,
    Locked,
    NextResult,
    Note,
    Once,
    Op,
    OpenDevice,
    Plan,
    ReadState,
    Result,
    Submit,
    T,
    Waiting,
    WaitUntil,
    WriteState,
    say,
)
from dlm.errors import DlmError, RefusedError, TimedOutError
from dlm.ports import (
    Backend,
    Device,
    DeviceClose,
    ListDirectory,
    MakeDirectory,
    Pending,
    ReadAttribute,
    RemoveDirectory,
    StatPath,
    WriteAttribute,
)

FIRST_PAUSE = 0.010
"""Seconds between the first two looks of a wait; each pause is twice the one before."""

LONGEST_PAUSE = 0.250
"""Seconds that no pause of a wait exceeds."""

CLOSE_PATIENCE = 1.0
"""Seconds that the end of a run gives the close of a file, which sleeps while stopped."""


class Journal:
    """What a run has done so far; the caller keeps it, and can read it after any end.

    ``written`` holds the writes made, in order, ``notes`` what the plan had to say, ``waiting``
    what the plan waits for at this moment ("" when it does not), ``begun`` the calls that it began.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self.written: list[str] = []
        self.notes: list[str] = []
        self.waiting = ""
        self.begun: list[Begun] = []
        self._tell = tell

    def note(self, text: str) -> None:
        """Keep a note once, and hand it on."""
        if text not in self.notes:
            self.notes.append(text)
            if self._tell is not None:
                self._tell(text)

    def asleep(self) -> tuple[str, ...]:
        """Name the calls that were begun and have not returned."""
        return tuple(begun.what for begun in self.begun if begun.pending and not begun.done())


class Wait:
    """Something to wait for: ``block(seconds)`` does it, or ``fileno()`` becoming readable."""

    __slots__ = ("block", "fileno", "seconds")

    def __init__(
        self,
        seconds: float | None,
        block: Callable[[float | None], object],
        fileno: Callable[[], int] | None = None,
    ) -> None:
        self.seconds = seconds
        self.block = block
        self.fileno = fileno


Waits = Generator[Wait, None, Any]  # Any: the answer's type is the operation's


class Session:
    """One run of one plan on one backend."""

    def __init__(self, backend: Backend, timeout: float | None, journal: Journal) -> None:
        self.backend = backend
        self.timeout = timeout
        self.journal = journal
        self._deadline = None if timeout is None else backend.now() + timeout
        self._files: list[File] = []
        self._known: dict[object, object] = {}  # results of ``Once`` by their plans

    # ---- operations ----

    def perform(self, op: Op) -> Waits:
        """Do one operation; a refusal is a ``RefusedError`` that says what was tried."""
        match op:
            case WaitUntil():
                return (yield from self._wait_until(op))
            case Result(begun, waiting):
                return (yield from self._result(begun, waiting))
            case NextResult():
                return (yield from self._next_result(op))
            case Locked(plan):
                return self._locked(plan())
            case Once(plan):
                return (yield from self._once(plan))
            case Note(text):
                return self.journal.note(text)
            case _:
                return self._call(op)

    def _call(self, op: Op) -> object:
        try:
            answer = self._do(op)
        except DlmError:
            raise
        except OSError as error:
            raise _refused(error, op) from error
        if line := say(op):
            self.journal.written.append(line)
        return answer

    def _do(self, op: Op) -> object:
        backend = self.backend
        match op:
            case ReadAttribute(path):
                return backend.read_attribute(path)
            case WriteAttribute(path, value):
                return backend.write_attribute(path, value)
            case ListDirectory(path):
                return backend.list_directory(path)
            case MakeDirectory(path):
                backend.make_directory(path)
            case RemoveDirectory(path):
                backend.remove_directory(path)
            case StatPath(path):
                return backend.stat(path)
            case Ask("boot_id"):
                return backend.state_directory().boot_id()
            case Ask(question):
                return getattr(backend, question)()
            case ReadState(name):
                return backend.state_directory().read(name)
            case WriteState(name, content):
                self._write_state(name, content)
            case OpenDevice(name, flags):
                file = File(name, backend.open_device(name, flags=flags))
                self._files.append(file)
                return file
            case Submit():
                return self._submit(op)
            case Ioctl(file, request, argument):
                return device_of(file).ioctl(request, argument)
            case _:
                raise AssertionError(f"no such operation: {op!r}")
        return None

    def _write_state(self, name: str, content: bytes | None) -> None:
        directory = self.backend.state_directory()
        if content is None:
            directory.remove(name)
        else:
            directory.write(name, content)

    def _submit(self, op: Submit) -> Begun:
        pending: Pending
        if op.file is None:
            pending = self.backend.submit(op.call, detached=op.detached)  # type: ignore[arg-type]
        else:
            device = device_of(op.file)
            pending = device.submit(op.call, detached=op.detached)  # type: ignore[arg-type]
            if isinstance(op.call, DeviceClose):
                self._files.remove(op.file)
        begun = Begun(say(op) or f"close {op.file.name if op.file else ''}", pending, op.detached)
        self.journal.begun.append(begun)
        return begun

    def _once(self, plan: Callable[[], Plan[Any]]) -> Waits:
        if (known := self._known.get(plan)) is None:
            known = self._known[plan] = yield from _steps(plan(), self)
        return known

    def _locked(self, plan: Plan[Any]) -> object:
        with ExitStack() as held:
            try:
                held.enter_context(self.backend.state_directory().lock())
            except OSError as error:  # the directory is root's
                raise _refused_line(error, "lock the state directory") from error
            steps = _steps(plan, self)
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            raise AssertionError("a plan under the lock may not wait")

    # ---- waits ----

    def _left(self, what: str) -> float | None:
        """Return the seconds left, None when there is no end; raises ``TimedOutError``."""
        self.journal.waiting = what
        if self._deadline is None:
            return None
        left = self._deadline - self.backend.now()
        if left <= 0:
            message = f"timed out after {self.timeout:g} s waiting for {what}"
            raise TimedOutError(message, ", ".join(self.journal.asleep()))
        return left

    def _wait_until(self, op: WaitUntil) -> Waits:
        pause = FIRST_PAUSE
        bounded = self._deadline is not None
        while True:
            answer = yield from _steps(op.check(), self)
            if not isinstance(answer, Waiting):
                self.journal.waiting = ""
                return answer
            left = self._left(answer.what)
            seconds = pause if left is None else min(pause, left)
            yield Wait(seconds, lambda seconds: self._pause(seconds, bounded))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _pause(self, seconds: float | None, bounded: bool) -> None:
        assert seconds is not None
        self.backend.pause(seconds, bounded=bounded)

    def _result(self, begun: Begun, waiting: str) -> Waits:
        pending = begun.pending
        assert pending is not None
        while not pending.done():
            yield Wait(self._left(waiting), pending.wait, pending.fileno)
        self.journal.waiting = ""
        try:
            return pending.result()
        except OSError as error:
            if begun.what in self.journal.written:
                self.journal.written.remove(begun.what)
            raise _refused_line(error, begun.what) from error

    def _next_result(self, op: NextResult) -> Waits:
        device = device_of(op.file)
        while True:
            try:
                return device.read(op.size)
            except BlockingIOError:
                yield Wait(self._left(op.waiting), device.poll, device.fileno)
            except OSError as error:
                raise _refused_line(error, f"read {op.file.name}") from error

    # ---- the end ----

    def close(self, patience: float) -> None:
        """Let go of what the plan left open; a close that sleeps goes on without us.

        ``patience`` in seconds is how long a close may take before it is left alone.
        """
        for file in self._files:
            with suppress(OSError):
                closing = device_of(file).submit(DeviceClose(), detached=True)
                closing.wait(patience)
                closing.close()
        for begun in self.journal.begun:
            begun.close()


def device_of(file: File) -> Device:
    """Return the device of a file that is open (not a dry run's)."""
    assert file.device is not None
    return file.device


def _refused(error: OSError, op: Op) -> RefusedError:
    return _refused_line(error, say(op) or _say_read(op))


def _refused_line(error: OSError, line: str) -> RefusedError:
    number = error.errno or 0
    return RefusedError(number, f"{line}: {os.strerror(number)}")


def _say_read(op: Op) -> str:
    match op:
        case ReadAttribute(path):
            return f"read /sys/kernel/{path}"
        case ListDirectory(path):
            return f"list /sys/kernel/{path}"
        case StatPath(path):
            return f"look at /sys/kernel/{path}"
        case OpenDevice(name):
            return f"open {name}"
        case Ask(question):
            return f"ask for {question.replace('_', ' ')}"
        case ReadState(name) | WriteState(name):
            return f"state file {name}"
        case _:
            return type(op).__name__


def _steps(plan: Plan[Any], session: Session) -> Waits:
    """Drive a plan; yields each wait, returns the plan's result."""
    answer: Any = None  # Any: an answer's type is its operation's
    error: Exception | None = None
    while True:
        try:
            op = plan.send(answer) if error is None else plan.throw(error)
        except StopIteration as end:
            return end.value
        answer, error = None, None
        try:
            answer = yield from session.perform(op)
        except DlmError as caught:
            error = caught


def steps(plan: Plan[T], session: Session) -> Generator[Wait, None, T]:
    """Drive a plan to its end; yields each wait. A refusal says which writes had been made."""
    try:
        result: T = yield from _steps(plan, session)
    except RefusedError as error:
        error.written = error.written or tuple(session.journal.written)
        raise
    return result


def run(
    plan: Plan[T],
    backend: Backend,
    *,
    timeout: float | None = None,
    journal: Journal | None = None,
) -> T:
    """Run a plan to its end, blocking.

    ``timeout`` in seconds bounds the whole of it (None: no end). Raises what the plan raises:
    ``RefusedError`` with ``written``, ``TimedOutError`` with what still waits in the kernel.
    """
    session = Session(backend, timeout, journal or Journal())
    driven = steps(plan, session)
    try:
        while True:
            try:
                wait = next(driven)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            wait.block(wait.seconds)
    finally:
        session.close(CLOSE_PATIENCE)
