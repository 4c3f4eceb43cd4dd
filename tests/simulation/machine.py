"""A host of a simulation: an Engine, a disk, a clock, and the real agent, but for its sockets, and for logs."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from agent.host import HostMonitor, HostSettings, Readings, read_facts
from agent.hostview import Host, LateCgroups
from agent.identity import Identity
from agent.isolation import Contact
from agent.journal import Journal
from agent.uplink import Connect, Uplink
from agent.worker import Worker
from homeport import __version__
from homeport.protocol import HostFacts, Registered
from tests.fakes.host import FakeShipping
from tests.simulation.disk import Disk
from tests.simulation.engine import SimulatedEngine
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network, Socket
from tests.simulation.plan import Machine
from tests.simulation.process import MachineClock

__all__ = ["SimulatedMachine"]

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB
#: How long a finished task's containers stay, so that a run of minutes sees them go.
_CLEANUP_AFTER_S: Final = 300.0


class SimulatedMachine:
    """See the module. What outlives its agents: `clock`, `disk`, `engine`, `identity`."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        plan: Machine,
        root: Path,
        *,
        chance: Callable[[str], random.Random],
        sync_s: tuple[float, float],
        trace: Callable[[str, str], None],
    ) -> None:
        """`chance` gives the source of randomness of a name."""
        self.plan = plan
        self.name = plan.name
        self.clock = MachineClock(loop)
        self.disk = Disk(loop, root / plan.name, chance(f"disk {plan.name}"), sync_s)
        self.engine = SimulatedEngine(
            plan.name,
            self.clock,
            chance(f"engine {plan.name}"),
            trace=lambda text: trace(f"engine {plan.name}", text),
        )
        self._network = network
        self._chance = chance(f"agent {plan.name}")
        key = base64.b64encode(self._chance.randbytes(32)).decode()
        self.identity = Identity(private_key=key, servers=("http://controlplane",))
        #: Of the agent that runs now, or ran last; None before the first.
        self.worker: Worker | None = None
        self.uplink: Uplink | None = None

    def joined(self, registered: Registered) -> None:
        """Take over who this host is."""
        self.identity = replace(self.identity, instance_id=registered.instance_id, instance_arn=registered.instance_arn)

    async def facts(self) -> HostFacts:
        """Return the facts it joins with: its Engine's part comes with the first session."""
        return await read_facts(None, self._settings, agent_version=__version__, read=self._read)

    @property
    def _settings(self) -> HostSettings:
        return HostSettings(
            availability_zone=self.plan.zone, reserved_ports=frozenset(("tcp", port) for port in self.plan.ports)
        )

    def _read(self, _: str) -> Readings:
        return Readings(
            hostname=self.name,
            cores=self.plan.cpu_units // 1024,
            memory_bytes=self.plan.memory_mib * _MIB,
            memory_available_bytes=self.plan.memory_mib * _MIB,
            disk_bytes=100 * _GIB,
            disk_free_bytes=80 * _GIB,
        )

    async def run_agent(self) -> None:
        """Be the agent's main coroutine, as `agent.service.serve`; returns once its host is deregistered."""
        clock, directory = self.clock, self.disk.directory
        async with self.engine.link() as engine:
            monitor = HostMonitor(engine, clock, read=self._read)
            host = Host(monitor, self._settings, LateCgroups(engine, ""), read=self._read)
            journal = Journal(directory / "agent.db")
            contact = Contact(directory / "contact", elapsed=clock.monotonic, boot=self.name)
            contact.load()
            worker = self.worker = Worker(
                engine,
                journal,
                host,
                _NoCgroups(),
                owner=self.identity.instance_id,
                clock=clock,
                rng=self._chance,
                shipping=FakeShipping(),
                cleanup_after_s=_CLEANUP_AFTER_S,
                contact=contact,
            )
            await host.start()
            uplink = self.uplink = Uplink(
                self.identity, worker, clock=clock, random=self._chance, connecting=self._connecting
            )
            async with asyncio.TaskGroup() as loops:
                running = [loops.create_task(work) for work in (journal.run(), worker.run(), monitor.run(), host.run())]
                await uplink.run()
                for each in running:
                    each.cancel()

    @asynccontextmanager
    async def _connecting(self) -> AsyncIterator[Connect]:
        def connect(_: str) -> AbstractAsyncContextManager[Socket]:
            return self._network.connect(self.name)

        yield connect


class _NoCgroups:
    """A host where tasks' limits hold for each container alone."""

    async def ensure(self, *_: object) -> None:
        """See TaskCgroups."""

    async def remove(self, *_: object) -> None:
        """See TaskCgroups."""
