"""The harness itself: guests that see each other, whose power can be cut, whose kernels answer."""

from __future__ import annotations

import pytest

import dlm
from tests.vm.guests import Guest
from tests.vm.link import CommandTimeoutError, NoPowerError


def test_guests_live_apart(guests: list[Guest]) -> None:
    """They see each other, run commands side by side, and one without power hurts no other."""
    nodea, nodeb, nodec = guests
    for each in guests:
        for other in guests:
            each.run(f"ping -c 1 -W 10 {other.address}", check=True)
    done = nodea.run("echo out; echo err >&2; uname -n; exit 7")
    assert (done.stdout, done.stderr, done.code) == ("out\nnodea\n", "err\n", 7)

    sleeper = nodea.start("sleep 1000")
    with pytest.raises(CommandTimeoutError):
        nodea.run("echo begun; sleep 1000", timeout=2)
    assert nodea.run("pgrep -c sleep").stdout == "1\n"

    nodea.power_cut()
    with pytest.raises(NoPowerError):
        sleeper.wait()
    with pytest.raises(NoPowerError):
        nodea.run("true")
    assert nodeb.run(f"ping -c 1 -W 2 {nodea.address}").code == 1
    nodeb.run(f"ping -c 1 -W 10 {nodec.address}", check=True)
    nodea.boot()
    nodeb.run(f"ping -c 1 -W 10 {nodea.address}", check=True)


def test_a_kernel_is_called_from_outside(guests: list[Guest]) -> None:
    """Any number of processes of a guest at a time; one that ends leaves the others alone."""
    nodea = guests[0]
    with nodea.backend() as first, nodea.backend() as second:
        assert first.process_id() != second.process_id()
        assert "dlm-control" in first.misc_devices()
        first.make_directory("/sys/kernel/config/dlm/cluster")
        first.close()
        assert "comms" in second.list_directory("/sys/kernel/config/dlm/cluster")
    serving = nodea.start(
        "exec dlm_tool serve /dev/virtio-ports/dlm.line --backend kernel", quiet=True
    )
    serving.wait_for("serving")
    backend = dlm.connect(f"remote:{nodea.line}")
    assert "comms" in backend.list_directory("/sys/kernel/config/dlm/cluster")
    backend.close()
