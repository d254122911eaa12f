"""A fresh emulated cluster like the one that a trace was recorded on.

Decides: which kernel profile a release is like, which addresses each node has.
May not know: how a trace is replayed (dlm.trace).
"""

from __future__ import annotations

import re

from dlm.abi.address import decode_sockaddr
from dlm.abi.node2005 import NODE_SIZE, Ioctl, decode_node_request
from dlm.emulator import Cluster
from dlm.ports import Backend
from dlm.terms import KERNELS
from dlm.trace import Operation, Trace

_SET_LOCAL = frozenset({int(Ioctl.SET_LOCAL), f"{Ioctl.SET_LOCAL:x}"})
_NOT_OURS = frozenset({"EADDRNOTAVAIL", "EADDRINUSE"})  # the latter is what 5.10 says
_IOCTL = "dlm-node"
_ADDR = re.compile(r"config/dlm/[^/]+/comms/[^/]+/(addr|local)")
_RELEASE = re.compile(r"(\d+)\.(\d+)")
_NUMBER = re.compile(r"\s*\+?0*[xX]?0*\s*")  # kstrtoint() makes 0 of it


def names_release(text: str) -> bool:
    """Say whether a text begins like a kernel's release."""
    return _RELEASE.match(text) is not None


def profile_name(release: str) -> str:
    """Return the emulator's profile for a kernel release: the newest that is not newer.

    ``6.1.0-56-amd64`` is "6.1", ``6.6.30`` too; what names no release is "6.1".
    """
    match = _RELEASE.match(release)
    if match is None:
        return "6.1"
    version = int(match[1]), int(match[2])
    known = sorted((tuple(map(int, name.split("."))), name) for name in KERNELS)
    return next((name for number, name in reversed(known) if number <= version), known[0][1])


class Emulated:
    """A cluster for one replay; ``backends`` are the first processes of its nodes, in order."""

    def __init__(self, trace: Trace, kernel: str | None = None) -> None:
        """Make a cluster with the profile, dialect and number of nodes of the trace's header.

        Its nodes have the addresses that the trace itself gives them. ``kernel``: a release in
        place of the header's.
        """
        header = trace.header
        self._names = [f"node{number}" for number in range(1, header.nodes + 1)]
        self.cluster = Cluster(
            dict(zip(self._names, addresses(trace), strict=True)),
            kernel=profile_name(kernel or header.kernel),
            abi=header.abi,
        )
        self.backends: list[Backend] = [self.cluster.node(name).process() for name in self._names]

    # ---- dlm.trace.Machines ----

    def crash(self, node: int) -> None:
        """Cut a node's power."""
        self.cluster.crash(self._names[node - 1])

    def boot(self, node: int) -> Backend:
        """Let it boot again."""
        self.cluster.restart(self._names[node - 1])
        return self.cluster.node(self._names[node - 1]).process()

    def partition(self, first: int, second: int) -> None:
        """Let nothing travel between two nodes."""
        self.cluster.partition(self._names[first - 1], self._names[second - 1])

    def heal(self, first: int, second: int) -> None:
        """Let it travel again."""
        self.cluster.heal(self._names[first - 1], self._names[second - 1])


def addresses(trace: Trace) -> list[tuple[str, ...]]:
    """Return the addresses of a trace's nodes.

    A node has the addresses of the comms that it marks ``local``, and 127.0.0.1 of course; not
    where the kernel refused to listen there. One without any gets 10.0.0.<number>.
    """
    nodes = [_Seen() for _ in range(trace.header.nodes)]
    for line in trace.lines:
        nodes[line.operation.get("node", 1) - 1].see(line.operation)
    taken: set[str] = set()
    found = []
    for number, node in enumerate(nodes, 1):
        own = [text for text in node.own() if text not in taken] or [_spare(number, taken)]
        taken.update(own)
        found.append(tuple(own))
    return found


def _spare(number: int, taken: set[str]) -> str:
    candidates = (f"10.{other}.0.{number}" for other in range(256))
    return next(text for text in candidates if text not in taken)


class _Seen:
    """What one node's operations say of its addresses."""

    def __init__(self) -> None:
        self._addresses: dict[str, list[str]] = {}  # of each comm that is there
        self._local = ""
        self._own: dict[str, None] = {}
        self._absent: set[str] = set()

    def see(self, operation: Operation) -> None:
        if operation.get("errno") in _NOT_OURS and operation["do"] in {"write", "wait"}:
            self._absent.update(self._addresses.get(self._local, [])[:1])
        elif operation["do"] == "ioctl" and operation["request"] in _SET_LOCAL:
            self._set_local(operation)
        elif "errno" not in operation:
            if operation["do"] == "boot":
                self._addresses.clear()
                self._local = ""
            elif operation["do"] == "rmdir":
                self._forget(operation["path"].rstrip("/"))
            elif operation["do"] == "put" and (match := _ADDR.fullmatch(operation["path"])):
                self._put(operation, match[1])

    def own(self) -> list[str]:
        """Return the addresses of the comms that were local, each once."""
        return [each for each in self._own if each not in self._absent]

    def _put(self, operation: Operation, attribute: str) -> None:
        comm = operation["path"].rpartition("/")[0]
        if attribute == "local":
            if not _NUMBER.fullmatch(operation.get("text", "1")):
                self._local = self._local or comm  # the first one stays
        elif "hex" in operation and "$" not in operation["hex"]:
            raw = bytes.fromhex(operation["hex"])
            text = decode_sockaddr(raw) if len(raw) == 128 else None
            self._addresses.setdefault(comm, []).append(text or "")
        self._note()

    def _forget(self, path: str) -> None:
        for comm in [each for each in self._addresses if f"{each}/".startswith(f"{path}/")]:
            del self._addresses[comm]
        if f"{self._local}/".startswith(f"{path}/"):
            self._local = ""

    def _set_local(self, operation: Operation) -> None:
        digits = operation["hex"]
        if "errno" not in operation and "$" not in digits and len(digits) == 2 * NODE_SIZE:
            text = decode_sockaddr(decode_node_request(bytes.fromhex(digits)).address)
            self._addresses.setdefault(_IOCTL, []).append(text or "")
            self._local = _IOCTL
            self._note()

    def _note(self) -> None:
        self._own |= dict.fromkeys(each for each in self._addresses.get(self._local, ()) if each)
