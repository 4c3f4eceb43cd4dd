"""What ECS checks when a task definition is registered, in ECS's words where they are known. Pure.

Only what could never run is refused: what Homeport has no room for yet is kept, and refused by name when it is to run.
Fargate's table of cpu and memory isn't enforced: FARGATE means a Homeport host.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

import msgspec

from controlplane.api.ecs.log_shipping import AWSLOGS, awslogs_problems
from controlplane.api.ecs.units import cpu_units, gpus_of, memory_mib
from controlplane.api.errors import ClientException

__all__ = ["MAX_DEFINITION_BYTES", "check_definition"]

Document = Mapping[str, Any]

#: ECS's limit for the JSON text of a task definition.
MAX_DEFINITION_BYTES: Final = 65536
#: The least memory of a container, in MiB: Docker's.
_MIN_MEMORY_MIB: Final = 6
_MAX_CONTAINERS: Final = 10
_MAX_PORT: Final = 65535
_MAX_IGNORED_EXIT_CODES: Final = 50

_FAMILY: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,255}")
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,255}")
_IMAGE: Final = re.compile(r"[a-zA-Z0-9_./:@#-]{1,255}")

_CONTAINER_RANGES: Final = {"startTimeout": (2, None), "stopTimeout": (0, None), "cpu": (0, None)}
_HEALTH_CHECK_RANGES: Final = {"interval": (5, 300), "timeout": (2, 60), "retries": (1, 10), "startPeriod": (0, 300)}
_RESTART_RANGES: Final = {"restartAttemptPeriod": (60, 1800)}


def check_definition(request: Document) -> None:
    """Raise ClientException unless the definition could run somewhere."""
    size = len(msgspec.json.encode(request))
    if size > MAX_DEFINITION_BYTES:
        raise ClientException(
            f"The task definition is too long. Actual length: '{size}'. Max allowed length is"
            f" '{MAX_DEFINITION_BYTES}' bytes."
        )
    if not request["family"]:
        raise ClientException("Family can not be blank.")
    if not _FAMILY.fullmatch(request["family"]):
        raise ClientException(
            "Family contains invalid characters. It can have up to 255 letters, numbers, hyphens and underscores."
        )
    containers = request["containerDefinitions"]
    _check_container_list(containers)
    volumes = _volume_names(request.get("volumes", ()))
    for container in containers:
        _check_container(container, request, volumes)
    _check_host_ports(containers, request)
    _check_dependencies(containers)
    _check_task_limits(request, containers)
    for constraint in request.get("placementConstraints", ()):
        if not constraint.get("type") or not constraint.get("expression"):
            raise ClientException("placementConstraints: each needs the type memberOf and an expression.")


# ---------------------------------------------------------------- containers


def _check_container_list(containers: Sequence[Document]) -> None:
    if not containers:
        raise ClientException("Container list cannot be empty.")
    if len(containers) > _MAX_CONTAINERS:
        raise ClientException(f"Container list cannot have more than {_MAX_CONTAINERS} containers.")
    names: set[str] = set()
    for container in containers:
        name = container.get("name")
        if not name:
            raise ClientException("Container.name should not be null or empty.")
        if not _NAME.fullmatch(name):
            raise ClientException(
                f"Container.name contains invalid characters: '{name:.300}'. It can have up to 255 letters, numbers,"
                " hyphens and underscores."
            )
        if name in names:
            raise ClientException(f"Container names must be unique, but '{name}' is given to several containers.")
        names.add(name)
    if not any(container.get("essential", True) for container in containers):
        raise ClientException("Task definition doesn't have any essential container.")


def _check_container(container: Document, request: Document, volumes: frozenset[str]) -> None:
    name = container["name"]
    image = container.get("image")
    if not image:
        raise ClientException(f"Container.image should not be null or empty (container '{name}').")
    if not _IMAGE.fullmatch(image):
        raise ClientException(f"Container.image contains invalid characters: '{image:.300}' (container '{name}').")
    _check_memory(container, request)
    _check_ranges(container, _CONTAINER_RANGES, f"container '{name}'")
    for mapping in container.get("portMappings", ()):
        _check_port(mapping, name, request)
    for mount in container.get("mountPoints", ()):
        if not mount.get("sourceVolume") or not mount.get("containerPath"):
            raise ClientException(f"mountPoints of container '{name}': each needs a sourceVolume and a containerPath.")
        if mount["sourceVolume"] not in volumes:
            raise ClientException(f"Unknown volume '{mount['sourceVolume']}' in mountPoints of container '{name}'.")
    _check_needed(container, "environment", ("name",))
    _check_needed(container, "systemControls", ("namespace", "value"))
    _check_needed(container, "volumesFrom", ("sourceContainer",))
    for limit in container.get("ulimits", ()):
        if -1 != limit["hardLimit"] < limit["softLimit"]:
            raise ClientException(
                f"ulimits of container '{name}': softLimit {limit['softLimit']} of {limit['name']} is above its"
                f" hardLimit {limit['hardLimit']}."
            )
    gpus_of(container.get("resourceRequirements"), name)
    _check_health_check(container)
    _check_restart_policy(container)
    _check_log(container)


def _check_memory(container: Document, request: Document) -> None:
    name, hard, soft = container["name"], container.get("memory"), container.get("memoryReservation")
    if hard is None and soft is None and not request.get("memory"):
        raise ClientException(
            f"Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be"
            " specified."
        )
    for member, value in (("memory", hard), ("memoryReservation", soft)):
        if value is not None and value < _MIN_MEMORY_MIB:
            raise ClientException(
                f"Invalid '{member}' setting for container '{name}'. It must be at least {_MIN_MEMORY_MIB} MiB, but is"
                f" {value}."
            )
    if hard is not None and soft is not None and hard < soft:
        raise ClientException(
            f"Invalid setting for container '{name}'. The 'memory' value ({hard}) must not be less than"
            f" 'memoryReservation' ({soft})."
        )


def _check_health_check(container: Document) -> None:
    check = container.get("healthCheck")
    if check is None:
        return
    where = f"healthCheck of container '{container['name']}'"
    if not check["command"]:
        raise ClientException(f"{where}: the command must not be empty.")
    if check["command"][0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise ClientException(f"{where}: the command must begin with CMD, CMD-SHELL or NONE.")
    if check["command"][0] != "NONE" and len(check["command"]) < 2:
        raise ClientException(f"{where}: nothing follows {check['command'][0]} in the command.")
    _check_ranges(check, _HEALTH_CHECK_RANGES, where)


def _check_restart_policy(container: Document) -> None:
    policy = container.get("restartPolicy")
    if policy is None:
        return
    where = f"restartPolicy of container '{container['name']}'"
    _check_ranges(policy, _RESTART_RANGES, where)
    codes = policy.get("ignoredExitCodes", ())
    if len(codes) > _MAX_IGNORED_EXIT_CODES:
        raise ClientException(f"{where}: ignoredExitCodes can have at most {_MAX_IGNORED_EXIT_CODES} items.")


def _check_log(container: Document) -> None:
    log = container.get("logConfiguration") or {}
    if log.get("logDriver") == AWSLOGS:
        for problem in awslogs_problems(log):
            raise ClientException(f"{problem} (container '{container['name']}').")


def _check_needed(container: Document, member: str, needed: Sequence[str]) -> None:
    """Entries whose parts the model leaves optional and nothing can do without."""
    for entry in container.get(member, ()):
        if lacking := [part for part in needed if not entry.get(part)]:
            raise ClientException(f"{member} of container '{container['name']}': each entry needs a {lacking[0]}.")


def _check_ranges(document: Document, ranges: Mapping[str, tuple[int, int | None]], where: str) -> None:
    for member, (low, high) in ranges.items():
        value = document.get(member)
        if value is None or (low <= value and (high is None or value <= high)):
            continue
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ClientException(f"Invalid '{member}' setting for {where}. It must be {allowed}, but is {value}.")


# ---------------------------------------------------------------- ports


def _check_port(mapping: Document, container: str, request: Document) -> None:
    where = f"portMappings of container '{container}'"
    mode = request.get("networkMode", "bridge")
    if mode == "none":
        raise ClientException(f"{where}: ports can't be mapped when networkMode=none.")
    if "containerPortRange" in mapping:
        return
    port, host_port = mapping.get("containerPort"), mapping.get("hostPort", 0)
    if port is None or not 1 <= port <= _MAX_PORT:
        raise ClientException(f"{where}: invalid containerPort {port}. It must be between 1 and {_MAX_PORT}.")
    if not 0 <= host_port <= _MAX_PORT:
        raise ClientException(f"{where}: invalid hostPort {host_port}. It must be between 0 and {_MAX_PORT}.")
    if mode in ("host", "awsvpc") and host_port not in (0, port):
        raise ClientException(
            f"When networkMode={mode}, the host ports and container ports in port mappings must match"
            f" ({where}: hostPort {host_port}, containerPort {port})."
        )


def _check_host_ports(containers: Sequence[Document], request: Document) -> None:
    """Two containers of one task can't have the same port of the host."""
    fixed = request.get("networkMode", "bridge") in ("host", "awsvpc")
    taken: dict[tuple[str, int], str] = {}
    for container in containers:
        for mapping in container.get("portMappings", ()):
            port = mapping.get("hostPort") or (mapping.get("containerPort", 0) if fixed else 0)
            key = (mapping.get("protocol", "tcp"), port)
            if not port:
                continue
            if key in taken:
                raise ClientException(
                    f"portMappings: the host port {port}/{key[0]} is asked for more than once (containers"
                    f" '{taken[key]}' and '{container['name']}')."
                )
            taken[key] = container["name"]


# ---------------------------------------------------------------- the task


def _volume_names(volumes: Sequence[Document]) -> frozenset[str]:
    names: set[str] = set()
    for volume in volumes:
        name = volume.get("name", "")
        if not _VOLUME_NAME.fullmatch(name):
            raise ClientException(
                f"volumes: invalid name '{name:.300}'. It must have 1 to 255 letters, numbers, hyphens and underscores."
            )
        if name in names:
            raise ClientException(f"volumes: the name '{name}' is given more than once.")
        if volume.get("host", {}).get("sourcePath") and "dockerVolumeConfiguration" in volume:
            raise ClientException(f"volumes: '{name}' has both a host path and a dockerVolumeConfiguration.")
        names.add(name)
    return frozenset(names)


def _check_dependencies(containers: Sequence[Document]) -> None:
    by_name = {container["name"]: container for container in containers}
    for name, needed, condition in _dependencies(containers):
        if needed not in by_name:
            raise ClientException(f"dependsOn of container '{name}' names '{needed}', which isn't in the definition.")
        if needed == name:
            raise ClientException(f"dependsOn of container '{name}' names the container itself.")
        other = by_name[needed]
        if condition in ("SUCCESS", "COMPLETE") and other.get("essential", True):
            raise ClientException(
                "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container"
                f" ('{name}' depends on '{needed}')."
            )
        if condition == "HEALTHY" and "healthCheck" not in other:
            raise ClientException(
                "A dependency container with HEALTHY condition must have a health check"
                f" ('{name}' depends on '{needed}')."
            )
    graph: dict[str, set[str]] = {name: set() for name in by_name}
    for name, needed, _ in _dependencies(containers):
        graph[name].add(needed)
    for container in containers:
        graph[container["name"]] |= {v["sourceContainer"] for v in container.get("volumesFrom", ())} & set(by_name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise ClientException(
            f"The containers depend on each other in a cycle: {' -> '.join(error.args[1])}."
        ) from error


def _dependencies(containers: Sequence[Document]) -> Iterator[tuple[str, str, str]]:
    for container in containers:
        for dependency in container.get("dependsOn", ()):
            yield container["name"], dependency["containerName"], dependency["condition"]


def _check_task_limits(request: Document, containers: Sequence[Document]) -> None:
    if request.get("cpu"):
        units = cpu_units(request["cpu"])
        if sum(container.get("cpu", 0) for container in containers) > units:
            raise ClientException(
                "Invalid 'cpu' setting for task. The sum of all container 'cpu' values cannot be greater than the value"
                f" of the task 'cpu' ({units})."
            )
    if request.get("memory"):
        mib = memory_mib(request["memory"])
        for container in containers:
            asked = max(container.get("memory", 0), container.get("memoryReservation", 0))
            if asked > mib:
                raise ClientException(
                    f"Invalid setting for container '{container['name']}'. Its memory ({asked} MiB) must not be greater"
                    f" than the task's ({mib} MiB)."
                )
        if sum(container.get("memoryReservation", 0) for container in containers) > mib:
            raise ClientException(
                "Invalid 'memory' setting for task. The sum of all container 'memoryReservation' values cannot be"
                f" greater than the value of the task 'memory' ({mib})."
            )
