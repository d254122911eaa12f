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
import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from dlm.ports import (
    Backend,
    Call,
    Device,
    DeviceCall,
    DeviceClose,
    DeviceRead,
    DeviceWrite,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    Pending,
    ReadAttribute,
    RemoveDirectory,
    StatPath,
    UeventSource,
    WriteAttribute,
)
from dlm.remote.wire import REQUEST_LIMIT, How, ProtocolError


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
        verbs: dict[str, Verb],
    ) -> None:
        """Begin with a process, or without one where only extra ``verbs`` are served."""
        self.link = link
        self.direct = direct
        self.locks = locks
        """By boot id; shared by all sessions on one node."""
        self._verbs = verbs
        self._targets: dict[int, Process | File] = {}
        self._calls: dict[int, tuple[Sleeping, bool]] = {}
        self._next = 1
        if backend is not None:
            self._targets[0] = Process(self, backend)

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
        if isinstance(thing, Process):
            table = PROCESS
        elif isinstance(thing, File):
            table = thing.verbs
        else:
            raise ProtocolError(f"there is no target {target}")
        if name not in table:
            raise ProtocolError(f"there is no verb {name!r:.40}")
        return table[name], thing

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


# ---- verbs of a process -------------------------------------------------------------------------

_CALLS: dict[str, Callable[..., Call]] = {
    "read_attribute": ReadAttribute,
    "write_attribute": WriteAttribute,
    "list_directory": ListDirectory,
    "make_directory": MakeDirectory,
    "remove_directory": RemoveDirectory,
    "stat": StatPath,
}
"""Verbs that are calls on the file trees: also the names of the backend's own methods."""

_SLEEPS = {"write_attribute"}
"""Those of them that sleep on some file."""


def _plain(result: Any) -> object:  # Any: a call's result
    """Return a call's result as it travels."""
    return [result.mode, result.inode] if hasattr(result, "inode") else result


def _tree_verb(name: str, *takes: type) -> Verb:
    make = _CALLS[name]

    def do(process: Process, how: How, *arguments: Any) -> object:  # Any: checked by ``takes``
        if how & How.SUBMIT or (name in _SLEEPS and not process.session.direct):
            detached = bool(how & How.DETACHED)
            pending = process.backend.submit(make(*arguments), detached=detached)
            return Sleeping(pending, convert=_plain)
        return _plain(getattr(process.backend, name)(*arguments))

    return Verb(takes, do)


def _open_device(process: Process, how: How, name: str, flags: int) -> int:
    del how
    device = process.backend.open_device(name, flags=OpenFlags(flags))
    return process.session.add(
        lambda number: File(process.session, number, device, process, DEVICE)
    )


def _uevents(process: Process, how: How) -> int:
    del how
    source = process.backend.uevents()
    return process.session.add(
        lambda number: File(process.session, number, source, process, SOURCE)
    )


def _spawn(process: Process, how: How) -> list[int]:
    del how
    other = process.backend.spawn_process()
    number = process.session.add(lambda _: Process(process.session, other))
    return [number, other.process_id()]


def _state_read(process: Process, how: How, name: str) -> bytes | None:
    del how
    return process.backend.state_directory().read(name)


def _state_write(process: Process, how: How, name: str, content: bytes) -> None:
    del how
    process.backend.state_directory().write(name, content)


def _state_remove(process: Process, how: How, name: str) -> None:
    del how
    process.backend.state_directory().remove(name)


def _state_lock(process: Process, how: How) -> Later:
    """Wait for the lock in the order of asking; the backend's own is then taken at once."""
    del how
    if process.lock is not None:
        raise OSError(errno.EDEADLK, os.strerror(errno.EDEADLK), "state directory")
    directory = process.backend.state_directory()
    lock = process.session.locks.setdefault(directory.boot_id(), StateLock())

    def begin(granted: Callable[[], None]) -> None:
        def take() -> None:
            lock.holder = process
            lock.held = directory.lock()
            lock.held.__enter__()
            granted()

        process.lock = lock
        if lock.holder is None:
            take()
        else:
            lock.waiting.append((process, take))

    return Later(begin)


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


PROCESS: dict[str, Verb] = {
    "read_attribute": _tree_verb("read_attribute", str),
    "write_attribute": _tree_verb("write_attribute", str, bytes),
    "list_directory": _tree_verb("list_directory", str),
    "make_directory": _tree_verb("make_directory", str),
    "remove_directory": _tree_verb("remove_directory", str),
    "stat": _tree_verb("stat", str),
    "misc_devices": Verb((), lambda process, _: list(process.backend.misc_devices().items())),
    "controller": Verb((), lambda process, _: process.backend.controller()),
    "local_addresses": Verb((), lambda process, _: list(process.backend.local_addresses())),
    "open_device": Verb((str, int), _open_device),
    "uevents": Verb((), _uevents),
    "spawn_process": Verb((), _spawn),
    "state_read": Verb((str,), _state_read),
    "state_write": Verb((str, bytes), _state_write),
    "state_remove": Verb((str,), _state_remove),
    "state_lock": Verb((), _state_lock),
    "state_unlock": Verb((), lambda process, _: unlock_state(process)),
    "boot_id": Verb((), lambda process, _: process.backend.state_directory().boot_id()),
    "exit": Verb((), lambda process, _: process.session.exit(process)),
}
"""Verbs of a process."""


# ---- verbs of a device and of a subscription ----------------------------------------------------


def _device_call(file: File, how: How, call: DeviceCall) -> Sleeping:
    device: Device = file.thing
    return Sleeping(device.submit(call, detached=bool(how & How.DETACHED)))


def _write(file: File, how: How, request: bytes) -> object:
    if how & How.SUBMIT or not file.session.direct:
        return _device_call(file, how, DeviceWrite(request))
    return file.thing.write(request)


def _read(file: File, how: How, size: int) -> object:
    size = min(size, REQUEST_LIMIT)  # no result is longer, and nobody makes us hold more
    if how & How.SUBMIT or not file.session.direct:
        return _device_call(file, how, DeviceRead(size))
    return file.thing.read(size)


def _ioctl(file: File, how: How, request: int, argument: bytes) -> list[object]:
    del how
    return list(file.thing.ioctl(request, argument))


def _close(file: File, how: How) -> object:
    file.session.remove(file)
    if how & How.SUBMIT or not file.session.direct:
        return _device_call(file, how, DeviceClose())
    return file.thing.close()


def _close_source(file: File, how: How) -> None:
    del how
    file.session.remove(file)
    file.thing.close()


def _read_events(file: File, how: How) -> list[object]:
    del how
    source: UeventSource = file.thing
    return [[event.header, event.env] for event in source.read_nowait()]


DEVICE: dict[str, Verb] = {
    "write": Verb((bytes,), _write),
    "read": Verb((int,), _read),
    "ioctl": Verb((int, bytes), _ioctl),
    "poll": Verb((), lambda file, _: int(file.thing.poll(0))),
    "watch": Verb((), lambda file, _: file.session.watch(file)),
    "close": Verb((), _close),
}
"""Verbs of an open device."""

SOURCE: dict[str, Verb] = {
    "read": Verb((), _read_events),
    "poll": Verb((), lambda file, _: file.thing.wait(0)),
    "watch": Verb((), lambda file, _: file.session.watch(file)),
    "close": Verb((), _close_source),
}
"""Verbs of a subscription to kernel events."""
