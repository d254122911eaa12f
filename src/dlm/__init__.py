"""The Linux kernel's distributed lock manager (DLM) from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlm.connect import connect

__version__ = "0.1.0"

__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> object:
    """Load ``connect`` when it is first used: ``import dlm`` alone costs nothing."""
    if name != "connect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("dlm.connect")  # which can be called as the function of the same name
