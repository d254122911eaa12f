"""Break one rule after the other and replay the recorded traces: each must make a difference.

    python -m tests.mutation.check            every rule; exit 1 when one is not noticed
    python -m tests.mutation.check WORD       the rules that contain the word

Decides: how a broken rule is loaded (in a process of its own, the file changed on its way into
Python), in which order traces are tried.
May not know: the rules (mutants.py).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutation.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dlm"
TRACES = ROOT / "fixtures" / "traces"
PATIENCE = 600
"""Seconds after which a process has hung: a broken rule can do that, which is noticing, too."""


def broken(mutant: Mutant) -> str:
    """Return the text of the mutant's file with its rule broken."""
    text = (SOURCE / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has {text.count(mutant.old)} times {mutant.old!r}")
    return text.replace(mutant.old, mutant.new)


def load(mutant: Mutant) -> ModuleType:
    """Return the mutant's module as it loads, beside the one that everybody else has."""
    breaker = _Breaker(mutant)
    spec = breaker.find_spec(breaker.name, None)
    if spec is None or spec.loader is None:
        raise ImportError(breaker.name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Breaker(importlib.abc.MetaPathFinder):
    """Gives one module of dlm another text than its file has."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = "dlm." + mutant.file.removesuffix(".py").replace("/", ".")
        self._path = str(SOURCE / mutant.file)
        self._text = broken(mutant)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find that one module."""
        del path, target
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=_Loader(fullname, self._path, self._text)
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        """Compile the other text; no cached code of the file counts."""
        del fullname
        return compile(self._text, self.path, "exec", dont_inherit=True)


def in_order(mutant: Mutant) -> list[Path]:
    """Return all traces, those first that most likely notice."""
    paths = sorted(TRACES.glob("*/*.jsonl*"))
    return sorted(paths, key=lambda path: mutant.first not in f"{path.parent.name}/{path.name}")


def notice(mutant: Mutant) -> str:
    """Replay with a broken rule; return what the first trace that differs says, "" if none does."""
    sys.meta_path.insert(0, _Breaker(mutant))
    from dlm.cli.emulated import Emulated  # noqa: PLC0415 - only after the rule was broken
    from dlm.trace import load, replay  # noqa: PLC0415

    for path in in_order(mutant):
        trace = load(path)
        emulated = Emulated(trace)
        where = f"{path.parent.name}/{path.name}"
        try:
            report = replay(trace, emulated.backends, machines=emulated)
        except NameError:
            raise  # the edit is out of date, no rule was broken
        except Exception as error:  # noqa: BLE001 - a broken rule may break anything
            return f"{where}: {type(error).__name__}"
        if report.differences:
            return f"{where}, operation {report.differences[0].number}"
    return ""


def run(mutant: Mutant) -> str:
    """Do ``notice`` in a process of its own."""
    words = [sys.executable, "-m", "tests.mutation.check", "--break", mutant.rule]
    try:
        ran = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "it hangs"
    if ran.returncode:
        raise RuntimeError(f"{mutant.rule}: {ran.stderr}")
    return ran.stdout.strip()


def main(words: Sequence[str]) -> int:
    """Try the rules; return the exit code."""
    if words[:1] == ["--break"]:
        sys.stdout.write(notice(next(each for each in MUTANTS if each.rule == words[1])))
        return 0
    chosen = [each for each in MUTANTS if all(word in each.rule for word in words)]
    began, missed = time.monotonic(), 0
    for number, mutant in enumerate(chosen, 1):
        found = run(mutant)
        missed += not found
        sys.stdout.write(f"{number:3}/{len(chosen)} {mutant.rule}: {found or 'NOT NOTICED'}\n")
        sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(chosen)} rules broken, {missed} not noticed ({seconds:.0f} s)\n")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
