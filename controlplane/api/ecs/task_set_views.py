"""Task sets as ECS shows them. Rendering only: nothing is decided here."""

from typing import Any

from controlplane.api.arguments import render_tags
from controlplane.api.ecs.run_as import run_as
from controlplane.api.ecs.service_arns import split_key, task_set_arn
from controlplane.context import Context
from controlplane.services.counts import count_tasks
from controlplane.services.deciding.bounds import share_up
from controlplane.state.service_records import TaskSetRecord

__all__ = ["computed_desired_count", "task_set_view"]

Document = dict[str, Any]


def computed_desired_count(context: Context, task_set: TaskSetRecord) -> int:
    """Return how many tasks a task set should have: its share of the service's desired count, rounded up."""
    service = context.state.services.get(task_set.service)
    if service is None or service.id != task_set.service_id or task_set.status != "ACTIVE":
        return 0
    return share_up(service.desired_count, task_set.scale_percent)


def task_set_view(context: Context, task_set: TaskSetRecord, *, tags: bool = False) -> Document:
    """A `TaskSet`. `tags`: show them (in Describe* only if the request includes TAGS)."""
    cluster, name = split_key(task_set.service)
    service = context.state.services.get(task_set.service)
    counts = count_tasks(context.state, task_set.id)
    primary = service is not None and service.primary_task_set == task_set.id and task_set.status == "ACTIVE"
    return {
        "id": task_set.id,
        "taskSetArn": task_set_arn(context, task_set),
        "serviceArn": context.arns.service(cluster, name),
        "clusterArn": context.arns.cluster(cluster),
        **({"externalId": task_set.external_id} if task_set.external_id else {}),
        "status": "PRIMARY" if primary else task_set.status,
        "computedDesiredCount": computed_desired_count(context, task_set),
        "pendingCount": counts.pending,
        "runningCount": counts.running,
        "createdAt": task_set.created_at,
        "updatedAt": task_set.updated_at,
        **run_as(context, task_set.task_definition, task_set.document),
        "loadBalancers": [],
        "serviceRegistries": [],
        "scale": {"value": task_set.scale_percent, "unit": "PERCENT"},
        "stabilityStatus": task_set.stability,
        "stabilityStatusAt": task_set.stability_at or task_set.created_at,
        "tags": render_tags(task_set.tags) if tags else [],
    }
