"""Directed traces of locks: what abi rows 4.4 to 5.14 and the stories of 11.1 to 11.4 ask.

Decides: which requests are made, in which order.
May not know: their results.

Each story has a resource name and files of its own in one lockspace, and leaves no lock behind, so
that lock ids begin at 1 again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlm.abi.device import Layout, PurgeRequest, encode_request
from tests.traces.kit import (
    CR,
    CW,
    EX,
    NL,
    PR,
    PW,
    F,
    File,
    Tape,
    create,
    lock,
    remove,
    unlock,
)

Story = Callable[[Tape, bytes], None]

NAME_LENGTH_AT = 17
"""Where a LOCK has the length of its name: one byte."""


@contextmanager
def _file(tape: Tape) -> Iterator[File]:
    file = tape.file()
    yield file
    file.results()
    file.close()


# ---- 11.1 grant order and blocking ASTs ---------------------------------------------------------


def noqueue(tape: Tape, a: bytes) -> None:
    """11.1: NOQUEUE tells nobody, NOQUEUEBAST the blockers; then three wait."""
    with _file(tape) as f:
        f.lock(a, PR)
        f.lock(a, PR)
        f.results()
        f.lock(a, EX, F.NOQUEUE)
        f.results()
        f.lock(a, EX, F.NOQUEUE | F.NOQUEUEBAST)
        f.results()
        for mode in (PW, EX, CW):
            f.lock(a, mode)
        f.results()
        tape.locks()
        f.unlock(1)
        f.convert(2, NL)
        f.results()
        f.unlock(3)
        f.results()
        tape.locks()


def two_waiters(tape: Tape, a: bytes) -> None:
    """11.1: an EX holder with PR and EX waiting goes down to NL; read at the end."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, PR)
        f.lock(a, EX)
        f.convert(1, NL)
        f.results()


def rising_waiters(tape: Tape, a: bytes) -> None:
    """11.1: CR, PR, EX and PR wait for EX: blocking ASTs of rising modes."""
    with _file(tape) as f:
        for mode in (EX, CR, PR, EX, PR):
            f.lock(a, mode)
        f.results()


def middle_waiters(tape: Tape, a: bytes) -> None:
    """11.1: CW and PR wait for PR; unlocked one by one."""
    with _file(tape) as f:
        for mode in (PR, CW, PR):
            f.lock(a, mode)
        f.results()
        for each in (3, 2, 1):
            f.unlock(each)
        f.results()


def waiting_order(tape: Tape, a: bytes) -> None:
    """11.1: who waits where behind EX: NL, EXPEDITE, NOORDER, HEADQUE; then EX goes to CR."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, EX)
        f.lock(a, NL)
        f.lock(a, NL, F.EXPEDITE)
        f.lock(a, NL, F.NOORDER)
        f.lock(a, CR, F.NOORDER)
        f.lock(a, PR, F.HEADQUE)
        f.results()
        tape.locks()
        f.convert(1, CR)
        f.results()
        tape.locks()


def behind_conversion(tape: Tape, a: bytes) -> None:
    """11.1: behind a conversion CR waits, NOORDER passes, NOQUEUE fails; then the blocker goes."""
    with _file(tape) as f:
        f.lock(a, PR)
        f.lock(a, CR)
        f.convert(2, EX)
        f.lock(a, CR)
        f.lock(a, CR, F.NOORDER)
        f.lock(a, NL, F.NOQUEUE)
        f.results()
        f.unlock(1)
        f.results()
        tape.locks()


def two_resources(tape: Tape, a: bytes) -> None:
    """11.1: results of two resources whose locks were made in turns."""
    with _file(tape) as f:
        f.lock(a + b"1", PR)
        f.lock(a + b"2", PR)
        f.lock(a + b"1", EX)
        f.lock(a + b"2", EX)
        f.results()


def head_of_conversions(tape: Tape, a: bytes) -> None:
    """11.1: a HEADQUE conversion stands before one that waits."""
    with _file(tape) as f:
        for mode in (PR, NL, NL):
            f.lock(a, mode)
        f.convert(2, EX)
        f.convert(3, PW, F.HEADQUE)
        tape.locks()
        f.unlock(1)
        f.results()


def queued_conversion(tape: Tape, a: bytes) -> None:
    """11.1: QUECVT waits behind a conversion, one without it is made in place."""
    with _file(tape) as f:
        for mode in (NL, CR, CR, PW):
            f.lock(a, mode)
        f.results()
        f.convert(2, PW)
        f.convert(1, CR, F.QUECVT)
        f.convert(3, CR)
        f.results()
        f.unlock(4)
        f.results()


def told_again(tape: Tape, a: bytes) -> None:
    """11.1: a lock that still blocks after its conversion is told again."""
    with _file(tape) as f:
        f.lock(a, CR)
        f.lock(a, EX)
        f.results()
        for mode in (CW, PR, NL):
            f.convert(1, mode)
            f.results()


def compatibility(tape: Tape, a: bytes) -> None:
    """11.1, 5.1: every mode against every other, and the granted queue's order."""
    with _file(tape) as f:
        for held in (NL, CR, CW, PR, PW, EX):
            first = f.lock(a + b"%d" % held, held)
            for mode in (NL, CR, CW, PR, PW, EX):
                other = f.lock(a + b"%d" % held, mode, F.NOQUEUE)
                f.results()
                f.unlock(other)
                f.results()
            f.convert(first, held)
            f.unlock(first)
            f.results()


def conversions(tape: Tape, a: bytes) -> None:
    """5.2, 5.10: every conversion, alone, with and without QUECVT, beside a CR."""
    with _file(tape) as f:
        for held in (NL, CR, CW, PR, PW, EX):
            for mode in (NL, CR, CW, PR, PW, EX):
                for flags in (0, F.QUECVT):
                    f.lock(a, held)
                    f.convert(1, mode, flags)
                    f.results()
                    f.unlock(1)
                    f.results()


# ---- 11.2 deadlock, alternative modes -----------------------------------------------------------


def deadlock(tape: Tape, a: bytes) -> None:
    """11.2: two conversions in each other's way: EDEADLK, NODLCKWT, CONVDEADLK."""
    with _file(tape) as f:
        f.lock(a, PR)
        f.lock(a, PR)
        f.convert(1, EX)
        f.convert(2, EX)
        f.results()
        tape.locks()
        f.convert(2, EX, F.NODLCKWT)
        f.results()
        tape.locks()
        f.cancel(2)
        f.convert(2, EX, F.CONVDEADLK)
        f.results()
        tape.locks()
        f.unlock(1)
        f.results()


def deadlock_noorder(tape: Tape, a: bytes) -> None:
    """11.2: NOORDER does not help out of a deadlock; NOQUEUE is not tested for one."""
    with _file(tape) as f:
        for mode in (PR, CR, CR):
            f.lock(a, mode)
        f.convert(2, EX)
        f.convert(3, PW, F.NOORDER)
        f.results()
        f.convert(3, PW, F.NOQUEUE)
        f.results()
        f.convert(3, PW, F.NODLCKBLK)
        f.results()


def altmode(tape: Tape, a: bytes) -> None:
    """11.2: ALTPR and ALTCW on requests and conversions, alone, together, while others wait."""
    with _file(tape) as f:
        f.lock(a, PR)
        f.lock(a, EX, F.ALTPR)
        f.results()
        f.lock(a, EX, F.ALTCW)
        f.results()
        f.lock(a, CW, F.ALTPR | F.NOQUEUE)
        f.results()
        f.convert(2, EX, F.ALTPR)
        f.results()
        f.convert(2, EX, F.ALTPR | F.ALTCW | F.NOQUEUE)
        f.results()
        tape.locks()


def altmode_waiting(tape: Tape, a: bytes) -> None:
    """5.10 b: a waiting ALTCW and ALTPR are granted in that mode when the blocker goes down."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, EX, F.ALTCW)
        f.lock(a, EX, F.ALTPR)
        f.lock(a, PW, F.ALTPR | F.ALTCW)
        f.results()
        for mode in (PR, CW, CR, NL):
            f.convert(1, mode)
            f.results()
        tape.locks()


# ---- 11.3 unlock, cancel ------------------------------------------------------------------------


def unlock_states(tape: Tape, a: bytes) -> None:
    """11.3, 5.8: unlock and cancel of waiting, granted, converting and ended locks."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, EX)
        f.results()
        f.convert(2, EX)
        f.unlock(2)
        f.results()
        f.unlock(2)
        f.lock(a, EX)
        f.cancel(2)
        f.results()
        f.cancel(2)
        f.cancel(1)
        f.cancel(1)
        f.results()
        f.lock(a, NL, F.EXPEDITE)
        f.results()
        f.convert(2, EX)
        f.cancel(2)
        f.results()
        f.cancel(2)
        f.convert(2, EX)
        f.unlock(2)
        f.unlock(2)
        f.results()


def deadlock_command(tape: Tape, a: bytes) -> None:
    """11.3: the DEADLOCK command on converting, granted and waiting locks; its mark stays."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, NL, F.EXPEDITE)
        f.results()
        f.convert(2, EX)
        f.deadlock(2)
        f.results()
        f.deadlock(2)
        f.results()
        f.convert(2, EX)
        f.cancel(2)
        f.results()
        f.lock(a, EX)
        f.deadlock(3)
        f.results()
        f.deadlock(3)
        for flags in (F.CANCEL | F.FORCEUNLOCK, F.CANCEL, F.FORCEUNLOCK, F.VALBLK, F.NOQUEUE):
            f.deadlock(2, flags)
            f.results()
        tape.locks()


def unlock_before_reading(tape: Tape, a: bytes) -> None:
    """11.3: unlock before the grant was read, and once more."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.unlock(1)
        f.unlock(1)
        f.results()
        f.unlock(1)


def other_file(tape: Tape, a: bytes) -> None:
    """11.3, 4.11: what another file does to a lock is told to its owner's."""
    with _file(tape) as f, _file(tape) as g:
        f.lock(a, PR)
        f.results()
        g.convert(1, EX)
        g.results()
        f.results()
        g.unlock(1)
        g.results()
        f.results()


def force_unlock(tape: Tape, a: bytes) -> None:
    """5.8: FORCEUNLOCK of granted, waiting and converting locks, with and without CANCEL."""
    with _file(tape) as f:
        f.lock(a, EX)
        f.lock(a, PR)
        f.lock(a, NL, F.EXPEDITE)
        f.results()
        f.unlock(2, F.FORCEUNLOCK)
        f.convert(3, CW)
        f.unlock(3, F.FORCEUNLOCK)
        f.unlock(1, F.FORCEUNLOCK | F.CANCEL)
        f.unlock(1, F.FORCEUNLOCK)
        f.unlock(1, F.FORCEUNLOCK)
        f.results()


# ---- 11.4 value blocks --------------------------------------------------------------------------


def value_moves(tape: Tape, a: bytes) -> None:
    """11.4: what goes from lock to lock through the resource, and what stays a lock's own."""
    with _file(tape) as f:
        f.lock(a, EX, F.VALBLK, value=b"\xaa\xaa")
        f.results()
        f.convert(1, NL, F.VALBLK, value=b"\xbb\xbb")
        f.results()
        f.lock(a, PR, F.VALBLK)
        f.lock(a, PR)
        f.results()
        f.convert(3, PR, F.VALBLK, value=b"\xdd\xdd")
        f.results()
        f.convert(3, NL, F.VALBLK, value=b"\xee\xee")
        f.results()
        f.convert(3, CR, value=b"\x77\x77")
        f.results()
        f.unlock(2)
        f.unlock(3)
        f.results()
        f.convert(1, EX, value=b"\x55\x55")
        f.results()
        f.convert(1, EX, F.VALBLK, value=b"\x66\x66")
        f.results()
        f.convert(1, PW, value=b"\x44\x44")
        f.results()
        f.convert(1, PW, F.VALBLK, value=b"\x33\x33")
        f.results()
        f.lock(a, NL, F.VALBLK)
        f.results()
        tape.everything()
        f.unlock(1, value=b"\x22\x22")
        f.convert(2, CR, F.VALBLK)
        f.results()
        tape.everything()


def value_without_buffer(tape: Tape, a: bytes) -> None:
    """11.4: VALBLK on the unlock of a lock that has no buffer."""
    with _file(tape) as f:
        f.lock(a, PW, F.VALBLK)
        f.convert(1, NL, F.VALBLK, value=b"kept")
        f.lock(a, EX)
        f.unlock(2, F.VALBLK, value=b"\x11\x11")
        f.results()
        f.lock(a, PR, F.VALBLK)
        f.results()


def value_invalid(tape: Tape, a: bytes) -> None:
    """11.4: IVVALBLK from EX marks the block; who sees that, and what takes it away."""
    with _file(tape) as f:
        f.lock(a, NL)
        f.lock(a, EX, F.VALBLK)
        f.convert(2, EX, F.VALBLK, value=b"old")
        f.unlock(2, F.IVVALBLK)
        f.results()
        f.lock(a, CR, F.VALBLK)
        f.results()
        f.lock(a, CR)
        f.results()
        f.convert(3, NL)
        f.results()
        f.unlock(2)
        f.results()
        f.lock(a, EX, F.VALBLK)
        f.convert(2, NL, F.VALBLK, value=b"\x99\x99")
        f.lock(a, CR, F.VALBLK)
        f.results()
        tape.everything()


def value_lost_holder(tape: Tape, a: bytes) -> None:
    """11.4: a file with a waiting EX closes, then one with a granted EX."""
    keep, dying, waiting = tape.file(), tape.file(), tape.file()
    keep.lock(a, NL)
    dying.lock(a, EX)
    waiting.lock(a, EX)
    waiting.close()
    tape.everything()
    dying.close()
    tape.everything()
    keep.results()
    reader = keep.lock(a, CR, F.VALBLK)
    keep.results()
    keep.convert(reader, NL)
    keep.results()
    keep.close()


def value_unread(tape: Tape, a: bytes) -> None:
    """11.4: a lock writes twice while its results are unread."""
    with _file(tape) as f:
        f.lock(a, PW, F.VALBLK)
        f.results()
        f.convert(1, NL, F.VALBLK, value=b"\x01")
        f.convert(1, PW, F.VALBLK, value=b"\x05")
        f.convert(1, NL, F.VALBLK, value=b"\x02")
        f.convert(1, PR, F.VALBLK, value=b"\x06")
        f.convert(1, NL, F.VALBLK, value=b"\x03")
        f.results()


def value_tossed(tape: Tape, a: bytes) -> None:
    """5.4: the last lock ends: the block goes, its mark stays."""
    with _file(tape) as f:
        f.lock(a, EX, F.VALBLK)
        f.convert(1, EX, F.VALBLK, value=b"old")
        f.unlock(1, F.IVVALBLK)
        f.results()
        f.lock(a, CR, F.VALBLK)
        f.results()
        f.convert(1, NL)
        f.results()


def value_table(tape: Tape, a: bytes) -> None:
    """5.3: every pair of modes, with and without VALBLK, and what the resource has afterwards."""
    with _file(tape) as f:
        f.lock(a, NL, F.VALBLK)
        f.results()
        count = 0
        for held in (NL, CR, CW, PR, PW, EX):
            for mode in (NL, CR, CW, PR, PW, EX):
                for flags in (0, F.VALBLK, F.IVVALBLK):
                    count += 1
                    f.lock(a, held, F.VALBLK)
                    f.convert(2, mode, flags, value=b"v%d" % count)
                    f.results()
                    f.convert(1, CR, F.VALBLK)
                    f.convert(1, NL)
                    f.results()
                    f.unlock(2, value=b"u%d" % count)
                    f.results()


# ---- 4.4 requests -------------------------------------------------------------------------------


def bad_flags(tape: Tape, a: bytes) -> None:
    """5.6, 5.13: every single flag, and those that do not go together, on every kind of request."""
    singles = [1 << bit for bit in range(20)]
    pairs = [
        F.CONVDEADLK | F.NOQUEUE,
        F.EXPEDITE | F.QUECVT,
        F.EXPEDITE | F.NOQUEUE,
        F.EXPEDITE | F.CONVERT,
        F.VALBLK | F.IVVALBLK,
        F.ALTPR | F.ALTCW,
        F.CANCEL | F.FORCEUNLOCK,
        F.CANCEL | F.VALBLK,
        0x80000000,
    ]
    with _file(tape) as f:
        for flags in (*singles, *pairs):
            for mode in (NL, PR):
                if flags & (F.CONVERT | F.ORPHAN):
                    continue  # another kind of request
                got = f.lock(a, mode, flags)
                f.results()
                f.unlock(got)
                f.results()
        for flags in (*singles, *pairs):
            f.lock(a, CR)
            f.convert(1, PR, flags)
            f.results()
            f.unlock(1)
            f.results()
        for flags in (*singles, *pairs):
            f.lock(a, CR)
            f.unlock(1, flags)
            f.unlock(1)
            f.results()


def _with_length(request: bytes, length: int) -> bytes:
    """Return the longest write of a LOCK that says another length of its name."""
    return (
        request[:NAME_LENGTH_AT] + bytes([length]) + request[NAME_LENGTH_AT + 1 :].ljust(166, b".")
    )


def bad_requests(tape: Tape, a: bytes) -> None:
    """4.4.3 to 4.4.5: modes, names, ids, missing addresses, states."""
    with _file(tape) as f:
        for mode in (6, 200, 255):
            f.lock(a, mode)
            f.convert(1, mode)
        f.lock(a, EX, castaddr=0)
        f.lock(a, EX, lksb=0)
        f.lock(a, EX, F.CONVERT, castaddr=0)
        f.lock(a, EX, F.ORPHAN, lksb=0)
        for length in (65, 128, 255):
            f.write(_with_length(lock(a.ljust(64, b"."), EX), length))
        f.convert(0, EX)
        f.convert(77, EX)
        f.convert(0xFFFFFFFF, EX)
        f.unlock(0)
        f.unlock(77)
        f.unlock(77, F.NOQUEUE)
        f.cancel(77)
        f.deadlock(77)
        f.lock(b"", PR)
        f.results()
        f.write(_with_length(lock(b"", PR, F.CONVERT, lock_id=1), 255))
        f.results()
        f.lock(a.ljust(64, b"."), PR)
        f.lock(a + b"\0\xff/", PR)
        f.lock(a + b"\0", PR)
        f.lock(a, PR)
        f.results()
        tape.locks()
        f.lock(a, PR, parent=7, timeout=9, xid=0x1122334455)
        f.results()
        tape.locks()
        for each in range(1, 6):
            f.unlock(each, castparam=0x77 * (each % 2), lksb=0x88 * (each // 3), castaddr=5)
        f.results()


def side_effects(tape: Tape, a: bytes) -> None:
    """4.4.3: a refused conversion replaces addresses and value block all the same."""
    with _file(tape) as f:
        f.lock(a, EX, F.VALBLK, bastaddr=0)
        f.lock(a, PR)
        f.results()
        f.convert(2, EX, castparam=0x91, castaddr=0x92, lksb=0x93, bastaddr=0x94, bastparam=0x95)
        f.convert(1, 9, value=b"new", castparam=0x81, castaddr=0x82, lksb=0x83, bastaddr=0x84)
        f.lock(a, CR)
        f.results()
        f.convert(1, NL, F.VALBLK)
        f.results()
        f.unlock(1, value=b"x", castparam=0, lksb=0)
        f.unlock(2, castparam=0x71, lksb=0x72)
        f.results()


def envelopes(tape: Tape, a: bytes) -> None:
    """4.4: lengths, versions, commands of a write to a lockspace."""
    with _file(tape) as f:
        whole = lock(a, NL)
        for size in (0, 1, 12, 103):
            f.write(whole[:size])
        f.write(whole.ljust(185, b"\0"))
        f.write(whole.ljust(184, b"\0"))
        f.results()
        for version in ((5, 0, 0), (7, 0, 0), (6, 1, 0), (6, 0, 9), (0, 0, 0)):
            raw = b"".join(number.to_bytes(4, "little") for number in version)
            f.write(raw + whole[12:])
            f.results()
        for command in (0, 3, 8, 255):
            f.write(whole[:12] + bytes([command]) + whole[13:])
        f.write(create("other"))
        f.write(remove(121))
        f.purge_own()


def reading(tape: Tape, a: bytes) -> None:
    """4.5, 4.6: reads of every kind of size, with and without results; poll; ioctl."""
    with _file(tape) as f:
        for size in (0, 1, 11, 12, 13, 51, 52, 71, 72, 103, 104, 105, 4096):
            f.read(size)
        f.poll()
        f.lock(a, EX, F.VALBLK)
        f.poll()
        for size in (0, 11, 12, 13, 51):
            f.read(size)
        f.read(72)  # too small for the value block
        f.poll()
        for size in (52, 60, 71, 72, 103, 104, 200):
            f.convert(1, PR, F.VALBLK)
            f.read(size)
            f.convert(1, EX, F.VALBLK)
            f.read(size)
        f.poll()
        tape.do("ioctl", fd=f.name, request="c114d101", hex="00" * 16)
    for flags in (["rdonly", "nonblock"], ["wronly", "nonblock"]):
        g = tape.file(flags=flags)
        g.lock(a, NL)
        g.read()
        g.poll()
        g.close()
    g.read()


def blocking_read(tape: Tape, a: bytes) -> None:
    """4.5: a read without NONBLOCK sleeps until a result comes."""
    f = tape.file(flags=["rdwr"])
    call = tape.name("r")
    tape.do("read", fd=f.name, size=104, async_=call)
    tape.do("pending", async_=call)
    f.lock(a, EX)
    tape.do("wait", async_=call)
    f.unlock(1)
    f.read()
    f.close()


# ---- 4.7, 4.8 close, orphans --------------------------------------------------------------------


def closing(tape: Tape, a: bytes) -> None:
    """4.7: a file closes with locks in every state, without PERSISTENT."""
    other = tape.file()
    f = tape.file()
    f.lock(a, EX, F.VALBLK)
    other.lock(a, PR, F.VALBLK)
    f.lock(a, CW)
    f.lock(a + b"2", NL)
    f.convert(4, EX)
    f.lock(a + b"3", PR)
    other.lock(a + b"3", PR)
    f.convert(5, EX)
    tape.locks()
    f.close()
    tape.locks()
    other.results()
    other.close()


def orphans(tape: Tape, a: bytes) -> None:
    """4.7, 4.8: granted and converting PERSISTENT locks become orphans, are adopted and act."""
    f = tape.file()
    f.lock(a, EX, F.PERSISTENT | F.VALBLK)
    f.lock(a + b"2", PR)
    f.convert(2, PR, F.PERSISTENT)
    f.lock(a + b"3", PR, F.PERSISTENT)
    other = tape.file()
    other.lock(a + b"3", PR)
    f.convert(3, EX, F.PERSISTENT)
    f.lock(a + b"4", PR, F.PERSISTENT)
    f.convert(5, PR)  # not persistent any more
    f.close()
    tape.locks()
    other.lock(a, PR)
    other.results()
    other.adopt(a, PR)
    other.adopt(a + b"none", EX)
    other.adopt(a, 200)
    other.adopt(a, EX, F.PERSISTENT | F.VALBLK)
    other.results()
    other.convert(1, NL, F.VALBLK, value=b"w")
    other.results()
    other.adopt(a + b"2", PR, 0)
    other.unlock(2)
    other.results()
    other.convert(3, CR)  # an orphan, silently
    other.results()
    tape.locks()
    other.adopt(a + b"3", CR)
    other.adopt(a + b"3", PR)
    other.results()
    other.unlock(3)
    other.results()
    other.close()
    last = tape.file()
    tape.locks()
    last.purge(0, 0)
    tape.locks()
    last.close()


def orphan_order(tape: Tape, a: bytes) -> None:
    """4.8: the oldest orphan that matches comes first; two processes, purged by pid of neither."""
    f = tape.file()
    for _ in range(3):
        f.lock(a, CR, F.PERSISTENT)
    f.lock(a, NL, F.PERSISTENT)
    f.close()
    g = tape.file()
    g.adopt(a, CR)
    g.adopt(a, NL)
    g.adopt(a, CR)
    g.purge(0, 1)
    tape.locks()
    g.unlock(1)
    g.unlock(4)
    g.unlock(2)
    g.results()
    g.purge(0, 0)
    g.close()


def purge(tape: Tape, a: bytes) -> None:
    """4.4.6: one's own locks with their results, orphans, a node that nobody knows."""
    f = tape.file()
    g = tape.file()
    f.lock(a, EX, F.VALBLK)
    f.lock(a + b"2", NL, F.PERSISTENT)
    g.lock(a, PR)
    g.lock(a + b"2", NL)
    f.poll()
    f.purge_own()
    f.poll()
    f.read()
    g.results()
    tape.locks()
    g.purge(1, 0)
    if not tape.kernel.startswith("5.10"):  # which tries for minutes to reach such a node
        g.purge(5, 0)
        g.purge(-1, 0)
    g.close()
    f.close()


# ---- 4.9 results --------------------------------------------------------------------------------


def merging(tape: Tape, a: bytes) -> None:
    """4.9: blocking ASTs that are merged, skipped, read at once, or come before the completion."""
    with _file(tape) as f:
        f.lock(a, EX)
        for mode in (CR, PR, PW, EX, CR):
            f.lock(a, mode)
        f.convert(1, NL)
        f.poll()
        f.results()
    with _file(tape) as f:
        f.lock(a, PR)
        f.lock(a, CW)
        f.lock(a, PR)
        f.results()
        f.unlock(3)
        f.unlock(2)
        f.poll()
        f.results()
    with _file(tape) as f:
        f.lock(a, PR, bastaddr=0)
        f.lock(a, EX)
        f.results()
        f.convert(1, PR)
        f.results()


def many_results(tape: Tape, a: bytes) -> None:
    """4.9: more results of one lock than the six that 6.1 keeps."""
    with _file(tape) as f:
        f.lock(a, NL)
        for _ in range(3):
            f.convert(1, CR)
            f.convert(1, NL)
        f.convert(1, PR)
        f.poll()
        f.results()
        f.unlock(1)
        f.results()


def reused_ids(tape: Tape, a: bytes) -> None:
    """4.11: which id is taken next, while ended locks' results are unread and after."""
    with _file(tape) as f:
        for _ in range(4):
            f.lock(a, CR)
        f.results()
        f.unlock(2)
        f.lock(a, CR)
        f.results()
        f.unlock(3)
        f.unlock(1)
        f.lock(a, CR)
        f.lock(a, CR)
        f.results()
        f.lock(a, CR)
        f.results()
        tape.locks()


# ---- 4.3 the 32-bit layout ----------------------------------------------------------------------


def compat(tape: Tape, a: bytes) -> None:
    """4.3: 32-bit requests; all later results of the file are 32-bit ones."""
    small = Layout.COMPAT32
    with _file(tape) as f, _file(tape) as g:
        f.write(lock(a, EX, F.VALBLK, layout=small))
        g.lock(a, PR)
        for size in (12, 51, 52, 83):
            f.read(size)
        f.results(84)
        f.lock(a + b"c64name", NL, castaddr=0x112233445566)
        f.results()
        raw = lock(a + b"-long-name", NL, layout=small)
        f.write(raw[:-4])
        f.write(raw[:103])
        f.results()
        f.write(unlock(1, layout=small))
        f.results()
        g.results()
        tape.locks()


# ---- 6.1 stopped --------------------------------------------------------------------------------


def stopped(tape: Tape, a: bytes) -> None:
    """6.1: what sleeps while the lockspace is stopped, one at a time, and what it ends with."""
    f, g = tape.file(), tape.file()
    f.lock(a, EX)
    f.lock(a + b"2", PR)
    g.lock(a, PR)
    for request in (
        lock(a + b"6", EX),
        lock(b"", EX, F.CONVERT, lock_id=77),
        lock(b"", NL, F.CONVERT, lock_id=1),
        lock(a, 7),
        unlock(2),
        unlock(3, F.CANCEL),
        unlock(99),
    ):
        tape.stop()
        tape.get("dlm/test/recover_status")
        call = tape.name("w")
        f.write(request, async_=call)
        tape.do("pending", async_=call)
        f.lock(a, EX, castaddr=0)
        tape.start()
        tape.do("wait", async_=call)
        f.results()
        g.results()
        tape.locks()
    f.close()
    g.close()


def stopped_close(tape: Tape, a: bytes) -> None:
    """6.1: close and a local purge sleep while the lockspace is stopped; adopting does not."""
    f, g = tape.file(), tape.file()
    f.lock(a, EX, F.PERSISTENT)
    f.close()
    g.lock(a, PR)
    g.lock(a + b"2", EX)
    tape.stop()
    g.adopt(a, EX)
    g.adopt(a + b"none", EX)
    g.adopt(a, PR)
    g.results()
    g.poll()
    tape.locks()
    h = tape.file()
    tape.start()
    tape.locks()
    for do in ("purge", "close"):
        tape.stop()
        call = tape.name("w")
        if do == "purge":
            h.write(encode_request(PurgeRequest(nodeid=0, pid=0)), async_=call)
        else:
            tape.do("close", fd=g.name, async_=call)
        tape.do("pending", async_=call)
        tape.start()
        tape.do("wait", async_=call)
        tape.locks()
    h.purge(0, 0)
    h.close()


# ---- processes ----------------------------------------------------------------------------------


def exits(tape: Tape, a: bytes) -> None:
    """4.7: processes exit with several files, locks and orphans to be; another one notices."""
    stays = tape.file()
    first, second = tape.file(process="p1"), tape.file(process="p1")
    first.lock(a, EX, F.VALBLK)
    second.lock(a, EX, F.VALBLK)
    second.lock(a + b"2", PR, F.PERSISTENT)
    stays.lock(a, PR, F.VALBLK)
    stays.lock(a + b"2", EX)
    stays.results()
    tape.locks()
    tape.do("exit", process="p1")
    tape.settle()
    stays.results()
    tape.locks()
    first.read()
    again = tape.file(process="p1")  # another process of that name
    again.adopt(a + b"2", PR, 0)
    tape.do("exit", process="p1")
    tape.settle()
    stays.results()
    tape.locks()
    stays.close()


def exits_while_stopped(tape: Tape, a: bytes) -> None:
    """6.1: a process that exits while the lockspace is stopped sleeps in the close of its file."""
    stays = tape.file()
    gone = tape.file(process="p1")
    gone.lock(a, EX)
    stays.lock(a, PR)
    tape.stop()
    call = tape.name("exit")
    tape.do("exit", process="p1", async_=call)
    tape.do("pending", async_=call)
    tape.locks()
    tape.start()
    tape.do("wait", async_=call)
    stays.results()
    tape.locks()
    stays.close()


def two_lockspaces(tape: Tape, a: bytes) -> None:
    """4.11: another lockspace has ids, queues and stops of its own."""
    fd = tape.up("other", save="other")
    f, g = tape.file(), tape.file(lockspace="other")
    for file in (f, g):
        file.lock(a, EX)
        file.lock(a, PR)
    f.unlock(1)
    f.results()
    g.results()
    tape.stop("other")
    f.lock(a, NL, F.EXPEDITE)
    f.results()
    g.read()
    tape.get("dlm/test/recover_status", "dlm/other/recover_status")
    tape.start("other")
    tape.locks()
    tape.locks("other")
    tape.get("dlm/test/id", "dlm/other/id")
    tape.put("dlm/other/id", "7")
    g.close()
    f.close()
    tape.down(fd, "other", saved_as="other")


STORIES: dict[str, tuple[Story, ...]] = {
    "11.1-grants": (
        noqueue, two_waiters, rising_waiters, middle_waiters, waiting_order, behind_conversion,
        two_resources, head_of_conversions, queued_conversion, told_again, compatibility,
        conversions,
    ),
    "11.2-deadlock": (deadlock, deadlock_noorder, altmode, altmode_waiting),
    "11.3-unlock": (
        unlock_states, deadlock_command, unlock_before_reading, other_file, force_unlock,
    ),
    "11.4-values": (
        value_moves, value_without_buffer, value_invalid, value_lost_holder, value_unread,
        value_tossed, value_table,
    ),
    "4.4-requests": (bad_flags, bad_requests, side_effects, envelopes),
    "4.5-reading": (reading, blocking_read, compat),
    "4.7-close": (closing, orphans, orphan_order, purge),
    "4.7-exit": (exits, exits_while_stopped),
    "4.9-results": (merging, many_results, reused_ids),
    "4.11-lockspaces": (two_lockspaces,),
    "6.1-stopped": (stopped, stopped_close),
}  # fmt: skip
"""The stories of each trace, which share a lockspace."""


def play(tape: Tape, stories: tuple[Story, ...]) -> None:
    """Tell stories one after the other in one lockspace."""
    tape.configure()
    fd = tape.up()
    for number, story in enumerate(stories):
        story(tape, b"r%d" % number)
        tape.locks()
    tape.down(fd)
