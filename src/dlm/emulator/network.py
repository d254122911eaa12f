"""The network between emulated nodes: connections by address, and the reliable layer above them.

Decides: which node a message reaches, when, in which order, and whether its receiver takes it.
May not know: what a message says; lockspaces; how nodes are configured.
Mirrors: fs/dlm/lowcomms.c and midcomms.c (Linux 6.1).

A message travels by address: the sender's table gives the addresses of a node id, the network knows
whose address that is, and the receiver takes the connection only if its own table has the sender's
address; the node id that it has there is the one it knows the sender by. What cannot travel waits
and is tried again every second.

The reliable layer numbers packets per pair and direction. Each end keeps its own two counters, and
they begin again when the comm directory of that node id is removed, or when the node itself begins
again: a survivor that keeps the comm of a node that crashed and came back drops what that node
sends, and is dropped.

Kernels acknowledge what they have delivered: up to 6.4 at once, later when there is much of it.
What is not acknowledged yet is kept, and counted in debugfs.

Not modelled: retransmission (what was under way to a node that crashed is lost), the packets of the
FIN hand-shake when the last lockspace goes (its wait is: ``is_kept_by``), TCP's own delays.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from dlm.abi.address import decode_sockaddr, is_same_address
from dlm.emulator.scheduler import Event, Scheduler

LATENCY = (0.0001, 0.002)
"""Shortest and longest way of a message, in seconds."""

RETRY_AFTER = 1.0  # Linux 6.1 fs/dlm/lowcomms.c, tcp_connect_to_sock(): msleep(1000)

ACK_WHEN_SENDING = 32
ACK_WHEN_SILENT = 8 * ACK_WHEN_SENDING
"""Packets that are delivered before they are acknowledged (Linux 6.12 fs/dlm/midcomms.c)."""

PEER_VERSION = 0x00030002

Payload = object
"""What a message is to the network: a value that it hands over."""

Frame = tuple[int | None, Payload]
"""A payload with its sequence number; None: one that travels outside the numbering."""


class Link:
    """What one node keeps about one node id (struct midcomms_node and its connection)."""

    __slots__ = (
        "acknowledged",
        "closing",
        "delivered",
        "established",
        "flying",
        "known",
        "last_due",
        "next_receive",
        "next_send",
        "retry",
        "users",
        "waiting",
    )

    def __init__(self) -> None:
        self.known = False
        """The peer's version is known: it has been heard of since the counters began."""
        self.closing = False
        """The peer has said that it closes."""
        self.users = 0
        """Lockspaces that have the peer as a member."""
        self.established = False
        """The peer was made a member since the counters began, heard of or not."""
        self.next_send = 0
        self.next_receive = 0
        self.acknowledged = 0
        """The peer has said that it has all packets before this number."""
        self.delivered = 0
        """Packets of the peer's that are not acknowledged yet."""
        self.waiting: deque[Frame] = deque()
        self.flying: deque[tuple[Event, Frame]] = deque()
        self.last_due = 0.0
        self.retry: Event | None = None


class Endpoint:
    """The communication half of one node's DLM, from module load to unload or crash.

    ``deliver(nodeid, payload)`` is called for what arrives, ``log(text)`` for the kernel's log,
    ``appeared(nodeid, addressed)`` when an address is filed under a node id, and when a first
    message goes to or comes from it (``addressed`` False). ``keeps(nodeid)`` says whether a
    lockspace has that node as a member, ``wake()`` is called when any way or member has changed.
    ``acks_late``: not every packet is acknowledged at once.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        max_addresses: int,
        deliver: Callable[[int, Payload], None],
        log: Callable[[str], None],
        appeared: Callable[[int, bool], None],
        keeps: Callable[[int], bool] = lambda _: False,
        wake: Callable[[], None] = lambda: None,
        *,
        acks_late: bool = False,
    ) -> None:
        self.network = network
        self.name = name
        self.deliver = deliver
        self.log = log
        self._appeared = appeared
        self.keeps = keeps
        self.wake = wake
        self.running = False
        self._acks_late = acks_late
        self.links: dict[int, Link] = {}
        self.marks: dict[int, int] = {}
        self._max_addresses = max_addresses
        self._addresses: dict[int, list[str]] = {}
        self._filed: dict[int, list[bytes]] = {}
        self._transport: tuple[int, int] = (0, 0)
        self._source = ""
        self._listening: tuple[str, ...] = ()
        self._told: list[tuple[Endpoint, int]] = []
        """Peers that know that this node closes, and its id there."""

    # ---- configuration --------------------------------------------------------------------------

    def add_address(self, nodeid: int, raw: bytes, *, repeated: bool = False) -> None:
        """File an address under a node id; EEXIST unless it may be ``repeated``, ENOSPC."""
        # Linux 6.1 fs/dlm/lowcomms.c, dlm_lowcomms_addr()
        known = self._addresses.setdefault(nodeid, [])
        filed = self._filed.setdefault(nodeid, [])
        if any(is_same_address(each, raw) for each in filed) and not repeated:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if len(known) >= self._max_addresses:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        known.append(decode_sockaddr(raw) or "")
        filed.append(raw)
        self.network.changed()
        self._appeared(nodeid, True)

    def set_address(self, nodeid: int, raw: bytes) -> None:
        """Let this be the one address of a node id, whatever it had before (2005)."""
        self._addresses[nodeid] = [decode_sockaddr(raw) or ""]
        self.network.changed()
        self._appeared(nodeid, True)

    def has_address(self, nodeid: int) -> bool:
        """Say whether any address is filed under this node id."""
        return nodeid in self._addresses

    def knows(self, nodeid: int) -> bool:
        """Say whether messages to this node id can be sent: it has been heard of."""
        return nodeid in self.links and self.links[nodeid].known

    def is_closing(self, nodeid: int) -> bool:
        """Say whether a node has said that it closes."""
        return nodeid in self.links and self.links[nodeid].closing

    def count_user(self, nodeid: int, change: int) -> None:
        """Note that one lockspace more, or one less, has a node as a member."""
        # Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_add_member(), dlm_midcomms_remove_member()
        link = self.link(nodeid)
        if change > 0 and not link.users:
            link.established = True
        link.users = max(0, link.users + change)

    def is_established(self, nodeid: int) -> bool:
        """Say whether a node is a member, or was since the counters began: heard of or not."""
        return nodeid in self.links and self.links[nodeid].established

    def is_kept_by(self, nodeid: int) -> bool:
        """Say whether a node may go on sending to this one: it is out of reach, or says so."""
        if not self.knows(nodeid):
            return False
        route = self.network.route(self, nodeid)
        return route is None or route[0].keeps(route[1])

    def forget(self, nodeid: int) -> None:
        """Close the connection, drop all addresses and begin the counters again (comm removed)."""
        self.log(f"closing connection to node {nodeid}")
        self._addresses.pop(nodeid, None)
        self._filed.pop(nodeid, None)
        self.marks.pop(nodeid, None)
        if nodeid in self.links:
            self.network.reset(self.links[nodeid])
        self.network.changed()

    def start(self, addresses: Sequence[str], protocol: int, port: int) -> None:
        """Listen on the first local address (SCTP: on all); EADDRNOTAVAIL.

        Linux 6.15 and later, which may have up to 8 addresses, listen on all with TCP, too.
        """
        usable = self.network.owns
        if not usable(self.name, addresses[0]):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        every = protocol == 1 or self._max_addresses > 3
        self._listening = tuple(addresses if every else addresses[:1])
        self._source = addresses[0]
        self._transport = (protocol, port)
        self.running = True
        self.network.changed()

    def part(self) -> list[int]:
        """Tell whoever can be reached that this node closes; return the node ids heard of."""
        for nodeid in self.links:
            route = self.network.route(self, nodeid)
            if route is not None and route not in self._told:
                self._told.append(route)
                peer, back = route
                if back in peer.links:
                    peer.links[back].closing = True
        self.network.changed()
        return sorted(nodeid for nodeid, link in self.links.items() if link.known)

    def stop(self) -> list[int]:
        """Close every connection in good order: both ends of each begin again.

        Returns the node ids that something was kept about.
        """
        self.part()
        for peer, back in self._told:
            if back in peer.links:
                self.network.reset(peer.links[back])
        self._told.clear()
        for link in self.links.values():
            self.network.reset(link)
        forgotten = list(self.links)
        self.links.clear()
        self.running = False
        self.network.changed()
        return forgotten

    # ---- messages -------------------------------------------------------------------------------

    def link(self, nodeid: int) -> Link:
        """Return what is kept about a node id, made on first use."""
        link = self.links.get(nodeid)
        if link is None:
            link = self.links[nodeid] = Link()
            self._appeared(nodeid, False)
        return link

    def send(self, nodeid: int, payload: Payload, *, sequenced: bool) -> None:
        """Send a payload; nothing is said about its fate."""
        link = self.link(nodeid)
        number: int | None = None
        if sequenced:
            if not link.known:
                # Linux 6.1 fs/dlm/midcomms.c, dlm_midcomms_get_mhandle(): no version, no packet.
                self.log(f"no connection to node {nodeid}, message lost")
                return
            self._acknowledge(nodeid, link, ACK_WHEN_SENDING)
            number = link.next_send
            link.next_send += 1
        self.network.carry(self, nodeid, link, (number, payload))

    def receive(self, nodeid: int, frame: Frame) -> None:
        """Take a frame that has arrived, or drop it."""
        number, payload = frame
        if number is None:
            link = self.link(nodeid)
        else:
            known = self.links.get(nodeid)
            if known is None:
                return
            link = known
        if not link.known:
            link.known = True
            self.log(f"version {PEER_VERSION:#010x} for node {nodeid} detected")
        if number is not None:
            if number != link.next_receive:
                self.network.mismatched += 1
                self.log(
                    f"ignore dlm msg because seq mismatch, seq: {number}, "
                    f"expected: {link.next_receive}, nodeid: {nodeid}"
                )
                return
            link.next_receive += 1
        if link.waiting:  # the other side has connected
            self.network.flush(self, nodeid, link)
        self.deliver(nodeid, payload)
        if number is not None:
            link.delivered += 1
            self._acknowledge(nodeid, link, ACK_WHEN_SILENT)

    def _acknowledge(self, nodeid: int, link: Link, threshold: int) -> None:
        """Tell the peer what has come, if that is more than so many (dlm_send_ack_threshold)."""
        route = self.network.route(self, nodeid) if link.delivered > threshold else None
        if route is not None:
            link.delivered = 0
            peer, back = route
            peer.link(back).acknowledged = link.next_receive

    def queued(self, nodeid: int) -> int:
        """Return how many numbered messages to a node have not arrived, or are not acknowledged."""
        link = self.links.get(nodeid)
        if link is None:
            return 0
        if self._acks_late:
            return link.next_send - link.acknowledged
        frames = (*link.waiting, *(frame for _, frame in link.flying))
        return sum(number is not None for number, _ in frames)

    # ---- for the network ------------------------------------------------------------------------

    def addresses(self, nodeid: int) -> Sequence[str]:
        """Return the addresses of a node id as texts ("": of an unknown family)."""
        return self._addresses.get(nodeid, ())

    def accepts(self, peer: Endpoint, address: str) -> int | None:
        """Return the node id by which a connection of ``peer`` to ``address`` is known here."""
        if not self.running or address not in self._listening:
            return None
        if self._transport != peer._transport:
            return None
        for nodeid, addresses in self._addresses.items():
            if peer._source in addresses:
                return nodeid
        return None

    @property
    def source(self) -> str:
        """The address from which this node connects."""
        return self._source


class Network:
    """Everything between the nodes."""

    def __init__(self, scheduler: Scheduler, owners: Mapping[str, str]) -> None:
        """Connect nodes; ``owners`` says which node has an address."""
        self._scheduler = scheduler
        self._owners = owners
        self._endpoints: dict[str, Endpoint] = {}
        self._parted: set[frozenset[str]] = set()
        self._routes: dict[tuple[str, int], tuple[Endpoint, int] | None] = {}
        self.mismatched = 0
        """Messages that a receiver dropped because their number was not the expected one."""

    @property
    def quiet(self) -> bool:
        """Whether no message is on its way or waits for a connection."""
        return not any(
            link.flying or link.waiting
            for endpoint in self._endpoints.values()
            for link in endpoint.links.values()
        )

    def attach(self, endpoint: Endpoint) -> None:
        """Let a node's endpoint take part."""
        self._endpoints[endpoint.name] = endpoint
        self.changed()

    def detach(self, name: str) -> None:
        """Take a node away as a power failure does: what was under way to or from it is lost."""
        gone = self._endpoints.pop(name, None)
        if gone is None:
            return
        for link in gone.links.values():
            self.reset(link)
        for _, _, link in self._links_to(name):
            self._drop(link)
        self.changed()

    def partition(self, first: str, second: str) -> None:
        """Keep all messages between two nodes waiting."""
        self._parted.add(frozenset((first, second)))
        self.changed()
        for a, b in ((first, second), (second, first)):
            for endpoint, nodeid, link in self._links_to(b):
                if endpoint.name == a:
                    self._cut(endpoint, nodeid, link)

    def heal(self, first: str, second: str) -> None:
        """Let messages between two nodes travel again."""
        self._parted.discard(frozenset((first, second)))
        self.changed()
        for a, b in ((first, second), (second, first)):
            for endpoint, nodeid, link in self._links_to(b):
                if endpoint.name == a and link.waiting:
                    self.flush(endpoint, nodeid, link)

    def owns(self, name: str, address: str) -> bool:
        """Say whether a node can bind to an address."""
        return self._owners.get(address) == name or address.startswith("127.") or address == "::1"

    def changed(self) -> None:
        """Forget what is known of ways: some node's view has changed."""
        self._routes.clear()
        self._scheduler.progress += 1
        for endpoint in self._endpoints.values():
            endpoint.wake()

    def route(self, endpoint: Endpoint, nodeid: int) -> tuple[Endpoint, int] | None:
        """Return whom a message to ``nodeid`` reaches, if anybody, and the sender's id there."""
        key = (endpoint.name, nodeid)
        try:
            return self._routes[key]
        except KeyError:
            found = self._routes[key] = self._find(endpoint, nodeid)
            return found

    def carry(self, endpoint: Endpoint, nodeid: int, link: Link, frame: Frame) -> None:
        """Send a frame on its way, behind those that wait."""
        if link.waiting or self.route(endpoint, nodeid) is None:
            self._wait(endpoint, nodeid, link, frame)
        else:
            self._fly(endpoint, nodeid, link, frame)

    def flush(self, endpoint: Endpoint, nodeid: int, link: Link) -> None:
        """Send what waits, if there is a way now."""
        if self.route(endpoint, nodeid) is not None:
            self._scheduler.progress += 1
            self._scheduler.cancel(link.retry)
            link.retry = None
            while link.waiting:
                self._fly(endpoint, nodeid, link, link.waiting.popleft())

    def reset(self, link: Link) -> None:
        """Begin a link again: counters, version, everything under way."""
        self._drop(link)
        link.known = link.closing = link.established = False
        link.next_send = link.next_receive = link.acknowledged = link.delivered = 0

    # ---- private --------------------------------------------------------------------------------

    def _find(self, endpoint: Endpoint, nodeid: int) -> tuple[Endpoint, int] | None:
        if not endpoint.running or self._endpoints.get(endpoint.name) is not endpoint:
            return None
        if self._owners.get(endpoint.source) != endpoint.name:  # from loopback nobody is reached
            return None
        for address in endpoint.addresses(nodeid):
            peer = self._endpoints.get(self._owners.get(address, ""))
            if peer is None or peer is endpoint:
                continue
            if frozenset((endpoint.name, peer.name)) in self._parted:
                continue
            back = peer.accepts(endpoint, address)
            if back is not None:
                return peer, back
        return None

    def _links_to(self, name: str) -> Iterator[tuple[Endpoint, int, Link]]:
        for endpoint in self._endpoints.values():
            for nodeid, link in endpoint.links.items():
                if any(self._owners.get(a) == name for a in endpoint.addresses(nodeid)):
                    yield endpoint, nodeid, link

    def _fly(self, endpoint: Endpoint, nodeid: int, link: Link, frame: Frame) -> None:
        scheduler = self._scheduler
        event = scheduler.schedule(
            scheduler.random.uniform(*LATENCY),
            partial(self._land, endpoint, nodeid, link),
            not_before=link.last_due,
        )
        link.last_due = event.time
        link.flying.append((event, frame))

    def _land(self, endpoint: Endpoint, nodeid: int, link: Link) -> None:
        route = self.route(endpoint, nodeid)
        if route is None:
            self._cut(endpoint, nodeid, link)
        else:
            _, frame = link.flying.popleft()
            peer, back = route
            peer.receive(back, frame)

    def _wait(self, endpoint: Endpoint, nodeid: int, link: Link, frame: Frame) -> None:
        if not link.waiting and not endpoint.addresses(nodeid):
            endpoint.log(f"no address for nodeid {nodeid}")
        link.waiting.append(frame)
        self._scheduler.record(endpoint.name, "waits for node", nodeid, frame[1])
        self._arm(endpoint, nodeid, link)

    def _arm(self, endpoint: Endpoint, nodeid: int, link: Link) -> None:
        if link.retry is None:
            retry = partial(self._retry, endpoint, nodeid, link)
            link.retry = self._scheduler.schedule(RETRY_AFTER, retry, idle=True)

    def _retry(self, endpoint: Endpoint, nodeid: int, link: Link) -> None:
        link.retry = None
        if link.waiting:
            self.flush(endpoint, nodeid, link)
            if link.waiting:
                self._arm(endpoint, nodeid, link)

    def _cut(self, endpoint: Endpoint, nodeid: int, link: Link) -> None:
        # The connection is gone, what was under way has to wait for the next one.
        while link.flying:
            event, frame = link.flying.pop()
            self._scheduler.cancel(event)
            link.waiting.appendleft(frame)
        if link.waiting:
            self._arm(endpoint, nodeid, link)

    def _drop(self, link: Link) -> None:
        while link.flying:
            self._scheduler.cancel(link.flying.pop()[0])
        link.waiting.clear()
        self._scheduler.cancel(link.retry)
        link.retry = None
