"""How events are shown: one line each, with when, what kind, which, what it is now, and why."""

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from homeport.cli.output import is_coloured, mib, moment, short_id, vcpu

__all__ = ["DETAIL_TYPES", "Line", "line_of", "says_again", "show"]

#: Kind -> its colour.
_COLOURS: Final = {"task": 36, "instance": 35, "deployment": 34, "service": 33}
_GOOD: Final = 32
_WARNING: Final = 33
_BAD: Final = 31
#: Kind -> the detail types that it is short for.
DETAIL_TYPES: Final = {
    "task": ("ECS Task State Change",),
    "instance": ("ECS Container Instance State Change",),
    "deployment": ("ECS Deployment State Change",),
    "service": ("ECS Service Action", "Homeport Service Action"),
}
_KINDS: Final = {name: kind for kind, names in DETAIL_TYPES.items() for name in names}
#: Service actions that are changes of deployments, too.
_TWICE: Final = frozenset(f"SERVICE_DEPLOYMENT_{state}" for state in ("IN_PROGRESS", "COMPLETED", "FAILED"))
_OF_TYPE: Final = {"WARN": _WARNING, "ERROR": _BAD}
_KIND_WIDTH: Final = 10
_NAMED: Final = 3


class Line(NamedTuple):
    """What is shown of an event. `colour`: that of `state`, None for none."""

    at: str
    kind: str
    which: str
    state: str
    why: str = ""
    colour: int | None = None


def line_of(event: dict[str, Any]) -> Line:
    """Return the line of an EventBridge document."""
    detail = event["detail"]
    kind = _KINDS.get(event["detail-type"], "")
    at = _local(detail.get("updatedAt") or detail.get("createdAt") if kind else None) or _local(event["time"])
    match kind:
        case "task":
            return _task(at, detail)
        case "instance":
            return _instance(at, detail)
        case "deployment" | "service":
            name = event["resources"][0].rsplit("/", 1)[-1]
            state = detail["eventName"].removeprefix("SERVICE_DEPLOYMENT_" if kind == "deployment" else "SERVICE_")
            colour = _OF_TYPE.get(detail["eventType"], _GOOD if state in ("COMPLETED", "STEADY_STATE") else None)
            return Line(at, kind, name, state, " ".join(_service_words(detail)), colour)
        case _:
            return Line(at, event["source"], " ".join(event["resources"]), event["detail-type"])


def says_again(event: dict[str, Any]) -> bool:
    """Tell whether an event says the same as another one: a service action that is a change of a deployment, too."""
    return event["detail-type"] == "ECS Service Action" and event["detail"]["eventName"] in _TWICE


def show(line: Line) -> None:
    """Print a line on standard output; in colours if that is a terminal."""
    kind, state = f"{line.kind:{_KIND_WIDTH}}", line.state
    if is_coloured(sys.stdout):
        kind = f"\x1b[{_COLOURS.get(line.kind, 37)}m{kind}\x1b[0m"
        state = state if line.colour is None else f"\x1b[{line.colour}m{state}\x1b[0m"
    parts = [line.at, kind, line.which, state, line.why]
    sys.stdout.write("  ".join(part for part in parts if part) + "\n")
    sys.stdout.flush()


def _local(text: Any) -> str:
    return "" if text is None else moment(datetime.fromisoformat(str(text)).timestamp())


def _task(at: str, detail: dict[str, Any]) -> Line:
    group, status, desired = detail["group"], detail["lastStatus"], detail["desiredStatus"]
    family = detail["taskDefinitionArn"].rpartition("/")[2]
    name = group.removeprefix("service:") if group.startswith("service:") else family
    state = status if desired in (status, "RUNNING") else f"{status}, to be {desired}"
    failed = any(container.get("exitCode") or container.get("reason") for container in detail["containers"])
    colour = _GOOD if state == "RUNNING" else _BAD if status == "STOPPED" and failed else None
    return Line(at, "task", f"{name}/{short_id(detail['taskArn'])}", state, "; ".join(_task_words(detail)), colour)


def _task_words(detail: dict[str, Any]) -> Iterator[str]:
    if reason := detail.get("stoppedReason"):
        yield f"{detail['stopCode']}: {reason}" if detail.get("stopCode") else reason
    for container in detail["containers"]:
        words = [f"exit {container['exitCode']}"] if "exitCode" in container else []
        words += [container["reason"]] if container.get("reason") else []
        words += ["unhealthy"] if container.get("healthStatus") == "UNHEALTHY" else []
        if words:
            yield f"{container['name']}: {', '.join(words)}"
    if detail.get("connectivity") == "DISCONNECTED" and detail["lastStatus"] != "STOPPED":
        yield "its host is disconnected"
    elif detail["lastStatus"] in ("PENDING", "RUNNING") and "containerInstanceArn" in detail:
        yield f"on {short_id(detail['containerInstanceArn'])}"


def _instance(at: str, detail: dict[str, Any]) -> Line:
    state = "connected" if detail["agentConnected"] else "disconnected"
    if detail["status"] != "ACTIVE":
        state = f"{detail['status']}, {state}"
    left = {resource["name"]: resource.get("integerValue", 0) for resource in detail["remainingResources"]}
    why = f"{vcpu(left['CPU'])} vCPU and {mib(left['MEMORY'])} left"
    if detail.get("statusReason"):
        why = f"{detail['statusReason']}; {why}"
    colour = _GOOD if state == "connected" else _WARNING
    return Line(at, "instance", short_id(detail["containerInstanceArn"]), state, why, colour)


def _service_words(detail: dict[str, Any]) -> Iterator[str]:
    if reason := detail.get("reason"):
        yield str(reason)
        return
    if "desiredCount" in detail:
        yield f"to {detail['desiredCount']}"
    tasks = [short_id(arn) for arn in detail.get("taskArns", ())]
    if tasks:
        more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
        yield " ".join(tasks[:_NAMED]) + more
    for member in ("taskSetArns", "capacityProviderArns"):
        yield from (arn.rpartition("/")[2] for arn in detail.get(member, ()))
