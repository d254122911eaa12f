"""Where a real kernel hangs, crashes or loses locks, and this machine does the sane thing instead.

Decides: which these cases are, what becomes of which kernel in each, that a strict lockspace raises
there.
May not know: how a case is recognized; that is for the rule in which it arises.
Mirrors: nothing; every entry names the function of fs/dlm that goes wrong.

A lockspace that is not strict goes on as if the kernel were mended. So a program that passes on it
may still end a node; a strict lockspace finds that program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dlm.errors import KernelHazardError
from dlm.terms import KernelProfile

EVERY: Final = frozenset({"5.10", "6.1", "6.12", "7.2"})


@dataclass(frozen=True, slots=True)
class Hazard:
    """What was done, what becomes of these kernels then, and in which function."""

    deed: str
    fate: str
    where: str
    kernels: frozenset[str] = EVERY


ORPHAN_UNLOCKED = Hazard(
    "UNLOCK of a lock whose file is closed and that nobody has adopted",
    "the kernel puts the lock on a list of the file, which has been freed: it loops for ever or "
    "corrupts memory; adopt the lock first (LOCK with ORPHAN)",
    "lock.c, dlm_user_unlock()",
)
DEAD_ORPHAN_PURGED = Hazard(
    "PURGE, after a file was closed whose PERSISTENT request waited",
    "the kernel kept the cancelled request among the orphans and takes it off a queue that it is "
    "not on: the list is corrupted and the node stops; make a lock PERSISTENT when it is granted",
    "lock.c, do_purge()",
)
MASTER_COPY_NAMED = Hazard(
    "LOCK, UNLOCK or CANCEL by the id of another node's lock",
    "the kernel follows a null pointer, and the process dies inside the lockspace, which can never "
    "be stopped again",
    "lock.c, dlm_user_convert(), dlm_user_unlock(), dlm_user_cancel()",
)
REMOVED_TWICE = Hazard(
    "REMOVE of a lockspace while another REMOVE of it was under way",
    "the second one uses a lockspace that has been freed",
    "lockspace.c, dlm_release_lockspace()",
)
READ_TOO_SHORT = Hazard(
    "read(2) of 52 to 71 bytes",
    "the kernel writes 72 bytes all the same, over what lies behind the program's buffer",
    "user.c, device_read()",
)
ALTERNATIVE_MODE = Hazard(
    "a conversion that another node granted in an alternative mode, or any lock that it granted "
    "in CW although ALTPR was given, too",
    "the kernel of the lock's own node goes on with another mode than its master has, and reports "
    "conversions as done that wait there; an UNLOCK that follows one at once is lost",
    "lock.c, __receive_convert_reply(), munge_altmode()",
)
LOOKUP_GIVEN_UP = Hazard(
    "CANCEL or forced UNLOCK of a request while the master of its resource was looked up, and "
    "other requests waited for that",
    "the kernel forgets those that waited: they and all later ones for the resource hang",
    "lock.c, receive_lookup_reply(), dlm_recover_waiters_post()",
)
LOOKUP_NOT_SENT = Hazard(
    "a request for a resource whose directory node's comm was made anew, before that node was "
    "heard of",
    "the kernel does not say that the lookup could not be sent: the request and all later ones for "
    "the resource hang",
    "lock.c, set_master()",
    frozenset({"6.1", "6.12", "7.2"}),
)
MASTER_NEVER_FOUND = Hazard(
    "a request for a resource whose only lookup had been cancelled",
    "the kernel takes the unknown master for a known one and stops in an assertion",
    "lock.c, find_rsb_dir(), set_master()",
)
ORPHAN_FORGOTTEN = Hazard(
    "the close of a file whose PERSISTENT lock another node was just granting",
    "the kernel forgets that the lock is an orphan, and reports the grant to a file that has been "
    "freed",
    "lock.c, receive_flags_reply()",
)
OVERLAP_FORGOTTEN = Hazard(
    "CANCEL or forced UNLOCK (by a close, too) of a conversion whose master died",
    "the kernel forgets the unlock: the lock stays, of a file that was closed for ever",
    "lock.c, dlm_recover_waiters_pre(), dlm_recover_waiters_post()",
)
TIMEOUT_RUNS_OUT = Hazard(
    "LOCK with TIMEOUT that has to wait",
    "when the time has run out, the kernel frees the lock twice and the node panics",
    "lock.c, dlm_scan_timeout()",
    frozenset({"5.10"}),
)
GRANTED_IN_PLACE = Hazard(
    "a queued conversion granted in the mode that the lock has already (ALTPR or ALTCW after "
    "NODLCKWT; up to 6.12 also between PR and CW, when the master died)",
    "the kernel leaves the lock on its queue and grants it once more: it completes twice, and the "
    "lock has no mode any more",
    "lock.c, _grant_lock()",
)
VALUE_WITHOUT_BUFFER = Hazard(
    "a recovery that makes this node master of a resource, of which a lock was adopted, or "
    "cancelled, with VALBLK and has no value block",
    "the kernel copies from a null pointer: its recovery thread dies, and the lockspace stays "
    "stopped for ever",
    "recover.c, recover_lvb()",
)
REFUSED_ELSEWHERE = Hazard(
    "a request with NOQUEUE, refused by another node",
    "when the refusal is there before the write(2) of the request returns, the kernel puts a lock "
    "that it has freed on the list of the file: corrupted memory, a panic; queue the request, and "
    "cancel it once it has been answered",
    "lock.c, dlm_user_request()",
    frozenset({"6.12", "7.2"}),
)
OWN_COMM_REMOVED = Hazard(
    "CREATE, REMOVE or a new LOCK while a lockspace exists and the local comm has been removed",
    "the kernel follows a null pointer and the process dies with what it has locked: no create or "
    "remove returns any more, and the node may stop; remove the lockspaces first",
    "config.c, dlm_our_nodeid()",
    frozenset({"6.12", "7.2"}),
)


def meet(hazard: Hazard, who: str, profile: KernelProfile, *, strict: bool) -> None:
    """Raise ``KernelHazardError`` when strict and this kernel is one that would not survive."""
    if strict and profile.name in hazard.kernels:
        kernels = tuple(sorted(hazard.kernels, key=_release))
        raise KernelHazardError(
            f"{hazard.deed} ({who}): {hazard.fate}; "
            f"Linux {', '.join(kernels)}, fs/dlm/{hazard.where}",
            kernels,
        )


def _release(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split(".")))
