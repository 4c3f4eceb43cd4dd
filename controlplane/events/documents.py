"""Stored events as EventBridge documents, in the shapes of "Amazon ECS events". Rendering only, from the row alone.

Whoever reads an event twice gets the same document, its id included, whatever has become of the task or its host.
"""

import hashlib
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from controlplane.api.ecs.views import TaskHost, render_task
from controlplane.events.notes import EventKind, StoredEvent, TaskFacts
from controlplane.events.noting import ARCHITECTURE, ZONE
from controlplane.state.records import TaskRecord
from homeport.arn import ArnFactory

__all__ = ["TASK", "render"]

Document = dict[str, Any]

SOURCE: Final = "aws.ecs"
TASK: Final = "ECS Task State Change"

#: Members of a Task that Describe* shows and events don't have.
_NOT_IN_EVENTS: Final = ("inferenceAccelerators", "tags")
_MOMENTS: Final = (
    *("createdAt", "connectivityAt", "pullStartedAt", "pullStoppedAt", "startedAt"),
    *("stoppingAt", "executionStoppedAt", "stoppedAt"),
)

_task_decoder: Final = msgspec.json.Decoder(TaskRecord)
_task_facts: Final = msgspec.json.Decoder(TaskFacts)


def render(arns: ArnFactory, event: StoredEvent) -> Document:
    """Return the document of an event."""
    return _RENDERERS[event.kind](arns, event)


def _envelope(
    arns: ArnFactory, event: StoredEvent, detail_type: str, resources: list[str], detail: Document
) -> Document:
    return {
        "version": "0",
        "id": _event_id(event),
        "detail-type": detail_type,
        "source": SOURCE,
        "account": arns.account,
        "time": _second(event.at),
        "region": arns.region,
        "resources": resources,
        "detail": detail,
    }


def _event_id(event: StoredEvent) -> str:
    """A UUID made of the event itself. A number alone could mean another event after a backup was restored."""
    digest = hashlib.blake2b(b"%d %r " % (event.number, event.at), digest_size=16)
    digest.update(event.record)
    digest.update(event.facts)
    return str(uuid.UUID(bytes=digest.digest(), version=4))


def _second(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _task(arns: ArnFactory, event: StoredEvent) -> Document:
    task, facts = _task_decoder.decode(event.record), _task_facts.decode(event.facts)
    known = {ARCHITECTURE: facts.architecture, ZONE: facts.zone}
    host = TaskHost({name: value for name, value in known.items() if value}, facts.connected, facts.since)
    shown = render_task(arns, task, host, tags=False)
    detail = {name: value for name, value in shown.items() if name not in _NOT_IN_EVENTS}
    detail |= {name: _moment(detail[name]) for name in _MOMENTS if name in detail}
    detail["overrides"].pop("inferenceAcceleratorOverrides", None)
    detail["updatedAt"] = _moment(event.at)
    return _envelope(arns, event, TASK, [task.spec.task_arn], detail)


_RENDERERS: Final[dict[str, Callable[[ArnFactory, StoredEvent], Document]]] = {EventKind.TASK: _task}
