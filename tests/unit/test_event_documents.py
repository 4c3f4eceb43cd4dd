"""Each change that AWS tells of becomes one document, in the shape of AWS's own examples."""

from typing import Any

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.events.feed import JournalFeed
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from homeport.protocol import ContainerReport, NetworkBinding
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.records import a_context, a_task, an_instance, put

#: 2020-01-23T17:57:58.103Z
NOW = 1_579_802_278.103
HOST = an_instance("host", attributes={"ecs.cpu-architecture": "x86_64", "ecs.availability-zone": "us-west-2c"})


def a_world() -> Context:
    context = a_context(ManualClock(NOW))
    put(context, HOST)
    return context


async def told(context: Context, detail_type: str | None = None) -> list[dict[str, Any]]:
    feed = JournalFeed(context.state.journal, context.arns)
    documents = [document for _, document in await feed.read(0, limit=1000)]
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
    change(containers=(ContainerReport(name="web", status=ContainerStatus.PULLED),))
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
