"""StopTask, DescribeTasks, ListTasks and a task's life as clients see it, with real boto3."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.state.records import TaskDefinitionRecord
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, HealthStatus, TaskStatus
from tests.contract.fleet import WEB, Fleet, refused, register_web, run
from tests.contract.server import ApiServer


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def host(fleet: Fleet) -> str:
    return fleet.add_host()


@pytest.fixture
def register(ecs: Any) -> Callable[..., str]:
    return partial(register_web, ecs)


# ---------------------------------------------------------------- a task's life as clients see it


def test_a_task_runs_and_its_end_is_told(ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]) -> None:
    register(containers=[{**WEB, "portMappings": [{"containerPort": 80}]}])
    arn = run(ecs)["taskArn"]
    fleet.running(arn)
    ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig={"Delay": 0, "MaxAttempts": 3})
    task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
    container = task["containers"][0]
    assert (task["lastStatus"], container["lastStatus"]) == ("RUNNING", "RUNNING")
    assert container["runtimeId"] == "f" * 64
    assert container["imageDigest"].startswith("sha256:")
    assert container["networkBindings"] == [
        {"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}
    ]
    assert task["startedAt"] >= task["createdAt"]
    fleet.stopped(arn, exit_code=137, reason="OutOfMemoryError: Container killed due to memory usage")
    ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig={"Delay": 0, "MaxAttempts": 3})
    task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert task["containers"][0]["exitCode"] == 137
    assert task["containers"][0]["reason"].startswith("OutOfMemoryError")
    assert task["stoppedAt"] >= task["startedAt"]


def test_the_waiter_for_running_fails_on_a_stopped_task(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register()
    arn = run(ecs)["taskArn"]
    fleet.stopped(arn)
    with pytest.raises(Exception, match="Waiter encountered a terminal failure state"):
        ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig={"Delay": 0, "MaxAttempts": 3})


def test_the_tasks_health_is_that_of_its_essential_containers(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register(containers=[{**WEB, "healthCheck": {"command": ["CMD-SHELL", "true"]}}])
    arn = run(ecs)["taskArn"]
    report = ContainerReport(name="web", status=ContainerStatus.RUNNING)
    for health in (HealthStatus.HEALTHY, HealthStatus.UNHEALTHY):
        fleet.report(arn, TaskStatus.RUNNING, [replace(report, health=health)])
        task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
        assert (task["healthStatus"], task["containers"][0]["healthStatus"]) == (health, health)


@pytest.mark.parametrize("off", [-3600.0, -0.5])
def test_a_host_whose_clock_is_behind_does_not_turn_time_back(
    ecs: Any, server: ApiServer, fleet: Fleet, host: str, register: Callable[..., str], off: float
) -> None:
    register()
    arn = run(ecs)["taskArn"]
    there = server.clock.now() + off
    container = ContainerReport(name="web", status=ContainerStatus.RUNNING)
    fleet.report(
        arn, TaskStatus.RUNNING, [container], pull_started_at=there, pull_stopped_at=there + 0.1, started_at=there + 0.2
    )
    ecs.stop_task(task=arn)
    ended = replace(container, status=ContainerStatus.STOPPED, exit_code=0)
    fleet.report(arn, TaskStatus.STOPPED, [ended], execution_stopped_at=there + 0.3, stopped_at=there + 0.4)
    task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
    for path in (
        ("createdAt", "pullStartedAt", "pullStoppedAt"),
        ("createdAt", "startedAt", "executionStoppedAt", "stoppedAt"),
        ("createdAt", "stoppingAt", "stoppedAt"),
    ):
        moments = [task[name] for name in path]
        assert moments == sorted(moments)


# ---------------------------------------------------------------- StopTask


def test_stop_task_tells_who_stopped_it_at_once(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register()
    arn = run(ecs)["taskArn"]
    fleet.running(arn)
    task = ecs.stop_task(task=arn.rsplit("/")[-1], reason="making room")["task"]
    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "making room")
    again = ecs.stop_task(task=arn, reason="another")["task"]
    assert again["stoppedReason"] == "making room"
    fleet.stopped(arn, exit_code=143)
    final = ecs.stop_task(task=arn)["task"]
    assert (final["lastStatus"], final["stopCode"], final["stoppedReason"]) == (
        "STOPPED",
        "UserInitiated",
        "making room",
    )
    assert final["containers"][0]["exitCode"] == 143
    assert final["version"] > task["version"]


def test_stop_task_without_a_reason(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register()
    assert ecs.stop_task(task=run(ecs)["taskArn"])["task"]["stoppedReason"] == "Task stopped by user"


def test_stop_task_of_an_unknown_task(ecs: Any, server: ApiServer, host: str, register: Callable[..., str]) -> None:
    register()
    ecs.create_cluster(clusterName="other")
    arn = run(ecs)["taskArn"]
    wanted = ("InvalidParameterException", "The referenced task was not found.")
    with server.unchanged():
        assert refused(ecs.stop_task, task="nothing") == wanted
        assert refused(ecs.stop_task, task=arn, cluster="other") == wanted
        assert refused(ecs.stop_task, task=arn.replace("eu-home-1", "us-east-1")) == wanted


# ---------------------------------------------------------------- DescribeTasks, ListTasks


def test_describe_tasks_names_what_is_missing(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register()
    arn = run(ecs)["taskArn"]
    answer = ecs.describe_tasks(tasks=[arn, arn.rsplit("/")[-1], "gone"])
    assert [task["taskArn"] for task in answer["tasks"]] == [arn, arn]
    assert answer["failures"] == [{"arn": "arn:aws:ecs:eu-home-1:123456789012:task/default/gone", "reason": "MISSING"}]
    assert refused(ecs.describe_tasks, tasks=[])[1] == "Tasks cannot be empty."
    assert "at most 100" in refused(ecs.describe_tasks, tasks=[str(n) for n in range(101)])[1]


def test_list_tasks_filters(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    one, two = fleet.add_host("one"), fleet.add_host("two")
    register("web")
    register("db")
    tasks = {}
    for name, host, arguments in [
        ("a", one, {"taskDefinition": "web", "startedBy": "me"}),
        ("b", two, {"taskDefinition": "web"}),
        ("c", two, {"taskDefinition": "db", "startedBy": "me"}),
    ]:
        answer = ecs.start_task(containerInstances=[host], **arguments)
        tasks[answer["tasks"][0]["taskArn"]] = name
    fargate = run(ecs, launchType="FARGATE")["taskArn"]
    tasks[fargate] = "d"

    def listed(**arguments: Any) -> set[str]:
        return {tasks[arn] for arn in ecs.list_tasks(**arguments)["taskArns"]}

    assert listed() == {"a", "b", "c", "d"}
    assert listed(family="web") == {"a", "b", "d"}
    assert listed(startedBy="me") == {"a", "c"}
    assert listed(startedBy="me", family="db") == {"c"}
    assert listed(containerInstance=one, family="web", launchType="EC2") == {"a"}
    assert listed(launchType="FARGATE") == {"d"}
    assert listed(daemonName="nothing") == set()
    assert listed(desiredStatus="STOPPED") == listed(desiredStatus="PENDING") == set()
    ecs.stop_task(task=fargate)
    assert listed() == {"a", "b", "c"}
    assert listed(desiredStatus="STOPPED") == {"d"}
    assert refused(ecs.list_tasks, serviceName="nothing")[0] == "ServiceNotFoundException"
    assert refused(ecs.list_tasks, containerInstance="nothing")[0] == "InvalidParameterException"


def test_list_tasks_pages(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register(containers=[{**WEB, "cpu": 1}])
    arns = {task["taskArn"] for task in ecs.run_task(taskDefinition="web", count=7)["tasks"]}
    pages = list(ecs.get_paginator("list_tasks").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["taskArns"]) for page in pages] == [3, 3, 1]
    assert {arn for page in pages for arn in page["taskArns"]} == arns


def test_a_new_revision_does_not_touch_running_tasks(
    ecs: Any, server: ApiServer, host: str, register: Callable[..., str]
) -> None:
    first = register()
    task = run(ecs)
    register()
    assert run(ecs)["taskDefinitionArn"] != first
    assert ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["taskDefinitionArn"] == first
    record = server.call(lambda: server.context.state.task_definitions.get("web:1"))
    assert isinstance(record, TaskDefinitionRecord)
