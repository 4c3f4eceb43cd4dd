"""A task prepared beside the one it replaces, on a real Engine: between the two nothing is left to do but start."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from agent.engine.api import EngineEvent
from agent.engine.plan import LABEL_TASK
from homeport.ids import TaskId
from homeport.protocol import Assignment
from homeport.spec import PortMapping, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, TaskStatus
from tests.engine.conftest import Lab
from tests.engine.test_worker_real import OBEDIENT, Bench, bench

pytestmark = pytest.mark.engine

__all__ = ["bench"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.asynccontextmanager
async def recorded(lab: Lab) -> AsyncIterator[list[EngineEvent]]:
    """Note the events of this test's containers inside the block."""
    events: list[EngineEvent] = []
    opened = asyncio.Event()

    async def note() -> None:
        async for event in lab.engine.events(lab.labels):
            events.append(event)
            opened.set()

    async with asyncio.TaskGroup() as group:
        noting = group.create_task(note())
        await opened.wait()
        yield events
        noting.cancel()


async def test_between_the_old_ones_end_and_the_new_ones_start_nothing_is_pulled_or_created(
    bench: Bench, lab: Lab
) -> None:
    """Both publish the same host port: Docker takes it at the start, so the new one can be created before."""
    mapping = PortMapping(container_port=80, host_port=free_port())
    spec = lab.task(lab.container("main", *OBEDIENT, ports=(mapping,)), network_mode="bridge")
    old, new = bench.task_id, lab.task_id()
    async with bench.running(), recorded(lab) as events:
        await bench.assign(wanted(old, DesiredStatus.RUNNING, spec))
        await bench.until_status(TaskStatus.RUNNING, task_id=old)
        await bench.assign(wanted(new, DesiredStatus.PENDING, spec))
        await bench.until(lambda report: report.containers[0].status is ContainerStatus.CREATED, task_id=new)
        await bench.assign(wanted(old, DesiredStatus.STOPPED, spec))
        stopped = await bench.until_status(TaskStatus.STOPPED, task_id=old)
        await bench.assign(wanted(new, DesiredStatus.RUNNING, spec), remove=(old,))
        running = await bench.until_status(TaskStatus.RUNNING, task_id=new)
        (binding,) = running.containers[0].bindings
        assert binding.host_port == mapping.host_port
    ended, began = stopped.containers[0].finished_at, running.containers[0].started_at
    assert ended is not None
    assert began is not None
    told = [(event.kind, event.labels.get(LABEL_TASK)) for event in events if event.kind in ("create", "start", "die")]
    assert told[:5] == [("create", old), ("start", old), ("create", new), ("die", old), ("start", new)]
    assert began - ended > 0


async def test_one_that_is_called_off_leaves_nothing_behind(bench: Bench, lab: Lab) -> None:
    bench.cleanup_after_s = 3600.0
    spec = lab.task(lab.container("main"))
    async with bench.running() as worker:
        await bench.assign(wanted(bench.task_id, DesiredStatus.PENDING, spec))
        await bench.until(lambda report: report.containers[0].status is ContainerStatus.CREATED, task_id=bench.task_id)
        assert [facts.state for facts in await lab.engine.list(lab.labels)] == ["created"]
        await bench.assign(wanted(bench.task_id, DesiredStatus.STOPPED, spec))
        await bench.reaches(TaskStatus.STOPPED)
        await bench.assign(remove=(bench.task_id,))
        async with asyncio.timeout(10):
            while worker.tasks():  # noqa: ASYNC110  # it looks at plain values, which tell nobody
                await asyncio.sleep(0.02)
    assert await lab.engine.list(lab.labels) == ()


def wanted(task_id: TaskId, desired: DesiredStatus, spec: TaskSpec) -> Assignment:
    return Assignment(task_id=task_id, desired=desired, spec=spec)
