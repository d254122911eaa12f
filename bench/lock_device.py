"""Benchmark: a lock request encoded and a result decoded, against cffi's own field access.

Decides: nothing; prints times and a ratio, both measured in this run.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from dlm.abi._cdefs import ffi
from dlm.abi.device import LockRequest, LockResult, decode_result, encode_request, encode_result

NUMBER, REPEAT = 20_000, 5
REQUEST = LockRequest(mode=5, flags=0x80, xid=1, castaddr=2, castparam=3, lksb=4, name=b"resource")
RESULT = encode_result(LockResult(1, 2, 3, 0, 7, 0, 0, bytes(32)))
REQUEST_TYPE = ffi.typeof("struct dlm_write_request *")
RESULT_TYPE = ffi.typeof("struct dlm_lock_result *")


def peer_encode() -> bytes:
    """Fill the struct field by field, as one would with cffi."""
    request = ffi.new(REQUEST_TYPE)
    request.version = (6, 0, 2)
    request.cmd, request.is64bit = 1, 1
    lock = request.i.lock
    lock.mode, lock.namelen, lock.flags, lock.xid = 5, 8, 0x80, 1
    lock.castaddr, lock.castparam = ffi.cast("void *", 2), ffi.cast("void *", 3)
    lock.lksb = ffi.cast("void *", 4)
    return bytes(ffi.buffer(request)) + b"resource"


def peer_decode() -> LockResult:
    """Read the struct field by field, as one would with cffi."""
    result = ffi.cast(RESULT_TYPE, ffi.from_buffer(RESULT))
    lksb, at = result.lksb, result.lvb_offset
    return LockResult(
        int(ffi.cast("uintptr_t", result.user_astaddr)),
        int(ffi.cast("uintptr_t", result.user_astparam)),
        int(ffi.cast("uintptr_t", result.user_lksb)),
        lksb.sb_status,
        lksb.sb_lkid,
        lksb.sb_flags,
        result.bast_mode,
        RESULT[at : at + 32] if at else None,
    )


def microseconds(call: Callable[[], object]) -> float:
    """Return the best time of a call."""
    return min(timeit.repeat(call, number=NUMBER, repeat=REPEAT)) / NUMBER * 1e6


def main() -> None:
    """Measure and print."""
    assert peer_encode() == encode_request(REQUEST)
    assert peer_decode() == decode_result(RESULT)
    for what, ours, peer in (
        ("encode a lock request", lambda: encode_request(REQUEST), peer_encode),
        ("decode a result", lambda: decode_result(RESULT), peer_decode),
    ):
        mine, other = microseconds(ours), microseconds(peer)
        print(f"{what}: {mine:.2f} µs, field by field {other:.2f} µs, ratio {mine / other:.2f}")


if __name__ == "__main__":
    main()
