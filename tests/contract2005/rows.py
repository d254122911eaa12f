"""The rows of 2005's interface that this directory answers for, by the document's sections.

Decides: what there is to hold (``ROWS``, in our own words), and why some of it has no test
(``UNTESTED``). A test declares its rows by ``@pytest.mark.row("…", …)``; test_rows.py compares.
May not know: any test.

Sections 1 sysfs, 2 April, 3 July, 4 dlm-node, 5 states, 6 create and release, 7 uevents, 8 lock
device, 9 debugfs. UNKNOWN and INFER are the document's own marks for what nobody found.
"""

from __future__ import annotations

ROWS: dict[str, str] = {
    # ---- 1 sysfs ----
    "1.1 directory before the join": "made before create waits",
    "1.1 directory name": "63 bytes of the name, nothing replaced, nothing refused",
    "1.2 mode bits bind root": "EACCES against the mode bits for root, too",
    "1.2 empty write": "0, no store",
    "1.2 long write": "4095 bytes in April, 4096 in July",
    "1.2 stale bytes": "a shorter write to the same open file leaves the longer one's end behind",
    "1.3 numbers": "simple_strtol with base 0: garbage is 0",
    # ---- 2 April ----
    "2 files of April": "seven files and their modes",
    "2 initial values": "0",
    "2 stop": "takes 1 only",
    "2 terminate": "takes 1 only, shows a flag",
    "2 finish": "never fails",
    "2 id": "any text, at any time, no uniqueness",
    "2 members read": "EBUSY unless running",
    "2 numbers can be read at any time": "never EBUSY",
    "2.1 members write": "one blank between ids, nothing else",
    "2.1 pending list": "EINVAL until a start takes it",
    "2.1 duplicates": "count once",
    # ---- 3 July ----
    "3 files of July": "four files and their modes",
    "3 control": "0 stops, 1 starts, no error of a start is told",
    "3 event_done": "any number; remembered when nobody waits",
    # ---- 4.1 dlm-node ----
    "4.1 device": "a misc device with an ioctl only",
    "4.1 capability": "EACCES first of all",
    "4.1 type": "ENOTTY for another type byte; direction and size do not count",
    "4.1 version": "EINVAL for another major or a higher minor; written back",
    "4.1 faults": "EFAULT for what cannot be read",
    "4.1 other numbers": "succeed without effect",
    "4.1 set_node": "no checks; overwrites",
    "4.1 set_local": "three addresses at most; the last node id wins",
    "4.1 set_local again": "a repeated address counts in April and is dropped in July",
    "4.1 no local address": "INFER: EINVAL",
    "4.1 local address of another machine": "create fails",
    "4.1 version after a mismatch": "the kernel's version is written back then, too",
    "4.1 weight": "counts in July, not in April",
    # ---- 5 states ----
    "5.2 stop": "what it sets",
    "5.2 start": "what it sets, and done",
    "5.2 finish": "what it sets, and locking",
    "5.2 done on all": "recovery goes through barriers",
    "5.3 order": "start, done, finish, stop, start",
    "5.3 own numbers": "each node has its own",
    "5.4 stop is legal at any time": "before a start, twice",
    "5.4 stop during a recovery": "ends it",
    "5.4 locking is off": "calls wait",
    "5.5 running": "April EINVAL (INFER), July silent",
    "5.5 no members": "EINVAL",
    "5.5 number": "must grow, and be above 0",
    "5.6 finish before done": "heeded at the end of the recovery",
    "5.6 wrong number": "ignored",
    "5.7 terminate": "flags for ever",
    "5.8 first start cancelled": "numbers go back to 0",
    "5.8 finish twice": "INFER: ignored",
    "5.8 finish after stop": "ignored, the later ones by INFER",
    "5.8 start after start": "both recoveries run",
    "5.8 finish with a start under way": "INFER: ignored",
    "5.8 finish before any start": "harmless",
    "5.8 stop drops queued starts": "with the recovery",
    "5.8 stop and start at once": "boiled down to one start",
    "5.10 start during a recovery": "the newer one counts",
    # ---- 6 create and release ----
    "6.1 mutex": "held over the join",
    "6.1 name taken": "EEXIST at once",
    "6.1 name too long": "EINVAL",
    "6.2 April: start": "answers the join",
    "6.2 April: terminate": "fails the join (UNKNOWN how it looked; EINTR)",
    "6.2 July: event_done": "answers the join",
    "6.2 July: positive event_done": "looks like a minor",
    "6.3 device": "comes when create returns",
    "6.4 busy": "EBUSY unless forced",
    "6.4 leave": "offline, wait, remove",
    # ---- 7 uevents ----
    "7 add and online": "with and without environment",
    "7 change": "April only, bare",
    "7 remove": "offline bare, remove with environment",
    # ---- 8 the lock device ----
    "8.4 1 size": "135 bytes at least",
    "8.4 2 deleted": "ENOENT, end of file",
    "8.4 4 version": "EBADE",
    "8.4 5 signals": "are blocked, KILL as well, while a request is carried out",
    "8.4 6 command": "each device takes its two",
    "8.4 CREATE": "EPERM, minor",
    "8.4 CREATE name": "up to the first NUL",
    "8.4 REMOVE": "EINVAL for an unknown minor",
    "8.4 REMOVE mutex": "held over the leave",
    "8.4 LOCK": "returns the id",
    "8.4 LOCK addresses": "both needed",
    "8.4 LOCK parent": "EINVAL",
    "8.4 LOCK range": "refused here, EINVAL; the kernel had ranges",
    "8.4 LOCK convert": "returns the id",
    "8.4 LOCK orphan": "a second lock",
    "8.4 UNLOCK": "returns the count; keeps the completion address",
    "8.4 UNLOCK by anybody": "the owner gets the completion",
    "8.5 size": "64 bytes at least",
    "8.5 empty": "EAGAIN or sleep",
    "8.5 one event": "exactly one per read",
    "8.5 FIONREAD": "counts events",
    "8.5 value block": "up and equal conversions; needs room",
    "8.5 blocking": "bast_mode 0",
    "8.6 close": "ends locks but persistent ones",
    "8.6 last request": "decides what is persistent",
    "8.6 stopped": "close waits",
    "8.6 removed under a call": "INFER: ENOENT",
    "8.7 dlm_lock arguments": "EINVAL",
    "8.7 NOQUEUE": "is a completion",
    "8.7 unknown ids": "EBADSLT, ENOENT",
    "8.7 convert while not granted": "EBUSY",
    "8.7 dlm_unlock": "EINVAL by state",
    "8.7 remote reply": "EBUSY",
    "8.7 held results": "no AST while stopped",
    # ---- 9 ----
    "9 debugfs": "one file of queues",
}

UNTESTED: dict[str, str] = {
    "1.2 stale bytes": "an attribute is opened for every write here: no file gets a second one",
    "4.1 version after a mismatch": "a refusal has no result to show it in",
    "5.8 stop and start at once": "the recovery thread of an emulated node runs at once",
    "8.4 5 signals": "an emulated process gets no signals",
}
"""Rows without a test, and why."""
