"""The harness itself: guests that see each other, whose power can be cut, whose kernels answer."""

from __future__ import annotations

import pytest

import dlm
from tests.vm.guests import Guest
from tests.vm.link import CommandTimeoutError, NoPowerError

CLUSTER = "config/dlm/cluster"


def test_guests_do_what_they_are_asked(guests: list[Guest]) -> None:
    """Commands and calls from outside, side by side; a guest without power hurts no other."""
    see_each_other(guests)
    commands_run_side_by_side(guests[0])
    the_kernel_is_called_from_outside(guests[0])
    power_is_cut(*guests)


def see_each_other(guests: list[Guest]) -> None:
    """Each guest reaches each other one."""
    for each in guests:
        for other in guests:
            each.run(f"busybox ping -c 1 -W 10 {other.address}", check=True)


def commands_run_side_by_side(node: Guest) -> None:
    """Output and code are a command's own; one that is too slow is killed, and holds up nobody."""
    done = node.run("echo out; echo err >&2; uname -n; exit 7")
    assert (done.stdout, done.stderr, done.code) == (f"out\n{node.name}\n", "err\n", 7)
    sleeper = node.start("echo begun; exec sleep 1000")
    sleeper.wait_for("begun")
    with pytest.raises(CommandTimeoutError):
        node.run("sleep 1000 & sleep 1000", timeout=2)
    assert node.run("pgrep -xc sleep").stdout == "1\n"
    sleeper.kill()
    assert sleeper.wait().code == -9


def the_kernel_is_called_from_outside(node: Guest) -> None:
    """Any number of processes of a guest at a time; one that ends leaves the others alone."""
    with node.backend() as first, node.backend() as second:
        assert first.process_id() != second.process_id()
        assert "dlm-control" in first.misc_devices()
        first.make_directory(CLUSTER)
        first.close()
        assert "comms" in second.list_directory(CLUSTER)
    # The same straight over a serial port, which carries one client at a time.
    port = "/dev/virtio-ports/dlm.line"
    serving = node.start(f"exec dlm_tool serve {port} --backend kernel", quiet=True)
    serving.wait_for("serving")
    for _ in range(2):
        backend = dlm.connect(f"remote:{node.line}")
        assert "comms" in backend.list_directory(CLUSTER)
        backend.close()
    serving.kill()


def power_is_cut(nodea: Guest, nodeb: Guest, nodec: Guest) -> None:
    """Who waits for it is told, the others do not notice, and it boots with nothing configured."""
    sleeper = nodea.start("sleep 1000")
    nodea.power_cut()
    with pytest.raises(NoPowerError):
        sleeper.wait()
    with pytest.raises(NoPowerError):
        nodea.run("true")
    assert nodeb.run(f"busybox ping -c 1 -W 2 {nodea.address}").code == 1
    nodeb.run(f"busybox ping -c 1 -W 10 {nodec.address}", check=True)
    nodea.boot()
    nodeb.run(f"busybox ping -c 1 -W 10 {nodea.address}", check=True)
    with nodea.backend() as backend:
        assert backend.list_directory("config/dlm") == []
