"""Rankings that are kept from one placement to the next.

RunTask is asked for the same few task definitions over and over. So the hosts stay ranked for the demands of late, and
a placement looks only at those hosts that have changed since the one before: its cost does not grow with the cluster.
"""

import random
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec.structs import replace

from controlplane.scheduling.model import Demand, Placement, candidate_of, candidates_of
from controlplane.scheduling.placement import RankedHosts
from controlplane.state.state import State
from homeport.ids import InstanceId

__all__ = ["MAX_KEPT", "StandingRankings"]

#: Rankings kept; one of 5,000 hosts takes about 2 MB.
MAX_KEPT: Final = 16

_encoder: Final = msgspec.json.Encoder(order="deterministic")


class _Standing:
    """Ranked hosts, and up to which change of which hosts they are right."""

    __slots__ = ("chosen", "hosts", "seen")

    def __init__(self, hosts: RankedHosts) -> None:
        self.hosts = hosts
        self.seen = 0
        #: Hosts that were ranked as if they had the tasks just placed, which isn't for sure.
        self.chosen: tuple[InstanceId, ...] = ()


class StandingRankings:
    """Places as `placement.place` does, with the same outcome, over the hosts of a cluster as they are now."""

    def __init__(self) -> None:
        #: By cluster and demand; that used longest ago first.
        self._kept: OrderedDict[tuple[str, bytes], _Standing] = OrderedDict()

    def place(self, state: State, cluster: str, demand: Demand, count: int, source: random.Random) -> Placement:
        """Choose hosts for up to `count` tasks. Raises QueryError if a memberOf expression can't be understood."""
        # Demands hold dicts, so they have no hash; their text has. Which hosts to avoid is no part of it: that changes
        # with every failure, and the ranking is good for all of them.
        avoid = demand.avoid
        if avoid:
            demand = replace(demand, avoid=frozenset())
        key = cluster, _encoder.encode(demand)
        standing = self._kept.pop(key, None)  # if anything is raised below, it is not kept
        changed = None if standing is None else state.host_log.since(standing.seen)
        if standing is None or changed is None:
            standing = _Standing(RankedHosts(demand, source))
            for candidate in candidates_of(state, cluster):
                standing.hosts.put(candidate)
        else:
            _catch_up(standing, state, cluster, {*changed, *standing.chosen})
        standing.seen = state.host_log.last
        placement = standing.hosts.choose(count, avoid)
        standing.chosen = placement.chosen
        self._kept[key] = standing
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return placement


def _catch_up(standing: _Standing, state: State, cluster: str, changed: set[InstanceId]) -> None:
    for instance_id in changed:
        instance = state.instances.get(instance_id)
        if instance is None or instance.cluster != cluster or instance.status == "INACTIVE":
            standing.hosts.drop(instance_id)
        else:
            standing.hosts.put(candidate_of(state, instance))
