"""``dlm_tool trace``: what it records and replays, where, and what it says of differences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.cli.emulated import Emulated
from dlm.trace import Header, Recorder, Trace, dump, dumps, load
from dlm.trace.format import request_of
from tests.cli.shells import Shells
from tests.cli.test_tool import tool
from tests.cli.tool import Shell
from tests.traces.kit import EX, PR, F, Tape


def lockspace_with_locks(tape: Tape) -> None:
    """Bring a lockspace up, lock, take it down."""
    tape.configure()
    fd = tape.up()
    file = tape.file()
    file.lock(b"a", EX, F.VALBLK)
    file.lock(b"a", PR, F.NOQUEUE)
    file.results()
    tape.locks()
    file.close()
    tape.down(fd)


def recorded(address: str = "127.0.0.1") -> Trace:
    """Return a trace of an emulated 6.1."""
    emulated = Emulated(Trace(Header(nodes=1), ()))
    recorder = Recorder(emulated.backends, Header("6.1"))
    lockspace_with_locks(Tape(recorder, address=address))
    return recorder.trace()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script without a header, as somebody might write it."""
    path = tmp_path / "script.jsonl"
    lines = (json.dumps(request_of(line.operation)) for line in recorded().lines)
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A recorded trace."""
    path = tmp_path / "trace.jsonl.gz"
    dump(recorded(), path)
    return path


@pytest.fixture
def shells() -> Iterator[Shells]:
    """A place for a cluster, which is not there yet."""
    shells = Shells()
    yield shells
    shells.close()


def spoiled(path: Path, target: Path) -> int:
    """Write a trace with a wrong status in the second completion; return the line's number."""
    text = dumps(load(path)).splitlines()
    reads = [i for i, line in enumerate(text) if '"do": "read"' in line and '"hex"' in line]
    assert "f5ffffff" in text[reads[1]]
    text[reads[1]] = text[reads[1]].replace("f5ffffff", "00000000")
    target.write_text("\n".join(text) + "\n")
    return reads[1] + 1


def test_a_script_is_recorded_and_the_trace_replayed(script: Path, tmp_path: Path) -> None:
    """To a file, compressed by its name, or to stdout; the replay is equal, exit code 0."""
    target = tmp_path / "trace.jsonl.gz"
    shell, other = Shell("nodea"), Shell("nodea")

    ran = shell.run_words(["trace", "record", str(script), "-o", str(target), "--kernel", "6.1"])
    shown = other.run_words(["trace", "record", str(script), "--kernel", "6.1"])

    count = len(load(target).lines)
    assert (ran.code, ran.err, ran.out) == (0, "", f"{target}: {count} operations\n")
    assert (shown.code, shown.out) == (0, dumps(load(target)))
    assert load(target).header == Header("6.1")
    replayed = tool("trace", "replay", str(target))
    assert (replayed.code, replayed.out, replayed.err) == (
        0,
        f"{count} operations, 0 differences\n",
        "",
    )


def test_a_difference_is_shown_decoded_and_is_exit_code_1(trace: Path, tmp_path: Path) -> None:
    """File, line, operation, what was expected, what came; then the next file, then the sum."""
    wrong = tmp_path / "wrong.jsonl"
    number = spoiled(trace, wrong)
    count = len(load(trace).lines)

    ran = tool("trace", "replay", str(wrong), str(trace))

    assert (ran.code, ran.err) == (1, "")
    cast = "ast 0x1000(0x1001) lksb 0x3000 72 bytes"
    assert ran.out == (
        f"{wrong}:{number}: read fd f3 size 104\n"
        f"    expected CAST lock 2 status 0 {cast}\n"
        f"    got      CAST lock 2 status -EAGAIN {cast}\n"
        f"{wrong}: {count} operations, 1 differences\n"
        f"{trace}: {count} operations, 0 differences\n"
        f"{2 * count} operations, 1 differences\n"
    )


def test_texts_are_shown_from_the_first_line_that_differs(trace: Path, tmp_path: Path) -> None:
    """Only the columns that count; a line that is missing is said to be."""
    wrong = tmp_path / "wrong.jsonl"
    text = dumps(load(trace))
    (line,) = [line for line in text.splitlines() if "debug/dlm/test_locks" in line]
    entry = " 2 5 -1 "
    assert line.count(entry) == 1
    wrong.write_text(text.replace(line, line.replace(entry, " 3 5 0 ")))

    ran = tool("trace", "replay", str(wrong))

    assert ran.code == 1
    assert ran.out.splitlines()[1:3] == [
        '    expected line 2: 1 0 0 0 8 1 3 5 0 0 1 "a"',
        '    got      line 2: 1 0 0 0 8 1 2 5 -1 0 1 "a"',
    ]


def test_json(trace: Path, tmp_path: Path) -> None:
    """One object with every difference of every file."""
    wrong = tmp_path / "wrong.jsonl"
    number = spoiled(trace, wrong)

    data = json.loads(tool("trace", "replay", str(wrong), "--json").out)

    assert (data["action"], data["exit"], data["differences"]) == ("trace", 1, 1)
    (difference,) = data["files"][0]["differences"]
    assert difference["line"] == number
    assert difference["expected"].keys() == difference["got"].keys() == {"hex"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("replay", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("replay", "bad.jsonl"), 'bad.jsonl:2: unknown "do": "fly"'),
        (("replay", "script.jsonl"), "script.jsonl:1: the first line is no header"),
        (("record", "a", "b"), "usage: dlm_tool trace record <script> [-o FILE]"),
        (("record", "two.jsonl"), "2 nodes need --backends"),
        (("replay", "two.jsonl", "-o", "x"), "-o belongs to record"),
        (("play", "two.jsonl"), "'play' is none of: record, replay"),
        (("replay",), "too few arguments"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(
    words: tuple[str, ...], said: str, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malformed files and command lines; nothing was done."""
    monkeypatch.chdir(script.parent)
    Path("bad.jsonl").write_text('{"dlm_trace": 1}\n{"do": "fly"}\n')
    Path("two.jsonl").write_text('{"dlm_trace": 1, "nodes": 2}\n{"do": "settle"}\n')

    ran = Shell("nodea").run_words(["trace", *words]) if words[0] == "record" else None
    ran = ran or tool("trace", *words)

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_dry_run_touches_nothing(script: Path, trace: Path) -> None:
    """A script is shown decoded, a trace only read."""
    shell = Shell("nodea")
    before = shell.tree()

    shown = shell.run_words(["trace", "record", str(script), "--dry-run"])

    assert shown.code == 0
    assert "write f3: LOCK b'a' EX VALBLK" in shown.out.splitlines()
    assert shell.tree() == before
    count = len(load(trace).lines)
    read = tool("trace", "replay", str(trace), "--dry-run")
    assert (read.code, read.out) == (0, f"{count} operations, not replayed\n")


def test_on_a_served_cluster_and_through_remote(
    shells: Shells, script: Path, tmp_path: Path
) -> None:
    """A node of a served cluster is recorded, replayed at a desk, and again through its socket."""
    target = tmp_path / "trace.jsonl"
    up = "emulator up --nodes nodea=127.0.0.1,nodeb=10.0.0.2 --kernel 7.2 --speed 100 DIR"
    assert shells.tool(up).code == 0

    ran = shells.on("nodea", f"trace record {script} -o {target}")

    assert (ran.code, ran.err) == (0, "")
    trace = load(target)
    assert trace.header.kernel == "7.2"
    assert tool("trace", "replay", str(target)).code == 0
    shells.tool("emulator crash nodea DIR")
    shells.tool("emulator restart nodea DIR")
    again = shells.tool(f"trace replay {target} --backend remote:{shells.directory}/nodea.sock")
    assert (again.code, again.err) == (0, "")
    assert again.out == f"{len(trace.lines)} operations, 0 differences\n"


def test_two_nodes_have_a_backend_each(shells: Shells, tmp_path: Path) -> None:
    """--backends names them in order; the trace is of two nodes, and is replayed on two."""
    script, target = tmp_path / "two.jsonl", tmp_path / "trace.jsonl"
    script.write_text(
        '{"dlm_trace": 1, "nodes": 2}\n'
        '{"do": "mkdir", "path": "config/dlm/one", "node": 1}\n'
        '{"do": "mkdir", "path": "config/dlm/two", "node": 2}\n'
        '{"do": "list", "path": "config/dlm", "node": 2}\n'
    )
    assert shells.tool("emulator up --nodes nodea=10.0.0.1,nodeb=10.0.0.2 DIR").code == 0
    both = ",".join(f"emulator:{shells.directory}/{name}" for name in ("nodea", "nodeb"))

    ran = shells.tool(f"trace record {script} -o {target} --backends {both}")

    assert (ran.code, ran.err) == (0, "")
    assert load(target).lines[2].operation["names"] == ["two"]
    assert tool("trace", "replay", str(target)).code == 0
    again = shells.tool(f"trace replay {target} --backends {both}")
    assert again.code == 1, "the directories are there"
