"""The commands for services, read as a stranger and as a pipeline would read them."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.state.service_records import (
    DeploymentRecord,
    EventRecord,
    HookState,
    PhaseTimes,
    RolloutState,
    ServiceDeploymentStatus,
)
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.fleet import WEB, Fleet, register_web
from tests.contract.rollouts import Rollouts
from tests.contract.server import ACCESS_KEY_ID, ApiServer


@pytest.fixture
def rollouts(server: ApiServer) -> Rollouts:
    return Rollouts(server)


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table that begins with this column, in words; up to an empty line."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == [first])
    rows = []
    for line in lines[start + 1 :]:
        if not line:
            break
        rows.append(line.split())
    return rows


def event(rollouts: Rollouts, number: int, message: str) -> None:
    service = rollouts.service
    text = f"(service {service.name}) {message}"
    at = rollouts.server.clock.now()
    rollouts.put(EventRecord(id=f"e{number}", service_id=service.id, number=number, at=at, message=text))


def end(rollouts: Rollouts, deployment: DeploymentRecord, status: str, reason: str = "") -> None:
    now = rollouts.server.clock.now()
    over = replace(deployment, status=ServiceDeploymentStatus(status), status_reason=reason, finished_at=now)
    rollouts.put(over)


# ---------------------------------------------------------------- listing and showing


def test_services_are_listed_with_what_was_last_said(
    homeport: Homeport, server: ApiServer, ecs: Any, rollouts: Rollouts
) -> None:
    deployment = rollouts.deploy("SUCCESSFUL")
    rollouts.task(deployment.id)
    rollouts.task(deployment.id)
    event(rollouts, 1, "has started 2 tasks.")
    event(rollouts, 2, "has reached a steady state.")
    said = homeport("services").stdout
    assert said.split("\n")[0].split() == (
        ["SERVICE", "DEFINITION", "DESIRED", "RUNNING", "PENDING", "STATE", "DEPLOYED", "LAST", "EVENT"]
    )
    (row,) = table(said, "SERVICE")
    assert row[:6] == ["web", "web:1", "2", "2", "0", "steady"]
    assert said.rstrip().endswith("ago: has reached a steady state.")
    ecs.create_cluster(clusterName="other")
    Rollouts(server, "db", cluster="other", status="INACTIVE")
    assert len(table(homeport("services").stdout, "SERVICE")) == 1
    rows = table(homeport("services", "-a").stdout, "SERVICE")
    assert [row[:2] for row in rows] == [["web", "default"], ["db", "other"]]
    listed = json.loads(homeport("services", "--json").stdout)
    assert [each["name"] for each in listed] == ["web"]
    none = homeport("services", "--cluster", "other")
    assert (none.stdout, "There are no services in the cluster other." in none.stderr) == ("", True)


def test_a_service_is_shown_with_its_deployments_tasks_and_last_events(
    homeport: Homeport, server: ApiServer, rollouts: Rollouts
) -> None:
    rollouts.update(deployment_configuration={"minimumHealthyPercent": 50, "maximumPercent": 150})
    deployment = rollouts.deploy(failed_tasks=3, last_failure="CannotPullContainerError: not found")
    task = rollouts.task(deployment.id, instance_id=Fleet(server).add_host("node-7"))
    for number in range(12):
        event(rollouts, number, f"event {number}")
    said = homeport("service", "web").stdout
    assert "state:       deploying\n" in said
    assert "tasks:       2 desired, 1 running, 0 pending\n" in said
    assert "bounds:      50 to 150 percent of the tasks\n" in said
    assert f"PRIMARY {deployment.id} of web:1: IN_PROGRESS (1 running, 0 pending, 3 failed one after another)" in said
    assert "last failure: CannotPullContainerError: not found" in said
    assert table(said, "TASK")[0][:4] == [task.id[:12], "web:1", "RUNNING", "node-7"]
    assert [row[-1] for row in table(said, "TIME")] == [str(number) for number in range(2, 12)], "the last ten"
    assert json.loads(homeport("service", "default/web", "--json").stdout)["service"]["id"] == rollouts.service.id


def test_the_long_history_tells_who_asked_for_what(homeport: Homeport, ecs: Any, rollouts: Rollouts) -> None:
    deployment = rollouts.deploy()
    ecs.stop_service_deployment(serviceDeploymentArn=rollouts.arn(deployment), stopType="ABORT")
    line = f"StopServiceDeployment by {ACCESS_KEY_ID}: stop of {deployment.id} requested"
    assert line in homeport("service", "web", "--all").stdout
    told = homeport("story", "web").stdout
    assert told.startswith("service web  web:1  in default\ndeploying: 2 desired")
    assert line in told
    answer = json.loads(homeport("story", "web", "--json").stdout)
    assert set(answer) == {"service", "lines"}


@pytest.mark.parametrize(
    "command",
    [["service", "abc"], ["deployment", "abc"], ["deploy", "abc"], ["scale", "abc", "2"], ["rollback", "abc"]],
)
def test_a_service_that_is_not_there_is_exit_code_3(homeport: Homeport, command: list[str]) -> None:
    assert homeport(*command, code=3).stderr == "homeport: There is no service abc.\n"


def test_a_story_of_nothing_says_so_of_the_task(homeport: Homeport) -> None:
    assert "There is no task abc." in homeport("story", "abc", code=3).stderr
    assert "'web' can't name a task" in homeport("story", "web", code=1).stderr


# ---------------------------------------------------------------- deployments


def test_a_deployment_is_shown_with_where_its_time_went(
    homeport: Homeport, server: ApiServer, rollouts: Rollouts
) -> None:
    earlier = rollouts.deploy("ROLLBACK_SUCCESSFUL", status_reason="Too many tasks failed.", live=False)
    budget = {
        "schedule": PhaseTimes(count=2, total_s=0.5, max_s=0.375),
        "pull": PhaseTimes(count=2, total_s=1.5, max_s=1.25),
        "drain": PhaseTimes(count=1, total_s=2.0, max_s=2.0),
    }
    deployment = rollouts.deploy("SUCCESSFUL", budget=budget, healthy_tasks=2)
    host = Fleet(server).add_host("node-7")
    moments: dict[str, Any] = {"wanted_at": 10.0, "created_at": 10.5, "running_at": 12.5, "healthy_at": 17.5}
    task = rollouts.task(deployment.id, instance_id=host, **moments)
    lost = rollouts.task(deployment.id, instance_id=host, lost_at=20.0, created_at=11.0)
    said = homeport("deployment", "web").stdout
    assert said.startswith("service web in default: recovering, 2 desired, 1 running, 0 pending\n")
    assert f"deployment {deployment.id} of web:1: SUCCESSFUL after 30.0 s\n" in said
    assert ", 2 tasks have become healthy\n" in said
    assert table(said, "PHASE") == [
        ["schedule", "2", "0.25", "s", "0.38", "s", "0.50", "s", "12", "%"],
        ["pull", "2", "0.75", "s", "1.25", "s", "1.50", "s", "38", "%"],
        ["drain", "1", "2.00", "s", "2.00", "s", "2.00", "s", "50", "%"],
    ]
    assert table(said, "TASK") == [
        [task.id[:12], "node-7", "RUNNING", "(healthy)", "0.50", "s", "-", "2.00", "s", "5.00", "s"],
        [lost.id[:12], "node-7", "unknown", "(its", "host", "is", "silent)", "-", "-", "-", "-"],
    ]
    (row,) = table(said, "EARLIER")
    assert row[:2] == [earlier.id, "web:1"]
    assert said.rstrip().endswith("30.0     ROLLBACK_SUCCESSFUL  Too many tasks failed.")
    answer = json.loads(homeport("deployment", "web", "--json").stdout)
    assert answer["deployments"][0]["budget"]["pull"] == {"count": 2, "meanS": 0.75, "maxS": 1.25, "totalS": 1.5}


def test_a_deployment_that_fails_or_waits_says_for_what(homeport: Homeport, rollouts: Rollouts) -> None:
    hook = HookState(id="hook-1", stage="POST_SCALE_UP")
    deployment = rollouts.deploy(rollout_reason="ECS deployment in progress.", last_failure="exit 1", hooks=(hook,))
    moments: dict[str, Any] = {"stopping_at": 20.0, "stopped_at": 21.5, "desired": DesiredStatus.STOPPED}
    rollouts.task(deployment.id, TaskStatus.STOPPED, stopped_reason="it exited", **moments)
    said = homeport("deployment", "web").stdout
    assert table(said, "TASK")[0][1:] == ["-", "STOPPED", "-", "-", "-", "-", "1.50", "s", "it", "exited"]
    assert ": IN_PROGRESS for 3" in said
    assert "last failure: exit 1\n" in said
    arn = rollouts.arn(deployment)
    assert "paused at POST_SCALE_UP. Let it go on:\n" in said
    assert f"aws ecs continue-service-deployment --service-deployment-arn {arn} --hook-id hook-1\n" in said


def test_a_service_without_a_deployment(homeport: Homeport, rollouts: Rollouts) -> None:
    assert "has had no deployment yet" in homeport("deployment", rollouts.service.name, code=3).stderr


def test_watching_ends_with_the_deployment_and_tells_its_events(homeport: Homeport, rollouts: Rollouts) -> None:
    server, deployment = rollouts.server, rollouts.deploy()
    event(rollouts, 1, "has started 2 tasks.")

    def asked() -> int:
        return sum(operation == "DescribeDeployments" for _, operation, _, _ in server.observed)

    def finish() -> None:
        server.wait_until(lambda: asked() >= 2)
        event(rollouts, 2, "has reached a steady state.")
        end(rollouts, deployment, "SUCCESSFUL")

    done = server.background(finish)
    said = homeport("deployment", "web", "--watch").stdout
    done.result()
    events = [line.split("  ", 1)[1] for line in said.split("\n\n")[0].splitlines()]
    assert events == ["has started 2 tasks.", "has reached a steady state."]
    assert f"deployment {deployment.id} of web:1: SUCCESSFUL after" in said


@pytest.mark.parametrize("status", ["STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"])
def test_watching_a_deployment_that_fails_is_exit_code_1(homeport: Homeport, rollouts: Rollouts, status: str) -> None:
    failed = rollouts.deploy(status, status_reason="Too many tasks failed.")
    rollouts.deploy("SUCCESSFUL", rollback_of=failed.id)
    result = homeport("deployment", "web", "--watch", code=1)
    assert f"The deployment of web ended {status}: Too many tasks failed." in result.stderr
    assert f"deployment {failed.id} of web:1: {status}" in result.stdout
    answer = json.loads(homeport("deployment", "web", "--watch", "--json", code=1).stdout)
    assert answer["deployments"][0]["id"] == failed.id


def test_watching_has_a_limit(homeport: Homeport, rollouts: Rollouts) -> None:
    rollouts.deploy()
    refused = homeport("deployment", "web", "--watch", "--timeout", "0s", code=1).stderr
    assert "After 0 s the deployment of web is still IN_PROGRESS." in refused


# ---------------------------------------------------------------- acting


@pytest.fixture
def made(ecs: Any) -> Any:
    """A service made through the API. No reconciler runs here: it has no tasks."""
    register_web(ecs)
    register_web(ecs)
    return ecs.create_service(serviceName="web", taskDefinition="web:1", desiredCount=2)["service"]


def test_deploying_a_definition_or_the_same_one_anew(homeport: Homeport, ecs: Any, made: Any) -> None:
    def primary() -> Any:
        return ecs.describe_services(services=["web"])["services"][0]["deployments"][0]

    said = homeport("deploy", "web", "--task-definition", "web:2")
    second = primary()
    assert second["taskDefinition"].endswith("web:2")
    assert said.stdout.startswith(f"web: deployment {second['id']} of web:2: IN_PROGRESS for ")
    assert "homeport deployment web --watch" in said.stderr
    same = homeport("deploy", "web", "--task-definition", "web:2")
    assert "web has web:2 already. --force replaces its tasks all the same." in same.stderr
    assert primary()["id"] == second["id"]
    answer = json.loads(homeport("deploy", "web", "--task-definition", "web:2", "--force", "--json").stdout)
    third = primary()
    assert answer["deployments"][0]["id"] == third["id"] != second["id"]
    homeport("deploy", "web")
    assert primary()["id"] not in (second["id"], third["id"])
    assert primary()["taskDefinition"].endswith("web:2")
    assert "TaskDefinition not found." in homeport("deploy", "web", "--task-definition", "no", code=3).stderr
    limit = homeport("deploy", "web", "--watch", "--timeout", "0s", code=1).stderr
    assert "still IN_PROGRESS" in limit


def test_deploying_an_image_registers_a_revision_with_it(homeport: Homeport, ecs: Any) -> None:
    side = {"name": "side", "image": "envoy:1", "memory": 64, "essential": False}
    tags = [{"key": "team", "value": "a"}]
    register_web(ecs, tags=tags, volumes=[{"name": "v"}])
    ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=0)

    def images(definition: str) -> dict[str, str]:
        found = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
        return {each["name"]: each["image"] for each in found["containerDefinitions"]}

    assert "of web:2: IN_PROGRESS" in homeport("deploy", "web", "--image", "shop:7").stdout
    assert images("web:2") == {"web": "shop:7"}
    second = ecs.describe_task_definition(taskDefinition="web:2", include=["TAGS"])
    assert second["tags"] == tags
    assert second["taskDefinition"]["volumes"][0]["name"] == "v"
    again = homeport("deploy", "web", "--image", "shop:7").stderr
    assert "web has web:2 already" in again
    register_web(ecs, containers=[{**WEB, "image": "shop:8"}, side])
    homeport("deploy", "web", "--task-definition", "web:3", "--image", "side=envoy:2")
    assert images("web:4") == {"web": "shop:8", "side": "envoy:2"}
    assert "Which container is shop:9 for?" in homeport("deploy", "web", "--image", "shop:9", code=2).stderr
    assert "There is no container db, only web, side." in homeport("deploy", "web", "--image", "db=x", code=2).stderr
    assert ecs.list_task_definitions(familyPrefix="web")["taskDefinitionArns"][-1].endswith("web:4")


def test_scaling(homeport: Homeport, made: Any) -> None:
    assert homeport("scale", "web", "3").stdout == "web: 3 desired (2 before), 0 running, 0 pending\n"
    assert json.loads(homeport("scale", "web", "0", "--wait", "--json").stdout)["desired"] == 0
    late = homeport("scale", "web", "1", "--wait", "--timeout", "0s", code=1).stderr
    assert "After 0 s 0 of 1 tasks of web run." in late
    assert "homeport service web" in late
    assert "-1" in homeport("scale", "web", "--", "-1", code=2).stderr


def test_rolling_back_what_is_under_way(homeport: Homeport, rollouts: Rollouts) -> None:
    good = rollouts.deploy("SUCCESSFUL")
    assert "No deployment of web is under way." in homeport("rollback", "web", code=1).stderr
    rollouts.update(stable_revision=good.revision)
    bad = rollouts.deploy()
    assert f"web: deployment {bad.id}: ROLLBACK_REQUESTED for" in homeport("rollback", "web").stdout
    assert rollouts.deployment(bad).status == "ROLLBACK_REQUESTED"
    other = rollouts.deploy()
    assert json.loads(homeport("rollback", "web", "--abort", "--json").stdout)["deployments"][0]["id"] == other.id
    assert rollouts.deployment(other).status == "STOP_REQUESTED"


def test_a_failed_rollback_is_told_as_one(homeport: Homeport, rollouts: Rollouts) -> None:
    bad = rollouts.deploy("ROLLBACK_IN_PROGRESS", rollout=RolloutState.FAILED)
    back = rollouts.deploy("STOPPED", rollback_of=bad.id, rollout=RolloutState.FAILED)
    rollouts.task(back.id, TaskStatus.PENDING)
    said = homeport("deployment", "web").stdout
    assert said.startswith("service web in default: failed, ")
    assert f"rollback {back.id} of web:1: STOPPED after 30.0 s" in said
