"""Hosts for contract tests, without agents: instances put into the server's state, and reports applied as if sent."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from msgspec.structs import replace

from controlplane.fleet.reports import apply_report
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.protocol import Condition, ContainerReport, HostFacts, NetworkBinding, TaskReport
from homeport.spec import Resources
from homeport.status import ContainerStatus, StopCode, TaskStatus
from tests.contract.server import ApiServer

__all__ = ["WEB", "Fleet", "refused", "register_web", "run"]

#: A container that asks for little.
WEB: Final = {"name": "web", "image": "busybox", "cpu": 100, "memory": 64}


def register_web(ecs: Any, family: str = "web", containers: list[dict[str, Any]] | None = None, **members: Any) -> str:
    """Register a definition and return its ARN."""
    answer = ecs.register_task_definition(family=family, containerDefinitions=containers or [WEB], **members)
    arn: str = answer["taskDefinition"]["taskDefinitionArn"]
    return arn


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    """Make a call that must be refused; return the error's name and message."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def run(ecs: Any, **arguments: Any) -> Any:
    """Run one task and return it."""
    answer = ecs.run_task(**{"taskDefinition": "web", **arguments})
    assert answer["failures"] == []
    return answer["tasks"][0]


class Fleet:
    """Plays all agents of a server."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._seq = 0

    @property
    def context(self) -> Any:
        return self.server.context

    def add_host(
        self,
        hostname: str = "host-1",
        *,
        cluster: str = "default",
        cpu: int = 4096,
        memory: int = 8192,
        connected: bool = True,
        reserved: frozenset[Any] = frozenset({("tcp", 22)}),
        attributes: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> InstanceId:
        """Register a host and return its id."""
        default = {"ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64", "ecs.availability-zone": "home-1a"}
        instance = InstanceRecord(
            id=InstanceId(new_hex_id(self.context.random)),
            cluster=cluster,
            public_key=hostname,
            registered_at=self.context.clock.now(),
            facts=HostFacts(
                hostname=hostname,
                agent_version="1.0.0",
                docker_version="27.0.0",
                resources=Resources(cpu_units=cpu, memory_mib=memory, ports=reserved),
                attributes={**default, **(attributes or {})},
            ),
            tags=tags or {},
        )

        def put() -> None:
            with self.context.state.transaction() as transaction:
                transaction.put(instance)

        self.server.call(put)
        self.set_presence(instance.id, connected=connected)
        return instance.id

    def set_presence(self, instance: InstanceId, *, connected: bool = True, **problems: str) -> None:
        """Connect or cut off a host. `problems`: condition type -> reason."""
        now = self.context.clock.now()
        conditions = [Condition(type="CONTAINER_RUNTIME", ok=True, since=now)]
        conditions += [Condition(type=kind, ok=False, since=now, reason=reason) for kind, reason in problems.items()]
        presence = Presence(
            connected=connected,
            since=now,
            last_seen_at=now,
            heard_at=self.context.clock.monotonic(),
            conditions=tuple(conditions),
            heard_out=connected,
        )
        self.server.call(lambda: self.context.state.presence.put(instance, presence))

    @staticmethod
    def record_id(arn: str) -> InstanceId:
        """The id in a container instance's ARN."""
        return InstanceId(arn.rsplit("/", 1)[-1])

    def record(self, task_arn: str) -> Any:
        """The record of a task."""
        return self.server.call(lambda: self.context.state.tasks.get(task_arn.rsplit("/", 1)[-1]))

    def report(self, task_arn: str, status: TaskStatus, containers: list[ContainerReport], **members: Any) -> None:
        """Apply a report of the task's host."""
        self._seq += 1
        task = self.record(task_arn)
        report = TaskReport(
            task_id=TaskId(task.id), seq=self._seq, status=status, containers=tuple(containers), **members
        )
        assert self.server.call(lambda: apply_report(self.context, task.instance_id, report))

    def running(self, task_arn: str) -> None:
        """Report all containers of a task as running."""
        self.report(task_arn, TaskStatus.RUNNING, self._containers(task_arn), started_at=self.context.clock.now())

    def stopped(self, task_arn: str, *, exit_code: int = 0, reason: str | None = None) -> None:
        """Report a task as stopped; each container with the exit code and reason."""
        containers = [
            replace(container, status=ContainerStatus.STOPPED, exit_code=exit_code, reason=reason)
            for container in self._containers(task_arn)
        ]
        self.report(
            task_arn,
            TaskStatus.STOPPED,
            containers,
            stopped_at=self.context.clock.now(),
            stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
            stopped_reason="Essential container in task exited",
        )

    def _containers(self, task_arn: str) -> list[ContainerReport]:
        return [
            ContainerReport(
                name=container.name,
                status=ContainerStatus.RUNNING,
                runtime_id="f" * 64,
                image_digest="sha256:" + "0" * 64,
                bindings=tuple(
                    NetworkBinding(
                        bind_ip="0.0.0.0",
                        container_port=port.container_port,
                        host_port=port.host_port or 32768,
                        protocol=port.protocol,
                    )
                    for port in container.ports
                ),
            )
            for container in self.record(task_arn).spec.containers
        ]
