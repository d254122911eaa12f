"""Benchmark: the encoding of dlm.remote, against JSON with bytes in hexadecimal.

Decides: nothing; prints sizes, times and ratios, all measured in this run.
"""

from __future__ import annotations

import json
import timeit

from dlm.abi.device import LockRequest, encode_request
from dlm.remote.wire import decode, encode

NUMBER, REPEAT = 20_000, 5
LOCK = encode_request(LockRequest(mode=5, castaddr=1, lksb=1, name=b"resource"))
LINES = b"".join(b"%d 1 0 0 4242 0 0 2 5 -1 0 0 8 resource%d\n" % (n, n) for n in range(100))
MESSAGES = {
    "a lock request": [17, 3, 0, "write", LOCK],
    "its answer": [17, 0, 1],
    "a list of 100 locks": [18, 0, LINES],
}


def to_json(message: list[object]) -> bytes:
    """Encode with bytes as {"hex": …}."""
    return json.dumps(message, default=lambda data: {"hex": data.hex()}).encode()


def from_json(data: bytes) -> object:
    """Decode it."""
    return json.loads(data, object_hook=lambda found: bytes.fromhex(found["hex"]))


def main() -> None:
    """Measure and print."""
    for name, message in MESSAGES.items():
        ours, peers = encode(message), to_json(message)
        assert decode(ours) == message == from_json(peers)
        times = [
            min(timeit.repeat(call, number=NUMBER, repeat=REPEAT)) / NUMBER * 1e6
            for call in (
                lambda message=message, ours=ours: (encode(message), decode(ours)),
                lambda message=message, peers=peers: (to_json(message), from_json(peers)),
            )
        ]
        print(
            f"{name}: {len(ours)} bytes, there and back {times[0]:.2f} µs; "
            f"JSON {len(peers)} bytes, {times[1]:.2f} µs; ratio {times[0] / times[1]:.2f}"
        )


if __name__ == "__main__":
    main()
