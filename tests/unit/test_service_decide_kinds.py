"""The service reconciler's rules for DAEMON services, task sets, lifecycle hooks, and requests."""

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.services.deciding.decide import decide
from controlplane.services.model import DropTaskSet, Start, Stop, Timing
from controlplane.state.service_records import RolloutState, ServiceDeploymentStatus, TaskSetRecord
from homeport import reasons
from homeport.ids import InstanceId, TaskId
from homeport.status import DesiredStatus, HealthStatus, TaskStatus
from tests.fakes.service_world import Behaviour, World

HOST0 = InstanceId("host-0")


def daemon(**arguments: Any) -> World:
    world = World(desired=0, scheduling_strategy="DAEMON", **arguments)
    world.run(30)
    assert world.rollout() is RolloutState.COMPLETED
    world.events.clear()
    return world


def hosts_of(world: World) -> list[str]:
    return sorted(str(task.instance_id) for task in world.live())


def of_kind(world: World, kind: type[Any]) -> list[Any]:
    return [action for action in decide(world.snapshot(), world.now).actions if isinstance(action, kind)]


class TestDaemon:
    def test_each_eligible_host_has_one_task(self) -> None:
        world = daemon(hosts=3)
        assert hosts_of(world) == ["host-0", "host-1", "host-2"]
        assert world.service.desired_count == 3

    def test_a_host_that_joins_gets_one(self) -> None:
        world = daemon(hosts=1)
        world.add_host()
        world.run(30)
        assert hosts_of(world) == ["host-0", "host-1"]
        assert world.service.desired_count == 2
        assert world.events == ["has reached a steady state."]

    def test_a_dead_one_is_replaced_on_its_host(self) -> None:
        world = daemon(hosts=2)
        world.kill(world.live()[0].id)
        [start] = of_kind(world, Start)
        assert (start.host, start.count, start.replaces) == ("host-0", 1, None)

    def test_an_update_prepares_on_each_host_and_stops_first(self) -> None:
        world = daemon(hosts=3)
        world.deploy(Behaviour())
        found = of_kind(world, Start)
        assert {(s.host, s.replaces) for s in found} == {(t.instance_id, t.id) for t in world.live()}
        most: list[int] = []
        world.on_decision = lambda s, d: most.append(max(map(hosts_of(world).count, hosts_of(world)), default=0))
        world.run(60)
        assert max(most) == 1
        assert len(world.live("ecs-svc/2")) == 3
        assert world.rollout() is RolloutState.COMPLETED

    @pytest.mark.parametrize(("minimum", "at_a_time"), [(50, 2), (75, 1), (25, 3)])
    def test_at_most_so_many_hosts_at_a_time(self, minimum: int, at_a_time: int) -> None:
        world = daemon(hosts=4, deployment_configuration={"minimumHealthyPercent": minimum, "maximumPercent": 100})
        world.deploy(Behaviour())
        assert len(of_kind(world, Start)) == at_a_time
        lows: list[int] = []
        world.on_decision = lambda s, d: lows.append(
            sum(t.healthy_at is not None and t.desired is DesiredStatus.RUNNING for t in s.tasks)
        )
        world.run(120)
        assert min(lows) == 4 - at_a_time
        assert world.rollout() is RolloutState.COMPLETED

    def test_a_host_that_is_no_longer_eligible_loses_its_task(self) -> None:
        world = daemon(hosts=2)
        snapshot = replace(world.snapshot(), eligible=frozenset({HOST0}))
        [stop] = [a for a in decide(snapshot, world.now).actions if isinstance(a, Stop)]
        assert world.tasks[stop.task_id].instance_id == "host-1"

    def test_on_a_draining_host_it_goes_last_or_at_the_deadline(self) -> None:
        world = daemon(hosts=2)
        machine = world.machines[HOST0]
        machine.draining, machine.last_of_host, machine.drain_deadline_at = True, False, world.now + 50
        assert of_kind(world, Stop) == []
        assert decide(world.snapshot(), world.now).wake_at == world.now + 50
        machine.last_of_host = True
        assert [stop.reason for stop in of_kind(world, Stop)] == [reasons.DRAINING]
        machine.last_of_host = False
        world.run(60)
        assert hosts_of(world) == ["host-1"]

    def test_a_silence_costs_nothing_and_after_the_return_there_is_one(self) -> None:
        world = daemon(hosts=2)
        before = {t.id for t in world.live()}
        world.silence(HOST0)
        world.run(50)
        assert {t.id for t in world.live()} == before
        assert world.service.desired_count == 2
        world.run(50)
        assert hosts_of(world) == ["host-1"]
        assert world.service.desired_count == 1
        world.unsilence(HOST0)
        world.machines[HOST0].heard_out = False
        assert of_kind(world, Start) == []
        world.machines[HOST0].heard_out = True
        world.run(30)
        assert {t.id for t in world.live()} == before

    def test_a_silent_host_without_a_task_waits_for_its_place(self) -> None:
        world = daemon(hosts=1)
        joined = world.add_host()
        world.silence(joined)
        snapshot = replace(world.snapshot(), eligible=frozenset({HOST0, joined}))
        assert not any(isinstance(action, Start) for action in decide(snapshot, world.now).actions)

    def test_when_a_host_returns_the_protected_one_stays(self) -> None:
        world = daemon(hosts=1)
        [first] = world.live()
        second = replace(first, id=TaskId("task-99999"), running_at=world.now, protected_until=world.now + 100)
        world.tasks[second.id] = second
        assert [stop.task_id for stop in of_kind(world, Stop)] == [first.id]

    def test_a_sick_one_is_stopped_and_replaced(self) -> None:
        world = daemon(hosts=2, behaviour=Behaviour(check=True))
        sick = world.live()[0]
        world.set_health(sick.id, HealthStatus.UNHEALTHY)
        world.run(30)
        assert world.tasks[sick.id].stopped_reason == reasons.FAILED_HEALTH_CHECKS
        assert hosts_of(world) == ["host-0", "host-1"]


def a_set(world: World, number: int, scale: float) -> TaskSetRecord:
    task_set = TaskSetRecord(
        id=f"ecs-svc/set{number}",
        service_id=world.service.id,
        service=world.service.key,
        created_at=world.now,
        updated_at=world.now,
        task_definition="web:1",
        scale_percent=scale,
    )
    world.task_sets[task_set.id] = task_set
    world.behaviours[task_set.id] = Behaviour()
    return task_set


class TestTaskSets:
    @pytest.mark.parametrize(("desired", "scale", "count"), [(3, 50, 2), (10, 33.4, 4), (4, 100, 4), (4, 0, 0)])
    def test_a_set_has_its_share_rounded_up(self, desired: int, scale: float, count: int) -> None:
        world = World(desired=desired, controller="EXTERNAL")
        task_set = a_set(world, 1, scale)
        world.run(30)
        assert len(world.live(task_set.id)) == count
        assert world.task_sets[task_set.id].stability == "STEADY_STATE"

    def test_sets_do_not_replace_each_other(self) -> None:
        world = World(desired=4, controller="EXTERNAL")
        blue = a_set(world, 1, 100)
        world.run(30)
        green = a_set(world, 2, 50)
        world.run(30)
        assert (len(world.live(blue.id)), len(world.live(green.id))) == (4, 2)
        assert f"(taskSet {green.id}) has reached a steady state." in world.events

    def test_scaling_makes_it_stabilizing_until_it_is_done(self) -> None:
        world = World(desired=4, controller="EXTERNAL")
        task_set = a_set(world, 1, 100)
        world.run(30)
        world.task_sets[task_set.id] = replace(world.task_sets[task_set.id], scale_percent=25.0)
        world.decide()
        assert world.task_sets[task_set.id].stability == "STABILIZING"
        world.run(30)
        assert world.task_sets[task_set.id].stability == "STEADY_STATE"
        assert len(world.live()) == 1

    def test_a_deleted_set_drains_and_vanishes(self) -> None:
        world = World(desired=2, controller="EXTERNAL")
        task_set = a_set(world, 1, 100)
        world.run(30)
        world.task_sets[task_set.id] = replace(world.task_sets[task_set.id], status="DRAINING")
        world.decide()
        assert of_kind(world, DropTaskSet) == []
        world.run(30)
        assert world.task_sets == {}
        assert world.live() == []

    def test_its_failures_back_off(self) -> None:
        world = World(desired=1, controller="EXTERNAL")
        task_set = a_set(world, 1, 100)
        world.behaviours[task_set.id] = Behaviour(kind="crashes")
        world.run(0.5)
        failing = world.task_sets[task_set.id]
        assert (failing.failed_tasks, failing.retry_at) == (4, world.now + 0.5)

    def test_tasks_of_no_set_are_stopped(self) -> None:
        world = World(desired=1, controller="EXTERNAL")
        task_set = a_set(world, 1, 100)
        world.run(30)
        del world.task_sets[task_set.id]
        assert len(of_kind(world, Stop)) == 1


def hooked(*stages: str, **timeout: Any) -> World:
    hook = {"targetType": "PAUSE", "lifecycleStages": list(stages), "timeoutConfiguration": timeout}
    world = World(desired=2)
    world.run(30)
    configuration = {"minimumHealthyPercent": 100, "maximumPercent": 200, "lifecycleHooks": [hook]}
    world.service = replace(world.service, deployment_configuration=configuration)
    world.deploy(Behaviour())
    world.events.clear()
    return world


def proceed(world: World, status: str = "SUCCEEDED") -> None:
    """Do what ContinueServiceDeployment does."""
    primary = world.primary
    hooks = tuple(replace(h, status=status) if h.status == "AWAITING_ACTION" else h for h in primary.hooks)
    world.deployments[primary.id] = replace(primary, hooks=hooks)


class TestHooks:
    def test_before_scaling_up_nothing_is_started(self) -> None:
        world = hooked("PRE_SCALE_UP")
        world.run(3000)
        assert world.live("ecs-svc/2") == []
        assert world.primary.lifecycle_stage == "PRE_SCALE_UP"
        [hook] = world.primary.hooks
        assert (hook.stage, hook.status, hook.timeout_action) == ("PRE_SCALE_UP", "AWAITING_ACTION", "ROLLBACK")
        assert len(world.events) == 1
        proceed(world)
        world.run(60)
        assert world.rollout() is RolloutState.COMPLETED
        assert len(world.live("ecs-svc/2")) == 2

    def test_what_dies_while_it_waits_to_start_is_replaced_by_its_like(self) -> None:
        world = hooked("PRE_SCALE_UP")
        world.run(10)
        world.kill(world.live()[0].id)
        world.run(30)
        assert len(world.live("ecs-svc/1")) == len(world.live()) == 2
        proceed(world)
        world.run(60)
        assert len(world.live("ecs-svc/2")) == len(world.live()) == 2

    def test_after_scaling_up_the_old_tasks_stay(self) -> None:
        world = hooked("POST_SCALE_UP")
        world.run(3000)
        assert (len(world.live("ecs-svc/1")), len(world.live("ecs-svc/2"))) == (2, 2)
        assert world.primary.lifecycle_stage == "POST_SCALE_UP"
        proceed(world)
        world.run(60)
        assert world.live("ecs-svc/1") == []
        assert world.rollout() is RolloutState.COMPLETED

    def test_of_the_old_tasks_no_more_stay_than_are_desired(self) -> None:
        world = hooked("POST_SCALE_UP")
        world.run(3000)
        world.scale(1)
        world.run(30)
        assert (len(world.live("ecs-svc/1")), len(world.live("ecs-svc/2"))) == (1, 1)

    def test_a_drain_that_the_bounds_forbid_says_so_before_the_hook_is_reached(self) -> None:
        world = World(desired=1, hosts=2)
        hook = {"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]}
        bounds = {"minimumHealthyPercent": 100, "maximumPercent": 150}
        world.service = replace(world.service, deployment_configuration={**bounds, "lifecycleHooks": [hook]})
        world.run(2)
        world.machines[HOST0].draining = True
        world.run(60)
        assert len(world.live()) == 1
        assert sum("because of the service deployment configuration" in event for event in world.events) == 1

    def test_a_drained_host_gives_up_the_place_that_the_new_revision_needs_to_come_to_the_hook(self) -> None:
        world = hooked("POST_SCALE_UP")
        bounds = {"minimumHealthyPercent": 50, "maximumPercent": 100}
        world.service = replace(world.service, deployment_configuration=world.service.deployment_configuration | bounds)
        world.machines[HOST0].draining = True
        world.run(60)
        assert world.primary.lifecycle_stage == "POST_SCALE_UP"
        assert HOST0 not in hosts_of(world)
        assert len(world.live("ecs-svc/2")) == 2

    def test_at_the_end_the_deployment_is_not_complete(self) -> None:
        world = hooked("POST_PRODUCTION_TRAFFIC_SHIFT")
        world.run(3000)
        assert len(world.live("ecs-svc/2")) == len(world.live()) == 2
        assert world.rollout() is RolloutState.IN_PROGRESS
        proceed(world)
        world.run(10)
        assert world.rollout() is RolloutState.COMPLETED

    def test_stages_are_passed_one_after_another(self) -> None:
        world = hooked("PRE_SCALE_UP", "POST_SCALE_UP")
        passed: list[str] = []
        while world.rollout() is RolloutState.IN_PROGRESS:
            world.run(60)
            passed += [hook.stage for hook in world.primary.hooks if hook.status == "AWAITING_ACTION"]
            proceed(world)
        assert passed == ["PRE_SCALE_UP", "POST_SCALE_UP"]

    def test_in_time_it_rolls_back(self) -> None:
        world = hooked("POST_SCALE_UP", timeoutInMinutes=5, action="ROLLBACK")
        world.run(200)
        assert world.primary.id == "ecs-svc/2"
        world.run(200)
        assert world.primary.rollback_of == "ecs-svc/2"
        assert world.rollout() is RolloutState.COMPLETED
        assert "timed out" in world.deployments["ecs-svc/2"].rollback_reason

    def test_in_time_it_goes_on_if_that_is_asked(self) -> None:
        world = hooked("PRE_SCALE_UP", timeoutInMinutes=5, action="CONTINUE")
        world.run(400)
        assert world.primary.id == "ecs-svc/2"
        assert world.rollout() is RolloutState.COMPLETED

    @pytest.mark.parametrize("wait_s", [590, 5000])
    def test_the_progress_deadline_does_not_run_while_it_waits(self, wait_s: float) -> None:
        world = hooked("PRE_SCALE_UP")
        breaker = {**world.service.deployment_configuration, "deploymentCircuitBreaker": {"enable": True}}
        world.service = replace(world.service, deployment_configuration=breaker)
        world.timing = Timing(min_healthy_s=30, progress_deadline_s=600)
        world.run(wait_s)
        proceed(world)
        world.run(60)
        assert world.rollout() is RolloutState.COMPLETED


class TestRequests:
    def test_a_rollback_on_request(self) -> None:
        world = World(desired=2)
        world.run(30)
        world.deploy(Behaviour(kind="hangs"))
        world.reconcile()
        world.deployments["ecs-svc/2"] = replace(world.primary, status=ServiceDeploymentStatus.ROLLBACK_REQUESTED)
        world.run(60)
        assert world.primary.rollback_of == "ecs-svc/2"
        assert world.deployments["ecs-svc/2"].status is ServiceDeploymentStatus.ROLLBACK_SUCCESSFUL
        assert len(world.live("ecs-svc/3")) == 2

    def test_a_stop_on_request_leaves_everything(self) -> None:
        world = World(desired=2)
        world.run(30)
        world.deploy(Behaviour(kind="hangs"))
        world.reconcile()
        world.deployments["ecs-svc/2"] = replace(world.primary, status=ServiceDeploymentStatus.STOP_REQUESTED)
        world.run(60)
        assert world.primary.id == "ecs-svc/2"
        assert (world.rollout(), world.primary.status) == (RolloutState.FAILED, ServiceDeploymentStatus.STOPPED)
        assert len(world.live("ecs-svc/1")) == 2
        assert all(task.status is TaskStatus.RUNNING for task in world.live("ecs-svc/1"))
