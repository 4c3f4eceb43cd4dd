"""Asking everybody at the end of a run: the API, the Engines, the containers' marks, the log store."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.chaos.facts import ContainerFact, Facts, Happened, HostFact, Marks, ServiceFact, TaskFact, read_beats
from tests.chaos.ledger import Request
from tests.chaos.site import FOREIGN, HostNode, Site
from tests.chaos.workload import JOB
from tests.e2e.logs import read_all, task_id

__all__ = ["gather", "kept_lines", "said_lines"]

_TASKS_AT_A_TIME: Final = 100
_SERVICES_AT_A_TIME: Final = 10
_GROUP: Final = f"/homeport/default/{JOB}"


def gather(
    site: Site, *, stopped_at: Mapping[str, float], happened: Sequence[Happened], exit_codes: Mapping[str, int]
) -> Facts:
    """Return all facts but what containers said. Raises OSError or botocore's errors if somebody does not answer."""
    ecs = site.fleet.ecs
    instances = {each["containerInstanceArn"]: each for each in site.container_instances(ecs)}
    ids = {arn: arn.rsplit("/", 1)[-1] for arn in instances}
    hosts = {host.instance.rsplit("/", 1)[-1]: host for host in site.hosts.values()}
    return Facts(
        tasks={task.arn: task for task in _tasks(ecs, ids)},
        containers=[each for instance, host in hosts.items() for each in _containers(host, instance)],
        services={each.name: each for each in _services(ecs)},
        hosts=[_host(hosts[ids[arn]], ids[arn], each) for arn, each in instances.items()],
        marks=Marks.read((site.ground / "marks").read_text()),
        only=read_beats(
            (site.ground / "beats").read_text(), ahead_s=time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        ),
        stopped_at=stopped_at,
        happened=happened,
        exit_codes=exit_codes,
    )


def _tasks(ecs: Any, instances: Mapping[str, str]) -> Iterator[TaskFact]:
    arns = [
        arn
        for status in ("RUNNING", "STOPPED")
        for page in ecs.get_paginator("list_tasks").paginate(desiredStatus=status)
        for arn in page["taskArns"]
    ]
    for start in range(0, len(arns), _TASKS_AT_A_TIME):
        for task in ecs.describe_tasks(tasks=arns[start : start + _TASKS_AT_A_TIME])["tasks"]:
            (container,) = task["containers"]
            yield TaskFact(
                arn=task["taskArn"],
                started_by=task.get("startedBy", ""),
                group=task.get("group", ""),
                host=instances.get(task.get("containerInstanceArn", ""), ""),
                definition=task["taskDefinitionArn"],
                last=task["lastStatus"],
                desired=task["desiredStatus"],
                health=task["healthStatus"],
                stop_code=task.get("stopCode", ""),
                stopped_reason=task.get("stoppedReason", ""),
                exit_code=container.get("exitCode"),
                container_reason=container.get("reason", ""),
                runtime_id=container.get("runtimeId", ""),
            )


def _containers(host: HostNode, instance: str) -> Iterator[ContainerFact]:
    ids = host.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", "label=homeport.instance").split()
    for each in json.loads(host.docker("inspect", *ids)) if ids else ():
        labels = each["Config"]["Labels"]
        yield ContainerFact(
            id=each["Id"],
            host=instance if labels["homeport.instance"] == host.instance else labels["homeport.instance"],
            task=labels["homeport.task"],
            running=each["State"]["Running"],
            exit_code=each["State"]["ExitCode"],
        )


def _services(ecs: Any) -> Iterator[ServiceFact]:
    arns = [arn for page in ecs.get_paginator("list_services").paginate() for arn in page["serviceArns"]]
    for start in range(0, len(arns), _SERVICES_AT_A_TIME):
        for each in ecs.describe_services(services=arns[start : start + _SERVICES_AT_A_TIME])["services"]:
            yield ServiceFact(
                name=each["serviceName"],
                status=each["status"],
                definition=each["taskDefinition"],
                desired=each["desiredCount"],
                running=each["runningCount"],
                pending=each["pendingCount"],
                deployments=len(each["deployments"]),
                rollout=each["deployments"][0]["rolloutState"],
            )


def _host(host: HostNode, instance: str, shown: dict[str, Any]) -> HostFact:
    runs = host.docker("inspect", "--format", "{{.State.Running}}", host.foreign).strip()
    kept = [name for kind in ("volume", "network") for name in host.docker(kind, "ls", "--format", "{{.Name}}").split()]
    return HostFact(
        name=host.name,
        instance=instance,
        connected=shown["agentConnected"],
        status=shown["status"],
        health=shown["healthStatus"]["overallStatus"],
        foreign=runs == "true" and kept.count(FOREIGN) == len(("volume", "network")),
        live_restore=host.live_restore,
        used_mib=_memory(shown["registeredResources"]) - _memory(shown["remainingResources"]),
    )


def _memory(resources: Sequence[dict[str, Any]]) -> int:
    return next(int(each["integerValue"]) for each in resources if each["name"] == "MEMORY")


def kept_lines(site: Site, requests: Sequence[Request]) -> dict[str, list[str]]:
    """Return what is kept of the output of each task that was run by itself, by its ARN."""
    logs = site.fleet.client("logs")
    return {
        arn: [event["message"] for event in read_all(logs, _GROUP, f"homeport/app/{task_id(arn)}")]
        for request in requests
        if request.operation == "run_task"
        for arn in request.made
    }


def said_lines(site: Site, facts: Facts, arns: Sequence[str]) -> dict[str, list[str]]:
    """Return what the Engines have of these tasks' output; nothing of those whose containers they don't have."""
    hosts = {host.instance.rsplit("/", 1)[-1]: host for host in site.hosts.values()}
    there = {container.id for container in facts.containers}
    tasks = [task for arn in arns if (task := facts.tasks[arn]).runtime_id in there]
    return {task.arn: hosts[task.host].docker("logs", task.runtime_id).splitlines() for task in tasks}
