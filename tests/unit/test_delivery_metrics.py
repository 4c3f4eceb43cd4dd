"""What metrics tell of bringing events to targets."""

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from controlplane.delivery_metrics import DeliveryMetrics
from controlplane.state.delivery_records import DeliveryRecord
from controlplane.store.api import Change

NEW = DeliveryRecord(rule="r", target_id="t", cursor=1)


def test_each_outcome_is_counted_once() -> None:
    registry = CollectorRegistry()
    metrics = DeliveryMetrics(registry)

    def put(old: DeliveryRecord | None, new: DeliveryRecord | None) -> None:
        metrics.observe_change(Change("event-delivery", "key", old, new))

    failing = replace(NEW, attempts=1, delivered=3)
    given_up = replace(failing, attempts=0, dropped=1)
    put(None, NEW)
    put(NEW, failing)
    put(failing, replace(failing, attempts=2))
    put(replace(failing, attempts=2), given_up)
    put(given_up, None)
    found = {
        outcome: registry.get_sample_value("homeport_event_deliveries_total", {"outcome": outcome})
        for outcome in ("delivered", "failed", "dropped")
    }
    assert found == {"delivered": 3, "failed": 2, "dropped": 1}
