"""What an agent knows of one task: immutable values, owned by the task's runner, kept in the journal.

Three things are kept apart for every container, as the ECS agent does: what is *known* (only ever advances), what is
*applied* (the verb in flight, at most one) and what is *desired* (the task's desired status, which only advances too).
What is known to run or to have ended is known from inspecting the container, never from a call's having returned.
"""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from homeport.ids import TaskId
from homeport.protocol import Assignment, NetworkBinding
from homeport.spec import ContainerSpec, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from homeport.story import StoryLine

__all__ = [
    "MAX_UNACKED_STORY",
    "ContainerState",
    "Provision",
    "TaskState",
    "Verb",
    "accepted",
    "recovered",
    "settled",
    "tell",
]

#: Story lines kept until the control plane has them; of more, the oldest are dropped.
MAX_UNACKED_STORY: Final = 500


class Verb(StrEnum):
    """What can be in flight for a container."""

    PULL = "pull"
    CREATE = "create"
    START = "start"
    STOP = "stop"
    INSPECT = "inspect"


class _State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all state."""


class Provision(_State, frozen=True):
    """A resource of the whole task that its containers need: its volumes, or its cgroup."""

    ready: bool = False
    applied: bool = False
    tries: int = 0
    #: Epoch seconds.
    not_before: float = 0.0
    #: The task's cgroup as the Engine takes it; None if it has none.
    cgroup_parent: str | None = None


class ContainerState(_State, frozen=True):
    """One container. `docker_name` is derived, and in the journal before the container is created."""

    name: str
    docker_name: str
    known: ContainerStatus = ContainerStatus.PENDING
    runtime_id: str | None = None
    image_digest: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    bindings: tuple[NetworkBinding, ...] = ()
    health: HealthStatus | None = None
    started_at: float | None = None
    finished_at: float | None = None
    restart_count: int = 0
    restarted_at: float | None = None
    #: It has ended and is to be started again; `known` stays RUNNING meanwhile, as in ECS.
    restarting: bool = False
    stop_asked_at: float | None = None
    #: Exit code and time of the last `die` event, for a container that was removed before it could be inspected.
    died: tuple[int, float] | None = None
    #: What it was last told to wait for, so that the story says it once.
    waiting_for: str = ""

    # What is below isn't kept over a restart of the agent (see `recovered`).
    #: Process id on the host; 0: not running, or not looked at yet.
    pid: int = 0
    applied: Verb | None = None
    needs_inspect: bool = False
    #: Failures in a row of what is being tried, and when to try again (epoch seconds).
    tries: int = 0
    timeouts: int = 0
    not_before: float = 0.0
    #: The last refusal told, so that the story has it once.
    told: str = ""
    #: Found in the journal by a new agent, and not looked at since.
    inherited: bool = False
    #: A stop without delay was sent, beside whatever else is in flight.
    killed: bool = False
    #: It runs although it counts as stopped (a start that timed out came late): to be stopped once more.
    zombie: bool = False

    @property
    def has_run(self) -> bool:
        """Whether its process was ever started."""
        return self.started_at is not None


class TaskState(_State, frozen=True):
    """One task. `seq` is the number of the last report; story lines above `acked` are still to be acknowledged."""

    task_id: TaskId
    spec: TaskSpec
    desired: DesiredStatus
    containers: tuple[ContainerState, ...]
    status: TaskStatus = TaskStatus.PENDING
    seq: int = 0
    acked: int = 0
    volumes: Provision = Provision()
    cgroup: Provision = Provision()
    pull_started_at: float | None = None
    pull_stopped_at: float | None = None
    started_at: float | None = None
    stopping_at: float | None = None
    execution_stopped_at: float | None = None
    stopped_at: float | None = None
    stop_code: StopCode | None = None
    stopped_reason: str | None = None
    story: tuple[tuple[int, StoryLine], ...] = ()
    #: When the control plane let go of it; its containers are kept for a while after.
    removed_at: float | None = None
    #: Accepted without a record of a task that had begun elsewhere in time: it is adopted or lost, but never run.
    unrecorded: bool = False
    #: The GPUs it holds on this host, for its containers in their order.
    gpu_ids: tuple[str, ...] = ()
    #: Whatever still runs of it is to be killed, in no order.
    kill: bool = False
    #: Since when the Engine hasn't answered this task's calls.
    silent_since: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether it is to stop, whoever wants it."""
        return self.desired is DesiredStatus.STOPPED

    @property
    def over(self) -> bool:
        """Whether every container has stopped."""
        return self.status is TaskStatus.STOPPED

    def container(self, name: str) -> ContainerState:
        """Return the container named `name`. KeyError if there is none."""
        for container in self.containers:
            if container.name == name:
                return container
        raise KeyError(name)

    def gpus_of(self, name: str) -> tuple[str, ...]:
        """Return the GPUs of the container named `name`; empty as long as the task holds none."""
        first = 0
        for spec in self.spec.containers:
            if spec.name == name:
                return self.gpu_ids[first : first + spec.gpus]
            first += spec.gpus
        return ()

    def pairs(self) -> tuple[tuple[ContainerSpec, ContainerState], ...]:
        """Return spec and state of each container, in the order of the definition."""
        return tuple(zip(self.spec.containers, self.containers, strict=True))

    def with_container(self, changed: ContainerState) -> "TaskState":
        """Return this state with one container replaced (the one of the same name)."""
        return replace(self, containers=tuple(changed if c.name == changed.name else c for c in self.containers))


def accepted(assignment: Assignment, docker_names: dict[str, str], now: float) -> TaskState:
    """Return the state of a newly assigned task.

    Report numbers start from the clock (milliseconds), so that a host that lost its journal is still listened to. If
    the control plane knows the task to have got beyond PENDING, whoever ran it was an agent whose record is gone: its
    containers are expected to exist, and are never created or started again.
    """
    unrecorded = assignment.known > TaskStatus.PENDING
    return TaskState(
        task_id=assignment.task_id,
        spec=assignment.spec,
        desired=assignment.desired,
        containers=tuple(
            ContainerState(
                name=spec.name,
                docker_name=docker_names[spec.name],
                known=ContainerStatus.CREATED if unrecorded else ContainerStatus.PENDING,
                needs_inspect=unrecorded,
            )
            for spec in assignment.spec.containers
        ),
        seq=int(now * 1000),
        unrecorded=unrecorded,
        stopping_at=now if assignment.desired is DesiredStatus.STOPPED else None,
    )


def settled(state: TaskState) -> TaskState:
    """Return what of a state has to survive: all but what is in flight."""
    return replace(
        state,
        containers=tuple(
            replace(
                c,
                applied=None,
                needs_inspect=False,
                tries=0,
                timeouts=0,
                not_before=0.0,
                told="",
                pid=0,
                inherited=False,
                killed=False,
                zombie=False,
            )
            for c in state.containers
        ),
        volumes=Provision(),
        cgroup=Provision(),
        silent_since=None,
    )


def recovered(state: TaskState) -> TaskState:
    """Return a journalled state as a new agent must see it: every container that may exist is to be inspected first."""
    state = settled(state)
    ended = ContainerStatus.STOPPED
    return replace(
        state,
        containers=tuple(
            replace(c, needs_inspect=c.known < ended, inherited=c.known < ended) for c in state.containers
        ),
    )


def tell(state: TaskState, at: float, event: str, message: str, container: str | None = None) -> TaskState:
    """Add a line to the story; the next report carries it."""
    line = StoryLine(at=at, event=event, message=message, actor="agent", container=container)
    return replace(state, story=(*state.story, (state.seq + 1, line))[-MAX_UNACKED_STORY:])
