"""The time budget: each phase from the right clock, never negative, whatever the hosts' clocks say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from controlplane.services.budget import DRAIN, PHASES, TO_HEALTHY, phases_of, phases_text, summary, with_task
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import DeploymentRecord, PhaseTimes, ServiceDeploymentStatus
from homeport.ids import TaskId
from homeport.spec import ContainerSpec, TaskSpec

SPEC = TaskSpec(
    task_arn="arn",
    cluster="default",
    family="web",
    revision=1,
    containers=(ContainerSpec(name="web", image="busybox", container_arn="c"),),
)
DEPLOYMENT = DeploymentRecord(
    id="ecs-svc/1", arn_id="a", service_id="s", service="default/web", revision="1", created_at=0.0, updated_at=0.0
)


def task(**times: float | None) -> TaskRecord:
    values: dict[str, Any] = {"created_at": 100.0, **times}
    return TaskRecord(id=TaskId("1" * 32), cluster="default", spec=SPEC, launch_type="EC2", **values)


#: A task whose host's clock is right.
USUAL = {
    "wanted_at": 99.75,
    "created_at": 100.0,
    "pull_started_at": 100.125,
    "pull_stopped_at": 102.125,
    "started_at": 102.5,
    "running_at": 102.625,
    "healthy_at": 107.625,
    "stopping_at": 200.0,
    "stopped_at": 203.0,
}
HOSTS_OWN = ("pull_started_at", "pull_stopped_at", "started_at")


def test_the_phases_of_a_task() -> None:
    times = phases_of(task(**USUAL))
    assert times == {"schedule": 0.25, "pull": 2.0, "start": 0.625, "healthy": 5.0, "drain": 3.0}
    assert tuple(times) == PHASES
    assert sum(times[phase] for phase in TO_HEALTHY) == USUAL["healthy_at"] - USUAL["wanted_at"], "nothing is left out"


@pytest.mark.parametrize("offset", [-3600.0, -3.0, 4.0, 86400.0])
def test_a_hosts_wrong_clock_changes_nothing_of_what_comes_before_health(offset: float) -> None:
    skewed = {name: at + offset if name in HOSTS_OWN else at for name, at in USUAL.items()}
    assert phases_of(task(**skewed)) == phases_of(task(**USUAL))


def test_the_wait_of_a_prepared_task_is_in_none_of_its_phases() -> None:
    """It was pulled at once, waited for the one it replaces until 132.0, and then started within half a second."""
    prepared = {**USUAL, "released_at": 132.0, "started_at": 132.375, "running_at": 132.5, "healthy_at": 137.5}
    times = phases_of(task(**prepared))
    assert times == {"schedule": 0.25, "pull": 2.0, "start": 0.5, "healthy": 5.0, "drain": 3.0}


def test_what_has_not_ended_has_no_seconds() -> None:
    assert phases_of(task()) == {}
    assert phases_of(task(wanted_at=99.0, pull_started_at=101.0)) == {"schedule": 1.0}
    assert phases_of(task(pull_started_at=101.0, pull_stopped_at=103.0)) == {"pull": 2.0}
    assert phases_of(task(running_at=103.0)) == {"start": 3.0}


TIMES = st.none() | st.floats(0, 1e9)
MOMENTS = ("wanted_at", "released_at", "running_at", "healthy_at", "stopping_at", "stopped_at", *HOSTS_OWN)


@given(st.fixed_dictionaries({"created_at": st.floats(0, 1e9)} | dict.fromkeys(MOMENTS, TIMES)))
def test_no_phase_is_negative_or_longer_than_the_control_plane_has_seen(times: dict[str, Any]) -> None:
    found = phases_of(task(**times))
    assert all(seconds >= 0 for seconds in found.values())
    if times["running_at"] is not None:
        begun = times["created_at"] if times["released_at"] is None else times["released_at"]
        assert found["start"] <= max(0.0, times["running_at"] - begun)


def test_a_deployment_adds_its_tasks_up() -> None:
    one = task(**USUAL)
    other = task(**{**USUAL, "running_at": 104.625, "healthy_at": 109.625})
    deployment = with_task(with_task(DEPLOYMENT, one, TO_HEALTHY), other, TO_HEALTHY)
    assert deployment.budget["start"] == PhaseTimes(count=2, total_s=3.25, max_s=2.625)
    assert "drain" not in deployment.budget
    drained = with_task(deployment, one, DRAIN)
    assert drained.budget["drain"] == PhaseTimes(count=1, total_s=3.0, max_s=3.0)
    assert {**drained.budget, "drain": None} == {**deployment.budget, "drain": None}
    assert tuple(drained.budget) == PHASES


def test_a_task_that_tells_nothing_leaves_the_deployment_as_it_is() -> None:
    assert with_task(DEPLOYMENT, task(), TO_HEALTHY) is DEPLOYMENT


def test_the_words_for_stories() -> None:
    assert phases_text(task(**USUAL)) == "schedule 0.25 s, pull 2.00 s, start 0.62 s, healthy 5.00 s"
    ended = replace(
        with_task(with_task(DEPLOYMENT, task(**USUAL), DRAIN), task(**{**USUAL, "stopped_at": 201.0}), DRAIN),
        status=ServiceDeploymentStatus.SUCCESSFUL,
        finished_at=7.25,
    )
    drained = "drain of 2 tasks: mean 2.00 s, at most 3.00 s"
    assert summary(ended) == f"deployment ecs-svc/1 ended SUCCESSFUL after 7.2 s; {drained}"
    assert summary(replace(ended, rollback_of="x", budget={})) == "rollback ecs-svc/1 ended SUCCESSFUL after 7.2 s"
