"""Fixtures of the contract suite: a clean machine for each test, in the world that was asked for.

Decides: which tests run where, and why the others are skipped.
May not know: what any test asserts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dlm.terms import KERNELS, KernelProfile
from tests.contract.machine import LockFile, Lockspace, Machine
from tests.contract.worlds import EmulatedWorld, KernelWorld, World, profile_of

ENVIRONMENT = os.environ.get("DLM_CONTRACT", "emulator,fakefs").split(",")
"""The worlds of this run, one after the other for each test."""

DEFAULT = KERNELS["6.1"]
"""The kernel of the worlds that take a test only once, where it is one of those the test is for."""


def _remote(profile: KernelProfile) -> World:
    from tests.contract.remote_world import RemoteWorld  # noqa: PLC0415 - not in the guest

    return RemoteWorld(profile)


def _fakefs(profile: KernelProfile) -> World:
    from tests.contract.fakefs_world import FakeFsWorld  # noqa: PLC0415 - not in the guest

    return FakeFsWorld(profile)


WORLDS: dict[str, Callable[[KernelProfile], World]] = {
    "emulator": EmulatedWorld,
    "fakefs": _fakefs,
    "kernel": lambda _: KernelWorld(),
    "remote": _remote,
}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's own markers, and refuse a world that there is not."""
    if unknown := [each for each in ENVIRONMENT if each not in WORLDS]:
        raise pytest.UsageError(f"DLM_CONTRACT={unknown[0]}: say {', '.join(WORLDS)}")
    config.addinivalue_line(
        "markers",
        "emulator_only(why, field=value, ...): a real kernel (whose profile says so) cannot be"
        " asked, for this reason",
    )
    config.addinivalue_line(
        "markers", "profile(field=value, ...): only for kernels whose KernelProfile says so"
    )
    config.addinivalue_line(
        "markers", "reload: leaves behind what only reloading the kernel's module undoes"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take a test to each world, and in the emulator to each kernel that the test is for."""
    if "world" not in metafunc.fixturenames:
        return
    wanted = {}
    for mark in metafunc.definition.iter_markers("profile"):
        wanted |= mark.kwargs
    suitable = [each for each in KERNELS.values() if _is_like(each, wanted)]
    one = DEFAULT if DEFAULT in suitable else suitable[-1]
    chosen = []
    for world in ENVIRONMENT:
        if world == "kernel":
            mine = profile_of(platform.release())
            skip = pytest.mark.skipif(
                mine not in suitable, reason=f"not a fact of this kernel ({mine.name}): {wanted}"
            )
            chosen.append(pytest.param((world, mine), id="kernel", marks=skip))
        else:
            profiles = suitable if world == "emulator" else [one]
            chosen += [pytest.param((world, each), id=f"{world}-{each.name}") for each in profiles]
    metafunc.parametrize("world", chosen, indirect=True)


def _is_like(profile: KernelProfile, wanted: dict[str, object]) -> bool:
    return all(getattr(profile, field) == value for field, value in wanted.items())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run in this world."""
    on_kernel = "kernel" in ENVIRONMENT
    for marker in item.iter_markers("emulator_only"):
        if on_kernel and _is_like(profile_of(platform.release()), marker.kwargs):
            pytest.skip(f"emulator only: {marker.args[0]}")
    if not on_kernel and item.get_closest_marker("kernel") is not None:
        pytest.skip("needs a real kernel: run `make vm`")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One node, as clean as after boot."""
    if KernelWorld.wrecked:
        pytest.fail(KernelWorld.wrecked)
    name, profile = request.param
    world = WORLDS[name](profile)
    yield world
    world.finish(reload=request.node.get_closest_marker("reload") is not None)


@pytest.fixture
def profile(world: World) -> KernelProfile:
    """What the node's kernel is like, where kernels differ."""
    return world.profile


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
