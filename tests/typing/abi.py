"""Types that callers of dlm.abi rely on; mypy checks this file, nothing runs it."""

from __future__ import annotations

from typing import assert_type

from dlm.abi.address import decode_sockaddr
from dlm.abi.attributes import Attribute, find_attribute
from dlm.abi.debugfs import ResourceEntry, parse_all
from dlm.abi.device import (
    LockRequest,
    LockResult,
    LockspaceRequest,
    PurgeRequest,
    decode_request,
    decode_result,
    encode_request,
)
from dlm.terms import KERNELS

assert_type(encode_request(LockRequest(name=b"a")), bytes)
assert_type(decode_request(b"", control=True).body, LockRequest | LockspaceRequest | PurgeRequest)
assert_type(decode_result(b""), LockResult)
assert_type(decode_result(b"").value, bytes | None)
assert_type(decode_sockaddr(b""), str | None)
assert_type(find_attribute("dlm/t/id", KERNELS["6.1"]), tuple[Attribute, dict[str, str]] | None)
assert_type(parse_all(b""), list[ResourceEntry])
