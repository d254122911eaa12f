"""Small texts of the kernel: /proc/misc, uevents, the names and ids of lockspaces.

Decides: their formats.
May not know: who reads them and when.
Mirrors: misc_seq_show() of drivers/char/misc.c, lib/kobject_uevent.c, kobject_set_name() of
lib/kobject.c; dlm_controld's global ids.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from dlm.ports import Uevent


def parse_misc(text: bytes | str) -> dict[str, int]:
    """Return the misc devices and their minors, in the file's order."""
    minors: dict[str, int] = {}
    for line in _text(text).splitlines():
        minor, _, name = line.strip().partition(" ")
        minors[name] = int(minor)
    return minors


def format_misc(minors: Mapping[str, int]) -> str:
    """Return /proc/misc: a line ``%3d name`` per device, in the mapping's order."""
    return "".join(f"{minor:3d} {name}\n" for name, minor in minors.items())


def parse_uevent(datagram: bytes) -> Uevent:
    """Read one datagram of the kernel's uevent group: header, then ``KEY=value``, NUL ended.

    Raises ``ValueError`` for anything else, such as udev's own messages.
    """
    header, *pairs = _text(datagram).rstrip("\0").split("\0")
    if "@" not in header:
        raise ValueError(f"no kernel event: {datagram[:40]!r}")
    return Uevent(
        header, tuple((key, value) for key, _, value in (p.partition("=") for p in pairs))
    )


def format_uevent(event: Uevent) -> bytes:
    """Return the datagram that the kernel would send."""
    lines = [event.header, *(f"{key}={value}" for key, value in event.env)]
    return "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")


def directory_name(lockspace: str) -> str:
    """Return the name of the lockspace's directory under ``dlm/``; ``/`` becomes ``!``.

    DEVPATH of its uevents has the same form, LOCKSPACE the real name.
    """
    return lockspace.replace("/", "!")


def global_id(name: str) -> int:
    """Return the id that dlm_controld gives a lockspace: crc32 of ``dlm:ls:<name>`` and a NUL."""
    return zlib.crc32(b"dlm:ls:" + name.encode("utf-8", "surrogateescape") + b"\0")


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
