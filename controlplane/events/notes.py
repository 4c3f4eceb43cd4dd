"""What is kept of an event: the record as it was, and what was around it. The document is rendered when it is read.

A commit carries a `Note` for each event that its changes make; the journal writes it in the same transaction as the
changes, numbers it, and gives it back as a `StoredEvent`.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from homeport.spec import Resources

__all__ = [
    "CustomFacts",
    "EventKind",
    "Facts",
    "InstanceFacts",
    "Note",
    "ServiceEvent",
    "ServiceFacts",
    "StoredEvent",
    "TaskFacts",
]


class EventKind(StrEnum):
    """What an event is about. The names are stored."""

    TASK = "task"
    INSTANCE = "instance"
    DEPLOYMENT = "deployment"
    SERVICE = "service"
    CUSTOM = "custom"


class ServiceEvent(StrEnum):
    """`eventName` of what happens to a service: ECS's names, and those of what only Homeport tells."""

    STEADY_STATE = "SERVICE_STEADY_STATE"
    TASK_SET_STEADY_STATE = "TASKSET_STEADY_STATE"
    CAPACITY_PROVIDER_STEADY_STATE = "CAPACITY_PROVIDER_STEADY_STATE"
    DESIRED_COUNT_UPDATED = "SERVICE_DESIRED_COUNT_UPDATED"
    TASKS_STOPPED = "TASKS_STOPPED"
    DEPLOYMENT_IN_PROGRESS = "SERVICE_DEPLOYMENT_IN_PROGRESS"
    DEPLOYMENT_COMPLETED = "SERVICE_DEPLOYMENT_COMPLETED"
    DEPLOYMENT_FAILED = "SERVICE_DEPLOYMENT_FAILED"
    TASK_START_IMPAIRED = "SERVICE_TASK_START_IMPAIRED"
    TASK_PLACEMENT_FAILURE = "SERVICE_TASK_PLACEMENT_FAILURE"
    TASK_CONFIGURATION_FAILURE = "SERVICE_TASK_CONFIGURATION_FAILURE"
    HEALTH_UNKNOWN = "SERVICE_HEALTH_UNKNOWN"
    # Homeport's own:
    TASKS_STARTED = "TASKS_STARTED"
    TASK_UNHEALTHY = "TASK_UNHEALTHY"
    DEPLOYMENT_STUCK = "SERVICE_DEPLOYMENT_STUCK"
    DEPLOYMENT_NOT_PROGRESSING = "SERVICE_DEPLOYMENT_NOT_PROGRESSING"
    HOOK_WAITING = "SERVICE_DEPLOYMENT_HOOK_WAITING"
    DELETED = "SERVICE_DELETED"


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of what an event tells beyond its record. Members added later need defaults: old events are kept."""


class TaskFacts(Facts, frozen=True):
    """What was known of a task's host."""

    zone: str = ""
    architecture: str = ""
    #: None: the host has not been heard of since the control plane started.
    connected: bool | None = None
    #: Since when, in epoch seconds.
    since: float = 0.0


class InstanceFacts(Facts, frozen=True):
    """What a host's record doesn't have: whether it was connected, and what it had left."""

    connected: bool
    remaining: Resources
    free_gpu_ids: tuple[str, ...] = ()


class ServiceFacts(Facts, frozen=True):
    """What happened to a service or its deployment. Ids, not ARNs; members without a value aren't shown."""

    event: ServiceEvent
    #: The service's key, CLUSTER/NAME.
    service: str
    #: ECS's reason, or what is said to people.
    reason: str = ""
    deployment: str = ""
    desired_count: int | None = None
    capacity_providers: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    task_sets: tuple[str, ...] = ()


class CustomFacts(Facts, frozen=True):
    """An event from outside (PutEvents): all that EventBridge doesn't fill in itself."""

    source: str
    detail_type: str
    detail: dict[str, Any]
    resources: tuple[str, ...] = ()
    #: Epoch seconds; None: when it was put.
    time: float | None = None
    #: UUID; "": one is made when it is kept.
    id: str = ""


class Note(msgspec.Struct, frozen=True, gc=False):
    """One event of a commit. `change`: the place in `Commit.changes` of the record that is kept with it."""

    kind: EventKind
    facts: Facts
    change: int | None = None


class StoredEvent(NamedTuple):
    """A durable event as the journal keeps it. `at`: epoch seconds, when it was committed."""

    number: int
    at: float
    kind: str
    #: The record's JSON; empty if none is kept.
    record: bytes
    #: The JSON of the Facts that belong to the kind.
    facts: bytes
