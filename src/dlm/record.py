"""Frozen values that cost next to nothing to declare.

Decides: how such a value is made, compared and shown.
May not know: what any of them means.

``class Ask(Record): question: str`` is what ``@dataclass(frozen=True)`` would make of it, for the
reader and for the type checker. A dataclass compiles six functions for every class when its module
is imported (0.2 to 0.3 ms each), and ``dlm_tool`` is started for every step of an operator's
script: bench/startup.py. Where a module is not loaded at every start, a dataclass it is.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

new_tuple = tuple.__new__
"""``new_tuple(Point, (1, 2))`` is ``Point(1, 2)`` of a named tuple, for all its fields and in half
the time: for the path of every lock (CPython 3.11)."""


@dataclass_transform(frozen_default=True)
class Record:
    """A value with the fields that its class annotates; a class attribute is a field's default."""

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        setattr(cls, "__match_args__", tuple(cls.__annotations__))  # noqa: B010 - mypy: a constant

    def __init__(self, *values: object, **named: object) -> None:
        self.__dict__.update(zip(self.__match_args__, values, strict=False), **named)

    def replace(self, **changes: object) -> Self:
        """Return a value with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def _values(self) -> tuple[Any, ...]:  # Any: each field has its own type
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")
