"""Giving up the tasks of a host that can no longer speak for itself: deregistered by force, or lost for good."""

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.protocol import ContainerReport
from homeport.reasons import trim
from homeport.status import Actor, ContainerStatus, DesiredStatus, StopCode, TaskStatus, check_edge
from homeport.story import StoryLine

__all__ = ["give_up_tasks"]


def give_up_tasks(
    context: Context, instance: InstanceRecord, reason: str, stop_code: StopCode | None = None
) -> tuple[TaskRecord, ...]:
    """Make every task of the host STOPPED, as Actor.LIVENESS, and tell each story why. Return them as they are now.

    A reason and stop code that a task has already stay. Exit codes are not invented: containers become STOPPED without
    one, and if the host does come back and report the true end, that is filled in. Joins the caller's transaction.
    """
    state = context.state
    now = context.clock.now()
    given_up = []
    with state.transaction() as transaction:
        for phase in ("pending", "running"):
            for task in tuple(state.tasks.where("instance_phase", (instance.id, phase))):
                stopped = _stopped(task, trim(reason), stop_code, now)
                transaction.put(stopped)
                transaction.tell(
                    task.id,
                    StoryLine(
                        at=now,
                        event="stopped",
                        message=f"Given up: {reason}",
                        actor=Actor.LIVENESS.value,
                        host=instance.facts.hostname,
                    ),
                )
                given_up.append(stopped)
    return tuple(given_up)


def _stopped(task: TaskRecord, reason: str, stop_code: StopCode | None, now: float) -> TaskRecord:
    check_edge(task.status, TaskStatus.STOPPED, Actor.LIVENESS)
    undecided = task.stop_code is None and task.stopped_reason is None
    return replace(
        task,
        status=TaskStatus.STOPPED,
        desired=DesiredStatus.STOPPED,
        containers=tuple(_without_end(container) for container in task.containers),
        stopping_at=task.stopping_at or now,
        stopped_at=now,
        stop_code=stop_code if undecided else task.stop_code,
        stopped_reason=reason if undecided else task.stopped_reason,
        version=task.version + 1,
    )


def _without_end(container: ContainerReport) -> ContainerReport:
    if container.status is ContainerStatus.STOPPED:
        return container
    return replace(container, status=ContainerStatus.STOPPED, health=None)
