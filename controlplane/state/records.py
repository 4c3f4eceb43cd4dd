"""What the control plane keeps, one frozen Struct per kind; each is stored as one JSON document.

A record is never changed, only replaced (`msgspec.structs.replace`). Its `key` is unique among its kind. Members added
later need defaults; anything else needs a migration in `controlplane.store.migrations`.
"""

from typing import Any, ClassVar

import msgspec

from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport, HostFacts
from homeport.spec import Resources, TaskSpec
from homeport.status import DesiredStatus, HealthStatus, StopCode, TaskStatus

__all__ = [
    "ActivationRecord",
    "ClusterRecord",
    "FamilyRecord",
    "IdempotencyRecord",
    "InstanceRecord",
    "Record",
    "SettingRecord",
    "Tags",
    "TaskDefinitionRecord",
    "TaskOrder",
    "TaskRecord",
    "ToldHost",
]

Tags = dict[str, str]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all records. Immutable trees, so the garbage collector needn't look at them (gc=False)."""

    kind: ClassVar[str]

    @property
    def key(self) -> str:
        """The record's name, unique among its kind."""
        raise NotImplementedError


class ClusterRecord(Record, frozen=True):
    """A cluster. Clusters that are deleted stay, INACTIVE, as in ECS, until a new one takes the name."""

    kind: ClassVar[str] = "cluster"

    name: str
    created_at: float
    status: str = "ACTIVE"
    settings: dict[str, str] = {}
    #: ECS documents, kept as given.
    configuration: dict[str, Any] | None = None
    service_connect_defaults: dict[str, Any] | None = None
    capacity_providers: tuple[str, ...] = ()
    default_capacity_provider_strategy: tuple[dict[str, Any], ...] = ()
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.name


class FamilyRecord(Record, frozen=True):
    """A task definition family: remembers the last revision, since a number is never given twice."""

    kind: ClassVar[str] = "family"

    name: str
    last_revision: int

    @property
    def key(self) -> str:
        """See Record."""
        return self.name


class TaskDefinitionRecord(Record, frozen=True):
    """One revision of a task definition.

    `document` is the ECS TaskDefinition as registered, with ECS's defaults filled in, less what this record knows
    better (arn, revision, status, times). It is what DescribeTaskDefinition returns.
    """

    kind: ClassVar[str] = "task-definition"

    family: str
    revision: int
    document: dict[str, Any]
    registered_at: float
    registered_by: str
    status: str = "ACTIVE"  # INACTIVE, DELETE_IN_PROGRESS
    deregistered_at: float | None = None
    delete_requested_at: float | None = None
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.name

    @property
    def name(self) -> str:
        """`family:revision`."""
        return f"{self.family}:{self.revision}"


class ToldHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What events have last told of a host beyond its record: so that none is told twice, or never."""

    connected: bool = False
    #: As ECS's `remainingResources`; None for all of it, which its registration tells.
    remaining: Resources | None = None


class InstanceRecord(Record, frozen=True):
    """A container instance: one registered host."""

    kind: ClassVar[str] = "container-instance"

    id: InstanceId
    cluster: str
    #: Raw Ed25519 key, base64: what the host proves itself with.
    public_key: str
    registered_at: float
    facts: HostFacts
    #: ACTIVE, DRAINING or INACTIVE (deregistered; kept for a while, as ECS does).
    status: str = "ACTIVE"
    status_reason: str = ""
    #: Attributes set by PutAttributes; they win over those in `facts`.
    attributes: dict[str, str] = {}
    activation_id: str = ""
    #: When it was set DRAINING, and when its service tasks are stopped whatever the services' health bounds say.
    draining_at: float | None = None
    drain_deadline_at: float | None = None
    deregistered_at: float | None = None
    tags: Tags = {}
    #: ECS's counter of changes.
    version: int = 1
    told: ToldHost = ToldHost()

    @property
    def key(self) -> str:
        """See Record."""
        return self.id

    @property
    def all_attributes(self) -> dict[str, str]:
        """The agent's own attributes and those put by the API; the latter win."""
        return {**self.facts.attributes, **self.attributes}

    @property
    def managed_id(self) -> str:
        """What ECS shows as `ec2InstanceId` of an external instance: its id as SSM's managed instance, from our id."""
        return f"mi-{self.id[:17]}"


class TaskOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a task that no service owns was asked for with, if it is to be stopped, run again or held back by tags.

    Together with the task's own members it is enough to place the task later, or to make the next attempt of it. Most
    tasks have none. All times are by the control plane's clock, since hosts' clocks may be wrong.
    """

    #: The operation that began it: RunTask or StartTask.
    operation: str = "RunTask"
    #: The request's `placementConstraints` and `placementStrategy`, as given.
    constraints: tuple[dict[str, Any], ...] = ()
    strategy: tuple[dict[str, Any], ...] = ()
    #: The host that StartTask named.
    instance_id: InstanceId | None = None
    #: How many seconds it may be RUNNING, may take from its placement to RUNNING, and may wait for a host.
    timeout_s: int | None = None
    start_timeout_s: int | None = None
    wait_timeout_s: int | None = None
    #: How often it is run again if it fails, and after how many seconds of its host's silence it counts as failed.
    retries: int = 0
    lost_after_s: int = 60
    #: Its host stops it by itself when it has heard nothing of the control plane for so long that it counts as lost.
    stop_when_isolated: bool = False
    #: The name of its concurrency group in the cluster; "" for none. One of the group runs at a time.
    exclusive: str = ""
    #: Its place in that group's order of arrival.
    turn: int = 0
    #: Counts the attempts of one order, from 1.
    attempt: int = 1
    #: The attempt before this one, and the one after it.
    retry_of: TaskId | None = None
    retried_as: TaskId | None = None
    #: It isn't placed before this time.
    not_before: float | None = None
    #: Hosts where an attempt failed for the host's sake: used only if no other will do.
    avoid: tuple[InstanceId, ...] = ()
    #: What its story last said that it waits for.
    waits_for: str = ""
    placed_at: float | None = None

    @property
    def at_most_once_after_s(self) -> float | None:
        """After which silence of its host it has stopped by itself; None: it runs on."""
        return self.lost_after_s if self.stop_when_isolated else None


class TaskRecord(Record, frozen=True):
    """A task. Identity (id, cluster, spec, and the instance once set) never changes."""

    kind: ClassVar[str] = "task"

    id: TaskId
    cluster: str
    spec: TaskSpec
    created_at: float
    launch_type: str
    desired: DesiredStatus = DesiredStatus.RUNNING
    status: TaskStatus = TaskStatus.PENDING
    instance_id: InstanceId | None = None
    #: What it holds on its host until it is STOPPED.
    resources: Resources = Resources()
    group: str = ""
    started_by: str = ""
    #: The capacity provider a request's strategy chose; "" if it named a launch type or nothing.
    capacity_provider: str = ""
    #: The ECS `overrides` document as given.
    overrides: dict[str, Any] = {}
    enable_execute_command: bool = False
    #: As reported by the agent, one for each container that it has begun with.
    containers: tuple[ContainerReport, ...] = ()
    #: The seq of the last report applied.
    reported_seq: int = 0
    pull_started_at: float | None = None
    pull_stopped_at: float | None = None
    started_at: float | None = None
    stopping_at: float | None = None
    execution_stopped_at: float | None = None
    stopped_at: float | None = None
    stop_code: StopCode | None = None
    stopped_reason: str | None = None
    # What the reconciler of its service keeps of it; the agent knows nothing of these.
    #: When the need for this task arose: what its time to schedule is counted from.
    wanted_at: float | None = None
    #: When it was first known to be RUNNING, by the control plane's clock (`started_at` is by its host's).
    running_at: float | None = None
    #: When it first counted as healthy.
    healthy_at: float | None = None
    #: Since when its host has been silent for so long that the task is replaced. It may be running all the same.
    lost_at: float | None = None
    #: The task whose place it is to take: until that one has stopped it is only prepared, and holds nothing.
    replaces: TaskId | None = None
    #: When it was let start after having been only prepared.
    released_at: float | None = None
    #: Task scale-in protection, until this time.
    protected_until: float | None = None
    #: Its end has been taken into account.
    settled: bool = False
    #: None for a task of a service, and for one that is only run.
    order: TaskOrder | None = None
    tags: Tags = {}
    #: ECS's counter of changes.
    version: int = 1

    @property
    def key(self) -> str:
        """See Record."""
        return self.id

    @property
    def health(self) -> HealthStatus:
        """The task's health: the worst of its essential containers that have a check; UNKNOWN if none has."""
        checked = [c.name for c in self.spec.containers if c.health_check is not None and c.essential]
        if not checked:
            return HealthStatus.UNKNOWN
        found = {report.name: report.health for report in self.containers}
        states = {found.get(name) or HealthStatus.UNKNOWN for name in checked}
        for state in (HealthStatus.UNHEALTHY, HealthStatus.UNKNOWN, HealthStatus.HEALTHY):
            if state in states:
                return state
        return HealthStatus.UNKNOWN

    @property
    def exclusive_group(self) -> tuple[str, str] | None:
        """The concurrency group (cluster, name) that it runs in or waits for, until it is sure not to run."""
        if self.order is None or not self.order.exclusive or self.status is TaskStatus.STOPPED:
            return None
        if self.lost_at is not None and self.order.stop_when_isolated:
            return None  # its host, cut off, has stopped it
        return self.cluster, self.order.exclusive


class ActivationRecord(Record, frozen=True):
    """An SSM activation: lets hosts register until it expires or its limit is reached. The code is kept as a hash."""

    kind: ClassVar[str] = "activation"

    id: str
    #: SHA-256 of the code, hex. The code has 120 random bits: no slow hash is needed.
    code_hash: str
    created_at: float
    expires_at: float
    registration_limit: int = 1
    registrations: int = 0
    #: The cluster its hosts join ("" for `default`).
    cluster: str = ""
    iam_role: str = ""
    description: str = ""
    default_instance_name: str = ""
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.id


class IdempotencyRecord(Record, frozen=True):
    """What a request with a clientToken did, so that its repetition returns the same."""

    kind: ClassVar[str] = "idempotency"

    operation: str
    scope: str
    token: str
    #: Hash of the request, to tell a repetition from another request under the same token.
    fingerprint: str
    at: float
    #: Keys of what was made.
    result: tuple[str, ...] = ()
    #: The ECS `failures` of the answer.
    failures: tuple[dict[str, str], ...] = ()

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.operation}/{self.scope}/{self.token}"


class SettingRecord(Record, frozen=True):
    """A setting of this installation that must survive and that commands may change (name -> document)."""

    kind: ClassVar[str] = "setting"

    name: str
    value: dict[str, Any]

    @property
    def key(self) -> str:
        """See Record."""
        return self.name
