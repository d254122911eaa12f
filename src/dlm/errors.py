"""The error tree, and what every errno of these interfaces is called.

Decides: which class of error a caller sees and what its message holds.
May not know: anything but the vocabulary.
"""

from __future__ import annotations

import errno as _errno

from dlm.terms import ECANCEL, EUNLOCK

_DLM_NAMES = {ECANCEL: "DLM_ECANCEL", EUNLOCK: "DLM_EUNLOCK"}


def errno_name(number: int) -> str:
    """Return the symbol of an errno or DLM status, "EINVAL" or "DLM_EUNLOCK".

    ``number`` may have either sign; an unknown one is returned in decimal.
    """
    number = abs(number)
    return _DLM_NAMES.get(number) or _errno.errorcode.get(number) or str(number)


class DlmError(Exception):
    """Base of everything that this package raises on purpose."""


class UsageError(DlmError, ValueError):
    """The caller asked for something that cannot be meant; nothing was written."""


class RefusedError(DlmError, OSError):
    """The kernel, or a check of the state it shows, refused; ``errno`` says how.

    ``written`` lists, in order, the writes that had been made before the refusal (empty: none).
    """

    def __init__(self, number: int, message: str, written: tuple[str, ...] = ()) -> None:
        OSError.__init__(self, number, message)
        self.message = message
        self.written = written

    def __str__(self) -> str:
        text = f"{self.message} ({errno_name(self.errno or 0)})"
        if self.written:
            text += f"; already written: {', '.join(self.written)}"
        return text


class ControlledError(RefusedError):
    """Somebody else (dlm_controld) controls this lockspace; EBUSY."""


class TimedOutError(DlmError, TimeoutError):
    """The time given ran out; ``waiting`` says what still waits in the kernel, if anything."""

    def __init__(self, message: str, waiting: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.waiting = waiting


class NoDlmError(DlmError):
    """There is no DLM where one was looked for; ``advice`` says what to do about it."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.message = message
        self.advice = advice


class KernelHazardError(DlmError):
    """A real kernel would hang, crash or lose a lock here; only a strict emulator raises it.

    ``kernels`` names the releases that would, oldest first.
    """

    def __init__(self, message: str, kernels: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.kernels = kernels


class StalledError(DlmError):
    """An emulated call waits for something that nothing in its world can bring about.

    ``trace`` holds the last events of the world, oldest first.
    """

    def __init__(self, message: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((message, *trace)))
        self.message = message
        self.trace = trace
