"""Errors as sentences for a person, and the exit code of each: the one place that makes them.

Decides: the words, the advice, the exit codes.
May not know: how an error came about.

A sentence is one line: what was tried, on what, what the kernel said, what to do.
"""

from __future__ import annotations

import errno
from enum import IntEnum

from dlm.control.reasons import CheckError, Reason
from dlm.errors import (
    ControlledError,
    DlmError,
    NoDlmError,
    RefusedError,
    StalledError,
    TimedOutError,
    UsageError,
    errno_name,
)


class ExitCode(IntEnum):
    """What the tool's exit code says."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    TIMED_OUT = 3
    NO_DLM = 4
    INTERRUPTED = 130


_SET_FIRST = (
    "first say which node this is (dlm_tool set_local <nodeid> <ipaddr>) and where every node is "
    "(dlm_tool set_node ...); a node that was restarted has lost both"
)

ADVICE = {
    Reason.NO_LOCKSPACE: "create it (dlm_tool create), or look at dlm_tool ls",
    Reason.NO_LOCAL_NODE: _SET_FIRST,
    Reason.OTHER_LOCAL_NODE: "use that number: it stays until the module is loaded again",
    Reason.NODE_NOT_SET: "say where it is: dlm_tool set_node <nodeid> <ipaddr>",
    Reason.NODE_IN_USE: "stop that lockspace first, or release it",
    Reason.NOT_A_MEMBER: "add it, or release the lockspace here",
    Reason.NOT_STOPPED: "stop it first: dlm_tool stop",
    Reason.NUMBER_NOT_ABOVE: "",
    Reason.NUMBER_NOT_LAST: "",
    Reason.NOT_DONE: "wait for it: dlm_tool poll_done",
    Reason.NOTHING_WAITS: "terminate is for a create or release that waits",
    Reason.NOT_SHOWN: "--force answers all the same, or what comes next",
    Reason.ANSWERED: "look at dlm_tool ls for what it waits for now",
    Reason.MAYBE_ANSWERED: "give the start again, or use --force",
    Reason.LEAVES: "wait until it has gone, or let it go: dlm_tool terminate",
    Reason.JOINS: "start it, or end the join: dlm_tool terminate",
    Reason.RUNS: "stop it first: dlm_tool stop",
    Reason.ID_TAKEN: "every lockspace needs its own",
    Reason.NO_LOCK: "the ids are in /sys/kernel/debug/dlm/<ls_name>_locks, in hexadecimal",
    Reason.NOT_SUPPORTED: "",
    Reason.TOO_MANY_ADDRESSES: "name one",
    Reason.LOCK_OWNED: "let that process do it, or use --force",
}
"""What to do about each reason of a check."""

_NO_SUCH_LOCK = "there is no such lock of this node"

_AFRESH = (
    "rmdir /sys/kernel/config/dlm/cluster/{spaces/*/nodes/*,spaces/*,comms/*,} 2>/dev/null; "
    "modprobe -r dlm; modprobe dlm"
)

KERNEL_ADVICE = {
    ("create", errno.ENOTCONN): _SET_FIRST,
    ("create", errno.EUNATCH): "dlm-monitor was open and is closed, for its holder has gone: start "
    "that controller again, or release all lockspaces and load the module afresh: " + _AFRESH,
    ("create", errno.EADDRNOTAVAIL): "no interface has the address of set_local",
    ("create", errno.EADDRINUSE): "another program listens on the DLM's port",
    ("create", errno.ECANCELED): "the join was terminated",
    ("create", errno.EEXIST): "it is there already, and this kernel counts no users",
    ("start", errno.EINVAL): "a list of members may wait since a start that was refused: only a "
    "start that succeeds takes it",
    ("set_local", errno.EINVAL): "the node has as many addresses as this kernel takes",
    ("set_local", errno.ENOSPC): "the node has as many addresses as this kernel takes",
    ("set_node", errno.ENOSPC): "these are more addresses than this kernel takes",
    ("lock", errno.EINVAL): "these flags do not go together with a new request",
    ("convert", errno.EINVAL): "these flags do not go together with a conversion",
    ("convert", errno.EBUSY): "the lock waits or converts already",
    ("convert", errno.ENOENT): _NO_SUCH_LOCK,
    ("convert", errno.EBADSLT): _NO_SUCH_LOCK,
    ("unlock", errno.ENOENT): _NO_SUCH_LOCK,
    ("unlock", errno.EBADSLT): _NO_SUCH_LOCK,
    ("members", errno.EINVAL): "a list of members waits: only a start that succeeds takes it",
    ("control", errno.EINVAL): "0 stops, 1 starts",
    ("unlock", errno.EINVAL): "these flags do not go together with an unlock",
    ("emulator", errno.EPERM): "be that user, or name another directory",
}
"""What to do about an errno of the kernel, by action."""

_NO_RIGHTS = "be root"


def explain(error: BaseException, action: str, waiting: str = "") -> tuple[ExitCode, str]:
    """Return the exit code and the sentence of an error, without what was tried.

    ``waiting`` says what the action waited for when it was interrupted.
    """
    match error:
        case UsageError():
            return ExitCode.USAGE, str(error)
        case NoDlmError(message=message, advice=advice):
            return ExitCode.NO_DLM, _join(message, advice)
        case TimedOutError(message=message, waiting=asleep):
            return ExitCode.TIMED_OUT, _join(message, _still(asleep))
        case StalledError():
            text = "would wait for ever: nothing in the emulated world can end it"
            return ExitCode.TIMED_OUT, _join(text, waiting)
        case RefusedError():
            return _refused(error, action)
        case DlmError():
            return ExitCode.REFUSED, str(error)
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED, _join("interrupted", waiting)
        case OSError():
            number = error.errno or 0
            return ExitCode.REFUSED, f"{error.strerror or error} ({errno_name(number)})"
        case _:
            return ExitCode.REFUSED, f"a bug in dlm_tool: {type(error).__name__}: {error}"


def _refused(error: RefusedError, action: str) -> tuple[ExitCode, str]:
    code, number = ExitCode.REFUSED, error.errno or 0
    if isinstance(error, CheckError):
        advice = ADVICE[error.reason]
    elif isinstance(error, ControlledError):
        advice = "use its own tools, or --force"
    elif number in {errno.EPERM, errno.EACCES}:
        code, advice = ExitCode.NO_DLM, KERNEL_ADVICE.get((action, number), _NO_RIGHTS)
    else:
        advice = KERNEL_ADVICE.get((action, number), "")
    text = f"refused, {error.message} ({errno_name(number)})"
    if error.written:
        text = _join(text, f"already written: {', '.join(error.written)}")
    return code, _join(text, advice)


def say_waiting(waiting: str, asleep: tuple[str, ...]) -> str:
    """Say what an interrupted action waited for, and what goes on in the kernel."""
    return _join(f"waited for {waiting}" if waiting else "", _still(", ".join(asleep)))


def _still(asleep: str) -> str:
    return f"still waiting in the kernel: {asleep}" if asleep else ""


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
