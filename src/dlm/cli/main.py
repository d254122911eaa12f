"""dlm_tool: from argv to an exit code.

Decides: what is printed where, and which exit code an end has.
May not know: what an action does; any kernel.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from dlm.cli.actions import ACTIONS, usage_text
from dlm.cli.parser import PROGRAM, CommandLineError, Request, find_action, help_text, parse
from dlm.cli.sentences import ExitCode, explain, say_waiting
from dlm.control.runner import Journal, run
from dlm.ports import Backend

__all__ = ["ExitCode", "console", "main"]


def main(
    argv: Sequence[str],
    *,
    backend: Backend | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run one command line, without the program's name; return its exit code.

    ``backend`` is the process that the tool runs as, which the caller closes; None: as
    ``--backend`` or the environment say. Nothing is raised but ``SystemExit`` and bugs' debris.
    """
    tool = _Tool(stdout or sys.stdout, stderr or sys.stderr)
    return int(tool.run(list(argv), backend))


def console() -> None:
    """Run the command line of this process; the console script."""
    # Nothing of what the tool has loaded is garbage: spare its start and its end the search for
    # some, which is a tenth of a start (bench/startup.py).
    gc.freeze()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more: say no more, and fail at no later flush
        sys.stdout = None
        code = ExitCode.REFUSED
    sys.exit(code)


class _Tool:
    """One run of the tool."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._json = False
        self._journal = Journal(self._note)
        self._attempt = ""

    def run(self, argv: list[str], backend: Backend | None) -> ExitCode:
        name = find_action(argv)
        if (code := self._help(argv, name)) is not None:
            return code
        action, self._json, debug = name or "", "--json" in argv, bool({"-D", "--debug"} & {*argv})
        self._attempt = action
        try:
            if name is None:
                raise CommandLineError(f"no action; {PROGRAM} alone lists them", "")
            request = parse(argv, name)
            self._attempt = request.attempt
            return self._perform(request, backend)
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a bug gets a sentence too
            if debug:
                import traceback

                traceback.print_exception(error, file=self._err)
            return self._fail(error, action)

    def _help(self, argv: list[str], name: str | None) -> ExitCode | None:
        """Print what needs no action; None when there is an action to perform."""
        if not argv or (name is None and {"-h", "--help"} & set(argv)):
            self._out.write(usage_text(PROGRAM))
        elif name is None and {"-V", "--version"} & set(argv):
            from dlm import __version__

            self._out.write(f"{PROGRAM} {__version__}\n")
        elif name in ACTIONS and {"-h", "--help"} & set(argv):
            self._out.write(help_text(ACTIONS[name]))
        else:
            return None
        return ExitCode.DONE

    # ---- doing it ----

    def _perform(self, request: Request, backend: Backend | None) -> ExitCode:
        if request.action.name == "demo":
            from dlm.cli.demo import demo

            return ExitCode(demo(str(request.values.get("abi", "configfs")), self._out))
        if request.action.name in {"emulator", "serve"}:
            from dlm.cli.serve import perform

            self._print(request.action.name, *perform(request, self._out))
            return ExitCode.DONE
        if request.action.name == "trace":
            from dlm.cli import trace

            code, lines, data = trace.perform(request, backend, self._out)
            self._print("trace", lines, data, code)
            return code
        if backend is not None:
            return self._perform_on(request, backend)
        from dlm.connect import connect

        backend = connect(request.values.get("backend"))  # type: ignore[arg-type]
        try:
            return self._perform_on(request, backend)
        finally:
            backend.close()

    def _perform_on(self, request: Request, backend: Backend) -> ExitCode:
        from dlm.cli.perform import plan_of, show

        if request.has("dry_run"):
            return self._perform_dry(request, backend)
        timeout: Any = request.values.get("timeout")  # Any: read as a float by its kind
        result = run(plan_of(request), backend, timeout=timeout, journal=self._journal)
        shown = show(request, result)
        if shown.refused is None:
            self._print(request.action.name, shown.lines, shown.data)
            return ExitCode.DONE
        return self._print_refused(request, shown.lines, shown.data, *shown.refused)

    def _perform_dry(self, request: Request, backend: Backend) -> ExitCode:
        from dlm.cli.perform import plan_of
        from dlm.control.dry import Record, dry_run

        records: list[Record] = []

        def tell(line: str, record: Record) -> None:
            records.append(record)
            if not self._json:
                self._out.write(f"{line}\n")

        dry_run(plan_of(request), backend, tell=tell, journal=self._journal)
        self._print(request.action.name, [], {"dry_run": records})
        return ExitCode.DONE

    # ---- saying it ----

    def _note(self, text: str) -> None:
        self._err.write(f"{PROGRAM}: {self._attempt}: note: {text}\n")
        self._err.flush()

    def _print(
        self, action: str, lines: list[str], data: dict[str, Any], code: int = ExitCode.DONE
    ) -> None:
        if self._json:
            self._print_json({"action": action, "exit": int(code), **data})
        else:
            self._out.write("".join(f"{line}\n" for line in lines))

    def _print_json(self, data: dict[str, Any]) -> None:
        import json

        if self._journal.notes:
            data["notes"] = self._journal.notes
        self._out.write(json.dumps(data) + "\n")

    def _print_refused(
        self, request: Request, lines: list[str], data: dict[str, Any], status: int, what: str
    ) -> ExitCode:
        """Show a result that the lock manager ended otherwise than asked for."""
        from dlm.errors import errno_name

        name, sentence = errno_name(status), f"{what} ({errno_name(status)})"
        if self._json:
            failure = {"exit": int(ExitCode.REFUSED), "errno": name, "error": sentence}
            self._print_json({"action": request.action.name, **failure, **data})
        else:
            self._out.write("".join(f"{line}\n" for line in lines))
        self._err.write(f"{PROGRAM}: {request.attempt}: {sentence}\n")
        return ExitCode.REFUSED

    def _fail(self, error: BaseException, action: str) -> ExitCode:
        from dlm.errors import errno_name

        for note in getattr(error, "__notes__", ()):
            self._note(note)
        waiting = say_waiting(self._journal.waiting, self._journal.asleep())
        code, sentence = explain(error, action, waiting)
        attempt = getattr(error, "attempt", self._attempt)
        prefix = f"{PROGRAM}: {attempt}: " if attempt else f"{PROGRAM}: "
        self._err.write(f"{prefix}{sentence}\n".replace("\n", " ").rstrip() + "\n")
        if self._json:
            data: dict[str, Any] = {"action": action, "exit": int(code), "error": sentence}
            if isinstance(error, OSError) and error.errno:
                data["errno"] = errno_name(error.errno)
            if written := getattr(error, "written", ()):
                data["written"] = list(written)
            self._print_json(data)
        return code
