"""Looking at a service: the snapshot that a decision is made of. Reads the state, changes nothing."""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.fleet.liveness import HostVerdict, judge
from controlplane.scheduling.filters import Filter, active, attributes, first_refusal, member_of
from controlplane.scheduling.language import parse_query
from controlplane.scheduling.model import Demand, candidate_of
from controlplane.services.deployments import rollback_candidate
from controlplane.services.isolation import least_lost_after_s
from controlplane.services.model import Blocked, FreshIds, Host, Snapshot
from controlplane.services.orders import demand_of_revision
from controlplane.services.timing import timing_of
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.service_records import ServiceRecord
from homeport.ids import InstanceId, TaskId, new_hex_id
from homeport.status import TaskStatus

__all__ = ["look_at", "new_deployment_id", "suitable", "usable_hosts"]

#: More hosts than this needn't be counted: an error that can't heal is believed when two hosts report it.
_ENOUGH_HOSTS: Final = 2


def new_deployment_id(context: Context) -> str:
    """Make an id of the form ECS gives deployments and task sets: `ecs-svc/` and 19 digits."""
    return f"ecs-svc/{context.random.randrange(10**18, 10**19)}"


def look_at(
    context: Context,
    service: ServiceRecord,
    *,
    started_at: float,
    blocked: Blocked | None,
    moves: frozenset[TaskId] = frozenset(),
) -> Snapshot:
    """Return what a decision about the service depends on, as things are in this turn.

    `started_at`: when this process began to listen, by the monotonic clock; hosts not heard of since are given their
    time from then on.
    `moves`: tasks that a rebalance wants elsewhere.
    """
    state = context.state
    timing = timing_of(service.tags)
    deployments = tuple(d for d in map(state.deployments.get, service.deployments) if d is not None)
    tasks = tuple(state.tasks.where("service", (service.cluster, service.group)))
    daemon = service.scheduling_strategy == "DAEMON"
    needs_demand = daemon or any(len(d.hopeless) == 1 for d in deployments[:1])
    demand = demand_of_revision(context, service) if needs_demand else None
    usable = usable_hosts(context, service, demand) if demand is not None else []
    specs = (task.spec for task in tasks if task.status is not TaskStatus.STOPPED)
    verdicts = _Verdicts(context, started_at, least_lost_after_s(timing.lost_after_s, specs))
    ids = dict.fromkeys(task.instance_id for task in tasks if task.instance_id is not None)
    if daemon:
        ids.update(dict.fromkeys(instance.id for instance in usable))
    hosts = {instance_id: verdicts.of(instance_id) for instance_id in ids}
    if daemon:
        for host_id in [host.id for host in hosts.values() if host.draining]:
            hosts[host_id] = replace(hosts[host_id], last_of_host=_is_last(context, service, tasks, host_id))
    return Snapshot(
        service=service,
        deployments=deployments,
        tasks=tasks,
        hosts=hosts,
        eligible=frozenset(i.id for i in usable if hosts[i.id].verdict is not HostVerdict.LOST)
        if daemon
        else frozenset(),
        rollback_to=state.revisions.get(rollback_candidate(service, deployments)),
        blocked=blocked,
        moves=moves,
        task_sets=tuple(state.task_sets.where("service", service.id)) if service.controller == "EXTERNAL" else (),
        timing=timing,
        ids=FreshIds(deployment=new_deployment_id(context), arn=new_hex_id(context.random)),
        usable_hosts=len(usable) if demand is not None else _ENOUGH_HOSTS,
    )


def suitable(demand: Demand) -> Filter:
    """Make the filter that tells whether a host may have a task at all, whatever it has left just now.

    A host that is silent or impaired for the moment is still one of those.
    """
    filters: list[Filter] = [active, attributes]
    filters += [member_of(parse_query(c.expression)) for c in demand.constraints if c.type == "memberOf"]
    return lambda candidate, asked: first_refusal(candidate, asked, filters)


def usable_hosts(context: Context, service: ServiceRecord, demand: Demand) -> list[InstanceRecord]:
    """Return the ACTIVE hosts of the service's cluster that may have a task of it at all."""
    check = suitable(demand)
    return [
        instance
        for instance in context.state.instances.where("cluster_status", (service.cluster, "ACTIVE"))
        if check(candidate_of(context.state, instance), demand) is None
    ]


def _is_last(context: Context, service: ServiceRecord, tasks: Iterable[TaskRecord], instance_id: InstanceId) -> bool:
    """Tell whether no task of another, REPLICA service is left on a host that a DAEMON has a task on."""
    if all(task.instance_id != instance_id for task in tasks):
        return True
    daemons = {
        s.group
        for s in context.state.services.where("cluster_status", (service.cluster, "ACTIVE"))
        if s.scheduling_strategy == "DAEMON" and s.name != service.name
    }
    load = context.state.load.of(instance_id)
    return not any(
        count and group.startswith("service:") and group != service.group and group not in daemons
        for group, count in load.groups.items()
    )


class _Verdicts:
    """What to make of hosts, by one service's lost-after."""

    def __init__(self, context: Context, started_at: float, lost_after_s: float) -> None:
        self._state = context.state
        self._clock = context.clock
        self._now = context.clock.monotonic()
        self._started_at = started_at
        self._lost_after_s = lost_after_s

    def of(self, instance_id: InstanceId) -> Host:
        instance = self._state.instances.get(instance_id)
        presence = self._state.presence.of(instance_id)
        if instance is None or instance.status == "INACTIVE":
            # Its tasks have been given up with it, or are about to be.
            return Host(id=instance_id, verdict=HostVerdict.LOST, open=False)
        if presence is None or not presence.connected:
            return self._silent(instance, presence)
        return Host(
            id=instance_id,
            verdict=HostVerdict.CONNECTED,
            open=instance.status == "ACTIVE" and not presence.impaired,
            draining=instance.status == "DRAINING",
            drain_deadline_at=instance.drain_deadline_at,
            heard_out=presence.heard_out,
        )

    def _silent(self, instance: InstanceRecord, presence: Presence | None) -> Host:
        verdict = judge(presence, now=self._now, started_at=self._started_at, lost_after_s=self._lost_after_s)
        heard_at = self._started_at if presence is None else max(presence.heard_at, self._started_at)
        lost_at = self._clock.now() + heard_at + self._lost_after_s - self._now
        return Host(
            id=instance.id,
            verdict=verdict,
            open=False,
            draining=instance.status == "DRAINING",
            drain_deadline_at=instance.drain_deadline_at,
            heard_out=False,
            lost_at=lost_at if verdict is HostVerdict.UNKNOWN else None,
        )
