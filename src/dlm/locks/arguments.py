"""What programs may ask for: names, modes and flags, checked before anything is written.

Decides: which flags are refused because a kernel does not survive them.
May not know: what becomes of a request.
Mirrors: set_lock_args() of fs/dlm/lock.c (Linux 6.1), and what is wrong there (docs/hazards.md).
"""

from __future__ import annotations

from dlm.locks.errors import usage
from dlm.terms import RESOURCE_NAME_MAX, LockFlag, LockMode

_NOT_HERE = int(
    LockFlag.CANCEL
    | LockFlag.CONVERT
    | LockFlag.ORPHAN
    | LockFlag.PERSISTENT
    | LockFlag.VALBLK
    | LockFlag.IVVALBLK
    | LockFlag.FORCEUNLOCK
    | LockFlag.TIMEOUT
)
"""Flags that have arguments or verbs of their own."""

_ALTERNATIVES = int(LockFlag.ALTPR | LockFlag.ALTCW)
_PERSISTENT, _ORPHAN = int(LockFlag.PERSISTENT), int(LockFlag.ORPHAN)
_FORCEUNLOCK, _TIMEOUT = int(LockFlag.FORCEUNLOCK), int(LockFlag.TIMEOUT)
_CANCEL, _VALBLK = int(LockFlag.CANCEL), int(LockFlag.VALBLK)

NOQUEUE = int(LockFlag.NOQUEUE)
QUEUELESS = NOQUEUE | int(LockFlag.NOQUEUEBAST)
"""Flags of a request that no kernel is sent by the faces: ``dlm.locks.flows`` does their work."""

RISKY = _ALTERNATIVES | _PERSISTENT | _FORCEUNLOCK | _TIMEOUT
"""Flags of a LOCK that ``harm`` looks at."""


def resource_name(name: str | bytes) -> bytes:
    """Return a resource's name as bytes; raises EINVAL for one that is too long."""
    raw = name.encode() if isinstance(name, str) else bytes(name)
    if len(raw) > RESOURCE_NAME_MAX:
        text = f"a resource's name has at most {RESOURCE_NAME_MAX} bytes, not {len(raw)}"
        raise usage(text, name=raw)
    return raw


def checked_mode(mode: int) -> LockMode:
    """Return a lock mode; raises EINVAL for any other number."""
    if mode.__class__ is LockMode:
        return mode
    try:
        return LockMode(mode)
    except ValueError:
        raise usage(f"{mode!r} is no lock mode") from None


def checked_flags(flags: int, *, converts: bool = False) -> int:
    """Return flags as a number; raises EINVAL for those that have arguments of their own.

    And for those with which a kernel loses a lock.
    """
    number = int(flags)
    if number & _NOT_HERE:
        names = " ".join(flag.name or "" for flag in LockFlag if flag & number & _NOT_HERE)
        raise usage(f"not as a flag, there are arguments and methods for it: {names}")
    if number & _ALTERNATIVES and (why := harm(number, converts=converts)):
        raise usage(why)
    return number


def harm(flags: int, *, converts: bool) -> str:
    """Say why a LOCK with these flags must not be sent to a kernel; empty: it may."""
    if flags & _ORPHAN and flags & _VALBLK:
        # Linux 6.1 fs/dlm/recover.c, recover_lvb(): copies from a buffer that it may not have.
        return "VALBLK on an adoption: convert the lock with it, which makes a value block"
    if flags & _TIMEOUT:
        # Linux 5.10 fs/dlm/lock.c, dlm_scan_timeout(): the lock is freed twice.
        return "TIMEOUT can end a node (5.10): let the caller's own timeout cancel"
    if flags & _FORCEUNLOCK:
        # Linux 6.1 fs/dlm/lock.c, validate_unlock_args(): the close of the file is refused then.
        return "FORCEUNLOCK on a LOCK: nothing could ever end it"
    if flags & _PERSISTENT and not flags & _ORPHAN and not converts:
        # Killed while it waits, it would be a dead entry of the orphan list, and a later purge
        # would crash the kernel (Linux 6.1 fs/dlm/user.c, lock.c, dlm_clear_proc_locks()).
        return "PERSISTENT on a new request: convert it to its own mode once it is granted"
    if flags & _ALTERNATIVES and converts:
        # Linux 6.1 fs/dlm/lock.c, __receive_convert_reply(): no munge_altmode(); _grant_lock().
        return "ALTPR or ALTCW on a conversion: the nodes could go on with different modes"
    if flags & _ALTERNATIVES == _ALTERNATIVES:
        # munge_altmode() takes PR for granted then, whatever the master has granted.
        return "ALTPR and ALTCW together: the nodes could go on with different modes"
    return ""


def harm_of_unlock(flags: int) -> str:
    """Say why an UNLOCK with these flags must not be sent to a kernel; empty: it may."""
    if flags & _CANCEL and flags & _VALBLK:
        # As with an adoption.
        return "VALBLK on a CANCEL: the lock may have no value block"
    return ""
