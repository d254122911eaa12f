"""Guests for the tests of this directory, which run on this machine and steer them.

Decides: how long guests live, how a guest's death is told from a test's failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.guests import Guest, Lab
from tests.vm.link import GuestDiedError

GUEST_DIED = 33
"""The exit code of a session in which a guest died; tests/vm/run makes 3 of it."""

died = pytest.StashKey[bool]()
failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Give the guests of this run (``DLM_VM_KERNELS``), as the tests before left them."""
    kernels = os.environ.get("DLM_VM_KERNELS", "")
    if not kernels:
        pytest.skip("needs several guests: run tests/vm/run --cluster")
    with Lab(kernels.split(","), Path(os.environ["DLM_VM_RESULTS"])) as lab:
        yield lab


@pytest.fixture
def guests(lab: Lab, request: pytest.FixtureRequest) -> Iterator[list[Guest]]:
    """Give guests that have just booted: nodea, nodeb, nodec; their network is whole."""
    for each in lab.guests:
        each.port.connected = True
    yield lab.boot()
    lab.failed = request.session.stash.get(failed, False)
    lab.power_off()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Notice that a guest died, or that a test failed, whose guests' words are to be kept."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        item.session.stash[failed] = True
        if call.excinfo.errisinstance(GuestDiedError):
            item.session.stash[died] = True
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say in the exit code that a guest died."""
    if session.stash.get(died, False):
        session.exitstatus = GUEST_DIED
