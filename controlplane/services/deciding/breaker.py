"""The end of a deployment that doesn't succeed, and the rollback that may follow it.

A deployment fails when the circuit breaker's threshold is reached; at once, breaker or not, when its tasks fail in a
way that no further try can heal; when it makes no progress for too long (breaker only); or when somebody stops it. A
deployment that has failed starts nothing more; what is healthy stays. A rollback is never rolled back.
"""

from typing import Final

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import Breaker, breaker_of
from controlplane.services.deciding.draft import Draft
from controlplane.services.deployments import begin_deployment
from controlplane.state.service_records import DeploymentRecord, RolloutState, ServiceDeploymentStatus

__all__ = ["BREAKER", "NO_CANDIDATE", "fail", "judge_failures", "judge_requests", "rolled_back"]

BREAKER: Final = "ECS deployment circuit breaker: "
TASKS_FAILED: Final = "tasks failed to start."
NO_CANDIDATE: Final = "No rollback candidate was found to run the rollback."
#: Hosts on which a hopeless failure must have been seen, where there are as many: one host alone may be at fault.
_WITNESSES: Final = 2
#: A progress deadline that passed so many seconds ago passed unseen: all was well then, or the control plane was down.
#: Neither is the tasks' fault, and their time begins anew.
_UNSEEN_S: Final = 60.0


def judge_requests(draft: Draft, deployment: DeploymentRecord) -> bool:
    """Obey StopServiceDeployment and ContinueServiceDeployment's ROLLBACK. Return whether the deployment has ended."""
    match deployment.status:
        case ServiceDeploymentStatus.STOP_REQUESTED:
            why = "Service deployment stopped by the user."
            fail(draft, deployment, reason=f"ECS deployment {deployment.id} stopped by the user.", why=why)
            return True
        case ServiceDeploymentStatus.ROLLBACK_REQUESTED:
            reason = f"ECS deployment {deployment.id} stopped by the user."
            fail(draft, deployment, reason=reason, why="Rollback requested by the user.", rollback=True)
            return True
    return False


def judge_failures(draft: Draft, deployment: DeploymentRecord, *, waiting: bool, healthy: int) -> bool:
    """Fail the deployment if its tasks' failures, or its time, say so. Return whether it has ended.

    `waiting`: a lifecycle hook holds it, so its time doesn't run. `healthy`: its healthy tasks.
    """
    desired = draft.service.desired_count
    breaker = breaker_of(draft.service, desired)
    rollback = breaker.enabled and breaker.rollback
    witnesses = max(1, min(_WITNESSES, draft.snapshot.usable_hosts))
    # A rollback may have healthy tasks that it took over, without any having become so.
    if deployment.healthy_tasks == 0 == healthy and len(deployment.hopeless) >= witnesses:
        why = f"tasks failed to start, and would again. {next(reversed(deployment.hopeless.values()))}"
        reason = f"{BREAKER}{TASKS_FAILED}" if breaker.enabled else f"ECS deployment failed: {why}"
        fail(draft, deployment, reason=reason, why=why, rollback=rollback)
        return True
    if breaker.enabled and deployment.breaker_failures >= breaker.threshold:
        why = f"{TASKS_FAILED} Last failure: {deployment.last_failure}"
        fail(draft, deployment, reason=f"{BREAKER}{TASKS_FAILED}", why=why, rollback=rollback)
        return True
    if waiting or healthy >= desired:
        return False
    return _judge_progress(draft, deployment, breaker, healthy)


def _judge_progress(draft: Draft, deployment: DeploymentRecord, breaker: Breaker, healthy: int) -> bool:
    """Fail a deployment that makes no progress; without the breaker, only say so, once per deadline."""
    deadline_s = draft.timing.progress_deadline_s
    since = max(deployment.progressed_at, deployment.created_at, deployment.warned_at.get("progress", 0.0))
    if draft.now >= since + deadline_s + _UNSEEN_S:
        draft.put(replace(deployment, progressed_at=draft.now))
        since = draft.now
    draft.wake(since + deadline_s)
    if draft.now < since + deadline_s:
        return False
    why = f"no task has become healthy for {deadline_s:.0f} seconds. {_waits_for(draft, deployment, healthy)}"
    if breaker.enabled:
        fail(draft, deployment, reason=f"{BREAKER}{why}", why=why, rollback=breaker.rollback)
        return True
    draft.put(replace(deployment, warned_at={**deployment.warned_at, "progress": draft.now}))
    draft.say(ServiceEvent.DEPLOYMENT_NOT_PROGRESSING, f"(deployment {deployment.id}) is not progressing: {why}")
    draft.wake(draft.now + deadline_s)
    return False


def _waits_for(draft: Draft, deployment: DeploymentRecord, healthy: int) -> str:
    """Say what a deployment that makes no progress waits for."""
    missing = draft.service.desired_count - healthy
    blocked = draft.snapshot.blocked
    if blocked is not None and blocked.reasons:
        found = ", ".join(f"{reason} on {count} hosts" for reason, count in sorted(blocked.reasons.items()))
        return f"It waits for hosts for {missing} tasks: {found}."
    if deployment.last_failure:
        return f"It waits for {missing} tasks. Last failure: {deployment.last_failure}"
    return f"It waits for {missing} tasks to become healthy."


def fail(draft: Draft, deployment: DeploymentRecord, *, reason: str, why: str, rollback: bool = False) -> None:
    """End a deployment as FAILED and, where wanted and possible, begin its rollback.

    `reason`: the rolloutStateReason. `why`: the same for people, with the cause.
    """
    candidate = draft.snapshot.rollback_to
    begins = rollback and candidate is not None and not deployment.rollback_of
    status = ServiceDeploymentStatus.STOPPED
    if begins:
        status = ServiceDeploymentStatus.ROLLBACK_IN_PROGRESS
    elif rollback and not deployment.rollback_of:
        status = ServiceDeploymentStatus.ROLLBACK_FAILED
        why = f"{why} {NO_CANDIDATE}"
    failed = replace(
        deployment,
        rollout=RolloutState.FAILED,
        rollout_reason=reason,
        status=status,
        status_reason=why,
        updated_at=draft.now,
        retry_at=None,
        hooks=tuple(replace(h, status="FAILED") if h.status == "AWAITING_ACTION" else h for h in deployment.hooks),
        stopped_at=None if begins else draft.now,
        finished_at=None if begins else draft.now,
        rollback_at=draft.now if begins else None,
        rollback_reason=why if begins else "",
    )
    draft.put(failed)
    draft.say(None, f"(deployment {deployment.id}) deployment failed: {why}")
    if deployment.rollback_of:
        _finish_original(draft, deployment.rollback_of, ServiceDeploymentStatus.ROLLBACK_FAILED, why)
    if begins and candidate is not None:
        _roll_back(draft, failed, candidate.id)


def rolled_back(draft: Draft, rollback: DeploymentRecord) -> None:
    """A rollback is complete: so is what the service deployment that it undoes has to tell."""
    _finish_original(draft, rollback.rollback_of, ServiceDeploymentStatus.ROLLBACK_SUCCESSFUL, "")


def _roll_back(draft: Draft, failed: DeploymentRecord, revision: str) -> None:
    ids = draft.snapshot.ids
    live = tuple(draft.deployments[d] for d in draft.service.deployments if d in draft.deployments)
    service, changed = begin_deployment(
        draft.service,
        live,
        deployment_id=ids.deployment,
        arn_id=ids.arn,
        revision=revision,
        now=draft.now,
        rollback_of=failed.id,
    )
    draft.put_service(service)
    for record in changed:
        if record.id == ids.deployment:
            record = replace(record, rollout_reason=f"{BREAKER}rolling back to deploymentId {record.id}.")
        draft.put(record)
    draft.say(None, f"rolling back to deployment {ids.deployment}.")
    _adopt_what_runs(draft, revision, ids.deployment)
    draft.again()


def _adopt_what_runs(draft: Draft, revision: str, rollback: str) -> None:
    """Hand the tasks that run the revision already over to its rollback: nothing that works is started anew."""
    same = {d.id for d in draft.deployments.values() if d.revision == revision and d.id != rollback}
    for task in draft.select(lambda task: task.started_by in same and (census.is_live(task) or census.is_lost(task))):
        draft.adopt(task, rollback)


def _finish_original(draft: Draft, original: str, status: ServiceDeploymentStatus, why: str) -> None:
    record = draft.deployments.get(original)
    if record is not None and record.status is ServiceDeploymentStatus.ROLLBACK_IN_PROGRESS:
        draft.put(
            replace(
                record,
                status=status,
                status_reason=f"{record.rollback_reason} The rollback failed: {why}" if why else record.status_reason,
                finished_at=draft.now,
                updated_at=draft.now,
            )
        )
