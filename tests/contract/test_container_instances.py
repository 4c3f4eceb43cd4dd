"""Container instances and their attributes, with real boto3."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.fleet import Fleet, refused
from tests.contract.server import ApiServer

WEB = {
    "name": "web",
    "image": "busybox",
    "cpu": 100,
    "memory": 64,
    "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "udp"}],
}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def task_arn(ecs: Any, fleet: Fleet) -> str:
    """A task on host-1, whose id is in its containerInstanceArn."""
    fleet.add_host("host-1", tags={"site": "home"})
    ecs.register_task_definition(family="web", containerDefinitions=[WEB])
    arn: str = ecs.run_task(taskDefinition="web")["tasks"][0]["taskArn"]
    return arn


@pytest.fixture
def host(ecs: Any, task_arn: str) -> str:
    arn: str = ecs.describe_tasks(tasks=[task_arn])["tasks"][0]["containerInstanceArn"]
    return arn


def resources(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["name"]: entry.get("stringSetValue", entry["integerValue"]) for entry in listed}


def test_describe_shows_what_a_host_has_and_what_is_left(ecs: Any, fleet: Fleet, host: str, task_arn: str) -> None:
    answer = ecs.describe_container_instances(containerInstances=[host, host.rsplit("/")[-1], "gone"])
    assert answer["failures"] == [
        {"arn": "arn:aws:ecs:eu-home-1:123456789012:container-instance/default/gone", "reason": "MISSING"}
    ]
    instance = answer["containerInstances"][0]
    assert instance == answer["containerInstances"][1]
    assert instance["containerInstanceArn"] == host
    assert (instance["status"], instance["agentConnected"]) == ("ACTIVE", True)
    assert (instance["pendingTasksCount"], instance["runningTasksCount"]) == (1, 0)
    assert resources(instance["registeredResources"]) == {
        "CPU": 4096,
        "MEMORY": 8192,
        "PORTS": ["22"],
        "PORTS_UDP": [],
    }
    assert resources(instance["remainingResources"]) == {
        "CPU": 3996,
        "MEMORY": 8128,
        "PORTS": ["22", "8080"],
        "PORTS_UDP": ["53"],
    }
    assert instance["ec2InstanceId"] == "mi-" + host.rsplit("/")[-1][:17]
    assert instance["versionInfo"] == {"agentVersion": "1.0.0", "dockerVersion": "27.0.0"}
    assert {"name": "ecs.os-type", "value": "linux"} in instance["attributes"]
    assert instance["tags"] == []
    assert "healthStatus" not in instance
    fleet.running(task_arn)
    instance = ecs.describe_container_instances(containerInstances=[host], include=["TAGS"])["containerInstances"][0]
    assert (instance["pendingTasksCount"], instance["runningTasksCount"]) == (0, 1)
    assert instance["tags"] == [{"key": "site", "value": "home"}]
    fleet.stopped(task_arn)
    instance = ecs.describe_container_instances(containerInstances=[host])["containerInstances"][0]
    assert resources(instance["remainingResources"]) == resources(instance["registeredResources"])


def test_describe_shows_health_when_asked(ecs: Any, fleet: Fleet, host: str) -> None:
    def health() -> Any:
        answer = ecs.describe_container_instances(containerInstances=[host], include=["CONTAINER_INSTANCE_HEALTH"])
        return answer["containerInstances"][0]["healthStatus"]

    assert health()["overallStatus"] == "OK"
    assert {check["type"]: check["status"] for check in health()["details"]} == {
        "AGENT_CONNECTIVITY": "OK",
        "CONTAINER_RUNTIME": "OK",
    }
    fleet.set_presence(fleet.record_id(host), DISK="97 % used")
    runtime = health()["details"][1]
    assert health()["overallStatus"] == "IMPAIRED"
    assert (runtime["status"], runtime["statusReason"]) == ("IMPAIRED", "DISK: 97 % used")
    fleet.set_presence(fleet.record_id(host), connected=False)
    assert health()["details"][0]["status"] == "IMPAIRED"


def test_list_by_status_and_query(ecs: Any, fleet: Fleet) -> None:
    hosts = {fleet.add_host(f"host-{n}", attributes={"rack": "ab"[n % 2]}): n for n in range(5)}
    names = {arn.rsplit("/")[-1]: arn for arn in ecs.list_container_instances()["containerInstanceArns"]}
    assert set(names) == set(hosts)

    def listed(**arguments: Any) -> set[int]:
        answer = ecs.list_container_instances(**arguments)
        return {hosts[arn.rsplit("/")[-1]] for arn in answer["containerInstanceArns"]}

    drained = next(iter(hosts))
    ecs.update_container_instances_state(containerInstances=[drained], status="DRAINING")
    assert listed(status="DRAINING") == {hosts[drained]}
    assert listed(status="ACTIVE") == set(range(5)) - {hosts[drained]}
    assert listed(filter="attribute:rack == b") == {1, 3}
    assert listed(filter="attribute:rack == b and runningTasksCount > 0") == set()
    assert listed(filter=f"ec2InstanceId == mi-{drained[:17]}") == {hosts[drained]}
    ecs.deregister_container_instance(containerInstance=drained)
    assert listed() == set(range(5)) - {hosts[drained]}
    code, message = refused(ecs.list_container_instances, filter="attribute:rack is b")
    assert code == "InvalidParameterException"
    assert "unexpected 'is' at position 16" in message
    pages = list(ecs.get_paginator("list_container_instances").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["containerInstanceArns"]) for page in pages] == [3, 1]


def test_a_draining_host_gets_no_new_tasks_and_keeps_its_own(ecs: Any, host: str, task_arn: str) -> None:
    answer = ecs.update_container_instances_state(containerInstances=[host, "gone"], status="DRAINING")
    assert [instance["status"] for instance in answer["containerInstances"]] == ["DRAINING"]
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]
    answer = ecs.run_task(taskDefinition="web")
    assert [failure["reason"] for failure in answer["failures"]] == ["DRAINING"]
    assert ecs.describe_tasks(tasks=[task_arn])["tasks"][0]["desiredStatus"] == "RUNNING"
    version = ecs.describe_container_instances(containerInstances=[host])["containerInstances"][0]["version"]
    again = ecs.update_container_instances_state(containerInstances=[host], status="DRAINING")
    assert again["containerInstances"][0]["version"] == version
    ecs.update_container_instances_state(containerInstances=[host], status="ACTIVE")
    ecs.stop_task(task=task_arn)
    assert [f["reason"] for f in ecs.run_task(taskDefinition="web")["failures"]] == ["RESOURCE:PORTS"]


def test_update_state_refuses_other_states_and_long_lists(ecs: Any, server: ApiServer, host: str) -> None:
    with server.unchanged():
        code, _ = refused(ecs.update_container_instances_state, containerInstances=[host], status="REGISTERING")
        assert code == "InvalidParameterException"
        many = [str(n) for n in range(11)]
        _, message = refused(ecs.update_container_instances_state, containerInstances=many, status="ACTIVE")
        assert "at most 10" in message


def test_deregister_refuses_while_tasks_run_unless_forced(
    ecs: Any, server: ApiServer, host: str, task_arn: str
) -> None:
    with server.unchanged():
        assert refused(ecs.deregister_container_instance, containerInstance=host) == (
            "InvalidParameterException",
            "Found running tasks on the instance.",
        )
    instance = ecs.deregister_container_instance(containerInstance=host, force=True)["containerInstance"]
    assert (instance["status"], instance["pendingTasksCount"]) == ("INACTIVE", 0)
    task = ecs.describe_tasks(tasks=[task_arn])["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    assert task["stoppedReason"] == "Container instance deregistration forced by user"
    [container] = task["containers"]
    assert container["lastStatus"] == "STOPPED", "though its host never reported it"
    assert "exitCode" not in container
    described = ecs.describe_container_instances(containerInstances=[host])["containerInstances"][0]
    assert described["status"] == "INACTIVE"
    wanted = ("InvalidParameterException", "The referenced container instance was not found.")
    assert refused(ecs.deregister_container_instance, containerInstance=host) == wanted
    assert refused(ecs.deregister_container_instance, containerInstance="gone") == wanted
    updated = ecs.update_container_instances_state(containerInstances=[host], status="ACTIVE")
    assert [failure["reason"] for failure in updated["failures"]] == ["INACTIVE"]
    assert refused(ecs.run_task, taskDefinition="web")[1] == "No Container Instances were found in your cluster."


def test_calls_of_amazons_agent_are_refused_by_name(ecs: Any, host: str) -> None:
    calls: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("RegisterContainerInstance", ecs.register_container_instance, {}),
        ("SubmitTaskStateChange", ecs.submit_task_state_change, {}),
        ("SubmitContainerStateChange", ecs.submit_container_state_change, {}),
        ("SubmitAttachmentStateChanges", ecs.submit_attachment_state_changes, {"attachments": []}),
        ("UpdateContainerAgent", ecs.update_container_agent, {"containerInstance": host}),
    ]
    for name, call, arguments in calls:
        code, message = refused(call, **arguments)
        assert code == "UnsupportedFeatureException"
        assert name in message


# ---------------------------------------------------------------- attributes


def test_attributes_are_put_listed_used_and_deleted(ecs: Any, fleet: Fleet) -> None:
    one, two = fleet.add_host("one", attributes={"rack": "a"}), fleet.add_host("two")
    target = {"targetId": one, "targetType": "container-instance"}
    put = [{"name": "rack", "value": "b", **target}, {"name": "fast", **target}]
    assert ecs.put_attributes(attributes=put)["attributes"] == put
    listed = ecs.list_attributes(targetType="container-instance", attributeName="rack")["attributes"]
    assert [(entry["value"], entry["targetId"].rsplit("/")[-1]) for entry in listed] == [("b", one)]
    found = ecs.list_container_instances(filter="attribute:fast exists")["containerInstanceArns"]
    assert [arn.rsplit("/")[-1] for arn in found] == [one]
    arn = ecs.describe_container_instances(containerInstances=[one])["containerInstances"][0]["containerInstanceArn"]
    assert ecs.delete_attributes(attributes=[{"name": "rack", "targetId": arn}, {"name": "none", "targetId": arn}])[
        "attributes"
    ] == [{"name": "rack", "targetId": arn}]
    listed = ecs.list_attributes(targetType="container-instance", attributeName="rack", attributeValue="a")
    assert len(listed["attributes"]) == 1
    everything = ecs.list_attributes(targetType="container-instance")["attributes"]
    assert {entry["targetId"].rsplit("/")[-1] for entry in everything} == {one, two}


def test_list_attributes_pages_within_and_across_hosts(ecs: Any, fleet: Fleet) -> None:
    for number in range(3):
        fleet.add_host(f"host-{number}", attributes={"a": "1", "b": "2"})
    pages = list(
        ecs.get_paginator("list_attributes").paginate(targetType="container-instance", PaginationConfig={"PageSize": 4})
    )
    entries = [(entry["targetId"], entry["name"]) for page in pages for entry in page["attributes"]]
    assert [len(page["attributes"]) for page in pages] == [4, 4, 4, 3]
    assert len(set(entries)) == 15


@pytest.mark.parametrize(
    ("attribute", "code", "part"),
    [
        ({"name": "a b"}, "InvalidParameterException", "'a b' isn't valid"),
        ({"name": "ecs.os-type"}, "InvalidParameterException", "'ecs.' is reserved"),
        ({"name": "a", "value": " x"}, "InvalidParameterException", "value of attribute 'a' isn't valid"),
        ({"name": "a", "targetType": None}, "InvalidParameterException", "targetType must be"),
        ({"name": "a", "targetId": None}, "InvalidParameterException", "needs a targetId"),
        ({"name": "a", "targetId": "gone"}, "TargetNotFoundException", "'gone' was not found"),
        ({"name": "a", "targetId": "arn:aws:ecs:eu-home-1:123456789012:task/x/y"}, "InvalidParameterException", "ARN"),
    ],
)
def test_put_attributes_refuses(
    ecs: Any, server: ApiServer, fleet: Fleet, attribute: dict[str, Any], code: str, part: str
) -> None:
    host = fleet.add_host()
    good = {"name": "good", "targetId": host, "targetType": "container-instance"}
    bad = {key: value for key, value in (good | attribute).items() if value is not None}
    with server.unchanged():
        assert refused(ecs.put_attributes, attributes=[good, bad])[0] == code
        assert part in refused(ecs.put_attributes, attributes=[good, bad])[1]


def test_attributes_have_limits(ecs: Any, fleet: Fleet) -> None:
    host = fleet.add_host()

    def attributes(count: int) -> list[dict[str, str]]:
        return [{"name": f"a{n}", "targetId": host, "targetType": "container-instance"} for n in range(count)]

    ecs.put_attributes(attributes=attributes(10))
    assert "at most 10 items" in refused(ecs.put_attributes, attributes=attributes(11))[1]
    assert refused(ecs.put_attributes, attributes=attributes(11)[10:])[0] == "AttributeLimitExceededException"
    assert (
        refused(ecs.list_attributes, targetType="container-instance", attributeValue="x")[0]
        == "InvalidParameterException"
    )
