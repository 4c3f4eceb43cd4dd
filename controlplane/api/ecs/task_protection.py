"""Task scale-in protection: a protected task of a service isn't stopped to scale in or to be replaced by a deployment.

Protection ends by itself at `protected_until`. It never keeps a task from being stopped by StopTask, by a drain's
deadline, or for being unhealthy.
"""

from typing import Final

from msgspec.structs import replace

from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.residents import check_references, find_task, task_arn
from controlplane.api.ecs.views import failure
from controlplane.api.errors import InvalidParameterException
from controlplane.api.registry import CALLER, Document, operation
from controlplane.context import Context
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import SERVICE_GROUP
from homeport.status import DesiredStatus
from homeport.story import StoryLine

__all__: list[str] = []

_MAX_LOOKED_AT: Final = 100
_MAX_CHANGED: Final = 10
_MAX_MINUTES: Final = 2880
_DEFAULT_MINUTES: Final = 120

_NO_SERVICE: Final = "The task doesn't belong to a service."
_STOPPING: Final = "The task is stopping or has stopped."
_BLOCKED: Final = (
    "The service's deployment already waits for protected tasks of an earlier deployment; no more of its tasks can be "
    "protected until it is through."
)


@operation("ecs", "GetTaskProtection")
def get_task_protection(context: Context, request: Document) -> Document:
    """Tell of up to 100 tasks of services whether they are protected, and until when."""
    cluster = find_cluster(context, request["cluster"]).name
    now = context.clock.now()
    protected, failures = [], []
    for reference in check_references(request.get("tasks") or (), what="Tasks", maximum=_MAX_LOOKED_AT):
        task = find_task(context, cluster, reference)
        if task is None:
            failures.append(failure(task_arn(context, cluster, reference), "MISSING"))
        elif not task.group.startswith(SERVICE_GROUP):
            failures.append(failure(task.spec.task_arn, "TASK_NOT_VALID", _NO_SERVICE))
        else:
            protected.append(_view(task, now))
    return {"protectedTasks": protected, "failures": failures}


@operation("ecs", "UpdateTaskProtection")
def update_task_protection(context: Context, request: Document) -> Document:
    """Protect up to 10 tasks of services, from now on for `expiresInMinutes`, or end their protection."""
    cluster = find_cluster(context, request["cluster"]).name
    references = check_references(request["tasks"], what="Tasks", maximum=_MAX_CHANGED)
    enabled = request["protectionEnabled"]
    minutes = _minutes(request, enabled=enabled)
    now = context.clock.now()
    protected, failures = [], []
    with context.state.transaction():
        for reference in references:
            task = find_task(context, cluster, reference)
            if task is None:
                failures.append(failure(task_arn(context, cluster, reference), "MISSING"))
            elif refusal := _refusal(context, task, now, enabled=enabled):
                failures.append(failure(task.spec.task_arn, *refusal))
            else:
                until = now + minutes * 60 if enabled else None
                protected.append(_view(_protect(context, task, until, now), now))
    return {"protectedTasks": protected, "failures": failures}


def _minutes(request: Document, *, enabled: bool) -> int:
    minutes: int | None = request.get("expiresInMinutes")
    if minutes is None or not enabled:
        return _DEFAULT_MINUTES
    if not 1 <= minutes <= _MAX_MINUTES:
        raise InvalidParameterException(
            f"expiresInMinutes must be between 1 and {_MAX_MINUTES} (48 hours), but was {minutes}."
        )
    return minutes


def _refusal(context: Context, task: TaskRecord, now: float, *, enabled: bool) -> tuple[str, str] | None:
    """Return ECS's reason and the detail if the task's protection can't be changed."""
    if not task.group.startswith(SERVICE_GROUP):
        return "TASK_NOT_VALID", _NO_SERVICE
    if task.desired is DesiredStatus.STOPPED:
        return "TASK_NOT_VALID", _STOPPING
    if enabled and not _is_protected(task, now) and _blocks_deployment(context, task, now):
        return "DEPLOYMENT_BLOCKED", _BLOCKED
    return None


def _blocks_deployment(context: Context, task: TaskRecord, now: float) -> bool:
    """Whether the task is to be replaced, and its service's deployment waits for protected ones of its like already."""
    service = context.state.services.get(f"{task.cluster}/{task.group.removeprefix(SERVICE_GROUP)}")
    if service is None or task.started_by not in service.deployments[1:]:
        return False
    others = context.state.tasks.where("service", (task.cluster, task.group))
    return any(other.started_by in service.deployments[1:] and _is_protected(other, now) for other in others)


def _protect(context: Context, task: TaskRecord, until: float | None, now: float) -> TaskRecord:
    if until is None and not _is_protected(task, now):
        return task
    changed = replace(task, protected_until=until, version=task.version + 1)
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    what = "ended" if until is None else f"for {(until - now) / 60:.0f} minutes"
    line = StoryLine(at=now, event="protected", message=f"UpdateTaskProtection{caller}: protection {what}", actor="api")
    with context.state.transaction() as transaction:
        transaction.put(changed)
        transaction.tell(task.id, line)
    return changed


def _is_protected(task: TaskRecord, now: float) -> bool:
    return task.protected_until is not None and task.protected_until > now and task.desired is not DesiredStatus.STOPPED


def _view(task: TaskRecord, now: float) -> Document:
    if not _is_protected(task, now):
        return {"taskArn": task.spec.task_arn, "protectionEnabled": False}
    return {"taskArn": task.spec.task_arn, "protectionEnabled": True, "expirationDate": task.protected_until}
