"""What bad input gets: a clear sentence, a truthful exit code, nothing written."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from dlm.cli.main import main
from tests.cli.tool import Ran, Shell

LONG = "l" * 65

USAGE = [
    # node ids that are not positive integers
    ("set_local 0 10.0.0.1", "node id 0 is not a positive integer"),
    ("set_local -1 10.0.0.1", "node id -1 is not a positive integer"),
    ("set_node x 10.0.0.1", "node id 'x' is no number"),
    ("set_node 1.5 10.0.0.1", "node id '1.5' is no number"),
    ("set_node 2147483648 10.0.0.1", "node id 2147483648 is not a positive integer up to 214748"),
    ("set_node ٣ 10.0.0.1", "node id '٣' is no number"),
    ("start test 2 0 1 -2", "node id -2 is not a positive integer"),
    ("start test 2 0 1 1", "node 1 is named twice among the members"),
    ("start test 2 0 1 --rejoined 2", "node 2 cannot have rejoined: it is not among the members"),
    ("start test 2 0 1 --rejoined x", "node id 'x' is no number"),
    # addresses that are neither IPv4 nor IPv6
    ("set_local 1 10.0.0", "'10.0.0' is neither an IPv4 nor an IPv6 address"),
    ("set_local 1 nodea", "'nodea' is neither an IPv4 nor an IPv6 address"),
    ("set_node 2 10.0.0.2/24", "'10.0.0.2/24' is neither an IPv4 nor an IPv6 address"),
    ("set_node 2 10.0.0.2,", "'' is neither an IPv4 nor an IPv6 address"),
    ("set_node 2 fe80::1%lo", "'fe80::1%lo' is neither an IPv4 nor an IPv6 address"),
    # negative weights
    ("set_local 1 10.0.0.1 -1", "weight -1 is not an integer of at least 0"),
    ("set_node 2 10.0.0.2 heavy", "weight 'heavy' is no number"),
    # lockspace names
    ("create ''", "a lockspace name may not be empty"),
    (f"create {LONG}", "has 65 bytes, more than 64"),
    (f"create {'ü' * 33}", "has 66 bytes, more than 64"),
    ("create a/b", "lockspace name 'a/b' is no file name"),
    ("create .", "lockspace name '.' is no file name"),
    ("stop ..", "lockspace name '..' is no file name"),
    # event numbers, starts without members
    ("start test 0 0 1", "event number 0 is not a positive integer"),
    ("start test two 0 1", "event number 'two' is no number"),
    ("start test 2 0", "too few arguments; usage: dlm_tool start <ls_name> <event_nr> <type> <no"),
    ("start test 2 none 1", "type 'none' is no number"),
    ("finish test -1", "event number -1 is not a positive integer"),
    # ids
    ("set_id test -1", "lockspace id -1 is not an integer of at least 0"),
    ("set_id test 4294967296", "lockspace id 4294967296 is not an integer of at least 0 up to"),
    ("unlock test 0", "lock id 0 is not a positive integer"),
    ("convert test x EX", "lock id 'x' is no number"),
    # modes, flags, resource names
    ("lock test foo", "too few arguments; usage: dlm_tool lock <ls_name> <res_name> <mode>"),
    ("lock test foo E", "mode 'E' is none of: NL CR CW PR PW EX"),
    ("convert test 1 shared", "mode 'shared' is none of: NL CR CW PR PW EX"),
    ("lock test foo EX noqueue,wait", "flag 'wait' is none of: NOQUEUE CANCEL VALBLK"),
    ("lock test foo EX convert", "flag 'convert' is none of:"),
    (f"lock test {LONG} EX", "has 65 bytes, more than 64"),
    # the command line itself
    ("bogus", "unknown action 'bogus'; dlm_tool alone lists them"),
    ("stop", "too few arguments; usage: dlm_tool stop <ls_name>"),
    ("stop test now", "too many arguments; usage: dlm_tool stop <ls_name>"),
    ("stop test --now", "unknown option --now"),
    ("stop test --timeout", "argument --timeout: expected one argument"),
    ("stop test --timeout soon", "timeout 'soon' is no number of seconds"),
    ("stop test --timeout -1", "timeout '-1' is no number of seconds"),
    ("stop test --timeout nan", "timeout 'nan' is no number of seconds"),
    ("--json", "no action; dlm_tool alone lists them"),
    ("demo --abi april", "abi 'april' is none of: configfs event members"),
]

REFUSED = [
    ("start test 1 0 1", "refused, lockspace test runs (EINVAL); stop it first: dlm_tool stop"),
    ("finish test 2", "refused, event 2 is not the last start 1 (EINVAL)"),
    ("terminate test", "refused, lockspace test is running: nothing waits there (EINVAL)"),
    ("stop nope", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("start nope 1 0 1", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("release nope", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("get_done nope", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("poll_done nope 1", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("set_id nope 1", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("ls nope", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("lock nope foo EX", "refused, there is no lockspace nope on this node (ENOENT)"),
    ("unlock test 99", "refused, there is no lock 99 of this node in test (ENOENT)"),
    ("set_id test 9", "refused, lockspace test is running (EBUSY); stop it first"),
    ("set_local 2 10.0.0.1", "refused, this node is node 1 already (EEXIST)"),
]


@pytest.mark.parametrize(("line", "sentence"), USAGE, ids=[line for line, _ in USAGE])
def test_what_cannot_be_meant_is_exit_code_2(line: str, sentence: str) -> None:
    """Known before anything is looked at: also where there is no DLM at all."""
    shell = Shell("nodea")
    shell.cluster.node("nodea").unload_module()
    ran = shell.run(line)
    assert (ran.code, sentence in ran.err) == (2, True), ran
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("dlm_tool: ")


@pytest.mark.parametrize(("line", "sentence"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_the_state_forbids_is_exit_code_1_and_writes_nothing(line: str, sentence: str) -> None:
    """The sentence has the errno's name, and is one line."""
    shell = Shell("nodea")
    shell.start()
    before = shell.tree()
    ran = shell.run(line)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1), ran
    assert ran.err.startswith(f"dlm_tool: {' '.join(line.split()[:2])}")
    assert sentence in ran.err
    assert shell.tree() == before


def test_a_start_not_above_the_last_says_so_in_the_words_of_the_design() -> None:
    """What was tried, on what, why, the errno."""
    shell = Shell("nodea")
    shell.start(5)
    shell.do("stop test")
    before = shell.tree()
    assert shell.run("start test 3 0 1") == Ran(
        1,
        "",
        "dlm_tool: start test 3: refused, event 3 is not above the last start 5 (EINVAL)\n",
    )
    assert shell.tree() == before


def test_a_lockspace_that_dlm_controld_controls_is_left_alone() -> None:
    """Exit code 1, whoever it is named; --force goes on."""
    shell = Shell("nodea")
    shell.start()
    shell.cluster.node("nodea").controller = "dlm_controld"
    before = shell.tree()
    for line in ("stop test", "start test 2 0 1", "set_node 2 10.0.0.2", "release test"):
        ran = shell.run(line)
        assert ran.code == 1
        assert ran.err.endswith(
            ": refused, dlm_controld controls the DLM of this node (EBUSY); use its own tools, or "
            "--force\n"
        )
    assert shell.tree() == before
    shell.do("stop test --force")


# ---- no DLM here --------------------------------------------------------------------------------

ACTIONS = [
    "set_local 1 10.0.0.1",
    "set_node 1 10.0.0.1",
    "stop test",
    "terminate test",
    "start test 1 0 1",
    "get_done test",
    "finish test 1",
    "poll_done test 1",
    "set_id test 1",
    "create test",
    "release test",
    "lock test foo EX",
    "unlock test 1",
    "convert test 1 EX",
    "ls",
]


def without_module(shell: Shell) -> None:
    """Unload the module."""
    shell.cluster.node("nodea").unload_module()


def without_configfs(shell: Shell) -> None:
    """Unmount configfs."""
    shell.cluster.node("nodea").unmount_configfs()


@pytest.mark.parametrize("line", ACTIONS)
@pytest.mark.parametrize(
    ("take_away", "sentence"),
    [
        (without_module, "this kernel has no DLM loaded; load the module (modprobe dlm) or start"),
        (
            without_configfs,
            "the DLM is loaded, but configfs is not mounted; mount it: mount -t configfs none",
        ),
    ],
)
def test_without_a_dlm_the_exit_code_is_4_and_says_what_to_do(
    line: str, take_away: Callable[[Shell], None], sentence: str
) -> None:
    """The two are told apart by looking."""
    shell = Shell("nodea")
    take_away(shell)
    ran = shell.run(line)
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1), ran
    assert sentence in ran.err


@pytest.mark.parametrize(
    "line",
    ["set_node 2 10.0.0.2", "stop test", "set_id test 0", "release test", "create more"],
)
def test_without_rights_the_exit_code_is_4_and_says_be_root(line: str) -> None:
    """An ordinary user may look, not write."""
    shell = Shell("nodea")
    shell.start()
    before = shell.tree()
    ran = shell.run(line, privileged=False)
    assert (ran.code, ran.out) == (4, ""), ran
    assert "(EACCES)" in ran.err
    assert ran.err.endswith("be root\n")
    assert shell.tree() == before


def test_without_rights_one_may_still_look() -> None:
    """get_done and ls read what everybody may read."""
    shell = Shell("nodea")
    shell.start()
    assert shell.run("get_done test", privileged=False) == Ran(0, "done event_nr 1\n", "")
    assert shell.run("ls", privileged=False).code == 0


def test_without_rights_a_join_shows_as_one() -> None:
    """Debugfs, which tells a leave from a join, is root's alone."""
    shell = Shell("nodea")
    shell.set_up()
    shell.do("create test")
    assert "joining" in shell.run("ls", privileged=False).out


def test_a_cluster_that_nobody_serves_is_no_dlm() -> None:
    """The sentence says how to start one; a spec that means nothing is a usage error."""
    err = io.StringIO()
    code = main(["--backend", "emulator:somewhere/nodea", "ls"], stdout=io.StringIO(), stderr=err)
    assert code == 4
    assert err.getvalue() == (
        "dlm_tool: ls: nobody serves emulator:somewhere/nodea; start one: "
        "dlm_tool emulator up --nodes nodea=ADDRESS,... somewhere\n"
    )
    err = io.StringIO()
    assert main(["ls", "--backend", "cluster"], stdout=io.StringIO(), stderr=err) == 2
    assert "backend 'cluster' is none of: kernel | kernel:root=DIR" in err.getvalue()


def test_a_plan_that_fails_half_way_says_what_was_written() -> None:
    """Four addresses are one too many for this kernel."""
    ran = Shell("nodea").run("set_node 2 10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5")
    comm = "/sys/kernel/config/dlm/cluster/comms/2"
    assert ran == Ran(
        1,
        "",
        f"dlm_tool: set_node 2 10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5: refused, write {comm}/addr "
        "10.0.0.5: No space left on device (ENOSPC); already written: mkdir "
        f"/sys/kernel/config/dlm/cluster, mkdir {comm}, write {comm}/nodeid 2, write {comm}/addr "
        f"10.0.0.2, write {comm}/addr 10.0.0.3, write {comm}/addr 10.0.0.4; these are more "
        "addresses than this kernel takes\n",
    )
