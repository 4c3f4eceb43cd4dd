"""UpdateService: what begins a deployment, what doesn't, and what its answer shows."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.state.service_records import RolloutState, ServiceDeploymentStatus, TaskSetRecord
from homeport.ids import TaskId
from homeport.status import TaskStatus
from tests.contract.definitions import register
from tests.contract.refusals import refused
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe, put_records, put_task, update

EXTERNAL: dict[str, Any] = {"deploymentController": {"type": "EXTERNAL"}, "taskDefinition": None}
FARGATE = [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]


@pytest.fixture(autouse=True)
def web(ecs: Any) -> str:
    return register(ecs)


def ids(service: Any) -> list[str]:
    return [deployment["id"] for deployment in service["deployments"]]


def complete(server: ApiServer, deployment_id: str) -> None:
    """End a deployment as the reconciler does when it has succeeded."""
    deployment = server.context.state.deployments.get(deployment_id)
    assert deployment is not None
    done = replace(
        deployment,
        rollout=RolloutState.COMPLETED,
        status=ServiceDeploymentStatus.SUCCESSFUL,
        finished_at=server.clock.now(),
    )
    put_records(server, done)


# ---------------------------------------------------------------- a new deployment


def test_the_answer_shows_the_new_deployment_first_and_in_progress(ecs: Any, server: ApiServer, web: str) -> None:
    old = ids(create(ecs))
    complete(server, old[0])
    newer = register(ecs)
    answer = update(ecs, taskDefinition="web")
    assert answer["taskDefinition"] == newer
    shown = [(d["status"], d["rolloutState"], d["taskDefinition"]) for d in answer["deployments"]]
    assert shown == [("PRIMARY", "IN_PROGRESS", newer), ("ACTIVE", "COMPLETED", web)]
    assert ids(answer)[1:] == old
    assert describe(ecs)["deployments"] == answer["deployments"]


def test_the_waiter_doesnt_take_the_old_state_for_stable(ecs: Any, server: ApiServer) -> None:
    [old] = ids(create(ecs, desiredCount=1))
    complete(server, old)
    put_task(server, old)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    register(ecs)
    update(ecs, taskDefinition="web")
    with pytest.raises(Exception, match="Max attempts exceeded"):
        ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig={"Delay": 0, "MaxAttempts": 1})


@pytest.mark.parametrize(
    "members",
    [
        {"forceNewDeployment": True},
        {"platformVersion": "1.4.0"},
        {"capacityProviderStrategy": FARGATE, "forceNewDeployment": True},
        {"monitoring": {"metricConfigurations": [{"metricNames": ["CPUUtilization"], "resolutionSeconds": 20}]}},
    ],
)
def test_what_begins_a_deployment(ecs: Any, members: dict[str, Any]) -> None:
    before = ids(create(ecs))
    after = ids(update(ecs, **members))
    assert len(after) == 2
    assert after[1:] == before


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"taskDefinition": "web"},
        {"taskDefinition": "web:1"},
        {"taskDefinition": ""},
        {"forceNewDeployment": False},
        {"desiredCount": 7},
        {"deploymentConfiguration": {"maximumPercent": 150}},
        {"healthCheckGracePeriodSeconds": 5},
        {"placementConstraints": [{"type": "distinctInstance"}]},
        {"placementStrategy": [{"type": "random"}]},
        {"enableExecuteCommand": True},
        {"enableECSManagedTags": True},
        {"propagateTags": "SERVICE"},
        {"availabilityZoneRebalancing": "ENABLED"},
        {"capacityProviderStrategy": []},
        {"deploymentController": {"type": "ECS"}},
        {"loadBalancers": [], "serviceRegistries": [], "volumeConfigurations": [], "vpcLatticeConfigurations": []},
        {"serviceConnectConfiguration": {"enabled": False}},
        {"networkConfiguration": {}},
        {"platformVersion": ""},
    ],
)
def test_what_begins_none(ecs: Any, members: dict[str, Any]) -> None:
    before = ids(create(ecs))
    answer = update(ecs, **members)
    assert ids(answer) == before
    shown = {name: value for name, value in members.items() if name in answer and name != "taskDefinition" and value}
    shown.pop("deploymentConfiguration", None)
    assert {name: answer[name] for name in shown} == shown


def test_an_update_of_nothing_writes_nothing(ecs: Any, server: ApiServer) -> None:
    create(ecs, placementStrategy=[{"type": "random"}])
    with server.unchanged():
        update(ecs, taskDefinition="web", desiredCount=2, placementStrategy=[{"type": "random"}])


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"launchType": "FARGATE", "platformVersion": "LATEST"},
        {"capacityProviderStrategy": FARGATE},
        {"schedulingStrategy": "DAEMON", "desiredCount": None},
        {"deploymentController": {"type": "EXTERNAL"}, "taskDefinition": None},
    ],
)
def test_what_is_described_is_accepted_again_and_changes_nothing(
    ecs: Any, server: ApiServer, members: dict[str, Any]
) -> None:
    create(ecs, **members)
    described = describe(ecs)
    takes = ecs.meta.service_model.operation_model("UpdateService").input_shape.members
    again = {name: value for name, value in described.items() if name in takes}
    if "DAEMON" in members.values():
        del again["desiredCount"]
    assert len(again) > 9
    before = ids(described)
    assert ids(update(ecs, **again)) == before
    assert describe(ecs) == described


def test_every_deployment_has_a_revision_of_its_own(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    update(ecs, forceNewDeployment=True)
    arns = [revision["arn"] for revision in describe(ecs)["currentServiceRevisions"]]
    assert len(set(arns)) == 2


def test_an_update_during_an_update_supersedes_it(ecs: Any, server: ApiServer) -> None:
    [first] = ids(create(ecs))
    complete(server, first)
    second = ids(update(ecs, forceNewDeployment=True))[0]
    third = update(ecs, forceNewDeployment=True)
    assert ids(third)[1:] == [second, first]
    deployments = server.context.state.deployments
    ended, kept = deployments.get(second), deployments.get(first)
    assert ended is not None
    assert kept is not None
    assert ended.status is ServiceDeploymentStatus.STOPPED
    arn_id = third["currentServiceDeployment"].rsplit("/", 1)[-1]
    assert ended.status_reason.endswith(f"because a new service deployment {arn_id} was started.")
    assert ended.finished_at is not None
    assert kept.status is ServiceDeploymentStatus.SUCCESSFUL


def test_an_update_during_a_rollback_ends_both(ecs: Any, server: ApiServer, web: str) -> None:
    create(ecs)
    register(ecs)
    failing, first = ids(update(ecs, taskDefinition="web"))
    deployments, service = server.context.state.deployments, server.context.state.services.get("default/web")
    failed, stable = deployments.get(failing), deployments.get(first)
    assert service is not None
    assert failed is not None
    assert stable is not None
    rollback = replace(
        failed, id="ecs-svc/1234567890123456789", arn_id="r", revision=stable.revision, rollback_of=failing
    )
    put_records(
        server,
        replace(failed, status=ServiceDeploymentStatus.ROLLBACK_IN_PROGRESS, rollout=RolloutState.FAILED),
        rollback,
        replace(service, deployments=(rollback.id, failing, first)),
    )
    # What the rollback goes back to is what there is: asking for it begins nothing.
    assert ids(update(ecs, taskDefinition=web)) == [rollback.id, failing, first]
    answer = update(ecs, taskDefinition="web")
    assert ids(answer)[1:] == [rollback.id, failing, first]
    for deployment_id in (rollback.id, failing):
        ended = deployments.get(deployment_id)
        assert ended is not None
        assert (ended.status, ended.finished_at is None) == (ServiceDeploymentStatus.STOPPED, False)


def test_the_family_means_its_newest_active_revision(ecs: Any, web: str) -> None:
    create(ecs)
    second, third = register(ecs), register(ecs)
    assert update(ecs, taskDefinition="web")["taskDefinition"] == third
    ecs.deregister_task_definition(taskDefinition=third)
    assert update(ecs, taskDefinition="web")["taskDefinition"] == second
    assert refused(lambda: update(ecs, taskDefinition=third)) == ("ClientException", "TaskDefinition is inactive")


def test_a_service_goes_on_with_a_definition_that_was_deregistered(ecs: Any, web: str) -> None:
    create(ecs)
    ecs.deregister_task_definition(taskDefinition=web)
    answer = update(ecs, desiredCount=3, forceNewDeployment=True)
    assert (answer["desiredCount"], answer["taskDefinition"], len(answer["deployments"])) == (3, web, 2)


def test_a_service_is_scaled_even_when_its_definition_could_not_be_run_any_more(
    ecs: Any, server: ApiServer, web: str
) -> None:
    create(ecs)
    definition = server.context.state.task_definitions.get("web:1")
    assert definition is not None
    put_records(server, replace(definition, document={**definition.document, "networkMode": "awsvpc"}))
    assert update(ecs, desiredCount=0, propagateTags="SERVICE")["desiredCount"] == 0
    assert refused(lambda: update(ecs, forceNewDeployment=True))[0] == "ClientException"
    assert refused(lambda: update(ecs, placementStrategy=[{"type": "random"}]))[0] == "ClientException"


def test_a_strategy_gives_way_to_a_launch_type_again(ecs: Any) -> None:
    create(ecs, capacityProviderStrategy=FARGATE)
    assert "launchType" not in update(ecs, capacityProviderStrategy=FARGATE)
    answer = update(ecs, capacityProviderStrategy=[], forceNewDeployment=True)
    assert answer["launchType"] == "FARGATE"
    assert "capacityProviderStrategy" not in answer
    assert answer["deployments"][1]["capacityProviderStrategy"] == FARGATE


# ---------------------------------------------------------------- the rest of it


def test_members_that_are_not_given_stay(ecs: Any, server: ApiServer) -> None:
    given: dict[str, Any] = {
        "deploymentConfiguration": {
            "minimumHealthyPercent": 50,
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        },
        "placementStrategy": [{"type": "random"}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "propagateTags": "SERVICE",
        "healthCheckGracePeriodSeconds": 9,
    }
    before = create(ecs, **given)
    answer = update(ecs, deploymentConfiguration={"maximumPercent": 150})
    assert answer["deploymentConfiguration"] == {**before["deploymentConfiguration"], "maximumPercent": 150}
    members = set(given) - {"deploymentConfiguration"}
    assert {m: answer[m] for m in members} == {m: before[m] for m in members}
    record = server.context.state.services.get("default/web")
    assert record is not None
    assert record.given == ("deploymentCircuitBreaker", "maximumPercent", "minimumHealthyPercent")


def test_empty_lists_take_placement_away(ecs: Any) -> None:
    create(ecs, placementStrategy=[{"type": "random"}], placementConstraints=[{"type": "distinctInstance"}])
    answer = update(ecs, placementStrategy=[], placementConstraints=[])
    assert (answer["placementStrategy"], answer["placementConstraints"]) == ([], [])


def test_hooks_are_taken_away_by_an_empty_list(ecs: Any) -> None:
    hook = {"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]}
    create(ecs, deploymentConfiguration={"lifecycleHooks": [hook]})
    assert (
        update(ecs, deploymentConfiguration={"lifecycleHooks": []})["deploymentConfiguration"]["lifecycleHooks"] == []
    )


def test_scaling_shows_in_the_primary_deployment_at_once(ecs: Any) -> None:
    create(ecs)
    answer = update(ecs, desiredCount=5)
    assert (answer["desiredCount"], answer["deployments"][0]["desiredCount"]) == (5, 5)
    assert answer["currentServiceRevisions"][0]["requestedTaskCount"] == 5


def test_a_service_is_named_by_arn_too(ecs: Any) -> None:
    arn = create(ecs)["serviceArn"]
    cluster = "arn:aws:ecs:eu-home-1:123456789012:cluster/default"
    assert update(ecs, service=arn, cluster=cluster, desiredCount=1)["desiredCount"] == 1
    assert refused(lambda: update(ecs, service=arn.replace("default", "blue")))[0] == "ServiceNotFoundException"


# ---------------------------------------------------------------- EXTERNAL


def test_an_external_service_has_no_deployment_of_its_own(ecs: Any) -> None:
    created = create(ecs, **EXTERNAL, desiredCount=None)
    assert (created["deployments"], created["desiredCount"]) == ([], 0)
    assert created["deploymentController"] == {"type": "EXTERNAL"}
    for member in ("taskDefinition", "launchType", "currentServiceDeployment"):
        assert member not in created


def test_an_external_service_is_scaled_and_placed(ecs: Any) -> None:
    create(ecs, **EXTERNAL)
    members: dict[str, Any] = {
        "desiredCount": 4,
        "placementStrategy": [{"type": "random"}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "healthCheckGracePeriodSeconds": 4,
        "enableECSManagedTags": True,
        "propagateTags": "SERVICE",
    }
    answer = update(ecs, **members)
    assert {name: answer[name] for name in members} == members
    assert answer["deployments"] == []


def test_an_external_service_shows_what_its_primary_task_set_runs(ecs: Any, server: ApiServer, web: str) -> None:
    create(ecs, **EXTERNAL)
    service = server.context.state.services.get("default/web")
    assert service is not None
    task_set = TaskSetRecord(
        id="ecs-svc/1234567890123456789",
        service_id=service.id,
        service=service.key,
        created_at=1.0,
        updated_at=1.0,
        task_definition="web:1",
        scale_percent=100.0,
        document={"launchType": "EXTERNAL"},
    )
    put_records(server, task_set)
    put_task(server, task_set.id)
    put_task(server, task_set.id, TaskStatus.PENDING)
    found = describe(ecs)
    assert (found["runningCount"], found["pendingCount"]) == (1, 1)
    assert "taskDefinition" not in found
    assert [task_set["id"] for task_set in found["taskSets"]] == ["ecs-svc/1234567890123456789"]
    assert found["taskSets"][0]["status"] == "ACTIVE"
    put_records(server, replace(service, primary_task_set=task_set.id))
    found = describe(ecs)
    assert (found["taskDefinition"], found["launchType"]) == (web, "EXTERNAL")
    assert found["taskSets"][0]["status"] == "PRIMARY"


# ---------------------------------------------------------------- who did it


def test_the_history_says_who_asked_for_what(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    register(ecs)
    update(ecs, taskDefinition="web", desiredCount=5, deploymentConfiguration={"maximumPercent": 150})
    update(ecs, placementStrategy=[{"type": "random"}], enableExecuteCommand=True, forceNewDeployment=True)
    update(ecs, desiredCount=5)
    ecs.delete_service(service="web", force=True)
    service = server.context.state.services.get("default/web")
    assert service is not None
    by = "by AKIAHOMEPORTTEST0001"
    assert [line.message for line in server.thread.call(lambda: server.journal.story(TaskId(service.id)))] == [
        f"CreateService {by}: REPLICA, desiredCount 2, web:1",
        f"UpdateService {by}: desiredCount 2 -> 5, taskDefinition web:1 -> web:2, maximumPercent 200 -> 150",
        f"UpdateService {by}: enableExecuteCommand unset -> True, placementStrategy, forceNewDeployment",
        f"DeleteService {by}: desiredCount was 5",
    ]
