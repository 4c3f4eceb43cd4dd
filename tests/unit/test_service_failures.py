"""Which ends of tasks count as failures, and which texts of registries, Docker and runc no further try can heal."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.services.deciding import failures
from controlplane.services.deciding.backoff import delay_s
from controlplane.services.model import Timing
from controlplane.state.records import TaskRecord
from homeport import reasons
from homeport.protocol import ContainerReport
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.service_world import Behaviour, World

HOPELESS = [
    "CannotPullContainerError: manifest for web:9 not found: manifest unknown: manifest unknown",
    "CannotPullContainerError: manifest unknown",
    "CannotPullContainerError: pull access denied for nope, repository does not exist or may require 'docker login': "
    "denied: requested access to the resource is denied",
    'CannotPullContainerError: failed to resolve reference "localhost:5000/web:9": localhost:5000/web:9: not found',
    "CannotPullContainerError: no matching manifest for linux/arm64/v8 in the manifest list entries",
    "CannotPullContainerError: invalid reference format: repository name must be lowercase",
    "CannotCreateContainerError: No such image: web:9",
    "CannotCreateContainerError: no command specified",
    "CannotStartContainerError: failed to create task for container: failed to create shim task: OCI runtime create "
    'failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH',
    "CannotStartContainerError: OCI runtime create failed: unable to start container process: error during container "
    'init: exec: "/nope": stat /nope: no such file or directory: unknown',
    'CannotStartContainerError: unable to start container process: exec: "/etc/passwd": permission denied: unknown',
    "CannotStartContainerError: exec /bin/app: exec format error",
    "CannotStartContainerError: unable to find user app: no matching entries in passwd file",
]
MAY_PASS = [
    'CannotPullContainerError: Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host',
    "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit",
    "CannotPullContainerError: unauthorized: authentication required",
    "CannotPullContainerError: received unexpected HTTP status: 500 Internal Server Error",
    "CannotStartContainerError: driver failed programming external connectivity on endpoint web: Bind for 0.0.0.0:80 "
    "failed: port is already allocated",
    'CannotStartContainerError: error mounting "/srv/data" to rootfs at "/data": no such file or directory',
    "OutOfMemoryError: Container killed due to memory usage",
    "DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s",
    "Essential container in task exited",
    "Task failed container health checks",
]


def stopped(**members: Any) -> TaskRecord:
    """A task that has ended; whatever isn't said is that of a container that exits by itself after 1 s."""
    world = World(desired=1, behaviour=Behaviour(check=bool(members.pop("check", False))))
    world.decide()
    [task] = world.live()
    ended = {"status": TaskStatus.STOPPED, "started_at": 10.0, "execution_stopped_at": 11.0}
    code = StopCode.ESSENTIAL_CONTAINER_EXITED
    return replace(task, **{**ended, "stop_code": code, "stopped_reason": reasons.ESSENTIAL_EXITED, **members})


@pytest.mark.parametrize("text", HOPELESS)
@pytest.mark.parametrize("where", ["task", "container"])
def test_it_knows_what_no_further_try_heals(text: str, where: str) -> None:
    report = ContainerReport(name="app", status=ContainerStatus.STOPPED, reason=text)
    task = stopped(stopped_reason=text) if where == "task" else stopped(containers=(report,))
    assert failures.hopeless(task) == text


@pytest.mark.parametrize("text", MAY_PASS)
def test_it_gives_up_nothing_that_may_pass(text: str) -> None:
    report = ContainerReport(name="app", status=ContainerStatus.STOPPED, reason=text)
    assert failures.hopeless(stopped(stopped_reason=text, containers=(report,))) is None


@pytest.mark.parametrize(
    ("members", "counts"),
    [
        ({}, True),
        ({"stop_code": StopCode.TASK_FAILED_TO_START, "started_at": None}, True),
        ({"desired": DesiredStatus.PENDING, "stop_code": StopCode.TASK_FAILED_TO_START}, True),
        ({"healthy_at": 10.5}, False),
        # Its health and its end came in one report, too late to be marked healthy.
        ({"execution_stopped_at": 15.5}, False),
        ({"execution_stopped_at": 15.5, "check": True}, True),
        # What is desired tells nothing: it is STOPPED of all that has begun to end.
        ({"desired": DesiredStatus.STOPPED}, True),
        ({"stop_code": StopCode.USER_INITIATED}, False),
        ({"stop_code": StopCode.SERVICE_SCHEDULER_INITIATED, "desired": DesiredStatus.STOPPED}, False),
        ({"stopped_reason": reasons.FAILED_HEALTH_CHECKS, "desired": DesiredStatus.STOPPED}, True),
        ({"stopped_reason": reasons.NOT_HEALTHY_IN_TIME.format(seconds=5), "desired": DesiredStatus.STOPPED}, True),
        ({"stop_code": None, "stopped_reason": reasons.DEREGISTERED_BY_FORCE}, False),
    ],
)
def test_an_end_counts_as_failed_if_the_task_brought_it_upon_itself(members: dict[str, Any], counts: bool) -> None:
    assert failures.failed(stopped(**members), 5.0) is counts


def test_one_that_was_healthy_and_ends_unhealthy_counts() -> None:
    report = ContainerReport(name="app", status=ContainerStatus.STOPPED, health=HealthStatus.UNHEALTHY)
    assert failures.failed(stopped(check=True, healthy_at=10.5, containers=(report,)), 5.0)


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        ((), "Essential container in task exited"),
        ((ContainerReport(name="app", status=ContainerStatus.STOPPED, exit_code=3),), "(app: exit code 3)"),
        (
            (ContainerReport(name="app", status=ContainerStatus.STOPPED, exit_code=137, reason="OutOfMemoryError: x"),),
            "(app: OutOfMemoryError: x)",
        ),
    ],
)
def test_it_says_why_a_task_failed(reports: tuple[ContainerReport, ...], text: str) -> None:
    assert failures.describe(stopped(containers=reports)).endswith(text)


@pytest.mark.parametrize(
    ("failed", "desired", "delay"),
    [
        (0, 1, 0.0),
        (3, 1, 0.0),
        (4, 1, 1.0),
        (5, 1, 2.0),
        (6, 1, 4.0),
        (30, 10, 0.0),
        (31, 10, 1.0),
        (41, 10, 2.0),
        (13, 1, 512.0),
        (14, 1, 900.0),
        (10**6, 1, 900.0),
        (4, 0, 1.0),
    ],
)
def test_delays_grow_after_three_rounds(failed: int, desired: int, delay: float) -> None:
    assert delay_s(failed, desired, 900.0) == delay


def crashing_world(timing: Timing) -> tuple[World, int]:
    """Let a service of two run for two minutes whose tasks exit at once; return it, and how many tasks that took."""
    world = World(desired=2, behaviour=Behaviour(kind="crashes"), timing=timing)
    until = world.now + 120.0
    while world.now < until:
        world.reconcile()
        world.agents()
        world.now += 0.1
    return world, len(world.tasks)


def test_tasks_that_are_healthy_at_once_and_exit_at_once_are_delayed_too() -> None:
    """Found by the simulator: they counted as healthy, so that a host started several a second for ever."""
    plain = crashing_world(Timing())[1]
    at_once = crashing_world(Timing(min_healthy_s=0.0))[1]
    assert at_once <= plain + 2


def test_a_task_that_lasts_ends_the_delays() -> None:
    world, _ = crashing_world(Timing(min_healthy_s=0.0))
    assert world.primary.failed_tasks > 6
    world.behaviours = {revision: Behaviour() for revision in world.behaviours}
    world.run(60.0)
    assert (world.primary.failed_tasks, world.primary.retry_at) == (0, None)
    assert len(world.live()) == 2


def test_tasks_that_have_run_all_along_end_no_delays_of_those_that_fail_beside_them() -> None:
    world = World(hosts=2, desired=4)
    world.run(30.0)
    [sick, *_] = world.live()
    world.behaviours = {revision: Behaviour(kind="crashes") for revision in world.behaviours}
    world.kill(sick.id)
    made = len(world.tasks)
    until = world.now + 120.0
    while world.now < until:
        world.reconcile()
        for task in world.live():
            if task.created_at > sick.created_at:
                world.step(task)
        world.now += 0.1
    assert len(world.tasks) - made <= 40
    assert world.primary.failed_tasks > 10
