"""Placing: which hosts get the tasks of one demand. Pure: the same arguments give the same answer.

Each host is filtered once and ranked (`controlplane.scheduling.ranking`); after that a task costs a few steps in a
heap. So the cost grows with hosts + tasks, never with hosts x tasks.
"""

import random
from collections.abc import Sequence

from controlplane.scheduling.filters import FITNESS, Filter, distinct_instance, first_refusal, fits, member_of
from controlplane.scheduling.language import parse_query
from controlplane.scheduling.model import Candidate, Demand, Placement, Refusal
from controlplane.scheduling.ranking import Host, rank
from homeport.ids import InstanceId

__all__ = ["place"]


def place(candidates: Sequence[Candidate], demand: Demand, count: int, source: random.Random) -> Placement:
    """Choose hosts for up to `count` tasks.

    Raises QueryError if a memberOf expression can't be understood.
    """
    check = _Check(demand)
    ranking = rank(demand.strategy, source)
    refusals: list[Refusal] = []
    for candidate in candidates:
        refusal = check(candidate)
        if refusal is not None:
            refusals.append(refusal)
        ranking.add(Host(candidate, demand), is_open=refusal is None)
    chosen: list[InstanceId] = []
    while len(chosen) < count and ranking.best() is not None:
        host = ranking.take()
        chosen.append(host.candidate.instance.id)
        if len(chosen) == count:
            break
        host.load_one_more()
        refusal = check(host.candidate)
        if refusal is not None:
            refusals.append(refusal)
        ranking.add(host, is_open=refusal is None)
    return Placement(tuple(chosen), tuple(refusals))


class _Check:
    """All filters of a demand: says why a host can't take one more of its tasks, or None."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._constraints: list[Filter] = [
            member_of(parse_query(constraint.expression)) if constraint.type == "memberOf" else distinct_instance
            for constraint in demand.constraints
        ]
        # What a host is comes first, then where it may be, then what it has left.
        self._all = (*FITNESS[:4], *self._constraints, *FITNESS[4:])

    def __call__(self, candidate: Candidate) -> Refusal | None:
        if fits(candidate, self._demand):
            return first_refusal(candidate, self._demand, self._constraints) if self._constraints else None
        return first_refusal(candidate, self._demand, self._all)
