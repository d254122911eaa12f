"""The devices: what each call on each of them answers."""

from __future__ import annotations

import errno
import select
import struct

import pytest

from dlm.abi.device import (
    Command,
    Layout,
    LockRequest,
    PurgeRequest,
    decode_result,
    encode_request,
    encode_version,
)
from dlm.emulator import Cluster
from dlm.emulator.misc import ALWAYS_READY, RESULT_READY
from dlm.emulator.process import Process
from dlm.errors import StalledError
from dlm.ports import DeviceClose, DeviceRead, DeviceWrite, OpenFlags
from tests.unit.emulator.helpers import (
    create_request,
    lock_request,
    one_node,
    refused,
    results,
    running_alone,
    running_together,
    set_up,
    start,
    stop,
    submit_create,
    three_nodes,
    unlock_request,
)


@pytest.fixture
def cluster() -> Cluster:
    """One node, nothing configured."""
    return one_node()


@pytest.fixture
def process(cluster: Cluster) -> Process:
    """A process on a node with a lockspace that runs."""
    process = cluster.node("nodea").process()
    running_alone(process)
    return process


def test_an_exclamation_mark_is_a_slash_in_dev(cluster: Cluster) -> None:
    """The file of a lockspace ``a!b`` lies in a directory of its own; /proc/misc has the name."""
    process = cluster.node("nodea").process()
    running_alone(process, "a!b")

    assert "dlm_a!b" in process.misc_devices()
    with refused(errno.ENOENT):
        process.open_device("dlm_a!b")
    process.open_device("dlm_a/b").close()


def readable(descriptor: int) -> bool:
    """Say whether a descriptor is readable at this moment."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


# ---- dlm-control --------------------------------------------------------------------------------


def test_control_answers_with_the_version_and_nothing_else(process: Process) -> None:
    """A read of 12 bytes is the version, any other EINVAL; it is always ready; no ioctl."""
    control = process.open_device("dlm-control")

    assert control.read(12) == encode_version()
    with refused(errno.EINVAL):
        control.read(13)
    assert control.poll(0) == control.poll(None) == ALWAYS_READY == 0x45
    with refused(errno.ENOTTY):
        control.ioctl(0, b"")


def test_lock_commands_do_not_belong_on_control(process: Process) -> None:
    """LOCK on dlm-control and CREATE on a lockspace are EINVAL."""
    with refused(errno.EINVAL):
        process.open_device("dlm-control").write(lock_request(b"x"))
    with refused(errno.EINVAL):
        process.open_device("dlm_test").write(create_request())


def test_create_needs_the_capability(process: Process) -> None:
    """Without CAP_SYS_ADMIN CREATE is EPERM, though the file is open."""
    control = process.open_device("dlm-control")
    process.capable = False

    with refused(errno.EPERM):
        control.write(create_request("other"))


# ---- dlm-monitor and dlm_plock ------------------------------------------------------------------


def test_monitor_is_neither_read_nor_written(process: Process) -> None:
    """It is only open or not."""
    monitor = process.open_device("dlm-monitor")

    with refused(errno.EINVAL):
        monitor.read(12)
    with refused(errno.EINVAL):
        monitor.write(b"x" * 120)
    assert monitor.poll(0) == ALWAYS_READY


def test_an_idle_plock_device(process: Process) -> None:
    """Nothing to read; answers that nobody waits for are taken, odd sizes and versions are not."""
    plock = process.open_device("dlm_plock", flags=OpenFlags.RDWR)
    known = struct.pack("=3I", 1, 2, 0).ljust(64, b"\0")
    unknown = struct.pack("=3I", 1, 3, 0).ljust(64, b"\0")

    with refused(errno.EINVAL):
        plock.read(63)
    with refused(errno.EAGAIN):
        plock.read(64)
    assert plock.write(known) == 64
    with refused(errno.EINVAL):
        plock.write(unknown)
    with refused(errno.EINVAL):
        plock.write(known[:63])
    assert plock.poll(0) == plock.poll(1.5) == 0
    assert not readable(plock.fileno())
    with pytest.raises(StalledError):
        plock.poll(None)


# ---- a lockspace --------------------------------------------------------------------------------


def test_a_request_returns_its_id_and_a_result(process: Process) -> None:
    """write() returns the lock id; poll, the descriptor and read show the completion."""
    file = process.open_device("dlm_test")
    assert file.poll(0) == 0
    assert not readable(file.fileno())

    lock_id = file.write(lock_request(b"x"))

    assert file.poll(0) == file.poll(None) == RESULT_READY == 0x41
    assert readable(file.fileno())
    (result,) = results(file)
    assert (result.lock_id, result.status, result.astaddr) == (lock_id, 0, 1)
    assert file.poll(0) == 0
    assert not readable(file.fileno())


def test_a_descriptor_made_late_shows_what_is_there(process: Process) -> None:
    """fileno() asked for after the result came is readable at once."""
    file = process.open_device("dlm_test")
    file.write(lock_request(b"x"))

    assert readable(file.fileno())


@pytest.mark.parametrize("missing", ["castaddr", "lksb"])
def test_a_lock_needs_addresses_for_its_completion(process: Process, missing: str) -> None:
    """Castaddr 0 or lksb 0 is EINVAL, before anything else; also while stopped."""
    file = process.open_device("dlm_test")
    stop(process)
    given = {"castaddr": 1, "lksb": 1} | {missing: 0}

    with refused(errno.EINVAL):
        file.write(encode_request(LockRequest(Command.LOCK, mode=9, name=b"x", **given)))


def test_reads_of_odd_sizes(process: Process) -> None:
    """12 is the version even with a result pending; below 52 EINVAL; 52 to 71 give all 72 bytes."""
    file = process.open_device("dlm_test")
    file.write(lock_request(b"x"))

    assert file.read(12) == encode_version()
    with refused(errno.EINVAL):
        file.read(51)
    assert len(file.read(52)) == 72


def test_a_32_bit_request_makes_all_results_32_bit(process: Process) -> None:
    """The file remembers the layout, also for later native requests."""
    file = process.open_device("dlm_test")
    compat = LockRequest(Command.LOCK, mode=3, castaddr=1, lksb=1, name=b"x")
    file.write(encode_request(compat, layout=Layout.COMPAT32))
    file.write(lock_request(b"y"))

    assert [len(file.read(200)), len(file.read(200))] == [52, 52]


def test_a_nonblocking_read_of_nothing(process: Process) -> None:
    """EAGAIN at once."""
    with refused(errno.EAGAIN):
        process.open_device("dlm_test").read(104)


def test_a_blocking_read_sleeps_until_a_result_comes(cluster: Cluster, process: Process) -> None:
    """Its sleep ends with the result, or with the process."""
    file = process.open_device("dlm_test", flags=OpenFlags.RDWR)
    reading = file.submit(DeviceRead(104))
    assert not reading.done()
    lock_id = file.write(lock_request(b"x"))
    cluster.settle()
    assert decode_result(reading.result()).lock_id == lock_id

    again = file.submit(DeviceRead(104))
    process.close()

    with refused(errno.EINTR):
        again.result()


def test_a_blocking_read_that_nothing_can_end_is_stalled(process: Process) -> None:
    """A plain read waits by letting the world go on; where nothing moves it says so."""
    with pytest.raises(StalledError, match="read of dlm_test"):
        process.open_device("dlm_test", flags=OpenFlags.RDWR).read(104)


def test_poll_waits_up_to_its_timeout(cluster: Cluster, process: Process) -> None:
    """No result: the mask is 0 after so many virtual seconds."""
    file = process.open_device("dlm_test")
    before = cluster.now()

    assert file.poll(2.5) == 0

    assert cluster.now() == before + 2.5
    with pytest.raises(StalledError):
        file.poll(None)


def test_files_are_opened_for_reading_writing_or_both(process: Process) -> None:
    """The other way is EBADF."""
    with refused(errno.EBADF):
        process.open_device("dlm_test", flags=OpenFlags.RDONLY).write(lock_request(b"x"))
    with refused(errno.EBADF):
        process.open_device("dlm_test", flags=OpenFlags.WRONLY).read(104)


def test_a_closed_file_is_no_file(process: Process) -> None:
    """Every call is EBADF, a second close is fine."""
    file = process.open_device("dlm_test")
    file.close()
    file.close()

    with refused(errno.EBADF):
        file.write(lock_request(b"x"))
    with refused(errno.EBADF):
        file.poll(0)


def test_calls_sleep_while_the_lockspace_is_stopped(cluster: Cluster, process: Process) -> None:
    """LOCK and close wait for the next recovery, O_NONBLOCK or not; reads and opens do not."""
    file, other = process.open_device("dlm_test"), process.open_device("dlm_test")
    stop(process)
    locking = file.submit(DeviceWrite(lock_request(b"x")))
    closing = other.submit(DeviceClose())
    cluster.settle()
    assert not locking.done()
    assert not closing.done()
    with refused(errno.EAGAIN):
        file.read(104)
    with refused(errno.EBADF):
        other.read(104)
    process.open_device("dlm_test")
    with pytest.raises(StalledError, match="request"):
        locking.result()

    start(process)

    assert locking.result() == 1
    assert closing.result() is None
    assert len(results(file)) == 1


def test_a_call_that_sleeps_holds_its_file(cluster: Cluster, process: Process) -> None:
    """The holder's close returns at once while a LOCK sleeps inside; the file goes after it."""
    file = process.open_device("dlm_test")
    stop(process)
    locking = file.submit(DeviceWrite(lock_request(b"x")))
    file.close()
    assert not locking.done()
    start(process)
    cluster.settle()

    assert locking.result() == 1
    assert cluster.node("nodea").boot.module is not None
    assert cluster.node("nodea").boot.module.spaces[0].on_result == {}


def test_purge_of_a_node_that_was_never_heard_of(process: Process) -> None:
    """A node without a connection is ENOBUFS."""
    file = process.open_device("dlm_test")

    for nodeid in (5, -1):
        with refused(errno.ENOBUFS):
            file.write(encode_request(PurgeRequest(nodeid, 0)))


def test_purge_of_another_member(cluster: Cluster) -> None:
    """A member that was heard of takes the message: 0."""
    del cluster
    processes = running_together(three_nodes())

    assert processes[0].open_device("dlm_test").write(encode_request(PurgeRequest(2, 0))) == 0


def test_unlock_by_id(process: Process) -> None:
    """UNLOCK returns 0 and its completion comes; an unknown id is ENOENT."""
    file = process.open_device("dlm_test")
    lock_id = file.write(lock_request(b"x"))

    assert file.write(unlock_request(lock_id)) == 0

    assert [result.status for result in results(file)] == [0, -65538]
    with refused(errno.ENOENT):
        file.write(unlock_request(77))


def test_a_refusal_of_a_submitted_call_is_its_result(process: Process) -> None:
    """submit() itself never raises for what the kernel refuses."""
    file = process.open_device("dlm_test")

    pending = file.submit(DeviceWrite(b"short"))

    assert pending.done()
    with refused(errno.EINVAL):
        pending.result()


def test_a_sleeping_create_is_cut_off_by_a_crash(cluster: Cluster) -> None:
    """Whoever waits for a call on a node that lost power gets EIO, and so does every later call."""
    process = cluster.node("nodea").process()
    set_up(process, 1, [1])
    control = process.open_device("dlm-control")
    pending = submit_create(process)
    cluster.crash("nodea")

    with refused(errno.EIO):
        pending.result()
    with refused(errno.EIO):
        control.write(create_request())
    with refused(errno.EIO):
        control.poll(0)
    control.close()
