"""An emulated process is a backend, and what it hands out keeps the seam's promises."""

from __future__ import annotations

from dlm.emulator import Cluster
from dlm.ports import Backend, Device, Pending, ReadAttribute, StateDirectory, UeventSource


def parts(cluster: Cluster) -> tuple[Backend, Device, Pending, UeventSource, StateDirectory]:
    """Return one of everything, as the seam types it."""
    process = cluster.node("nodea").process()
    return (
        process,
        process.open_device("dlm-control"),
        process.submit(ReadAttribute("dlm")),
        process.uevents(),
        process.state_directory(),
    )
