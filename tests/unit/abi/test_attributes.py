"""The table of attributes and the numbers that the kernel reads from texts."""

from __future__ import annotations

import dataclasses
import errno
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.attributes import (
    ATTRIBUTES,
    CLUSTER,
    COMM,
    LOCKSPACE,
    NODE,
    SPACE,
    Attribute,
    Parse,
    attributes_of,
    find_attribute,
    parse_signed,
    parse_unsigned,
)
from dlm.terms import KERNELS, KernelProfile

K5_10, K6_1, K6_12, K7_2 = (KERNELS[name] for name in ("5.10", "6.1", "6.12", "7.2"))


def outcome(attribute: Attribute, text: bytes) -> object:
    """Return the value that a write is read as, or the name of its errno."""
    try:
        return attribute.parse_value(text)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def found(path: str, profile: KernelProfile = K6_1) -> Attribute:
    """Return the attribute of a path that has one."""
    result = find_attribute(path, profile)
    assert result is not None, path
    return result[0]


# ---- numbers ------------------------------------------------------------------------------------


def number(text: bytes, *, signed: bool = False) -> object:
    """Return the number of a text, or the name of the errno."""
    try:
        return parse_signed(text) if signed else parse_unsigned(text)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.mark.parametrize(
    ("text", "signed", "unsigned"),
    [
        (b"0", 0, 0),
        (b"1\n", 1, 1),
        (b"+7", 7, 7),
        (b"-7", -7, "EINVAL"),
        (b"-0", 0, "EINVAL"),
        (b"0x10", 16, 16),
        (b"0XfF\n", 255, 255),
        (b"-0x10", -16, "EINVAL"),
        (b"010", 8, 8),
        (b"08", "EINVAL", "EINVAL"),
        (b"0x", "EINVAL", "EINVAL"),
        (b"0xg", "EINVAL", "EINVAL"),
        (b"", "EINVAL", "EINVAL"),
        (b"\n", "EINVAL", "EINVAL"),
        (b"+", "EINVAL", "EINVAL"),
        (b"-", "EINVAL", "EINVAL"),
        (b"+-1", "EINVAL", "EINVAL"),
        (b"-+1", "EINVAL", "EINVAL"),
        (b" 1", "EINVAL", "EINVAL"),
        (b"1 ", "EINVAL", "EINVAL"),
        (b"1\n\n", "EINVAL", "EINVAL"),
        (b"1_000", "EINVAL", "EINVAL"),
        (b"1\x00 and what follows", 1, 1),
        (b"2147483647", 2147483647, 2147483647),
        (b"2147483648", "ERANGE", 2147483648),
        (b"-2147483648", -2147483648, "EINVAL"),
        (b"-2147483649", "ERANGE", "EINVAL"),
        (b"4294967295", "ERANGE", 4294967295),
        (b"4294967296", "ERANGE", "ERANGE"),
        (b"18446744073709551615", "ERANGE", "ERANGE"),
        (b"18446744073709551616", "ERANGE", "ERANGE"),
        (b"4294967296x", "EINVAL", "EINVAL"),
        (b"18446744073709551616x", "ERANGE", "ERANGE"),
        (b"0" * 3000 + b"17", 15, 15),
        (b"9" * 4095, "ERANGE", "ERANGE"),
    ],
)
def test_numbers_are_read_as_kstrtoint_and_kstrtouint_read_them(
    text: bytes, signed: object, unsigned: object
) -> None:
    """Base 0, one sign, one newline; too large beyond 64 bits wins over what follows."""
    assert (number(text, signed=True), number(text)) == (signed, unsigned)


def kstrto(text: bytes, *, signed: bool) -> object:
    """Read a number digit by digit, as lib/kstrtox.c is laid out: an independent reading."""
    text = text.split(b"\0")[0] + b"\0\0\0"
    at, minus = 0, False
    if signed and text[:1] == b"-":
        at, minus = 1, True
    elif text[:1] == b"+":
        at = 1
    base, digits = 10, b"0123456789"
    if text[at : at + 1] == b"0":
        base, digits = 8, b"01234567"
        if text[at + 1 : at + 2] in b"xX" and text[at + 2 : at + 3] in b"0123456789abcdefABCDEF":
            base, digits, at = 16, b"0123456789abcdef", at + 2
    value, start = 0, at
    while text[at : at + 1].lower() in digits and text[at : at + 1] != b"":
        value = value * base + digits.index(text[at : at + 1].lower())
        at += 1
    if value >= 2**64:
        return "ERANGE"
    if at == start or text[at:].rstrip(b"\0") not in {b"", b"\n"}:
        return "EINVAL"
    value = -value if minus else value
    low, high = (-(2**31), 2**31) if signed else (0, 2**32)
    return value if low <= value < high else "ERANGE"


number_like = st.builds(
    lambda sign, prefix, digits, end: (sign + prefix + digits + end).encode(),
    st.sampled_from(["", "+", "-", "+-", " "]),
    st.sampled_from(["", "0x", "0X", "0", "0x0"]),
    st.text(alphabet=string.hexdigits + "gx", max_size=22)
    | st.integers(0, 2**66).map(str)
    | st.integers(2**32 - 3, 2**32 + 3).map(str)
    | st.integers(2**31 - 3, 2**31 + 3).map(str),
    st.sampled_from(["", "\n", "\n\n", " ", "z", "\0", "\0x"]),
)


@given(text=number_like, signed=st.booleans())
def test_numbers_agree_with_an_independent_reading(text: bytes, *, signed: bool) -> None:
    """The table of rules and a digit-by-digit reading give the same number or errno."""
    assert number(text, signed=signed) == kstrto(text, signed=signed)


# ---- the rows of §1 and §2 -----------------------------------------------------------------------

# path: mode, what a fresh one shows (None: cannot be read or has nothing to show), on 6.1
ROWS_6_1 = {
    "config/dlm/c/tcp_port": (0o644, b"21064\n"),
    "config/dlm/c/buffer_size": (0o644, b"4096\n"),
    "config/dlm/c/rsbtbl_size": (0o644, b"1024\n"),
    "config/dlm/c/recover_timer": (0o644, b"5\n"),
    "config/dlm/c/toss_secs": (0o644, b"10\n"),
    "config/dlm/c/scan_secs": (0o644, b"5\n"),
    "config/dlm/c/log_debug": (0o644, b"0\n"),
    "config/dlm/c/log_info": (0o644, b"1\n"),
    "config/dlm/c/protocol": (0o644, b"0\n"),
    "config/dlm/c/mark": (0o644, b"0\n"),
    "config/dlm/c/new_rsb_count": (0o644, b"128\n"),
    "config/dlm/c/recover_callbacks": (0o644, b"0\n"),
    "config/dlm/c/cluster_name": (0o644, b"\n"),
    "config/dlm/c/comms/1/nodeid": (0o644, b"-1\n"),
    "config/dlm/c/comms/1/local": (0o644, b"0\n"),
    "config/dlm/c/comms/1/addr": (0o200, None),
    "config/dlm/c/comms/1/addr_list": (0o444, b""),
    "config/dlm/c/comms/1/mark": (0o644, b"0\n"),
    "config/dlm/c/spaces/test/nodes/1/nodeid": (0o644, b"-1\n"),
    "config/dlm/c/spaces/test/nodes/1/weight": (0o644, b"1\n"),
    "dlm/test/control": (0o200, None),
    "dlm/test/event_done": (0o200, None),
    "dlm/test/id": (0o644, b"0\n"),
    "dlm/test/nodir": (0o644, b"0\n"),
    "dlm/test/recover_status": (0o444, b"0\n"),
    "dlm/test/recover_nodeid": (0o444, b"0\n"),
}


@pytest.mark.parametrize("path", sorted(ROWS_6_1))
def test_modes_and_defaults_are_those_of_6_1(path: str) -> None:
    """Each file of a 6.1 kernel has its mode, and a fresh one shows its default."""
    mode, shown = ROWS_6_1[path]
    attribute = found(path)
    assert attribute.mode == mode
    if shown is None:
        assert attribute.show is None
    else:
        assert attribute.default is not None
        assert attribute.show_value(attribute.default) == shown


def test_6_1_has_no_other_attributes() -> None:
    """The table's rows for 6.1 are those and no others."""
    names = {"cluster": "c", "comm": "1", "node": "1", "lockspace": "test"}
    paths = [each.pattern.format(**names) for each in ATTRIBUTES if each.exists_on(K6_1)]
    assert sorted(paths) == sorted(ROWS_6_1)


@pytest.mark.parametrize(
    ("path", "kernels"),
    [
        ("config/dlm/c/timewarn_cs", ["5.10"]),
        ("config/dlm/c/waitwarn_us", ["5.10"]),
        ("config/dlm/c/spaces/t/nodes/1/release_recover", ["7.2"]),
        ("config/dlm/c/log_info", ["5.10", "6.1", "6.12", "7.2"]),
    ],
)
def test_kernels_differ_in_their_files(path: str, kernels: list[str]) -> None:
    """timewarn_cs and waitwarn_us are gone after 5.10; release_recover came in 6.18."""
    assert [name for name, profile in KERNELS.items() if find_attribute(path, profile)] == kernels


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("config/dlm/c/tcp_port", b"0", "EINVAL"),
        ("config/dlm/c/tcp_port", b"70000", 70000),
        ("config/dlm/c/buffer_size", b"4095", "EINVAL"),
        ("config/dlm/c/buffer_size", b"4096", 4096),
        ("config/dlm/c/rsbtbl_size", b"0", "EINVAL"),
        ("config/dlm/c/recover_timer", b"0", "EINVAL"),
        ("config/dlm/c/toss_secs", b"0", "EINVAL"),
        ("config/dlm/c/scan_secs", b"0", "EINVAL"),
        ("config/dlm/c/new_rsb_count", b"0", 0),
        ("config/dlm/c/log_debug", b"7", 7),
        ("config/dlm/c/protocol", b"1", 1),
        ("config/dlm/c/protocol", b"2", "EINVAL"),
        ("config/dlm/c/mark", b"-1", "EINVAL"),
        ("config/dlm/c/cluster_name", b"foo\n", b"foo\n"),
        ("config/dlm/c/cluster_name", b"x" * 70, b"x" * 63),
        ("config/dlm/c/comms/1/nodeid", b"-5\n", -5),
        ("config/dlm/c/comms/1/nodeid", b"4294967295", "ERANGE"),
        ("config/dlm/c/comms/1/addr", bytes(127), "EINVAL"),
        ("config/dlm/c/comms/1/addr", bytes(129), "EINVAL"),
        ("config/dlm/c/comms/1/addr", bytes(128), bytes(128)),
        ("config/dlm/c/comms/1/addr_list", b"x", "EACCES"),
        ("config/dlm/c/spaces/t/nodes/1/weight", b"-1", -1),
        ("dlm/t/control", b"0", 0),
        ("dlm/t/control", b"1\n", 1),
        ("dlm/t/control", b"2", "EINVAL"),
        ("dlm/t/control", b"-1", "EINVAL"),
        ("dlm/t/control", b"x", "EINVAL"),
        ("dlm/t/control", b"", "EINVAL"),
        ("dlm/t/control", b"99999999999", "ERANGE"),
        ("dlm/t/event_done", b"-9", -9),
        ("dlm/t/id", b"0xffffffff", 0xFFFFFFFF),
        ("dlm/t/id", b"-1", "EINVAL"),
        ("dlm/t/nodir", b"5", 5),
        ("dlm/t/recover_status", b"1", "EACCES"),
    ],
)
def test_writes_are_read_and_checked_as_6_1_does(path: str, text: bytes, expected: object) -> None:
    """The value, or the errno, of a write, by the rules of the attribute alone."""
    assert outcome(found(path), text) == expected


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("config/dlm/c/tcp_port", b"65536", "ERANGE"),
        ("config/dlm/c/tcp_port", b"65535", 65535),
        ("config/dlm/c/comms/1/nodeid", b"whatever", None),
        ("config/dlm/c/spaces/t/nodes/1/nodeid", b"", None),
        ("config/dlm/c/spaces/t/nodes/1/release_recover", b"-1", "EINVAL"),
    ],
)
def test_writes_since_6_13(path: str, text: bytes, expected: object) -> None:
    """A port has 16 bits, a node id is the directory's name and writing it does nothing."""
    assert outcome(found(path, K7_2), text) == expected


def test_what_cannot_be_read_is_eacces() -> None:
    """A file without a format is EACCES to read."""
    with pytest.raises(OSError, match="cannot be read") as caught:
        found("dlm/t/control").show_value(1)
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("dlm/t/recover_status", 0xFF, b"ff\n"),
        ("dlm/t/id", 5, b"5\n"),
        ("config/dlm/c/comms/1/nodeid", -3, b"-3\n"),
        ("config/dlm/c/cluster_name", b"foo\n", b"foo\n\n"),
        ("config/dlm/c/comms/1/addr_list", "AF_INET\t10.0.0.1\n", b"AF_INET\t10.0.0.1\n"),
    ],
)
def test_values_are_shown_in_the_kernel_s_format(
    path: str, value: int | str | bytes, expected: bytes
) -> None:
    """recover_status is hexadecimal, the cluster's name gets a newline more, and so on."""
    assert found(path).show_value(value) == expected


# ---- the table as a whole -----------------------------------------------------------------------


def test_finding_an_attribute_tells_what_the_pattern_captured() -> None:
    """A path gives its attribute and the names in it."""
    result = find_attribute("config/dlm/cluster/spaces/test/nodes/2/weight", K6_1)
    assert result is not None
    attribute, fields = result
    assert (attribute.name, attribute.directory) == ("weight", NODE)
    assert fields == {"cluster": "cluster", "lockspace": "test", "node": "2"}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "dlm",
        "dlm/test",
        "dlm/test/controls",
        "dlm/test/x/control",
        "config/dlm/cluster/comms/nodeid",
        "config/dlm/cluster/spaces/1/nodeid",
        "config/dlm/cluster/other/1/nodeid",
        "debug/dlm/test_all",
    ],
)
def test_other_paths_have_no_attribute(path: str) -> None:
    """A path that no row matches gives None."""
    assert find_attribute(path, K6_1) is None


@pytest.mark.parametrize("profile", KERNELS.values(), ids=list(KERNELS))
def test_every_attribute_is_found_once_by_path_and_by_directory(profile: KernelProfile) -> None:
    """On every kernel, each path has one row, and the directories' lists hold them all."""
    here = [each for each in ATTRIBUTES if each.exists_on(profile)]
    assert len({each.pattern for each in here}) == len(here)
    for attribute in here:
        assert found(attribute.pattern, profile) is attribute
    listed = [
        each for kind in (CLUSTER, COMM, NODE, LOCKSPACE) for each in attributes_of(kind, profile)
    ]
    assert listed == here
    assert attributes_of(SPACE, profile) == ()


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda each: f"{each.pattern}-{each.kernels}")
def test_every_row_agrees_with_itself(attribute: Attribute) -> None:
    """Mode, parse rule, format and default of a row fit together, and it holds somewhere."""
    assert attribute.kernels
    assert bool(attribute.mode & 0o200) == (attribute.parse is not None)
    assert bool(attribute.mode & 0o444) == (attribute.show is not None)
    fields = {field.name for field in dataclasses.fields(KernelProfile)}
    assert {attribute.needs, attribute.lacks} <= fields | {""}
    if isinstance(attribute.default, int) and attribute.parse not in {None, Parse.IGNORED}:
        assert attribute.parse_value(str(attribute.default).encode()) == attribute.default


def test_only_the_cluster_s_numbers_need_a_privilege() -> None:
    """Every number of a cluster asks for CAP_SYS_ADMIN, its name does not, nor does the rest."""
    privileged = {each.name for each in ATTRIBUTES if each.privileged}
    numbers = {each.name for each in ATTRIBUTES if each.directory == CLUSTER} - {"cluster_name"}
    assert privileged == numbers


def test_port_and_protocol_cannot_change_while_running() -> None:
    """tcp_port and protocol are EBUSY while the machine has a lockspace."""
    busy = {each.pattern for each in ATTRIBUTES if each.busy_while_running}
    assert busy == {f"{CLUSTER}/tcp_port", f"{CLUSTER}/protocol"}


def test_profiles_are_the_ones_that_the_rows_name() -> None:
    """The kernels of a row are told by name."""
    assert found("config/dlm/c/timewarn_cs", K5_10).kernels == ("5.10",)
    assert found("config/dlm/c/comms/1/nodeid", K6_12).kernels == ("5.10", "6.1", "6.12")
