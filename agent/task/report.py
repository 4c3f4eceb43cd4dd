"""What the control plane is told of a task: its state as a report, complete in itself."""

from agent.task.model import ContainerState, TaskState
from homeport.protocol import ContainerReport, TaskReport
from homeport.status import ContainerStatus, TaskStatus

__all__ = ["report_of"]


def report_of(state: TaskState) -> TaskReport:
    """Return the report of a state: cumulative, with the story lines that are not acknowledged yet."""
    return TaskReport(
        task_id=state.task_id,
        seq=state.seq,
        status=state.status,
        containers=tuple(_container(state, c) for c in state.containers),
        pull_started_at=state.pull_started_at,
        pull_stopped_at=state.pull_stopped_at,
        started_at=state.started_at,
        stopping_at=state.stopping_at if state.status >= TaskStatus.STOPPING else None,
        execution_stopped_at=state.execution_stopped_at,
        stopped_at=state.stopped_at,
        stop_code=state.stop_code,
        stopped_reason=state.stopped_reason,
        story=state.story,
    )


def _container(state: TaskState, c: ContainerState) -> ContainerReport:
    stopped = c.known is ContainerStatus.STOPPED
    return ContainerReport(
        name=c.name,
        status=c.known,
        runtime_id=c.runtime_id,
        image_digest=c.image_digest,
        # A container that is being restarted counts as running: what it exited with last is in the story.
        exit_code=c.exit_code if stopped else None,
        reason=c.reason,
        bindings=c.bindings,
        health=c.health,
        started_at=c.started_at,
        finished_at=c.finished_at if stopped else None,
        restart_count=c.restart_count,
        gpu_ids=state.gpus_of(c.name),
    )
