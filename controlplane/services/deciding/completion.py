"""When a deployment is complete, when a service is steady, and when an old deployment is gone."""

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.services.deciding import census, hooks
from controlplane.services.deciding.bounds import share_up
from controlplane.services.deciding.breaker import rolled_back
from controlplane.services.deciding.draft import Draft
from controlplane.services.deciding.slots import Slots
from controlplane.services.deployments import is_proven
from controlplane.state.service_records import DeploymentRecord, RolloutState, ServiceDeploymentStatus

__all__ = ["STEADY", "conclude", "drop_replaced"]

STEADY = "has reached a steady state."


def conclude(draft: Draft, slots: Slots, primary: str) -> None:
    """Complete the PRIMARY deployment if it is, note a steady state, drop what is replaced."""
    deployment = draft.deployments[primary]
    live = [task for task in draft.present() if task.lost_at is None]
    healthy = draft.healthy_of(primary)
    others = any(task.started_by != primary for task in live)
    settled = not slots.gaps and not slots.outdated and healthy == len(live) == slots.desired
    in_progress = deployment.rollout is RolloutState.IN_PROGRESS
    if in_progress and (settled or _early(draft, slots.desired, healthy, others=others)):
        # `any` asks the gates in turn, and the next only when the one before is open.
        if not any(hooks.hook_holds(draft, primary, gate) for gate in hooks.GATES):
            _complete(draft, draft.deployments[primary])
        elif draft.service.deployments[0] != primary:
            return
    deployment = draft.deployments[primary]
    steady = settled and deployment.rollout is RolloutState.COMPLETED
    if steady != deployment.steady:
        # What was warned of is over, and is news if it comes again.
        draft.put(replace(deployment, steady=steady, warned_at={} if steady else deployment.warned_at))
        if steady:
            draft.say(ServiceEvent.STEADY_STATE, STEADY)
    drop_replaced(draft, deployment)


def _early(draft: Draft, desired: int, healthy: int, *, others: bool) -> bool:
    """Whether earlySuccessCriteria are met: enough of the new tasks are healthy, and (BLOCKING) the old are gone."""
    criteria = draft.service.deployment_configuration.get("earlySuccessCriteria") or {}
    if not criteria.get("enable") or healthy < share_up(desired, criteria.get("healthyPercent", 100)):
        return False
    return criteria.get("sourceServiceRevisionCleanup") == "DEFERRED" or not others


def _complete(draft: Draft, deployment: DeploymentRecord) -> None:
    completed = replace(
        deployment,
        rollout=RolloutState.COMPLETED,
        rollout_reason=f"ECS deployment {deployment.id} completed.",
        status=ServiceDeploymentStatus.SUCCESSFUL,
        finished_at=draft.now,
        updated_at=draft.now,
        lifecycle_stage="",
    )
    draft.put(completed)
    draft.put_service(replace(draft.service, stable_revision=deployment.revision))
    draft.say(None, f"(deployment {deployment.id}) deployment completed.")
    if deployment.rollback_of:
        rolled_back(draft, completed)


def drop_replaced(draft: Draft, primary: DeploymentRecord) -> None:
    """Take the old deployments that have no task left (but lost ones) off the service.

    One whose rollback is under way stays, since its record is to tell how that ends; and so does the one that is kept
    up after PRIMARY has failed, even if all of its tasks have just ended.
    """
    present = {task.started_by for task in draft.tasks.values() if not (task.settled or census.is_lost(task))}
    if primary.rollback_of and primary.rollout is RolloutState.IN_PROGRESS:
        present.add(primary.rollback_of)
    if primary.rollout is RolloutState.FAILED:
        desired = draft.service.desired_count
        present.update(d.id for d in draft.deployments.values() if is_proven(d, desired))
    left = tuple(d for d in draft.service.deployments if d == primary.id or d in present)
    if left != draft.service.deployments:
        draft.put_service(replace(draft.service, deployments=left))
