"""LOCK, CONVERT, UNLOCK, CANCEL, DEADLOCK and PURGE: their checks, and what they change.

Linux 6.1 fs/dlm/user.c, lock.c: set_lock_args(), validate_lock_args(), set_unlock_args(),
validate_unlock_args(), dlm_user_purge().
"""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest

from dlm.abi.device import LockRequest, encode_request
from dlm.terms import KernelProfile, LockFlag, LockMode
from tests.contract.machine import (
    Cast,
    LockFile,
    Lockspace,
    Machine,
    cancelled,
    lock_request,
    refused,
    unlocked,
    value_block,
)

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag

WAITING, GRANTED, CONVERTING = 1, 2, 3


# ---- LOCK: the request's own checks -------------------------------------------------------------


@pytest.mark.row("4.4.3 castaddr and lksb")
@pytest.mark.parametrize("missing", ["castaddr", "lksb"])
@pytest.mark.parametrize("flags", [0, F.CONVERT, F.ORPHAN])
def test_lock_needs_addresses(file: LockFile, missing: str, flags: int) -> None:
    """LOCK without castaddr or without lksb is EINVAL; bastaddr may be missing."""
    addresses = {"castaddr": 1, "lksb": 1} | {missing: 0}

    with refused(errno.EINVAL):
        file.lock(b"a", EX, flags, castaddr=addresses["castaddr"], lksb=addresses["lksb"])
    assert file.lock(b"a", EX, bastaddr=0) == 1


@pytest.mark.row("4.4.3 new request checks")
@pytest.mark.parametrize("length", [65, 128, 255])
def test_name_too_long(file: LockFile, length: int) -> None:
    """A name length above 64 is EINVAL, although the write itself has at most 184 bytes."""
    request = bytearray(lock_request(name=b"n" * 64, mode=EX))
    request[17] = length

    with refused(errno.EINVAL):
        file.device.write(bytes(request))


REFUSED_FLAGS = [
    pytest.param(6, 0, id="mode 6"),
    pytest.param(200, 0, id="mode 200"),
    pytest.param(EX, F.CANCEL, id="CANCEL"),
    pytest.param(EX, F.QUECVT, id="QUECVT without CONVERT"),
    pytest.param(EX, F.CONVDEADLK, id="CONVDEADLK without CONVERT"),
    pytest.param(NL, F.EXPEDITE | F.QUECVT, id="EXPEDITE, QUECVT"),
    pytest.param(NL, F.EXPEDITE | F.NOQUEUE, id="EXPEDITE, NOQUEUE"),
    *(pytest.param(mode, F.EXPEDITE, id=f"EXPEDITE {mode.name}") for mode in (CR, CW, PR, PW, EX)),
]


@pytest.mark.row("4.4.3 new request checks", "4.4.3 flag and mode checks")
@pytest.mark.parametrize(("mode", "flags"), REFUSED_FLAGS)
def test_request_refused(file: LockFile, lockspace: Lockspace, mode: int, flags: int) -> None:
    """A mode above 5 and flags that contradict each other are EINVAL, and leave no lock behind."""
    with refused(errno.EINVAL):
        file.lock(b"a", mode, flags)

    assert lockspace.resources() == []
    assert file.lock(b"a", EX) == 1


@pytest.mark.row("4.4.3 flag and mode checks")
@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        pytest.param(6, 0, id="mode 6"),
        pytest.param(EX, F.CANCEL, id="CANCEL"),
        pytest.param(PR, F.CONVDEADLK | F.NOQUEUE, id="CONVDEADLK, NOQUEUE"),
        pytest.param(NL, F.EXPEDITE, id="EXPEDITE"),
    ],
)
def test_conversion_refused(file: LockFile, mode: int, flags: int) -> None:
    """A conversion has the same checks, and EXPEDITE is never for one; the lock stays as it was."""
    lock_id = file.granted(b"a", PR)

    with refused(errno.EINVAL):
        file.convert(lock_id, mode, flags)

    file.converted(lock_id, EX)


@pytest.mark.row("4.4.3 flag and mode checks", "4.4.3 ignored fields")
@pytest.mark.parametrize(
    "flags",
    [
        F.PERSISTENT,
        F.IVVALBLK,
        F.FORCEUNLOCK,
        F.HEADQUE,
        F.NOORDER,
        F.ALTPR | F.ALTCW,
        F.NODLCKWT,
        F.NODLCKBLK,
        F.TIMEOUT,
        F.NOQUEUEBAST,
        0x00080000,
        0x80000000,
        0xFFF80000,
    ],
)
def test_flags_taken(file: LockFile, lockspace: Lockspace, flags: int) -> None:
    """Flags without meaning for a request, and bits that are no flag, are taken and kept."""
    lock_id = file.granted(b"a", EX, flags)

    assert lockspace.entry(lock_id).exflags == flags


@pytest.mark.row("4.4.3 ignored fields")
def test_fields_that_are_ignored(file: LockFile, lockspace: Lockspace) -> None:
    """Parent and timeout mean nothing; xid is only shown."""
    request = LockRequest(
        name=b"a", mode=EX, parent=4711, timeout=1, xid=2**64 - 1, castaddr=1, lksb=1
    )

    lock_id = file.device.write(encode_request(request))

    assert file.results() == [Cast(lock_id)]
    assert lockspace.entry(lock_id).xid == 2**64 - 1


# ---- LOCK with CONVERT --------------------------------------------------------------------------


@pytest.mark.row("4.4.3 unknown lock id")
@pytest.mark.parametrize("lock_id", [0, 2, 99, 2**32 - 1])
def test_conversion_of_an_unknown_lock(file: LockFile, lock_id: int) -> None:
    """A conversion of a lock id that there is not is ENOENT, before mode and flags count."""
    file.granted(b"a", EX)

    with refused(errno.ENOENT):
        file.convert(lock_id, NL)
    with refused(errno.ENOENT):
        file.convert(lock_id, 200, F.CANCEL)


@pytest.mark.row("4.4.3 lock state checks")
def test_conversion_of_a_waiting_lock(file: LockFile) -> None:
    """A conversion of a lock that waits is EBUSY."""
    file.granted(b"a", EX)
    waiter = file.lock(b"a", EX)

    with refused(errno.EBUSY):
        file.convert(waiter, NL)


@pytest.mark.row("4.4.3 lock state checks")
def test_conversion_of_a_converting_lock(file: LockFile) -> None:
    """A conversion of a lock that is being converted is EBUSY."""
    file.granted(b"a", PR)
    lock_id = file.granted(b"a", PR)
    assert file.convert(lock_id, EX) == 0

    with refused(errno.EBUSY):
        file.convert(lock_id, NL)


@pytest.mark.row("4.4.3 lock state checks")
def test_conversion_of_an_ended_lock(file: LockFile, profile: KernelProfile) -> None:
    """A lock that was unlocked is ENOENT; up to 6.9 EBUSY until its result was read."""
    lock_id = file.granted(b"a", PR)
    file.unlock(lock_id)

    with refused(errno.EBUSY if profile.ids_free_when_read else errno.ENOENT):
        file.convert(lock_id, NL)
    assert file.results() == [unlocked(lock_id)]
    with refused(errno.ENOENT):
        file.convert(lock_id, NL)


QUEUED_CONVERSIONS = {
    NL: {CR, CW, PR, PW, EX},
    CR: {CW, PR, PW, EX},
    CW: {PR, PW, EX},
    PR: {CW, PW, EX},
    PW: {EX},
    EX: set(),
}
"""From which granted mode a conversion with QUECVT may go to which."""


@pytest.mark.row("4.4.3 lock state checks")
@pytest.mark.parametrize("granted", list(LockMode))
def test_conversions_that_may_be_queued(file: LockFile, granted: LockMode) -> None:
    """QUECVT is for conversions that may have to wait; for others it is EINVAL."""
    allowed = set()
    for mode in LockMode:
        lock_id = file.granted(b"%d" % mode, granted)
        with suppress(OSError):
            file.convert(lock_id, mode, F.QUECVT)
        if file.results() == [Cast(lock_id)]:
            allowed.add(mode)
        else:
            with refused(errno.EINVAL):
                file.convert(lock_id, mode, F.QUECVT)

    assert allowed == QUEUED_CONVERSIONS[granted]


@pytest.mark.row("4.4.3 side effects of a conversion")
def test_refused_conversion_replaces_addresses(file: LockFile, lockspace: Lockspace) -> None:
    """A conversion that is refused has already replaced the lock's addresses and xid."""
    holder = file.granted(b"a", EX)
    waiter = file.lock(b"a", EX)
    file.results()
    request = lock_request(
        lock_id=waiter,
        mode=NL,
        flags=F.CONVERT,
        castaddr=0xA1,
        castparam=0xA2,
        bastaddr=0xA3,
        bastparam=0xA4,
        lksb=0xA5,
        xid=0xA6,
    )
    with refused(errno.EBUSY):
        file.device.write(request)
    file.unlock(holder)
    (_, result) = file.whole_results()

    assert (result.astaddr, result.astparam, result.lksb) == (0xA1, 0xA2, 0xA5)
    assert lockspace.entry(waiter).xid == 0xA6
    file.lock(b"a", PR)
    (bast,) = file.whole_results()
    assert (bast.astaddr, bast.astparam, bast.bast_mode) == (0xA3, 0xA4, PR)


@pytest.mark.row("4.4.3 side effects of a conversion")
@pytest.mark.profile(merged_results=True)  # later results are made before, and show nothing of it
def test_conversion_copies_the_value_into_an_existing_buffer(file: LockFile) -> None:
    """Once a lock has a buffer, a conversion fills it, even one that is then refused."""
    lock_id = file.lock(b"a", PR, F.VALBLK)

    with refused(errno.EINVAL):
        file.convert(lock_id, 6, value=b"refused")

    assert file.values() == [value_block(b"refused")]


@pytest.mark.row("4.4.3 side effects of a conversion")
def test_valblk_on_a_conversion_makes_a_buffer(file: LockFile) -> None:
    """VALBLK on a lock without a buffer gives it one, filled with what the caller sent."""
    lock_id = file.granted(b"a", PW)

    file.converted(lock_id, NL, F.VALBLK, value=b"new")

    file.lock(b"a", PR, F.VALBLK)
    assert file.values() == [value_block(b"new")]


# ---- UNLOCK and CANCEL --------------------------------------------------------------------------


@pytest.mark.row("4.4.4 unknown lock id")
@pytest.mark.parametrize("lock_id", [0, 2, 99, 2**32 - 1])
@pytest.mark.parametrize("flags", [0, F.CANCEL, F.FORCEUNLOCK, F.CONVERT])
def test_unlock_of_an_unknown_lock(file: LockFile, lock_id: int, flags: int) -> None:
    """UNLOCK or CANCEL of a lock id that there is not is ENOENT, before flags count."""
    file.granted(b"a", EX)

    with refused(errno.ENOENT):
        file.unlock(lock_id, flags)


@pytest.mark.row("4.4.4 flags")
@pytest.mark.parametrize("flag", [f for f in LockFlag if f not in F(0x2002A)] + [0x80000000])
def test_unlock_flags_refused(file: LockFile, flag: int) -> None:
    """UNLOCK takes CANCEL, VALBLK, IVVALBLK and FORCEUNLOCK; any other bit is EINVAL."""
    lock_id = file.granted(b"a", EX)

    with refused(errno.EINVAL):
        file.unlock(lock_id, flag)

    assert file.results() == []
    assert file.unlock(lock_id) == 0


@pytest.mark.row("4.4.4 flags")
@pytest.mark.parametrize(
    "flags", [F.VALBLK, F.IVVALBLK, F.FORCEUNLOCK, F.VALBLK | F.IVVALBLK | F.FORCEUNLOCK]
)
def test_unlock_flags_taken(file: LockFile, flags: int) -> None:
    """The other flags are taken together or alone."""
    lock_id = file.granted(b"a", EX)

    assert file.unlock(lock_id, flags) == 0

    assert file.results() == [unlocked(lock_id)]


@pytest.mark.row("4.4.4 CANCEL with FORCEUNLOCK")
def test_cancel_by_force(file: LockFile) -> None:
    """CANCEL with FORCEUNLOCK is EINVAL."""
    lock_id = file.granted(b"a", EX)

    with refused(errno.EINVAL):
        file.cancel(lock_id, F.FORCEUNLOCK)

    assert file.results() == []


@pytest.mark.row("4.4.4 replaced arguments")
def test_unlock_replaces_lksb_and_castparam(file: LockFile) -> None:
    """An unlock replaces lksb, even by 0, castparam unless it is 0, and never castaddr."""
    first, second = file.granted(b"a", EX), file.granted(b"b", EX)
    request = LockRequest(command=2, lock_id=first, castaddr=9, castparam=8, bastaddr=6, lksb=7)
    file.device.write(encode_request(request))
    request = LockRequest(command=2, lock_id=second)
    file.device.write(encode_request(request))

    results = file.whole_results()

    assert [(r.astaddr, r.astparam, r.lksb) for r in results] == [
        (0x1000, 8, 7),
        (0x1000, 0x1001, 0),
    ]


@pytest.mark.row("4.4.4 replaced arguments")
@pytest.mark.profile(merged_results=True)  # later results are made before, and show nothing of it
def test_refused_unlock_replaces_them_too(file: LockFile) -> None:
    """An unlock with wrong flags has replaced lksb and castparam all the same."""
    lock_id = file.lock(b"a", EX)
    request = LockRequest(command=2, lock_id=lock_id, castparam=8, lksb=7, flags=F.NOQUEUE)

    with refused(errno.EINVAL):
        file.device.write(encode_request(request))

    (result,) = file.whole_results()
    assert (result.astaddr, result.astparam, result.lksb) == (0x1000, 8, 7)


@pytest.mark.row("4.4.4 replaced arguments")
def test_unlock_copies_the_value_into_an_existing_buffer(file: LockFile) -> None:
    """An unlock from PW or EX writes the value it brings, when the lock has a buffer."""
    for name in (b"a", b"b"):  # a resource without locks would forget its value block
        file.lock(name, NL)
    with_buffer = file.lock(b"a", PW, F.VALBLK)
    without = file.lock(b"b", PW)
    file.results()

    file.unlock(with_buffer, F.VALBLK, value=b"kept")
    file.unlock(without, F.VALBLK, value=b"lost")
    file.results()

    file.lock(b"a", PR, F.VALBLK)
    file.lock(b"b", PR, F.VALBLK)
    assert file.values() == [value_block(b"kept"), bytes(32)]


@pytest.mark.row("4.4.4 lock state checks")
def test_unlock_in_each_state(file: LockFile) -> None:
    """A plain unlock ends a lock that is granted, waiting or converting, with one result."""
    holder = file.granted(b"a", PR)
    converting, waiting = file.granted(b"a", PR), file.lock(b"a", EX)
    file.results()
    file.convert(converting, EX)
    file.results()

    for lock_id in (waiting, converting, holder):
        assert file.unlock(lock_id) == 0
        assert file.results() == [unlocked(lock_id)]
        with refused(errno.ENOENT):
            file.unlock(lock_id)


@pytest.mark.row("4.4.4 lock state checks")
def test_force_unlock_in_each_state(file: LockFile) -> None:
    """FORCEUNLOCK does the same as a plain unlock when nothing is on its way to another node."""
    holder = file.granted(b"a", PR)
    converting, waiting = file.granted(b"a", PR), file.lock(b"a", EX)
    file.convert(converting, EX)
    file.results()

    for lock_id in (waiting, converting, holder):
        assert file.unlock(lock_id, F.FORCEUNLOCK) == 0
        assert file.results() == [unlocked(lock_id)]


@pytest.mark.row("4.4.4 lock state checks")
def test_unlock_before_the_grant_is_read(file: LockFile) -> None:
    """A lock unlocked before its completion is read has both results; a second unlock is ENOENT."""
    lock_id = file.lock(b"a", EX)

    assert file.unlock(lock_id) == 0

    with refused(errno.ENOENT):
        file.unlock(lock_id)
    assert file.results() == [Cast(lock_id), unlocked(lock_id)]
    with refused(errno.ENOENT):
        file.unlock(lock_id)


@pytest.mark.row("4.4.4 EBUSY of a cancel is success", "4.4.4 lock state checks")
def test_cancel_of_a_granted_lock(file: LockFile) -> None:
    """CANCEL of a granted lock succeeds, again and again, and gives no result."""
    lock_id = file.granted(b"a", EX)

    assert file.cancel(lock_id) == 0
    assert file.cancel(lock_id) == 0

    assert file.results() == []
    assert file.unlock(lock_id) == 0


@pytest.mark.row("4.4.4 lock state checks")
def test_cancel_of_a_waiting_lock(file: LockFile) -> None:
    """CANCEL of a request that waits ends the lock with ECANCEL."""
    file.granted(b"a", EX)
    waiter = file.lock(b"a", EX)
    file.results()

    assert file.cancel(waiter) == 0

    with refused(errno.ENOENT):
        file.cancel(waiter)
    assert file.results() == [cancelled(waiter)]
    with refused(errno.ENOENT):
        file.unlock(waiter)


@pytest.mark.row("4.4.4 lock state checks")
def test_cancel_of_a_conversion(file: LockFile, lockspace: Lockspace) -> None:
    """CANCEL of a conversion leaves the lock granted in its old mode; a second one is EINVAL."""
    file.granted(b"a", PR)
    lock_id = file.granted(b"a", PR)
    file.convert(lock_id, EX)
    file.results()

    assert file.cancel(lock_id) == 0

    assert file.results() == [cancelled(lock_id)]
    entry = lockspace.entry(lock_id)
    assert (entry.status, entry.granted_mode) == (GRANTED, PR)
    with refused(errno.EINVAL):
        file.cancel(lock_id)
    file.converted(lock_id, CR)
    assert file.cancel(lock_id) == 0


# ---- DEADLOCK -----------------------------------------------------------------------------------


@pytest.mark.row("4.4.5 waiting")
def test_deadlock_of_a_waiting_lock(file: LockFile) -> None:
    """DEADLOCK ends a request that waits with EDEADLK."""
    file.granted(b"a", EX)
    waiter = file.lock(b"a", EX)
    file.results()

    assert file.deadlock(waiter) == 0

    assert file.results() == [Cast(waiter, -errno.EDEADLK)]
    with refused(errno.ENOENT):
        file.deadlock(waiter)


@pytest.mark.row("4.4.5 conversion")
def test_deadlock_of_a_conversion(file: LockFile, lockspace: Lockspace) -> None:
    """DEADLOCK of a conversion leaves the lock granted in its old mode."""
    file.granted(b"a", PR)
    lock_id = file.granted(b"a", PR)
    file.convert(lock_id, EX)
    file.results()

    assert file.deadlock(lock_id) == 0

    assert file.results() == [Cast(lock_id, -errno.EDEADLK)]
    assert lockspace.entry(lock_id).granted_mode == PR


@pytest.mark.row("4.4.5 granted")
def test_deadlock_of_a_granted_lock_is_remembered(file: LockFile) -> None:
    """DEADLOCK of a granted lock gives no result, but its next cancel says EDEADLK."""
    file.granted(b"a", PR)
    lock_id = file.granted(b"a", PR)

    assert file.deadlock(lock_id) == 0
    assert file.results() == []

    file.convert(lock_id, EX)
    file.results()
    assert file.cancel(lock_id) == 0
    assert file.results() == [Cast(lock_id, -errno.EDEADLK)]


@pytest.mark.row("4.4.5 checks")
def test_checks_of_deadlock(file: LockFile) -> None:
    """DEADLOCK has the checks of an unlock: unknown id ENOENT, then wrong flags EINVAL."""
    lock_id = file.granted(b"a", EX)

    with refused(errno.ENOENT):
        file.deadlock(99, F.NOQUEUE)
    for flags in (F.NOQUEUE, F.CANCEL | F.FORCEUNLOCK):
        with refused(errno.EINVAL):
            file.deadlock(lock_id, flags)
    assert file.deadlock(lock_id, F.CANCEL) == 0


# ---- PURGE --------------------------------------------------------------------------------------


@pytest.mark.row("4.4.6 own locks")
@pytest.mark.parametrize("nodeid", [0, 1])
def test_purge_of_the_callers_own_locks(
    lockspace: Lockspace, machine: Machine, nodeid: int
) -> None:
    """PURGE with the caller's pid ends all locks of this file and its results, and no others'."""
    file, second = lockspace.open(), lockspace.open()
    file.lock(b"a", EX)
    file.lock(b"b", EX, F.PERSISTENT)
    file.lock(b"a", PR)
    kept = second.lock(b"c", EX)

    assert file.purge(nodeid, machine.backend.process_id()) == 0

    assert file.poll() == 0
    assert [resource.name for resource in lockspace.resources() if resource.locks] == [b"c"]
    assert second.results() == [Cast(kept)]
    file.granted(b"b", EX)


@pytest.mark.row("4.4.6 own locks")
def test_purge_makes_way(lockspace: Lockspace, machine: Machine) -> None:
    """Who waited for the purged locks is granted, and the value block is marked invalid."""
    file, second = lockspace.open(), lockspace.open()
    first = file.lock(b"a", EX, F.VALBLK)
    file.convert(first, EX, F.VALBLK, value=b"old")
    waiter = second.lock(b"a", PR, F.VALBLK)

    file.purge(0, machine.backend.process_id())

    (result,) = second.whole_results()
    assert (result.lock_id, result.status, result.flags) == (waiter, 0, 2)


@pytest.mark.row("4.4.6 all orphans")
@pytest.mark.parametrize("nodeid", [0, 1])
def test_purge_of_all_orphans(lockspace: Lockspace, other: Machine, nodeid: int) -> None:
    """PURGE with pid 0 ends every orphan of the lockspace, and no lock of the living."""
    dying = LockFile(other.open_device("dlm_test"))
    for name in (b"a", b"b"):
        dying.granted(name, EX, F.PERSISTENT)
    other.backend.close()
    file = lockspace.open()
    mine = file.granted(b"c", EX, F.PERSISTENT)

    assert file.purge(nodeid, 0) == 0

    locks = [lock.lock_id for resource in lockspace.resources() for lock in resource.locks]
    assert locks == [mine]
    file.granted(b"a", EX)


@pytest.mark.row("4.4.6 orphans of one process", "4.4.6 recorded pid")
def test_purge_of_the_orphans_of_one_process(
    lockspace: Lockspace, machine: Machine, other: Machine
) -> None:
    """PURGE with another pid ends the orphans whose last operation that process made."""
    first, second = lockspace.open(), LockFile(other.open_device("dlm_test"))
    mine = first.granted(b"mine", EX, F.PERSISTENT)
    touched = first.granted(b"touched", EX, F.PERSISTENT)
    theirs = second.granted(b"theirs", EX, F.PERSISTENT)
    second.convert(touched, EX, F.PERSISTENT)
    pid = other.backend.process_id()
    assert [lockspace.entry(lock).pid for lock in (mine, touched, theirs)] == [
        machine.backend.process_id(),
        pid,
        pid,
    ]
    first.close()
    other.backend.close()
    file = lockspace.open()

    assert file.purge(0, pid) == 0

    locks = [lock.lock_id for resource in lockspace.resources() for lock in resource.locks]
    assert locks == [mine]
    assert file.purge(0, 999_999_999) == 0
    assert lockspace.find(mine) is not None


CONNECTS_TO_NOBODY = (
    "5.10 then tries to connect: no remove returns for minutes, and rmdir is an oops"
)


def purge_elsewhere(file: LockFile, profile: KernelProfile, nodeid: int, pid: int) -> bool:
    """Purge on a node that nobody configured; say whether that ended as this kernel ends it."""
    try:
        return file.purge(nodeid, pid) == 0 and profile.takes_any_target
    except OSError as error:
        return error.errno == errno.ENOBUFS and not profile.takes_any_target


@pytest.mark.row("4.4.6 unreachable node")
@pytest.mark.emulator_only(CONNECTS_TO_NOBODY, takes_any_target=True)
@pytest.mark.parametrize("nodeid", [5, -1])
@pytest.mark.parametrize("pid", [0, 1])
def test_purge_on_an_unreachable_node(
    file: LockFile, profile: KernelProfile, nodeid: int, pid: int
) -> None:
    """PURGE of a node that has no address is ENOBUFS; 5.10 takes it, and nothing happens."""
    assert purge_elsewhere(file, profile, nodeid, pid)


@pytest.mark.row("4.4.6 remote purge does not wait")
@pytest.mark.emulator_only(CONNECTS_TO_NOBODY, takes_any_target=True)
def test_remote_purge_while_stopped(lockspace: Lockspace, profile: KernelProfile) -> None:
    """A purge of another node does not wait for the lockspace to run."""
    file = lockspace.open()
    lockspace.stop()

    assert purge_elsewhere(file, profile, 5, 0)


# ---- who may act on a lock ----------------------------------------------------------------------


@pytest.mark.row("4.11 any file may act", "fact 8")
def test_any_file_may_act_on_any_lock(
    lockspace: Lockspace, machine: Machine, other: Machine
) -> None:
    """Another file's, even another process's, lock may be converted, cancelled and unlocked.

    The results go to the owner's file.
    """
    owner, stranger = lockspace.open(), LockFile(other.open_device("dlm_test"))
    lock_id = owner.granted(b"a", EX)

    assert stranger.convert(lock_id, PR) == 0
    assert stranger.cancel(lock_id) == 0
    assert stranger.unlock(lock_id) == 0

    assert owner.results() == [Cast(lock_id), unlocked(lock_id)]
    assert stranger.results() == []
    assert machine.backend.process_id() != other.backend.process_id()


@pytest.mark.row("4.11 lock ids")
def test_lock_ids_count_from_one(lockspace: Lockspace) -> None:
    """Lock ids of a lockspace count from 1, over all of its files."""
    first, second = lockspace.open(), lockspace.open()

    assert [first.lock(b"a", NL), second.lock(b"a", NL), first.lock(b"b", NL)] == [1, 2, 3]


@pytest.mark.row("4.11 lock ids")
def test_lock_ids_are_the_lockspaces_own(machine: Machine) -> None:
    """Each lockspace counts for itself."""
    machine.configure()
    files = [machine.create(name).open() for name in ("one", "two")]

    assert [file.lock(b"a", NL) for file in files] == [1, 1]


@pytest.mark.row("4.11 reuse", "4.11 freed when read")
def test_lowest_free_lock_id_is_taken(file: LockFile, profile: KernelProfile) -> None:
    """The lowest free id is used again, up to 6.9 only when its lock's last result was read."""
    for _ in range(4):
        file.lock(b"a", NL)
    file.results()
    file.unlock(3)
    file.unlock(2)
    expected = [5, 2, 3, 6] if profile.ids_free_when_read else [2, 3, 5, 6]
    before = file.lock(b"a", NL)

    assert file.results() == [unlocked(3), unlocked(2), Cast(before)]

    assert [before, *(file.lock(b"a", NL) for _ in range(3))] == expected


@pytest.mark.row("4.11 reuse")
def test_failed_requests_use_up_an_id(file: LockFile, profile: KernelProfile) -> None:
    """A request that ends with EAGAIN has an id, up to 6.9 until it is read; a refused one none."""
    file.granted(b"a", EX)
    assert file.lock(b"a", EX, F.NOQUEUE) == 2
    with refused(errno.EINVAL):
        file.lock(b"a", 99)
    second, third = (3, 2) if profile.ids_free_when_read else (2, 3)
    assert file.lock(b"b", EX) == second

    assert file.results() == [Cast(2, -errno.EAGAIN), Cast(second)]

    assert file.lock(b"c", EX) == third


@pytest.mark.row("4.4.3 waits while stopped", "fact 2")
def test_request_of_another_process_through_a_stop(
    lockspace: Lockspace, machine: Machine, other: Machine
) -> None:
    """A request that slept through a stop is an ordinary lock of its process afterwards."""
    file = LockFile(other.open_device("dlm_test"))
    lockspace.stop()
    pending = file.submit(lock_request(name=b"a", mode=EX))
    assert machine.still_sleeps(pending)
    lockspace.start()
    lock_id = machine.result(pending)

    assert file.results() == [Cast(lock_id)]
    assert lockspace.entry(lock_id).granted_mode == EX
