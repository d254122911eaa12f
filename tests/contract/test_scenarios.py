"""Short stories of locks on one node, each as real kernels tell it.

Results stand in the order in which they are read; where kernels differ, in that of the events. A
lock's id is its place in the story: the first request is 1.
Linux 6.1 fs/dlm/lock.c: can_be_granted(), grant_pending_locks(), send_blocking_asts().
"""

from __future__ import annotations

import errno

import pytest

from dlm.terms import KernelProfile, LockFlag, LockMode, StatusFlag
from tests.contract.machine import (
    Bast,
    Cast,
    LockFile,
    Lockspace,
    as_read,
    cancelled,
    unlocked,
    value_block,
)

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag
AGAIN, DEADLOCK = -errno.EAGAIN, -errno.EDEADLK
NOT_VALID = StatusFlag.VALNOTVALID

WAITING, GRANTED, CONVERTING = 1, 2, 3


def granted(file: LockFile, *modes: int) -> None:
    """Take locks on one resource that are all granted at once."""
    for mode in modes:
        file.granted(b"a", mode)


def queue(lockspace: Lockspace, status: int) -> list[int]:
    """Return the lock ids on one queue of the only resource, front first."""
    (resource,) = lockspace.resources()
    return [lock.lock_id for lock in resource.locks if lock.status == status]


# ---- order of grants and blocking ASTs ----------------------------------------------------------


@pytest.mark.row("11.1 NOQUEUE")
def test_noqueue_tells_nobody(file: LockFile) -> None:
    """A NOQUEUE request that fails tells nobody; with NOQUEUEBAST the blockers, newest first."""
    granted(file, PR, PR)

    file.lock(b"a", EX, F.NOQUEUE)
    assert file.results() == [Cast(3, AGAIN)]
    file.lock(b"a", EX, F.NOQUEUE | F.NOQUEUEBAST)
    assert file.results() == [Cast(3, AGAIN), Bast(2, EX), Bast(1, EX)]

    for mode in (PW, EX, CW):
        file.lock(b"a", mode)
    assert file.results() == [], "EX was reported already"
    file.unlock(1)
    file.convert(2, NL)
    assert file.results() == [unlocked(1), Cast(2), Cast(3), Bast(3, EX)]
    file.unlock(3)
    assert file.results() == [unlocked(3), Cast(4), Bast(4, CW)]


@pytest.mark.row("11.1 order of waiting")
def test_who_waits_where(file: LockFile, lockspace: Lockspace, profile: KernelProfile) -> None:
    """HEADQUE waits in front, EXPEDITE and compatible NOORDER do not wait, NL waits like others."""
    granted(file, EX)
    file.lock(b"a", EX)
    file.lock(b"a", NL)
    file.lock(b"a", NL, F.EXPEDITE)
    file.lock(b"a", NL, F.NOORDER)
    file.lock(b"a", CR, F.NOORDER)
    file.lock(b"a", PR, F.HEADQUE)
    assert [r for r in file.results() if isinstance(r, Cast)] == [Cast(4), Cast(5)]
    assert queue(lockspace, WAITING) == [7, 2, 3, 6]

    file.convert(1, CR)

    happened = [Cast(1), Cast(7), Cast(6), Bast(6, EX), Bast(7, EX), Bast(1, EX)]
    assert file.results() == as_read(profile, happened)
    assert queue(lockspace, WAITING) == [2, 3]


@pytest.mark.row("11.1 behind a conversion")
def test_who_waits_behind_a_conversion(file: LockFile) -> None:
    """New requests wait behind a conversion; NOORDER passes by, NOQUEUE fails."""
    granted(file, PR, CR)
    file.convert(2, EX)
    file.lock(b"a", CR)
    file.lock(b"a", CR, F.NOORDER)
    file.lock(b"a", NL, F.NOQUEUE)
    assert file.results() == [Bast(1, EX), Cast(4), Cast(5, AGAIN)]

    file.unlock(1)

    assert file.results() == [unlocked(1), Bast(4, EX)]


@pytest.mark.row("11.1 two resources")
def test_results_of_two_resources(file: LockFile, profile: KernelProfile) -> None:
    """Results of two resources whose locks were made in turns come in turns, or by lock."""
    file.lock(b"one", PR)
    file.lock(b"two", PR)
    file.lock(b"one", EX)
    file.lock(b"two", EX)

    happened = [Cast(1), Cast(2), Bast(1, EX), Bast(2, EX)]
    assert file.results() == as_read(profile, happened)


@pytest.mark.row("11.1 HEADQUE conversion")
def test_conversion_in_front(file: LockFile, lockspace: Lockspace) -> None:
    """HEADQUE puts a conversion in front of those that wait."""
    granted(file, PR, NL, NL)
    file.convert(2, EX)
    file.convert(3, PW, F.HEADQUE)
    assert queue(lockspace, CONVERTING) == [3, 2]

    file.unlock(1)

    assert file.results() == [Bast(1, EX), unlocked(1), Cast(3), Bast(3, EX)]


@pytest.mark.row("11.1 QUECVT")
def test_conversions_in_place_and_queued(file: LockFile) -> None:
    """A conversion overtakes queued ones when it can be granted at once, unless it says QUECVT."""
    granted(file, NL, CR, CR, PW)
    file.convert(2, PW)
    file.convert(1, CR, F.QUECVT)
    file.convert(3, CR)
    assert file.results() == [Bast(4, PW), Cast(3)]

    file.unlock(4)

    assert file.results() == [unlocked(4), Cast(2), Cast(1)]


@pytest.mark.row("11.1 told again")
def test_blocking_ast_after_each_conversion(file: LockFile) -> None:
    """A lock that still blocks after its conversion is told again."""
    granted(file, CR)
    file.lock(b"a", EX)
    assert file.results() == [Bast(1, EX)]

    for mode in (CW, PR):
        file.convert(1, mode)
        assert file.results() == [Cast(1), Bast(1, EX)]

    file.convert(1, NL)
    assert file.results() == [Cast(1), Cast(2)]


@pytest.mark.row("11.1 granted queue")
@pytest.mark.parametrize("mode", [NL, CR, CW])
def test_newest_is_first_on_the_granted_queue(
    file: LockFile, lockspace: Lockspace, mode: LockMode
) -> None:
    """The granted queue has the newest in front; a conversion to the same mode stays."""
    granted(file, mode, NL, mode)
    assert queue(lockspace, GRANTED) == [3, 2, 1]

    file.converted(1, mode)
    assert queue(lockspace, GRANTED) == [3, 2, 1]
    file.converted(2, CR)

    assert queue(lockspace, GRANTED) == [2, 3, 1]


@pytest.mark.row("11.1 compatibility")
@pytest.mark.parametrize("held", list(LockMode))
def test_compatible_modes(file: LockFile, held: LockMode) -> None:
    """Six modes, and which of them go together."""
    together = {
        NL: {NL, CR, CW, PR, PW, EX},
        CR: {NL, CR, CW, PR, PW},
        CW: {NL, CR, CW},
        PR: {NL, CR, PR},
        PW: {NL, CR},
        EX: {NL},
    }
    found = set()
    for mode in LockMode:
        name = b"%d" % mode
        file.granted(name, held)
        lock_id = file.lock(name, mode, F.NOQUEUE)
        if file.results() == [Cast(lock_id)]:
            found.add(mode)

    assert found == together[held]


# ---- conversion deadlock, alternative modes -----------------------------------------------------


@pytest.mark.row("11.2 conversion deadlock")
def test_conversion_deadlock(file: LockFile, lockspace: Lockspace) -> None:
    """Of two conversions that wait for each other the second fails, or is queued, or is demoted."""
    granted(file, PR, PR)
    file.convert(1, EX)
    assert file.convert(2, EX) == 0
    assert file.results() == [Bast(2, EX), Cast(2, DEADLOCK)]
    assert lockspace.entry(2).status == GRANTED

    file.convert(2, EX, F.NODLCKWT)
    assert file.results() == []
    assert lockspace.entry(2).status == CONVERTING
    file.cancel(2)
    assert file.results() == [cancelled(2)]

    file.convert(2, EX, F.CONVDEADLK)
    assert file.results() == [Cast(1), Bast(1, EX)]
    entry = lockspace.entry(2)
    assert (entry.granted_mode, entry.requested_mode) == (NL, EX)
    file.unlock(1)
    assert file.results() == [unlocked(1), Cast(2, 0, StatusFlag.DEMOTED)]


@pytest.mark.row("11.2 NOORDER deadlock")
def test_conversion_deadlock_of_noorder(file: LockFile, profile: KernelProfile) -> None:
    """NOORDER does not keep a conversion from being in a deadlock."""
    granted(file, PR, CR, CR)

    file.convert(2, EX)
    file.convert(3, PW, F.NOORDER)

    happened = [Bast(3, EX), Bast(1, EX), Cast(3, DEADLOCK)]
    assert file.results() == as_read(profile, happened)


@pytest.mark.row("11.2 alternative modes")
def test_alternative_modes(file: LockFile) -> None:
    """ALTPR and ALTCW grant another mode where the wanted one would wait, and say so."""
    granted(file, PR)
    file.lock(b"a", EX, F.ALTPR)
    assert file.results() == [Cast(2, 0, StatusFlag.ALTMODE)]

    file.lock(b"a", EX, F.ALTCW)
    assert file.results() == [Bast(2, EX), Bast(1, EX)]
    file.lock(b"a", CW, F.ALTPR | F.NOQUEUE)
    assert file.results() == [Cast(4, AGAIN)]

    file.convert(2, EX, F.ALTPR)
    assert file.results() == [Cast(2, 0, StatusFlag.ALTMODE), Bast(2, EX)]


@pytest.mark.row("11.2 alternative modes")
def test_an_alternative_mode_that_the_lock_has(lockspace: Lockspace) -> None:
    """A queued conversion granted in the mode that it has completes twice and ends without a mode.

    Linux 6.1 fs/dlm/lock.c, _grant_lock(): the lock is not taken off its queue.
    """
    file = lockspace.open()
    granted(file, PR, PR, NL)
    first, other = 1, 3
    file.convert(other, EX)
    file.convert(first, EX, F.ALTPR | F.NODLCKWT)
    file.results()

    file.cancel(other)

    twice = [Cast(first, 0, StatusFlag.ALTMODE)] * 2
    assert file.results() == [cancelled(other), *twice]
    entry = lockspace.entry(first)
    assert (entry.status, entry.granted_mode, entry.requested_mode) == (GRANTED, -1, -1)
    file.convert(first, PR)
    assert file.results() == [Cast(first)]
    assert lockspace.entry(first).granted_mode == PR


# ---- value blocks -------------------------------------------------------------------------------


@pytest.mark.row("11.4 written and read")
def test_value_block_from_lock_to_lock(file: LockFile) -> None:
    """What a down-conversion from EX or PW writes, others read; own bytes where nothing moves."""
    file.lock(b"a", EX, F.VALBLK, value=b"aa")
    assert file.values() == [bytes(32)], "a request's own bytes are not taken"
    file.convert(1, NL, F.VALBLK, value=b"bb")
    assert file.values() == [None]
    file.lock(b"a", PR, F.VALBLK)
    assert file.values() == [value_block(b"bb")]
    file.lock(b"a", PR)
    assert file.values() == [None]
    file.convert(3, PR, F.VALBLK, value=b"dd")
    assert file.values() == [value_block(b"bb")]
    file.convert(3, NL, F.VALBLK, value=b"ee")
    assert file.values() == [value_block(b"ee")]
    file.convert(3, CR, value=b"77")
    assert file.values() == [value_block(b"77")]
    file.unlock(2)
    file.unlock(3)
    file.results()

    file.convert(1, EX, value=b"55")
    assert file.values() == [value_block(b"55")]
    file.convert(1, EX, F.VALBLK, value=b"66")
    file.convert(1, PW, value=b"44")
    assert file.values() == [None, None]
    file.lock(b"a", NL, F.VALBLK)
    assert file.values() == [value_block(b"66")]
    file.convert(1, PW, F.VALBLK, value=b"33")
    assert file.values() == [None]
    file.unlock(1, value=b"22")
    file.convert(2, CR, F.VALBLK)
    assert file.values() == [None, value_block(b"22")]


@pytest.mark.row("11.4 invalid")
def test_invalid_value_block(file: LockFile) -> None:
    """IVVALBLK from EX marks the value block, until the next write."""
    file.lock(b"a", NL)
    file.lock(b"a", EX, F.VALBLK)
    file.convert(2, EX, F.VALBLK, value=b"old")
    file.unlock(2, F.IVVALBLK)
    file.results()

    file.lock(b"a", CR, F.VALBLK)
    (read,) = file.whole_results()
    file.lock(b"a", CR)
    without = file.results()
    file.convert(3, NL)
    down = file.results()
    assert (read.flags, read.value) == (NOT_VALID, value_block(b"old"))
    assert without == [Cast(3)]
    assert down == [Cast(3, 0, NOT_VALID)]
    file.unlock(2)
    file.results()

    file.lock(b"a", EX, F.VALBLK)
    file.convert(2, NL, F.VALBLK, value=b"99")
    file.lock(b"a", CR, F.VALBLK)
    results = file.whole_results()
    assert [(r.lock_id, r.flags) for r in results] == [(2, NOT_VALID), (2, 0), (4, 0)]
    assert results[-1].value == value_block(b"99")


@pytest.mark.row("11.4 no buffer")
def test_unlock_without_a_buffer_writes_nothing(file: LockFile) -> None:
    """VALBLK on the unlock of a lock without a buffer writes nothing."""
    file.lock(b"a", PW, F.VALBLK)
    file.convert(1, NL, F.VALBLK, value=b"kept")
    file.lock(b"a", EX)
    file.unlock(2, F.VALBLK, value=b"lost")
    file.results()

    file.lock(b"a", PR, F.VALBLK)

    assert file.values() == [value_block(b"kept")]


@pytest.mark.row("11.4 no value block")
def test_resource_without_a_value_block(lockspace: Lockspace) -> None:
    """A resource that never had a value block shows zeros, unmarked, also after an EX was lost."""
    file, dying = lockspace.open(), lockspace.open()
    file.granted(b"a", NL)
    dying.granted(b"a", EX)
    dying.close()

    file.lock(b"a", CR, F.VALBLK)
    (read,) = file.whole_results()

    assert (read.flags, read.value) == (0, bytes(32))
    file.convert(2, NL)
    assert file.results() == [Cast(2, 0, NOT_VALID)]


@pytest.mark.row("11.4 tossed")
def test_value_block_goes_with_the_last_lock(file: LockFile) -> None:
    """When its last lock ends, a resource forgets its value block, but not that it was invalid."""
    file.lock(b"a", EX, F.VALBLK)
    file.convert(1, EX, F.VALBLK, value=b"old")
    file.unlock(1, F.IVVALBLK)
    file.results()

    file.lock(b"a", CR, F.VALBLK)
    assert file.values() == [bytes(32)]

    file.convert(1, NL)
    assert file.results() == [Cast(1, 0, NOT_VALID)]
