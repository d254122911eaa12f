"""What each action does: its plan, and how the plan's result is shown.

Decides: which plan an action runs, the lines of its result, and the same as JSON.
May not know: how a plan is run, argv.
Mirrors: the result lines of the tool of 2005, to the letter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dlm.cli.parser import PROGRAM, Request
from dlm.control.plan import Plan

if TYPE_CHECKING:
    from dlm.cli.locks import Outcome
    from dlm.control.hints import Hint
    from dlm.control.snapshot import LockspaceView

Json = dict[str, Any]
"""What an action adds to its JSON object.  Any: what JSON can hold."""

Values = dict[str, Any]
"""The values of a request by name.  Any: each argument has its own type (dlm.cli.values)."""


class Shown:
    """A result as it is shown: lines, JSON, and what the lock manager refused, if anything."""

    def __init__(
        self, lines: list[str], data: Json, refused: tuple[int, str] | None = None
    ) -> None:
        self.lines = lines
        self.data = data
        self.refused = refused


Make = Callable[[Values], Plan[Any]]
Show = Callable[[Values, Any], Shown]


def plan_of(request: Request) -> Plan[Any]:
    """Return the plan of a request."""
    return _TABLE[request.action.name][0](request.values)


def show(request: Request, result: object) -> Shown:
    """Return how the result of the request's plan is shown."""
    return _TABLE[request.action.name][1](request.values, result)


def _force(values: Values) -> bool:
    return "force" in values


# ---- nodes and lockspaces -----------------------------------------------------------------------


def _set_local(values: Values) -> Plan[None]:
    from dlm.control import nodes

    return nodes.set_local(
        values["nodeid"], values["ipaddr"], values.get("weight"), force=_force(values)
    )


def _set_node(values: Values) -> Plan[None]:
    from dlm.control import nodes

    return nodes.set_node(
        values["nodeid"], values["ipaddr"], values.get("weight"), force=_force(values)
    )


def _stop(values: Values) -> Plan[None]:
    from dlm.control import recovery

    return recovery.stop(values["ls_name"], force=_force(values))


def _terminate(values: Values) -> Plan[None]:
    from dlm.control import life

    return life.terminate(values["ls_name"], force=_force(values))


def _start(values: Values) -> Plan[None]:
    from dlm.control import recovery

    return recovery.start(
        values["ls_name"],
        values["event_nr"],
        values["nodeid"],
        rejoined=values.get("rejoined", ()),
        force=_force(values),
    )


def _get_done(values: Values) -> Plan[int]:
    from dlm.control import recovery

    return recovery.get_done(values["ls_name"])


def _finish(values: Values) -> Plan[None]:
    from dlm.control import recovery

    return recovery.finish(values["ls_name"], values["event_nr"])


def _poll_done(values: Values) -> Plan[int]:
    from dlm.control import recovery

    return recovery.wait_done(values["ls_name"], values["event_nr"])


def _set_id(values: Values) -> Plan[None]:
    from dlm.control import life

    return life.set_id(values["ls_name"], values["id"], force=_force(values))


def _create(values: Values) -> Plan[int | None]:
    from dlm.control import life

    return life.create(values["ls_name"], wait="wait" in values, force=_force(values))


def _release(values: Values) -> Plan[None]:
    from dlm.control import life

    return life.release(values["ls_name"], answer="no_answer" not in values, force=_force(values))


def _control(values: Values) -> Plan[None]:
    from dlm.control import raw

    return raw.control(values["ls_name"], values["val"], force=_force(values))


def _event_done(values: Values) -> Plan[None]:
    from dlm.control import raw

    return raw.event_done(values["ls_name"], values["val"], force=_force(values))


def _members(values: Values) -> Plan[None]:
    from dlm.control import raw

    return raw.members(values["ls_name"], values["nodeid"], force=_force(values))


def _show_nothing(_values: Values, _result: object) -> Shown:
    return Shown([], {})


def _show_done(values: Values, done: int) -> Shown:
    return Shown([f"done event_nr {done}"], {"lockspace": values["ls_name"], "done": done})


def _show_created(values: Values, minor: int | None) -> Shown:
    return Shown([], {"lockspace": values["ls_name"], "minor": minor})


_DEVICE_2005 = 3
"""Major version of the lock device of 2005."""

# ---- locks --------------------------------------------------------------------------------------


def _flags(values: Values) -> Any:  # Any: LockFlag, whose import is the lock actions' alone
    from dlm.terms import LockFlag

    return values.get("flag", LockFlag(0))


def _on_device(action: str, *given: object, **named: object) -> Plan[Outcome]:
    """Perform a lock action on the lock device that this node has."""
    from dlm.control.common import dialect

    if (yield from dialect.lock_device()) == _DEVICE_2005:
        from dlm.cli import locks2005 as locks
    else:
        from dlm.cli import locks  # type: ignore[no-redef]  # the other one with these actions
    plan: Plan[Outcome] = getattr(locks, action)(*given, **named)
    return (yield from plan)


def _lock(values: Values) -> Plan[Outcome]:
    return _on_device("lock", values["ls_name"], values["res_name"], values["mode"], _flags(values))


def _unlock(values: Values) -> Plan[Outcome]:
    return _on_device(
        "unlock", values["ls_name"], values["lkid"], _flags(values), force=_force(values)
    )


def _convert(values: Values) -> Plan[Outcome]:
    given = values["ls_name"], values["lkid"], values["mode"], _flags(values)
    return _on_device("convert", *given, force=_force(values))


def _show_lock(values: Values, outcome: Outcome) -> Shown:
    name = values["res_name"].decode("utf-8", "backslashreplace")
    lines = [f"lock: mode 0x{outcome.mode:x} flags 0x{outcome.flags:x} name {name}"]
    lines.append(f"status 0x{outcome.status:x} id {outcome.lock_id}")
    return _shown_outcome(lines, outcome, "not granted")


def _show_unlock(_values: Values, outcome: Outcome) -> Shown:
    lines = [f"unlock: lkid {outcome.lock_id} flags 0x{outcome.flags:x}"]
    return _shown_outcome(lines + _status_line(outcome), outcome, "not unlocked")


def _show_convert(_values: Values, outcome: Outcome) -> Shown:
    lines = [f"convert: lkid {outcome.lock_id} flags 0x{outcome.flags:x}"]
    return _shown_outcome(lines + _status_line(outcome), outcome, "not converted")


def _status_line(outcome: Outcome) -> list[str]:
    return [] if outcome.status is None else [f"status 0x{outcome.status:x}"]


def _shown_outcome(lines: list[str], outcome: Outcome, refused: str) -> Shown:
    data: Json = {"lkid": outcome.lock_id, "flags": int(outcome.flags), "status": outcome.status}
    if outcome.mode is not None:
        data["mode"] = outcome.mode.name
    if outcome.refused:
        assert outcome.status is not None
        return Shown(lines, data, (outcome.status, refused))
    return Shown(lines, data)


# ---- ls -----------------------------------------------------------------------------------------


Looked = tuple["list[LockspaceView]", "tuple[Hint, ...]"]
"""The lockspaces, and what there is to see to in the nodes."""


def _ls(values: Values) -> Plan[Looked]:
    from dlm.control import snapshot

    def plan() -> Plan[Looked]:
        if "ls_name" in values:
            return [(yield from snapshot.view(values["ls_name"]))], ()
        node = yield from snapshot.snapshot()
        return list(node.lockspaces), node.hints

    return plan()


_COLUMNS = (
    "lockspace", "id", "members", "state", "start", "done", "controlled by", "waits for",
)  # fmt: skip


def _show_ls(_values: Values, looked: Looked) -> Shown:
    views, hints = looked
    rows = [_row(view) for view in views]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    table = [_COLUMNS, *rows] if rows else []
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines += [_say_hint(hint) for each in (hints, *(view.hints for view in views)) for hint in each]
    data = {"lockspaces": [_json_of(view) for view in views]}
    return Shown(lines, data | _json_of_hints(hints))


def _say_hint(hint: Hint) -> str:
    return f"{hint.text}: {', then '.join(f'{PROGRAM} {each}' for each in hint.commands)}"


def _json_of_hints(hints: tuple[Hint, ...]) -> Json:
    return {"hints": [{"text": hint.text, "commands": list(hint.commands)} for hint in hints]}


def _row(view: LockspaceView) -> tuple[str, ...]:
    return (
        view.name,
        str(view.lockspace_id),
        " ".join(str(nodeid) for nodeid, _ in view.members) or "-",
        view.phase.value,
        _cell(view.last_start),
        _cell(view.done),
        view.controller or "-",
        _cell(view.waits_for),
    )


def _cell(value: int | str | None) -> str:
    """Return a cell of the table: ``?`` stands for what only root may know."""
    return "?" if value is None else str(value) or "-"


def _json_of(view: LockspaceView) -> Json:
    return {
        "lockspace": view.name,
        "id": view.lockspace_id,
        "members": [{"nodeid": nodeid, "weight": weight} for nodeid, weight in view.members],
        "state": view.phase.value,
        "recover_status": view.recover_status,
        "minor": view.minor,
        "start": view.last_start,
        "done": view.done,
        "controller": view.controller,
        "waits_for": view.waits_for,
        "contradictions": list(view.contradictions),
        **_json_of_hints(view.hints),
    }


_TABLE: dict[str, tuple[Make, Show]] = {
    "set_local": (_set_local, _show_nothing),
    "set_node": (_set_node, _show_nothing),
    "stop": (_stop, _show_nothing),
    "terminate": (_terminate, _show_nothing),
    "start": (_start, _show_nothing),
    "get_done": (_get_done, _show_done),
    "finish": (_finish, _show_nothing),
    "poll_done": (_poll_done, _show_done),
    "set_id": (_set_id, _show_nothing),
    "control": (_control, _show_nothing),
    "event_done": (_event_done, _show_nothing),
    "members": (_members, _show_nothing),
    "create": (_create, _show_created),
    "release": (_release, _show_nothing),
    "lock": (_lock, _show_lock),
    "unlock": (_unlock, _show_unlock),
    "convert": (_convert, _show_convert),
    "ls": (_ls, _show_ls),
}
