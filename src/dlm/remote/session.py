"""What one connection has: processes, open devices, subscriptions, calls that have begun.

Decides: which call of ``dlm.ports`` each verb is, what its arguments are, what of it ends with the
connection.
May not know: frames, sockets, when anything is looked at again.

A *link* is what the session gives its answers to. Two kinds of backend are served. In one thread
with others (``direct`` False, an emulator) no call may sleep here: those that could are submitted.
Alone in its process (``direct`` True, a kernel) a plain call is made by this very process, as its
holder would: it may sleep, and what comes after it waits.
"""

from __future__ import annotations

import errno
import select
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from dlm.ports import (
    Backend,
    Pending,
)
from dlm.remote.wire import How, ProtocolError


class Link(Protocol):
    """What a session says, and what it asks to be woken by."""

    def answer(self, number: int, value: object) -> None:
        """End a request with its result."""

    def refuse(self, number: int, error: OSError) -> None:
        """End a request with a refusal."""

    def begun(self, number: int) -> None:
        """Say that a request sleeps."""

    def level(self, target: int, readable: bool) -> None:
        """Say that a descriptor has become readable, or is so no more."""

    def watch(self, descriptor: int, woken: Callable[[], None]) -> None:
        """Call ``woken`` whenever the descriptor is readable."""

    def unwatch(self, descriptor: int) -> None:
        """Do so no more."""


@dataclass
class StateLock:
    """The lock of a node's state directory: who has it, who waits for it, in order."""

    holder: Process | None = None
    held: AbstractContextManager[None] | None = None
    waiting: deque[tuple[Process, Callable[[], None]]] = field(default_factory=deque)


@dataclass
class Process:
    """A process: number 0 of the connection, or one that was spawned from another."""

    session: Session
    backend: Backend
    verbs: dict[str, Verb]
    lock: StateLock | None = None


@dataclass
class File:
    """A device or a subscription; ``told`` is the readability that the client knows of."""

    session: Session
    number: int
    thing: Any  # Any: a Device or a UeventSource, as ``verbs`` says
    process: Process
    verbs: dict[str, Verb]
    watched: int = -1
    told: bool = False


@dataclass
class Sleeping:
    """What a verb returns when its call may sleep."""

    pending: Pending
    convert: Callable[[Any], object] = lambda value: value  # Any: the call's result


@dataclass
class Later:
    """What a verb returns that answers by itself, with ``None``, when its turn comes."""

    begin: Callable[[Callable[[], None]], None]


@dataclass(frozen=True)
class Verb:
    """A verb: the types of its arguments, and what it does: ``do(target, how, *arguments)``."""

    takes: tuple[type | tuple[type, ...], ...]
    do: Callable[..., object]


class Session:
    """All that a connection has; ``end()`` is the exit of its processes."""

    def __init__(
        self,
        link: Link,
        backend: Backend | None,
        locks: dict[str, StateLock],
        *,
        direct: bool,
        table: dict[str, Verb],
        verbs: dict[str, Verb],
    ) -> None:
        """Begin with a process, or without one where only extra ``verbs`` are served.

        ``table`` holds what can be asked of the process (dlm.remote.verbs).
        """
        self.link = link
        self.direct = direct
        self.locks = locks
        """By boot id; shared by all sessions on one node."""
        self._verbs = verbs
        self._targets: dict[int, Process | File] = {}
        self._calls: dict[int, tuple[Sleeping, bool]] = {}
        self._next = 1
        if backend is not None:
            self._targets[0] = Process(self, backend, table)

    # ---- requests -------------------------------------------------------------------------------

    def perform(self, request: list[Any]) -> None:  # Any: an argument says itself what it is
        """Do what a request says; raises ``ProtocolError`` when it says nothing that there is."""
        if len(request) < 4 or not all(isinstance(each, int) for each in request[:3]):
            raise ProtocolError(f"no request: {request!r:.80}")
        number, target, how, name, *arguments = request
        if not isinstance(name, str):
            raise ProtocolError(f"there is no verb {name!r:.40}")
        if number in self._calls:
            raise ProtocolError(f"request {number} has not ended and comes again")
        if name == "cancel":
            self._cancel(target)
            return
        verb, thing = self._find(target, name)
        if len(arguments) != len(verb.takes) or not all(map(isinstance, arguments, verb.takes)):
            raise ProtocolError(f"wrong arguments for {name!r}: {arguments!r:.80}")
        try:
            answer = verb.do(thing, How(how), *arguments)
        except OSError as error:
            self._sync(thing)
            self.link.refuse(number, error)
        except (ValueError, OverflowError) as error:  # a path with a zero byte, a size of 2**62
            self.link.refuse(number, OSError(errno.EINVAL, str(error)))
        else:
            self._answer(number, thing, How(how), answer)

    def _find(self, target: int, name: str) -> tuple[Verb, Process | File | None]:
        if target == 0 and name in self._verbs:
            return self._verbs[name], None
        thing = self._targets.get(target)
        if thing is None:
            raise ProtocolError(f"there is no target {target}")
        if name not in thing.verbs:
            raise ProtocolError(f"there is no verb {name!r:.40}")
        return thing.verbs[name], thing

    def _answer(self, number: int, thing: Process | File | None, how: How, answer: object) -> None:
        if isinstance(answer, Sleeping):
            if answer.pending.done():
                self._end(number, thing, answer)
                return
            self._calls[number] = answer, bool(how & How.DETACHED)
            self.link.watch(answer.pending.fileno(), lambda: self._returned(number, thing))
        elif isinstance(answer, Later):
            ended: list[None] = []

            def end() -> None:
                ended.append(None)
                self.link.answer(number, None)

            answer.begin(end)
            if ended:
                return
        else:
            self._sync(thing)
            self.link.answer(number, answer)
            return
        if how & How.SUBMIT:
            self.link.begun(number)

    def _returned(self, number: int, thing: Process | File | None) -> None:
        sleeping, _ = self._calls.pop(number)
        self.link.unwatch(sleeping.pending.fileno())
        self._end(number, thing, sleeping)

    def _end(self, number: int, thing: Process | File | None, sleeping: Sleeping) -> None:
        try:
            result = sleeping.convert(sleeping.pending.result())
        except OSError as error:
            self._sync(thing)
            self.link.refuse(number, error)
        else:
            self._sync(thing)
            self.link.answer(number, result)
        sleeping.pending.close()

    def _cancel(self, number: int) -> None:
        """Let go of a call; it has no answer any more."""
        found = self._calls.get(number)
        if found is not None and not found[1]:
            self._forget(number).close()

    def _forget(self, number: int) -> Pending:
        sleeping, _ = self._calls.pop(number)
        self.link.unwatch(sleeping.pending.fileno())
        return sleeping.pending

    # ---- readability ----------------------------------------------------------------------------

    def _sync(self, thing: Process | File | None) -> None:
        """Tell the client how readable a watched descriptor is now, if it does not know."""
        if isinstance(thing, File) and thing.watched >= 0:
            readable = _readable(thing.watched)
            if readable != thing.told:
                self.tell(thing, readable)

    def tell(self, file: File, readable: bool) -> None:
        """Tell the client; while it knows of something to read, nobody needs to be woken."""
        if file.told:
            self.link.watch(file.watched, lambda: self.tell(file, True))
        if readable:
            self.link.unwatch(file.watched)
        file.told = readable
        self.link.level(file.number, readable)

    def watch(self, file: File) -> None:
        """Begin to tell the client about a descriptor."""
        if file.watched < 0:
            file.watched = file.thing.fileno()
            self.link.watch(file.watched, lambda: self.tell(file, True))
            self._sync(file)

    def unwatch(self, file: File) -> None:
        """Tell it no more: the descriptor is about to go."""
        if file.watched >= 0:
            if not file.told:
                self.link.unwatch(file.watched)
            file.watched = -1

    def alarm(self) -> None:
        """Wake whoever waits for anything: the node is gone, and the next call will say so."""
        for thing in self._targets.values():
            if isinstance(thing, File) and thing.watched >= 0 and not thing.told:
                self.tell(thing, True)

    # ---- things ---------------------------------------------------------------------------------

    def add(self, make: Callable[[int], Process | File]) -> int:
        """Give a new thing its number."""
        number = self._next
        self._next += 1
        self._targets[number] = make(number)
        return number

    def remove(self, file: File) -> None:
        """Forget a device or subscription that is closed."""
        self.unwatch(file)
        self._targets.pop(file.number, None)

    def exit(self, process: Process) -> None:
        """Let a process end: its files close, its calls end, its lock goes to the next."""
        for thing in list(self._targets.values()):
            if isinstance(thing, File) and thing.process is process:
                self.remove(thing)
        self._targets = {n: each for n, each in self._targets.items() if each is not process}
        unlock_state(process)
        process.backend.close()

    def end(self) -> None:
        """The connection is gone: all of its processes exit; detached calls go on."""
        for number in list(self._calls):
            detached = self._calls[number][1]
            pending = self._forget(number)
            if not detached:
                pending.close()
        for thing in list(self._targets.values()):
            if isinstance(thing, Process):
                with suppress(OSError):  # its node is down
                    self.exit(thing)


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def unlock_state(process: Process) -> None:
    """Let go of the state directory's lock, or wait for it no more."""
    lock, process.lock = process.lock, None
    if lock is None:
        return
    lock.waiting = deque(each for each in lock.waiting if each[0] is not process)
    if lock.holder is process:
        assert lock.held is not None
        lock.held.__exit__(None, None, None)
        lock.holder = lock.held = None
        if lock.waiting:
            _, take = lock.waiting.popleft()
            take()
