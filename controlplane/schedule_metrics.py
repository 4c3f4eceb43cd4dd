"""Metrics of schedules and rules, counted from the state's commits."""

from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as CounterMetric

from controlplane.state.schedule_records import RunOutcome, ScheduleRunRecord
from controlplane.store.api import Change

__all__ = ["ScheduleMetrics"]

_DELAY_BUCKETS: Final = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 86400.0)


class ScheduleMetrics:
    """What became of due times, and how late their tasks were started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        runs = CounterMetric(
            "homeport_schedule_runs",
            "Due times of schedules and rules, by what became of them; each target counts.",
            ["outcome"],
            registry=registry,
        )
        self._runs: dict[RunOutcome, CounterMetric] = {
            outcome: runs.labels(outcome.value) for outcome in RunOutcome if outcome is not RunOutcome.PENDING
        }
        self._delay = Histogram(
            "homeport_schedule_delay_seconds",
            "Time from a due time to the start of the last of its tasks, flexible window and retries included.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )

    def observe_change(self, change: Change) -> None:
        """Count a run that has just been settled."""
        new = change.new
        if not isinstance(new, ScheduleRunRecord) or new.finished_at is None:
            return
        if isinstance(change.old, ScheduleRunRecord) and change.old.finished_at is not None:
            return
        self._runs[new.outcome].inc(new.count)
        if new.outcome is RunOutcome.STARTED:
            self._delay.observe(max(0.0, new.finished_at - new.due_at))
