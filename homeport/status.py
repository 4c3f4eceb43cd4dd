"""The states of tasks and containers, and who may move a task along which edge.

Statuses are ordered: the greater one always wins, so a late or repeated report can never move a task backwards.
The gaps leave room for states between. Names are those of ECS (`lastStatus`, `desiredStatus`); container states
below RUNNING are finer than ECS's and rendered as PENDING at its edge.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from homeport.errors import IllegalTransition

__all__ = [
    "TASK_EDGES",
    "Actor",
    "ContainerStatus",
    "DesiredStatus",
    "HealthStatus",
    "StopCode",
    "TaskStatus",
    "check_edge",
]


class TaskStatus(IntEnum):
    """A task's `lastStatus`, in the order ECS documents for the task life cycle."""

    PROVISIONING = 0  #: accepted, no host chosen yet
    PENDING = 64  #: a host is chosen; its agent pulls and creates
    ACTIVATING = 128  #: running, not yet entered into load balancers and discovery
    RUNNING = 192
    DEACTIVATING = 256  #: being taken out of load balancers and discovery
    STOPPING = 320  #: its containers are being stopped
    DEPROVISIONING = 384
    STOPPED = 512


class DesiredStatus(IntEnum):
    """A task's `desiredStatus`. Only the control plane raises it."""

    PENDING = 64  #: pull and create, but do not start yet
    RUNNING = 192
    STOPPED = 512


class ContainerStatus(IntEnum):
    """How far one container has come on its host."""

    PENDING = 0
    PULLED = 64
    CREATED = 128
    RUNNING = 192
    STOPPED = 512

    @property
    def ecs_name(self) -> str:
        """The container's `lastStatus` as ECS spells it: PENDING, RUNNING or STOPPED."""
        return "PENDING" if self < ContainerStatus.RUNNING else self.name


class HealthStatus(StrEnum):
    """Result of container health checks (`healthStatus`)."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    UNKNOWN = "UNKNOWN"


class StopCode(StrEnum):
    """`TaskStopCode` of the ECS model."""

    TASK_FAILED_TO_START = "TaskFailedToStart"
    ESSENTIAL_CONTAINER_EXITED = "EssentialContainerExited"
    USER_INITIATED = "UserInitiated"
    SERVICE_SCHEDULER_INITIATED = "ServiceSchedulerInitiated"
    SPOT_INTERRUPTION = "SpotInterruption"
    TERMINATION_NOTICE = "TerminationNotice"


class Actor(StrEnum):
    """Who moves a task. Each edge of the state table has exactly one owner."""

    API = "api"
    SCHEDULER = "scheduler"
    AGENT = "agent"
    LIVENESS = "liveness"  #: gives a task up with its host (lost, or deregistered by force)


#: (from, to) -> owner. Whatever isn't here is illegal. LIVENESS alone may, in addition, stop any task that isn't
#: STOPPED: it is the one that speaks for a host which can no longer speak for itself.
TASK_EDGES: Final[Mapping[tuple[TaskStatus, TaskStatus], Actor]] = MappingProxyType(
    {
        (TaskStatus.PROVISIONING, TaskStatus.PENDING): Actor.SCHEDULER,
        (TaskStatus.PROVISIONING, TaskStatus.STOPPED): Actor.API,
        **{
            (start, end): Actor.AGENT for start in TaskStatus for end in TaskStatus if TaskStatus.PENDING <= start < end
        },
    }
)


def check_edge(current: TaskStatus, new: TaskStatus, actor: Actor) -> None:
    """Raise IllegalTransition unless `actor` owns the edge from `current` to `new`."""
    if actor is Actor.LIVENESS and current < new == TaskStatus.STOPPED:
        return
    owner = TASK_EDGES.get((current, new))
    if owner is not actor:
        raise IllegalTransition(f"{actor} may not move a task from {current.name} to {new.name}")
