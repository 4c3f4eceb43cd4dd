"""What was said to be durable survives kill -9 at any instant, and a full disk."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from controlplane.state.state import load_state
from controlplane.store.sqlite import SqliteJournal, connect
from tests.fakes.journal_writer import STORY, WORKERS, counter

ROUNDS = 20
#: Fixed, so that a failure can be had again.
SEED = 1


def start(database: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.journal_writer", str(database), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def check(database: Path, acknowledged: list[str]) -> int:
    """Load what is there: whole commits only, and every one that was acknowledged. Return the revision."""
    async with SqliteJournal.open(database) as journal:
        state = await load_state(journal)
        reached = [counter(state, worker) for worker in range(WORKERS)]
        assert sum(reached) == state.revision
        assert len(await journal.story(STORY)) == state.revision
        await check_events(journal, reached)
        for line in acknowledged:
            revision, worker, count = map(int, line.split())
            assert revision <= state.revision
            assert count <= reached[worker]
        return state.revision


async def check_events(journal: SqliteJournal, reached: list[int]) -> None:
    """Each commit's event is there once, in order, and none of a commit that isn't."""
    stored = await journal.events(0, limit=10**6)
    assert [event.number for event in stored] == list(range(1, journal.last_event + 1))
    told: list[list[int]] = [[] for _ in reached]
    for event in stored:
        worker, count = msgspec.json.decode(event.facts)["detail"]["worker"]
        told[worker].append(count)
    assert told == [list(range(1, count + 1)) for count in reached]


async def test_every_acknowledged_commit_survives_kill_9(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    source = random.Random(SEED)
    last = 0
    for _ in range(ROUNDS):
        with start(database) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline() for _ in range(source.randint(1, 400))]
            process.send_signal(signal.SIGKILL)
            acknowledged += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        complete = [line for line in acknowledged if line.endswith("\n")]
        assert complete
        revision = await check(database, complete)
        assert revision > last
        last = revision


async def test_a_full_disk_stops_the_process_and_loses_nothing(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    process = start(database, "--limit-bytes", str(300 * 1024))
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert f"can't write {database}" in errors
    acknowledged = output.splitlines()
    assert acknowledged
    assert await check(database, acknowledged) >= len(acknowledged)
    with start(database) as process:  # with room again it goes on
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    """kill -9 leaves the page cache alone; that a power cut loses nothing either rests on these two settings."""
    async with SqliteJournal.open(tmp_path / "state.db"):
        connection = connect(tmp_path / "state.db")
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
