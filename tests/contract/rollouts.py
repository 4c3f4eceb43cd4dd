"""Services with a past, put into the server's state as records: for tests of what is shown and asked of them."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from controlplane.state.records import Record, TaskRecord
from controlplane.state.service_records import (
    DeploymentRecord,
    RevisionRecord,
    RolloutState,
    ServiceDeploymentStatus,
    ServiceRecord,
)
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import TaskStatus
from homeport.story import StoryLine
from tests.contract.server import ApiServer

__all__ = ["Rollouts"]


class Rollouts:
    """One service and its deployments: the first a minute after `began_at`, a whole second; each other one later."""

    def __init__(self, server: ApiServer, name: str = "web", *, cluster: str = "default", **members: Any) -> None:
        self.server = server
        self.began_at = float(round(server.clock.now()) - 3600)
        self.service = ServiceRecord(
            id=new_hex_id(server.context.random),
            cluster=cluster,
            name=name,
            created_at=self.began_at,
            **{"desired_count": 2, "deployment_configuration": {"maximumPercent": 200}, **members},
        )
        self._count = 0
        self.put(self.service)

    @property
    def context(self) -> Any:
        return self.server.context

    def put(self, *records: Record) -> None:
        def change() -> None:
            with self.context.state.transaction() as transaction:
                for record in records:
                    transaction.put(record)

        self.server.call(change)

    def update(self, **members: Any) -> None:
        """Change the service."""
        self.service = replace(self.service, **members)
        self.put(self.service)

    def deploy(
        self,
        status: str = "IN_PROGRESS",
        *,
        revision: RevisionRecord | None = None,
        document: dict[str, Any] | None = None,
        live: bool = True,
        **members: Any,
    ) -> DeploymentRecord:
        """Add a deployment of a new revision (or `revision`); a live one becomes the PRIMARY."""
        self._count += 1
        number, at = self._count, self.began_at + 60 * self._count
        if revision is None:
            revision = RevisionRecord(
                id=f"{number:019}",
                service_id=self.service.id,
                service=self.service.key,
                created_at=at,
                task_definition="web:1",
                document=document or {},
            )
            self.put(revision)
        over = status not in ("PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")
        deployment = DeploymentRecord(
            id=f"ecs-svc/{number:019}",
            arn_id=f"{self.service.name}-{number}",
            service_id=self.service.id,
            service=self.service.key,
            revision=revision.id,
            created_at=at,
            configuration=self.service.deployment_configuration,
            status=ServiceDeploymentStatus(status),
            **{
                "updated_at": at,
                "finished_at": at + 30 if over else None,
                "rollout": RolloutState.COMPLETED if status == "SUCCESSFUL" else RolloutState.IN_PROGRESS,
                **members,
            },
        )
        self.put(deployment)
        if live:
            self.update(deployments=(deployment.id, *self.service.deployments))
        return deployment

    def task(self, started_by: str, status: TaskStatus = TaskStatus.RUNNING, **members: Any) -> TaskRecord:
        """Add a task of a deployment or task set; on no host that is known."""
        task_id = TaskId(new_hex_id(self.context.random))
        container = ContainerSpec(name="web", image="busybox", container_arn="arn:c", memory_mib=64)
        arn = self.context.arns.task("default", task_id)
        task = TaskRecord(
            id=task_id,
            cluster="default",
            spec=TaskSpec(task_arn=arn, cluster="default", family="web", revision=1, containers=(container,)),
            launch_type="EC2",
            status=status,
            group=self.service.group,
            started_by=started_by,
            **{"created_at": self.began_at, "instance_id": InstanceId("1" * 32), **members},
        )
        self.put(task)
        return task

    def deployment(self, deployment: DeploymentRecord) -> DeploymentRecord:
        """The deployment as it is now."""
        found = self.server.call(lambda: self.server.context.state.deployments.get(deployment.id))
        assert found is not None
        return found

    def story(self) -> list[str]:
        """The messages of the service's long history."""
        return [line.message for line in self.server.thread.call(self._lines)]

    async def _lines(self) -> Sequence[StoryLine]:
        await self.context.state.durable()
        lines: Sequence[StoryLine] = await self.context.state.journal.story(TaskId(self.service.id))
        return lines

    def arn(self, deployment: DeploymentRecord) -> str:
        """The ARN of its service deployment."""
        arn: str = self.context.arns.service_deployment("default", self.service.name, deployment.arn_id)
        return arn
