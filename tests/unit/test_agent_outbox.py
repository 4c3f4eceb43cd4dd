"""Reports on their way up: the latest of each task, nothing lost when the reader goes away."""

import asyncio

import pytest

from agent.outbox import Outbox
from homeport.ids import TaskId
from homeport.protocol import TaskReport
from homeport.status import TaskStatus


def report(task_id: str, seq: int) -> TaskReport:
    return TaskReport(task_id=TaskId(task_id), seq=seq, status=TaskStatus.RUNNING)


async def test_the_latest_of_each_task_is_sent() -> None:
    outbox = Outbox()
    for each in (report("a", 1), report("b", 1), report("a", 3), report("a", 2)):
        outbox.put(each)
    assert await outbox.take() == (report("a", 3), report("b", 1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.take()


async def test_a_cancelled_reader_takes_nothing_away() -> None:
    outbox = Outbox()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(outbox.take())
        await asyncio.sleep(0)
        outbox.put(report("a", 1))
        reader.cancel()
    assert await outbox.take() == (report("a", 1),)


async def test_a_dropped_report_wakes_nobody() -> None:
    outbox = Outbox()
    outbox.put(report("a", 1))
    outbox.drop(TaskId("a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.take()
