"""Every text that a user sees as the reason of a stop or of a container's state, in one place.

Names and wording are those of ECS and its agent where it has them, since people search and alarm on them. A container's
reason is `Name: text`. Reasons are cut at REASON_MAX_LENGTH, as ECS does; the first terminal reason wins.
"""

from typing import Final

__all__ = [
    "CANNOT_CREATE",
    "CANNOT_CREATE_VOLUME",
    "CANNOT_PULL",
    "CANNOT_START",
    "CONTAINER_VANISHED",
    "DEPENDENCY_ERROR",
    "DEREGISTERED_BY_FORCE",
    "DOCKER_TIMEOUT",
    "DRAINING",
    "ESSENTIAL_EXITED",
    "EXCLUSIVE_REPLACED",
    "FAILED_HEALTH_CHECKS",
    "HOST_LOST",
    "ISOLATED",
    "ISOLATED_UNKNOWN",
    "LOST_WHEN_ISOLATED",
    "NOT_HEALTHY_IN_TIME",
    "NO_LONGER_ASSIGNED",
    "OUT_OF_MEMORY",
    "REASON_MAX_LENGTH",
    "RECORD_LOST",
    "REPLACED_WHILE_LOST",
    "RESOURCE_ERROR",
    "RETRIED_WHILE_LOST",
    "SCALING",
    "START_TIMED_OUT",
    "STOPPED_BEFORE_PULL",
    "STOPPED_BY_USER",
    "TASK_STATE_ERROR",
    "TIMED_OUT",
    "WAIT_TIMED_OUT",
    "named",
    "trim",
]

REASON_MAX_LENGTH: Final = 1024

ESSENTIAL_EXITED: Final = "Essential container in task exited"
SCALING: Final = "Scaling activity initiated by (deployment {deployment})"
FAILED_HEALTH_CHECKS: Final = "Task failed container health checks"
NOT_HEALTHY_IN_TIME: Final = "Task failed to become healthy within {seconds:.0f} seconds"
DRAINING: Final = "The container instance is DRAINING; the service scheduler stopped the task there"
REPLACED_WHILE_LOST: Final = (
    "The container instance could not be reached for longer than the service's lost-after time; the task was replaced"
)
STOPPED_BY_USER: Final = "Task stopped by user"
TIMED_OUT: Final = "The task ran for longer than {limit_s} s, the limit of its tag homeport:timeout"
START_TIMED_OUT: Final = (
    "The task wasn't running {limit_s} s after it was placed, the limit of its tag homeport:start-timeout"
)
WAIT_TIMED_OUT: Final = "The task found no place within {limit_s} s, the limit of its tag homeport:wait-timeout"
EXCLUSIVE_REPLACED: Final = (
    "A newer task of the exclusive group {group} takes its place: homeport:exclusive-policy was replace"
)
LOST_WHEN_ISOLATED: Final = (
    "The container instance has not been heard of for {lost_after_s} s (homeport:lost-after), so its agent has stopped"
    " the task (homeport:stop-when-isolated)"
)
RETRIED_WHILE_LOST: Final = (
    "The container instance has not been heard of for {lost_after_s} s (homeport:lost-after); the task is run again as"
    " task {retry}, and this one stops when its host is back"
)
DEREGISTERED_BY_FORCE: Final = "Container instance deregistration forced by user"
HOST_LOST: Final = "The container instance has not been heard of since {since}; the task is given up as lost"
ISOLATED: Final = (
    "The host could not reach the control plane for {silent_s} s; the task was stopped there, as at most one of it may "
    "run (homeport:stop-when-isolated)"
)
ISOLATED_UNKNOWN: Final = (
    "The host can't tell when it last reached the control plane; the task was stopped there, as at most one of it may "
    "run (homeport:stop-when-isolated)"
)

OUT_OF_MEMORY: Final = "OutOfMemoryError: Container killed due to memory usage"
CONTAINER_VANISHED: Final = "ContainerVanishedError: No container matching saved ID found"
TASK_STATE_ERROR: Final = "TaskStateError: Agent could not progress task's state to stopped"
RECORD_LOST: Final = (
    "The host's agent has no record of this task, and its containers are gone: the agent's data directory was lost or "
    "replaced. The task isn't run a second time"
)
NO_LONGER_ASSIGNED: Final = "The control plane no longer assigns this task to the host"

# Names of errors, to be used with `named`.
CANNOT_PULL: Final = "CannotPullContainerError"
CANNOT_CREATE: Final = "CannotCreateContainerError"
CANNOT_START: Final = "CannotStartContainerError"
CANNOT_CREATE_VOLUME: Final = "CannotCreateVolumeError"
DEPENDENCY_ERROR: Final = "TaskDependencyError"
DOCKER_TIMEOUT: Final = "DockerTimeoutError"
RESOURCE_ERROR: Final = "ResourceInitializationError"
STOPPED_BEFORE_PULL: Final = (
    "TaskStoppedBeforePullBeginError: Task stopped before image pull could begin for task: {task_arn}"
)


def trim(text: str) -> str:
    """Cut a reason to the length ECS allows."""
    return text if len(text) <= REASON_MAX_LENGTH else text[: REASON_MAX_LENGTH - 1] + "…"


def named(name: str, text: str) -> str:
    """Render an error as ECS's agent does: `CannotPullContainerError: text`."""
    return trim(f"{name}: {text}")
