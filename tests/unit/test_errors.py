"""The error tree: what is caught as what, and what the messages say."""

from __future__ import annotations

import errno

import pytest

from dlm.errors import (
    ControlledError,
    DlmError,
    NoDlmError,
    RefusedError,
    StalledError,
    TimedOutError,
    UsageError,
    errno_name,
)
from dlm.terms import ECANCEL, EUNLOCK


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (errno.EINVAL, "EINVAL"),
        (-errno.EAGAIN, "EAGAIN"),
        (errno.EBADE, "EBADE"),
        (-ECANCEL, "DLM_ECANCEL"),
        (EUNLOCK, "DLM_EUNLOCK"),
        (99999, "99999"),
        (0, "0"),
    ],
)
def test_errnos_and_statuses_have_their_symbols(number: int, name: str) -> None:
    """Either sign is named; a number that nobody knows is shown in decimal."""
    assert errno_name(number) == name


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (UsageError("x"), ValueError),
        (RefusedError(errno.EBUSY, "x"), OSError),
        (ControlledError(errno.EBUSY, "x"), RefusedError),
        (TimedOutError("x"), TimeoutError),
        (NoDlmError("x"), DlmError),
        (StalledError("x"), DlmError),
    ],
)
def test_every_error_is_a_dlm_error_and_python_s_own_kind(
    error: DlmError, also: type[Exception]
) -> None:
    """Callers catch all of them as DlmError, or each as the built-in that fits."""
    assert isinstance(error, DlmError)
    assert isinstance(error, also)


def test_a_refusal_names_its_errno() -> None:
    """The sentence ends with the errno's symbol; the number is in ``errno``."""
    error = RefusedError(errno.EINVAL, "start test 3: refused")
    assert error.errno == errno.EINVAL
    assert str(error) == "start test 3: refused (EINVAL)"


def test_a_refusal_half_way_says_which_writes_were_made() -> None:
    """What had been written before the refusal is listed in order."""
    error = RefusedError(errno.ENOSPC, "set_node 1: refused", ("nodeid", "addr"))
    assert error.written == ("nodeid", "addr")
    assert str(error) == "set_node 1: refused (ENOSPC); already written: nodeid, addr"


def test_a_missing_dlm_comes_with_advice() -> None:
    """What to do about it follows the fact."""
    assert (
        str(NoDlmError("no DLM here", "load the module dlm")) == "no DLM here; load the module dlm"
    )
    assert str(NoDlmError("no DLM here")) == "no DLM here"


def test_a_time_out_says_what_still_waits() -> None:
    """The call that the kernel cannot give up is named apart from the message."""
    error = TimedOutError("create test: 5 s are over", "the CREATE_LOCKSPACE of test")
    assert (str(error), error.waiting) == (
        "create test: 5 s are over",
        "the CREATE_LOCKSPACE of test",
    )


def test_a_stalled_world_shows_its_last_events() -> None:
    """The trace follows the message, oldest first."""
    error = StalledError("nothing can end this wait", ("node 1 stops", "node 1 locks"))
    assert str(error) == "nothing can end this wait\nnode 1 stops\nnode 1 locks"
    assert error.trace == ("node 1 stops", "node 1 locks")
