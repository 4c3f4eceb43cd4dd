"""Which faults happen when: drawn from a seed, before anything runs. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat
from random import Random
from typing import Final

__all__ = ["CONTROL_PLANE", "Fault", "Kind", "Part", "draw"]

#: The node that the control plane is on; hosts are named `host-1`, `host-2`, ...
CONTROL_PLANE: Final = "controlplane"


class Part(StrEnum):
    """What of a node a fault befalls."""

    CONTROL_PLANE = "controlplane"
    AGENT = "agent"
    ENGINE = "engine"
    CABLE = "cable"


class Kind(StrEnum):
    """What happens to it."""

    KILL = "kill"  #: kill -9; it is started again when the fault is over
    STOP = "stop"  #: SIGTERM, as an upgrade does; started again when the fault is over
    FREEZE = "freeze"  #: SIGSTOP, then SIGCONT
    FILL = "fill"  #: its file system is full
    SHIFT = "shift"  #: its clock is `amount` seconds off
    CUT = "cut"  #: the link is down
    DEAFEN = "deafen"  #: nothing reaches the node
    MUTE = "mute"  #: nothing leaves it
    LOSE = "lose"  #: `amount` of its frames are lost, each way
    DELAY = "delay"  #: each frame takes `amount` seconds longer
    REORDER = "reorder"  #: each takes anything up to twice `amount` seconds
    DOUBLE = "double"  #: `amount` of its frames come twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: from `at_s` on (since the start of the run) for `lasts_s` seconds."""

    at_s: float
    lasts_s: float
    kind: Kind
    part: Part
    node: str
    amount: float = 0.0

    @property
    def name(self) -> str:
        """What the report counts it as."""
        return f"{self.kind} {self.part}"

    @property
    def end_s(self) -> float:
        return self.at_s + self.lasts_s


@dataclass(frozen=True, slots=True)
class _Choice:
    kind: Kind
    parts: tuple[Part, ...]
    lasts_s: tuple[float, float]
    amounts: tuple[float, ...] = (0.0,)


_DAEMONS: Final = (Part.CONTROL_PLANE, Part.AGENT, Part.ENGINE)
_OURS: Final = (Part.CONTROL_PLANE, Part.AGENT)
_NET: Final = (Part.CABLE,)

#: Heartbeats come every second, a host is silent after three, and what may run only once is replaced after 25: faults
#: last for less than that, and for far more.
_CHOICES: Final = (
    _Choice(Kind.KILL, _DAEMONS, (1, 8)),
    _Choice(Kind.STOP, _DAEMONS, (1, 8)),
    _Choice(Kind.FREEZE, _DAEMONS, (2, 15)),
    _Choice(Kind.FILL, _OURS, (4, 12)),
    _Choice(Kind.SHIFT, _OURS, (5, 15), (-3600, -120, -5, 5, 120, 3600)),
    _Choice(Kind.CUT, _NET, (2, 45)),
    _Choice(Kind.DEAFEN, _NET, (2, 45)),
    _Choice(Kind.MUTE, _NET, (2, 45)),
    _Choice(Kind.LOSE, _NET, (8, 20), (0.05, 0.2, 0.4)),
    _Choice(Kind.DELAY, _NET, (8, 20), (0.05, 0.3, 1.0)),
    _Choice(Kind.REORDER, _NET, (8, 20), (0.02, 0.1, 0.3)),
    _Choice(Kind.DOUBLE, _NET, (8, 20), (0.1, 0.5)),
)
#: How long the cluster has to itself after a fault, so that its recovery can be measured.
_REST_S: Final = (8.0, 18.0)
#: The share of faults that come while the one before still lasts.
_OVERLAPPING: Final = 0.25
#: Faults are over this long before the run's end.
_QUIET_END_S: Final = 15.0


def draw(seed: int, *, minutes: float, hosts: Sequence[str], calm: float = 1.0) -> tuple[Fault, ...]:
    """Return the faults of a run: as many of one kind as of another, by turns that the seed shuffles.

    `calm`: how many times as long as usual the rest is between faults.
    """
    random = Random(seed)
    plan: list[Fault] = []
    for choice, part in _turns(random):
        node = _node(random, part, hosts)
        fault = Fault(
            at_s=_beginning(random, plan, part, node, calm),
            lasts_s=round(random.uniform(*choice.lasts_s), 2),
            kind=choice.kind,
            part=part,
            node=node,
            amount=random.choice(choice.amounts),
        )
        if fault.end_s > minutes * 60 - _QUIET_END_S:
            return tuple(plan)
        plan.append(fault)
    raise AssertionError("turns never end")


def _beginning(random: Random, plan: Sequence[Fault], part: Part, node: str, calm: float) -> float:
    """When the next fault begins. Nothing suffers two faults at a time."""
    if plan and random.random() < _OVERLAPPING:
        at_s = plan[-1].at_s + random.uniform(0.2, 0.9) * plan[-1].lasts_s
        if not any(each.end_s > at_s and (each.part, each.node) == (part, node) for each in plan):
            return round(at_s, 2)
    return round(max((each.end_s for each in plan), default=0.0) + calm * random.uniform(*_REST_S), 2)


def _turns(random: Random) -> Iterator[tuple[_Choice, Part]]:
    every = [(choice, part) for choice in _CHOICES for part in choice.parts]
    return chain.from_iterable(random.sample(turn, len(turn)) for turn in repeat(every))


def _node(random: Random, part: Part, hosts: Sequence[str]) -> str:
    match part:
        case Part.CONTROL_PLANE:
            return CONTROL_PLANE
        case Part.CABLE:
            return random.choice((CONTROL_PLANE, *hosts))
        case Part.AGENT | Part.ENGINE:
            return random.choice(tuple(hosts))
