"""The misc devices themselves: numbers, polling, opening, and dlm-monitor.

Linux 6.1 fs/dlm/user.c, drivers/char/misc.c.
"""

from __future__ import annotations

import errno

import pytest

from dlm.ports import Device, DeviceRead, DeviceWrite, OpenFlags, PollEvents
from dlm.terms import KernelProfile, LockFlag, LockMode
from tests.contract.machine import (
    Cast,
    LockFile,
    Lockspace,
    Machine,
    lock_request,
    refused,
)
from tests.contract.worlds import World

EX = LockMode.EX

ALWAYS = PollEvents.IN | PollEvents.OUT | PollEvents.RDNORM | PollEvents.WRNORM
RESULT = PollEvents.IN | PollEvents.RDNORM


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.row("4.1 devices of the module")
def test_devices_of_the_module(machine: Machine) -> None:
    """Loading the module makes dlm-control, dlm-monitor and dlm_plock, and nothing else."""
    names = {name for name in machine.backend.misc_devices() if name.startswith("dlm")}

    assert names == {"dlm-control", "dlm-monitor", "dlm_plock"}


@pytest.mark.row("4.1 devices of the module")
def test_minors_of_the_module(machine: Machine, profile: KernelProfile) -> None:
    """The three devices have neighbouring minors, counted in the order of their making."""
    minors = machine.backend.misc_devices()

    assert minors["dlm-monitor"] == minors["dlm-control"] + profile.minors_step
    assert minors["dlm_plock"] == minors["dlm-monitor"] + profile.minors_step


@pytest.mark.row("4.1 minors")
def test_minors_of_a_quiet_machine(machine: Machine, profile: KernelProfile) -> None:
    """On a machine with few other devices the minors are those of the kernel's release."""
    assert machine.backend.misc_devices()["dlm_plock"] == profile.minors_from


@pytest.mark.row("4.1 minors", "4.1 lockspace device", "4.4 value of CREATE")
def test_minors_are_reused(machine: Machine, profile: KernelProfile) -> None:
    """A lockspace gets the first free dynamic minor, and a freed one is used again."""
    machine.configure()
    last, step = machine.backend.misc_devices()["dlm_plock"], profile.minors_step

    first, second = machine.create("first"), machine.create("second")
    assert (first.minor, second.minor) == (last + step, last + 2 * step)
    assert first.remove() == 0
    third = machine.create("third")

    assert third.minor == first.minor
    minors = machine.backend.misc_devices()
    assert {"dlm_second": minors["dlm_second"], "dlm_third": minors["dlm_third"]} == {
        "dlm_second": second.minor,
        "dlm_third": third.minor,
    }


@pytest.mark.row("4.1 device modes")
@pytest.mark.parametrize("name", ["dlm-control", "dlm-monitor", "dlm_plock", "dlm_test"])
@pytest.mark.parametrize("flags", [OpenFlags.RDONLY, OpenFlags.WRONLY, OpenFlags.RDWR])
@pytest.mark.usefixtures("lockspace")
def test_devices_are_roots(world: World, name: str, flags: OpenFlags) -> None:
    """Devices are 0600: nobody but root opens one, not even to read."""
    with world.ordinary_user() as backend, refused(errno.EACCES):
        backend.open_device(name, flags=flags)


# ---- poll, ioctl --------------------------------------------------------------------------------


@pytest.mark.row("4.6 poll of control and monitor")
@pytest.mark.parametrize(
    "name",
    ["dlm-control", pytest.param("dlm-monitor", marks=pytest.mark.reload)],
)
@pytest.mark.parametrize("flags", [OpenFlags.RDWR | OpenFlags.NONBLOCK, OpenFlags.RDWR])
def test_poll_where_there_is_no_poll(machine: Machine, name: str, flags: OpenFlags) -> None:
    """dlm-control and dlm-monitor have no poll method: always readable and writable."""
    device = machine.open_device(name, flags)

    mask = device.poll(0)

    assert mask & ALWAYS == mask
    assert mask & (PollEvents.IN | PollEvents.OUT) == PollEvents.IN | PollEvents.OUT


@pytest.mark.row("4.6 poll of a lockspace")
def test_poll_of_a_lockspace(file: LockFile) -> None:
    """A lockspace's file is readable while a result is queued; never writable, never in error."""
    assert file.poll() == 0

    file.lock(b"a", EX)
    assert file.poll() == RESULT

    assert file.results() == [Cast(1)]
    assert file.poll() == 0


@pytest.mark.row("4.6 poll of a lockspace")
def test_poll_waits(lockspace: Lockspace) -> None:
    """A poll with a timeout returns 0 when nothing came, and at once when something is there."""
    file = lockspace.open()
    assert file.device.poll(0.05) == 0
    file.lock(b"a", EX)

    assert file.device.poll(60) == RESULT


@pytest.mark.row("4.6 ioctl and llseek")
@pytest.mark.parametrize("name", ["dlm-control", "dlm_test"])
@pytest.mark.parametrize("number", [0, 0x541B, 0xC114D101])
@pytest.mark.usefixtures("lockspace")
def test_no_ioctl(machine: Machine, name: str, number: int) -> None:
    """No device of the DLM has an ioctl: ENOTTY."""
    device = machine.open_device(name)

    with refused(errno.ENOTTY):
        device.ioctl(number, bytes(276))


# ---- the version, and reads of the control device -----------------------------------------------


@pytest.mark.row("4.5 read of 12 bytes", "4.2 dlm_device_version")
def test_version_from_control(machine: Machine) -> None:
    """A read of exactly 12 bytes tells the version of the device: 6.0.2."""
    version = machine.control().read(12)

    assert version == b"\x06\0\0\0" + b"\0\0\0\0" + b"\x02\0\0\0"


@pytest.mark.row("4.5 read of 12 bytes")
def test_version_while_results_wait(file: LockFile) -> None:
    """A read of 12 bytes is the version also while a result waits, which stays."""
    file.lock(b"a", EX)

    assert file.device.read(12) == machine_version()

    assert file.results() == [Cast(1)]


def machine_version() -> bytes:
    """Return the version 6.0.2 as the kernel writes it."""
    return bytes([6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0])


@pytest.mark.row("4.5 other reads of control")
@pytest.mark.parametrize("size", [0, 1, 11, 13, 52, 72, 104, 4096])
def test_other_reads_of_control(machine: Machine, size: int) -> None:
    """Any other size is EINVAL on the control device."""
    with refused(errno.EINVAL):
        machine.control().read(size)


# ---- dlm-monitor --------------------------------------------------------------------------------


@pytest.fixture
def monitor(machine: Machine) -> Device:
    """An open file on dlm-monitor."""
    return machine.open_device("dlm-monitor")


@pytest.mark.reload
@pytest.mark.row("4.10 read and write")
def test_monitor_cannot_be_read_or_written(monitor: Device) -> None:
    """Reads and writes of dlm-monitor are EINVAL, whatever their size."""
    for size in (1, 12, 104):
        with refused(errno.EINVAL):
            monitor.read(size)
        with refused(errno.EINVAL):
            monitor.write(bytes(size))


@pytest.mark.reload
@pytest.mark.row("4.10 open monitor")
def test_creates_work_while_the_monitor_is_open(monitor: Device, machine: Machine) -> None:
    """While dlm-monitor is open, creates and removes work as ever."""
    lockspace = machine.bring_up()

    assert lockspace.remove() == 0
    assert monitor.poll(0)


@pytest.mark.reload
@pytest.mark.row("4.10 last close", "fact 9")
def test_last_close_of_the_monitor_stops_every_lockspace(
    monitor: Device, machine: Machine, other: Machine
) -> None:
    """The last close of dlm-monitor stops every lockspace; control 1 starts them again."""
    machine.configure()
    first, second = machine.create("first"), machine.create("second")
    file = first.open()
    another = other.open_device("dlm-monitor")
    monitor.close()
    assert first.read("recover_status") == "ff\n"

    another.close()

    assert first.read("recover_status") == "0\n"
    assert second.read("recover_status") == "0\n"
    pending = file.submit(lock_request(name=b"a", mode=EX))
    assert machine.still_sleeps(pending)
    first.start()
    assert machine.result(pending) == 1
    second.start()


@pytest.mark.reload
@pytest.mark.row("4.10 last close", "4.4.1 EUNATCH", "fact 9")
def test_no_create_after_the_monitor_was_closed(monitor: Device, machine: Machine) -> None:
    """Once dlm-monitor was opened and closed, every create is EUNATCH, until it is open again."""
    machine.configure()
    monitor.close()

    with refused(errno.EUNATCH):
        machine.result(machine.submit_create("test"))

    again = machine.open_device("dlm-monitor")
    machine.create("test")
    again.close()


@pytest.mark.reload
@pytest.mark.row("4.10 last close", "4.4.1 EUNATCH")
def test_create_of_an_existing_lockspace_after_the_monitor_was_closed(
    monitor: Device, machine: Machine
) -> None:
    """EUNATCH is decided before the lockspace is looked up: one that exists is refused, too."""
    machine.bring_up()
    monitor.close()

    with refused(errno.EUNATCH):
        machine.result(machine.submit_create("test"))


@pytest.mark.reload
@pytest.mark.row("4.10 last close", "3 remove with the daemon unavailable")
def test_remove_after_the_monitor_was_closed(monitor: Device, machine: Machine) -> None:
    """Without a daemon, a remove sends no offline event and waits for no answer."""
    lockspace = machine.bring_up()
    monitor.close()
    uevents = machine.uevents()

    assert machine.result(lockspace.begin_remove()) == 0

    assert uevents.headers(2) == [
        "remove@/devices/virtual/misc/dlm_test",
        "remove@/kernel/dlm/test",
    ]


# ---- reads that sleep ---------------------------------------------------------------------------


@pytest.mark.row("4.5 nothing pending, blocking")
def test_blocking_read_waits(lockspace: Lockspace, machine: Machine, other: Machine) -> None:
    """A read of a blocking file sleeps until a result comes."""
    file = lockspace.open(flags=OpenFlags.RDWR)
    holder = LockFile(other.open_device("dlm_test"))
    holder.granted(b"a", EX)
    waiter = file.lock(b"a", EX)
    pending = file.device.submit(DeviceRead(104))
    assert machine.still_sleeps(pending)

    holder.unlock(1)

    machine.eventually(pending.done, "the result")
    assert len(pending.result()) == 72
    assert waiter == 2


@pytest.mark.row("4.5 nothing pending, nonblocking")
@pytest.mark.parametrize("size", [52, 72, 104, 200])
def test_nonblocking_read(file: LockFile, size: int) -> None:
    """A read of a nonblocking file without a result is EAGAIN."""
    with refused(errno.EAGAIN):
        file.device.read(size)


@pytest.mark.row("4.5 read while stopped")
def test_read_while_stopped(lockspace: Lockspace, machine: Machine) -> None:
    """Results are read also while the lockspace is stopped; a lock waits."""
    file = lockspace.open()
    file.lock(b"a", EX)
    lockspace.stop()

    assert file.results() == [Cast(1)]

    pending = file.device.submit(
        DeviceWrite(lock_request(name=b"b", mode=EX, flags=LockFlag.NOQUEUE))
    )
    assert machine.still_sleeps(pending)
    lockspace.start()
    assert machine.result(pending) == 2
