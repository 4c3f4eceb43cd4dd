"""Every text that a user sees as the reason of a stop or of a container's state, in one place.

Names and wording are those of ECS and its agent where it has them, since people search and alarm on them. A container's
reason is `Name: text`. Reasons are cut at REASON_MAX_LENGTH, as ECS does; the first terminal reason wins.
"""

from typing import Final

__all__ = [
    "CONTAINER_VANISHED",
    "DEREGISTERED_BY_FORCE",
    "ESSENTIAL_EXITED",
    "HOST_LOST",
    "OUT_OF_MEMORY",
    "REASON_MAX_LENGTH",
    "STOPPED_BEFORE_PULL",
    "STOPPED_BY_USER",
    "named",
    "trim",
]

REASON_MAX_LENGTH: Final = 1024

ESSENTIAL_EXITED: Final = "Essential container in task exited"
STOPPED_BY_USER: Final = "Task stopped by user"
DEREGISTERED_BY_FORCE: Final = "Container instance deregistration forced by user"
HOST_LOST: Final = "The container instance has not been heard of since {since}; the task is given up as lost"

OUT_OF_MEMORY: Final = "OutOfMemoryError: Container killed due to memory usage"
CONTAINER_VANISHED: Final = "ContainerVanishedError: No container matching saved ID found"
STOPPED_BEFORE_PULL: Final = (
    "TaskStoppedBeforePullBeginError: Task stopped before image pull could begin for task: {task_arn}"
)


def trim(text: str) -> str:
    """Cut a reason to the length ECS allows."""
    return text if len(text) <= REASON_MAX_LENGTH else text[: REASON_MAX_LENGTH - 1] + "…"


def named(name: str, text: str) -> str:
    """Render an error as ECS's agent does: `CannotPullContainerError: text`."""
    return trim(f"{name}: {text}")
