"""What a task definition or its overrides may ask for that Homeport can't do, refused by name before it is placed.

Every member is one of three: honoured (`task_spec` and placement read it), passed over, or refused. A member that would
change how the task behaves is never passed over; one that speaks of AWS's own machinery only (roles, platform versions,
Fargate's storage) is kept and returned, without effect. What this module doesn't know, such as a member that a newer
botocore brings, is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controlplane.api.errors import ClientException

__all__ = ["PASSED_OVER", "refuse_unsupported"]

Document = Mapping[str, Any]

_NETWORK_MODES: Final = ("bridge", "host", "none")

#: Read by `task_spec` and placement.
_TASK: Final = frozenset(
    [
        "containerDefinitions",
        "cpu",
        "family",
        "memory",
        "networkMode",
        "placementConstraints",
        "runtimePlatform",
        "volumes",
    ]
)
_CONTAINER: Final = frozenset(
    [
        "command",
        "cpu",
        "dependsOn",
        "dnsSearchDomains",
        "dnsServers",
        "dockerLabels",
        "dockerSecurityOptions",
        "entryPoint",
        "environment",
        "essential",
        "extraHosts",
        "healthCheck",
        "hostname",
        "image",
        "interactive",
        "logConfiguration",
        "memory",
        "memoryReservation",
        "mountPoints",
        "name",
        "portMappings",
        "privileged",
        "pseudoTerminal",
        "readonlyRootFilesystem",
        "resourceRequirements",
        "restartPolicy",
        "startTimeout",
        "stopTimeout",
        "systemControls",
        "ulimits",
        "user",
        "workingDirectory",
    ]
)
_VOLUME: Final = frozenset(["dockerVolumeConfiguration", "host", "name"])
_PORT: Final = frozenset(["containerPort", "hostPort", "name", "protocol"])
_LOG: Final = frozenset(["logDriver", "options"])
_REQUIREMENT: Final = frozenset(["type", "value"])
_OVERRIDES: Final = frozenset(["containerOverrides", "cpu", "memory"])
_CONTAINER_OVERRIDE: Final = frozenset(
    ["command", "cpu", "environment", "memory", "memoryReservation", "name", "resourceRequirements"]
)

#: Member -> why it has no effect here. Registration's own bookkeeping is among them.
PASSED_OVER: Final = {
    "appProtocol": "for Service Connect only",
    "compatibilities": "what registration found",
    "ephemeralStorage": "Fargate's disk; a host's own disk is not divided",
    "executionRoleArn": "there is no IAM",
    "requiresAttributes": "what registration found",
    "requiresCompatibilities": "every launch type means a Homeport host",
    "taskRoleArn": "there is no IAM",
    "versionConsistency": "each host resolves the image's tag when it pulls",
}

#: What refused members are, in words; those that aren't here are named without.
_WORDS: Final = {
    "configuredAtLaunch": "volumes configured at launch",
    "containerPortRange": "port ranges",
    "credentialSpecs": "credential specifications",
    "disableNetworking": "a container without network: use networkMode none",
    "efsVolumeConfiguration": "EFS volumes",
    "enableFaultInjection": "fault injection",
    "environmentFiles": "environment files",
    "firelensConfiguration": "FireLens",
    "fsxWindowsFileServerVolumeConfiguration": "FSx volumes",
    "inferenceAccelerators": "Elastic Inference",
    "ipcMode": "sharing IPC resources",
    "links": "container links",
    "linuxParameters": "Linux parameters",
    "pidMode": "sharing a process namespace",
    "proxyConfiguration": "App Mesh",
    "repositoryCredentials": "private registry credentials",
    "secretOptions": "secrets",
    "secrets": "secrets",
    "volumesFrom": "volumes of another container",
}


def refuse_unsupported(document: Document, overrides: Document) -> None:
    """Raise ClientException, naming every member of a definition or its overrides that Homeport can't honour."""
    problems = [*_of_definition(document), *_of_overrides(overrides)]
    if problems:
        raise ClientException("Homeport can't run this task definition: " + "; ".join(problems) + ".")


def _of_definition(document: Document) -> Iterator[str]:
    mode = document.get("networkMode") or "bridge"
    if mode not in _NETWORK_MODES:
        yield f"networkMode {mode} isn't supported, use {', '.join(_NETWORK_MODES)}"
    yield from _beyond(document, _TASK, "")
    for volume in document.get("volumes") or ():
        yield from _beyond(volume, _VOLUME, f"volume {volume.get('name')}: ")
    for container in document.get("containerDefinitions") or ():
        yield from _of_container(container, f"container {container.get('name')}: ")


def _of_container(container: Document, where: str) -> Iterator[str]:
    yield from _beyond(container, _CONTAINER, where)
    for mapping in container.get("portMappings") or ():
        yield from _beyond(mapping, _PORT, f"{where}portMappings.")
    log = container.get("logConfiguration") or {}
    yield from _beyond(log, _LOG, f"{where}logConfiguration.")
    if log.get("logDriver") == "awsfirelens":
        yield f"{where}log driver awsfirelens (FireLens) isn't supported"
    yield from _of_requirements(container, where)


def _of_requirements(document: Document, where: str) -> Iterator[str]:
    for requirement in document.get("resourceRequirements") or ():
        yield from _beyond(requirement, _REQUIREMENT, f"{where}resourceRequirements.")
        if requirement.get("type") != "GPU":
            yield f"{where}resourceRequirements of type {requirement.get('type')} aren't supported"


def _of_overrides(overrides: Document) -> Iterator[str]:
    yield from _beyond(overrides, _OVERRIDES, "overrides.")
    for override in overrides.get("containerOverrides") or ():
        where = f"override of container {override.get('name')}: "
        yield from _beyond(override, _CONTAINER_OVERRIDE, where)
        yield from _of_requirements(override, where)


def _beyond(document: Document, honoured: frozenset[str], where: str) -> Iterator[str]:
    """Name the members that ask for something and are neither honoured nor passed over."""
    for member, value in document.items():
        if member in honoured or member in PASSED_OVER or not _says_something(value):
            continue
        words = f" ({_WORDS[member]})" if member in _WORDS else ""
        yield f"{where}{member}{words} isn't supported"


def _says_something(value: object) -> bool:
    """Tell whether a member asks for anything: empty structures, empty lists and false are as good as nothing."""
    if isinstance(value, Mapping):
        return any(_says_something(inner) for inner in value.values())
    return bool(value)
