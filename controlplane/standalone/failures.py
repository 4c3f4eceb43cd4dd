"""Whether a task that has STOPPED failed, whether another attempt may do better, and whether its host is to blame."""

from typing import Final

import msgspec

from controlplane.state.records import TaskRecord
from homeport.protocol import ContainerReport
from homeport.reasons import (
    CANNOT_CREATE,
    CANNOT_PULL,
    CANNOT_START,
    CONTAINER_VANISHED,
    DEPENDENCY_ERROR,
    DEREGISTERED_BY_FORCE,
    OUT_OF_MEMORY,
    RECORD_LOST,
)
from homeport.status import ContainerStatus, StopCode

__all__ = ["Failure", "failure_of"]

#: What the registry or the Engine says (after these names of errors) when another try would end the same way.
_HOPELESS: Final = {
    CANNOT_PULL: (
        "manifest unknown",
        "not found",
        "access denied",
        "unauthorized",
        "no basic auth credentials",
        "invalid reference format",
        "no matching manifest",
        "repository does not exist",
        "no such image",
    ),
    CANNOT_CREATE: ("no command specified", "invalid reference format", "no such image", "invalid argument"),
    CANNOT_START: (
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "is a directory",
        "exec format error",
        "unable to find user",
    ),
    DEPENDENCY_ERROR: ("",),
}
#: Ends that the host brought about, not what ran on it.
_OF_THE_HOST: Final = (CONTAINER_VANISHED, RECORD_LOST, DEREGISTERED_BY_FORCE)


class Failure(msgspec.Struct, frozen=True):
    """How a task failed."""

    why: str
    #: Another attempt would fail, too.
    hopeless: bool = False
    #: Another host might do better.
    of_host: bool = False


def failure_of(task: TaskRecord) -> Failure | None:
    """Return how a STOPPED task failed; None if it did its work, or was stopped on request.

    With several essential containers the one that ended first decides: the others are stopped because of it.
    """
    if task.stop_code is StopCode.USER_INITIATED:
        return None
    reason = task.stopped_reason or "It stopped without saying why"
    if task.stop_code is not StopCode.ESSENTIAL_CONTAINER_EXITED:
        return Failure(reason, hopeless=_hopeless(task), of_host=not _hopeless(task))
    first = _first_ended(task)
    if first is None or first.exit_code is None:
        return Failure(reason, of_host=reason in _OF_THE_HOST)
    if first.exit_code == 0:
        return None
    because = f": {first.reason}" if first.reason else ""
    memory = (first.reason or "").startswith(OUT_OF_MEMORY)
    return Failure(f"{first.name} exited with code {first.exit_code}{because if memory else ''}")


def _hopeless(task: TaskRecord) -> bool:
    texts = [task.stopped_reason or "", *(container.reason or "" for container in task.containers)]
    return any(
        text.startswith(f"{name}:") and any(part in text.lower() for part in parts)
        for text in texts
        for name, parts in _HOPELESS.items()
    )


def _first_ended(task: TaskRecord) -> ContainerReport | None:
    essential = {container.name for container in task.spec.containers if container.essential}
    ended = [c for c in task.containers if c.name in essential and c.status is ContainerStatus.STOPPED]
    never = float("inf")
    return min(ended, key=lambda c: never if c.finished_at is None else c.finished_at, default=None)
