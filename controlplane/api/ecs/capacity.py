"""Which capacity provider each task of an order shows, by the base and weight of a capacity provider strategy. Pure.

All providers mean the same hosts; the names are what clients and statistics see.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["providers_of"]


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
