"""Files on a lockspace's device: what their last close does to locks, and how orphans are adopted.

Linux 6.1 fs/dlm/user.c, device_open(), device_close(); lock.c, dlm_clear_proc_locks(),
dlm_user_adopt_orphan().
"""

from __future__ import annotations

import errno

import pytest

from dlm.ports import DeviceClose, DeviceRead, OpenFlags
from dlm.terms import KernelProfile, LockFlag, LockMode
from tests.contract.machine import (
    Bast,
    Cast,
    LockFile,
    Lockspace,
    Machine,
    refused,
    unlocked,
    value_block,
)
from tests.contract.worlds import World

NL, CR, CW, PR, PW, EX = LockMode
F = LockFlag
PERSISTENT = LockFlag.PERSISTENT

ORPHAN = 0x2  # of the flags that debugfs shows


# ---- open ---------------------------------------------------------------------------------------


@pytest.mark.row("4.7 open")
def test_open_of_no_lockspace(lockspace: Lockspace, machine: Machine) -> None:
    """A lockspace that is not there has no device to open: ENOENT."""
    with refused(errno.ENOENT):
        machine.backend.open_device("dlm_other")
    assert lockspace.remove() == 0

    with refused(errno.ENOENT):
        machine.backend.open_device("dlm_test")


@pytest.mark.row("4.7 open")
def test_open_needs_no_capability(lockspace: Lockspace, world: World) -> None:
    """Whoever may open the device may lock, without CAP_SYS_ADMIN."""
    assert lockspace.has_device()
    with world.unprivileged() as backend:
        file = LockFile(backend.open_device("dlm_test"))

        assert file.granted(b"a", EX) == 1


@pytest.mark.row("4.7 open")
def test_open_while_stopped(lockspace: Lockspace) -> None:
    """A device can be opened, polled and read while its lockspace is stopped."""
    lockspace.stop()

    file = lockspace.open()

    assert file.poll() == 0
    assert file.results() == []


@pytest.mark.row("4.7 open")
def test_each_open_has_its_own_results(lockspace: Lockspace) -> None:
    """Each open file has its own results and its own locks."""
    first, second = lockspace.open(), lockspace.open()
    first.lock(b"a", EX)
    second.lock(b"a", PR)

    assert second.results() == []
    assert first.results() == [Cast(1), Bast(1, PR)]

    first.close()
    assert second.results() == [Cast(2)]


@pytest.mark.row("4.7 dup and fork")
def test_last_close_counts(lockspace: Lockspace, machine: Machine) -> None:
    """While a call of another process holds the open file, too, its locks stay after a close."""
    file = lockspace.open(flags=OpenFlags.RDWR)
    lock_id = file.lock(b"a", EX)
    assert len(file.device.read(104)) == 72
    pending = file.device.submit(DeviceRead(104))
    assert machine.still_sleeps(pending)

    file.close()
    assert lockspace.entry(lock_id).granted_mode == EX

    pending.close()
    machine.eventually(lambda: lockspace.find(lock_id) is None, "the end of the lock")


@pytest.mark.row("4.7 after close")
@pytest.mark.parametrize("name", ["dlm-control", "dlm_test"])
@pytest.mark.usefixtures("lockspace")
def test_closed_file(machine: Machine, name: str) -> None:
    """Every call on a file that was closed is EBADF, but closing it again."""
    device = machine.open_device(name)
    device.close()

    device.close()
    for call in (
        lambda: device.write(bytes(120)),
        lambda: device.read(12),
        lambda: device.ioctl(0, b""),
        lambda: device.poll(0),
        lambda: device.submit(DeviceRead(12)).result(),
    ):
        with refused(errno.EBADF):
            call()


# ---- close --------------------------------------------------------------------------------------


@pytest.mark.row("4.7 close while stopped", "fact 2")
def test_close_waits_while_stopped(lockspace: Lockspace, machine: Machine) -> None:
    """close(2) sleeps while the lockspace is stopped, even of a file without locks."""
    file = lockspace.open()
    lockspace.stop()
    pending = file.device.submit(DeviceClose())
    assert machine.still_sleeps(pending)

    lockspace.start()

    machine.eventually(pending.done, "the close")
    assert pending.result() is None


@pytest.mark.row("4.7 not persistent")
@pytest.mark.parametrize("state", ["granted", "waiting", "converting"])
def test_close_ends_locks(lockspace: Lockspace, state: str) -> None:
    """Locks that are not PERSISTENT end with their file, in any state, and others are granted."""
    keeper, file = lockspace.open(), lockspace.open()
    if state != "granted":
        keeper.granted(b"a", PR)
    lock_id = file.lock(b"a", EX) if state == "waiting" else file.granted(b"a", PR)
    if state == "converting":
        file.convert(lock_id, EX)
    last = keeper.lock(b"a", EX)
    keeper.results()

    file.close()

    assert lockspace.find(lock_id) is None
    if state == "granted":
        assert keeper.results() == [Cast(last)]


@pytest.mark.row("4.7 not persistent", "4.7 results")
def test_closed_file_gets_no_results(lockspace: Lockspace) -> None:
    """A file's results go with it; the ids of its locks are free at once."""
    file = lockspace.open()
    file.lock(b"a", EX)
    file.lock(b"a", PR)

    file.close()

    again = lockspace.open()
    assert again.lock(b"a", EX) == 1
    assert again.results() == [Cast(1)]


@pytest.mark.row("4.7 not persistent")
@pytest.mark.parametrize(("mode", "flags"), [(EX, 2), (PW, 2), (PR, 0), (CW, 0), (CR, 0), (NL, 0)])
def test_close_invalidates_the_value(lockspace: Lockspace, mode: LockMode, flags: int) -> None:
    """A granted PW or EX that ends with its file leaves the value block marked invalid."""
    keeper, file = lockspace.open(), lockspace.open()
    reader = keeper.lock(b"a", EX, F.VALBLK)
    keeper.convert(reader, NL, F.VALBLK, value=b"old")
    keeper.results()
    file.granted(b"a", mode)

    file.close()

    keeper.convert(reader, PR, F.VALBLK)
    (result,) = keeper.whole_results()
    assert (result.flags, result.value) == (flags, value_block(b"old"))


@pytest.mark.row("4.7 not persistent")
def test_close_of_a_waiting_ex_invalidates_nothing(lockspace: Lockspace) -> None:
    """An EX that only waited leaves the value block alone."""
    keeper, file = lockspace.open(), lockspace.open()
    reader = keeper.lock(b"a", EX, F.VALBLK)
    keeper.convert(reader, PR, F.VALBLK, value=b"old")
    file.lock(b"a", EX)
    keeper.results()

    file.close()

    keeper.convert(reader, PR, F.VALBLK)
    (result,) = keeper.whole_results()
    assert (result.flags, result.value) == (0, value_block(b"old"))


@pytest.mark.row("4.7 persistent, granted", "fact 8")
@pytest.mark.parametrize("mode", list(LockMode))
def test_persistent_lock_becomes_an_orphan(
    lockspace: Lockspace, profile: KernelProfile, mode: LockMode
) -> None:
    """A granted PERSISTENT lock stays as an orphan in its mode, and goes on blocking others."""
    file = lockspace.open()
    lock_id = file.granted(b"a", mode, PERSISTENT)

    file.close()

    entry = lockspace.entry(lock_id)
    assert entry.granted_mode == mode
    assert entry.flags & ORPHAN == (0 if profile.padded_names else ORPHAN)
    later = lockspace.open()
    waiter = later.lock(b"a", EX, F.NOQUEUE)
    assert later.results() == [Cast(waiter, 0 if mode == NL else -errno.EAGAIN)]
    assert later.adopt(b"a", mode) == lock_id


@pytest.mark.row("4.7 persistent, granted", "fact 8")
def test_exit_makes_orphans(lockspace: Lockspace, other: Machine) -> None:
    """The exit of a process closes its files: its PERSISTENT locks are orphans, the others end."""
    file = LockFile(other.open_device("dlm_test"))
    kept = file.granted(b"a", EX, PERSISTENT)
    ended = file.granted(b"b", EX)

    other.backend.close()

    assert lockspace.find(ended) is None
    assert lockspace.open().adopt(b"a", EX) == kept


@pytest.mark.row("4.7 persistent, granted")
def test_orphan_with_unread_results(lockspace: Lockspace) -> None:
    """A lock whose grant was never read is an orphan like any other."""
    file = lockspace.open()
    lock_id = file.lock(b"a", EX, PERSISTENT)

    file.close()

    again = lockspace.open()
    assert again.adopt(b"a", EX) == lock_id
    assert again.results() == []


@pytest.mark.row("4.7 persistent, converting")
def test_conversion_of_a_persistent_lock_is_cancelled(lockspace: Lockspace) -> None:
    """A PERSISTENT lock whose conversion waits becomes an orphan in its old mode."""
    keeper, file = lockspace.open(), lockspace.open()
    keeper.granted(b"a", PR)
    lock_id = file.granted(b"a", PR, PERSISTENT)
    file.convert(lock_id, EX, PERSISTENT)

    file.close()

    entry = lockspace.entry(lock_id)
    assert (entry.granted_mode, entry.requested_mode) == (PR, -1)
    assert lockspace.open().adopt(b"a", PR) == lock_id


@pytest.mark.row("4.7 persistent, waiting")
def test_waiting_persistent_request_ends(lockspace: Lockspace) -> None:
    """A PERSISTENT request that waits is cancelled with its file, and never granted."""
    keeper, file = lockspace.open(), lockspace.open()
    holder = keeper.granted(b"a", EX)
    waiter = file.lock(b"a", EX, PERSISTENT)

    file.close()

    assert lockspace.find(waiter) is None
    keeper.unlock(holder)
    keeper.results()
    keeper.granted(b"a", EX)
    with refused(errno.ENOENT):
        keeper.adopt(b"b", EX)


@pytest.mark.row("4.7 persistent, waiting")
def test_waiting_persistent_request_leaves_a_dead_orphan(lockspace: Lockspace) -> None:
    """It keeps its id among the orphans: adopting is EAGAIN in every mode, REMOVE is EBUSY.

    A conversion is EBUSY, a cancel succeeds once. A purge would crash the kernel.
    """
    keeper, file = lockspace.open(), lockspace.open()
    keeper.granted(b"a", EX)
    dead = file.lock(b"a", PR, PERSISTENT)
    file.close()

    assert keeper.lock(b"b", NL) == dead + 1
    for mode in (NL, PR, EX):
        with refused(errno.EAGAIN):
            keeper.adopt(b"a", mode)
    with refused(errno.EBUSY):
        keeper.convert(dead, NL)
    assert keeper.cancel(dead) == 0
    with refused(errno.EINVAL):
        keeper.cancel(dead)
    keeper.close()
    with refused(errno.EBUSY):
        lockspace.remove(0)


@pytest.mark.row("4.7 last operation's flags", "fact 8")
def test_conversion_decides_persistence(lockspace: Lockspace) -> None:
    """The last operation decides: a conversion makes a lock PERSISTENT, or not any more."""
    file = lockspace.open()
    pinned, loose = file.granted(b"a", EX), file.granted(b"b", EX, PERSISTENT)
    file.converted(pinned, EX, PERSISTENT)
    file.converted(loose, EX)

    file.close()

    assert lockspace.find(loose) is None
    assert lockspace.open().adopt(b"a", EX) == pinned


@pytest.mark.row("4.7 persistent, granted")
def test_orphans_get_no_blocking_asts(lockspace: Lockspace) -> None:
    """Nobody gets a blocking AST for an orphan, and its adopter none for what came before."""
    file = lockspace.open()
    lock_id = file.granted(b"a", EX, PERSISTENT)
    file.close()
    keeper = lockspace.open()
    keeper.lock(b"a", PR)

    again = lockspace.open()
    assert again.adopt(b"a", EX) == lock_id

    assert again.results() == []
    assert keeper.results() == []
    again.unlock(lock_id)
    assert keeper.results() == [Cast(2)]


@pytest.mark.row("4.7 per file state")
def test_layout_is_the_files(lockspace: Lockspace) -> None:
    """What a file learned, such as the 32-bit layout, goes with it."""
    file = lockspace.open()
    with refused(errno.EINVAL):
        file.device.write(bytes([6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 99, 0]).ljust(104, b"\0"))
    file.close()

    again = lockspace.open()
    again.lock(b"a", EX)

    assert [len(data) for data in again.raw_results()] == [72]


@pytest.mark.row("4.7 order of the locks")
def test_locks_end_in_the_order_of_their_making(lockspace: Lockspace) -> None:
    """The locks of a closed file end oldest first, so waiters are granted in that order."""
    keeper, file = lockspace.open(), lockspace.open()
    for name in (b"a", b"b", b"c"):
        file.granted(name, EX)
    waiting = [keeper.lock(name, EX) for name in (b"c", b"a", b"b")]

    file.close()

    assert keeper.results() == [Cast(waiting[1]), Cast(waiting[2]), Cast(waiting[0])]


@pytest.mark.row("4.7 order of the locks")
def test_exit_closes_files_in_the_order_of_their_descriptors(
    lockspace: Lockspace, other: Machine
) -> None:
    """An open(2) takes the lowest free descriptor, and exit(2) lets the highest go first."""
    keeper = lockspace.open()
    spare = LockFile(other.open_device(lockspace.device_name))
    second = LockFile(other.open_device(lockspace.device_name))
    second.granted(b"second", EX)
    spare.close()
    first = LockFile(other.open_device(lockspace.device_name))
    first.granted(b"first", EX)
    waiting = [keeper.lock(name, EX) for name in (b"second", b"first")]

    other.backend.close()

    lockspace.machine.eventually(lambda: lockspace.find(2) is None, "the end of the process")
    assert keeper.results() == [Cast(waiting[0]), Cast(waiting[1])]


# ---- adopting -----------------------------------------------------------------------------------


def orphan(lockspace: Lockspace, name: bytes, mode: int = EX, flags: int = PERSISTENT) -> int:
    """Leave an orphan behind; return its lock id."""
    file = lockspace.open()
    lock_id = file.granted(name, mode, flags)
    file.close()
    return lock_id


@pytest.mark.row("4.8 match", "4.8 success", "fact 8")
def test_adopt(lockspace: Lockspace) -> None:
    """Adopting returns the orphan's id and gives no completion; the lock is this file's then."""
    lock_id = orphan(lockspace, b"a")
    file = lockspace.open()

    assert file.adopt(b"a", EX) == lock_id

    assert file.results() == []
    entry = lockspace.entry(lock_id)
    assert entry.granted_mode == EX
    assert not entry.flags & ORPHAN
    assert file.unlock(lock_id) == 0
    assert file.results() == [unlocked(lock_id)]


@pytest.mark.row("4.8 match")
def test_oldest_orphan_is_adopted_first(lockspace: Lockspace, machine: Machine) -> None:
    """Of several orphans of the same name and mode the oldest is adopted, by time of dying."""
    first, second = lockspace.open(), lockspace.open()
    one, two = first.granted(b"a", PR, PERSISTENT), second.granted(b"a", PR, PERSISTENT)
    second.close()
    first.close()
    file = lockspace.open()

    assert [file.adopt(b"a", PR), file.adopt(b"a", PR)] == [two, one]

    with refused(errno.ENOENT):
        file.adopt(b"a", PR)
    assert machine.backend.process_id() == lockspace.entry(one).pid


@pytest.mark.row("4.8 mode", "fact 8")
@pytest.mark.parametrize("mode", [NL, CR, PW, 6, 200])
def test_adopt_in_another_mode(lockspace: Lockspace, mode: int) -> None:
    """When only the mode is different, even a mode that does not exist, adopting is EAGAIN."""
    orphan(lockspace, b"a", EX)

    with refused(errno.EAGAIN):
        lockspace.open().adopt(b"a", mode)


@pytest.mark.row("4.8 nothing matches", "fact 8")
@pytest.mark.parametrize("name", [b"b", b"a\0", b"", b"aa"])
def test_adopt_what_is_not_there(lockspace: Lockspace, name: bytes) -> None:
    """When no orphan has that name, adopting is ENOENT, whatever the mode."""
    orphan(lockspace, b"a", EX)

    for mode in (EX, 200):
        with refused(errno.ENOENT):
            lockspace.open().adopt(name, mode)


@pytest.mark.row("4.8 nothing matches", "fact 8")
def test_adopt_of_a_living_lock(lockspace: Lockspace) -> None:
    """A lock whose owner lives is no orphan: ENOENT."""
    owner = lockspace.open()
    owner.granted(b"a", EX, PERSISTENT)

    with refused(errno.ENOENT):
        lockspace.open().adopt(b"a", EX)


@pytest.mark.row("4.8 success")
@pytest.mark.parametrize("flags", [0, PERSISTENT])
def test_flags_of_the_adoption_are_the_locks(lockspace: Lockspace, flags: int) -> None:
    """The adopter's flags replace the lock's: without PERSISTENT it ends with the adopter."""
    lock_id = orphan(lockspace, b"a")
    file = lockspace.open()
    file.adopt(b"a", EX, flags)

    file.close()

    assert (lockspace.find(lock_id) is not None) == bool(flags)


@pytest.mark.row("4.8 success", "4.4.6 recorded pid")
def test_adopter_is_the_locks_process(
    lockspace: Lockspace, machine: Machine, other: Machine
) -> None:
    """The lock's pid is the adopter's; its blocking ASTs go to the adopter's addresses."""
    lock_id = orphan(lockspace, b"a")
    assert lockspace.entry(lock_id).pid == machine.backend.process_id()
    file = LockFile(other.open_device("dlm_test"))

    file.lock(b"a", EX, F.ORPHAN | PERSISTENT, castaddr=21, castparam=22)

    assert lockspace.entry(lock_id).pid == other.backend.process_id()
    lockspace.open().lock(b"a", PR)
    assert file.results() == [Bast(lock_id, PR)]
    file.convert(lock_id, EX, castparam=0)


@pytest.mark.row("4.8 checks")
def test_adopting_is_not_blocked_by_a_stop(lockspace: Lockspace) -> None:
    """An orphan can be adopted while the lockspace is stopped, and kept through the start."""
    lock_id = orphan(lockspace, b"a")
    file = lockspace.open()
    lockspace.stop()

    assert file.adopt(b"a", EX) == lock_id
    with refused(errno.ENOENT):
        file.adopt(b"a", EX)

    lockspace.start()
    assert file.unlock(lock_id) == 0


@pytest.mark.row("4.8 value block")
def test_value_block_of_an_orphan_is_kept(lockspace: Lockspace) -> None:
    """An adopted lock has the buffer that it had, and can write the value block with it."""
    file = lockspace.open()
    lock_id = file.lock(b"a", PW, PERSISTENT | F.VALBLK)
    file.results()
    file.close()
    again = lockspace.open()
    again.adopt(b"a", PW)

    again.convert(lock_id, NL, F.VALBLK, value=b"new")

    assert again.results() == [Cast(lock_id)]
    again.lock(b"a", PR, F.VALBLK)
    assert again.values() == [value_block(b"new")]


@pytest.mark.row("4.8 conversion of an orphan")
def test_conversion_of_an_orphan_is_silent(lockspace: Lockspace) -> None:
    """An orphan can be converted by lock id without adopting it; nobody gets a completion."""
    lock_id = orphan(lockspace, b"a", EX)
    file = lockspace.open()

    assert file.convert(lock_id, CR, PERSISTENT) == 0

    assert file.results() == []
    assert lockspace.entry(lock_id).granted_mode == CR
    assert file.granted(b"a", CR) != lock_id


@pytest.mark.row("4.8 unlock of an orphan", "fact 8")
@pytest.mark.emulator_only("UNLOCK of an orphan that was not adopted hangs a 6.1 kernel for ever")
def test_unlock_of_an_orphan_is_silent(lockspace: Lockspace) -> None:
    """The emulator ends an orphan that is unlocked without adopting; nobody gets a completion."""
    lock_id = orphan(lockspace, b"a", EX)
    file = lockspace.open()

    assert file.unlock(lock_id) == 0

    assert file.results() == []
    assert lockspace.find(lock_id) is None


@pytest.mark.row("fact 8")
def test_pinning_a_granted_lock(lockspace: Lockspace, other: Machine) -> None:
    """A lock that outlives its tool: request plain, convert to the same mode with PERSISTENT."""
    tool = LockFile(other.open_device("dlm_test"))
    lock_id = tool.granted(b"a", EX)
    tool.converted(lock_id, EX, PERSISTENT)
    other.backend.close()
    file = lockspace.open()

    assert file.adopt(b"a", EX) == lock_id

    file.unlock(lock_id)
    assert file.results() == [unlocked(lock_id)]
