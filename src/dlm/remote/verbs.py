"""The verbs of the protocol: which call of ``dlm.ports`` each one is, and what it takes.

Decides: which calls may sleep, and so are submitted where the server has one thread for all.
May not know: frames, sockets, how a call that sleeps is waited for (dlm.remote.session).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from dlm.ports import (
    Call,
    Device,
    DeviceCall,
    DeviceClose,
    DeviceRead,
    DeviceWrite,
    ListDirectory,
    MakeDirectory,
    OpenFlags,
    ReadAttribute,
    RemoveDirectory,
    StatPath,
    UeventSource,
    WriteAttribute,
)
from dlm.remote.session import File, Later, Process, Sleeping, StateLock, Verb, unlock_state
from dlm.remote.wire import REQUEST_LIMIT, How

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
    number = process.session.add(lambda _: Process(process.session, other, PROCESS))
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
    "change_mode": Verb((int,), lambda file, _, mode: file.thing.change_mode(mode)),
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
