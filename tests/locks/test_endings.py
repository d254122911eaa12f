"""How locks end when something else does: a timeout, a block, a file, a process, a node, a stop.

docs/locks/endings.md has the table that these tests hold.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dlm.abi.device import Command, LockRequest
from dlm.errors import DlmError
from dlm.locks import (
    Ending,
    LockBusyError,
    LockCancelledError,
    LockError,
    Lockspace,
    LockspaceClosedError,
    LockspaceLostError,
    LockTimedOutError,
    LockUsageError,
    NoLockError,
    NoLockspaceError,
    WouldBlockError,
)
from dlm.terms import LockFlag, LockMode
from tests.locks.conftest import ON_KERNEL
from tests.locks.worlds import NAME, PATIENCE, EmulatedWorld, Places, ServedWorld

NL, CR, CW, PR, PW, EX = LockMode


@pytest.fixture
def space(world: Places) -> Iterator[Lockspace]:
    """A program that has the lockspace open."""
    with Lockspace.open(world.process(), NAME) as lockspace:
        yield lockspace


# ---- refusals -----------------------------------------------------------------------------------


def test_would_block(space: Lockspace) -> None:
    """NOQUEUE: EAGAIN, with lockspace and name; None from try_lock."""
    with space.lock("res", EX):
        with pytest.raises(WouldBlockError) as caught:
            space.lock("res", PR, flags=LockFlag.NOQUEUE)
        assert caught.value.errno == errno.EAGAIN
        assert (caught.value.lockspace, caught.value.name) == (NAME, b"res")
        assert isinstance(caught.value, BlockingIOError)
        assert space.try_lock("res", PR) is None


def test_the_exceptions_are_one_tree() -> None:
    """Each is a DlmError and an OSError; those with a meaning in Python are that too."""
    kinds = (
        WouldBlockError,
        LockTimedOutError,
        LockCancelledError,
        NoLockError,
        NoLockspaceError,
        LockBusyError,
        LockUsageError,
        LockspaceClosedError,
        LockspaceLostError,
    )
    for kind in kinds:
        assert issubclass(kind, LockError), kind
        assert issubclass(kind, DlmError), kind
        assert issubclass(kind, OSError), kind
    assert issubclass(LockTimedOutError, TimeoutError)
    assert issubclass(LockUsageError, ValueError)


def test_a_lockspace_that_is_not_there(world: Places) -> None:
    """Opening one that nobody created is ENOENT, and says its name."""
    with pytest.raises(NoLockspaceError, match="nowhere") as caught:
        Lockspace.open(world.process(), "nowhere")
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("name", ["x" * 65, b"y" * 65, "é" * 33])
def test_names_that_cannot_be(world: Places, space: Lockspace, name: str | bytes) -> None:
    """A name has at most 64 bytes: longer ones are refused before anything is written."""
    with pytest.raises(LockUsageError) as caught:
        space.lock(name)
    assert caught.value.errno == errno.EINVAL
    assert world.locks() == []


def test_unlocking_twice(space: Lockspace) -> None:
    """The second unlock is ENOENT; the lock knows that it has ended."""
    lock = space.lock("res")
    lock.unlock()
    assert not lock.held
    with pytest.raises(NoLockError):
        lock.unlock()


# ---- timeouts -----------------------------------------------------------------------------------


def test_a_timeout_leaves_nothing(world: Places, space: Lockspace) -> None:
    """The request is cancelled in the kernel; the exception says that it is confirmed."""
    with space.lock("res", EX):
        with pytest.raises(LockTimedOutError) as caught:
            space.lock("res", PR, timeout=0.2)
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.ending is Ending.CANCELLED
        assert [each.waits for each in world.locks()] == [False]


def test_a_conversion_that_times_out_keeps_the_old_mode(world: Places, space: Lockspace) -> None:
    """The lock goes back to the mode it had, and can be converted again."""
    other = Lockspace.open(world.process(), NAME)
    with space.lock("res", PR) as lock:
        reader = other.lock("res", PR)
        for _ in range(2):
            with pytest.raises(LockTimedOutError):
                lock.convert(EX, timeout=0.2)
            assert lock.mode == PR
            assert lock.held
        reader.unlock()
        lock.convert(EX, timeout=PATIENCE)
        assert lock.mode == EX


def test_a_timeout_of_0_does_not_wait(space: Lockspace) -> None:
    """What is free is granted, what is not times out at once."""
    with space.lock("res", EX, timeout=0), pytest.raises(LockTimedOutError):
        space.lock("res", PR, timeout=0)


def raw_lock(space: Lockspace, mode: LockMode) -> int:
    """Take a lock by a request of our own, so that its unlock can be begun without waiting."""
    lock_id, completion = space.submit(LockRequest(mode=mode, name=b"res"))
    assert completion.wait(PATIENCE)
    assert completion.status == 0
    return lock_id


def unlock(space: Lockspace, lock_id: int) -> None:
    """Begin to unlock it."""
    space.submit(LockRequest(command=Command.UNLOCK, lock_id=lock_id))


def rest(world: EmulatedWorld, space: Lockspace) -> None:
    """Let a program without threads see to what it left, as its thread does elsewhere."""
    for _ in range(3):
        world.settle()
        space.dispatch()


STEPS = 240
STEP = 0.000_025
"""Virtual seconds between two tries; a message between nodes takes some hundred microseconds."""


def test_a_grant_that_races_with_a_timeout(three: EmulatedWorld) -> None:
    """Whenever the holder lets go around the end of the timeout, the outcome is one of two.

    Either the caller has the lock, or it was told that it has not; in no case is anything left that
    nobody knows of. Master, holder and waiter are three nodes, so that cancel, grant, unlock and
    their answers cross on the way in every order that 6 ms in steps of 25 µs can produce.
    """
    holder = Lockspace.open(three.process(1), NAME)
    waiter = Lockspace.open(three.process(3), NAME)
    anchor = Lockspace.open(three.process(2), NAME)
    outcomes = set()
    with anchor.lock("res", NL):  # node 2 is the master
        for step in range(STEPS):
            lock_id = raw_lock(holder, EX)
            three.later(0.05 + (step - STEPS // 2) * STEP, lambda id_=lock_id: unlock(holder, id_))
            try:
                won = waiter.lock("res", EX, timeout=0.05)
            except LockTimedOutError as error:
                outcomes.add(error.ending)
                rest(three, waiter)
                assert three.locks(3) == [], step
            else:
                outcomes.add(None)
                rest(three, waiter)
                assert three.held(3) == [(b"res", EX)], step
                won.unlock()
            three.settle()
            assert [three.held(node) for node in three.nodes] == [[], [(b"res", NL)], []], step
    assert outcomes == {None, Ending.CANCELLED}


def test_a_conversion_that_races_with_a_timeout(three: EmulatedWorld) -> None:
    """The same for a conversion: the lock says the mode that the kernel holds it in."""
    holder = Lockspace.open(three.process(1), NAME)
    waiter = Lockspace.open(three.process(3), NAME)
    anchor = Lockspace.open(three.process(2), NAME)
    modes = set()
    with anchor.lock("res", NL), waiter.lock("res", CR) as lock:
        for step in range(STEPS):
            lock_id = raw_lock(holder, PR)
            three.later(0.05 + (step - STEPS // 2) * STEP, lambda id_=lock_id: unlock(holder, id_))
            with suppress(LockTimedOutError):
                lock.convert(EX, timeout=0.05)
            rest(three, waiter)
            modes.add(lock.mode)
            assert three.held(3) == [(b"res", lock.mode)], step
            assert [each.waits for each in three.locks(3)] == [False], step
            lock.convert(CR)
            assert three.held(1) == []
    assert modes == {CR, EX}


# ---- the end of a block, of a file --------------------------------------------------------------


def test_an_exception_inside_with_unlocks(world: Places, space: Lockspace) -> None:
    """The block's own exception comes out, and the lock is gone."""
    with pytest.raises(ZeroDivisionError), space.lock("res", EX):
        _ = 1 / 0
    assert world.locks() == []


def test_a_block_whose_lock_was_unlocked_already(world: Places, space: Lockspace) -> None:
    """Unlocking inside the block is fine: its end then has nothing to do."""
    with space.lock("res", EX) as lock:
        lock.unlock()
    assert world.locks() == []


def test_close_drops_the_locks(world: Places) -> None:
    """All locks of the file go with it, in every mode; closing twice is fine."""
    space = Lockspace.open(world.process(), NAME)
    locks = [space.lock(f"res{mode}", mode) for mode in LockMode]
    space.close()
    space.close()
    assert space.closed
    assert not any(lock.held for lock in locks)
    world.eventually(lambda: world.locks() == [], "the end of the locks")


def test_close_gives_every_descriptor_back(live: Places) -> None:
    """A program that opens and closes all day, waiting in threads, keeps no descriptor."""
    backend = live.process()
    holder = Lockspace.open(live.process(), NAME)

    def use() -> None:
        with Lockspace.open(backend, NAME) as space:
            with suppress(LockTimedOutError):
                space.lock("res", timeout=0.01)
            thread = threading.Thread(target=wait, args=[space])
            thread.start()
            live.eventually(lambda: any(each.waits for each in live.locks()), "one that waits")
        thread.join(PATIENCE)

    def wait(space: Lockspace) -> None:
        with suppress(LockspaceClosedError):
            space.lock("res")

    with holder.lock("res", EX):
        use()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            use()
        assert len(os.listdir("/proc/self/fd")) == before
    holder.close()


def test_nothing_can_be_asked_of_a_closed_lockspace(world: Places) -> None:
    """Every call says that it is closed: EBADF."""
    space = Lockspace.open(world.process(), NAME)
    lock = space.lock("res")
    space.close()
    calls = (
        lambda: space.lock("res"),
        lambda: space.try_lock("res"),
        lambda: space.adopt("res", EX),
        space.purge,
        lambda: lock.convert(PR),
    )
    for call in calls:
        with pytest.raises((LockspaceClosedError, NoLockError)):
            call()


def test_close_ends_the_waits_of_other_threads(live: Places) -> None:
    """Who waits when the lockspace is closed gets EBADF, and at once."""
    holder = Lockspace.open(live.process(), NAME)
    space = Lockspace.open(live.process(), NAME)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            space.lock("res", EX)
        except LockError as error:
            caught.append(error)

    with holder.lock("res", EX):
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        live.eventually(lambda: sum(e.waits for e in live.locks()) == 3, "three that wait")
        space.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert [type(each) for each in caught] == [LockspaceClosedError] * 3
        live.eventually(lambda: len(live.locks()) == 1, "the end of what waited")


# ---- the end of a process -----------------------------------------------------------------------


PRELUDE = """
import os, signal, sys, threading
import dlm
from dlm.locks import Lockspace, LockMode
space = Lockspace.open(dlm.connect(sys.argv[1]), "test")
"""


def start(world: Places, program: str) -> subprocess.Popen[str]:
    """Start a program of its own; when it prints a line it has done what it is to do."""
    text = PRELUDE + textwrap.dedent(program)
    process = subprocess.Popen(
        [sys.executable, "-c", text, world.spec()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end_of(program: subprocess.Popen[str]) -> int:
    """Wait for the end of a program; return its exit code."""
    code = program.wait(PATIENCE)
    for pipe in (program.stdin, program.stdout):
        assert pipe is not None
        pipe.close()
    return code


def test_the_end_of_the_interpreter(live: Places) -> None:
    """A program that just ends needs no clean-up: its locks go, its exit code is its own."""
    program = start(
        live,
        """
        lock = space.lock("res", LockMode.EX)
        lock.on_blocking(print)
        print("ready", flush=True)
        sys.stdin.read()
        """,
    )
    assert live.held() == [(b"res", EX)]
    assert program.communicate(timeout=PATIENCE) == ("", None)
    assert program.returncode == 0
    live.eventually(lambda: live.locks() == [], "the end of its lock")


def test_the_end_of_the_interpreter_with_threads_that_wait(live: Places) -> None:
    """Threads in the middle of a wait do not keep a program from ending if they are daemons."""
    with Lockspace.open(live.process(), NAME) as space, space.lock("res", EX):
        program = start(
            live,
            """
            for timeout in (None, 600):
                wait = lambda timeout=timeout: space.lock("res", timeout=timeout)
                threading.Thread(target=wait, daemon=True).start()
            print("ready", flush=True)
            sys.stdin.read()
            """,
        )
        live.eventually(lambda: sum(e.waits for e in live.locks()) == 2, "two that wait")
        program.communicate(timeout=PATIENCE)
        assert program.returncode == 0
        live.eventually(lambda: len(live.locks()) == 1, "the end of what waited")


def test_a_killed_process(live: Places) -> None:
    """SIGKILL in the middle: held locks go, what waited goes, what was persistent is an orphan."""
    with Lockspace.open(live.process(), NAME) as space:
        held = space.lock("other", EX)
        program = start(
            live,
            """
            plain = space.lock("plain", LockMode.EX)
            kept = space.lock("kept", LockMode.PR, persistent=True)
            threading.Thread(target=space.lock, args=("other",), daemon=True).start()
            print("ready", flush=True)
            signal.pause()
            """,
        )
        live.eventually(lambda: any(e.waits for e in live.locks()), "one that waits")
        program.send_signal(signal.SIGKILL)
        program.communicate(timeout=PATIENCE)
        live.eventually(lambda: live.held() == [(b"kept", PR), (b"other", EX)], "its end")
        assert not any(each.waits for each in live.locks())
        held.unlock()
        space.adopt("kept", PR).unlock()
        assert live.locks() == []


def test_a_forked_child_does_not_keep_the_parents_locks(live: Places) -> None:
    """The child's copies are closed at once: when the parent ends, its locks go."""
    program = start(
        live,
        """
        lock = space.lock("res", LockMode.EX)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # lives as long as the test wants
            os._exit(0)
        print("ready", flush=True)
        sys.stdin.readline()
        os.set_inheritable(writing, True)
        if os.fork() == 0:  # holds the pipe, so that the first child lives on
            os.execv("/bin/sh", ["sh", "-c", "read line"])
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert live.held() == [(b"res", EX)]
    assert program.stdin is not None
    program.stdin.write("\n")
    program.stdin.flush()
    program.wait(PATIENCE)
    live.eventually(lambda: live.locks() == [], "the end of the lock while a child lives")
    end_of(program)


def test_a_forked_child_may_not_use_the_parents_lockspace(live: Places) -> None:
    """In the child the lockspace is closed (EBADF) and its locks are not held."""
    with Lockspace.open(live.process(), NAME) as space, space.lock("res", EX) as lock:
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                try:
                    space.lock("other")
                except LockspaceClosedError:
                    code = 0 if space.closed and not lock.held else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert live.held() == [(b"res", EX)]
        lock.convert(PR)
        assert live.held() == [(b"res", PR)]


# ---- the end of the lockspace -------------------------------------------------------------------


def test_a_node_that_crashes(emulated: EmulatedWorld) -> None:
    """What waited ends with LockspaceLostError, and so does every later call."""
    space = Lockspace.open(emulated.process(), NAME)
    other = Lockspace.open(emulated.process(), NAME)
    other.lock("res", EX)
    emulated.later(0.1, lambda: emulated.cluster.crash("node1"))
    with pytest.raises(LockspaceLostError) as caught:
        space.lock("res", EX)
    assert caught.value.errno == errno.EIO
    with pytest.raises(LockspaceLostError):
        space.lock("other")
    space.close()
    emulated.cluster.restart("node1")


@pytest.mark.skipif(ON_KERNEL, reason="a served emulator's connection: `make test` runs it")
def test_a_connection_that_drops() -> None:
    """A server that goes away takes the process that it was with it: every wait ends."""
    world = ServedWorld((1,))
    try:
        space = Lockspace.open(world.process(), NAME)
        other = Lockspace.open(world.process(), NAME)
        other.lock("res", EX)
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                space.lock("res", EX)
            except LockError as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        world.eventually(lambda: any(e.waits for e in world.locks()), "one that waits")
        world.served.cut()
        thread.join(PATIENCE)
        assert [type(each) for each in caught] == [LockspaceLostError]
        with pytest.raises(LockspaceLostError):
            space.lock("other")
        space.close()
    finally:
        world.finish()


def test_release_while_others_hold_locks(world: Places, space: Lockspace) -> None:
    """Removing a lockspace that somebody uses is EBUSY, and nothing has changed."""
    with space.lock("res", EX):
        mine = Lockspace.open(world.process(), NAME)
        with pytest.raises(LockBusyError) as caught:
            mine.release(timeout=PATIENCE)
        assert caught.value.errno == errno.EBUSY
        assert world.held() == [(b"res", EX)]


# ---- a stop -------------------------------------------------------------------------------------


def test_a_timeout_that_falls_into_a_stop(world: Places, space: Lockspace) -> None:
    """It raises at once and says that the answer is still out; that is drained and undone later."""
    world.stop()
    with pytest.raises(LockTimedOutError) as caught:
        space.lock("res", EX, timeout=0.2)
    assert caught.value.ending is Ending.LEFT
    world.start()
    world.eventually(lambda: (space.dispatch(), world.locks() == [])[1], "the end of it")
    with space.lock("res", EX, timeout=PATIENCE):
        assert world.held() == [(b"res", EX)]


def test_a_lock_that_waits_through_a_stop(live: Places) -> None:
    """Without a timeout a request made while stopped is granted after the start."""
    with Lockspace.open(live.process(), NAME) as space:
        live.stop()
        live.later(0.3, live.start)
        with space.lock("res", EX):
            assert live.held() == [(b"res", EX)]


def test_a_process_ends_although_its_lockspace_is_stopped(live: Places) -> None:
    """A real kernel keeps the process until the start at the latest; then all of it is gone."""
    program = start(
        live,
        """
        lock = space.lock("res", LockMode.EX)
        print("ready", flush=True)
        sys.stdin.read()
        """,
    )
    live.stop()
    assert program.stdin is not None
    program.stdin.close()
    live.settle()
    live.start()
    assert end_of(program) == 0
    live.eventually(lambda: live.locks() == [], "the end of its lock")
