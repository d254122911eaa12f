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
    # ---- the order of grants, row by row ----
    Mutant(
        "a conversion's own mode, while it waits, is in others' way",
        "core/locking.py",
        "if resource.converting and _conflicts(resource.converting, lock):",
        "if False:",
    ),
    Mutant(
        "the first of the conversions is granted when nothing is in its way",
        "core/locking.py",
        "return resource.converting[0] is lock",
        "return False",
    ),
    Mutant(
        "the first of those that wait is granted when no conversion is left",
        "core/locking.py",
        "return not resource.converting and resource.waiting[0] is lock",
        "return False",
    ),
    Mutant(
        "after a recovery conversions are granted in any order",
        "core/locking.py",
        "if converts and recovering:",
        "if False:",
        "two-node-out-of-order",
    ),
    Mutant(
        "CONVDEADLK: what it let through may let it through, too",
        "core/locking.py",
        "        if _passes(resource, lock, True, False):\n            _grant(",
        "        if False:\n            _grant(",
        "rules",
    ),
    Mutant(
        "CONVDEADLK in a queue: the pass goes round once more",
        "core/locking.py",
        "demotions_left = 1\n",
        "demotions_left = 0\n",
        "rules",
    ),
    Mutant(
        "NODLCKWT: a deadlocked lock is told of its wish once",
        "core/locking.py",
        "if lock.exflags & NODLCKWT and lock.highest_blocked < lock.requested_mode:",
        "if lock.exflags & NODLCKWT:",
        "6.1/rules",
    ),
    # ---- unlocks and cancels, in the order of their checks ----
    Mutant(
        "a plain unlock of what is on its way is EBUSY",
        "core/operations.py",
        "    elif lock.wait_type or lock.wait_count:\n        raise Refused(errno.EBUSY)\n",
        "",
        "two-node-",
    ),
    Mutant(
        "a cancelled request that waits for another one's lookup is ECANCEL",
        "core/operations.py",
        "queue_completion(state, lock, -ECANCEL if flags & CANCEL else -EUNLOCK)",
        "queue_completion(state, lock, -EUNLOCK)",
        "two-node-too-late",
    ),
    Mutant(
        "an unlocked request that waits for another one's lookup is EUNLOCK",
        "core/operations.py",
        "queue_completion(state, lock, -ECANCEL if flags & CANCEL else -EUNLOCK)",
        "queue_completion(state, lock, -ECANCEL)",
        "two-node-too-late",
    ),
    Mutant(
        "CANCEL of what is being cancelled or unlocked besides is EINVAL",
        "core/operations.py",
        "if lock.exflags & CANCEL or lock.flags & OVERLAP:",
        "if lock.exflags & CANCEL:",
        "two-node-too-late",
    ),
    Mutant(
        "CANCEL of a lock that is granted does nothing",
        "core/operations.py",
        "if lock.status == GRANTED and not lock.wait_type:",
        "if False:",
        "11.3",
    ),
    Mutant(
        "CANCEL of a request or lookup on its way is remembered",
        "core/operations.py",
        "    if lock.wait_type in _UNDER_WAY:\n        lock.flags |= OVERLAP_CANCEL\n",
        "    if lock.wait_type in _UNDER_WAY:\n",
        "two-node-remembered",
    ),
    Mutant(
        "CANCEL of an unlock on its way is EINVAL",
        "core/operations.py",
        "    if lock.wait_type in (MessageType.UNLOCK, MessageType.CANCEL):\n"
        "        raise Refused(errno.EINVAL)\n",
        "",
        "two-node-too-late",
    ),
    Mutant(
        "FORCEUNLOCK, twice, is EINVAL",
        "core/operations.py",
        "if lock.exflags & FORCEUNLOCK or lock.flags & OVERLAP_UNLOCK:",
        "if False:",
        "rules",
    ),
    Mutant(
        "FORCEUNLOCK of a request or lookup on its way is remembered",
        "core/operations.py",
        "lock.wait_type in _UNDER_WAY:\n        lock.flags |= OVERLAP_UNLOCK\n",
        "lock.wait_type in _UNDER_WAY:\n",
        "two-node-remembered",
    ),
    Mutant(
        "FORCEUNLOCK of an unlock on its way is EINVAL",
        "core/operations.py",
        "    if lock.wait_type == MessageType.UNLOCK:\n        raise Refused(errno.EINVAL)\n",
        "",
        "two-node-too-late",
    ),
    # ---- recovery ----
    Mutant(
        "the value block of a dead PW or EX with VALBLK is not valid",
        "core/rebuilding.py",
        "                resource.flags |= RECOVER_LVB_INVAL\n",
        "                pass\n",
        "two-node-last-values",
    ),
    Mutant(
        "the value block of a dead EX without VALBLK stays valid",
        "core/rebuilding.py",
        "if lock.exflags & VALBLK and lock.granted_mode >= PW:",
        "if lock.granted_mode >= PW:",
        "two-node-last-values",
    ),
    Mutant(
        "the value block of a dead lock below PW stays valid",
        "core/rebuilding.py",
        "if lock.exflags & VALBLK and lock.granted_mode >= PW:",
        "if lock.exflags & VALBLK and lock.granted_mode >= PR:",
        "two-node-last-values",
    ),
    Mutant(
        "the value block of a dead PW with VALBLK is not valid",
        "core/rebuilding.py",
        "if lock.exflags & VALBLK and lock.granted_mode >= PW:",
        "if lock.exflags & VALBLK and lock.granted_mode > PW:",
        "two-node-last-values",
    ),
    Mutant(
        "a new master's value block of NL and CR locks is not valid",
        "core/rebuilding.py",
        "    resource.flags |= VALNOTVALID\n    resource.value = NO_VALUE if high",
        "    resource.value = NO_VALUE if high",
        "two-node-master-dies",
    ),
    Mutant(
        "a new master's value block of a lock above CR is valid",
        "core/rebuilding.py",
        "if lock.granted_mode > CR:",
        "if lock.granted_mode > PW:",
        "two-node-master-dies",
    ),
    Mutant(
        "a new master has no value block when no lock has one",
        "core/rebuilding.py",
        "    if not found:\n        return\n",
        "",
        "two-node-master-dies",
    ),
    Mutant(
        "a new master's value block of NL and CR locks is the newest",
        "core/rebuilding.py",
        "if not (lock.value_sequence - high_sequence) & 0x80000000:",
        "if True:",
        "two-node-newest-value",
    ),
    Mutant(
        "a new master's value block is not the first lock's",
        "core/rebuilding.py",
        "if not (lock.value_sequence - high_sequence) & 0x80000000:",
        "if high is None:",
        "two-node-newest-value",
    ),
    Mutant(
        "what a dead node's locks kept back is granted",
        "core/rebuilding.py",
        "            resource.flags |= RECOVER_GRANT\n            drop_master_copy",
        "            drop_master_copy",
        "two-node-holder-dies",
    ),
    Mutant(
        "an unlock on its way to a dead node is done",
        "core/rebuilding.py",
        "        finish_unlock(state, lock, unlocked)\n",
        "        lock.flags |= RESEND\n",
        "two-node-in-flight",
    ),
    Mutant(
        "a cancel on its way to a dead node is done",
        "core/rebuilding.py",
        "        finish_cancel(state, lock, cancelled)\n        if",
        "        lock.flags |= RESEND\n        if",
        "two-node-out-of-order",
    ),
    Mutant(
        "a cancel of a request that a dead node had queued is ECANCEL",
        "core/rebuilding.py",
        "unlocked, cancelled = -EUNLOCK, -ECANCEL",
        "unlocked, cancelled = -EUNLOCK, 0",
        "two-node-out-of-order",
    ),
    Mutant(
        "a request on its way to a dead node is sent again",
        "core/rebuilding.py",
        "    if kind == MessageType.REQUEST:\n        lock.flags |= RESEND\n",
        "    if kind == MessageType.REQUEST:\n        pass\n",
        "two-node-in-flight",
    ),
    Mutant(
        "a lookup is made again after each recovery",
        "core/rebuilding.py",
        "        if lock.wait_type == MessageType.LOOKUP:\n            lock.flags |= RESEND\n",
        "        if lock.wait_type == MessageType.LOOKUP:\n",
        "two-node-in-flight",
    ),
    Mutant(
        "a conversion upwards on its way to a dead node is sent again",
        "core/rebuilding.py",
        "elif middle or lock.requested_mode >= lock.granted_mode:",
        "elif False:",
        "two-node-in-flight",
    ),
    Mutant(
        "a cancelled lookup is not made again",
        "core/rebuilding.py",
        "        if overlap:\n            _end_instead(",
        "        if overlap and kind == MessageType.CONVERT:\n            _end_instead(",
        "two-node-remembered",
    ),
    Mutant(
        "a conversion that was cancelled on its way is not sent again",
        "core/rebuilding.py",
        "        if overlap:\n            _end_instead(",
        "        if overlap and kind != MessageType.CONVERT:\n            _end_instead(",
        "two-node-given-up",
    ),
    Mutant(
        "a conversion that was cancelled and unlocked on its way is only cancelled",
        "core/rebuilding.py",
        "    elif overlap & OVERLAP_CANCEL:\n        # Quirk",
        "    elif overlap & OVERLAP == OVERLAP_CANCEL:\n        # Quirk",
        "two-node-too-late",
    ),
    Mutant(
        "up to 6.12 a conversion between PR and CW gets what another lock holds",
        "core/rebuilding.py",
        "lock.granted_mode = lock.requested_mode if held == IV else held",
        "lock.granted_mode = lock.requested_mode",
        "6.1/two-node-middle",
    ),
    Mutant(
        "up to 6.12 a conversion between PR and CW gets its wish when none holds either",
        "core/rebuilding.py",
        "lock.granted_mode = lock.requested_mode if held == IV else held",
        "lock.granted_mode = NL if held == IV else held",
        "6.1/two-node-",
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
