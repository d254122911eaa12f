"""Generate ``src/dlm/abi/_cdefs.py`` from the C headers in this directory (cffi, ABI mode).

Decides: which headers go in, in which order.
May not know: what the structs are for.

``python cdefs/build.py`` writes the module, ``python cdefs/build.py --check`` compares it with the
committed one and fails when they differ. The module is committed so that an installation needs no
compiler and no parser.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "dlm" / "abi" / "_cdefs.py"

# One header per interface and version, each after those that it includes.
HEADERS = (
    "dlm_constants.h",
    "dlm_device_6.h",
    "dlm_device_6_compat.h",
    "dlm_device_3.h",
    "dlm_device_3_i386.h",
    "dlm_node_1.h",
    "sockaddr.h",
)


def declarations(header: str) -> str:
    """Return a header as cffi reads it: without #include and #pragma."""
    lines = (HERE / header).read_text(encoding="utf-8").splitlines()
    return "\n".join("" if line.startswith(("#include", "#pragma")) else line for line in lines)


def generate() -> str:
    """Return the source of the module."""
    ffi = FFI()
    for header in HEADERS:
        ffi.cdef(declarations(header))
    ffi.set_source("dlm.abi._cdefs", None)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "_cdefs.py"
        with contextlib.redirect_stdout(io.StringIO()):  # it names its scratch file
            ffi.emit_python_code(str(path))
        return path.read_text(encoding="utf-8")


def main(argv: list[str]) -> int:
    """Write the module, or compare it; return the exit code."""
    source = generate()
    if argv == ["--check"]:
        if TARGET.read_text(encoding="utf-8") != source:
            print(f"{TARGET} is not what cdefs/ says; run `make cdefs`", file=sys.stderr)
            return 1
    else:
        TARGET.write_text(source, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
