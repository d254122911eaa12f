"""The loop that serves backends to connections: one thread, nothing in it ever sleeps but itself.

Decides: who is let in, what ends a connection, who is woken when, what is logged.
May not know: what a verb does (dlm.remote.session), which backend it serves.

One connection is one process. When it drops, for whatever reason, that process exits; whatever one
connection sends, no other one notices.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from dlm.errors import NoDlmError
from dlm.ports import Backend
from dlm.remote import streams
from dlm.remote.session import Session, StateLock, Verb
from dlm.remote.verbs import PROCESS
from dlm.remote.wire import (
    REQUEST_LIMIT,
    VERSION,
    Frames,
    Kind,
    ProtocolError,
    frame,
    preamble,
)

BACKLOG = 1 << 28
"""Bytes of answers that a connection may leave unread before it counts as gone."""

Spawn = Callable[[], Backend]
"""Makes the process of a new connection; an ``OSError`` of it is what the client is told."""


class World(Protocol):
    """What else goes on in the server's thread: an emulated world in real time."""

    def catch_up(self) -> None:
        """Let happen what is due by now."""

    def delay(self) -> float | None:
        """Return seconds until more is due, None when nothing is."""


@dataclass
class Port:
    """What connections come to: a name for the log, what they get, what they share."""

    name: str
    spawn: Spawn | None
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    locks: dict[str, StateLock] = field(default_factory=dict)


class Server:
    """Serves any number of ports; ``run()`` until ``stop()`` or until nothing is left to serve.

    ``world`` is kept going between requests. ``direct``: the backends' plain calls are made by this
    process and may sleep, so each connection that comes to a listener gets a process of its own
    (fork(2)). ``speed``: the world's seconds per second, which clients are told. ``log`` gets one
    line at a time. ``peer_uid`` says whose the process at the other end of a socket is.
    """

    def __init__(
        self,
        *,
        world: World | None = None,
        direct: bool = False,
        speed: float = 1.0,
        log: Callable[[str], None],
        peer_uid: Callable[[socket.socket], int] = streams.peer_uid,
    ) -> None:
        self.direct = direct
        self.speed = speed
        self.log = log
        self.selector = selectors.DefaultSelector()
        self.connections: dict[Connection, None] = {}
        self._world = world
        self._peer_uid = peer_uid
        self._listeners: list[socket.socket] = []
        self._unsent: dict[Connection, None] = {}
        self._children: dict[int, int] = {}  # pidfd of each process that serves a connection
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.watch(self._wake, self._woken)

    # ---- what is served -------------------------------------------------------------------------

    def listen(self, listener: socket.socket, port: Port) -> None:
        """Serve whoever connects to a listening socket and belongs to this user."""
        listener.setblocking(False)
        self._listeners.append(listener)
        self.watch(listener.fileno(), lambda: self._accept(listener, port))

    def adopt(self, descriptor: int, port: Port, *, line: bool = False) -> None:
        """Serve a stream that is open already; ``line``: a serial line, which never ends."""
        connection = Connection(self, descriptor, port, port.name, line=line)
        self.connections[connection] = None

    def alarm(self, port: Port) -> None:
        """Wake everybody who waits at a port: its node has gone."""
        for connection in tuple(self.connections):
            if connection.port is port and connection.session is not None:
                connection.session.alarm()

    def drop(self, port: Port, reason: str) -> None:
        """End every connection to a port."""
        for connection in tuple(self.connections):
            if connection.port is port:
                connection.end(reason)

    # ---- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until ``stop()``, or until no listener and no connection is left."""
        while not self._stopping:
            self._flush()
            if not (self._listeners or self.connections):  # nor will there ever be one
                break
            self._run_once()

    def _run_once(self) -> None:
        """Wait until something is to be done, and do it."""
        delay = None
        if self._world is not None:
            self._world.catch_up()
            self._flush()
            delay = self._world.delay()
        for key, events in self.selector.select(delay):
            if self._world is not None:
                self._world.catch_up()
            woken = key.data
            if isinstance(woken, Connection):
                woken.ready(events)
            elif self.selector.get_map().get(key.fd) is key:  # nobody has unwatched it meanwhile
                woken()

    def stop(self) -> None:
        """End ``run``; may be called from another thread or a signal's handler."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def close(self) -> None:
        """End every connection, give everything back."""
        for connection in tuple(self.connections):
            connection.end("")
        for child, descriptor in self._children.items():
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            os.close(descriptor)
            os.waitpid(child, os.WNOHANG)  # one that sleeps in the kernel ends when it wakes
        if self._world is not None:
            self._world.catch_up()
        for listener in self._listeners:
            listener.close()
        self.selector.close()
        os.close(self._wake)

    def watch(self, descriptor: int, woken: Callable[[], None]) -> None:
        """Call ``woken`` whenever a descriptor is readable."""
        self.selector.register(descriptor, selectors.EVENT_READ, woken)

    def unwatch(self, descriptor: int) -> None:
        """Do so no more."""
        self.selector.unregister(descriptor)

    def send_later(self, connection: Connection) -> None:
        """Send what a connection has to say before the loop sleeps again."""
        self._unsent[connection] = None

    def _flush(self) -> None:
        while self._unsent:
            connection, _ = self._unsent.popitem()
            connection.flush()

    # ---- who comes ------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, port: Port) -> None:
        try:
            peer, _ = listener.accept()
        except OSError as error:  # it has gone again, or there are no descriptors left
            if error.errno != errno.EAGAIN:
                self.log(f"{port.name}: accept: {error.strerror}")
            return
        uid = self._peer_uid(peer)
        if uid != os.geteuid():
            self.log(f"{port.name}: a process of user {uid} was turned away")
            refusal = [1, Kind.REFUSED, errno.EACCES, "only its owner may connect", None]
            with peer, suppress(OSError):
                peer.setblocking(False)
                peer.send(preamble() + frame(refusal))
            return
        if self.direct:
            self._fork(peer, port)
            return
        self.adopt(peer.detach(), port)

    def _fork(self, peer: socket.socket, port: Port) -> None:
        """Give a connection a process of its own, in which its calls may sleep."""
        child = os.fork()
        if child:
            peer.close()
            descriptor = self._children[child] = os.pidfd_open(child)

            def ended() -> None:
                self.unwatch(descriptor)
                os.close(self._children.pop(child))
                os.waitpid(child, 0)

            self.watch(descriptor, ended)
            return
        code = 1
        try:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            self.selector.close()
            for listener in self._listeners:
                listener.close()
            alone = Server(direct=True, speed=self.speed, log=self.log)
            alone.adopt(peer.detach(), port)
            alone.run()
            alone.close()
            code = 0
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run here
            self.log(f"{port.name}: a bug: {traceback.format_exc()}")
        finally:
            os._exit(code)


class Connection:
    """One stream: bytes to requests, answers to bytes (``dlm.remote.session.Link``)."""

    def __init__(
        self, server: Server, descriptor: int, port: Port, name: str, *, line: bool
    ) -> None:
        """Take over a descriptor."""
        self.port = port
        self.session: Session | None = None
        self._server = server
        self._descriptor = descriptor
        self._name = name
        self._line = line
        self._frames = Frames(REQUEST_LIMIT, restarts=line)
        self._out = bytearray()
        self._events = selectors.EVENT_READ
        self._open = True
        os.set_blocking(descriptor, False)
        server.selector.register(descriptor, self._events, self)

    # ---- the link -------------------------------------------------------------------------------

    def answer(self, number: int, value: object) -> None:
        """End a request with its result."""
        self._say(number, [number, Kind.RESULT, value])

    def refuse(self, number: int, error: OSError) -> None:
        """End a request with a refusal."""
        name = error.filename
        what = [number, Kind.REFUSED, error.errno or 0, error.strerror or str(error)]
        self._say(number, [*what, name if isinstance(name, str) else None])

    def begun(self, number: int) -> None:
        """Say that a request sleeps."""
        self._say(number, [number, Kind.BEGUN])

    def level(self, target: int, readable: bool) -> None:
        """Say that a descriptor has become readable, or is so no more."""
        self._send(frame([0, Kind.LEVEL, target, int(readable)]))

    def watch(self, descriptor: int, woken: Callable[[], None]) -> None:
        """Call ``woken`` whenever the descriptor is readable."""
        self._server.watch(descriptor, lambda: self._guarded(woken))

    def unwatch(self, descriptor: int) -> None:
        """Do so no more."""
        self._server.unwatch(descriptor)

    # ---- input ----------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Read or write what can be."""
        if events & selectors.EVENT_WRITE:
            self.flush()
        if self._open and events & selectors.EVENT_READ:
            self._guarded(self._receive)

    def _receive(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in {errno.ECONNRESET, errno.EIO}:  # EIO: a terminal hung up
                raise
            data = b""
        if not data:
            self.end("")
            return
        self._frames.feed(data)
        self._drain()

    def _drain(self) -> None:
        while self._open and (item := self._frames.take()) is not None:
            if isinstance(item, int):
                self._begin(item)
            elif self.session is not None:
                self.session.perform(item)
            else:
                self._hello(item)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something; whatever goes wrong ends this connection, and no other one."""
        try:
            action()
        except ProtocolError as error:
            self._give_up(str(error))
        except Exception:  # noqa: BLE001 - a bug that one client meets is not the others'
            self._give_up(f"a bug: {traceback.format_exc()}")

    def _begin(self, version: int) -> None:
        self._exit()
        self._send(preamble())
        if version != VERSION:
            raise ProtocolError(f"it speaks version {version} of the protocol, not {VERSION}")

    def _hello(self, request: list[object]) -> None:
        if request != [1, 0, 0, "hello"]:
            raise ProtocolError(f"no hello: {request!r:.80}")
        server, port = self._server, self.port
        try:
            backend = None if port.spawn is None else port.spawn()
        except (OSError, NoDlmError) as error:
            refusal = error if isinstance(error, OSError) else OSError(errno.ENODEV, str(error))
            self.refuse(1, refusal)
            self.end("")
            return
        self.session = Session(
            self, backend, port.locks, direct=server.direct, table=PROCESS, verbs=dict(port.verbs)
        )
        describe = port.name if backend is None else backend.describe()
        pid = 0 if backend is None else backend.process_id()
        self.answer(1, [describe, pid, server.speed])

    # ---- output ---------------------------------------------------------------------------------

    def _say(self, number: int, what: list[object]) -> None:
        if number:
            self._send(frame(what))

    def _send(self, data: bytes) -> None:
        if self._open:
            self._out += data
            self._server.send_later(self)

    def flush(self) -> None:
        """Send what can be sent; the rest when there is room."""
        if not self._open:
            return
        try:
            if self._out:
                del self._out[: os.write(self._descriptor, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.end("")
            return
        if len(self._out) > BACKLOG:
            self.end(f"left {len(self._out)} bytes unread")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if events != self._events:
            self._events = events
            self._server.selector.modify(self._descriptor, events, self)

    # ---- the end --------------------------------------------------------------------------------

    def _give_up(self, reason: str) -> None:
        """End the session for a fault; a serial line stays, for whoever begins anew."""
        if not self._line:
            self.end(reason)
            return
        self._server.log(f"{self._name}: session ended: {reason}")
        self._exit()
        self._frames.resynchronize()
        self._send(preamble())
        self._guarded(self._drain)

    def end(self, reason: str) -> None:
        """End the connection, with a line in the log where there is a reason."""
        if not self._open:
            return
        with suppress(OSError):  # what it was told last, as far as it goes
            os.write(self._descriptor, self._out)
        self._open = False
        if reason:
            self._server.log(f"{self._name}: connection ended: {reason}")
        self._server.connections.pop(self, None)
        self._server.selector.unregister(self._descriptor)
        os.close(self._descriptor)
        self._exit()

    def _exit(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            try:
                session.end()
            except Exception:  # noqa: BLE001 - a bug that one client leaves is not the others'
                self._server.log(f"{self._name}: a bug: {traceback.format_exc()}")
