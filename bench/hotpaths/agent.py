"""The agent's paths: a task's whole life decided, its containers planned, frames read and written."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from agent.engine.plan import container_plan
from agent.framing import encode_reports
from agent.task.messages import Wanted
from bench.hotpaths.model import Path, Round
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment, Assignments, ContainerReport, ControlMessage, NetworkBinding, TaskReport
from homeport.spec import (
    ContainerSpec,
    HealthCheck,
    LogConfiguration,
    PortMapping,
    TaskSpec,
)
from homeport.status import ContainerStatus, DesiredStatus, TaskStatus
from tests.fakes.task_world import Driver

__all__ = ["FRAMES", "LIFE", "PLAN"]

_TASKS = 50
_OWNER = InstanceId("0" * 32)


def _container(name: str) -> ContainerSpec:
    return ContainerSpec(
        name=name,
        image="registry.example/team/web:1.2.3",
        container_arn=f"arn:aws:ecs:us-east-1:123456789012:container/default/{name}",
        command=("httpd", "-f"),
        environment={f"VARIABLE_{number}": f"the value of variable {number}" for number in range(5)},
        cpu_units=128,
        memory_mib=64,
        ports=(PortMapping(container_port=80),),
        health_check=HealthCheck(command=("CMD-SHELL", "true")),
        log=LogConfiguration(driver="json-file", options={"max-size": "10m"}),
    )


def _assignment(number: int, desired: DesiredStatus = DesiredStatus.RUNNING) -> Assignment:
    task_id = TaskId(f"{number:032x}")
    spec = TaskSpec(
        task_arn=f"arn:aws:ecs:us-east-1:123456789012:task/default/{task_id}",
        cluster="default",
        family="web",
        revision=1,
        containers=(_container("web"), _container("side")),
    )
    return Assignment(task_id=task_id, desired=desired, spec=spec)


@asynccontextmanager
async def _life() -> AsyncIterator[Round]:
    wanted = [_assignment(number) for number in range(_TASKS)]

    async def once() -> None:
        for assignment in wanted:
            driver = Driver(assignment).go()
            assert driver.status() is TaskStatus.RUNNING
            driver.go(Wanted(DesiredStatus.STOPPED, ""))
            assert driver.over()

    yield once


LIFE = Path("absorb and step: a task of two containers, up and down", _TASKS, _life)


@asynccontextmanager
async def _plan() -> AsyncIterator[Round]:
    wanted = [_assignment(number) for number in range(_TASKS)]

    async def once() -> None:
        for each in wanted:
            for container in each.spec.containers:
                container_plan(each.task_id, each.spec, container, owner=_OWNER, cgroup_parent=None)

    yield once


PLAN = Path("plan a container", _TASKS * 2, _plan)


def _report(assignment: Assignment) -> TaskReport:
    binding = NetworkBinding(bind_ip="0.0.0.0", container_port=80, host_port=32768, protocol="tcp")
    containers = tuple(
        ContainerReport(
            name=each.name, status=ContainerStatus.RUNNING, runtime_id="a" * 64, bindings=(binding,), started_at=1.0
        )
        for each in assignment.spec.containers
    )
    return TaskReport(task_id=assignment.task_id, seq=3, status=TaskStatus.RUNNING, containers=containers)


@asynccontextmanager
async def _frames() -> AsyncIterator[Round]:
    decoder: msgspec.json.Decoder[ControlMessage] = msgspec.json.Decoder(ControlMessage)
    wanted: Sequence[Assignment] = [_assignment(number) for number in range(_TASKS)]
    frame = msgspec.json.encode(Assignments(revision=7, put=tuple(wanted)))
    reports = [_report(assignment) for assignment in wanted]

    async def once() -> None:
        for _ in range(_FRAMES):
            assert isinstance(decoder.decode(frame), Assignments)
            assert list(encode_reports(reports))

    yield once


_FRAMES = 5
FRAMES = Path("read a task's assignment and write its report", _TASKS * _FRAMES, _frames)
