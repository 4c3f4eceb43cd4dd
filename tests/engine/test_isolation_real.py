"""Tasks that may run at most once, on a real Engine: they are gone in time, whatever they do about it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.isolation import Contact, since_boot_s
from homeport.spec import ContainerSpec, Dependency, RestartPolicy
from homeport.status import StopCode, TaskStatus
from tests.engine.conftest import Lab
from tests.engine.test_worker_real import OBEDIENT, Bench

pytestmark = pytest.mark.engine

#: Ignores SIGTERM.
STUBBORN = ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
START_OF_FIRST = Dependency(container="first", condition="START")
#: Stop after a second of silence, kill after three.
STOP_S, KILL_S = 1.0, 3.0


@pytest.fixture
async def bench(lab: Lab, tmp_path: Path) -> AsyncIterator[Bench]:
    """An agent that keeps its last contact in a file, as the real one does."""

    def contact() -> Contact:
        kept = Contact(tmp_path / "contact")
        kept.load()
        return kept

    bench = Bench(tmp_path / "agent.db", lab, contact=contact)
    yield bench
    await lab.close()


def speak(bench: Bench) -> None:
    """A heartbeat is acknowledged."""
    bench.worker.contact_made(bench.worker.contact_begins())


async def run_single(bench: Bench, *containers: ContainerSpec, kill_s: float = KILL_S) -> None:
    """Run a task; the last contact is when it has begun to run, however long that takes."""

    async def keep_speaking() -> None:
        while True:
            speak(bench)
            await asyncio.sleep(STOP_S / 5)

    async with asyncio.TaskGroup() as group:
        speaking = group.create_task(keep_speaking())
        await bench.run(*containers, isolation_stop_s=STOP_S, isolation_kill_s=kill_s)
        await bench.reaches(TaskStatus.RUNNING)
        speaking.cancel()


async def test_an_obedient_one_is_asked_to_stop_and_its_policy_does_not_restart_it(bench: Bench, lab: Lab) -> None:
    policy = RestartPolicy(enabled=True, attempt_period_s=0)
    async with bench.running():
        await run_single(bench, lab.container("main", *OBEDIENT, restart_policy=policy), kill_s=30.0)
        last_contact = time.time()
        stopped = await bench.reaches(TaskStatus.STOPPED)
        facts = await bench.inspect()
    assert (facts.state, facts.exit_code) == ("exited", 7)
    assert facts.finished_at is not None
    assert STOP_S * 0.6 < facts.finished_at - last_contact < 30.0
    assert stopped.stop_code is StopCode.SERVICE_SCHEDULER_INITIATED
    assert "could not reach the control plane for " in stopped.stopped_reason


async def test_a_stubborn_one_is_killed_in_time_and_so_are_those_that_wait_for_it(bench: Bench, lab: Lab) -> None:
    """A stop timeout of a minute, and an order of stopping, count for nothing then."""
    first = lab.container("first", *STUBBORN, stop_timeout_s=60)
    main = lab.container("main", *STUBBORN, stop_timeout_s=60, depends_on=(START_OF_FIRST,))
    async with bench.running():
        await run_single(bench, first, main)
        last_contact = time.time()
        stopped = await bench.reaches(TaskStatus.STOPPED)
        ends = [(await bench.inspect(name)).finished_at for name in ("first", "main")]
    assert [container.exit_code for container in stopped.containers] == [137, 137]
    assert all(KILL_S * 0.6 < (end or 0.0) - last_contact < KILL_S + 5.0 for end in ends), "the margin is five seconds"


async def test_an_agent_that_returns_from_its_own_death_too_late_kills_it(bench: Bench, lab: Lab) -> None:
    async with bench.running():
        await run_single(bench, lab.container("main", *STUBBORN, stop_timeout_s=60))
    silent_since = Contact(bench.path.with_name("contact"))
    silent_since.load()
    silent_since.at = None
    silent_since.note(since_boot_s() - 100.0)
    async with bench.running():
        stopped = await bench.reaches(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 137
    assert "could not reach the control plane for 100 s" in stopped.stopped_reason
