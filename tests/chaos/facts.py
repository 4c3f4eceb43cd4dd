"""What is found at the end of a run, by itself: what the API says, what the Engines have, what containers marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.plan import Fault

__all__ = ["ContainerFact", "Facts", "Happened", "HostFact", "Marks", "ServiceFact", "Span", "TaskFact", "read_beats"]


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it came about. Times are in seconds of the monotonic clock."""

    fault: Fault
    begun_at: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFact:
    """A task with one container, as DescribeTasks shows it. `host`: the instance's id, or ""."""

    arn: str
    started_by: str
    group: str
    host: str
    definition: str
    last: str
    desired: str
    health: str
    stop_code: str
    stopped_reason: str
    exit_code: int | None
    container_reason: str
    runtime_id: str

    @property
    def id(self) -> str:
        return self.arn.rsplit("/", 1)[-1]

    @property
    def runs(self) -> bool:
        return (self.last, self.desired) == ("RUNNING", "RUNNING")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFact:
    """A container with our labels, as its Engine shows it. `host`: the instance's id."""

    id: str
    host: str
    task: str
    running: bool
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFact:
    name: str
    status: str
    definition: str
    desired: int
    running: int
    pending: int
    deployments: int
    rollout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact:
    """`foreign`: whether what isn't ours is as it was. `used_mib`: what tasks have of its memory, says the API."""

    name: str
    instance: str
    connected: bool
    status: str
    health: str
    foreign: bool
    live_restore: bool
    used_mib: int


@dataclass(frozen=True, slots=True)
class Marks:
    """What containers wrote, by the beginning of their ids, which is their host name."""

    starts: Mapping[str, Sequence[str]]  #: the tokens
    ends: Mapping[str, Sequence[int]]  #: the exit codes

    @classmethod
    def read(cls, text: str) -> "Marks":
        """Read `start ID TOKEN` and `end ID CODE`, one a line."""
        starts: dict[str, list[str]] = {}
        ends: dict[str, list[int]] = {}
        for line in text.splitlines():
            word, container, about = line.split()
            if word == "start":
                starts.setdefault(container, []).append(about)
            else:
                ends.setdefault(container, []).append(int(about))
        return cls(starts, ends)


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when a container said that it runs, in seconds of the monotonic clock."""

    container: str  #: the beginning of its id
    first: float
    last: float


def read_beats(text: str, *, ahead_s: float) -> list[Span]:
    """Read `ID TIME`, one a line; return one span for each container, in the order of their beginnings.

    `ahead_s`: how far the clock of these times, that of the machine since its boot, is ahead of the monotonic one.
    """
    beats: dict[str, list[float]] = {}
    for line in text.splitlines():
        container, at = line.split()
        beats.setdefault(container, []).append(float(at) - ahead_s)
    return sorted((Span(name, min(at), max(at)) for name, at in beats.items()), key=lambda span: span.first)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it. Tasks by ARN; services by name."""

    tasks: Mapping[str, TaskFact]
    containers: Sequence[ContainerFact]
    services: Mapping[str, ServiceFact]
    hosts: Sequence[HostFact]
    marks: Marks
    #: When the containers ran of which there may be one at a time, in the order of their beginnings.
    only: Sequence[Span] = ()
    #: Task ARN -> the lines of its container that are kept. Empty until `at_rest` is judged.
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Task ARN -> the lines that its Engine has, of those of whose lines something is amiss.
    said: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Task ARN -> when it was first seen to be STOPPED, in seconds of the monotonic clock.
    stopped_at: Mapping[str, float] = field(default_factory=dict)
    happened: Sequence[Happened] = ()
    #: Container id -> the exit code that its Engine showed during the run.
    exit_codes: Mapping[str, int] = field(default_factory=dict)
