"""Members of CreateService and UpdateService that Homeport refuses by name, each with what to do instead.

Whatever would change how tasks run or are reached, and nothing here honours, is refused; empty structures and lists,
which deploy tools send along, ask for nothing and are passed over.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controlplane.api.errors import ClientException, InvalidParameterException
from controlplane.services.isolation import isolation_problem
from controlplane.services.timing import service_tag_problem

__all__ = [
    "check_external",
    "check_rebalancing",
    "check_service_tags",
    "refuse_unsupported_members",
    "says_something",
]

Document = Mapping[str, Any]

#: Member -> why, and what to do.
_REFUSED: Final = {
    "loadBalancers": "Homeport registers tasks with no load balancer. Leave it out and let a proxy use the host ports",
    "serviceRegistries": "there is no Cloud Map here. Leave it out and find tasks by DescribeTasks",
    "serviceConnectConfiguration": "there is no Service Connect here. Leave it out or set enabled to false",
    "volumeConfigurations": "Homeport attaches no EBS volumes. Use volumes of the hosts in the task definition",
    "vpcLatticeConfigurations": "there is no VPC Lattice here. Leave it out",
    "gatewayConnectors": "there is no gateway here. Leave it out",
}

#: What a service has no say in if its deployments are driven by task sets, in ECS's words.
_NOT_EXTERNAL: Final = {
    "taskDefinition": "TaskDefinition must be blank.",
    "launchType": "LaunchType must be blank.",
    "networkConfiguration": "NetworkConfiguration must be null.",
    "platformVersion": "PlatformVersion must be blank.",
    "capacityProviderStrategy": "CapacityProviderStrategy must be blank.",
}
_ZONE: Final = "attribute:ecs.availability-zone"


def says_something(value: object) -> bool:
    """Tell whether a member asks for anything: empty structures, lists and strings, and false, don't."""
    if isinstance(value, Mapping):
        return any(says_something(inner) for inner in value.values())
    return bool(value)


def refuse_unsupported_members(request: Document, controller: str) -> None:
    """Raise InvalidParameterException, naming every member that asks for what Homeport can't do."""
    problems = list(_unsupported(request))
    if controller == "CODE_DEPLOY":
        problems.append(
            "deploymentController CODE_DEPLOY isn't supported: there is no CodeDeploy here. Use ECS, or EXTERNAL with"
            " task sets"
        )
    if problems:
        raise InvalidParameterException("; ".join(problems) + ".")


def _unsupported(request: Document) -> Iterator[str]:
    for member, why in _REFUSED.items():
        value = request.get(member)
        # Service Connect that isn't enabled may be spelled out in full.
        if member == "serviceConnectConfiguration" and value and not value["enabled"]:
            continue
        if says_something(value):
            yield f"{member} isn't supported: {why}"


def check_external(request: Document, scheduling_strategy: str, *, update: bool = False) -> None:
    """Raise InvalidParameterException for what the task sets of an EXTERNAL service have to say themselves."""
    if scheduling_strategy == "DAEMON":
        raise InvalidParameterException(
            "The DAEMON scheduling strategy is not supported with the EXTERNAL deployment controller. Use REPLICA."
        )
    for member, words in _NOT_EXTERNAL.items():
        if says_something(request.get(member)):
            raise InvalidParameterException(words)
    if update and request.get("forceNewDeployment"):
        raise InvalidParameterException(
            "Cannot force a new deployment on services with an EXTERNAL deployment controller. Use CreateTaskSet."
        )


def check_rebalancing(settings: Document, configuration: Document, scheduling_strategy: str, controller: str) -> None:
    """Raise InvalidParameterException if availabilityZoneRebalancing is ENABLED where ECS's rules exclude it."""
    if settings.get("availabilityZoneRebalancing") != "ENABLED":
        return
    problem = _rebalancing_obstacle(settings, configuration, scheduling_strategy, controller)
    if problem is not None:
        raise InvalidParameterException(f"availabilityZoneRebalancing ENABLED can't be used with {problem}.")


def _rebalancing_obstacle(
    settings: Document, configuration: Document, scheduling_strategy: str, controller: str
) -> str | None:
    """Say what keeps a service from being balanced across availability zones; None if nothing does."""
    if scheduling_strategy == "DAEMON":
        return "the DAEMON scheduling strategy"
    if controller != "ECS":
        return f"the {controller} deployment controller"
    if configuration["maximumPercent"] <= 100:
        return "a maximumPercent of 100 or less"
    first = next(iter(settings.get("placementStrategy") or ()), None)
    if first is not None and (first.get("type"), first.get("field")) != ("spread", _ZONE):
        return f"a placementStrategy that doesn't begin with spread by {_ZONE}"
    return None


def check_service_tags(tags: Mapping[str, str], definition_tags: Mapping[str, str]) -> None:
    """Raise ClientException if a `homeport:*` tag of a service has a value that can't be used.

    `definition_tags`: those of its task definition, which can ask for what other times of the service exclude.
    """
    problem = service_tag_problem(tags) or isolation_problem(tags, definition_tags)
    if problem is not None:
        raise ClientException(problem)
