"""Whether a task that has STOPPED failed, whether another attempt may do better, and whether its host is to blame."""

from typing import Final

import msgspec

from controlplane.services.deciding.failures import hopeless
from controlplane.state.records import TaskRecord
from homeport.protocol import ContainerReport
from homeport.reasons import CONTAINER_VANISHED, DEPENDENCY_ERROR, DEREGISTERED_BY_FORCE, OUT_OF_MEMORY, RECORD_LOST
from homeport.status import ContainerStatus, StopCode

__all__ = ["Failure", "failure_of"]

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
        beyond_help = _hopeless(task)
        return Failure(reason, hopeless=beyond_help, of_host=not beyond_help)
    first = _first_ended(task)
    if first is None or first.exit_code is None:
        return Failure(reason, of_host=reason in _OF_THE_HOST)
    if first.exit_code == 0:
        return None
    because = f": {first.reason}" if first.reason else ""
    memory = (first.reason or "").startswith(OUT_OF_MEMORY)
    return Failure(f"{first.name} exited with code {first.exit_code}{because if memory else ''}")


def _hopeless(task: TaskRecord) -> bool:
    return hopeless(task) is not None or (task.stopped_reason or "").startswith(f"{DEPENDENCY_ERROR}:")


def _first_ended(task: TaskRecord) -> ContainerReport | None:
    essential = {container.name for container in task.spec.containers if container.essential}
    ended = [c for c in task.containers if c.name in essential and c.status is ContainerStatus.STOPPED]
    never = float("inf")
    return min(ended, key=lambda c: never if c.finished_at is None else c.finished_at, default=None)
