"""The life of a service as a client sees it: a real reconciler behind the API, and agents that do as they are told."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import pytest

from controlplane.context import Context
from controlplane.fleet.reports import apply_report
from controlplane.services.loop import ServiceLoop
from controlplane.state.records import TaskRecord
from homeport.protocol import TaskReport
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.definitions import register
from tests.contract.fleet import Fleet
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe, update

#: Tasks count as healthy at once.
AT_ONCE: Final = [{"key": "homeport:min-healthy-time", "value": "0"}]
#: boto3's waiters look at once and then every second.
SOON: Final = {"Delay": 1, "MaxAttempts": 15}


async def _live(context: Context) -> None:
    """Reconcile, and let every task be where it should be as soon as it is asked for, until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(ServiceLoop(context).run())
        group.create_task(_obey(context))


async def _obey(context: Context) -> None:
    with context.state.snapshot_and_watch() as watch:
        async for _ in watch:
            for task in list(context.state.tasks):
                _report(context, task)


def _report(context: Context, task: TaskRecord) -> None:
    assert task.instance_id is not None
    now = context.clock.now()
    if task.desired is DesiredStatus.RUNNING and task.status < TaskStatus.RUNNING:
        report = TaskReport(
            task_id=task.id, seq=task.reported_seq + 1, status=TaskStatus.RUNNING, containers=(), started_at=now
        )
    elif task.desired is DesiredStatus.STOPPED and task.status is not TaskStatus.STOPPED:
        report = TaskReport(
            task_id=task.id, seq=task.reported_seq + 1, status=TaskStatus.STOPPED, containers=(), stopped_at=now
        )
    else:
        return
    assert apply_report(context, task.instance_id, report)


@pytest.fixture(autouse=True)
def live(server: ApiServer) -> Iterator[None]:
    """Two hosts, and everything that keeps services running on them."""
    fleet = Fleet(server)
    fleet.add_host("a")
    fleet.add_host("b")

    running = asyncio.run_coroutine_threadsafe(_live(server.context), server.thread.loop)
    yield
    assert not running.done(), running.exception()
    running.cancel()


def tasks(ecs: Any, status: str = "RUNNING") -> Any:
    arns = ecs.list_tasks(serviceName="web", desiredStatus=status)["taskArns"]
    return ecs.describe_tasks(tasks=arns, include=["TAGS"])["tasks"] if arns else []


def test_a_service_gets_its_tasks_and_is_stable(ecs: Any) -> None:
    web = register(ecs, tags=[{"key": "team", "value": "a"}])
    service = create(
        ecs,
        tags=AT_ONCE,
        desiredCount=4,
        propagateTags="TASK_DEFINITION",
        enableECSManagedTags=True,
        launchType="EXTERNAL",
    )
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    found = describe(ecs)
    assert (found["runningCount"], found["pendingCount"]) == (4, 0)
    [deployment] = found["deployments"]
    assert (deployment["id"], deployment["rolloutState"]) == (service["deployments"][0]["id"], "COMPLETED")
    assert found["events"][0]["message"] == "(service web) has reached a steady state."
    running = tasks(ecs)
    assert len(running) == 4
    assert {task["containerInstanceArn"] for task in running} == set(
        ecs.list_container_instances()["containerInstanceArns"]
    )
    for task in running:
        shown = (task["group"], task["startedBy"], task["taskDefinitionArn"], task["launchType"])
        assert shown == ("service:web", deployment["id"], web, "EXTERNAL")
        assert {tag["key"]: tag["value"] for tag in task["tags"]} == {
            "aws:ecs:clusterName": "default",
            "aws:ecs:serviceName": "web",
            "team": "a",
        }


def test_an_update_leaves_only_the_new_deployment(ecs: Any) -> None:
    register(ecs)
    create(ecs, tags=AT_ONCE)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    newer = register(ecs)
    answer = update(ecs, taskDefinition="web", desiredCount=3)
    assert len(answer["deployments"]) == 2
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    found = describe(ecs)
    assert [d["id"] for d in found["deployments"]] == [answer["deployments"][0]["id"]]
    assert {task["taskDefinitionArn"] for task in tasks(ecs)} == {newer}
    assert len(tasks(ecs)) == found["runningCount"] == 3
    assert len(tasks(ecs, "STOPPED")) == 2


def test_a_deleted_service_becomes_inactive_and_its_name_free(ecs: Any) -> None:
    register(ecs)
    create(ecs, tags=AT_ONCE)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    ecs.delete_service(service="web", force=True)
    ecs.get_waiter("services_inactive").wait(services=["web"], WaiterConfig=SOON)
    found = describe(ecs)
    assert (found["runningCount"], found["deployments"], found["status"]) == (0, [], "INACTIVE")
    assert tasks(ecs) == []
    assert {task["stopCode"] for task in tasks(ecs, "STOPPED")} == {"ServiceSchedulerInitiated"}
    assert ecs.list_services()["serviceArns"] == []
    create(ecs, tags=AT_ONCE, desiredCount=1)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    assert len(tasks(ecs)) == describe(ecs)["runningCount"] == 1


def test_a_daemon_has_a_task_on_each_host(ecs: Any, server: ApiServer) -> None:
    register(ecs)
    create(ecs, tags=AT_ONCE, schedulingStrategy="DAEMON", desiredCount=None)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    assert describe(ecs)["desiredCount"] == describe(ecs)["runningCount"] == 2
    Fleet(server).add_host("c")
    server.wait_until(lambda: server.context.state.tasks.count("phase", "running") == 3)
    assert describe(ecs)["desiredCount"] == 3


def test_placement_changes_without_a_deployment(ecs: Any) -> None:
    register(ecs)
    [host, _] = ecs.list_container_instances()["containerInstanceArns"]
    ecs.put_attributes(attributes=[{"name": "rack", "value": "a", "targetId": host}])
    before = create(ecs, tags=AT_ONCE, desiredCount=0)
    answer = update(
        ecs, placementConstraints=[{"type": "memberOf", "expression": "attribute:rack == a"}], desiredCount=3
    )
    assert [d["id"] for d in answer["deployments"]] == [d["id"] for d in before["deployments"]]
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=SOON)
    assert {task["containerInstanceArn"] for task in tasks(ecs)} == {host}
