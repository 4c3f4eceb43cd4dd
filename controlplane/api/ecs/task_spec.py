"""From an ECS task definition and a request's overrides to what an agent runs (`homeport.spec.TaskSpec`).

Rules of ECS kept here: a command override replaces the command, never entryPoint; environment merges, the override's
value wins; an empty command or entryPoint means the image's own; in network mode host a port mapping's host port is its
container port.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from controlplane.api.ecs.extensions import restart_attempt_period_s
from controlplane.api.ecs.log_shipping import AWSLOGS, LogDefaults, shipping_of
from controlplane.api.ecs.units import cpu_units, gpus_of, memory_mib
from controlplane.api.ecs.unsupported import refuse_unsupported
from controlplane.api.errors import ClientException, InvalidParameterException
from controlplane.state.records import TaskDefinitionRecord
from homeport.arn import ArnFactory
from homeport.ids import TaskId
from homeport.spec import (
    DEFAULT_STOP_TIMEOUT_S,
    ContainerSpec,
    Dependency,
    DockerVolume,
    HealthCheck,
    LogConfiguration,
    LogShipping,
    Mount,
    PortMapping,
    Resources,
    RestartPolicy,
    TaskSpec,
    Ulimit,
    Volume,
)

__all__ = ["Template", "check_overrides", "spec_of", "spec_template"]

Document = Mapping[str, Any]

#: ECS's limit for the JSON text of `overrides`.
_MAX_OVERRIDES_LENGTH: Final = 8192
#: The least memory of a container, in MiB: Docker's.
_MIN_MEMORY_MIB: Final = 6
_MEMORY_LIMITS: Final = ("memory", "memoryReservation")


class Template(NamedTuple):
    """What the tasks of an order have in common: a spec that lacks its ARNs, and what each asks of its host."""

    spec: TaskSpec
    resources: Resources


def spec_template(
    definition: TaskDefinitionRecord,
    overrides: Document,
    *,
    cluster: str,
    group: str,
    logs: LogDefaults = LogDefaults(),  # noqa: B008
) -> Template:
    """Work out what the tasks of an order have in common.

    Raises ClientException for what Homeport can't do, InvalidParameterException for overrides that don't fit.
    """
    if overrides:
        return _template(definition, overrides, cluster, group, logs)
    return _plain(_Same(definition), cluster, group, logs)


def spec_of(template: TaskSpec, *, arns: ArnFactory, task_id: TaskId, container_ids: Sequence[str]) -> TaskSpec:
    """Make the spec of one task of a template's. `container_ids`: a new id for each container, in their order."""
    cluster = template.cluster
    return replace(
        template,
        task_arn=arns.task(cluster, task_id),
        containers=tuple(
            [
                replace(container, container_arn=arns.container(cluster, task_id, container_id))
                for container, container_id in zip(template.containers, container_ids, strict=True)
            ]
        ),
    )


class _Same:
    """A definition as a key: equal if it is the same object. Records never change, so nothing more need be compared."""

    __slots__ = ("definition",)

    def __init__(self, definition: TaskDefinitionRecord) -> None:
        self.definition = definition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.definition is self.definition

    def __hash__(self) -> int:
        return id(self.definition)


@lru_cache(maxsize=256)
def _plain(same: _Same, cluster: str, group: str, logs: LogDefaults) -> Template:
    """Make the template of tasks without overrides; most requests ask for one that was made before."""
    return _template(same.definition, {}, cluster, group, logs)


def _template(
    definition: TaskDefinitionRecord, overrides: Document, cluster: str, group: str, logs: LogDefaults
) -> Template:
    """See spec_template."""
    document = definition.document
    check_overrides(document, overrides)
    refuse_unsupported(document, overrides)
    by_name: dict[str, dict[str, Any]] = {}
    for override in overrides.get("containerOverrides") or ():
        by_name.setdefault(override["name"], {}).update(override)
    host_network = document.get("networkMode") == "host"
    attempt_period_s = restart_attempt_period_s(definition.tags)
    containers = tuple(
        _container(
            container,
            by_name.get(container["name"], {}),
            host_network=host_network,
            attempt_period_s=attempt_period_s,
            ship_to=shipping_of(container, cluster, definition.family, logs),
        )
        for container in document["containerDefinitions"]
    )
    cpu = overrides.get("cpu") or document.get("cpu")
    memory = overrides.get("memory") or document.get("memory")
    spec = TaskSpec(
        task_arn="",
        cluster=cluster,
        family=definition.family,
        revision=definition.revision,
        containers=containers,
        volumes=tuple(_volume(volume) for volume in document.get("volumes") or ()),
        network_mode=document.get("networkMode") or "bridge",
        cpu_units=cpu_units(cpu) if cpu else None,
        memory_mib=memory_mib(memory) if memory else None,
        group=group,
    )
    _check_limits(spec)
    return Template(spec, Resources.of_task(spec))


def check_overrides(document: Document, overrides: Document) -> None:
    """Raise InvalidParameterException for overrides that are too long or name a container that there isn't."""
    if len(msgspec.json.encode(overrides)) > _MAX_OVERRIDES_LENGTH:
        raise InvalidParameterException(f"Container Overrides length must be at most {_MAX_OVERRIDES_LENGTH}")
    names = {container["name"] for container in document["containerDefinitions"]}
    for override in overrides.get("containerOverrides") or ():
        name = override.get("name")
        if not name:
            raise InvalidParameterException("Container override must specify the name of a container.")
        if name not in names:
            raise InvalidParameterException(
                f"Override for container named {name} is not a container in the TaskDefinition."
            )


def _container(
    document: Document,
    override: Document,
    *,
    host_network: bool,
    attempt_period_s: int | None,
    ship_to: LogShipping | None,
) -> ContainerSpec:
    # An override of 0 MiB overrides nothing: forms that tools print for people to fill in have zeros everywhere.
    limits = {**document, **{name: override[name] for name in _MEMORY_LIMITS if override.get(name)}}
    return ContainerSpec(
        name=document["name"],
        image=document["image"],
        container_arn="",
        command=_words(override.get("command") or document.get("command")),
        entry_point=_words(document.get("entryPoint")),
        environment=_pairs(document.get("environment")) | _pairs(override.get("environment")),
        user=document.get("user") or None,
        working_directory=document.get("workingDirectory") or None,
        cpu_units=override.get("cpu", document.get("cpu")) or 0,
        memory_mib=limits.get("memory") or None,
        memory_reservation_mib=limits.get("memoryReservation") or None,
        ports=tuple(_port(mapping, host_network=host_network) for mapping in document.get("portMappings") or ()),
        mounts=tuple(
            Mount(
                volume=mount["sourceVolume"],
                container_path=mount["containerPath"],
                read_only=bool(mount.get("readOnly")),
            )
            for mount in document.get("mountPoints") or ()
        ),
        essential=document.get("essential", True),
        depends_on=tuple(
            Dependency(container=entry["containerName"], condition=entry["condition"])
            for entry in document.get("dependsOn") or ()
        ),
        health_check=_health_check(document.get("healthCheck")),
        start_timeout_s=document.get("startTimeout"),
        stop_timeout_s=document.get("stopTimeout", DEFAULT_STOP_TIMEOUT_S),
        restart_policy=_restart_policy(document.get("restartPolicy"), attempt_period_s),
        log=_log(document.get("logConfiguration")),
        shipping=ship_to,
        gpus=gpus_of(override.get("resourceRequirements") or document.get("resourceRequirements"), document["name"]),
        **_docker_options(document),
    )


def _docker_options(document: Document) -> dict[str, Any]:
    """Members that go to the Engine as they are."""
    return {
        "docker_labels": document.get("dockerLabels") or {},
        "hostname": document.get("hostname") or None,
        "privileged": bool(document.get("privileged")),
        "read_only_root": bool(document.get("readonlyRootFilesystem")),
        "interactive": bool(document.get("interactive")),
        "pseudo_terminal": bool(document.get("pseudoTerminal")),
        "dns_servers": tuple(document.get("dnsServers") or ()),
        "dns_search_domains": tuple(document.get("dnsSearchDomains") or ()),
        "extra_hosts": tuple(f"{host['hostname']}:{host['ipAddress']}" for host in document.get("extraHosts") or ()),
        "docker_security_options": tuple(document.get("dockerSecurityOptions") or ()),
        "ulimits": tuple(
            Ulimit(name=limit["name"], soft=limit["softLimit"], hard=limit["hardLimit"])
            for limit in document.get("ulimits") or ()
        ),
        "sysctls": {control["namespace"]: control["value"] for control in document.get("systemControls") or ()},
    }


def _words(words: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(words) if words else None


def _pairs(entries: Sequence[Document] | None) -> dict[str, str]:
    return {entry["name"]: entry.get("value") or "" for entry in entries or ()}


def _port(mapping: Document, *, host_network: bool) -> PortMapping:
    port = mapping["containerPort"]
    return PortMapping(
        container_port=port,
        host_port=port if host_network else mapping.get("hostPort") or 0,
        protocol=mapping.get("protocol") or "tcp",
        name=mapping.get("name"),
    )


def _health_check(check: Document | None) -> HealthCheck | None:
    if not check or list(check["command"]) == ["NONE"]:
        return None
    defaults = HealthCheck(command=())
    return HealthCheck(
        command=tuple(check["command"]),
        interval_s=check.get("interval") or defaults.interval_s,
        timeout_s=check.get("timeout") or defaults.timeout_s,
        retries=check.get("retries") or defaults.retries,
        start_period_s=check.get("startPeriod") or defaults.start_period_s,
    )


def _restart_policy(policy: Document | None, attempt_period_s: int | None) -> RestartPolicy:
    if not policy:
        return RestartPolicy()
    if attempt_period_s is None:
        attempt_period_s = policy.get("restartAttemptPeriod") or RestartPolicy().attempt_period_s
    return RestartPolicy(
        enabled=policy["enabled"],
        ignored_exit_codes=tuple(policy.get("ignoredExitCodes") or ()),
        attempt_period_s=attempt_period_s,
    )


def _log(log: Document | None) -> LogConfiguration | None:
    if not log or log["logDriver"] == AWSLOGS:
        return None
    return LogConfiguration(driver=log["logDriver"], options=log.get("options") or {})


def _volume(volume: Document) -> Volume:
    docker = volume.get("dockerVolumeConfiguration")
    return Volume(
        name=volume["name"],
        host_path=(volume.get("host") or {}).get("sourcePath") or None,
        docker=DockerVolume(
            scope=docker.get("scope") or "task",
            autoprovision=bool(docker.get("autoprovision")),
            driver=docker.get("driver") or "local",
            driver_opts=docker.get("driverOpts") or {},
            labels=docker.get("labels") or {},
        )
        if docker
        else None,
    )


def _check_limits(spec: TaskSpec) -> None:
    """Refuse what overrides can make of limits and no host could run; registration checks the definition's own."""
    volumes = {volume.name for volume in spec.volumes}
    for container in spec.containers:
        hard, soft = container.memory_mib, container.memory_reservation_mib
        if hard is None and soft is None and spec.memory_mib is None:
            raise ClientException(
                f"Invalid setting for container '{container.name}'. At least one of 'memory' or 'memoryReservation' "
                "must be specified."
            )
        if hard is not None and hard < _MIN_MEMORY_MIB:
            raise ClientException(
                f"Invalid 'memory' setting for container '{container.name}'. It must be at least {_MIN_MEMORY_MIB} MiB."
            )
        if hard is not None and soft is not None and soft > hard:
            raise ClientException(
                f"Invalid setting for container '{container.name}'. The 'memory' ({hard}) must not be less than "
                f"'memoryReservation' ({soft})."
            )
        if spec.memory_mib is not None and max(hard or 0, soft or 0) > spec.memory_mib:
            raise ClientException(
                f"Invalid setting for container '{container.name}'. Its memory must not be greater than the task's "
                f"({spec.memory_mib} MiB)."
            )
        for mount in container.mounts:
            if mount.volume not in volumes:
                raise ClientException(f"Unknown volume '{mount.volume}' in container '{container.name}'.")
    if spec.cpu_units is not None and (total := sum(c.cpu_units for c in spec.containers)) > spec.cpu_units:
        raise ClientException(
            f"Invalid 'cpu' setting for task. The containers ask for {total} CPU units, the task for {spec.cpu_units}."
        )
