"""Reading the log store touches what it must and no more, in bounded memory, and waits for nobody."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from controlplane.logs import database
from controlplane.logs.api import StoredEvent
from controlplane.logs.pieces import Piece
from controlplane.logs.reading import merged
from controlplane.logs.store import SegmentLogStore
from tests.fakes.clock import ManualClock
from tests.unit.log_store_cases import T0, make, put, scanned, texts

MINUTE_MS = 60_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SegmentLogStore]:
    async with SegmentLogStore.open(tmp_path, ManualClock(T0 / 1000)) as store:
        yield store


class Blocks:
    """Counts the blocks that are read."""

    def __init__(self, store: SegmentLogStore) -> None:
        self._store = store
        self._before = store.blocks_read

    def read(self) -> int:
        found, self._before = self._store.blocks_read - self._before, self._store.blocks_read
        return found


async def fill(store: SegmentLogStore, minutes: int = 240) -> None:
    """Four streams of one block for every ten minutes, of a line a minute."""
    await make(store, "g", *"abcd")
    for begin in range(0, minutes, 10):
        for name in "abcd":
            await put(
                store, "g", name, *(f"{name}{begin + n}" for n in range(10)), at=T0 + begin * MINUTE_MS, step=MINUTE_MS
            )
        await store.seal()


async def test_the_last_lines_are_in_the_last_block(store: SegmentLogStore) -> None:
    await fill(store)
    blocks = Blocks(store)
    assert texts(await store.read("g", "a", newest=True, limit=3)) == ["a237", "a238", "a239"]
    assert blocks.read() == 1
    assert len(await store.read("g", "a", newest=True, limit=11)) == 11
    assert blocks.read() == 2
    await put(store, "g", "a", *(f"tail{n}" for n in range(5)), at=T0 + 240 * MINUTE_MS)
    assert texts(await store.read("g", "a", newest=True, limit=2)) == ["tail3", "tail4"]
    assert blocks.read() == 0


async def test_a_page_reads_its_own_blocks(store: SegmentLogStore) -> None:
    await fill(store)
    blocks = Blocks(store)
    assert texts(await store.read("g", "a", limit=3)) == ["a0", "a1", "a2"]
    assert blocks.read() == 1
    middle = (await store.read("g", "a", start=T0 + 95 * MINUTE_MS, limit=3))[0]
    assert (middle.text, blocks.read()) == ("a95", 1)
    assert texts(await store.read("g", "a", after=middle.key, limit=3)) == ["a96", "a97", "a98"]
    assert blocks.read() == 1
    assert texts(await store.read("g", "a", before=middle.key, limit=3, newest=True)) == ["a92", "a93", "a94"]
    assert blocks.read() == 1


async def test_a_search_of_an_hour_reads_that_hour(store: SegmentLogStore) -> None:
    await fill(store)
    assert await store.blocks() == 96
    blocks = Blocks(store)
    begin, end = T0 + 60 * MINUTE_MS, T0 + 120 * MINUTE_MS
    found = await scanned(store, "g", start=begin, end=end)
    assert [event.text for _, event in found] == [f"{name}{n}" for n in range(60, 120) for name in "abcd"]
    assert blocks.read() == 24
    assert len(await scanned(store, "g", streams=["b"], start=begin, end=end)) == 60
    assert blocks.read() == 6
    assert len(await scanned(store, "g", prefix="c", start=begin, end=end)) == 60
    assert blocks.read() == 6
    assert len(await scanned(store, "g", after=(T0 + 230 * MINUTE_MS - 1, "z", 0))) == 40
    assert blocks.read() == 4


async def test_a_search_of_many_streams_by_prefix_reads_theirs(store: SegmentLogStore) -> None:
    await make(store, "g", *(f"{kind}/{n}" for kind in "xy" for n in range(70)))
    for kind in "xy":
        for n in range(70):
            await put(store, "g", f"{kind}/{n}", "line", at=T0 + n)
    await store.seal()
    await put(store, "g", "x/0", "tail", at=T0 + 500)
    await put(store, "g", "y/0", "tail", at=T0 + 500)
    blocks = Blocks(store)
    found = await scanned(store, "g", prefix="x/")
    assert [name for name, _ in found] == [f"x/{n}" for n in range(70)] + ["x/0"]
    assert blocks.read() == 70


async def test_a_search_that_stops_early_reads_little(store: SegmentLogStore) -> None:
    await fill(store)
    blocks = Blocks(store)
    chunks = store.scan("g")
    while not await anext(chunks):
        pass
    await chunks.aclose()
    assert blocks.read() <= 5


async def test_a_search_sees_what_was_there_when_it_began(store: SegmentLogStore) -> None:
    await fill(store, minutes=30)
    await put(store, "g", "a", "tail", at=T0 + 100 * MINUTE_MS)
    wanted = await scanned(store, "g")
    chunks = store.scan("g")
    found = list(await anext(chunks))
    await put(store, "g", "b", "later", at=T0 + 99 * MINUTE_MS)
    await store.seal()
    await put(store, "g", "c", "later still", at=T0 + 99 * MINUTE_MS)
    found += [pair async for chunk in chunks for pair in chunk]
    assert found == wanted


# ---------------------------------------------------------------- merging


@given(
    seed=st.integers(0, 1 << 30),
    streams=st.integers(1, 6),
    pieces=st.integers(0, 30),
    held_bytes=st.sampled_from([1, 100, 500, 1 << 30]),
)
def test_any_pieces_are_merged(seed: int, streams: int, pieces: int, held_bytes: int) -> None:
    source = random.Random(seed)
    events: dict[int, list[StoredEvent]] = {}
    found: list[Piece] = []
    for number in range(pieces):
        begin, span = source.randrange(50), source.choice([0, 3, 60])
        ats = sorted(begin + source.randint(0, span) for _ in range(source.randint(1, 6)))
        events[number] = [StoredEvent(at, number * 10 + n, 0, "x" * 10) for n, at in enumerate(ats)]
        found.append(
            Piece(
                stream=f"s{source.randrange(streams)}",
                first_at=ats[0],
                last_at=ats[-1],
                first_number=number * 10,
                count=len(ats),
                size=0,
                block=number,
            )
        )
    held: list[int] = []

    def load(piece: Piece) -> list[StoredEvent]:
        held.append(piece.block)
        return [event for event in events[piece.block] if event.at >= piece.first_at]

    found.sort(key=lambda piece: piece.first_at)
    chunks = list(merged(iter(found), load, held_bytes=held_bytes))
    wanted = sorted((e.at, piece.stream, e.number, e) for piece in found for e in events[piece.block])
    assert [entry for chunk in chunks for entry in chunk] == wanted
    if held_bytes == 1 << 30:
        assert len(held) == pieces


def test_what_is_held_is_bounded() -> None:
    """A hundred streams that all span the whole time: each is loaded again, and never all are held."""
    events = {s: [StoredEvent(at * 100 + s, at, 0, "x" * 74) for at in range(50)] for s in range(100)}
    pieces = [
        Piece(stream=f"{s:03}", first_at=s, last_at=4900 + s, first_number=1, count=50, size=5000, block=s)
        for s in range(100)
    ]
    largest = loads = 0

    def load(piece: Piece) -> list[StoredEvent]:
        nonlocal loads
        loads += 1
        return [event for event in events[piece.block] if event.at >= piece.first_at]

    count = 0
    for chunk in merged(iter(pieces), load, held_bytes=50_000):
        largest = max(largest, len(chunk))
        count += len(chunk)
    assert count == 5000
    assert largest < 1500
    assert 100 < loads < 3000


# ---------------------------------------------------------------- side by side


@contextmanager
def writer_held(store: SegmentLogStore) -> Iterator[threading.Event]:
    """Keep the writer's thread from doing anything."""
    go_on = threading.Event()
    held = store._database.submit(lambda _: go_on.wait(30))
    try:
        yield go_on
    finally:
        go_on.set()
        assert not held.cancelled()


async def test_readers_do_not_wait_for_the_writer(store: SegmentLogStore) -> None:
    await make(store, "g", "s")
    await put(store, "g", "s", "a")
    with writer_held(store):
        async with asyncio.timeout(10):
            assert texts(await store.read("g", "s")) == ["a"]
            assert len(await scanned(store, "g")) == 1
            assert (await store.stream("g", "s")).next_number == 2


async def test_appends_share_a_commit(store: SegmentLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [f"s{n}" for n in range(200)]
    await make(store, "g", *streams)
    commits = 0
    transaction = database.transaction

    def counted(connection: object) -> object:
        nonlocal commits
        commits += 1
        return transaction(connection)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "transaction", counted)
    async with asyncio.TaskGroup() as group:
        for name in streams:
            group.create_task(put(store, "g", name, "line"))
    assert commits <= 3
    assert len(await scanned(store, "g")) == 200


async def test_a_write_that_is_cancelled_is_whole_or_not_there(store: SegmentLogStore) -> None:
    await make(store, "g", "s")
    async with asyncio.TaskGroup() as group:
        with writer_held(store):
            writing = group.create_task(put(store, "g", "s", "a"))
            await asyncio.sleep(0)
            writing.cancel()
    await put(store, "g", "s", "b")
    known = await store.stream("g", "s")
    assert texts(await store.read("g", "s")) == ["a", "b"][3 - known.next_number :]
    assert store.group("g").stored_bytes == known.stored_bytes


async def test_what_one_gives_wrong_does_not_harm_another(store: SegmentLogStore) -> None:
    await make(store, "g", "s", "t")
    with writer_held(store):
        wrong = asyncio.gather(put(store, "g", "s", "x", at=1 << 70), return_exceptions=True)
        right = asyncio.gather(put(store, "g", "t", "y"))
        await asyncio.sleep(0)
    assert isinstance((await wrong)[0], OverflowError)
    await right
    assert await store.read("g", "s") == []
    assert texts(await store.read("g", "t")) == ["y"]
    assert store.usage().problem == ""
