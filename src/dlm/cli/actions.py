"""The actions of dlm_tool as data: arguments, options, help.

Decides: what can be said on the command line, and what the help says of it.
May not know: what an action does (dlm.cli.perform).
Mirrors: the tool of 2005 (names, argument order); poll_done waits, ls, demo and options are new.
"""

from __future__ import annotations

from dlm.record import Record


class Argument(Record):
    """A positional argument.

    ``kind`` names how it is read (dlm.cli.values); ``many`` is "", "?" (optional), "+" (one or
    more) or "," (optional, a list with commas). The usage line gives it ``width`` columns.
    """

    name: str
    kind: str
    many: str = ""
    width: int = 0

    def usage(self) -> str:
        """Return the argument as the usage line shows it."""
        text = f"<{self.name}>"
        forms = {"": text, "?": f"[{text}]", "+": f"{text}...", ",": f"[{text},...]"}
        return forms[self.many].ljust(self.width)


class Option(Record):
    """An option; ``metavar`` "" makes it a switch. ``kind`` as for arguments."""

    flag: str
    help: str
    metavar: str = ""
    kind: str = ""
    short: str = ""

    def flags(self) -> tuple[str, ...]:
        """Return the forms in which it can be given."""
        return (self.short, self.flag) if self.short else (self.flag,)


class Action(Record):
    """An action: its arguments in order, its own options, its help.

    ``spoken`` is how many arguments, from the first, a message repeats to say what was tried.
    """

    name: str
    arguments: tuple[Argument, ...]
    summary: str
    text: str
    examples: tuple[str, ...]
    options: tuple[Option, ...] = ()
    spoken: int = 9

    def usage(self) -> str:
        """Return the line of the usage text: name and arguments."""
        return " ".join((f"{self.name:<10}", *(each.usage() for each in self.arguments)))


LOCKSPACE = Argument("ls_name", "lockspace")
EVENT = Argument("event_nr", "event")
LOCK_ID = Argument("lkid", "lock_id")
MODE = Argument("mode", "mode")
FLAGS = Argument("flag", "flags", ",")
_NODE = (
    Argument("nodeid", "nodeid"),
    Argument("ipaddr", "addresses"),
    Argument("weight", "weight", "?"),
)
FORCE = Option("--force", "go on where somebody else controls the DLM or owns the lock")

_NODE_TEXT = """\
<nodeid> is any positive number, the same on every node. <ipaddr> is an IPv4 or IPv6 address, or
several with commas. <weight> says how large a share of the resource directory the node takes when
a lockspace is started with it (1 if it is never given, 0 for none).
"""
_RAW_TEXT = """\
One raw write, as the tool of July 2005 made it; nothing of it is remembered. Refused by every
other kernel: there, and here too, stop, start and terminate do the same and check it.
"""
_LOCK_TEXT = """\
Modes are NL, CR, CW, PR, PW and EX; only the first two letters count, in any case. Flags are
separated by commas, in any case: NOQUEUE CANCEL QUECVT CONVDEADLK PERSISTENT EXPEDITE NOQUEUEBAST
HEADQUE NOORDER, and of later kernels VALBLK IVVALBLK NODLCKWT NODLCKBLK ALTPR ALTCW FORCEUNLOCK.
"""
_OWNER_TEXT = """\
The lock must be one whose process has gone, as those of dlm_tool lock have. A lock that a living
process owns is refused, unless forced; its result then goes to the owner, and no status is shown.
"""

_TABLE = (
    Action(
        "set_local",
        _NODE,
        "say which node this is",
        "Tell the DLM this node's id and address, before any create. What is so already is not\n"
        "written again; another address is added.\n\n" + _NODE_TEXT,
        ("set_local 1 10.0.0.1", "set_local 1 fd00::1,10.0.0.1"),
        (FORCE,),
    ),
    Action(
        "set_node",
        _NODE,
        "say where a node is",
        "Tell the DLM the address of a node, on every node for every node. Other addresses than\n"
        "the node has replace them; refused while a lockspace that is not stopped has the node as\n"
        "a member.\n\n" + _NODE_TEXT,
        ("set_node 2 10.0.0.2", "set_node 3 10.0.0.3 4"),
        (FORCE,),
    ),
    Action(
        "stop",
        (LOCKSPACE,),
        "suspend locking",
        "Suspend locking in a lockspace on this node: lock requests wait until it was started\n"
        "again and recovered. The first step when members change, on every remaining node.\n",
        ("stop test",),
        (FORCE,),
    ),
    Action(
        "terminate",
        (LOCKSPACE,),
        "end the wait of a create or release",
        "Make a create that waits for its start fail (ECANCELED), or let a release go on that was\n"
        "told not to answer its own leave. --force answers even when that was done already.\n",
        ("terminate test",),
        (FORCE,),
    ),
    Action(
        "start",
        (LOCKSPACE, EVENT, Argument("type", "type"), Argument("nodeid", "nodeid", "+")),
        "recover with a list of members",
        "Give a stopped or new lockspace its members and let it recover. <event_nr> begins at 1\n"
        "and must grow with every start on this node; <type> is not used and can be 0. The\n"
        "command is back before recovery is done: see get_done and poll_done.\n\n"
        "A node that left and came back is made anew: at once when it was not among the members\n"
        "of the last start, else when --rejoined names it (a node that was back before anybody\n"
        "missed it). Without that, locks that need a message to or from it hang for ever.\n",
        (
            "start test 1 0 1 2 3",
            "start test 2 0 2 3 --dry-run",
            "start test 3 0 1 2 3 --rejoined 1",
        ),
        (Option("--rejoined", "members that left and came back", "ID,...", "nodeids"), FORCE),
        spoken=2,
    ),
    Action(
        "get_done",
        (LOCKSPACE,),
        "show the last start that is done",
        "Print the event number of the last start whose recovery was seen done on this node, 0 if\n"
        "there is none.\n",
        ("get_done test",),
    ),
    Action(
        "finish",
        (LOCKSPACE, EVENT),
        "say that recovery is finished on all nodes",
        "Check that <event_nr> is the last start and that it is done here. Kernels of today need\n"
        "no more: locking is on as soon as all nodes have recovered.\n",
        ("finish test 1",),
    ),
    Action(
        "poll_done",
        (LOCKSPACE, EVENT),
        "wait until a start is done",
        "Wait until the start <event_nr>, or a later one, is done on this node; then print as\n"
        "get_done does.\n",
        ("poll_done test 1 --timeout 60",),
    ),
    Action(
        "set_id",
        (LOCKSPACE, Argument("id", "lockspace_id")),
        "give a lockspace its id",
        "Give a lockspace the number by which the nodes know it: between create and the first\n"
        "start, the same on every node, another for every lockspace.\n",
        ("set_id test 5",),
        (FORCE,),
    ),
    Action(
        "control",
        (LOCKSPACE, Argument("val", "number")),
        "write control (July 2005)",
        "Stop a lockspace (0) or start it with the members that were written (1).\n" + _RAW_TEXT,
        ("control test 0",),
        (FORCE,),
    ),
    Action(
        "event_done",
        (LOCKSPACE, Argument("val", "number")),
        "write event_done (July 2005)",
        "Answer a join (0, or minus an errno) or a leave; without one, the next is answered.\n"
        + _RAW_TEXT,
        ("event_done test 0", "event_done test -1"),
        (FORCE,),
    ),
    Action(
        "members",
        (LOCKSPACE, Argument("nodeid", "nodeid", "+")),
        "write members (July 2005)",
        "Write the members of the next start; while such a list waits, no other is taken.\n"
        + _RAW_TEXT,
        ("members test 1 2 3",),
        (FORCE,),
        spoken=1,
    ),
    Action(
        "create",
        (LOCKSPACE,),
        "create a lockspace on this node",
        "Create a lockspace and begin to join it; the join ends when start has given it members\n"
        "and recovery is done, and --wait waits for that. While a lockspace joins or leaves,\n"
        "every other create and release on the node waits. A lockspace that is there already gets\n"
        "one more user.\n",
        ("create test", "create test --wait --timeout 60"),
        (Option("--wait", "wait until the join is over"), FORCE),
    ),
    Action(
        "release",
        (LOCKSPACE,),
        "remove a lockspace from this node",
        "Leave a lockspace and drop all its locks on this node, then wait until it has gone. A\n"
        "lockspace with several users loses one of them only.\n",
        ("release test", "release test --no-answer"),
        (
            Option("--no-answer", "return when the leave waits, and let terminate answer it"),
            FORCE,
        ),
    ),
    Action(
        "lock",
        (LOCKSPACE, Argument("res_name", "resource"), MODE, FLAGS),
        "take a lock and leave it",
        "Request a lock and wait until it is granted; it outlives the tool (PERSISTENT, 0x80) and\n"
        "is found again by the id that is printed. A lock that is not granted is exit code 1.\n\n"
        + _LOCK_TEXT,
        ("lock test foo EX", "lock test foo pr noqueue"),
    ),
    Action(
        "unlock",
        (LOCKSPACE, LOCK_ID.replace(width=17), FLAGS),
        "drop a lock",
        "Drop a lock by its id, or with CANCEL cancel what it waits for (the status goes to its\n"
        "owner then).\n\n" + _OWNER_TEXT + "\n" + _LOCK_TEXT,
        ("unlock test 1", "unlock test 7 cancel"),
        (FORCE,),
    ),
    Action(
        "convert",
        (LOCKSPACE, LOCK_ID, MODE.replace(width=10), FLAGS),
        "change the mode of a lock",
        "Convert a lock to another mode and wait until that is granted.\n\n"
        + _OWNER_TEXT
        + "\n"
        + _LOCK_TEXT,
        ("convert test 1 PR",),
        (FORCE,),
    ),
    Action(
        "ls",
        (Argument("ls_name", "lockspace", "?"),),
        "list lockspaces",
        "Show the lockspaces of this node: id, members, state (joining, running, stopped,\n"
        "recovering, leaving), last start and last done start, who controls them, what they wait\n"
        "for; ? where that is remembered for root alone.\n",
        ("ls", "ls test --json"),
    ),
    Action(
        "demo",
        (),
        "show the usage document on three emulated nodes",
        "Run the 18 steps of the usage document on three nodes of an emulator in this process,\n"
        "and check what each step shows. Nothing outside the process is touched.\n",
        ("demo",),
        (Option("--abi", "the control interface: configfs, event or members", "NAME"),),
    ),
    Action(
        "emulator",
        (Argument("verb", ""), Argument("dir", "", "+")),
        "serve an emulated cluster in the background",
        "up starts a cluster and returns when it is ready; each node is then a backend:\n"
        "DLM_BACKEND=emulator:<dir>/<node>. It lives in real time until down. crash and restart\n"
        "take the node before the directory. status shows which nodes are up. What a cluster that\n"
        "was killed left in <dir> is cleaned by the next up.\n",
        (
            "emulator up --nodes nodea=10.0.0.1,nodeb=10.0.0.2,nodec=10.0.0.3 /tmp/cluster",
            "emulator status /tmp/cluster",
            "emulator crash nodea /tmp/cluster",
            "emulator restart nodea /tmp/cluster",
            "emulator down /tmp/cluster",
        ),
        (
            Option("--nodes", "names and addresses of the nodes (up)", "NAME=ADDRESS,..."),
            Option("--abi", "the control interface: event, members, configfs (up)", "NAME"),
            Option("--kernel", "the kernel to be like: 5.10, 6.1, 6.12, 7.2 (up)", "VERSION"),
            Option("--speed", "the cluster's seconds per second (up)", "FACTOR"),
            Option("--strict", "crash a node where its real kernel would go wrong (up)"),
        ),
    ),
    Action(
        "serve",
        (Argument("stream", ""),),
        "serve a backend at a Unix socket or a device",
        "Let others use this backend: DLM_BACKEND=remote:<stream> on the other side. <stream> is\n"
        "the path of a socket to make, in a directory of mode 0700, or a device such as a serial\n"
        "port. Each connection is a process of its own. Only the same user may connect. Serves\n"
        "until it is interrupted.\n",
        ("serve /run/user/0/dlm/kernel", "serve /dev/vport0p1 --backend kernel"),
    ),
    Action(
        "trace",
        (Argument("verb", ""), Argument("file", "", "+")),
        "record operations on a DLM, or replay them and compare",
        "record does the operations of a script, one JSON object in a line, on this backend, and\n"
        "writes them with their results: a trace. replay does the operations of traces again and\n"
        "compares every result: on a fresh emulated cluster like the one that the trace's header\n"
        "describes (kernel, dialect, nodes), or on the backend that is named. It shows what\n"
        "differs, and in the last line how much; exit code 1 when anything does, 2 when a file is\n"
        "malformed. Files are .jsonl or .jsonl.gz; docs/traces.md tells what is in them.\n",
        (
            "trace record script.jsonl -o trace.jsonl.gz",
            "trace replay trace.jsonl.gz",
            "trace replay fixtures/traces/6.1/*.jsonl.gz",
            "trace replay trace.jsonl --backend kernel",
            "trace record two.jsonl --backends emulator:/tmp/c/nodea,emulator:/tmp/c/nodeb",
        ),
        (
            Option("--output", "where to write the trace (record)", "FILE", short="-o"),
            Option("--kernel", "the release to write in the header, or to emulate", "RELEASE"),
            Option("--backends", "a backend for each of several nodes", "SPEC,..."),
        ),
    ),
)
ACTIONS = {action.name: action for action in _TABLE}
"""Every action by name, in the order of the usage text."""

COMMON_OPTIONS = (
    Option("--backend", "which DLM (default: $DLM_BACKEND, else kernel)", "SPEC"),
    Option("--timeout", "give up after so many seconds (exit code 3)", "SECONDS", "seconds"),
    Option("--dry-run", "say what would be written, in order, and write nothing"),
    Option("--json", "print one JSON object in place of text"),
    Option("--debug", "show a traceback with an error", short="-D"),
)
"""What every action takes, before or after its name."""

_GROUPS = (
    ("set_local", "set_node"),
    ("stop", "terminate", "start", "get_done", "finish", "poll_done", "set_id"),
    ("create", "release", "lock", "unlock", "convert"),
    ("control", "event_done", "members"),
    ("ls", "demo", "emulator", "serve", "trace"),
)


def usage_text(program: str) -> str:
    """Return what the tool prints without an action."""
    lines = ["Usage:", "", program, ""]
    for group in _GROUPS:
        lines += [ACTIONS[name].usage().rstrip() for name in group] + [""]
    lines += [
        "modes      NL,CR,CW,PR,PW,EX",
        "type       not used by dlm",
        "flags      NOQUEUE,CANCEL,QUECVT,CONVDEADLK,PERSISTENT,",
        "           EXPEDITE,NOQUEUEBAST,HEADQUE,NOORDER",
        "           modes and flags are case insensitive",
        "",
        "options    " + " ".join(option.flag for option in COMMON_OPTIONS),
        f"           {program} <action> --help tells more of each action",
        "",
        "exit code  0 done, 1 refused, 2 usage, 3 timed out, 4 no DLM here",
        "",
    ]
    return "\n".join(lines)
