"""Benchmark: what held locks cost an emulated lockspace, in time per operation and in memory.

Decides: nothing; prints the cost of lock + unlock with 1,000, 10,000 and 100,000 locks held, each
as a ratio to the first of this run, and the bytes of a held lock.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc

from dlm.abi.device import Command, LockRequest, encode_request
from dlm.control import Control
from dlm.emulator import Cluster
from dlm.ports import Device
from dlm.terms import LockMode

LOCKSPACE = "bench"
HELD = (1_000, 10_000, 100_000)
MEASURED = 10_000
LOOPS, ROUNDS = 1000, 15
GROWTH_AT_MOST, BYTES_AT_MOST = 1.5, 2048


def hold(device: Device, first: int, last: int) -> None:
    """Take locks with these numbers, each on a resource of its own, and read the completions."""
    for number in range(first, last):
        request = LockRequest(mode=LockMode.EX, castaddr=1, lksb=1, name=b"held-%d" % number)
        device.write(encode_request(request))
        device.read(104)


def loop(device: Device) -> float:
    """Lock and unlock one more; return the microseconds of one loop."""
    lock = encode_request(LockRequest(mode=LockMode.EX, castaddr=1, lksb=1, name=b"one"))
    begin = time.perf_counter()
    for _ in range(LOOPS):
        lock_id = device.write(lock)
        device.read(104)
        device.write(encode_request(LockRequest(Command.UNLOCK, lock_id=lock_id, lksb=1)))
        device.read(104)
    return (time.perf_counter() - begin) / LOOPS * 1e6


def fresh(cluster: Cluster) -> Device:
    """Return an open file on a lockspace of one node that runs."""
    process = cluster.node("node1").process()
    control = Control(process)
    control.set_local(1, "127.0.0.1")
    lockspace = control.lockspace(LOCKSPACE)
    lockspace.create()
    lockspace.start(1, [1])
    cluster.settle()
    return process.open_device(f"dlm_{LOCKSPACE}")


def memory() -> float:
    """Return the bytes of a held lock."""
    with Cluster({"node1": "127.0.0.1"}) as cluster:
        device = fresh(cluster)
        hold(device, 0, 100)
        gc.collect()
        tracemalloc.start()
        hold(device, 100, 100 + MEASURED)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return used / MEASURED


def main() -> int:
    """Measure and print; 1 when it grows too fast."""
    with Cluster({"node1": "127.0.0.1"}) as one, Cluster({"node1": "127.0.0.1"}) as other:
        device, peer = fresh(one), fresh(other)
        hold(peer, 0, HELD[0])
        held, ratios = 0, []
        for count in HELD:
            hold(device, held, count)
            held = count
            gc.collect()
            # In turns: what else this machine does meanwhile slows both.
            pairs = [(loop(device), loop(peer)) for _ in range(ROUNDS)]
            ours, base = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
            ratios.append(ours / base)
            print(
                f"lock and unlock with {count:,} held: {ours:.0f} µs, "
                f"with {HELD[0]:,} held {base:.0f} µs, ratio {ours / base:.2f} "
                f"(at most {GROWTH_AT_MOST})"
            )
    size = memory()
    print(f"a held lock: {size:.0f} bytes (at most {BYTES_AT_MOST})")
    return int(max(ratios) > GROWTH_AT_MOST or size > BYTES_AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
