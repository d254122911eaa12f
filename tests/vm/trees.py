"""Trees of the DLM's files: recorded through the seam, kept in fixtures/sysfs/, compared.

Decides: which files belong to a tree, the format that it is kept in, what in it varies from run to
run.
May not know: which backend it records, how the node came into its state.

A recorded tree is a directory: the files as they lie below ``/``, and ``manifest.json``, which is
the authority: it lists every path with its type and mode, also the empty directories, which git
does not keep. A file that cannot be read is there, and empty.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.abi.texts import format_misc
from dlm.ports import Backend

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "sysfs"

SYSFS = "sys/kernel"
ROOTS = ("config/dlm", "dlm", "debug/dlm")
MISC = "proc/misc"

VARIES = (
    (r"debug/dlm/[^/]+$", r"^Resource (\S+) Name", "address of the resource"),
    (r"debug/dlm/[^/]+_all$", r"^rsb (\S+) ", "address of the resource"),
    (r"debug/dlm/[^/]+_all$", r"^lkb (?:\S+ ){3}(\d+) (?:\S+ ){10}(\d+) (\d+)$", "process, times"),
    (r"debug/dlm/[^/]+_toss$", r"\A([\s\S]*)\Z", "kept for toss_secs, with address and time"),
    (r"debug/dlm/[^/]+_locks$", r"^(?:\S+ ){3}(\d+) (?:\S+ ){6}(\d+) ", "process, milliseconds"),
)
"""What no two runs have in common: files (by path), the groups of a pattern in them, why."""


@dataclass(frozen=True)
class Entry:
    """A file or directory: type and permission bits, and the text of a file that can be read."""

    mode: int
    text: str | None = None

    @property
    def is_directory(self) -> bool:
        """Say whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def describe(self) -> str:
        """Return type and mode as people read them."""
        return stat.filemode(self.mode)


@dataclass(frozen=True)
class Tree:
    """Entries by path below ``/``, and how they came about."""

    entries: dict[str, Entry]
    about: dict[str, Any] = field(default_factory=dict)  # Any: what JSON can hold


# ---- recording ----------------------------------------------------------------------------------


def record(backend: Backend, **about: object) -> Tree:
    """Read all files of the DLM through a backend, and the DLM's lines of /proc/misc."""
    entries: dict[str, Entry] = {}
    for root in ROOTS:
        _record(backend, root, entries)
    devices = backend.misc_devices()
    ours = {name: minor for name, minor in devices.items() if name.startswith("dlm")}
    entries[MISC] = Entry(stat.S_IFREG | 0o444, format_misc(ours))
    return Tree(dict(sorted(entries.items())), about)


def _record(backend: Backend, path: str, entries: dict[str, Entry]) -> None:
    try:
        mode = backend.stat(path).mode
    except FileNotFoundError:
        return
    text = None
    if stat.S_ISDIR(mode):
        for name in backend.list_directory(path):
            _record(backend, f"{path}/{name}", entries)
    elif mode & 0o444:
        text = backend.read_attribute(path).decode()
    entries[f"{SYSFS}/{path}"] = Entry(mode, text)


# ---- comparing ----------------------------------------------------------------------------------


def differences(kept: Tree, found: Tree) -> list[str]:
    """Say how the second tree differs from the first, apart from what varies."""
    lines = [f"{path}: only in the first" for path in kept.entries if path not in found.entries]
    lines += [f"{path}: only in the second" for path in found.entries if path not in kept.entries]
    for path, entry in kept.entries.items():
        other = found.entries.get(path, entry)
        if entry.mode != other.mode:
            lines.append(f"{path}: {entry.describe()} and {other.describe()}")
        if masked(path, entry.text) != masked(path, other.text):
            lines.append(f"{path}: {entry.text!r} and {other.text!r}")
    return lines


def masked(path: str, text: str | None) -> str | None:
    """Return a file's text with a star in place of everything that varies."""
    if text is None:
        return None
    for files, pattern, _ in VARIES:
        if re.search(files, path):
            text = re.sub(pattern, _starred, text, flags=re.MULTILINE)
    return text


def _starred(match: re.Match[str]) -> str:
    parts, end = [], match.start()
    for group in range(1, len(match.groups()) + 1):
        parts += [match.string[end : match.start(group)], "*"]
        end = match.end(group)
    return "".join(parts) + match.string[end : match.end()]


# ---- keeping ------------------------------------------------------------------------------------


def save(tree: Tree, directory: Path) -> None:
    """Write a tree where there is none yet: its files, and the manifest beside them."""
    for path, entry in tree.entries.items():
        place = directory / path
        if entry.is_directory:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(entry.text or "")
    manifest = {
        "dlm_tree": 1,
        **tree.about,
        "varies": _variations(tree),
        "paths": {path: entry.describe() for path, entry in tree.entries.items()},
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _variations(tree: Tree) -> list[dict[str, str]]:
    """Return what varies in this tree's files, as its manifest says it."""
    return [
        {"path": path, "groups_of": pattern, "why": why}
        for path, entry in tree.entries.items()
        for files, pattern, why in VARIES
        if re.search(files, path) and re.search(pattern, entry.text or "", re.MULTILINE)
    ]


def load(directory: Path) -> Tree:
    """Read a tree that ``save`` has written."""
    about = json.loads((directory / "manifest.json").read_text())
    paths = about.pop("paths")
    entries = {}
    for path, described in paths.items():
        mode = _mode(described)
        readable = stat.S_ISREG(mode) and mode & 0o444
        entries[path] = Entry(mode, (directory / path).read_text() if readable else None)
    return Tree(entries, about)


def _mode(described: str) -> int:
    """Return the mode whose stat.filemode() this is: ``drwxr-xr-x``, ``-rw-r--r--``."""
    kind = {"d": stat.S_IFDIR, "-": stat.S_IFREG}[described[0]]
    bits = "".join("0" if letter == "-" else "1" for letter in described[1:])
    return kind | int(bits, 2)


def lay_out(tree: Tree, root: Path) -> None:
    """Make a tree below ``root`` with every directory and mode, for ``kernel:root=ROOT``."""
    for path, entry in tree.entries.items():
        place = root / path
        if entry.is_directory:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(entry.text or "")
            place.chmod(stat.S_IMODE(entry.mode))
