"""Directed traces of all but locks: configfs, sysfs, the hand-shake, the other devices, debugfs.

Decides: which operations are made, in which order.
May not know: their results.

Each of these has a freshly loaded module to itself.
"""

from __future__ import annotations

from collections.abc import Callable

from dlm.abi.address import encode_sockaddr
from dlm.abi.device import Layout
from tests.traces.kit import CLUSTER, EX, HOLE, NL, PR, F, Tape, create, remove, saved

NUMBERS = (
    "1", "1\n", "0x10", "010", "+5", "0", "-1", "", " 1", "1 ", "1\n\n", "x", "0x", "08",
    "4294967295", "4294967296", "99999999999999999999", "+", "1\0", "2\n3",
)  # fmt: skip
"""Texts for attributes that take a number."""

SIGNED = (*NUMBERS, "2147483647", "2147483648", "-2147483648", "-2147483649", "-0", "+-1")

CLUSTER_NUMBERS = (
    "tcp_port", "buffer_size", "rsbtbl_size", "recover_timer", "toss_secs", "scan_secs",
    "log_info", "protocol", "mark", "new_rsb_count", "recover_callbacks", "timewarn_cs",
    "waitwarn_us",
)  # fmt: skip
"""Attributes of a cluster; log_debug is left alone, which would flood the console."""


def configfs(tape: Tape) -> None:
    """1.1, 1.2: the tree: what is there, what can be made and removed."""
    root = "config/dlm"
    tape.list(root)
    tape.mode(root)
    tape.mkdir(CLUSTER, CLUSTER)
    tape.list(root, CLUSTER, f"{CLUSTER}/spaces", f"{CLUSTER}/comms", f"{CLUSTER}/none")
    tape.mode(CLUSTER, f"{CLUSTER}/spaces", f"{CLUSTER}/tcp_port", f"{CLUSTER}/none")
    tape.rmdir(f"{CLUSTER}/spaces", f"{CLUSTER}/comms", f"{CLUSTER}/tcp_port", f"{CLUSTER}/none")
    tape.mkdir(f"{CLUSTER}/other", f"{CLUSTER}/none/deeper", f"{CLUSTER}/tcp_port/deeper")
    comm, space = f"{CLUSTER}/comms/1", f"{CLUSTER}/spaces/test"
    tape.mkdir(comm, comm, f"{comm}/deeper", space, f"{space}/deeper", f"{space}/nodes/1")
    tape.mkdir(f"{space}/nodes/1/deeper", f"{CLUSTER}/comms/one", f"{space}/nodes/one")
    for name in ("0x10", "010", "-1", "4294967296", "+3", "2 ", "2147483648", "0"):
        tape.mkdir(f"{CLUSTER}/comms/{name}", f"{space}/nodes/{name}")
    tape.list(comm, space, f"{space}/nodes", f"{space}/nodes/1", f"{CLUSTER}/comms")
    for name in ("nodeid", "local", "addr", "addr_list", "mark"):
        tape.mode(f"{comm}/{name}")
    for name in ("nodeid", "weight", "release_recover"):
        tape.mode(f"{space}/nodes/1/{name}")
    tape.get(CLUSTER, f"{space}/nodes")
    tape.put(CLUSTER, "1")
    tape.list(f"{comm}/nodeid")
    tape.rmdir(CLUSTER, space, f"{space}/nodes", f"{comm}/nodeid")
    for name in ("1", "one", "0x10", "010", "-1", "4294967296", "+3", "2 ", "2147483648", "0"):
        tape.rmdir(f"{space}/nodes/{name}", f"{CLUSTER}/comms/{name}")
    tape.rmdir(CLUSTER, space)
    tape.mkdir(f"{CLUSTER}/spaces/{'n' * 255}", f"{CLUSTER}/spaces/{'n' * 256}")
    tape.rmdir(f"{CLUSTER}/spaces/{'n' * 255}")
    tape.mkdir(f"{root}/second")
    tape.list(root, f"{root}/second")
    tape.rmdir(f"{root}/second", CLUSTER, CLUSTER)
    tape.list(root)


def cluster_attributes(tape: Tape) -> None:
    """1.3: every attribute of a cluster: defaults, numbers of every spelling, limits, copies."""
    tape.mkdir(CLUSTER)
    for name in CLUSTER_NUMBERS:
        path = f"{CLUSTER}/{name}"
        tape.mode(path)
        tape.get(path)
        for text in NUMBERS:
            if name == "buffer_size" and text.startswith("4294"):
                continue  # such a buffer would be allocated
            tape.put(path, text)
            tape.get(path)
    for name, texts in {
        "tcp_port": ("65535", "65536", "70000", "21064"),
        "buffer_size": ("4095", "4096", "4097", "8192"),
        "protocol": ("2", "1", "0"),
    }.items():
        for text in texts:
            tape.put(f"{CLUSTER}/{name}", text)
            tape.get(f"{CLUSTER}/{name}")
    name = f"{CLUSTER}/cluster_name"
    tape.get(name)
    for text in ("foo\n", "bar", "", "x" * 62, "y" * 63, "z" * 64, "w" * 100, "a\nb\n", "\n"):
        tape.put(name, text)
        tape.get(name)
    tape.put(f"{CLUSTER}/toss_secs", "77")
    tape.put(f"{CLUSTER}/mark", "5")
    tape.mkdir("config/dlm/second")
    tape.get("config/dlm/second/toss_secs", "config/dlm/second/mark")
    tape.put("config/dlm/second/toss_secs", "88")
    tape.get(f"{CLUSTER}/toss_secs", "config/dlm/second/toss_secs")
    tape.rmdir("config/dlm/second", CLUSTER)
    tape.mkdir(CLUSTER)
    tape.get(f"{CLUSTER}/toss_secs", f"{CLUSTER}/mark", f"{CLUSTER}/cluster_name")
    tape.rmdir(CLUSTER)


def comms(tape: Tape) -> None:
    """1.4: the attributes of a comm: numbers, addresses, what is refused."""
    tape.mkdir(CLUSTER)
    comm, other = f"{CLUSTER}/comms/1", f"{CLUSTER}/comms/2"
    tape.mkdir(comm, other)
    tape.get(*(f"{comm}/{name}" for name in ("nodeid", "local", "addr", "addr_list", "mark")))
    tape.put(f"{comm}/mark", "7")
    tape.put(f"{comm}/addr_list", "x")
    for text in SIGNED:
        tape.put(f"{comm}/nodeid", text)
        tape.get(f"{comm}/nodeid")
    tape.put(f"{comm}/nodeid", "1")
    first, second = encode_sockaddr("10.0.0.1"), encode_sockaddr("fe80::1:2")
    for raw in (b"", b"x", first[:16], first[:127], first + b"\0", b"\xff" * 129):
        tape.put(f"{comm}/addr", raw)
        tape.get(f"{comm}/addr_list")
    for raw in (first, first, first[:2] + b"\x52\x48" + first[4:], bytes(128), second, second):
        tape.put(f"{comm}/addr", raw)
        tape.get(f"{comm}/addr_list")
    for number in range(3, 12):
        tape.put(f"{comm}/addr", encode_sockaddr(f"10.0.0.{number}"))
    tape.get(f"{comm}/addr_list")
    for text in (*NUMBERS, "0"):
        tape.put(f"{comm}/mark", text)
        tape.get(f"{comm}/mark")
    tape.put(f"{CLUSTER}/mark", "9")
    tape.get(f"{comm}/mark")
    tape.put(f"{other}/nodeid", "1")
    tape.put(f"{other}/addr", first)
    tape.get(f"{other}/addr_list")
    tape.put(f"{other}/nodeid", "2")
    tape.put(f"{other}/addr", first)
    tape.put(f"{other}/mark", "3")
    tape.get(f"{other}/mark", f"{other}/addr_list")
    for text in SIGNED:
        if text.strip().strip("+0") not in ("", "x"):
            tape.put(f"{other}/local", text)
            tape.get(f"{other}/local", f"{comm}/local")
    for path in (comm, other):
        for text in ("0", "1", "0"):
            tape.put(f"{path}/local", text)
            tape.get(f"{comm}/local", f"{other}/local")
    tape.rmdir(other)
    tape.mkdir(other)
    tape.get(f"{other}/local", f"{other}/addr_list")
    tape.put(f"{comm}/local", "1")
    tape.get(f"{comm}/local")
    tape.rmdir(comm, other, CLUSTER)


def nodes(tape: Tape) -> None:
    """1.5: the attributes of a lockspace's member."""
    tape.configure()
    tape.mkdir(f"{CLUSTER}/spaces/test", f"{CLUSTER}/spaces/test/nodes/1")
    path = f"{CLUSTER}/spaces/test/nodes/1"
    for name in ("nodeid", "weight", "release_recover"):
        tape.get(f"{path}/{name}")
        for text in SIGNED:
            tape.put(f"{path}/{name}", text)
            tape.get(f"{path}/{name}")
    tape.put(f"{path}/nodeid", b"")
    tape.rmdir(path, f"{CLUSTER}/spaces/test", f"{CLUSTER}/comms/1", CLUSTER)


def sysfs(tape: Tape) -> None:
    """2: every file of a lockspace, running and stopped; starts that do nothing."""
    tape.configure()
    fd = tape.up()
    tape.list("dlm", "dlm/test", "dlm/none")
    files = ("control", "event_done", "id", "nodir", "recover_status", "recover_nodeid")
    for name in files:
        tape.mode(f"dlm/test/{name}")
        tape.get(f"dlm/test/{name}")
    for name in ("recover_status", "recover_nodeid", "none"):
        tape.put(f"dlm/test/{name}", "1")
    for text in SIGNED:
        tape.put("dlm/test/id", text)
        tape.get("dlm/test/id")
    for text in ("1", "1\n", "2", "-1", "x", "", " 1", "0x1", "0x2", "4294967296", "2147483648"):
        tape.put("dlm/test/control", text)
        tape.get("dlm/test/recover_status")
    for text in ("0", "0x0\n", "00"):
        tape.put("dlm/test/control", text)
        tape.settle()
        tape.get("dlm/test/recover_status")
        tape.put("dlm/test/control", "1")
        tape.settle()
        tape.get("dlm/test/recover_status", "dlm/test/recover_nodeid")
    tape.stop()
    tape.stop()
    tape.get("dlm/test/recover_status", "dlm/test/recover_nodeid")
    tape.rmdir(f"{CLUSTER}/spaces/test/nodes/1")
    tape.put("dlm/test/control", "1")  # no members
    tape.settle()
    tape.get("dlm/test/recover_status")
    tape.rmdir(f"{CLUSTER}/spaces/test")
    tape.put("dlm/test/control", "1")  # no space
    tape.settle()
    tape.get("dlm/test/recover_status")
    tape.mkdir(f"{CLUSTER}/spaces/test")
    tape.member("test", 1)
    tape.start()
    tape.put(f"{CLUSTER}/tcp_port", "21065")
    tape.put(f"{CLUSTER}/protocol", "1")
    tape.put(f"{CLUSTER}/buffer_size", "4097")
    tape.mkdir("dlm/other")
    tape.rmdir("dlm/test")
    for text in ("0", "2", "-1", "x", "", "1", "0"):
        tape.put("dlm/test/nodir", text)
        tape.get("dlm/test/nodir")
    file = tape.file()
    file.lock(b"a", EX)
    file.results()
    tape.locks()
    file.close()
    tape.down(fd)
    tape.put(f"{CLUSTER}/tcp_port", "21065")
    tape.put(f"{CLUSTER}/tcp_port", "21064")


def handshake(tape: Tape) -> None:
    """3: the events of create and remove, answers early, late, negative, positive."""
    tape.configure()
    fd = tape.up()
    tape.uevents(3)
    tape.mode("dlm/test")
    tape.do("wait", async_=tape.release(fd))
    tape.uevents(4)  # one more than there are
    for answer in ("-5", "-110", "7"):  # refused, refused, a success
        call = tape.begin_create(fd)
        tape.put("dlm/test/event_done", answer)
        tape.settle()
        tape.do("pending", async_=call)
        if answer == "7":
            tape.put("dlm/test/control", "1")
        tape.do("wait", async_=call)
        tape.list("dlm")
    tape.uevents(9)
    for text in ("x", "", "4294967296", "0x"):
        tape.put("dlm/test/event_done", text)
    tape.put("dlm/test/event_done", "-9")  # early: answers the leave
    request = saved(remove(HOLE, 2), "minor")
    tape.do("write", fd=fd, hex=request)
    tape.uevents(4)
    tape.list("dlm")
    call = tape.begin_create(fd)
    tape.put("dlm/test/control", "1")
    tape.settle()
    tape.get("dlm/test/recover_status")
    tape.do("pending", async_=call)
    tape.stop()
    tape.put("dlm/test/event_done", "0")
    tape.do("pending", async_=call)  # its first recovery was interrupted
    tape.list("debug/dlm")
    tape.put("dlm/test/control", "1")
    tape.do("wait", async_=call)
    tape.list("debug/dlm")
    tape.down(fd)


def names(tape: Tape) -> None:
    """2, 3: lockspace names with a slash, of 64 bytes, and of bytes that are no text."""
    tape.configure()
    fd = tape.control()
    for name, directory in (("a/b", "a!b"), ("n" * 64, "n" * 64), (".x", ".x"), ("a b", "a b")):
        call = tape.begin_create(fd, name)
        tape.list("dlm")
        tape.uevents(2)
        tape.put(f"dlm/{directory}/event_done", "-5")
        tape.do("wait", async_=call)
        tape.uevents(2)


def use_count(tape: Tape) -> None:
    """4.4.1, 4.4.2: a second create, NEWEXCL, removes one by one, locks in the way, open files."""
    tape.configure()
    fd = tape.up()
    for flags in (0, 8, 0x8, 0x1, 0x100, 0):
        tape.do("write", fd=fd, hex=create("test", flags).hex(), save="minor")
    remover = saved(remove(HOLE), "minor")
    forced = saved(remove(HOLE, 2), "minor")
    file = tape.file()
    file.lock(b"a", EX)
    for _ in range(4):
        tape.do("write", fd=fd, hex=remover)
    tape.do("write", fd=fd, hex=remover)
    file.unlock(1)
    call = tape.name("remove")
    tape.do("write", fd=fd, hex=remover, async_=call)  # up to 6.9 an unread result is in the way
    if not tape.do("pending", async_=call)["pending"]:
        tape.do("wait", async_=call)
        file.results()
        file.lock(b"a", NL, F.PERSISTENT)
        file.results()
        call = tape.name("remove")
        tape.do("write", fd=fd, hex=forced, async_=call)
    tape.settle()
    tape.list("dlm", "debug/dlm")
    tape.do("open", device="dlm_test", as_="late")
    file.lock(b"b", PR)
    file.results()
    tape.put("dlm/test/event_done", "0")
    tape.do("pending", async_=call)
    tape.get("dlm/test/recover_status")
    file.lock(b"b", PR)
    file.results()
    file.close()
    tape.do("wait", async_=call)
    tape.list("dlm", "debug/dlm")
    tape.do("open", device="dlm_test", as_="late")


def creating(tape: Tape) -> None:
    """4.4.1: what create refuses, step by step, on the way to a node that is set up."""
    fd = tape.control()

    def attempt(name: str | bytes = "test", flags: int = 0) -> None:
        tape.do("write", fd=fd, hex=create(name, flags).hex())

    attempt()
    attempt("", 8)
    tape.mkdir(CLUSTER)
    attempt()
    path = f"{CLUSTER}/comms/1"
    tape.mkdir(path)
    tape.put(f"{path}/nodeid", "1")
    attempt()
    tape.put(f"{path}/local", "1")
    attempt()
    tape.put(f"{path}/addr", encode_sockaddr("10.99.99.99"))
    attempt()
    tape.rmdir(path)
    attempt()
    tape.comm(1, "127.0.0.1", local=True)
    attempt("")
    attempt("n" * 65)
    attempt(b"\0test")
    call = tape.begin_create(fd, "test", 0x10)  # reserved since 6.11; up to then it sleeps
    tape.put("dlm/test/event_done", "-125")
    tape.do("wait", async_=call)
    tape.list("dlm")


def creating_first(tape: Tape) -> None:
    """4.4.1, 4.4: other lengths, versions and commands on dlm-control."""
    tape.configure()
    fd = tape.control()
    whole = create("test")
    for size in (0, 12, 103):
        tape.do("write", fd=fd, hex=whole[:size].hex())
    tape.do("write", fd=fd, hex=whole.ljust(185, b"\0").hex())
    for version in ((5, 0, 0), (6, 1, 0), (7, 0, 2)):
        raw = b"".join(number.to_bytes(4, "little") for number in version) + whole[12:]
        tape.do("write", fd=fd, hex=raw.hex())
    for command in (0, 1, 2, 3, 6, 7, 8, 255):
        raw = whole[:12] + bytes([command]) + whole[13:]
        tape.do("write", fd=fd, hex=raw.hex())
    for minor in (0, 1, 121, 122, 124, 262, 65535, 0xFFFFFFFF):
        tape.do("write", fd=fd, hex=remove(minor).hex())
        tape.do("write", fd=fd, hex=remove(minor, 3).hex())
    for size in (0, 11, 12, 13, 72, 104):
        tape.do("read", fd=fd, size=size)
    tape.do("poll", fd=fd)
    tape.do("ioctl", fd=fd, request="c114d101", hex="00" * 8)
    tape.do("open", device="dlm-control", as_="r", flags=["rdonly"])
    tape.do("write", fd="r", hex=whole.hex())
    tape.do("read", fd="r", size=12)
    tape.do("open", device="dlm-control", as_="w", flags=["wronly"])
    tape.do("read", fd="w", size=12)
    tape.do("open", device="dlm_none", as_="none")
    tape.do("close", fd="w")
    tape.do("close", fd="r")
    tape.do("close", fd=fd)


def compat_create(tape: Tape) -> None:
    """4.3: CREATE in the 32-bit layout, whose name is counted from 104."""
    tape.configure()
    fd = tape.control()
    raw = create("small", layout=Layout.COMPAT32)
    for data, name in ((raw, "small"), (raw[:-1], "small"), (raw[:-3], "sma")):
        tape.mkdir(f"{CLUSTER}/spaces/{name}")
        tape.member(name, 1)
        call = tape.name("create")
        tape.do("write", fd=fd, hex=data.hex(), async_=call, save="minor")
        tape.settle()
        tape.list("dlm")
        tape.join(call, name)
        tape.do("read", fd=fd, size=12)
        tape.down(fd, name)


def mutual_exclusion(tape: Tape) -> None:
    """3: while one lockspace joins or leaves, every other create and remove waits."""
    tape.configure()
    first = tape.up("first")
    for name in ("second", "third"):
        tape.mkdir(f"{CLUSTER}/spaces/{name}")
        tape.member(name, 1)
    calls = {}
    for name in ("second", "third"):
        calls[name] = tape.name("create")
        tape.do("write", fd=first, hex=create(name).hex(), async_=calls[name], save=name)
        tape.settle()
        tape.list("dlm")
    tape.do("pending", async_=calls["second"])
    tape.do("pending", async_=calls["third"])
    tape.join(calls["second"], "second")
    tape.list("dlm")
    tape.do("pending", async_=calls["third"])
    tape.join(calls["third"], "third")
    tape.list("dlm", "debug/dlm")
    for name in ("third", "second"):
        tape.do("wait", async_=tape.release(first, name, saved_as=name))
    tape.down(first, "first")


def monitor(tape: Tape) -> None:
    """4.10: dlm-monitor opened and closed: stops, EUNATCH, a remove without an answer."""
    tape.configure()
    fd = tape.up()
    tape.do("open", device="dlm-monitor", as_="m")
    tape.do("open", device="dlm-monitor", as_="m2")
    for size in (0, 12, 100):
        tape.do("read", fd="m", size=size)
    tape.do("write", fd="m", hex=create("x").hex())
    tape.do("write", fd="m", hex="")
    tape.do("poll", fd="m")
    tape.do("ioctl", fd="m", request="1", hex="00")
    tape.do("close", fd="m")
    tape.get("dlm/test/recover_status")
    tape.do("close", fd="m2")
    tape.get("dlm/test/recover_status")
    tape.do("write", fd=fd, hex=create("other").hex())
    tape.do("write", fd=fd, hex=create("test").hex())
    tape.start()
    file = tape.file()
    file.lock(b"a", PR)
    file.results()
    file.close()
    tape.do("open", device="dlm-monitor", as_="m3")
    tape.do("write", fd=fd, hex=create("test").hex())
    tape.do("write", fd=fd, hex=saved(remove(HOLE), "minor"))
    tape.do("close", fd="m3")
    tape.get("dlm/test/recover_status")
    tape.do("write", fd=fd, hex=saved(remove(HOLE, 2), "minor"))
    tape.list("dlm")
    tape.do("write", fd=fd, hex=create("test").hex())


def plock(tape: Tape) -> None:
    """8: dlm_plock with nothing queued."""
    tape.do("open", device="dlm_plock", as_="p", flags=["rdwr"])
    for size in (0, 12, 63, 64, 65):
        tape.do("read", fd="p", size=size)
    tape.do("poll", fd="p")

    def version(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(4, "little") for number in numbers)

    body = bytes([1, 1, 1, 0]).ljust(52, b"\0")
    for numbers in ((1, 2, 0), (1, 0, 0), (1, 3, 0), (2, 0, 0), (0, 0, 0), (1, 2, 9)):
        tape.do("write", fd="p", hex=(version(*numbers) + body).hex())
    for size in (0, 63, 65):
        tape.do("write", fd="p", hex=(version(1, 2, 0) + body).ljust(65, b"\0")[:size].hex())
    tape.do("ioctl", fd="p", request="1", hex="00")
    tape.do("close", fd="p")
    tape.do("close", fd="p")


def debugfs(tape: Tape) -> None:
    """7: the texts, their headers, modes, and names that are no texts."""
    tape.list("debug/dlm")
    tape.configure()
    fd = tape.up()
    files = ("test", "test_locks", "test_all", "test_toss", "test_waiters")
    tape.list("debug/dlm")
    for name in (*files, "comms", "test_queued_asts"):
        tape.mode(f"debug/dlm/{name}")
    tape.get("debug/dlm/test", "debug/dlm/test_waiters")
    for name in files[1:4]:
        tape.get(f"debug/dlm/{name}", columns=[0])
    tape.get("debug/dlm/test_queued_asts")
    file = tape.file()
    for name in (b"plain", b"with blank", b"\0\1", b"\xff\xfe", b'quo"te', b"x" * 64):
        file.lock(name, PR, F.VALBLK)
        file.lock(name, EX, xid=1 << 40)
        tape.locks()
        tape.everything()
    file.convert(1, NL, F.VALBLK, value=b"value")
    tape.locks()
    tape.everything()
    tape.get("debug/dlm/test_toss", columns=[0])
    tape.put("debug/dlm/test_all", "x")
    tape.get("debug/dlm/none")
    file.close()
    tape.locks()
    tape.get("debug/dlm/test_toss", columns=[0, 2, 3, 4, 5])
    tape.down(fd)


Script = Callable[[Tape], None]

SCRIPTS: dict[str, Script] = {
    "1.2-configfs": configfs,
    "1.3-cluster": cluster_attributes,
    "1.4-comms": comms,
    "1.5-nodes": nodes,
    "2-sysfs": sysfs,
    "3-handshake": handshake,
    "3-exclusion": mutual_exclusion,
    "3-names": names,
    "4.3-compat": compat_create,
    "4.4-control": creating_first,
    "4.4.1-create": creating,
    "4.4.2-use-count": use_count,
    "4.10-monitor": monitor,
    "7-debugfs": debugfs,
    "8-plock": plock,
}
"""The scripts that have a trace of their own."""
