"""What has become of tasks since the last look: ends are settled, the newly healthy marked, and counted.

Each end is settled once, in the same decision as the deployment's or task set's count of it, so that neither can be
without the other.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census, failures
from controlplane.services.deciding.backoff import delay_s
from controlplane.services.deciding.bounds import breaker_of
from controlplane.services.deciding.draft import Draft
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, TaskSetRecord
from homeport.status import HealthStatus, TaskStatus

__all__ = ["IMPAIRED", "mark_healthy", "settle_ended"]

Owner = TypeVar("Owner", bound=DeploymentRecord | TaskSetRecord)

IMPAIRED = (
    "is unable to consistently start tasks successfully. For more information, see the Troubleshooting section of the "
    "Amazon ECS Developer Guide."
)


def settle_ended(draft: Draft, slots: dict[str, int]) -> None:
    """Settle all ended tasks. `slots`: deployment or task set -> how many tasks it should have, for its backoff."""
    for task in draft.select(census.is_stopped):
        owner = draft.deployments.get(task.started_by) or draft.task_sets.get(task.started_by)
        if owner is not None and failures.failed(task, draft.timing.min_healthy_s):
            _count_failure(draft, owner, task, slots.get(owner.id, 1))
        elif owner is not None and failures.short_lived(task):
            _put(draft, _delayed(draft, owner, slots.get(owner.id, 1)))
        draft.settle(task)


def mark_healthy(draft: Draft) -> None:
    """Mark the tasks that have become healthy, and ask to be woken when the next may count as healthy.

    A silent host's tasks wait: nothing is known of them.
    """
    healthy: defaultdict[str, list[TaskRecord]] = defaultdict(list)
    for task in draft.present():
        if task.status is not TaskStatus.RUNNING or not census.is_live(task):
            continue
        if task.healthy_at is not None:
            _end_delays(draft, task)
            continue
        host = draft.host(task)
        if host.verdict is not HostVerdict.CONNECTED or not host.heard_out:
            continue
        if census.has_check(task):
            at = draft.now if task.health is HealthStatus.HEALTHY else None
        else:
            began_at, wait_s = task.running_at or task.created_at, draft.timing.min_healthy_s
            at = min(began_at + wait_s, draft.now) if draft.elapsed(began_at, wait_s) else None
        if at is not None:
            draft.mark_healthy(task, at)
            healthy[task.started_by].append(task)
    for owner, tasks in healthy.items():
        _count_successes(draft, owner, tasks)


def _delayed(draft: Draft, owner: Owner, desired: int) -> Owner:
    """Return the owner with one more failure in a row, and with the time before which nothing more is started."""
    count = owner.failed_tasks + 1
    delay = delay_s(count, desired, draft.timing.max_backoff_s)
    if delay and not delay_s(owner.failed_tasks, desired, draft.timing.max_backoff_s):
        draft.say(ServiceEvent.TASK_START_IMPAIRED, IMPAIRED)
    return replace(owner, failed_tasks=count, failed_at=draft.now, retry_at=draft.now + delay if delay else None)


def _put(draft: Draft, owner: DeploymentRecord | TaskSetRecord) -> None:
    if isinstance(owner, TaskSetRecord):
        draft.put_task_set(owner)
    else:
        draft.put(owner)


def _count_failure(draft: Draft, owner: DeploymentRecord | TaskSetRecord, task: TaskRecord, desired: int) -> None:
    """Note a failure in the deployment or task set it belongs to."""
    if isinstance(owner, TaskSetRecord):
        draft.put_task_set(_delayed(draft, owner, desired))
        return
    owner = _delayed(draft, owner, desired)
    hopeless = failures.hopeless(task) if owner.healthy_tasks == 0 else None
    host = str(task.instance_id or "")
    draft.put(
        replace(
            owner,
            breaker_failures=owner.breaker_failures + 1,
            last_failure=failures.describe(task),
            hopeless={**owner.hopeless, host: hopeless} if hopeless else owner.hopeless,
            host_failures={**owner.host_failures, host: owner.host_failures.get(host, 0) + 1},
        )
    )


def _count_successes(draft: Draft, owner: str, tasks: Sequence[TaskRecord]) -> None:
    """Tasks have become healthy, which the circuit breaker counts; delays end only once they have lasted, too."""
    deployment = draft.deployments.get(owner)
    if deployment is not None:
        failures_left = deployment.breaker_failures
        if failures_left and breaker_of(draft.service, draft.service.desired_count).reset_on_healthy:
            failures_left = 0
        hosts = {str(task.instance_id or "") for task in tasks}
        draft.put(
            replace(
                deployment,
                breaker_failures=failures_left,
                hopeless={},
                host_failures={h: n for h, n in deployment.host_failures.items() if h not in hosts},
                healthy_tasks=deployment.healthy_tasks + len(tasks),
                progressed_at=draft.now,
            )
        )
    for task in tasks:
        _end_delays(draft, task)


def _end_delays(draft: Draft, task: TaskRecord) -> None:
    """A healthy task that began after the last failure and has lasted ends the delays; ask to be woken when it has.

    One that has run since before says nothing of those that fail beside it.
    """
    owner = draft.deployments.get(task.started_by) or draft.task_sets.get(task.started_by)
    began_at = task.running_at or task.created_at
    if owner is None or not owner.failed_tasks or began_at < (owner.failed_at or 0.0) <= draft.now:
        return
    if draft.elapsed(began_at, failures.LASTED_S):
        _put(draft, replace(owner, failed_tasks=0, failed_at=None, retry_at=None))
