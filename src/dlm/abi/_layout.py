"""A C struct's layout, as cffi computes it, turned into a ``struct.Struct``.

Decides: how the fields of the generated declarations are spelled for ``struct``, which packs a
request in about half the time of cffi's own field access (bench/lock_device.py).
May not know: any particular struct.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from dlm.abi._cdefs import ffi

_CODES = {
    "uint8_t": "B",
    "uint16_t": "H",
    "uint32_t": "I",
    "int32_t": "i",
    "uint64_t": "Q",
    "void *": "Q" if ffi.sizeof("void *") == 8 else "I",
}
_BYTES = ("char", "uint8_t")  # arrays of them are bytes, not numbers


def size_of(name: str) -> int:
    """Return the size of a C type in bytes."""
    return ffi.sizeof(name)


def offset_of(name: str, *path: str) -> int:
    """Return the offset of a (nested) field of a C struct in bytes."""
    return ffi.offsetof(name, *path)


def constant(name: str) -> int:
    """Return the value of a constant of the headers."""
    return int(ffi.integer_const(name))


def record(name: str, *, member: str = "", skip: frozenset[str] = frozenset()) -> Struct:
    """Return a packer of the C struct ``name``, its fields flattened in order.

    A union is taken as its member ``member``. Fields in ``skip`` are padding: zeros when packed,
    passed over when unpacked. The record ends where a flexible array member begins, or at the end
    of the struct.
    """
    codes, end = _codes(ffi.typeof(name), 0, member, skip)
    size = ffi.sizeof(name)
    if not member:
        codes += _padding(size - end)
        end = size
    packer = Struct("=" + codes)
    assert packer.size == end, (name, packer.size, end)
    return packer


# Any: cffi's descriptions of C types have no types of their own.
def _codes(ctype: Any, base: int, member: str, skip: frozenset[str]) -> tuple[str, int]:
    codes, end = "", base
    for name, field in ctype.fields:
        start = base + field.offset
        if field.type.kind == "union":
            inner = dict(field.type.fields)[member]
            more, stop = _codes(inner.type, start, member, skip)
        elif field.type.kind == "struct":
            more, stop = _codes(field.type, start, member, skip)
            stop = start + ffi.sizeof(field.type)
            more += _padding(stop - start - Struct("=" + more).size)
        elif field.type.kind == "array" and field.type.length is None:
            more, stop = "", start
        else:
            stop = start + ffi.sizeof(field.type)
            more = _padding(stop - start) if name in skip else _scalar(field.type)
        codes += _padding(start - end) + more
        end = stop
    return codes, end


def _padding(size: int) -> str:
    return f"{size}x" if size else ""


def _scalar(ctype: Any) -> str:
    if ctype.kind == "array":
        item = ctype.item.cname
        return f"{ctype.length}{'s' if item in _BYTES else _CODES[item]}"
    return _CODES[ctype.cname]
