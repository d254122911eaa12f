"""Ten thousand random writes, reads and ioctls per dialect of 2005, against the documents.

What an emulated node answers is compared, call by call, with ``reading2005``; so are the events
that it sends and the calls that wait.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import Command, LockspaceRequest
from dlm.abi.device2005 import encode_request
from dlm.emulator import Cluster
from dlm.emulator.pending import Pending
from dlm.errors import errno_name
from dlm.ports import DeviceWrite
from tests.sim.reading2005 import MODES, Answer, Node

EXAMPLES, LENGTH = 200, 50  # 10,000 operations per dialect
NAMES = ("a", "b")
OURS, FOREIGN = encode_sockaddr("10.0.0.1"), encode_sockaddr("10.9.9.9")
WORDS = (
    b"0", b"1", b"1", b"1", b"2", b"3", b"1\n", b"0x1", b"01", b"08", b"-1", b"-13", b"7", b"",
    b"x", b" 1", b"1 ", b"1\0", b"1 2", b"1 1", b"2 1\0", b"1\n2", b"4294967297", b"9" * 30,
    b"1" * 5000, b"0 " * 2100,
)  # fmt: skip
VERSIONS = ((1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 5), (0, 0, 0), (1, 1, 0), (2, 0, 0))

names = st.sampled_from(NAMES)
texts = st.one_of(st.sampled_from(WORDS), st.binary(max_size=4))
steps = st.integers(-1, 2)
"""How far a start's number is above the last one's, a finish's above it."""


def writes(abi: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return writes: any text to any attribute, and the ones that make sense more often."""
    anything = st.tuples(st.just("write"), names, st.sampled_from(sorted(MODES[abi])), texts)
    lists = st.sampled_from((b"1", b"1", b"1 2"))
    likely = [st.tuples(st.just("write"), names, st.just("members"), lists)]
    if abi == "event":
        likely += [
            st.tuples(st.just("begin"), names, lists),
            st.tuples(st.just("relative"), names, st.sampled_from(("start", "finish")), steps),
            st.tuples(st.just("relative"), names, st.just("finish"), st.just(0)),
            st.tuples(st.just("write"), names, st.just("stop"), st.just(b"1")),
        ]
    else:
        control = st.sampled_from((b"0", b"1", b"1"))
        likely += [
            st.tuples(st.just("write"), names, st.just("control"), control),
            st.tuples(st.just("write"), names, st.just("event_done"), st.just(b"0")),
        ]
    return st.one_of(anything, *likely)


def ioctls() -> st.SearchStrategy[tuple[Any, ...]]:
    """Return ioctls: good and bad types, numbers, versions, sizes and rights."""
    request = st.builds(
        lambda high, kind, number: high << 16 | kind << 8 | number,
        st.sampled_from((0xC114, 0xC114, 0, 0xFFFF)),
        st.sampled_from((0xD1, 0xD1, 0xD1, 0xD0)),
        st.sampled_from((0, 1, 2, 2, 3, 255)),
    )
    argument = st.builds(
        lambda version, nodeid, address, size: (
            struct.pack("<3Iii", *version, nodeid, 1) + address.ljust(256, b"\0")
        )[:size],
        st.sampled_from(VERSIONS),
        st.sampled_from((1, 1, 1, 7, -1)),
        st.sampled_from((OURS, OURS, FOREIGN, bytes(128))),
        st.sampled_from((276, 276, 276, 276, 275, 12, 11, 0)),
    )
    rights = st.sampled_from((True, True, True, False))
    return st.tuples(st.just("ioctl"), request, argument, rights)


def operations(abi: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return one random operation of a dialect."""
    attributes = sorted({*MODES[abi], "nothing"})
    return st.one_of(
        writes(abi),
        writes(abi),
        st.tuples(st.just("read"), names, st.sampled_from(attributes)),
        ioctls(),
        st.tuples(st.just("create"), names),
        st.tuples(st.just("remove"), st.sampled_from((61, 61, 60, 59, 5))),
    )


class Both:
    """An emulated node and the reading of the documents, side by side."""

    def __init__(self, abi: str) -> None:
        self.cluster = Cluster({"nodea": "10.0.0.1"}, abi=abi)
        self.node = self.cluster.node("nodea")
        self.process = self.node.process()
        self.events = self.process.uevents()
        self.reading = Node(abi, OURS)
        self.calls: list[Pending] = []

    def answer(self, call: Any, *arguments: Any) -> Answer:  # Any: any call of the seam
        """Make a call; return what it gave, or the name of its errno."""
        try:
            given = call(*arguments)
        except OSError as error:
            return errno_name(error.errno or 0)
        assert isinstance(given, int | bytes)
        return given

    def make(self, operation: tuple[Any, ...]) -> None:
        """Carry out an operation on both and compare."""
        kind, *rest = operation
        expected, got = getattr(self, f"do_{kind}")(*rest)
        self.cluster.settle()
        assert got == expected
        assert self.pending_answers() == self.reading.answers
        assert self.misc() == self.reading.minors
        assert sorted(self.process.list_directory("dlm")) == sorted(self.reading.spaces)
        for name in self.reading.spaces:
            for attribute in MODES[self.cluster.abi]:
                shown, read = self.do_read(name, attribute)
                assert read == shown, attribute
        sent = [event.header for event in self.events.read_nowait() if "/dlm/" in event.header]
        told, self.reading.events = self.reading.events, []
        assert sent == [
            f"{action}@/kernel/dlm/{name}" for action, name in (each.split() for each in told)
        ]

    def do_write(self, name: str, attribute: str, text: bytes) -> tuple[Answer, Answer]:
        """Write an attribute."""
        expected = self.reading.write(name, attribute, text)
        path = f"dlm/{name}/{attribute}"
        return expected, self.answer(self.process.write_attribute, path, text)

    def do_relative(self, name: str, attribute: str, step: int) -> tuple[Answer, Answer]:
        """Write an event number that is near the last start's."""
        space = self.reading.spaces.get(name)
        last = space.start if space is not None else 0
        return self.do_write(name, attribute, b"%d" % (last + step))

    def do_begin(self, name: str, members: bytes) -> tuple[Answer, Answer]:
        """Write members and the next start."""
        expected, got = self.do_write(name, "members", members)
        assert got == expected
        return self.do_relative(name, "start", 1)

    def do_read(self, name: str, attribute: str) -> tuple[Answer, Answer]:
        """Read an attribute."""
        expected = self.reading.read(name, attribute)
        return expected, self.answer(self.process.read_attribute, f"dlm/{name}/{attribute}")

    def do_ioctl(self, request: int, argument: bytes, capable: bool) -> tuple[Answer, Answer]:
        """Make an ioctl on dlm-node."""
        expected = self.reading.ioctl(request, argument, capable)
        file = self.node.process(capable=capable).open_device("dlm-node")
        got = self.answer(lambda: file.ioctl(request, argument)[1])
        file.close()
        return expected, got

    def do_create(self, name: str) -> tuple[Answer, Answer]:
        """Begin a create."""
        self.reading.create(name)
        request = LockspaceRequest(Command.CREATE_LOCKSPACE, name=name.encode())
        return self.begin(encode_request(request))

    def do_remove(self, minor: int) -> tuple[Answer, Answer]:
        """Begin a remove."""
        self.reading.remove(minor)
        return self.begin(encode_request(LockspaceRequest(Command.REMOVE_LOCKSPACE, minor=minor)))

    def begin(self, request: bytes) -> tuple[Answer, Answer]:
        """Begin a write to dlm-control; its answer is compared with the others that wait."""
        control = self.process.open_device("dlm-control")
        self.calls.append(control.submit(DeviceWrite(request), detached=True))
        return None, None

    def pending_answers(self) -> list[Answer]:
        """Return what has become of all creates and removes."""
        return [self.answer(call.result) if call.done() else None for call in self.calls]

    def misc(self) -> dict[str, int]:
        """Return the minors of the lockspaces' devices."""
        return {
            name.removeprefix("dlm_"): minor
            for name, minor in self.process.misc_devices().items()
            if name.startswith("dlm_")
        }


def set_local() -> tuple[Any, ...]:
    """Return the ioctl with which most nodes begin."""
    argument = struct.pack("<3Iii", 1, 0, 0, 1, 1) + OURS.ljust(256, b"\0")
    return ("ioctl", 0xC114D102, argument, True)


@pytest.mark.parametrize("abi", ["event", "members"])
def test_a_node_answers_as_the_documents_say(abi: str) -> None:
    """Every answer is that of the tables, an errno or a value; nothing else is ever raised."""
    made = 0
    seen: set[str] = set()

    @settings(max_examples=EXAMPLES, database=None, phases=(Phase.explicit, Phase.generate))
    @given(st.booleans(), st.lists(operations(abi), min_size=LENGTH, max_size=LENGTH))
    def run(ready: bool, random: list[tuple[Any, ...]]) -> None:
        nonlocal made
        both = Both(abi)
        for operation in [set_local(), ("create", "a")] * ready + random:
            both.make(operation)
            seen.update(space.state for space in both.reading.spaces.values())
            seen.update("running" for space in both.reading.spaces.values() if space.running)
            made += 1

    run()
    assert made >= EXAMPLES * LENGTH
    assert "running" in seen
    if abi == "event":
        assert seen >= {"INIT", "INIT_DONE", "CLEAR", "WAIT_START", "RECONFIG_DONE"}
