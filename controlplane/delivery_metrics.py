"""Metrics of bringing events to targets of rules, counted from the state's commits."""

from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as CounterMetric

from controlplane.state.delivery_records import DeliveryRecord
from controlplane.store.api import Change

__all__ = ["DeliveryMetrics"]

_OUTCOMES: Final = ("delivered", "failed", "dropped")


class DeliveryMetrics:
    """How often events were delivered, attempts failed, and events were given up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = CounterMetric(
            "homeport_event_deliveries",
            "Events brought to rules' targets: delivered, failed (an attempt, which is repeated) and dropped.",
            ["outcome"],
            registry=registry,
        )
        self._outcomes = {outcome: counter.labels(outcome) for outcome in _OUTCOMES}

    def observe_change(self, change: Change) -> None:
        """Count what a target's record has more than before."""
        new, old = change.new, change.old
        if not isinstance(new, DeliveryRecord) or not isinstance(old, DeliveryRecord):
            return
        self._outcomes["delivered"].inc(max(0, new.delivered - old.delivered))
        self._outcomes["failed"].inc(max(0, new.attempts - old.attempts))
        self._outcomes["dropped"].inc(max(0, new.dropped - old.dropped))
