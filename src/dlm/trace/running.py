"""Recording and replaying: a script on backends becomes a trace, a trace a report.

Decides: what is kept of a run, what a replay does with an operation that went another way.
May not know: any backend, what an operation does (dlm.trace.player), what is equal
(dlm.trace.compare).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlm.errors import StalledError
from dlm.ports import Backend
from dlm.trace.compare import Difference, expected_of, same
from dlm.trace.format import (
    MASK,
    Header,
    Line,
    Names,
    Operation,
    Trace,
    TraceError,
    check,
    request_of,
)
from dlm.trace.player import Player
from dlm.trace.stage import NO_MACHINES, OUTSIDE, Machines, Patience, Result

_MOVES = frozenset({"put", "write", "close", "exit", "heal", "boot", "rmdir", "wait"})
"""Operations after which a kernel may go on by itself."""

Keep = Callable[[Operation], object]
"""Takes each line as soon as it is known."""


class Recorder:
    """Does operations on backends and keeps them with their results.

    ``backends`` are the nodes in order, which the caller closes. ``header`` says what is recorded;
    its number of nodes is taken from ``backends``. ``machines`` does what is done to nodes from
    outside (crash, boot, partition, heal). Without ``uevents`` there can be no "uevent". ``keep``
    is told each line at once, the header first: what a run that is lost has come to.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        header: Header,
        *,
        machines: Machines | None = None,
        uevents: bool = False,
        patience: Patience | None = None,
        keep: Keep | None = None,
    ) -> None:
        mask = tuple(dict.fromkeys((*MASK, *header.mask)))
        self.header = Header(header.kernel, header.abi, len(backends), header.comment, mask)
        self._player = Player(backends, machines=machines, uevents=uevents, patience=patience)
        self._names = Names()
        self._lines: list[Line] = []
        self._keep: Keep = keep or (lambda _: None)
        self._keep(self.header.as_line())

    def do(self, operation: Operation) -> Result:
        """Do one operation, keep it with its result, and return the result.

        A refusal is the result ``{"errno": "EINVAL"}``; an operation with "async" has none yet.
        Raises ``TraceError`` when the operation is malformed, and whatever is no answer of a
        kernel's, such as ``StalledError``: then nothing is kept of it.
        """
        check(operation, nodes=self.header.nodes, names=self._names)
        request = request_of(operation)
        result = self._player.perform(request)
        if request["do"] in _MOVES:
            self._player.stage.pace()
        line = {**request, **result}
        self._lines.append(Line(len(self._lines) + 2, line))
        self._keep(line)
        return result

    @property
    def saved(self) -> dict[str, int]:
        """Values that operations have saved, by name."""
        return dict(self._player.saved)

    def trace(self, name: str = "") -> Trace:
        """Return what was recorded."""
        return Trace(self.header, tuple(self._lines), name)

    def close(self) -> None:
        """Close the files and end the processes of the recording; what sleeps goes on."""
        self._player.close()


def record(
    script: Trace,
    backends: Sequence[Backend],
    *,
    header: Header | None = None,
    machines: Machines | None = None,
    patience: Patience | None = None,
    keep: Keep | None = None,
) -> Trace:
    """Do the operations of a script; return them with their results.

    ``header`` stands in for the script's own. Results that the script has are not looked at.
    Raises ``TraceError`` before anything is done when the script has nodes that there is no backend
    for, or needs ``machines``.
    """
    _need(script, backends, machines)
    recorder = Recorder(
        backends,
        header or script.header,
        machines=machines,
        uevents=_has_uevents(script),
        patience=patience,
        keep=keep,
    )
    try:
        for line in script.lines:
            try:
                recorder.do(line.operation)
            except TraceError as error:
                raise TraceError(f"{script.name}:{line.number}: {error}") from error
    finally:
        recorder.close()
    return recorder.trace(script.name)


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay has shown."""

    trace: Trace
    operations: int
    differences: tuple[Difference, ...]


def replay(
    trace: Trace,
    backends: Sequence[Backend],
    *,
    machines: Machines | None = None,
    patience: Patience | None = None,
) -> Report:
    """Do the operations of a trace again and compare their results, to the end.

    An operation that a backend says can never return counts as a difference, ``{"asleep": true}``.
    A saved value that does not come is the recorded one. Raises ``TraceError`` before anything is
    done when the trace has nodes that there is no backend for, or needs ``machines``.
    """
    _need(trace, backends, machines)
    player = Player(
        backends,
        machines=machines,
        uevents=_has_uevents(trace),
        devices=_has_device_events(trace),
        patience=patience,
    )
    mask = frozenset(trace.header.mask)
    differences = []
    try:
        for line in trace.lines:
            operation = line.operation
            about = player.begun(operation) if operation["do"] == "wait" else None
            try:
                got = player.perform(operation)
            except StalledError:
                got = {"asleep": True}
            except TraceError as error:
                raise TraceError(f"{trace.name}:{line.number}: {error}") from error
            _save_recorded(player, operation, about, got)
            if operation["do"] in _MOVES:
                player.stage.pace()
            if not same(operation, got, mask, about):
                expected = expected_of(operation)
                differences.append(Difference(line.number, operation, expected, got, about))
    finally:
        player.close()
    return Report(trace, len(trace.lines), tuple(differences))


def _save_recorded(
    player: Player, operation: Operation, about: Operation | None, got: Result
) -> None:
    """Go on with the recorded value where an operation has not given one to save."""
    if "ret" in got or "ret" not in operation:
        return
    for each in (operation, about):
        if each is not None and "save" in each:
            player.saved[each["save"]] = operation["ret"]


def _need(trace: Trace, backends: Sequence[Backend], machines: Machines | None) -> None:
    if len(backends) != trace.header.nodes:
        raise TraceError(
            f"{trace.name}: is of {trace.header.nodes} nodes, and there are {len(backends)}"
        )
    outside = (line for line in trace.lines if line.operation["do"] in OUTSIDE)
    if machines is None and (first := next(outside, None)) is not None:
        raise TraceError(f"{trace.name}:{first.number}: {NO_MACHINES}")


def _has_uevents(trace: Trace) -> bool:
    return any(line.operation["do"] == "uevent" for line in trace.lines)


def _has_device_events(trace: Trace) -> bool:
    """Say whether who recorded listened to the events of devices, too; yes if nothing tells."""
    events = [line.operation for line in trace.lines if line.operation["do"] == "uevent"]
    headers = [each["header"] for each in events if each.get("header")]
    return not headers or any("/misc/" in each for each in headers)
