"""ExplainPlacement, PlanService and PlanHostLoss, as operations and as commands."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.state.records import TaskOrder
from controlplane.state.service_records import HookState, RolloutState
from homeport.ids import TaskId
from homeport.status import DesiredStatus, TaskStatus
from tests.contract.commandline import Homeport
from tests.contract.fleet import Fleet, register_web, run
from tests.contract.rollouts import Rollouts
from tests.contract.server import ApiServer

SMALL = {"name": "web", "image": "busybox", "cpu": 128, "memory": 512}


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


@pytest.fixture
def web(ecs: Any) -> str:
    return register_web(ecs, containers=[SMALL])


@pytest.fixture
def rollouts(server: ApiServer, web: str) -> Rollouts:
    return Rollouts(server)


def call(server: ApiServer, operation: str, *, status: int = 200, **members: Any) -> dict[str, Any]:
    answer = server.post(f"Homeport_20261101.{operation}", json.dumps(members).encode(), service="homeport")
    assert answer.status == status, answer.json
    found: dict[str, Any] = answer.json
    return found


def explain(server: ApiServer, subject: str = "web", **members: Any) -> dict[str, Any]:
    return call(server, "ExplainPlacement", subject=subject, **members)


def sentence(server: ApiServer, subject: str = "web") -> str:
    found: str = explain(server, subject)["sentence"]
    return found


# ---------------------------------------------------------------- task definitions


def test_a_task_definition_and_every_host(server: ApiServer, fleet: Fleet, web: str) -> None:
    fleet.add_host("roomy")
    fleet.add_host("small", memory=300)
    fleet.add_host("off", connected=False, memory=300)
    for subject in ("web", "web:1", web):
        answer = explain(server, subject)
        assert (answer["kind"], answer["name"], answer["wouldTake"], answer["considered"]) == (
            "task-definition",
            "web:1",
            1,
            3,
        )
    assert answer["sentence"] == (
        "1 of 3 hosts would take one more task of web:1. "
        "Of 3 hosts 1 has no working agent or Docker Engine, 1 lacks memory."
    )
    assert answer["asks"]["memoryMiB"] == 512
    assert answer["reasons"] == {"AGENT": 1, "RESOURCE:MEMORY": 1}
    roomy, small, off = answer["hosts"]
    assert (roomy["hostname"], roomy["wouldTake"], roomy["obstacles"]) == ("roomy", True, [])
    (memory,) = small["obstacles"]
    assert memory["detail"] == "small has 300 of 300 MiB of memory left; the task needs 512."
    assert memory["change"].startswith("It never will: the host has 300 MiB")
    assert [obstacle["reason"] for obstacle in off["obstacles"]] == ["AGENT", "RESOURCE:MEMORY"]
    assert len(explain(server, "web", maxHosts=1)["hosts"]) == 1


def test_what_there_is_to_say_of_odd_definitions(server: ApiServer, ecs: Any) -> None:
    register_web(ecs, "empty")
    assert sentence(server, "empty") == "No host would take one more task of empty:1: the cluster has none."
    ecs.register_task_definition(family="vpc", networkMode="awsvpc", containerDefinitions=[SMALL])
    answer = explain(server, "vpc")
    assert answer["sentence"].startswith(
        "vpc:1 can't run anywhere: Homeport can't run this task definition: networkMode"
    )
    assert (answer["asks"], answer["hosts"]) == (None, [])
    ecs.deregister_task_definition(taskDefinition="empty:1")
    assert sentence(server, "empty:1") == "empty:1 is INACTIVE: no task of it is started."
    refused = call(server, "ExplainPlacement", subject="nope", status=400)
    assert "There is no service, task definition or task 'nope'" in refused["message"]
    assert "maxHosts" in call(server, "ExplainPlacement", subject="empty", maxHosts=0, status=400)["message"]


# ---------------------------------------------------------------- tasks


def test_a_task_that_runs_and_one_that_has_stopped(server: ApiServer, fleet: Fleet, ecs: Any, web: str) -> None:
    fleet.add_host("box")
    task = run(ecs)
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    pending = explain(server, task_id)
    assert pending["sentence"].startswith(f"Task {task_id[:12]} of web:1 is PENDING on box, ")
    assert pending["sentence"].endswith("The host would take one more like it.")
    assert pending["lines"][-1]["event"] == "placed"
    fleet.running(task["taskArn"])
    assert sentence(server, task_id[:8]).startswith(f"Task {task_id[:12]} of web:1 is RUNNING on box.")
    fleet.stopped(task["taskArn"], exit_code=1)
    stopped = explain(server, task["taskArn"])
    assert stopped["sentence"].startswith(
        f"Task {task_id[:12]} of web:1 is STOPPED on box (EssentialContainerExited): "
        "Essential container in task exited."
    )
    assert stopped["task"]["lastStatus"] == "STOPPED"


def test_a_task_that_waits_for_a_host_keeps_its_own_constraints(
    server: ApiServer, fleet: Fleet, ecs: Any, web: str
) -> None:
    fleet.add_host("box")
    rack = {"type": "memberOf", "expression": "attribute:rack == a"}
    record = fleet.record(run(ecs)["taskArn"])
    waiting = replace(
        record,
        id=TaskId("f" * 32),
        status=TaskStatus.PROVISIONING,
        instance_id=None,
        order=TaskOrder(constraints=(rack,), retries=1),
    )

    def put() -> None:
        with server.context.state.transaction() as transaction:
            transaction.put(waiting)

    server.call(put)
    answer = explain(server, waiting.id)
    assert answer["sentence"].startswith(f"Task {waiting.id[:12]} of web:1 is PROVISIONING, ")
    assert answer["sentence"].endswith("No host would take one more like it. The only host doesn't satisfy memberOf.")
    assert answer["asks"]["constraints"] == ["memberOf(attribute:rack == a)"]


# ---------------------------------------------------------------- services


def test_a_service_that_finds_no_host(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host("small", memory=300)
    rollouts.deploy()
    answer = explain(server)
    assert (answer["kind"], answer["service"]["desiredCount"], answer["service"]["healthyCount"]) == ("service", 2, 0)
    assert answer["sentence"] == (
        "web is not at its 2 tasks (0 healthy, 0 running): for 2 tasks there is no host. The only host lacks memory."
    )
    assert answer["hosts"][0]["obstacles"][0]["reason"] == "RESOURCE:MEMORY"
    for subject in ("default/web", rollouts.context.arns.service("default", "web")):
        assert sentence(server, subject) == answer["sentence"]


def test_a_service_that_is_well(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host()
    deployment = rollouts.deploy("SUCCESSFUL")
    for _ in range(2):
        rollouts.task(deployment.id, healthy_at=1.0)
    answer = explain(server)
    assert answer["sentence"] == "web runs its 2 tasks; there is nothing to do."
    assert answer["service"]["causes"] == []


def test_the_state_of_mind_first_what_to_act_on(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host()
    now = server.clock.now()
    deployment = rollouts.deploy(failed_tasks=7, last_failure="exit code 1", failed_at=now, retry_at=now + 100)
    rollouts.task(deployment.id)
    assert (
        "web is not at its 2 tasks (0 healthy, 1 running): 7 tasks failed one after another; the next is tried in "
        in (sentence(server))
    )
    assert explain(server)["service"]["causes"][1:] == ["1 task running, but not healthy yet."]
    hook = HookState(id="check", stage="POST_SCALE_UP", expires_at=now + 60)
    rollouts.put(replace(deployment, retry_at=None, failed_tasks=0, hooks=(hook,)))
    assert f"deployment {deployment.id} is paused at POST_SCALE_UP by its hook check; in " in sentence(server)
    failed = replace(deployment, retry_at=None, rollout=RolloutState.FAILED, rollout_reason="tasks failed to start.")
    rollouts.put(failed)
    assert sentence(server).endswith(
        f"deployment {deployment.id} FAILED: tasks failed to start. The last failure: exit code 1"
    )
    assert "1 task still to be started." in explain(server)["service"]["causes"]


def test_no_try_is_announced_for_the_time_before_the_clock_was_set_back(
    server: ApiServer, fleet: Fleet, rollouts: Rollouts
) -> None:
    fleet.add_host()
    later = server.clock.now() + 3600
    rollouts.deploy(failed_tasks=7, last_failure="exit code 1", failed_at=later, retry_at=later + 100)
    causes = explain(server)["service"]["causes"]
    assert causes == ["7 tasks failed one after another. The last failure: exit code 1", "2 tasks still to be started."]


def test_a_daemon_has_no_use_for_a_second_task_on_a_host(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    one, two = fleet.add_host("one"), fleet.add_host("two", memory=100)
    rollouts.update(scheduling_strategy="DAEMON")
    deployment = rollouts.deploy()
    rollouts.task(deployment.id, healthy_at=1.0, instance_id=one)
    answer = explain(server)
    assert answer["sentence"] == (
        "web is not at its 2 tasks (1 healthy, 1 running): for 1 task there is no host. "
        "Of 2 hosts 1 has a task of the group already, 1 lacks memory."
    )
    assert {host["id"] for host in answer["hosts"]} == {one, two}


def test_a_host_that_comes_last_says_why(
    server: ApiServer, fleet: Fleet, rollouts: Rollouts, homeport: Homeport
) -> None:
    box = fleet.add_host()
    fleet.set_presence(box, MEMORY="No more than 5% of memory was free")
    rollouts.deploy(host_failures={box: 2}, hopeless={box: "CannotPullContainerError: not found"})
    (host,) = explain(server)["hosts"]
    assert host["wouldTake"]
    assert host["drawbacks"] == [
        "It comes last, since its memory runs short: No more than 5% of memory was free.",
        "It comes last, since 2 tasks of this deployment failed there: CannotPullContainerError: not found",
    ]
    assert "since 2 tasks of this deployment failed there" in homeport("explain", "web").stdout


def test_tasks_prepared_lost_and_of_earlier_deployments(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host()
    old, new = rollouts.deploy("SUCCESSFUL"), rollouts.deploy()
    kept = rollouts.task(old.id, healthy_at=1.0)
    rollouts.task(new.id, TaskStatus.PENDING)
    rollouts.task(new.id, TaskStatus.PENDING, desired=DesiredStatus.PENDING, replaces=kept.id)
    rollouts.task(old.id, lost_at=1.0)
    assert explain(server)["service"]["causes"] == [
        "1 task still to be started.",
        "1 task on the way to RUNNING.",
        "1 task prepared, waiting for the place of an old one.",
        "1 task on hosts that have been silent for too long; replaced, and unknown until they return.",
        "1 task of earlier deployments still there.",
    ]


@pytest.mark.parametrize(
    ("status", "text"),
    [("DRAINING", "it was deleted, and its tasks are being stopped."), ("INACTIVE", "it was deleted.")],
)
def test_a_deleted_service(server: ApiServer, rollouts: Rollouts, status: str, text: str) -> None:
    rollouts.update(status=status)
    assert sentence(server) == f"web runs nothing new: {text}"


def test_the_hosts_are_asked_for_the_next_tasks_capacity_provider(
    server: ApiServer, fleet: Fleet, rollouts: Rollouts
) -> None:
    fleet.add_host()
    rollouts.deploy(document={"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]})
    assert sentence(server).endswith("The only host isn't of the capacity provider.")


# ---------------------------------------------------------------- plans of services


def test_a_plan_of_another_definition(server: ApiServer, fleet: Fleet, ecs: Any, rollouts: Rollouts) -> None:
    box = fleet.add_host("box", memory=1100)
    deployment = rollouts.deploy("SUCCESSFUL")
    resources = server.call(lambda: server.context.state.load.of(box))
    assert resources.tasks == 0
    register_web(ecs, containers=[{**SMALL, "memory": 1000}])
    with server.unchanged():
        stuck = call(server, "PlanService", service="web", taskDefinition="web")
        fits = call(server, "PlanService", service="web", taskDefinition="web:2", desiredCount=1)
        more = call(server, "PlanService", service="web", desiredCount=3)
    assert (stuck["taskDefinition"], stuck["unplaced"], stuck["reasons"]) == ("web:2", 1, {"RESOURCE:MEMORY": 1})
    assert stuck["sentence"] == (
        "web would get 1 of 2 tasks of web:2; for 1 there is no host. The only host lacks memory."
    )
    assert fits["placed"] == [{"node": box, "hostname": "box", "tasks": 1}]
    assert (
        more["sentence"] == "web would get 2 of 3 tasks of web:1; for 1 there is no host. The only host lacks memory."
    )
    assert deployment.id


def test_a_plan_knows_when_an_old_task_has_to_stop_first(
    server: ApiServer, fleet: Fleet, ecs: Any, rollouts: Rollouts, homeport: Homeport
) -> None:
    fixed = [{**SMALL, "portMappings": [{"containerPort": 80, "hostPort": 8080}]}]
    register_web(ecs, "fixed", fixed)
    fleet.add_host("box")
    task = run(ecs, taskDefinition="fixed")
    deployment = rollouts.deploy("SUCCESSFUL")
    record = fleet.record(task["taskArn"])
    rollouts.update(desired_count=1)
    rollouts.put(replace(record, group="service:web", started_by=deployment.id))
    plan = call(server, "PlanService", service="web", taskDefinition="fixed")
    assert plan["stopFirst"]
    assert plan["sentence"] == (
        "web would run 1 task of fixed:1: 1 new, 0 kept, 1 stopped. An old task has to stop before a new one starts."
    )
    (host,) = explain(server, "fixed")["hosts"]
    assert host["portsHeldBy"] == [{"port": "8080/tcp", "task": record.id, "group": "service:web"}]
    assert f"8080/tcp: held by task {record.id[:12]} (service:web)" in homeport("explain", "fixed").stdout
    rollouts.update(given=("minimumHealthyPercent",))
    stuck = call(server, "PlanService", service="web", taskDefinition="fixed")
    assert stuck["detail"] == "The only host has a host port in use."


def test_a_plan_of_a_daemon_and_of_what_can_not_be_planned(server: ApiServer, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host("one")
    fleet.add_host("two", memory=100)
    rollouts.update(scheduling_strategy="DAEMON")
    rollouts.deploy()
    plan = call(server, "PlanService", service="web")
    assert (plan["desiredCount"], plan["unplaced"], [each["hostname"] for each in plan["placed"]]) == (2, 1, ["one"])
    for members, text in (
        ({"service": "nope"}, "There is no ACTIVE service nope"),
        ({"service": "web", "taskDefinition": "nope"}, "TaskDefinition not found."),
        ({"service": "web", "desiredCount": -1}, "desiredCount must be between 0 and 5000"),
    ):
        assert text in call(server, "PlanService", status=400, **members)["message"]
    rollouts.update(controller="EXTERNAL")
    assert "driven by task sets" in call(server, "PlanService", service="web", status=400)["message"]


# ---------------------------------------------------------------- plans of hosts


def test_what_the_loss_of_a_host_would_do(server: ApiServer, fleet: Fleet, ecs: Any, rollouts: Rollouts) -> None:
    register_web(ecs, "job")
    lost = fleet.add_host("lost")
    deployment = rollouts.deploy("SUCCESSFUL")
    for _ in range(3):
        record = fleet.record(run(ecs, taskDefinition="web")["taskArn"])
        rollouts.put(replace(record, group="service:web", started_by=deployment.id))
    job = run(ecs, taskDefinition="job")
    other = fleet.add_host("other", memory=1100)
    with server.unchanged():
        plan = call(server, "PlanHostLoss", node="lost")
        drain = call(server, "PlanHostLoss", node=lost[:10], drain=True)
    assert plan["sentence"] == (
        "If lost were lost, 3 tasks of 1 service would have to go elsewhere: 2 would find a host, 1 would not. "
        "1 task started by RunTask or StartTask would be gone: no service replaces them, and 0 would be run again by "
        "homeport:retries."
    )
    (service,) = plan["services"]
    assert (service["service"], service["tasks"], service["unplaced"], service["lostAfterS"]) == ("web", 3, 1, 60.0)
    assert service["placed"] == [{"node": other, "hostname": "other", "tasks": 2}]
    assert service["detail"] == "The only host lacks memory."
    assert plan["standalone"] == [job["taskArn"].rsplit("/", 1)[-1]]
    assert drain["sentence"].startswith("If lost were drained, 3 tasks")
    assert drain["sentence"].endswith("would run on until they end.")
    idle = call(server, "PlanHostLoss", node="other")
    assert idle["sentence"] == "If other were lost, no service would have to place a task elsewhere."
    assert "No node was found" in call(server, "PlanHostLoss", node="nope", status=400)["message"]
    rollouts.put(replace(fleet.record(job["taskArn"]), order=TaskOrder(retries=1)))
    assert "and 1 would be run again" in call(server, "PlanHostLoss", node="lost")["sentence"]


# ---------------------------------------------------------------- commands


def test_the_explain_command(homeport: Homeport, fleet: Fleet, rollouts: Rollouts) -> None:
    fleet.add_host("small", memory=300)
    deployment = rollouts.deploy()
    rollouts.task(deployment.id)
    out = homeport("explain", "web").stdout
    first, also, *_ = out.splitlines()
    assert first.startswith("web is not at its 2 tasks (0 healthy, 1 running): for 1 task there is no host.")
    assert also == "  Also: 1 task running, but not healthy yet."
    assert "One more task asks for 0.12 vCPU, 512 MiB; strategy spread ecs.availability-zone, spread host." in out
    row = next(line for line in out.splitlines() if " small " in line)
    assert "RESOURCE:MEMORY: small has 300 of 300 MiB of memory left; the task needs 512." in row
    assert json.loads(homeport("explain", "web", "--json").stdout)["wouldTake"] == 0
    assert "no service, task definition or task 'nope'" in homeport("explain", "nope", code=3).output


def test_the_explain_command_tells_a_tasks_last_lines(homeport: Homeport, fleet: Fleet, ecs: Any, web: str) -> None:
    fleet.add_host("box")
    fleet.add_host("other")
    task = run(ecs)
    out = homeport("explain", task["taskArn"], "--hosts", "1").stdout
    assert "Placed on" in out
    assert "and 1 more hosts (--hosts 2)" in out


def test_the_plan_commands(homeport: Homeport, fleet: Fleet, ecs: Any, rollouts: Rollouts) -> None:
    fleet.add_host("one", memory=1100)
    deployment = rollouts.deploy("SUCCESSFUL")
    record = fleet.record(run(ecs)["taskArn"])
    rollouts.put(replace(record, group="service:web", started_by=deployment.id))
    out = homeport("plan", "update", "web", "--desired-count", "2").stdout
    assert out.splitlines()[0] == "web would run 2 tasks of web:1: 1 new, 1 kept, 0 stopped."
    assert [line.split()[1:] for line in out.splitlines()[2:]] == [["HOST", "NEW", "TASKS"], ["one", "1"]]
    lost = homeport("plan", "lose", "one").stdout
    assert lost.startswith("If one were lost, 1 task of 1 service would have to go elsewhere: 0 would find a host")
    assert lost.splitlines()[-1].split() == ["web", "-", "no", "host", "1"]
    fleet.add_host("two")
    drained = homeport("plan", "drain", "one").stdout
    assert "If one were drained, 1 task of 1 service would have to go elsewhere: all would find a host." in drained
    assert drained.splitlines()[-1].split()[0::2] == ["web", "two"]
    assert json.loads(homeport("plan", "update", "web", "--force", "--json").stdout)["unplaced"] == 0
