"""The verbs on a lockspace's life: create, release, terminate, set_id.

Decides: what may be sent when, what is waited for, and who answers a join or a leave.
May not know: how the kernel is told.

A join or leave is answered exactly once: an answer that nobody waits for is remembered by the
kernel and answers the next wait (Linux 6.1 fs/dlm/lockspace.c, dlm_event_store()).
"""

from __future__ import annotations

import errno

from dlm.control.checks import check_lockspace, check_lockspace_id
from dlm.control.common import (
    absent,
    check_controller,
    device_of,
    dialect,
    find,
    find_with_state,
    in_the_way,
    say_in_the_way,
)
from dlm.control.plan import (
    Begun,
    Note,
    Plan,
    Result,
    Waiting,
    WaitUntil,
    locked,
)
from dlm.control.reasons import CheckError, Reason
from dlm.control.seen import Phase, Seen
from dlm.control.state import NO_ANSWER, LockspaceState, forget, recall, remember, update
from dlm.errors import RefusedError

TERMINATED = errno.ECANCELED
"""The errno that a create ends with when its join is terminated.

Not EINTR: programs (Python's write among them) begin an interrupted call again, and would create
the lockspace once more.
"""


# ---- create -------------------------------------------------------------------------------------


def create(
    name: str, *, wait: bool = False, exclusive: bool = False, force: bool = False
) -> Plan[int | None]:
    """Create a lockspace on this node; returns once it is there, and still joins.

    The rest of the join goes on without the caller, until ``start`` has answered it and the first
    recovery has ended; ``wait`` waits for that. A lockspace that runs is only used once more, or
    refused with EEXIST when ``exclusive``; one that joins is refused with EBUSY unless ``wait``.
    Returns the device's minor when the join is over.
    """
    check_lockspace(name)
    yield from check_controller(force)
    if not (yield from dialect.has_module()):
        raise (yield from absent(name))
    # Newer kernels use the local node without asking whether there is one (6.12: an oops).
    if (yield from dialect.nodes()).local is None:
        raise CheckError(Reason.NO_LOCAL_NODE, "no node was set as this one")
    before = yield from dialect.look(name)
    if before is not None and before.phase is Phase.JOINING and not wait:
        # It would wait for the end of that join, and make a second user.
        raise CheckError(Reason.JOINS, f"lockspace {name} is there and still joins")
    other = yield from in_the_way(name)
    if other is not None:
        yield Note(f"create {name} waits for {say_in_the_way(other)}")
    begun = yield from dialect.begin_create(name, exclusive)
    yield WaitUntil(lambda: _created(name, before, begun), f"/sys/kernel/dlm/{name} is there")
    if not (wait or begun.done()):
        return None
    minor: int | None = yield Result(begun, f"the join of {name} to end")
    if before is not None and before.phase is Phase.RUNNING:
        yield Note(f"lockspace {name} was there: it has one more user now")
    return minor


def _created(name: str, before: Seen | None, begun: Begun) -> Plan[bool | Waiting]:
    if begun.done():
        return True
    there = yield from dialect.is_complete(name)
    if there is not None and (before is None or there.inode != before.inode):
        return True
    other = (yield from in_the_way(name)) or before
    if other is not None and other.phase in {Phase.JOINING, Phase.LEAVING}:
        return Waiting(say_in_the_way(other))
    return Waiting(f"/sys/kernel/dlm/{name} to appear")


# ---- release ------------------------------------------------------------------------------------


def release(name: str, *, answer: bool = True, force: bool = False) -> Plan[None]:
    """Remove a lockspace from this node, with all its locks; returns once it has gone.

    The leave is answered here, unless ``answer`` is false: then the plan returns as soon as the
    leave waits for ``terminate``. A lockspace with more users only loses one.
    """
    check_lockspace(name)
    yield from check_controller(force)
    command = f"release {name}" + NO_ANSWER * (not answer)
    seen, state = yield from find_with_state(name)
    if answer and state.doing == command and seen.phase is Phase.LEAVING and seen.minor is None:
        yield from _finish_release(seen)
        return
    seen, minor = yield from _joined(name)
    other = yield from in_the_way(name)
    if other is not None:
        yield Note(f"release {name} waits for {say_in_the_way(other)}")
    again = state.doing == command
    yield from locked(lambda: update(seen, lambda state: state.replace(doing=command)))
    begun = yield from dialect.begin_remove(name, minor)
    leaves = yield WaitUntil(lambda: _leaves(seen, begun), f"{name} leaves", dry=True)
    if leaves and answer:
        yield from locked(lambda: _answer(seen, leave=True))
    if leaves and not answer and not begun.done():
        yield from _end(seen)
        return
    try:
        yield Result(
            begun, f"every open file on dlm_{name} to be closed, and other nodes to let go"
        )
    except RefusedError:
        if not again or (yield from _is_same(seen)):
            yield from _end(seen)
            raise
        # The removal of before had been asked for: it came first, and has just gone through.
    if not (begun.done() or again):  # a dry run
        return
    if (yield from _is_same(seen)):
        yield Note(f"lockspace {name} has other users: it only has one less now")
        yield from _end(seen)
    else:
        yield from forget(name)


def _end(seen: Seen) -> Plan[None]:
    """Remember that the verb which was begun has ended."""
    yield from locked(lambda: update(seen, lambda state: state.replace(doing="")))


def _finish_release(seen: Seen) -> Plan[None]:
    """Answer the leave of a release that was interrupted, and wait until it is over."""
    yield from locked(lambda: _answer(seen, leave=True, again=True))

    def check() -> Plan[bool | Waiting]:
        if (yield from _is_same(seen)):
            return Waiting(f"every open file on dlm_{seen.name} to be closed")
        return True

    yield WaitUntil(check, f"{seen.name} has gone")
    yield from forget(seen.name)


def _joined(name: str) -> Plan[tuple[Seen, int]]:
    """Return a lockspace with its device; the end of a join, which makes it, is waited for."""

    def check() -> Plan[tuple[Seen, int] | Waiting]:
        seen = yield from find(name)
        if seen.minor is not None:
            return seen, seen.minor
        if seen.phase is Phase.JOINING and seen.done:
            return Waiting(f"the device dlm_{name} to come")
        reason = Reason.LEAVES if seen.phase is Phase.LEAVING else Reason.JOINS
        raise CheckError(reason, f"lockspace {name} is still {seen.phase.value}")

    joined: tuple[Seen, int] = yield WaitUntil(check, f"dlm_{name} is there")
    return joined


def _leaves(seen: Seen, begun: Begun) -> Plan[bool | Waiting]:
    """Tell when the removal waits for its answer, or would take one that comes early."""
    if begun.done():
        return False
    if (yield from dialect.takes_answer(seen.name)):
        return True
    other = yield from in_the_way(seen.name)
    if other is not None:
        return Waiting(say_in_the_way(other))
    return Waiting(f"the device {device_of(seen.name)} to go")


def _is_same(seen: Seen) -> Plan[bool]:
    now = yield from dialect.look(seen.name)
    return now is not None and now.inode == seen.inode


# ---- answers ------------------------------------------------------------------------------------


def terminate(name: str, *, force: bool = False) -> Plan[None]:
    """End the wait of a join, which then fails with ECANCELED, or let a leave go on.

    Refused when nothing waits, and with EALREADY when the wait was answered, or when a start was
    interrupted at its answer; ``force`` answers all the same. A leave that the kernel does not
    show, and that was not begun here, must be forced.
    """
    check_lockspace(name)
    yield from check_controller(force)
    yield from locked(lambda: _terminate(name, force))


def _terminate(name: str, force: bool) -> Plan[None]:
    seen, state = yield from find_with_state(name)
    if seen.phase not in {Phase.JOINING, Phase.LEAVING}:
        shown = yield from dialect.shows_leaves()
        if shown or not force:
            nothing = "nothing waits there" if shown else "nothing shows that it leaves"
            text = f"lockspace {name} is {seen.phase.value}: {nothing}"
            raise CheckError(Reason.NOTHING_WAITS if shown else Reason.NOT_SHOWN, text)
    leave = seen.phase is not Phase.JOINING
    if not force and not leave and state.unsure and state.last_start:
        # An answer that nobody waits for would be kept for the leave.
        text = f"the join of {name} was answered already, or was about to be"
        raise CheckError(Reason.MAYBE_ANSWERED, text)
    force = force or state.unsure
    if not force and (state.leave_answered if leave else state.join_answered):
        what = "leave" if leave else "join"
        raise CheckError(Reason.ANSWERED, f"the {what} of {name} was answered already")
    yield from _answer(seen, leave=leave, again=force)


def _answer(seen: Seen, *, leave: bool, again: bool = False) -> Plan[None]:
    """Answer once: it is remembered first, so that a crash can only answer too little."""
    state = yield from recall(seen)
    known = state.leave_answered if leave else state.join_answered
    if known and not (again or state.unsure):
        return
    marked = answered(state, leave=leave)
    doing = state.doing or f"terminate {seen.name}"
    yield from remember(seen, marked.replace(unsure=True, doing=doing))
    try:
        if leave:
            yield from dialect.answer_leave(seen.name)
        else:
            yield from dialect.answer_join(seen.name, -TERMINATED)
    except RefusedError as error:
        yield from remember(seen, state)
        if not (leave and error.errno in {errno.ENOENT, errno.ENODEV}):
            raise  # a lockspace that has gone needed no answer
    else:
        yield from remember(seen, marked.replace(unsure=False, doing=""))


def answered(state: LockspaceState, *, leave: bool) -> LockspaceState:
    """Return the state once the join, or the leave, was answered."""
    return state.replace(leave_answered=True) if leave else state.replace(join_answered=True)


# ---- set_id -------------------------------------------------------------------------------------


def set_id(name: str, number: int, *, force: bool = False) -> Plan[None]:
    """Give a lockspace its global id, between create and the first start.

    The nodes know a lockspace by this number: refused with EEXIST when another lockspace of this
    node has it, and with EBUSY while the lockspace is not stopped and the number would change.
    """
    check_lockspace(name)
    check_lockspace_id(number)
    yield from check_controller(force)
    seen = yield from find(name)
    if not force:
        yield from _check_id(seen, number)
    yield from dialect.write_id(name, number)


def _check_id(seen: Seen, number: int) -> Plan[None]:
    if seen.status and (yield from dialect.read_id(seen.name)) != number:
        raise CheckError(Reason.RUNS, f"lockspace {seen.name} is {seen.phase.value}")
    for other in (yield from dialect.lockspaces()):
        if other != seen.name and (yield from dialect.read_id(other)) == number:
            raise CheckError(Reason.ID_TAKEN, f"lockspace {other} has the id {number}")
