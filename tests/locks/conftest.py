"""Fixtures of the lock API's tests: a lockspace ``test`` that runs, in each world.

Decides: which worlds a run has. ``DLM_CONTRACT=kernel`` (as root, in a guest: ``make vm``) takes
the machine's own kernel, everything else the emulator.
May not know: what any test asserts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.contract.worlds import KernelWorld
from tests.locks.worlds import EmulatedWorld, Places, RealWorld, ServedWorld

ON_KERNEL = "kernel" in os.environ.get("DLM_CONTRACT", "").split(",")

WORLDS: dict[str, Callable[..., Places]] = {
    "emulator": EmulatedWorld,
    "served": ServedWorld,
    "kernel": RealWorld,
}


def _open(name: str, nodes: tuple[int, ...]) -> Iterator[Places]:
    if KernelWorld.wrecked:
        pytest.fail(KernelWorld.wrecked)
    world = WORLDS[name](nodes)
    yield world
    world.finish()


@pytest.fixture(params=["kernel"] if ON_KERNEL else ["emulator", "served"])
def world(request: pytest.FixtureRequest) -> Iterator[Places]:
    """One node."""
    yield from _open(request.param, (1,))


@pytest.fixture(params=["kernel"] if ON_KERNEL else ["served"])
def live(request: pytest.FixtureRequest) -> Iterator[Places]:
    """One node in real time, for tests with threads."""
    yield from _open(request.param, (1,))


@pytest.fixture
def emulated() -> Iterator[EmulatedWorld]:
    """One emulated node in virtual time, for tests that force what a kernel leaves to chance."""
    if ON_KERNEL:
        pytest.skip("emulator only: forces an order of events that a kernel leaves to chance")
    world = EmulatedWorld((1,))
    yield world
    world.finish()


@pytest.fixture
def three() -> Iterator[EmulatedWorld]:
    """Three nodes in virtual time."""
    if ON_KERNEL:
        pytest.skip("emulator only: needs three nodes")
    world = EmulatedWorld((1, 2, 3))
    yield world
    world.finish()
