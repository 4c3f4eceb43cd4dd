"""Deployments from beginning to end, as their API and the command line show them: a real reconciler behind both."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from controlplane.context import Context
from controlplane.fleet.reports import apply_report
from controlplane.services.loop import ServiceLoop
from controlplane.state.records import TaskRecord
from homeport.protocol import TaskReport
from homeport.status import DesiredStatus, StopCode, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.fleet import Fleet, register_web
from tests.contract.server import ApiServer
from tests.contract.service_calls import create, describe, update

#: Tasks count as healthy at once.
AT_ONCE: Final = [{"key": "homeport:min-healthy-time", "value": "0"}]
BREAKER: Final = {
    "enable": True,
    "rollback": True,
    "thresholdConfiguration": {"type": "COUNT", "value": 2},
}
#: What becomes of tasks, by the revision of their definition; the others start at once.
FAILS: Final = 2
NEVER_STARTS: Final = 3


class Agents:
    """All agents: each task is where it should be as soon as it is asked for, but for those that can't be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.services = ServiceLoop(context)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.services.run())
            group.create_task(self._obey())

    async def _obey(self) -> None:
        with self._context.state.snapshot_and_watch() as watch:
            async for _ in watch:
                for task in list(self._context.state.tasks):
                    self._report(task)

    def _report(self, task: TaskRecord) -> None:
        assert task.instance_id is not None
        now, seq = self._context.clock.now(), task.reported_seq + 1
        if task.status is TaskStatus.STOPPED:
            return
        if task.desired is DesiredStatus.STOPPED:
            report = TaskReport(task_id=task.id, seq=seq, status=TaskStatus.STOPPED, containers=(), stopped_at=now)
        elif task.desired is DesiredStatus.RUNNING and task.spec.revision == FAILS:
            report = TaskReport(
                task_id=task.id,
                seq=seq,
                status=TaskStatus.STOPPED,
                containers=(),
                stopped_at=now,
                stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
                stopped_reason="Essential container in task exited",
            )
        elif task.desired is DesiredStatus.RUNNING > task.status and task.spec.revision != NEVER_STARTS:
            report = TaskReport(
                task_id=task.id,
                seq=seq,
                status=TaskStatus.RUNNING,
                containers=(),
                pull_started_at=now - 0.5,
                pull_stopped_at=now - 0.25,
                started_at=now,
            )
        else:
            return
        assert apply_report(self._context, task.instance_id, report)


@pytest.fixture(autouse=True)
def live(server: ApiServer, ecs: Any) -> Iterator[Agents]:
    """A host, definitions that start (1, 4), fail (2) and never start (3), and all that keeps services running."""
    Fleet(server).add_host("a")
    for _ in range(4):
        register_web(ecs)
    agents: Agents = server.call(lambda: Agents(server.context))
    running = asyncio.run_coroutine_threadsafe(agents.run(), server.thread.loop)
    yield agents
    assert not running.done(), running.exception()
    running.cancel()


def stable(ecs: Any, **members: Any) -> Any:
    """Make the service of the first definition and wait until it is stable."""
    create(ecs, taskDefinition="web:1", tags=AT_ONCE, **members)
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 15})


def deploy(ecs: Any, revision: int, **members: Any) -> str:
    """Begin a deployment and return the ARN of its service deployment."""
    update(ecs, taskDefinition=f"web:{revision}", **members)
    arn: str = ecs.list_service_deployments(service="web")["serviceDeployments"][0]["serviceDeploymentArn"]
    return arn


def deployment(ecs: Any, arn: str) -> Any:
    [found] = ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"]
    return found


def until(server: ApiServer, arn: str, *statuses: str) -> None:
    """Wait until a deployment has one of these statuses."""
    arn_id = arn.rsplit("/", 1)[-1]
    server.wait_until(lambda: next(server.context.state.deployments.where("arn_id", arn_id)).status in statuses)


def running_count(server: ApiServer, key: str = "default/web") -> int:
    """Count the tasks of a service's deployments or task sets that run."""
    state = server.context.state
    service = state.services.get(key)
    assert service is not None
    names = [*service.deployments, *(task_set.id for task_set in state.task_sets.where("service", service.id))]
    return sum(state.tasks.count("deployment_count", (name, "running")) for name in names)


def ended(server: ApiServer, arn: str) -> bool:
    """Tell whether a task has stopped."""
    task = server.context.state.tasks.get(arn.rsplit("/", 1)[-1])
    return task is not None and task.status is TaskStatus.STOPPED


# ---------------------------------------------------------------- how they end


def test_a_pipeline_deploys_and_sees_where_the_time_went(homeport: Homeport, ecs: Any) -> None:
    stable(ecs)
    said = homeport("deploy", "web", "--task-definition", "web:4", "--watch").stdout
    assert "has reached a steady state." in said
    assert "of web:4: SUCCESSFUL after" in said
    answer = json.loads(homeport("deployment", "web", "--watch", "--json").stdout)
    budget = answer["deployments"][0]["budget"]
    assert {phase: times["count"] for phase, times in budget.items()} == dict.fromkeys(
        ("schedule", "pull", "start", "healthy", "drain"), 2
    )
    assert budget["pull"]["meanS"] == pytest.approx(0.25, abs=0.001)
    assert all(0 <= times["maxS"] <= 20 for times in budget.values())
    assert [each["phases"].keys() for each in answer["deployments"][0]["tasks"]] == [
        {"schedule", "pull", "start", "healthy"}
    ] * 2
    story = homeport("story", "web").stdout
    assert f"deployment {answer['deployments'][0]['id']} ended SUCCESSFUL after" in story
    assert "drain of 2 tasks: mean 0." in story
    told = homeport("story", answer["deployments"][0]["tasks"][0]["id"]).stdout
    assert "The task counts as healthy: schedule 0." in told


def test_a_broken_revision_is_rolled_back_and_the_pipeline_fails(
    homeport: Homeport, ecs: Any, server: ApiServer
) -> None:
    stable(ecs, deploymentConfiguration={"deploymentCircuitBreaker": BREAKER})
    result = homeport("deploy", "web", "--task-definition", "web:2", "--watch", code=1)
    assert "The deployment of web ended ROLLBACK_SUCCESSFUL: " in result.stderr
    assert "rolling back" in result.stdout
    listed = ecs.list_service_deployments(service="web")["serviceDeployments"]
    assert [each["status"] for each in listed] == ["ROLLBACK_SUCCESSFUL", "SUCCESSFUL"]
    failed = deployment(ecs, listed[0]["serviceDeploymentArn"])
    assert failed["rollback"]["serviceRevisionArn"] == listed[1]["targetServiceRevisionArn"]
    assert failed["rollback"]["startedAt"] >= failed["startedAt"]
    assert failed["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    assert failed["deploymentCircuitBreaker"]["failureCount"] >= failed["deploymentCircuitBreaker"]["threshold"] == 2
    assert failed["deploymentConfiguration"]["deploymentCircuitBreaker"]["enable"] is True
    assert failed["targetServiceRevision"]["runningTaskCount"] == 0
    assert failed["finishedAt"] >= failed["rollback"]["startedAt"]
    assert describe(ecs)["taskDefinition"].endswith("web:1")
    assert server.call(lambda: running_count(server)) == 2


def test_a_user_rolls_a_deployment_back(homeport: Homeport, ecs: Any, server: ApiServer) -> None:
    stable(ecs)
    arn = deploy(ecs, NEVER_STARTS)
    homeport("rollback", "web")
    until(server, arn, "ROLLBACK_SUCCESSFUL")
    found = deployment(ecs, arn)
    assert found["rollback"]["reason"]
    assert describe(ecs)["taskDefinition"].endswith("web:1")


def test_a_user_stops_a_deployment_where_it_is(ecs: Any, server: ApiServer) -> None:
    stable(ecs)
    arn = deploy(ecs, NEVER_STARTS)
    ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT")
    until(server, arn, "STOPPED")
    found = deployment(ecs, arn)
    assert "rollback" not in found
    assert found["stoppedAt"] == found["finishedAt"]
    assert server.call(lambda: running_count(server)) == 2, "the old tasks go on"


def test_a_newer_deployment_supersedes_one_under_way(ecs: Any, server: ApiServer) -> None:
    stable(ecs)
    first = deploy(ecs, NEVER_STARTS)
    second = deploy(ecs, 4)
    until(server, second, "SUCCESSFUL")
    found = deployment(ecs, first)
    assert found["status"] == "STOPPED"
    assert second.rsplit("/", 1)[-1] in found["statusReason"]


# ---------------------------------------------------------------- pauses


def paused(ecs: Any, server: ApiServer, stage: str = "POST_SCALE_UP") -> tuple[str, Any]:
    """Begin a deployment that pauses, and return it with its hook once it does."""
    hook = {"targetType": "PAUSE", "lifecycleStages": [stage]}
    arn = deploy(ecs, 4, deploymentConfiguration={"lifecycleHooks": [hook]})
    arn_id = arn.rsplit("/", 1)[-1]
    server.wait_until(lambda: bool(next(server.context.state.deployments.where("arn_id", arn_id)).hooks))
    return arn, deployment(ecs, arn)["lifecycleHookDetails"][0]


@pytest.mark.parametrize("stage", ["PRE_SCALE_UP", "POST_SCALE_UP", "PRE_PRODUCTION_TRAFFIC_SHIFT"])
def test_a_paused_deployment_goes_on_when_told(ecs: Any, server: ApiServer, stage: str) -> None:
    stable(ecs)
    arn, hook = paused(ecs, server, stage)
    assert (hook["status"], hook["targetType"]) == ("AWAITING_ACTION", "PAUSE")
    assert deployment(ecs, arn)["status"] == "IN_PROGRESS"
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action="CONTINUE")
    until(server, arn, "SUCCESSFUL")
    assert deployment(ecs, arn)["lifecycleHookDetails"][0]["status"] == "SUCCEEDED"


def test_a_paused_deployment_is_rolled_back_when_told(ecs: Any, server: ApiServer) -> None:
    stable(ecs)
    arn, hook = paused(ecs, server)
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action="ROLLBACK")
    until(server, arn, "ROLLBACK_SUCCESSFUL")
    assert deployment(ecs, arn)["lifecycleHookDetails"][0]["status"] == "FAILED"
    assert describe(ecs)["taskDefinition"].endswith("web:1")


# ---------------------------------------------------------------- protection


def test_a_protected_task_is_replaced_only_when_it_is_released(ecs: Any, server: ApiServer) -> None:
    stable(ecs)
    arns = ecs.list_tasks(serviceName="web")["taskArns"]
    ecs.update_task_protection(cluster="default", tasks=arns[:1], protectionEnabled=True)
    arn = deploy(ecs, 4)
    server.wait_until(lambda: ended(server, arns[1]))
    assert deployment(ecs, arn)["status"] == "IN_PROGRESS"
    assert ecs.describe_tasks(tasks=arns[:1])["tasks"][0]["desiredStatus"] == "RUNNING"
    ecs.update_task_protection(cluster="default", tasks=arns[:1], protectionEnabled=False)
    until(server, arn, "SUCCESSFUL")
    assert ecs.describe_tasks(tasks=arns[:1])["tasks"][0]["lastStatus"] == "STOPPED"


def test_protection_ends_by_itself(ecs: Any, server: ApiServer, live: Agents) -> None:
    stable(ecs)
    arns = ecs.list_tasks(serviceName="web")["taskArns"]
    ecs.update_task_protection(cluster="default", tasks=arns[:1], protectionEnabled=True, expiresInMinutes=1)
    arn = deploy(ecs, 4)
    server.wait_until(lambda: ended(server, arns[1]))
    server.clock.move(59)
    server.call(live.services.wake)
    assert deployment(ecs, arn)["status"] == "IN_PROGRESS"
    server.clock.move(2)
    server.call(live.services.wake)
    until(server, arn, "SUCCESSFUL")
    assert ended(server, arns[0])


# ---------------------------------------------------------------- task sets


def test_task_sets_have_their_share_of_the_tasks_until_they_are_deleted(ecs: Any, server: ApiServer) -> None:
    create(ecs, taskDefinition=None, desiredCount=4, tags=AT_ONCE, deploymentController={"type": "EXTERNAL"})
    names = {"cluster": "default", "service": "web"}
    made = ecs.create_task_set(**names, taskDefinition="web:1", scale={"value": 50, "unit": "PERCENT"})["taskSet"]

    def settled(count: int) -> bool:
        record = server.context.state.task_sets.get(made["id"])
        return record is not None and record.stability == "STEADY_STATE" and running_count(server) == count

    server.wait_until(lambda: settled(2))
    ecs.update_task_set(**names, taskSet=made["id"], scale={"value": 100, "unit": "PERCENT"})
    server.wait_until(lambda: settled(4))
    ecs.update_service_primary_task_set(**names, primaryTaskSet=made["id"])
    [shown] = describe(ecs)["taskSets"]
    assert (shown["status"], shown["stabilityStatus"], shown["runningCount"]) == ("PRIMARY", "STEADY_STATE", 4)
    update(ecs, desiredCount=1)
    server.wait_until(lambda: settled(1))
    assert ecs.delete_task_set(**names, taskSet=made["id"], force=True)["taskSet"]["status"] == "DRAINING"
    server.wait_until(lambda: made["id"] not in server.context.state.task_sets)
    assert running_count(server) == 0
    answer = ecs.describe_task_sets(**names, taskSets=[made["id"]])
    assert (answer["taskSets"], answer["failures"][0]["reason"]) == ([], "MISSING")
