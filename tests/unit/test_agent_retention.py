"""Finished tasks whose output isn't shipped yet are held, within bounds, and what must go is told to be missing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.retention import MAX_HELD, MAX_KEPT, UNSHIPPED_AFTER_S, Due, due
from agent.task.model import TaskState
from homeport.ids import TaskId
from homeport.protocol import Goodbye
from homeport.status import DesiredStatus, StopCode, TaskStatus
from tests.fakes.agent_host import AgentHost, assignment, spec_of
from tests.fakes.clock import MovableClock
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import eventually
from tests.fakes.log_intake import LogIntake, serve_intake
from tests.fakes.shipping import Shipyard, a_state, shipped

HOUR = 3600.0


def over(number: int, removed_at: float | None = 0.0) -> TaskState:
    state = a_state("r", task_id=f"t{number:04d}", stopped=True)
    return replace(state, status=TaskStatus.STOPPED, removed_at=removed_at, stop_code=StopCode.USER_INITIATED)


def test_what_is_shipped_goes_after_an_hour_and_the_rest_after_a_day() -> None:
    states = [over(1), over(2, 60.0), over(3)]
    unshipped = {states[2].task_id}
    assert due(states, 10.0, HOUR, unshipped.__contains__) == Due((), HOUR)
    assert due(states, HOUR, HOUR, unshipped.__contains__) == Due((states[0].task_id,), HOUR + 60)
    gone = due(states, UNSHIPPED_AFTER_S, HOUR, unshipped.__contains__)
    assert (set(gone.now), gone.next_at) == ({state.task_id for state in states}, None)


def test_nothing_goes_that_runs_or_that_the_control_plane_holds() -> None:
    running = a_state("r", task_id="running")
    assert due([running, over(1, None)], 1e12, HOUR, lambda _: False) == Due((), None)


def test_what_never_ran_goes_at_once() -> None:
    state = over(1, 5.0)
    state = replace(state, stop_code=None, containers=(replace(state.containers[0], started_at=None),))
    assert due([state], 5.0, HOUR, lambda _: True).now == (state.task_id,)


@pytest.mark.parametrize(("unshipped", "most"), [(False, MAX_KEPT), (True, MAX_HELD)])
def test_of_too_many_the_oldest_go(unshipped: bool, most: int) -> None:
    states = [over(number, float(number)) for number in range(most + 3)]
    assert due(states, 0.0, HOUR, lambda _: unshipped).now == ("t0000", "t0001", "t0002")


def test_what_is_held_takes_no_room_from_what_is_shipped() -> None:
    states = [over(number) for number in range(MAX_KEPT * 2)]
    held = {state.task_id for state in states[:MAX_KEPT]}
    assert due(states, 0.0, HOUR, held.__contains__).now == ()


# ---------------------------------------------------------------- a whole agent


@pytest.fixture
async def intake() -> AsyncIterator[LogIntake]:
    async with serve_intake() as intake:
        yield intake


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def engine(tmp_path: Path, clock: MovableClock) -> FakeEngine:
    return FakeEngine(clock, images=["web:1"], log_dir=tmp_path)


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine, clock: MovableClock) -> AgentHost:
    return AgentHost(tmp_path / "agent.db", engine, clock, cleanup_after_s=0.0)


@pytest.fixture
def yard(engine: FakeEngine, intake: LogIntake, tmp_path: Path, clock: MovableClock) -> Shipyard:
    return Shipyard(engine, intake, tmp_path, clock=clock)


async def crash(host: AgentHost, engine: FakeEngine) -> None:
    """Run a task that says something and dies; the control plane lets go of it."""
    await host.assign(assignment(spec_of(shipped())))
    await host.until_status(TaskStatus.RUNNING)
    engine.write_log("web", "last words")
    engine.exit("web", 1)
    await host.until_status(TaskStatus.STOPPED)
    await host.assign(remove=("t1",))


async def test_a_container_stays_until_its_output_is_kept(
    host: AgentHost, engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    intake.goodbye = Goodbye(reason="away", retry_after_s=0.01)
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running():
            await crash(host, engine)
            await eventually(lambda: len(intake.hellos) > 2)
            assert engine.find("web").state == "exited"
    # A new agent finds it in its journal.
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running() as worker:
            await eventually(lambda: shipper.unshipped(TaskId("t1")))
            intake.goodbye = None
            await eventually(lambda: not worker.tasks())
    assert intake.of("t1").lines == ["last words"]
    assert intake.of("t1").gaps == []
    assert intake.of("t1").ended
    assert engine.containers() == ()


async def test_after_a_day_it_goes_and_the_loss_is_told(
    host: AgentHost, engine: FakeEngine, yard: Shipyard, intake: LogIntake, clock: MovableClock
) -> None:
    intake.goodbye = Goodbye(reason="away", retry_after_s=0.01)
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running() as worker:
            await crash(host, engine)
            await eventually(lambda: worker.tasks()[0].removed_at is not None)
            clock.move(UNSHIPPED_AFTER_S + 1)
            engine.resync()
            await eventually(lambda: not worker.tasks())
            assert engine.containers() == ()
    async with yard.running():
        intake.goodbye = None
        await eventually(lambda: intake.of("t1").ended)
    (gap,) = intake.of("t1").gaps
    assert gap.endswith("removed from its host before its output could be shipped")


async def test_a_task_that_was_called_off_leaves_nothing_to_ship(
    host: AgentHost, engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running() as worker:
            with engine.busy():
                await host.assign(assignment(spec_of(shipped())))
                await host.assign(assignment(spec_of(shipped()), desired=DesiredStatus.STOPPED))
                await host.until_status(TaskStatus.STOPPED)
            await host.assign(remove=("t1",))
            await eventually(lambda: not worker.tasks())
            assert shipper.streams() == ()
    assert intake.opened == []


async def test_a_host_that_is_deregistered_gives_up_without_a_word(
    host: AgentHost, engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    intake.goodbye = Goodbye(reason="no more", final=True)
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running() as worker:
            await crash(host, engine)
            await worker.deregistered("no more")
            assert worker.tasks() == ()
            assert shipper.streams() == ()
    assert not (yard.path / "unshipped.json").exists()


async def test_notes_that_cannot_be_written_are_told_by_this_agent_at_least(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("agent.logs.unshipped.write_private", refuse)
    intake.goodbye = Goodbye(reason="away", retry_after_s=0.01)
    state = a_state("r", stopped=True)
    async with yard.running(state) as shipper:
        await shipper.give_up(state.task_id, "it was too late")
        intake.goodbye = None
        await eventually(lambda: intake.of("t1").ended)
        await eventually(lambda: not shipper.streams())
    assert len(intake.of("t1").gaps) == 1
