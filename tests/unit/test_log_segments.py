"""What is on the disk: blocks that tell damage, names that never become paths, files and catalog that come together."""

import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from controlplane.logs.api import LogEvent, LogGroup, LogStream, Shipment, StoredEvent, StoreUnavailable, size_of
from controlplane.logs.blocks import (
    BLOCK_BYTES,
    SPAN_MS,
    BlockDamaged,
    blocks_in,
    decode_block,
    encode_block,
    partition,
)
from controlplane.logs.sealing import Tails, seal
from controlplane.logs.segments import SegmentFiles
from controlplane.logs.store import SegmentLogStore
from homeport.errors import ConfigurationError
from homeport.protocol import LogKind
from tests.fakes.clock import ManualClock
from tests.fakes.fleet import eventually
from tests.fakes.segment_files import FailingFiles
from tests.unit.log_store_cases import T0, lines, make, put, scanned, texts

GROUP = LogGroup(name="/g", created_at=1)
STREAM = LogStream(group="/g", name="s", created_at=2)
MIB = 1024 * 1024

stored = st.builds(
    StoredEvent,
    at=st.integers(-(2**53), 2**53),
    number=st.integers(1, 2**53),
    ingested_at=st.integers(0, 2**53),
    text=st.text(),
    kind=st.sampled_from(LogKind),
)


@asynccontextmanager
async def opened(root: Path, clock: ManualClock | None = None) -> AsyncIterator[SegmentLogStore]:
    async with SegmentLogStore.open(root, clock or ManualClock(T0 / 1000)) as store:
        yield store


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("segments/*/*.seg"))


def blocks_on_disk(root: Path) -> int:
    return sum(len(list(blocks_in(path.read_bytes()))) for path in segments(root))


# ---------------------------------------------------------------- blocks


@given(st.lists(stored, min_size=1, max_size=20))
def test_a_block_gives_back_its_events(events: list[StoredEvent]) -> None:
    events.sort(key=lambda event: event.key)
    header, block = encode_block(GROUP, STREAM, events)
    assert decode_block(block) == events
    assert [found for *_, found in blocks_in(block)] == [header]
    assert (header.first_at, header.last_at, header.count) == (events[0].at, events[-1].at, len(events))


@given(st.integers(0), st.integers(1, 255))
def test_a_block_tells_any_damage(place: int, change: int) -> None:
    _, block = encode_block(GROUP, STREAM, [StoredEvent(T0 + n, n + 1, T0, f"line {n}") for n in range(50)])
    damaged = bytearray(block)
    damaged[place % len(block)] ^= change
    with pytest.raises(BlockDamaged):
        decode_block(bytes(damaged))
    with pytest.raises(BlockDamaged):
        decode_block(block[: place % len(block)])


@given(st.lists(st.tuples(st.integers(0, 20_000_000), st.sampled_from([0, 10, 100_000, 300_000])), max_size=20))
@settings(deadline=None)
def test_events_are_cut_into_blocks(sizes: list[tuple[int, int]]) -> None:
    events = [StoredEvent(at, n, 0, "x" * size) for n, (at, size) in enumerate(sorted(sizes))]
    parts = [list(part) for part in partition(events)]
    assert [event for part in parts for event in part] == events
    for part in parts:
        assert part[-1].at - part[0].at <= SPAN_MS
        size = sum(size_of(event.text) for event in part)
        assert size < BLOCK_BYTES * 1.5 + max(size_of(event.text) for event in part)


# ---------------------------------------------------------------- when tails are sealed


def test_tails_are_sealed_by_size_age_and_end() -> None:
    tails = Tails(limit_bytes=1 << 40)
    tails.appended(1, 100, ended=False, now=0)
    tails.appended(2, 20_000, ended=False, now=0)
    tails.appended(3, 100, ended=True, now=0)
    tails.appended(4, BLOCK_BYTES, ended=False, now=0)
    tails.appended(5, 0, ended=True, now=0)
    assert list(tails.full()) == [4]
    assert list(tails.old(0)) == [3]
    assert list(tails.old(600)) == [2, 3, 4]
    assert list(tails.old(3600)) == [1, 2, 3, 4]
    tails.sealed(4, BLOCK_BYTES)
    tails.sealed(3, 100)
    assert list(tails.full()) == []
    assert list(tails.old(600)) == [2]
    assert tails.size == 20_100


def test_when_all_tails_are_large_the_largest_are_sealed() -> None:
    tails = Tails(limit_bytes=8 * 10_000)
    for stream in range(20):
        tails.appended(stream, 500 + stream, ended=False, now=0)
    assert list(tails.full()) == [19, 18, 17, 16, 15, 14, 13, 12]


async def test_full_tails_are_sealed_without_asking(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "s")
        for n in range(12):
            await put(store, "g", "s", "x" * 100_000, at=T0 + n)
        await eventually(lambda: blocks_on_disk(tmp_path) == 4)
        assert len(await store.read("g", "s", max_bytes=1 << 30)) == 12


async def test_an_ended_stream_is_sealed_at_the_next_look(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "s")
        await store.append("g", "s", lines("a"), ingested_at=T0, shipment=Shipment(first=1, position="p", end=True))
        assert await store.blocks() == 0
        await store.tend()
        assert await store.blocks() == 1


# ---------------------------------------------------------------- files


async def test_names_never_become_paths(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    async with opened(root) as store:
        for group in ("../../up", "/etc/passwd", "Ω\n.."):
            await make(store, group, "../../../up", "a/b", ".", "x" * 512)
            for stream in ("../../../up", "a/b", ".", "x" * 512):
                await put(store, group, stream, "line")
        await store.seal()
        for each in store.groups():
            assert len(await scanned(store, each.name)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert {path.name for path in root.iterdir()} == {"catalog.db", "lock", "segments"}
    assert [path.name for path in segments(root)] == [f"{n:09d}.seg" for n in range(1, 13)]
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_segment_is_rolled_by_size_and_by_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "big", "s")
        for n in range(24):
            await put(store, "big", "s", os.urandom(250_000).hex(), at=T0 + n)
            await store.seal()
        large = [path.stat().st_size for path in segments(tmp_path)]
        assert 4 * MIB < large[0] < 5 * MIB
        await make(store, "slow", "s")
        for hours in range(0, 72, 6):
            await put(store, "slow", "s", "x", at=T0 + hours * 3_600_000)
            await store.seal()
        assert len(segments(tmp_path)) == len(large) + 3


async def test_what_the_catalog_does_not_know_is_cut_or_removed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "s")
        await put(store, "g", "s", "a")
        await store.seal()
    (segment,) = segments(tmp_path)
    sound = segment.read_bytes()
    segment.write_bytes(sound + sound[:-1])
    unknown = segment.with_name("000000077.seg")
    unknown.write_bytes(sound)
    async with opened(tmp_path) as store:
        assert segment.read_bytes() == sound
        assert not unknown.exists()
        await put(store, "g", "s", "b", at=T0 + 1)
        await store.seal()
        assert texts(await store.read("g", "s")) == ["a", "b"]
        assert segments(tmp_path) == [segment]


async def test_one_store_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigurationError, match="in use"):
            async with opened(tmp_path):
                pass


# ---------------------------------------------------------------- damage


async def test_a_damaged_block_is_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "s", "t")
        for place, said in enumerate(("ab", "cdef", "gh")):
            await put(store, "g", "s", *said, at=T0 + place * 10_000)
            await store.seal()
        await put(store, "g", "t", "t", at=T0 + 12_500)
        (segment,) = segments(tmp_path)
        content = bytearray(segment.read_bytes())
        (_, first, _), (offset, length, _), _ = blocks_in(bytes(content))
        assert offset == first
        content[offset + length - 1] ^= 1
        segment.write_bytes(content)

        events = await store.read("g", "s")
        gap = events[2]
        assert texts(events[:2]) + texts(events[3:]) == ["a", "b", "g", "h"]
        assert (gap.kind, gap.at, gap.number) == (LogKind.GAP, T0 + 10_000, 3)
        assert gap.text == (
            "4 events from 2027-01-15T08:00:10.000Z to 2027-01-15T08:00:13.000Z can't be read:"
            f" of their block in {segment}, its checksum is wrong"
        )
        assert await store.read("g", "s", newest=True) == events
        assert texts(await store.read("g", "s", newest=True, limit=2)) == ["g", "h"]
        assert [event.text for _, event in await scanned(store, "g")] == ["a", "b", gap.text, "t", "g", "h"]
        (within,) = await store.read("g", "s", start=T0 + 12_000, end=T0 + 14_000)
        assert (within.kind, within.at) == (LogKind.GAP, T0 + 12_000)
        assert texts(await store.read("g", "s", after=gap.key)) == ["g", "h"]
        await put(store, "g", "s", "i", at=T0 + 90_000)
        await store.seal()
        assert len(await store.read("g", "s")) == 6


async def test_a_segment_that_is_gone_or_short_is_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "gone", "short")
        for stream in ("gone", "short"):
            await put(store, "g", stream, "a", "b")
        await store.seal()
    gone, short = segments(tmp_path)
    gone.unlink()
    os.truncate(short, short.stat().st_size - 1)
    async with opened(tmp_path) as store:
        for stream in ("gone", "short"):
            (gap,) = await store.read("g", stream)
            assert gap.kind is LogKind.GAP
            assert gap.text.startswith("2 events from ")
            await put(store, "g", stream, "c", at=T0 + 60_000)
            await store.seal()
            assert texts(await store.read("g", stream))[1:] == ["c"]


# ---------------------------------------------------------------- without a catalog


async def fill(store: SegmentLogStore) -> None:
    await make(store, "/a", "s/1", "s/2")
    await make(store, "/b", "s/1")
    await store.change_group("/a", lambda group: replace(group, retention_days=7, tags={"k": "v"}))
    for n in range(1, 4):
        shipment = Shipment(first=n, position=f"p{n}", end=n == 3)
        await store.append("/a", "s/1", lines(str(n), at=T0 + n), ingested_at=T0 + n, shipment=shipment)
        await store.seal()
    await put(store, "/a", "s/2", "x", "y")
    await put(store, "/b", "s/1", "z")
    await store.seal()


async def test_a_lost_catalog_is_made_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store)
        wanted = (
            list(store.groups()),
            [await store.stream("/a", name) for name in ("s/1", "s/2")],
            await scanned(store, "/a"),
            await scanned(store, "/b"),
        )
        await put(store, "/b", "s/1", "in the tail only", at=T0 + 99_999)
    for path in tmp_path.glob("catalog.db*"):
        path.unlink()
    async with opened(tmp_path) as store:
        assert wanted == (
            list(store.groups()),
            [await store.stream("/a", name) for name in ("s/1", "s/2")],
            await scanned(store, "/a"),
            await scanned(store, "/b"),
        )
        await put(store, "/b", "s/1", "more", at=T0 + 99_999)
        await store.seal()
        assert texts(await store.read("/b", "s/1")) == ["z", "more"]


async def test_a_catalog_made_again_does_not_take_for_shipped_what_it_has_lost(tmp_path: Path) -> None:
    files = FailingFiles(tmp_path / "segments")
    files.full = True  # so that nothing is sealed yet
    async with SegmentLogStore.open(tmp_path, ManualClock(T0 / 1000), files=files) as store:
        await make(store, "g", "s")
        for n in range(1, 6):
            shipment = Shipment(first=n, position=f"p{n}", end=n == 5)
            await store.append("g", "s", [LogEvent(T0 + n, "x" * 600_000)], ingested_at=T0, shipment=shipment)
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as connection:
        seal(connection, SegmentFiles(tmp_path / "segments"), [1])  # a part of a tail that is so large
    for path in tmp_path.glob("catalog.db*"):
        path.unlink()
    async with opened(tmp_path) as store:
        known = await store.stream("g", "s")
        assert (known.shipped_next, known.position, known.ended, known.next_number) == (5, "p4", False, 5)
        assert len(await store.read("g", "s", max_bytes=1 << 30)) == 4


async def test_what_was_written_ahead_of_a_lost_catalog_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store)
        wanted = await scanned(store, "/a")
        write_ahead = (tmp_path / "catalog.db-wal").read_bytes()
    (tmp_path / "catalog.db").unlink()
    (tmp_path / "catalog.db-wal").write_bytes(write_ahead)
    async with opened(tmp_path) as store:
        assert store.usage().problem == ""
        assert await scanned(store, "/a") == wanted


async def test_a_damaged_block_beyond_all_calendars_is_a_gap(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await make(store, "g", "s")
        await put(store, "g", "s", "x", at=1 << 60)
        await store.seal()
        (segment,) = segments(tmp_path)
        segment.write_bytes(b"x" * segment.stat().st_size)
        (gap,) = await store.read("g", "s")
        assert gap.text.startswith(f"1 event from {1 << 60} ms to ")


async def test_a_damaged_catalog_is_set_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store)
        wanted = await scanned(store, "/a")
    (tmp_path / "catalog.db").write_bytes(b"no database" * 1000)
    async with opened(tmp_path) as store:
        assert "not a database" in store.usage().problem
        with pytest.raises(StoreUnavailable, match="not a database"):
            store.groups()
        await store.tend()
        assert store.usage().problem == ""
        assert await scanned(store, "/a") == wanted
        assert (tmp_path / "catalog.damaged.db").exists()


async def write_until_refused(store: SegmentLogStore) -> None:
    for _ in range(100):
        await put(store, "/a", "s/2", "more")
        await store.tend()


async def test_a_catalog_damaged_while_in_use_is_set_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await fill(store)
    catalog = tmp_path / "catalog.db"
    content = bytearray(catalog.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    async with opened(tmp_path) as store:
        wanted = await scanned(store, "/a")
        catalog.write_bytes(content)
        with pytest.raises(StoreUnavailable, match="malformed"):
            await write_until_refused(store)
        with suppress(StoreUnavailable):
            await store.tend()
        await store.tend()
        assert store.usage().problem == ""
        assert [event for _, event in await scanned(store, "/a")][: len(wanted)] == [event for _, event in wanted]
