"""A network that exists only between guests: a hub of Unix datagram sockets.

Decides: who gets which frame, addresses and hardware addresses.
May not know: what is in a frame, kernels, the DLM.

qemu's ``-netdev dgram`` sends each Ethernet frame as one datagram; no privileges are needed. A
frame that a guest has no room for, or whose guest is off, is lost, as on a wire.
"""

from __future__ import annotations

import dataclasses
import os
import selectors
import socket
import threading
from pathlib import Path

FRAME_LIMIT = 1 << 16


@dataclasses.dataclass(slots=True)
class Port:
    """Where one guest is plugged in; ``connected`` is whether frames pass."""

    number: int
    hub_end: Path
    guest_end: Path
    socket: socket.socket
    connected: bool = True
    lost: int = 0
    """Frames for this guest that were lost."""

    @property
    def address(self) -> str:
        """Return the guest's IP address; all are in one /24."""
        return f"10.0.0.{self.number}"

    @property
    def hardware_address(self) -> str:
        """Return the guest's Ethernet address."""
        return f"52:54:00:00:00:{self.number:02x}"

    def devices(self) -> list[str]:
        """Return qemu's words for a card that is plugged in here."""
        ends = (
            f"local.type=unix,local.path={self.guest_end},"
            f"remote.type=unix,remote.path={self.hub_end}"
        )
        card = f"virtio-net-pci,netdev=wire,mac={self.hardware_address}"
        return ["-netdev", f"dgram,id=wire,{ends}", "-device", card]


class Network:
    """A hub in a thread of its own; ``directory`` holds its sockets, so its path must be short."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports: list[Port] = []
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def plug(self) -> Port:
        """Return a new port."""
        number = len(self.ports) + 1
        hub_end = self._directory / f"hub-{number}"
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.setblocking(False)
        end.bind(str(hub_end))
        port = Port(number, hub_end, self._directory / f"card-{number}", end)
        self.ports.append(port)
        self._selector.register(end, selectors.EVENT_READ, port)
        return port

    def close(self) -> None:
        """End the hub."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._selector.close()
        os.close(self._wake)
        for port in self.ports:
            port.socket.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                self._copy(key.data)

    def _copy(self, source: Port) -> None:
        try:
            frame = source.socket.recv(FRAME_LIMIT)
        except BlockingIOError:
            return
        if not source.connected:
            return
        for port in tuple(self.ports):
            if port is source or not port.connected:
                continue
            try:
                port.socket.sendto(frame, str(port.guest_end))
            except OSError:  # no room (EAGAIN), or nobody there (ENOENT, ECONNREFUSED)
                port.lost += 1
