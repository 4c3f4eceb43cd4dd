"""A service that is deleted: its tasks stop, and then it is INACTIVE."""

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.services.deciding import census
from controlplane.services.deciding.draft import Draft
from controlplane.state.service_records import RolloutState, ServiceDeploymentStatus
from homeport import reasons

__all__ = ["close_down"]

_DELETED = "The service was deleted."


def close_down(draft: Draft) -> None:
    """Stop everything, protected or not; when nothing is left, the service is INACTIVE.

    Lost tasks don't hold it up: they are to stop too, and do when their host returns.
    """
    owner = draft.service.deployments[0] if draft.service.deployments else draft.service.id
    for task in draft.present():
        draft.stop(task, reasons.SCALING.format(deployment=owner))
    if draft.service.status == "DRAINING" and not draft.select(
        lambda t: not census.is_stopped(t) and not census.is_lost(t)
    ):
        _deactivate(draft)


def _deactivate(draft: Draft) -> None:
    for deployment in draft.deployments.values():
        if deployment.finished_at is None:
            ended = replace(
                deployment,
                status=ServiceDeploymentStatus.STOPPED,
                status_reason=_DELETED,
                rollout=RolloutState.FAILED,
                rollout_reason=f"ECS deployment {deployment.id} ended: the service was deleted.",
                stopped_at=draft.now,
                finished_at=draft.now,
                updated_at=draft.now,
            )
            draft.put(ended)
    for task_set in list(draft.task_sets.values()):
        draft.drop_task_set(task_set)
    deleted_at = draft.service.deleted_at
    draft.put_service(
        replace(
            draft.service,
            status="INACTIVE",
            deployments=(),
            primary_task_set="",
            deleted_at=draft.now if deleted_at is None else deleted_at,
        )
    )
    draft.say(ServiceEvent.DELETED, "is INACTIVE: it was deleted, and none of its tasks is left.")
