"""Each change that AWS tells of becomes one document, in the shape of AWS's own examples."""

from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.feed import JournalFeed
from controlplane.events.notes import CustomFacts, ServiceEvent, ServiceFacts
from controlplane.services.act import act
from controlplane.services.model import Action, Decision, Say, Start, Stop
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import RolloutState, ServiceRecord
from homeport.protocol import ContainerReport, NetworkBinding
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, a_task, an_instance, put
from tests.fakes.services import look, put_service

#: 2020-01-23T17:57:58.103Z
NOW = 1_579_802_278.103
HOST = an_instance("host", attributes={"ecs.cpu-architecture": "x86_64", "ecs.availability-zone": "us-west-2c"})


def a_world() -> Context:
    context = a_context(ManualClock(NOW))
    put(context, HOST)
    return context


async def told(context: Context, detail_type: str | None = None) -> list[dict[str, Any]]:
    feed = JournalFeed(context.state.journal, context.arns)
    documents = [document for _, document, _ in await feed.read(0, limit=1000)]
    return [document for document in documents if detail_type in (None, document["detail-type"])]


def running(task: TaskRecord) -> TaskRecord:
    report = ContainerReport(
        name="web",
        status=ContainerStatus.RUNNING,
        runtime_id="ad64cbc71c7fb31c55507ec24c9f77947132b03d48d9961115cf24f3b7307e1e",
        image_digest="sha256:74b2c688c700ec95a93e478cdb959737c148df3fbf5ea706abe0318726e885e6",
        bindings=(NetworkBinding(bind_ip="0.0.0.0", container_port=80, host_port=49153, protocol="tcp"),),
    )
    return replace(task, status=TaskStatus.RUNNING, containers=(report,), version=task.version + 1)


async def test_a_task_that_runs_is_told_in_the_documented_shape() -> None:
    context = a_world()
    context.state.presence.put(HOST.id, Presence(connected=True, since=1_579_802_258.453, last_seen_at=NOW))
    begun = a_task(
        "task",
        family="sample",
        instance_id=HOST.id,
        group="family:sample",
        created_at=1_579_802_254.402,
        pull_started_at=1_579_802_272.103,
        pull_stopped_at=1_579_802_275.103,
        started_at=NOW,
        version=3,
    )
    put(context, begun)
    put(context, running(begun))
    event = (await told(context, "ECS Task State Change"))[-1]
    assert len(event.pop("id")) == 36
    assert event == {
        "version": "0",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": "123456789012",
        "time": "2020-01-23T17:57:58Z",
        "region": "eu-home-1",
        "resources": ["arn:aws:ecs:eu-home-1:123456789012:task/default/task"],
        "detail": {
            "attachments": [],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": "us-west-2c",
            "clusterArn": "arn:aws:ecs:eu-home-1:123456789012:cluster/default",
            "containerInstanceArn": "arn:aws:ecs:eu-home-1:123456789012:container-instance/default/host",
            "containers": [
                {
                    "containerArn": "c",
                    "cpu": "0",
                    "healthStatus": "UNKNOWN",
                    "image": "busybox",
                    "imageDigest": "sha256:74b2c688c700ec95a93e478cdb959737c148df3fbf5ea706abe0318726e885e6",
                    "lastStatus": "RUNNING",
                    "managedAgents": [],
                    "name": "web",
                    "networkBindings": [
                        {"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 49153, "protocol": "tcp"}
                    ],
                    "networkInterfaces": [],
                    "runtimeId": "ad64cbc71c7fb31c55507ec24c9f77947132b03d48d9961115cf24f3b7307e1e",
                    "taskArn": "arn:aws:ecs:eu-home-1:123456789012:task/default/task",
                }
            ],
            "connectivity": "CONNECTED",
            "connectivityAt": "2020-01-23T17:57:38.453Z",
            "cpu": "0",
            "createdAt": "2020-01-23T17:57:34.402Z",
            "desiredStatus": "RUNNING",
            "enableExecuteCommand": False,
            "group": "family:sample",
            "healthStatus": "UNKNOWN",
            "lastStatus": "RUNNING",
            "launchType": "EC2",
            "memory": "0",
            "overrides": {"containerOverrides": [{"name": "web"}]},
            "pullStartedAt": "2020-01-23T17:57:52.103Z",
            "pullStoppedAt": "2020-01-23T17:57:55.103Z",
            "startedAt": "2020-01-23T17:57:58.103Z",
            "taskArn": "arn:aws:ecs:eu-home-1:123456789012:task/default/task",
            "taskDefinitionArn": "arn:aws:ecs:eu-home-1:123456789012:task-definition/sample:1",
            "updatedAt": "2020-01-23T17:57:58.103Z",
            "version": 4,
        },
    }


async def test_each_change_of_a_task_that_can_be_seen_is_told_once() -> None:
    context = a_world()
    task = a_task("task", status=TaskStatus.PROVISIONING)
    put(context, task)

    def change(**members: Any) -> None:
        nonlocal task
        task = replace(task, version=task.version + 1, **members)
        put(context, task)

    change(status=TaskStatus.PENDING, instance_id=HOST.id)
    change(pull_started_at=2.0)  # a time alone is no event
    change(containers=(ContainerReport(name="web", status=ContainerStatus.PULLED),))  # still PENDING to ECS
    change(containers=(ContainerReport(name="web", status=ContainerStatus.CREATED, runtime_id="ad64"),))
    task = running(task)
    put(context, task)
    put(context, replace(task, settled=False, healthy_at=5.0))  # only the reconciler sees that
    put(context, task)
    change(containers=(replace(task.containers[0], health=HealthStatus.UNHEALTHY),))
    change(desired=DesiredStatus.STOPPED, stop_code=StopCode.USER_INITIATED, stopped_reason="Task stopped by user")
    change(
        status=TaskStatus.STOPPED,
        stopped_at=9.0,
        containers=(ContainerReport(name="web", status=ContainerStatus.STOPPED, exit_code=137),),
    )
    with context.state.transaction() as transaction:
        transaction.archive(task)  # it leaves memory: nothing has happened to it
    events = [event["detail"] for event in await told(context, "ECS Task State Change")]
    assert [(event["lastStatus"], event["desiredStatus"]) for event in events] == [
        ("PROVISIONING", "RUNNING"),
        ("PENDING", "RUNNING"),
        ("RUNNING", "RUNNING"),
        ("RUNNING", "RUNNING"),
        ("RUNNING", "STOPPED"),
        ("STOPPED", "STOPPED"),
    ]
    versions = [event["version"] for event in events]
    assert versions == sorted(set(versions))
    assert (events[-1]["stopCode"], events[-1]["stoppedReason"]) == ("UserInitiated", "Task stopped by user")
    assert events[-1]["containers"][0]["exitCode"] == 137


async def test_an_event_is_the_same_whenever_it_is_read() -> None:
    context = a_world()
    context.state.presence.put(HOST.id, Presence(connected=True, since=5.0, last_seen_at=5.0))
    put(context, a_task("task", instance_id=HOST.id))
    before = await told(context)
    with context.state.transaction() as transaction:
        transaction.delete(HOST)
    context.state.presence.forget(HOST.id)
    assert await told(context) == before


async def test_an_event_from_outside_is_given_as_it_was_put() -> None:
    context = a_world()
    facts = CustomFacts(source="shop", detail_type="Order", detail={"id": 7}, resources=("arn:x",), time=1.0)
    with context.state.transaction() as transaction:
        transaction.emit(facts)
    (event,) = await told(context, "Order")
    assert event["id"]
    assert {**event, "id": ""} == {
        "version": "0",
        "id": "",
        "detail-type": "Order",
        "source": "shop",
        "account": "123456789012",
        "time": "1970-01-01T00:00:01Z",
        "region": "eu-home-1",
        "resources": ["arn:x"],
        "detail": {"id": 7},
    }


async def test_what_is_undone_is_not_told() -> None:
    context = a_world()
    before = context.state.journal.last_event
    with suppress(RuntimeError), context.state.transaction() as transaction:
        transaction.put(a_task("task"))
        transaction.emit(CustomFacts(source="shop", detail_type="Order", detail={}))
        raise RuntimeError
    with context.state.transaction() as transaction:
        with suppress(RuntimeError), context.state.transaction() as inner:
            inner.emit(CustomFacts(source="shop", detail_type="Order", detail={}))
            raise RuntimeError
        transaction.put(a_task("other"))
    assert context.state.journal.last_event == before + 1
    assert len(await told(context, "Order")) == 0


# ---------------------------------------------------------------- hosts


async def test_a_host_is_told_in_the_documented_shape() -> None:
    context = a_context(ManualClock(1_481_042_466.991))
    host = an_instance(
        "b54a2a04046f43319d743f6d7f6ca315",
        cpu=2048,
        memory=3767,
        ports=frozenset({("tcp", 22), ("tcp", 2375), ("udp", 53)}),
        attributes={"ecs.os-type": "linux", "flag": ""},
        version=14801,
        registered_at=1_481_000_000.0,
    )
    put(context, host)
    context.state.presence.put(host.id, Presence(connected=True, since=1.0, last_seen_at=1.0))
    held = Resources(cpu_units=60, memory_mib=3000, ports=frozenset({("tcp", 8080)}))
    put(context, a_task("task", instance_id=host.id, resources=held))
    put(context, replace(host, status="DRAINING", version=14802))
    event = (await told(context, "ECS Container Instance State Change"))[-1]
    arn = f"arn:aws:ecs:eu-home-1:123456789012:container-instance/default/{host.id}"
    assert event["resources"] == [arn]
    assert event["time"] == "2016-12-06T16:41:06Z"
    assert event["detail"] == {
        "agentConnected": True,
        "attributes": [{"name": "ecs.os-type", "value": "linux"}, {"name": "flag"}],
        "clusterArn": "arn:aws:ecs:eu-home-1:123456789012:cluster/default",
        "containerInstanceArn": arn,
        "ec2InstanceId": "mi-b54a2a04046f43319",
        "registeredAt": "2016-12-06T04:53:20.000Z",
        "registeredResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 2048},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 3767},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "2375"]},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": ["53"]},
        ],
        "remainingResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 1988},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 767},
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "2375", "8080"]},
            {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": ["53"]},
        ],
        "status": "DRAINING",
        "updatedAt": "2016-12-06T16:41:06.991Z",
        "version": 14802,
        "versionInfo": {"agentVersion": "1.2.3"},
    }


async def test_a_deregistered_host_has_no_agent_and_tags_are_no_event() -> None:
    context = a_world()
    context.state.presence.put(HOST.id, Presence(connected=True, since=1.0, last_seen_at=1.0))
    put(context, replace(HOST, tags={"a": "b"}))
    put(context, replace(HOST, status="INACTIVE", version=2))
    events = [event["detail"] for event in await told(context, "ECS Container Instance State Change")]
    assert [(event["status"], event["agentConnected"]) for event in events] == [("ACTIVE", False), ("INACTIVE", False)]


# ---------------------------------------------------------------- services and deployments


async def test_a_deployment_is_told_in_the_documented_shape() -> None:
    context = a_context(ManualClock(1_590_232_271.0))
    service = put_service(context, {"name": "web", "image": "busybox", "memory": 64})
    (deployment,) = context.state.deployments
    (event,) = await told(context, "ECS Deployment State Change")
    assert event["resources"] == ["arn:aws:ecs:eu-home-1:123456789012:service/default/web"]
    assert event["source"] == "aws.ecs"
    assert event["detail"] == {
        "eventType": "INFO",
        "eventName": "SERVICE_DEPLOYMENT_IN_PROGRESS",
        "deploymentId": deployment.id,
        "updatedAt": "2020-05-23T11:11:11.000Z",
        "reason": deployment.rollout_reason,
    }
    put(context, replace(deployment, healthy_tasks=1))  # not a change of its state
    put(context, replace(deployment, rollout=RolloutState.COMPLETED, rollout_reason="ECS deployment completed."))
    put(context, replace(deployment, rollout=RolloutState.FAILED, rollout_reason="tasks failed to start."))
    found = [event["detail"] for event in await told(context, "ECS Deployment State Change")]
    assert [(event["eventName"], event["eventType"]) for event in found] == [
        ("SERVICE_DEPLOYMENT_IN_PROGRESS", "INFO"),
        ("SERVICE_DEPLOYMENT_COMPLETED", "INFO"),
        ("SERVICE_DEPLOYMENT_FAILED", "ERROR"),
    ]
    assert found[-1]["reason"] == "tasks failed to start."
    actions = [event["detail"] for event in await told(context, "ECS Service Action")]
    assert [event["eventName"] for event in actions] == [event["eventName"] for event in found]
    assert actions[0]["clusterArn"] == "arn:aws:ecs:eu-home-1:123456789012:cluster/default"
    assert service.key == "default/web"


async def test_a_deployment_that_ends_with_its_service_has_not_failed() -> None:
    context = a_context()
    service = put_service(context, {"name": "web", "image": "busybox", "memory": 64})
    (deployment,) = context.state.deployments
    put(
        context,
        replace(deployment, rollout=RolloutState.FAILED),
        replace(service, status="INACTIVE", deployments=()),
    )
    assert len(await told(context, "ECS Deployment State Change")) == 1


async def test_the_count_of_a_daemon_is_told_and_that_of_others_is_their_users_own() -> None:
    context = a_context()
    for strategy in ("DAEMON", "REPLICA"):
        service = put_service(
            context, {"name": "web", "image": "busybox", "memory": 64}, name=strategy, scheduling_strategy=strategy
        )
        put(context, replace(service, desired_count=service.desired_count + 1))
        put(context, replace(service, desired_count=0))
    found = [
        (event["resources"][0].rpartition("/")[2], event["detail"]["desiredCount"])
        for event in await told(context, "ECS Service Action")
        if event["detail"]["eventName"] == "SERVICE_DESIRED_COUNT_UPDATED"
    ]
    assert found == [("DAEMON", 2), ("DAEMON", 0)]


def act_on(context: Context, service: ServiceRecord, *actions: Action) -> None:
    act(context, look(context, service), Decision(actions=actions))


async def actions_of(context: Context, event_name: str) -> list[dict[str, Any]]:
    events = await told(context)
    return [event for event in events if event["detail"].get("eventName") == event_name]


async def test_what_a_reconciler_says_is_a_service_action_of_the_documented_shape() -> None:
    context = a_context(ManualClock(1_574_191_642.695))
    service = put_service(context, {"name": "web", "image": "busybox", "memory": 64}, name="servicetest")
    act_on(context, service, Say(message="has reached a steady state.", event=ServiceEvent.STEADY_STATE))
    (event,) = await actions_of(context, "SERVICE_STEADY_STATE")
    assert {**event, "id": ""} == {
        "version": "0",
        "id": "",
        "detail-type": "ECS Service Action",
        "source": "aws.ecs",
        "account": "123456789012",
        "time": "2019-11-19T19:27:22Z",
        "region": "eu-home-1",
        "resources": ["arn:aws:ecs:eu-home-1:123456789012:service/default/servicetest"],
        "detail": {
            "eventType": "INFO",
            "eventName": "SERVICE_STEADY_STATE",
            "clusterArn": "arn:aws:ecs:eu-home-1:123456789012:cluster/default",
            "createdAt": "2019-11-19T19:27:22.695Z",
        },
    }
    act_on(context, service, Say(message="is impaired.", event=ServiceEvent.TASK_START_IMPAIRED))
    (event,) = await actions_of(context, "SERVICE_TASK_START_IMPAIRED")
    assert event["detail"]["eventType"] == "WARN"
    assert set(event["detail"]) == {"eventType", "eventName", "clusterArn", "createdAt"}
    act_on(context, service, Say(message="told by the deployment's own change."))
    assert len(await told(context, "ECS Service Action")) == 3  # the third is the deployment's beginning


async def test_tasks_that_find_no_host_are_an_error_with_ecs_reason_and_the_capacity_provider() -> None:
    context = a_context()
    host = an_instance("small", memory=32)
    put(context, host)
    context.state.presence.put(host.id, Presence(connected=True, since=1.0, last_seen_at=1.0))
    service = put_service(context, {"name": "web", "image": "busybox", "memory": 64})
    start = Start(deployment=service.deployments[0], count=1, wanted_at=1.0)
    act_on(context, service, start)
    (event,) = await actions_of(context, "SERVICE_TASK_PLACEMENT_FAILURE")
    assert (event["detail"]["eventType"], event["detail"]["reason"]) == ("ERROR", "RESOURCE:MEMORY")
    (revision,) = context.state.revisions
    strategy = [{"capacityProvider": "FARGATE", "weight": 1}]
    put(context, replace(revision, document={"capacityProviderStrategy": strategy}), replace(host, status="DRAINING"))
    act_on(context, service, start)
    detail = (await actions_of(context, "SERVICE_TASK_PLACEMENT_FAILURE"))[-1]["detail"]
    arn = "arn:aws:ecs:eu-home-1:123456789012:capacity-provider/FARGATE"
    assert detail["capacityProviderArns"] == [arn]
    act_on(context, service, Say(message="has reached a steady state.", event=ServiceEvent.STEADY_STATE))
    (event,) = await actions_of(context, "CAPACITY_PROVIDER_STEADY_STATE")
    assert event["detail"]["capacityProviderArns"] == [arn]


async def test_starts_and_stops_name_their_tasks() -> None:
    context = a_context()
    host = an_instance("host")
    put(context, host)
    context.state.presence.put(host.id, Presence(connected=True, since=1.0, last_seen_at=1.0))
    service = put_service(context, {"name": "web", "image": "busybox", "memory": 64})
    act_on(context, service, Start(deployment=service.deployments[0], count=2, wanted_at=1.0))
    (event,) = await actions_of(context, "TASKS_STARTED")
    assert (event["source"], event["detail-type"]) == ("homeport", "Homeport Service Action")
    arns = [task.spec.task_arn for task in context.state.tasks]
    assert sorted(event["detail"]["taskArns"]) == arns
    act_on(context, service, *(Stop(task_id=task.id, reason="enough") for task in context.state.tasks))
    (event,) = await actions_of(context, "TASKS_STOPPED")
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Service Action")
    assert sorted(event["detail"]["taskArns"]) == arns


@pytest.mark.parametrize("event", ServiceEvent)
async def test_every_service_event_is_of_a_type_and_a_source(event: ServiceEvent) -> None:
    context = a_context()
    with context.state.transaction() as transaction:
        transaction.emit(ServiceFacts(event=event, service="default/web", instances=("h",), task_sets=("ecs-svc/1",)))
    (document,) = await told(context)
    assert document["detail"]["eventType"] in ("INFO", "WARN", "ERROR")
    assert (document["source"] == "aws.ecs") is (document["detail-type"] == "ECS Service Action")
    assert document["detail"]["containerInstanceArns"] == [
        "arn:aws:ecs:eu-home-1:123456789012:container-instance/default/h"
    ]
    assert document["detail"]["taskSetArns"] == ["arn:aws:ecs:eu-home-1:123456789012:task-set/default/web/ecs-svc/1"]
