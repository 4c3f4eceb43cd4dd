"""The agent's Prometheus endpoint: `/metrics`, and `/healthz` for whoever watches the process.

Names are noun_verb_unit in base units, `homeport_agent_...` for the agent and its host, `homeport_container_...` for
the containers it runs. Labels are finite: a task's series are there while the task is, and every call of the Engine has
its series from the start. Figures of containers are read when they are asked for, beside the event loop.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

import msgspec
import psutil
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent.logs.metrics import LogMetrics
from agent.usage import ContainerUsage, read_usage
from homeport.ids import TaskId
from homeport.status import HealthStatus

__all__ = ["AgentMetrics", "ContainerSample", "ContainerSource", "metrics_app"]

#: The calls of the Engine seam, and what each can end with (`agent.engine.errors`).
_CALLS: Final = (
    "info",
    "image",
    "pull",
    "create",
    "start",
    "stop",
    "remove",
    "inspect",
    "list",
    "events",
    "logs",
    "create_volume",
    "volume_exists",
    "remove_volume",
)
_ERRORS: Final = ("EngineUnavailable", "EngineTimeout", "NotFound", "Conflict", "Rejected")
#: From an inspect (1 ms) to a pull or a stop with a long grace (minutes).
_BUCKETS: Final = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)


class ContainerSample(msgspec.Struct, frozen=True, kw_only=True):
    """A container as the agent knows it. `pid` 0: it doesn't run. `health` None: it has no health check."""

    task_id: TaskId
    family: str
    cluster: str
    container: str
    container_id: str
    pid: int
    restart_count: int
    health: HealthStatus | None


class ContainerSource(Protocol):
    """Who knows the containers of this host's tasks; the worker."""

    def containers(self) -> Iterable[ContainerSample]:
        """Return the containers of all tasks that are on the host now. Called on the event loop; must be quick."""
        ...


class AgentMetrics:
    """The agent's own counters. One per process; `registry` holds them."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        info = Gauge(
            "homeport_agent_build_info",
            "The agent's version, as a label; always 1.",
            ["version"],
            registry=self.registry,
        )
        info.labels(version).set(1)
        self._calls = Histogram(
            "homeport_agent_engine_call_duration_seconds",
            "How long calls to the Docker Engine took, failed ones included.",
            ["call"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter(
            "homeport_agent_engine_call_errors_total",
            "Calls to the Docker Engine that failed, by kind of error.",
            ["call", "error"],
            registry=self.registry,
        )
        self._uplink = Gauge(
            "homeport_agent_uplink_connected",
            "Whether the agent has a session with the control plane: 1 or 0.",
            registry=self.registry,
        )
        self.logs = LogMetrics(self.registry)
        for call in _CALLS:
            self._calls.labels(call)
            for error in _ERRORS:
                self._errors.labels(call, error)

    def observe(self, call: str, duration_s: float, outcome: str) -> None:
        """Count one call to the Engine; pass it to DockerEngine as `observe`. Cancelled calls are not counted."""
        if outcome == "cancelled":
            return
        self._calls.labels(call).observe(duration_s)
        if outcome != "ok":
            self._errors.labels(call, outcome).inc()

    def set_uplink_connected(self, connected: bool) -> None:
        """Say whether there is a session with the control plane."""
        self._uplink.set(connected)


class _Figure(NamedTuple):
    """One series per container: a member of ContainerUsage under a name."""

    member: str
    name: str
    kind: type[CounterMetricFamily | GaugeMetricFamily]
    help: str


_FIGURES: Final = (
    _Figure(
        "cpu_seconds",
        "homeport_container_cpu_usage_seconds",
        CounterMetricFamily,
        "CPU time the container has used since it started.",
    ),
    _Figure(
        "cpu_periods",
        "homeport_container_cpu_periods",
        CounterMetricFamily,
        "Scheduling periods in which the container had a CPU quota.",
    ),
    _Figure(
        "cpu_throttled_periods",
        "homeport_container_cpu_throttled_periods",
        CounterMetricFamily,
        "Scheduling periods in which the container ran into its CPU quota.",
    ),
    _Figure(
        "cpu_throttled_seconds",
        "homeport_container_cpu_throttled_seconds",
        CounterMetricFamily,
        "Time the container was held back by its CPU quota.",
    ),
    _Figure(
        "memory_bytes",
        "homeport_container_memory_usage_bytes",
        GaugeMetricFamily,
        "Memory the container uses, page cache included.",
    ),
    _Figure(
        "memory_limit_bytes",
        "homeport_container_memory_limit_bytes",
        GaugeMetricFamily,
        "The container's hard memory limit; no series if there is none.",
    ),
    _Figure(
        "memory_working_set_bytes",
        "homeport_container_memory_working_set_bytes",
        GaugeMetricFamily,
        "Memory the container uses, less page cache that can be dropped.",
    ),
    _Figure(
        "oom_kills",
        "homeport_container_oom_kills",
        CounterMetricFamily,
        "Processes of the container that the kernel killed for want of memory.",
    ),
    _Figure(
        "block_read_bytes",
        "homeport_container_block_read_bytes",
        CounterMetricFamily,
        "Bytes the container read from block devices.",
    ),
    _Figure(
        "block_written_bytes",
        "homeport_container_block_written_bytes",
        CounterMetricFamily,
        "Bytes the container wrote to block devices.",
    ),
    _Figure(
        "network_received_bytes",
        "homeport_container_network_received_bytes",
        CounterMetricFamily,
        "Bytes the container received; no series in the host's network.",
    ),
    _Figure(
        "network_transmitted_bytes",
        "homeport_container_network_transmitted_bytes",
        CounterMetricFamily,
        "Bytes the container sent; no series in the host's network.",
    ),
)
_LABELS: Final = ("cluster", "family", "task", "container")


class _ContainerCollector(Collector):
    """The series of containers, as of one moment."""

    def __init__(self, samples: Iterable[ContainerSample], read: Callable[[int], ContainerUsage]) -> None:
        self._samples = tuple(samples)
        self._read = read

    def collect(self) -> Iterator[Metric]:
        usages = [(_values(sample), self._read(sample.pid)) for sample in self._samples if sample.pid]
        for figure in _FIGURES:
            family = figure.kind(figure.name, figure.help, labels=_LABELS)
            for labels, usage in usages:
                if (value := getattr(usage, figure.member)) is not None:
                    family.add_metric(labels, value)
            yield family
        yield self._restarts()
        yield self._health()

    def _restarts(self) -> Metric:
        family = CounterMetricFamily(
            "homeport_container_restarts", "Restarts of the container under its restart policy.", labels=_LABELS
        )
        for sample in self._samples:
            family.add_metric(_values(sample), sample.restart_count)
        return family

    def _health(self) -> Metric:
        family = GaugeMetricFamily(
            "homeport_container_health",
            "What the container's health check says: 1 for the status that holds, 0 for the others.",
            labels=(*_LABELS, "status"),
        )
        for sample in self._samples:
            if sample.health is not None:
                for status in HealthStatus:
                    family.add_metric((*_values(sample), status.value), sample.health is status)
        return family


def _values(sample: ContainerSample) -> tuple[str, ...]:
    return (sample.cluster, sample.family, sample.task_id, sample.container)


class _Everything(Collector):
    """All series of another registry, to be encoded as one with a scrape's own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()


class _HostCollector(Collector):
    """The host's own series. `disk_path`: where the Engine keeps its data."""

    def __init__(self, disk_path: str) -> None:
        self._disk_path = disk_path

    def collect(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            "homeport_agent_host_cpu_seconds", "Time the host's CPUs spent in each mode, summed.", labels=("mode",)
        )
        times = psutil.cpu_times()
        for mode in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"):
            cpu.add_metric((mode,), getattr(times, mode))
        yield cpu
        memory = psutil.virtual_memory()
        yield _gauge("homeport_agent_host_memory_size_bytes", "The host's memory.", memory.total)
        yield _gauge(
            "homeport_agent_host_memory_available_bytes", "Memory the host can give without swapping.", memory.available
        )
        try:
            disk = psutil.disk_usage(self._disk_path)
        except OSError:
            return
        yield _gauge("homeport_agent_host_disk_size_bytes", "Size of the Docker Engine's file system.", disk.total)
        yield _gauge("homeport_agent_host_disk_free_bytes", "Free space on the Docker Engine's file system.", disk.free)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def metrics_app(
    metrics: AgentMetrics,
    source: ContainerSource,
    *,
    disk_path: Callable[[], str] = lambda: "/",
    unwell: Callable[[], str] = lambda: "",
    read: Callable[[int], ContainerUsage] = read_usage,
) -> web.Application:
    """Return the application that serves `/metrics` and `/healthz`.

    `disk_path`: the Engine's data directory. `unwell`: why the agent isn't well, "" if it is: /healthz then says 503.
    """

    def render(samples: tuple[ContainerSample, ...], accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        # A registry of this scrape's own: what was read for one scrape is never mixed with another's.
        scrape = CollectorRegistry(auto_describe=False)
        scrape.register(_Everything(metrics.registry))
        scrape.register(_ContainerCollector(samples, read))
        scrape.register(_HostCollector(disk_path()))
        return encode(scrape), content_type

    async def serve_metrics(request: web.Request) -> web.Response:
        samples = tuple(source.containers())
        body, content_type = await asyncio.to_thread(render, samples, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def serve_health(_request: web.Request) -> web.Response:
        reason = unwell()
        return web.Response(text=(reason or "ok") + "\n", status=503 if reason else 200)

    app = web.Application()
    app.router.add_get("/metrics", serve_metrics)
    app.router.add_get("/healthz", serve_health)
    return app
