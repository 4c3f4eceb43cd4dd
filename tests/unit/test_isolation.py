"""Tasks that may run at most once: they stop by themselves when the control plane can't be reached for too long."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.isolation import Contact, Due, due, since_boot_s, this_boot
from agent.task.messages import Isolated, Stop, Wanted
from homeport import reasons
from homeport.spec import TaskSpec
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from tests.fakes.agent_host import AgentHost, assignment, container, depends, restarts, spec_of
from tests.fakes.clock import MovableClock
from tests.fakes.engine import FakeEngine
from tests.fakes.task_world import Driver

SINGLE: dict[str, Any] = {"isolation_stop_s": 25.0, "isolation_kill_s": 55.0}


def single(task_id: str = "t1", **more: Any) -> TaskSpec:
    """A task of which at most one may run."""
    return spec_of(container("web", restart_policy=restarts(0), **more), task_id=task_id, **SINGLE)


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("silent_s", "expected"),
    [
        (0.0, Due(next_at=1025.0)),
        (24.9, Due(next_at=1025.0)),
        (25.0, Due(stage="stop", next_at=1055.0)),
        (54.9, Due(stage="stop", next_at=1055.0)),
        (55.0, Due(stage="kill")),
        (1e6, Due(stage="kill")),
    ],
)
def test_stop_and_kill_are_due_after_so_much_silence(silent_s: float, expected: Due) -> None:
    assert due(single(), 1000.0, 1000.0 + silent_s) == expected


def test_unknown_counts_as_too_long_and_other_tasks_do_not_care() -> None:
    assert due(single(), None, 0.0) == Due(stage="kill")
    assert due(spec_of(), None, 0.0) == Due()


# ---------------------------------------------------------------- the last contact


def test_the_last_contact_outlives_the_agent_but_not_the_boot(tmp_path: Path) -> None:
    path = tmp_path / "contact"
    first = Contact(path, elapsed=lambda: 130.0, boot="a")
    first.load()
    assert first.silent_s() is None
    first.note(123.25)
    first.note(120.0)
    assert (first.at, first.silent_s()) == (123.25, 6.75)
    again, other = Contact(path, boot="a"), Contact(path, boot="b")
    again.load()
    other.load()
    assert (again.at, other.at) == (123.25, None)


@pytest.mark.parametrize("content", [b"", b"a", b"a x", b"\xff\xfe", b"a 1 2"])
def test_a_damaged_file_is_no_contact(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "contact"
    path.write_bytes(content)
    contact = Contact(path, boot="a")
    contact.load()
    assert contact.at is None


def test_a_contact_that_cannot_be_kept_counts_all_the_same(tmp_path: Path) -> None:
    contact = Contact(tmp_path / "no" / "such" / "directory", boot="a")
    contact.note(5.0)
    assert contact.at == 5.0


def test_this_machine_tells_its_boot_and_the_time_since() -> None:
    assert len(this_boot()) == 36
    assert 0 < since_boot_s() <= since_boot_s()


# ---------------------------------------------------------------- one task


def test_it_stops_with_a_reason_that_says_why_and_for_how_long() -> None:
    task = Driver(assignment(single())).go().go(Isolated(25.4))
    assert task.over()
    assert task.state.stop_code is StopCode.SERVICE_SCHEDULER_INITIATED
    assert task.state.stopped_reason == (
        "The host could not reach the control plane for 25 s; the task was stopped there, as at most one of it may run "
        "(homeport:stop-when-isolated)"
    )
    assert task.told("isolated") == task.state.stopped_reason
    assert task.told("stopped") == f"Stopped: {task.state.stopped_reason}"


def test_its_restart_policy_does_not_bring_it_back() -> None:
    task = Driver(assignment(single())).go().wait(5).exits("web", 1)
    assert task.state.containers[0].restart_count == 1
    task.tell(Isolated(25.0))
    task.go()
    assert task.over()
    assert task.world.boxes["web"].starts == 2


def test_the_kill_waits_neither_for_stop_timeouts_nor_for_the_order() -> None:
    db, app = container("db"), container("app", depends_on=[depends("db")])
    task = Driver(assignment(spec_of(db, app, **SINGLE))).go().tell(Isolated(25.0))
    (first,) = task.flying
    assert first == Stop("app", "id2", 30)
    task.tell(Isolated(55.0, kill=True))
    stops = sorted((a.container, a.timeout_s) for a in task.flying if isinstance(a, Stop))
    assert stops == [("app", 0), ("app", 30), ("db", 0)]
    task.tell(Isolated(56.0, kill=True))
    assert len(task.flying) == 3, "once is enough"
    task.go()
    assert task.over()


def test_a_stop_asked_for_earlier_is_hurried_too() -> None:
    task = Driver(assignment(single(stop_timeout_s=120))).go().tell(Wanted(DesiredStatus.STOPPED, "Scaling"))
    task.tell(Isolated(25.0), Isolated(55.0, kill=True))
    assert [a.timeout_s for a in task.flying if isinstance(a, Stop)] == [120, 0]
    task.go()
    assert task.over()
    assert task.told("stopping") == "Asked to stop: Scaling"


# ---------------------------------------------------------------- a host


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(MovableClock(), images=["web:1"])


class Line:
    """The time since a boot, in the hands of a test; contacts of all workers of a host are kept in one file."""

    def __init__(self, path: Path) -> None:
        self.now = 1000.0
        self.boot = "a"
        self._path = path

    def contact(self) -> Contact:
        contact = Contact(self._path, elapsed=lambda: self.now, boot=self.boot)
        contact.load()
        return contact


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "contact")


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine, line: Line) -> AgentHost:
    return AgentHost(tmp_path / "agent.db", engine, engine.clock, contact=line.contact)


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110  # it looks at plain values, which tell nobody
            await asyncio.sleep(0.002)


def speak(host: AgentHost) -> None:
    """A heartbeat is sent and acknowledged."""
    host.worker.contact_made(host.worker.contact_begins())


def look(host: AgentHost) -> None:
    """Have the worker look at the time: another task of this kind comes."""
    host.worker.isolation.wake()


async def run_single(host: AgentHost) -> None:
    speak(host)
    await host.assign(assignment(single()), assignment(task_id="t2"))
    await host.until_status(TaskStatus.RUNNING)
    await host.until_status(TaskStatus.RUNNING, task_id="t2")


async def test_only_silence_stops_it_and_only_it(host: AgentHost, line: Line, engine: FakeEngine) -> None:
    async with host.running():
        await run_single(host)
        for _ in range(10):
            line.now += 20.0
            speak(host)
            look(host)
            await asyncio.sleep(0)
        assert host.reports["t1"].status is TaskStatus.RUNNING
        line.now += 26.0
        look(host)
        stopped = await host.until_status(TaskStatus.STOPPED)
        assert stopped.stopped_reason == reasons.ISOLATED.format(silent_s=26)
        assert host.reports["t2"].status is TaskStatus.RUNNING
    assert engine.count("stop") == 1


async def test_heartbeats_come_often_enough_while_there_is_one(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        assert worker.heartbeat_within_s == float("inf")
        await run_single(host)
        assert worker.heartbeat_within_s == pytest.approx(25 / 3)
        await host.assign(assignment(single(), desired=DesiredStatus.STOPPED))
        await host.until_status(TaskStatus.STOPPED)
        assert worker.heartbeat_within_s == float("inf")


async def test_what_takes_too_long_to_stop_is_killed_in_time(host: AgentHost, line: Line, engine: FakeEngine) -> None:
    async with host.running():
        await run_single(host)
        with engine.held("stop") as stops:
            line.now += 25.0
            look(host)
            await stops.arrived()
            line.now += 30.0
            look(host)
            await eventually(lambda: stops.count == 2)
            killing = await host.until(lambda report: report.story[-1][1].message.startswith("Killing"))
            assert killing.status is TaskStatus.STOPPING
            stops.release()
        await host.until_status(TaskStatus.STOPPED)


async def test_an_agent_that_restarts_while_isolated_counts_on(host: AgentHost, line: Line, engine: FakeEngine) -> None:
    async with host.running():
        await run_single(host)
    line.now += 20.0
    async with host.running():
        await host.until(lambda report: any(told.event == "adopted" for _, told in report.story))
        assert host.reports["t1"].status is TaskStatus.RUNNING
        line.now += 6.0
        look(host)
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stopped_reason == reasons.ISOLATED.format(silent_s=26)


async def test_an_agent_that_returns_too_late_stops_it_and_restarts_nothing(
    host: AgentHost, line: Line, engine: FakeEngine
) -> None:
    async with host.running():
        await run_single(host)
    engine.exit(engine.find("web", task="t1").container_id, 1)
    line.now += 100.0
    async with host.running():
        await host.until_status(TaskStatus.STOPPED)
        assert host.reports["t2"].status is TaskStatus.RUNNING
    assert engine.starts[engine.find("web", task="t1").container_id] == 1


async def test_after_a_reboot_the_last_contact_is_unknown_and_it_is_not_run_again(
    host: AgentHost, line: Line, engine: FakeEngine
) -> None:
    async with host.running():
        await run_single(host)
    for facts in engine.containers():
        engine.exit(facts.container_id, 255)
    line.boot, line.now = "b", 10.0
    async with host.running():
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stopped_reason == reasons.ISOLATED_UNKNOWN
    assert engine.starts[engine.find("web", task="t1").container_id] == 1


async def test_the_stop_goes_on_over_a_restart_even_when_the_control_plane_is_back(
    host: AgentHost, line: Line, engine: FakeEngine
) -> None:
    async with host.running():
        await run_single(host)
        with engine.held("stop") as stops:
            line.now += 25.0
            look(host)
            await stops.arrived()
            host.kill()
    async with host.running():
        speak(host)
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stopped_reason == reasons.ISOLATED.format(silent_s=25)


async def test_one_that_is_only_prepared_stays_and_is_watched_once_it_runs(host: AgentHost, line: Line) -> None:
    async with host.running():
        speak(host)
        await host.assign(assignment(single(), desired=DesiredStatus.PENDING))
        await host.until(lambda report: report.containers[0].status is ContainerStatus.CREATED)
        line.now += 100.0
        look(host)
        await asyncio.sleep(0.01)
        assert host.reports["t1"].status is TaskStatus.PENDING
        speak(host)
        await host.assign(assignment(single()))
        await host.until_status(TaskStatus.RUNNING)
        line.now += 26.0
        look(host)
        await host.until_status(TaskStatus.STOPPED)
