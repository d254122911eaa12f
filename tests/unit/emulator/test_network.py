"""Messages by address, and the reliable layer's numbering."""

from __future__ import annotations

import errno

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.emulator.network import Endpoint, Network
from dlm.emulator.scheduler import Scheduler

ADDRESSES = {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}
NAMES = {1: "nodea", 2: "nodeb", 3: "nodec"}
TCP = (0, 21064)


class World:
    """Endpoints that note what they get."""

    def __init__(self, *, max_addresses: int = 3, acks_late: bool = False) -> None:
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, {ADDRESSES[i]: NAMES[i] for i in NAMES})
        self.got: dict[int, list[tuple[int, object]]] = {}
        self.log: dict[int, list[str]] = {}
        self.nodes: dict[int, Endpoint] = {}
        self._max = max_addresses
        self._acks_late = acks_late
        for number in NAMES:
            self.boot(number)

    def boot(self, number: int) -> Endpoint:
        """Attach a node that has configured every other one and listens."""
        self.got[number], self.log[number] = [], []
        endpoint = self.nodes[number] = Endpoint(
            self.network,
            NAMES[number],
            self._max,
            lambda nodeid, payload: self.got[number].append((nodeid, payload)),
            self.log[number].append,
            lambda *_: None,
            acks_late=self._acks_late,
        )
        self.network.attach(endpoint)
        for nodeid, address in ADDRESSES.items():
            endpoint.add_address(nodeid, encode_sockaddr(address))
        endpoint.start([ADDRESSES[number]], *TCP)
        return endpoint

    def greet(self, first: int, second: int) -> None:
        """Let two nodes hear of each other, as a recovery's STATUS does."""
        self.nodes[first].send(second, "hello", sequenced=False)
        self.nodes[second].send(first, "hello", sequenced=False)
        self.scheduler.settle()
        self.got[first].clear()
        self.got[second].clear()

    def payloads(self, number: int) -> list[object]:
        """Return what a node got, without senders."""
        return [payload for _, payload in self.got[number]]


def test_messages_arrive_in_order_under_the_receivers_id_of_the_sender() -> None:
    """A direction of a pair keeps its order whatever the latencies are."""
    world = World()
    world.greet(1, 2)
    for number in range(50):
        world.nodes[1].send(2, number, sequenced=True)

    world.scheduler.settle()

    assert world.got[2] == [(1, number) for number in range(50)]
    assert world.scheduler.now > 0


@pytest.mark.parametrize(
    ("acks_late", "answers", "sent", "kept"),
    [
        (False, False, 20, 0),
        (True, False, 20, 20),
        (True, False, 256, 256),
        (True, False, 257, 0),
        (True, False, 260, 3),
        (True, True, 32, 32),
        (True, True, 33, 0),
    ],
)
def test_what_is_kept_until_it_is_acknowledged(
    acks_late: bool, answers: bool, sent: int, kept: int
) -> None:
    """Since 6.5 after 257 packets, or after 33 when the receiver sends something itself.

    Linux 6.12 fs/dlm/midcomms.c, dlm_send_ack_threshold(); the counts as seen on guests of 6.12.
    """
    world = World(acks_late=acks_late)
    world.greet(1, 2)
    for number in range(sent):
        world.nodes[1].send(2, number, sequenced=True)
    world.scheduler.settle()

    if answers:
        world.nodes[2].send(1, "answer", sequenced=True)
        world.scheduler.settle()

    assert world.nodes[1].queued(2) == kept
    assert world.nodes[2].queued(1) == int(answers)


def test_the_receiver_decides_whom_a_message_is_from() -> None:
    """The sender is whoever the receiver has filed the sender's address under."""
    world = World()
    other = world.nodes[2]
    other.forget(1)
    other.add_address(9, encode_sockaddr(ADDRESSES[1]))

    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()

    assert world.got[2] == [(9, "hello")]


def test_a_message_goes_to_whoever_has_the_address() -> None:
    """A wrong address in the sender's table reaches the node that has it, under its own id."""
    world = World()
    sender = world.nodes[1]
    sender.forget(2)
    sender.add_address(2, encode_sockaddr(ADDRESSES[3]))

    sender.send(2, "hello", sequenced=False)
    world.scheduler.settle()

    assert world.got[3] == [(1, "hello")]
    assert world.got[2] == []


def test_a_node_that_was_not_set_is_reached_only_when_it_is() -> None:
    """The sender's comm may come late; a retry every second finds it."""
    world = World()
    world.nodes[1].forget(2)
    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()
    assert world.got[2] == []
    assert "no address for nodeid 2" in world.log[1]

    world.nodes[1].add_address(2, encode_sockaddr(ADDRESSES[2]))
    world.scheduler.settle()

    assert world.got[2] == [(1, "hello")]


def test_a_connection_from_the_other_side_serves_both() -> None:
    """What waits goes as soon as the other side has connected, not at the next retry."""
    world = World()
    world.nodes[2].forget(1)
    world.nodes[1].send(2, "from one", sequenced=False)
    world.scheduler.run_until(lambda: False, 0.3)
    world.nodes[2].add_address(1, encode_sockaddr(ADDRESSES[1]))
    world.nodes[2].send(1, "from two", sequenced=False)

    assert world.scheduler.run_until(lambda: bool(world.got[2]), 0.4)


def test_a_receiver_that_does_not_know_the_sender_gets_nothing() -> None:
    """The receiver's comm counts as much as the sender's."""
    world = World()
    world.nodes[2].forget(1)
    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()
    assert world.got[2] == []

    world.nodes[2].add_address(1, encode_sockaddr(ADDRESSES[1]))
    world.scheduler.settle()

    assert world.got[2] == [(1, "hello")]


def test_a_message_waits_until_the_receiver_listens() -> None:
    """A node without a lockspace does not listen."""
    world = World()
    world.nodes[2].stop()
    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()
    assert world.got[2] == []

    world.nodes[2].start([ADDRESSES[2]], *TCP)
    world.scheduler.settle()

    assert world.got[2] == [(1, "hello")]


@pytest.mark.parametrize("transport", [(1, 21064), (0, 21065)])
def test_both_ends_need_the_same_protocol_and_port(transport: tuple[int, int]) -> None:
    """TCP does not reach SCTP, nor one port another."""
    world = World()
    world.nodes[2].stop()
    world.nodes[2].start([ADDRESSES[2]], *transport)

    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()

    assert world.got[2] == []


def test_a_listener_must_have_its_own_address() -> None:
    """An address of another node cannot be bound; the loopback address can, but reaches nobody."""
    world = World()
    world.nodes[1].stop()
    with pytest.raises(OSError, match="assign") as caught:
        world.nodes[1].start([ADDRESSES[2]], *TCP)
    assert caught.value.errno == errno.EADDRNOTAVAIL

    world.nodes[1].start(["127.0.0.1"], *TCP)
    world.nodes[1].send(2, "hello", sequenced=False)
    world.scheduler.settle()

    assert world.got[2] == []


def test_addresses_are_limited_and_not_repeated() -> None:
    """One nodeid: no address twice unless its port differs, three of them up to 6.14."""
    endpoint = World().nodes[1]
    other_port = bytearray(encode_sockaddr(ADDRESSES[2]))
    other_port[2:4] = b"\x12\x34"
    with pytest.raises(OSError, match="exists") as caught:
        endpoint.add_address(2, encode_sockaddr(ADDRESSES[2]))
    assert caught.value.errno == errno.EEXIST
    endpoint.add_address(2, bytes(other_port))
    endpoint.add_address(2, encode_sockaddr("fe80::2"))

    with pytest.raises(OSError, match="space") as caught:
        endpoint.add_address(2, encode_sockaddr("10.2.0.2"))

    assert caught.value.errno == errno.ENOSPC


def test_numbered_messages_need_a_peer_that_was_heard_of() -> None:
    """Before the first STATUS has come, a lock message is lost, and the log says so."""
    world = World()
    world.nodes[1].send(2, "lock", sequenced=True)
    world.scheduler.settle()
    assert world.got[2] == []
    assert world.log[1] == ["no connection to node 2, message lost"]
    assert not world.nodes[1].knows(2)

    world.greet(1, 2)
    world.nodes[1].send(2, "lock", sequenced=True)
    world.scheduler.settle()

    assert world.payloads(2) == ["lock"]
    assert world.nodes[1].knows(2)


def use_and_crash(world: World) -> None:
    """Exchange numbered messages between 1 and 2, then let node 1 lose power and come back."""
    world.greet(1, 2)
    world.nodes[1].send(2, "to two", sequenced=True)
    world.nodes[2].send(1, "to one", sequenced=True)
    world.scheduler.settle()
    world.network.detach(NAMES[1])
    world.boot(1)
    world.got[2].clear()


def test_a_survivor_that_keeps_the_comm_drops_and_is_dropped() -> None:
    """After a crash the counters do not match: STATUS passes, lock messages never do."""
    world = World()
    use_and_crash(world)
    world.nodes[1].send(2, "status", sequenced=False)
    world.nodes[2].send(1, "status", sequenced=False)
    world.scheduler.settle()
    assert (world.payloads(1), world.payloads(2)) == (["status"], ["status"])

    world.nodes[1].send(2, "lock", sequenced=True)
    world.nodes[2].send(1, "lock", sequenced=True)
    world.scheduler.settle()

    assert (world.payloads(1), world.payloads(2)) == (["status"], ["status"])
    dropped = "ignore dlm msg because seq mismatch, seq: {}, expected: {}, nodeid: {}"
    assert dropped.format(1, 0, 2) in world.log[1]
    assert dropped.format(0, 1, 1) in world.log[2]


def test_removing_the_comm_begins_the_counters_again() -> None:
    """With the comm made anew on the survivor, lock messages pass in both directions."""
    world = World()
    use_and_crash(world)
    world.nodes[2].forget(1)
    world.nodes[2].add_address(1, encode_sockaddr(ADDRESSES[1]))
    world.greet(1, 2)

    world.nodes[1].send(2, "lock", sequenced=True)
    world.nodes[2].send(1, "lock", sequenced=True)
    world.scheduler.settle()

    assert (world.payloads(1), world.payloads(2)) == (["lock"], ["lock"])


def test_an_orderly_stop_begins_the_counters_again_at_both_ends() -> None:
    """A node that left in good order may come back to peers that kept its comm."""
    world = World()
    world.greet(1, 2)
    world.nodes[1].send(2, "before", sequenced=True)
    world.scheduler.settle()
    world.nodes[1].stop()
    world.nodes[1].start([ADDRESSES[1]], *TCP)
    world.greet(1, 2)

    world.nodes[1].send(2, "after", sequenced=True)
    world.scheduler.settle()

    assert world.payloads(2) == ["after"]


def test_what_was_under_way_to_a_node_that_crashed_is_lost() -> None:
    """Its next life gets nothing that was sent to the last one."""
    world = World()
    world.greet(1, 2)
    world.nodes[2].send(1, "flying", sequenced=True)
    world.network.partition(NAMES[1], NAMES[2])
    world.nodes[2].send(1, "waiting", sequenced=False)
    world.network.detach(NAMES[1])
    world.network.heal(NAMES[1], NAMES[2])
    world.boot(1)

    world.scheduler.settle()

    assert world.got[1] == []


def test_what_a_node_sent_before_it_crashed_is_lost_with_it() -> None:
    """A packet that has not arrived when its sender loses power never arrives."""
    world = World()
    world.greet(1, 2)
    world.nodes[1].send(2, "flying", sequenced=True)

    world.network.detach(NAMES[1])
    world.scheduler.settle()

    assert world.got[2] == []


@pytest.mark.parametrize("at_once", [False, True])
def test_a_partition_while_some_have_landed(at_once: bool) -> None:
    """Wherever the network parts, what has arrived has arrived in order, and the rest comes later.

    Latencies of single messages must not let a later one take an earlier one's place.
    """
    for steps in range(40):
        world = World()
        world.greet(1, 2)
        for number in range(20):
            world.nodes[1].send(2, number, sequenced=True)
        for _ in range(steps):
            world.scheduler.step()
        world.network.partition(NAMES[1], NAMES[2])
        landed = world.payloads(2)
        if not at_once:
            world.scheduler.settle()
        assert world.payloads(2) == landed == list(range(len(landed)))
        world.network.heal(NAMES[1], NAMES[2])
        world.scheduler.settle()
        assert world.payloads(2) == list(range(20))


def test_a_partition_keeps_messages_and_their_order() -> None:
    """What flies when the network parts waits in front of what is sent later; healing sends all."""
    world = World()
    world.greet(1, 2)
    for number in range(3):
        world.nodes[1].send(2, number, sequenced=True)
    world.network.partition(NAMES[1], NAMES[2])
    world.nodes[1].send(2, 3, sequenced=True)
    world.nodes[1].send(3, "to another", sequenced=False)
    world.scheduler.settle()
    assert world.got[2] == []
    assert world.payloads(3) == ["to another"]
    assert world.nodes[1].queued(2) == 4

    world.network.heal(NAMES[1], NAMES[2])
    world.scheduler.settle()

    assert world.payloads(2) == [0, 1, 2, 3]
    assert world.nodes[1].queued(2) == 0


def test_removing_the_comm_drops_what_waits() -> None:
    """Messages to a node id whose comm goes are gone with it."""
    world = World()
    world.nodes[2].stop()
    world.nodes[1].send(2, "old", sequenced=False)
    world.nodes[1].forget(2)
    world.nodes[1].add_address(2, encode_sockaddr(ADDRESSES[2]))
    world.nodes[2].start([ADDRESSES[2]], *TCP)

    world.scheduler.settle()

    assert world.got[2] == []
    assert "closing connection to node 2" in world.log[1]


def test_only_the_first_local_address_listens_with_tcp() -> None:
    """Up to 6.14 TCP takes the first address alone; SCTP, and TCP since 6.15, take all."""
    reached = {}
    for name, transport, most in (("tcp", (0, 1), 3), ("sctp", (1, 1), 3), ("new tcp", (0, 1), 8)):
        scheduler = Scheduler()
        network = Network(scheduler, {"10.0.0.1": "a", "10.0.0.2": "b", "10.1.0.2": "b"})
        got: list[object] = []
        a, b = (
            Endpoint(network, n, most, lambda _, p, got=got: got.append(p), print, lambda *_: None)
            for n in "ab"
        )
        for endpoint in (a, b):
            network.attach(endpoint)
        a.add_address(2, encode_sockaddr("10.1.0.2"))
        b.add_address(1, encode_sockaddr("10.0.0.1"))
        a.start(["10.0.0.1"], *transport)
        b.start(["10.0.0.2", "10.1.0.2"], *transport)
        a.send(2, "hello", sequenced=False)
        scheduler.settle()
        reached[name] = bool(got)

    assert reached == {"tcp": False, "sctp": True, "new tcp": True}
