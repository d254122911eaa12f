"""One machine in emulation: virtme-ng's command line, its output, its end.

Decides: how a guest is started from a kernel image, that nothing of it outlives the harness.
May not know: what the guest runs (tests/vm/guest), how many guests there are.

virtme boots the image with this machine's own root file system, read-only over 9p, finds the
modules beside the image and links them inside the guest only. The guest may write to its results.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm.host import BIN, HERE, REPOSITORY

GUARD = '"$@" </dev/null & exec >/dev/null; read -r _; kill -KILL 0'
"""Waits for the end of our life (of our end of its standard input), then ends its whole session."""


class Machine:
    """A virtual machine with power on; ``work`` is what tests/vm/guest does in it.

    The work travels as a file: the kernel's command line, virtme's only other way, is short. What
    the kernel says goes to ``results/console.log``; ``output`` gives what the work prints.
    """

    def __init__(
        self,
        image: Path,
        work: str,
        results: Path,
        *,
        memory: str = "1G",
        devices: Sequence[str] = (),
    ) -> None:
        """Switch it on; ``devices`` are further words for qemu."""
        (results / "work").write_text(work + "\n")
        inside = shlex.join(["bash", str(HERE / "guest"), str(results)])
        words = [
            *(str(BIN / "vng"), "--verbose", "--run", str(image)),
            *("--disable-kvm", "--force-9p", "--cpus", "1", "--memory", memory, "--user", "root"),
            *("--cwd", str(REPOSITORY), f"--rwdir={results}", "--rodir=/run/host=/"),
            *((f"--qemu-opts={shlex.join(devices)}",) if devices else ()),
            *("--exec", f"{inside} 2>&1"),
        ]
        with (results / "console.log").open("wb") as console:
            self._session = subprocess.Popen(
                ["bash", "-c", GUARD, "guard", *words],
                env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # not ours: qemu opens it again by name, which truncates
                stderr=console,
                start_new_session=True,
            )

    def copy_output(self, log: Path, *, limit: float | None = None, shown: bool = False) -> bool:
        """Copy what the work prints to ``log``, and to our output if ``shown``, until it ends.

        False: ``limit`` seconds passed before that.
        """
        pipe = self._session.stdout
        assert pipe is not None
        deadline = None if limit is None else time.monotonic() + limit
        with log.open("wb") as copy:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not select.select([pipe], [], [], left)[0]:
                    return False
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    return True
                copy.write(chunk)
                copy.flush()
                if shown:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()

    def cut(self) -> None:
        """Kill all of it, as a power failure does; fine when it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._session.pid, signal.SIGKILL)
        self._session.wait()

    def close(self) -> None:
        """Cut the power and give the pipes back, once nobody copies output any more."""
        self.cut()
        for pipe in (self._session.stdin, self._session.stdout):
            assert pipe is not None
            pipe.close()
