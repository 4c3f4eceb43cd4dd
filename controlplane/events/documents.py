"""Stored events as EventBridge documents, in the shapes of "Amazon ECS events". Rendering only, from the row alone.

Whoever reads an event twice gets the same document, its id included, whatever has become of the task or its host.
"""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from controlplane.api.ecs.views import TaskHost, attributes_view, render_task, resources_view, versions_view
from controlplane.events.notes import (
    CustomFacts,
    EventKind,
    InstanceFacts,
    ServiceEvent,
    ServiceFacts,
    StoredEvent,
    TaskFacts,
)
from controlplane.events.noting import ARCHITECTURE, ZONE
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.arn import ArnFactory
from homeport.clock import iso_time

__all__ = ["DEPLOYMENT", "HOMEPORT", "INSTANCE", "OWN_ACTION", "SERVICE", "SOURCE", "TASK", "render"]

Document = dict[str, Any]

SOURCE: Final = "aws.ecs"
TASK: Final = "ECS Task State Change"
INSTANCE: Final = "ECS Container Instance State Change"
DEPLOYMENT: Final = "ECS Deployment State Change"
SERVICE: Final = "ECS Service Action"
#: What ECS has no event for.
HOMEPORT: Final = "homeport"
OWN_ACTION: Final = "Homeport Service Action"

#: `eventType` of those that aren't INFO.
_TYPES: Final = {
    ServiceEvent.TASK_START_IMPAIRED: "WARN",
    ServiceEvent.DEPLOYMENT_FAILED: "ERROR",
    ServiceEvent.TASK_PLACEMENT_FAILURE: "ERROR",
    ServiceEvent.TASK_CONFIGURATION_FAILURE: "ERROR",
    ServiceEvent.HEALTH_UNKNOWN: "ERROR",
    ServiceEvent.TASK_UNHEALTHY: "WARN",
    ServiceEvent.DEPLOYMENT_STUCK: "WARN",
    ServiceEvent.DEPLOYMENT_NOT_PROGRESSING: "WARN",
}
_OWN: Final = frozenset(
    {
        ServiceEvent.TASKS_STARTED,
        ServiceEvent.TASK_UNHEALTHY,
        ServiceEvent.DEPLOYMENT_STUCK,
        ServiceEvent.DEPLOYMENT_NOT_PROGRESSING,
        ServiceEvent.HOOK_WAITING,
        ServiceEvent.DELETED,
    }
)
#: Members that Describe* shows and events don't have.
_NOT_IN_EVENTS: Final = ("inferenceAccelerators", "tags")
_RESOURCE_MEMBERS: Final = {
    "INTEGER": ("name", "type", "integerValue"),
    "STRINGSET": ("name", "type", "stringSetValue"),
}
_MOMENTS: Final = (
    *("createdAt", "connectivityAt", "pullStartedAt", "pullStoppedAt", "startedAt"),
    *("stoppingAt", "executionStoppedAt", "stoppedAt"),
)

_task_decoder: Final = msgspec.json.Decoder(TaskRecord)
_instance_decoder: Final = msgspec.json.Decoder(InstanceRecord)
_task_facts: Final = msgspec.json.Decoder(TaskFacts)
_instance_facts: Final = msgspec.json.Decoder(InstanceFacts)
_service_facts: Final = msgspec.json.Decoder(ServiceFacts)
_custom_facts: Final = msgspec.json.Decoder(CustomFacts)


def render(arns: ArnFactory, event: StoredEvent) -> Document:
    """Return the document of an event."""
    return _RENDERERS[event.kind](arns, event)


def _envelope(
    arns: ArnFactory,
    event: StoredEvent,
    detail_type: str,
    resources: list[str],
    detail: Document,
    *,
    source: str = SOURCE,
    at: float | None = None,
) -> Document:
    return {
        "version": "0",
        "id": _event_id(event),
        "detail-type": detail_type,
        "source": source,
        "account": arns.account,
        "time": iso_time(event.at if at is None else at),
        "region": arns.region,
        "resources": resources,
        "detail": detail,
    }


def _event_id(event: StoredEvent) -> str:
    """A UUID made of the event itself. A number alone could mean another event after a backup was restored."""
    digest = hashlib.blake2b(f"{event.number} {event.at!r} ".encode(), digest_size=16)
    digest.update(event.record)
    digest.update(event.facts)
    return str(uuid.UUID(bytes=digest.digest(), version=4))


def _task(arns: ArnFactory, event: StoredEvent) -> Document:
    task, facts = _task_decoder.decode(event.record), _task_facts.decode(event.facts)
    known = {ARCHITECTURE: facts.architecture, ZONE: facts.zone}
    host = TaskHost({name: value for name, value in known.items() if value}, facts.connected, facts.since)
    shown = render_task(arns, task, host, tags=False)
    detail = {name: value for name, value in shown.items() if name not in _NOT_IN_EVENTS}
    detail |= {name: iso_time(detail[name], millis=True) for name in _MOMENTS if name in detail}
    del detail["overrides"]["inferenceAcceleratorOverrides"]
    detail["updatedAt"] = iso_time(event.at, millis=True)
    return _envelope(arns, event, TASK, [task.spec.task_arn], detail)


def _instance(arns: ArnFactory, event: StoredEvent) -> Document:
    instance, facts = _instance_decoder.decode(event.record), _instance_facts.decode(event.facts)
    arn = arns.container_instance(instance.cluster, instance.id)
    registered = resources_view(instance.facts.resources, instance.facts.gpu_ids)
    detail: Document = {
        "agentConnected": facts.connected,
        "attributes": attributes_view(instance),
        "clusterArn": arns.cluster(instance.cluster),
        "containerInstanceArn": arn,
        "ec2InstanceId": instance.managed_id,
        "registeredAt": iso_time(instance.registered_at, millis=True),
        "registeredResources": list(map(_resource, registered)),
        "remainingResources": list(map(_resource, resources_view(facts.remaining, facts.free_gpu_ids))),
        "status": instance.status,
        "version": instance.version,
        "versionInfo": versions_view(instance),
        "updatedAt": iso_time(event.at, millis=True),
    }
    if instance.status_reason:
        detail["statusReason"] = instance.status_reason
    return _envelope(arns, event, INSTANCE, [arn], detail)


def _resource(shown: Document) -> Document:
    """A `Resource` with the value of its own type alone, as events have it."""
    return {member: shown[member] for member in _RESOURCE_MEMBERS[shown["type"]]}


def _deployment(arns: ArnFactory, event: StoredEvent) -> Document:
    facts = _service_facts.decode(event.facts)
    detail = {
        "eventType": _TYPES.get(facts.event, "INFO"),
        "eventName": facts.event.value,
        "deploymentId": facts.deployment,
        "updatedAt": iso_time(event.at, millis=True),
        "reason": facts.reason,
    }
    return _envelope(arns, event, DEPLOYMENT, [_service_arn(arns, facts)], detail)


def _service(arns: ArnFactory, event: StoredEvent) -> Document:
    facts = _service_facts.decode(event.facts)
    cluster, _, service = facts.service.partition("/")
    members = {
        "capacityProviderArns": [arns.capacity_provider(name) for name in facts.capacity_providers],
        "containerInstanceArns": [arns.container_instance(cluster, instance) for instance in facts.instances],
        "taskArns": [arns.task(cluster, task) for task in facts.tasks],
        "taskSetArns": [arns.task_set(cluster, service, task_set) for task_set in facts.task_sets],
        "desiredCount": facts.desired_count,
        "reason": facts.reason,
    }
    detail = {
        "eventType": _TYPES.get(facts.event, "INFO"),
        "eventName": facts.event.value,
        "clusterArn": arns.cluster(cluster),
        **{name: value for name, value in members.items() if value or value == 0},
        "createdAt": iso_time(event.at, millis=True),
    }
    own = facts.event in _OWN
    return _envelope(
        arns,
        event,
        OWN_ACTION if own else SERVICE,
        [_service_arn(arns, facts)],
        detail,
        source=HOMEPORT if own else SOURCE,
    )


def _service_arn(arns: ArnFactory, facts: ServiceFacts) -> str:
    cluster, _, service = facts.service.partition("/")
    return arns.service(cluster, service)


def _custom(arns: ArnFactory, event: StoredEvent) -> Document:
    facts = _custom_facts.decode(event.facts)
    resources = list(facts.resources)
    envelope = _envelope(arns, event, facts.detail_type, resources, facts.detail, source=facts.source, at=facts.time)
    return {**envelope, "id": facts.id} if facts.id else envelope


_RENDERERS: Final[dict[str, Callable[[ArnFactory, StoredEvent], Document]]] = {
    EventKind.TASK: _task,
    EventKind.INSTANCE: _instance,
    EventKind.DEPLOYMENT: _deployment,
    EventKind.SERVICE: _service,
    EventKind.CUSTOM: _custom,
}
