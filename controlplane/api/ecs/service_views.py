"""Services as the ECS API shows them. Rendering only: nothing is decided here.

Counts are read off a tally at the moment of asking, so they are always true: RUNNING counts as running, what is on its
way there as pending, and a task whose host has been silent for too long counts as neither.
"""

from typing import Any

from controlplane.api.arguments import render_tags
from controlplane.api.ecs.capacity import launch_type_of
from controlplane.api.ecs.run_as import run_as
from controlplane.api.ecs.service_arns import service_arn, service_deployment_arn
from controlplane.api.ecs.service_deployment_views import revision_summary
from controlplane.api.ecs.task_set_views import task_set_view
from controlplane.context import Context
from controlplane.services.counts import count_tasks, count_tasks_of_service
from controlplane.services.events import MAX_EVENTS
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, ServiceRecord, TaskSetRecord

__all__ = ["primary_revision", "service_launch_type", "service_view"]

Document = dict[str, Any]


def service_view(context: Context, service: ServiceRecord, *, tags: bool) -> Document:
    """A `Service`. `tags`: show them (in DescribeServices only if the request includes TAGS)."""
    settings = service.settings
    live = _live(context, service)
    sets = sorted(context.state.task_sets.where("service", service.id), key=lambda record: record.created_at)
    counts = count_tasks_of_service(context.state, service)
    return {
        "serviceArn": service_arn(context, service),
        "serviceName": service.name,
        "clusterArn": context.arns.cluster(service.cluster),
        "status": service.status,
        "desiredCount": service.desired_count,
        "runningCount": counts.running,
        "pendingCount": counts.pending,
        "createdAt": service.created_at,
        "createdBy": service.created_by,
        "schedulingStrategy": service.scheduling_strategy,
        "deploymentController": {"type": service.controller},
        "deploymentConfiguration": service.deployment_configuration,
        "deployments": [_deployment(context, service, deployment) for deployment in live],
        "events": _events(context, service),
        "loadBalancers": [],
        "serviceRegistries": [],
        "placementConstraints": list(settings.get("placementConstraints") or ()),
        "placementStrategy": list(settings.get("placementStrategy") or ()),
        "healthCheckGracePeriodSeconds": settings.get("healthCheckGracePeriodSeconds", 0),
        "enableECSManagedTags": bool(settings.get("enableECSManagedTags")),
        "propagateTags": settings.get("propagateTags") or "NONE",
        "enableExecuteCommand": bool(settings.get("enableExecuteCommand")),
        # ECS would say ENABLED of some services that have never been asked; here only what was asked for is done.
        "availabilityZoneRebalancing": settings.get("availabilityZoneRebalancing", "DISABLED"),
        "resourceManagementType": "CUSTOMER",
        "tags": render_tags(service.tags) if tags else [],
        **({"roleArn": _role_arn(context, settings["role"])} if settings.get("role") else {}),
        **({"taskSets": [task_set_view(context, s) for s in sets]} if service.controller == "EXTERNAL" else {}),
        **_terms(context, service, sets),
        **_current(context, service, live),
    }


def primary_revision(context: Context, service: ServiceRecord) -> RevisionRecord | None:
    """Return what the service's PRIMARY deployment rolls out; of a deleted one the newest. None for EXTERNAL ones."""
    state = context.state
    primary = state.deployments.get(service.deployments[0]) if service.deployments else None
    if primary is not None:
        return state.revisions.get(primary.revision)
    return max(state.revisions.where("service", service.id), key=lambda r: r.created_at, default=None)


def service_launch_type(context: Context, service: ServiceRecord) -> str:
    """Return the launch type that a service counts under; "" for an EXTERNAL one without a primary task set."""
    revision = primary_revision(context, service)
    if revision is not None:
        document = revision.document
    else:
        primary = context.state.task_sets.get(service.primary_task_set)
        document = {} if primary is None else primary.document
    strategy = document.get("capacityProviderStrategy")
    given: str = document.get("launchType") or ""
    return launch_type_of(strategy[0]["capacityProvider"], given) if strategy else given


# ---------------------------------------------------------------- parts


def _live(context: Context, service: ServiceRecord) -> list[DeploymentRecord]:
    return [d for d in map(context.state.deployments.get, service.deployments) if d is not None]


def _deployment(context: Context, service: ServiceRecord, deployment: DeploymentRecord) -> Document:
    """A `Deployment`. The first of a service is its PRIMARY one."""
    counts = count_tasks(context.state, deployment.id)
    primary = deployment.id == service.deployments[0]
    revision = context.state.revisions.get(deployment.revision)
    return {
        "id": deployment.id,
        "status": "PRIMARY" if primary else "ACTIVE",
        # An older one is on its way to nothing: all it wants is what it still has.
        "desiredCount": service.desired_count if primary else counts.running + counts.pending,
        "runningCount": counts.running,
        "pendingCount": counts.pending,
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at,
        "updatedAt": deployment.updated_at,
        "rolloutState": deployment.rollout.value,
        "rolloutStateReason": deployment.rollout_reason,
        **_of_revision(context, revision),
    }


def _of_revision(context: Context, revision: RevisionRecord | None) -> Document:
    if revision is None:
        return {}
    return run_as(context, revision.task_definition, revision.document)


def _terms(context: Context, service: ServiceRecord, sets: list[TaskSetRecord]) -> Document:
    """What its tasks are made of, by the PRIMARY deployment; for EXTERNAL by the primary task set."""
    if service.controller == "ECS":
        return _of_revision(context, primary_revision(context, service))
    primary = next((s for s in sets if s.id == service.primary_task_set), None)
    return {} if primary is None else run_as(context, primary.task_definition, primary.document)


def _current(context: Context, service: ServiceRecord, live: list[DeploymentRecord]) -> Document:
    """`currentServiceDeployment` and `currentServiceRevisions`."""
    if not live:
        return {}
    revisions = dict.fromkeys(deployment.revision for deployment in live)
    summaries = (revision_summary(context, service, revision) for revision in revisions)
    view: Document = {"currentServiceRevisions": [summary for summary in summaries if summary is not None]}
    # A rollback is part of the service deployment that it undoes.
    shown = context.state.deployments.get(live[0].rollback_of) if live[0].rollback_of else live[0]
    if shown is not None:
        view["currentServiceDeployment"] = service_deployment_arn(context, shown)
    return view


def _events(context: Context, service: ServiceRecord) -> list[Document]:
    """The last events, the newest first."""
    events = list(context.state.events.where("service", service.id))[-MAX_EVENTS:]
    return [{"id": event.id, "createdAt": event.at, "message": event.message} for event in reversed(events)]


def _role_arn(context: Context, role: str) -> str:
    return role if role.startswith("arn:") else f"arn:aws:iam::{context.arns.account}:role/{role}"
