"""The composition root: builds the control plane's parts in order, runs them, and takes them down in reverse.

The order is the promise: the journal is loaded and can write before anything decides; everything can decide before a
socket answers; readiness is told once requests are served. On the way down the loops end first, then requests in
flight, then the journal writes what is pending. If any loop dies, all of it ends, and the process with it.
"""

import asyncio
import gc
import os
import random
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog
from aiohttp import web

from controlplane import retention
from controlplane.api.ecs.clusters import ensure_default_cluster
from controlplane.api.events_route import EventStreams
from controlplane.api.logs_route import LogStreams
from controlplane.api.registry import HANDLERS
from controlplane.api.server import FrontDoor
from controlplane.config import ControlPlaneConfig
from controlplane.context import Context, Endpoints
from controlplane.events import delivery
from controlplane.events.feed import JournalFeed
from controlplane.events.hosts import HostTeller
from controlplane.fleet.assignments_route import assignments_routes
from controlplane.fleet.hub import FleetHub
from controlplane.fleet.install import install_routes
from controlplane.fleet.log_intake import LogIntake
from controlplane.health import health_routes
from controlplane.installation import first_access_key, resolve_identity
from controlplane.listen import Bound, bind, endpoints_of, local_names, site_of
from controlplane.logs.choice import open_log_store
from controlplane.logs.insights.queries import run_queries
from controlplane.metrics import ControlPlaneMetrics
from controlplane.pki import Authority
from controlplane.schedules import loop as schedules
from controlplane.services.loop import ServiceLoop
from controlplane.standalone import loop as standalone
from controlplane.state.state import load_state
from controlplane.store.backup_route import backup_routes
from controlplane.store.sqlite import SqliteJournal
from homeport import __version__
from homeport.clock import Clock, SystemClock
from homeport.daemon import notify, watchdog, write_private
from homeport.datadir import ControlPlaneDir, EndpointFile
from homeport.ids import OsRandom

__all__ = ["deciders", "serve"]

#: Requests in flight get this long to finish when the daemon is told to stop.
_SHUTDOWN_GRACE_S: Final = 5.0

#: Allocations, less frees, that make Python look for cycles. Requests make next to none, and its own 700 are reached
#: every few of them.
_GC_THRESHOLD: Final = 20_000
#: How long the journal's writer, done with a step, may have to wait for a busy event loop to let it go on. Python's own
#: 5 ms are longer than a whole commit takes, and every answer waits for its commit.
_SWITCH_INTERVAL_S: Final = 0.0005

_log: Final = structlog.get_logger(__name__)


async def serve(config: ControlPlaneConfig, *, clock: Clock | None = None, source: random.Random | None = None) -> None:
    """Run the control plane until cancelled.

    Prints one line on stdout when it is ready. Raises ConfigurationError if it can't start with this configuration,
    JournalError when the store fails. On cancel: requests in flight are finished, pending commits written.
    """
    clock = clock or SystemClock()
    source = source or OsRandom()
    paths = ControlPlaneDir(config.data_dir)
    metrics = ControlPlaneMetrics(clock)
    async with (
        SqliteJournal.open(
            paths.database, clock=clock, retention_s=config.history_days * 86400, on_commit=metrics.observe_commit
        ) as journal,
        open_log_store(
            paths.logs, clock, url=config.logs_url, limit_bytes=config.logs_limit_bytes, observe=metrics.logs
        ) as logs,
        asyncio.TaskGroup() as storage,
    ):
        state = await load_state(journal)
        _tune_interpreter()
        storage.create_task(journal.run())
        arns = resolve_identity(state, config, source)
        key = first_access_key(paths.credentials, config, source)
        authority = Authority.open(paths, names=local_names(config.advertise_host), clock=clock)
        bound = bind(config.listeners)
        endpoints = endpoints_of(bound, advertise_host=config.advertise_host, ca_hash=authority.ca_hash())
        context = Context(
            state=state,
            clock=clock,
            random=source,
            arns=arns,
            endpoints=endpoints,
            logs=logs,
            collect_logs=config.collect_logs,
        )
        ensure_default_cluster(context)
        await state.durable()
        metrics.attach(state)
        metrics.attach_logs(logs)
        secrets = {key.access_key_id: key.secret_access_key}
        front_door = FrontDoor(context, secret_of=secrets.get, observe=metrics.observe_request)
        metrics.expect_requests(HANDLERS)  # all are registered once there is a front door
        hub = FleetHub(context, heartbeat_s=config.heartbeat_s, ca_pem=authority.ca_pem if endpoints.ca_hash else None)
        intake = LogIntake(context)
        feed = JournalFeed(journal, arns)
        streams = EventStreams(feed, front_door)
        log_streams = LogStreams(context, front_door, hub.read_logs)
        routes = [
            *_routes(context, front_door, hub, paths),
            *intake.routes(),
            *streams.routes(),
            *log_streams.routes(),
            *metrics.routes(state),
        ]
        async with _serving(routes, bound, authority), asyncio.TaskGroup() as loops:
            loops.create_task(hub.run())
            loops.create_task(intake.run())
            loops.create_task(streams.run())
            loops.create_task(log_streams.run())
            loops.create_task(front_door.run())
            loops.create_task(logs.run())
            loops.create_task(run_queries(context.queries, logs, clock))
            loops.create_task(metrics.run(state))
            loops.create_task(metrics.watch_event_loop())
            loops.create_task(authority.keep_renewed())
            loops.create_task(journal.run_retention())
            services = ServiceLoop(context, observe=metrics.services.observe_look)
            for deciding in deciders(context, services, feed, stopped_task_s=config.stopped_task_retention_s):
                loops.create_task(deciding)
            loops.create_task(watchdog(state.durable))
            _announce(paths, endpoints, context)
            await asyncio.Event().wait()


def deciders(
    context: Context, services: ServiceLoop, feed: JournalFeed, *, stopped_task_s: float
) -> Iterable[Coroutine[None, None, None]]:
    """Return the loops that change the state by themselves; each runs until cancelled. The simulator runs them, too.

    `stopped_task_s`: how long stopped tasks stay in memory.
    """
    yield HostTeller(context).run()
    yield services.run()
    yield retention.run(context, retention.Retention(stopped_task_s=stopped_task_s))
    yield standalone.run(context)
    yield schedules.run(context)
    yield delivery.run(context, feed)


def _routes(
    context: Context, front_door: FrontDoor, hub: FleetHub, paths: ControlPlaneDir
) -> list[web.AbstractRouteDef]:
    return [
        *front_door.routes(),
        *hub.routes(),
        *assignments_routes(context, front_door),
        *install_routes(context.endpoints, paths.root / "wheels"),
        *backup_routes(front_door, context.state, paths, context.clock),
        *health_routes(context.state),
    ]


def _tune_interpreter() -> None:
    """Keep the garbage collector off what was loaded, which stays, and off most requests; share the process fairly."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])


@asynccontextmanager
async def _serving(
    routes: Iterable[web.AbstractRouteDef], bound: Sequence[Bound], authority: Authority
) -> AsyncIterator[None]:
    """Serve the routes on all bound sockets."""
    application = web.Application()
    application.add_routes(routes)
    # Bodies are signed as they come, so that only the front door may unpack them.
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_GRACE_S, auto_decompress=False)
    await runner.setup()
    try:
        for each in bound:
            await site_of(each, runner, authority.server_context()).start()
        yield
    finally:
        await runner.cleanup()


def _announce(paths: ControlPlaneDir, endpoints: Endpoints, context: Context) -> None:
    """Tell everyone who waits for it that requests are answered: scripts, the CLI, systemd, the log."""
    document = EndpointFile(
        local_url=endpoints.local_url,
        network_url=endpoints.network_url,
        region=context.arns.region,
        account=context.arns.account,
        ca_bundle=str(paths.ca_certificate.resolve()) if endpoints.local_url.startswith("https:") else None,
        ca_hash=endpoints.ca_hash,
        pid=os.getpid(),
    )
    write_private(paths.endpoint, msgspec.json.format(msgspec.json.encode(document)) + b"\n", mode=0o644)
    sys.stdout.write(f"homeport-controlplane ready: {endpoints.local_url}\n")
    sys.stdout.flush()
    notify(f"READY=1\nSTATUS=Serving {endpoints.network_url or endpoints.local_url}")
    _log.info("ready", version=__version__, local_url=endpoints.local_url, network_url=endpoints.network_url)
