"""Decisions about schedules: every occurrence once, by the policies for overlap, missed times and retries."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.schedules.changes import begun, first_due, resumed_due, same_times
from controlplane.schedules.decide import PRECISION_S, Decision, Snapshot, after_attempt, decide
from controlplane.schedules.policy import MissedPolicy, OverlapPolicy, TargetPolicy, policy_of, tags_of_target
from controlplane.schedules.timetable import upcoming
from controlplane.state.schedule_records import RuleRecord, RunOutcome, ScheduleRecord, ScheduleRunRecord, Timetable

#: Another test may have the machine meanwhile.
PATIENT = settings(deadline=None)

NOW = 1_800_000_000.0
ALLOW = TargetPolicy()
SKIP = TargetPolicy(overlap=OverlapPolicy.SKIP)
REPLACE = TargetPolicy(overlap=OverlapPolicy.REPLACE)


def a_schedule(*, expression: str = "rate(5 minutes)", window_s: float = 0.0, **members: Any) -> ScheduleRecord:
    """A schedule whose first due time is NOW."""
    timetable = Timetable(expression=expression, anchor_at=NOW, window_s=window_s)
    return ScheduleRecord(name="job", created_at=NOW, timetable=timetable, **{"next_at": NOW, **members})


def look(trigger: Any, now: float, policy: TargetPolicy = ALLOW, **members: Any) -> Decision:
    return decide(Snapshot(trigger=trigger, targets={"": policy}, **members), now)


def what(decision: Decision) -> list[tuple[str, float]]:
    """The runs of a decision: their outcome, or "start", and when they were due."""
    return [(run.outcome.value, run.due_at - NOW) for run in decision.put] + [
        ("start", run.due_at - NOW) for run in decision.start
    ]


def a_run(**members: Any) -> ScheduleRunRecord:
    defaults: dict[str, Any] = {"trigger": "schedule/default/job", "number": 1, "due_at": NOW}
    return ScheduleRunRecord(outcome=RunOutcome.PENDING, **{**defaults, **members})


def test_nothing_happens_before_the_time() -> None:
    decision = look(a_schedule(), NOW - 1)
    assert (what(decision), decision.wake_at, decision.trigger) == ([], NOW, a_schedule())


def test_what_is_due_starts_and_the_next_time_is_named() -> None:
    decision = look(a_schedule(), NOW)
    assert what(decision) == [("start", 0.0)]
    assert decision.trigger.next_at == decision.wake_at == NOW + 300
    assert decision.trigger.last_run == decision.start[0].number == 1
    # The same look again finds nothing to do.
    assert what(look(decision.trigger, NOW)) == []


def test_a_disabled_schedule_does_nothing() -> None:
    decision = look(a_schedule(state="DISABLED"), NOW + 1000)
    assert (what(decision), decision.wake_at, decision.trigger.next_at) == ([], None, NOW)


def test_a_rule_runs_all_its_targets() -> None:
    rule = RuleRecord(name="r", created_at=NOW, timetable=a_schedule().timetable, next_at=NOW)
    decision = decide(Snapshot(trigger=rule, targets={"a": ALLOW, "b": ALLOW}), NOW)
    assert [(run.target_id, run.number) for run in decision.start] == [("a", 1), ("b", 2)]
    without = decide(Snapshot(trigger=rule, targets={}), NOW)
    assert (without.start, without.trigger.next_at) == ((), NOW + 300)


def test_a_little_late_is_on_time() -> None:
    decision = look(a_schedule(expression="rate(1 minute)"), NOW + PRECISION_S - 1)
    assert what(decision) == [("start", 0.0)]
    assert decision.trigger.next_at == NOW + 60


def test_of_missed_occurrences_the_last_runs() -> None:
    decision = look(a_schedule(), NOW + 1000)
    assert what(decision) == [("MISSED", 0.0), ("start", 900.0)]
    (missed,) = decision.put
    assert (missed.count, missed.last_due_at) == (3, NOW + 600)
    assert missed.reason.startswith(
        "3 occurrences, the last due 2027-01-15T08:10:00Z: the control plane was not running"
    )
    assert decision.trigger.next_at == NOW + 1200


def test_missed_occurrences_do_not_run_beside_one_that_is_on_time() -> None:
    decision = look(a_schedule(), NOW + 910)
    assert what(decision) == [("MISSED", 0.0), ("start", 900.0)]
    assert decision.put[0].count == 3


def test_missed_occurrences_older_than_the_maximum_age_do_not_run() -> None:
    policy = TargetPolicy(max_age_s=60)
    decision = look(a_schedule(expression="rate(1 hour)"), NOW + 1800, policy)
    assert what(decision) == [("MISSED", 0.0)]
    assert "more than 60 seconds ago" in decision.put[0].reason


def test_missed_occurrences_are_skipped_if_asked_for() -> None:
    decision = look(a_schedule(), NOW + 1000, TargetPolicy(missed=MissedPolicy.SKIP))
    assert [(run.outcome, run.count) for run in decision.put] == [(RunOutcome.MISSED, 4)]
    assert decision.start == ()


def test_years_of_missed_occurrences_are_handled_at_once() -> None:
    ten_years = 10 * 366 * 86400.0
    decision = look(a_schedule(expression="cron(* * * * ? *)", next_at=NOW), NOW + ten_years + 30)
    (missed,) = decision.put
    assert missed.reason.startswith("at least 10000 occurrences")
    assert [run.due_at for run in decision.start] == [NOW + ten_years]
    assert decision.trigger.next_at == NOW + ten_years + 60
    # So they are if none is on time.
    decision = look(a_schedule(), NOW + ten_years + 100)
    assert [run.due_at for run in decision.start] == [NOW + ten_years]
    assert decision.trigger.next_at == NOW + ten_years + 300


def test_a_window_delays_the_run_and_nothing_else() -> None:
    schedule = a_schedule(window_s=600.0)
    early = look(schedule, NOW)
    assert (what(early), early.trigger.next_at) == ([], NOW)
    assert early.wake_at is not None
    assert NOW < early.wake_at < NOW + 600
    at_its_moment = look(schedule, early.wake_at)
    assert what(at_its_moment)[0] == ("start", 0.0)
    # With a window longer than the period two may come together, each within its own window.
    assert what(look(schedule, NOW + 590)) == [("start", 0.0), ("start", 300.0)]


# ---------------------------------------------------------------- overlap


def test_allow_runs_beside_earlier_tasks() -> None:
    assert what(look(a_schedule(), NOW, ALLOW, live={"": ("t1",)})) == [("start", 0.0)]


def test_skip_leaves_out_what_overlaps() -> None:
    assert what(look(a_schedule(), NOW, SKIP, live={"": ("t1",)})) == [("SKIPPED", 0.0)]
    assert what(look(a_schedule(), NOW, SKIP, live={"other": ("t1",)})) == [("start", 0.0)]
    # One that is still tried again is an earlier occurrence too.
    waiting = a_run(due_at=NOW - 60, attempts=1, retry_at=NOW + 5)
    assert what(look(a_schedule(last_run=1), NOW, SKIP, pending=(waiting,))) == [("SKIPPED", 0.0)]


def test_a_retry_comes_no_later_than_it_was_meant_though_the_clock_was_set_back() -> None:
    waiting = a_run(due_at=NOW - 60, attempts=1, retry_at=NOW + 3600)
    assert what(look(a_schedule(last_run=1), NOW, pending=(waiting,)))[:1] == [("start", -60.0)]


def test_replace_stops_what_runs_and_waits_for_its_end() -> None:
    decision = look(a_schedule(), NOW, REPLACE, live={"": ("t1", "t2")})
    assert decision.stop == ("t1", "t2")
    assert decision.waits_for == {"t1", "t2"}
    (waiting,) = decision.put
    assert (waiting.outcome, waiting.retry_at, decision.start) == (RunOutcome.PENDING, None, ())
    again = look(decision.trigger, NOW + 10, REPLACE, pending=(waiting,), live={"": ("t2",)})
    assert (again.stop, sorted(again.waits_for)) == (("t2",), ["t2"])
    done = look(decision.trigger, NOW + 20, REPLACE, pending=(waiting,))
    assert [run.number for run in done.start] == [waiting.number]


def test_replace_gives_up_on_tasks_that_do_not_stop() -> None:
    policy = replace(REPLACE, max_age_s=120.0)
    first = look(a_schedule(expression="rate(1 day)"), NOW, policy, live={"": ("t1",)})
    assert first.wake_at == NOW + 121
    late = look(first.trigger, NOW + 121, policy, pending=first.put, live={"": ("t1",)})
    assert what(late) == [("FAILED", 0.0)]
    assert late.put[0].reason.startswith("waits for 1 earlier task to stop; given up after 120 seconds")


def test_replace_takes_the_place_of_a_run_that_still_waits() -> None:
    older = a_run(due_at=NOW - 300, attempts=1, retry_at=NOW + 5)
    decision = look(a_schedule(last_run=1), NOW, REPLACE, pending=(older,))
    assert what(decision) == [("SKIPPED", -300.0), ("start", 0.0)]


# ---------------------------------------------------------------- attempts


def test_attempts_back_off_and_end() -> None:
    policy, run, delays = TargetPolicy(max_retries=11), a_run(), []
    now = NOW
    for _ in range(11):
        run = after_attempt(run, policy, now, started=(), problem="no room", final=False)
        assert run.retry_at is not None
        delays.append(run.retry_at - now)
        now = run.retry_at
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    run = after_attempt(run, policy, now, started=(), problem="no room", final=False)
    assert (run.outcome, run.reason) == (RunOutcome.FAILED, "no room; given up after 12 attempts")


def test_attempts_end_with_the_maximum_age() -> None:
    run = after_attempt(a_run(), TargetPolicy(max_age_s=60), NOW + 60, started=(), problem="no room", final=False)
    assert run.outcome is RunOutcome.FAILED


def test_what_was_started_stays_started() -> None:
    run = after_attempt(a_run(), ALLOW, NOW, started=("a",), problem="no room", final=False)
    assert (run.outcome, run.tasks, run.retry_at) == (RunOutcome.PENDING, ("a",), NOW + 1)
    run = after_attempt(run, ALLOW, NOW + 1, started=("b",), problem="", final=False)
    assert (run.outcome, run.tasks, run.reason) == (RunOutcome.STARTED, ("a", "b"), "")


def test_a_run_under_way_goes_on_when_its_moment_has_come() -> None:
    waiting = a_run(attempts=1, retry_at=NOW + 5, reason="no room")
    schedule = a_schedule(next_at=NOW + 300, last_run=1)
    early = look(schedule, NOW + 1, pending=(waiting,))
    assert (what(early), early.wake_at) == ([], NOW + 5)
    assert what(look(schedule, NOW + 5, pending=(waiting,))) == [("start", 0.0)]
    disabled = replace(schedule, state="DISABLED")
    assert what(look(disabled, NOW + 5, pending=(waiting,))) == [("start", 0.0)]


def test_a_run_whose_target_was_removed_fails() -> None:
    waiting = a_run(target_id="gone", attempts=1, retry_at=NOW + 5)
    decision = look(a_schedule(next_at=None), NOW, pending=(waiting,))
    assert [(run.outcome, run.reason) for run in decision.put] == [(RunOutcome.FAILED, "its target was removed")]


# ---------------------------------------------------------------- completion


def test_completion_deletes_only_what_has_run_and_has_no_more_to_do() -> None:
    once = a_schedule(expression="at(2027-01-15T08:00:00)", action_after_completion="DELETE")
    begun_ = look(once, NOW)
    assert (what(begun_), begun_.completed, begun_.trigger.next_at) == ([("start", 0.0)], False, None)
    assert look(begun_.trigger, NOW + 1).completed
    assert not look(begun_.trigger, NOW + 1, pending=(a_run(retry_at=NOW + 5),)).completed
    assert not look(replace(begun_.trigger, action_after_completion="NONE"), NOW + 1).completed
    assert not look(replace(once, next_at=None), NOW).completed


# ---------------------------------------------------------------- every occurrence once


class World:
    """A schedule through time: acts on decisions as `act` does, with tasks that start, or don't, by a plan."""

    def __init__(self, schedule: ScheduleRecord, policy: TargetPolicy) -> None:
        self.schedule: Any = schedule
        self.policy = policy
        self.pending: dict[int, ScheduleRunRecord] = {}
        self.settled: list[ScheduleRunRecord] = []
        self.started = 0
        self.live: set[str] = set()

    def look(self, now: float, *, room: bool, restart: bool) -> None:
        snapshot = Snapshot(
            trigger=self.schedule,
            targets={"": self.policy},
            pending=tuple(self.pending.values()),
            live={"": tuple(sorted(self.live))},
        )
        decision = decide(snapshot, now)
        if restart:
            return  # the process died before the transaction: nothing of it happened
        self.live -= set(decision.stop)
        self.schedule = decision.trigger
        runs = list(decision.put)
        for run in decision.start:
            task = (f"t{self.started}",) if room else ()
            self.started += len(task)
            if self.policy.overlap is not OverlapPolicy.ALLOW:
                assert not self.live, "two at a time"
            self.live |= set(task)
            runs.append(
                after_attempt(run, self.policy, now, started=task, problem="" if room else "no room", final=False)
            )
        for run in runs:
            if run.outcome is RunOutcome.PENDING:
                self.pending[run.number] = run
            else:
                self.pending.pop(run.number, None)
                self.settled.append(run)


STEPS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 50), st.floats(0, 900), st.sampled_from([60.0, 300.0, 5000.0])),
        st.booleans(),  # room
        st.sampled_from([False, False, False, True]),  # restart
        st.booleans(),  # tasks end
    ),
    max_size=25,
)
POLICIES = st.builds(
    TargetPolicy,
    overlap=st.sampled_from(OverlapPolicy),
    missed=st.sampled_from(MissedPolicy),
    max_age_s=st.sampled_from([60.0, 600.0, 86400.0]),
    max_retries=st.sampled_from([0, 1, 185]),
)


@PATIENT
@given(
    STEPS,
    POLICIES,
    st.sampled_from(["rate(1 minute)", "rate(5 minutes)", "cron(0/7 * * * ? *)", "at(2027-01-15T08:20:00)"]),
    st.sampled_from([0.0, 0.0, 900.0]),
)
def test_every_occurrence_is_accounted_for_once(
    steps: list[tuple[float, bool, bool, bool]], policy: TargetPolicy, expression: str, window_s: float
) -> None:
    timetable = begun(Timetable(expression=expression, window_s=window_s), NOW, at_once=True)
    schedule = a_schedule(next_at=first_due(timetable, NOW))
    world = World(replace(schedule, timetable=timetable), policy)
    now = NOW
    for wait_s, room, restart, tasks_end in steps:
        now += wait_s
        if tasks_end:
            world.live.clear()
        world.look(now, room=room, restart=restart)
    end = world.schedule.next_at or now + 1
    runs = [*world.settled, *world.pending.values()]
    assert len({run.number for run in runs}) == len(runs)
    all_due = upcoming(timetable, NOW - 1, 2000)
    accounted = sorted(
        due
        for run in runs
        for due in (
            [run.due_at]
            if run.outcome is not RunOutcome.MISSED
            else [each for each in all_due if run.due_at <= each <= (run.last_due_at or 0)]
        )
    )
    expected = [due for due in all_due if due < end]
    assert accounted == expected
    assert sum(run.count for run in runs) == len(expected)
    assert len({run.id for run in runs}) == len(runs)
    # Looking again at the same moment, with no room, changes nothing more once what was stopped has ended.
    for _ in range(3):
        world.look(now, room=False, restart=False)
    before = (world.schedule, dict(world.pending), list(world.settled))
    world.look(now, room=False, restart=False)
    assert (world.schedule, world.pending, world.settled) == before


# ---------------------------------------------------------------- policies and changes


def test_policies_come_from_the_target_then_from_what_it_belongs_to() -> None:
    inherited = {"homeport:overlap": "skip", "homeport:missed": "skip", "team": "red"}
    assert policy_of({}, {}) == TargetPolicy()
    assert policy_of({}, inherited) == TargetPolicy(overlap=OverlapPolicy.SKIP, missed=MissedPolicy.SKIP)
    target = {
        "EcsParameters": {"TaskCount": 2, "Tags": [{"homeport:overlap": "replace"}]},
        "RetryPolicy": {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0},
        "DeadLetterConfig": {"Arn": "queue"},
    }
    assert policy_of(target, inherited) == TargetPolicy(
        overlap=OverlapPolicy.REPLACE,
        missed=MissedPolicy.SKIP,
        max_age_s=60,
        max_retries=0,
        count=2,
        dead_letter="queue",
    )


@pytest.mark.parametrize("name", ["homeport:overlap", "homeport:missed"])
def test_policies_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"Tag {name} must be one of .*skip"):
        policy_of({}, {name: "sometimes"})


def test_tags_are_read_in_every_form_that_clients_send() -> None:
    tags = [{"Key": "a", "Value": "1"}, {"key": "b", "value": "2"}, {"c": "3", "d": "4"}, {"Key": "e"}]
    expected = {"a": "1", "b": "2", "c": "3", "d": "4", "e": ""}
    assert tags_of_target({"EcsParameters": {"Tags": tags}}) == expected


def test_where_a_rate_begins() -> None:
    plain = Timetable(expression="rate(1 hour)")
    assert first_due(begun(plain, NOW, at_once=True), NOW) == NOW
    assert first_due(begun(plain, NOW, at_once=False), NOW) == NOW + 3600
    later = replace(plain, start_at=NOW + 50)
    assert first_due(begun(later, NOW, at_once=True), NOW) == NOW + 50
    assert resumed_due(begun(plain, NOW, at_once=True), NOW + 4000) == NOW + 7200


def test_a_one_time_schedule_may_be_past_but_does_not_come_again() -> None:
    past = begun(Timetable(expression="at(2020-01-01T00:00:00)"), NOW, at_once=True)
    assert first_due(past, NOW) == 1577836800.0
    assert resumed_due(past, NOW) is None


def test_which_timetables_are_the_same() -> None:
    one = Timetable(expression="rate(1 hour)", anchor_at=5.0)
    assert same_times(one, replace(one, anchor_at=7.0, window_s=60.0))
    assert not same_times(one, replace(one, timezone="Europe/Berlin"))
