"""What a type checker must know of dlm.locks: checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from dlm.abi.device import LockRequest
from dlm.errors import DlmError
from dlm.locks import (
    Completion,
    DeadlockError,
    Ending,
    Lock,
    LockError,
    LockFlag,
    LockId,
    LockMode,
    Lockspace,
    LockTimedOutError,
    Mutex,
    Orphan,
    aio,
)
from dlm.ports import Backend


def blocking(backend: Backend) -> None:
    """The blocking face."""
    with Lockspace.open(backend, "test") as space:
        assert_type(space, Lockspace)
        with space.lock("name", LockMode.EX, timeout=5) as lock:
            assert_type(lock, Lock)
            assert_type(lock.mode, LockMode)
            assert_type(lock.value, bytes)
            assert_type(lock.value_valid, bool)
            assert_type(lock.blocking, LockMode | None)
            lock.value = b"text"
            lock.value = "text"  # type: ignore[assignment]
            lock.mode = LockMode.NL  # type: ignore[misc]
            lock.convert(LockMode.PR, flags=LockFlag.NODLCKWT | LockFlag.QUECVT)
            lock.convert("PR")  # type: ignore[arg-type]
            lock.on_blocking(lambda mode: print(mode.name))
            lock.on_blocking(lambda: None)  # type: ignore[misc, arg-type]
        assert_type(space.try_lock(b"name"), Lock | None)
        with space.read("name"), space.write("other", timeout=1.5):
            pass
        mutex = space.mutex("name")
        assert_type(mutex, Mutex)
        assert_type(mutex.acquire(blocking=True, timeout=None), bool)
        assert_type(space.orphans(), list[Orphan])
        assert_type(space.adopt("name", LockMode.EX), Lock)
        space.purge(nodeid=2, pid=77)
        space.deadlock_cancel(7)
        assert_type(space.submit(LockRequest(name=b"x")), tuple[LockId, Completion])
        space.release(force=True)
    Lockspace.create(backend, "test", 0o660, exclusive=True)
    Lockspace.open("kernel", "test")  # type: ignore[arg-type]


def failures(space: Lockspace) -> None:
    """Each is what a program of that habit catches."""
    try:
        space.lock("name", timeout=1)
    except LockTimedOutError as error:
        assert_type(error.ending, Ending)
    except DeadlockError as error:
        assert_type(error.lock_id, int | None)
    except TimeoutError:
        pass
    except BlockingIOError:
        pass
    except LockError as error:
        assert_type(error.name, bytes | None)
    except (DlmError, OSError):
        pass


async def tasks(backend: Backend, other: Lockspace) -> None:
    """The asyncio face."""
    async with await aio.Lockspace.open(backend, "test") as space:
        async with space.lock("name", LockMode.PR, timeout=5) as lock:
            assert_type(lock, aio.Lock)
            await lock.convert(LockMode.EX)
            async for mode in lock.blocking():
                assert_type(mode, LockMode)
        assert_type(await space.lock("name"), aio.Lock)
        assert_type(await space.try_lock("name"), aio.Lock | None)
        assert_type(await space.adopt("name", LockMode.PR), aio.Lock)
        async with space.read("name"), space.write("other"), space.mutex("third"):
            pass
        with space.lock("name"):  # type: ignore[attr-defined]
            pass
        await space.close(timeout=1)
    assert_type(aio.Lockspace.on(other), aio.Lockspace)
