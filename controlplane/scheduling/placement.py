"""Placing: which hosts get the tasks of one demand. Pure: the same arguments give the same answer.

Each host is filtered once and ranked (`controlplane.scheduling.ranking`); after that a task costs a few steps in a
heap. So the cost grows with hosts + tasks, never with hosts x tasks. A `RankedHosts` can be kept for the next placement
of an equal demand (`controlplane.scheduling.standing`), which then costs only the hosts that have changed meanwhile.
"""

import random
from collections.abc import Collection, Iterable
from typing import Final

from controlplane.scheduling.filters import constraint_filters, filters_of, first_refusal, fits
from controlplane.scheduling.model import Candidate, Demand, Placement, Refusal
from controlplane.scheduling.ranking import Host, rank
from homeport.ids import InstanceId

__all__ = ["MEMORY_CONDITION", "RankedHosts", "place"]


def place(candidates: Iterable[Candidate], demand: Demand, count: int, source: random.Random) -> Placement:
    """Choose hosts for up to `count` tasks.

    Raises QueryError if a memberOf expression can't be understood.
    """
    hosts = RankedHosts(demand, source)
    for candidate in candidates:
        hosts.put(candidate)
    return hosts.choose(count, demand.avoid)


#: Hosts short of memory that are put last. Where more of them are, it tells them apart from nobody, and would cost.
_MAX_PRESSED: Final = 100
#: The condition of an agent that is short of memory.
MEMORY_CONDITION: Final = "MEMORY"


class RankedHosts:
    """Hosts, filtered and ranked for one demand. Raises QueryError if a memberOf expression can't be understood.

    Which hosts are to be avoided is said with each choice, since that changes while the ranking can stay.
    """

    def __init__(self, demand: Demand, source: random.Random) -> None:
        self._demand = demand
        self._check = _Check(demand)
        self._ranking = rank(demand.strategy, source)
        self._hosts: dict[InstanceId, Host] = {}
        self._refusals: dict[InstanceId, Refusal] = {}
        #: Hosts whose agent says that their memory runs short. That is no refusal: what tasks have reserved is what
        #: counts, and a host may fill its memory with what it would give up. But others are better.
        self._pressed: set[InstanceId] = set()

    def put(self, candidate: Candidate) -> None:
        """Take in a host, or what has become of it."""
        instance_id = candidate.id
        present = self._hosts.get(instance_id)
        if present is not None and present.foresaw(candidate):
            return  # most often: it has got the task that it was chosen for
        self.drop(instance_id)
        host = self._hosts[instance_id] = Host(candidate, self._demand, is_open=False)
        if _is_pressed(candidate):
            self._pressed.add(instance_id)
        self._add(host)

    def drop(self, instance_id: InstanceId) -> None:
        """Forget a host (quietly, if it isn't there)."""
        host = self._hosts.pop(instance_id, None)
        if host is not None:
            self._refusals.pop(instance_id, None)
            self._pressed.discard(instance_id)
            self._ranking.remove(host)

    def choose(self, count: int, avoid: Collection[InstanceId] = ()) -> Placement:
        """Choose hosts for up to `count` tasks; those of `avoid`, and short of memory, only when no other will do.

        Before the next choice `put` the chosen again: they are ranked wrongly, or not at all.
        """
        chosen: list[InstanceId] = []
        considered = len(self._hosts)
        pressed = self._pressed if len(self._pressed) <= _MAX_PRESSED else ()
        aside = self._set_aside({*avoid, *pressed}) if avoid or pressed else ()
        self._take(chosen, count)
        if aside:
            for candidate in aside:
                self.put(candidate)
            self._take(chosen, count)
        refusals = () if len(chosen) == count else tuple(self._refusals.values())
        return Placement(tuple(chosen), refusals, considered=considered)

    def _set_aside(self, avoid: Iterable[InstanceId]) -> list[Candidate]:
        """Close hosts for now. They stay ranked, since a spread counts the tasks of closed hosts, too."""
        aside = []
        for instance_id in sorted(avoid):
            host = self._hosts.get(instance_id)
            if host is not None and host.is_open:
                aside.append(host.candidate)
                self.drop(instance_id)
                closed = self._hosts[instance_id] = Host(host.candidate, self._demand, is_open=False)
                self._ranking.add(closed)
        return aside

    def _take(self, chosen: list[InstanceId], count: int) -> None:
        while len(chosen) < count and (host := self._ranking.take()) is not None:
            chosen.append(host.candidate.instance.id)
            if len(chosen) == count:
                del self._hosts[chosen[-1]]  # it is out of the ranking, and needn't go back before it is put again
                return
            host.load_one_more()
            self._add(host)

    def _add(self, host: Host) -> None:
        refusal = self._check(host.candidate)
        if refusal is not None:
            self._refusals[host.candidate.instance.id] = refusal
        host.is_open = refusal is None
        self._ranking.add(host)


def _is_pressed(candidate: Candidate) -> bool:
    presence = candidate.presence
    if presence is None:
        return False
    return any(condition.type == MEMORY_CONDITION and not condition.ok for condition in presence.conditions)


class _Check:
    """All filters of a demand: says why a host can't take one more of its tasks, or None."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._constraints = constraint_filters(demand.constraints)
        self._all = filters_of(demand)

    def __call__(self, candidate: Candidate) -> Refusal | None:
        if fits(candidate, self._demand):
            return first_refusal(candidate, self._demand, self._constraints) if self._constraints else None
        return first_refusal(candidate, self._demand, self._all)
