"""The attributes of a cluster directory: defaults, texts, refusals, and how long a value lives.

Linux 6.1 fs/dlm/config.c, lib/kstrtox.c, fs/configfs/file.c.
"""

from __future__ import annotations

import errno

import pytest

from dlm.terms import KernelProfile
from tests.contract.machine import CLUSTER, Lockspace, Machine, refused
from tests.contract.worlds import CLUSTER_DEFAULTS, TIMEOUT_DEFAULTS, World

NUMBERS = sorted(set(CLUSTER_DEFAULTS) - {"cluster_name"})

NEVER_ZERO = ["tcp_port", "rsbtbl_size", "recover_timer", "toss_secs", "scan_secs"]


@pytest.fixture(autouse=True)
def cluster(machine: Machine) -> None:
    """A cluster directory, and nothing else."""
    machine.mkdir(CLUSTER)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.row(f"1.3 {name}")) for name in CLUSTER_DEFAULTS]
)
def test_default_and_mode(machine: Machine, name: str) -> None:
    """Each attribute reads its default and a newline, and is 0644."""
    assert machine.read(f"{CLUSTER}/{name}") == CLUSTER_DEFAULTS[name] + "\n"
    assert machine.permissions(f"{CLUSTER}/{name}") == 0o644


@pytest.mark.row("1.3 timewarn_cs")
@pytest.mark.profile(deprecated_timeouts=True)
@pytest.mark.parametrize("name", list(TIMEOUT_DEFAULTS))
def test_deprecated_timeouts(machine: Machine, name: str) -> None:
    """Where timeouts are built in, two more numbers are like the others; only one may be 0."""
    path = f"{CLUSTER}/{name}"
    assert machine.read(path) == TIMEOUT_DEFAULTS[name] + "\n"
    assert machine.permissions(path) == 0o644

    machine.write(path, "77\n")

    assert machine.read(path) == "77\n"
    if name == "timewarn_cs":
        with refused(errno.EINVAL):
            machine.write(path, "0")
    else:
        machine.write(path, "0")


@pytest.mark.row("1.3 parse rule")
@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("7", "7"),
        ("7\n", "7"),
        ("+7", "7"),
        ("0x1F", "31"),
        ("0X1f\n", "31"),
        ("017", "15"),
        ("+0x10", "16"),
        ("4294967295", "4294967295"),
        ("00", "0"),
        ("7\0garbage", "7"),
        ("7\n\0", "7"),
    ],
)
def test_numbers_taken(machine: Machine, text: str, reads: str) -> None:
    """Decimal, hexadecimal and octal texts, a plus and one newline are taken; all bytes count."""
    assert machine.write(f"{CLUSTER}/log_debug", text) == len(text)

    assert machine.read(f"{CLUSTER}/log_debug") == reads + "\n"


@pytest.mark.row("1.3 parse rule")
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("\n", errno.EINVAL),
        (" 7", errno.EINVAL),
        ("7 ", errno.EINVAL),
        ("7\n\n", errno.EINVAL),
        ("\n7", errno.EINVAL),
        ("-1", errno.EINVAL),
        ("-0", errno.EINVAL),
        ("++7", errno.EINVAL),
        ("+", errno.EINVAL),
        ("x", errno.EINVAL),
        ("0x", errno.EINVAL),
        ("0xg", errno.EINVAL),
        ("08", errno.EINVAL),
        ("0b1", errno.EINVAL),
        ("0o7", errno.EINVAL),
        ("7 8", errno.EINVAL),
        ("1_0", errno.EINVAL),
        ("7.0", errno.EINVAL),
        ("\0", errno.EINVAL),
        ("٣", errno.EINVAL),
        ("4294967296", errno.ERANGE),
        ("0x100000000", errno.ERANGE),
        ("18446744073709551616", errno.ERANGE),
        ("99999999999999999999x", errno.ERANGE),
    ],
)
def test_numbers_refused(machine: Machine, text: str, number: int) -> None:
    """Blanks, signs, two newlines and rubbish are EINVAL, too large is ERANGE; nothing changes."""
    with refused(number):
        machine.write(f"{CLUSTER}/log_debug", text)

    assert machine.read(f"{CLUSTER}/log_debug") == "0\n"


@pytest.mark.row("1.3 zero-byte write")
@pytest.mark.parametrize("name", ["log_debug", "cluster_name"])
def test_zero_byte_write(machine: Machine, profile: KernelProfile, name: str) -> None:
    """A write of no bytes is EFAULT in configfs; in 5.10 it is nothing."""
    machine.writes_nothing(f"{CLUSTER}/{name}", profile)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.row(f"1.3 {name}")) for name in NUMBERS]
)
def test_number_stored(machine: Machine, name: str) -> None:
    """A number within the attribute's limits reads back."""
    value = {"protocol": "1", "tcp_port": "65535"}.get(name, "70000")

    assert machine.write(f"{CLUSTER}/{name}", value + "\n") == len(value) + 1

    assert machine.read(f"{CLUSTER}/{name}") == value + "\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((pytest.param(name, "0", marks=pytest.mark.row(f"1.3 {name}"))) for name in NEVER_ZERO),
        pytest.param("buffer_size", "0", marks=pytest.mark.row("1.3 buffer_size")),
        pytest.param("buffer_size", "4095", marks=pytest.mark.row("1.3 buffer_size")),
    ],
)
def test_number_out_of_limits(machine: Machine, name: str, value: str) -> None:
    """A number outside of the attribute's limits is EINVAL and changes nothing."""
    with refused(errno.EINVAL):
        machine.write(f"{CLUSTER}/{name}", value)

    assert machine.read(f"{CLUSTER}/{name}") == CLUSTER_DEFAULTS[name] + "\n"


@pytest.mark.row("1.3 protocol")
def test_unknown_protocol(machine: Machine, profile: KernelProfile) -> None:
    """A protocol above 1 is EINVAL; 5.10 takes any number."""
    path = f"{CLUSTER}/protocol"
    if profile.guards_transport:
        with refused(errno.EINVAL):
            machine.write(path, "2")
        assert machine.read(path) == "0\n"
    else:
        machine.write(path, "2")
        assert machine.read(path) == "2\n"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.row(f"1.3 {name}"))
        for name in ("log_debug", "log_info", "mark", "new_rsb_count", "recover_callbacks")
    ],
)
def test_zero_is_fine_where_nothing_is_checked(machine: Machine, name: str) -> None:
    """Zero is taken by the attributes that have no check of their own."""
    machine.write(f"{CLUSTER}/{name}", "9")

    machine.write(f"{CLUSTER}/{name}", "0")

    assert machine.read(f"{CLUSTER}/{name}") == "0\n"


@pytest.mark.row("1.3 capability")
@pytest.mark.parametrize("text", ["1", "rubbish"])
def test_numbers_need_a_capability(world: World, text: str) -> None:
    """A number is stored only for CAP_SYS_ADMIN; EPERM comes before any look at the text."""
    with world.unprivileged() as backend, refused(errno.EPERM):
        backend.write_attribute(f"{CLUSTER}/log_debug", text.encode())


@pytest.mark.row("1.3 cluster_name")
def test_cluster_name_needs_no_capability(world: World, machine: Machine) -> None:
    """cluster_name is stored for anybody who may open it."""
    with world.unprivileged() as backend:
        assert backend.write_attribute(f"{CLUSTER}/cluster_name", b"foo") == 3

    assert machine.read(f"{CLUSTER}/cluster_name") == "foo\n"


@pytest.mark.row("1.3 cluster_name")
@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("foo", "foo\n"),
        ("foo\n", "foo\n\n"),
        (" a b ", " a b \n"),
        ("n" * 63, "n" * 63 + "\n"),
        ("n" * 64, "n" * 63 + "\n"),
        ("n" * 80 + "\n", "n" * 63 + "\n"),
        ("foo\0bar", "foo\n"),
        ("ä", "ä\n"),
    ],
)
def test_cluster_name_is_kept_verbatim(machine: Machine, text: str, reads: str) -> None:
    """The text is kept with its newline and cut to 63 bytes; a read adds a newline."""
    assert machine.write(f"{CLUSTER}/cluster_name", text) == len(text.encode())

    assert machine.read(f"{CLUSTER}/cluster_name") == reads


@pytest.mark.row("1.3 values outlive the directory")
def test_values_outlive_the_directory(machine: Machine) -> None:
    """Values belong to the module: a cluster removed and made again shows them."""
    machine.write(f"{CLUSTER}/toss_secs", "77")
    machine.write(f"{CLUSTER}/cluster_name", "foo")
    machine.rmdir(CLUSTER)

    machine.mkdir(CLUSTER)

    assert machine.read(f"{CLUSTER}/toss_secs") == "77\n"
    assert machine.read(f"{CLUSTER}/cluster_name") == "foo\n"


@pytest.mark.row("1.3 copy per directory")
@pytest.mark.profile(shared_cluster_attributes=False)
def test_each_directory_shows_its_own_copy(machine: Machine) -> None:
    """A directory copies the module's values when it is made; later stores elsewhere miss it."""
    machine.mkdir("config/dlm/other")

    machine.write(f"{CLUSTER}/toss_secs", "77")
    machine.mkdir("config/dlm/third")

    assert machine.read("config/dlm/other/toss_secs") == "10\n"
    assert machine.read("config/dlm/third/toss_secs") == "77\n"


@pytest.mark.row("1.3 shared value")
@pytest.mark.profile(shared_cluster_attributes=True)
def test_directories_show_one_value(machine: Machine) -> None:
    """There is one value, mark too: every directory shows what was stored through any of them."""
    machine.mkdir("config/dlm/other")

    machine.write(f"{CLUSTER}/toss_secs", "77")
    machine.write(f"{CLUSTER}/mark", "5")
    machine.rmdir(CLUSTER)
    machine.mkdir(CLUSTER)

    for cluster in (CLUSTER, "config/dlm/other"):
        assert machine.read(f"{cluster}/toss_secs") == "77\n"
        assert machine.read(f"{cluster}/mark") == "5\n"


@pytest.mark.row("1.3 copy per directory")
@pytest.mark.profile(shared_cluster_attributes=False)
def test_mark_of_a_cluster_made_again(machine: Machine, profile: KernelProfile) -> None:
    """Mark alone is not copied: a cluster made again shows 0, while the module keeps its value."""
    machine.write(f"{CLUSTER}/mark", "5")
    machine.rmdir(CLUSTER)

    machine.mkdir(CLUSTER)

    assert machine.read(f"{CLUSTER}/mark") == "0\n"
    comm = machine.add_comm(2, "10.0.0.2")
    machine.write(f"{comm}/mark", "0")
    assert machine.read(f"{comm}/mark") == ("5\n" if profile.mark_follows_address else "0\n")


@pytest.mark.row("1.3 running")
@pytest.mark.profile(guards_transport=False)
@pytest.mark.parametrize("name", ["tcp_port", "protocol"])
def test_never_busy(machine: Machine, name: str) -> None:
    """In 5.10 port and protocol can be stored while a lockspace exists."""
    machine.add_comm(1, machine.address, local=True)
    machine.create()

    machine.write(f"{CLUSTER}/{name}", "1")

    assert machine.read(f"{CLUSTER}/{name}") == "1\n"


@pytest.mark.row("1.3 running")
@pytest.mark.profile(guards_transport=True)
@pytest.mark.parametrize("name", ["tcp_port", "protocol"])
def test_busy_from_first_create_to_last_remove(machine: Machine, name: str) -> None:
    """Port and protocol are EBUSY while a lockspace exists; other numbers are not."""
    path = f"{CLUSTER}/{name}"
    value = CLUSTER_DEFAULTS[name]
    machine.write(path, value)
    machine.add_comm(1, machine.address, local=True)
    first = machine.create("first")
    second = machine.create("second")

    for lockspace in (first, second):
        with refused(errno.EBUSY):
            machine.write(path, value)
        machine.write(f"{CLUSTER}/buffer_size", "8192")
        assert lockspace.remove() == 0

    machine.write(path, value)


@pytest.mark.row("1.3 running")
@pytest.mark.profile(guards_transport=True)
@pytest.mark.parametrize(
    ("name", "text"), [("tcp_port", "0"), ("tcp_port", "x"), ("protocol", "2"), ("protocol", "x")]
)
def test_text_is_looked_at_before_busy(machine: Machine, name: str, text: str) -> None:
    """A text that is wrong in itself is EINVAL also while the value is busy."""
    machine.add_comm(1, machine.address, local=True)
    machine.create()

    with refused(errno.EINVAL):
        machine.write(f"{CLUSTER}/{name}", text)


@pytest.mark.row("1.3 running", "4.4.1 failed create stops the comms")
@pytest.mark.profile(guards_transport=True)
def test_failed_create_is_not_running(machine: Machine) -> None:
    """When the only create fails, the port is free to change again."""
    machine.add_comm(1, machine.address, local=True)
    lockspace, pending = machine.begin_create()
    with refused(errno.EBUSY):
        machine.write(f"{CLUSTER}/tcp_port", "21064")
    lockspace.write("event_done", "-5")
    with refused(errno.EIO):
        machine.result(pending)

    machine.write(f"{CLUSTER}/tcp_port", "21064")


@pytest.mark.row("1.3 toss_secs", "1.3 scan_secs")
def test_unused_resources_are_kept_for_a_while(machine: Machine, profile: KernelProfile) -> None:
    """A resource without locks is tossed, and is gone some toss_secs and a scan later."""
    machine.write(f"{CLUSTER}/toss_secs", "1")
    machine.write(f"{CLUSTER}/scan_secs", "1")
    machine.add_comm(1, machine.address, local=True)
    lockspace: Lockspace = machine.create()
    file = lockspace.open()
    file.unlock(file.granted(b"short-lived", 5))
    if profile.ids_free_when_read:  # the ended lock, and with it the resource, until it is read
        assert machine.read("debug/dlm/test_toss") == ""

    file.results()

    assert "short-lived" in machine.read("debug/dlm/test_toss")
    machine.eventually(lambda: machine.read("debug/dlm/test_toss") == "", "the end of a resource")


@pytest.mark.row("1.3 scan_secs")
def test_what_scan_secs_is_for(machine: Machine, profile: KernelProfile) -> None:
    """Unused resources go when the scan comes; since 6.10 each when it is due, and none scans."""
    machine.write(f"{CLUSTER}/toss_secs", "1")
    machine.write(f"{CLUSTER}/scan_secs", "600")
    machine.add_comm(1, machine.address, local=True)
    file = machine.create().open()
    file.unlock(file.granted(b"short-lived", 5))
    file.results()

    machine.backend.pause(3.0)

    kept = "short-lived" in machine.read("debug/dlm/test_toss")
    assert kept == profile.scans_periodically


@pytest.mark.row("1.3 tcp_port")
@pytest.mark.profile(shared_cluster_attributes=True)
@pytest.mark.parametrize("text", ["65536", "70000"])
def test_port_of_16_bits(machine: Machine, text: str) -> None:
    """A port above 65535 is ERANGE since 6.13."""
    with refused(errno.ERANGE):
        machine.write(f"{CLUSTER}/tcp_port", text)


@pytest.mark.row("1.3 tcp_port")
@pytest.mark.profile(shared_cluster_attributes=False)
def test_port_of_the_listening_socket(machine: Machine) -> None:
    """Up to 6.12 a port above 65535 is taken; what is bound then is its lower 16 bits."""
    machine.write(f"{CLUSTER}/tcp_port", str(65536 + 21065))
    machine.add_comm(1, machine.address, local=True)

    lockspace = machine.create()

    assert lockspace.read("recover_status") == "ff\n"


@pytest.mark.row("1.3 capability")
@pytest.mark.parametrize("name", ["log_debug", "cluster_name"])
def test_attributes_are_roots_to_write(world: World, name: str) -> None:
    """Somebody who is not root reads the attributes, and cannot open them to write."""
    with world.ordinary_user() as backend:
        assert backend.read_attribute(f"{CLUSTER}/{name}").endswith(b"\n")
        with refused(errno.EACCES):
            backend.write_attribute(f"{CLUSTER}/{name}", b"1")
