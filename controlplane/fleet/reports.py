"""What an agent reports of a task, applied to the task's record: a command, in one transaction, safe to repeat.

What always holds:
 - a status only advances (`check_edge`, as Actor.AGENT); what is less than the known one is passed over;
 - the first terminal reason and stop code win: StopTask's UserInitiated stays, whatever the agent reports afterwards;
 - a report whose `seq` has been applied does nothing, so an agent may repeat everything;
 - a host speaks for its own tasks only;
 - resources are held until the task is STOPPED, which is what frees them.
"""

from typing import Final

import structlog
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import SERVICE_GROUP
from controlplane.state.state import Transaction
from homeport.ids import InstanceId
from homeport.protocol import ContainerReport, TaskReport
from homeport.reasons import trim
from homeport.status import Actor, DesiredStatus, TaskStatus, check_edge

__all__ = ["apply_report"]

_log: Final = structlog.get_logger(__name__)


def apply_report(context: Context, instance_id: InstanceId, report: TaskReport) -> bool:
    """Apply what the host `instance_id` says of one of its tasks. Tell whether the report was new and was taken.

    False for a repeated report, a task that is not known (any more) and, logged, a task of another host: such a report
    only needs its ack. Never raises for what an agent may send.
    """
    state = context.state
    task = state.tasks.get(report.task_id)
    if task is None:
        return False
    if task.instance_id != instance_id:
        _log.warning(
            "report refused: the task is not on this host",
            instance=instance_id,
            task=report.task_id,
            host_of_task=task.instance_id,
        )
        return False
    if report.seq <= task.reported_seq:
        return False
    with state.transaction() as transaction:
        _tell(transaction, task, report, state.instances.get(instance_id))
        transaction.put(_reported(task, report, context.clock.now()))
    return True


def _tell(transaction: Transaction, task: TaskRecord, report: TaskReport, instance: InstanceRecord | None) -> None:
    """Add the story lines that are new since the last report applied, under the host's own name."""
    host = None if instance is None else instance.facts.hostname
    for seq, line in report.story:
        if seq > task.reported_seq:
            told = replace(line, message=trim(line.message), event=line.event[:64], actor=Actor.AGENT.value, host=host)
            transaction.tell(task.id, told)


def _reported(task: TaskRecord, report: TaskReport, now: float) -> TaskRecord:
    """Return the record with the report in it; its version is raised if anything can be seen to have changed."""
    if task.status is TaskStatus.STOPPED and report.status is not TaskStatus.STOPPED:
        # Given up earlier. Nothing follows STOPPED, but the true end, should it come, is filled in below.
        return replace(task, reported_seq=report.seq)
    status = max(task.status, report.status)
    if status is not task.status:
        check_edge(task.status, status, Actor.AGENT)
    reason, code = task.stopped_reason, task.stop_code
    if reason is None and code is None:
        reason, code = report.stopped_reason and trim(report.stopped_reason), report.stop_code
    reported = replace(
        task,
        status=status,
        # A task on its way down never comes up again, whoever began it; ECS shows it as desired STOPPED.
        desired=DesiredStatus.STOPPED if status > TaskStatus.RUNNING else task.desired,
        containers=_containers(task, report) or task.containers,
        pull_started_at=_first_given(report.pull_started_at, task.pull_started_at),
        pull_stopped_at=_first_given(report.pull_stopped_at, task.pull_stopped_at),
        started_at=_first_given(report.started_at, task.started_at),
        stopping_at=_first_given(task.stopping_at, report.stopping_at),
        execution_stopped_at=_first_given(task.execution_stopped_at, report.execution_stopped_at),
        stopped_at=_first_given(task.stopped_at, report.stopped_at, now if status is TaskStatus.STOPPED else None),
        running_at=_running_at(task, status, now),
        stop_code=code,
        stopped_reason=reason,
    )
    version = task.version if reported == task else task.version + 1
    return replace(reported, reported_seq=report.seq, version=version)


def _running_at(task: TaskRecord, status: TaskStatus, now: float) -> float | None:
    """Note when a task was first seen to run: by our clock, since what follows a time after it is ours to begin.

    Only where something follows: for a service it begins to count as healthy, for others a limit in their tags.
    """
    if task.running_at is None and status is TaskStatus.RUNNING:
        return now if task.order is not None or task.group.startswith(SERVICE_GROUP) else None
    return task.running_at


def _containers(task: TaskRecord, report: TaskReport) -> tuple[ContainerReport, ...]:
    """Return what is reported of the task's own containers."""
    names = {container.name for container in task.spec.containers}
    return tuple(_trimmed(container) for container in report.containers if container.name in names)


def _trimmed(container: ContainerReport) -> ContainerReport:
    return container if container.reason is None else replace(container, reason=trim(container.reason))


def _first_given(*times: float | None) -> float | None:
    for time in times:
        if time is not None:
            return time
    return None
