"""Recording and replaying on emulated nodes: results, differences, saved values, crashes."""

from __future__ import annotations

from typing import Any

import pytest

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import Command, LockspaceRequest
from dlm.abi.device2005 import encode_request as encode_2005
from dlm.abi.node2005 import Ioctl, NodeRequest, encode_node_request
from dlm.cli.emulated import Emulated, addresses, profile_name
from dlm.errors import StalledError
from dlm.trace import Header, Patience, Recorder, Report, Trace, TraceError, loads, record, replay
from dlm.trace.compare import same
from tests.traces.kit import CLUSTER, CR, EX, HOLE, NL, PR, F, Tape, create, lock, remove, saved

HEADER = '{"dlm_trace": 1, "kernel": "6.1", "mask": ["minor"]}\n'


def recorder(nodes: int = 1, **more: Any) -> tuple[Emulated, Recorder]:
    """Return an emulated world of some nodes, and a recorder on it."""
    emulated = Emulated(Trace(Header("6.1", nodes=nodes), ()))
    return emulated, Recorder(
        emulated.backends, Header("6.1"), machines=emulated, uevents=True, **more
    )


def again(trace: Trace) -> Report:
    """Replay a trace on a fresh emulator."""
    emulated = Emulated(trace)
    return replay(trace, emulated.backends, machines=emulated)


def changed(trace: Trace, number: int, **fields: object) -> Trace:
    """Return a trace with something else in one line."""
    lines = list(trace.lines)
    index = next(i for i, line in enumerate(lines) if line.number == number)
    operation = {**lines[index].operation, **fields}
    lines[index] = type(lines[index])(number, {k: v for k, v in operation.items() if v != "-"})
    return Trace(trace.header, tuple(lines), trace.name)


def test_what_was_recorded_is_replayed_without_a_difference() -> None:
    """A life of a lockspace with locks, events and a second process."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    fd = tape.up()
    tape.uevents(4)
    file, other = tape.file(), tape.file(process="p2")
    file.lock(b"a", EX, F.VALBLK)
    other.lock(b"a", PR)
    other.poll()
    file.convert(1, NL, F.VALBLK, value=b"v")
    file.results()
    other.results()
    tape.locks()
    tape.do("exit", process="p2")
    tape.do("exit")
    file.read()
    fd = tape.control()
    tape.down(fd)
    trace = rec.trace()
    rec.close()

    report = again(trace)

    assert report.operations == len(trace.lines) > 40
    assert report.differences == ()
    results = [line.operation.get("errno") for line in trace.lines]
    assert results.count("EBADF") == 1, "files of a process that ended are closed"


def test_a_process_that_ends_closes_its_newest_file_first_also_where_that_sleeps() -> None:
    """The oldest orphan is the lock of the file that was opened last."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.up()
    for _ in range(2):
        tape.file(process="p2").lock(b"a", CR, F.PERSISTENT)
    tape.stop()
    tape.do("exit", process="p2", async_="x")
    tape.start()
    tape.do("wait", async_="x")

    adopted = [tape.file().adopt(b"a", CR, 0) for _ in range(2)]
    rec.close()

    assert adopted == [2, 1]


CONFIGURED = (
    HEADER
    + """{"do": "mkdir", "path": "config/dlm/c", "ok": true}
{"do": "put", "path": "config/dlm/c/toss_secs", "text": "7\\n", "ret": 2}
{"do": "get", "path": "config/dlm/c/toss_secs", "text": "7\\n"}
{"do": "mode", "path": "config/dlm/c/toss_secs", "mode": "0644"}
{"do": "list", "path": "config/dlm/c/comms", "names": []}
{"do": "rmdir", "path": "config/dlm/c/comms", "errno": "EPERM"}
{"do": "open", "device": "dlm-control", "as": "c"}
{"do": "poll", "fd": "c", "events": "0045"}
{"do": "read", "fd": "c", "size": 12, "hex": "060000000000000002000000"}
{"do": "close", "fd": "c"}
"""
)


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (2, {"errno": "EEXIST", "ok": "-"}),
        (3, {"ret": 1}),
        (3, {"errno": "EINVAL", "ret": "-"}),
        (4, {"text": "8\n"}),
        (5, {"mode": "0600"}),
        (6, {"names": ["1"]}),
        (7, {"errno": "EACCES"}),
        (7, {"errno": "-", "ok": True}),
        (7, {"errno": "-"}),
        (9, {"events": "0041"}),
        (10, {"hex": "060000000000000003000000"}),
    ],
)
def test_every_kind_of_result_is_compared(number: int, fields: dict[str, object]) -> None:
    """One wrong result is one difference, at its line; the rest goes on."""
    trace = loads(CONFIGURED)
    assert again(trace).differences == ()

    report = again(changed(trace, number, **fields))

    assert [each.number for each in report.differences] == [number]
    assert report.operations == 10


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (2, {"ok": "-"}),
        (3, {"ret": "-"}),
        (5, {"mode": "644"}),
        (7, {"errno": 1}),
        (9, {"events": "45"}),
        (10, {"hex": "0600 0000 0000 0000 0200 0000"}),
        (10, {"hex": "-"}),
        (10, {"hex": None, "errno": None}),
    ],
)
def test_other_spellings_of_a_result_are_no_difference(
    number: int, fields: dict[str, object]
) -> None:
    """Values count, and what a line does not say is not asked."""
    assert again(changed(loads(CONFIGURED), number, **fields)).differences == ()


def test_a_saved_value_goes_into_later_requests_and_is_masked() -> None:
    """The minor of the replay is used in the replay, and a recorded one may differ."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.down(tape.up())
    trace = rec.trace()
    (wait, *_) = [line for line in trace.lines if line.operation["do"] == "wait"]
    assert wait.operation["ret"] == 121

    masked = again(changed(trace, wait.number, ret=57))
    strict = again(Trace(Header("6.1", mask=("pid",)), changed(trace, wait.number, ret=57).lines))

    assert masked.differences == ()
    assert [each.number for each in strict.differences] == [wait.number]
    assert strict.differences[0].about is not None
    assert strict.differences[0].about["do"] == "write"


def test_the_minor_of_a_second_lockspace_is_masked_under_its_own_name() -> None:
    """``minor`` in a mask is what a CREATE returns, whatever it is saved as; nothing else is."""
    text = HEADER + (
        '{"do": "open", "device": "dlm-control", "as": "c"}\n'
        f'{{"do": "write", "fd": "c", "hex": "{create("b").hex()}", "save": "other", "ret": 9}}\n'
        f'{{"do": "write", "fd": "c", "hex": "{remove(0).hex()}", "save": "third", "ret": 9}}\n'
    )
    trace = loads(text)

    operations = [line.operation for line in trace.lines]

    assert same(operations[1], {"ret": 121}, frozenset(["minor"]))
    assert not same(operations[1], {"ret": 121}, frozenset(["pid"]))
    assert not same(operations[2], {"ret": 121}, frozenset(["minor"]))


@pytest.mark.parametrize("spelling", ["latin-1", "utf-8"])
def test_columns_of_a_name_that_is_no_text(spelling: str) -> None:
    """A recorder had to make a text of any bytes; the columns of one say the same as the bytes."""
    got = {"hex": b'1 0 77 "\xff"\n'.hex()}
    said = bytes.fromhex(got["hex"]).decode(spelling, "replace").replace("77", "78")
    operation = {"do": "get", "path": "debug/dlm/test_locks", "text": said}

    assert same({**operation, "columns": [0, 1, 3]}, got, frozenset())
    assert not same({**operation, "columns": [0, 1, 2]}, got, frozenset())


def test_where_a_resource_lies_is_not_compared() -> None:
    """Debugfs shows a hashed pointer, or a word instead; what stands around it counts."""
    line = '\nResource {} Name (len=1) "a"\nMaster Copy\n'
    operation = {"do": "get", "path": "debug/dlm/test"}
    hashed, word = line.format("00000000989cd354"), line.format("(____ptrval____)")

    assert same({**operation, "text": hashed}, {"text": word}, frozenset())
    assert not same({**operation, "text": hashed}, {"text": word.replace("a", "b")}, frozenset())


def test_a_recorded_value_stands_in_for_one_that_did_not_come() -> None:
    """After a difference the replay goes on, so that the second difference is shown too."""
    text = HEADER + (
        '{"do": "open", "device": "dlm-control", "as": "c"}\n'
        '{"do": "write", "fd": "c", "hex": "00", "save": "minor", "ret": 5}\n'
        f'{{"do": "write", "fd": "c", "hex": "{saved(remove(HOLE), "minor")}", "ret": 0}}\n'
    )

    report = again(loads(text))

    assert [(each.number, each.got) for each in report.differences] == [
        (3, {"errno": "EINVAL"}),
        (4, {"errno": "ENOENT"}),
    ]


def test_only_the_named_columns_of_a_get_are_compared() -> None:
    """Columns leave pids and times out; lines are compared one by one."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.up()
    tape.file().lock(b"a", EX)
    tape.do("get", path="debug/dlm/test_locks", columns=[0, 7, 8])
    trace = rec.trace()
    number = trace.lines[-1].number
    text = trace.lines[-1].operation["text"]

    other_pid = again(changed(trace, number, text=text.replace("1000", "4711")))
    other_mode = again(changed(trace, number, text=text.replace(" 5 -1 ", " 4 -1 ")))

    assert other_pid.differences == ()
    assert len(other_mode.differences) == 1


@pytest.mark.parametrize("form", ["list", "pairs", "object", "with SEQNUM"])
def test_events_may_be_spelled_in_several_ways(form: str) -> None:
    """A list of KEY=value, of pairs, or an object, with another minor; a wrong key is found."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.up()
    tape.uevents(3)
    trace = rec.trace()
    last = trace.lines[-1]
    env = [each.split("=") for each in last.operation["env"]]
    assert ["MINOR", "121"] in env
    other = [[key, "57" if key == "MINOR" else value] for key, value in env]
    forms: dict[str, object] = {
        "list": [f"{key}={value}" for key, value in other],
        "pairs": other,
        "object": dict(other),
        "with SEQNUM": [*other, ["SEQNUM", "1234"]],
    }

    assert again(changed(trace, last.number, env=forms[form])).differences == ()
    wrong = again(changed(trace, last.number, env=[*other, ["NEW", "1"]]))
    assert [each.number for each in wrong.differences] == [last.number]


def test_a_recorder_may_have_listened_to_lockspaces_only() -> None:
    """Events of devices are passed over where the whole trace has none."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.down(tape.up())
    tape.uevents(6)
    trace = rec.trace()
    kept = [line for line in trace.lines if "/misc/" not in line.operation.get("header", "")]
    assert len(kept) == len(trace.lines) - 2

    assert again(trace).differences == ()
    assert again(Trace(trace.header, tuple(kept))).differences == ()


def test_a_call_that_sleeps_needs_a_name() -> None:
    """Recorded without "async" it stops the recording; in a replay it is a difference."""
    _, rec = recorder()
    tape = Tape(rec)
    tape.configure()
    tape.up()
    file = tape.file()
    tape.stop()
    with pytest.raises(StalledError):
        file.lock(b"a", EX)
    before = rec.trace()
    request = {"do": "write", "fd": file.name, "hex": lock(b"a", EX).hex(), "ret": 1}
    trace = Trace(before.header, (*before.lines, type(before.lines[0])(99, request)))

    report = again(trace)

    assert [(each.number, each.got) for each in report.differences] == [(99, {"asleep": True})]


def test_a_wait_that_takes_too_long_says_so() -> None:
    """It is still pending; that is a result like others."""
    _, rec = recorder(patience=Patience(wait=1.0))
    tape = Tape(rec)
    tape.configure()
    call = tape.begin_create(tape.control())

    assert tape.do("wait", async_=call) == {"pending": True}
    assert again(rec.trace()).differences == ()
    lied = changed(rec.trace(), rec.trace().lines[-1].number, pending="-", ret=121)
    assert len(again(lied).differences) == 1


def test_two_nodes_a_crash_and_a_boot() -> None:
    """Nodes have their own files; a crashed one boots with nothing configured."""
    _, rec = recorder(2)
    tapes = [Tape(rec, node=1, address="10.0.0.1"), Tape(rec, node=2, address="10.0.0.2")]
    for tape, other in zip(tapes, reversed(tapes), strict=True):
        tape.configure()
        tape.comm(other.number, other.address)
    controls = [tape.control() for tape in tapes]
    calls = []
    for tape, fd in zip(tapes, controls, strict=True):
        tape.mkdir(f"{CLUSTER}/spaces/test")
        tape.member("test", 1)
        tape.member("test", 2)
        calls.append(tape.begin_create(fd))
    for tape in tapes:
        tape.put("dlm/test/control", "1")
        tape.put("dlm/test/event_done", "0")
    for tape, call in zip(tapes, calls, strict=True):
        assert "ret" in tape.do("wait", async_=call)
    first, second = (tape.file() for tape in tapes)
    second.lock(b"a", EX)
    tapes[0].settle()
    first.lock(b"a", PR)
    tapes[0].settle()
    second.results()
    tapes[0].do("partition", between=[1, 2])
    tapes[0].do("heal", between=[1, 2])
    tapes[1].do("crash")
    assert tapes[1].do("get", path="dlm/test/recover_status") == {"errno": "EIO"}
    tapes[0].stop()
    tapes[0].rmdir(f"{CLUSTER}/spaces/test/nodes/2", f"{CLUSTER}/comms/2")
    tapes[0].start()
    assert first.read() != ""
    tapes[1].do("boot")
    assert tapes[1].do("list", path="dlm") == {"names": []}
    trace = rec.trace()

    assert addresses(trace) == [("10.0.0.1",), ("10.0.0.2",)]
    assert again(trace).differences == ()


def test_a_trace_needs_as_many_backends_as_it_has_nodes() -> None:
    """And machines, where a node crashes."""
    emulated = Emulated(Trace(Header(nodes=1), ()))
    two = loads('{"dlm_trace": 1, "nodes": 2}\n{"do": "crash", "node": 2}', "two")
    with pytest.raises(TraceError, match="two: is of 2 nodes, and there are 1"):
        replay(two, emulated.backends)
    one = loads('{"dlm_trace": 1}\n{"do": "crash", "node": 1}', "one")
    with pytest.raises(TraceError, match="one:2: crash, boot, partition and heal need machines"):
        record(one, emulated.backends)


def test_an_address_where_the_kernel_refused_to_listen_is_not_the_nodes() -> None:
    """A replay refuses there as well."""
    _, rec = recorder()
    tape = Tape(rec, address="10.9.9.9")
    tape.configure()
    fd = tape.control()
    tape.begin_create(fd)
    create = rec.trace().lines[-2]
    assert create.operation["do"] == "write"
    refused = changed(rec.trace(), create.number, errno="EADDRNOTAVAIL", async_="-")
    refused.lines[-2].operation.pop("async")

    assert addresses(rec.trace()) == [("10.9.9.9",)]
    assert addresses(refused) == [("10.0.0.1",)]
    assert again(refused).differences == ()


@pytest.mark.parametrize(
    ("release", "profile"),
    [
        ("6.1.0-56-amd64", "6.1"),
        ("5.10.0-46-amd64", "5.10"),
        ("6.12.90+deb13.1-amd64", "6.12"),
        ("7.2.13+deb14-amd64", "7.2"),
        ("6.6.30", "6.1"),
        ("6.18.0-rc1", "6.12"),
        ("7.2", "7.2"),
        ("8.0.1", "7.2"),
        ("4.19.0", "5.10"),
        ("unknown", "6.1"),
    ],
)
def test_the_profile_for_a_release(release: str, profile: str) -> None:
    """The newest that is not newer than the release."""
    assert profile_name(release) == profile


@pytest.mark.parametrize("abi", ["event", "members"])
def test_the_interfaces_of_2005_can_be_recorded_and_replayed(abi: str) -> None:
    """The header's dialect is emulated, and addresses come from the ioctl."""
    local = encode_node_request(NodeRequest(1, 0, encode_sockaddr("10.3.0.1"))).hex()
    create = encode_2005(LockspaceRequest(Command.CREATE_LOCKSPACE, 0, 0, b"test")).hex()
    start, answer = {"event": ("start", "finish"), "members": ("control", "event_done")}[abi]
    asked = "010000000000000009000000".ljust(2 * 276, "0")
    text = f"""{{"dlm_trace": 1, "abi": "{abi}"}}
{{"do": "open", "device": "dlm-node", "as": "n"}}
{{"do": "ioctl", "fd": "n", "request": "{Ioctl.SET_LOCAL:x}", "hex": "{local}"}}
{{"do": "ioctl", "fd": "n", "request": "c114d100", "hex": "{asked}"}}
{{"do": "open", "device": "dlm-control", "as": "c"}}
{{"do": "write", "fd": "c", "hex": "{create}", "async": "w", "save": "minor"}}
{{"do": "settle"}}
{{"do": "put", "path": "dlm/test/members", "text": "1"}}
{{"do": "put", "path": "dlm/test/{start}", "text": "1"}}
{{"do": "settle"}}
{{"do": "put", "path": "dlm/test/{answer}", "text": "{int(abi == "event")}"}}
{{"do": "wait", "async": "w"}}
{{"do": "uevent"}}
{{"do": "list", "path": "dlm/test"}}
"""
    script = loads(text)
    emulated = Emulated(script)

    trace = record(script, emulated.backends)

    assert addresses(trace) == [("10.3.0.1",)]
    version = trace.lines[2].operation
    assert (version["ret"], version["out"][:24]) == (0, "010000000000000000000000")
    assert trace.lines[-3].operation["ret"] == 61
    assert trace.lines[-2].operation == {
        "do": "uevent",
        "header": trace.lines[-2].operation["header"],
        "env": trace.lines[-2].operation["env"],
    }
    assert again(trace).differences == ()
    assert len(again(changed(trace, 4, out="00" * 276)).differences) == 1
