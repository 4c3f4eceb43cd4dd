"""Why a host would not take one more task: every obstacle, with numbers, and what would have to change. Pure.

Placement names the first obstacle only, since one is enough to refuse. Whoever asks why wants all of them: a host that
is DRAINING and also lacks memory won't help by being activated.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from controlplane.scheduling import filters
from controlplane.scheduling.filters import attributes, filters_of, ports
from controlplane.scheduling.model import Candidate, Demand, Placement, Refusal
from controlplane.scheduling.sentences import closeness

__all__ = ["HostAnswer", "Obstacle", "answers_of", "obstacles", "refusals_of"]

_RESOURCES: Final = {
    "RESOURCE:MEMORY": ("memory_mib", "MiB of memory"),
    "RESOURCE:CPU": ("cpu_units", "CPU units"),
    "RESOURCE:GPU": ("gpus", "GPUs"),
}


class Obstacle(msgspec.Struct, frozen=True):
    """One thing in the way. `reason` as in ECS's failures, `detail` and `change` (what would help) are sentences."""

    reason: str
    detail: str
    change: str
    short: int = 0


class HostAnswer(msgspec.Struct, frozen=True):
    """What one host says: no obstacles, or all of them, the one that placement would name first in front."""

    candidate: Candidate
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it would take one more task."""
        return not self.obstacles


def answers_of(candidates: Iterable[Candidate], demand: Demand) -> list[HostAnswer]:
    """Ask every host: those that would take a task first, then the closest. Raises QueryError as `place` does."""
    answers = [HostAnswer(candidate, obstacles(candidate, demand)) for candidate in candidates]
    return sorted(answers, key=_rank)


def refusals_of(answers: Iterable[HostAnswer]) -> Placement:
    """Return the first obstacles as a placement that found no host: what the sentences are made of."""
    given = list(answers)
    refusals = tuple(
        Refusal(answer.candidate.id, first.reason, first.detail, first.short)
        for answer in given
        for first in answer.obstacles[:1]
    )
    return Placement((), refusals, considered=len(given))


def obstacles(candidate: Candidate, demand: Demand) -> tuple[Obstacle, ...]:
    """Return all that keeps a host from taking one more task, in the filters' order."""
    return tuple(
        Obstacle(refusal.reason, refusal.detail, _change(candidate, demand, refusal), refusal.short)
        for refusal in _refusals(candidate, demand)
    )


def _refusals(candidate: Candidate, demand: Demand) -> Iterator[Refusal]:
    for check in filters_of(demand):
        if check is ports:
            singles = [
                replace(demand, resources=replace(demand.resources, ports=frozenset({port})))
                for port in sorted(demand.resources.ports)
            ]
        elif check is attributes:
            singles = [replace(demand, attributes={name: value}) for name, value in demand.attributes.items()]
        else:
            singles = [demand]
        for single in singles:
            refusal = check(candidate, single)
            if refusal is not None:
                yield refusal


def _rank(answer: HostAnswer) -> tuple[object, ...]:
    load, instance = answer.candidate.load, answer.candidate.instance
    first = answer.obstacles[0] if answer.obstacles else None
    closest = (-1, 0) if first is None else (closeness(first.reason), first.short)
    return len(answer.obstacles) > 0, len(answer.obstacles), *closest, load.tasks, instance.id


def _change(candidate: Candidate, demand: Demand, refusal: Refusal) -> str:
    if refusal.reason in _RESOURCES:
        return _more_room(candidate, demand, refusal)
    host = candidate.instance.facts.hostname or candidate.id
    texts = {
        "DRAINING": f"It would if the host took tasks again: homeport drain {host} --undo.",
        filters.AGENT: "It would if the host's agent were connected and its Docker Engine answered.",
        filters.DISK: "It would if the disk of its Docker Engine had room again: remove images or files there.",
        filters.ATTRIBUTE: "It would if the host had that attribute, or the task definition didn't require it.",
        filters.PORTS: "It would if the port were free, or the task took any host port (hostPort 0).",
        filters.MEMBER_OF: "It would if the host's attributes matched (PutAttributes), or without that constraint.",
        filters.CAPACITY_PROVIDER: "It would if the host were marked as one of the capacity provider's.",
        filters.DISTINCT_INSTANCE: "It would if that task were gone, or without distinctInstance.",
    }
    return texts.get(refusal.reason, "")


def _more_room(candidate: Candidate, demand: Demand, refusal: Refusal) -> str:
    field, unit = _RESOURCES[refusal.reason]
    total: int = getattr(candidate.instance.facts.resources, field)
    wanted: int = getattr(demand.resources, field)
    if wanted > total:
        return f"It never will: the host has {total} {unit} for tasks in all. The task must ask for no more."
    return f"It would if {refusal.short} more {unit} were free, or the task asked for {wanted - refusal.short} at most."
