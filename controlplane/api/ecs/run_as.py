"""How tasks are run, as ECS shows it of services, deployments, revisions and task sets alike. Rendering only."""

from typing import Any, Final

from controlplane.context import Context
from controlplane.state.records import TaskDefinitionRecord

__all__ = ["run_as"]

Document = dict[str, Any]

#: What is shown if it was given.
_CAPACITY: Final = ("launchType", "capacityProviderStrategy", "platformVersion", "networkConfiguration")


def run_as(context: Context, definition: str, document: Document) -> Document:
    """Return `taskDefinition`, and what a deployment, revision or task set shows of how its tasks are run.

    `definition`: `family:revision`. `document`: the ECS members as given. For FARGATE the platform is shown, too.
    """
    family, _, number = definition.rpartition(":")
    view: Document = {"taskDefinition": context.arns.task_definition(family, int(number))}
    view |= {member: document[member] for member in _CAPACITY if member in document}
    if document.get("launchType") == "FARGATE":
        view.setdefault("platformVersion", "LATEST")
        view["platformFamily"] = _platform_family(context.state.task_definitions.get(definition))
    return view


def _platform_family(definition: TaskDefinitionRecord | None) -> str:
    platform = (definition.document.get("runtimePlatform") or {}) if definition is not None else {}
    family: str = platform.get("operatingSystemFamily") or "LINUX"
    return "Linux" if family == "LINUX" else family
