"""From a task's spec to what the Engine is asked for: names, labels, create bodies and volumes. Pure.

The rules are those of ECS and its agent: `cpu` is relative shares with Docker's minimum of 2, `memory` a hard limit,
`memoryReservation` a soft one, ports are published in bridge mode only, and our labels are written over the user's.
Names are derived from the task, so that a container made just before a crash is found again.

Docker's restart policy is always "no": restarts are the agent's, which must see every exit.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.engine.api import ContainerPlan
from agent.engine.errors import Rejected
from homeport.ids import InstanceId, TaskId
from homeport.spec import ContainerSpec, HealthCheck, LogConfiguration, LogShipping, TaskSpec, Volume

__all__ = [
    "CPU_PERIOD_US",
    "CPU_UNITS_PER_CORE",
    "IDENTITY_LABELS",
    "LABEL_CONTAINER",
    "LABEL_INSTANCE",
    "LABEL_TASK",
    "MIN_CPU_SHARES",
    "VolumePlan",
    "container_name",
    "container_plan",
    "cpu_quota_us",
    "labels",
    "owner_labels",
    "volume_plans",
]

LABEL_INSTANCE: Final = "homeport.instance"
LABEL_TASK: Final = "homeport.task"
LABEL_CONTAINER: Final = "homeport.container"
#: What makes a container ours, and which one it is.
IDENTITY_LABELS: Final = (LABEL_INSTANCE, LABEL_TASK, LABEL_CONTAINER)

#: ECS: 1,024 units are one vCPU.
CPU_UNITS_PER_CORE: Final = 1024
#: Docker and the kernel take no fewer shares; ECS passes cpu 0 and 1 as 2.
MIN_CPU_SHARES: Final = 2
#: The kernel's default CFS period, which ECS uses for task limits.
CPU_PERIOD_US: Final = 100_000
#: The kernel takes no smaller CFS quota.
_MIN_CPU_QUOTA_US: Final = 1000

_MIB: Final = 1024 * 1024
_NS: Final = 1_000_000_000

#: Longest part of a derived name that is kept as it is; longer ones are cut and told apart by a hash.
_PART_MAX: Final = 48
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")

#: Without logConfiguration: Docker's own driver, but bounded, so that a talkative container can't fill the disk.
_DEFAULT_LOG_DRIVER: Final = "json-file"
_FILE_LOG_OPTIONS: Final[Mapping[str, str]] = {"max-size": "10m", "max-file": "3"}
#: Drivers that write to a local file or nowhere: blocking loses nothing there. For all others ECS's default holds: a
#: log service that is slow or gone must not stop the container.
_LOCAL_LOG_DRIVERS: Final = frozenset({"json-file", "local", "journald", "none"})
_REMOTE_LOG_OPTIONS: Final[Mapping[str, str]] = {"mode": "non-blocking", "max-buffer-size": "10m"}
#: The files that output is shipped from: all there is to bridge an outage of the control plane. 64 MB are a day of
#: eight lines a second, and a rotation takes a quarter of it. Not compressed: the agent reads them, and dockerd would
#: spend the host's CPU for it.
_SPOOL_OPTIONS: Final[Mapping[str, str]] = {"max-size": "16m", "max-file": "4"}

#: What NVIDIA's container runtime goes by; set as the ECS agent does.
_VISIBLE_GPUS: Final = "NVIDIA_VISIBLE_DEVICES"


class VolumePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A Docker volume that a task needs.

    `create` False: it must be there already (shared without autoprovision).
    `remove_with_task`: its life is the task's.
    """

    volume: str
    name: str
    create: bool
    remove_with_task: bool
    driver: str
    options: dict[str, str]
    labels: dict[str, str]


def container_name(task: TaskSpec, task_id: TaskId, container_name: str) -> str:
    """Return the Engine's name for a container of a task: the same each time, and no other task's."""
    return _derived_name(task, task_id, container_name)


def owner_labels(owner: InstanceId) -> dict[str, str]:
    """Return the labels that select everything this host's agent has made."""
    return {LABEL_INSTANCE: owner}


def labels(task_id: TaskId, task: TaskSpec, container: ContainerSpec, *, owner: InstanceId) -> dict[str, str]:
    """Return a container's labels: the user's, and over them ECS's and our own."""
    return container.docker_labels | {
        "com.amazonaws.ecs.cluster": task.cluster,
        "com.amazonaws.ecs.container-name": container.name,
        "com.amazonaws.ecs.task-arn": task.task_arn,
        "com.amazonaws.ecs.task-definition-family": task.family,
        "com.amazonaws.ecs.task-definition-version": str(task.revision),
        LABEL_INSTANCE: owner,
        LABEL_TASK: task_id,
        LABEL_CONTAINER: container.name,
    }


def cpu_quota_us(cpu_units: int) -> int:
    """Return the CFS quota over CPU_PERIOD_US, in microseconds, that is a hard limit of `cpu_units`."""
    return max(_MIN_CPU_QUOTA_US, cpu_units * CPU_PERIOD_US // CPU_UNITS_PER_CORE)


def container_plan(
    task_id: TaskId,
    task: TaskSpec,
    container: ContainerSpec,
    *,
    owner: InstanceId,
    cgroup_parent: str | None,
    log_drivers: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    gpu_ids: tuple[str, ...] = (),
) -> ContainerPlan:
    """Return what to create for a container of a task.

    `cgroup_parent`: the task's cgroup (`agent.cgroups`), None if there is none; then a task's own cpu and memory limit
    each of its containers. `log_drivers`: those the Engine has, empty if not known. `environment`: variables of the
    agent's own, written over the user's. `gpu_ids`: the GPUs that are this container's alone.
    Raises Rejected for what the Engine is known to refuse.
    """
    env = container.environment | dict(environment or {})
    if gpu_ids:
        env[_VISIBLE_GPUS] = ",".join(gpu_ids)
    config: dict[str, Any] = {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "StopTimeout": container.stop_timeout_s,
        "Tty": container.pseudo_terminal,
        "OpenStdin": container.interactive,
        "HostConfig": _host_config(task_id, task, container, cgroup_parent=cgroup_parent, log_drivers=log_drivers),
    }
    if gpu_ids:
        config["HostConfig"]["DeviceRequests"] = [
            {"Driver": "nvidia", "DeviceIDs": list(gpu_ids), "Capabilities": [["gpu"]]}
        ]
    if container.command is not None:
        config["Cmd"] = list(container.command)
    if container.entry_point is not None:
        config["Entrypoint"] = list(container.entry_point)
    if container.user:
        config["User"] = container.user
    if container.working_directory:
        config["WorkingDir"] = container.working_directory
    if container.hostname:
        config["Hostname"] = container.hostname
    if container.health_check is not None:
        config["Healthcheck"] = _health_check(container.health_check)
    if task.network_mode == "bridge" and container.ports:
        config["ExposedPorts"] = {f"{port.container_port}/{port.protocol}": {} for port in container.ports}
    return ContainerPlan(
        name=container_name(task, task_id, container.name),
        labels=labels(task_id, task, container, owner=owner),
        body=config,
    )


def volume_plans(task_id: TaskId, task: TaskSpec, *, owner: InstanceId) -> tuple[VolumePlan, ...]:
    """Return the Docker volumes a task needs, in the order of its definition. Host paths are not among them."""
    ours = {LABEL_INSTANCE: owner, LABEL_TASK: task_id}
    plans = []
    for volume in task.volumes:
        if volume.host_path is not None:
            continue
        docker = volume.docker
        shared = docker is not None and docker.scope == "shared"
        plans.append(
            VolumePlan(
                volume=volume.name,
                name=_volume_source(task_id, task, volume),
                create=docker is None or not shared or docker.autoprovision,
                remove_with_task=not shared,
                driver=docker.driver if docker else "local",
                options=dict(docker.driver_opts) if docker else {},
                # A shared volume outlives its task and may be another's: it carries the user's labels only.
                labels=(dict(docker.labels) if docker else {}) | ({} if shared else ours),
            )
        )
    return tuple(plans)


# ---------------------------------------------------------------- parts


def _host_config(
    task_id: TaskId,
    task: TaskSpec,
    container: ContainerSpec,
    *,
    cgroup_parent: str | None,
    log_drivers: tuple[str, ...],
) -> dict[str, Any]:
    host: dict[str, Any] = {
        "NetworkMode": task.network_mode,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _log_config(task_id, container, log_drivers),
        "Privileged": container.privileged,
        "ReadonlyRootfs": container.read_only_root,
        **_resources(task, container, cgroup_parent),
    }
    if cgroup_parent is not None:
        host["CgroupParent"] = cgroup_parent
    if task.network_mode == "bridge" and container.ports:
        host["PortBindings"] = _port_bindings(container)
    if container.mounts:
        host["Binds"] = _binds(task_id, task, container)
    if container.dns_servers:
        host["Dns"] = list(container.dns_servers)
    if container.dns_search_domains:
        host["DnsSearch"] = list(container.dns_search_domains)
    if container.extra_hosts:
        host["ExtraHosts"] = list(container.extra_hosts)
    if container.docker_security_options:
        host["SecurityOpt"] = list(container.docker_security_options)
    if container.ulimits:
        host["Ulimits"] = [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in container.ulimits]
    if container.sysctls:
        host["Sysctls"] = dict(container.sysctls)
    return host


def _resources(task: TaskSpec, container: ContainerSpec, cgroup_parent: str | None) -> dict[str, int]:
    """Limits of one container.

    A container without a memory limit gets its task's: under a task cgroup it could use that much at most anyway, and
    only its own limit is visible inside. Without a task cgroup this, and the task's cpu as a quota, is all the hard
    limit there is: each container is held to the task's figures, but not their sum.
    """
    resources = {"CpuShares": max(MIN_CPU_SHARES, container.cpu_units)}
    memory_mib = container.memory_mib or task.memory_mib
    if memory_mib is not None:
        resources["Memory"] = memory_mib * _MIB
        # Equal to Memory: no swap on top. Docker's default would grant the same amount again.
        resources["MemorySwap"] = memory_mib * _MIB
    if container.memory_reservation_mib:
        # Docker refuses a soft limit above the hard one.
        resources["MemoryReservation"] = (
            min(container.memory_reservation_mib, memory_mib or container.memory_reservation_mib) * _MIB
        )
    if cgroup_parent is None and task.cpu_units is not None:
        resources["CpuPeriod"] = CPU_PERIOD_US
        resources["CpuQuota"] = cpu_quota_us(task.cpu_units)
    return resources


def _port_bindings(container: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in container.ports:
        # Host port 0: the Engine picks one from its dynamic range.
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append({"HostPort": str(port.host_port)})
    return bindings


def _binds(task_id: TaskId, task: TaskSpec, container: ContainerSpec) -> list[str]:
    volumes = {volume.name: volume for volume in task.volumes}
    binds = []
    for mount in container.mounts:
        volume = volumes.get(mount.volume)
        if volume is None:
            raise Rejected(f"mountPoints of container {container.name} name an unknown volume: {mount.volume}")
        source = _volume_source(task_id, task, volume)
        for path in (source, mount.container_path):
            if ":" in path:
                raise Rejected(f"volume {volume.name}: a path must not contain a colon: {path}")
        binds.append(f"{source}:{mount.container_path}" + (":ro" if mount.read_only else ""))
    return binds


def _volume_source(task_id: TaskId, task: TaskSpec, volume: Volume) -> str:
    """What a bind names: the host's path, a shared volume under its own name, or a volume of this task alone."""
    if volume.host_path is not None:
        return volume.host_path
    if volume.docker is not None and volume.docker.scope == "shared":
        return volume.name
    return _derived_name(task, task_id, volume.name)


def _health_check(check: HealthCheck) -> dict[str, Any]:
    return {
        "Test": list(check.command),
        "Interval": check.interval_s * _NS,
        "Timeout": check.timeout_s * _NS,
        "Retries": check.retries,
        "StartPeriod": check.start_period_s * _NS,
    }


def _log_config(task_id: TaskId, container: ContainerSpec, log_drivers: tuple[str, ...]) -> dict[str, Any]:
    if container.log is None and container.shipping is not None:
        return {"Type": _DEFAULT_LOG_DRIVER, "Config": _spool_options(container.shipping)}
    log = container.log or LogConfiguration(driver=_DEFAULT_LOG_DRIVER)
    if log_drivers and log.driver not in log_drivers and log.driver != "none":
        raise Rejected(
            f"logConfiguration of container {container.name}: this host's Docker Engine has no log driver "
            f"{log.driver!r}; it has {', '.join(sorted(log_drivers))}"
        )
    options = dict(log.options)
    if log.driver == "json-file":
        options = {**_FILE_LOG_OPTIONS, **options}
    elif log.driver not in _LOCAL_LOG_DRIVERS:
        options = {**_REMOTE_LOG_OPTIONS, **options}
        if options["mode"] != "non-blocking" and "max-buffer-size" not in log.options:
            del options["max-buffer-size"]
    if (prefix := options.pop("awslogs-stream-prefix", None)) is not None:
        # ECS's own option; Docker's driver knows only the whole name of the stream.
        options["awslogs-stream"] = f"{prefix}/{container.name}/{task_id}"
    return {"Type": log.driver, "Config": options}


def _spool_options(shipping: LogShipping) -> dict[str, str]:
    """Return the options of the files that output is shipped from. Who mustn't wait for them has Docker's buffer."""
    options = {**_SPOOL_OPTIONS, "mode": shipping.mode}
    if shipping.mode == "non-blocking":
        options["max-buffer-size"] = shipping.max_buffer_size
    return options


def _derived_name(task: TaskSpec, task_id: TaskId, part: str) -> str:
    return f"homeport-{_cut(task.family)}-{task.revision}-{_cut(part)}-{task_id}"


def _cut(part: str) -> str:
    """Return `part` fit for a name; what had to change is told apart by a hash of the whole."""
    clean = _NOT_IN_NAMES.sub("-", part)
    if clean == part and len(part) <= _PART_MAX:
        return part
    return f"{clean[:_PART_MAX]}-{hashlib.sha256(part.encode()).hexdigest()[:8]}"
