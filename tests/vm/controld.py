"""Debian's dlm_controld and what it needs: fetched, unpacked, never installed, run for one node.

Decides: which packages; how corosync is told that this machine is all of the cluster; when both
are ready, and how they die.
May not know: what is shown with it (tests/vm/test_beside.py).

The host fetches (``require_controller``), the guest, which has no network, runs (``Controller``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.vm.host import cache_directory, command, say
from tests.vm.kernels import Apt, machine_sources, sources_for

SUITE = "bookworm"
PACKAGES = (
    *("dlm-controld", "libdlm3", "libdlmcontrol3"),
    *("corosync", "libcfg7", "libcmap4", "libcorosync-common4", "libcpg4", "libquorum5"),
    *("libsam4", "libvotequorum8", "libknet1", "libnozzle1", "libqb100", "libstatgrab10"),
    *("libnl-3-200", "libnl-route-3-200"),
)
"""What dlm_controld depends on, but for what every Debian has."""

_PLACE = "dlm-controld"

RUN = Path("/run/dlm-beside")
"""Where the guest's two daemons keep what they write."""

COROSYNC = """\
system {
 state_dir: %s
 sched_rr: no
 move_to_root_cgroup: no
}
totem {
 version: 2
 cluster_name: beside
 transport: udpu
 crypto_cipher: none
 crypto_hash: none
}
logging {
 to_stderr: yes
 to_syslog: no
}
quorum {
 provider: corosync_votequorum
}
nodelist {
 node {
  name: node1
  nodeid: 1
  ring0_addr: 127.0.0.1
 }
}
"""


def require_controller() -> Path:
    """Return the tree with the daemons, fetched if it is not here; raises ``NoGuestError``."""
    target = cache_directory() / _PLACE
    if target.exists():
        return target
    say(f"fetching dlm_controld and corosync of Debian's {SUITE}")
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=".unpacking-") as scratch:
        apt = Apt(Path(scratch))
        apt.update(sources_for(SUITE, machine_sources()))
        apt.download(*PACKAGES)
        tree = apt.place / "tree"
        for each in sorted(apt.place.glob("*.deb")):
            command("dpkg", "-x", each, tree)
        try:
            tree.rename(target)
        except OSError:
            if not target.exists():  # else another run was faster
                raise
    return target


class Controller:
    """corosync and dlm_controld on the guest, with 127.0.0.1 as the only node, node 1.

    ``wait`` is given what is waited for, and waits.
    """

    def __init__(self, tree: Path, wait: Callable[[Callable[[], bool]], None]) -> None:
        self._tree = tree
        self._wait = wait
        libraries = ":".join(str(tree / each / "x86_64-linux-gnu") for each in ("usr/lib", "lib"))
        self._environment = os.environ | {"LD_LIBRARY_PATH": libraries}
        self._rules = Path("/run/udev/rules.d") / next(tree.rglob("*-dlm.rules")).name
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        RUN.mkdir(exist_ok=True)
        (RUN / "corosync.conf").write_text(COROSYNC % RUN)
        self._make_devices()
        self.start()
        self.wait_ready()

    def _make_devices(self) -> None:
        """Have udev make /dev/misc/dlm-control and the like, as the package would: libdlm asks."""
        self._rules.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(self._tree.rglob("*-dlm.rules")), self._rules)
        _udev("control", "--reload")
        _udev("trigger", "--subsystem-match=misc")
        self._wait(Path("/dev/misc/dlm-control").exists)

    def _start(self, program: str, *words: str) -> None:
        words = (str(self._tree / "usr" / "sbin" / program), *words)
        with (RUN / f"{program}.log").open("wb") as log:
            daemon = subprocess.Popen(words, env=self._environment, stdout=log, stderr=log)
        self._running[program] = daemon

    def _ended(self, program: str) -> bool:
        return program not in self._running or self._running[program].poll() is not None

    def start(self) -> None:
        """Start dlm_controld, which may refuse, and corosync, which it may have ended before."""
        if self._ended("corosync"):
            self._start("corosync", "-f", "-c", str(RUN / "corosync.conf"))
            self._wait_said("corosync", "ready to provide service")
        options = ("--enable_fencing=0", "-q", "0", "--enable_quorum_lockspace=0")
        self._start("dlm_controld", "-D", *options)

    def wait_ready(self) -> None:
        """Wait until dlm_controld has configured this node."""
        self._wait_said("dlm_controld", "cluster node 1 added")

    def wait_ended(self) -> None:
        """Wait until dlm_controld has ended by itself."""
        self._wait(lambda: self._ended("dlm_controld"))

    def _wait_said(self, program: str, text: str) -> None:
        self._wait(lambda: self._ended(program) or text in self.log(program))
        assert text in self.log(program), self.log(program)

    def log(self, program: str) -> str:
        """Return what a daemon has said."""
        return (RUN / f"{program}.log").read_text(errors="replace")

    def tool(self, *words: str) -> str:
        """Run Debian's dlm_tool, which asks dlm_controld; it must succeed."""
        done = subprocess.run(
            [self._tree / "usr" / "sbin" / "dlm_tool", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done, self.log("dlm_controld"))
        return done.stdout

    def kill(self) -> None:
        """Kill dlm_controld as a crash does."""
        self._kill("dlm_controld")

    def _kill(self, program: str) -> None:
        self._running[program].kill()
        self._running[program].wait()

    def end(self) -> None:
        """End what still runs; devices that are made from now on are as the kernel makes them."""
        for program in self._running:
            self._kill(program)
        self._rules.unlink()
        _udev("control", "--reload")


def _udev(*words: str) -> None:
    # The tests run in a chroot, where udevadm would do nothing, and succeed.
    environment = os.environ | {"SYSTEMD_IGNORE_CHROOT": "1"}
    subprocess.run(["udevadm", *words], env=environment, check=True)
