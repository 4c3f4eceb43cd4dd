"""One task's life under every order of results, failures, events, restarts of the agent and waits: what always holds.

The machine drives `advance` as the runner does: it keeps a journal (the last state saved), loses whatever the runner
would lose when killed, and publishes a report only once its state is saved.
"""

import itertools
from typing import Any, Literal

from hypothesis import HealthCheck as Check
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from agent.task.messages import (
    Acked,
    Action,
    CancelPull,
    Create,
    Ensure,
    EnsureFailed,
    Fact,
    Failed,
    FailureKind,
    Inspect,
    Isolated,
    Pull,
    Refused,
    Resync,
    Start,
    Stop,
    Wanted,
)
from agent.task.model import TaskState, Verb, accepted, recovered, settled
from agent.task.report import report_of
from agent.task.step import advance
from homeport.protocol import TaskReport
from homeport.spec import ContainerSpec, Dependency, HealthCheck, RestartPolicy, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, TaskStatus
from tests.fakes.agent_host import assignment
from tests.fakes.task_world import World

_VERBS: dict[type[Any], Verb] = {
    Pull: Verb.PULL,
    Create: Verb.CREATE,
    Start: Verb.START,
    Stop: Verb.STOP,
    Inspect: Verb.INSPECT,
}
_CONDITIONS: st.SearchStrategy[Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]] = st.sampled_from(
    ["START", "COMPLETE", "SUCCESS", "HEALTHY"]
)
_ACTIONS: st.SearchStrategy[type[Action]] = st.sampled_from([Ensure, Pull, Create, Start, Start, Stop, Inspect])
_BEGINNINGS = st.sampled_from([DesiredStatus.RUNNING, DesiredStatus.RUNNING, DesiredStatus.PENDING])
_KINDS: st.SearchStrategy[FailureKind] = st.sampled_from(
    ["unavailable", "unavailable", "timeout", "timeout", "missing", "rejected"]
)


@st.composite
def specs(draw: st.DrawFn) -> TaskSpec:
    """Tasks of one to three containers, the later ones depending on earlier ones."""
    containers: list[ContainerSpec] = []
    for index in range(draw(st.integers(1, 3))):
        earlier = (
            draw(st.lists(st.sampled_from([c.name for c in containers]), unique=True, min_size=1)) if containers else []
        )
        depends_on = tuple(Dependency(container=name, condition=draw(_CONDITIONS)) for name in earlier)
        containers.append(
            ContainerSpec(
                name=f"c{index}",
                image="web:1",
                container_arn=f"arn:c{index}",
                essential=index == 0 or draw(st.booleans()),
                depends_on=depends_on,
                health_check=HealthCheck(command=("CMD", "true")),
                start_timeout_s=draw(st.sampled_from([None, 30])),
                restart_policy=RestartPolicy(
                    enabled=draw(st.booleans()),
                    attempt_period_s=draw(st.sampled_from([1, 60])),
                    ignored_exit_codes=(7,),
                ),
            )
        )
    return TaskSpec(task_arn="arn:t", cluster="default", family="f", revision=1, containers=tuple(containers))


class TaskLife(RuleBasedStateMachine):
    """See the module."""

    @initialize(spec=specs(), desired=_BEGINNINGS)
    def begin(self, spec: TaskSpec, desired: DesiredStatus) -> None:
        self.now = 1000.0
        self.world = World()
        self.flying: list[Action] = []
        self.reports: list[TaskReport] = []
        #: How many containers have ended by themselves.
        self.ends = 0
        self.state = accepted(assignment(spec, desired=desired), {c.name: c.name for c in spec.containers}, self.now)
        self.journal = settled(self.state)
        self.turn()

    @precondition(lambda self: self.state.over)
    @rule(spec=specs(), desired=_BEGINNINGS)
    def begin_another(self, spec: TaskSpec, desired: DesiredStatus) -> None:
        """A task that is over has little left to happen to it."""
        self.teardown()
        self.begin(spec, desired)

    # ------------------------------------------------------------ as the runner does

    def turn(self, *facts: Fact, crash: str = "") -> None:
        before = self.state
        step = advance(before, facts, self.now)
        again = advance(step.state, (), self.now)
        assert again.state == step.state, "stepping again without a fact changes nothing"
        assert not again.actions
        if crash == "before saving":
            # What may be repeated goes out while the journal is still being written, so it may have had its effect.
            for action in step.actions:
                if isinstance(action, Create | Pull | Ensure):
                    self.world.perform(action, step.state, self.now)
            self.flying.clear()
            self.state = recovered(self.journal)
            return self.turn()
        self.state, self.journal = step.state, settled(step.state)
        if self.state.seq > before.seq:
            self.publish(report_of(self.state))
        for action in step.actions:
            self.check_action(action)
            if isinstance(action, CancelPull):
                self.flying = [a for a in self.flying if not (isinstance(a, Pull) and a.container == action.container)]
            else:
                self.flying.append(action)
        return self.restart() if crash == "before acting" else None

    def check_action(self, action: Action) -> None:
        if self.state.stopping:
            assert isinstance(action, Stop | Inspect | CancelPull), f"{action} for a task that is to stop"
        if isinstance(action, Start):
            assert self.state.desired is DesiredStatus.RUNNING
            container = self.state.container(action.container)
            assert container.known >= ContainerStatus.CREATED, "created is in the journal before the start"
            assert container.restarting or not container.has_run
            if not container.restarting:
                self.check_dependencies(action.container)

    def check_dependencies(self, name: str) -> None:
        for dependency in self.state.spec.container(name).depends_on:
            box = self.world.boxes.get(dependency.container)
            known = self.state.container(dependency.container)
            assert known.has_run, "what is depended on has run"
            if dependency.condition == "SUCCESS":
                assert (known.known, known.exit_code) == (ContainerStatus.STOPPED, 0)
            if dependency.condition == "COMPLETE":
                assert known.known is ContainerStatus.STOPPED
            if dependency.condition == "HEALTHY":
                assert known.health is HealthStatus.HEALTHY
            assert box is None or box.starts > 0

    def publish(self, report: TaskReport) -> None:
        if self.reports:
            last = self.reports[-1]
            assert report.seq > last.seq
            assert report.status >= last.status, "a status only advances"
            assert last.status is not TaskStatus.STOPPED or report.stop_code == last.stop_code
            if last.stopped_reason is not None:
                assert report.stopped_reason == last.stopped_reason, "the first terminal reason wins"
            for old, new in zip(last.containers, report.containers, strict=True):
                assert new.status >= old.status
                if old.exit_code is not None:
                    assert new.exit_code == old.exit_code
        self.reports.append(report)

    def restart(self) -> None:
        """Kill the agent and start it again: what was in flight is lost, its effects may or may not have happened."""
        self.check_same_end()
        self.flying.clear()
        self.state = recovered(self.journal)
        self.turn()

    # ------------------------------------------------------------ what may happen

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), crash=st.sampled_from(["", "", "", "before saving", "before acting"]))
    def succeed(self, data: st.DataObject, crash: str) -> None:
        action = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        fact = self.world.perform(action, self.state, self.now)
        assert fact is not None
        self.turn(fact, crash=crash)

    @precondition(lambda self: self.flying)
    @rule(count=st.sampled_from([1, 2, 5, 20]))
    def go_well(self, count: int) -> None:
        """Let things go well for a while: how most tasks spend their lives."""
        for _ in range(count):
            if self.flying:
                fact = self.world.perform(self.flying.pop(0), self.state, self.now)
                assert fact is not None
                self.turn(fact)

    def until(self, kind: type[Action]) -> Action | None:
        """Let things go well until an action of this kind is in flight, and take it out; None if none comes."""
        for _ in range(40):
            for action in self.flying:
                if isinstance(action, kind):
                    self.flying.remove(action)
                    return action
            if not self.flying:
                return None
            fact = self.world.perform(self.flying.pop(0), self.state, self.now)
            assert fact is not None
            self.turn(fact)
        return None

    @rule(what=_ACTIONS, kind=_KINDS, effect=st.booleans(), then_stop=st.sampled_from([False, False, True]))
    def fail(self, what: type[Action], kind: FailureKind, effect: bool, then_stop: bool) -> None:
        action = self.until(what)
        if action is None:
            return
        if effect and kind in ("unavailable", "timeout"):
            self.world.perform(action, self.state, self.now)
        if isinstance(action, Ensure):
            self.turn(EnsureFailed(action.kind, kind, "boom"))
        else:
            self.turn(Failed(action.container, _VERBS[type(action)], kind, "boom"))
        if then_stop:
            self.turn(Wanted(DesiredStatus.STOPPED, "asked"))

    @rule(what=_ACTIONS, effect=st.booleans())
    def kill_agent(self, what: type[Action], effect: bool) -> None:
        action = self.until(what)
        if action is not None:
            self.flying.insert(0, action)
            if effect:
                self.world.perform(action, self.state, self.now)
        self.restart()

    def running(self) -> list[str]:
        return [name for name, box in self.world.boxes.items() if box.state == "running"]

    @precondition(lambda self: self.running())
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 7, 137]), oom=st.booleans(), told=st.booleans())
    def exit(self, data: st.DataObject, code: int, oom: bool, told: bool) -> None:
        name = data.draw(st.sampled_from(self.running()))
        self.world.end(name, code, self.now, oom=oom)
        self.ends += 1
        if told:
            self.turn(self.world.event(name, "die", self.now))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), told=st.booleans())
    def vanish(self, data: st.DataObject, told: bool) -> None:
        name = data.draw(st.sampled_from(self.running()))
        self.world.end(name, 137, self.now)
        self.ends += 1
        event = self.world.event(name, "destroy", self.now)
        del self.world.boxes[name]
        if told:
            self.turn(event)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), health=st.sampled_from(list(HealthStatus)))
    def change_health(self, data: st.DataObject, health: HealthStatus) -> None:
        name = data.draw(st.sampled_from(self.running()))
        self.world.boxes[name].health = health
        self.turn(self.world.event(name, "health", self.now))

    @rule()
    def resync(self) -> None:
        self.turn(Resync())

    @rule(seconds=st.sampled_from([0.1, 1.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turn()

    @rule(desired=st.sampled_from([DesiredStatus.RUNNING, DesiredStatus.RUNNING, DesiredStatus.STOPPED]))
    def want(self, desired: DesiredStatus) -> None:
        self.turn(Wanted(desired, "asked"))

    @precondition(lambda self: self.reports)
    @rule(kill=st.booleans())
    def isolate(self, kill: bool) -> None:
        """The control plane has been silent for too long for a task of which at most one may run."""
        self.turn(Isolated(25.0, kill))

    @precondition(lambda self: self.state.desired is DesiredStatus.PENDING)
    @rule()
    def refuse(self) -> None:
        """The host has no room for it, now that it is to run."""
        self.turn(Refused("ResourceInitializationError: too little left"))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.turn(Acked(data.draw(st.sampled_from(self.reports)).seq))

    # ------------------------------------------------------------ what always holds

    @invariant()
    def nothing_runs_unreported(self) -> None:
        if self.state.over:
            for name, container in self.by_name().items():
                assert container.known is ContainerStatus.STOPPED
                box = self.world.boxes.get(name)
                timed_out = "DockerTimeoutError" in (container.reason or "")
                assert timed_out or box is None or box.state != "running", "a stopped task has nothing running"

    @invariant()
    def starts_have_a_reason(self) -> None:
        for name, container in self.by_name().items():
            box = self.world.boxes.get(name)
            assert box is None or box.starts <= 1 + container.restart_count

    def by_name(self) -> dict[str, Any]:
        return {c.name: c for c in self.state.containers}

    def teardown(self) -> None:
        """Whatever happened: once all goes well again the task gets where it should, with or without a kill before."""
        if not hasattr(self, "state"):
            return
        self.check_same_end()
        world = self.world.copy()
        stopped = self.settle(self.state, world, list(self.flying), Resync(), Wanted(DesiredStatus.STOPPED))
        assert stopped.over
        for c in stopped.containers:
            box = world.boxes.get(c.name)
            assert box is None or box.state != "running", "nothing is orphaned"

    def check_same_end(self) -> None:
        """A new agent on the journal gets where the old one would have got, had it gone on and missed no event.

        What was in flight has had its effect: only then do both see the same world.
        """
        world = self.world.copy()
        for action in self.flying:
            world.perform(action, self.state, self.now)
        went_on = self.settle(self.state, world.copy(), list(self.flying), Resync())
        restarted = self.settle(recovered(self.journal), world, [])
        assert not _differences(went_on, restarted, self.ends <= 1), "a kill makes no difference to the end"

    def settle(self, state: TaskState, world: World, flying: list[Action], *facts: Fact) -> TaskState:
        """Let everything succeed until nothing is left to do; wait only when there is nothing else."""
        now = self.now
        pending: list[Fact] = list(facts)
        for _ in itertools.repeat(None, 200):
            step = advance(state, pending, now)
            state, pending = step.state, []
            for action in step.actions:
                if isinstance(action, CancelPull):
                    flying = [a for a in flying if not (isinstance(a, Pull) and a.container == action.container)]
                else:
                    flying.append(action)
            if flying:
                fact = world.perform(flying.pop(0), state, now)
                pending = [fact] if fact is not None else []
            elif step.wake_at is not None:
                now = max(now, step.wake_at)
            else:
                return state
        raise AssertionError(f"never comes to rest: {state}")


def _differences(went_on: TaskState, restarted: TaskState, one_cause: bool) -> list[tuple[object, object]]:
    """Return where two ends differ that should be one; `one_cause`: at most one container ended by itself.

    When several did, which of them is noticed first is chance, with or without a kill: it decides which of them ended
    the task, and whether one with a restart policy came back before another one's end stopped it. In the same way it is
    chance whether a container whose dependency was just met still starts before the task stops. Of those only the
    status must be the same, and that there is a reason.
    """
    one, other = (report_of(replace(state, seq=0, story=())) for state in (went_on, restarted))
    strict = one_cause or len(went_on.spec.containers) == 1
    pairs: list[tuple[object, object]] = [
        (one.status, other.status),
        (one.stop_code is None, other.stop_code is None),
        (one.stopped_reason is None, other.stopped_reason is None),
    ]
    if strict:
        pairs += [(one.stop_code, other.stop_code), (one.stopped_reason, other.stopped_reason)]
    for spec, a, b in zip(went_on.spec.containers, one.containers, other.containers, strict=True):
        pairs.append(((a.name, a.status), (b.name, b.status)))
        if a.started_at is not None and b.started_at is not None and (strict or not spec.restart_policy.enabled):
            pairs.append(((a.exit_code, a.reason, a.restart_count), (b.exit_code, b.reason, b.restart_count)))
    return [pair for pair in pairs if pair[0] != pair[1]]


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = settings(
    max_examples=250, stateful_step_count=30, deadline=None, suppress_health_check=[Check.too_slow]
)
