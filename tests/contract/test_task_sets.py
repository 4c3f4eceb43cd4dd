"""Task sets of services with the EXTERNAL deployment controller."""

from typing import Any

import pytest

from controlplane.state.service_records import TaskSetRecord
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.fleet import refused, register_web
from tests.contract.rollouts import Rollouts
from tests.contract.server import ACCESS_KEY_ID, ApiServer

SERVICE = {"cluster": "default", "service": "web"}


@pytest.fixture
def rollouts(server: ApiServer, ecs: Any) -> Rollouts:
    register_web(ecs)
    return Rollouts(server, controller="EXTERNAL", desired_count=3)


def create(ecs: Any, **arguments: Any) -> Any:
    return ecs.create_task_set(**{**SERVICE, "taskDefinition": "web", **arguments})["taskSet"]


def scale(percent: float) -> dict[str, Any]:
    return {"value": percent, "unit": "PERCENT"}


def described(ecs: Any, *references: str, **arguments: Any) -> Any:
    answer = ecs.describe_task_sets(**SERVICE, taskSets=list(references), **arguments)
    assert answer["failures"] == []
    return answer["taskSets"]


# ---------------------------------------------------------------- making


def test_a_new_task_set_has_no_tasks_until_it_is_scaled(ecs: Any, rollouts: Rollouts) -> None:
    made = create(ecs)
    created_at = made.pop("createdAt")
    assert made.pop("updatedAt") == made.pop("stabilityStatusAt") == created_at
    digits = made["id"].removeprefix("ecs-svc/")
    assert len(digits) == 19
    assert digits.isdigit()
    assert made == {
        "id": made["id"],
        "taskSetArn": f"arn:aws:ecs:eu-home-1:123456789012:task-set/default/web/{made['id']}",
        "serviceArn": "arn:aws:ecs:eu-home-1:123456789012:service/default/web",
        "clusterArn": "arn:aws:ecs:eu-home-1:123456789012:cluster/default",
        "status": "ACTIVE",
        "taskDefinition": "arn:aws:ecs:eu-home-1:123456789012:task-definition/web:1",
        "computedDesiredCount": 0,
        "pendingCount": 0,
        "runningCount": 0,
        "launchType": "EC2",
        "loadBalancers": [],
        "serviceRegistries": [],
        "scale": scale(0),
        "stabilityStatus": "STABILIZING",
        "tags": [],
    }
    assert described(ecs, made["id"])[0]["taskSetArn"] == made["taskSetArn"]
    assert rollouts.story() == [f"CreateTaskSet by {ACCESS_KEY_ID}: {made['id']} of web:1"]


def test_a_task_set_keeps_what_it_was_given(ecs: Any, rollouts: Rollouts) -> None:
    tags = [{"key": "team", "value": "a"}]
    made = create(
        ecs,
        taskDefinition=f"{rollouts.context.arns.task_definition('web', 1)}",
        externalId="blue",
        launchType="EXTERNAL",
        scale=scale(50.5),
        tags=tags,
        loadBalancers=[],
        networkConfiguration={"awsvpcConfiguration": {"subnets": []}},
    )
    assert made["externalId"] == "blue"
    assert made["launchType"] == "EXTERNAL"
    assert made["scale"] == scale(50.5)
    assert made["tags"] == tags
    assert described(ecs, made["taskSetArn"])[0]["tags"] == []
    assert described(ecs, made["taskSetArn"], include=["TAGS"])[0]["tags"] == tags


def test_a_task_set_on_fargate_shows_its_platform(ecs: Any, rollouts: Rollouts) -> None:
    made = create(ecs, launchType="FARGATE")
    assert (made["launchType"], made["platformVersion"], made["platformFamily"]) == ("FARGATE", "LATEST", "Linux")
    assert create(ecs, launchType="FARGATE", platformVersion="1.4.0")["platformVersion"] == "1.4.0"


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (0.1, 1), (33.3, 1), (34, 2), (66.6, 2), (100, 3)])
def test_its_share_of_the_desired_count_is_rounded_up(ecs: Any, rollouts: Rollouts, percent: float, count: int) -> None:
    made = create(ecs, scale=scale(percent))
    assert made["computedDesiredCount"] == count
    rollouts.update(desired_count=0)
    assert described(ecs, made["id"])[0]["computedDesiredCount"] == 0


def test_its_tasks_are_counted(ecs: Any, rollouts: Rollouts) -> None:
    made, other = create(ecs, scale=scale(100)), create(ecs)
    rollouts.task(made["id"])
    rollouts.task(made["id"])
    rollouts.task(made["id"], TaskStatus.PENDING)
    rollouts.task(made["id"], TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=1.0)
    found = {each["id"]: (each["runningCount"], each["pendingCount"]) for each in described(ecs)}
    assert found == {made["id"]: (2, 1), other["id"]: (0, 0)}
    [service] = ecs.describe_services(services=["web"])["services"]
    assert (service["runningCount"], service["pendingCount"]) == (2, 1)
    assert [each["id"] for each in service["taskSets"]] == [made["id"], other["id"]]
    assert service["taskSets"] == described(ecs)


def test_the_same_token_makes_one_task_set(ecs: Any, rollouts: Rollouts) -> None:
    first = create(ecs, clientToken="t-1")
    with rollouts.server.unchanged():
        assert create(ecs, clientToken="t-1")["id"] == first["id"]
        code, message = refused(create, ecs=ecs, clientToken="t-1", externalId="other")
    assert code == "InvalidParameterException"
    assert first["taskSetArn"] in message
    assert create(ecs, clientToken="t-2")["id"] != first["id"]
    assert refused(create, ecs=ecs, clientToken="t" * 37)[0] == "InvalidParameterException"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ({"cluster": "other"}, "ClusterNotFoundException", "Cluster not found."),
        ({"service": "other"}, "ServiceNotFoundException", "Service not found."),
        ({"taskDefinition": "other"}, "ClientException", "TaskDefinition not found."),
        ({"scale": scale(100.5)}, "InvalidParameterException", "between 0 and 100"),
        ({"scale": scale(-1)}, "InvalidParameterException", "between 0 and 100"),
        ({"externalId": "x" * 256}, "InvalidParameterException", "externalId"),
        ({"loadBalancers": [{"targetGroupArn": "arn"}]}, "InvalidParameterException", "loadBalancers"),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}},
            "InvalidParameterException",
            "Network Configuration",
        ),
        (
            {"launchType": "EC2", "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            "InvalidParameterException",
            "both a launch type and capacity provider",
        ),
    ],
)
def test_creating_refuses_by_name(
    ecs: Any, rollouts: Rollouts, arguments: dict[str, Any], code: str, word: str
) -> None:
    with rollouts.server.unchanged():
        found = refused(create, ecs=ecs, **arguments)
    assert found[0] == code
    assert word in found[1]


def test_a_service_has_100_task_sets_at_most(ecs: Any, rollouts: Rollouts) -> None:
    records = [
        TaskSetRecord(
            id=f"ecs-svc/{number:019}",
            service_id=rollouts.service.id,
            service="default/web",
            created_at=1.0,
            updated_at=1.0,
            task_definition="web:1",
        )
        for number in range(100)
    ]
    rollouts.put(*records[1:])
    create(ecs)
    assert refused(create, ecs=ecs)[0] == "LimitExceededException"


def test_task_sets_are_for_the_external_controller_only(ecs: Any, server: ApiServer, rollouts: Rollouts) -> None:
    Rollouts(server, "own")
    own = {"cluster": "default", "service": "own"}
    for call in (
        lambda: ecs.create_task_set(**own, taskDefinition="web"),
        lambda: ecs.describe_task_sets(**own),
        lambda: ecs.update_task_set(**own, taskSet="x", scale=scale(1)),
        lambda: ecs.delete_task_set(**own, taskSet="x"),
        lambda: ecs.update_service_primary_task_set(**own, primaryTaskSet="x"),
    ):
        code, message = refused(call)
        assert code == "InvalidParameterException"
        assert "EXTERNAL" in message
    rollouts.update(status="DRAINING")
    assert refused(create, ecs=ecs) == ("ServiceNotActiveException", "Service was not ACTIVE.")
    assert described(ecs) == []


# ---------------------------------------------------------------- changing


def test_a_task_set_is_scaled_and_stabilizes_anew(ecs: Any, rollouts: Rollouts) -> None:
    made = create(ecs)
    record = rollouts.context.state.task_sets.get(made["id"])
    rollouts.put(
        type(record)(**{f: getattr(record, f) for f in record.__struct_fields__} | {"stability": "STEADY_STATE"})
    )
    changed = ecs.update_task_set(**SERVICE, taskSet=made["taskSetArn"], scale=scale(100))["taskSet"]
    assert changed["computedDesiredCount"] == 3
    assert changed["stabilityStatus"] == "STABILIZING"
    assert changed["updatedAt"] > made["updatedAt"]
    with rollouts.server.unchanged():
        ecs.update_task_set(**SERVICE, taskSet=made["id"], scale=scale(100))


def test_one_task_set_is_the_primary_one(ecs: Any, rollouts: Rollouts) -> None:
    blue, green = create(ecs)["id"], create(ecs)["id"]
    for primary in (blue, green):
        answer = ecs.update_service_primary_task_set(**SERVICE, primaryTaskSet=primary)
        assert answer["taskSet"]["status"] == "PRIMARY"
        statuses = {each["id"]: each["status"] for each in described(ecs)}
        assert statuses == {blue: "ACTIVE", green: "ACTIVE"} | {primary: "PRIMARY"}
    with rollouts.server.unchanged():
        ecs.update_service_primary_task_set(**SERVICE, primaryTaskSet=green)


def test_a_deleted_task_set_drains(ecs: Any, rollouts: Rollouts) -> None:
    made = create(ecs, scale=scale(50))
    ecs.update_service_primary_task_set(**SERVICE, primaryTaskSet=made["id"])
    with rollouts.server.unchanged():
        code, message = refused(ecs.delete_task_set, **SERVICE, taskSet=made["id"])
    assert (code, message) == (
        "InvalidParameterException",
        "The task set cannot be deleted while it is scaled above 0.",
    )
    deleted = ecs.delete_task_set(**SERVICE, taskSet=made["id"], force=True)["taskSet"]
    assert (deleted["status"], deleted["computedDesiredCount"]) == ("DRAINING", 0)
    assert rollouts.server.call(lambda: rollouts.context.state.services.get("default/web").primary_task_set) == ""
    with rollouts.server.unchanged():
        assert ecs.delete_task_set(**SERVICE, taskSet=made["id"])["taskSet"]["status"] == "DRAINING"
        for call in (
            lambda: ecs.update_task_set(**SERVICE, taskSet=made["id"], scale=scale(1)),
            lambda: ecs.update_service_primary_task_set(**SERVICE, primaryTaskSet=made["id"]),
        ):
            code, message = refused(call)
            assert code == "InvalidParameterException"
            assert "DRAINING" in message
    empty = create(ecs)
    assert ecs.delete_task_set(**SERVICE, taskSet=empty["id"])["taskSet"]["status"] == "DRAINING"


def test_what_is_missing(ecs: Any, server: ApiServer, rollouts: Rollouts) -> None:
    made = create(ecs)
    arn = made["taskSetArn"]
    Rollouts(server, "other", controller="EXTERNAL")
    other = ecs.create_task_set(cluster="default", service="other", taskDefinition="web")["taskSet"]
    missing = [other["id"], other["taskSetArn"], arn + "0", arn.replace("eu-home-1", "eu-home-2")]
    answer = ecs.describe_task_sets(**SERVICE, taskSets=[*missing, arn])
    assert [each["taskSetArn"] for each in answer["taskSets"]] == [arn]
    expected = [arn.replace(made["id"], other["id"]), *missing[1:]]
    assert answer["failures"] == [{"arn": each, "reason": "MISSING"} for each in expected]
    for call in (
        lambda: ecs.update_task_set(**SERVICE, taskSet=other["id"], scale=scale(1)),
        lambda: ecs.delete_task_set(**SERVICE, taskSet=arn + "0"),
        lambda: ecs.update_service_primary_task_set(**SERVICE, primaryTaskSet="x"),
    ):
        assert refused(call) == ("TaskSetNotFoundException", "TaskSet not found.")
