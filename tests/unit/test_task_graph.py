"""dependsOn: each condition, dead ends, start timeouts, what can't be resolved, and the order of shutdown."""

import pytest
from msgspec.structs import replace

from agent.task.graph import Never, Ready, Verdict, Wait, check, may_start, may_stop
from agent.task.model import ContainerState, TaskState
from homeport.ids import TaskId
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus
from tests.fakes.agent_host import container, depends, health_check, spec_of

PENDING = ContainerState(name="db", docker_name="db")
CREATED = replace(PENDING, known=ContainerStatus.CREATED)
RUNNING = replace(PENDING, known=ContainerStatus.RUNNING, started_at=100.0)
HEALTHY = replace(RUNNING, health=HealthStatus.HEALTHY)
UNHEALTHY = replace(RUNNING, health=HealthStatus.UNHEALTHY)
DONE = replace(RUNNING, known=ContainerStatus.STOPPED, exit_code=0)
FAILED = replace(DONE, exit_code=3)
NEVER_RAN = replace(PENDING, known=ContainerStatus.STOPPED, reason="CannotPullContainerError: no")
RESTARTING = replace(HEALTHY, restarting=True)


def judge(condition: str, db: ContainerState, *, start_timeout_s: int | None = None, now: float = 110.0) -> Verdict:
    spec = spec_of(
        container("db", health_check=health_check(), start_timeout_s=start_timeout_s),
        container("web", depends_on=[depends("db", condition)]),
    )
    state = TaskState(
        task_id=TaskId("t"),
        spec=spec,
        desired=DesiredStatus.RUNNING,
        containers=(db, ContainerState(name="web", docker_name="web")),
    )
    return may_start(state, spec.container("web"), now)


@pytest.mark.parametrize(
    ("condition", "db", "expected"),
    [
        ("START", PENDING, Wait),
        ("START", CREATED, Wait),
        ("START", RUNNING, Ready),
        ("START", FAILED, Ready),
        ("START", NEVER_RAN, Never),
        ("COMPLETE", RUNNING, Wait),
        ("COMPLETE", DONE, Ready),
        ("COMPLETE", FAILED, Ready),
        ("COMPLETE", NEVER_RAN, Never),
        ("SUCCESS", RUNNING, Wait),
        ("SUCCESS", DONE, Ready),
        ("SUCCESS", FAILED, Never),
        ("SUCCESS", RESTARTING, Wait),
        ("HEALTHY", RUNNING, Wait),
        ("HEALTHY", UNHEALTHY, Wait),
        ("HEALTHY", HEALTHY, Ready),
        ("HEALTHY", RESTARTING, Wait),
        ("HEALTHY", DONE, Never),
    ],
)
def test_conditions(condition: str, db: ContainerState, expected: type[Verdict]) -> None:
    assert isinstance(judge(condition, db), expected)


@pytest.mark.parametrize("condition", ["COMPLETE", "SUCCESS", "HEALTHY"])
def test_a_start_timeout_counts_from_the_dependencys_start(condition: str) -> None:
    waiting = judge(condition, RUNNING, start_timeout_s=30, now=129.0)
    assert isinstance(waiting, Wait)
    assert waiting.until == 130.0
    over = judge(condition, RUNNING, start_timeout_s=30, now=130.0)
    assert isinstance(over, Never)
    assert "startTimeout of 30 s" in over.reason


def test_a_start_timeout_does_not_run_before_the_start_nor_bound_start() -> None:
    assert judge("HEALTHY", CREATED, start_timeout_s=30, now=9999.0) == Wait("db to become healthy", None)
    assert judge("START", CREATED, start_timeout_s=30, now=9999.0) == Wait("db to start")


def test_what_was_met_in_time_stays_met() -> None:
    assert judge("HEALTHY", HEALTHY, start_timeout_s=30, now=9999.0) == Ready()


def test_what_cannot_be_resolved_is_named() -> None:
    assert check(spec_of(container("a"), container("b", depends_on=[depends("a")]))) is None
    unknown = check(spec_of(container("a", depends_on=[depends("nobody")])))
    assert unknown is not None
    assert "nobody" in unknown
    circle = check(
        spec_of(
            container("a", depends_on=[depends("b")]),
            container("b", depends_on=[depends("c")]),
            container("c", depends_on=[depends("b")]),
        )
    )
    assert circle is not None
    assert "a, b, c" in circle
    itself = check(spec_of(container("a", depends_on=[depends("a")])))
    assert itself is not None
    unchecked = check(spec_of(container("a"), container("b", depends_on=[depends("a", "HEALTHY")])))
    assert unchecked is not None
    assert "no health check" in unchecked


def test_a_container_stops_after_all_that_depend_on_it() -> None:
    spec = spec_of(container("db"), container("web", depends_on=[depends("db")]))
    web = replace(RUNNING, name="web")
    state = TaskState(task_id=TaskId("t"), spec=spec, desired=DesiredStatus.STOPPED, containers=(RUNNING, web))
    assert may_stop(state, "web")
    assert not may_stop(state, "db")
    assert may_stop(state.with_container(replace(web, known=ContainerStatus.STOPPED)), "db")


def test_what_depends_through_one_that_has_ended_stops_first_all_the_same() -> None:
    spec = spec_of(
        container("db"),
        container("migrate", essential=False, depends_on=[depends("db")]),
        container("web", depends_on=[depends("migrate", "SUCCESS")]),
    )
    containers = (RUNNING, replace(DONE, name="migrate"), replace(RUNNING, name="web"))
    state = TaskState(task_id=TaskId("t"), spec=spec, desired=DesiredStatus.STOPPED, containers=containers)
    assert [may_stop(state, name) for name in ("db", "migrate", "web")] == [False, False, True]
    after = state.with_container(replace(DONE, name="web"))
    assert [may_stop(after, name) for name in ("db", "migrate")] == [True, True]


def test_even_a_circle_can_be_stopped() -> None:
    spec = spec_of(container("a", depends_on=[depends("b")]), container("b", depends_on=[depends("a")]))
    state = TaskState(
        task_id=TaskId("t"),
        spec=spec,
        desired=DesiredStatus.STOPPED,
        containers=(replace(DONE, name="a"), replace(DONE, name="b")),
    )
    assert may_stop(state, "a")
