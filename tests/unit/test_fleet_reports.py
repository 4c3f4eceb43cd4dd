"""apply_report: what an agent says of a task, and what becomes of the record and the story."""

from msgspec.structs import replace

from controlplane.context import Context
from controlplane.fleet.departure import give_up_tasks
from controlplane.fleet.reports import apply_report
from controlplane.state.records import InstanceRecord, TaskRecord
from homeport.ids import InstanceId, TaskId
from homeport.protocol import ContainerReport, HostFacts, TaskReport
from homeport.reasons import REASON_MAX_LENGTH
from homeport.spec import Resources
from homeport.status import ContainerStatus, DesiredStatus, HealthStatus, StopCode, TaskStatus
from homeport.story import StoryLine
from tests.fakes.fleet import a_context, a_task
from tests.fakes.journal import MemoryJournal

HOST = InstanceId("h1")
TASK = TaskId("t1")


def prepared(task: TaskRecord | None = None) -> Context:
    context = a_context()
    facts = HostFacts(hostname="rack-7", agent_version="1", resources=Resources(cpu_units=1024, memory_mib=1024))
    with context.state.transaction() as transaction:
        transaction.put(InstanceRecord(id=HOST, cluster="default", public_key="k", registered_at=1.0, facts=facts))
        transaction.put(task or a_task(TASK, HOST))
    return context


def the_task(context: Context) -> TaskRecord:
    task = context.state.tasks.get(TASK)
    assert task is not None
    return task


def stories(context: Context) -> list[StoryLine]:
    journal = context.state.journal
    assert isinstance(journal, MemoryJournal)
    return [line for commit in journal.commits for _, line in commit.stories]


def report(seq: int, status: TaskStatus, **more: object) -> TaskReport:
    return replace(TaskReport(task_id=TASK, seq=seq, status=status), **more)


def line(message: str) -> StoryLine:
    return StoryLine(at=5.0, event="started", message=message, actor="somebody", host="elsewhere")


def test_a_report_is_taken_over_as_told() -> None:
    context = prepared()
    container = ContainerReport(name="main", status=ContainerStatus.RUNNING, health=HealthStatus.HEALTHY)
    assert apply_report(
        context,
        HOST,
        report(1, TaskStatus.RUNNING, containers=(container,), started_at=7.5, pull_started_at=6.0),
    )
    task = the_task(context)
    assert (task.status, task.started_at, task.pull_started_at) == (TaskStatus.RUNNING, 7.5, 6.0)
    assert task.containers == (container,)
    assert task.version == 2


def test_a_repeated_report_writes_nothing() -> None:
    context = prepared()
    told = report(3, TaskStatus.RUNNING, story=((3, line("once")),))
    assert apply_report(context, HOST, told)
    revision = context.state.revision
    assert not apply_report(context, HOST, told)
    assert not apply_report(context, HOST, report(2, TaskStatus.STOPPED))
    assert context.state.revision == revision


def test_a_report_of_another_hosts_task_or_of_an_unknown_task_is_refused() -> None:
    context = prepared()
    revision = context.state.revision
    assert not apply_report(context, InstanceId("h2"), report(1, TaskStatus.STOPPED))
    assert not apply_report(context, HOST, replace(report(1, TaskStatus.STOPPED), task_id=TaskId("unknown")))
    assert context.state.revision == revision


def test_a_task_never_goes_back() -> None:
    context = prepared()
    apply_report(context, HOST, report(1, TaskStatus.RUNNING))
    apply_report(context, HOST, report(2, TaskStatus.PENDING))
    assert the_task(context).status is TaskStatus.RUNNING
    assert the_task(context).reported_seq == 2


def test_only_what_can_be_seen_raises_the_version() -> None:
    context = prepared()
    apply_report(context, HOST, report(1, TaskStatus.RUNNING))
    version = the_task(context).version
    apply_report(context, HOST, report(2, TaskStatus.RUNNING, story=((2, line("still there")),)))
    assert the_task(context).version == version


def test_the_first_terminal_reason_stays() -> None:
    stopping = replace(
        a_task(TASK, HOST),
        desired=DesiredStatus.STOPPED,
        stop_code=StopCode.USER_INITIATED,
        stopped_reason="Task stopped by user",
    )
    context = prepared(stopping)
    ended = report(
        1,
        TaskStatus.STOPPED,
        stop_code=StopCode.ESSENTIAL_CONTAINER_EXITED,
        stopped_reason="Essential container in task exited",
        stopped_at=9.0,
    )
    apply_report(context, HOST, ended)
    task = the_task(context)
    assert (task.stop_code, task.stopped_reason) == (StopCode.USER_INITIATED, "Task stopped by user")
    assert task.stopped_at == 9.0


def test_the_hosts_reason_counts_where_there_is_none_and_is_cut_to_ecs_length() -> None:
    context = prepared()
    apply_report(
        context,
        HOST,
        report(1, TaskStatus.STOPPED, stop_code=StopCode.TASK_FAILED_TO_START, stopped_reason="x" * 5000),
    )
    task = the_task(context)
    assert task.stop_code is StopCode.TASK_FAILED_TO_START
    assert task.stopped_reason is not None
    assert len(task.stopped_reason) == REASON_MAX_LENGTH
    assert task.desired is DesiredStatus.STOPPED
    assert task.stopped_at is not None


def test_stopped_frees_what_the_task_held() -> None:
    context = prepared()
    assert context.state.load.of(HOST).memory_mib == 32
    apply_report(context, HOST, report(1, TaskStatus.STOPPING))
    assert context.state.load.of(HOST).memory_mib == 32
    apply_report(context, HOST, report(2, TaskStatus.STOPPED))
    assert context.state.load.of(HOST).memory_mib == 0


def test_story_lines_are_told_once_and_under_the_hosts_own_name() -> None:
    context = prepared()
    apply_report(context, HOST, report(2, TaskStatus.PENDING, story=((1, line("a")), (2, line("b")))))
    apply_report(context, HOST, report(4, TaskStatus.RUNNING, story=((1, line("a")), (2, line("b")), (4, line("c")))))
    told = stories(context)
    assert [entry.message for entry in told] == ["a", "b", "c"]
    assert {(entry.host, entry.actor) for entry in told} == {("rack-7", "agent")}


def test_a_task_given_up_gets_its_true_end_if_the_host_comes_back() -> None:
    context = prepared()
    running = ContainerReport(name="main", status=ContainerStatus.RUNNING)
    apply_report(context, HOST, report(1, TaskStatus.RUNNING, containers=(running,)))
    instance = context.state.instances.get(HOST)
    assert instance is not None
    (given_up,) = give_up_tasks(context, instance, "the host was deregistered", None)
    assert given_up.status is TaskStatus.STOPPED
    assert given_up.containers[0].status is ContainerStatus.STOPPED
    assert given_up.containers[0].exit_code is None
    assert stories(context)[-1].actor == "liveness"
    apply_report(context, HOST, report(2, TaskStatus.RUNNING, containers=(running,)))
    assert the_task(context).containers[0].status is ContainerStatus.STOPPED
    ended = ContainerReport(name="main", status=ContainerStatus.STOPPED, exit_code=3)
    apply_report(context, HOST, report(3, TaskStatus.STOPPED, containers=(ended,), stopped_reason="late"))
    task = the_task(context)
    assert task.containers[0].exit_code == 3
    assert task.stopped_reason == "the host was deregistered"
    assert task.stopped_at == given_up.stopped_at


def test_giving_up_leaves_other_hosts_and_earlier_reasons_alone() -> None:
    context = prepared(
        replace(a_task(TASK, HOST), stop_code=StopCode.USER_INITIATED, stopped_reason="Task stopped by user")
    )
    with context.state.transaction() as transaction:
        transaction.put(a_task("t2", "h2"))
        transaction.put(replace(a_task("t3", HOST), status=TaskStatus.STOPPED))
    instance = context.state.instances.get(HOST)
    assert instance is not None
    given_up = give_up_tasks(context, instance, "gone", StopCode.TERMINATION_NOTICE)
    assert [task.id for task in given_up] == [TASK]
    assert the_task(context).stop_code is StopCode.USER_INITIATED
    assert context.state.load.of(HOST).tasks == 0
    assert give_up_tasks(context, instance, "gone", None) == ()


def test_what_a_host_says_is_kept_within_bounds() -> None:
    context = prepared()
    own = ContainerReport(name="main", status=ContainerStatus.STOPPED, reason="r" * 5000)
    foreign = ContainerReport(name="not-in-the-spec", status=ContainerStatus.RUNNING)
    long = StoryLine(at=1.0, event="e" * 100, message="m" * 5000, actor="agent")
    apply_report(context, HOST, report(1, TaskStatus.RUNNING, containers=(own, foreign), story=((1, long),)))
    (kept,) = the_task(context).containers
    assert kept.name == "main"
    assert kept.reason is not None
    assert len(kept.reason) == REASON_MAX_LENGTH
    (told,) = stories(context)
    assert (len(told.message), len(told.event)) == (REASON_MAX_LENGTH, 64)
