"""The containers of a simulated Engine: what the Engine knows of each, and what each really does (`behaviour`).

The two differ: a process ends whenever it ends, and the Engine notices when it can. What really happened goes into the
ledger at once; inspecting shows what the Engine has noticed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from homeport.clock import Clock
from tests.simulation.behaviour import Life, health_changes, life_of
from tests.simulation.dockerd import Dockerd
from tests.simulation.events import EventLog
from tests.simulation.ledger import Asked, ContainerLedgerEntry, End

__all__ = ["Container", "Containers", "Refusal"]

_ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_SIGKILLED: Final = 137
#: What the Engine writes down for a start that failed.
_NEVER_RAN: Final = 128
#: Between SIGTERM and SIGKILL where no time was given: a few manage to obey.
_SHORTEST_STOP_S: Final = 0.001
_FIRST_DYNAMIC_PORT: Final = 32768
_LAST_DYNAMIC_PORT: Final = 60999

_Changed = Callable[[ContainerLedgerEntry, str], None]


class Refusal(Exception):
    """What the Engine answers instead: an HTTP status and a text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(eq=False)
class Container:
    """A container as the Engine knows it; `entry` has the truth. `chance` draws what it does."""

    entry: ContainerLedgerEntry
    image_id: str
    chance: Random
    status: str = "created"
    exit_code: int = 0
    oom: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    health: str | None = None
    #: Port and protocol -> (address, host port).
    bindings: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    life: Life = field(default_factory=Life)
    #: The stop signal has been sent to the process that runs.
    signalled: bool = False
    #: Called once the Engine has noticed that it ended.
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return what inspecting shows."""
        state: dict[str, Any] = {
            "Status": self.status,
            "Running": self.status == "running",
            "ExitCode": self.exit_code,
            "OOMKilled": self.oom,
            "Error": self.error,
            "StartedAt": _time(self.started_at),
            "FinishedAt": _time(self.finished_at),
            "Pid": 1000 + len(self.entry.starts) if self.status == "running" else 0,
        }
        if self.health is not None:
            state["Health"] = {"Status": self.health, "Log": [{"Output": f"it is {self.health}"}]}
        return {
            "Id": self.entry.id,
            "Name": f"/{self.entry.name}",
            "Config": {"Labels": self.entry.labels, "Image": self.entry.image},
            "State": state,
            "NetworkSettings": {
                "Ports": {
                    key: [{"HostIp": address, "HostPort": str(port)} for address, port in targets]
                    for key, targets in self.bindings.items()
                }
            },
            "Image": self.image_id,
        }

    def summary(self) -> dict[str, Any]:
        """Return what a list of containers shows."""
        return {
            "Id": self.entry.id,
            "Names": [f"/{self.entry.name}"],
            "Labels": self.entry.labels,
            "State": self.status,
            "ImageID": self.image_id,
        }


def _time(at: float | None) -> str:
    if at is None:
        return _ZERO_TIME
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Containers:
    """All containers of one Engine. `changed` is told of whatever really becomes of one, in words."""

    def __init__(self, clock: Clock, chance: Random, dockerd: Dockerd, events: EventLog, changed: _Changed) -> None:
        self._clock = clock
        self._chance = chance
        self._dockerd = dockerd
        self._events = events
        self._changed = changed
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, Container] = {}
        self._next_port = _FIRST_DYNAMIC_PORT

    def __iter__(self) -> Iterator[Container]:
        return iter(self._by_id.values())

    def get(self, name_or_id: str) -> Container:
        """Return a container. Raises Refusal if there is none."""
        found = self._by_id.get(name_or_id) or self._by_name.get(name_or_id)
        if found is None:
            raise Refusal(404, f"No such container: {name_or_id}")
        return found

    # ------------------------------------------------------------ verbs

    def create(self, name: str, body: dict[str, Any], image_id: str, *, foreign: bool = False) -> Container:
        """Make a container. Raises Refusal if the name is taken."""
        if taken := self._by_name.get(name):
            raise Refusal(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{taken.entry.id}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
            )
        entry = ContainerLedgerEntry(
            id=f"{self._chance.getrandbits(256):064x}",
            name=name,
            labels=body.get("Labels") or {},
            image=body["Image"],
            body=body,
            created_at=self._now(),
            foreign=foreign,
        )
        container = Container(entry, image_id, Random(self._chance.getrandbits(64)))
        self._by_id[entry.id] = self._by_name[name] = container
        self._changed(entry, "created")
        self._tell("create", container)
        return container

    def start(self, container: Container) -> bool:
        """Start a container; False if it runs already. Raises Refusal, which the container keeps as its error."""
        container.entry.asked.append(Asked(self._now(), "start"))
        if container.status == "running":
            return False
        if container.status == "removing":
            raise Refusal(409, "container is marked for removal and cannot be started")
        life = life_of(container.entry.image, len(container.entry.starts) + 1, container.chance)
        try:
            if life.refusal:
                raise Refusal(400, f"failed to create task for container: {life.refusal}")
            container.bindings = self._bind(container)
        except Refusal as refusal:
            container.error = str(refusal)
            container.exit_code = container.exit_code or _NEVER_RAN
            raise
        container.life, container.signalled = life, False
        container.status, container.error, container.exit_code, container.oom = "running", "", 0, False
        container.started_at = self._now()
        entry = container.entry
        entry.starts.append(container.started_at)
        entry.ports = frozenset(_host_ports(container))
        self._changed(entry, "started")
        self._tell("start", container)
        if life.ends_after_s is not None:
            why = "oom" if life.oom else "exited"
            self._dockerd.after(life.ends_after_s, self._end, container, len(entry.starts), life.exit_code, why)
        self._begin_probing(container)
        return True

    def stop(self, container: Container, timeout_s: float, stopped: Callable[[], None]) -> bool:
        """Send the stop signal, and SIGKILL after a while; `stopped` is called then. False if it doesn't run."""
        container.entry.asked.append(Asked(self._now(), "stop"))
        if container.status != "running":
            return False
        container.waiting.append(stopped)
        run = len(container.entry.starts)
        self._signal(container)
        self._dockerd.work(max(timeout_s, _SHORTEST_STOP_S), self._end, container, run, _SIGKILLED, "killed")
        return True

    def remove(self, container: Container, seconds: float, removed: Callable[[], None]) -> None:
        """Kill a container if it runs, and remove it, which takes a while; `removed` is called then.

        Raises Refusal while somebody else's removal is under way.
        """
        container.entry.asked.append(Asked(self._now(), "remove"))
        if container.status == "removing":
            raise Refusal(409, f"removal of container {container.entry.id} is already in progress")
        if container.status == "running":
            self._end(container, len(container.entry.starts), _SIGKILLED, "killed")
        container.status = "removing"

        def gone() -> None:
            self._drop(container)
            removed()

        self._dockerd.work(seconds, gone)

    # ------------------------------------------------------------ what nobody asked the Engine for

    def forget(self, container: Container) -> None:
        """Somebody else removes a container by force, at once."""
        if container.status == "running":
            self._end(container, len(container.entry.starts), _SIGKILLED, "forgotten")
        self._drop(container)

    def kill_all(self) -> None:
        """End every container that runs, as an Engine without live restore does."""
        for container in self._by_id.values():
            self._end(container, len(container.entry.starts), _SIGKILLED, "engine")

    def restore(self) -> None:
        """A new Engine takes up what is there, without a word to anybody."""
        for container in self._by_id.values():
            container.waiting.clear()
            if container.status == "removing":
                container.status = "exited" if container.entry.starts else "created"
            if container.status != "running":
                continue
            if container.entry.running:
                self._begin_probing(container)
            else:
                self._write_down_end(container)

    # ------------------------------------------------------------ ends

    def _signal(self, container: Container) -> None:
        """SIGTERM: the process ends when it likes, whatever becomes of the Engine meanwhile."""
        life = container.life
        if container.signalled or life.stops_after_s is None:
            return
        container.signalled = True
        run = len(container.entry.starts)
        self._dockerd.after(life.stops_after_s, self._end, container, run, life.stop_code, "stopped")

    def _end(self, container: Container, run: int, code: int, why: str) -> None:
        """A process ends, if it is still that one."""
        entry = container.entry
        if not entry.running or len(entry.starts) != run:
            return
        entry.ends.append(End(max(self._now(), entry.starts[-1]), code, why))
        self._changed(entry, f"ended with {code} ({why})")
        self._dockerd.work(0, self._notice, container, run)

    def _notice(self, container: Container, run: int) -> None:
        """The Engine notices an end. Nothing may have begun anew: it wouldn't start what it thinks is running."""
        if container.status != "running" or len(container.entry.starts) != run:
            return
        self._write_down_end(container)
        if container.oom:
            self._tell("oom", container)
        self._tell("die", container, exitCode=str(container.exit_code))
        waiting, container.waiting = container.waiting, []
        for stopped in waiting:
            stopped()

    def _write_down_end(self, container: Container) -> None:
        end = container.entry.ends[-1]
        container.status, container.exit_code, container.oom = "exited", end.exit_code, end.why == "oom"
        container.finished_at = end.at
        container.bindings = {}
        container.entry.ports = frozenset()
        if container.health is not None:
            # As with Docker: what nobody looks at any more counts as unhealthy.
            container.health = "unhealthy"

    def _drop(self, container: Container) -> None:
        if self._by_id.pop(container.entry.id, None) is None:
            return
        del self._by_name[container.entry.name]
        container.entry.removed_at = self._now()
        self._changed(container.entry, "removed")
        self._tell("destroy", container)

    # ------------------------------------------------------------ health and ports

    def _begin_probing(self, container: Container) -> None:
        check = container.entry.body.get("Healthcheck")
        if check is None:
            return
        container.health = "starting"
        begun = self._now() - container.entry.starts[-1]
        changes = health_changes(container.life, check, begun_s=max(0.0, begun))
        self._probe(container, len(container.entry.starts), changes, 0.0)

    def _probe(self, container: Container, run: int, changes: Iterator[tuple[float, str]], at: float) -> None:
        """Wait for the next change of health, if there is one; no probes are made while the Engine is away."""
        change = next(changes, None)
        if change is None:
            return
        second, status = change

        def told() -> None:
            if container.status == "running" and len(container.entry.starts) == run:
                container.health = status
                self._tell(f"health_status: {status}", container)
                self._probe(container, run, changes, second)

        self._dockerd.work(second - at, told)

    def _bind(self, container: Container) -> dict[str, list[tuple[str, int]]]:
        """Publish a container's ports. Raises Refusal for a host port that another container has."""
        taken = {port for other in self._by_id.values() for port in _host_ports(other)}
        bindings: dict[str, list[tuple[str, int]]] = {}
        host_config = container.entry.body.get("HostConfig") or {}
        for key, targets in (host_config.get("PortBindings") or {}).items():
            protocol = key.partition("/")[2]
            for target in targets:
                port = int(target.get("HostPort") or 0) or self._dynamic(protocol, taken)
                if (protocol, port) in taken:
                    raise Refusal(
                        500,
                        "driver failed programming external connectivity on endpoint "
                        f"{container.entry.name}: Bind for 0.0.0.0:{port} failed: port is already allocated",
                    )
                taken.add((protocol, port))
                bindings.setdefault(key, []).append(("0.0.0.0", port))
        return bindings

    def _dynamic(self, protocol: str, taken: set[tuple[str, int]]) -> int:
        while True:
            port = self._next_port
            self._next_port = port + 1 if port < _LAST_DYNAMIC_PORT else _FIRST_DYNAMIC_PORT
            if (protocol, port) not in taken:
                return port

    # ------------------------------------------------------------ parts

    def _now(self) -> float:
        # Docker's times are finer than what is left of them in an answer: here both are the same.
        return round(self._clock.now(), 6)

    def _tell(self, action: str, container: Container, **attributes: str) -> None:
        if self._dockerd.away:
            return
        entry = container.entry
        self._events.tell(self._now(), action, entry.id, entry.labels, image=entry.image, name=entry.name, **attributes)


def _host_ports(container: Container) -> Iterator[tuple[str, int]]:
    for key, targets in container.bindings.items():
        for _, port in targets:
            yield key.partition("/")[2], port
