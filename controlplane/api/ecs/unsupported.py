"""What a task definition or a request may ask for that Homeport can't do, refused by name before anything is placed.

A member that would change how the task behaves is refused; one that only speaks of AWS's own machinery (task and
execution roles, platform version, ephemeral storage on Fargate) is kept and returned, without effect.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controlplane.api.errors import ClientException

__all__ = ["refuse_unsupported"]

Document = Mapping[str, Any]

_NETWORK_MODES: Final = ("bridge", "host", "none")

#: Member of a task definition -> why not.
_DEFINITION: Final = {
    "pidMode": "sharing a process namespace",
    "ipcMode": "sharing IPC resources",
    "proxyConfiguration": "App Mesh",
    "inferenceAccelerators": "Elastic Inference",
    "enableFaultInjection": "fault injection",
    "trustedExecutionConfiguration": "trusted execution",
}
_CONTAINER: Final = {
    "repositoryCredentials": "private registry credentials",
    "links": "container links",
    "environmentFiles": "environment files",
    "volumesFrom": "volumes of another container",
    "linuxParameters": "Linux parameters",
    "secrets": "secrets",
    "disableNetworking": "a container without network (use network mode none)",
    "resourceRequirements": "GPUs and other resource requirements",
    "firelensConfiguration": "FireLens",
    "credentialSpecs": "credential specifications",
}
_VOLUME: Final = {
    "efsVolumeConfiguration": "EFS volumes",
    "s3filesVolumeConfiguration": "S3 Files volumes",
    "fsxWindowsFileServerVolumeConfiguration": "FSx volumes",
    "configuredAtLaunch": "volumes configured at launch",
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
    yield from _members(document, _DEFINITION, "")
    for volume in document.get("volumes") or ():
        yield from _members(volume, _VOLUME, f"volume {volume.get('name')}: ")
    for container in document.get("containerDefinitions") or ():
        where = f"container {container.get('name')}: "
        yield from _members(container, _CONTAINER, where)
        for mapping in container.get("portMappings") or ():
            if mapping.get("containerPortRange"):
                yield f"{where}containerPortRange (port ranges) isn't supported"
        log = container.get("logConfiguration") or {}
        if log.get("secretOptions"):
            yield f"{where}logConfiguration.secretOptions (secrets) isn't supported"
        if log.get("logDriver") == "awsfirelens":
            yield f"{where}log driver awsfirelens isn't supported"


def _of_overrides(overrides: Document) -> Iterator[str]:
    if overrides.get("inferenceAcceleratorOverrides"):
        yield "overrides.inferenceAcceleratorOverrides (Elastic Inference) isn't supported"
    for override in overrides.get("containerOverrides") or ():
        yield from _members(override, _CONTAINER, f"override of container {override.get('name')}: ")


def _members(document: Document, table: Mapping[str, str], where: str) -> Iterator[str]:
    for member, what in table.items():
        if _says_something(document.get(member)):
            yield f"{where}{member} ({what}) isn't supported"


def _says_something(value: object) -> bool:
    """Tell whether a member asks for anything: empty structures, empty lists and false are as good as nothing."""
    if isinstance(value, Mapping):
        return any(_says_something(inner) for inner in value.values())
    return bool(value)
