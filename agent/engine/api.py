"""The engine seam: the verbs the agent needs of a container engine. `docker.py` speaks to Docker; tests have a fake.

Verbs are idempotent: what is already done succeeds (create of an existing name returns its id, start of a running
container, stop of a stopped one and remove of a missing one return quietly). Every verb is bounded by a limit from
`limits.py` and raises only what `errors.py` names. On cancel a verb stops waiting; its effect may still happen.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

from agent.engine.output import OutputReader
from homeport.protocol import NetworkBinding
from homeport.status import HealthStatus

__all__ = [
    "ContainerFacts",
    "ContainerPlan",
    "Engine",
    "EngineEvent",
    "EngineInfo",
    "ImageFacts",
    "LogLine",
    "PullProgress",
]


class _Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the Engine tells."""


class EngineInfo(_Fact, frozen=True):
    """What the Engine says of itself and its host."""

    version: str
    os_type: str
    architecture: str
    cgroup_version: Literal["1", "2"]
    cgroup_driver: str
    root_dir: str
    live_restore: bool
    log_drivers: tuple[str, ...] = ()
    #: The newest Engine API it speaks.
    api_version: str = "1.41"


class ImageFacts(_Fact, frozen=True):
    """An image on the host. `digest`: the repository digest `sha256:...`, None if it was never in a registry."""

    image_id: str
    digest: str | None


class PullProgress(_Fact, frozen=True):
    """How far a pull has come: bytes fetched of those known so far (layers already present count for nothing)."""

    done_bytes: int
    total_bytes: int


class ContainerPlan(_Fact, frozen=True):
    """A container to create: its derived name, the labels that make it ours, and the Engine's create body."""

    name: str
    labels: dict[str, str]
    #: The body of the Engine API's ContainerCreate, less Labels.
    body: dict[str, Any]


class ContainerFacts(_Fact, frozen=True):
    """A container as inspected. `state` is Docker's word. Times are epoch seconds, None for Docker's zero time."""

    container_id: str
    name: str
    labels: dict[str, str]
    state: Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
    exit_code: int | None = None
    oom_killed: bool = False
    #: Docker's own text when a start failed.
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    #: None without a health check; Docker's "starting" is UNKNOWN.
    health: HealthStatus | None = None
    health_output: str = ""
    bindings: tuple[NetworkBinding, ...] = ()
    image_id: str = ""
    pid: int = 0


class EngineEvent(_Fact, frozen=True):
    """Something happened to a container of ours, or (kind `resync`) events may have been missed: inspect everything."""

    kind: Literal["create", "start", "die", "oom", "health", "destroy", "resync"]
    at: float
    container_id: str = ""
    labels: dict[str, str] = {}
    exit_code: int | None = None


class LogLine(_Fact, frozen=True):
    """One line of a container's log. `at_ns`: epoch nanoseconds."""

    at_ns: int
    stream: Literal["stdout", "stderr"]
    text: str

    @property
    def at(self) -> float:
        """The time as epoch seconds, which can't tell lines apart that are less than a microsecond apart."""
        return self.at_ns / 1e9


class Engine(Protocol):
    """A container engine on this host."""

    async def info(self) -> EngineInfo:
        """Ask the Engine what it is; also the probe that it answers at all."""
        ...

    async def image(self, reference: str) -> ImageFacts | None:
        """Look an image up on the host; None if it isn't there."""
        ...

    async def pull(self, reference: str, progress: Callable[[PullProgress], None] | None = None) -> ImageFacts:
        """Fetch an image from its registry, calling `progress` now and then."""
        ...

    async def create(self, plan: ContainerPlan) -> str:
        """Create a container and return its id; if one of that name exists, return that one's."""
        ...

    def start_turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for the turn to start a container, and hold it inside the block: more starts at once would be slower.

        On cancel before the turn has come the place in the queue is given up, without any effect.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Start a container; inside a `start_turn`."""
        ...

    async def stop(self, container_id: str, timeout_s: int) -> None:
        """Send the stop signal, and SIGKILL after `timeout_s`; return once it has stopped."""
        ...

    async def remove(self, container_id: str) -> None:
        """Remove a container, killing it if it runs, with its anonymous volumes."""
        ...

    async def inspect(self, name_or_id: str) -> ContainerFacts | None:
        """Return what the Engine knows of a container; None if there is no such container."""
        ...

    async def list(self, labels: Mapping[str, str]) -> tuple[ContainerFacts, ...]:
        """Return all containers, running or not, that carry these labels (state and labels only, not health)."""
        ...

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        """Yield events of containers with these labels, for ever, reconnecting by itself.

        The first event, the first after each gap, and one every few minutes in any case, is `resync`: it is yielded
        only once the stream is open, so that inspecting after it can miss nothing.
        """
        ...

    def logs(
        self, container_id: str, *, follow: bool = False, tail: int | None = None, since: float | None = None
    ) -> AsyncGenerator[LogLine]:
        """Yield a container's log lines. Close the generator to stop early."""
        ...

    def output(self, container_id: str, position: str) -> AbstractAsyncContextManager[OutputReader]:
        """Open what a container has written, behind `position` (the text of a `Mark`; "": from the beginning).

        Raises NotFound also if there is no output any more.
        """
        ...

    async def create_volume(
        self, name: str, *, driver: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """Create a volume unless one of that name exists."""
        ...

    async def volume_exists(self, name: str) -> bool:
        """Tell whether a volume of that name exists."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; quietly, if it is missing."""
        ...
