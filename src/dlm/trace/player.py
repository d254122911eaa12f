"""Does the operations of a trace, one after the other, on backends.

Decides: which call of the seam each operation is, which keys its result has, how long is waited.
May not know: any backend, what a path or a byte means, what results are compared with.

A node is a backend, which is the process that everything is done by which names no other. What can
differ between two runs of the same operations is only what the backends answer.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dlm.errors import errno_name
from dlm.ports import (
    Backend,
    Device,
    DeviceClose,
    DeviceRead,
    DeviceWrite,
    OpenFlags,
    Pending,
    WriteAttribute,
)
from dlm.trace.format import ASYNC, REFERENCE, Operation, TraceError
from dlm.trace.stage import OK, Machines, Patience, Result, Stage

_FLAGS = {"rdonly": 0, "wronly": 1, "rdwr": 2, "nonblock": int(OpenFlags.NONBLOCK)}


@dataclass(slots=True)
class _File:
    device: Device
    backend: Backend


@dataclass(slots=True)
class _Begun:
    """A call that has begun: what it is, and its result as an operation shows it."""

    pending: Pending
    operation: Operation
    shape: Callable[[Any], Result]  # Any: the result of the call


class Player:
    """Does operations; remembers what they name.

    ``backends`` are the nodes in order, which the caller closes; ``machines`` does what is done to
    them from outside. ``uevents`` says that events count from now on; those of devices are passed
    over where ``devices`` is False.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        machines: Machines | None = None,
        uevents: bool = False,
        devices: bool = True,
        patience: Patience | None = None,
    ) -> None:
        self.saved: dict[str, int] = {}
        """Values that operations have saved."""
        self.stage = Stage(backends, machines, patience or Patience(), uevents, devices)
        self._files: dict[tuple[int, str], _File] = {}
        self._begun: dict[tuple[int, str], _Begun] = {}
        self._do: dict[str, Callable[[Operation], Result]] = {
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
            "put": self._put,
            "get": self._get,
            "list": self._list,
            "mode": self._mode,
            "open": self._open,
            "write": self._write,
            "read": self._read,
            "poll": self._poll,
            "ioctl": self._ioctl,
            "close": self._close,
            "exit": self._exit,
            "wait": self._wait,
            "pending": self._pending,
            "uevent": self.stage.uevent,
            "settle": self._settle,
            "crash": self.stage.crash,
            "boot": self._boot,
            "partition": self.stage.partition,
            "heal": self.stage.heal,
        }

    def perform(self, operation: Operation) -> Result:
        """Do one operation and return its result, a refusal as ``errno``.

        What the operation itself says of a result is not looked at.
        """
        do = operation["do"]
        try:
            if "async" in operation and do in ASYNC:
                self._begin(do, operation)
                return {}
            result = self._do[do](operation)
        except OSError as error:
            return {"errno": errno_name(error.errno or 0)}
        if "save" in operation and "ret" in result:
            self.saved[operation["save"]] = result["ret"]
        return result

    def begun(self, operation: Operation) -> Operation | None:
        """Return the operation that a wait is for, None when there is none."""
        found = self._find(self._begun, operation, "async")
        return None if found is None else found.operation

    def close(self) -> None:
        """End: close what is open; a call that sleeps goes on."""
        for file in self._files.values():
            if not any(file.backend is node.backend for node in self.stage.nodes):
                continue  # it goes with its process
            try:
                file.device.submit(DeviceClose(), detached=True).close()
            except OSError:
                continue  # closed already
        self.stage.close()
        for begun in self._begun.values():
            begun.pending.close()

    # ---- what names mean ------------------------------------------------------------------------

    def _find(self, table: dict[tuple[int, str], Any], operation: Operation, key: str) -> Any:
        # Any: what the table holds. A name is a node's own; without "node" another's will do.
        name = operation[key]
        found = table.get((operation.get("node", 1), name))
        if found is None and "node" not in operation:
            found = next((each for (_, other), each in table.items() if other == name), None)
        return found

    def _file(self, operation: Operation) -> _File:
        found: _File | None = self._find(self._files, operation, "fd")
        if found is None:
            raise OSError(errno.EBADF, "no such file", operation["fd"])
        return found

    def _call(self, operation: Operation) -> _Begun:
        found: _Begun | None = self._find(self._begun, operation, "async")
        if found is None:
            raise TraceError(f'no operation before has "async": "{operation["async"]}"')
        return found

    # ---- trees ----------------------------------------------------------------------------------

    def _mkdir(self, operation: Operation) -> Result:
        self.stage.process(operation).make_directory(operation["path"])
        return OK

    def _rmdir(self, operation: Operation) -> Result:
        self.stage.process(operation).remove_directory(operation["path"])
        return OK

    def _put(self, operation: Operation) -> Result:
        backend = self.stage.process(operation)
        value = self._content(operation, backend)
        return {"ret": backend.write_attribute(operation["path"], value)}

    def _get(self, operation: Operation) -> Result:
        return _shape_get(self.stage.process(operation).read_attribute(operation["path"]))

    def _list(self, operation: Operation) -> Result:
        return {"names": sorted(self.stage.process(operation).list_directory(operation["path"]))}

    def _mode(self, operation: Operation) -> Result:
        status = self.stage.process(operation).stat(operation["path"])
        return {"mode": f"{status.mode & 0o7777:04o}"}

    # ---- devices --------------------------------------------------------------------------------

    def _open(self, operation: Operation) -> Result:
        backend = self.stage.process(operation)
        flags = OpenFlags.RDWR | OpenFlags.NONBLOCK
        if "flags" in operation:
            flags = OpenFlags(0)
            for name in operation["flags"]:
                flags |= OpenFlags(_FLAGS[name.lower()])
        device = backend.open_device(operation["device"], flags=flags)
        self._files[operation.get("node", 1), operation["as"]] = _File(device, backend)
        return OK

    def _write(self, operation: Operation) -> Result:
        file = self._file(operation)
        return {"ret": file.device.write(self._content(operation, file.backend))}

    def _read(self, operation: Operation) -> Result:
        return {"hex": self._file(operation).device.read(operation["size"]).hex()}

    def _poll(self, operation: Operation) -> Result:
        return {"events": f"{self._file(operation).device.poll(0):04x}"}

    def _ioctl(self, operation: Operation) -> Result:
        file = self._file(operation)
        request = operation["request"]
        number = request if isinstance(request, int) else int(request, 16)
        given = self._content(operation, file.backend)
        ret, out = file.device.ioctl(number, given)
        return {"ret": ret} if out == given else {"ret": ret, "out": out.hex()}

    def _close(self, operation: Operation) -> Result:
        self._file(operation).device.close()
        return OK

    def _exit(self, operation: Operation) -> Result:
        node, name = self.stage.node(operation), operation.get("process")
        if name is None:  # the first process lives on, without files
            for file in self._files_of(node.backend):
                file.device.close()
        elif name in node.processes:
            node.processes.pop(name).close()
        return OK

    def _files_of(self, backend: Backend) -> list[_File]:
        found = [file for file in self._files.values() if file.backend is backend]
        self._files = {k: v for k, v in self._files.items() if v.backend is not backend}
        return found

    def _content(self, operation: Operation, backend: Backend) -> bytes:
        if "text" in operation:
            text: str = operation["text"]
            return text.encode("utf-8", "surrogateescape")
        digits: str = operation["hex"]
        if "$" in digits:
            digits = REFERENCE.sub(lambda match: self._value(match, backend), digits)
        return bytes.fromhex(digits)

    def _value(self, match: Any, backend: Backend) -> str:  # Any: a match of REFERENCE
        name, _, bits = match.groups()
        value = self.saved.get(name)
        if value is None:
            if name != "pid":
                raise TraceError(f'nothing was saved as "{name}": that operation was refused')
            value = backend.process_id()
        size = int(bits) // 8
        return (value & ((1 << int(bits)) - 1)).to_bytes(size, "little").hex()

    # ---- calls that sleep -----------------------------------------------------------------------

    def _begin(self, do: str, operation: Operation) -> None:
        key = operation.get("node", 1), operation["async"]
        if (old := self._begun.pop(key, None)) is not None:
            old.pending.close()
        try:
            pending, shape = self._submit(do, operation)
        except OSError as error:
            pending, shape = _Refused(error), _shape_ok
        self._begun[key] = _Begun(pending, operation, shape)

    def _submit(self, do: str, operation: Operation) -> tuple[Pending, Callable[[Any], Result]]:
        if do == "put":
            backend = self.stage.process(operation)
            call = WriteAttribute(operation["path"], self._content(operation, backend))
            return backend.submit(call, detached=True), _shape_ret
        if do == "exit":
            return self._begin_exit(operation), _shape_ok
        file = self._file(operation)
        if do == "write":
            request = DeviceWrite(self._content(operation, file.backend))
            return file.device.submit(request, detached=True), _shape_ret
        if do == "read":  # it ends with its process
            return file.device.submit(DeviceRead(operation["size"])), _shape_read
        return file.device.submit(DeviceClose(), detached=True), _shape_ok

    def _begin_exit(self, operation: Operation) -> Pending:
        node, name = self.stage.node(operation), operation.get("process")
        backend = node.backend if name is None else node.processes.pop(name, None)
        if backend is None:
            return _All([])
        closing = []
        # Linux kernel/task_work.c, task_work_run(): who ends closes the newest file first.
        for file in reversed(self._files_of(backend)):
            try:
                closing.append(file.device.submit(DeviceClose(), detached=True))
            except OSError:  # closed already
                continue
        if name is not None:
            backend.close()
        return _All(closing)

    def _wait(self, operation: Operation) -> Result:
        begun = self._call(operation)
        if not begun.pending.wait(self.stage.patience.wait):
            return {"pending": True}
        result = begun.shape(begun.pending.result())
        if "save" in begun.operation and "ret" in result:
            self.saved[begun.operation["save"]] = result["ret"]
        return result

    def _pending(self, operation: Operation) -> Result:
        return {"pending": not self._call(operation).pending.wait(self.stage.patience.pending)}

    # ---- everything -----------------------------------------------------------------------------

    def _settle(self, operation: Operation) -> Result:
        del operation
        return self.stage.settle([begun.pending.done for begun in self._begun.values()])

    def _boot(self, operation: Operation) -> Result:
        number = operation["node"]
        self._files = {k: v for k, v in self._files.items() if k[0] != number}
        return self.stage.boot(operation)


def _shape_ok(_: object) -> Result:
    return OK


def _shape_ret(value: int) -> Result:
    return {"ret": value}


def _shape_read(value: bytes) -> Result:
    return {"hex": value.hex()}


def _shape_get(value: bytes) -> Result:
    try:
        return {"text": value.decode("utf-8")}
    except UnicodeDecodeError:  # a resource's name may be any bytes
        return {"hex": value.hex()}


class _Refused:
    """A call that was refused before it could begin (``dlm.ports.Pending``)."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        return True

    def result(self) -> None:
        raise self._error

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """There is nothing to let go of."""


class _All:
    """Several calls, done when all are (``dlm.ports.Pending``): the closes of an exit."""

    def __init__(self, calls: list[Pending]) -> None:
        self._calls = calls

    def done(self) -> bool:
        return all(call.done() for call in self._calls)

    def wait(self, timeout: float | None = None) -> bool:
        return all(call.wait(timeout) for call in self._calls)

    def result(self) -> None:
        for call in self._calls:
            call.result()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        for call in self._calls:
            call.close()
