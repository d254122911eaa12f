"""The VM harness, as far as it needs no VM: apt sources, the hub, the agent's protocol."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.agent import Agent
from tests.vm.host import NoGuestError
from tests.vm.kernels import Source, machine_sources, read_deb822, read_one_line, sources_for
from tests.vm.link import (
    CommandFailedError,
    CommandTimeoutError,
    GuestDiedError,
    Link,
    NoPowerError,
)
from tests.vm.network import Network

# ---- apt sources --------------------------------------------------------------------------------

LIST = """\
# deb http://old.test/debian bookworm main
deb [arch=amd64 signed-by=/a.gpg,/b.gpg] http://one.test/debian bookworm main contrib
deb-src http://one.test/debian bookworm main
deb http://one.test/security bookworm-security main  # with a comment
"""

STANZAS = """\
# a comment
Types: deb deb-src
URIs: http://two.test/debian
# in the middle
Suites: trixie trixie-updates
Components: main
Signed-By: /keys.gpg

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: trixie
Components: main

Types: deb
URIs: http://two.test/security http://three.test/security
Suites: trixie-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""

OTHERS = Source("http://vendor.test/apt", "nodistro")


def test_one_line_sources_are_read() -> None:
    """Of a .list file, binary sources count, with their keys; comments and deb-src do not."""
    assert list(read_one_line(LIST)) == [
        Source("http://one.test/debian", "bookworm", "/a.gpg /b.gpg"),
        Source("http://one.test/security", "bookworm-security"),
    ]


def test_deb822_sources_are_read() -> None:
    """Of a .sources file, each suite of an enabled stanza counts; a key in the file is kept."""
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"
    assert list(read_deb822(STANZAS)) == [
        Source("http://two.test/debian", "trixie", "/keys.gpg"),
        Source("http://two.test/debian", "trixie-updates", "/keys.gpg"),
        Source("http://two.test/security http://three.test/security", "trixie-security", key),
    ]


def test_both_formats_are_found_by_their_names(tmp_path: Path) -> None:
    """Apt's own rule: sources.list, *.list and *.sources; anything else is no source."""
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.test/ sid main\n")
    (parts / "b.list").write_text("deb http://b.test/ sid main\n")
    (parts / "c.sources").write_text("Types: deb\nURIs: http://c.test/\nSuites: sid\n")
    (parts / "d.list.disabled").write_text("deb http://d.test/ sid main\n")
    assert [each.uris for each in machine_sources(tmp_path)] == [
        "http://a.test/",
        "http://b.test/",
        "http://c.test/",
    ]


def test_another_suite_is_sought_where_the_machine_finds_its_own() -> None:
    """The wanted suite takes the place of the machine's, of -security too; updates do not count."""
    machine = [*read_deb822(STANZAS), OTHERS]
    assert (
        sources_for("bullseye", machine)
        == """\
Types: deb
URIs: http://two.test/debian
Suites: bullseye
Components: main
Architectures: amd64
Signed-By:
 /keys.gpg

Types: deb
URIs: http://two.test/security http://three.test/security
Suites: bullseye-security
Components: main
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""
    )


def test_sid_has_no_security_suite() -> None:
    """For sid the machine's -security is left out: there is none of that name."""
    assert "Suites: sid\n" in (text := sources_for("sid", read_one_line(LIST)))
    assert "security" not in text


def test_no_archive_of_debian_is_said() -> None:
    """A machine without a source of Debian gets a reason, and no kernel."""
    with pytest.raises(NoGuestError, match="no source of Debian"):
        sources_for("sid", [OTHERS, Source("http://x.test/security", "trixie-security")])


# ---- the network --------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Give a network."""
    network = Network(tmp_path)
    yield network
    network.close()


@pytest.fixture
def cards(network: Network) -> Iterator[list[socket.socket]]:
    """Give three cards on it, as qemu's ``-netdev dgram`` makes them."""
    made = []
    for _ in range(3):
        port = network.plug()
        card = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        card.bind(str(port.guest_end))
        card.connect(str(port.hub_end))
        card.settimeout(10)
        made.append(card)
    yield made
    for card in made:
        card.close()


def test_a_frame_goes_to_all_others(cards: list[socket.socket]) -> None:
    """Each frame arrives whole at every other card, in order, and never where it came from."""
    first, second, third = cards
    first.send(b"one")
    first.send(b"two")
    assert [second.recv(99), second.recv(99), third.recv(99), third.recv(99)] == [
        b"one",
        b"two",
        b"one",
        b"two",
    ]
    second.send(b"back")
    assert first.recv(99) == b"back"


def test_a_cable_that_is_out_carries_nothing(network: Network, cards: list[socket.socket]) -> None:
    """Frames from and to that guest are lost; the others get theirs."""
    first, second, third = cards
    network.ports[0].connected = False
    first.send(b"nobody gets this")
    third.send(b"nor does the first get this")
    assert second.recv(99) == b"nor does the first get this"
    network.ports[0].connected = True
    third.send(b"but this")
    assert first.recv(99) == b"but this"


def test_a_card_that_is_off_loses_its_frames(network: Network, cards: list[socket.socket]) -> None:
    """Frames for a guest without power are lost, and counted; the others get theirs."""
    first, second, third = cards
    second.close()
    first.send(b"one")
    assert third.recv(99) == b"one"
    assert [each.lost for each in network.ports] == [0, 1, 0]


# ---- the agent ----------------------------------------------------------------------------------


@pytest.fixture
def link() -> Iterator[Link]:
    """Give a link to an agent that runs its commands here."""
    ours, port = socket.socketpair()
    agent = threading.Thread(target=Agent(port.fileno()).serve)
    agent.start()
    link = Link(ours, "here")
    link.wait_pong(30)
    yield link
    link.close()
    agent.join()
    port.close()


def nobody(_line: str) -> None:
    """Show nothing."""


def test_a_command_gives_its_output_and_its_code(link: Link) -> None:
    """Standard output and error come apart, lines are shown as they come, the code is its own."""
    shown: list[str] = []
    done = link.run("echo out; printf err >&2; exit 7", shown.append).wait(30)
    assert (done.stdout, done.stderr, done.code) == ("out\n", "err", 7)
    assert sorted(shown) == ["[exit code 7: echo out; printf err >&2; exit 7]", "err", "out"]


def test_output_of_any_size_and_kind_comes_whole(link: Link) -> None:
    """Two megabytes, and bytes that are no text, lose nothing."""
    assert link.run("head -c 2000000 /dev/zero | tr '\\0' x", nobody).wait(30).stdout == (
        "x" * 2_000_000
    )
    assert link.run("printf 'a\\377b'", nobody).wait(30).stdout == "a�b"


def test_a_command_that_sleeps_holds_up_no_other(link: Link) -> None:
    """Others run beside it; it can be waited for in vain, and killed with all it started."""
    sleeper = link.run("echo begun; sleep 1000 & sleep 1000", nobody)
    sleeper.wait_for("begun", 30)
    assert link.run("true", nobody).wait(30).code == 0
    with pytest.raises(CommandTimeoutError):
        sleeper.wait(0)
    sleeper.kill()
    assert sleeper.wait(30).code == -9


def test_a_command_ends_with_its_process(link: Link) -> None:
    """What it left in the background holds its pipes, not its end."""
    done = link.run("sleep 1000 & echo $!", nobody).wait(30)
    assert done.code == 0
    assert link.run(f"kill {done.stdout}", nobody).wait(30).code == 0


def test_what_must_succeed_is_held_to_it(link: Link) -> None:
    """With ``check`` a code other than 0 raises, and so does an end without the awaited text."""
    with pytest.raises(CommandFailedError, match="exit code 3"):
        link.run("exit 3", nobody).wait(30, check=True)
    with pytest.raises(CommandFailedError, match="ended without 'ready'"):
        link.run("echo no", nobody).wait_for("ready", 30)


def test_a_socket_of_the_guest_is_reached(link: Link, tmp_path: Path) -> None:
    """Bytes pass both ways, and the end of either side is the end of both."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "served"))
        listener.listen()
        near, ours = socket.socketpair()
        link.connect(ours, str(tmp_path / "served"))
        far, _ = listener.accept()
        with near, far:
            near.settimeout(10)
            far.settimeout(10)
            near.sendall(b"x" * 1_000_000)
            got = 0
            while got < 1_000_000:
                got += len(far.recv(1 << 16))
            far.sendall(b"answer")
            assert near.recv(99) == b"answer"
            far.shutdown(socket.SHUT_RDWR)
            assert near.recv(99) == b""


def test_a_socket_that_is_not_there_is_an_end(link: Link, tmp_path: Path) -> None:
    """Who connects to what nobody serves sees the end at once."""
    near, ours = socket.socketpair()
    with near:
        near.settimeout(10)
        link.connect(ours, str(tmp_path / "nothing"))
        assert near.recv(99) == b""


@pytest.mark.parametrize(("meant", "error"), [(False, GuestDiedError), (True, NoPowerError)])
def test_the_end_of_a_guest_is_no_exit_code(meant: bool, error: type[Exception]) -> None:
    """Whoever waits when the guest goes, and who asks later, is told; a power cut was meant."""
    ours, guest = socket.socketpair()
    link = Link(ours, "nodea")
    running = link.run("sleep 1000", nobody)
    if meant:
        link.expect_loss()
    guest.close()
    with pytest.raises(error, match="nodea"):
        running.wait(30)
    with pytest.raises(error, match="nodea"):
        link.run("true", nobody).wait(30)
    link.close()


def test_a_guest_that_answers_nothing_has_died() -> None:
    """A command that is late is its own fault only while the guest's agent answers."""
    ours, guest = socket.socketpair()
    link = Link(ours, "nodea")
    with pytest.raises(GuestDiedError, match="does not answer"):
        link.ping(0)
    guest.close()
    link.close()


# ---- exit codes ---------------------------------------------------------------------------------

REPOSITORY = Path(__file__).resolve().parents[2]

TESTS = """
import pytest
from tests.vm.link import GuestDiedError

def test_died(): raise GuestDiedError("nodea has died")
def test_failed(): assert False
def test_passed(): pass
@pytest.fixture
def broken(): raise GuestDiedError("nodea has died while booting")
def test_not_booted(broken): pass
"""


@pytest.mark.parametrize(
    ("tests", "code"), [("failed or passed", 1), ("died or failed", 33), ("not_booted", 33)]
)
def test_a_dead_guest_is_no_failed_test(tmp_path: Path, tests: str, code: int) -> None:
    """A session of the cluster's tests says in its exit code when a guest died in or before one."""
    (tmp_path / "test_it.py").write_text(TESTS)
    words = ["-q", "-p", "tests.vm.cluster.conftest", "-p", "no:cacheprovider", "-k", tests]
    session = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert session.returncode == code, session.stdout.decode()


def test_a_kernel_that_there_is_not_is_no_guest() -> None:
    """A wrong command line ends with the code for: there is no guest."""
    run = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "vm" / "run", "--kernel", "9.9"],
        capture_output=True,
        check=False,
    )
    assert run.returncode == 2
