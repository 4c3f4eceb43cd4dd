"""The kinds of targets that matched events go to, told by their ARNs; and where a target begins in the stream."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.pattern import compile_pattern
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, DeliveryRecord
from controlplane.state.schedule_records import RuleRecord
from controlplane.state.state import State, Transaction

__all__ = [
    "SCHEDULED_SOURCE",
    "SCHEDULED_TYPE",
    "TargetKind",
    "begin",
    "connection_of",
    "delivery_of",
    "destination_of",
    "forget",
    "gone_of",
    "is_followed",
    "is_wanted",
    "kind_of",
    "log_group_of",
    "target_of",
]


#: What EventBridge calls the events that a rule's timetable makes.
SCHEDULED_SOURCE: Final = "aws.events"
SCHEDULED_TYPE: Final = "Scheduled Event"


class TargetKind(Enum):
    """What a target is."""

    ECS = "ecs"
    HTTP = "http"
    LOGS = "logs"


def kind_of(arn: str) -> TargetKind | None:
    """Return what an ARN, of whatever account, names; None if it is no target that Homeport knows."""
    service, _, resource = ":".join(arn.split(":")[2:]).partition(":")
    if service == "ecs" and ":cluster/" in resource:
        return TargetKind.ECS
    if service == "events" and ":api-destination/" in resource:
        return TargetKind.HTTP
    if service == "logs" and ":log-group:" in resource:
        return TargetKind.LOGS
    return None


def log_group_of(arn: str) -> str:
    """Return the name of the log group that a target's ARN means, with or without `:*`."""
    return arn.partition(":log-group:")[2].removesuffix(":*")


def target_of(rule: RuleRecord, target_id: str) -> Mapping[str, Any] | None:
    """Return a rule's target."""
    return next((target for target in rule.targets if target["Id"] == target_id), None)


def is_followed(rule: RuleRecord, target: Mapping[str, Any]) -> bool:
    """Tell whether a target is brought events: those that its rule matches, or those that its timetable makes.

    An ECS target's due times are run without an event.
    """
    return bool(rule.pattern) or kind_of(target["Arn"]) is not TargetKind.ECS


def is_wanted(rule: RuleRecord, target: Mapping[str, Any], event: Mapping[str, Any], rule_arn: str) -> bool:
    """Tell whether an event is for a target."""
    if rule.pattern and compile_pattern(rule.pattern).matches(event):
        return True
    due = event.get("source") == SCHEDULED_SOURCE and event.get("detail-type") == SCHEDULED_TYPE
    return due and event.get("resources") == [rule_arn] and kind_of(target["Arn"]) is not TargetKind.ECS


def delivery_of(state: State, rule: str, target_id: str) -> DeliveryRecord | None:
    """Return how far a target has got."""
    return state.event_deliveries.get(f"{rule}/{target_id}")


def destination_of(state: State, arn: str) -> ApiDestinationRecord | None:
    """Return the API destination of an ARN, if it is still the same one."""
    name, _, its_id = arn.partition(":api-destination/")[2].partition("/")
    found = state.api_destinations.get(name)
    return found if found is not None and found.id == its_id else None


def connection_of(state: State, destination: ApiDestinationRecord) -> ConnectionRecord | None:
    """Return a destination's connection, if it is still there."""
    found = state.connections.get(destination.connection)
    return found if found is not None and found.id == destination.connection_id else None


def gone_of(state: State, rule: RuleRecord) -> list[str]:
    """Return the ids of the targets whose endpoints wanted no more events."""
    records = (delivery_of(state, rule.name, target["Id"]) for target in rule.targets)
    return [record.target_id for record in records if record is not None and record.disabled]


def begin(
    context: Context, transaction: Transaction, rule: RuleRecord, target_ids: Iterable[str], *, anew: bool = False
) -> None:
    """Have matched events brought to targets, from now on; those that are under way go on where they are.

    `anew`: these too begin now, since their rule was disabled. Retries begin again, and what was disabled is enabled.
    """
    now_at = context.state.journal.last_event
    generation = context.state.revision + 1
    for target_id in target_ids:
        known = delivery_of(context.state, rule.name, target_id)
        if known is None:
            record = DeliveryRecord(rule=rule.name, target_id=target_id, cursor=now_at, generation=generation)
        else:
            cursor = now_at if anew or known.disabled else known.cursor
            fresh = replace(known, event_at=None, attempts=0, tried_at=None, retry_at=None, problem="", disabled="")
            record = replace(fresh, cursor=cursor, generation=generation)
        transaction.put(record)


def forget(state: State, transaction: Transaction, rule: str, target_ids: Iterable[str]) -> None:
    """Drop what is kept of targets that are removed."""
    for target_id in target_ids:
        record = delivery_of(state, rule, target_id)
        if record is not None:
            transaction.delete(record)
