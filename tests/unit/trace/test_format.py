"""The text of a trace: what it may hold, and what is said of a line that is malformed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from dlm.trace import Header, TraceError, dump, dumps, load, loads

HEADER = '{"dlm_trace": 1, "kernel": "6.1.0-56-amd64", "abi": "configfs", "nodes": 1}'

EVERYTHING = r"""
{"dlm_trace": 1, "kernel": "6.1.0-56-amd64", "nodes": 2, "comment": "all", "mask": ["minor", "pid"]}

{"do": "mkdir", "path": "config/dlm/cluster", "ok": true}
{"do": "put", "path": "a/b", "text": "1\n", "ret": 2}
{"do": "put", "path": "a/b", "hex": "02 00", "async": "w0"}
{"do": "get", "path": "a/b", "text": "ff\n", "columns": [0, 2]}
{"do": "get", "path": "a/b", "hex": "ff"}
{"do": "list", "path": "a", "names": []}
{"do": "mode", "path": "a", "mode": "0200"}
{"do": "rmdir", "path": "a", "errno": "ENOTEMPTY"}
{"do": "open", "device": "dlm-control", "as": "c", "flags": ["rdwr", "NONBLOCK"], "process": "p1"}
{"do": "write", "fd": "c", "hex": "0600", "async": "w1", "save": "minor"}
{"do": "pending", "async": "w1", "pending": true}
{"do": "wait", "async": "w1", "ret": 121}
{"do": "write", "fd": "c", "hex": "06${minor:u32}${pid:s64}", "errno": 22}
{"do": "read", "fd": "c", "size": 12, "hex": "06"}
{"do": "poll", "fd": "c", "events": "0041"}
{"do": "ioctl", "fd": "c", "request": "c114d101", "hex": "00", "ret": 0}
{"do": "close", "fd": "c"}
{"do": "exit", "process": "p1", "async": "x"}
{"do": "uevent", "header": "add@/kernel/dlm/test", "env": {"ACTION": "add"}, "node": 2}
{"do": "settle"}
{"do": "crash", "node": 2, "ok": true}
{"do": "boot", "node": 2}
{"do": "partition", "between": [1, 2]}
{"do": "heal", "between": [1, 2], "of a later version": [1]}
"""


def test_everything_that_a_trace_may_hold() -> None:
    """Every operation and key of the format can be read, and numbers of lines are the file's."""
    trace = loads(EVERYTHING)

    assert trace.header == Header("6.1.0-56-amd64", "configfs", 2, "all", ("minor", "pid"))
    assert (trace.lines[0].number, len(trace.lines)) == (4, 24)
    assert trace.lines[-1].operation["of a later version"] == [1]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"path": "a"}', 'no "do"'),
        ('{"do": 7}', '"do" is 7, not a text'),
        ('{"do": "mkdri", "path": "a"}', 'unknown "do": "mkdri"'),
        ('{"do": "mkdir"}', 'mkdir needs "path"'),
        ('{"do": "mkdir", "path": 7}', '"path" is 7, not a text'),
        ('{"do": "put", "path": "a"}', 'put needs "text" or "hex", one of them'),
        ('{"do": "put", "path": "a", "text": "1", "hex": "31"}', "one of them"),
        ('{"do": "put", "path": "a", "hex": "0g"}', "not bytes in hexadecimal"),
        ('{"do": "put", "path": "a", "hex": "012"}', "not bytes in hexadecimal"),
        ('{"do": "put", "path": "a", "hex": "${x}"}', "not bytes in hexadecimal"),
        ('{"do": "put", "path": "a", "hex": "${x:u32}"}', 'no operation before has "save": "x"'),
        ('{"do": "open", "device": "d"}', 'open needs "as"'),
        ('{"do": "open", "device": "d", "as": "d", "flags": "rdwr"}', "a list of rdonly"),
        ('{"do": "open", "device": "d", "as": "d", "flags": ["rw"]}', "a list of rdonly"),
        ('{"do": "read", "fd": "none", "size": 12}', 'no file was opened as "none"'),
        ('{"do": "open", "device": "d", "as": "d", "node": 2}', "the header says 1 nodes"),
        ('{"do": "mkdir", "path": "a", "node": 0}', "not a positive number"),
        ('{"do": "mkdir", "path": "a", "async": "w"}', 'mkdir cannot be "async"'),
        ('{"do": "wait", "async": "w"}', 'no operation before has "async": "w"'),
        ('{"do": "mkdir", "path": "a", "errno": "EWHAT"}', "the name of an errno"),
        ('{"do": "get", "path": "a", "columns": "0,1"}', "a list of numbers"),
        ('{"do": "mode", "path": "a", "mode": "0999"}', "a mode in octal"),
        ('{"do": "crash"}', 'crash needs "node"'),
    ],
)
def test_a_malformed_line_is_named_with_what_is_wrong(line: str, complaint: str) -> None:
    """The message begins with the file and the number of the line."""
    with pytest.raises(TraceError) as caught:
        loads(f"{HEADER}\n\n{line}\n", "x.jsonl")

    assert str(caught.value).startswith("x.jsonl:3: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"do": "settle"}', 'x.jsonl:1: the first line is no header: it has no "dlm_trace"'),
        ('{"dlm_trace": 2}', 'x.jsonl:1: "dlm_trace" is 2: only 1 can be read'),
        ('{"dlm_trace": 1, "nodes": 0}', 'x.jsonl:1: "nodes" is 0, not a positive number'),
        ('{"dlm_trace": 1, "nodes": "1"}', 'x.jsonl:1: "nodes" is "1", not a number'),
        ('{"dlm_trace": 1, "abi": "ioctl"}', 'x.jsonl:1: "abi" is "ioctl", none of: configfs'),
        ('{"dlm_trace": 1, "mask": [1]}', 'x.jsonl:1: "mask" is no list of texts'),
        ("", "x.jsonl: is empty: there is no header"),
    ],
)
def test_a_malformed_header(line: str, complaint: str) -> None:
    """A file that is no trace is said to be none."""
    with pytest.raises(TraceError) as caught:
        loads(line, "x.jsonl")

    assert str(caught.value).startswith(complaint)


def test_a_script_needs_no_header() -> None:
    """Where a header is given, a text without one is well-formed; its own counts before that."""
    default = Header("7.2")

    assert loads('{"do": "settle"}', header=default).header == default
    assert loads(f'{HEADER}\n{{"do": "settle"}}', header=default).header.kernel == "6.1.0-56-amd64"


def test_a_trace_survives_writing_and_reading(tmp_path: Path) -> None:
    """What is written is read again, compressed or not, and compressed twice it is the same."""
    trace = loads(EVERYTHING)
    for name in ("t.jsonl", "t.jsonl.gz", "again.jsonl.gz"):
        dump(trace, tmp_path / name)

    first, second = (tmp_path / name for name in ("t.jsonl.gz", "again.jsonl.gz"))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()) == (tmp_path / "t.jsonl").read_bytes()
    assert load(first).header == trace.header
    assert [line.operation for line in load(first).lines] == [x.operation for x in trace.lines]


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    """Broken compression and bytes that are no text are malformed, not a crash."""
    broken, binary = tmp_path / "a.gz", tmp_path / "b.jsonl"
    broken.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    binary.write_bytes(HEADER.encode() + b"\n\xff\xfe")

    with pytest.raises(TraceError, match="cannot be decompressed"):
        load(broken)
    with pytest.raises(TraceError, match=r"b\.jsonl:2: is not UTF-8"):
        load(binary)


def test_every_line_is_one_object() -> None:
    """The text has a header and one line for each operation, each of them JSON."""
    lines = dumps(loads(EVERYTHING)).splitlines()

    assert len(lines) == 25
    assert all(isinstance(json.loads(line), dict) for line in lines)
