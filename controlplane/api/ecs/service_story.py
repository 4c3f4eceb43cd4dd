"""Who asked for what of a service: lines of its long history, which `homeport` shows beside its events."""

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.api.ecs.service_request import Terms
from controlplane.api.registry import CALLER
from controlplane.context import Context
from controlplane.state.service_records import ServiceRecord
from controlplane.state.state import Transaction
from homeport.ids import TaskId
from homeport.status import Actor
from homeport.story import StoryLine

__all__ = ["changes_of", "tell"]


def tell(context: Context, transaction: Transaction, service: ServiceRecord, operation: str, what: str) -> None:
    """Add a line with the request's caller to the service's history, which is kept under its id."""
    caller = f" by {CALLER.get()}" if CALLER.get() else ""
    line = StoryLine(
        at=context.clock.now(),
        event="service-requested",
        message=f"{operation}{caller}: {what}",
        actor=Actor.API.value,
    )
    transaction.tell(TaskId(service.id), line)


def changes_of(before: Terms, after: Terms, *, forced: bool) -> str:
    """Say in one line what an update changes; "" if it changes nothing."""
    said = list(_changes(before, after))
    if forced:
        said.append("forceNewDeployment")
    return ", ".join(said)


def _changes(before: Terms, after: Terms) -> Iterator[str]:
    if before.desired_count != after.desired_count:
        yield f"desiredCount {before.desired_count} -> {after.desired_count}"
    if before.task_definition != after.task_definition:
        yield f"taskDefinition {before.task_definition} -> {after.task_definition}"
    yield from _members(before.deployment_configuration, after.deployment_configuration)
    yield from _members(before.settings, after.settings)
    yield from _members(before.document, after.document)


def _members(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Plain values with what they were; of lists and structures the name is enough."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        plain = not isinstance(old, list | dict) and not isinstance(new, list | dict)
        yield f"{name} {'unset' if old is None else old} -> {'unset' if new is None else new}" if plain else name
