"""Capacity providers of tasks: which one each task uses, by the base and weight of a strategy. Pure.

What hosts a provider means is said in `controlplane.api.ecs.capacity_providers`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["FARGATE_PROVIDERS", "launch_type_of", "providers_for_service", "providers_of", "shares_of"]

#: The capacity providers that every cluster has without making them: any host, and the hosts marked preemptible.
FARGATE_PROVIDERS: Final = ("FARGATE", "FARGATE_SPOT")


def providers_of(strategy: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return the providers of `count` tasks: first those of a base, then in the proportion of the weights.

    Without any weight all that is beyond the base goes where the base is, or to the first. An empty strategy: no names.
    """
    if not strategy:
        return [""] * count
    leading = max(strategy, key=lambda item: item.get("base") or 0)
    chosen = [str(leading["capacityProvider"])] * min(count, leading.get("base") or 0)
    weighted = [item for item in strategy if item.get("weight")] or [{**leading, "weight": 1}]
    given = [0] * len(weighted)
    while len(chosen) < count:
        index = min(range(len(weighted)), key=lambda n: ((given[n] + 1) / weighted[n]["weight"], n))
        given[index] += 1
        chosen.append(str(weighted[index]["capacityProvider"]))
    return chosen


def shares_of(strategy: Sequence[Mapping[str, Any]], count: int) -> Mapping[str, int]:
    """Return how many of `count` tasks each provider has, in the order in which they are given them."""
    return Counter(providers_of(strategy, count)) if strategy else {"": count}


def providers_for_service(
    strategy: Sequence[Mapping[str, Any]], desired: int, present: Mapping[str, int], count: int
) -> list[str]:
    """Return the providers of the next `count` tasks of a service that has `present` live ones of each provider.

    What `desired` tasks would have been given in one go, less what is there: so a base is filled up first, and a
    service that loses tasks comes back to the proportion of its weights.
    """
    left = Counter(present)
    chosen: list[str] = []
    for provider in providers_of(strategy, max(desired, left.total() + count)):
        if len(chosen) == count:
            break
        if left[provider] > 0:
            left[provider] -= 1
        else:
            chosen.append(provider)
    return chosen


def launch_type_of(provider: str, given: str) -> str:
    """Return the launch type that a task shows: by its capacity provider, else the one that was `given`."""
    if not provider:
        return given
    return "FARGATE" if provider in FARGATE_PROVIDERS else "EC2"
