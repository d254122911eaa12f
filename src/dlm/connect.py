"""Chooses a backend by name: the one place that knows which there are.

Decides: what a spec means, and the default (``DLM_BACKEND``, else ``kernel``).
May not know: what a backend does.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from dlm.errors import NoDlmError, UsageError
from dlm.ports import Backend

VARIABLE = "DLM_BACKEND"
"""The environment variable that names the backend when nothing else does."""

SPECS = "kernel | kernel:root=DIR | emulator:DIR/NODE"
"""What ``connect`` takes, for messages and help."""


def connect(spec: str | None = None) -> Backend:
    """Return a process's view of a node's kernel.

    ``spec`` is ``kernel`` (this machine), ``kernel:root=DIR`` (a recorded tree below ``DIR``) or
    ``emulator:DIR/NODE`` (a served emulator); None or "": the environment's ``DLM_BACKEND``, else
    ``kernel``. Raises ``UsageError`` for any other text, ``NoDlmError`` when there is no such
    backend here. An emulator in this process needs no name: ``dlm.emulator.Cluster``.
    """
    spec = spec or os.environ.get(VARIABLE) or "kernel"
    kind, _, rest = spec.partition(":")
    if kind == "kernel":
        return _kernel(spec, rest)
    if kind == "emulator" and rest:
        raise NoDlmError(
            f"there is no served emulator in this version, so no {spec}",
            "use an emulator in the same process (dlm.emulator.Cluster), or look at dlm_tool demo",
        )
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


class _CallableModule(ModuleType):
    """Lets ``dlm.connect(...)`` be the function, whoever has imported the module before."""

    def __call__(self, spec: str | None = None) -> Backend:
        return connect(spec)


sys.modules[__name__].__class__ = _CallableModule
