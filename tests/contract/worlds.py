"""The worlds in which the contract suite runs: the emulator, and a real kernel in a VM.

Decides: how a test gets a clean machine in each, and the few things that the seam has no call for.
May not know: what any test asserts.

The environment variable ``DLM_CONTRACT`` chooses, with commas between: ``emulator``, ``fakefs``
(dlm.kernel's own code on a fake file system, tests/contract/fakefs_world.py), ``remote`` (the other
end of a stream, tests/contract/remote_world.py), ``kernel``, which must run as root on a machine
that may be wrecked: ``make vm`` does that. The default is ``emulator,fakefs``.

The emulator takes the suite as each kernel that it can be; ``fakefs`` and ``remote`` as one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from dlm.errors import errno_name
from dlm.ports import Backend, Device
from dlm.terms import KERNELS, KernelProfile, ReleaseFlag
from tests.contract.machine import (
    SHORT_WHILE,
    Lockspace,
    Machine,
    create_request,
    remove_request,
)

CLUSTER_DEFAULTS = {
    "buffer_size": "4096",
    "cluster_name": "",
    "log_debug": "0",
    "log_info": "1",
    "mark": "0",
    "new_rsb_count": "128",
    "protocol": "0",
    "recover_callbacks": "0",
    "recover_timer": "5",
    "rsbtbl_size": "1024",
    "scan_secs": "5",
    "tcp_port": "21064",
    "toss_secs": "10",
}
"""Attributes of a cluster directory and what they read on a freshly loaded module, any kernel."""

TIMEOUT_DEFAULTS = {"timewarn_cs": "500", "waitwarn_us": "0"}
"""Those that only kernels with ``deprecated_timeouts`` have."""


def cluster_defaults(profile: KernelProfile) -> dict[str, str]:
    """Return the attributes of a cluster directory on a kernel, with what they read at first."""
    return CLUSTER_DEFAULTS | (TIMEOUT_DEFAULTS if profile.deprecated_timeouts else {})


def profile_of(release: str) -> KernelProfile:
    """Return the profile of a kernel by its release: of it, or of the next older one known."""
    known = [KERNELS[name] for name in KERNELS if _version(name) <= _version(release)]
    return max(known, key=lambda profile: _version(profile.name))


def _version(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)[:2]))


class World(Protocol):
    """Where a test runs: one node with as many processes as it asks for."""

    profile: KernelProfile
    """What the node's kernel is like."""

    def machine(self) -> Machine:
        """Return a new process on the node."""

    @contextmanager
    def unprivileged(self) -> Iterator[Backend]:
        """Give a process of root's without CAP_SYS_ADMIN."""

    @contextmanager
    def ordinary_user(self) -> Iterator[Backend]:
        """Give a process of somebody who is not root."""

    def read_into_larger_buffer(self, device: Device, size: int) -> bytes:
        """Make read(2) with ``size`` into a buffer of 256 bytes; return as many as it says."""

    def finish(self, *, reload: bool) -> None:
        """End the test: leave nothing of it on the machine."""


class EmulatedWorld:
    """A fresh emulated node for each test."""

    def __init__(self, profile: KernelProfile) -> None:
        from dlm.emulator import Cluster  # noqa: PLC0415 - the kernel's guest need not load it

        self.profile = profile
        self.cluster = Cluster({"node1": "127.0.0.1"}, kernel=profile.name)
        self._node = self.cluster.node("node1")

    def machine(self) -> Machine:
        """Return a new process on the node."""
        return Machine(self._node.process())

    @contextmanager
    def unprivileged(self) -> Iterator[Backend]:
        """Give a process of root's without CAP_SYS_ADMIN."""
        yield self._node.process(capable=False)

    @contextmanager
    def ordinary_user(self) -> Iterator[Backend]:
        """Give a process of somebody who is not root."""
        yield self._node.process(privileged=False)

    def read_into_larger_buffer(self, device: Device, size: int) -> bytes:
        """Read with ``size``; the emulator has no buffer that could overflow."""
        return device.read(size)

    def finish(self, *, reload: bool) -> None:  # noqa: ARG002 - a fresh node needs no reload
        """Check the cluster's invariants a last time."""
        self.cluster.check()


class KernelWorld:
    """The machine's own kernel, cleaned after each test."""

    wrecked = ""
    """Why no further test can run on this kernel: a test left it in a state nothing can mend."""

    def __init__(self) -> None:
        from dlm.kernel import KernelBackend  # noqa: PLC0415 - only a guest has a DLM

        self.profile = profile_of(platform.release())
        self._new = KernelBackend
        self._processes: list[Machine] = []

    def machine(self) -> Machine:
        """Return a new process: for the first one this process, for each other a helper."""
        if self._processes:
            machine = Machine(self._processes[0].backend.spawn_process())
        else:
            machine = ForkingMachine(self._new())
        self._processes.append(machine)
        return machine

    @contextmanager
    def unprivileged(self) -> Iterator[Backend]:
        """Give this thread's own view of the kernel, without CAP_SYS_ADMIN for a while."""
        with _without_sys_admin():
            yield self._processes[0].backend

    @contextmanager
    def ordinary_user(self) -> Iterator[Backend]:
        """Give this process's own view of the kernel, as user nobody for a while."""
        os.seteuid(65534)
        try:
            yield self._processes[0].backend
        finally:
            os.seteuid(0)

    def read_into_larger_buffer(self, device: Device, size: int) -> bytes:
        """Make read(2) with a count that lies about the buffer: the kernel may write past it."""
        buffer = ctypes.create_string_buffer(256)
        libc = ctypes.CDLL(None, use_errno=True)
        got = libc.read(device.fileno(), buffer, size)
        if got < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return buffer.raw[:got]

    def finish(self, *, reload: bool) -> None:
        """Answer what waits, remove every lockspace and directory, reload the module if asked."""
        machine = Machine(self._new())
        try:
            _clean(machine, self._processes)
        except BaseException as error:
            KernelWorld.wrecked = f"an earlier test left this kernel unusable: {error}"
            raise
        finally:
            machine.close()
        if reload:
            reload_module()


def reload_module() -> None:
    """Unload the DLM and load it again."""
    subprocess.run(["modprobe", "-r", "dlm"], check=True)
    subprocess.run(["modprobe", "dlm"], check=True)


class ForkingMachine(Machine):
    """This very process, which brings a lockspace up with a fork.

    A helper of the backend costs half a second of an emulated machine's time, a fork a twentieth;
    every other create of the suite goes the backend's way.
    """

    def create(
        self, name: str = "test", flags: int = 0, *, members: tuple[int, ...] = (1,)
    ) -> Lockspace:
        """Bring a lockspace up on a configured machine."""
        lockspace = Lockspace(self, name)
        for nodeid in members:
            self.add_member(name, nodeid)
        descriptor = self.control().fileno()
        child = os.fork()
        if child == 0:
            try:
                os.write(descriptor, create_request(name, flags))
            except OSError as error:
                os._exit(error.errno or 255)
            os._exit(0)
        self.eventually(lockspace.exists, lockspace.directory)
        lockspace.write("control", "1")
        lockspace.write("event_done", "0")
        _, status = os.waitpid(child, 0)
        assert status == 0, errno_name(os.waitstatus_to_exitcode(status))
        lockspace.minor = self.backend.misc_devices()[lockspace.device_name]
        return lockspace


def _clean(machine: Machine, processes: list[Machine]) -> None:
    scratch = "config/dlm/contract-clean"
    names = machine.backend.list_directory("dlm")
    nodeid = _own_nodeid(machine) if names else 1
    machine.mkdir(scratch)  # the newest cluster is the one that the kernel looks into
    if names:
        with suppress(FileExistsError):  # a comm of this node is there, and stays the local one
            machine.add_comm(nodeid, machine.address, cluster=scratch)
        machine.write(f"{scratch}/comms/{nodeid}/local", "1")
    for name in names:  # close(2) of a lockspace's file sleeps while it is stopped
        lockspace = Lockspace(machine, name)
        if lockspace.read("recover_status") != "ff\n":
            machine.add_member(name, nodeid, cluster=scratch)
            lockspace.stop()
            lockspace.start()
    for process in reversed(processes):
        with suppress(ProcessLookupError):  # one that died has closed its files
            process.close()
    processes.clear()
    if any(f"dlm_{name}" not in machine.backend.misc_devices() for name in names):
        for name in names:  # something joins or leaves, and others may wait behind it
            with suppress(FileNotFoundError):
                machine.write(f"dlm/{name}/event_done", "0")
        machine.backend.pause(SHORT_WHILE)
    for name in names:
        _remove_lockspace(machine, name)
    for attribute, text in cluster_defaults(profile_of(platform.release())).items():
        path = f"{scratch}/{attribute}"
        # Quirk: a re-made cluster shows mark 0 whatever the module's value is; config.c, 6.1.
        if machine.read(path) != f"{text}\n" or attribute == "mark":
            machine.write(path, text or "\0")
    for cluster in machine.backend.list_directory("config/dlm"):
        _remove_cluster(machine, f"config/dlm/{cluster}")


def _own_nodeid(machine: Machine) -> int:
    """Return the nodeid of the comm that a test marked local, 1 if there is none any more."""
    for cluster in machine.backend.list_directory("config/dlm"):
        comms = f"config/dlm/{cluster}/comms"
        for comm in machine.backend.list_directory(comms):
            if machine.read(f"{comms}/{comm}/local") != "0\n":
                return int(machine.read(f"{comms}/{comm}/nodeid"))
    return 1


def _remove_lockspace(machine: Machine, name: str) -> None:
    """Remove a lockspace that runs or still joins, however often it was created.

    Never two REMOVE of one lockspace at a time: the second would use what the first has freed
    (Linux 6.1 fs/dlm/lockspace.c, dlm_release_lockspace(): the mutex is taken after the look-up).
    """
    lockspace = Lockspace(machine, name)
    machine.eventually(lambda: lockspace.has_device() or not lockspace.exists(), f"end of {name}")
    while lockspace.has_device():
        lockspace.write("event_done", "0")  # remembered: REMOVE finds its answer, and never sleeps
        minor = machine.backend.misc_devices()[lockspace.device_name]
        machine.control().write(remove_request(minor, ReleaseFlag.FORCEFREE))
    machine.eventually(lambda: not lockspace.exists(), f"end of {name}")


def _remove_cluster(machine: Machine, path: str) -> None:
    for space in machine.backend.list_directory(f"{path}/spaces"):
        nodes = f"{path}/spaces/{space}/nodes"
        machine.rmdir(*(f"{nodes}/{node}" for node in machine.backend.list_directory(nodes)))
        machine.rmdir(f"{path}/spaces/{space}")
    comms = f"{path}/comms"
    machine.rmdir(*(f"{comms}/{comm}" for comm in machine.backend.list_directory(comms)))
    machine.rmdir(path)


# include/uapi/linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_ADMIN = 21


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


@contextmanager
def _without_sys_admin() -> Iterator[None]:
    """Take CAP_SYS_ADMIN from this thread's effective set for a while; it stays permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()

    def call(function: str) -> None:
        if getattr(libc, function)(ctypes.byref(header), data) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{function}: {errno.errorcode.get(number, number)}")

    call("capget")
    before = data[0].effective
    data[0].effective = before & ~(1 << _CAP_SYS_ADMIN)
    call("capset")
    try:
        yield
    finally:
        data[0].effective = before
        call("capset")
