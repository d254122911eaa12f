"""A served cluster: the process in the background, and the files by which it is known.

Decides: what lies in its directory, who may start a second one (nobody), what its control socket
can be asked.
May not know: what is printed (dlm.cli.serve).

========================  ====================================================================
``DIR/NODE.sock``         a node: each connection to it is a process there
``DIR/control``           what ``status``, ``crash`` and ``restart`` ask
``DIR/pid``               its process id; locked (flock(2)) as long as it lives, so that what a
                          killed one left behind is known for what it is
``DIR/log``               what it had to say
========================  ====================================================================
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from dlm.emulator import Cluster
from dlm.emulator.realtime import RealTime
from dlm.errors import KernelHazardError
from dlm.remote import streams
from dlm.remote.server import Port, Server
from dlm.remote.session import Verb

SOCKET = ".sock"
"""What the name of a node's socket ends with."""

CONTROL = "control"
READY = "ready"
"""What the process says on its standard output when every socket listens."""


def node_path(directory: str, name: str) -> str:
    """Return where a node's socket is."""
    return os.path.join(directory, name + SOCKET)


def control_path(directory: str) -> str:
    """Return where the control socket is."""
    return os.path.join(directory, CONTROL)


# ---- the directory ------------------------------------------------------------------------------


class Claim:
    """The lock on a directory: whoever holds it is, or becomes, its server."""

    def __init__(self, directory: str) -> None:
        """Open the directory's pid file; ``OSError`` when there is none and none can be made."""
        path = os.path.join(directory, "pid")
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Say whether the lock is ours now: nobody else's server is alive."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def pid(self) -> int:
        """Return the process id in the file, 0 if there is none."""
        text = os.pread(self.descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0

    def put(self, pid: int) -> None:
        """Write the process id into the file; 0 empties it."""
        os.ftruncate(self.descriptor, 0)
        if pid:
            os.pwrite(self.descriptor, f"{pid}\n".encode(), 0)

    def close(self) -> None:
        """Close the file; the lock goes with the last process that has it open."""
        os.close(self.descriptor)


def prepare(directory: str) -> None:
    """Make the directory, mode 0700; an empty one of this user's, or a cluster's, will do.

    Raises ``OSError``: EEXIST when other files are there, EPERM when it is another user's.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    status = os.stat(directory)
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", directory)
    names = os.listdir(directory)
    if names and "pid" not in names:
        raise FileExistsError(errno.EEXIST, "it holds files that are no cluster's", directory)
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.chmod(directory, 0o700)


def clean(directory: str) -> None:
    """Remove the sockets in a directory."""
    for path in Path(directory).iterdir():
        if path.name == CONTROL or path.suffix == SOCKET:
            with suppress(FileNotFoundError):
                path.unlink()


# ---- the process --------------------------------------------------------------------------------


def main(text: str) -> None:
    """Serve a cluster until SIGTERM.

    ``text`` is JSON: ``directory``, ``nodes`` (name to addresses), ``abi``, ``kernel``, ``speed``,
    ``strict``, ``claim`` (the descriptor of the pid file, locked). Standard output gets one line,
    ``ready``; standard error is the log.
    """
    config = json.loads(text)
    directory = config["directory"]
    claim = Claim.__new__(Claim)
    claim.descriptor = config["claim"]
    os.set_inheritable(claim.descriptor, False)
    os.umask(0o077)
    os.chdir("/")
    cluster = Cluster(
        config["nodes"], kernel=config["kernel"], abi=config["abi"], strict=config["strict"]
    )
    speed = config["speed"]
    server = Server(world=RealTime(cluster, speed=speed), speed=speed, log=_log)
    ports = {node.name: Port(node.name, node.process) for node in cluster.nodes}
    control = Port(CONTROL, None, _verbs(cluster, server, ports))
    cluster.on_hazard = partial(_crash_for, cluster, server, ports)
    for name, port in ports.items():
        server.listen(streams.listen(node_path(directory, name)), port)
    server.listen(streams.listen(control_path(directory)), control)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    claim.put(os.getpid())
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever waited for the line sees its end
    _log("serving " + ", ".join(ports))
    server.run()
    _log("ended")
    server.close()
    clean(directory)
    claim.put(0)


def _log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def _crash_for(
    cluster: Cluster, server: Server, ports: dict[str, Port], name: str, error: KernelHazardError
) -> None:
    """Let a node go down as its real kernel would, or would best."""
    _log(f"strict: crash of {name}: {error.message}")
    cluster.crash(name)
    server.alarm(ports[name])


def _verbs(cluster: Cluster, server: Server, ports: dict[str, Port]) -> dict[str, Verb]:
    """Return what the control socket can be asked."""

    def status(_: object, __: object) -> list[object]:
        nodes = [[node.name, node.addresses, node.up] for node in cluster.nodes]
        return [os.getpid(), cluster.abi, cluster.nodes[0].profile.name, nodes]

    def power(act: str, _: object, __: object, name: str) -> None:
        if name not in ports:
            raise OSError(errno.ENOENT, f"there is no node {name}")
        if cluster.node(name).up == (act == "restart"):
            raise OSError(errno.EALREADY, f"it is {'up' if act == 'restart' else 'down'} already")
        getattr(cluster, act)(name)
        _log(f"{act} of {name}")
        if act == "crash":
            server.alarm(ports[name])

    def check(_: object, __: object) -> str:
        try:
            cluster.check()
        except AssertionError as error:
            return str(error) or "an invariant does not hold"
        return ""

    return {
        "status": Verb((), status),
        "crash": Verb((str,), partial(power, "crash")),
        "restart": Verb((str,), partial(power, "restart")),
        "check": Verb((), check),
    }
