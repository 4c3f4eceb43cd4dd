"""What was kept is kept: after kill -9 at any instant, and on a disk that is really full."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.logs.api import LogStore, StoreUnavailable
from controlplane.logs.space import Disk
from controlplane.logs.store import SegmentLogStore
from homeport.protocol import LogKind
from tests.fakes.clock import ManualClock
from tests.fakes.log_writer import GROUP, WORKERS, line
from tests.unit.log_store_cases import T0, make, put

MIB = 1024 * 1024


def write_and_kill(root: Path, acknowledged: dict[str, int], lines: int) -> None:
    """Run the writer until it has said so many lines, kill it, and note what it said."""
    command = [sys.executable, "-m", "tests.fakes.log_writer", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            said = writer.stdout.readline()
            assert said, "the writer has ended"
        writer.kill()
        rest = writer.stdout.read()
        for told in [said, *rest.splitlines(keepends=True)]:
            if told.endswith("\n"):
                stream, following = told.split()
                acknowledged[stream] = max(int(following), acknowledged.get(stream, 0))


async def test_what_was_kept_survives_kill_9(tmp_path: Path) -> None:
    source = random.Random(int(os.environ.get("HOMEPORT_TEST_SEED", time.time_ns())))
    acknowledged: dict[str, int] = {}
    for _ in range(3):
        write_and_kill(tmp_path, acknowledged, source.randint(1, 150))
    assert sum(acknowledged.values()) > WORKERS
    async with SegmentLogStore.open(tmp_path) as store:
        for number in range(WORKERS):
            stream = f"s{number}"
            known = await store.stream(GROUP, stream)
            assert known.shipped_next >= acknowledged.get(stream, 1)
            assert (known.next_number, known.position or "1") == (known.shipped_next, str(known.shipped_next))
            events = await store.read(GROUP, stream, max_bytes=1 << 40, limit=1 << 40)
            assert [(event.number, event.text) for event in events] == [
                (n, line(stream, n)) for n in range(1, known.next_number)
            ]


# ---------------------------------------------------------------- a disk that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"can't mount here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def put_until_refused(store: LogStore, source: random.Random) -> None:
    for n in range(1000):
        await put(store, "g", "s", source.randbytes(100_000).hex(), at=T0 + n)


@pytest.mark.parametrize("sees", [True, False], ids=["the-reserve", "no-room"])
async def test_a_full_disk_refuses_and_heals(small_disk: Path, sees: bool) -> None:
    """By its own reserve; and, as others may fill the disk at any time, by what SQLite and the files say."""
    clock = ManualClock(T0 / 1000)
    source = random.Random(1)
    plenty = None if sees else lambda _: Disk(total=1 << 50, free=1 << 49)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 6 * MIB)
    async with SegmentLogStore.open(small_disk / "logs", clock, measure=plenty) as store:
        await make(store, "g", "s")
        with pytest.raises(StoreUnavailable, match=rf"are free.* {small_disk}|{small_disk}.* full.* are free there"):
            await put_until_refused(store, source)
        assert str(small_disk) in store.usage().problem
        kept = await store.read("g", "s", max_bytes=1 << 40)
        assert 3 < len(kept) == (await store.stream("g", "s")).next_number - 1
        if sees:
            assert os.statvfs(small_disk).f_bavail
    async with SegmentLogStore.open(small_disk / "logs", clock, measure=plenty) as store:
        ballast.unlink()
        clock.time += 10
        await store.tend()
        assert store.usage().problem == ""
        assert await store.read("g", "s", max_bytes=1 << 40) == kept
        await put(store, "g", "s", "after", at=T0 + 10_000)
        assert (await store.read("g", "s", newest=True, limit=1))[0].text == "after"


async def test_a_store_that_cannot_be_opened_opens_once_it_can(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 8192))
    async with SegmentLogStore.open(small_disk / "logs", ManualClock(T0 / 1000)) as store:
        assert store.usage().problem
        with pytest.raises(StoreUnavailable, match="logs"):
            store.groups()
        with pytest.raises(StoreUnavailable, match="logs"):
            await put(store, "g", "s", "no")
        await store.tend()
        ballast.unlink()
        await store.tend()
        assert store.usage().problem == ""
        await make(store, "g", "s")
        await put(store, "g", "s", "yes")


async def test_room_is_made_where_even_the_catalog_has_none(small_disk: Path) -> None:
    """Others have filled the disk: the oldest logs go, and what stays can be read."""
    clock = ManualClock(T0 / 1000)
    source = random.Random(1)
    root = small_disk / "logs"
    async with SegmentLogStore.open(root, clock, limit_bytes=8 * MIB) as store:
        await make(store, "g", "s")
        for n in range(20):
            await put(store, "g", "s", source.randbytes(100_000).hex(), at=T0 + n * 86_400_000 * 2)
            await store.seal()
        await store.tend()
    (small_disk / "others").write_bytes(b"\0" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    async with SegmentLogStore.open(root, clock, limit_bytes=8 * MIB) as store:
        for _ in range(3):
            with suppress(StoreUnavailable):
                await store.tend()
        assert store.usage().problem == ""
        kept = await store.read("g", "s", max_bytes=1 << 40)
        assert [event.number for event in kept] == list(range(21 - len(kept), 21))
        assert 5 < len(kept) < 18
        assert all(event.kind is LogKind.STDOUT for event in kept)
        await put(store, "g", "s", "after", at=T0)
