"""Beginning a deployment: pure, and shared by CreateService, UpdateService and rollbacks."""

from collections.abc import Sequence

from msgspec.structs import replace

from controlplane.state.service_records import DeploymentRecord, RolloutState, ServiceDeploymentStatus, ServiceRecord

__all__ = ["SUPERSEDED", "begin_deployment", "is_proven", "rollback_candidate"]

SUPERSEDED = "Service deployment stopped because a new service deployment {arn_id} was started."


def begin_deployment(
    service: ServiceRecord,
    live: tuple[DeploymentRecord, ...],
    *,
    deployment_id: str,
    arn_id: str,
    revision: str,
    now: float,
    rollback_of: str = "",
) -> tuple[ServiceRecord, tuple[DeploymentRecord, ...]]:
    """Return the service with a new PRIMARY deployment of `revision`, and the deployments that are new or changed.

    `live`: the service's live deployments, PRIMARY first. One that is still under way is superseded: its service
    deployment ends STOPPED, unless this is its rollback.
    """
    begun = DeploymentRecord(
        id=deployment_id,
        arn_id=arn_id,
        service_id=service.id,
        service=service.key,
        revision=revision,
        source_revisions=tuple(dict.fromkeys(d.revision for d in live)),
        configuration=service.deployment_configuration,
        created_at=now,
        updated_at=now,
        progressed_at=now,
        status=ServiceDeploymentStatus.IN_PROGRESS,
        rollout_reason=f"ECS deployment {deployment_id} in progress.",
        rollback_of=rollback_of,
    )
    changed = [begun]
    for deployment in live:
        if deployment.finished_at is None and deployment.id != rollback_of:
            changed.append(
                replace(
                    deployment,
                    status=ServiceDeploymentStatus.STOPPED,
                    status_reason=SUPERSEDED.format(arn_id=arn_id),
                    stopped_at=now,
                    finished_at=now,
                    updated_at=now,
                )
            )
    return replace(service, deployments=(deployment_id, *service.deployments)), tuple(changed)


def is_proven(deployment: DeploymentRecord, desired: int) -> bool:
    """Tell whether a deployment's revision is known to work: it is one to go back to.

    That is when it was completed; or was superseded so soon that it couldn't be, but all of its tasks became healthy
    and none has failed.
    """
    if deployment.rollout is RolloutState.COMPLETED:
        return True
    sound = deployment.rollout is RolloutState.IN_PROGRESS and not deployment.failed_tasks
    return sound and 0 < desired <= deployment.healthy_tasks


def rollback_candidate(service: ServiceRecord, live: Sequence[DeploymentRecord]) -> str:
    """Return the id of the revision to go back to: the last proven one other than PRIMARY's; "" if there is none.

    `live`: the service's live deployments, PRIMARY first.
    """
    proven = (d.revision for d in live[1:] if is_proven(d, service.desired_count))
    revision = next(proven, service.stable_revision)
    return "" if live and live[0].revision == revision else revision
