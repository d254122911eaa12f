"""Random locks on three nodes of 2005 through stops, starts, closes and crashes.

Every invariant is looked at after every step of every lockspace: modes that are held together are
compatible, copies agree, and nothing is granted while a lockspace is stopped.
"""

from __future__ import annotations

from random import Random

import pytest

from dlm.emulator import Cluster
from dlm.emulator.misc import MiscFile
from dlm.errors import errno_name
from dlm.ports import DeviceWrite
from dlm.terms import LockFlag
from tests.contract2005.world import ADDRESSES, Machine, lock_bytes, results, unlock_bytes

NAMES = (b"a", b"b", b"c\0", b"d" * 64)
FLAGS = (0, 0, LockFlag.NOQUEUE, LockFlag.VALBLK, LockFlag.PERSISTENT, LockFlag.QUECVT, 0x4000)
REFUSALS = {"EINVAL", "EBUSY", "ENOENT", "EBADSLT"}


class Storm:
    """Three nodes, a few open files each, and the ids of all locks that were ever given."""

    def __init__(self, abi: str, seed: int) -> None:
        self.random = Random(seed)
        self.cluster = Cluster(ADDRESSES, abi=abi, seed=seed)
        self.cluster.check_every_step()
        self.number = 0
        self.machines = [Machine(self.cluster, name) for name in ADDRESSES]
        for machine in self.machines:
            machine.configure()
            machine.create()
        self.files: dict[int, list[MiscFile]] = {1: [], 2: [], 3: []}
        self.ids: dict[int, list[int]] = {1: [0x10400], 2: [5], 3: [0x10001]}
        self.seen = 0
        self.restart(joining=True)

    def restart(self, *, joining: bool = False) -> None:
        """Stop all that are there, start them with each other, finish."""
        self.number += 1
        members = [machine.number for machine in self.machines]
        for machine in self.machines:
            machine.stop()
        waiting = [
            self.files[number][0].submit(DeviceWrite(self.request(number)))
            for number in members
            if self.files[number]
        ]
        assert not any(call.done() for call in waiting)
        for machine in self.machines:
            machine.start(members, self.number)
            if joining and not machine.event:
                machine.put("event_done", b"0")
        self.cluster.settle()
        for machine in self.machines:
            if machine.event:
                assert machine.get("done") == b"%d\n" % self.number
                machine.put("finish", b"%d" % self.number)
        self.cluster.settle()
        assert all(call.done() for call in waiting)
        for machine in self.machines:
            assert machine.get("members")

    def act(self) -> None:
        """Do one random thing on one random node."""
        random = self.random
        machine = random.choice(self.machines)
        files = self.files[machine.number]
        if len(files) < 3:
            files.append(machine.open())
        file = random.choice(files)
        roll = random.random()
        if roll < 0.05:
            files.remove(file)
            file.close()
        elif roll < 0.15:
            self.restart()
        elif roll < 0.3:
            self.seen += len(results(file))
        else:
            self.write(machine.number, file, self.request(machine.number))
        if random.random() < 0.5:
            self.cluster.settle()

    def request(self, number: int) -> bytes:
        """Return a random request, some of them about locks that are not there."""
        random = self.random
        known = random.choice(self.ids[number])
        flags, mode = int(random.choice(FLAGS)), random.randrange(7)
        kind = random.randrange(4)
        if kind == 0:
            return unlock_bytes(known, random.choice((0, 0, LockFlag.CANCEL, LockFlag.VALBLK)))
        if kind == 1:
            return lock_bytes(mode, flags | LockFlag.CONVERT, name=b"", lock_id=known)
        return lock_bytes(mode, flags, name=random.choice(NAMES))

    def write(self, number: int, file: MiscFile, request: bytes) -> None:
        """Write it; only the refusals of the documents may come."""
        value, refusal = 0, ""
        try:
            value = file.write(request)
        except OSError as error:
            refusal = errno_name(error.errno or 0)
        assert not refusal or refusal in REFUSALS
        if value > 0x10000:
            self.ids[number].append(value)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("abi", ["event", "members"])
def test_random_locks_break_no_invariant(abi: str, seed: int) -> None:
    """After 250 random things nodea crashes, and the others still agree after 100 more."""
    storm = Storm(abi, seed)
    for _ in range(250):
        storm.act()
    storm.cluster.crash("nodea")
    del storm.machines[0]
    storm.restart()
    for _ in range(100):
        storm.act()
    storm.cluster.settle()
    storm.cluster.check()
    assert storm.seen > 20
