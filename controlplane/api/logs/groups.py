"""Log groups: CreateLogGroup, DeleteLogGroup, DescribeLogGroups, ListLogGroups."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from controlplane.api.errors import ApiError
from controlplane.api.logs.arguments import find_group, millis, page_token, token_key
from controlplane.api.logs.calls import invalid, logs_operation
from controlplane.api.logs.tags import merged
from controlplane.api.registry import Document
from controlplane.context import Context
from controlplane.logs.api import GroupMissing, LogGroup

__all__ = ["check_unprotected"]

#: Groups in a page, if a request doesn't say.
_PAGE: Final = 50

#: AWS keeps group names that begin with this, in any case, for itself; `/aws/` is anybody's.
_RESERVED_PREFIX: Final = "aws/"

#: Its events are delivered to S3 or Firehose and go after a day.
_DELIVERY: Final = "DELIVERY"

#: DescribeLogGroups gives groups of both of these classes for either.
_RARELY_READ: Final = ("INFREQUENT_ACCESS", "ESSENTIALS")


@logs_operation("CreateLogGroup")
async def create_log_group(context: Context, request: Document) -> Document:
    """Make a log group, whose events never expire until PutRetentionPolicy says so. Every class but DELIVERY is kept
    and answered alike.
    """
    name = request["logGroupName"]
    if name.lower().startswith(_RESERVED_PREFIX):
        raise invalid("Log groups starting with AWS/ are reserved for AWS.")
    if request.get("kmsKeyId"):
        raise invalid("kmsKeyId isn't served by Homeport: events are kept in the store as they are, without a KMS key.")
    log_class = request.get("logGroupClass", "STANDARD")
    if log_class == _DELIVERY:
        raise invalid(
            "logGroupClass DELIVERY isn't served by Homeport, which delivers nothing to S3 or Firehose: use STANDARD."
        )
    await context.logs.create_group(
        LogGroup(
            name=name,
            created_at=millis(context),
            tags=merged({}, request.get("tags", {}), name),
            log_class=log_class,
            deletion_protection=request.get("deletionProtectionEnabled", False),
        )
    )
    return {}


@logs_operation("DeleteLogGroup")
async def delete_log_group(context: Context, request: Document) -> Document:
    """Delete a log group with its streams and events, unless it is protected."""
    group = context.logs.group(request["logGroupName"])
    check_unprotected(group)
    await context.logs.delete_group(group.name)
    return {}


@logs_operation("DescribeLogGroups")
async def describe_log_groups(context: Context, request: Document) -> Document:
    """Describe log groups by name: all, those named, or those whose names begin with or contain a text."""
    page, more = _page(_described(context, request), request, "DescribeLogGroups")
    return {"logGroups": [_view(context, group) for group in page], **more}


@logs_operation("ListLogGroups")
async def list_log_groups(context: Context, request: Document) -> Document:
    """List log groups by name, also those with certain tags, or whose names match one of up to five patterns."""
    for member in ("dataSources", "fieldIndexNames"):
        if request.get(member):
            raise invalid(f"{member} isn't served by Homeport, whose log groups have neither sources nor indexes.")
    wanted = [request["logGroupClass"]] if "logGroupClass" in request else None
    pattern = request.get("logGroupNamePattern")
    found = (
        group
        for group in _of_accounts(context, request)
        if (wanted is None or group.log_class in wanted)
        and (pattern is None or _matches(group.name, pattern))
        and all(_has_tag(group.tags, tag) for tag in request.get("logGroupTags", ()))
    )
    page, more = _page(found, request, "ListLogGroups")
    return {"logGroups": [_summary(context, group) for group in page], **more}


def check_unprotected(group: LogGroup) -> None:
    """Raise ApiError ValidationException if nothing may be deleted from a group."""
    if group.deletion_protection:
        raise ApiError(
            f"The log group {group.name} has deletion protection. To delete, switch it off with"
            " PutLogGroupDeletionProtection first.",
            code="ValidationException",
        )


# ---------------------------------------------------------------- which


def _described(context: Context, request: Document) -> Iterator[LogGroup]:
    prefix, pattern = request.get("logGroupNamePrefix"), request.get("logGroupNamePattern")
    log_class, identifiers = request.get("logGroupClass"), request.get("logGroupIdentifiers")
    if prefix is not None and pattern is not None:
        raise invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
    if identifiers is not None:
        if (prefix, pattern, log_class) != (None, None, None):
            raise invalid("logGroupIdentifiers can't be given with a logGroupNamePrefix, -Pattern or logGroupClass.")
        return _named(context, identifiers)
    classes = _RARELY_READ if log_class in _RARELY_READ else (log_class,)
    return (
        group
        for group in _of_accounts(context, request)
        if group.name.startswith(prefix or "")
        and (pattern or "") in group.name
        and (log_class is None or group.log_class in classes)
    )


def _named(context: Context, identifiers: Iterable[str]) -> Iterator[LogGroup]:
    """Yield the groups of names or ARNs that there are, by name."""
    found: dict[str, LogGroup] = {}
    for identifier in identifiers:
        try:
            group = find_group(context, identifier)
        except GroupMissing:
            continue
        found[group.name] = group
    return (found[name] for name in sorted(found))


def _of_accounts(context: Context, request: Document) -> Sequence[LogGroup]:
    """Return every group, or none if only other accounts are asked for: no account is linked to this one."""
    accounts = request.get("accountIdentifiers")
    elsewhere = request.get("includeLinkedAccounts") and accounts and context.arns.account not in accounts
    return () if elsewhere else context.logs.groups()


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a name has one of the texts that `|` separates: at its beginning behind `^`, else anywhere."""
    return any(
        name.startswith(part.removeprefix("^")) if part.startswith("^") else part in name for part in pattern.split("|")
    )


def _has_tag(tags: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    """Tell whether tags have a key, with one of the values if any are given; `!` before a value: all others."""
    value = tags.get(wanted["key"])
    if value is None:
        return False
    values = wanted.get("values", ())
    return not values or any(
        not _alike(value, v.removeprefix("!")) if v.startswith("!") else _alike(value, v) for v in values
    )


def _alike(value: str, wanted: str) -> bool:
    """Compare as CloudWatch does: with a `*`, which stands for anything, regardless of case."""
    return fnmatchcase(value.lower(), wanted.lower()) if "*" in wanted else value == wanted


def _page(groups: Iterable[LogGroup], request: Document, operation: str) -> tuple[list[LogGroup], dict[str, str]]:
    """Cut a page off; return it and the nextToken, if anything follows."""
    after = token_key(request, operation, tuple[str])
    size = request.get("limit", _PAGE)
    page: list[LogGroup] = []
    for group in groups:
        if after is not None and group.name <= after[0]:
            continue
        if len(page) == size:
            return page, {"nextToken": page_token(operation, (page[-1].name,))}
        page.append(group)
    return page, {}


# ---------------------------------------------------------------- shown


def _summary(context: Context, group: LogGroup) -> Document:
    return {
        "logGroupName": group.name,
        "logGroupArn": context.arns.log_group(group.name),
        "logGroupClass": group.log_class,
    }


def _view(context: Context, group: LogGroup) -> Document:
    view = {
        **_summary(context, group),
        "creationTime": group.created_at,
        "metricFilterCount": 0,
        "arn": f"{context.arns.log_group(group.name)}:*",
        "storedBytes": group.stored_bytes,
        "deletionProtectionEnabled": group.deletion_protection,
    }
    if group.retention_days is not None:
        view["retentionInDays"] = group.retention_days
    return view
