"""What happens to a simulated cluster: hosts, requests and faults, all drawn from one seed beforehand.

A plan is a plain value: the same seed always gives the same one, it goes to JSON and back, and any of its acts may be
left out, which is how a failing one is made short. So an act never relies on another: a host, a service or a task that
isn't there makes it do nothing, or is refused as for any caller.

Seeds have moods, so that a few thousand of them cover both what is rare and what piles up:

    calm    requests, and a fault or two          single  one kind of fault, again and again
    mixed   a handful of faults of all kinds      pair    two kinds, together on one host, a few times
    storm   more faults than requests
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tests.simulation import workload

__all__ = ["CONTROLPLANE", "FAULTS", "REQUEST", "Act", "Machine", "Plan", "Settings", "generate"]

REQUEST: Final = "request"
#: The subject of what happens to the control plane.
CONTROLPLANE: Final = "controlplane"
#: Virtual seconds in which no fault is left, and everything has to come to rest.
_QUIET_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happens `at_s` virtual seconds after the beginning.

    kind "request": `subject` is the operation, `arguments` its document (with references, see `workload`); else a fault
    of FAULTS: `subject` is a host's name or CONTROLPLANE. The arguments of "add_host" are a Machine's.
    """

    at_s: float
    kind: str
    subject: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """A host that joins. `foreign`: containers there that aren't Homeport's."""

    name: str
    cpu_units: int
    memory_mib: int
    zone: str
    foreign: int = 0
    #: Host ports that are reserved there.
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for a whole plan. Pairs are the bounds of what is drawn each time, in seconds."""

    heartbeat_s: float
    #: One way through the network.
    latency_s: tuple[float, float]
    #: One write to disk until it is durable.
    sync_s: tuple[float, float]
    mood: str


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module. After the last act come `quiet_after_s` seconds without faults."""

    seed: int
    hosts: tuple[Machine, ...]
    settings: Settings
    acts: tuple[Act, ...]
    quiet_after_s: float

    def to_json(self) -> bytes:
        """Encode the plan."""
        return msgspec.json.format(msgspec.json.encode(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Plan":
        """Decode a plan. Raises msgspec.ValidationError or msgspec.DecodeError for what is none."""
        return msgspec.json.decode(data, type=cls)


def generate(seed: int) -> Plan:
    """Return the plan of a seed. Pure: the same for all time, as long as this code stays as it is."""
    chance = random.Random(f"plan {seed}")
    trouble_s = chance.uniform(120, 600)
    hosts = tuple(_machine(chance, f"host-{number}") for number in range(chance.randint(1, 5)))
    mood = chance.choices(["calm", "single", "pair", "mixed", "storm"], weights=[2, 4, 3, 4, 2])[0]
    requests = [
        Act(at_s, REQUEST, operation, document)
        for at_s, operation, document in workload.requests(
            chance, seed, [host.name for host in hosts], count=chance.randint(8, 32), until_s=trouble_s
        )
    ]
    acts = requests + _faults(chance, mood, [host.name for host in hosts], trouble_s)
    return Plan(
        seed=seed,
        hosts=hosts,
        settings=_settings(chance, mood),
        acts=tuple(sorted(acts, key=lambda act: act.at_s)),
        quiet_after_s=_QUIET_S,
    )


def _machine(chance: random.Random, name: str) -> Machine:
    return Machine(
        name=name,
        cpu_units=chance.choice([1024, 2048, 4096]),
        memory_mib=chance.choice([512, 1024, 2048]),
        zone=chance.choice(["a", "b"]),
        foreign=chance.choice([0, 0, 1, 3]),
        ports=chance.choice([(), (), (22,), (22, 8080)]),
    )


def _settings(chance: random.Random, mood: str) -> Settings:
    return Settings(
        heartbeat_s=chance.choice([2.0, 5.0, 10.0]),
        latency_s=chance.choice([(0.0, 0.0), (0.0005, 0.002), (0.001, 0.3)]),
        sync_s=chance.choice([(0.0, 0.0), (0.001, 0.01), (0.005, 0.5)]),
        mood=mood,
    )


# ---------------------------------------------------------------- faults


def _faults(chance: random.Random, mood: str, hosts: list[str], until_s: float) -> list[Act]:
    if mood == "pair":
        return _pairs(chance, hosts, until_s)
    kinds = sorted(FAULTS)
    count = {
        "calm": chance.randint(1, 3),
        "single": chance.randint(4, 15),
        "mixed": chance.randint(4, 14),
        "storm": chance.randint(15, 28),
    }[mood]
    if mood == "single":
        kinds = [chance.choice(kinds)]
    elif mood == "storm":
        kinds = chance.sample(kinds, 6)
    acts = []
    joined = len(hosts)
    for _ in range(count):
        kind = chance.choice(kinds)
        subject, arguments = FAULTS[kind](chance, hosts)
        if kind == "add_host":
            if joined >= 8:
                continue
            joined, subject = joined + 1, f"host-{joined}"
            arguments = msgspec.json.decode(msgspec.json.encode(_machine(chance, subject)))
        # The first seconds are for joining and the first requests: nearly nothing could go wrong there.
        acts.append(Act(round(chance.uniform(3, until_s), 3), kind, subject, arguments))
    return acts


def _pairs(chance: random.Random, hosts: list[str], until_s: float) -> list[Act]:
    """Draw two kinds of faults that meet: what one hides, the other may show."""
    kinds = chance.sample([kind for kind in sorted(FAULTS) if kind != "add_host"], 2)
    acts = []
    for _ in range(chance.randint(2, 6)):
        host, at_s = chance.choice(hosts), chance.uniform(3, until_s)
        for kind in kinds:
            subject, arguments = FAULTS[kind](chance, [host])
            acts.append(Act(round(at_s + chance.uniform(0, 5), 3), kind, subject, arguments))
    return acts


_Drawn = tuple[str, dict[str, Any]]
_Draw = Callable[[random.Random, list[str]], _Drawn]


def _seconds(chance: random.Random) -> float:
    """A fault is short, long enough to be noticed, or longer than everybody's patience."""
    return round(chance.choice([chance.uniform(0.05, 3), chance.uniform(3, 30), chance.uniform(30, 150)]), 3)


def _on_host(**draws: Callable[[random.Random], Any]) -> _Draw:
    def draw(chance: random.Random, hosts: list[str]) -> _Drawn:
        return chance.choice(hosts), {name: value(chance) for name, value in draws.items()}

    return draw


def _on_controlplane(**draws: Callable[[random.Random], Any]) -> _Draw:
    def draw(chance: random.Random, hosts: list[str]) -> _Drawn:
        return CONTROLPLANE, {name: value(chance) for name, value in draws.items()}

    return draw


def _on_any(**draws: Callable[[random.Random], Any]) -> _Draw:
    def draw(chance: random.Random, hosts: list[str]) -> _Drawn:
        subject = chance.choice([CONTROLPLANE, CONTROLPLANE, *hosts])
        return subject, {name: value(chance) for name, value in draws.items()}

    return draw


def _one_of(*values: Any) -> Callable[[random.Random], Any]:
    return lambda chance: chance.choice(values)


def _between(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda chance: round(chance.uniform(low, high), 3)


def _steps(chance: random.Random) -> int:
    """After how many steps of the process it is killed: at any await, so mostly in the midst of things."""
    return chance.choice([0, chance.randint(1, 20), chance.randint(20, 400)])


#: Fault -> who it hits, and how. `seconds`: how long it lasts. see `faults` for what each does.
FAULTS: Final[dict[str, _Draw]] = {
    "kill_agent": _on_host(after_steps=_steps, down_s=_seconds),
    "kill_controlplane": _on_controlplane(after_steps=_steps, down_s=_seconds),
    "torn_write": _on_any(down_s=_seconds),
    "cut": _on_host(direction=_one_of("both", "both", "up", "down"), seconds=_seconds),
    "drop_connection": _on_host(),
    "delay": _on_host(seconds=_between(0.05, 20), for_s=_seconds),
    "lose_sets": _on_host(how=_one_of("lost", "doubled", "swapped"), count=_one_of(1, 1, 2, 5)),
    "engine_hang": _on_host(seconds=_seconds),
    "engine_down": _on_host(seconds=_seconds),
    "engine_restart": _on_host(live_restore=_one_of(True, False), seconds=_between(0.5, 20)),
    "engine_forget": _on_host(which=_one_of(0, 1, 2, 3)),
    "engine_lose_events": _on_host(seconds=_seconds),
    "engine_late_events": _on_host(seconds=_seconds),
    "engine_disk_full": _on_host(seconds=_seconds),
    "clock_jump": _on_any(seconds=_one_of(-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0)),
    "clock_drift": _on_any(rate=_one_of(0.9, 0.99, 1.01, 1.1)),
    "disk_full": _on_any(seconds=_seconds),
    "disk_slow": _on_any(factor=_one_of(5.0, 50.0, 500.0), seconds=_seconds),
    "add_host": _on_host(),
}
