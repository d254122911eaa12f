"""The declarations in cdefs/ are what the kernel's headers and a compiler say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlm import terms
from dlm.abi import device
from dlm.abi._cdefs import ffi
from tests.needs import missing

ROOT = Path(__file__).resolve().parents[3]
CDEFS = ROOT / "cdefs"

KERNEL_STRUCTS = (
    "dlm_lksb",
    "dlm_lock_params",
    "dlm_lspace_params",
    "dlm_purge_params",
    "dlm_write_request",
    "dlm_device_version",
    "dlm_lock_result",
)
OWN_STRUCTS = (
    *KERNEL_STRUCTS,
    "dlm_lock_params32",
    "dlm_write_request32",
    "dlm_lksb32",
    "dlm_lock_result32",
    "dlm_sockaddr_in",
    "dlm_sockaddr_in6",
)


def constants(*headers: str) -> dict[str, int]:
    """Return the constants that headers of cdefs/ define, with cffi's values."""
    names = [
        name
        for header in headers
        for name in re.findall(r"^#define (\w+)", (CDEFS / header).read_text(), re.MULTILINE)
    ]
    return {name: ffi.integer_const(name) for name in names}


def sizes_and_offsets(structs: tuple[str, ...]) -> dict[str, int]:
    """Return C expressions and cffi's values of them: sizes of structs and fields, offsets.

    The fields of a union's members are reached through the struct that they are.
    """
    expressions = {}
    for struct in structs:
        ctype = ffi.typeof(f"struct {struct}")
        expressions[f"sizeof(struct {struct})"] = ffi.sizeof(ctype)
        for name, field in ctype.fields:
            expressions[f"offsetof(struct {struct}, {name})"] = field.offset
            if field.type.kind == "union":
                for member, _ in field.type.fields:
                    path = f"offsetof(struct {struct}, {name}.{member}"
                    expressions[f"{path})"] = ffi.offsetof(ctype, name, member)
                continue
            if field.type.kind != "array" or field.type.length is not None:
                size = ffi.sizeof(field.type)
                expressions[f"sizeof(((struct {struct} *)0)->{name})"] = size
    for struct in {"dlm_write_request", "dlm_write_request32"} & set(structs):
        offset = ffi.offsetof(f"struct {struct}", "i", "lock", "name")
        expressions[f"offsetof(struct {struct}, i.lock.name)"] = offset
    return expressions


def compiled(includes: list[str], expressions: dict[str, int], scratch: Path) -> dict[str, int]:
    """Compile and run a C program that prints what the expressions come to."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("there is no C compiler", "apt-get install gcc libc6-dev")
    lines = [f'printf("%lld\\n", (long long)({expression}));' for expression in expressions]
    source = scratch / "layout.c"
    heads = "\n".join(f"#include {name}" for name in ["<stddef.h>", "<stdio.h>", *includes])
    body = "\n".join(lines)
    source.write_text(f"{heads}\nint main(void) {{\n{body}\nreturn 0; }}\n")
    program = scratch / "layout"
    subprocess.run(
        [compiler, "-Wall", "-Werror", f"-I{CDEFS}", "-o", program, source],
        check=True,
        timeout=60,
    )
    output = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60)
    return dict(zip(expressions, map(int, output.stdout.split()), strict=True))


def test_the_generated_module_is_what_the_headers_say() -> None:
    """``src/dlm/abi/_cdefs.py`` is the output of ``cdefs/build.py``."""
    done = subprocess.run(
        [sys.executable, CDEFS / "build.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_structs_and_constants_are_the_installed_kernel_headers(tmp_path: Path) -> None:
    """Every size, offset and constant equals that of ``<linux/dlm_device.h>``."""
    for header in ("dlm_device.h", "dlmconstants.h"):
        if not Path("/usr/include/linux", header).exists():
            missing(f"<linux/{header}> is not installed", "apt-get install linux-libc-dev")
    expressions = sizes_and_offsets(KERNEL_STRUCTS)
    expressions |= constants("dlm_constants.h", "dlm_device_6.h")
    includes = ["<linux/dlm.h>", "<linux/dlmconstants.h>", "<linux/dlm_device.h>"]
    assert compiled(includes, expressions, tmp_path) == expressions
    assert len(expressions) > 100


def test_our_headers_mean_the_same_to_a_compiler_as_to_cffi(tmp_path: Path) -> None:
    """Every size and offset that cffi computes, compat and addresses too, is the compiler's."""
    expressions = sizes_and_offsets(OWN_STRUCTS)
    expressions["sizeof(union dlm_sockaddr_storage)"] = 128
    includes = ['"dlm_device_6_compat.h"', '"sockaddr.h"']
    assert compiled(includes, expressions, tmp_path) == expressions


def test_the_address_structs_are_libc_s(tmp_path: Path) -> None:
    """Addresses have libc's sizes, offsets and family numbers."""
    expressions = {
        "sizeof(struct sockaddr_storage)": ffi.sizeof("union dlm_sockaddr_storage"),
        "AF_INET": ffi.integer_const("DLM_AF_INET"),
        "AF_INET6": ffi.integer_const("DLM_AF_INET6"),
    }
    for struct in ("sockaddr_in", "sockaddr_in6"):
        for field, description in ffi.typeof(f"struct dlm_{struct}").fields:
            expressions[f"offsetof(struct {struct}, {field})"] = description.offset
    assert compiled(["<netinet/in.h>"], expressions, tmp_path) == expressions


# §4.3 of the kernel's facts: the 32-bit layout as a 64-bit kernel sees it, with nothing computed.
COMPAT_OFFSETS = {
    "dlm_lock_params32": {
        "mode": 0, "namelen": 1, "unused": 2, "flags": 4, "lkid": 8, "parent": 12, "xid": 16,
        "timeout": 24, "castparam": 32, "castaddr": 36, "bastparam": 40, "bastaddr": 44,
        "lksb": 48, "lvb": 52, "name": 84,
    },
    "dlm_write_request32": {"version": 0, "cmd": 12, "is64bit": 13, "unused": 14, "i": 16},
    "dlm_lksb32": {"sb_status": 0, "sb_lkid": 4, "sb_flags": 8, "sb_lvbptr": 12},
    "dlm_lock_result32": {
        "version": 0, "length": 12, "user_astaddr": 16, "user_astparam": 20, "user_lksb": 24,
        "lksb": 28, "bast_mode": 44, "unused": 45, "lvb_offset": 48,
    },
}  # fmt: skip
COMPAT_SIZES = {
    "dlm_lock_params32": 88,
    "dlm_write_request32": 104,
    "dlm_lksb32": 16,
    "dlm_lock_result32": 52,
}


@pytest.mark.parametrize("struct", sorted(COMPAT_OFFSETS))
def test_the_compat_layout_is_the_kernel_s(struct: str) -> None:
    """The 32-bit structs have the offsets and sizes of fs/dlm/user.c on a 64-bit kernel."""
    ctype = ffi.typeof(f"struct {struct}")
    assert {name: field.offset for name, field in ctype.fields} == COMPAT_OFFSETS[struct]
    assert ffi.sizeof(ctype) == COMPAT_SIZES[struct]


def test_a_compat_name_begins_before_the_end_of_the_struct() -> None:
    """The name of a 32-bit lock request is at 100, that of a lockspace at 24."""
    assert ffi.offsetof("struct dlm_write_request32", "i", "lock", "name") == 100
    assert ffi.offsetof("struct dlm_write_request32", "i", "lspace", "name") == 24


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("DLM_LOCK_", terms.LockMode),
        ("DLM_LKF_", terms.LockFlag),
        ("DLM_SBF_", terms.StatusFlag),
        ("DLM_LSFL_", terms.LockspaceFlag),
        ("DLM_USER_LSFLG_", terms.ReleaseFlag),
        ("DLM_USER_", device.Command),
    ],
)
def test_the_vocabulary_has_the_header_s_numbers(
    prefix: str, words: type[terms.LockMode | terms.LockFlag]
) -> None:
    """Every mode, flag and command of the package is the constant of its name."""
    assert {word.name: ffi.integer_const(f"{prefix}{word.name}") for word in words} == {
        word.name: word.value for word in words
    }


def test_the_vocabulary_leaves_no_lock_flag_out() -> None:
    """Every DLM_LKF_* of the headers is a LockFlag."""
    names = {
        name.removeprefix("DLM_LKF_")
        for name in constants("dlm_constants.h")
        if name.startswith("DLM_LKF_")
    }
    assert names == {flag.name for flag in terms.LockFlag}


def test_lengths_and_statuses_are_the_header_s() -> None:
    """Lengths and the two statuses of terms are the constants of the headers."""
    assert terms.RESOURCE_NAME_MAX == ffi.integer_const("DLM_RESNAME_MAXLEN")
    assert terms.LOCKSPACE_NAME_MAX == ffi.integer_const("DLM_LOCKSPACE_LEN")
    assert terms.VALUE_BLOCK_SIZE == ffi.integer_const("DLM_USER_LVB_LEN")
    assert terms.ECANCEL == ffi.integer_const("DLM_ECANCEL")
    assert terms.EUNLOCK == ffi.integer_const("DLM_EUNLOCK")
