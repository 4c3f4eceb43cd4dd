"""Asking for a task to be stopped: the record that results, whoever asks."""

from msgspec.structs import replace

from controlplane.state.records import TaskRecord
from homeport.reasons import trim
from homeport.status import Actor, DesiredStatus, StopCode, TaskStatus, check_edge

__all__ = ["asked_to_stop"]


def asked_to_stop(task: TaskRecord, reason: str, stop_code: StopCode | None, now: float) -> TaskRecord:
    """Return the task with desired STOPPED. A reason and stop code that it has already stay.

    One that no host knows of yet is STOPPED at once: there is nothing to wait for. That edge is the API's, since such
    a stop is always what a caller asked for, by StopTask or by a tag.
    """
    undecided = task.stop_code is None and task.stopped_reason is None
    stopping = replace(
        task,
        desired=DesiredStatus.STOPPED,
        stop_code=stop_code if undecided else task.stop_code,
        stopped_reason=trim(reason) if undecided else task.stopped_reason,
        stopping_at=task.stopping_at or now,
        version=task.version + 1,
    )
    if task.status is TaskStatus.PROVISIONING:
        check_edge(task.status, TaskStatus.STOPPED, Actor.API)
        stopping = replace(stopping, status=TaskStatus.STOPPED, stopped_at=now)
    return stopping
