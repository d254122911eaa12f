"""Plans and their runners: what is written, what is said, what is left at the end."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from dlm.control import life, recovery
from dlm.control.dry import dry_run
from dlm.control.plan import (
    Ask,
    Begun,
    File,
    Note,
    OpenDevice,
    Plan,
    ReadState,
    Result,
    Submit,
    Waiting,
    WaitUntil,
    WriteState,
    locked,
    say,
)
from dlm.control.runner import Journal, Session, run
from dlm.control.state import recall
from dlm.errors import RefusedError, StalledError, TimedOutError
from dlm.ports import (
    DeviceClose,
    DeviceRead,
    MakeDirectory,
    ReadAttribute,
    RemoveDirectory,
    WriteAttribute,
)
from dlm.record import Record
from tests.unit.control.world import World

CLUSTER = "config/dlm/cluster"


class Disturbed:
    """A process whose writes to one path are refused, or which is interrupted there."""

    def __init__(self, process: object, path: str, error: BaseException) -> None:
        self._process = process
        self._path = path
        self._error = error

    def __getattr__(self, name: str) -> Any:  # Any: the process's own
        return getattr(self._process, name)

    def write_attribute(self, path: str, value: bytes) -> int:
        """Refuse the one path."""
        if path.endswith(self._path):
            raise self._error
        written: int = self._process.write_attribute(path, value)  # type: ignore[attr-defined]
        return written


def bare() -> World:
    """One node where nothing is configured."""
    world = World("nodea")
    world.crash("nodea")
    world.processes["nodea"] = world.cluster.node("nodea").process()
    return world


# ---- refusals -----------------------------------------------------------------------------------


def test_an_uncaught_refusal_names_the_operation_and_what_was_written_before() -> None:
    """File, value, errno; the writes in order."""

    def plan() -> Plan[None]:
        yield MakeDirectory(CLUSTER)
        yield WriteAttribute(f"{CLUSTER}/log_debug", b"1\n")
        yield WriteAttribute(f"{CLUSTER}/tcp_port", b"0\n")

    with pytest.raises(RefusedError) as caught:
        run(plan(), bare().processes["nodea"])
    assert caught.value.errno == errno.EINVAL
    assert caught.value.message == f"write /sys/kernel/{CLUSTER}/tcp_port 0: Invalid argument"
    assert caught.value.written == (
        f"mkdir /sys/kernel/{CLUSTER}",
        f"write /sys/kernel/{CLUSTER}/log_debug 1",
    )


def test_a_plan_may_catch_a_refusal_and_go_on() -> None:
    """It comes to the place of the operation, as an exception."""

    def plan() -> Plan[str]:
        try:
            yield ReadAttribute("dlm/nope/id")
        except RefusedError as error:
            return error.message
        return "nothing was refused"

    said = run(plan(), bare().processes["nodea"])
    assert said == "read /sys/kernel/dlm/nope/id: No such file or directory"


@pytest.mark.parametrize("path", ["control", "event_done"])
def test_a_start_that_is_refused_half_way_is_not_remembered_as_made(path: str) -> None:
    """The number can be used again, and the join still waits for its answer."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    process = world.processes["nodea"]
    disturbed = Disturbed(process, f"dlm/test/{path}", OSError(errno.EIO, "no"))
    with pytest.raises(RefusedError) as caught:
        run(recovery.start("test", 1, [1]), disturbed)  # type: ignore[arg-type]
    assert caught.value.written[-1].endswith(
        {"control": "weight 1", "event_done": "control 1"}[path]
    )
    world.cluster.settle()
    if path == "event_done":
        world.control("nodea").lockspace("test").terminate()
    else:
        world.start(1)
        assert world.control("nodea").lockspace("test").get_done() == 1


def test_what_a_killed_manager_left_half_made_is_made_whole() -> None:
    """A comm and a member that have no number yet do not stand in the way."""
    world = World("nodea")
    process = world.processes["nodea"]
    process.make_directory(f"{CLUSTER}/comms/2")
    world.control("nodea").set_node(2, "10.0.0.2")
    assert world.text("nodea", f"{CLUSTER}/comms/2/nodeid") == "2\n"
    world.control("nodea").lockspace("test").create()
    process.make_directory(f"{CLUSTER}/spaces/test")
    for name in ("1", "2"):
        process.make_directory(f"{CLUSTER}/spaces/test/nodes/{name}")
    world.start(1, "nodea")
    assert process.list_directory(f"{CLUSTER}/spaces/test/nodes") == ["1"]


def test_a_node_set_without_an_address_gets_it_by_saying_it_again() -> None:
    """set_node was stopped after the number."""
    world = World("nodea")
    process = world.processes["nodea"]
    process.make_directory(f"{CLUSTER}/comms/2")
    process.write_attribute(f"{CLUSTER}/comms/2/nodeid", b"2")
    world.control("nodea").set_node(2, "10.0.0.2")
    assert world.text("nodea", f"{CLUSTER}/comms/2/addr_list") == "AF_INET\t10.0.0.2\n"


@pytest.mark.parametrize("path", ["event_done"])
def test_an_answer_that_is_refused_can_be_given_again(path: str) -> None:
    """It was remembered before it was written, and is forgotten when it could not be."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    process = world.processes["nodea"]
    disturbed = Disturbed(process, path, OSError(errno.EIO, "no"))
    with pytest.raises(RefusedError):
        run(life.terminate("test"), disturbed)  # type: ignore[arg-type]
    world.control("nodea").lockspace("test").terminate()


# ---- waits --------------------------------------------------------------------------------------


def waits_for(condition: Callable[[], bool]) -> Plan[str]:
    """Wait for something."""

    def check() -> Plan[str | Waiting]:
        yield Ask("process_id")
        return "met" if condition() else Waiting("the moon")

    found: str = yield WaitUntil(check, "the moon is there")
    return found


def test_a_wait_looks_more_and_more_seldom_up_to_a_quarter_second() -> None:
    """10 ms at first, twice as long each time, never above 250 ms."""
    world = World("nodea")
    looks: list[float] = []

    def condition() -> bool:
        looks.append(round(world.cluster.now(), 6))
        return len(looks) == 9

    assert run(waits_for(condition), world.processes["nodea"], timeout=60) == "met"
    gaps = [round(after - before, 6) for before, after in pairwise(looks)]
    assert gaps == [0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.25, 0.25]


def test_a_timeout_is_kept_to_the_moment_and_says_what_was_waited_for() -> None:
    """The last pause is cut to what is left."""
    world = World("nodea")
    begin = world.cluster.now()
    with pytest.raises(TimedOutError) as caught:
        run(waits_for(lambda: False), world.processes["nodea"], timeout=0.333)
    assert caught.value.message == "timed out after 0.333 s waiting for the moon"
    assert caught.value.waiting == ""
    assert round(world.cluster.now() - begin, 6) == 0.333


def test_a_wait_without_end_in_a_world_where_nothing_moves_is_a_stall() -> None:
    """An emulator knows; a kernel would hang."""
    with pytest.raises(StalledError):
        run(waits_for(lambda: False), World("nodea").processes["nodea"])


def test_a_file_that_the_plan_left_open_is_closed_by_the_runner() -> None:
    """Whatever the end: else the device's lockspace could not be released."""
    world = World("nodea")
    world.start()

    def plan() -> Plan[None]:
        yield OpenDevice("dlm_test")
        raise RefusedError(errno.EINTR, "something")

    with pytest.raises(RefusedError):
        run(plan(), world.processes["nodea"])
    world.control("nodea").lockspace("test").release(timeout=1)


class Closable:
    """A pending call that, as a kernel's, cannot be asked any more once it was let go."""

    def __init__(self) -> None:
        self.closed = False

    def done(self) -> bool:
        """Never."""
        if self.closed:
            raise ValueError("the pending call is closed")
        return False

    def close(self) -> None:
        """Let go."""
        self.closed = True


def test_what_still_waits_can_be_read_after_the_run_has_let_go() -> None:
    """An interrupted caller asks the journal when everything is closed."""
    journal = Journal()
    pending = Closable()
    journal.begun.append(Begun("write dlm-control X", pending, detached=True))  # type: ignore[arg-type]
    Session(World("nodea").processes["nodea"], None, journal).close(0)
    assert pending.closed
    assert journal.asleep() == ("write dlm-control X",)


def test_notes_are_told_once() -> None:
    """A plan may say the same at each look."""
    told: list[str] = []

    def plan() -> Plan[None]:
        for _ in range(3):
            yield Note("oh")

    run(plan(), World("nodea").processes["nodea"], journal=Journal(told.append))
    assert told == ["oh"]


# ---- dry runs -----------------------------------------------------------------------------------


def test_a_dry_run_reads_for_real_and_answers_writes_with_success() -> None:
    """Reads, state and locks of the state directory alike: nothing is left behind."""
    world = World("nodea")
    said: list[str] = []

    def plan() -> Plan[tuple[bytes, int, object, object]]:
        content: bytes = yield ReadAttribute(f"{CLUSTER}/comms/1/nodeid")
        count: int = yield WriteAttribute(f"{CLUSTER}/log_debug", b"1\n")
        yield RemoveDirectory(f"{CLUSTER}/comms/1")
        yield WriteState("mine", b"content")
        state = yield from locked(lambda: read_state("mine"))
        file: File = yield OpenDevice("dlm-control")
        begun = yield Submit(DeviceRead(12), file, "READ", detached=True)
        result = yield Result(begun, "the answer")
        yield Submit(DeviceClose(), file)
        met: object = yield WaitUntil(at_once, "it is over", dry="dry")
        return content, count, (state, result), met

    backend = world.processes["nodea"]
    before = world.tree("nodea")
    answer = dry_run(plan(), backend, tell=lambda line, _record: said.append(line))
    assert answer == (b"1\n", 2, (None, 0), "dry")
    assert said == [
        f"write /sys/kernel/{CLUSTER}/log_debug 1",
        f"rmdir /sys/kernel/{CLUSTER}/comms/1",
        "write dlm-control READ",
        "wait for the answer",
        "wait until it is over",
    ]
    assert world.tree("nodea") == before
    assert backend.state_directory().read("mine") is None


def read_state(name: str) -> Plan[object]:
    """Read a file of the state directory."""
    found: object = yield ReadState(name)
    return found


def at_once() -> Plan[str]:
    """Be met at the first look, which a dry run does not take after a write."""
    return "met"
    yield


def test_a_wait_that_is_met_before_the_first_write_is_not_said() -> None:
    """It is read for real, as every read before the first write."""
    world = World("nodea")
    world.start()
    said: list[str] = []
    seen = dry_run(
        recovery.wait_running("test"),
        world.processes["nodea"],
        tell=lambda line, _record: said.append(line),
    )
    assert (seen.name, said) == ("test", [])
    world.stop()
    dry_run(
        recovery.wait_running("test"),
        world.processes["nodea"],
        tell=lambda line, _record: said.append(line),
    )
    assert said == ["wait until lockspace test runs"]


def test_a_dry_start_remembers_nothing() -> None:
    """The same start can be made for real afterwards."""
    world = World("nodea")
    world.control("nodea").lockspace("test").create()
    backend = world.processes["nodea"]
    dry_run(recovery.start("test", 1, [1]), backend, tell=lambda _line, _record: None)
    (view,) = world.control("nodea").snapshot().lockspaces
    assert (view.last_start, view.members) == (0, ())
    seen = run(recovery.find("test"), backend)
    assert run(recall(seen), backend).last_start == 0


# ---- records ------------------------------------------------------------------------------------


class Pair(Record):
    """Two fields, one with a default."""

    first: int
    second: str = "x"


class Other(Record):
    """The same fields under another name."""

    first: int
    second: str = "x"


def test_records_are_frozen_values() -> None:
    """Equal by type and fields, shown with their names, matched by position."""
    pair = Pair(1)
    assert pair == Pair(first=1, second="x")
    assert pair != Other(1)
    assert hash(pair) == hash(Pair(1, "x"))
    assert repr(pair) == "Pair(first=1, second='x')"
    assert pair.replace(second="y") == Pair(1, "y")
    match pair:
        case Pair(first, second):
            assert (first, second) == (1, "x")
    with pytest.raises(AttributeError, match="frozen"):
        pair.first = 2  # type: ignore[misc]


def test_values_are_said_as_a_person_writes_them() -> None:
    """Without the newline; what is no text is escaped."""
    assert say(WriteAttribute("dlm/test/control", b"1\n")) == (
        "write /sys/kernel/dlm/test/control 1"
    )
    assert say(WriteAttribute("x/addr", bytes(128))).endswith("x/addr " + "00" * 128)
    assert say(ReadAttribute("dlm/test/id")) == ""
