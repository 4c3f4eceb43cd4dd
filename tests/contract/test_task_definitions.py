"""Task definitions, through boto3."""

from typing import Any

import pytest

from tests.contract.definitions import FULL_CONTAINER, definition, register
from tests.contract.refusals import refused
from tests.contract.server import ApiServer

#: What a client drops of a description before it registers it again.
NOT_REGISTERED = (
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
)
SIDE = {"name": "side", "image": "busybox", "memory": 8, "essential": False}


def arn(name: str) -> str:
    return f"arn:aws:ecs:eu-home-1:123456789012:task-definition/{name}"


def with_container(**members: Any) -> dict[str, Any]:
    """A definition whose one container has these members too; None takes one away."""
    container = {"name": "web", "image": "busybox", "memory": 64, **members}
    return definition(containerDefinitions=[{name: value for name, value in container.items() if value is not None}])


# ---------------------------------------------------------------- registering


def test_the_least_definition_gets_ecs_defaults_and_no_others(ecs: Any) -> None:
    registered = ecs.register_task_definition(**definition())
    assert registered["tags"] == []
    got = registered["taskDefinition"]
    assert got.pop("registeredAt")
    assert got == {
        "taskDefinitionArn": arn("web:1"),
        "family": "web",
        "revision": 1,
        "status": "ACTIVE",
        "networkMode": "bridge",
        "volumes": [],
        "placementConstraints": [],
        "compatibilities": ["EXTERNAL", "EC2"],
        "registeredBy": "arn:aws:iam::123456789012:root",
        "containerDefinitions": [
            {
                "name": "web",
                "image": "busybox:latest",
                "memory": 64,
                "cpu": 0,
                "essential": True,
                "portMappings": [],
                "environment": [],
                "mountPoints": [],
                "volumesFrom": [],
                "systemControls": [],
            }
        ],
    }


def test_every_member_is_kept_and_returned(ecs: Any) -> None:
    given: dict[str, Any] = {
        "family": "full",
        "taskRoleArn": "role",
        "executionRoleArn": "",
        "networkMode": "bridge",
        "containerDefinitions": [FULL_CONTAINER, {**SIDE, "portMappings": [], "environment": [], "mountPoints": []}],
        "volumes": [
            {"name": "data", "host": {"sourcePath": "/srv"}},
            {"name": "empty", "host": {}},
            {
                "name": "docker",
                "dockerVolumeConfiguration": {
                    "scope": "shared",
                    "autoprovision": True,
                    "driver": "local",
                    "driverOpts": {"type": "tmpfs"},
                    "labels": {},
                },
            },
            {"name": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "rootDirectory": "/"}},
            {"name": "later", "configuredAtLaunch": True},
        ],
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:a == b"}],
        "requiresCompatibilities": ["EC2", "FARGATE"],
        "cpu": "1024",
        "memory": "2048",
        "pidMode": "task",
        "ipcMode": "none",
        "proxyConfiguration": {"containerName": "full", "type": "APPMESH", "properties": [{"name": "a", "value": ""}]},
        "inferenceAccelerators": [{"deviceName": "d", "deviceType": "t"}],
        "ephemeralStorage": {"sizeInGiB": 30},
        "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
        "enableFaultInjection": False,
    }
    tags = [{"key": "a", "value": "b"}]
    ecs.register_task_definition(**given, tags=tags)
    answer = ecs.describe_task_definition(taskDefinition="full", include=["TAGS"])
    got = answer["taskDefinition"]
    assert answer["tags"] == tags
    side = got["containerDefinitions"][1]
    assert (side.pop("cpu"), side.pop("volumesFrom"), side.pop("systemControls")) == (0, [], [])
    assert {name: got[name] for name in given} == given
    assert got["compatibilities"] == ["EXTERNAL", "EC2", "FARGATE"]


def test_a_description_can_be_registered_again(ecs: Any) -> None:
    container = {**FULL_CONTAINER, "dockerLabels": {}, "logConfiguration": None, "command": []}
    container = {name: value for name, value in container.items() if value is not None}
    volumes: list[dict[str, Any]] = [{"name": "data", "host": {}}]
    given = definition(containerDefinitions=[container, SIDE], volumes=volumes, taskRoleArn="", cpu="", memory="")
    ecs.register_task_definition(**given)
    first = ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]
    again = {name: value for name, value in first.items() if name not in NOT_REGISTERED}
    second = ecs.register_task_definition(**again)["taskDefinition"]
    assert second["revision"] == 2
    assert {name: second[name] for name in again} == again


def test_revisions_count_up_and_are_never_given_twice(ecs: Any) -> None:
    assert [register(ecs), register(ecs), register(ecs, family="b")] == [arn("web:1"), arn("web:2"), arn("b:1")]
    ecs.deregister_task_definition(taskDefinition="web:2")
    ecs.delete_task_definitions(taskDefinitions=["web:2"])
    assert register(ecs) == arn("web:3")


@pytest.mark.parametrize(
    ("cpu", "memory", "kept"),
    [
        ("256", "512", ("256", "512")),
        ("1 vCPU", "1GB", ("1024", "1024")),
        (".25 vcpu", "0.5 gb", ("256", "512")),
        ("0.25 vCPU", "2 GB", ("256", "2048")),
        ("3333", "77", ("3333", "77")),
    ],
)
def test_task_cpu_and_memory_are_kept_in_units_and_mib(ecs: Any, cpu: str, memory: str, kept: tuple[str, str]) -> None:
    got = ecs.register_task_definition(**definition(cpu=cpu, memory=memory))["taskDefinition"]
    assert (got["cpu"], got["memory"]) == kept


@pytest.mark.parametrize(
    ("mode", "mapping", "kept"),
    [
        ("bridge", {"containerPort": 80}, {"containerPort": 80, "hostPort": 0, "protocol": "tcp"}),
        ("host", {"containerPort": 80}, {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ("awsvpc", {"containerPort": 80, "hostPort": 0}, {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}),
        ("bridge", {"containerPortRange": "80-90"}, {"containerPortRange": "80-90", "protocol": "tcp"}),
    ],
)
def test_port_mappings_get_ecs_defaults(ecs: Any, mode: str, mapping: dict[str, Any], kept: dict[str, Any]) -> None:
    given = {**with_container(portMappings=[mapping]), "networkMode": mode}
    got = ecs.register_task_definition(**given)["taskDefinition"]
    assert got["containerDefinitions"][0]["portMappings"] == [kept]


def test_memory_of_the_task_is_enough_for_its_containers(ecs: Any) -> None:
    given = {**with_container(memory=None), "memory": "64"}
    assert "memory" not in ecs.register_task_definition(**given)["taskDefinition"]["containerDefinitions"][0]


def web(**members: Any) -> dict[str, Any]:
    return {"name": "web", "image": "busybox", "memory": 64, **members}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (definition(family=""), "Family can not be blank."),
        (definition(family="a b"), "Family contains invalid characters."),
        (definition(family="a:1"), "Family contains invalid characters."),
        (definition(family="f" * 256), "255"),
        (definition(containerDefinitions=[]), "Container list cannot be empty."),
        (definition(containerDefinitions=[web(name=f"c{n}") for n in range(11)]), "more than 10"),
        (with_container(name=None), "Container.name should not be null or empty."),
        (with_container(name=""), "Container.name should not be null or empty."),
        (with_container(name="a b"), "Container.name contains invalid characters"),
        (with_container(image=None), "Container.image should not be null or empty"),
        (with_container(image="$IMAGE"), "Container.image contains invalid characters: '$IMAGE'"),
        (definition(containerDefinitions=[web(), web()]), "'web' is given to several containers"),
        (with_container(essential=False), "Task definition doesn't have any essential container."),
        (
            with_container(memory=None),
            "Invalid setting for container 'web'. At least one of 'memory' or 'memoryReservation' must be specified.",
        ),
        (with_container(memory=5), "at least 6 MiB, but is 5"),
        (with_container(memory=None, memoryReservation=5), "at least 6 MiB, but is 5"),
        (with_container(memoryReservation=65), "'memory' value (64) must not be less than 'memoryReservation' (65)"),
        ({**with_container(), "memory": "63"}, "Its memory (64 MiB) must not be greater than the task's (63 MiB)"),
        (
            definition(
                memory="64", containerDefinitions=[{**web(name=n), "memoryReservation": 40} for n in ("a", "b")]
            ),
            "sum of all container 'memoryReservation'",
        ),
        ({**with_container(cpu=257), "cpu": "256"}, "sum of all container 'cpu' values cannot be greater"),
        (with_container(cpu=-1), "Invalid 'cpu' setting for container 'web'. It must be at least 0"),
        (definition(cpu="much"), "Invalid 'cpu' setting for task"),
        (definition(cpu="0"), "Invalid 'cpu' setting for task"),
        (definition(memory="1TB"), "Invalid 'memory' setting for task"),
        (with_container(dependsOn=[{"containerName": "x", "condition": "START"}]), "names 'x', which isn't in"),
        (with_container(dependsOn=[{"containerName": "web", "condition": "START"}]), "names the container itself"),
        (
            definition(
                containerDefinitions=[
                    web(name="a", dependsOn=[{"containerName": "b", "condition": "START"}]),
                    web(name="b", dependsOn=[{"containerName": "c", "condition": "START"}]),
                    web(name="c", dependsOn=[{"containerName": "a", "condition": "START"}]),
                ]
            ),
            "in a cycle",
        ),
        (
            definition(
                containerDefinitions=[
                    web(name="a", dependsOn=[{"containerName": "b", "condition": "SUCCESS"}]),
                    web(name="b"),
                ]
            ),
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        ),
        (
            definition(
                containerDefinitions=[
                    web(name="a", dependsOn=[{"containerName": "b", "condition": "HEALTHY"}]),
                    web(name="b"),
                ]
            ),
            "must have a health check",
        ),
        (with_container(portMappings=[{"hostPort": 80}]), "invalid containerPort None"),
        (with_container(portMappings=[{"containerPort": 0}]), "between 1 and 65535"),
        (with_container(portMappings=[{"containerPort": 65536}]), "between 1 and 65535"),
        (with_container(portMappings=[{"containerPort": 80, "hostPort": 65536}]), "between 0 and 65535"),
        (with_container(portMappings=[{"containerPort": 80, "hostPort": -1}]), "between 0 and 65535"),
        (
            with_container(portMappings=[{"containerPort": 80, "hostPort": 8}, {"containerPort": 81, "hostPort": 8}]),
            "the host port 8/tcp is asked for more than once",
        ),
        (
            {**with_container(portMappings=[{"containerPort": 80, "hostPort": 81}]), "networkMode": "host"},
            "When networkMode=host, the host ports and container ports in port mappings must match",
        ),
        ({**with_container(portMappings=[{"containerPort": 80}]), "networkMode": "none"}, "networkMode=none"),
        (with_container(mountPoints=[{"sourceVolume": "x", "containerPath": "/x"}]), "Unknown volume 'x'"),
        (with_container(mountPoints=[{"sourceVolume": "x"}]), "needs a sourceVolume and a containerPath"),
        (definition(volumes=[{}]), "invalid name ''"),
        (definition(volumes=[{"name": "a"}, {"name": "a"}]), "'a' is given more than once"),
        (
            definition(volumes=[{"name": "a", "host": {"sourcePath": "/"}, "dockerVolumeConfiguration": {}}]),
            "both a host path and a dockerVolumeConfiguration",
        ),
        (with_container(restartPolicy={"enabled": True, "restartAttemptPeriod": 59}), "between 60 and 1800"),
        (with_container(restartPolicy={"enabled": True, "restartAttemptPeriod": 1801}), "between 60 and 1800"),
        (with_container(restartPolicy={"enabled": True, "ignoredExitCodes": [0] * 51}), "at most 50"),
        (with_container(healthCheck={"command": []}), "must not be empty"),
        (with_container(healthCheck={"command": ["true"]}), "must begin with CMD"),
        (with_container(healthCheck={"command": ["CMD"]}), "nothing follows CMD"),
        (with_container(healthCheck={"command": ["CMD", "x"], "interval": 4}), "between 5 and 300, but is 4"),
        (with_container(healthCheck={"command": ["CMD", "x"], "timeout": 61}), "between 2 and 60"),
        (with_container(healthCheck={"command": ["CMD", "x"], "retries": 11}), "between 1 and 10"),
        (with_container(healthCheck={"command": ["CMD", "x"], "startPeriod": 301}), "between 0 and 300"),
        (with_container(startTimeout=1), "at least 2"),
        (with_container(stopTimeout=-1), "at least 0"),
        (with_container(environment=[{"value": "x"}]), "environment of container 'web': each entry needs a name"),
        (with_container(systemControls=[{"namespace": "a"}]), "needs a value"),
        (with_container(ulimits=[{"name": "nofile", "softLimit": 2, "hardLimit": 1}]), "above its hardLimit"),
        (
            with_container(logConfiguration={"logDriver": "awslogs", "options": {"awslogs-group": "g"}}),
            "Log driver awslogs requires options: awslogs-region (container 'web').",
        ),
        (definition(placementConstraints=[{"type": "memberOf"}]), "needs the type memberOf and an expression"),
        (with_container(command=["x" * 65536]), "Max allowed length is '65536' bytes"),
    ],
)
def test_what_could_never_run_is_refused(ecs: Any, server: ApiServer, given: dict[str, Any], text: str) -> None:
    with server.unchanged():
        code, message = refused(ecs.register_task_definition, **given)
    assert code == "ClientException"
    assert text in message


@pytest.mark.parametrize(
    "member",
    [{"networkMode": "weird"}, {"requiresCompatibilities": ["MOON"]}, {"tags": [{"key": "aws:x", "value": ""}]}],
)
def test_what_breaks_the_model_is_an_invalid_parameter(ecs: Any, server: ApiServer, member: dict[str, Any]) -> None:
    with server.unchanged():
        assert refused(ecs.register_task_definition, **definition(**member))[0] == "InvalidParameterException"


# ---------------------------------------------------------------- describing


@pytest.mark.parametrize("reference", ["web", "web:2", arn("web:2"), arn("web")])
def test_it_is_found_by_family_revision_and_arn(ecs: Any, reference: str) -> None:
    register(ecs)
    register(ecs)
    got = ecs.describe_task_definition(taskDefinition=reference)
    assert got["taskDefinition"]["taskDefinitionArn"] == arn("web:2")
    assert "tags" not in got


@pytest.mark.parametrize(
    "reference",
    ["nope", "web:2", "web:", "web:x", "", arn("nope"), arn("web:1").replace("eu-home-1", "us-east-1"), "arn:x"],
)
def test_a_missing_one_is_a_client_exception(ecs: Any, reference: str) -> None:
    register(ecs)
    found = refused(ecs.describe_task_definition, taskDefinition=reference)
    assert found == ("ClientException", "Unable to describe task definition.")


def test_a_family_means_its_newest_active_revision(ecs: Any) -> None:
    for _ in range(3):
        register(ecs)
    ecs.deregister_task_definition(taskDefinition="web:3")
    assert ecs.describe_task_definition(taskDefinition="web")["taskDefinition"]["revision"] == 2
    for revision in (1, 2):
        ecs.deregister_task_definition(taskDefinition=f"web:{revision}")
    assert refused(ecs.describe_task_definition, taskDefinition="web")[0] == "ClientException"
    assert ecs.describe_task_definition(taskDefinition="web:3")["taskDefinition"]["status"] == "INACTIVE"


# ---------------------------------------------------------------- deregistering and deleting


def test_deregistering_makes_it_inactive_once(ecs: Any, server: ApiServer) -> None:
    register(ecs)
    first = ecs.deregister_task_definition(taskDefinition="web:1")["taskDefinition"]
    assert first["status"] == "INACTIVE"
    assert first["deregisteredAt"] >= first["registeredAt"]
    with server.unchanged():
        assert ecs.deregister_task_definition(taskDefinition=arn("web:1"))["taskDefinition"] == first


@pytest.mark.parametrize(
    ("reference", "code", "text"),
    [
        ("web", "ClientException", "Revision is missing."),
        (arn("web"), "ClientException", "Revision is missing."),
        ("web:x", "InvalidParameterException", "Invalid revision number. Number: x"),
        ("web:", "InvalidParameterException", "Invalid revision number. Number: "),
        ("web:2", "ClientException", "The specified task definition does not exist."),
    ],
)
def test_what_cannot_be_deregistered_is_refused(
    ecs: Any, server: ApiServer, reference: str, code: str, text: str
) -> None:
    register(ecs)
    with server.unchanged():
        found, message = refused(ecs.deregister_task_definition, taskDefinition=reference)
    assert (found, text in message) == (code, True)


def test_only_inactive_revisions_are_deleted(ecs: Any) -> None:
    for _ in range(2):
        register(ecs)
    ecs.deregister_task_definition(taskDefinition="web:1")
    answer = ecs.delete_task_definitions(taskDefinitions=["web:1", "web:2", "web:9", "web"])
    [deleted] = answer["taskDefinitions"]
    assert (deleted["taskDefinitionArn"], deleted["status"]) == (arn("web:1"), "DELETE_IN_PROGRESS")
    assert deleted["deleteRequestedAt"]
    assert [failure["arn"] for failure in answer["failures"]] == [arn("web:2"), "web:9", "web"]
    assert "ACTIVE" in answer["failures"][0]["reason"]
    assert "does not exist" in answer["failures"][1]["reason"]
    assert "identifier is invalid" in answer["failures"][2]["reason"]
    assert ecs.list_task_definitions(status="DELETE_IN_PROGRESS")["taskDefinitionArns"] == [arn("web:1")]


def test_one_call_deletes_1_to_10(ecs: Any) -> None:
    assert refused(ecs.delete_task_definitions, taskDefinitions=[])[0] == "InvalidParameterException"
    code, message = refused(ecs.delete_task_definitions, taskDefinitions=["web:1"] * 11)
    assert (code, "10" in message) == ("InvalidParameterException", True)


# ---------------------------------------------------------------- listing


@pytest.fixture
def many(ecs: Any) -> list[str]:
    """12 revisions of web, 2 of api: more than sort alike as text and as numbers. web:3 is INACTIVE."""
    for _ in range(12):
        register(ecs)
    for _ in range(2):
        register(ecs, family="api")
    ecs.deregister_task_definition(taskDefinition="web:3")
    revisions = [f"api:{n}" for n in (1, 2)] + [f"web:{n}" for n in range(1, 13) if n != 3]
    return [arn(name) for name in revisions]


def test_lists_are_in_order_of_family_and_number(ecs: Any, many: list[str]) -> None:
    assert ecs.list_task_definitions()["taskDefinitionArns"] == many
    assert ecs.list_task_definitions(sort="DESC")["taskDefinitionArns"] == many[::-1]
    assert ecs.list_task_definitions(familyPrefix="api")["taskDefinitionArns"] == many[:2]
    assert ecs.list_task_definitions(familyPrefix="we")["taskDefinitionArns"] == []
    assert ecs.list_task_definitions(status="INACTIVE")["taskDefinitionArns"] == [arn("web:3")]


@pytest.mark.parametrize("sort", ["ASC", "DESC"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_miss_and_repeat_nothing(ecs: Any, many: list[str], sort: str, size: int) -> None:
    paginator = ecs.get_paginator("list_task_definitions")
    pages = list(paginator.paginate(sort=sort, PaginationConfig={"PageSize": size}))
    assert all(len(page["taskDefinitionArns"]) <= size for page in pages)
    assert [a for page in pages for a in page["taskDefinitionArns"]] == (many if sort == "ASC" else many[::-1])


def test_a_token_of_another_operation_is_refused(ecs: Any) -> None:
    register(ecs)
    register(ecs, family="b")
    token = ecs.list_task_definition_families(maxResults=1)["nextToken"]
    assert refused(ecs.list_task_definitions, nextToken=token)[0] == "InvalidParameterException"


def test_families_are_listed_by_status_and_prefix(ecs: Any) -> None:
    for family in ("api", "web", "worker"):
        register(ecs, family=family)
    ecs.deregister_task_definition(taskDefinition="api:1")

    def families(**arguments: Any) -> list[str]:
        pages = ecs.get_paginator("list_task_definition_families").paginate(
            **arguments, PaginationConfig={"PageSize": 1}
        )
        return [family for page in pages for family in page["families"]]

    assert families() == families(status="ALL") == ["api", "web", "worker"]
    assert families(status="ACTIVE") == ["web", "worker"]
    assert families(status="INACTIVE") == ["api"]
    assert families(familyPrefix="w") == ["web", "worker"]
