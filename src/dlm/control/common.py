"""What the verbs share: the dialect, finding a lockspace, saying what contradicts.

Decides: which dialect a node speaks; when a verb is refused because somebody else controls, or
because nothing is there.
May not know: any file of the kernel.

``dialect`` is the one place that says how the kernel is spoken to: it asks each question of the
dialect that the node shows.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from dlm.control import configfs
from dlm.control.configfs import device_of
from dlm.control.plan import Ask, Note, Plan, misc_devices, once
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Phase, Seen
from dlm.control.state import LockspaceState, contradictions, recall
from dlm.errors import ControlledError, RefusedError

if TYPE_CHECKING:
    from dlm.control.dialect import Dialect

__all__ = [
    "absent",
    "check_controller",
    "device_of",
    "dialect",
    "find",
    "find_with_state",
    "in_the_way",
    "say_in_the_way",
]

_NODE_DEVICE = "dlm-node"  # of 2005; configfs took its place


def _choose() -> Plan[Dialect | None]:
    """Return the dialect that this node speaks; None when only a lockspace would tell."""
    try:
        devices = yield from misc_devices()
    except RefusedError as error:
        if error.errno != errno.ENOENT:
            raise
        devices = {}
    if _NODE_DEVICE not in devices:
        return configfs
    from dlm.control import common2005

    return (yield from common2005.choose())


class _Spoken:
    """Asks each question of the dialect that the node speaks; a run finds out once."""

    def __getattr__(self, question: str) -> Callable[..., Plan[Any]]:  # Any: each has its own
        def ask(*given: object) -> Plan[Any]:
            module = yield from once(_choose)
            if module is None:
                from dlm.control import event as module  # without a lockspace both are one
            return (yield from getattr(module, question)(*given))

        return ask


dialect = cast("Dialect", _Spoken())


def check_controller(force: bool) -> Plan[None]:
    """Raise ``ControlledError`` when somebody else controls this node's DLM, unless forced."""
    if force:
        return
    controller: str | None = yield Ask("controller")
    if controller is not None:
        raise ControlledError(errno.EBUSY, f"{controller} controls the DLM of this node")


def find(name: str) -> Plan[Seen]:
    """Return a lockspace as the kernel shows it; raises ENOENT, or ``NoDlmError`` without a DLM."""
    seen = yield from dialect.look(name)
    if seen is None:
        raise (yield from absent(name))
    return seen


def absent(name: str) -> Plan[CheckError]:
    """Return the error of a lockspace that is not there; raises ``NoDlmError`` without a DLM."""
    yield from dialect.explain_absence()
    return CheckError(Reason.NO_LOCKSPACE, f"there is no lockspace {name} on this node")


def find_with_state(name: str) -> Plan[tuple[Seen, LockspaceState]]:
    """Return a lockspace and what is remembered of it; contradictions become notes."""
    seen = yield from find(name)
    state = yield from recall(seen)
    for text in contradictions(state, seen):
        yield Note(text)
    return seen, state


def in_the_way(name: str) -> Plan[Seen | None]:
    """Return another lockspace that joins or leaves: creates and releases wait for it.

    One module-wide mutex is held through every join and leave (Linux 6.1 fs/dlm/lockspace.c,
    dlm_new_lockspace(), release_lockspace()).
    """
    for other in (yield from dialect.lockspaces()):
        if other != name:
            seen = yield from dialect.look(other)
            if seen is not None and seen.phase in {Phase.JOINING, Phase.LEAVING}:
                return seen
    return None


def say_in_the_way(other: Seen) -> str:
    """Say which lockspace is waited for."""
    return f"lockspace {other.name}, which is {other.phase.value}, to get out of the way"
