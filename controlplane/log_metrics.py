"""Prometheus metrics of the log store: how full it is, what comes in, and what is refused.

They come with the control plane's other metrics (`controlplane.metrics`).
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric

from controlplane.logs.api import LogStore

__all__ = ["LogStoreCollector", "LogStoreMetrics"]


class LogStoreMetrics:
    """Counts what a store tells: its StoreObserver."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = CounterMetric("homeport_log_events", "Log events kept.", registry=registry)
        self._bytes = CounterMetric(
            "homeport_log_event_bytes", "Size of the log events kept: UTF-8 and 26 bytes each.", registry=registry
        )
        self._refused = CounterMetric(
            "homeport_log_writes_refused", "Writes that the log store refused or failed at.", registry=registry
        )
        self._blocks = CounterMetric(
            "homeport_log_blocks_read", "Blocks of log events read from the store's segments.", registry=registry
        )

    def appended(self, events: int, size: int) -> None:
        """See StoreObserver."""
        self._events.inc(events)
        self._bytes.inc(size)

    def refused(self) -> None:
        """See StoreObserver."""
        self._refused.inc()

    def read(self, blocks: int) -> None:
        """See StoreObserver."""
        self._blocks.inc(blocks)


class LogStoreCollector:
    """Renders how full a store is at the moment of the scrape."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        usage = self._store.usage()
        yield GaugeMetricFamily(
            "homeport_log_store_used_bytes", "What the log store takes of the disk.", usage.used_bytes
        )
        limit = GaugeMetricFamily("homeport_log_store_limit_bytes", "What it may take; no series if it has no limit.")
        if usage.limit_bytes is not None:
            limit.add_metric([], usage.limit_bytes)
        yield limit
        yield GaugeMetricFamily(
            "homeport_log_store_available", "Whether the log store takes writes: 1 or 0.", int(not usage.problem)
        )
