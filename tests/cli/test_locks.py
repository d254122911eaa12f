"""The locks of the command line (design, fact 8; what of fact 2 is a lock's)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dlm.abi.debugfs import parse_all
from dlm.abi.device import LockRequest, encode_request
from dlm.cli.locks import lock
from dlm.control.aio import arun
from dlm.control.recovery import stop
from dlm.emulator.aio import run
from dlm.errors import TimedOutError
from dlm.ports import Device
from dlm.terms import LockFlag, LockMode
from tests.cli.tool import Ran, Shell


@pytest.fixture
def shell() -> Shell:
    """Two nodes with a lockspace ``test`` that runs."""
    shell = Shell("nodea", "nodeb")
    shell.start()
    return shell


@pytest.fixture
def owner(shell: Shell) -> Iterator[Device]:
    """A file of a living process on nodea."""
    process = shell.cluster.node("nodea").process()
    yield process.open_device("dlm_test")
    process.close()


def request(device: Device, name: bytes, mode: LockMode, flags: int = 0) -> int:
    """Take a lock as an application does; return its id."""
    asked = LockRequest(mode=mode, flags=flags, castaddr=1, lksb=1, name=name)
    lock_id = device.write(encode_request(asked))
    assert device.poll(10)
    device.read(104)
    return lock_id


def locks(shell: Shell, node: str = "nodea") -> dict[int, tuple[bytes, int]]:
    """Return resource and granted mode of a node's own locks, by id."""
    text = shell.tree(node)["debug/dlm/test_all"]
    return {
        entry.lock_id: (resource.name, entry.granted_mode)
        for resource in parse_all(text)
        for entry in resource.locks
        if not entry.flags & 0x10000
    }


def requests(shell: Shell, word: str) -> list[str]:
    """Return the lines of the trace in which a request of this kind reached a lockspace."""
    return [line for line in shell.cluster.trace() if f" test {word}(" in line]


def test_fact_8_a_lock_is_requested_plain_and_pinned_once_it_is_granted(shell: Shell) -> None:
    """Waiting with PERSISTENT and killed, it would be a dead entry of the orphan list."""
    shell.do("lock test foo EX noqueue,persistent")
    (asked,) = requests(shell, "Request")
    assert "flags=1," in asked
    (pinned,) = requests(shell, "Convert")
    assert "flags=132," in pinned
    assert locks(shell) == {1: (b"foo", LockMode.EX)}


def test_fact_8_a_lock_granted_in_another_mode_is_pinned_in_that(shell: Shell) -> None:
    """ALTPR: what is asked for is EX, what is given is PR."""
    shell.do("lock test foo PR", "lock test foo EX altpr")
    assert locks(shell)[2] == (b"foo", LockMode.PR)


def test_fact_8_a_killed_request_leaves_nothing(shell: Shell, owner: Device) -> None:
    """The wanted lock never was persistent, so it is gone with its process."""
    request(owner, b"foo", LockMode.EX)
    shell.run("lock test foo PR --timeout 1")
    shell.cluster.settle()
    assert locks(shell) == {1: (b"foo", LockMode.EX)}


def test_fact_8_the_wanted_orphan_of_several_is_unlocked_and_the_others_stay(
    shell: Shell,
) -> None:
    """Same name and mode: the oldest come first and are orphans again afterwards."""
    shell.do(*["lock test foo PR"] * 3)
    assert shell.run("unlock test 3") == Ran(0, "unlock: lkid 3 flags 0x0\nstatus 0x10002\n", "")
    assert locks(shell) == {1: (b"foo", LockMode.PR), 2: (b"foo", LockMode.PR)}
    shell.do("unlock test 2", "unlock test 1")
    assert locks(shell) == {}


def test_fact_8_a_converted_lock_still_outlives_the_tool(shell: Shell) -> None:
    """A conversion decides anew whether it is persistent."""
    shell.do("lock test foo EX", "convert test 1 NL", "convert test 1 PR")
    assert locks(shell) == {1: (b"foo", LockMode.PR)}


def test_fact_8_names_that_are_no_text_are_found(shell: Shell) -> None:
    """Debugfs shows them in hexadecimal."""
    shell.do("lock test 'ümläut name' EX", "unlock test 1")
    assert locks(shell) == {}


def test_fact_8_another_nodes_lock_mastered_here_is_no_lock_of_this_node(shell: Shell) -> None:
    """Its master copy has an id here too; only its owner's node may unlock it."""
    shell.do("lock test foo PR")
    shell.do("lock test foo PR", node="nodeb")
    copies = [
        entry.lock_id
        for resource in parse_all(shell.tree("nodea")["debug/dlm/test_all"])
        for entry in resource.locks
        if entry.flags & 0x10000
    ]
    masters_here = "nodea" if copies else "nodeb"
    lock_id = copies[0] if copies else 2
    ran = shell.run(f"unlock test {lock_id}", masters_here)
    assert ran.code == 1
    assert f"there is no lock {lock_id} of this node in test (ENOENT)" in ran.err


@pytest.mark.parametrize("line", ["unlock test 1", "convert test 1 PR"])
def test_fact_8_a_living_owners_lock_is_refused_naming_the_process(
    shell: Shell, owner: Device, line: str
) -> None:
    """Adopting it fails; the sentence says who has it."""
    request(owner, b"foo", LockMode.EX)
    pid = parse_all(shell.tree()["debug/dlm/test_all"])[0].locks[0].pid
    assert shell.run(line) == Ran(
        1,
        "",
        f"dlm_tool: {line}: refused, lock 1 on foo belongs to process {pid} (EBUSY); let that "
        "process do it, or use --force\n",
    )
    assert locks(shell) == {1: (b"foo", LockMode.EX)}
    assert requests(shell, "Unlock") == []


def test_fact_8_a_lock_that_waits_has_a_living_owner(shell: Shell, owner: Device) -> None:
    """Only granted locks outlive their process: nothing is adopted."""
    request(owner, b"foo", LockMode.EX)
    asked = LockRequest(mode=LockMode.PR, castaddr=1, lksb=1, name=b"foo")
    lock_id = owner.write(encode_request(asked))
    ran = shell.run(f"unlock test {lock_id}")
    assert ran.code == 1
    assert f"lock {lock_id} on foo belongs to process " in ran.err
    assert requests(shell, "Adopt") == []


def test_fact_8_forced_the_result_goes_to_the_owner(shell: Shell, owner: Device) -> None:
    """The tool does not wait for it, so it has no status to show."""
    request(owner, b"foo", LockMode.EX)
    assert shell.run("unlock test 1 --force") == Ran(0, "unlock: lkid 1 flags 0x0\n", "")
    assert owner.poll(10)
    assert locks(shell) == {}


def test_fact_8_a_forced_conversion_leaves_the_lock_its_owners(shell: Shell, owner: Device) -> None:
    """Not persistent before, it is not made so: it goes with its owner."""
    request(owner, b"foo", LockMode.EX)
    assert shell.run("convert test 1 PR --force") == Ran(0, "convert: lkid 1 flags 0x4\n", "")
    shell.cluster.settle()
    assert locks(shell) == {1: (b"foo", LockMode.PR)}
    owner.close()
    assert locks(shell) == {}


def test_fact_8_a_cancel_is_sent_without_adopting_and_without_waiting(
    shell: Shell, owner: Device
) -> None:
    """The waiting request's owner gets the result."""
    request(owner, b"foo", LockMode.EX)
    asked = LockRequest(mode=LockMode.PR, castaddr=1, lksb=1, name=b"foo")
    lock_id = owner.write(encode_request(asked))
    assert shell.run(f"unlock test {lock_id} cancel") == Ran(
        0, f"unlock: lkid {lock_id} flags 0x2\n", ""
    )
    assert owner.poll(10)
    assert requests(shell, "Adopt") == []


def test_fact_8_no_unlock_reaches_an_orphan_that_was_not_adopted(shell: Shell) -> None:
    """It would hang a 6.1 kernel for ever: each UNLOCK follows an adoption by the same file."""
    shell.do("lock test foo EX", "unlock test 1")
    lines = [line for line in shell.cluster.trace() if " Adopt(" in line or " Unlock(" in line]
    assert [line.split("(")[0].rpartition(" ")[2] for line in lines] == ["Adopt", "Unlock"]


def test_an_unlock_right_after_the_lock_waits_for_what_is_under_way(shell: Shell) -> None:
    """The close of a lock with its master elsewhere sends a cancel; until its answer: EBUSY."""
    shell.do("lock test foo PR")
    shell.do("lock test foo PR", node="nodeb")
    (lock_id,) = locks(shell, "nodeb")
    assert shell.run(f"unlock test {lock_id}", "nodeb").out.endswith("status 0x10002\n")


def test_an_unknown_lock_id_is_refused(shell: Shell) -> None:
    """The sentence says where ids are to be seen."""
    ran = shell.run("convert test 77 EX")
    assert ran.code == 1
    assert ran.err.startswith(
        "dlm_tool: convert test 77 EX: refused, there is no lock 77 of this node in test (ENOENT);"
    )


def test_a_refused_conversion_leaves_the_lock_as_it_was(shell: Shell) -> None:
    """NOQUEUE and a conflict: the old mode is kept, and the lock stays."""
    shell.do("lock test foo PR", "lock test foo PR")
    assert shell.run("convert test 1 EX noqueue") == Ran(
        1,
        "convert: lkid 1 flags 0x85\nstatus 0xb\n",
        "dlm_tool: convert test 1 EX noqueue: not converted (EAGAIN)\n",
    )
    assert locks(shell) == {1: (b"foo", LockMode.PR), 2: (b"foo", LockMode.PR)}


def test_a_conversion_that_waits_ends_at_its_timeout_in_the_old_mode(shell: Shell) -> None:
    """The conversion is cancelled by the close; the lock is an orphan again."""
    shell.do("lock test foo PR", "lock test foo PR")
    assert shell.run("convert test 1 EX --timeout 1").code == 3
    shell.cluster.settle()
    assert locks(shell) == {1: (b"foo", LockMode.PR), 2: (b"foo", LockMode.PR)}


def test_flags_that_do_not_go_together_are_the_kernels_einval(shell: Shell) -> None:
    """CANCEL is no flag of a request: nothing is left of the attempt."""
    ran = shell.run("lock test foo EX cancel")
    assert ran == Ran(
        1,
        "",
        "dlm_tool: lock test foo EX cancel: refused, write dlm_test LOCK EX CANCEL on foo: Invalid "
        "argument (EINVAL); these flags do not go together with a new request\n",
    )
    assert locks(shell) == {}


def test_fact_2_an_unlock_while_stopped_ends_at_its_timeout(shell: Shell) -> None:
    """It would sleep unkillably: it waits for the lockspace to run before it sends anything."""
    shell.do("lock test foo EX", "stop test")
    assert shell.run("unlock test 1 --timeout 1") == Ran(
        3,
        "",
        "dlm_tool: unlock test 1: timed out after 1 s waiting for lockspace test to run: it is "
        "stopped\n",
    )


def test_fact_2_a_stop_in_the_middle_of_a_lock_does_not_hold_the_tool(
    shell: Shell, owner: Device
) -> None:
    """The close of its file sleeps in the kernel until the next start; the tool is gone by then."""
    request(owner, b"foo", LockMode.EX)
    process = shell.cluster.node("nodea").process()

    async def main() -> None:
        waits = arun(lock("test", b"foo", LockMode.PR, LockFlag(0)), process, timeout=5)
        task = asyncio.create_task(waits)
        await asyncio.sleep(1)
        await arun(stop("test"), process)
        with pytest.raises(TimedOutError, match="the lock on foo to be granted"):
            await task

    run(main(), shell.cluster)
    process.close()
    assert 2 in locks(shell)
    shell.do("start test 2 0 1")
    shell.cluster.settle()
    assert locks(shell) == {1: (b"foo", LockMode.EX)}
