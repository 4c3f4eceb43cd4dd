"""The words of placement: what is asked for, what a host offers, why a host was refused, and what was decided.

All of them are plain values (a Candidate refers to records that nobody changes during a turn), so that `place` is pure.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from controlplane.state.load import HostLoad
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord
from controlplane.state.state import State
from homeport.ids import InstanceId
from homeport.spec import Resources

__all__ = [
    "DEFAULT_STRATEGY",
    "Candidate",
    "Constraint",
    "Demand",
    "Placement",
    "Refusal",
    "Strategy",
    "candidate_of",
    "candidates_of",
]


class Strategy(msgspec.Struct, frozen=True):
    """One entry of `placementStrategy`. `field`: "host", "cpu", "memory", or the attribute to spread over."""

    type: Literal["random", "spread", "binpack"]
    field: str = ""

    @property
    def by_attribute(self) -> bool:
        """Tell whether it spreads over the values of an attribute."""
        return self.type == "spread" and self.field != "host"


#: What is used when a request names none: even over hosts, as ECS's default for services.
DEFAULT_STRATEGY = (Strategy("spread", "host"),)


class Constraint(msgspec.Struct, frozen=True):
    """One entry of `placementConstraints`. `expression` is empty for distinctInstance.

    `provider`: the capacity provider that a memberOf stands for, "" if it is the user's own.
    """

    type: Literal["distinctInstance", "memberOf"]
    expression: str = ""
    provider: str = ""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What one task of a group asks of its host. Tasks with equal demands are placed in one go."""

    resources: Resources
    #: Tasks of the same group are spread from, and kept distinct from, each other.
    group: str = ""
    constraints: tuple[Constraint, ...] = ()
    strategy: tuple[Strategy, ...] = DEFAULT_STRATEGY
    #: Attributes that the host must have, name -> value, e.g. ecs.cpu-architecture -> arm64.
    attributes: Mapping[str, str] = {}
    #: Hosts that come last, whatever the strategy: those where such a task has failed of late.
    avoid: frozenset[InstanceId] = frozenset()


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A host as placement sees it."""

    instance: InstanceRecord
    load: HostLoad
    presence: Presence | None

    @property
    def id(self) -> InstanceId:
        """The container instance's id."""
        return self.instance.id

    def tasks_of(self, group: str) -> int:
        """Return how many of the group's tasks should be running here."""
        return self.load.groups.get(group, 0)


class Refusal(msgspec.Struct, frozen=True):
    """Why a host can't take (one more of) the task: `reason` as in ECS's failures, `detail` a sentence with numbers.

    `short`: how much of a resource is missing; 0 where the reason is of another kind.
    """

    instance_id: InstanceId
    reason: str
    detail: str
    short: int = 0


class Placement(msgspec.Struct, frozen=True):
    """The outcome: a host for each task that could be placed, in order.

    If those are fewer than asked for, `refusals` says of every host why it can't take one more; otherwise it is empty.
    """

    chosen: tuple[InstanceId, ...]
    refusals: tuple[Refusal, ...]
    #: How many hosts there were to choose from, those that were refused included.
    considered: int

    def by_reason(self) -> dict[str, int]:
        """Count the refused hosts by reason: what an event sentence is made of."""
        counts: dict[str, int] = {}
        for refusal in self.refusals:
            counts[refusal.reason] = counts.get(refusal.reason, 0) + 1
        return counts


def candidate_of(state: State, instance: InstanceRecord) -> Candidate:
    """Look at one host as it is now."""
    return Candidate(instance, state.load.of(instance.id), state.presence.of(instance.id))


def candidates_of(state: State, cluster: str) -> list[Candidate]:
    """Look at all registered hosts of a cluster, DRAINING ones included (they are refused, with the reason)."""
    return [
        candidate_of(state, instance)
        for instance in state.instances.where("cluster", cluster)
        if instance.status != "INACTIVE"
    ]
