"""The action ``trace``: record a script of operations, replay traces.

Decides: what each does and shows, which backends it runs on.
May not know: the format, how operations are done and compared (dlm.trace).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, TextIO

from dlm.cli.emulated import Emulated, names_release, profile_name
from dlm.cli.parser import PROGRAM, Request
from dlm.cli.readable import describe, describe_result, describe_texts
from dlm.cli.sentences import ExitCode
from dlm.connect import VARIABLE, connect
from dlm.control import Control
from dlm.errors import UsageError
from dlm.ports import Backend
from dlm.trace import (
    Difference,
    Header,
    Line,
    Operation,
    Patience,
    Report,
    Trace,
    dump,
    dumps,
    load,
    record,
    replay,
)

Shown = tuple[ExitCode, list[str], dict[str, Any]]
"""An exit code, lines for people, values for ``--json``.  Any: what JSON can hold."""

DIFFERENCES_SHOWN = 5
"""Differences of one file that are shown in full."""


def perform(request: Request, backend: Backend | None, out: TextIO) -> Shown:
    """Do the action; ``backend`` is the process that the tool runs as, if it was given one."""
    verb, words = str(request.values["verb"]), request.values["file"]
    assert isinstance(words, tuple)
    if verb not in _VERBS:
        raise UsageError(f"{verb!r} is none of: {', '.join(_VERBS)}")
    return _VERBS[verb](request, [str(word) for word in words], backend, out)


# ---- record -------------------------------------------------------------------------------------


def _record(request: Request, words: list[str], given: Backend | None, out: TextIO) -> Shown:
    if len(words) != 1:
        raise UsageError(f"usage: {PROGRAM} trace record <script> [-o FILE]")
    script = _load(words[0], Header())
    if request.has("dry_run"):
        lines = [describe(line.operation) for line in script.lines]
        return ExitCode.DONE, lines, {"dry_run": lines}
    target: Any = request.values.get("output")  # Any: a text, or None
    if target is not None:
        _check_target(Path(target))
    done: list[Operation] = []
    with _backends(request, given, script.header.nodes) as backends:
        header = _header(request, script.header, backends[0])
        try:
            trace = record(
                script, backends, header=header, patience=_patience(request), keep=done.append
            )
        except BaseException as error:
            if target is not None and len(done) > 1:
                _write(_as_trace(header, done), target)
                error.add_note(f"{target} has the {len(done) - 1} operations before")
            raise
    if target is None and not request.has("json"):
        out.write(dumps(trace))
        return ExitCode.DONE, [], {}
    data: dict[str, Any] = {"operations": len(trace.lines), "kernel": header.kernel}
    if target is None:
        data["trace"] = [trace.header.as_line(), *(line.operation for line in trace.lines)]
        return ExitCode.DONE, [], data
    _write(trace, target)
    return ExitCode.DONE, [f"{target}: {len(trace.lines)} operations"], data | {"file": target}


def _header(request: Request, header: Header, backend: Backend) -> Header:
    """Return the script's header with the kernel that is asked for or, if not, seen."""
    spec = backend.describe()
    if spec == "kernel":
        header = changed(header, kernel=os.uname().release)
    elif spec.startswith("emulator:") and "/" in spec:
        from dlm.cli.served import control_path
        from dlm.remote.client import ask

        _, abi, kernel, _ = ask(control_path(os.path.dirname(spec.partition(":")[2])), "status")
        header = changed(header, kernel=kernel, abi=abi)
    said: Any = request.values.get("kernel")  # Any: a text, or None
    return header if said is None else changed(header, kernel=str(said))


def _check_target(target: Path) -> None:
    """Refuse a file that could not be written when all is recorded."""
    place = target if target.exists() else target.parent
    if target.is_dir():
        raise UsageError(f"{target}: {os.strerror(errno.EISDIR)}")
    if not place.exists():
        raise UsageError(f"{target}: {os.strerror(errno.ENOENT)}")
    if not os.access(place, os.W_OK):
        raise UsageError(f"{target}: {os.strerror(errno.EACCES)}")


def _as_trace(header: Header, done: list[Operation]) -> Trace:
    return Trace(header, tuple(Line(number, line) for number, line in enumerate(done[1:], 2)))


def _write(trace: Trace, target: str) -> None:
    try:
        dump(trace, target)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from error


# ---- replay -------------------------------------------------------------------------------------


def _replay(request: Request, words: list[str], given: Backend | None, out: TextIO) -> Shown:
    if request.has("output"):
        raise UsageError("replay writes no file: -o belongs to record")
    fresh = given is None and not _specs(request)
    kernel: Any = request.values.get("kernel")  # Any: a text, or None
    if kernel is not None and not (fresh and names_release(kernel)):
        raise UsageError(
            f"{kernel!r} is no release, such as 6.1"
            if fresh
            else "--kernel says what to emulate, and a backend is named"
        )
    operations = different = 0
    files = []
    for trace in [_load(word, None) for word in words]:  # all, before anything is done
        if request.has("dry_run"):
            report = Report(trace, len(trace.lines), ())
        elif fresh:
            emulated = Emulated(trace, kernel)
            if kernel is None and not request.has("json"):
                _note_kernel(trace, out)
            report = replay(
                trace, emulated.backends, machines=emulated, patience=_patience(request)
            )
        else:
            with _backends(request, given, trace.header.nodes) as backends:
                report = replay(trace, backends, patience=_patience(request))
        operations += report.operations
        different += len(report.differences)
        files.append(_data(report))
        if not request.has("json"):
            _show(report, out, alone=len(words) == 1, dry=request.has("dry_run"))
    code = ExitCode.REFUSED if different else ExitCode.DONE
    data = {"operations": operations, "differences": different, "files": files}
    if request.has("dry_run"):
        return code, [f"{operations} operations, not replayed"], data
    return code, [f"{operations} operations, {different} differences"], data


def _note_kernel(trace: Trace, out: TextIO) -> None:
    said = trace.header.kernel
    if trace.header.abi == "configfs" and not names_release(said):
        emulated = profile_name(said)
        out.write(f"{trace.name}: {said!r} is no release, {emulated} is emulated (--kernel)\n")


def _show(report: Report, out: TextIO, *, alone: bool, dry: bool) -> None:
    for difference in report.differences[:DIFFERENCES_SHOWN]:
        out.writelines(f"{line}\n" for line in _lines(report.trace, difference))
    more = len(report.differences) - DIFFERENCES_SHOWN
    if more > 0:
        out.write(f"{report.trace.name}: {more} more differences\n")
    if not alone:
        result = "well-formed" if dry else f"{len(report.differences)} differences"
        out.write(f"{report.trace.name}: {report.operations} operations, {result}\n")
    out.flush()  # the next file may take a while


def _lines(trace: Trace, difference: Difference) -> Iterator[str]:
    operation = difference.operation
    yield f"{trace.name}:{difference.number}: {describe(operation, difference.about)}"
    expected, got = difference.expected, difference.got
    if "text" in expected and "text" in got:
        shown = describe_texts(operation, expected["text"], got["text"])
    else:
        shown = describe_result(operation, expected), describe_result(operation, got)
    if shown[0] == shown[1]:  # they differ in what a person is not shown
        shown = [json.dumps(expected)], [json.dumps(got)]
    for what, (first, *rest) in zip(("expected", "got"), shown, strict=True):
        yield f"    {what:<8} {first}"
        yield from (f"    {'':<8} {line}" for line in rest)


def _data(report: Report) -> dict[str, Any]:
    return {
        "file": report.trace.name,
        "operations": report.operations,
        "differences": [
            {
                "line": each.number,
                "operation": each.operation,
                "expected": each.expected,
                "got": each.got,
            }
            for each in report.differences
        ],
    }


# ---- what both need -----------------------------------------------------------------------------


def _load(path: str, header: Header | None) -> Trace:
    try:
        return load(Path(path), header=header)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _patience(request: Request) -> Patience:
    seconds: Any = request.values.get("timeout")  # Any: a float, or None
    return Patience() if seconds is None else Patience(wait=seconds)


def _specs(request: Request) -> list[str]:
    """Return the backends that are named, one for each node; [] when none is."""
    several: Any = request.values.get("backends")  # Any: a text, or None
    one: Any = request.values.get("backend") or os.environ.get(VARIABLE)
    if several:
        return str(several).split(",")
    return [str(one)] if one else []


@contextmanager
def _backends(request: Request, given: Backend | None, nodes: int) -> Iterator[Sequence[Backend]]:
    """Give a backend for each node, and close those that were made here.

    Each has a DLM, ``NoDlmError``: a trace of a node without one would be nothing but ENOENT.
    """
    specs: list[str | None] = [*_specs(request)] or [None]
    if given is not None and "backends" not in request.values:
        if nodes != 1:
            raise UsageError(f"{nodes} nodes need --backends, one for each with commas between")
        Control(given).snapshot()
        yield [given]
        return
    if len(specs) != nodes:
        raise UsageError(f"{nodes} nodes need --backends, one for each with commas between")
    with ExitStack() as stack:
        backends = [stack.enter_context(closing(connect(spec))) for spec in specs]
        for backend in backends:
            Control(backend).snapshot()
        yield backends


_VERBS: dict[str, Callable[[Request, list[str], Backend | None, TextIO], Shown]] = {
    "record": _record,
    "replay": _replay,
}
