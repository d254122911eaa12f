"""dlm_tool on the kernels of 2005: output, locks, raw actions, bad input, the demo."""

from __future__ import annotations

import json
import re

import pytest

from dlm.abi.device import LockRequest
from dlm.abi.device2005 import RESULT_SIZE_MAX, decode_result, encode_request
from dlm.terms import EUNLOCK, LockMode
from tests.cli.test_tool import tool
from tests.cli.tool import Ran, Shell

ABIS = ("event", "members")
SILENT = Ran(0, "", "")
TEST = "/sys/kernel/dlm/test"


def running(abi: str, *names: str) -> Shell:
    """Return nodes with a lockspace ``test`` that runs."""
    shell = Shell(*names or ("nodea",), abi=abi)
    shell.start()
    for name in shell.names:
        shell.do("finish test 1", node=name)
    shell.cluster.settle()
    return shell


def take(shell: Shell, line: str, node: str = "nodea") -> int:
    """Take a lock that is granted; return its id."""
    ran = shell.run(line, node)
    match = re.fullmatch(r"lock: mode 0x\d flags 0x8\d name \S+\nstatus 0x0 id (\d+)\n", ran.out)
    assert match is not None, ran
    assert (ran.code, ran.err) == (0, "")
    return int(match[1])


def locks(shell: Shell, node: str = "nodea") -> list[str]:
    """Return the id and mode of each lock that a node shows."""
    text = shell.tree(node)["debug/dlm/test"]
    return [
        " ".join(line.split()[:2]) for line in text.splitlines() if re.match("[0-9a-f]{8}", line)
    ]


def requests(shell: Shell, word: str) -> list[str]:
    """Return the lines of the trace in which a request of this kind reached a lockspace."""
    return [line for line in shell.cluster.trace() if f" test {word}(" in line]


# ---- the usage document -------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
def test_the_demo_shows_the_18_steps_in_each_dialect(abi: str) -> None:
    """The same commands with the same results as on mainline."""
    ran = tool("demo", "--abi", abi)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("\nAll 18 steps showed what they must.\n")
    assert _commands(ran.out) == _commands(tool("demo").out)


def _commands(text: str) -> list[str]:
    """Return the command lines of a demo, ids of locks left out: each kernel has its own."""
    lines = [line for line in text.splitlines() if "> dlm_tool " in line]
    return [re.sub(r"(unlock|convert) test \d+", r"\1 test ID", line) for line in lines]


@pytest.mark.parametrize("abi", ABIS)
def test_a_lockspaces_whole_life_is_silent_but_for_get_done(abi: str) -> None:
    """As on mainline."""
    shell = Shell("nodea", abi=abi)
    shell.set_up()
    assert shell.run("create test") == SILENT
    assert shell.run("set_id test 5") == SILENT
    assert shell.run("get_done test") == Ran(0, "done event_nr 0\n", "")
    assert shell.run("start test 1 0 1") == SILENT
    assert shell.run("poll_done test 1") == Ran(0, "done event_nr 1\n", "")
    assert shell.run("finish test 1") == SILENT
    assert shell.run("stop test") == SILENT
    assert shell.run("get_done test") == Ran(0, "done event_nr 1\n", "")
    assert shell.run("start test 2 0 1") == SILENT
    assert shell.run("poll_done test 2") == Ran(0, "done event_nr 2\n", "")
    assert shell.run("finish test 2") == SILENT
    assert shell.run("release test") == SILENT
    assert shell.run("ls") == SILENT


# ---- locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
def test_a_lock_is_requested_plain_pinned_converted_and_unlocked_by_its_id(abi: str) -> None:
    """Nothing is adopted: ORPHAN is never sent."""
    shell = running(abi)
    lock = take(shell, "lock test foo PR")
    assert locks(shell) == [f"{lock:08x} PR"]
    assert shell.run(f"convert test {lock} EX") == Ran(
        0, f"convert: lkid {lock} flags 0x84\nstatus 0x0\n", ""
    )
    assert locks(shell) == [f"{lock:08x} EX"]
    assert shell.run(f"unlock test {lock}") == Ran(
        0, f"unlock: lkid {lock} flags 0x0\nstatus 0x10002\n", ""
    )
    assert locks(shell) == []
    (asked,) = requests(shell, "Request")
    assert "flags=0," in asked
    own = [line for line in requests(shell, "Convert") if f"lock_id={lock}" in line]
    assert ["flags=132," in line for line in own] == [True, True]


@pytest.mark.parametrize("abi", ABIS)
def test_a_lock_of_another_node_turns_a_request_down(abi: str) -> None:
    """Across the cluster, with NOQUEUE; nothing of the refused request stays."""
    shell = running(abi, "nodea", "nodeb")
    take(shell, "lock test foo EX", "nodeb")
    ran = shell.run("lock test foo PR noqueue")
    assert (ran.code, ran.out.split("\n")[1][:10]) == (1, "status 0xb")
    assert ran.err == "dlm_tool: lock test foo PR noqueue: not granted (EAGAIN)\n"
    ran = shell.run("lock test foo PR --timeout 1")
    assert ran.code == 3
    shell.cluster.settle()
    assert [line for line in locks(shell) if not line.endswith("EX")] == []


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("flag", ["ALTCW", "FORCEUNLOCK"])
@pytest.mark.parametrize("line", ["lock test foo EX", "unlock test 65793", "convert test 65793 PR"])
def test_what_the_device_has_not_is_refused_before_any_write(
    abi: str, flag: str, line: str
) -> None:
    """The request has 16 bits for flags."""
    shell = running(abi)
    before = shell.tree()
    ran = shell.run(f"{line} {flag.lower()}")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith(f"refused, not supported by this kernel: {flag} (ENOTSUP)\n")
    assert shell.tree() == before
    assert requests(shell, "Request") == []


@pytest.mark.parametrize("abi", ABIS)
def test_an_unknown_lock_is_the_kernels_refusal(abi: str) -> None:
    """EBADSLT where no lock can have the id, ENOENT where none has it."""
    shell = running(abi)
    assert shell.run("unlock test 5000") == Ran(
        1,
        "",
        "dlm_tool: unlock test 5000: refused, write dlm_test UNLOCK lkid 5000: Invalid slot "
        "(EBADSLT); there is no such lock of this node\n",
    )
    assert "(ENOENT); there is no such lock" in shell.run("convert test 65793 PR").err


@pytest.mark.parametrize("abi", ABIS)
def test_a_living_owners_lock_is_dropped_by_force_and_its_result_is_the_owners(abi: str) -> None:
    """Nothing tells who owns a lock: with --force the result is not waited for."""
    shell = running(abi)
    owner = shell.cluster.node("nodea").process()
    device = owner.open_device("dlm_test")
    request = LockRequest(mode=LockMode.EX, castaddr=7, lksb=7, name=b"foo")
    lock = device.write(encode_request(request))
    assert device.poll(10)
    device.read(RESULT_SIZE_MAX)
    ran = shell.run(f"unlock test {lock} --force")
    assert ran == Ran(0, f"unlock: lkid {lock} flags 0x0\n", "")
    assert device.poll(10)
    result = decode_result(device.read(RESULT_SIZE_MAX))
    assert (result.status, result.astaddr) == (-EUNLOCK, 7)
    owner.close()


# ---- July's raw actions -------------------------------------------------------------------------


def test_the_raw_actions_of_july_bring_a_lockspace_up() -> None:
    """One write each, in the order that the daemon of the time used."""
    shell = Shell("nodea", abi="members")
    shell.set_up()
    shell.do("create test")
    for line in ("members test 1", "control test 1", "event_done test 0"):
        assert shell.run(line) == SILENT
    shell.cluster.settle()
    assert "running" in shell.run("ls test").out
    assert shell.run("control test 0") == SILENT
    assert "stopped" in shell.run("ls test").out


def test_the_raw_actions_are_dry_run_as_one_write() -> None:
    """Without a newline, in each of them."""
    shell = running("members")
    for line, written in (
        ("control test 0", f"write {TEST}/control 0\n"),
        ("event_done test -125", f"write {TEST}/event_done -125\n"),
        ("members test 3 1 2", f"write {TEST}/members 3 1 2\n"),
    ):
        assert shell.run(f"{line} --dry-run") == Ran(0, written, "")
    ran = shell.run("members test 1 2 --dry-run --json")
    assert json.loads(ran.out)["dry_run"] == [
        {"do": "put", "path": "dlm/test/members", "text": "1 2"}
    ]


def test_a_raw_write_that_the_kernel_refuses_says_why() -> None:
    """A second list of members; a control word that is none."""
    shell = running("members")
    shell.do("control test 0", "members test 1")
    ran = shell.run("members test 1 2")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "dlm_tool: members test: refused, write /sys/kernel/dlm/test/members 1 2: Invalid argument "
        "(EINVAL); a list of members waits: only a start that succeeds takes it\n"
    )
    assert "(EINVAL); 0 stops, 1 starts" in shell.run("control test 2").err


@pytest.mark.parametrize("abi", ["configfs", "event"])
@pytest.mark.parametrize("line", ["control test 0", "event_done test 0", "members test 1"])
def test_the_raw_actions_are_refused_elsewhere(abi: str, line: str) -> None:
    """Configfs has files of the same names, with state of ours behind them: use the verbs."""
    shell = running(abi)
    before = shell.tree()
    ran = shell.run(line)
    action = line.split(maxsplit=1)[0]
    assert (ran.code, ran.out) == (1, "")
    assert (
        f"not supported by this kernel: the action {action} is for the DLM of July 2005" in ran.err
    )
    assert ran.err.endswith("(ENOTSUP)\n")
    assert shell.tree() == before


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("control test", "too few arguments"),
        ("control test x", "value 'x' is no number"),
        ("control test 1 2", "too many arguments"),
        ("event_done test", "too few arguments"),
        ("members test", "too few arguments"),
        ("members test 0", "node id 0 is not a positive integer"),
        ("members test 1 x", "node id 'x' is no number"),
        ("control a/b 1", "lockspace name 'a/b' is no file name"),
    ],
)
def test_bad_input_of_the_raw_actions_is_exit_code_2(line: str, sentence: str) -> None:
    """Known before anything is looked at."""
    ran = running("members").run(line)
    assert (ran.code, sentence in ran.err) == (2, True), ran


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("start test 2 0 1", "lockspace test runs (EINVAL)"),
        ("start nope 1 0 1", "there is no lockspace nope on this node (ENOENT)"),
        ("finish test 2", "event 2 is not the last start 1 (EINVAL)"),
        ("create test", "it is there already, and this kernel counts no users"),
        ("terminate test", "nothing shows that it leaves (EINVAL)"),
        ("set_local 2 10.0.0.1", "this node is node 1 already (EEXIST)"),
        ("set_node 9 10.0.0.9,10.0.1.9", "this kernel keeps one address of a node, not 2 (ENOSPC)"),
    ],
)
def test_what_the_state_forbids_is_exit_code_1_and_writes_nothing(
    abi: str, line: str, sentence: str
) -> None:
    """The sentence has the errno's name, and is one line."""
    shell = running(abi)
    before = shell.tree()
    ran = shell.run(line)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1), ran
    assert sentence in ran.err
    assert shell.tree() == before


@pytest.mark.parametrize("abi", ABIS)
@pytest.mark.parametrize("line", ["set_local 1 10.0.0.5", "set_node 2 10.0.0.2", "stop test"])
def test_without_rights_the_exit_code_is_4_and_says_be_root(abi: str, line: str) -> None:
    """As on mainline."""
    ran = running(abi).run(line, privileged=False)
    assert (ran.code, ran.err.endswith("; be root\n")) == (4, True), ran


@pytest.mark.parametrize("abi", ABIS)
def test_without_the_module_there_is_no_dlm(abi: str) -> None:
    """Nothing tells then that it would be one of 2005."""
    shell = Shell("nodea", abi=abi)
    shell.cluster.node("nodea").unload_module()
    for line in ("create test", "ls", "set_node 2 10.0.0.2"):
        ran = shell.run(line)
        assert (ran.code, "no DLM loaded" in ran.err) == (4, True), ran
