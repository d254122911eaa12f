"""The server: who is let in, what ends a connection, what of it lives on."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlm.abi.address import encode_sockaddr
from dlm.abi.debugfs import parse_all
from dlm.abi.device import decode_result
from dlm.abi.node2005 import Ioctl, NodeRequest, encode_node_request
from dlm.control.aio import Control
from dlm.emulator import Cluster
from dlm.errors import NoDlmError
from dlm.ports import Backend, DeviceRead, DeviceWrite, OpenFlags, PollEvents, ReadAttribute
from dlm.remote import streams
from dlm.remote.client import Client, connect
from dlm.remote.line import Line
from dlm.remote.server import Port, Server
from dlm.remote.verbs import DEVICE, PROCESS, SOURCE
from dlm.remote.wire import (
    PREAMBLE_SIZE,
    REQUEST_LIMIT,
    VERSION,
    Frames,
    Kind,
    frame,
    preamble,
)
from dlm.terms import LockFlag, LockMode
from tests.contract.machine import (
    LockFile,
    Machine,
    create_request,
    lock_request,
    refused,
    unlock_request,
)
from tests.needs import missing
from tests.served import Served

PATIENCE = 20.0
"""Seconds for something that must come; no test measures them."""

HELLO = frame([1, 0, 0, "hello"])


@pytest.fixture
def served() -> Iterator[Served]:
    """One node at a socket ``node``."""
    cluster = Cluster({"nodea": "10.0.0.1"})
    served = Served(cluster, {"node": cluster.node("nodea").process}, speed=10)
    yield served
    served.close()


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds that another thread brings about."""
    woken = threading.Event()
    for _ in range(2000):
        if condition():
            return
        woken.wait(0.01)
    pytest.fail("it did not come")


class Raw:
    """A connection that says what it likes."""

    def __init__(self, served: Served, *says: bytes) -> None:
        self.socket = streams.connect(served.path("node"))
        self.socket.settimeout(PATIENCE)
        for each in says:
            self.socket.sendall(each)

    def answers(self) -> list[object]:
        """Read to the end of the stream; return what the server said."""
        frames = Frames(REQUEST_LIMIT)
        found: list[object] = []
        with self.socket:
            while data := self.receive():
                frames.feed(data)
        while (item := frames.take()) is not None:
            found.append(item)
        return found

    def receive(self) -> bytes:
        """Return what has come, b"" at the end, however it came about."""
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""


GARBAGE = {
    "no preamble": (b"GET / HTTP/1.0\r\n\r\n", "no preamble: b'GET / HT'"),
    "random bytes for a frame": (
        preamble() + b"\0\0\0\4" + bytes(range(64)),
        "no value begins with 0x00",
    ),
    "an oversized frame": (
        preamble() + struct.pack(">I", REQUEST_LIMIT + 1),
        f"a frame of {REQUEST_LIMIT + 1} bytes, {REQUEST_LIMIT} are allowed",
    ),
    "no hello": (
        preamble() + frame([1, 0, 0, "stat", "dlm"]),
        "no hello: [1, 0, 0, 'stat', 'dlm']",
    ),
    "another version": (
        preamble(VERSION + 1) + HELLO,
        f"it speaks version {VERSION + 1} of the protocol, not {VERSION}",
    ),
    "a second preamble": (preamble() + HELLO + preamble(), "a frame of 1145851218 bytes"),
    "no verb": (preamble() + HELLO + frame([2, 0, 0, "eval", "1"]), "there is no verb 'eval'"),
    "no target": (preamble() + HELLO + frame([2, 9, 0, "read", 1]), "there is no target 9"),
    "no request": (preamble() + HELLO + frame(["stat"]), "no request: ['stat']"),
    "wrong arguments": (
        preamble() + HELLO + frame([2, 0, 0, "read_attribute", b"dlm"]),
        "wrong arguments for 'read_attribute': [b'dlm']",
    ),
    "too many arguments": (
        preamble() + HELLO + frame([2, 0, 0, "boot_id", 1]),
        "wrong arguments for 'boot_id': [1]",
    ),
}


@pytest.mark.parametrize("name", list(GARBAGE))
def test_garbage_ends_that_connection_with_one_line_in_the_log(served: Served, name: str) -> None:
    """And another connection does not notice."""
    other = served.connect("node")
    data, why = GARBAGE[name]
    Raw(served, data).answers()
    assert len(served.log) == 1, served.log
    assert served.log[0].startswith(f"node: connection ended: {why}")
    assert other.list_directory("dlm") == []


VERBS = st.sampled_from([*PROCESS, *DEVICE, *SOURCE, "cancel", "hello", "eval"])
SAID = st.one_of(
    VERBS,
    st.sampled_from(["dlm", "dlm/test/control", "dlm-control", "dlm_test", "\0", ""]),
    st.integers(-3, 5),
    st.sampled_from([2**62, -(2**62)]),
    st.binary(max_size=150),
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_whatever_is_said_is_answered_or_garbage(served: Served, data: st.DataObject) -> None:
    """Random verbs on random targets with random arguments: nothing else, and never a bug."""
    requests = [
        [
            number,
            data.draw(st.integers(0, 3)),
            data.draw(st.integers(0, 4)),
            data.draw(VERBS | SAID),
            *data.draw(st.lists(SAID, max_size=2)),
        ]
        for number in range(2, data.draw(st.integers(2, 9)))
    ]
    opened = [[90, 0, 0, "open_device", "dlm-control", 2], [91, 0, 0, "uevents"]]
    raw = Raw(served, preamble() + HELLO + b"".join(map(frame, opened + requests)))
    raw.socket.shutdown(socket.SHUT_WR)
    answers = raw.answers()
    assert answers[0] == VERSION
    assert [answer[:2] for answer in answers[2:4]] == [[90, 0], [91, 0]]  # type: ignore[index]
    assert not [line for line in served.log if "bug" in line], served.log


def test_what_cannot_be_served_is_refused_and_the_client_is_told() -> None:
    """A backend that is not there at this moment: ENODEV with its own sentence."""
    cluster = Cluster({"nodea": "10.0.0.1"})

    def spawn() -> Backend:
        raise NoDlmError("there is none", "make one")

    served = Served(cluster, {"node": spawn})
    try:
        with pytest.raises(OSError) as caught:
            connect(served.path("node"))
        assert caught.value.args == (errno.ENODEV, "there is none; make one")
    finally:
        served.close()


def test_a_number_that_is_taken_is_garbage(served: Served) -> None:
    """Two requests of one number could not be told apart."""
    client = served.connect("node")
    Machine(client).configure()
    opened = frame([2, 0, 0, "open_device", "dlm-control", 2])
    create = frame([3, 1, 0, "write", create_request("test")])
    Raw(served, preamble() + HELLO + opened + create + create).answers()
    assert served.log == ["node: connection ended: request 3 has not ended and comes again"]
    assert client.list_directory("dlm") == ["test"]


def test_a_truncated_frame_waits_for_its_rest(served: Served) -> None:
    """It is no fault to be slow; and an end in its middle is just an end."""
    request = frame([2, 0, 0, "list_directory", "dlm"])
    raw = Raw(served, preamble() + HELLO)
    for byte in request[:-1]:
        raw.socket.sendall(bytes([byte]))
    other = served.connect("node")
    assert other.list_directory("dlm") == []
    raw.socket.sendall(request[-1:])
    raw.socket.sendall(request[:5])
    raw.socket.shutdown(socket.SHUT_WR)
    version, hello, listed = raw.answers()
    assert (version, hello[:2], listed) == (VERSION, [1, Kind.RESULT], [2, Kind.RESULT, []])  # type: ignore[index]
    assert served.log == []


def test_requests_may_be_sent_before_the_answers_come(served: Served) -> None:
    """A hundred at once, answered in their order, for none of them sleeps."""
    requests = [frame([number, 0, 0, "list_directory", "dlm"]) for number in range(2, 102)]
    raw = Raw(served, preamble() + HELLO + b"".join(requests))
    raw.socket.shutdown(socket.SHUT_WR)
    answers = raw.answers()[2:]
    assert answers == [[number, Kind.RESULT, []] for number in range(2, 102)]


def test_a_call_that_sleeps_lets_later_ones_pass(served: Served) -> None:
    """Its answer comes when it ends."""
    machine = Machine(served.connect("node"))
    machine.configure()
    control = machine.control()
    pending = control.submit(DeviceWrite(create_request("test")))
    assert machine.exists("dlm/test")
    assert not pending.done()


def test_a_client_of_another_version_is_told_so() -> None:
    """The versions are in the sentence, and what to do."""
    here, there = socket.socketpair()
    there.sendall(preamble(VERSION + 1))
    with pytest.raises(NoDlmError, match=f"speaks version {VERSION + 1} of the protocol, not"):
        Line(streams.Stream(here.detach()))
    there.close()


def test_a_server_of_another_kind_is_found_out() -> None:
    """What answers is no server of ours; the sentence says what came."""
    here, there = socket.socketpair()
    there.sendall(b"220 mail.example.com ESMTP\r\n")
    with pytest.raises(NoDlmError, match="is not the protocol"):
        Line(streams.Stream(here.detach()))
    there.close()


# ---- the owner ----------------------------------------------------------------------------------


def test_another_user_is_turned_away() -> None:
    """By the credentials of connect(2); the client gets EACCES, the log one line."""
    cluster = Cluster({"nodea": "10.0.0.1"})
    uids = [os.geteuid() + 1, os.geteuid()]
    served = Served(
        cluster, {"node": cluster.node("nodea").process}, peer_uid=lambda _: uids.pop(0)
    )
    try:
        with refused(errno.EACCES):
            connect(served.path("node"))
        assert served.log == [f"node: a process of user {os.geteuid() + 1} was turned away"]
        assert served.connect("node").list_directory("dlm") == []
    finally:
        served.close()


def test_a_process_of_another_user_is_turned_away(served: Served) -> None:
    """A real one, as root can make it, even where directory and socket would let it in."""
    if os.geteuid() != 0:
        missing("no rights to become another user", "be root")
    os.chmod(served.directory, 0o755)
    os.chmod(served.path("node"), 0o666)
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); data = b''\n"
        "while more := s.recv(999): data += more\n"
        "print(data)"
    )
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code, served.path("node")],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert "only its owner may connect" in ran.stdout
    eventually(lambda: served.log == ["node: a process of user 65534 was turned away"])


def test_modes_keep_others_out_before_that(served: Served) -> None:
    """0700 for the directory, 0600 for the socket."""
    assert os.stat(served.directory).st_mode & 0o777 == 0o700
    assert os.stat(served.path("node")).st_mode & 0o777 == 0o600


# ---- the end of a connection --------------------------------------------------------------------


def drop(client: Client) -> None:
    """Let a connection break off, as the kernel does for a process that is killed."""
    client._line._stream.end()
    client._line._reader.join()


def locks(machine: Machine) -> dict[bytes, int]:
    """Return the resources that have locks, and how many."""
    entries = parse_all(machine.read("debug/dlm/test_all"))
    return {entry.name: len(entry.locks) for entry in entries if entry.locks}


def test_a_dropped_connection_is_the_exit_of_its_process(served: Served) -> None:
    """Its locks go, its persistent ones stay behind and can be adopted."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    mortal = Machine(served.connect("node"))
    file = mortal.open_device("dlm_test")
    file.write(lock_request(name=b"gone", mode=LockMode.EX))
    kept = file.write(lock_request(name=b"kept", mode=LockMode.EX, flags=LockFlag.PERSISTENT))
    assert locks(machine) == {b"gone": 1, b"kept": 1}

    drop(mortal.backend)  # type: ignore[arg-type]

    machine.eventually(lambda: locks(machine) == {b"kept": 1}, "the exit")
    orphan = LockFile(machine.open_device("dlm_test")).adopt(b"kept", LockMode.EX)
    assert orphan == kept


def test_spawned_processes_end_with_their_connection_or_alone(served: Served) -> None:
    """Each is a process of its own, with a pid of its own."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    parent = served.connect("node")
    children = [Machine(parent.spawn_process()) for _ in range(2)]
    for number, child in enumerate(children):
        child.open_device("dlm_test").write(lock_request(name=b"%d" % number, mode=LockMode.EX))
    pids = {parent.process_id(), *(child.backend.process_id() for child in children)}
    assert len(pids) == 3
    assert locks(machine) == {b"0": 1, b"1": 1}
    children[0].backend.close()
    assert locks(machine) == {b"1": 1}
    parent.close()
    assert locks(machine) == {}


def test_a_detached_create_lives_on_and_another_does_not_hang_on_its_connection(
    served: Served,
) -> None:
    """The lockspace is there, its create still sleeps, and somebody else can start it."""
    machine = Machine(served.connect("node"))
    machine.configure()
    mortal = Machine(served.connect("node"))
    mortal.begin_create("test")
    drop(mortal.backend)  # type: ignore[arg-type]
    machine.add_member("test", 1)
    assert "dlm_test" not in machine.backend.misc_devices()
    machine.write("dlm/test/control", "1")
    machine.write("dlm/test/event_done", "0")
    machine.eventually(lambda: "dlm_test" in machine.backend.misc_devices(), "the join")


def test_a_blocking_read_ends_with_its_connection(served: Served) -> None:
    """The server has nothing left of it; the client's waiters are woken with an error."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    mortal = served.connect("node")
    file = mortal.open_device("dlm_test", flags=OpenFlags.RDWR)
    pending = file.submit(DeviceRead(200))
    assert not pending.done()
    drop(mortal)
    assert readable(pending.fileno())
    with refused(errno.ECONNRESET):
        pending.result()
    with refused(errno.ECONNRESET):
        mortal.list_directory("dlm")
    machine.eventually(lambda: len(served.server.connections) == 1, "the end")


def test_a_detached_read_outlives_its_connection(served: Served) -> None:
    """It holds the file, so its locks are still there."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    mortal = served.connect("node")
    file = mortal.open_device("dlm_test", flags=OpenFlags.RDWR)
    file.write(lock_request(name=b"foo", mode=LockMode.EX))
    file.read(200)
    file.submit(DeviceRead(200), detached=True)
    drop(mortal)
    machine.eventually(lambda: len(served.server.connections) == 1, "the end")
    assert locks(machine) == {b"foo": 1}


def test_whoever_waits_for_a_device_learns_that_the_connection_is_lost(served: Served) -> None:
    """poll(None) and an event's wait(None) end with ECONNRESET."""
    Machine(served.connect("node")).bring_up("test")
    mortal = served.connect("node")
    file, source = mortal.open_device("dlm_test"), mortal.uevents()
    descriptors = [file.fileno(), source.fileno()]
    ends: list[int | None] = []

    def wait(call: Callable[[None], object]) -> None:
        try:
            call(None)
        except OSError as error:
            ends.append(error.errno)

    threads = [threading.Thread(target=wait, args=(call,)) for call in (file.poll, source.wait)]
    for thread in threads:
        thread.start()
    drop(mortal)
    for thread in threads:
        thread.join(PATIENCE)
    assert ends == [errno.ECONNRESET] * 2
    assert all(map(readable, descriptors))


def test_an_answer_longer_than_a_sockets_buffer_comes_whole(served: Served) -> None:
    """In as many parts as it takes."""
    state = served.connect("node").state_directory()
    content = bytes(range(256)) * 4000
    state.write("file", content)
    assert state.read("file") == content
    with refused(errno.EMSGSIZE):
        state.write("file", content * 2)


def test_a_cancelled_call_has_no_answer(served: Served) -> None:
    """close() of a pending read ends it; its file can be read again."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    file = machine.open_device("dlm_test", OpenFlags.RDWR)
    pending = file.submit(DeviceRead(200))
    pending.close()
    with refused(errno.EINTR):
        pending.result()
    file.write(lock_request(name=b"foo", mode=LockMode.EX))
    assert decode_result(file.read(200)).status == 0


# ---- readiness ----------------------------------------------------------------------------------


def readable(descriptor: int, seconds: float = PATIENCE) -> bool:
    """Wait until a descriptor is readable; say whether it is."""
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_a_devices_descriptor_is_in_step_with_its_results(served: Served) -> None:
    """Readable from the result to the read of the last one, as the answers to calls come."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    file = machine.open_device("dlm_test")
    assert not readable(file.fileno(), 0)
    for name in (b"one", b"two"):
        file.write(lock_request(name=name, mode=LockMode.EX))
    assert readable(file.fileno(), 0)
    file.read(200)
    assert readable(file.fileno(), 0)
    file.read(200)
    assert not readable(file.fileno(), 0)
    assert file.poll(0) == 0


def test_somebody_elses_unlock_wakes_a_waiter(served: Served) -> None:
    """poll(None) returns when the grant comes, and the descriptor is readable."""
    machine = Machine(served.connect("node"))
    machine.bring_up("test")
    other = Machine(served.connect("node"))
    first, second = machine.open_device("dlm_test"), other.open_device("dlm_test")
    held = first.write(lock_request(name=b"foo", mode=LockMode.EX, bastaddr=0))
    second.write(lock_request(name=b"foo", mode=LockMode.EX))
    waiter: list[int] = []
    thread = threading.Thread(target=lambda: waiter.append(second.poll(None)))
    thread.start()
    assert not readable(second.fileno(), 0)
    first.write(unlock_request(held))
    assert readable(second.fileno())
    thread.join(PATIENCE)
    assert waiter == [PollEvents.IN | PollEvents.RDNORM]


def test_events_wake_a_waiter(served: Served) -> None:
    """wait() and the descriptor, in step with what there is to read."""
    machine = Machine(served.connect("node"))
    source = served.connect("node").uevents()
    assert not source.wait(0)
    assert not readable(source.fileno(), 0)
    machine.configure()
    machine.begin_create("test")
    assert source.wait(None)
    assert readable(source.fileno())
    assert [event.header for event in source.read_nowait()][:1] == ["add@/kernel/dlm/test"]
    assert not source.wait(0)
    source.close()


def test_a_submitted_calls_descriptor_becomes_readable(served: Served) -> None:
    """Whether it was asked for before or after the end."""
    client = served.connect("node")
    early = client.submit(ReadAttribute("dlm/none"))
    assert readable(early.fileno())
    with pytest.raises(FileNotFoundError) as caught:
        early.result()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "dlm/none")
    early.close()
    machine = Machine(client)
    machine.configure()
    joining = machine.submit_create("test")
    assert not readable(joining.fileno(), 0)
    machine.add_member("test", 1)
    machine.write("dlm/test/control", "1")
    machine.write("dlm/test/event_done", "0")
    assert readable(joining.fileno())
    assert joining.result() > 0
    joining.close()


def test_asyncio_runs_on_descriptors(served: Served) -> None:
    """dlm.control.aio on a plain event loop: two nodes' worth of waiting in one thread."""

    async def story() -> tuple[list[int], int]:
        control = Control(served.connect("node"))
        await control.set_local(1, "10.0.0.1")
        names = ("one", "two")
        spaces = [control.lockspace(name) for name in names]
        done = []
        for space in spaces:
            await space.create()
            await space.start(1, [1])
            done.append(await space.wait_done(1, timeout=PATIENCE * 10))
        return done, len((await control.snapshot()).lockspaces)

    assert asyncio.run(story()) == ([1, 1], 2)


def test_an_ioctl_travels_with_its_result_and_its_refusal() -> None:
    """Of the device dlm-node, which kernels of 2005 had."""
    cluster = Cluster({"nodea": "10.0.0.1"}, abi="event")
    served = Served(cluster, {"node": cluster.node("nodea").process})
    try:
        client, here = served.connect("node"), cluster.node("nodea").process()
        device, peer = client.open_device("dlm-node"), here.open_device("dlm-node")
        request = encode_node_request(NodeRequest(1, 1, encode_sockaddr("10.0.0.1")))
        for code in (Ioctl.VERSION, Ioctl.SET_LOCAL):
            assert device.ioctl(code, request) == peer.ioctl(code, request)
        with pytest.raises(OSError) as refusal:
            device.ioctl(1, request)
        with pytest.raises(OSError) as same:
            peer.ioctl(1, request)
        assert refusal.value.errno == same.value.errno
    finally:
        served.close()


# ---- the state directory ------------------------------------------------------------------------


def test_the_state_lock_goes_from_one_to_the_next_even_when_its_holder_dies(
    served: Served,
) -> None:
    """In the order of asking; files in it are the node's."""
    first, second = served.connect("node"), served.connect("node")
    entered: list[str] = []
    lock = first.state_directory().lock()
    lock.__enter__()
    first.state_directory().write("file", b"content")

    def work() -> None:
        with second.state_directory().lock():
            entered.append("second")

    thread = threading.Thread(target=work)
    thread.start()
    third = served.connect("node")
    assert third.state_directory().read("file") == b"content"
    assert entered == []
    drop(first)
    thread.join(PATIENCE)
    assert entered == ["second"]
    with third.state_directory().lock(), refused(errno.EDEADLK):
        third.state_directory().lock().__enter__()


# ---- a node that goes down ----------------------------------------------------------------------


def test_a_down_node_refuses_connections() -> None:
    """EIO, as its kernel's calls do; after the restart there are processes again."""
    cluster = Cluster({"nodea": "10.0.0.1"})
    cluster.crash("nodea")
    served = Served(cluster, {"node": cluster.node("nodea").process})
    try:
        with refused(errno.EIO):
            connect(served.path("node"))
    finally:
        served.close()


# ---- paths and devices --------------------------------------------------------------------------


def test_a_path_longer_than_a_sockets_name_is_reached(tmp_path: Path) -> None:
    """By its directory's descriptor."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir(mode=0o700)
    path = str(directory / "socket")
    listener = streams.listen(path)
    with listener, streams.connect(path) as connection:
        assert connection.getpeername()
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_socket_is_made_only_where_nobody_else_comes(tmp_path: Path) -> None:
    """A directory open to others is EPERM, a file in the place EEXIST, a live server EADDRINUSE."""
    open_to_all, own = tmp_path / "open", tmp_path / "own"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with refused(errno.EPERM):
        streams.listen(str(open_to_all / "s"))
    with streams.listen(str(own / "s")), refused(errno.EADDRINUSE):
        streams.listen(str(own / "s"))
    streams.listen(str(own / "s")).close()  # nobody answers there any more
    (own / "file").touch()
    with refused(errno.EEXIST):
        streams.listen(str(own / "file"))


def test_a_serial_line_carries_one_session_after_the_other() -> None:
    """Garbage ends a session, a new preamble begins the next, on the same line."""
    import pty  # noqa: PLC0415 - only here

    ours, theirs = pty.openpty()
    path = os.ttyname(theirs)
    cluster = Cluster({"nodea": "10.0.0.1"})
    log: list[str] = []
    server = Server(log=log.append)
    server.adopt(streams.open_device(path), Port("line", cluster.node("nodea").process), line=True)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        first = Line(streams.Stream(os.dup(ours)), device=True)
        Machine(Client(first)).configure()
        first.close()
        os.write(ours, b"\xff" * 30)
        second = Client(Line(streams.Stream(os.dup(ours)), device=True))
        assert second.list_directory("config/dlm") == ["cluster"]
        second._line.close()
        third = Client(Line(streams.Stream(os.dup(ours)), device=True))  # without an end before
        assert third.list_directory("config/dlm") == ["cluster"]
        assert third.process_id() > second.process_id()
        third.close()
    finally:
        server.stop()
        thread.join()
        server.close()
        os.close(theirs)
        os.close(ours)
    assert len(log) == 1
    assert log[0].startswith("line: session ended: a frame of 4294967295 bytes")


def test_a_slow_reader_is_no_burden(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody fetches end the connection when they are too many."""
    monkeypatch.setattr("dlm.remote.server.BACKLOG", 1 << 20)
    raw = Raw(served, preamble() + HELLO)
    listing = frame([2, 0, 0, "local_addresses"])
    with pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012 - whichever of them
        for _ in range(1000):
            raw.socket.sendall(listing * 1000)
    raw.socket.close()
    assert "bytes unread" in served.log[0]
    assert served.connect("node").list_directory("dlm") == []


def test_the_preamble_is_what_both_sides_begin_with(served: Served) -> None:
    """The server answers the client's with its own, and says who it is."""
    raw = Raw(served, preamble())
    assert raw.socket.recv(100) == preamble()
    assert len(preamble()) == PREAMBLE_SIZE
    raw.socket.close()
