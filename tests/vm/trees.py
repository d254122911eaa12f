"""Trees of the DLM's files and events: recorded through the seam, kept, compared.

Decides: which files belong to a tree, the format that it is kept in (fixtures/sysfs/), what in it
varies from run to run.
May not know: which backend it records, how the node came into its state.

A recorded tree is a directory: the files as they lie below ``/``, and ``manifest.json``, which is
the authority: it lists every path with its type and mode, also the empty directories, which git
does not keep, and the device nodes, which are not laid out; the files that refuse to be read at
that moment, with the errno; and the kernel's events since the moment before. A file that cannot be
read is there, and empty.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.abi.texts import format_misc
from dlm.errors import errno_name
from dlm.ports import Backend, Uevent

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "sysfs"

SYSFS = "sys/kernel"
ROOTS = ("config/dlm", "dlm", "debug/dlm")
MISC = "proc/misc"
DEVICES = "dev"

OF_DLM = re.compile(r"@/(module/dlm|kernel/dlm(/.*)?|devices/virtual/misc/dlm.*)$")
"""Headers of the kernel's events that belong to a tree: not those of its memory caches, which it
shares with others or not as it likes."""

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
    """A file or directory: type and permission bits, and the text of a file that can be read.

    ``refused`` is the errno's name where reading it is refused at this moment.
    """

    mode: int
    text: str | None = None
    refused: str = ""

    @property
    def is_directory(self) -> bool:
        """Say whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def describe(self) -> str:
        """Return type and mode as people read them."""
        return stat.filemode(self.mode)


@dataclass(frozen=True)
class Tree:
    """Entries by path below ``/``, the events since the last tree, and how they came about."""

    entries: dict[str, Entry]
    uevents: tuple[Uevent, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)  # Any: what JSON can hold


# ---- recording ----------------------------------------------------------------------------------


def record(
    backend: Backend,
    *,
    devices: Mapping[str, int] | None = None,
    uevents: Iterable[Uevent] = (),
    **about: object,
) -> Tree:
    """Read all files of the DLM through a backend, and the DLM's lines of /proc/misc.

    ``devices`` are the modes of device nodes by name, ``uevents`` what was sent since the last
    tree: of these, the DLM's are kept, without their number, which counts all of the machine's.
    """
    entries: dict[str, Entry] = {}
    for root in ROOTS:
        _record(backend, root, entries)
    ours = {each: minor for each, minor in backend.misc_devices().items() if each.startswith("dlm")}
    entries[MISC] = Entry(stat.S_IFREG | 0o444, format_misc(ours))
    for name, mode in (devices or {}).items():
        entries[f"{DEVICES}/{name}"] = Entry(mode)
    events = tuple(
        Uevent(each.header, tuple(pair for pair in each.env if pair[0] != "SEQNUM"))
        for each in uevents
        if OF_DLM.search(each.header)
    )
    return Tree(dict(sorted(entries.items())), events, about)


def _record(backend: Backend, path: str, entries: dict[str, Entry]) -> None:
    try:
        mode = backend.stat(path).mode
    except FileNotFoundError:
        return
    text, refused = None, ""
    if stat.S_ISDIR(mode):
        for name in backend.list_directory(path):
            _record(backend, f"{path}/{name}", entries)
    elif mode & 0o444:
        try:
            text = backend.read_attribute(path).decode()
        except OSError as error:
            refused = errno_name(error.errno or 0)
    entries[f"{SYSFS}/{path}"] = Entry(mode, text, refused)


# ---- comparing ----------------------------------------------------------------------------------


def differences(kept: Tree, found: Tree) -> list[str]:
    """Say how the second tree differs from the first, apart from what varies."""
    lines = [f"{path}: only in the first" for path in kept.entries if path not in found.entries]
    lines += [f"{path}: only in the second" for path in found.entries if path not in kept.entries]
    for path, entry in kept.entries.items():
        other = found.entries.get(path, entry)
        if entry.mode != other.mode:
            lines.append(f"{path}: {entry.describe()} and {other.describe()}")
        if entry.refused != other.refused:
            lines.append(f"{path}: read {entry.refused or 'well'} and {other.refused or 'well'}")
        elif masked(path, entry.text) != masked(path, other.text):
            lines.append(f"{path}: {entry.text!r} and {other.text!r}")
    if kept.uevents != found.uevents:
        lines.append(f"events: {_listed(kept.uevents)} and {_listed(found.uevents)}")
    return lines


def _listed(uevents: Iterable[Uevent]) -> list[list[str]]:
    """Return events as a manifest has them: the header, then every key."""
    return [[each.header, *(f"{key}={value}" for key, value in each.env)] for each in uevents]


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
        elif stat.S_ISREG(entry.mode):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(entry.text or "")
    manifest = {
        "dlm_tree": 2,
        **tree.about,
        "varies": _variations(tree),
        "refused": {path: each.refused for path, each in tree.entries.items() if each.refused},
        "uevents": _listed(tree.uevents),
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
    paths, refused, uevents = about.pop("paths"), about.pop("refused"), about.pop("uevents")
    entries = {}
    for path, described in paths.items():
        mode = _mode(described)
        readable = stat.S_ISREG(mode) and mode & 0o444 and path not in refused
        text = (directory / path).read_text() if readable else None
        entries[path] = Entry(mode, text, refused.get(path, ""))
    return Tree(entries, tuple(map(_uevent, uevents)), about)


def _uevent(listed: list[str]) -> Uevent:
    header, *keys = listed
    pairs = (key.partition("=") for key in keys)
    return Uevent(header, tuple((name, value) for name, _, value in pairs))


def _mode(described: str) -> int:
    """Return the mode whose stat.filemode() this is: ``drwxr-xr-x``, ``crw-------``."""
    kind = {"d": stat.S_IFDIR, "-": stat.S_IFREG, "c": stat.S_IFCHR}[described[0]]
    bits = "".join("0" if letter == "-" else "1" for letter in described[1:])
    return kind | int(bits, 2)


def laid_out(tree: Tree) -> Tree:
    """Return what is left of a tree that is laid out: plain files, each of which can be read."""
    files = {
        path: Entry(entry.mode, "" if entry.refused else entry.text)
        for path, entry in tree.entries.items()
        if not stat.S_ISCHR(entry.mode)
    }
    return Tree(files, about=tree.about)


def lay_out(tree: Tree, root: Path) -> None:
    """Make a tree below ``root`` with every directory and mode, for ``kernel:root=ROOT``.

    Device nodes and events are left out, and every file can be read.
    """
    for path, entry in tree.entries.items():
        place = root / path
        if entry.is_directory:
            place.mkdir(parents=True, exist_ok=True)
        elif stat.S_ISREG(entry.mode):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(entry.text or "")
            place.chmod(stat.S_IMODE(entry.mode))
