"""``dlm_tool emulator`` and ``serve``: a cluster for several shells, a backend at a stream."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import dlm
from dlm.cli.served import Claim
from dlm.errors import NoDlmError
from dlm.ports import ReadAttribute
from dlm.terms import LockFlag
from tests.cli.shells import PATIENCE, Shells
from tests.cli.test_tool import tool
from tests.contract.machine import Machine, refused
from tests.needs import missing

RECORDED = Path(__file__).parents[2] / "fixtures" / "sysfs" / "6.1" / "running"


@pytest.fixture
def shells() -> Iterator[Shells]:
    """A place for a cluster, which is not there yet."""
    shells = Shells()
    yield shells
    shells.close()


def test_up_status_crash_restart_down(shells: Shells) -> None:
    """What each says; DIR is 0700; after down nobody is there, and exit codes say so."""
    up = shells.tool("emulator up --nodes nodea=10.0.0.1,fd00::1,nodeb=10.0.0.2 DIR")
    assert (up.code, up.err) == (0, "")
    assert up.out == (
        f"2 nodes, pid {shells.pid()}; to use one:\n"
        "export DLM_BACKEND=emulator:DIR/nodea\nexport DLM_BACKEND=emulator:DIR/nodeb\n"
    )
    assert stat.S_IMODE(shells.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in shells.directory.iterdir()} == {0o600}
    status = f"pid {shells.pid()}, abi configfs, kernel 6.1\nnodea  {{}}  10.0.0.1,fd00::1\n"
    assert shells.tool("emulator status DIR").out.startswith(status.format("up  "))
    assert shells.tool("emulator crash nodea DIR").code == 0
    assert shells.tool("emulator status DIR").out.startswith(status.format("down"))
    assert shells.on("nodea", "ls").err == (
        "dlm_tool: ls: nodea is down; let it boot: dlm_tool emulator restart nodea DIR\n"
    )
    again = shells.tool("emulator crash nodea DIR")
    assert (again.code, again.err) == (
        1,
        "dlm_tool: emulator crash nodea DIR: refused, nodea: it is down already (EALREADY)\n",
    )
    assert shells.tool("emulator restart nodea DIR").code == 0
    assert shells.on("nodea", "ls").code == 0
    assert shells.tool("emulator restart nodeq DIR").code == 1
    assert shells.tool("emulator down DIR").code == 0
    assert shells.tool("emulator down DIR").code == 4
    assert shells.on("nodea", "ls").code == 4


def test_a_crash_ends_what_waits_on_the_node(shells: Shells) -> None:
    """A call that sleeps and a wait for results: both with EIO; other nodes do not notice."""
    shells.up("--speed 10")
    backend, other = (dlm.connect(f"emulator:{shells.directory}/{n}") for n in ("nodea", "nodeb"))
    Machine(backend, "10.0.0.1").bring_up("test")
    joining = Machine(backend).submit_create("more")
    file = backend.open_device("dlm_test")
    descriptor = file.fileno()
    assert shells.tool("emulator crash nodea DIR").code == 0
    assert select.select([descriptor], [], [], PATIENCE)[0]
    for call in (lambda: file.poll(None), joining.result, lambda: backend.list_directory("dlm")):
        with refused(errno.EIO):
            call()
    assert other.list_directory("dlm") == []
    backend.close()
    other.close()


def test_a_strict_cluster_crashes_the_node(shells: Shells) -> None:
    """UNLOCK of an orphan that nobody adopted is EIO; the node is down, and the log says why."""
    shells.up("--strict --kernel 7.2")
    backend = dlm.connect(f"emulator:{shells.directory}/nodea")
    machine = Machine(backend, "10.0.0.1")
    lockspace = machine.bring_up("test")
    owner = lockspace.open()
    orphan = owner.lock(b"a", 5, LockFlag.PERSISTENT)
    owner.close()
    file = lockspace.open()

    with refused(errno.EIO):
        file.unlock(orphan)

    assert "nodea  down" in shells.tool("emulator status DIR").out
    assert "nodeb  up" in shells.tool("emulator status DIR").out
    log = (shells.directory / "log").read_text()
    assert "strict: crash of nodea: UNLOCK of a lock whose file is closed" in log
    backend.close()


def test_a_second_up_is_refused_while_the_first_one_lives(shells: Shells) -> None:
    """And changes nothing; after a kill the next one cleans what is left and says so."""
    shells.up()
    pid = shells.pid()
    second = shells.tool("emulator up --nodes nodea=10.0.0.1 DIR")
    assert (second.code, second.out) == (1, "")
    assert second.err.endswith(f"a cluster runs there already (pid {pid}): DIR (EBUSY)\n")
    assert shells.on("nodec", "ls").code == 0

    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    _wait_for(process)
    status = shells.tool("emulator status DIR")
    assert (status.code, f"pid {pid} was killed" in status.err) == (4, True)
    third = shells.tool("emulator up --nodes nodea=10.0.0.1 DIR --json")
    data = json.loads(third.out)
    assert (data["cleaned"], data["pid"], third.code) == (pid, shells.pid(), 0)
    assert shells.on("nodea", "ls").code == 0
    assert not (shells.directory / "nodec.sock").exists()


def test_an_up_while_another_one_starts_is_refused(shells: Shells) -> None:
    """The directory is claimed before there is a process id to name."""
    shells.directory.mkdir(mode=0o700)
    claim = Claim(str(shells.directory))
    assert claim.take()
    ran = shells.tool("emulator up --nodes nodea=10.0.0.1 DIR")
    claim.close()
    assert ran.code == 1
    assert ran.err.endswith("a cluster is being started there: DIR (EBUSY)\n")


def test_a_cluster_that_cannot_be_looked_at_is_not_said_to_be_absent(shells: Shells) -> None:
    """As another user's, whose directory is 0700; a loop of links is refused to root, too."""
    shells.directory.mkdir(mode=0o700)
    assert "no cluster runs in DIR;" in shells.tool("emulator status DIR").err
    (shells.directory / "pid").symlink_to("pid")
    ran = shells.tool("emulator status DIR")
    assert (ran.code, "no cluster of yours runs in DIR;" in ran.err) == (4, True)


def test_a_directory_of_another_user_is_left_alone(shells: Shells) -> None:
    """To root, too, who is not told to be root."""
    if os.geteuid() != 0:
        missing("no rights to give a directory away", "be root")
    shells.directory.mkdir(mode=0o700)
    os.chown(shells.directory, 65534, 65534)
    ran = shells.tool("emulator up --nodes nodea=10.0.0.1 DIR")
    assert ran.code == 4
    advice = "be that user, or name another directory"
    assert ran.err.endswith(f"it belongs to another user (EPERM); {advice}\n")
    assert not list(shells.directory.iterdir())


def _wait_for(process: int) -> None:
    assert select.select([process], [], [], PATIENCE)[0]
    os.close(process)


def test_each_node_has_a_state_of_its_own_that_a_crash_empties(shells: Shells) -> None:
    """The start that is known on one node is not on another, nor after a restart."""
    shells.up("--speed 10")
    for node, number in (("nodea", 1), ("nodeb", 2)):
        assert shells.on(node, f"set_local {number} 10.0.0.{number}").code == 0
        assert shells.on(node, "create test").code == 0
    assert shells.on("nodea", "start test 5 0 1").code == 0
    assert shells.on("nodea", "poll_done test 5 --timeout 30").out == "done event_nr 5\n"
    assert shells.on("nodeb", "get_done test").out == "done event_nr 0\n"
    shells.tool("emulator crash nodea DIR")
    shells.tool("emulator restart nodea DIR")
    assert shells.on("nodea", "set_local 1 10.0.0.1").code == 0
    assert shells.on("nodea", "create test").code == 0
    assert shells.on("nodea", "get_done test").out == "done event_nr 0\n"


def test_a_directory_with_other_files_is_left_alone(shells: Shells) -> None:
    """Its mode too: it is nobody's cluster."""
    shells.directory.mkdir(mode=0o755)
    (shells.directory / "letter").touch()
    up = shells.tool("emulator up --nodes nodea=10.0.0.1 DIR")
    assert (up.code, up.err) == (
        1,
        "dlm_tool: emulator up DIR: refused, DIR: it holds files that are no cluster's (EEXIST)\n",
    )
    assert stat.S_IMODE(shells.directory.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("emulator up /x", "say which nodes: --nodes"),
        ("emulator up --nodes 10.0.0.1 /x", "'10.0.0.1' has no name"),
        ("emulator up --nodes a=10.0.0.1,a=10.0.0.2 /x", "node 'a' comes twice"),
        ("emulator up --nodes ../a=10.0.0.1 /x", "'../a' can be no node's name"),
        ("emulator up --nodes a=b /x", "'b'"),
        ("emulator up --nodes a=10.0.0.1,b=10.0.0.1 /x", "belongs to both a and b"),
        ("emulator up --nodes a=10.0.0.1 --abi lvm /x", "'lvm'"),
        ("emulator up --nodes a=10.0.0.1 --kernel 2.4 /x", "unknown kernel '2.4'"),
        ("emulator up --nodes a=10.0.0.1 --speed 0 /x", "speed '0' is no number above 0"),
        ("emulator crash /x", "usage: dlm_tool emulator crash <node> <dir>"),
        ("emulator status a /x", "usage: dlm_tool emulator status <dir>"),
        ("emulator explode /x", "'explode' is none of: up, down, status, crash, restart"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_made(line: str, sentence: str) -> None:
    """Exit code 2."""
    ran = tool(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert sentence in ran.err
    assert not Path("/x").exists()


def test_up_says_what_it_would_do(shells: Shells) -> None:
    """--dry-run makes nothing."""
    ran = shells.tool("emulator up --nodes a=10.0.0.1 DIR --dry-run")
    assert ran.out == "mkdir DIR\nserve DIR/a\n"
    assert not shells.directory.exists()


def test_a_directory_may_have_a_name_longer_than_a_sockets(shells: Shells) -> None:
    """The whole way through: sockets are made and found by their directory's descriptor."""
    shells.directory = shells.parent / ("d" * 150)
    shells.up()
    assert shells.on("nodea", "set_local 1 10.0.0.1").code == 0
    assert shells.tool("emulator crash nodea DIR").code == 0


@pytest.mark.parametrize(("abi", "kernel"), [("configfs", "7.2"), ("event", ""), ("members", "")])
def test_a_cluster_speaks_the_dialect_that_was_asked_for(
    shells: Shells, abi: str, kernel: str
) -> None:
    """Its nodes have the devices of that kernel, and status says which it is."""
    shells.up(f"--abi {abi}", *(f"--kernel {kernel}" for _ in kernel[:1]))
    assert f"abi {abi}, kernel {kernel}" in shells.tool("emulator status DIR").out
    backend = dlm.connect(f"emulator:{shells.directory}/nodea")
    try:
        assert ("dlm-node" in backend.misc_devices()) == (abi != "configfs")
    finally:
        backend.close()


def test_connect_gives_the_node(shells: Shells) -> None:
    """dlm.connect and the tool take the same spec."""
    shells.up()
    spec = f"emulator:{shells.directory}/nodeb"
    backend = dlm.connect(spec)
    assert backend.describe() == spec
    assert backend.local_addresses()[0] == "10.0.0.2"
    backend.close()
    with pytest.raises(NoDlmError, match="nobody serves"):
        dlm.connect(f"emulator:{shells.directory}/nodex")


# ---- serve --------------------------------------------------------------------------------------


@contextmanager
def serving(path: Path, spec: str) -> Iterator[subprocess.Popen[str]]:
    """Serve a backend at a socket until the end of the block; it must end well."""
    with subprocess.Popen(
        [sys.executable, "-m", "dlm", "serve", str(path), "--backend", spec],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == f"serving {spec} at {path}\n"
            yield server
        finally:
            server.terminate()
        assert server.wait(PATIENCE) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""
    assert not path.exists()


def test_serve_exports_a_backend_at_a_socket(shells: Shells) -> None:
    """Here a recorded tree; errnos and file names come as they were.

    Each connection has a process of its own, which ends with it.
    """
    path, spec = shells.parent / "own" / "socket", f"kernel:root={RECORDED}"
    with serving(path, spec) as server:
        ran = shells.tool("get_done test", backend=f"remote:{path}")
        assert (ran.code, ran.out) == (0, "done event_nr 0\n")
        backend = dlm.connect(f"remote:{path}")
        pid = backend.process_id()
        assert pid not in {server.pid, os.getpid()}
        with pytest.raises(FileNotFoundError) as caught:
            backend.read_attribute("dlm/none/control")
        assert caught.value.filename == f"{RECORDED}/sys/kernel/dlm/none/control"
        pending = backend.submit(ReadAttribute("dlm/test/id"))
        assert pending.result() == (RECORDED / "sys/kernel/dlm/test/id").read_bytes()
        pending.close()
        process = os.pidfd_open(pid)
        backend.close()
        _wait_for(process)
        left = dlm.connect(f"remote:{path}")
    with suppress(OSError):
        left.close()
    assert shells.tool("ls", backend=f"remote:{path}").code == 4


def test_serve_carries_on_what_is_served_already(shells: Shells) -> None:
    """A node of a served cluster at another socket: the way to a process is two streams long."""
    shells.up("--speed 10")
    path, spec = shells.parent / "own" / "socket", f"emulator:{shells.directory}/nodea"
    with serving(path, spec):
        for line in ("set_local 1 10.0.0.1", "create test", "start test 1 0 1"):
            assert shells.tool(line, backend=f"remote:{path}").code == 0
        assert shells.on("nodea", "poll_done test 1 --timeout 30").code == 0
        ran = shells.tool("lock test foo EX", backend=f"remote:{path}")
        assert ran.out == "lock: mode 0x5 flags 0x80 name foo\nstatus 0x0 id 1\n"
