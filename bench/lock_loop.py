"""Benchmark: lock and unlock through the emulator's device, against C libdlm on a real kernel.

Decides: nothing; prints the times of one loop and their ratios, all measured on this machine in
this run. The peers are bench/c/peer.c's: libdlm as threaded programs use it (``dlm_ls_lock_wait``
and ``dlm_ls_unlock_wait``), and dispatching by hand, the least that C can do; the limit is for
both. They want a guest and libdlm's headers (Debian: libdlm-dev, gcc):

    tests/vm/run --exec 'python bench/lock_loop.py'

Where there is no DLM, only the emulator is measured: without a peer there is no ratio.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from bench.locks import NAME, peer_time, running, shown_to_libdlm  # noqa: E402 - the path first
from dlm.abi.device import Command, pack_lock  # noqa: E402
from dlm.connect import connect  # noqa: E402
from dlm.emulator import Cluster  # noqa: E402
from dlm.ports import Device  # noqa: E402
from dlm.terms import VALUE_BLOCK_SIZE, LockMode  # noqa: E402

NO_VALUE = bytes(VALUE_BLOCK_SIZE)
LOOPS, ROUNDS = 2000, 3
PEERS = ("wait", "hand")
AT_MOST = 10.0


def loop(device: Device, loops: int) -> float:
    """Lock and unlock one resource; return the microseconds of one loop."""
    lock = pack_lock(Command.LOCK, LockMode.EX, 0, 0, 0, NO_VALUE, NAME.encode())
    begin = time.perf_counter()
    for _ in range(loops):
        lock_id = device.write(lock)
        device.read(104)
        device.write(pack_lock(Command.UNLOCK, 0, 0, lock_id, 0, NO_VALUE, b""))
        device.read(104)
    return (time.perf_counter() - begin) / loops * 1e6


def main() -> int:
    """Measure and print; 1 when a ratio is too high."""
    process = Cluster({"node1": "127.0.0.1"}).node("node1").process()
    with running(process):
        emulated = process.open_device(f"dlm_{NAME}")
        ours = min(loop(emulated, LOOPS) for _ in range(ROUNDS))
        peers = dict.fromkeys(PEERS, math.inf)
        if not Path("/sys/kernel/dlm").is_dir():
            emulated.close()
            print(f"lock and unlock: emulator {ours:.0f} µs; no DLM here to compare with")
            return 0
        with shown_to_libdlm(connect("kernel")) as peer:
            for _ in range(ROUNDS):
                ours = min(ours, loop(emulated, LOOPS))
                for name in PEERS:
                    peers[name] = min(peers[name], peer_time(peer, name, LOOPS))
        emulated.close()
    ratios = {name: ours / peer for name, peer in peers.items()}
    print(
        f"lock and unlock: emulator {ours:.0f} µs, C libdlm on this kernel {peers['wait']:.0f} µs, "
        f"ratio {ratios['wait']:.2f}; C dispatching by hand {peers['hand']:.0f} µs, "
        f"ratio {ratios['hand']:.2f} (at most {AT_MOST:.0f})"
    )
    return int(max(ratios.values()) > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
