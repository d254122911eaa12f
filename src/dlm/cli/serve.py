"""The actions that serve: ``emulator up|down|status|crash|restart`` and ``serve``.

Decides: what each does and shows.
May not know: what travels (dlm.remote), what the served cluster's process does (dlm.cli.served).
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from dlm.cli.parser import PROGRAM, Request
from dlm.cli.served import READY, Claim, clean, control_path, prepare
from dlm.control import checks
from dlm.errors import NoDlmError, RefusedError, TimedOutError, UsageError
from dlm.ports import Backend

Shown = tuple[list[str], dict[str, Any]]
"""Lines for people, values for ``--json``."""

UP_PATIENCE = 30.0
"""Seconds that a cluster is given to be ready, without ``--timeout``."""

DOWN_PATIENCE = 10.0
"""Seconds that it is given to end; then it is killed."""

REOPEN_PAUSE = 0.2
"""Seconds between two looks at a serial port that nobody has open at its other end."""

_BOOT = "import sys, json; text = sys.argv[1]; sys.path[:] = json.loads(text)['path']; \
from dlm.cli.served import main; main(text)"


def perform(request: Request, out: TextIO) -> Shown:
    """Do an action of this module; return what it shows at its end."""
    if request.action.name == "serve":
        return _serve(request, out)
    verb, words = str(request.values["verb"]), request.values["dir"]
    assert isinstance(words, tuple)
    if verb not in _VERBS:
        raise UsageError(f"{verb!r} is none of: {', '.join(_VERBS)}")
    takes, do = _VERBS[verb]
    if len(words) != takes:
        wanted = "<node> <dir>" if takes == 2 else "<dir>"
        raise UsageError(f"usage: {PROGRAM} emulator {verb} {wanted}")
    if verb != "up" and request.has("dry_run"):
        return _would(" ".join((verb, *map(str, words))))
    return do(request, *map(str, words[:-1]), os.path.abspath(str(words[-1])))


def _would(*lines: str) -> Shown:
    """Say what would be done."""
    return list(lines), {"dry_run": list(lines)}


# ---- a served cluster ---------------------------------------------------------------------------


def _up(request: Request, directory: str) -> Shown:
    nodes = _nodes(request.values.get("nodes"))
    config = {
        "directory": directory,
        "nodes": nodes,
        "abi": request.values.get("abi", "configfs"),
        "kernel": request.values.get("kernel", "6.1"),
        "speed": _speed(request.values.get("speed", "1")),
        "strict": request.has("strict"),
        "path": [os.path.abspath(each) for each in sys.path],
    }
    _check_cluster(config)
    if request.has("dry_run"):
        return _would(f"mkdir {directory}", *(f"serve {directory}/{name}" for name in nodes))
    try:
        prepare(directory)
        claim = Claim(directory)
    except OSError as error:
        raise RefusedError(error.errno or 0, f"{directory}: {error.strerror}") from error
    try:
        if not claim.take():
            pid = claim.pid()
            what = f"runs there already (pid {pid})" if pid else "is being started there"
            raise RefusedError(errno.EBUSY, f"a cluster {what}: {directory}")
        left = claim.pid()
        clean(directory)
        claim.put(0)
        timeout: Any = request.values.get("timeout", UP_PATIENCE)  # Any: read as a float
        pid = _start({**config, "claim": claim.descriptor}, timeout)
    finally:
        claim.close()
    specs = [f"emulator:{directory}/{name}" for name in nodes]
    lines = [f"cleaned up after a cluster that was killed (pid {left})"] if left else []
    lines += [f"{len(nodes)} nodes, pid {pid}; to use one:"]
    lines += [f"export DLM_BACKEND={spec}" for spec in specs]
    return lines, {"pid": pid, "dir": directory, "backends": specs, "cleaned": left or None}


def _nodes(text: object) -> dict[str, list[str]]:
    """Read ``nodea=10.0.0.1,nodeb=10.0.0.2``; a part without ``=`` is one more address."""
    if not text:
        raise UsageError("say which nodes: --nodes nodea=10.0.0.1,nodeb=10.0.0.2")
    nodes: dict[str, list[str]] = {}
    name = ""
    for part in str(text).split(","):
        if "=" in part:
            name, _, part = part.partition("=")  # noqa: PLW2901 - the rest is an address
            if name in nodes:
                raise UsageError(f"node {name!r} comes twice")
            if not name or "/" in name or name.startswith(".") or len(name.encode()) > 64:
                raise UsageError(f"{name!r} can be no node's name")
            nodes[name] = []
        if not name:
            raise UsageError(f"{part!r} has no name: say NAME=ADDRESS")
        nodes[name].extend(checks.check_addresses([part]))
    return nodes


def _speed(value: object) -> float:
    try:
        speed = float(str(value))
    except ValueError:
        speed = 0.0
    if not 0 < speed <= 1000:
        raise UsageError(f"speed {value!r} is no number above 0 and up to 1000")
    return speed


def _check_cluster(config: dict[str, Any]) -> None:
    from dlm.emulator import Cluster

    try:
        Cluster(config["nodes"], kernel=config["kernel"], abi=config["abi"])
    except ValueError as error:
        raise UsageError(str(error)) from error


def _start(config: dict[str, Any], timeout: float) -> int:
    """Start the process; return its id when it is ready."""
    path = os.path.join(config["directory"], "log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _BOOT, json.dumps(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        pass_fds=(config["claim"],),
        start_new_session=True,
    )
    os.close(log)
    assert process.stdout is not None
    with process.stdout as said:
        poll = select.poll()
        poll.register(said, select.POLLIN)
        if not poll.poll(timeout * 1000):
            process.kill()
            process.wait()
            raise TimedOutError(f"timed out after {timeout:g} s waiting for the cluster")
        if said.readline().decode().strip() != READY:
            process.wait()
            raise RefusedError(errno.EIO, f"the cluster did not start; see {path}")
    process.returncode = 0  # it is nobody's child any more: subprocess need not look for its end
    return process.pid


def _down(request: Request, directory: str) -> Shown:
    claim = _running(directory)
    pid = claim.pid()
    timeout: Any = request.values.get("timeout", DOWN_PATIENCE)  # Any: read as a float
    try:
        process = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        killed = not poll.poll(timeout * 1000)
        if killed:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            poll.poll()
            clean(directory)
        os.close(process)
    finally:
        claim.close()
    lines = [f"pid {pid} had to be killed"] if killed else []
    return lines, {"pid": pid, "killed": killed}


def _running(directory: str) -> Claim:
    """Return the claim of the cluster that runs in a directory; ``NoDlmError`` when none does."""
    advice = f"start one: {PROGRAM} emulator up --nodes NAME=ADDRESS,... {directory}"
    try:
        os.stat(os.path.join(directory, "pid"))  # a claim would make one
        claim = Claim(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoDlmError(f"no cluster runs in {directory}", advice) from error
    except OSError as error:
        raise NoDlmError(f"no cluster of yours runs in {directory}", advice) from error
    if claim.take() or not claim.pid():
        left = claim.pid()
        claim.close()
        killed = f" any more: pid {left} was killed" if left else ""
        raise NoDlmError(f"no cluster runs in {directory}{killed}", advice)
    return claim


def _ask(directory: str, verb: str, *arguments: str) -> Any:  # Any: the verb's answer
    from dlm.remote.client import ask

    _running(directory).close()
    return ask(control_path(directory), verb, *arguments)


def _status(request: Request, directory: str) -> Shown:
    del request
    pid, abi, kernel, nodes = _ask(directory, "status")
    lines = [f"pid {pid}, abi {abi}, kernel {kernel}"]
    width = max(len(name) for name, _, _ in nodes)
    lines += [
        f"{name:<{width}}  {'up  ' if up else 'down'}  {','.join(addresses)}"
        for name, addresses, up in nodes
    ]
    data = [{"name": name, "addresses": where, "up": up} for name, where, up in nodes]
    return lines, {"pid": pid, "abi": abi, "kernel": kernel, "nodes": data}


def _power(verb: str) -> Callable[[Request, str, str], Shown]:
    def do(request: Request, node: str, directory: str) -> Shown:
        del request
        try:
            _ask(directory, verb, node)
        except OSError as error:
            raise RefusedError(error.errno or 0, f"{node}: {error.strerror}") from error
        return [], {"node": node}

    return do


_VERBS: dict[str, tuple[int, Callable[..., Shown]]] = {
    "up": (1, _up),
    "down": (1, _down),
    "status": (1, _status),
    "crash": (2, _power("crash")),
    "restart": (2, _power("restart")),
}
"""How many words follow each verb, and what it does."""


# ---- any backend --------------------------------------------------------------------------------


def _serve(request: Request, out: TextIO) -> Shown:
    """Serve a backend until SIGTERM or SIGINT: each connection in a process of its own."""
    from dlm.connect import connect
    from dlm.remote import streams
    from dlm.remote.server import Port, Server

    spec: Any = request.values.get("backend")  # Any: "" is its kind, so a text
    path = os.path.abspath(str(request.values["stream"]))

    if request.has("dry_run"):
        return _would(f"serve {spec or 'the default backend'} at {path}")

    def spawn() -> Backend:
        return connect(spec)

    backend = spawn()  # what cannot be served is said now
    name = backend.describe()
    backend.close()
    port = Port(path, spawn)
    ended = _Ended()
    if streams.is_device(path):
        out.write(f"serving {name} at {path}\n")
        out.flush()
        while not ended.come:
            server = Server(direct=True, log=_log)
            server.adopt(streams.open_device(path), port, line=True)
            ended.server = server
            server.run()
            server.close()
            if not ended.come:
                time.sleep(REOPEN_PAUSE)
    else:
        server = ended.server = Server(direct=True, log=_log)
        try:
            server.listen(streams.listen(path), port)
        except OSError as error:
            raise RefusedError(error.errno or 0, f"{path}: {error.strerror}") from error
        out.write(f"serving {name} at {path}\n")
        out.flush()
        server.run()
        server.close()
        os.unlink(path)
    return [], {"served": name, "at": path}


class _Ended:
    """Whether a signal has come that ends the serving."""

    def __init__(self) -> None:
        self.come = False
        self.server: Any = None  # Any: the server of the moment
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._end)

    def _end(self, *_: object) -> None:
        self.come = True
        if self.server is not None:
            self.server.stop()


def _log(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: serve: {text}\n")
    sys.stderr.flush()
