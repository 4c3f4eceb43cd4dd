"""The Docker Engine behind the seam of `api.py`.

    async with DockerEngine(None) as engine: ...

Each verb waits for its turn (`gates.py`, `Limits`), then runs within its limit and raises only what `errors.py` names.
Inside the block an Engine that is down, hangs, or restarts makes calls fail, never the object: the next call works as
soon as the Engine does.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

from aiodocker import Docker, DockerError
from aiodocker.volumes import DockerVolume

from agent.engine import facts
from agent.engine.api import ContainerFacts, ContainerPlan, EngineEvent, EngineInfo, ImageFacts, LogLine, PullProgress
from agent.engine.errors import Conflict, NotFound, Rejected
from agent.engine.events import watch_events
from agent.engine.gates import AdaptiveGate, Climb
from agent.engine.limits import DEFAULT_LIMITS, Limits
from agent.engine.logfile import open_log_file
from agent.engine.logpoll import EngineLog
from agent.engine.logs import read_logs
from agent.engine.output import OutputReader, Spool
from agent.engine.plan import IDENTITY_LABELS
from agent.engine.pulls import Pulls, RegistryAuth
from agent.engine.transport import Observe, Transport, docker_host_of
from homeport.clock import Clock, SystemClock

__all__ = ["DockerEngine"]

T = TypeVar("T")

#: Between two looks at a container that is being made or removed by somebody else.
_LOOK_AGAIN_S: Final = 0.1
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class DockerEngine:
    """A Docker Engine; implements `agent.engine.api.Engine`. Use as `async with`; opening does no I/O.

    `docker_host`: `unix://PATH` or `tcp://HOST:PORT` (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH as usual); None:
    DOCKER_HOST, else /var/run/docker.sock. `observe` is told of every call. `client`: an open client to use instead of
    one that connects there. `cores`: how many the Engine has, as far as known before it has answered.
    """

    def __init__(
        self,
        docker_host: str | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        observe: Observe | None = None,
        clock: Clock | None = None,
        client: Docker | None = None,
        cores: int | None = None,
    ) -> None:
        self.docker_host = docker_host_of(docker_host)
        self._limits = limits
        self._clock = clock or SystemClock()
        self._transport = Transport(self.docker_host, observe=observe, client=client)
        self._pulls = Pulls(self._transport, limits, self.image)
        self._creates = asyncio.Semaphore(limits.creates)
        self._starts = AdaptiveGate(Climb.for_cores(cores or os.cpu_count() or 1), self._clock.monotonic)
        self._cores: int | None = None
        self._removes = asyncio.Semaphore(limits.removes)
        self._reads = asyncio.Semaphore(limits.reads)
        self._log_streams = asyncio.Semaphore(limits.log_streams)

    async def __aenter__(self) -> "DockerEngine":
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    @property
    def start_limit(self) -> int:
        """How many starts the Engine is given at once at the moment."""
        return self._starts.limit

    # ------------------------------------------------------------ the Engine and its images

    async def info(self) -> EngineInfo:
        """See Engine. Also learns how many cores the Engine has, which may not be this machine's."""

        async def act(docker: Docker) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            return await docker.system.info(), await docker.version()

        document, version = await self._transport.call("info", self._limits.info_s, act)
        cores = int(document.get("NCPU") or 1)
        if cores != self._cores:
            self._cores = cores
            self._starts.resize(cores)
        return facts.engine_info(document, version)

    async def image(self, reference: str) -> ImageFacts | None:
        """See Engine."""
        path = quote(reference, safe="/:@")
        try:
            document = await self._read("image", self._limits.image_s, lambda docker: docker.images.inspect(path))
        except NotFound:
            return None
        return facts.image_facts(reference, document)

    async def pull(
        self,
        reference: str,
        progress: Callable[[PullProgress], None] | None = None,
        *,
        auth: RegistryAuth | None = None,
    ) -> ImageFacts:
        """See Engine. Callers that want the same image at the same time share one pull."""
        return await self._pulls.pull(reference, progress=progress, auth=auth)

    # ------------------------------------------------------------ containers

    async def create(self, plan: ContainerPlan) -> str:
        """See Engine. Raises Conflict if the name is taken by a container that isn't the plan's own."""
        async with self._creates:
            return await self._transport.call(
                "create", self._limits.create_s, lambda docker: _create(docker, plan), subject=plan.name
            )

    def start_turn(self) -> contextlib.AbstractAsyncContextManager[None]:
        """See Engine."""
        return self._starts

    async def start(self, container_id: str) -> None:
        """See Engine. After EngineTimeout it may be running all the same."""
        try:
            await self._transport.call(
                "start",
                self._limits.start_s,
                lambda docker: docker.containers.container(_path(container_id)).start(),
                subject=container_id,
            )
        except NotFound as error:
            # Something else the container needs may be what is missing, e.g. its network.
            if "no such container" not in str(error).lower():
                raise Rejected(str(error)) from error
            raise

    async def stop(self, container_id: str, timeout_s: int) -> None:
        """See Engine. Raises NotFound for a missing container."""
        await self._transport.call(
            "stop",
            timeout_s + self._limits.stop_margin_s,
            lambda docker: docker.containers.container(_path(container_id)).stop(t=timeout_s),
            subject=container_id,
        )

    async def remove(self, container_id: str) -> None:
        """See Engine. Waits for a removal that is under way already."""
        async with self._removes:
            await self._transport.call(
                "remove", self._limits.remove_s, lambda docker: _remove(docker, container_id), subject=container_id
            )

    async def inspect(self, name_or_id: str) -> ContainerFacts | None:
        """See Engine."""
        document = await self._read("inspect", self._limits.inspect_s, lambda docker: _show(docker, name_or_id))
        return None if document is None else facts.container_facts(document)

    async def list(self, labels: Mapping[str, str]) -> tuple[ContainerFacts, ...]:
        """See Engine. A list can lag a moment behind an event just read (`inspect` can't): Docker keeps it apart."""
        selectors = {"label": [f"{name}={value}" for name, value in labels.items()]}

        async def act(docker: Docker) -> tuple[ContainerFacts, ...]:
            containers = await docker.containers.list(all=True, filters=selectors)
            return tuple(
                facts.listed_facts({key: container[key] for key in facts.LISTED_KEYS}) for container in containers
            )

        return await self._read("list", self._limits.list_s, act)

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[EngineEvent]:
        """See Engine."""
        return watch_events(self._transport, labels, limits=self._limits, clock=self._clock)

    async def logs(
        self, container_id: str, *, follow: bool = False, tail: int | None = None, since: float | None = None
    ) -> AsyncGenerator[LogLine]:
        """See Engine. `since` is exclusive. Raises NotFound; Rejected if the log driver can't be read."""
        document = await self._read("inspect", self._limits.inspect_s, lambda docker: _show(docker, container_id))
        if document is None:
            raise NotFound(f"No such container: {container_id}")
        async with self._log_streams:
            lines = read_logs(
                self._transport,
                _path(container_id),
                terminal=bool(document["Config"].get("Tty")),
                follow=follow,
                tail=tail,
                since=since,
                limits=self._limits,
            )
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield line

    @contextlib.asynccontextmanager
    async def output(self, container_id: str, position: str) -> AsyncIterator[OutputReader]:
        """See Engine. Read from the Engine's files, if this process may; else through its API, which costs more."""
        document = await self._read("inspect", self._limits.inspect_s, lambda docker: _show(docker, container_id))
        if document is None or not document.get("LogPath"):
            raise NotFound(f"container {container_id} has no log")
        spool = Spool.of(document["HostConfig"]["LogConfig"].get("Config") or {})
        try:
            file = await open_log_file(Path(document["LogPath"]), position, spool=spool)
        except OSError:
            pass
        else:
            with contextlib.closing(file):
                yield file
            return
        log = EngineLog(
            self._transport, _path(container_id), bool(document["Config"].get("Tty")), self._limits, spool=spool
        )
        async with log.reader(position) as reader:
            yield reader

    # ------------------------------------------------------------ volumes

    async def create_volume(
        self, name: str, *, driver: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """See Engine. Raises Conflict if one of that name exists with another driver."""
        config = {"Name": name, "Driver": driver, "DriverOpts": dict(options), "Labels": dict(labels)}
        await self._transport.call(
            "create_volume", self._limits.volume_s, lambda docker: docker.volumes.create(config), subject=name
        )

    async def volume_exists(self, name: str) -> bool:
        """See Engine."""
        try:
            await self._read("volume_exists", self._limits.volume_s, lambda docker: docker.volumes.get(_path(name)))
        except NotFound:
            return False
        return True

    async def remove_volume(self, name: str) -> None:
        """See Engine. Raises Conflict while a container has it."""

        async def act(docker: Docker) -> None:
            try:
                await DockerVolume(docker, _path(name)).delete()
            except DockerError as error:
                if error.status != _NOT_FOUND:
                    raise

        await self._transport.call("remove_volume", self._limits.volume_s, act, subject=name)

    async def _read(self, name: str, limit_s: float, act: Callable[[Docker], Awaitable[T]]) -> T:
        async with self._reads:
            return await self._transport.call(name, limit_s, act)


def _path(name: str) -> str:
    """Return a name fit for a URL's path."""
    return quote(name, safe="")


async def _show(docker: Docker, name_or_id: str) -> dict[str, Any] | None:
    """Inspect a container; None if there is none."""
    try:
        return await docker.containers.container(_path(name_or_id)).show()
    except DockerError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


async def _create(docker: Docker, plan: ContainerPlan) -> str:
    """Create a container unless it is there.

    The name is taken while a container of that name is being made (by a call we gave up on) or removed: then the
    Engine knows of no such container yet, or of one that is going, and it is tried again until the limit.
    """
    while True:
        try:
            container = await docker.containers.create(plan.body | {"Labels": plan.labels}, name=plan.name)
        except DockerError as error:
            if error.status != _CONFLICT or "already in use" not in error.message:
                raise
            existing = await _show(docker, plan.name)
            if existing is not None and existing["State"]["Status"] != "removing":
                labels = existing["Config"].get("Labels") or {}
                if all(labels.get(label) == plan.labels.get(label) for label in IDENTITY_LABELS):
                    return str(existing["Id"])
                raise Conflict(error.message) from error
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            return container.id


async def _remove(docker: Docker, container_id: str) -> None:
    """Remove a container by force, with its anonymous volumes; wait for a removal that is under way."""
    try:
        await docker.containers.container(_path(container_id)).delete(force=True, v=True)
    except DockerError as error:
        if error.status == _NOT_FOUND:
            return
        if error.status != _CONFLICT or "already in progress" not in error.message:
            raise
        # Only the Engine knows when it is done, and it can't be waited for without missing the end.
        while await _show(docker, container_id) is not None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN_S)
