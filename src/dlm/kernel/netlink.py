"""Kernel events and interface addresses, over netlink.

Decides: how a subscription to the kernel's events is opened and read.
May not know: what an event means.
Mirrors: lib/kobject_uevent.c (Linux 6.1), which sends to multicast group 1.

Imported only when used: pyroute2 costs a tenth of a second.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.uevent import AsyncUeventSocket

from dlm.abi.texts import parse_uevent
from dlm.ports import PollEvents, Uevent

if TYPE_CHECKING:
    from dlm.kernel.syscalls import Syscalls

_FROM_KERNEL = 1  # multicast group; 2 is what udevd passes on
_LARGEST_EVENT = 1 << 14  # UEVENT_BUFFER_SIZE is 2048, and the header comes before it


def open_uevents() -> int:
    """Subscribe to the kernel's events; return an open file, not blocking, one event a read.

    pyroute2 makes the socket; its asynchronous reader is left out because it needs an event loop
    of its own and parses into a mapping, and the seam is read without a loop, header and all.
    """
    made = AsyncUeventSocket().setup_socket()
    made.setblocking(False)
    made.bind((0, _FROM_KERNEL))
    descriptor: int = made.detach()
    return descriptor


class Uevents:
    """The seam's ``UeventSource`` on an open netlink socket; filters nothing."""

    def __init__(self, syscalls: Syscalls, descriptor: int) -> None:
        """Take over the socket."""
        self._syscalls = syscalls
        self._descriptor = descriptor
        self._read: list[Uevent] = []

    def read_nowait(self) -> list[Uevent]:
        """Return what has come, oldest first; raises ENOBUFS once when events were lost.

        What was read before the loss showed is returned by the next call.
        """
        while True:
            try:
                datagram = self._syscalls.read(self._open(), _LARGEST_EVENT)
            except BlockingIOError:
                break
            self._read.append(parse_uevent(datagram))
        events, self._read = self._read, []
        return events

    def wait(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds until something has come; say whether it has."""
        return bool(self._read or self._syscalls.poll(self._open(), PollEvents.IN, timeout))

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something has come."""
        return self._syscalls.pollable(self._open())

    def close(self) -> None:
        """End the subscription."""
        if self._descriptor >= 0:
            self._syscalls.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "the subscription is closed")
        return self._descriptor


def addresses() -> Sequence[str]:
    """Return the addresses of this machine's interfaces, as texts.

    In a thread of its own: pyroute2 runs an event loop inside, and the caller may be in one.
    """
    found: list[str] = []

    def ask() -> None:
        with IPRoute() as route:
            found.extend(message.get_attr("IFA_ADDRESS") for message in route.get_addr())

    asking = Thread(target=ask)
    asking.start()
    asking.join()
    return found
