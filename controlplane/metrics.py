"""The control plane's Prometheus metrics, and where Prometheus finds the agents.

    GET /metrics      text exposition
    GET /sd/targets   Prometheus http_sd: this control plane and every host that serves metrics

Names are `homeport_` + noun + unit. All label values come from finite sets and exist from the start, so that a rate is
right from the first event on. What the state knows is read when Prometheus asks, from counters that the state keeps;
what happens to tasks is counted from the state's own commits, so that no command has to think of metrics.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, Info, disable_created_metrics
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from controlplane.delivery_metrics import DeliveryMetrics
from controlplane.log_metrics import LogStoreCollector, LogStoreMetrics
from controlplane.logs.api import LogStore
from controlplane.schedule_metrics import ScheduleMetrics
from controlplane.service_metrics import ServiceCollector, ServiceMetrics
from controlplane.state.records import TaskRecord
from controlplane.state.state import State
from controlplane.state.watch import WatchOverflow
from controlplane.store.api import Commit
from controlplane.targets import targets
from homeport import __version__
from homeport.clock import Clock
from homeport.status import DesiredStatus, StopCode, TaskStatus

__all__ = ["ControlPlaneMetrics", "StateCollector"]

#: Error codes counted under their own name; what comes beyond this number is counted as "other".
_MAX_CODES: Final = 100

_INSTANCE_STATUSES: Final = ("ACTIVE", "DRAINING", "INACTIVE")
_CONNECTIONS: Final = ("connected", "disconnected", "unknown")

_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PLACEMENT_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
_DELAY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
#: Seconds between two looks at the event loop: a stall is seen but for its first part of up to so long.
_LOOK_AT_LOOP_S: Final = 0.05
_START_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class StateCollector:
    """Renders what the state holds at the moment of the scrape. Costs nothing per task; counts hosts one by one."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        yield self._tasks()
        yield from self._hosts()
        state = self._state
        yield GaugeMetricFamily(
            "homeport_clusters", "Clusters that are ACTIVE.", sum(c.status == "ACTIVE" for c in state.clusters)
        )
        definitions = GaugeMetricFamily(
            "homeport_task_definitions", "Task definition revisions by status.", labels=["status"]
        )
        for status in ("ACTIVE", "INACTIVE", "DELETE_IN_PROGRESS"):
            definitions.add_metric([status], state.task_definitions.count("status", status))
        yield definitions
        yield GaugeMetricFamily(
            "homeport_activations", "Activations that hosts can be or were registered with.", len(state.activations)
        )
        yield GaugeMetricFamily(
            "homeport_state_revision", "Revision of the state; each commit raises it by one.", state.revision
        )
        yield CounterMetricFamily("homeport_events", "Events that have become durable, ever.", state.journal.last_event)
        yield CounterMetricFamily(
            "homeport_state_watch_overflows", "Watchers of the state cut off for lagging.", state.watch_overflows
        )

    def _tasks(self) -> Metric:
        counts = self._state.tasks.tally("status_desired")
        family = GaugeMetricFamily(
            "homeport_tasks", "Tasks by last and by desired status.", labels=["status", "desired"]
        )
        for status in TaskStatus:
            for desired in DesiredStatus:
                family.add_metric([status.name, desired.name], counts.get((status, desired), 0))
        return family

    def _hosts(self) -> Iterator[Metric]:
        counts: Counter[tuple[str, str]] = Counter()
        impaired = 0
        for instance in self._state.instances:
            presence = self._state.presence.of(instance.id)
            if presence is None:
                connection = "unknown"
            else:
                connection = "connected" if presence.connected else "disconnected"
                impaired += presence.connected and bool(presence.impaired)
            counts[instance.status, connection] += 1
        family = GaugeMetricFamily(
            "homeport_hosts",
            "Hosts by status and connection; unknown: not heard of since this process started.",
            labels=["status", "connection"],
        )
        for status in _INSTANCE_STATUSES:
            for connection in _CONNECTIONS:
                family.add_metric([status, connection], counts[status, connection])
        yield family
        yield GaugeMetricFamily("homeport_hosts_impaired", "Connected hosts that report an ill condition.", impaired)
        yield GaugeMetricFamily(
            "homeport_agent_sessions", "Open sessions with agents.", self._state.presence.connected_count()
        )


class ControlPlaneMetrics:
    """All metrics of one control plane, in a registry of their own."""

    def __init__(self, clock: Clock) -> None:
        # A `_created` series beside each other one tells nothing and doubles the exposition.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._codes: set[str] = {"200"}
        self._outcomes: dict[tuple[str, str, str], tuple[CounterMetric, Histogram]] = {}
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("homeport_build", "The version of Homeport.", registry=registry).info({"version": __version__})
        self._requests = CounterMetric(
            "homeport_api_requests",
            "API requests answered, by outcome: 200 or the error's name.",
            ["service", "operation", "code"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "homeport_api_request_duration_seconds",
            "Time from an API request's arrival to its answer.",
            ["service", "operation"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._commit_seconds = Histogram(
            "homeport_journal_commit_duration_seconds",
            "Time to write and sync one batch of commits.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self._commit_batch = Histogram(
            "homeport_journal_batch_commits",
            "Commits that shared one sync.",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self._placement = Histogram(
            "homeport_task_placement_duration_seconds",
            "Time from a task's creation to the choice of its host.",
            buckets=_PLACEMENT_BUCKETS,
            registry=registry,
        )
        self._start = Histogram(
            "homeport_task_start_duration_seconds",
            "Time from a task's creation to RUNNING, by the clock of its host.",
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self._delay = Histogram(
            "homeport_event_loop_delay_seconds",
            "How late the event loop was, looked at twenty times a second: what everything else waits as well.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        reached = CounterMetric(
            "homeport_task_transitions", "Tasks that reached a status.", ["status"], registry=registry
        )
        self._reached_status = {status: reached.labels(status.name) for status in TaskStatus}
        self._stops = CounterMetric(
            "homeport_task_stops", "Tasks that stopped, by stopCode.", ["code"], registry=registry
        )
        for code in ("none", *StopCode):
            self._stops.labels(str(code))
        self._reports = CounterMetric(
            "homeport_agent_reports_applied", "Reports of agents that changed a task.", registry=registry
        )
        #: Those of services, a part of these; the service scheduler tells it of its looks.
        self.services = ServiceMetrics(registry)
        self._schedules = ScheduleMetrics(registry)
        #: What the log store tells.
        self.logs = LogStoreMetrics(registry)
        self._deliveries = DeliveryMetrics(registry)

    # ------------------------------------------------------------ what others tell

    def expect_requests(self, operations: Iterable[tuple[str, str]]) -> None:
        """Make the series of these (service, operation) pairs exist before their first request."""
        for service, operation in operations:
            self._requests.labels(service, operation, "200")
            self._request_seconds.labels(service, operation)

    def observe_request(self, service: str, operation: str, code: str, seconds: float) -> None:
        """Count an answered API request. `code`: "200", or the error's name. Names not from a model: "unknown"."""
        if code not in self._codes:
            if len(self._codes) < _MAX_CODES:
                self._codes.add(code)
            else:
                code = "other"
        outcome = self._outcomes.get((service, operation, code))
        if outcome is None:
            # Finding a series by its labels costs more than counting in it; there are finitely many.
            outcome = self._outcomes[service, operation, code] = (
                self._requests.labels(service, operation, code),
                self._request_seconds.labels(service, operation),
            )
        requests, durations = outcome
        requests.inc()
        durations.observe(seconds)

    def observe_commit(self, seconds: float, commits: int) -> None:
        """Count a batch that the journal has made durable."""
        self._commit_seconds.observe(seconds)
        self._commit_batch.observe(commits)

    # ------------------------------------------------------------ what the state tells

    def attach(self, state: State) -> None:
        """Render this state's contents from now on."""
        self.registry.register(StateCollector(state))
        self.registry.register(ServiceCollector(state))

    def attach_logs(self, store: LogStore) -> None:
        """Render how full this log store is from now on."""
        self.registry.register(LogStoreCollector(store))

    async def run(self, state: State) -> None:
        """Count what happens to tasks and services, from the state's commits, until cancelled."""
        while True:
            with state.snapshot_and_watch() as watch:
                try:
                    while True:
                        for commit in await watch.next_batch():
                            self.observe_changes(commit, self._clock.now())
                except WatchOverflow:
                    continue  # what was missed isn't counted; the overflow itself is

    async def watch_event_loop(self) -> None:
        """Observe how late the event loop is, until cancelled."""
        clock = self._clock
        while True:
            due = clock.monotonic() + _LOOK_AT_LOOP_S
            await asyncio.sleep(_LOOK_AT_LOOP_S)
            self._delay.observe(max(0.0, clock.monotonic() - due))

    def observe_changes(self, commit: Commit, now: float) -> None:
        """Count the changes of one commit. `now`: epoch seconds."""
        for change in commit.changes:
            self.services.observe_change(change)
            if isinstance(change.new, TaskRecord):  # most changes are
                self._observe_task(change.old if isinstance(change.old, TaskRecord) else None, change.new, now)
            else:
                self._schedules.observe_change(change)
                self._deliveries.observe_change(change)

    def _observe_task(self, old: TaskRecord | None, new: TaskRecord, now: float) -> None:
        if old is not None and new.reported_seq > old.reported_seq:
            self._reports.inc()
        if new.instance_id is not None and (old is None or old.instance_id is None):
            self._placement.observe(max(0.0, now - new.created_at))
        if old is not None and old.status is new.status:
            return
        self._reached_status[new.status].inc()
        before = TaskStatus.PROVISIONING if old is None else old.status
        if before < TaskStatus.RUNNING <= new.status and new.started_at is not None:
            self._start.observe(max(0.0, new.started_at - new.created_at))
        if new.status is TaskStatus.STOPPED:
            self._stops.labels("none" if new.stop_code is None else str(new.stop_code)).inc()

    # ------------------------------------------------------------ HTTP

    def routes(self, state: State) -> list[web.AbstractRouteDef]:
        """Return `GET /metrics` and `GET /sd/targets`. Both are open: they tell counts and host names, no secrets."""

        async def metrics(request: web.Request) -> web.Response:
            encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
            return web.Response(body=encoder(self.registry), headers={"Content-Type": content_type})

        async def discovery(request: web.Request) -> web.Response:
            return web.json_response(targets(state, own_address=request.host, own_scheme=request.scheme))

        return [web.get("/metrics", metrics), web.get("/sd/targets", discovery)]
