"""Every action's output and exit code, to the letter."""

from __future__ import annotations

import json

import pytest

from tests.cli.tool import Ran, Shell

SILENT = Ran(0, "", "")


@pytest.fixture
def alone() -> Shell:
    """One node that was told who it is."""
    shell = Shell("nodea")
    shell.set_up()
    return shell


@pytest.fixture
def running() -> Shell:
    """One node with a lockspace ``test`` that runs."""
    shell = Shell("nodea")
    shell.start()
    return shell


@pytest.fixture
def pair() -> Shell:
    """Two nodes with a lockspace ``test`` that runs on both."""
    shell = Shell("nodea", "nodeb")
    shell.start()
    return shell


# ---- nodes --------------------------------------------------------------------------------------


def test_set_local_and_set_node_are_silent() -> None:
    """Success says nothing, also the second time."""
    shell = Shell("nodea", "nodeb")
    for _ in range(2):
        assert shell.run("set_local 1 10.0.0.1") == SILENT
        assert shell.run("set_node 2 10.0.0.2 3") == SILENT


def test_set_node_takes_ipv6_and_several_addresses() -> None:
    """What the tool of 2005 made 0.0.0.0 of is an address here."""
    shell = Shell("nodea")
    assert shell.run("set_node 2 fd00::2,10.0.0.2") == SILENT
    shown = shell.tree()["config/dlm/cluster/comms/2/addr_list"]
    assert shown == "AF_INET6\tfd00:0000:0000:0000:0000:0000:0000:0002\nAF_INET\t10.0.0.2\n"


def test_set_local_notes_a_strange_address() -> None:
    """It is done all the same: the address may come up later."""
    ran = Shell("nodea").run("set_local 1 10.9.9.9")
    assert ran == Ran(
        0,
        "",
        "dlm_tool: set_local 1 10.9.9.9: note: no interface of this node has the address "
        "10.9.9.9\n",
    )


# ---- a lockspace's life -------------------------------------------------------------------------


def test_a_lockspaces_whole_life_is_silent_but_for_get_done(alone: Shell) -> None:
    """The usage document's steps on one node."""
    assert alone.run("create test") == SILENT
    assert alone.run("set_id test 5") == SILENT
    assert alone.run("get_done test") == Ran(0, "done event_nr 0\n", "")
    assert alone.run("start test 1 0 1") == SILENT
    alone.cluster.settle()
    assert alone.run("get_done test") == Ran(0, "done event_nr 1\n", "")
    assert alone.run("finish test 1") == SILENT
    assert alone.run("stop test") == SILENT
    assert alone.run("get_done test") == Ran(0, "done event_nr 1\n", "")
    assert alone.run("start test 2 0 1") == SILENT
    assert alone.run("poll_done test 2") == Ran(0, "done event_nr 2\n", "")
    assert alone.run("release test") == SILENT
    assert alone.run("ls") == SILENT


def test_terminate_ends_a_create(alone: Shell) -> None:
    """The lockspace is gone; the tool that waits for it would say ECANCELED."""
    alone.do("create test")
    assert alone.run("terminate test") == SILENT
    alone.cluster.settle()
    assert alone.run("ls") == SILENT


def test_terminate_lets_a_release_go_on(running: Shell) -> None:
    """With --no-answer the leave waits for it."""
    assert running.run("release test --no-answer") == SILENT
    assert "leaving" in running.run("ls test").out
    assert running.run("terminate test") == SILENT
    running.cluster.settle()
    assert running.run("ls") == SILENT


def test_create_without_a_local_node_says_what_to_do_first() -> None:
    """As on a node that was restarted."""
    assert Shell("nodea").run("create test") == Ran(
        1,
        "",
        "dlm_tool: create test: refused, no node was set as this one (ENOTCONN); first say which "
        "node this is (dlm_tool set_local <nodeid> <ipaddr>) and where every node is (dlm_tool "
        "set_node ...); a node that was restarted has lost both\n",
    )


def test_create_wait_ends_at_its_timeout(alone: Shell) -> None:
    """Exit code 3, and what goes on without the tool."""
    assert alone.run("create test --wait --timeout 2.5") == Ran(
        3,
        "",
        "dlm_tool: create test: timed out after 2.5 s waiting for the join of test to end; still "
        "waiting in the kernel: write dlm-control CREATE_LOCKSPACE test\n",
    )


def test_create_behind_another_join_names_it(alone: Shell) -> None:
    """At once on stderr, and again when the time is over."""
    alone.do("create first")
    assert alone.run("create second --timeout 1") == Ran(
        3,
        "",
        "dlm_tool: create second: note: create second waits for lockspace first, which is "
        "joining, to get out of the way\n"
        "dlm_tool: create second: timed out after 1 s waiting for lockspace first, which is "
        "joining, to get out of the way; still waiting in the kernel: write dlm-control "
        "CREATE_LOCKSPACE second\n",
    )


def test_poll_done_ends_at_its_timeout() -> None:
    """It says which start it misses, or that the recovery is not over."""
    shell = Shell("nodea", "nodeb")
    shell.set_up()
    shell.do("create test")
    early = shell.run("poll_done test 1 --timeout 1")
    assert early.code == 3
    assert "start 1 of test: the last one made here is 0" in early.err
    shell.do("start test 1 0 1 2")
    late = shell.run("poll_done test 1 --timeout 1")
    assert late.code == 3
    assert "the recovery of test (recover_status 0)" in late.err


# ---- locks --------------------------------------------------------------------------------------


def test_lock_unlock_and_convert_show_the_lines_of_2005(running: Shell) -> None:
    """A lock outlives the tool, and is found again by its id."""
    lock = running.run("lock test foo EX")
    assert lock == Ran(0, "lock: mode 0x5 flags 0x80 name foo\nstatus 0x0 id 1\n", "")
    convert = running.run("convert test 1 PR")
    assert convert == Ran(0, "convert: lkid 1 flags 0x84\nstatus 0x0\n", "")
    unlock = running.run("unlock test 1")
    assert unlock == Ran(0, "unlock: lkid 1 flags 0x0\nstatus 0x10002\n", "")


def test_modes_and_flags_are_read_as_the_tool_of_2005_did(running: Shell) -> None:
    """Two letters of a mode, any case, an empty flag ends the list."""
    ran = running.run("lock test foo preview noqueue,NoOrder,,never")
    assert ran == Ran(0, "lock: mode 0x3 flags 0x2081 name foo\nstatus 0x0 id 1\n", "")
    assert running.run("lock test foo exclusive NOQUEUE").code == 1


def test_a_lock_that_is_not_granted_is_exit_code_1(running: Shell) -> None:
    """The lines are those of 2005; the exit code tells the truth."""
    running.do("lock test foo EX")
    assert running.run("lock test foo PR NOQUEUE") == Ran(
        1,
        "lock: mode 0x3 flags 0x81 name foo\nstatus 0xb id 2\n",
        "dlm_tool: lock test foo PR NOQUEUE: not granted (EAGAIN)\n",
    )


def test_a_lock_that_waits_ends_at_its_timeout_and_is_gone(running: Shell) -> None:
    """Nothing of the request is left: it was not yet pinned."""
    running.do("lock test foo EX")
    before = running.tree()["debug/dlm/test_all"]
    assert running.run("lock test foo PR --timeout 3") == Ran(
        3,
        "",
        "dlm_tool: lock test foo PR: timed out after 3 s waiting for the lock on foo to be "
        "granted\n",
    )
    running.cluster.settle()
    assert running.tree()["debug/dlm/test_all"] == before


def test_lock_on_a_stopped_lockspace_waits_for_it_to_run(running: Shell) -> None:
    """The request would sleep unkillably: it is not even sent."""
    running.do("stop test")
    assert running.run("lock test foo EX --timeout 1") == Ran(
        3,
        "",
        "dlm_tool: lock test foo EX: timed out after 1 s waiting for lockspace test to run: it is "
        "stopped\n",
    )


# ---- ls -----------------------------------------------------------------------------------------


def test_ls_shows_what_waits(pair: Shell) -> None:
    """Id, members, state, starts, who controls, what is waited for."""
    pair.do("stop test", "set_id test 5", "create more")
    assert pair.run("ls").out.splitlines() == [
        "lockspace  id  members  state    start  done  controlled by  waits for",
        "more       0   -        joining  0      0     -              start",
        "test       5   1 2      stopped  1      1     -              start",
    ]
    pair.cluster.node("nodea").controller = "dlm_controld"
    assert pair.run("ls test").out.splitlines()[1:] == [
        "test       5   1 2      stopped  1      1     dlm_controld   start"
    ]


def test_ls_of_nothing_is_silent(alone: Shell) -> None:
    """As ls(1) of an empty directory."""
    assert alone.run("ls") == SILENT


# ---- options ------------------------------------------------------------------------------------


def test_dry_run_of_a_start_lists_the_exact_writes_and_makes_none() -> None:
    """In their order; the state directory is untouched too: the start can be made afterwards."""
    shell = Shell("nodea", "nodeb", "nodec")
    shell.start()
    shell.do("stop test", node="nodeb")
    before = shell.tree("nodeb")
    ran = shell.run("start test 2 0 2 3 --dry-run", "nodeb")
    assert ran == Ran(
        0,
        "rmdir /sys/kernel/config/dlm/cluster/spaces/test/nodes/1\n"
        "write /sys/kernel/dlm/test/control 1\n",
        "",
    )
    assert shell.tree("nodeb") == before
    shell.do("start test 2 0 2 3", node="nodeb")
    assert "1" not in shell.tree("nodeb")["config/dlm/cluster/spaces/test/nodes"].split()


def test_dry_run_shows_addresses_devices_and_waits() -> None:
    """An address is said as an address, a request to a device in words."""
    shell = Shell("nodea")
    comm = "/sys/kernel/config/dlm/cluster/comms/1"
    assert shell.run("set_local 1 10.0.0.1 --dry-run").out.splitlines() == [
        "mkdir /sys/kernel/config/dlm/cluster",
        f"mkdir {comm}",
        f"write {comm}/nodeid 1",
        f"write {comm}/addr 10.0.0.1",
        f"write {comm}/local 1",
    ]
    shell.set_up()
    assert shell.run("create test --wait --dry-run").out.splitlines() == [
        "write dlm-control CREATE_LOCKSPACE test",
        "wait until /sys/kernel/dlm/test is there",
        "wait for the join of test to end",
    ]


def test_dry_run_of_a_release_and_of_locks(running: Shell) -> None:
    """The answer to the leave is among the writes; a lock is pinned only once it is granted."""
    running.do("lock test foo EX")
    before = running.tree()
    assert running.run("release test --dry-run").out.splitlines() == [
        "write dlm-control REMOVE_LOCKSPACE test FORCEFREE",
        "wait until test leaves",
        "write /sys/kernel/dlm/test/event_done 0",
        "wait for every open file on dlm_test to be closed, and other nodes to let go",
    ]
    assert running.run("lock test bar PR --dry-run").out.splitlines() == [
        "write dlm_test LOCK PR on bar",
        "wait for the lock on bar to be granted",
        "write dlm_test LOCK PR CONVERT PERSISTENT lkid ?",
        "wait for the lock on bar to be pinned",
    ]
    assert running.run("unlock test 1 --dry-run").out.splitlines() == [
        "write dlm_test LOCK EX PERSISTENT ORPHAN on foo",
        "write dlm_test UNLOCK lkid 1",
        "wait for lock 1 to end",
    ]
    assert running.tree() == before


def test_dry_run_refuses_what_a_run_would_refuse(running: Shell) -> None:
    """Its checks are the same plan's."""
    assert running.run("start test 2 0 1 --dry-run").code == 1


def test_json_is_one_object_with_the_result(running: Shell) -> None:
    """Of a success, of what was found, of a dry run."""
    assert json.loads(running.run("get_done test --json").out) == {
        "action": "get_done",
        "exit": 0,
        "lockspace": "test",
        "done": 1,
    }
    assert json.loads(running.run("stop test --json").out) == {"action": "stop", "exit": 0}
    assert json.loads(running.run("start test 2 0 1 --json --dry-run").out) == {
        "action": "start",
        "exit": 0,
        "dry_run": [{"do": "put", "path": "dlm/test/control", "text": "1\n"}],
    }
    (view,) = json.loads(running.run("ls --json").out)["lockspaces"]
    assert view["state"] == "stopped"
    assert view["members"] == [{"nodeid": 1, "weight": 1}]


def test_json_of_a_failure_has_the_errno_and_stderr_its_sentence(running: Shell) -> None:
    """A script reads one, a person the other."""
    ran = running.run("--json start test 1 0 1")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "action": "start",
        "exit": 1,
        "error": "refused, lockspace test runs (EINVAL); stop it first: dlm_tool stop",
        "errno": "EINVAL",
    }
    assert ran.err == (
        "dlm_tool: start test 1: refused, lockspace test runs (EINVAL); stop it first: dlm_tool "
        "stop\n"
    )


def test_json_of_a_lock_has_mode_status_and_id(running: Shell) -> None:
    """Also of one that was not granted."""
    running.do("lock test foo EX")
    ran = running.run("lock test foo EX NOQUEUE --json")
    assert json.loads(ran.out) == {
        "action": "lock",
        "exit": 1,
        "errno": "EAGAIN",
        "error": "not granted (EAGAIN)",
        "lkid": 2,
        "flags": 0x81,
        "status": 11,
        "mode": "EX",
    }


def test_rejoined_makes_the_node_anew() -> None:
    """A node that was back before anybody missed it."""
    shell = Shell("nodea", "nodeb")
    shell.start()
    shell.do("stop test")
    shown = shell.run("start test 2 0 1 2 --rejoined 2 --dry-run").out.splitlines()
    assert [line.split("/")[-1] for line in shown if "comms" in line] == [
        "2",
        "2",
        "nodeid 2",
        "addr 10.0.0.2",
    ]


def test_debug_shows_a_traceback_and_nothing_else_does(running: Shell) -> None:
    """The sentence comes last either way."""
    plain = running.run("finish test 2")
    assert plain == Ran(
        1, "", "dlm_tool: finish test 2: refused, event 2 is not the last start 1 (EINVAL)\n"
    )
    loud = running.run("finish test 2 --debug")
    assert loud.err.startswith("Traceback")
    assert loud.err.endswith(plain.err)


def test_options_may_stand_anywhere(running: Shell) -> None:
    """Before the action, between its arguments, after them, with or without an equals sign."""
    for line in (
        "--timeout 5 poll_done test 1",
        "poll_done --timeout 5 test 1",
        "poll_done test --timeout=5 1",
        "poll_done test 1 --timeout 5",
    ):
        assert running.run(line) == Ran(0, "done event_nr 1\n", "")
