"""write(2) on the devices: the checks in their order, what a success returns, create and remove.

Linux 6.1 fs/dlm/user.c, device_write(); lockspace.c, new_lockspace(), dlm_release_lockspace().
"""

from __future__ import annotations

import errno
import struct

import pytest

from dlm.abi.device import LockRequest, encode_request
from dlm.ports import DeviceWrite, OpenFlags
from dlm.terms import KernelProfile, LockFlag, LockMode, LockspaceFlag, ReleaseFlag
from tests.contract.machine import (
    CLUSTER,
    Cast,
    LockFile,
    Lockspace,
    Machine,
    create_request,
    lock_request,
    refused,
    remove_request,
    unlock_request,
    unlocked,
)
from tests.contract.worlds import World

EX, PR, NL = LockMode.EX, LockMode.PR, LockMode.NL

LOCK, UNLOCK, CREATE, REMOVE, PURGE, DEADLOCK = 1, 2, 4, 5, 6, 7


def envelope(
    command: int, *, size: int = 120, version: tuple[int, int, int] = (6, 0, 2), is64bit: int = 1
) -> bytes:
    """Return a request of this size with nothing in it but its head."""
    head = struct.pack("=3IBB2x", *version, command, is64bit)
    return head.ljust(size, b"\0")[:size]


# ---- the checks in order ------------------------------------------------------------------------


@pytest.mark.row("4.4 check 1")
def test_read_only_file(machine: Machine) -> None:
    """A file opened only to read cannot be written: EBADF, before any look at the request."""
    device = machine.open_device("dlm-control", OpenFlags.RDONLY | OpenFlags.NONBLOCK)

    with refused(errno.EBADF):
        device.write(b"")
    with refused(errno.EBADF):
        device.write(create_request("test"))
    assert len(device.read(12)) == 12


@pytest.mark.row("4.4 check 2", "4.4 check 3")
@pytest.mark.parametrize("name", ["dlm-control", "dlm_test"])
@pytest.mark.parametrize("size", [0, 1, 12, 16, 103, 185, 4096])
@pytest.mark.usefixtures("lockspace")
def test_size_out_of_bounds(machine: Machine, name: str, size: int) -> None:
    """Fewer than 104 or more than 184 bytes are EINVAL, although the version is wrong, too."""
    with refused(errno.EINVAL):
        machine.open_device(name).write(envelope(99, size=size, version=(5, 0, 0)))


@pytest.mark.row("4.4 check 2", "4.4 check 3", "4.4 check 5")
@pytest.mark.parametrize("size", [104, 119, 120, 121, 184])
def test_size_within_bounds(machine: Machine, size: int) -> None:
    """From 104 to 184 bytes the version is what is looked at next."""
    with refused(errno.EBADE):
        machine.control().write(envelope(99, size=size, version=(5, 0, 0)))


@pytest.mark.row("4.4 check 5")
@pytest.mark.parametrize("version", [(0, 0, 0), (5, 0, 2), (7, 0, 2), (6, 1, 0), (6, 1, 2)])
@pytest.mark.parametrize("name", ["dlm-control", "dlm_test"])
@pytest.mark.usefixtures("lockspace")
def test_version_refused(machine: Machine, name: str, version: tuple[int, int, int]) -> None:
    """Another major version, or a later minor one, is EBADE, whatever the command."""
    with refused(errno.EBADE):
        machine.open_device(name).write(envelope(99, version=version))


@pytest.mark.row("4.4 check 5")
@pytest.mark.parametrize("patch", [0, 1, 3, 2**32 - 1])
def test_patch_level_is_ignored(file: LockFile, patch: int) -> None:
    """The version's last number is not looked at."""
    request = LockRequest(name=b"a", mode=EX, castaddr=1, lksb=1)

    assert file.device.write(encode_request(request, version=(6, 0, patch))) == 1


@pytest.mark.row("4.4 check 8")
@pytest.mark.parametrize("command", [LOCK, UNLOCK, PURGE, DEADLOCK])
@pytest.mark.parametrize("is64bit", [0, 1])
def test_no_locking_on_control(machine: Machine, command: int, is64bit: int) -> None:
    """Lock commands on dlm-control are EINVAL."""
    with refused(errno.EINVAL):
        machine.control().write(envelope(command, is64bit=is64bit))


@pytest.mark.row("4.4 check 9")
@pytest.mark.parametrize("request_", [create_request("new"), remove_request(0)])
def test_no_lockspaces_on_a_lockspace(file: LockFile, request_: bytes) -> None:
    """CREATE and REMOVE on a lockspace's device are EINVAL."""
    with refused(errno.EINVAL):
        file.device.write(request_)


@pytest.mark.row("4.4 check 10")
@pytest.mark.parametrize("name", ["dlm-control", "dlm_test"])
@pytest.mark.parametrize("command", [0, 3, 8, 99, 255])
@pytest.mark.usefixtures("lockspace")
def test_unknown_command(machine: Machine, name: str, command: int) -> None:
    """Commands 0, 3 and from 8 on are EINVAL everywhere."""
    with refused(errno.EINVAL):
        machine.open_device(name).write(envelope(command))


@pytest.mark.row("4.4 count of 104 to 119")
@pytest.mark.parametrize("size", [104, 119])
def test_native_request_without_its_end(file: LockFile, size: int) -> None:
    """A native LOCK without a name may lack its last bytes: only value block bytes are there."""
    request = lock_request(mode=EX)

    assert file.device.write(request[:size]) == 1

    assert file.results() == [Cast(1)]


@pytest.mark.row("4.4 names are bytes")
@pytest.mark.parametrize("name", [b"\0", b"a/b", b"a\0b", b"\xff\xfe", b" ", b"n" * 64])
def test_names_are_bytes(file: LockFile, lockspace: Lockspace, name: bytes) -> None:
    """A resource name is any bytes, at most 64; its length counts."""
    file.granted(name, EX)

    assert [resource.name for resource in lockspace.resources()] == [name]


@pytest.mark.row("4.4 names are bytes")
@pytest.mark.parametrize(("name", "other"), [(b"a", b"a\0"), (b"", b"\0\0")])
def test_length_of_a_name(
    file: LockFile, profile: KernelProfile, name: bytes, other: bytes
) -> None:
    """Up to 6.9 a name with a NUL at its end is another name; since 6.10 it is the same."""
    file.granted(name, EX)

    lock_id = file.lock(other, EX, LockFlag.NOQUEUE)

    assert file.results() == [Cast(lock_id, -errno.EAGAIN if profile.padded_names else 0)]


@pytest.mark.row("4.4 names are bytes")
@pytest.mark.profile(padded_names=False)
@pytest.mark.parametrize("other", [b"\0", b"\0\0\0"])
def test_names_in_one_bucket(machine: Machine, other: bytes) -> None:
    """Quirk: up to 6.9 a NUL at the end counts only where it makes another hash bucket."""
    machine.configure()
    machine.write(f"{CLUSTER}/rsbtbl_size", "1")
    lockspace = machine.create("test")
    file = lockspace.open()
    file.granted(b"", EX)

    lock_id = file.lock(other, EX, LockFlag.NOQUEUE)

    assert file.results() == [Cast(lock_id, -errno.EAGAIN)]
    assert [resource.name for resource in lockspace.resources()] == [b""]


# ---- what a success returns ---------------------------------------------------------------------


@pytest.mark.row("4.4 value of a new request")
def test_new_request_returns_the_lock_id(file: LockFile) -> None:
    """A new request returns its lock id, also when its completion will say EAGAIN."""
    assert file.lock(b"a", EX) == 1

    assert file.lock(b"a", EX, LockFlag.NOQUEUE) == 2

    assert file.results() == [Cast(1), Cast(2, -errno.EAGAIN)]


@pytest.mark.row(
    "4.4 value of CONVERT", "4.4 value of UNLOCK CANCEL PURGE DEADLOCK", "4.4 value of adopting"
)
def test_other_commands_return_zero(file: LockFile, lockspace: Lockspace) -> None:
    """CONVERT, CANCEL, DEADLOCK, UNLOCK and PURGE return 0; adopting returns the lock id."""
    lock_id = file.lock(b"a", EX, LockFlag.PERSISTENT)

    assert file.convert(lock_id, EX, LockFlag.PERSISTENT) == 0
    assert file.cancel(lock_id) == 0
    assert file.deadlock(lock_id) == 0
    file.close()
    again = lockspace.open()
    assert again.adopt(b"a", EX) == lock_id
    assert again.unlock(lock_id) == 0
    assert again.purge(0, 0) == 0


# ---- CREATE -------------------------------------------------------------------------------------


@pytest.mark.row("4.4.1 EPERM")
def test_create_needs_a_capability(world: World, machine: Machine) -> None:
    """CREATE without CAP_SYS_ADMIN is EPERM, before anything else of the request counts."""
    machine.configure()
    with world.unprivileged() as backend:
        device = backend.open_device("dlm-control")

        for name in ("test", ""):
            with refused(errno.EPERM):
                device.write(create_request(name))


@pytest.mark.row("4.4.1 ENOTCONN")
def test_create_without_a_cluster(machine: Machine) -> None:
    """Without any configuration, CREATE is ENOTCONN, even of a name that is wrong."""
    for name in ("test", "", "n" * 65):
        with refused(errno.ENOTCONN):
            machine.result(machine.submit_create(name))


@pytest.mark.row("4.4.1 ENOTCONN")
@pytest.mark.parametrize(("address", "local"), [(True, False), (False, True)])
def test_create_with_half_a_comm(machine: Machine, address: bool, local: bool) -> None:
    """A comm that is not local, or has no address, is not enough: ENOTCONN."""
    machine.mkdir(CLUSTER)
    machine.add_comm(1, machine.address if address else None, local=local)

    with refused(errno.ENOTCONN):
        machine.result(machine.submit_create("test"))


@pytest.mark.row("4.4.1 listening")
def test_create_with_an_address_of_nobody(machine: Machine, profile: KernelProfile) -> None:
    """The first CREATE fails when no interface has the local address: EADDRNOTAVAIL, or in use."""
    machine.mkdir(CLUSTER)
    machine.add_comm(1, "192.0.2.77", local=True)

    with refused(getattr(errno, profile.listen_error)):
        machine.result(machine.submit_create("test"))

    assert machine.backend.list_directory("dlm") == []


@pytest.mark.row("4.4.1 name length")
@pytest.mark.parametrize("name", ["", "\0hidden", "n" * 65, "n" * 160])
def test_name_of_a_wrong_length(machine: Machine, name: str) -> None:
    """A lockspace name has 1 to 64 bytes up to its first NUL; any other is EINVAL."""
    machine.configure()

    with refused(errno.EINVAL):
        machine.result(machine.submit_create(name))

    assert machine.backend.list_directory("dlm") == []


@pytest.mark.row("4.4.1 name length")
def test_longest_name(machine: Machine) -> None:
    """A name of 64 bytes is fine, and so is everything that is named after it."""
    machine.configure()

    lockspace = machine.create("n" * 64)

    assert machine.backend.list_directory("dlm") == ["n" * 64]
    assert lockspace.has_device()
    assert lockspace.open().granted(b"a", EX) == 1


@pytest.mark.row("4.4.1 name length")
@pytest.mark.parametrize("name", ["with space", "-", "ü", "a:b", "%s", "x" * 60])
def test_any_text_is_a_name(machine: Machine, name: str) -> None:
    """The kernel looks at a name's length only."""
    machine.configure()

    lockspace, pending = machine.begin_create(name)

    assert machine.backend.list_directory("dlm") == [name]
    lockspace.write("event_done", "-1")
    with refused(errno.EPERM):
        machine.result(pending)


@pytest.mark.row("4.4.1 EUNATCH")
@pytest.mark.emulator_only("6.12 and 7.2 crash: dlm_our_nodeid()", merged_results=False)
def test_create_without_a_local_comm(machine: Machine) -> None:
    """When the local comm went while a lockspace runs, CREATE is EUNATCH, EINVAL for a bad name."""
    machine.bring_up("first")
    machine.rmdir(f"{CLUSTER}/comms/1")

    with refused(errno.EUNATCH):
        machine.result(machine.submit_create("second"))
    with refused(errno.EUNATCH):
        machine.result(machine.submit_create("first"))
    with refused(errno.EINVAL):
        machine.result(machine.submit_create(""))


@pytest.mark.row("4.4.1 NEWEXCL", "fact 1")
def test_create_exclusively(lockspace: Lockspace, machine: Machine) -> None:
    """CREATE with NEWEXCL of a lockspace that exists is EEXIST at once, and does not count."""
    uevents = machine.uevents()

    with refused(errno.EEXIST):
        machine.result(machine.submit_create("test", LockspaceFlag.NEWEXCL))

    assert lockspace.remove() == 0
    assert uevents.headers(3)[0].startswith("remove@/devices")


@pytest.mark.row("4.4.1 NEWEXCL")
def test_create_exclusively_what_does_not_exist(machine: Machine) -> None:
    """NEWEXCL is no hindrance where the lockspace is new."""
    machine.configure()

    machine.create("test", LockspaceFlag.NEWEXCL)


@pytest.mark.row("4.4.1 use count", "4.4.2 use count", "4.4 value of REMOVE", "fact 4")
def test_use_count(lockspace: Lockspace, machine: Machine) -> None:
    """CREATE of a lockspace that exists returns its minor and counts; REMOVE counts down first."""
    uevents = machine.uevents()
    file = lockspace.open()
    file.granted(b"a", EX)
    assert machine.result(machine.submit_create("test")) == lockspace.minor
    assert machine.result(machine.submit_create("test", 0x20)) == lockspace.minor

    for _ in range(2):
        assert machine.result(lockspace.begin_remove(0)) == 0
    assert lockspace.has_device()
    assert uevents.headers_nowait() == []

    with refused(errno.EBUSY):
        machine.result(lockspace.begin_remove(0))
    file.close()
    assert lockspace.remove(0) == 0
    assert not lockspace.exists()


@pytest.mark.row("4.4.1 flags")
@pytest.mark.parametrize("flags", [0x1, 0x2, 0x4, 0x20, 0xFFFFFFE0])
def test_other_flags_of_create(machine: Machine, flags: int) -> None:
    """No other flag keeps a lockspace from being created and used."""
    machine.configure()

    lockspace = machine.create("test", flags)

    assert lockspace.open().granted(b"a", EX) == 1


@pytest.mark.row("4.4.1 flag 0x10")
def test_reserved_flag_of_create(machine: Machine, profile: KernelProfile) -> None:
    """Flag 0x10 means nothing; since 6.11 it is reserved, and EINVAL before any other look."""
    machine.configure()

    if profile.reserved_flag:
        with refused(errno.EINVAL):
            machine.result(machine.submit_create("test", 0x10))
        with refused(errno.EINVAL):
            machine.result(machine.submit_create("n" * 65, 0x10))
    else:
        machine.create("test", 0x10)


@pytest.mark.row("4.4.1 length of the value block")
def test_length_of_the_value_block(file: LockFile) -> None:
    """A value block has 32 bytes."""
    file.lock(b"a", EX, LockFlag.VALBLK)

    assert file.values() == [bytes(32)]


@pytest.mark.row("4.4.1 debugfs before device")
def test_files_that_come_with_the_end_of_create(lockspace: Lockspace, machine: Machine) -> None:
    """When create returns, the debugfs files are there, and the device can be opened."""
    names = [name for name in machine.backend.list_directory("debug/dlm") if name != "comms"]

    assert names == ["test", "test_all", "test_locks", "test_toss", "test_waiters"]
    assert lockspace.open().poll() == 0


# ---- REMOVE -------------------------------------------------------------------------------------


@pytest.mark.row("4.4.2 EPERM")
def test_remove_needs_a_capability(world: World, lockspace: Lockspace) -> None:
    """REMOVE without CAP_SYS_ADMIN is EPERM, also of what does not exist."""
    with world.unprivileged() as backend:
        device = backend.open_device("dlm-control")

        for minor in (lockspace.minor, 0):
            with refused(errno.EPERM):
                device.write(remove_request(minor))


@pytest.mark.row("4.4.2 ENOENT")
def test_remove_of_what_is_no_lockspace(lockspace: Lockspace, machine: Machine) -> None:
    """A minor that is no lockspace's is ENOENT, also one of the module's other devices."""
    minors = machine.backend.misc_devices()

    for minor in (0, 1, 255, minors["dlm-control"], minors["dlm-monitor"], -1 & 0xFFFFFFFF):
        with refused(errno.ENOENT):
            machine.control().write(remove_request(minor))

    assert lockspace.has_device()


@pytest.mark.row("4.4.2 EBUSY")
@pytest.mark.parametrize("state", ["granted", "waiting", "orphan"])
def test_remove_while_locks_exist(lockspace: Lockspace, machine: Machine, state: str) -> None:
    """Without FORCEFREE, any lock is EBUSY: granted, waiting or orphan."""
    file = lockspace.open()
    file.granted(b"a", EX, LockFlag.PERSISTENT)
    if state == "waiting":
        file.lock(b"a", EX)
    elif state == "orphan":
        file.close()

    with refused(errno.EBUSY):
        machine.result(lockspace.begin_remove(0))

    assert lockspace.has_device()


@pytest.mark.row("4.4.2 EBUSY")
def test_remove_with_an_unread_result(
    lockspace: Lockspace, machine: Machine, profile: KernelProfile
) -> None:
    """A lock that has ended is EBUSY, too, until its result was read; since 6.10 it is no lock."""
    file = lockspace.open()
    file.unlock(file.granted(b"a", EX))

    if profile.ids_free_when_read:
        with refused(errno.EBUSY):
            machine.result(lockspace.begin_remove(0))
        assert lockspace.has_device()
        assert file.results() == [unlocked(1)]

    lockspace.write("event_done", "0")  # remembered for the REMOVE
    pending = lockspace.begin_remove(0)
    machine.eventually(lambda: not lockspace.has_device(), "the end of dlm_test")
    file.close()
    assert machine.result(pending) == 0


@pytest.mark.row("4.4.2 EBUSY", "3 FORCEFREE", "fact 4")
def test_remove_by_force(lockspace: Lockspace) -> None:
    """FORCEFREE removes a lockspace with an orphan in it."""
    file = lockspace.open()
    file.granted(b"a", EX, LockFlag.PERSISTENT)
    file.close()

    assert lockspace.remove(ReleaseFlag.FORCEFREE) == 0

    assert not lockspace.exists()


@pytest.mark.row("4.4.2 waits for files", "4.4.2 directory while it waits", "fact 2")
def test_remove_waits_for_open_files(lockspace: Lockspace, machine: Machine) -> None:
    """After its answer, REMOVE sleeps until every file is closed; till then the files all work."""
    file, second = lockspace.open(), lockspace.open()
    lock_id = file.granted(b"a", EX)
    pending = lockspace.begin_remove()
    machine.eventually(lambda: not lockspace.has_device(), "the end of dlm_test")
    lockspace.write("event_done", "0")
    assert machine.still_sleeps(pending)

    assert file.granted(b"b", EX) == lock_id + 1
    file.unlock(lock_id)
    assert file.results() == [unlocked(lock_id)]
    assert lockspace.read("recover_status") == "ff\n"
    with refused(errno.ENOENT):
        machine.backend.open_device("dlm_test")
    second.close()
    assert machine.still_sleeps(pending)
    file.close()

    assert machine.result(pending) == 0
    assert not lockspace.exists()


@pytest.mark.row("4.4.2 step 9", "4.4.2 uevents in order")
def test_everything_goes_with_the_lockspace(lockspace: Lockspace, machine: Machine) -> None:
    """After REMOVE nothing of the lockspace is left, in sysfs, debugfs or among the devices."""
    file = lockspace.open()
    file.granted(b"a", EX, LockFlag.PERSISTENT)
    file.close()

    assert lockspace.remove() == 0

    assert machine.backend.list_directory("dlm") == []
    assert [n for n in machine.backend.list_directory("debug/dlm") if n.startswith("test")] == []
    assert "dlm_test" not in machine.backend.misc_devices()
    again = machine.finish_create(*machine.begin_create("test"))
    assert again.resources() == []


@pytest.mark.row("4.4.2 flags and name")
@pytest.mark.parametrize("flags", [ReleaseFlag.AUTOFREE, 0x80000000])
def test_other_flags_of_remove(lockspace: Lockspace, machine: Machine, flags: int) -> None:
    """AUTOFREE and unknown flags do nothing: with locks it is EBUSY, without it is removed."""
    file = lockspace.open()
    file.granted(b"a", EX)
    with refused(errno.EBUSY):
        machine.result(lockspace.begin_remove(flags))
    file.close()

    assert lockspace.remove(flags) == 0


@pytest.mark.row("4.4.2 EBUSY")
def test_refused_remove_leaves_the_lockspace_alone(lockspace: Lockspace, machine: Machine) -> None:
    """A REMOVE that was EBUSY sends no event, and locking goes on."""
    file = lockspace.open()
    file.granted(b"a", EX)
    uevents = machine.uevents()

    with refused(errno.EBUSY):
        machine.result(lockspace.begin_remove(0))

    assert uevents.headers_nowait() == []
    assert file.granted(b"b", EX) == 2


# ---- a lockspace that is stopped ----------------------------------------------------------------


@pytest.mark.row("4.4.3 castaddr and lksb")
def test_addresses_are_looked_at_before_the_wait(lockspace: Lockspace) -> None:
    """LOCK without castaddr or lksb is EINVAL at once, even while the lockspace is stopped."""
    file = lockspace.open()
    lockspace.stop()

    for flags in (0, LockFlag.CONVERT, LockFlag.ORPHAN):
        with refused(errno.EINVAL):
            file.device.write(lock_request(name=b"a", mode=EX, flags=flags, castaddr=0))
        with refused(errno.EINVAL):
            file.device.write(lock_request(name=b"a", mode=EX, flags=flags, lksb=0))


@pytest.mark.row("4.4.3 waits while stopped", "4.4.4 waits while stopped", "fact 2")
@pytest.mark.parametrize(
    ("request_", "number"),
    [
        (lock_request(name=b"new", mode=6), errno.EINVAL),
        (lock_request(name=b"new", mode=EX, flags=LockFlag.CANCEL), errno.EINVAL),
        (lock_request(lock_id=99, mode=EX, flags=LockFlag.CONVERT), errno.ENOENT),
        (unlock_request(99), errno.ENOENT),
        (unlock_request(99, LockFlag.CANCEL), errno.ENOENT),
        (unlock_request(1, LockFlag.CONVERT), errno.EINVAL),
        (encode_request(LockRequest(command=DEADLOCK, lock_id=99)), errno.ENOENT),
    ],
    ids=["request", "flags", "convert", "unlock", "cancel", "unlock flags", "deadlock"],
)
def test_other_checks_come_after_the_wait(
    lockspace: Lockspace, machine: Machine, request_: bytes, number: int
) -> None:
    """Every other check comes after the wait for the lockspace to run, O_NONBLOCK or not."""
    file = lockspace.open()
    file.granted(b"a", EX)
    lockspace.stop()
    pending = file.submit(request_)
    assert machine.still_sleeps(pending)

    lockspace.start()

    with refused(number):
        machine.result(pending)


@pytest.mark.row("4.4.3 waits while stopped", "4.4.6 local purge waits while stopped", "fact 2")
@pytest.mark.parametrize(
    ("request_", "value"),
    [
        (lock_request(name=b"new", mode=EX), 2),
        (lock_request(lock_id=1, mode=NL, flags=LockFlag.CONVERT), 0),
        (unlock_request(1), 0),
        (unlock_request(1, LockFlag.CANCEL), 0),
        (struct.pack("=3IBB2xiI", 6, 0, 2, PURGE, 1, 0, 0).ljust(120, b"\0"), 0),
    ],
    ids=["request", "convert", "unlock", "cancel", "purge"],
)
def test_calls_that_wait_while_stopped(
    lockspace: Lockspace, machine: Machine, request_: bytes, value: int
) -> None:
    """Requests, conversions, unlocks, cancels and local purges sleep while stopped, then go on."""
    file = lockspace.open()
    file.granted(b"a", EX)
    lockspace.stop()
    pending = file.submit(request_)
    assert machine.still_sleeps(pending)

    lockspace.start()

    assert machine.result(pending) == value


@pytest.mark.row("4.4.4 castaddr is not needed")
def test_unlock_needs_no_addresses(file: LockFile) -> None:
    """UNLOCK needs neither castaddr nor lksb; its result then has lksb 0 and the old castparam."""
    lock_id = file.granted(b"a", EX)

    request = LockRequest(command=UNLOCK, lock_id=lock_id)
    assert file.device.write(encode_request(request)) == 0

    (result,) = file.whole_results()
    assert (result.lksb, result.astaddr, result.astparam) == (0, 0x1000, 0x1001)


@pytest.mark.row("4.4 value of a new request")
def test_submitted_write_is_the_same_write(file: LockFile, machine: Machine) -> None:
    """A write that is submitted returns what a plain one returns."""
    pending = file.device.submit(DeviceWrite(lock_request(name=b"a", mode=EX)))

    assert machine.result(pending) == 1
    assert file.results() == [Cast(1)]
