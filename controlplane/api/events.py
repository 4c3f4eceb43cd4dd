"""EventBridge: scheduled rules of the default event bus with ECS clusters as targets. Rules that match events, other
buses and other targets are refused by name.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from controlplane.api.errors import ApiError
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import (
    check_target,
    invalid,
    merged_tags,
    page_after,
    rendered_tags,
    take_page,
)
from controlplane.context import Context
from controlplane.schedules.act import forget_trigger
from controlplane.schedules.changes import begun, first_due, resumed_due, same_times
from controlplane.schedules.timetable import parse_expression
from controlplane.state.schedule_records import RuleRecord, Timetable

__all__ = ["MAX_RULES", "MAX_TARGETS"]

#: AWS's quotas.
MAX_RULES: Final = 300
MAX_TARGETS: Final = 5

_BUS: Final = "default"


# ---------------------------------------------------------------- rules


@operation("events", "PutRule")
def put_rule(context: Context, request: Document) -> Document:
    """Make or change a rule with a ScheduleExpression; a rate is first due after one period."""
    _check_bus(context, request)
    timetable = _timetable(request)
    name, now = request["Name"], context.clock.now()
    known = context.state.rules.get(name)
    state = _state(request, known)
    if known is None:
        if len(context.state.rules) >= MAX_RULES:
            raise _limit(f"There can be at most {MAX_RULES} rules.")
        timetable = begun(timetable, now, at_once=False)
        record = RuleRecord(name=name, created_at=now, timetable=timetable, tags=merged_tags(request.get("Tags", ())))
        record = replace(record, next_at=first_due(timetable, now))
    elif same_times(timetable, known.timetable):
        record = known
    else:
        timetable = begun(timetable, now, at_once=False)
        record = replace(known, timetable=timetable, next_at=first_due(timetable, now))
    record = replace(
        record,
        modified_at=now,
        description=request.get("Description", ""),
        role_arn=request.get("RoleArn", ""),
    )
    _put(context, _in_state(record, state, now))
    return {"RuleArn": context.arns.rule(name)}


@operation("events", "DescribeRule")
def describe_rule(context: Context, request: Document) -> Document:
    """Describe a rule."""
    record = _rule(context, request, request["Name"])
    return {**_rule_view(context, record), "CreatedBy": context.arns.account}


@operation("events", "ListRules")
def list_rules(context: Context, request: Document) -> Document:
    """List rules by name."""
    _check_bus(context, request)
    prefix = request.get("NamePrefix", "")
    rules = (rule for rule in _rules_after(context, request) if rule.name.startswith(prefix))
    page, more = take_page(rules, request, key=lambda rule: rule.name, limit="Limit")
    return {"Rules": [_rule_view(context, rule) for rule in page], **more}


@operation("events", "ListRuleNamesByTarget")
def list_rule_names_by_target(context: Context, request: Document) -> Document:
    """List the names of the rules that have a target with this ARN."""
    _check_bus(context, request)
    wanted = request["TargetArn"]
    rules = (rule for rule in _rules_after(context, request) if any(target["Arn"] == wanted for target in rule.targets))
    page, more = take_page(rules, request, key=lambda rule: rule.name, limit="Limit")
    return {"RuleNames": [rule.name for rule in page], **more}


@operation("events", "EnableRule")
def enable_rule(context: Context, request: Document) -> Document:
    """Enable a rule; what was due while it was disabled doesn't run."""
    record = _rule(context, request, request["Name"])
    _put(context, _in_state(record, "ENABLED", context.clock.now()))
    return {}


@operation("events", "DisableRule")
def disable_rule(context: Context, request: Document) -> Document:
    """Disable a rule. What it has started goes on."""
    record = _rule(context, request, request["Name"])
    _put(context, _in_state(record, "DISABLED", context.clock.now()))
    return {}


@operation("events", "DeleteRule")
def delete_rule(context: Context, request: Document) -> Document:
    """Delete a rule that has no targets, with its history. One that isn't there is passed over, as in AWS."""
    _check_bus(context, request)
    record = context.state.rules.get(request["Name"])
    if record is None:
        return {}
    if record.targets:
        raise invalid("Rule can't be deleted since it has targets.")
    with context.state.transaction() as transaction:
        forget_trigger(context, transaction, record)
    return {}


def _rules_after(context: Context, request: Document) -> Iterator[RuleRecord]:
    return context.state.rules.page(None, None, after=page_after(request))


def _rule_view(context: Context, record: RuleRecord) -> Document:
    document = {
        "Name": record.name,
        "Arn": context.arns.rule(record.name),
        "State": record.state,
        "ScheduleExpression": record.timetable.expression,
        "EventBusName": _BUS,
    }
    optional = {"Description": record.description, "RoleArn": record.role_arn}
    return document | {name: value for name, value in optional.items() if value}


def _timetable(request: Document) -> Timetable:
    if request.get("EventPattern"):
        raise invalid(
            "EventPattern isn't served by Homeport: its rules have a ScheduleExpression, cron(...) or rate(...)."
        )
    expression = request.get("ScheduleExpression")
    if not expression:
        raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    try:
        if expression.startswith("at("):
            raise ValueError("a rule has cron(...) or rate(...); at(...) is EventBridge Scheduler's")
        parse_expression(expression, strict_plural=True)
    except ValueError as error:
        raise invalid(f"Parameter ScheduleExpression is not valid. Reason: {error}.") from error
    return Timetable(expression=expression)


def _state(request: Document, known: RuleRecord | None) -> str:
    state: str = request.get("State") or ("ENABLED" if known is None else known.state)
    if state not in ("ENABLED", "DISABLED"):
        raise invalid(f"State {state} is for rules that match events of CloudTrail: use ENABLED or DISABLED.")
    return state


def _in_state(record: RuleRecord, state: str, now: float) -> RuleRecord:
    if record.state == "DISABLED" and state == "ENABLED":
        record = replace(record, next_at=resumed_due(record.timetable, now))
    return replace(record, state=state)


def _rule(context: Context, request: Document, name: str) -> RuleRecord:
    _check_bus(context, request)
    record = context.state.rules.get(name)
    if record is None:
        raise ApiError(f"Rule {name} does not exist on EventBus {_BUS}.", code="ResourceNotFoundException")
    return record


def _check_bus(context: Context, request: Document) -> None:
    bus = request.get("EventBusName", _BUS)
    if bus not in (_BUS, context.arns.event_bus(_BUS)):
        if request.get("ScheduleExpression"):
            raise invalid("ScheduleExpression is supported only on the default event bus.")
        raise ApiError(f"Event bus {bus} does not exist.", code="ResourceNotFoundException")


def _put(context: Context, record: RuleRecord) -> None:
    with context.state.transaction() as transaction:
        transaction.put(record)


def _limit(message: str) -> ApiError:
    return ApiError(message, code="LimitExceededException")


# ---------------------------------------------------------------- targets


@operation("events", "PutTargets")
def put_targets(context: Context, request: Document) -> Document:
    """Add targets to a rule, or replace those with the same Id. All of them, or none."""
    record = _rule(context, request, request["Rule"])
    targets = {target["Id"]: target for target in record.targets}
    for target in request["Targets"]:
        check_target(context, target, record)
        for member in ("InputPath", "InputTransformer"):
            if target.get(member):
                raise invalid(f"{member} isn't served by Homeport: give an Input with ECS's overrides.")
        targets[target["Id"]] = target
    if len(targets) > MAX_TARGETS:
        raise _limit(f"A rule can have at most {MAX_TARGETS} targets.")
    _put(context, replace(record, targets=tuple(targets.values())))
    return {"FailedEntryCount": 0, "FailedEntries": []}


@operation("events", "RemoveTargets")
def remove_targets(context: Context, request: Document) -> Document:
    """Remove targets from a rule; Ids that it doesn't have are in FailedEntries."""
    record = _rule(context, request, request["Rule"])
    gone, there = frozenset(request["Ids"]), {target["Id"] for target in record.targets}
    _put(context, replace(record, targets=tuple(target for target in record.targets if target["Id"] not in gone)))
    failed = [
        {
            "TargetId": target_id,
            "ErrorCode": "ResourceNotFoundException",
            "ErrorMessage": f"Rule {record.name} does not have a target with the Id {target_id}.",
        }
        for target_id in dict.fromkeys(request["Ids"])
        if target_id not in there
    ]
    return {"FailedEntryCount": len(failed), "FailedEntries": failed}


@operation("events", "ListTargetsByRule")
def list_targets_by_rule(context: Context, request: Document) -> Document:
    """List a rule's targets, as they were given."""
    record = _rule(context, request, request["Rule"])
    after = page_after(request) or ""
    targets = (target for target in sorted(record.targets, key=lambda target: target["Id"]) if target["Id"] > after)
    page, more = take_page(targets, request, key=lambda target: target["Id"], limit="Limit")
    return {"Targets": page, **more}


# ---------------------------------------------------------------- tags


@operation("events", "TagResource")
def tag_resource(context: Context, request: Document) -> Document:
    """Add tags to a rule."""
    record = _tagged(context, request)
    _put(context, replace(record, tags=merged_tags(request["Tags"], record.tags)))
    return {}


@operation("events", "UntagResource")
def untag_resource(context: Context, request: Document) -> Document:
    """Take tags off a rule."""
    record = _tagged(context, request)
    gone = frozenset(request["TagKeys"])
    _put(context, replace(record, tags={key: value for key, value in record.tags.items() if key not in gone}))
    return {}


@operation("events", "ListTagsForResource")
def list_tags_for_resource(context: Context, request: Document) -> Document:
    """List the tags of a rule."""
    return {"Tags": rendered_tags(_tagged(context, request).tags)}


def _tagged(context: Context, request: Document) -> RuleRecord:
    arn = request["ResourceARN"]
    name = arn.rsplit("/", 1)[-1]
    record = context.state.rules.get(name)
    if record is None or arn not in (context.arns.rule(name), context.arns.rule(f"{_BUS}/{name}")):
        raise ApiError(f"Rule {name:.64} does not exist on EventBus {_BUS}.", code="ResourceNotFoundException")
    return record
