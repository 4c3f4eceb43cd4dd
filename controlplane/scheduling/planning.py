"""Trying placements out on copies: what would be placed where, and what would not fit. Pure; nothing is changed.

    place_in_turn   several demands one after another, each seeing what those before it have taken
    roll            a rolling deployment: new tasks in, old ones out, within bounds, until it is done or stuck

A plan is made by the same filters and rankings as the placement itself; what it can't know is what happens meanwhile.
"""

import random
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from controlplane.scheduling.filters import would_fit_without
from controlplane.scheduling.model import Candidate, Demand, Placement, Refusal
from controlplane.scheduling.placement import RankedHosts
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId
from homeport.status import DesiredStatus

__all__ = ["Planned", "Roll", "Want", "place_in_turn", "roll", "without"]


class Want(msgspec.Struct, frozen=True):
    """So many tasks of one demand, for whoever `name` is."""

    name: str
    demand: Demand
    count: int


class Planned(msgspec.Struct, frozen=True):
    """What would become of a Want."""

    want: Want
    placement: Placement

    @property
    def missing(self) -> int:
        """How many tasks would find no host."""
        return self.want.count - len(self.placement.chosen)


class Roll(msgspec.Struct, frozen=True):
    """What would become of a rolling deployment."""

    #: The hosts of the new tasks, in order.
    chosen: tuple[InstanceId, ...]
    #: Old tasks that would stay, since the deployment would be stuck.
    left: int
    #: How often tasks are started and then old ones stopped.
    rounds: int
    #: An old task would have to stop before a new one starts, beyond the bounds.
    stop_first: bool
    #: Why the next task finds no host; without refusals if all do.
    placement: Placement


def place_in_turn(candidates: Iterable[Candidate], wants: Sequence[Want], source: random.Random) -> list[Planned]:
    """Place each want's tasks, with those of the wants before it in place. Raises QueryError as `place` does."""
    hosts = {candidate.id: candidate for candidate in candidates}
    planned = []
    for want in wants:
        ranked = _ranked(hosts.values(), want.demand, source)
        placement = ranked.choose(want.count, want.demand.avoid)
        for instance_id in placement.chosen:
            hosts[instance_id] = _with_task(hosts[instance_id], want.demand)
        planned.append(Planned(want, placement))
    return planned


def roll(
    candidates: Iterable[Candidate],
    wants: Sequence[Want],
    old: Sequence[TaskRecord],
    *,
    lower: int,
    upper: int,
    may_stop_first: bool,
    source: random.Random,
) -> Roll:
    """Roll from the `old` tasks to those of `wants`, which are one service's: one for each capacity provider.

    `lower` tasks stay healthy and at most `upper` are there at any time; every new task is taken to become healthy.
    `may_stop_first`: where nothing fits but for what old tasks hold, one of them may stop first, below `lower`.
    Raises QueryError as `place` does.
    """
    hosts = _Hosts(candidates, wants, source)
    wanted = sum(want.count for want in wants)
    left = list(old)
    stop_first, rounds = False, 0
    placement = Placement((), (), considered=len(hosts.now))
    while len(hosts.chosen) < wanted or left:
        placement = hosts.place(upper - len(hosts.chosen) - len(left))
        count = min(max(len(hosts.chosen) + len(left) - min(lower, wanted), 0), len(left))
        if not count and not placement.chosen:
            blocker = hosts.blocker(left) if may_stop_first else None
            if blocker is None:
                break
            stop_first = True
            left.remove(blocker)
            left.insert(0, blocker)
            count = 1
        for task in left[:count]:
            hosts.stop(task)
        del left[:count]
        rounds += 1
    return Roll(tuple(hosts.chosen), len(left), rounds, stop_first, placement)


class _Hosts:
    """The hosts of a roll as they come to be, ranked for each want."""

    def __init__(self, candidates: Iterable[Candidate], wants: Sequence[Want], source: random.Random) -> None:
        self.now = {candidate.id: candidate for candidate in candidates}
        self.chosen: list[InstanceId] = []
        self._wants = [(want.demand, _ranked(self.now.values(), want.demand, source)) for want in wants]
        self._missing = [want.count for want in wants]

    def place(self, room: int) -> Placement:
        """Place up to `room` of the tasks that are missing; tell what was chosen, and the refusals of what wasn't."""
        chosen: list[InstanceId] = []
        refusals: tuple[Refusal, ...] = ()
        for number, (demand, ranked) in enumerate(self._wants):
            placement = ranked.choose(max(min(room - len(chosen), self._missing[number]), 0), demand.avoid)
            for instance_id in placement.chosen:
                self._put(_with_task(self.now[instance_id], demand))
            self._missing[number] -= len(placement.chosen)
            chosen += placement.chosen
            refusals = refusals or placement.refusals
        self.chosen += chosen
        return Placement(tuple(chosen), refusals, considered=len(self.now))

    def stop(self, task: TaskRecord) -> None:
        """Let an old task go."""
        if task.instance_id in self.now:
            self._put(without(self.now[task.instance_id], [task]))

    def blocker(self, left: Sequence[TaskRecord]) -> TaskRecord | None:
        """Return an old task without which its host would take one of the tasks that are missing."""
        demands = [demand for (demand, _), missing in zip(self._wants, self._missing, strict=True) if missing]
        for task in left:
            candidate = None if task.instance_id is None else self.now.get(task.instance_id)
            if candidate is not None and any(would_fit_without(candidate, demand, [task]) for demand in demands):
                return task
        return None

    def _put(self, candidate: Candidate) -> None:
        self.now[candidate.id] = candidate
        for _, ranked in self._wants:
            ranked.put(candidate)


def without(candidate: Candidate, tasks: Iterable[TaskRecord]) -> Candidate:
    """Return the host as it would be without these tasks, which are on it and not STOPPED."""
    load = candidate.load.copy()
    for task in tasks:
        load.add(task.resources, -1)
        if task.desired is not DesiredStatus.STOPPED:
            load.add_to_group(task.group, -1)
    return replace(candidate, load=load)


def _ranked(candidates: Iterable[Candidate], demand: Demand, source: random.Random) -> RankedHosts:
    ranked = RankedHosts(demand, source)
    for candidate in candidates:
        ranked.put(candidate)
    return ranked


def _with_task(candidate: Candidate, demand: Demand) -> Candidate:
    load = candidate.load.copy()
    load.add(demand.resources, 1)
    load.add_to_group(demand.group, 1)
    return replace(candidate, load=load)
