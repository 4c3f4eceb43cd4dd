"""Reports of many hosts that make one commit: each as if it had been applied alone."""

import asyncio

import pytest

from controlplane.context import Context
from controlplane.fleet import report_intake
from controlplane.fleet.report_intake import MAX_WAITING, ReportIntake
from controlplane.fleet.reports import apply_report
from homeport.ids import InstanceId, TaskId
from homeport.protocol import Goodbye, Reports, TaskReport
from homeport.status import TaskStatus
from tests.fakes.fleet import a_context, a_task
from tests.fakes.journal import MemoryJournal
from tests.fakes.tasks import background


class FakeSession:
    """A session that remembers what it was told."""

    def __init__(self, host: str) -> None:
        self.instance_id = InstanceId(host)
        self.acks: list[tuple[Reports, int]] = []
        self.goodbye: Goodbye | None = None

    def applied(self, reports: Reports, revision: int) -> None:
        self.acks.append((reports, revision))

    def end(self, goodbye: Goodbye) -> None:
        self.goodbye = goodbye


def running(*task_ids: str, seq: int = 1) -> Reports:
    return Reports(
        tasks=tuple(TaskReport(task_id=TaskId(name), seq=seq, status=TaskStatus.RUNNING) for name in task_ids)
    )


async def test_what_arrives_in_one_turn_is_one_commit() -> None:
    journal = MemoryJournal()
    context = a_context(journal)
    one, other = FakeSession("h1"), FakeSession("h2")
    with context.state.transaction() as transaction:
        transaction.put(a_task("t1", "h1"))
        transaction.put(a_task("t2", "h2"))
    intake = ReportIntake(context)
    before = len(journal.commits)
    async with background(intake.run()):
        intake.take(one, running("t1"))
        intake.take(other, running("t2", "t1"))  # t1 is none of this host's
        assert context.state.tasks.get("t1").status is TaskStatus.PENDING  # type: ignore[union-attr]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(journal.commits) == before + 1
    assert [task.status for task in context.state.tasks] == [TaskStatus.RUNNING] * 2
    assert one.acks == [(running("t1"), context.state.revision)]
    assert other.acks == [(running("t2", "t1"), context.state.revision)]


def test_what_waits_is_applied_before_whatever_asks_for_it() -> None:
    context = a_context()
    with context.state.transaction() as transaction:
        transaction.put(a_task("t1", "h1"))
    intake = ReportIntake(context)
    intake.take(FakeSession("h1"), running("t1"))
    intake.settle()
    assert context.state.tasks.count("phase", "running") == 1


def test_no_more_than_a_turns_work_waits() -> None:
    context = a_context()
    names = [f"t{number:04}" for number in range(MAX_WAITING + 1)]
    with context.state.transaction() as transaction:
        for name in names:
            transaction.put(a_task(name, "h1"))
    intake = ReportIntake(context)
    session = FakeSession("h1")
    for name in names:
        intake.take(session, running(name))
    assert context.state.tasks.count("phase", "running") == MAX_WAITING


def test_what_goes_wrong_with_one_frame_touches_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    context = a_context()
    with context.state.transaction() as transaction:
        for number in range(4):
            transaction.put(a_task(f"t{number}", f"h{number // 2}"))

    def fail_at_t1(context: Context, instance_id: InstanceId, report: TaskReport) -> bool:
        if report.task_id == "t1":
            raise KeyError("a bug")
        return apply_report(context, instance_id, report)

    monkeypatch.setattr(report_intake, "apply_report", fail_at_t1)
    intake = ReportIntake(context)
    ill, well = FakeSession("h0"), FakeSession("h1")
    intake.take(ill, running("t0", "t1"))
    intake.take(well, running("t2", "t3"))
    intake.settle()
    states = [task.status for task in context.state.tasks]
    assert states == [TaskStatus.PENDING, TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.RUNNING]
    assert ill.goodbye is not None
    assert (ill.acks, len(well.acks)) == ([], 1)
