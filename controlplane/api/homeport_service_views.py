"""Services and their deployments as Homeport's own operations show them. Times are epoch seconds, budgets seconds.

These shapes are what `homeport ... --json` prints, so members are only ever added.
"""

from typing import Final

from controlplane.api.ecs.service_arns import service_arn, service_deployment_arn
from controlplane.api.homeport_views import host_name
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.services.budget import phases_of
from controlplane.services.counts import count_tasks, count_tasks_of_service
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import (
    DeploymentRecord,
    EventRecord,
    HookState,
    PhaseTimes,
    RolloutState,
    ServiceRecord,
)

__all__ = ["MAX_TASKS", "deployment_view", "event_view", "service_view", "tasks_view"]

#: Tasks shown of one deployment; the latest.
MAX_TASKS: Final = 100


def service_view(context: Context, service: ServiceRecord) -> Document:
    """Render a service: what it wants, what it has, what its deployment is at, what was last said of it."""
    live = [d for d in map(context.state.deployments.get, service.deployments) if d is not None]
    running, pending = count_tasks_of_service(context.state, service)
    last = max(context.state.events.where("service", service.id), key=lambda event: event.number, default=None)
    return {
        "id": service.id,
        "serviceArn": service_arn(context, service),
        "cluster": service.cluster,
        "name": service.name,
        "status": service.status,
        "state": _state(service, live, running),
        "schedulingStrategy": service.scheduling_strategy,
        "controller": service.controller,
        "taskDefinition": _definition(context, service, live),
        "desired": service.desired_count,
        "running": running,
        "pending": pending,
        "createdAt": service.created_at,
        "deploymentConfiguration": service.deployment_configuration,
        "deployments": [deployment_view(context, service, deployment) for deployment in live],
        "lastEvent": None if last is None else event_view(last),
    }


def _state(service: ServiceRecord, live: list[DeploymentRecord], running: int) -> str:
    """One word for how a service is: what `homeport services` shows."""
    if service.status != "ACTIVE":
        return service.status.lower()
    if service.controller == "EXTERNAL":
        return "external"
    if not live:
        return "recovering"
    primary = live[0]
    if primary.rollout is RolloutState.FAILED:
        return "failed"
    if primary.rollout is RolloutState.IN_PROGRESS:
        return "rolling back" if primary.rollback_of else "deploying"
    return "steady" if running == service.desired_count and len(live) == 1 else "recovering"


def _definition(context: Context, service: ServiceRecord, live: list[DeploymentRecord]) -> str | None:
    """`family:revision` of the PRIMARY deployment or task set."""
    if service.controller == "EXTERNAL":
        task_set = context.state.task_sets.get(service.primary_task_set)
        return None if task_set is None else task_set.task_definition
    revision = context.state.revisions.get(live[0].revision) if live else None
    return None if revision is None else revision.task_definition


def event_view(event: EventRecord) -> Document:
    """Render one of a service's last events."""
    return {"number": event.number, "at": event.at, "message": event.message}


# ---------------------------------------------------------------- deployments


def deployment_view(context: Context, service: ServiceRecord, deployment: DeploymentRecord) -> Document:
    """Render a deployment, without its tasks.

    `seconds`: how long it took, or has taken so far. `position`: PRIMARY or ACTIVE as in ECS, OVER once it is neither.
    """
    position = "ACTIVE" if deployment.id in service.deployments else "OVER"
    if deployment.id in service.deployments[:1]:
        position = "PRIMARY"
    revision = context.state.revisions.get(deployment.revision)
    running, pending = count_tasks(context.state, deployment.id)
    ended_at = context.clock.now() if deployment.finished_at is None else deployment.finished_at
    return {
        "id": deployment.id,
        "serviceDeploymentArn": None if deployment.rollback_of else service_deployment_arn(context, deployment),
        "position": position,
        "status": deployment.status.value,
        "statusReason": deployment.status_reason or None,
        "rolloutState": deployment.rollout.value,
        "rolloutStateReason": deployment.rollout_reason or None,
        "taskDefinition": None if revision is None else revision.task_definition,
        "rollbackOf": deployment.rollback_of or None,
        "createdAt": deployment.created_at,
        "finishedAt": deployment.finished_at,
        "seconds": max(0.0, ended_at - deployment.created_at),
        "running": running,
        "pending": pending,
        "healthyTasks": deployment.healthy_tasks,
        "failedTasks": deployment.failed_tasks,
        "lastFailure": deployment.last_failure or None,
        "retryAt": deployment.retry_at,
        "lifecycleStage": deployment.lifecycle_stage or None,
        "hooks": [_hook(hook) for hook in deployment.hooks],
        "budget": {phase: _times(times) for phase, times in deployment.budget.items()},
    }


def _hook(hook: HookState) -> Document:
    return {
        "id": hook.id,
        "stage": hook.stage,
        "status": hook.status,
        "expiresAt": hook.expires_at,
        "timeoutAction": hook.timeout_action,
    }


def _times(times: PhaseTimes) -> Document:
    mean = times.total_s / times.count if times.count else 0.0
    return {"count": times.count, "meanS": mean, "maxS": times.max_s, "totalS": times.total_s}


def tasks_view(context: Context, service: ServiceRecord, deployment: DeploymentRecord) -> list[Document]:
    """Render a deployment's tasks that are in memory (stopped ones are for about an hour), the latest MAX_TASKS."""
    found = context.state.tasks.where("cluster_started_by", (service.cluster, deployment.id))
    latest = sorted(found, key=lambda task: (task.created_at, task.id))[-MAX_TASKS:]
    return [_task(context, task) for task in latest]


def _task(context: Context, task: TaskRecord) -> Document:
    return {
        "id": task.id,
        "node": task.instance_id,
        "hostname": host_name(context, task),
        "lastStatus": task.status.name,
        "desiredStatus": task.desired.name,
        "healthy": task.healthy_at is not None,
        "lost": task.lost_at is not None,
        "replaces": task.replaces,
        "protectedUntil": task.protected_until,
        "stoppedReason": task.stopped_reason,
        "createdAt": task.created_at,
        "phases": phases_of(task),
    }
