"""One task's decisions, case by case: ECS's rules, failures, restarts, an Engine that is silent."""

import pytest
from msgspec.structs import replace

from agent.engine.api import ImageFacts
from agent.task.absorb import PULL_TRIES
from agent.task.messages import (
    Acked,
    CancelPull,
    Create,
    Ensure,
    EnsureFailed,
    Failed,
    FailureKind,
    ImageReady,
    Inspect,
    Inspected,
    Pull,
    PullBegan,
    PullMoved,
    Resync,
    Start,
    Started,
    Stop,
    Wanted,
)
from agent.task.model import MAX_UNACKED_STORY, Verb, recovered, settled, tell
from agent.task.report import report_of
from homeport import reasons
from homeport.spec import TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.agent_host import assignment, container, depends, health_check, restarts, spec_of
from tests.fakes.task_world import Driver

STOP = Wanted(DesiredStatus.STOPPED, "Task stopped by user")


def driver(spec: TaskSpec | None = None, **more: object) -> Driver:
    return Driver(assignment(spec, **more))  # type: ignore[arg-type]


# ---------------------------------------------------------------- up


def test_pull_create_start_in_this_order_and_once() -> None:
    task = driver().go()
    assert [type(a) for a in task.actions if not isinstance(a, Ensure)] == [Pull, Create, Start, Inspect]
    assert task.status() is TaskStatus.RUNNING
    assert task.story() == ["pulled", "created", "started"]
    report = report_of(task.state)
    assert (report.pull_started_at, report.pull_stopped_at, report.started_at) == (1000.0, 1000.0, 1000.0)
    assert report.containers[0].image_digest == "sha256:2"


def test_volumes_and_cgroup_come_before_containers() -> None:
    task = driver()
    task.go_until(Ensure)
    task.go_until(Ensure)
    task.go()
    assert task.count(Pull, "web") == 1
    assert task.count(Create, "web") == 0


def test_desired_pending_pulls_and_creates_but_does_not_start() -> None:
    task = driver(desired=DesiredStatus.PENDING).go()
    assert task.state.containers[0].known is ContainerStatus.CREATED
    assert task.count(Start, "web") == 0
    assert task.wake_at is None
    task.go(Wanted(DesiredStatus.RUNNING))
    assert task.status() is TaskStatus.RUNNING


def test_desired_never_goes_back() -> None:
    task = driver().go().go(STOP).go(Wanted(DesiredStatus.RUNNING))
    assert task.state.desired is DesiredStatus.STOPPED
    assert task.over()


def test_a_task_runs_once_all_its_containers_have_started() -> None:
    task = driver(
        spec_of(container("init", essential=False), container("web", depends_on=[depends("init", "SUCCESS")]))
    )
    task.go()
    assert task.status() is TaskStatus.PENDING
    assert task.told("waiting") == "Waiting for init to exit with code 0"
    task.exits("init", 0)
    assert task.status() is TaskStatus.RUNNING
    assert task.story().count("waiting") == 1


def test_images_are_fetched_at_once_even_for_containers_that_wait() -> None:
    task = driver(spec_of(container("init"), container("web", depends_on=[depends("init", "COMPLETE")])))
    task.tell()
    assert {a.container for a in task.flying if isinstance(a, Pull)} == {"init", "web"}


def test_pull_progress_and_size_are_in_the_story() -> None:
    task = driver()
    task.go_until(Pull)
    task.tell(PullBegan("web"), PullMoved("web", 10_000_000, 40_000_000))
    assert task.told("pulling") == "Pulling image web:1: 10.0 MB of 40.0 MB"
    task.tell(ImageReady("web", ImageFacts("sha256:1", "sha256:2"), 3.21, 40_000_000))
    assert task.told("pulled") == "Pulled image web:1 (sha256:2) in 3.2 s, 40.0 MB"


# ---------------------------------------------------------------- ends


def test_an_essential_exit_stops_the_others_in_reverse_order() -> None:
    spec = spec_of(
        container("db"),
        container("app", depends_on=[depends("db")]),
        container("web", depends_on=[depends("app")]),
    )
    task = driver(spec).go().exits("web", 5)
    assert task.over()
    assert [a.container for a in task.actions if isinstance(a, Stop)] == ["app", "db"]
    report = report_of(task.state)
    assert report.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert report.stopped_reason == "Essential container in task exited"
    assert [c.exit_code for c in report.containers] == [143, 143, 5]
    assert report.execution_stopped_at == 1000.0


def test_a_nonessential_exit_leaves_the_task_running() -> None:
    task = driver(spec_of(container("web"), container("helper", essential=False))).go().exits("helper", 1)
    assert task.status() is TaskStatus.RUNNING
    assert report_of(task.state).containers[1].exit_code == 1


def test_oom_has_its_reason_and_code() -> None:
    task = driver().go().exits("web", 137, oom=True)
    container_report = report_of(task.state).containers[0]
    assert container_report.reason == "OutOfMemoryError: Container killed due to memory usage"
    assert container_report.exit_code == 137
    assert task.state.stopped_reason == "Essential container in task exited"


def test_a_stop_asked_for_has_no_code_of_the_agents_own() -> None:
    task = driver().go().go(STOP)
    assert (task.state.stop_code, task.state.stopped_reason) == (None, None)
    assert task.story()[-3:] == ["stopping", "exited", "stopped"]


def test_a_stop_during_a_pull_cancels_it() -> None:
    task = driver()
    task.go_until(Pull)
    task.tell(STOP)
    assert isinstance(task.actions[-1], CancelPull)
    assert task.over()
    assert report_of(task.state).containers[0].exit_code is None
    late = task.tell(ImageReady("web", ImageFacts("a", None))).state
    assert late.over


def test_a_task_stopped_before_it_began_says_so() -> None:
    task = driver(desired=DesiredStatus.STOPPED).go()
    assert task.over()
    assert task.count(Pull, "web") == 0
    assert report_of(task.state).containers[0].reason == reasons.STOPPED_BEFORE_PULL.format(task_arn="arn:task/t1")


def test_a_stop_waits_for_a_start_in_flight() -> None:
    task = driver()
    start = task.go_until(Start)
    task.tell(STOP)
    assert not task.over()
    task.world.perform(start, task.state, task.now)
    task.go(Started("web"))
    assert task.over()
    assert task.count(Stop, "web") == 1
    assert task.world.boxes["web"].state == "exited"


def test_killed_after_its_stop_timeout_is_told() -> None:
    task = driver(spec_of(container("web", stop_timeout_s=2))).go()
    stop = task.tell(STOP).go_until(Stop)
    assert isinstance(stop, Stop)
    assert stop.timeout_s == 2
    task.now += 2.1
    task.exits("web", 137)
    assert not task.over()
    task.go(Failed("web", Verb.STOP, "missing", "gone"))
    task.wait(1)
    assert "did not stop within its stopTimeout of 2 s, and was killed" in task.told("exited")


def test_a_container_removed_behind_our_back_ends_the_task() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts()))).go()
    task.now += 100
    del task.world.boxes["web"]
    task.go(Resync())
    assert task.state.stopped_reason == reasons.CONTAINER_VANISHED
    assert report_of(task.state).containers[0].reason == reasons.CONTAINER_VANISHED


def test_a_removed_containers_exit_code_is_known_from_its_death() -> None:
    task = driver().go()
    task.world.end("web", 9, task.now)
    death = task.world.event("web", "die", task.now)
    del task.world.boxes["web"]
    task.go(death)
    assert report_of(task.state).containers[0].exit_code == 9


# ---------------------------------------------------------------- what fails before the start


@pytest.mark.parametrize(
    ("kind", "verb", "name"),
    [
        (Create, Verb.CREATE, "CannotCreateContainerError"),
        (Start, Verb.START, "CannotStartContainerError"),
    ],
)
def test_what_the_engine_refuses_fails_the_start(kind: type[Create | Start], verb: Verb, name: str) -> None:
    task = driver()
    task.go_until(kind)
    task.go(Failed("web", verb, "rejected", "no such user"))
    report = report_of(task.state)
    assert report.status is TaskStatus.STOPPED
    assert report.stop_code is StopCode.TASK_FAILED_TO_START
    assert report.stopped_reason == report.containers[0].reason == f"{name}: no such user"
    assert report.containers[0].exit_code is None


@pytest.mark.parametrize(
    ("failure", "message", "tries"),
    [
        ("missing", "manifest unknown", 1),
        ("rejected", "pull access denied for x", 1),
        ("timeout", "not done within 7200 s", 1),
        ("rejected", "dial tcp 10.0.0.1:443: connection refused", PULL_TRIES),
    ],
)
def test_a_pull_is_tried_again_only_if_that_may_help(failure: FailureKind, message: str, tries: int) -> None:
    task = driver()
    for _ in range(tries):
        task.go_until(Pull)
        task.go(Failed("web", Verb.PULL, failure, message))
        if not task.over():
            assert task.wake_at is not None
            task.now = task.wake_at
    assert task.over()
    assert task.count(Pull, "web") == tries
    name = "DockerTimeoutError" if failure == "timeout" else "CannotPullContainerError"
    assert task.state.stopped_reason == f"{name}: {message}"


def test_volumes_that_cannot_be_made_fail_the_start() -> None:
    task = driver()
    task.go_until(Ensure)
    task.go(EnsureFailed("volumes", "missing", "no such Docker volume"))
    assert task.over()
    assert task.state.stop_code is StopCode.TASK_FAILED_TO_START
    assert task.state.stopped_reason == "CannotCreateVolumeError: no such Docker volume"


def test_a_nonessential_container_that_cannot_start_does_not_stop_the_task() -> None:
    task = driver(spec_of(container("web"), container("helper", essential=False)))
    task.go_until(Start, "helper")
    task.go(Failed("helper", Verb.START, "rejected", "bad mount"))
    assert task.status() is TaskStatus.RUNNING
    assert report_of(task.state).containers[1].reason == "CannotStartContainerError: bad mount"


def test_a_dead_end_stops_the_dependent_with_143() -> None:
    spec = spec_of(container("init", essential=False), container("web", depends_on=[depends("init", "SUCCESS")]))
    task = driver(spec).go().exits("init", 2)
    report = report_of(task.state)
    assert report.status is TaskStatus.STOPPED
    assert report.containers[1].exit_code == 143
    assert report.stopped_reason == report.containers[1].reason
    assert report.stopped_reason is not None
    assert report.stopped_reason.startswith("CannotStartContainerError: dependency init did not exit with code 0")


def test_a_start_timeout_wakes_the_task_and_ends_it() -> None:
    spec = spec_of(
        container("db", essential=False, health_check=health_check(), start_timeout_s=30),
        container("web", depends_on=[depends("db", "HEALTHY")]),
    )
    task = driver(spec).go()
    assert task.wake_at == 1030.0
    task.wait(30)
    assert task.over()
    assert "within its startTimeout of 30 s" in (task.state.stopped_reason or "")


def test_healthy_lets_the_dependent_start() -> None:
    spec = spec_of(
        container("db", health_check=health_check()), container("web", depends_on=[depends("db", "HEALTHY")])
    )
    task = driver(spec).go().becomes("db", HealthStatus.HEALTHY)
    assert task.status() is TaskStatus.RUNNING


def test_dependencies_that_cannot_be_resolved_stop_the_task_at_once() -> None:
    task = driver(spec_of(container("a", depends_on=[depends("b")]), container("b", depends_on=[depends("a")]))).go()
    assert task.over()
    assert task.actions == []
    assert (task.state.stopped_reason or "").startswith("TaskDependencyError: Task dependencies cannot be resolved")


def test_a_task_that_can_get_no_further_is_stopped_rather_than_left_hanging() -> None:
    task = driver()
    task.go_until(Create)
    stuck = replace(task.state.containers[0], known=ContainerStatus.CREATED, applied=None)
    task.state = task.state.with_container(stuck)
    task.go()
    assert task.over()
    assert task.state.stopped_reason == "TaskStateError: Agent could not progress task's state to stopped"


# ---------------------------------------------------------------- restarts and health


def test_a_restart_keeps_the_container_running_for_everyone_else() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(60)))).go()
    task.now += 61
    task.exits("web", 1)
    assert task.status() is TaskStatus.RUNNING
    report = report_of(task.state).containers[0]
    assert (report.status, report.restart_count, report.exit_code) == (ContainerStatus.RUNNING, 1, None)
    assert task.world.boxes["web"].starts == 2
    assert task.told("restarting") == "Exited with code 1; restarting it (restart 1)"
    task.now += 10
    task.exits("web", 1)
    assert task.over()
    assert "not restarted: it ended 10 s after it was last started" in task.told("exited")
    assert report_of(task.state).containers[0].exit_code == 1


def test_a_container_that_may_restart_at_once_does_so_once_a_second() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(0)))).go()
    task.wait(5).exits("web", 1)
    assert task.world.boxes["web"].starts == 2
    for number in (3, 4):
        task.wait(0.25).exits("web", 1)
        assert task.world.boxes["web"].starts == number - 1
        assert task.status() is TaskStatus.RUNNING
        assert task.wake_at == task.now + 0.75
        task.wait(0.75)
        assert task.world.boxes["web"].starts == number
    task.wait(0.25).exits("web", 1)
    task.go(STOP)
    assert task.over()
    assert task.world.boxes["web"].starts == 4


def test_a_restart_that_fails_ends_the_task_with_the_last_exit_code() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(60)))).go()
    task.now += 61
    task.world.end("web", 4, task.now)
    task.tell(task.world.event("web", "die", task.now))
    task.go_until(Start)
    task.go(Failed("web", Verb.START, "rejected", "no space left on device"))
    report = report_of(task.state)
    assert report.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert report.containers[0].exit_code == 4
    assert report.containers[0].reason == "CannotStartContainerError: no space left on device"


def test_a_restart_decided_before_a_kill_is_done_after_it_and_counted_once() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(60)))).go()
    task.now += 61
    task.world.end("web", 1, task.now)
    task.tell(task.world.event("web", "die", task.now))
    task.go_until(Start)
    task.flying.clear()
    task.state = recovered(settled(task.state))
    task.go()
    assert task.world.boxes["web"].starts == 2
    assert report_of(task.state).containers[0].restart_count == 1
    assert task.status() is TaskStatus.RUNNING


def test_no_restart_once_the_task_is_to_stop() -> None:
    task = driver(spec_of(container("web", restart_policy=restarts(60)))).go()
    task.now += 100
    task.go(STOP)
    assert task.over()
    assert report_of(task.state).containers[0].restart_count == 0


def test_health_is_reported_but_stops_nothing() -> None:
    task = driver(spec_of(container("web", health_check=health_check()))).go()
    assert report_of(task.state).containers[0].health is HealthStatus.UNKNOWN
    task.becomes("web", HealthStatus.UNHEALTHY)
    assert report_of(task.state).containers[0].health is HealthStatus.UNHEALTHY
    assert task.status() is TaskStatus.RUNNING
    assert task.told("health") == "Health is now UNHEALTHY"


def test_health_is_not_reported_without_a_health_check() -> None:
    task = driver().go().becomes("web", HealthStatus.HEALTHY)
    assert report_of(task.state).containers[0].health is None


# ---------------------------------------------------------------- an Engine that is silent


@pytest.mark.parametrize("failure", ["unavailable", "timeout"])
def test_a_start_that_may_have_happened_is_looked_at_first(failure: FailureKind) -> None:
    task = driver()
    start = task.go_until(Start)
    task.world.perform(start, task.state, task.now)
    task.tell(Failed("web", Verb.START, failure, "no answer"))
    assert task.wake_at is not None
    task.now = task.wake_at
    task.go()
    assert task.status() is TaskStatus.RUNNING
    assert task.world.boxes["web"].starts == 1
    assert task.count(Start, "web") == 1


def test_a_start_that_did_not_happen_is_tried_again_thrice() -> None:
    task = driver()
    for _ in range(3):
        task.go_until(Start)
        task.tell(Failed("web", Verb.START, "timeout", "no answer within 180 s"))
        task.now += 60
    assert task.over()
    assert task.state.stopped_reason == "DockerTimeoutError: no answer within 180 s"


def test_a_silent_engine_freezes_the_state_and_is_told_once() -> None:
    task = driver().go()
    before = report_of(task.state)
    task.tell(Resync())
    for _ in range(5):
        task.go_until(Inspect)
        task.tell(Failed("web", Verb.INSPECT, "unavailable", "connection refused", 0.5))
        assert task.wake_at is not None
        task.now = task.wake_at
    after = report_of(task.state)
    assert (after.status, after.containers) == (before.status, before.containers)
    assert task.story().count("engine-silent") == 1
    task.go()
    assert task.story()[-1] == "engine-back"
    assert task.status() is TaskStatus.RUNNING


def test_a_stop_that_fails_is_never_taken_for_a_stop() -> None:
    task = driver().go().tell(STOP)
    for _ in range(10):
        task.go_until(Stop)
        task.tell(Failed("web", Verb.STOP, "rejected", "cannot kill"))
        task.now += 60
    assert task.status() is TaskStatus.STOPPING
    assert task.story().count("retrying") == 1


def test_a_resync_ends_the_wait_for_another_try() -> None:
    task = driver()
    task.go_until(Pull)
    task.tell(Failed("web", Verb.PULL, "unavailable", "down"))
    assert task.wake_at is not None
    task.go(Resync())
    assert task.status() is TaskStatus.RUNNING


def test_a_container_started_late_for_a_stopped_task_is_stopped_again() -> None:
    task = driver()
    for _ in range(3):
        start = task.go_until(Start)
        task.tell(Failed("web", Verb.START, "timeout", "no answer"))
        task.now += 60
    assert task.over()
    task.world.perform(start, task.state, task.now)
    task.go(task.world.event("web", "start", task.now))
    assert task.count(Stop, "web") == 1
    assert task.world.boxes["web"].state == "exited"
    assert task.over()


# ---------------------------------------------------------------- a restarted agent


def test_an_exit_while_no_agent_ran_is_found_with_its_time_and_code() -> None:
    task = driver().go()
    task.world.end("web", 42, 1500.0)
    task.now = 2000.0
    task.state = recovered(settled(task.state))
    task.go()
    report = report_of(task.state)
    assert (report.containers[0].exit_code, report.containers[0].finished_at) == (42, 1500.0)
    assert report.execution_stopped_at == 1500.0


def test_what_runs_is_adopted_not_started_again() -> None:
    task = driver().go()
    task.state = recovered(settled(task.state))
    task.go()
    assert task.world.boxes["web"].starts == 1
    assert task.told("adopted") == "Found running by the restarted agent, and adopted"
    assert task.status() is TaskStatus.RUNNING


def test_a_container_made_just_before_the_kill_is_found_by_name() -> None:
    task = driver()
    create = task.go_until(Create)
    task.world.perform(create, task.state, task.now)
    task.flying.clear()
    task.state = recovered(settled(task.state))
    task.go()
    assert task.world.made == 1
    assert task.status() is TaskStatus.RUNNING


def test_a_task_without_a_record_is_adopted_if_it_runs() -> None:
    first = driver().go()
    task = Driver(assignment(known=TaskStatus.RUNNING))
    task.world = first.world
    task.go()
    assert task.status() is TaskStatus.RUNNING
    assert task.count(Start, "web") == 0
    assert task.story() == ["started", "adopted"]
    task.exits("web", 1)
    assert task.state.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED


def test_a_task_without_a_record_or_a_container_is_lost_not_run_again() -> None:
    task = driver(known=TaskStatus.RUNNING).go()
    assert task.over()
    assert task.state.stopped_reason == reasons.RECORD_LOST
    assert not any(isinstance(a, Pull | Create | Start) for a in task.actions)


def test_a_task_without_a_record_whose_container_never_ran_is_lost() -> None:
    first = driver(desired=DesiredStatus.PENDING).go()
    task = Driver(assignment(known=TaskStatus.RUNNING))
    task.world = first.world
    task.go()
    assert task.state.stopped_reason == reasons.RECORD_LOST
    assert task.count(Start, "web") == 0


# ---------------------------------------------------------------- reports


def test_the_number_rises_only_with_news_and_acknowledged_lines_are_dropped() -> None:
    task = driver().go()
    seq = task.state.seq
    assert seq > 1_000_000
    task.go(Resync())
    assert task.state.seq == seq
    task.tell(Acked(seq))
    assert not list(task.state.story)
    task.exits("web", 1)
    assert task.state.seq > seq
    assert min(number for number, _ in task.state.story) > seq


def test_the_story_that_waits_is_bounded() -> None:
    state = driver().state
    for number in range(MAX_UNACKED_STORY + 10):
        state = tell(state, 1.0, "health", str(number))
    assert len(state.story) == MAX_UNACKED_STORY
    assert state.story[-1][1].message == str(MAX_UNACKED_STORY + 9)


def test_late_results_are_passed_over() -> None:
    task = driver().go()
    before = task.state
    task.tell(ImageReady("web", ImageFacts("x", "y")), Started("web"), Inspected("web", task.world.facts("web")))
    assert task.state == before
