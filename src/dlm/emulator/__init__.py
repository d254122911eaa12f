"""A DLM in one process: nodes, their kernels' interfaces, a network, a clock.

Decides: what a program sees that talks to an emulated node. May not know: the rules of the lock
manager (dlm.core), byte offsets and text formats (dlm.abi), what programs are for.

================  ==============================================================
``cluster``       who is in it; power, network and time from outside
``scheduler``     the virtual clock, chance, the order of events, the trace
``network``       connections by address, and the reliable layer above them
``node``          a machine, and one life of its kernel
``process``       one process on it: the backend that programs are given
``tree``          directories and files, as path calls meet them
``module``        the DLM module: create, remove, what all lockspaces share
``configfs``      config/dlm
``sysfs``         dlm/<lockspace>
``misc``          dlm-control, dlm-monitor, dlm_plock, dlm_<lockspace>
``debugfs``       debug/dlm
``module2005``    2005: the module
``node_ioctl``    2005: dlm-node, node addresses
``sysfs2005``     2005: dlm/<lockspace>
``event``         2005: a lockspace of April, with event numbers
``members``       2005: a lockspace of July, with a list of members
``device2005``    2005: dlm-control, dlm_<lockspace>
``space``         one lockspace: between dlm.core and all of these
``pending``       calls that sleep, and what wakes them
``uevents``       kernel events
``state``         the control module's small directory
``invariants``    what must hold in every cluster at every moment
``brief``         values as short texts, for the trace
``aio``           an asyncio event loop on virtual time
``realtime``      the virtual clock in step with a real one
================  ==============================================================
"""

from __future__ import annotations

from dlm.emulator.cluster import Cluster
from dlm.emulator.node import Node

__all__ = ["Cluster", "Node"]
