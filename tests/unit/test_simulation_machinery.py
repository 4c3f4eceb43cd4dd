"""What a simulation stands on: virtual time, processes that die at any step, disks that tear, a network."""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType

from tests.simulation.disk import Disk, faulty_sqlite
from tests.simulation.loop import Livelock, VirtualLoop
from tests.simulation.network import Network, Socket
from tests.simulation.plan import generate
from tests.simulation.process import EPOCH_S, MachineClock, Process
from tests.simulation.run import Outcome, abandoning
from tests.simulation.shrink import shrunk

#: What a kill leaves behind is collected at any time, and says that it was never finished.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _abandoning() -> Iterator[None]:
    with abandoning():
        yield


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.abandon()


def a_process(loop: VirtualLoop, name: str = "p", **how: Any) -> Process:
    return Process(loop, name, how.pop("clock", None) or MachineClock(loop), **how)


# ---------------------------------------------------------------- time


def test_a_wait_of_hours_takes_no_time(loop: VirtualLoop) -> None:
    loop.run_until_complete(asyncio.sleep(36_000))
    assert loop.now == 36_000


def test_what_never_comes_is_noticed(loop: VirtualLoop) -> None:
    with pytest.raises(Livelock, match="nothing is left to happen"):
        loop.run_until_complete(asyncio.Event().wait())


def test_turning_without_time_passing_is_noticed(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.loop._MOST_STEPS_AT_ONCE", 1000)

    async def turn() -> None:
        for _ in range(2000):
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="no time has passed"):
        loop.run_until_complete(turn())


def test_a_machine_whose_clock_runs_fast_wakes_early(loop: VirtualLoop) -> None:
    process = a_process(loop)
    process.clock.drift(2.0)
    woken: list[float] = []

    async def sleep() -> None:
        await asyncio.sleep(10)
        woken.append(loop.now)

    loop.run_until_complete(process.spawn(sleep()))
    assert woken == [5.0]
    assert process.clock.monotonic() == 10.0


def test_setting_a_clock_moves_no_deadline(loop: VirtualLoop) -> None:
    clock = MachineClock(loop)
    clock.jump(3600)
    assert clock.now() == EPOCH_S + 3600
    assert clock.monotonic() == 0.0


# ---------------------------------------------------------------- processes


def test_nothing_of_a_killed_process_is_carried_out(loop: VirtualLoop) -> None:
    process = a_process(loop)
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            done.append("went on")
        finally:
            done.append("cleaned up")

    process.spawn(work())
    loop.after(0.5, process.kill, None)
    loop.run_until_complete(asyncio.sleep(5))
    assert done == []


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_process_dies_at_the_step_it_is_told(loop: VirtualLoop, steps: int) -> None:
    died: list[Process] = []
    process = a_process(loop, on_death=died.append)
    reached: list[int] = []

    async def work() -> None:
        for number in range(1, 10):
            reached.append(number)
            await asyncio.sleep(0)

    process.spawn(work())
    process.kill_after(steps)
    loop.run_until_complete(asyncio.sleep(1))
    assert reached == list(range(1, steps))
    assert died == [process]


def test_tasks_belong_to_the_process_of_whoever_made_them(loop: VirtualLoop) -> None:
    process = a_process(loop)
    done: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        done.append("child")

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    process.spawn(parent())
    loop.after(0.5, process.kill, None)
    loop.run_until_complete(asyncio.sleep(5))
    assert done == []


# ---------------------------------------------------------------- disks


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return int(rows)


@pytest.mark.parametrize("seed", range(8))
def test_a_torn_write_is_lost_whole_and_what_was_synced_is_not(loop: VirtualLoop, tmp_path: Path, seed: int) -> None:
    disk = Disk(loop, tmp_path, random.Random(seed), (0.01, 0.01))
    process = a_process(loop, offload=disk)
    told: list[int] = []

    async def write() -> None:
        connection = sqlite3.connect(disk.directory / "x.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (n INTEGER, text TEXT)")
        for number in range(50):

            def insert(number: int = number) -> None:
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 3000))

            await asyncio.get_running_loop().run_in_executor(None, insert)
            told.append(number)

    with faulty_sqlite():
        process.spawn(write())
        loop.run_until_complete(asyncio.sleep(random.Random(seed).uniform(0.05, 0.5)))
        process.kill()
        disk.crash(torn=True)
        assert disk.directory.name == "1"
        assert count(disk.directory / "x.db") in (len(told), len(told) + 1)


def test_seeds_tear_writes(loop: VirtualLoop, tmp_path: Path) -> None:
    """Were none ever torn, the test above would say nothing."""
    torn = 0
    for seed in range(10):
        disk = Disk(loop, tmp_path / str(seed), random.Random(seed), (0.01, 0.01))
        process = a_process(loop, offload=disk)

        async def write(disk: Disk = disk) -> None:
            connection = sqlite3.connect(disk.directory / "x.db", isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (text TEXT)")
            while True:  # until it is killed
                await asyncio.get_running_loop().run_in_executor(
                    None, connection.execute, "INSERT INTO t VALUES (?)", ("x" * 3000,)
                )

        process.spawn(write())
        loop.run_until_complete(asyncio.sleep(random.Random(seed).uniform(0.05, 0.5)))
        process.kill()
        disk.crash(torn=True)
        torn += disk.torn
    assert torn >= 2


def test_a_full_disk_refuses_writes_and_lets_reads_pass(loop: VirtualLoop, tmp_path: Path) -> None:
    disk = Disk(loop, tmp_path, random.Random(1), (0.0, 0.0))
    process = a_process(loop, offload=disk)

    async def work() -> int:
        connection = sqlite3.connect(disk.directory / "x.db", isolation_level=None)
        connection.execute("CREATE TABLE t (n INTEGER)")
        disk.full = True
        running = asyncio.get_running_loop()
        with pytest.raises(sqlite3.OperationalError, match="disk is full"):
            await running.run_in_executor(None, connection.execute, "INSERT INTO t VALUES (1)")
        cursor = await running.run_in_executor(None, connection.execute, "SELECT count(*) FROM t")
        return int(cursor.fetchone()[0])

    with faulty_sqlite():
        assert loop.run_until_complete(process.spawn(work())) == 0


# ---------------------------------------------------------------- the network


class Wire:
    """A host and a server that notes what it receives."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.network = Network(loop, random.Random(7), (0.001, 0.3))
        self.server = a_process(loop, "server", on_death=self.network.process_died)
        self.host = a_process(loop, "host", on_death=self.network.process_died)
        self.received: list[str] = []
        self.closed_at: float | None = None
        self.network.listen(self.server, self._listen)

    async def _listen(self, socket: Socket, _: str) -> None:
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            self.received.append(message.data)
        self.closed_at = self.loop.now

    def run(self, client: Callable[[Socket], Coroutine[Any, Any, None]], seconds: float = 100.0) -> None:
        async def connect() -> None:
            async with self.network.connect("host") as socket:
                await client(socket)

        self.host.spawn(connect())
        self.loop.run_until_complete(asyncio.sleep(seconds))


async def send_ten(socket: Socket) -> None:
    for number in range(10):
        await socket.send_frame(str(number).encode(), WSMsgType.TEXT)


def test_frames_arrive_in_order_and_the_end_behind_them(loop: VirtualLoop) -> None:
    wire = Wire(loop)
    wire.run(send_ten)
    assert wire.received == [str(number) for number in range(10)]
    assert wire.closed_at is not None


def test_a_cut_way_holds_frames_back_and_the_other_way_goes_on(loop: VirtualLoop) -> None:
    wire = Wire(loop)
    link = wire.network.link("host")

    async def client(socket: Socket) -> None:
        link.up.cut()
        await send_ten(socket)
        await asyncio.sleep(30)
        assert wire.received == []
        link.up.mend()
        await asyncio.sleep(1)

    wire.run(client)
    assert wire.received == [str(number) for number in range(10)]


def test_a_dropped_connection_loses_what_is_under_way_and_both_ends_know(loop: VirtualLoop) -> None:
    wire = Wire(loop)
    seen: list[WSMsgType] = []

    async def client(socket: Socket) -> None:
        wire.network.link("host").up.delay_s = 10
        await send_ten(socket)
        wire.network.drop("host")
        seen.append((await socket.receive()).type)

    wire.run(client)
    assert wire.received == []
    assert seen == [WSMsgType.CLOSED]
    assert wire.closed_at is not None


def test_the_kernel_closes_what_a_killed_process_leaves_open(loop: VirtualLoop) -> None:
    wire = Wire(loop)

    async def client(_: Socket) -> None:
        await asyncio.sleep(1000)

    loop.after(10, wire.host.kill, None)
    wire.run(client)
    assert wire.closed_at is not None
    assert 10 < wire.closed_at < 11


def test_nobody_listens(loop: VirtualLoop) -> None:
    wire = Wire(loop)
    wire.server.kill()
    refused: list[bool] = []

    async def connect() -> None:
        with pytest.raises(ConnectionRefusedError):
            async with wire.network.connect("host"):
                pass
        refused.append(True)

    wire.host.spawn(connect())
    loop.run_until_complete(asyncio.sleep(10))
    assert refused == [True]


@pytest.mark.parametrize(
    ("how", "arrive"),
    [("lost", ["b"]), ("doubled", ["SET", "SET", "b"]), ("swapped", ["b", "SET"])],
)
def test_sets_of_assignments_may_be_spoilt(loop: VirtualLoop, how: str, arrive: list[str]) -> None:
    wire = Wire(loop)
    a_set = b'{"type":"Assignments","revision":1}'

    async def client(socket: Socket) -> None:
        wire.network.link("host").up.spoiling.append(how)
        for frame in (a_set, b"b"):
            await socket.send_frame(frame, WSMsgType.TEXT)

    wire.run(client)
    assert [text.replace(a_set.decode(), "SET") for text in wire.received] == arrive


# ---------------------------------------------------------------- shrinking


def test_a_failing_plan_is_shrunk_to_the_acts_that_matter() -> None:
    plan = generate(3)
    first, last = plan.acts[2], plan.acts[-2]
    runs = 0

    def run(candidate: Any) -> Outcome:
        nonlocal runs
        runs += 1
        fails = first in candidate.acts and last in candidate.acts
        return Outcome(seed=candidate.seed, invariant="broken" if fails else "")

    short, outcome = shrunk(plan, run(plan), run)
    assert short == replace(plan, acts=(first, last), hosts=short.hosts)
    assert len(short.hosts) == 1
    assert outcome.invariant == "broken"
    assert runs < 150
