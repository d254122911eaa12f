"""The tool's frame: usage, help, version, interruption, the backend it makes for itself."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dlm
from dlm.cli import perform
from dlm.cli.actions import ACTIONS
from dlm.cli.main import main
from dlm.cli.sentences import ADVICE
from dlm.connect import connect
from dlm.control.reasons import Reason
from dlm.errors import NoDlmError, UsageError
from tests.cli.tool import Ran, Shell

RECORDED = Path(__file__).parents[2] / "fixtures" / "sysfs" / "6.1" / "running"

USAGE = """\
Usage:

dlm_tool

set_local  <nodeid> <ipaddr> [<weight>]
set_node   <nodeid> <ipaddr> [<weight>]

stop       <ls_name>
terminate  <ls_name>
start      <ls_name> <event_nr> <type> <nodeid>...
get_done   <ls_name>
finish     <ls_name> <event_nr>
poll_done  <ls_name> <event_nr>
set_id     <ls_name> <id>

create     <ls_name>
release    <ls_name>
lock       <ls_name> <res_name> <mode> [<flag>,...]
unlock     <ls_name> <lkid>            [<flag>,...]
convert    <ls_name> <lkid> <mode>     [<flag>,...]
"""


def tool(*words: str) -> Ran:
    """Run a command line that needs no node."""
    out, err = io.StringIO(), io.StringIO()
    code = main(list(words), stdout=out, stderr=err)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_without_an_action_the_usage_goes_to_stdout(words: tuple[str, ...]) -> None:
    """As the tool of 2005: its lines first, then what is new; exit code 0."""
    ran = tool(*words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(USAGE)
    assert "modes      NL,CR,CW,PR,PW,EX\ntype       not used by dlm\n" in ran.out


@pytest.mark.parametrize("name", list(ACTIONS))
def test_every_action_has_a_help_with_examples(name: str) -> None:
    """What it does, its arguments, its options, and a line to copy."""
    ran = tool(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    action = ACTIONS[name]
    assert ran.out.startswith(f"usage: dlm_tool {' '.join(action.usage().split())}")
    for option in (*action.options, *("--backend", "--timeout", "--dry-run", "--json", "--debug")):
        assert (option if isinstance(option, str) else option.flag) in ran.out
    for example in action.examples:
        assert f"  dlm_tool {example}\n" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


def test_every_example_of_the_help_can_be_said() -> None:
    """None of them is a usage error."""
    shell = Shell("nodea")
    for action in ACTIONS.values():
        for example in action.examples:
            if action.name not in {"demo", "trace"}:  # a trace's files would have to be there
                ran = shell.run(f"{example} --dry-run")
                assert ran.code in {0, 1}, (example, ran)


def test_version() -> None:
    """The name, and the package's version."""
    assert tool("-V") == Ran(0, f"dlm_tool {dlm.__version__}\n", "")


def test_every_action_does_something_and_every_reason_has_its_advice() -> None:
    """The tables are complete."""
    assert set(ACTIONS) - {"demo", "emulator", "serve", "trace"} == set(perform._TABLE)
    assert set(ADVICE) == set(Reason)


class Interrupted:
    """A process whose user presses Ctrl-C at the first wait."""

    def __init__(self, process: object) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Any:  # Any: the process's own
        return getattr(self._process, name)

    def pause(self, seconds: float, *, bounded: bool = True) -> None:
        """Be interrupted."""
        raise KeyboardInterrupt(seconds, bounded)


def test_ctrl_c_ends_the_tool_and_says_what_still_waits() -> None:
    """Exit code 130; the kernel's call goes on without it."""
    shell = Shell("nodea")
    shell.set_up()
    shell.do("create first")
    process = shell.cluster.node("nodea").process()
    out, err = io.StringIO(), io.StringIO()
    code = main(["create", "second"], backend=Interrupted(process), stdout=out, stderr=err)
    process.close()
    assert (code, out.getvalue()) == (130, "")
    assert err.getvalue().endswith(
        "dlm_tool: create second: interrupted; waited for lockspace first, which is joining, to "
        "get out of the way; still waiting in the kernel: write dlm-control CREATE_LOCKSPACE "
        "second\n"
    )


def test_a_wait_that_nothing_can_end_is_told_as_a_timeout() -> None:
    """Only an emulated world knows that; it says so in place of hanging."""
    shell = Shell("nodea")
    shell.set_up()
    shell.do("create first")
    ran = shell.run("create second")
    assert ran.code == 3
    assert "would wait for ever: nothing in the emulated world can end it; waited for " in ran.err


def test_a_bug_gets_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback unless it is asked for."""

    def broken(_request: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("dlm.cli.perform.plan_of", broken)
    ran = Shell("nodea").run("ls")
    assert ran == Ran(1, "", "dlm_tool: ls: a bug in dlm_tool: ZeroDivisionError: oh\n")


# ---- processes and backends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [["-m", "dlm"], ["-c", "from dlm.cli.main import console as c; c()"]]
)
def test_as_a_process_on_a_recorded_tree(form: list[str]) -> None:
    """``python -m dlm`` and the console script are the same tool."""
    spec = f"kernel:root={RECORDED}"
    ran = subprocess.run(
        [sys.executable, *form, "--backend", spec, "get_done", "test"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "done event_nr 0\n")
    assert ran.stderr.endswith("the number of that start is not known\n")


def test_a_start_of_the_tool_loads_neither_asyncio_nor_cffi() -> None:
    """What get_done does not need is not loaded: starts are frequent."""
    code = (
        "import sys; from dlm.cli.main import main; "
        f"main(['--backend', 'kernel:root={RECORDED}', 'get_done', 'test']); "
        "heavy = {'asyncio', 'cffi', 'pyroute2', 'subprocess', 'json', 'inspect', 'shutil'}; "
        "print(*sorted(heavy & {name for name, found in sys.modules.items() "
        "if getattr(found, '__file__', None)}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "done event_nr 0\n\n"


def test_the_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """DLM_BACKEND, unless --backend says otherwise."""
    monkeypatch.setenv("DLM_BACKEND", f"kernel:root={RECORDED}")
    assert tool("get_done", "test").out == "done event_nr 0\n"
    assert tool("get_done", "test", "--backend", "nonsense").code == 2


def test_the_backend_that_the_tool_has_made_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its close is the process's exit; one that was given stays the caller's."""
    shell = Shell("nodea")
    process = shell.cluster.node("nodea").process()
    monkeypatch.setattr("dlm.connect.connect", lambda _spec: process)
    assert tool("ls").code == 0
    with pytest.raises(ProcessLookupError):
        process.read_attribute("dlm/x/id")


def test_connect_takes_a_spec_and_is_a_function_of_the_package() -> None:
    """Whichever way it was imported; texts that mean nothing are usage errors."""
    assert dlm.connect(f"kernel:root={RECORDED}").describe() == f"kernel:root={RECORDED}"
    assert connect("kernel").describe() == "kernel"
    for spec in ("kernel:x", "kernel:rood=/", "kernel:root=", "emulator", "emulator:", "x"):
        with pytest.raises(UsageError, match="is none of"):
            connect(spec)
    with pytest.raises(NoDlmError):
        connect("kernel:root=/nonexistent")


# ---- the demo -----------------------------------------------------------------------------------


def test_the_demo_shows_the_18_steps_and_checks_them() -> None:
    """Each step of the usage document with its commands; exit code 0."""
    ran = tool("demo")
    assert (ran.code, ran.err) == (0, "")
    steps = [line.split(".")[0] for line in ran.out.splitlines() if line[:1].isdigit()]
    assert steps == [str(number) for number in range(1, 19)]
    for line in (
        "nodea> dlm_tool set_local 1 10.0.0.1\n",
        "nodec> dlm_tool set_node 3 10.0.0.3\n",
        "nodeb> dlm_tool create test\n",
        "nodec> dlm_tool start test 1 0 1 2 3\n",
        "nodea> dlm_tool get_done test\ndone event_nr 1\n",
        "nodea> dlm_tool finish test 1\n",
        "nodeb> dlm_tool stop test\n",
        "nodeb> dlm_tool start test 2 0 2 3\n",
        "nodec> dlm_tool get_done test\ndone event_nr 2\n",
        "nodec> dlm_tool finish test 2\n",
        "nodea> dlm_tool create test\ndlm_tool: create test: refused, no node was set as this one",
        "nodeb> dlm_tool start test 3 0 1 2 3\n",
        "nodea> dlm_tool start test 1 0 1 2 3\n",
        "nodec> dlm_tool get_done test\ndone event_nr 3\n",
        "nodec> dlm_tool finish test 3\n",
    ):
        assert line in ran.out
    assert ran.out.endswith("\nAll 18 steps showed what they must.\n")
    assert "\033[" not in ran.out


def test_the_demo_fails_when_a_step_shows_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a check, not a recording: exit code 1 and what was missed."""
    monkeypatch.setattr("dlm.control.recovery.get_done", _always(7))
    ran = tool("demo")
    assert ran.code == 1
    assert ran.out.endswith(
        "nodea> dlm_tool get_done test\ndone event_nr 7\n\n"
        "The demo failed: the output is not 'done event_nr 1\\\\n'\n"
    )


def _always(number: int) -> object:
    def plan(_name: str) -> object:
        return number
        yield

    return plan


class Terminal(io.StringIO):
    """An output that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_the_demo_is_coloured_on_a_terminal_only() -> None:
    """Prompts stand out; the text is the same."""
    out = Terminal()
    assert main(["demo"], stdout=out, stderr=io.StringIO()) == 0
    assert "\033[36mnodea>\033[0m dlm_tool set_local 1 10.0.0.1\n" in out.getvalue()
