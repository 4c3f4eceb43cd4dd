"""An agent's log shipper over a fake intake, for tasks that a test makes up."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from agent.engine.api import Engine
from agent.engine.plan import container_plan
from agent.identity import Identity
from agent.logs.metrics import LogMetrics
from agent.logs.shipper import LogShipper
from agent.logs.unshipped import UnshippedNotes
from agent.task.model import ContainerState, TaskState
from homeport.clock import Clock, SystemClock
from homeport.ids import InstanceId, TaskId
from homeport.protocol import HostFacts
from homeport.spec import ContainerSpec, LogShipping
from homeport.status import ContainerStatus, DesiredStatus
from tests.fakes.agent_host import container, spec_of
from tests.fakes.engine import FakeEngine
from tests.fakes.log_intake import LogIntake

__all__ = ["Shipyard", "a_container", "a_state", "shipped"]


def shipped(name: str = "web", **how: object) -> ContainerSpec:
    """Return the spec of a container whose output is shipped."""
    return container(name, shipping=LogShipping(group="g", stream_prefix="p", **how))  # type: ignore[arg-type]


def a_state(
    runtime_id: str, *, task_id: str = "t1", spec: ContainerSpec | None = None, stopped: bool = False
) -> TaskState:
    """Return a task of one container that runs, or has stopped."""
    spec = spec or shipped()
    return TaskState(
        task_id=TaskId(task_id),
        spec=spec_of(spec, task_id=task_id),
        desired=DesiredStatus.RUNNING,
        containers=(
            ContainerState(
                name=spec.name,
                docker_name=f"d-{task_id}",
                runtime_id=runtime_id,
                known=ContainerStatus.STOPPED if stopped else ContainerStatus.RUNNING,
                started_at=1.0,
            ),
        ),
    )


async def a_container(engine: FakeEngine, task_id: str = "t1", name: str = "web") -> str:
    """Start a container whose output is in files; return its id."""
    spec = shipped(name)
    plan = container_plan(
        TaskId(task_id), spec_of(spec, task_id=task_id), spec, owner=InstanceId("i" * 32), cgroup_parent=None
    )
    container_id = await engine.create(plan)
    await engine.start(container_id)
    return container_id


class Shipyard:
    """Makes shippers, one after the other, on one directory: leaving `running` is a kill."""

    def __init__(
        self,
        engine: Engine,
        intake: LogIntake | None,
        path: Path,
        *,
        clock: Clock | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Ships to `intake`, or as whoever `identity` is to its control plane."""
        self.engine = engine
        self.intake = intake
        self.identity = identity
        self.path = path
        self.clock = clock or SystemClock()
        self.registry = CollectorRegistry()

    @contextlib.asynccontextmanager
    async def running(self, *states: TaskState) -> AsyncIterator[LogShipper]:
        """Run a new shipper that knows these tasks."""
        identity = self.identity
        if identity is None:
            assert self.intake is not None
            identity = replace(Identity.new(), instance_id=InstanceId("i" * 32), servers=(self.intake.url,))
        notes = UnshippedNotes(self.path / "unshipped.json")
        notes.load()
        self.registry = CollectorRegistry()
        shipper = LogShipper(
            identity,
            self.engine,
            notes,
            facts=lambda: HostFacts(hostname="h", agent_version="0"),
            clock=self.clock,
            random=random.Random(1),
            metrics=LogMetrics(self.registry),
            backoff_cap_s=0.05,
        )
        for state in states:
            shipper.look(state)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(shipper.run())
            yield shipper
            running.cancel()

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(f"homeport_agent_logs_{name}")
        assert value is not None, name
        return value
