"""EventBridge's rules: by a pattern of events, on a schedule, or both."""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from controlplane.api.events.common import BUS, check_bus, check_together, find_rule, limit_exceeded
from controlplane.api.events.patterns import invalid_pattern
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import invalid, merged_tags, page_after, take_page
from controlplane.context import Context
from controlplane.events.pattern import InvalidPattern, compile_pattern
from controlplane.events.targets import begin, forget, gone_of, is_followed
from controlplane.schedules.act import forget_trigger
from controlplane.schedules.changes import begun, first_due, resumed_due, same_times
from controlplane.schedules.timetable import parse_expression
from controlplane.state.schedule_records import RuleRecord, Timetable

__all__ = ["MAX_RULES"]

#: AWS's quota.
MAX_RULES: Final = 300


@operation("events", "PutRule")
def put_rule(context: Context, request: Document) -> Document:
    """Make or change a rule with an EventPattern, a ScheduleExpression or both. A rate is first due after a period."""
    check_bus(context, request)
    pattern, timetable = _pattern(request), _timetable(request)
    name, now = request["Name"], context.clock.now()
    known = context.state.rules.get(name)
    state = _state(request, known)
    if known is None and len(context.state.rules) >= MAX_RULES:
        raise limit_exceeded(f"There can be at most {MAX_RULES} rules.")
    if known is not None and same_times(timetable, known.timetable):
        record = known
    else:
        if timetable.expression:
            timetable = begun(timetable, now, at_once=False)
        next_at = first_due(timetable, now) if timetable.expression else None
        if known is None:
            tags = merged_tags(request.get("Tags", ()))
            record = RuleRecord(name=name, created_at=now, timetable=timetable, tags=tags, next_at=next_at)
        else:
            record = replace(known, timetable=timetable, next_at=next_at)
    record = replace(
        record,
        pattern=pattern,
        modified_at=now,
        description=request.get("Description", ""),
        role_arn=request.get("RoleArn", ""),
    )
    check_together(record)
    _put(context, known, _in_state(record, state, now))
    return {"RuleArn": context.arns.rule(name)}


@operation("events", "DescribeRule")
def describe_rule(context: Context, request: Document) -> Document:
    """Describe a rule."""
    record = find_rule(context, request, request["Name"])
    return {**_rule_view(context, record), "CreatedBy": context.arns.account}


@operation("events", "ListRules")
def list_rules(context: Context, request: Document) -> Document:
    """List rules by name."""
    check_bus(context, request)
    prefix = request.get("NamePrefix", "")
    rules = (rule for rule in _rules_after(context, request) if rule.name.startswith(prefix))
    page, more = take_page(rules, request, key=lambda rule: rule.name, limit="Limit")
    return {"Rules": [_rule_view(context, rule) for rule in page], **more}


@operation("events", "ListRuleNamesByTarget")
def list_rule_names_by_target(context: Context, request: Document) -> Document:
    """List the names of the rules that have a target with this ARN."""
    check_bus(context, request)
    wanted = request["TargetArn"]
    rules = (rule for rule in _rules_after(context, request) if any(target["Arn"] == wanted for target in rule.targets))
    page, more = take_page(rules, request, key=lambda rule: rule.name, limit="Limit")
    return {"RuleNames": [rule.name for rule in page], **more}


@operation("events", "EnableRule")
def enable_rule(context: Context, request: Document) -> Document:
    """Enable a rule; what was due and what happened while it was disabled is passed over.

    Endpoints that were given up with HTTP 410 get events again.
    """
    record = find_rule(context, request, request["Name"])
    with context.state.transaction() as transaction:
        _put(context, record, _in_state(record, "ENABLED", context.clock.now()))
        begin(context, transaction, record, gone_of(context.state, record))
    return {}


@operation("events", "DisableRule")
def disable_rule(context: Context, request: Document) -> Document:
    """Disable a rule. What it has started goes on."""
    record = find_rule(context, request, request["Name"])
    _put(context, record, _in_state(record, "DISABLED", context.clock.now()))
    return {}


@operation("events", "DeleteRule")
def delete_rule(context: Context, request: Document) -> Document:
    """Delete a rule that has no targets, with its history. One that isn't there is passed over, as in AWS."""
    check_bus(context, request)
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
        "EventBusName": BUS,
    }
    optional = {
        "EventPattern": record.pattern,
        "ScheduleExpression": record.timetable.expression,
        "Description": record.description,
        "RoleArn": record.role_arn,
    }
    return document | {name: value for name, value in optional.items() if value}


def _pattern(request: Document) -> str:
    text: str = request.get("EventPattern", "")
    if text:
        try:
            compile_pattern(text)
        except InvalidPattern as error:
            raise invalid_pattern(error) from error
    return text


def _timetable(request: Document) -> Timetable:
    expression = request.get("ScheduleExpression", "")
    if not expression:
        if not request.get("EventPattern"):
            raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
        return Timetable(expression="")
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
    if record.state == "DISABLED" and state == "ENABLED" and record.timetable.expression:
        record = replace(record, next_at=resumed_due(record.timetable, now))
    return replace(record, state=state)


def _put(context: Context, before: RuleRecord | None, rule: RuleRecord) -> None:
    """Put a rule. Targets that get events from now on, but didn't before, begin with those to come."""
    with context.state.transaction() as transaction:
        transaction.put(rule)
        if before is None:
            return
        enabled = before.state == "DISABLED" and rule.state == "ENABLED"
        followed = [target for target in rule.targets if is_followed(rule, target)]
        new = [target["Id"] for target in followed if enabled or not is_followed(before, target)]
        begin(context, transaction, rule, new, anew=True)
        forget(
            context.state, transaction, rule.name, [target["Id"] for target in rule.targets if target not in followed]
        )
