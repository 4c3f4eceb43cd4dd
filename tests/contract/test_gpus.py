"""GPUs through boto3: tasks that ask for them go to the hosts that have them, as many as there are."""

from typing import Any

import pytest
from msgspec.structs import replace

from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.fleet import WEB, Fleet, refused, register_web, run
from tests.contract.server import ApiServer

ONE = {**WEB, "resourceRequirements": [{"type": "GPU", "value": "1"}]}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def host(server: ApiServer, fleet: Fleet) -> str:
    """Two hosts, of which only this one has GPUs: two of them."""
    fleet.add_host("plain")
    name = fleet.add_host("gpu")

    def equip() -> None:
        record = server.context.state.instances.get(name)
        assert record is not None
        resources = replace(record.facts.resources, gpus=2)
        facts = replace(record.facts, resources=resources, gpu_ids=("GPU-a", "GPU-b"))
        with server.context.state.transaction() as transaction:
            transaction.put(replace(record, facts=facts))

    server.call(equip)
    return name


def test_tasks_that_ask_for_gpus_go_where_they_are(ecs: Any, fleet: Fleet, host: str, homeport: Homeport) -> None:
    register_web(ecs, containers=[ONE])
    answer = ecs.run_task(taskDefinition="web", count=3)
    assert [fleet.record_id(task["containerInstanceArn"]) for task in answer["tasks"]] == [host, host]
    details = {failure["detail"] for failure in answer["failures"]}
    assert {failure["reason"] for failure in answer["failures"]} == {"RESOURCE:GPU"}
    assert details == {
        "gpu has 0 of 2 GPUs left; the task needs 1.",
        "plain has 0 of 0 GPUs left; the task needs 1.",
    }
    assert "GPUs:        2 of 2 reserved by tasks" in homeport("nodes", "gpu").stdout


def test_the_gpus_of_a_container_are_those_its_host_has_told(ecs: Any, fleet: Fleet, host: str) -> None:
    register_web(ecs, containers=[ONE])
    arn = run(ecs)["taskArn"]
    report = ContainerReport(name="web", status=ContainerStatus.RUNNING, gpu_ids=("GPU-b",))
    fleet.report(arn, TaskStatus.RUNNING, [report])
    (task,) = ecs.describe_tasks(tasks=[arn])["tasks"]
    assert task["containers"][0]["gpuIds"] == ["GPU-b"]
    (instance,) = ecs.describe_container_instances(containerInstances=[host])["containerInstances"]
    left = {entry["name"]: entry.get("stringSetValue") for entry in instance["remainingResources"]}
    assert left["GPU"] == ["GPU-a"]


def test_an_override_asks_for_its_own_number(ecs: Any, fleet: Fleet, host: str) -> None:
    register_web(ecs)
    two = {"name": "web", "resourceRequirements": [{"type": "GPU", "value": "2"}]}
    task = run(ecs, overrides={"containerOverrides": [two]})
    assert fleet.record(task["taskArn"]).resources.gpus == 2
    none = [{"name": "web", "resourceRequirements": [{"type": "GPU", "value": "many"}]}]
    code, message = refused(ecs.run_task, taskDefinition="web", overrides={"containerOverrides": none})
    assert (code, "a number of GPUs from 1 to 1024" in message) == ("ClientException", True)


def test_a_definition_with_a_number_of_gpus_that_can_not_be_is_refused(ecs: Any) -> None:
    wrong = {**WEB, "resourceRequirements": [{"type": "GPU", "value": "0"}]}
    code, message = refused(ecs.register_task_definition, family="web", containerDefinitions=[wrong])
    assert (code, "'resourceRequirements'" in message) == ("ClientException", True)
