"""What RunTask and StartTask ask for, checked member by member before anything is placed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane.api.arguments import tags_of
from controlplane.api.ecs.capacity import FARGATE_PROVIDERS, launch_type_of
from controlplane.api.ecs.clusters import check_capacity_provider_strategy
from controlplane.api.ecs.launch import Launch
from controlplane.api.ecs.lookup import active_definition
from controlplane.api.errors import InvalidParameterException
from controlplane.context import Context
from controlplane.standalone.tags import ExclusivePolicy, StandalonePolicy, standalone_policy
from controlplane.state.records import ClusterRecord, TaskDefinitionRecord, TaskOrder

__all__ = ["check_launch"]

Document = Mapping[str, Any]

#: What ECS assumes of a request that says nothing.
_DEFAULT_LAUNCH_TYPE: Final = "EC2"

#: ECS takes more characters than its documentation names: clients send spaces, for one.
_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]*")
_MAX_STARTED_BY: Final = 128
_MAX_GROUP: Final = 255
_SERVICE_GROUP: Final = "service:"


def check_launch(context: Context, request: Document, cluster: ClusterRecord, operation: str) -> Launch:
    """Check a request and say what its tasks have in common.

    Raises ClientException for a task definition that isn't there or isn't ACTIVE, InvalidParameterException for the
    rest.
    """
    definition = active_definition(context, request["taskDefinition"])
    _refuse_networking(request, definition)
    # A caller who names the host has chosen what a strategy would choose.
    default = cluster.default_capacity_provider_strategy if operation == "RunTask" else ()
    # FARGATE and FARGATE_SPOT need no association here.
    launch_type, strategy = _launch_type(request, default, (*FARGATE_PROVIDERS, *cluster.capacity_providers))
    # Tags of the definition count whether or not they are propagated; those of the request win.
    given = tags_of(request)
    policy = standalone_policy({**definition.tags, **given})
    order = _order(request, policy, operation)
    return Launch(
        operation=operation,
        cluster=cluster.name,
        definition=definition,
        launch_type=launch_type,
        capacity_strategy=tuple(strategy),
        group=_group(request, definition),
        started_by=_text(request, "startedBy", _MAX_STARTED_BY),
        overrides=request.get("overrides") or {},
        enable_execute_command=bool(request.get("enableExecuteCommand")),
        tags=_tags(request, given, definition, cluster),
        order=order,
        at_most_once_after_s=order.at_most_once_after_s if order else None,
        exclusive_policy=policy.exclusive_policy if policy else ExclusivePolicy.WAIT,
    )


def _order(request: Document, policy: StandalonePolicy | None, operation: str) -> TaskOrder | None:
    """What has to be known of a task to stop it in time, to make another attempt of it, or to place it later."""
    if policy is None:
        return None
    return TaskOrder(
        operation=operation,
        constraints=tuple(request.get("placementConstraints") or ()),
        strategy=tuple(request.get("placementStrategy") or ()),
        timeout_s=policy.timeout_s,
        start_timeout_s=policy.start_timeout_s,
        wait_timeout_s=policy.wait_timeout_s,
        retries=policy.retries,
        lost_after_s=policy.lost_after_s,
        stop_when_isolated=policy.stop_when_isolated,
        exclusive=policy.exclusive,
    )


def _refuse_networking(request: Document, definition: TaskDefinitionRecord) -> None:
    # With awsvpc it is right; that the mode isn't supported is said with the definition's other obstacles.
    fits = definition.document.get("networkMode") == "awsvpc"
    if not fits and any((request.get("networkConfiguration") or {}).values()):
        raise InvalidParameterException(
            "Network Configuration is not valid for the given networkMode of this task definition."
        )
    if request.get("volumeConfigurations"):
        raise InvalidParameterException("volumeConfigurations isn't supported: Homeport attaches no EBS volumes.")


def _launch_type(
    request: Document, default: Sequence[Document], associated: Sequence[str]
) -> tuple[str, Sequence[Document]]:
    """Return the launch type that tasks show, and their capacity provider strategy. `default`: the cluster's."""
    launch_type = request.get("launchType")
    strategy = request.get("capacityProviderStrategy") or []
    if launch_type and strategy:
        raise InvalidParameterException(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    if launch_type == "MANAGED_INSTANCES":
        raise InvalidParameterException("launchType must be EC2, EXTERNAL or FARGATE, which all mean a Homeport host.")
    strategy = strategy or default
    if launch_type or not strategy:
        return launch_type or _DEFAULT_LAUNCH_TYPE, ()
    check_capacity_provider_strategy(strategy, associated)
    return launch_type_of(strategy[0]["capacityProvider"], _DEFAULT_LAUNCH_TYPE), strategy


def _group(request: Document, definition: TaskDefinitionRecord) -> str:
    group = _text(request, "group", _MAX_GROUP) or f"family:{definition.family}"
    if group.startswith(_SERVICE_GROUP):
        raise InvalidParameterException("group can't begin with 'service:': those are the groups of services.")
    return group


def _text(request: Document, member: str, longest: int) -> str:
    text: str = request.get(member) or ""
    if len(text) > longest:
        raise InvalidParameterException(f"{member} longer than {longest}.")
    if not _PRINTABLE.fullmatch(text):
        raise InvalidParameterException(f"{member} contains control characters.")
    return text


def _tags(
    request: Document, given: dict[str, str], definition: TaskDefinitionRecord, cluster: ClusterRecord
) -> dict[str, str]:
    """The task's tags: those given, on top of those propagated, and ECS's own."""
    propagate = request.get("propagateTags")
    if propagate == "SERVICE":
        raise InvalidParameterException("propagateTags SERVICE can't be used with a task that no service starts.")
    tags = given
    if propagate == "TASK_DEFINITION":
        tags = tags_of(request, existing=definition.tags)
    if request.get("enableECSManagedTags"):
        tags = {"aws:ecs:clusterName": cluster.name, **tags}
    return tags
