"""Acting on a decision, in one transaction: the occurrence, its tasks and the next due time become durable together."""

from typing import Final

import structlog
from msgspec.structs import replace

from controlplane.api.ecs.lookup import find_cluster
from controlplane.api.ecs.tasks import NO_INSTANCES, start_tasks
from controlplane.api.errors import ApiError
from controlplane.context import Context
from controlplane.events.notes import CustomFacts
from controlplane.events.targets import SCHEDULED_SOURCE, SCHEDULED_TYPE
from controlplane.schedules.decide import Decision, Snapshot, after_attempt
from controlplane.schedules.target import run_task_request
from controlplane.standalone.stops import asked_to_stop
from controlplane.state.schedule_records import RunOutcome, ScheduleRecord, ScheduleRunRecord, TriggerRecord
from controlplane.state.state import State, Transaction
from homeport.ids import TaskId
from homeport.status import Actor, DesiredStatus, StopCode
from homeport.story import StoryLine

__all__ = ["KEPT_AFTER_DELETION_S", "MAX_RUNS", "act", "forget_trigger"]

#: Runs that are kept of each schedule or rule.
MAX_RUNS: Final = 100
#: How long the runs of a schedule stay that was deleted by its ActionAfterCompletion.
KEPT_AFTER_DELETION_S: Final = 86400.0

_log: Final = structlog.get_logger(__name__)


def act(context: Context, snapshot: Snapshot, decision: Decision) -> None:
    """Carry a decision out, in this same event-loop turn. Doing nothing writes nothing."""
    state = context.state
    trigger = decision.trigger
    with state.transaction() as transaction:
        for task_id in decision.stop:
            _stop(context, transaction, trigger, task_id)
        started: dict[str, tuple[str, ...]] = {}
        runs = list(decision.put)
        for run in decision.start:
            tried = _attempt(context, snapshot, run)
            runs.append(tried)
            new = tried.tasks[len(run.tasks) :]
            started[run.target_id] = (*started.get(run.target_id, ()), *new)
        for run in runs:
            transaction.put(run)
        _trim(state, transaction, trigger.trigger)
        if started:
            running = dict(trigger.running)
            for target_id, tasks in started.items():
                running[target_id] = (*running.get(target_id, ()), *tasks)
            trigger = replace(trigger, running={target: tasks for target, tasks in running.items() if tasks})
        transaction.put(trigger)
        if len(snapshot.targets) < len(trigger.targets):
            for due in decision.due:
                transaction.emit(_due_event(context, trigger, due))
        if decision.completed:
            forget_trigger(context, transaction, trigger, keep_runs=True)
    for run in runs:
        _tell(run)


def _due_event(context: Context, trigger: TriggerRecord, due: float) -> CustomFacts:
    """What EventBridge tells a rule's targets of a due time."""
    arn = context.arns.rule(trigger.name)
    return CustomFacts(source=SCHEDULED_SOURCE, detail_type=SCHEDULED_TYPE, detail={}, resources=(arn,), time=due)


def forget_trigger(
    context: Context, transaction: Transaction, trigger: TriggerRecord, *, keep_runs: bool = False
) -> None:
    """Delete a schedule or rule. Its runs go with it, or after a day; the tasks it has started go on."""
    state = context.state
    expires_at = context.clock.now() + KEPT_AFTER_DELETION_S
    for run in tuple(state.schedule_runs.where("trigger", trigger.trigger)):
        if keep_runs:
            transaction.put(replace(run, expires_at=expires_at))
        else:
            transaction.delete(run)
    transaction.delete(trigger)


def _attempt(context: Context, snapshot: Snapshot, run: ScheduleRunRecord) -> ScheduleRunRecord:
    """Start what a run has still to start, by the same code as RunTask; return the run as it is then."""
    trigger = snapshot.trigger
    target = next(target for target in trigger.targets if target.get("Id", "") == run.target_id)
    policy, now = snapshot.targets[run.target_id], context.clock.now()
    kind = "schedule" if isinstance(trigger, ScheduleRecord) else "rule"
    try:
        with context.state.transaction():
            request = run_task_request(target, trigger, context.arns, run)
            cluster = find_cluster(context, request["cluster"])
            tasks, failures = start_tasks(context, request, cluster, by=f"The {kind} {trigger.name}")
    except ApiError as error:
        final = error.message != NO_INSTANCES
        return after_attempt(run, policy, now, started=(), problem=f"{error.code}: {error.message}", final=final)
    except Exception as error:  # noqa: BLE001 - logged; the run says so
        # One schedule's trouble must not keep all others from running.
        _log.exception("a scheduled run failed", trigger=trigger.trigger, due_at=run.due_at)
        return after_attempt(run, policy, now, started=(), problem=f"internal error: {error!r}", final=True)
    problem = "" if len(tasks) == request["count"] else _placement_problem(failures)
    placed = replace(run, cluster=cluster.name)
    return after_attempt(placed, policy, now, started=tuple(task.id for task in tasks), problem=problem, final=False)


def _placement_problem(failures: list[dict[str, str]]) -> str:
    """Say why hosts refused, each reason once with how many gave it."""
    reasons: dict[str, int] = {}
    for failure in failures:
        detail = failure.get("detail", "")
        text = f"{failure.get('reason', '')}{f' ({detail})' if detail else ''}"
        reasons[text] = reasons.get(text, 0) + 1
    told = "; ".join(f"{reason} on {count} host{'s' if count > 1 else ''}" for reason, count in reasons.items())
    return f"no host could take it: {told}" if told else "no host could take it"


def _stop(context: Context, transaction: Transaction, trigger: TriggerRecord, task_id: str) -> None:
    task = context.state.tasks.get(task_id)
    if task is None or task.desired is DesiredStatus.STOPPED:
        return
    now = context.clock.now()
    reason = f"Replaced by the next run of {trigger.trigger}"
    transaction.put(asked_to_stop(task, reason, StopCode.USER_INITIATED, now))
    line = StoryLine(at=now, event="stop-requested", message=reason, actor=Actor.SCHEDULER.value)
    transaction.tell(TaskId(task_id), line)


def _trim(state: State, transaction: Transaction, trigger: str) -> None:
    """Drop the oldest runs beyond MAX_RUNS; those that aren't settled stay."""
    excess = state.schedule_runs.count("trigger", trigger) - MAX_RUNS
    if excess <= 0:
        return
    for run in tuple(state.schedule_runs.where("trigger", trigger)):
        if excess and run.outcome is not RunOutcome.PENDING:
            transaction.delete(run)
            excess -= 1


def _tell(run: ScheduleRunRecord) -> None:
    """Log what became of a run, once it is settled."""
    if run.outcome is RunOutcome.STARTED:
        _log.info("scheduled run started", trigger=run.trigger, due_at=run.due_at, tasks=run.tasks)
    elif run.outcome is not RunOutcome.PENDING:
        _log.warning(
            "scheduled run didn't start", trigger=run.trigger, due_at=run.due_at, outcome=run.outcome, reason=run.reason
        )
