"""Rebalancing: which task of a service should move, now that a host has joined or returned. Pure.

Opt-in: by the tag `homeport:rebalance`, over all that the service is spread over, or by availabilityZoneRebalancing,
over availability zones alone. A move is made start-first by `decide`: the task named here is outdated, its replacement
is placed as any other task, and the old one stops when the new one is healthy.

A task is only named if `place` would put its replacement where the service then is more evenly spread; so moves come
to an end, whatever the placement strategy, constraints and room on hosts are. What always holds:
 - at most one task of a service is under way, and moves begin at least MOVE_EVERY_S apart;
 - a move begins only while the service is steady; a protected task is never named;
 - a task that is named stays so until it is gone, or until no host is left that makes its move worthwhile.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from controlplane.scheduling.model import Candidate, Demand
from controlplane.scheduling.placement import place
from controlplane.services.deciding.census import is_live, is_protected, looks_healthy
from controlplane.state.records import TaskRecord
from homeport.ids import TaskId

__all__ = ["MOVE_EVERY_S", "ZONE", "Moves", "moves"]

#: Seconds between the beginnings of two moves of a service.
MOVE_EVERY_S: Final = 10.0
#: What availabilityZoneRebalancing evens out.
ZONE: Final = "ecs.availability-zone"

#: By how many tasks two places must differ for a move between them to be of any use.
_UNEVEN: Final = 2
_HOST: Final = ""


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """What to move.

    `named`: the tasks that should be elsewhere. `begun`: one of them is named for the first time, so `last_moved_at`
    is now. `wake_at`: when to ask again even if nothing changes (epoch seconds).
    """

    named: frozenset[TaskId] = frozenset()
    begun: bool = False
    wake_at: float | None = None


def moves(
    tasks: Iterable[TaskRecord],
    candidates: Sequence[Candidate],
    demand: Demand,
    *,
    desired: int,
    steady: bool,
    now: float,
    last_moved_at: float | None,
    moving: frozenset[TaskId] = frozenset(),
    over: Sequence[str] | None = None,
) -> Moves:
    """Name the tasks of a service that should move; usually none, at most one.

    `tasks`: the service's; `candidates`: all hosts of its cluster; `demand`: as its next task would be placed, hosts
    to avoid included. `moving`: what was named before. `over`: the attributes to even out (`(ZONE,)` for
    availabilityZoneRebalancing); None: what the service's placement strategy spreads over. A service that is not
    spread (binpack, random) is left as it is.
    """
    live = [task for task in tasks if is_live(task)]
    under_way = frozenset(task.id for task in live) & moving
    levels = _levels(demand) if over is None else [_HOST if name == "host" else name for name in over]
    if under_way and len(live) > desired:
        return Moves(named=under_way)  # the replacement is there: it takes over, or fails and is replaced itself
    if not under_way:
        if not steady or not live:
            return Moves()
        if last_moved_at is not None and now < last_moved_at + MOVE_EVERY_S:
            return Moves(wake_at=last_moved_at + MOVE_EVERY_S)
    counts = [_counts(level, candidates, demand) for level in levels]
    if all(max(count.values(), default=0) - min(count.values(), default=0) < _UNEVEN for count in counts):
        return Moves()
    best = _best_move(live, candidates, demand, levels, counts, now, only=under_way)
    if best is None:
        return Moves()
    return Moves(named=frozenset({best}), begun=not under_way)


def _levels(demand: Demand) -> list[str]:
    """Return what the placement strategy spreads over, from the widest on; empty if it begins with something else."""
    levels = []
    for strategy in demand.strategy:
        if strategy.type != "spread":
            break
        levels.append(strategy.field if strategy.by_attribute else _HOST)
    return levels


def _place_of(candidate: Candidate, level: str) -> str:
    return candidate.id if level == _HOST else candidate.instance.all_attributes.get(level, "")


def _counts(level: str, candidates: Iterable[Candidate], demand: Demand) -> Counter[str]:
    counts: Counter[str] = Counter()
    for candidate in candidates:
        counts[_place_of(candidate, level)] += candidate.tasks_of(demand.group)
    return counts


def _best_move(
    live: Sequence[TaskRecord],
    candidates: Sequence[Candidate],
    demand: Demand,
    levels: Sequence[str],
    counts: Sequence[Counter[str]],
    now: float,
    *,
    only: frozenset[TaskId],
) -> TaskId | None:
    """Return the task that gains most from being where its replacement would be placed; None if none gains."""
    # The seed is of no matter: chance decides only in strategies that aren't rebalanced.
    placement = place(candidates, demand, 1, random.Random(0))
    if not placement.chosen or placement.chosen[0] in demand.avoid:
        return None  # no evenness is worth a host where the service's tasks have failed
    hosts = {candidate.id: candidate for candidate in candidates}
    target = hosts[placement.chosen[0]]

    def gain(task: TaskRecord) -> tuple[int, ...]:
        source = hosts[task.instance_id]  # type: ignore[index]  # looked up below
        gains = []
        for level, count in zip(levels, counts, strict=True):
            here, there = _place_of(source, level), _place_of(target, level)
            gains.append(0 if here == there else count[here] - count[there] - 1)
        return tuple(gains)

    nothing = (0,) * len(levels)
    movable = [
        task
        for task in live
        if task.instance_id in hosts
        and not is_protected(task, now)
        and (task.id in only if only else looks_healthy(task))
        and gain(task) > nothing
    ]
    # Of those that gain alike, the one that has been running for the shortest time.
    best = max(movable, key=lambda task: (gain(task), task.started_at or 0.0, task.id), default=None)
    return None if best is None else best.id
