"""The service reconciler's rules for a REPLICA service, one by one, in a world of values."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.services.deciding.decide import decide
from controlplane.services.deciding.rollout import STUCK
from controlplane.services.deciding.settling import IMPAIRED
from controlplane.services.deployments import is_proven
from controlplane.services.isolation import at_most_once
from controlplane.services.model import Say, Start, Stop, Timing
from controlplane.state.service_records import RolloutState, ServiceDeploymentStatus
from homeport import reasons
from homeport.ids import InstanceId, TaskId
from homeport.status import DesiredStatus, HealthStatus, StopCode, TaskStatus
from tests.fakes.service_world import Behaviour, World

BREAKER = {"enable": True, "rollback": True}
PORT = Behaviour(port=True)
CHECKED = Behaviour(check=True)


def steady(**arguments: Any) -> World:
    """A world whose service has reached its steady state, with nothing told of how."""
    world = World(**arguments)
    world.run(30)
    assert world.rollout() is RolloutState.COMPLETED
    world.events.clear()
    return world


def configuration(minimum: int = 100, maximum: int = 200, **members: Any) -> dict[str, Any]:
    return {"minimumHealthyPercent": minimum, "maximumPercent": maximum, **members}


def starts(world: World) -> list[Start]:
    return [action for action in decide(world.snapshot(), world.now).actions if isinstance(action, Start)]


def stops(world: World) -> list[Stop]:
    return [action for action in decide(world.snapshot(), world.now).actions if isinstance(action, Stop)]


def _is_victim(world: World, task: str) -> bool:
    return any(t.replaces == task for t in world.tasks.values())


class TestKeepingTheCount:
    def test_a_new_service_starts_all_its_tasks_and_says_when_it_is_steady(self) -> None:
        world = World(desired=3)
        assert [s.count for s in starts(world)] == [3]
        world.run(30)
        assert len(world.live()) == 3
        assert world.events == ["(deployment ecs-svc/1) deployment completed.", "has reached a steady state."]
        assert world.primary.rollout_reason == "ECS deployment ecs-svc/1 completed."
        assert world.primary.status is ServiceDeploymentStatus.SUCCESSFUL
        assert world.service.stable_revision == "rev-1"

    def test_a_task_without_a_check_is_healthy_after_its_time_and_not_before(self) -> None:
        world = World(desired=1, timing=Timing(min_healthy_s=5))
        world.run(4.9)
        assert world.live()[0].healthy_at is None
        assert world.wake_at == pytest.approx(1005.0)
        world.run(0.2)
        assert world.live()[0].healthy_at == pytest.approx(1005.0)

    def test_a_task_with_a_check_is_healthy_when_it_says_so(self) -> None:
        world = World(desired=1, behaviour=CHECKED)
        world.run(0)
        assert world.live()[0].healthy_at == world.now

    def test_a_dead_task_is_replaced_in_the_very_decision_that_settles_it(self) -> None:
        world = steady(desired=2)
        dead = world.live()[0]
        world.now += 10
        world.kill(dead.id)
        [start] = starts(world)
        assert (start.count, start.wanted_at) == (1, world.now)
        world.run(30)
        assert len(world.live()) == 2
        assert world.settled[dead.id] == 1
        assert world.events == ["has reached a steady state."]

    def test_a_task_that_was_of_use_and_exits_is_no_failure(self) -> None:
        world = steady(desired=2)
        world.kill(world.live()[0].id)
        world.decide()
        assert world.primary.failed_tasks == 0

    def test_a_task_that_a_user_stops_is_no_failure(self) -> None:
        world = World(desired=1)
        world.decide()
        task = world.live()[0]
        stopped = {"desired": DesiredStatus.STOPPED, "stop_code": StopCode.USER_INITIATED}
        world.tasks[task.id] = replace(task, **stopped, stopped_reason="Task stopped by user")
        world.agents()
        world.run(30)
        assert world.primary.failed_tasks == 0
        assert len(world.live()) == 1

    def test_scaling_in_stops_from_the_fullest_host_and_the_youngest_there(self) -> None:
        world = steady(hosts=2, desired=3)
        crowded = [t for t in world.live() if t.instance_id == "host-0"]
        assert len(crowded) == 2
        world.scale(2)
        [stop] = stops(world)
        assert stop.task_id == max(t.id for t in crowded)
        assert stop.reason == "Scaling activity initiated by (deployment ecs-svc/1)"

    def test_scaling_in_spares_the_protected_and_takes_what_does_not_run_first(self) -> None:
        world = steady(desired=2)
        world.scale(3)
        world.reconcile()
        pending = next(t for t in world.live() if t.status < TaskStatus.RUNNING)
        world.scale(2)
        assert [stop.task_id for stop in stops(world)] == [pending.id]
        for task in world.live():
            world.protect(task.id, 100)
        world.scale(0)
        assert stops(world) == []
        assert decide(world.snapshot(), world.now).wake_at == world.now + 100
        world.run(200)
        assert world.live() == []

    def test_scaling_to_zero_and_back_says_steady_each_time(self) -> None:
        world = steady(desired=2)
        world.scale(0)
        world.run(30)
        world.scale(2)
        world.run(30)
        assert world.events == ["has reached a steady state."] * 2

    def test_deciding_on_a_steady_service_decides_nothing(self) -> None:
        world = steady(desired=3)
        decision = decide(world.snapshot(), world.now)
        assert (decision.actions, decision.wake_at) == ((), None)


class TestRolling:
    def test_it_starts_first_and_never_goes_below_the_desired_count(self) -> None:
        world = steady(desired=4)
        old = {t.id for t in world.live()}
        world.deploy(Behaviour())
        low = 4
        for _ in range(60):
            world.decide()
            low = min(low, sum(t.status is TaskStatus.RUNNING for t in world.live()))
            world.agents()
            world.now += 1
        assert low == 4
        assert not old & {t.id for t in world.live()}
        assert world.service.deployments == ("ecs-svc/2",)
        assert "(deployment ecs-svc/2) deployment completed." in world.events

    @pytest.mark.parametrize(
        ("desired", "maximum", "first"), [(4, 200, 4), (4, 150, 2), (3, 150, 1), (10, 125, 2), (1, 199, 0)]
    )
    def test_maximum_percent_rounds_down(self, desired: int, maximum: int, first: int) -> None:
        world = steady(desired=desired, deployment_configuration=configuration(100, maximum))
        world.deploy(Behaviour())
        assert sum(s.count for s in starts(world) if s.replaces is None) == first

    @pytest.mark.parametrize(("desired", "minimum", "at_a_time"), [(4, 50, 2), (3, 50, 1), (3, 34, 1), (5, 0, 5)])
    def test_without_room_it_prepares_as_many_as_may_stop(self, desired: int, minimum: int, at_a_time: int) -> None:
        world = steady(desired=desired, deployment_configuration=configuration(minimum, 100))
        old = {t.id: t.instance_id for t in world.live()}
        world.deploy(Behaviour())
        found = starts(world)
        assert len(found) == at_a_time
        assert all(s.host == old[s.replaces] for s in found if s.replaces)
        assert stops(world) == []
        world.reconcile()
        # Until its successor's containers are created, no old task is stopped.
        assert len(world.live()) == desired
        world.agents()
        assert len(stops(world)) == at_a_time
        world.run(120)
        assert world.rollout() is RolloutState.COMPLETED
        assert len(world.live("ecs-svc/2")) == desired

    def test_a_prepared_task_starts_when_the_replaced_one_has_stopped(self) -> None:
        world = steady(desired=1, deployment_configuration=configuration(0, 100))
        old = world.live()[0]
        world.deploy(Behaviour())
        world.reconcile()
        new = next(t for t in world.tasks.values() if t.replaces)
        assert (new.replaces, new.desired, new.instance_id) == (old.id, DesiredStatus.PENDING, old.instance_id)
        world.agents()
        world.reconcile()
        assert world.tasks[old.id].desired is DesiredStatus.STOPPED
        assert world.tasks[new.id].desired is DesiredStatus.PENDING
        world.agents()
        world.reconcile()
        assert world.tasks[new.id].desired is DesiredStatus.RUNNING

    def test_bounds_that_forbid_every_step_are_named_once(self) -> None:
        world = steady(desired=2, deployment_configuration=configuration(100, 100), given=("minimumHealthyPercent",))
        world.deploy(Behaviour())
        world.run(300)
        assert world.events == [STUCK]
        assert world.rollout() is RolloutState.IN_PROGRESS

    def test_host_ports_choose_stop_first_though_the_default_minimum_forbids_it(self) -> None:
        world = steady(hosts=2, desired=2, behaviour=PORT)
        world.deploy(PORT)
        world.run(120)
        assert world.rollout() is RolloutState.COMPLETED
        assert len(world.live("ecs-svc/2")) == 2

    def test_it_gives_way_by_one_task_at_a_time(self) -> None:
        world = steady(hosts=3, desired=3, behaviour=PORT)
        world.deploy(PORT)
        lows: list[int] = []
        world.on_decision = lambda s, d: lows.append(
            sum(t.healthy_at is not None and t.desired is DesiredStatus.RUNNING for t in s.tasks)
        )
        world.run(200)
        assert min(lows) == 2
        assert world.rollout() is RolloutState.COMPLETED

    def test_beside_outdated_tasks_in_their_own_way_dead_ones_are_replaced_where_there_is_room(self) -> None:
        world = steady(hosts=3, desired=3, behaviour=PORT)
        world.deploy(PORT)
        world.reconcile()
        assert world.blocked is not None or any(t.replaces for t in world.tasks.values())
        world.kill(next(t.id for t in world.live("ecs-svc/1") if not _is_victim(world, t.id)))
        world.run(120)
        assert world.rollout() is RolloutState.COMPLETED

    def test_prepared_tasks_that_are_not_needed_any_more_are_stopped(self) -> None:
        world = steady(desired=2, deployment_configuration=configuration(0, 100))
        world.deploy(Behaviour())
        world.reconcile()
        world.scale(0)
        world.reconcile()
        prepared = [t for t in world.tasks.values() if t.replaces]
        assert [t.desired for t in prepared] == [DesiredStatus.STOPPED] * 2

    def test_a_minimum_that_was_given_stays_and_the_event_names_it(self) -> None:
        world = steady(
            hosts=2,
            desired=2,
            behaviour=PORT,
            deployment_configuration=configuration(100, 200),
            given=("minimumHealthyPercent",),
        )
        world.deploy(PORT)
        world.run(300)
        assert len(world.live("ecs-svc/1")) == 2
        [event] = world.events
        assert event.startswith(STUCK)
        assert "minimumHealthyPercent doesn't allow to stop one" in event

    def test_host_ports_start_first_where_another_host_is_free(self) -> None:
        world = steady(hosts=3, desired=2, behaviour=PORT)
        world.deploy(PORT)
        world.reconcile()
        assert [t.replaces for t in world.live("ecs-svc/2")] == [None]

    def test_an_update_during_an_update_supersedes_it(self) -> None:
        world = steady(desired=3)
        world.deploy(Behaviour(kind="hangs"))
        world.reconcile()
        assert len(world.live("ecs-svc/2")) == 3
        world.deploy(Behaviour())
        world.reconcile()
        assert world.live("ecs-svc/2") == []
        assert len(world.live("ecs-svc/1")) == 3
        world.run(60)
        assert world.service.deployments == ("ecs-svc/3",)
        assert len(world.live("ecs-svc/3")) == 3
        assert world.deployments["ecs-svc/2"].status is ServiceDeploymentStatus.STOPPED

    def test_a_protected_task_outlives_a_deployment_until_its_protection_ends(self) -> None:
        world = steady(desired=2)
        kept = world.live()[0]
        world.protect(kept.id, 100)
        world.deploy(Behaviour())
        world.run(90)
        assert world.tasks[kept.id].desired is DesiredStatus.RUNNING
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.run(30)
        assert world.tasks[kept.id].status is TaskStatus.STOPPED
        assert world.rollout() is RolloutState.COMPLETED

    def test_tasks_of_an_earlier_service_of_that_name_are_replaced(self) -> None:
        world = World(desired=1)
        world.decide()
        [task] = world.live()
        world.tasks[task.id] = replace(task, started_by="ecs-svc/999")
        world.deployments["ecs-svc/999"] = replace(world.primary, id="ecs-svc/999")
        world.run(30)
        assert world.tasks[task.id].status is TaskStatus.STOPPED
        assert len(world.live("ecs-svc/1")) == 1

    def test_tasks_are_stopped_not_running_first_then_of_the_oldest_deployment(self) -> None:
        world = steady(desired=2)
        world.deploy(Behaviour())
        world.run(4)
        world.deploy(Behaviour(check=True))
        world.reconcile()
        running = {t.id for t in world.live("ecs-svc/1")}
        assert len(running) == 2
        assert world.live("ecs-svc/2") == []

    def test_early_success_completes_before_the_old_tasks_are_gone(self) -> None:
        criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "DEFERRED"}
        world = steady(desired=4, deployment_configuration=configuration(100, 150, earlySuccessCriteria=criteria))
        world.deploy(Behaviour())
        world.run(5)
        assert world.rollout() is RolloutState.COMPLETED
        assert world.live("ecs-svc/1")
        world.run(60)
        assert len(world.live("ecs-svc/2")) == len(world.live()) == 4
        assert world.service.deployments == ("ecs-svc/2",)

    def test_early_success_waits_for_the_old_tasks_if_that_is_asked(self) -> None:
        criteria = {"enable": True, "healthyPercent": 50, "sourceServiceRevisionCleanup": "BLOCKING"}
        world = steady(desired=4, deployment_configuration=configuration(100, 150, earlySuccessCriteria=criteria))
        world.deploy(Behaviour())
        seen: list[int] = []
        world.on_decision = lambda s, d: seen.extend(
            len(world.live("ecs-svc/1")) for a in d.actions if isinstance(a, Say) and "completed" in a.message
        )
        world.run(60)
        assert seen == [0]


class TestFailures:
    @pytest.mark.parametrize(
        ("threshold", "desired", "failures"),
        [
            ({}, 1, 3),
            ({}, 10, 5),
            ({"type": "BOUNDED_PERCENT", "value": 30}, 11, 4),
            ({"type": "BOUNDED_PERCENT", "value": 100}, 900, 200),
            ({"type": "UNBOUNDED_PERCENT", "value": 10}, 11, 2),
            ({"type": "UNBOUNDED_PERCENT", "value": 10}, 1, 1),
            ({"type": "COUNT", "value": 7}, 1, 7),
        ],
    )
    def test_the_breaker_opens_at_its_threshold(self, threshold: dict[str, Any], desired: int, failures: int) -> None:
        breaker = {**BREAKER, **({"thresholdConfiguration": threshold} if threshold else {})}
        config = configuration(deploymentCircuitBreaker=breaker)
        world = World(desired=desired, behaviour=Behaviour(kind="hangs"), deployment_configuration=config, capacity=999)
        world.decide()
        primary = world.primary
        world.deployments[primary.id] = replace(primary, breaker_failures=failures - 1, failed_tasks=failures - 1)
        world.decide()
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.deployments[primary.id] = replace(primary, breaker_failures=failures, failed_tasks=failures)
        world.decide()
        assert world.rollout() is RolloutState.FAILED
        assert world.primary.rollout_reason == "ECS deployment circuit breaker: tasks failed to start."

    def test_a_task_that_has_just_begun_to_run_well_isn_t_given_up_for_one_that_may_not(self) -> None:
        world = steady(desired=1)
        world.kill(world.live()[0].id)
        while not (world.live() and world.live()[0].status is TaskStatus.RUNNING):
            world.decide()
            world.agents()
        (young,) = world.live()
        world.deploy(Behaviour())
        world.reconcile()
        assert young.id in {t.id for t in world.live()}
        world.run(30)
        assert young.id not in {t.id for t in world.live()}
        assert len(world.live()) == 1

    @pytest.mark.parametrize("kind", ["crashes", "sick", "hopeless"])
    def test_a_broken_revision_is_rolled_back_and_the_old_tasks_never_leave(self, kind: Any) -> None:
        world = steady(desired=3, deployment_configuration=configuration(deploymentCircuitBreaker=BREAKER))
        old = {t.id for t in world.live()}
        world.deploy(Behaviour(kind=kind, check=kind == "sick"))
        world.run(60)
        failed = world.deployments["ecs-svc/2"]
        assert failed.rollout is RolloutState.FAILED
        assert failed.status is ServiceDeploymentStatus.ROLLBACK_SUCCESSFUL
        assert failed.rollback_reason
        assert failed.finished_at is not None
        assert world.primary.id == "ecs-svc/3"
        assert (world.primary.revision, world.primary.rollback_of) == ("rev-1", "ecs-svc/2")
        assert world.service.deployments == ("ecs-svc/3",)
        assert {t.id for t in world.live("ecs-svc/3")} == old  # nothing that works is started anew
        said = [event for event in world.events if "failed:" in event or "rolling" in event]
        assert said[0].startswith("(deployment ecs-svc/2) deployment failed: tasks failed to start")
        assert said[1] == "rolling back to deployment ecs-svc/3."

    def test_a_rollback_says_what_it_is(self) -> None:
        world = steady(desired=1, deployment_configuration=configuration(deploymentCircuitBreaker=BREAKER))
        world.deploy(Behaviour(kind="hopeless"))
        while world.primary.id != "ecs-svc/3":
            world.decide()
            world.agents()
        reason = "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/3."
        assert world.primary.rollout_reason == reason
        assert world.deployments["ecs-svc/2"].status is ServiceDeploymentStatus.ROLLBACK_IN_PROGRESS
        assert world.wake_at == world.now

    def test_a_rollback_is_never_rolled_back(self) -> None:
        world = steady(desired=1, deployment_configuration=configuration(deploymentCircuitBreaker=BREAKER))
        world.behaviours["rev-1"] = Behaviour(kind="crashes")
        world.deploy(Behaviour(kind="crashes"))
        world.kill(world.live()[0].id)
        while world.primary.id != "ecs-svc/3":
            world.decide()
            world.agents()
        # Even with somewhere to go.
        world.service = replace(world.service, stable_revision="rev-0")
        world.behaviours["rev-0"] = Behaviour()
        world.run(60)
        assert world.service.deployments == ("ecs-svc/3",)
        assert (world.rollout(), world.primary.status) == (RolloutState.FAILED, ServiceDeploymentStatus.STOPPED)
        assert world.deployments["ecs-svc/2"].status is ServiceDeploymentStatus.ROLLBACK_FAILED
        assert "The rollback failed" in world.deployments["ecs-svc/2"].status_reason

    def test_a_first_deployment_has_nothing_to_go_back_to_and_says_so(self) -> None:
        config = configuration(deploymentCircuitBreaker=BREAKER)
        world = World(desired=2, behaviour=Behaviour(kind="crashes"), deployment_configuration=config)
        world.run(60)
        assert world.rollout() is RolloutState.FAILED
        assert world.primary.status is ServiceDeploymentStatus.ROLLBACK_FAILED
        assert world.primary.status_reason.endswith("No rollback candidate was found to run the rollback.")
        assert starts(world) == []

    def test_without_rollback_a_failed_deployment_leaves_what_is_healthy(self) -> None:
        config = configuration(deploymentCircuitBreaker={"enable": True, "rollback": False})
        world = steady(desired=3, deployment_configuration=config)
        world.deploy(Behaviour(kind="crashes"))
        world.run(60)
        assert world.rollout() is RolloutState.FAILED
        assert world.primary.status is ServiceDeploymentStatus.STOPPED
        assert len(world.live("ecs-svc/1")) == 3
        assert starts(world) == []
        world.scale(1)
        world.run(30)
        assert len(world.live()) == 1

    def test_deploying_again_within_seconds_loses_nothing_that_serves(self) -> None:
        world = World(desired=3)
        while not (len(world.live()) == 3 and all(t.status is TaskStatus.RUNNING for t in world.live())):
            world.decide()
            world.agents()
        first = {t.id for t in world.live()}
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.deploy(Behaviour())
        world.reconcile()
        assert first <= {t.id for t in world.live()}  # they serve, though nobody can say yet that they are healthy
        world.run(30)
        assert {t.started_by for t in world.live()} == {"ecs-svc/2"}
        assert len(world.live()) == 3

    @pytest.mark.parametrize("kind", ["crashes", "sick", "hopeless"])
    def test_a_revision_that_was_superseded_at_once_is_gone_back_to_if_it_works(self, kind: Any) -> None:
        world = World(desired=3, deployment_configuration=configuration(deploymentCircuitBreaker=BREAKER))
        while not (len(world.live()) == 3 and all(t.status is TaskStatus.RUNNING for t in world.live())):
            world.decide()
            world.agents()
        first = {t.id for t in world.live()}
        world.deploy(Behaviour(kind=kind, check=kind == "sick"))
        world.run(120)
        assert first <= {t.id for t in world.live()}
        if world.deployments["ecs-svc/2"].status is ServiceDeploymentStatus.ROLLBACK_SUCCESSFUL:
            assert {t.id for t in world.live()} == first

    def test_a_revision_whose_tasks_failed_is_not_gone_back_to(self) -> None:
        world = World(desired=2, behaviour=Behaviour(kind="crashes"))
        world.run(1)
        deployment = world.primary
        assert deployment.failed_tasks
        assert not is_proven(replace(deployment, healthy_tasks=2), 2)
        assert is_proven(replace(deployment, healthy_tasks=2, failed_tasks=0), 2)
        assert not is_proven(replace(deployment, healthy_tasks=1, failed_tasks=0), 2)
        assert not is_proven(replace(deployment, healthy_tasks=2, failed_tasks=0, rollout=RolloutState.FAILED), 2)

    def test_what_ran_before_a_failed_deployment_is_kept_up(self) -> None:
        config = configuration(deploymentCircuitBreaker={"enable": True, "rollback": False})
        world = steady(desired=3, deployment_configuration=config)
        world.deploy(Behaviour(kind="crashes"))
        world.run(60)
        assert world.rollout() is RolloutState.FAILED
        for task in world.live():
            world.kill(task.id)  # all of them at once: the deployment has no task for a moment
        world.run(30)
        assert {t.started_by for t in world.live()} == {"ecs-svc/1"}
        assert len(world.live()) == 3
        drained = world.live()[0].instance_id
        assert drained is not None
        world.machines[drained].draining = True
        world.run(30)
        assert len(world.live()) == 3
        assert drained not in {t.instance_id for t in world.live()}

    def test_without_the_breaker_it_backs_off_and_says_so_once(self) -> None:
        world = World(desired=1, behaviour=Behaviour(kind="crashes"))
        world.run(0.5)
        # Three rounds of one task at once, and then the delays begin.
        assert world.primary.failed_tasks == 4
        assert world.events == [IMPAIRED]
        world.run(100)
        assert world.primary.failed_tasks == 10
        assert world.events == [IMPAIRED]
        assert world.rollout() is RolloutState.IN_PROGRESS

    def test_a_fresh_revision_starts_with_a_clean_record(self) -> None:
        world = World(desired=1, behaviour=Behaviour(kind="crashes"))
        world.run(300)
        world.deploy(Behaviour())
        world.run(6)
        assert world.rollout() is RolloutState.COMPLETED

    def test_a_healthy_task_ends_a_row_of_failures(self) -> None:
        world = World(desired=1, behaviour=Behaviour(kind="crashes"))
        world.run(1)
        assert world.primary.host_failures
        world.behaviours["rev-1"] = Behaviour()
        world.run(30)
        primary = world.primary
        assert (primary.failed_tasks, primary.breaker_failures, primary.retry_at) == (0, 0, None)

    def test_the_breaker_keeps_counting_if_it_is_told_to(self) -> None:
        breaker = {"enable": True, "resetOnHealthyTask": False, "thresholdConfiguration": {"type": "COUNT", "value": 5}}
        config = configuration(deploymentCircuitBreaker=breaker)
        world = World(desired=2, behaviour=Behaviour(kind="hangs"), deployment_configuration=config)
        world.decide()
        world.kill(world.live()[0].id)
        world.decide()
        world.behaviours["rev-1"] = Behaviour()
        world.run(10)
        assert (world.primary.failed_tasks, world.primary.breaker_failures) == (0, 1)

    def test_the_next_try_avoids_the_host_that_failed(self) -> None:
        world = World(hosts=2, desired=1, behaviour=Behaviour(lacking=frozenset({"host-0"})))
        world.run(30)
        [task] = world.live()
        assert task.instance_id == "host-1"
        assert world.primary.host_failures == {"host-0": 1}
        assert world.rollout() is RolloutState.COMPLETED

    def test_an_image_that_one_host_lacks_does_not_fail_the_deployment(self) -> None:
        world = World(hosts=3, desired=3, behaviour=Behaviour(lacking=frozenset({"host-0"})))
        world.run(30)
        assert world.rollout() is RolloutState.COMPLETED

    def test_an_image_that_two_hosts_lack_fails_it_at_once_breaker_or_not(self) -> None:
        world = World(hosts=3, desired=1, behaviour=Behaviour(kind="hopeless"))
        world.run(0)
        assert world.rollout() is RolloutState.FAILED
        assert "manifest unknown" in world.primary.rollout_reason
        assert "manifest unknown" in world.events[-1]
        assert len(world.tasks) == 2

    def test_with_one_host_it_is_enough_that_this_one_lacks_it(self) -> None:
        world = World(hosts=1, desired=1, behaviour=Behaviour(kind="hopeless"))
        world.run(0)
        assert world.rollout() is RolloutState.FAILED
        assert len(world.tasks) == 1

    def test_an_image_that_worked_once_is_not_given_up(self) -> None:
        world = steady(hosts=2, desired=1)
        world.deployments["ecs-svc/1"] = replace(world.primary, rollout=RolloutState.IN_PROGRESS)
        world.behaviours["rev-1"] = Behaviour(kind="hopeless")
        world.kill(world.live()[0].id)
        world.run(1)
        assert world.rollout() is RolloutState.IN_PROGRESS

    def test_a_rollback_with_healthy_tasks_that_it_took_over_is_not_given_up(self) -> None:
        world = steady(hosts=2, desired=2)
        hopeless = {"host-0": "x", "host-1": "y"}
        world.deployments["ecs-svc/1"] = replace(
            world.primary, rollout=RolloutState.IN_PROGRESS, healthy_tasks=0, hopeless=hopeless
        )
        world.decide()
        assert world.rollout() is RolloutState.COMPLETED

    def test_a_prepared_task_that_fails_stops_nothing(self) -> None:
        config = configuration(0, 100, deploymentCircuitBreaker=BREAKER)
        world = steady(desired=2, deployment_configuration=config)
        old = {t.id for t in world.live()}
        world.deploy(Behaviour(kind="hopeless"))
        reached: list[str] = []
        world.on_decision = lambda s, d: reached.extend(a.task_id for a in d.actions if isinstance(a, Stop))
        while world.primary.id == "ecs-svc/2":
            world.decide()
            world.agents()
        assert not set(reached) & old
        assert world.deployments["ecs-svc/2"].rollout is RolloutState.FAILED


def test_a_prepared_task_that_the_bounds_keep_from_its_place_is_told_of() -> None:
    world = World(hosts=2, desired=2, capacity=2, deployment_configuration=configuration(100, 200))
    world.run(1)
    world.deploy(Behaviour())
    world.run(1)
    world.service = replace(world.service, deployment_configuration=configuration(100, 100))
    world.machines[InstanceId("host-0")].draining = True
    world.run(60)
    assert [task.desired for task in world.tasks.values() if task.replaces] == [DesiredStatus.PENDING]
    assert sum("because of the service deployment configuration" in event for event in world.events) == 1


class TestHealthAndDeadlines:
    def test_an_unhealthy_task_is_stopped_once_its_successor_is_healthy(self) -> None:
        world = steady(desired=2, behaviour=CHECKED)
        sick = world.live()[0]
        world.set_health(sick.id, HealthStatus.UNHEALTHY)
        world.reconcile()
        assert world.tasks[sick.id].desired is DesiredStatus.RUNNING
        assert len(world.live()) == 3
        world.run(30)
        stopped = world.tasks[sick.id]
        assert (stopped.status, stopped.stopped_reason) == (TaskStatus.STOPPED, reasons.FAILED_HEALTH_CHECKS)
        assert f"(task {sick.id}) failed container health checks." in world.events
        assert len(world.live()) == 2

    def test_where_maximum_percent_leaves_no_room_the_unhealthy_are_stopped_one_by_one(self) -> None:
        world = steady(desired=3, behaviour=CHECKED, deployment_configuration=configuration(0, 100))
        for task in world.live()[:2]:
            world.set_health(task.id, HealthStatus.UNHEALTHY)
        assert len(stops(world)) == 1
        world.run(30)
        assert len(world.live()) == 3
        assert all(t.health is HealthStatus.HEALTHY for t in world.live())

    @pytest.mark.parametrize("port", [True, False])
    def test_where_the_unhealthy_hold_what_their_successors_need_they_are_stopped_one_by_one(self, port: bool) -> None:
        world = steady(hosts=2, capacity=1, desired=2, behaviour=Behaviour(check=True, port=port))
        for task in world.live():
            world.set_health(task.id, HealthStatus.UNHEALTHY)
        most: list[int] = []
        world.on_decision = lambda s, d: most.append(sum(isinstance(action, Stop) for action in d.actions))
        world.run(30)
        assert max(most) == 1
        assert all(t.health is HealthStatus.HEALTHY for t in world.live())
        assert len(world.live()) == 2
        assert world.primary.steady

    def test_an_unhealthy_task_stays_where_its_end_would_make_no_room_for_another(self) -> None:
        world = steady(hosts=2, capacity=1, desired=2, behaviour=CHECKED)
        sick = world.live()[0]
        assert sick.instance_id is not None
        world.machines[sick.instance_id].capacity = 0
        world.set_health(sick.id, HealthStatus.UNHEALTHY)
        world.run(30)
        assert sick.id in [task.id for task in world.live()]

    def test_a_task_that_never_was_healthy_is_stopped_at_once_and_counts_as_failed(self) -> None:
        world = World(desired=2, behaviour=Behaviour(kind="sick", check=True))
        world.decide()
        for _ in range(4):
            world.agents()
            world.decide()
        assert world.primary.failed_tasks == 2

    def test_the_grace_period_excuses_unhealthy_tasks(self) -> None:
        world = World(
            desired=1, behaviour=Behaviour(kind="sick", check=True), settings={"healthCheckGracePeriodSeconds": 50}
        )
        world.decide()
        for _ in range(4):
            world.agents()
            world.decide()
        [task] = world.live()
        assert task.health is HealthStatus.UNHEALTHY
        assert world.wake_at == world.now + 50
        world.now += 51
        assert [stop.task_id for stop in stops(world)] == [task.id]

    def test_a_deployment_without_progress_fails_at_its_deadline_with_the_breaker(self) -> None:
        config = configuration(deploymentCircuitBreaker=BREAKER)
        world = steady(desired=2, deployment_configuration=config, timing=Timing(progress_deadline_s=100))
        world.deploy(Behaviour(kind="hangs"))
        began = world.now
        world.run(99)
        assert world.primary.id == "ecs-svc/2"
        assert world.wake_at == began + 100
        world.run(30)
        assert world.primary.rollback_of == "ecs-svc/2"
        assert world.rollout() is RolloutState.COMPLETED
        assert "no task has become healthy for 100 seconds" in world.deployments["ecs-svc/2"].rollout_reason

    def test_a_deployment_may_take_longer_than_its_deadline_if_it_progresses(self) -> None:
        config = configuration(100, 134, deploymentCircuitBreaker=BREAKER)
        timing = Timing(progress_deadline_s=100, min_healthy_s=40)
        world = World(desired=3, deployment_configuration=config, timing=timing)
        world.run(60)
        world.deploy(Behaviour())
        # One after another, since the default minimum gives way only to tasks in their own way.
        world.run(115)
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.run(60)
        assert (world.primary.id, world.rollout()) == ("ecs-svc/2", RolloutState.COMPLETED)

    def test_a_protected_task_keeps_its_prepared_successor_waiting_without_blame(self) -> None:
        timing = Timing(progress_deadline_s=100)
        world = steady(desired=1, deployment_configuration=configuration(0, 100), timing=timing)
        old = world.live()[0]
        world.deploy(Behaviour())
        world.reconcile()
        world.protect(old.id, 150)
        world.run(149)
        assert world.tasks[old.id].desired is DesiredStatus.RUNNING
        world.run(30)
        assert world.tasks[old.id].status is TaskStatus.STOPPED
        assert world.primary.failed_tasks == 0
        assert world.rollout() is RolloutState.COMPLETED
        assert sum(t.started_by == "ecs-svc/2" for t in world.tasks.values()) == 1

    def test_a_deadline_that_passed_while_all_was_well_begins_anew(self) -> None:
        config = configuration(deploymentCircuitBreaker=BREAKER)
        world = steady(desired=2, deployment_configuration=config, timing=Timing(progress_deadline_s=100))
        world.protect(world.live()[0].id, 5000)
        world.deploy(Behaviour())
        world.run(1000)
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.scale(3)
        world.behaviours["rev-2"] = Behaviour(kind="hangs")
        world.run(50)
        assert world.rollout() is RolloutState.IN_PROGRESS
        world.run(60)
        assert world.primary.rollback_of == "ecs-svc/2"

    def test_without_the_breaker_it_says_what_it_waits_for_once_per_deadline(self) -> None:
        world = World(hosts=1, capacity=1, desired=3, timing=Timing(progress_deadline_s=100))
        world.run(350)
        told = [event for event in world.events if "is not progressing" in event]
        assert len(told) == 3
        assert "It waits for hosts for 2 tasks: RESOURCE on 1 hosts." in told[0]

    def test_a_task_that_hangs_is_stopped_at_the_deadline_and_counts_as_failed(self) -> None:
        world = World(desired=1, behaviour=Behaviour(kind="hangs"), timing=Timing(progress_deadline_s=100))
        world.run(99)
        [task] = world.live()
        world.run(2)
        assert world.tasks[task.id].stopped_reason == "Task failed to become healthy within 100 seconds"
        assert world.primary.failed_tasks == 1
        assert len(world.live()) == 1

    def test_a_prepared_task_that_hangs_is_stopped_at_the_deadline(self) -> None:
        timing = Timing(progress_deadline_s=100)
        world = steady(desired=1, deployment_configuration=configuration(0, 100), timing=timing)
        old = world.live()[0]
        world.deploy(Behaviour(kind="hangs"))
        world.run(102)
        assert world.primary.failed_tasks == 1
        assert world.tasks[old.id].desired is DesiredStatus.RUNNING

    def test_of_two_prepared_for_one_place_one_is_stopped(self) -> None:
        world = steady(desired=1, deployment_configuration=configuration(0, 100))
        world.deploy(Behaviour())
        world.reconcile()
        first = next(t for t in world.tasks.values() if t.replaces)
        world.tasks[TaskId("task-99999")] = replace(first, id=TaskId("task-99999"))
        world.run(30)
        assert len(world.live("ecs-svc/2")) == 1
        assert world.rollout() is RolloutState.COMPLETED


class TestHosts:
    def test_a_short_silence_changes_nothing(self) -> None:
        world = steady(hosts=2, desired=2)
        world.silence(InstanceId("host-0"))
        world.run(59)
        assert len(world.tasks) == 2
        assert world.wake_at == 1030.0 + 60

    def test_a_long_silence_loses_the_tasks_and_replaces_them_at_once(self) -> None:
        world = steady(hosts=2, desired=2)
        lost = next(t for t in world.live() if t.instance_id == "host-0")
        world.silence(InstanceId("host-0"))
        world.run(80)
        assert world.tasks[lost.id].lost_at == 1090.0
        assert world.tasks[lost.id].status is TaskStatus.RUNNING
        assert [t.instance_id for t in world.live()] == ["host-1", "host-1"]
        assert world.events[0].startswith("has lost 1 tasks on 1 container instances that have been silent")

    def test_on_return_the_one_running_longest_stays(self) -> None:
        world = steady(hosts=2, desired=2)
        old = {t.id for t in world.live()}
        world.silence(InstanceId("host-0"))
        world.run(100)
        assert len(world.live()) == 2
        world.unsilence(InstanceId("host-0"))
        world.run(30)
        assert {t.id for t in world.live()} == old

    def test_what_may_run_once_is_given_up_with_its_host(self) -> None:
        world = steady(hosts=2, desired=1)
        [old] = world.live()
        assert old.instance_id is not None
        world.tasks[old.id] = replace(old, spec=at_most_once(old.spec, 60.0))
        world.silence(old.instance_id)
        world.run(100)
        lost = world.tasks[old.id]
        assert lost.lost_at == 1090.0
        # What its host has not begun of it by now it must not begin on its return, nor compete with its replacement.
        assert lost.desired is DesiredStatus.STOPPED
        assert "has not been heard of for 60 s (homeport:lost-after)" in (lost.stopped_reason or "")
        [new] = world.live()
        world.unsilence(old.instance_id)
        world.run(30)
        assert [task.id for task in world.live()] == [new.id]
        assert world.tasks[old.id].status is TaskStatus.STOPPED

    def test_on_return_it_is_not_the_fullest_host_that_gives_way(self) -> None:
        world = steady(hosts=2, desired=4)
        old = {t.id for t in world.live()}
        world.add_host()
        world.silence(InstanceId("host-0"))
        world.run(100)
        world.unsilence(InstanceId("host-0"))
        world.run(30)
        assert {t.id for t in world.live()} == old

    def test_a_host_is_heard_out_before_its_tasks_are_taken_back(self) -> None:
        world = steady(hosts=2, desired=2)
        world.silence(InstanceId("host-0"))
        world.run(100)
        world.unsilence(InstanceId("host-0"))
        world.machines[InstanceId("host-0")].heard_out = False
        world.decide()
        assert len(world.live()) == 2
        assert any(t.lost_at for t in world.tasks.values())

    def test_on_return_the_newer_revision_wins(self) -> None:
        world = steady(hosts=2, desired=2)
        lost = next(t for t in world.live() if t.instance_id == "host-0")
        world.silence(InstanceId("host-0"))
        world.run(100)
        world.deploy(Behaviour())
        world.run(60)
        # The deployment is complete without it, and its end is asked for.
        assert world.rollout() is RolloutState.COMPLETED
        assert world.service.deployments == ("ecs-svc/2",)
        assert world.tasks[lost.id].desired is DesiredStatus.STOPPED
        world.unsilence(InstanceId("host-0"))
        world.run(30)
        assert len(world.live("ecs-svc/2")) == len(world.live()) == 2
        assert world.tasks[lost.id].status is TaskStatus.STOPPED

    def test_a_drain_starts_elsewhere_first(self) -> None:
        world = steady(hosts=2, desired=2)
        moved = next(t for t in world.live() if t.instance_id == "host-0")
        world.machines[InstanceId("host-0")].draining = True
        world.reconcile()
        assert len(world.live()) == 3
        world.run(30)
        assert world.tasks[moved.id].stopped_reason == reasons.DRAINING
        assert [t.instance_id for t in world.live()] == ["host-1"] * 2

    def test_a_drain_without_room_goes_down_to_the_lower_bound_and_at_the_deadline_below(self) -> None:
        world = steady(hosts=2, desired=4, capacity=2, deployment_configuration=configuration(75, 200))
        machine = world.machines[InstanceId("host-0")]
        machine.draining, machine.drain_deadline_at = True, world.now + 100
        world.run(50)
        assert len(world.live()) == 3
        assert world.wake_at == machine.drain_deadline_at
        world.run(60)
        assert [t.instance_id for t in world.live()] == ["host-1"] * 2

    def test_a_drain_that_the_bounds_forbid_says_so(self) -> None:
        world = steady(hosts=2, desired=2, deployment_configuration=configuration(100, 100))
        world.machines[InstanceId("host-0")].draining = True
        world.run(60)
        assert world.events == [STUCK]
        assert len(world.live()) == 2
        # Once it has been steady again, it is news.
        for draining in (False, True):
            world.machines[InstanceId("host-0")].draining = draining
            world.run(60)
        assert world.events == [STUCK, "has reached a steady state.", STUCK]

    def test_what_is_still_pending_on_a_draining_host_is_stopped_at_once(self) -> None:
        world = World(hosts=2, desired=2)
        world.decide()
        world.machines[InstanceId("host-0")].draining = True
        assert [s.reason for s in stops(world)] == [reasons.DRAINING]

    def test_a_rebalance_starts_first_and_respects_protection(self) -> None:
        world = steady(hosts=1, desired=2)
        first, second = world.live()
        world.add_host()
        world.protect(second.id, 1000)
        world.moves = frozenset({first.id, second.id})
        [start] = starts(world)
        assert (start.count, set(start.avoid)) == (1, {first.instance_id})
        world.run(60)
        assert world.tasks[first.id].status is TaskStatus.STOPPED
        assert {t.instance_id for t in world.live()} == {"host-0", "host-1"}

    def test_a_rebalance_waits_for_the_end_of_a_deployment(self) -> None:
        world = World(hosts=2, desired=2, behaviour=Behaviour(kind="hangs"))
        world.reconcile()
        world.moves = frozenset(task.id for task in world.live())
        assert decide(world.snapshot(), world.now).actions == ()

    def test_a_rebalance_never_stops_first(self) -> None:
        world = steady(hosts=1, desired=2, deployment_configuration=configuration(0, 100))
        world.add_host()
        world.moves = frozenset({world.live()[0].id})
        world.run(60)
        assert len(world.tasks) == 2

    def test_a_short_silence_is_no_time_to_call_a_task_healthy(self) -> None:
        world = World(hosts=1, desired=1)
        world.decide()
        world.agents()
        world.agents()
        world.silence(InstanceId("host-0"))
        world.now += 30
        world.decide()
        assert world.live()[0].healthy_at is None
        world.unsilence(InstanceId("host-0"))
        world.decide()
        assert world.live()[0].healthy_at is not None

    def test_outdated_tasks_on_a_draining_host_go_within_the_bounds(self) -> None:
        world = steady(hosts=2, desired=2, deployment_configuration=configuration(50, 100))
        world.deploy(Behaviour())
        world.machines[InstanceId("host-0")].draining = True
        world.run(120)
        assert world.rollout() is RolloutState.COMPLETED
        assert [t.instance_id for t in world.live("ecs-svc/2")] == ["host-1"] * 2


class TestEnd:
    def test_a_deleted_service_stops_everything_and_then_is_inactive(self) -> None:
        world = steady(hosts=2, desired=2)
        world.protect(world.live()[0].id, 1e6)
        world.silence(InstanceId("host-1"))
        world.run(100)
        world.service = replace(world.service, status="DRAINING", desired_count=0)
        world.run(30)
        assert world.live() == []
        assert (world.service.status, world.service.deployments) == ("INACTIVE", ())
        assert world.service.deleted_at is not None
        world.unsilence(InstanceId("host-1"))
        world.run(30)
        assert all(t.status is TaskStatus.STOPPED and t.settled for t in world.tasks.values())
