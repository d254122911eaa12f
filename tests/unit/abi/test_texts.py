"""/proc/misc, uevents, names and ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.abi.texts import (
    directory_name,
    format_misc,
    format_uevent,
    global_id,
    parse_misc,
    parse_uevent,
)
from dlm.ports import Uevent

MISC = "121 dlm_test\n122 dlm_plock\n  1 psaux\n1023 far\n"


def test_misc_lines_have_a_minor_in_three_columns_and_a_name() -> None:
    """A line is ``%3d name``; the order is the file's."""
    minors = {"dlm_test": 121, "dlm_plock": 122, "psaux": 1, "far": 1023}
    assert parse_misc(MISC) == minors
    assert list(parse_misc(MISC.encode())) == list(minors)
    assert format_misc(minors) == MISC


ADD = Uevent(
    "add@/kernel/dlm/test",
    (
        ("ACTION", "add"),
        ("DEVPATH", "/kernel/dlm/test"),
        ("SUBSYSTEM", "dlm"),
        ("LOCKSPACE", "test"),
        ("SEQNUM", "1234"),
    ),
)
ADD_DATAGRAM = (
    b"add@/kernel/dlm/test\0ACTION=add\0DEVPATH=/kernel/dlm/test\0SUBSYSTEM=dlm\0"
    b"LOCKSPACE=test\0SEQNUM=1234\0"
)


def test_a_uevent_is_a_header_and_keys_that_end_in_nul() -> None:
    """The first event of a create, byte for byte."""
    assert format_uevent(ADD) == ADD_DATAGRAM
    assert parse_uevent(ADD_DATAGRAM) == ADD


words = st.text(
    st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=9
)


@given(words, st.lists(st.tuples(words, words)))
def test_uevents_survive(path: str, pairs: list[tuple[str, str]]) -> None:
    """Any header and keys come back as they were."""
    event = Uevent(f"change@{path}", tuple(pairs))
    assert parse_uevent(format_uevent(event)) == event


def test_a_value_may_hold_an_equals_sign() -> None:
    """Only the first ``=`` divides key and value."""
    assert parse_uevent(b"add@/x\0A=b=c\0").env == (("A", "b=c"),)


def test_udev_s_own_messages_are_no_kernel_events() -> None:
    """A datagram without ``action@path`` is a ValueError."""
    with pytest.raises(ValueError, match="no kernel event"):
        parse_uevent(b"libudev\0\xfe\xed\xca\xfe")


def test_a_slash_in_a_lockspace_s_name_is_an_exclamation_mark_in_its_directory() -> None:
    """``a/b`` has the directory ``a!b``."""
    assert directory_name("a/b/c") == "a!b!c"
    assert directory_name("test") == "test"


def test_global_ids_are_dlm_controld_s() -> None:
    """The id is the crc32 of ``dlm:ls:<name>`` with its NUL; that of lvm_global is known."""
    assert global_id("lvm_global") == 0x12AABD2D
