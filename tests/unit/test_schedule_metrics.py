"""What metrics tell of schedules."""

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from controlplane.schedule_metrics import ScheduleMetrics
from controlplane.state.schedule_records import RunOutcome, ScheduleRunRecord
from controlplane.store.api import Change

PENDING = ScheduleRunRecord(trigger="rule/a", number=1, due_at=100.0, outcome=RunOutcome.PENDING)


def test_each_due_time_is_counted_once_it_is_settled() -> None:
    registry = CollectorRegistry()
    metrics = ScheduleMetrics(registry)

    def put(old: ScheduleRunRecord | None, new: ScheduleRunRecord | None) -> None:
        metrics.observe_change(Change("schedule-run", "key", old, new))

    started = replace(PENDING, outcome=RunOutcome.STARTED, finished_at=104.0)
    missed = replace(PENDING, outcome=RunOutcome.MISSED, finished_at=500.0, count=3)
    put(None, PENDING)
    put(PENDING, started)
    put(started, replace(started, expires_at=900.0))
    put(None, missed)
    put(missed, None)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("homeport_schedule_runs_total", outcome="STARTED") == 1
    assert value("homeport_schedule_runs_total", outcome="MISSED") == 3
    assert value("homeport_schedule_runs_total", outcome="FAILED") == 0
    assert value("homeport_schedule_delay_seconds_sum") == 4.0
    assert value("homeport_schedule_delay_seconds_count") == 1
