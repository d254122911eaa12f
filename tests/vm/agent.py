"""The agent in a guest: runs commands and makes connections for the harness, over one serial port.

    python -m tests.vm.agent /dev/virtio-ports/dlm.agent

Decides: the channels, which both ends use. May not know: what the commands are.

A channel is a command (``RUN``) or a connection to a Unix socket of the guest (``CONNECT``); its
number is chosen by the harness. Any number of them go on at once, and one that sleeps in the kernel
for ever holds up no other. Frames are those of ``dlm.remote.wire``, each a list:

===================================  ===========================================================
``[RUN, channel, command]``          to the agent: run this with bash
``[CONNECT, channel, path]``         to the agent: connect to this socket
``[DATA, channel, stream, bytes]``   both ways; streams: 0 a connection's, 1 stdout, 2 stderr
``[END, channel, code]``             to the agent: kill the command, close the connection;
                                     to the harness: the exit code (-N: signal N), an errno
``[PING]``                           answered with the same; the agent begins with one
===================================  ===========================================================
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any

from dlm.remote.wire import Frames, frame, preamble

LIMIT = 1 << 22
"""Bytes of the longest frame."""

CHUNK = 1 << 14
"""Bytes that are read at once."""


class Kind(IntEnum):
    """What a frame says."""

    RUN = 0
    CONNECT = 1
    DATA = 2
    END = 3
    PING = 4


class FrameStream:
    """Cuts bytes into frames: ``dlm.remote.wire`` without its preamble, which is the session's."""

    def __init__(self) -> None:
        self._frames = Frames(LIMIT)
        self._frames.feed(preamble())
        self._frames.take()

    def take(self, data: bytes) -> list[list[Any]]:  # Any: numbers, texts, bytes
        """Take what has come and return the frames that it completes."""
        self._frames.feed(data)
        found = []
        while (item := self._frames.take()) is not None:
            assert isinstance(item, list)
            found.append(item)
        return found


class Agent:
    """Serves one port until its other end is gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._selector.register(port, selectors.EVENT_READ, self._hear)
        self._frames = FrameStream()
        self._channels: dict[int, Command | Connection] = {}
        self._over = False

    def serve(self) -> None:
        """Say that we are here, then do as we are told."""
        self.say(Kind.PING)
        while not self._over:
            for key, _ in self._selector.select():
                if self._selector.get_map().get(key.fd) is key:  # no earlier one ended it
                    key.data()

    def say(self, *what: object) -> None:
        """Send a frame; sleeps while the harness does not read, so nothing piles up here."""
        rest = memoryview(frame(list(what)))
        while rest:
            rest = rest[os.write(self._port, rest) :]

    def watch(self, descriptor: int, called: Callable[[], object], events: int = 1) -> None:
        """Call ``called`` when a descriptor is ready; replaces what was said before of it."""
        self.forget(descriptor)
        self._selector.register(descriptor, events, called)

    def forget(self, descriptor: int) -> None:
        """Watch a descriptor no more."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)

    def end(self, channel: int, code: int) -> None:
        """Say that a channel has ended."""
        self._channels.pop(channel, None)
        self.say(Kind.END, channel, code)

    def _hear(self) -> None:
        data = os.read(self._port, CHUNK)
        if not data:
            self._over = True
        for kind, *rest in self._frames.take(data):
            self._obey(kind, rest)

    def _obey(self, kind: int, rest: list[Any]) -> None:  # Any: as FrameStream.take()
        if kind == Kind.PING:
            self.say(Kind.PING)
        elif kind == Kind.RUN:
            channel, command = rest
            self._channels[channel] = Command(self, channel, command)
        elif kind == Kind.CONNECT:
            channel, path = rest
            end = socket.socket(socket.AF_UNIX)
            try:
                end.connect(path)
            except OSError as error:
                end.close()
                self.end(channel, error.errno or 1)
            else:
                self._channels[channel] = Connection(self, channel, end)
        elif (known := self._channels.get(rest[0])) is None:
            pass  # it ended while this was on its way
        elif kind == Kind.DATA:
            known.hear(rest[2])
        else:
            known.stop()


class Command:
    """A command and its output; it ends with its process, whoever else may hold its pipes."""

    def __init__(self, agent: Agent, channel: int, command: str) -> None:
        self._agent = agent
        self._channel = channel
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._exit = os.pidfd_open(self._process.pid)
        for stream, pipe in self._pipes():
            os.set_blocking(pipe, False)
            agent.watch(pipe, partial(self._copy, stream, pipe))
        agent.watch(self._exit, self._ended)

    def _pipes(self) -> tuple[tuple[int, int], ...]:
        out, err = self._process.stdout, self._process.stderr
        assert out is not None
        assert err is not None
        return (1, out.fileno()), (2, err.fileno())

    def _copy(self, stream: int, pipe: int) -> bool:
        """Pass on what can be read; False when there is nothing, now or ever."""
        try:
            data = os.read(pipe, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._agent.forget(pipe)
            return False
        self._agent.say(Kind.DATA, self._channel, stream, data)
        return True

    def _ended(self) -> None:
        for stream, pipe in self._pipes():
            while self._copy(stream, pipe):
                pass
            self._agent.forget(pipe)
        self._agent.forget(self._exit)
        os.close(self._exit)
        with self._process:  # closes the pipes and waits
            pass
        self._agent.end(self._channel, self._process.returncode)

    def hear(self, data: bytes) -> None:
        """Drop it: a command has no input."""

    def stop(self) -> None:
        """Kill it and what it started; the end is told when it comes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Connection:
    """A connection to a socket of the guest; what it does not take at once waits here."""

    def __init__(self, agent: Agent, channel: int, end: socket.socket) -> None:
        self._agent = agent
        self._channel = channel
        self._end = end
        self._unsent = bytearray()
        end.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._agent.watch(self._end.fileno(), self._ready, events)

    def _ready(self) -> None:
        try:
            if self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
            self._watch()
            data = self._end.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._agent.say(Kind.DATA, self._channel, 0, data)
        else:
            self.stop()

    def hear(self, data: bytes) -> None:
        """Send this."""
        self._unsent += data
        self._watch()

    def stop(self) -> None:
        """Close it."""
        self._agent.forget(self._end.fileno())
        self._end.close()
        self._agent.end(self._channel, 0)


if __name__ == "__main__":
    Agent(os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)).serve()
