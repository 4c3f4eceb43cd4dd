"""RunTask and StartTask with real boto3."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from controlplane.retention import Reaper
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


# ---------------------------------------------------------------- RunTask


def test_run_task_answers_with_a_placed_task_and_all_its_containers(
    ecs: Any, host: str, register: Callable[..., str]
) -> None:
    definition = register(containers=[WEB, {"name": "log", "image": "busybox", "memoryReservation": 32}])
    task = run(ecs, startedBy="me", tags=[{"key": "a", "value": "b"}])
    task_id = task["taskArn"].rsplit("/")[-1]
    assert task["taskArn"] == f"arn:aws:ecs:eu-home-1:123456789012:task/default/{task_id}"
    assert len(task_id) == 32
    assert task["taskDefinitionArn"] == definition
    assert task["clusterArn"].endswith(":cluster/default")
    assert task["containerInstanceArn"].endswith(f":container-instance/default/{host}")
    assert (task["lastStatus"], task["desiredStatus"]) == ("PENDING", "RUNNING")
    assert (task["cpu"], task["memory"]) == ("100", "96")
    assert (task["group"], task["startedBy"], task["launchType"]) == ("family:web", "me", "EC2")
    assert task["tags"] == [{"key": "a", "value": "b"}]
    assert task["availabilityZone"] == "home-1a"
    assert task["connectivity"] == "CONNECTED"
    assert task["attributes"] == [{"name": "ecs.cpu-architecture", "value": "x86_64"}]
    assert task["overrides"] == {
        "containerOverrides": [{"name": "web"}, {"name": "log"}],
        "inferenceAcceleratorOverrides": [],
    }
    web, log = task["containers"]
    assert (web["name"], web["image"], web["lastStatus"], web["cpu"]) == ("web", "busybox", "PENDING", "100")
    assert (web["memory"], log["memoryReservation"]) == ("64", "32")
    assert web["taskArn"] == task["taskArn"]
    assert f":container/default/{task_id}/" in web["containerArn"]
    assert web["containerArn"] != log["containerArn"]
    assert "exitCode" not in web
    assert web["networkBindings"] == web["networkInterfaces"] == []


@pytest.mark.parametrize("launch_type", ["EC2", "EXTERNAL", "FARGATE"])
def test_every_launch_type_means_a_homeport_host(
    ecs: Any, host: str, register: Callable[..., str], launch_type: str
) -> None:
    register()
    assert run(ecs, launchType=launch_type)["launchType"] == launch_type


@pytest.fixture
def preemptible(ecs: Any, host: str) -> None:
    """The host takes FARGATE_SPOT's tasks, too."""
    target = {"targetType": "container-instance", "targetId": host}
    ecs.put_attributes(attributes=[{"name": "homeport.preemptible", "value": "true", **target}])


@pytest.mark.usefixtures("preemptible")
def test_fargate_capacity_providers_mean_a_homeport_host(ecs: Any, register: Callable[..., str]) -> None:
    register()
    task = run(ecs, capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT", "weight": 1}])
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")
    shared = [{"capacityProvider": "FARGATE", "base": 1}, {"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    tasks = ecs.run_task(taskDefinition="web", count=3, capacityProviderStrategy=shared)["tasks"]
    assert sorted(task["capacityProviderName"] for task in tasks) == ["FARGATE", "FARGATE_SPOT", "FARGATE_SPOT"]
    code, message = refused(
        ecs.run_task,
        taskDefinition="web",
        launchType="EC2",
        capacityProviderStrategy=[{"capacityProvider": "FARGATE"}],
    )
    assert code == "InvalidParameterException"
    assert "Specifying both a launch type and capacity provider strategy" in message


@pytest.mark.usefixtures("preemptible")
def test_the_clusters_default_strategy_holds_where_a_request_names_nothing(
    ecs: Any, host: str, register: Callable[..., str]
) -> None:
    register()
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=["FARGATE_SPOT"], defaultCapacityProviderStrategy=strategy
    )
    task = run(ecs)
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")
    for chosen in (
        run(ecs, launchType="EC2"),
        *ecs.start_task(taskDefinition="web", containerInstances=[host])["tasks"],
    ):
        assert chosen["launchType"] == "EC2"
        assert "capacityProviderName" not in chosen


def test_started_by_and_group_take_what_clients_send(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register()
    task = run(ecs, startedBy="ECS Deploy (nightly) ü", group="batch job #7")
    assert (task["startedBy"], task["group"]) == ("ECS Deploy (nightly) ü", "batch job #7")
    assert ecs.list_tasks(startedBy="ECS Deploy (nightly) ü")["taskArns"] == [task["taskArn"]]


def test_overrides_reach_the_spec_and_are_echoed(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    environment = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    register(containers=[{**WEB, "entryPoint": ["/e"], "command": ["old"], "environment": environment}])
    override = {
        "name": "web",
        "command": ["new", "words"],
        "environment": [{"name": "B", "value": "3"}],
        "cpu": 200,
        "memory": 128,
    }
    task = run(ecs, overrides={"containerOverrides": [override], "cpu": "512", "memory": "1 GB"})
    spec = fleet.record(task["taskArn"]).spec
    assert spec.containers[0].command == ("new", "words")
    assert spec.containers[0].entry_point == ("/e",)
    assert spec.containers[0].environment == {"A": "1", "B": "3"}
    assert (spec.containers[0].cpu_units, spec.containers[0].memory_mib) == (200, 128)
    assert (spec.cpu_units, spec.memory_mib) == (512, 1024)
    assert (task["cpu"], task["memory"]) == ("512", "1024")
    assert task["overrides"]["containerOverrides"] == [override]
    assert (task["overrides"]["cpu"], task["overrides"]["memory"]) == ("512", "1 GB")


def test_a_form_with_nothing_filled_in_overrides_nothing(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    """As `aws ecs run-task --generate-cli-skeleton` prints it, less what must be named."""
    register(containers=[{**WEB, "command": ["c"], "memoryReservation": 32}])
    override = {
        "name": "web",
        "command": [],
        "environment": [],
        "environmentFiles": [],
        "memory": 0,
        "memoryReservation": 0,
        "resourceRequirements": [],
    }
    empty = {"cpu": "", "memory": "", "executionRoleArn": "", "taskRoleArn": "", "inferenceAcceleratorOverrides": []}
    names = ("capacityProviderStrategy", "placementConstraints", "placementStrategy", "tags", "volumeConfigurations")
    lists: dict[str, Any] = {name: [] for name in names}
    texts = dict.fromkeys(("group", "startedBy", "platformVersion", "referenceId", "clientToken"), "")
    task = run(ecs, overrides={"containerOverrides": [override], **empty}, **lists, **texts)
    [container] = fleet.record(task["taskArn"]).spec.containers
    assert (container.command, container.memory_mib, container.memory_reservation_mib) == (("c",), 64, 32)
    assert (task["group"], task["launchType"]) == ("family:web", "EC2")


def test_the_default_spreads_tasks_over_hosts(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    hosts = {fleet.add_host(f"host-{n}") for n in range(3)}
    register()
    answer = ecs.run_task(taskDefinition="web", count=6)
    used = [task["containerInstanceArn"].rsplit("/")[-1] for task in answer["tasks"]]
    assert {used.count(host) for host in hosts} == {2}


def test_what_does_not_fit_is_a_failure_with_the_numbers(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    host = fleet.add_host("host-1", memory=200)
    register()
    answer = ecs.run_task(taskDefinition="web", count=4)
    assert len(answer["tasks"]) == 3
    assert answer["failures"] == [
        {
            "arn": f"arn:aws:ecs:eu-home-1:123456789012:container-instance/default/{host}",
            "reason": "RESOURCE:MEMORY",
            "detail": "host-1 has 8 of 200 MiB of memory left; the task needs 64.",
        }
    ]


def test_failures_name_each_host_and_its_own_obstacle(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    small = fleet.add_host("small", cpu=50)
    away = fleet.add_host("away", connected=False)
    arm = fleet.add_host("arm", attributes={"ecs.cpu-architecture": "arm64"})
    busy = fleet.add_host("busy", reserved=frozenset({("tcp", 8080)}))
    sick = fleet.add_host("sick")
    fleet.set_presence(sick, CONTAINER_RUNTIME="docker doesn't answer")
    full = fleet.add_host("full")
    fleet.set_presence(full, DISK="97 % used")
    register(
        containers=[{**WEB, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}],
        runtimePlatform={"cpuArchitecture": "X86_64"},
    )
    answer = ecs.run_task(taskDefinition="web")
    assert answer["tasks"] == []
    reasons = {failure["arn"].rsplit("/")[-1]: (failure["reason"], failure["detail"]) for failure in answer["failures"]}
    assert reasons == {
        small: ("RESOURCE:CPU", "small has 50 of 50 CPU units left; the task needs 100."),
        away: ("AGENT", "The agent of away isn't connected."),
        arm: (
            "ATTRIBUTE",
            "arm has ecs.cpu-architecture=arm64; the task definition requires ecs.cpu-architecture=x86_64.",
        ),
        busy: ("RESOURCE:PORTS", "Port 8080/tcp of busy is reserved."),
        sick: ("AGENT", "The Docker Engine of sick is impaired: docker doesn't answer."),
        full: ("RESOURCE:DISK", "full is short of disk space: 97 % used."),
    }


def test_a_static_port_is_held_until_the_task_is_stopped(
    ecs: Any, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register(containers=[{**WEB, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}])
    first = run(ecs)
    ecs.stop_task(task=first["taskArn"])
    assert [f["reason"] for f in ecs.run_task(taskDefinition="web")["failures"]] == ["RESOURCE:PORTS"]
    fleet.stopped(first["taskArn"])
    run(ecs)


def test_without_hosts_ecs_words(ecs: Any, register: Callable[..., str]) -> None:
    register()
    assert refused(ecs.run_task, taskDefinition="web") == (
        "InvalidParameterException",
        "No Container Instances were found in your cluster.",
    )


def test_placement_constraints_and_strategies(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    small = fleet.add_host("small", memory=1000, attributes={"rack": "a"})
    fleet.add_host("large", memory=4000, attributes={"rack": "b"})
    register()
    packed = ecs.run_task(taskDefinition="web", count=5, placementStrategy=[{"type": "binpack", "field": "memory"}])
    assert {task["containerInstanceArn"].rsplit("/")[-1] for task in packed["tasks"]} == {small}
    constraint = {"type": "memberOf", "expression": "attribute:rack == b"}
    task = run(ecs, placementConstraints=[constraint])
    assert not task["containerInstanceArn"].endswith(small)
    answer = ecs.run_task(
        taskDefinition="web", count=3, group="apart", placementConstraints=[{"type": "distinctInstance"}]
    )
    assert len(answer["tasks"]) == 2
    assert {f["reason"] for f in answer["failures"]} == {"DistinctInstance placement constraint unsatisfied."}
    answer = ecs.run_task(
        taskDefinition="web",
        placementConstraints=[{"type": "memberOf", "expression": "attribute:rack exists and agentConnected == false"}],
    )
    assert {f["reason"] for f in answer["failures"]} == {"MemberOf placement constraint unsatisfied."}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"count": 11}, "count must be between 1 and 10"),
        ({"count": 0}, "count must be between 1 and 10"),
        ({"group": "service:x"}, "group can't begin with 'service:'"),
        ({"startedBy": "x" * 129}, "startedBy longer than 128."),
        ({"startedBy": "a\nb"}, "startedBy contains control characters."),
        ({"group": "x" * 256}, "group longer than 255."),
        ({"clientToken": "x" * 65}, "clientToken can have up to 64"),
        ({"propagateTags": "SERVICE"}, "propagateTags SERVICE"),
        ({"placementConstraints": [{"type": "memberOf", "expression": "attribute:x ="}]}, "at position 13"),
        ({"placementConstraints": [{"type": "memberOf"}]}, "the expression is empty"),
        ({"placementConstraints": [{"type": "distinctInstance", "expression": "x"}]}, "can't have an expression"),
        ({"placementConstraints": [{"type": "distinctInstance"}] * 11}, "at most 10 placement constraints"),
        ({"placementStrategy": [{"type": "binpack", "field": "disk"}]}, "binpack's field must be cpu or memory"),
        ({"placementStrategy": [{"type": "spread", "field": "rack"}]}, "host or attribute:NAME"),
        ({"placementStrategy": [{"type": "random"}] * 6}, "at most 5 placement strategies"),
        (
            {"overrides": {"containerOverrides": [{"name": "nobody"}]}},
            "Override for container named nobody is not a container in the TaskDefinition.",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "web", "command": ["x" * 8200]}]}},
            "Container Overrides length must be at most 8192",
        ),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}},
            "Network Configuration is not valid for the given networkMode",
        ),
    ],
)
def test_run_task_refuses_bad_arguments(
    ecs: Any, server: ApiServer, host: str, register: Callable[..., str], arguments: dict[str, Any], part: str
) -> None:
    register()
    with server.unchanged():
        code, message = refused(ecs.run_task, **{"taskDefinition": "web", **arguments})
    assert code == "InvalidParameterException"
    assert part in message


def test_run_task_of_an_unknown_or_inactive_definition_or_cluster(
    ecs: Any, host: str, register: Callable[..., str]
) -> None:
    assert refused(ecs.run_task, taskDefinition="nothing") == ("ClientException", "TaskDefinition not found.")
    assert refused(ecs.run_task, taskDefinition="web", cluster="none")[0] == "ClusterNotFoundException"
    arn = register()
    ecs.deregister_task_definition(taskDefinition=arn)
    assert refused(ecs.run_task, taskDefinition=arn) == ("ClientException", "TaskDefinition is inactive")


def test_what_homeport_cannot_do_is_refused_by_name(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register(containers=[{**WEB, "links": ["web"], "secrets": [{"name": "S", "valueFrom": "arn"}]}], pidMode="host")
    code, message = refused(ecs.run_task, taskDefinition="web")
    assert code == "ClientException"
    for part in ("pidMode", "container web: links", "container web: secrets"):
        assert part in message
    register(networkMode="awsvpc")
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
    for more in ({}, {"launchType": "FARGATE", "networkConfiguration": network}):
        assert "networkMode awsvpc isn't supported" in refused(ecs.run_task, taskDefinition="web", **more)[1]


def test_tags_are_propagated_and_managed(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register(tags=[{"key": "from", "value": "definition"}, {"key": "kept", "value": "1"}])
    task = run(
        ecs, propagateTags="TASK_DEFINITION", enableECSManagedTags=True, tags=[{"key": "from", "value": "request"}]
    )
    assert {tag["key"]: tag["value"] for tag in task["tags"]} == {
        "aws:ecs:clusterName": "default",
        "from": "request",
        "kept": "1",
    }
    described = ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]
    assert described["tags"] == []
    described = ecs.describe_tasks(tasks=[task["taskArn"]], include=["TAGS"])["tasks"][0]
    assert len(described["tags"]) == 3


def test_the_story_tells_who_asked_and_why_there(
    ecs: Any, server: ApiServer, host: str, register: Callable[..., str]
) -> None:
    register(
        containers=[
            {
                **WEB,
                "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "g", "awslogs-region": "r"}},
            }
        ]
    )
    task = run(ecs)
    ecs.stop_task(task=task["taskArn"], reason="enough")
    task_id = task["taskArn"].rsplit("/")[-1]
    story: Any = server.call(lambda: server.context.state.journal.story(task_id))
    assert [(line.event, line.actor) for line in story] == [
        ("accepted", "api"),
        ("placed", "scheduler"),
        ("stop-requested", "api"),
    ]
    assert story[0].message == "RunTask by AKIAHOMEPORTTEST0001 of web:1 in group family:web"
    assert story[1].message == (
        "Placed on host-1: chosen by spread host among 1 hosts. "
        "It asks for 100 CPU units and 64 MiB; 4096 and 8192 MiB were free"
    )
    assert story[1].host == "host-1"
    assert story[2].message == "StopTask by AKIAHOMEPORTTEST0001: enough"


# ---------------------------------------------------------------- idempotency


def test_a_repeated_token_returns_the_same_tasks(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register()
    first = ecs.run_task(taskDefinition="web", count=2, clientToken="again")
    second = ecs.run_task(taskDefinition="web", count=2, clientToken="again")
    assert [t["taskArn"] for t in first["tasks"]] == [t["taskArn"] for t in second["tasks"]]
    assert len(ecs.list_tasks()["taskArns"]) == 2


def test_a_partial_success_is_repeated_with_its_failures(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    fleet.add_host(memory=100)
    register()
    first = ecs.run_task(taskDefinition="web", count=2, clientToken="again")
    second = ecs.run_task(taskDefinition="web", count=2, clientToken="again")
    assert len(first["tasks"]) == len(first["failures"]) == 1
    assert second["failures"] == first["failures"]
    assert [t["taskArn"] for t in first["tasks"]] == [t["taskArn"] for t in second["tasks"]]


def test_a_request_that_placed_nothing_may_be_tried_again(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    host = fleet.add_host(connected=False)
    register()
    assert ecs.run_task(taskDefinition="web", clientToken="again")["tasks"] == []
    fleet.set_presence(host)
    assert len(ecs.run_task(taskDefinition="web", clientToken="again")["tasks"]) == 1


def test_a_token_of_another_request_conflicts(ecs: Any, host: str, register: Callable[..., str]) -> None:
    register()
    task = run(ecs, clientToken="again")
    with pytest.raises(ecs.exceptions.ConflictException) as caught:
        ecs.run_task(taskDefinition="web", count=2, clientToken="again")
    assert caught.value.response["resourceIds"] == [task["taskArn"]]
    assert task["taskArn"] in caught.value.response["Error"]["Message"]


def test_a_token_is_the_clusters_own_and_forgotten_after_a_day(
    ecs: Any, server: ApiServer, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register()
    ecs.create_cluster(clusterName="other")
    fleet.add_host("host-2", cluster="other")
    run(ecs, clientToken="again")
    run(ecs, clientToken="again", cluster="other", startedBy="me")
    server.clock.move(24 * 3600 + 1)
    fleet.set_presence(fleet.add_host("host-3"))
    first = run(ecs, clientToken="again", startedBy="me")
    assert first["startedBy"] == "me"


def test_a_token_outlives_its_tasks_time_in_memory(
    ecs: Any, server: ApiServer, fleet: Fleet, host: str, register: Callable[..., str]
) -> None:
    register()
    arn = run(ecs, clientToken="again")["taskArn"]
    fleet.stopped(arn, exit_code=3)
    reaper = Reaper(server.context)
    server.thread.call(reaper.sweep)
    server.clock.move(3601)
    server.thread.call(reaper.sweep)
    missing = ecs.describe_tasks(tasks=[arn])
    assert (missing["tasks"], missing["failures"][0]["reason"]) == ([], "MISSING")
    assert ecs.list_tasks(desiredStatus="STOPPED")["taskArns"] == []
    again = run(ecs, clientToken="again")
    assert (again["taskArn"], again["lastStatus"]) == (arn, "STOPPED")
    assert again["containers"][0]["exitCode"] == 3


def test_200_concurrent_run_tasks_never_over_commit(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    hosts = [fleet.add_host(f"host-{n}", cpu=100_000, memory=64 * 30) for n in range(5)]
    register()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ecs.run_task(taskDefinition="web"), range(200)))
    placed = [task["containerInstanceArn"].rsplit("/")[-1] for answer in answers for task in answer["tasks"]]
    assert [placed.count(host) for host in hosts] == [30] * 5
    assert sum(bool(answer["failures"]) for answer in answers) == 50
    described = ecs.describe_container_instances(containerInstances=hosts)["containerInstances"]
    assert [instance["pendingTasksCount"] for instance in described] == [30] * 5


# ---------------------------------------------------------------- StartTask


def test_start_task_uses_the_named_hosts(ecs: Any, fleet: Fleet, register: Callable[..., str]) -> None:
    one, two = fleet.add_host("one"), fleet.add_host("two", connected=False)
    register(placementConstraints=[{"type": "memberOf", "expression": "attribute:nowhere exists"}])
    answer = ecs.start_task(taskDefinition="web", containerInstances=[one, two, "missing"])
    assert [task["containerInstanceArn"].rsplit("/")[-1] for task in answer["tasks"]] == [one]
    assert [(f["arn"].rsplit("/")[-1], f["reason"]) for f in answer["failures"]] == [
        (two, "AGENT"),
        ("missing", "MISSING"),
    ]
    assert (
        refused(ecs.start_task, taskDefinition="web", containerInstances=[])[1] == "Container instance cannot be empty."
    )
    eleven = [str(n) for n in range(11)]
    assert "at most 10" in refused(ecs.start_task, taskDefinition="web", containerInstances=eleven)[1]
