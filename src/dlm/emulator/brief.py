"""Values as short texts, for the trace.

Decides: that fields with their default are left out. May not know: which values there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum


def brief(value: object) -> str:
    """Return a value as one short line; a record shows what differs from its defaults."""
    if isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return repr(value.rstrip(b"\0"))
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        if names is None:
            return f"({', '.join(map(brief, value))})"
        return _shown(value, names, getattr(value, "_field_defaults", {}))
    if is_dataclass(value) and not isinstance(value, type):
        defaults = {field.name: field.default for field in fields(value)}
        return _shown(value, defaults, defaults)
    return repr(value)


def _shown(value: object, names: Iterable[str], defaults: Mapping[str, object]) -> str:
    shown = [
        f"{name}={brief(content)}"
        for name in names
        if (content := getattr(value, name)) != defaults.get(name, MISSING)
    ]
    return f"{type(value).__name__}({', '.join(shown)})"
