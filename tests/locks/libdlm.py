"""C programs on libdlm, for what is compared and tried with them on a real kernel.

Decides: how they are compiled, and that libdlm finds its devices.
May not know: what they do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REMEDY = "install Debian's packages gcc, libdlm-dev and libdlm3"
"""What to do where ``is_missing`` says that something is."""


def is_missing() -> str:
    """Say what is missing here for compiling with libdlm; "" when nothing is."""
    if shutil.which("cc") is None:
        return "there is no C compiler"
    if not os.path.exists("/usr/include/libdlm.h"):
        return "there is no libdlm.h"
    return ""


def compiled(source: Path, directory: Path) -> Path:
    """Compile a program; return where it is."""
    program = directory / source.stem
    words = ["cc", "-O2", "-D_REENTRANT", str(source), "-o", str(program), "-ldlm", "-lpthread"]
    subprocess.run(words, check=True)
    return program


def show_devices(*lockspaces: str) -> None:
    """Let libdlm find the devices: it looks in /dev/misc, where only a udev rule puts them."""
    misc = Path("/dev/misc")
    misc.mkdir(exist_ok=True)
    for name in ("dlm-control", *(f"dlm_{each}" for each in lockspaces)):
        link = misc / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(f"../{name}")
