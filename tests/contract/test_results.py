"""read(2) on a lockspace's device: sizes, fields, value blocks, and the order of results.

Linux 6.1 fs/dlm/user.c, device_read(), copy_result_to_user(); ast.c, dlm_add_lkb_callback().
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
    refused,
    unlocked,
    value_block,
)
from tests.contract.worlds import World

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.row("4.5 read too small")
@pytest.mark.parametrize("size", [0, 1, 11, 13, 51])
def test_read_too_small(file: LockFile, size: int) -> None:
    """A read of fewer than 52 bytes is EINVAL, and leaves the result where it is."""
    file.lock(b"a", EX)

    with refused(errno.EINVAL):
        file.device.read(size)

    assert file.results() == [Cast(1)]


@pytest.mark.row("4.5 read of 52 to 71 bytes")
@pytest.mark.parametrize("size", [52, 71])
def test_read_between_the_layouts(file: LockFile, world: World, size: int) -> None:
    """A read of 52 to 71 bytes passes the check and gets the whole 72 bytes of a native result."""
    file.lock(b"a", EX)

    data = world.read_into_larger_buffer(file.device, size)

    assert len(data) == 72
    assert file.results() == []


@pytest.mark.row("4.5 read of a result", "4.5 one result per read")
@pytest.mark.parametrize("size", [72, 103, 104, 200, 4096])
def test_one_result_per_read(file: LockFile, size: int) -> None:
    """A read gives one result, however large it is; its length is what read returns."""
    file.lock(b"a", EX)
    file.lock(b"b", EX)

    assert [len(data) for data in file.raw_results(size)] == [72, 72]


@pytest.mark.row("4.5 read with room for the value block")
@pytest.mark.parametrize(("size", "length"), [(104, 104), (4096, 104), (103, 72), (72, 72)])
def test_room_for_the_value_block(file: LockFile, size: int, length: int) -> None:
    """With room the value block follows; without, the result says offset 0 and it is lost."""
    file.lock(b"a", EX, F.VALBLK)

    (data,) = file.raw_results(size)

    assert len(data) == length
    assert int.from_bytes(data[12:16], "little") == length
    assert int.from_bytes(data[68:72], "little") == (72 if length == 104 else 0)
    assert file.results() == []


# ---- fields -------------------------------------------------------------------------------------


@pytest.mark.row("4.5 CAST fields", "4.5 user_lksb")
def test_fields_of_a_completion(file: LockFile) -> None:
    """A completion has castaddr, castparam and lksb of the last operation, and no bast_mode."""
    file.lock(b"a", EX, castaddr=11, castparam=12, lksb=13)

    (result,) = file.whole_results()

    assert (result.astaddr, result.astparam, result.lksb) == (11, 12, 13)
    assert (result.status, result.lock_id, result.flags, result.bast_mode) == (0, 1, 0, 0)


@pytest.mark.row("4.5 BAST status")
def test_status_of_a_bast(file: LockFile, profile: KernelProfile) -> None:
    """A blocking AST repeats the status of the last completion read; since 6.10 it says 0."""
    repeated = -errno.EAGAIN if profile.merged_results else 0
    file.granted(b"a", PR)
    victim = file.granted(b"a", PR)
    file.convert(victim, EX, F.NOQUEUE)
    assert file.results() == [Cast(victim, -errno.EAGAIN)]

    file.lock(b"a", EX)

    basts = [result for result in file.whole_results() if result.bast_mode]
    assert {(bast.lock_id, bast.status) for bast in basts} == {(1, 0), (victim, repeated)}


@pytest.mark.row("4.5 BAST flags")
def test_flags_of_a_bast(file: LockFile, profile: KernelProfile) -> None:
    """A blocking AST repeats the flags of the last completion read; since 6.10 it says 0."""
    repeated = StatusFlag.ALTMODE if profile.merged_results else 0
    file.granted(b"a", PR)
    lock_id = file.lock(b"a", EX, F.ALTPR)
    assert file.results() == [Cast(lock_id, 0, StatusFlag.ALTMODE)]

    file.lock(b"a", EX)

    basts = [result for result in file.whole_results() if result.bast_mode]
    assert {(bast.lock_id, bast.flags) for bast in basts} == {(1, 0), (lock_id, repeated)}


@pytest.mark.row("4.5 castaddr or bast_mode")
@pytest.mark.parametrize("mode", [CR, CW, PR, PW, EX])
def test_mode_of_a_bast(file: LockFile, mode: LockMode) -> None:
    """A blocking AST says which mode is blocked; that is never NL."""
    file.granted(b"a", EX)

    file.lock(b"a", mode)

    assert file.results() == [Bast(1, mode)]


@pytest.mark.row("4.9 no bastaddr")
def test_bast_without_an_address(file: LockFile) -> None:
    """A lock without bastaddr gets no blocking AST, and it counts as sent all the same."""
    lock_id = file.lock(b"a", EX, bastaddr=0)
    file.results()
    waiter = file.lock(b"a", PR)
    assert file.results() == []
    # A conversion would forget what was sent; EX→EX refused leaves only the address replaced.
    with refused(errno.EINVAL):
        file.convert(lock_id, 6)

    file.lock(b"a", PR)
    assert file.results() == []

    file.lock(b"a", EX)
    assert file.results() == [Bast(lock_id, EX)]
    assert waiter == 2


# ---- value blocks -------------------------------------------------------------------------------


@pytest.mark.row("4.5 value block appended")
def test_when_a_value_block_follows(file: LockFile) -> None:
    """A value block follows a completion of status 0, when the lock has a buffer, and not on W."""
    lock_id = file.lock(b"a", EX, F.VALBLK)
    assert file.values() == [bytes(32)]

    file.convert(lock_id, NL, F.VALBLK, value=b"written")
    assert file.values() == [None]
    file.convert(lock_id, PR, F.VALBLK, value=b"mine")
    assert file.values() == [value_block(b"written")]
    file.convert(lock_id, NL, F.VALBLK, value=b"own bytes")
    assert file.values() == [value_block(b"own bytes")]
    file.convert(lock_id, CR, value=b"own again")
    assert file.values() == [value_block(b"own again")]
    file.unlock(lock_id)
    assert file.values() == [None]


@pytest.mark.row("4.5 value block appended")
def test_no_value_block_without_a_buffer_or_success(file: LockFile) -> None:
    """No value block follows for a lock without a buffer, an error, or a blocking AST."""
    file.lock(b"a", PR)
    file.lock(b"a", EX, F.VALBLK | F.NOQUEUE)
    file.lock(b"a", EX, F.VALBLK)

    assert file.values() == [None, None, None]


@pytest.mark.row("4.5 value block at read time", "4.9 arguments at read time")
def test_when_the_value_block_is_taken(file: LockFile, profile: KernelProfile) -> None:
    """The bytes are those of the moment of the read; since 6.10 those of the result's moment."""
    seen = (b"second", b"second") if profile.merged_results else (b"first", b"second")
    writer = file.lock(b"a", PW, F.VALBLK)
    file.results()
    reader = file.lock(b"a", NL, F.VALBLK)
    file.results()
    file.convert(writer, PW, F.VALBLK, value=b"first")
    file.convert(reader, NL, F.VALBLK)
    file.convert(writer, PW, F.VALBLK, value=b"second")
    file.convert(reader, NL, F.VALBLK)

    values = [result.value for result in file.whole_results() if result.lock_id == reader]

    assert values == [value_block(text) for text in seen]


@pytest.mark.row("4.9 arguments at read time")
def test_whose_arguments_come_back(file: LockFile, profile: KernelProfile) -> None:
    """Castparam is the last one given, also in earlier results; since 6.10 each has its own."""
    given = [3, 3, 3] if profile.merged_results else [1, 2, 3]
    lock_id = file.lock(b"a", EX, castparam=1)
    file.convert(lock_id, PR, castparam=2)
    file.convert(lock_id, NL, castparam=3)

    assert [result.astparam for result in file.whole_results()] == given


# ---- order --------------------------------------------------------------------------------------


@pytest.mark.row("4.9 order between locks", "4.9 order within a lock")
def test_order_of_results(file: LockFile, profile: KernelProfile) -> None:
    """Results come as they arose; up to 6.9 all of a lock together, locks by their first one."""
    first, second = file.lock(b"a", EX), file.lock(b"b", EX)
    file.convert(first, PR)
    file.lock(b"b", CR)
    file.lock(b"a", EX)
    file.unlock(first)

    happened = [
        Cast(first),
        Cast(second),
        Cast(first),
        Bast(second, CR),
        Bast(first, EX),
        unlocked(first),
        Cast(4),
    ]
    assert file.results() == as_read(profile, happened)


@pytest.mark.row("4.9 order between locks")
def test_a_lock_read_empty_joins_at_the_end_again(file: LockFile) -> None:
    """A lock whose results were all read queues up again behind the others."""
    first, second = file.lock(b"a", EX), file.lock(b"b", EX)
    assert file.device.read(104)[44:48] == first.to_bytes(4, "little")

    file.convert(first, NL)

    assert file.results() == [Cast(second), Cast(first)]


@pytest.mark.row("4.9 at most six")
def test_seventh_result_of_a_lock(file: LockFile, profile: KernelProfile) -> None:
    """Up to 6.1 a lock holds six results, and more are dropped; 6.12 has no limit."""
    lock_id = file.lock(b"a", EX)
    for mode in (PW, PR, CW, CR, NL, EX, NL):
        file.convert(lock_id, mode)

    assert file.results() == [Cast(lock_id)] * (6 if profile.merged_results else 8)


@pytest.mark.row("4.9 merging")
@pytest.mark.parametrize("mode", [CW, PW])
@pytest.mark.parametrize("read", [False, True])
def test_basts_are_merged(
    file: LockFile, profile: KernelProfile, mode: LockMode, read: bool
) -> None:
    """A blocking AST is dropped behind one of its mode, or of a higher one above PR.

    Up to 6.9 only behind one that is unread.
    """
    holder = file.granted(b"a", PR)
    file.lock(b"a", mode)
    before = file.results() if read else []

    file.lock(b"a", CW)

    after = file.results()
    both = read and profile.merged_results
    assert before + after == [Bast(holder, mode), Bast(holder, CW)][: 2 if both else 1]


@pytest.mark.row("4.9 merging")
def test_rising_basts_are_not_merged(file: LockFile) -> None:
    """Blocking ASTs of rising modes are all delivered."""
    holder = file.granted(b"a", EX)

    for mode in (CR, PR, EX, PR):
        file.lock(b"a", mode)

    assert file.results() == [Bast(holder, CR), Bast(holder, PR), Bast(holder, EX)]


@pytest.mark.row("4.9 merging")
def test_pr_and_cw_basts(file: LockFile, profile: KernelProfile) -> None:
    """PR and CW blocking ASTs of one lock: the one that repeats the last is dropped.

    Up to 6.9 one that was read before is forgotten.
    """
    holder = file.granted(b"a", PR)
    first = file.lock(b"a", CW)
    second = file.lock(b"a", PR)
    assert file.results() == [Bast(holder, CW)]

    file.unlock(second)
    file.unlock(first)
    file.unlock(holder)

    again = [Bast(holder, CW)] if profile.merged_results else []
    happened = [unlocked(second), *again, unlocked(first), unlocked(holder)]
    assert file.results() == as_read(profile, happened)


@pytest.mark.row("4.9 CAST never merged")
def test_completions_are_never_merged(file: LockFile) -> None:
    """Every completion is delivered, equal ones, too."""
    lock_id = file.lock(b"a", NL)
    for _ in range(3):
        file.convert(lock_id, NL)

    assert file.results() == [Cast(lock_id)] * 4


@pytest.mark.row("4.9 CAST never merged")
def test_bast_before_the_completion_that_answers_it(file: LockFile) -> None:
    """A blocking AST that was queued before the conversion it asked for is delivered first."""
    holder = file.granted(b"a", EX)
    waiter = file.lock(b"a", PR)
    file.lock(b"a", EX)
    file.convert(holder, NL)

    assert file.results() == [
        Bast(holder, PR),
        Bast(holder, EX),
        Cast(holder),
        Cast(waiter),
        Bast(waiter, EX),
    ]


@pytest.mark.row("4.9 unread results pin the lock")
def test_unread_result_pins_the_lock(
    file: LockFile, lockspace: Lockspace, profile: KernelProfile
) -> None:
    """Up to 6.9 a lock that has ended keeps its id until its last result was read."""
    file.granted(b"a", EX)
    waiter = file.lock(b"a", EX)
    file.cancel(waiter)
    second, third = (3, waiter) if profile.ids_free_when_read else (waiter, 3)
    assert file.lock(b"b", NL) == second

    assert file.results() == [Bast(1, EX), cancelled(waiter), Cast(second)]

    assert file.lock(b"b", NL) == third
    assert lockspace.entry(waiter).granted_mode == NL
