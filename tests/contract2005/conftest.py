"""The two dialects of 2005."""

from __future__ import annotations

import pytest

from tests.contract2005.world import Machine, single

DIALECTS = ("event", "members")


@pytest.fixture(params=DIALECTS)
def abi(request: pytest.FixtureRequest) -> str:
    """Return each dialect in turn."""
    return str(request.param)


@pytest.fixture
def node(abi: str) -> Machine:
    """Return a configured node without lockspace, of each dialect in turn."""
    return single(abi)


@pytest.fixture
def april() -> Machine:
    """Return a configured node of April."""
    return single("event")


@pytest.fixture
def july() -> Machine:
    """Return a configured node of July."""
    return single("members")
