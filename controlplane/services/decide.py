"""The service reconciler's decision: pure, from a snapshot of one service to what should be done now.

The order within a decision: what has become of tasks (ends, health, hosts that went or came), what that means for the
PRIMARY deployment (failed? rolled back?), what should be in the service's places, and whether all is done.
Deciding again on the result of acting decides nothing (invariant 8).
"""

from controlplane.services import census
from controlplane.services.breaker import judge_failures, judge_requests
from controlplane.services.completion import conclude
from controlplane.services.draft import Draft
from controlplane.services.model import Decision, Snapshot
from controlplane.services.presence import follow_hosts, give_up_outdated
from controlplane.services.rollout import Leave, roll
from controlplane.services.settling import mark_healthy, settle_ended
from controlplane.services.slots import Slots, replica_slots
from controlplane.state.service_records import DeploymentRecord, RolloutState

__all__ = ["decide"]


def decide(snapshot: Snapshot, now: float) -> Decision:
    """Return what to do about one service. `now`: epoch seconds."""
    draft = Draft(snapshot, now)
    settle_ended(draft, {d.id: draft.service.desired_count for d in snapshot.deployments})
    follow_hosts(draft)
    mark_healthy(draft)
    primary = draft.primary
    if primary is not None:
        _reconcile(draft, primary)
    return draft.decision()


def _reconcile(draft: Draft, primary: DeploymentRecord) -> None:
    """Bring the service to what its PRIMARY deployment says."""
    if primary.rollout is RolloutState.IN_PROGRESS:
        healthy = sum(draft.healthy(task) and task.started_by == primary.id for task in draft.tasks.values())
        ended = judge_requests(draft, primary) or judge_failures(draft, primary, waiting=False, healthy=healthy)
        if ended and draft.primary is not draft.deployments[primary.id]:
            return
        primary = draft.deployments[primary.id]
    slots = _slots(draft, primary)
    draft.wake(primary.retry_at)
    failed = primary.rollout is RolloutState.FAILED
    roll(draft, slots, Leave(start=not failed and (primary.retry_at or 0.0) <= draft.now, failed=failed))
    if not failed:
        conclude(draft, slots, draft.deployments[primary.id], held=False)
        if draft.deployments[primary.id].rollout is RolloutState.COMPLETED:
            give_up_outdated(draft, primary.id)


def _slots(draft: Draft, primary: DeploymentRecord) -> Slots:
    tasks = (task for task in draft.tasks.values() if not census.is_stopped(task))
    return replica_slots(draft, owner=primary.id, desired=draft.service.desired_count, tasks=tasks)
