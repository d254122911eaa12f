"""Runs dlm_tool in processes of its own, on a cluster that a process in the background serves.

Decides: how a line becomes a process.
May not know: what any test asserts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cli.tool import ADDRESSES, Ran

NODES = ",".join(f"{name}={address}" for name, address in ADDRESSES.items())
PATIENCE = 50
"""Seconds after which a process of a test has hung."""


class Shells:
    """A shell on each node of a served cluster; ``directory`` is short enough for a socket."""

    def __init__(self) -> None:
        self.parent = Path(tempfile.mkdtemp(prefix="dlm-"))
        self.directory = self.parent / "cluster"

    def tool(self, line: str, *, backend: str = "") -> Ran:
        """Run one line, without the program's name; DIR stands for the cluster's directory."""
        words = [str(self.directory) if word == "DIR" else word for word in shlex.split(line)]
        ran = subprocess.run(
            [sys.executable, "-m", "dlm", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**os.environ, "DLM_BACKEND": backend},
        )
        return Ran(
            ran.returncode,
            ran.stdout.replace(str(self.directory), "DIR"),
            ran.stderr.replace(str(self.directory), "DIR"),
        )

    def on(self, node: str, line: str) -> Ran:
        """Run one line on a node."""
        return self.tool(line, backend=f"emulator:{self.directory}/{node}")

    def up(self, *options: str) -> None:
        """Start the cluster of three nodes."""
        ran = self.tool(f"emulator up --nodes {NODES} {' '.join(options)} DIR")
        assert ran.code == 0, ran

    def pid(self) -> int:
        """Return the process id of the server, 0 when the file is empty."""
        return int((self.directory / "pid").read_text() or "0")

    def close(self) -> None:
        """End the cluster if it runs."""
        self.tool("emulator down DIR")
        shutil.rmtree(self.parent)
