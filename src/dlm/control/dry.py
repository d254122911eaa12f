"""Dry runs: a plan's reads are made, its writes are only said, and its waits too.

Decides: what a run that changes nothing answers, and what it says in order.
May not know: any verb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlm.control.plan import (
    Begun,
    File,
    Ioctl,
    NextResult,
    Op,
    OpenDevice,
    Plan,
    Result,
    Submit,
    T,
    Waiting,
    WaitUntil,
    WriteState,
    say,
)
from dlm.control.runner import Journal, Session, Waits, steps
from dlm.ports import (
    Backend,
    DeviceCall,
    DeviceRead,
    DeviceWrite,
    MakeDirectory,
    RemoveDirectory,
    WriteAttribute,
)

Record = dict[str, Any]
"""One operation as a line of a trace; a wait is ``{"do": "wait", "what": "until …"}``.

Any: texts and numbers, as JSON has them.
"""


def dry_run(
    plan: Plan[T],
    backend: Backend,
    *,
    tell: Callable[[str, Record], None],
    journal: Journal | None = None,
) -> T:
    """Run a plan without changing anything; raises what its checks raise.

    ``tell`` gets each write and each wait, in order, as a line for people and as a record.
    Writes are answered with success; a wait before the first write is met if it is met now.
    """
    session = _DrySession(backend, journal or Journal(), tell)
    driven = steps(plan, session)
    try:
        next(driven)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("a dry run does not wait")


class _DrySession(Session):
    """Answers what would change something, or wait, by itself; hands on the rest."""

    def __init__(
        self, backend: Backend, journal: Journal, tell: Callable[[str, Record], None]
    ) -> None:
        super().__init__(backend, None, journal)
        self._say = tell
        self._changed = False

    def perform(self, op: Op) -> Waits:
        match op:
            case WriteAttribute(_, value):
                return self._write(op, len(value))
            case MakeDirectory() | RemoveDirectory():
                return self._write(op, None)
            case WriteState():
                return None
            case OpenDevice(name):
                return File(name, None)
            case Submit():
                if say(op):
                    self._write(op, None)
                return Begun(op.what, None, op.detached)
            case Ioctl(_, _, argument):
                return self._write(op, (0, argument))
            case Result(begun, waiting):
                return self._result_dry(begun, waiting)
            case NextResult(waiting=waiting):
                return self._wait(f"for {waiting}")
            case WaitUntil():
                return (yield from self._until(op))
            case _:
                return (yield from super().perform(op))

    def _locked(self, plan: Plan[Any]) -> object:
        driven = steps(plan, self)  # without the lock: taking it would leave a file
        try:
            next(driven)
        except StopIteration as end:
            return end.value
        raise AssertionError("a plan under the lock may not wait")

    def _write(self, op: Op, answer: object) -> object:
        self._changed = True
        self._say(say(op), record(op))
        return answer

    def _wait(self, what: str) -> None:
        self._say(f"wait {what}", {"do": "wait", "what": what})

    def _result_dry(self, begun: Begun, waiting: str) -> int:
        if begun.detached:  # any other returns in a moment, where locking is not suspended
            self._wait(f"for {waiting}")
        return 0

    def _until(self, op: WaitUntil) -> Waits:
        if not self._changed:
            driven = steps(op.check(), self)
            try:
                yield next(driven)
            except StopIteration as end:
                if not isinstance(end.value, Waiting):
                    return end.value
        self._wait(f"until {op.what}")
        return op.dry


def record(op: Op) -> Record:
    """Return an operation that writes as a line of a trace."""
    match op:
        case WriteAttribute(path, value):
            text = value.decode("ascii", "replace")
            if text.removesuffix("\n").isprintable():
                return {"do": "put", "path": path, "text": text}
            return {"do": "put", "path": path, "hex": value.hex()}
        case MakeDirectory(path):
            return {"do": "mkdir", "path": path}
        case RemoveDirectory(path):
            return {"do": "rmdir", "path": path}
        case Ioctl(file, request, argument, what):
            line = {"do": "ioctl", "fd": file.name, "request": f"{request:08x}"}
            return line | {"hex": argument.hex(), "what": what}
        case Submit(call, file, what):
            return _record_call(call, file, what)  # type: ignore[arg-type]
        case _:
            raise AssertionError(f"nothing that writes: {op!r}")


def _record_call(call: DeviceCall | WriteAttribute, file: File | None, what: str) -> Record:
    if file is None:
        assert isinstance(call, WriteAttribute)
        return record(call)
    match call:
        case DeviceWrite(request):
            return {"do": "write", "fd": file.name, "hex": request.hex(), "what": what}
        case DeviceRead(size):
            return {"do": "read", "fd": file.name, "size": size}
        case _:
            return {"do": "close", "fd": file.name}
