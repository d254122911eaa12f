"""A cluster that a thread of the test's process serves in real time, on real sockets.

Decides: how a test starts it, connects to it and ends it.
May not know: what any test asserts.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from dlm.emulator import Cluster
from dlm.emulator.realtime import RealTime
from dlm.ports import Backend
from dlm.remote import streams
from dlm.remote.client import Client, connect
from dlm.remote.server import Port, Server


class Served:
    """Ports of a cluster; ``log`` is what the server had to say.

    The cluster's clock runs ``speed`` times as fast as the machine's, and clients count in its
    seconds. The directory has a short name of its own: pytest's are too long for a socket's.
    """

    def __init__(
        self,
        cluster: Cluster,
        ports: dict[str, Callable[[], Backend]],
        *,
        speed: float = 1.0,
        peer_uid: Callable[[object], int] = streams.peer_uid,  # type: ignore[assignment]
    ) -> None:
        self.cluster = cluster
        self.log: list[str] = []
        self.directory = Path(tempfile.mkdtemp(prefix="dlm-"))
        self.server = Server(
            world=RealTime(cluster, speed=speed),
            speed=speed,
            log=self.log.append,
            peer_uid=peer_uid,
        )
        for name, spawn in ports.items():
            self.server.listen(streams.listen(self.path(name)), Port(name, spawn))
        self._clients: list[Client] = []
        self._thread = threading.Thread(target=self.server.run, name="server")
        self._thread.start()

    def path(self, name: str) -> str:
        """Return where a port is."""
        return str(self.directory / name)

    def connect(self, name: str) -> Client:
        """Return the process of a new connection to a port."""
        client = connect(self.path(name))
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """End the server, whoever is connected."""
        if self._thread.is_alive():
            self.server.stop()
            self._thread.join()
            self.server.close()

    def close(self) -> None:
        """End every connection, then the server; a bug that it met fails the test."""
        for client in self._clients:
            client.close()
        self.cut()
        shutil.rmtree(self.directory)
        assert not [line for line in self.log if "a bug" in line], self.log
