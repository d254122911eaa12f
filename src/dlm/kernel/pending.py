"""A call that has begun in a helper process, and the values that name calls.

Decides: how a helper's answer becomes a result or an ``OSError``.
May not know: what a call means, how a helper is started.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dlm.kernel import helper

SystemCall = tuple[str, tuple[object, ...]]
"""A call by name, as helper.perform() takes it: ("rmdir", ("/sys/…",))."""

ON_FILES = frozenset({"read", "write", "close"})
"""Calls whose first argument is an open file; it travels to the helper along with the call."""


def unpack_answer(answer: object) -> object:
    """Return the result in a helper's answer or raise its error."""
    if not isinstance(answer, tuple):  # the channel ended first
        raise OSError(errno.EINTR, "the process ended before its call returned")
    if answer[0]:
        return answer[1]
    _, number, path = answer
    raise OSError(number, os.strerror(number), path)


def plain(argument: object) -> object:
    """Return an argument as marshal takes it, which refuses subclasses such as an ``IntFlag``."""
    if isinstance(argument, int):
        return int(argument)
    return str(argument) if isinstance(argument, str) else argument


def open_files(calls: tuple[SystemCall, ...]) -> list[int]:
    """Return the open files that these calls are about, each once."""
    return list(dict.fromkeys(_file(call) for call in calls if call[0] in ON_FILES))


def closed_files(calls: tuple[SystemCall, ...]) -> list[int]:
    """Return the open files that these calls close."""
    return [_file(call) for call in calls if call[0] == "close"]


def _file(call: SystemCall) -> int:
    descriptor = call[1][0]
    assert isinstance(descriptor, int)
    return descriptor


def _carried(calls: tuple[SystemCall, ...]) -> tuple[SystemCall, ...]:
    """Return the calls as the helper is to make them, on its own numbers of the files.

    It lets go of its files before it answers: then its close is not the last one, except where
    everybody else has closed the file in the meantime.
    """
    files = open_files(calls)
    there = {each: helper.FIRST_FILE + place for place, each in enumerate(files)}
    carried = []
    for name, arguments in calls:
        first = (there[_file((name, arguments))],) if name in ON_FILES else ()
        carried.append((name, (*first, *map(plain, arguments[len(first) :]))))
    left = [there[each] for each in files if each not in closed_files(calls)]
    return (*carried, *(("close", (each,)) for each in left))


class HelperPending:
    """The seam's ``Pending``: calls that a helper makes, the first of which gives the result."""

    def __init__(
        self,
        channel: int,
        calls: tuple[SystemCall, ...],
        *,
        detached: bool,
        convert: Callable[[Any], Any],  # Any: the result's type is the call's
        path: str | None = None,
    ) -> None:
        """Send the calls and wait until the helper is about to make them.

        Without that wait a call could come after what its sender does next: a helper takes a
        while to start. Their open files have been handed over in the order of open_files().
        """
        self._channel = channel
        self._convert = convert
        self._path = path
        self._answer: tuple[object] | None = None
        with suppress(BrokenPipeError, ConnectionResetError):  # then there is no answer either
            helper.send(channel, (_carried(calls), detached, True))
        helper.receive(channel)  # BEGUN

    def done(self) -> bool:
        """Say whether the call has returned."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (None: no end) for the return; say whether it came."""
        if self._answer is not None:
            return True
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))

    def result(self) -> Any:  # Any: the result's type is the call's
        """Wait without end, then return the call's result or raise its ``OSError``.

        A helper that was killed gives EINTR.
        """
        if self._answer is None:
            self._answer = (helper.receive(self.fileno()),)
        try:
            return self._convert(unpack_answer(self._answer[0]))
        except OSError as error:
            error.filename = error.filename or self._path
            raise

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the call has returned."""
        if self._channel < 0:
            raise ValueError("the pending call is closed")
        return self._channel

    def close(self) -> None:
        """Let go: a detached call goes on, any other is killed as far as the kernel lets it."""
        if self._channel >= 0:
            os.close(self._channel)  # SIGIO ends the helper of a call that is not detached
            self._channel = -1
            helper.reap()

    def __del__(self) -> None:
        self.close()
