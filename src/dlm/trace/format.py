"""The text of a trace: a header, then one operation with its result per line.

Decides: what a line may hold, which lines are malformed and what is said of them.
May not know: any backend, what an operation does.
Source: docs/traces.md, which is the format's own document.

Keys that this module does not know are kept and mean nothing: a later version may add some.
"""

from __future__ import annotations

import errno
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.errors import UsageError

VERSION = 1
"""The value of the header's ``dlm_trace``."""

DIALECTS = ("configfs", "event", "members")
"""What the header's ``abi`` may say."""

MASK = ("minor", "pid", "time")
"""What a recorded header lists as known to the recording kernel alone."""

FLAGS = ("rdonly", "wronly", "rdwr", "nonblock")
"""What the ``flags`` of an open may list."""

Operation = dict[str, Any]
"""One line after the header.  Any: each key has its own type, which was checked."""

REFERENCE = re.compile(r"\$\{(\w+):([us])(8|16|32|64)\}")
"""A saved value inside ``hex``: ``${minor:u32}``, little-endian."""


class TraceError(UsageError):
    """A trace or script that is malformed; the message begins with its file and line."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line.

    ``kernel`` is the release that the trace was recorded on, ``mask`` names what is not compared.
    """

    kernel: str = "unknown"
    abi: str = "configfs"
    nodes: int = 1
    comment: str = ""
    mask: tuple[str, ...] = MASK

    def as_line(self) -> Operation:
        """Return the line as it is written."""
        return {
            "dlm_trace": VERSION,
            "kernel": self.kernel,
            "abi": self.abi,
            "nodes": self.nodes,
            "comment": self.comment,
            "mask": list(self.mask),
        }


@dataclass(frozen=True, slots=True)
class Line:
    """An operation and the number of its line, counted from 1."""

    number: int
    operation: Operation


@dataclass(frozen=True, slots=True)
class Trace:
    """A header and operations; ``name`` is where it came from, for messages."""

    header: Header
    lines: tuple[Line, ...]
    name: str = ""


# ---- reading ------------------------------------------------------------------------------------


def load(path: str | Path, *, header: Header | None = None) -> Trace:
    """Read a trace from a file, ``.jsonl`` or ``.jsonl.gz``.

    ``header`` stands in where the file has none, as a script may; without it that is malformed.
    Raises ``TraceError`` for what is malformed, ``OSError`` for a file that cannot be read.
    """
    path = Path(path)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":  # whatever its name is
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise TraceError(f"{path}: cannot be decompressed: {error}") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path}:{number}: is not UTF-8") from error
    return loads(text, str(path), header=header)


def loads(text: str, name: str = "trace", *, header: Header | None = None) -> Trace:
    """Read a trace from its text; empty lines are passed over. As ``load``."""
    reader = _Reader(name, header)
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            reader.take(number, line)
    return reader.trace()


def check(operation: Operation, *, nodes: int = 1, names: Names | None = None) -> None:
    """Raise ``TraceError`` when an operation is malformed.

    ``names`` holds what earlier operations have named, and takes what this one names; None: only
    the operation itself is looked at.
    """
    do = operation.get("do")
    if not isinstance(do, str):
        raise TraceError('no "do"' if do is None else f'"do" is {_show(do)}, not a text')
    needs = NEEDS.get(do)
    if needs is None:
        raise TraceError(f'unknown "do": {_show(do)}; there is {", ".join(NEEDS)}')
    for key in needs:
        if key not in operation:
            raise TraceError(f'{do} needs "{key}"')
    for key, value in operation.items():
        if value is None and key in RESULTS:
            continue  # a result without a value, as somebody's recorder may write it
        test = _CHECKS.get(key)
        if test is not None and (wrong := test(value)):
            raise TraceError(f'"{key}" is {_show(value)}, not {wrong}')
    if do in _CONTENT and ("hex" in operation) == ("text" in operation):
        raise TraceError(f'{do} needs "text" or "hex", one of them')
    if operation.get("node", 1) > nodes:
        raise TraceError(f'"node" is {operation["node"]}, and the header says {nodes} nodes')
    if "async" in operation and do not in ASYNC and do not in {"wait", "pending"}:
        raise TraceError(f'{do} cannot be "async": only {", ".join(sorted(ASYNC))} can')
    if names is not None:
        names.take(do, operation)


class Names:
    """What the operations so far have named: files, calls that sleep, saved values."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._calls: set[str] = set()
        self._saved = {"pid"}

    def take(self, do: str, operation: Operation) -> None:
        """Check what an operation refers to and note what it names; ``TraceError``."""
        if do == "open":
            self._files.add(operation["as"])
        elif "fd" in operation and operation["fd"] not in self._files:
            raise TraceError(f"no file was opened as {_show(operation['fd'])}")
        if "async" in operation:
            if do in ASYNC:
                self._calls.add(operation["async"])
            elif operation["async"] not in self._calls:
                raise TraceError(f'no operation before has "async": {_show(operation["async"])}')
        if "$" in operation.get("hex", ""):
            for name, _, _ in REFERENCE.findall(operation["hex"]):
                if name not in self._saved:
                    raise TraceError(f'no operation before has "save": "{name}"')
        if "save" in operation:
            self._saved.add(operation["save"])


class _Reader:
    def __init__(self, name: str, header: Header | None) -> None:
        self._name = name
        self._header: Header | None = None
        self._default = header
        self._lines: list[Line] = []
        self._names = Names()

    def take(self, number: int, text: str) -> None:
        try:
            try:
                line = json.loads(text)
            except ValueError as error:
                raise TraceError(f"is not JSON: {error}") from error
            except RecursionError as error:
                raise TraceError("is nested too deeply") from error
            if not isinstance(line, dict):
                raise TraceError(f"is not an object: {_show(line)}")
            if self._header is None:
                if "dlm_trace" in line:
                    self._header = _header(line)
                    return
                if self._default is None:
                    raise TraceError('the first line is no header: it has no "dlm_trace"')
                self._header = self._default
            check(line, nodes=self._header.nodes, names=self._names)
        except TraceError as error:
            raise TraceError(f"{self._name}:{number}: {error}") from error
        self._lines.append(Line(number, line))

    def trace(self) -> Trace:
        header = self._header or self._default
        if header is None:
            raise TraceError(f"{self._name}: is empty: there is no header")
        return Trace(header, tuple(self._lines), self._name)


def _header(line: Operation) -> Header:
    if line["dlm_trace"] != VERSION:
        raise TraceError(f'"dlm_trace" is {_show(line["dlm_trace"])}: only {VERSION} can be read')
    header = Header(
        kernel=_take(line, "kernel", str, "unknown"),
        abi=_take(line, "abi", str, "configfs"),
        nodes=_take(line, "nodes", int, 1),
        comment=_take(line, "comment", str, ""),
        mask=tuple(_take(line, "mask", list, [])),
    )
    if header.abi not in DIALECTS:
        raise TraceError(f'"abi" is {_show(header.abi)}, none of: {", ".join(DIALECTS)}')
    if header.nodes < 1:
        raise TraceError(f'"nodes" is {header.nodes}, not a positive number')
    if not all(isinstance(each, str) for each in header.mask):
        raise TraceError('"mask" is no list of texts')
    return header


def _take(line: Operation, key: str, kind: type, default: Any) -> Any:  # Any: of that kind
    value = line.get(key, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TraceError(f'"{key}" is {_show(value)}, not {_KINDS[kind]}')
    return value


_KINDS = {str: "a text", int: "a number", list: "a list"}


# ---- what a line may hold -----------------------------------------------------------------------

NEEDS: dict[str, tuple[str, ...]] = {
    "mkdir": ("path",),
    "rmdir": ("path",),
    "put": ("path",),
    "get": ("path",),
    "list": ("path",),
    "mode": ("path",),
    "open": ("device", "as"),
    "write": ("fd",),
    "read": ("fd", "size"),
    "poll": ("fd",),
    "ioctl": ("fd", "request", "hex"),
    "close": ("fd",),
    "exit": (),
    "wait": ("async",),
    "pending": ("async",),
    "uevent": (),
    "settle": (),
    "crash": ("node",),
    "boot": ("node",),
    "partition": ("between",),
    "heal": ("between",),
}
"""Every operation, and the keys without which it means nothing."""

ASYNC = frozenset({"write", "put", "read", "close", "exit"})
"""Operations that can sleep, and may be named by "async"."""

RESULTS = (
    "ok", "ret", "text", "hex", "names", "mode", "events", "pending", "header", "env", "out",
    "errno",
)  # fmt: skip
"""Keys of results."""

INPUTS = {
    "put": frozenset({"text", "hex"}),
    "write": frozenset({"text", "hex"}),
    "ioctl": frozenset({"hex"}),
}
"""Keys that look like a result's and belong to what is asked."""

_CONTENT = frozenset({"put", "write"})


def request_of(operation: Operation) -> Operation:
    """Return an operation without a result, as a script has it."""
    given = INPUTS.get(operation["do"], frozenset())
    return {k: v for k, v in operation.items() if k in given or k not in RESULTS}


def errno_number(name: str | int) -> int:
    """Return the number of an errno by its name; a number is itself. 0 when there is none."""
    if isinstance(name, int):
        return name
    if name.isdecimal():
        return int(name)
    found = _DLM.get(name) or getattr(errno, name, 0)
    return found if isinstance(found, int) else 0


_DLM = {"DLM_ECANCEL": 0x10001, "DLM_EUNLOCK": 0x10002}

# Each check says what a value should have been, "" when it is.


def _text(value: object) -> str:
    return "" if isinstance(value, str) else "a text"


def _number(value: object) -> str:
    return "" if type(value) is int else "a number"


def _positive(value: object) -> str:
    return "" if type(value) is int and value > 0 else "a positive number"


def _size(value: object) -> str:
    return "" if type(value) is int and value >= 0 else "a number of bytes"


def _truth(value: object) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _hex(value: object) -> str:
    if not isinstance(value, str):
        return "a text"
    if "$" in value:
        value = REFERENCE.sub("", value)
    try:
        bytes.fromhex(value)
    except ValueError:
        return "bytes in hexadecimal"
    return ""


def _digits(base: int, what: str) -> Callable[[object], str]:
    def test(value: object) -> str:
        if type(value) is int:
            return ""
        try:
            int(value, base)  # type: ignore[call-overload]
        except (ValueError, TypeError):
            return what
        return ""

    return test


def _texts(value: object) -> str:
    fine = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return "" if fine else "a list of texts"


def _numbers(value: object) -> str:
    fine = isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
    return "" if fine else "a list of numbers"


def _pair(value: object) -> str:
    return "" if not _numbers(value) and len(value) == 2 else "two nodes"  # type: ignore[arg-type]


def _flags(value: object) -> str:
    fine = not _texts(value) and all(each.lower() in FLAGS for each in value)  # type: ignore[attr-defined]
    return "" if fine else f"a list of {', '.join(FLAGS)}"


def _env(value: object) -> str:
    return "" if isinstance(value, list | dict) else "a list of KEY=value"


def _errno(value: object) -> str:
    known = (type(value) is int or isinstance(value, str)) and errno_number(value)
    return "" if known else "the name of an errno"


_CHECKS: dict[str, Callable[[object], str]] = {
    "path": _text,
    "device": _text,
    "as": _text,
    "fd": _text,
    "process": _text,
    "async": _text,
    "save": _text,
    "text": _text,
    "header": _text,
    "hex": _hex,
    "out": _hex,
    "node": _positive,
    "between": _pair,
    "size": _size,
    "columns": _numbers,
    "flags": _flags,
    "request": _digits(16, "a number in hexadecimal"),
    "events": _digits(16, "an event mask in hexadecimal"),
    "mode": _digits(8, "a mode in octal"),
    "ret": _number,
    "ok": _truth,
    "pending": _truth,
    "names": _texts,
    "env": _env,
    "errno": _errno,
}


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- writing ------------------------------------------------------------------------------------


def dumps(trace: Trace) -> str:
    """Return the text of a trace."""
    lines: Iterable[Operation] = (
        trace.header.as_line(),
        *(line.operation for line in trace.lines),
    )
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def dump(trace: Trace, path: str | Path) -> None:
    """Write a trace to a file; one whose name ends in ``.gz`` is compressed, without a date."""
    path = Path(path)
    raw = dumps(trace).encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
