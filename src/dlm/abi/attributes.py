"""The one table of the DLM's files in configfs and sysfs.

Decides: which attributes exist on which kernel, with which mode, default, format, parse rule and
checks of the value alone. The emulator builds its trees from it, control takes its formats from
it, tests and documents list it.
May not know: what writing an attribute brings about.
Mirrors: fs/dlm/config.c, fs/dlm/lockspace.c, lib/kstrtox.c (Linux 6.1; what differs in 5.10, 6.12
and 7.2 stands in the rows).

Paths are relative to ``/sys/kernel``; ``{…}`` in a pattern stands for one name.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from dlm.abi.address import SOCKADDR_SIZE
from dlm.abi.parse2005 import parse_int, parse_members
from dlm.terms import KERNELS, KernelProfile

# ---- numbers, as the kernel reads them ----------------------------------------------------------

_NUMBER = re.compile(
    rb"(-?)(?:0[xX](?=[0-9a-fA-F])([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))(.*)", re.DOTALL
)
_U64_MAX = (1 << 64) - 1


def parse_signed(text: bytes) -> int:
    """Read a text as kstrtoint() with base 0 does.

    Decimal, ``0x`` hexadecimal or ``0`` octal; one ``+`` or ``-`` before it and one newline behind
    it are fine, anything else is not. Raises ``OSError``: EINVAL, or ERANGE outside 32 bits signed.
    """
    return _parse(text, -(1 << 31), (1 << 31) - 1)


def parse_unsigned(text: bytes, *, bits: int = 32) -> int:
    """Read a text as kstrtouint() (``bits`` 16: kstrtou16()) with base 0 does.

    As ``parse_signed``, but ``-`` is EINVAL and ERANGE comes above the largest unsigned number.
    """
    return _parse(text, 0, (1 << bits) - 1)


def _parse(text: bytes, smallest: int, largest: int) -> int:
    # lib/kstrtox.c: _kstrtoull() reports a number beyond 64 bits before it looks at what follows;
    # the narrower functions compare last.
    text = text.partition(b"\0")[0]
    if text.startswith(b"+"):
        text = text[1:]
        signed = False
    else:
        signed = smallest < 0
    match = _NUMBER.fullmatch(text)
    if match is None or (match[1] and not signed):
        raise OSError(errno.EINVAL, f"{text!r} is not a number")
    minus, hexadecimal, octal, decimal, rest = match.groups()
    digits, base = (hexadecimal, 16) if hexadecimal else (octal, 8) if octal else (decimal, 10)
    digits = digits.lstrip(b"0") or b"0"
    # 22 octal digits hold 64 bits; a page of digits is not worth a conversion.
    if len(digits) > 22 or (number := int(digits, base)) > _U64_MAX:
        raise OSError(errno.ERANGE, f"{text[:40]!r} is too large")
    if rest not in {b"", b"\n"}:
        raise OSError(errno.EINVAL, f"{text!r} is not a number")
    if minus:
        number = -number
    if not smallest <= number <= largest:
        raise OSError(errno.ERANGE, f"{text!r} is out of range")
    return number


# ---- attributes ---------------------------------------------------------------------------------


class Parse(Enum):
    """How a written text is read."""

    SIGNED = "kstrtoint"
    UNSIGNED = "kstrtouint"
    UNSIGNED16 = "kstrtou16"
    TEXT = "text"
    """Kept up to the first NUL, at most 63 bytes, newline and all."""
    ADDRESS = "sockaddr_storage"
    """Exactly 128 bytes."""
    IGNORED = "ignored"
    """Accepted, whatever it says, without effect."""
    LONG = "simple_strtol"
    """2005: never an error; what fits a C int."""
    MEMBERS = "members"
    """2005: node ids, exactly one blank between two."""


Value = int | bytes | tuple[int, ...] | None
"""A parsed value: a number, a text or address, node ids, or None where the text is ignored."""

TEXT_MAX = 63


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row: a file that every directory of its kind has."""

    pattern: str
    """``config/dlm/{cluster}/comms/{comm}/nodeid``."""
    mode: int
    """Permission bits; for root, too, a file without read bits cannot be read (EACCES)."""
    parse: Parse | None
    """How a written text is read; None: cannot be opened for writing."""
    show: str | None
    """The kernel's printf format of a value; None: cannot be opened for reading."""
    default: int | str | None
    """The value that a fresh directory shows; None: nothing to show, or said by the directory's
    name."""
    meaning: str
    """What it is, for people."""
    minimum: int | None = None
    """Smallest value that is accepted, else EINVAL (after the parse)."""
    maximum: int | None = None
    """Largest value that is accepted, else EINVAL (after the parse)."""
    privileged: bool = False
    """A store first needs CAP_SYS_ADMIN, else EPERM."""
    busy_while_running: bool = False
    """EBUSY (after the checks of the value) while the machine has a lockspace."""
    needs: str = ""
    """The field of ``KernelProfile`` that must be true where this row holds ("": none)."""
    lacks: str = ""
    """The field of ``KernelProfile`` that must be false where this row holds ("": none)."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.pattern.rpartition("/")[2]

    @property
    def directory(self) -> str:
        """The pattern of the directory that has it."""
        return self.pattern.rpartition("/")[0]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the kernel profiles on which this row holds."""
        return tuple(name for name, profile in KERNELS.items() if self.exists_on(profile))

    def exists_on(self, profile: KernelProfile) -> bool:
        """Say whether this row holds on a kernel."""
        return (not self.needs or bool(getattr(profile, self.needs))) and not (
            self.lacks and bool(getattr(profile, self.lacks))
        )

    def parse_value(self, text: bytes) -> Value:
        """Read what one write(2) brought and check the value alone.

        Raises ``OSError`` with the kernel's errno: EINVAL, ERANGE. A file that cannot be written
        is EACCES. That configfs answers a write of no bytes with EFAULT is the file system's
        affair, not the attribute's.
        """
        if self.parse is None:
            raise OSError(errno.EACCES, f"{self.name} cannot be written")
        value = _READERS[self.parse](text)
        if isinstance(value, int):
            low = self.minimum is not None and value < self.minimum
            if low or (self.maximum is not None and value > self.maximum):
                raise OSError(errno.EINVAL, f"{value} is not allowed for {self.name}")
        return value

    def show_value(self, value: int | str | bytes) -> bytes:
        """Return what a read gives for a value; EACCES when it cannot be read."""
        if self.show is None:
            raise OSError(errno.EACCES, f"{self.name} cannot be read")
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        return (self.show % value).encode("utf-8", "surrogateescape")


def _text(text: bytes) -> bytes:
    return text.partition(b"\0")[0][:TEXT_MAX]


def _address(text: bytes) -> bytes:
    if len(text) != SOCKADDR_SIZE:
        raise OSError(errno.EINVAL, f"an address has {SOCKADDR_SIZE} bytes, not {len(text)}")
    return text


def _ignored(text: bytes) -> None:
    del text


_READERS: dict[Parse, Callable[[bytes], Value]] = {
    Parse.SIGNED: parse_signed,
    Parse.UNSIGNED: parse_unsigned,
    Parse.UNSIGNED16: lambda text: parse_unsigned(text, bits=16),
    Parse.TEXT: _text,
    Parse.ADDRESS: _address,
    Parse.IGNORED: _ignored,
    Parse.LONG: parse_int,
    Parse.MEMBERS: parse_members,
}

# ---- the table ----------------------------------------------------------------------------------

CLUSTER = "config/dlm/{cluster}"
"""A cluster's directory; the name says nothing, by habit it is "cluster"."""
COMM = "config/dlm/{cluster}/comms/{comm}"
"""A node's address."""
SPACE = "config/dlm/{cluster}/spaces/{lockspace}"
"""A lockspace's members; no attributes, only the directory ``nodes``."""
NODE = "config/dlm/{cluster}/spaces/{lockspace}/nodes/{node}"
"""A member of a lockspace."""
LOCKSPACE = "dlm/{lockspace}"
"""A lockspace of this machine."""

_RW, _RO, _WO = 0o644, 0o444, 0o200


def _cluster(
    name: str,
    default: int,
    meaning: str,
    *,
    parse: Parse = Parse.UNSIGNED,
    minimum: int | None = None,
    maximum: int | None = None,
    busy: bool = False,
    needs: str = "",
    lacks: str = "",
) -> Attribute:
    # Linux 6.1 fs/dlm/config.c, CLUSTER_ATTR and cluster_set(): all alike but for their checks.
    return Attribute(
        f"{CLUSTER}/{name}",
        _RW,
        parse,
        "%u\n",
        default,
        meaning,
        minimum=minimum,
        maximum=maximum,
        privileged=True,
        busy_while_running=busy,
        needs=needs,
        lacks=lacks,
    )


_PORT = "port that every node listens on and connects to"
_OLD_ID = "node id; set it before addr, which is filed under it"
_NEW_ID = "node id, from the directory's name; writing it has no effect"

ATTRIBUTES: tuple[Attribute, ...] = (
    # §1.3 of the kernel's facts: one set for the machine, whatever the cluster's directory
    _cluster("tcp_port", 21064, _PORT, minimum=1, lacks="guards_transport"),
    _cluster(
        "tcp_port",
        21064,
        _PORT,
        minimum=1,
        busy=True,
        needs="guards_transport",
        lacks="shared_cluster_attributes",
    ),
    # 6.13 made the port 16 bits wide in the release that shared the attributes.
    _cluster(
        "tcp_port",
        21064,
        _PORT,
        parse=Parse.UNSIGNED16,
        minimum=1,
        busy=True,
        needs="shared_cluster_attributes",
    ),
    _cluster("buffer_size", 4096, "receive buffer of a connection in bytes", minimum=4096),
    _cluster("rsbtbl_size", 1024, "hash buckets of a new lockspace", minimum=1),
    _cluster("recover_timer", 5, "seconds between looks at a slow recovery", minimum=1),
    _cluster("toss_secs", 10, "seconds that an unused resource is kept", minimum=1),
    _cluster("scan_secs", 5, "seconds between scans for unused resources", minimum=1),
    _cluster("log_debug", 0, "log what helps to debug"),
    _cluster("log_info", 1, "log recoveries at the level info"),
    _cluster("protocol", 0, "0 TCP, else SCTP", lacks="guards_transport"),
    _cluster("protocol", 0, "0 TCP, 1 SCTP", maximum=1, busy=True, needs="guards_transport"),
    _cluster("mark", 0, "socket mark of nodes that are added later"),
    _cluster(
        "timewarn_cs",
        500,
        "warn of a lock that waits longer, in 1/100 s",
        minimum=1,
        needs="deprecated_timeouts",
    ),
    _cluster(
        "waitwarn_us", 0, "warn of a reply that takes longer, in µs", needs="deprecated_timeouts"
    ),
    _cluster("new_rsb_count", 128, "resources that are allocated ahead"),
    _cluster("recover_callbacks", 0, "call kernel users in recovery, check the cluster's name"),
    Attribute(
        f"{CLUSTER}/cluster_name", _RW, Parse.TEXT, "%s\n", "", "name that lockspaces must be of"
    ),
    # §1.4: the address of a node
    Attribute(f"{COMM}/nodeid", _RW, Parse.SIGNED, "%d\n", -1, _OLD_ID, lacks="node_id_from_name"),
    Attribute(
        f"{COMM}/nodeid", _RW, Parse.IGNORED, "%u\n", None, _NEW_ID, needs="node_id_from_name"
    ),
    Attribute(f"{COMM}/local", _RW, Parse.SIGNED, "%d\n", 0, "1: this machine; cannot be undone"),
    Attribute(f"{COMM}/addr", _WO, Parse.ADDRESS, None, None, "one more address of the node"),
    Attribute(f"{COMM}/addr_list", _RO, None, "%s", "", "the addresses, a line each"),
    Attribute(f"{COMM}/mark", _RW, Parse.UNSIGNED, "%u\n", 0, "socket mark; 0: the cluster's mark"),
    # §1.5: a member of a lockspace
    Attribute(
        f"{NODE}/nodeid",
        _RW,
        Parse.SIGNED,
        "%d\n",
        -1,
        "node id; set it when the comm exists",
        lacks="node_id_from_name",
    ),
    Attribute(
        f"{NODE}/nodeid", _RW, Parse.IGNORED, "%u\n", None, _NEW_ID, needs="node_id_from_name"
    ),
    Attribute(f"{NODE}/weight", _RW, Parse.SIGNED, "%d\n", 1, "share of the directory; 0: none"),
    Attribute(
        f"{NODE}/release_recover",
        _RW,
        Parse.UNSIGNED,
        "%u\n",
        0,
        "1: its leaving counts as a failure",
        needs="release_recover",
    ),
    # §2: a lockspace of this machine
    Attribute(
        f"{LOCKSPACE}/control",
        _WO,
        Parse.SIGNED,
        None,
        None,
        "0: stop, 1: start",
        minimum=0,
        maximum=1,
    ),
    Attribute(
        f"{LOCKSPACE}/event_done", _WO, Parse.SIGNED, None, None, "answers a join or a leave"
    ),
    Attribute(f"{LOCKSPACE}/id", _RW, Parse.UNSIGNED, "%u\n", 0, "lockspace id between nodes"),
    Attribute(
        f"{LOCKSPACE}/nodir", _RW, Parse.SIGNED, "%u\n", 0, "1: no directory; cannot be undone"
    ),
    Attribute(
        f"{LOCKSPACE}/recover_status", _RO, None, "%x\n", 0, "the bits of terms.RecoverStatus"
    ),
    Attribute(f"{LOCKSPACE}/recover_nodeid", _RO, None, "%d\n", 0, "node that was asked last"),
)
"""Every attribute on every kernel; where kernels differ, a row for each."""

# By file name and number of path components, so that a look-up compares one or two rows.
_ROWS: dict[tuple[str, int], list[Attribute]] = {}
for _attribute in ATTRIBUTES:
    _ROWS.setdefault((_attribute.name, _attribute.pattern.count("/")), []).append(_attribute)


def find_attribute(path: str, profile: KernelProfile) -> tuple[Attribute, dict[str, str]] | None:
    """Return the attribute of a path on a kernel, with what its pattern captured, or None.

    ``config/dlm/cluster/comms/1/nodeid`` gives ``{"cluster": "cluster", "comm": "1"}``. That the
    directories exist is not asked.
    """
    parts = path.split("/")
    for attribute in _ROWS.get((parts[-1], len(parts) - 1), ()):
        if attribute.exists_on(profile):
            fields = _match(attribute.pattern, parts)
            if fields is not None:
                return attribute, fields
    return None


def _match(pattern: str, parts: list[str]) -> dict[str, str] | None:
    fields: dict[str, str] = {}
    for expected, part in zip(pattern.split("/"), parts, strict=True):
        if expected.startswith("{"):
            fields[expected[1:-1]] = part
        elif expected != part:
            return None
    return fields


@lru_cache
def attributes_of(directory: str, profile: KernelProfile) -> tuple[Attribute, ...]:
    """Return the attributes of a kind of directory on a kernel, in the table's order.

    ``directory`` is ``CLUSTER``, ``COMM``, ``NODE`` or ``LOCKSPACE``.
    """
    return tuple(
        attribute
        for attribute in ATTRIBUTES
        if attribute.directory == directory and attribute.exists_on(profile)
    )
