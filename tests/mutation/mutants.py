"""Rules of the lock manager and how each is broken, as edits of one place in one file.

Decides: which rules the recorded traces must hold. A rule that needs several nodes says so.
May not know: how a broken rule is run (check.py).

``old`` stands exactly once in its file: a test says which entry a change of the code has outdated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule, the file below ``src/dlm`` that has it, and the edit that breaks it.

    ``first``: what the names of the traces have in common that most likely notice.
    """

    rule: str
    file: str
    old: str
    new: str
    first: str = "11."


MUTANTS = (
    # ---- the tables ----
    Mutant(
        "compatibility: CW and PR exclude each other",
        "core/modes.py",
        "(True, True, True, False, False, False, True),  # CW",
        "(True, True, True, True, False, False, True),  # CW",
    ),
    Mutant(
        "QUECVT is allowed from PR to CW",
        "core/modes.py",
        "(False, False, True, False, True, True, False),  # PR",
        "(False, False, False, False, True, True, False),  # PR",
    ),
    Mutant(
        "value block: PW to PW writes",
        "core/modes.py",
        "(WRITTEN, WRITTEN, WRITTEN, WRITTEN, WRITTEN, RETURNED, NOTHING),  # PW",
        "(WRITTEN, WRITTEN, WRITTEN, WRITTEN, RETURNED, RETURNED, NOTHING),  # PW",
        "11.4",
    ),
    Mutant(
        "value block: PR to NL moves nothing",
        "core/modes.py",
        "(NOTHING, NOTHING, NOTHING, RETURNED, RETURNED, RETURNED, NOTHING),  # PR",
        "(RETURNED, NOTHING, NOTHING, RETURNED, RETURNED, RETURNED, NOTHING),  # PR",
        "11.4",
    ),
    # ---- queues ----
    Mutant(
        "the granted queue has the newest in front",
        "core/state.py",
        "queue[at].requested_mode >= lock.granted_mode",
        "queue[at].granted_mode >= lock.granted_mode",
    ),
    Mutant(
        "HEADQUE goes to the head",
        "core/state.py",
        "if lock.exflags & HEADQUE:",
        "if lock.exflags & HEADQUE and status == WAITING:",
    ),
    Mutant("EXPEDITE is granted at once", "core/locking.py", "if flags & EXPEDITE:", "if False:"),
    Mutant("NOORDER passes by", "core/locking.py", "if flags & NOORDER:", "if False:"),
    Mutant(
        "QUECVT waits behind queued conversions",
        "core/locking.py",
        "return not flags & QUECVT or not resource.converting",
        "return True",
    ),
    Mutant(
        "a new request waits behind others",
        "core/locking.py",
        "return not resource.converting and not resource.waiting",
        "return not resource.converting",
    ),
    Mutant(
        "a conversion is looked at again from the head after each grant",
        "core/locking.py",
        "        if again:\n            continue\n",
        "",
    ),
    # ---- deadlock, alternative modes ----
    Mutant(
        "conversion deadlock: those ahead count by their wish alone",
        "core/locking.py",
        "if blocks_it and (ahead or not COMPATIBLE",
        "if blocks_it and (False or not COMPATIBLE",
        "11.2",
    ),
    Mutant(
        "NODLCKWT is queued in a deadlock",
        "core/locking.py",
        "if deadlocked and not lock.exflags & NODLCKWT:",
        "if deadlocked:",
        "11.2",
    ),
    Mutant(
        "CONVDEADLK says DEMOTED",
        "core/locking.py",
        "            lock.granted_mode = NL\n            lock.status_flags |= DEMOTED\n",
        "            lock.granted_mode = NL\n",
        "11.2",
    ),
    Mutant(
        "ALTPR comes before ALTCW",
        "core/locking.py",
        "if wanted != PR and flags & ALTPR:",
        "if wanted != PR and flags & ALTPR and not flags & ALTCW:",
        "11.2",
    ),
    # ---- blocking ASTs ----
    Mutant(
        "high-water mark: a mode that was told is not told again",
        "core/locking.py",
        "told = other.highest_blocked < wanted and not",
        "told = not",
    ),
    Mutant(
        "high-water mark: a grant forgets it",
        "core/locking.py",
        "    lock.highest_blocked = 0\n",
        "",
    ),
    Mutant(
        "PR and CW are told again until EX was",
        "core/locking.py",
        "told = other.highest_blocked < EX",
        "told = other.highest_blocked < wanted",
    ),
    Mutant(
        "NOQUEUEBAST tells converting locks, too",
        "core/locking.py",
        "        _tell_blockers(state, resource, resource.converting, lock)\n",
        "",
    ),
    # ---- completions ----
    Mutant(
        "NOQUEUE that cannot be granted is EAGAIN",
        "core/locking.py",
        "lock, -errno.EAGAIN)\n    return -errno.EAGAIN\n\n\ndef do_convert",
        "lock, -errno.EBUSY)\n    return -errno.EAGAIN\n\n\ndef do_convert",
    ),
    Mutant(
        "a cancel completes with ECANCEL",
        "core/locking.py",
        "        queue_completion(state, lock, -ECANCEL)\n        return -ECANCEL\n",
        "        queue_completion(state, lock, -EUNLOCK)\n        return -ECANCEL\n",
        "11.3",
    ),
    Mutant(
        "a second CANCEL of a conversion is EINVAL",
        "core/operations.py",
        "if lock.exflags & CANCEL or lock.flags & OVERLAP:",
        "if lock.flags & OVERLAP:",
        "11.3",
    ),
    Mutant(
        "DEADLOCK on a granted lock marks it for its next cancel",
        "core/users.py",
        "        lock.flags |= DEADLOCK_CANCEL\n",
        "        lock.flags |= DEADLOCK_CANCEL if lock.status != 2 else 0\n",
        "11.3",
    ),
    Mutant(
        "CONVERT of a lock that waits is EBUSY",
        "core/operations.py",
        "if lock.status != GRANTED or lock.wait_type",
        "if lock.wait_type",
        "11.3",
    ),
    # ---- value blocks ----
    Mutant(
        "IVVALBLK at the unlock of EX marks the value block",
        "core/locking.py",
        "    if lock.exflags & IVVALBLK:\n        resource.flags |= VALNOTVALID\n    elif",
        "    if False:\n        resource.flags |= VALNOTVALID\n    elif",
        "11.4",
    ),
    Mutant(
        "VALNOTVALID is said where nothing moves, too",
        "core/locking.py",
        "    if resource.flags & VALNOTVALID:\n        lock.status_flags |= NOT_VALID\n",
        "    if resource.flags & VALNOTVALID and move == RETURNED:\n"
        "        lock.status_flags |= NOT_VALID\n",
        "11.4",
    ),
    Mutant(
        "the caller's own bytes come back where nothing moves",
        "core/results.py",
        "and VALUE_MOVES[before][callback.mode] != 0",
        "and VALUE_MOVES[before][callback.mode] == 1",
        "11.4",
    ),
    # ---- results ----
    Mutant(
        "blocking ASTs merge: a higher one above PR covers",
        "core/results.py",
        "before.mode > max(callback.mode, PR)",
        "before.mode > max(callback.mode, 5)",
        "4.9",
    ),
    Mutant(
        "since 6.10 a blocking AST that no longer blocks is not queued",
        "core/results.py",
        "if before != IV and COMPATIBLE[callback.mode][before]:",
        "if False:",
        "4.9",
    ),
    Mutant(
        "up to 6.9 a lock has room for six results",
        "core/results.py",
        "CALLBACKS_MAX: Final = 6",
        "CALLBACKS_MAX: Final = 7",
        "6.1",
    ),
    Mutant(
        "up to 6.9 a blocking AST repeats the last completion's flags",
        "core/results.py",
        "lock.result_flags = flags = callback.flags",
        "flags = callback.flags",
        "6.1",
    ),
    # ---- ids, owners, orphans ----
    Mutant(
        "the lowest free lock id is next",
        "core/blocks.py",
        "lock_id = heapq.heappop(self._free)",
        "lock_id = self._free.pop()",
    ),
    Mutant(
        "up to 6.9 an id is free when its last result was read",
        "core/state.py",
        "if lock.callbacks and self.profile.ids_free_when_read:",
        "if False:",
        "6.1",
    ),
    Mutant(
        "the oldest orphan is adopted",
        "core/users.py",
        "for lock in state.orphans.values():",
        "for lock in reversed(state.orphans.values()):",
        "4.7",
    ),
    Mutant(
        "adopting in another mode is EAGAIN",
        "core/users.py",
        "raise Refused(errno.EAGAIN if other_mode else errno.ENOENT)",
        "raise Refused(errno.ENOENT)",
        "4.7",
    ),
    Mutant(
        "an unlock replaces castparam unless it is 0",
        "core/users.py",
        "castparam = new.castparam or castparam",
        "castparam = new.castparam",
        "4.4",
    ),
    Mutant(
        "a refused conversion has replaced the lock's arguments",
        "core/users.py",
        "lock.args = command.args\n    lock.xid = command.xid\n    operations.check_lock_arguments",
        "operations.check_lock_arguments",
        "4.4",
    ),
    Mutant(
        "a close marks the value block of PW and EX",
        "core/users.py",
        "operations.unlock_lock(state, lock, FORCEUNLOCK | IVVALBLK)",
        "operations.unlock_lock(state, lock, FORCEUNLOCK)",
    ),
    Mutant(
        "adopting does not wait while locking is stopped",
        "core/lockspace.py",
        "if state.stopped and type(question) is not Adopt:",
        "if state.stopped:",
        "6.1-",
    ),
    # ---- the device ----
    Mutant(
        "a 32-bit request makes all later results of the file 32-bit ones",
        "emulator/misc.py",
        "self._layout = Layout.COMPAT32",
        "self._layout = self._layout",
        "4.3",
    ),
    Mutant(
        "a use count above one only goes down",
        "emulator/module.py",
        "            space.use_count -= 1\n            return 0\n",
        "            space.use_count = 1\n            return 0\n",
        "4.4.2",
    ),
)
