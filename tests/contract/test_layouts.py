"""Requests and results byte by byte, native and as a 32-bit program sends them.

The bytes are packed by hand here: these tests are what dlm.abi is held to.
Linux 6.1 include/uapi/linux/dlm_device.h, fs/dlm/user.c (CONFIG_COMPAT).
"""

from __future__ import annotations

import errno
import struct

import pytest

from dlm.ports import DeviceWrite
from dlm.terms import LockFlag, LockMode
from tests.contract.machine import LockFile, Lockspace, Machine, lock_request, refused, value_block

EX, PR, NL = LockMode.EX, LockMode.PR, LockMode.NL
LOCK, UNLOCK, CREATE, REMOVE, PURGE = 1, 2, 4, 5, 6


def header(command: int, is64bit: int) -> bytes:
    """Return the first 16 bytes of a request: version, command, word size."""
    return struct.pack("=3IBB2x", 6, 0, 2, command, is64bit)


def native_lock(name: bytes, mode: int, flags: int = 0, lock_id: int = 0, xid: int = 0) -> bytes:
    """Return a LOCK request in the native layout."""
    return (
        header(LOCK, 1)
        + struct.pack("=BB2x3IQQ", mode, len(name), flags, lock_id, 0, xid, 0)
        + struct.pack("=5Q", 0xC2, 0xC1, 0xB2, 0xB1, 0xD1)
        + value_block(b"value")
        + name
    )


def compat_lock(name: bytes, mode: int, flags: int = 0, lock_id: int = 0, xid: int = 0) -> bytes:
    """Return a LOCK request as a 64-bit kernel expects it of a 32-bit program."""
    return (
        header(LOCK, 0)
        + struct.pack("=BB2x3IQQ", mode, len(name), flags, lock_id, 0, xid, 0)
        + struct.pack("=5I", 0xC2, 0xC1, 0xB2, 0xB1, 0xD1)
        + value_block(b"value")
        + name
        + bytes(4)
    )


# ---- native -------------------------------------------------------------------------------------


@pytest.mark.row("4.2 dlm_write_request", "4.2 dlm_lock_params")
def test_fields_of_a_native_request(file: LockFile, lockspace: Lockspace) -> None:
    """Name, mode, flags and xid of a request are where the native layout has them."""
    lock_id = file.device.write(native_lock(b"name of 9", PR, LockFlag.VALBLK, xid=77))

    entry = lockspace.entry(lock_id)
    assert lockspace.resources()[0].name == b"name of 9"
    assert (entry.granted_mode, entry.exflags, entry.xid) == (PR, LockFlag.VALBLK, 77)


@pytest.mark.row("4.2 dlm_lock_result", "4.2 dlm_lksb", "4.5 CAST fields")
def test_fields_of_a_native_result(file: LockFile) -> None:
    """A completion holds the caller's addresses and the lock status block, and its own length."""
    lock_id = file.device.write(native_lock(b"a", EX, LockFlag.VALBLK))

    (data,) = file.raw_results()

    assert data[:12] == struct.pack("=3I", 6, 0, 2)
    assert data[12:40] == struct.pack("=IQQQ", 104, 0xC1, 0xC2, 0xD1)
    assert data[40:64] == struct.pack("=iIB7xQ", 0, lock_id, 0, 0)
    assert data[64:72] == struct.pack("=B3xI", 0, 72)
    assert len(data) == 104


@pytest.mark.row("4.2 dlm_lock_result", "4.5 BAST fields")
def test_fields_of_a_native_bast(file: LockFile) -> None:
    """A blocking AST holds bastaddr and bastparam, and the mode that is blocked."""
    file.device.write(native_lock(b"a", EX, LockFlag.VALBLK))
    file.raw_results()
    file.device.write(native_lock(b"a", PR))

    (data,) = file.raw_results()

    assert data[12:40] == struct.pack("=IQQQ", 72, 0xB1, 0xB2, 0xD1)
    assert data[40:64] == struct.pack("=iIB7xQ", 0, 1, 0, 0)
    assert data[64:72] == struct.pack("=B3xI", PR, 0)
    assert len(data) == 72


@pytest.mark.row("4.2 dlm_lspace_params")
def test_native_create_and_remove(machine: Machine) -> None:
    """CREATE and REMOVE have flags, minor and a name that ends with NUL, from byte 16 on."""
    machine.configure()
    machine.add_member("test", 1)
    request = header(CREATE, 1) + struct.pack("=II", 0, 4711) + b"test\0rubbish"
    pending = machine.control().submit(DeviceWrite(request.ljust(120, b"x")), detached=True)
    machine.eventually(lambda: machine.exists("dlm/test"), "dlm/test")
    lockspace = machine.finish_create(Lockspace(machine, "test"), pending)
    lockspace.write("event_done", "0")

    request = header(REMOVE, 1) + struct.pack("=II", 0, lockspace.minor) + b"ignored"

    assert machine.result(machine.control().submit(DeviceWrite(request.ljust(120, b"x")))) == 0


@pytest.mark.row("4.2 dlm_purge_params")
def test_native_purge(file: LockFile, machine: Machine) -> None:
    """PURGE has a nodeid and a process id from byte 16 on."""
    file.lock(b"a", EX)
    request = header(PURGE, 1) + struct.pack("=iI", 0, machine.backend.process_id())

    assert file.device.write(request.ljust(120, b"\0")) == 0

    assert file.poll() == 0


# ---- compat -------------------------------------------------------------------------------------


@pytest.mark.row("4.3 layout of a request")
def test_fields_of_a_compat_request(file: LockFile, lockspace: Lockspace) -> None:
    """Name, mode, flags and xid of a 32-bit request are found, too."""
    lock_id = file.device.write(compat_lock(b"name of 9", PR, LockFlag.VALBLK, xid=77))

    entry = lockspace.entry(lock_id)
    assert lockspace.resources()[0].name == b"name of 9"
    assert (entry.granted_mode, entry.exflags, entry.xid) == (PR, LockFlag.VALBLK, 77)


@pytest.mark.row("4.3 layout of a result")
def test_fields_of_a_compat_result(file: LockFile) -> None:
    """A completion for a 32-bit program is 52 bytes, or 84 with a value block."""
    lock_id = file.device.write(compat_lock(b"a", EX, LockFlag.VALBLK))

    (data,) = file.raw_results(84)

    assert len(data) == 84
    assert data[:12] == struct.pack("=3I", 6, 0, 2)
    assert data[12:28] == struct.pack("=4I", 84, 0xC1, 0xC2, 0xD1)
    assert data[28:44] == struct.pack("=iIB3xI", 0, lock_id, 0, 0)
    assert data[44:52] == struct.pack("=B3xI", 0, 52)


@pytest.mark.row("4.3 layout of a result")
def test_compat_bast(file: LockFile) -> None:
    """A blocking AST for a 32-bit program is 52 bytes, with the mode at byte 44."""
    file.device.write(compat_lock(b"a", EX))
    file.raw_results(52)
    file.device.write(compat_lock(b"a", PR))

    (data,) = file.raw_results(84)

    assert data[12:28] == struct.pack("=4I", 52, 0xB1, 0xB2, 0xD1)
    assert data[44:52] == struct.pack("=B3xI", PR, 0)
    assert len(data) == 52


@pytest.mark.row("4.3 struct size", "4.3 effect")
@pytest.mark.parametrize(
    ("missing", "name"), [(0, b"c64name"), (4, b"c64\0\0\0\0"), (1, b"c64nam\0")]
)
def test_end_of_a_compat_name(
    file: LockFile, lockspace: Lockspace, missing: int, name: bytes
) -> None:
    """The name begins at byte 100 but is counted from 104: what is sent less comes out as NULs."""
    request = compat_lock(b"c64name", EX)

    file.device.write(request[: len(request) - missing])

    assert lockspace.resources()[0].name == name


@pytest.mark.row("4.3 struct size")
def test_compat_request_of_100_bytes(file: LockFile) -> None:
    """A 32-bit request without a name, 100 bytes on i386, is too short for a 64-bit kernel."""
    request = compat_lock(b"", EX)
    assert len(request) == 104

    with refused(errno.EINVAL):
        file.device.write(request[:100])
    assert file.device.write(request) == 1


@pytest.mark.row("4.3 selection", "4.3 stickiness")
def test_compat_is_chosen_by_the_request_and_stays(lockspace: Lockspace) -> None:
    """One byte of a request chooses the 32-bit layout, for that file and all its later results."""
    file, fresh = lockspace.open(), lockspace.open()
    file.device.write(compat_lock(b"a", EX))
    assert [len(data) for data in file.raw_results()] == [52]

    file.device.write(native_lock(b"b", EX))
    fresh.device.write(native_lock(b"c", EX))

    assert [len(data) for data in file.raw_results()] == [52]
    assert [len(data) for data in fresh.raw_results()] == [72]


@pytest.mark.row("4.3 stickiness")
def test_results_from_before_are_compat_too(file: LockFile) -> None:
    """The layout is chosen when a result is read: earlier requests' results change theirs, too."""
    file.device.write(native_lock(b"a", EX))

    file.device.write(compat_lock(b"b", EX))

    assert [len(data) for data in file.raw_results()] == [52, 52]


@pytest.mark.row("4.3 stickiness", "4.4 check 6")
def test_any_compat_request_makes_it_stick(file: LockFile) -> None:
    """A 32-bit request that fails chooses the layout all the same."""
    with refused(errno.EINVAL):
        file.device.write(header(99, 0).ljust(104, b"\0"))

    file.device.write(native_lock(b"a", EX))

    assert [len(data) for data in file.raw_results()] == [52]


@pytest.mark.row("4.3 control file", "4.3 CREATE name")
def test_compat_create_and_remove(machine: Machine) -> None:
    """CREATE and REMOVE take the 32-bit layout, request by request; the name counts from 104."""
    machine.configure()
    machine.add_member("test", 1)
    request = (header(CREATE, 0) + struct.pack("=II", 0, 0) + b"test\0rubbish").ljust(108, b"x")
    pending = machine.control().submit(DeviceWrite(request), detached=True)
    machine.eventually(lambda: machine.backend.list_directory("dlm"), "a lockspace")
    assert machine.backend.list_directory("dlm") == ["test"]
    lockspace = machine.finish_create(Lockspace(machine, "test"), pending)

    assert machine.control().read(12) == bytes([6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0])
    assert lockspace.remove() == 0


@pytest.mark.row("4.3 CREATE name")
def test_compat_create_with_a_name_cut_short(machine: Machine) -> None:
    """A 32-bit CREATE of 104 bytes has a name of no bytes, wherever the name stands: EINVAL."""
    machine.configure()
    request = (header(CREATE, 0) + struct.pack("=II", 0, 0) + b"test").ljust(104, b"\0")

    with refused(errno.EINVAL):
        machine.result(machine.control().submit(DeviceWrite(request)))


@pytest.mark.row("4.3 layout of a request")
def test_compat_convert_and_unlock(file: LockFile) -> None:
    """The lock id of a 32-bit request is found, too."""
    file.device.write(compat_lock(b"a", EX))

    assert file.device.write(compat_lock(b"", NL, LockFlag.CONVERT, lock_id=1)) == 0
    unlock = bytearray(compat_lock(b"", 0, 0, lock_id=1))
    unlock[12] = UNLOCK
    assert file.device.write(bytes(unlock)) == 0

    statuses = [struct.unpack_from("=i", data, 28)[0] for data in file.raw_results()]
    assert statuses == [0, 0, -65538]


@pytest.mark.row("4.2 dlm_lock_params")
def test_dlm_abi_packs_the_same(file: LockFile) -> None:
    """What dlm.abi packs is what is packed by hand here."""
    packed = lock_request(
        name=b"name",
        mode=EX,
        flags=LockFlag.VALBLK,
        value=b"value",
        castparam=0xC2,
        castaddr=0xC1,
        bastparam=0xB2,
        bastaddr=0xB1,
        lksb=0xD1,
        xid=77,
    )

    assert packed.startswith(native_lock(b"name", EX, LockFlag.VALBLK, xid=77))
    assert file.device.write(packed) == 1
