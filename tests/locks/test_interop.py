"""A C program on libdlm and a Python program share a lockspace on the same real node.

The C program (partner.c) does what it is told by lines. Linux 6.1 and libdlm 4.2.
"""

from __future__ import annotations

import errno
import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlm.locks import DeadlockError, Lockspace, LockTimedOutError
from dlm.terms import EUNLOCK, LockFlag, LockMode
from tests.locks import libdlm
from tests.locks.conftest import ON_KERNEL
from tests.locks.worlds import NAME, PATIENCE, Places
from tests.needs import missing

pytestmark = pytest.mark.skipif(
    not ON_KERNEL, reason="libdlm needs a kernel's devices: run `make vm`"
)

NL, CR, CW, PR, PW, EX = LockMode
VALBLK, NOQUEUE = int(LockFlag.VALBLK), int(LockFlag.NOQUEUE)
PERSISTENT = int(LockFlag.PERSISTENT)
SOURCE = Path(__file__).with_name("partner.c")

COMPATIBLE = {
    NL: {NL, CR, CW, PR, PW, EX},
    CR: {NL, CR, CW, PR, PW},
    CW: {NL, CR, CW},
    PR: {NL, CR, PR},
    PW: {NL, CR},
    EX: {NL},
}


class Partner:
    """The C program: commands, their answers, and what it says by itself."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [str(program), NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._news: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def say(self, command: str) -> str:
        """Give a command and return its answer; news that come before it are kept."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        while True:
            line = self._lines.get(timeout=PATIENCE)
            if line.startswith(("ok", "refused")):
                return line
            self._news.append(line)

    def news(self) -> str:
        """Wait for the next thing that it says by itself."""
        return self._news.pop(0) if self._news else self._lines.get(timeout=PATIENCE)

    def done(self) -> tuple[int, int, int, bytes]:
        """Wait for a completion: which lock, status, flags, value block."""
        word, tag, status, flags, value = self.news().split()
        assert word == "done"
        return int(tag), int(status), int(flags), bytes.fromhex(value)

    def granted(self, tag: int, name: str, mode: LockMode, flags: int = 0) -> None:
        """Take a lock that is free."""
        assert self.say(f"lock {tag} {name} {int(mode)} {flags}").startswith("ok")
        assert self.done()[:2] == (tag, 0)

    def end(self, *, kill: bool = False) -> None:
        """End the program, in order or by SIGKILL."""
        assert self.process.stdin is not None
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled C program."""
    if lacking := libdlm.is_missing():
        missing(lacking, libdlm.REMEDY)
    return libdlm.compiled(SOURCE, tmp_path_factory.mktemp("partner"))


@pytest.fixture
def partner(live: Places, program: Path) -> Iterator[Partner]:  # noqa: ARG001 - it runs there
    """A C program that has the lockspace open."""
    libdlm.show_devices(NAME)
    partner = Partner(program)
    yield partner
    partner.end(kill=True)


@pytest.fixture
def ours(live: Places) -> Iterator[Lockspace]:
    """The same lockspace, opened by this process."""
    with Lockspace.open(live.process(), NAME) as lockspace:
        yield lockspace


@pytest.mark.parametrize("held", LockMode)
def test_modes_exclude_each_other_across_languages(
    ours: Lockspace, partner: Partner, held: LockMode
) -> None:
    """What Python holds decides what C gets, and the other way round, for all 36 pairs."""
    with ours.lock("res", held):
        for asked in LockMode:
            assert partner.say(f"lock 1 res {int(asked)} {NOQUEUE}").startswith("ok")
            expected = 0 if asked in COMPATIBLE[held] else errno.EAGAIN
            assert partner.done()[:2] == (1, expected), asked
            if expected == 0:
                assert partner.say("unlock 1 0") == "ok"
                assert partner.done()[:2] == (1, EUNLOCK)
    partner.granted(2, "res", held)
    for asked in LockMode:
        lock = ours.try_lock("res", asked)
        assert (lock is not None) == (asked in COMPATIBLE[held]), asked
        if lock is not None:
            lock.unlock()


def test_python_waits_for_c_and_c_is_told(ours: Lockspace, partner: Partner) -> None:
    """A request of Python's that times out has blocked C's lock, and C heard of it."""
    partner.granted(0, "res", EX)
    with pytest.raises(LockTimedOutError):
        ours.lock("res", PR, timeout=0.2)
    assert partner.news() == "blocking 0"


def test_c_waits_for_python_and_python_is_told(ours: Lockspace, partner: Partner) -> None:
    """C's request tells Python's holder its mode; C is granted when Python lets go."""
    told: queue.Queue[LockMode] = queue.Queue()
    lock = ours.lock("res", EX)
    lock.on_blocking(told.put)
    assert partner.say(f"lock 0 res {int(PR)} 0").startswith("ok")
    assert told.get(timeout=PATIENCE) == PR
    lock.unlock()
    assert partner.done()[:2] == (0, 0)


def test_c_reads_what_python_wrote(ours: Lockspace, partner: Partner) -> None:
    """A value block that Python wrote under EX arrives in C with its lock."""
    with ours.lock("res", EX, value_block=True) as lock:
        lock.value = b"from Python"
        partner.granted(0, "other", EX, VALBLK)
        assert partner.say(f"lock 1 res {int(PR)} {VALBLK}").startswith("ok")
    assert partner.done() == (1, 0, 0, b"from Python".ljust(32, b"\0"))


def test_python_reads_what_c_wrote(ours: Lockspace, partner: Partner) -> None:
    """A value block that C wrote by a conversion from EX arrives in Python, valid."""
    partner.granted(0, "res", EX, VALBLK)
    assert partner.say(f"value 0 {b'from C'.ljust(32, bytes(1)).hex()}") == "ok"
    assert partner.say(f"convert 0 0 {VALBLK}") == "ok"
    assert partner.done()[:2] == (0, 0)
    with ours.lock("res", PR, value_block=True) as lock:
        assert lock.value == b"from C".ljust(32, b"\0")
        assert lock.value_valid


def test_a_killed_holder_leaves_a_value_that_is_not_valid(
    ours: Lockspace, partner: Partner
) -> None:
    """When a C program dies in EX its lock goes, and Python is told not to trust the value."""
    with ours.lock("res", EX, value_block=True) as lock:
        lock.value = b"written once"
        lock.convert(NL)
        partner.granted(0, "res", EX, VALBLK)
        partner.end(kill=True)
        lock.convert(PR, timeout=PATIENCE)
        assert not lock.value_valid


def test_python_adopts_what_a_c_program_left(ours: Lockspace, partner: Partner) -> None:
    """A lock that C made persistent outlives it as an orphan, which Python takes over."""
    partner.granted(0, "res", EX)
    assert partner.say(f"convert 0 {int(EX)} {PERSISTENT}") == "ok"
    assert partner.done()[:2] == (0, 0)
    partner.end()
    assert [(each.name, each.mode) for each in ours.orphans()] == [(b"res", EX)]
    lock = ours.adopt("res", EX)
    assert ours.try_lock("res", EX) is None
    lock.unlock()
    assert ours.orphans() == []


def test_a_conversion_deadlock_across_languages(ours: Lockspace, partner: Partner) -> None:
    """Both hold PR and want EX: the second is refused, and once it lets go the first gets it."""
    partner.granted(0, "res", PR)
    with ours.lock("res", PR) as lock:
        assert partner.say(f"convert 0 {int(EX)} 0") == "ok"
        with pytest.raises(DeadlockError):
            lock.convert(EX)
        assert lock.mode == PR
    assert partner.done()[:2] == (0, 0)
