"""A target of a schedule or rule as the RunTask request that it stands for."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controlplane.api.ecs.placement import constraints_of, strategy_of
from controlplane.api.errors import ApiError
from controlplane.api.model import Shape, load_service
from controlplane.api.validation import check
from controlplane.schedules.policy import tags_of_target
from controlplane.state.schedule_records import ScheduleRecord, ScheduleRunRecord, TriggerRecord
from homeport.arn import ArnFactory
from homeport.clock import iso_time

__all__ = ["STARTED_BY", "check_request", "overrides_of", "run_task_request", "started_by"]

#: What the startedBy of schedules' and rules' tasks begin with.
STARTED_BY: Final = ("chronos-schedule/", "events-rule/")
#: ECS shows no more of a startedBy that EventBridge makes.
_STARTED_BY_LENGTH: Final = 36

#: EcsParameters -> the member of RunTask that has the same form.
_SAME_FORM: Final = {
    "TaskDefinitionArn": "taskDefinition",
    "TaskCount": "count",
    "LaunchType": "launchType",
    "PlatformVersion": "platformVersion",
    "Group": "group",
    "CapacityProviderStrategy": "capacityProviderStrategy",
    "EnableECSManagedTags": "enableECSManagedTags",
    "EnableExecuteCommand": "enableExecuteCommand",
    "PlacementConstraints": "placementConstraints",
    "PlacementStrategy": "placementStrategy",
    "PropagateTags": "propagateTags",
    "ReferenceId": "referenceId",
}
_AWSVPC: Final = {"Subnets": "subnets", "SecurityGroups": "securityGroups", "AssignPublicIp": "assignPublicIp"}


def started_by(trigger: TriggerRecord) -> str:
    """Return the startedBy of a trigger's tasks, as AWS's two services have it, cut as there."""
    beginning = STARTED_BY[0] if isinstance(trigger, ScheduleRecord) else STARTED_BY[1]
    return f"{beginning}{trigger.name}"[:_STARTED_BY_LENGTH]


def overrides_of(text: str) -> dict[str, Any]:
    """Read a target's Input: ECS's `overrides`, e.g. `{"containerOverrides": [...]}`.

    Raises ApiError ValidationException if it is something else.
    """
    if not text:
        return {}
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(f"Input is not valid JSON: {error}.", code="ValidationException") from error
    if not isinstance(document, dict):
        raise ApiError("Input must be a JSON object with what RunTask has in `overrides`.", code="ValidationException")
    shape = _run_task().members["overrides"]
    if unknown := [name for name in document if name not in shape.members]:
        raise ApiError(
            f"Input has the member '{unknown[0]:.100}', which an ECS target has no use for: it takes"
            f" {', '.join(shape.members)}.",
            code="ValidationException",
        )
    return check(shape, document, validation_error="ValidationException")


def run_task_request(
    target: Mapping[str, Any],
    trigger: TriggerRecord,
    arns: ArnFactory,
    run: ScheduleRunRecord | None = None,
) -> dict[str, Any]:
    """Return the RunTask request, checked against ECS's model, for what a run has still to start; without a run, all.

    Raises ApiError if it can't be used.
    """
    parameters = target.get("EcsParameters") or {}
    request = {name: parameters[own] for own, name in _SAME_FORM.items() if own in parameters}
    vpc = (parameters.get("NetworkConfiguration") or {}).get("awsvpcConfiguration")
    if vpc is not None:
        request["networkConfiguration"] = {
            "awsvpcConfiguration": {name: vpc[own] for own, name in _AWSVPC.items() if own in vpc}
        }
    text = target.get("Input") or ""
    if run is not None:
        request["count"] = parameters.get("TaskCount", 1) - len(run.tasks)
        text = run.input or text
        if isinstance(trigger, ScheduleRecord):
            text = _filled_in(text, arns.schedule(trigger.group, trigger.name), run)
    tags = [{"key": key, "value": value} for key, value in tags_of_target(target).items()]
    request |= {
        "cluster": target["Arn"],
        "startedBy": started_by(trigger),
        "overrides": overrides_of(text),
        "tags": tags,
    }
    return check(_run_task(), request, validation_error="ValidationException")


def check_request(request: Mapping[str, Any]) -> None:
    """Raise ApiError for what of a request could never be placed, whatever the cluster has."""
    constraints_of(request.get("placementConstraints") or ())
    strategy_of(request.get("placementStrategy") or ())


def _filled_in(text: str, arn: str, run: ScheduleRunRecord) -> str:
    """Fill in EventBridge Scheduler's context attributes."""
    due = iso_time(run.due_at)
    attributes = {
        "<aws.scheduler.schedule-arn>": arn,
        "<aws.scheduler.scheduled-time>": due,
        "<aws.scheduler.execution-id>": run.id,
        "<aws.scheduler.attempt-number>": str(run.attempts + 1),
    }
    for name, value in attributes.items():
        text = text.replace(name, value)
    return text


def _run_task() -> Shape:
    operations = load_service("ecs").operations
    assert operations is not None
    shape = operations["RunTask"].input
    assert shape is not None
    return shape
