"""Requests and results of the lock device, against bytes written out by hand."""

from __future__ import annotations

import errno
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.device import (
    REQUEST_SIZE,
    RESULT_SIZE,
    RESULT_SIZE_MAX,
    VERSION,
    VERSION_SIZE,
    Command,
    Layout,
    LockRequest,
    LockResult,
    LockspaceRequest,
    PurgeRequest,
    Request,
    decode_native,
    decode_request,
    decode_result,
    decode_version,
    encode_request,
    encode_result,
    encode_version,
    pack_lock,
    unpack_result,
)

VERSION_BYTES = "06000000 00000000 02000000"
VALUE = bytes(range(0x10, 0x30))

LOCK = LockRequest(
    mode=5,
    flags=0x8 | 0x80,
    lock_id=0x11223344,
    parent=1,
    xid=0x0102030405060708,
    timeout=9,
    castparam=0xA1,
    castaddr=0xA2,
    bastparam=0xA3,
    bastaddr=0xA4,
    lksb=0xA5,
    value=VALUE,
    name=b"resA",
)
# §4.2: every field of a native request where the table of offsets says.
LOCK_BYTES = (
    f"{VERSION_BYTES} 01 01 0000"
    "05 04 0000 88000000 44332211 01000000 0807060504030201 0900000000000000"
    "a100000000000000 a200000000000000 a300000000000000 a400000000000000 a500000000000000"
    f"{VALUE.hex()} 72657341"
)
# §4.3: is64bit is 0, addresses have 4 bytes, the name begins at 100, 4 bytes more are sent.
LOCK_BYTES_COMPAT = (
    f"{VERSION_BYTES} 01 00 0000"
    "05 04 0000 88000000 44332211 01000000 0807060504030201 0900000000000000"
    f"a1000000 a2000000 a3000000 a4000000 a5000000 {VALUE.hex()} 72657341 00000000"
)


def written(text: str) -> bytes:
    """Return the bytes of hexadecimal digits with blanks between them."""
    return bytes.fromhex(re.sub(r"\s", "", text))


def refusal(data: bytes, *, control: bool = False) -> str:
    """Return the name of the errno with which a write is refused."""
    with pytest.raises(OSError) as caught:
        decode_request(data, control=control)
    return errno.errorcode[caught.value.errno or 0]


# ---- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "expected"), [(Layout.NATIVE, LOCK_BYTES), (Layout.COMPAT32, LOCK_BYTES_COMPAT)]
)
def test_a_lock_request_has_every_field_in_its_place(layout: Layout, expected: str) -> None:
    """A LOCK is the struct of its layout, then the name."""
    data = encode_request(LOCK, layout=layout)
    assert data == written(expected)
    decoded = decode_request(data, control=False)
    assert (decoded.command, decoded.compat) == (Command.LOCK, layout is Layout.COMPAT32)
    assert decoded.body == LOCK


def test_requests_made_by_name_are_the_same() -> None:
    """``lock``, ``convert`` and ``unlock`` set what the keywords set."""
    assert LockRequest.lock(b"res", 5, 0x1, VALUE) == LockRequest(
        Command.LOCK, mode=5, flags=0x1, value=VALUE, name=b"res"
    )
    assert LockRequest.convert(7, 3, 0x1, VALUE) == LockRequest(
        Command.LOCK, mode=3, flags=0x1 | 0x4, lock_id=7, value=VALUE
    )
    assert LockRequest.unlock(7, 0x2, VALUE) == LockRequest(
        Command.UNLOCK, flags=0x2, lock_id=7, value=VALUE
    )
    assert type(LockRequest.unlock(7)) is LockRequest


def test_a_create_request_holds_flags_and_a_name_that_ends_in_nul() -> None:
    """CREATE_LOCKSPACE has its name at 24 and is never shorter than the struct."""
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, flags=8, name=b"test")
    expected = written(f"{VERSION_BYTES} 04 01 0000 08000000 00000000 74657374")
    assert encode_request(request) == expected.ljust(120, b"\0")


def test_a_compat_create_request_is_longer_by_its_name() -> None:
    """A 32-bit CREATE sends 104 bytes, one for each of the name and one for its end."""
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"test")
    data = encode_request(request, layout=Layout.COMPAT32)
    expected = written(f"{VERSION_BYTES} 04 00 0000 00000000 00000000 74657374")
    assert data == expected.ljust(104 + 5, b"\0")
    assert decode_request(data, control=True).body == request


def test_a_remove_request_names_a_minor() -> None:
    """REMOVE_LOCKSPACE carries flags and minor."""
    request = LockspaceRequest(Command.REMOVE_LOCKSPACE, flags=2, minor=121)
    expected = written(f"{VERSION_BYTES} 05 01 0000 02000000 79000000")
    assert encode_request(request) == expected.ljust(120, b"\0")


def test_a_purge_request_takes_negative_numbers() -> None:
    """PURGE holds two signed numbers: node -1 is 0xffffffff and comes back as -1."""
    data = encode_request(PurgeRequest(nodeid=-1, pid=4711))
    assert data[:24] == written(f"{VERSION_BYTES} 06 01 0000 ffffffff 67120000")
    assert len(data) == 120
    assert decode_request(data, control=False).body == PurgeRequest(-1, 4711)


u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
addresses = dict.fromkeys(("castparam", "castaddr", "bastparam", "bastaddr", "lksb"), u32)
lock_requests = st.builds(
    LockRequest,
    command=st.sampled_from([Command.LOCK, Command.UNLOCK, Command.DEADLOCK]),
    mode=st.integers(0, 255),
    flags=u32,
    lock_id=u32,
    parent=u32,
    xid=u64,
    timeout=u64,
    value=st.binary(min_size=32, max_size=32),
    name=st.binary(max_size=64),
    **addresses,
)
i32 = st.integers(-(2**31), 2**31 - 1)
purge_requests = st.builds(PurgeRequest, nodeid=i32, pid=i32)
lockspace_requests = st.builds(
    LockspaceRequest,
    command=st.sampled_from([Command.CREATE_LOCKSPACE, Command.REMOVE_LOCKSPACE]),
    flags=u32,
    minor=u32,
    name=st.binary(max_size=64).filter(lambda name: b"\0" not in name),
)


@given(lock_requests | purge_requests | lockspace_requests, st.sampled_from(Layout))
def test_every_request_survives_encoding_and_decoding(request: Request, layout: Layout) -> None:
    """What is encoded in either layout is decoded to the same value."""
    control = isinstance(request, LockspaceRequest)
    decoded = decode_request(encode_request(request, layout=layout), control=control)
    assert decoded.body == request
    assert decoded.compat == (layout is Layout.COMPAT32)


@pytest.mark.parametrize(
    "request_",
    [
        LockRequest(mode=256),
        LockRequest(flags=-1),
        LockRequest(lock_id=2**32),
        LockRequest(xid=2**64),
        LockRequest(name=bytes(256)),
        LockRequest(value=bytes(31)),
        LockspaceRequest(Command.CREATE_LOCKSPACE, flags=2**32),
    ],
)
def test_a_number_that_does_not_fit_is_no_request(request_: Request) -> None:
    """A number outside its field is a ValueError, never a different number."""
    with pytest.raises(ValueError, match=r"fit|bytes"):
        encode_request(request_)


# ---- the checks of a write, §4.4 -----------------------------------------------------------------


@pytest.mark.parametrize(("size", "errno_name"), [(0, "EINVAL"), (103, "EINVAL"), (185, "EINVAL")])
def test_a_write_of_another_length_is_einval_before_its_version(size: int, errno_name: str) -> None:
    """Fewer than 104 and more than 184 bytes are EINVAL, whatever the bytes are."""
    assert refusal(b"\xff" * size) == errno_name


@pytest.mark.parametrize("size", [104, 184])
def test_the_shortest_and_longest_write_reach_the_version_check(size: int) -> None:
    """104 and 184 bytes are looked at: their version is wrong."""
    assert refusal(b"\xff" * size) == "EBADE"


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        ((6, 0, 2), True),
        ((6, 0, 0), True),
        ((6, 0, 9), True),
        ((6, 1, 0), False),
        ((5, 0, 2), False),
        ((7, 0, 0), False),
    ],
)
def test_major_and_minor_decide_over_the_version(
    version: tuple[int, int, int], accepted: bool
) -> None:
    """The patch level is ignored; another major or a higher minor is EBADE."""
    data = encode_request(LOCK, version=version)
    if accepted:
        assert decode_request(data, control=False).body == LOCK
    else:
        assert refusal(data) == "EBADE"


def test_the_version_is_checked_before_the_command() -> None:
    """A wrong version with a wrong command is EBADE."""
    assert refusal(encode_request(LOCK, version=(9, 9, 9)), control=True) == "EBADE"


@pytest.mark.parametrize("command", range(256))
def test_each_file_takes_its_own_commands_only(command: int) -> None:
    """CREATE and REMOVE go to dlm-control, the others to a lockspace; all else is EINVAL."""
    data = bytearray(encode_request(LOCK))
    data[12] = command
    for control, accepted in ((True, {4, 5}), (False, {1, 2, 6, 7})):
        if command in accepted:
            assert decode_request(bytes(data), control=control).command == command
        else:
            assert refusal(bytes(data), control=control) == "EINVAL"


# ---- quirks -------------------------------------------------------------------------------------


def test_what_was_not_sent_reads_as_zeros() -> None:
    """A native request of 104 bytes passes; the end of its value block is zeros."""
    decoded = decode_request(encode_request(LOCK)[:104], control=False)
    assert isinstance(decoded.body, LockRequest)
    assert decoded.body.value == VALUE[:16] + bytes(16)
    assert decoded.body.name == bytes(4)


def test_a_compat_name_loses_what_is_not_counted() -> None:
    """The name "c64name" in 100 + 7 bytes is read as "c64" and four NULs."""
    data = encode_request(LockRequest(name=b"c64name"), layout=Layout.COMPAT32)[: 100 + 7]
    decoded = decode_request(data, control=False)
    assert isinstance(decoded.body, LockRequest)
    assert decoded.body.name == b"c64\0\0\0\0"


def test_a_compat_request_of_100_bytes_is_too_short() -> None:
    """The request of a real i386 program without a name has 100 bytes: EINVAL."""
    data = encode_request(LockRequest(), layout=Layout.COMPAT32)[:100]
    assert refusal(data) == "EINVAL"


def test_a_compat_lockspace_name_is_as_long_as_the_write_is_longer() -> None:
    """Of a 32-bit CREATE, only as many name bytes count as there are beyond 104."""
    request = LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"test")
    data = encode_request(request, layout=Layout.COMPAT32)[: 104 + 2]
    body = decode_request(data, control=True).body
    assert body == LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"te")


def test_resource_names_are_bytes() -> None:
    """NUL, slash and high bytes are part of a resource name."""
    name = b"a/b\0\xff"
    body = decode_request(encode_request(LockRequest(name=name)), control=False).body
    assert isinstance(body, LockRequest)
    assert body.name == name


def test_the_short_way_says_what_the_long_one_says() -> None:
    """Whatever a write holds: ``decode_native`` reads it as ``decode_request``, or leaves it."""
    chance = random.Random(1)
    read = 0
    for _ in range(3000):
        request = LockRequest(
            chance.choice([1, 2, 7, 1, 2, 3]),
            mode=chance.randrange(256),
            flags=chance.randrange(1 << 32),
            lock_id=chance.randrange(1 << 32),
            xid=chance.randrange(1 << 64),
            castparam=chance.randrange(1 << 32),
            castaddr=chance.randrange(1 << 32),
            bastparam=chance.randrange(1 << 32),
            bastaddr=chance.randrange(1 << 32),
            lksb=chance.randrange(1 << 32),
            value=chance.randbytes(32),
            name=chance.randbytes(chance.choice([0, 1, 24, 64, 65])),
        )
        layout = chance.choice([Layout.NATIVE, Layout.NATIVE, Layout.COMPAT32])
        data = bytearray(encode_request(request, layout=layout))
        if chance.random() < 0.5:
            data[chance.randrange(16)] = chance.randrange(8)
        if chance.random() < 0.3:
            data = data[: chance.randrange(90, len(data))] + bytes(chance.randrange(9))
        body = decode_native(bytes(data))
        if body is not None:
            decoded = decode_request(bytes(data), control=False)
            assert (decoded.command, decoded.compat, decoded.body) == (body.command, False, body)
            read += 1
    assert read > 500


# ---- results and the version --------------------------------------------------------------------

RESULT = LockResult(
    astaddr=0xB1, astparam=0xB2, lksb=0xB3, status=-11, lock_id=7, flags=2, bast_mode=0
)


def test_a_native_result_has_every_field_in_its_place() -> None:
    """A result without a value block has 72 bytes and says so."""
    data = encode_result(RESULT)
    assert data == written(
        f"{VERSION_BYTES} 48000000 b100000000000000 b200000000000000 b300000000000000"
        "f5ffffff 07000000 02 00000000000000 0000000000000000 00 000000 00000000"
    )
    assert decode_result(data) == RESULT


def test_a_value_block_follows_its_result() -> None:
    """With a value block a result has 104 bytes, lvb_offset 72, the block behind it."""
    result = LockResult(1, 2, 3, 0, 7, 0, 0, VALUE)
    data = encode_result(result)
    assert (len(data), data[12], data[68], data[72:]) == (104, 104, 72, VALUE)
    assert decode_result(data) == result


def test_a_compat_result_has_every_field_in_its_place() -> None:
    """A 32-bit result has 52 bytes, 84 with its value block; addresses are cut."""
    data = encode_result(
        LockResult(0x1_0000_00B1, 2, 3, -65538, 7, 0, 5, VALUE), layout=Layout.COMPAT32
    )
    assert data == written(
        f"{VERSION_BYTES} 54000000 b1000000 02000000 03000000"
        f"fefffeff 07000000 00 000000 00000000 05 000000 34000000 {VALUE.hex()}"
    )
    assert decode_result(data) == LockResult(0xB1, 2, 3, -65538, 7, 0, 5, VALUE)


results = st.builds(
    LockResult,
    astaddr=u32,
    astparam=u32,
    lksb=u32,
    status=i32,
    lock_id=u32,
    flags=st.integers(0, 255),
    bast_mode=st.integers(0, 255),
    value=st.none() | st.binary(min_size=32, max_size=32),
)


@given(results, st.sampled_from(Layout))
def test_every_result_survives_encoding_and_decoding(result: LockResult, layout: Layout) -> None:
    """What is encoded in either layout is decoded to the same value."""
    assert decode_result(encode_result(result, layout=layout)) == result


@pytest.mark.parametrize("size", [0, 12, 51, 71, 73, 105])
def test_other_lengths_are_no_result(size: int) -> None:
    """Only 52, 72, 84 and 104 bytes are a result."""
    with pytest.raises(ValueError, match="no result"):
        decode_result(bytes(size))


def test_the_version_is_twelve_bytes() -> None:
    """The version is 6, 0, 2 in 12 bytes."""
    assert VERSION == (6, 0, 2)
    assert encode_version() == written(VERSION_BYTES)
    assert decode_version(encode_version()) == VERSION
    assert len(encode_version()) == VERSION_SIZE
    with pytest.raises(ValueError, match="12 bytes"):
        decode_version(bytes(11))


def test_the_sizes_are_those_of_the_tables() -> None:
    """Requests have 120 and 104 bytes, results 72 and 52, the longest result 104."""
    assert REQUEST_SIZE == {Layout.NATIVE: 120, Layout.COMPAT32: 104}
    assert RESULT_SIZE == {Layout.NATIVE: 72, Layout.COMPAT32: 52}
    assert RESULT_SIZE_MAX == 104


@pytest.mark.parametrize("command", [Command.LOCK, Command.UNLOCK, Command.DEADLOCK])
def test_the_short_way_to_a_request_gives_the_same_bytes(command: Command) -> None:
    """What an application's lock needs of a request, and no more, is packed without a value."""
    value = bytes(range(32))
    asked = LockRequest(
        command, 5, 0x84, 77, 0, 0, 0, 1 << 40, 1, 1 << 40, 1, 1, value=value, name=b"res\0"
    )
    assert pack_lock(command, 5, 0x84, 77, 1 << 40, value, b"res\0") == encode_request(asked)


@pytest.mark.parametrize("value", [None, bytes(range(32))])
@pytest.mark.parametrize("mode", [0, 3])
def test_the_short_way_from_a_result_gives_the_same_fields(mode: int, value: bytes | None) -> None:
    """The last field says where the value block is, 0 where there is none."""
    data = encode_result(LockResult(1, 1 << 40, 3, -65537, 9, 2, mode, value))
    parameter, status, lock_id, flags, bast_mode, at = unpack_result(data)
    assert (parameter, status, lock_id, flags, bast_mode) == (1 << 40, -65537, 9, 2, mode)
    assert (data[at : at + 32] if at else None) == value
