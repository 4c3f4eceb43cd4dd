"""The worker on the fake engine: assignment to container to report, kills, orphans, retention."""

from pathlib import Path

import pytest

from homeport.clock import SystemClock
from homeport.status import DesiredStatus, StopCode, TaskStatus
from tests.fakes.agent_host import AgentHost, assignment, container, spec_of
from tests.fakes.engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(SystemClock(), images=["web:1"])


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine) -> AgentHost:
    return AgentHost(tmp_path / "agent.db", engine, SystemClock())


async def test_an_assigned_task_runs_and_its_exit_is_reported(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        running = await host.until_status(TaskStatus.RUNNING)
        assert running.started_at is not None
        assert running.containers[0].runtime_id == engine.find("web").container_id
        engine.exit("web", 3)
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 3
    assert stopped.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert stopped.stopped_reason == "Essential container in task exited"


async def test_a_stop_ends_the_containers(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        await host.assign(assignment(desired=DesiredStatus.STOPPED, stop_reason="Task stopped by user"))
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 143
    assert stopped.stop_code is None
    assert engine.find("web").state == "exited"


async def test_an_image_that_cannot_be_pulled_fails_the_start(host: AgentHost, engine: FakeEngine) -> None:
    engine.registry = set()
    async with host.running():
        await host.assign(assignment(spec_of(container("web", "none:1"))))
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stop_code is StopCode.TASK_FAILED_TO_START
    assert stopped.stopped_reason is not None
    assert stopped.stopped_reason.startswith("CannotPullContainerError: manifest for none:1 not found")
    assert stopped.containers[0].reason == stopped.stopped_reason
    assert stopped.containers[0].exit_code is None
