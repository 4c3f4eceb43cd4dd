"""Exclusive groups of tasks that no service owns, by boto3, with hosts played."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controlplane.state.service_records import CapacityProviderRecord
from tests.contract.fleet import Fleet, register_web, run
from tests.contract.server import ApiServer
from tests.contract.standalone import (
    Reconciler,
    described,
    id_of,
    next_attempt,
    placed,
    stopping,
    tags,
)


@pytest.fixture
def reconciler(server: ApiServer) -> Iterator[Reconciler]:
    reconciler = Reconciler(server)
    reconciler.start()
    yield reconciler
    reconciler.stop()


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


def test_one_task_of_a_group_runs_at_a_time_in_the_order_of_arrival(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(exclusive="nightly"))
    answer = ecs.run_task(taskDefinition="web", count=2)
    assert answer["failures"] == []
    arns = [task["taskArn"] for task in answer["tasks"]]
    arns += [run(ecs)["taskArn"] for _ in range(2)]
    assert [described(ecs, arn)["lastStatus"] for arn in arns] == ["PENDING", *["PROVISIONING"] * 3]
    (other,) = ecs.run_task(taskDefinition="web", tags=tags(exclusive="hourly"))["tasks"]
    assert other["lastStatus"] == "PENDING"
    assert f"isn't free: task {id_of(arns[0])} is there" in reconciler.story(arns[1])[-1]
    assert ecs.stop_task(task=arns[2])["task"]["lastStatus"] == "STOPPED"
    for arn, then in zip((arns[0], arns[1]), (arns[1], arns[3]), strict=True):
        fleet.running(arn)
        reconciler.calm()
        assert fleet.record(then).instance_id is None
        fleet.stopped(arn)
        placed(fleet, then)
    assert described(ecs, arns[3])["lastStatus"] == "PENDING"


def test_the_first_of_a_group_is_refused_like_any_other_task_where_there_is_no_room(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host(memory=32)
    register_web(ecs)
    with fleet.server.unchanged():
        answer = ecs.run_task(taskDefinition="web", count=2, tags=tags(exclusive="a"))
    assert answer["tasks"] == []
    assert answer["failures"][0]["reason"] == "RESOURCE:MEMORY"
    reconciler.calm()


def test_who_is_not_to_wait_is_told_which_task_runs(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    skip = tags(exclusive="a", exclusive_policy="skip")
    answer = ecs.run_task(taskDefinition="web", count=2, tags=skip)
    (first,) = answer["tasks"]
    for failure in (*answer["failures"], *ecs.run_task(taskDefinition="web", tags=skip)["failures"]):
        assert (failure["arn"], failure["reason"]) == (first["taskArn"], "EXCLUSIVE")
        assert "homeport:exclusive-policy is skip" in failure["detail"]
    fleet.stopped(first["taskArn"])
    reconciler.calm()
    assert len(ecs.run_task(taskDefinition="web", tags=skip)["tasks"]) == 1


def test_who_replaces_stops_those_before_it_and_runs_once_they_have_stopped(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(exclusive="a", retries=3))
    first, waiting = (run(ecs)["taskArn"] for _ in range(2))
    fleet.running(first)
    answer = ecs.run_task(taskDefinition="web", count=2, tags=tags(exclusive_policy="replace"))
    newest, after = (task["taskArn"] for task in answer["tasks"])
    assert described(ecs, first)["desiredStatus"] == "STOPPED"
    assert described(ecs, waiting)["lastStatus"] == "STOPPED"
    assert "A newer task of the exclusive group a" in described(ecs, first)["stoppedReason"]
    reconciler.calm()
    assert fleet.record(newest).instance_id is None
    fleet.stopped(first, exit_code=137)
    placed(fleet, newest)
    assert described(ecs, after)["lastStatus"] == "PROVISIONING"
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 4  # what was replaced isn't run again


def test_who_finds_no_room_when_its_turn_comes_keeps_it_and_says_so(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    host = fleet.add_host(memory=128)
    register_web(ecs)
    register_web(ecs, "large", [{"name": "web", "image": "busybox", "memory": 128}])
    first = run(ecs, tags=tags(exclusive="a"))["taskArn"]
    blocker = run(ecs)["taskArn"]
    large = run(ecs, taskDefinition="large", tags=tags(exclusive="a", timeout=60))["taskArn"]
    small = run(ecs, tags=tags(exclusive="a"))["taskArn"]
    fleet.stopped(first)
    reconciler.calm()
    assert "No host can take the task now. The only host lacks memory" in reconciler.story(large)[-1]
    reconciler.move(3600)
    reconciler.calm()
    assert fleet.record(small).instance_id is None  # though there would be room for it
    assert fleet.record(large).instance_id is None
    fleet.stopped(blocker)
    reconciler.move(1)
    placed(fleet, large)
    assert fleet.record(large).instance_id == host
    assert described(ecs, large)["desiredStatus"] == "RUNNING"  # the time it waited doesn't count


def test_a_provider_whose_hosts_cannot_be_told_holds_up_its_own_tasks_only(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    first, second = (run(ecs, tags=tags(exclusive="a"))["taskArn"] for _ in range(2))
    odd = CapacityProviderRecord(name="odd", created_at=1.0, tags={"homeport:hosts": "attribute:"})
    whole = CapacityProviderRecord(
        name="odd", created_at=1.0, tags={"homeport:hosts": "attribute:ecs.os-type == linux"}
    )

    def put(*records: Any) -> None:
        with fleet.context.state.transaction() as transaction:
            for record in records:
                transaction.put(record)

    waiting = fleet.record(second)
    fleet.server.call(lambda: put(odd, replace(waiting, capacity_provider="odd")))
    fleet.stopped(first)
    reconciler.calm()
    assert "The task can't be placed" in reconciler.story(second)[-1]
    fleet.server.call(lambda: put(whole))
    fleet.add_host("other")
    reconciler.move(1)
    placed(fleet, second)


def test_a_lost_host_does_not_free_a_group(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    lost = fleet.add_host("lost")
    register_web(ecs)
    first = run(ecs, tags=tags(exclusive="a", retries=1))["taskArn"]
    fleet.running(first)
    other = fleet.add_host("other")
    fleet.set_presence(lost, connected=False)
    reconciler.move(60)
    retry = next_attempt(fleet, first)
    reconciler.move(3600)
    reconciler.calm()
    assert fleet.record(retry).instance_id is None
    told = reconciler.story(retry)[-1]
    assert f"task {id_of(first)} may be running on lost, which isn't heard of" in told
    ecs.deregister_container_instance(containerInstance=lost, force=True)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id == other


def test_a_lost_host_that_stops_its_task_by_itself_does_free_the_group(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    lost = fleet.add_host("lost")
    register_web(ecs)
    given = tags(exclusive="a", stop_when_isolated="true", lost_after=60)
    first, second = (run(ecs, tags=given)["taskArn"] for _ in range(2))
    fleet.running(first)
    assert fleet.record(first).spec.isolation_kill_s < 60
    other = fleet.add_host("other")
    fleet.set_presence(lost, connected=False)
    reconciler.move(59)
    reconciler.calm()
    assert fleet.record(second).instance_id is None
    reconciler.move(1)
    placed(fleet, second)
    assert fleet.record(second).instance_id == other
    task = described(ecs, first)
    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert "homeport:stop-when-isolated" in task["stoppedReason"]
    fleet.set_presence(lost)
    fleet.stopped(first, exit_code=137)
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


def test_an_attempt_of_a_task_that_stops_when_isolated_does_so_too(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1, stop_when_isolated="true"))["taskArn"]
    fleet.stopped(arn, exit_code=1)
    retry = next_attempt(fleet, arn)
    assert fleet.record(retry).spec.isolation_stop_s == fleet.record(arn).spec.isolation_stop_s
    assert fleet.record(retry).spec.isolation_stop_s is not None
    reconciler.calm()


def test_waiting_has_an_end_if_that_is_wanted(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    first = run(ecs, tags=tags(exclusive="a"))["taskArn"]
    waiting = run(ecs, tags=tags(exclusive="a", wait_timeout="1m", retries=3))["taskArn"]
    reconciler.move(60)
    stopping(fleet, waiting)
    task = described(ecs, waiting)
    assert task["lastStatus"] == "STOPPED"
    assert task["stoppedReason"] == "The task found no place within 60 s, the limit of its tag homeport:wait-timeout"
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2
    assert described(ecs, first)["desiredStatus"] == "RUNNING"


def test_a_named_host_stays_the_host_of_what_waits_and_of_every_attempt(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    one, two = fleet.add_host("one"), fleet.add_host("two")
    register_web(ecs)
    given = tags(exclusive="a", retries=1)
    answer = ecs.start_task(taskDefinition="web", containerInstances=[one, two], tags=given)
    first, second = (task["taskArn"] for task in answer["tasks"])
    assert described(ecs, second)["lastStatus"] == "PROVISIONING"
    fleet.stopped(first, exit_code=1)
    placed(fleet, second)
    assert fleet.record(second).instance_id == two
    retry = next_attempt(fleet, first)
    fleet.stopped(second)
    reconciler.move(1)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id == one


def test_a_repeated_request_is_answered_with_the_task_that_waits(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(exclusive="a"))
    run(ecs)
    asked = {"taskDefinition": "web", "clientToken": "once"}
    (waiting,) = ecs.run_task(**asked)["tasks"]
    with fleet.server.unchanged():
        (again,) = ecs.run_task(**asked)["tasks"]
    assert again["taskArn"] == waiting["taskArn"]
    reconciler.calm()


def test_other_tasks_are_none_of_its_business(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs, tags=[{"key": "team", "value": "a"}])
    arn = run(ecs)["taskArn"]
    fleet.running(arn)
    with fleet.server.unchanged():
        reconciler.move(86_400)
        reconciler.calm()
    fleet.stopped(arn, exit_code=1)
    reconciler.calm()
    assert fleet.record(arn).order is None
    assert len(fleet.context.state.tasks) == 1


def test_explain_knows_what_a_waiting_task_asks_for_and_waits_for(
    ecs: Any, fleet: Fleet, reconciler: Reconciler, server: ApiServer
) -> None:
    fleet.add_host(attributes={"disk": "ssd"})
    fleet.add_host("other")
    register_web(ecs)
    asked = {
        "tags": tags(exclusive="a"),
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:disk == ssd"}],
    }
    first, waiting = (run(ecs, **asked)["taskArn"] for _ in range(2))
    reconciler.calm()
    body = msgspec.json.encode({"subject": id_of(waiting)})
    answer = server.post("Homeport_20261101.ExplainPlacement", body, service="homeport").json
    assert f"isn't free: task {id_of(first)} is there" in answer["sentence"]
    assert "attribute:disk == ssd" in str(answer)
