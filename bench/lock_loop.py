"""Benchmark: lock and unlock through the emulator's device, against C libdlm on a real kernel.

Decides: nothing; prints the times of one loop and their ratio, both measured on this machine in
this run. The kernel's side wants a guest and libdlm's headers (Debian: libdlm-dev, gcc):

    tests/vm/run --exec 'python bench/lock_loop.py'

Where there is no DLM, only the emulator is measured: without a peer there is no ratio.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from dlm.abi.device import Command, LockRequest, encode_request  # noqa: E402 - the path comes first
from dlm.control import Control  # noqa: E402
from dlm.emulator import Cluster  # noqa: E402
from dlm.kernel import KernelBackend  # noqa: E402
from dlm.ports import Backend, Device  # noqa: E402
from dlm.terms import LockMode  # noqa: E402
from tests.locks import libdlm  # noqa: E402

LOOPS, ROUNDS = 2000, 3
SOURCE = Path(__file__).with_suffix(".c")
LOCKSPACE = "bench"
AT_MOST = 10.0


def bring_up(backend: Backend) -> None:
    """Make a lockspace of this node alone and wait until it runs."""
    control = Control(backend)
    control.set_local(1, "127.0.0.1")
    lockspace = control.lockspace(LOCKSPACE)
    lockspace.create()
    lockspace.start(1, [1])
    lockspace.wait_done(1)
    while f"dlm_{LOCKSPACE}" not in backend.misc_devices():  # the create returns a moment later
        backend.pause(0.1)


def loop(device: Device, loops: int) -> float:
    """Lock and unlock one resource; return the microseconds of one loop."""
    lock = encode_request(LockRequest(mode=LockMode.EX, castaddr=1, lksb=1, name=b"bench"))
    begin = time.perf_counter()
    for _ in range(loops):
        lock_id = device.write(lock)
        device.read(104)
        device.write(encode_request(LockRequest(Command.UNLOCK, lock_id=lock_id, lksb=1)))
        device.read(104)
    return (time.perf_counter() - begin) / loops * 1e6


def build(directory: str) -> str:
    """Compile the peer."""
    program = f"{directory}/lock_loop"
    subprocess.run(["cc", "-O2", "-o", program, str(SOURCE), "-ldlm_lt"], check=True)
    return program


def main() -> int:
    """Measure and print; 1 when the ratio is too high."""
    with Cluster({"node1": "127.0.0.1"}) as cluster:
        process = cluster.node("node1").process()
        bring_up(process)
        emulated = process.open_device(f"dlm_{LOCKSPACE}")
        if not Path("/sys/kernel/dlm").is_dir():
            ours = min(loop(emulated, LOOPS) for _ in range(ROUNDS))
            print(f"lock and unlock: emulator {ours:.0f} µs; no DLM here to compare with")
            return 0
        with tempfile.TemporaryDirectory() as directory:
            program = build(directory)
            bring_up(KernelBackend())
            subprocess.run(["udevadm", "settle"], check=True)
            libdlm.show_devices(LOCKSPACE)
            pairs = [
                (
                    loop(emulated, LOOPS),
                    float(subprocess.check_output([program, LOCKSPACE, str(LOOPS)])),
                )
                for _ in range(ROUNDS)
            ]
    ours, peer = min(one for one, _ in pairs), min(other for _, other in pairs)
    ratio = ours / peer
    print(
        f"lock and unlock: emulator {ours:.0f} µs, C libdlm on this kernel {peer:.0f} µs, "
        f"ratio {ratio:.2f} (at most {AT_MOST:.0f})"
    )
    return int(ratio > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
