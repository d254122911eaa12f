"""Operations of a trace and their results as a person reads them: requests decoded, not in bytes.

Decides: the words.
May not know: what is equal (dlm.trace).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dlm.abi.device import (
    Command,
    LockRequest,
    LockspaceRequest,
    PurgeRequest,
    decode_request,
    decode_result,
    decode_version,
)
from dlm.errors import errno_name
from dlm.terms import LockFlag, LockMode, StatusFlag
from dlm.trace import Operation, Result
from dlm.trace.format import REFERENCE, request_of

_CREATE_OR_REMOVE = frozenset({Command.CREATE_LOCKSPACE, Command.REMOVE_LOCKSPACE})
_COMMAND_AT = 12
_LONG = 400
_LINES = 4


def describe(operation: Operation, about: Operation | None = None) -> str:
    """Return what an operation asks, in one line; ``about`` is what a wait was for."""
    request = request_of(operation)
    do = request.pop("do")
    words = [do]
    if do == "write" and "hex" in request:
        words.append(f"{request.pop('fd')}: {_request(request.pop('hex'))}")
    words += [_pair(key, value) for key, value in request.items()]
    if about is not None:
        words.append(f"({describe(about)})")
    return " ".join(words)


def describe_result(operation: Operation, result: Result) -> list[str]:
    """Return what came of an operation, in lines."""
    if not result:
        return ["nothing"]
    if "asleep" in result:
        return ["sleeps for ever: nothing in the emulated world can end it"]
    if "errno" in result:
        number = result["errno"]
        return [errno_name(number) if isinstance(number, int) else str(number)]
    if "text" in result:
        return _cut(result["text"]).splitlines() or ['""']
    if "hex" in result and operation["do"] in {"read", "wait"}:
        return [_read(bytes.fromhex(result["hex"]))]
    return [" ".join(_pair(key, value) for key, value in result.items())]


def describe_texts(operation: Operation, expected: str, got: str) -> tuple[list[str], list[str]]:
    """Return the lines of two texts from the first that differs, with the columns that count."""
    columns = operation.get("columns")
    one, other = ([_line(line, columns) for line in text.splitlines()] for text in (expected, got))
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    shown = tuple(
        [f"line {number}: {line}" for number, line in enumerate(lines, 1)][same : same + _LINES]
        or [f"no line {same + 1}"]
        for lines in (one, other)
    )
    return shown[0], shown[1]


def _line(line: str, columns: list[int] | None) -> str:
    if columns is None:
        return repr(line)[1:-1]
    words = line.split()
    return " ".join(words[each] for each in columns if each < len(words))


def _pair(key: str, value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and value and " " not in value
    text = value if plain else json.dumps(value)
    return _cut(str(text)) if key in {"path", "device"} else f"{key} {_cut(str(text))}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(text)} characters)"


# ---- requests -----------------------------------------------------------------------------------


def _request(digits: str) -> str:
    references = ", ".join(match[1] for match in REFERENCE.finditer(digits))
    digits = REFERENCE.sub(lambda match: "00" * (int(match[3]) // 8), digits)
    data = bytes.fromhex(digits)
    try:
        control = len(data) > _COMMAND_AT and data[_COMMAND_AT] in _CREATE_OR_REMOVE
        decoded = decode_request(data, control=control)
    except OSError as error:
        return f"{_cut(digits)} ({len(data)} bytes: {error.strerror})"
    layout = ["32-bit"] if decoded.compat else []
    return " ".join((*layout, *_BODY[type(decoded.body)](decoded.body), *_saved(references)))


def _saved(references: str) -> list[str]:
    return [f"with the saved {references}"] if references else []


def _lock(body: Any) -> Iterator[str]:  # Any: a LockRequest
    flags = body.flags
    if body.command != Command.LOCK:
        yield Command(body.command).name if not flags & LockFlag.CANCEL else "CANCEL"
        yield f"lock {body.lock_id}"
    elif flags & LockFlag.CONVERT:
        yield f"CONVERT lock {body.lock_id} to {_mode(body.mode)}"
    else:
        yield f"{'ADOPT' if flags & LockFlag.ORPHAN else 'LOCK'} {body.name!r} {_mode(body.mode)}"
    if flags:
        yield _flags(flags, LockFlag)
    if any(body.value):
        yield f"value {body.value.rstrip(bytes(1)).hex()}"
    for name in ("castaddr", "lksb"):
        if body.command == Command.LOCK and not getattr(body, name):
            yield f"no {name}"
    if body.command == Command.LOCK and not body.bastaddr:
        yield "no bastaddr"


def _lockspace(body: Any) -> Iterator[str]:  # Any: a LockspaceRequest
    create = body.command == Command.CREATE_LOCKSPACE
    yield f"CREATE_LOCKSPACE {body.name!r}" if create else f"REMOVE_LOCKSPACE minor {body.minor}"
    if body.flags:
        yield f"flags {body.flags:#x}"


def _purge(body: Any) -> Iterator[str]:  # Any: a PurgeRequest
    yield f"PURGE nodeid {body.nodeid} pid {body.pid}"


_BODY: dict[type, Any] = {  # Any: each takes its own type
    LockRequest: _lock,
    LockspaceRequest: _lockspace,
    PurgeRequest: _purge,
}


def _mode(number: int) -> str:
    return LockMode(number).name if number in set(LockMode) else f"mode {number}"


def _flags(number: int, kind: Any) -> str:  # Any: a class of flags
    names = [flag.name for flag in kind if number & flag]
    rest = number & ~sum(kind)
    return "|".join((*names, *((f"{rest:#x}",) if rest else ())))


# ---- results ------------------------------------------------------------------------------------


def _read(data: bytes) -> str:
    try:
        if len(data) == 12:
            return f"version {'.'.join(map(str, decode_version(data)))}"
        result = decode_result(data)
    except ValueError:
        return data.hex()
    if result.bast_mode:
        words = [f"BAST lock {result.lock_id} mode {_mode(result.bast_mode)}"]
    else:
        words = [f"CAST lock {result.lock_id} status {_status(result.status)}"]
    if result.flags:
        words.append(_flags(result.flags, StatusFlag))
    if result.bast_mode and result.status:
        words.append(f"status {_status(result.status)}")
    if result.value is not None:
        words.append(f"value {result.value.rstrip(bytes(1)).hex() or 'zeros'}")
    words.append(f"ast {result.astaddr:#x}({result.astparam:#x}) lksb {result.lksb:#x}")
    words.append(f"{len(data)} bytes")
    return " ".join(words)


def _status(number: int) -> str:
    return f"-{errno_name(number)}" if number else "0"
