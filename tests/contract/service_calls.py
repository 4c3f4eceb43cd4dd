"""Making services through boto3, and giving them tasks without a reconciler."""

from typing import Any

from controlplane.state.records import Record, TaskRecord
from controlplane.state.service_records import group_of
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import TaskStatus
from tests.contract.server import ApiServer

__all__ = ["create", "describe", "put_records", "put_task", "update"]


def create(ecs: Any, **members: Any) -> Any:
    """Create the service `web` of 2 tasks of the family `web`, with members put over it; None takes one away."""
    given = {"serviceName": "web", "taskDefinition": "web", "desiredCount": 2, **members}
    return ecs.create_service(**{name: value for name, value in given.items() if value is not None})["service"]


def update(ecs: Any, **members: Any) -> Any:
    """Update the service `web`."""
    return ecs.update_service(**{"service": "web", **members})["service"]


def describe(ecs: Any, *, service: str = "web", **members: Any) -> Any:
    """Describe one service."""
    [found] = ecs.describe_services(services=[service], **members)["services"]
    return found


def put_records(server: ApiServer, *records: Record) -> None:
    """Put records into the server's state."""

    def put() -> None:
        with server.context.state.transaction() as transaction:
            for record in records:
                transaction.put(record)

    server.call(put)


def put_task(
    server: ApiServer,
    started_by: str,
    status: TaskStatus = TaskStatus.RUNNING,
    *,
    service: str = "web",
    **members: Any,
) -> TaskRecord:
    """Give a deployment or task set of a service a task, on no host that is known."""
    task_id = TaskId(new_hex_id(server.context.random))
    container = ContainerSpec(name="web", image="busybox", container_arn="arn:c", memory_mib=64)
    spec = TaskSpec(
        task_arn=server.context.arns.task("default", task_id),
        cluster="default",
        family="web",
        revision=1,
        containers=(container,),
    )
    task = TaskRecord(
        id=task_id,
        cluster="default",
        spec=spec,
        status=status,
        instance_id=InstanceId("1" * 32),
        group=group_of(service),
        started_by=started_by,
        **{"created_at": server.clock.now(), "launch_type": "EC2", **members},
    )
    put_records(server, task)
    return task
