"""What leaves the log store: what has expired, is beyond the limit, or is deleted; and what is refused for room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from controlplane.log_metrics import LogStoreCollector, LogStoreMetrics
from controlplane.logs.api import LogEvent, LogGroup, Shipment, StoreUnavailable, StreamMissing
from controlplane.logs.space import Disk, Space
from controlplane.logs.store import SegmentLogStore
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import eventually
from tests.fakes.segment_files import FailingFiles
from tests.unit.log_store_cases import T0, lines, make, put, scanned, texts

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MIB = 1024 * 1024
GIB = 1024 * MIB


class World:
    """A store on a disk and at a time that tests choose."""

    def __init__(self, root: Path, limit_bytes: int = GIB) -> None:
        self.root = root
        self.clock = ManualClock(T0 / 1000)
        self.disk = Disk(total=100 * GIB, free=50 * GIB)
        self.limit_bytes = limit_bytes
        self.files = FailingFiles(root / "segments")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SegmentLogStore]:
        async with SegmentLogStore.open(
            self.root, self.clock, limit_bytes=self.limit_bytes, files=self.files, measure=lambda _: self.disk
        ) as store:
            yield store

    def segments(self) -> int:
        return len(list(self.root.glob("segments/*/*.seg")))


def noise(n: int, size: int) -> str:
    """Return a text that doesn't compress well, another one for each `n`."""
    return "".join(f"{(n * 1_000_003 + k) * 2_654_435_761 % (1 << 64):016x}" for k in range(size // 16))


async def put_much(store: SegmentLogStore, *, sealed: bool = False) -> None:
    for n in range(100):
        await put(store, "g", "s", noise(n, 300_000), at=T0 + n)
        if sealed:
            await store.seal()


# ---------------------------------------------------------------- by age


async def test_what_has_expired_is_hidden_at_once_and_removed_soon(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await make(store, "g", "s")
        for hour in range(0, 72, 12):
            await put(store, "g", "s", str(hour), at=T0 + hour * HOUR_MS)
            await store.seal()
        await put(store, "g", "s", "tail", at=T0 + 71 * HOUR_MS)
        world.clock.time += 3 * 86_400
        await store.tend()
        assert (len(await store.read("g", "s")), world.segments()) == (7, 3)
        await store.change_group("g", lambda group: replace(group, retention_days=1))
        wanted = ["48", "60", "tail"]
        assert texts(await store.read("g", "s")) == wanted
        assert [event.text for _, event in await scanned(store, "g")] == wanted
        assert (await store.stream("g", "s")).first_at == T0
        await store.tend()
        assert texts(await store.read("g", "s")) == wanted
        known = await store.stream("g", "s")
        assert (known.first_at, known.last_at) == (T0 + 48 * HOUR_MS, T0 + 71 * HOUR_MS)
        assert known.stored_bytes == store.group("g").stored_bytes == 28 + 28 + 30
        assert world.segments() == 2
        world.clock.time += 86_400
        await store.tend()
        known = await store.stream("g", "s")
        assert (known.first_at, known.last_at, known.stored_bytes, known.next_number) == (None, None, 0, 8)
        assert (await store.blocks(), world.segments(), store.group("g").stored_bytes) == (0, 0, 0)


async def test_a_block_that_has_expired_in_part_hides_that_part(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await store.create_group(LogGroup(name="g", created_at=T0, retention_days=1))
        await store.create_stream("g", "s", at=T0)
        await put(store, "g", "s", "old", "new", step=2 * 60_000)
        await store.seal()
        world.clock.time += 86_400 + 60
        await store.tend()
        assert texts(await store.read("g", "s")) == ["new"]
        assert texts(await store.read("g", "s", start=0, newest=True)) == ["new"]
        assert await store.blocks() == 1


async def test_containers_streams_go_once_nothing_is_left_of_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await store.create_group(LogGroup(name="g", created_at=T0, retention_days=7))
        await make(store, "forever", "ended", "made")
        for name in ("ended", "silent", "lost", "made", "active"):
            await store.create_stream("g", name, at=T0)
        end = Shipment(first=2, position="p", end=True)
        for group, name in (("g", "ended"), ("forever", "ended")):
            await store.append(group, name, lines("x"), ingested_at=T0, shipment=end)
        await store.append("g", "silent", [], ingested_at=T0, shipment=replace(end, first=1))
        await store.append("g", "lost", lines("x"), ingested_at=T0, shipment=replace(end, first=1, end=False))
        await put(store, "g", "made", "x")
        await store.append("g", "active", [], ingested_at=T0, shipment=replace(end, first=1, end=False))
        world.clock.time += 6 * 86_400
        late = [LogEvent(T0 + 6 * DAY_MS, "late")]
        await store.append("g", "active", late, ingested_at=T0 + 6 * DAY_MS, shipment=replace(end, first=2, end=False))
        await store.tend()
        assert len(await store.streams("g")) == 5
        async with asyncio.TaskGroup() as followers, asyncio.timeout(10):
            followers.create_task(store.grown("g", "lost", 1))
            await store.stream("g", "lost")
            world.clock.time += 2 * 86_400
            await store.tend()
        assert [stream.name for stream in await store.streams("g")] == ["active", "made"]
        world.clock.time += 365 * 86_400
        await store.tend()
        assert [stream.name for stream in await store.streams("g")] == ["made"]
        assert [stream.name for stream in await store.streams("forever")] == ["ended", "made"]


# ---------------------------------------------------------------- by size


async def test_beyond_the_limit_the_oldest_go_first(tmp_path: Path) -> None:
    world = World(tmp_path, limit_bytes=4 * MIB)
    async with world.opened() as store:
        await make(store, "a", "s")
        await make(store, "b", "s")
        for n in range(24):
            group = "ab"[n % 2]
            # A day apart each, so that each is a segment of its own.
            await put(store, group, "s", noise(n, 600_000), at=T0 + n * DAY_MS * 2)
            await store.tend()
            assert store.usage().used_bytes <= 4 * MIB
        events = [event for group in "ab" for event in await store.read(group, "s", max_bytes=GIB)]
        kept = sorted((event.at - T0) // DAY_MS // 2 for event in events)
        assert kept == list(range(24 - len(kept), 24))
        assert 6 <= len(kept) <= 22
        oldest = min([(await store.stream(group, "s")).first_at or 0 for group in "ab"])
        assert oldest == T0 + kept[0] * DAY_MS * 2
        sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
        assert sizes.pop("catalog.db-wal") < 17 * MIB
        assert sum(sizes.values()) < 6 * MIB
        assert store.usage().problem == ""
        assert store.usage().limit_bytes == 4 * MIB


async def test_who_writes_fast_is_not_refused_while_the_oldest_go(tmp_path: Path) -> None:
    """Room is made when it is needed, not when it is time."""
    world = World(tmp_path, limit_bytes=2 * MIB)
    async with world.opened() as store, asyncio.TaskGroup() as group:
        running = group.create_task(store.run())
        await make(store, "g", "s")
        for n in range(250):
            await put(store, "g", "s", noise(n, 40_000), at=T0 + n)
        running.cancel()
        assert store.usage().problem == ""
        assert store.usage().used_bytes < 3 * MIB


async def test_a_stream_whose_open_segment_went_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, limit_bytes=2 * MIB)
    async with world.opened() as store:
        await make(store, "g", "idle", "busy")
        await put(store, "g", "idle", "before")
        await store.seal()
        for n in range(12):
            await put(store, "g", "busy", noise(n, 600_000), at=T0 + n * DAY_MS * 2)
            await store.tend()
        assert await store.read("g", "idle") == []
        await put(store, "g", "idle", "after", at=T0 + 100 * DAY_MS)
        await store.seal()
        assert texts(await store.read("g", "idle")) == ["after"]


async def test_nothing_is_taken_beyond_the_limit_until_there_is_room(tmp_path: Path) -> None:
    world = World(tmp_path, limit_bytes=2 * MIB)
    async with world.opened() as store:
        await make(store, "g", "s")
        with pytest.raises(StoreUnavailable, match=rf"MiB are kept in {tmp_path}, the limit is 2.0 MiB"):
            await put_much(store, sealed=True)  # and nobody tends it
        assert "the limit is 2.0 MiB" in store.usage().problem
        await store.tend()
        assert store.usage().problem == ""
        await put(store, "g", "s", "again", at=T0 + 1000)
        assert texts(await store.read("g", "s", newest=True, limit=1)) == ["again"]


# ---------------------------------------------------------------- the disk


def test_what_is_left_to_others() -> None:
    root = Path("/logs")
    disk = Disk(total=100 * GIB, free=50 * GIB)
    space = Space(root, 10 * GIB, measure=lambda _: disk)
    assert space.allowed(GIB) == 10 * GIB
    disk = Disk(total=100 * GIB, free=3 * GIB)
    assert space.allowed(4 * GIB) == 6 * GIB
    space.check(4 * GIB)
    disk = Disk(total=100 * GIB, free=GIB // 2)
    assert space.allowed(4 * GIB) == 4 * GIB - GIB // 2
    assert space.allowed(GIB) == GIB  # the last tenth of the limit stays
    space.check(GIB)
    disk = Disk(total=100 * GIB, free=GIB // 4)
    with pytest.raises(StoreUnavailable, match=r"256.0 MiB of 100.0 GiB are free on the disk of /logs, .* 512.0 MiB"):
        space.check(GIB)
    disk = Disk(total=100 * MIB, free=6 * MIB)
    assert space.allowed(20 * MIB) == 20 * MIB
    space.check(20 * MIB)


async def test_a_full_disk_refuses_with_a_reason_and_heals(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await make(store, "g", "s")
        await put(store, "g", "s", "before")
        world.disk = replace(world.disk, free=100 * MIB)
        for refused in (
            put(store, "g", "s", "no"),
            store.create_stream("g", "t", at=T0),
            store.create_group(LogGroup(name="h", created_at=T0)),
        ):
            with pytest.raises(StoreUnavailable, match=rf"100.0 MiB of 100.0 GiB are free on the disk of {tmp_path}"):
                await refused
        assert "512.0 MiB are kept for the control plane" in store.usage().problem
        assert texts(await store.read("g", "s")) == ["before"]
        with pytest.raises(StoreUnavailable):
            await store.tend()
        assert store.usage().problem
        await store.delete_stream("g", "s")
        world.disk = replace(world.disk, free=10 * GIB)
        await store.tend()
        assert store.usage().problem == ""
        await store.create_stream("g", "s", at=T0)
        await put(store, "g", "s", "after")
        assert texts(await store.read("g", "s")) == ["after"]


async def test_while_sealing_fails_tails_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    world = World(tmp_path, limit_bytes=16 * MIB)
    async with world.opened() as store:
        await make(store, "g", "s")
        world.files.full = True
        with pytest.raises(StoreUnavailable, match=r"wait in .* to be sealed: .*No space left on device"):
            await put_much(store)
        world.files.full = False
        kept = await store.read("g", "s", max_bytes=GIB)
        assert 10 < len(kept) < 20
        assert [event.number for event in kept] == list(range(1, len(kept) + 1))
        with pytest.raises(StoreUnavailable):
            await store.tend()  # not yet: it waits a while after a failure
        world.clock.time += 6
        await store.tend()
        await store.seal()
        await store.tend()
        assert store.usage().problem == ""
        assert await store.blocks() >= len(kept) // 2
        assert await store.read("g", "s", max_bytes=GIB) == kept


async def test_whoever_writes_faster_than_can_be_sealed_waits(tmp_path: Path) -> None:
    world = World(tmp_path, limit_bytes=16 * MIB)  # of which tails should be 2 MiB, and may be 4
    async with world.opened() as store:
        streams = [f"s{n}" for n in range(100)]
        await make(store, "g", *streams)

        async def write(name: str) -> None:
            for n in range(5):
                await put(store, "g", name, "x" * 50_000, at=T0 + n)

        async with asyncio.TaskGroup() as group:
            for name in streams:
                group.create_task(write(name))
        assert len(await scanned(store, "g")) == 500


# ---------------------------------------------------------------- what is deleted


async def test_files_of_what_is_deleted_go(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await make(store, "g", *(f"s{n}" for n in range(30)))
        await make(store, "h", "s0")
        for n in range(30):
            await put(store, "g", f"s{n}", "x")
        await put(store, "h", "s0", "x")
        await store.seal()
        await put(store, "g", "s0", "tail", at=T0 + 1)
        await store.delete_stream("g", "s3")
        await store.tend()
        assert world.segments() == 30
        await store.delete_group("g")
        await store.tend()
        assert (world.segments(), await store.blocks()) == (1, 1)
        assert len(await store.read("h", "s0")) == 1
        with pytest.raises(StreamMissing):
            await store.read("h", "s3")


async def test_a_scan_goes_on_while_what_it_reads_is_removed(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        await make(store, "g", "s", "t")
        for n in range(8):
            await put(store, "g", "st"[n % 2], str(n), at=T0 + n * DAY_MS)
            await store.seal()
        chunks = store.scan("g")
        found = [event.text for _, event in await anext(chunks)]
        await store.delete_stream("g", "s")
        await store.tend()
        async for chunk in chunks:
            found += [event.text for _, event in chunk]
        assert found == [text for text in map(str, range(8)) if text in found]
        assert set("1357") <= set(found)


# ---------------------------------------------------------------- metrics


async def test_metrics_tell_what_is_kept_read_and_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    registry = CollectorRegistry()
    observer = LogStoreMetrics(registry)
    async with SegmentLogStore.open(
        tmp_path, world.clock, limit_bytes=GIB, observe=observer, measure=lambda _: world.disk
    ) as store:
        registry.register(LogStoreCollector(store))
        await make(store, "g", "s")
        await put(store, "g", "s", "a", "b")
        await store.seal()
        await store.read("g", "s")
        await scanned(store, "g")
        value = registry.get_sample_value
        assert value("homeport_log_events_total") == 2
        assert value("homeport_log_event_bytes_total") == 54
        assert value("homeport_log_blocks_read_total") == 2
        assert value("homeport_log_store_limit_bytes") == GIB
        assert 0 < (value("homeport_log_store_used_bytes") or 0) < MIB
        assert value("homeport_log_store_available") == 1
        world.disk = replace(world.disk, free=0)
        with pytest.raises(StoreUnavailable):
            await put(store, "g", "s", "c")
        assert value("homeport_log_writes_refused_total") == 1
        assert value("homeport_log_store_available") == 0


async def test_nothing_that_goes_wrong_in_the_background_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    async with world.opened() as store:
        tries: list[str] = []
        tend = store.tend

        async def fail() -> None:
            store._look()  # at once again, not in two seconds
            tries.append("")
            if len(tries) == 1:
                raise RuntimeError("what nobody thought of")
            if len(tries) == 2:
                raise StoreUnavailable("no room")
            await tend()

        monkeypatch.setattr(store, "tend", fail)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(store.run())
            await eventually(lambda: len(tries) > 2 and store.usage().problem == "")
            running.cancel()
