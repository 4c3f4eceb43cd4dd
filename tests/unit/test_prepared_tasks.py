"""Tasks that are only prepared: pulled and created beside the one they are to replace, holding nothing of the host."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from homeport import reasons
from homeport.spec import PortMapping, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from tests.fakes.agent_host import AgentHost, assignment, container, spec_of
from tests.fakes.clock import MovableClock
from tests.fakes.engine import FakeEngine

PENDING, RUNNING, STOPPED = DesiredStatus.PENDING, DesiredStatus.RUNNING, DesiredStatus.STOPPED


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(MovableClock(), images=["web:1"], registry=[])


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine) -> AgentHost:
    return AgentHost(tmp_path / "agent.db", engine, engine.clock)


def big(task_id: str) -> TaskSpec:
    """A task of which only one fits on the host, for its memory and for its port."""
    ports = (PortMapping(container_port=80, host_port=8080),)
    return spec_of(container("web", memory_mib=8000, ports=ports), task_id=task_id)


async def prepared(host: AgentHost) -> None:
    """Run t1, and prepare t2, for which there is no room beside it."""
    await host.assign(assignment(big("t1")))
    await host.until_status(TaskStatus.RUNNING)
    await host.assign(assignment(big("t2"), task_id="t2", desired=PENDING))
    await host.until(lambda report: report.containers[0].status is ContainerStatus.CREATED, task_id="t2")


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110  # it looks at plain values, which tell nobody
            await asyncio.sleep(0.002)


async def test_it_is_created_beside_the_one_it_replaces_and_starts_when_that_is_gone(
    host: AgentHost, engine: FakeEngine
) -> None:
    async with host.running():
        await prepared(host)
        await host.assign(assignment(big("t1"), desired=STOPPED))
        await host.until_status(TaskStatus.STOPPED)
        made = len(engine.calls)
        await host.assign(assignment(big("t2"), task_id="t2"))
        await host.until_status(TaskStatus.RUNNING, task_id="t2")
    assert [call.verb for call in engine.calls[made:]] == ["start", "inspect"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_does_not_fit_when_it_is_to_run_is_refused(
    host: AgentHost, engine: FakeEngine, restarted: bool
) -> None:
    async with host.running():
        await prepared(host)
        if not restarted:
            await host.assign(assignment(big("t2"), task_id="t2"))
            refused = await host.until_status(TaskStatus.STOPPED, task_id="t2")
    if restarted:
        async with host.running():
            await host.assign(assignment(big("t1")), assignment(big("t2"), task_id="t2"), complete=True)
            refused = await host.until_status(TaskStatus.STOPPED, task_id="t2")
            assert host.reports["t1"].status is TaskStatus.RUNNING
    assert refused.stop_code is StopCode.TASK_FAILED_TO_START
    assert refused.stopped_reason == (
        f"{reasons.RESOURCE_ERROR}: the host has too little left: memory: 8000 MiB asked, 192 of 8192 free; "
        "host ports taken: 8080/tcp"
    )
    assert engine.count("start") == 1


async def test_it_holds_nothing_after_a_restart_of_the_agent_either(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment(big("t2"), task_id="t2", desired=PENDING))
        await host.until(lambda report: report.containers[0].status is ContainerStatus.CREATED, task_id="t2")
    async with host.running():
        await host.assign(assignment(big("t1")), assignment(big("t2"), task_id="t2", desired=PENDING), complete=True)
        await host.until_status(TaskStatus.RUNNING)
    assert engine.count("create") == 2


async def test_once_told_to_run_it_holds_what_it_asks_for_also_after_a_restart(host: AgentHost) -> None:
    async with host.running():
        await host.assign(assignment(big("t2"), task_id="t2", desired=PENDING))
        await host.assign(assignment(big("t2"), task_id="t2"))
    async with host.running():
        await host.assign(assignment(big("t1")), assignment(big("t2"), task_id="t2"), complete=True)
        await host.until_status(TaskStatus.STOPPED)
        await host.until_status(TaskStatus.RUNNING, task_id="t2")


async def test_a_refused_one_leaves_room_for_the_next(host: AgentHost) -> None:
    async with host.running():
        await prepared(host)
        await host.assign(assignment(big("t2"), task_id="t2"))
        await host.until_status(TaskStatus.STOPPED, task_id="t2")
        await host.assign(assignment(big("t1"), desired=STOPPED))
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(assignment(big("t3"), task_id="t3"))
        await host.until_status(TaskStatus.RUNNING, task_id="t3")


async def test_called_off_it_stops_without_having_run_and_its_container_goes_at_once(
    host: AgentHost, engine: FakeEngine
) -> None:
    async with host.running() as worker:
        await prepared(host)
        await host.assign(assignment(big("t2"), task_id="t2", desired=STOPPED, stop_reason="superseded"))
        stopped = await host.until_status(TaskStatus.STOPPED, task_id="t2")
        await host.assign(remove=("t2",))
        await eventually(lambda: len(worker.tasks()) == 1)
    assert (stopped.stop_code, stopped.stopped_reason) == (None, None)
    assert (stopped.started_at, stopped.execution_stopped_at) == (None, None)
    assert (stopped.containers[0].exit_code, stopped.containers[0].reason) == (None, None)
    assert [line.message for _, line in stopped.story][-2:] == ["Asked to stop: superseded", "Stopped, as asked"]
    assert [facts.labels["homeport.task"] for facts in engine.containers()] == ["t1"]


@pytest.mark.parametrize("verb", ["image", "create"])
async def test_called_off_while_it_is_being_prepared(host: AgentHost, engine: FakeEngine, verb: str) -> None:
    async with host.running() as worker:
        with engine.held(verb) as calls:  # type: ignore[arg-type]
            await host.assign(assignment(desired=PENDING))
            await calls.arrived()
            await host.assign(assignment(desired=STOPPED))
            calls.release()
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(remove=("t1",))
        await eventually(lambda: not worker.tasks())
    assert engine.containers() == ()


async def test_an_image_that_cannot_be_had_is_reported_while_the_old_one_runs_on(
    host: AgentHost, engine: FakeEngine
) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        await host.assign(assignment(spec_of(container("web", "none:1")), task_id="t2", desired=PENDING))
        failed = await host.until_status(TaskStatus.STOPPED, task_id="t2")
    assert failed.stop_code is StopCode.TASK_FAILED_TO_START
    assert (failed.stopped_reason or "").startswith("CannotPullContainerError: ")
    assert engine.find("web", task="t1").state == "running"


async def test_a_task_of_several_containers_is_reported_created_once_all_are(host: AgentHost) -> None:
    async with host.running():
        spec = spec_of(container("web"), container("helper", essential=False))
        await host.assign(assignment(spec, desired=PENDING))
        report = await host.until(lambda each: all(c.status is ContainerStatus.CREATED for c in each.containers))
    assert report.status is TaskStatus.PENDING
