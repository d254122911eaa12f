"""What the VM harness needs of this machine: Debian packages, the virtual environment, a cache.

Decides: where things that outlive a run are kept, what is said when something is missing.
May not know: kernels, guests, anything of the DLM.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
BIN = REPOSITORY / ".venv" / "bin"

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "udevadm": "udev",
    "ip": "iproute2",
    "file": "file",
}
"""What must be installed here: a program, and the Debian package that has it."""


class NoGuestError(Exception):
    """The guest cannot be had; the text says why and what to do."""


def say(text: str) -> None:
    """Print one line of our own, apart from the guest's."""
    print(f"vm: {text}", flush=True)


def command(*words: str | Path, cwd: Path | None = None, shown: bool = False) -> str:
    """Run a command of this machine and return its output; its failure is the guest's absence.

    ``shown``: its output goes to ours as it comes, because it takes long; nothing is returned.
    """
    pipe = None if shown else subprocess.PIPE
    done = subprocess.run(
        words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, check=False
    )
    if done.returncode:
        said = "" if shown else f":\n{done.stdout}{done.stderr}"
        raise NoGuestError(f"{shlex.join(map(str, words))} failed{said}")
    return done.stdout or ""


def cache_directory() -> Path:
    """Return the place where unpacked kernels and the logs of failed runs stay."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "dlm-vm"


def require_packages() -> None:
    """Install the Debian packages that are missing, or say which they are."""
    path = os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [PACKAGES[each] for each in PACKAGES if not shutil.which(each, path=path)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoGuestError(f"install these Debian packages first: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    command("apt-get", "update", "-qq")
    command("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def require_python() -> None:
    """See that the virtual environment has this package and virtme-ng."""
    if not all((BIN / each).exists() for each in ("vng", "dlm_tool", "pytest")):
        say("installing the package with its extras test and vm into .venv")
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command(BIN / "python", *pip, "-e", ".[test,vm]", cwd=REPOSITORY)


def warm_caches() -> None:
    """Compile our modules here: the guest cannot write beside them and is slow at compiling."""
    command(BIN / "python", "-m", "compileall", "-q", REPOSITORY / "src", REPOSITORY / "tests")
