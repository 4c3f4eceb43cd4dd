"""The places of a DAEMON service: one on each host that is eligible.

A silent host keeps its place, and its task, until it counts as lost: a short silence is no reason to change anything,
not even how many tasks there should be. What is on any other host has no place there and is stopped; on a host that is
being drained, last of all, since daemons (logs, metrics) serve the tasks that are still leaving.
"""

from collections import defaultdict

from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import bounds_of
from controlplane.services.deciding.draft import Draft
from controlplane.services.deciding.slots import Flaw, Gap, Slots, flaw_of, run_longest
from controlplane.state.records import TaskRecord
from homeport.ids import InstanceId

__all__ = ["daemon_places", "daemon_slots"]


def daemon_places(draft: Draft) -> list[InstanceId]:
    """Return the hosts that should have a task: the eligible ones, and those that are silent and have one."""
    silent = {
        task.instance_id
        for task in draft.select(census.is_live)
        if task.instance_id and draft.host(task).verdict is HostVerdict.UNKNOWN and not draft.host(task).draining
    }
    return sorted(draft.snapshot.eligible | silent)


def daemon_slots(draft: Draft, *, owner: str) -> Slots:
    """Return the places of a DAEMON and what is in them. The service's desired count is taken as up to date."""
    places = daemon_places(draft)
    by_host: dict[InstanceId | None, list[TaskRecord]] = defaultdict(list)
    for task in draft.present():
        by_host[task.instance_id].append(task)
    slots = Slots(owner=owner, desired=len(places), bounds=bounds_of(draft.service, len(places)), one_per_host=True)
    for host in places:
        _fill(draft, slots, host, by_host.pop(host, []))
    for tasks in by_host.values():
        slots.unwanted += [task for task in tasks if _may_leave(draft, task)]
    return slots


def _fill(draft: Draft, slots: Slots, host: InstanceId, tasks: list[TaskRecord]) -> None:
    """Sort out what is on one host that should have one task."""
    good: list[TaskRecord] = []
    victim: TaskRecord | None = None
    prepared = False
    for task in tasks:
        slots.occupied += census.occupies(task)
        slots.healthy += draft.healthy(task)
        if census.is_prepared(task):
            slots.prepared.append(task)
            prepared |= task.started_by == slots.owner
        elif census.is_live(task):
            flaw = flaw_of(draft, task, slots.owner)
            if flaw in (Flaw.REVISION, Flaw.SICK):
                slots.outdated.append((task, flaw))
                victim = task if flaw is Flaw.REVISION else victim
            else:
                good.append(task)
    good.sort(key=lambda task: (not draft.protected(task), run_longest(task)))
    slots.kept += good[:1]
    slots.surplus += good[1:]
    if not good and not prepared:
        # A lost task on a host that is back may turn out to be running: its place is taken until that is known.
        taken = any(census.occupies(task) or census.is_lost(task) for task in tasks)
        slots.gaps.append(Gap(host=host, taken=taken, victim=victim))


def _may_leave(draft: Draft, task: TaskRecord) -> bool:
    """Whether a task on a host that isn't to have one may be stopped now."""
    host = draft.host(task)
    if census.is_lost(task) or host.verdict is HostVerdict.UNKNOWN:
        return False
    if not host.draining or host.last_of_host:
        return True
    draft.wake(host.drain_deadline_at)
    return host.drain_deadline_at is not None and draft.now >= host.drain_deadline_at
