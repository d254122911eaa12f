"""The bytes and texts of 2005: requests, results, node addresses, numbers, members."""

from __future__ import annotations

import errno
import struct

import pytest

from dlm.abi import attributes2005, device2005, node2005
from dlm.abi.address import encode_sockaddr
from dlm.abi.attributes2005 import format_members, kobject_name, parse_long, parse_members
from dlm.abi.device import Command, Layout, LockRequest, LockResult, LockspaceRequest

LAYOUTS = pytest.mark.parametrize("layout", list(Layout))
LOCK = LockRequest(
    mode=5, flags=0x80, lock_id=7, parent=3, castparam=11, castaddr=12, bastparam=13,
    bastaddr=14, lksb=15, value=bytes(range(32)), name=b"res",
)  # fmt: skip


def refused(*args: object, **kwargs: object) -> int:
    """Return the errno with which a request is refused."""
    with pytest.raises(OSError) as caught:  # the errno is what is compared
        device2005.decode_request(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value.errno or 0


# ---- the lock device ----------------------------------------------------------------------------


def test_a_lock_request_stands_byte_for_byte_where_the_document_says() -> None:
    """A 64-bit LOCK has its fields at the offsets of the table of 2005."""
    data = device2005.encode_request(LOCK, extent=(1, 0x1_0000_0002))
    assert len(data) == 136 + 3 - 1
    assert struct.unpack_from("<3IB", data) == (3, 0, 0, Command.LOCK)
    assert struct.unpack_from("<BxHII", data, 16) == (5, 0x80, 7, 3)
    assert struct.unpack_from("<QQB", data, 32) == (1, 0x1_0000_0002, 3)
    assert struct.unpack_from("<5Q", data, 56) == (11, 12, 13, 14, 15)
    assert (data[96:128], data[128:131]) == (bytes(range(32)), b"res")


def test_an_i386_lock_request_has_its_range_at_28() -> None:
    """On i386 64-bit numbers are aligned to 4 bytes, so that the name begins at 100."""
    data = device2005.encode_request(LOCK, layout=Layout.COMPAT32, extent=(1, 0x1_0000_0002))
    assert len(data) == 104 + 3 - 1
    assert struct.unpack_from("<QQB", data, 28) == (1, 0x1_0000_0002, 3)
    assert struct.unpack_from("<5I", data, 48) == (11, 12, 13, 14, 15)
    assert data[100:103] == b"res"


@LAYOUTS
@pytest.mark.parametrize(
    ("request_", "control"),
    [
        (LOCK, False),
        (LockRequest(command=Command.UNLOCK, flags=2, lock_id=0x10001), False),
        (LockspaceRequest(Command.CREATE_LOCKSPACE, 1, name=b"x" * 64), True),
        (LockspaceRequest(Command.REMOVE_LOCKSPACE, 2, 61), True),
    ],
)
def test_what_is_encoded_is_decoded(
    request_: LockRequest | LockspaceRequest, control: bool, layout: Layout
) -> None:
    """Every request comes back from its bytes, in both layouts."""
    data = device2005.encode_request(request_, layout=layout)
    assert device2005.decode_request(data, control=control, layout=layout).body == request_


def test_libdlm_s_lengths() -> None:
    """A lock is the struct and its name less a byte, a create the struct and the whole name."""
    create = LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"test")
    assert len(device2005.encode_request(create)) == 136 + 4
    assert len(device2005.encode_request(LockRequest(command=Command.UNLOCK))) == 136


def test_the_shortest_write_is_a_byte_less_than_the_struct() -> None:
    """135 bytes are enough, 134 are EINVAL; an i386 kernel takes 103."""
    data = device2005.encode_request(LockRequest())
    assert device2005.decode_request(data[:135], control=False).command == Command.LOCK
    assert refused(data[:134], control=False) == errno.EINVAL
    short = device2005.encode_request(LockRequest(), layout=Layout.COMPAT32)
    assert device2005.decode_request(short[:103], control=False, layout=Layout.COMPAT32)
    assert refused(short[:102], control=False, layout=Layout.COMPAT32) == errno.EINVAL
    assert refused(short, control=False) == errno.EINVAL


@pytest.mark.parametrize(
    ("version", "number"),
    [((3, 0, 9), 0), ((2, 0, 0), errno.EBADE), ((6, 0, 0), errno.EBADE), ((3, 1, 0), errno.EBADE)],
)
def test_versions(version: tuple[int, int, int], number: int) -> None:
    """Major 3 and minor 0 are taken, whatever the patch; all else is EBADE."""
    data = device2005.encode_request(LOCK, version=version)
    if number:
        assert refused(data, control=False) == number
    else:
        assert device2005.decode_request(data, control=False).body == LOCK


@pytest.mark.parametrize("command", [0, 3, 4, 5, 6, 7, 255])
def test_a_lockspace_s_file_takes_lock_and_unlock_only(command: int) -> None:
    """QUERY, the lockspace commands and unknown numbers are EINVAL there."""
    data = device2005.encode_request(LockRequest(command=command))
    assert refused(data, control=False) == errno.EINVAL


@pytest.mark.parametrize("command", [0, 1, 2, 3, 6, 7, 255])
def test_dlm_control_takes_create_and_remove_only(command: int) -> None:
    """LOCK, UNLOCK and unknown numbers are EINVAL there."""
    data = device2005.encode_request(LockRequest(command=command))
    assert refused(data, control=True) == errno.EINVAL


def test_sixteen_bits_of_flags() -> None:
    """ALTCW (0x10000) cannot be said: ValueError before anything is written."""
    with pytest.raises(ValueError, match="does not fit"):
        device2005.encode_request(LockRequest(flags=0x10000))


RESULT = LockResult(1, 2, 3, -11, 0x10001, 2, 0, bytes(range(32)))


@LAYOUTS
def test_results_come_back_from_their_bytes(layout: Layout) -> None:
    """A result has 64 or 40 bytes, 32 more with a value block at its end."""
    size = device2005.RESULT_SIZE[layout]
    data = device2005.encode_result(RESULT, layout=layout)
    assert (len(data), struct.unpack_from("<I", data)) == (size + 32, (size + 32,))
    assert device2005.decode_result(data) == RESULT


def test_a_result_without_room_names_the_length_that_it_needs() -> None:
    """The library reads again with the length that it found; the offset is 0 until then."""
    data = device2005.encode_result(RESULT, room=False)
    assert (len(data), struct.unpack_from("<I", data), data[60:64]) == (64, (96,), bytes(4))
    assert device2005.decode_result(data).value is None


def test_bast_mode_is_always_0() -> None:
    """A blocking AST is known by its address alone."""
    blocking = LockResult(1, 2, 3, 0, 5, 0, 4)
    assert device2005.decode_result(device2005.encode_result(blocking)).bast_mode == 0


@pytest.mark.parametrize("size", [0, 12, 39, 41, 63, 65, 71, 88, 95, 97])
def test_other_lengths_are_no_results(size: int) -> None:
    """The 88 bytes of cluster 1's header, which is numbered 3.0.0 as well, are refused, too."""
    with pytest.raises(ValueError, match="no result"):
        device2005.decode_result(bytes(size))


# ---- dlm-node -----------------------------------------------------------------------------------


def test_a_node_request_s_bytes() -> None:
    """Version, node id, weight and address stand at 0, 12, 16 and 20 of 276 bytes."""
    address = encode_sockaddr("10.0.0.1")
    data = node2005.encode_node_request(node2005.NodeRequest(-1, 2, address))
    assert len(data) == 276
    assert struct.unpack_from("<3Iii", data) == (1, 0, 0, -1, 2)
    assert data[20:28] == b"\x02\0\0\0\x0a\0\0\x01"
    assert node2005.decode_node_request(data) == node2005.NodeRequest(-1, 2, address)
    assert node2005.decode_node_version(data) == (1, 0, 0)


def test_what_does_not_fit_a_node_request() -> None:
    """An address of 257 bytes, a node id of 33 bits and 275 bytes to read are ValueErrors."""
    with pytest.raises(ValueError, match="256"):
        node2005.encode_node_request(node2005.NodeRequest(1, 1, bytes(257)))
    with pytest.raises(ValueError, match="fit"):
        node2005.encode_node_request(node2005.NodeRequest(1 << 32, 1, b""))
    with pytest.raises(ValueError, match="275"):
        node2005.decode_node_request(bytes(275))


# ---- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1", 1), (b"1\n", 1), (b"1\0", 1), (b"010", 8), (b"0x10", 16), (b"0X1f\n", 31),
        (b"-5", -5), (b"-0x10", -16), (b"--5", 0), (b"+5", 0), (b" 5", 0), (b"", 0), (b"x", 0),
        (b"08", 0), (b"0x", 0), (b"0xg", 0), (b"12abc", 12), (b"1 2", 1), (b"1\x002", 1),
        (b"18446744073709551617", 1), (b"9223372036854775808", -(1 << 63)),
        (b"9" * 4000, 10**4000 - 1), (b"0" + b"7" * 4000, 8**4000 - 1),
        (b"0x" + b"f" * 4000, -1), (b"-" + b"9" * 4000, 1 - 10**4000),
    ],
)  # fmt: skip
def test_simple_strtol(text: bytes, number: int) -> None:
    """One minus, a base by prefix, stop at garbage, 0 without digits, wrap in 64 bits."""
    assert (parse_long(text) - number) % (1 << 64) == 0
    assert -(1 << 63) <= parse_long(text) < 1 << 63


MEMBERS = [
    (b"1 2 3", (1, 2, 3)), (b"1 2 3\0", (1, 2, 3)), (b"12abc", (12,)), (b"1 1", (1, 1)),
    (b"010", (10,)), (b"0x10", (0,)), (b"4294967297", (1,)), (b"1\x00", (1,)),
    (b"1 2 3\n", None), (b"1  2", None), (b" 1", None), (b"1 ", None), (b"1\t2", None),
    (b"-1", None), (b"x", None), (b"\0", None), (b"1\0 2", None), (b"+1", None), (b"1\n", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ids"), MEMBERS)
def test_members_as_written(text: bytes, ids: tuple[int, ...] | None) -> None:
    """Exactly one blank between two ids, no newline; a NUL at the end is fine."""
    if ids is None:
        with pytest.raises(OSError, match="no list") as caught:
            parse_members(text)
        assert caught.value.errno == errno.EINVAL
    else:
        assert parse_members(text) == ids


def test_members_as_read() -> None:
    """Each id and a blank, then a newline; nobody: the newline alone."""
    assert (format_members((1, 2)), format_members(())) == (b"1 2 \n", b"\n")
    assert attributes2005.parse_shown_members(b"1 2 \n") == (1, 2)


def test_the_attributes_of_april_and_july() -> None:
    """Names and modes are those of the document's tables."""
    assert {row.name: row.mode for row in attributes2005.ATTRIBUTES_EVENT} == {
        "stop": 0o644, "start": 0o644, "finish": 0o644, "terminate": 0o644, "done": 0o444,
        "id": 0o644, "members": 0o644,
    }  # fmt: skip
    assert {row.name: row.mode for row in attributes2005.ATTRIBUTES_MEMBERS} == {
        "control": 0o200, "event_done": 0o200, "id": 0o644, "members": 0o644,
    }  # fmt: skip


def test_a_directory_shows_63_bytes_of_a_name() -> None:
    """The name of the directory is cut to 63 bytes; no byte of it is replaced."""
    assert kobject_name("x" * 64) == "x" * 63
    assert kobject_name("a/b") == "a/b"
