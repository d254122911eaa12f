"""The structs of 2005 in cdefs/ are what a compiler makes of the tables of the time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dlm.abi import device2005, node2005
from dlm.abi._cdefs import ffi
from dlm.abi.device import Layout
from tests.needs import missing

# The C types as the documents of 2005 have them, written down once more: nothing of cdefs/ is used.
C_RENDERING = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <asm/ioctl.h>
struct dlm_lksb { int sb_status; uint32_t sb_lkid; char sb_flags; char *sb_lvbptr; };
struct dlm_range { uint64_t ra_start, ra_end; };
struct dlm_lock_params {
    uint8_t mode; uint16_t flags; uint32_t lkid; uint32_t parent; struct dlm_range range;
    uint8_t namelen; void *castparam, *castaddr, *bastparam, *bastaddr; struct dlm_lksb *lksb;
    char lvb[32]; char name[1];
};
struct dlm_lspace_params { uint32_t flags; uint32_t minor; char name[1]; };
struct dlm_write_request {
    uint32_t version[3]; uint8_t cmd;
    union { struct dlm_lock_params lock; struct dlm_lspace_params lspace; } i;
};
struct dlm_lock_result {
    uint32_t length; void *user_astaddr, *user_astparam; struct dlm_lksb *user_lksb;
    struct dlm_lksb lksb; uint8_t bast_mode; uint32_t lvb_offset;
};
struct dlm_node_ioctl { uint32_t version[3]; int nodeid; int weight; char addr[256]; };
"""

LOCK_FIELDS = (
    "mode", "flags", "lkid", "parent", "range", "namelen", "castparam", "castaddr", "bastparam",
    "bastaddr", "lksb", "lvb", "name",
)  # fmt: skip
SPACE_FIELDS = ("flags", "minor", "name")
RESULT_FIELDS = (
    "length", "user_astaddr", "user_astparam", "user_lksb", "lksb", "bast_mode", "lvb_offset",
)  # fmt: skip
LKSB_FIELDS = ("sb_status", "sb_lkid", "sb_flags", "sb_lvbptr")

# The tables of the document, by program: 64-bit and i386.
SIZES = {
    "native": {"dlm_write_request": 136, "dlm_lock_result": 64, "dlm_lksb": 24, "dlm_range": 16},
    "i386": {"dlm_write_request": 104, "dlm_lock_result": 40, "dlm_lksb": 16, "dlm_range": 16},
}
OFFSETS = {
    "native": {
        "i.lock": (16, 18, 20, 24, 32, 48, 56, 64, 72, 80, 88, 96, 128),
        "i.lspace": (16, 20, 24),
        "result": (0, 8, 16, 24, 32, 56, 60),
        "lksb": (32, 36, 40, 48),
    },
    "i386": {
        "i.lock": (16, 18, 20, 24, 28, 44, 48, 52, 56, 60, 64, 68, 100),
        "i.lspace": (16, 20, 24),
        "result": (0, 4, 8, 12, 16, 32, 36),
        "lksb": (16, 20, 24, 28),
    },
}
NODE_OFFSETS = {"version": 0, "nodeid": 12, "weight": 16, "addr": 20}
IOCTLS = {0: 0xC114D100, 1: 0xC114D101, 2: 0xC114D102}


def expected(program: str) -> dict[str, int]:
    """Return C expressions and what the document says of them."""
    table = {f"sizeof(struct {name})": size for name, size in SIZES[program].items()}
    offsets = OFFSETS[program]
    for member, fields in (("i.lock", LOCK_FIELDS), ("i.lspace", SPACE_FIELDS)):
        for field, offset in zip(fields, offsets[member], strict=True):
            table[f"offsetof(struct dlm_write_request, {member}.{field})"] = offset
    for field, offset in zip(RESULT_FIELDS, offsets["result"], strict=True):
        table[f"offsetof(struct dlm_lock_result, {field})"] = offset
    for field, offset in zip(LKSB_FIELDS, offsets["lksb"], strict=True):
        table[f"offsetof(struct dlm_lock_result, lksb.{field})"] = offset
    table["offsetof(struct dlm_write_request, cmd)"] = 12
    table["sizeof(struct dlm_node_ioctl)"] = 276
    table |= {f"offsetof(struct dlm_node_ioctl, {f})": at for f, at in NODE_OFFSETS.items()}
    table |= {f"_IOWR(0xd1, {nr}, struct dlm_node_ioctl)": code for nr, code in IOCTLS.items()}
    return table


def compiled(flag: str, expressions: dict[str, int], scratch: Path) -> dict[str, int]:
    """Compile the C rendering with -m64 or -m32 and let it print the expressions."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("there is no C compiler", "apt-get install gcc libc6-dev")
    prints = "".join(f'printf("%lld\\n", (long long)({each}));\n' for each in expressions)
    source, program = scratch / "layout.c", scratch / "layout"
    source.write_text(f"{C_RENDERING}int main(void) {{ {prints} return 0; }}\n")
    made = subprocess.run(
        [compiler, flag, "-o", program, source],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if made.returncode:
        remedy = "apt-get install gcc-multilib"
        if flag == "-m32":
            pytest.skip(f"the compiler cannot make 32-bit programs; to run this test: {remedy}")
        missing(f"the compiler cannot make 64-bit programs: {made.stderr}", "a 64-bit compiler")
    run = subprocess.run([program], check=False, capture_output=True, text=True, timeout=60)
    if run.returncode and flag == "-m32":
        pytest.skip("this machine cannot run 32-bit programs; to run this test: a 64-bit x86")
    assert run.returncode == 0
    return dict(zip(expressions, map(int, run.stdout.split()), strict=True))


@pytest.mark.parametrize(("flag", "program"), [("-m64", "native"), ("-m32", "i386")])
def test_a_compiler_agrees_with_the_tables_of_2005(flag: str, program: str, tmp_path: Path) -> None:
    """Every size, offset and ioctl number of the document is the compiler's, 64-bit and i386."""
    table = expected(program)
    assert compiled(flag, table, tmp_path) == table
    assert len(table) == 4 + 13 + 3 + 7 + 4 + 1 + 1 + 4 + 3


@pytest.mark.parametrize(("program", "suffix"), [("native", ""), ("i386", "_i386")])
def test_our_headers_have_the_sizes_and_offsets_of_2005(program: str, suffix: str) -> None:
    """cdefs/ says the same as the document's tables, in both layouts."""
    request, result = f"struct dlm_write_request3{suffix}", f"struct dlm_lock_result3{suffix}"
    offsets = OFFSETS[program]
    assert ffi.sizeof(request) == SIZES[program]["dlm_write_request"]
    assert ffi.sizeof(result) == SIZES[program]["dlm_lock_result"]
    for member, fields in (("lock", LOCK_FIELDS), ("lspace", SPACE_FIELDS)):
        found = tuple(ffi.offsetof(request, "i", member, field) for field in fields)
        assert found == offsets[f"i.{member}"]
    assert tuple(ffi.offsetof(result, field) for field in RESULT_FIELDS) == offsets["result"]
    assert tuple(ffi.offsetof(result, "lksb", f) for f in LKSB_FIELDS) == offsets["lksb"]
    assert ffi.offsetof(request, "cmd") == 12


def test_our_node_struct_is_the_one_of_2005() -> None:
    """The argument of an ioctl on dlm-node has 276 bytes; the requests have its size in them."""
    ctype = ffi.typeof("struct dlm_node_ioctl")
    assert {name: field.offset for name, field in ctype.fields} == NODE_OFFSETS
    assert ffi.sizeof(ctype) == node2005.NODE_SIZE == 276
    assert {code & 0xFF: int(code) for code in node2005.Ioctl} == IOCTLS


def test_the_sizes_that_others_use_are_those_of_2005() -> None:
    """Requests have 136 or 104 bytes, results 64 or 40."""
    assert device2005.REQUEST_SIZE == {Layout.NATIVE: 136, Layout.COMPAT32: 104}
    assert device2005.RESULT_SIZE == {Layout.NATIVE: 64, Layout.COMPAT32: 40}
