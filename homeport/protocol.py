"""The messages between an agent and the control plane. Every message is a Struct here; the version is theirs all.

Registration is one HTTP POST (`Registration` -> `Registered`). Afterwards there is one WebSocket per host, JSON text
frames, each a tagged Struct:

    agent                                   control plane
      <- Challenge                            a nonce, at once
      Hello ->                                proves the host's key, tells facts and what tasks it knows
      <- Welcome                              the session is on; heartbeat period
      <- Assignments (complete)               all this host should run
      <- Assignments (increment)              changes; `base` must equal the last `revision`, else the agent asks anew
      Heartbeat ->     <- HeartbeatAck        the ack dictates the next period
      Reports ->       <- ReportsAck          acked once durable, with the ack of a heartbeat; unacked reports are sent
                                              again in the next session
      <- LogsRequest   LogChunk ->            `homeport logs`
      <- MoreLogs, CancelLogs                 the reader has room for more chunks; or is gone
      <- Goodbye                              the session is over, and why

Logs go up over a connection of their own (PATH_LOGS), so that they never delay assignments. It begins with the same
proof. A `LogBatch` goes in a binary frame, its JSON compressed with zlib; the rest are text frames as above:

    Hello ->         <- Challenge, Welcome
      LogOpen ->                              a container whose output is to be shipped
      <- LogOpened | LogRefused               how much of it is kept already: the control plane alone remembers that
      LogBatch ->      <- LogAck              acked once durable; what isn't is read again from the Engine's file
      <- LogRefused                           no more of this one for now, and why

An agent never forgets a report before its ack, and the control plane ignores a report whose `seq` it has seen, so
everything may be repeated. Unknown members are ignored, new ones have defaults: either side may be a version ahead.
"""

import enum
from typing import Annotated, Final

import msgspec

from homeport.ids import InstanceId, TaskId
from homeport.spec import Resources, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from homeport.story import StoryLine, Timestamp

__all__ = [
    "LOG_BATCH_BYTES",
    "PATH_CA",
    "PATH_LOGS",
    "PATH_REGISTER",
    "PATH_SESSION",
    "PROTOCOL_VERSION",
    "AgentMessage",
    "Assignment",
    "Assignments",
    "CancelLogs",
    "Challenge",
    "Condition",
    "ContainerReport",
    "ControlMessage",
    "Goodbye",
    "Heartbeat",
    "HeartbeatAck",
    "Hello",
    "HostFacts",
    "HostUpdate",
    "LogAck",
    "LogBatch",
    "LogChunk",
    "LogKind",
    "LogOpen",
    "LogOpened",
    "LogRefused",
    "LogsDown",
    "LogsRequest",
    "LogsUp",
    "MoreLogs",
    "NetworkBinding",
    "Refusal",
    "Registered",
    "Registration",
    "Reports",
    "ReportsAck",
    "TaskReport",
    "Welcome",
    "signed_hello",
]

PROTOCOL_VERSION: Final = 1

PATH_CA: Final = "/fleet/v1/ca"
PATH_LOGS: Final = "/fleet/v1/logs"
PATH_REGISTER: Final = "/fleet/v1/register"
PATH_SESSION: Final = "/fleet/v1/session"


#: The largest LogBatch, as JSON before compression. Agents aim at a quarter of it.
LOG_BATCH_BYTES: Final = 1024 * 1024

#: Bounds of what is kept and shown later: beyond them neither the journal nor an ECS answer could hold it.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
ExitCode = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**32 - 1)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of parts of messages. Immutable trees, so the garbage collector needn't look at them (gc=False)."""


class _Tagged(_Message, frozen=True, tag_field="type", tag=True):
    """Base of what stands alone in a frame."""


# ---------------------------------------------------------------- what a host is


class Condition(_Message, frozen=True):
    """One aspect of a host's health, e.g. CONTAINER_RUNTIME or DISK. `since`: epoch seconds of the last change."""

    type: str
    ok: bool
    since: Timestamp
    reason: str = ""


class HostFacts(_Message, frozen=True):
    """What a host has and is. Sent on joining and whenever it changes."""

    hostname: str
    agent_version: str
    docker_version: str = ""
    #: Capacity, less what the agent is told to reserve. `ports` are the reserved ones.
    resources: Resources = Resources()
    disk_mib: int = 0
    #: Of the GPUs that `resources` counts.
    gpu_ids: tuple[str, ...] = ()
    #: ECS attribute name -> value ("" for those without), e.g. ecs.os-type, ecs.cpu-architecture.
    attributes: dict[str, str] = {}
    #: HOST:PORT of the agent's Prometheus endpoint, "" if it serves none.
    metrics_address: str = ""


# ---------------------------------------------------------------- joining


class Registration(_Message, frozen=True):
    """POST PATH_REGISTER. `public_key`: raw Ed25519, base64.

    Repeating it with the same key gives the same instance.
    """

    activation_id: str
    activation_code: str
    public_key: str
    facts: HostFacts
    protocol_version: int = PROTOCOL_VERSION
    #: "" for the cluster the activation names, else `default`.
    cluster: str = ""


class Registered(_Message, frozen=True):
    """The answer: who this host is from now on."""

    instance_id: InstanceId
    instance_arn: str
    cluster: str


class Refusal(_Message, frozen=True):
    """The body of a refused request: a short stable `code`, and a sentence that says what to do about it."""

    code: str
    message: str


class Challenge(_Tagged, frozen=True):
    """First frame of a session. `nonce`: random, base64."""

    nonce: str


class Hello(_Tagged, frozen=True):
    """The host proves its key: `signature` (base64) is over `signed_hello(nonce, instance_id)`."""

    instance_id: InstanceId
    signature: str
    facts: HostFacts
    protocol_version: int = PROTOCOL_VERSION


def signed_hello(nonce: str, instance_id: str) -> bytes:
    """Return the bytes that a host signs to open a session."""
    return f"homeport-session-v1:{instance_id}:{nonce}".encode()


class Welcome(_Tagged, frozen=True):
    """The session is on."""

    session_id: str
    heartbeat_s: float


class Goodbye(_Tagged, frozen=True):
    """The control plane ends the session. `final`: this host is deregistered; stop its tasks and don't come back."""

    reason: str
    final: bool = False
    retry_after_s: float = 0.0


# ---------------------------------------------------------------- assignments, downwards


class Assignment(_Message, frozen=True):
    """A task this host should have. `stop_reason` is kept in the story when desired is STOPPED."""

    task_id: TaskId
    desired: DesiredStatus
    spec: TaskSpec
    #: How far the control plane knows the task to be: an agent without a record of a task that has got beyond
    #: PENDING must not run it again, but report it as lost (it never runs a task twice).
    known: TaskStatus = TaskStatus.PENDING
    stop_reason: str = ""


class Assignments(_Tagged, frozen=True):
    """A complete set (`base` None), or what changed since revision `base`."""

    revision: int
    base: int | None = None
    put: tuple[Assignment, ...] = ()
    #: Tasks that are over: their STOPPED is durable here. The agent may clean up.
    remove: tuple[TaskId, ...] = ()


# ---------------------------------------------------------------- heartbeats and reports, upwards


class Heartbeat(_Tagged, frozen=True):
    """I am alive and hold the set of `revision` (-1: none; asks for a complete one)."""

    revision: int
    conditions: tuple[Condition, ...] = ()
    #: Whether all that has changed while there was no session has been reported in this one, and every container that
    #: an earlier agent left has been looked at. None: an agent that doesn't say.
    caught_up: bool | None = None


class HeartbeatAck(_Tagged, frozen=True):
    """Send the next heartbeat in `next_s` seconds."""

    next_s: float


class HostUpdate(_Tagged, frozen=True):
    """The host's facts have changed."""

    facts: HostFacts


class NetworkBinding(_Message, frozen=True):
    """A published port as the Engine bound it."""

    bind_ip: str
    container_port: Port
    host_port: Port
    protocol: str


class ContainerReport(_Message, frozen=True):
    """The state of one container, cumulative."""

    name: str
    status: ContainerStatus
    runtime_id: str | None = None
    image_digest: str | None = None
    exit_code: ExitCode | None = None
    #: `Name: text`, as ECS gives it, e.g. "OutOfMemoryError: Container killed due to memory usage".
    reason: str | None = None
    bindings: tuple[NetworkBinding, ...] = ()
    #: None if the container has no health check.
    health: HealthStatus | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    restart_count: Count = 0
    #: The GPUs it has for itself.
    gpu_ids: tuple[str, ...] = ()


class TaskReport(_Message, frozen=True):
    """The state of one task, cumulative: the latest report says all. `seq` grows with each change, across restarts.

    Each story line has the `seq` of the report that first carried it, so that the control plane can skip those it has.
    """

    task_id: TaskId
    seq: Count
    status: TaskStatus
    containers: tuple[ContainerReport, ...] = ()
    pull_started_at: Timestamp | None = None
    pull_stopped_at: Timestamp | None = None
    started_at: Timestamp | None = None
    stopping_at: Timestamp | None = None
    execution_stopped_at: Timestamp | None = None
    stopped_at: Timestamp | None = None
    stop_code: StopCode | None = None
    stopped_reason: str | None = None
    story: tuple[tuple[Count, StoryLine], ...] = ()


class Reports(_Tagged, frozen=True):
    """A batch of reports, at most one per task."""

    tasks: tuple[TaskReport, ...]


class ReportsAck(_Tagged, frozen=True):
    """These reports (task id -> seq) are durable, or of no interest: the agent may forget their stories."""

    seqs: dict[TaskId, int]


# ---------------------------------------------------------------- logs


class LogsRequest(_Tagged, frozen=True):
    """Send a container's log. `tail` None: all. `since`: epoch seconds, exclusive.

    At most `window` chunks may be under way; each `MoreLogs` allows as many more as it says.
    """

    request_id: str
    task_id: TaskId
    container: str
    follow: bool = False
    tail: int | None = None
    since: float | None = None
    window: int = 16


class MoreLogs(_Tagged, frozen=True):
    """The reader of this log has taken `chunks` more."""

    request_id: str
    chunks: int


class CancelLogs(_Tagged, frozen=True):
    """Nobody reads this log any more."""

    request_id: str


class LogChunk(_Tagged, frozen=True):
    """A piece of a log: lines of (epoch seconds, stream, text). `end`: nothing follows; `error` says why not."""

    request_id: str
    lines: tuple[tuple[float, str, str], ...] = ()
    end: bool = False
    error: str = ""


# ---------------------------------------------------------------- logs that are shipped


class LogKind(enum.IntEnum):
    """What an event of a shipped log is."""

    STDOUT = 0
    STDERR = 1
    #: Says that output is missing here, and why.
    GAP = 2


class LogOpen(_Tagged, frozen=True):
    """The agent wants to ship this container's output, as `channel`: a number of its choice, new in the connection."""

    channel: Count
    task_id: TaskId
    container: str
    #: Docker's id of the container.
    runtime_id: str = ""


class LogOpened(_Tagged, frozen=True):
    """How much is kept already: events below `next`, up to `position`, which only agents understand; "": nothing."""

    channel: Count
    next: Count = 1
    position: str = ""


class LogRefused(_Tagged, frozen=True):
    """Nothing more of this channel for now; it is closed. The agent opens it again after `retry_after_s`.

    `final`: there is nowhere to keep this output, ever (nobody knows the task).
    """

    channel: Count
    reason: str
    retry_after_s: float = 10.0
    final: bool = False


class LogBatch(_Tagged, frozen=True):
    """Events in order, numbered from `first`. Those below what is kept already are passed over.

    `events`: (epoch milliseconds, LogKind, text). `position`: where the source stands behind the last of them.
    `end`: the container has stopped, and this is all.
    """

    channel: Count
    first: Count
    events: tuple[tuple[int, int, str], ...]
    position: str
    end: bool = False


class LogAck(_Tagged, frozen=True):
    """Channel -> the number after the last event that is durable."""

    kept: dict[int, int]


LogsUp = Hello | LogOpen | LogBatch
LogsDown = Challenge | Welcome | Goodbye | LogOpened | LogRefused | LogAck

ControlMessage = (
    Challenge | Welcome | Goodbye | Assignments | HeartbeatAck | ReportsAck | LogsRequest | MoreLogs | CancelLogs
)
AgentMessage = Hello | Heartbeat | HostUpdate | Reports | LogChunk
