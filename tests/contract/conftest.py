"""Fixtures of the contract suite: a clean machine for each test, in the world that was asked for.

Decides: which tests run where, and why the others are skipped.
May not know: what any test asserts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.contract.machine import LockFile, Lockspace, Machine
from tests.contract.worlds import EmulatedWorld, KernelWorld, World

ENVIRONMENT = os.environ.get("DLM_CONTRACT", "emulator,fakefs").split(",")
"""The worlds of this run, one after the other for each test."""


def _remote() -> World:
    from tests.contract.remote_world import RemoteWorld  # noqa: PLC0415 - not in the guest

    return RemoteWorld()


def _fakefs() -> World:
    from tests.contract.fakefs_world import FakeFsWorld  # noqa: PLC0415 - not in the guest

    return FakeFsWorld()


WORLDS: dict[str, Callable[[], World]] = {
    "emulator": EmulatedWorld,
    "fakefs": _fakefs,
    "kernel": KernelWorld,
    "remote": _remote,
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's own markers, and refuse a world that there is not."""
    if unknown := [each for each in ENVIRONMENT if each not in WORLDS]:
        raise pytest.UsageError(f"DLM_CONTRACT={unknown[0]}: say {', '.join(WORLDS)}")
    config.addinivalue_line(
        "markers", "emulator_only(why): the real kernel cannot be asked, for this reason"
    )
    config.addinivalue_line(
        "markers", "reload: leaves behind what only reloading the kernel's module undoes"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run in this world."""
    on_kernel = "kernel" in ENVIRONMENT
    marker = item.get_closest_marker("emulator_only")
    if on_kernel and marker is not None:
        pytest.skip(f"emulator only: {marker.args[0]}")
    if not on_kernel and item.get_closest_marker("kernel") is not None:
        pytest.skip("needs a real kernel: run `make vm`")


@pytest.fixture(params=ENVIRONMENT)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One node, as clean as after boot."""
    if KernelWorld.wrecked:
        pytest.fail(KernelWorld.wrecked)
    world = WORLDS[request.param]()
    yield world
    world.finish(reload=request.node.get_closest_marker("reload") is not None)


@pytest.fixture
def machine(world: World) -> Machine:
    """A process on a node where nothing is configured."""
    return world.machine()


@pytest.fixture
def other(world: World, machine: Machine) -> Machine:  # noqa: ARG001 - the first process is first
    """A second process on the node of ``machine``."""
    return world.machine()


@pytest.fixture
def lockspace(machine: Machine) -> Lockspace:
    """A lockspace ``test`` that runs, with this node, 1, as its only member."""
    return machine.bring_up("test")


@pytest.fixture
def file(lockspace: Lockspace) -> LockFile:
    """An open file on that lockspace."""
    return lockspace.open()


@dataclass(frozen=True)
class Pair:
    """Two nodes with a lockspace ``test`` that runs on both."""

    first: Lockspace
    second: Lockspace
