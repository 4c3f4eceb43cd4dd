"""Filling the places of a service, within its bounds: starts, stops, and prepared tasks that wait for a place.

Two bounds hold whatever happens (`Slots.bounds`): nothing is started when that would make more than `upper` of them,
and nothing healthy is stopped when that would leave fewer than `lower`.

Start first, where the upper bound and the hosts leave room: the new task starts, and when it is healthy an outdated one
is stopped. So while there is room, a deployment never goes below the desired count, whatever the lower bound would
allow. Stop first, where there is no room: because the upper bound is reached (as it always is for a DAEMON, whose
maximumPercent is 100), or because the service's own outdated tasks hold the ports or the memory. Then the new task is
prepared (pulled and created) on the host of the one it replaces; when it is ready that one is stopped; when that has
stopped the new one is released.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import msgspec
from msgspec.structs import replace

from controlplane.events.notes import ServiceEvent
from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census
from controlplane.services.deciding.draft import Draft
from controlplane.services.deciding.slots import Flaw, Gap, Slots, run_longest
from controlplane.services.model import Start
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import RolloutState
from homeport import reasons
from homeport.ids import InstanceId, TaskId
from homeport.status import TaskStatus

__all__ = ["STUCK", "Leave", "roll"]

STUCK: Final = (
    "was unable to stop or start tasks during a deployment because of the service deployment configuration. Update the "
    "minimumHealthyPercent or maximumPercent value and try again."
)
_OWN_WAY: Final = (
    " The service's own tasks hold what their successors need on every host that would do, and minimumHealthyPercent "
    "doesn't allow to stop one."
)


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment may do at the moment. `start`: now (no backoff, no hook). `failed`: it will start nothing more.

    `retire`: what is outdated may go (False while a lifecycle hook holds it).
    """

    start: bool = True
    retire: bool = True
    failed: bool = False


def roll(draft: Draft, slots: Slots, leave: Leave) -> None:
    """Decide all that can be done now about the places of a deployment or task set."""
    rollout = _Rollout(draft, slots, leave)
    rollout.drop_stale_preparations()
    rollout.release()
    rollout.scale_in()
    rollout.stop_useless()
    rollout.hand_over()
    gaps = slots.gaps
    if leave.start:
        gaps = rollout.prepare(rollout.start(gaps))
    rollout.retire(bool(gaps))
    if leave.start and (gaps or slots.prepared):
        rollout.warn_if_stuck()


class _Rollout:
    """One look at the places. Lives within one decision."""

    def __init__(self, draft: Draft, slots: Slots, leave: Leave) -> None:
        self._draft = draft
        self._slots = slots
        self._leave = leave
        self._occupied = slots.occupied
        self._healthy = slots.healthy
        self._outdated = {task.id: (task, flaw) for task, flaw in sorted(slots.outdated, key=self._order)}
        #: The task to be replaced -> the one prepared for its place.
        self._prepared = {t.replaces: t for t in slots.prepared if t.replaces and t.started_by == slots.owner}
        blocked = draft.snapshot.blocked
        deployment = draft.deployments.get(slots.owner)
        self._found_own = blocked is not None and blocked.by_own_tasks
        #: The service's own tasks are in the way, by the last attempt, or by the one that the prepared tasks are from.
        self._in_own_way = self._found_own or bool(self._prepared and deployment and deployment.in_own_way)
        self._lower = self._lower_bound()
        self._scaling = reasons.SCALING.format(deployment=slots.owner)
        #: Something is on its way down: what has no room now may have some soon.
        self._leaving = any(map(census.is_leaving, draft.present()))
        self._kept_healthy = all(draft.healthy(task) for task in slots.kept)

    # ------------------------------------------------------------ bounds

    def _lower_bound(self) -> int:
        """Return how many must stay healthy while places are filled stop first.

        Where the service's own tasks are in the way of their successors, ECS's default of 100 % would make every
        deployment impossible. A default that nobody asked for gives way then, by one task at a time; a value that was
        given stays.
        """
        lower = self._slots.bounds.lower
        if self._in_own_way and self._outdated and "minimumHealthyPercent" not in self._draft.service.given:
            return min(lower, max(0, self._slots.desired - 1))
        return lower

    def _stop_within(self, task: TaskRecord, reason: str, floor: int) -> bool:
        """Stop a task unless fewer than `floor` healthy ones would be left. Return whether it is stopped."""
        healthy = self._draft.healthy(task)
        if healthy and self._healthy - 1 < floor:
            return False
        self._draft.stop(task, reason)
        self._leaving = True
        self._healthy -= healthy
        self._outdated.pop(task.id, None)
        return True

    def _order(self, entry: tuple[TaskRecord, Flaw]) -> tuple[bool, bool, int, float]:
        """Sort key of what is stopped first: not running, not healthy, of the oldest deployment, the youngest."""
        task = entry[0]
        order = self._draft.service.deployments
        age = order.index(task.started_by) if task.started_by in order else len(order)
        return (
            task.status is TaskStatus.RUNNING,
            self._draft.healthy(task),
            -age,
            -run_longest(task)[0],
        )

    # ------------------------------------------------------------ preparations

    def drop_stale_preparations(self) -> None:
        """Stop prepared tasks that can't or needn't take their place any more."""
        if not self._slots.prepared:
            return
        kept = {task.id for task in self._slots.kept}
        spare = len(kept) + len(self._prepared) - self._slots.desired
        for task in self._slots.prepared:
            stale = task.started_by != self._slots.owner or self._leave.failed or task.replaces in kept
            if stale or spare > 0 or self._draft.host(task).draining:
                self._draft.stop(task, self._scaling)
                if task.replaces and self._prepared.get(task.replaces) is task:
                    spare -= 1
                    del self._prepared[task.replaces]

    def release(self) -> None:
        """Release the prepared tasks whose place is free."""
        for replaced, task in list(self._prepared.items()):
            victim = self._draft.tasks.get(replaced)
            if victim is not None and not census.is_stopped(victim) and not census.is_lost(victim):
                continue
            if self._occupied < self._slots.bounds.upper:
                self._draft.release(task)
                del self._prepared[replaced]
                self._occupied += 1
                self._kept_healthy = False

    def hand_over(self) -> None:
        """Stop the tasks whose successors are ready."""
        for replaced, task in self._prepared.items():
            entry = self._outdated.get(replaced)
            victim = self._draft.tasks.get(replaced)
            if entry is None and (victim is None or census.is_stopped(victim)) and not self._leaving:
                # Its place is free, but something else has the room: another outdated task goes instead.
                other = next(self._replaceable(), None)
                entry = self._outdated[other.id] if other is not None else None
            if entry is not None and census.is_ready(task) and not self._draft.protected(entry[0]):
                self._stop_within(entry[0], self._scaling, self._lower)

    def prepare(self, gaps: list[Gap]) -> list[Gap]:
        """Prepare successors for as many outdated tasks as may be stopped. Return the gaps that remain."""
        promised = [self._outdated[v][0] for v in self._prepared if v in self._outdated]
        allowance = self._healthy - self._lower - sum(self._draft.healthy(task) for task in promised)
        pool = self._replaceable()
        left: list[Gap] = []
        for gap in gaps:
            victim = gap.victim if self._slots.one_per_host else next(pool, None)
            if victim is None or victim.id not in self._outdated or (self._draft.healthy(victim) and allowance <= 0):
                left.append(gap)
            else:
                allowance -= self._draft.healthy(victim)
                self._begin(1, host=victim.instance_id, replaces=victim.id)
                self._note_own_way()
        return left

    def _note_own_way(self) -> None:
        """Keep in mind why a task is prepared: the attempt that told so is forgotten by the next look."""
        deployment = self._draft.deployments.get(self._slots.owner)
        if self._found_own and deployment is not None and not deployment.in_own_way:
            self._draft.put(replace(deployment, in_own_way=True))

    def _replaceable(self) -> Iterator[TaskRecord]:
        """Yield the outdated tasks whose place on their host another may take, in the order of stopping."""
        for task, flaw in list(self._outdated.values()):
            if flaw is not Flaw.REVISION or task.id in self._prepared or self._draft.protected(task):
                continue
            if self._draft.host(task).open:
                yield task

    # ------------------------------------------------------------ starts

    def start(self, gaps: list[Gap]) -> list[Gap]:
        """Start what there is room for. Return the gaps that remain."""
        return self._start_on_hosts(gaps) if self._slots.one_per_host else self._start_anywhere(gaps)

    def _start_anywhere(self, gaps: list[Gap]) -> list[Gap]:
        count = len(gaps)
        if self._in_own_way:
            # Only those that have no outdated task's place to take.
            count -= sum(1 for _ in self._replaceable())
        count = max(0, min(count, self._slots.bounds.upper - self._occupied))
        if count:
            self._begin(count)
        return gaps[count:]

    def _start_on_hosts(self, gaps: list[Gap]) -> list[Gap]:
        left: list[Gap] = []
        for gap in gaps:
            host = self._draft.snapshot.hosts.get(gap.host) if gap.host else None
            # A silent host can be told nothing now; its place waits.
            reachable = host is None or host.verdict is HostVerdict.CONNECTED
            if not gap.taken and reachable and self._occupied < self._slots.bounds.upper:
                self._begin(1, host=gap.host)
            else:
                left.append(gap)
        return left

    def _begin(self, count: int, *, host: InstanceId | None = None, replaces: TaskId | None = None) -> None:
        self._draft.start(
            Start(
                deployment=self._slots.owner,
                wanted_at=self._wanted_at,
                count=count,
                host=host,
                replaces=replaces,
                avoid=self._avoid,
            )
        )
        self._kept_healthy = False
        if replaces is None:
            self._occupied += count

    @cached_property
    def _wanted_at(self) -> float:
        """When the need for what is started now arose: with an end that is settled now, or with the deployment."""
        draft = self._draft
        deployment = draft.deployments.get(self._slots.owner)
        if draft.dead_at is not None:
            return min(draft.now, draft.dead_at)
        if deployment is not None and (draft.snapshot.blocked or not deployment.healthy_tasks):
            return max(deployment.progressed_at, deployment.created_at)
        return draft.now

    @cached_property
    def _avoid(self) -> frozenset[InstanceId]:
        """Hosts on which tasks of this deployment have failed, and those that a rebalance wants to relieve."""
        deployment = self._draft.deployments.get(self._slots.owner)
        failing = {InstanceId(host) for host in deployment.host_failures} if deployment else set()
        relieved = {task.instance_id for task, flaw in self._slots.outdated if flaw is Flaw.MOVE and task.instance_id}
        return frozenset(failing | relieved)

    # ------------------------------------------------------------ stops

    def scale_in(self) -> None:
        """Stop what has no place, or whose place is filled."""
        for task in self._slots.unwanted:
            draining = self._draft.host(task).draining
            self._draft.stop(task, reasons.DRAINING if draining else self._scaling)
        for task in self._slots.surplus:
            self._stop_within(task, self._scaling, self._slots.bounds.lower)

    def stop_useless(self) -> None:
        """Stop, whatever the bounds, what is of no use to anybody: nothing healthy is among it.

        Except at the end of a host's time to drain: then its tasks go as they are.
        """
        for task, flaw in list(self._outdated.values()):
            host = self._draft.host(task)
            self._draft.wake(host.drain_deadline_at if host.draining else None)
            if host.draining and host.drain_deadline_at is not None and self._draft.now >= host.drain_deadline_at:
                self._stop_within(task, reasons.DRAINING, 0)
            elif flaw is Flaw.SICK and (task.healthy_at is None or self._slots.one_per_host):
                self._stop_sick(task)
            elif self._draft.healthy(task) or self._draft.protected(task) or self._promises_well(task):
                continue
            elif flaw is Flaw.REVISION and self._leave.retire:
                self._stop_within(task, self._scaling, 0)
        for task in self._slots.kept:
            if task.healthy_at is None:
                self._stop_overdue(task)
        for task in self._prepared.values():
            if not census.is_ready(task):
                self._stop_overdue(task)

    def _stop_overdue(self, task: TaskRecord) -> None:
        """Stop a task that has taken too long to become healthy, or to be prepared."""
        if task.healthy_at is not None or self._draft.host(task).verdict is not HostVerdict.CONNECTED:
            return
        # A prepared task waits for its place for as long as others take; that time isn't its own.
        since = max(task.created_at, task.released_at or 0.0)
        deadline_s = self._draft.timing.progress_deadline_s
        self._draft.wake(since + deadline_s)
        if self._draft.now >= since + deadline_s:
            self._draft.stop(task, reasons.NOT_HEALTHY_IN_TIME.format(seconds=deadline_s))

    def _stop_sick(self, task: TaskRecord) -> None:
        self._stop_within(task, reasons.FAILED_HEALTH_CHECKS, 0)
        self._draft.say(
            ServiceEvent.TASK_UNHEALTHY, f"(task {task.id}) failed container health checks.", tasks=[task.id]
        )

    def retire(self, gaps: bool) -> None:
        """Stop outdated tasks as their successors have become healthy. `gaps`: places can't be filled for now."""
        stuck = gaps or self._draft.snapshot.blocked is not None
        unfilled = gaps and self._leave.start
        kept_hosts = {task.instance_id for task in self._slots.kept if self._draft.healthy(task)}
        for task, flaw in list(self._outdated.values()):
            if self._promises_well(task):
                continue
            if flaw is Flaw.SICK:
                self._retire_sick(task, gaps)
            elif self._draft.protected(task) or (self._slots.one_per_host and task.instance_id not in kept_hosts):
                continue
            elif flaw is Flaw.DRAINING or ((self._leave.retire or unfilled) and self._closed(task)):
                # Nothing can be prepared there. It goes within the bounds though no host left has room, as in ECS; and
                # though a hook holds it, where the new revision needs its place to come to the hook at all.
                reason = reasons.DRAINING if flaw is Flaw.DRAINING else self._scaling
                self._stop_within(task, reason, self._lower if stuck else self._slots.desired)
            elif (
                flaw is Flaw.MOVE
                or self._leave.retire
                or (self._slots.one_per_host and gaps and not self._leave.failed)
            ):
                # A hook holds what could go, but not a second task on a host that takes the room of other places.
                # Beside its successor on the same host a DAEMON's task is one too many, however others are.
                floor = self._slots.bounds.lower if self._slots.one_per_host else self._slots.desired
                self._stop_within(task, self._scaling, floor)

    def _promises_well(self, task: TaskRecord) -> bool:
        """Whether it is needed though it has yet to count as healthy: it has begun to run just now, and all seems well.

        Whoever deploys twice within seconds must not lose what serves for what may not.
        """
        if task.healthy_at is not None or task.status is not TaskStatus.RUNNING or self._draft.unhealthy(task):
            return False
        deployment = self._draft.deployments.get(task.started_by)
        sound = deployment is not None and deployment.rollout is not RolloutState.FAILED and not deployment.failed_tasks
        return sound and self._healthy < self._slots.desired

    def _closed(self, task: TaskRecord) -> bool:
        """Whether its host is there, but takes no more tasks."""
        host = self._draft.host(task)
        return not host.open and host.verdict is HostVerdict.CONNECTED

    def _retire_sick(self, task: TaskRecord, gaps: bool) -> None:
        """Stop a task that was healthy once when its successor is healthy; where none can start, one by one.

        None can where the upper bound is reached, or where such tasks hold all the room or the ports there are.
        """
        if self._leave.failed:
            return
        replaced = not gaps and self._kept_healthy and not self._prepared
        if replaced or ((gaps or self._found_own) and self._leave.start and not self._leaving):
            self._stop_sick(task)

    def warn_if_stuck(self) -> None:
        """Say, once until the service is steady again, that its bounds forbid every step of a deployment or drain."""
        deployment = self._draft.deployments.get(self._slots.owner)
        if deployment is None or "stuck" in deployment.warned_at or not self._kept_healthy:
            return
        if not all(map(census.is_ready, self._prepared.values())):
            return
        waiting = any(
            flaw in (Flaw.REVISION, Flaw.DRAINING) and not self._draft.protected(task)
            for task, flaw in self._outdated.values()
        )
        if self._leaving or not waiting:
            return
        self._draft.put(replace(deployment, warned_at={**deployment.warned_at, "stuck": self._draft.now}))
        self._draft.say(ServiceEvent.DEPLOYMENT_STUCK, STUCK + (_OWN_WAY if self._in_own_way else ""))
