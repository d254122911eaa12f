"""Compares the result of an operation with what its line says.

Decides: what counts as equal, what a header's mask and a line's columns leave out.
May not know: how the result came about.

Values are compared, not their spelling: a mode is a number, names have no order, an errno has
several names. A line that says nothing of a result is content with any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dlm.abi.device import Command
from dlm.ports import PollEvents
from dlm.trace.format import INPUTS, RESULTS, Operation, errno_number
from dlm.trace.stage import Result

NO_VALUE = frozenset({"mkdir", "rmdir", "open", "close", "exit", "settle"})
"""Operations whose success has no value: their line may say nothing of it."""

_NOTHING: frozenset[str] = frozenset()

_CREATE = f"{Command.CREATE_LOCKSPACE:02x}"  # the thirteenth byte of a request, in every layout


@dataclass(frozen=True, slots=True)
class Difference:
    """An operation whose result was another: ``expected`` by the line, ``got`` in the replay."""

    number: int
    operation: Operation
    expected: Result
    got: Result
    about: Operation | None = None
    """The operation that a wait was for."""


def expected_of(operation: Operation) -> Result:
    """Return what a line says of the result."""
    given = INPUTS.get(operation["do"], _NOTHING)
    return {key: operation[key] for key in RESULTS if _says(operation, key) and key not in given}


def _says(operation: Operation, key: str) -> bool:
    return operation.get(key) is not None  # null: no value, and nothing is said


def same(
    operation: Operation, got: Result, mask: frozenset[str], about: Operation | None = None
) -> bool:
    """Say whether a result is what the line says; ``about`` is what a wait was for."""
    do = operation["do"]
    expected = expected_of(operation)
    if expected == got:
        return True
    if "asleep" in got:
        return False
    if "errno" in expected or "errno" in got:
        return _same_errno(do, expected, got)
    if got.get("pending") and do == "wait" and "pending" not in expected:
        return False
    if do in {"get", "wait"} and ("text" in expected or "hex" in expected):
        if not _same_content(operation.get("columns"), expected, got):
            return False
        expected = {k: v for k, v in expected.items() if k not in {"text", "hex"}}
    return all(
        (key == "ret" and _is_masked(mask, operation, about))
        or (key in got and _SAME.get(key, _equal)(value, got[key], mask))
        for key, value in expected.items()
    )


def _is_masked(mask: frozenset[str], *operations: Operation | None) -> bool:
    return any(
        each is not None and "save" in each and (each["save"] in mask or _is_minor(mask, each))
        for each in operations
    )


def _is_minor(mask: frozenset[str], operation: Operation) -> bool:
    """Say whether a saved value is a minor under a name of its own, as a second lockspace's is."""
    return "minor" in mask and operation.get("hex", "")[24:26] == _CREATE


def _same_errno(do: str, expected: Result, got: Result) -> bool:
    if not expected:  # nothing is said: of these, that means success
        return do not in NO_VALUE
    if "errno" not in expected or "errno" not in got:
        return False
    return errno_number(expected["errno"]) == errno_number(got["errno"])


# ---- contents -----------------------------------------------------------------------------------


def _same_content(columns: list[int] | None, expected: Result, got: Result) -> bool:
    if "text" not in got and "hex" not in got:
        return False
    one, other = _raw(expected), _raw(got)
    if one == other:
        return True
    if columns is None:
        return "text" in expected and expected["text"] in _spellings(other)
    said = expected.get("text") or one.decode("utf-8", "replace")
    return any(_columns(said, columns) == _columns(text, columns) for text in _spellings(other))


# debugfs shows where a resource lies: hashed with a secret of each boot, or, before there is one,
# as a word (Linux 6.1 lib/vsprintf.c, ptr_to_id()). No two machines say the same.
_POINTER = re.compile(rb"^(rsb|Resource) [0-9a-f]{16}(?= )", re.MULTILINE)


def _raw(result: Result) -> bytes:
    if "hex" in result:
        raw = bytes.fromhex(result["hex"])
    else:
        text: str = result["text"]
        raw = text.encode("utf-8", "surrogateescape")
    return _POINTER.sub(rb"\1 (____ptrval____)", raw)


def _spellings(raw: bytes) -> Iterable[str]:
    """Yield what somebody who records may have made of bytes that are no text."""
    yield raw.decode("latin-1")
    for how in ("replace", "backslashreplace", "surrogateescape", "ignore"):
        yield raw.decode("utf-8", how)


def _columns(text: str, columns: list[int]) -> list[list[str]]:
    found = []
    for line in text.splitlines():
        words = line.split()
        found.append([words[each] for each in columns if each < len(words)])
    return found


# ---- values -------------------------------------------------------------------------------------


def _equal(expected: object, got: object, mask: frozenset[str]) -> bool:
    del mask
    return expected == got


def _same_hex(expected: str, got: str, mask: frozenset[str]) -> bool:
    del mask
    return bytes.fromhex(expected) == bytes.fromhex(got)


def _same_names(expected: list[str], got: list[str], mask: frozenset[str]) -> bool:
    del mask
    return sorted(expected) == sorted(got)


def _same_mode(expected: str | int, got: str, mask: frozenset[str]) -> bool:
    del mask
    number = expected if isinstance(expected, int) else int(expected, 8)
    return number & 0o7777 == int(got, 8)


# A device without a poll method says WRNORM too, to whoever asks for it (Linux 6.1
# include/linux/poll.h, DEFAULT_POLLMASK): that tells of the recorder, not of the kernel.
_ASKED_FOR = ~int(PollEvents.WRNORM)


def _same_events(expected: str | int, got: str, mask: frozenset[str]) -> bool:
    del mask
    number = expected if isinstance(expected, int) else int(expected, 16)
    return number & _ASKED_FOR == int(got, 16) & _ASKED_FOR


def _same_env(expected: Any, got: Any, mask: frozenset[str]) -> bool:  # Any: several spellings
    one, other = (
        [(k, v) for k, v in _pairs(env) if k != "SEQNUM" and k.lower() not in mask]
        for env in (expected, got)
    )
    if isinstance(expected, dict):  # an object has no order
        return sorted(one) == sorted(other)
    return one == other


def _pairs(env: Any) -> list[tuple[str, str]]:  # Any: an object, a list of pairs or of KEY=value
    if isinstance(env, dict):
        return [(str(key), str(value)) for key, value in env.items()]
    found = []
    for each in env:
        if isinstance(each, str):
            key, _, value = each.partition("=")
            found.append((key, value))
        elif isinstance(each, list) and len(each) == 2:
            found.append((str(each[0]), str(each[1])))
        else:
            found.append((str(each), ""))
    return found


_SAME: dict[str, Callable[[Any, Any, frozenset[str]], bool]] = {  # Any: of the key's own type
    "hex": _same_hex,
    "out": _same_hex,
    "names": _same_names,
    "mode": _same_mode,
    "events": _same_events,
    "env": _same_env,
}
