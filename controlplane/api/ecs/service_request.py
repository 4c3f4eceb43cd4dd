"""What CreateService and UpdateService ask for, checked member by member before anything is written.

A service's terms are in two places, as in ECS: what makes a new revision, and so a new deployment, when it changes
(`Terms.task_definition`, `Terms.document`), and what belongs to the service (`Terms.settings` and the rest).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from controlplane.api.arguments import tags_of
from controlplane.api.ecs.capacity import FARGATE_PROVIDERS
from controlplane.api.ecs.clusters import check_capacity_provider_strategy
from controlplane.api.ecs.deployment_configuration import merged_configuration
from controlplane.api.ecs.launch import Launch, Launcher
from controlplane.api.ecs.lookup import active_definition
from controlplane.api.ecs.placement import demand_of
from controlplane.api.ecs.service_members import (
    check_external,
    check_rebalancing,
    check_service_tags,
    refuse_unsupported_members,
    says_something,
)
from controlplane.api.errors import ClientException, InvalidParameterException
from controlplane.context import Context
from controlplane.state.records import ClusterRecord, TaskDefinitionRecord
from controlplane.state.service_records import RevisionRecord, ServiceRecord, group_of

__all__ = [
    "MAX_DESIRED_COUNT",
    "Terms",
    "capacity_members",
    "check_create",
    "check_update",
    "revision_members",
    "terms_of",
]

Document = Mapping[str, Any]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}")
#: More than any cluster here is built for; a greater number can only be a mistake.
MAX_DESIRED_COUNT: Final = 100_000
_MOST_GRACE_S: Final = 2**31 - 1

_DEFAULT_LAUNCH_TYPE: Final = "EC2"

#: Members kept with the service as they are given. Changing them begins no deployment.
_SETTINGS: Final = (
    "availabilityZoneRebalancing",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "healthCheckGracePeriodSeconds",
    "placementConstraints",
    "placementStrategy",
    "propagateTags",
    "role",
)
#: Members kept with the revision. Changing them begins a deployment.
_REVISION: Final = ("monitoring", "networkConfiguration", "platformVersion")

_DAEMON_COUNT: Final = (
    "The daemon scheduling strategy does not support a desired count for services. Remove the desired count value"
    " and try again"
)
_DAEMON_PLACEMENT: Final = (
    "The daemon scheduling strategy does not support placement strategies. Remove the placement strategy and try again"
)
_DAEMON_FARGATE: Final = (
    "The daemon scheduling strategy does not support the FARGATE launch type. Change the launch type and try again"
)
_DAEMON_PROVIDERS: Final = (
    "Specifying a capacity provider strategy is not supported when you create a service using the DAEMON scheduling"
    " strategy."
)
_FORCE_NEEDED: Final = (
    "When switching from launch type to capacity provider strategy on an existing service, or making a change to a"
    " capacity provider strategy on a service that is already using one, you must force a new deployment."
)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a caller can decide about a service."""

    scheduling_strategy: str
    controller: str
    desired_count: int
    deployment_configuration: dict[str, Any]
    given: tuple[str, ...]
    settings: dict[str, Any]
    tags: dict[str, str]
    #: `family:revision`; "" for EXTERNAL, whose task sets say it.
    task_definition: str
    document: dict[str, Any]


def terms_of(service: ServiceRecord, revision: RevisionRecord | None) -> Terms:
    """Return the terms a service has now. `revision`: what its PRIMARY deployment rolls out."""
    return Terms(
        scheduling_strategy=service.scheduling_strategy,
        controller=service.controller,
        desired_count=service.desired_count,
        deployment_configuration=service.deployment_configuration,
        given=service.given,
        settings=service.settings,
        tags=service.tags,
        task_definition="" if revision is None else revision.task_definition,
        document={} if revision is None else revision.document,
    )


def check_create(context: Context, request: Document, cluster: ClusterRecord) -> Terms:
    """Check a CreateService request and return the terms it asks for.

    Raises ClientException for a task definition that isn't there, isn't ACTIVE or can't be run here, and for a
    `homeport:*` tag that can't be used; InvalidParameterException for the rest.
    """
    name = request["serviceName"]
    if not _NAME.fullmatch(name):
        raise InvalidParameterException(
            "Identifiers can contain only letters, numbers, hyphens and underscores, 255 at most;"
            f" serviceName is '{name:.300}'."
        )
    strategy = request.get("schedulingStrategy") or "REPLICA"
    controller = (request.get("deploymentController") or {}).get("type") or "ECS"
    refuse_unsupported_members(request, controller)
    tags = tags_of(dict(request))
    check_service_tags(tags, {})
    configuration = request.get("deploymentConfiguration") or {}
    if controller == "EXTERNAL":
        check_external(request, strategy)
    terms = Terms(
        scheduling_strategy=strategy,
        controller=controller,
        desired_count=_first_count(request, strategy, controller),
        deployment_configuration=merged_configuration(
            configuration, before=None, scheduling_strategy=strategy, controller=controller
        ),
        given=tuple(sorted(configuration)),
        settings=_settings(request),
        tags=tags,
        task_definition="",
        document={},
    )
    if controller == "ECS":
        definition = _definition(context, request)
        document = {**capacity_members(request, cluster, strategy), **revision_members(request)}
        terms = replace(terms, task_definition=definition.name, document=document)
        _check_runnable(context, cluster.name, name, terms, definition)
    _check_together(terms)
    return terms


def check_update(
    context: Context, request: Document, cluster: ClusterRecord, service: ServiceRecord, before: Terms
) -> Terms:
    """Check an UpdateService request and return what it makes of the terms `before`. Raises as `check_create`."""
    refuse_unsupported_members(request, service.controller)
    wanted = (request.get("deploymentController") or {}).get("type") or service.controller
    if wanted != service.controller:
        raise InvalidParameterException(
            f"deploymentController can't be changed from {service.controller} to {wanted}. Create another service."
        )
    if service.controller == "EXTERNAL":
        check_external(request, service.scheduling_strategy, update=True)
    configuration = request.get("deploymentConfiguration") or {}
    after = replace(
        before,
        desired_count=_next_count(request, service),
        deployment_configuration=merged_configuration(
            configuration,
            before=before.deployment_configuration,
            scheduling_strategy=service.scheduling_strategy,
            controller=service.controller,
        ),
        given=tuple(sorted({*before.given, *configuration})),
        settings={**before.settings, **_settings(request)},
    )
    if service.controller == "ECS":
        after = _updated_revision(context, request, cluster, service, before, after)
    _check_together(after)
    return after


def _updated_revision(
    context: Context, request: Document, cluster: ClusterRecord, service: ServiceRecord, before: Terms, after: Terms
) -> Terms:
    document = {**before.document, **revision_members(request)}
    if "capacityProviderStrategy" in request:
        document = _changed_capacity(request, cluster, service, document)
    name = active_definition(context, request["taskDefinition"]).name if request.get("taskDefinition") else ""
    after = replace(after, task_definition=name or before.task_definition, document=document)
    # A service can always be scaled, whatever has become of its task definition.
    if request.get("forceNewDeployment") or _made_by(before) != _made_by(after):
        definition = context.state.task_definitions.get(after.task_definition)
        if definition is None:
            raise ClientException("TaskDefinition not found.")
        _check_runnable(context, cluster.name, service.name, after, definition)
    return after


def _made_by(terms: Terms) -> tuple[object, ...]:
    """What tasks are made and placed by."""
    placement = (terms.settings.get(member) for member in ("placementConstraints", "placementStrategy"))
    return (terms.task_definition, terms.document, *placement)


# ---------------------------------------------------------------- members


def _definition(context: Context, request: Document) -> TaskDefinitionRecord:
    reference = request.get("taskDefinition")
    if not reference:
        raise InvalidParameterException("TaskDefinition can not be blank.")
    return active_definition(context, reference)


def _first_count(request: Document, strategy: str, controller: str) -> int:
    if strategy == "DAEMON":
        if "desiredCount" in request:
            raise InvalidParameterException(_DAEMON_COUNT)
        return 0
    if "desiredCount" not in request:
        if controller == "EXTERNAL":
            return 0
        raise InvalidParameterException("DesiredCount is missing")
    return _checked_count(request["desiredCount"], "DesiredCount")


def _next_count(request: Document, service: ServiceRecord) -> int:
    if "desiredCount" not in request:
        return service.desired_count
    if service.scheduling_strategy == "DAEMON":
        raise InvalidParameterException(_DAEMON_COUNT)
    return _checked_count(request["desiredCount"], "Task count")


def _checked_count(count: int, what: str) -> int:
    if count < 0:
        raise InvalidParameterException(f"{what} can not be lesser than 0")
    if count > MAX_DESIRED_COUNT:
        raise InvalidParameterException(f"desiredCount can be at most {MAX_DESIRED_COUNT}, but was {count}.")
    return count


def _settings(request: Document) -> dict[str, Any]:
    settings = {member: request[member] for member in _SETTINGS if member in request}
    grace = settings.get("healthCheckGracePeriodSeconds", 0)
    if not 0 <= grace <= _MOST_GRACE_S:
        raise InvalidParameterException(
            f"healthCheckGracePeriodSeconds must be between 0 and {_MOST_GRACE_S}, but was {grace}."
        )
    return settings


def revision_members(request: Document) -> dict[str, Any]:
    """Return the request's members, besides its capacity, that a revision or task set is run by."""
    return {member: request[member] for member in _REVISION if says_something(request.get(member))}


def capacity_members(request: Document, cluster: ClusterRecord, scheduling_strategy: str) -> dict[str, Any]:
    """Return what tasks run on: `launchType`, or `capacityProviderStrategy` (of the cluster, if it says neither).

    Raises InvalidParameterException for what can't be used.
    """
    launch_type = request.get("launchType")
    strategy: Sequence[Document] = request.get("capacityProviderStrategy") or ()
    if launch_type and strategy:
        raise InvalidParameterException(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again."
        )
    if launch_type == "MANAGED_INSTANCES":
        raise InvalidParameterException("launchType must be EC2, EXTERNAL or FARGATE, which all mean a Homeport host.")
    if scheduling_strategy == "DAEMON":
        if strategy:
            raise InvalidParameterException(_DAEMON_PROVIDERS)
        if launch_type == "FARGATE":
            raise InvalidParameterException(_DAEMON_FARGATE)
    elif not launch_type:
        # A DAEMON runs on every host, whatever the cluster's default strategy prefers.
        strategy = strategy or cluster.default_capacity_provider_strategy
    if not strategy:
        return {"launchType": launch_type or _DEFAULT_LAUNCH_TYPE}
    # FARGATE and FARGATE_SPOT are ECS's own and need no association with the cluster here.
    check_capacity_provider_strategy(strategy, {*FARGATE_PROVIDERS, *cluster.capacity_providers})
    return {"capacityProviderStrategy": list(strategy)}


def _changed_capacity(
    request: Document, cluster: ClusterRecord, service: ServiceRecord, document: dict[str, Any]
) -> dict[str, Any]:
    """Return the revision's members under another strategy; an empty one means: back to a launch type."""
    strategy = request["capacityProviderStrategy"]
    present = document.get("capacityProviderStrategy") or []
    if strategy == present:
        return document
    if service.scheduling_strategy == "DAEMON":
        raise InvalidParameterException(_DAEMON_PROVIDERS)
    if not request.get("forceNewDeployment"):
        raise InvalidParameterException(_FORCE_NEEDED)
    kept = {name: value for name, value in document.items() if name not in ("launchType", "capacityProviderStrategy")}
    if strategy:
        return {
            **kept,
            **capacity_members({"capacityProviderStrategy": strategy}, cluster, service.scheduling_strategy),
        }
    fargate = all(item["capacityProvider"] in FARGATE_PROVIDERS for item in present)
    return {**kept, "launchType": "FARGATE" if fargate else _DEFAULT_LAUNCH_TYPE}


# ---------------------------------------------------------------- all members together


def _check_runnable(context: Context, cluster: str, name: str, terms: Terms, definition: TaskDefinitionRecord) -> None:
    """Refuse at once what could never start: a definition that can't be run here, placement that can't be used."""
    check_service_tags(terms.tags, definition.tags)
    fits = definition.document.get("networkMode") == "awsvpc"
    if "networkConfiguration" in terms.document and not fits:
        raise InvalidParameterException(
            "Network Configuration is not valid for the given networkMode of this task definition."
        )
    launch = Launch(
        operation="", cluster=cluster, definition=definition, launch_type=_DEFAULT_LAUNCH_TYPE, group=group_of(name)
    )
    demand_of(
        definition.document,
        Launcher(context, launch).resources,
        group=launch.group,
        constraints=terms.settings.get("placementConstraints") or (),
        strategy=terms.settings.get("placementStrategy") or (),
    )


def _check_together(terms: Terms) -> None:
    """Rules that hold between members, whichever of them the request has."""
    if terms.scheduling_strategy == "DAEMON":
        if terms.settings.get("placementStrategy"):
            raise InvalidParameterException(_DAEMON_PLACEMENT)
        if any(c.get("type") == "distinctInstance" for c in terms.settings.get("placementConstraints") or ()):
            raise InvalidParameterException(
                "The daemon scheduling strategy does not support the distinctInstance placement constraint: it runs one"
                " task on each host as it is. Remove the constraint and try again"
            )
    check_rebalancing(terms.settings, terms.deployment_configuration, terms.scheduling_strategy, terms.controller)
