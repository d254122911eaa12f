"""Guests of the harness: boot them, run commands in them, call their kernels, cut their power.

    with Lab(["6.1", "6.1", "7.2"], results) as lab:
        nodea, nodeb, nodec = lab.boot()
        nodea.run("dlm_tool set_local 1 10.0.0.1", check=True)
        sleeper = nodea.start("dlm_tool create test")   # several at once
        with nodea.backend() as backend: ...            # dlm.ports.Backend over a serial port
        nodea.power_cut(); nodea.boot()

Decides: names and addresses of guests, which files are kept of each, how a backend is reached.
May not know: anything of the DLM but the name of dlm_tool's verb ``serve``.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import dlm
from dlm.ports import Backend
from tests.vm.host import say
from tests.vm.kernels import require_kernel
from tests.vm.link import CommandTimeoutError, Done, GuestDiedError, Link, NoPowerError, Running
from tests.vm.network import Network, Port
from tests.vm.qemu import Machine

BOOT_LIMIT = 240.0
"""Seconds in which a guest boots, on a machine that does other things too."""

SERVED = "/run/dlm-vm/kernel"
"""The socket in a guest at which ``dlm_tool serve`` exports its kernel."""

AGENT, LINE = "dlm.agent", "dlm.line"
"""The serial ports of a guest: the agent's, and one for whoever wants a port of his own."""

MEMORY = "512M"


class Guest:
    """A node: a kernel, a card on the network, a life that begins anew with each boot."""

    def __init__(self, name: str, kernel: str, port: Port, results: Path, sockets: Path) -> None:
        """Plan it; ``results`` and ``sockets`` are directories of this guest's own."""
        self.name = name
        self.kernel = kernel
        self.address = port.address
        self.node_id = port.number
        self.port = port
        """Its place on the network: ``port.connected = False`` pulls the cable out."""
        self.results = results
        self.line = sockets / "line"
        """A socket that is the other end of the guest's ``/dev/virtio-ports/dlm.line``."""
        self.kernel_socket = sockets / "kernel"
        """A socket at which the guest's kernel is served: ``--backend remote:…``."""
        self.boots = 0
        self._agent_socket = sockets / "agent"
        self._machine: Machine | None = None
        self._link: Link | None = None
        self._log: threading.Thread | None = None
        self._server: Running | None = None
        self._serving = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.kernel_socket))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name=f"{name}'s kernel", daemon=True).start()

    # ---- power ----------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch the power on and wait until commands can be run; raises ``GuestDiedError``."""
        assert self._machine is None, f"{self.name} has power"
        begin = time.monotonic()
        self.boots += 1
        results = self.results / f"boot{self.boots}"
        results.mkdir(parents=True)
        self.port.guest_end.unlink(missing_ok=True)  # the last boot's: qemu binds it anew
        self._agent_socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._agent_socket))
            listener.listen()
            listener.settimeout(BOOT_LIMIT)
            machine = self._machine = Machine(
                require_kernel(self.kernel),
                f"serve_agent {self.name} {self.port.hardware_address} {self.address}/24",
                results,
                memory=MEMORY,
                devices=[*self._ports(), *self.port.devices()],
            )
            log = results / "output.log"
            self._log = threading.Thread(target=machine.copy_output, args=[log], daemon=True)
            self._log.start()
            console = str(results / "console.log")
            self._link = Link(self._accept_agent(listener), self.name, console)
            self._link.wait_pong(BOOT_LIMIT)
        say(f"{self.name} ({self.kernel}) is up after {time.monotonic() - begin:.0f} s")

    def _ports(self) -> list[str]:
        """Return qemu's words for the serial ports."""
        return [
            *("-device", "virtio-serial-pci,id=ports"),
            *("-chardev", f"socket,id=agent,path={self._agent_socket}"),
            *("-device", f"virtserialport,bus=ports.0,chardev=agent,name={AGENT}"),
            *("-chardev", f"socket,id=line,path={self.line},server=on,wait=off"),
            *("-device", f"virtserialport,bus=ports.0,chardev=line,name={LINE}"),
        ]

    def _accept_agent(self, listener: socket.socket) -> socket.socket:
        """Return the connection that qemu makes when it starts."""
        try:
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise GuestDiedError(f"{self.name}'s qemu did not start") from error
        connection.settimeout(None)
        return connection

    def power_cut(self) -> None:
        """Kill the machine: what it knew and what it held is gone."""
        say(f"power cut of {self.name}")
        self.power_off()

    def power_off(self) -> None:
        """The same, when it is no part of the story."""
        link, self._link = self._link, None
        machine, self._machine = self._machine, None
        self._server = None
        if link is not None:
            link.expect_loss()
        if machine is not None:
            machine.cut()
            if self._log is not None:
                self._log.join()
            machine.close()
        if link is not None:
            link.close()

    @property
    def has_power(self) -> bool:
        """Say whether it has been booted and not been cut off since."""
        return self._machine is not None

    def _linked(self) -> Link:
        if self._link is None:
            raise NoPowerError(f"{self.name} has no power")
        return self._link

    # ---- commands -------------------------------------------------------------------------------

    def start(self, command: str, *, quiet: bool = False) -> Running:
        """Start a command (bash, as root, in the repository) and return at once.

        Its output is shown as it comes, unless ``quiet``.
        """
        if quiet:
            return self._linked().run(command, lambda _line: None)
        print(f"{self.name}$ {command}", flush=True)
        return self._linked().run(command, lambda line: print(f"{self.name}| {line}", flush=True))

    def run(
        self, command: str, timeout: float = 60.0, *, check: bool = False, quiet: bool = False
    ) -> Done:
        """Run a command to its end; a command that is too slow is killed.

        Raises what ``Running.wait`` raises.
        """
        running = self.start(command, quiet=quiet)
        try:
            return running.wait(timeout, check=check)
        finally:
            if running.running:
                running.kill()

    # ---- the kernel from outside ----------------------------------------------------------------

    @contextlib.contextmanager
    def backend(self) -> Iterator[Backend]:
        """Give a process of this guest to call its kernel from (``dlm.ports.Backend``).

        Any number at a time; each has a process of its own there, whose files close when it ends,
        and its locks go.
        """
        self.serve()
        backend = dlm.connect(f"remote:{self.kernel_socket}")
        try:
            yield backend
        finally:
            backend.close()

    def serve(self) -> None:
        """Have the guest serve its kernel, at ``kernel_socket`` of this machine; once a boot."""
        with self._serving:
            if self._server is not None and self._server.running:
                return
            self._server = self.start(f"exec dlm_tool serve {SERVED} --backend kernel", quiet=True)
            self._server.wait_for("serving ")

    def _accept(self) -> None:
        """Pass each connection to ``kernel_socket`` on to the guest."""
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                link = self._link
                if link is None:
                    end.close()
                else:
                    link.connect(end, SERVED)

    # ---- the end --------------------------------------------------------------------------------

    def keep_log(self) -> None:
        """Keep what its kernel said, if it can still say it."""
        if self._link is not None:
            with contextlib.suppress(GuestDiedError, CommandTimeoutError):
                said = self.run("dmesg", timeout=20, quiet=True)
                (self.results / f"boot{self.boots}" / "dmesg").write_text(said.stdout)

    def close(self) -> None:
        """End it for good."""
        self.power_off()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Lab:
    """Guests on one network, and what is kept of them; a context manager.

    They are called nodea, nodeb … and have the addresses 10.0.0.1, .2 …, and node ids 1, 2 … if a
    test likes. ``results`` gets a directory for each guest, and of each boot in it ``console.log``
    (the kernel's), ``output.log``, and after a failure ``dmesg``.
    """

    def __init__(self, kernels: Sequence[str], results: Path) -> None:
        self.results = results
        self.failed = False
        """Whether what the guests' kernels say is to be kept; a guest that dies sets it."""
        self._sockets = Path(tempfile.mkdtemp(prefix="dlm-vm-"))  # short: a socket's name is
        self.network = Network(self._sockets)
        self.guests = [
            self._make(f"node{chr(ord('a') + place)}", kernel)
            for place, kernel in enumerate(kernels)
        ]

    def _make(self, name: str, kernel: str) -> Guest:
        results, sockets = self.results / name, self._sockets / name
        results.mkdir(parents=True, exist_ok=True)
        sockets.mkdir()
        return Guest(name, kernel, self.network.plug(), results, sockets)

    def boot(self) -> list[Guest]:
        """Boot the guests that have no power, all at once; return all."""
        waiting = [each for each in self.guests if not each.has_power]
        with ThreadPoolExecutor(len(self.guests)) as pool:
            for booted in [pool.submit(each.boot) for each in waiting]:
                booted.result()
        return self.guests

    def power_off(self) -> None:
        """Cut the power of all guests."""
        for each in self.guests:
            if self.failed:
                each.keep_log()
            each.power_off()

    def close(self) -> None:
        """End all guests and the network."""
        self.power_off()
        for each in self.guests:
            each.close()
        self.network.close()
        for each in self.guests:
            if each.port.lost:
                say(f"{each.port.lost} frames for {each.name} were lost")
        shutil.rmtree(self._sockets, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.failed = self.failed or error is not None
        self.close()
