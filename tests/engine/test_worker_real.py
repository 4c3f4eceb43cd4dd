"""The worker on a real Engine: what a task does there is what ECS says it does."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.engine.plan import volume_plans
from agent.hostview import LateCgroups
from agent.isolation import Contact
from homeport.clock import SystemClock
from homeport.protocol import Assignment, LogsRequest
from homeport.spec import ContainerSpec, Dependency, HealthCheck, Mount, RestartPolicy, TaskSpec, Volume
from homeport.status import DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.engine.conftest import DEADLINE_S, Lab
from tests.fakes.agent_host import AgentHost

pytestmark = pytest.mark.engine

#: A process that ends at once when asked to.
OBEDIENT = ("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")


class Bench(AgentHost):
    """An agent on the real Engine, whose containers are removed at the end."""

    def __init__(self, path: Path, lab: Lab, *, contact: Callable[[], Contact] = Contact) -> None:
        super().__init__(
            path,
            lab.engine,
            SystemClock(),
            owner=lab.owner,
            cgroups=LateCgroups(lab.engine, lab.engine.docker_host),
            patience_s=DEADLINE_S,
            cleanup_after_s=0.0,
            contact=contact,
        )
        self.lab = lab
        self.task_id = lab.task_id()

    def assignment(self, *containers: ContainerSpec, desired: DesiredStatus, **members: Any) -> Assignment:
        self.spec: TaskSpec = self.lab.task(*containers, **members)
        return Assignment(task_id=self.task_id, desired=desired, spec=self.spec)

    async def run(self, *containers: ContainerSpec, **members: Any) -> None:
        await self.assign(self.assignment(*containers, desired=DesiredStatus.RUNNING, **members))

    async def stop(self) -> None:
        await self.assign(Assignment(task_id=self.task_id, desired=DesiredStatus.STOPPED, spec=self.spec))

    async def reaches(self, status: TaskStatus) -> Any:
        return await self.until_status(status, task_id=self.task_id)

    async def inspect(self, name: str = "main") -> Any:
        """Return what Docker says of a container of the task."""
        runtime_id = next(c.runtime_id for c in self.reports[self.task_id].containers if c.name == name)
        assert runtime_id is not None
        return await self.lab.inspect(runtime_id)


@pytest.fixture
async def bench(lab: Lab, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "agent.db", lab)
    yield bench
    await lab.close()
    await bench.cgroups.remove(bench.task_id)


async def test_an_exit_code_comes_through(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await bench.run(lab.container("main", "sh", "-c", "exit 3"))
        stopped = await bench.reaches(TaskStatus.STOPPED)
    (main,) = stopped.containers
    assert (main.exit_code, main.reason) == (3, None)
    assert stopped.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert stopped.stopped_reason == "Essential container in task exited"
    facts = await bench.inspect()
    assert (main.started_at, main.finished_at) == (facts.started_at, facts.finished_at)


async def test_out_of_memory_has_ecs_reason(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await bench.run(lab.container("main", "sh", "-c", "tail /dev/zero", memory_mib=16))
        stopped = await bench.reaches(TaskStatus.STOPPED)
    (main,) = stopped.containers
    assert main.exit_code == 137
    assert main.reason == "OutOfMemoryError: Container killed due to memory usage"


async def test_a_command_that_does_not_exist_fails_the_start(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await bench.run(lab.container("main", "/no/such/program"))
        stopped = await bench.reaches(TaskStatus.STOPPED)
    (main,) = stopped.containers
    assert stopped.stop_code is StopCode.TASK_FAILED_TO_START
    assert stopped.stopped_reason.startswith("CannotStartContainerError: ")
    assert "/no/such/program" in stopped.stopped_reason
    assert main.exit_code is None


async def test_an_image_that_is_nowhere_fails_the_start(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await bench.run(lab.container("main", image="localhost:1/nothing:1"))
        await bench.until(
            lambda report: any(line.event == "retrying" for _, line in report.story), task_id=bench.task_id
        )
        await bench.stop()
        stopped = await bench.reaches(TaskStatus.STOPPED)
    assert stopped.containers[0].runtime_id is None


async def test_a_dead_container_is_started_again_in_place(bench: Bench, lab: Lab) -> None:
    policy = RestartPolicy(enabled=True, attempt_period_s=0)
    async with bench.running():
        await bench.run(lab.container("main", restart_policy=policy))
        running = await bench.reaches(TaskStatus.RUNNING)
        before = await bench.inspect()
        os.kill(before.pid, signal.SIGKILL)
        again = await bench.until(
            lambda report: report.containers[0].started_at != running.containers[0].started_at, task_id=bench.task_id
        )
        after = await bench.inspect()
    assert again.status is TaskStatus.RUNNING
    assert again.containers[0].restart_count == 1
    assert after.container_id == before.container_id
    assert after.pid != before.pid


async def test_healthy_before_the_next_and_stopped_in_reverse(bench: Bench, lab: Lab) -> None:
    check = HealthCheck(command=("CMD-SHELL", "test -e /tmp/ready"), interval_s=1, retries=60)
    db = lab.container(
        "db", "sh", "-c", "sleep 1; touch /tmp/ready; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        health_check=check,
    )  # fmt: skip
    web = lab.container("web", *OBEDIENT, depends_on=(Dependency(container="db", condition="HEALTHY"),))
    async with bench.running():
        await bench.run(db, web)
        running = await bench.reaches(TaskStatus.RUNNING)
        assert running.containers[0].health is HealthStatus.HEALTHY
        assert running.containers[1].started_at > running.containers[0].started_at + 1
        await bench.stop()
        stopped = await bench.reaches(TaskStatus.STOPPED)
    assert [c.exit_code for c in stopped.containers] == [0, 7]
    assert stopped.containers[1].finished_at <= stopped.containers[0].finished_at


async def test_what_ignores_the_stop_signal_is_killed_after_its_timeout(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await bench.run(lab.container("main", "sh", "-c", "trap '' TERM; sleep 1000", stop_timeout_s=1))
        await bench.reaches(TaskStatus.RUNNING)
        await bench.stop()
        stopped = await bench.reaches(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 137
    exited = next(line.message for _, line in stopped.story if line.event == "exited")
    assert "did not stop within its stopTimeout of 1 s" in exited


async def test_a_restarted_agent_adopts_what_runs_and_finds_what_ended(bench: Bench, lab: Lab) -> None:
    other = bench.task_id
    async with bench.running():
        await bench.run(lab.container("main", *OBEDIENT))
        await bench.reaches(TaskStatus.RUNNING)
        bench.task_id = ended = lab.task_id()
        await bench.run(lab.container("main", *OBEDIENT))
        await bench.reaches(TaskStatus.RUNNING)
        before = await bench.inspect()
    await lab.engine.stop(before.container_id, 10)
    async with bench.running() as worker:
        stopped = await bench.until_status(TaskStatus.STOPPED, task_id=ended)
        await bench.until(lambda report: any(line.event == "adopted" for _, line in report.story), task_id=other)
        assert {state.task_id: state.status for state in worker.tasks()} == {
            other: TaskStatus.RUNNING,
            ended: TaskStatus.STOPPED,
        }
    assert stopped.containers[0].exit_code == 7
    assert stopped.containers[0].finished_at == (await bench.inspect()).finished_at
    assert len(await lab.engine.list(lab.labels)) == 2


async def test_logs_are_there_until_the_task_is_cleaned_up_with_its_volume_and_cgroup(bench: Bench, lab: Lab) -> None:
    main = lab.container(
        "main", "sh", "-c", "echo out; echo err >&2", mounts=(Mount(volume="data", container_path="/data"),)
    )
    async with bench.running() as worker:
        await bench.run(main, memory_mib=64, volumes=(Volume(name="data"),))
        await bench.reaches(TaskStatus.STOPPED)
        request = LogsRequest(request_id="r", task_id=bench.task_id, container="main")
        lines = [line async for chunk in worker.logs(request) for line in chunk.lines]
        assert {(stream, text) for _, stream, text in lines} == {("stdout", "out"), ("stderr", "err")}
        (volume,) = volume_plans(bench.task_id, bench.spec, owner=lab.owner)
        assert await lab.engine.volume_exists(volume.name)
        await bench.assign(remove=(bench.task_id,))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while worker.tasks():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert worker.tasks() == ()
    assert await lab.engine.list(lab.labels) == ()
    assert not await lab.engine.volume_exists(volume.name)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/homeport/{bench.task_id}"))
