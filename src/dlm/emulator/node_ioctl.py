"""The device dlm-node of 2005: node addresses by ioctl.

Decides: the checks of an ioctl in their order, what the table of nodes keeps.
May not know: the argument's bytes (dlm.abi.node2005), what a node's weight is good for.
Mirrors: node_ioctl.c and the node table of the DLM as posted to linux-kernel on 25 April 2005; what
is different on 15 July says so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlm.abi.address import decode_sockaddr
from dlm.abi.node2005 import (
    ADDRESSES_MAX,
    IOCTL_TYPE,
    NODE_SIZE,
    NODE_VERSION,
    NODE_VERSION_SIZE,
    Ioctl,
    NodeRequest,
    decode_node_request,
    decode_node_version,
    encode_node_version,
)
from dlm.emulator.misc import MiscFile, refuse

if TYPE_CHECKING:
    from dlm.emulator.module2005 import Module2005
    from dlm.emulator.process import Process
    from dlm.ports import OpenFlags


class NodeTable:
    """What SET_NODE and SET_LOCAL have said; nothing of it is ever undone."""

    def __init__(
        self,
        file_address: Callable[[int, bytes], None],
        log: Callable[[str], None],
        *,
        drops_repeated: bool,
    ) -> None:
        """Begin empty; ``drops_repeated``: a local address said twice counts once (from June)."""
        self.local_nodeid = 0
        self.weights: dict[int, int] = {}
        """Weight by node id."""
        self._local: list[bytes] = []
        self._file_address = file_address
        self._log = log
        self._drops_repeated = drops_repeated

    @property
    def local_addresses(self) -> tuple[str, ...]:
        """The local addresses in their order ("": of a family other than IPv4 and IPv6)."""
        return tuple(decode_sockaddr(raw) or "" for raw in self._local)

    def set_node(self, request: NodeRequest) -> None:
        """Let this be address and weight of a node id, whatever it is."""
        self.weights[request.nodeid] = request.weight
        self._file_address(request.nodeid, request.address)

    def set_local(self, request: NodeRequest) -> None:
        """Add a local address; the last node id wins; EINVAL when there are three addresses."""
        if len(self._local) >= ADDRESSES_MAX:
            self._log(f"too many local addresses set {len(self._local)}")
            raise refuse(errno.EINVAL, "dlm-node")
        self.local_nodeid = request.nodeid
        if not (self._drops_repeated and request.address in self._local):
            self._local.append(request.address)


_SET: dict[int, Callable[[NodeTable, NodeRequest], None]] = {
    Ioctl.SET_NODE & 0xFF: NodeTable.set_node,
    Ioctl.SET_LOCAL & 0xFF: NodeTable.set_local,
}
_VERSION_NR = Ioctl.VERSION & 0xFF


class NodeFile(MiscFile):
    """An open file on dlm-node; it has an ioctl and nothing else."""

    def __init__(self, module: Module2005, process: Process, name: str, flags: OpenFlags) -> None:
        super().__init__(module, process, name, flags)
        self._nodes = module.nodes

    def ioctl(self, request: int, argument: bytes) -> tuple[int, bytes]:
        """Carry out a request; the kernel's version is written back over the argument's."""
        self._check(True)
        if not self._process.capable:
            raise refuse(errno.EACCES, self.name)  # Quirk: not EPERM
        # Quirk: direction and size in the request are not looked at.
        kind, number = request >> 8 & 0xFF, request & 0xFF
        if kind != IOCTL_TYPE:
            bad = f"{request & 0xFFFFFFFF:#x} {kind:#x} {number:#x}"
            self._boot.log(f"dlm node_ioctl: bad ioctl {bad}")
            raise refuse(errno.ENOTTY, self.name)
        if len(argument) < NODE_VERSION_SIZE:
            raise refuse(errno.EFAULT, self.name)
        self._check_version(decode_node_version(argument), request)
        answer = encode_node_version() + argument[NODE_VERSION_SIZE:]
        if number == _VERSION_NR:
            return 0, answer
        if len(argument) < NODE_SIZE:
            raise refuse(errno.EFAULT, self.name)
        # Quirk: any other number is a success without effect.
        action = _SET.get(number)
        if action is not None:
            self._boot.acted("ioctl", self.name, request, argument)
            action(self._nodes, decode_node_request(argument))
        return 0, answer

    def _check_version(self, version: tuple[int, int, int], request: int) -> None:
        # The kernel's version is written back on a mismatch, too; the seam cannot show that.
        if version[0] != NODE_VERSION[0] or version[1] > NODE_VERSION[1]:
            kernel = "{}.{}.{}".format(*NODE_VERSION)
            user = "{}.{}.{}".format(*version)
            self._boot.log(
                f"dlm node_ioctl: interface mismatch: kernel({kernel}), user({user}), "
                f"cmd({request & 0xFF})"
            )
            raise refuse(errno.EINVAL, self.name)

    def _write(self, request: bytes) -> int:
        del request
        raise refuse(errno.EINVAL, self.name)

    def _read(self, size: int) -> bytes:
        del size
        raise refuse(errno.EINVAL, self.name)
