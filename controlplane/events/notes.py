"""What is kept of an event: the record as it was, and what was around it. The document is rendered when it is read.

A commit carries a `Note` for each event that its changes make; the journal writes it in the same transaction as the
changes, numbers it, and gives it back as a `StoredEvent`.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

__all__ = ["CustomFacts", "EventKind", "Facts", "InstanceFacts", "Note", "ServiceFacts", "StoredEvent", "TaskFacts"]


class EventKind(StrEnum):
    """What an event is about. The names are stored."""

    TASK = "task"
    INSTANCE = "instance"
    DEPLOYMENT = "deployment"
    SERVICE = "service"
    CUSTOM = "custom"


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
    """What a host's tasks held of it."""

    cpu_units: int = 0
    memory_mib: int = 0
    gpus: int = 0
    #: `tcp:80`, ...
    ports: tuple[str, ...] = ()
    free_gpu_ids: tuple[str, ...] = ()
    pending: int = 0
    running: int = 0


class ServiceFacts(Facts, frozen=True):
    """What an event of a service names: ids, and ECS's reason for machines."""

    event: str
    #: The service's key, CLUSTER/NAME.
    service: str
    reason: str = ""
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


class Note(msgspec.Struct, frozen=True, gc=False):
    """One event of a commit. `change`: the place in `Commit.changes` of the record it is about; None for none."""

    kind: EventKind
    facts: Facts
    change: int | None = None


class StoredEvent(NamedTuple):
    """A durable event as the journal keeps it. `at`: epoch seconds, when it was committed."""

    number: int
    at: float
    kind: str
    #: The record's JSON; empty if it has none.
    record: bytes
    #: The JSON of the Facts that belong to the kind.
    facts: bytes
