"""``dlm_tool``: the actions of the usage document, for operators and scripts."""

from __future__ import annotations

import sys
from types import ModuleType


class _Later(ModuleType):
    """A module of the standard library that is loaded when something of it is first used."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # the import system looks at __spec__ and its like
            raise AttributeError(name)
        own = self.__name__
        if sys.modules.get(own) is self:
            del sys.modules[own]
        __import__(own)
        return getattr(sys.modules[own], name)


# ``dataclasses`` imports ``inspect`` for texts that nobody asks for here; with all that it loads
# in turn that is a tenth of the time that a start of the tool takes (bench/startup.py).
if "inspect" not in sys.modules:
    sys.modules["inspect"] = _Later("inspect")
