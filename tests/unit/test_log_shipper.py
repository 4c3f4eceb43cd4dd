"""Shipping over a real connection to a fake intake, from files of a fake Engine."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.engine.errors import NotFound
from agent.logs.batches import BATCH_BYTES
from agent.logs.disk import NO_ROOM, DiskWatch, is_full
from agent.task.model import TaskState
from homeport.clock import SystemClock
from homeport.protocol import Goodbye, LogKind, LogRefused
from tests.fakes.agent_host import container
from tests.fakes.engine import FakeEngine
from tests.fakes.fleet import eventually
from tests.fakes.log_intake import Kept, LogIntake, serve_intake
from tests.fakes.shipping import Shipyard, a_container, a_state, shipped


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.logs.pulse._PERIOD_S", 0.005)
    monkeypatch.setattr("agent.logs.shipping._PACE_S", 0.01)


@pytest.fixture
async def intake() -> AsyncIterator[LogIntake]:
    async with serve_intake() as intake:
        yield intake


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(SystemClock(), images=["web:1"], log_dir=tmp_path)


@pytest.fixture
def yard(engine: FakeEngine, intake: LogIntake, tmp_path: Path) -> Shipyard:
    return Shipyard(engine, intake, tmp_path)


async def start(engine: FakeEngine, task_id: str = "t1") -> TaskState:
    """Start a container; return its task's state."""
    return a_state(await a_container(engine, task_id), task_id=task_id)


def ended(state: TaskState) -> TaskState:
    runtime_id = state.containers[0].runtime_id
    assert runtime_id is not None
    return a_state(runtime_id, task_id=state.task_id, spec=state.spec.containers[0], stopped=True)


def say(engine: FakeEngine, state: TaskState, *lines: object) -> None:
    for line in lines:
        engine.write_log(state.containers[0].runtime_id or "", str(line))


async def settled(read: Callable[[], float]) -> float:
    """Return a figure once it hasn't changed for a while."""
    since, value = time.monotonic(), read()
    while time.monotonic() < since + 0.2:
        await asyncio.sleep(0.02)
        if read() != value:
            since, value = time.monotonic(), read()
    return value


async def test_lines_arrive_as_they_are_written_and_the_end_is_told(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state = await start(engine)
    kept = intake.of("t1")
    async with yard.running(state) as shipper:
        say(engine, state, "one", "two")
        await eventually(lambda: kept.lines == ["one", "two"])
        engine.write_log("web", "three", stream="stderr")
        await eventually(lambda: [event[1:] for event in kept.events][2:] == [(LogKind.STDERR, "three")])
        assert shipper.unshipped(state.task_id)
        say(engine, state, "four")
        shipper.look(ended(state))
        await eventually(lambda: kept.ended and not shipper.unshipped(state.task_id))
        assert kept.lines[-1] == "four"
        assert yard.metric("events_total") == 4
        assert yard.metric("gaps_total") == 0
        assert yard.metric("sent_bytes_total") > 0
        assert yard.metric("lag_seconds") == 0
    opened = intake.opened[0]
    assert (opened.task_id, opened.container, opened.runtime_id) == ("t1", "web", state.containers[0].runtime_id)


async def test_without_anything_to_ship_there_is_no_connection(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.logs.shipper._IDLE_S", 0.02)
    state = await start(engine)
    async with yard.running() as shipper:
        shipper.look(a_state("r", task_id="other", spec=container("web")))
        await asyncio.sleep(0)
        assert intake.hellos == []
        shipper.look(state)
        await eventually(lambda: intake.connected)
        assert yard.metric("connected") == 1
        shipper.look(ended(state))
        await eventually(lambda: not intake.connected)
        assert yard.metric("connected") == 0
        again = await start(engine, "t2")
        say(engine, again, "again")
        shipper.look(again)
        await eventually(lambda: intake.of("t2").lines == ["again"])


async def test_a_flood_goes_in_large_batches_and_waits_for_room(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state = await start(engine)
    file = engine.log_files[state.containers[0].runtime_id or ""]
    line = b'{"log":"%d ' + b"x" * 990 + b'\\n","stream":"stdout","time":"2026-11-22T00:00:00.%09dZ"}\n'
    file.write_raw(b"".join(line % (number, number) for number in range(20_000)))
    intake.going.clear()
    kept = intake.of("t1")
    async with yard.running(state):
        await eventually(lambda: intake.connected and yard.metric("sent_bytes_total") > 0)
        await eventually(lambda: intake.waiting == 1)
        held = await settled(lambda: yard.metric("sent_bytes_total"))
        intake.going.set()
        await eventually(lambda: len(kept.lines) == 20_000)
        assert held < yard.metric("sent_bytes_total") / 10
    assert [text.split()[0] for text in kept.lines] == [str(n) for n in range(20_000)]
    assert kept.batches < 20_000 * 1000 / BATCH_BYTES * 2.5
    assert not intake.problems


async def test_a_new_agent_and_a_new_connection_go_on_where_the_control_plane_is(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state = await start(engine)
    kept = intake.of("t1")
    say(engine, state, *range(5))
    async with yard.running(state):
        await eventually(lambda: len(kept.lines) == 5)
        intake.cut()
        say(engine, state, *range(5, 10))
        await eventually(lambda: len(kept.lines) == 10)
        assert intake.connections == 2
    say(engine, state, *range(10, 15))
    async with yard.running(ended(state)):
        await eventually(lambda: kept.ended)
    assert kept.lines == [str(n) for n in range(15)]


async def test_a_refusal_is_only_for_a_while_and_one_container(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    refusal = LogRefused(channel=0, reason="the disk is full", retry_after_s=0.01)
    intake.refuse = lambda container: refusal if container == "db" else None
    state, other = await start(engine), a_state(await a_container(engine, "t2", "db"), task_id="t2", spec=shipped("db"))
    say(engine, state, "here")
    say(engine, other, "held")
    async with yard.running(state, other):
        with capture_logs() as said:
            await eventually(lambda: intake.of("t1").lines == ["here"])
            await eventually(lambda: yard.metric("refused_total") > 2)
        assert [each["reason"] for each in said] == ["the disk is full"]
        intake.refuse = lambda _: None
        await eventually(lambda: intake.of("t2", "db").lines == ["held"])
        # In the midst of it, too.
        intake.refuse = lambda container: refusal if container == "db" else None
        say(engine, other, "again")
        say(engine, state, "there")
        await eventually(lambda: intake.of("t1").lines == ["here", "there"])
        intake.refuse = lambda _: None
        await eventually(lambda: intake.of("t2", "db").lines == ["held", "again"])
    assert intake.connections == 1


async def test_output_that_nobody_will_keep_is_given_up(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    intake.refuse = lambda _: LogRefused(channel=0, reason="nobody knows the task", final=True)
    state = await start(engine)
    async with yard.running(state) as shipper:
        shipped = asyncio.Event()
        shipper.on_shipped = shipped.set
        await asyncio.wait_for(shipped.wait(), 5)
        assert not shipper.unshipped(state.task_id)
    assert len(intake.opened) == 1


async def test_the_control_plane_may_send_the_host_away(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    intake.goodbye = Goodbye(reason="busy", retry_after_s=0.01)
    async with yard.running(await start(engine)) as shipper:
        await eventually(lambda: len(intake.hellos) > 3)
        intake.goodbye = Goodbye(reason="deregistered", final=True)
        count = len(intake.hellos)
        await eventually(lambda: len(intake.hellos) > count)
        assert shipper.streams()
        assert yard.metric("lag_seconds") > 0


async def test_an_engine_that_is_away_is_waited_for(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    state = await start(engine)
    say(engine, state, "one")
    with engine.down():
        async with yard.running(state):
            await eventually(lambda: len(intake.opened) > 1)
    async with yard.running(state):
        await eventually(lambda: intake.of("t1").lines == ["one"])


async def test_a_container_that_is_gone_leaves_a_gap(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    state = await start(engine)
    engine.vanish("web")
    with pytest.raises(NotFound):
        async with engine.output(state.containers[0].runtime_id or "", ""):
            pass
    async with yard.running(ended(state)):
        await eventually(lambda: intake.of("t1").ended)
    (gap,) = intake.of("t1").gaps
    assert "removed before its output could be shipped" in gap


async def test_what_one_container_does_to_the_agent_stops_no_other(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, other = await start(engine), await start(engine, "t2")
    del engine.log_files[state.containers[0].runtime_id or ""]  # a KeyError of the fake's
    say(engine, other, "well")
    async with yard.running(state, other):
        await eventually(lambda: intake.of("t2").lines == ["well"])
        await eventually(lambda: len([each for each in intake.opened if each.task_id == "t1"]) > 1)
    assert intake.connections == 1


async def test_events_of_several_lines(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    spec = shipped(multiline_pattern="^[A-Z]")
    state = a_state(await a_container(engine), spec=spec)
    say(engine, state, "Error", "  at a", "  at b", "Next")
    async with yard.running(state) as shipper:
        await eventually(lambda: intake.of("t1").lines == ["Error\n  at a\n  at b"])
        intake.cut()
        say(engine, state, "  line", "Last")
        await eventually(lambda: len(intake.of("t1").lines) == 2)
        shipper.look(ended(state))
        await eventually(lambda: intake.of("t1").ended)
    assert intake.of("t1").lines == ["Error\n  at a\n  at b", "Next\n  line", "Last"]


# ---------------------------------------------------------------- what is lost


async def test_output_given_up_is_told_by_whichever_agent_comes_next(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state = await start(engine)
    intake.goodbye = Goodbye(reason="away", retry_after_s=0.01)
    async with yard.running(ended(state)) as shipper:
        await shipper.give_up(state.task_id, "it was too late")
        assert not shipper.unshipped(state.task_id)
    intake.goodbye = None
    kept = intake.of("t1")
    async with yard.running():
        await eventually(lambda: kept.ended)
    (gap,) = kept.gaps
    assert gap.startswith("Output may be missing here, up to 20")
    assert gap.endswith("it was too late")
    async with yard.running(await start(engine, "t2")):
        await eventually(lambda: any(each.task_id == "t2" for each in intake.opened))
    assert len(kept.gaps) == 1


async def test_nobody_is_told_of_what_was_shipped_or_forgotten(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state, other = await start(engine), await start(engine, "t2")
    async with yard.running(ended(state)) as shipper:
        await eventually(lambda: not shipper.unshipped(state.task_id))
        await shipper.give_up(state.task_id, "late")
        shipper.look(other)
        shipper.forget(other.task_id)
        assert shipper.streams() == ()
    assert not (yard.path / "unshipped.json").exists()


async def test_notes_that_cannot_be_read_stop_nothing(engine: FakeEngine, yard: Shipyard, intake: LogIntake) -> None:
    (yard.path / "unshipped.json").write_text("[{")
    state = await start(engine)
    say(engine, state, "on")
    async with yard.running(state):
        await eventually(lambda: intake.of("t1").lines == ["on"])


async def test_a_full_disk_is_told_once_to_what_ran_meanwhile(
    engine: FakeEngine, yard: Shipyard, intake: LogIntake
) -> None:
    state, before = await start(engine), await start(engine, "t0")
    dying = await start(engine, "t2")
    say(engine, state, "one")
    free = [100_000]

    def read(path: str) -> object:
        return type("Status", (), {"f_bfree": free[0], "f_blocks": 1_000_000})

    async with yard.running(state, ended(before), dying) as shipper:
        disk = DiskWatch(lambda: "/", shipper.streams, clock=SystemClock(), read=read)  # type: ignore[arg-type]
        await eventually(lambda: intake.of("t1").lines == ["one"] and intake.of("t0").ended)
        await disk.look()
        free[0] = 0
        await disk.look()
        await disk.look()
        shipper.look(ended(dying))
        await eventually(lambda: intake.of("t2").ended)
        free[0] = 100_000
        await disk.look()
        await disk.look()
        say(engine, state, "two")
        await eventually(lambda: len(intake.of("t1").events) == 3)
        intake.cut()
        say(engine, state, "three")
        await eventually(lambda: len(intake.of("t1").lines) == 3)
    for task_id, count in (("t0", 0), ("t1", 1), ("t2", 1)):
        gaps = intake.of(task_id).gaps
        assert len(gaps) == count, task_id
        assert all(gap.startswith("Output may be missing here, from 20") and gap.endswith(NO_ROOM) for gap in gaps)


@pytest.mark.parametrize(
    ("free", "blocks", "full"),
    [(4096, 186_299, True), (0, 2048, True), (4096, 64_000_000, True), (5000, 64_000_000, False), (100, 2048, False)],
)
def test_a_file_system_is_full_while_it_keeps_some_blocks_to_itself(free: int, blocks: int, full: bool) -> None:
    """The first two are an ext4 and a tmpfs that had just refused to write."""
    status = type("Status", (), {"f_bfree": free, "f_blocks": blocks})
    assert is_full(status) is full  # type: ignore[arg-type]


# ---------------------------------------------------------------- whatever happens

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.just("rotate"), st.integers(1, 4)),
        st.tuples(st.just("wait"), st.integers(0, 4)),
        st.tuples(st.sampled_from(["cut", "kill", "away", "tear", "restart"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.sampled_from([0.0, 0.3]), st.sampled_from(["", "[05]$"]))
def test_every_line_is_kept_once_and_in_order_or_told_to_be_missing(
    steps: list[tuple[str, int]], chance: float, pattern: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_whatever(Path(directory), steps, chance, pattern))


async def _whatever(path: Path, steps: list[tuple[str, int]], chance: float, pattern: str) -> None:
    engine = FakeEngine(SystemClock(), images=["web:1"], log_dir=path)
    runtime_id = await a_container(engine)
    file = engine.log_files[runtime_id]
    state = a_state(runtime_id, spec=shipped(multiline_pattern=pattern))
    numbers = itertools.count(1)
    torn: set[int] = set()
    async with serve_intake(break_chance=chance) as intake:
        yard = Shipyard(engine, intake, path)
        kept = intake.of("t1")
        todo = iter(steps)
        running = True
        while running:
            async with yard.running(state) as shipper:
                running = await _do(todo, engine, intake, numbers, torn)
                if not running:
                    intake.break_chance, intake.goodbye = 0.0, None
                    file.write(f"{next(numbers)}\n", at_ns=int(engine.clock.now() * 1e9))
                    shipper.look(ended(state))
                    await eventually(lambda: kept.ended)
    check(kept, next(numbers), torn)
    assert not intake.problems


async def _do(
    todo: Iterator[tuple[str, int]],
    engine: FakeEngine,
    intake: LogIntake,
    numbers: "itertools.count[int]",
    torn: set[int],
) -> bool:
    """Do steps until the agent is killed (True), or there are no more."""
    (file,) = engine.log_files.values()
    for what, count in todo:
        match what:
            case "write":
                for _ in range(count):
                    file.write(f"{next(numbers)}\n", at_ns=int(engine.clock.now() * 1e9))
            case "rotate":
                for _ in range(count):
                    file.rotate()
            case "wait":
                await asyncio.sleep(count * 0.01)
            case "cut":
                intake.cut()
            case "away":
                intake.goodbye = None if intake.goodbye else Goodbye(reason="away", retry_after_s=0.005)
                intake.cut()
            case "tear":
                torn.add(number := next(numbers))
                file.write_raw(b'{"log":"%d' % number)
            case _:
                return True
    return False


def check(kept: Kept, end: int, torn: set[int]) -> None:
    expected = 1
    gap = False
    for _, kind, text in kept.events:
        if kind == LogKind.GAP:
            gap = True
            continue
        for number in map(int, text.split("\n")):
            assert number >= expected, "doubled, or out of order"
            assert number == expected or gap, f"{expected} to {number} are missing, and nothing says so"
            assert number not in torn
            expected, gap = number + 1, False
    assert expected == end or gap


async def test_metrics_of_the_link_are_served(yard: Shipyard) -> None:
    async with yard.running():
        assert yard.metric("connected") == 0
        assert yard.metric("lag_seconds") == 0
