"""The words of the service reconciler: what it sees (`Snapshot`) and what it may want done (`Action`).

All are plain values. `decide(snapshot, now)` makes a `Decision` of a snapshot; `controlplane.services.act` carries it
out in the same event-loop turn; the loop looks again when something has changed, or at `wake_at`.
"""

from collections.abc import Mapping

import msgspec

from controlplane.events.notes import ServiceEvent
from controlplane.fleet.liveness import HostVerdict
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, ServiceRecord, TaskSetRecord
from homeport.ids import InstanceId, TaskId
from homeport.status import StopCode

__all__ = [
    "Action",
    "Adopt",
    "Blocked",
    "Decision",
    "DropTaskSet",
    "FreshIds",
    "Host",
    "Lose",
    "MarkHealthy",
    "PutDeployment",
    "PutService",
    "PutTaskSet",
    "Release",
    "Return",
    "Say",
    "Settle",
    "Snapshot",
    "Start",
    "Stop",
    "Timing",
]


class _Value(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of what is seen and wanted. Immutable trees, as records are (gc=False); a look makes one for each host."""


# ---------------------------------------------------------------- what is seen


class Host(_Value, frozen=True):
    """A host as a service sees it. Times are epoch seconds."""

    id: InstanceId
    #: `judge`d with this service's own lost-after.
    verdict: HostVerdict
    #: ACTIVE, connected and well: it can be given tasks, if they fit.
    open: bool = True
    draining: bool = False
    drain_deadline_at: float | None = None
    #: Whether what the agent has reported since it last came back is known: only then are its tasks as they seem.
    heard_out: bool = True
    #: When the verdict becomes LOST if nothing is heard; None unless it is UNKNOWN.
    lost_at: float | None = None
    #: No task of another, REPLICA service is left on it: a DAEMON's task leaves a DRAINING host last.
    last_of_host: bool = True


class Blocked(_Value, frozen=True):
    """What the last attempt to place a task of the PRIMARY deployment ran into. Not journaled, but found anew."""

    #: ECS reason -> how many hosts gave it.
    reasons: Mapping[str, int] = {}
    considered: int = 0
    #: Some host refused only for what this service's own outdated or sick tasks hold there (ports, memory, ...).
    by_own_tasks: bool = False


class Timing(_Value, frozen=True):
    """The times, in seconds, that a service's tags may set (`homeport:*`)."""

    #: How long a task without a health check must have been RUNNING to count as healthy.
    min_healthy_s: float = 5.0
    #: How long a host may be silent before this service's tasks there are replaced.
    lost_after_s: float = 60.0
    #: How long a deployment may go on without a task becoming healthy.
    progress_deadline_s: float = 600.0
    #: The longest delay between two attempts to start a task that keeps on failing: ECS's.
    max_backoff_s: float = 900.0


class FreshIds(_Value, frozen=True):
    """Ids, drawn before deciding, for a deployment that may have to be made (a rollback)."""

    deployment: str
    arn: str


class Snapshot(_Value, frozen=True):
    """Everything a decision about one service may depend on."""

    service: ServiceRecord
    #: The live deployments in the service's order: the PRIMARY one first.
    deployments: tuple[DeploymentRecord, ...]
    #: The service's tasks whose end isn't settled, those of earlier services of that name included; by id.
    tasks: tuple[TaskRecord, ...]
    #: The hosts of those tasks; for a DAEMON all of the cluster.
    hosts: Mapping[InstanceId, Host]
    #: DAEMON: the hosts that should have one task: those that are ACTIVE, connected, and meet the constraints.
    eligible: frozenset[InstanceId] = frozenset()
    #: The revision a rollback would go back to; None if there is none, or it is what PRIMARY rolls out.
    rollback_to: RevisionRecord | None = None
    blocked: Blocked | None = None
    task_sets: tuple[TaskSetRecord, ...] = ()
    timing: Timing = Timing()
    ids: FreshIds = FreshIds(deployment="", arn="")
    #: How many hosts a task of the PRIMARY revision could be on at all (ACTIVE and of the right make).
    usable_hosts: int = 0
    #: Tasks that a rebalance wants elsewhere. They stay named until they are gone: else the replacement, the younger
    #: of two by then, would be what is scaled in.
    moves: frozenset[TaskId] = frozenset()


# ---------------------------------------------------------------- what is wanted


class Start(_Value, frozen=True):
    """Start `count` tasks of a deployment or task set, wherever they fit, or on `host`.

    `replaces`: only prepare one (pull, create), which is to take that task's place once it has stopped; best on that
    task's host. `avoid`: hosts to be used only if no other will do.
    """

    deployment: str
    wanted_at: float
    count: int = 1
    host: InstanceId | None = None
    replaces: TaskId | None = None
    avoid: frozenset[InstanceId] = frozenset()


class Stop(_Value, frozen=True):
    """Ask for a task to be stopped."""

    task_id: TaskId
    reason: str
    stop_code: StopCode = StopCode.SERVICE_SCHEDULER_INITIATED


class Release(_Value, frozen=True):
    """Let a prepared task start: the one it replaces is gone. If it doesn't fit any more it is stopped instead."""

    task_id: TaskId


class Settle(_Value, frozen=True):
    """A task's end is taken into account (in a deployment that is put in the same decision)."""

    task_id: TaskId


class MarkHealthy(_Value, frozen=True):
    """A task counts as healthy from `at` on."""

    task_id: TaskId
    at: float


class Lose(_Value, frozen=True):
    """A task's host has been silent for too long: it is replaced, and unknown until its host returns."""

    task_id: TaskId


class Return(_Value, frozen=True):
    """A lost task's host is back, and the task runs there."""

    task_id: TaskId


class Adopt(_Value, frozen=True):
    """A task belongs to another deployment from now on: a rollback takes over what runs its revision already."""

    task_id: TaskId
    deployment: str


class PutService(_Value, frozen=True):
    """The service as it is from now on."""

    service: ServiceRecord


class PutDeployment(_Value, frozen=True):
    """A deployment as it is from now on, or a new one."""

    deployment: DeploymentRecord


class PutTaskSet(_Value, frozen=True):
    """A task set as it is from now on."""

    task_set: TaskSetRecord


class DropTaskSet(_Value, frozen=True):
    """A deleted task set is gone: none of its tasks is left."""

    task_set_id: str


class Say(_Value, frozen=True):
    """A service event, without ECS's beginning "(service NAME) ", and what it is in the stream of events.

    `event` None: the change of a deployment tells it there.
    """

    message: str
    event: ServiceEvent | None = None
    #: ECS's short reason, where it has one; else the message tells it.
    reason: str = ""
    #: Ids of what it is about.
    instances: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    task_sets: tuple[str, ...] = ()


Action = (
    Start
    | Stop
    | Release
    | Settle
    | MarkHealthy
    | Lose
    | Return
    | Adopt
    | PutService
    | PutDeployment
    | PutTaskSet
    | DropTaskSet
    | Say
)


class Decision(_Value, frozen=True):
    """What to do now, in this order, and when to look again even if nothing changes (epoch seconds)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
