"""What a type checker must know of dlm.control: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import dlm
from dlm.control import (
    Control,
    Done,
    Join,
    Leave,
    LockspaceControl,
    LockspaceView,
    NodeView,
    Phase,
    Watch,
    aio,
    global_id,
)
from dlm.control.plan import Plan
from dlm.control.recovery import get_done, start
from dlm.control.runner import run
from dlm.ports import Backend


def connect() -> None:
    """``dlm.connect`` is the function."""
    assert_type(dlm.connect(), Backend)
    assert_type(dlm.connect("kernel:root=tree"), Backend)
    dlm.connect(1)  # type: ignore[arg-type]


def verbs(control: Control) -> None:
    """The blocking face."""
    control.set_local(1, "10.0.0.1")
    control.set_node(2, ["10.0.0.2", "fd00::2"], weight=3)
    control.set_node("2", "10.0.0.2")  # type: ignore[arg-type]
    test = control.lockspace("test")
    assert_type(test, LockspaceControl)
    assert_type(test.create(), int | None)
    assert_type(test.create(wait=True, exclusive=True, timeout=1.5), int | None)
    test.set_id(global_id("test"))
    test.start(1, [1, 2, 3])
    test.start(2, (1, 2, 3), rejoined={1})
    test.start(3, 1)  # type: ignore[arg-type]
    assert_type(test.get_done(), int)
    assert_type(test.wait_done(3, timeout=10), int)
    test.finish(3)
    test.stop()
    test.terminate()
    test.release(answer=False)
    with control.hold_monitor():
        pass


def views(view: NodeView) -> None:
    """What a snapshot holds."""
    assert_type(view.local, int | None)
    assert_type(view.lockspaces, tuple[LockspaceView, ...])
    lockspace = view.lockspaces[0]
    assert_type(lockspace.phase, Phase)
    assert_type(lockspace.members, tuple[tuple[int, int], ...])
    lockspace.phase = Phase.RUNNING  # type: ignore[misc]


def events(control: Control) -> None:
    """Events are told apart by their types."""
    watch = control.events(rescan=5)
    assert_type(watch, Watch)
    for event in watch:
        match event:
            case Join(lockspace) | Leave(lockspace):
                assert_type(lockspace, str)
            case Done(lockspace, event_nr):
                assert_type(event_nr, int)


async def asyncio_face(backend: Backend) -> AsyncIterator[int]:
    """The same verbs, awaited."""
    control = aio.Control(backend, timeout=5)
    await control.set_local(1, "10.0.0.1")
    test = control.lockspace("test")
    assert_type(await test.create(wait=True), int | None)
    await test.start(1, [1], rejoined=[1])
    assert_type(await control.snapshot(), NodeView)
    async with control.hold_monitor():
        async for event in control.events():
            if isinstance(event, Done):
                yield event.event_nr


def plans(backend: Backend) -> None:
    """A plan is a value with a result type."""
    plan = get_done("test")
    assert_type(plan, Plan[int])
    assert_type(run(plan, backend, timeout=1), int)
    run(start("test", 1, [1]), backend)
    run(backend, backend)  # type: ignore[arg-type]
