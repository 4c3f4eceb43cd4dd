"""The loop that owns a task: durable before anything else, and nobody waits for ever on one that is closed."""

import asyncio
import random

from agent.task.messages import Removed, Wanted
from agent.task.model import TaskState, accepted
from agent.task.perform import Performer
from agent.task.runner import TaskRunner
from homeport.clock import SystemClock
from homeport.status import ContainerStatus, DesiredStatus
from tests.fakes.agent_host import OWNER, assignment
from tests.fakes.engine import FakeEngine
from tests.fakes.host import FakeCgroups


class Desk:
    """A runner, and what it saves and publishes. While `held` is clear, saving hangs."""

    def __init__(self) -> None:
        self.engine = FakeEngine(SystemClock(), images=["web:1"])
        self.saved: list[TaskState] = []
        self.published: list[TaskState] = []
        self.held = asyncio.Event()
        self.held.set()
        performer = Performer(self.engine, FakeCgroups(), owner=OWNER, clock=SystemClock(), rng=random.Random(1))
        self.runner = TaskRunner(
            accepted(assignment(), {"web": "docker-web"}, 1000.0),
            performer,
            save=self.save,
            publish=self.published.append,
            clock=SystemClock(),
            fresh=True,
        )

    async def save(self, state: TaskState) -> None:
        await self.held.wait()
        self.saved.append(state)


async def test_nothing_is_done_or_told_before_it_is_durable() -> None:
    desk = Desk()
    desk.held.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(desk.runner.run())
        taken = desk.runner.deliver(None)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not taken.done()
        assert desk.engine.calls == []
        assert desk.published == []
        desk.held.set()
        await taken
        assert desk.saved
        running.cancel()


async def test_what_is_delivered_to_a_closed_runner_is_confirmed() -> None:
    desk = Desk()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(desk.runner.run())
        await desk.runner.deliver(None)
        desk.held.clear()
        early = desk.runner.deliver(Wanted(DesiredStatus.STOPPED))
        await asyncio.sleep(0.01)
        meanwhile = desk.runner.deliver(Removed())
        desk.runner.close()
        late = desk.runner.deliver(Removed())
        assert late.done()
        desk.held.set()
        await early
        await meanwhile


async def test_a_container_is_created_while_the_disk_is_busy_but_not_started_nor_reported() -> None:
    desk = Desk()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(desk.runner.run())
        with desk.engine.held("image") as looks:
            await looks.arrived()
            desk.held.clear()
        while not desk.engine.count("create"):  # noqa: ASYNC110  # nobody tells of calls
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert [state.containers[0].known for state in desk.saved] == [ContainerStatus.PENDING]
        assert desk.engine.count("start") == 0
        told = len(desk.published)
        desk.held.set()
        while not desk.engine.count("start"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert desk.saved[-1].containers[0].known is ContainerStatus.CREATED
        assert len(desk.published) > told
        running.cancel()
