"""The requests of a simulated cluster's users, drawn beforehand.

Documents are those of the ECS API, but for references to what only a run knows:

    {"$task": 3}          the ARN of the third task that the clients know of (counted round), if any
    {"$host": "host-1"}   the ARN of the container instance that this machine is registered as
    {"$deployment": "s0"} the ARN of the newest service deployment of this service

Images are named after how their containers behave (`behaviour`).
"""

import random
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["IMAGES", "OPERATIONS", "REFERENCES", "requests"]

REFERENCES: Final = ("$task", "$host", "$deployment")

#: How often each is drawn. What runs comes first: trouble needs something to hit.
IMAGES: Final = {
    "steady": 10,
    "exits-0": 2,
    "exits-7-after-30s": 2,
    "crashes-often": 1,
    "slow-start": 1,
    "ignores-sigterm": 2,
    "unhealthy-after-60s": 1,
    "flaps": 1,
    "oom": 1,
    "refuses": 1,
    "absent": 1,
    "slow-pull": 2,
    "needs-two-pulls": 1,
}
_FAMILIES: Final = ("f0", "f1", "f2", "f3")
_SERVICES: Final = ("s0", "s1", "s2")

_Document = dict[str, Any]
_Request = tuple[float, str, _Document]


def requests(chance: random.Random, seed: int, hosts: list[str], *, count: int, until_s: float) -> Iterator[_Request]:
    """Yield (second, operation, document): definitions first, then `count` requests until `until_s`."""
    for number, family in enumerate(_FAMILIES[: chance.randint(2, 4)]):
        yield round(1 + number * 0.1, 3), "RegisterTaskDefinition", _definition(chance, family)
    yield 2.0, "CreateService", _create_service(chance, "s0")
    operations, weights = list(_DRAWS), [weight for weight, _ in _DRAWS.values()]
    for number in range(count):
        operation = chance.choices(operations, weights)[0]
        document = _DRAWS[operation][1](chance, hosts)
        if operation in _WITH_TOKEN:
            # As SDKs do by themselves; `startedBy` shows a check which tasks a request has made.
            document["clientToken"] = f"token-{seed}-{number}"
        if operation == "RunTask":
            document["startedBy"] = f"run-{seed}-{number}"
        yield round(chance.uniform(3, until_s), 3), operation, document


# ---------------------------------------------------------------- task definitions


def _definition(chance: random.Random, family: str) -> _Document:
    image = chance.choices(list(IMAGES), list(IMAGES.values()))[0]
    main: _Document = {
        "name": "app",
        "image": image,
        "memory": chance.choice([64, 64, 128, 256]),
        "cpu": chance.choice([0, 64, 256]),
        "stopTimeout": chance.choice([2, 5, 30]),
    }
    if chance.random() < 0.3 or image in ("unhealthy-after-60s", "flaps"):
        main["healthCheck"] = {
            "command": ["CMD", "true"],
            "interval": 5,
            "timeout": 2,
            "retries": chance.choice([1, 3]),
            "startPeriod": chance.choice([0, 10]),
        }
    if chance.random() < 0.3:
        main["portMappings"] = [{"containerPort": 80, "hostPort": chance.choice([0, 8080, 8081])}]
    if chance.random() < 0.3:
        main["restartPolicy"] = {
            "enabled": True,
            "restartAttemptPeriod": 60,
            "ignoredExitCodes": chance.choice([[], [0], [7]]),
        }
    containers = [main]
    if chance.random() < 0.25:
        containers += _companion(chance, main)
    return {"family": family, "containerDefinitions": containers, "tags": _definition_tags(chance)}


def _companion(chance: random.Random, main: _Document) -> list[_Document]:
    """Give the main container one that has to come before it."""
    kind = chance.choice(["once", "beside", "healthy"])
    companion: _Document = {"name": "first", "memory": 32, "essential": False}
    if kind == "once":
        companion["image"] = chance.choice(["exits-0", "exits-0", "exits-7-after-30s"])
        condition = chance.choice(["SUCCESS", "COMPLETE"])
    else:
        companion["image"] = "steady"
        condition = "START" if kind == "beside" else "HEALTHY"
        companion["healthCheck"] = {"command": ["CMD", "true"], "interval": 5, "timeout": 2, "retries": 2}
    main["dependsOn"] = [{"containerName": "first", "condition": condition}]
    if chance.random() < 0.3:
        companion["startTimeout"] = 20
    return [companion]


def _tags(**members: str) -> list[dict[str, str]]:
    return [{"key": f"homeport:{name.replace('_', '-')}", "value": value} for name, value in members.items()]


def _definition_tags(chance: random.Random) -> list[dict[str, str]]:
    return chance.choice([[], [], [], _tags(restart_attempt_period="5"), _tags(restart_attempt_period="0")])


# ---------------------------------------------------------------- tasks


def _run_task(chance: random.Random, hosts: list[str]) -> _Document:
    document: _Document = {"taskDefinition": chance.choice(_FAMILIES), "count": chance.choice([1, 1, 2, 3, 5])}
    if chance.random() < 0.3:
        document["placementStrategy"] = chance.choice(
            [
                [{"type": "binpack", "field": "memory"}],
                [{"type": "spread", "field": "attribute:zone"}, {"type": "spread", "field": "instanceId"}],
                [{"type": "random"}],
            ]
        )
    if chance.random() < 0.2:
        document["placementConstraints"] = chance.choice(
            [[{"type": "distinctInstance"}], [{"type": "memberOf", "expression": "attribute:zone == a"}]]
        )
    document["tags"] = chance.choice(
        [
            [],
            [],
            [],
            _tags(timeout="40s"),
            _tags(retries="2"),
            _tags(retries="3", lost_after="20"),
            _tags(start_timeout="30s", retries="1"),
            _tags(exclusive="one"),
            _tags(exclusive="one", exclusive_policy="replace"),
            _tags(exclusive="two", exclusive_policy="skip"),
            _tags(exclusive="two", wait_timeout="60s", retries="1"),
            _tags(stop_when_isolated="true", lost_after="30", retries="2"),
            _tags(exclusive="three", stop_when_isolated="true", lost_after="40"),
        ]
    )
    return document


def _start_task(chance: random.Random, hosts: list[str]) -> _Document:
    return {"taskDefinition": chance.choice(_FAMILIES), "containerInstances": [{"$host": chance.choice(hosts)}]}


def _stop_task(chance: random.Random, hosts: list[str]) -> _Document:
    return {"task": {"$task": chance.randint(0, 40)}, "reason": "no longer needed"}


# ---------------------------------------------------------------- services


def _configuration(chance: random.Random, *, daemon: bool) -> _Document:
    minimum, maximum = chance.choice([(100, 200), (50, 200), (50, 100), (0, 100), (100, 150), (34, 134)])
    if daemon:
        minimum, maximum = chance.choice([(0, 100), (50, 100), (100, 200)])
    document: _Document = {"minimumHealthyPercent": minimum, "maximumPercent": maximum}
    if chance.random() < 0.4:
        document["deploymentCircuitBreaker"] = {"enable": True, "rollback": chance.random() < 0.6}
    return document


def _service_tags(chance: random.Random) -> list[dict[str, str]]:
    return chance.choice(
        [
            [],
            [],
            _tags(lost_after="10", min_healthy_time="1"),
            _tags(lost_after="20", progress_deadline="60"),
            _tags(min_healthy_time="0", rebalance="true"),
            _tags(stop_when_isolated="true", lost_after="30"),
        ]
    )


def _create_service(chance: random.Random, name: str) -> _Document:
    daemon = chance.random() < 0.2
    document: _Document = {
        "serviceName": name,
        "taskDefinition": chance.choice(_FAMILIES[:2]) if name == "s0" else chance.choice(_FAMILIES),
        "schedulingStrategy": "DAEMON" if daemon else "REPLICA",
        "tags": _service_tags(chance),
    }
    if not daemon:
        document["desiredCount"] = chance.choice([0, 1, 2, 3, 5])
    if chance.random() < 0.7:
        document["deploymentConfiguration"] = _configuration(chance, daemon=daemon)
    return document


def _create_any(chance: random.Random, hosts: list[str]) -> _Document:
    return _create_service(chance, chance.choice(_SERVICES))


def _update_service(chance: random.Random, hosts: list[str]) -> _Document:
    document: _Document = {"service": chance.choice(_SERVICES)}
    what = chance.choice(["count", "count", "revision", "revision", "force", "bounds"])
    if what == "count":
        document["desiredCount"] = chance.choice([0, 1, 2, 4, 6])
    elif what == "revision":
        document["taskDefinition"] = chance.choice(_FAMILIES)
    elif what == "force":
        document["forceNewDeployment"] = True
    else:
        document["deploymentConfiguration"] = _configuration(chance, daemon=False)
    return document


def _delete_service(chance: random.Random, hosts: list[str]) -> _Document:
    return {"service": chance.choice(_SERVICES), "force": True}


def _stop_deployment(chance: random.Random, hosts: list[str]) -> _Document:
    name = chance.choice(_SERVICES)
    return {"serviceDeploymentArn": {"$deployment": name}, "stopType": chance.choice(["ROLLBACK", "ABORT"])}


# ---------------------------------------------------------------- hosts, and reading


def _set_hosts(chance: random.Random, hosts: list[str]) -> _Document:
    status = chance.choice(["DRAINING", "ACTIVE", "ACTIVE"])
    return {"containerInstances": [{"$host": chance.choice(hosts)}], "status": status}


def _deregister(chance: random.Random, hosts: list[str]) -> _Document:
    return {"containerInstance": {"$host": chance.choice(hosts)}, "force": chance.random() < 0.7}


def _describe_tasks(chance: random.Random, hosts: list[str]) -> _Document:
    return {"tasks": [{"$task": chance.randint(0, 40)}, {"$task": chance.randint(0, 40)}]}


def _describe_services(chance: random.Random, hosts: list[str]) -> _Document:
    return {"services": list(_SERVICES)}


def _list_tasks(chance: random.Random, hosts: list[str]) -> _Document:
    return chance.choice([{}, {"desiredStatus": "STOPPED"}, {"family": chance.choice(_FAMILIES)}])


def _register(chance: random.Random, hosts: list[str]) -> _Document:
    return _definition(chance, chance.choice(_FAMILIES))


_WITH_TOKEN: Final = frozenset({"CreateService", "RunTask"})
#: Operation -> how often, and what it asks for.
_DRAWS: Final = {
    "CreateService": (4, _create_any),
    "DeleteService": (1, _delete_service),
    "DeregisterContainerInstance": (1, _deregister),
    "DescribeServices": (1, _describe_services),
    "DescribeTasks": (1, _describe_tasks),
    "ListTasks": (1, _list_tasks),
    "RegisterTaskDefinition": (3, _register),
    "RunTask": (9, _run_task),
    "StartTask": (1, _start_task),
    "StopServiceDeployment": (1, _stop_deployment),
    "StopTask": (4, _stop_task),
    "UpdateContainerInstancesState": (3, _set_hosts),
    "UpdateService": (8, _update_service),
}
OPERATIONS: Final = frozenset(_DRAWS)
