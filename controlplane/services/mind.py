"""What keeps a service from running what it should, in sentences: the scheduler's state of mind. Pure.

The first cause is the one to act on; the rest adds to it. Everything is read off the records that the reconciler keeps,
so what is said here is what it goes by.
"""

from collections.abc import Iterator, Sequence

import msgspec

from controlplane.services.deciding.backoff import next_try_at
from controlplane.services.deciding.census import is_live, is_lost, is_prepared, looks_healthy
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, RolloutState, ServiceRecord
from homeport.status import TaskStatus

__all__ = ["Mind", "mind_of"]


class Mind(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is. `sentence` says it in one; `causes` are all reasons found, the first one first."""

    sentence: str
    causes: tuple[str, ...]
    desired: int
    running: int
    healthy: int


def mind_of(
    service: ServiceRecord,
    deployments: Sequence[DeploymentRecord],
    tasks: Sequence[TaskRecord],
    *,
    now: float,
    no_host: str,
) -> Mind:
    """Say how a service is.

    `deployments`: the live ones, PRIMARY first. `tasks`: those whose end isn't settled. `no_host`: why no host would
    take one more task; "" if one would.
    """
    primary = deployments[0] if deployments else None
    live = [task for task in tasks if is_live(task)]
    new = [task for task in live if primary is None or task.started_by == primary.id]
    running = sum(task.status is TaskStatus.RUNNING for task in live)
    healthy = sum(looks_healthy(task) for task in live)
    desired = service.desired_count
    causes = tuple(_causes(service, primary, tasks, new, now=now, no_host=no_host))
    counts = {"desired": desired, "running": running, "healthy": healthy}
    count = "1 task" if desired == 1 else f"{desired} tasks"
    if service.status != "ACTIVE":
        sentence = f"{service.name} runs nothing new: {causes[0]}"
    elif healthy < desired and causes:
        sentence = f"{service.name} is not at its {count} ({healthy} healthy, {running} running): {causes[0]}"
    elif healthy < desired:
        sentence = f"{service.name} is not at its {count} ({healthy} healthy, {running} running) yet."
    elif causes:
        sentence = f"{service.name} runs its {count}, but its deployment isn't done: {causes[0]}"
    else:
        sentence = f"{service.name} runs its {count}; there is nothing to do."
    return Mind(sentence=sentence, causes=causes, **counts)


def _causes(
    service: ServiceRecord,
    primary: DeploymentRecord | None,
    tasks: Sequence[TaskRecord],
    new: Sequence[TaskRecord],
    *,
    now: float,
    no_host: str,
) -> Iterator[str]:
    if service.status == "DRAINING":
        yield "it was deleted, and its tasks are being stopped."
    elif service.status != "ACTIVE":
        yield "it was deleted."
    if primary is not None:
        yield from _of_deployment(primary, now)
    missing = service.desired_count - len(new)
    if service.status == "ACTIVE" and missing > 0:
        if no_host:
            yield f"for {_tasks(missing)} there is no host. {no_host}"
        elif primary is None or next_try_at(primary, now) is None:
            yield f"{_tasks(missing)} still to be started."
    yield from _of_tasks(primary, tasks, new)


def _of_deployment(primary: DeploymentRecord, now: float) -> Iterator[str]:
    for hook in primary.hooks:
        if hook.status == "AWAITING_ACTION":
            until = "" if hook.expires_at is None else f"; in {_seconds(hook.expires_at - now)} {hook.timeout_action}"
            yield (
                f"deployment {primary.id} is paused at {hook.stage} by its hook {hook.id}{until}. "
                "Go on with ContinueServiceDeployment."
            )
    if primary.rollout is RolloutState.FAILED:
        yield f"deployment {primary.id} FAILED: {primary.rollout_reason}{_last_failure(primary)}"
    if (retry_at := next_try_at(primary, now)) is not None:
        failed = f"{_tasks(primary.failed_tasks)} failed one after another"
        yield f"{failed}; the next is tried in {_seconds(retry_at - now)}.{_last_failure(primary)}"
    elif primary.rollout is RolloutState.IN_PROGRESS and primary.failed_tasks:
        yield f"{_tasks(primary.failed_tasks)} failed one after another.{_last_failure(primary)}"
    if primary.rollback_of and primary.rollout is RolloutState.IN_PROGRESS:
        yield f"deployment {primary.id} rolls {primary.rollback_of} back."


def _of_tasks(
    primary: DeploymentRecord | None, tasks: Sequence[TaskRecord], new: Sequence[TaskRecord]
) -> Iterator[str]:
    starting = sum(task.status < TaskStatus.RUNNING for task in new)
    if starting:
        yield f"{_tasks(starting)} on the way to RUNNING."
    waiting = sum(task.status is TaskStatus.RUNNING and not looks_healthy(task) for task in new)
    if waiting:
        yield f"{_tasks(waiting)} running, but not healthy yet."
    if prepared := sum(is_prepared(task) for task in tasks):
        yield f"{_tasks(prepared)} prepared, waiting for the place of an old one."
    if lost := sum(is_lost(task) for task in tasks):
        yield f"{_tasks(lost)} on hosts that have been silent for too long; replaced, and unknown until they return."
    if primary is not None and (old := sum(is_live(task) and task.started_by != primary.id for task in tasks)):
        yield f"{_tasks(old)} of earlier deployments still there."


def _last_failure(deployment: DeploymentRecord) -> str:
    return f" The last failure: {deployment.last_failure}" if deployment.last_failure else ""


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _seconds(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s"
