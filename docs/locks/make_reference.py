"""Write docs/locks/reference.md from the docstrings of ``dlm.locks``; ``--check`` only compares.

Decides: what of a module is its reference: the names of ``__all__``, in that order, and of a class
the public names that it and its unnamed bases define, in the order of the source.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MODULES = ("dlm.locks", "dlm.locks.aio")
PLACE = Path(__file__).with_name("reference.md")
HEAD = """# dlm.locks: reference

Made from the docstrings by `make reference`; change those. What a lock is and how it is used:
[tutorial.md](tutorial.md). What happens to locks when something ends: [endings.md](endings.md).
"""

_Named = tuple[str, object]


def text_of(thing: object) -> str:
    """Return a docstring as Markdown: its double backquotes are single ones here."""
    return (inspect.getdoc(thing) or "").replace("``", "`")


def signature_of(name: str, function: object) -> str:
    """Return a call as one writes it, without ``self``."""
    signature = inspect.signature(function)  # type: ignore[arg-type]  # callable by its kind
    parameters = [
        each for each in signature.parameters.values() if each.name not in {"self", "cls"}
    ]
    text = str(signature.replace(parameters=parameters))
    text = re.sub(r"<(\w+\.\w+): \d+>", r"\1", text)
    text = re.sub(r"<(\w+): 0>", r"\1(0)", text)
    return f"{name}{text}".replace("'", "").replace("= 384", "= 0o600")


def members_of(kind: type) -> Iterator[_Named]:
    """Return the public names that a class defines, or a base that is not for programs."""
    named = {name for module in MODULES for name in importlib.import_module(module).__all__}
    seen = set()
    for each in kind.__mro__:
        if each is not kind and (each.__name__ in named or not each.__module__.startswith("dlm.")):
            break
        for name, member in vars(each).items():
            if not name.startswith("_") and name not in seen and inspect.getdoc(member):
                seen.add(name)
                yield name, member


def member_lines(name: str, member: object) -> list[str]:
    """Return what is said of a member; nothing of what is neither a method nor a property."""
    if isinstance(member, property):
        return [f"- `{name}`: {indented(text_of(member))}"]
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if not inspect.isfunction(member):
        return []
    word = "async " if inspect.iscoroutinefunction(member) else ""
    return [f"- `{word}{signature_of(name, member)}`: {indented(text_of(member))}"]


def indented(text: str) -> str:
    """Return a text whose later lines belong to the same item of a list."""
    return text.replace("\n", "\n  ").replace("\n  \n", "\n\n")


def class_lines(name: str, kind: type) -> list[str]:
    """Return what is said of a class."""
    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__ if base is not object)
    title = [f"### {name}", ""]
    if issubclass(kind, BaseException):
        return [*title, f"An exception; a {bases}.", "", text_of(kind), ""]
    if issubclass(kind, enum.Enum):
        values = ", ".join(f"`{each.name}`" for each in kind)
        return [*title, text_of(kind), "", f"Values: {values}.", ""]
    lines = [*title, text_of(kind), ""]
    if dataclasses.is_dataclass(kind):
        fields = ", ".join(f"`{each.name}: {each.type}`" for each in dataclasses.fields(kind))
        lines += [f"Fields: {fields}.", ""]
    members = [line for each in members_of(kind) for line in member_lines(*each)]
    return [*lines, *members, *([""] if members else [])]


def lines_of(module_name: str) -> Iterator[str]:
    """Return the lines of a module."""
    module = importlib.import_module(module_name)
    yield f"## {module_name}"
    yield ""
    yield text_of(module).partition("\n\n")[0]
    yield ""
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type):
            yield from class_lines(name, thing)
        elif inspect.isfunction(thing):
            yield from (f"### {signature_of(name, thing)}", "", text_of(thing), "")


def reference() -> str:
    """Return the whole document."""
    lines = [line for name in MODULES for line in lines_of(name)]
    return HEAD + "\n" + "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write it, or say whether it is as it should be."""
    if arguments == ["--check"]:
        if PLACE.read_text(encoding="utf-8") == reference():
            return 0
        print(f"{PLACE.name} is not what the docstrings say: run `make reference`", file=sys.stderr)
        return 1
    PLACE.write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
