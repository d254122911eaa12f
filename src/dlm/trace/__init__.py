"""Traces: operations on a node's kernel with their results, recorded here and replayed there.

A trace is JSON Lines (docs/traces.md). ``load`` reads one, ``Recorder`` and ``record`` make one,
``replay`` does its operations again and compares. All of it works on any backend.
"""

from __future__ import annotations

from dlm.trace.compare import Difference
from dlm.trace.format import Header, Line, Operation, Trace, TraceError, dump, dumps, load, loads
from dlm.trace.running import Recorder, Report, record, replay
from dlm.trace.stage import Machines, Patience, Result

__all__ = [
    "Header",
    "Line",
    "Operation",
    "Result",
    "Trace",
    "TraceError",
    "load",
    "loads",
    "dump",
    "dumps",
    "Machines",
    "Patience",
    "Recorder",
    "record",
    "replay",
    "Report",
    "Difference",
]
