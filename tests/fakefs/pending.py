"""Calls that have begun: the node's own sleep in place of a helper process.

Decides: how a result becomes the kernel room's, as ``dlm.kernel.pending.HelperPending`` does it.
May not know: any call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dlm.ports import Pending


class Returned:
    """A call that has returned already (``dlm.ports.Pending``)."""

    def __init__(self, value: object = None, error: OSError | None = None) -> None:
        self._value = value
        self._error = error
        self._descriptor = -1

    def done(self) -> bool:
        """Say that it has."""
        return True

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - there is no wait
        """Say that it has."""
        return True

    def result(self) -> Any:  # Any: the result's type is the call's
        """Return the result or raise the error."""
        if self._error is not None:
            raise self._error
        return self._value

    def fileno(self) -> int:
        """Return a descriptor that is readable."""
        if self._descriptor < 0:
            self._descriptor = os.eventfd(1, os.EFD_CLOEXEC)
        return self._descriptor

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class FakePending:
    """A pending call of the node, seen from the kernel room (``dlm.ports.Pending``)."""

    def __init__(
        self,
        pending: Pending,
        convert: Callable[[Any], Any],  # Any: the result's type is the call's
        path: str | None,
    ) -> None:
        self._pending = pending
        self._convert = convert
        self._path = path

    def done(self) -> bool:
        """Say whether the call has returned."""
        return self._pending.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Let the node's world go on up to ``timeout`` seconds; say whether the call returned."""
        return self._pending.wait(timeout)

    def result(self) -> Any:  # Any: the result's type is the call's
        """Wait without end, then return the call's result or raise its ``OSError``."""
        try:
            return self._convert(self._pending.result())
        except OSError as error:
            error.filename = self._path or error.filename
            raise

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the call has returned."""
        return self._pending.fileno()

    def close(self) -> None:
        """Let go, as the node does."""
        self._pending.close()
