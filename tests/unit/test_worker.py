"""The worker on the fake engine: assignment to container to report, kills, orphans, retention."""

import asyncio
import errno
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engine.api import ContainerPlan
from agent.engine.errors import EngineTimeout
from agent.engine.plan import container_plan
from agent.journal import Journal
from homeport import reasons
from homeport.errors import JournalError, leaves
from homeport.ids import TaskId
from homeport.protocol import Assignments, LogsRequest
from homeport.status import ContainerStatus, DesiredStatus, StopCode, TaskStatus
from tests.fakes.agent_host import OWNER, AgentHost, assignment, container, restarts, spec_of
from tests.fakes.clock import MovableClock
from tests.fakes.engine import FakeEngine, Verb
from tests.fakes.host import FakeCgroups


async def turns(count: int) -> None:
    """Let the event loop turn: whatever would have followed without waiting has followed."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def engine(clock: MovableClock) -> FakeEngine:
    return FakeEngine(clock, images=["web:1"])


@pytest.fixture
def host(tmp_path: Path, engine: FakeEngine, clock: MovableClock) -> AgentHost:
    return AgentHost(tmp_path / "agent.db", engine, clock)


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110  # it looks at plain values, which tell nobody
            await asyncio.sleep(0.002)


async def test_an_assigned_task_runs_and_its_exit_is_reported(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        running = await host.until_status(TaskStatus.RUNNING)
        assert running.started_at is not None
        assert running.containers[0].runtime_id == engine.find("web").container_id
        engine.exit("web", 3)
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 3
    assert stopped.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert stopped.stopped_reason == "Essential container in task exited"


async def test_a_start_takes_no_call_of_the_engine_more_than_it_needs(host: AgentHost, engine: FakeEngine) -> None:
    """What comes between an assignment and a running container is what a replacement is waited for."""
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
    verbs = [call.verb for call in engine.calls if call.verb != "list"]  # a look for what belongs to no task
    assert verbs == ["image", "create", "start", "inspect"]


async def test_a_stop_ends_the_containers(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        await host.assign(assignment(desired=DesiredStatus.STOPPED, stop_reason="Task stopped by user"))
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 143
    assert stopped.stop_code is None
    assert engine.find("web").state == "exited"


async def test_a_start_that_waits_for_its_turn_is_given_up_when_the_task_is_to_stop(
    host: AgentHost, engine: FakeEngine
) -> None:
    """In a burst the turn may come a minute later: nobody wants to see the container start then."""
    async with host.running():
        with engine.busy() as queue:
            await host.assign(assignment())
            await queue.arrived()
            await host.assign(assignment(desired=DesiredStatus.STOPPED))
            stopped = await host.until_status(TaskStatus.STOPPED)
            assert queue.count == 0
    assert engine.starts == {}
    assert stopped.containers[0].exit_code is None


async def test_an_image_that_cannot_be_pulled_fails_the_start(host: AgentHost, engine: FakeEngine) -> None:
    engine.registry = set()
    async with host.running():
        await host.assign(assignment(spec_of(container("web", "none:1"))))
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stop_code is StopCode.TASK_FAILED_TO_START
    assert stopped.stopped_reason is not None
    assert stopped.stopped_reason.startswith("CannotPullContainerError: manifest for none:1 not found")
    assert stopped.containers[0].reason == stopped.stopped_reason
    assert stopped.containers[0].exit_code is None


# ---------------------------------------------------------------- killed at each step


async def test_killed_while_pulling(host: AgentHost, engine: FakeEngine) -> None:
    engine.images.clear()
    async with host.running():
        with engine.held("pull") as pull:
            await host.assign(assignment())
            await pull.arrived()
            host.kill()
    async with host.running():
        await host.until_status(TaskStatus.RUNNING)
    assert len(engine.containers()) == 1


async def test_a_container_that_is_on_no_record_is_found_with_the_digest_of_its_image(
    host: AgentHost, engine: FakeEngine
) -> None:
    """Creating doesn't wait for the journal, so a kill may leave a container of which not even the pull is recorded."""
    engine.images.clear()
    async with host.running():
        with engine.held("pull") as pull:
            await host.assign(assignment())
            await pull.arrived()
            host.kill()
    plan = _plan(host)
    image = await engine.pull(spec_of().containers[0].image)
    await engine.create(plan)
    async with host.running():
        running = await host.until_status(TaskStatus.RUNNING)
    assert len(engine.containers()) == 1
    assert running.containers[0].image_digest == image.digest


@pytest.mark.parametrize("verb", ["create", "start", "inspect"])
@pytest.mark.parametrize("effect", [False, True])
async def test_killed_while_a_verb_is_under_way(host: AgentHost, engine: FakeEngine, verb: Verb, effect: bool) -> None:
    """The Engine has done it, or not, and nobody was there to hear."""
    async with host.running():
        with engine.held(verb) as calls:
            await host.assign(assignment())
            await calls.arrived()
            host.kill()
    if effect and verb == "create":
        await engine.create(_plan(host))
    if effect and verb == "start":
        await engine.start(engine.find("web").container_id)
    async with host.running():
        running = await host.until_status(TaskStatus.RUNNING)
    assert len(engine.containers()) == 1
    assert running.containers[0].restart_count == 0


@pytest.mark.parametrize("seed", range(12))
async def test_killed_at_any_moment_again_and_again(host: AgentHost, engine: FakeEngine, seed: int) -> None:
    """Three tasks come up, end and are reported through any number of agents: none lost, none run twice."""
    rng = random.Random(seed)
    names = ["t1", "t2", "t3"]
    engine.delays = dict.fromkeys(("image", "create", "start", "inspect", "stop"), 0.001)

    async def lives(*, exits: bool) -> None:
        """Several short-lived agents, one after the other."""
        for _ in range(4):
            async with host.running() as worker:
                await asyncio.sleep(rng.uniform(0.0, 0.02))
                if exits:
                    for facts in engine.containers():
                        if facts.state == "running" and rng.random() < 0.3:
                            engine.exit(facts.container_id, 5)
                if rng.random() < 0.5:
                    worker.session_began()

    async with host.running():
        await host.assign(*(assignment(task_id=name) for name in names))
    await lives(exits=False)
    async with host.running():
        for name in names:
            await host.until_status(TaskStatus.RUNNING, task_id=name)
    await lives(exits=True)
    for facts in engine.containers():
        if facts.state == "running":
            engine.exit(facts.container_id, 5)
    async with host.running():
        ends = [await host.until_status(TaskStatus.STOPPED, task_id=name) for name in names]
    assert [report.containers[0].exit_code for report in ends] == [5, 5, 5]
    assert len(engine.containers()) == 3
    assert engine.starts == dict.fromkeys((facts.container_id for facts in engine.containers()), 1)


async def test_killed_after_the_exit_was_seen_and_before_it_was_reported(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 17)
        first = await host.until_status(TaskStatus.STOPPED)
    host.reports.clear()
    async with host.running():
        again = await host.until_status(TaskStatus.STOPPED)
    assert again == first


async def test_an_exit_while_no_agent_ran_is_reported_once(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
    engine.exit("web", 9)
    ended_at = engine.find("web").finished_at
    async with host.running():
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert (stopped.containers[0].exit_code, stopped.containers[0].finished_at) == (9, ended_at)
    assert engine.count("create") == engine.count("start") == 1


async def test_killed_while_stopping(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        with engine.held("stop") as stop:
            await host.assign(assignment(desired=DesiredStatus.STOPPED))
            await stop.arrived()
            host.kill()
    async with host.running():
        await host.until_status(TaskStatus.STOPPED)
    assert engine.find("web").state == "exited"


async def test_report_numbers_grow_over_restarts(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
    async with host.running():
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
    seqs = [report.seq for report in host.history]
    assert seqs == sorted(seqs)
    for earlier, later in itertools.pairwise(host.history):
        assert later.seq > earlier.seq or later == earlier


# ---------------------------------------------------------------- sets and increments


async def test_what_a_complete_set_lacks_is_stopped(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment(), assignment(task_id="t2"))
        await host.until_status(TaskStatus.RUNNING)
        await host.until_status(TaskStatus.RUNNING, task_id="t2")
        await host.assign(assignment(task_id="t2"), complete=True)
        await host.until_status(TaskStatus.STOPPED)
    assert engine.find("web", task="t1").state == "exited"
    assert engine.find("web", task="t2").state == "running"


async def test_a_gap_asks_for_a_complete_set(host: AgentHost) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await worker.assign(Assignments(revision=9, base=7, put=(assignment(task_id="t2"),)))
        assert worker.revision == -1
        assert [state.task_id for state in worker.tasks()] == ["t1"]


async def test_a_complete_set_that_is_overtaken_stops_nothing(host: AgentHost) -> None:
    async with host.running() as worker:
        await worker.assign(Assignments(revision=5, put=(assignment(), assignment(task_id="t2"))))
        await worker.assign(Assignments(revision=4, put=(assignment(),)))
        assert worker.revision == 5
        await host.until_status(TaskStatus.RUNNING, task_id="t2")


async def test_an_assignment_is_in_the_journal_before_assign_returns(
    host: AgentHost, engine: FakeEngine, tmp_path: Path
) -> None:
    with engine.held("image"):
        async with host.running():
            await host.assign(assignment())
            # As kill -9 at this instant would leave them.
            for file in host.path.parent.glob("agent.db*"):
                shutil.copy(file, tmp_path / f"copy-{file.name}")
    assert [state.task_id for state in await Journal(tmp_path / "copy-agent.db").load()] == ["t1"]


async def test_what_a_failed_journal_can_not_keep_is_not_taken_and_its_failure_is_what_is_told(
    host: AgentHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def assigned() -> None:
        async with host.running():
            try:
                await host.assign(assignment())
            finally:  # cancelled, since the journal has failed; a session may have read one more message
                with pytest.raises(JournalError, match="No space left"):
                    await host.assign(assignment(task_id="late"))

    monkeypatch.setattr(Journal, "_write", full)
    with pytest.raises(ExceptionGroup) as ended:
        await assigned()
    assert {type(error) for error in leaves(ended.value)} == {JournalError}


async def test_a_task_that_began_elsewhere_in_time_is_lost_not_run(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment(known=TaskStatus.RUNNING))
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.stopped_reason == reasons.RECORD_LOST
    assert engine.count("create") == engine.count("pull") == 0


async def test_a_lost_journal_does_not_lose_a_running_task(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        first = await host.until_status(TaskStatus.RUNNING)
    for file in host.path.parent.glob("agent.db*"):
        file.unlink()
    host.reports.clear()
    async with host.running():
        await host.assign(assignment(known=TaskStatus.RUNNING), complete=True)
        again = await host.until_status(TaskStatus.RUNNING)
        assert again.seq > first.seq, "the control plane must not take it for an old report"
    assert engine.count("start") == 1


# ---------------------------------------------------------------- what belongs to no task


async def test_unknown_containers_go_only_after_a_complete_set(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
    for file in host.path.parent.glob("agent.db*"):
        file.unlink()
    others = await engine.create(
        ContainerPlan(name="other", labels={"homeport.instance": "x"}, body={"Image": "web:1"})
    )
    await engine.start(others)
    async with host.running() as worker:
        # Answered once the journal is loaded and the worker does its work.
        assert [chunk.end async for chunk in worker.logs(logs_request())] == [True]
        listed = engine.count("list")
        engine.resync()
        await turns(50)
        assert engine.count("list") == listed
        await host.assign(complete=True)
        await eventually(lambda: len(engine.containers()) == 1)
    assert engine.find("other").state == "running"


async def test_looking_for_unknown_containers_is_repeated_when_the_engine_fails(
    host: AgentHost, engine: FakeEngine
) -> None:
    stray = await engine.create(
        ContainerPlan(name="s", labels={"homeport.instance": OWNER, "homeport.task": "gone"}, body={"Image": "web:1"})
    )
    await engine.start(stray)
    engine.fail("list", EngineTimeout("no answer"))
    async with host.running():
        await host.assign(complete=True)
        await eventually(lambda: not engine.containers())


# ---------------------------------------------------------------- resources of the host


async def test_a_task_that_does_not_fit_is_refused_with_a_reason(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment(spec_of(container("web", memory_mib=8000))))
        await host.until_status(TaskStatus.RUNNING)
        await host.assign(assignment(spec_of(container("web", memory_mib=500), task_id="t2"), task_id="t2"))
        refused = await host.until_status(TaskStatus.STOPPED, task_id="t2")
    assert refused.stop_code is StopCode.TASK_FAILED_TO_START
    assert refused.stopped_reason is not None
    assert "memory: 500 MiB asked, 192 of 8192 free" in refused.stopped_reason
    assert engine.count("create") == 1


async def test_what_a_task_held_is_free_once_its_end_is_reported(host: AgentHost, engine: FakeEngine) -> None:
    big = spec_of(container("web", memory_mib=8000))
    async with host.running():
        await host.assign(assignment(big))
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(assignment(big, task_id="t2"))
        await host.until_status(TaskStatus.RUNNING, task_id="t2")


async def test_claims_are_held_again_after_a_restart(host: AgentHost) -> None:
    big = spec_of(container("web", memory_mib=8000))
    async with host.running():
        await host.assign(assignment(big))
        await host.until_status(TaskStatus.RUNNING)
    async with host.running():
        await host.assign(assignment(big), assignment(big, task_id="t2"), complete=True)
        await host.until_status(TaskStatus.STOPPED, task_id="t2")
        assert host.reports["t1"].status is TaskStatus.RUNNING


# ---------------------------------------------------------------- reports


async def test_reports_wait_for_a_session_the_latest_of_each_task(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        host.stop_collecting()
        engine.exit("web", 1)
        await eventually(lambda: worker.tasks()[0].over)
        worker.session_began()
        (report,) = await worker.next_reports()
        assert report.status is TaskStatus.STOPPED
        assert [line.event for _, line in report.story][-2:] == ["stopping", "stopped"]


async def test_what_is_not_acknowledged_is_sent_again_in_the_next_session(host: AgentHost) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        first = await host.until_status(TaskStatus.RUNNING)
        host.stop_collecting()
        worker.session_began()
        assert await worker.next_reports() == (first,)


async def test_what_is_acknowledged_is_not_sent_again(host: AgentHost) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        await host.ack("t1")
        await eventually(lambda: worker.tasks()[0].acked == worker.tasks()[0].seq)
        host.stop_collecting()
        worker.session_began()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await worker.next_reports()


async def test_caught_up_means_set_held_containers_looked_at_and_reports_handed_out(
    host: AgentHost, engine: FakeEngine
) -> None:
    async with host.running():
        await host.assign(assignment(), assignment(task_id="t2", desired=DesiredStatus.PENDING))
        await host.until_status(TaskStatus.RUNNING)
        await host.until(lambda report: report.containers[0].status is ContainerStatus.CREATED, task_id="t2")
    engine.exit(engine.find("web", task="t1").container_id, 3)
    with engine.held("inspect") as looks:
        async with host.running() as worker, asyncio.TaskGroup() as group:
            host.stop_collecting()
            caught_up = group.create_task(worker.caught_up())
            await looks.arrived()
            await host.assign(assignment(), assignment(task_id="t2", desired=DesiredStatus.PENDING), complete=True)
            await worker.next_reports()
            await turns(50)
            assert not caught_up.done(), "what ended meanwhile isn't known yet"
            looks.release()
            await eventually(lambda: worker.tasks()[0].over and not worker.tasks()[1].containers[0].inherited)
            await turns(50)
            assert not caught_up.done(), "the report is still here"
            reports = await worker.next_reports()
            assert TaskStatus.STOPPED in {report.status for report in reports}
            await caught_up
            worker.session_began()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await worker.caught_up()


async def test_a_control_plane_that_forgot_an_end_is_told_again(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 1)
        await host.until_status(TaskStatus.STOPPED)
        await host.ack("t1")
        await eventually(lambda: worker.tasks()[0].acked == worker.tasks()[0].seq)
        host.reports.clear()
        worker.session_began()
        await host.assign(assignment(known=TaskStatus.RUNNING), complete=True)
        again = await host.until_status(TaskStatus.STOPPED)
        assert again.containers[0].exit_code == 1


# ---------------------------------------------------------------- an Engine that fails


async def test_a_restarted_engine_is_looked_at_and_nothing_is_invented(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        with engine.down():
            engine.resync()
            silent = await host.until(lambda report: any(line.event == "engine-silent" for _, line in report.story))
            assert silent.status is TaskStatus.RUNNING
            engine.exit("web", 255)
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 255


async def test_lost_events_are_made_up_for_by_a_resync(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        with engine.losing_events():
            engine.exit("web", 4)
        engine.resync()
        stopped = await host.until_status(TaskStatus.STOPPED)
    assert stopped.containers[0].exit_code == 4


async def test_an_engine_that_is_away_at_the_start_is_waited_for(host: AgentHost, engine: FakeEngine) -> None:
    with engine.down():
        async with host.running():
            await host.assign(assignment())
            await host.until(lambda report: any(line.event == "engine-silent" for _, line in report.story))
    async with host.running():
        await host.until_status(TaskStatus.RUNNING)


async def test_a_mistake_of_the_agents_own_fails_one_task_not_all(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment(task_id="t2"))
        await host.until_status(TaskStatus.RUNNING, task_id="t2")
        engine.fail("create", ZeroDivisionError("oh"))  # type: ignore[arg-type]  # nothing an Engine raises
        await host.assign(assignment())
        stopped = await host.until_status(TaskStatus.STOPPED)
        assert stopped.stopped_reason == "CannotCreateContainerError: the agent failed: ZeroDivisionError: oh"
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED, task_id="t2")


# ---------------------------------------------------------------- retention


async def test_finished_tasks_are_kept_for_a_while_and_then_cleaned_up(
    host: AgentHost, engine: FakeEngine, clock: MovableClock
) -> None:
    spec = spec_of(container("web", mounts=[{"volume": "data", "container_path": "/data"}]), volumes=[{"name": "data"}])
    async with host.running() as worker:
        await host.assign(assignment(spec))
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(remove=("t1",))
        await eventually(lambda: worker.tasks()[0].removed_at is not None)
        assert engine.find("web").state == "exited"
        clock.move(3601)
        engine.resync()
        await eventually(lambda: not worker.tasks())
    assert engine.containers() == ()
    assert engine.volumes == {}
    assert isinstance(host.cgroups, FakeCgroups)
    assert host.cgroups.tasks == set()
    async with host.running() as worker:
        await eventually(lambda: worker.revision == -1)
        assert worker.tasks() == ()


async def test_a_task_is_not_forgotten_before_the_control_plane_lets_go(
    host: AgentHost, engine: FakeEngine, clock: MovableClock
) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
        clock.move(1e6)
        engine.resync()
        await turns(50)
        assert len(worker.tasks()) == 1


async def test_cleaning_up_is_repeated_when_the_engine_fails(tmp_path: Path, engine: FakeEngine) -> None:
    host = AgentHost(tmp_path / "agent.db", engine, engine.clock, cleanup_after_s=0.0)
    engine.fail("remove", EngineTimeout("no answer"))
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
        await host.assign(remove=("t1",))
        await eventually(lambda: not worker.tasks())
    assert engine.containers() == ()


# ---------------------------------------------------------------- logs, deregistration


async def test_logs_of_a_stopped_task(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        for number in range(450):
            engine.write_log("web", f"line {number}")
        engine.exit("web", 0)
        await host.until_status(TaskStatus.STOPPED)
        chunks = [chunk async for chunk in worker.logs(logs_request())]
    assert [chunk.end for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [text for chunk in chunks for _, _, text in chunk.lines] == [f"line {number}" for number in range(450)]


async def test_following_a_log_gives_lines_as_they_come(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        engine.write_log("web", "one")
        chunks = worker.logs(logs_request(follow=True))
        assert [text for _, _, text in (await anext(chunks)).lines] == ["one"]
        engine.write_log("web", "two")
        assert [text for _, _, text in (await anext(chunks)).lines] == ["two"]
        await chunks.aclose()  # type: ignore[attr-defined]


async def test_following_a_log_goes_on_over_a_restart_and_ends_with_the_container(
    host: AgentHost, engine: FakeEngine, clock: MovableClock
) -> None:
    async with host.running() as worker:
        await host.assign(assignment(spec_of(container("web", restart_policy=restarts(60)))))
        first = await host.until_status(TaskStatus.RUNNING)
        engine.write_log("web", "before")
        chunks = worker.logs(logs_request(follow=True))
        assert [text for _, _, text in (await anext(chunks)).lines] == ["before"]
        clock.move(61)
        engine.exit("web", 1)
        await host.until(lambda report: report.containers[0].started_at != first.containers[0].started_at)
        engine.write_log("web", "after")
        assert [text for _, _, text in (await anext(chunks)).lines] == ["after"]
        engine.exit("web", 1)
        assert (await anext(chunks)).end


@pytest.mark.parametrize(
    ("task_id", "name", "error"),
    [("t9", "web", "this host has no task t9"), ("t1", "nobody", "no container nobody; it has web")],
)
async def test_logs_that_are_not_there_are_refused(host: AgentHost, task_id: str, name: str, error: str) -> None:
    async with host.running() as worker:
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
        (chunk,) = [chunk async for chunk in worker.logs(logs_request(task_id=task_id, container=name))]
    assert chunk.end
    assert error in chunk.error


async def test_deregistered_stops_and_removes_everything_and_returns_then(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running() as worker:
        await host.assign(assignment(), assignment(task_id="t2"))
        await host.until_status(TaskStatus.RUNNING)
        await host.until_status(TaskStatus.RUNNING, task_id="t2")
        await worker.deregistered("deregistered by the operator")
        assert worker.tasks() == ()
    assert engine.containers() == ()
    assert engine.count("stop") == 2


async def test_ending_the_agent_leaves_containers_running(host: AgentHost, engine: FakeEngine) -> None:
    async with host.running():
        await host.assign(assignment())
        await host.until_status(TaskStatus.RUNNING)
    assert engine.find("web").state == "running"
    assert engine.count("stop") == 0


def logs_request(task_id: str = "t1", container: str = "web", *, follow: bool = False) -> LogsRequest:
    return LogsRequest(request_id="r", task_id=TaskId(task_id), container=container, follow=follow)


def _plan(host: AgentHost) -> ContainerPlan:
    spec = spec_of()
    return container_plan(TaskId("t1"), spec, spec.containers[0], owner=OWNER, cgroup_parent=None)
