"""What a placement that fell short says: ECS's service event, and the count of hosts by reason. Pure."""

from collections.abc import Mapping
from typing import Final

from controlplane.scheduling import filters
from controlplane.scheduling.model import Placement, Refusal

__all__ = ["closeness", "closest", "counts_sentence", "services_sentence"]

_UNABLE: Final = "was unable to place a task because no container instance met all of its requirements."
_NO_HOSTS: Final = "Reason: No Container Instances were found in your cluster."
_NO_HOSTS_OF_PROVIDER: Final = "Reason: No Container Instances were found in your capacity provider."

#: ECS's words of the closest matching host; any other reason is "encountered error".
_CLOSEST: Final[Mapping[str, str]] = {
    filters.PORTS: "is already using a port required by your task",
    "RESOURCE:CPU": "has insufficient CPU units available",
    "RESOURCE:MEMORY": "has insufficient memory available",
    "RESOURCE:GPU": "has insufficient GPUs available",
    filters.DISK: "has insufficient disk space available",
    filters.ATTRIBUTE: "is missing an attribute required by your task",
}

#: Reason -> (of one host, of several), the reasons in the order of how close a host is that gives it.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    filters.PORTS: ("has a host port in use", "have a host port in use"),
    "RESOURCE:CPU": ("lacks CPU units", "lack CPU units"),
    "RESOURCE:MEMORY": ("lacks memory", "lack memory"),
    "RESOURCE:GPU": ("lacks GPUs", "lack GPUs"),
    filters.DISTINCT_INSTANCE: ("has a task of the group already", "have a task of the group already"),
    filters.DISK: ("is short of disk space", "are short of disk space"),
    filters.AGENT: ("has no working agent or Docker Engine", "have no working agent or Docker Engine"),
    filters.MEMBER_OF: ("doesn't satisfy memberOf", "don't satisfy memberOf"),
    filters.CAPACITY_PROVIDER: ("isn't of the capacity provider", "aren't of the capacity provider"),
    filters.ATTRIBUTE: ("lacks a required attribute", "lack a required attribute"),
    "DRAINING": ("is DRAINING", "are DRAINING"),
}
_ORDER: Final = {reason: number for number, reason in enumerate(_WORDS)}


def services_sentence(placement: Placement) -> str:
    """Return the service event of a task that could not be placed, less ECS's "(service NAME) ".

    Equal refusals make equal sentences, so that nothing is said twice.
    """
    nearest = closest(placement)
    if nearest is None:
        return f"{_UNABLE} {_NO_HOSTS}"
    if nearest.reason == filters.CAPACITY_PROVIDER:
        return f"{_UNABLE} {_NO_HOSTS_OF_PROVIDER} {counts_sentence(placement)}"
    what = _CLOSEST.get(nearest.reason, f'encountered error "{nearest.reason}"')
    return f"{_UNABLE} The closest matching (container-instance {nearest.instance_id}) {what}. " + counts_sentence(
        placement
    )


def counts_sentence(placement: Placement) -> str:
    """Say how many hosts there are and why they refuse: "Of 4 hosts 3 lack memory, 1 is DRAINING."."""
    counts = placement.by_reason()
    if placement.considered == 1 and counts:
        return f"The only host {_words(next(iter(counts)), 1)}."
    parts = [
        f"{counts[reason]} {_words(reason, counts[reason])}" for reason in sorted(counts, key=lambda r: (-counts[r], r))
    ]
    hosts = "1 host" if placement.considered == 1 else f"{placement.considered} hosts"
    return f"Of {hosts} {', '.join(parts)}." if parts else f"There are {hosts}."


def closest(placement: Placement) -> Refusal | None:
    """Return the refusal of the host that lacks least: the most passing obstacle, then the smallest shortage."""
    return min(
        placement.refusals,
        key=lambda refusal: (closeness(refusal.reason), refusal.short, refusal.instance_id),
        default=None,
    )


def closeness(reason: str) -> int:
    """Return how far a host that gives this reason is from taking a task: the smaller, the more passing."""
    return _ORDER.get(reason, len(_ORDER))


def _words(reason: str, count: int) -> str:
    one, several = _WORDS.get(reason, (f"refuses ({reason})", f"refuse ({reason})"))
    return one if count == 1 else several
