"""What this host has and is (`read_facts`), and whether it is well (`HostMonitor`).

Attributes and capabilities carry ECS's names, so that placement constraints written for ECS work. Judging is pure
(`judge_runtime`, `judge_disk`, `judge_memory`); the monitor only asks the Engine and the kernel, and remembers.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import psutil
import structlog

from agent.engine.api import Engine, EngineInfo
from agent.engine.errors import EngineError
from agent.engine.plan import CPU_UNITS_PER_CORE
from agent.gpus import read_gpu_ids
from homeport.clock import Clock
from homeport.protocol import Condition, HostFacts
from homeport.spec import Resources

__all__ = [
    "CONTAINER_RUNTIME",
    "DISK",
    "MEMORY",
    "HostMonitor",
    "HostSettings",
    "Readings",
    "attributes_of",
    "host_facts",
    "judge_disk",
    "judge_memory",
    "judge_runtime",
    "read_facts",
    "read_host",
]

_log = structlog.get_logger(__name__)

#: Types of conditions. CONTAINER_RUNTIME is ECS's name for the health of Docker.
CONTAINER_RUNTIME: Final = "CONTAINER_RUNTIME"
DISK: Final = "DISK"
MEMORY: Final = "MEMORY"

_MIB: Final = 1024 * 1024
#: How often the host is looked at, and how long the Engine may take to answer before it counts as silent. On a host
#: that starts many containers an answer can take seconds.
_PERIOD_S: Final = 10.0
_PROBE_LIMIT_S: Final = 20.0
#: Not well at or below the first share of free disk, inodes or memory; well again at or above the second.
_DISK_FREE: Final = (0.10, 0.15)
_MEMORY_FREE: Final = (0.05, 0.10)

#: The oldest Engine API that ECS's agent names among its capabilities; it names every version since.
_OLDEST_API: Final = 17
_ARCHITECTURES: Final[Mapping[str, str]] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_CAPABILITIES: Final = (
    "com.amazonaws.ecs.capability.privileged-container",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.external",
)
_TASK_LIMITS: Final = "ecs.capability.task-cpu-mem-limit"


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator says of a host. `reserved_*`: kept from tasks. `attributes` are added to those found."""

    reserved_memory_mib: int = 0
    reserved_cpu_units: int = 0
    reserved_ports: frozenset[tuple[Literal["tcp", "udp"], int]] = frozenset()
    availability_zone: str | None = None
    attributes: Mapping[str, str] = {}
    metrics_address: str = ""


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of the host. The disk is the one the Engine keeps its data on."""

    hostname: str
    cores: int
    memory_bytes: int
    memory_available_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    #: Shares of 1; 1 where a file system has no inodes to run out of.
    inodes_free: float = 1.0
    gpu_ids: tuple[str, ...] = ()


def read_host(path: str) -> Readings:
    """Ask the kernel. `path`: the Engine's data directory, or `/` if it isn't on this machine. Blocks shortly."""
    where = path if Path(path).exists() else "/"
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(where)
    inodes = os.statvfs(where)
    return Readings(
        hostname=socket.gethostname(),
        cores=psutil.cpu_count() or 1,
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        inodes_free=inodes.f_favail / inodes.f_files if inodes.f_files else 1.0,
        gpu_ids=read_gpu_ids(),
    )


# ---------------------------------------------------------------- what a host is


def attributes_of(info: EngineInfo | None, settings: HostSettings, *, task_limits: bool) -> dict[str, str]:
    """Return a host's attributes; those the operator configured win. Without an Engine there are no capabilities."""
    found: dict[str, str] = {}
    if info is not None:
        found["ecs.os-type"] = info.os_type
        found["ecs.os-family"] = info.os_type.upper()
        found["ecs.cpu-architecture"] = _ARCHITECTURES.get(info.architecture, info.architecture)
        found |= dict.fromkeys(_CAPABILITIES, "")
        if task_limits:
            found[_TASK_LIMITS] = ""
        for driver in (*info.log_drivers, "none"):
            found[f"com.amazonaws.ecs.capability.logging-driver.{driver}"] = ""
        for minor in range(_OLDEST_API, _api_minor(info.api_version) + 1):
            found[f"com.amazonaws.ecs.capability.docker-remote-api.1.{minor}"] = ""
    if settings.availability_zone:
        found["ecs.availability-zone"] = settings.availability_zone
    return found | dict(settings.attributes)


def _api_minor(version: str) -> int:
    """Return the minor number of an Engine API version: all there have been are 1.x."""
    try:
        return int(version.partition(".")[2])
    except ValueError:
        return 0


def host_facts(
    info: EngineInfo | None, readings: Readings, settings: HostSettings, *, agent_version: str, task_limits: bool
) -> HostFacts:
    """Put a host's facts together. Pure."""
    return HostFacts(
        hostname=readings.hostname,
        agent_version=agent_version,
        docker_version=info.version if info else "",
        resources=Resources(
            cpu_units=max(0, readings.cores * CPU_UNITS_PER_CORE - settings.reserved_cpu_units),
            memory_mib=max(0, readings.memory_bytes // _MIB - settings.reserved_memory_mib),
            ports=settings.reserved_ports,
            gpus=len(readings.gpu_ids),
        ),
        gpu_ids=readings.gpu_ids,
        disk_mib=readings.disk_bytes // _MIB,
        attributes=attributes_of(info, settings, task_limits=task_limits),
        metrics_address=settings.metrics_address,
    )


async def read_facts(
    info: EngineInfo | None,
    settings: HostSettings,
    *,
    agent_version: str,
    task_limits: bool = True,
    read: Callable[[str], Readings] = read_host,
) -> HostFacts:
    """Read this host's facts. `info` None: the Engine hasn't answered yet. `task_limits`: task cgroups work here."""
    readings = await asyncio.to_thread(read, info.root_dir if info else "/")
    return host_facts(info, readings, settings, agent_version=agent_version, task_limits=task_limits)


# ---------------------------------------------------------------- how a host is


def judge_runtime(previous: Condition | None, error: str | None, now: float) -> Condition:
    """Say how Docker is. `error`: why its last probe failed, None if it answered. Keeps the time of the last change."""
    if error is None:
        return _verdict(previous, CONTAINER_RUNTIME, True, "", now)
    since = previous.since if previous is not None and not previous.ok else now
    at = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return _verdict(
        previous, CONTAINER_RUNTIME, False, f"The Docker Engine has not answered since {at}: {error}", now, sticky=True
    )


def judge_disk(previous: Condition | None, readings: Readings, now: float) -> Condition:
    """Say whether the Engine's disk has room, in bytes and inodes, with a margin before it is well again."""
    space = readings.disk_free_bytes / readings.disk_bytes if readings.disk_bytes else 0.0
    free, what = min((space, "space"), (readings.inodes_free, "inodes"))
    return _judge_free(previous, DISK, free, f"of the Docker Engine's disk {what}", _DISK_FREE, now)


def judge_memory(previous: Condition | None, readings: Readings, now: float) -> Condition:
    """Say whether the host has memory left."""
    free = readings.memory_available_bytes / readings.memory_bytes if readings.memory_bytes else 0.0
    return _judge_free(previous, MEMORY, free, "of memory", _MEMORY_FREE, now)


def _judge_free(
    previous: Condition | None, kind: str, free: float, what: str, marks: tuple[float, float], now: float
) -> Condition:
    low, high = marks
    was_ok = previous is None or previous.ok
    ok = free > low if was_ok else free >= high
    # In whole percent of the mark, not of the reading: a reason that changes with each reading would be news each time.
    reason = "" if ok else f"No more than {low:.0%} {what} was free; well again at {high:.0%}"
    return _verdict(previous, kind, ok, reason, now, sticky=True)


def _verdict(
    previous: Condition | None, kind: str, ok: bool, reason: str, now: float, *, sticky: bool = False
) -> Condition:
    """Return the condition; while `ok` doesn't change, its time stays, and (`sticky`) so does its reason."""
    if previous is None or previous.ok != ok:
        return Condition(type=kind, ok=ok, since=now, reason=reason)
    return previous if sticky else msgspec.structs.replace(previous, reason=reason)


class HostMonitor:
    """Watches the host and its Engine; `run` is its loop.

    `info` is what the Engine last said of itself, None until it has answered; `conditions` how the host is, empty
    before the first look. `changed` waits for either to change.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        period_s: float = _PERIOD_S,
        probe_limit_s: float = _PROBE_LIMIT_S,
        read: Callable[[str], Readings] = read_host,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._period_s = period_s
        self._probe_limit_s = probe_limit_s
        self._read = read
        self._runtime: Condition | None = None
        self._disk: Condition | None = None
        self._memory: Condition | None = None
        self._news = asyncio.Event()
        self.info: EngineInfo | None = None
        self.conditions: tuple[Condition, ...] = ()

    async def run(self) -> None:
        """Look at the host every period, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._period_s)

    async def changed(
        self, seen: tuple[EngineInfo | None, tuple[Condition, ...]]
    ) -> tuple[EngineInfo | None, tuple[Condition, ...]]:
        """Wait until (`info`, `conditions`) differ from `seen`, and return them. Safe to cancel."""
        while (current := (self.info, self.conditions)) == seen:
            await self._news.wait()
        return current

    async def look(self) -> None:
        """Look once: ask the Engine and the kernel, and judge."""
        error = await self._probe()
        readings = await asyncio.to_thread(self._read, self.info.root_dir if self.info else "/")
        now = self._clock.now()
        self._runtime = judge_runtime(self._runtime, error, now)
        self._disk = judge_disk(self._disk, readings, now)
        self._memory = judge_memory(self._memory, readings, now)
        current = (self._runtime, self._disk, self._memory)
        for condition in set(current) - set(self.conditions):
            if not condition.ok or self.conditions:
                _log.info(
                    "A condition of the host changed", type=condition.type, ok=condition.ok, reason=condition.reason
                )
        self.conditions = current
        self._news.set()
        self._news = asyncio.Event()

    async def _probe(self) -> str | None:
        try:
            async with asyncio.timeout(self._probe_limit_s):
                self.info = await self._engine.info()
        except TimeoutError:
            return f"no answer within {self._probe_limit_s:g} s"
        except EngineError as error:
            return str(error)
        return None
