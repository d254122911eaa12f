"""For membership managers: node addresses and the lockspace life cycle.

``Control`` is the blocking face, ``dlm.control.aio.Control`` the asyncio one; both run the same
plans (``dlm.control.plan``). Names are loaded when they are first used: ``dlm_tool`` starts often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlm.abi.texts import global_id
    from dlm.control.api import Control, LockspaceControl
    from dlm.control.hints import Hint
    from dlm.control.seen import Phase
    from dlm.control.snapshot import LockspaceView, NodeSetting, NodeView
    from dlm.control.watch import Done, Event, Join, Leave, Watch

_HOMES = {
    "Control": "dlm.control.api",
    "LockspaceControl": "dlm.control.api",
    "Hint": "dlm.control.hints",
    "Phase": "dlm.control.seen",
    "LockspaceView": "dlm.control.snapshot",
    "NodeSetting": "dlm.control.snapshot",
    "NodeView": "dlm.control.snapshot",
    "Done": "dlm.control.watch",
    "Event": "dlm.control.watch",
    "Join": "dlm.control.watch",
    "Leave": "dlm.control.watch",
    "Watch": "dlm.control.watch",
    "global_id": "dlm.abi.texts",
}

__all__ = [
    "Control",
    "Done",
    "Event",
    "Hint",
    "Join",
    "Leave",
    "LockspaceControl",
    "LockspaceView",
    "NodeSetting",
    "NodeView",
    "Phase",
    "Watch",
    "global_id",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
