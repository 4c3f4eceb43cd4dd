"""Prometheus metrics of services: what they want and have, how their deployments end, and where the time goes.

What the state knows is read when Prometheus asks; what happens is counted from the state's own commits, so that no
reconciler has to think of metrics. Both come with the control plane's other metrics (`controlplane.metrics`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric

from controlplane.services.budget import PHASES
from controlplane.services.counts import count_tasks_of_service
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import (
    DeploymentRecord,
    PhaseTimes,
    RolloutState,
    ServiceDeploymentStatus,
    TaskSetRecord,
)
from controlplane.state.state import State
from controlplane.store.api import Change

__all__ = ["ServiceCollector", "ServiceMetrics"]

_ENDS: Final = (
    ServiceDeploymentStatus.SUCCESSFUL,
    ServiceDeploymentStatus.STOPPED,
    ServiceDeploymentStatus.ROLLBACK_SUCCESSFUL,
    ServiceDeploymentStatus.ROLLBACK_FAILED,
)
_DEPLOYMENT_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 7200.0)
_LOOK_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)


class ServiceCollector:
    """Renders what the state holds of services at the moment of the scrape. Costs nothing per task."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        desired = _per_service("homeport_service_desired_tasks", "Tasks that a service should have.")
        running = _per_service("homeport_service_running_tasks", "Tasks of a service that run, as ECS counts them.")
        pending = _per_service("homeport_service_pending_tasks", "Tasks of a service on their way to RUNNING.")
        failed = _per_service(
            "homeport_service_failed_tasks", "Tasks of a service's PRIMARY deployment that failed one after another."
        )
        rollouts: Counter[RolloutState] = Counter()
        for service in self._state.services:
            if service.status == "INACTIVE":
                continue
            name = [service.cluster, service.name]
            live = [d for d in map(self._state.deployments.get, service.deployments) if d is not None]
            rollouts.update(deployment.rollout for deployment in live)
            counts = count_tasks_of_service(self._state, service)
            desired.add_metric(name, service.desired_count)
            running.add_metric(name, counts.running)
            pending.add_metric(name, counts.pending)
            failed.add_metric(name, live[0].failed_tasks if live else 0)
        yield from (desired, running, pending, failed)
        deployments = GaugeMetricFamily(
            "homeport_service_deployments", "Live deployments of services by rolloutState.", labels=["state"]
        )
        for state in RolloutState:
            deployments.add_metric([state.value], rollouts[state])
        yield deployments


def _per_service(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["cluster", "service"])


class ServiceMetrics:
    """What happens to services, counted. `registry`: where the series go."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Histogram(
            "homeport_deployment_duration_seconds",
            "Time from a deployment's beginning to its end, by how it ended; rollbacks are deployments of their own.",
            ["status"],
            buckets=_DEPLOYMENT_BUCKETS,
            registry=registry,
        )
        for status in _ENDS:
            self._ended.labels(status.value)
        self._phase_seconds = CounterMetric(
            "homeport_deployment_phase_seconds",
            "Seconds that tasks of deployments spent in each phase: schedule, pull, start, healthy, drain.",
            ["phase"],
            registry=registry,
        )
        self._phase_tasks = CounterMetric(
            "homeport_deployment_phase_tasks",
            "Tasks of deployments that went through each phase.",
            ["phase"],
            registry=registry,
        )
        for phase in PHASES:
            self._phase_seconds.labels(phase)
            self._phase_tasks.labels(phase)
        self._failures = CounterMetric(
            "homeport_service_task_failures", "Tasks of services that failed.", registry=registry
        )
        self._lost = CounterMetric(
            "homeport_service_tasks_lost",
            "Tasks of services that were replaced because their host was silent for too long.",
            registry=registry,
        )
        self._looks = Histogram(
            "homeport_service_reconcile_duration_seconds",
            "Time the service scheduler took for one look at a service, acting included.",
            buckets=_LOOK_BUCKETS,
            registry=registry,
        )

    def observe_look(self, seconds: float) -> None:
        """Count one look of the service scheduler at a service."""
        self._looks.observe(seconds)

    def observe_change(self, change: Change) -> None:
        """Count what one change of the state means for services; other kinds of records are passed over."""
        old, new = change.old, change.new
        if isinstance(new, DeploymentRecord):
            self._observe_deployment(old if isinstance(old, DeploymentRecord) else None, new)
        elif isinstance(new, TaskSetRecord):
            self._count_failures(old.failed_tasks if isinstance(old, TaskSetRecord) else 0, new.failed_tasks)
        elif isinstance(new, TaskRecord) and isinstance(old, TaskRecord) and new.lost_at is not None:
            self._lost.inc(old.lost_at is None)

    def _observe_deployment(self, old: DeploymentRecord | None, new: DeploymentRecord) -> None:
        self._count_failures(0 if old is None else old.failed_tasks, new.failed_tasks)
        self._count_phases({} if old is None else old.budget, new.budget)
        if new.finished_at is not None and (old is None or old.finished_at is None):
            seconds = max(0.0, new.finished_at - new.created_at)
            self._ended.labels(new.status.value).observe(seconds)

    def _count_failures(self, before: int, after: int) -> None:
        # The number falls to 0 when a task is healthy.
        self._failures.inc(max(0, after - before))

    def _count_phases(self, before: Mapping[str, PhaseTimes], after: Mapping[str, PhaseTimes]) -> None:
        for phase, times in after.items():
            known = before.get(phase, PhaseTimes())
            if phase in PHASES and times.count > known.count:
                self._phase_seconds.labels(phase).inc(max(0.0, times.total_s - known.total_s))
                self._phase_tasks.labels(phase).inc(times.count - known.count)
