"""The vocabulary: numbers that are part of the kernel's ABI, and the kernel profiles."""

from __future__ import annotations

import dataclasses

import pytest

from dlm.terms import KERNELS, KERNELS_2005, KernelProfile, LockFlag, LockMode, RecoverStatus


def test_modes_are_ordered_from_weak_to_strong() -> None:
    """NL is 0 and EX is 5, in the order of the kernel's tables."""
    assert [mode.name for mode in sorted(LockMode)] == ["NL", "CR", "CW", "PR", "PW", "EX"]
    assert [int(mode) for mode in LockMode] == [0, 1, 2, 3, 4, 5]


def test_lock_flags_are_single_bits_without_gaps() -> None:
    """The nineteen lock flags are the bits 0 to 18, each once."""
    assert sorted(flag.value for flag in LockFlag) == [1 << bit for bit in range(19)]


@pytest.mark.parametrize(
    ("seen", "bits"),
    [
        (0xFF, RecoverStatus(0xFF)),
        (
            0x55,
            RecoverStatus.NODES | RecoverStatus.DIR | RecoverStatus.LOCKS | RecoverStatus.DONE,
        ),
    ],
)
def test_the_lowest_node_ends_at_ff_and_every_other_at_55(seen: int, bits: RecoverStatus) -> None:
    """The two values that a recovered lockspace shows are all bits, and those of one's own."""
    assert RecoverStatus(seen) == bits
    assert RecoverStatus.DONE in bits


def test_profiles_are_named_as_they_are_kept() -> None:
    """Each kernel profile is found under its own name."""
    assert {name: profile.name for name, profile in KERNELS.items()} == {
        name: name for name in ("5.10", "6.1", "6.12", "7.2")
    }


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(KernelProfile)])
def test_every_field_of_a_profile_tells_kernels_apart(field: str) -> None:
    """A field that is equal on all kernels would be no difference."""
    profiles = [*KERNELS.values(), *KERNELS_2005.values()]
    assert len({getattr(profile, field) for profile in profiles}) > 1
