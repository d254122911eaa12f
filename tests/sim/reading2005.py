"""A reading of the documents of 2005 as tables: what one node answers to writes, reads and ioctls.

Decides: the answer that the documents promise for every operation of ``test_random_2005``.
May not know: anything of the emulator or of ``dlm.abi``: parse rules, checks and state tables are
written down here once more.

The node is alone: a recovery ends at once when this node is the only member, and never otherwise.
Where a table of the documents has "!", the kernel panicked; INFER: the event that led there is
ignored, a start with EINVAL, a finish silently.
"""

from __future__ import annotations

import copy
import errno
import struct
from dataclasses import dataclass, field

Answer = int | bytes | str | None
"""What a call returns; the name of its errno; None: it waits."""

# ---- parse rules (1.3, 2.1) ---------------------------------------------------------------------

DIGITS = {byte: value for value, byte in enumerate(b"0123456789abcdef")} | {
    byte: value for value, byte in enumerate(b"ABCDEF", 10)
}
SPACES = {0x20, 0x09, 0x0A, 0x0B, 0x0C, 0x0D}


def number(text: bytes) -> int:
    """Read a number as simple_strtol() with base 0, digit by digit, into a C int."""
    at, sign = 0, 1
    text += b"\0\0\0"
    if text[0] == ord("-"):
        at, sign = 1, -1
    base = 10
    if text[at] == ord("0"):
        at, base = at + 1, 8
        if text[at] in b"xX" and text[at + 1] in DIGITS:
            at, base = at + 1, 16
    result = 0
    while text[at] in DIGITS and DIGITS[text[at]] < base:
        result = result * base + DIGITS[text[at]]
        at += 1
    low = sign * result & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def nodeids(text: bytes) -> list[int] | None:
    """Read a list of members; None where it is EINVAL."""
    count = 1 + len([byte for byte in text if byte in SPACES])
    found: list[int] = []
    for token in text.split(b"\0")[0].split(b" "):
        value, good = 0, False
        for byte in token:
            if not ord("0") <= byte <= ord("9"):
                break
            value, good = value * 10 + byte - ord("0"), True
        if not good:
            break
        found.append(value % (1 << 32))
    return found if len(found) == count else None


# ---- the tables ---------------------------------------------------------------------------------

# 5.8: stop, start, finish; with a live start, without one. "!" is an assertion that fails.
NEXT_MOVE = {
    (0, 0, 0): ("none", "none"),
    (0, 0, 1): ("FINISH", "FINISH"),
    (0, 1, 0): ("START", "!"),
    (0, 1, 1): ("!", "!"),
    (1, 0, 0): ("STOP", "STOP"),
    (1, 0, 1): ("FINISH_STOP", "FINISH_STOP"),
    (1, 1, 0): ("START", "STOP"),
    (1, 1, 1): ("FINISH_START", "FINISH_STOP"),
}

# 5.8: the state and what is done -> the state after it; a start: after success, after failure.
STATES = {
    "INIT": {"STOP": "INIT", "START": "INIT_DONE INIT"},
    "INIT_DONE": {
        "STOP": "WAIT_START", "START": "RECONFIG_DONE WAIT_START", "FINISH": "CLEAR",
        "FINISH_STOP": "WAIT_START", "FINISH_START": "RECONFIG_DONE WAIT_START",
    },
    "CLEAR": {"STOP": "WAIT_START", "START": "RECONFIG_DONE WAIT_START"},
    "WAIT_START": {"STOP": "WAIT_START", "START": "RECONFIG_DONE WAIT_START"},
    "RECONFIG_DONE": {
        "STOP": "WAIT_START", "START": "RECONFIG_DONE WAIT_START", "FINISH": "CLEAR",
        "FINISH_STOP": "WAIT_START", "FINISH_START": "RECONFIG_DONE WAIT_START",
    },
}  # fmt: skip

MODES = {
    "event": {
        "stop": "rw", "start": "rw", "finish": "rw", "terminate": "rw", "done": "r", "id": "rw",
        "members": "rw",
    },
    "members": {"control": "w", "event_done": "w", "id": "rw", "members": "rw"},
}  # fmt: skip
PAGE = {"event": 4095, "members": 4096}
MINORS = range(61, -1, -1)


class Panic(Exception):
    """An assertion of the recovery thread fails."""


@dataclass
class Lockspace:
    """What the documents say that a lockspace keeps."""

    name: str
    nodeid: int
    id: int = 0
    stop: int = 0
    start: int = 0
    finish: int = 0
    terminate: int = 0
    done: int = 0
    pending: list[int] | None = None
    running: bool = False
    recovering: int | None = None
    state: str = "INIT"
    flags: list[int] = field(default_factory=lambda: [0, 0, 0])
    starts: list[tuple[int, list[int]]] = field(default_factory=list)
    joined: str = ""
    """How the join was answered: "", "ok", or the name of the errno."""
    event_done: int | None = None
    minor: int | None = None
    events: list[str] = field(default_factory=list)

    # ---- April ----------------------------------------------------------------------------------

    def recoverd(self) -> None:
        """Let the recovery thread of April look until there is nothing to do."""
        while self.recovering is None and any(self.flags):
            stop, start, finish = self.flags
            self.flags = [0, 0, 0]
            if self.finish == 0 and self.start == self.stop:
                self.start = self.stop = 0
                self.starts = []
                move = "STOP"
            else:
                self.starts = [each for each in self.starts if each[0] > self.stop]
                move = NEXT_MOVE[stop, start, finish][0 if self.starts else 1]
                self.check(move)
            if self.running or move not in STATES[self.state]:
                raise Panic
            after = STATES[self.state][move].split()
            if "START" in move:
                nr, members = self.starts[-1]
                self.starts = []
                if set(members) != {self.nodeid}:
                    self.recovering = nr
                else:
                    self.ended(nr, after[0])
            else:
                self.state = after[0]
                self.running = self.state == "CLEAR"

    def check(self, move: str) -> None:
        """Fail where the table's last column does not hold."""
        holds = {
            "FINISH": self.start > self.stop and self.finish == self.start,
            "START": self.start > self.stop,
            "STOP": self.start == self.stop,
            "FINISH_STOP": self.finish == self.start == self.stop,
            "FINISH_START": self.start > self.finish,
        }
        if not holds.get(move, False):
            raise Panic

    def ended(self, nr: int, state: str) -> None:
        """A recovery has succeeded."""
        self.recovering = None
        self.done = nr
        self.state = state
        self.events.append("change")

    def panics(self) -> bool:
        """Say whether the thread would panic now, or when the recovery under way succeeds."""
        trial = copy.deepcopy(self)
        try:
            if trial.recovering is not None:
                trial.ended(trial.recovering, STATES[trial.state]["START"].split()[0])
            trial.recoverd()
        except Panic:
            return True
        return False

    def event(self, what: str, value: int) -> str:
        """Take stop, start, finish or terminate; return "" or the name of the errno."""
        before = copy.deepcopy(self)
        refusal = getattr(self, f"do_{what}")(value)
        if refusal:
            return str(refusal)
        if what in ("start", "finish") and self.panics():
            vars(self).update(vars(before))
            return "EINVAL" if what == "start" else ""
        try:
            self.recoverd()
        except Panic:  # a stop under a finish that the state does not know
            self.state = STATES[self.state]["STOP"]
        return ""

    def do_stop(self, value: int) -> str:
        """5.4."""
        if value != 1:
            return "EINVAL"
        self.stop = self.start
        self.flags[0] = 1
        self.running = False
        if self.recovering is not None:
            self.recovering = None
            self.state = STATES[self.state]["START"].split()[1]
        return ""

    def do_start(self, value: int) -> str:
        """5.5."""
        if self.pending is None or value <= self.start:
            return "EINVAL"
        self.start = value
        self.starts.append((value, self.pending))
        self.pending = None
        self.flags[1] = 1
        self.joined = self.joined or "ok"
        return ""

    def do_finish(self, value: int) -> str:
        """5.6: the writer never learns of a refusal."""
        if value == self.start:
            self.finish = value
            self.flags[2] = 1
        return ""

    def do_terminate(self, value: int) -> str:
        """5.7."""
        if value != 1:
            return "EINVAL"
        self.terminate = 1
        self.joined = self.joined or "EINTR"
        return ""

    # ---- July -----------------------------------------------------------------------------------

    def do_control(self, value: int) -> str:
        """5.10: 0 and 1; no error of a start is told."""
        if value not in (0, 1):
            return "EINVAL"
        if value == 0:
            self.running, self.recovering = False, None
        elif not self.running and self.pending is not None:
            members, self.pending = self.pending, None
            if self.recovering is None:
                self.running = set(members) == {self.nodeid}
                self.recovering = None if self.running else 1
        return ""

    def do_event_done(self, value: int) -> str:
        """3: remembered when nobody waits."""
        self.event_done = value
        return ""


class Node:
    """A node alone, as the documents have it."""

    def __init__(self, abi: str, ours: bytes) -> None:
        self.abi = abi
        self.ours = ours
        self.local: list[bytes] = []
        self.nodeid = 0
        self.spaces: dict[str, Lockspace] = {}
        self.minors: dict[str, int] = {}
        self.answers: list[Answer] = []
        """The answers of creates and removes in the order of their calls; None: it waits."""
        self.events: list[str] = []
        self._creates: list[tuple[int, str]] = []
        self._device: list[tuple[int, int | Lockspace]] = []
        """Who waits for the mutex of the devices: removes (of a minor) and creates that end."""
        self._joining: tuple[int, Lockspace] | None = None
        self._leaving: tuple[int, Lockspace] | None = None

    # ---- attributes -----------------------------------------------------------------------------

    def write(self, name: str, attribute: str, text: bytes) -> Answer:
        """Write an attribute of a lockspace."""
        space = self.spaces.get(name)
        if space is None or attribute not in MODES[self.abi]:
            return "ENOENT"
        if "w" not in MODES[self.abi][attribute]:
            return "EACCES"
        text = text[: PAGE[self.abi]]
        refusal = self._store(space, attribute, text) if text else ""
        self.events += [f"{event} {space.name}" for event in space.events]
        space.events.clear()
        self._go_on()
        return refusal or len(text)

    def _store(self, space: Lockspace, attribute: str, text: bytes) -> str:
        if attribute == "members":
            members = nodeids(text)
            if members is None or space.pending is not None:
                return "EINVAL"
            space.pending = members
            return ""
        value = number(text)
        if attribute == "id":
            space.id = value % (1 << 32)
            return ""
        if self.abi == "event":
            return space.event(attribute, value)
        return str(getattr(space, f"do_{attribute}")(value))

    def read(self, name: str, attribute: str) -> Answer:
        """Read an attribute of a lockspace."""
        space = self.spaces.get(name)
        if space is None or attribute not in MODES[self.abi]:
            return "ENOENT"
        if "r" not in MODES[self.abi][attribute]:
            return "EACCES"
        if attribute == "members":
            return b"%d \n" % space.nodeid if space.running else "EBUSY"
        return b"%d\n" % getattr(space, attribute)

    # ---- create and release ---------------------------------------------------------------------

    def create(self, name: str) -> None:
        """Begin a create; its answer is the next of ``answers``."""
        self.answers.append(None)
        self._creates.append((len(self.answers) - 1, name))
        self._go_on()

    def remove(self, minor: int) -> None:
        """Begin a remove; its answer is the next of ``answers``."""
        self.answers.append(None)
        self._device.append((len(self.answers) - 1, minor))
        self._go_on()

    def _go_on(self) -> None:
        while self._join() or self._begin_create() or self._leave() or self._take_device():
            pass

    def _begin_create(self) -> bool:
        if self._joining or not self._creates:
            return False
        call, name = self._creates.pop(0)
        if not self.spaces and not self.local:
            self.answers[call] = "EINVAL"
        elif not self.spaces and self.local[0] != self.ours:
            self.answers[call] = "EADDRNOTAVAIL"
        elif name in self.spaces:
            self.answers[call] = "EEXIST"
        else:
            space = self.spaces[name] = Lockspace(name, self.nodeid)
            self._joining = (call, space)
            self.events += [f"add {name}", f"online {name}"]
        return True

    def _join(self) -> bool:
        if self._joining is None:
            return False
        call, space = self._joining
        answer: Answer = None
        if self.abi == "event":
            answer = space.joined or None
        elif space.event_done is not None:
            value, space.event_done = space.event_done, None
            # 6.2: a negative number is an errno, a positive one comes back like a minor.
            answer = value if value > 0 else errno.errorcode.get(-value, str(-value))
            answer = answer if value else "ok"
        if answer is None:
            return False
        self._joining = None
        if answer == "ok":
            self._device.append((call, space))
            return True
        self.answers[call] = answer
        del self.spaces[space.name]
        self.events.append(f"remove {space.name}")
        return True

    def _take_device(self) -> bool:
        if self._leaving or not self._device:
            return False
        call, what = self._device.pop(0)
        if isinstance(what, Lockspace):
            what.minor = next(m for m in MINORS if m not in self.minors.values())
            self.minors[what.name] = what.minor
            self.answers[call] = what.minor
            return True
        space = next((s for s in self.spaces.values() if s.minor == what), None)
        if space is None:
            self.answers[call] = "EINVAL"
        else:
            self._leaving = (call, space)
            self.events.append(f"offline {space.name}")
        return True

    def _leave(self) -> bool:
        if self._leaving is None:
            return False
        call, space = self._leaving
        if not (space.terminate if self.abi == "event" else space.event_done is not None):
            return False
        self._leaving = None
        self.answers[call] = 136
        del self.spaces[space.name], self.minors[space.name]
        self.events.append(f"remove {space.name}")
        return True

    # ---- dlm-node (4.1) -------------------------------------------------------------------------

    def ioctl(self, request: int, argument: bytes, capable: bool) -> Answer:
        """Make an ioctl on dlm-node; return the bytes that come back, or the errno's name."""
        if not capable:
            return "EACCES"
        if request // 256 % 256 != 0xD1:
            return "ENOTTY"
        if len(argument) < 12:
            return "EFAULT"
        major, minor, _ = struct.unpack("<3I", argument[:12])
        if major != 1 or minor > 0:
            return "EINVAL"
        answer = struct.pack("<3I", 1, 0, 0) + argument[12:]
        if request % 256 == 0:
            return answer
        if len(argument) < 276:
            return "EFAULT"
        if request % 256 == 2:
            if len(self.local) == 3:
                return "EINVAL"
            address = argument[20:148]
            (self.nodeid,) = struct.unpack("<i", argument[12:16])
            if self.abi == "event" or address not in self.local:
                self.local.append(address)
        return answer
