"""A strict cluster: it raises, or lets the node go down, where a real kernel would not survive."""

from __future__ import annotations

import errno

import pytest

from dlm.abi.device import Command, LockRequest, encode_request
from dlm.emulator import Cluster
from dlm.emulator.process import Process
from dlm.errors import KernelHazardError
from dlm.terms import LockFlag
from tests.unit.emulator.helpers import (
    ADDRESSES,
    EX,
    PR,
    answer,
    lock_request,
    refused,
    running_alone,
    running_together,
    submit_remove,
    unlock_request,
)


def strict(*names: str) -> Cluster:
    """Return a strict cluster."""
    return Cluster({name: ADDRESSES[name] for name in names}, strict=True)


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
    """REMOVE while another REMOVE waits for its answer: told when the first one is done."""
    minor = process.misc_devices()["dlm_test"]
    submit_remove(process, minor)
    second = submit_remove(process, minor)
    answer(process)

    with pytest.raises(KernelHazardError, match="REMOVE of a lockspace while another REMOVE"):
        second.result()


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
    flags = LockFlag.CONVERT | LockFlag.ALTPR | LockFlag.NODLCKWT
    request = LockRequest(
        Command.LOCK, mode=EX, flags=flags, lock_id=lock_id, castaddr=1, bastaddr=2, lksb=1
    )
    file.write(encode_request(request))

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
