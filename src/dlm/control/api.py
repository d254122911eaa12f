"""The blocking face of dlm.control: each verb run to its end.

Decides: how a membership manager calls the verbs.
May not know: any verb's inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from dlm.abi.texts import global_id
from dlm.control import life, nodes, recovery
from dlm.control.configfs import MONITOR_DEVICE
from dlm.control.plan import Plan, T
from dlm.control.runner import Journal, run
from dlm.control.snapshot import NodeView, snapshot
from dlm.control.watch import RESCAN, Watch
from dlm.ports import Backend

__all__ = ["Control", "LockspaceControl", "global_id", "open_monitor"]


@contextmanager
def open_monitor(backend: Backend) -> Iterator[None]:
    """Hold dlm-monitor open on a backend."""
    device = backend.open_device(MONITOR_DEVICE)
    try:
        yield
    finally:
        device.close()


class Control:
    """Controls the DLM of one node: its addresses and the life cycle of its lockspaces.

    ``timeout`` in seconds bounds every verb that is given none; ``force`` goes on where somebody
    else (dlm_controld) controls; ``tell`` is told, in a sentence, what is no error but worth
    knowing. Every verb raises ``UsageError`` before anything is read, ``RefusedError`` (an
    ``OSError`` with errno and ``written``), ``TimedOutError``, or ``NoDlmError``.
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

    def _run(self, plan: Plan[T], timeout: float | None = None) -> T:
        limit = self._timeout if timeout is None else timeout
        return run(plan, self._backend, timeout=limit, journal=Journal(self._tell))

    def set_local(
        self, nodeid: int, address: str | Sequence[str], weight: int | None = None
    ) -> None:
        """Say which node this is, and add addresses to it; what is so already is not written.

        ``nodeid`` is positive and below 2**31; ``address`` one or several IPv4 or IPv6 addresses;
        ``weight`` how large a share of the resource directory the node takes (None: as before, or
        1). Raises EEXIST when this node is another one already, ENOSPC from the kernel when there
        are too many addresses. An address that no interface has is told.
        """
        self._run(nodes.set_local(nodeid, address, weight, force=self._force))

    def set_node(
        self, nodeid: int, address: str | Sequence[str], weight: int | None = None
    ) -> None:
        """Say where a node is; other addresses than it has replace them all.

        Arguments as for ``set_local``. Raises EBUSY when the addresses change while the node is a
        member of a lockspace that is not stopped.
        """
        self._run(nodes.set_node(nodeid, address, weight, force=self._force))

    def lockspace(self, name: str) -> LockspaceControl:
        """Return the verbs of one lockspace, which need not exist."""
        return LockspaceControl(self, name)

    def snapshot(self) -> NodeView:
        """Return what the kernel shows of the node and its lockspaces."""
        return self._run(snapshot())

    def events(self, *, rescan: float = RESCAN) -> Watch:
        """Return the joins, leaves and done starts from now on, as an iterator.

        ``rescan`` is the longest time in seconds between two looks at the kernel: with every
        uevent lost, an event is that much later.
        """
        return Watch(self._backend, rescan)

    def hold_monitor(self) -> AbstractContextManager[None]:
        """Hold dlm-monitor open: when its holder dies, the kernel stops every lockspace.

        Once it was opened and is closed everywhere, every create fails with EUNATCH and every
        lockspace stops, also when it is closed in good order (Linux 6.1 fs/dlm/user.c,
        monitor_device_close()): leave the block only when no lockspace is left.
        """
        return open_monitor(self._backend)


class LockspaceControl:
    """The verbs on one lockspace of one node."""

    def __init__(self, control: Control, name: str) -> None:
        self._control = control
        self.name = name

    def create(
        self, *, wait: bool = False, exclusive: bool = False, timeout: float | None = None
    ) -> int | None:
        """Create it; returns once it is there and still joins, or when that is over if ``wait``.

        The join ends when ``start`` has answered it and the first recovery is over. Returns the
        device's minor if it is over. ``exclusive``: EEXIST when it is there. Raises ENOTCONN when
        no local node was set, EUNATCH, ECANCELED when the join was terminated.
        """
        plan = life.create(self.name, wait=wait, exclusive=exclusive, force=self._control._force)
        return self._control._run(plan, timeout)

    def release(self, *, answer: bool = True, timeout: float | None = None) -> None:
        """Remove it with all its locks; returns once it has gone from this node.

        ``answer`` False leaves the answer to ``terminate``, and returns when the leave waits for
        it. A lockspace with more users than one only loses one.
        """
        plan = life.release(self.name, answer=answer, force=self._control._force)
        self._control._run(plan, timeout)

    def set_id(self, number: int) -> None:
        """Give it its global id, between create and the first start; the same on every node."""
        self._control._run(life.set_id(self.name, number, force=self._control._force))

    def stop(self, *, timeout: float | None = None) -> None:
        """Suspend locking on this node; returns when no lock operation is inside the kernel."""
        self._control._run(recovery.stop(self.name, force=self._control._force), timeout)

    def start(self, event_nr: int, members: Sequence[int], rejoined: Iterable[int] = ()) -> None:
        """Let it recover with these members; answers its join if that still waits.

        ``event_nr`` must be above the last start's on this node, and the lockspace stopped.
        ``rejoined`` names members of the last start that left and came back since: where that is
        not known, their locks hang. Members that were not in the last start are known to have.
        """
        force = self._control._force
        plan = recovery.start(self.name, event_nr, members, rejoined=rejoined, force=force)
        self._control._run(plan)

    def get_done(self) -> int:
        """Return the number of the last start seen done, 0 if none."""
        return self._control._run(recovery.get_done(self.name))

    def wait_done(self, event_nr: int, *, timeout: float | None = None) -> int:
        """Wait until start ``event_nr``, or a later one, is done; return the number seen."""
        return self._control._run(recovery.wait_done(self.name, event_nr), timeout)

    def finish(self, event_nr: int) -> None:
        """Check that ``event_nr`` is the last start (EINVAL) and that it is done (EAGAIN)."""
        self._control._run(recovery.finish(self.name, event_nr))

    def terminate(self) -> None:
        """End the wait of a join, which then fails with ECANCELED, or let a leave go on.

        Raises EINVAL when nothing waits, EALREADY when the wait was answered.
        """
        self._control._run(life.terminate(self.name, force=self._control._force))
