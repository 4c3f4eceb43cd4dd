"""Each check of the simulator fires on a history that is wrong by hand, and on none that is right."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from agent.engine.plan import LABEL_CONTAINER, LABEL_INSTANCE, LABEL_TASK
from controlplane.state.presence import Presence
from controlplane.state.records import IdempotencyRecord, InstanceRecord, Record, TaskOrder, TaskRecord
from controlplane.state.service_records import DeploymentRecord, RevisionRecord, RolloutState, ServiceRecord
from controlplane.state.state import State
from controlplane.store.api import Change, Commit
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Assignment, Assignments, ContainerReport, TaskReport
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from homeport.story import StoryLine
from tests.fakes.journal import MemoryJournal
from tests.fakes.records import a_task, an_instance
from tests.simulation.checks import assignments, containers, history, hosts, pace, promises, services, tasks
from tests.simulation.checks.violation import Violation
from tests.simulation.clients import Ask, Outcome, Refused
from tests.simulation.ledger import Asked, ContainerLedgerEntry, End

HOST = an_instance("h1", cpu=1024, memory=100)
RUNNING = replace(a_task("t1"), instance_id=InstanceId("h1"), status=TaskStatus.RUNNING)
STOPPED = replace(
    RUNNING, status=TaskStatus.STOPPED, desired=DesiredStatus.STOPPED, stopped_at=2.0, stopped_reason="asked to"
)


class World:
    """All checks of commits, answers, frames, reports and containers, and what is told to them by hand."""

    def __init__(self) -> None:
        self.history = history.History()
        self.tasks = tasks.Tasks(self.history)
        self.hosts = hosts.Hosts(self.history)
        self.sets = assignments.Sets(self.history)
        self.services = services.Services(self.history, lambda: 120.0)
        self.containers = containers.Containers(self.history, self.sets)
        self.pace = pace.Pace(self.history)
        self.promises = promises.Promises(self.history, self.tasks)
        self.state = State(MemoryJournal())
        self.services.reset(self.state)

    def commit(self, *records: Record, told: bool = True, archive: tuple[TaskRecord, ...] = ()) -> None:
        """Commit these records in place of what the history has; `archive` leaves memory."""
        changes = [Change(r.kind, r.key, self.history.records[r.kind].get(r.key), r) for r in records]
        changes += [Change(r.kind, r.key, r, None) for r in archive]
        line = StoryLine(at=1.0, event="x", message="x", actor="api")
        stories = tuple((TaskId(r.key), line) for r in records if isinstance(r, TaskRecord) and told)
        commit = Commit(self.history.revision + 1, tuple(changes), stories, archive)
        with self.state.transaction() as transaction:
            for record in records:
                transaction.put(record)
        self.history.commit(commit)
        for group in (self.tasks, self.hosts, self.sets, self.services):
            group.commit(commit)
        self.pace.commit(commit, commit.revision / 2)

    def frame(self, revision: int, *put: TaskRecord, base: int | None = None, remove: tuple[str, ...] = ()) -> None:
        """A set or an increment leaves for the host h1."""
        wishes = tuple(Assignment(task_id=task.id, desired=task.desired, spec=task.spec) for task in put)
        gone = tuple(map(TaskId, remove))
        self.sets.frame(InstanceId("h1"), Assignments(revision=revision, base=base, put=wishes, remove=gone))

    def box(self, number: int = 1, *, codes: tuple[int, ...] = (), starts: int = 1, foreign: bool = False) -> Any:
        """A container of the task t1 changes on h1."""
        labels = {LABEL_INSTANCE: "h1", LABEL_TASK: "t1", LABEL_CONTAINER: "web"}
        entry = ContainerLedgerEntry(
            id=f"c{number}", name=f"web-{number}", labels=labels, image="steady", body={}, created_at=1.0
        )
        entry.starts = [1.0] * starts
        entry.ends = [End(2.0, code, "exited") for code in codes]
        entry.foreign = foreign
        entry.asked = [Asked(1.0, "start"), Asked(2.0, "stop")] if foreign else []
        self.containers.engine("h1", entry)
        return entry

    def report(self, seq: int, status: TaskStatus, box: ContainerStatus, code: int | None = None) -> None:
        """The host h1 reports the task t1."""
        container = ContainerReport(name="web", status=box, runtime_id="c1", exit_code=code)
        self.containers.report("h1", TaskReport(task_id=TaskId("t1"), seq=seq, status=status, containers=(container,)))


# ------------------------------------------------------------ what is wrong, and how it is named


def _service(world: World, **members: Any) -> ServiceRecord:
    """A service of two tasks with one deployment, committed."""
    given: dict[str, Any] = {
        "deployments": ("ecs-svc/1",),
        "desired_count": 2,
        "deployment_configuration": {"minimumHealthyPercent": 100, "maximumPercent": 100},
        "given": ("minimumHealthyPercent",),
    }
    service = ServiceRecord(id="s", cluster="default", name="web", created_at=1.0, **{**given, **members})
    revision = RevisionRecord(id="r", service_id="s", service=service.key, created_at=1.0, task_definition="web:1")
    world.commit(HOST, service, revision, _deployment())
    return service


def _deployment(**members: Any) -> DeploymentRecord:
    return DeploymentRecord(
        id="ecs-svc/1",
        arn_id="a",
        service_id="s",
        service="default/web",
        revision="r",
        created_at=1.0,
        updated_at=1.0,
        **members,
    )


def _of_service(name: str, **members: Any) -> TaskRecord:
    """A healthy task of that service."""
    given: dict[str, Any] = {"group": "service:web", "started_by": "ecs-svc/1", "healthy_at": 1.0}
    return replace(RUNNING, id=TaskId(name), **{**given, **members})


def a_revision_is_left_out(world: World) -> None:
    world.history.commit(Commit(2, ()))


def an_undurable_answer(world: World) -> None:
    world.history.told(3, "an answer", 2)


def a_told_commit_is_gone_after_a_restart(world: World) -> None:
    world.commit(HOST)
    world.history.told(1, "an answer", 1)
    world.history.loaded(State(MemoryJournal()))


def a_record_is_loaded_unlike_it_was_written(world: World) -> None:
    world.commit(HOST)
    state = State(MemoryJournal())
    with state.transaction() as transaction:
        transaction.put(replace(HOST, status="DRAINING"))
    world.history.loaded(state)


def a_task_goes_back(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.commit(replace(RUNNING, status=TaskStatus.PENDING))


def a_task_changes_its_host(world: World) -> None:
    world.commit(HOST, an_instance("h2"), RUNNING)
    world.commit(replace(RUNNING, instance_id=InstanceId("h2")))


def an_end_is_invented(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.commit(STOPPED)


def an_end_without_a_reason(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.commit(replace(STOPPED, stopped_reason=None, reported_seq=1))


def a_stop_that_no_story_tells_of(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.commit(replace(RUNNING, desired=DesiredStatus.STOPPED, stopped_reason="x"), told=False)


def an_exit_code_changes(world: World) -> None:
    ended = ContainerReport(name="web", status=ContainerStatus.STOPPED, exit_code=7)
    world.commit(HOST, replace(STOPPED, containers=(ended,), reported_seq=1))
    world.commit(replace(STOPPED, containers=(), reported_seq=2))


def a_running_task_leaves_memory(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.commit(archive=(RUNNING,))


def a_task_is_run_again_twice(world: World) -> None:
    for name in ("t2", "t3"):
        world.commit(replace(a_task(name), order=TaskOrder(retry_of=TaskId("t1")), status=TaskStatus.PROVISIONING))


def a_token_makes_other_tasks(world: World) -> None:
    record = IdempotencyRecord(operation="RunTask", scope="default", token="a", fingerprint="f", at=1.0, result=("t1",))
    world.commit(record)
    world.commit(replace(record, result=("t2",)))


def a_token_makes_more_than_asked(world: World) -> None:
    waiting = TaskStatus.PROVISIONING
    world.commit(*(replace(a_task(name), started_by="run-1-1", status=waiting) for name in ("t1", "t2")))
    document = {"clientToken": "a", "startedBy": "run-1-1", "count": 1}
    world.promises.request(Ask("RunTask", document, began=1, outcome=Outcome.UNANSWERED))


def memory_is_given_twice(world: World) -> None:
    big = Resources(memory_mib=60)
    world.commit(HOST, replace(RUNNING, resources=big), replace(RUNNING, id=TaskId("t2"), resources=big))


def a_port_is_given_twice(world: World) -> None:
    port = Resources(ports=frozenset({("tcp", 80)}))
    world.commit(HOST, replace(RUNNING, resources=port), replace(RUNNING, id=TaskId("t2"), resources=port))


def a_draining_host_gets_a_task(world: World) -> None:
    world.commit(replace(HOST, status="DRAINING"), RUNNING)


def two_of_an_exclusive_group_have_hosts(world: World) -> None:
    order = TaskOrder(exclusive="g")
    world.commit(HOST, replace(RUNNING, order=order), replace(RUNNING, id=TaskId("t2"), order=order))


def an_increment_on_another_set(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.frame(1, base=0)


def a_set_lacks_a_task(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1)


def an_increment_forgets_a_wish(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.commit(replace(RUNNING, desired=DesiredStatus.STOPPED, stopped_reason="x"))
    world.frame(2, base=1)


def what_may_run_once_is_wanted_of_a_host_that_lost_it(world: World) -> None:
    once = replace(RUNNING, spec=replace(RUNNING.spec, isolation_kill_s=25.0))
    world.commit(HOST, once)
    world.frame(1, once)
    world.commit(replace(once, lost_at=5.0))
    world.commit(once)  # taken back
    world.frame(3, once)


def a_container_that_nobody_asked_for(world: World) -> None:
    world.box(starts=0)


def a_prepared_task_is_started(world: World) -> None:
    prepared = replace(RUNNING, status=TaskStatus.PENDING, desired=DesiredStatus.PENDING)
    world.commit(HOST, prepared)
    world.frame(1, prepared)
    world.box()


def a_task_runs_twice(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box(1, codes=(1,))
    world.box(2)


def a_container_restarts_without_a_policy(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box(codes=(1,), starts=2)


def what_is_not_ours_is_touched(world: World) -> None:
    world.box(foreign=True)


def reports_go_back(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box()
    world.report(2, TaskStatus.RUNNING, ContainerStatus.RUNNING)
    world.report(1, TaskStatus.PENDING, ContainerStatus.CREATED)


def a_running_task_is_reported_stopped(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box()
    world.report(1, TaskStatus.STOPPED, ContainerStatus.CREATED)


def another_exit_code_is_reported(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box(codes=(7,))
    world.report(1, TaskStatus.STOPPED, ContainerStatus.STOPPED, 0)


def an_exit_code_is_not_reported(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.frame(1, RUNNING)
    world.box(codes=(7,))
    world.report(1, TaskStatus.STOPPED, ContainerStatus.STOPPED)


def an_answer_names_what_is_not_there(world: World) -> None:
    world.promises.answer("RunTask", {}, {"tasks": [{"taskArn": "arn:task/default/t1"}]}, 0)


def a_stop_is_answered_and_not_wished(world: World) -> None:
    world.commit(HOST, RUNNING)
    world.promises.answer("StopTask", {}, {"task": {"taskArn": "arn:task/default/t1"}}, 1)


def a_500(world: World) -> None:
    world.promises.answer("RunTask", {}, Refused("ServerException", "oh"), 0)


def more_tasks_than_the_maximum(world: World) -> None:
    _service(world)
    world.commit(*(_of_service(name) for name in ("t1", "t2", "t3")))


def fewer_healthy_tasks_than_the_minimum(world: World) -> None:
    _service(world)
    running = _of_service("t1")
    world.commit(running, _of_service("t2"))
    asked = {"desired": DesiredStatus.STOPPED, "stopped_reason": "scaling"}
    world.commit(replace(running, stop_code=StopCode.SERVICE_SCHEDULER_INITIATED, **asked))


def two_of_a_daemon_on_a_host(world: World) -> None:
    _service(world, scheduling_strategy="DAEMON")
    world.commit(_of_service("t1"), _of_service("t2"))


def a_task_of_no_live_deployment(world: World) -> None:
    _service(world)
    world.commit(_of_service("t1", started_by="ecs-svc/9"))


def a_task_is_replaced_too_early(world: World) -> None:
    _service(world)
    world.commit(_of_service("t1"))
    world.state.presence.put(InstanceId("h1"), Presence(connected=False, since=1.0, last_seen_at=1.0, heard_at=100.0))
    world.commit(_of_service("t1", lost_at=5000.0))


def a_failure_is_counted_twice(world: World) -> None:
    _service(world)
    world.commit(_deployment(failed_tasks=1))


def a_deployment_fails_without_a_reason(world: World) -> None:
    _service(world)
    world.commit(_deployment(rollout=RolloutState.FAILED, finished_at=2.0))


def a_deployment_ends_twice(world: World) -> None:
    _service(world)
    world.commit(_deployment(rollout=RolloutState.COMPLETED, finished_at=2.0))
    world.commit(_deployment(rollout=RolloutState.FAILED, finished_at=2.0, rollout_reason="why"))


def a_crash_loop_is_not_delayed(world: World) -> None:
    _service(world, desired_count=1)
    for number in range(40):
        running = _of_service(f"t{number}")
        end = {"status": TaskStatus.STOPPED, "desired": DesiredStatus.STOPPED, "stopped_at": 2.0, "settled": True}
        world.commit(running)
        world.commit(replace(running, **end, stopped_reason="crashed", reported_seq=1))


WRONG: list[tuple[Callable[[World], None], str]] = [
    (a_revision_is_left_out, history.DURABLE),
    (an_undurable_answer, history.DURABLE),
    (a_told_commit_is_gone_after_a_restart, history.DURABLE),
    (a_record_is_loaded_unlike_it_was_written, history.DURABLE),
    (a_task_goes_back, tasks.ADVANCE),
    (a_task_changes_its_host, tasks.ADVANCE),
    (an_end_is_invented, tasks.INVENTED),
    (an_end_without_a_reason, tasks.REASON),
    (a_stop_that_no_story_tells_of, tasks.REASON),
    (an_exit_code_changes, "exit codes stay (6)"),
    (a_running_task_leaves_memory, "nothing is lost"),
    (a_task_is_run_again_twice, tasks.RETRY),
    (a_token_makes_other_tasks, tasks.IDEMPOTENT),
    (a_token_makes_more_than_asked, tasks.IDEMPOTENT),
    (memory_is_given_twice, hosts.CAPACITY),
    (a_port_is_given_twice, hosts.CAPACITY),
    (a_draining_host_gets_a_task, hosts.PLACED),
    (two_of_an_exclusive_group_have_hosts, hosts.EXCLUSIVE),
    (an_increment_on_another_set, assignments.FOLD),
    (a_set_lacks_a_task, assignments.FOLD),
    (what_may_run_once_is_wanted_of_a_host_that_lost_it, assignments.GIVEN_UP),
    (an_increment_forgets_a_wish, assignments.FOLD),
    (a_container_that_nobody_asked_for, containers.UNASKED),
    (a_prepared_task_is_started, containers.UNASKED),
    (a_task_runs_twice, containers.ONCE),
    (a_container_restarts_without_a_policy, containers.ONCE),
    (what_is_not_ours_is_touched, containers.FOREIGN),
    (reports_go_back, containers.REPORTS),
    (a_running_task_is_reported_stopped, containers.INVENTED),
    (another_exit_code_is_reported, containers.EXIT_CODES),
    (an_exit_code_is_not_reported, containers.EXIT_CODES),
    (an_answer_names_what_is_not_there, promises.ANSWERS),
    (a_stop_is_answered_and_not_wished, promises.ANSWERS),
    (a_500, promises.FAULTLESS),
    (more_tasks_than_the_maximum, services.BOUNDS),
    (fewer_healthy_tasks_than_the_minimum, services.BOUNDS),
    (two_of_a_daemon_on_a_host, services.ONE_PER_HOST),
    (a_task_of_no_live_deployment, services.SERVICE),
    (a_task_is_replaced_too_early, services.GRACE),
    (a_failure_is_counted_twice, services.COUNTED_ONCE),
    (a_deployment_fails_without_a_reason, services.DEPLOYMENT),
    (a_deployment_ends_twice, services.DEPLOYMENT),
    (a_crash_loop_is_not_delayed, pace.PACE),
]


@pytest.mark.parametrize(("wrong", "invariant"), WRONG, ids=[wrong.__name__ for wrong, _ in WRONG])
def test_what_is_wrong_is_found(wrong: Callable[[World], None], invariant: str) -> None:
    with pytest.raises(Violation) as found:
        wrong(World())
    assert found.value.invariant == invariant


def test_what_is_right_is_let_by() -> None:
    world = World()
    placed = replace(RUNNING, status=TaskStatus.PENDING)
    world.commit(HOST, placed)
    world.history.told(1, "an answer", 1)
    world.frame(1, placed)
    entry = world.box()
    world.report(1, TaskStatus.RUNNING, ContainerStatus.RUNNING)
    world.commit(replace(RUNNING, reported_seq=1))
    entry.ends.append(End(2.0, 7, "exited"))
    world.containers.engine("h1", entry)
    world.report(2, TaskStatus.STOPPED, ContainerStatus.STOPPED, 7)
    ended = replace(STOPPED, reported_seq=2, settled=True)
    world.commit(ended)
    world.frame(3, base=1, remove=("t1",))
    world.commit(archive=(ended,))
    world.history.told(4, "an answer", 4)
    assert world.history.archived == {"t1": ended}


def test_a_restart_may_lose_what_nobody_was_told_of() -> None:
    world = World()
    world.commit(HOST)
    world.commit(RUNNING)
    state = State(MemoryJournal())
    with state.transaction() as transaction:
        transaction.put(HOST)
    world.history.told(1, "an answer", 1)
    world.history.loaded(state)
    assert world.history.revision == 1
    assert not world.history.tasks
    assert [each.id for each in world.history.all(InstanceRecord)] == ["h1"]
