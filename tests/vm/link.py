"""The harness's end of a guest's agent: commands that run there, sockets that lead there.

Decides: numbers of channels, what is told to those who wait when the guest is gone.
May not know: how a guest is booted, what the commands are.

``tests.vm.agent`` has the frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from dlm.remote.wire import frame
from tests.vm.agent import CHUNK, FrameStream, Kind

PATIENCE = 30.0
"""Seconds in which an agent answers a ping, however busy its guest is."""


class GuestDiedError(Exception):
    """A guest is gone that should be there; no verdict on what was tested."""


class NoPowerError(Exception):
    """A guest was asked for something after its power had been cut, or while it was."""


class CommandTimeoutError(Exception):
    """A command did not end in time; its guest lives."""


class CommandFailedError(Exception):
    """A command that had to succeed did not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its output, and its exit code (-N: signal N ended it)."""

    command: str
    stdout: str
    stderr: str
    code: int


class Channel(Protocol):
    """What the frames of one channel are given to."""

    def data(self, stream: int, data: bytes) -> None:
        """Something came."""

    def ended(self, code: int | None) -> None:
        """The channel is over; None: the guest is."""


class Running:
    """A command in a guest; it may sleep there as long as it likes."""

    def __init__(self, link: Link, number: int, command: str, echo: Callable[[str], None]) -> None:
        self.command = command
        self._link = link
        self._number = number
        self._output = {1: bytearray(), 2: bytearray()}
        self._line = {1: b"", 2: b""}
        self._echo = echo
        self._code: int | None = None
        self._over = False
        self._changed = threading.Condition()

    @property
    def stdout(self) -> str:
        """Return what it has printed so far."""
        return self._output[1].decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Return what it has printed so far to standard error."""
        return self._output[2].decode(errors="replace")

    @property
    def running(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._over

    def wait(self, timeout: float = 60.0, *, check: bool = False) -> Done:
        """Wait until it ends.

        Raises ``CommandTimeoutError``, after which it goes on; ``CommandFailedError`` when
        ``check`` and its exit code is not 0; ``GuestDiedError``, ``NoPowerError``.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._over, timeout):
                self._link.ping()
                raise CommandTimeoutError(f"{self.command}: still running after {timeout:g} s")
        if self._code is None:
            raise self._link.loss()
        done = Done(self.command, self.stdout, self.stderr, self._code)
        if check and done.code:
            raise CommandFailedError(f"{self.command}: exit code {done.code}\n{done.stderr}")
        return done

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Wait until ``text`` is in its standard output.

        Raises ``CommandTimeoutError``; ``CommandFailedError`` when it ends without having said it;
        ``GuestDiedError``, ``NoPowerError``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._over or text in self.stdout, timeout)
        if text in self.stdout:
            return
        if self._over:
            done = self.wait()
            raise CommandFailedError(f"{self.command}: ended without {text!r}\n{done.stderr}")
        self._link.ping()
        raise CommandTimeoutError(f"{self.command}: no {text!r} after {timeout:g} s")

    def kill(self) -> None:
        """Kill it and what it started (SIGKILL); what sleeps in the kernel may not notice."""
        self._link.send(Kind.END, self._number, 0)

    def data(self, stream: int, data: bytes) -> None:
        """Keep what it printed, and show whole lines."""
        with self._changed:
            self._output[stream] += data
            self._changed.notify_all()
        *lines, self._line[stream] = (self._line[stream] + data).split(b"\n")
        for line in lines:
            self._echo(line.decode(errors="replace"))

    def ended(self, code: int | None) -> None:
        """Show what is left and wake who waits."""
        for rest in filter(None, self._line.values()):
            self._echo(rest.decode(errors="replace"))
        if code:
            kind = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._echo(f"[{kind}: {self.command}]")
        with self._changed:
            self._code = code
            self._over = True
            self._changed.notify_all()


class Relay:
    """A connection of this machine that goes on in the guest."""

    def __init__(self, link: Link, number: int, end: socket.socket) -> None:
        self._link = link
        self._number = number
        self._end = end

    def start(self) -> None:
        """Begin to copy what comes from this machine."""
        threading.Thread(target=self._copy, name="relay", daemon=True).start()

    def _copy(self) -> None:
        with self._end:
            with contextlib.suppress(OSError):
                while data := self._end.recv(CHUNK):
                    self._link.send(Kind.DATA, self._number, 0, data)
            self._link.send(Kind.END, self._number, 0)

    def data(self, _stream: int, data: bytes) -> None:
        """Pass on what came from the guest."""
        with contextlib.suppress(OSError):  # it has gone: its thread says so to the guest
            self._end.sendall(data)

    def ended(self, _code: int | None) -> None:
        """Let this machine's end see the end."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)


class Link:
    """A connection to one guest's agent, from its boot to its end."""

    def __init__(self, stream: socket.socket, name: str, console: str = "") -> None:
        """Take over a connection; ``console`` says where to look when the guest has died."""
        self._stream = stream
        self._name = name
        self._advice = f": see {console}" if console else ""
        self._frames = FrameStream()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._channels: dict[int, Channel] = {}
        self._number = 0
        self._lost = False
        self._meant = False
        self._pong = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"link to {name}", daemon=True)
        self._reader.start()

    def run(self, command: str, echo: Callable[[str], None]) -> Running:
        """Start a command."""
        number = self._new_number()
        running = Running(self, number, command, echo)
        self._open(number, running)
        self.send(Kind.RUN, number, command)
        return running

    def connect(self, end: socket.socket, path: str) -> None:
        """Join a connection of this machine with a socket of the guest."""
        number = self._new_number()
        relay = Relay(self, number, end)
        self._open(number, relay)
        self.send(Kind.CONNECT, number, path)
        relay.start()

    def ping(self, patience: float = PATIENCE) -> None:
        """Return when the agent answers; raises ``GuestDiedError``, ``NoPowerError``."""
        self._pong.clear()
        self.send(Kind.PING)
        self.wait_pong(patience)

    def wait_pong(self, patience: float) -> None:
        """Wait until the agent has said something of itself: it begins with that."""
        if not self._pong.wait(patience):
            raise GuestDiedError(f"{self._name} does not answer{self._advice}")
        if self._lost:
            raise self.loss()

    def loss(self) -> Exception:
        """Return what is to be raised when the guest is gone."""
        if self._meant:
            return NoPowerError(f"the power of {self._name} has been cut")
        return GuestDiedError(f"{self._name} has died{self._advice}")

    def send(self, *what: object) -> None:
        """Send a frame; who waits for an answer learns that the guest is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._stream.sendall(frame(list(what)))

    def expect_loss(self) -> None:
        """From now on the end of the guest is meant."""
        self._meant = True

    def close(self) -> None:
        """End the link, once the guest is gone."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._stream.close()

    def _new_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _open(self, number: int, channel: Channel) -> None:
        with self._lock:
            if not self._lost:
                self._channels[number] = channel
                return
        channel.ended(None)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._stream.recv(CHUNK):
                for item in self._frames.take(data):
                    self._take(*item)
        with self._lock:
            self._lost = True
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.ended(None)
        self._pong.set()

    def _take(self, kind: int, number: int = 0, *rest: Any) -> None:  # Any: agent's frames
        if kind == Kind.PING:
            self._pong.set()
        elif kind == Kind.DATA and number in self._channels:
            self._channels[number].data(*rest)
        elif kind == Kind.END and (channel := self._channels.pop(number, None)) is not None:
            channel.ended(*rest)
