"""What shows that a trace covers a row of the kernel's interface: sections 4 and 5.

Decides: the rows of section 5 (those of section 4 are tests/contract/rows.py's), the operations
that stand for each row, and why some rows have none.
May not know: where traces come from, whether their results are right.

A row has evidence when each of its predicates holds for some operation of some trace. A row of a
table (a mode against six) has a predicate for each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dlm.abi.device import LockRequest, LockspaceRequest, PurgeRequest
from dlm.core.modes import COMPATIBLE
from dlm.terms import (
    ECANCEL,
    EUNLOCK,
    LockFlag,
    LockMode,
    LockspaceFlag,
    ReleaseFlag,
    StatusFlag,
)
from tests.contract.rows import ROWS
from tests.workloads.watch import Seen

Predicate = Callable[[Seen], bool]

NL, CR, CW, PR, PW, EX = LockMode
MODES = tuple(LockMode)
IV = -1


# ---- words for predicates -----------------------------------------------------------------------


def command(*names: str) -> Predicate:
    """Hold for these commands, unless they sleep."""
    return lambda seen: seen.command in names and not seen.asleep


def both(*predicates: Predicate) -> Predicate:
    """Hold where all do."""
    return lambda seen: all(each(seen) for each in predicates)


def errno(name: str) -> Predicate:
    """Hold for a refusal."""
    return lambda seen: seen.errno == name


def flag(bits: int) -> Predicate:
    """Hold where all these flags are set."""
    return lambda seen: seen.flags & bits == bits


def no_flag(bits: int) -> Predicate:
    """Hold where none of these flags is set."""
    return lambda seen: not seen.flags & bits


def on(queue: str) -> Predicate:
    """Hold where the lock was on this queue before."""
    return lambda seen: seen.before is not None and seen.before.queue == queue


def then(queue: str) -> Predicate:
    """Hold where the lock is on this queue afterwards."""
    return lambda seen: seen.after is not None and seen.after.queue == queue


def moved(granted: int, mode: int) -> Predicate:
    """Hold for a request from one mode to another; -1: a new lock."""

    def test(seen: Seen) -> bool:
        before = seen.before.granted if seen.command == "CONVERT" and seen.before else IV
        asked = seen.command == ("LOCK" if granted == IV else "CONVERT")
        return asked and not seen.asleep and before == granted and seen.mode == mode

    return test


def cast(status: int, flags: int = 0) -> Predicate:
    """Hold for a completion that was read."""
    return lambda seen: (
        seen.result is not None
        and not seen.result.bast_mode
        and seen.result.status == status
        and seen.result.flags & flags == flags
    )


def bast(seen: Seen) -> bool:
    """Hold for a blocking AST that was read."""
    return seen.result is not None and seen.result.bast_mode > 0


def ok(seen: Seen) -> bool:
    """Hold for what was not refused."""
    return seen.ok


def stopped(seen: Seen) -> bool:
    """Hold while the lockspace is stopped."""
    return seen.stopped


def slept(seen: Seen) -> bool:
    """Hold for what was begun and sleeps."""
    return seen.asleep


def done(do: str, subject: str = "") -> Predicate:
    """Hold for an operation on this kind of device or file."""
    return lambda seen: seen.do == do and (not subject or seen.subject == subject)


def granted(seen: Seen) -> bool:
    """Hold where the lock has the mode that was asked for."""
    return seen.ok and seen.after is not None and seen.after.granted == seen.mode


def blocked(seen: Seen) -> bool:
    """Hold where another lock's granted mode was in the way."""
    return seen.mode <= EX and any(not COMPATIBLE[held][seen.mode] for held in seen.around.held)


def name(test: Callable[[bytes], bool]) -> Predicate:
    """Hold for a request whose resource's name is like this."""
    return lambda seen: isinstance(seen.request, LockRequest) and test(seen.request.name)


def space(test: Callable[[LockspaceRequest], bool]) -> Predicate:
    """Hold for a create or remove that is like this."""
    return lambda seen: isinstance(seen.request, LockspaceRequest) and test(seen.request)


def purge(test: Callable[[PurgeRequest], bool]) -> Predicate:
    """Hold for a purge that is like this."""
    return lambda seen: isinstance(seen.request, PurgeRequest) and test(seen.request)


def lock(test: Callable[[LockRequest], bool]) -> Predicate:
    """Hold for a lock request that is like this."""
    return lambda seen: isinstance(seen.request, LockRequest) and test(seen.request)


def before(test: Callable[[Seen], bool]) -> Predicate:
    """Hold where there is a lock before and it is like this."""
    return lambda seen: seen.before is not None and test(seen)


def foreign(seen: Seen) -> bool:
    """Hold for a request about another file's lock."""
    return seen.before is not None and not seen.before.own


def two_nodes(seen: Seen) -> bool:
    """Hold in a trace of several nodes."""
    return seen.nodes > 1


def at_least(kernel: int, *minor: int) -> Predicate:
    """Hold on kernels from this release on."""
    return lambda seen: _release(seen.kernel) >= (kernel, *minor)


def up_to(kernel: int, *minor: int) -> Predicate:
    """Hold on kernels up to this release."""
    return lambda seen: _release(seen.kernel) <= (kernel, *minor)


def _release(text: str) -> tuple[int, ...]:
    first, second = text.split("-", 1)[0].split(".")[:2]
    return int(first), int(second)


def size(low: int, high: int) -> Predicate:
    """Hold for a read or write of so many bytes."""
    return lambda seen: low <= seen.size <= high


LOCKS = command("LOCK")
CONVERTS = command("CONVERT")
ADOPTS = command("ADOPT")
UNLOCKS = command("UNLOCK")
CANCELS = command("CANCEL")
DEADLOCKS = command("DEADLOCK")
PURGES = command("PURGE")
CREATES = command("CREATE")
REMOVES = command("REMOVE")
READS = done("read", "lock")
WRITES = done("write", "lock")

Evidence = dict[str, tuple[Predicate, ...]]


# ---- section 4 ----------------------------------------------------------------------------------


def _saved(seen: Seen) -> bool:
    return seen.do == "wait" and seen.ret > 0


SECTION_4: Evidence = {
    "4.1 devices of the module": tuple(
        both(done("open", each), ok) for each in ("control", "monitor", "plock")
    ),
    "4.1 lockspace device": (both(done("open", "lock"), ok), both(done("open"), errno("ENOENT"))),
    "4.2 dlm_lksb": (lambda seen: seen.result is not None,),
    "4.2 dlm_lock_params": (both(LOCKS, ok),),
    "4.2 dlm_lspace_params": (both(command("CREATE"), ok), slept),
    "4.2 dlm_purge_params": (both(PURGES, ok),),
    "4.2 dlm_write_request": (both(LOCKS, ok),),
    "4.2 dlm_lock_result": (both(READS, lambda seen: len(seen.read) == 104),),
    "4.2 dlm_device_version": (lambda seen: len(seen.read) == 12,),
    "4.3 layout of a request": (both(LOCKS, lambda seen: seen.compat),),
    "4.3 layout of a result": tuple(
        (lambda seen, n=length: len(seen.read) == n)  # type: ignore[misc]
        for length in (52, 84)
    ),
    "4.3 struct size": (both(LOCKS, ok, lambda seen: seen.compat and seen.size >= 104),),
    "4.3 selection": (both(LOCKS, lambda seen: seen.compat),),
    "4.3 stickiness": (lambda seen: len(seen.read) in {52, 84},),
    "4.3 control file": (both(lambda seen: seen.compat, space(lambda each: each.minor >= 0)),),
    "4.3 CREATE name": (both(lambda seen: seen.compat, space(lambda each: bool(each.name))),),
    "4.4 check 1": (both(WRITES, errno("EBADF")),),
    "4.4 check 2": (both(done("write"), size(0, 103), errno("EINVAL")),),
    "4.4 check 3": (both(done("write"), size(185, 9999), errno("EINVAL")),),
    "4.4 check 5": (both(done("write"), errno("EBADE")),),
    "4.4 check 6": (both(LOCKS, lambda seen: seen.compat),),
    "4.4 check 8": (both(done("write", "control"), size(104, 184), errno("EINVAL")),),
    "4.4 check 9": (both(WRITES, size(104, 184), errno("EINVAL")),),
    "4.4 check 10": (both(WRITES, size(104, 184), errno("EINVAL")),),
    "4.4 names are bytes": (
        both(LOCKS, ok, name(lambda each: b"\0" in each)),
        both(LOCKS, ok, name(lambda each: not each)),
        both(LOCKS, ok, name(lambda each: max(each, default=0) > 127)),
    ),
    "4.4 value of a new request": (
        both(LOCKS, lambda seen: seen.ret > 0),
        both(LOCKS, flag(LockFlag.NOQUEUE), then("ended")),
    ),
    "4.4 value of CONVERT": (both(CONVERTS, ok),),
    "4.4 value of adopting": (both(ADOPTS, lambda seen: seen.ret > 0),),
    "4.4 value of UNLOCK CANCEL PURGE DEADLOCK": (
        both(UNLOCKS, ok),
        both(CANCELS, ok),
        both(PURGES, ok),
        both(DEADLOCKS, ok),
    ),
    "4.4 value of CREATE": (_saved,),
    "4.4 value of REMOVE": (done("wait"),),
    "4.4.1 name length": (
        both(CREATES, space(lambda each: not each.name), errno("EINVAL")),
        both(CREATES, space(lambda each: len(each.name) > 64), errno("EINVAL")),
    ),
    "4.4.1 EUNATCH": (errno("EUNATCH"),),
    "4.4.1 ENOTCONN": (errno("ENOTCONN"),),
    "4.4.1 NEWEXCL": (both(CREATES, flag(LockspaceFlag.NEWEXCL), errno("EEXIST")),),
    "4.4.1 use count": (both(CREATES, ok),),
    "4.4.1 flags": (
        both(space(lambda each: bool(each.flags & 1)), slept),
        both(space(lambda each: bool(each.flags & 4)), slept),
    ),
    "4.4.1 flag 0x10": (both(CREATES, flag(0x10), errno("EINVAL"), at_least(6, 12)),),
    "4.4.1 length of the value block": (both(READS, lambda seen: len(seen.read) == 104),),
    "4.4.2 ENOENT": (both(REMOVES, errno("ENOENT")),),
    "4.4.2 use count": (both(CREATES, ok),),
    "4.4.2 EBUSY": (both(done("wait"), errno("EBUSY")),),
    "4.4.2 uevents in order": (done("uevent"),),
    "4.4.2 flags and name": (both(space(lambda each: each.flags == ReleaseFlag.AUTOFREE), slept),),
    "4.4.3 castaddr and lksb": (
        both(LOCKS, lock(lambda each: not each.castaddr), errno("EINVAL")),
        both(LOCKS, lock(lambda each: not each.lksb), errno("EINVAL")),
    ),
    "4.4.3 waits while stopped": (
        both(stopped, slept, lambda seen: seen.command == "LOCK"),
        both(stopped, slept, lambda seen: seen.command == "CONVERT"),
    ),
    "4.4.3 new request checks": (both(LOCKS, errno("EINVAL")),),
    "4.4.3 unknown lock id": (both(CONVERTS, errno("ENOENT")),),
    "4.4.3 flag and mode checks": (both(LOCKS, errno("EINVAL"), lambda seen: seen.mode > EX),),
    "4.4.3 lock state checks": (both(CONVERTS, errno("EBUSY")), both(CONVERTS, errno("EINVAL"))),
    "4.4.3 side effects of a conversion": (both(CONVERTS, errno("EBUSY")),),
    "4.4.3 ignored fields": (both(LOCKS, ok, flag(0x100000)),),
    "4.4.4 waits while stopped": (
        both(stopped, slept, lambda seen: seen.command == "UNLOCK"),
        both(stopped, slept, lambda seen: seen.command == "CANCEL"),
    ),
    "4.4.4 unknown lock id": (both(UNLOCKS, errno("ENOENT")),),
    "4.4.4 replaced arguments": (both(UNLOCKS, ok, lock(lambda each: not each.castparam)),),
    "4.4.4 castaddr is not needed": (both(UNLOCKS, ok, lock(lambda each: not each.castaddr)),),
    "4.4.4 flags": (both(UNLOCKS, errno("EINVAL"), flag(LockFlag.NOQUEUE)),),
    "4.4.4 CANCEL with FORCEUNLOCK": (both(CANCELS, errno("EINVAL"), flag(LockFlag.FORCEUNLOCK)),),
    "4.4.4 lock state checks": (both(CANCELS, errno("EINVAL")),),
    "4.4.4 EBUSY of a cancel is success": (both(CANCELS, ok, on("granted")),),
    "4.4.5 checks": (both(DEADLOCKS, errno("EINVAL")), both(DEADLOCKS, errno("ENOENT"))),
    "4.4.5 granted": (both(DEADLOCKS, ok, on("granted")),),
    "4.4.5 waiting": (both(DEADLOCKS, ok, on("waiting")),),
    "4.4.5 conversion": (both(DEADLOCKS, ok, on("converting")),),
    "4.4.6 own locks": (both(PURGES, ok, purge(lambda each: each.pid == 1)),),
    "4.4.6 all orphans": (both(PURGES, ok, purge(lambda each: each.pid == 0)),),
    "4.4.6 orphans of one process": (both(PURGES, ok, purge(lambda each: each.pid > 1)),),
    "4.4.6 other node": (both(PURGES, ok, two_nodes, purge(lambda each: each.nodeid > 1)),),
    "4.4.6 unreachable node": (both(PURGES, errno("ENOBUFS")),),
    "4.4.6 local purge waits while stopped": (
        both(stopped, slept, lambda seen: seen.command == "PURGE"),
    ),
    "4.4.6 remote purge does not wait": (both(PURGES, stopped),),
    "4.5 read of 12 bytes": (lambda seen: len(seen.read) == 12,),
    "4.5 other reads of control": (both(done("read", "control"), errno("EINVAL")),),
    "4.5 read too small": (both(READS, size(0, 51), errno("EINVAL")),),
    "4.5 read of 52 to 71 bytes": (both(READS, size(52, 71), lambda seen: len(seen.read) == 72),),
    "4.5 read of a result": (both(READS, lambda seen: len(seen.read) == 72),),
    "4.5 read with room for the value block": (both(READS, lambda seen: len(seen.read) == 104),),
    "4.5 nothing pending, blocking": (both(READS, slept),),
    "4.5 nothing pending, nonblocking": (both(READS, errno("EAGAIN")),),
    "4.5 read while stopped": (both(READS, stopped, lambda seen: bool(seen.read)),),
    "4.5 one result per read": (both(READS, size(200, 9999), lambda seen: bool(seen.read)),),
    "4.5 CAST fields": (cast(0),),
    "4.5 BAST fields": (bast,),
    "4.5 user_lksb": (cast(-EUNLOCK),),
    "4.5 BAST status": (
        both(bast, lambda seen: seen.result is not None and seen.result.status != 0),
    ),
    "4.5 BAST flags": (
        both(bast, lambda seen: seen.result is not None and seen.result.flags != 0),
    ),
    "4.5 castaddr or bast_mode": (bast, cast(0)),
    "4.5 value block appended": (
        both(cast(0), lambda seen: len(seen.read) in {84, 104}),
        both(cast(0), lambda seen: len(seen.read) in {52, 72}),
    ),
    "4.5 value block at read time": (both(up_to(6, 1), lambda seen: len(seen.read) == 104),),
    "4.6 poll of a lockspace": (
        both(done("poll", "lock"), lambda seen: seen.events == 0),
        both(done("poll", "lock"), lambda seen: seen.events == 0x41),
    ),
    "4.6 poll of control and monitor": (done("poll", "control"),),
    "4.6 ioctl and llseek": (both(done("ioctl"), errno("ENOTTY")),),
    "4.7 open": (both(done("open", "lock"), ok),),
    "4.7 close while stopped": (both(done("close", "lock"), slept),),
    "4.7 not persistent": (done("close", "lock"),),
    "4.7 persistent, granted": (before(lambda seen: seen.before.queue == "orphan granted"),),  # type: ignore[union-attr]
    "4.7 results": (done("close", "lock"),),
    "4.7 per file state": (done("close", "lock"),),
    "4.7 last operation's flags": (
        both(
            CONVERTS,
            ok,
            before(
                lambda seen: bool(
                    (seen.before.exflags ^ seen.flags) & LockFlag.PERSISTENT  # type: ignore[union-attr]
                )
            ),
        ),
    ),
    "4.8 match": (both(ADOPTS, ok),),
    "4.8 mode": (both(ADOPTS, errno("EAGAIN")),),
    "4.8 nothing matches": (both(ADOPTS, errno("ENOENT")),),
    "4.8 success": (both(ADOPTS, ok),),
    "4.8 checks": (both(ADOPTS, lambda seen: seen.mode > EX), both(ADOPTS, stopped)),
    "4.8 value block": (
        both(ADOPTS, ok, lambda seen: seen.after is not None and seen.after.has_value),
    ),
    "4.8 conversion of an orphan": (both(CONVERTS, ok, on("orphan granted")),),
    "4.9 order between locks": (both(bast, up_to(6, 1)),),
    "4.9 order within a lock": (bast,),
    "4.9 arguments at read time": (both(cast(0), up_to(6, 1)),),
    "4.9 no bastaddr": (both(LOCKS, ok, lock(lambda each: not each.bastaddr)),),
    "4.9 CAST never merged": (cast(-EUNLOCK),),
    "4.10 read and write": (
        both(done("read", "monitor"), errno("EINVAL")),
        both(done("write", "monitor"), errno("EINVAL")),
    ),
    "4.10 last close": (done("close", "monitor"), errno("EUNATCH")),
    "4.11 lock ids": (lambda seen: seen.command == "LOCK" and seen.ret == 1,),
    "4.11 reuse": (lambda seen: seen.command == "LOCK" and seen.ret == 1,),
    "4.11 any file may act": (
        both(CONVERTS, ok, foreign),
        both(UNLOCKS, ok, foreign),
    ),
}

# ---- section 5 ----------------------------------------------------------------------------------


def _cells(rows: Iterable[int], make: Callable[[int, int], Predicate]) -> Evidence:
    return {
        "none" if row == IV else LockMode(row).name: tuple(make(row, mode) for mode in MODES)
        for row in rows
    }


def _compatible(held: int, mode: int) -> Predicate:
    def test(seen: Seen) -> bool:
        alone = seen.around.held == (held,) and not seen.around.converting
        if seen.command not in {"LOCK", "CONVERT"} or not seen.ok or seen.mode != mode or not alone:
            return False
        if seen.around.waiting and seen.command == "LOCK":
            return False
        return granted(seen) == COMPATIBLE[held][mode]

    return test


def _quecvt(row: int, mode: int) -> Predicate:
    return both(moved(row, mode), flag(LockFlag.QUECVT))


def _value(row: int, mode: int) -> Predicate:
    return both(moved(row, mode), flag(LockFlag.VALBLK), granted)


def _unlocked(*conditions: Predicate) -> Predicate:
    return both(UNLOCKS, ok, on("granted"), *conditions)


def _strong(seen: Seen) -> bool:
    return seen.before is not None and seen.before.granted >= PW


def _buffer(seen: Seen) -> bool:
    return seen.before is not None and seen.before.has_value


def _refused_new(*conditions: Predicate) -> Predicate:
    return both(command("LOCK", "CONVERT"), errno("EINVAL"), *conditions)


_FLAGS = {each.name: int(each) for each in LockFlag}

SECTION_5: Evidence = {
    **{f"5.1 {row}": cells for row, cells in _cells(MODES, _compatible).items()},
    **{f"5.2 {row}": cells for row, cells in _cells(MODES, _quecvt).items()},
    **{f"5.3 {row}": cells for row, cells in _cells((IV, *MODES), _value).items()},
    "5.4 R": (
        both(moved(IV, PR), flag(LockFlag.VALBLK), lambda seen: seen.around.has_value),
        both(moved(IV, PR), flag(LockFlag.VALBLK), lambda seen: not seen.around.has_value),
        both(moved(IV, PR), no_flag(LockFlag.VALBLK)),
    ),
    "5.4 W invalidates": (both(moved(EX, NL), flag(LockFlag.IVVALBLK), granted),),
    "5.4 W writes": (both(moved(EX, NL), flag(LockFlag.VALBLK), granted),),
    "5.4 W without VALBLK": (both(moved(EX, NL), no_flag(LockFlag.VALBLK), granted, _buffer),),
    "5.4 nothing moves": (both(moved(PR, NL), granted, _buffer),),
    "5.4 invalid is reported": (cast(0, StatusFlag.VALNOTVALID),),
    "5.4 unlock below PW": (_unlocked(lambda seen: not _strong(seen)),),
    "5.4 unlock with IVVALBLK": (_unlocked(_strong, flag(LockFlag.IVVALBLK)),),
    "5.4 unlock writes": (_unlocked(_strong, _buffer, flag(LockFlag.VALBLK)),),
    "5.4 a conversion takes the caller's bytes": (both(moved(PR, NL), flag(LockFlag.VALBLK)),),
    "5.4 unlock after VALBLK": (
        _unlocked(
            _strong,
            _buffer,
            no_flag(LockFlag.VALBLK),
            lambda seen: bool(seen.before and seen.before.exflags & LockFlag.VALBLK),
        ),
    ),
    "5.4 unlock without a buffer": (
        _unlocked(_strong, flag(LockFlag.VALBLK), lambda seen: not _buffer(seen)),
    ),
    "5.4 VALBLK makes a buffer": (
        both(CONVERTS, ok, flag(LockFlag.VALBLK), lambda seen: not _buffer(seen)),
    ),
    "5.4 IVVALBLK below PW": (
        both(CONVERTS, ok, flag(LockFlag.IVVALBLK), lambda seen: not _strong(seen)),
    ),
    "5.5 DEMOTED": (cast(0, StatusFlag.DEMOTED),),
    "5.5 VALNOTVALID": (cast(0, StatusFlag.VALNOTVALID),),
    "5.5 ALTMODE": (cast(0, StatusFlag.ALTMODE),),
    "5.6 1": (_refused_new(lambda seen: seen.mode > EX),),
    "5.6 2": (_refused_new(lambda seen: seen.command == "LOCK" and len(seen.request.name) > 64),),  # type: ignore[union-attr]
    "5.6 3": (_refused_new(flag(LockFlag.CANCEL)),),
    "5.6 4": (_refused_new(flag(LockFlag.QUECVT), no_flag(LockFlag.CONVERT)),),
    "5.6 5": (_refused_new(flag(LockFlag.CONVDEADLK), no_flag(LockFlag.CONVERT)),),
    "5.6 6": (_refused_new(flag(LockFlag.CONVDEADLK | LockFlag.NOQUEUE | LockFlag.CONVERT)),),
    "5.6 7": (_refused_new(flag(LockFlag.EXPEDITE | LockFlag.CONVERT)),),
    "5.6 8": (_refused_new(flag(LockFlag.EXPEDITE | LockFlag.QUECVT)),),
    "5.6 9": (_refused_new(flag(LockFlag.EXPEDITE | LockFlag.NOQUEUE)),),
    "5.6 10": (_refused_new(flag(LockFlag.EXPEDITE), lambda seen: NL < seen.mode <= EX),),
    "5.7 not granted": (
        both(CONVERTS, errno("EBUSY"), on("waiting")),
        both(CONVERTS, errno("EBUSY"), on("converting")),
    ),
    "5.7 in flight": (both(CONVERTS, errno("EBUSY"), two_nodes),),
    "5.7 QUECVT": (both(CONVERTS, errno("EINVAL"), flag(LockFlag.QUECVT), on("granted")),),
    "5.8 1": (both(UNLOCKS, errno("EBUSY"), two_nodes),),
    "5.8 4": (both(UNLOCKS, errno("ENOENT"), on("ended")),),
    "5.8 5": (
        both(
            CANCELS,
            errno("EINVAL"),
            lambda seen: bool(seen.before and seen.before.exflags & LockFlag.CANCEL),
        ),
    ),
    "5.8 7": (both(CANCELS, ok, on("granted")),),
    "5.8 9": (
        both(
            UNLOCKS,
            errno("EINVAL"),
            flag(LockFlag.FORCEUNLOCK),
            lambda seen: bool(seen.before and seen.before.exflags & LockFlag.FORCEUNLOCK),
        ),
    ),
    "5.8 11": (both(UNLOCKS, ok), both(CANCELS, ok)),
    "5.8 UNLOCK granted": (both(UNLOCKS, ok, on("granted")),),
    "5.8 UNLOCK waiting": (both(UNLOCKS, ok, on("waiting")),),
    "5.8 UNLOCK converting": (both(UNLOCKS, ok, on("converting")),),
    "5.8 CANCEL granted": (both(CANCELS, ok, on("granted"), then("granted")),),
    "5.8 CANCEL waiting": (both(CANCELS, ok, on("waiting"), then("ended")),),
    "5.8 CANCEL converting": (both(CANCELS, ok, on("converting"), then("granted")),),
    "5.8 UNLOCK twice": (both(UNLOCKS, errno("ENOENT"), on("ended")),),
    "5.8 UNLOCK before the result is read": (both(UNLOCKS, ok, on("granted")),),
    "5.9 0": (cast(0),),
    "5.9 EAGAIN": (cast(-11),),
    "5.9 EDEADLK": (cast(-35),),
    "5.9 ECANCEL": (cast(-ECANCEL),),
    "5.9 EUNLOCK": (cast(-EUNLOCK),),
    "5.10 insert waiting": (
        both(LOCKS, then("waiting"), no_flag(LockFlag.HEADQUE), lambda s: s.around.waiting > 0),
        both(LOCKS, then("waiting"), flag(LockFlag.HEADQUE), lambda s: s.around.waiting > 0),
    ),
    "5.10 insert converting": (
        both(
            CONVERTS,
            then("converting"),
            no_flag(LockFlag.HEADQUE),
            lambda s: s.around.converting > 0,
        ),
        both(
            CONVERTS, then("converting"), flag(LockFlag.HEADQUE), lambda s: s.around.converting > 0
        ),
    ),
    "5.10 insert granted": (
        both(LOCKS, granted, lambda seen: len(seen.around.held) > 1),
        both(CONVERTS, granted, lambda s: bool(s.before and s.before.granted == s.mode)),
    ),
    "5.10 1": (both(LOCKS, flag(LockFlag.EXPEDITE), granted, lambda s: s.around.waiting > 0),),
    "5.10 2": (both(LOCKS, blocked, then("waiting")),),
    "5.10 3": (both(LOCKS, lambda s: not blocked(s) and s.around.converting > 0, then("waiting")),),
    "5.10 5": (
        both(
            CONVERTS,
            no_flag(LockFlag.QUECVT),
            granted,
            lambda s: s.around.converting + s.around.waiting > 0,
        ),
    ),
    "5.10 6": (
        both(CONVERTS, flag(LockFlag.QUECVT), granted),
        both(CONVERTS, flag(LockFlag.QUECVT), lambda s: not blocked(s), then("converting")),
    ),
    "5.10 7": (both(LOCKS, flag(LockFlag.NOORDER), granted, lambda s: s.around.waiting > 0),),
    "5.10 9": (both(LOCKS, granted, lambda s: not s.around.waiting and not s.around.converting),),
    "5.10 11": (both(LOCKS, lambda s: s.mode == NL and s.around.waiting > 0, then("waiting")),),
    "5.10 a": (both(CONVERTS, ok, blocked, then("granted"), no_flag(LockFlag.NOQUEUE)),),
    "5.10 b": (
        both(LOCKS, flag(LockFlag.ALTPR), then("granted"), lambda s: not granted(s)),
        both(LOCKS, flag(LockFlag.ALTCW), then("granted"), lambda s: not granted(s)),
        both(CONVERTS, flag(LockFlag.ALTPR), then("granted"), lambda s: not granted(s)),
    ),
    "5.10 c": (
        both(LOCKS, flag(LockFlag.NOQUEUE), then("ended")),
        both(LOCKS, flag(LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST), then("ended")),
        both(CONVERTS, flag(LockFlag.NOQUEUE), blocked, then("granted")),
    ),
    "5.10 d": (both(LOCKS, then("waiting")), both(CONVERTS, then("converting"))),
    "5.10 grant pass": (both(UNLOCKS, ok, lambda s: s.around.waiting + s.around.converting > 0),),
    "5.11 default": (
        both(
            CONVERTS,
            ok,
            blocked,
            then("granted"),
            lambda s: s.around.converting > 0,
            no_flag(LockFlag.NOQUEUE | LockFlag.ALTPR | LockFlag.ALTCW),
        ),
    ),
    "5.11 NOORDER": (
        both(
            CONVERTS,
            ok,
            flag(LockFlag.NOORDER),
            blocked,
            then("granted"),
            lambda s: s.around.converting > 0,
        ),
    ),
    "5.11 NOQUEUE": (
        both(CONVERTS, ok, flag(LockFlag.NOQUEUE), blocked, lambda s: s.around.converting > 0),
    ),
    "5.11 NODLCKWT": (
        both(
            CONVERTS, flag(LockFlag.NODLCKWT), then("converting"), lambda s: s.around.converting > 0
        ),
    ),
    "5.11 CONVDEADLK": (
        both(
            CONVERTS,
            flag(LockFlag.CONVDEADLK),
            lambda s: bool(
                s.before and s.after and s.before.granted > NL and s.after.granted == NL
            ),
        ),
    ),
    "5.11 NODLCKBLK": (both(CONVERTS, ok, flag(LockFlag.NODLCKBLK)),),
    "5.12 queued": (both(LOCKS, blocked, then("waiting")), bast),
    "5.12 NOQUEUEBAST": (
        both(LOCKS, flag(LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST), blocked, then("ended")),
    ),
    "5.12 end of a grant pass": (both(UNLOCKS, ok, lambda s: s.around.waiting > 1),),
    "5.12 PR and CW": (
        both(LOCKS, then("waiting"), lambda s: s.mode == CW and PR in s.around.held),
        both(LOCKS, then("waiting"), lambda s: s.mode == PR and CW in s.around.held),
    ),
    **{
        f"5.13 {what}": (
            both(LOCKS, flag(bits)),
            both(CONVERTS, flag(bits)),
            both(command("UNLOCK", "CANCEL"), flag(bits)),
        )
        for what, bits in _FLAGS.items()
        if what not in {"CONVERT", "ORPHAN"}
    },
    "5.13 CONVERT": (CONVERTS, both(UNLOCKS, flag(LockFlag.CONVERT), errno("EINVAL"))),
    "5.13 ORPHAN": (ADOPTS, both(CONVERTS, flag(LockFlag.ORPHAN))),
    "5.14 name": (
        both(LOCKS, ok, name(lambda each: len(each) == 64)),
        both(LOCKS, ok, name(lambda each: each.startswith(b"d"))),
    ),
    "5.14 unused resource": (done("get", "t_toss"),),
}

EVIDENCE: Evidence = SECTION_4 | SECTION_5

SHOWN_BY: dict[str, str] = {
    "4.3 effect": "4.5-reading",
    "4.4.1 debugfs before device": "4.4.2-use-count",
    "4.4.1 flags between nodes": "two-node-unlike",
    "4.4.2 master copies": "two-node-only-copies",
    "4.4.5 remote request in flight": "two-node-too-late",
    "4.11 master copies": "two-node-grants",
    "4.4.1 failed create stops the comms": "4.4.1-create",
    "4.4.2 waits for files": "4.4.2-use-count",
    "4.4.2 directory while it waits": "4.4.2-use-count",
    "4.4.2 step 9": "4.4.2-use-count",
    "4.6 poll of a BAST to be skipped": "4.9-results",
    "4.7 persistent, converting": "4.7-close",
    "4.7 order of the locks": "4.7-close",
    "4.9 at most six": "4.9-results",
    "4.9 merging": "4.9-results",
    "4.9 skipping": "4.9-results",
    "4.9 unread results pin the lock": "4.9-results",
    "4.10 open monitor": "4.10-monitor",
    "4.11 freed when read": "4.9-results",
    "5.8 2": "two-node-too-late",
    "5.8 4a": "7.2/two-node-too-late",
    "5.8 6": "two-node-too-late",
    "5.8 7 on its way": "two-node-remembered",
    "5.8 8": "two-node-too-late",
    "5.8 10": "two-node-remembered",
    "5.10 4": "two-node-out-of-order",
    "5.10 8": "11.1-grants",
    "5.10 10": "11.1-grants",
    "5.11 CONVDEADLK, then it": "rules",
    "5.11 CONVDEADLK in a pass": "rules",
    "5.11 NODLCKWT once": "rules",
    "5.11 two resources": "11.1-grants",
    "5.14 master": "two-node-grants",
    "5.14 parent": "4.4-requests",
}
"""Rows that only a sequence of operations shows, and the directed trace that has it."""

UNCOVERED: dict[str, str] = {
    "4.1 device modes": "a trace shows modes below /sys/kernel only",
    "4.1 minors": "not compared: they depend on the machine's other devices",
    "4.1 slash in a device name": "such a lockspace cannot start",
    "4.3 real 32-bit program": "needs a 32-bit binary",
    "4.3 32-bit kernel": "needs a 32-bit kernel",
    "4.4 check 4": "a trace has bytes, and no bad address",
    "4.4 check 7": "a write during the close of its own file",
    "4.4 count of 104 to 119": "the tail is whatever the kernel's memory holds",
    "4.4.1 EPERM": "a trace is recorded by root",
    "4.4.1 listening": "needs an address or port that is somebody else's",
    "4.4.1 cluster name": "cannot happen to a create from user space",
    "4.4.1 misc device fails": "needs every dynamic minor in use",
    "4.4.2 EPERM": "a trace is recorded by root",
    "4.4.2 closing of connections": "needs a peer that does not answer, and minutes",
    "4.4.2 kernel-side levels": "not reachable from user space",
    "4.4.6 recorded pid": "not compared: pids are the recording machine's",
    "4.5 interrupted read": "needs a signal",
    "4.5 read of a closing file": "a read during the close of its own file",
    "4.5 bad buffer": "a trace has sizes, and no bad address",
    "4.7 dup and fork": "a trace has no dup(2)",
    "4.7 after close": "the recorder's own answer, not the kernel's",
    "4.7 persistent, waiting": "corrupts real kernels",
    "4.7 already unlocking": "an unlock that is under way while its file closes",
    "4.8 unlock of an orphan": "hangs real kernels",
    "5.7 master copy": "kills the process inside the lockspace of a real kernel",
    "4.9 merging: not below PR": "needs a blocking AST that crosses a conversion on its way",
    "5.8 3": "as 5.7: kills the process inside the lockspace of a real kernel",
    "5.8 7, 10 re-send mark": "callers are blocked while a lock has it",
    "5.8 8 cancel on its way": "cannot happen: check 5 comes first",
    "5.9 ETIMEDOUT": "needs CONFIG_DLM_DEPRECATED_API, which Debian's kernels do not have",
}
"""Rows that no trace covers, and why."""

_ALL_4 = tuple(row for row in ROWS if row.startswith("4"))


def missing(traces: Iterable[tuple[str, list[Seen]]]) -> list[str]:
    """Return the rows that these traces (by name) do not cover, in the order of the tables."""
    left = {row: list(predicates) for row, predicates in EVIDENCE.items()}
    names = []
    for trace_name, trace in traces:
        names.append(trace_name)
        for row, predicates in left.items():
            left[row] = [each for each in predicates if not any(each(seen) for seen in trace)]
    shown = {row for row, by in SHOWN_BY.items() if any(by in each for each in names)}
    rows = dict.fromkeys((*_ALL_4, *EVIDENCE, *SHOWN_BY, *UNCOVERED))
    return [row for row in rows if row not in shown and left.get(row, True)]
