"""What a service's task counts as: one small question per function, asked of the record alone.

stopped     its end is reported
lost        its host has been silent for too long: it may run, but nobody counts on it
prepared    pulled and created, or on its way there; nothing of it runs
live        meant to run, and not on its way down
leaving     asked to stop, or stopping of itself
occupies    live or leaving: what maximumPercent counts
"""

from controlplane.state.records import TaskRecord
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, TaskStatus

__all__ = [
    "has_check",
    "is_leaving",
    "is_live",
    "is_lost",
    "is_prepared",
    "is_protected",
    "is_ready",
    "is_sick",
    "is_stopped",
    "looks_healthy",
    "occupies",
    "running_since",
]


def is_stopped(task: TaskRecord) -> bool:
    """Its end is reported."""
    return task.status is TaskStatus.STOPPED


def is_lost(task: TaskRecord) -> bool:
    """It was given up with its host, which may yet return."""
    return task.lost_at is not None and task.status is not TaskStatus.STOPPED


def is_prepared(task: TaskRecord) -> bool:
    """It is to be pulled and created only."""
    return task.desired is DesiredStatus.PENDING and task.lost_at is None and task.status is not TaskStatus.STOPPED


def is_live(task: TaskRecord) -> bool:
    """It is meant to run, and isn't on its way down."""
    return task.desired is DesiredStatus.RUNNING and task.lost_at is None and task.status <= TaskStatus.RUNNING


def occupies(task: TaskRecord) -> bool:
    """It counts towards maximumPercent: it runs, will run, or hasn't stopped yet."""
    return task.desired is not DesiredStatus.PENDING and task.lost_at is None and task.status is not TaskStatus.STOPPED


def is_leaving(task: TaskRecord) -> bool:
    """It is on its way down, asked for or not."""
    # The other half of `occupies`: what isn't live.
    return (task.desired is DesiredStatus.STOPPED or task.status > TaskStatus.RUNNING) and occupies(task)


def is_protected(task: TaskRecord, now: float) -> bool:
    """Task scale-in protection is on."""
    return task.protected_until is not None and task.protected_until > now


def is_ready(task: TaskRecord) -> bool:
    """All containers of a prepared task are created: it can start at once."""
    created = {report.name for report in task.containers if report.status >= ContainerStatus.CREATED}
    return all(container.name in created for container in task.spec.containers)


def is_sick(task: TaskRecord) -> bool:
    """It runs, and its health checks have failed."""
    return task.status is TaskStatus.RUNNING and task.health is HealthStatus.UNHEALTHY


def has_check(task: TaskRecord) -> bool:
    """Some essential container has a health check."""
    # Not `any`: this is asked of every task of a service, and a loop costs a third.
    for container in task.spec.containers:  # noqa: SIM110
        if container.health_check is not None and container.essential:
            return True
    return False


def running_since(task: TaskRecord) -> float:
    """When it began to run, by the control plane's clock where that is known; before that, when it was made."""
    return task.running_at or task.started_at or task.created_at


def looks_healthy(task: TaskRecord) -> bool:
    """It runs, has been healthy, and its health checks (if any) still say so."""
    if task.status is not TaskStatus.RUNNING or task.healthy_at is None:
        return False
    return not has_check(task) or task.health is HealthStatus.HEALTHY
