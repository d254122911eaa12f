"""The client's end of a connection: numbered requests out, answers and readability in.

Decides: who is woken by which frame, what a lost connection is to those who wait.
May not know: what a verb means.

A thread of its own reads; whoever waits for an answer sleeps on a lock, or on an eventfd of its
own. So ``fileno()`` of a pending call or a device wakes any loop, and nobody polls.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from dlm.errors import NoDlmError
from dlm.remote.streams import Stream
from dlm.remote.wire import (
    ANSWER_LIMIT,
    REQUEST_LIMIT,
    VERSION,
    Frames,
    How,
    Kind,
    ProtocolError,
    frame,
    preamble,
)

HELLO_PATIENCE = 10.0
"""Seconds that a server is given to say who it is."""


class Level:
    """An eventfd that is readable while a level is set; made when it is first asked for."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._set = False
        self._lock = threading.Lock()

    def put(self, level: bool) -> None:
        """Set the level, or take it back."""
        with self._lock:
            if level != self._set:
                self._set = level
                if self._descriptor >= 0:
                    self._move()

    def fileno(self) -> int:
        """Return the descriptor."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                if self._set:
                    self._move()
            return self._descriptor

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _move(self) -> None:
        if self._set:
            os.eventfd_write(self._descriptor, 1)
        else:
            os.eventfd_read(self._descriptor)

    def __del__(self) -> None:
        self.close()


class RemotePending:
    """A request that was made (``dlm.ports.Pending``)."""

    __slots__ = (
        "_convert",
        "_done",
        "_ended",
        "_error",
        "_level",
        "_line",
        "_value",
        "begun",
        "number",
    )

    def __init__(
        self,
        line: Line,
        number: int,
        convert: Callable[[Any], Any] | None,  # Any: what the verb's answer and result are
    ) -> None:
        self.number = number
        self.begun: threading.Lock | None = None
        """Held until the server has said that the call has begun or ended."""
        self._line = line
        self._convert = convert
        self._done = False
        self._ended = threading.Lock()
        self._ended.acquire()
        self._level: Level | None = None
        self._value: Any = None  # Any: the verb's answer
        self._error: OSError | None = None

    def finish(self, value: object = None, error: OSError | None = None) -> None:
        """Let the request end; the line's reader calls this, once."""
        self._value, self._error = value, error
        self._done = True
        self._ended.release()
        self.has_begun()
        level = self._level
        if level is not None:
            level.put(True)

    def has_begun(self) -> None:
        """Let go on whoever waits for the beginning."""
        if self.begun is not None and self.begun.locked():
            self.begun.release()

    def done(self) -> bool:
        """Say whether the call has returned."""
        return self._done

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds (None: no limit) for the return; say whether it came."""
        if self._done:
            return True
        seconds = -1.0 if timeout is None else max(0.0, timeout / self._line.speed)
        if self._ended.acquire(timeout=seconds):
            self._ended.release()
            return True
        return False

    def result(self) -> Any:  # Any: the result's type is the call's
        """Wait without end, then return the call's result or raise its ``OSError``."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value if self._convert is None else self._convert(self._value)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the call has returned."""
        if self._level is None:
            self._level = Level()
            if self.done():
                self._level.put(True)
        return self._level.fileno()

    def close(self) -> None:
        """Let go: a detached call goes on, any other is killed as far as the kernel lets it."""
        if not self.done():
            self._line.cancel(self)
        level, self._level = self._level, None
        if level is not None:
            level.close()


class Line:
    """A connection to a server; ``describe`` and ``pid`` are what it says of the process."""

    def __init__(self, stream: Stream, *, device: bool = False) -> None:
        """Take over a stream and say hello.

        ``device``: a serial port, on which something older may still be. Raises ``NoDlmError`` when
        nobody answers or in another language, the server's ``OSError`` when it refuses.
        """
        self.speed = 1.0
        """The world's seconds per second."""
        self.levels: dict[int, Level] = {}
        """Readability of devices and subscriptions, by target."""
        self._stream = stream
        self._frames = Frames(ANSWER_LIMIT, restarts=device)
        self._greeted = False
        self._requests: dict[int, RemotePending] = {}
        self._let_go: set[int] = set()  # numbers whose answer, if one comes, is nobody's
        self._number = 0
        self._lock = threading.Lock()
        self._lost: str | None = None
        self._version = 0
        self._reader = threading.Thread(target=self._read, name="dlm.remote", daemon=True)
        self._say(preamble())
        hello = self.request(0, "hello")
        self._reader.start()
        try:
            if not hello.wait(HELLO_PATIENCE):
                raise NoDlmError("nobody answers", "see whether a server runs at the other end")
            self._greet(hello)
        except BaseException:
            self.close()
            raise

    def _greet(self, hello: RemotePending) -> None:
        try:
            self.describe, self.pid, self.speed = hello.result()
        except ConnectionResetError as error:
            if self._version not in {0, VERSION}:
                raise NoDlmError(
                    f"the server speaks version {self._version} of the protocol, not {VERSION}",
                    "use the same version of dlm at both ends",
                ) from error
            raise NoDlmError(
                f"the server ended the connection: {error.strerror}", "its log says why"
            ) from error
        except (TypeError, ValueError) as error:
            raise NoDlmError("what answers is no server of dlm", "look at the path") from error
        self._greeted = True

    # ---- requests -------------------------------------------------------------------------------

    def request(
        self,
        target: int,
        verb: str,
        *arguments: object,
        how: How = How.PLAIN,
        convert: Callable[[Any], Any] | None = None,  # Any: the verb's answer, the call's result
    ) -> RemotePending:
        """Make a request; returns at once, or with ``SUBMIT`` when the call has begun."""
        with self._lock:
            self._number += 1
            pending = RemotePending(self, self._number, convert)
            if how & How.SUBMIT:
                pending.begun = threading.Lock()
                pending.begun.acquire()
            data = frame([pending.number, target, int(how), verb, *arguments])
            if len(data) > REQUEST_LIMIT:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE), verb)
            if self._lost is None:
                self._requests[pending.number] = pending
                self._say(data)
            else:
                pending.finish(error=self._gone())
        if pending.begun is not None:
            pending.begun.acquire()
        return pending

    def call(self, target: int, verb: str, *arguments: object) -> Any:  # Any: the verb's answer
        """Make a request and wait for its answer."""
        return self.request(target, verb, *arguments).result()

    def cancel(self, pending: RemotePending) -> None:
        """Let go of a request; its answer, if one comes, is nobody's."""
        with self._lock:
            if self._lost is None and self._requests.pop(pending.number, None) is not None:
                self._let_go.add(pending.number)
                self._say(frame([0, pending.number, 0, "cancel"]))
                pending.finish(error=InterruptedError(errno.EINTR, "the call was let go"))

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            if self._lost is None:
                self._stream.end()
        self._reader.join()

    def disown(self) -> None:
        """In the child of a fork(2): close its copies; the connection is the parent's.

        No lock is taken: a thread that is not here may have held it when the parent forked.
        """
        if self._lost is None:
            self._lost = "it is the parent process's"
            self._lock = threading.Lock()
            self._stream.close()

    def _say(self, data: bytes) -> None:
        """Send; when that fails the reader meets the end too, and tells everybody."""
        try:
            self._stream.send(data)
        except OSError:
            self._stream.end()

    def _gone(self) -> OSError:
        text = f"the connection is lost: {self._lost or 'the other end has gone'}"
        return ConnectionResetError(errno.ECONNRESET, text)

    # ---- the reader -----------------------------------------------------------------------------

    def _read(self) -> None:
        reason = "the other end has gone"
        try:
            while data := self._stream.receive():
                self._frames.feed(data)
                while (item := self._frames.take()) is not None:
                    self._take(item)
        except ProtocolError as error:
            reason = f"what came is not the protocol: {error}"
        except OSError as error:
            reason = str(error)
        self._lose(reason)

    def _take(self, item: int | list[Any]) -> None:  # Any: an answer says itself what it is
        if isinstance(item, int):
            if item != VERSION or self._greeted:
                self._version = item
                raise ProtocolError("the server began anew" if self._greeted else "other version")
            self._version = item
            return
        try:
            number, kind, *rest = item
            if kind == Kind.LEVEL:
                target, level = rest
                if target in self.levels:
                    self.levels[target].put(bool(level))
                return
            if kind == Kind.BEGUN:
                if number in self._requests:
                    self._requests[number].has_begun()
                return
            pending = self._requests.pop(number, None)
            if kind == Kind.RESULT:
                (value,) = rest
                error = None
            else:
                value, error = None, _error(*rest)
        except (TypeError, ValueError) as wrong:
            raise ProtocolError(f"no answer: {item!r:.80}") from wrong
        if pending is not None:
            pending.finish(value, error)
        elif number in self._let_go:
            self._let_go.remove(number)
        else:
            raise ProtocolError(f"an answer to a request that there is not: {item!r:.80}")

    def _lose(self, reason: str) -> None:
        """The connection is gone: everybody who waits is told so."""
        with self._lock:
            self._lost = reason
            requests, self._requests = self._requests, {}
            self._stream.close()
        for pending in requests.values():
            pending.finish(error=self._gone())
        for level in tuple(self.levels.values()):
            level.put(True)


def _error(number: int, text: str, name: str | None) -> OSError:
    return OSError(number, text) if name is None else OSError(number, text, name)
