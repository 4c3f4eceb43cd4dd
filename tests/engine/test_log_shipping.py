"""Output on its way from a real Engine to the control plane's end of the log link."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.engine.logfile import LogFileReader
from agent.engine.output import Spool
from homeport.spec import LogShipping
from homeport.status import TaskStatus
from tests.engine.conftest import Lab
from tests.engine.test_worker_real import Bench
from tests.fakes.fleet import eventually
from tests.fakes.log_intake import LogIntake, serve_intake
from tests.fakes.shipping import Shipyard, a_state

pytestmark = pytest.mark.engine

SHIPPING = LogShipping(group="g", stream_prefix="p")


@pytest.fixture
async def intake() -> AsyncIterator[LogIntake]:
    async with serve_intake() as intake:
        yield intake


@pytest.fixture(params=["files", "api"])
def yard(
    lab: Lab, intake: LogIntake, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Shipyard:
    """Twice: for an agent that may read the Engine's files, and for one that may not."""
    if request.param == "api":
        monkeypatch.setattr("agent.engine.docker.open_log_file", refuse)
    return Shipyard(lab.engine, intake, tmp_path)


async def refuse(path: Path, position: str, *, spool: Spool) -> LogFileReader:
    raise PermissionError(path)


async def test_all_that_a_container_says_before_it_crashes_arrives(lab: Lab, yard: Shipyard, intake: LogIntake) -> None:
    script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; echo oops >&2; printf 'no end'; exit 3"
    container = await lab.start("sh", "-c", script, shipping=SHIPPING)
    await lab.exited(container)
    async with yard.running(a_state(container, stopped=True)) as shipper:
        await eventually(lambda: intake.of("t1").ended and not shipper.unshipped(a_state("").task_id))
    assert sorted(intake.of("t1").lines) == sorted([*(f"line {n}" for n in range(100)), "oops", "no end"])
    assert intake.of("t1").gaps == []


async def test_a_task_that_crashes_at_once_is_removed_when_all_it_said_is_kept(
    lab: Lab, yard: Shipyard, intake: LogIntake, tmp_path: Path
) -> None:
    host = Bench(tmp_path / "agent.db", lab)
    async with yard.running() as shipper:
        host.shipping = shipper
        async with host.running() as worker:
            await host.run(lab.container("main", "seq", "1", "100", shipping=SHIPPING))
            await host.reaches(TaskStatus.STOPPED)
            await host.assign(remove=(host.task_id,))
            await eventually(lambda: not worker.tasks())
    kept = intake.of(host.task_id, "main")
    assert kept.lines == [str(number) for number in range(1, 101)]
    assert kept.ended
    assert kept.gaps == []


async def test_a_lone_line_arrives_at_once_and_a_restart_in_place_goes_on(
    lab: Lab, yard: Shipyard, intake: LogIntake
) -> None:
    container = await lab.start("sh", "-c", "echo hello; sleep 1000", shipping=SHIPPING)
    async with yard.running(a_state(container)):
        await eventually(lambda: intake.of("t1").lines == ["hello"])
        await lab.engine.stop(container, 0)
        await lab.engine.start(container)
        await eventually(lambda: intake.of("t1").lines == ["hello", "hello"])
    assert not intake.of("t1").ended


async def test_long_lines_are_put_together(lab: Lab, yard: Shipyard, intake: LogIntake) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' x; echo; head -c 300000 /dev/zero | tr '\\0' y; echo; echo short"
    container = await lab.start("sh", "-c", script, shipping=SHIPPING)
    await lab.exited(container)
    async with yard.running(a_state(container, stopped=True)):
        await eventually(lambda: intake.of("t1").ended)
    lines = intake.of("t1").lines
    assert lines[0] == "x" * 100000
    assert "".join(lines[1:-1]) == "y" * 300000
    assert len(lines) == 4
    assert not intake.problems


async def test_rotation_loses_nothing_unmarked(lab: Lab, yard: Shipyard, intake: LogIntake) -> None:
    """Files of 100 kB, so that they rotate hundreds of times, several times while the link is broken."""
    plan = lab.plan("sh", "-c", "seq 1 60000; sleep 1000", shipping=SHIPPING)
    plan.body["HostConfig"]["LogConfig"]["Config"]["max-size"] = "100k"
    container = await lab.engine.create(plan)
    await lab.engine.start(container)
    intake.break_chance = 0.1
    kept = intake.of("t1")
    async with yard.running(a_state(container)):
        await eventually(lambda: kept.lines[-1:] == ["60000"])
    numbers = [(int(text) if kind != 2 else None) for _, kind, text in kept.events]
    told = [n for n in numbers if n is not None]
    assert told == sorted(set(told))
    expected = 1
    for number in numbers:
        if number is None:
            expected = 0
        else:
            assert expected in (number, 0), f"{expected} to {number} are missing"
            expected = number + 1
    assert not intake.problems


@pytest.mark.slow
async def test_two_hundred_containers(lab: Lab, yard: Shipyard, intake: LogIntake) -> None:
    count = 200

    async def start(number: int) -> str:
        async with lab.engine.start_turn():
            return await lab.start("sh", "-c", f"echo {number}; sleep 1000", shipping=SHIPPING)

    containers = await asyncio.gather(*(start(number) for number in range(count)))
    states = [a_state(each, task_id=f"t{number}") for number, each in enumerate(containers)]
    async with yard.running(*states):
        await eventually(lambda: all(intake.of(f"t{n}").lines == [str(n)] for n in range(count)))
