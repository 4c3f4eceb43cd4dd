"""The places a service's tasks should fill, and what fills them: what REPLICA and DAEMON differ in.

A REPLICA has `desiredCount` places anywhere, a DAEMON one on each eligible host. Each of the service's live tasks is
one of: kept (it fills a place as it should), surplus (its place is filled), outdated (something else should be in its
place: another revision, another host, a healthy one), or unwanted (its place itself is gone).
`controlplane.services.deciding.rollout` brings about what follows.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from enum import Enum
from heapq import heapify, heappop, heappush

import msgspec

from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import Bounds, bounds_of
from controlplane.services.deciding.draft import Draft
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import RolloutState
from homeport.ids import InstanceId

__all__ = ["Flaw", "Gap", "Slots", "confine_outdated", "flaw_of", "replica_slots", "run_longest"]


class Flaw(Enum):
    """Why a live task is outdated."""

    SICK = "its health checks failed"
    REVISION = "it is of another revision"
    DRAINING = "its host is being drained"
    MOVE = "a rebalance wants it elsewhere"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A place without a task of the current revision. `host`: the only one that will do.

    `taken`: something is there still, or may be; `victim`: it is this outdated task.
    """

    host: InstanceId | None = None
    taken: bool = False
    victim: TaskRecord | None = None


class Slots(msgspec.Struct, kw_only=True):
    """See the module. `owner`: the deployment or task set that new tasks belong to."""

    owner: str
    desired: int
    bounds: Bounds
    kept: list[TaskRecord] = []
    #: In the order in which they are to be stopped.
    surplus: list[TaskRecord] = []
    outdated: list[tuple[TaskRecord, Flaw]] = []
    unwanted: list[TaskRecord] = []
    prepared: list[TaskRecord] = []
    gaps: list[Gap] = []
    #: All that counts towards the upper bound.
    occupied: int = 0
    #: All that counts towards the lower bound.
    healthy: int = 0
    #: Hosts whose places may be filled only once they are empty (DAEMON).
    one_per_host: bool = False


def flaw_of(draft: Draft, task: TaskRecord, owner: str) -> Flaw | None:
    """Return why a live task should be replaced; None if it is as it should be."""
    if task.started_by != owner:
        return Flaw.REVISION
    if draft.unhealthy(task):
        return Flaw.SICK
    if draft.host(task).draining:
        return Flaw.DRAINING
    if task.id in draft.snapshot.moves and not draft.protected(task):
        # A deployment places every task anew anyway.
        deployment = draft.deployments.get(owner)
        return Flaw.MOVE if deployment is None or deployment.rollout is RolloutState.COMPLETED else None
    return None


def run_longest(task: TaskRecord) -> tuple[float, str]:
    """Sort key: the task that has been running longest first."""
    return (census.running_since(task), task.id)


def replica_slots(draft: Draft, *, owner: str, desired: int, tasks: Iterable[TaskRecord]) -> Slots:
    """Return the places of a REPLICA service, or of one task set: `desired` of them, anywhere."""
    slots = Slots(owner=owner, desired=desired, bounds=bounds_of(draft.service, desired))
    for task in tasks:
        if census.is_live(task):
            flaw = flaw_of(draft, task, owner)
            if flaw is None:
                slots.kept.append(task)
            else:
                slots.outdated.append((task, flaw))
            slots.occupied += 1
            slots.healthy += draft.healthy(task)
        elif census.is_prepared(task):
            slots.prepared.append(task)
        else:
            slots.occupied += census.occupies(task)
    over = len(slots.kept) - desired
    if over > 0:
        slots.surplus = _scale_in(draft, slots.kept, over)
        gone = {task.id for task in slots.surplus}
        slots.kept = [task for task in slots.kept if task.id not in gone]
    in_preparation = sum(task.started_by == owner for task in slots.prepared)
    slots.gaps = [Gap()] * max(0, desired - len(slots.kept) - in_preparation)
    return slots


def confine_outdated(draft: Draft, slots: Slots) -> None:
    """Take what is beyond the desired count of the old revisions as surplus, where the rest of them isn't replaced.

    A deployment that has failed, or that a hook holds, leaves them as they are; but a service that is scaled in is
    scaled in.
    """
    old = [task for task, flaw in slots.outdated if flaw is Flaw.REVISION and census.is_live(task)]
    slots.surplus = slots.surplus + _scale_in(draft, old, max(0, len(old) - slots.desired))
    gone = {task.id for task in slots.surplus}
    slots.outdated = [(task, flaw) for task, flaw in slots.outdated if task.id not in gone]


def _scale_in(draft: Draft, kept: list[TaskRecord], over: int) -> list[TaskRecord]:
    """Choose what is stopped when there are `over` too many: never a protected one.

    First those that don't run or aren't healthy yet. Then, as in ECS, from the hosts that have most of them, and of
    those the youngest; but when a host has just returned with its tasks, those that have been running longest stay.
    """
    free = sorted((task for task in kept if not draft.protected(task)), key=run_longest, reverse=True)
    waiting = sorted((task for task in free if not draft.healthy(task)), key=lambda task: task.status)[:over]
    running = [task for task in free if draft.healthy(task)]
    left = over - len(waiting)
    if draft.returned:
        return waiting + running[:left]
    gone = {task.id for task in waiting}
    crowd = Counter(task.instance_id for task in kept if task.id not in gone)
    by_host: dict[InstanceId | None, deque[TaskRecord]] = defaultdict(deque)
    for task in running:
        by_host[task.instance_id].append(task)
    heap = [(-crowd[host], number, host) for number, host in enumerate(by_host)]
    heapify(heap)
    chosen = waiting
    while heap and len(chosen) < over:
        count, number, host = heappop(heap)
        chosen.append(by_host[host].popleft())
        if by_host[host]:
            heappush(heap, (count + 1, number, host))
    return chosen
