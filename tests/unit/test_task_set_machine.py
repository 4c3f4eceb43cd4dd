"""Task sets under random scaling, failures and hosts: each has its share, and a deleted one is gone."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import replace

from controlplane.services.deciding.task_sets import computed_count
from controlplane.state.service_records import TaskSetRecord
from homeport.status import TaskStatus
from tests.fakes.service_world import Behaviour, World

SCALES = st.sampled_from([0.0, 12.5, 33.4, 50.0, 100.0])


class TaskSetMachine(RuleBasedStateMachine):
    """Random lives of a service with the EXTERNAL deployment controller."""

    world: World

    @initialize(desired=st.integers(0, 6), hosts=st.integers(2, 3))
    def begin(self, desired: int, hosts: int) -> None:
        self.world = World(hosts=hosts, desired=desired, controller="EXTERNAL")
        self._made = 0

    @rule(scale=SCALES, check=st.booleans())
    def create(self, scale: float, check: bool) -> None:
        if len(self.world.task_sets) < 3:
            self._made += 1
            service = self.world.service
            task_set = TaskSetRecord(
                id=f"ecs-svc/set{self._made}",
                service_id=service.id,
                service=service.key,
                created_at=self.world.now,
                updated_at=self.world.now,
                task_definition="web:1",
                scale_percent=scale,
            )
            self.world.task_sets[task_set.id] = task_set
            self.world.behaviours[task_set.id] = Behaviour(check=check)

    @rule(data=st.data(), scale=SCALES)
    def rescale(self, data: st.DataObject, scale: float) -> None:
        if (task_set := self._any(data)) is not None:
            self.world.task_sets[task_set.id] = replace(task_set, scale_percent=scale)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if (task_set := self._any(data)) is not None:
            self.world.task_sets[task_set.id] = replace(task_set, status="DRAINING")

    @rule(desired=st.integers(0, 6))
    def set_desired_count(self, desired: int) -> None:
        self.world.scale(desired)

    @rule(data=st.data())
    def container_exits(self, data: st.DataObject) -> None:
        running = sorted(t.id for t in self.world.tasks.values() if t.status is TaskStatus.RUNNING)
        if running:
            self.world.kill(data.draw(st.sampled_from(running)))

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        machine = self.world.machines[data.draw(st.sampled_from(sorted(self.world.machines)))]
        machine.draining = not machine.draining

    @rule(seconds=st.floats(0.1, 60))
    def all_work_for_a_while(self, seconds: float) -> None:
        self.world.run(seconds, rounds=3000)

    def teardown(self) -> None:
        """Let everything settle, with hosts to run on, and look at what is there."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for machine in world.machines.values():
            machine.draining = False
        world.run(2000, rounds=10_000)
        assert world.decide().actions == ()
        for task_set in world.task_sets.values():
            assert (task_set.status, task_set.stability) == ("ACTIVE", "STEADY_STATE")
            assert len(world.live(task_set.id)) == computed_count(world.service, task_set)
        assert {task.started_by for task in world.live()} <= set(world.task_sets)
        assert all(count == 1 for count in world.settled.values())

    def _any(self, data: st.DataObject) -> TaskSetRecord | None:
        ids = sorted(self.world.task_sets)
        return self.world.task_sets[data.draw(st.sampled_from(ids))] if ids else None


TaskSetMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTaskSets = TaskSetMachine.TestCase
