"""The targets of EventBridge's rules: ECS clusters, API destinations and log groups."""

from typing import Final

from msgspec.structs import replace

from controlplane.api.events.common import check_together, find_rule, limit_exceeded
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import check_target, invalid, page_after, take_page
from controlplane.context import Context
from controlplane.events.outgoing import FORBIDDEN_HEADERS
from controlplane.events.targets import (
    TargetKind,
    begin,
    destination_of,
    forget,
    is_followed,
    kind_of,
    log_group_of,
)
from controlplane.events.transform import BadInput, check_input, parse_path
from controlplane.state.schedule_records import RuleRecord

__all__ = ["MAX_TARGETS"]

#: AWS's quota.
MAX_TARGETS: Final = 5

#: Members that a target other than an ECS cluster may have.
_COMMON: Final = frozenset({"Id", "Arn", "RoleArn", "Input", "InputPath", "InputTransformer", "RetryPolicy"})
_MEMBERS: Final = {TargetKind.HTTP: _COMMON | {"HttpParameters"}, TargetKind.LOGS: _COMMON}


@operation("events", "PutTargets")
def put_targets(context: Context, request: Document) -> Document:
    """Add targets to a rule, or replace those with the same Id: all, or none. They begin with events to come."""
    record = find_rule(context, request, request["Rule"])
    targets = {target["Id"]: target for target in record.targets}
    for target in request["Targets"]:
        _check(context, target, record)
        targets[target["Id"]] = target
    if len(targets) > MAX_TARGETS:
        raise limit_exceeded(f"A rule can have at most {MAX_TARGETS} targets.")
    rule = replace(record, targets=tuple(targets.values()))
    check_together(rule)
    given = {target["Id"]: target for target in request["Targets"]}
    with context.state.transaction() as transaction:
        transaction.put(rule)
        begin(context, transaction, rule, [name for name, target in given.items() if is_followed(rule, target)])
        forget(context.state, transaction, rule.name, [name for name in given if not is_followed(rule, given[name])])
    return {"FailedEntryCount": 0, "FailedEntries": []}


@operation("events", "RemoveTargets")
def remove_targets(context: Context, request: Document) -> Document:
    """Remove targets from a rule; Ids that it doesn't have are in FailedEntries."""
    record = find_rule(context, request, request["Rule"])
    gone, there = frozenset(request["Ids"]), {target["Id"] for target in record.targets}
    with context.state.transaction() as transaction:
        transaction.put(replace(record, targets=tuple(each for each in record.targets if each["Id"] not in gone)))
        forget(context.state, transaction, record.name, gone & there)
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
    record = find_rule(context, request, request["Rule"])
    after = page_after(request) or ""
    targets = (target for target in sorted(record.targets, key=lambda target: target["Id"]) if target["Id"] > after)
    page, more = take_page(targets, request, key=lambda target: target["Id"], limit="Limit")
    return {"Targets": page, **more}


def _check(context: Context, target: Document, rule: RuleRecord) -> None:
    """Raise ApiError ValidationException for a target that can't be served."""
    kind = kind_of(target["Arn"])
    try:
        check_input(target)
        if kind is TargetKind.HTTP:
            _check_http(context, target)
        elif kind is TargetKind.LOGS:
            _check_logs(context, target)
        elif kind is TargetKind.ECS:
            check_target(context, target, rule)
        else:
            raise invalid(
                f"The target {target['Arn']:.300} isn't served by Homeport: a target is an ECS cluster of this account"
                f" and region ({context.arns.cluster('NAME')}), an API destination, or a CloudWatch Logs group"
                f" ({context.arns.log_group('NAME')})."
            )
    except BadInput as error:
        raise invalid(str(error)) from error


def _check_members(target: Document, kind: TargetKind, what: str) -> None:
    for member in target:
        if member not in _MEMBERS[kind]:
            raise invalid(f"{member} isn't served by Homeport for {what} (target {target['Id']}).")


def _check_logs(context: Context, target: Document) -> None:
    _check_members(target, TargetKind.LOGS, "a log group")
    name = log_group_of(target["Arn"])
    if not name or target["Arn"].removesuffix(":*") != context.arns.log_group(name):
        raise invalid(f"The target {target['Arn']:.300} is no log group of this account and region.")


def _check_http(context: Context, target: Document) -> None:
    _check_members(target, TargetKind.HTTP, "an API destination")
    destination = destination_of(context.state, target["Arn"])
    if destination is None or target["Arn"] != context.arns.api_destination(destination.name, destination.id):
        raise invalid(f"The target {target['Arn']:.300} is no API destination of this account and region.")
    parameters = target.get("HttpParameters") or {}
    values = parameters.get("PathParameterValues") or []
    wanted = destination.endpoint.count("*")
    if len(values) != wanted:
        raise invalid(
            f"PathParameterValues of target {target['Id']} must be as many as the * in the endpoint of"
            f" {destination.name}: {wanted}, but were {len(values)}."
        )
    headers = parameters.get("HeaderParameters") or {}
    for name in headers:
        if name.lower() in FORBIDDEN_HEADERS:
            raise invalid(f"The header {name} can't be set by HeaderParameters.")
    for value in [*values, *headers.values(), *(parameters.get("QueryStringParameters") or {}).values()]:
        if value.startswith("$."):
            parse_path(value)
