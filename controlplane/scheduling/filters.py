"""Filters: each answers for one host whether it can take the task, and if not, why, with the numbers.

A filter is a function (candidate, demand) -> Refusal or None. Two kinds are told apart:
 - FITNESS, the host's own limits: it must be up, of the right make and with room. The applier checks these again, and
   StartTask, which names its host, checks nothing else;
 - placement constraints, which narrow the choice (`memberOf`, `distinctInstance`).

The order is that of the answer wanted: the most lasting obstacle is named first, since only the first one is reported.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from controlplane.scheduling.language import Query, parse_query
from controlplane.scheduling.model import Candidate, Constraint, Demand, Refusal
from controlplane.state.records import TaskRecord
from homeport.status import DesiredStatus, TaskStatus

__all__ = [
    "AGENT",
    "ATTRIBUTE",
    "CAPACITY_PROVIDER",
    "DISK",
    "DISTINCT_INSTANCE",
    "FITNESS",
    "MEMBER_OF",
    "PORTS",
    "SUITABILITY",
    "Filter",
    "constraint_filters",
    "distinct_instance",
    "filters_of",
    "first_refusal",
    "fits",
    "member_of",
    "unfit",
    "would_fit_without",
]

Filter = Callable[[Candidate, Demand], Refusal | None]

#: Reasons, as in ECS's failures. Of resources there are also RESOURCE:MEMORY, RESOURCE:CPU and RESOURCE:GPU.
AGENT: Final = "AGENT"
ATTRIBUTE: Final = "ATTRIBUTE"
DISK: Final = "RESOURCE:DISK"
PORTS: Final = "RESOURCE:PORTS"
MEMBER_OF: Final = "MemberOf placement constraint unsatisfied."
DISTINCT_INSTANCE: Final = "DistinctInstance placement constraint unsatisfied."
#: Ours: the host isn't one of the capacity provider's.
CAPACITY_PROVIDER: Final = "CAPACITY_PROVIDER"

#: The condition of an agent whose Docker Engine doesn't answer.
_RUNTIME: Final = "CONTAINER_RUNTIME"
#: The condition of an agent that is short of disk space.
_DISK: Final = "DISK"


def first_refusal(candidate: Candidate, demand: Demand, filters: Sequence[Filter]) -> Refusal | None:
    """Return what the first filter that objects says; None if none does."""
    for check in filters:
        refusal = check(candidate, demand)
        if refusal is not None:
            return refusal
    return None


def active(candidate: Candidate, demand: Demand) -> Refusal | None:  # noqa: ARG001 - all filters have one signature
    """Refuse hosts that are DRAINING or deregistered: ECS places nothing there."""
    status = candidate.instance.status
    if status == "ACTIVE":
        return None
    return Refusal(candidate.id, status, f"{_name(candidate)} is {status}; new tasks are placed on ACTIVE hosts only.")


def agent_connected(candidate: Candidate, demand: Demand) -> Refusal | None:  # noqa: ARG001
    """Refuse hosts whose agent has no session now (ECS's AGENT)."""
    presence = candidate.presence
    if presence is not None and presence.connected:
        return None
    return Refusal(candidate.id, AGENT, f"The agent of {_name(candidate)} isn't connected.")


def healthy(candidate: Candidate, demand: Demand) -> Refusal | None:  # noqa: ARG001
    """Refuse hosts whose Docker Engine is impaired, or that are short of disk space."""
    for condition in candidate.presence.impaired if candidate.presence else ():
        why = f": {condition.reason}" if condition.reason else ""
        if condition.type == _RUNTIME:
            return Refusal(candidate.id, AGENT, f"The Docker Engine of {_name(candidate)} is impaired{why}.")
        if condition.type == _DISK:
            return Refusal(candidate.id, DISK, f"{_name(candidate)} is short of disk space{why}.")
    return None


def attributes(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts that lack an attribute the task requires, e.g. the architecture of its runtimePlatform."""
    if not demand.attributes:
        return None
    has = candidate.instance.all_attributes
    for name, wanted in demand.attributes.items():
        if has.get(name) != wanted:
            found = f"has {name}={has[name]}" if name in has else f"has no attribute {name}"
            return Refusal(
                candidate.id, ATTRIBUTE, f"{_name(candidate)} {found}; the task definition requires {name}={wanted}."
            )
    return None


def memory(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts without enough memory left."""
    total = candidate.instance.facts.resources.memory_mib
    return _short(candidate, "MEMORY", "MiB of memory", demand.resources.memory_mib, total, candidate.load.memory_mib)


def cpu(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts without enough CPU units left."""
    total = candidate.instance.facts.resources.cpu_units
    return _short(candidate, "CPU", "CPU units", demand.resources.cpu_units, total, candidate.load.cpu_units)


def gpus(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts without enough GPUs left."""
    total = candidate.instance.facts.resources.gpus
    return _short(candidate, "GPU", "GPUs", demand.resources.gpus, total, candidate.load.gpus)


def ports(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts on which a static host port is reserved, or held by another task."""
    for port in demand.resources.ports:
        if port in candidate.load.ports or port in candidate.instance.facts.resources.ports:
            protocol, number = port
            by = "in use by another task" if port in candidate.load.ports else "reserved"
            return Refusal(candidate.id, PORTS, f"Port {number}/{protocol} of {_name(candidate)} is {by}.")
    return None


def member_of(query: Query, provider: str = "") -> Filter:
    """Make the filter of a `memberOf` constraint, or of the capacity provider that it stands for."""

    def check(candidate: Candidate, demand: Demand) -> Refusal | None:  # noqa: ARG001
        if query.matches(candidate):
            return None
        if provider:
            detail = (
                f"{_name(candidate)} is no host of the capacity provider {provider}: those are the hosts with"
                f" {query.text} (set attributes with PutAttributes, or in the agent's configuration)."
            )
            return Refusal(candidate.id, CAPACITY_PROVIDER, detail)
        return Refusal(candidate.id, MEMBER_OF, f"{_name(candidate)} doesn't satisfy memberOf({query.text}).")

    return check


def distinct_instance(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Refuse hosts that have a task of the group already; those that are to stop don't count, as in ECS."""
    if not candidate.tasks_of(demand.group):
        return None
    detail = f"{_name(candidate)} has a task of the group {demand.group} already."
    return Refusal(candidate.id, DISTINCT_INSTANCE, detail)


def constraint_filters(constraints: Iterable[Constraint]) -> list[Filter]:
    """Return the filters of placement constraints. Raises QueryError for an expression that can't be understood."""
    return [
        member_of(parse_query(constraint.expression), constraint.provider)
        if constraint.type == "memberOf"
        else distinct_instance
        for constraint in constraints
    ]


def filters_of(demand: Demand) -> tuple[Filter, ...]:
    """Return all filters of a demand: what a host is comes first, then where it may be, then what it has left.

    Raises QueryError for an expression that can't be understood.
    """
    return (*SUITABILITY, *constraint_filters(demand.constraints), *FITNESS[len(SUITABILITY) :])


def would_fit_without(candidate: Candidate, demand: Demand, tasks: Iterable[TaskRecord]) -> bool:
    """Tell whether a host refuses one more task only for what `tasks`, which are on it, hold there.

    So a deployment knows that it has to stop an old task first: for its host port, its memory, its distinctInstance.
    False if the host doesn't refuse at all.
    """
    filters = filters_of(demand)
    if first_refusal(candidate, demand, filters) is None:
        return False
    load = candidate.load.copy()
    for task in tasks:
        if task.status is TaskStatus.STOPPED or task.instance_id != candidate.id:
            continue
        load.add(task.resources, -1)
        if task.desired is not DesiredStatus.STOPPED:
            load.add_to_group(task.group, -1)
    return first_refusal(replace(candidate, load=load), demand, filters) is None


#: What a host is, whatever it has left.
SUITABILITY: Final[tuple[Filter, ...]] = (active, agent_connected, healthy, attributes)
FITNESS: Final[tuple[Filter, ...]] = (*SUITABILITY, memory, cpu, gpus, ports)


def fits(candidate: Candidate, demand: Demand) -> bool:
    """Tell whether FITNESS has no objection: the same question in one go, as most hosts of a cluster do fit."""
    instance, load, presence = candidate.instance, candidate.load, candidate.presence
    if instance.status != "ACTIVE" or presence is None or not presence.connected:
        return False
    for condition in presence.conditions:
        if not condition.ok and condition.type in (_RUNTIME, _DISK):
            return False
    total, wanted = instance.facts.resources, demand.resources
    return (
        wanted.memory_mib <= total.memory_mib - load.memory_mib
        and wanted.cpu_units <= total.cpu_units - load.cpu_units
        and wanted.gpus <= total.gpus - load.gpus
        and (not wanted.ports or ports(candidate, demand) is None)
        and (not demand.attributes or attributes(candidate, demand) is None)
    )


def unfit(candidate: Candidate, demand: Demand) -> Refusal | None:
    """Return what FITNESS objects to; None if the host can take the task."""
    return None if fits(candidate, demand) else first_refusal(candidate, demand, FITNESS)


def _short(candidate: Candidate, kind: str, unit: str, wanted: int, total: int, held: int) -> Refusal | None:
    if wanted <= total - held:
        return None
    detail = f"{_name(candidate)} has {max(total - held, 0)} of {total} {unit} left; the task needs {wanted}."
    return Refusal(candidate.id, f"RESOURCE:{kind}", detail, short=wanted - max(total - held, 0))


def _name(candidate: Candidate) -> str:
    return candidate.instance.facts.hostname or candidate.id
