"""Service deployments and revisions as ECS shows them. Rendering only: nothing is decided here."""

from typing import Any, Final

from msgspec.structs import replace

from controlplane.api.ecs.lookup import find_task_definition
from controlplane.api.ecs.run_as import run_as
from controlplane.api.ecs.service_arns import revision_arn, service_deployment_arn, split_key
from controlplane.context import Context
from controlplane.services.counts import count_tasks
from controlplane.services.deciding.bounds import Breaker, breaker_of
from controlplane.services.deciding.breaker import BREAKER
from controlplane.state.service_records import (
    DeploymentRecord,
    RevisionRecord,
    RolloutState,
    ServiceDeploymentStatus,
    ServiceRecord,
)

__all__ = ["brief_view", "deployment_view", "revision_summary", "revision_view"]

Document = dict[str, Any]

#: A hook can be at this stage, but ECS's deployments have no such one: what they have passed then.
_STAGES: Final = {"PRE_PRODUCTION_TRAFFIC_SHIFT": "POST_TEST_TRAFFIC_SHIFT"}


def brief_view(context: Context, deployment: DeploymentRecord) -> Document:
    """A `ServiceDeploymentBrief`."""
    target = context.state.revisions.get(deployment.revision)
    return _given(
        **_identity(context, deployment),
        targetServiceRevisionArn=None if target is None else revision_arn(context, target),
    )


def deployment_view(context: Context, deployment: DeploymentRecord) -> Document:
    """A `ServiceDeployment`. Counts of tasks are those of the moment."""
    service = context.state.services.get(deployment.service)
    if service is not None and service.id != deployment.service_id:
        service = None  # a later service of that name
    sources = (revision_summary(context, service, revision_id) for revision_id in deployment.source_revisions)
    return _given(
        **_identity(context, deployment),
        stoppedAt=deployment.stopped_at,
        updatedAt=deployment.updated_at,
        sourceServiceRevisions=[source for source in sources if source is not None],
        targetServiceRevision=revision_summary(context, service, deployment.revision),
        lifecycleStage=_STAGES.get(deployment.lifecycle_stage, deployment.lifecycle_stage) or None,
        lifecycleHookDetails=_hooks(deployment) or None,
        deploymentConfiguration=_configuration(service, deployment) or None,
        rollback=_rollback(context, deployment),
        deploymentCircuitBreaker=_circuit_breaker(service, deployment),
    )


def _given(**members: Any) -> Document:
    return {member: value for member, value in members.items() if value is not None}


def _identity(context: Context, deployment: DeploymentRecord) -> Document:
    cluster, name = split_key(deployment.service)
    pending = deployment.status is ServiceDeploymentStatus.PENDING
    return {
        "serviceDeploymentArn": service_deployment_arn(context, deployment),
        "serviceArn": context.arns.service(cluster, name),
        "clusterArn": context.arns.cluster(cluster),
        "createdAt": deployment.created_at,
        "startedAt": None if pending else deployment.created_at,
        "finishedAt": deployment.finished_at,
        "status": deployment.status.value,
        "statusReason": deployment.status_reason or None,
    }


def revision_summary(context: Context, service: ServiceRecord | None, revision_id: str) -> Document | None:
    """A `ServiceRevisionSummary`: a revision with the tasks of the service's live deployments that roll it out.

    None if the revision is forgotten. A rollback and the deployment it goes back to may have the same revision.
    """
    state = context.state
    revision = state.revisions.get(revision_id)
    if revision is None:
        return None
    live = () if service is None else service.deployments
    rolling = [name for name in live if (record := state.deployments.get(name)) and record.revision == revision_id]
    counts = count_tasks(state, *rolling)
    # The PRIMARY deployment is asked for all of the service, those that it replaces for what they still have.
    requested = sum(counts)
    if service is not None and rolling and rolling[0] == live[0]:
        requested = service.desired_count
    return {
        "arn": revision_arn(context, revision),
        "requestedTaskCount": requested,
        "runningTaskCount": counts.running,
        "pendingTaskCount": counts.pending,
    }


def _hooks(deployment: DeploymentRecord) -> list[Document]:
    return [
        _given(
            hookId=hook.id,
            targetType="PAUSE",
            status=hook.status,
            expiresAt=hook.expires_at,
            timeoutAction=hook.timeout_action,
        )
        for hook in deployment.hooks
    ]


def _rollback(context: Context, deployment: DeploymentRecord) -> Document | None:
    if deployment.rollback_at is None:
        return None
    undone = context.state.deployments.where("service", deployment.service_id)
    by = next((record.revision for record in undone if record.rollback_of == deployment.id), "")
    revision = context.state.revisions.get(by)
    return _given(
        reason=deployment.rollback_reason,
        startedAt=deployment.rollback_at,
        serviceRevisionArn=None if revision is None else revision_arn(context, revision),
    )


def _configuration(service: ServiceRecord | None, deployment: DeploymentRecord) -> Document:
    """What holds for a deployment under way, and what one that is over began with."""
    if service is not None and deployment.finished_at is None:
        return service.deployment_configuration
    return deployment.configuration


def _circuit_breaker(service: ServiceRecord | None, deployment: DeploymentRecord) -> Document | None:
    if service is None:
        return None
    service = replace(service, deployment_configuration=_configuration(service, deployment))
    breaker = breaker_of(service, service.desired_count)
    return {
        "status": _monitoring(deployment, breaker),
        "failureCount": deployment.breaker_failures,
        "threshold": breaker.threshold,
    }


def _monitoring(deployment: DeploymentRecord, breaker: Breaker) -> str:
    if not breaker.enabled:
        return "DISABLED"
    if deployment.rollout is RolloutState.FAILED and deployment.rollout_reason.startswith(BREAKER):
        return "TRIGGERED"
    return "MONITORING" if deployment.finished_at is None else "MONITORING_COMPLETE"


# ---------------------------------------------------------------- revisions


def revision_view(context: Context, revision: RevisionRecord) -> Document:
    """A `ServiceRevision`."""
    cluster, name = split_key(revision.service)
    definition = find_task_definition(context, revision.task_definition)
    containers = () if definition is None else definition.document["containerDefinitions"]
    return {
        "serviceRevisionArn": revision_arn(context, revision),
        "serviceArn": context.arns.service(cluster, name),
        "clusterArn": context.arns.cluster(cluster),
        "containerImages": [{"containerName": c["name"], "image": c["image"]} for c in containers],
        "createdAt": revision.created_at,
        "guardDutyEnabled": False,
        "loadBalancers": [],
        "serviceRegistries": [],
        **run_as(context, revision.task_definition, revision.document),
    }
