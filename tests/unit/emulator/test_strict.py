"""A strict cluster: it raises, or lets the node go down, where a real kernel would not survive."""

from __future__ import annotations

import errno

import pytest

from dlm.abi.device import Command, LockRequest, PurgeRequest, encode_request
from dlm.emulator import Cluster
from dlm.emulator.process import Process
from dlm.errors import KernelHazardError
from dlm.terms import KERNELS, LockFlag
from tests.unit.emulator.helpers import (
    ADDRESSES,
    EX,
    NL,
    PR,
    answer,
    lock_request,
    refused,
    running_alone,
    running_together,
    submit_create,
    submit_remove,
    unlock_request,
)


def strict(*names: str, kernel: str = "6.1") -> Cluster:
    """Return a strict cluster."""
    return Cluster({name: ADDRESSES[name] for name in names}, kernel=kernel, strict=True)


@pytest.fixture
def process() -> Process:
    """A process on the node of a strict cluster, with a lockspace that runs."""
    process = strict("nodea").node("nodea").process()
    running_alone(process)
    return process


def orphan(process: Process) -> int:
    """Leave an orphan behind; return its id."""
    owner = process.open_device("dlm_test")
    lock_id = owner.write(lock_request(b"a", EX, LockFlag.PERSISTENT))
    owner.close()
    return lock_id


def test_the_call_raises(process: Process) -> None:
    """UNLOCK of an orphan that nobody adopted raises, and has not been done."""
    lock_id = orphan(process)
    file = process.open_device("dlm_test")

    with pytest.raises(KernelHazardError, match="UNLOCK of a lock whose file is closed") as caught:
        file.write(unlock_request(lock_id))

    assert caught.value.kernels == ("5.10", "6.1", "6.12", "7.2")
    assert not isinstance(caught.value, OSError)
    adopted = file.write(lock_request(b"a", EX, LockFlag.ORPHAN | LockFlag.PERSISTENT))
    assert file.write(unlock_request(adopted)) == 0


def test_nothing_is_raised_unasked() -> None:
    """A cluster is not strict unless told to be: the same unlock succeeds."""
    process = Cluster({"nodea": ADDRESSES["nodea"]}).node("nodea").process()
    running_alone(process)
    lock_id = orphan(process)

    assert process.open_device("dlm_test").write(unlock_request(lock_id)) == 0


def test_a_second_remove(process: Process) -> None:
    """REMOVE while another REMOVE waits for its answer: told at once, and the first goes on."""
    minor = process.misc_devices()["dlm_test"]
    first = submit_remove(process, minor)

    with pytest.raises(KernelHazardError, match="REMOVE of a lockspace while another REMOVE"):
        submit_remove(process, minor)

    assert not first.done()
    answer(process)
    assert first.result() == 0


def test_a_second_remove_behind_another_call(process: Process) -> None:
    """While a create holds both up, nobody knows what the first will do: told at its turn."""
    minor = process.misc_devices()["dlm_test"]
    submit_create(process, "other")
    first, second = submit_remove(process, minor), submit_remove(process, minor)
    answer(process, "other", b"-1")
    answer(process)

    with pytest.raises(KernelHazardError, match="REMOVE of a lockspace while another REMOVE"):
        second.result()

    assert first.result() == 0


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_a_second_remove_since_6_12(kernel: str) -> None:
    """A lockspace that leaves has lost its minor: ENOENT, at once."""
    cluster = Cluster({"nodea": ADDRESSES["nodea"]}, kernel=kernel, strict=True)
    process = cluster.node("nodea").process()
    minor = running_alone(process)
    first = submit_remove(process, minor)

    with refused(errno.ENOENT):
        submit_remove(process, minor).result()

    answer(process)
    assert first.result() == 0


def test_a_second_remove_that_is_not_strict() -> None:
    """Without strictness it is the error of a lockspace that is not there."""
    process = Cluster({"nodea": ADDRESSES["nodea"]}).node("nodea").process()
    minor = running_alone(process)
    submit_remove(process, minor)
    second = submit_remove(process, minor)
    answer(process)

    with refused(errno.EINVAL):
        second.result()


every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def texts_of(process: Process) -> list[bytes]:
    """Return all that debugfs shows of the lockspace."""
    names = process.list_directory("debug/dlm")
    return [process.read_attribute(f"debug/dlm/{name}") for name in sorted(names) if "_" in name]


@every_kernel
@pytest.mark.parametrize("flags", [LockFlag.FORCEUNLOCK, LockFlag.VALBLK, LockFlag.IVVALBLK, 0])
def test_an_orphan_is_what_it_was(kernel: str, flags: int) -> None:
    """After an UNLOCK that raised, debugfs shows the orphan as before."""
    process = strict("nodea", kernel=kernel).node("nodea").process()
    running_alone(process)
    lock_id = orphan(process)
    file = process.open_device("dlm_test")
    before = texts_of(process)

    with pytest.raises(KernelHazardError):
        file.write(encode_request(LockRequest(Command.UNLOCK, flags=flags, lock_id=lock_id)))

    assert texts_of(process) == before


@every_kernel
def test_good_orphans_stay_when_a_purge_raises(kernel: str) -> None:
    """A PURGE of all that meets a dead orphan has purged none of those ahead of it."""
    process = strict("nodea", kernel=kernel).node("nodea").process()
    running_alone(process)
    orphan(process)
    holder = process.open_device("dlm_test")
    holder.write(lock_request(b"b"))
    waiter = process.open_device("dlm_test")
    waiter.write(lock_request(b"b", PR, LockFlag.PERSISTENT))
    waiter.close()
    before = texts_of(process)

    with pytest.raises(KernelHazardError, match="PURGE"):
        holder.write(encode_request(PurgeRequest(nodeid=0, pid=0)))

    assert texts_of(process) == before


def test_a_close_that_raises_leaves_the_file_open(process: Process) -> None:
    """Its locks are there still, and it can be closed when nothing is in the way any more."""
    file, other = process.open_device("dlm_test"), process.open_device("dlm_test")
    first, second = file.write(lock_request(b"a", PR)), file.write(lock_request(b"a", PR))
    other.write(convert_request(other.write(lock_request(b"a", NL)), EX))
    file.write(convert_request(first, EX, LockFlag.ALTPR | LockFlag.NODLCKWT))
    before = texts_of(process)

    with pytest.raises(KernelHazardError, match="granted in the mode that the lock has already"):
        other.close()

    assert texts_of(process) == before
    file.write(unlock_request(first))
    file.write(unlock_request(second))
    other.close()
    file.close()
    pending = submit_remove(process, process.misc_devices()["dlm_test"])
    answer(process)
    assert pending.result() == 0  # what is left of a file would hold it up


def convert_request(lock_id: int, mode: int, flags: int = 0) -> bytes:
    """Return the bytes of a conversion."""
    return encode_request(
        LockRequest(
            Command.LOCK,
            mode=mode,
            flags=flags | LockFlag.CONVERT,
            lock_id=lock_id,
            castaddr=1,
            bastaddr=2,
            lksb=1,
        )
    )


def without_comm(kernel: str) -> Process:
    """Return a process of a node whose local comm was removed while a lockspace runs."""
    process = strict("nodea", kernel=kernel).node("nodea").process()
    running_alone(process)
    process.remove_directory("config/dlm/cluster/comms/1")
    return process


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_without_its_own_comm(kernel: str) -> None:
    """CREATE, REMOVE and a new LOCK raise, and have not been done; seen on guests."""
    process = without_comm(kernel)
    minor = process.misc_devices()["dlm_test"]
    file = process.open_device("dlm_test")
    before = texts_of(process)

    for call in (
        lambda: submit_create(process, "other"),
        lambda: submit_remove(process, minor),
        lambda: file.write(lock_request(b"a")),
    ):
        with pytest.raises(KernelHazardError, match="the local comm has been removed"):
            call()

    assert texts_of(process) == before
    assert process.misc_devices()["dlm_test"] == minor


@pytest.mark.parametrize("kernel", ["5.10", "6.1"])
def test_without_its_own_comm_up_to_6_1(kernel: str) -> None:
    """Earlier kernels look: a CREATE is refused, a LOCK works, a REMOVE asks nobody."""
    process = without_comm(kernel)

    with refused(errno.EUNATCH):
        submit_create(process, "other").result()
    file = process.open_device("dlm_test")
    assert file.write(lock_request(b"a")) == 1
    file.close()
    assert submit_remove(process, process.misc_devices()["dlm_test"]).result() == 0


@pytest.mark.parametrize("size", [52, 71])
def test_a_read_between_the_layouts(process: Process, size: int) -> None:
    """A read that the kernel would overflow raises, and leaves the result where it is."""
    file = process.open_device("dlm_test")
    file.write(lock_request(b"a"))

    with pytest.raises(KernelHazardError, match=f"of {size} bytes"):
        file.read(size)

    assert len(file.read(72)) == 72


def test_a_message_raises_from_whatever_lets_the_world_go_on() -> None:
    """What another node's answer brings about is raised by the call that waits for it."""
    cluster = strict("nodea", "nodeb", "nodec")
    master, other, _ = running_together(cluster)
    master.open_device("dlm_test").write(lock_request(b"a", PR))
    cluster.settle()
    file = other.open_device("dlm_test")
    lock_id = file.write(lock_request(b"a", PR))
    cluster.settle()
    file.write(convert_request(lock_id, EX, LockFlag.ALTPR | LockFlag.NODLCKWT))

    with pytest.raises(KernelHazardError, match="alternative mode"):
        cluster.settle()


def test_the_owner_of_a_cluster_may_let_the_node_go_down() -> None:
    """With ``on_hazard`` nothing is raised but EIO, and the node's log says why."""
    cluster = strict("nodea")
    process = cluster.node("nodea").process()
    running_alone(process)
    lock_id = orphan(process)
    cluster.on_hazard = lambda name, _: cluster.crash(name)
    file = process.open_device("dlm_test")

    with refused(errno.EIO):
        file.write(unlock_request(lock_id))

    assert not cluster.node("nodea").up
    assert "UNLOCK of a lock whose file is closed" in cluster.node("nodea").log()[-1]
