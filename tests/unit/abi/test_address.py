"""Node addresses as configfs takes and shows them."""

from __future__ import annotations

import ipaddress
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.address import (
    SOCKADDR_SIZE,
    UNKNOWN,
    decode_sockaddr,
    encode_sockaddr,
    format_address_line,
    parse_address_list,
)


def family(number: int) -> bytes:
    """Return the first two bytes of an address: its family in this machine's byte order."""
    return number.to_bytes(2, sys.byteorder)


def test_an_ipv4_address_is_a_sockaddr_in() -> None:
    """Family 2, port 0, four bytes, zeros up to 128."""
    expected = family(2) + bytes(2) + bytes([10, 0, 0, 1])
    assert encode_sockaddr("10.0.0.1") == expected.ljust(128, b"\0")


def test_an_ipv6_address_is_a_sockaddr_in6() -> None:
    """Family 10, port 0, flow 0, sixteen bytes, zeros up to 128."""
    packed = bytes.fromhex("fe80000000000000 0000000000010002")
    expected = family(10) + bytes(6) + packed
    assert encode_sockaddr("fe80::1:2") == expected.ljust(128, b"\0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodea",
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0.1/8",
        "10.0.0.1:21064",
        " 10.0.0.1",
        "10.0.0.1\n",
        "10.0.0.1\0",
        "fe80::1%eth0",
        "[::1]",
        "::1::",
        UNKNOWN,
    ],
)
def test_what_is_no_address_is_a_value_error(text: str) -> None:
    """Names, masks, ports, scopes and rubbish are refused before anything is written."""
    with pytest.raises(ValueError, match="neither an IPv4 nor an IPv6 address"):
        encode_sockaddr(text)


@given(st.ip_addresses())
def test_addresses_survive_encoding(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Any address is decoded and listed as itself."""
    raw = encode_sockaddr(str(address))
    decoded = decode_sockaddr(raw)
    assert decoded is not None
    assert ipaddress.ip_address(decoded) == address
    listed = parse_address_list(format_address_line(raw))
    assert [ipaddress.ip_address(each) for each in listed] == [address]


def test_the_lines_of_addr_list_are_the_kernel_s() -> None:
    """IPv4 dotted, IPv6 with all its digits, another family unknown."""
    assert format_address_line(encode_sockaddr("127.0.0.1")) == "AF_INET\t127.0.0.1\n"
    line = "AF_INET6\tfe80:0000:0000:0000:0000:0000:0001:0002\n"
    assert format_address_line(encode_sockaddr("fe80::1:2")) == line
    assert format_address_line(family(1) + bytes(126)) == "<UNKNOWN>\n"


def test_a_list_is_read_in_its_order_in_short_forms() -> None:
    """Each line gives one address; an unknown family stays visible."""
    text = b"AF_INET\t10.0.0.1\nAF_INET6\tfe80:0000:0000:0000:0000:0000:0001:0002\n<UNKNOWN>\n"
    assert parse_address_list(text) == ["10.0.0.1", "fe80::1:2", UNKNOWN]
    assert parse_address_list("") == []


def test_another_family_decodes_to_nothing() -> None:
    """An address of family 1 is None; bytes of another length are no address."""
    assert decode_sockaddr(family(1) + bytes(126)) is None
    with pytest.raises(ValueError, match="128 bytes"):
        decode_sockaddr(bytes(SOCKADDR_SIZE - 1))
