"""What a DLM decides: a pure state machine per node and lockspace.

Decides: every rule of the lock manager and of recovery. May not know: I/O, clocks, chance, bytes.

================  =================================================================
``events``        what goes in and comes out
``messages``      what travels between nodes
``modes``         the tables: compatibility, value-block moves, the hash of a name
``blocks``        locks, resources, ids
``hazards``       where real kernels go wrong, and a strict lockspace raises
``state``         what a lockspace remembers; the small moves
``results``       completions and blocking ASTs on their way to the user
``locking``       what a master decides
``directory``     who masters a name
``sending``       messages made, sent, waited for
``operations``    request, convert, unlock, cancel where they are asked for
``users``         the device's commands; orphans, close, purge
``users2005``     the same for lock device 3.0.0
``receiving``     what messages do
``rebuilding``    what recovery does to locks
``recovery``      one recovery: what it waits for, how it ends
``steps``         its steps and barriers
``answering``     what another node's recovery is told
``rehearsal``     what a strict lockspace does on a copy first
``lockspace``     the machine: ``step(input) -> outputs``
================  =================================================================
"""

from __future__ import annotations

import errno

from dlm.core.messages import Message, RecoveryMessage, RecoveryType


def not_ready(message: Message) -> Message | None:
    """Return what a node answers for a lockspace that it does not have; None: nothing.

    Linux 6.1 fs/dlm/rcom.c, dlm_send_ls_not_ready(): the lockspace may just not have its id yet.
    """
    if isinstance(message, RecoveryMessage) and message.type is RecoveryType.STATUS:
        return RecoveryMessage(
            RecoveryType.STATUS_REPLY,
            id=message.id,
            sequence_reply=message.sequence,
            result=-errno.ESRCH,
        )
    return None
