"""Service deployments: listing, describing, stopping and continuing them, and their revisions."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.state.service_records import HookState, RolloutState
from homeport.status import TaskStatus
from tests.contract.fleet import refused, register_web
from tests.contract.rollouts import Rollouts
from tests.contract.server import ACCESS_KEY_ID, ApiServer

HOOK = HookState(id="hook-1", stage="POST_SCALE_UP", expires_at=1_900_000_000.0)


@pytest.fixture
def rollouts(server: ApiServer) -> Rollouts:
    return Rollouts(server)


def listed(ecs: Any, **arguments: Any) -> list[str]:
    answer = ecs.list_service_deployments(service="web", **arguments)
    return [each["serviceDeploymentArn"].rsplit("/", 1)[-1] for each in answer["serviceDeployments"]]


def described(ecs: Any, rollouts: Rollouts, deployment: Any) -> Any:
    answer = ecs.describe_service_deployments(serviceDeploymentArns=[rollouts.arn(deployment)])
    assert answer["failures"] == []
    return answer["serviceDeployments"][0]


# ---------------------------------------------------------------- listing


def test_deployments_are_listed_newest_first_and_rollbacks_are_not_among_them(ecs: Any, rollouts: Rollouts) -> None:
    first = rollouts.deploy("SUCCESSFUL")
    second = rollouts.deploy("ROLLBACK_SUCCESSFUL", status_reason="It failed.")
    rollouts.deploy("SUCCESSFUL", rollback_of=second.id)
    newest = rollouts.deploy("PENDING")
    answer = ecs.list_service_deployments(cluster="default", service=rollouts.context.arns.service("default", "web"))
    found = answer["serviceDeployments"]
    assert [each["serviceDeploymentArn"] for each in found] == [rollouts.arn(d) for d in (newest, second, first)]
    assert found[1]["status"] == "ROLLBACK_SUCCESSFUL"
    assert found[1]["statusReason"] == "It failed."
    assert found[1]["serviceArn"] == "arn:aws:ecs:eu-home-1:123456789012:service/default/web"
    assert found[1]["clusterArn"] == "arn:aws:ecs:eu-home-1:123456789012:cluster/default"
    assert found[1]["targetServiceRevisionArn"].endswith(f"service-revision/default/web/{second.revision}")
    assert found[1]["startedAt"] == found[1]["createdAt"]
    assert "finishedAt" in found[1]
    assert "startedAt" not in found[0], "a pending one hasn't started"
    assert "nextToken" not in answer


def test_the_list_is_filtered_by_status_and_by_time(ecs: Any, rollouts: Rollouts) -> None:
    deployments = [rollouts.deploy(status) for status in ("SUCCESSFUL", "STOPPED", "SUCCESSFUL", "IN_PROGRESS")]
    assert listed(ecs, status=["SUCCESSFUL"]) == ["web-3", "web-1"]
    assert listed(ecs, status=["STOPPED", "IN_PROGRESS"]) == ["web-4", "web-2"]
    third = datetime.fromtimestamp(deployments[2].created_at, UTC)
    assert listed(ecs, createdAt={"before": third}) == ["web-2", "web-1"]
    assert listed(ecs, createdAt={"after": third}) == ["web-4"]
    first = datetime.fromtimestamp(deployments[0].created_at, UTC)
    assert listed(ecs, createdAt={"after": first, "before": third}, status=["STOPPED"]) == ["web-2"]


def test_pages_of_20_stay_in_order_while_deployments_come(ecs: Any, rollouts: Rollouts) -> None:
    for _ in range(23):
        rollouts.deploy("STOPPED", live=False)
    page = ecs.list_service_deployments(service="web")
    assert len(page["serviceDeployments"]) == 20
    rollouts.deploy()
    rest = ecs.list_service_deployments(service="web", nextToken=page["nextToken"])
    assert [each["serviceDeploymentArn"][-5:] for each in rest["serviceDeployments"]] == ["web-3", "web-2", "web-1"]
    assert "nextToken" not in rest
    two = ecs.list_service_deployments(service="web", maxResults=2)
    assert [each["serviceDeploymentArn"][-6:] for each in two["serviceDeployments"]] == ["web-24", "web-23"]


def test_an_earlier_services_deployments_are_not_the_later_ones(ecs: Any, server: ApiServer) -> None:
    Rollouts(server).deploy("SUCCESSFUL")
    Rollouts(server)
    assert listed(ecs) == []


def test_listing_refuses_what_is_not_there(ecs: Any, rollouts: Rollouts) -> None:
    list_ = ecs.list_service_deployments
    assert refused(list_, service="other") == ("ServiceNotFoundException", "Service not found.")
    assert refused(list_, service="web", cluster="other") == ("ClusterNotFoundException", "Cluster not found.")
    assert refused(list_, service="web", nextToken="x")[0] == "InvalidParameterException"
    assert refused(list_, service="web", maxResults=101)[0] == "InvalidParameterException"
    assert refused(list_, service="web", status=["OVER"])[0] in ("InvalidParameterException", "ClientException")


# ---------------------------------------------------------------- describing


def test_a_deployment_under_way_shows_its_revisions_with_their_tasks(ecs: Any, rollouts: Rollouts) -> None:
    old = rollouts.deploy("SUCCESSFUL")
    new = rollouts.deploy(source_revisions=(old.revision,))
    rollouts.update(desired_count=3)
    rollouts.task(old.id)
    rollouts.task(old.id)
    rollouts.task(new.id)
    rollouts.task(new.id, TaskStatus.PENDING)
    rollouts.task(new.id, TaskStatus.PENDING, lost_at=1.0)
    found = described(ecs, rollouts, new)
    revision = "arn:aws:ecs:eu-home-1:123456789012:service-revision/default/web/"
    assert found["sourceServiceRevisions"] == [
        {"arn": revision + old.revision, "requestedTaskCount": 2, "runningTaskCount": 2, "pendingTaskCount": 0}
    ]
    assert found["targetServiceRevision"] == {
        "arn": revision + new.revision,
        "requestedTaskCount": 3,
        "runningTaskCount": 1,
        "pendingTaskCount": 1,
    }
    assert found["status"] == "IN_PROGRESS"
    assert found["deploymentConfiguration"] == {"maximumPercent": 200}
    assert "finishedAt" not in found
    assert "rollback" not in found
    assert "lifecycleHookDetails" not in found


def test_the_circuit_breaker_is_shown_with_its_count_and_threshold(ecs: Any, rollouts: Rollouts) -> None:
    breaker = {"enable": True, "rollback": True, "thresholdConfiguration": {"type": "COUNT", "value": 4}}
    running = rollouts.deploy(breaker_failures=1)
    assert described(ecs, rollouts, running)["deploymentCircuitBreaker"] == {
        "status": "DISABLED",
        "failureCount": 1,
        "threshold": 3,
    }
    rollouts.update(deployment_configuration={"deploymentCircuitBreaker": breaker})
    assert described(ecs, rollouts, running)["deploymentCircuitBreaker"] == {
        "status": "MONITORING",
        "failureCount": 1,
        "threshold": 4,
    }
    done = rollouts.deploy("SUCCESSFUL")
    assert described(ecs, rollouts, done)["deploymentCircuitBreaker"]["status"] == "MONITORING_COMPLETE"
    reasons = {"ECS deployment circuit breaker: tasks failed to start.": "TRIGGERED", "Stopped.": "MONITORING_COMPLETE"}
    for reason, status in reasons.items():
        failed = rollouts.deploy("ROLLBACK_SUCCESSFUL", rollout=RolloutState.FAILED, rollout_reason=reason)
        assert described(ecs, rollouts, failed)["deploymentCircuitBreaker"]["status"] == status


def test_an_ended_deployment_shows_the_configuration_it_began_with(ecs: Any, rollouts: Rollouts) -> None:
    breaker = {"enable": True, "rollback": False, "thresholdConfiguration": {"type": "COUNT", "value": 7}}
    before = {"maximumPercent": 150, "deploymentCircuitBreaker": breaker}
    rollouts.update(deployment_configuration=before)
    done, going = rollouts.deploy("SUCCESSFUL"), rollouts.deploy()
    rollouts.update(deployment_configuration={"maximumPercent": 110})
    assert described(ecs, rollouts, done)["deploymentConfiguration"] == before
    assert described(ecs, rollouts, done)["deploymentCircuitBreaker"]["threshold"] == 7
    assert described(ecs, rollouts, going)["deploymentConfiguration"] == {"maximumPercent": 110}
    assert described(ecs, rollouts, going)["deploymentCircuitBreaker"]["status"] == "DISABLED"


def test_a_rollback_is_shown_with_its_reason_and_the_revision_it_went_back_to(ecs: Any, rollouts: Rollouts) -> None:
    good = rollouts.deploy("SUCCESSFUL")
    bad = rollouts.deploy("ROLLBACK_IN_PROGRESS", rollback_at=1_800_000_000.0, rollback_reason="Too many failed.")
    assert "serviceRevisionArn" not in described(ecs, rollouts, bad)["rollback"]
    revision = rollouts.context.state.revisions.get(good.revision)
    rollouts.deploy(revision=revision, rollback_of=bad.id)
    rollback = described(ecs, rollouts, bad)["rollback"]
    assert rollback["reason"] == "Too many failed."
    assert rollback["startedAt"].timestamp() == 1_800_000_000.0
    assert rollback["serviceRevisionArn"].endswith(f"/web/{good.revision}")


def test_a_pause_is_shown_with_its_hook(ecs: Any, rollouts: Rollouts) -> None:
    paused = rollouts.deploy(lifecycle_stage="SCALE_UP", hooks=(HOOK,))
    found = described(ecs, rollouts, paused)
    assert found["lifecycleStage"] == "SCALE_UP"
    [hook] = found["lifecycleHookDetails"]
    assert hook.pop("expiresAt").timestamp() == HOOK.expires_at
    assert hook == {
        "hookId": "hook-1",
        "targetType": "PAUSE",
        "status": "AWAITING_ACTION",
        "timeoutAction": "ROLLBACK",
    }


def test_what_is_missing_is_among_the_failures_in_its_own_words(ecs: Any, rollouts: Rollouts) -> None:
    there = rollouts.deploy()
    rolled_back = rollouts.deploy(rollback_of=there.id)
    strangers = [
        rollouts.arn(there) + "x",
        rollouts.arn(there).replace("/web/", "/other/"),
        rollouts.arn(there).replace("eu-home-1", "eu-home-2"),
        rollouts.arn(rolled_back),
        "no ARN",
    ]
    answer = ecs.describe_service_deployments(serviceDeploymentArns=[*strangers, rollouts.arn(there)])
    assert [each["serviceDeploymentArn"] for each in answer["serviceDeployments"]] == [rollouts.arn(there)]
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"} for arn in strangers]
    describe = ecs.describe_service_deployments
    assert refused(describe, serviceDeploymentArns=[])[0] == "InvalidParameterException"
    code, message = refused(describe, serviceDeploymentArns=[f"arn-{number}" for number in range(21)])
    assert code == "InvalidParameterException"
    assert "20" in message


def test_revisions_show_what_they_roll_out(ecs: Any, rollouts: Rollouts) -> None:
    register_web(ecs)
    deployment = rollouts.deploy(
        document={"launchType": "EXTERNAL", "placementStrategy": [{"type": "random"}], "platformVersion": "LATEST"}
    )
    arn = rollouts.context.arns.service_revision("default", "web", deployment.revision)
    answer = ecs.describe_service_revisions(serviceRevisionArns=[arn, arn[:-1] + "x"])
    assert answer["failures"] == [{"arn": arn[:-1] + "x", "reason": "MISSING"}]
    [revision] = answer["serviceRevisions"]
    assert revision.pop("createdAt").timestamp() == deployment.created_at
    assert revision == {
        "serviceRevisionArn": arn,
        "serviceArn": "arn:aws:ecs:eu-home-1:123456789012:service/default/web",
        "clusterArn": "arn:aws:ecs:eu-home-1:123456789012:cluster/default",
        "taskDefinition": "arn:aws:ecs:eu-home-1:123456789012:task-definition/web:1",
        "launchType": "EXTERNAL",
        "platformVersion": "LATEST",
        "containerImages": [{"containerName": "web", "image": "busybox"}],
        "guardDutyEnabled": False,
        "loadBalancers": [],
        "serviceRegistries": [],
    }


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("status", ["PENDING", "IN_PROGRESS"])
def test_a_deployment_under_way_is_asked_to_roll_back(ecs: Any, rollouts: Rollouts, status: str) -> None:
    good = rollouts.deploy("SUCCESSFUL")
    rollouts.update(stable_revision=good.revision)
    bad = rollouts.deploy(status)
    answer = ecs.stop_service_deployment(serviceDeploymentArn=rollouts.arn(bad))
    assert answer["serviceDeploymentArn"] == rollouts.arn(bad)
    now = rollouts.deployment(bad)
    assert now.status == "ROLLBACK_REQUESTED"
    assert now.updated_at > bad.updated_at
    assert now.finished_at is None, "the reconciler carries it out"
    assert rollouts.story() == [f"StopServiceDeployment by {ACCESS_KEY_ID}: rollback of {bad.id} requested"]


def test_a_deployment_is_stopped_where_it_is(ecs: Any, rollouts: Rollouts) -> None:
    deployment = rollouts.deploy()
    ecs.stop_service_deployment(serviceDeploymentArn=rollouts.arn(deployment), stopType="ABORT")
    assert rollouts.deployment(deployment).status == "STOP_REQUESTED"


@pytest.mark.parametrize("stop_type", ["ROLLBACK", "ABORT"])
@pytest.mark.parametrize("status", ["STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"])
def test_what_is_ending_goes_on_ending(ecs: Any, rollouts: Rollouts, status: str, stop_type: str) -> None:
    deployment = rollouts.deploy(status)
    with rollouts.server.unchanged():
        ecs.stop_service_deployment(serviceDeploymentArn=rollouts.arn(deployment), stopType=stop_type)


@pytest.mark.parametrize("status", ["SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"])
def test_what_has_ended_cannot_be_stopped(ecs: Any, rollouts: Rollouts, status: str) -> None:
    arn = rollouts.arn(rollouts.deploy(status))
    with rollouts.server.unchanged():
        code, message = refused(ecs.stop_service_deployment, serviceDeploymentArn=arn)
    assert code == "ConflictException"
    assert status in message


def test_without_an_earlier_completed_deployment_there_is_nothing_to_roll_back_to(ecs: Any, rollouts: Rollouts) -> None:
    first = rollouts.deploy()
    code, message = refused(ecs.stop_service_deployment, serviceDeploymentArn=rollouts.arn(first))
    assert code == "InvalidParameterException"
    assert "no earlier service deployment has completed" in message
    assert rollouts.deployment(first) == first


def test_stopping_refuses_what_is_not_there(ecs: Any, rollouts: Rollouts) -> None:
    arn = rollouts.arn(rollouts.deploy()) + "x"
    stop, go_on = ecs.stop_service_deployment, ecs.continue_service_deployment
    assert refused(stop, serviceDeploymentArn=arn)[0] == "ServiceDeploymentNotFoundException"
    assert refused(stop, serviceDeploymentArn="web")[0] == "ServiceDeploymentNotFoundException"
    assert refused(go_on, serviceDeploymentArn=arn, hookId="h")[0] == "ServiceDeploymentNotFoundException"
    code, message = refused(stop, serviceDeploymentArn=arn, stopType="LATER")
    assert code == "InvalidParameterException"
    assert "stopType" in message


# ---------------------------------------------------------------- pausing


def test_a_paused_deployment_goes_on(ecs: Any, rollouts: Rollouts) -> None:
    other = HookState(id="hook-0", stage="PRE_SCALE_UP", status="SUCCEEDED")
    paused = rollouts.deploy(hooks=(other, HOOK))
    answer = ecs.continue_service_deployment(serviceDeploymentArn=rollouts.arn(paused), hookId="hook-1")
    assert answer["serviceDeploymentArn"] == rollouts.arn(paused)
    now = rollouts.deployment(paused)
    assert [(hook.id, hook.status) for hook in now.hooks] == [("hook-0", "SUCCEEDED"), ("hook-1", "SUCCEEDED")]
    assert now.status == "IN_PROGRESS"
    assert "goes on after POST_SCALE_UP" in rollouts.story()[0]


def test_a_paused_deployment_is_rolled_back(ecs: Any, rollouts: Rollouts) -> None:
    good = rollouts.deploy("SUCCESSFUL")
    rollouts.update(stable_revision=good.revision)
    paused = rollouts.deploy(hooks=(HOOK,))
    ecs.continue_service_deployment(serviceDeploymentArn=rollouts.arn(paused), hookId="hook-1", action="ROLLBACK")
    now = rollouts.deployment(paused)
    assert [hook.status for hook in now.hooks] == ["FAILED"]
    assert now.status == "ROLLBACK_REQUESTED"


def test_only_what_waits_can_go_on(ecs: Any, rollouts: Rollouts) -> None:
    done = HookState(id="hook-2", stage="POST_SCALE_UP", status="TIMED_OUT")
    paused = rollouts.arn(rollouts.deploy(hooks=(HOOK, done)))
    stopping = rollouts.arn(rollouts.deploy("STOP_REQUESTED", hooks=(HOOK,)))
    go_on = ecs.continue_service_deployment
    for arn, hook, word in (
        (paused, "hook-9", "hook-9"),
        (paused, "hook-2", "TIMED_OUT"),
        (stopping, "hook-1", "STOP"),
    ):
        with rollouts.server.unchanged():
            code, message = refused(go_on, serviceDeploymentArn=arn, hookId=hook)
        assert code == "InvalidParameterException"
        assert word in message
    with rollouts.server.unchanged():
        code, message = refused(go_on, serviceDeploymentArn=paused, hookId="hook-1", action="ROLLBACK")
    assert "no earlier service deployment has completed" in message
