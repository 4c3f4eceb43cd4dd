"""The control plane of a simulation: the real one, but for its sockets, and for logs."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.api.ecs.clusters import ensure_default_cluster
from controlplane.api.errors import ApiError
from controlplane.api.server import carry_out
from controlplane.api.services import load_handlers, load_services
from controlplane.api.validation import check
from controlplane.app import deciders
from controlplane.config import ControlPlaneConfig
from controlplane.context import Context, Endpoints
from controlplane.events.feed import JournalFeed
from controlplane.fleet.hub import FleetHub
from controlplane.fleet.registration import register
from controlplane.fleet.wire import SessionWire
from controlplane.installation import resolve_identity
from controlplane.services.loop import ServiceLoop
from controlplane.state.state import State, load_state
from controlplane.store.api import Commit
from controlplane.store.sqlite import SqliteJournal
from homeport.clock import Clock
from homeport.protocol import Registered, Registration
from tests.fakes.log_store import MemoryLogStore
from tests.simulation.clients import Refused
from tests.simulation.network import Socket

__all__ = ["ControlPlane"]

Document = dict[str, Any]

#: Loaded once: models are the same for every run.
_SERVICES: Final = {service.name: service for service in load_services().all}
_HANDLERS: Final = load_handlers(load_services())
_RETENTION_S: Final = 3600.0


class _Journal(SqliteJournal):
    """The real journal, that tells of each commit as it is appended."""

    def __init__(self, path: Path, told: Callable[[Commit], None], clock: Clock) -> None:
        super().__init__(path, clock=clock)
        self._told = told

    def append(self, commit: Commit) -> None:
        """See Journal."""
        super().append(commit)
        self._told(commit)


class ControlPlane:
    """One process's life. `run` is its main coroutine; the rest may be used by steps of the same process, once `up`."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        chance: random.Random,
        *,
        heartbeat_s: float,
        loaded: Callable[[State], None],
        committed: Callable[[Commit], None],
    ) -> None:
        """`loaded` hears of the state as it was found, `committed` of each commit as it is appended."""
        self.up = asyncio.Event()
        self.journal = _Journal(directory / "controlplane" / "state.db", committed, clock)
        self._config = ControlPlaneConfig(data_dir=directory, listeners=(), region="eu-home-1", account="123456789012")
        self._clock = clock
        self._chance = chance
        self._heartbeat_s = heartbeat_s
        self._loaded = loaded
        self.context: Context
        self._hub: FleetHub

    @property
    def state(self) -> State:
        """The state in memory."""
        return self.context.state

    async def run(self) -> None:
        """Serve until cancelled. Raises JournalError, in a group, when the disk fails."""
        await self.journal.start()
        try:
            async with asyncio.TaskGroup() as storage:
                state = await load_state(self.journal)
                self._loaded(state)
                storage.create_task(self.journal.run())
                await self._decide(state)
        finally:
            await self.journal.close()

    async def _decide(self, state: State) -> None:
        context = self.context = Context(
            state=state,
            clock=self._clock,
            random=self._chance,
            arns=resolve_identity(state, self._config, self._chance),
            endpoints=Endpoints(local_url="http://127.0.0.1:6180", network_url=None, ca_hash=None),
            logs=MemoryLogStore(),
            collect_logs=False,
        )
        ensure_default_cluster(context)
        await state.durable()
        self._hub = FleetHub(context, heartbeat_s=self._heartbeat_s)
        feed = JournalFeed(self.journal, context.arns)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._hub.run())
            loops.create_task(self.journal.run_retention())
            for deciding in deciders(context, ServiceLoop(context), feed, stopped_task_s=_RETENTION_S):
                loops.create_task(deciding)
            await asyncio.sleep(0)
            self.up.set()

    async def serve(self, socket: Socket, host: str) -> None:
        """Serve a host's session."""
        await self._hub.serve(SessionWire(socket, peer=host, abort=socket.abort))

    async def register(self, registration: Registration) -> Registered:
        """Answer a registration. Raises RegistrationRefused."""
        registered = register(self.context, registration)
        await self.state.durable()
        return registered

    async def call(self, service: str, operation: str, document: Document, decided: Callable[[int], None]) -> Document:
        """Answer a request as the front door does, from its validation on. `decided` is told the revision behind it.

        Raises Refused.
        """
        handler = _HANDLERS[service, operation]

        def handle(context: Context, checked: Document) -> Any:
            try:
                answer = handler(context, checked)
            finally:
                decided(context.state.revision)
            return answer

        model = _SERVICES[service]
        try:
            if model.operations is not None:
                document = check(model.operations[operation].input, document, validation_error=model.validation_error)
            answer = await carry_out(self.context, handle, document)
        except ApiError as error:
            raise Refused(error.code, str(error)) from error
        decoded: Document = msgspec.json.decode(msgspec.json.encode(answer))
        return decoded
