"""What surrounds the locks in a random workload: configfs, sysfs, uevents, the other devices.

Decides: how a node is set up, and which harmless or refused things are done to its files.
May not know: what the results should be.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import Command, LockspaceRequest, encode_request
from tests.workloads.words import BAD_NUMBERS, Line

if TYPE_CHECKING:
    from tests.workloads.onenode import OneNode

Nothing = Generator[Line, Line, None]

CLUSTER = "config/dlm/cluster"
SCRATCH = f"{CLUSTER}/spaces/scratch"

FIRST = "config/dlm/first"

ODD_ADDRESSES = (
    *(encode_sockaddr(each) for each in ("127.0.0.1", "127.0.0.1", "10.77.0.1", "::1")),
    *(bytes([family]).ljust(128, b"\0") for family in (0, 1)),
)
"""Of this machine, of another, of no family and of one that has no TCP."""

HARMLESS = {
    "toss_secs": ("100000", "0x186a0", "+100000", "0303240\n"),
    "scan_secs": ("100000", "0x186a0\n"),
    "buffer_size": ("4096", "0x2000", "4095", "0", "65536\n"),
    "rsbtbl_size": ("1", "16", "1024", "0x400", "0"),
    "recover_timer": ("1", "5", "010", "0", "7\n"),
    "log_debug": ("0", "0x0", "0\n"),
    "log_info": ("0", "1"),
    "protocol": ("0", "2", "-1", "0\n"),
    "tcp_port": ("0", "21064"),
    "mark": ("0", "0x10", "4294967295", "7\n"),
    "new_rsb_count": ("0", "128", "+9"),
    "recover_callbacks": ("0", "1"),
    "cluster_name": ("", "x", "two words\n", "n" * 63, "n" * 64, "n" * 200, "é"),
    "timewarn_cs": ("500", "0"),
    "waitwarn_us": ("0",),
    "nonsense": ("1",),
}
"""Attributes of a cluster, and values that change nothing that a workload could stumble over."""

WEIGHTS = ("0", "1", "7", "-1", "0x10", "2147483647", "2147483648", "x", "1\n", " 1")
NODEIDS = ("2", "3\n", "0x7", "-4", "077", "2147483647", "2147483648", "x", "", "4294967295")
NO_DIRECTORY = ("0", "2", "x", "", "-1", " 1", "1")
"""The last one sets it."""
CONNECTION = ("state", "flags", "send_queue_count", "version")
COMM_NAMES = ("2", "3", "0x4", "007", "x", "-2", "4294967296", "nine lives")


def set_up(world: OneNode) -> Nothing:
    """Configure one node, after a first cluster that comes and goes."""
    rng = world.rng
    yield from world.do("open", device="dlm-control", **{"as": "c"})
    if rng.random() < 0.3:
        yield from world.do("mkdir", path=FIRST)
        for _ in range(rng.choice((1, 3))):
            yield from cluster_attribute(world, FIRST)
        yield from odd_local(world)
        yield from world.do("rmdir", path=FIRST)
    yield from world.do("mkdir", path=CLUSTER)
    for attribute in ("toss_secs", "scan_secs"):
        yield from world.put(f"{CLUSTER}/{attribute}", "100000")
    comm = f"{CLUSTER}/comms/1"
    yield from world.do("mkdir", path=comm)
    yield from world.put(f"{comm}/nodeid", "1")
    if rng.random() < 0.5:
        yield from world.put(f"{comm}/local", "1")
    yield from world.do("put", path=f"{comm}/addr", hex=encode_sockaddr("127.0.0.1").hex())
    yield from world.put(f"{comm}/local", "1\n")
    if rng.random() < 0.4:
        yield from cluster_attribute(world)


def odd_local(world: OneNode) -> Nothing:
    """Create with a local comm that is not quite right; a join that begins is refused."""
    rng = world.rng
    comm, waiting = f"{FIRST}/comms/1", world.fresh("w")
    yield from world.do("mkdir", path=comm)
    steps: list[Line] = [
        {"path": f"{comm}/nodeid", "text": "1"},
        {"path": f"{comm}/addr", "hex": rng.choice(ODD_ADDRESSES).hex()},
        {"path": f"{comm}/local", "text": rng.choice(("1", "2", "-1"))},
    ]
    for step in rng.sample(steps, rng.choice((2, 3, 3, 3))):
        yield from world.do("put", **step)
    request = world.requests.create(b"odd", 0)
    yield from world.do("write", fd="c", hex=request.hex(), **{"async": waiting})
    yield from world.do("settle")
    yield from world.do("list", path="debug/dlm/comms")
    yield from world.put("dlm/odd/event_done", "-5")
    yield from world.do("wait", **{"async": waiting})
    yield from world.do("rmdir", path=comm)
    yield from world.do("list", path="debug/dlm/comms")


def add_member(world: OneNode, lockspace: str) -> Nothing:
    """Name this node as the lockspace's only member."""
    space = f"{CLUSTER}/spaces/{lockspace}"
    yield from world.do("mkdir", path=space)
    yield from world.do("mkdir", path=f"{space}/nodes/1")
    yield from world.put(f"{space}/nodes/1/nodeid", "1")
    if world.rng.random() < 0.2:
        yield from world.put(f"{space}/nodes/1/weight", world.rng.choice(("0", "1", "3")))


def start_without_members(world: OneNode, lockspace: str) -> Nothing:
    """Start a stopped lockspace that has no members, which does nothing; name the member again."""
    nodes = f"{CLUSTER}/spaces/{lockspace}/nodes"
    yield from world.do("rmdir", path=f"{nodes}/1")
    yield from world.put(f"dlm/{lockspace}/control", "1")
    yield from world.do("settle")
    yield from world.get(f"dlm/{lockspace}/recover_status")
    yield from world.do("mkdir", path=f"{nodes}/1")
    yield from world.put(f"{nodes}/1/nodeid", "1")


def start_with_an_absent_member(world: OneNode, lockspace: str) -> Nothing:
    """Start a stopped lockspace with a member that nobody reaches, and stop it again."""
    # Hazard: its connection would hold up the last lockspace's remove; the comm goes before.
    node, absent = f"{CLUSTER}/spaces/{lockspace}/nodes/9", f"{CLUSTER}/comms/9"
    yield from world.do("mkdir", path=absent)
    yield from world.put(f"{absent}/nodeid", "9")
    yield from world.do("put", path=f"{absent}/addr", hex=encode_sockaddr("10.77.0.9").hex())
    yield from world.do("mkdir", path=node)
    yield from world.put(f"{node}/nodeid", "9")
    yield from world.put(f"dlm/{lockspace}/control", "1")
    yield from world.do("settle")
    yield from world.get(f"dlm/{lockspace}/recover_status")
    yield from world.get(f"dlm/{lockspace}/recover_nodeid")
    yield from world.get(f"debug/dlm/comms/9/{world.rng.choice(CONNECTION)}")
    yield from world.put(f"dlm/{lockspace}/control", "0")
    yield from world.do("rmdir", path=node)
    yield from world.do("rmdir", path=absent)
    yield from world.do("list", path="debug/dlm/comms")


# ---- one harmless thing each --------------------------------------------------------------------


def cluster_attribute(world: OneNode, cluster: str = CLUSTER) -> Nothing:
    """Write or read an attribute of a cluster."""
    rng = world.rng
    attribute = rng.choice(tuple(HARMLESS))
    path = f"{cluster}/{attribute}"
    draw = rng.random()
    if draw < 0.4:
        yield from world.put(path, rng.choice(HARMLESS[attribute]))
    elif draw < 0.7:
        yield from world.put(path, rng.choice(BAD_NUMBERS))
    yield from world.get(path)


def comm(world: OneNode) -> Nothing:
    """Make, change or remove a comm of a node that is no member."""
    # Hazard: this node's own id, comm and address stay as they are while lockspaces live by them.
    rng = world.rng
    path = f"{CLUSTER}/comms/{rng.choice(COMM_NAMES)}"
    draw = rng.random()
    if draw < 0.35:
        yield from world.do("mkdir", path=path)
    elif draw < 0.45:
        yield from world.do("rmdir", path=path)
    elif draw < 0.6:
        yield from world.put(f"{path}/nodeid", rng.choice(NODEIDS))
        yield from world.get(f"{path}/nodeid")
    elif draw < 0.75:
        address = encode_sockaddr(rng.choice(("10.0.0.2", "10.0.0.3", "fe80::1:2", "10.0.0.9")))
        if rng.random() < 0.15:  # of another family
            address = rng.choice((b"\x01\0", b"\x0a\0", b"\x02\0")) + address[2:]
        size = rng.choice((128, 128, 128, 127, 16, 0))
        yield from world.do("put", path=f"{path}/addr", hex=address[:size].hex())
        yield from world.get(f"{path}/addr_list")
    elif draw < 0.85:
        yield from world.put(f"{path}/mark", rng.choice(("0", "5", "x", "-1")))
        yield from world.get(f"{path}/mark")
    else:
        yield from world.get(f"{path}/{rng.choice(('addr', 'local', 'addr_list', 'none'))}")


def member(world: OneNode) -> Nothing:
    """Make, change or remove a member of a space that no lockspace belongs to."""
    rng = world.rng
    path = f"{SCRATCH}/nodes/{rng.choice(('1', *COMM_NAMES))}"
    draw = rng.random()
    if draw < 0.2:
        yield from world.do("mkdir", path=SCRATCH)
    elif draw < 0.5:
        yield from world.do("mkdir", path=path)
    elif draw < 0.6:
        yield from world.do("rmdir", path=rng.choice((path, SCRATCH)))
    else:
        attribute = rng.choice(("nodeid", "weight", "release_recover"))
        texts = NODEIDS if attribute == "nodeid" else WEIGHTS
        yield from world.put(f"{path}/{attribute}", rng.choice(texts))
        yield from world.get(f"{path}/{attribute}")


def misplaced(world: OneNode) -> Nothing:
    """Make or remove a directory where there can be none."""
    path = world.rng.choice(
        (
            *(f"{CLUSTER}/more", f"{CLUSTER}/comms", f"{CLUSTER}/spaces", CLUSTER),
            *(f"{CLUSTER}/comms/1/more", f"{CLUSTER}/spaces/t/more", f"{CLUSTER}/spaces/t/nodes"),
            *("config/dlm/none/more", f"{CLUSTER}/tcp_port", "dlm/more", f"{CLUSTER}/spaces/t"),
            *(f"{CLUSTER}/comms/.", f"{CLUSTER}/comms/..", f"{CLUSTER}/./comms/1/more", "debug"),
        )
    )
    yield from world.do(world.rng.choice(("mkdir", "rmdir")), path=path)


def listing(world: OneNode) -> Nothing:
    """List a directory or show a file's mode."""
    rng = world.rng
    files = ("control", "event_done", "id", "nodir", "recover_status", "recover_nodeid")
    paths = (
        *("config/dlm", CLUSTER, f"{CLUSTER}/comms", f"{CLUSTER}/comms/1", f"{CLUSTER}/spaces"),
        *(f"{CLUSTER}/spaces/t", f"{CLUSTER}/spaces/t/nodes", f"{CLUSTER}/spaces/t/nodes/1"),
        *("dlm", "dlm/t", "debug/dlm", "debug/dlm/comms", "dlm/none", SCRATCH, f"{SCRATCH}/nodes"),
        *(f"dlm/t/{each}" for each in files),
        *(f"debug/dlm/t{each}" for each in ("", "_locks", "_all", "_toss", "_waiters")),
        *(f"{CLUSTER}/toss_secs", f"{CLUSTER}/comms/../spaces", "dlm/./t//", "dlm/t/id/"),
    )
    if rng.random() < 0.2:
        yield from world.get(f"debug/dlm/comms/{rng.choice((1, 2, 3))}/{rng.choice(CONNECTION)}")
        return
    yield from world.do(rng.choice(("list", "mode")), path=rng.choice(paths))


def attribute(world: OneNode) -> Nothing:
    """Read or write an attribute of a lockspace that runs."""
    rng = world.rng
    directory = f"dlm/{rng.choice(world.spaces).name}"
    draw = rng.random()
    if draw < 0.3:
        names = ("id", "nodir", "recover_status", "recover_nodeid", "control", "none")
        yield from world.get(f"{directory}/{rng.choice(names)}")
    elif draw < 0.55:
        # A start of what runs does nothing; everything else here is refused.
        yield from world.put(
            f"{directory}/control", rng.choice(("1", "2", "-1", *BAD_NUMBERS[:12]))
        )
    elif draw < 0.75:
        number = rng.choice(("7", "0x10", "4294967295", "4294967296", "-1", *BAD_NUMBERS))
        yield from world.put(f"{directory}/id", number)
        yield from world.get(f"{directory}/id")
    elif draw < 0.85:
        texts = NO_DIRECTORY[:-1] if world.theme.claims_values else NO_DIRECTORY
        yield from world.put(f"{directory}/nodir", rng.choice(texts))
        yield from world.get(f"{directory}/nodir")
    elif draw < 0.95:
        path = f"{directory}/{rng.choice(('recover_status', 'recover_nodeid', 'none'))}"
        yield from world.put(path, "1")
    else:
        yield from world.put(f"{directory}/event_done", rng.choice(("x", "", " 0")))


def control_device(world: OneNode) -> Nothing:
    """Ask dlm-control for what it refuses, or for its version."""
    rng = world.rng
    draw = rng.random()
    if draw < 0.25:
        yield from world.do("read", fd="c", size=rng.choice((12, 12, 0, 11, 13, 72, 104)))
    elif draw < 0.32:
        yield from world.do("poll", fd="c")
    elif draw < 0.35:
        file = rng.choice(("c", rng.choice(world.spaces).files[0].name))
        yield from world.do("ioctl", fd=file, request="c114d101", hex="00" * 8)
    elif draw < 0.7:
        name = rng.choice(world.spaces).name.encode()
        create = world.requests.create(
            *rng.choice(((b"", 0), (b"x" * 65, 0), (name, 8), (name, 9), (b"y" * 70, 4)))
        )
        yield from world.do("write", fd="c", hex=create[:184].hex())
    elif draw < 0.9:
        minor = rng.choice((0, 99_999, 0xFFFFFFFF))
        request = LockspaceRequest(Command.REMOVE_LOCKSPACE, rng.choice((0, 2)), minor)
        yield from world.do("write", fd="c", hex=encode_request(request).hex())
    else:
        yield from world.do("write", fd="c", hex=world.requests.bad(0, control=True).hex())


def other_device(world: OneNode) -> Nothing:
    """Open a device that is not there, or the one for POSIX locks."""
    name = world.fresh("o")
    if world.rng.random() < 0.3:
        yield from world.do("open", device="dlm_none", **{"as": name})
        return
    yield from world.do("open", device="dlm_plock", **{"as": name})
    for _ in range(world.rng.choice((1, 3))):
        draw = world.rng.random()
        if draw < 0.4:
            yield from world.do("read", fd=name, size=world.rng.choice((0, 12, 63, 64, 100)))
        elif draw < 0.5:
            yield from world.do("poll", fd=name)
        else:
            version = world.rng.choice((b"\1\0\0\0\2\0\0\0", b"\1\0\0\0\3\0\0\0", bytes(8)))
            size = world.rng.choice((64, 64, 63, 65, 0))
            yield from world.do("write", fd=name, hex=version.ljust(size, b"\0")[:size].hex())
    yield from world.do("close", fd=name)


ACTIONS: dict[Callable[[OneNode], Nothing], int] = {
    cluster_attribute: 6,
    comm: 5,
    member: 4,
    misplaced: 2,
    listing: 4,
    attribute: 6,
    control_device: 6,
    other_device: 1,
}
"""What is done around the lockspaces, and how often."""
