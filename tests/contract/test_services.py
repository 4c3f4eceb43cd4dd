"""Services: CreateService, DescribeServices, ListServices, DeleteService, through boto3."""

from typing import Any

import pytest
from botocore.exceptions import WaiterError
from msgspec.structs import replace

from controlplane.services.events import say
from controlplane.state.service_records import DeploymentRecord, EventRecord, ServiceRecord, TaskSetRecord
from homeport.ids import new_uuid
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.refusals import refused
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe, put_records, put_task, update

ARN = "arn:aws:ecs:eu-home-1:123456789012"


@pytest.fixture(autouse=True)
def web(ecs: Any) -> str:
    """A task definition to make services of."""
    return register(ecs)


def record(server: ApiServer, name: str = "web") -> ServiceRecord:
    found = server.call(lambda: server.context.state.services.get(f"default/{name}"))
    assert found is not None
    return found


def end(server: ApiServer, name: str = "web") -> None:
    """What the reconciler does once the tasks of a deleted service have stopped."""
    put_records(server, replace(record(server, name), status="INACTIVE", deployments=()))


# ---------------------------------------------------------------- making one


def test_a_new_service_shows_everything_that_clients_read(ecs: Any, web: str) -> None:
    created = create(ecs)
    [deployment] = created.pop("deployments")
    assert deployment.pop("createdAt") == deployment.pop("updatedAt") == created.pop("createdAt")
    deployment_id = deployment.pop("id")
    assert deployment_id.startswith("ecs-svc/")
    assert len(deployment_id) == len("ecs-svc/") + 19
    assert deployment == {
        "status": "PRIMARY",
        "taskDefinition": web,
        "desiredCount": 2,
        "runningCount": 0,
        "pendingCount": 0,
        "failedTasks": 0,
        "launchType": "EC2",
        "rolloutState": "IN_PROGRESS",
        "rolloutStateReason": f"ECS deployment {deployment_id} in progress.",
    }
    assert created.pop("currentServiceDeployment").startswith(f"{ARN}:service-deployment/default/web/")
    [revision] = created.pop("currentServiceRevisions")
    assert revision.pop("arn").startswith(f"{ARN}:service-revision/default/web/")
    assert revision == {"requestedTaskCount": 2, "runningTaskCount": 0, "pendingTaskCount": 0}
    assert created == {
        "serviceArn": f"{ARN}:service/default/web",
        "serviceName": "web",
        "clusterArn": f"{ARN}:cluster/default",
        "status": "ACTIVE",
        "desiredCount": 2,
        "runningCount": 0,
        "pendingCount": 0,
        "taskDefinition": web,
        "launchType": "EC2",
        "createdBy": "arn:aws:iam::123456789012:root",
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "maximumPercent": 200,
            "minimumHealthyPercent": 100,
            "strategy": "ROLLING",
            "bakeTimeInMinutes": 0,
        },
        "events": [],
        "loadBalancers": [],
        "serviceRegistries": [],
        "placementConstraints": [],
        "placementStrategy": [],
        "healthCheckGracePeriodSeconds": 0,
        "enableECSManagedTags": False,
        "enableExecuteCommand": False,
        "propagateTags": "NONE",
        "availabilityZoneRebalancing": "DISABLED",
        "resourceManagementType": "CUSTOMER",
        "tags": [],
    }


def test_what_is_given_is_kept_and_shown(ecs: Any) -> None:
    given: dict[str, Any] = {
        "launchType": "EXTERNAL",
        "deploymentConfiguration": {
            "maximumPercent": 150,
            "minimumHealthyPercent": 50,
            "deploymentCircuitBreaker": {
                "enable": True,
                "rollback": True,
                "resetOnHealthyTask": False,
                "thresholdConfiguration": {"type": "COUNT", "value": 3},
            },
            "strategy": "ROLLING",
            "bakeTimeInMinutes": 0,
            "alarms": {"alarmNames": [], "rollback": False, "enable": False},
            "earlySuccessCriteria": {
                "enable": True,
                "healthyPercent": 60,
                "sourceServiceRevisionCleanup": "DEFERRED",
            },
            "lifecycleHooks": [
                {
                    "targetType": "PAUSE",
                    "lifecycleStages": ["POST_SCALE_UP"],
                    "timeoutConfiguration": {"timeoutInMinutes": 5, "action": "CONTINUE"},
                }
            ],
        },
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:rack == a"}],
        "placementStrategy": [{"type": "spread", "field": "attribute:ecs.availability-zone"}, {"type": "random"}],
        "healthCheckGracePeriodSeconds": 30,
        "enableECSManagedTags": True,
        "enableExecuteCommand": True,
        "propagateTags": "SERVICE",
        "platformVersion": "LATEST",
        "availabilityZoneRebalancing": "ENABLED",
        "tags": [{"key": "team", "value": "a"}],
    }
    created = create(ecs, role="ecsServiceRole", **given)
    assert {name: created[name] for name in given} == given
    assert created["roleArn"] == "arn:aws:iam::123456789012:role/ecsServiceRole"
    assert describe(ecs, include=["TAGS"]) == created
    assert describe(ecs)["tags"] == []


def test_a_capacity_provider_strategy_is_shown_instead_of_a_launch_type(ecs: Any) -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 1}]
    created = create(ecs, capacityProviderStrategy=strategy)
    assert created["capacityProviderStrategy"] == created["deployments"][0]["capacityProviderStrategy"] == strategy
    assert "launchType" not in created
    assert "launchType" not in created["deployments"][0]


def test_without_launch_type_the_strategy_of_the_cluster_is_used_except_by_a_daemon(ecs: Any) -> None:
    strategy = [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]
    ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=["FARGATE"], defaultCapacityProviderStrategy=strategy
    )
    assert create(ecs)["capacityProviderStrategy"] == strategy
    assert create(ecs, serviceName="other", launchType="EC2")["launchType"] == "EC2"
    daemon = create(ecs, serviceName="agent", schedulingStrategy="DAEMON", desiredCount=None)
    assert daemon["launchType"] == "EC2"


def test_a_service_runs_on_a_capacity_provider_of_its_cluster(ecs: Any) -> None:
    group = {"autoScalingGroupArn": "arn:aws:autoscaling:eu-home-1:123456789012:autoScalingGroup:x"}
    ecs.create_capacity_provider(name="rack", autoScalingGroupProvider=group)
    strategy = [{"capacityProvider": "rack", "weight": 1}]
    assert "not associated" in refused(lambda: create(ecs, capacityProviderStrategy=strategy))[1]
    ecs.put_cluster_capacity_providers(
        cluster="default", capacityProviders=["rack"], defaultCapacityProviderStrategy=[]
    )
    assert create(ecs, capacityProviderStrategy=strategy)["capacityProviderStrategy"] == strategy
    assert ecs.list_services(launchType="EC2")["serviceArns"] == [f"{ARN}:service/default/web"]


def test_a_fargate_service_shows_its_platform(ecs: Any) -> None:
    created = create(ecs, launchType="FARGATE")
    assert (created["platformVersion"], created["platformFamily"]) == ("LATEST", "Linux")
    assert created["deployments"][0]["platformVersion"] == "LATEST"


def test_a_daemon_has_the_defaults_of_daemons(ecs: Any) -> None:
    created = create(ecs, schedulingStrategy="DAEMON", desiredCount=None)
    assert (created["schedulingStrategy"], created["desiredCount"]) == ("DAEMON", 0)
    configuration = created["deploymentConfiguration"]
    assert (configuration["minimumHealthyPercent"], configuration["maximumPercent"]) == (0, 100)
    assert created["availabilityZoneRebalancing"] == "DISABLED"


def test_a_daemon_counts_its_hosts_from_the_start(ecs: Any, server: ApiServer) -> None:
    fleet = Fleet(server)
    fleet.add_host("a", attributes={"rack": "a"})
    fleet.add_host("b", attributes={"rack": "b"})
    fleet.add_host("silent", connected=False, attributes={"rack": "a"})
    daemon: dict[str, Any] = {"schedulingStrategy": "DAEMON", "desiredCount": None}
    assert create(ecs, **daemon)["desiredCount"] == 3
    one = [{"type": "memberOf", "expression": "attribute:rack == b"}]
    assert update(ecs, placementConstraints=one)["desiredCount"] == 1
    assert create(ecs, serviceName="b", placementConstraints=one, **daemon)["deployments"][0]["desiredCount"] == 1


@pytest.mark.parametrize("reference", ["web", "web:1", f"{ARN}:task-definition/web:1"])
def test_a_task_definition_may_be_named_in_every_way(ecs: Any, web: str, reference: str) -> None:
    assert create(ecs, taskDefinition=reference)["taskDefinition"] == web


def test_what_asks_for_nothing_is_no_obstacle(ecs: Any) -> None:
    created = create(
        ecs,
        loadBalancers=[],
        serviceRegistries=[],
        placementConstraints=[],
        placementStrategy=[],
        capacityProviderStrategy=[],
        volumeConfigurations=[],
        vpcLatticeConfigurations=[],
        networkConfiguration={},
        serviceConnectConfiguration={"enabled": False, "namespace": "ns", "services": []},
        clientToken="",
        cluster="",
        platformVersion="",
        role="",
        tags=[],
    )
    assert created["status"] == "ACTIVE"
    assert "roleArn" not in created
    assert "platformVersion" not in created
    assert "networkConfiguration" not in created


# ---------------------------------------------------------------- making it again


def test_the_same_request_again_returns_the_service_there_is(ecs: Any, server: ApiServer) -> None:
    first = create(ecs, tags=[{"key": "a", "value": "b"}])
    with server.unchanged():
        assert create(ecs, tags=[{"key": "a", "value": "b"}]) == first


@pytest.mark.parametrize(
    "members",
    [
        {"desiredCount": 3},
        {"launchType": "EXTERNAL"},
        {"enableECSManagedTags": True},
        {"deploymentConfiguration": {"maximumPercent": 150}},
        {"tags": [{"key": "a", "value": "b"}]},
        {"schedulingStrategy": "DAEMON", "desiredCount": None},
    ],
)
def test_another_request_for_an_active_name_is_refused(ecs: Any, server: ApiServer, members: dict[str, Any]) -> None:
    create(ecs)
    with server.unchanged():
        wanted = ("InvalidParameterException", "Creation of service was not idempotent.")
        assert refused(lambda: create(ecs, **members)) == wanted


def test_a_client_token_returns_the_service_even_after_it_was_updated(ecs: Any, server: ApiServer) -> None:
    create(ecs, clientToken="once")
    update(ecs, desiredCount=5)
    with server.unchanged():
        assert create(ecs, clientToken="once")["desiredCount"] == 5
        assert refused(lambda: create(ecs, clientToken="once", desiredCount=7))[0] == "InvalidParameterException"
        assert refused(lambda: create(ecs))[1] == "Creation of service was not idempotent."
        # Nor is it good for a service of another name.
        other = refused(lambda: create(ecs, clientToken="once", serviceName="other"))
        assert other == ("InvalidParameterException", "Creation of service was not idempotent.")


def test_a_client_token_of_a_service_that_is_gone_makes_a_new_one(ecs: Any, server: ApiServer) -> None:
    first = create(ecs, clientToken="once")
    ecs.delete_service(service="web", force=True)
    end(server)
    second = create(ecs, clientToken="once")
    assert second["deployments"][0]["id"] != first["deployments"][0]["id"]
    assert create(ecs, clientToken="once") == second


def test_a_client_token_is_answered_even_if_the_request_could_not_be_served_any_more(ecs: Any, web: str) -> None:
    first = create(ecs, clientToken="once")
    ecs.deregister_task_definition(taskDefinition=web)
    assert create(ecs, clientToken="once") == first


def test_a_client_token_is_forgotten_after_a_day(ecs: Any, server: ApiServer) -> None:
    create(ecs, clientToken="once")
    update(ecs, desiredCount=5)
    server.clock.offset_s += 24 * 3600
    assert refused(lambda: create(ecs, clientToken="once"))[1] == "Creation of service was not idempotent."


def test_a_new_service_of_a_deleted_name_begins_with_nothing_of_the_old(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    old = record(server)
    event = EventRecord(id="e", service_id=old.id, number=1, at=1.0, message="(service web) old")
    put_records(server, event)
    ecs.delete_service(service="web", force=True)
    assert refused(lambda: create(ecs)) == (
        "InvalidParameterException",
        "Unable to Start a service that is still Draining.",
    )
    end(server)
    new = create(ecs, desiredCount=1)
    assert (new["status"], new["desiredCount"], new["events"], len(new["deployments"])) == ("ACTIVE", 1, [], 1)
    state = server.context.state
    for table in (state.deployments, state.revisions, state.events):
        assert table.count("service", old.id) == 0


# ---------------------------------------------------------------- looking at them


def test_a_service_is_found_by_name_and_by_arn_long_and_short(ecs: Any) -> None:
    ecs.create_cluster(clusterName="blue")
    created = create(ecs, cluster="blue")
    for reference in ("web", created["serviceArn"], f"{ARN}:service/web"):
        assert describe(ecs, service=reference, cluster="blue")["serviceArn"] == created["serviceArn"]


@pytest.mark.parametrize(
    ("reference", "arn"),
    [
        ("nope", f"{ARN}:service/default/nope"),
        (f"{ARN}:service/blue/web", f"{ARN}:service/blue/web"),
        ("arn:aws:ecs:us-east-1:123456789012:service/default/web",) * 2,
        (f"{ARN}:cluster/default", f"{ARN}:cluster/default"),
        ("default/web", f"{ARN}:service/default/default/web"),
    ],
)
def test_what_is_not_there_is_a_failure(ecs: Any, reference: str, arn: str) -> None:
    create(ecs)
    answer = ecs.describe_services(services=[reference, "web"])
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert [service["serviceName"] for service in answer["services"]] == ["web"]


def test_up_to_ten_services_are_described_at_once(ecs: Any) -> None:
    assert refused(ecs.describe_services, services=[str(n) for n in range(11)])[0] == "InvalidParameterException"
    assert refused(ecs.describe_services, services=[])[0] == "InvalidParameterException"
    assert len(ecs.describe_services(services=[str(n) for n in range(10)])["failures"]) == 10


def test_counts_are_those_of_the_moment(ecs: Any, server: ApiServer) -> None:
    old = create(ecs)["deployments"][0]["id"]
    register(ecs)
    new = update(ecs, taskDefinition="web", desiredCount=4)["deployments"][0]["id"]
    put_task(server, old)
    put_task(server, old)
    put_task(server, old, TaskStatus.PENDING)
    put_task(server, new)
    put_task(server, new, TaskStatus.PENDING, desired=DesiredStatus.PENDING)
    put_task(server, new, TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=2.0)
    put_task(server, new, lost_at=1.0)
    found = describe(ecs)
    assert (found["desiredCount"], found["runningCount"], found["pendingCount"]) == (4, 3, 2)
    seen = [
        (d["id"], d["status"], d["desiredCount"], d["runningCount"], d["pendingCount"]) for d in found["deployments"]
    ]
    assert seen == [(new, "PRIMARY", 4, 1, 1), (old, "ACTIVE", 3, 2, 1)]
    members = ("requestedTaskCount", "runningTaskCount", "pendingTaskCount")
    asked = [tuple(revision[member] for member in members) for revision in found["currentServiceRevisions"]]
    assert asked == [(4, 1, 1), (3, 2, 1)]


def test_a_task_that_stops_running_is_not_counted_any_more(ecs: Any, server: ApiServer) -> None:
    deployment = create(ecs)["deployments"][0]["id"]
    task = put_task(server, deployment)
    assert describe(ecs)["runningCount"] == 1
    put_records(server, replace(task, status=TaskStatus.DEPROVISIONING, desired=DesiredStatus.STOPPED))
    assert describe(ecs)["runningCount"] == 0


def test_events_are_the_last_hundred_newest_first(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    service, context = record(server), server.context

    def speak() -> None:
        with context.state.transaction() as transaction:
            for number in range(103):
                say(
                    context.state,
                    transaction,
                    service,
                    f"did {number}.",
                    event_id=new_uuid(context.random),
                    now=context.clock.now(),
                )

    server.call(speak)
    events = describe(ecs)["events"]
    assert [e["message"] for e in events] == [f"(service web) did {number}." for number in range(102, 2, -1)]
    assert len({e["id"] for e in events}) == 100
    assert all("createdAt" in e for e in events)


def test_a_rollback_shows_the_service_deployment_that_it_undoes(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    register(ecs)
    failed = update(ecs, taskDefinition="web")
    service = record(server)
    first = server.context.state.deployments.get(service.deployments[1])
    assert first is not None
    rollback = DeploymentRecord(
        id="ecs-svc/1234567890123456789",
        arn_id="rollback",
        service_id=service.id,
        service=service.key,
        revision=first.revision,
        created_at=2.0,
        updated_at=2.0,
        rollback_of=service.deployments[0],
    )
    put_records(server, rollback, replace(service, deployments=(rollback.id, *service.deployments)))
    found = describe(ecs)
    assert found["currentServiceDeployment"] == failed["currentServiceDeployment"]
    assert [d["id"] for d in found["deployments"]] == [rollback.id, *service.deployments]
    # The first deployment and the rollback to it share a revision.
    assert len(found["currentServiceRevisions"]) == 2
    assert found["taskDefinition"].endswith("web:1")


# ---------------------------------------------------------------- lists


def test_lists_have_ten_a_page_unless_told_otherwise(ecs: Any) -> None:
    names = [f"s{number:02}" for number in range(12)]
    for name in names:
        create(ecs, serviceName=name)
    first = ecs.list_services()
    assert len(first["serviceArns"]) == 10
    rest = ecs.list_services(nextToken=first["nextToken"])
    assert "nextToken" not in rest
    arns = [f"{ARN}:service/default/{name}" for name in names]
    assert first["serviceArns"] + rest["serviceArns"] == arns
    assert ecs.list_services(maxResults=100)["serviceArns"] == arns
    assert refused(ecs.list_services, maxResults=101)[0] == "InvalidParameterException"


def test_lists_are_filtered(ecs: Any, server: ApiServer) -> None:
    create(ecs, serviceName="a")
    create(ecs, serviceName="b", launchType="FARGATE")
    create(ecs, serviceName="c", capacityProviderStrategy=[{"capacityProvider": "FARGATE", "weight": 1}])
    create(ecs, serviceName="d", launchType="EXTERNAL", schedulingStrategy="DAEMON", desiredCount=None)
    create(ecs, serviceName="e")
    ecs.delete_service(service="e", force=True)

    def listed(**members: Any) -> str:
        return "".join(arn[-1] for arn in ecs.list_services(**members)["serviceArns"])

    assert listed() == "abcd"
    assert listed(launchType="EC2") == "a"
    assert listed(launchType="FARGATE") == "bc"
    assert listed(launchType="EXTERNAL", schedulingStrategy="DAEMON") == "d"
    assert listed(schedulingStrategy="REPLICA") == "abc"
    assert listed(resourceManagementType="CUSTOMER") == "abcd"
    assert listed(resourceManagementType="ECS") == ""


def test_there_are_no_namespaces(ecs: Any) -> None:
    assert refused(ecs.list_services_by_namespace, namespace="ns")[0] == "NamespaceNotFoundException"


# ---------------------------------------------------------------- deleting


def test_a_service_scaled_above_0_is_not_deleted_without_force(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    wanted = ("InvalidParameterException", "The service cannot be stopped while it is scaled above 0.")
    with server.unchanged():
        assert refused(ecs.delete_service, service="web") == wanted
        assert refused(ecs.delete_service, service="web", force=False) == wanted
    deleted = ecs.delete_service(service="web", force=True)["service"]
    assert (deleted["status"], deleted["desiredCount"], deleted["deployments"][0]["desiredCount"]) == ("DRAINING", 0, 0)
    assert record(server).deleted_at is not None


def test_a_service_of_0_may_be_deleted_while_its_tasks_still_run(ecs: Any, server: ApiServer) -> None:
    put_task(server, create(ecs)["deployments"][0]["id"])
    update(ecs, desiredCount=0)
    deleted = ecs.delete_service(service="web")["service"]
    assert (deleted["status"], deleted["runningCount"]) == ("DRAINING", 1)


def test_a_daemon_needs_no_force(ecs: Any, server: ApiServer) -> None:
    create(ecs, schedulingStrategy="DAEMON", desiredCount=None)
    put_records(server, replace(record(server), desired_count=3))
    assert ecs.delete_service(service="web")["service"]["status"] == "DRAINING"


def test_deleting_twice_changes_nothing(ecs: Any, server: ApiServer) -> None:
    create(ecs)
    ecs.delete_service(service="web", force=True)
    with server.unchanged():
        assert ecs.delete_service(service="web")["service"]["status"] == "DRAINING"
    end(server)
    assert refused(ecs.delete_service, service="web")[0] == "ServiceNotActiveException"


def test_a_service_that_is_not_there_cannot_be_changed(ecs: Any) -> None:
    wanted = ("ServiceNotFoundException", "Service not found.")
    assert refused(ecs.delete_service, service="nope") == wanted
    assert refused(ecs.update_service, service="nope", desiredCount=1) == wanted
    assert refused(ecs.list_tasks, serviceName="nope") == wanted


def test_an_inactive_service_stays_describable_and_waiters_see_it(ecs: Any, server: ApiServer, web: str) -> None:
    create(ecs)
    ecs.delete_service(service="web", force=True)
    end(server)
    found = describe(ecs)
    assert (found["status"], found["deployments"], found["taskDefinition"]) == ("INACTIVE", [], web)
    ecs.get_waiter("services_inactive").wait(services=["web"], WaiterConfig={"Delay": 0, "MaxAttempts": 1})
    with pytest.raises(WaiterError):
        ecs.get_waiter("services_inactive").wait(services=["nope"], WaiterConfig={"Delay": 0, "MaxAttempts": 1})


def test_a_service_with_task_sets_is_deleted_only_by_force(ecs: Any, server: ApiServer) -> None:
    create(ecs, deploymentController={"type": "EXTERNAL"}, taskDefinition=None, desiredCount=0)
    service = record(server)
    task_set = TaskSetRecord(
        id="ecs-svc/1234567890123456789",
        service_id=service.id,
        service=service.key,
        created_at=1.0,
        updated_at=1.0,
        task_definition="web:1",
    )
    put_records(server, task_set)
    assert refused(ecs.delete_service, service="web") == (
        "InvalidParameterException",
        "The service cannot be stopped while deployments are active.",
    )
    assert ecs.delete_service(service="web", force=True)["service"]["status"] == "DRAINING"
