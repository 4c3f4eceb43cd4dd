"""Which ends of tasks are failures, and which failures no further try can heal.

The texts are those of registries, Docker and runc, as the agent passes them on behind the names of ECS's errors.
"""

import re
from typing import Final

from controlplane.services.deciding.census import has_check
from controlplane.state.records import TaskRecord
from homeport import reasons
from homeport.status import HealthStatus, StopCode

__all__ = ["LASTED_S", "describe", "failed", "hopeless", "short_lived"]

#: Seconds of RUNNING after which a task counts as one that lasts, so that what follows on it needn't be delayed.
LASTED_S: Final = 5.0

#: Ends that a task brings upon itself; others are asked for, or come with its host.
_BY_ITSELF: Final = frozenset({StopCode.TASK_FAILED_TO_START, StopCode.ESSENTIAL_CONTAINER_EXITED})
#: What our own stops of failing tasks begin with.
_STOPPED_FOR_FAILING: Final = (reasons.FAILED_HEALTH_CHECKS, reasons.NOT_HEALTHY_IN_TIME.split(" {")[0])
#: Error name -> what its text holds if another try won't help. A registry that is down or refuses credentials, a port
#: that is taken, memory that is short may all be mended without the service being told; a name that isn't there won't.
_HOPELESS: Final = {
    reasons.CANNOT_PULL: re.compile(
        r"manifest unknown|manifest for .* not found|no matching manifest|: not found|repository does not exist"
        r"|repository \S+ not found|name unknown|invalid reference format|no such image",
        re.IGNORECASE,
    ),
    reasons.CANNOT_CREATE: re.compile(
        r"no such image|no command specified|invalid reference format|executable file not found", re.IGNORECASE
    ),
    reasons.CANNOT_START: re.compile(
        r"executable file not found|exec: .*no such file or directory|exec: .*permission denied|exec format error"
        r"|exec: .*is a directory|unable to find user",
        re.IGNORECASE,
    ),
}


def failed(task: TaskRecord, min_healthy_s: float) -> bool:
    """Whether a stopped task counts as failed: it ended by itself, or for its health, without having been of use.

    One that was healthy once and exits later has merely ended: it is replaced, as in ECS, and counts for nothing.
    """
    if (task.stopped_reason or "").startswith(_STOPPED_FOR_FAILING):
        return True
    # Not by what is desired: that is STOPPED of every task that has begun to end. The first stop code stays.
    if task.stop_code not in _BY_ITSELF:
        return False
    return not _was_healthy(task, min_healthy_s) or task.health is HealthStatus.UNHEALTHY


def short_lived(task: TaskRecord) -> bool:
    """Whether a stopped task ended by itself before it had lasted, healthy or not: such ones mustn't follow at once."""
    ended_at = task.execution_stopped_at or task.stopped_at
    if task.stop_code not in _BY_ITSELF or task.started_at is None or ended_at is None:
        return False
    return ended_at - task.started_at < LASTED_S


def hopeless(task: TaskRecord) -> str | None:
    """Return the reason why a failed task can't be started on its host, however often it is tried; None if it may."""
    for text in (*(report.reason or "" for report in task.containers), task.stopped_reason or ""):
        name, _, rest = text.partition(": ")
        pattern = _HOPELESS.get(name)
        if pattern is not None and pattern.search(f": {rest}"):
            return text
    return None


def describe(task: TaskRecord) -> str:
    """Return why a task failed, in one line fit for a reason: the container's own reason or exit code where known."""
    for report in task.containers:
        if report.reason and report.reason != task.stopped_reason:
            return reasons.trim(f"{task.stopped_reason or 'Task stopped'} ({report.name}: {report.reason})")
    for report in task.containers:
        if report.exit_code is not None:
            return f"{task.stopped_reason or 'Task stopped'} ({report.name}: exit code {report.exit_code})"
    return task.stopped_reason or "Task stopped"


def _was_healthy(task: TaskRecord, min_healthy_s: float) -> bool:
    """Whether it was healthy, though its end may have come in the same report."""
    if task.healthy_at is not None:
        return True
    ended_at = task.execution_stopped_at or task.stopped_at
    if has_check(task) or task.started_at is None or ended_at is None:
        return False
    return ended_at - task.started_at >= min_healthy_s
