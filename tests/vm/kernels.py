"""Kernels by name, from Debian's archive: downloaded and unpacked, never installed.

Decides: which suite has which kernel; that a kernel once unpacked is used until it is asked to be
fetched again, so that a run needs no network; where the archive is (where this machine's own apt
sources say: no host is named here) and who vouches for it (the keys that those sources name).
May not know: how a guest is booted.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.vm.host import NoGuestError, cache_directory, command, say

SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
"""The kernels that can be booted, and the suite of Debian that has each."""

ROLLING = frozenset({"sid"})
"""Suites that have no ``-security`` beside them."""

PACKAGE = "linux-image-amd64"
"""Depends on the newest kernel of its suite; the *cloud* flavour has no ``dlm.ko``."""

PARTS = ("linux-image-", "linux-binary-", "linux-modules-")
"""Packages that a kernel consists of; which of them there are depends on the suite."""

RELEASES = frozenset(
    {
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
        *("bullseye", "bookworm", "trixie", "forky", "sid"),
    }
)
"""Suites by which Debian's own archive is known among other apt sources."""

APT_SOURCES = Path("/etc/apt")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """An apt source of this machine: URIs, one suite, the keys it is checked with (apt's words)."""

    uris: str
    suite: str
    signed_by: str = ""


# ---- the machine's own apt sources --------------------------------------------------------------


def read_one_line(text: str) -> Iterator[Source]:
    """Yield the sources of a ``.list`` file, one line each: ``deb [options] URI SUITE COMPONENT…``.

    sources.list(5).
    """
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+[^#\s]", line)
        if found:
            options = dict(each.partition("=")[::2] for each in (found[1] or "").split())
            yield Source(found[2], found[3], options.get("signed-by", "").replace(",", " "))


def read_deb822(text: str) -> Iterator[Source]:
    """Yield the sources of a ``.sources`` file: stanzas of fields, a space continues a field.

    sources.list(5). A key may stand in ``Signed-By`` itself, over many lines: it is kept as it is.
    """
    uncommented = "\n".join(each for each in text.splitlines() if not each.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        found = re.findall(r"^([\w-]+):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", stanza, re.MULTILINE)
        fields = {name.lower(): value.strip() for name, value in found}
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in {"no", "false", "0"}:
            continue
        for suite in fields.get("suites", "").split():
            uris = " ".join(fields.get("uris", "").split())
            yield Source(uris, suite, fields.get("signed-by", ""))


def machine_sources(place: Path = APT_SOURCES) -> list[Source]:
    """Return the apt sources of this machine, of both formats."""
    files = [place / "sources.list", *sorted((place / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for each in files:
        read = {".list": read_one_line, ".sources": read_deb822}.get(each.suffix)
        if read and each.is_file():
            found += read(each.read_text())
    return found


def sources_for(suite: str, machine: Iterable[Source]) -> str:
    """Return what apt must be told to see ``suite`` where the machine sees its own suite.

    Of the machine's sources those of Debian count, and of these the suite itself and its
    ``-security``; the text has the format deb822. Raises ``NoGuestError`` when there is none.
    """
    stanzas = {}
    for source in machine:
        base, dash, kind = source.suite.partition("-")
        if base not in RELEASES or kind not in {"", "security"} or (kind and suite in ROLLING):
            continue
        # A key that stands there itself has many lines, and begins on the second.
        keys = source.signed_by and f"Signed-By:\n {source.signed_by}\n"
        stanzas[source.uris, kind] = (
            f"Types: deb\nURIs: {source.uris}\nSuites: {suite}{dash}{kind}\n"
            f"Components: main\nArchitectures: amd64\n{keys}"
        )
    if not any(not kind for _, kind in stanzas):
        raise NoGuestError("no source of Debian among this machine's apt sources: add one")
    return "\n".join(stanzas.values())


# ---- fetching -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Apt:
    """An apt of our own: its lists and caches in ``place``, its sources one suite's."""

    place: Path

    def options(self) -> list[str]:
        """Return the options that make apt look at nothing of this machine but its keys."""
        settings = {
            "Dir::Etc::SourceList": self.place / "suite.sources",
            "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self.place / "lists",
            "Dir::State::Status": self.place / "status",
            "Dir::Cache": self.place / "cache",
            "APT::Architecture": "amd64",
            "APT::Default-Release": "",
            "Acquire::Languages": "none",
        }
        if os.geteuid() == 0:  # apt's own user may not enter our directories
            settings["APT::Sandbox::User"] = "root"
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def update(self, sources: str) -> None:
        """Fetch the lists of packages; apt checks their signature, and refuses without a key."""
        for each in ("lists/partial", "cache/archives/partial"):
            (self.place / each).mkdir(parents=True)
        (self.place / "status").touch()
        (self.place / "suite.sources").write_text(sources)
        try:
            command("apt-get", *self.options(), "update", "-q", "-o", "APT::Update::Error-Mode=any")
        except NoGuestError as error:
            hint = "if it names a missing key: the package debian-archive-keyring has all of them"
            raise NoGuestError(f"{error}\n{hint}") from error

    def depends(self, package: str) -> list[str]:
        """Return the names of the packages that this one depends on."""
        listing = command("apt-cache", *self.options(), "depends", "--important", package)
        return [line.split()[-1] for line in listing.splitlines() if "Depends:" in line]

    def download(self, *packages: str) -> None:
        """Download packages into ``place``, showing how it goes."""
        command("apt-get", *self.options(), "download", *packages, cwd=self.place, shown=True)


def fetch(kernel: str, home: Path) -> Path:
    """Download the newest kernel of a suite, lay it out in ``home``, all of it or nothing."""
    suite = SUITES[kernel]
    say(f"fetching kernel {kernel} of Debian's {suite}")
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".unpacking-") as scratch:
        apt = Apt(Path(scratch))
        apt.update(sources_for(suite, machine_sources()))
        names = [each for each in apt.depends(PACKAGE) if each.startswith(PARTS)]
        if len(names) != 1:
            raise NoGuestError(f"{PACKAGE} of {suite} depends on no one kernel: {names}")
        target = home / names[0]
        if not target.exists():
            parts = [each for each in apt.depends(names[0]) if each.startswith(PARTS)]
            apt.download(*names, *parts)
            say(f"unpacking {names[0]}")
            lay_out(apt.place, target)
    os.utime(target)
    return target


def lay_out(packages: Path, target: Path) -> None:
    """Unpack all packages of a directory and list the modules; the last step names the result."""
    tree = packages / "tree"
    for each in sorted(packages.glob("*.deb")):
        command("dpkg", "-x", each, tree)
    if not (tree / "lib").exists():  # since trixie; virtme wants the modules here
        (tree / "usr" / "lib").rename(tree / "lib")
    for modules in (tree / "lib" / "modules").iterdir():
        command("depmod", "-b", tree, modules.name)
        if not list(modules.rglob("dlm.ko*")):
            raise NoGuestError(f"the kernel {modules.name} has no module dlm")
    try:
        tree.rename(target)
    except OSError:
        if not target.exists():  # else another run was faster
            raise


def require_kernel(kernel: str, *, refresh: bool = False) -> Path:
    """Return the boot image of a kernel, fetched if it is not here, or is wanted afresh.

    Raises ``NoGuestError`` when it cannot be had.
    """
    home = cache_directory() / kernel
    unpacked = sorted(home.glob("linux-image-*"), key=lambda each: each.stat().st_mtime)
    place = fetch(kernel, home) if refresh or not unpacked else unpacked[-1]
    images = [*place.glob("boot/vmlinuz-*"), *place.glob("lib/modules/*/vmlinuz")]
    if not images:
        raise NoGuestError(f"there is no kernel image in {place}: remove that directory")
    return images[0]
