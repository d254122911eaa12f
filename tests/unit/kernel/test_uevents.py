"""Kernel events as datagrams of a socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from dlm.kernel import KernelBackend, OwnSyscalls
from dlm.kernel.netlink import Uevents
from dlm.ports import Uevent

ADD = Uevent("add@/kernel/dlm/test", (("ACTION", "add"), ("LOCKSPACE", "test"), ("SEQNUM", "7")))
OTHER = Uevent("change@/devices/virtual/net/lo", (("ACTION", "change"),))


def datagram(event: Uevent) -> bytes:
    """Return the bytes that the kernel sends."""
    return b"".join(
        f"{text}\0".encode() for text in (event.header, *(f"{k}={v}" for k, v in event.env))
    )


@pytest.fixture
def kernel() -> Iterator[socket.socket]:
    """The kernel's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        yield end


@pytest.fixture
def source(kernel: socket.socket) -> Iterator[Uevents]:
    """A subscription whose other end is ``kernel``."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.dup2(theirs.fileno(), kernel.fileno())
    theirs.close()
    ours.setblocking(False)
    source = Uevents(OwnSyscalls(), ours.detach())
    yield source
    source.close()


def test_events_come_in_order_and_unfiltered(source: Uevents, kernel: socket.socket) -> None:
    """Every event is given, header and keys in the kernel's order."""
    assert not source.wait(0)
    assert source.read_nowait() == []
    for event in (ADD, OTHER):
        kernel.send(datagram(event))
    assert source.wait(0)
    assert source.read_nowait() == [ADD, OTHER]
    assert source.read_nowait() == []


class Overrun(OwnSyscalls):
    """System calls that lose events once, after the first read."""

    reads = 0

    def read(self, descriptor: int, size: int) -> bytes:
        """Read, but the second time say that events were lost."""
        self.reads += 1
        if self.reads == 2:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().read(descriptor, size)


def test_a_loss_shows_once(source: Uevents, kernel: socket.socket) -> None:
    """ENOBUFS is raised once; what was read before it and what comes after is not lost as well."""
    source._syscalls = Overrun()
    for event in (ADD, OTHER):
        kernel.send(datagram(event))
    with pytest.raises(OSError, match="No buffer space") as caught:
        source.read_nowait()
    assert caught.value.errno == errno.ENOBUFS
    assert source.wait(0)
    assert source.read_nowait() == [ADD, OTHER]


def test_the_real_subscription_is_of_the_kernels_group() -> None:
    """The socket is a netlink socket for kernel events, in group 1 and not in udev's."""
    backend = KernelBackend()
    source = backend.uevents()
    try:
        with socket.socket(fileno=os.dup(source.fileno())) as same:
            assert (same.family, same.proto) == (socket.AF_NETLINK, 15)  # NETLINK_KOBJECT_UEVENT
            assert same.getsockname()[1] == 1
        assert not os.get_blocking(source.fileno())
        source.read_nowait()
    finally:
        backend.close()
    with pytest.raises(OSError, match="closed"):
        source.fileno()
