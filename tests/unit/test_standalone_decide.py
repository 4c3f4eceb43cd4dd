"""What is decided about standalone tasks, case by case."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.api.errors import ClientException
from controlplane.fleet.liveness import HostVerdict
from controlplane.standalone.decide import decide, retry_delay_s
from controlplane.standalone.failures import Failure, failure_of
from controlplane.standalone.model import Action, GiveUp, HostView, Place, Retry, Settle, Snapshot, Stop, Wait
from controlplane.standalone.tags import ExclusivePolicy, StandalonePolicy, standalone_policy
from controlplane.state.records import TaskOrder, TaskRecord
from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport
from homeport.reasons import (
    CONTAINER_VANISHED,
    DEREGISTERED_BY_FORCE,
    ESSENTIAL_EXITED,
    RECORD_LOST,
)
from homeport.spec import ContainerSpec
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from tests.fakes.records import a_task

NOW = 1_000_000.0
T = TaskId("t")
CONNECTED = HostView(HostVerdict.CONNECTED, name="one")
UNKNOWN = HostView(HostVerdict.UNKNOWN, lost_at=NOW + 5, name="one")
LOST = HostView(HostVerdict.LOST, name="one")


def task(name: str = "t", *, order: dict[str, Any] | None = None, **members: Any) -> TaskRecord:
    defaults: dict[str, Any] = {"created_at": NOW - 100, "instance_id": InstanceId("h"), "status": TaskStatus.RUNNING}
    return a_task(name, order=TaskOrder(**(order or {})), **{**defaults, **members})


def waiting(name: str = "w", *, order: dict[str, Any] | None = None, **members: Any) -> TaskRecord:
    return task(name, order=order, **{"status": TaskStatus.PROVISIONING, "instance_id": None, **members})


def stopped(
    name: str = "t", *, order: dict[str, Any] | None = None, code: int | None = 1, **members: Any
) -> TaskRecord:
    report = ContainerReport(name="web", status=ContainerStatus.STOPPED, exit_code=code)
    defaults: dict[str, Any] = {
        "status": TaskStatus.STOPPED,
        "desired": DesiredStatus.STOPPED,
        "containers": (report,),
        "stop_code": StopCode.ESSENTIAL_CONTAINER_EXITED,
        "stopped_reason": ESSENTIAL_EXITED,
        "stopped_at": NOW,
    }
    return task(order=order, **{**defaults, **members})


def decided(*tasks: TaskRecord, **hosts: HostView) -> tuple[tuple[Action, ...], float | None]:
    snapshot = Snapshot(tasks, {each.id: hosts[each.id] for each in tasks if each.id in hosts})
    decision = decide(snapshot, NOW)
    return decision.actions, decision.wake_at


def test_fixture_tasks_have_one_essential_container() -> None:
    assert [(c.name, c.essential) for c in task().spec.containers] == [("web", True)]


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (task(order={"timeout_s": 60}), None),
        (task(order={"timeout_s": 60}, running_at=NOW - 59), NOW + 1),
        (task(order={"start_timeout_s": 60, "placed_at": NOW - 59}, status=TaskStatus.PENDING), NOW + 1),
        (task(order={"start_timeout_s": 60, "placed_at": NOW - 99}, running_at=NOW - 50), None),
        (task(order={"timeout_s": 60}, running_at=NOW - 99, desired=DesiredStatus.STOPPED), None),
        (task(order={"wait_timeout_s": 50}, status=TaskStatus.PENDING), None),
    ],
)
def test_it_looks_again_when_a_limit_is_reached(record: TaskRecord, expected: float | None) -> None:
    assert decided(record) == ((), expected)


@pytest.mark.parametrize(
    ("record", "code", "said"),
    [
        (task(order={"timeout_s": 60}, running_at=NOW - 60), StopCode.USER_INITIATED, "homeport:timeout"),
        (
            task(order={"start_timeout_s": 60, "placed_at": NOW - 60}, status=TaskStatus.PENDING),
            StopCode.TASK_FAILED_TO_START,
            "homeport:start-timeout",
        ),
        (waiting(order={"wait_timeout_s": 100}), StopCode.USER_INITIATED, "homeport:wait-timeout"),
        (
            waiting(order={"wait_timeout_s": 10, "not_before": NOW - 10}),
            StopCode.USER_INITIATED,
            "homeport:wait-timeout",
        ),
    ],
)
def test_a_limit_that_is_reached_stops_the_task_and_says_which(record: TaskRecord, code: StopCode, said: str) -> None:
    (stop,), _ = decided(record)
    assert isinstance(stop, Stop)
    assert stop.stop_code is code
    assert said in stop.reason


def test_a_task_that_has_reached_its_limit_on_a_lost_host_is_not_run_again() -> None:
    record = task(order={"timeout_s": 60, "retries": 3}, running_at=NOW - 60)
    (stop,), _ = decided(record, t=LOST)
    assert isinstance(stop, Stop)


# ---------------------------------------------------------------- attempts


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300)])
def test_delays_double_up_to_five_minutes(attempt: int, delay_s: float) -> None:
    assert retry_delay_s(attempt) == delay_s


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (stopped(order={"retries": 2}), Retry(T, "web exited with code 1", 1.0)),
        (stopped(order={"retries": 2, "attempt": 2}), Retry(T, "web exited with code 1", 2.0)),
        (
            stopped(order={"retries": 2, "attempt": 3}),
            Settle(T, "Attempt 3 of 3 failed (web exited with code 1); there is no other"),
        ),
        (stopped(order={"retries": 2}, code=0), Settle(T)),
        (stopped(order={"retries": 2}, stop_code=StopCode.USER_INITIATED), Settle(T)),
        (
            stopped(
                order={"retries": 2},
                stop_code=StopCode.TASK_FAILED_TO_START,
                stopped_reason="CannotPullContainerError: i/o timeout",
            ),
            Retry(T, "CannotPullContainerError: i/o timeout", 1.0, avoid=True),
        ),
    ],
)
def test_a_failure_leads_to_one_more_attempt_while_there_is_one(record: TaskRecord, expected: Action) -> None:
    assert decided(record) == ((expected,), None)


def test_what_is_settled_is_left_alone() -> None:
    assert decided(stopped(order={"retries": 2}, settled=True)) == ((), None)


@pytest.mark.parametrize(
    ("record", "host", "expected"),
    [
        (task(order={"retries": 1}), CONNECTED, ()),
        (task(order={"retries": 1}), UNKNOWN, ()),
        (task(order={"retries": 0}), LOST, ()),
        (task(order={"retries": 1, "attempt": 2}), LOST, ()),
        (task(order={"retries": 1}, settled=True), LOST, ()),
        (task(order={"retries": 1}, desired=DesiredStatus.STOPPED, stop_code=StopCode.USER_INITIATED), LOST, ()),
        (
            task(order={"retries": 1}),
            LOST,
            (Retry(T, "its host one has not been heard of for 60 s", 1.0, avoid=True, lost=True),),
        ),
        (
            task(
                order={"retries": 1},
                desired=DesiredStatus.STOPPED,
                stop_code=StopCode.TASK_FAILED_TO_START,
                stopped_reason="late",
            ),
            LOST,
            (Retry(T, "its host one has not been heard of for 60 s", 1.0, avoid=True, lost=True),),
        ),
        (
            task(order={"exclusive": "g", "stop_when_isolated": True}),
            LOST,
            (GiveUp(T, "its host one has not been heard of for 60 s"),),
        ),
        (task(order={"exclusive": "g"}), LOST, ()),
    ],
)
def test_a_lost_host_leads_to_another_attempt_if_there_is_one(
    record: TaskRecord, host: HostView, expected: tuple[Action, ...]
) -> None:
    actions, wake_at = decided(record, t=host)
    assert actions == expected
    assert wake_at == host.lost_at


# ---------------------------------------------------------------- turns


def group(**order: Any) -> dict[str, Any]:
    return {"exclusive": "g", **order}


def test_the_first_in_turn_is_placed_when_the_group_is_free() -> None:
    assert decided(waiting("b", order=group(turn=2)), waiting("c", order=group(turn=1))) == (
        (Place(TaskId("c")),),
        None,
    )


def test_who_waits_out_a_delay_lets_others_by() -> None:
    first, second = waiting("a", order=group(turn=1, not_before=NOW + 4)), waiting("b", order=group(turn=2))
    assert decided(first, second) == ((Place(TaskId("b")),), NOW + 4)
    assert decided(first) == ((), NOW + 4)


def test_a_delay_is_no_longer_than_it_was_made_though_the_clock_was_set_back() -> None:
    delayed = waiting("a", order=group(not_before=NOW + 3600))
    assert decided(delayed) == ((Place(TaskId("a")),), NOW + 3600)


@pytest.mark.parametrize("host", [CONNECTED, UNKNOWN, LOST])
@pytest.mark.parametrize("status", [s for s in TaskStatus if TaskStatus.PROVISIONING < s < TaskStatus.STOPPED])
def test_nothing_is_placed_while_one_of_the_group_may_run(status: TaskStatus, host: HostView) -> None:
    holder = task("a", order=group(), status=status, settled=True, desired=DesiredStatus.STOPPED)
    actions, wake_at = decided(holder, waiting("b", order=group(turn=1)), a=host)
    (wait,) = actions
    assert isinstance(wait, Wait)
    assert wait.task_id == "b"
    assert ("isn't heard of" in wait.reason) == (host is LOST)
    assert wake_at == host.lost_at


def test_who_is_stopped_for_waiting_too_long_is_not_placed() -> None:
    late, next_one = waiting("a", order=group(turn=1, wait_timeout_s=5)), waiting("b", order=group(turn=2))
    actions, _ = decided(late, next_one)
    assert [type(action) for action in actions] == [Stop, Place]
    assert actions[1] == Place(TaskId("b"))


# ---------------------------------------------------------------- what failed


def with_reason(reason: str, code: StopCode | None = StopCode.TASK_FAILED_TO_START) -> TaskRecord:
    return stopped(stop_code=code, stopped_reason=reason, containers=())


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (stopped(code=0), None),
        (stopped(stop_code=StopCode.USER_INITIATED), None),
        (stopped(code=7), Failure("web exited with code 7")),
        (stopped(code=None), Failure(ESSENTIAL_EXITED)),
        (stopped(code=None, stopped_reason=CONTAINER_VANISHED), Failure(CONTAINER_VANISHED, of_host=True)),
        (stopped(code=None, stopped_reason=RECORD_LOST), Failure(RECORD_LOST, of_host=True)),
        (with_reason(DEREGISTERED_BY_FORCE, None), Failure(DEREGISTERED_BY_FORCE, of_host=True)),
        (with_reason("late"), Failure("late", of_host=True)),
        (
            with_reason("CannotPullContainerError: toomanyrequests"),
            Failure("CannotPullContainerError: toomanyrequests", of_host=True),
        ),
        (
            with_reason("CannotPullContainerError: manifest for x:y not found: manifest unknown"),
            Failure("CannotPullContainerError: manifest for x:y not found: manifest unknown", hopeless=True),
        ),
        (
            with_reason('CannotStartContainerError: exec: "nope": executable file not found in $PATH'),
            Failure('CannotStartContainerError: exec: "nope": executable file not found in $PATH', hopeless=True),
        ),
        (
            with_reason("TaskDependencyError: a cycle"),
            Failure("TaskDependencyError: a cycle", hopeless=True),
        ),
        (
            with_reason("DockerTimeoutError: not found in time"),
            Failure("DockerTimeoutError: not found in time", of_host=True),
        ),
    ],
)
def test_failures(record: TaskRecord, expected: Failure | None) -> None:
    assert failure_of(record) == expected


@pytest.mark.parametrize(("codes", "failed"), [((0, 143), False), ((3, 0), True)])
def test_of_several_essential_containers_the_one_that_ended_first_decides(codes: tuple[int, int], failed: bool) -> None:
    spec = replace(
        task().spec,
        containers=tuple(
            ContainerSpec(name=name, image="busybox", container_arn=name, essential=name != "side")
            for name in ("side", "second", "first")
        ),
    )
    reports = tuple(
        ContainerReport(name=name, status=ContainerStatus.STOPPED, exit_code=code, finished_at=at)
        for name, code, at in (("side", 9, 1.0), ("second", codes[1], 3.0), ("first", codes[0], 2.0))
    )
    found = failure_of(replace(stopped(containers=reports), spec=spec))
    assert (found is not None) == failed


# ---------------------------------------------------------------- tags


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"team": "a", "homeport:restart-attempt-period": "1"}, None),
        ({"homeport:retries": "0"}, None),
        ({"homeport:lost-after": "30", "homeport:wait-timeout": "5"}, None),
        ({"homeport:timeout": "90"}, StandalonePolicy(timeout_s=90)),
        ({"homeport:timeout": "90s"}, StandalonePolicy(timeout_s=90)),
        ({"homeport:timeout": "10m"}, StandalonePolicy(timeout_s=600)),
        ({"homeport:timeout": "2h"}, StandalonePolicy(timeout_s=7200)),
        ({"homeport:timeout": "30d"}, StandalonePolicy(timeout_s=2_592_000)),
        ({"homeport:retries": "10"}, StandalonePolicy(retries=10)),
        (
            {"homeport:retries": "1", "homeport:lost-after": "2m", "homeport:stop-when-isolated": "true"},
            StandalonePolicy(retries=1, lost_after_s=120, stop_when_isolated=True),
        ),
        (
            {"homeport:exclusive": "a-B_1", "homeport:exclusive-policy": "replace", "homeport:wait-timeout": "5"},
            StandalonePolicy(exclusive="a-B_1", exclusive_policy=ExclusivePolicy.REPLACE, wait_timeout_s=5),
        ),
    ],
)
def test_tags_are_read(tags: dict[str, str], expected: StandalonePolicy | None) -> None:
    assert standalone_policy(tags) == expected


@pytest.mark.parametrize(
    "tags",
    [
        {"homeport:timeout": "9" * 5000},
        {"homeport:timeout": "2592001"},
        {"homeport:timeout": "٣"},
        {"homeport:retries": "²"},
        {"homeport:exclusive": ""},
        {"homeport:exclusive": "x" * 256},
        {"homeport:stop-when-isolated": "yes"},
        {"homeport:stop-when-isolated": "true", "homeport:lost-after": "24"},
    ],
)
def test_tags_that_cannot_be_used_are_refused(tags: dict[str, str]) -> None:
    with pytest.raises(ClientException, match=next(iter(tags))):
        standalone_policy(tags)
