"""Rows of section 8: dlm-control and the lockspace's device, version 3.0.0."""

from __future__ import annotations

import errno
import struct

import pytest

from dlm.abi.device import Command, LockRequest, LockResult, LockspaceRequest
from dlm.abi.device2005 import decode_result, encode_request
from dlm.emulator.misc import MiscFile
from dlm.ports import DeviceClose, DeviceRead, DeviceWrite, OpenFlags
from dlm.terms import ECANCEL, EUNLOCK, LockFlag
from tests.contract2005.world import (
    CR,
    EX,
    NL,
    PR,
    PW,
    Machine,
    lock_bytes,
    refused,
    results,
    unlock_bytes,
    world,
)

row = pytest.mark.row
CREATE = LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"test")


@pytest.fixture
def file(node: Machine) -> MiscFile:
    """Return an open file on a lockspace that runs."""
    node.run()
    return node.open()


def statuses(file: MiscFile) -> list[tuple[int, int]]:
    """Return lock id and status of what has come."""
    return [(result.lock_id, result.status) for result in results(file)]


# ---- 8.4 write: the envelope --------------------------------------------------------------------


@row("8.4 1 size")
def test_a_write_of_134_bytes_is_too_short(node: Machine, file: MiscFile) -> None:
    """On both devices, whatever the command; 135 are looked at further."""
    for request in (encode_request(CREATE), lock_bytes()):
        for device in (node.process.open_device("dlm-control"), file):
            with refused(errno.EINVAL):
                device.write(request[:134])
    assert file.write(lock_bytes()[:135]) > 0


@row("8.4 1 size")
def test_an_i386_program_is_refused(file: MiscFile) -> None:
    """Its 104 bytes are too few for a 64-bit kernel, which has no compat layer."""
    with refused(errno.EINVAL):
        file.write(bytes(104))


@row("8.4 2 deleted")
def test_a_file_of_a_removed_lockspace(node: Machine) -> None:
    """Write is ENOENT, after the size and before the version; read is the end of the file."""
    minor = node.run()
    file = node.open()
    removing = node.remove(minor)
    node.answer_leave()
    removing.result()
    with refused(errno.EINVAL):
        file.write(bytes(134))
    with refused(errno.ENOENT):
        file.write(bytes(136))
    assert file.read(96) == b""
    file.close()


@row("8.4 4 version")
@pytest.mark.parametrize("version", [(2, 0, 0), (4, 0, 0), (3, 1, 0), (6, 0, 2)])
def test_another_version_is_ebade(
    node: Machine, file: MiscFile, version: tuple[int, int, int]
) -> None:
    """Before the command is looked at; the kernel logs both."""
    with refused(errno.EBADE):
        file.write(encode_request(LockRequest(command=99), version=version))
    with refused(errno.EBADE):
        node.process.open_device("dlm-control").write(encode_request(CREATE, version=version))
    user = "{}.{}.{}".format(*version)
    assert f"version mismatch user ({user}) kernel (3.0.0)" in node.cluster.node("nodea").log()[-1]


@row("8.4 6 command")
@pytest.mark.parametrize("command", [0, 3, 4, 5, 6, 7, 200])
def test_commands_that_a_lockspace_does_not_take(
    node: Machine, file: MiscFile, command: int
) -> None:
    """CREATE, REMOVE, QUERY and unknown numbers are EINVAL; unknown ones are logged."""
    with refused(errno.EINVAL):
        file.write(encode_request(LockRequest(command=command)))
    said = f"Unknown command passed to DLM device : {command}"
    assert (node.cluster.node("nodea").log()[-1] == said) == (command not in {3, 4, 5})


@row("8.4 6 command")
@pytest.mark.parametrize("command", [0, 1, 2, 3, 6, 7, 200])
def test_commands_that_dlm_control_does_not_take(node: Machine, command: int) -> None:
    """LOCK, UNLOCK, QUERY and unknown numbers are EINVAL."""
    with refused(errno.EINVAL):
        node.process.open_device("dlm-control").write(encode_request(LockRequest(command=command)))


# ---- 8.4 create and remove ----------------------------------------------------------------------


@row("8.4 CREATE")
def test_create_needs_cap_sys_admin(node: Machine) -> None:
    """EPERM, before the name is looked at; remove likewise, before the minor."""
    process = node.cluster.node("nodea").process(capable=False)
    device = process.open_device("dlm-control")
    for request in (
        LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"x" * 65),
        LockspaceRequest(Command.REMOVE_LOCKSPACE, minor=9999),
    ):
        with refused(errno.EPERM):
            device.write(encode_request(request))


@row("8.4 CREATE")
def test_create_returns_the_minor(node: Machine) -> None:
    """The number that /proc/misc shows for ``dlm_<name>``."""
    assert node.run() == node.process.misc_devices()["dlm_test"]


@row("8.4 CREATE name")
def test_a_name_ends_at_its_first_nul(node: Machine) -> None:
    """What follows it does not count."""
    node.control(encode_request(LockspaceRequest(Command.CREATE_LOCKSPACE, name=b"ab\0cd")))
    assert node.process.list_directory("dlm") == ["ab"]


@row("8.4 REMOVE")
def test_remove_of_an_unknown_minor_is_einval(node: Machine) -> None:
    """Not ENOENT."""
    node.run()
    with refused(errno.EINVAL):
        node.remove(9999).result()


@row("8.4 REMOVE mutex")
def test_a_close_waits_for_a_remove(node: Machine) -> None:
    """The module's mutex is held over the leave; a second remove waits, too."""
    minor = node.run()
    file = node.open()
    removing = node.remove(minor)
    closing = file.submit(DeviceClose())
    second = node.remove(minor)
    node.cluster.settle()
    assert [call.done() for call in (removing, closing, second)] == [False] * 3
    node.answer_leave()
    assert removing.result() == 136
    closing.result()
    with refused(errno.EINVAL):
        second.result()


# ---- 8.4 lock -----------------------------------------------------------------------------------


@row("8.4 LOCK")
def test_a_lock_returns_its_id(file: MiscFile) -> None:
    """The first ids are 0x0001xxxx, with a bucket below 1024."""
    lock = file.write(lock_bytes(EX))
    assert (lock >> 16, lock & 0xFFFF < 1024) == (1, True)
    assert results(file) == [LockResult(1, 0, 3, 0, lock, 0, 0)]


@row("8.4 LOCK addresses")
def test_a_lock_needs_completion_and_status_address(file: MiscFile) -> None:
    """Either one missing is EINVAL."""
    for missing in ("castaddr", "lksb"):
        with refused(errno.EINVAL):
            file.write(lock_bytes(EX, **{missing: 0}))


@row("8.4 LOCK parent")
@pytest.mark.parametrize("flags", [0, LockFlag.PERSISTENT])
def test_a_parent_is_einval(file: MiscFile, flags: int) -> None:
    """With PERSISTENT in the device, else in the lock manager."""
    with refused(errno.EINVAL):
        file.write(lock_bytes(EX, flags, parent=1))


@row("8.4 LOCK range")
def test_a_range_is_refused(file: MiscFile) -> None:
    """Ours knows none: EINVAL. One whose end is 0 is no range."""
    request = LockRequest(mode=EX, castaddr=1, lksb=3, name=b"res")
    with refused(errno.EINVAL):
        file.write(encode_request(request, extent=(0, 1)))
    assert file.write(encode_request(request, extent=(5, 0))) > 0


@row("8.7 dlm_lock arguments")
@pytest.mark.parametrize(
    ("mode", "flags", "name"),
    [
        (6, 0, b"r"),
        (255, 0, b"r"),
        (EX, 0, b"r" * 65),
        (EX, LockFlag.CANCEL, b"r"),
        (EX, LockFlag.QUECVT, b"r"),
        (EX, LockFlag.CONVDEADLK, b"r"),
        (EX, LockFlag.EXPEDITE, b"r"),
        (NL, LockFlag.EXPEDITE | LockFlag.NOQUEUE, b"r"),
        (NL, LockFlag.EXPEDITE | LockFlag.QUECVT, b"r"),
    ],
)
def test_locks_that_make_no_sense(file: MiscFile, mode: int, flags: int, name: bytes) -> None:
    """EINVAL, and nothing is left."""
    with refused(errno.EINVAL):
        file.write(lock_bytes(mode, flags, name=name))


@row("8.7 NOQUEUE")
def test_a_refusal_of_noqueue_is_a_completion(file: MiscFile) -> None:
    """The call succeeds with an id, the completion has -EAGAIN."""
    file.write(lock_bytes(EX))
    results(file)
    lock = file.write(lock_bytes(EX, LockFlag.NOQUEUE))
    assert (lock, -errno.EAGAIN) in statuses(file)


@row("8.7 unknown ids")
@pytest.mark.parametrize(
    ("lock_id", "number"),
    [(0x10400, errno.EBADSLT), (0x1FFFF, errno.EBADSLT), (0, errno.ENOENT), (5, errno.ENOENT)],
)
def test_ids_that_nobody_has(file: MiscFile, lock_id: int, number: int) -> None:
    """The bucket is looked at first; conversions and unlocks alike."""
    with refused(number):
        file.write(lock_bytes(PR, LockFlag.CONVERT, lock_id=lock_id))
    with refused(number):
        file.write(unlock_bytes(lock_id))


@row("8.4 LOCK convert")
def test_a_conversion_returns_the_id(file: MiscFile) -> None:
    """Its completion says 0."""
    lock = file.write(lock_bytes(EX))
    results(file)
    assert file.write(lock_bytes(CR, LockFlag.CONVERT, lock_id=lock)) == lock
    assert statuses(file) == [(lock, 0)]


@row("8.7 convert while not granted")
def test_a_conversion_of_a_waiting_lock_is_ebusy(file: MiscFile) -> None:
    """It has nothing to convert yet."""
    file.write(lock_bytes(EX))
    waits = file.write(lock_bytes(EX))
    with refused(errno.EBUSY):
        file.write(lock_bytes(PR, LockFlag.CONVERT, lock_id=waits))


@row("8.4 LOCK orphan")
def test_orphan_makes_a_second_lock(node: Machine, file: MiscFile) -> None:
    """ORPHAN finds none: the lock of the same name and mode that was left stays, and excludes."""
    file.write(lock_bytes(EX, LockFlag.PERSISTENT))
    file.close()
    other = node.open()
    lock = other.write(lock_bytes(EX, LockFlag.ORPHAN | LockFlag.PERSISTENT))
    assert lock > 0
    assert results(other) == []


# ---- 8.4 unlock ---------------------------------------------------------------------------------


@row("8.4 UNLOCK")
def test_an_unlock_returns_the_count(file: MiscFile) -> None:
    """136 bytes; the completion says -EUNLOCK, at the address of before when it names none."""
    lock = file.write(lock_bytes(EX))
    results(file)
    assert file.write(unlock_bytes(lock)) == 136
    assert [(r.astaddr, r.lock_id, r.status) for r in results(file)] == [(1, lock, -EUNLOCK)]


@row("8.4 UNLOCK")
def test_an_unlock_may_name_another_completion_address(file: MiscFile) -> None:
    """Address, parameter and status block of the unlock itself."""
    lock = file.write(lock_bytes(EX))
    results(file)
    file.write(unlock_bytes(lock, castaddr=7, castparam=8, lksb=9))
    assert [(r.astaddr, r.astparam, r.lksb) for r in results(file)] == [(7, 8, 9)]


@row("8.7 dlm_unlock")
def test_what_can_be_unlocked_and_cancelled(file: MiscFile) -> None:
    """CANCEL of a granted lock and unlock of a waiting one are EINVAL."""
    held, waits = file.write(lock_bytes(EX)), file.write(lock_bytes(EX))
    results(file)
    with refused(errno.EINVAL):
        file.write(unlock_bytes(held, LockFlag.CANCEL))
    with refused(errno.EINVAL):
        file.write(unlock_bytes(waits))
    file.write(unlock_bytes(waits, LockFlag.CANCEL))
    assert statuses(file) == [(waits, -ECANCEL)]


@row("8.4 UNLOCK by anybody")
def test_anybody_may_unlock_by_id(node: Machine, file: MiscFile) -> None:
    """Another process's lock goes, and its owner gets the completion."""
    lock = file.write(lock_bytes(EX))
    results(file)
    other = node.process.spawn_process().open_device("dlm_test")
    other.write(unlock_bytes(lock))
    assert (statuses(file), statuses(other)) == ([(lock, -EUNLOCK)], [])


@row("8.7 remote reply")
def test_an_unlock_while_a_reply_is_awaited_is_ebusy() -> None:
    """A conversion that is on its way to the master cannot be overtaken."""
    cluster = world("members")
    machines = [Machine(cluster, name) for name in ("nodea", "nodeb")]
    for machine in machines:
        machine.configure()
        machine.create()
    for machine in machines:
        machine.start([1, 2])
        machine.put("event_done", b"0")
    cluster.settle()
    files = [machine.open() for machine in machines]
    first = files[0].write(lock_bytes(CR))
    cluster.settle()
    second = files[1].write(lock_bytes(CR))
    cluster.settle()
    assert first
    files[1].write(lock_bytes(PR, LockFlag.CONVERT, lock_id=second))
    with refused(errno.EBUSY):
        files[1].write(unlock_bytes(second))
    cluster.settle()
    assert statuses(files[1]) == [(second, 0), (second, 0)]


# ---- 8.5 read, poll, ioctl ----------------------------------------------------------------------


@row("8.5 size")
@pytest.mark.parametrize("size", [0, 12, 40, 63])
def test_a_read_of_less_than_a_result_is_einval(file: MiscFile, size: int) -> None:
    """Also the 12 bytes with which later versions tell their version."""
    file.write(lock_bytes(EX))
    with refused(errno.EINVAL):
        file.read(size)
    assert len(file.read(64)) == 64


@row("8.5 empty")
def test_an_empty_queue(node: Machine, file: MiscFile) -> None:
    """EAGAIN with O_NONBLOCK, else the read sleeps until something comes; poll shows which."""
    assert file.poll(0) == 0
    with refused(errno.EAGAIN):
        file.read(64)
    blocking = node.process.open_device("dlm_test", flags=OpenFlags.RDWR)
    reading = blocking.submit(DeviceRead(64))
    assert not reading.done()
    blocking.write(lock_bytes(EX))
    assert decode_result(reading.result()).status == 0
    file.write(lock_bytes(CR, name=b"other"))
    assert file.poll(0) == 0x41


@row("8.5 one event")
def test_a_read_gives_exactly_one_event(file: MiscFile) -> None:
    """In the order in which they came."""
    ids = [file.write(lock_bytes(EX, name=name)) for name in (b"a", b"b")]
    assert [decode_result(file.read(1000)).lock_id for _ in ids] == ids


@row("8.5 FIONREAD")
def test_fionread_counts_events(file: MiscFile) -> None:
    """Events, not bytes; every other ioctl is ENOTTY, and dlm-control has none at all."""
    for name in (b"a", b"b"):
        file.write(lock_bytes(EX, name=name))
    assert file.ioctl(0x541B, bytes(4)) == (0, struct.pack("<i", 2))
    with refused(errno.ENOTTY):
        file.ioctl(0x541C, bytes(4))


@row("8.5 FIONREAD")
def test_dlm_control_has_no_ioctl(node: Machine) -> None:
    """ENOTTY, FIONREAD too; and no read: EINVAL."""
    device = node.process.open_device("dlm-control")
    with refused(errno.ENOTTY):
        device.ioctl(0x541B, bytes(4))
    with refused(errno.EINVAL):
        device.read(96)


@row("8.5 value block")
def test_a_value_block_needs_room(file: MiscFile) -> None:
    """With room for the struct only that comes, names the length, and stays to be read again."""
    lock = file.write(lock_bytes(EX, LockFlag.VALBLK))
    header = file.read(95)
    assert (len(header), struct.unpack_from("<I", header)[0]) == (64, 96)
    assert decode_result(header).value is None
    whole = file.read(96)
    assert decode_result(whole) == LockResult(1, 0, 3, 0, lock, 0, 0, bytes(32))
    assert file.poll(0) == 0


@row("8.5 value block")
def test_a_value_block_comes_with_equal_and_higher_modes(file: MiscFile) -> None:
    """Written by a conversion down from EX, read by one up; not given with one down."""
    lock = file.write(lock_bytes(EX, LockFlag.VALBLK))
    results(file)
    flags = LockFlag.CONVERT | LockFlag.VALBLK
    value = bytes(range(32))
    request = LockRequest(
        mode=CR, flags=flags, lock_id=lock, castaddr=1, lksb=3, value=value, name=b""
    )
    file.write(encode_request(request))
    assert [result.value for result in results(file)] == [None]
    file.write(lock_bytes(PR, flags, lock_id=lock))
    assert [result.value for result in results(file)] == [value]


@row("8.5 blocking")
def test_a_blocking_ast_is_known_by_its_address(file: MiscFile) -> None:
    """bast_mode is 0 always."""
    lock = file.write(lock_bytes(EX))
    file.write(lock_bytes(EX))
    found = results(file)
    assert [(r.astaddr, r.lock_id, r.bast_mode) for r in found] == [(1, lock, 0), (2, lock, 0)]


@row("8.7 held results")
def test_results_are_not_delivered_while_stopped(node: Machine, file: MiscFile) -> None:
    """What was granted before the stop and not fetched comes when locking is on again."""
    lock = file.write(lock_bytes(EX))
    node.stop()
    assert file.poll(0) == 0
    assert file.ioctl(0x541B, bytes(4))[1] == bytes(4)
    node.start([1], 2)
    if node.event:
        assert file.poll(0) == 0
        node.put("finish", b"2")
    assert statuses(file) == [(lock, 0)]


# ---- 8.6 close ----------------------------------------------------------------------------------


@row("8.6 close")
def test_a_close_ends_locks_but_persistent_ones(node: Machine, file: MiscFile) -> None:
    """After it the persistent lock still excludes; the other does not."""
    file.write(lock_bytes(EX, name=b"gone"))
    file.write(lock_bytes(EX, LockFlag.PERSISTENT, name=b"kept"))
    file.close()
    other = node.open()
    other.write(lock_bytes(EX, name=b"gone"))
    other.write(lock_bytes(EX, LockFlag.NOQUEUE, name=b"kept"))
    assert [result.status for result in results(other)] == [0, -errno.EAGAIN]


@row("8.6 last request")
def test_persistent_counts_in_the_last_request(node: Machine, file: MiscFile) -> None:
    """A conversion of an orphan without it makes a lock that goes with the converting file."""
    lock = file.write(lock_bytes(EX, LockFlag.PERSISTENT))
    file.close()
    second = node.open()
    second.write(lock_bytes(PW, LockFlag.CONVERT, lock_id=lock))
    assert statuses(second) == [(lock, 0)]
    second.close()
    third = node.open()
    third.write(lock_bytes(EX, LockFlag.NOQUEUE))
    assert [result.status for result in results(third)] == [0]


@row("8.6 last request")
def test_a_conversion_with_persistent_keeps_an_orphan(node: Machine, file: MiscFile) -> None:
    """It survives the converting file, too."""
    lock = file.write(lock_bytes(EX, LockFlag.PERSISTENT))
    file.close()
    second = node.open()
    second.write(lock_bytes(PW, LockFlag.CONVERT | LockFlag.PERSISTENT, lock_id=lock))
    second.close()
    third = node.open()
    assert third.write(unlock_bytes(lock)) == 136
    assert statuses(third) == [(lock, -EUNLOCK)]


@row("8.6 stopped")
def test_a_close_waits_while_the_lockspace_is_stopped(node: Machine, file: MiscFile) -> None:
    """It goes on when locking is on."""
    file.write(lock_bytes(EX))
    node.stop()
    closing = file.submit(DeviceClose())
    node.cluster.settle()
    assert not closing.done()
    node.start([1], 2)
    if node.event:
        node.put("finish", b"2")
    closing.result()


@row("8.6 removed under a call")
def test_a_call_that_waits_when_its_lockspace_goes(node: Machine) -> None:
    """INFER: ENOENT for a request; a close never shows an error."""
    minor = node.run()
    files = node.open(), node.open()
    node.stop()
    locking = files[0].submit(DeviceWrite(lock_bytes(EX)))
    unlocking = files[1].submit(DeviceWrite(unlock_bytes(0x10001)))
    closing = files[1].submit(DeviceClose())
    node.answer_leave()
    node.remove(minor).result()
    for pending in (locking, unlocking):
        with refused(errno.ENOENT):
            pending.result()
    closing.result()


# ---- 9 ------------------------------------------------------------------------------------------


@row("9 debugfs")
def test_debugfs_shows_the_queues_from_create_on(node: Machine) -> None:
    """One file per lockspace, 0444, before the join is answered; empty without locks."""
    node.create()
    assert node.process.list_directory("debug/dlm") == ["test"]
    assert node.process.stat("debug/dlm/test").mode & 0o777 == 0o444
    assert node.process.read_attribute("debug/dlm/test") == b""


@row("9 debugfs")
def test_debugfs_shows_a_lock(node: Machine, file: MiscFile) -> None:
    """Id in hex and granted mode."""
    lock = file.write(lock_bytes(EX, name=b"a\x01"))
    text = node.process.read_attribute("debug/dlm/test").decode()
    assert 'Name (len=2) "a."  \nMaster Copy\n' in text
    assert f"Granted Queue\n{lock:08x} EX\n" in text
