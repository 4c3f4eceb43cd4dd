"""GetTaskProtection and UpdateTaskProtection: for whom, for how long, and what is refused by what name."""

from typing import Any

import pytest

from homeport.status import DesiredStatus
from tests.contract.fleet import Fleet, refused, register_web, run
from tests.contract.rollouts import Rollouts
from tests.contract.server import ApiServer


@pytest.fixture
def rollouts(server: ApiServer) -> Rollouts:
    return Rollouts(server)


def protect(ecs: Any, *tasks: Any, enabled: bool = True, **arguments: Any) -> Any:
    names = [task if isinstance(task, str) else task.id for task in tasks]
    return ecs.update_task_protection(cluster="default", tasks=names, protectionEnabled=enabled, **arguments)


def protection(ecs: Any, task: Any) -> Any:
    answer = ecs.get_task_protection(cluster="default", tasks=[task.spec.task_arn])
    assert answer["failures"] == []
    [found] = answer["protectedTasks"]
    assert found.pop("taskArn") == task.spec.task_arn
    return found


def test_a_task_is_protected_for_two_hours_and_then_no_longer(ecs: Any, rollouts: Rollouts) -> None:
    task = rollouts.task(rollouts.deploy().id)
    assert protection(ecs, task) == {"protectionEnabled": False}
    [found] = protect(ecs, task)["protectedTasks"]
    now = rollouts.server.clock.now()
    assert found["taskArn"] == task.spec.task_arn
    assert found["expirationDate"].timestamp() == pytest.approx(now + 7200, abs=30)
    assert protection(ecs, task) == {"protectionEnabled": True, "expirationDate": found["expirationDate"]}
    rollouts.server.clock.offset_s += 7201
    assert protection(ecs, task) == {"protectionEnabled": False}


@pytest.mark.parametrize("minutes", [1, 2880])
def test_the_time_may_be_chosen_and_begins_anew_each_time(ecs: Any, rollouts: Rollouts, minutes: int) -> None:
    task = rollouts.task(rollouts.deploy().id)
    protect(ecs, task, expiresInMinutes=60)
    found = protect(ecs, task, expiresInMinutes=minutes)["protectedTasks"][0]
    assert found["expirationDate"].timestamp() == pytest.approx(rollouts.server.clock.now() + minutes * 60, abs=30)


def test_protection_is_ended_and_ending_it_twice_changes_nothing(ecs: Any, rollouts: Rollouts) -> None:
    task = rollouts.task(rollouts.deploy().id)
    protect(ecs, task)
    assert protect(ecs, task, enabled=False)["protectedTasks"] == [
        {"taskArn": task.spec.task_arn, "protectionEnabled": False}
    ]
    assert protection(ecs, task) == {"protectionEnabled": False}
    with rollouts.server.unchanged():
        protect(ecs, task, enabled=False, expiresInMinutes=5)


def test_only_tasks_of_services_that_run_on_can_be_protected(ecs: Any, rollouts: Rollouts) -> None:
    Fleet(rollouts.server).add_host()
    register_web(ecs)
    alone = run(ecs)["taskArn"]
    deployment = rollouts.deploy()
    there = rollouts.task(deployment.id)
    stopping = rollouts.task(deployment.id, desired=DesiredStatus.STOPPED)
    missing = "0" * 32
    answer = protect(ecs, alone, there, stopping, missing)
    assert [found["taskArn"] for found in answer["protectedTasks"]] == [there.spec.task_arn]
    reasons = [(failed["arn"], failed["reason"]) for failed in answer["failures"]]
    assert reasons == [
        (alone, "TASK_NOT_VALID"),
        (stopping.spec.task_arn, "TASK_NOT_VALID"),
        (there.spec.task_arn.replace(there.id, missing), "MISSING"),
    ]
    looked_at = ecs.get_task_protection(cluster="default", tasks=[alone, missing, stopping.id])
    assert [failed["reason"] for failed in looked_at["failures"]] == ["TASK_NOT_VALID", "MISSING"]
    assert looked_at["protectedTasks"] == [{"taskArn": stopping.spec.task_arn, "protectionEnabled": False}]


def test_no_more_old_tasks_are_protected_once_one_holds_a_deployment_up(ecs: Any, rollouts: Rollouts) -> None:
    old = rollouts.deploy("SUCCESSFUL")
    first, second = rollouts.task(old.id), rollouts.task(old.id)
    new = rollouts.task(rollouts.deploy().id)
    assert protect(ecs, first)["failures"] == []
    answer = protect(ecs, first, second, new)
    assert [found["taskArn"] for found in answer["protectedTasks"]] == [first.spec.task_arn, new.spec.task_arn]
    assert [(failed["arn"], failed["reason"]) for failed in answer["failures"]] == [
        (second.spec.task_arn, "DEPLOYMENT_BLOCKED")
    ]
    assert protection(ecs, second) == {"protectionEnabled": False}


def test_what_is_out_of_range_is_refused_whole(ecs: Any, rollouts: Rollouts) -> None:
    task = rollouts.task(rollouts.deploy().id)
    with rollouts.server.unchanged():
        for minutes in (0, -1, 2881):
            code, message = refused(
                ecs.update_task_protection,
                cluster="default",
                tasks=[task.id],
                protectionEnabled=True,
                expiresInMinutes=minutes,
            )
            assert code == "InvalidParameterException"
            assert "expiresInMinutes" in message
            assert "2880" in message
        update = {"cluster": "default", "protectionEnabled": True}
        for tasks in ([], [str(number) for number in range(11)]):
            assert refused(ecs.update_task_protection, tasks=tasks, **update)[0] == "InvalidParameterException"
    many = [str(number) for number in range(101)]
    for tasks in ([], many):
        assert refused(ecs.get_task_protection, cluster="default", tasks=tasks)[0] == "InvalidParameterException"
    assert len(ecs.get_task_protection(cluster="default", tasks=many[:100])["failures"]) == 100
    assert refused(ecs.get_task_protection, cluster="other", tasks=["1"])[0] == "ClusterNotFoundException"
