"""Fixtures for tests on a real Docker Engine. Each test has labels of its own and leaves nothing behind."""

import asyncio
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.engine.api import ContainerFacts, ContainerPlan
from agent.engine.docker import DockerEngine
from agent.engine.errors import EngineTimeout
from agent.engine.plan import container_plan, owner_labels, volume_plans
from homeport.ids import InstanceId, TaskId
from homeport.spec import ContainerSpec, TaskSpec
from tests.engine.busybox import BUSYBOX_REPOSITORY, import_image, remove_image
from tests.engine.stacks import engine_stacks

#: Long enough for a loaded machine; nothing waits for it when all is well.
DEADLINE_S = 60


@pytest.fixture(scope="session")
def busybox() -> Iterator[str]:
    """An image with busybox, under a tag of this test run's own."""
    reference = f"{BUSYBOX_REPOSITORY}:{os.getpid()}-{secrets.token_hex(4)}"
    asyncio.run(import_image(reference))
    yield reference
    asyncio.run(remove_image(reference))


@pytest.fixture
async def engine() -> AsyncIterator[DockerEngine]:
    """The machine's Engine."""
    async with DockerEngine() as engine:
        yield engine


@dataclass
class Lab:
    """Runs containers as the agent would, and removes what it made."""

    engine: DockerEngine
    image: str
    owner: InstanceId = field(default_factory=lambda: InstanceId(secrets.token_hex(16)))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def labels(self) -> dict[str, str]:
        return owner_labels(self.owner)

    def task_id(self) -> TaskId:
        return TaskId(f"{next(self._numbers):02x}{self.owner[2:]}")

    def container(self, name: str = "main", *command: str, **members: Any) -> ContainerSpec:
        members.setdefault("image", self.image)
        return ContainerSpec(name=name, container_arn="", command=command or ("sleep", "1000"), **members)

    def task(self, *containers: ContainerSpec, **members: Any) -> TaskSpec:
        """A task without network (the fastest to start) unless told otherwise."""
        members.setdefault("network_mode", "none")
        return TaskSpec(
            task_arn="arn:aws:ecs:local:000000000000:task/default/x",
            cluster="default",
            family="engine-test",
            revision=1,
            containers=containers,
            **members,
        )

    def plan(self, *command: str, cgroup_parent: str | None = None, task: Any = None, **members: Any) -> ContainerPlan:
        container = self.container("main", *command, **members)
        spec = self.task(container, **(task or {}))
        return container_plan(self.task_id(), spec, container, owner=self.owner, cgroup_parent=cgroup_parent)

    async def start(self, *command: str, **members: Any) -> str:
        """Create and start one container; return its id."""
        container_id = await self.engine.create(self.plan(*command, **members))
        await self.engine.start(container_id)
        return container_id

    async def inspect(self, container_id: str) -> ContainerFacts:
        facts = await self.engine.inspect(container_id)
        assert facts is not None
        return facts

    async def exited(self, container_id: str) -> ContainerFacts:
        """Wait until a container has exited."""
        async with asyncio.timeout(DEADLINE_S):
            events = self.engine.events(self.labels)
            async for event in events:
                if event.kind in ("resync", "die"):
                    facts = await self.inspect(container_id)
                    if facts.state == "exited":
                        return facts
        raise AssertionError("events ended")

    async def output(self, container_id: str) -> str:
        return "".join(f"{line.text}\n" for line in [line async for line in self.engine.logs(container_id)])

    async def run(self, *command: str, **members: Any) -> str:
        """Run one container to its end; return what it wrote."""
        container_id = await self.start(*command, **members)
        facts = await self.exited(container_id)
        output = await self.output(container_id)
        assert facts.exit_code == 0, output
        return output

    async def close(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for facts in await self.engine.list(self.labels):
                    group.create_task(self.engine.remove(facts.container_id))
        except ExceptionGroup as failed:
            late, other = failed.split(EngineTimeout)
            if late is None or other is not None:
                raise
            why = await asyncio.to_thread(engine_stacks)
            pytest.fail(f"{late.exceptions[0]}\n{why}", pytrace=False)

    async def make_volumes(self, task_id: TaskId, task: TaskSpec) -> None:
        for plan in volume_plans(task_id, task, owner=self.owner):
            await self.engine.create_volume(plan.name, driver=plan.driver, options=plan.options, labels=plan.labels)


@pytest.fixture
async def lab(engine: DockerEngine, busybox: str) -> AsyncIterator[Lab]:
    """Runs containers on the machine's Engine."""
    lab = Lab(engine, busybox)
    try:
        yield lab
    finally:
        await lab.close()
