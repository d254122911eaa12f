"""The tree ``debug/dlm``: the state of connections.

Decides: which files there are and when.
May not know: how connections work.
Mirrors: the debugfs part of fs/dlm/midcomms.c (Linux 6.1).

``rawmsg``, which sends any bytes to a node on a real kernel, is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dlm.emulator.network import PEER_VERSION
from dlm.emulator.tree import Directory, File

if TYPE_CHECKING:
    from dlm.emulator.module import Module

_COMMS = "comms"


def root(module: Module) -> Directory:
    """Return the directory of a module that was just loaded."""
    directory = Directory()
    if module.profile.debug_comms:
        directory.entries[_COMMS] = Directory()
    return directory


def add_comm(module: Module, nodeid: int) -> None:
    """Show what is kept about a node id; fine when it is shown already."""
    comms = module.debugfs.entries.get(_COMMS)
    if isinstance(comms, Directory) and str(nodeid) not in comms.entries:
        shown = comms.entries[str(nodeid)] = Directory()
        for name, show in _COMM_SHOW.items():
            shown.entries[name] = File(0o444, partial(show, module, nodeid), None)


# ---- connections --------------------------------------------------------------------------------


def _state(module: Module, nodeid: int) -> bytes:
    return b"ESTABLISHED\n" if module.endpoint.knows(nodeid) else b"CLOSED\n"


def _flags(module: Module, nodeid: int) -> bytes:
    del module, nodeid
    return b"0\n"


def _queued(module: Module, nodeid: int) -> bytes:
    return b"%d\n" % module.endpoint.queued(nodeid)


def _version(module: Module, nodeid: int) -> bytes:
    return b"0x%08x\n" % (PEER_VERSION if module.endpoint.knows(nodeid) else 0)


_COMM_SHOW: dict[str, Callable[[Module, int], bytes]] = {
    "state": _state,
    "flags": _flags,
    "send_queue_count": _queued,
    "version": _version,
}
