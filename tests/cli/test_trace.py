"""``dlm_tool trace``: what it records and replays, where, and what it says of differences."""

from __future__ import annotations

import gzip
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
        (("replay", "torn.jsonl.gz"), "torn.jsonl.gz: cannot be decompressed"),
        (("replay", "deep.jsonl"), "deep.jsonl:2: is nested too deeply"),
        (("replay", "fine.jsonl", "bad.jsonl"), 'bad.jsonl:2: unknown "do": "fly"'),
        (("replay", "fine.jsonl", "--kernel", "new"), "'new' is no release, such as 6.1"),
        (("replay", "fine.jsonl", "--kernel", "7.2", "--backend", "kernel"), "a backend is named"),
        (("record", "script.jsonl", "-o", "none/x"), "none/x: No such file or directory"),
        (("record", "script.jsonl", "-o", "."), ".: Is a directory"),
        (("record", "crash.jsonl"), "crash.jsonl:2: crash, boot, partition and heal need machines"),
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
    Path("fine.jsonl").write_text('{"dlm_trace": 1}\n{"do": "settle"}\n')
    Path("deep.jsonl").write_text('{"dlm_trace": 1}\n' + "[" * 100_000)
    Path("crash.jsonl").write_text('{"do": "settle"}\n{"do": "crash", "node": 1}\n')
    torn = bytearray(gzip.compress(Path("fine.jsonl").read_bytes() * 100, mtime=0))
    torn[len(torn) // 2] ^= 0xFF
    Path("torn.jsonl.gz").write_bytes(torn)
    shell = Shell("nodea")
    before = shell.tree()

    ran = shell.run_words(["trace", *words]) if words[0] == "record" else None
    ran = ran or tool("trace", *words)

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert shell.tree() == before


def test_what_is_recorded_before_a_recording_fails_is_written(tmp_path: Path) -> None:
    """A read that can never return ends it, exit code 3; the file has what came before."""
    script, target = tmp_path / "script.jsonl", tmp_path / "trace.jsonl"
    lines = [request_of(line.operation) for line in recorded().lines]
    opens = next(n for n, each in enumerate(lines) if each.get("device") == "dlm_test")
    lines[opens + 1 :] = [
        {"do": "open", "device": "dlm_test", "as": "s", "flags": ["rdwr"]},
        {"do": "read", "fd": "s", "size": 104},
    ]
    script.write_text("\n".join(map(json.dumps, lines)))

    ran = Shell("nodea").run_words(["trace", "record", str(script), "-o", str(target)])

    assert ran.code == 3
    assert f"note: {target} has the {len(lines) - 1} operations before" in ran.err
    assert [request_of(line.operation) for line in load(target).lines] == lines[:-1]


def test_a_trace_is_replayed_as_another_kernel(trace: Path, tmp_path: Path) -> None:
    """--kernel stands in for the header's, which is told when it names no release."""
    nameless = tmp_path / "nameless.jsonl"
    nameless.write_text(dumps(load(trace)).replace('"kernel": "6.1"', '"kernel": "mine"', 1))
    sum_up = f"{len(load(trace).lines)} operations, 0 differences\n"

    told = tool("trace", "replay", str(nameless))
    said = tool("trace", "replay", str(nameless), "--kernel", "6.1.0-13-amd64")
    other = tool("trace", "replay", str(trace), "--kernel", "7.2")

    assert told.out == f"{nameless}: 'mine' is no release, 6.1 is emulated (--kernel)\n{sum_up}"
    assert said.out == sum_up
    assert other.code == 1, "7.2 gives an id out again that 6.1 still keeps"


def test_a_difference_that_words_do_not_show_is_shown_whole(trace: Path, tmp_path: Path) -> None:
    """Results that differ in bytes without a word for them are shown as the trace has them."""
    wrong = tmp_path / "wrong.jsonl"
    text = dumps(load(trace)).splitlines()
    at = next(i for i, line in enumerate(text) if '"do": "read"' in line and '"hex"' in line)
    text[at] = text[at].replace('"hex": "06000000', '"hex": "07000000')
    wrong.write_text("\n".join(text))

    expected, got = tool("trace", "replay", str(wrong)).out.splitlines()[1:3]

    assert expected.startswith('    expected {"hex": "07000000')
    assert got.startswith('    got      {"hex": "06000000')


@pytest.mark.parametrize("verb", ["record", "replay"])
def test_where_there_is_no_dlm_there_is_no_trace(verb: str, trace: Path) -> None:
    """Neither recording nor replaying begins: exit code 4, as of every action."""
    shell = Shell("nodea")
    shell.cluster.node("nodea").unload_module()

    ran = shell.run_words(["trace", verb, str(trace)])

    assert (ran.code, ran.out) == (4, "")
    assert "this kernel has no DLM loaded" in ran.err


def test_dry_run_touches_nothing(script: Path, trace: Path) -> None:
    """A script is shown decoded, a trace only read."""
    shell = Shell("nodea")
    before = shell.tree()

    shown = shell.run_words(["trace", "record", str(script), "--dry-run"])

    assert shown.code == 0
    assert "write f3: LOCK b'a' EX VALBLK" in shown.out.splitlines()
    assert 'put dlm/test/control text "1\\n"' in shown.out.splitlines()
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
