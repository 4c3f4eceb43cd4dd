"""Time limits, retries and exclusive groups of tasks that no service owns, by boto3, with hosts played."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from controlplane.standalone.loop import StandaloneLoop
from controlplane.state.service_records import CapacityProviderRecord
from homeport.ids import TaskId
from homeport.reasons import CANNOT_PULL, named
from homeport.status import StopCode, TaskStatus
from tests.contract.fleet import Fleet, refused, register_web, run
from tests.contract.server import ApiServer


def id_of(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


class Reconciler:
    """The loop of a server, and what tests ask of it."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._loop: StandaloneLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        async def begin() -> None:
            self._loop = StandaloneLoop(self.server.context)
            self._task = asyncio.get_running_loop().create_task(self._loop.run())

        self.server.thread.call(begin)

    def stop(self) -> None:
        async def end() -> None:
            assert self._task is not None
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

        self.server.thread.call(end)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.server.clock.move(seconds)
        assert self._loop is not None
        self.server.call(self._loop.wake)

    def story(self, task_arn: str) -> list[str]:
        """The messages of a task's story."""
        task_id = TaskId(id_of(task_arn))
        lines = self.server.thread.call(lambda: self.server.journal.story(task_id))
        return [line.message for line in lines]

    def calm(self) -> None:
        """Wait until the loop has nothing to do."""
        loop = self._loop
        assert loop is not None
        self.server.wait_until(lambda: not loop.busy)


@pytest.fixture
def reconciler(server: ApiServer) -> Iterator[Reconciler]:
    reconciler = Reconciler(server)
    reconciler.start()
    yield reconciler
    reconciler.stop()


@pytest.fixture
def fleet(server: ApiServer) -> Fleet:
    return Fleet(server)


def tags(**values: object) -> list[dict[str, str]]:
    """`retries=2` is the tag homeport:retries."""
    return [{"key": f"homeport:{name.replace('_', '-')}", "value": str(value)} for name, value in values.items()]


def described(ecs: Any, arn: str) -> Any:
    (task,) = ecs.describe_tasks(tasks=[arn], include=["TAGS"])["tasks"]
    return task


def next_attempt(fleet: Fleet, arn: str) -> str:
    """Wait for the retry of a task and return its ARN."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).order.retried_as is not None)
    return str(fleet.record(fleet.record(arn).order.retried_as).spec.task_arn)


def placed(fleet: Fleet, arn: str) -> None:
    """Wait until a task has a host."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).instance_id is not None)


def stopping(fleet: Fleet, arn: str) -> None:
    """Wait until a task is to stop."""
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).desired.name == "STOPPED")


def failed_to_start(fleet: Fleet, arn: str, reason: str) -> None:
    fleet.report(arn, TaskStatus.STOPPED, [], stop_code=StopCode.TASK_FAILED_TO_START, stopped_reason=reason)


# ---------------------------------------------------------------- time limits


def test_a_task_that_runs_too_long_is_stopped_with_the_limit_in_the_reason(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(timeout="10m"))
    arn = run(ecs)["taskArn"]
    reconciler.move(3600)  # on its way to RUNNING it may take its time
    fleet.running(arn)
    reconciler.move(599)
    reconciler.calm()
    assert described(ecs, arn)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, arn)
    task = described(ecs, arn)
    assert task["stopCode"] == "UserInitiated"
    assert task["stoppedReason"] == "The task ran for longer than 600 s, the limit of its tag homeport:timeout"
    assert reconciler.story(arn)[-1] == task["stoppedReason"]


def test_the_limit_counts_by_our_clock_whatever_the_host_says(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    late, early = (run(ecs, tags=tags(timeout=60))["taskArn"] for _ in range(2))
    now = fleet.context.clock.now()
    fleet.report(late, TaskStatus.RUNNING, [], started_at=now + 86_400)
    fleet.report(early, TaskStatus.RUNNING, [], started_at=now - 86_400)
    reconciler.move(59)
    reconciler.calm()
    assert described(ecs, early)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, late)
    stopping(fleet, early)


def test_a_limit_holds_across_a_restart_of_the_control_plane(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(timeout=60))["taskArn"]
    fleet.running(arn)
    reconciler.move(30)
    reconciler.stop()
    fleet.server.clock.move(30)
    reconciler.start()
    stopping(fleet, arn)


def test_the_tags_of_a_request_win_over_those_of_its_definition(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs, tags=tags(timeout=5))
    arn = run(ecs, tags=tags(timeout=60))["taskArn"]
    fleet.running(arn)
    reconciler.move(59)
    reconciler.calm()
    assert described(ecs, arn)["desiredStatus"] == "RUNNING"
    reconciler.move(1)
    stopping(fleet, arn)


def test_a_task_that_does_not_come_up_in_time_is_stopped_and_tried_elsewhere(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host("one")
    fleet.add_host("two")
    register_web(ecs)
    arn = run(ecs, tags=tags(start_timeout=30, retries=1))["taskArn"]
    reconciler.move(30)
    stopping(fleet, arn)
    task = described(ecs, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "30 s" in task["stoppedReason"]
    fleet.report(arn, TaskStatus.STOPPED, [])
    retry = next_attempt(fleet, arn)
    reconciler.move(1)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id != fleet.record(arn).instance_id


# ---------------------------------------------------------------- values that can't be used


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"timeout": "0"}, "homeport:timeout must be a number of seconds from 1 to 2592000"),
        ({"timeout": "31d"}, "homeport:timeout must be"),
        ({"timeout": "soon"}, "homeport:timeout must be"),
        ({"start_timeout": "-1"}, "homeport:start-timeout must be"),
        ({"wait_timeout": "1.5"}, "homeport:wait-timeout must be"),
        ({"retries": "11"}, "homeport:retries must be a number from 0 to 10"),
        ({"retries": "-1"}, "homeport:retries must be"),
        ({"lost_after": "4"}, "homeport:lost-after must be a number of seconds from 5 to 86400"),
        ({"exclusive": "a b"}, "homeport:exclusive must be a name of 1 to 255 letters"),
        ({"exclusive": "a", "exclusive_policy": "fight"}, "homeport:exclusive-policy must be wait, skip, replace"),
        ({"exclusive_policy": "skip"}, "homeport:exclusive-policy needs the tag homeport:exclusive"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_limits(
    ecs: Any, fleet: Fleet, values: dict[str, str], said: str
) -> None:
    host = fleet.add_host()
    register_web(ecs)
    given = tags(**values)
    with fleet.server.unchanged():
        for code, message in (
            refused(ecs.run_task, taskDefinition="web", tags=given),
            refused(ecs.start_task, taskDefinition="web", containerInstances=[host], tags=given),
            refused(
                ecs.register_task_definition,
                family="web",
                containerDefinitions=[{"name": "a", "image": "a", "memory": 6}],
                tags=given,
            ),
        ):
            assert code == "ClientException"
            assert said in message


# ---------------------------------------------------------------- retries


def test_a_task_that_fails_is_run_again_as_a_new_one_until_its_retries_are_used_up(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host(attributes={"disk": "ssd"})
    fleet.add_host()
    register_web(ecs)
    asked = {
        "overrides": {"containerOverrides": [{"name": "web", "command": ["false"]}]},
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:disk == ssd"}],
        "group": "nightly",
        "startedBy": "cron",
        "enableExecuteCommand": True,
    }
    first = run(ecs, tags=[{"key": "team", "value": "a"}, *tags(retries=2)], **asked)["taskArn"]
    arns = [first]
    for attempt, delay_s in ((2, 1.0), (3, 2.0)):
        fleet.running(arns[-1])
        fleet.stopped(arns[-1], exit_code=3)
        retry = next_attempt(fleet, arns[-1])
        reconciler.calm()
        waiting = described(ecs, retry)
        assert waiting["lastStatus"] == "PROVISIONING"
        assert "containerInstanceArn" not in waiting
        reconciler.move(delay_s)
        placed(fleet, retry)
        task = described(ecs, retry)
        shown = {tag["key"]: tag["value"] for tag in task["tags"]}
        assert shown["team"] == "a"
        assert shown["homeport:attempt"] == str(attempt)
        assert shown["homeport:retry-of"] == id_of(arns[-1])
        assert (task["group"], task["startedBy"], task["enableExecuteCommand"]) == ("nightly", "cron", True)
        assert task["overrides"]["containerOverrides"] == asked["overrides"]["containerOverrides"]  # type: ignore[index]
        assert fleet.record(retry).instance_id == fleet.record(first).instance_id
        told = reconciler.story(retry)[0]
        assert told.startswith(
            f"Attempt {attempt} of 3, retry of task {id_of(arns[-1])} because web exited with code 3"
        )
        assert f"It is run again as task {id_of(retry)} in {delay_s:.0f} s" in reconciler.story(arns[-1])[-1]
        arns.append(retry)
    fleet.stopped(arns[-1], exit_code=3)
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arns[-1])).settled)
    assert reconciler.story(arns[-1])[-1] == "Attempt 3 of 3 failed (web exited with code 3); there is no other"
    reconciler.move(3600)
    reconciler.calm()
    assert len(ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]) == 3
    assert ecs.list_tasks()["taskArns"] == []
    assert described(ecs, first)["containers"][0]["exitCode"] == 3


def test_what_did_its_work_or_was_stopped_on_request_is_not_run_again(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    done, stopped, late = (run(ecs, tags=tags(retries=5, timeout=60))["taskArn"] for _ in range(3))
    fleet.stopped(done, exit_code=0)
    ecs.stop_task(task=stopped)
    fleet.stopped(stopped, exit_code=137)
    fleet.running(late)
    reconciler.move(60)
    stopping(fleet, late)
    fleet.stopped(late, exit_code=137)
    for arn in (done, stopped, late):
        fleet.server.wait_until(lambda arn=arn: fleet.context.state.tasks.get(id_of(arn)).settled)  # type: ignore[misc]
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 3


def test_an_error_that_no_other_attempt_can_heal_is_not_tried_again(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=5))["taskArn"]
    reason = named(CANNOT_PULL, "manifest unknown: manifest unknown")
    failed_to_start(fleet, arn, reason)
    fleet.server.wait_until(lambda: fleet.context.state.tasks.get(id_of(arn)).settled)
    assert reconciler.story(arn)[-1] == f"Attempt 1 of 6 failed in a way that another one can't heal: {reason}"
    assert len(fleet.context.state.tasks) == 1


def test_after_a_failure_of_its_host_a_task_prefers_another_one(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    small = fleet.add_host("small", memory=512)
    big = fleet.add_host("big")
    register_web(ecs)
    binpack = [{"type": "binpack", "field": "memory"}]
    arn = run(ecs, tags=tags(retries=3), placementStrategy=binpack)["taskArn"]
    hosts = [fleet.record(arn).instance_id]
    for delay_s in (1, 2):
        failed_to_start(fleet, arn, named(CANNOT_PULL, "connection refused"))
        arn = next_attempt(fleet, arn)
        reconciler.move(delay_s)
        placed(fleet, arn)
        hosts.append(fleet.record(arn).instance_id)
    assert hosts[:2] == [small, big]
    assert hosts[2] in (small, big)  # no host is left that hasn't failed: better there than nowhere


def test_a_task_whose_host_is_lost_is_run_again_and_stops_there_should_it_be_back(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    lost = fleet.add_host("lost")
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1))["taskArn"]
    fleet.running(arn)
    fleet.add_host("other")
    fleet.set_presence(lost, connected=False)
    reconciler.move(59)
    reconciler.calm()
    assert fleet.record(arn).order.retried_as is None
    reconciler.move(1)
    retry = next_attempt(fleet, arn)
    task = described(ecs, arn)
    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert f"run again as task {id_of(retry)}" in task["stoppedReason"]
    reconciler.move(1)
    placed(fleet, retry)
    fleet.set_presence(lost)
    fleet.stopped(arn, exit_code=137)
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


def test_a_control_plane_that_comes_back_gives_hosts_their_time(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    host = fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1, lost_after="90s"))["taskArn"]
    fleet.set_presence(host, connected=False)
    reconciler.calm()
    reconciler.stop()
    fleet.server.clock.move(3600)
    reconciler.start()
    reconciler.move(89)
    reconciler.calm()
    assert fleet.record(arn).order.retried_as is None
    reconciler.move(1)
    next_attempt(fleet, arn)


def test_a_task_given_up_with_its_host_is_run_again(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    host = fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=1))["taskArn"]
    ecs.deregister_container_instance(containerInstance=host, force=True)
    retry = next_attempt(fleet, arn)
    reconciler.move(1)
    reconciler.calm()
    assert "No host can take the task now" in reconciler.story(retry)[-1]
    other = fleet.add_host("other")
    reconciler.move(1)
    placed(fleet, retry)
    assert fleet.record(retry).instance_id == other


def test_a_failure_leads_to_one_attempt_however_often_it_is_looked_at(
    ecs: Any, fleet: Fleet, reconciler: Reconciler
) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=3))["taskArn"]
    fleet.stopped(arn, exit_code=1)
    next_attempt(fleet, arn)
    reconciler.calm()
    for _ in range(3):
        with fleet.server.unchanged():
            reconciler.stop()
            reconciler.start()
            reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


def test_stopping_the_attempt_that_waits_ends_the_matter(ecs: Any, fleet: Fleet, reconciler: Reconciler) -> None:
    fleet.add_host()
    register_web(ecs)
    arn = run(ecs, tags=tags(retries=3))["taskArn"]
    fleet.stopped(arn, exit_code=1)
    retry = next_attempt(fleet, arn)
    assert ecs.stop_task(task=retry)["task"]["lastStatus"] == "STOPPED"
    reconciler.move(3600)
    reconciler.calm()
    assert len(fleet.context.state.tasks) == 2


# ---------------------------------------------------------------- exclusive groups


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
