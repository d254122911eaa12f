"""The protocol: values, frames, and everything that is neither."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.remote.wire import (
    MAGIC,
    VERSION,
    Frames,
    ProtocolError,
    decode,
    encode,
    frame,
    preamble,
)

SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.text(max_size=20)
)
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=4), max_leaves=10)


@given(st.lists(VALUES, max_size=4))
def test_a_value_comes_back_as_it_went(value: list[object]) -> None:
    """Every kind of value, with its type: True is no 1, b"" no "" and no None."""
    if _depth(value) <= 7:
        back = decode(encode(value))
        assert back == value
        assert repr(back) == repr(value)


def _depth(value: object) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def test_bytes_on_the_stream_are_as_documented() -> None:
    """One letter and the content, numbers big-endian; the preamble has the version."""
    assert encode([1, "ä", b"\0", None, True, 0.5]) == (
        b"l\0\0\0\6" + b"i\0\0\0\0\0\0\0\1" + b"s\0\0\0\2\xc3\xa4" + b"b\0\0\0\1\0" + b"NT"
        b"d\x3f\xe0\0\0\0\0\0\0"
    )
    assert frame(["x"]) == struct.pack(">I", 11) + b"l\0\0\0\1s\0\0\0\1x"
    assert preamble() == b"DLMR" + struct.pack(">I", VERSION)


def test_a_file_name_that_is_no_unicode_survives() -> None:
    """Names are texts with surrogates, as os.fsdecode() gives them."""
    assert decode(encode("\udcff")) == "\udcff"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_a_number_beyond_64_bits_does_not_travel(value: int) -> None:
    """It is an error where it is sent, never a wrong number at the other end."""
    with pytest.raises(OverflowError):
        encode(value)


def test_what_is_no_value_does_not_travel() -> None:
    """There are no objects on this stream."""
    with pytest.raises(TypeError):
        encode({1: 2})


@given(st.binary(max_size=60))
def test_garbage_is_a_value_or_a_protocol_error(data: bytes) -> None:
    """Nothing else is ever raised."""
    with suppress(ProtocolError):
        decode(data)


@given(VALUES, st.data())
def test_a_truncated_value_is_a_protocol_error(value: object, data: st.DataObject) -> None:
    """Wherever it is cut."""
    whole = encode(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        decode(whole[:cut])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x", "no value begins with 0x78"),
        (b"NN", "1 bytes behind a value"),
        (b"l\xff\xff\xff\xff", "longer or deeper"),
        (b"l\0\0\0\1" * 9 + b"N", "longer or deeper"),
        (b"b\0\0\0\5abc", "longer than its frame"),
    ],
)
def test_a_garbled_value_says_what_is_wrong(data: bytes, why: str) -> None:
    """And costs no more than its own bytes: a list of four thousand million is not made."""
    with pytest.raises(ProtocolError, match=why):
        decode(data)


# ---- frames -------------------------------------------------------------------------------------


def taken(frames: Frames) -> list[object]:
    """Take all there is."""
    found: list[object] = []
    while (item := frames.take()) is not None:
        found.append(item)
    return found


@given(st.integers(1, 30))
def test_frames_come_out_whole_however_they_come_in(step: int) -> None:
    """Cut anywhere, and none is given twice."""
    stream = preamble() + frame([1, "a"]) + frame([2, b"b" * 20]) + frame([])
    frames = Frames(100)
    found: list[object] = []
    for start in range(0, len(stream), step):
        frames.feed(stream[start : start + step])
        found += taken(frames)
    assert found == [VERSION, [1, "a"], [2, b"b" * 20], []]


def test_a_frame_longer_than_allowed_is_refused_by_its_length() -> None:
    """Before any of it has come."""
    frames = Frames(100)
    frames.feed(preamble() + struct.pack(">I", 101))
    assert frames.take() == VERSION
    with pytest.raises(ProtocolError, match="a frame of 101 bytes, 100 are allowed"):
        frames.take()


def test_a_stream_that_does_not_begin_with_a_preamble_is_refused() -> None:
    """At its first wrong byte."""
    frames = Frames(100)
    frames.feed(b"D")
    assert frames.take() is None
    frames.feed(b"ear")
    with pytest.raises(ProtocolError, match="no preamble"):
        frames.take()


def test_a_frame_that_is_no_list_is_refused() -> None:
    """Requests and answers are lists."""
    frames = Frames(100)
    frames.feed(preamble() + frame("hello"))
    frames.take()
    with pytest.raises(ProtocolError, match="no list"):
        frames.take()


def test_a_second_preamble_is_garbage_on_a_socket_and_a_new_session_on_a_serial_line() -> None:
    """A serial line has no end of file: a preamble is how a new client shows."""
    for restarts in (False, True):
        frames = Frames(1000, restarts=restarts)
        frames.feed(preamble() + frame([1]) + preamble() + frame([2]))
        if restarts:
            assert taken(frames) == [VERSION, [1], VERSION, [2]]
        else:
            with pytest.raises(ProtocolError, match=str(int.from_bytes(MAGIC))):
                taken(frames)


def test_after_garbage_a_serial_line_is_looked_through_for_a_preamble() -> None:
    """Even one that is cut in two."""
    frames = Frames(100, restarts=True)
    frames.feed(b"older" + preamble() + b"\xff" * 9 + MAGIC[:2])
    assert frames.take() == VERSION
    with pytest.raises(ProtocolError):
        frames.take()
    frames.resynchronize()
    assert frames.take() is None
    frames.feed(preamble()[2:] + frame([7]))
    assert taken(frames) == [VERSION, [7]]
