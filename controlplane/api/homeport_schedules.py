"""Our own operations on schedules and rules, for what EventBridge's can't say: when they run next, and how they went.

DescribeSchedules   all of them, or a page: next time, last run
DescribeSchedule    one of them: the next times, its policies, its history
"""

import heapq
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from controlplane.api import pagination
from controlplane.api.errors import ApiError, InvalidParameterException
from controlplane.api.registry import Document, operation
from controlplane.context import Context
from controlplane.schedules.look import find_trigger, inherited_tags
from controlplane.schedules.policy import policy_of
from controlplane.schedules.timetable import due_times, fires_at
from controlplane.state.records import TaskRecord
from controlplane.state.schedule_records import ScheduleRecord, ScheduleRunRecord, TriggerRecord
from homeport.ids import TaskId

__all__ = ["MAX_PAGE"]

SERVICE: Final = "homeport"
#: Items in one page of DescribeSchedules.
MAX_PAGE: Final = 1000
#: Due times that are told in advance.
_NEXT: Final = 5
#: Tasks of a history that are looked up among the archived ones.
_MOST_ARCHIVED: Final = 200

R = TypeVar("R", bound="_Request")


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all requests. Unknown members are dropped, as AWS does."""


class _DescribeSchedules(_Request, frozen=True):
    max_results: int | None = None
    next_token: str | None = None


class _DescribeSchedule(_Request, frozen=True):
    #: NAME, GROUP/NAME, schedule/GROUP/NAME, rule/NAME or an ARN.
    schedule: str


def _parse(document: Document, kind: type[R]) -> R:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidParameterException(f"The request can't be used: {error}.") from error


@operation(SERVICE, "DescribeSchedules")
def describe_schedules(context: Context, document: Document) -> Document:
    """Answer with schedules and rules by name: when each is due next, and how its last run went."""
    _parse(document, _DescribeSchedules)
    after = pagination.after(document)
    page = pagination.take(_triggers(context, after), document, key=lambda trigger: trigger.trigger, maximum=MAX_PAGE)
    return {"schedules": [_view(context, trigger) for trigger in page.items], **page.more}


@operation(SERVICE, "DescribeSchedule")
async def describe_schedule(context: Context, document: Document) -> Document:
    """Answer with a schedule or rule, its next 5 times, and its last 100 runs, newest first.

    One that ActionAfterCompletion deleted is told of for another day; its `schedule` is null.
    """
    name = _only(context, _parse(document, _DescribeSchedule).schedule)
    trigger = find_trigger(context.state, name)
    runs = list(context.state.schedule_runs.where("trigger", name))[::-1]
    tasks = await _tasks(context, runs)
    return {
        "id": name,
        "schedule": None if trigger is None else _view(context, trigger),
        "next": [] if trigger is None else _next_times(trigger),
        "targets": [] if trigger is None else _targets(context, trigger),
        "runs": [_run_view(context, run, tasks) for run in runs],
    }


def _triggers(context: Context, after: str | None) -> Iterator[TriggerRecord]:
    """Iterate rules and schedules by `trigger`, behind `after`."""
    kind, _, key = (after or "").partition("/")
    pages: list[Any] = [context.state.schedules.page(None, None, after=key if kind == "schedule" else None)]
    if kind != "schedule":  # rules come before schedules
        pages.append(context.state.rules.page(None, None, after=key or None))
    return heapq.merge(*pages, key=lambda trigger: trigger.trigger)


def _only(context: Context, reference: str) -> str:
    """Return the trigger that a reference names. Raises ApiError if there is none, or it could be several."""
    name = reference
    if reference.startswith("arn:"):
        head, _, path = reference.partition(":schedule/")
        name = f"schedule/{path}" if path else f"rule/{head.rpartition('/')[2]}"
    found = sorted(_matching(context, name))
    if not found:
        raise ApiError(
            f"No schedule or rule was found that '{reference:.300}' names.", code="ResourceNotFoundException"
        )
    if len(found) > 1:
        raise InvalidParameterException(f"'{reference:.300}' could mean several: {', '.join(found[:5])}.")
    return found[0]


def _matching(context: Context, name: str) -> set[str]:
    state = context.state
    exact = {candidate for candidate in (name, f"schedule/{name}") if _is_known(context, candidate)}
    if exact:
        return exact
    found = {schedule.trigger for schedule in state.schedules if schedule.name == name}
    if name in state.rules:
        found.add(f"rule/{name}")
    # Deleted on completion: only their runs are left.
    found |= {
        run.trigger for run in state.schedule_runs.where("expiring", value=True) if run.trigger.split("/")[-1] == name
    }
    return found


def _is_known(context: Context, trigger: str) -> bool:
    named = trigger.startswith(("schedule/", "rule/"))
    known = find_trigger(context.state, trigger) is not None or context.state.schedule_runs.count("trigger", trigger)
    return named and bool(known)


# ---------------------------------------------------------------- views


def _view(context: Context, trigger: TriggerRecord) -> Document:
    timetable = trigger.timetable
    last = context.state.schedule_runs.get(f"{trigger.trigger}/{trigger.last_run:012d}")
    group = trigger.group if isinstance(trigger, ScheduleRecord) else None
    arns = context.arns
    return {
        "id": trigger.trigger,
        "name": trigger.name,
        "group": group,
        "arn": arns.rule(trigger.name) if group is None else arns.schedule(group, trigger.name),
        "description": trigger.description,
        "state": trigger.state,
        "expression": timetable.expression,
        "timezone": timetable.timezone,
        "startAt": timetable.start_at,
        "endAt": timetable.end_at,
        "windowMinutes": timetable.window_s / 60,
        "nextAt": next((moment["runsAt"] for moment in _next_times(trigger)), None),
        "lastRun": None if last is None else _run_view(context, last, {}),
        "targets": len(trigger.targets),
    }


def _next_times(trigger: TriggerRecord) -> list[Document]:
    """Return when it is due next, and when it then runs, in the window."""
    if trigger.state != "ENABLED" or trigger.next_at is None:
        return []
    timetable = trigger.timetable
    due = [moment for _, moment in zip(range(_NEXT), due_times(timetable, trigger.next_at - 0.001), strict=False)]
    return [{"dueAt": moment, "runsAt": fires_at(timetable, trigger.trigger, moment)} for moment in due]


def _targets(context: Context, trigger: TriggerRecord) -> list[Document]:
    tags = inherited_tags(context.state, trigger)
    targets = []
    for target in trigger.targets:
        if "EcsParameters" not in target:
            continue  # DescribeWebhooks has those that events are sent to
        policy = policy_of(target, tags)
        targets.append(
            {
                "id": target.get("Id", ""),
                "cluster": target["Arn"].rsplit("/", 1)[-1],
                "taskDefinition": target["EcsParameters"]["TaskDefinitionArn"].rsplit("/", 1)[-1],
                "count": policy.count,
                "overlap": policy.overlap.value,
                "missed": policy.missed.value,
                "maxAgeS": policy.max_age_s,
                "maxRetries": policy.max_retries,
                "deadLetter": policy.dead_letter or None,
            }
        )
    return targets


def _run_view(context: Context, run: ScheduleRunRecord, tasks: dict[str, TaskRecord]) -> Document:
    return {
        "number": run.number,
        "targetId": run.target_id or None,
        "dueAt": run.due_at,
        "lastDueAt": run.last_due_at,
        "count": run.count,
        "begunAt": run.begun_at,
        "finishedAt": run.finished_at,
        "outcome": run.outcome.value,
        "attempts": run.attempts,
        "retryAt": run.retry_at,
        "reason": run.reason,
        "deadLetter": run.dead_letter or None,
        "tasks": [_task_view(context, run, task_id, tasks.get(task_id)) for task_id in run.tasks],
    }


def _task_view(context: Context, run: ScheduleRunRecord, task_id: str, task: TaskRecord | None) -> Document:
    essential = set() if task is None else {spec.name for spec in task.spec.containers if spec.essential}
    codes = [] if task is None else [each.exit_code for each in task.containers if each.name in essential]
    known = [code for code in codes if code is not None]
    return {
        "id": task_id,
        "taskArn": context.arns.task(run.cluster, task_id),
        "lastStatus": None if task is None else task.status.name,
        "exitCode": max(known, key=abs) if known else None,
        "stoppedReason": None if task is None else task.stopped_reason,
        "startedAt": None if task is None else task.started_at,
        "stoppedAt": None if task is None else task.stopped_at,
    }


async def _tasks(context: Context, runs: list[ScheduleRunRecord]) -> dict[str, TaskRecord]:
    """Return the tasks of runs that are known, in memory or (those of the newest runs) archived."""
    found: dict[str, TaskRecord] = {}
    archived = 0
    for task_id in (task_id for run in runs for task_id in run.tasks):
        task = context.state.tasks.get(task_id)
        if task is None and archived < _MOST_ARCHIVED:
            archived += 1
            task = await context.state.journal.archived_task(TaskId(task_id))
        if task is not None:
            found[task_id] = task
    return found
