"""Value blocks through the lock API: who writes, who reads, and when nobody may trust them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from dlm.locks import Lock, Lockspace, LockUsageError
from dlm.terms import LockMode
from tests.locks.worlds import NAME, Places

NL, CR, CW, PR, PW, EX = LockMode


@pytest.fixture
def first(world: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        yield lockspace


@pytest.fixture
def second(world: Places) -> Iterator[Lockspace]:
    """Another one."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        yield lockspace


def padded(text: bytes) -> bytes:
    """Return a whole value block."""
    return text.ljust(32, b"\0")


def written(space: Lockspace) -> Lock:
    """Write a value once; return a lock in NL that keeps it."""
    lock = space.lock("res", EX, value_block=True)
    lock.value = b"first"
    lock.convert(NL)
    return lock


def test_nobody_has_written_yet(first: Lockspace) -> None:
    """A resource that nobody has written has 32 zeros, and they are valid."""
    with first.lock("res", PR, value_block=True) as lock:
        assert lock.value == bytes(32)
        assert lock.value_valid


def test_unlock_writes_what_the_next_lock_reads(first: Lockspace, second: Lockspace) -> None:
    """A value set under EX is written by the unlock and read with the next lock."""
    with second.lock("res", NL), first.lock("res", EX, value_block=True) as lock:
        lock.value = b"seven"
        lock.unlock()
        with second.lock("res", PR, value_block=True) as reader:
            assert reader.value == padded(b"seven")


@pytest.mark.parametrize("mode", [PR, CR, NL, EX])
def test_a_conversion_that_does_not_rise_writes(
    first: Lockspace, second: Lockspace, mode: LockMode
) -> None:
    """From EX to any mode, EX itself too, the value is written at once."""
    with first.lock("res", EX, value_block=True) as lock:
        lock.value = b"eight"
        lock.convert(mode)
        lock.convert(NL)
        with second.lock("res", PR, value_block=True) as reader:
            assert reader.value == padded(b"eight")


def test_a_conversion_that_rises_reads(first: Lockspace, second: Lockspace) -> None:
    """A lock that keeps its place in NL sees each new value when it is converted to PR."""
    with first.lock("res", NL, value_block=True) as lock:
        for text in (b"one", b"two"):
            with second.lock("res", EX, value_block=True) as writer:
                writer.value = text
            lock.convert(PR)
            assert lock.value == padded(text)
            lock.convert(NL)


def test_pw_writes_too(first: Lockspace, second: Lockspace) -> None:
    """PW is a mode that writes."""
    with second.lock("res", NL), first.lock("res", PW, value_block=True) as lock:
        lock.value = b"nine"
        lock.unlock()
        with second.lock("res", PR, value_block=True) as reader:
            assert reader.value == padded(b"nine")


@pytest.mark.parametrize("mode", [NL, CR, CW, PR])
def test_weaker_modes_may_not_set(first: Lockspace, mode: LockMode) -> None:
    """What could never be written is refused when it is set, and nothing is lost."""
    with first.lock("res", mode, value_block=True) as lock:
        with pytest.raises(LockUsageError):
            lock.value = b"never"
        assert lock.value == bytes(32)


def test_a_lock_without_value_block_has_none_to_set(first: Lockspace) -> None:
    """Without ``value_block=True`` there is nothing to set."""
    with first.lock("res", EX) as lock, pytest.raises(LockUsageError):
        lock.value = b"never"


def test_more_than_32_bytes_are_refused(first: Lockspace) -> None:
    """33 bytes do not fit; the value stays as it was."""
    with first.lock("res", EX, value_block=True) as lock:
        lock.value = b"kept"
        with pytest.raises(LockUsageError):
            lock.value = bytes(33)
        assert lock.value == padded(b"kept")


def test_a_holder_that_dies_leaves_the_value_invalid(world: Places, first: Lockspace) -> None:
    """A process that ends in EX may have been half-way: readers are told so."""
    other = world.separate()
    doomed = Lockspace.open(other, NAME)
    with written(first) as lock:
        doomed.lock("res", EX, value_block=True)
        other.close()
        lock.convert(PR, timeout=30)
        assert not lock.value_valid


def test_what_was_never_written_cannot_become_invalid(world: Places, first: Lockspace) -> None:
    """A holder that dies before anybody wrote leaves 32 valid zeros: there is no value to doubt."""
    other = world.separate()
    doomed = Lockspace.open(other, NAME)
    with first.lock("res", NL, value_block=True) as lock:
        doomed.lock("res", EX, value_block=True)
        other.close()
        lock.convert(PR, timeout=30)
        assert lock.value == bytes(32)
        assert lock.value_valid


def test_a_written_value_is_valid_again(first: Lockspace, second: Lockspace) -> None:
    """The next holder in EX who sets the value makes it valid for all."""
    with written(second) as lock:
        with first.lock("res", EX, value_block=True) as writer:
            writer.unlock(invalidate=True)
        lock.convert(PR)
        assert not lock.value_valid
        lock.convert(NL)
        with first.lock("res", EX, value_block=True) as writer:
            assert not writer.value_valid
            writer.value = b"mended"
        lock.convert(PR)
        assert lock.value_valid
        assert lock.value == padded(b"mended")


def test_an_invalid_value_stays_so_until_somebody_sets_it(
    first: Lockspace, second: Lockspace
) -> None:
    """A holder in EX who sets nothing does not pass rubbish on as valid."""
    with written(second) as lock:
        with first.lock("res", EX, value_block=True) as writer:
            writer.unlock(invalidate=True)
        with first.lock("res", EX, value_block=True) as writer:
            assert not writer.value_valid
        lock.convert(PR)
        assert not lock.value_valid


def test_an_exception_inside_with_writes_what_was_set(first: Lockspace, second: Lockspace) -> None:
    """The end of the block is an unlock like any other: what was set by then is written."""
    with second.lock("res", NL, value_block=True) as lock:
        with suppress(ZeroDivisionError), first.lock("res", EX, value_block=True) as writer:
            writer.value = b"set"
            raise ZeroDivisionError
        lock.convert(PR)
        assert lock.value == padded(b"set")
