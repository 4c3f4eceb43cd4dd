"""Records as the ECS API shows them: tasks and container instances. Rendering only: nothing is decided here."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from controlplane.api.arguments import render_tags
from controlplane.context import Context
from controlplane.state.presence import Presence
from controlplane.state.records import InstanceRecord, TaskRecord
from controlplane.state.remaining import free_gpus, remaining
from homeport.arn import ArnFactory
from homeport.protocol import ContainerReport, NetworkBinding
from homeport.spec import ContainerSpec, Resources
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, TaskStatus

__all__ = [
    "TaskHost",
    "attributes_view",
    "failure",
    "instance_view",
    "render_task",
    "resources_view",
    "task_view",
    "versions_view",
]

Document = dict[str, Any]

#: The attributes of its host that a task shows as its own.
_TASK_ATTRIBUTES: Final = ("ecs.cpu-architecture",)
_ZONE: Final = "ecs.availability-zone"
#: Names of statuses. An enum's `name` is computed with each access, and a task's view has several.
_TASK_STATUS: Final = {status: status.name for status in TaskStatus}
_DESIRED_STATUS: Final = {status: status.name for status in DesiredStatus}
_CONTAINER_STATUS: Final = {status: status.ecs_name for status in ContainerStatus}


def failure(arn: str, reason: str, detail: str | None = None) -> dict[str, str]:
    """One entry of an answer's `failures`."""
    return {"arn": arn, "reason": reason} if detail is None else {"arn": arn, "reason": reason, "detail": detail}


# ---------------------------------------------------------------- tasks


class TaskHost(NamedTuple):
    """What a `Task` shows of its host. `connected`, `since`: its presence; None if nothing is known of it."""

    attributes: dict[str, str]
    connected: bool | None = None
    since: float = 0.0


def task_view(context: Context, task: TaskRecord, *, tags: bool) -> Document:
    """A `Task`. `tags`: show them (in Describe* only if the request includes TAGS)."""
    instance = None if task.instance_id is None else context.state.instances.get(task.instance_id)
    presence = None if task.instance_id is None else context.state.presence.of(task.instance_id)
    attributes = {} if instance is None else instance.all_attributes
    host = TaskHost(attributes) if presence is None else TaskHost(attributes, presence.connected, presence.since)
    return render_task(context.arns, task, host, tags=tags)


def render_task(arns: ArnFactory, task: TaskRecord, host: TaskHost, *, tags: bool) -> Document:
    """A `Task` from all that it is made of."""
    attributes, spec = host.attributes, task.spec
    view: Document = {
        "attachments": [],
        "attributes": [{"name": name, "value": attributes[name]} for name in _TASK_ATTRIBUTES if name in attributes],
        "clusterArn": arns.cluster(task.cluster),
        "containers": _containers(task),
        "cpu": str(_task_cpu(task)),
        "memory": str(_task_memory(task)),
        "createdAt": task.created_at,
        "desiredStatus": _DESIRED_STATUS[task.desired],
        "enableExecuteCommand": task.enable_execute_command,
        "group": task.group,
        "healthStatus": task.health,
        "inferenceAccelerators": [],
        "lastStatus": _TASK_STATUS[task.status],
        "launchType": task.launch_type,
        "overrides": _overrides(task),
        "tags": render_tags(task.tags) if tags else [],
        "taskArn": spec.task_arn,
        "taskDefinitionArn": arns.task_definition(spec.family, spec.revision),
        "version": task.version,
    }
    if task.instance_id is not None:
        _add_host(view, arns.container_instance(task.cluster, task.instance_id), host)
    _add_told(view, task)
    return view


def _add_host(view: Document, instance_arn: str, host: TaskHost) -> None:
    """Add what is there once a task has a host."""
    view["containerInstanceArn"] = instance_arn
    if zone := host.attributes.get(_ZONE):
        view["availabilityZone"] = zone
    if host.connected is not None:
        view["connectivity"] = "CONNECTED" if host.connected else "DISCONNECTED"
        view["connectivityAt"] = host.since


def _add_told(view: Document, task: TaskRecord) -> None:
    """Add the members that are left out while they have no value.

    Hosts' clocks differ from ours: nothing is shown before what it must have followed.
    """
    created = task.created_at
    pull_started = _not_before(task.pull_started_at, created)
    started = _not_before(task.started_at, created)
    execution_stopped = _not_before(task.execution_stopped_at, started)
    for member, value in (
        ("pullStartedAt", pull_started),
        ("pullStoppedAt", _not_before(task.pull_stopped_at, pull_started)),
        ("startedAt", started),
        ("stoppingAt", task.stopping_at),
        ("executionStoppedAt", execution_stopped),
        ("stoppedAt", _not_before(task.stopped_at, created, started, task.stopping_at, execution_stopped)),
        ("startedBy", task.started_by or None),
        ("capacityProviderName", task.capacity_provider or None),
        ("stopCode", task.stop_code),
        ("stoppedReason", task.stopped_reason),
    ):
        if value is not None:
            view[member] = value


def _not_before(at: float | None, *earlier: float | None) -> float | None:
    return None if at is None else max([at, *(moment for moment in earlier if moment is not None)])


def _task_cpu(task: TaskRecord) -> int:
    if task.spec.cpu_units is not None:
        return task.spec.cpu_units
    return sum([container.cpu_units for container in task.spec.containers])


def _task_memory(task: TaskRecord) -> int:
    """The task's memory; without one of its own the sum over its containers, limits before reservations as in ECS."""
    if task.spec.memory_mib is not None:
        return task.spec.memory_mib
    return sum([c.memory_mib or c.memory_reservation_mib or 0 for c in task.spec.containers])


def _overrides(task: TaskRecord) -> Document:
    """The overrides as given, with an entry for every container, as ECS shows them."""
    if not task.overrides:
        names = [{"name": container.name} for container in task.spec.containers]
        return {"containerOverrides": names, "inferenceAcceleratorOverrides": []}
    given = {override["name"]: override for override in task.overrides.get("containerOverrides", ())}
    return {
        **task.overrides,
        "containerOverrides": [
            given.get(container.name, {"name": container.name}) for container in task.spec.containers
        ],
        "inferenceAcceleratorOverrides": [],
    }


def _containers(task: TaskRecord) -> list[Document]:
    """All containers of the spec, whether or not the agent has begun with them."""
    reports = {report.name: report for report in task.containers} if task.containers else {}
    return [_container(task, container, reports.get(container.name)) for container in task.spec.containers]


def _container(task: TaskRecord, spec: ContainerSpec, report: ContainerReport | None) -> Document:
    # Of a task that was given up before its host said anything, no container runs any more.
    unheard = "STOPPED" if task.status is TaskStatus.STOPPED else "PENDING"
    health = HealthStatus.UNKNOWN if report is None else report.health or HealthStatus.UNKNOWN
    view: Document = {
        "containerArn": spec.container_arn,
        "cpu": str(spec.cpu_units),
        "healthStatus": health,
        "image": spec.image,
        "lastStatus": unheard if report is None else _CONTAINER_STATUS[report.status],
        "managedAgents": [],
        "name": spec.name,
        "networkBindings": [] if report is None else [_binding(binding) for binding in report.bindings],
        "networkInterfaces": [],
        "taskArn": task.spec.task_arn,
    }
    if spec.memory_mib is not None:
        view["memory"] = str(spec.memory_mib)
    if spec.memory_reservation_mib is not None:
        view["memoryReservation"] = str(spec.memory_reservation_mib)
    if report is None:
        return view
    told = {
        "runtimeId": report.runtime_id,
        "imageDigest": report.image_digest,
        "exitCode": report.exit_code,
        "reason": report.reason,
    }
    if report.gpu_ids:
        view["gpuIds"] = list(report.gpu_ids)
    return view | {member: value for member, value in told.items() if value is not None}


def _binding(binding: NetworkBinding) -> Document:
    return {
        "bindIP": binding.bind_ip,
        "containerPort": binding.container_port,
        "hostPort": binding.host_port,
        "protocol": binding.protocol,
    }


# ---------------------------------------------------------------- container instances


def instance_view(context: Context, instance: InstanceRecord, *, tags: bool, health: bool = False) -> Document:
    """A `ContainerInstance`. `tags`, `health`: what a Describe* request may include."""
    state = context.state
    presence = state.presence.of(instance.id)
    view: Document = {
        "agentConnected": presence is not None and presence.connected,
        "attachments": [],
        "attributes": attributes_view(instance),
        "containerInstanceArn": context.arns.container_instance(instance.cluster, instance.id),
        "ec2InstanceId": instance.managed_id,
        "pendingTasksCount": state.tasks.count("instance_phase", (instance.id, "pending")),
        "registeredAt": instance.registered_at,
        "registeredResources": resources_view(instance.facts.resources, instance.facts.gpu_ids),
        "remainingResources": resources_view(remaining(state, instance), free_gpus(state, instance)),
        "runningTasksCount": state.tasks.count("instance_phase", (instance.id, "running")),
        "status": instance.status,
        "tags": render_tags(instance.tags) if tags else [],
        "version": instance.version,
        "versionInfo": versions_view(instance),
    }
    if instance.status_reason:
        view["statusReason"] = instance.status_reason
    if health:
        view["healthStatus"] = _health(presence)
    return view


def attributes_view(instance: InstanceRecord) -> list[dict[str, str]]:
    """The `attributes` of a `ContainerInstance`."""
    return [_attribute(name, value) for name, value in sorted(instance.all_attributes.items())]


def versions_view(instance: InstanceRecord) -> Document:
    """The `versionInfo` of a `ContainerInstance`."""
    version = {"agentVersion": instance.facts.agent_version}
    return version | ({"dockerVersion": instance.facts.docker_version} if instance.facts.docker_version else {})


def _attribute(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value} if value else {"name": name}


def resources_view(resources: Resources, gpu_ids: tuple[str, ...]) -> list[Document]:
    """`registeredResources` or `remainingResources`, with the ids of GPUs that are meant."""
    gpus = [_strings("GPU", gpu_ids)] if gpu_ids or resources.gpus else []
    return [
        _integer("CPU", resources.cpu_units),
        _integer("MEMORY", resources.memory_mib),
        _ports("PORTS", (number for protocol, number in resources.ports if protocol == "tcp")),
        _ports("PORTS_UDP", (number for protocol, number in resources.ports if protocol == "udp")),
        *gpus,
    ]


def _integer(name: str, value: int) -> Document:
    return {"name": name, "type": "INTEGER", "doubleValue": 0.0, "longValue": 0, "integerValue": value}


def _ports(name: str, numbers: Iterable[int]) -> Document:
    return _strings(name, map(str, sorted(numbers)))


def _strings(name: str, values: Iterable[str]) -> Document:
    return {
        "name": name,
        "type": "STRINGSET",
        "doubleValue": 0.0,
        "longValue": 0,
        "integerValue": 0,
        "stringSetValue": list(values),
    }


def _health(presence: Presence | None) -> Document:
    """`healthStatus`. ECS has no type for a full disk: it shows as an impaired container runtime, with its reason."""
    if presence is None:
        return {"overallStatus": "INSUFFICIENT_DATA", "details": []}
    details = [_check(presence, "AGENT_CONNECTIVITY", presence.since, [] if presence.connected else ["disconnected"])]
    if presence.conditions:
        problems = [f"{condition.type}: {condition.reason or 'impaired'}" for condition in presence.impaired]
        since = max(condition.since for condition in presence.conditions)
        details.append(_check(presence, "CONTAINER_RUNTIME", since, problems))
    overall = "OK" if all(detail["status"] == "OK" for detail in details) else "IMPAIRED"
    return {"overallStatus": overall, "details": details}


def _check(presence: Presence, kind: str, since: float, problems: list[str]) -> Document:
    detail: Document = {
        "type": kind,
        "status": "IMPAIRED" if problems else "OK",
        "lastUpdated": presence.last_seen_at,
        "lastStatusChange": since,
    }
    return detail | ({"statusReason": "; ".join(problems)} if problems else {})
