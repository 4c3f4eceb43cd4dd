"""A cluster for the service reconciler: hosts, tasks and agents as plain values, and decisions carried out on them.

A test drives it: `reconcile` decides and acts until nothing is left to do, `agents` lets the hosts do their part once,
`advance` moves time, `run` does all three until the world is at rest. `apply` refuses what the real one would never do:
going back in a status, settling twice, starting above a host's capacity.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from controlplane.fleet.liveness import HostVerdict
from controlplane.services.deciding import census
from controlplane.services.deciding.decide import decide
from controlplane.services.deployments import begin_deployment, rollback_candidate
from controlplane.services.model import (
    Action,
    Adopt,
    Blocked,
    Decision,
    DropTaskSet,
    FreshIds,
    Host,
    Lose,
    MarkHealthy,
    PutDeployment,
    PutService,
    PutTaskSet,
    Release,
    Return,
    Say,
    Settle,
    Snapshot,
    Start,
    Stop,
    Timing,
)
from controlplane.state.records import TaskRecord
from controlplane.state.service_records import (
    DeploymentRecord,
    RevisionRecord,
    RolloutState,
    ServiceRecord,
    TaskSetRecord,
)
from homeport import reasons
from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport
from homeport.spec import ContainerSpec, HealthCheck, TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus

__all__ = ["Behaviour", "Machine", "World"]

IMAGE_MISSING = "CannotPullContainerError: manifest for web:9 not found: manifest unknown"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the tasks of a revision behave on their hosts.

    `kind`: they run; exit at once; run and fail their health check; can't be pulled; or stay PENDING.
    """

    kind: Literal["runs", "crashes", "sick", "hopeless", "hangs"] = "runs"
    #: They have a health check.
    check: bool = False
    #: They need a host port: one to a host.
    port: bool = False
    #: Hosts that can't pull their image.
    lacking: frozenset[str] = frozenset()


class Machine(msgspec.Struct, kw_only=True):
    """A host: what the control plane thinks of it, and what is really there."""

    id: InstanceId
    capacity: int = 100
    draining: bool = False
    drain_deadline_at: float | None = None
    silent_since: float | None = None
    heard_out: bool = True
    last_of_host: bool = True


class World:
    """See the module."""

    def __init__(
        self,
        *,
        hosts: int = 3,
        capacity: int = 100,
        desired: int = 3,
        behaviour: Behaviour | None = None,
        timing: Timing | None = None,
        lost_after_s: float = 60.0,
        **service: Any,
    ) -> None:
        self.now = 1000.0
        self.timing = timing or Timing(lost_after_s=lost_after_s)
        self.machines: dict[InstanceId, Machine] = {}
        for _ in range(hosts):
            self.add_host(capacity)
        self.tasks: dict[TaskId, TaskRecord] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.deployments: dict[str, DeploymentRecord] = {}
        self.task_sets: dict[str, TaskSetRecord] = {}
        self.blocked: Blocked | None = None
        self.moves: frozenset[TaskId] = frozenset()
        self.events: list[str] = []
        self.settled: Counter[TaskId] = Counter()
        self.wake_at: float | None = None
        self._number = 0
        self._tasks_made = 0
        self.service = ServiceRecord(
            id="5" * 32, cluster="default", name="web", created_at=self.now, desired_count=desired, **service
        )
        #: Called with each snapshot and the decision made of it, before it is carried out.
        self.on_decision: Callable[[Snapshot, Decision], None] = lambda snapshot, decision: None
        if self.service.controller == "ECS":
            self.deploy(behaviour or Behaviour())

    # ------------------------------------------------------------ what people do

    def add_host(self, capacity: int = 100) -> InstanceId:
        """A host joins."""
        host = InstanceId(f"host-{len(self.machines)}")
        self.machines[host] = Machine(id=host, capacity=capacity)
        return host

    def deploy(self, behaviour: Behaviour) -> DeploymentRecord:
        """Roll out a new revision, as UpdateService does."""
        self._number += 1
        revision = f"rev-{self._number}"
        self.behaviours[revision] = behaviour
        live = tuple(self.deployments[d] for d in self.service.deployments)
        self.service, changed = begin_deployment(
            self.service,
            live,
            deployment_id=f"ecs-svc/{self._number}",
            arn_id=f"arn-{self._number}",
            revision=revision,
            now=self.now,
        )
        for record in changed:
            self.deployments[record.id] = record
        self.blocked = None
        return changed[0]

    def scale(self, desired: int) -> None:
        """Set desiredCount."""
        self.service = replace(self.service, desired_count=desired)

    def silence(self, host: InstanceId) -> None:
        """A host is cut off."""
        self.machines[host].silent_since = self.now
        self.machines[host].heard_out = False

    def unsilence(self, host: InstanceId) -> None:
        """It is back, and has reported."""
        self.machines[host].silent_since = None
        self.machines[host].heard_out = True

    def protect(self, task: TaskId, seconds: float) -> None:
        """Set scale-in protection."""
        self.tasks[task] = replace(self.tasks[task], protected_until=self.now + seconds)

    def kill(self, task: TaskId) -> None:
        """The task's container exits."""
        self._stopped(self.tasks[task], StopCode.ESSENTIAL_CONTAINER_EXITED, reasons.ESSENTIAL_EXITED)

    # ------------------------------------------------------------ what the loop does

    @property
    def primary(self) -> DeploymentRecord:
        """The PRIMARY deployment."""
        return self.deployments[self.service.deployments[0]]

    def rollout(self) -> RolloutState:
        """Return how far the PRIMARY deployment is."""
        return self.primary.rollout

    def live(self, deployment: str | None = None) -> list[TaskRecord]:
        """Return the tasks that are meant to run and not lost or stopped."""
        return [
            task
            for task in self.tasks.values()
            if task.desired is DesiredStatus.RUNNING
            and task.lost_at is None
            and task.status <= TaskStatus.RUNNING
            and (deployment is None or task.started_by == deployment)
        ]

    def snapshot(self) -> Snapshot:
        """Return what the reconciler would see."""
        daemon = self.service.scheduling_strategy == "DAEMON"
        revision = rollback_candidate(self.service, [self.deployments[d] for d in self.service.deployments])
        candidate = None
        if revision:
            candidate = RevisionRecord(
                id=revision,
                service_id=self.service.id,
                service=self.service.key,
                created_at=0.0,
                task_definition="web:1",
            )
        up = [m for m in self.machines.values() if m.silent_since is None and not m.draining]
        number = self._number + 1
        return Snapshot(
            service=self.service,
            deployments=tuple(self.deployments[d] for d in self.service.deployments),
            tasks=tuple(task for _, task in sorted(self.tasks.items()) if not task.settled),
            hosts={m.id: self._host(m) for m in self.machines.values()},
            eligible=frozenset(m.id for m in up) if daemon else frozenset(),
            rollback_to=candidate,
            blocked=self.blocked,
            task_sets=tuple(self.task_sets.values()),
            timing=self.timing,
            ids=FreshIds(deployment=f"ecs-svc/{number}", arn=f"arn-{number}"),
            usable_hosts=len(up),
            moves=self.moves,
        )

    def decide(self) -> Decision:
        """Decide once, and carry it out."""
        snapshot = self.snapshot()
        decision = decide(snapshot, self.now)
        self.on_decision(snapshot, decision)
        self.wake_at = decision.wake_at
        # What an attempt ran into is known at the next look, and no longer.
        self.blocked = None
        for action in decision.actions:
            self.apply(action)
        return decision

    def reconcile(self, rounds: int = 20) -> None:
        """Decide and act until nothing changes. AssertionError if it never ends."""
        for _ in range(rounds):
            before = (self.service, dict(self.deployments), dict(self.tasks), len(self.events), dict(self.task_sets))
            blocked = self.blocked
            self.decide()
            after = (self.service, self.deployments, self.tasks, len(self.events), self.task_sets)
            if before == after and self.blocked in (None, blocked):
                return
        raise AssertionError("the reconciler never comes to rest")

    def run(self, seconds: float = 0.0, rounds: int = 400) -> None:
        """Let everybody work until nothing changes any more, moving time to each wake-up within `seconds` from now."""
        until = self.now + seconds
        for _ in range(rounds):
            self.reconcile()
            if self.agents():
                continue
            if self.wake_at is None or self.wake_at > until:
                self.now = until
                self.reconcile()
                if not self.agents():
                    return
            else:
                self.now = max(self.now, self.wake_at)
        raise AssertionError("the world never comes to rest")

    # ------------------------------------------------------------ what agents do

    def agents(self) -> bool:
        """Let each agent take one step with each of its tasks. Return whether anything has changed."""
        changed = False
        for task in list(self.tasks.values()):
            connected = task.instance_id and self.machines[task.instance_id].silent_since is None
            if connected and task.status is not TaskStatus.STOPPED:
                changed |= self.step(task)
        return changed

    def step(self, task: TaskRecord) -> bool:
        """One step of one task. Return whether it has changed."""
        behaviour = self.behaviours[self._revision(task)]
        if task.desired is DesiredStatus.STOPPED:
            self._stopped(task, task.stop_code, task.stopped_reason)
            return True
        host = task.instance_id or ""
        if task.status < TaskStatus.RUNNING:
            if behaviour.kind == "hangs":
                return False
            if behaviour.kind == "hopeless" or host in behaviour.lacking:
                self._stopped(task, StopCode.TASK_FAILED_TO_START, IMAGE_MISSING)
                return True
            created = bool(task.containers)
            if not created:
                self.tasks[task.id] = replace(task, containers=(self._report(ContainerStatus.CREATED, None),))
                return True
            if task.desired is not DesiredStatus.RUNNING:
                return False
            health = HealthStatus.UNKNOWN if behaviour.check else None
            running = self._report(ContainerStatus.RUNNING, health)
            self.tasks[task.id] = replace(
                task, status=TaskStatus.RUNNING, started_at=self.now, running_at=self.now, containers=(running,)
            )
            return True
        if behaviour.kind == "crashes":
            self.kill(task.id)
            return True
        if behaviour.check and task.health is HealthStatus.UNKNOWN:
            health = HealthStatus.UNHEALTHY if behaviour.kind == "sick" else HealthStatus.HEALTHY
            self.set_health(task.id, health)
            return True
        return False

    def set_health(self, task: TaskId, health: HealthStatus) -> None:
        """A health check has a result."""
        self.tasks[task] = replace(self.tasks[task], containers=(self._report(ContainerStatus.RUNNING, health),))

    # ------------------------------------------------------------ carrying out

    def apply(self, action: Action) -> None:
        """Carry out one action."""
        match action:
            case Start():
                self._start(action)
            case Stop():
                task = self.tasks[action.task_id]
                assert task.desired < DesiredStatus.STOPPED, "stopped twice"
                stopping = {"desired": DesiredStatus.STOPPED, "stop_code": action.stop_code}
                self.tasks[task.id] = replace(task, **stopping, stopped_reason=action.reason)
            case Release():
                self._release(self.tasks[action.task_id])
            case Settle():
                task = self.tasks[action.task_id]
                assert task.status is TaskStatus.STOPPED, "settled before its end"
                assert not task.settled, "settled twice"
                self.settled[task.id] += 1
                self.tasks[task.id] = replace(task, settled=True)
            case MarkHealthy():
                task = self.tasks[action.task_id]
                assert task.healthy_at is None, "marked twice"
                self.tasks[task.id] = replace(task, healthy_at=action.at)
            case Lose():
                self.tasks[action.task_id] = replace(self.tasks[action.task_id], lost_at=self.now)
            case Return():
                self.tasks[action.task_id] = replace(self.tasks[action.task_id], lost_at=None)
            case Adopt():
                self.tasks[action.task_id] = replace(self.tasks[action.task_id], started_by=action.deployment)
            case PutService():
                self.service = action.service
            case PutDeployment():
                if action.deployment.id not in self.deployments:
                    self._number += 1
                    self.blocked = None
                self.deployments[action.deployment.id] = action.deployment
            case PutTaskSet():
                self.task_sets[action.task_set.id] = action.task_set
            case DropTaskSet():
                del self.task_sets[action.task_set_id]
            case Say():
                self.events.append(action.message)

    def _start(self, start: Start) -> None:
        """Place what fits: on the host asked for, or on the emptiest one, those to avoid last."""
        for _ in range(start.count):
            machines = [m for m in self.machines.values() if start.host in (None, m.id)]
            fitting = [m for m in machines if self._refusal(m, start) is None]
            if not fitting:
                own = any(self._refusal(m, start) == "own" for m in machines)
                self.blocked = Blocked(reasons={"RESOURCE": len(machines)}, considered=len(machines), by_own_tasks=own)
                return
            best = min(fitting, key=lambda m: (m.id in start.avoid, len(self._held(m.id)), m.id))
            self._place(start, best)

    def _place(self, start: Start, machine: Machine) -> None:
        self._tasks_made += 1
        behaviour = self.behaviours[self._revision_of(start.deployment)]
        check = HealthCheck(command=("CMD", "true")) if behaviour.check else None
        spec = TaskSpec(
            task_arn=f"arn:task/{self._tasks_made}",
            cluster="default",
            family="web",
            revision=1,
            containers=(ContainerSpec(name="app", image="web", container_arn="arn:c", health_check=check),),
        )
        task = TaskRecord(
            id=TaskId(f"task-{self._tasks_made:05}"),
            cluster="default",
            spec=spec,
            created_at=self.now,
            launch_type="EXTERNAL",
            desired=DesiredStatus.PENDING if start.replaces else DesiredStatus.RUNNING,
            instance_id=machine.id,
            group=self.service.group,
            started_by=start.deployment,
            wanted_at=start.wanted_at,
            replaces=start.replaces,
        )
        self.tasks[task.id] = task

    def _release(self, task: TaskRecord) -> None:
        assert task.desired is DesiredStatus.PENDING, "released twice"
        assert task.instance_id is not None
        if self._room(task.instance_id, self.behaviours[self._revision(task)]):
            self.tasks[task.id] = replace(task, desired=DesiredStatus.RUNNING, released_at=self.now)
        else:
            self.tasks[task.id] = replace(task, desired=DesiredStatus.STOPPED, stopped_reason="no room")

    def _refusal(self, machine: Machine, start: Start) -> str | None:
        """Why a host can't take a task: None if it can, "own" if only this service's outdated or sick tasks are."""
        if machine.silent_since is not None or machine.draining:
            return "closed"
        behaviour = self.behaviours[self._revision_of(start.deployment)]
        if start.replaces is not None or self._room(machine.id, behaviour):
            return None
        own = frozenset(t.id for t in self._held(machine.id) if t.started_by != start.deployment or census.is_sick(t))
        return "own" if self._room(machine.id, behaviour, without=own) else "full"

    def _room(self, host: InstanceId, behaviour: Behaviour, without: frozenset[TaskId] = frozenset()) -> bool:
        held = [t for t in self._held(host) if t.id not in without]
        port_taken = behaviour.port and any(self.behaviours[self._revision(t)].port for t in held)
        return len(held) < self.machines[host].capacity and not port_taken

    def _held(self, host: InstanceId) -> list[TaskRecord]:
        """The tasks that hold resources on a host. A lost one holds them until it is known to have stopped."""
        return [
            t
            for t in self.tasks.values()
            if t.instance_id == host
            and t.status is not TaskStatus.STOPPED
            and t.desired is not DesiredStatus.PENDING
            and not (t.replaces and t.desired is DesiredStatus.STOPPED and t.started_at is None)
        ]

    def _stopped(self, task: TaskRecord, code: StopCode | None, reason: str | None) -> None:
        assert task.status < TaskStatus.STOPPED
        self.tasks[task.id] = replace(
            task,
            status=TaskStatus.STOPPED,
            # As reports do: a task on its way down never comes up again.
            desired=DesiredStatus.STOPPED,
            stopped_at=self.now,
            execution_stopped_at=self.now,
            stop_code=task.stop_code or code,
            stopped_reason=task.stopped_reason or reason,
        )

    def _revision(self, task: TaskRecord) -> str:
        return self._revision_of(task.started_by)

    def _revision_of(self, owner: str) -> str:
        return self.deployments[owner].revision if owner in self.deployments else owner

    def _report(self, status: ContainerStatus, health: HealthStatus | None) -> ContainerReport:
        return ContainerReport(name="app", status=status, health=health)

    def _host(self, machine: Machine) -> Host:
        verdict = HostVerdict.CONNECTED
        lost_at = None
        if machine.silent_since is not None:
            lost_at = machine.silent_since + self.timing.lost_after_s
            verdict = HostVerdict.LOST if self.now >= lost_at else HostVerdict.UNKNOWN
        return Host(
            id=machine.id,
            verdict=verdict,
            open=machine.silent_since is None and not machine.draining,
            draining=machine.draining,
            drain_deadline_at=machine.drain_deadline_at,
            heard_out=machine.heard_out,
            lost_at=lost_at if verdict is HostVerdict.UNKNOWN else None,
            last_of_host=machine.last_of_host,
        )
