"""The service reconciler's decision: pure, from a snapshot of one service to what should be done now.

The order within a decision: what has become of tasks (ends, health, hosts that went or came), what that means for the
PRIMARY deployment (failed? rolled back? held by a hook?), what should be in the service's places, and whether all is
done. Deciding again on the result of acting decides nothing (invariant 8).
"""

from msgspec.structs import replace

from controlplane.services.deciding import hooks
from controlplane.services.deciding.breaker import judge_failures, judge_requests
from controlplane.services.deciding.completion import conclude, drop_replaced
from controlplane.services.deciding.daemon import daemon_places, daemon_slots
from controlplane.services.deciding.deletion import close_down
from controlplane.services.deciding.draft import Draft
from controlplane.services.deciding.presence import follow_hosts, give_up_outdated
from controlplane.services.deciding.rollout import Leave, roll
from controlplane.services.deciding.settling import mark_healthy, settle_ended
from controlplane.services.deciding.slots import Slots, confine_outdated, replica_slots
from controlplane.services.deciding.task_sets import computed_count, reconcile_task_sets
from controlplane.services.deployments import is_proven
from controlplane.services.model import Decision, Snapshot
from controlplane.state.service_records import DeploymentRecord, RolloutState

__all__ = ["decide"]


def decide(snapshot: Snapshot, now: float) -> Decision:
    """Return what to do about one service. `now`: epoch seconds."""
    draft = Draft(snapshot, now)
    slots = {d.id: snapshot.service.desired_count for d in snapshot.deployments}
    settle_ended(draft, slots | {s.id: computed_count(snapshot.service, s) for s in snapshot.task_sets})
    follow_hosts(draft)
    if snapshot.service.status != "ACTIVE":
        close_down(draft)
        return draft.decision()
    mark_healthy(draft)
    primary = draft.primary
    if snapshot.service.controller == "EXTERNAL":
        reconcile_task_sets(draft)
    elif primary is not None:
        _reconcile(draft, primary.id)
    return draft.decision()


def _reconcile(draft: Draft, primary: str) -> None:
    """Bring the service to what its PRIMARY deployment says."""
    if draft.service.scheduling_strategy == "DAEMON":
        desired = len(daemon_places(draft))
        if desired != draft.service.desired_count:
            draft.put_service(replace(draft.service, desired_count=desired))
    if draft.deployments[primary].rollout is RolloutState.IN_PROGRESS:
        _judge(draft, draft.deployments[primary])
    slots = _slots(draft, primary)
    leave = _leave(draft, slots, draft.deployments[primary])
    if draft.service.deployments[0] != primary:
        # A rollback has begun: what is to become of its tasks depends on what only a new snapshot shows.
        return
    before = _before(draft, draft.deployments[primary])
    if before is not None:
        _keep_up(draft, before, primary)
    else:
        if not leave.retire:
            confine_outdated(draft, slots)
        roll(draft, slots, leave)
    if leave.failed:
        drop_replaced(draft, draft.deployments[primary])
    elif before is None:
        conclude(draft, slots, primary)
        if draft.deployments[primary].rollout is RolloutState.COMPLETED:
            give_up_outdated(draft, primary)


def _before(draft: Draft, primary: DeploymentRecord) -> DeploymentRecord | None:
    """Return the deployment that is kept up in place of PRIMARY; None if none is.

    That is while a hook holds PRIMARY before its first start, which may take a day, and once PRIMARY has failed and
    wasn't rolled back: what dies of the deployment before it is replaced as if PRIMARY hadn't begun.
    """
    held = primary.rollout is RolloutState.IN_PROGRESS and primary.lifecycle_stage in hooks.BEFORE_STARTING
    if not (held or primary.rollout is RolloutState.FAILED) or len(draft.service.deployments) < 2:
        return None
    before = draft.deployments.get(draft.service.deployments[1])
    return before if before is not None and is_proven(before, draft.service.desired_count) else None


def _keep_up(draft: Draft, before: DeploymentRecord, primary: str) -> None:
    """Fill the places of the deployment before PRIMARY, less those that healthy tasks of PRIMARY fill."""
    slots = _slots(draft, before.id)
    serving = draft.healthy_of(primary)
    if not slots.one_per_host:
        slots.gaps = slots.gaps[serving:]
    roll(draft, slots, Leave(start=draft.backed_off(before), retire=False))


def _judge(draft: Draft, deployment: DeploymentRecord) -> None:
    """End the deployment if anything says that it should."""
    healthy = draft.healthy_of(deployment.id)
    if not judge_requests(draft, deployment):
        judge_failures(draft, deployment, waiting=hooks.waiting(deployment), healthy=healthy)


def _slots(draft: Draft, primary: str) -> Slots:
    if draft.service.scheduling_strategy == "DAEMON":
        return daemon_slots(draft, owner=primary)
    return replica_slots(draft, owner=primary, desired=draft.service.desired_count, tasks=draft.present())


def _leave(draft: Draft, slots: Slots, deployment: DeploymentRecord) -> Leave:
    """Return what the deployment may do now, by its state, its backoff and its hooks."""
    if deployment.rollout is RolloutState.FAILED:
        return Leave(start=False, retire=False, failed=True)
    start = retire = True
    if deployment.rollout is RolloutState.IN_PROGRESS:
        start = not hooks.hook_holds(draft, deployment.id, hooks.BEFORE_STARTING)
        retire = start
        if start and hooks.configured(draft, deployment, hooks.BEFORE_RETIRING):
            scaled_up = not slots.gaps and not slots.prepared and all(map(draft.healthy, slots.kept))
            retire = scaled_up and not hooks.hook_holds(draft, deployment.id, hooks.BEFORE_RETIRING)
    failed = draft.deployments[deployment.id].rollout is RolloutState.FAILED
    return Leave(
        start=start and not failed and draft.backed_off(deployment),
        retire=retire and not failed,
        failed=failed,
    )
