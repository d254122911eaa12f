"""Runs a document's examples as a reader would type them, one after the other.

Decides: which blocks are examples, what of their output must be equal.
May not know: what any document is about.

================  ================================================================================
block             what is done
================  ================================================================================
``python``        run, in one namespace for the whole document; what it prints must be what the
                  block ``text`` right behind it shows (nothing, without one)
``console``       each line that begins with ``$ `` is a command of a shell, the lines behind it
                  what it prints; ``export`` holds for all that follows
``text``          see ``python``; elsewhere it is no example
================  ================================================================================

A document that brings no cluster up has one with the lockspace ``test`` running on its one node. A
line ``…`` stands for any lines. ``/tmp/cluster`` is a directory of the run's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SRC = Path(__file__).resolve().parents[1] / "src"
PLACE = "/tmp/cluster"
LANGUAGES = {"python", "console", "text"}
PATIENCE = 50
"""Seconds that a command may take."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the document where the text begins."""

    language: str
    text: str
    line: int
    follows: bool
    """Whether nothing but blank space is between it and the block before."""


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    found = []
    end = 0
    for match in _BLOCK.finditer(document):
        line = document.count("\n", 0, match.start(2)) + 1
        follows = bool(found) and not document[end : match.start()].strip()
        found.append(Block(match[1], match[2], line, follows))
        end = match.end()
    return found


def is_shown(shown: str, printed: str) -> bool:
    """Say whether a text is as the document shows it; a line ``…`` is any lines, also none."""
    parts = re.split(r"^…\n", shown, flags=re.MULTILINE)
    return re.fullmatch("(?:.*\n)*".join(map(re.escape, parts)), printed) is not None


class Reader:
    """Somebody who types the examples of one document."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scratch = tempfile.mkdtemp(prefix="dlm-")  # short enough for a socket's name
        self._namespace: dict[str, Any] = {"__name__": "__main__"}
        self._saved = dict(os.environ)
        tool = Path(self._scratch) / "dlm_tool"
        tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m dlm "$@"\n')
        tool.chmod(0o755)
        paths = (str(SRC), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ["PATH"] = os.pathsep.join((self._scratch, os.environ["PATH"]))

    def read(self) -> int:
        """Run every example; return how many there were."""
        document = self._path.read_text(encoding="utf-8")
        if "emulator up" not in document:
            self._set_up()
        count = 0
        printed = ""
        found = blocks(document)
        for at, block in enumerate(found):
            where = f"{self._path.name}:{block.line}"
            assert block.language in LANGUAGES, f"{where}: a block of {block.language!r}"
            if block.language == "console":
                self._type(block, where)
                count += 1
            elif block.language == "python":
                printed = self._execute(block, where)
                shown = found[at + 1] if at + 1 < len(found) else None
                wanted = ""
                if shown is not None and shown.language == "text" and shown.follows:
                    wanted = shown.text
                assert is_shown(wanted, printed), f"{where} printed\n{printed}in place of\n{wanted}"
                count += 1
        return count

    def close(self) -> None:
        """Take everything back, the cluster too if there is one."""
        cluster = Path(self._scratch) / "cluster"
        if cluster.exists():
            self._run(f"dlm_tool emulator down {cluster}")
        os.environ.clear()
        os.environ.update(self._saved)
        shutil.rmtree(self._scratch)

    def _set_up(self) -> None:
        """Bring up what the tutorial does, for a document that begins where that is done."""
        cluster = f"{self._scratch}/cluster"
        self._run(f"dlm_tool emulator up --nodes nodea=10.0.0.1 {cluster}")
        os.environ["DLM_BACKEND"] = f"emulator:{cluster}/nodea"
        for line in ("set_local 1 10.0.0.1", "create test", "start test 1 0 1", "poll_done test 1"):
            self._run(f"dlm_tool {line}")

    def _execute(self, block: Block, where: str) -> str:
        text = "\n" * (block.line - 1) + self._local(block.text)
        out = io.StringIO()
        code = compile(text, str(self._path), "exec")
        with contextlib.redirect_stdout(out):
            try:
                exec(code, self._namespace)
            except Exception as error:
                error.add_note(f"in the example at {where}")
                raise
        return out.getvalue()

    def _type(self, block: Block, where: str) -> None:
        for command in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, shown = command.partition("\n")
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                os.environ[name] = self._local(value)
                printed = ""
            else:
                printed = self._run(self._local(line)).replace(
                    self._scratch, str(Path(PLACE).parent)
                )
            assert is_shown(shown, printed), f"{where}: {line}\nprinted\n{printed}not\n{shown}"

    def _local(self, text: str) -> str:
        return text.replace(PLACE, f"{self._scratch}/cluster")

    def _run(self, line: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return done.stdout
