"""Services whose control plane has its clock set back, as on a machine that boots with the wrong time, then asks NTP.

What was waited for since before then isn't waited for until the clock is there again.
"""

import pytest
from msgspec.structs import replace

from controlplane.services.model import Timing
from controlplane.state.service_records import RolloutState, TaskSetRecord
from homeport.status import HealthStatus
from tests.fakes.service_world import Behaviour, World

HOUR_S = 3600.0


def test_a_task_that_has_begun_to_run_counts_as_healthy() -> None:
    world = World(desired=1, timing=Timing(min_healthy_s=5))
    world.run(4)
    assert world.live()[0].healthy_at is None
    world.now -= HOUR_S
    world.run(1)
    assert world.live()[0].healthy_at == world.now - 1
    assert world.rollout() is RolloutState.COMPLETED


def test_a_sick_task_has_no_further_grace() -> None:
    world = World(
        desired=1, behaviour=Behaviour(kind="sick", check=True), settings={"healthCheckGracePeriodSeconds": 50}
    )
    for _ in range(5):
        world.decide()
        world.agents()
    [task] = world.live()
    assert task.health is HealthStatus.UNHEALTHY
    world.now -= HOUR_S
    world.decide()
    assert task.id not in [each.id for each in world.live()]


def test_failures_delay_nothing_until_the_time_of_before() -> None:
    world = World(desired=1, behaviour=Behaviour(kind="crashes"))
    world.run(30)
    retry_at, tried = world.primary.retry_at, len(world.tasks)
    assert retry_at is not None
    assert retry_at > world.now
    world.now -= HOUR_S
    world.run(1)
    assert len(world.tasks) > tried
    # From there on they delay as ever.
    assert world.primary.retry_at is not None
    assert world.now < world.primary.retry_at < world.now + 60


def test_failures_of_a_task_set_delay_nothing_until_the_time_of_before() -> None:
    world = World(desired=1, controller="EXTERNAL")
    task_set = TaskSetRecord(
        id="ecs-svc/set1",
        service_id=world.service.id,
        service=world.service.key,
        created_at=world.now,
        updated_at=world.now,
        task_definition="web:1",
        scale_percent=100,
    )
    world.task_sets[task_set.id] = task_set
    world.behaviours[task_set.id] = Behaviour(kind="crashes")
    world.run(30)
    tried = len(world.tasks)
    world.now -= HOUR_S
    world.run(1)
    assert len(world.tasks) > tried


@pytest.mark.parametrize("back_s", [0.0, HOUR_S])
def test_a_task_that_lasts_ends_the_delays(back_s: float) -> None:
    world = World(desired=1)
    world.run(2)
    [task] = world.live()
    owner = replace(world.primary, failed_tasks=4, failed_at=task.running_at)
    world.deployments[owner.id] = owner
    world.now -= back_s
    world.run(20)
    assert world.primary.failed_tasks == 0
