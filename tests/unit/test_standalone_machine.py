"""Any history of standalone tasks, hosts and restarts: groups stay exclusive and in order, retries are counted right.

The real loop runs on a clock that the machine moves; hosts and tasks do what the rules say.
"""

import asyncio
import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controlplane.api.ecs.clusters import ensure_default_cluster
from controlplane.api.ecs.container_instances import deregister_container_instance
from controlplane.api.ecs.placement import demand_of
from controlplane.api.ecs.task_definitions import register_task_definition
from controlplane.api.ecs.tasks import run_task, stop_task
from controlplane.context import Context
from controlplane.fleet.reports import apply_report
from controlplane.scheduling.model import candidates_of
from controlplane.scheduling.placement import place
from controlplane.standalone.failures import failure_of
from controlplane.standalone.loop import StandaloneLoop
from controlplane.state.presence import Presence
from controlplane.state.records import TaskRecord
from controlplane.state.state import load_state
from controlplane.state.validate import validate, validate_commit
from controlplane.store.api import Commit
from homeport.ids import InstanceId
from homeport.protocol import ContainerReport, TaskReport
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from tests.fakes.clock import ManualClock
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import a_context, an_instance, connect, put

LOST_AFTER_S = 30
#: Each host has room for one task, so that many find none.
ROOM_MIB = 70
CONTAINER = {"name": "main", "image": "busybox", "cpu": 1, "memory": 64}


class Standalone(RuleBasedStateMachine):
    """Drives the loop and compares what it does with what it should."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.context = a_context(self.clock)
        self.journal = self._journal_of(self.context)
        self.hosts = 0
        self.seq = 0
        #: Waiting tasks as the commits so far have them, to check each placement against.
        self.waiting: dict[str, TaskRecord] = {}
        #: Tasks that had to wait -> the order in which they came.
        self.arrivals: dict[str, int] = {}
        self.seen = 0
        ensure_default_cluster(self.context)
        register_task_definition(self.context, {"family": "job", "containerDefinitions": [CONTAINER]})
        self.add_host()
        self.add_host()
        self._start()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self._stop()
            self.runner.close()

    @staticmethod
    def _journal_of(context: Context) -> MemoryJournal:
        journal = context.state.journal
        assert isinstance(journal, MemoryJournal)
        return journal

    def _start(self) -> None:
        async def start() -> None:
            self.loop = StandaloneLoop(self.context)
            self.task = asyncio.get_running_loop().create_task(self.loop.run())

        self.runner.run(start())

    def _stop(self) -> None:
        async def stop() -> None:
            self.task.cancel()
            await asyncio.wait([self.task])
            if not self.task.cancelled():
                self.task.result()

        self.runner.run(stop())

    def _turns(self, count: int | None = None) -> None:
        """Let the loop work for some turns of the event loop, or until it rests."""

        async def turns() -> None:
            for _ in range(count if count is not None else 2000):
                await asyncio.sleep(0)
                if self.task.done():
                    self.task.result()
                if count is None and not self.loop.busy:
                    return
            assert count is not None, "the loop finds no rest"

        self.runner.run(turns())

    # ------------------------------------------------------------ what happens

    @precondition(lambda self: self.hosts < 4)
    @rule()
    def add_host(self) -> None:
        self.hosts += 1
        host = an_instance(f"host-{self.hosts}", memory=ROOM_MIB)
        put(self.context, host)
        connect(self.context, host)

    @rule(
        count=st.integers(1, 3),
        group=st.sampled_from(["", "a", "b"]),
        retries=st.integers(0, 3),
        timeout=st.sampled_from([None, 20]),
        wait_timeout=st.sampled_from([None, None, 50]),
        policy=st.sampled_from(["wait", "wait", "skip", "replace"]),
        isolated=st.booleans(),
    )
    def ask(self, *, count: int, group: str, retries: int, policy: str, isolated: bool, **limits: int | None) -> None:
        tags = {"retries": str(retries), "lost-after": str(LOST_AFTER_S), "stop-when-isolated": str(isolated).lower()}
        tags |= {name.replace("_", "-"): str(limit) for name, limit in limits.items() if limit is not None}
        if group:
            tags |= {"exclusive": group, "exclusive-policy": policy}
        members = list(self.context.state.tasks.where("exclusive", ("default", group)))
        request = {
            "taskDefinition": "job",
            "count": count,
            "tags": [{"key": f"homeport:{name}", "value": value} for name, value in tags.items()],
        }
        answer = run_task(self.context, request)
        assert isinstance(answer, dict)
        if group and policy == "skip":
            assert len(answer["tasks"]) <= (0 if members else 1)
        if group and policy == "replace" and answer["tasks"]:
            assert all(self._task(member.id).desired is DesiredStatus.STOPPED for member in members)

    def _placed(self, *statuses: TaskStatus) -> list[TaskRecord]:
        """The tasks on hosts that are heard of, by id."""
        return [
            task
            for task in self.context.state.tasks
            if task.instance_id and task.status in statuses and self.context.state.presence.connected(task.instance_id)
        ]

    def _report(self, task: TaskRecord, status: TaskStatus, **members: Any) -> None:
        self.seq += 1
        assert task.instance_id is not None
        apply_report(
            self.context, task.instance_id, TaskReport(task_id=task.id, seq=self.seq, status=status, **members)
        )

    @precondition(lambda self: self._placed(TaskStatus.PENDING))
    @rule(data=st.data())
    def comes_up(self, data: st.DataObject) -> None:
        self._report(data.draw(st.sampled_from(self._placed(TaskStatus.PENDING))), TaskStatus.RUNNING)

    @precondition(lambda self: self._placed(TaskStatus.PENDING))
    @rule(data=st.data(), hopeless=st.booleans())
    def does_not_come_up(self, data: st.DataObject, hopeless: bool) -> None:
        task = data.draw(st.sampled_from(self._placed(TaskStatus.PENDING)))
        reason = "CannotPullContainerError: " + ("manifest unknown" if hopeless else "timeout")
        self._report(task, TaskStatus.STOPPED, stop_code=StopCode.TASK_FAILED_TO_START, stopped_reason=reason)

    @precondition(lambda self: self._placed(TaskStatus.PENDING, TaskStatus.RUNNING))
    @rule(data=st.data(), code=st.sampled_from([0, 1, 1, 1]))
    def ends(self, data: st.DataObject, code: int) -> None:
        task = data.draw(st.sampled_from(self._placed(TaskStatus.PENDING, TaskStatus.RUNNING)))
        ended = ContainerReport(name="main", status=ContainerStatus.STOPPED, exit_code=code)
        self._report(
            task,
            TaskStatus.STOPPED,
            containers=(ended,),
            stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
            stopped_reason="Essential container in task exited",
        )

    @precondition(lambda self: len(self.context.state.tasks) > 0)
    @rule(data=st.data())
    def is_stopped_by_its_user(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(list(self.context.state.tasks)))
        stop_task(self.context, {"task": task.id})

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 20.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.time += seconds
        self.loop.wake()

    @rule(data=st.data(), connected=st.booleans())
    def is_cut_off_or_back(self, data: st.DataObject, connected: bool) -> None:
        host = InstanceId(f"host-{data.draw(st.integers(1, self.hosts))}")
        now = self.clock.now()
        if self.context.state.presence.connected(host) != connected:
            self.context.state.presence.put(
                host, Presence(connected=connected, since=now, last_seen_at=now, heard_at=now)
            )

    @precondition(lambda self: self._placed(TaskStatus.PENDING, TaskStatus.RUNNING))
    @rule(data=st.data())
    def is_lost_with_its_host(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self._placed(TaskStatus.PENDING, TaskStatus.RUNNING)))
        now = self.clock.now()
        assert task.instance_id is not None
        self.context.state.presence.put(
            task.instance_id, Presence(connected=False, since=now, last_seen_at=now, heard_at=now)
        )
        self.time_passes(LOST_AFTER_S)

    @rule(data=st.data())
    def is_given_up(self, data: st.DataObject) -> None:
        active = [host.id for host in self.context.state.instances if host.status == "ACTIVE"]
        if len(active) > 1:
            host = data.draw(st.sampled_from(active))
            deregister_container_instance(self.context, {"containerInstance": host, "force": True})

    @rule(turns=st.integers(0, 6))
    def is_killed(self, turns: int) -> None:
        """The process dies in the middle of its work; another one begins with what is in the journal."""
        self._turns(turns)
        self._stop()
        self._check_commits()
        journal = MemoryJournal.restarted(self.journal)
        state = self.runner.run(load_state(journal))
        for host in self.context.state.instances:
            if (presence := self.context.state.presence.of(host.id)) is not None and presence.connected:
                state.presence.put(host.id, presence)
        self.context = Context(
            state=state,
            clock=self.clock,
            random=random.Random(state.revision),
            arns=self.context.arns,
            endpoints=self.context.endpoints,
            logs=self.context.logs,
        )
        self.journal, self.seen = journal, 0
        self._start()

    # ------------------------------------------------------------ what must hold

    def _task(self, task_id: str) -> TaskRecord:
        task = self.context.state.tasks.get(task_id)
        assert task is not None
        return task

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        if not hasattr(self, "loop"):
            return
        self._turns()
        self._check_commits()
        validate(self.context.state)
        tasks = list(self.context.state.tasks)
        for group in ("a", "b"):
            self._check_group(group, [task for task in tasks if task.order and task.order.exclusive == group])
        for task in tasks:
            if self._is_ready(task) and task.exclusive_group is None:
                self._check_no_room(task)
                break
        tasks = list(self.context.state.tasks)
        for task in tasks:
            self._check_attempts(task, [other for other in tasks if other.order and other.order.retry_of == task.id])
            self._check_limits(task)
        self._check_rest()

    def _check_commits(self) -> None:
        """Check each commit since the last time: what was placed was first in its group, and nobody else was there."""
        for commit in self.journal.commits[self.seen :]:
            validate_commit(commit)
            self._check_placements(commit)
        self.seen = len(self.journal.commits)

    def _check_placements(self, commit: Commit) -> None:
        for change in commit.changes:
            new = change.new
            if not isinstance(new, TaskRecord) or new.order is None:
                continue
            if new.status is TaskStatus.PENDING and (change.old is None or change.key in self.waiting):
                first = self.waiting.pop(change.key, new)
                assert first.order is not None
                assert (first.order.not_before or 0.0) <= self.clock.now(), "an attempt came before its time"
                if not new.order.exclusive:
                    continue
                others = [w for w in self.waiting.values() if w.order and w.order.exclusive == new.order.exclusive]
                if change.old is None:
                    assert not others, "a task was placed at once though others waited"
                    continue
                ready = [w for w in others if w.order and (w.order.not_before or 0) <= self.clock.now()]
                assert all(self.arrivals[w.id] > self.arrivals[first.id] for w in ready), (
                    "a task was placed before its turn"
                )
        for change in commit.changes:
            if isinstance(change.new, TaskRecord) and change.new.status is TaskStatus.PROVISIONING:
                self.waiting[change.key] = change.new
                self.arrivals.setdefault(change.key, len(self.arrivals))
            else:
                self.waiting.pop(change.key, None)

    def _check_group(self, group: str, tasks: list[TaskRecord]) -> None:
        holding = [
            task
            for task in tasks
            if task.instance_id
            and task.status is not TaskStatus.STOPPED
            and not (task.lost_at is not None and task.spec.isolation_stop_s is not None)
        ]
        assert len(holding) <= 1, f"{len(holding)} tasks of the exclusive group {group} are on hosts"
        ready = [task for task in tasks if self._is_ready(task)]
        if ready and not holding:
            self._check_no_room(min(ready, key=lambda task: self.arrivals[task.id]))

    def _is_ready(self, task: TaskRecord) -> bool:
        if task.order is None or task.status is not TaskStatus.PROVISIONING:
            return False
        return (task.order.not_before or 0.0) <= self.clock.now()

    def _check_no_room(self, task: TaskRecord) -> None:
        """Nothing keeps a task from being placed: then no host has room, or it was found so a moment ago."""
        self.clock.time += 0.3
        self.loop.wake()
        self._turns()
        self._check_commits()
        task = self._task(task.id)
        if task.status is not TaskStatus.PROVISIONING:
            return
        group = task.exclusive_group
        if group and any(holder.instance_id for holder in self.context.state.tasks.where("exclusive", group)):
            return
        demand = demand_of({}, Resources.of_task(task.spec), group=task.group)
        assert not place(candidates_of(self.context.state, "default"), demand, 1, self.context.random).chosen

    def _check_attempts(self, task: TaskRecord, retries: list[TaskRecord]) -> None:
        order = task.order
        if order is None:
            return
        assert [retry.id for retry in retries] == ([order.retried_as] if order.retried_as else [])
        assert order.attempt <= order.retries + 1
        if order.retried_as is not None:
            assert retries[0].order is not None
            assert retries[0].order.attempt == order.attempt + 1
        elif task.status is TaskStatus.STOPPED and order.attempt <= order.retries and task.lost_at is None:
            failure = failure_of(task)
            assert failure is None or failure.hopeless, f"task {task.id} failed and wasn't run again"

    def _check_limits(self, task: TaskRecord) -> None:
        order, now = task.order, self.clock.now()
        if order is None or task.desired is DesiredStatus.STOPPED:
            return
        if order.timeout_s is not None and task.running_at is not None:
            assert now < task.running_at + order.timeout_s
        if order.wait_timeout_s is not None and task.status is TaskStatus.PROVISIONING:
            assert now < (order.not_before or task.created_at) + order.wait_timeout_s

    def _check_rest(self) -> None:
        """Looking at everything anew, with nothing having changed, writes nothing."""
        revision = self.context.state.revision
        self.loop.look_at_all()
        self._turns()
        assert self.context.state.revision == revision


TestStandalone = Standalone.TestCase
TestStandalone.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
