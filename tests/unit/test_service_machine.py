"""The service reconciler under random services, updates, failures, hosts and agents: what must hold, always.

After each decision: its starts keep within maximumPercent, its stops within minimumHealthyPercent; no rollback is
rolled back. Statuses that go back, tasks settled twice or stopped twice are refused by the world itself. When it has
come to rest: deciding again changes nothing, and the service has what it should, wherever there is room.

60 lives are tried; `make test-slow` tries the same 3,000 each time, or as many others as HOMEPORT_EXAMPLES says.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from controlplane.services.deciding import census
from controlplane.services.deciding.bounds import bounds_of
from controlplane.services.model import Decision, Lose, MarkHealthy, Release, Return, Snapshot, Start, Stop
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import RolloutState, ServiceDeploymentStatus
from homeport.ids import InstanceId, TaskId
from homeport.status import HealthStatus, TaskStatus
from tests.fakes.service_world import Behaviour, World

GOOD = st.builds(Behaviour, check=st.booleans(), port=st.booleans())
BAD = st.sampled_from(
    [
        Behaviour(kind="crashes"),
        Behaviour(kind="sick", check=True),
        Behaviour(kind="hopeless"),
        Behaviour(kind="hangs"),
        Behaviour(lacking=frozenset({"host-0"})),
    ]
)
PERCENTS = st.sampled_from([(100, 200), (100, 150), (100, 100), (50, 200), (50, 100), (0, 100), (34, 134)])
#: What the API accepts for a DAEMON.
DAEMON_PERCENTS = st.sampled_from([(0, 100), (50, 100), (34, 100), (99, 100)])
BREAKERS = st.sampled_from([{}, {"enable": True, "rollback": True}, {"enable": True, "rollback": False}])
STAGES = ["PRE_SCALE_UP", "POST_SCALE_UP", "POST_PRODUCTION_TRAFFIC_SHIFT"]
#: Longer than any protection, deadline or silence here.
LONG = 4000.0


class ServiceMachine(RuleBasedStateMachine):
    """Random lives of one service."""

    world: World

    @initialize(
        desired=st.integers(0, 5),
        hosts=st.integers(1, 4),
        capacity=st.integers(1, 4),
        behaviour=GOOD,
        percents=PERCENTS,
        daemon_percents=DAEMON_PERCENTS,
        breaker=BREAKERS,
        given=st.booleans(),
        daemon=st.booleans(),
        stages=st.lists(st.sampled_from(STAGES), max_size=2),
        action=st.sampled_from(["CONTINUE", "ROLLBACK"]),
    )
    def begin(
        self,
        desired: int,
        hosts: int,
        capacity: int,
        behaviour: Behaviour,
        percents: tuple[int, int],
        daemon_percents: tuple[int, int],
        breaker: dict[str, Any],
        given: bool,
        daemon: bool,
        stages: list[str],
        action: str,
    ) -> None:
        timeout = {"timeoutInMinutes": 5, "action": action}
        hook = {"targetType": "PAUSE", "lifecycleStages": stages, "timeoutConfiguration": timeout}
        configuration = {**_bounds(daemon_percents if daemon else percents), "lifecycleHooks": [hook]}
        self.world = World(
            hosts=hosts,
            desired=0 if daemon else desired,
            capacity=capacity,
            behaviour=behaviour,
            scheduling_strategy="DAEMON" if daemon else "REPLICA",
            deployment_configuration={**configuration, "deploymentCircuitBreaker": breaker},
            given=("minimumHealthyPercent", "maximumPercent") if given else (),
        )
        self.world.on_decision = check_decision

    # ------------------------------------------------------------ people

    @rule(behaviour=st.one_of(GOOD, BAD))
    def update(self, behaviour: Behaviour) -> None:
        self.world.deploy(behaviour)

    @precondition(lambda self: self.world.service.scheduling_strategy == "REPLICA")
    @rule(desired=st.integers(0, 6))
    def scale(self, desired: int) -> None:
        self.world.scale(desired)

    @rule(data=st.data(), seconds=st.floats(1, 500))
    def protect(self, data: st.DataObject, seconds: float) -> None:
        if live := self.world.live():
            self.world.protect(data.draw(st.sampled_from(sorted(t.id for t in live))), seconds)

    @rule(percents=PERCENTS, daemon_percents=DAEMON_PERCENTS)
    def configure(self, percents: tuple[int, int], daemon_percents: tuple[int, int]) -> None:
        daemon = self.world.service.scheduling_strategy == "DAEMON"
        configuration = self.world.service.deployment_configuration | _bounds(daemon_percents if daemon else percents)
        self.world.service = replace(self.world.service, deployment_configuration=configuration)

    @precondition(lambda self: self.world.rollout() is RolloutState.IN_PROGRESS)
    @rule(status=st.sampled_from(["STOP_REQUESTED", "ROLLBACK_REQUESTED"]))
    def end_deployment(self, status: str) -> None:
        primary = replace(self.world.primary, status=ServiceDeploymentStatus(status))
        self.world.deployments[primary.id] = primary

    @precondition(lambda self: any(hook.status == "AWAITING_ACTION" for hook in self.world.primary.hooks))
    @rule(status=st.sampled_from(["SUCCEEDED", "FAILED"]))
    def resolve_hook(self, status: str) -> None:
        primary = self.world.primary
        hooks = tuple(replace(h, status=status) if h.status == "AWAITING_ACTION" else h for h in primary.hooks)
        self.world.deployments[primary.id] = replace(primary, hooks=hooks)

    @rule(data=st.data())
    def rebalance(self, data: st.DataObject) -> None:
        live = sorted(task.id for task in self.world.live())
        self.world.moves = frozenset(data.draw(st.lists(st.sampled_from(live), max_size=2))) if live else frozenset()

    # ------------------------------------------------------------ hosts

    @precondition(lambda self: len(self.world.machines) < 6)
    @rule(capacity=st.integers(1, 4))
    def host_joins(self, capacity: int) -> None:
        self.world.add_host(capacity)

    @rule(data=st.data(), deadline=st.one_of(st.none(), st.floats(1, 300)), last=st.booleans())
    def drain(self, data: st.DataObject, deadline: float | None, last: bool) -> None:
        machine = self.world.machines[self._host(data)]
        machine.draining = not machine.draining
        machine.last_of_host = last
        machine.drain_deadline_at = None if deadline is None else self.world.now + deadline

    @rule(data=st.data())
    def silence(self, data: st.DataObject) -> None:
        host = self._host(data)
        if self.world.machines[host].silent_since is None:
            self.world.silence(host)

    @rule(data=st.data(), heard_out=st.booleans(), rebooted=st.booleans())
    def come_back(self, data: st.DataObject, heard_out: bool, rebooted: bool) -> None:
        host = self._host(data)
        silent = self.world.machines[host].silent_since is not None
        self.world.unsilence(host)
        for task in list(self.world.tasks.values()):
            if rebooted and silent and task.instance_id == host and task.status < TaskStatus.STOPPED:
                self.world.kill(task.id)
        self.world.machines[host].heard_out = heard_out

    # ------------------------------------------------------------ tasks and time

    @rule(data=st.data())
    def container_exits(self, data: st.DataObject) -> None:
        if running := self._running():
            self.world.kill(data.draw(st.sampled_from(running)))

    @rule(data=st.data())
    def health_check_fails(self, data: st.DataObject) -> None:
        checked = [t for t in self._running() if census.has_check(self.world.tasks[t])]
        if checked:
            self.world.set_health(data.draw(st.sampled_from(checked)), HealthStatus.UNHEALTHY)

    @rule(data=st.data())
    def some_agents_work(self, data: st.DataObject) -> None:
        for task in list(self.world.tasks.values()):
            reachable = task.instance_id and self.world.machines[task.instance_id].silent_since is None
            if reachable and task.status is not TaskStatus.STOPPED and data.draw(st.booleans()):
                self.world.step(task)

    @rule()
    def decide_once(self) -> None:
        self.world.decide()

    @rule(seconds=st.floats(0.1, 100))
    def all_work_for_a_while(self, seconds: float) -> None:
        self.world.run(seconds, rounds=3000)

    # ------------------------------------------------------------ what holds

    @invariant()
    def no_rollback_is_rolled_back(self) -> None:
        for deployment in self.world.deployments.values():
            if deployment.rollback_of:
                assert not self.world.deployments[deployment.rollback_of].rollback_of

    def teardown(self) -> None:
        """Let everything settle, and look at what is there."""
        if hasattr(self, "world"):
            check_rest(self.world)
            check_deletion(self.world)

    def _host(self, data: st.DataObject) -> InstanceId:
        return data.draw(st.sampled_from(sorted(self.world.machines)))

    def _running(self) -> list[TaskId]:
        return [
            task.id
            for task in self.world.tasks.values()
            if task.status is TaskStatus.RUNNING
            and task.instance_id
            and self.world.machines[task.instance_id].silent_since is None
        ]


def _bounds(percents: tuple[int, int]) -> dict[str, int]:
    return {"minimumHealthyPercent": percents[0], "maximumPercent": percents[1]}


def check_decision(snapshot: Snapshot, decision: Decision) -> None:
    """Hold a decision against the bounds, reckoned from the snapshot by other means than the decision's own."""
    tasks = {task.id: task for task in snapshot.tasks}
    started = 0
    stopped: set[TaskId] = set()
    for action in decision.actions:
        match action:
            case Lose():
                tasks[action.task_id] = replace(tasks[action.task_id], lost_at=1.0)
            case Return():
                tasks[action.task_id] = replace(tasks[action.task_id], lost_at=None)
            case MarkHealthy():
                tasks[action.task_id] = replace(tasks[action.task_id], healthy_at=action.at)
            case Start() if action.replaces is None:
                started += action.count
            case Release():
                started += 1
            case Stop():
                stopped.add(action.task_id)
    desired = len(places(snapshot)) if snapshot.service.scheduling_strategy == "DAEMON" else None
    check_upper(snapshot, list(tasks.values()), started, desired)
    check_lower(snapshot, tasks, stopped, desired)


def places(snapshot: Snapshot) -> set[InstanceId]:
    """The hosts that a DAEMON should be on: those that are eligible, and silent ones with a task."""
    silent = {t.instance_id for t in snapshot.tasks if t.instance_id and census.is_live(t)}
    unknown = {h for h in silent if snapshot.hosts[h].lost_at is not None and not snapshot.hosts[h].draining}
    return set(snapshot.eligible) | unknown


def check_upper(snapshot: Snapshot, tasks: list[TaskRecord], started: int, daemons: int | None) -> None:
    if daemons is not None:
        tasks = [task for task in tasks if task.instance_id in places(snapshot)]
    desired = snapshot.service.desired_count if daemons is None else daemons
    occupied = sum(map(census.occupies, tasks))
    assert not started or occupied + started <= bounds_of(snapshot.service, desired).upper


def check_lower(snapshot: Snapshot, tasks: dict[TaskId, TaskRecord], stopped: set[TaskId], daemons: int | None) -> None:
    counted = [t for t in tasks.values() if census.is_live(t) and census.looks_healthy(t)]
    if daemons is not None:
        counted = [task for task in counted if task.instance_id in places(snapshot)]
    drained = {h.id for h in snapshot.hosts.values() if h.draining and h.drain_deadline_at is not None}
    forced = [t for t in counted if t.id in stopped and t.instance_id in drained]
    lost = [t for t in counted if t.id in stopped and t not in forced]
    desired = snapshot.service.desired_count if daemons is None else daemons
    lower = bounds_of(snapshot.service, desired).lower
    primary = snapshot.deployments[0]
    prepared = any(task.replaces and census.is_prepared(task) for task in snapshot.tasks)
    in_own_way = (snapshot.blocked is not None and snapshot.blocked.by_own_tasks) or (primary.in_own_way and prepared)
    if in_own_way and "minimumHealthyPercent" not in snapshot.service.given:
        lower = min(lower, max(0, desired - 1))
    assert not lost or len(counted) - len(lost) - len(forced) >= min(lower, len(counted) - len(forced))


def check_rest(world: World) -> None:
    """Check what a service has when nothing disturbs it any more."""
    for machine in world.machines.values():
        machine.heard_out = machine.silent_since is None
        machine.last_of_host = True
    world.moves = frozenset()
    for _ in range(4):
        world.run(LONG / 4, rounds=20_000)
    decision = world.decide()
    assert all(isinstance(action, Start) for action in decision.actions), decision
    assert all(count == 1 for count in world.settled.values())
    behaviour = world.behaviours[world.primary.revision]
    works = behaviour.kind == "runs" and not behaviour.lacking
    if world.rollout() is RolloutState.FAILED:
        assert world.primary.finished_at is not None or world.primary.rollback_at is not None
        return
    if world.rollout() is RolloutState.IN_PROGRESS:
        assert world.wake_at is not None or world.blocked is not None or "stuck" in world.primary.warned_at
    open_hosts = [m for m in world.machines.values() if m.silent_since is None and not m.draining]
    if world.service.scheduling_strategy == "DAEMON":
        check_daemons(world, {m.id for m in open_hosts}, works=works)
        return
    desired = world.service.desired_count
    done = world.rollout() is RolloutState.COMPLETED
    assert len(world.live()) <= (desired if done else bounds_of(world.service, desired).upper)
    room = sum(1 if behaviour.port else m.capacity for m in open_hosts)
    if works and room >= desired:
        assert len(world.live()) == desired
        if may_complete(world, spacious=room >= 2 * desired and not behaviour.port):
            assert world.rollout() is RolloutState.COMPLETED
            assert world.primary.steady
            assert world.service.deployments == (world.primary.id,)


def may_complete(world: World, *, spacious: bool) -> bool:
    """Whether the bounds leave a way to replace tasks, given that what works has enough room to run."""
    bounds = bounds_of(world.service, world.service.desired_count)
    if bounds.lower < world.service.desired_count:
        return True
    return bounds.upper > world.service.desired_count and (spacious or not world.service.given)


def check_deletion(world: World) -> None:
    """A deleted service ends INACTIVE, with nothing left but what is lost."""
    world.service = replace(world.service, status="DRAINING", desired_count=0)
    world.on_decision = check_nothing_starts
    world.run(LONG, rounds=20_000)
    assert world.service.status == "INACTIVE"
    assert world.service.deployments == ()
    for machine in world.machines:
        world.unsilence(machine)
    world.run(LONG, rounds=20_000)
    assert all(task.settled for task in world.tasks.values())
    assert all(count == 1 for count in world.settled.values())


def check_nothing_starts(snapshot: Snapshot, decision: Decision) -> None:
    assert not any(isinstance(action, (Start, Release)) for action in decision.actions)


def check_daemons(world: World, hosts: set[InstanceId], *, works: bool) -> None:
    """Exactly one task on each eligible host, and none elsewhere."""
    on_hosts = sorted(str(task.instance_id) for task in world.live())
    assert set(on_hosts) <= hosts
    assert world.service.desired_count == len(hosts)
    if works:
        assert on_hosts == sorted(hosts)
        if may_complete(world, spacious=False):
            assert world.rollout() is RolloutState.COMPLETED
            assert world.primary.steady


ServiceMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestServices = ServiceMachine.TestCase


@pytest.mark.slow
def test_many_more_lives() -> None:
    lives = os.environ.get("HOMEPORT_EXAMPLES")
    many = settings(
        ServiceMachine.TestCase.settings, max_examples=int(lives or "3000"), derandomize=lives is None, database=None
    )
    run_state_machine_as_test(ServiceMachine, settings=many)
