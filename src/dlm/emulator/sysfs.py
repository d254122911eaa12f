"""The directory ``dlm/<lockspace>``: what its attributes show and what writing them does.

Decides: which part of a lockspace stands behind which attribute.
May not know: modes, formats and parse rules (dlm.abi.attributes has them).
Mirrors: the kobject attributes of fs/dlm/lockspace.c (Linux 6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dlm.abi.attributes import LOCKSPACE, Attribute, attributes_of
from dlm.emulator.pending import Body
from dlm.emulator.space import Space
from dlm.emulator.tree import Directory, File

PAGE_SIZE = 4096

_SHOW: dict[str, Callable[[Space], int]] = {
    "id": lambda space: space.global_id,
    "nodir": lambda space: int(space.core.no_directory),
    "recover_status": lambda space: space.core.recover_status,
    "recover_nodeid": lambda space: space.core.recover_nodeid,
}


def lockspace(space: Space) -> Directory:
    """Return a new directory for a lockspace."""
    directory = Directory()
    for row in attributes_of(LOCKSPACE, space.module.profile):
        show = None if row.show is None else partial(_show, space, row)
        store = None if row.parse is None else partial(_store, space, row)
        directory.entries[row.name] = File(row.mode, show, store)
    return directory


def _show(space: Space, row: Attribute) -> bytes:
    return row.show_value(_SHOW[row.name](space))


def _store(space: Space, row: Attribute, text: bytes, capable: bool) -> int | Body:
    # Linux 6.1 fs/sysfs/file.c, sysfs_kf_write(): nothing is asked for a write of no bytes; and
    # fs/kernfs/file.c: no store sees more than a page.
    del capable
    text = text[:PAGE_SIZE]
    if not text:
        return 0
    value = row.parse_value(text)
    assert isinstance(value, int)
    body = _STORE[row.name](space, value)
    return len(text) if body is None else _later(body, len(text))


def _later(body: Body, size: int) -> Body:
    yield from body
    return size


def _control(space: Space, value: int) -> Body | None:
    if value == 1:
        space.start()
        return None
    stopping = space.stop()
    if stopping is None:
        return None

    def wait() -> Body:
        yield stopping.done

    return wait()


def _id(space: Space, value: int) -> None:
    space.global_id = value


def _nodir(space: Space, value: int) -> None:
    # Linux 6.1 fs/dlm/lockspace.c, dlm_nodir_store(): any other number is taken without effect.
    if value == 1:
        space.set_no_directory()


def _event_done(space: Space, value: int) -> None:
    space.set_event_done(value)


_STORE: dict[str, Callable[[Space, int], Body | None]] = {
    "control": _control,
    "event_done": _event_done,
    "id": _id,
    "nodir": _nodir,
}
