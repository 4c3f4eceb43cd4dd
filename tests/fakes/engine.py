"""A container engine in memory, behind the agent's Engine Protocol, that does what a test tells it to.

It has no I/O and waits only with asyncio's own means, so it runs on a virtual-time loop; the time it stamps comes from
the Clock it is given. Containers run until the test says otherwise:

    engine = FakeEngine(clock, images=["web:1"])
    engine.exit("web", 137, oom=True)              # the container named web in the task definition dies
    engine.set_health("web", HealthStatus.HEALTHY)
    engine.fail("start", EngineTimeout("..."), effect=True)   # the next start times out, but did start
    with engine.held("pull") as pulls: ...         # pulls hang inside the block
    with engine.down(): ...                        # nothing answers inside the block; containers go on
    with engine.losing_events(): ...               # nobody is told what happens inside the block

Verbs that were called are in `calls`, in order.
"""

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from agent.engine.api import ContainerFacts, ContainerPlan, EngineEvent, EngineInfo, ImageFacts, LogLine, PullProgress
from agent.engine.errors import Conflict, EngineError, EngineUnavailable, NotFound, Rejected
from agent.engine.logfile import open_log_file
from agent.engine.output import OutputReader, Spool
from agent.engine.plan import IDENTITY_LABELS
from homeport.clock import Clock
from homeport.protocol import NetworkBinding
from homeport.status import HealthStatus
from tests.fakes.json_file import JsonFile

__all__ = ["Call", "FakeEngine", "FakeVolume", "Held", "image_facts"]

Verb = Literal[
    "info",
    "image",
    "pull",
    "create",
    "start",
    "stop",
    "remove",
    "inspect",
    "list",
    "create_volume",
    "volume_exists",
    "remove_volume",
]


@dataclass(frozen=True)
class Call:
    """One call of a verb. `argument`: the container's name, the image's reference or the volume's name."""

    verb: str
    argument: str


@dataclass(frozen=True)
class FakeVolume:
    """A volume as it was asked for."""

    driver: str
    options: dict[str, str]
    labels: dict[str, str]


class Held:
    """Calls that hang. `count` of them wait now; `arrived` waits for the first."""

    def __init__(self) -> None:
        self.count = 0
        self._arrived = asyncio.Event()
        self._released = asyncio.Event()

    async def arrived(self) -> None:
        """Wait until at least one call hangs."""
        await self._arrived.wait()

    def release(self) -> None:
        """Let them go on."""
        self._released.set()

    async def wait(self) -> None:
        """Hang (called by the engine)."""
        self.count += 1
        self._arrived.set()
        try:
            await self._released.wait()
        finally:
            self.count -= 1


@dataclass
class _Fault:
    error: EngineError
    effect: bool


@dataclass
class _Container:
    facts: ContainerFacts
    plan: ContainerPlan
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[LogLine] = field(default_factory=list)


@dataclass
class _Stream:
    labels: Mapping[str, str]
    queue: "asyncio.Queue[EngineEvent]"


def image_facts(reference: str) -> ImageFacts:
    """Return the facts of a made-up image: id and digest follow from the reference."""
    digest = hashlib.sha256(reference.encode()).hexdigest()
    return ImageFacts(image_id=f"sha256:{digest[::-1]}", digest=f"sha256:{digest}")


class FakeEngine:
    """See the module. Implements `agent.engine.api.Engine`.

    `images` are on the host. `registry`: what else can be pulled; None: anything.
    `log_dir`: where containers' output is kept in files, for `output`.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        images: Iterable[str] = (),
        registry: Iterable[str] | None = None,
        cgroup_version: Literal["1", "2"] = "2",
        log_dir: Path | None = None,
    ) -> None:
        self.clock = clock
        self.images: dict[str, ImageFacts] = {reference: image_facts(reference) for reference in images}
        self.registry: set[str] | None = None if registry is None else set(registry)
        self.volumes: dict[str, FakeVolume] = {}
        self.calls: list[Call] = []
        #: How often each container's process was really started, by id.
        self.starts: dict[str, int] = {}
        #: Container names (of the task definition) that ignore the stop signal and need SIGKILL (exit code 137).
        self.stubborn: set[str] = set()
        #: Exit code a container ends with when asked to stop; default 143, as of a process that SIGTERM kills.
        self.exit_on_stop: dict[str, int] = {}
        #: Seconds each call of a verb takes.
        self.delays: dict[str, float] = {}
        self._info = EngineInfo(
            version="28.0.0",
            os_type="linux",
            architecture="x86_64",
            cgroup_version=cgroup_version,
            cgroup_driver="cgroupfs",
            root_dir="/var/lib/docker",
            live_restore=True,
            log_drivers=("json-file", "journald", "none"),
        )
        self._containers: dict[str, _Container] = {}
        self._faults: dict[str, deque[_Fault]] = {}
        self._held: dict[str, Held] = {}
        self._turns: Held | None = None
        self._streams: list[_Stream] = []
        self._up = asyncio.Event()
        self._up.set()
        self._losing = False
        self._serial = 0
        self._next_port = 49153
        self._log_changed = asyncio.Event()
        self._log_dir = log_dir
        #: What containers' output is shipped from, by id; with `log_dir` only.
        self.log_files: dict[str, JsonFile] = {}

    # ------------------------------------------------------------ what a test does to it

    def fail(self, verb: Verb, error: EngineError, *, times: int = 1, effect: bool = False) -> None:
        """Make the next `times` calls of `verb` raise `error`; with `effect`, after having done their work."""
        self._faults.setdefault(verb, deque()).extend([_Fault(error, effect)] * times)

    @contextlib.contextmanager
    def held(self, verb: Verb) -> Iterator[Held]:
        """Make calls of `verb` hang until the block ends, or `release` is called."""
        held = self._held[verb] = Held()
        try:
            yield held
        finally:
            del self._held[verb]
            held.release()

    @contextlib.contextmanager
    def busy(self) -> Iterator[Held]:
        """Let no start have its turn until the block ends, or `release` is called."""
        held = self._turns = Held()
        try:
            yield held
        finally:
            self._turns = None
            held.release()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Be unreachable inside the block: calls raise EngineUnavailable, events are lost until the `resync` after."""
        self._up.clear()
        for stream in self._streams:
            _drain(stream.queue)
        try:
            yield
        finally:
            self._up.set()
            self.resync()

    @contextlib.contextmanager
    def losing_events(self) -> Iterator[None]:
        """Tell nobody what happens inside the block. No `resync` follows by itself."""
        self._losing = True
        try:
            yield
        finally:
            self._losing = False

    def resync(self) -> None:
        """Give every reader of events a `resync`, as after a broken stream."""
        for stream in self._streams:
            stream.queue.put_nowait(EngineEvent(kind="resync", at=self.clock.now()))

    def exit(self, container: str, code: int, *, oom: bool = False) -> None:
        """End a running container's process with an exit code."""
        record = self._running(container)
        self._finish(record, code, oom=oom)

    def set_health(self, container: str, health: HealthStatus, *, output: str = "") -> None:
        """Change what a container's health check says."""
        record = self._running(container)
        record.facts = msgspec.structs.replace(record.facts, health=health, health_output=output)
        self._tell("health", record)

    def vanish(self, container: str) -> None:
        """Remove a container behind the agent's back."""
        record = self.find(container)
        if record.state == "running":
            self.exit(container, 137)
        self._forget(self._containers[record.container_id])

    def write_log(self, container: str, text: str, *, stream: Literal["stdout", "stderr"] = "stdout") -> None:
        """Let a container write one line."""
        record = self._containers[self.find(container).container_id]
        at_ns = int(self.clock.now() * 1e9)
        record.log.append(LogLine(at_ns=at_ns, stream=stream, text=text))
        if file := self.log_files.get(record.facts.container_id):
            file.write(text + "\n", at_ns=at_ns, stream=stream)
        self._wake_log_readers()

    # ------------------------------------------------------------ what a test sees

    def find(self, container: str, *, task: str | None = None) -> ContainerFacts:
        """Return a container by its name in the task definition, its derived name or its id.

        The newest wins; `task` narrows it to one task's id. KeyError if there is none.
        """
        for record in reversed(self._containers.values()):
            facts = record.facts
            if task is not None and facts.labels.get("homeport.task") != task:
                continue
            if container in (facts.labels.get("homeport.container"), facts.name, facts.container_id):
                return facts
        raise KeyError(container)

    def plan_of(self, container: str, *, task: str | None = None) -> ContainerPlan:
        """Return the plan a container was made from."""
        return self._containers[self.find(container, task=task).container_id].plan

    def containers(self) -> tuple[ContainerFacts, ...]:
        """Return all containers, oldest first."""
        return tuple(record.facts for record in self._containers.values())

    def count(self, verb: Verb) -> int:
        """How often a verb was called."""
        return sum(call.verb == verb for call in self.calls)

    # ------------------------------------------------------------ the Protocol

    async def info(self) -> EngineInfo:
        """See Engine."""
        async with self._call("info", ""):
            return self._info

    async def image(self, reference: str) -> ImageFacts | None:
        """See Engine."""
        async with self._call("image", reference):
            return self.images.get(reference)

    async def pull(self, reference: str, progress: Callable[[PullProgress], None] | None = None) -> ImageFacts:
        """See Engine. Tells half and all of 1,000 bytes."""
        async with self._call("pull", reference):
            if self.registry is not None and reference not in self.registry:
                raise NotFound(f"manifest for {reference} not found: manifest unknown: manifest unknown")
            for done in (500, 1000):
                if progress is not None:
                    progress(PullProgress(done_bytes=done, total_bytes=1000))
            return self.images.setdefault(reference, image_facts(reference))

    async def create(self, plan: ContainerPlan) -> str:
        """See Engine."""
        async with self._call("create", plan.name):
            for record in self._containers.values():
                if record.facts.name == plan.name:
                    if any(record.facts.labels.get(key) != plan.labels.get(key) for key in IDENTITY_LABELS):
                        raise Conflict(f'The container name "/{plan.name}" is already in use')
                    return record.facts.container_id
            image = self.images.get(plan.body["Image"])
            if image is None:
                raise NotFound(f"No such image: {plan.body['Image']}")
            self._serial += 1
            container_id = f"{self._serial:064x}"
            facts = ContainerFacts(
                container_id=container_id,
                name=plan.name,
                labels=dict(plan.labels),
                state="created",
                image_id=image.image_id,
            )
            record = self._containers[container_id] = _Container(facts, plan)
            if self._log_dir is not None:
                self.log_files[container_id] = JsonFile(self._log_dir / f"{container_id}-json.log")
            self._tell("create", record)
            return container_id

    @contextlib.asynccontextmanager
    async def start_turn(self) -> AsyncIterator[None]:
        """See Engine."""
        if self._turns is not None:
            await self._turns.wait()
        yield

    async def start(self, container_id: str) -> None:
        """See Engine."""
        async with self._call("start", self._name(container_id)):
            record = self._record(container_id)
            if record.facts.state == "running":
                return
            bindings = self._bind(record.plan)
            self.starts[container_id] = self.starts.get(container_id, 0) + 1
            record.stopped = asyncio.Event()
            record.facts = msgspec.structs.replace(
                record.facts,
                state="running",
                exit_code=None,
                oom_killed=False,
                started_at=self.clock.now(),
                finished_at=None,
                health=HealthStatus.UNKNOWN if record.plan.body.get("Healthcheck") else None,
                bindings=bindings,
                pid=1000 + int(container_id, 16),
            )
            self._tell("start", record)

    async def stop(self, container_id: str, timeout_s: int) -> None:
        """See Engine."""
        async with self._call("stop", self._name(container_id)):
            record = self._record(container_id)
            if record.facts.state != "running":
                return
            name = record.facts.labels.get("homeport.container", record.facts.name)
            if name in self.stubborn:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(record.stopped.wait(), timeout_s)
                code = 137
            else:
                code = self.exit_on_stop.get(name, 143)
            if record.facts.state == "running":
                self._finish(record, code, oom=False)

    async def remove(self, container_id: str) -> None:
        """See Engine."""
        async with self._call("remove", self._name(container_id)):
            record = self._lookup(container_id)
            if record is None:
                return
            if record.facts.state == "running":
                self._finish(record, 137, oom=False)
            self._forget(record)

    async def inspect(self, name_or_id: str) -> ContainerFacts | None:
        """See Engine."""
        async with self._call("inspect", name_or_id):
            record = self._lookup(name_or_id)
            return record.facts if record else None

    async def list(self, labels: Mapping[str, str]) -> tuple[ContainerFacts, ...]:
        """See Engine. As with Docker, exit codes, times, health and ports are left out."""
        async with self._call("list", ""):
            return tuple(
                ContainerFacts(
                    container_id=record.facts.container_id,
                    name=record.facts.name,
                    labels=record.facts.labels,
                    state=record.facts.state,
                    image_id=record.facts.image_id,
                )
                for record in self._containers.values()
                if labels.items() <= record.facts.labels.items()
            )

    async def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        """See Engine."""
        stream = _Stream(dict(labels), asyncio.Queue())
        await self._up.wait()
        stream.queue.put_nowait(EngineEvent(kind="resync", at=self.clock.now()))
        self._streams.append(stream)
        try:
            while True:
                yield await stream.queue.get()
        finally:
            self._streams.remove(stream)

    async def logs(
        self, container_id: str, *, follow: bool = False, tail: int | None = None, since: float | None = None
    ) -> AsyncGenerator[LogLine]:
        """See Engine."""
        if not self._up.is_set():
            raise EngineUnavailable("Cannot connect to the Docker daemon")
        record = self._record(container_id)
        position = 0 if tail is None else max(0, len(record.log) - tail)
        while True:
            while position < len(record.log):
                line = record.log[position]
                position += 1
                if since is None or line.at > since:
                    yield line
            if not follow or record.facts.state != "running":
                return
            await self._log_changed.wait()

    @contextlib.asynccontextmanager
    async def output(self, container_id: str, position: str) -> AsyncIterator[OutputReader]:
        """See Engine; read from `log_files`."""
        if not self._up.is_set():
            raise EngineUnavailable("Cannot connect to the Docker daemon")
        self._record(container_id)
        with contextlib.closing(
            await open_log_file(self.log_files[container_id].path, position, spool=Spool(4, 16_000_000))
        ) as reader:
            yield reader

    async def create_volume(
        self, name: str, *, driver: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """See Engine."""
        async with self._call("create_volume", name):
            self.volumes.setdefault(name, FakeVolume(driver, dict(options), dict(labels)))

    async def volume_exists(self, name: str) -> bool:
        """See Engine."""
        async with self._call("volume_exists", name):
            return name in self.volumes

    async def remove_volume(self, name: str) -> None:
        """See Engine."""
        async with self._call("remove_volume", name):
            self.volumes.pop(name, None)

    # ------------------------------------------------------------ inside

    @contextlib.asynccontextmanager
    async def _call(self, verb: str, argument: str) -> AsyncIterator[None]:
        """Record a call; delay, hold or fail it as told."""
        self.calls.append(Call(verb, argument))
        await asyncio.sleep(self.delays.get(verb, 0.0))
        if held := self._held.get(verb):
            await held.wait()
        if not self._up.is_set():
            raise EngineUnavailable("Cannot connect to the Docker daemon. Is the docker daemon running?")
        faults = self._faults.get(verb)
        fault = faults.popleft() if faults else None
        if fault is not None and not fault.effect:
            raise fault.error
        yield
        if fault is not None:
            raise fault.error

    def _lookup(self, name_or_id: str) -> _Container | None:
        """Return a container's record by id or derived name."""
        if record := self._containers.get(name_or_id):
            return record
        return next((record for record in self._containers.values() if record.facts.name == name_or_id), None)

    def _record(self, name_or_id: str) -> _Container:
        """Return a container's record by id or derived name, or raise NotFound."""
        record = self._lookup(name_or_id)
        if record is None:
            raise NotFound(f"No such container: {name_or_id}")
        return record

    def _name(self, container_id: str) -> str:
        record = self._lookup(container_id)
        return record.facts.name if record else container_id

    def _running(self, container: str) -> _Container:
        facts = self.find(container)
        assert facts.state == "running", f"{container} is {facts.state}"
        return self._containers[facts.container_id]

    def _finish(self, record: _Container, code: int, *, oom: bool) -> None:
        record.facts = msgspec.structs.replace(
            record.facts,
            state="exited",
            exit_code=code,
            oom_killed=oom,
            finished_at=self.clock.now(),
            bindings=(),
            pid=0,
        )
        record.stopped.set()
        if oom:
            self._tell("oom", record)
        self._tell("die", record, exit_code=code)
        self._wake_log_readers()

    def _forget(self, record: _Container) -> None:
        del self._containers[record.facts.container_id]
        if file := self.log_files.pop(record.facts.container_id, None):
            file.remove()
        self._tell("destroy", record)

    def _tell(
        self,
        kind: Literal["create", "start", "die", "oom", "health", "destroy"],
        record: _Container,
        *,
        exit_code: int | None = None,
    ) -> None:
        if self._losing or not self._up.is_set():
            return
        facts = record.facts
        event = EngineEvent(
            kind=kind,
            at=self.clock.now(),
            container_id=facts.container_id,
            labels=facts.labels,
            exit_code=exit_code,
        )
        for stream in self._streams:
            if stream.labels.items() <= facts.labels.items():
                stream.queue.put_nowait(event)

    def _bind(self, plan: ContainerPlan) -> tuple[NetworkBinding, ...]:
        """Publish a plan's ports, refusing a host port that another running container has."""
        taken = {
            (binding.protocol, binding.host_port)
            for record in self._containers.values()
            for binding in record.facts.bindings
        }
        bindings = []
        for key, targets in plan.body.get("HostConfig", {}).get("PortBindings", {}).items():
            port, _, protocol = key.partition("/")
            for target in targets:
                host_port = int(target.get("HostPort") or 0)
                if not host_port:
                    host_port, self._next_port = self._next_port, self._next_port + 1
                if (protocol, host_port) in taken:
                    raise Rejected(f"Bind for 0.0.0.0:{host_port} failed: port is already allocated")
                bindings.append(
                    NetworkBinding(
                        bind_ip=target.get("HostIp") or "0.0.0.0",
                        container_port=int(port),
                        host_port=host_port,
                        protocol=protocol,
                    )
                )
        return tuple(bindings)

    def _wake_log_readers(self) -> None:
        self._log_changed.set()
        self._log_changed = asyncio.Event()


def _drain(queue: "asyncio.Queue[EngineEvent]") -> None:
    while not queue.empty():
        queue.get_nowait()
