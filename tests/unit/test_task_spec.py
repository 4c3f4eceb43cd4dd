"""From ECS documents to specs: each member, the rules of overrides, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from controlplane.api.ecs.log_shipping import LogDefaults, default_shipping
from controlplane.api.ecs.units import cpu_units, memory_mib
from controlplane.api.ecs.unsupported import PASSED_OVER
from controlplane.api.errors import ApiError, ClientException, InvalidParameterException
from homeport.spec import (
    ContainerSpec,
    Dependency,
    DockerVolume,
    HealthCheck,
    LogConfiguration,
    Mount,
    PortMapping,
    Resources,
    RestartPolicy,
    TaskSpec,
    Ulimit,
    Volume,
)
from tests.fakes.records import a_definition, a_spec

WEB: dict[str, Any] = {"name": "web", "image": "busybox", "memory": 64}


def build(*containers: dict[str, Any], overrides: dict[str, Any] | None = None, **members: Any) -> TaskSpec:
    return a_spec(a_definition(*(containers or (WEB,)), revision=3, **members), overrides)


def container(member: str, value: Any, **more: Any) -> ContainerSpec:
    return build({**WEB, member: value, **more}).containers[0]


def override(**members: Any) -> dict[str, Any]:
    return {"containerOverrides": [{"name": "web", **members}]}


def test_the_least_a_definition_can_say() -> None:
    assert build() == TaskSpec(
        task_arn="arn:aws:ecs:eu-home-1:123456789012:task/c/t",
        cluster="c",
        family="web",
        revision=3,
        group="g",
        containers=(
            ContainerSpec(
                name="web",
                image="busybox",
                memory_mib=64,
                shipping=default_shipping("c", "web", LogDefaults()),
                container_arn="arn:aws:ecs:eu-home-1:123456789012:container/c/t/id-0",
            ),
        ),
    )


@pytest.mark.parametrize(
    ("member", "given", "attribute", "expected"),
    [
        ("command", ["a", "b"], "command", ("a", "b")),
        ("command", [], "command", None),
        ("entryPoint", ["/e"], "entry_point", ("/e",)),
        ("entryPoint", [], "entry_point", None),
        ("environment", [{"name": "A", "value": "1"}, {"name": "B"}], "environment", {"A": "1", "B": ""}),
        ("user", "1000:1000", "user", "1000:1000"),
        ("workingDirectory", "/w", "working_directory", "/w"),
        ("cpu", 256, "cpu_units", 256),
        ("memoryReservation", 32, "memory_reservation_mib", 32),
        ("essential", False, "essential", False),
        ("portMappings", [{"containerPort": 80}], "ports", (PortMapping(container_port=80),)),
        (
            "portMappings",
            [{"containerPort": 53, "hostPort": 5353, "protocol": "udp", "name": "dns", "appProtocol": "http"}],
            "ports",
            (PortMapping(container_port=53, host_port=5353, protocol="udp", name="dns"),),
        ),
        (
            "dependsOn",
            [{"containerName": "db", "condition": "HEALTHY"}],
            "depends_on",
            (Dependency(container="db", condition="HEALTHY"),),
        ),
        (
            "healthCheck",
            {"command": ["CMD-SHELL", "true"]},
            "health_check",
            HealthCheck(command=("CMD-SHELL", "true"), interval_s=30, timeout_s=5, retries=3, start_period_s=0),
        ),
        (
            "healthCheck",
            {"command": ["CMD", "x"], "interval": 5, "timeout": 2, "retries": 1, "startPeriod": 9},
            "health_check",
            HealthCheck(command=("CMD", "x"), interval_s=5, timeout_s=2, retries=1, start_period_s=9),
        ),
        ("healthCheck", {"command": ["NONE"]}, "health_check", None),
        ("startTimeout", 7, "start_timeout_s", 7),
        ("stopTimeout", 0, "stop_timeout_s", 0),
        (
            "restartPolicy",
            {"enabled": True, "ignoredExitCodes": [0, 3]},
            "restart_policy",
            RestartPolicy(enabled=True, ignored_exit_codes=(0, 3), attempt_period_s=300),
        ),
        (
            "restartPolicy",
            {"enabled": True, "restartAttemptPeriod": 60},
            "restart_policy",
            RestartPolicy(enabled=True, attempt_period_s=60),
        ),
        ("dockerLabels", {"a": "b"}, "docker_labels", {"a": "b"}),
        (
            "logConfiguration",
            {"logDriver": "json-file", "options": {"max-size": "1m"}},
            "log",
            LogConfiguration(driver="json-file", options={"max-size": "1m"}),
        ),
        ("logConfiguration", {"logDriver": "awslogs", "options": {"awslogs-group": "g"}}, "log", None),
        ("hostname", "h", "hostname", "h"),
        ("privileged", True, "privileged", True),
        ("readonlyRootFilesystem", True, "read_only_root", True),
        ("interactive", True, "interactive", True),
        ("pseudoTerminal", True, "pseudo_terminal", True),
        ("dnsServers", ["1.1.1.1"], "dns_servers", ("1.1.1.1",)),
        ("dnsSearchDomains", ["local"], "dns_search_domains", ("local",)),
        ("extraHosts", [{"hostname": "h", "ipAddress": "10.0.0.1"}], "extra_hosts", ("h:10.0.0.1",)),
        ("dockerSecurityOptions", ["no-new-privileges"], "docker_security_options", ("no-new-privileges",)),
        (
            "ulimits",
            [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
            "ulimits",
            (Ulimit(name="nofile", soft=1, hard=2),),
        ),
        ("systemControls", [{"namespace": "net.core.somaxconn", "value": "9"}], "sysctls", {"net.core.somaxconn": "9"}),
    ],
)
def test_each_member_of_a_container(member: str, given: Any, attribute: str, expected: Any) -> None:
    assert getattr(container(member, given), attribute) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "v"}, Volume(name="v")),
        ({"name": "v", "host": {}}, Volume(name="v")),
        ({"name": "v", "host": {"sourcePath": "/srv"}}, Volume(name="v", host_path="/srv")),
        ({"name": "v", "dockerVolumeConfiguration": {}}, Volume(name="v")),
        (
            {
                "name": "v",
                "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": True, "labels": {"a": "b"}},
            },
            Volume(name="v", docker=DockerVolume(scope="shared", autoprovision=True, labels={"a": "b"})),
        ),
        (
            {"name": "v", "dockerVolumeConfiguration": {"driver": "nfs", "driverOpts": {"o": "x"}}},
            Volume(name="v", docker=DockerVolume(driver="nfs", driver_opts={"o": "x"})),
        ),
    ],
)
def test_volumes(given: dict[str, Any], expected: Volume) -> None:
    mount = {"sourceVolume": "v", "containerPath": "/data", "readOnly": True}
    spec = build({**WEB, "mountPoints": [mount]}, volumes=[given])
    assert spec.volumes == (expected,)
    assert spec.containers[0].mounts == (Mount(volume="v", container_path="/data", read_only=True),)


def test_host_network_publishes_the_container_port() -> None:
    spec = build({**WEB, "portMappings": [{"containerPort": 80}]}, networkMode="host")
    assert spec.network_mode == "host"
    assert spec.containers[0].ports == (PortMapping(container_port=80, host_port=80),)
    assert Resources.of_task(spec).ports == {("tcp", 80)}


def test_task_limits_are_read_in_both_of_ecs_forms() -> None:
    assert (build(cpu="512", memory="1024").cpu_units, build(cpu="512", memory="1024").memory_mib) == (512, 1024)
    assert (build(cpu=".5 vCPU", memory="1GB").cpu_units, build(cpu="1", memory="0.5 GB").memory_mib) == (512, 512)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1 GB", "1,5 vCPU", "vCPU", "."])
def test_bad_cpu(text: str) -> None:
    with pytest.raises(ClientException, match="Invalid 'cpu' setting for task"):
        cpu_units(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1 vCPU", "GB", "."])
def test_bad_memory(text: str) -> None:
    with pytest.raises(ClientException, match="Invalid 'memory' setting for task"):
        memory_mib(text)


# ---------------------------------------------------------------- overrides


def test_a_command_override_replaces_the_command_and_leaves_the_entry_point() -> None:
    spec = build({**WEB, "entryPoint": ["/e"], "command": ["old", "words"]}, overrides=override(command=["new"]))
    assert spec.containers[0].command == ("new",)
    assert spec.containers[0].entry_point == ("/e",)


def test_environment_overrides_merge_and_win() -> None:
    web = {**WEB, "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    spec = build(web, overrides=override(environment=[{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]))
    assert spec.containers[0].environment == {"A": "1", "B": "3", "C": "4"}


def test_limits_can_be_overridden_per_container_and_task() -> None:
    given = override(cpu=10, memory=100, memoryReservation=50) | {"cpu": "20", "memory": "200"}
    spec = build({**WEB, "cpu": 5}, overrides=given, cpu="10", memory="100")
    web = spec.containers[0]
    assert (web.cpu_units, web.memory_mib, web.memory_reservation_mib) == (10, 100, 50)
    assert (spec.cpu_units, spec.memory_mib) == (20, 200)


def test_an_override_touches_its_container_only() -> None:
    spec = build(WEB, {**WEB, "name": "db"}, overrides=override(command=["x"]))
    assert [c.command for c in spec.containers] == [("x",), None]


@pytest.mark.parametrize(
    ("given", "error", "part"),
    [
        (
            {"containerOverrides": [{"name": "nobody"}]},
            InvalidParameterException,
            "Override for container named nobody is not a container in the TaskDefinition.",
        ),
        ({"containerOverrides": [{"command": ["x"]}]}, InvalidParameterException, "must specify the name"),
        (override(command=["x" * 8192]), InvalidParameterException, "at most 8192"),
        (override(memory=5), ClientException, "at least 6 MiB"),
        (override(memoryReservation=65), ClientException, "must not be less than 'memoryReservation'"),
        ({"cpu": "nothing"}, ClientException, "Invalid 'cpu' setting"),
        ({"memory": "32"}, ClientException, "must not be greater than the task's"),
        (override(cpu=99) | {"cpu": "50"}, ClientException, "The containers ask for 99 CPU units, the task for 50"),
        (
            override(resourceRequirements=[{"type": "InferenceAccelerator", "value": "1"}]),
            ClientException,
            "override of container web: resourceRequirements of type InferenceAccelerator",
        ),
        (override(resourceRequirements=[{"type": "GPU", "value": "none"}]), ClientException, "but is 'none'"),
        (override(environmentFiles=[{"type": "s3", "value": "arn"}]), ClientException, "environmentFiles"),
        ({"inferenceAcceleratorOverrides": [{}]}, ClientException, "inferenceAcceleratorOverrides"),
    ],
)
def test_overrides_that_cannot_be_used(given: dict[str, Any], error: type[ApiError], part: str) -> None:
    with pytest.raises(error, match=re.escape(part)):
        build(overrides=given)


# ---------------------------------------------------------------- what Homeport can't do


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"networkMode": "awsvpc"}, "networkMode awsvpc isn't supported, use bridge, host, none"),
        ({"networkMode": "default"}, "networkMode default"),
        ({"pidMode": "task"}, "pidMode"),
        ({"ipcMode": "host"}, "ipcMode"),
        ({"proxyConfiguration": {"containerName": "envoy"}}, "proxyConfiguration"),
        ({"enableFaultInjection": True}, "enableFaultInjection"),
        ({"volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs"}}]}, "volume v: efsVolume"),
        ({"volumes": [{"name": "v", "configuredAtLaunch": True}]}, "volume v: configuredAtLaunch"),
    ],
)
def test_task_members_that_are_refused(members: dict[str, Any], part: str) -> None:
    with pytest.raises(ClientException) as caught:
        build(**members)
    assert part in caught.value.message
    assert "Homeport can't run this task definition" in caught.value.message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("links", ["db"]),
        ("volumesFrom", [{"sourceContainer": "db"}]),
        ("secrets", [{"name": "S", "valueFrom": "arn"}]),
        ("repositoryCredentials", {"credentialsParameter": "arn"}),
        ("environmentFiles", [{"type": "s3", "value": "arn"}]),
        ("linuxParameters", {"initProcessEnabled": True}),
        ("linuxParameters", {"capabilities": {"add": ["SYS_ADMIN"]}}),
        ("resourceRequirements", [{"type": "InferenceAccelerator", "value": "device"}]),
        ("resourceRequirements", [{"type": "GPU", "value": "1", "sharingStrategy": {"type": "TIME_SLICING"}}]),
        ("firelensConfiguration", {"type": "fluentbit"}),
        ("credentialSpecs", ["x"]),
        ("disableNetworking", True),
        ("portMappings", [{"containerPortRange": "80-90"}]),
        ("logConfiguration", {"logDriver": "splunk", "secretOptions": [{"name": "a", "valueFrom": "b"}]}),
        ("logConfiguration", {"logDriver": "awsfirelens"}),
    ],
)
def test_container_members_that_are_refused(member: str, value: Any) -> None:
    with pytest.raises(ClientException, match="container web: "):
        container(member, value)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("links", []),
        ("volumesFrom", []),
        ("secrets", []),
        ("linuxParameters", {"initProcessEnabled": False, "capabilities": {"add": [], "drop": []}}),
        ("disableNetworking", False),
        ("versionConsistency", "disabled"),
    ],
)
def test_members_that_ask_for_nothing_are_no_obstacle(member: str, value: Any) -> None:
    assert container(member, value).name == "web"


def test_a_member_that_nobody_knows_is_refused_rather_than_passed_over() -> None:
    with pytest.raises(ClientException, match="container web: gpuSharing isn't supported"):
        container("gpuSharing", {"mode": "time"})
    with pytest.raises(ClientException, match=": quantumMode isn't supported"):
        build(quantumMode="on")


def test_every_member_of_the_model_is_honoured_refused_or_passed_over() -> None:
    """Whatever a definition can say today, in the model's own words, is decided on; what is passed over is listed."""
    model = botocore.session.get_session().get_service_model("ecs")
    honoured = {"name", "image", "memory", "containerDefinitions", "family", "revision", "networkMode"}
    passed_over = set()
    builders: dict[str, Callable[[str, Any], TaskSpec]] = {
        "RegisterTaskDefinitionRequest": lambda member, value: build(**{member: value}),
        "ContainerDefinition": lambda member, value: build({**WEB, member: value}),
    }
    for shape, build_with in builders.items():
        for member, kind in model.shape_for(shape).members.items():
            if member in honoured | {"tags"}:
                continue
            sample: Any = SAMPLES.get(member, SAMPLE_OF_TYPE.get(kind.type_name))
            try:
                spec = build_with(member, int(sample) if kind.type_name == "integer" else sample)
            except ApiError:
                continue
            if spec == build():
                passed_over.add(member)
    # runtimePlatform and placementConstraints are placement's.
    assert passed_over - {"runtimePlatform", "placementConstraints", "compatibilities"} <= set(PASSED_OVER)


SAMPLE_OF_TYPE: dict[str, Any] = {
    "string": "x",
    "integer": 7,
    "boolean": True,
    "list": ["x"],
    "map": {"a": "b"},
    "structure": {"a": "b"},
}
SAMPLES: dict[str, Any] = {
    "cpu": "128",
    "essential": False,
    "dependsOn": [{"containerName": "db", "condition": "START"}],
    "environment": [{"name": "A", "value": "1"}],
    "extraHosts": [{"hostname": "h", "ipAddress": "10.0.0.1"}],
    "healthCheck": {"command": ["CMD", "x"]},
    "logConfiguration": {"logDriver": "syslog"},
    "mountPoints": [{"sourceVolume": "v", "containerPath": "/d"}],
    "portMappings": [{"containerPort": 1}],
    "resourceRequirements": [{"type": "GPU", "value": "1"}],
    "restartPolicy": {"enabled": True},
    "systemControls": [{"namespace": "a", "value": "b"}],
    "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 1}],
    "volumes": [{"name": "v"}],
}


def test_what_is_passed_over_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "task-definitions.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| (.+?) \|$", page.split("**Refused**")[0], re.M)) == set(PASSED_OVER.items())


def test_aws_machinery_is_passed_over() -> None:
    spec = build(
        executionRoleArn="arn:aws:iam::1:role/x",
        taskRoleArn="arn:aws:iam::1:role/y",
        requiresCompatibilities=["FARGATE"],
        ephemeralStorage={"sizeInGiB": 21},
        overrides={"taskRoleArn": "arn:aws:iam::1:role/z"},
    )
    assert spec == build()


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ClientException) as caught:
        build({**WEB, "links": ["a"], "secrets": [{"name": "S", "valueFrom": "arn"}]}, pidMode="host")
    assert all(part in caught.value.message for part in ("pidMode", "links", "secrets"))


def test_a_mount_of_an_unknown_volume() -> None:
    with pytest.raises(ClientException, match="Unknown volume 'v' in container 'web'"):
        build({**WEB, "mountPoints": [{"sourceVolume": "v", "containerPath": "/d"}]})


def test_a_container_without_any_memory_limit() -> None:
    without = {"name": "web", "image": "busybox"}
    with pytest.raises(ClientException, match="'memory' or 'memoryReservation' must be specified"):
        build(without)
    assert build(without, memory="64").memory_mib == 64
