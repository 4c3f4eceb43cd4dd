"""What the control plane keeps of services: the service, its revisions and deployments, its events, its capacity.

    ServiceRecord       what is wanted, and which deployments are live (the PRIMARY one first)
    RevisionRecord      what a deployment rolls out: a task definition and how to run it. Never changes
    DeploymentRecord    one roll-out of a revision, from its beginning to its end; kept as history
    EventRecord         one of the last events of a service, as DescribeServices shows them
    TaskSetRecord       one set of tasks of a service whose deployments another program drives (EXTERNAL)
    CapacityProviderRecord  a name for a group of hosts

A service's tasks are in the group `service:NAME`; each has the id of its deployment (or task set) as `started_by`, as
in ECS. Only this reconciler gives tasks such a group, so the group tells whose they are.
"""

from enum import StrEnum
from typing import Any, ClassVar, Final, Literal

import msgspec

from controlplane.state.records import Record, Tags

__all__ = [
    "SERVICE_GROUP",
    "CapacityProviderRecord",
    "DeploymentRecord",
    "EventRecord",
    "HookState",
    "PhaseTimes",
    "RevisionRecord",
    "RolloutState",
    "ServiceDeploymentStatus",
    "ServiceRecord",
    "TaskSetRecord",
    "group_of",
]

#: What the group of a service's tasks begins with; no caller may use it.
SERVICE_GROUP: Final = "service:"


def group_of(service_name: str) -> str:
    """Return the group that the tasks of a service are in."""
    return SERVICE_GROUP + service_name


class RolloutState(StrEnum):
    """`rolloutState` of a deployment."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class ServiceDeploymentStatus(StrEnum):
    """`status` of a service deployment, the resource that ListServiceDeployments shows."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCESSFUL = "SUCCESSFUL"
    STOP_REQUESTED = "STOP_REQUESTED"
    STOPPED = "STOPPED"
    ROLLBACK_REQUESTED = "ROLLBACK_REQUESTED"
    ROLLBACK_IN_PROGRESS = "ROLLBACK_IN_PROGRESS"
    ROLLBACK_SUCCESSFUL = "ROLLBACK_SUCCESSFUL"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"


class ServiceRecord(Record, frozen=True):
    """A service. A deleted one stays describable, INACTIVE, until a new one takes the name, or its time is over."""

    kind: ClassVar[str] = "service"

    #: 32 hex digits, new for each service that has had the name; the long history of events is kept under it.
    id: str
    cluster: str
    name: str
    created_at: float
    created_by: str = ""
    #: ACTIVE, DRAINING (deleted, its tasks are being stopped) or INACTIVE.
    status: str = "ACTIVE"
    scheduling_strategy: Literal["REPLICA", "DAEMON"] = "REPLICA"
    #: Who drives deployments: this reconciler, or a program by task sets.
    controller: Literal["ECS", "EXTERNAL"] = "ECS"
    #: For a DAEMON: how many hosts there are to run on, kept by the reconciler.
    desired_count: int = 0
    #: ECS's `deploymentConfiguration` with ECS's defaults filled in.
    deployment_configuration: dict[str, Any] = {}
    #: Its members that the caller gave; a default may give way where it would make every deployment impossible.
    given: tuple[str, ...] = ()
    #: ECS members that belong to the service and not to a revision, as given: placementConstraints, placementStrategy,
    #: enableExecuteCommand, enableECSManagedTags, propagateTags, healthCheckGracePeriodSeconds,
    #: availabilityZoneRebalancing, role. Changing them begins no deployment.
    settings: dict[str, Any] = {}
    #: Ids of the live deployments: the PRIMARY one, then those that are being replaced, the newest first.
    deployments: tuple[str, ...] = ()
    #: Id of the revision of the last deployment that was COMPLETED: what a rollback goes back to. "" before the first.
    stable_revision: str = ""
    #: Id of the PRIMARY task set (EXTERNAL only).
    primary_task_set: str = ""
    deleted_at: float | None = None
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.cluster}/{self.name}"

    @property
    def group(self) -> str:
        """The group of its tasks."""
        return group_of(self.name)


class RevisionRecord(Record, frozen=True):
    """A service revision: what its tasks are made of. Never changes."""

    kind: ClassVar[str] = "service-revision"

    #: 19 digits, the last part of its ARN.
    id: str
    #: The service's id, and its key.
    service_id: str
    service: str
    created_at: float
    #: `family:revision`.
    task_definition: str
    #: ECS members, as given, that begin a new deployment when they change: launchType or capacityProviderStrategy,
    #: platformVersion, networkConfiguration, monitoring.
    document: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.id


class HookState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A PAUSE lifecycle hook that a deployment has come to."""

    id: str
    stage: str
    #: AWAITING_ACTION, SUCCEEDED, FAILED or TIMED_OUT.
    status: str = "AWAITING_ACTION"
    expires_at: float | None = None
    #: What happens at `expires_at`: ROLLBACK or CONTINUE.
    timeout_action: str = "ROLLBACK"


class PhaseTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long tasks took for one phase, in seconds."""

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0

    def plus(self, seconds: float) -> "PhaseTimes":
        """Return the times with one more task in them."""
        return PhaseTimes(count=self.count + 1, total_s=self.total_s + seconds, max_s=max(self.max_s, seconds))


class DeploymentRecord(Record, frozen=True):
    """One roll-out of a revision. A rollback is a deployment of its own, which names the one it undoes.

    The ECS resource "service deployment" is a deployment that isn't a rollback; what becomes of its rollback is told
    in its `status`.
    """

    kind: ClassVar[str] = "deployment"

    #: `ecs-svc/` and 19 digits: the `startedBy` of its tasks.
    id: str
    #: The last part of its service deployment's ARN.
    arn_id: str
    service_id: str
    service: str
    #: The revision it rolls out, and those that were live when it began.
    revision: str
    created_at: float
    updated_at: float
    source_revisions: tuple[str, ...] = ()
    #: The service's deploymentConfiguration when it began, for the history; what holds is always the service's own.
    configuration: dict[str, Any] = {}
    finished_at: float | None = None
    stopped_at: float | None = None
    rollout: RolloutState = RolloutState.IN_PROGRESS
    rollout_reason: str = ""
    status: ServiceDeploymentStatus = ServiceDeploymentStatus.PENDING
    status_reason: str = ""
    #: The deployment that this one rolls back; "" if it is none. A rollback is never rolled back.
    rollback_of: str = ""
    #: When a rollback of this one began, and why.
    rollback_at: float | None = None
    rollback_reason: str = ""
    #: ECS's `failedTasks`: failed one after another, none of them healthy in between.
    failed_tasks: int = 0
    #: What the circuit breaker counts: the same, or all of them if resetOnHealthyTask is off.
    breaker_failures: int = 0
    #: Hosts on which a task failed in a way that another try can't heal, with the reason.
    hopeless: dict[str, str] = {}
    #: Tasks that have failed on a host, by its id; forgotten once one is healthy there.
    host_failures: dict[str, int] = {}
    last_failure: str = ""
    #: No task is started before this time, since too many have failed one after another.
    retry_at: float | None = None
    #: When the last of those failed.
    failed_at: float | None = None
    #: When a task last became healthy, or else when the deployment began.
    progressed_at: float = 0.0
    #: Tasks that have become healthy so far.
    healthy_tasks: int = 0
    #: What was last said in an event about tasks that can't be placed, and when.
    placement_event: str = ""
    placement_event_at: float | None = None
    #: Whether the event of a steady state has been given since it was last left.
    steady: bool = False
    #: What an event has warned of, by name, and when: so that none is repeated without end.
    warned_at: dict[str, float] = {}
    #: Tasks that are to be replaced have been found to hold what their successors need (ports, memory).
    in_own_way: bool = False
    lifecycle_stage: str = ""
    hooks: tuple[HookState, ...] = ()
    #: Phase (schedule, pull, start, healthy, drain) -> what its tasks took.
    budget: dict[str, PhaseTimes] = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.id


class EventRecord(Record, frozen=True):
    """One event of a service. The last 100 are kept here, all of them in the history of stories."""

    kind: ClassVar[str] = "service-event"

    id: str
    service_id: str
    #: Counts a service's events, so that they keep their order.
    number: int
    at: float
    message: str

    @property
    def key(self) -> str:
        """See Record."""
        return f"{self.service_id}/{self.number:010}"


class TaskSetRecord(Record, frozen=True):
    """A task set of a service with the EXTERNAL deployment controller."""

    kind: ClassVar[str] = "task-set"

    #: `ecs-svc/` and 19 digits, the `startedBy` of its tasks.
    id: str
    service_id: str
    service: str
    created_at: float
    updated_at: float
    #: `family:revision`.
    task_definition: str
    #: ACTIVE, or DRAINING once it is deleted (PRIMARY is what the service names).
    status: str = "ACTIVE"
    #: Percent of the service's desired count.
    scale_percent: float = 0.0
    external_id: str = ""
    #: The other ECS members, as given.
    document: dict[str, Any] = {}
    #: STABILIZING or STEADY_STATE, kept by the reconciler, and since when.
    stability: str = "STABILIZING"
    stability_at: float = 0.0
    failed_tasks: int = 0
    retry_at: float | None = None
    failed_at: float | None = None
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.id


class CapacityProviderRecord(Record, frozen=True):
    """A capacity provider: a name for a group of hosts."""

    kind: ClassVar[str] = "capacity-provider"

    name: str
    created_at: float
    #: ECS members as given: autoScalingGroupProvider, ...
    document: dict[str, Any] = {}
    status: str = "ACTIVE"
    #: What became of the last change, as ECS shows it: UPDATE_COMPLETE, or DELETE_FAILED with the reason.
    update_status: str = ""
    update_status_reason: str = ""
    tags: Tags = {}

    @property
    def key(self) -> str:
        """See Record."""
        return self.name
