"""Where real kernels go wrong: a strict machine raises, another one does the sane thing.

That it is sane is shown where each rule has its tests; here only that it is told.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm.core import hazards
from dlm.core.events import Input, Output
from dlm.core.hazards import Hazard
from dlm.core.messages import MessageType
from dlm.errors import KernelHazardError
from dlm.terms import KERNELS
from tests.unit.core.world import CR, CW, EX, NL, PR, F, User, World, types

T = MessageType


def unlock_orphan(world: World) -> None:
    """Unlock by id what a closed file left."""
    owner = world.user(1)
    lock_id = owner.lock(world.name(directory=1), EX, F.PERSISTENT)
    owner.close()
    world.user(1).unlock(lock_id)


def unlock_what_a_close_could_not(world: World) -> None:
    """Unlock a lock that its file's close left, because FORCEUNLOCK was among its flags."""
    owner = world.user(1)
    lock_id = owner.lock(world.name(directory=1), EX, F.FORCEUNLOCK)
    owner.close()
    world.user(1).unlock(lock_id)


def force_what_a_closed_file_left(world: World) -> None:
    """Unlock an orphan with FORCEUNLOCK, and with a value block."""
    owner = world.user(1)
    lock_id = owner.lock(world.name(directory=1), EX, F.PERSISTENT | F.VALBLK)
    owner.close()
    world.user(1).unlock(lock_id, F.FORCEUNLOCK | F.IVVALBLK, b"x" * 32)


def force_what_is_still_asked_for(world: World) -> None:
    """The same while its request is under way: the unlock is remembered, the call succeeds."""
    name = world.name(directory=1)
    world.user(1).lock(name, NL)
    world.held = types(T.LOOKUP)
    owner = world.user(2)
    lock_id = owner.lock(name, EX, F.PERSISTENT)
    owner.close()
    world.user(2).force(lock_id)


def purge_dead_orphan(world: World) -> None:
    """Purge after the close of a file whose PERSISTENT request waited; a good orphan is ahead."""
    _leave_dead_orphan(world)
    world.user(1).purge(0, 0)


def purge_dead_orphan_from_afar(world: World) -> None:
    """The same from another node."""
    _leave_dead_orphan(world)
    world.user(2).purge(1, 0)
    world.deliver()


def _leave_dead_orphan(world: World) -> None:
    good = world.user(1)
    good.lock(world.name(directory=1, number=1), EX, F.PERSISTENT)
    good.close()
    world.user(1).lock(world.name(directory=1), EX)
    owner = world.user(1)
    owner.lock(world.name(directory=1), PR, F.PERSISTENT)
    owner.close()


def _master_copy(world: World) -> int:
    name = world.name(directory=1)
    world.user(2).lock(name, PR)
    keeper = world.user(1)
    keeper.lock(name, NL)
    world.deliver()
    return next(lock.lock_id for lock in world.resource(1, name).granted if lock.is_master_copy)


def convert_master_copy(world: World) -> None:
    """Convert another node's lock by the id of its copy here."""
    world.user(1).lock(world.name(directory=1), NL)
    world.user(1).convert(_master_copy(world), NL)


def cancel_master_copy(world: World) -> None:
    """Cancel another node's lock by the id of its copy here."""
    world.user(1).lock(world.name(directory=1), NL)
    world.user(1).cancel(_master_copy(world))


def convert_to_alternative_mode(world: World) -> None:
    """Convert to EX or else PR at another node, where another PR is in the way."""
    name = world.name(directory=1)
    world.user(1).lock(name, PR)
    user = world.user(2)
    lock_id = user.lock(name, PR)
    world.deliver()
    user.convert(lock_id, EX, F.ALTPR | F.NODLCKWT)
    world.deliver()


def request_with_both_alternatives(world: World) -> None:
    """Request PR or else CW with ALTPR as well, at another node, where CW is in the way."""
    name = world.name(directory=1)
    world.user(1).lock(name, CW)
    world.user(2).lock(name, PR, F.ALTPR | F.ALTCW)
    world.deliver()


def _look_up(world: World) -> tuple[User, bytes, int]:
    name = world.name(directory=1)
    world.user(3).lock(name, NL)
    world.deliver()
    user = world.user(2)
    world.held = types(T.LOOKUP)
    return user, name, user.lock(name, CR)


def give_a_lookup_up(world: World) -> None:
    """Cancel the request that looks the master up, behind which another one waits."""
    user, name, first = _look_up(world)
    world.user(2).lock(name, CR)
    user.cancel(first)
    world.release()


def give_a_lookup_up_before_recovery(world: World) -> None:
    """The same, with a recovery in place of the answer."""
    user, name, first = _look_up(world)
    world.user(2).lock(name, CR)
    user.cancel(first)
    world.survive(3)


def ask_a_directory_that_is_out_of_reach(world: World) -> None:
    """Request a name whose directory node cannot be sent to: ENOBUFS where it is sane."""
    world.spaces[1]._state.reaches = lambda nodeid: nodeid != 3
    assert world.user(1).lock(world.name(directory=3), EX) == -errno.ENOBUFS


def request_after_a_lookup_given_up(world: World) -> None:
    """Request again what only a cancelled request had looked up, and nobody found out."""
    user, name, first = _look_up(world)
    user.cancel(first)
    world.survive(3)
    user.results()
    user.lock(name, CR)


def grant_across_a_close(world: World) -> None:
    """A PERSISTENT request is granted while its file closes."""
    name = world.name(directory=1)
    holder = world.user(1)
    held = holder.lock(name, EX)
    user = world.user(2)
    user.lock(name, CR, F.PERSISTENT)
    world.deliver()
    world.held = types(T.CANCEL)
    user.close()
    holder.unlock(held)
    world.deliver()


def cancel_and_close_before_a_death(world: World) -> None:
    """A conversion's cancel is under way, its file closes, its master dies."""
    name = world.name(directory=3)
    world.user(3).lock(name, PR)
    user = world.user(1)
    lock_id = user.lock(name, PR)
    world.deliver()
    user.convert(lock_id, EX, F.NODLCKWT)
    world.deliver()
    world.held = types(T.CANCEL, T.UNLOCK)
    user.cancel(lock_id)
    user.force(lock_id)
    world.survive(3)


def grant_in_place(world: World) -> None:
    """A conversion that waits in spite of a deadlock gets PR, which it has, when that ends."""
    name = world.name(directory=1)
    user = world.user(1)
    lock_id, _, other = user.lock(name, PR), user.lock(name, PR), user.lock(name, NL)
    user.convert(other, EX)
    user.convert(lock_id, EX, F.ALTPR | F.NODLCKWT)
    user.cancel(other)


def grant_in_place_by_a_close(world: World) -> None:
    """The same when the file of the other one closes, and of one more lock before that."""
    name = world.name(directory=1)
    user, other = world.user(1), world.user(1)
    lock_id, _ = user.lock(name, PR), user.lock(name, PR)
    other.lock(world.name(directory=1, number=1), EX)
    converting = other.lock(name, NL)
    other.convert(converting, EX)
    user.convert(lock_id, EX, F.ALTPR | F.NODLCKWT)
    other.close()


def guess_a_mode(world: World) -> None:
    """A conversion from PR to CW is under way when its master dies; nobody else holds either."""
    name = world.name(directory=3)
    world.user(3).lock(name, NL)
    user = world.user(1)
    lock_id = user.lock(name, PR)
    world.deliver()
    world.held = types(T.CONVERT)
    user.convert(lock_id, CW)
    world.survive(3)


def wait_with_timeout(world: World) -> None:
    """Let a request with TIMEOUT wait."""
    world.user(1).lock(world.name(directory=1), EX)
    world.user(1).lock(world.name(directory=1), EX, F.TIMEOUT)


def convert_with_timeout(world: World) -> None:
    """Let a conversion with TIMEOUT wait."""
    world.user(1).lock(world.name(directory=1), PR)
    user = world.user(1)
    user.convert(user.lock(world.name(directory=1), PR), EX, F.TIMEOUT)


def wait_with_timeout_elsewhere(world: World) -> None:
    """Let a request with TIMEOUT wait at another node."""
    name = world.name(directory=1)
    world.user(1).lock(name, EX)
    world.user(2).lock(name, EX, F.TIMEOUT)
    world.deliver()


def be_refused_elsewhere(world: World) -> None:
    """Request with NOQUEUE, at another node, what is taken there."""
    name = world.name(directory=1)
    world.user(1).lock(name, EX)
    world.user(2).lock(name, EX, F.NOQUEUE)
    world.deliver()


def request_without_the_own_comm(world: World) -> None:
    """Request a lock when the node's own comm has been removed."""
    world.spaces[1]._state.knows_itself = lambda: False
    world.user(1).lock(world.name(directory=1), EX)


def adopt_with_a_value_and_lose_the_master(world: World) -> None:
    """Adopt a lock without a value block with VALBLK; then its master dies."""
    name = world.name(directory=3, then=1)
    world.user(3).lock(name, NL)
    owner = world.user(1)
    owner.lock(name, NL, F.PERSISTENT)
    world.deliver()
    owner.close()
    world.user(1).adopt(name, NL, F.PERSISTENT | F.VALBLK)
    world.survive(3)


CASES: tuple[tuple[Hazard, Callable[[World], None]], ...] = (
    (hazards.ORPHAN_UNLOCKED, unlock_orphan),
    (hazards.ORPHAN_UNLOCKED, unlock_what_a_close_could_not),
    (hazards.ORPHAN_UNLOCKED, force_what_a_closed_file_left),
    (hazards.ORPHAN_UNLOCKED, force_what_is_still_asked_for),
    (hazards.DEAD_ORPHAN_PURGED, purge_dead_orphan),
    (hazards.DEAD_ORPHAN_PURGED, purge_dead_orphan_from_afar),
    (hazards.MASTER_COPY_NAMED, convert_master_copy),
    (hazards.MASTER_COPY_NAMED, cancel_master_copy),
    (hazards.ALTERNATIVE_MODE, convert_to_alternative_mode),
    (hazards.ALTERNATIVE_MODE, request_with_both_alternatives),
    (hazards.LOOKUP_GIVEN_UP, give_a_lookup_up),
    (hazards.LOOKUP_GIVEN_UP, give_a_lookup_up_before_recovery),
    (hazards.LOOKUP_NOT_SENT, ask_a_directory_that_is_out_of_reach),
    (hazards.MASTER_NEVER_FOUND, request_after_a_lookup_given_up),
    (hazards.GRANTED_IN_PLACE, grant_in_place),
    (hazards.GRANTED_IN_PLACE, grant_in_place_by_a_close),
    (hazards.ORPHAN_FORGOTTEN, grant_across_a_close),
    (hazards.OVERLAP_FORGOTTEN, cancel_and_close_before_a_death),
    (hazards.TIMEOUT_RUNS_OUT, wait_with_timeout),
    (hazards.TIMEOUT_RUNS_OUT, convert_with_timeout),
    (hazards.TIMEOUT_RUNS_OUT, wait_with_timeout_elsewhere),
    (hazards.REFUSED_ELSEWHERE, be_refused_elsewhere),
    (hazards.OWN_COMM_REMOVED, request_without_the_own_comm),
    (hazards.VALUE_WITHOUT_BUFFER, adopt_with_a_value_and_lose_the_master),
)

EVERY_CASE = pytest.mark.parametrize(
    ("hazard", "happen"), CASES, ids=[happen.__name__ for _, happen in CASES]
)


@EVERY_CASE
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_strict_machine_raises(
    hazard: Hazard, happen: Callable[[World], None], kernel: str
) -> None:
    """On the kernels that would not survive; the message says what was done and what follows."""
    world = World(1, 2, 3, kernel=kernel, strict=True).up()

    if kernel not in hazard.kernels:
        happen(world)
        return
    with pytest.raises(KernelHazardError) as caught:
        happen(world)

    assert caught.value.message.startswith(hazard.deed)
    assert hazard.fate in caught.value.message
    assert caught.value.kernels == tuple(name for name in KERNELS if name in hazard.kernels)


IN_A_RECOVERY = (
    give_a_lookup_up_before_recovery,
    cancel_and_close_before_a_death,
    adopt_with_a_value_and_lose_the_master,
)
"""Those that are told in the midst of a recovery, which goes no further."""


OTHERS = [
    pytest.param(happen, kernel, id=f"{happen.__name__}-{kernel}")
    for hazard, happen in CASES
    if happen not in IN_A_RECOVERY
    for kernel in KERNELS
    if kernel in hazard.kernels
]


@pytest.mark.parametrize(("happen", "kernel"), OTHERS)
def test_nothing_is_done_before(happen: Callable[[World], None], kernel: str) -> None:
    """When a call or a message raises, the lockspace is in everything what it was before that."""
    world = Watched(1, 2, 3, kernel=kernel, strict=True)
    world.up()
    with pytest.raises(KernelHazardError):
        happen(world)

    assert world.after == world.before


class Watched(World):
    """A world that keeps what all its nodes were before and after the step that raised."""

    before: list[object]
    after: list[object]

    def step(self, node: int, question: Input) -> list[Output]:
        """Take the step between two pictures."""
        self.before = self._picture()
        try:
            return super().step(node, question)
        finally:
            self.after = self._picture()

    def _picture(self) -> list[object]:
        return [picture(space._state, {}) for _, space in sorted(self.spaces.items())]


_NOT_OF_THE_STATE = {"now", "outputs", "reaches", "knows_itself", "world", "profile"}


def picture(thing: Any, known: dict[int, int]) -> object:
    """Return plain values that are equal when two things are, in all that they are made of."""
    if thing is None or isinstance(thing, int | str | bytes | float):
        return thing
    if isinstance(thing, list | tuple | deque):
        return [picture(each, known) for each in thing]
    if isinstance(thing, set):
        return sorted(thing)
    if isinstance(thing, dict):
        return [(picture(key, known), picture(value, known)) for key, value in thing.items()]
    if id(thing) in known:
        return "again", known[id(thing)]
    known[id(thing)] = len(known)
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    assert names, type(thing)
    return [
        (name, picture(getattr(thing, name), known))
        for name in names
        if name not in _NOT_OF_THE_STATE
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_noqueue_that_no_hazard_comes_of(kernel: str) -> None:
    """NOQUEUE is none when it is granted by another node, or refused by this one."""
    world = World(1, 2, 3, kernel=kernel, strict=True).up()
    name = world.name(directory=1)
    user, other = world.user(1), world.user(2)
    world.user(1).lock(name, PR)
    granted = other.lock(name, PR, F.NOQUEUE)
    refused = user.lock(name, EX, F.NOQUEUE)
    world.deliver()

    assert other.results() == [(granted, 0)]
    assert user.results() == [(refused, -errno.EAGAIN)]


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12"])
def test_a_mode_that_recovery_guesses(kernel: str) -> None:
    """Up to 6.12 it may be the one that the conversion asks for."""
    with pytest.raises(KernelHazardError, match="granted in the mode that the lock has already"):
        guess_a_mode(World(1, 2, 3, kernel=kernel, strict=True).up())
    guess_a_mode(World(1, 2, 3, kernel="7.2", strict=True).up())


@EVERY_CASE
def test_another_machine_goes_on(hazard: Hazard, happen: Callable[[World], None]) -> None:
    """Nothing is raised by a machine that is not strict."""
    for kernel in KERNELS:
        happen(World(1, 2, 3, kernel=kernel).up())
    assert hazard.kernels


def test_every_hazard_is_met() -> None:
    """Each hazard of the list arises in some test: here, or in the emulator where no core is."""
    listed = {name for name, value in vars(hazards).items() if isinstance(value, Hazard)}
    met = {
        name for name, value in vars(hazards).items() if any(value is hazard for hazard, _ in CASES)
    }
    elsewhere = {"REMOVED_TWICE", "READ_TOO_SHORT"}

    assert listed == met | elsewhere


def test_the_document_lists_them() -> None:
    """docs/hazards.md has a line for every hazard, with its releases."""
    document = (Path(__file__).parents[3] / "docs" / "hazards.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", document, re.MULTILINE))
    said = {frozenset(KERNELS): "all four"}

    assert shown == {
        name: said.get(value.kernels, ", ".join(each for each in KERNELS if each in value.kernels))
        for name, value in vars(hazards).items()
        if isinstance(value, Hazard)
    }
