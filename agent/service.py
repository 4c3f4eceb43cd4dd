"""The composition root: puts the agent's parts together and runs them in one TaskGroup; a dead loop ends the process.

On the way down everything is cancelled and the journal writes what is pending. Containers are left alone: stopping the
agent is not stopping what it runs.
"""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from agent.config import AgentConfig
from agent.engine.docker import DockerEngine
from agent.engine.errors import EngineError
from agent.host import HostMonitor, read_facts
from agent.hostview import Host, LateCgroups
from agent.identity import Identity, load_identity
from agent.isolation import Contact
from agent.journal import Journal
from agent.logs.disk import DiskWatch
from agent.logs.shipper import LogShipper
from agent.logs.unshipped import UnshippedNotes
from agent.metrics import AgentMetrics, metrics_app
from agent.uplink import Uplink
from agent.worker import Worker
from homeport import __version__
from homeport.clock import Clock, SystemClock
from homeport.daemon import notify, watchdog
from homeport.datadir import AgentDir
from homeport.errors import ConfigurationError
from homeport.protocol import HostFacts

__all__ = ["facts_for_joining", "serve"]

_log: Final = structlog.get_logger(__name__)

#: While joining, Docker may be away; then its part of the facts comes with the first session.
_JOIN_PROBE_S: Final = 5.0


async def serve(config: AgentConfig, *, clock: Clock | None = None, source: random.Random | None = None) -> None:
    """Run the agent until cancelled, or until its host was deregistered and every task has stopped.

    Raises ConfigurationError if it can't start with this configuration (also: not joined yet), JournalError when the
    journal fails. An Engine that can't be reached is no error: it is waited for.
    """
    clock = clock or SystemClock()
    source = source or random.SystemRandom()
    directory = AgentDir(config.data_dir)
    identity = _identity(config, directory)
    metrics = AgentMetrics(version=__version__)
    async with DockerEngine(config.docker_host, observe=metrics.observe, clock=clock) as engine:
        monitor = HostMonitor(engine, clock)
        cgroups = LateCgroups(engine, engine.docker_host)
        listening = _listen(config)
        host = Host(monitor, config.host_settings(_address(listening)), cgroups)
        journal = Journal(directory.database)
        contact = Contact(directory.contact)
        contact.load()
        notes = UnshippedNotes(directory.unshipped)
        notes.load()
        shipper = LogShipper(
            identity, engine, notes, facts=host.facts, clock=clock, random=source, metrics=metrics.logs
        )
        disk = DiskWatch(lambda: monitor.info.root_dir if monitor.info else None, shipper.streams, clock=clock)
        worker = Worker(
            engine,
            journal,
            host,
            cgroups,
            owner=identity.instance_id,
            clock=clock,
            rng=source,
            shipping=shipper,
            cleanup_after_s=config.cleanup_after_s,
            contact=contact,
        )
        await host.start()
        _warn_if_docker_is_away(engine, monitor)
        uplink = Uplink(
            identity, worker, clock=clock, random=source, on_connected=lambda connected: _status(metrics, connected)
        )
        application = metrics_app(
            metrics,
            worker,
            disk_path=lambda: monitor.info.root_dir if monitor.info else "/",
            unwell=lambda: _engine_problem(monitor),
        )
        async with _serving(application, listening), asyncio.TaskGroup() as loops:
            works = (journal.run(), worker.run(), monitor.run(), host.run(), shipper.run(), disk.run(), watchdog())
            running = [loops.create_task(work) for work in works]
            notify("READY=1")
            _log.info("ready", version=__version__, instance=identity.instance_id, docker_host=engine.docker_host)
            await uplink.run()
            _log.info("deregistered, and every task has stopped: the agent ends")
            for each in running:
                each.cancel()


async def facts_for_joining(config: AgentConfig) -> HostFacts:
    """Read this host's facts once, with or without an answer of the Engine."""
    async with DockerEngine(config.docker_host) as engine:
        try:
            async with asyncio.timeout(_JOIN_PROBE_S):
                info = await engine.info()
        except (EngineError, TimeoutError):
            info = None
    return await read_facts(info, config.host_settings(""), agent_version=__version__)


def _identity(config: AgentConfig, directory: AgentDir) -> Identity:
    identity = load_identity(directory)
    if identity is None:
        raise ConfigurationError(
            f"this host has not joined a control plane yet (no identity in {directory.root}). Print the command that "
            "joins it with `homeport add-node` on the control plane's machine; it looks like: homeport-agent join "
            "--server https://HOST:6181 --activation-id ID --activation-code CODE --ca-hash sha256:HASH"
            f" --data-dir {config.data_dir}"
        )
    return identity


def _warn_if_docker_is_away(engine: DockerEngine, monitor: HostMonitor) -> None:
    if problem := _engine_problem(monitor):
        _log.warning(
            "The Docker Engine doesn't answer; trying on. Is it running, and may this user reach it?",
            docker_host=engine.docker_host,
            problem=problem,
        )


def _engine_problem(monitor: HostMonitor) -> str:
    return next((c.reason for c in monitor.conditions if c.type == "CONTAINER_RUNTIME" and not c.ok), "")


def _status(metrics: AgentMetrics, connected: bool) -> None:
    """Say in systemd's status line, and in metrics, whether there is a session."""
    metrics.set_uplink_connected(connected)
    notify("STATUS=connected" if connected else "STATUS=not connected to the control plane; trying on")


# ---------------------------------------------------------------- metrics


def _listen(config: AgentConfig) -> socket.socket | None:
    if config.metrics_listen is None:
        return None
    host, port = config.metrics_listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"can't serve metrics on {host}:{port}: {error.strerror}. Choose another address with --metrics-listen "
            "HOST:PORT, or turn metrics off with --metrics-listen off"
        ) from error


def _address(listening: socket.socket | None) -> str:
    if listening is None:
        return ""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def _serving(application: web.Application, listening: socket.socket | None) -> AsyncIterator[None]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        if listening is not None:
            await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()
