"""The asyncio face of dlm.control: the same plans, awaited.

Decides: how a wait becomes an await.
May not know: any verb's inside.

What can sleep in the kernel is submitted to a helper, and its descriptor is watched by the loop; a
plan's looks are spaced by ``asyncio.sleep``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

from dlm.abi.texts import global_id
from dlm.control import life, nodes, recovery
from dlm.control.api import open_monitor
from dlm.control.plan import Plan, T
from dlm.control.runner import Journal, Session, Wait, steps
from dlm.control.snapshot import NodeView, snapshot
from dlm.control.watch import RESCAN, Event, Scanner
from dlm.errors import TimedOutError
from dlm.ports import Backend, UeventSource

__all__ = ["Control", "LockspaceControl", "Watch", "arun", "global_id"]


async def arun(
    plan: Plan[T],
    backend: Backend,
    *,
    timeout: float | None = None,
    journal: Journal | None = None,
) -> T:
    """Run a plan to its end in the running loop; else as ``dlm.control.runner.run``."""
    session = Session(backend, timeout, journal or Journal())
    driven = steps(plan, session)
    try:
        while True:
            try:
                wait = next(driven)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            await _waited(wait)
    finally:
        session.close(0)


async def _waited(wait: Wait) -> None:
    if wait.fileno is None:
        assert wait.seconds is not None
        await asyncio.sleep(wait.seconds)
    else:
        await readable(wait.fileno(), wait.seconds)


async def readable(fileno: int, timeout: float | None) -> bool:
    """Wait up to ``timeout`` seconds until a descriptor is readable; say whether it is."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fileno, set_ready)
    try:
        await asyncio.wait_for(ready, timeout)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fileno)
    return True


class Control:
    """Controls the DLM of one node, in asyncio; the twin of ``dlm.control.Control``.

    ``timeout`` in seconds bounds every verb that is given none, ``force`` goes on where somebody
    else controls, ``tell`` is told what is no error but worth knowing.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        timeout: float | None = None,
        force: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._backend = backend
        self._timeout = timeout
        self._force = force
        self._tell = tell

    async def _run(self, plan: Plan[T], timeout: float | None = None) -> T:
        limit = self._timeout if timeout is None else timeout
        return await arun(plan, self._backend, timeout=limit, journal=Journal(self._tell))

    async def set_local(
        self, nodeid: int, address: str | Sequence[str], weight: int | None = None
    ) -> None:
        """Say which node this is, and add addresses to it."""
        await self._run(nodes.set_local(nodeid, address, weight, force=self._force))

    async def set_node(
        self, nodeid: int, address: str | Sequence[str], weight: int | None = None
    ) -> None:
        """Say where a node is; other addresses than it has replace them all."""
        await self._run(nodes.set_node(nodeid, address, weight, force=self._force))

    def lockspace(self, name: str) -> LockspaceControl:
        """Return the verbs of one lockspace, which need not exist."""
        return LockspaceControl(self, name)

    async def snapshot(self) -> NodeView:
        """Return what the kernel shows of the node and its lockspaces."""
        return await self._run(snapshot())

    def events(self, *, rescan: float = RESCAN) -> Watch:
        """Return the joins, leaves and done starts from now on; see ``Watch``."""
        return Watch(self._backend, rescan)

    def hold_monitor(self) -> AbstractAsyncContextManager[None]:
        """Hold dlm-monitor open; see ``dlm.control.Control.hold_monitor``."""
        return self._hold_monitor()

    @asynccontextmanager
    async def _hold_monitor(self) -> AsyncIterator[None]:
        with open_monitor(self._backend):
            yield


class LockspaceControl:
    """The verbs on one lockspace, in asyncio; the twin of ``dlm.control.LockspaceControl``."""

    def __init__(self, control: Control, name: str) -> None:
        self._control = control
        self.name = name

    async def create(
        self,
        *,
        wait: bool = False,
        exclusive: bool = False,
        timeout: float | None = None,
    ) -> int | None:
        """Create it; returns once it is there, or once its join is over when ``wait``."""
        plan = life.create(self.name, wait=wait, exclusive=exclusive, force=self._control._force)
        return await self._control._run(plan, timeout)

    async def release(
        self,
        *,
        answer: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Remove it with all its locks; ``answer`` False leaves the leave to ``terminate``."""
        plan = life.release(self.name, answer=answer, force=self._control._force)
        await self._control._run(plan, timeout)

    async def set_id(self, number: int) -> None:
        """Give it its global id, between create and the first start."""
        await self._control._run(life.set_id(self.name, number, force=self._control._force))

    async def stop(self, *, timeout: float | None = None) -> None:
        """Suspend locking on this node."""
        plan = recovery.stop(self.name, force=self._control._force)
        await self._control._run(plan, timeout)

    async def start(
        self, event_nr: int, members: Sequence[int], rejoined: Iterable[int] = ()
    ) -> None:
        """Let it recover with these members; answers its join if that still waits."""
        force = self._control._force
        plan = recovery.start(self.name, event_nr, members, rejoined=rejoined, force=force)
        await self._control._run(plan)

    async def get_done(self) -> int:
        """Return the number of the last start seen done, 0 if none."""
        return await self._control._run(recovery.get_done(self.name))

    async def wait_done(self, event_nr: int, *, timeout: float | None = None) -> int:
        """Wait until start ``event_nr``, or a later one, is done; return the number seen."""
        return await self._control._run(recovery.wait_done(self.name, event_nr), timeout)

    async def finish(self, event_nr: int) -> None:
        """Check that ``event_nr`` is the last start and that it is done."""
        await self._control._run(recovery.finish(self.name, event_nr))

    async def terminate(self) -> None:
        """End the wait of a join, which then fails, or let a leave go on."""
        await self._control._run(life.terminate(self.name, force=self._control._force))


class Watch:
    """Joins, leaves and done starts of a node, as they are seen; an asynchronous iterator.

    The twin of ``dlm.control.watch.Watch``; iterate in one task only.
    """

    def __init__(self, backend: Backend, rescan: float) -> None:
        self._backend = backend
        self._source: UeventSource | None = backend.uevents()
        self._scanner = Scanner(backend, rescan)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        if self._source is None:
            raise StopAsyncIteration
        return await self.next_event()

    async def next_event(self, timeout: float | None = None) -> Event:
        """Wait for the next event; raises ``TimedOutError`` after ``timeout`` seconds."""
        assert self._source is not None, "the watch was closed"
        end = None if timeout is None else self._backend.now() + timeout
        while (event := await self._next_nowait()) is None:
            left = self._scanner.patience(end)
            if left is None:
                raise TimedOutError(f"no event came in {timeout:g} s")
            if await readable(self._source.fileno(), left):
                self._scanner.drain(self._source)
        return event

    async def _next_nowait(self) -> Event | None:
        if (event := self._scanner.pop()) is None:
            self._scanner.take(await arun(self._scanner.scan(), self._backend))
            event = self._scanner.pop()
        return event

    def close(self) -> None:
        """End the watch."""
        if self._source is not None:
            self._source.close()
            self._source = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()
