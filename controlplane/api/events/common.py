"""What EventBridge's operations share: the one event bus, finding rules, and what a rule's parts must be together."""

from typing import Final

from controlplane.api.errors import ApiError
from controlplane.api.registry import Document
from controlplane.api.trigger_arguments import invalid
from controlplane.context import Context
from controlplane.events.targets import TargetKind, kind_of
from controlplane.state.records import Record
from controlplane.state.schedule_records import RuleRecord

__all__ = ["BUS", "check_bus", "check_together", "find_rule", "limit_exceeded", "missing", "put"]

BUS: Final = "default"


def check_bus(context: Context, request: Document) -> None:
    """Raise ApiError if a request is about another bus than the default one."""
    bus = request.get("EventBusName", BUS)
    if bus not in (BUS, context.arns.event_bus(BUS)):
        if request.get("ScheduleExpression"):
            raise invalid("ScheduleExpression is supported only on the default event bus.")
        raise missing(f"Event bus {bus} does not exist.")


def find_rule(context: Context, request: Document, name: str) -> RuleRecord:
    """Return a rule. Raises ApiError ResourceNotFoundException."""
    check_bus(context, request)
    record = context.state.rules.get(name)
    if record is None:
        raise missing(f"Rule {name} does not exist on EventBus {BUS}.")
    return record


def check_together(rule: RuleRecord) -> None:
    """Raise ApiError if a rule's timetable can't run one of its targets."""
    if not rule.timetable.expression:
        return
    for target in rule.targets:
        for member in ("InputPath", "InputTransformer"):
            if target.get(member) and kind_of(target["Arn"]) is TargetKind.ECS:
                raise invalid(
                    f"{member} isn't served by Homeport for an ECS target of a rule with a ScheduleExpression"
                    f" (target {target['Id']}): give an Input with ECS's overrides."
                )


def put(context: Context, *records: Record) -> None:
    """Put records in one transaction."""
    with context.state.transaction() as transaction:
        for record in records:
            transaction.put(record)


def missing(message: str) -> ApiError:
    """Make a ResourceNotFoundException."""
    return ApiError(message, code="ResourceNotFoundException")


def limit_exceeded(message: str) -> ApiError:
    """Make a LimitExceededException."""
    return ApiError(message, code="LimitExceededException")
