"""EventBridge Scheduler: schedules that run ECS tasks, and their groups.

Targets other than ECS clusters, and keys of KMS, are refused by name. There is no IAM: a target's RoleArn is kept and
shown. A schedule's overlap and missed-run policies are tags (`controlplane.schedules.policy`).
"""

from typing import Any, Final

from msgspec.structs import replace

from controlplane.api.errors import ApiError
from controlplane.api.registry import Document, operation
from controlplane.api.trigger_arguments import (
    check_target,
    invalid,
    merged_tags,
    once,
    page_after,
    rendered_tags,
    take_page,
)
from controlplane.context import Context
from controlplane.schedules.act import forget_trigger
from controlplane.schedules.changes import begun, first_due, resumed_due, same_times
from controlplane.schedules.policy import DEFAULT_MAX_AGE_S, DEFAULT_MAX_RETRIES
from controlplane.schedules.timetable import parse_expression, parse_zone
from controlplane.state.schedule_records import DEFAULT_GROUP, ScheduleGroupRecord, ScheduleRecord, Timetable

__all__ = ["MAX_GROUPS", "MAX_SCHEDULES"]

#: AWS's quotas for one account and region.
MAX_SCHEDULES: Final = 1_000_000
MAX_GROUPS: Final = 500

#: How far back a StartDate may be.
_START_GRACE_S: Final = 300.0


# ---------------------------------------------------------------- schedules


@operation("scheduler", "CreateSchedule")
def create_schedule(context: Context, request: Document) -> Document:
    """Make a schedule. A rate without StartDate is due at once, as in AWS."""
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]

    def create() -> str:
        _require_group(context, group)
        if f"{group}/{name}" in context.state.schedules:
            raise ApiError(f"Schedule {name} already exists.", code="ConflictException")
        if len(context.state.schedules) >= MAX_SCHEDULES:
            raise _quota(f"There can be at most {MAX_SCHEDULES} schedules.")
        now = context.clock.now()
        timetable = begun(_timetable(request, now), now, at_once=True)
        record = ScheduleRecord(group=group, name=name, created_at=now, timetable=timetable)
        _put(context, replace(_told(context, record, request, now), next_at=first_due(timetable, now)))
        return context.arns.schedule(group, name)

    return {"ScheduleArn": once(context, "CreateSchedule", f"{group}/{name}", request, create)}


@operation("scheduler", "UpdateSchedule")
def update_schedule(context: Context, request: Document) -> Document:
    """Replace all of a schedule; what isn't given gets its default again. What runs goes on."""
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]

    def update() -> str:
        record = _schedule(context, group, name)
        now = context.clock.now()
        timetable = _timetable(request, now, before=record.timetable)
        told = _told(context, record, request, now)
        if not same_times(timetable, record.timetable):
            timetable = begun(timetable, now, at_once=True)
            told = replace(told, timetable=timetable, next_at=first_due(timetable, now))
        else:
            told = replace(told, timetable=replace(timetable, anchor_at=record.timetable.anchor_at))
            if record.state == "DISABLED" and told.state == "ENABLED":
                told = replace(told, next_at=resumed_due(told.timetable, now))
        _put(context, told)
        return context.arns.schedule(group, name)

    return {"ScheduleArn": once(context, "UpdateSchedule", f"{group}/{name}", request, update)}


@operation("scheduler", "GetSchedule")
def get_schedule(context: Context, request: Document) -> Document:
    """Describe a schedule."""
    record = _schedule(context, request.get("GroupName", DEFAULT_GROUP), request["Name"])
    timetable = record.timetable
    window: Document = {"Mode": "OFF"}
    if timetable.window_s:
        window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": round(timetable.window_s / 60)}
    document: Document = {
        **_summary(context, record),
        "ScheduleExpression": timetable.expression,
        "ScheduleExpressionTimezone": timetable.timezone,
        "Target": record.targets[0],
        "FlexibleTimeWindow": window,
        "ActionAfterCompletion": record.action_after_completion,
    }
    optional = {"StartDate": timetable.start_at, "EndDate": timetable.end_at, "Description": record.description or None}
    return document | {name: value for name, value in optional.items() if value is not None}


@operation("scheduler", "DeleteSchedule")
def delete_schedule(context: Context, request: Document) -> Document:
    """Delete a schedule with its history. The tasks it has started go on."""
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]

    def delete() -> str:
        record = _schedule(context, group, name)
        with context.state.transaction() as transaction:
            forget_trigger(context, transaction, record)
        return ""

    once(context, "DeleteSchedule", f"{group}/{name}", request, delete)
    return {}


@operation("scheduler", "ListSchedules")
def list_schedules(context: Context, request: Document) -> Document:
    """List schedules by group and name: all, those of a group, by the beginning of their names, by state."""
    group, prefix, state = request.get("GroupName"), request.get("NamePrefix", ""), request.get("State")
    after = page_after(request)
    if group is not None:
        _require_group(context, group)
        found = context.state.schedules.page("group", group, after=after)
    else:
        found = context.state.schedules.page(None, None, after=after)
    wanted = (record for record in found if record.name.startswith(prefix) and state in (None, record.state))
    page, more = take_page(wanted, request, key=lambda record: record.key, limit="MaxResults")
    summaries = [{**_summary(context, each), "Target": {"Arn": each.targets[0]["Arn"]}} for each in page]
    return {"Schedules": summaries, **more}


def _summary(context: Context, record: ScheduleRecord) -> Document:
    return {
        "Arn": context.arns.schedule(record.group, record.name),
        "Name": record.name,
        "GroupName": record.group,
        "State": record.state,
        "CreationDate": record.created_at,
        "LastModificationDate": record.modified_at,
    }


def _schedule(context: Context, group: str, name: str) -> ScheduleRecord:
    record = context.state.schedules.get(f"{group}/{name}")
    if record is None:
        _require_group(context, group)
        raise ApiError(f"Schedule {name} does not exist.", code="ResourceNotFoundException")
    return record


def _put(context: Context, record: ScheduleRecord) -> None:
    with context.state.transaction() as transaction:
        transaction.put(record)


def _told(context: Context, record: ScheduleRecord, request: Document, now: float) -> ScheduleRecord:
    """Return the schedule with what a request says, but for its times. Raises ApiError for what can't be used."""
    if "KmsKeyArn" in request:
        raise invalid("KmsKeyArn isn't supported: Homeport encrypts nothing with keys of KMS.")
    told = replace(
        record,
        modified_at=now,
        state=request.get("State", "ENABLED"),
        description=request.get("Description", ""),
        action_after_completion=request.get("ActionAfterCompletion", "NONE"),
        targets=(_target(request["Target"]),),
    )
    check_target(context, told.targets[0], told)
    return told


def _target(given: Document) -> Document:
    """Return a target with AWS's defaults filled in."""
    defaults = {"MaximumEventAgeInSeconds": DEFAULT_MAX_AGE_S, "MaximumRetryAttempts": DEFAULT_MAX_RETRIES}
    target: dict[str, Any] = {**given, "RetryPolicy": {**defaults, **given.get("RetryPolicy", {})}}
    if "EcsParameters" in given:
        target["EcsParameters"] = {"TaskCount": 1, **given["EcsParameters"]}
    return target


def _timetable(request: Document, now: float, before: Timetable | None = None) -> Timetable:
    """Read when a schedule is due. `before`: the schedule's times until now, whose StartDate may be past."""
    expression = request["ScheduleExpression"]
    try:
        parse_expression(expression)
    except ValueError as error:
        raise invalid(f"Invalid Schedule Expression {expression}. Reason: {error}.") from error
    timezone = request.get("ScheduleExpressionTimezone", "UTC")
    try:
        parse_zone(timezone)
    except ValueError as error:
        raise invalid(f"Invalid Schedule Expression Timezone: {error}.") from error
    start, end = request.get("StartDate"), request.get("EndDate")
    known = before is not None and before.start_at == start
    one_time = expression.strip().startswith("at(")
    if start is not None and not one_time and not known and start < now - _START_GRACE_S:
        raise invalid("The StartDate you specify cannot be earlier than 5 minutes ago.")
    if end is not None and not one_time and start is not None and end <= start:
        raise invalid("The EndDate you specify must be later than the StartDate.")
    return Timetable(expression=expression, timezone=timezone, start_at=start, end_at=end, window_s=_window_s(request))


def _window_s(request: Document) -> float:
    window = request["FlexibleTimeWindow"]
    minutes: int | None = window.get("MaximumWindowInMinutes")
    if window["Mode"] == "OFF":
        if minutes is not None:
            raise invalid("FlexibleTimeWindow: MaximumWindowInMinutes can't be given with the Mode OFF.")
        return 0.0
    if minutes is None:
        raise invalid("FlexibleTimeWindow: MaximumWindowInMinutes must be given with the Mode FLEXIBLE.")
    return minutes * 60.0


# ---------------------------------------------------------------- groups


@operation("scheduler", "CreateScheduleGroup")
def create_schedule_group(context: Context, request: Document) -> Document:
    """Make a schedule group."""
    name = request["Name"]

    def create() -> str:
        if _has_group(context, name):
            raise ApiError(f"Schedule group {name} already exists.", code="ConflictException")
        if len(context.state.schedule_groups) >= MAX_GROUPS:
            raise _quota(f"There can be at most {MAX_GROUPS} schedule groups.")
        now = context.clock.now()
        tags = merged_tags(request.get("Tags", ()))
        with context.state.transaction() as transaction:
            transaction.put(ScheduleGroupRecord(name=name, created_at=now, modified_at=now, tags=tags))
        return context.arns.schedule_group(name)

    return {"ScheduleGroupArn": once(context, "CreateScheduleGroup", name, request, create)}


@operation("scheduler", "GetScheduleGroup")
def get_schedule_group(context: Context, request: Document) -> Document:
    """Describe a schedule group. `default` is always there."""
    return _group_view(context, _group(context, request["Name"]))


@operation("scheduler", "ListScheduleGroups")
def list_schedule_groups(context: Context, request: Document) -> Document:
    """List schedule groups by name."""
    prefix, after = request.get("NamePrefix", ""), page_after(request)
    groups = {group.name: group for group in (_default_group(), *context.state.schedule_groups)}
    wanted = (groups[name] for name in sorted(groups) if name.startswith(prefix) and (after is None or name > after))
    page, more = take_page(wanted, request, key=lambda group: group.name, limit="MaxResults")
    return {"ScheduleGroups": [_group_view(context, group) for group in page], **more}


@operation("scheduler", "DeleteScheduleGroup")
def delete_schedule_group(context: Context, request: Document) -> Document:
    """Delete a schedule group with its schedules, at once."""
    name = request["Name"]

    def delete() -> str:
        record = _group(context, name)
        if name == DEFAULT_GROUP:
            raise invalid("The schedule group default can't be deleted.")
        with context.state.transaction() as transaction:
            for schedule in tuple(context.state.schedules.where("group", name)):
                forget_trigger(context, transaction, schedule)
            transaction.delete(record)
        return ""

    once(context, "DeleteScheduleGroup", name, request, delete)
    return {}


def _group_view(context: Context, group: ScheduleGroupRecord) -> Document:
    document: Document = {"Arn": context.arns.schedule_group(group.name), "Name": group.name, "State": "ACTIVE"}
    if group.created_at:
        document |= {"CreationDate": group.created_at, "LastModificationDate": group.modified_at}
    return document


def _default_group() -> ScheduleGroupRecord:
    """The group that is there without a record, until it gets tags."""
    return ScheduleGroupRecord(name=DEFAULT_GROUP, created_at=0.0)


def _has_group(context: Context, name: str) -> bool:
    return name == DEFAULT_GROUP or name in context.state.schedule_groups


def _group(context: Context, name: str) -> ScheduleGroupRecord:
    _require_group(context, name)
    return context.state.schedule_groups.get(name) or _default_group()


def _require_group(context: Context, name: str) -> None:
    if not _has_group(context, name):
        raise ApiError(f"Schedule group {name} does not exist.", code="ResourceNotFoundException")


def _quota(message: str) -> ApiError:
    return ApiError(message, code="ServiceQuotaExceededException")


# ---------------------------------------------------------------- tags


@operation("scheduler", "TagResource")
def tag_resource(context: Context, request: Document) -> Document:
    """Add tags to a schedule group; as in AWS schedules themselves have none."""
    group = _tagged(context, request)
    _put_tags(context, group, merged_tags(request["Tags"], group.tags))
    return {}


@operation("scheduler", "UntagResource")
def untag_resource(context: Context, request: Document) -> Document:
    """Take tags off a schedule group."""
    group = _tagged(context, request)
    gone = frozenset(request["TagKeys"])
    _put_tags(context, group, {key: value for key, value in group.tags.items() if key not in gone})
    return {}


@operation("scheduler", "ListTagsForResource")
def list_tags_for_resource(context: Context, request: Document) -> Document:
    """List the tags of a schedule group."""
    return {"Tags": rendered_tags(_tagged(context, request).tags)}


def _put_tags(context: Context, group: ScheduleGroupRecord, tags: dict[str, str]) -> None:
    with context.state.transaction() as transaction:
        transaction.put(replace(group, tags=tags))


def _tagged(context: Context, request: Document) -> ScheduleGroupRecord:
    """Return the group that an ARN names; the model lets no ARN of anything else through."""
    arn = request["ResourceArn"]
    name = arn.rsplit("/", 1)[-1]
    if arn != context.arns.schedule_group(name):
        raise ApiError(f"Schedule group {arn} does not exist.", code="ResourceNotFoundException")
    return _group(context, name)
