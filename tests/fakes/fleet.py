"""A real server for agents: the hub behind aiohttp on a loopback port, over a journal in memory."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from msgspec.structs import replace

from controlplane.context import Context, Endpoints
from controlplane.fleet.activations import new_activation
from controlplane.fleet.hub import FleetHub
from controlplane.fleet.log_intake import LogIntake
from controlplane.state.records import ClusterRecord, InstanceRecord, TaskRecord
from controlplane.state.state import State
from controlplane.store.api import Journal
from homeport.arn import ArnFactory
from homeport.clock import Clock, SystemClock
from homeport.ids import InstanceId, TaskId
from homeport.spec import ContainerSpec, Resources, TaskSpec
from homeport.status import DesiredStatus, StopCode
from tests.fakes.journal import MemoryJournal
from tests.fakes.log_store import MemoryLogStore

__all__ = ["FleetServer", "a_context", "a_task", "eventually", "serve_fleet"]

DEADLINE_S = 10.0


def a_context(journal: Journal | None = None, *, state: State | None = None, clock: Clock | None = None) -> Context:
    """Return a context over an empty state with the cluster `default` in it, and seeded randomness."""
    state = state or State(journal or MemoryJournal())
    context = Context(
        state=state,
        clock=clock or SystemClock(),
        random=random.Random(1),
        arns=ArnFactory("eu-central-1", "123456789012"),
        endpoints=Endpoints(local_url="http://127.0.0.1:0", network_url=None, ca_hash=None),
        logs=MemoryLogStore(),
    )
    if state.clusters.get("default") is None:
        with state.transaction() as transaction:
            transaction.put(ClusterRecord(name="default", created_at=context.clock.now()))
    return context


def a_task(task_id: str, instance_id: str | None = None) -> TaskRecord:
    """Return a small task, placed on a host if one is given."""
    arn = f"arn:aws:ecs:eu-central-1:123456789012:task/default/{task_id}"
    container = ContainerSpec(name="main", image="busybox", container_arn=f"{arn}/main", cpu_units=64, memory_mib=32)
    spec = TaskSpec(task_arn=arn, cluster="default", family="web", revision=1, containers=(container,))
    return TaskRecord(
        id=TaskId(task_id),
        cluster="default",
        spec=spec,
        created_at=1.0,
        launch_type="EC2",
        instance_id=None if instance_id is None else InstanceId(instance_id),
        resources=Resources.of_task(spec),
    )


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds; AssertionError after DEADLINE_S."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"not within {DEADLINE_S} s: {what or condition}"
        await asyncio.sleep(0.005)


@dataclass
class FleetServer:
    """A running server. `cut` breaks every connection, as a failing network does."""

    context: Context
    hub: FleetHub
    intake: LogIntake
    url: str
    port: int
    _transports: set[asyncio.Transport] = field(default_factory=set)

    def activation(self, *, limit: int = 1000, cluster: str = "") -> tuple[str, str]:
        """Make an activation; return its id and code."""
        expires_at = self.context.clock.now() + 3600
        record, code = new_activation(self.context, registration_limit=limit, expires_at=expires_at, cluster=cluster)
        return record.id, code

    def put(self, *records: TaskRecord | InstanceRecord) -> None:
        """Put records into the state."""
        with self.context.state.transaction() as transaction:
            for record in records:
                transaction.put(record)

    def task(self, task_id: str) -> TaskRecord:
        """Return a task."""
        task = self.context.state.tasks.get(task_id)
        assert task is not None
        return task

    def stop_task(self, task_id: str, reason: str = "Task stopped by user") -> None:
        """Do as StopTask does."""
        task = self.task(task_id)
        self.put(replace(task, desired=DesiredStatus.STOPPED, stop_code=StopCode.USER_INITIATED, stopped_reason=reason))

    def deregister(self, instance_id: str) -> None:
        """Do as DeregisterContainerInstance does."""
        instance = self.context.state.instances.get(instance_id)
        assert instance is not None
        self.put(replace(instance, status="INACTIVE"))

    def cut(self) -> None:
        """Break every connection without a word."""
        for transport in tuple(self._transports):
            transport.abort()

    def listen(self, *, on: bool) -> None:
        """Stop reading what comes over the present connections, or go on; nobody is told."""
        for transport in self._transports:
            if on:
                transport.resume_reading()
            else:
                transport.pause_reading()


@asynccontextmanager
async def serve_fleet(
    context: Context | None = None,
    *,
    heartbeat_s: float = 0.2,
    tls: ssl.SSLContext | None = None,
    ca_pem: bytes | None = None,
    port: int = 0,
    watch_capacity: int = 1000,
) -> AsyncIterator[FleetServer]:
    """Run a hub on a loopback port."""
    context = context or a_context()
    hub = FleetHub(context, heartbeat_s=heartbeat_s, ca_pem=ca_pem, watch_capacity=watch_capacity)
    intake = LogIntake(context)
    transports: set[asyncio.Transport] = set()

    @web.middleware
    async def note_transport(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        transports.add(transport)
        try:
            return await handler(request)
        finally:
            transports.discard(transport)

    app = web.Application(middlewares=[note_transport])
    app.add_routes([*hub.routes(), *intake.routes()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    async with asyncio.TaskGroup() as group:
        running = {group.create_task(hub.run()), group.create_task(intake.run())}
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        bound = runner.addresses[0][1]
        scheme = "http" if tls is None else "https"
        try:
            yield FleetServer(context, hub, intake, f"{scheme}://127.0.0.1:{bound}", bound, transports)
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)
            await runner.cleanup()
