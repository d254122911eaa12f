"""Which recorded trace shows which refusal of the kernel's interface, and which story of locks.

Decides: the list of refusals (sections 1 to 4 and 8 of the interface: configfs, sysfs, hand-shake,
devices) and of stories (11); where there is no trace, why.
May not know: how a trace is made.

``REFUSALS``: what is asked -> (trace, operation, errno, kernels); the test finds such an operation.
``STORIES``: what is told -> the story of lockstories that tells it; ``TWO_NODES``: of twonodes or
twodeaths; ``NO_STORY``: what of recovery nobody tells. That a trace notices when a rule is broken
is shown by tests/mutation.
"""

from __future__ import annotations

from dlm.record import Record

ALL = ("5.10", "6.1", "6.12", "7.2")
OLD, NEW, LATER = ("5.10", "6.1"), ("6.12", "7.2"), ("6.1", "6.12", "7.2")


class Shown(Record):
    """A refusal that a trace shows: operation and errno, a part of its path, device or bytes."""

    trace: str
    do: str
    errno: str
    where: str = ""
    kernels: tuple[str, ...] = ALL


NOT_RECORDED: dict[str, tuple[str, ...]] = {}
"""Scripts that no guest of a kernel has played yet: `make traces KERNEL=…` does that."""

REFUSALS: dict[str, Shown] = {
    # ---- 1 configfs ----
    "1.2 mkdir: there is one": Shown("1.2-configfs", "mkdir", "EEXIST"),
    "1.2 mkdir: no parent": Shown("1.2-configfs", "mkdir", "ENOENT"),
    "1.2 mkdir: below a file": Shown("1.2-configfs", "mkdir", "ENOTDIR"),
    "1.2 mkdir in cluster": Shown("1.2-configfs", "mkdir", "EPERM", "cluster/other"),
    "1.2 mkdir in space": Shown("1.2-configfs", "mkdir", "EPERM", "test/deeper"),
    "1.2 mkdir in comm": Shown("1.2-configfs", "mkdir", "EPERM", "comms/1/deeper"),
    "1.2 mkdir in node": Shown("1.2-configfs", "mkdir", "EPERM", "nodes/1/deeper"),
    "1.2 mkdir comm: no number": Shown("1.2-configfs", "mkdir", "EINVAL", "comms/one", ("7.2",)),
    "1.2 mkdir comm: overflow": Shown("1.2-configfs", "mkdir", "ERANGE", "comms/42", ("7.2",)),
    "1.2 mkdir node: no number": Shown("1.2-configfs", "mkdir", "EINVAL", "nodes/one", ("7.2",)),
    "1.2 name length": Shown("1.2-configfs", "mkdir", "ENAMETOOLONG"),
    "1.2 rmdir: there is none": Shown("1.2-configfs", "rmdir", "ENOENT"),
    "1.2 rmdir of a file": Shown("1.2-configfs", "rmdir", "ENOTDIR"),
    "1.2 rmdir of a default dir": Shown("1.2-configfs", "rmdir", "EPERM", "cluster/spaces"),
    "1.2 rmdir of a full cluster": Shown("1.2-configfs", "rmdir", "ENOTEMPTY", "dlm/cluster"),
    "1.2 rmdir of a space with nodes": Shown("1.2-configfs", "rmdir", "ENOTEMPTY", "spaces/test"),
    "1.2 read of a directory": Shown("1.2-configfs", "get", "EISDIR"),
    "1.2 write of a directory": Shown("1.2-configfs", "put", "EISDIR"),
    "1.2 list of a file": Shown("1.2-configfs", "list", "ENOTDIR"),
    "1.3 number: spelling": Shown("1.3-cluster", "put", "EINVAL", "recover_timer"),
    "1.3 number: too large": Shown("1.3-cluster", "put", "ERANGE", "recover_timer"),
    "1.3 number: nothing written": Shown("1.3-cluster", "put", "EFAULT", "recover_timer", LATER),
    "1.3 tcp_port 0": Shown("1.3-cluster", "put", "EINVAL", "tcp_port"),
    "1.3 tcp_port above 65535": Shown("1.3-cluster", "put", "ERANGE", "tcp_port"),
    "1.3 buffer_size below 4096": Shown("1.3-cluster", "put", "EINVAL", "buffer_size"),
    "1.3 protocol other than 0, 1": Shown("1.3-cluster", "put", "EINVAL", "protocol", LATER),
    "1.3 tcp_port while running": Shown("2-sysfs", "put", "EBUSY", "tcp_port", LATER),
    "1.3 protocol while running": Shown("2-sysfs", "put", "EBUSY", "protocol", LATER),
    "1.3 timewarn_cs 0": Shown("1.3-cluster", "put", "EINVAL", "timewarn_cs", ("5.10",)),
    "1.3 timewarn_cs is gone": Shown("1.3-cluster", "get", "ENOENT", "timewarn_cs", LATER),
    "1.3 cluster_name: nothing written": Shown(
        "1.3-cluster", "put", "EFAULT", "cluster_name", LATER
    ),
    "1.4 nodeid: spelling": Shown("1.4-comms", "put", "EINVAL", "1/nodeid", (*OLD, "6.12")),
    "1.4 nodeid: too large": Shown("1.4-comms", "put", "ERANGE", "1/nodeid", (*OLD, "6.12")),
    "1.4 local: spelling": Shown("1.4-comms", "put", "EINVAL", "2/local"),
    "1.4 local: too large": Shown("1.4-comms", "put", "ERANGE", "2/local"),
    "1.4 addr is not readable": Shown("1.4-comms", "get", "EACCES", "1/addr"),
    "1.4 addr: length": Shown("1.4-comms", "put", "EINVAL", "1/addr"),
    "1.4 addr: too many": Shown("1.4-comms", "put", "ENOSPC", "1/addr"),
    "1.4 addr: again": Shown("1.4-comms", "put", "EEXIST", "1/addr", LATER),
    "1.4 addr: again, other comm": Shown("1.4-comms", "put", "EEXIST", "2/addr", ("6.1", "6.12")),
    "1.4 addr_list is not writable": Shown("1.4-comms", "put", "EACCES", "1/addr_list"),
    "1.4 mark before addr": Shown("1.4-comms", "put", "ENOENT", "1/mark", LATER),
    "1.4 mark: spelling": Shown("1.4-comms", "put", "EINVAL", "1/mark"),
    "1.4 mark: too large": Shown("1.4-comms", "put", "ERANGE", "1/mark"),
    "1.5 nodeid: spelling": Shown("1.5-nodes", "put", "EINVAL", "1/nodeid", (*OLD, "6.12")),
    "1.5 nodeid: too large": Shown("1.5-nodes", "put", "ERANGE", "1/nodeid", (*OLD, "6.12")),
    "1.5 weight: spelling": Shown("1.5-nodes", "put", "EINVAL", "weight"),
    "1.5 weight: too large": Shown("1.5-nodes", "put", "ERANGE", "weight"),
    "1.5 release_recover: spelling": Shown("1.5-nodes", "put", "EINVAL", "release_r", ("7.2",)),
    "1.5 release_recover is not there": Shown(
        "1.5-nodes", "get", "ENOENT", "release_r", (*OLD, "6.12")
    ),
    # ---- 2 sysfs ----
    "2 control is not readable": Shown("2-sysfs", "get", "EACCES", "control"),
    "2 control: neither 0 nor 1": Shown("2-sysfs", "put", "EINVAL", "control"),
    "2 control: too large": Shown("2-sysfs", "put", "ERANGE", "control"),
    "2 event_done is not readable": Shown("2-sysfs", "get", "EACCES", "event_done"),
    "2 event_done: spelling": Shown("3-handshake", "put", "EINVAL", "event_done"),
    "2 event_done: too large": Shown("3-handshake", "put", "ERANGE", "event_done"),
    "2 id: spelling": Shown("2-sysfs", "put", "EINVAL", "/id"),
    "2 id: too large": Shown("2-sysfs", "put", "ERANGE", "/id"),
    "2 nodir: spelling": Shown("2-sysfs", "put", "EINVAL", "nodir"),
    "2 recover_status is not writable": Shown("2-sysfs", "put", "EACCES", "recover_status"),
    "2 recover_nodeid is not writable": Shown("2-sysfs", "put", "EACCES", "recover_nodeid"),
    "2 mkdir in sysfs": Shown("2-sysfs", "mkdir", "EPERM"),
    "2 rmdir in sysfs": Shown("2-sysfs", "rmdir", "EPERM"),
    # ---- 3 hand-shake ----
    "3 event_done below 0 is create's": Shown("3-handshake", "wait", "EIO"),
    "3 another answer": Shown("3-handshake", "wait", "ETIMEDOUT"),
    # ---- 4.4 write ----
    "4.4 check 1: not opened to write": Shown("4.5-reading", "write", "EBADF"),
    "4.4 check 1 on control": Shown("4.4-control", "write", "EBADF"),
    "4.4 checks 2, 3: length": Shown("4.4-requests", "write", "EINVAL"),
    "4.4 check 5: version": Shown("4.4-requests", "write", "EBADE"),
    "4.4 check 5 on control": Shown("4.4-control", "write", "EBADE"),
    "4.4 check 8: lock on control": Shown("4.4-control", "write", "EINVAL"),
    "4.4 check 9: create on a lockspace": Shown("4.4-requests", "write", "EINVAL"),
    "4.4 check 10: other commands": Shown("4.4-requests", "write", "EINVAL"),
    "4.4.1 flag 0x10": Shown("4.4.1-create", "wait", "EINVAL", "", NEW),
    "4.4.1 no local address": Shown("4.4.1-create", "write", "ENOTCONN"),
    "4.4.1 not this machine's address": Shown("4.4.1-create", "write", "EADDRNOTAVAIL", "", LATER),
    "4.4.1 the same in 5.10": Shown("4.4.1-create", "write", "EADDRINUSE", "", ("5.10",)),
    "4.4.1 name": Shown("4.4.1-create", "write", "EINVAL"),
    "4.4.1 no daemon": Shown("4.10-monitor", "write", "EUNATCH"),
    "4.4.1 NEWEXCL": Shown("4.4.2-use-count", "write", "EEXIST"),
    "4.4.2 no such minor": Shown("4.4-control", "write", "ENOENT"),
    "4.4.2 locks": Shown("4.4.2-use-count", "write", "EBUSY"),
    "4.4.2 unread results": Shown("4.4.2-use-count", "wait", "EBUSY", "", OLD),
    "4.4.3 no castaddr, no lksb": Shown("4.4-requests", "write", "EINVAL"),
    "4.4.3 namelen 65": Shown("4.4-requests", "write", "EINVAL", "010100000541"),
    "4.4.3 namelen 255": Shown("4.4-requests", "write", "EINVAL", "0101000005ff"),
    "4.4.3 unknown lock id": Shown("4.4-requests", "write", "ENOENT"),
    "4.4.3 flags, modes (5.6)": Shown("4.4-requests", "write", "EINVAL"),
    "4.4.3 lock waits (5.7)": Shown("11.3-unlock", "write", "EBUSY"),
    "4.4.3 QUECVT (5.2)": Shown("11.1-grants", "write", "EINVAL"),
    "4.4.4 unknown lock id": Shown("11.3-unlock", "write", "ENOENT"),
    "4.4.4 cancelled already (5.8)": Shown("11.3-unlock", "write", "EINVAL"),
    "4.4.5 flags": Shown("11.3-unlock", "write", "EINVAL"),
    "4.4.6 node without a connection": Shown("4.7-close", "write", "ENOBUFS", "", LATER),
    # ---- 4.5 to 4.10, 8 ----
    "4.5 read of control": Shown("4.4-control", "read", "EINVAL"),
    "4.5 read too small": Shown("4.5-reading", "read", "EINVAL"),
    "4.5 nothing pending": Shown("4.5-reading", "read", "EAGAIN"),
    "4.5 not opened to read": Shown("4.5-reading", "read", "EBADF"),
    "4.6 ioctl": Shown("4.5-reading", "ioctl", "ENOTTY"),
    "4.6 ioctl of control": Shown("4.4-control", "ioctl", "ENOTTY"),
    "4.7 lockspace gone": Shown("4.4.2-use-count", "open", "ENOENT"),
    "4.7 lockspace that leaves": Shown("4.4.2-use-count", "open", "ENOENT"),
    "4.8 another mode": Shown("4.7-close", "write", "EAGAIN"),
    "4.8 no such orphan": Shown("4.7-close", "write", "ENOENT"),
    "4.8 no lksb": Shown("4.4-requests", "write", "EINVAL"),
    "4.10 read of the monitor": Shown("4.10-monitor", "read", "EINVAL"),
    "4.10 write of the monitor": Shown("4.10-monitor", "write", "EINVAL"),
    "8.2 read too small": Shown("8-plock", "read", "EINVAL"),
    "8.2 nothing queued": Shown("8-plock", "read", "EAGAIN"),
    "8.2 write of another length or version": Shown("8-plock", "write", "EINVAL"),
}
"""Every refusal that bytes can bring about on one node."""

NO_TRACE: dict[str, str] = {
    "1.2 unlink or create a file: EPERM, EACCES": "a trace has no unlink(2) and no O_CREAT",
    "1.3 EPERM without CAP_SYS_ADMIN": "rights, not bytes; the contract suite has it",
    "1.3 protocol 1 without SCTP: EOPNOTSUPP": "Debian's kernels have SCTP",
    "1.4 addr: ENOMEM": "needs a kernel without memory",
    "1.5 a member gone without a trace: EFAULT": "is swallowed by start: no call returns it",
    "3 the first recovery fails: its error": "needs a second node; the two-node trace unlike",
    "4.4 check 4: EFAULT, ENOMEM": "a trace has bytes, no addresses",
    "4.4 check 7: EINVAL on a closing file": "a race of two threads of one process",
    "4.4.1 EPERM": "rights, not bytes; the contract suite has it",
    "4.4.1 EADDRINUSE": "needs another program that listens on the port",
    "4.4.1 EBADR": "a create from user space always passes the configured name",
    "4.4.1 misc device fails": "needs every dynamic minor in use",
    "4.4.2 EPERM": "rights, not bytes; the contract suite has it",
    "4.4.3 operation in flight: EBUSY": "needs a second node; two-node traces",
    "4.5 EINTR": "a trace sends no signals",
    "4.5 EFAULT": "a trace has bytes, no addresses",
    "4.5 EINVAL on a closing file": "a race of two threads of one process",
    "4.7 ENODEV": "the device node goes with its device",
}
"""Refusals that no trace of one node shows, and why."""

STORIES: dict[str, str] = {
    "11.1 NOQUEUE of EX over two PR": "noqueue",
    "11.1 the same with NOQUEUEBAST": "noqueue",
    "11.1 then three wait": "noqueue",
    "11.1 un 1; cv 2 to NL; un 3": "noqueue",
    "11.1 EX; waiters PR, EX; cv to NL": "two_waiters",
    "11.1 EX; waiters CR, PR, EX, PR": "rising_waiters",
    "11.1 PR; waiters CW, PR; unlocks": "middle_waiters",
    "11.1 order of waiting": "waiting_order",
    "11.1 EX to CR with them waiting": "waiting_order",
    "11.1 behind a conversion": "behind_conversion",
    "11.1 then the blocker goes": "behind_conversion",
    "11.1 two resources": "two_resources",
    "11.1 HEADQUE conversion": "head_of_conversions",
    "11.1 QUECVT": "queued_conversion",
    "11.1 told after each conversion": "told_again",
    "11.2 EDEADLK": "deadlock",
    "11.2 NODLCKWT": "deadlock",
    "11.2 CONVDEADLK": "deadlock",
    "11.2 ALTPR": "altmode",
    "11.2 ALTCW": "altmode",
    "11.2 ALTPR with NOQUEUE": "altmode",
    "11.2 conversion with ALTPR": "altmode",
    "11.2 NOORDER in a deadlock": "deadlock_noorder",
    "11.3 conversion of a waiting lock": "unlock_states",
    "11.3 unlock of a waiting lock": "unlock_states",
    "11.3 cancel of a waiting lock, twice": "unlock_states",
    "11.3 cancel of a granted lock, twice": "unlock_states",
    "11.3 cancel of a conversion, twice": "unlock_states",
    "11.3 DEADLOCK of a conversion": "deadlock_command",
    "11.3 unlock before reading": "unlock_before_reading",
    "11.3 another file": "other_file",
    "11.4 what moves": "value_moves",
    "11.4 unlock without VALBLK": "value_moves",
    "11.4 unlock without a buffer": "value_without_buffer",
    "11.4 IVVALBLK": "value_invalid",
    "11.4 CR with and without VALBLK": "value_invalid",
    "11.4 written again": "value_invalid",
    "11.4 a file with a granted EX closes": "value_lost_holder",
    "11.4 a file with a waiting EX closes": "value_lost_holder",
    "11.4 results unread": "value_unread",
}
"""Each row of sections 11.1 to 11.4, and the function of lockstories that tells it."""

TWO_NODES: dict[str, str] = {
    "4.4.1 flags that differ between nodes": "unlike",
    "4.4.2 nothing but master copies": "only-copies",
    "4.4.6, 4.7, 4.8 orphans of another node": "orphans",
    "4.7 the end of a process, seen by the other node": "closing",
    "1.2 comm sequence": "remade",
    "5.4 value blocks across nodes": "values",
    "5.7 conversion of what is on its way": "in-flight",
    "5.8 1 unlock of what is on its way": "in-flight",
    "5.8 2 a request that waits for another one's lookup": "too-late",
    "5.8 4a, 6 an unlock or cancel that overlaps": "too-late",
    "5.8 7, 10 cancel, forced unlock of a request or lookup on its way": "remembered",
    "5.8 8 cancel of an unlock on its way": "too-late",
    "5.8 9 forced unlock of an unlock on its way": "too-late",
    "5.10 grants across nodes": "grants",
    "5.10 flags that change the order, across nodes": "order",
    "5.10 alternative modes across nodes": "alternatives",
    "5.10 4 conversions after a recovery": "out-of-order",
    "5.11 conversion deadlock across nodes": "conversions",
    "5.12 blocking ASTs across nodes": "blocking",
    "5.14 master": "grants",
    "6.1 messages to a node that is stopped": "stopped",
    "6.2 members, status of the lowest node and of others": "stopped",
    "6.2 death of a directory node": "directory-dies",
    "6.2 without members that go, masters stay": "stopped",
    "6.3 locks of a node that died": "holder-dies",
    "6.3 a dead PW or EX with VALBLK: not valid": "last-values",
    "6.3 a dead EX without VALBLK, a dead PR: valid": "last-values",
    "6.3 its own orphans": "newest-value",
    "6.3 what it was the master of": "master-dies",
    "6.4 the directory node is the survivor": "master-dies",
    "6.4 nobody is left on a resource": "waiters-outlive",
    "6.4 joins only": "coming-back",
    "6.4 without a directory": "nodir",
    "6.4 a clean leave": "leaving",
    "6.5 lookup": "in-flight",
    "6.5 request": "in-flight",
    "6.5 conversion upwards": "in-flight",
    "6.5 conversion downwards": "in-flight",
    "6.5 conversion between PR and CW": "middle",
    "6.5 unlock": "in-flight",
    "6.5 cancel": "out-of-order",
    "6.5 request and CANCEL": "remembered",
    "6.5 request and FORCEUNLOCK": "remembered",
    "6.5 conversion and CANCEL": "given-up",
    "6.5 conversion and FORCEUNLOCK": "given-up",
    "6.5 conversion, CANCEL and FORCEUNLOCK": "too-late",
    "6.6 locks that are rebuilt": "waiters-outlive",
    "6.6 grants in any order": "out-of-order",
    "6.6 up to 6.12 conversions between PR and CW, another holds": "middle",
    "6.6 since 6.13 conversions between PR and CW": "middle",
    "6.6 a queued conversion between PR and CW": "waiters-outlive",
    "6.7 the master lives, a lock below PW died": "last-values",
    "6.7 the master lives, PW or EX died": "last-values",
    "6.7 a new master: a lock above CR": "master-dies",
    "6.7 a new master: NL and CR only": "master-dies",
    "6.7 a new master: the newest of those": "newest-value",
    "6.7 a new master: never written": "master-dies",
    "6.7 a new master: no lock with VALBLK": "master-dies",
    "11.5 master 1; node 2 EX with VALBLK": "last-values",
    "11.5 master 1; node 2 EX without VALBLK": "last-values",
    "11.5 master 2; node 1 NL with VALBLK": "master-dies",
    "11.5 master 2; node 1 PR with VALBLK": "master-dies",
    "11.5 master 2; node 1 CR with VALBLK": "master-dies",
    "11.5 master 2; node 1 NL without VALBLK": "master-dies",
    "11.5 node 1 EX waits for node 2's EX": "waiters-outlive",
    "11.5 node 1 NL to EX with VALBLK waits": "waiters-outlive",
    "11.5 lookup in flight; unlock, DEADLOCK": "too-late",
    "11.5 conversion in flight; unlock, conversion, CANCEL, FORCEUNLOCK": "too-late",
}
"""Each row that takes two nodes, and the story of twonodes or twodeaths that tells it."""

ONE_NODE: dict[str, str] = {
    "6.1 recover_status": "6.1-stopped",
    "6.1 blocked callers": "6.1-stopped",
    "6.1 not blocked": "6.1-stopped",
    "6.2 the toss list": "11.4-values",
    "6.2 a stop, then a start": "3-handshake",
}
"""Rows of recovery that one node shows, and the directed trace that has them."""

NO_STORY: dict[str, str] = {
    "6.1 the stop waits for a task inside a lock operation": "operations come one at a time",
    "6.2 order of the steps": "a trace sees what is there before and after, not in between",
    "6.2 a stop in the middle of a recovery": "whether it comes before the end is chance",
    "6.2 number of the recovery; the log": "nothing that a trace reads shows them",
    "6.4 the directory node is another survivor": "needs three nodes; the emulator's tests have it",
    "6.4 failed or released": "only users in the kernel are told",
    "6.6 since 6.13 conversions between PR and CW, another holds": "needs a third node",
    "6.7 other nodes' resources": "none has an invalid mark that could be cleared",
}
"""Rows of recovery that no trace shows, and why."""

TWO_NODE_KERNELS = ("6.1", "7.2")
"""The kernels of which two guests have been told every one of these stories."""
