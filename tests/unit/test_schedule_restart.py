"""Killed at any instant, the control plane runs each occurrence once: it and its tasks become durable together."""

from typing import Any

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.schedules.act import act
from controlplane.schedules.decide import decide
from controlplane.schedules.look import look_at, triggers
from controlplane.state.records import ClusterRecord, TaskRecord
from controlplane.state.schedule_records import RuleRecord, RunOutcome, ScheduleRecord, ScheduleRunRecord, Timetable
from controlplane.state.state import load_state
from controlplane.store.api import Commit
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import ARNS, a_context, a_definition, an_instance, connect, put

NOW = 1_800_000_000.0
TARGET: dict[str, Any] = {
    "Arn": ARNS.cluster("default"),
    "RoleArn": "role",
    "EcsParameters": {"TaskDefinitionArn": "web:1", "TaskCount": 2},
}
MINUTELY = Timetable(expression="rate(1 minute)", anchor_at=NOW)


def a_world() -> Context:
    """A cluster with room, a schedule and a rule, both first due NOW."""
    context = a_context(ManualClock(NOW))
    host = an_instance("h1", cpu=100_000, memory=100_000)
    put(
        context,
        ClusterRecord(name="default", created_at=1.0),
        host,
        a_definition(),
        ScheduleRecord(name="job", created_at=NOW, timetable=MINUTELY, next_at=NOW, targets=(TARGET,)),
        RuleRecord(name="rule", created_at=NOW, timetable=MINUTELY, next_at=NOW, targets=({**TARGET, "Id": "a"},)),
    )
    connect(context, host)
    return context


def look(context: Context) -> None:
    """Look once at every schedule and rule, as the loop does."""
    for trigger in tuple(triggers(context.state)):
        snapshot = look_at(context.state, trigger)
        act(context, snapshot, decide(snapshot, context.clock.now()))


def at(context: Context, now: float) -> Context:
    clock = context.clock
    assert isinstance(clock, ManualClock)
    clock.time = now
    look(context)
    return context


async def restarted(context: Context, revision: int) -> Context:
    """What a new process finds if the old one was killed when `revision` had just become durable."""
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    journal.release(revision)
    state = await load_state(MemoryJournal.restarted(journal))
    again = a_context(ManualClock(context.clock.now()), seed=2)
    again = Context(
        state=state,
        clock=again.clock,
        random=again.random,
        arns=again.arns,
        endpoints=again.endpoints,
        logs=again.logs,
    )
    connect(again, *state.instances)
    return again


def occurrences(context: Context) -> dict[tuple[str, float], int]:
    """(trigger, due) -> how many tasks its runs have started; each task must be of one run."""
    found: dict[tuple[str, float], int] = {}
    for run in context.state.schedule_runs:
        assert (run.trigger, run.due_at) not in found, "an occurrence has two runs"
        found[run.trigger, run.due_at] = len(run.tasks)
    owned = [task for run in context.state.schedule_runs for task in run.tasks]
    assert sorted(owned) == sorted(task.id for task in context.state.tasks)
    return found


EVERY = {(trigger, NOW + minute * 60): 2 for trigger in ("schedule/default/job", "rule/rule") for minute in range(3)}


async def test_whenever_it_is_killed_each_occurrence_runs_once() -> None:
    before = a_world().state.revision
    whole = at(at(at(a_world(), NOW), NOW + 60), NOW + 120)
    last = whole.state.revision
    assert occurrences(whole) == EVERY
    assert last - before == len(EVERY)  # one commit each
    for revision in range(before, last + 1):
        context = a_world()
        journal = context.state.journal
        assert isinstance(journal, MemoryJournal)
        journal.hold()
        for minute in range(3):
            at(context, NOW + minute * 60)
        again = await restarted(context, revision)
        clock = again.clock
        assert isinstance(clock, ManualClock)
        # The clock goes on from where the last durable commit was made.
        done = max((run.due_at for run in again.state.schedule_runs), default=NOW)
        for minute in range(int(done - NOW) // 60, 3):
            at(again, NOW + minute * 60)
        assert occurrences(again) == EVERY, f"killed at revision {revision} of {last}"


def test_tasks_their_run_and_the_next_due_time_are_one_commit() -> None:
    context = at(at(a_world(), NOW), NOW + 60)
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    commits = [commit for commit in journal.commits if any(isinstance(c.new, TaskRecord) for c in commit.changes)]
    assert len(commits) == 4
    for commit in commits:
        tasks = {change.key for change in commit.changes if isinstance(change.new, TaskRecord)}
        (run,) = [change.new for change in commit.changes if isinstance(change.new, ScheduleRunRecord)]
        assert set(run.tasks) == tasks
        assert next_at(commit) == run.due_at + 60


def next_at(commit: Commit) -> float | None:
    (trigger,) = [change.new for change in commit.changes if isinstance(change.new, ScheduleRecord | RuleRecord)]
    return trigger.next_at


def test_looking_twice_writes_nothing() -> None:
    context = at(a_world(), NOW)
    revision = context.state.revision
    look(context)
    assert context.state.revision == revision


async def test_what_was_missed_while_it_was_down_is_told_and_run_once() -> None:
    context = at(a_world(), NOW)
    again = await restarted(context, context.state.revision)
    at(again, NOW + 630)
    runs = list(again.state.schedule_runs.where("trigger", "schedule/default/job"))
    assert [(run.outcome, run.due_at - NOW, run.count) for run in runs] == [
        (RunOutcome.STARTED, 0, 1),
        (RunOutcome.MISSED, 60, 9),
        (RunOutcome.STARTED, 600, 1),
    ]


def test_a_bug_in_one_schedule_is_recorded_and_stops_no_other() -> None:
    context = a_world()
    schedule = context.state.schedules.get("default/job")
    assert schedule is not None
    put(context, replace(schedule, targets=({"Arn": 3, "EcsParameters": {"TaskDefinitionArn": "web:1"}},)))
    at(context, NOW)
    outcomes = {run.trigger: run.outcome for run in context.state.schedule_runs}
    assert outcomes == {"schedule/default/job": RunOutcome.FAILED, "rule/rule": RunOutcome.STARTED}


def test_the_oldest_runs_are_dropped_but_not_those_under_way() -> None:
    context = a_world()
    trigger = "schedule/default/job"
    runs = [
        ScheduleRunRecord(trigger=trigger, number=number, due_at=NOW - 999, outcome=RunOutcome.STARTED, finished_at=NOW)
        for number in range(1, 101)
    ]
    runs[0] = replace(runs[0], outcome=RunOutcome.PENDING, retry_at=NOW + 99, finished_at=None)
    schedule = context.state.schedules.get("default/job")
    assert schedule is not None
    put(context, *runs, replace(schedule, last_run=100))
    at(context, NOW)
    kept = [run.number for run in context.state.schedule_runs.where("trigger", trigger)]
    assert kept == [1, *range(3, 102)]
