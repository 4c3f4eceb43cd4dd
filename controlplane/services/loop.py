"""The loop over all services: looks at those that something has happened to, decides, acts.

Nothing is polled. A service is looked at when a task, its own records or one of its hosts have changed, or when a
moment has come that its last decision named. What happens within one event-loop turn makes one look, and a burst of
reports few of them (`pace`).

Thousands of tasks are started some at a time. As long as nothing but their progress has happened to the service, the
decision still stands, and needs no look in between.
"""

import asyncio
from collections.abc import Callable, Iterator
from operator import is_
from time import perf_counter
from typing import Final, NamedTuple

import structlog
from msgspec.structs import replace

from controlplane.agenda import Agenda
from controlplane.context import Context
from controlplane.services.act import Acted, act
from controlplane.services.deciding.decide import decide
from controlplane.services.look import look_at
from controlplane.services.model import Blocked, Decision, Snapshot, Start
from controlplane.services.pace import Pace
from controlplane.services.rebalancing import Rebalancer, is_rebalanced
from controlplane.state.records import InstanceRecord, Record, TaskRecord, ToldHost
from controlplane.state.service_records import (
    SERVICE_GROUP,
    DeploymentRecord,
    ServiceRecord,
    TaskSetRecord,
)
from controlplane.state.state import State
from controlplane.state.watch import Watch, WatchOverflow
from controlplane.store.api import Change
from homeport.ids import InstanceId
from homeport.status import DesiredStatus, TaskStatus

__all__ = ["ServiceLoop"]

_log: Final = structlog.get_logger(__name__)


class _Signature(NamedTuple):
    """What of a host matters to services besides the room it has."""

    instance: InstanceRecord | None
    connected: bool
    heard_out: bool
    conditions: tuple[object, ...]


class _Unfinished(NamedTuple):
    """What is left of a decision, and the records that it was made of, as they are since it was begun."""

    snapshot: Snapshot
    starts: tuple[Start, ...]
    records: tuple[Record, ...]
    #: The revision that the decision's first turn made: what it stopped and gave up itself is no news to it.
    revision: int


class ServiceLoop:
    """Reconciles all services. `run` is its life; `observe` is called with the seconds that each look took."""

    def __init__(self, context: Context, *, observe: Callable[[float], None] = lambda _: None) -> None:
        self._context = context
        self._observe = observe
        self._started_at = context.clock.monotonic()
        self._agenda: Agenda[str] = Agenda(context.clock, "service", refresh=self._take_hosts)
        self._pace = Pace()
        self._blocked: dict[str, Blocked] = {}
        #: Only the first goes on: tasks placed by turns would have each service's ranking of hosts follow all others.
        self._unfinished: dict[str, _Unfinished] = {}
        self._hosts: dict[InstanceId, _Signature] = {}
        #: What these were made of.
        self._seen: dict[InstanceId, tuple[object, ...]] = {}
        self._hosts_seen = 0
        self._rebalancer = Rebalancer(context)

    async def run(self) -> None:
        """Reconcile until cancelled; what is decided is carried out in the same turn, so nothing is left half-done."""
        followers = self._context.state.host_log.followers
        followers.append(self.wake)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._agenda.run(self._look, at_once=1))
        finally:
            followers.remove(self.wake)

    def wake(self) -> None:
        """Have a look at what is due: something has changed, or time has been moved."""
        self._agenda.wake()

    # ------------------------------------------------------------ what has happened

    async def _follow(self) -> None:
        while True:
            with self._context.state.snapshot_and_watch() as watch:
                self._unfinished.clear()  # what has happened since isn't known
                self._agenda.mark(service.key for service in self._context.state.services)
                try:
                    await self._follow_commits(watch)
                except WatchOverflow:
                    _log.warning("the service scheduler fell behind the state; it looks at every service")

    async def _follow_commits(self, watch: Watch) -> None:
        while True:
            for commit in await watch.next_batch():
                for change in commit.changes:
                    key = _service_of(change)
                    if key is None:
                        continue
                    self._agenda.mark((key,))
                    unfinished = self._unfinished.get(key)
                    if unfinished is not None and commit.revision > unfinished.revision and not _is_progress(change):
                        self._drop_unfinished(key)
                        self._put_off(key, unfinished.snapshot)

    def _take_hosts(self) -> None:
        """Mark the services that a change of hosts concerns."""
        state = self._context.state
        changed = state.host_log.since(self._hosts_seen)
        self._hosts_seen = state.host_log.last
        if changed is None:
            changed = [instance.id for instance in state.instances]
        room, other = set(), set()
        for instance_id in changed:
            instance = state.instances.get(instance_id)
            cluster = "" if instance is None else instance.cluster
            room.add(cluster)
            draining = instance is not None and instance.status == "DRAINING"
            if self._is_news(instance_id, instance):
                other.add(cluster)
            elif not draining:
                continue
            self._agenda.mark(_services_on(state, instance_id))
        self._agenda.mark(key for key in self._blocked if key.partition("/")[0] in room)
        for cluster in other:
            self._agenda.mark(
                service.key
                for service in state.services.where("cluster_status", (cluster, "ACTIVE"))
                if service.scheduling_strategy == "DAEMON" or is_rebalanced(service)
            )

    def _is_news(self, instance_id: InstanceId, instance: InstanceRecord | None) -> bool:
        """Tell whether more than the room on a host has changed, and remember it as it is."""
        presence = self._context.state.presence.of(instance_id)
        seen = (instance, presence and (presence.connected, presence.heard_out, presence.conditions))
        if self._seen.get(instance_id) == seen:
            return False  # most often it is only its tasks
        self._seen[instance_id] = seen
        signature = self._signature(instance_id, instance)
        if self._hosts.get(instance_id) == signature:
            return False
        if instance is None:
            self._hosts.pop(instance_id, None)
            self._seen.pop(instance_id, None)
        else:
            self._hosts[instance_id] = signature
        return True

    def _signature(self, instance_id: InstanceId, instance: InstanceRecord | None) -> _Signature:
        presence = self._context.state.presence.of(instance_id)
        if instance is not None:
            # What was told of it is no news to a service.
            instance = replace(instance, told=ToldHost(), version=0)
        if presence is None:
            return _Signature(instance, connected=False, heard_out=False, conditions=())
        return _Signature(instance, presence.connected, presence.heard_out, presence.impaired)

    # ------------------------------------------------------------ looking and acting

    def _look(self, key: str) -> None:
        service = self._context.state.services.get(key)
        if service is None or service.status == "INACTIVE":
            self._forget(key)
            return
        began = perf_counter()
        unfinished = self._unfinished.get(key)
        if unfinished is None or not _same(unfinished.records, _records_of(self._context.state, service)):
            self._drop_unfinished(key)
            self._decide(key, service)
        elif key == next(iter(self._unfinished)):
            self._go_on(key, unfinished)
        self._observe(perf_counter() - began)

    def _go_on(self, key: str, unfinished: _Unfinished) -> None:
        try:
            self._carry_out(key, unfinished.snapshot, Decision(actions=unfinished.starts), since=unfinished.revision)
        except Exception:
            self._drop_unfinished(key)
            self._put_off(key, unfinished.snapshot)
            raise
        if key not in self._unfinished:
            # It is through: whatever has happened meanwhile is looked at when its time has come.
            self._put_off(key, unfinished.snapshot)
            self._agenda.mark([key])

    def _decide(self, key: str, service: ServiceRecord) -> None:
        before = self._blocked.pop(key, None)
        moves = self._rebalancer.moves(
            service, self._context.state.tasks.where("service", (service.cluster, service.group))
        )
        snapshot = look_at(self._context, service, started_at=self._started_at, blocked=before, moves=moves.named)
        decision = decide(snapshot, self._context.clock.now())
        try:
            acted = self._carry_out(key, snapshot, decision)
        finally:
            if key not in self._unfinished:
                self._put_off(key, snapshot)
        if acted.blocked is not None and acted.blocked != before:
            self._agenda.mark([key])
        self._agenda.schedule(
            key, min((at for at in (decision.wake_at, moves.wake_at) if at is not None), default=None)
        )

    def _carry_out(self, key: str, snapshot: Snapshot, decision: Decision, *, since: int | None = None) -> Acted:
        acted = act(self._context, snapshot, decision)
        state = self._context.state
        service = state.services.get(key)
        if acted.blocked is not None:
            self._blocked[key] = acted.blocked
        if acted.left and acted.blocked is None and service is not None:
            self._unfinished[key] = _Unfinished(
                snapshot, acted.left, _records_of(state, service), state.revision if since is None else since
            )
            self._agenda.put_off(key, 0)
            self._agenda.mark([key])
        else:
            self._drop_unfinished(key)
        return acted

    def _drop_unfinished(self, key: str) -> None:
        """Forget what is left of a decision, and let the next service go on with its own."""
        if self._unfinished.pop(key, None) is not None:
            self._agenda.mark(self._unfinished)

    def _put_off(self, key: str, snapshot: Snapshot) -> None:
        pause = self._pace.pause(key, len(snapshot.tasks), asyncio.get_running_loop().time())
        self._agenda.put_off(key, pause)

    def _forget(self, key: str) -> None:
        self._agenda.forget(key)
        self._blocked.pop(key, None)
        self._drop_unfinished(key)
        self._rebalancer.forget(key)


def _services_on(state: State, instance_id: InstanceId) -> Iterator[str]:
    for phase in ("pending", "running"):
        for task in state.tasks.where("instance_phase", (instance_id, phase)):
            if task.group.startswith(SERVICE_GROUP):
                yield f"{task.cluster}/{task.group.removeprefix(SERVICE_GROUP)}"


def _records_of(state: State, service: ServiceRecord) -> tuple[Record, ...]:
    """Return what says how a service's tasks are to be started."""
    deployments = (d for d in map(state.deployments.get, service.deployments) if d is not None)
    return (service, *deployments, *state.task_sets.where("service", service.id))


def _same(before: tuple[Record, ...], now: tuple[Record, ...]) -> bool:
    """Whether no record has been put since."""
    return len(before) == len(now) and all(map(is_, before, now))


def _is_progress(change: Change) -> bool:
    """Whether a task has only come further: one that has failed, is lost or is to stop is news for a decision."""
    task = change.new
    if not isinstance(task, TaskRecord):
        return True
    on_its_way = task.status <= TaskStatus.RUNNING and task.desired is not DesiredStatus.STOPPED
    return on_its_way and task.lost_at is None


def _service_of(change: Change) -> str | None:
    """Return the key of the service that a change is news for."""
    record = change.new if change.new is not None else change.old
    match record:
        case TaskRecord(group=group, cluster=cluster) if group.startswith(SERVICE_GROUP):
            return f"{cluster}/{group.removeprefix(SERVICE_GROUP)}"
        case ServiceRecord():
            return record.key
        case DeploymentRecord(service=service) | TaskSetRecord(service=service):
            return service
        case _:
            return None
