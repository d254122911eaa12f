"""What a trace's operations did, seen from inside: they are done again on a fresh emulator.

Decides: what an operation was about (its command, flags, the lock's state before and after) and so
which combinations and facts a trace holds.
May not know: whether the results are right: a replay says that (dlm.trace), and only of traces that
replay without a difference does this mean anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dlm.abi.device import (
    Command,
    LockRequest,
    LockResult,
    LockspaceRequest,
    PurgeRequest,
    Request,
    decode_request,
    decode_result,
)
from dlm.cli.emulated import Emulated
from dlm.core.blocks import LockBlock, Resource
from dlm.core.lockspace import Lockspace
from dlm.core.modes import IV
from dlm.terms import InternalFlag, LockFlag, LockMode, LockStatus, ResourceFlag
from dlm.trace import Operation, Recorder, Trace
from dlm.trace.format import REFERENCE

RESULT_LENGTHS = frozenset({52, 72, 84, 104})
"""Bytes that a read of a result gives."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock at a moment."""

    queue: str
    granted: int
    requested: int
    exflags: int
    flags: int
    has_value: bool
    own: bool
    """It belongs to the file that asks."""
    copy: str
    """"" for a local lock, "process" or "master" where two nodes have one."""

    def __str__(self) -> str:
        """Return queue and modes."""
        modes = "/".join("--" if m == IV else LockMode(m).name for m in self.modes)
        return f"{self.copy} {self.queue} {modes}".strip()

    @property
    def modes(self) -> tuple[int, int]:
        """Return the granted and the requested mode."""
        return self.granted, self.requested


@dataclass(frozen=True, slots=True)
class Around:
    """A resource at a moment, without the lock that is asked about."""

    held: tuple[int, ...] = ()
    converting: int = 0
    waiting: int = 0
    has_value: bool = False
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation and what came of it."""

    do: str
    subject: str
    """The device's kind, or the path's last part."""
    command: str = ""
    flags: int = 0
    mode: int = 0
    request: Request | None = None
    size: int = 0
    compat: bool = False
    before: Lock | None = None
    after: Lock | None = None
    around: Around = field(default_factory=Around)
    stopped: bool = False
    asleep: bool = False
    """It was begun and not waited for."""
    errno: str = ""
    ret: int = 0
    result: LockResult | None = None
    read: bytes = b""
    events: int = -1
    operation: Operation = field(default_factory=dict)
    nodes: int = 1
    kernel: str = ""

    @property
    def ok(self) -> bool:
        """Say that it was not refused."""
        return not self.errno and not self.asleep

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """Return (command, flags, state, result)."""
        if not self.command:
            size = str(self.size) if self.do == "read" else ""
            outcome = self.errno or ("asleep" if self.asleep else "")
            if self.result is not None:
                result = self.result
                kind = f"BAST {result.bast_mode}" if result.bast_mode else f"CAST {result.status}"
                outcome = f"{kind} {result.flags:x}" + (" value" if result.value else "")
            return f"{self.do} {self.subject}", size, "", outcome
        state = str(self.before) if self.before else ""
        if self.command in {"LOCK", "CONVERT", "ADOPT"}:
            mode = LockMode(self.mode).name if self.mode <= LockMode.EX else "bad"
            state = f"{state} -> {mode}".strip()
        if self.stopped:
            state += " stopped"
        result_text = self.errno or (str(self.after) if self.after else "asleep" * self.asleep)
        return self.command, f"{self.flags:x}", state, result_text


class Watch:
    """Does a trace again and notes what each operation was about."""

    def __init__(self, trace: Trace) -> None:
        self._emulated = Emulated(trace)
        self._trace = trace
        self._files: dict[tuple[int, str], str] = {}
        self._owners: dict[tuple[str, int], str] = {}
        uevents = any(line.operation["do"] == "uevent" for line in trace.lines)
        self._recorder = Recorder(
            self._emulated.backends, trace.header, machines=self._emulated, uevents=uevents
        )

    def seen(self) -> list[Seen]:
        """Return what was seen, an operation each."""
        try:
            return [self._watch(line.operation) for line in self._trace.lines]
        finally:
            self._recorder.close()

    # ---- private --------------------------------------------------------------------------------

    def _watch(self, operation: Operation) -> Seen:
        do, node = operation["do"], operation.get("node", 1)
        device = ""
        if do == "open":
            device = self._files[node, operation["as"]] = operation["device"]
        elif "fd" in operation:
            device = self._files.get((node, operation["fd"]), "")
        core = self._core(node, device)
        stopped = core is not None and core.stopped
        request, compat, size = self._request(operation, device)
        lock_id = request.lock_id if isinstance(request, LockRequest) else 0
        block = core.lock(lock_id) if core is not None else None
        resource = block.resource if block else self._resource(core, request)
        file = operation.get("fd", "")
        own = core is not None and self._owners.get((core.name, lock_id)) == file
        before, around = _lock(block, own), _around(resource, block)
        result = self._recorder.do(operation)
        ret = result.get("ret", 0)
        if core is not None and isinstance(request, LockRequest) and ret > 0:
            block = core.lock(ret) or LockBlock(ret, _NOWHERE)
            block.alive = block.resource is not _NOWHERE and block.alive
            self._owners[core.name, ret] = file
        data = bytes.fromhex(result["hex"]) if do in {"read", "wait"} and "hex" in result else b""
        return Seen(
            do,
            _subject(device) if device else operation.get("path", "").rpartition("/")[2],
            _command(request),
            _flags(request),
            request.mode if isinstance(request, LockRequest) else 0,
            request,
            operation.get("size", size),
            compat,
            before,
            _lock(block, own),
            around,
            stopped,
            "async" in operation and do not in {"wait", "pending"},
            result.get("errno", ""),
            ret,
            decode_result(data) if len(data) in RESULT_LENGTHS else None,
            data,
            int(result.get("events", "-1"), 16),
            operation,
            self._trace.header.nodes,
            self._trace.header.kernel,
        )

    def _core(self, node: int, device: str) -> Lockspace | None:
        if _subject(device) != "lock":
            return None
        cluster = self._emulated.cluster
        return cluster.nodes[node - 1].lockspaces().get(device.removeprefix("dlm_"))

    def _request(self, operation: Operation, device: str) -> tuple[Request | None, bool, int]:
        saved = self._recorder.saved
        digits = REFERENCE.sub(
            lambda match: saved.get(match[1], 1).to_bytes(4, "little").hex(),
            operation.get("hex", ""),
        )
        data = bytes.fromhex(digits)
        if operation["do"] != "write":
            return None, False, 0
        try:
            decoded = decode_request(data, control=device == "dlm-control")
        except OSError:
            return None, False, len(data)
        return decoded.body, decoded.compat, len(data)

    @staticmethod
    def _resource(core: Lockspace | None, request: Request | None) -> Resource | None:
        if core is None or not isinstance(request, LockRequest):
            return None
        return next((each for each in core.resources() if each.name == request.name), None)


_NOWHERE = Resource(b"", b"", 0, 0)
"""The resource of a lock that ended in the operation that made it."""

_QUEUES = {
    LockStatus.NONE: "none",
    LockStatus.WAITING: "waiting",
    LockStatus.GRANTED: "granted",
    LockStatus.CONVERT: "converting",
}


def _lock(block: LockBlock | None, own: bool) -> Lock | None:
    if block is None:
        return None
    copy = "master" if block.is_master_copy else "process" if block.is_process_copy else ""
    queue = _QUEUES[block.status] if block.alive else "ended"
    if block.flags & InternalFlag.ORPHAN:
        queue = f"orphan {queue}"
    modes = block.granted_mode, block.requested_mode
    has_value = block.value is not None
    return Lock(queue, *modes, block.exflags, block.flags, has_value, own, copy)


def _around(resource: Resource | None, block: LockBlock | None) -> Around:
    if resource is None:
        return Around()
    return Around(
        tuple(lock.granted_mode for lock in resource.granted if lock is not block),
        sum(lock is not block for lock in resource.converting),
        sum(lock is not block for lock in resource.waiting),
        resource.value is not None,
        bool(resource.flags & ResourceFlag.VALNOTVALID),
    )


def _subject(device: str) -> str:
    known = {"dlm-control": "control", "dlm-monitor": "monitor", "dlm_plock": "plock"}
    return known.get(device, "lock" if device.startswith("dlm_") else "")


def _command(request: Request | None) -> str:
    if isinstance(request, PurgeRequest):
        return "PURGE"
    if isinstance(request, LockspaceRequest):
        return "CREATE" if request.command == Command.CREATE_LOCKSPACE else "REMOVE"
    if request is None:
        return ""
    if request.command == Command.LOCK:
        if request.flags & LockFlag.CONVERT:
            return "CONVERT"
        return "ADOPT" if request.flags & LockFlag.ORPHAN else "LOCK"
    if request.command == Command.UNLOCK:
        return "CANCEL" if request.flags & LockFlag.CANCEL else "UNLOCK"
    return "DEADLOCK"


def _flags(request: Request | None) -> int:
    return 0 if request is None or isinstance(request, PurgeRequest) else request.flags
