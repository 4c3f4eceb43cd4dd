"""What begins at once: it ends there, or goes on as a task as if it had been one from its first step."""

import asyncio

import pytest

from controlplane.eager import begin


async def test_work_that_never_waits_has_ended_when_begin_returns() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("all")

    assert begin(work()) is None
    assert done == ["all"]


async def test_work_that_waits_goes_on_as_a_task() -> None:
    done: list[object] = []
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        done.append("first")
        done.append(await gate)
        await asyncio.sleep(0)
        with pytest.raises(KeyError):
            await _raise(KeyError("x"))
        done.append("last")

    left = begin(work())
    assert left is not None
    assert done == ["first"]
    async with asyncio.TaskGroup() as group:
        group.create_task(left)
        await asyncio.sleep(0)
        gate.set_result("second")
    assert done == ["first", "second", "last"]


@pytest.mark.parametrize("waits", [False, True])
async def test_what_it_raises_is_raised_by_what_is_left(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise KeyError("x")

    left = begin(work())
    assert left is not None
    with pytest.raises(KeyError):
        await left


async def test_a_cancel_arrives_at_the_work() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    left = begin(work())
    assert left is not None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(left)
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert seen == ["cleaned up"]


async def _raise(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error
