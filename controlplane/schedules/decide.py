"""What to do about one schedule or rule now. Pure: a snapshot in, a decision out.

An occurrence is on time up to a minute after its flexible window, AWS's own precision; after that it was missed. Each
occurrence is accounted for once: by a run, or by a record that says why there is none. `next_at` moves on with it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Final

import msgspec
from msgspec.structs import replace

from controlplane.schedules.policy import MissedPolicy, OverlapPolicy, TargetPolicy
from controlplane.schedules.timetable import due_times, fires_at
from controlplane.state.schedule_records import RunOutcome, ScheduleRecord, ScheduleRunRecord, TriggerRecord
from homeport.clock import is_ahead, iso_time

__all__ = ["PRECISION_S", "Decision", "Occasion", "Snapshot", "after_attempt", "decide"]

#: How late an occurrence may be and still be on time.
PRECISION_S: Final = 60.0
#: Missed occurrences are counted up to this.
_MOST_COUNTED: Final = 10_000
#: The longest time between two attempts.
_MAX_BACKOFF_S: Final = 300.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision depends on."""

    trigger: TriggerRecord
    #: Its targets' ids ("" for a schedule's) and their policies.
    targets: Mapping[str, TargetPolicy]
    #: Runs whose outcome isn't settled, by number.
    pending: tuple[ScheduleRunRecord, ...] = ()
    #: Target id -> tasks of earlier occurrences that aren't STOPPED.
    live: Mapping[str, tuple[str, ...]] = {}


class Occasion(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a rule matches, at one of its targets. `input`: given in place of the target's own Input."""

    target_id: str
    #: The event's time, in epoch seconds, and its id.
    at: float
    id: str
    input: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, in this order; and when to look again, even if nothing changes (epoch seconds)."""

    #: Tasks of earlier occurrences that are to be stopped.
    stop: tuple[str, ...] = ()
    #: Runs as they are from now on, new ones among them.
    put: tuple[ScheduleRunRecord, ...] = ()
    #: Runs to start tasks for, now.
    start: tuple[ScheduleRunRecord, ...] = ()
    #: Due times that are told as events to targets that run no tasks.
    due: tuple[float, ...] = ()
    #: The trigger as it is from now on.
    trigger: TriggerRecord
    #: It has done all it ever will, and is to be deleted.
    completed: bool = False
    wake_at: float | None = None
    #: Tasks whose end is waited for.
    waits_for: frozenset[str] = frozenset()


def decide(snapshot: Snapshot, now: float, *, occasions: Iterable[Occasion] = ()) -> Decision:
    """Return what to do about a schedule or rule at `now` (epoch seconds). `occasions`: events that it just matched."""
    return _Draft(snapshot, now).decision(occasions)


class _Draft:
    """One decision in the making."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self.now = now
        self.targets = snapshot.targets
        self.live = snapshot.live
        self.trigger = snapshot.trigger
        self.number = snapshot.trigger.last_run
        self.next_at = snapshot.trigger.next_at
        self.pending = list(snapshot.pending)
        self.due: list[float] = []
        self.stop: list[str] = []
        self.put: list[ScheduleRunRecord] = []
        self.start: list[ScheduleRunRecord] = []
        self.waiting: list[ScheduleRunRecord] = []
        self.waits_for: set[str] = set()
        self.moments: list[float] = []

    def decision(self, occasions: Iterable[Occasion]) -> Decision:
        if self.trigger.state == "ENABLED":
            self._take_occurrences()
        for occasion in occasions:
            self._begin(occasion.target_id, self.targets[occasion.target_id], occasion.at, occasion)
        for run in self.pending:
            self._go_on(run)
        running = {target: tasks for target, tasks in self.live.items() if tasks}
        trigger = replace(self.trigger, next_at=self.next_at, last_run=self.number, running=running)
        unsettled = bool(self.start or self.waiting)
        if self.next_at is not None and trigger.state == "ENABLED":
            self.moments.append(fires_at(trigger.timetable, trigger.trigger, self.next_at))
        return Decision(
            stop=tuple(dict.fromkeys(self.stop)),
            put=tuple(self.put),
            start=tuple(self.start),
            due=tuple(self.due),
            trigger=trigger,
            completed=_is_over(trigger) and not unsettled,
            wake_at=min(self.moments, default=None),
            waits_for=frozenset(self.waits_for),
        )

    # ------------------------------------------------------------ occurrences

    def _take_occurrences(self) -> None:
        """Account for every occurrence that is ready, and move `next_at` on."""
        timetable, key = self.trigger.timetable, self.trigger.trigger
        if self.next_at is None or fires_at(timetable, key, self.next_at) > self.now:
            return
        late_until = self.now - timetable.window_s - PRECISION_S
        missed = [due for due, _ in zip(self._from(self.next_at, late_until), range(_MOST_COUNTED), strict=False)]
        on_time = [due for due in self._from(max(self.next_at, late_until), self.now) if due > late_until]
        ready = list(takewhile(lambda due: fires_at(timetable, key, due) <= self.now, on_time))
        last = max([*ready, late_until, *missed[-1:]])
        self.next_at = next(iter(due_times(timetable, last)), None)
        self.due = ready or missed[-1:]
        for target_id, policy in self.targets.items():
            caught_up = self._catch_up(target_id, policy, missed, late_until, others=bool(ready))
            for due in [*caught_up, *ready]:
                self._begin(target_id, policy, due)

    def _from(self, first: float, until: float) -> Iterator[float]:
        """Yield the due times from `first` to `until`, both included."""
        yield from takewhile(lambda due: due <= until, due_times(self.trigger.timetable, first - 0.001))

    def _catch_up(
        self, target_id: str, policy: TargetPolicy, missed: list[float], late_until: float, *, others: bool
    ) -> list[float]:
        """Record what was missed; return the one occurrence that is run all the same."""
        if not missed:
            return []
        chosen: list[float] = []
        if policy.missed is MissedPolicy.RUN_ONCE and not others:
            chosen = list(self._from(max(missed[0], self.now - policy.max_age_s), late_until))[-1:]
        rest = [due for due in missed if due not in chosen]
        if rest:
            why = _missed_reason(policy, chosen, others=others)
            counted = "at least " if len(missed) == _MOST_COUNTED else ""
            several = "s" if len(rest) > 1 else ""
            text = f"{counted}{len(rest)} occurrence{several}, the last due {iso_time(rest[-1])}: {why}"
            run = self._new_run(target_id, rest[0], policy, RunOutcome.MISSED, reason=text)
            self.put.append(replace(run, count=len(rest), last_due_at=rest[-1]))
        return chosen

    def _begin(self, target_id: str, policy: TargetPolicy, due: float, occasion: Occasion | None = None) -> None:
        """Begin a run, or skip it by the overlap policy."""
        earlier = [run for run in [*self.pending, *self.start] if run.target_id == target_id]
        if policy.overlap is OverlapPolicy.SKIP and (earlier or self.live.get(target_id)):
            tasks = self.live.get(target_id, ())
            what = f"{len(tasks)} of its tasks" if tasks else "an earlier occurrence"
            text = f"{what} had not ended yet, and {OverlapPolicy.SKIP} is the overlap policy"
            self.put.append(_made_for(occasion, self._new_run(target_id, due, policy, RunOutcome.SKIPPED, reason=text)))
            return
        if policy.overlap is OverlapPolicy.REPLACE:
            self._give_up_earlier(target_id, due)
        run = _made_for(occasion, self._new_run(target_id, due, policy, RunOutcome.PENDING))
        self.pending.append(replace(run, begun_at=self.now, retry_at=self.now))

    def _give_up_earlier(self, target_id: str, due: float) -> None:
        """A newer occurrence takes the place of those that still wait or are tried again."""
        for run in [run for run in self.pending if run.target_id == target_id]:
            self.pending.remove(run)
            outcome = RunOutcome.STARTED if run.tasks else RunOutcome.SKIPPED
            text = f"replaced by the occurrence due {iso_time(due)}"
            self.put.append(replace(run, outcome=outcome, reason=text, retry_at=None, finished_at=self.now))

    def _new_run(
        self, target_id: str, due: float, policy: TargetPolicy, outcome: RunOutcome, *, reason: str = ""
    ) -> ScheduleRunRecord:
        self.number += 1
        return ScheduleRunRecord(
            trigger=self.trigger.trigger,
            number=self.number,
            due_at=due,
            outcome=outcome,
            id=_run_id(self.trigger, target_id, due),
            target_id=target_id,
            reason=reason,
            dead_letter=policy.dead_letter,
            finished_at=None if outcome is RunOutcome.PENDING else self.now,
        )

    # ------------------------------------------------------------ runs under way

    def _go_on(self, run: ScheduleRunRecord) -> None:
        """Start a run if its moment has come and nothing is in its way; give it up if it is too old."""
        policy = self.targets.get(run.target_id)
        if policy is None:
            self._fail(run, "its target was removed")
        elif run.attempts and self.now - run.due_at > policy.max_age_s:
            self._fail(run, f"{run.reason}; given up after {policy.max_age_s:.0f} seconds (MaximumEventAgeInSeconds)")
        elif policy.overlap is OverlapPolicy.REPLACE and (live := self._in_the_way(run)):
            self._wait(run, policy, live)
        elif run.retry_at is not None and is_ahead(run.retry_at, self.now, longest_s=_MAX_BACKOFF_S):
            self.waiting.append(run)
            self.moments.append(run.retry_at)
        else:
            self.start.append(run)

    def _in_the_way(self, run: ScheduleRunRecord) -> tuple[str, ...]:
        return tuple(task for task in self.live.get(run.target_id, ()) if task not in run.tasks)

    def _wait(self, run: ScheduleRunRecord, policy: TargetPolicy, live: tuple[str, ...]) -> None:
        too_old = run.due_at + policy.max_age_s
        if self.now > too_old:
            self._fail(run, f"{run.reason}; given up after {policy.max_age_s:.0f} seconds (MaximumEventAgeInSeconds)")
            return
        text = f"waits for {len(live)} earlier task{'s' if len(live) > 1 else ''} to stop"
        waiting = replace(run, reason=text, retry_at=None)
        self.put.append(waiting)
        self.waiting.append(waiting)
        self.stop += live
        self.waits_for.update(live)
        self.moments.append(too_old + 1)

    def _fail(self, run: ScheduleRunRecord, reason: str) -> None:
        self.put.append(
            replace(run, outcome=RunOutcome.FAILED, reason=reason.lstrip("; "), retry_at=None, finished_at=self.now)
        )


def after_attempt(
    run: ScheduleRunRecord, policy: TargetPolicy, now: float, *, started: tuple[str, ...], problem: str, final: bool
) -> ScheduleRunRecord:
    """Return a run after an attempt that started the tasks `started`.

    `problem`: why they are fewer than the target asks for; "" if they aren't. `final`: trying again can't help.
    """
    tasks = (*run.tasks, *started)
    tried = replace(run, tasks=tasks, attempts=run.attempts + 1, reason=problem, retry_at=None)
    if not problem:
        return replace(tried, outcome=RunOutcome.STARTED, finished_at=now)
    retries_left = policy.max_retries - run.attempts
    again_at = now + min(2.0**run.attempts, _MAX_BACKOFF_S)
    if final or retries_left <= 0 or again_at - run.due_at > policy.max_age_s:
        why = "" if final else f"; given up after {tried.attempts} attempt{'s' if tried.attempts > 1 else ''}"
        return replace(tried, outcome=RunOutcome.FAILED, reason=problem + why, finished_at=now)
    return replace(tried, retry_at=again_at)


def _is_over(trigger: TriggerRecord) -> bool:
    """Tell whether a schedule that is to be deleted after completion has come to its end. One that never ran stays."""
    if not isinstance(trigger, ScheduleRecord) or trigger.action_after_completion != "DELETE":
        return False
    return trigger.next_at is None and trigger.last_run > 0


def _missed_reason(policy: TargetPolicy, chosen: list[float], *, others: bool) -> str:
    down = "the control plane was not running then"
    if policy.missed is MissedPolicy.SKIP:
        return f"{down}, and {MissedPolicy.SKIP} is the policy for missed ones"
    if chosen or others:
        return f"{down}; a later one runs for all"
    return f"{down}, and it is more than {policy.max_age_s:.0f} seconds ago (MaximumEventAgeInSeconds)"


def _made_for(occasion: Occasion | None, run: ScheduleRunRecord) -> ScheduleRunRecord:
    return run if occasion is None else replace(run, id=occasion.id, input=occasion.input)


def _run_id(trigger: TriggerRecord, target_id: str, due: float) -> str:
    """A UUID made of what names the occurrence."""
    digest = hashlib.sha256(f"{trigger.trigger} {trigger.created_at} {target_id} {due}".encode()).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
