"""The host as the worker and the uplink see it, also while the Engine hasn't answered yet."""

import asyncio
from collections.abc import Callable

from agent.cgroups import TaskCgroups, needs_cgroup
from agent.engine.api import Engine, EngineInfo
from agent.host import HostMonitor, HostSettings, Readings, read_facts, read_host
from homeport import __version__
from homeport.ids import TaskId
from homeport.protocol import Condition, HostFacts
from homeport.spec import TaskSpec

__all__ = ["Host", "LateCgroups"]


class LateCgroups:
    """Task cgroups on an Engine that may come up later: the first task that needs one asks the Engine what it is."""

    def __init__(self, engine: Engine, docker_host: str) -> None:
        self._engine = engine
        self._docker_host = docker_host
        self._cgroups: TaskCgroups | None = None

    def learn(self, info: EngineInfo) -> None:
        """Take what the Engine has said of itself; the first time decides."""
        if self._cgroups is None:
            self._cgroups = TaskCgroups(info, docker_host=self._docker_host)

    @property
    def reason(self) -> str:
        """Why tasks' own limits hold for each container alone; "" if they hold for all together, as far as known."""
        return self._cgroups.reason if self._cgroups else ""

    async def ensure(self, task_id: TaskId, task: TaskSpec) -> str | None:
        """See `agent.cgroups.TaskCgroups`. Raises EngineError if the Engine has never answered, and doesn't now."""
        return await (await self._made()).ensure(task_id, task) if needs_cgroup(task) else None

    async def remove(self, task_id: TaskId) -> None:
        """See `agent.cgroups.TaskCgroups`; raises EngineError as `ensure` does."""
        await (await self._made()).remove(task_id)

    async def _made(self) -> TaskCgroups:
        if self._cgroups is None:
            self.learn(await self._engine.info())
        assert self._cgroups is not None, "just learnt"
        return self._cgroups


class Host:
    """Facts and conditions of this host. `start` once, then `run`."""

    def __init__(
        self,
        monitor: HostMonitor,
        settings: HostSettings,
        cgroups: LateCgroups,
        *,
        read: Callable[[str], Readings] = read_host,
    ) -> None:
        self._read_host = read
        self._monitor = monitor
        self._settings = settings
        self._cgroups = cgroups
        self._facts: HostFacts | None = None
        self._given: HostFacts | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Read the facts for the first time. An Engine that doesn't answer is no error: its part is added later."""
        await self._monitor.look()
        await self._read()
        self._given = self._facts

    async def run(self) -> None:
        """Keep the facts as the monitor sees the host, for ever."""
        seen = (self._monitor.info, self._monitor.conditions)
        while True:
            info, conditions = await self._monitor.changed(seen)
            if info != seen[0]:
                await self._read()
            seen = (info, conditions)

    def facts(self) -> HostFacts:
        """Return the facts as last read."""
        assert self._facts is not None, "start comes first"
        return self._facts

    async def next_facts(self) -> HostFacts:
        """Wait until the facts differ from those last returned here (or first read), then return them."""
        while self._facts == self._given:
            await self._news.wait()
        self._given = self._facts
        return self.facts()

    def conditions(self) -> tuple[Condition, ...]:
        """Return the host's health as last observed."""
        return self._monitor.conditions

    def log_drivers(self) -> tuple[str, ...]:
        """Return the Engine's log drivers; empty while they aren't known."""
        return self._monitor.info.log_drivers if self._monitor.info else ()

    async def _read(self) -> None:
        info = self._monitor.info
        if info is not None:
            self._cgroups.learn(info)
        self._facts = await read_facts(
            info,
            self._settings,
            agent_version=__version__,
            task_limits=not self._cgroups.reason,
            read=self._read_host,
        )
        self._news.set()
        self._news = asyncio.Event()
