"""Homeport's own operations on services: what they show, and whom a name means."""

import json
from typing import Any

import pytest

from controlplane.state.service_records import EventRecord, PhaseTimes, RolloutState
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.fleet import Fleet
from tests.contract.rollouts import Rollouts
from tests.contract.server import Answer, ApiServer
from tests.contract.test_homeport_service import refused


@pytest.fixture
def rollouts(server: ApiServer) -> Rollouts:
    return Rollouts(server)


def call(server: ApiServer, operation: str, **members: Any) -> Answer:
    return server.post(f"Homeport_20261101.{operation}", json.dumps(members).encode(), service="homeport")


def ask(server: ApiServer, operation: str, **members: Any) -> Any:
    answer = call(server, operation, **members)
    assert answer.status == 200, answer.body
    return answer.json


def state(rollouts: Rollouts) -> str:
    [service] = ask(rollouts.server, "FindServices")["services"]
    return str(service["state"])


def test_the_state_of_a_service_in_a_word(rollouts: Rollouts) -> None:
    assert state(rollouts) == "recovering"
    done = rollouts.deploy("SUCCESSFUL")
    assert state(rollouts) == "recovering"
    rollouts.task(done.id)
    rollouts.task(done.id)
    assert state(rollouts) == "steady"
    new = rollouts.deploy()
    assert state(rollouts) == "deploying"
    rollouts.deploy("SUCCESSFUL", rollback_of=new.id, rollout=RolloutState.IN_PROGRESS)
    assert state(rollouts) == "rolling back"
    rollouts.deploy("STOPPED", rollout=RolloutState.FAILED)
    assert state(rollouts) == "failed"
    rollouts.update(status="DRAINING")
    assert state(rollouts) == "draining"


def test_services_are_found_by_pages_of_all_clusters_or_one(server: ApiServer, ecs: Any, rollouts: Rollouts) -> None:
    ecs.create_cluster(clusterName="other")
    Rollouts(server, "api")
    Rollouts(server, "db", cluster="other")
    Rollouts(server, "gone", status="INACTIVE")
    names = [each["name"] for each in ask(server, "FindServices")["services"]]
    assert names == ["api", "web", "db"]
    assert [each["name"] for each in ask(server, "FindServices", cluster="other")["services"]] == ["db"]
    everything = ask(server, "FindServices", cluster="default", inactive=True)["services"]
    assert [each["name"] for each in everything] == ["api", "gone", "web"]
    first = ask(server, "FindServices", maxResults=1)
    rest = ask(server, "FindServices", maxResults=10, nextToken=first["nextToken"])
    assert [each["name"] for each in rest["services"]] == ["web", "db"]


@pytest.mark.parametrize("operation", ["DescribeService", "DescribeDeployments"])
def test_whom_a_name_means(server: ApiServer, ecs: Any, rollouts: Rollouts, operation: str) -> None:
    ecs.create_cluster(clusterName="other")
    other = Rollouts(server, "web", cluster="other").service
    Rollouts(server, "db", cluster="other")

    def found(**members: Any) -> str:
        return str(ask(server, operation, **members)["service"]["id"])

    arn = "arn:aws:ecs:eu-home-1:123456789012:service/other/web"
    assert found(service="web", cluster="other") == found(service="other/web") == found(service=arn) == other.id
    assert found(service="web", cluster="default") == rollouts.service.id
    assert ask(server, operation, service="db")["service"]["cluster"] == "other"
    code, message = refused(call(server, operation, service="web"))
    assert code == "InvalidParameterException"
    assert "default/web, other/web" in message
    rollouts.update(status="INACTIVE")
    assert found(service="web") == other.id
    for members in (
        {"service": "no"},
        {"service": "db", "cluster": "default"},
        {"service": "other/db", "cluster": "default"},
        {"service": arn.replace("eu-", "us-")},
        {"service": ""},
    ):
        assert refused(call(server, operation, **members))[0] == "ServiceNotFoundException"
    assert refused(call(server, operation, service="web", cluster="no"))[0] == "ClusterNotFoundException"


def test_a_service_with_its_tasks_and_events(server: ApiServer, rollouts: Rollouts) -> None:
    host = Fleet(server).add_host("node-7")
    deployment = rollouts.deploy("SUCCESSFUL", failed_tasks=1, last_failure="exit 1")
    running = rollouts.task(deployment.id, instance_id=host)
    rollouts.task(deployment.id, TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=1.0)
    rollouts.put(
        *(
            EventRecord(id=f"e{number}", service_id=rollouts.service.id, number=number, at=number, message=f"m{number}")
            for number in (9, 10, 11)
        )
    )
    answer = ask(server, "DescribeService", service="web")
    assert [(task["id"], task["hostname"]) for task in answer["tasks"]] == [(running.id, "node-7")]
    assert [event["message"] for event in answer["events"]] == ["m9", "m10", "m11"]
    assert "lines" not in answer
    service = answer["service"]
    assert service["lastEvent"] == {"number": 11, "at": 11.0, "message": "m11"}
    assert (service["desired"], service["running"], service["pending"]) == (2, 1, 0)
    assert service["taskDefinition"] == "web:1"
    [shown] = service["deployments"]
    assert (shown["id"], shown["position"], shown["status"]) == (deployment.id, "PRIMARY", "SUCCESSFUL")
    assert (shown["failedTasks"], shown["lastFailure"], shown["seconds"]) == (1, "exit 1", 30.0)


def test_the_long_history_of_a_service(server: ApiServer, ecs: Any, rollouts: Rollouts) -> None:
    deployment = rollouts.deploy()
    ecs.stop_service_deployment(serviceDeploymentArn=rollouts.arn(deployment), stopType="ABORT")
    lines = ask(server, "DescribeService", service="web", events="all")["lines"]
    assert [line["event"] for line in lines] == ["deployment-requested"]
    assert refused(call(server, "DescribeService", service="web", events="some"))[0] == "InvalidParameterException"


def test_deployments_with_where_their_time_went(server: ApiServer, rollouts: Rollouts) -> None:
    old = rollouts.deploy("SUCCESSFUL", live=False)
    budget = {"schedule": PhaseTimes(count=2, total_s=0.5, max_s=0.375), "drain": PhaseTimes()}
    new = rollouts.deploy(budget=budget)
    rollback = rollouts.deploy(rollback_of=new.id)
    moments: dict[str, Any] = {"wanted_at": 10.0, "created_at": 10.5, "running_at": 12.5, "healthy_at": 17.5}
    first = rollouts.task(new.id, **moments)
    second = rollouts.task(new.id, TaskStatus.PENDING, replaces=first.id, created_at=11.0)
    answer = ask(server, "DescribeDeployments", service="web")
    shown = answer["deployments"]
    assert [each["id"] for each in shown] == [rollback.id, new.id, old.id]
    assert [each["position"] for each in shown] == ["PRIMARY", "ACTIVE", "OVER"]
    assert [each["rollbackOf"] for each in shown] == [new.id, None, None]
    assert [each["serviceDeploymentArn"] is None for each in shown] == [True, False, False]
    assert shown[1]["budget"] == {
        "schedule": {"count": 2, "meanS": 0.25, "maxS": 0.375, "totalS": 0.5},
        "drain": {"count": 0, "meanS": 0.0, "maxS": 0.0, "totalS": 0.0},
    }
    assert shown[1]["seconds"] == pytest.approx(server.clock.now() - new.created_at, abs=30)
    assert [task["id"] for task in shown[1]["tasks"]] == [first.id, second.id]
    assert shown[1]["tasks"][0]["phases"] == {"schedule": 0.5, "start": 2.0, "healthy": 5.0}
    assert shown[1]["tasks"][0]["healthy"] is True
    assert shown[1]["tasks"][1]["replaces"] == first.id
    assert len(ask(server, "DescribeDeployments", service="web", maxResults=1)["deployments"]) == 1
    [one] = ask(server, "DescribeDeployments", service="web", deployment=old.id)["deployments"]
    assert one["id"] == old.id
    for members in ({"deployment": "ecs-svc/0"}, {"maxResults": 0}, {"maxResults": 101}):
        code, _ = refused(call(server, "DescribeDeployments", service="web", **members))
        assert code == "InvalidParameterException"
