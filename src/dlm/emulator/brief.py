"""Values as short texts, for the trace.

Decides: that fields with their default are left out. May not know: which values there are.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum


def brief(value: object) -> str:
    """Return a value as one short line; a dataclass shows what differs from its defaults."""
    if isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return repr(value.rstrip(b"\0"))
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))})"
    if is_dataclass(value) and not isinstance(value, type):
        shown = [
            f"{field.name}={brief(content)}"
            for field in fields(value)
            if (content := getattr(value, field.name)) != field.default
        ]
        return f"{type(value).__name__}({', '.join(shown)})"
    return repr(value)
