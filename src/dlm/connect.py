"""Chooses a backend by name: the one place that knows which there are.

Decides: what a spec means, and the default (``DLM_BACKEND``, else ``kernel``).
May not know: what a backend does.
"""

from __future__ import annotations

import errno
import os
import sys
from types import ModuleType

from dlm.errors import NoDlmError, UsageError
from dlm.ports import Backend

VARIABLE = "DLM_BACKEND"
"""The environment variable that names the backend when nothing else does."""

SPECS = "kernel | kernel:root=DIR | emulator:DIR/NODE | remote:PATH"
"""What ``connect`` takes, for messages and help."""


def connect(spec: str | None = None) -> Backend:
    """Return a process's view of a node's kernel.

    ``spec`` is ``kernel`` (this machine), ``kernel:root=DIR`` (a recorded tree below ``DIR``),
    ``emulator:DIR/NODE`` (a node of a cluster that ``dlm_tool emulator up`` serves in ``DIR``) or
    ``remote:PATH`` (what ``dlm_tool serve`` exports at a socket or device); None or "": the
    environment's ``DLM_BACKEND``, else ``kernel``. Raises ``UsageError`` for any other text,
    ``NoDlmError`` when there is no such backend here. An emulator in this process needs no name:
    ``dlm.emulator.Cluster``.
    """
    spec = spec or os.environ.get(VARIABLE) or "kernel"
    kind, _, rest = spec.partition(":")
    if kind == "kernel":
        return _kernel(spec, rest)
    if kind == "emulator" and os.path.basename(rest):
        return _node(spec, *os.path.split(rest))
    if kind == "remote" and rest:
        return _remote(spec, rest, "start it: dlm_tool serve")
    raise UsageError(f"backend {spec!r} is none of: {SPECS}")


def _kernel(spec: str, rest: str) -> Backend:
    from dlm.kernel import KernelBackend

    if not rest:
        return KernelBackend()
    key, _, root = rest.partition("=")
    if key != "root" or not root:
        raise UsageError(f"backend {spec!r} is none of: {SPECS}")
    if not os.path.isdir(root):
        raise NoDlmError(f"there is no directory {root}", "name a recorded tree")
    return KernelBackend(os.path.abspath(root))  # a helper process has its own directory


def _node(spec: str, directory: str, node: str) -> Backend:
    path = os.path.join(directory, f"{node}.sock")  # as dlm.cli.served makes it
    up = f"dlm_tool emulator up --nodes {node}=ADDRESS,... {directory or '.'}"
    try:
        return _remote(spec, path, f"start one: {up}")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        advice = f"let it boot: dlm_tool emulator restart {node} {directory or '.'}"
        raise NoDlmError(f"{node} is down", advice) from error


def _remote(spec: str, path: str, advice: str) -> Backend:
    from dlm.remote.client import connect

    try:
        return connect(path, describe=spec)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
        raise NoDlmError(f"nobody serves {spec}", advice) from error
    except PermissionError as error:
        text = f"{spec} is another user's" if error.errno == errno.EACCES else str(error)
        raise NoDlmError(text, "be that user") from error


class _CallableModule(ModuleType):
    """Lets ``dlm.connect(...)`` be the function, whoever has imported the module before."""

    def __call__(self, spec: str | None = None) -> Backend:
        return connect(spec)


sys.modules[__name__].__class__ = _CallableModule
