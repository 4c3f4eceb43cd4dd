"""What the agent counts of shipping."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.logs.batches import Frame

__all__ = ["LogMetrics"]


class LogMetrics:
    """Counters of shipped output, in the agent's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lines = Counter(
            "homeport_agent_logs_events_total",
            "Events of containers' output that the control plane has kept.",
            registry=registry,
        )
        self._gaps = Counter(
            "homeport_agent_logs_gaps_total",
            "Events that say that output of a container is missing, and why.",
            registry=registry,
        )
        self._bytes = Counter(
            "homeport_agent_logs_sent_bytes_total",
            "Bytes of output sent to the control plane, compressed, repetitions included.",
            registry=registry,
        )
        self._refused = Counter(
            "homeport_agent_logs_refused_total",
            "Times that the control plane took no more of a container's output for a while, or ever.",
            registry=registry,
        )
        self._lag = Gauge(
            "homeport_agent_logs_lag_seconds",
            "Age of the oldest output that the control plane hasn't kept.",
            registry=registry,
        )
        self._connected = Gauge(
            "homeport_agent_logs_connected",
            "Whether the agent has a connection that ships output: 1 or 0. It has none if there is nothing to ship.",
            registry=registry,
        )

    def sent(self, frame: Frame) -> None:
        """A batch was sent."""
        self._bytes.inc(len(frame.data))

    def kept(self, frame: Frame) -> None:
        """The control plane has kept a batch."""
        self._lines.inc(frame.lines)
        self._gaps.inc(frame.gaps)

    def refused(self) -> None:
        """The control plane takes nothing more of one container for now."""
        self._refused.inc()

    def set_connected(self, connected: bool) -> None:
        """Say whether there is a link."""
        self._connected.set(connected)

    def watch_lag(self, lag_s: Callable[[], float]) -> None:
        """Ask `lag_s` whenever metrics are read."""
        self._lag.set_function(lag_s)
